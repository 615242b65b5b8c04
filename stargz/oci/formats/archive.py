"""Images in the archives that `docker save` and its likes write (docker-archive:).

A tar, compressed or not, with a `manifest.json`: a list of {"Config", "RepoTags", "Layers"}, which
name other members (Docker's image specification 1.2, "Combined Image JSON + Filesystem Changeset
Format"). Layers are plain tars as a rule; newer ones are blobs of an OCI layout in the same tar,
compressed or not. They are read where they lie, but for those in xz or bzip2. What has no manifest
of a registry's kind gets one here (Docker schema 2).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

from stargz.compressions import HEAD
from stargz.digests import digest_of, is_digest
from stargz.errors import FormatError, SourceError, UsageError
from stargz.oci.formats.manifest import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    MAX_CONFIG_SIZE,
    MAX_LAYERS,
    MAX_MANIFEST_SIZE,
    Descriptor,
    Manifest,
    load_json,
    parse_manifest,
)
from stargz.oci.formats.packing import packing
from stargz.oci.formats.reference import parse_reference
from stargz.oci.formats.tar_file import MemberSource, TarFile, open_shared, unpack_member
from stargz.oci.formats.tar_index import Member
from stargz.sources import LocalSource
from stargz.sources.spool import Spool

_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_MAX_IMAGES = 100_000
_PIECE = 1 << 20
_BLOB = re.compile(r"(?:\./)*blobs/sha256/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image of manifest.json."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


class Archive:
    """An archive that is read; use `open_archive`. Any number of threads may use it.

    Raises FormatError and TarError, which name the file, and SourceError (no space).
    """

    def __init__(self, tar: TarFile) -> None:
        self.name: str = tar.name
        self._tar = tar
        self._images = self._read_images()
        self._spool: Spool | None = None  # of layers in xz and bzip2
        self._lock = threading.Lock()
        self._manifests: dict[int, Manifest] = {}
        self._blobs: dict[str, tuple[LocalSource, Member]] = {}  # by digest
        self._digests: dict[int, str] = {}  # by offset

    def refs(self) -> list[str]:
        """What the images are called, each at its place: a tag, or @N."""
        return [image.tags[0] if image.tags else f"@{n}" for n, image in enumerate(self._images)]

    def manifest(self, ref: str | None = None) -> Manifest:
        """The manifest of an image: Docker schema 2, made of what the archive says. SourceError
        that lists the images if `ref` means none of them."""
        number = self._number(ref)
        with self._lock:
            if number not in self._manifests:
                self._manifests[number] = self._make(number)
            return self._manifests[number]

    def open_blob(self, entry: Descriptor) -> MemberSource:
        """A config or layer of a manifest that was made; its digest is not checked."""
        found = self._blobs.get(entry.digest)
        name = f"{self.name}@{entry.digest}"
        if found is None:
            raise SourceError(f"{name}: no such blob in the archive")
        source, member = found
        if member.size != entry.size:
            raise FormatError(f"{member.size} bytes, where its descriptor says {entry.size}", name)
        return MemberSource(source, member.offset, member.size, name)

    def has_images(self) -> bool:
        """Whether there are any, and what they name is in the archive; TarError if it is not."""
        for image in self._images:
            for path in (image.config, *image.layers):
                self._tar.find(path)
        return bool(self._images)

    # --- what is in it ------------------------------------------------------------------

    def _read_images(self) -> list[_Entry]:
        members = self._tar.members
        if "manifest.json" not in members:
            what = "it has no manifest.json"
            if {"index.json", "oci-layout"} <= members.keys():
                what += f": it is an archive of an OCI layout; give oci-archive:{self._tar.path}"
            elif "repositories" in members:
                what += ": it was made by a Docker before 1.10; load it, and save it anew"
            raise FormatError(what, self.name)
        data = self._tar.read("manifest.json", MAX_MANIFEST_SIZE)
        where = f"{self.name}: manifest.json"
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"not JSON ({error})", where) from None
        if not isinstance(found, list) or len(found) > _MAX_IMAGES:
            raise FormatError("it is not a list of images", where)
        return [_entry(value, f"{where}: image {n}") for n, value in enumerate(found)]

    def _number(self, ref: str | None) -> int:
        count = len(self._images)
        if ref is None and count == 1:
            return 0
        if ref is not None:
            if ref.startswith("@"):
                if ref[1:].isdecimal() and int(ref[1:]) < count:
                    return int(ref[1:])
            else:
                wanted = _tag(ref)
                for number in reversed(range(count)):  # what was loaded last has the tag
                    if wanted in map(_tag, self._images[number].tags):
                        return number
        there = ", ".join(
            image.tags[0] if image.tags else f"@{n}" for n, image in enumerate(self._images[:40])
        )
        what = f"no image {ref!r}" if ref is not None else f"{count} images"
        hint = f"; name one: {self.name}:REF" if ref is None and count else ""
        raise SourceError(f"{self.name}: {what} in the archive, which has {there or 'none'}{hint}")

    # --- manifests ----------------------------------------------------------------------

    def _make(self, number: int) -> Manifest:
        image = self._images[number]
        config = self._tar.read(image.config, MAX_CONFIG_SIZE)
        where = f"{self.name}: {image.config!r:.200}"
        diff_ids = _diff_ids(load_json(config, where), where)
        if len(diff_ids) != len(image.layers):
            raise FormatError(
                f"the config has {len(diff_ids)} diff_ids for {len(image.layers)} layers", where
            )
        described = [
            self._layer(path, diff_id) for path, diff_id in zip(image.layers, diff_ids, strict=True)
        ]
        digest = digest_of(config)
        self._keep(digest, self._tar.find(image.config))
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "size": len(config), "digest": digest},
            "layers": described,
        }
        data = json.dumps(document, separators=(",", ":")).encode()
        return parse_manifest(data, self.name, media_type=DOCKER_MANIFEST)

    def _layer(self, path: str, diff_id: str) -> dict[str, Any]:
        member = self._tar.find(path)
        source = self._tar.source
        kind = packing(source.read_at(member.offset, min(HEAD, member.size)))
        digest = diff_id  # checked by whoever reads the layer whole
        if kind in ("gzip", "zstd"):
            named = _BLOB.fullmatch(path)
            digest = f"sha256:{named[1]}" if named else self._hash(member)
        elif kind:  # there is no media type for it: the layer is what is in it
            if diff_id not in self._blobs:
                where = f"{self.name}: {path!r:.200}"
                self._spool = self._spool or Spool(self.name, None)
                at, size = unpack_member(source, member, kind, self._spool, where)
                source = LocalSource(path, self._spool.fd, keep=self._spool)
                self._blobs[diff_id] = source, Member("file", at, size)
            source, member = self._blobs[diff_id]
            kind = None
        self._keep(digest, member, source)
        suffix = f".{kind}" if kind else ""
        return {"mediaType": f"{_LAYER}{suffix}", "size": member.size, "digest": digest}

    def _keep(self, digest: str, member: Member, source: LocalSource | None = None) -> None:
        _, known = self._blobs.setdefault(digest, (source or self._tar.source, member))
        if known.size != member.size:
            raise FormatError(
                f"two members of {known.size} and {member.size} bytes have one digest: {digest}",
                self.name,
            )

    def _hash(self, member: Member) -> str:
        if member.offset not in self._digests:
            state = hashlib.sha256()
            for at in range(0, member.size, _PIECE):
                size = min(_PIECE, member.size - at)
                state.update(self._tar.source.read_at(member.offset + at, size))
            self._digests[member.offset] = f"sha256:{state.hexdigest()}"
        return self._digests[member.offset]


def open_archive(path: str) -> AbstractContextManager[Archive]:
    """The archive at a path, shared by all who have it open at the same time (`open_shared`)."""
    return open_shared(path, "docker-archive", Archive)


# --- checks ---------------------------------------------------------------------------------


def _entry(value: object, where: str) -> _Entry:
    if not isinstance(value, dict):
        raise FormatError("not an object", where)
    config = value.get("Config")
    if not isinstance(config, str) or not config:
        raise FormatError("its Config is not the name of a member", where)
    layers = _texts(value.get("Layers"), where, "Layers")
    if len(layers) > MAX_LAYERS:
        raise FormatError(f"over {MAX_LAYERS} layers", where)
    return _Entry(config, _texts(value.get("RepoTags"), where, "RepoTags"), layers)


def _texts(value: object, where: str, key: str) -> tuple[str, ...]:
    found = [] if value is None else value
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise FormatError(f"its {key} is not a list of texts", where)
    return tuple(found)


def _diff_ids(config: dict[str, Any], where: str) -> list[str]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if found is None:
        found = []
    if not isinstance(found, list) or not all(is_digest(one) for one in found):
        raise FormatError("its rootfs.diff_ids is not a list of digests", where)
    return found


def _tag(text: str) -> str:
    """A tag as it can be compared: with registry and tag put in."""
    with suppress(UsageError):
        found = parse_reference(text)
        return f"{found.name}:{found.tag or 'latest'}"
    return text
