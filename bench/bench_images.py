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


NUMBER = itertools.count()


def convert(registry: str, *options: str) -> None:
    """Ours. Each run makes an image of another name: no blob of it is there yet."""
    names = [f"docker://{registry}/{name}" for name in ("plain", f"ours/{next(NUMBER)}")]
    command = [sys.executable, "-m", "stargz", "image", "convert", "-q", *options, *names]
    subprocess.run(command, check=True)


def test_one_image(registry: str, compare: Any) -> None:
    with peers_images.containerd() as peer:

        def theirs(level: int | None) -> None:
            made = f"theirs/{next(NUMBER)}:latest"
            peer.convert(registry, "plain:latest", made, level=level)

        seconds = compare.medians(
            lambda: convert(registry),
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


def test_zstd(registry: str, compare: Any) -> None:
    """The same to zstd:chunked; ctr-remote writes stargz-snapshotter's."""
    with peers_images.containerd() as peer:

        def theirs() -> None:
            made = f"theirs/{next(NUMBER)}:latest"
            peer.convert(registry, "plain:latest", made, to="--zstdchunked")

        seconds = compare.medians(
            lambda: convert(registry, "--format", "zstd:chunked-stargz"),
            {
                "zstd:chunked": lambda: convert(registry, "--format", "zstd:chunked"),
                "ctr-remote": theirs,
            },
            rounds=3,
        )
    label = "image convert to zstd:chunked-stargz"
    compare.figure(f"{label}, registry to registry: seconds", seconds["ours"])
    compare.figure("the same by ctr-remote --zstdchunked: seconds", seconds["ctr-remote"])
    compare.figure(
        f"{label}: times ctr-remote's speed", seconds["ctr-remote"] / seconds["ours"], ">= 10"
    )
    compare.figure(
        "image convert to zstd:chunked: times ctr-remote's speed",
        seconds["ctr-remote"] / seconds["zstd:chunked"],
    )
