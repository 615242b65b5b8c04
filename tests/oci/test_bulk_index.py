"""Bulk runs that make SOCI indexes: in place and elsewhere, each ztoc once, again, killed."""

from __future__ import annotations

import functools
import gzip
import json
import multiprocessing
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import fleets
import pytest
import registries
import zstandard
from blobs import noise, sha256, tar_of
from command import command, environment, fails, ok, run
from layouts import Layout
from registries import Registry
from servers import Fault, FaultProxy, Request

import stargz
from stargz.errors import UsageError
from stargz.oci.bulk import BulkReport, bulk
from stargz.oci.formats.selection import images
from stargz.oci.formats.soci import SociIndex
from stargz.oci.indexes import indexes_of
from stargz.oci.repository import open_repository

COUNT = 6
IMAGES = range(COUNT)
DISTINCT = fleets.BASES + COUNT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleets.layout(tmp_path_factory.mktemp("fleet") / "layouts", IMAGES)


@pytest.fixture
def source(tmp_path: Path, folder: Path) -> Iterator[Registry]:
    with registries.registry(tmp_path / "source") as served:
        for number in IMAGES:
            served.push(folder / fleets.name(number), fleets.name(number), "v1")
        yield served


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


def index(src: str, dst: str | None = None, **options: Any) -> BulkReport:
    options.setdefault("min_layer_size", 0)
    return bulk(src, dst, index=True, **options)


def soci(image: str, version: int = 2) -> list[tuple[SociIndex, dict[str, bytes]]]:
    """The indexes of an image, and their ztocs by the digests of the layers: all of them there,
    and of those layers."""
    from stargz._engine.index import load_ztoc

    found = []
    with open_repository(image) as there:
        for _, manifest in images(there.root(), there.manifest):
            one = next(indexes_of(there, manifest, version))
            ztocs = {}
            for layer in manifest.layers:
                if layer.digest in one.ztocs:
                    ztocs[layer.digest] = there.read_blob(one.ztocs[layer.digest], 1 << 30)
                    load_ztoc(ztocs[layer.digest], blob_size=layer.size)
            found.append((one, ztocs))
    return found


def right(root: str, version: int = 2) -> None:
    """Each image has an index with both layers' ztocs, and those it had as they were."""
    for number in IMAGES:
        image = f"{root}/{fleets.name(number)}:v1"
        ((_, ztocs),) = soci(image, version)
        blobs = [gzip.compress(tar, 1, mtime=0) for tar in fleets.layers(number)]
        assert list(ztocs) == list(map(sha256, blobs))
        with open_repository(image) as there:
            (manifest,) = (one for _, one in images(there.root(), there.manifest))
            for entry, blob in zip(manifest.layers, blobs, strict=True):
                assert there.read_blob(entry, 1 << 30) == blob


def through(proxy: FaultProxy) -> str:
    return f"docker://{proxy.url.partition('://')[2]}"


@functools.cache
def digests(number: int) -> list[str]:
    """Those of an image's layers."""
    return [sha256(gzip.compress(tar, 1, mtime=0)) for tar in fleets.layers(number)]


def fetched(proxy: FaultProxy, number: int) -> list[int]:
    """How often the layers of an image came through."""
    log = [one.path for one in proxy.log if one.method == "GET" and not one.range]
    return [sum(path.endswith(digest) for path in log) for digest in digests(number)]


def same_files(folder: Path) -> dict[str, bytes]:
    found = (one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): one.read_bytes() for one in found}


