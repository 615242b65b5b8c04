"""The manifest of a SOCI index: it names the ztocs of an image's layers.

Version 1 says by its `subject` which image it is about, and is found by the registry's referrers.
Version 2 is listed in the image's index and named by an annotation of the image's manifest, so that
both are pulled as one. Snapshotters write what they fetched anew by Go's structs and keep it under
the digest that it had: so these bytes are Go's (`go_json`), and have no `artifactType`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stargz.digests import digest_of, is_digest
from stargz.errors import FormatError
from stargz.oci.formats import go_json
from stargz.oci.formats.manifest import (
    MAX_MANIFEST_SIZE,
    OCI_MANIFEST,
    SOCI_IMAGE,
    SOCI_INDEX,
    SOCI_V1,
    SOCI_V2,
    Descriptor,
    Manifest,
    parse_manifest,
    too_large,
)

Version = Literal[1, 2]
TYPES: Mapping[Version, str] = {1: SOCI_V1, 2: SOCI_V2}

CONFIG = b"{}"  # the blob that is the config of every SOCI index
CONFIG_DIGEST = digest_of(CONFIG)
ZTOC = "application/octet-stream"
_OTHERS = "application/vnd.amazon.soci."  # what else is about layers, and readers may do without

_LAYER_DIGEST = "com.amazon.soci.image-layer-digest"
_LAYER_TYPE = "com.amazon.soci.image-layer-mediaType"
_SPAN_SIZE = "com.amazon.soci.span-size"
_TOOL = "com.amazon.soci.build-tool-identifier"
# Our own: layers that can have no ztoc, so that nobody fetches them again to find that out.
_WITHOUT = "stargz.soci.layers-without-ztoc"


@dataclass(frozen=True, slots=True)
class Ztoc:
    """One ztoc, and the layer that it is of."""

    digest: str
    size: int
    layer: Descriptor
    span_size: int

    @property
    def descriptor(self) -> Descriptor:
        """What is fetched."""
        return Descriptor(ZTOC, self.digest, self.size)


@dataclass(frozen=True, slots=True)
class SociIndex:
    """A SOCI index: its manifest, the ztocs by the digests of their layers, the span sizes that it
    states for these (0: none), the layers of which it is said that they can have none, and those of
    which it has something of a media type that nobody knows."""

    manifest: Manifest
    version: Version
    ztocs: Mapping[str, Descriptor]
    spans: Mapping[str, int] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    odd: Mapping[str, str] = field(default_factory=dict)

    @property
    def tool(self) -> object:
        """What it says that it was made by."""
        return self.manifest.annotations.get(_TOOL)

    @property
    def blobs(self) -> list[Descriptor]:
        """All that it refers to."""
        return [self.manifest.config, *self.manifest.layers]

    def fits(self, layer: Descriptor, span_size: int | None) -> bool:
        """Whether nothing is to be made of a layer: it has a ztoc, with spans of that size if one
        is asked for, or can have none."""
        if layer.digest in self.without:
            return True
        stated = self.spans.get(layer.digest)
        return stated is not None and span_size in (None, stated)


def make_index(
    ztocs: Sequence[Ztoc],
    tool: str,
    subject: Descriptor | None = None,
    without: Sequence[str] = (),
    source: str = "",
) -> SociIndex:
    """The index of these ztocs, in the order of the image's layers: of version 1 if there is a
    `subject`, the image's manifest, else of version 2. `without` are layers that can have none."""
    version: Version = 2 if subject is None else 1
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": TYPES[version], "digest": CONFIG_DIGEST, "size": len(CONFIG)},
        "layers": [_entry(ztoc) for ztoc in ztocs],
    }
    if subject is not None:
        document["subject"] = {
            "mediaType": subject.media_type,
            "digest": subject.digest,
            "size": subject.size,
        }
    document["annotations"] = {_TOOL: tool}
    if without:
        document["annotations"][_WITHOUT] = ",".join(dict.fromkeys(without))
    data = go_json.dump(document, source)
    if len(data) > MAX_MANIFEST_SIZE:
        raise FormatError(f"its SOCI index: {too_large(len(data))}", source)
    return read_index(parse_manifest(data, source, media_type=OCI_MANIFEST))


def _entry(ztoc: Ztoc) -> dict[str, Any]:
    return {
        "mediaType": ZTOC,
        "digest": ztoc.digest,
        "size": ztoc.size,
        "annotations": {
            _LAYER_DIGEST: ztoc.layer.digest,
            _LAYER_TYPE: ztoc.layer.media_type,
            _SPAN_SIZE: str(ztoc.span_size),
        },
    }


def is_soci(manifest: Manifest) -> bool:
    """Whether a manifest is that of a SOCI index, of either version."""
    return manifest.kind == "manifest" and manifest.artifact_type in TYPES.values()


def read_index(manifest: Manifest) -> SociIndex:
    """What a SOCI index says; FormatError for what is none."""
    config = manifest.config if manifest.kind == "manifest" else None
    versions: dict[str, Version] = {kind: version for version, kind in TYPES.items()}
    version = None if config is None else versions.get(config.media_type)
    if version is None:
        what = "an index of images"
        if config is not None:
            what = f"a manifest whose config is of the type {config.media_type[:100]!r}"
        raise FormatError(
            f"it is no SOCI index, but {what}; a SOCI index has a config of the type "
            f"{' or '.join(versions)}",
            manifest.source,
        )
    ztocs: dict[str, Descriptor] = {}
    spans: dict[str, int] = {}
    odd: dict[str, str] = {}
    for entry in manifest.layers:
        layer = entry.annotations.get(_LAYER_DIGEST)
        if layer is None:
            continue
        if entry.media_type == ZTOC:
            ztocs[layer] = entry  # the last one counts
            spans[layer] = _size(entry.annotations.get(_SPAN_SIZE, ""))
        elif not entry.media_type.startswith(_OTHERS):
            odd[layer] = entry.media_type
    stated = manifest.annotations.get(_WITHOUT)
    without = frozenset(filter(is_digest, stated.split(",") if isinstance(stated, str) else ()))
    return SociIndex(manifest, version, ztocs, spans, without, odd)


def _size(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def listed(soci: SociIndex, image: str, platform: dict[str, Any] | None) -> Descriptor:
    """What an image's index lists an index of version 2 by; `image` is the digest of the image's
    manifest, `platform` what is stated of it."""
    manifest = soci.manifest
    annotations = {SOCI_IMAGE: image}
    found: dict[str, Any] = {
        "mediaType": OCI_MANIFEST,
        "digest": manifest.digest,
        "size": len(manifest.data),
        "annotations": annotations,
    }
    if platform is not None:
        found["platform"] = platform
    found["artifactType"] = SOCI_V2
    return Descriptor(OCI_MANIFEST, manifest.digest, len(manifest.data), annotations, found)


def named_by(manifest: Manifest) -> str | None:
    """The digest of the SOCI index that an image's manifest names."""
    digest = manifest.annotations.get(SOCI_INDEX)
    return digest if is_digest(digest) else None
