"""A registry for uploads alone, which can resume them, and lie.

with upload_server() as server:
    server.range = lambda size: "0-99999999999"
    open_destination(f"docker://{server.host}/some/image")
"""

from __future__ import annotations

import hashlib
import http.server
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from registries import serving


@dataclass
class Asked:
    """One request; header names in lower case."""

    method: str
    path: str  # with its query
    headers: dict[str, str]
    received: int = 0  # bytes of body

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "")


@dataclass
class UploadServer:
    """What it has and what it was asked; what it does can be changed as it runs."""

    url: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    log: list[Asked] = field(default_factory=list)
    # An answer instead of what would be done: status and headers, or None.
    answer: Callable[[Asked], tuple[int, dict[str, str]] | None] = lambda asked: None
    location: Callable[[str], str] = lambda path: path  # of a session's path, with its query
    range: Callable[[int], str] = lambda size: f"0-{max(0, size - 1)}"
    stated: Callable[[str], str] = lambda digest: digest  # the digest that it says it has
    takes: int | None = None  # bytes that it keeps of each body
    forgetful: bool = False  # asked for a session, it knows of none
    arrived: threading.Event = field(default_factory=threading.Event)  # bytes of a body

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    def methods(self) -> list[str]:
        return [asked.method for asked in self.log]

    def writes(self) -> list[str]:
        """All methods but HEAD: before it is written, and after a failure, a blob is looked for."""
        return [method for method in self.methods() if method != "HEAD"]

    def asked(self, method: str) -> list[Asked]:
        return [asked for asked in self.log if asked.method == method]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: UploadServer

    def _serve(self) -> None:
        state = self.server_state
        headers = {key.lower(): value for key, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers)
        state.log.append(asked)
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        name = parts.path.rpartition("/")[2]
        other = state.answer(asked)
        if other is not None:
            for _ in self._body(asked):
                pass
            self._send(*other)
            return
        if self.command == "HEAD":
            data = state.blobs.get(name)
            if data is None:
                self._send(404, {})
            else:
                self._send(200, {"Content-Length": str(len(data))})
        elif self.command == "POST":
            for _ in self._body(asked):
                pass
            name = uuid.uuid4().hex
            state.sessions[name] = bytearray()
            self._session(202, name)
        elif name not in state.sessions or (self.command == "GET" and state.forgetful):
            self._send(404, {})
            self.close_connection = True
        elif self.command == "GET":
            self._session(204, name)
        elif self.command == "DELETE":
            del state.sessions[name]
            self._send(204, {})
        else:
            self._append(asked, name)
            if self.command == "PATCH":
                self._session(202, name)
                return
            data = bytes(state.sessions[name])
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            if query.get("digest") != [digest]:
                body = b'{"errors":[{"code":"DIGEST_INVALID"}]}'
                self._send(400, {"Content-Length": str(len(body))}, body)
                return
            state.blobs[digest] = data
            del state.sessions[name]
            self._send(201, {"Docker-Content-Digest": state.stated(digest)})

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _append(self, asked: Asked, name: str) -> None:
        session = self.server_state.sessions[name]
        where = asked.headers.get("content-range")
        if where is not None:
            first, last = map(int, where.split("-"))
            assert last + 1 - first == int(asked.headers["content-length"])
            if first != len(session):
                self._send(416, {})
                raise ConnectionError
        for piece in self._body(asked):
            session += piece
            self.server_state.arrived.set()
        if self.server_state.takes is not None:
            del session[len(session) - asked.received + self.server_state.takes :]

    def _body(self, asked: Asked) -> Iterator[bytes]:
        size = 0 if asked.chunked else int(asked.headers.get("content-length", 0))
        while True:
            if asked.chunked:
                size = int(self.rfile.readline(), 16)
            last = not size
            while size:
                piece = self.rfile.read1(min(size, 1 << 16))
                if not piece:
                    raise ConnectionError
                asked.received += len(piece)
                size -= len(piece)
                yield piece
            if asked.chunked:
                self.rfile.readline()
            if last or not asked.chunked:
                return

    def _session(self, status: int, name: str) -> None:
        state = self.server_state
        path = f"{urlsplit(self.path).path.partition('/uploads/')[0]}/uploads/{name}?state=a%2Fb"
        where = state.range(len(state.sessions[name]))
        self._send(status, {"Location": state.location(path), "Range": where})

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in {"Content-Length": "0", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def upload_server() -> Iterator[UploadServer]:
    """An UploadServer on loopback."""
    state = UploadServer()
    with serving(type("Handler", (_Handler,), {"server_state": state})) as url:
        state.url = url
        yield state
