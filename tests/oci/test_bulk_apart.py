"""Images of one run do not spoil each other, whatever is wrong with one of them."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blobs
import fleets
import layouts
import pytest

from stargz.errors import UsageError
from stargz.oci.bulk import BulkReport, bulk
from stargz.oci.bulk.state import default_path
from stargz.oci.conversion import convert_image
from stargz.oci.convert.store import LocalStore
from stargz.oci.formats.layout import Layout
from stargz.oci.verify.image import verify_image


def tar(name: str) -> bytes:
    return blobs.tar_of([("d", None), (f"d/{name}", blobs.noise(name, 3000))])


def image(path: Path, *names: str, ref: str | None = "v1") -> layouts.Layout:
    """A layout of one image with a layer for each name; equal names are equal layers."""
    made = layouts.Layout(path)
    made.tag(made.manifest([made.plain_layer(tar(name)) for name in names]), ref)
    return made


def layers(path: Path) -> list[Path]:
    """The files of a layout's layers, largest first."""
    files = [
        file for file in (path / "blobs/sha256").iterdir() if file.read_bytes()[:2] == b"\x1f\x8b"
    ]
    return sorted(files, key=lambda file: -file.stat().st_size)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def first_layer(layout: layouts.Layout) -> Path:
    manifest = Layout(layout.path).manifest(Layout(layout.path).resolve("v1"))
    return layout.blobs / manifest.layers[0].digest.partition(":")[2]


def failed(report: BulkReport) -> list[str]:
    return [one.source for one in report.failures]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def call(**options: Any) -> BulkReport:
        state = tmp_path / "state.db"
        return bulk(str(tmp_path / "src"), f"oci:{tmp_path}/dst", state=state, **options)

    return call


@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["corrupt", "missing"])
def test_a_bad_copy_of_a_shared_layer(tmp_path: Path, run: Any, damage: Any) -> None:
    bad = image(tmp_path / "src/a", "shared", "one")
    image(tmp_path / "src/b", "shared", "two")
    damage(first_layer(bad))
    # Where b's turn comes first, its good copy serves a too.
    assert failed(run()) in ([], [f"oci:{tmp_path}/src/a:v1"])
    assert verify_image(f"oci:{tmp_path}/dst/b:v1", require_verified=True).ok


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_wrong_size_of_a_shared_layer(tmp_path: Path, run: Any, order: str) -> None:
    good, bad = (tmp_path / "src" / name for name in order)
    image(good, "shared")
    made = layouts.Layout(bad)
    entry = made.plain_layer(tar("shared"))
    made.tag(made.manifest([{**entry, "size": 5}]), "v1")
    assert failed(run()) == [f"oci:{bad}:v1"]
    assert verify_image(f"oci:{tmp_path}/dst/{good.name}:v1").ok


def test_names_that_are_not_utf8(tmp_path: Path, run: Any) -> None:
    image(Path(os.fsdecode(bytes(tmp_path) + b"/src/a\xff")), "one")
    image(tmp_path / "src/good", "two")
    report = run()
    assert (report.totals["converted"], report.totals["failed"]) == (1, 1)


def test_half_of_a_surrogate_pair_in_a_platform(tmp_path: Path, run: Any) -> None:
    made = layouts.Layout(tmp_path / "src/a")
    entry = made.manifest([made.plain_layer(tar("one"))])
    made.tag(made.index([{**entry, "platform": {"os": "li\ud800", "architecture": "x"}}]), "v1")
    image(tmp_path / "src/good", "two")
    report = run(platforms=["linux/amd64"])
    assert failed(report) == [f"oci:{tmp_path}/src/a:v1"]
    assert "\\ud800" in report.failures[0].error


def test_a_bad_line_of_a_list_fails_alone(tmp_path: Path) -> None:
    image(tmp_path / "one", "one")
    image(tmp_path / "two", "two")
    lines = [f"oci:{tmp_path}/one:v1", "three words here", "x" * 70_000, f"oci:{tmp_path}/two:v1"]
    (tmp_path / "list").write_text("\n".join(lines))
    report = bulk(str(tmp_path / "list"), f"oci:{tmp_path}/dst")
    assert report.totals["converted"] == 2
    assert f"{tmp_path}/list, line 2" in report.failures[0].error


def test_progress_that_raises_ends_the_run(tmp_path: Path) -> None:
    fleets.layout(tmp_path / "src", range(3))

    def progress(event: Mapping[str, Any]) -> None:
        if event["event"] == "layer-done":
            raise RuntimeError("enough")

    reports: list[BulkReport] = []
    thread = threading.Thread(
        target=lambda: reports.append(
            bulk(str(tmp_path / "src"), f"oci:{tmp_path}/dst", progress=progress)
        ),
        daemon=True,
    )
    thread.start()
    thread.join(60)
    assert reports and not reports[0].totals["converted"]


def test_a_failed_image_has_no_more_layers_made(tmp_path: Path, run: Any) -> None:
    names = [f"layer{number}" for number in range(12)]
    made = image(tmp_path / "src/a", *names)
    largest = layers(made.path)[0]
    flip(largest)
    made_there = tmp_path / "dst/a/blobs/sha256"
    run(jobs=1)
    assert not made_there.exists() or len(list(made_there.iterdir())) <= 2


# --- what is at the destination ---------------------------------------------------------


