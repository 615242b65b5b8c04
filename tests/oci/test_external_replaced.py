"""Images with external TOCs whose name becomes that of another: they are read until then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
from blobs import sha256, tar_of
from command import ok_here
from layouts import LAYER_DIGEST, Layout
from registries import Registry
from servers import Fault, FaultProxy, Request

from stargz.errors import StargzError
from stargz.oci.conversion import ImageReport, convert_image
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.layout_writer import LayoutDestination
from stargz.oci.image import load_image, open_image
from stargz.oci.verify.image import verify_image

OPTIONS: dict[str, Any] = {"format": "external-toc", "threads": 1, "jobs": 2}
SHARED = tar_of([("shared", b"shared")])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        yield served


def source(path: Path, *names: str) -> str:
    """An image for each of two platforms, with a layer of their own and a shared one."""
    layout = Layout(path)
    shared = layout.plain_layer(SHARED)
    images = [
        layout.manifest([shared, layout.plain_layer(tar_of([(name, name.encode())]))], platform=one)
        for name, one in zip(names, ("linux/amd64", "linux/arm64"), strict=True)
    ]
    layout.tag(layout.index(images), "v1")
    return f"oci:{path}:v1"


def is_read(name: str, file: str, platform: str = "linux/amd64") -> None:
    with open_image(name, platform=platform) as image:
        assert image.verified and image.tree.read(file) == file.encode()


def layers_of(path: Path) -> list[str]:
    """The layers whose TOCs the second image has."""
    reading = Reading(path)
    layers = reading.manifest(reading.resolve("v1-esgztoc")).layers
    return sorted(entry.annotations[LAYER_DIGEST] for entry in layers)


def made(report: ImageReport) -> list[str]:
    return sorted(layer.digest for layer in report.layers)


def edited_tocs(
    path: Path, edit: Callable[[list[dict[str, Any]]], object]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A layout's entry of the second image, and one of that with other layers."""
    entries = json.loads((path / "index.json").read_bytes())["manifests"]
    (tocs,) = [one for one in entries if "v1-esgztoc" in one["annotations"].values()]
    reading = Reading(path)
    manifest = reading.manifest(reading.resolve("v1-esgztoc")).json
    edit(manifest["layers"])
    data = json.dumps(manifest).encode()
    digest = sha256(data)
    reading.blob_path(digest).write_bytes(data)
    return tocs, tocs | {"digest": digest, "size": len(data)}


def test_the_old_image_is_read_until_the_new_one_is_there(
    tmp_path: Path, registry: Registry
) -> None:
    old, new = source(tmp_path / "a", "a", "b"), source(tmp_path / "b", "c", "d")
    name = f"docker://{registry.host}/app:v1"
    convert_image(old, name, **OPTIONS)
    failing = {"/v2/app/manifests/v1"}

    def plan(asked: Request) -> Fault | None:
        fails = asked.method == "PUT" and asked.path in failing
        return Fault(status=400) if fails else None

    with FaultProxy(f"http://{registry.host}") as proxy:
        proxy.plan = plan
        through = f"docker://{proxy.url.removeprefix('http://')}/app:v1"
        for image in (new, source(tmp_path / "c", "e", "f")):  # what failed before does not stay
            with pytest.raises(StargzError):
                convert_image(image, through, plain_http=True, **OPTIONS)
            is_read(name, "a")
            is_read(name, "b", "linux/arm64")
            assert verify_image(name).ok
            with load_image(f"{name}-esgztoc") as tocs:
                assert len(tocs.manifest.layers) == 5
        failing.clear()
        report = convert_image(new, through, plain_http=True, **OPTIONS)
        puts = [one.path.rpartition("/")[2] for one in proxy.log if one.method == "PUT"]
        assert [one for one in puts if one.startswith("v1")][-3:] == [
            "v1-esgztoc",
            "v1",
            "v1-esgztoc",
        ]
    is_read(name, "c")
    with load_image(f"{name}-esgztoc") as tocs:
        assert report.toc_image and tocs.digest == report.toc_image.digest
        assert sorted(one.annotations[LAYER_DIGEST] for one in tocs.descriptors) == made(report)


