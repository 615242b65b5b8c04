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
from stargz.benchmark import peers
from stargz.benchmark.mounts import Mounted, Ours, find, read_all, squashfuse


@pytest.fixture(scope="module", autouse=True)
def fuse() -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("/dev/fuse is missing")


@pytest.fixture(scope="module")
def layer(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layer") / "layer.stargz"
    stargz.convert(debian, path)
    return path


@pytest.fixture(scope="module")
def squashfs(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    if not peers.has("squashfuse", "mksquashfs"):
        return None
    folder = tmp_path_factory.mktemp("squashfs")
    (folder / "root").mkdir()
    peers.tar_xzf(debian, folder / "root")
    peers.mksquashfs(folder / "root", folder / "image")
    shutil.rmtree(folder / "root")
    return folder / "image"


@contextmanager
def mounts(layer: Path, squashfs: Path | None, tmp_path: Path) -> Iterator[list[Mounted]]:
    with Ours(layer, tmp_path / "ours") as ours:
        if squashfs is None:
            yield [ours]
            return
        with squashfuse(squashfs, tmp_path / "squashfuse") as peer:
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
                one.again()

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
