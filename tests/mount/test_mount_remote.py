"""Mounts of what must be fetched: faults, waiting reads, and a root of many images."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import registries
from blobs import build, tar_of
from conftest import absent
from layouts import image
from mounts import clean_up, listed, needs_fuse, wait_for
from servers import Fault, FaultProxy, find_nginx, nginx

from stargz.mount import Mount, mount
from stargz.mount.crfs import Root
from stargz.oci.registry.client import RegistryClient

LARGE = random.Random(1).randbytes(5_000_000)
FILES = [("small", b"small\n"), ("large", LARGE), ("end", b"end\n")]


@pytest.fixture(scope="module", autouse=True)
def fuse() -> None:
    needs_fuse()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    if find_nginx() is None:
        absent("nginx is not installed")
    root = tmp_path_factory.mktemp("site")
    (root / "layer").write_bytes(build(tar_of(FILES), chunk_size=200_000).data)
    with nginx(root, tmp_path_factory.mktemp("nginx")) as upstream, FaultProxy(upstream) as running:
        yield running


@pytest.fixture
def mounted(proxy: FaultProxy, tmp_path: Path) -> Iterator[tuple[Mount, Path, list[str]]]:
    with mounting(proxy, tmp_path, 1 << 20) as made:
        yield made


@contextmanager
def mounting(
    proxy: FaultProxy, tmp_path: Path, memory: int
) -> Iterator[tuple[Mount, Path, list[str]]]:
    proxy.reset()
    lines: list[str] = []
    directory = tmp_path / "mnt"
    directory.mkdir()
    url = f"{proxy.url}/layer"
    try:
        with mount(url, directory, cache=False, log=lines.append, memory=memory) as made:
            yield made, directory, lines
    finally:
        clean_up(directory)


def test_reads_what_is_read(proxy: FaultProxy, tmp_path: Path) -> None:
    # In less memory, what is fetched ahead of a slow reader is fetched again.
    with mounting(proxy, tmp_path, 16 << 20) as (made, directory, lines):
        assert (directory / "small").read_bytes() == b"small\n"
        assert proxy.bytes < 1_500_000
        assert (directory / "large").read_bytes() == LARGE
        usage = made.usage()
        assert usage.files == 2 and usage.failed == 0
        assert 4_900_000 < usage.fetched <= usage.blob_bytes
        assert not lines


def test_a_source_that_goes_away(proxy: FaultProxy, mounted: tuple[Mount, Path, list[str]]) -> None:
    _, directory, lines = mounted
    proxy.reset(lambda request: Fault(status=404))
    with pytest.raises(OSError) as caught:
        (directory / "small").read_bytes()
    assert caught.value.errno == errno.EIO
    wait_for(lambda: lines)
    assert lines[0].startswith(f"{directory}/small: read failed: ")
    proxy.reset()
    assert (directory / "small").read_bytes() == b"small\n"


def test_wrong_bytes_are_eio(proxy: FaultProxy, mounted: tuple[Mount, Path, list[str]]) -> None:
    _, directory, _ = mounted
    proxy.reset(lambda request: Fault(corrupt=lambda block: bytes(b ^ 1 for b in block)))
    with pytest.raises(OSError) as caught:
        (directory / "small").read_bytes()
    assert caught.value.errno == errno.EIO
    proxy.reset()
    assert (directory / "small").read_bytes() == b"small\n"


READ = "import os, sys; os.read(os.open(sys.argv[1], os.O_RDONLY), 10)"


def test_a_reader_that_waits_can_be_killed_and_others_go_on(
    proxy: FaultProxy, mounted: tuple[Mount, Path, list[str]]
) -> None:
    made, directory, _ = mounted
    proxy.reset(lambda request: Fault(stall_after=0))
    reader = subprocess.Popen([sys.executable, "-c", READ, directory / "small"])
    wait_for(lambda: made.server.stats()["parked"])
    assert listed(directory) == ["end", "large", "small"]
    reader.send_signal(signal.SIGKILL)
    assert reader.wait(10) == -signal.SIGKILL
    proxy.reset()


INTERRUPTED = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
try:
    os.preadv(file, [mmap.mmap(-1, 4096)], 0)
except KeyboardInterrupt:
    sys.exit(7)
"""


