"""Configs, manifests and indexes of converted images: JSON in, JSON out, and nothing else.

Everything that is not known here stays as it is, and in its order. What has nothing to change
keeps its bytes, so that an image that is converted again has the same digest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stargz.descriptors import is_of_format
from stargz.digests import digest_of
from stargz.errors import FormatError
from stargz.oci.formats.manifest import (
    ABOUT,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_TYPES,
    DOCKER_ZSTD_LAYER,
    LAYER_DIGEST,
    MAX_CONFIG_SIZE,
    MAX_LAYERS,
    MAX_MANIFEST_SIZE,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    OCI_TYPES,
    OCI_ZSTD_LAYER,
    SOCI_INDEX,
    Descriptor,
    Manifest,
    annotated,
    check_keys,
    diff_ids,
    load_json,
    too_large,
)

NO_CONFIG = b"{}"
_UNCOMPRESSED = "containerd.io/uncompressed"  # the DiffID, as containerd knows it


@dataclass(frozen=True, slots=True)
class Types:
    """The media types that a converted image is written with; `same` has them, and those of
    layers that stay as they are, by what the others call them."""

    manifest: str
    index: str
    config: str
    layer: str
    zstd_layer: str
    same: Mapping[str, str]


OCI = Types(OCI_MANIFEST, OCI_INDEX, OCI_CONFIG, OCI_LAYER, OCI_ZSTD_LAYER, OCI_TYPES)
DOCKER = Types(
    DOCKER_MANIFEST, DOCKER_LIST, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_ZSTD_LAYER, DOCKER_TYPES
)


@dataclass(frozen=True, slots=True)
class Written:
    """The bytes of a config, a manifest or an index as it is to be written."""

    data: bytes
    media_type: str
    digest: str
    changed: bool


@dataclass(frozen=True, slots=True)
class NewLayer:
    """What a manifest must say of a converted layer, which is in gzip or in zstd."""

    digest: str
    size: int
    diff_id: str
    annotations: Mapping[str, str]
    zstd: bool = False
    kept: bool = False


Dump = Callable[[dict[str, Any], str], bytes]
About = Mapping[str, Written]
"""What became of the manifests of an image that changed, by their old digests: others name those
that they are about."""


# --- configs ----------------------------------------------------------------------------


def rewrite_config(data: bytes, new: Sequence[str], count: int, source: str) -> Written:
    """A config with other DiffIDs. `count` is the number of layers that it was for; with fewer
    of them in `new` (flattened), all history but the last that made a layer is marked empty."""
    config = load_json(data, source)
    old = diff_ids(config, count, source)
    if old == list(new):
        return Written(data, "", digest_of(data), False)
    config["rootfs"]["diff_ids"] = list(new)
    if len(new) < count:
        _flatten_history(config, source)
    data = _dump(config, source)
    if len(data) > MAX_CONFIG_SIZE:
        raise FormatError(f"it would be over {MAX_CONFIG_SIZE} bytes", source)
    return Written(data, "", digest_of(data), True)


def _flatten_history(config: dict[str, Any], source: str) -> None:
    history = config.get("history")
    if not history:
        return
    if not isinstance(history, list) or not all(isinstance(step, dict) for step in history):
        raise FormatError("its history is not a list of objects", source)
    made = [step for step in history if not step.get("empty_layer")]
    for step in made[:-1]:
        step["empty_layer"] = True
    if not made:
        history.append({"created_by": "stargz image convert --flatten"})


# --- manifests --------------------------------------------------------------------------


def layer_descriptor(entry: Descriptor, new: NewLayer, types: Types) -> dict[str, Any]:
    """The descriptor of a converted layer, in the place of `entry`."""
    annotations = {
        key: text
        for key, text in entry.annotations.items()
        if key in new.annotations or not is_of_format(key)
    }
    if _UNCOMPRESSED in annotations:
        annotations[_UNCOMPRESSED] = new.diff_id
    annotations |= new.annotations
    found = dict(entry.json)
    if not new.kept:
        found.pop("urls", None)
    media_type = types.zstd_layer if new.zstd else types.layer
    return annotated(_described(found, media_type, new.digest, new.size), annotations)


def same_layer(entry: Descriptor, types: Types) -> dict[str, Any]:
    """The descriptor of a layer that stays as it is."""
    known = types.same.get(entry.media_type)
    return entry.json | {"mediaType": known} if known else entry.json


def unindexed_layer(entry: Descriptor, types: Types) -> dict[str, Any]:
    """The same for one that a TOC cannot hold: what is said of a TOC of it is not true."""
    kept = {key: text for key, text in entry.annotations.items() if not is_of_format(key)}
    return same_layer(entry.annotated(kept) if kept != entry.annotations else entry, types)


def rewrite_manifest(
    manifest: Manifest,
    config: Written,
    layers: Sequence[dict[str, Any]],
    types: Types,
    about: About,
) -> Written:
    """An image's manifest with another config and other layers (their descriptors)."""
    check_keys(manifest.json, ("mediaType", "config", "layers", "subject"), manifest.source)
    old = manifest.json
    described = dict(old["config"])
    if config.changed:
        described = _described(described, types.config, config.digest, len(config.data))
    elif described.get("mediaType") in types.same:
        described["mediaType"] = types.config
    changes = {"mediaType": types.manifest, "config": described, "layers": list(layers)}
    made = old | changes | _subject(manifest, about)
    if other_layers(manifest, layers):
        made = _without_soci(made)
    if manifest.media_type == types.manifest and made == {"mediaType": types.manifest} | old:
        return unchanged(manifest)
    return written(made, types.manifest, manifest.source)


