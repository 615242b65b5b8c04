"""What refers to an image's manifest by digest and is kept apart from it: signatures and the like.

Two conventions: referrers (OCI distribution specification 1.1: an API, and where a registry has
none, the tag "sha256-HEX" of an index), and cosign's tags "sha256-HEX.sig" and so on. Companions
are not needed to convert an image: what cannot be had is not there. `referrers` tells the two
apart.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from stargz.errors import DigestError, FormatError, RegistryError, SourceError, UsageError
from stargz.oci.formats.manifest import Descriptor, Manifest, kind_of
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.client import RegistryClient

_TAG = re.compile(r"(?:sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})(?:\.([A-Za-z0-9_.-]+))?")
_KINDS = {"sig": "cosign signature", "att": "cosign attestation", "sbom": "cosign SBOM"}
_ERRORS = (SourceError, FormatError, DigestError, UsageError)
_KEPT = 256  # repositories whose tags are kept in mind
_WITHOUT = 4096  # ... and that they have no API for referrers
# That has an answer for every digest (200): these say that there is no such path. What else it may
# be answered (credentials, too often, a fault) says nothing about what it has.
_NO_API = (400, 404, 405, 406, 501)


@dataclass(frozen=True, slots=True)
class Companion:
    """Something that refers to a manifest by its digest."""

    name: str  # the reference under which it is found
    kind: str  # its artifact type, or what its tag says: "cosign signature"
    digest: str | None = None


def is_companion_tag(tag: str) -> bool:
    """Whether a tag is made of the digest of what it belongs to."""
    return bool(_TAG.fullmatch(tag))


def from_tags(
    digest: str,
    tags: Iterable[str],
    name: Callable[[str], str],
    index: Callable[[str], Manifest],
    *,
    fallback: bool = True,
) -> list[Companion]:
    """What tags say belongs to the manifest of a digest. `name` writes the reference of a tag
    or "@" and a digest; `index` reads the index of the referrers' tag, unless `fallback` is
    false."""
    base = referrers_tag(digest)
    found: list[Companion] = []
    for tag in sorted(tags):
        if tag == base and fallback:
            try:
                found += from_index(index(tag).manifests, name)
            except _ERRORS:
                found.append(Companion(name(tag), "referrers"))
        elif tag.startswith(f"{base}."):
            suffix = tag[len(base) + 1 :]
            found.append(Companion(name(tag), _KINDS.get(suffix, f"cosign {suffix}")))
    return found


def from_index(entries: Iterable[Descriptor], name: Callable[[str], str]) -> list[Companion]:
    """What an index of referrers lists."""
    return [Companion(name(f"@{entry.digest}"), kind_of(entry), entry.digest) for entry in entries]


def kind_of_manifest(manifest: Manifest) -> str:
    """What a referrer is, as itself says: its artifactType, else its config's media type."""
    config = manifest.json.get("config")
    stated = manifest.json.get("artifactType") or (
        config.get("mediaType") if isinstance(config, dict) else None
    )
    return (stated if isinstance(stated, str) and stated else manifest.media_type)[:200]


class _Known:
    """What was learned of one registry client's repositories; each is asked for once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.locks: dict[str, threading.Lock] = {}
        self.tags: dict[str, frozenset[str]] = {}
        self.without: dict[str, None] = {}  # repositories that have no referrers API


_known: weakref.WeakKeyDictionary[RegistryClient, _Known] = weakref.WeakKeyDictionary()
_known_lock = threading.Lock()


def referrer(entry: Descriptor, manifest: Manifest) -> Descriptor:
    """A descriptor that says what it is, as lists of referrers have it."""
    if entry.json.get("artifactType"):
        return entry
    return replace(entry, json={**entry.json, "artifactType": kind_of_manifest(manifest)})


def referrers_tag(digest: str) -> str:
    """The tag of the index of referrers, where a registry has no API for them."""
    return digest.replace(":", "-", 1)


def in_registry(client: RegistryClient, reference: Reference, digest: str) -> list[Companion]:
    """The companions of a digest in a reference's repository: one request to the referrers API
    (none after it was found to have none), and one list of tags for each repository."""

    def name(target: str) -> str:
        return f"docker://{reference.name}{target if target[0] == '@' else f':{target}'}"

    known = _known_of(client)
    try:
        listed = _by_api(client, reference, digest, known, optional=True)
    except _ERRORS:
        listed = None
    return from_index(listed or (), name) + from_tags(
        digest,
        _tags(client, reference, known),
        name,
        lambda tag: client.manifest(reference.with_tag(tag)),
        fallback=listed is None,
    )


def referrers(
    client: RegistryClient, reference: Reference, digest: str, *, optional: bool = False
) -> list[Descriptor]:
    """What is about the manifest of a digest, by the API, else by its tag; RegistryError,
    FormatError and DigestError if that could not be found out. `optional` is that of
    `Client.request`."""
    refused = None
    try:
        listed = _by_api(client, reference, digest, _known_of(client), optional=optional)
        if listed is not None:
            return listed
    except RegistryError as error:
        if error.status not in (401, 403):
            raise
        refused = error  # what stands before the registry may know images' paths alone
    try:
        tag = reference.with_tag(referrers_tag(digest))
        found = client.manifest(tag, optional=optional)
        return found.manifests if found.kind == "index" else []  # a name that somebody else gave
    except RegistryError as error:
        if error.status != 404:
            raise
    if refused is not None:
        raise refused
    return []


def _known_of(client: RegistryClient) -> _Known:
    with _known_lock:
        return _known.setdefault(client, _Known())


def _by_api(
    client: RegistryClient, reference: Reference, digest: str, known: _Known, *, optional: bool
) -> list[Descriptor] | None:
    """What the referrers API tells; None if there is none."""
    if reference.name in known.without:
        return None
    try:
        return client.referrers(reference, digest, optional=optional)
    except RegistryError as error:
        if error.status not in _NO_API:
            raise
    with known.lock:
        known.without[reference.name] = None
        while len(known.without) > _WITHOUT:
            del known.without[next(iter(known.without))]
    return None


def _tags(client: RegistryClient, reference: Reference, known: _Known) -> frozenset[str]:
    key = reference.name
    with known.lock:
        lock = known.locks.setdefault(key, threading.Lock())
    with lock:
        tags = known.tags.get(key)
        if tags is None:
            try:
                tags = frozenset(tag for tag in client.tags(reference) if is_companion_tag(tag))
            except _ERRORS:
                tags = frozenset()
            with known.lock:
                known.tags[key] = tags
                while len(known.tags) > _KEPT:
                    oldest = next(iter(known.tags))
                    del known.tags[oldest]
                    known.locks.pop(oldest, None)
        return tags
