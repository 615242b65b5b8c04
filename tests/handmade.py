"""eStargz blobs made by hand, member by member: also such as no writer would make."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from typing import Any

TYPES = {
    tarfile.REGTYPE: "reg",
    tarfile.AREGTYPE: "reg",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}
XATTR = "SCHILY.xattr."


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def member(data: bytes, level: int = 1) -> bytes:
    return gzip.compress(data, level, mtime=0)


def header(name: str, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def footer(toc_offset: int, legacy: bool = False) -> bytes:
    extra = b"%016xSTARGZ" % toc_offset
    if not legacy:
        extra = b"SG\x16\0" + extra
    return (
        b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"
        + len(extra).to_bytes(2, "little")
        + extra
        + b"\x01\0\0\xff\xff"
        + bytes(8)
    )


def blob(
    entries: list[dict[str, Any]],
    *,
    chunk_size: int = 4 << 20,
    pack: int = 1,
    legacy: bool = False,
    digests: bool = True,
    level: int = 1,
) -> bytes:
    """An eStargz blob of entries given as in a TOC, files with their bytes as "content".

    `pack` files share one member (innerOffset). What an entry has under "override" replaces
    the keys that were computed. `level` 0 stores. Without `digests` nothing says what the
    contents should be.
    """
    out = bytearray()
    rows: list[dict[str, Any]] = []
    pending = bytearray()  # the open member: headers, and data of small files with `pack`
    files = 0

    def close() -> None:
        nonlocal pending
        if pending:
            out.extend(member(bytes(pending), level))
            pending = bytearray()

    for entry in entries:
        row = {k: v for k, v in entry.items() if k not in ("content", "override")}
        content = entry.get("content", b"")
        pending += header("entry", len(content))
        rows.append(row)
        if row["type"] == "reg":
            row["size"] = len(content)
            if digests:
                row["digest"] = digest(content)
        chunk = row
        for at in range(0, len(content), chunk_size):
            piece = content[at : at + chunk_size]
            if at:
                chunk = {"name": row["name"], "type": "chunk", "chunkOffset": at}
                rows.append(chunk)
            if files % pack == 0:
                close()
            files += 1
            chunk["offset"] = len(out)
            if pending:
                chunk["innerOffset"] = len(pending)
            if len(content) > chunk_size:
                chunk["chunkSize"] = len(piece)
            if digests and not legacy:
                chunk["chunkDigest"] = digest(piece)
            pending += piece
        pending += bytes(-len(content) % 512)
        row.update(entry.get("override", {}))
    close()
    toc_offset = len(out)
    text = json.dumps({"version": 1, "entries": rows}).encode()
    padded = text + bytes(-len(text) % 512)
    out += member(header("stargz.index.json", len(text)) + padded + bytes(1024))
    return bytes(out) + footer(toc_offset, legacy)


def entries_of(tar_bytes: bytes) -> list[dict[str, Any]]:
    """The entries of a tar in which no name stands twice."""
    entries: list[dict[str, Any]] = []
    with tarfile.open(fileobj=io.BytesIO(tar_bytes)) as tar:
        for info in tar:
            entry: dict[str, Any] = {
                "name": info.name,
                "type": TYPES[info.type],
                "mode": info.mode,
                "uid": info.uid,
                "gid": info.gid,
                "modtime": _rfc3339(int(info.mtime)),
            }
            if info.linkname:
                entry["linkName"] = info.linkname
            if info.isdev():
                entry["devMajor"], entry["devMinor"] = info.devmajor, info.devminor
            xattrs = {
                key[len(XATTR) :]: base64.b64encode(value.encode("utf-8", "surrogateescape"))
                for key, value in info.pax_headers.items()
                if key.startswith(XATTR)
            }
            if xattrs:
                entry["xattrs"] = {key: value.decode() for key, value in sorted(xattrs.items())}
            if info.isreg():
                file = tar.extractfile(info)
                assert file is not None
                entry["content"] = file.read()
            entries.append(entry)
    return entries


def _rfc3339(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def reg(name: str, content: bytes = b"", **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "reg", "mode": 0o644, "content": content, **keys}


def directory(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "dir", "mode": 0o755, **keys}


def symlink(name: str, target: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "symlink", "mode": 0o777, "linkName": target, **keys}


def hardlink(name: str, target: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "hardlink", "linkName": target, **keys}
