"""OCI layouts to measure with: an image of given layers, and a copy of any image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_PIECE = 4 << 20


def write_layout(folder: Path, layers: Sequence[tuple[Path, Path]]) -> None:
    """Make a layout of an image with these layers, each a tar and the same as a tar.gz: as a build
    leaves it, not seekable."""
    from stargz.digests import digest_of
    from stargz.oci.formats.layout_writer import LayoutDestination
    from stargz.oci.formats.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
    from stargz.oci.formats.reference import LayoutReference

    packed = [_digest(tar_gz) for _, tar_gz in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/tool"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(tar) for tar, _ in layers]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [
            {"mediaType": OCI_LAYER, "digest": digest, "size": tar_gz.stat().st_size}
            for digest, (_, tar_gz) in zip(packed, layers, strict=True)
        ],
    }
    layout = LayoutDestination(LayoutReference(str(folder), "latest"))
    for digest, (_, tar_gz) in zip(packed, layers, strict=True):
        with layout.writer() as blob, tar_gz.open("rb") as file:
            while data := file.read(_PIECE):
                blob.write(data)
            blob.commit(digest)
    layout.write_blob(config, digest_of(config))
    layout.write_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, named=True)
    layout.close()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def copy_image(image: Any, folder: Path) -> None:
    """Make a layout of one platform's image (stargz.oci.loading), with every blob as it is, and
    OCI's media types, which are all that others read in a layout."""
    from stargz.errors import DigestError
    from stargz.oci.formats.layout_writer import LayoutDestination
    from stargz.oci.formats.manifest import MAX_CONFIG_SIZE, OCI_MANIFEST
    from stargz.oci.formats.reference import LayoutReference

    layout = LayoutDestination(LayoutReference(str(folder), "latest"))
    config = image.manifest.config
    for number, entry in enumerate(image.descriptors):
        if not layout.has_blob(entry):
            with layout.writer() as blob:
                algorithm, _, expected = entry.digest.partition(":")
                hasher = hashlib.new(algorithm)
                for data in pieces(image, number):
                    blob.write(data)
                    hasher.update(data)
                if (actual := hasher.hexdigest()) != expected:
                    name = image.describe(number)
                    raise DigestError(name, entry.digest, f"{algorithm}:{actual}")
                blob.commit(entry.digest)
    layout.write_blob(image.repository.read_blob(config, MAX_CONFIG_SIZE), config.digest)
    manifest = {**image.json, "mediaType": OCI_MANIFEST, "config": _oci(image.json["config"])}
    manifest["layers"] = list(map(_oci, image.json["layers"]))
    layout.write_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, named=True)
    layout.close()


def _oci(entry: dict[str, Any]) -> dict[str, Any]:
    """A descriptor with the type that OCI's documents have for the same."""
    from stargz.oci.formats.manifest import OCI_TYPES

    kind = entry.get("mediaType", "")
    return {**entry, "mediaType": OCI_TYPES.get(kind, kind)}


def pieces(image: Any, number: int) -> Iterator[bytes]:
    """The bytes of a layer's blob."""
    source = image.open_source(number)
    try:
        for at in range(0, source.size, _PIECE):
            yield source.read_at(at, min(_PIECE, source.size - at))
    finally:
        source.close()
