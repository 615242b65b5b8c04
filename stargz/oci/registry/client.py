"""The client of registries: manifests, blobs and tags, over HTTP. Uploads are in upload.py.

OCI distribution specification 1.1. All requests go through `RegistryClient.request`, which
finds the host (mirrors first), the scheme, and the authorization; it never sends that
anywhere else, since the HTTP client drops it where a redirect changes scheme, host or port.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stargz.digests import is_digest
from stargz.errors import RegistryError, SourceError
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
from stargz.oci.formats.reference import Reference, check_registry, is_repository, is_tag
from stargz.oci.registry.credentials import Credentials, CredentialStore
from stargz.oci.registry.failures import (
    as_registry_error,
    failure,
    missing,
    refuse_page,
    with_mirrors,
    words_of,
)
from stargz.oci.registry.fields import parse_links
from stargz.oci.registry.hosts import Endpoint, Hosts
from stargz.oci.registry.turns import Turns
from stargz.sources.client import Body, Client, Response, origin, target
from stargz.sources.tries import Tries

_ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
_MAX_BLOB = 64 << 20  # of a blob that is read into memory: configs, external TOCs
_MAX_PAGE = 4 << 20
_MAX_REFUSAL = 64 << 10
_MAX_PAGES = 1000
_MAX_TAGS = 1_000_000
_MAX_REPOSITORIES = 1_000_000
_MAX_REFERRERS = 10_000
_PAGE = 1000  # entries to ask for at once; registries refuse more
_MIRROR_TRIES = 2  # the registry itself is behind it

_log = logging.getLogger("stargz")


class RegistryClient:
    """Reads from registries, and writes to them; any number of threads may use it. Close it, or
    use `with`.

    `authfile` is the one file to take credentials from (see CredentialStore); `accounts` are used
    for the registries that they name, and `credentials` for every one, instead of any file's.
    `plain_http` has http spoken to all hosts, or to those named; to loopback hosts it is spoken
    without it, unless there is a `ca_file` and they speak TLS. `mirrors` gives
    for a registry the hosts or URLs to try first, in their order; nothing is ever written to them.
    `upload_hosts` are other hosts (host[:port]) that a registry may have uploads sent to; they get
    no credentials. `patience` is for how many seconds a host may refuse because it is asked too
    often. `ca_file` and `http` are those of the HTTP client; an `http` that is given is not closed
    here.
    """

    def __init__(
        self,
        *,
        authfile: str | os.PathLike[str] | None = None,
        credentials: Credentials | None = None,
        accounts: Mapping[str, Credentials] | None = None,
        plain_http: bool | Sequence[str] = False,
        mirrors: Mapping[str, Sequence[str]] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        upload_hosts: Sequence[str] = (),
        patience: float = 120.0,
        http: Client | None = None,
    ) -> None:
        self.upload_hosts: frozenset[str] = frozenset(host.lower() for host in upload_hosts)
        # Who remembers the upload sessions of a repository: an `upload.Uploads` of each.
        self.uploads: Callable[[Reference], Any] | None = None
        self.turns: Turns = Turns()  # of writers: host, repository, digest
        self.sessions: dict[str, Reference] = {}  # uploads under way, by the URL they began with
        self._owned = http is None
        self.http: Client = http or Client(ca_file=ca_file, host_patience=patience)
        found = credentials or CredentialStore(authfile, accounts=accounts)
        self.hosts: Hosts = Hosts(self.http, found, plain_http, mirrors or {})

    def close(self) -> None:
        """Close the connections."""
        if self._owned:
            self.http.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- requests -----------------------------------------------------------------------

    def request(
        self,
        reference: Reference,
        method: str,
        path: str,
        *,
        endpoint: Endpoint,
        actions: str = "pull",
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        size: int | None = None,
        limit: int = _MAX_PAGE,
        follow: bool = True,
        scope: str | None = None,
        budget: Tries | None = None,
        patience: float | None = None,
        optional: bool = False,
    ) -> Response:
        """One authorized request about a repository; `path` follows its name, or is a URL of
        the endpoint's own origin. An answer of any status below 500 is returned. `body`, `size`,
        `limit`, `follow` and `optional` are those of `Client.request`. `scope`, of which there
        may be several with a space between them, is what the token must be good for, if it is not
        `actions` in this repository. With `budget` there is one try (`Client.once`, where
        `patience` is told of), and TransientError for what another may mend.

        After an answer of 401 or 403 it is asked for once more, with a new token.
        """
        url = path if "://" in path else endpoint.path(reference.repository, path)
        if origin(url) != origin(endpoint.url):
            raise RegistryError(
                "the registry sends us to another host with its credentials: refused",
                str(reference),
            )
        scope = scope or endpoint.scope(reference.repository, actions)
        name = str(reference)
        authorization = endpoint.auth.current(scope, name)
        # The first refusal may be for want of any; what was sent and refused is renewed once.
        for left in range(1 if authorization else 2, -1, -1):
            sent = dict(headers or {})
            if authorization:
                sent["Authorization"] = authorization
            how: dict[str, Any] = {
                "headers": sent, "body": body, "size": size, "limit": limit, "follow": follow,
            }  # fmt: skip
            with as_registry_error(endpoint.auth.masked):
                if budget is not None:
                    answer = self.http.once(method, url, budget=budget, patience=patience, **how)
                else:
                    tries = _MIRROR_TRIES if endpoint.mirror else None
                    answer = self.http.request(
                        method, url, name=name, tries=tries, optional=optional, **how
                    )
            if answer.status not in (401, 403) or not left:
                break
            if origin(answer.url) != origin(url):
                break  # from where it redirects to: that may not say where credentials go
            endpoint.auth.private = answer.private
            renewed = endpoint.auth.renew(scope, authorization, answer, name)
            if renewed is None:
                break
            authorization = renewed
        return endpoint.auth.refusal(answer, scope) if answer.status >= 400 else answer

    def ping(self, endpoint: Endpoint, reference: Reference) -> None:
        """Have the host's challenge, so that the next request can be authorized."""
        name = str(reference)
        with as_registry_error():
            answer = self.http.request("GET", f"{endpoint.url}/v2/", name=name, follow=False)
        endpoint.auth.private = answer.private
        endpoint.auth.learn(answer)

    def _get(
        self,
        reference: Reference,
        path: str,
        headers: Mapping[str, str] | None = None,
        limit: int = _MAX_PAGE,
        method: str = "GET",
        check: Callable[[Response], object] | None = None,
        optional: bool = False,
    ) -> tuple[Response, Endpoint]:
        """The first good answer of the endpoints; RegistryError of the last of them. `check`
        raises RegistryError for one that is of no use."""
        endpoints = self.hosts.of(reference)
        failed: dict[str, SourceError] = {}
        for endpoint in endpoints:
            try:
                answer = self.request(
                    reference,
                    method,
                    path,
                    endpoint=endpoint,
                    headers=headers,
                    limit=limit,
                    optional=optional,
                )
                if answer.status != 200:
                    raise failure(answer, reference)
                if check is not None:
                    check(answer)
                return answer, endpoint
            except SourceError as error:
                if endpoint is endpoints[-1]:
                    if failed and isinstance(error, RegistryError):
                        raise with_mirrors(error, failed) from error
                    raise
                failed[endpoint.url] = error
        raise AssertionError("there is always an endpoint")

    # --- manifests ----------------------------------------------------------------------

    def manifest(
        self, reference: Reference, entry: Descriptor | None = None, *, optional: bool = False
    ) -> Manifest:
        """The manifest or index that a reference names, or `entry` of the same repository.
        `optional` is that of `Client.request`.

        At most MAX_MANIFEST_SIZE bytes; checked against the digest that was asked for, else
        against the one that the registry gives with it. Raises RegistryError, FormatError and
        DigestError.
        """
        if entry is not None:
            reference = reference.with_digest(entry.digest)
            if entry.size > MAX_MANIFEST_SIZE:
                raise RegistryError(too_large(entry.size), str(reference))
        name = str(reference)
        answer, _ = self._get(
            reference,
            f"manifests/{reference.target}",
            {"Accept": _ACCEPT},
            MAX_MANIFEST_SIZE,
            check=lambda answer: refuse_page(answer, reference),
            optional=optional,
        )
        if entry is not None:
            entry.check(answer.data, name)
        stated = answer.headers.get("Docker-Content-Digest", "").strip()
        if reference.digest is None and is_digest(stated):
            check_bytes(answer.data, stated, name, "the manifest")
        content_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if entry is not None and entry.media_type:
            content_type = entry.media_type
        return parse_manifest(answer.data, name, digest=reference.digest, media_type=content_type)

    def read_manifest(self, reference: Reference, entry: Descriptor) -> bytes:
        """What is kept as a manifest, of whatever kind it is, checked against its descriptor."""
        reference = reference.with_digest(entry.digest)
        path = f"manifests/{reference.target}"
        answer, _ = self._get(reference, path, {"Accept": "*/*"}, MAX_MANIFEST_SIZE)
        entry.check(answer.data, str(reference))
        return answer.data

    def digest(self, reference: Reference) -> str:
        """The digest that a tag means now; by HEAD, or by the manifest where that fails."""
        if reference.digest is not None:
            return reference.digest
        try:
            path = f"manifests/{reference.target}"
            answer, _ = self._get(reference, path, {"Accept": _ACCEPT}, method="HEAD")
            stated = answer.headers.get("Docker-Content-Digest", "").strip()
            if is_digest(stated):
                return stated
        except RegistryError as error:
            if error.status == 404:
                raise
        return self.manifest(reference).digest

    # --- blobs --------------------------------------------------------------------------

    def blob_size(self, reference: Reference) -> int:
        """The bytes of the blob that a reference's digest names; RegistryError if no host has it,
        or says."""

        def size(answer: Response) -> int:
            text = answer.headers.get("Content-Length", "")
            if not re.fullmatch(r"\d{1,18}", text):
                raise RegistryError("the registry does not tell the blob's size", str(reference))
            return int(text)

        path = f"blobs/{reference.digest}"
        answer, _ = self._get(reference, path, method="HEAD", check=size)
        return size(answer)

    def read_blob(self, reference: Reference, entry: Descriptor, limit: int = _MAX_BLOB) -> bytes:
        """All of a blob, checked against its descriptor; RegistryError if it is over `limit`."""
        reference = reference.with_digest(entry.digest)
        name = str(reference)
        if entry.size > limit:
            raise RegistryError(
                f"the blob of {entry.size} bytes is over the limit of {limit} bytes", name
            )
        # A refusal may be larger than the blob.
        size = max(entry.size, _MAX_REFUSAL)
        try:
            answer, _ = self._get(reference, f"blobs/{entry.digest}", None, size)
        except RegistryError as error:
            if error.status == 404:
                raise missing(reference) from error
            raise
        entry.check(answer.data, name)
        return answer.data

    # --- names --------------------------------------------------------------------------

    def knows(self, reference: Reference) -> bool:
        """Whether a registry says that it has the repository. Some do not say which they do not
        have, but refuse."""
        try:
            self._get(reference, "tags/list?n=1")
        except RegistryError as error:
            if error.status not in (401, 403, 404):
                raise
            return False
        return True

    def tags(self, reference: Reference) -> Iterator[str]:
        """The repository's tags, page by page."""
        path = f"tags/list?n={_PAGE}"
        count = 0
        for answer in self._pages(reference, path):
            try:
                tags = answer.json().get("tags") or []
                if not all(isinstance(tag, str) for tag in tags):
                    raise TypeError
                names = [tag for tag in tags if is_tag(tag)]
            except (ValueError, AttributeError, TypeError):
                raise RegistryError("its list of tags is malformed", reference.name) from None
            count += len(names)
            if count > _MAX_TAGS:
                raise RegistryError(f"more than {_MAX_TAGS} tags", reference.name)
            yield from names

    def catalog(self, registry: str) -> Iterator[str]:
        """The repositories that the registry itself (mirrors are not asked) says it has, page by
        page; names that are none are left out. RegistryError if it does not tell."""
        reference = Reference(check_registry(registry), "")
        endpoint = self.hosts.own(reference)
        url = f"{endpoint.url}/v2/_catalog?n={_PAGE}"
        scope = "registry:catalog:*"
        answer = self.request(reference, "GET", url, endpoint=endpoint, scope=scope)
        if answer.status == 401 and answer.account is not None:
            raise failure(answer, reference)
        if answer.status in (401, 403, 404, 405):
            raise RegistryError(
                f"it does not list its repositories ({answer.status}): log in with an account that "
                "may (or give it: --src-creds), or name the images"
                + (f" ({said})" if (said := words_of(answer)) else ""),
                reference.name,
                answer.status,
            )
        if answer.status != 200:
            raise failure(answer, reference)
        refuse_page(answer, reference)
        count = 0
        for page in self._follow(answer, endpoint, reference, scope):
            try:
                names = page.json()["repositories"] or []
                good = [name for name in names if is_repository(name, reference.registry)]
            except (ValueError, LookupError, TypeError):
                raise RegistryError("its catalog is malformed", reference.name) from None
            if len(good) != len(names):
                _log.warning("%s: its catalog has names of no repository", reference.name)
            count += len(good)
            if count > _MAX_REPOSITORIES:
                raise RegistryError(f"over {_MAX_REPOSITORIES} repositories", reference.name)
            yield from good

    def referrers(
        self, reference: Reference, digest: str, *, optional: bool = False
    ) -> list[Descriptor]:
        """What the registry's referrers API lists for the manifest of a digest; RegistryError
        and FormatError, also where there is no such API. `optional` is that of
        `Client.request`."""
        path = f"referrers/{digest}"
        name = f"{reference.name}/{path}"
        found: list[Descriptor] = []
        try:
            for page in self._pages(reference, path, {"Accept": OCI_INDEX}, optional):
                found += parse_manifest(page.data, name, media_type=OCI_INDEX).manifests
                if len(found) > _MAX_REFERRERS:
                    raise RegistryError(f"over {_MAX_REFERRERS} referrers", reference.name)
        except RegistryError as error:
            text = str(error).removeprefix(f"{reference}: ").removeprefix(f"{reference.name}: ")
            told = RegistryError(text, name, error.status)
            told.throttled = error.throttled
            raise told from error
        return found

    def _pages(
        self,
        reference: Reference,
        path: str,
        headers: Mapping[str, str] | None = None,
        optional: bool = False,
    ) -> Iterator[Response]:
        answer, endpoint = self._get(
            reference,
            path,
            headers,
            check=lambda answer: refuse_page(answer, reference),
            optional=optional,
        )
        return self._follow(answer, endpoint, reference, headers=headers, optional=optional)

    def _follow(
        self,
        answer: Response,
        endpoint: Endpoint,
        reference: Reference,
        scope: str | None = None,
        headers: Mapping[str, str] | None = None,
        optional: bool = False,
    ) -> Iterator[Response]:
        """An answer, and the pages that its Link leads to."""
        seen = set()
        for _ in range(_MAX_PAGES):
            yield answer
            links = parse_links(answer.headers.get("Link", ""))
            link = next((link for link, relations in links if "next" in relations), None)
            if link is None:
                return
            url = target(answer.url, link)
            if url is None:
                raise RegistryError(
                    "its pages lead to what is no http or https URL", reference.name
                )
            if url in seen:
                raise RegistryError("its pages lead in a circle", reference.name)
            seen.add(url)
            answer = self.request(
                reference,
                "GET",
                url,
                endpoint=endpoint,
                scope=scope,
                headers=headers,
                optional=optional,
            )
            if answer.status != 200:
                raise failure(answer, reference)
        raise RegistryError(f"more than {_MAX_PAGES} pages", reference.name)