def test_version_1_beside_the_images(source: Registry, folder: Path, tmp_path: Path) -> None:
    """The registry has no API for referrers: they are found by tags. Nothing else changes, and the
    second run reads nothing but those."""
    for number in range(6):  # of one image
        source.push(folder / fleets.name(0), fleets.name(0), f"same{number}")
    state = tmp_path / "state"
    with FaultProxy(f"http://{source.host}") as proxy:
        first = index(through(proxy), soci_version=1, state=state, jobs=4)
        assert first.failures == () and first.destination is None
        totals = first.totals
        assert (totals["images"], totals["indexed"]) == (COUNT + 6, COUNT + 6)
        assert totals["layers"] == totals["layers_indexed"] == DISTINCT
        assert totals["layers_left_out"] == totals["layers_reused"] == 0
        assert {n for number in IMAGES for n in fetched(proxy, number)} == {1}
        puts = [one.path for one in proxy.log if one.method == "PUT" and "/manifests/" in one.path]
        assert {path.rpartition("/")[2][:7] for path in puts} == {"sha256:", "sha256-"}
        right(f"docker://{source.host}", 1)
        proxy.reset()
        second = index(through(proxy), soci_version=1, state=state)
        assert second.totals["unchanged"] == second.totals["images"] == COUNT + 6
        assert {one.method for one in proxy.log} <= {"HEAD", "GET"}
        assert not [one for one in proxy.log if "/blobs/" in one.path]
        assert len(proxy.log) <= 3 * (COUNT + 6) + 20
        # Without a state, what is there tells.
        third = index(through(proxy), soci_version=1)
        assert third.totals["unchanged"] == COUNT + 6
        # Of an image that lost its index, no layer is read again: the state knows the ztocs.
        (tag,) = (source.storage / "docker/registry/v2/repositories" / fleets.name(1)).glob(
            "_manifests/tags/sha256-*"
        )
        shutil.rmtree(tag)
        proxy.reset()
        fourth = index(through(proxy), soci_version=1, state=state)
        assert (fourth.totals["indexed"], fourth.totals["layers_reused"]) == (1, 2)
        assert fetched(proxy, 1) == [0, 0]
    right(f"docker://{source.host}", 1)


