"""Images in every format of layers, from every other; two instances of an image in one index."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import chunked_layers
import pytest
import registries
import zstandard
from blobs import sha256, tar_of
from chunked_parts import Parts
from conversions import convert, written
from layouts import OCI_LAYER, OCI_MANIFEST, TOC_DIGEST, Layout
from registries import Registry

import stargz
from stargz.oci.convert.layers import LayerReport
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import Manifest
from stargz.oci.image import open_image
from stargz.options import Format

FORMATS = get_args(Format)
ZSTD_LAYER = OCI_LAYER.replace("gzip", "zstd")
ZSTD = "io.github.containers.compression.zstd"
C, S = "io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."
UNCOMPRESSED = "io.containers.estargz.uncompressed-size"
NEEDED = {
    "estargz": {TOC_DIGEST, UNCOMPRESSED},
    "stargz": {UNCOMPRESSED},
    "external-toc": {TOC_DIGEST, UNCOMPRESSED},
    "zstd:chunked": {
        C + "manifest-checksum",
        C + "manifest-position",
        C + "tarsplit-position",
    },
    "zstd:chunked-stargz": {
        TOC_DIGEST,
        UNCOMPRESSED,
        S + "manifest-checksum",
        S + "manifest-position",
    },
}
LOWER = tar_of([("etc/a", b"lower a"), ("etc/b", b"b" * 9000), ("empty", b"")])
UPPER = tar_of([("etc/a", b"upper a"), ("c", bytes(3000) + b"c")])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        yield served


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of two platforms in each format, and `plain`, of tar.gz, tar and tar.zst."""
    folder = tmp_path_factory.mktemp("formats")
    layout = Layout(folder / "plain")
    layers = plain_layers(layout)
    images = [
        layout.manifest(layers[:2]),
        layout.manifest([layers[0], layers[2]], platform="linux/arm64"),
    ]
    layout.tag(layout.index(images), "v1")
    for format in FORMATS:
        convert(layout, folder / folder_of(format), format=format)
    return folder


def folder_of(format: str) -> str:
    """A layout's path has no colon."""
    return format.replace(":", "-")


def plain_layers(layout: Layout) -> list[dict[str, Any]]:
    plain = layout.plain_layer(UPPER, UPPER)
    packed = layout.plain_layer(UPPER, zstandard.compress(UPPER))
    return [
        layout.plain_layer(LOWER),
        plain | {"mediaType": OCI_LAYER.removesuffix("+gzip")},
        packed | {"mediaType": ZSTD_LAYER},
    ]


def images(path: Path, ref: str = "v1") -> list[Manifest]:
    root, reading = written(path, ref), Reading(path)
    return [reading.manifest(entry) for entry in root.manifests] if root.kind == "index" else [root]


def check(path: Path, format: str, ref: str = "v1") -> None:
    """All that an image in a format has to say, and that what it says is true."""
    reading, root = Reading(path), written(path, ref)
    zstd = format.startswith("zstd")
    for entry in root.manifests if root.kind == "index" else []:
        assert entry.annotations.get(ZSTD) == ("true" if zstd else None)
    for image in images(path, ref):
        assert image.media_type == OCI_MANIFEST
        config = json.loads(reading.blob_path(image.config.digest).read_bytes())
        for layer, diff_id in zip(image.layers, config["rootfs"]["diff_ids"], strict=True):
            assert layer.media_type == (ZSTD_LAYER if zstd else OCI_LAYER)
            assert layer.annotations.keys() == NEEDED[format]
            blob = reading.blob_path(layer.digest)
            found, size = stargz.conversion.diff_id(blob)
            assert found == diff_id
            assert layer.uncompressed_size in (size, None)
            if format == "external-toc":
                continue
            with stargz.open(blob, annotations=layer.annotations) as opened:
                assert opened.kind == format.removesuffix("-stargz")
                assert opened.verify().ok
                if format != "stargz":
                    assert opened.verified


