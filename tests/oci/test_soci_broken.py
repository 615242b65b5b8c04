"""SOCI indexes that are there, and of no use: what `stargz image index` keeps, and what is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import registries
from command import ok, run
from servers import FaultProxy
from test_soci_index import LARGE, OTHER, ReferrersAPI, root
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
