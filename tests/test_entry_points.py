"""Reading ordinary blobs at the entry points of an index: any file, in any order, local or fetched;
what vouches for it; and what is wrong is told and not handed out."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import zstandard
from faraway import Faraway
from synthetic import tar_bytes

from stargz._engine.index import Index, build, load_ztoc
from stargz._engine.reader import Blob, Reader
from stargz.errors import DigestError, GzipError, StargzError
from stargz.remote import Fetcher, Remote
from stargz.sources import ByteSource, MemorySource

SPAN = 64 << 10
TAR = tar_bytes()
with tarfile.open(fileobj=io.BytesIO(TAR)) as _archive:
    FILES = {
        member.name: TAR[member.offset_data : member.offset_data + member.size]
        for member in _archive
        if member.isreg() and member.size
    }


def pieces(size: int) -> list[bytes]:
    return [TAR[at : at + size] for at in range(0, len(TAR), size)]


def flushed(mode: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return (
        b"".join(packer.compress(p) + packer.flush(mode) for p in pieces(30_001)) + packer.flush()
    )


BLOBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(TAR, 6),
    "stored in gzip": lambda: gzip.compress(TAR, 0),
    "flushes": lambda: flushed(zlib.Z_SYNC_FLUSH),
    "full flushes": lambda: flushed(zlib.Z_FULL_FLUSH),
    "members": lambda: b"".join(gzip.compress(p) for p in pieces(100_000)),
    "small members": lambda: b"".join(gzip.compress(p) for p in pieces(5_000)),
    "zstd": lambda: b"".join(zstandard.ZstdCompressor().compress(p) for p in pieces(90_000)),
    "plain": lambda: TAR,
}


def index_of(blob: bytes, **options: bool) -> Index:
    return build(
        io.BytesIO(blob).read,
        source_name="blob",
        source_size=len(blob),
        span_size=SPAN,
        threads=2,
        **options,
    )


def ztoc_of(blob: bytes) -> Index:
    out: list[bytes] = []
    index_of(blob, soci=True).write_ztoc(lambda data: out.append(bytes(data)))
    return load_ztoc(b"".join(out), blob_size=len(blob))


@contextmanager
def reading(source: ByteSource, index: Index, verify: bool = True) -> Iterator[Reader]:
    reader = Reader(Blob(source), index.toc, source.size, verify, 2, None, index=index)

    def connect(reader: Reader) -> Remote:
        fetcher = Fetcher()
        return Remote(fetcher, fetcher.add(reader))

    reader.attach(connect)
    try:
        yield reader
    finally:
        reader.close()


def read_all(reader: Reader, names: list[str]) -> None:
    toc = reader.toc
    for name in names:
        row, content = toc.lookup(name), FILES[name]
        assert toc.size(row) == len(content)
        at = random.randrange(len(content))
        assert reader.read(row, at, len(content) - at) == content[at:], name


def shuffled() -> list[str]:
    names = list(FILES)
    random.Random(3).shuffle(names)
    return names


@pytest.mark.parametrize("how", BLOBS)
@pytest.mark.parametrize("far", [False, True])
def test_every_file_in_any_order(how: str, far: bool) -> None:
    blob = BLOBS[how]()
    index = index_of(blob)
    source = Faraway(blob) if far else MemorySource(blob, "blob")
    with reading(source, index) as reader:
        read_all(reader, shuffled())
        assert reader.undigested() == 0
    if isinstance(source, Faraway):
        # Each span once, but for gaps that are not worth a request of their own.
        assert source.total < 1.2 * len(blob)


@pytest.mark.parametrize("how", ["gzip", "members", "flushes", "plain"])
@pytest.mark.parametrize("far", [False, True])
def test_digests_of_spans_vouch_for_chunks_that_have_none(how: str, far: bool) -> None:
    blob = BLOBS[how]()
    index = ztoc_of(blob)
    with reading(Faraway(blob) if far else MemorySource(blob, "blob"), index) as reader:
        assert reader.undigested() == 0
        read_all(reader, shuffled()[:100])


@pytest.mark.parametrize("soci", [False, True])
@pytest.mark.parametrize("how", ["gzip", "flushes", "plain"])
@pytest.mark.parametrize("far", [False, True])
def test_what_is_damaged_is_told_with_its_name(how: str, soci: bool, far: bool) -> None:
    blob = BLOBS[how]()
    index = ztoc_of(blob) if soci else index_of(blob)
    broken = bytearray(blob)
    broken[len(blob) // 2] ^= 0x20
    source = Faraway(bytes(broken)) if far else MemorySource(bytes(broken), "blob")
    wrong = 0
    with reading(source, index) as reader:
        for name in shuffled():
            try:
                assert reader.read(reader.toc.lookup(name), 0, len(FILES[name])) == FILES[name]
            except (DigestError, GzipError) as error:
                assert name in str(error) and "offset" in str(error)
                wrong += 1
    assert 0 < wrong < len(FILES)


def test_nothing_vouches_for_a_point_within_a_member() -> None:
    blob = BLOBS["gzip"]()
    index = index_of(blob, digests=False)
    source = MemorySource(blob, "blob")
    with reading(source, index) as reader, pytest.raises(StargzError, match="nothing else tells"):
        reader.read(reader.toc.lookup("usr/large"), 0, 10)
    with reading(source, index, verify=False) as reader:
        read_all(reader, shuffled()[:50])


def test_an_index_of_another_blob() -> None:
    blob = BLOBS["gzip"]()
    index = index_of(blob)
    other = gzip.compress(TAR[::-1], 6).ljust(len(blob), b"\0")[: len(blob)]
    with reading(MemorySource(other, "blob"), index) as reader:
        for name in shuffled()[:50]:
            with pytest.raises(StargzError, match=name):
                reader.read(reader.toc.lookup(name), 0, len(FILES[name]))


def test_a_blob_that_is_shorter_than_its_index() -> None:
    blob = BLOBS["gzip"]()
    index = ztoc_of(blob)
    with reading(MemorySource(blob[: len(blob) // 2], "blob"), index) as reader:
        for name in ("usr/small-000", "usr/large"):
            row = reader.toc.lookup(name)
            with pytest.raises(StargzError):
                reader.read(row, len(FILES[name]) - 1, 1)


@pytest.mark.parametrize("soci", [False, True])
def test_all_of_a_blob_is_verified_by_its_spans(soci: bool) -> None:
    for how in ("gzip", "small members", "flushes", "plain"):
        blob = BLOBS[how]()
        index = ztoc_of(blob) if soci else index_of(blob)
        broken = bytearray(blob)
        broken[len(blob) // 2] ^= 1
        for data, right in ((blob, True), (bytes(broken), False)):
            with reading(MemorySource(data, "blob"), index) as reader:
                found = reader.verify(len(data), 0)
                assert found["bytes"] >= len(TAR) or not right
                assert found["undigested"] == 0
                wrong = found["errors"]
                assert bool(wrong) == (not right), (how, found["errors"])
