"""Images converted from layout to layout, and images that some tests of that share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blobs import tar_of
from layouts import Layout

from stargz.oci.conversion import ImageReport, convert_image
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import Manifest

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CACHE = "application/vnd.buildkit.cacheconfig.v0"
TAR = tar_of([("etc/file", b"content\n")])


def convert(layout: Layout | Path, dst: Path, ref: str = "v1", **options: Any) -> ImageReport:
    src = layout.path if isinstance(layout, Layout) else layout
    return convert_image(f"oci:{src}:{ref}", f"oci:{dst}:{ref}", threads=1, jobs=2, **options)


def written(path: Path, ref: str = "v1") -> Manifest:
    reading = Reading(path)
    return reading.manifest(reading.resolve(ref))


def docker(layout: Layout, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """An image of Docker's schema 2."""
    return layout.manifest(layers, mediaType=DOCKER_MANIFEST) | {"mediaType": DOCKER_MANIFEST}


def cache(layout: Layout, ref: str = "cache") -> dict[str, Any]:
    """BuildKit's cache, in the form of an index."""
    blobs = [layout.plain_layer(TAR), layout.blob(b"{}", CACHE)]
    return layout.tag(layout.index(blobs), ref)
