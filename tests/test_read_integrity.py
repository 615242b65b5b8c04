"""Reads never hand out damaged bytes, work on what is open, and take little memory."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Sequence
from pathlib import Path

import blobs
import pytest
from descriptors import descriptors

import stargz
from stargz.errors import DigestError, FormatError, GzipError, TOCError
from stargz.sources import LocalSource, MemorySource

CONTENT = blobs.noise("content", 5000)


class Counting:
    """A ByteSource of `data`, then zeros up to `gap`, then `end`; counts what it is asked for."""

    name = "counting"

    def __init__(self, data: bytes, gap: int = 0, end: bytes = b"") -> None:
        self.data, self.gap, self.end = data, max(gap, len(data)), end
        self.size = self.gap + len(end)
        self.fetched = 0

    def read_at(self, offset: int, size: int) -> bytes:
        self.fetched += size
        assert size < 1 << 27, "far too much at once"
        head = self.data[offset : offset + size]
        zeros = bytes(max(0, min(offset + size, self.gap) - max(offset, len(self.data))))
        tail_from = max(0, offset - self.gap)
        tail = self.end[tail_from : max(tail_from, offset + size - self.gap)]
        return head + zeros + tail

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read_at(*r) for r in ranges]

    def close(self) -> None:
        pass


# --- chunks without a digest ----------------------------------------------------------------


def legacy(chunk_size: int, pack: int = 1, after: int = 0) -> blobs.Made:
    tar = blobs.tar_of([("f", CONTENT)] + [(f"d{n}", None) for n in range(after)])
    return blobs.build(tar, chunk_size=chunk_size, pack=pack, kind="stargz", level=0)


def broken(made: blobs.Made, at: int) -> bytes:
    """The blob with a bit of the file's byte `at` turned over: nothing is compressed."""
    place = made.data.index(CONTENT[at : at + 16])
    return made.data[:place] + bytes([made.data[place] ^ 8]) + made.data[place + 1 :]


@pytest.mark.parametrize("as_source", [False, True])
@pytest.mark.parametrize("ask", [(0, -1), (2000, 5), (1024, 1024), (0, 3000)])
@pytest.mark.parametrize(
    ("chunk_size", "pack", "error"),
    [(1 << 20, 1, DigestError), (1024, 1, GzipError), (1024, 3, GzipError)],
)
def test_damage_without_chunk_digests(
    chunk_size: int,
    pack: int,
    error: type[stargz.StargzError],
    ask: tuple[int, int],
    as_source: bool,
) -> None:
    made = legacy(chunk_size, pack, after=20)
    for at in (2002, 2047 - 16, 1100):
        data = broken(made, at)
        with stargz.open(Counting(data) if as_source else data) as layer:
            assert layer.kind == "stargz"
            with pytest.raises(error, match=r"'?f'?: "):
                layer.read("f", *ask)
            with pytest.raises(error):
                layer.read("f", *ask)
    with stargz.open(made.data) as layer:
        end = None if ask[1] < 0 else sum(ask)
        assert layer.read("f", *ask) == CONTENT[ask[0] : end]


def test_a_damaged_last_chunk_before_a_long_run_of_headers() -> None:
    # 6,000 directories stand in the member of the last chunk.
    made = legacy(1024, after=6000)
    with stargz.open(broken(made, 4900)) as layer:
        assert layer.read("f", 0, 4096) == CONTENT[:4096]
        with pytest.raises(GzipError, match="CRC"):
            layer.read("f", 4900, 1)
    with stargz.open(made.data) as layer:
        assert layer.read("f") == CONTENT


def test_a_chunk_of_several_members_without_a_digest() -> None:
    # Member boundaries inside of a chunk: each member's own CRC counts.
    parts = [CONTENT[:100], CONTENT[100:100], CONTENT[100:3000], CONTENT[3000:]]
    for wrong in (None, 0, 2, 3):
        data = b""
        for number, part in enumerate(parts):
            member = bytearray(blobs.member(part))
            if number == wrong:
                member[-8] ^= 1
            data += bytes(member)
        text = json.dumps(
            {
                "version": 1,
                "entries": [
                    {"name": "f", "type": "reg", "size": 5000, "offset": 26, "chunkSize": 4990},
                    {"name": "f", "type": "chunk", "chunkOffset": 4990, "offset": 26 + len(data)},
                ],
            }
        ).encode()
        first = blobs.member(bytes(512)).ljust(26)[:26]
        last = blobs.member(CONTENT[4990:])
        with stargz.open(blobs.with_toc(first + data + last, text)) as layer:
            if wrong is None:
                assert layer.read("f", 0, 4990) == CONTENT[:4990]
                assert layer.read("f") == CONTENT
            else:
                with pytest.raises(GzipError, match="CRC"):
                    layer.read("f", 10, 1)


def test_unverified_reads_still_take_what_is_there() -> None:
    with stargz.open(broken(legacy(1024), 2002), verify=False) as layer:
        assert len(layer.read("f")) == 5000


# --- the TOC's member -------------------------------------------------------------------------


def with_tail(tail: bytes, damage: int = 0, level: int = 6) -> bytes:
    made = blobs.build(blobs.tar_of([("a", b"contents")]))
    member = bytearray(blobs.member(blobs.toc_entry(made.text) + tail, level))
    if damage:
        member[damage] ^= 1
    return made.data[: made.toc_offset] + bytes(member) + blobs.footer(made.toc_offset)


@pytest.mark.parametrize("damage", [-8, -4])
@pytest.mark.parametrize("tail", [b"", bytes(1024), bytes(20_000)])
def test_the_crc_of_the_toc(tail: bytes, damage: int) -> None:
    stargz.open(with_tail(tail)).close()
    with pytest.raises(GzipError, match="trailer says") as caught:
        stargz.open(with_tail(tail, damage))
    assert caught.value.offset is not None


