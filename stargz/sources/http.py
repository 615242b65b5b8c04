"""A blob behind HTTP, read by ranges (RFC 9110, section 14)."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from stargz.errors import SourceError, retryable
from stargz.sources.base import BESIDE, TAIL, TAIL_MIN, check_range
from stargz.sources.client import PIECE, Client, Reply, Response, harmless, origin, redact
from stargz.sources.ranges import Link, plan
from stargz.sources.spool import Spool
from stargz.sources.stream import Stream, next_piece
from stargz.sources.tries import TransientError, Tries

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Client", "HTTPSource", "Response"]

_log = logging.getLogger("stargz")

# Of what is decoded while it comes: 5 ms of a link of 100 Mbit/s.
_STREAM_PIECE = 64 << 10
# "The range cannot be had": by standard, or from servers that know no ranges of this kind.
_NO_RANGE = (400, 405, 416, 501)
# Redirects that expire at once, as seen by threads that compete for them.
_MOVES = 4
# By which blobs that a server says nothing of are told apart.
_LAST = 1 << 10
# There is no such thing; object stores answer so to those who may not list what there is.
_ABSENT = (403, 404, 410)
_HINTS = {
    401: "give credentials",
    403: "check the credentials, or whether the URL has expired",
    404: "check the address",
    410: "check the address",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where requests go: to the target, or straight to where it redirected."""

    url: str
    headers: Mapping[str, str]
    public_only: bool = False
    redirected: bool = False
    bare: bool = False
    generation: int = 0