def test_in_a_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = source(tmp_path / "a", "a", "b"), source(tmp_path / "b", "c", "d")
    name = f"oci:{tmp_path / 'dst'}:v1"
    first = convert_image(old, name, **OPTIONS)
    write = LayoutDestination.write_manifest

    def fails(self: Any, data: bytes, media_type: str, *, named: bool, suffix: str = "") -> str:
        if named and not suffix:
            raise OSError(28, "No space left on device")
        return write(self, data, media_type, named=named, suffix=suffix)

    with monkeypatch.context() as patch:
        patch.setattr(LayoutDestination, "write_manifest", fails)
        with pytest.raises(OSError, match="space"):
            convert_image(new, name, **OPTIONS)
    is_read(name, "a")
    assert set(layers_of(tmp_path / "dst")) > set(made(first))
    # What is to be taken back at last, and cannot be, does no harm.

    def fails_later(
        self: Any, data: bytes, media_type: str, *, named: bool, suffix: str = ""
    ) -> str:
        if suffix and "v1" in Reading(tmp_path / "dst").refs() and self.digest() != first.digest:
            raise OSError(28, "No space left on device")
        return write(self, data, media_type, named=named, suffix=suffix)

    with monkeypatch.context() as patch:
        patch.setattr(LayoutDestination, "write_manifest", fails_later)
        report = convert_image(new, name, **OPTIONS)
    assert any("v1-esgztoc still has" in text for text in report.warnings)
    reading = Reading(tmp_path / "dst")
    assert report.toc_image and report.toc_image.digest == reading.resolve("v1-esgztoc").digest
    is_read(name, "c")
    again = convert_image(new, name, **OPTIONS)
    assert layers_of(tmp_path / "dst") == made(again) and again.digest == report.digest
    assert not again.warnings


def test_an_archive_has_those_of_its_image_alone(tmp_path: Path) -> None:
    old, new = source(tmp_path / "a", "a", "b"), source(tmp_path / "b", "c", "d")
    name = f"oci-archive:{tmp_path / 'a.tar'}:v1"
    convert_image(old, name, **OPTIONS)
    report = convert_image(new, name, **OPTIONS)
    is_read(name, "c")
    convert_image(new, f"oci-archive:{tmp_path / 'b.tar'}:v1", **OPTIONS)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert report.status == "converted"


def test_tocs_that_are_missing_are_made_and_told_of(tmp_path: Path) -> None:
    name = f"oci:{tmp_path / 'dst'}:v1"
    first = convert_image(source(tmp_path / "a", "a", "b"), name, **OPTIONS)
    index = tmp_path / "dst/index.json"
    whole = json.loads(index.read_bytes())
    entries = whole["manifests"]
    tocs, short = edited_tocs(tmp_path / "dst", lambda layers: layers.pop())
    others = [one for one in entries if one != tocs]
    for count, there in ((3, others), (1, [*others, short])):
        index.write_text(json.dumps(whole | {"manifests": there}))
        report = convert_image(name, upgrade=True, **OPTIONS)
        assert (report.status, report.digest) == ("converted", first.digest)
        told = [text for text in report.warnings if "v1-esgztoc" in text]
        assert len(told) == count and "converted again" in told[0]
        assert report.toc_image == first.toc_image
    report = convert_image(name, upgrade=True, **OPTIONS)
    assert report.status == "unchanged" and not report.warnings


def test_a_toc_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    name = f"oci:{tmp_path / 'dst'}:v1"
    first = convert_image(source(tmp_path / "a", "a", "b"), name, **OPTIONS)

    def swap(layers: list[dict[str, Any]]) -> None:
        one, two = layers[:2]
        one["annotations"], two["annotations"] = two["annotations"], one["annotations"]

    tocs, bad = edited_tocs(tmp_path / "dst", swap)
    index = tmp_path / "dst/index.json"
    whole = json.loads(index.read_bytes())
    whole["manifests"] = [bad if one == tocs else one for one in whole["manifests"]]
    index.write_text(json.dumps(whole))
    report = convert_image(name, upgrade=True, **OPTIONS)
    assert (report.status, report.toc_image) == ("converted", first.toc_image)
    assert len(report.warnings) == 2
    assert all(
        f"not trusted, so it was converted again: {name}-esgztoc" in one for one in report.warnings
    ), report.warnings


def test_what_is_made_again_as_it_was_is_said(tmp_path: Path) -> None:
    name = f"oci:{tmp_path / 'dst'}:v1"
    convert_image(source(tmp_path / "a", "a", "b"), name, format="stargz", threads=1)
    told = ok_here("image", "convert", "--upgrade", "--format", "stargz", name)
    assert "nothing had to be done" not in told and "unchanged: what was made" in told
