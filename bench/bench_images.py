"""Whole images, from and to a registry on loopback: against what containerd's tools take."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from bench import images, peers_images
from bench.images import registries


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host of a registry that has the plain image."""
    folder = tmp_path_factory.mktemp("registry")
    layout, _ = images.plain(folder / "plain")
    with registries.registry(folder / "served") as served:
        served.push(layout.path, "plain")
        yield served.host


def stargz(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "stargz", *arguments], check=True)


def test_one_image(registry: str, compare: Any) -> None:
    """Each run makes an image of another name: no blob of it is there yet."""
    number = itertools.count()

    def ours() -> None:
        made = f"docker://{registry}/ours/{next(number)}"
        stargz("image", "convert", "-q", f"docker://{registry}/plain", made)

    with peers_images.containerd() as peer:

        def theirs(level: int | None) -> None:
            made = f"theirs/{next(number)}:latest"
            peer.convert(registry, "plain:latest", made, level=level)

        seconds = compare.medians(
            ours,
            {"ctr-remote": lambda: theirs(None), "ctr-remote level 1": lambda: theirs(1)},
            rounds=3,
        )
    compare.figure("image convert, registry to registry: seconds", seconds["ours"])
    compare.figure("the same by ctr-remote, its default: seconds", seconds["ctr-remote"])
    compare.figure(
        "image convert: times ctr-remote's speed", seconds["ctr-remote"] / seconds["ours"], ">= 15"
    )
    compare.figure(
        "image convert: times ctr-remote's speed at level 1",
        seconds["ctr-remote level 1"] / seconds["ours"],
    )
