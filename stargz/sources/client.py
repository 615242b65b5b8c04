"""The HTTP client: one pool of connections, one policy for time-outs, retries and redirects.

urllib3 is imported when the first request is made.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from stargz.errors import SourceError, retryable
from stargz.sources.pace import THROTTLING, Pace, asked_to_wait, retry_after
from stargz.sources.tries import TransientError, Tries

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from urllib3 import BaseHTTPResponse, PoolManager

_log = logging.getLogger("stargz")

Body = bytes | Callable[[], BinaryIO | Iterable[bytes]] | None

MAX_REDIRECTS = 5
# Bytes read at a time: what a connection that breaks can lose, and what one wait is for.
PIECE = 256 << 10
# Bodies up to this are read to their end so that the connection can be used again; for more
# than that a new connection is cheaper.
_DRAIN = 64 << 10
_FEW = 3  # tries of what is optional
# What a redirect to another scheme, host or port still gets: anything else may be a secret.
_HARMLESS = frozenset({"accept", "accept-encoding", "content-type", "range", "user-agent"})
_MAX_PACES = 10_000  # hosts
_NAP = 0.2  # seconds after which who waits for a host looks whether it should
_REDIRECTS = (301, 302, 303, 307, 308)


def origin(url: str) -> str:
    """Scheme, host and port of a URL: what credentials belong to."""
    parts = _split(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def redact(url: str) -> str:
    """The URL as errors may show it: no user, no password, no query (it may be a signature)."""
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?..." if parts.query else "")


@lru_cache(64)  # of one request it is asked several times
def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Without secrets: a password may have what made it malformed.
        shown = re.sub(r"//.*@", "//", url).partition("?")[0]
        raise SourceError(f"{shown[:200]}: not a URL; check its host and port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceError(f"{url.partition('?')[0]}: not an http:// or https:// URL")
    return parts


def target(base: str, text: str) -> str | None:
    """The http or https URL that a server at `base` means by `text`; None if it is none."""
    if not text.isprintable() or text.startswith(" "):
        return None  # some of it would be left out, here or on the way
    try:
        url = urljoin(base, text)
        origin(url)
    except (ValueError, SourceError):
        return None
    return url


def harmless(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that are known to hold no secret."""
    return {key: value for key, value in headers.items() if key.lower() in _HARMLESS}


# What Go's servers, nginx and Apache answer to http where they speak https.
_TLS = re.compile(rb"(?i)HTTP request to an HTTPS server|plain HTTP\b.* to (HTTPS|an SSL)")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer with its whole body. `headers` finds names in any case; `url` is the one that
    answered, after redirects."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    url: str
    private: bool = False  # whether it came from a private address, and not through a proxy
    account: str | None = None  # which one a 401 is about, in words; None if none was known

    @property
    def wants_tls(self) -> bool:
        """Whether it was asked by http and says that it speaks https."""
        return self.status == 400 and self.url.startswith("http:") and bool(_TLS.search(self.data))

    def json(self) -> Any:
        """The body as JSON; ValueError if it is not."""
        try:
            return json.loads(self.data)
        except RecursionError:
            raise ValueError("nested too deeply") from None