def diff_ids(path: Path) -> list[list[str]]:
    reading = Reading(path)
    configs = [
        json.loads(reading.blob_path(image.config.digest).read_bytes()) for image in images(path)
    ]
    return [config["rootfs"]["diff_ids"] for config in configs]


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", ["plain", *FORMATS])
def test_any_format_becomes_any_other(
    sources: Path, tmp_path: Path, source: str, target: Format
) -> None:
    report = convert(sources / folder_of(source), tmp_path / "dst", format=target)
    check(tmp_path / "dst", target)
    kept = source == target != "stargz"
    # What is made for both readers of zstd:chunked is read by both.
    kept |= (source, target) == ("zstd:chunked", "zstd:chunked-stargz")
    assert {layer.status for layer in report.layers} == {"kept" if kept else "converted"}
    assert {layer.format for layer in report.layers} == {target}
    assert {layer.digest: layer.annotations for layer in report.layers} == {
        layer.digest: layer.annotations
        for image in images(tmp_path / "dst")
        for layer in image.layers
    }
    assert report.status == ("unchanged" if source == target else "converted")
    for layer in report.layers:
        blob = Reading(tmp_path / "dst").blob_path(layer.digest)
        assert (layer.diff_id, layer.uncompressed_size) == stargz.conversion.diff_id(blob)
    own_toc = source in ("estargz", "stargz")
    if target == "zstd:chunked" or (target == "external-toc" and not own_toc) or kept:
        # The tars are the same: so are the configs, to the byte.
        before = [image.config.digest for image in images(sources / folder_of(source))]
        assert [image.config.digest for image in images(tmp_path / "dst")] == before
    assert any("left out" in text for text in report.warnings) == (
        own_toc and target == "external-toc"
    )
    for platform, content in (("linux/amd64", b"upper a"), ("linux/arm64", b"upper a")):
        with open_image(f"oci:{tmp_path / 'dst'}:v1", platform=platform) as image:
            assert image.tree.read("etc/a") == content
            assert image.tree.read("etc/b") == b"b" * 9000
            assert image.verified == (target != "stargz")


