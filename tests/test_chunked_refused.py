"""Layers in zstd:chunked that contradict themselves or are damaged: refused, or read as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from blobs import sha256
from chunked_layers import FORMATS, a_tar, convert
from faraway import Faraway
from handmade_chunked import TOC_DIGEST, C, Handmade, S, frame, skippable

import stargz
from stargz.errors import (
    DigestError,
    FooterError,
    FormatError,
    GzipError,
    TOCError,
    UsageError,
)

# --- what contradicts itself ------------------------------------------------------------------


def test_digests_that_are_not_the_tocs() -> None:
    blob, result = convert(a_tar(), "zstd:chunked")
    notes = result.annotations
    other = "sha256:" + "0" * 64
    stargz.open(blob, annotations=notes, toc_digest=result.toc_digest).close()
    for options in (
        {"toc_digest": other},
        {"annotations": notes, "toc_digest": other},
        {"annotations": notes | {TOC_DIGEST: other}},
        {"annotations": {TOC_DIGEST: other}},
        {"annotations": notes | {f"{C}manifest-checksum": other}},
    ):
        with pytest.raises(DigestError, match="the table of contents"):
            stargz.open(blob, **options)
    with pytest.raises(UsageError, match="has its own TOC"):
        stargz.open(blob, toc=blob)


@pytest.mark.parametrize("prefix", [C, S])
def test_annotations_and_footers_that_do_not_agree(prefix: str) -> None:
    blob, result = convert(a_tar(), FORMATS[prefix == S])
    notes = result.annotations
    offset, packed, size, kind = map(int, notes[f"{prefix}manifest-position"].split(":"))
    for position in (
        (offset + 1, packed, size, kind),
        (offset, packed - 1, size, kind),
        (offset, packed, size + 1, kind),
        (len(blob), packed, size, kind),
    ):
        text = ":".join(map(str, position))
        with pytest.raises(FooterError, match="do not agree"):
            stargz.open(blob, annotations=notes | {f"{prefix}manifest-position": text})
    if prefix == C:
        split = {f"{C}tarsplit-position": f"{offset}:{packed}:{size}"}
        with pytest.raises(FooterError, match="do not agree"):
            stargz.open(blob, annotations=notes | split)
    gzip, _ = convert(a_tar(), "estargz")
    with pytest.raises(FooterError, match="do not agree"):
        stargz.open(gzip, annotations=notes)


def test_positions_that_are_nowhere() -> None:
    made = Handmade()
    made.file("a", b"hello")
    blob, notes = made.finish("none")
    offset, packed, size, _ = notes[f"{C}manifest-position"].split(":")
    for position in (f"{len(blob)}:1:1:1", f"{offset}:{int(packed) + 1}:{size}:1", "3:9:9:1"):
        with pytest.raises(FooterError):
            stargz.open(blob, annotations=notes | {f"{C}manifest-position": position})
    for position in ("1:2:3", "1:2:3:2", "-1:2:3:1", "1:2:3:1:", " 1:2:3:1", "9" * 40 + ":2:3:1"):
        with pytest.raises(FormatError, match="no position"):
            stargz.open(blob, annotations=notes | {f"{C}manifest-position": position})


# --- bad TOCs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "match"),
    [
        (-1, "longer than its"),
        (1, "ends 1 bytes early"),
        (-(1 << 20), "longer than its"),
        (1 << 40, "limit"),
    ],
)
def test_a_toc_of_another_size(size: int, match: str) -> None:
    made = Handmade()
    made.file("a", b"hello")
    text, packed = made.toc()
    blob, _ = made.end(packed, max(1, len(text) + size))
    with pytest.raises(TOCError, match=match):
        stargz.open(blob)


def test_tocs_that_are_none() -> None:
    made = Handmade()
    made.file("a", b"hello")
    text, packed = made.toc()
    bad = packed[:-1] + bytes([packed[-1] ^ 1])
    for toc, error, match in (
        (packed[:-6], TOCError, "cut off"),
        (packed + b"garbage", GzipError, "corrupt"),
        (bad, GzipError, "checksum"),
        (frame(text, window=26), GzipError, "window of 64 MiB, over the limit of 32 MiB"),
        (frame(bytes(1 << 26)), TOCError, "longer than its"),
        (frame(bytes(len(text))), TOCError, "in the TOC's JSON at byte 0"),
        (b"\x28\xb5\x2f\xfd", TOCError, "cut off"),
        (bytes(30), GzipError, "corrupt"),
        (skippable(b"x"), TOCError, "early"),
        (gzip_of(text), GzipError, "corrupt"),
    ):
        blob, _ = made.end(toc, len(text))
        with pytest.raises(error, match=match):
            stargz.open(blob)
    # Padding has no end.
    blob, _ = made.end(packed + skippable(bytes(1 << 20)), len(text))
    with pytest.raises(TOCError, match="does not take"):
        stargz.open(blob)


def gzip_of(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data)


def test_a_toc_that_inflates_without_end() -> None:
    made = Handmade()
    made.file("a", b"hello")
    text, _ = made.toc()
    bomb = frame(text[:-1] + b" " * (1 << 26) + b"}")
    blob, _ = made.end(bomb, len(text))
    with pytest.raises(TOCError, match="longer than its"):
        stargz.open(blob)
    blob, _ = made.end(bomb, len(text) + (1 << 26))
    with pytest.raises(TOCError, match="limit"):
        stargz.open(blob, max_toc_size=1 << 20)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"offset": 1 << 40}, "not inside"),
        ({"offset": 0}, "no offset"),
        ({"offset": -1}, "negative"),
        ({"chunkOffset": 5}, "a chunk at 5"),
        ({"chunkSize": 5000}, "the file has"),
        ({"size": 1 << 50}, "too small for it|cannot come of"),
        ({"chunkType": "ones"}, "chunkType"),
        ({"chunkDigest": "sha256:1"}, "chunkDigest"),
        ({"digest": "md5:1"}, "digest"),
    ],
)
def test_rows_that_cannot_be(change: dict[str, Any], match: str) -> None:
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.file("b", b"world" * 100)
    made.entries[1] |= change
    blob, _ = made.finish("C")
    with pytest.raises(TOCError, match=match):
        stargz.open(blob)


def test_frames_that_go_back_or_overlap() -> None:
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.file("b", b"world" * 100)
    made.entries[0]["offset"], made.entries[1]["offset"] = (
        made.entries[1]["offset"],
        made.entries[0]["offset"],
    )
    with pytest.raises(TOCError, match="is before that of the entry before it"):
        stargz.open(made.finish("C")[0])
    made.entries[0]["offset"] = made.entries[1]["offset"]
    with pytest.raises(TOCError, match="overlaps"):
        stargz.open(made.finish("C")[0])


def test_zeros_have_their_place_too() -> None:
    made = Handmade()
    made.file("a", b"hello" * 100, bytes(4096), b"world")
    made.entries[1]["offset"] = made.entries[0]["offset"]
    with pytest.raises(TOCError, match="overlaps"):
        stargz.open(made.finish("C")[0])
    made.entries[1]["offset"] = 1 << 40
    del made.entries[2]
    made.entries[0]["size"] -= 5
    with pytest.raises(TOCError, match="not inside"):
        stargz.open(made.finish("C")[0])
    # Nothing is read for them.
    del made.entries[1]["offset"]
    made.entries[0]["digest"] = sha256(b"hello" * 100 + bytes(4096))
    with stargz.open(made.finish("C")[0]) as layer:
        assert layer.read("a") == b"hello" * 100 + bytes(4096)


# --- bad frames -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packed",
    [
        frame(b"other" * 100),
        frame(b"hello" * 99),
        frame(b"hello" * 100)[:-10],
        skippable(b"hello" * 100),
        skippable(b"") + frame(b"hello" * 99),
        b"hello" * 100,
        frame(b"hello" * 100, window=26),
        bytes(20),
    ],
)
def test_frames_that_are_not_the_file(packed: bytes) -> None:
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.data = made.data[: made.entries[0]["offset"]] + packed
    blob, notes = made.finish("C")
    for source in (blob, Faraway(blob)):
        with stargz.open(source, annotations=notes, cache=False) as layer:
            for _ in range(2):
                with pytest.raises((GzipError, DigestError)) as caught:
                    layer.read("a")
                assert caught.value.offset is None or caught.value.offset < len(made.data)


def test_a_frame_of_more_than_it_promises() -> None:
    """Only what was promised is decoded."""
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.data = made.data[: made.entries[0]["offset"]] + frame(b"hello" * 100 + bytes(1 << 26))
    blob, notes = made.finish("C")
    for source in (blob, Faraway(blob)):
        with stargz.open(source, annotations=notes, cache=False) as layer:
            assert layer.read("a") == b"hello" * 100


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["annotations", "toc_digest", "nothing"])
@pytest.mark.parametrize("name", ["containers_storage.zst", "zstd_chunked.zst"])
def test_flipped_and_cut_anywhere(data: Path, name: str, known: str) -> None:
    """What is read is what was there, or an error; without digests of the TOC, of all but it."""
    blob = (data / name).read_bytes()
    with stargz.open(blob) as layer:
        wanted = {one: layer.read(one) for one in layer.toc.names("reg")}
        options = {"toc_digest": layer.toc_digest} if known == "toc_digest" else {}
        end = layer.data_end if known == "nothing" else len(blob)
    if known == "annotations" and name.startswith("containers"):
        options["annotations"] = json.loads((data / "containers_storage.json").read_text())
    places = [*range(0, end, 211), *range(max(0, end - 200), end, 7)]
    whole = 0
    for number, place in enumerate(places):
        flipped = bytearray(blob)
        flipped[place] ^= 1 << number % 8
        for bad in (bytes(flipped), blob[:place]) if number % 4 == 0 else (bytes(flipped),):
            try:
                layer = stargz.open(bad, index=False, **options)
            except (FormatError, DigestError):
                continue
            with layer:
                for one, content in wanted.items():
                    try:
                        assert layer.read(one) == content
                        whole += 1
                    except (FormatError, DigestError):
                        pass
    assert whole
