"""Images for tests of `stargz image index`, what became of them; the API for referrers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import registries
from blobs import noise, sha256, tar_of
from layouts import OCI_INDEX, Layout
from servers import Fault, Request

import stargz
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import Manifest
from stargz.oci.formats.soci import SociIndex, read_index

SOCI_V1 = "application/vnd.amazon.soci.index.v1+json"
SOCI_V2 = "application/vnd.amazon.soci.index.v2+json"
LARGE = tar_of(
    [("etc/", None), ("etc/large", noise("large", 400_000)), ("etc/zeros", bytes(1 << 20))]
)
OTHER = tar_of([("usr/other", noise("other", 300_000))])
SMALL = tar_of([("small", b"small")])
MIN = 100_000  # between SMALL and the others


def two_platforms(path: Path, ref: str = "v1") -> Layout:
    """An image that shares a layer between its platforms."""
    layout = Layout(path)
    shared = layout.plain_layer(LARGE)
    images = [
        layout.manifest([shared, layout.plain_layer(SMALL)]),
        layout.manifest([shared, layout.plain_layer(OTHER)], platform="linux/arm64"),
    ]
    layout.tag(layout.index(images), ref)
    return layout


def one_layer(path: Path, layer: Callable[[Layout], dict[str, Any]], ref: str = "v1") -> Layout:
    layout = Layout(path)
    layout.tag(layout.manifest([layer(layout)]), ref)
    return layout


def index(src: str, dst: str | None = None, **options: Any) -> stargz.ImageIndexReport:
    options.setdefault("min_layer_size", MIN)
    return stargz.index_image(src, dst, threads=1, **options)


def root(path: Path, ref: str = "v1") -> Manifest:
    layout = Reading(path)
    return layout.manifest(layout.resolve(ref))


def soci_of(path: Path, ref: str = "v1") -> list[SociIndex]:
    """The indexes of version 2 that the image's index lists, all of whose blobs are there."""
    layout = Reading(path)
    found = [entry for entry in root(path, ref).manifests if entry.json.get("artifactType")]
    indexes = [read_index(layout.manifest(entry)) for entry in found]
    for one in indexes:
        for entry in one.blobs:
            layout.read_blob(entry)
    return indexes


def files(path: Path) -> dict[str, bytes]:
    found = (one for one in path.rglob("*") if one.is_file())
    return {str(one.relative_to(path)): one.read_bytes() for one in found}


def packed(tar: bytes) -> Callable[[Layout], dict[str, Any]]:
    return lambda layout: layout.plain_layer(tar)


class ReferrersAPI:
    """A FaultProxy's plan that gives a registry without the API one."""

    def __init__(self, registry: registries.Registry) -> None:
        self._storage = registry.storage
        self.tags: list[str] = []  # referrers' tags that were asked for

    def __call__(self, request: Request) -> Fault | None:
        kind, _, target = request.path.rpartition("/")
        if kind.endswith("/manifests") and target.startswith("sha256-"):
            self.tags.append(target)
        if kind.endswith("/referrers"):
            found = [one for one, subject in self._subjects() if subject == target]
            document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
            headers = {"Content-Type": OCI_INDEX}
            return Fault(status=200, headers=headers, body=json.dumps(document).encode())
        if kind.endswith("/manifests") and request.method == "PUT":
            return Fault(headers={"OCI-Subject": self.subject})
        return None

    subject = ""

    def _subjects(self) -> Iterator[tuple[dict[str, Any], str]]:
        for path in sorted(self._storage.rglob("data")):
            data = path.read_bytes()
            if data.startswith(b'{"schemaVersion"') and b'"subject"' in data:
                found = json.loads(data)
                yield (
                    {
                        "mediaType": found["mediaType"],
                        "digest": sha256(data),
                        "size": len(data),
                        "artifactType": found["config"]["mediaType"],
                    },
                    found["subject"]["digest"],
                )
