"""Which of two instances of an image is the one in zstd: its layers tell, and everybody can pull
the other one."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blobs import sha256, tar_of
from command import here, ok_here
from conversions import convert, written
from layouts import OCI_LAYER, Layout

from stargz.errors import OccupiedError
from stargz.oci.bulk import bulk
from stargz.oci.conversion import convert_image
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.verify.image import verify_image

ZSTD = "io.github.containers.compression.zstd"
ZSTD_LAYER = OCI_LAYER.replace("gzip", "zstd")
LOWER = tar_of([("etc/a", b"lower a")])
ARM = ["linux/arm64"]


def linked() -> bytes:
    """A tar with a hard link into a layer below, which no TOC can hold."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("etc/hard")
        info.type, info.linkname = tarfile.LNKTYPE, "etc/a"
        archive.addfile(info)
    return out.getvalue()


def zstd_layer(layout: Layout, tar: bytes, media_type: str = ZSTD_LAYER) -> dict[str, Any]:
    return layout.plain_layer(tar, zstandard.compress(tar)) | {"mediaType": media_type}


def instances(path: Path, ref: str = "v1") -> list[tuple[bool, list[str]]]:
    """What an index lists: whether it is marked as zstd, and the media types of its layers."""
    return [
        (
            entry.annotations.get(ZSTD) == "true",
            [
                layer.media_type.rpartition("+")[2]
                for layer in Reading(path).manifest(Reading(path).resolve(entry.digest)).layers
            ],
        )
        for entry in written(path, ref).manifests
    ]


@pytest.mark.parametrize("media_type", [ZSTD_LAYER, OCI_LAYER])
def test_everybody_can_pull_the_first_instance(tmp_path: Path, media_type: str) -> None:
    layout = Layout(tmp_path / "src")
    layers = [zstd_layer(layout, tar, media_type) for tar in (LOWER, linked())]
    layers.append(layout.plain_layer(linked() + bytes(512)))
    layout.tag(layout.manifest(layers), "v1")
    dst = tmp_path / "dst"
    report = convert(layout, dst, both=True, verify=True)
    assert instances(dst) == [(False, ["gzip"] * 3), (True, ["zstd"] * 3)]
    assert [one.format for one in report.layers[:3]] == ["estargz", "gzip", ""]
    assert [one.format for one in report.layers[3:]] == ["zstd:chunked", "zstd", "zstd"]
    assert [one.status for one in report.layers[1:3]] == ["not seekable"] * 2
    assert report.layers[1].diff_id == sha256(linked())
    assert any("becomes plain gzip" in text for text in report.warnings)
    # It is as it was, also in its own place.
    for _ in range(2):
        again = convert_image(f"oci:{dst}:v1", upgrade=True, both=True)
        assert (again.status, again.digest) == ("unchanged", report.digest)
    # Alone such a layer stays as it is, and the mark is what podman's would be.
    layout.tag(layout.index([layout.manifest(layers)]), "listed")
    convert(layout, tmp_path / "one", "listed")
    kept = media_type.rpartition("+")[2]
    assert instances(tmp_path / "one", "listed") == [
        (media_type == ZSTD_LAYER, ["gzip", kept, "gzip"])
    ]