def test_a_changed_toc_is_found_by_its_crc() -> None:
    data = with_tail(bytes(1024), level=0)
    data = data.replace(b'"name": "a"', b'"name": "b"')
    with pytest.raises(GzipError, match="CRC-32"):
        stargz.open(data)


def test_much_behind_the_json() -> None:
    room = 65_536 - 511
    stargz.open(with_tail(bytes(room))).close()
    for tail in (bytes(66_000), bytes(1 << 24)):
        with pytest.raises(TOCError, match="after the JSON"):
            stargz.open(with_tail(tail))


def test_errors_in_the_json_name_both_places() -> None:
    made = blobs.build(blobs.tar_of([("a", b"contents")]))
    members = made.data[: made.toc_offset]
    text = b'{"version": 1, "entries": [{"name": "a", "type": 5}]}'
    with pytest.raises(TOCError, match=r"'a': in the TOC's JSON at byte \d+: ") as caught:
        stargz.open(MemorySource(blobs.with_toc(members, text), "blob"))
    assert caught.value.offset == made.toc_offset
    assert str(caught.value).startswith(f"blob at offset {made.toc_offset}: ")
    with pytest.raises(FormatError, match="in the TOC's JSON at byte 0: ") as caught:
        stargz.open(blobs.with_toc(members, b"null"))
    assert caught.value.offset == made.toc_offset
    # What is not about a place in the JSON only says where the TOC is.
    with pytest.raises(TOCError, match="has no version") as caught:
        stargz.open(blobs.with_toc(members, b'{"entries": []}'))
    assert caught.value.offset == made.toc_offset
    assert "at byte" not in str(caught.value)


# --- after close ------------------------------------------------------------------------------


def test_a_stream_of_the_toc_never_reads_a_recycled_descriptor(tmp_path: Path) -> None:
    names = [(blobs.sha256(b"%d" % n)[7:], None) for n in range(20_000)]
    made = blobs.build(blobs.tar_of(names))
    path = tmp_path / "layer"
    path.write_bytes(made.data)
    layer = stargz.open(path)
    pieces = layer.iter_toc(4096)
    assert next(pieces) == made.text[:4096]
    descriptor = layer.blob.source.fd  # type: ignore[attr-defined]
    layer.close()
    other = os.open(path, os.O_RDONLY)
    try:
        assert other == descriptor
        with pytest.raises(ValueError, match="closed"):
            next(pieces)
    finally:
        os.close(other)
    with pytest.raises(ValueError, match="closed"):
        next(layer.iter_toc())


def test_close_during_an_extraction_waits_for_it(tmp_path: Path) -> None:
    made = blobs.build(blobs.tar_of([(f"f{n}", CONTENT) for n in range(200)]))
    path = tmp_path / "layer"
    path.write_bytes(made.data)
    layer = stargz.open(path)
    still_open = []

    def close(done: int, total: int) -> None:
        layer.close()
        still_open.append(layer.blob.source.fd)  # type: ignore[attr-defined]

    layer.extractall(tmp_path / "out", progress=close)
    assert still_open
    assert None not in still_open
    assert layer.blob.source.fd is None  # type: ignore[attr-defined]
    assert (tmp_path / "out/f199").read_bytes() == CONTENT


# --- sources ----------------------------------------------------------------------------------


@pytest.mark.parametrize("digests", [True, False])
def test_a_gap_behind_a_chunk_is_not_fetched(digests: bool) -> None:
    gap = 1 << 30
    data = blobs.member(b"headers") + blobs.member(b"abcd" + bytes(508))
    row = {"name": "f", "type": "reg", "size": 4, "offset": len(blobs.member(b"headers"))}
    if digests:
        row["chunkDigest"] = blobs.sha256(b"abcd")
    text = json.dumps({"version": 1, "entries": [row]}).encode()
    end = blobs.member(blobs.toc_entry(text) + bytes(1024)) + blobs.footer(gap)
    source = Counting(data, gap, end)
    with stargz.open(source) as layer:
        source.fetched = 0
        assert layer.read("f") == b"abcd"
        assert source.fetched <= 1 << 18


def test_a_run_of_headers_behind_a_chunk_is_not_fetched() -> None:
    names = [(blobs.noise(f"{n}", 40).hex(), None) for n in range(5000)]
    made = blobs.build(blobs.tar_of([("f", b"abcd"), *names]))
    source = Counting(made.data)
    with stargz.open(source) as layer:
        (chunk,) = layer.chunks("f")
        assert layer.toc_offset - chunk.offset > 1 << 17
        source.fetched = 0
        assert layer.read("f") == b"abcd"
        assert source.fetched <= 1 << 16


def test_a_forgotten_layer_gives_back_its_descriptor() -> None:
    path = Path(__file__).parent / "data/tree.esgz"
    before = descriptors(path.parent)
    source = LocalSource(path)
    assert descriptors(path.parent) == before + 1
    with pytest.warns(ResourceWarning, match=r"unclosed layer .*tree\.esgz"):
        del source
        gc.collect()
    with pytest.warns(ResourceWarning, match="unclosed layer"):
        assert "setuid" in stargz.open(path)
        gc.collect()
    assert descriptors(path.parent) == before
    with pytest.raises(FileNotFoundError):
        LocalSource("/nothing/there")  # and nothing is left to close
    with path.open("rb") as file:
        layer = stargz.open(file)
        del layer
        gc.collect()
        assert file.read(2) == b"\x1f\x8b"
