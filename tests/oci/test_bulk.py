"""Bulk runs: every kind of source and place, layers once, reruns, reports, the command."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import fleets
import layouts
import pytest
import registries
from command import command, environment, fails, ok, run
from registries import Registry
from servers import Fault, FaultProxy, Request, closed_port

from stargz.errors import RegistryError, StateError, UsageError
from stargz.oci.bulk import bulk
from stargz.oci.bulk.state import State
from stargz.oci.convert.options import LayerOptions

COUNT = 8
IMAGES = range(COUNT)
DISTINCT = fleets.BASES + COUNT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleets.layout(tmp_path_factory.mktemp("fleet") / "layouts", IMAGES)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Registry]:
    with registries.registry(tmp_path_factory.mktemp("source")) as served:
        for number in IMAGES:
            served.push(folder / fleets.name(number), fleets.name(number), "v1")
        yield served


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Registry]:
    with registries.registry(tmp_path / "target") as served:
        yield served


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "stargz"


def right(root: str) -> None:
    for number in IMAGES:
        fleets.check(f"{root}/{fleets.name(number)}:v1", number)


@pytest.mark.parametrize("kind", ["registry", "storage", "folder", "file"])
def test_sources(kind: str, source: Registry, folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("".join(f"{source.host}/{fleets.name(number)}:v1\n" for number in IMAGES))
    src = {
        "registry": f"docker://{source.host}",
        "storage": str(source.storage),
        "folder": str(folder),
        "file": str(listed),
    }[kind]
    events: list[dict[str, Any]] = []
    report = bulk(src, f"oci:{tmp_path / 'out'}", progress=lambda event: events.append({**event}))
    assert report.ok and report.totals["converted"] == COUNT
    assert report.totals["layers"] == report.totals["layers_converted"] == DISTINCT
    right(f"oci:{tmp_path / 'out'}")
    assert fleets.strays(tmp_path / "out") == []
    made = Counter(one["source_digest"] for one in events if one["event"] == "layer-done")
    assert len(made) == DISTINCT and set(made.values()) == {1}  # each once
    images = [one for one in events if one["event"] == "image"]
    assert len(images) == COUNT and {one["status"] for one in images} == {"converted"}


def test_registry_to_registry_and_again(source: Registry, target: Registry, tmp_path: Path) -> None:
    with (
        FaultProxy(f"http://{source.host}") as reads,
        FaultProxy(f"http://{target.host}") as writes,
    ):
        src, dst = (f"docker://{one.url.partition('://')[2]}" for one in (reads, writes))
        state = tmp_path / "state"
        first = bulk(src, dst, state=state)
        assert first.ok and first.totals["converted"] == COUNT
        fetched = Counter(
            one.path
            for one in reads.log
            if "/blobs/" in one.path and one.method == "GET" and not one.range
        )
        layers = [json.loads(p.read_text())["layers"] for p in manifests(source)]
        digests = {layer["digest"] for found in layers for layer in found}
        assert len(digests) == DISTINCT
        for digest in digests:  # by whichever repository
            assert sum(n for path, n in fetched.items() if digest in path) <= 1
        right(f"docker://{target.host}")
        reads.reset()
        writes.reset()
        second = bulk(src, dst, state=state)
        assert second.totals["unchanged"] == second.totals["images"] == COUNT
        assert {one.method for one in writes.log} == {"HEAD"}
        assert not [one for one in reads.log if "/blobs/" in one.path]
        # Other options make other images.
        third = bulk(src, dst, state=state, options=LayerOptions(level=2), include=["*/app00"])
        assert third.totals["converted"] == 1 and third.totals["layers_converted"] == 2
        assert fleets.sessions(target) == []


def test_tags_that_share_an_image(tmp_path: Path, target: Registry) -> None:
    """What they have in common is written once, and none of them sees half of it."""
    made = layouts.Layout(tmp_path / "one")
    entry = made.index([made.manifest(map(made.plain_layer, fleets.layers(n))) for n in (0, 1)])
    for number in range(10):
        made.tag(entry, f"v{number}")
    with FaultProxy(f"http://{target.host}") as writes:
        host = writes.url.partition("://")[2]
        for again in range(3):
            writes.reset()
            report = bulk(str(made.path), f"docker://{host}/again{again}/one", jobs=8, state=None)
            assert report.failures == () and report.totals["converted"] == 10
            puts = Counter(
                re.search(r"sha256[:%3A]+[0-9a-f]{64}|/v[0-9]$", asked.path)[0]
                for asked in writes.log
                if asked.method == "PUT"
            )
            assert set(puts.values()) == {1}
            assert len(puts) == 10 + 2 + 2 + 4  # tags, manifests, configs, layers


def test_a_registry_that_throttles(source: Registry, target: Registry, tmp_path: Path) -> None:
    """Whatever it says, or nothing: all comes through."""
    lock, taken, began = threading.Lock(), [0, 0], time.monotonic()

    def bucket(request: Request) -> Fault | None:
        with lock:
            late = not taken[1] and taken[0] >= 20  # however slow this machine is
            if not late and taken[0] < 5 + 40 * (time.monotonic() - began):
                taken[0] += 1
                return None
            taken[1] += 1
        limits = [{}, {"RateLimit-Reset": "0"}, {"Retry-After": "0"}]
        return Fault(status=429, headers=limits[taken[1] % 3])

    with FaultProxy(f"http://{target.host}") as proxy:
        proxy.reset(bucket)
        dst = f"docker://{proxy.url.partition('://')[2]}"
        report = bulk(f"docker://{source.host}", dst, jobs=8, include=["*/app0[0-3]"])
    assert report.failures == () and report.totals["converted"] == 4
    assert taken[1]
    for number in range(4):
        fleets.check(f"docker://{target.host}/{fleets.name(number)}:v1", number)


def test_what_is_throttled_is_told(source: Registry, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    with FaultProxy(f"http://{source.host}") as proxy:
        late = {"Retry-After": "3600"}
        proxy.reset(
            lambda request: Fault(status=429, headers=late) if "/blobs/" in request.path else None
        )
        host = proxy.url.partition("://")[2]
        listed.write_text(
            "".join(
                f"{host}/{fleets.name(number)}:v1 oci:{tmp_path}/a{number}\n" for number in (0, 1)
            )
            + f"{source.host}/{fleets.name(2)}:v1 oci:{tmp_path}/b\n"
        )
        report = tmp_path / "report.json"
        options = ["--state", tmp_path / "state", "--report", report, "--patience", "20m"]
        done = run("image", "bulk", listed, *options)
        asked = [one for one in proxy.log if "/blobs/" in one.path]
    assert done.returncode == 1
    assert "1 converted, 0 unchanged, 0 failed, 2 throttled" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("stargz: throttled: ")]
    assert len(lines) == 2 and all("--patience" in line for line in lines)
    assert len(asked) < 10  # those that were on their way together
    written = json.loads(report.read_text())
    assert sorted(one["status"] for one in written["images"]) == [
        "converted", "throttled", "throttled"
    ]  # fmt: skip
    assert {one["status"] for one in written["failures"]} == {"throttled"}
    assert written["totals"]["throttled"] == 2
    fleets.check(f"oci:{tmp_path}/b", 2)


def manifests(served: Registry) -> list[Path]:
    """The manifests in a registry's storage."""
    found = served.storage.rglob("blobs/sha256/*/*/data")
    return [path for path in found if path.read_bytes().startswith(b'{"schemaVersion"')]


