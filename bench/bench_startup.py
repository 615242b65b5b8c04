"""What a command costs before it does anything, against an empty Python; and a mount of an image in
a registry, from the command to the first byte and, against stargz-snapshotter, to the last."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import images
from bench.peers_images import Snapshotter
from stargz.benchmark import trees
from stargz.benchmark.mounts import read_all
from stargz.benchmark.peers import has, python_pass


def command(*args: object) -> None:
    """The installed script where there is one."""
    script = Path(sys.executable).with_name("stargz")
    start = [script] if script.exists() else [sys.executable, "-m", "stargz"]
    subprocess.run([*start, *map(str, args)], check=True, stdout=subprocess.DEVNULL)


def test_help(compare: Any) -> None:
    seconds = compare.medians(lambda: command("--help"), {"python": python_pass}, rounds=21)
    compare.figure(
        "stargz --help: seconds over python -c pass", seconds["ours"] - seconds["python"], "<= 0.06"
    )


def test_cat(debian: Path, tmp_path: Path, compare: Any) -> None:
    blob = tmp_path / "blob"
    stargz.convert(debian, blob)
    seconds = compare.medians(
        lambda: command("cat", blob, "etc/passwd"), {"python": python_pass}, rounds=21
    )
    compare.figure(
        "stargz cat of a small file: seconds over python -c pass",
        seconds["ours"] - seconds["python"],
        "<= 0.2",
    )


class Image:
    """An image in a registry on loopback, and where it is mounted: with an empty cache.

    That is in memory, where there is room: ext4 without a journal looks, for each file that is
    made, at all that were deleted in the last minutes, and a run after another took twice its time.
    """

    def __init__(self, host: str, diff_ids: list[str], folder: Path) -> None:
        self.name = f"{host}/seekable"
        self.diff_ids = diff_ids
        self.src = f"docker://{self.name}"
        self.directory = folder / "mnt"
        self.cache = folder / "cache"
        self.directory.mkdir()

    def mount(self) -> None:
        command("-q", "mount", self.src, self.directory, "--plain-http", "--cache-dir", self.cache)

    def read_whole(self) -> None:
        self.mount()
        read_all(self.directory)

    def first_byte(self) -> None:
        self.mount()
        with (self.directory / "etc/passwd").open("rb") as file:
            assert file.read(1)

    def unmount(self) -> None:
        subprocess.run(["umount", self.directory], capture_output=True, check=False)
        # Its process may just be putting a chunk there.
        shutil.rmtree(self.cache, ignore_errors=True)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    if not Path("/dev/fuse").exists():
        pytest.skip("/dev/fuse is missing")
    layout = images.seekable(tmp_path / "layout")
    images.push(tmp_path / "registry", {"seekable": layout})
    with stargz.open_image(f"oci:{layout.path}") as opened:
        diff_ids = opened.config["rootfs"]["diff_ids"]
    with (
        images.serve(tmp_path / "registry", "127.0.0.1", []) as host,
        trees.scratch() as folder,
    ):
        found = Image(host, diff_ids, folder)
        try:
            yield found
        finally:
            found.unmount()


def test_image_to_the_first_byte(image: Image, compare: Any) -> None:
    others = {"python": python_pass}
    seconds = compare.medians(image.first_byte, others, rounds=11, between=image.unmount)
    compare.figure("mount of an image: seconds to the first byte", seconds["ours"], "<= 0.2")


def test_image_read_whole(image: Image, compare: Any) -> None:
    """From the command to the last byte of a tar of everything."""
    with ExitStack() as stack:
        others = {}
        peer = Snapshotter(image.cache.with_name("peer"))
        if has("containerd", "ctr-remote"):
            stack.callback(peer.stop)
            others["stargz-snapshotter"] = lambda: peer.read_whole(image.name, image.diff_ids)

        def between() -> None:
            image.unmount()
            if others:
                peer.again()

        seconds = compare.medians(image.read_whole, others, rounds=3, between=between)
    what = "mount of an image, everything read through it"
    compare.figure(f"{what}: seconds", seconds["ours"])
    for name in others:
        compare.figure(f"{what}: over {name}", seconds["ours"] / seconds[name], "<= 0.22")
