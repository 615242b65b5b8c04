"""Manifests, indexes and descriptors: bytes in, checked plain objects out.

OCI image specification 1.1 (`manifest.md`, `image-index.md`, `descriptor.md`) and Docker's
schema 2, which has the same fields. Whatever a manifest says is taken for hostile: sizes,
digests and names are checked here, before anything uses them. Descriptors' `urls` are never
read: content comes from the repository that was asked for, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stargz.descriptors import UNCOMPRESSED_SIZE, ZSTD_CHUNKED
from stargz.digests import digest_of, is_digest
from stargz.errors import ArtifactError, DigestError, FormatError

MAX_MANIFEST_SIZE = 4 << 20
MAX_CONFIG_SIZE = 8 << 20
MAX_INDEX_NESTING = 4
MAX_LAYERS = 4096  # of one manifest: as many as a tree can have
MAX_MANIFESTS = 10_000  # of one image: indexes of indexes could name more than can be read

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)

KNOWN = frozenset((*MANIFESTS, *INDEXES, ""))  # what is read; "": its content tells what it is

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

LAYER_DIGEST = "containerd.io/snapshot/stargz/layer.digest"
# What an image of external TOCs is named, behind the name of the image that it is of.
EXTERNAL = "-esgztoc"
REF_NAME = "org.opencontainers.image.ref.name"
# "true" in an index's entry of an image with layers in zstd: podman and others prefer that.
ZSTD_INSTANCE = "io.github.containers.compression.zstd"
REFERENCE_DIGEST = "vnd.docker.reference.digest"
_REFERENCE_TYPE = "vnd.docker.reference.type"

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_ZSTD_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_ZSTD_LAYER = "application/vnd.docker.image.rootfs.diff.tar.zstd"
ZSTD_LAYERS = (OCI_ZSTD_LAYER, DOCKER_ZSTD_LAYER)

_DOCKER, _OCI = "application/vnd.docker.image.rootfs", "application/vnd.oci.image.layer"
_TARS = {
    DOCKER_LAYER: OCI_LAYER,
    f"{_DOCKER}.diff.tar": f"{_OCI}.v1.tar",
    DOCKER_ZSTD_LAYER: OCI_ZSTD_LAYER,
}
# Docker's media types, and those that mean the same in OCI's documents.
OCI_TYPES = {
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_LIST: OCI_INDEX,
    DOCKER_CONFIG: OCI_CONFIG,
    **_TARS,
    f"{_DOCKER}.foreign.diff.tar": f"{_OCI}.nondistributable.v1.tar",
    f"{_DOCKER}.foreign.diff.tar.gzip": f"{_OCI}.nondistributable.v1.tar+gzip",
}
DOCKER_TYPES = {oci: docker for docker, oci in OCI_TYPES.items()}

# What SOCI calls an index of an image's layers, and where the two name each other.
SOCI_V1 = "application/vnd.amazon.soci.index.v1+json"
SOCI_V2 = "application/vnd.amazon.soci.index.v2+json"
SOCI_INDEX = "com.amazon.soci.index-digest"
SOCI_IMAGE = "com.amazon.soci.image-manifest-digest"
ABOUT = (REFERENCE_DIGEST, SOCI_IMAGE)  # by these an entry of an index is about another

Kind = Literal["manifest", "index", "other"]
LayerKind = Literal["tar", "foreign", "other"]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of one blob or manifest. `size` is in bytes; `json` is the
    descriptor as it stands, with the fields that are not known here."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)
    json: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def platform(self) -> dict[str, Any] | None:
        """The platform that an index gives for a manifest, as it stands."""
        found = self.json.get("platform")
        return found if isinstance(found, dict) else None

    @property
    def uncompressed_size(self) -> int | None:
        """Bytes that a layer inflates to, as its annotation has it."""
        text = self.annotations.get(UNCOMPRESSED_SIZE, "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None

    def annotated(self, annotations: dict[str, str]) -> Descriptor:
        """The same with other annotations."""
        return replace(self, annotations=annotations, json=annotated(self.json, annotations))

    def check(self, data: bytes, source: str) -> None:
        """Raise FormatError or DigestError unless `data` is what is described."""
        if len(data) != self.size:
            raise FormatError(
                f"{self.digest} has {len(data)} bytes, its descriptor says {self.size}", source
            )
        check_bytes(data, self.digest, source)


def annotated(found: Mapping[str, Any], annotations: dict[str, str]) -> dict[str, Any]:
    """A manifest, a descriptor or the like with other annotations."""
    if annotations:
        return {**found, "annotations": annotations}
    return {key: value for key, value in found.items() if key != "annotations"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index: its bytes, their digest, and the object in them."""

    data: bytes = field(repr=False)
    digest: str
    media_type: str
    json: dict[str, Any] = field(repr=False)
    source: str = ""

    @property
    def kind(self) -> Kind:
        """ "manifest", of one image, or "index", of several manifests; "other" for what is not
        known (see `Repository.other`)."""
        if self.media_type not in KNOWN:
            return "other"
        return "index" if "manifests" in self.json else "manifest"

    @property
    def config(self) -> Descriptor:
        """The descriptor of the image's config."""
        return descriptor(self.json.get("config"), self.source, "config")

    @property
    def layers(self) -> list[Descriptor]:
        """The layers, lowest first."""
        return list(_descriptors(self.json, "layers", self.source))

    @property
    def manifests(self) -> list[Descriptor]:
        """What an index lists."""
        return list(_descriptors(self.json, "manifests", self.source))

    @property
    def subject(self) -> str | None:
        """The digest of the manifest that it says it is about."""
        found = self.json.get("subject")
        digest = found.get("digest") if isinstance(found, dict) else None
        return digest if isinstance(digest, str) else None

    @property
    def annotations(self) -> dict[str, Any]:
        """Its own."""
        found = self.json.get("annotations")
        return found if isinstance(found, dict) else {}

    @property
    def artifact_type(self) -> str:
        """What it says that it is, instead of an image; "" for an image, which may have an
        artifactType beside an image's config and layers."""
        config = self.json.get("config")
        kind = config.get("mediaType") if isinstance(config, dict) else None
        stated = self.json.get("artifactType")
        ordinary = self.kind == "manifest" and kind in (OCI_CONFIG, DOCKER_CONFIG)
        if stated and not (ordinary and any(layer_kind(one) == "tar" for one in self.layers)):
            return str(stated)
        if kind not in (None, "", OCI_CONFIG, DOCKER_CONFIG):
            return str(kind)
        return self.manifests[-1].media_type if self.lists_blobs else ""

    @property
    def lists_blobs(self) -> bool:
        """Whether it is an index, and nothing that it lists a manifest: BuildKit's cache lists
        layers and the like."""
        entries = self.manifests if self.kind == "index" else []
        return bool(entries) and KNOWN.isdisjoint(entry.media_type for entry in entries)

    @property
    def is_artifact(self) -> bool:
        """Whether it says that it is no image but something that an image refers to."""
        return bool(self.artifact_type)

    def check_image(self, name: str) -> None:
        """Raise ArtifactError for what is no image."""
        kind = self.artifact_type
        if kind:
            raise ArtifactError(f"it is no image, but an artifact ({kind[:100]!r})", name)