def test_formats_mixed_in_one_image(sources: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layers = plain_layers(layout)
    for format in FORMATS:
        if format == "external-toc":
            continue
        (image, _), reading = (
            images(sources / folder_of(format)),
            Reading(sources / folder_of(format)),
        )
        ids = diff_ids(sources / folder_of(format))[0]
        for layer, diff_id in zip(image.layers, ids, strict=True):
            layout.blob(reading.blob_path(layer.digest).read_bytes(), layer.media_type)
            layout._diff_ids[layer.digest] = diff_id
            layers.append(layer.json)
    layout.tag(layout.manifest(layers), "v1")
    for format in FORMATS:
        made = tmp_path / folder_of(format)
        report = convert(layout, made, format=format, verify=True)
        assert {layer.format for layer in report.layers} == {format}
        check(made, format)
        again = convert(made, made.with_suffix(".2"), format=format)
        assert (again.status, again.digest) == ("unchanged", report.digest)


# --- what is kept ---------------------------------------------------------------------------------


def one_layer(path: Path, blob: bytes, diff_id: str, annotations: dict[str, str]) -> Layout:
    layout = Layout(path)
    layer = layout.blob(blob, ZSTD_LAYER, annotations=annotations)
    layout._diff_ids[layer["digest"]] = diff_id
    layout.tag(layout.manifest([layer]), "v1")
    return layout


def only(report: Any) -> LayerReport:
    (layer,) = report.layers
    assert isinstance(layer, LayerReport)
    return layer


def test_what_annotations_say_is_made_right(tmp_path: Path) -> None:
    blob, made = chunked_layers.convert(LOWER, "zstd:chunked")
    theirs = chunked_layers.convert(LOWER, "zstd:chunked-stargz")[1].annotations
    both = {**made.annotations, TOC_DIGEST: made.toc_digest, "mine": "kept", S + "old": "x"}
    stale = {C + "tarsplit-checksum": "sha256:" + "0" * 64}  # of the past
    for number, said in enumerate(({}, made.annotations, both, made.annotations | stale)):
        layout = one_layer(tmp_path / f"src{number}", blob, made.diff_id, said)
        report = convert(layout, tmp_path / f"dst{number}", format="zstd:chunked")
        assert only(report).status == "kept"
        (image,) = images(tmp_path / f"dst{number}")
        mine = {"mine": "kept"} if "mine" in said else {}
        assert image.layers[0].annotations == made.annotations | mine
        assert image.layers[0].digest == made.digest
        assert report.status == ("unchanged" if said == made.annotations else "converted")
    # Annotations that are not true of the blob are no reason to go on believing in it.
    for number, said in enumerate((theirs, made.annotations | {TOC_DIGEST: "sha256:" + "0" * 64})):
        layout = one_layer(tmp_path / f"bad{number}", blob, made.diff_id, said)
        report = convert(layout, tmp_path / f"good{number}", format="zstd:chunked")
        assert only(report).status == "converted" and "not trusted" in report.warnings[0]
        assert only(report).digest == made.digest
        check(tmp_path / f"good{number}", "zstd:chunked")


def test_each_reader_of_zstd_chunked_has_demands_of_its_own(tmp_path: Path) -> None:
    # Of stargz-snapshotter: there is no tar-split for containers/storage.
    blob, made = chunked_layers.convert(LOWER, "zstd:chunked-stargz")
    layout = one_layer(tmp_path / "s", blob, made.diff_id, made.annotations)
    report = convert(layout, tmp_path / "c", format="zstd:chunked")
    assert only(report).status == "converted" and not report.warnings
    check(tmp_path / "c", "zstd:chunked")
    # Of containers/storage itself: no footer for the other, and files without chunkDigest.
    data = Path(__file__).parent.parent / "data"
    blob = (data / "containers_storage.zst").read_bytes()
    said = json.loads((data / "containers_storage.json").read_text())
    said = said.get("annotations", said)
    # With that footer it lacks the digests, and one of ours without it that alone.
    numbers = said[C + "manifest-position"].split(":")
    footer = b"".join(int(number).to_bytes(8, "little") for number in numbers) + b"GnUlInUx"
    with_footer = blob + bytes.fromhex("502a4d1828000000") + footer
    ours, made = chunked_layers.convert(LOWER, "zstd:chunked")
    lacking = [(blob, said), (with_footer, said), (ours[:-48], made.annotations)]
    for number, (each, told) in enumerate(lacking):
        diff_id = sha256(chunked_layers.plain(each))
        layout = one_layer(tmp_path / f"lacking{number}", each, diff_id, told)
        report = convert(layout, tmp_path / f"made{number}", format="zstd:chunked-stargz")
        assert only(report).status == "converted" and not report.warnings
        check(tmp_path / f"made{number}", "zstd:chunked-stargz")
        kept = convert(layout, tmp_path / f"kept{number}", format="zstd:chunked")
        assert (only(kept).status, kept.status) == ("kept", "unchanged")


def test_a_tar_split_that_is_not_true(tmp_path: Path) -> None:
    """Nothing else would show it but a pull that fails."""
    blob, made = chunked_layers.convert(UPPER, "zstd:chunked")
    parts = Parts.of(blob, made.annotations)
    (file,) = (line for line in parts.split if line.get("name") == "c")
    file["payload"] = base64.b64encode(bytes(8)).decode()  # its CRC
    lying, told = parts.layer()
    layout = one_layer(tmp_path / "src", lying, sha256(UPPER), told)
    report = convert(layout, tmp_path / "dst", format="zstd:chunked")
    assert only(report).status == "converted" and "not trusted" in report.warnings[0]
    check(tmp_path / "dst", "zstd:chunked")


def test_another_layout_is_made_anew(sources: Path, tmp_path: Path) -> None:
    src = sources / "zstd-chunked"
    report = convert(src, tmp_path / "a", format="zstd:chunked", level=19)
    assert {(layer.status, layer.level) for layer in report.layers} == {("converted", 19)}
    report = convert(sources / "estargz", tmp_path / "b", format="estargz", level=1)
    assert {layer.status for layer in report.layers} == {"converted"}
    assert report.status == "unchanged"  # to the same bytes
    flat = convert(src, tmp_path / "c", format="zstd:chunked", flatten=True)
    check(tmp_path / "c", "zstd:chunked")
    assert len(images(tmp_path / "c")[0].layers) == 1
    assert convert(tmp_path / "c", tmp_path / "d", format="zstd:chunked").status == "unchanged"
    assert flat.layers[0].status == "converted"


def test_reports_of_before_are_read() -> None:
    old = {
        "status": "converted", "source_digest": "s", "source_size": 1, "digest": "d", "size": 2,
        "diff_id": "i", "toc_digest": "t", "uncompressed_size": 3, "entries": 4, "chunks": 5,
        "level": 1, "seconds": 0.5, "missing": [], "warnings": [],
    }  # fmt: skip
    assert LayerReport.from_json(old).annotations == {TOC_DIGEST: "t", UNCOMPRESSED: "3"}
    assert LayerReport.from_json({**old, "toc_digest": None}).annotations == {}
