"""SOCI indexes that are there, and of no use: what `stargz image index` keeps, and what is read."""

from __future__ import annotations

import bz2
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import registries
import zstandard
from command import fails, ok, run
from layouts import OCI_LAYER, OCI_MANIFEST, Layout
from servers import FaultProxy
from soci_images import LARGE, OTHER, SOCI_V1, SOCI_V2, ReferrersAPI, root
from test_soci_reading import copied, index, indexed, ordinary, rewritten

import stargz
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.soci import read_index

__all__ = ["indexed"]

# What the ztoc of the large layer becomes, and what is said of it.
BROKEN: dict[str, tuple[Callable[[bytes], bytes], bool, str]] = {
    "empty": (lambda data: b"", True, "a ztoc"),
    "garbage": (lambda data: b"\xff" * len(data), True, "a ztoc"),
    "cut off": (lambda data: data[: len(data) // 2], True, "a ztoc"),
    "of another digest": (lambda data: data[:-1] + b"?", False, "digest"),
    "of another size": (lambda data: data + b"?", False, "bytes"),
}


def soci_of(layout: Path, ref: str) -> dict[str, str]:
    """The ztocs of an image by their layers."""
    reading = Reading(layout)
    found = reading.manifest(reading.resolve(ref))
    (entry,) = (one for one in found.manifests if one.json.get("artifactType"))
    ztocs = read_index(reading.manifest(entry)).ztocs
    return {layer: ztoc.digest for layer, ztoc in ztocs.items()}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_ztoc_is_made_again(indexed: Path, tmp_path: Path, kind: str) -> None:
    change, renamed, says = BROKEN[kind]
    layout = copied(indexed, tmp_path / "broken")
    before = soci_of(layout, "v2")
    rewritten(layout, change, size=renamed)
    src = f"oci:{layout}:v2"
    report = index(src, upgrade=True)
    assert report.status == "indexed"
    (layer,) = before
    small, told = report.warnings
    assert "--min-layer-size" in small
    assert f"the ztoc of layer {layer}: " in told and "is not used" in told and says in told
    assert soci_of(layout, "v2") == before, "the same layer has the same ztoc"
    again = index(src, upgrade=True)
    assert (again.status, again.warnings) == ("unchanged", (small,))
    with stargz.open_image(src, platform="linux/amd64", cache=False) as image:
        assert image.ways == {0: "ztoc", 1: "pass"}


def test_the_ztoc_of_another_layer_is_made_again(tmp_path: Path) -> None:
    layout = ordinary(tmp_path / "src", LARGE)
    other = ordinary(tmp_path / "other", OTHER)
    index(f"oci:{layout.path}:v1", f"oci:{layout.path}:v2")
    index(f"oci:{other.path}:v1", upgrade=True)
    (strange,) = soci_of(other.path, "v1").values()
    ztoc = (other.blobs / strange[7:]).read_bytes()
    rewritten(layout.path, lambda data: ztoc)
    report = index(f"oci:{layout.path}:v2", upgrade=True)
    (layer,) = root(layout.path).layers
    assert report.status == "indexed"
    assert f"the ztoc of layer {layer.digest}: " in report.warnings[0]
    assert f"{layer.size}" in report.warnings[0]


def test_a_dry_run_and_the_command_tell_the_same(indexed: Path, tmp_path: Path) -> None:
    layout = copied(indexed, tmp_path / "broken")
    rewritten(layout, lambda data: b"\xff" * len(data))
    src = f"oci:{layout}:v2"
    words = ["image", "bulk", "--index", "--upgrade", "--min-layer-size", 100_000]
    planned = ok(*words, "--dry-run", str(layout))
    assert "to index" in planned
    done = run("image", "index", src, "--upgrade", "--min-layer-size", 100_000, "--json")
    assert json.loads(done.stdout)["status"] == "indexed"


def test_a_broken_index_of_version_1_is_passed_over(indexed: Path, tmp_path: Path) -> None:
    """By a registry's referrers it stays, and may come first."""
    layout = copied(indexed, tmp_path / "src")
    src = Reading(layout)
    one = copied(layout, tmp_path / "one")
    entries = [src.resolve("v1").json]
    (one / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    with registries.registry(tmp_path / "served") as served:
        api = ReferrersAPI(served)
        api.subject = served.push(one, "app", "v1")
        with FaultProxy(f"http://{served.host}") as proxy:
            proxy.plan = api
            name = f"docker://127.0.0.1:{proxy.port}/app:v1"
            made = index(name, soci_version=1)
            ztoc = next(layer.digest for layer in made.layers if layer.digest)
            (data,) = (
                path for path in served.storage.rglob("data") if path.parent.name == ztoc[7:]
            )
            data.write_bytes(b"\xff" * data.stat().st_size)
            other = index(name, soci_version=1, span_size=128 << 10)
            assert other.status == "indexed"
            assert made.indexes != other.indexes
            both: dict[str, Any] = {"platform": "linux/amd64", "cache": False}
            with stargz.open_image(name, **both) as image:
                assert image.ways == {0: "ztoc", 1: "pass"}
                assert image.tree.read("etc/3")
            again = index(name, soci_version=1, span_size=None)
            assert (again.status, again.indexes) == ("unchanged", other.indexes)


# --- what is something else ---------------------------------------------------------------------

GZIP, CONFIG = OCI_LAYER, "application/vnd.oci.image.config.v1+json"


def soci_manifest(layout: Layout, kind: str, layers: list[Any] | None = None, **more: Any) -> Any:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layout.blob(b"{}", kind),
        "layers": layers or [],
        **more,
    }
    return layout.blob(json.dumps(document).encode(), OCI_MANIFEST)


def strange_ztoc(layout: Layout) -> Any:
    annotation = {"com.amazon.soci.image-layer-digest": layout.plain_layer(LARGE)["digest"]}
    ztoc = layout.blob(b"x", "application/vnd.x.ztoc", annotations=annotation)
    return soci_manifest(layout, SOCI_V2, [ztoc])


ELSE: dict[str, tuple[Callable[[Layout], Any], str]] = {
    "image": (lambda layout: layout.manifest([layout.plain_layer(OTHER)]), f"type '{CONFIG}'"),
    "index": (lambda layout: layout.index([]), "an index of images"),
    "version 3": (
        lambda layout: soci_manifest(layout, SOCI_V2.replace("v2", "v3")),
        "index.v3+json'",
    ),
    "ztoc": (strange_ztoc, "'application/vnd.x.ztoc', not 'application/octet-stream'"),
}


@pytest.mark.parametrize("kind", ELSE)
def test_what_is_named_and_is_something_else_is_said_to_be_that(tmp_path: Path, kind: str) -> None:
    make, says = ELSE[kind]
    layout = Layout(tmp_path / "src")
    named = {"com.amazon.soci.index-digest": make(layout)["digest"]}
    layout.tag(layout.manifest([layout.plain_layer(LARGE)], annotations=named), "v1")
    src = f"oci:{layout.path}:v1"
    done = run("image", "ls", src)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 0 and says in line and "not used" in line
    report = index(src, upgrade=True)
    assert report.status == "indexed"
    assert kind == "ztoc" or says in report.warnings[0]


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("zstd", zstandard.compress(LARGE)),
        ("bzip2", bz2.compress(LARGE)),
        ("xz", lzma.compress(LARGE)),
    ],
)
def test_a_layer_of_another_compression_is_not_called_damaged(
    tmp_path: Path, name: str, packed: bytes
) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(LARGE, packed)]), "v1")
    (warning,) = index(f"oci:{layout.path}:v1", upgrade=True, min_layer_size=0).warnings
    assert warning.endswith(f": it is compressed by {name}, which is not its media type ('{GZIP}')")