def check_bytes(data: bytes, digest: str, source: str, what: str = "") -> None:
    """Raise DigestError unless `data` has this digest."""
    actual = digest_of(data, digest)
    if actual != digest:
        raise DigestError(what or "its content", digest, actual, source)


class _TwiceError(Exception):
    """Of an object with a key that is there twice: Go takes the last of some values, and puts
    others together."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key)
        found[key] = value
    return found


def load_json(data: bytes, source: str) -> dict[str, Any]:
    """The JSON object in `data`, in which no key is twice; FormatError for anything else."""
    try:
        found = json.loads(data, object_pairs_hook=_once)
    except _TwiceError as twice:
        raise FormatError(f"the key {twice.args[0]!r:.60} is there twice", source) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON ({error})", source) from None
    if not isinstance(found, dict):
        raise FormatError("not a JSON object", source)
    return found


# What a manifest, a descriptor and a platform have that is read or written here.
_FIELDS = frozenset(
    (
        *("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "subject"),
        *("config", "layers", "manifests", "fsLayers"),
        *("platform", "os", "architecture", "variant", "os.version", "os.features"),
    )
)


# What of them decides what an image is, and so may be written in one way only.
_DESCRIPTOR = ("mediaType", "digest", "size", "annotations", "platform", "artifactType")
_DOCUMENT = (
    *("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject"),
    *("annotations", "fsLayers"),
)


def without_nulls(value: Any) -> Any:
    """A manifest or an index whose known fields are absent where they are null, which is Go's for
    what is empty."""
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: without_nulls(one) if key in _FIELDS else one
        for key, one in value.items()
        if one is not None or key not in _FIELDS
    }


def parse_manifest(
    data: bytes, source: str, *, digest: str | None = None, media_type: str | None = None
) -> Manifest:
    """Check and parse a manifest or an index.

    `digest` is what it must hash to; `media_type` what the registry or the descriptor calls it,
    which must agree with what it calls itself. Raises FormatError and DigestError.
    """
    if len(data) > MAX_MANIFEST_SIZE:
        raise FormatError(too_large(len(data)), source)
    if digest is not None:
        check_bytes(data, digest, source, "the manifest")
    given = load_json(data, source)
    try:
        found = without_nulls(given)
    except RecursionError:
        raise FormatError("nested too deeply", source) from None
    check_keys(given, _DOCUMENT, source)
    stated = found.get("mediaType")
    if stated is not None and not isinstance(stated, str):
        raise FormatError("its mediaType is not a text", source)
    known = media_type if media_type in (*MANIFESTS, *INDEXES) else None
    if stated and known and stated != known:
        # One document that is an image to one reader and an index to another (CVE-2021-41190).
        raise FormatError(f"it calls itself {stated[:100]}, but was given as {known}", source)
    if found.get("schemaVersion") == 1 and "fsLayers" in given:
        raise FormatError(
            "a manifest of schema 1, of a Docker before 1.10: pull it with a Docker that still "
            "can, and push it anew",
            source,
        )
    lists = "manifests" in found or ("manifests" in given and "layers" not in given)
    kind = stated or known or (OCI_INDEX if lists else OCI_MANIFEST)
    if kind not in (*MANIFESTS, *INDEXES):
        raise FormatError(
            f"{kind[:100]!r} is not a manifest of an image (OCI, or Docker schema 2)", source
        )
    wrong = ("layers", "config", "fsLayers") if kind in INDEXES else ("manifests", "fsLayers")
    for key in wrong:
        if key in found:
            raise FormatError(f"{key!r} does not belong into {kind}", source)
    needed = "manifests" if kind in INDEXES else "layers"
    if needed not in given:
        raise FormatError(f"no {needed!r} in it: it is no {kind}", source)
    found.setdefault(needed, [])
    return Manifest(data, digest or digest_of(data), kind, found, source)


def too_large(size: int | None) -> str:
    """The text of the error for a manifest over the limit."""
    is_of = "is over" if size is None else f"of {size} bytes is over"
    limit = f"{MAX_MANIFEST_SIZE} bytes ({MAX_MANIFEST_SIZE >> 20} MiB)"
    return f"the manifest {is_of} the limit of {limit}"


def descriptor(value: object, source: str, where: str) -> Descriptor:
    """A checked descriptor; FormatError says what of it is wrong."""
    if not isinstance(value, dict):
        raise FormatError(f"{where} is not a descriptor", source)
    check_keys(value, _DESCRIPTOR, source)
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise FormatError(f"{where}: {digest!r:.200} is not a digest that can be checked", source)
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise FormatError(f"{where} {digest}: {size!r:.40} is not a size in bytes", source)
    media_type = value.get("mediaType") or ""
    stated = value.get("annotations") or {}
    if not isinstance(media_type, str):
        raise FormatError(f"{where} {digest}: its mediaType is not a text", source)
    if not isinstance(stated, dict):
        raise FormatError(f"{where} {digest}: its annotations are not an object", source)
    annotations = {key: text for key, text in stated.items() if text is not None}
    if not all(isinstance(text, str) for text in annotations.values()):
        raise FormatError(f"{where} {digest}: its annotations are not texts", source)
    return Descriptor(media_type, digest, size, annotations, value)


def _descriptors(found: dict[str, Any], key: str, source: str) -> Iterator[Descriptor]:
    values = found.get(key)
    if not isinstance(values, list):
        raise FormatError(f"{key!r} is not a list", source)
    if key == "layers" and len(values) > MAX_LAYERS:
        raise FormatError(f"{len(values)} layers are more than {MAX_LAYERS}", source)
    for number, value in enumerate(values):
        yield descriptor(value, source, f"{key}[{number}]")


# --- what an image is -------------------------------------------------------------------


def layer_kind(entry: Descriptor) -> LayerKind:
    """ "tar" for what can be converted, "foreign" for what may not be distributed (and is, as a
    rule, not in the registry), "other" for what is not known: encrypted layers, signatures."""
    media_type = entry.media_type
    if not media_type or media_type in _TARS or media_type in _TARS.values():
        return "tar"
    if media_type.startswith("application/vnd.") and (
        ".nondistributable." in media_type or ".foreign." in media_type
    ):
        return "foreign"
    return "other"


def is_zstd_chunked(entry: Descriptor) -> bool:
    """Whether a layer's annotations say that it is zstd:chunked."""
    return any(key.startswith(ZSTD_CHUNKED) for key in entry.annotations)


