"""Conversions of images that end early: what they leave where they wrote."""

from __future__ import annotations

import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import registries
from blobs import noise, tar_of
from command import command, environment
from layouts import Layout
from servers import Fault, FaultProxy, Request
from uploads import upload_server

from stargz.errors import StargzError
from stargz.oci.conversion import convert_image
from stargz.oci.destination import open_destination


def source(path: Path, count: int, size: int = 100_000) -> Layout:
    """A layout of an image of layers that do not compress."""
    made = Layout(path)
    tars = [tar_of([(f"f{number}", noise(str(number), size))]) for number in range(count)]
    made.tag(made.manifest([made.plain_layer(tar) for tar in tars]), "v1")
    return made


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("destination", ["oci:{}/il/lay:1", "oci-archive:{}/x.tar"])
@pytest.mark.parametrize("given", [False, True])
def test_a_worker_that_ends_late_leaves_nothing(
    tmp_path: Path, destination: str, error: type[BaseException], given: bool
) -> None:
    """It has found the layout that the other made, which fails."""
    source(tmp_path / "src", 2)
    made, late, failed = (threading.Event() for _ in range(3))
    lock = threading.Lock()
    digests: list[str] = []

    def progress(event: Any) -> None:
        if event["event"] != "layer":
            return
        with lock:
            digests.append(event["digest"])
        first = event["digest"] == digests[0]
        if first and event["done"]:
            made.set()
            assert late.wait(20)
            failed.set()
            raise error
        if not first and not event["done"]:
            assert made.wait(20)
        elif not first:
            late.set()
            assert failed.wait(20)
            threading.Event().wait(0.2)  # until that is known everywhere
            raise error

    with ThreadPoolExecutor(2) as pool, pytest.raises(error):
        convert_image(
            f"oci:{tmp_path}/src:v1",
            destination.format(tmp_path),
            progress=progress,
            jobs=2,
            executor=pool if given else None,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_what_others_write_for_an_archive_is_not_made_after_its_end(tmp_path: Path) -> None:
    with open_destination(f"oci-archive:{tmp_path}/x.tar:v1") as archive:
        place = str(archive.reference)
    with (
        open_destination(place, within=archive.name) as late,
        pytest.raises(StargzError, match=r"oci-archive:.*x\.tar:v1: it is closed"),
    ):
        late.writer()
    assert not list(tmp_path.iterdir())


def interrupted(source: Path, proxy: FaultProxy, count: int) -> None:
    """Run a command, which is interrupted in so many uploads."""
    stalled = threading.Semaphore(0)

    def plan(request: Request) -> Fault | None:
        if request.method != "PATCH":
            return None
        stalled.release()
        return Fault(stall_request=2_000_000)

    proxy.reset(plan)
    host = proxy.url.partition("://")[2]
    words = command(
        "image", "convert", "--jobs", count, f"oci:{source}:v1", f"docker://{host}/app:v2"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=environment(), **pipes) as process:
        try:
            for _ in range(count):
                assert stalled.acquire(timeout=20)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30) == (b"", b"")
            assert process.returncode == 130
        finally:
            process.kill()


def test_an_interrupt_gives_uploads_up(tmp_path: Path) -> None:
    source(tmp_path / "src", 2, 3 << 20)
    with registries.registry(tmp_path) as registry, FaultProxy(f"http://{registry.host}") as proxy:
        interrupted(tmp_path / "src", proxy, 2)
        uploads = registry.storage / "docker/registry/v2/repositories/app/_uploads"
        assert uploads.is_dir() and not list(uploads.glob("*/startedat"))


def test_an_upload_that_cannot_be_given_up_is_asked_for_once(tmp_path: Path) -> None:
    source(tmp_path / "src", 1, 3 << 20)
    with upload_server() as server, FaultProxy(server.url) as proxy:
        server.answer = lambda asked: (503, {}) if asked.method == "DELETE" else None
        interrupted(tmp_path / "src", proxy, 1)
        assert [request.method for request in proxy.log].count("DELETE") == 1


@pytest.mark.parametrize("there", ["", "il", "il/lay"])
def test_directories_of_a_layout_go_with_the_last(tmp_path: Path, there: str) -> None:
    """However far another had come with making them when one began."""
    name = f"oci:{tmp_path}/il/lay:1"
    with open_destination(name):
        (tmp_path / there).mkdir(parents=True, exist_ok=True)
        with open_destination(name) as other, other.writer():
            assert (tmp_path / "il/lay/oci-layout").exists()
    assert not list(tmp_path.iterdir())
