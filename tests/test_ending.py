"""What `stargz info` tells of a tar that was cut short, without decompressing it."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from blobs import tar_of
from command import here, ok_here

import stargz
from stargz.ending import _LAYER, cut_short
from stargz.indexes import compression_of
from stargz.sources import MemorySource

RANDOM = random.Random(7)
TAR = tar_of(
    [("etc/empty", b""), ("etc/text", b"some text\n" * 9000), ("bytes", RANDOM.randbytes(300_000))]
)
SKIPPABLE = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"


def layer(**options: object) -> bytes:
    out = io.BytesIO()
    stargz.convert(TAR, out, **options)  # type: ignore[arg-type]
    return out.getvalue()


def zstd(data: bytes, level: int = 3, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(level, **options).compress(data)


def streamed(data: bytes) -> bytes:
    """Without the content's size in its header."""
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return packer.compress(data) + packer.flush()


WHOLE: dict[str, Callable[[], bytes]] = {
    "a tar": lambda: TAR,
    "an empty tar": lambda: bytes(1024),
    "gzip -1": lambda: gzip.compress(TAR, 1),
    "gzip -9": lambda: gzip.compress(TAR, 9),
    "stored": lambda: gzip.compress(TAR, 0),
    "two archives": lambda: gzip.compress(TAR) * 2,
    "members of whole blocks": lambda: b"".join(
        gzip.compress(TAR[at : at + 5120]) for at in range(0, len(TAR), 5120)
    ),
    "an empty member behind": lambda: gzip.compress(TAR[:999]) + gzip.compress(TAR[999:])
    + gzip.compress(b""),
    "a layer's tar in one member": lambda: gzip.compress(gzip.decompress(layer())),
    "zeros alone": lambda: gzip.compress(bytes(10 << 20), 9),
    "zstd": lambda: zstd(TAR),
    "zstd with a checksum": lambda: zstd(TAR, write_checksum=True),
    "zstd without a size": lambda: zstd(TAR, write_content_size=False),
    "streamed": lambda: streamed(TAR),
    "frames": lambda: zstd(TAR[:99]) + SKIPPABLE + zstd(b"") + zstd(TAR[99:], 19) + SKIPPABLE,
    "a block of one byte": lambda: zstd(TAR + bytes(1 << 20)),
}  # fmt: skip


def of(data: bytes) -> str | None:
    source = MemorySource(data)
    return cut_short(source, compression_of(source))


@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_whole_is_not_said_to_be_cut(kind: str) -> None:
    assert of(WHOLE[kind]()) is None


@pytest.mark.parametrize(
    "kind", [k for k in WHOLE if "zstd" in k or k in ("streamed", "a block of one byte")]
)
def test_a_frame_that_is_cut_is_seen_wherever_that_is(kind: str) -> None:
    data = WHOLE[kind]()
    for size in {
        len(data) - 1,
        len(data) - 4,
        *(RANDOM.randrange(20, len(data)) for _ in range(99)),
    }:
        assert "was cut short" in (of(data[:size]) or ""), size


@pytest.mark.parametrize(
    "options",
    [{}, {"format": "stargz"}, {"lossless": True}, {"prioritized": ["bytes"]},
     {"min_chunk_size": 1 << 20}, {"level": 12}],
    ids=str,
)  # fmt: skip
def test_a_layer_that_is_cut_is_seen_by_how_it_begins(options: dict[str, object]) -> None:
    data = layer(**options)
    for size in {len(data) - 60, *(RANDOM.randrange(20_000, len(data) - 60) for _ in range(20))}:
        assert "begins as a seekable layer" in (of(data[:size]) or ""), size


@pytest.mark.parametrize("kind", ["a tar", "gzip -1", "gzip -9"])
def test_most_other_cuts_are_seen(kind: str) -> None:
    data = WHOLE[kind]()
    cuts = [RANDOM.randrange(1000, len(data)) for _ in range(200)]
    assert sum("may be cut short" in (of(data[:size]) or "") for size in cuts) > 190


def test_junk_is_read_to_its_end_once() -> None:
    """Blocks of nothing, which could be a third of any file."""
    data = zstd(b"")[:5] + bytes(30 << 20)
    assert of(data) is None


def test_info_says_so(tmp_path: Path) -> None:
    path = tmp_path / "half.stargz"
    data = layer()
    path.write_bytes(data[: len(data) // 2])
    said = ok_here("info", path).splitlines()
    assert [line.split()[0] for line in said] == ["kind", "size", "compression", "note"]
    assert "was cut short; get it again" in said[-1] and "index" not in said[-1]
    assert "cut short" in json.loads(ok_here("info", "--json", path))["cut_short"]
    path.write_bytes(gzip.compress(TAR))
    assert json.loads(ok_here("info", "--json", path))["cut_short"] is None
    assert "'stargz index' makes one" in ok_here("info", path)
    path.write_bytes(data[:-20])  # within its footer
    assert "cut short" in here("info", path).stderr


@pytest.mark.parametrize("options", [{}, {"format": "stargz"}, {"lossless": True}], ids=str)
def test_a_layer_without_its_footer_is_not_whole(
    options: dict[str, object], tmp_path: Path, user_cache: Path
) -> None:
    """Cut where a member ends it is a tar.gz that can be indexed, and no whole layer yet."""
    data = layer(**options)
    with stargz.open(data) as whole:
        ends = {whole.toc_offset, len(data) - (47 if "format" in options else 51)}
    for size in ends:
        path = tmp_path / f"{size}.stargz"
        path.write_bytes(data[:size])
        for _ in range(2):  # by a new index, and by the one that was kept
            done = here("verify", "--json", path)
            assert done.returncode == 3
            (error,) = json.loads(done.stdout)["errors"]
            assert error == {"name": "", "offset": size, "message": _LAYER}
            assert "cut short" in json.loads(ok_here("info", "--json", path))["cut_short"]
            assert _LAYER in ok_here("info", path)
        assert f"warning: {path}: {_LAYER}" in here("index", path, "-o", f"{path}.i").stderr
        user_cache.rename(tmp_path / f"{size}.cache")
        assert f"warning: {path}: {_LAYER}" in here("ls", path).stderr


def test_no_more_than_both_ends_are_read() -> None:
    class Counted(MemorySource):
        count = 0

        def read_at(self, offset: int, size: int) -> bytes:
            self.count += size
            return super().read_at(offset, size)

    for data in (TAR, gzip.compress(TAR), zstd(TAR)):
        source = Counted(data)
        cut_short(source, compression_of(source))
        assert source.count < 20_000
