"""eStargz blobs made of real tars in plain Python, right or wrong in one chosen way."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import itertools
import json
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

BLOCK = 512
XATTR = "SCHILY.xattr."
TOC_NAME = "stargz.index.json"
_TYPES = {
    tarfile.REGTYPE: "reg",
    tarfile.AREGTYPE: "reg",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}
_FOOTERS = {
    "estargz": lambda offset: b"\x1a\0SG\x16\0%016xSTARGZ" % offset,
    "stargz": lambda offset: b"\x16\0%016xSTARGZ" % offset,
    "external-toc": lambda offset: b"\x15\0SG\x11\0STARGZEXTERNALTOC",
}
FOOTER_SIZES = {"estargz": 51, "stargz": 47, "external-toc": 46}


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def member(data: bytes, level: int = 6) -> bytes:
    """One gzip member."""
    return gzip.compress(data, level, mtime=0)


def footer(toc_offset: int, kind: str = "estargz") -> bytes:
    return (
        bytes.fromhex("1f8b08040000000000ff")
        + _FOOTERS[kind](toc_offset)
        + bytes.fromhex("010000ffff")
        + bytes(8)
    )


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def toc_entry(text: bytes, name: str = TOC_NAME, size: int | None = None) -> bytes:
    """The tar entry of a TOC, without the zeros that end the archive."""
    info = tarfile.TarInfo(name)
    info.mode, info.size = 0, len(text) if size is None else size
    return info.tobuf(tarfile.USTAR_FORMAT) + padded(text)


def with_toc(
    members: bytes, text: bytes, kind: str = "estargz", tail: bytes = bytes(2 * BLOCK)
) -> bytes:
    """A blob of finished members and the JSON of its TOC."""
    return members + member(toc_entry(text) + tail) + footer(len(members), kind)


@dataclass
class Made:
    """A blob, the JSON of its TOC, where that is, and the external TOC if it has one."""

    data: bytes
    text: bytes
    toc_offset: int
    external: bytes | None = None

    @property
    def digest(self) -> str:
        return sha256(self.text)


@dataclass
class _Cut:
    """A chunk: where its payload is in the tar, and its row in the TOC."""

    at: int
    size: int
    row: dict[str, Any]


def _row(info: tarfile.TarInfo) -> dict[str, Any]:
    row: dict[str, Any] = {"name": info.name, "type": _TYPES[info.type], "mode": info.mode}
    if info.isreg():
        row["size"] = info.size
    seconds = int(info.mtime + 0.5)
    row["modtime"] = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    row.update(uid=info.uid, gid=info.gid)
    row.update(userName=info.uname, groupName=info.gname)
    if info.linkname:
        row["linkName"] = info.linkname
    if info.isdev():
        row.update(devMajor=info.devmajor, devMinor=info.devminor)
    xattrs = {
        key[len(XATTR) :]: base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()
        for key, value in sorted(info.pax_headers.items())
        if key.startswith(XATTR)
    }
    if xattrs:
        row["xattrs"] = xattrs
    return row


def build(
    tar: bytes,
    *,
    chunk_size: int = 4 << 20,
    pack: int = 1,
    kind: str = "estargz",
    keep_end: bool = False,
    edit: Callable[[list[dict[str, Any]]], Any] | None = None,
    level: int = 6,
) -> Made:
    """The blob of a tar.

    A member begins at every `pack`th chunk. `keep_end` leaves the tar's own end in, as a
    lossless writer does. `edit` changes the TOC's entries before they are written. Of
    entries with the same name the TOC lists the last.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    cuts: list[_Cut] = []
    end = 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for info in archive:
            end = info.offset_data + (info.size + BLOCK - 1) // BLOCK * BLOCK * info.isreg()
            row = _row(info)
            mine = [row]
            rows.pop(info.name, None)
            rows[info.name] = mine
            content = tar[info.offset_data : info.offset_data + info.size] if info.isreg() else b""
            if info.isreg():
                row["digest"] = sha256(content)
            for at in range(0, len(content), chunk_size):
                piece = content[at : at + chunk_size]
                if at:
                    row = {"name": info.name, "type": "chunk", "chunkOffset": at}
                    mine.append(row)
                if len(content) - at >= chunk_size:
                    row["chunkSize"] = len(piece)
                if kind != "stargz":
                    row["chunkDigest"] = sha256(piece)
                cuts.append(_Cut(info.offset_data + at, len(piece), row))
    stream = tar if keep_end else tar[:end]
    out = bytearray()
    starts = [0] + [cut.at for cut in cuts[::pack]] + [len(stream)]
    offsets = {}
    for start, stop in itertools.pairwise(starts):
        offsets[start] = len(out)
        if stop > start:
            out += member(stream[start:stop], level)
    for number, cut in enumerate(cuts):
        start = starts[1 + number // pack]
        cut.row["offset"] = offsets[start]
        if cut.at > start:
            cut.row["innerOffset"] = cut.at - start
    entries = [row for mine in rows.values() for row in mine]
    if edit is not None:
        edited = edit(entries)
        entries = entries if edited is None else edited
    text = json.dumps({"version": 1, "entries": entries}).encode()
    if kind == "external-toc":
        external = member(toc_entry(text) + bytes(2 * BLOCK))
        return Made(bytes(out) + footer(0, kind), text, -1, external)
    return Made(with_toc(bytes(out), text, kind), text, len(out))


def tar_of(
    entries: list[tuple[str, bytes | None]], form: int = tarfile.PAX_FORMAT, **keys: Any
) -> bytes:
    """A tar of (name, contents); None makes a directory. `keys` are set on every TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            for key, value in keys.items():
                setattr(info, key, value)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def varied_tar() -> bytes:
    """Every kind of entry, with owners, times and xattrs; files of 0 to 40,000 bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, kind: bytes, content: bytes = b"", **keys: Any) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode = kind, len(content), 0o644
            info.uid, info.gid, info.uname, info.gname = 1000, 100, "user", "users"
            info.mtime = 1_700_000_000
            for key, value in keys.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))

        add("d", tarfile.DIRTYPE, mode=0o755, uname="", gname="")
        add("d/small", tarfile.REGTYPE, b"small\n")
        add("d/large", tarfile.REGTYPE, bytes(range(256)) * 150 + noise("large", 1600))
        add("d/empty", tarfile.REGTYPE, uname="", gname="")
        add("d/hard", tarfile.LNKTYPE, linkname="d/large")
        add("d/soft", tarfile.SYMTYPE, linkname="../d/small", mode=0o777)
        add("d/char", tarfile.CHRTYPE, devmajor=1, devminor=3)
        add("d/block", tarfile.BLKTYPE, devmajor=8, devminor=1)
        add("d/fifo", tarfile.FIFOTYPE)
        add("d/" + "long" * 60, tarfile.REGTYPE, b"a long name")
        add("d/x", tarfile.REGTYPE, b"xattrs", pax_headers={XATTR + "user.a": "1", "comment": "c"})
        add("d/set", tarfile.REGTYPE, b"setuid", mode=0o4755, uid=0, gid=0, uname="root")
        add("d/z", tarfile.REGTYPE, noise("z", 4096))
    return out.getvalue()


def noise(label: str, size: int) -> bytes:
    return hashlib.shake_128(label.encode()).digest(size)


def inflated(blob: bytes) -> bytes:
    """What all members inflate to, one after another; zlib.error if one is damaged."""
    out = []
    while blob:
        stream = zlib.decompressobj(31)
        out.append(stream.decompress(blob))
        if not stream.eof:
            raise zlib.error("a member is cut off")
        blob = stream.unused_data
    return b"".join(out)