def test_layers_of_an_earlier_run(source: Registry, target: Registry, tmp_path: Path) -> None:
    src, dst = f"docker://{source.host}", f"docker://{target.host}"
    bulk(src, dst, state=tmp_path / "state", include=["*/app00"])
    report = bulk(src, dst, state=tmp_path / "state")
    assert report.totals["unchanged"] == 1 and report.totals["converted"] == COUNT - 1
    assert report.totals["layers_reused"] == 1  # the base
    assert report.totals["layers_converted"] == DISTINCT - 2
    right(dst)


def test_what_changed_is_converted_again(folder: Path, target: Registry, tmp_path: Path) -> None:
    with registries.registry(tmp_path / "changing") as served:
        fleets.push(served, tmp_path / "l", range(2))
        arguments = f"docker://{served.host}", f"docker://{target.host}"
        assert bulk(*arguments, state=tmp_path / "s").totals["converted"] == 2
        served.push(folder / fleets.name(5), fleets.name(0), "v1")
        report = bulk(*arguments, state=tmp_path / "s")
        assert (report.totals["converted"], report.totals["unchanged"]) == (1, 1)
        fleets.check(f"docker://{target.host}/{fleets.name(0)}:v1", 5)
        # Somebody replaced the twin.
        target.push(folder / fleets.name(4), fleets.name(1), "v1")
        (failure,) = bulk(*arguments, state=tmp_path / "s").failures
        assert "ordinary image" in failure.error and "--force" in failure.error
        assert bulk(*arguments, state=tmp_path / "s", force=True).totals["converted"] == 1
        fleets.check(f"docker://{target.host}/{fleets.name(1)}:v1", 1)


