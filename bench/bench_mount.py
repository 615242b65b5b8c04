"""A mounted layer against squashfuse, whose image is compressed with zstd."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import peers
from stargz.mount import mount


@pytest.fixture(scope="module", autouse=True)
def fuse() -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("/dev/fuse is missing")


def find(directory: Path) -> None:
    subprocess.run(["find", directory], check=True, stdout=subprocess.DEVNULL)


def read_all(directory: Path) -> None:
    """A pipe and not /dev/null itself, which tar knows, and then reads nothing."""
    command = ["tar", "-C", directory, "-cf", "-", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as pack:
        subprocess.run(["cat"], check=True, stdin=pack.stdout, stdout=subprocess.DEVNULL)
    assert pack.returncode == 0


class Mounted:
    """Something that is mounted anew before each run, so that nothing is cached."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def __enter__(self) -> Mounted:
        return self

    def __exit__(self, *exc: object) -> None:
        self.unmount()

    def mount(self) -> None:
        raise NotImplementedError

    def unmount(self) -> None:
        subprocess.run(["umount", self.directory], capture_output=True, check=False)


class Ours(Mounted):
    def __init__(self, layer: Path, directory: Path) -> None:
        super().__init__(directory)
        self.layer = layer
        self.mounted: Any = None

    def mount(self) -> None:
        self.mounted = mount(self.layer, self.directory)

    def unmount(self) -> None:
        if self.mounted is not None:
            self.mounted.unmount()


class Squashfuse(Mounted):
    def __init__(self, image: Path, directory: Path) -> None:
        super().__init__(directory)
        self.image = image

    def mount(self) -> None:
        subprocess.run(["squashfuse", self.image, self.directory], check=True)


@pytest.fixture(scope="module")
def layer(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layer") / "layer.stargz"
    stargz.convert(debian, path)
    return path


@pytest.fixture(scope="module")
def squashfs(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    if not shutil.which("squashfuse") or not shutil.which("mksquashfs"):
        return None
    folder = tmp_path_factory.mktemp("squashfs")
    (folder / "root").mkdir()
    peers.tar_xzf(debian, folder / "root")
    command = ["mksquashfs", folder / "root", folder / "image", "-comp", "zstd", "-quiet"]
    subprocess.run([*command, "-no-progress"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder / "root")
    return folder / "image"


@contextmanager
def mounts(layer: Path, squashfs: Path | None, tmp_path: Path) -> Iterator[list[Mounted]]:
    with Ours(layer, tmp_path / "ours") as ours:
        if squashfs is None:
            yield [ours]
            return
        with Squashfuse(squashfs, tmp_path / "squashfuse") as peer:
            yield [ours, peer]


@pytest.mark.parametrize(
    "use, what, target",
    [(find, "find", "<= 0.08"), (read_all, "tar of everything", "<= 1.0")],
    ids=["find", "tar"],
)
def test_first_use(
    use: Any,
    what: str,
    target: str,
    layer: Path,
    squashfs: Path | None,
    tmp_path: Path,
    compare: Any,
) -> None:
    with mounts(layer, squashfs, tmp_path) as made:

        def again() -> None:
            for one in made:
                one.unmount()
                one.mount()

        others = {"squashfuse": lambda: use(made[1].directory)} if made[1:] else {}
        seconds = compare.medians(lambda: use(made[0].directory), others, between=again)
    compare.figure(f"mount debian: seconds for {what}, first time", seconds["ours"], target)
    if others:
        compare.figure(f"mount debian: {what}, seconds of squashfuse (zstd)", seconds["squashfuse"])


def test_first_byte(layer: Path, tmp_path: Path, compare: Any) -> None:
    """The command, and then cat, as processes."""
    directory = tmp_path / "mnt"
    directory.mkdir()

    def ours() -> None:
        command = [sys.executable, "-m", "stargz", "mount", layer, directory]
        subprocess.run(command, check=True)
        path = directory / "etc/passwd"
        subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)

    def clean() -> None:
        subprocess.run(["umount", directory], capture_output=True, check=False)

    try:
        seconds = compare.medians(ours, {"python": peers.python_pass}, rounds=11, between=clean)
    finally:
        clean()
    compare.figure("mount debian: seconds to the first byte", seconds["ours"], "<= 0.3")