def about(entry: Descriptor) -> str | None:
    """The digest of the manifest that an entry of an index says it is about."""
    return next((entry.annotations[key] for key in ABOUT if key in entry.annotations), None)


def is_zstd_instance(entry: Descriptor) -> bool:
    """Whether an index says that an image that it lists is in zstd."""
    return entry.annotations.get(ZSTD_INSTANCE) == "true"


def in_zstd(manifest: Manifest) -> bool:
    """Whether an image has a layer in zstd, which not every client can pull."""
    return any(one.media_type in ZSTD_LAYERS for one in manifest.layers)


def is_attestation(entry: Descriptor) -> bool:
    """Whether an index lists this as something about its other manifests, and not as an image."""
    platform = entry.platform or {}
    return (
        _REFERENCE_TYPE in entry.annotations
        or bool(entry.json.get("artifactType"))
        or (platform.get("os") == "unknown" and platform.get("architecture") == "unknown")
    )


def kind_of(entry: Descriptor) -> str:
    """What an index, or a registry, says of a manifest that is no image."""
    stated = entry.json.get("artifactType") or entry.annotations.get(_REFERENCE_TYPE)
    return (stated if isinstance(stated, str) and stated else entry.media_type)[:200]


def is_toc_image(manifest: Manifest) -> bool:
    """Whether a manifest is one of external TOCs, and of nothing else."""
    layers = manifest.layers if manifest.kind == "manifest" else []
    return bool(layers) and all(LAYER_DIGEST in entry.annotations for entry in layers)


