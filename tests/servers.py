"""Real servers for tests, on 127.0.0.1: nginx over a folder, any program that serves HTTP, and
a proxy between client and server that counts, logs and breaks things.

    with nginx(tmp_path) as upstream, FaultProxy(upstream) as proxy:
        proxy.plan = [None, Fault(close_after=100)]       # the first request is let through
        stargz.open(f"{proxy.url}/layer.stargz")
        assert proxy.requests == 3
        assert proxy.log[1].range == "bytes=0-99"

`proxy.plan` is a list with a Fault or None for each request to come (None for those behind its
end), or a function of the Request that returns one; SignedURLs is such a function. Set it at any
time, from any thread; `proxy.reset()` forgets plan, log and counts.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from descriptors import open_files

_BLOCK = 64 << 10
_HOP = {"connection", "keep-alive", "transfer-encoding", "proxy-connection", "te", "upgrade"}


# --- programs ---------------------------------------------------------------------------------


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def closed_port() -> int:
    """A TCP port that refuses connections, as long as this process lives: nobody else gets it."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    _closed.append(sock)
    return int(sock.getsockname()[1])


_closed: list[socket.socket] = []


def end(process: subprocess.Popen[bytes]) -> None:
    """Have a program end, by force if need be."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it is this very process that accepts connections on a port: another program may
    have taken it meanwhile, and would be spoken to instead."""
    ours = {str(path) for path in open_files(process.pid)}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                here = words[1].endswith(f":{port:04X}") and words[3] == "0A"
                if here and f"socket:[{words[9]}]" in ours:
                    return True
    return False


@contextlib.contextmanager
def running(
    command: Sequence[str | os.PathLike[str]], port: int, log: Path, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A server program as child process, from when it accepts on `port` until the end of the
    block. Its output goes to the file `log`, which the error shows if it does not start."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
        )
    try:
        for _ in range(1000):
            if process.poll() is not None:
                break
            if listens(process, port):
                break
            time.sleep(0.01)
        else:
            raise TimeoutError(f"{command[0]} does not accept connections: {log.read_text()}")
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}: {log.read_text()}")
        yield process
    finally:
        end(process)


def find_nginx() -> str | None:
    """The nginx program; Debian has it where only root looks."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


@contextlib.contextmanager
def nginx(
    root: Path,
    state: Path,
    extra: str = "",
    address: str = "127.0.0.1",
    prefix: Callable[..., list[str]] = lambda *command: list(command),
) -> Iterator[str]:
    """nginx serving the folder `root`; gives its URL, without a slash at the end. Its own files
    go to the folder `state`; `extra` is more configuration for its server block; `prefix` makes
    the command one that runs it elsewhere, where it has another `address`."""
    port = free_port()
    state.mkdir(parents=True, exist_ok=True)
    temporary = "".join(
        f"{kind}_temp_path {state}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = state / "nginx.conf"
    config.write_text(
        f"""daemon off;
