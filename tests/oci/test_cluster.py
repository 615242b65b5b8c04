"""Layers converted by a Dask cluster: two worker processes, one of which is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fleets
import pytest
import registries
from absence import absent
from command import ROOT, environment, fails
from registries import Registry
from servers import Fault, FaultProxy, closed_port, free_port

from stargz.errors import SourceError, UsageError
from stargz.oci.bulk import bulk
from stargz.oci.bulk.cluster import _explained, connect
from stargz.oci.formats.selection import images
from stargz.oci.indexes import indexes_of
from stargz.oci.repository import open_repository

# Its own threads close their sockets late.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
COUNT = 8
IMAGES = range(COUNT)


@contextmanager
def processes(*commands: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    try:
        for words in commands:
            started.append(
                subprocess.Popen(
                    words,
                    env=environment(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=ROOT,
                )
            )
        yield started
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


@contextmanager
def scheduler() -> Iterator[str]:
    port = free_port()
    words = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    with processes([*words, "--port", str(port), "--no-dashboard"]):
        assert _listens(port)
        yield f"tcp://127.0.0.1:{port}"


def _listens(port: int) -> bool:
    import socket

    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def worker(address: str) -> list[str]:
    """One process, without a nanny that would start it again."""
    words = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny"]
    return [*words, "--nthreads", "1", "--no-dashboard", "--memory-limit", "0"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    try:
        import distributed  # noqa: F401
    except ImportError:
        absent("distributed (Dask) is not installed")
    with scheduler() as found:
        yield found


@contextmanager
def workers(address: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    import distributed

    with (
        processes(*(worker(address) for _ in range(count))) as started,
        distributed.Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(count, timeout=60)
        yield started


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("source")
    with registries.registry(folder) as served:
        fleets.push(served, folder / "layouts", IMAGES)
        yield served


def test_no_workers(address: str, source: Registry, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no workers"):
        bulk(f"docker://{source.host}", f"oci:{tmp_path}/out", dask=address)


def test_a_worker_is_killed(address: str, source: Registry, tmp_path: Path) -> None:
    """In the middle of its layers, which the other does."""
    with FaultProxy(f"http://{source.host}") as proxy, workers(address, 2) as (victim, _):
        asked = threading.Event()

        def plan(request: Any) -> Fault:
            if "/blobs/" in request.path:
                asked.set()
                return Fault(delay=0.15)
            return Fault()

        proxy.plan = plan

        def kill() -> None:
            asked.wait(30)
            time.sleep(0.3)
            os.kill(victim.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        src = f"docker://{proxy.url.partition('://')[2]}"
        report = bulk(src, f"oci:{tmp_path}/out", dask=address, state=tmp_path / "state")
        killer.join()
        assert victim.wait(10) == -signal.SIGKILL
        assert report.ok, report.failures
        assert report.totals["layers_converted"] == fleets.BASES + COUNT
        for number in IMAGES:
            fleets.check(f"oci:{tmp_path}/out/{fleets.name(number)}:v1", number)
        # The state is the caller's.
        assert bulk(src, f"oci:{tmp_path}/out", state=tmp_path / "state").totals["converted"] == 0


def test_indexes(address: str, source: Registry, tmp_path: Path) -> None:
    with workers(address, 1):
        report = bulk(
            f"docker://{source.host}",
            f"oci:{tmp_path}/out",
            index=True,
            min_layer_size=0,
            dask=address,
            state=tmp_path / "state",
        )
    assert report.failures == ()
    assert (report.totals["indexed"], report.totals["layers_indexed"]) == (
        COUNT,
        fleets.BASES + COUNT,
    )
    for number in IMAGES:
        with open_repository(f"oci:{tmp_path}/out/{fleets.name(number)}:v1") as there:
            _, image = next(images(there.root(), there.manifest))
            found = next(indexes_of(there, image, 2))
            assert list(found.ztocs) == [layer.digest for layer in image.layers]
            assert all(map(there.has_blob, (*found.blobs, *image.layers)))


def test_errors_of_workers(address: str) -> None:
    with workers(address, 1), connect(address) as cluster:
        assert cluster.threads == 1
        assert cluster.submit(abs, -3).result(30) == 3
        with pytest.raises(SourceError, match="ZeroDivisionError"):
            cluster.submit(divmod, 1, 0).result(30)
        waiting = [cluster.submit(time.sleep, 0.2) for _ in range(5)]
        cluster.cancel()
        assert all(isinstance(one.exception(30), SourceError | None) for one in waiting)


def test_what_kills_its_workers_is_told() -> None:
    killed = type("KilledWorker", (Exception,), {})
    assert re.search("died, one after the other", str(_explained(killed("task"))))


def test_other_versions(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import stargz

    with workers(address, 1):
        monkeypatch.setattr(stargz, "__version__", "99")
        with (
            pytest.raises(UsageError, match=r"has stargz .* here it is 99") as caught,
            connect(address),
        ):
            pass
        assert "127.0.0.1" in str(caught.value)


def test_no_scheduler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("stargz.oci.bulk.cluster._CONNECT", 0.5)
    with (
        pytest.raises(SourceError, match="no Dask scheduler answers"),
        connect(f"127.0.0.1:{closed_port()}"),
    ):
        pass
    with pytest.raises(UsageError, match="not a Dask scheduler"), connect("nonsense"):
        pass


def test_dask_is_not_installed(source: Registry, tmp_path: Path) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('not here')")
    error = fails(
        2, "image", "bulk", f"docker://{source.host}", f"oci:{tmp_path}/out", "--dask", "h:1",
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert "pip install distributed" in error
