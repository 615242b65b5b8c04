"""urllib3's connections, with an end to every wait and a look at the address connected to."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import urllib3
from urllib3 import connection as _connection
from urllib3 import exceptions
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import Timeout, make_headers, parse_url
from urllib3.util.ssl_ import create_urllib3_context

from stargz.errors import SourceError
from stargz.sources.framing import FramingError, StrictResponse
from stargz.sources.tries import TransientError

_BLOCK = 256 << 10


class _Current(threading.local):
    """What the request of this thread wants of its connection, and what it found."""

    deadline: float | None = None
    public_only = False
    private = False
    sock: Any = None
    opened: Callable[[socket.socket], None] | None = None
    # Of the thread, whatever it asks: who is told of its sockets, and whether it should give up.
    watch: Callable[[socket.socket], None] | None = None
    leave: Callable[[], bool] | None = None

    def take(self) -> Any:
        sock, self.sock = self.sock, None
        return sock if isinstance(sock, _Bounded) else None


current: _Current = _Current()


class _Bounded:
    """A socket whose receives end at `deadline`, however often a byte trickles in."""

    deadline: float | None = None
    patience: float | None = None

    def _wait(self) -> None:
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the time for the whole request is over")
            patience = left if self.patience is None else min(left, self.patience)
            self.settimeout(patience)  # type: ignore[attr-defined]

    def recv_into(self, *args: Any) -> int:
        self._wait()
        return super().recv_into(*args)  # type: ignore[misc,no-any-return]

    def sendall(self, data: Any, *args: Any) -> None:
        # The time-out of sendall is for all of the data: give each block its own.
        with memoryview(data) as view, view.cast("B") as whole:
            for at in range(0, len(whole), _BLOCK):
                self._wait()
                super().sendall(whole[at : at + _BLOCK], *args)  # type: ignore[misc]


class _Socket(_Bounded, socket.socket):
    pass


class _SSLSocket(_Bounded, ssl.SSLSocket):
    pass


class _PrivateAddressError(Exception):
    pass


def _is_private(sock: socket.socket) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    address = ipaddress.ip_address(sock.getpeername()[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global


class _Mixin:
    private = False
    sock: Any

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()  # type: ignore[misc]
        wait = plain.gettimeout()
        sock = _Socket(plain.family, plain.type, plain.proto, plain.detach())
        sock.settimeout(wait)
        sock.patience = wait
        sock.deadline = current.deadline
        self.private = _is_private(sock)
        if self.private and current.public_only:
            sock.close()
            raise _PrivateAddressError
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._use()
        self._tell()

    def request(self, *args: Any, **kwargs: Any) -> None:
        # A kept connection may have been made for another kind of request.
        if self.private and current.public_only:
            raise _PrivateAddressError
        if self.sock is not None:
            self._use()
            self._tell()
        super().request(*args, **kwargs)  # type: ignore[misc]

    def getresponse(self) -> Any:
        self._use()
        return super().getresponse()  # type: ignore[misc]

    def _use(self) -> None:
        """The socket is for this thread's request, which also ends in time while it is sent."""
        sock = self.sock
        if isinstance(sock, _Bounded):
            sock.patience = self.timeout  # type: ignore[attr-defined]
            sock.deadline = current.deadline
        current.sock = sock
        current.private = self.private

    def _tell(self) -> None:
        for opened in (current.opened, current.watch):
            if opened is not None:
                opened(self.sock)


class _HTTPConnection(_Mixin, _connection.HTTPConnection):
    response_class = StrictResponse


class _HTTPSConnection(_Mixin, _connection.HTTPSConnection):
    response_class = StrictResponse


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def timeout(seconds: float, deadline: float, answer: float | None = None) -> Timeout:
    """For the connection and for each wait for bytes; `answer`, if there is one, for those of
    the answer."""
    left = max(0.001, deadline - time.monotonic())
    return Timeout(connect=min(seconds, left), read=min(answer or seconds, left))


def move(deadline: float) -> None:
    """The request that this thread is sending has until then."""
    current.deadline = deadline
    if isinstance(current.sock, _Bounded):
        current.sock.deadline = deadline