def other_layers(manifest: Manifest, layers: Sequence[dict[str, Any]]) -> bool:
    """Whether the blobs of an image are not those that they were."""
    return [entry["digest"] for entry in layers] != [entry.digest for entry in manifest.layers]


def rewrite_copy(manifest: Manifest, about: About) -> Written:
    """What is no image: it stays as it is, but for the `subject` that it is about."""
    subject = _subject(manifest, about)
    if not subject:
        return unchanged(manifest)
    check_keys(manifest.json, ("subject",), manifest.source)
    return written(manifest.json | subject, manifest.media_type, manifest.source)


def rewrite_index(
    index: Manifest,
    children: Sequence[tuple[Descriptor, Written]],
    media_type: str,
    about: About,
    no_soci: Collection[str] = (),
    dump: Dump | None = None,
) -> Written:
    """An index that lists `children`: those entries of it that are to stay, and what became of
    each. Entries that are about images whose layers became others (by their old digests in
    `no_soci`) have no SOCI index any more. `dump` writes its JSON."""
    check_keys(index.json, ("mediaType", "manifests", "subject"), index.source)
    entries = []
    for entry, child in children:
        found = dict(entry.json)
        if child.changed:
            found = _described(found, child.media_type, child.digest, len(child.data))
        now = {
            key: about[digest].digest
            for key in ABOUT
            if (digest := entry.annotations.get(key, "")) in about
        }
        if now:
            found["annotations"] = entry.annotations | now
        if entry.digest in no_soci:
            found = _without_soci(found)
        entries.append(found)
    changes = {"mediaType": media_type, "manifests": entries}
    made = index.json | changes | _subject(index, about)
    if index.media_type == media_type and made == {"mediaType": media_type} | index.json:
        return unchanged(index)
    return written(made, media_type, index.source, dump)


def toc_image(tocs: Mapping[str, Descriptor], source: str) -> Written:
    """The manifest of the image of external TOCs, which are given by the digests of their layers.
    Readers go by the annotation; its config is none."""
    if len(tocs) > MAX_LAYERS:
        raise FormatError(f"{len(tocs)} external TOCs are more than {MAX_LAYERS} layers", source)
    ordered = sorted((toc.digest, layer, toc.size) for layer, toc in tocs.items())
    made = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG,
            "digest": digest_of(NO_CONFIG),
            "size": len(NO_CONFIG),
        },
        "layers": [
            {
                "mediaType": OCI_LAYER,
                "digest": digest,
                "size": size,
                "annotations": {LAYER_DIGEST: layer},
            }
            for digest, layer, size in ordered
        ],
    }
    return written(made, OCI_MANIFEST, source)


def unchanged(manifest: Manifest) -> Written:
    """A manifest or an index as it is."""
    return Written(manifest.data, manifest.media_type, manifest.digest, False)


def _subject(manifest: Manifest, about: About) -> dict[str, Any]:
    """The `subject` of a manifest, if that became another."""
    new = about.get(manifest.subject or "")
    if new is None:
        return {}
    found = dict(manifest.json["subject"])
    return {"subject": _described(found, new.media_type, new.digest, len(new.data))}


def _without_soci(found: dict[str, Any]) -> dict[str, Any]:
    """A manifest or its descriptor that names no SOCI index."""
    annotations = found.get("annotations")
    if not isinstance(annotations, dict) or SOCI_INDEX not in annotations:
        return found
    return annotated(found, {key: text for key, text in annotations.items() if key != SOCI_INDEX})


def _described(found: dict[str, Any], media_type: str, digest: str, size: int) -> dict[str, Any]:
    """A descriptor of other content; what was embedded of the old one is dropped."""
    if digest != found.get("digest"):
        found.pop("data", None)
    return found | {"mediaType": media_type, "digest": digest, "size": size}


def written(
    value: dict[str, Any], media_type: str, source: str, dump: Dump | None = None
) -> Written:
    """A document that became another; FormatError if it is too large now."""
    data = (dump or _dump)(value, source)
    if len(data) > MAX_MANIFEST_SIZE:
        raise FormatError(f"converted: {too_large(len(data))}", source)
    return Written(data, media_type, digest_of(data), True)


def _dump(value: object, source: str) -> bytes:
    """Compact JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can write
            return json.dumps(value, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its JSON cannot be written again ({error})", source) from None
