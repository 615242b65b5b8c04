"""Contents through ztocs, of ours and as others have made them; and what lies is found out before
a byte of it is handed out."""

from __future__ import annotations

import io
import tarfile

import plain_ztoc
import pytest
from plain_ztoc import Ztoc
from ztocs import SPAN, TAR, WRAPS, index_of, written

from stargz._engine.index import Index, load_ztoc
from stargz._engine.reader import Blob, Reader
from stargz.errors import DigestError, FormatError, TOCError
from stargz.sources.memory import MemorySource

with tarfile.open(fileobj=io.BytesIO(TAR)) as _archive:
    FILES = {
        info.name: TAR[info.offset_data : info.offset_data + info.size]
        for info in _archive
        if info.isreg()
    }
SMALL, LARGE = "usr/small-123", "usr/large"


def reader_of(blob: bytes, index: Index) -> Reader:
    source = MemorySource(blob, "layer")
    return Reader(Blob(source), index.toc, len(blob), True, 2, None, index=index, claims=True)


def read(reader: Reader, name: str, at: int = 0, size: int | None = None) -> bytes:
    row = reader.toc.lookup(name)
    return reader.read(row, at, len(FILES[name]) - at if size is None else size)


def ztoc_of(wrap: str) -> tuple[bytes, Ztoc]:
    blob = WRAPS[wrap](TAR)
    return blob, plain_ztoc.read(written(index_of(blob)))


def changed(ztoc: Ztoc, **changes: object) -> Index:
    return load_ztoc(plain_ztoc.write(ztoc.changed(**changes)))


@pytest.mark.parametrize("wrap", WRAPS)
def test_contents(wrap: str) -> None:
    blob, ztoc = ztoc_of(wrap)
    index = changed(ztoc)
    reader = reader_of(blob, index)
    for name, content in FILES.items():
        assert read(reader, name) == content, name
    # In any order, each by a reader that has decoded nothing yet.
    for name in (LARGE, SMALL, "usr/noise-200000", "usr/hard"):
        content = FILES.get(name, FILES["usr/small-000"])
        row = index.toc.lookup(name)
        row = index.toc.resolve(row)
        for at in {0, len(content) // 2, len(content) - 1}:
            assert reader_of(blob, index).read(row, at, 1) == content[at : at + 1]


@pytest.mark.parametrize("wrap", ["gzip", "stored", "small members"])
def test_checkpoints_of_the_first_version(wrap: str) -> None:
    blob, ztoc = ztoc_of(wrap)
    reader = reader_of(blob, changed(ztoc, version=1))
    assert all(read(reader, name) == FILES[name] for name in FILES)


def test_of_the_first_member_alone() -> None:
    """As before 0.14 of the snapshotter: all that follows is in the last span."""
    blob, ztoc = ztoc_of("members")
    assert ztoc.points[0].out == 0
    few = [ztoc.points[0]]
    whole = blob[few[0].offset :]
    reader = reader_of(blob, changed(ztoc, points=few, digests=[plain_ztoc.digest(whole)]))
    for name in (SMALL, LARGE, "usr/text-1"):
        assert read(reader, name) == FILES[name]


@pytest.mark.parametrize("wrap", ["plain", "gzip"])
def test_a_span_that_is_not_that_of_the_ztoc(wrap: str) -> None:
    """A byte of the blob is changed: no byte of its span is handed out, and all others are."""
    blob, ztoc = ztoc_of(wrap)
    number = len(ztoc.digests) // 2
    starts = [p.offset for p in ztoc.points] or list(range(0, len(blob), SPAN))
    damaged = bytearray(blob)
    damaged[starts[number] + 1000] ^= 1
    reader = reader_of(bytes(damaged), changed(ztoc))
    bad = 0
    for name, content in FILES.items():
        try:
            assert read(reader, name) == content
        except (DigestError, FormatError):
            bad += 1
    assert 0 < bad < len(FILES) / 3


def test_digests_of_another_blob() -> None:
    blob, ztoc = ztoc_of("gzip")
    digests = [ztoc.digests[-1], *ztoc.digests[:-1]]
    reader = reader_of(blob, changed(ztoc, digests=digests))
    for name in (SMALL, LARGE):
        with pytest.raises(DigestError):
            read(reader, name)


@pytest.mark.parametrize("wrap", ["plain", "gzip"])
def test_entries_that_lie(wrap: str) -> None:
    blob, ztoc = ztoc_of(wrap)
    by_name = {e.name.decode(): e for e in ztoc.entries}
    one, other = by_name[SMALL], by_name["usr/small-124"]
    lies = {
        "name": (one, {"name": b"usr/small-9"}),
        "size": (one, {"size": one.size - 1}),
        "more": (other, {"size": other.size + 1}),
        "mode": (one, {"mode": 0o4755}),
        "owner": (one, {"uid": 7}),
        "time": (one, {"mtime": b"2024-01-01T00:00:00Z"}),
        "fraction": (one, {"mtime": one.mtime[:-1] + b".5Z"}),
        "xattr": (one, {"records": [(b"SCHILY.xattr.security.capability", b"x")]}),
    }
    for what, (entry, changes) in lies.items():
        liar = plain_ztoc.replace(entry, **changes)
        entries = [liar if e is entry else e for e in ztoc.entries]
        index = changed(ztoc, entries=entries)
        reader = reader_of(blob, index)
        with pytest.raises(TOCError, match="the index does not fit"):
            reader.read(index.toc.lookup(liar.name.decode()), 0, 1)
        assert read(reader, "usr/small-200") == FILES["usr/small-200"], what


def test_a_ztoc_that_promises_more_than_there_is() -> None:
    blob, ztoc = ztoc_of("stored")
    last = ztoc.entries[-1]
    more = 200_000  # than one can tell without decoding
    liar = plain_ztoc.replace(last, size=last.size + more)
    entries = [*ztoc.entries[:-1], liar]
    reader = reader_of(blob, changed(ztoc, entries=entries, archive_size=ztoc.archive_size + more))
    index = reader.toc
    for at in (0, last.size + 5, last.size + more - 10):
        with pytest.raises(FormatError):
            reader.read(index.lookup(LARGE), at, 10)
    assert read(reader, SMALL) == FILES[SMALL]


def test_the_first_version_where_the_gzip_header_is_longer() -> None:
    """There its first checkpoint is wrong, and says so."""
    blob, ztoc = ztoc_of("named")
    reader = reader_of(blob, changed(ztoc, version=1))
    with pytest.raises((FormatError, DigestError)):
        read(reader, "usr/text-1")
    assert read(reader, LARGE, 1 << 20, 100) == FILES[LARGE][1 << 20 : (1 << 20) + 100]
