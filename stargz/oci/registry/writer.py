"""A repository of a registry as a destination."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, suppress

from stargz.digests import digest_of, is_digest
from stargz.errors import FormatError, SourceError, StargzError, UsageError
from stargz.oci.formats import go_json
from stargz.oci.formats.manifest import (
    INDEXES,
    MANIFESTS,
    MAX_MANIFEST_SIZE,
    OCI_INDEX,
    Descriptor,
    Manifest,
    check_bytes,
    parse_manifest,
    too_large,
)
from stargz.oci.formats.reference import DEFAULT_TAG, ImageReference, LayoutReference, Reference
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.companions import referrers_tag
from stargz.oci.registry.failures import as_registry_error, failure, is_fresh
from stargz.oci.registry.sessions import WRITE, Uploads, check_stated, has, location
from stargz.oci.registry.upload import BlobUpload
from stargz.sources.client import Response
from stargz.sources.tries import TransientError, Tries

_INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
_ACCEPT = {"Accept": ", ".join((*MANIFESTS, *INDEXES))}
_log = logging.getLogger("stargz")


class RegistryDestination:
    """A Destination in a registry; mirrors are never asked nor written to.

    `owned` says that the client is nobody else's; `uploads` is told of upload sessions.
    """

    at_once = False

    def __init__(
        self,
        client: RegistryClient,
        reference: Reference,
        *,
        owned: bool = False,
        uploads: Uploads | None = None,
    ) -> None:
        if reference.digest is not None:
            raise UsageError(
                f"docker://{reference}: what is written there gets another digest; give a tag"
            )
        self.reference: Reference | LayoutReference
        self.reference = self._reference = reference.with_tag(reference.tag or DEFAULT_TAG)
        self.name: str = f"docker://{self._reference}"
        self._client = client
        self._owned = owned
        self._uploads = uploads
        self._host = client.hosts.own(reference)

    def has_blob(self, entry: Descriptor) -> bool:
        """See Destination.has_blob."""
        answer = self._request("HEAD", f"blobs/{entry.digest}")
        if answer.status in (401, 403):
            raise failure(answer, self._reference.with_digest(entry.digest), writing=True)
        return has(answer, entry.size)

    def mount_blob(self, entry: Descriptor, other: ImageReference) -> bool:
        """See Destination.mount_blob."""
        mine = self._reference
        if not isinstance(other, Reference) or other.registry != mine.registry:
            return False
        with self._turn(entry.digest):
            return self._mount(entry, other)

    def _mount(self, entry: Descriptor, other: Reference) -> bool:
        mine = self._reference
        try:
            there = self.has_blob(entry)  # a mount would write its link again, below other readers
            if there or other.repository == mine.repository:
                return there
            scopes = (
                self._host.scope(mine.repository, WRITE),
                self._host.scope(other.repository, "pull"),
            )
            answer = self._request(
                "POST",
                f"blobs/uploads/?mount={entry.digest}&from={other.repository}",
                body=b"",
                scope=" ".join(scopes),
            )
            if answer.status == 201:
                check_stated(answer, entry.digest, self.name)
                return True
            if answer.status == 202:  # an upload began instead
                url = location(answer, self._host, self._client, mine)
                with suppress(StargzError):
                    self._request("DELETE", url)
        except StargzError:
            pass
        return False

    def writer(self, size: int | None = None) -> BlobUpload:
        """See Destination.writer."""
        return BlobUpload(self._client, self._reference, size, self._uploads)

    def write_blob(self, data: bytes, digest: str) -> None:
        """See Destination.write_blob."""
        check_bytes(data, digest, self.name)
        with self.writer(len(data)) as writer:
            writer.write(data)
            writer.commit(digest)

    def digest(self) -> str | None:
        """See Destination.digest."""
        path = f"manifests/{self._reference.target}"
        for method in ("HEAD", "GET"):
            answer = self._request(method, path, headers=_ACCEPT)
            if answer.status == 404:
                return None
            stated = answer.headers.get("Docker-Content-Digest", "").strip()
            if answer.status == 200 and is_digest(stated):
                return stated
        if answer.status != 200:
            raise failure(answer, self._reference, writing=answer.status in (401, 403))
        return digest_of(answer.data)

    def root(self, suffix: str = "") -> Manifest | None:
        """See Destination.root."""
        return self._read(self._named(suffix))

    def _named(self, suffix: str) -> Reference:
        return self._reference.with_tag(self._reference.target + suffix)

    def manifest(self, entry: Descriptor) -> Manifest:
        """See Destination.manifest."""
        reference = self._reference.with_digest(entry.digest)
        found = self._read(reference, entry.media_type)
        if found is None:
            raise SourceError(f"docker://{reference}: it is listed, but not there")
        return found

    def _read(self, reference: Reference, media_type: str = "") -> Manifest | None:
        path = f"manifests/{reference.target}"
        answer = self._request("GET", path, headers=_ACCEPT, reference=reference)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise failure(answer, reference)
        stated = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        kind = media_type or stated
        name = f"docker://{reference}"
        return parse_manifest(answer.data, name, digest=reference.digest, media_type=kind)

    def is_whole(self, digest: str) -> bool:
        """See Destination.is_whole: a registry has what its manifests refer to."""
        return True

    def write_manifest(self, data: bytes, media_type: str, *, named: bool, suffix: str = "") -> str:
        """See Destination.write_manifest."""
        digest = digest_of(data)
        reference = self._named(suffix) if named else self._reference.with_digest(digest)
        with self._turn(digest):
            if named or not self._has_manifest(f"manifests/{reference.target}", digest):
                self._put_manifest(reference, data, media_type)
        return digest

    def write_referrer(self, data: bytes, media_type: str, kind: str) -> list[str]:
        """See Destination.write_referrer. A registry that has the API for them says so when it
        gets one; of any other the index of a tag lists them (OCI distribution specification 1.1,
        "Pushing Manifests with Subject")."""
        digest = digest_of(data)
        subject = parse_manifest(data, self.name).subject or ""
        with self._turn(digest):
            answer = self._put_manifest(self._reference.with_digest(digest), data, media_type)
        if answer.headers.get("OCI-Subject", "").strip() == subject:
            try:
                listed = self._client.referrers(self._reference, subject, optional=True)
            except (SourceError, FormatError) as error:
                _log.warning(
                    "%s: written, but whether %s has another of its kind (%s), which readers may "
                    "take instead, could not be found out: %s",
                    self.name,
                    subject,
                    kind,
                    error,
                )
                return []
            same = [one.digest for one in listed if one.json.get("artifactType") == kind]
            return [one for one in same if one != digest]
        entry = {
            "mediaType": media_type,
            "digest": digest,
            "size": len(data),
            "artifactType": kind,
        }
        reference = self._reference.with_tag(referrers_tag(subject))
        with self._turn(subject):
            index = self._read(reference)
            found = index.json if index is not None else _INDEX
            if not isinstance(found.get("manifests"), list):
                raise FormatError(
                    "the tag by which what is about an image is found names no index of that: "
                    "delete it, or give it another name",
                    str(reference),
                )
            others = [
                one.json
                for one in (index.manifests if index is not None else ())
                if one.digest != digest and one.json.get("artifactType") != kind
            ]
            listing = go_json.dump({**found, "manifests": [*others, entry]}, str(reference))
            if index is None or listing != index.data:
                self._put_manifest(reference, listing, OCI_INDEX)
        return []

    def _put_manifest(self, reference: Reference, data: bytes, media_type: str) -> Response:
        if len(data) > MAX_MANIFEST_SIZE:
            raise FormatError(too_large(len(data)), str(reference))
        digest = digest_of(data)
        path = f"manifests/{reference.target}"
        headers = {"Content-Type": media_type}
        budget = Tries(self._client.http, str(reference))
        while True:
            answer = self._request("PUT", path, headers=headers, body=data, reference=reference)
            if answer.status in (200, 201, 202, 204):
                break
            error = failure(answer, reference, writing=True)
            if not is_fresh(answer):
                raise error
            with as_registry_error():
                budget.again(TransientError(error.message, status=error.status))
        check_stated(answer, digest, str(reference), "the manifest")
        return answer

    def _has_manifest(self, path: str, digest: str) -> bool:
        answer = self._request("HEAD", path, headers=_ACCEPT)
        stated = answer.headers.get("Docker-Content-Digest", "").strip()
        return answer.status == 200 and stated in ("", digest)

    def _turn(self, digest: str) -> AbstractContextManager[None]:
        return self._client.turns.of(self._host.url, self._reference.repository, digest)

    def interrupt(self) -> None:
        """See Destination.interrupt."""
        if self._owned:
            self._client.close()

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        scope: str | None = None,
        reference: Reference | None = None,
    ) -> Response:
        """`reference` is what an error calls it."""
        reference = reference or self._reference
        if path.startswith("blobs/sha"):
            reference = reference.with_digest(path.removeprefix("blobs/"))
        return self._client.request(
            reference,
            method,
            path,
            endpoint=self._host,
            actions=WRITE,
            headers=headers,
            body=body,
            limit=MAX_MANIFEST_SIZE,
            follow=method in ("GET", "HEAD"),
            scope=scope,
        )