def pool_manager(
    proxy: str | None, kept: int, ca_file: str | None, tls: bool
) -> urllib3.PoolManager:
    """Pools of connections, through a proxy if there is one; `kept` for each host."""
    options: dict[str, Any] = {"num_pools": 32, "maxsize": kept}
    if tls:
        options["ssl_context"] = _context(ca_file)
    manager: urllib3.PoolManager
    if proxy is None:
        manager = urllib3.PoolManager(**options)
    else:
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        try:
            url = parse_url(proxy)
            headers = make_headers(proxy_basic_auth=url.auth) if url.auth else None
            manager = urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
        except (exceptions.HTTPError, ValueError) as error:
            raise SourceError(
                "the proxy that the environment names is not an http or https URL; "
                "change HTTPS_PROXY or HTTP_PROXY"
            ) from error
    manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return manager


def _context(ca_file: str | None) -> ssl.SSLContext:
    context = create_urllib3_context()
    context.sslsocket_class = _SSLSocket
    if ca_file is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        if isinstance(error, ssl.SSLError):
            raise SourceError(f"{ca_file}: not a PEM file of certificates") from error
        raise SourceError(f"{ca_file}: {error.strerror}") from error
    return context


# What OpenSSL calls an answer in http.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})
_ENOUGH = 5.0  # seconds for a handshake on this machine


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS server listens there, whosever certificate it has; also where it is not known:
    what gives no answer is not to be sent a password by http."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent, but for the question
    try:
        with socket.create_connection((host, port), _ENOUGH) as sock:
            context.wrap_socket(sock, server_hostname=host).close()
    except ssl.SSLError as error:
        return error.reason not in _NO_TLS
    except OSError:
        return True
    return True


_UNKNOWN_AUTHORITY = "give its certificate authority as ca_file (--ca-file)"
# What another authority does not help with, by OpenSSL's X509_V_ERR_...
_UNTRUSTED = {
    9: "check this machine's clock",  # not yet valid
    10: "its certificate must be renewed, or this machine's clock is wrong",  # has expired
    62: "ask for it by a name that its certificate has",
    64: "ask for it by a name that its certificate has",  # an address
}


def explain(error: Exception) -> Exception:
    """What went wrong, as a TransientError that repeats no URL; other errors as they are."""
    if isinstance(error, TransientError):
        return error
    if isinstance(error, _PrivateAddressError):
        return TransientError(
            "the server sends us to a private address",
            hint="this is refused, as it could reach what is not for it",
            final=True,
        )
    if isinstance(error, exceptions.NameResolutionError):
        return TransientError("the name of the host is not known", hint="check the address")
    if isinstance(error, exceptions.ProxyError):
        return TransientError(
            "the proxy cannot be used", hint="check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
        )
    if isinstance(error, exceptions.SSLError | ssl.SSLError):
        reason = next((a for a in (error, *error.args) if isinstance(a, ssl.SSLError)), None)
        text = getattr(reason, "verify_message", "") or getattr(reason, "reason", "") or "TLS"
        if text in _NO_TLS:
            return TransientError(
                "the server speaks http and not https",
                hint="give plain_http (--plain-http) for a registry, or http:// in a URL",
                final=True,
            )
        known = isinstance(reason, ssl.SSLCertVerificationError)
        code = getattr(reason, "verify_code", 0)
        hint = _UNTRUSTED.get(code, _UNKNOWN_AUTHORITY) if known else "try again"
        return TransientError(f"no secure connection ({text.rstrip('.')})", hint=hint, final=known)
    if isinstance(error, exceptions.NewConnectionError):
        cause = error.__cause__
        reason_text = getattr(cause, "strerror", None) or "no connection"
        return TransientError(
            f"cannot connect: {reason_text}", hint="check the address, and that the server runs"
        )
    if isinstance(error, exceptions.ConnectTimeoutError):
        return TransientError("the server does not answer: no connection in time")
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return TransientError("the server stalled: no more bytes came in time")
    if isinstance(error, exceptions.ProtocolError | exceptions.HTTPError | OSError):
        malformed = next((a for a in error.args if isinstance(a, FramingError)), None)
        if malformed is not None:
            return TransientError(
                f"the answer is malformed: it has {malformed}",
                hint="the server, or a proxy on the way, is broken",
                tries=2,
            )
        if isinstance(error, exceptions.LocationValueError | exceptions.InvalidHeader):
            return TransientError("malformed URL or header", hint="check the address", final=True)
        return TransientError("the connection broke off")
    return error