class HTTPSource:
    """A ByteSource of the blob at an http or https URL; safe for any number of threads.

    Without `size` it is opened by one request for the blob's last `tail` bytes, which also tells
    its size; reads of them then cost nothing. With a `tail` of 0 that is done meanwhile, and waited
    for (or its error raised) where the size is needed. `client` is not closed here; without it the
    source has its own. `name` is what errors call the blob (default: the URL without query).

    What a server cannot do is done without: the whole blob is fetched once, into an unlinked
    temporary file, from one that ignores or refuses ranges. Every answer must be the range
    that was asked for, of the size and with the ETag (or Last-Modified) seen first; a body
    that breaks off is resumed. SourceError when the tries are used up.

    A subclass overrides `_target` when URL or headers expire, and sets `_immutable` when the
    content is known by digest, so that ETags of several servers may differ.
    """

    _immutable = False
    _algorithm: str | None = None  # of the digest that a copy of the whole blob gets

    def __init__(
        self,
        url: str,
        *,
        client: Client | None = None,
        size: int | None = None,
        name: str | None = None,
        headers: Mapping[str, str] | None = None,
        tail: int = TAIL_MIN,
    ) -> None:
        self.name: str = redact(url) if name is None else name
        parts = urlsplit(url)
        user, separator, host = parts.netloc.rpartition("@")
        self._url = urlunsplit(parts._replace(netloc=host, fragment=""))
        self._headers: dict[str, str] = dict(headers or {})
        if separator:
            secret = base64.b64encode(unquote(user).encode()).decode()
            self._headers["Authorization"] = f"Basic {secret}"
        self._owned = client is None
        self.client: Client = client or Client()
        self._lock = threading.Lock()
        self._whole_lock = threading.Lock()
        self._whole: Spool | None = None
        self._place: _Place | None = None
        self._generation = 0
        self._validator: tuple[str, str] | None = None
        self._tail = b""
        self._closed = False
        self.link = Link()
        self._size = size
        self._tail_size = max(1, tail)  # the size is told with it
        self._opening: threading.Thread | None = None
        self._refused: BaseException | None = None  # why it could not be opened
        if size is not None:
            return
        if not tail:
            self._opening = threading.Thread(target=self._try, name="stargz-open", daemon=True)
            self._opening.start()
            return
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        opening = self._opening
        if opening is not None and opening is not threading.current_thread():
            opening.join()
            self._opening = None
        if self._size is None:
            assert self._refused is not None
            raise self._refused
        return self._size

    @property
    def at_hand(self) -> int:
        """See ByteSource: all of it where it had to be fetched whole."""
        return len(self._tail) if self._whole is None else self.size

    @property
    def identity(self) -> tuple[str, str] | None:
        """See ByteSource. The version is what the server says of it, with the blob's last bytes,
        which hold the check sum of a gzip member. None where neither tells versions apart: a tar
        ends in zeros."""
        size = self.size  # it is open by then
        kind, value = self._validator or ("", "")
        if not value and not any(self._tail[-_LAST:]):
            return None
        last = hashlib.sha256(self._tail[-_LAST:]).hexdigest()
        return f"url {self._url}", f"{size} {kind} {value} {last}"

    def beside(self, suffix: str) -> HTTPSource | None:
        """See ByteSource. A URL with a query names nothing that has others beside it."""
        parts = urlsplit(self._url)
        if parts.query:
            return None
        url = urlunsplit(parts._replace(path=parts.path + suffix))
        try:
            return HTTPSource(url, client=self.client, headers=self._headers, tail=BESIDE)
        except SourceError as error:
            if error.status in _ABSENT:
                return None
            raise

    # --- for subclasses -----------------------------------------------------------------

    def _target(self, fresh: bool) -> tuple[str, dict[str, str]]:
        """URL and headers for the next request; `fresh` after the last ones were refused with
        401 or 403. Called from any thread."""
        return self._url, dict(self._headers)

    # --- reading ------------------------------------------------------------------------

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; SourceError if they cannot be had."""
        if size > 2 * self.link.part:
            return self.read_ranges([(offset, size)])[0]
        local = self._local(offset, size)
        return self._fetch(offset, size) if local is None else local

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges: near neighbours share a request, requests run in
        parallel."""
        result = [self._local(offset, size) for offset, size in ranges]
        missing = [n for n, data in enumerate(result) if data is None]
        link = self.link
        todo = plan([ranges[n] for n in missing], link.gap, link.part, self.client.parallel)
        for n, data in zip(missing, todo.assemble(self._fetch_all(todo.requests)), strict=True):
            result[n] = data
        return [data for data in result if data is not None]

    def read_pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """See ByteSource: what one connection is enough for comes in pieces."""
        local = self._local(offset, size)
        if local is not None:
            yield local
        elif size > 2 * self.link.part:
            yield self.read_at(offset, size)
        else:
            yield from Stream(self, offset, size, _STREAM_PIECE)

    def close(self) -> None:
        """Let go of the connections. Reading afterwards raises ValueError."""
        self._closed = True
        self._whole = None
        self._tail = b""
        if self._owned:
            self.client.close()

    def _local(self, offset: int, size: int) -> bytes | None:
        """What needs no request."""
        if self._closed:
            raise ValueError(f"{self.name}: the source is closed")
        check_range(self.name, self.size, offset, size)
        tail = self._tail
        start = self.size - len(tail)
        if size == 0:
            return b""
        if offset >= start:
            return tail[offset - start : offset - start + size]
        whole = self._whole
        return None if whole is None else whole.read(offset, size)

    def _fetch_all(self, requests: Sequence[tuple[int, int]]) -> list[bytes]:
        if len(requests) < 2 or self.client.parallel < 2:
            return [self._fetch(*request) for request in requests]
        executor = self.client.executor()
        futures: list[Future[bytes]] = []
        try:
            futures.extend(executor.submit(self._fetch, *request) for request in requests)
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def _fetch(
        self, start: int, size: int, reply: Reply | None = None, budget: Tries | None = None
    ) -> bytes:
        pieces = list(Stream(self, start, size, PIECE, reply, budget))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # --- requests -----------------------------------------------------------------------

    def ask(self, method: str, extra: Mapping[str, str], budget: Tries) -> Reply:
        """The answer of one try: 200, 206, or one of _NO_RANGE. An expired redirect is
        followed anew, and expired credentials are renewed, once each."""
        fresh = renewed = False
        moved = 0
        while True:
            place = self._where(fresh)
            reply = self.client.send(
                method,
                place.url,
                {**place.headers, **extra},
                budget=budget,
                public_only=place.public_only,
                bare=place.bare,
            )
            status = reply.status
            if status in (200, 206):
                if not place.redirected and reply.url != place.url:
                    self._remember(place, reply)
                self._same(reply)
                return reply
            answer = reply.ended()
            if retryable(status):
                raise reply.transient(answer)
            if place.redirected and 400 <= status < 500 and status != 416:
                self._forget(place)
                moved += 1
                if moved > _MOVES:
                    raise reply.transient()
                continue
            if status in (401, 403) and not renewed:
                renewed = True
                with self._lock:
                    # Another thread may have been here first.
                    fresh = self._generation == place.generation
                    self._generation += fresh
                continue
            hint = _HINTS.get(status, "check the address")
            if answer.wants_tls:
                hint = "it speaks https and not http: give https:// in the URL"
            elif status in _NO_RANGE and "Range" in extra:
                return reply
            budget.what = self.name  # all of it is refused, not this part
            raise TransientError(reply.said(), hint=hint, status=status, final=True, answer=answer)

    def _where(self, fresh: bool) -> _Place:
        place = self._place
        if place is not None and not fresh:
            return place
        generation = self._generation
        url, headers = self._target(fresh)
        return _Place(url, headers, generation=generation)

    def _remember(self, place: _Place, reply: Reply) -> None:
        """Later requests go straight to where this one was redirected."""
        bare = origin(reply.url) != origin(place.url)
        headers = harmless(place.headers) if bare else place.headers
        generation = place.generation
        self._place = _Place(reply.url, headers, reply.public_only, True, bare, generation)

    def _forget(self, place: _Place) -> None:
        with self._lock:
            if self._place is place:
                self._place = None

    def _same(self, reply: Reply) -> None:
        """Raise TransientError unless this is the blob that was seen first, as it is stored."""
        encoding = reply.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            reply.close()
            raise TransientError(
                f"the server sends the blob encoded as {encoding[:20]!r}",
                hint="its ranges are not the blob's; let the server send it as it is",
                final=True,
            )
        if self._immutable:
            return
        for header in ("ETag", "Last-Modified"):
            value = reply.headers.get(header, "").removeprefix("W/")
            if not value:
                continue
            with self._lock:
                if self._validator is None:
                    self._validator = (header, value)
                known, expected = self._validator
            if known == header and value != expected:
                reply.close()
                raise _changed(f"{header} was {expected[:80]!r}, is {value[:80]!r}")
            if known == header:
                return

    def checked_end(self, reply: Reply, start: int, end: int) -> int:
        """Where the bytes of a 206 end; TransientError if they are not those asked for."""
        first, last, total = _content_range(reply)
        if total is not None and total != self.size:
            reply.close()
            raise self.resized(total)
        length = reply.length
        if first != start or last >= end or (length is not None and length != last + 1 - first):
            reply.close()
            raise TransientError(
                f"the server gave bytes {first} to {last}"
                + ("" if length is None else f" in a body of {length}"),
                hint="it, or a proxy on the way, is broken",
            )
        return last + 1

    def note_no_range(self, reply: Reply) -> None:
        """The answer has no range of the blob: note what can be learned from that."""
        reply.close()
        if reply.status == 200:
            self.client.rangeless.add(origin(self._url))
            return
        total = re.fullmatch(r"bytes \*/(\d{1,18})", reply.headers.get("Content-Range", ""))
        if total and int(total[1]) != self.size:
            raise self.resized(int(total[1]))

    # --- the whole ----------------------------------------------------------------------

    def from_whole(self, start: int, size: int) -> bytes:
        """Bytes of the whole blob, which is fetched for the first of them."""
        with self._whole_lock:
            whole = self._whole
            if whole is None:
                self._tell_whole(self.size)
                whole = self._download()
                if not self._closed:
                    self._whole = whole
        return whole.read(start, size)

    def _tell_whole(self, size: int | None) -> None:
        """Say that more is fetched than is read."""
        if size is None or size > TAIL:
            what = "all of it is" if size is None else f"all {size:,} bytes are"
            _log.warning("%s: the server has no ranges: %s fetched", self.name, what)

    def _download(self, reply: Reply | None = None) -> Spool:
        """The whole blob, of which `reply` may be the beginning; sets the size if it was not
        known."""
        from stargz.sources.download import Download

        with closing(Download(self, self._size, reply)) as download:
            spool = Spool(self.name, self._size, self._algorithm)
            while piece := download.read(PIECE):
                spool.append(piece)
        self._size = spool.size
        return spool

    def resized(self, size: int | None) -> Exception:
        """The error of an answer by which the blob has another size than before."""
        return _changed(f"it had {self._size} bytes, has {size}")

    # --- opening ------------------------------------------------------------------------

    def _try(self) -> None:
        try:
            self._open()
        except BaseException as error:
            self._refused = error
            self.close()

    def _open(self) -> None:
        """Size and tail, in one request as a rule."""
        budget = Tries(self.client, self.name, self._tail_size)
        while self._size is None:
            ranges = origin(self._url) not in self.client.rangeless
            extra = {"Range": f"bytes=-{self._tail_size}"} if ranges else {}
            try:
                reply = self.ask("GET", extra, budget)
                if reply.status == 206:
                    self._open_tail(reply, budget)
                elif reply.status == 200:
                    self._open_whole(reply, budget)
                else:
                    total = re.fullmatch(
                        r"bytes \*/(\d{1,18})", reply.headers.get("Content-Range", "")
                    )
                    if total:
                        self._size = int(total[1])
                    else:
                        self._open_head(budget)
            except TransientError as failure:
                budget.again(failure)

    def _open_tail(self, reply: Reply, budget: Tries) -> None:
        first, last, total = _content_range(reply)
        if total is None:
            total = last + 1
        length = reply.length
        if last != total - 1 or first != max(0, total - self._tail_size):
            # An old server that takes -N for 0-N. Its size is good.
            reply.close()
            self._size = total
            return
        if length is not None and length != last + 1 - first:
            reply.close()
            raise TransientError(f"{last + 1 - first} bytes were said, the body has {length}")
        self._size = total
        self._tail = self._fetch(first, total - first, reply, budget)

    def _open_whole(self, reply: Reply, budget: Tries) -> None:
        length = reply.length
        if length is not None and length <= TAIL:
            pieces: list[bytes] = []
            left = length
            while left:
                pieces.append(next_piece(reply, left, PIECE, budget))
                left -= len(pieces[-1])
            reply.done()
            self._tail = b"".join(pieces)
            self._size = length
            return
        self.client.rangeless.add(origin(self._url))
        self._tell_whole(length)
        self._size = length  # for what resumes it
        self._whole = self._download(reply)

    def _open_head(self, budget: Tries) -> None:
        reply = self.ask("HEAD", {}, budget)
        reply.drain()
        if reply.length is None:
            self._tell_whole(None)
            self._whole = self._download()
        else:
            self._size = reply.length


def _content_range(reply: Reply) -> tuple[int, int, int | None]:
    """First and last byte, and the total if it is said; TransientError without such a thing."""
    text = reply.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes[ =](\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", text.strip())
    if not found:
        reply.close()
        what = f"the Content-Range {text[:60]!r}" if text else "no Content-Range"
        raise TransientError(
            f"the server answered 206 with {what}",
            hint="it, or a proxy on the way, is broken",
            status=206,
        )
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if last < first or (total is not None and last >= total):
        reply.close()
        raise TransientError(
            f"the Content-Range {text[:60]!r} is impossible",
            hint="the server, or a proxy on the way, is broken",
            status=206,
        )
    return first, last, total


def _changed(how: str) -> TransientError:
    # Tried again once: the answer may have come from a cache on the way.
    return TransientError(
        f"the blob changed while it was read: {how}", hint="open it again", status=200, tries=2
    )