master_process off;
pid {state}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    {temporary}
    default_type application/octet-stream;
    server {{
        listen {address}:{port};
        root {root};
        {extra}
    }}
}}
"""
    )
    program = find_nginx()
    assert program is not None
    command = prefix(program, "-p", str(state), "-e", "stderr", "-c", str(config))
    with running(command, port, state / "log"):
        yield f"http://{address}:{port}"


# --- bytes ------------------------------------------------------------------------------------


class Raw:
    """A server that answers every request with the same bytes, and if `flood`, with more for as
    long as the client takes them; then it closes. `sent` counts what the clients took."""

    def __init__(self, answer: bytes, flood: bytes = b"") -> None:
        self.answer = answer
        self.flood = flood
        self.requests = 0
        self.sent = 0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.url = f"http://{self.host}"
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._open.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(_BLOCK)
                if not piece:
                    return
                head += piece
            self.requests += 1
            client.sendall(self.answer)
            while self.flood:
                self.sent += client.send(self.flood)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listening.close()


# --- faults -----------------------------------------------------------------------------------


@dataclass
class Request:
    """One request, as it came in, and what was answered."""

    number: int
    method: str
    path: str  # with its query
    headers: dict[str, str]  # lower-case names
    status: int = 0
    sent: int = 0  # bytes of body
    received: int = 0  # bytes of the request's own body

    @property
    def range(self) -> str:
        """Its Range header; "" if it has none."""
        return self.headers.get("range", "")

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)


@dataclass(frozen=True)
class Fault:
    """What to do with one request. Without `status` it goes to the real server."""

    status: int | None = None  # answer this, and do not ask the server
    headers: dict[str, str] = field(default_factory=dict)  # set in the answer
    body: bytes = b""  # of such an answer
    drop: tuple[str, ...] = ()  # headers to leave out of the answer
    ignore_range: bool = False  # ask the server for everything
    ask_range: str | None = None  # ask the server for this range instead
    path: str | None = None  # ask the server for this path instead
    delay: float = 0  # seconds before the answer
    close_after: int | None = None  # bytes of body, then the connection is closed
    reset: bool = False  # ... with RST
    stall_after: int | None = None  # bytes of body, then nothing, until the client leaves
    trickle: float | None = None  # seconds between single bytes of the body
    trickle_head: float | None = None  # likewise, of the status line and the headers
    corrupt: Callable[[bytes], bytes] | None = None  # each block of the body; same length
    refuse: bool = False  # close without an answer
    cut_request: int | None = None  # so many bytes of the request's body are passed on, then both
    # connections are closed (with reset: by RST)
    stall_request: int | None = None  # so many bytes of it are read, then nothing more
    deaf: bool = False  # the server gets and answers the request, but the answer is lost


Plan = Callable[[Request], Fault | None] | list[Fault | None]


def flip(block: bytes) -> bytes:
    """Every byte wrong: for Fault(corrupt=flip)."""
    return bytes(byte ^ 0x55 for byte in block)


# What a server may send as a URL, and nobody can ask for.
NO_URLS = (
    "http://[::1",
    "https://[::1/x",
    "//[bad",
    "//[1:::2]/x",
    "http://[::ffff:1.2.3.4.5]/x",
    "http://host:99999/x",
    "http://host:x/",
    "//host:-1/",
    "http://@/x",
    "http://user:word@:80/",
)


def redirect(url: str, status: int = 307) -> Fault:
    """Sent elsewhere."""
    return Fault(status=status, headers={"Location": url})


class SignedURLs:
    """A plan: paths without a signature are redirected to `base` (another proxy's URL, or its
    own) with one that is good until `expire` is called, or for `uses` requests."""

    def __init__(self, base: str, uses: int | None = None, status: int = 403) -> None:
        self.base = base
        self.uses = uses
        self.status = status
        self.issued = 0
        self.refused = 0
        self._valid: dict[str, int] = {}
        self._lock = threading.Lock()

    def expire(self) -> None:
        """Signatures given out so far are no longer good."""
        with self._lock:
            self._valid.clear()

    def __call__(self, request: Request) -> Fault | None:
        signature = request.query.get("signature", [""])[0]
        path = urlsplit(request.path).path
        with self._lock:
            if not signature:
                self.issued += 1
                self._valid[f"secret-{self.issued}"] = 0
                return redirect(f"{self.base}{path}?signature=secret-{self.issued}")
            used = self._valid.get(signature)
            if used is None or (self.uses is not None and used >= self.uses):
                self.refused += 1
                return Fault(status=self.status, body=b"expired")
            self._valid[signature] = used + 1
        return Fault(path=path)


class FaultProxy:
    """A threaded HTTP/1.1 reverse proxy in front of the server at `upstream` (an http URL).

    The client's Host header is passed on, so that a server's own Locations lead back through
    the proxy. With `certificate` (a PEM file, key included) it speaks TLS to the client.
    """

    def __init__(self, upstream: str, certificate: Path | None = None) -> None:
        parts = urlsplit(upstream)
        assert parts.scheme == "http" and parts.hostname
        self.upstream = (parts.hostname, parts.port or 80)
        self.plan: Plan = []
        self.log: list[Request] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.context = context
            scheme = "https"
        self.port = int(self._server.server_address[1])
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def requests(self) -> int:
        """How many requests came."""
        return len(self.log)

    @property
    def bytes(self) -> int:
        """How many bytes of bodies were sent."""
        return sum(request.sent for request in self.log)

    def reset(self, plan: Plan | None = None) -> None:
        """Begin anew, with another plan."""
        with self.lock:
            self.plan = [] if plan is None else plan
            self.log = []

    def close(self) -> None:
        """Stop; connections that are open are closed."""
        self.stopping.set()
        self._server.shutdown()
        self._server.close_all()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def arrived(self, request: Request) -> Fault:
        """Log the request and choose its fault."""
        with self.lock:
            request.number = len(self.log)
            self.log.append(request)
            plan = self.plan
            if isinstance(plan, list):
                return (plan.pop(0) if plan else None) or Fault()
        return plan(request) or Fault()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 64
    proxy: FaultProxy
    context: ssl.SSLContext | None = None

    def __init__(self, *args: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        self.proxy.connections += 1
        try:
            if self.context is not None:
                request.settimeout(10)
                try:
                    request = self.context.wrap_socket(request, server_side=True)
                except OSError:
                    return
            super().process_request_thread(request, client_address)
        finally:
            self.open.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this is for."""

    def close_all(self) -> None:
        for request in list(self.open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class _GoneError(ConnectionError):
    """The connection to the client ends here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.upstream: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, http.client.HTTPException):
            self.close_connection = True

    def _serve(self) -> None:
        proxy = self.server.proxy
        # What comes in several lines is one list.
        headers = {key.lower(): ", ".join(self.headers.get_all(key, [])) for key in self.headers}
        request = Request(0, self.command, self.path, headers)
        fault = proxy.arrived(request)
        pieces = self._body(request, headers)
        if fault.cut_request is not None:
            self._cut_request(request, fault, headers, pieces)
        if fault.stall_request is not None:
            while request.received < fault.stall_request and next(pieces, b""):
                pass
            self._hang()
        body = b"".join(pieces)
        if fault.refuse:
            raise _GoneError
        if fault.delay:
            proxy.stopping.wait(fault.delay)
        if fault.status is not None:
            answer = {"Content-Length": str(len(fault.body)), **fault.headers}
            self._send(request, fault, fault.status, answer, iter([fault.body]))
            return
        response = self._ask(request, fault, headers, body)
        if fault.deaf:
            response.read()
            self._cut(fault.reset)
        answer = {
            key: value
            for key, value in response.getheaders()
            if key.lower() not in _HOP and key.lower() not in {d.lower() for d in fault.drop}
        }
        for key, value in fault.headers.items():
            for known in [k for k in answer if k.lower() == key.lower()]:
                del answer[known]
            answer[key] = value
        blocks = iter(lambda: response.read(_BLOCK), b"")
        self._send(request, fault, response.status, answer, blocks)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def _body(self, request: Request, headers: dict[str, str]) -> Iterator[bytes]:
        chunked = "chunked" in headers.get("transfer-encoding", "")
        size = 0 if chunked else int(headers.get("content-length", 0))
        while True:
            if chunked:
                size = int(self.rfile.readline().split(b";")[0], 16)
            last = chunked and not size
            while size:
                piece = self.rfile.read1(min(size, _BLOCK))
                if not piece:
                    raise _GoneError
                size -= len(piece)
                request.received += len(piece)
                yield piece
            if not chunked:
                return
            self.rfile.readline()
            if last:
                return

    def _cut_request(
        self, request: Request, fault: Fault, headers: dict[str, str], pieces: Iterator[bytes]
    ) -> None:
        """Half a request, as the server sees it."""
        left = fault.cut_request or 0
        passed = {key: value for key, value in headers.items() if key not in _HOP}
        passed.pop("content-length", None)
        upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=60)
        upstream.putrequest(request.method, request.path, skip_host=True)
        for key, value in {**passed, "transfer-encoding": "chunked"}.items():
            upstream.putheader(key, value)
        upstream.endheaders()
        with contextlib.suppress(OSError):
            while left and (piece := next(pieces, b"")[:left]):
                left -= len(piece)
                upstream.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        upstream.close()
        self._cut(fault.reset)

    def _ask(
        self, request: Request, fault: Fault, headers: dict[str, str], body: bytes
    ) -> http.client.HTTPResponse:
        passed = {key: value for key, value in headers.items() if key not in _HOP}
        if fault.ignore_range:
            passed.pop("range", None)
        if fault.ask_range is not None:
            passed["range"] = fault.ask_range
        if body or request.method in ("PUT", "POST", "PATCH"):
            passed["content-length"] = str(len(body))
        path = request.path if fault.path is None else fault.path
        for fresh in (False, True):
            if self.upstream is None or fresh:
                self.upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=60)
            try:
                self.upstream.request(request.method, path, body or None, passed)
                return self.upstream.getresponse()
            except (http.client.BadStatusLine, ConnectionError):
                self.upstream.close()
                if fresh:
                    raise
        raise AssertionError

    def _send(
        self,
        request: Request,
        fault: Fault,
        status: int,
        headers: dict[str, str],
        blocks: Iterator[bytes],
    ) -> None:
        request.status = status
        lengths = [v for k, v in headers.items() if k.lower() == "content-length"]
        bodiless = request.method == "HEAD" or status in (204, 304)
        chunked = not lengths and not bodiless
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Status')}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        lines += ["Transfer-Encoding: chunked"] if chunked else []
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self._write(head, fault.trickle_head)
        if bodiless:
            list(blocks)
            return
        for block in blocks:
            data = fault.corrupt(block) if fault.corrupt else block
            for limit in (fault.close_after, fault.stall_after):
                if limit is not None:
                    data = data[: max(0, limit - request.sent)]
            request.sent += len(data)
            if data and chunked:
                self._write(b"%x\r\n" % len(data), None)
            self._write(data, fault.trickle)
            if data and chunked:
                self._write(b"\r\n", None)
            if fault.close_after is not None and request.sent >= fault.close_after:
                self._cut(fault.reset)
            if fault.stall_after is not None and request.sent >= fault.stall_after:
                self._stall()
        if chunked:
            self._write(b"0\r\n\r\n", None)

    def _write(self, data: bytes, pause: float | None) -> None:
        if pause is None:
            self.wfile.write(data)
            return
        for at in range(len(data)):
            self.wfile.write(data[at : at + 1])
            if self.server.proxy.stopping.wait(pause):
                raise _GoneError

    def _cut(self, reset: bool) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raise _GoneError

    def _hang(self) -> None:
        """Neither read nor write, until the test has had enough."""
        self.server.proxy.stopping.wait()
        raise _GoneError

    def _stall(self) -> None:
        """Nothing more, until the client or the test has had enough."""
        self.connection.settimeout(0.05)
        while not self.server.proxy.stopping.is_set():
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        raise _GoneError
