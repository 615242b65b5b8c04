"""SOCI's own packages read our ztocs, as its snapshotter does, and ours are theirs to the byte."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain_ztoc
import pytest
import ztocs
from random_trees import random_tar

from stargz._engine.index import Index, build, load_ztoc
from stargz._engine.reader import Blob, Reader
from stargz.sources.memory import MemorySource

SPAN = 64 << 10
Soci = Callable[..., Any]
Files = dict[str, str]


def with_header(tar: bytes) -> bytes:
    """A gzip header that has all it can have, and no two bytes of it are needed."""
    packed = gzip.compress(tar, 9)
    return b"\x1f\x8b\x08\x1c" + packed[4:10] + b"\3\0XYZ" + b"name\0" + b"comment\0" + packed[10:]


WRAPS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda tar: tar,
    "level 1": lambda tar: gzip.compress(tar, 1),
    "level 6": lambda tar: gzip.compress(tar, 6),
    "stored": lambda tar: gzip.compress(tar, 0),
    "header": with_header,
    "members": ztocs.in_small_members,
    "empty members": lambda tar: (
        gzip.compress(b"") + ztocs.in_small_members(tar) + gzip.compress(b"")
    ),
    "zeros behind": lambda tar: gzip.compress(tar + bytes(300_000)),
}


def ours(blob: bytes, **options: Any) -> tuple[Index, bytes]:
    options = {"threads": 2, "span_size": SPAN, "soci": True, "digests": False, **options}
    index = build(io.BytesIO(blob).read, source_name="layer", **options)
    pieces: list[bytes] = []
    index.write_ztoc(pieces.append, tool="reference")
    return index, b"".join(pieces)


def theirs(soci: Soci, blob: Path, out: Path) -> bytes:
    kind = "gzip" if blob.read_bytes()[:2] == b"\x1f\x8b" else "uncompressed"
    # Times have the zone of where it runs.
    soci("build", kind, blob, SPAN, out, env={"TZ": "UTC"})
    return out.read_bytes()


def read(soci: Soci, folder: Path, blob: bytes, ztoc: bytes) -> Files:
    """What the snapshotter reads: it compares spans' digests, and files' headers."""
    (folder / "layer").write_bytes(blob)
    (folder / "ztoc").write_bytes(ztoc)
    seen = soci("read", folder / "layer", folder / "ztoc")
    assert not seen["failed"]
    return seen["files"]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("seed", range(2))
def test_the_same(soci: Soci, tmp_path: Path, wrap: str, seed: int) -> None:
    files = random_tar(tmp_path / "tar", seed)
    blob = WRAPS[wrap]((tmp_path / "tar").read_bytes())
    (tmp_path / "blob").write_bytes(blob)
    _, data = ours(blob)
    reference = theirs(soci, tmp_path / "blob", tmp_path / "reference")
    assert read(soci, tmp_path, blob, data) == files
    if wrap != "empty members":
        assert data == reference
        return
    # It has a point more where an empty one begins, and cannot read that.
    mine, other = plain_ztoc.read(data), plain_ztoc.read(reference)
    last = {p.out: p for p in other.points}
    assert mine.entries == other.entries and mine.archive_size == other.archive_size
    assert mine.points[1:] == list(last.values())[1:] and mine.points[0].out == 0
    with pytest.raises(RuntimeError, match="non-monotonic"):
        read(soci, tmp_path, blob, reference)


@pytest.mark.parametrize("wrap", ["plain", "level 6", "header", "members"])
def test_theirs_is_read(soci: Soci, tmp_path: Path, wrap: str) -> None:
    files = random_tar(tmp_path / "tar", 2, entries=200)
    blob = WRAPS[wrap]((tmp_path / "tar").read_bytes())
    (tmp_path / "blob").write_bytes(blob)
    built, _ = ours(blob)
    index = load_ztoc(theirs(soci, tmp_path / "blob", tmp_path / "reference"), blob_size=len(blob))
    assert index.json() == built.json() and index.spans == built.spans
    assert index.longest_span == built.longest_span
    reader = Reader(
        Blob(MemorySource(blob, "layer")),
        index.toc,
        len(blob),
        True,
        2,
        None,
        index=index,
        claims=True,
    )
    for name, digest in files.items():
        row = index.toc.resolve(index.toc.lookup(name))
        content = reader.read(row, 0, index.toc.size(row))
        assert hashlib.sha256(content).hexdigest() == digest


def test_files_by_name(soci: Soci, tmp_path: Path) -> None:
    """The ztoc package alone, which follows links by the names in the tar."""
    files = random_tar(tmp_path / "tar", 1)
    (tmp_path / "layer").write_bytes(gzip.compress((tmp_path / "tar").read_bytes()))
    (tmp_path / "ztoc").write_bytes(ours((tmp_path / "layer").read_bytes())[1])
    assert soci("extract", tmp_path / "layer", tmp_path / "ztoc", *files) == files


def odd_tar() -> bytes:
    """What writers of tars do that few others read alike."""
    out = io.BytesIO()

    def add(name: str, kind: bytes = tarfile.REGTYPE, body: bytes = b"", **fields: Any) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(body)
        form = fields.pop("form", tarfile.PAX_FORMAT)
        for key, value in fields.items():
            setattr(info, key, value)
        out.write(info.tobuf(form, "utf-8", "surrogateescape"))
        out.write(body.ljust(-(-len(body) // 512) * 512, b"\0"))

    def header(name: bytes, at: int, field: bytes, body: bytes) -> None:
        info = tarfile.TarInfo(name.decode())
        info.size = len(body)
        raw = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        raw[at : at + len(field)] = field
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
        out.write(raw + body.ljust(512, b"\0"))

    add("./", tarfile.DIRTYPE, mode=0o755)
    add("./dir/", tarfile.DIRTYPE, mtime=1.5)
    add("dir/time", body=b"time", pax_headers={"mtime": "1700000000.123456789"})
    add("dir/before", body=b"before", pax_headers={"mtime": "-5.5"})
    add("dir/xattrs", body=b"x", pax_headers={"SCHILY.xattr.user.a%3Db": "1", "comment": "\udcff"})
    add("dir/owner", body=b"o", uid=3_000_000, gid=4_000_000_000, uname="u" * 40)
    add("l" * 90 + "/" + "m" * 120, body=b"ustar", form=tarfile.GNU_FORMAT)
    add("l" * 90 + "/n", body=b"long link")
    add("to", tarfile.LNKTYPE, linkname="l" * 90 + "/n")
    add("twice", body=b"first")
    add("twice", body=b"the second one")
    add("\udcff\udcfe", body=b"bytes", form=tarfile.GNU_FORMAT)
    header(b"linkname", 157, b"of a file", b"a")
    header(b"devices", 329, b"0000010\x000000003\0", b"b")
    header(b"mode", 100, b"0104755\0", b"c")
    header(b"v7", 257, bytes(8), b"d")
    add("empty")
    return out.getvalue() + bytes(10240)


def test_odd_headers(soci: Soci, tmp_path: Path) -> None:
    blob = gzip.compress(odd_tar())
    (tmp_path / "blob").write_bytes(blob)
    _, data = ours(blob)
    files = read(soci, tmp_path, blob, data)
    assert len(files) == 14
    assert data == theirs(soci, tmp_path / "blob", tmp_path / "reference")


def test_a_global_header_before_a_directory(soci: Soci, tmp_path: Path) -> None:
    """The reference makes no ztoc of that, but reads one."""
    tar = tarfile.TarInfo.create_pax_global_header({"comment": "a commit"}) + odd_tar()
    blob = gzip.compress(tar)
    files = read(soci, tmp_path, blob, ours(blob)[1])
    assert len(files) == 14