def test_a_manifest_of_other_layers_is_said_to_be_no_image(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layer = layout.plain_layer(LARGE) | {"mediaType": "application/octet-stream"}
    layout.tag(layout.manifest([layer]), "v1")
    line = fails(1, "image", "index", f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1")
    assert "is no image: its layers are of the kind 'application/octet-stream'" in line


def test_an_image_may_say_what_artifact_it_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    kind = {"artifactType": "application/vnd.example.app"}
    layout.tag(layout.manifest([layout.plain_layer(LARGE)], **kind), "image")
    other = layout.plain_layer(LARGE) | {"mediaType": "application/octet-stream"}
    layout.tag(layout.manifest([other], **kind), "artifact")
    src = f"oci:{layout.path}"
    assert "etc" in ok("image", "ls", f"{src}:image")
    assert index(f"{src}:image", f"{src}:indexed").status == "indexed"
    assert "an artifact ('application/vnd.example.app')" in fails(
        1, "image", "ls", f"{src}:artifact"
    )
    line = fails(1, "image", "index", f"{src}:artifact", f"oci:{tmp_path}/dst:v1")
    assert "it is an artifact ('application/vnd.example.app')" in line


def test_large_ztocs_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who may push could have any number of them read."""
    layout = Layout(tmp_path / "src")
    layer = layout.plain_layer(OTHER)
    image = layout.tag(layout.manifest([layer]), "v1")
    subject = {key: image[key] for key in ("mediaType", "digest", "size")}
    annotation = {"com.amazon.soci.image-layer-digest": layer["digest"]}

    def add(data: bytes) -> None:
        ztoc = layout.blob(data, "application/octet-stream", annotations=annotation)
        listed = soci_manifest(layout, SOCI_V1, [ztoc], subject=subject)
        layout.tag(listed | {"artifactType": SOCI_V1}, None)

    add(bytes(layer["size"] + (1 << 20) + 1))
    for number in range(10):
        add(bytes([number]) * layer["size"])
    src = f"oci:{layout.path}:v1"
    with stargz.open_image(src, platform="linux/amd64", cache=False) as opened:
        assert opened.ways == {0: "pass"}
    said = [record.getMessage() for record in caplog.records if "ztoc" in record.getMessage()]
    assert "it costs less to read that" in said[0]
    unread = [text for text in said if "is not read, after so many" in text]
    assert len(unread) == 10 - (1 + ((1 << 20) + layer["size"]) // layer["size"])


def test_what_is_about_an_image_of_a_layout_is_no_second_image(tmp_path: Path) -> None:
    """Also where its index does not say so."""
    layout = Layout(tmp_path / "src")
    image = layout.tag(layout.manifest([layout.plain_layer(LARGE)]), "v1")
    subject = {key: image[key] for key in ("mediaType", "digest", "size")}
    layout.tag(soci_manifest(layout, SOCI_V1, subject=subject), None)
    src = f"oci:{layout.path}"
    made = index(src, soci_version=1)
    assert made.status == "indexed"
    with stargz.open_image(src, platform="linux/amd64", cache=False) as opened:
        assert opened.ways == {0: "ztoc"}
    assert index(src, upgrade=True).status == "indexed"
    assert fails(2, "image", "index", "--upgrade", f"{src}:{image['digest']}").count("digest") == 1
    layout = Layout(tmp_path / "unnamed")
    layout.tag(layout.manifest([layout.plain_layer(LARGE)]), None)
    said = fails(2, "image", "index", "--upgrade", f"oci:{layout.path}")
    assert "the layout has none: name a DST" in said