def test_a_reader_that_waits_can_be_interrupted(
    proxy: FaultProxy, mounted: tuple[Mount, Path, list[str]]
) -> None:
    """A signal that is not the end: for reads past the page cache the kernel asks us."""
    made, directory, lines = mounted
    proxy.reset(lambda request: Fault(stall_after=0))
    reader = subprocess.Popen([sys.executable, "-c", INTERRUPTED, directory / "small"])
    wait_for(lambda: made.server.stats()["parked"])
    reader.send_signal(signal.SIGINT)
    assert reader.wait(10) == 7
    assert not lines
    proxy.reset()
    assert (directory / "end").read_bytes() == b"end\n"


def test_unmount_ends_reads_that_wait(
    proxy: FaultProxy, mounted: tuple[Mount, Path, list[str]]
) -> None:
    made, directory, _ = mounted
    proxy.reset(lambda request: Fault(stall_after=0))
    reader = subprocess.Popen(
        [sys.executable, "-c", READ, directory / "small"], stderr=subprocess.DEVNULL
    )
    wait_for(lambda: made.server.stats()["parked"])
    start = time.monotonic()
    made.unmount()
    assert reader.wait(20) == 1
    assert time.monotonic() - start < 20
    proxy.reset()


# --- a root of many images ----------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as running:
        folder = tmp_path_factory.mktemp("images")
        image(folder / "one", [tar_of([("a", b"1"), ("b", b"2")]), tar_of([(".wh.a", b"")])])
        running.push(folder / "one", "space/app", "1.0")
        running.push(folder / "one", "space/app/debug", "1.0")
        yield running


def test_crfs(registry: registries.Registry, tmp_path: Path) -> None:
    local = tmp_path / "local"
    (local / "sub").mkdir(parents=True)
    (local / "sub/layer.stargz").write_bytes(build(tar_of([("f", b"local")])).data)
    (local / "notes.txt").write_text("no layer")
    (local / "out").symlink_to("/etc")
    directory = tmp_path / "mnt"
    directory.mkdir()
    lines: list[str] = []
    with RegistryClient() as client:
        root = Root([registry.host], local=local, client=client, options={"cache": False})
        try:
            with mount(root, directory, cache=False, log=lines.append):
                images = directory / "images"
                assert listed(directory) == ["images", "layers"]
                assert listed(images) == [registry.host]
                app = images / registry.host / "space/app"
                assert listed(app / "1.0") == ["b"]
                assert (app / "1.0/b").read_bytes() == b"2"
                assert (app / "debug/1.0/b").read_bytes() == b"2"
                assert not (app / "2.0").exists()
                assert not (images / "other.example").exists()
                assert not (images / "other.example/space/app/1.0").exists()
                wait_for(lambda: listed(app) == ["1.0", "debug"])
                manifest = client.manifest(_reference(registry, "space/app", "1.0"))
                (low, _) = manifest.layers
                layers = directory / "layers" / registry.host / "space/app"
                assert listed(layers / low.digest) == ["a", "b"]
                assert (layers / low.digest / "a").read_bytes() == b"1"
                assert not (layers / ("sha256:" + "0" * 64)).exists()
                mine = directory / "layers/local"
                assert listed(mine) == ["sub"]
                assert (mine / "sub/layer.stargz/f").read_bytes() == b"local"
                assert not (mine / "out").exists()
                assert not (mine / "notes.txt").exists()
                inodes = {(app / "1.0/b").stat().st_ino, (layers / low.digest / "b").stat().st_ino}
                assert len(inodes) == 2
                assert not lines
        finally:
            clean_up(directory)


def _reference(registry: registries.Registry, repository: str, tag: str) -> object:
    from stargz.oci.formats.reference import Reference

    return Reference(registry.host, repository, tag)


def test_only_allowed_hosts_are_asked(proxy: FaultProxy, tmp_path: Path) -> None:
    directory = tmp_path / "mnt"
    directory.mkdir()
    proxy.reset()
    host = proxy.url.removeprefix("http://")
    try:
        with mount(Root(["host.example"]), directory, cache=False):
            for path in (f"images/{host}/a/latest", f"layers/{host}/a/sha256:" + "0" * 64):
                assert not (directory / path).exists()
        assert proxy.requests == 0
    finally:
        clean_up(directory)
