"""What users write, for mypy --strict to check (tests/test_typing.py); it is never run."""

import io
from pathlib import Path
from typing import assert_type

import stargz
from stargz import errors


def use_convert(src: Path, dst: Path) -> None:
    result = stargz.convert(
        src,
        str(dst),
        level=1,
        chunk_size=4 << 20,
        min_chunk_size=0,
        prioritized=["usr/bin/python3"],
        allow_missing=True,
        lossless=False,
        format="estargz",
        threads=2,
        progress=lambda done, total: print(done, total),
    )
    assert_type(result, stargz.ConvertResult)
    assert_type(result.digest, str)
    assert_type(result.diff_id, str)
    assert_type(result.toc_digest, str)
    assert_type(result.size, int)
    assert_type(result.uncompressed_size, int)
    assert_type(result.entries, int)
    assert_type(result.chunks, int)
    assert_type(result.level, int)
    assert_type(result.seconds, float)
    with src.open("rb") as read, io.BytesIO() as write:
        stargz.convert(read, write)


def use_layer(path: Path) -> bytes:
    with stargz.open(path) as layer:
        assert_type(layer, stargz.Layer)
        assert_type(layer.toc_digest, str)
        assert_type(len(layer), int)
        assert_type("usr" in layer, bool)
        names: list[str] = list(layer)
        names += layer.names()
        entry = layer.entry(names[0])
        size: int = entry.size
        layer.verify()
        layer.extractall(path.parent / "out", members=names)
        with layer.open("etc/passwd") as file:
            assert_type(file, io.BufferedReader)
            file.seek(size // 2)
        try:
            return layer.read("etc/passwd", offset=1, size=10)
        except errors.FormatError as error:
            assert_type(error.source, str)
            assert_type(error.offset, int | None)
            raise
        except errors.DigestError as error:
            assert_type(error.expected, str)
            raise


def use_diff(first: Path, following: Path) -> None:
    difference = stargz.diff(first, following)
    assert_type(difference, stargz.Difference)
    assert_type(difference.added, list[str])
    assert_type(difference.totals.bytes_to_send, int)
    for change in difference.changed:
        assert_type(change.name, str)
    with stargz.open(first) as layer:
        stargz.diff(layer, b"")