def test_upgrade(tmp_path: Path) -> None:
    with registries.registry(tmp_path / "r") as served:
        fleets.push(served, tmp_path / "l", range(3))
        src = f"docker://{served.host}"
        assert bulk(src, upgrade=True, state=tmp_path / "s").totals["converted"] == 3
        for number in range(3):
            fleets.check(f"{src}/{fleets.name(number)}:v1", number)
        assert bulk(src, upgrade=True, state=tmp_path / "s").totals["unchanged"] == 3


def test_blobs_that_were_deleted_are_made_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bulk(str(folder), f"oci:{out}", state=tmp_path / "s", include=["*/app00"])
    for blob in (out / fleets.name(0) / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    report = bulk(str(folder), f"oci:{out}", state=tmp_path / "s", include=["*/app0[36]"])
    assert report.ok
    for number in (3, 6):  # of the same base
        fleets.check(f"oci:{out}/{fleets.name(number)}:v1", number)


def test_dry_run(source: Registry, target: Registry, tmp_path: Path) -> None:
    src, dst, state = f"docker://{source.host}", f"docker://{target.host}", tmp_path / "state"
    with FaultProxy(f"http://{target.host}") as proxy:
        there = f"docker://{proxy.url.partition('://')[2]}"
        report = bulk(src, there, state=state, dry_run=True)
        assert {one.method for one in proxy.log} <= {"HEAD", "GET"}
    assert not state.exists()
    totals = report.totals
    assert (totals["images"], totals["to_do"], totals["layers"]) == (COUNT, COUNT, DISTINCT)
    bulk(src, dst, state=state, include=["*/app00"])
    before = state.read_bytes()
    partly = bulk(src, dst, state=state, dry_run=True).totals
    assert (partly["to_do"], partly["unchanged"], partly["layers_known"]) == (COUNT - 1, 1, 1)
    done = bulk(src, dst, state=state)
    assert partly["bytes"] == done.totals["bytes_read"] < totals["bytes"]
    assert state.read_bytes() != before
    assert bulk(src, dst, state=state, dry_run=True).totals["to_do"] == 0


def test_a_dry_run_tells_of_each_image(source: Registry, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    names = [f"{source.host}/{fleets.name(number)}:v1" for number in (0, 3, 4)]
    listed.write_text("\n".join([*names, f"{source.host}/no/such:1"]))
    dst, state = f"oci:{tmp_path}/out", tmp_path / "s"
    assert bulk(str(listed), dst, state=state, include=["*app00"]).totals["converted"] == 1
    files = [tmp_path / "report.json", tmp_path / "report.html"]
    words = ("image", "bulk", listed, dst, "--state", state, "--dry-run")
    done = run(*words, "--report", files[0], "--report", files[1], "--exclude", "*lazy*")
    assert done.returncode == 1
    assert "--exclude '*lazy*' matches no image" in done.stderr
    lines = done.stdout.splitlines()
    assert f"unchanged  docker://{names[0]} -> {dst}/{fleets.name(0)}:v1" in lines
    (line,) = [one for one in lines if one.startswith(f"to do  docker://{names[1]} -> {dst}")]
    assert "2 layers: 1 to convert, 1 done before; " in line and " bytes" in line
    assert f"failed: docker://{source.host}/no/such:1: not found" in done.stderr
    report = json.loads(files[0].read_text())
    assert report["dry_run"] is True and report["totals"]["to_do"] == 2
    assert sorted(one["status"] for one in report["images"]) == [
        *("failed", "to do", "to do", "unchanged"),
    ]
    planned = {one["source"]: one for one in report["images"]}[f"docker://{names[1]}"]
    assert [layer["status"] for layer in planned["layers"]] == ["done", "to convert"]
    assert planned["size_before"] == sum(one["source_size"] for one in planned["layers"])
    assert "dry run" in files[1].read_text()
    listing = json.loads(run(*words, "--json").stdout)
    assert listing["dry_run"] is True
    plans = [{one["source"]: one["layers"] for one in made["images"]} for made in (listing, report)]
    assert plans[0] == plans[1]
    assert not (tmp_path / "out" / fleets.name(1)).exists()


def test_reports(source: Registry, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text(f"{source.host}/no/such:1\n{source.host}/{fleets.name(0)}:v1\n")
    files = [tmp_path / "report.json", tmp_path / "report.html"]
    arguments = (str(listed), f"oci:{tmp_path}/out")
    totals = bulk(*arguments, state=tmp_path / "s", reports=files).totals
    for again in (False, True):  # what was converted before is in it too
        report = json.loads(files[0].read_text())
        assert report["version"] == 1 and report["destination"] == arguments[1]
        if not again:
            assert report["totals"] == totals
        failed, made = report["images"]
        assert failed["status"] == "failed" and "no/such" in failed["error"]
        assert made["status"] == ("unchanged" if again else "converted")
        assert [layer["status"] for layer in made["layers"]] == ["converted"] * 2
        assert {"digest", "size", "diff_id", "source_digest", "source_size", "seconds"} <= set(
            made["layers"][0]
        )
        assert made["size_after"] > 0 and made["digest"].startswith("sha256:")
        assert fleets.name(0) in files[1].read_text()
        bulk(*arguments, state=tmp_path / "s", reports=files)


def test_two_sources_of_one_destination(source: Registry, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text(
        f"{source.host}/{fleets.name(0)}:v1 oci:{tmp_path}/out:x\n"
        f"{source.host}/{fleets.name(1)}:v1 oci:{tmp_path}/out:x\n"
    )
    report = bulk(str(listed))
    assert report.totals["converted"] == report.totals["failed"] == 1
    (failure,) = report.failures
    assert fleets.name(0) in failure.error and fleets.name(1) in failure.error
    fleets.check(f"oci:{tmp_path}/out:x", 0)


def test_any_executor(source: Registry, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as processes:
        report = bulk(f"docker://{source.host}", f"oci:{tmp_path}/out", executor=processes)
        assert report.ok and report.totals["layers_converted"] == DISTINCT
        assert processes.submit(abs, -1).result() == 1  # not shut down
    right(f"oci:{tmp_path}/out")


def test_two_runs_on_one_state(source: Registry, tmp_path: Path) -> None:
    path = tmp_path / "state"
    with State(path), pytest.raises(StateError, match="another bulk run"):
        bulk(f"docker://{source.host}", f"oci:{tmp_path}/out", state=path)
    with State(path):
        error = fails(
            1, "image", "bulk", f"docker://{source.host}", f"oci:{tmp_path}/out", "--state", path
        )
        assert "another bulk run" in error and str(path) in error
    assert not (tmp_path / "out").exists()


def test_an_unreachable_destination_is_one_error(source: Registry, tmp_path: Path) -> None:
    port = closed_port()
    with pytest.raises(RegistryError, match=str(port)):
        bulk(f"docker://{source.host}", f"docker://127.0.0.1:{port}")


def test_arguments(source: Registry, tmp_path: Path) -> None:
    src, dst = f"docker://{source.host}", f"oci:{tmp_path}/out"
    with pytest.raises(UsageError, match=r"\.json or \.html"):
        bulk(src, dst, reports=["report.txt"])
    with pytest.raises(FileNotFoundError, match=r"reports \(--report\)"):
        bulk(src, dst, reports=[tmp_path / "no" / "report.json"])
    with ProcessPoolExecutor(1) as pool, pytest.raises(UsageError, match="only one of them"):
        bulk(src, dst, executor=pool, dask="127.0.0.1:1")
    assert not (tmp_path / "out").exists()


def test_threads_are_gone(source: Registry, tmp_path: Path) -> None:
    before = threading.active_count()
    bulk(f"docker://{source.host}", f"oci:{tmp_path}/out")
    assert [t.name for t in threading.enumerate()][before:] == []


# --- the command ------------------------------------------------------------------------


def test_the_command(source: Registry, tmp_path: Path, state_home: Path) -> None:
    arguments = ("image", "bulk", f"docker://{source.host}", f"oci:{tmp_path}/out")
    planned = json.loads(ok(*arguments, "--dry-run", "--json"))
    assert planned["dry_run"] and planned["totals"]["to_do"] == COUNT
    assert not state_home.exists()
    text = ok(*arguments, "--jobs", "2")
    assert f"{COUNT} converted" in text and f"{DISTINCT} converted" in text
    right(f"oci:{tmp_path}/out")
    (state,) = state_home.iterdir()
    done = run(*arguments, "-v")
    assert done.returncode == 0 and str(state) in done.stderr
    assert len([line for line in done.stderr.splitlines() if "unchanged: " in line]) == COUNT
    assert json.loads(ok(*arguments, "--json"))["totals"]["unchanged"] == COUNT


def test_failures_of_the_command(source: Registry, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text(f"{source.host}/no/such:1\n{source.host}/{fleets.name(0)}:v1\n")
    arguments = ("image", "bulk", listed, f"oci:{tmp_path}/out")
    done = run(*arguments)
    assert done.returncode == 1 and "no/such" not in done.stdout
    assert f"stargz: failed: docker://{source.host}/no/such:1: not found" in done.stderr
    assert done.stderr.count("\n") == 1
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["totals"]["failed"] == found["totals"]["unchanged"] == 1
    assert found["failures"][0]["source"] == f"docker://{source.host}/no/such:1"


def test_the_table(source: Registry, tmp_path: Path) -> None:
    """On a terminal, while it runs; the result is on stdout as ever."""
    main, follower = os.openpty()
    with FaultProxy(f"http://{source.host}") as proxy:
        proxy.plan = lambda request: Fault(delay=0.1 if "/blobs/" in request.path else 0)
        words = command(
            "image", "bulk", f"docker://{proxy.url.partition('://')[2]}", f"oci:{tmp_path}/out"
        )
        env = environment(TERM="xterm", COLUMNS="120", LINES="30")
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=follower) as process:
            os.close(follower)
            shown = b""
            while True:
                try:
                    piece = os.read(main, 1 << 16)
                except OSError:  # its end, on Linux
                    break
                shown += piece
            assert process.stdout is not None
            out = process.stdout.read().decode()
    os.close(main)
    assert process.returncode == 0
    assert f"of {COUNT} images" in shown.decode() and "B/s" in shown.decode()
    assert f"{COUNT} converted" in out and "\x1b" not in out
