"""Bulk runs that are killed, starved and lied to."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blobs
import fleets
import layouts
import pytest
import registries
from absence import absent
from command import command, environment, run
from registries import Registry
from servers import Fault, FaultProxy

from stargz.oci.bulk import bulk

COUNT = 24
IMAGES = range(COUNT)
JOBS = 2
KILLS = 20
SIZE = 150_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("source")
    with registries.registry(folder) as served:
        fleets.push(served, folder / "layouts", IMAGES, size=SIZE)
        yield served


def known_layers(state: Path) -> int:
    """How many layers the state knows, without a word to it."""
    if not state.exists():
        return 0
    with sqlite3.connect(f"file:{state}?mode=rw", uri=True) as db:
        try:
            found = db.execute("SELECT count(*) FROM layers").fetchone()[0]
        except sqlite3.OperationalError:  # killed before it had any tables
            found = 0
    db.close()
    return int(found)


def digests(served: Registry) -> list[str]:
    """Of the layers in a registry."""
    found = served.storage.rglob("blobs/sha256/*/*/data")
    manifests = [path.read_bytes() for path in found if path.stat().st_size < 5000]
    documents = [json.loads(data) for data in manifests if data.startswith(b'{"schemaVersion"')]
    return [layer["digest"] for document in documents for layer in document["layers"]]


@pytest.mark.parametrize("kind", ["layouts", "registry"])
def test_kill_9_at_random_moments(kind: str, source: Registry, tmp_path: Path) -> None:
    """Twenty kills; then a run to the end: every image right, nothing left over, and no more
    layers made again than were under way."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    state = tmp_path / "state"
    chance = random.Random(kind)
    layers = fleets.BASES + COUNT
    with (
        registries.registry(tmp_path / "target") as target,
        FaultProxy(f"http://{source.host}") as proxy,
    ):
        # Slow enough that a kill meets work of every kind.
        proxy.plan = lambda request: Fault(delay=0.02 if "/blobs/" in request.path else 0)
        src = f"docker://{proxy.url.partition('://')[2]}"
        root = f"oci:{tmp_path}/out" if kind == "layouts" else f"docker://{target.host}"
        words = command("image", "bulk", src, root, "--state", state, "--jobs", JOBS, "-q")
        env = environment(TMPDIR=str(temporary))
        kills = since = 0
        while kills < KILLS // 2:
            before = known_layers(state)
            with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL) as process:
                try:
                    process.wait(chance.uniform(0.3, 0.75))
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
            if process.returncode == 0:
                # It came to its end before: all is to be done again.
                assert known_layers(state) == layers
                state.unlink()
                proxy.log.clear()
                since = kills
                continue
            assert process.returncode == -signal.SIGKILL
            assert known_layers(state) >= before
        proxy.plan = []
        before = known_layers(state)
        done = run(
            "image", "bulk", src, root, "--state", state, "--json", env={"TMPDIR": env["TMPDIR"]}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        totals = json.loads(done.stdout)["totals"]
        assert totals["converted"] + totals["unchanged"] == COUNT
        assert totals["layers_converted"] == layers - before
        wanted = set(digests(source))
        fetched = [one for one in proxy.log if one.method == "GET" and not one.range]
        count = sum(one.path.rpartition("/")[2] in wanted for one in fetched)
        assert layers <= count <= layers + (kills - since) * JOBS
        for number in IMAGES:
            fleets.check(f"{root}/{fleets.name(number)}:v1", number, SIZE)
        # Python tries where temporary files go with a file of four bytes: a kill may leave it.
        tried = [path for path in temporary.iterdir() if path.read_bytes() in (b"", b"blat")]
        assert len(tried) <= kills
        assert sorted(temporary.iterdir()) == sorted(tried)
        assert sorted(p.name for p in tmp_path.iterdir() if "state" in p.name) == ["state"]
        if kind == "layouts":
            assert fleets.strays(tmp_path / "out") == []
        else:
            # All that were known are gone. What a kill met before the registry's answer was here
            # has a name that nobody was told, and no bytes: registries purge those by themselves.
            left = fleets.sessions(target)
            assert not [data for path in left for data in path.glob("data") if data.stat().st_size]
            assert len(left) <= kills * (3 * JOBS + 2)


def test_ctrl_c(source: Registry, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with FaultProxy(f"http://{source.host}") as proxy:
        proxy.plan = lambda request: Fault(delay=0.05 if "/blobs/" in request.path else 0)
        src = f"docker://{proxy.url.partition('://')[2]}"
        words = command("image", "bulk", src, f"oci:{tmp_path}/out", "--state", state)
        with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE) as process:
            until = time.monotonic() + 20
            while not any("/blobs/" in one.path for one in list(proxy.log)):
                assert time.monotonic() < until
                time.sleep(0.01)
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            finally:
                process.kill()
            assert process.stderr is not None
            assert process.returncode == 130, process.stderr.read()
    assert fleets.strays(tmp_path / "out") == []
    report = bulk(f"docker://{source.host}", f"oci:{tmp_path}/out", state=state)
    assert report.ok
    for number in IMAGES:
        fleets.check(f"oci:{tmp_path}/out/{fleets.name(number)}:v1", number, SIZE)


def test_a_corrupt_layer_fails_alone(tmp_path: Path) -> None:
    with registries.registry(tmp_path / "r") as served:
        fleets.push(served, tmp_path / "l", range(6))
        bad = layouts.Layout(tmp_path / "bad")
        shared = bad.plain_layer(b"not a tar at all" * 1000)
        for number in range(3):
            own = bad.plain_layer(blobs.tar_of([(f"file{number}", b"")]))
            made = bad.manifest([shared, own])
            bad._tagged.clear()
            bad.tag(made)
            served.push(bad.path, f"bad/app{number}", "v1")
        with FaultProxy(f"http://{served.host}") as proxy:
            src = f"docker://{proxy.url.partition('://')[2]}"
            report = bulk(src, f"oci:{tmp_path}/out", state=tmp_path / "s")
            asked = [
                one for one in proxy.log
                if shared["digest"] in one.path and one.method == "GET" and not one.range
            ]  # fmt: skip
        assert len(asked) == 1  # not once for each image that has it
    assert report.totals["converted"] == 6 and report.totals["failed"] == 3
    assert all("bad/app" in one.source and one.error for one in report.failures)
    assert not list((tmp_path / "out").glob("bad/*/index.json")) or all(
        not fleets.of_layout(path.parent)["manifests"]
        for path in (tmp_path / "out").glob("bad/*/index.json")
    )
    for number in range(6):
        fleets.check(f"oci:{tmp_path}/out/{fleets.name(number)}:v1", number)


def test_bytes_that_were_changed_on_their_way(source: Registry, tmp_path: Path) -> None:
    def flip_once(data: bytes) -> bytes:
        return bytes(byte ^ 0x55 for byte in data)

    victim = f"/{fleets.name(5)}/blobs/"
    with FaultProxy(f"http://{source.host}") as proxy:
        proxy.plan = lambda request: Fault(corrupt=flip_once if victim in request.path else None)
        src = f"docker://{proxy.url.partition('://')[2]}"
        report = bulk(src, f"oci:{tmp_path}/out", state=tmp_path / "s", include=["*/app0?"])
        failed = [one.source for one in report.failures]
        assert f"{src}/{fleets.name(5)}:v1" in failed
        proxy.reset()
        again = bulk(src, f"oci:{tmp_path}/out", state=tmp_path / "s", include=["*/app0?"])
        assert again.ok and again.totals["converted"] == len(failed)
    for number in range(10):
        fleets.check(f"oci:{tmp_path}/out/{fleets.name(number)}:v1", number, SIZE)


def test_hostile_manifests_fail_alone(tmp_path: Path) -> None:
    folder = fleets.layout(tmp_path / "l", range(3))
    hostile: dict[str, Any] = {
        "huge": {"layers": [{"digest": "sha256:" + "a" * 64, "size": 1 << 62}]},
        "path": {"layers": [{"digest": "sha256:../../../etc/passwd", "size": 1}]},
        "negative": {"layers": [{"digest": "sha256:" + "a" * 64, "size": -1}]},
        "text": {"layers": "none"},
    }
    for name, more in hostile.items():
        made = layouts.Layout(folder / name)
        manifest = made.manifest([])
        document = json.loads((made.blobs / manifest["digest"][7:]).read_text()) | more
        made.tag(made.blob(json.dumps(document).encode(), layouts.OCI_MANIFEST), "v1")
    nested = layouts.Layout(folder / "nested")
    entry = nested.manifest([nested.plain_layer(blobs.tar_of([("x", b"")]))])
    for _ in range(8):
        entry = nested.index([entry])
    nested.tag(entry, "v1")
    report = bulk(str(folder), f"oci:{tmp_path}/out")
    assert report.totals["converted"] == 3
    assert {one.source.split(":")[1].rpartition("/")[2] for one in report.failures} == {
        *hostile,
        "nested",
    }


def test_a_source_that_disappears(source: Registry, tmp_path: Path) -> None:
    """Listed, and gone when its turn comes."""
    victim = f"/{fleets.name(3)}/manifests/"
    with FaultProxy(f"http://{source.host}") as proxy:
        proxy.plan = lambda request: Fault(
            status=404 if victim in request.path else None, body=b"{}"
        )
        src = f"docker://{proxy.url.partition('://')[2]}"
        report = bulk(src, f"oci:{tmp_path}/out", include=["*/app0[0-4]"])
    assert [one.source for one in report.failures] == [f"{src}/{fleets.name(3)}:v1"]
    assert report.totals["converted"] == 4


def test_a_registry_that_dies_and_returns(source: Registry, tmp_path: Path) -> None:
    """For longer than one request is tried again: what failed is done at the end of the run."""
    dead = threading.Event()
    tries: dict[str, int] = {}
    victims = [f"/{fleets.name(number)}/" for number in (1, 2)]

    def plan(request: Any) -> Fault:
        for victim in victims:
            if victim in request.path and "/manifests/" in request.path:
                tries[victim] = tries.get(victim, 0) + 1
                if tries[victim] <= 5:  # as often as the client tries
                    dead.set()
                    return Fault(refuse=True)
        return Fault()

    with FaultProxy(f"http://{source.host}") as proxy:
        proxy.plan = plan
        src = f"docker://{proxy.url.partition('://')[2]}"
        report = bulk(src, f"oci:{tmp_path}/out", include=["*/app0[0-3]"])
    assert dead.is_set()
    assert report.ok and report.totals["converted"] == 4
    assert all(count > 5 for count in tries.values())


def test_a_full_disk(source: Registry, tmp_path: Path) -> None:
    """TMPDIR is full: an error of each image, and nothing is left of them."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "small", small], check=False
    )
    if mounted.returncode:
        absent("a tmpfs cannot be mounted here (it needs root)")
    try:
        with registries.registry(tmp_path / "target") as target:
            arguments = ("image", "bulk", f"docker://{source.host}", f"docker://{target.host}")
            options = ("--include", "*/app0[0-3]", "--state", tmp_path / "s")
            done = run(*arguments, *options, env={"TMPDIR": str(small)})
            assert done.returncode == 1, done.stdout
            failed = done.stderr.splitlines()
            assert len(failed) == 4
            assert all(line.startswith("stargz: failed: docker://") for line in failed), failed
            assert all("o space" in line for line in failed), failed
            assert list(small.iterdir()) == []
            assert fleets.sessions(target) == []
            assert run(*arguments, *options).returncode == 0
    finally:
        subprocess.run(["umount", small], check=True)
