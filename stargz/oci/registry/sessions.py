"""Requests about upload sessions: where a registry wants them, and what its answers mean."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

from stargz.digests import is_digest
from stargz.errors import DigestError, RegistryError, SourceError
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.access import Access
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.hosts import Endpoint
from stargz.sources.client import Body, Client, Response, origin, redact, target
from stargz.sources.tries import TransientError, Tries

WRITE = "pull,push"  # one token for looking and for writing
GONE = (400, 404, 410)
_MAX_LOCATION = 8 << 10
_MAX_ANSWER = 1 << 20
_QUICK = 3.0  # seconds, for what is done about uploads when the process is to end


class Uploads(Protocol):
    """Who remembers the upload sessions that a crash would leave at the registry."""

    def began(self, url: str) -> None:
        """A session is there: see `cancel_upload`."""

    def ended(self, url: str) -> None:
        """It is known to be gone."""


def request(
    client: RegistryClient,
    host: Endpoint,
    reference: Reference,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: Body = None,
    patience: float | None = None,
) -> Response:
    """One try, with credentials for the registry, and without for hosts that it sends us to."""
    budget = Tries(client.http, str(reference), tries=1)
    if origin(url) == origin(host.url):
        return client.request(
            reference,
            method,
            url,
            endpoint=host,
            actions=WRITE,
            headers=headers,
            body=body,
            limit=_MAX_ANSWER,
            follow=method == "HEAD",
            budget=budget,
            patience=patience,
        )
    return client.http.once(
        method,
        url,
        headers=headers,
        body=body,
        budget=budget,
        limit=_MAX_ANSWER,
        follow=False,
        bare=True,
        patience=patience,
    )


def location(answer: Response, host: Endpoint, client: RegistryClient, reference: Reference) -> str:
    """Where an answer wants the upload to go on. RegistryError for another host, unless the
    client may upload there."""
    text = answer.headers.get("Location", "")
    if not text or len(text) > _MAX_LOCATION or not text.isascii() or not text.isprintable():
        raise RegistryError("the registry names no place for the upload", str(reference))
    url = target(answer.url, text)
    if url is None:
        raise RegistryError(
            "the registry wants the upload sent to what is no http or https URL", str(reference)
        )
    if origin(url) != origin(host.url):
        parts = urlsplit(url)
        secure = parts.scheme == "https" or urlsplit(host.url).scheme == "http"
        name = parts.netloc.rpartition("@")[2].lower()
        if name not in client.upload_hosts or not secure:
            raise RegistryError(
                f"the registry wants the upload sent to another host ({redact(url)[:200]}): "
                "refused; if it is the registry's own, allow it with upload_hosts "
                "(--allow-upload-host)",
                str(reference),
            )
    return url


def has(answer: Response, size: int) -> bool:
    """Whether an answer to HEAD says that the blob is there, with that size."""
    stated = answer.headers.get("Content-Length")
    return answer.status == 200 and stated in (None, str(size))


def check_stated(answer: Response, digest: str, source: str, what: str = "the blob") -> None:
    """DigestError if the registry calls what it got by another digest."""
    stated = answer.headers.get("Docker-Content-Digest", "").strip()
    same_kind = stated.partition(":")[0] == digest.partition(":")[0]
    if is_digest(stated) and same_kind and stated != digest:
        raise DigestError(f"{what} as the registry has it", digest, stated, source)


def cancel_upload(client: RegistryClient, reference: Reference, url: str) -> bool:
    """Delete an upload session that a crash left in a repository; whether it is gone now.

    `url` is what Uploads.began was told. RegistryError if it is not of the registry's host.
    """
    host = client.hosts.own(reference)
    answer = Response(202, {"Location": url}, b"", host.url)
    url = location(answer, host, client, reference)
    try:
        answer = request(client, host, reference, "DELETE", url)
    except (TransientError, SourceError):
        return False
    return answer.status < 300 or answer.status in GONE


def cancel_uploads(closed: RegistryClient, access: Access) -> None:
    """Delete the upload sessions that were under way in a client when it was closed: each is
    asked for once, and no more is waited for than _QUICK."""
    left = dict(closed.sessions)
    if not left:
        return
    with Client(ca_file=access.ca_file, timeout=_QUICK, tries=1, host_patience=0.0) as http:
        client = RegistryClient(**{**access.options(), "http": http})

        def cancel(url: str, reference: Reference) -> None:
            with suppress(Exception):  # nobody hears of it: the registry forgets it some day
                cancel_upload(client, reference, url)

        # Daemons: even a name that is not found in time does not hold the process.
        threads = [threading.Thread(target=cancel, args=one, daemon=True) for one in left.items()]
        for thread in threads:
            thread.start()
        until = time.monotonic() + _QUICK
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