def test_one_store_for_two_destinations(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        store = LocalStore(executor)
        for name, own in (("a", "one"), ("b", "two")):
            image(tmp_path / name, "shared", own)
            convert_image(f"oci:{tmp_path}/{name}:v1", f"oci:{tmp_path}/made{name}:v1", store=store)
    assert verify_image(f"oci:{tmp_path}/madeb:v1").ok


def test_a_layer_that_was_deleted_is_made_again(tmp_path: Path, run: Any) -> None:
    image(tmp_path / "src/a", "one", "two")
    run()
    layers(tmp_path / "dst/a")[0].unlink()
    assert run().totals["converted"] == 1
    assert verify_image(f"oci:{tmp_path}/dst/a:v1").ok
    assert run().totals["unchanged"] == 1


def test_verify_looks_at_what_is_unchanged(tmp_path: Path, run: Any) -> None:
    image(tmp_path / "src/a", "one", "two")
    run()
    flip(layers(tmp_path / "dst/a")[0])
    assert run().ok
    assert failed(run(verify=True)) == [f"oci:{tmp_path}/src/a:v1"]


def test_a_damaged_blob_is_replaced(tmp_path: Path) -> None:
    image(tmp_path / "a", "one", "two")
    convert_image(f"oci:{tmp_path}/a:v1", f"oci:{tmp_path}/made:v1")
    for file in (tmp_path / "made/blobs/sha256").iterdir():  # config and manifest too
        flip(file)
    assert not verify_image(f"oci:{tmp_path}/made:v1").ok
    convert_image(f"oci:{tmp_path}/a:v1", f"oci:{tmp_path}/made:v1", verify=True)


def test_a_place_that_was_wiped_in_part(tmp_path: Path, run: Any) -> None:
    image(tmp_path / "src/a", "shared", "one")
    run()
    (tmp_path / "dst/a/index.json").unlink()
    shutil.rmtree(tmp_path / "dst/a/blobs")
    image(tmp_path / "src/b", "shared", "two")
    shutil.rmtree(tmp_path / "src/a")
    assert run().ok
    assert verify_image(f"oci:{tmp_path}/dst/b:v1").ok


def test_a_layout_below_a_layout(tmp_path: Path, run: Any) -> None:
    image(tmp_path / "src/a", "one")
    image(tmp_path / "src/a/b", "two")
    assert run(include=["a/b"]).ok
    assert run().ok
    assert verify_image(f"oci:{tmp_path}/dst/a:v1").ok


# --- names and platforms ----------------------------------------------------------------


def test_upgrade_of_an_image_that_is_named_by_its_folder(tmp_path: Path) -> None:
    image(tmp_path / "a", "one")
    convert_image(f"oci:{tmp_path}/a", upgrade=True)
    assert Layout(tmp_path / "a").refs() == ["v1"]
    assert verify_image(f"oci:{tmp_path}/a", require_verified=True).ok
    image(tmp_path / "b", "one", ref=None)
    with pytest.raises(UsageError, match="the layout has none"):
        convert_image(f"oci:{tmp_path}/b", upgrade=True)


def test_one_manifest_for_two_platforms(tmp_path: Path) -> None:
    made = layouts.Layout(tmp_path / "a")
    entry = made.manifest([made.plain_layer(tar("one"))])
    names = ("amd64", "s390x")
    both = [{**entry, "platform": {"os": "linux", "architecture": name}} for name in names]
    made.tag(made.index(both), "v1")
    platforms = [f"linux/{name}" for name in names]
    convert_image(f"oci:{tmp_path}/a:v1", f"oci:{tmp_path}/made:v1", platforms=platforms)
    layout = Layout(tmp_path / "made")
    listed = layout.manifest(layout.resolve("v1")).manifests
    assert [one.platform for one in listed] == [one["platform"] for one in both]


def test_a_layer_that_is_foreign_in_one_manifest_alone(tmp_path: Path) -> None:
    made = layouts.Layout(tmp_path / "a")
    layer = made.plain_layer(tar("one"))
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    foreign = {**layer, "mediaType": kind, "urls": ["https://host.example/layer"]}
    both = [made.manifest([layer]), made.manifest([foreign], platform="linux/arm64")]
    made.tag(made.index(both), "v1")
    convert_image(f"oci:{tmp_path}/a:v1", f"oci:{tmp_path}/made:v1")
    layout = Layout(tmp_path / "made")
    second = layout.manifest(layout.manifest(layout.resolve("v1")).manifests[1])
    assert second.layers[0].json == foreign


def test_the_default_state_is_that_of_the_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = default_path("/src", "oci:/dst"), default_path("storage:/src//", "docker://host")
    monkeypatch.chdir(tmp_path)
    assert (
        default_path("/src", "oci:/dst"),
        default_path("storage:/src//", "docker://host"),
    ) == first


def test_an_index_keeps_what_is_not_utf8(tmp_path: Path) -> None:
    made = image(tmp_path / "a", "one")
    index = json.loads((made.path / "index.json").read_text())
    index["manifests"][0]["annotations"][layouts.REF_NAME] = "x\ud800"
    (made.path / "index.json").write_text(json.dumps(index))
    image(tmp_path / "b", "two")
    convert_image(f"oci:{tmp_path}/b:v1", f"oci:{tmp_path}/a:v2")
    assert Layout(made.path).refs() == ["x\ud800", "v2"]