def test_version_2_into_layouts(source: Registry, tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "out"
    with FaultProxy(f"http://{source.host}") as proxy:
        first = index(through(proxy), f"oci:{out}", state=state)
        assert first.failures == () and first.totals["indexed"] == COUNT
        assert first.totals["layers_indexed"] == DISTINCT
        # What images share comes from where it was brought first.
        assert {n for number in IMAGES for n in fetched(proxy, number)} == {1}
        right(f"oci:{out}")
        assert fleets.strays(out) == []
        before = same_files(out)
        proxy.reset()
        second = index(through(proxy), f"oci:{out}", state=state)
        assert second.totals["unchanged"] == second.totals["images"] == COUNT
        asked = [one.path for one in proxy.log if one.method != "HEAD"]
        assert not [path for path in asked if "/blobs/" in path or "/manifests/" in path]
        # A ztoc that was lost is made again, and nothing else.
        ((made, _),) = soci(f"oci:{out}/{fleets.name(2)}:v1")
        lost = next(iter(made.ztocs.values())).digest
        (out / fleets.name(2) / "blobs/sha256" / lost[7:]).unlink()
        third = index(through(proxy), f"oci:{out}", state=state)
        assert (third.totals["indexed"], third.totals["unchanged"]) == (1, COUNT - 1)
    assert same_files(out) == before


def test_version_2_into_a_registry(source: Registry, tmp_path: Path) -> None:
    """Layers come through once; the other registry mounts what its repositories share."""
    with (
        registries.registry(tmp_path / "target") as target,
        FaultProxy(f"http://{source.host}") as reads,
        FaultProxy(f"http://{target.host}") as writes,
    ):
        state = tmp_path / "state"
        first = index(through(reads), through(writes), state=state)
        assert first.failures == () and first.totals["indexed"] == COUNT
        assert {n for number in IMAGES for n in fetched(reads, number)} == {1}
        right(f"docker://{target.host}")
        assert fleets.sessions(target) == []
        writes.reset()
        second = index(through(reads), through(writes), state=state)
        assert second.totals["unchanged"] == COUNT
        assert {one.method for one in writes.log} == {"HEAD"}


@pytest.mark.parametrize("version", [1, 2])
def test_in_place_in_layouts(version: int, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "layouts")
    src, state = str(tmp_path / "layouts"), tmp_path / "state"
    options = {"soci_version": version, "upgrade": version == 2, "state": state}
    assert index(src, **options).totals["indexed"] == COUNT
    right(f"oci:{src}", version)
    before = same_files(tmp_path / "layouts")
    assert index(src, **options).totals["unchanged"] == COUNT
    ((made, _),) = soci(f"oci:{src}/{fleets.name(0)}:v1", version)
    lost = next(iter(made.ztocs.values())).digest
    (tmp_path / "layouts" / fleets.name(0) / "blobs/sha256" / lost[7:]).unlink()
    assert index(src, **options).totals["indexed"] == 1
    assert same_files(tmp_path / "layouts") == before


def test_what_gets_no_ztoc_is_copied_once(source: Registry, folder: Path, tmp_path: Path) -> None:
    """The base is large enough for a ztoc, what is on it is not: one image after the other."""
    name = fleets.name(0)
    source.push(folder / name, "other/twin", "v1")
    listed = tmp_path / "list"
    with FaultProxy(f"http://{source.host}") as proxy:
        host = through(proxy)
        listed.write_text(f"{host}/{name}:v1\n{host}/other/twin:v1\n")
        proxy.plan = lambda asked: Fault(delay=1.0 if "/twin/manifests/v1" in asked.path else 0)
        report = index(str(listed), f"oci:{tmp_path}/out", min_layer_size=60_000)
        assert report.failures == () and fetched(proxy, 0) == [1, 1]
    totals = report.totals
    assert (totals["indexed"], totals["layers"], totals["layers_indexed"]) == (2, 1, 1)
    for one in (name, "other/twin"):
        ((_, ztocs),) = soci(f"oci:{tmp_path}/out/{one}:v1")
        assert len(ztocs) == 1


def test_other_options_make_other_indexes(folder: Path, tmp_path: Path) -> None:
    out, state = f"oci:{tmp_path}/out", tmp_path / "state"
    index(str(folder), out, state=state)
    for span, status in ((64 << 10, "indexed"), (64 << 10, "unchanged"), (None, "unchanged")):
        report = index(str(folder), out, state=state, span_size=span)
        assert report.totals[status] == COUNT, (span, report)
    assert index(str(folder), out, state=state, span_size=64 << 10).options["span_size"] == 64 << 10


def mixed(path: Path) -> dict[str, str]:
    """Layouts of images, with layers that can have no ztoc; what becomes of all."""
    layout = Layout(path / "mixed")
    plain = layout.plain_layer(fleets.layers(0)[0])
    estargz = path / "estargz"
    (path / "tar").write_bytes(fleets.layers(1)[0])
    stargz.convert(path / "tar", estargz)
    sparse = path / "sparse"
    with sparse.open("wb") as file:
        file.write(noise("sparse", 100_000))
        file.truncate(4 << 20)
    pax = ["tar", "-S", "--format=pax", "-C", path, "-cf", "-", "sparse"]
    holes = subprocess.run(pax, check=True, stdout=subprocess.PIPE).stdout
    zstd = {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}
    tar = fleets.layers(2)[0]
    layers = {
        plain["digest"]: "indexed",
        layout.plain_layer(b"", estargz.read_bytes())["digest"]: "indexed",
        layout.plain_layer(tar, zstandard.compress(tar))["digest"]: "left out",
        layout.plain_layer(holes)["digest"]: "left out",
        layout.plain_layer(tar_of([("a", b"small")]))["digest"]: "left out",
    }
    entries = [
        {**plain, "digest": digest, "size": (layout.blobs / digest[7:]).stat().st_size}
        for digest in layers
    ]
    entries[2] |= zstd
    layout._diff_ids |= {digest: digest for digest in layers}
    layout.tag(layout.manifest(entries), "v1")
    other = Layout(path / "other")
    other.tag(other.manifest([other.plain_layer(tar, zstandard.compress(tar)) | zstd]), "v1")
    for name in ("estargz", "tar", "sparse"):
        (path / name).unlink()
    return layers


def test_what_can_have_no_ztoc(tmp_path: Path) -> None:
    src, out, state = tmp_path / "src", f"oci:{tmp_path}/out", tmp_path / "state"
    src.mkdir()
    layers = mixed(src)
    files = [tmp_path / "report.json", tmp_path / "report.html"]
    words = ["image", "bulk", src, out, "--index", "--min-layer-size", "1000", "--state", state]
    done = run(*words, "--report", files[0], "--report", files[1])
    assert done.returncode == 0
    assert "2: 1 indexed, 0 unchanged, 0 failed, 1 not indexable" in done.stdout
    assert "2 indexed" in done.stdout and "1 left out" in done.stdout
    for said in ("zstd", "0.14", "1 layer is left out: less than 1,000 bytes (--min-layer-size)"):
        assert said in done.stderr, said
    report = json.loads(files[0].read_text())
    made, other = sorted(report["images"], key=lambda one: one["source"])
    assert {one["source_digest"]: one["status"] for one in made["layers"]} == layers
    assert (made["status"], other["status"]) == ("indexed", "not indexable")
    assert made["size_before"] == sum(one["source_size"] for one in made["layers"])
    assert made["size_after"] == sum(one["size"] for one in made["layers"]) > 0
    assert not (tmp_path / "out/other").exists()
    page = files[1].read_text()
    assert "not indexable" in page and "Layers that are left out" in page and "sparse" in page
    done = run(*words, "--json")
    again = json.loads(done.stdout)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)  # that of the other
    assert done.stderr == "stargz: warning: {source}: {warning}\n".format(**again["warnings"][0])
    again = again["totals"]
    assert (again["unchanged"], again["not_indexable"], again["layers"]) == (1, 1, 0)
    # The others are not looked at again, even by a run that does not know them.
    fresh = bulk(str(src), out, index=True, min_layer_size=1000).totals
    assert (fresh["unchanged"], fresh["not_indexable"], fresh["layers"]) == (1, 1, 0)