def test_layers_tell_instances_and_marks_do_not(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    image = layout.manifest([layout.plain_layer(LOWER)], platform="linux/arm64/v8")
    layout.tag(layout.index([image]), "v1")
    right = convert_image(f"oci:{layout.path}:v1", upgrade=True, both=True)
    first, second = written(layout.path).json["manifests"]
    del second["annotations"]
    marked = {**first, "annotations": {ZSTD: "true"}}
    # What names a platform otherwise is chosen by the same clients.
    short = {"os": "linux", "architecture": "arm64"}
    for name, entries in {
        "bare": [first, second],
        "swapped": [marked, second],
        "turned": [second, first],
        "short": [first, second | {"platform": short}],
    }.items():
        layout.tag(layout.index(entries), name)
        made = convert(layout, tmp_path / name, name, both=True)
        assert instances(tmp_path / name, name) == [(False, ["gzip"]), (True, ["zstd"])]
        assert name == "short" or made.digest == right.digest
        # One of them is taken by its layers, too, of all and of one platform.
        for platforms in ([], ARM):
            options: dict[str, Any] = {"format": "zstd:chunked", "platforms": platforms}
            one = convert(layout, tmp_path / f"{name}{len(platforms)}", name, **options)
            assert {layer.status for layer in one.layers} == {"kept"} and len(one.layers) == 1
            assert one.layers[0].digest == right.layers[1].digest
    told = here("verify", f"oci:{layout.path}:swapped")
    assert told.returncode == 3 and first["digest"] in told.stderr
    assert "says that it is in zstd" in told.stderr
    assert verify_image(f"oci:{layout.path}:bare").ok


def test_images_without_layers_are_there_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([]), "v1")
    convert(layout, tmp_path / "dst", both=True)
    assert instances(tmp_path / "dst") == [(False, [])]
    again = convert_image(f"oci:{tmp_path / 'dst'}:v1", upgrade=True, both=True)
    assert again.status == "unchanged"


@pytest.mark.parametrize("how", ["zstd:chunked", "estargz", "both", "foreign"])
def test_what_is_no_twin_by_its_layers_is_made_again(tmp_path: Path, how: str) -> None:
    layout = Layout(tmp_path / "src")
    one = zstd_layer(layout, linked())
    if how == "foreign":
        one["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    layout.tag(layout.manifest([one], annotations={"mine": "kept"}), "v1")
    options: dict[str, Any] = {"both": True} if how == "both" else {"format": how}
    if how == "foreign":
        options = {"docker_types": True}
    dst = tmp_path / "dst"
    first = convert(layout, dst, **options)
    dry = bulk(f"oci:{layout.path}", f"oci:{dst}", dry_run=True, **options)
    assert dry.totals["failed"] == 0
    assert convert(layout, dst, **options).digest == first.digest
    # What would become another image stays.
    layout.retag(layout.manifest([one]), "v1")
    with pytest.raises(OccupiedError, match="no layer is seekable"):
        convert(layout, dst, **options)
    assert written(dst).digest == first.digest


def test_a_diff_id_that_is_not_true_is_told_of(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    lie = sha256(b"another")
    config = {"rootfs": {"type": "layers", "diff_ids": [lie]}}
    for name, layer in (
        ("plain", layout.plain_layer(LOWER)),
        ("seekable", layout.layer(LOWER)),
    ):
        layout.tag(layout.manifest([layer], config=config), name)
        for format in ("zstd:chunked", "external-toc", "estargz"):
            made = convert(layout, tmp_path / f"{name}-{format[:4]}", name, format=format)
            told = [text for text in made.warnings if lie in text]
            # Of eStargz the tar becomes another, unless it is so already.
            same = {"plain": format != "estargz", "seekable": format != "external-toc"}[name]
            assert len(told) == same
            assert all(layer["digest"] in text for text in told)


def test_info_tells_the_kinds_of_layers(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(LOWER)]), "v1")
    for format, kind, dialect, seekable in (
        ("estargz", None, None, True),
        ("stargz", "stargz", None, True),
        ("external-toc", "external-toc", None, True),
        ("zstd:chunked", "zstd:chunked", "containers/storage", True),
        ("zstd:chunked-stargz", "zstd:chunked", "stargz-snapshotter", True),
        (None, None, None, False),
    ):
        path = tmp_path / str(format).replace(":", "-") if format else layout.path
        made = convert(layout, path, format=format) if format else None
        report = json.loads(ok_here("image", "info", "--json", f"oci:{path}:v1"))
        (layer,) = report["layers"]
        assert (layer["kind"], layer["dialect"], layer["seekable"]) == (kind, dialect, seekable)
        tocs = None if made is None or made.toc_image is None else made.toc_image.digest
        assert report["external_tocs"] == tocs
        shown = ok_here("image", "info", f"oci:{path}:v1").splitlines()[-1]
        assert kind is None or kind in shown
        vouched = here("image", "info", "--require-verified", f"oci:{path}:v1").returncode == 0
        assert vouched == (seekable and kind != "stargz")
