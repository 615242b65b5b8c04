"""An image of two layers (debian, python) in the forms that the benchmarks compare, and a
registry that serves them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import corpus
from bench.peers import ROOT

sys.path.insert(0, str(ROOT / "tests"))

import layouts
import registries

LAYERS = ("debian", "python")


def seekable(path: Path, **options: Any) -> layouts.Layout:
    """A layout of the image with seekable layers; `options` are those of stargz.convert."""
    return layouts.image(path, [corpus.build(name) for name in LAYERS], **options)


def plain(path: Path) -> tuple[layouts.Layout, list[str]]:
    """The same image with its layers as gzip -6 made them, and their digests."""
    layout = layouts.Layout(path)
    packed = [corpus.build(name) for name in LAYERS]
    layers = [
        layout.plain_layer(path.with_suffix("").read_bytes(), path.read_bytes()) for path in packed
    ]
    layout.tag(layout.manifest(layers))
    return layout, [layer["digest"] for layer in layers]


def push(storage: Path, images: dict[str, layouts.Layout]) -> None:
    """Put layouts into the storage folder of a registry that does not run yet, by name."""
    with registries.registry(storage) as served:
        for name, layout in images.items():
            served.push(layout.path, name)


@contextmanager
def serve(storage: Path, address: str, prefix: Sequence[str]) -> Iterator[str]:
    """A registry with that storage; `prefix` is the command that runs it elsewhere."""
    config = storage / "elsewhere.yml"
    config.write_text(
        (storage / "config.yml").read_text().replace('"addr": "127.0.0.1:', f'"addr": "{address}:')
    )
    host = config.read_text().partition('"addr": "')[2].partition('"')[0]
    program = registries.program("docker-registry", "registry")
    with (storage / "log").open("wb") as log:
        process = subprocess.Popen([*prefix, program, "serve", config], stdout=log, stderr=log)
    try:
        probe = f"exec 3<>/dev/tcp/{host.replace(':', '/')}"
        wait = f"for i in $(seq 100); do ({probe}) 2>/dev/null && exit; sleep 0.05; done; exit 1"
        subprocess.run([*prefix, "bash", "-c", wait], check=True)
        yield host
    finally:
        process.terminate()
        process.wait()
