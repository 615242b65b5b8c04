"""`--level reuse` of whole images and registries."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
import registries
from command import ok_here
from registries import Registry
from test_reuse import deflated, make_tar

import stargz
from stargz.oci.image import open_image

LOWER, UPPER = make_tar(11, 12), blobs.tar_of([("own", blobs.noise("own", 100) * 500)])
REUSED, ANEW = "the input's matches", "isa-l"


def layout_of(path: Path) -> layouts.Layout:
    """An image of layers by gzip and by zstd, and an eStargz, as `v1`."""
    layout = layouts.Layout(path)
    packed = subprocess.run(["zstd", "-qc"], input=UPPER, capture_output=True, check=True).stdout
    layers = [
        layout.plain_layer(LOWER, deflated(LOWER, 9)),
        layout.plain_layer(UPPER, packed)
        | {"mediaType": layouts.OCI_LAYER.replace("gzip", "zstd")},
        layout.layer(make_tar(12, 5), level=6),
    ]
    layout.tag(layout.manifest(layers), "v1")
    return layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> layouts.Layout:
    return layout_of(tmp_path_factory.mktemp("layout") / "l")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, layout: layouts.Layout) -> Iterator[Registry]:
    with registries.registry(tmp_path_factory.mktemp("source")) as registry:
        registry.push(layout.path, "team/app", "v1")
        yield registry


def layers_of(*words: object) -> list[dict[str, Any]]:
    told = json.loads(ok_here("image", *words, "--level", "reuse", "--json"))
    found: list[dict[str, Any]] = told["layers"]
    assert {layer["level"] for layer in found} == {"reuse"}
    return found


def right(image: str) -> None:
    with open_image(image, require_verified=True, cache=False) as opened:
        assert opened.tree.read("own") == blobs.noise("own", 100) * 500
    assert stargz.verify_image(image).ok


@pytest.mark.parametrize("format", ["estargz", "stargz", "external-toc"])
def test_image(format: str, layout: layouts.Layout, tmp_path: Path) -> None:
    """All layers are made anew, and `codec` says of each what was done."""
    dst = f"oci:{tmp_path}/made:v1"
    found = layers_of("convert", f"oci:{layout.path}:v1", dst, "--format", format, "--verify")
    assert [layer["codec"] for layer in found] == [REUSED, ANEW, REUSED]
    assert {layer["status"] for layer in found} == {"converted"}
    assert found[0]["size"] < 0.9 * stargz.convert(LOWER, tmp_path / "one").size
    if format != "stargz":  # whose TOCs nothing vouches for
        right(dst)
        again = ok_here("image", "convert", dst, f"oci:{tmp_path}/kept:v1", "--format", format)
        assert again.count("  kept") == 3


def test_registries(served: Registry, layout: layouts.Layout, tmp_path: Path) -> None:
    """From one to itself: the layers are those of a layout."""
    src, dst = f"docker://{served.host}/team/app:v1", f"docker://{served.host}/team/lazy:v1"
    far = layers_of("convert", src, dst)
    near = layers_of("convert", f"oci:{layout.path}:v1", f"oci:{tmp_path}/made:v1")
    assert [layer["digest"] for layer in far] == [layer["digest"] for layer in near]
    right(dst)


def test_merged(layout: layouts.Layout, tmp_path: Path) -> None:
    """Layers that are merged are a tar of their own."""
    (layer,) = layers_of("convert", f"oci:{layout.path}:v1", f"oci:{tmp_path}/made:v1", "--flatten")
    assert layer["codec"] == ANEW
    right(f"oci:{tmp_path}/made:v1")


def test_both(layout: layouts.Layout, tmp_path: Path) -> None:
    """Only of the instance in gzip: the other one has the level of zstd."""
    words = (f"oci:{layout.path}:v1", f"oci:{tmp_path}/made:v1", "--both", "--level", "reuse")
    found = json.loads(ok_here("image", "convert", *words, "--json"))["layers"]
    assert [(layer["format"], layer["level"]) for layer in found] == [
        *[("estargz", "reuse")] * 3,
        *[("zstd:chunked", 3)] * 3,
    ]
    right(f"oci:{tmp_path}/made:v1")


def test_bulk(served: Registry, tmp_path: Path) -> None:
    """A second run has nothing to do; another level has everything, and is not taken for this."""
    state, report = tmp_path / "state", tmp_path / "report.json"
    words = ("image", "bulk", f"docker://{served.host}", f"oci:{tmp_path}/out", "--state", state)
    words = (*words, "--include", "team/app")

    def done(*options: object) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(ok_here(*words, "--json", *options))
        return told

    reuse = ("--level", "reuse")
    assert done(*reuse, "--dry-run")["totals"]["to_do"] == 1
    first = done(*reuse, "--verify", "--report", report)
    assert first["options"]["level"] == "reuse"
    assert (first["totals"]["converted"], first["totals"]["layers_converted"]) == (1, 3)
    right(f"oci:{tmp_path}/out/team/app:v1")
    (image,) = json.loads(report.read_text())["images"]
    assert [(layer["level"], layer["codec"]) for layer in image["layers"]] == [
        *[("reuse", codec) for codec in (REUSED, ANEW, REUSED)]
    ]
    digest = image["digest"]
    assert done(*reuse, "--dry-run")["totals"]["to_do"] == 0
    assert done(*reuse)["totals"]["unchanged"] == 1
    assert done("--dry-run")["totals"]["to_do"] == 1
    assert done("--level", "1")["totals"]["layers_converted"] == 3
    back = done(*reuse, "--report", report)["totals"]
    assert (back["converted"], back["layers_reused"]) == (1, 3)  # which the state still knows
    assert json.loads(report.read_text())["images"][0]["digest"] == digest