def is_image(manifest: Manifest) -> bool:
    """Whether a manifest is an image: no artifact, and with a layer that is one, if any."""
    if manifest.is_artifact:
        return False
    layers = manifest.layers
    return (
        not layers
        or any(layer_kind(entry) != "other" for entry in layers)
        or any(entry.media_type.endswith("+encrypted") for entry in layers)
    )


def diff_ids(config: Mapping[str, Any], count: int, source: str) -> list[str]:
    """The config's DiffIDs, one for each of `count` layers; FormatError if that does not hold."""
    check_keys(config, ("rootfs", "history"), source)
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if isinstance(rootfs, dict):
        check_keys(rootfs, ("diff_ids",), source)
    if found is None and not count:
        return []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise FormatError("its rootfs.diff_ids are not a list of digests", source)
    if len(found) != count:
        raise FormatError(f"it has {len(found)} diff_ids, but the manifest {count} layers", source)
    return found


def check_keys(found: Mapping[str, Any], known: Sequence[str], source: str) -> None:
    """Refuse keys that differ from known ones only in case: Go's readers take either, and a long s
    for an s."""
    folded = {key.casefold(): key for key in known}
    for key in found:
        meant = folded.get(key.casefold())
        if meant is not None and key != meant:
            raise FormatError(f"the key {key!r:.60} stands for {meant!r} to some readers", source)
