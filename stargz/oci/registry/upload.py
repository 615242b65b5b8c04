"""Blobs on their way to a registry (OCI distribution specification 1.1, "Pushing blobs").

A blob is sent while it is being made: what is written goes to a temporary file, and a thread
streams that file in one PATCH without a known length, which every registry in use takes. When it
breaks off, the registry is asked how much it has, and gets the rest in requests of known length.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

from stargz.digests import check_digest
from stargz.errors import RegistryError, SourceError, StargzError
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.failures import codes, failure, is_fresh, registry_error
from stargz.oci.registry.sessions import GONE, Uploads, check_stated, has, location, request
from stargz.sources.client import PIECE, Body, Response, shut
from stargz.sources.spool import Spool
from stargz.sources.tries import TransientError, Tries

# Smaller blobs are sent whole, when they are complete: one request less.
STREAMED = 1 << 20
# After a break at least so much is sent at a time, while there is more to come.
_PART = 16 << 20
# A try that brought so much is not held against the next.
_PROGRESS = 1 << 20
# Bytes a second at which a registry may copy a blob to its place before it answers.
_COPY_RATE = 4 << 20
_LEAVE = 5.0  # seconds to wait for an upload that is given up
_DONE = (200, 201, 204)
# Answers to a PATCH of a registry, or a proxy, that cannot take bodies in this way.
_NOT_SO = (400, 404, 405, 411, 501)
_OCTETS = {"Content-Type": "application/octet-stream"}


class _StoppedError(Exception):
    """The upload is given up."""


class BlobUpload:
    """A BlobWriter to one repository of a registry; `size` is what is expected, if known."""

    fd: int | None = None

    def __init__(
        self,
        client: RegistryClient,
        reference: Reference,
        size: int | None = None,
        uploads: Uploads | None = None,
    ) -> None:
        self.name: str = reference.name
        self._client = client
        self._http = client.http
        self._host = client.hosts.own(reference)
        self._reference = reference
        self._uploads = uploads
        self._spool = Spool(self.name, size)
        self._news = threading.Condition()
        self._digest: str | None = None  # known when nothing more follows
        self._stopping = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None
        self._sock: socket.socket | None = None
        # The session: of the thread that uploads alone.
        self._url: str | None = None
        self._first: str | None = None  # the URL it began with
        self._at = 0  # bytes that the registry has
        self._sent = 0  # bytes that it may have
        self._best = 0
        self._parts = False  # the stream has ended, or broke off
        self._whole = False  # in one request, after the end
        self._put_sent = False

    # --- the writer ---------------------------------------------------------------------

    def write(self, data: bytes | memoryview, /) -> int:
        """Append all of `data`. SourceError (RegistryError) if the disk is full, or if the
        upload has failed."""
        if self._closed or self._digest is not None:
            raise ValueError(f"{self.name}: the upload is closed")
        self._check()
        with memoryview(data) as view, view.cast("B") as octets:
            self._spool.append(octets)
            size = len(octets)
        with self._news:
            self._news.notify_all()
        if self._thread is None and self._spool.size > STREAMED:
            name = "stargz-upload"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        return size

    def commit(self, digest: str) -> None:
        """Have the blob in the repository, or raise RegistryError, or DigestError if the registry
        got something else. If it is there already, it is not written again."""
        if self._closed or self._digest is not None:
            raise ValueError(f"{self.name}: the upload is closed")
        check_digest(digest, self.name)
        with self._client.turns.of(self._host.url, self._reference.repository, digest):
            if self._is_there(digest):
                self.close()
            else:
                self._finish(digest)

    def _is_there(self, digest: str) -> bool:
        reference = self._reference.with_digest(digest)
        url = self._host.path(reference.repository, f"blobs/{digest}")
        try:
            answer = request(self._client, self._host, reference, "HEAD", url)
        except (TransientError, SourceError):
            return False  # writing it tells
        return has(answer, self._spool.size)

    def _finish(self, digest: str) -> None:
        with self._news:
            self._digest = digest
            self._news.notify_all()
        if self._thread is None:
            self._whole = True
            self._run()
        else:
            self._thread.join()
        self._check()

    def close(self) -> None:
        """Give up what has not been committed; the registry is told so, if it listens."""
        if self._closed:
            return
        self._closed = True
        thread = self._thread
        if thread is not None and thread.is_alive():
            with self._news:
                self._stopping = True
                self._news.notify_all()
            # The stream ends as if it were complete: some registries let only those whose last
            # request they have answered delete a session. A stalled one is left alone.
            thread.join(_LEAVE)
            with self._news:
                if self._sock is not None:
                    shut(self._sock)
            thread.join(_LEAVE)
        # An error refers to the frames that refer to us: the file must not wait for the collector.
        self._failed = None
        if thread is None or not thread.is_alive():
            self._spool.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed
        if self._http.closing.is_set() and self._digest is None:
            raise ValueError(f"{self.name}: the client is closed")

    # --- the upload ---------------------------------------------------------------------

    def _run(self) -> None:
        own = self._thread is not None
        try:
            if own:
                from stargz.sources import connection

                connection.current.watch = self._watch
                connection.current.leave = lambda: self._stopping
            self._upload()
        except BaseException as error:
            with self._news:
                self._stopping = True
            if isinstance(error, SourceError) and not isinstance(error, RegistryError):
                wrapped = registry_error(error, self._host.auth.masked)
                wrapped.__cause__ = error
                error = wrapped
            self._failed = error
            with suppress(Exception):
                self._cancel()

    def _upload(self) -> None:
        budget: Tries | None = None
        broken = False
        while True:
            try:
                if broken and self._recover():
                    break
                broken = False
                if self._at >= self._best + _PROGRESS:
                    self._best, budget = self._at, None
                if self._step():
                    break
            except TransientError as error:
                # A host that is asked too often has not looked at a request that can be repeated.
                broken = not (self._whole and error.pace is not None)
                self._parts = True
                if budget is None:
                    budget = Tries(self._http, self._what(), self._spool.size)
                self._pause(budget.pause(error))
        self._forget()

    def _step(self) -> bool:
        """The next request; whether it was the last."""
        if self._whole:
            self._wait(None)
        if self._url is None:
            self._begin()
            return False
        if self._whole:
            return self._put(self._spool.size)
        size = self._wait(self._at + 1)
        if self._at < size:
            self._patch()
            return False
        return self._put(0)

    def _begin(self) -> None:
        url = self._host.path(self._reference.repository, "blobs/uploads/")
        answer = self._ask("POST", url, body=b"")
        if answer.status != 202:
            raise failure(answer, self._reference, writing=True)
        self._url = self._first = self._location(answer)
        self._at = self._sent = 0
        self._parts = False
        self._client.sessions[self._first] = self._reference
        if self._uploads is not None:
            self._uploads.began(self._first)

    def _patch(self) -> None:
        """Send what is there, and for a stream that has not broken, all that follows."""
        assert self._url is not None
        at = self._at
        end: int | None = None
        headers = dict(_OCTETS)
        if self._parts:
            end = self._wait(at + _PART)
            headers["Content-Range"] = f"{at}-{end - 1}"
            headers["Content-Length"] = str(end - at)
        body = partial(self._feed, at, end)
        answer = self._ask("PATCH", self._url, headers, body)
        if self._stopping:
            if answer.status < 300 and answer.headers.get("Location"):
                self._url = self._location(answer)
            raise _StoppedError
        if answer.status in (201, 202, 204):
            sent = self._sent
            self._continue(answer, required=False)
            self._parts = True
            if self._at < sent and self._at < at + _PROGRESS:
                took = max(0, self._at - at)
                raise TransientError(f"the registry took {took} of {sent - at} bytes")
        elif answer.status == 416 or (answer.status == 404 and self._parts):
            raise TransientError(_said(answer), status=answer.status)
        elif answer.status in _NOT_SO:
            self._whole = True
            self._cancel()
        else:
            raise failure(answer, self._reference, writing=True)

    def _put(self, size: int) -> bool:
        """Name what was sent, or send all of it; whether the registry has it."""
        assert self._url is not None and self._digest is not None
        self._put_sent = True
        parts = urlsplit(self._url)
        query = "&".join(filter(None, (parts.query, f"digest={quote(self._digest, safe='')}")))
        url = urlunsplit(parts._replace(query=query))
        patience = self._http.timeout + self._spool.size / _COPY_RATE
        headers = {**_OCTETS, "Content-Length": str(size)}
        body = partial(self._feed, 0, size, patience) if size else b""
        answer = self._ask("PUT", url, headers, body, patience)
        if answer.status in _DONE:
            check_stated(answer, self._digest, self.name)
            return True
        if answer.status in (404, 416):
            raise TransientError(_said(answer), status=answer.status)
        error = failure(answer, self._reference.with_digest(self._digest), writing=True)
        if is_fresh(answer):
            # Once more from the beginning; what does not arrive as it was sent, not for long.
            self._cancel()
            changed = "DIGEST_INVALID" in codes(answer)
            why = error.message + (": it got other bytes than were sent" if changed else "")
            raise TransientError(why, status=answer.status, tries=2 if changed else None)
        raise error

    def _recover(self) -> bool:
        """After a failure: whether the blob is there all the same; else, how much of it is."""
        if self._put_sent:
            assert self._digest is not None
            reference = self._reference.with_digest(self._digest)
            path = self._host.path(reference.repository, f"blobs/{self._digest}")
            answer = self._ask("HEAD", path)
            if has(answer, self._spool.size):
                return True
        if self._url is None:
            return False
        if self._whole:
            self._cancel()
            return False
        answer = self._ask("GET", self._url)
        if answer.status in (200, 202, 204):
            self._continue(answer, required=True)
        elif answer.status in (401, 403):
            raise failure(answer, self._reference, writing=True)
        elif answer.status in GONE:
            self._forget()
        else:
            self._cancel()
        return False

    def _continue(self, answer: Response, *, required: bool) -> None:
        """Take place and position of the session from an answer; without a position that can be
        true it is begun anew."""
        text = answer.headers.get("Range", "").strip()
        found = re.fullmatch(r"(?:bytes[= ])?0-(\d{1,18})", text)
        if found:
            # Registries write "0-0" where they have nothing.
            position = int(found[1]) + 1 if int(found[1]) else 0
        else:
            position = -1 if text or required else self._sent
        if not 0 <= position <= self._sent:
            self._cancel()
            raise TransientError(f"the registry says that it has {text[:40]!r} of the blob")
        self._at = self._sent = position
        if answer.headers.get("Location"):
            self._url = self._location(answer)

    def _feed(self, at: int, end: int | None, patience: float = 0.0) -> Iterator[bytes]:
        """The body: what is there, and then what is written, until there is no more."""
        while end is None or at < end:
            try:
                size = self._wait(at + 1)
            except _StoppedError:
                if end is None:
                    return  # see `close`
                raise
            if size <= at:
                return
            piece = self._spool.read(at, min(PIECE, (end or size) - at, size - at))
            at += len(piece)
            self._sent = max(self._sent, at)
            self._http.more_time(len(piece), patience)
            yield piece

    # --- requests -----------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        patience: float | None = None,
        cancelling: bool = False,
    ) -> Response:
        if self._stopping and not cancelling:
            raise _StoppedError
        try:
            reference = self._reference
            if self._digest is not None:
                reference = reference.with_digest(self._digest)
            return request(
                self._client, self._host, reference, method, url, headers, body, patience
            )
        except TransientError:
            if self._stopping and not cancelling:
                raise _StoppedError from None
            raise
        finally:
            with self._news:
                self._sock = None

    def _watch(self, sock: socket.socket) -> None:
        with self._news:
            self._sock = sock

    def _wait(self, size: int | None) -> int:
        """Bytes there are: at least `size`, or all."""
        with self._news:
            while not self._stopping and self._digest is None:
                if size is not None and self._spool.size >= size:
                    break
                self._news.wait()
            if self._stopping:
                raise _StoppedError
            return self._spool.size

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._news:
            while (left := until - time.monotonic()) > 0 and not self._stopping:
                self._news.wait(min(left, 0.2))
                if self._http.closing.is_set():
                    raise ValueError(f"{self.name}: the client is closed")
            if self._stopping:
                raise _StoppedError

    def _location(self, answer: Response) -> str:
        return location(answer, self._host, self._client, self._reference)

    def _cancel(self) -> None:
        """Have the session deleted, and begin another if there is need."""
        url, first = self._url, self._first
        self._url = self._first = None
        self._at = self._sent = 0
        if url is None:
            return
        with suppress(TransientError, StargzError):
            answer = self._ask("DELETE", url, cancelling=True)
            if answer.status < 300 or answer.status in GONE:
                self._ended(first)

    def _forget(self) -> None:
        """The session is gone."""
        first = self._first
        self._url = self._first = None
        self._at = self._sent = 0
        self._ended(first)

    def _ended(self, first: str | None) -> None:
        if first is None:
            return
        self._client.sessions.pop(first, None)
        if self._uploads is not None:
            self._uploads.ended(first)

    def _what(self) -> str:
        return f"{self.name}@{self._digest}" if self._digest else f"{self.name}: upload of a blob"


def _said(answer: Response) -> str:
    return f"the registry answered {answer.status}"
