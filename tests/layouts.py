"""Builds OCI image layouts of seekable layers, for the tests that read images."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blobs import sha256

import stargz

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
LAYER_DIGEST = "containerd.io/snapshot/stargz/layer.digest"
REF_NAME = "org.opencontainers.image.ref.name"

Descriptor = dict[str, Any]


class Layout:
    """An image layout that grows blob by blob; every method returns the descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._tagged: list[Descriptor] = []
        self._diff_ids: dict[str, str] = {}
        self._write_index()

    def blob(self, data: bytes, media_type: str, **more: Any) -> Descriptor:
        """Any blob."""
        digest = sha256(data)
        (self.blobs / digest.partition(":")[2]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def layer(self, tar: bytes | Path, *, annotated: bool = True, **options: Any) -> Descriptor:
        """A seekable layer of a tar; `options` are those of stargz.convert."""
        out = io.BytesIO()
        result = stargz.convert(tar, out, threads=1, **options)
        annotations = {"annotations": {TOC_DIGEST: result.toc_digest}} if annotated else {}
        self._diff_ids[result.digest] = result.diff_id
        return self.blob(out.getvalue(), OCI_LAYER, **annotations)

    def plain_layer(self, tar: bytes, packed: bytes | None = None) -> Descriptor:
        """A layer as other tools make it: one gzip member and no TOC."""
        found = self.blob(gzip.compress(tar, 1, mtime=0) if packed is None else packed, OCI_LAYER)
        self._diff_ids[found["digest"]] = sha256(tar)
        return found

    def manifest(
        self,
        layers: Iterable[Descriptor],
        *,
        platform: str = "linux/amd64",
        config: dict[str, Any] | None = None,
        **more: Any,
    ) -> Descriptor:
        """The manifest of an image; `platform` is in its config and in the descriptor."""
        listed = list(layers)
        keys = ("os", "architecture", "variant")
        where = dict(zip(keys, platform.split("/"), strict=False))
        diff_ids = [self._diff_ids.get(layer["digest"], layer["digest"]) for layer in listed]
        image = {
            **where,
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            **(config or {}),
        }
        described = self.blob(json.dumps(image).encode(), OCI_CONFIG)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described,
            "layers": listed,
            **more,
        }
        return self.blob(json.dumps(document).encode(), OCI_MANIFEST, platform=where)

    def index(self, entries: Iterable[Descriptor], **more: Any) -> Descriptor:
        """An index of manifests."""
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": list(entries),
            **more,
        }
        return self.blob(json.dumps(document).encode(), OCI_INDEX)

    def tag(self, described: Descriptor, ref: str | None = "latest") -> Descriptor:
        """Name a manifest or an index in the layout's own index."""
        entry = {**described, "annotations": {REF_NAME: ref}} if ref else dict(described)
        self._tagged.append(entry)
        self._write_index()
        return entry

    def retag(self, described: Descriptor, ref: str = "latest") -> None:
        """Let a name mean another manifest or index."""
        self._tagged = [e for e in self._tagged if e.get("annotations") != {REF_NAME: ref}]
        self.tag(described, ref)

    def _write_index(self) -> None:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self._tagged}
        (self.path / "index.json").write_text(json.dumps(document))


def image(path: Path, tars: Iterable[bytes | Path], ref: str = "latest", **options: Any) -> Layout:
    """A layout of one image of seekable layers, the lowest first."""
    layout = Layout(path)
    layout.tag(layout.manifest([layout.layer(tar, **options) for tar in tars]), ref)
    return layout