def test_a_dry_run(source: Registry, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with FaultProxy(f"http://{source.host}") as proxy:
        options: dict[str, Any] = {"soci_version": 1, "state": state, "dry_run": True}
        report = index(through(proxy), **options)
        assert {one.method for one in proxy.log} <= {"HEAD", "GET"}
        assert not [one for one in proxy.log if any(fetched(proxy, n)[0] for n in IMAGES)]
        totals = report.totals
        assert report.failures == ()
        assert (totals["to_do"], totals["layers"]) == (COUNT, DISTINCT)
        assert "indexed" not in totals
        done = index(through(proxy), soci_version=1, state=state, include=["*/app00"])
        assert done.totals["indexed"] == 1
        partly = index(through(proxy), **options)
        assert (partly.totals["unchanged"], partly.totals["layers_known"]) == (1, 1)
        rest = index(through(proxy), soci_version=1, state=state)
        assert rest.totals["bytes_read"] == partly.totals["bytes"] < totals["bytes"]
        assert index(through(proxy), **options).totals["to_do"] == 0
        # What is there is known without a state, too.
        text = ok("image", "bulk", through(proxy), "--index", "--soci-version", 1, "--dry-run",
                  "--min-layer-size", 0, "--state", tmp_path / "none")  # fmt: skip
    assert f"{COUNT}: 0 to do, {COUNT} done" in text
    assert sum(line.startswith("unchanged  docker://") for line in text.splitlines()) == COUNT
    said = index(f"docker://{source.host}", f"oci:{tmp_path}/out", dry_run=True)
    assert said.totals["to_do"] == COUNT
    assert {layer["status"] for one in said.images for layer in one["layers"]} == {"to index"}
    assert not (tmp_path / "out").exists()


def test_ztocs_that_the_destination_has(tmp_path: Path) -> None:
    """Without a state: of a layer that an image with an index shares, none is made again."""
    with registries.registry(tmp_path / "source") as source:
        fleets.push(source, tmp_path / "l", [0, 3, 4])
        index(f"docker://{source.host}", soci_version=1, include=["*/app0[04]"])
        with FaultProxy(f"http://{source.host}") as proxy:
            options: dict[str, Any] = {"soci_version": 1, "jobs": 1, "threads": 1}
            host = through(proxy)
            listed = tmp_path / "list"
            listed.write_text(f"{host}/{fleets.name(0)}:v1\n{host}/{fleets.name(3)}:v1\n")
            other = f"/{fleets.name(3)}/manifests/v1"

            def plan(request: Request) -> Fault:
                """The first is known to be there when the other begins: all of it was asked for."""
                seen = 0
                while other in request.path and seen < len(proxy.log):
                    seen = len(proxy.log)
                    time.sleep(1)
                return Fault()

            proxy.plan = plan
            report = index(str(listed), **options)
            assert fetched(proxy, 3) == [0, 1]
        totals = report.totals
        assert (totals["unchanged"], totals["indexed"]) == (1, 1)
        assert (totals["layers_indexed"], totals["layers_reused"]) == (1, 1)
        ((_, ztocs),) = soci(f"docker://{source.host}/{fleets.name(3)}:v1", 1)
        assert len(ztocs) == 2


def test_an_ordinary_image_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fleets.layout(out, [1])
    layout = Layout(out / fleets.name(0))
    layout.tag(layout.manifest([layout.plain_layer(tar_of([("other", b"other")]))]), "v1")
    report = index(str(folder), f"oci:{out}")
    assert report.totals["indexed"] == COUNT - 2
    assert sorted(one.source for one in report.failures) == [
        f"oci:{folder}/{fleets.name(number)}:v1" for number in (0, 1)
    ]
    assert all("no SOCI index" in one.error for one in report.failures)
    assert index(str(folder), f"oci:{out}", force=True).totals["indexed"] == 2


def test_a_list_of_references(source: Registry, tmp_path: Path) -> None:
    """Also by digest, since nothing is to get a name; and archives, which can have none."""
    with open_repository(f"docker://{source.host}/{fleets.name(0)}:v1") as image:
        digest = image.digest()
    name = f"{source.host}/{fleets.name(0)}@{digest}"
    listed = tmp_path / "list"
    listed.write_text(f"{name}\n{source.host}/{fleets.name(1)}:v1\n{source.host}/none:1\n")
    options: dict[str, Any] = {"soci_version": 1, "state": tmp_path / "state"}
    report = index(str(listed), **options)
    assert (report.totals["indexed"], report.totals["failed"]) == (2, 1)
    soci(f"docker://{name}", 1)
    again = index(str(listed), **options)
    assert (again.totals["unchanged"], again.totals["failed"]) == (2, 1)
    tags = source.storage / "docker/registry/v2/repositories" / fleets.name(0) / "_manifests/tags"
    assert sorted(one.name for one in tags.iterdir()) == [digest.replace(":", "-"), "v1"]


def test_options_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    src, dst = str(folder), f"oci:{tmp_path}/out"
    for options in ({"level": 3}, {"flatten": True}, {"prioritized": ["x"]}, {"verify": True}):
        (name,) = options
        with pytest.raises(UsageError, match=f"^{name} .*nothing is converted"):
            bulk(src, dst, index=True, **options)
    for name in ("soci_version", "min_layer_size", "span_size"):
        with pytest.raises(UsageError, match=f"^{name} .*needs --index"):
            bulk(src, dst, **{name: 1 << 20})
    with pytest.raises(UsageError, match="DST is needed"):
        bulk(src, index=True)
    for options in ({"soci_version": 3}, {"min_layer_size": -1}, {"span_size": 1}):
        with pytest.raises(UsageError):
            bulk(src, dst, index=True, **options)
    said = fails(2, "image", "bulk", "--level", 3, "--index", src, dst)
    assert "--level" in said
    assert "--index" in fails(2, "image", "bulk", "--span-size", "1M", src, dst)
    assert not (tmp_path / "out").exists()


def test_any_executor(source: Registry, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as processes:
        report = index(f"docker://{source.host}", soci_version=1, executor=processes)
    assert report.failures == () and report.totals["layers_indexed"] == DISTINCT
    right(f"docker://{source.host}", 1)


def known_layers(state: Path) -> int:
    with sqlite3.connect(f"file:{state}?mode=rw", uri=True) as db:
        found = db.execute("SELECT count(*) FROM layers").fetchone()[0]
    db.close()
    return int(found)


@pytest.mark.parametrize("version", [1, 2])
def test_kill_9_and_on(version: int, source: Registry, tmp_path: Path) -> None:
    """It goes on where it was: no more layers are read again than were under way."""
    state = tmp_path / "state"
    dst = [] if version == 1 else [f"oci:{tmp_path}/out"]
    options = ["--index", "--soci-version", version, "--min-layer-size", 0, "--jobs", 2]
    kills = 0
    with FaultProxy(f"http://{source.host}") as proxy:
        proxy.plan = lambda request: Fault(delay=0.05 if "/blobs/" in request.path else 0)
        words = ["image", "bulk", through(proxy), *dst, *options, "--state", state]
        for wanted in (3, 6):  # layers that were asked for
            with subprocess.Popen(command(*words), env=environment()) as process:
                until = time.monotonic() + 30
                while process.poll() is None and time.monotonic() < until:
                    if sum(sum(fetched(proxy, number)) for number in IMAGES) >= wanted:
                        process.kill()
                    time.sleep(0.01)
            kills += process.returncode == -signal.SIGKILL
        before = known_layers(state)
        proxy.plan = []
        totals = json.loads(ok(*words, "--json"))["totals"]
        assert totals["indexed"] + totals["unchanged"] == COUNT
        assert totals["layers_indexed"] == DISTINCT - before
        counts = Counter(n for number in IMAGES for n in fetched(proxy, number))
        assert set(counts) <= set(range(1, 2 + 2 * kills))
    assert kills
    right(f"docker://{source.host}" if version == 1 else f"oci:{tmp_path}/out", version)