class Reply:
    """An answer whose body is still to be read. Close it, or read it to its end."""

    def __init__(
        self,
        raw: BaseHTTPResponse,
        url: str,
        sock: Any,
        public_only: bool,
        count: Callable[[int], object],
    ) -> None:
        self._raw = raw
        self._sock = sock
        self._count = count
        self.status: int = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.url = url
        self.public_only = public_only
        self.private = False
        self.pace: Pace | None = None

    def until(self, deadline: float) -> None:
        """Give the body until then (time.monotonic)."""
        if self._sock is not None:
            self._sock.deadline = deadline

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the body, b"" at its end. TransientError if it breaks off."""
        try:
            piece = self._raw.read(size)
        except Exception as error:
            self._raw.close()
            raise explain(error) from error
        self._count(len(piece))
        return piece

    @property
    def length(self) -> int | None:
        """What Content-Length says; None if there is none."""
        text = self.headers.get("Content-Length", "")
        return int(text) if re.fullmatch(r"\d{1,18}", text) else None

    def said(self) -> str:
        """The status as an error names it."""
        reason = re.sub(r"[^ -~]", "?", self._raw.reason or "")[:60]
        return f"the server answered {self.status} {reason}".rstrip()

    def transient(self, answer: Response | None = None) -> TransientError:
        """For an answer that is worth asking again for; `answer` is what it says."""
        return TransientError(
            self.said(),
            status=self.status,
            retry_after=retry_after(self.headers),
            answer=answer,
            pace=self.pace if self.status in THROTTLING else None,
        )

    def drain(self) -> None:
        """Be done with it; the connection is kept if little is left of the body."""
        left = self._raw.length_remaining
        if left is not None and left <= _DRAIN:
            try:
                self._raw.read(_DRAIN + 1)
            except Exception:
                self._raw.close()
        else:
            self._raw.close()
        self._raw.release_conn()

    def ended(self) -> Response:
        """It with the beginning of its body, as far as that comes; be done with it."""
        data = b""
        with suppress(TransientError):
            data = self.read(_DRAIN)
        self.drain()
        return Response(self.status, self.headers, data, self.url)

    def done(self) -> None:
        """The body has been read: give the connection back."""
        self._raw.release_conn()

    def close(self) -> None:
        """Be done with it at once, whatever is on its way."""
        self._raw.close()


class Client:
    """Requests over a pool of kept connections; any number of threads may use it.

    `ca_file` is a PEM file of certificate authorities to trust instead of the system's.
    `timeout` is in seconds: for the connection, for each wait for bytes, and (plus what the
    size needs at `min_rate` bytes a second) for a whole request, so that a server that trickles
    ends too. An operation is tried `tries` times within `patience` seconds (plus the same),
    after pauses from `backoff` seconds up, doubled and jittered, or what Retry-After says, each
    at most `max_wait`. A host that answers 429 or 503 slows all threads down, and is waited for as
    it says; it may refuse for `host_patience` seconds (but `tries` times anyway). `headers` go to
    every host that is asked for, not to where it redirects.
    Proxies are those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY. A redirect from a public to a
    private address is refused unless `allow_private`.

    `fetched` counts the bytes of bodies that were read, `requests` what was asked for, with GET and
    HEAD; `close` logs both.
    """

    def __init__(
        self,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = 20.0,
        tries: int = 5,
        patience: float = 120.0,
        host_patience: float = 120.0,
        backoff: float = 0.25,
        max_wait: float = 30.0,
        min_rate: float = 16 << 10,
        headers: Mapping[str, str] | None = None,
        allow_private: bool = False,
        parallel: int = 6,
    ) -> None:
        self.ca_file: str | None = None if ca_file is None else os.fspath(ca_file)
        self.timeout = timeout
        self.tries: int = max(1, tries)
        self.patience = patience
        self.host_patience = host_patience
        self.backoff = backoff
        self.max_wait = max_wait
        self.min_rate = min_rate
        self.allow_private = allow_private
        self.parallel: int = max(1, parallel)
        self.closing: threading.Event = threading.Event()
        self.fetched: int = 0
        self.requests: int = 0
        self.rangeless: set[str] = set()  # origins that ignore Range
        version = getattr(sys.modules.get("stargz"), "__version__", "")
        self._headers = {
            "User-Agent": f"stargz/{version}",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        self._lock = threading.Lock()
        self._pools: dict[tuple[str | None, bool], PoolManager] = {}  # by proxy, and if TLS
        self._routes: dict[tuple[str, str], tuple[PoolManager, bool]] = {}  # by scheme and host
        self._executor: ThreadPoolExecutor | None = None
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._paces: dict[str, Pace] = {}  # by origin

    # --- requests -----------------------------------------------------------------------

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        name: str | None = None,
        limit: int = 4 << 20,
        tries: int | None = None,
        follow: bool = True,
        public_only: bool = False,
        size: int | None = None,
        optional: bool = False,
    ) -> Response:
        """One answer, whatever its status, with its whole body of at most `limit` bytes.

        Answers that retries may mend are retried, and are a SourceError (with `.status`) at
        the end, as are connections that fail; `name` is what it calls the URL. `body` is bytes,
        or a function that gives a new file or iterable for every try, of about `size` bytes
        (for the time it may take). Redirects of GET and HEAD are followed unless `follow` is
        false. `public_only` refuses to connect to private, loopback and link-local addresses.
        What is `optional` has a few tries of its own (see Tries: aside).
        """
        expected = len(body) if isinstance(body, bytes) else size or 0
        if optional:
            tries = min(self.tries, tries or _FEW)
        budget = Tries(
            self,
            name or redact(url),
            expected + limit,
            tries,
            patient=tries is None,
            aside=optional,
        )
        while True:
            try:
                return self.once(
                    method,
                    url,
                    headers=headers,
                    body=body,
                    budget=budget,
                    limit=limit,
                    follow=follow,
                    public_only=public_only,
                    size=expected,
                )
            except TransientError as failure:
                budget.again(failure)

    def once(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        budget: Tries,
        limit: int = 4 << 20,
        follow: bool = True,
        public_only: bool = False,
        size: int | None = None,
        bare: bool = False,
        patience: float | None = None,
    ) -> Response:
        """One try of `request`, within a budget: TransientError for what another may mend.

        `bare` is that of `send`; `patience` is how long, in seconds, the server may need to
        answer, instead of the client's time-out.
        """
        expected = len(body) if isinstance(body, bytes) else size or 0
        reply = self.send(
            method,
            url,
            headers,
            body,
            budget=budget,
            size=expected,
            follow=follow,
            public_only=public_only,
            bare=bare,
            patience=patience,
        )
        if retryable(reply.status):
            reply.until(budget.deadline(_DRAIN))
            raise reply.transient(reply.ended())
        data = self._body(reply, method, limit, budget)
        return Response(reply.status, reply.headers, data, reply.url, reply.private)

    def more_time(self, size: int, patience: float = 0.0) -> None:
        """For a `body` that is made as it is sent: the request under way in this thread has time
        for the next `size` bytes from now on, and for the answer (see `once`)."""
        from stargz.sources import connection

        seconds = max(self.timeout, patience)
        connection.move(time.monotonic() + seconds + size / self.min_rate)

    @staticmethod
    def _body(reply: Reply, method: str, limit: int, budget: Tries) -> bytes:
        pieces: list[bytes] = []
        got = 0
        while True:
            reply.until(budget.deadline(PIECE))
            if not (piece := reply.read(PIECE)):
                break
            pieces.append(piece)
            got += len(piece)
            if got > limit:
                reply.close()
                raise budget.error(f"the answer is more than {limit} bytes", "it is not read")
        reply.done()
        said = reply.length
        if method != "HEAD" and said is not None and got != said:
            raise TransientError(f"{got} bytes of an answer of {said} came")
        return b"".join(pieces)

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        *,
        budget: Tries,
        size: int = 0,
        follow: bool = True,
        public_only: bool = False,
        bare: bool = False,
        patience: float | None = None,
    ) -> Reply:
        """One try, redirects followed; the body of the answer is still to be read.

        Raises TransientError for a connection that fails or may not be made. With `bare` the
        client's own headers stay out, as after a redirect to another host. `size` is that of the
        request's body.
        """
        own = harmless(self._headers) if bare else self._headers
        sent = {**own, **(headers or {})}
        for _ in range(MAX_REDIRECTS + 1):
            pace = self._turn(url, budget)
            begun = time.monotonic()
            deadline = max(budget.deadline(size), begun + (patience or 0.0))
            reply, private = self._once(method, url, sent, body, deadline, public_only, patience)
            if reply.status not in THROTTLING:
                pace.answered()
            elif not budget.aside:
                pace.said = reply.said(), reply.status
                pace.refused(begun, asked_to_wait(reply.headers))
            reply.pace = None if budget.aside else pace
            location = reply.headers.get("Location")
            if (
                not follow
                or method not in ("GET", "HEAD")
                or reply.status not in _REDIRECTS
                or location is None
            ):
                return reply
            reply.drain()
            there = target(url, location)
            if there is None:
                raise TransientError(
                    "the server redirects to what is no http or https URL",
                    hint="check the address",
                    final=True,
                )
            if origin(url).startswith("https:") and not origin(there).startswith("https:"):
                raise TransientError(
                    f"the server redirects from https to plain http ({redact(there)})",
                    hint="this is refused; ask for the address that it means",
                    final=True,
                )
            if origin(there) != origin(url):
                sent = harmless(sent)
                public_only = public_only or not (private or self.allow_private)
            url = there
        raise TransientError(
            f"more than {MAX_REDIRECTS} redirects", hint="check the address", final=True
        )

    def _turn(self, url: str, budget: Tries) -> Pace:
        """Wait until the host may be asked. TransientError if that is too long."""
        from stargz.sources import connection

        place = origin(url)
        with self._lock:
            pace = self._paces.get(place)
            if pace is None:
                if len(self._paces) >= _MAX_PACES:
                    self._forget_paces()
                pace = Pace(self.backoff, self.max_wait, self.host_patience)
                self._paces[place] = pace
        with pace.queue(budget.rank) as enter:
            while wait := enter():
                if pace.blocked():
                    budget.check(pace)
                leave = connection.current.leave
                if leave is not None and leave():
                    raise TransientError("given up", final=True)
                begun = time.monotonic()
                if self.closing.wait(min(wait, _NAP)):
                    raise ValueError(f"{redact(url)}: the client is closed")
                budget.wait(time.monotonic() - begun)
        return pace

    def _forget_paces(self) -> None:
        """Those at rest; if none is, that of the host that may be asked the soonest."""
        paces = self._paces
        self._paces = {place: pace for place, pace in paces.items() if not pace.at_rest()}
        if len(self._paces) == len(paces):
            del self._paces[min(paces, key=lambda place: paces[place].blocked())]

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        deadline: float,
        public_only: bool,
        patience: float | None,
    ) -> tuple[Reply, bool]:
        from stargz.sources import connection

        if self.closing.is_set():
            raise ValueError(f"{redact(url)}: the client is closed")
        parts = _split(url)
        pool, proxied = self._pool(parts)
        now = connection.current
        now.deadline = deadline
        now.sock = None
        now.public_only = public_only and not proxied
        now.opened = self._opened
        try:
            raw = pool.urlopen(
                method,
                urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")),
                body=body() if callable(body) else body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=connection.timeout(self.timeout, deadline, patience),
            )
        except Exception as error:
            raise explain(error) from error
        if method in ("GET", "HEAD"):
            with self._lock:
                self.requests += 1
        reply = Reply(raw, url, now.take(), public_only, self._count)
        reply.private = now.private and not proxied
        return reply, proxied or now.private

    def _count(self, size: int) -> None:
        with self._lock:
            self.fetched += size

    def _opened(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
            late = self.closing.is_set()
        if late:
            shut(sock)

    def _pool(self, parts: SplitResult) -> tuple[PoolManager, bool]:
        """Connections to that host, and whether they go through a proxy."""
        host = parts.netloc.rpartition("@")[2]
        known = self._routes.get((parts.scheme, host))
        if known is not None:
            return known
        from stargz.sources import connection

        proxy = _proxy(parts.scheme, host)
        # Trusted certificates take 20 ms to load: only for those who need them.
        tls = parts.scheme == "https" or (proxy or "").startswith("https:")
        with self._lock:
            if (proxy, tls) not in self._pools:
                self._pools[proxy, tls] = connection.pool_manager(
                    proxy, self.parallel * 2, self.ca_file, tls
                )
            route = self._pools[proxy, tls], proxy is not None
            self._routes[parts.scheme, host] = route
            return route

    # --- threads, life ------------------------------------------------------------------

    def executor(self) -> ThreadPoolExecutor:
        """The `parallel` threads that fetch ranges; made when first wanted."""
        with self._lock:
            if self.closing.is_set():
                raise ValueError("the client is closed")
            if self._executor is None:
                from concurrent.futures import ThreadPoolExecutor

                self._executor = ThreadPoolExecutor(self.parallel, "stargz-http")
            return self._executor

    def close(self) -> None:
        """Close the connections; requests under way and afterwards raise ValueError."""
        if self.requests and not self.closing.is_set():
            asked = f"{self.requests:,} request{'s' if self.requests > 1 else ''}"
            _log.info("fetched %s bytes in %s", f"{self.fetched:,}", asked)
        self.closing.set()
        with self._lock:
            for sock in self._sockets:
                shut(sock)
            executor, self._executor = self._executor, None
            pools, self._pools = list(self._pools.values()), {}
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            pool.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a host."""
    if sys.platform == "linux" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None  # and what knows the rules need not be imported
    import urllib.request

    if urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(scheme) or proxies.get("all")


def shut(sock: socket.socket) -> None:
    """Whoever waits for it wakes up."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS server listens there, whosever certificate it has."""
    from stargz.sources import connection

    return connection.speaks_tls(host, port)


def explain(error: Exception) -> Exception:
    """What went wrong, as a TransientError that repeats no URL; other errors as they are."""
    from stargz.sources import connection

    return connection.explain(error)
