"""`stargz mount` of an image in a registry: the whole way, as a process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import layouts
import pytest
import registries
from blobs import tar_of
from command import fails
from mounts import clean_up, cli_mount, foreground, listed, mount_line, needs_fuse, wait_for
from servers import Fault, FaultProxy, Request

NOISE = random.Random(5)
FIRST, SECOND = NOISE.randbytes(300_000), NOISE.randbytes(300_000)
LOWER = tar_of(
    [("rest", NOISE.randbytes(900_000)), ("first", FIRST), ("gone", b"x"), ("dir/low", b"low")]
)
UPPER = tar_of([("rest2", NOISE.randbytes(900_000)), ("second", SECOND), (".wh.gone", b"")])


@pytest.fixture(scope="module", autouse=True)
def fuse() -> None:
    needs_fuse()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """In front of a registry that asks for a password, with some/image:latest."""
    folder = tmp_path_factory.mktemp("images")
    layout = layouts.Layout(folder / "layout")
    layers = [
        layout.layer(LOWER, prioritized=["first"]),
        layout.layer(UPPER, prioritized=["second"]),
    ]
    layout.tag(layout.manifest(layers))
    with registries.registry(folder / "registry", basic=True) as served:
        served.push(layout.path, "some/image")
        with FaultProxy(f"http://{served.host}") as running:
            yield running


@pytest.fixture
def src(proxy: FaultProxy, tmp_path: Path) -> tuple[str, str, Path]:
    """SRC, and --authfile with the account for it."""
    proxy.reset()
    host = proxy.url.partition("://")[2]
    auth = registries.base64.b64encode(f"{registries.USER}:{registries.PASSWORD}".encode()).decode()
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return f"docker://{host}/some/image", "--authfile", path


def test_layers_are_merged_and_recorded(src: tuple[str, str, Path], tmp_path: Path) -> None:
    record = tmp_path / "record"
    directory = tmp_path / "mnt"
    options = ["--require-verified", "--record", record, "--cache-dir", tmp_path / "cache"]
    with foreground(*src, *options, directory=directory) as process:
        assert listed(directory) == ["dir", "first", "rest", "rest2", "second"]
        assert (directory / "second").read_bytes() == SECOND
        assert (directory / "dir/low").read_bytes() == b"low"
        assert mount_line(directory)[0] == src[0]
        process.send_signal(signal.SIGUSR1)
        wait_for(record.exists)
        paths = [json.loads(line)["path"] for line in record.read_text().splitlines()]
        assert paths == ["second", "dir/low"]
        subprocess.run(["umount", directory], check=True)
        assert process.wait(20) == 0


# What a mount of a seekable image has no use for.
NEVER = {
    "ctypes", "numpy", "platform", "rich", "urllib.request", "zstandard", "stargz._engine.write",
    "stargz.conversion", "stargz.mount.crfs", "stargz.oci.formats.archive",
    "stargz.oci.formats.layout", "stargz.oci.formats.soci", "stargz.oci.formats.storage",
    "stargz.oci.indexes", "stargz.oci.local", "stargz.oci.registry.companions",
}  # fmt: skip


def test_imports_little(src: tuple[str, str, Path], tmp_path: Path) -> None:
    """Imports are most of the time to the first byte."""
    script = """
import sys, threading
def tell():
    sys.stdin.readline()
    print("|".join(sys.modules), flush=True)
threading.Thread(target=tell, daemon=True).start()
from stargz.cli import main
sys.exit(main(sys.argv[1:]))
"""
    directory = tmp_path / "mnt"
    directory.mkdir()
    words = ["mount", "--foreground", *src, "--cache-dir", tmp_path / "cache", directory]
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    with process:
        try:
            wait_for(lambda: directory.is_mount() and listed(directory))
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            said = process.stdout.readline()
        finally:
            clean_up(directory)
            assert process.wait(60) == 0
    loaded = set(said.strip().split("|"))
    assert "stargz.oci.image" in loaded
    assert not loaded & NEVER


def test_prefetch_begins_with_the_first_layer_that_is_open(
    proxy: FaultProxy, src: tuple[str, str, Path], tmp_path: Path
) -> None:
    """What a layer has put first is on its way while another layer is still being opened."""
    tails: list[Request] = []
    seen: list[bool] = []

    def plan(request: Request) -> Fault | None:
        start = request.range.removeprefix("bytes=").partition("-")[0]
        if not start or "/blobs/" not in request.path or request.status:
            return None
        if int(start) > 1000:
            tails.append(request)
            # The second one that is authorized waits until something is prefetched.
            if len({tail.path for tail in tails}) == 2 and "authorization" in request.headers:
                return Fault(delay=1)
        elif tails:
            seen.append(any(not tail.status for tail in tails))
        return None

    proxy.reset(plan)
    cache = tmp_path / "cache"
    options = ["--no-background", "--cache-dir", cache]
    with cli_mount(*src, *options, directory=tmp_path / "mnt") as directory:
        wait_for(lambda: len(seen) >= 2)
        assert seen[0]
        assert (directory / "first").read_bytes() == FIRST


def test_nothing_is_mounted_where_a_layer_cannot_be_opened(
    proxy: FaultProxy, src: tuple[str, str, Path], tmp_path: Path
) -> None:
    proxy.reset(lambda r: Fault(status=404) if "/blobs/" in r.path else None)
    directory = tmp_path / "mnt"
    directory.mkdir()
    line = fails(1, "mount", *src, directory)
    assert ("some/image" in line and "404" in line) or "not found" in line
    assert not mount_line(directory)
