"""What users write, for mypy --strict to check (tests/test_typing.py); it is never run."""

import io
import stat
from pathlib import Path, PurePosixPath
from typing import Literal, assert_type

import stargz
from stargz import errors


def use_convert(src: Path, dst: Path) -> None:
    result = stargz.convert(
        src,
        str(dst),
        level=1,
        chunk_size=4 << 20,
        min_chunk_size=0,
        prioritized=["usr/bin/python3", PurePosixPath("etc/passwd")],
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
    assert_type(result.level, int | Literal["reuse"])
    assert_type(result.seconds, float)
    with src.open("rb") as read, io.BytesIO() as write:
        stargz.convert(read, write, level="reuse", verify=True)
    assert_type(stargz.pack(src, dst, level="reuse").level, int | Literal["reuse"])


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
        assert_type(layer.closed, bool)
        if result := layer.verify():
            assert_type(result, stargz.VerifyResult)
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


def use_images(src: str) -> None:
    with stargz.open_image(src, platform="linux/amd64", authfile=Path("auth.json")) as image:
        assert_type(image, stargz.Image)
        assert_type(image.closed, bool)
        assert_type(image.tree, stargz.Tree)
        tree = stargz.Tree(image.layers, whiteouts="apply")
        assert_type(tree.stat("etc"), stargz.Stat)
        with stargz.mount.mount("any.tar.gz", "/mnt", index="build", require_verified=True):
            pass
        with stargz.mount.mount(tree, "/mnt") as mounted:
            assert_type(mounted, stargz.mount.Mount)
    report = stargz.convert_image(src, "oci:lazy", platforms=["linux/amd64"], level="reuse")
    assert_type(report, stargz.ImageReport)
    for layer in report.layers:
        assert_type(layer, stargz.LayerReport)
        assert_type(layer.level, int | Literal["reuse"] | None)
        assert_type(layer.codec, str)
    assert_type(stargz.bulk(src, "oci:all", level="reuse").totals, dict[str, int])
    if found := stargz.verify_image(src):
        assert_type(found, stargz.ImageVerifyResult)


def is_legacy(layer: stargz.Layer) -> bool:
    kind: Literal["estargz", "stargz", "external-toc", "zstd:chunked", "indexed"] = layer.kind
    return kind == "stargz"


def kind(entry: stargz.Entry) -> bool:
    return stat.S_ISDIR(entry.st_mode)


def use_diff(first: Path, following: Path) -> None:
    difference = stargz.diff(first, following)
    assert_type(difference, stargz.Difference)
    assert_type(difference.added, list[str])
    assert_type(difference.totals.bytes_to_send, int)
    for change in difference.changed:
        assert_type(change.name, str)
    with stargz.open(first) as layer:
        stargz.diff(layer, b"")
