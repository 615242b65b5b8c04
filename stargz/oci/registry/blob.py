"""A blob of a registry, read by ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stargz.errors import DigestError, FormatError, RegistryError, SourceError
from stargz.oci.formats.manifest import Descriptor, check_bytes
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.failures import (
    as_registry_error,
    failure,
    missing,
    with_mirrors,
    words_of,
)
from stargz.sources.client import Reply, origin
from stargz.sources.http import HTTPSource
from stargz.sources.local import LocalSource
from stargz.sources.spool import Spool
from stargz.sources.tries import TransientError, Tries

if TYPE_CHECKING:
    from stargz.oci.registry.client import RegistryClient
    from stargz.oci.registry.hosts import Endpoint


class RegistryBlob(HTTPSource):
    """A ByteSource of one blob, by its descriptor; nothing is asked for until it is read.

    Where the registry redirects (to a signed URL, as a rule) is remembered and asked straight
    away, without the registry's token, until it is refused; then the registry is asked anew. A
    mirror that fails is given up for the host behind it. Content that is read whole is checked
    against the digest; what is read of it, by whoever knows the digests of its chunks.
    """

    _immutable = True

    def __init__(self, client: RegistryClient, reference: Reference, entry: Descriptor) -> None:
        self.reference: Reference = reference.with_digest(entry.digest)
        self.descriptor = entry
        self._algorithm = entry.digest.partition(":")[0]
        self._registry = client
        self._hosts = client.hosts.of(reference)
        self._host = self._hosts[0]
        self._sent: dict[str, str] = {}
        self._failed: dict[str, SourceError] = {}  # of mirrors, by URL
        url = self._host.path(reference.repository, f"blobs/{entry.digest}")
        super().__init__(url, client=client.http, size=entry.size, name=str(self.reference))

    def _target(self, fresh: bool) -> tuple[str, dict[str, str]]:
        host = self._host
        scope = host.scope(self.reference.repository, "pull")
        name = self.name
        if fresh:
            if not host.auth.challenged:
                self._registry.ping(host, self.reference)
            value = host.auth.renew(scope, self._sent.get(host.url), None, name)
        else:
            value = host.auth.current(scope, name)
        headers = {}
        if value:
            headers["Authorization"] = self._sent[host.url] = value
        return host.path(self.reference.repository, f"blobs/{self.descriptor.digest}"), headers

    def ask(self, method: str, extra: Mapping[str, str], budget: Tries) -> Reply:
        while True:
            host = self._host
            try:
                return super().ask(method, extra, budget)
            except (TransientError, RegistryError) as error:
                if self.next_host(host, error):
                    continue
                if isinstance(error, TransientError) and error.tries == 1:
                    raise self._refusal(host, error) from error
                raise

    def _refusal(self, host: Endpoint, error: TransientError) -> Exception:
        """What an answer means that is certain: the same as for a manifest."""
        answer = error.answer
        if answer is None or origin(answer.url) != origin(host.url):
            return error  # from where it redirects to: that knows no accounts
        answer = host.auth.refusal(answer, host.scope(self.reference.repository, "pull"))
        if answer.status == 404:
            return missing(self.reference, words_of(answer))
        return failure(answer, self.reference)

    @property
    def identity(self) -> tuple[str, str]:
        """See ByteSource: the digest, wherever it is."""
        return self.descriptor.digest, ""

    def beside(self, suffix: str) -> None:
        """See ByteSource: blobs of a registry have no neighbours."""

    @property
    def host(self) -> Endpoint:
        """Who is asked now."""
        return self._host

    def next_host(self, failed: Endpoint, error: Exception) -> bool:
        """Go on to the host after a mirror that failed; False where there is none."""
        with self._lock:
            if self._host is failed:
                at = self._hosts.index(failed)
                if at + 1 == len(self._hosts):
                    return False
                self._host = self._hosts[at + 1]
                self._place = None
                if isinstance(error, TransientError):
                    status, error = error.status, SourceError(f"{error.why}; {error.hint}")
                    error.status = status
                if isinstance(error, SourceError):
                    self._failed[failed.url] = error
        return True

    @contextmanager
    def errors(self) -> Iterator[None]:
        """A SourceError of the block is a RegistryError; it names the mirrors that failed too."""
        try:
            with as_registry_error(lambda said: self._host.auth.masked(said)):
                yield
        except RegistryError as error:
            told = with_mirrors(error, self._failed)
            if told is error:
                raise
            raise told from error

    def resized(self, size: int | None) -> Exception:
        # What a digest names does not change: one of the two is wrong.
        text = f"the manifest says {self.size} bytes, the registry has {size}"
        host = self._host
        if self.next_host(host, error := TransientError(text, status=200)):
            return error
        return FormatError(f"{text}: push the image again", self.name)

    def _download(self, reply: Reply | None = None) -> Spool:
        while True:
            host = self._host
            try:
                begun, reply = reply, None
                spool = super()._download(begun)
                if spool.digest == self.descriptor.digest:
                    return spool
                raise DigestError("the blob", self.descriptor.digest, spool.digest, self.name)
            except (SourceError, DigestError) as error:
                if not self.next_host(host, error):
                    raise

    def read_whole(self) -> LocalSource:
        """All of it, checked against its digest, in a temporary file that is gone with what is
        returned. In bounded memory; RegistryError, SourceError (no space) and DigestError."""
        with self.errors():
            spool = self._download()
        return LocalSource(self.name, spool.fd, keep=spool)

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; RegistryError if they cannot be had."""
        with self.errors():
            data = super().read_at(offset, size)
        if offset == 0 and size == self.size:
            check_bytes(data, self.descriptor.digest, self.name, "the blob")
        return data

    def read_pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """See ByteSource; the whole blob is checked before any of it is given."""
        if size == self.size:
            yield self.read_at(offset, size)
            return
        with self.errors():
            yield from super().read_pieces(offset, size)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges."""
        with self.errors():
            return super().read_ranges(ranges)
