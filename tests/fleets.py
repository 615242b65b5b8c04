"""Many small images that share layers, for the tests of bulk runs.

Image N has one of three bases and a layer of its own; what is in them follows from N.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import blobs
import layouts
from registries import Registry

from stargz.oci.image import open_image
from stargz.tree import Tree

BASES = 3


def name(number: int) -> str:
    """The repository of an image; its tag is "v1"."""
    return f"team{number % 2}/app{number:02}"


def contents(number: int, size: int = 20_000) -> dict[str, bytes]:
    """What a container sees of an image."""
    base = number % BASES
    return {
        f"usr/base{base}": blobs.noise(f"base {base}", 5 * size),
        "etc/name": f"image {number}".encode(),
        "app/data": blobs.noise(f"app {number}", size),
    }


def layers(number: int, size: int = 20_000) -> tuple[bytes, bytes]:
    """The two tars of an image."""
    files = contents(number, size)
    (base, data), *own = files.items()
    lower = blobs.tar_of([("usr", None), (base, data), ("etc", None), ("etc/name", b"base")])
    return lower, blobs.tar_of([("app", None), *own])


def layout(path: Path, numbers: Iterable[int], *, ref: str = "v1", size: int = 20_000) -> Path:
    """A folder of layouts, one for each image."""
    for number in numbers:
        made = layouts.Layout(path / name(number))
        made.tag(made.manifest(map(made.plain_layer, layers(number, size))), ref)
    return path


def push(served: Registry, path: Path, numbers: Iterable[int], *, size: int = 20_000) -> None:
    """Have images in a registry; `path` is a folder for their layouts."""
    numbers = list(numbers)
    layout(path, numbers, size=size)
    for number in numbers:
        served.push(path / name(number), name(number), "v1")


def check(image: str, number: int, size: int = 20_000) -> None:
    """AssertionError unless an image is seekable, vouched for, and holds what it should."""
    with open_image(image, require_verified=True, cache=False) as opened:
        tree = Tree(opened.layers)
        for path, content in contents(number, size).items():
            assert tree.read(path) == content, (image, path)


def of_layout(path: Path) -> dict[str, Any]:
    """The index of a layout."""
    found: dict[str, Any] = json.loads((path / "index.json").read_text())
    return found


def strays(folder: Path) -> list[Path]:
    """Files below a folder of layouts that do not belong there: all but markers, indexes, and
    blobs whose name is their digest."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in ("oci-layout", "index.json")
        and blobs.sha256(path.read_bytes()) != f"{path.parent.name}:{path.name}"
    ]


def sessions(served: Registry) -> list[Path]:
    """The uploads that a registry keeps for somebody to go on with."""
    return [path for path in served.storage.rglob("_uploads/*") if any(path.rglob("*"))]
