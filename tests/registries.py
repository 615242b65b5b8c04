"""A real registry on loopback (Debian's docker-registry), a token server, and an uploader.

with registry(tmp_path) as served:
    served.push(layouts.image(tmp_path / "layout", [tar]).path, "some/image", "latest")
    open_image(f"docker://{served.host}/some/image:latest")
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import http.server
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absence import absent
from layouts import OCI_MANIFEST
from servers import end, free_port, listens

from stargz.oci.formats.reference import Reference
from stargz.oci.registry.client import RegistryClient
from stargz.sources.client import Client

USER, PASSWORD = "tester", "se$cret:word"
SECRETS = (PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(), "the-identity")
NAME = "some/image"  # the repository of a Lying server
SERVICE = "test-registry"
ISSUER = "test-issuer"


def program(*names: str) -> str:
    """The path of the first of these programs that is installed; skips where none is."""
    for name in names:
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
        if found:
            return found
    absent(f"{names[0]} is not installed")


# --- keys and certificates --------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """An RSA key and a certificate for 127.0.0.1 and localhost, signed by itself."""

    key: Path
    certificate: Path

    def sign(self, data: bytes) -> bytes:
        """RS256."""
        command = [program("openssl"), "dgst", "-sha256", "-sign", str(self.key)]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    def der(self) -> str:
        """The certificate as JSON web signatures carry it."""
        lines = self.certificate.read_text().splitlines()
        return "".join(line for line in lines if "-----" not in line)


def identity(folder: Path) -> Identity:
    """A new Identity in `folder`."""
    made = Identity(folder / "key.pem", folder / "cert.pem")
    command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", made.key, "-out", made.certificate, "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return made


# --- tokens -----------------------------------------------------------------------------


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class TokenServer:
    """Gives tokens that the registry checks for real. What it does can be changed as it runs."""

    signer: Identity
    url: str = ""
    field_name: str = "token"  # or access_token
    expires_in: int | None = 300  # what it says; None: nothing
    stale: int = 0  # so many of the next tokens are already expired
    oauth: bool = True  # whether POST is known
    anonymous: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    refresh_token: str = "the-identity-token"
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def token(self, scopes: list[str], seconds: int = 300) -> str:
        """A signed token for "repository:NAME:ACTIONS" scopes, valid for so long."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self.signer.der()]}
        claims = {
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "exp": now + seconds,
            "nbf": now - 1000, "iat": now - 1000, "jti": os.urandom(8).hex(), "access": access,
        }  # fmt: skip
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{_base64(self.signer.sign(signed.encode()))}"

    def answer(self, method: str, query: dict[str, list[str]], headers: Any) -> tuple[int, Any]:
        """Status and JSON for one request."""
        authorization = headers.get("Authorization")
        with self._lock:
            self.requests.append({"method": method, "query": query, "authorization": authorization})
            stale, self.stale = self.stale > 0, max(0, self.stale - 1)
        if method == "POST":
            if not self.oauth:
                return 404, {}
            if query.get("refresh_token") != [self.refresh_token]:
                return 401, {}
        elif not (self.anonymous and authorization is None):
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if authorization != f"Basic {pair}":
                return 401, {"errors": [{"code": "UNAUTHORIZED"}]}
        scopes = [one for value in query.get("scope", []) for one in value.split(" ")]
        # The registry allows a minute for clocks that differ.
        answer: dict[str, Any] = {self.field_name: self.token(scopes, -120 if stale else 300)}
        if self.expires_in is not None:
            answer["expires_in"] = self.expires_in
        return 200, answer


@contextmanager
def token_server(signer: Identity, *, tls: bool = True, **options: Any) -> Iterator[TokenServer]:
    """A TokenServer that listens on loopback; with tls by the signer's own certificate."""
    server = TokenServer(signer, **options)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.urlsplit(self.path).query
            self._answer("GET", query)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer("POST", body.decode())

        def _answer(self, method: str, query: str) -> None:
            status, value = server.answer(method, urllib.parse.parse_qs(query), self.headers)
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler, signer if tls else None) as url:
        server.url = f"{url}/token"
        yield server


@contextmanager
def serving(
    handler: type[http.server.BaseHTTPRequestHandler], tls: Identity | None = None
) -> Iterator[str]:
    """A threaded web server on loopback; its URL without a slash at the end."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that breaks off is part of the tests

        def finish_request(self, request: Any, client_address: Any) -> None:
            if tls is None:
                return super().finish_request(request, client_address)
            # In the thread of the request: a client that hangs must not hold up others.
            with context.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)

    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            scheme = "https" if tls is not None else "http"
            yield f"{scheme}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# --- registries that lie ---------------------------------------------------------------


class Lying:
    """A server that answers as it is told, and remembers who asked what."""

    def __init__(self) -> None:
        self.url = ""
        self.delay = 0.0  # seconds before each answer
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.log: list[tuple[str, dict[str, str]]] = []

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    def reference(self, tag: str = "v1") -> Reference:
        """The image that `manifest` puts there."""
        return Reference(self.host, NAME, tag)

    def manifest(self, target: str, data: bytes, kind: str = OCI_MANIFEST) -> None:
        """Answer this for a tag or a digest."""
        path = f"/v2/{NAME}/manifests/{target}"
        self.answers[path] = (200, {"Content-Type": kind}, data)


@contextmanager
def lying(tls: Identity | None = None) -> Iterator[Lying]:
    """A Lying server on loopback."""
    server = Lying()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            server.log.append((self.path, headers))
            time.sleep(server.delay)
            status, more, body = server.answers.get(self.path, (404, {}, b"{}"))
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **more}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler, tls) as url:
        server.url = url
        yield server


def no_secret_in(error: BaseException) -> None:
    """Neither in its text nor in that of what led to it."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        assert cause not in seen
        seen.append(cause)
        assert not any(secret in str(cause) for secret in SECRETS), cause
        cause = cause.__cause__ or cause.__context__


# --- the registry -----------------------------------------------------------------------


@dataclass
class Registry:
    """A running registry."""

    host: str
    storage: Path
    tokens: TokenServer | None = None
    basic: bool = False
    process: subprocess.Popen[bytes] | None = None

    def request(
        self, method: str, path: str, body: bytes = b"", repository: str = "", **headers: str
    ) -> http.client.HTTPResponse:
        """One authorized request; AssertionError unless it succeeds."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.basic:
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        if self.tokens is not None and repository:
            headers["Authorization"] = f"Bearer {_push_token(self.tokens, repository)}"
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert answer.status < 300, (method, path, answer.status, text[:500])
        return answer

    def push_blob(self, repository: str, data: bytes) -> str:
        """Upload a blob; its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        start = f"/v2/{repository}/blobs/uploads/"
        answer = self.request("POST", start, repository=repository, Content_Length="0")
        location = urllib.parse.urlsplit(answer.headers["Location"])
        target = f"{location.path}?{location.query}&digest={urllib.parse.quote(digest)}"
        kind = "application/octet-stream"
        self.request("PUT", target, data, repository, Content_Type=kind)
        return digest

    def push_manifest(self, repository: str, tag: str, data: bytes, media_type: str) -> str:
        """Upload a manifest or an index under a tag or its digest; its digest."""
        path = f"/v2/{repository}/manifests/{tag}"
        self.request("PUT", path, data, repository, Content_Type=media_type)
        return "sha256:" + hashlib.sha256(data).hexdigest()

    def push(self, layout: Path, repository: str, tag: str = "latest") -> str:
        """Upload every image of a layout; what its index lists last gets the tag. Its digest."""
        entries = json.loads((layout / "index.json").read_text())["manifests"]
        pushed: set[str] = set()
        for entry in entries:
            self._push(layout, repository, entry, pushed)
        last = entries[-1]
        data = _blob(layout, last)
        return self.push_manifest(repository, tag, data, last["mediaType"])

    def _push(self, layout: Path, repository: str, entry: dict[str, Any], pushed: set[str]) -> None:
        if entry["digest"] in pushed:
            return
        pushed.add(entry["digest"])
        data = _blob(layout, entry)
        if not entry["mediaType"].endswith(("image.manifest.v1+json", "image.index.v1+json")):
            self.push_blob(repository, data)
            return
        found = json.loads(data)
        config = [found["config"]] if "config" in found else []
        for child in [*config, *found.get("layers", []), *found.get("manifests", [])]:
            self._push(layout, repository, child, pushed)
        self.push_manifest(repository, entry["digest"], data, entry["mediaType"])


def _blob(layout: Path, entry: dict[str, Any]) -> bytes:
    return (layout / "blobs" / Path(*entry["digest"].split(":"))).read_bytes()


@functools.lru_cache
def _cached_token(signer: Identity, repository: str) -> str:
    return TokenServer(signer).token([f"repository:{repository}:pull,push"])


def _push_token(tokens: TokenServer, repository: str) -> str:
    return _cached_token(tokens.signer, repository)


@contextmanager
def registry(
    folder: Path,
    *,
    basic: bool = False,
    tokens: TokenServer | None = None,
    tls: Identity | None = None,
    at: int | None = None,
) -> Iterator[Registry]:
    """A registry that keeps what it has below `folder`, open to all, or with an account
    (USER, PASSWORD), or with the tokens of a token server; by https, if it has an identity, and at
    a port, if one is given."""
    executable = program("docker-registry", "registry")
    folder.mkdir(parents=True, exist_ok=True)
    storage = folder / "storage"
    for attempt in range(3):
        port = at or free_port()
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(storage)}},
            "http": {"addr": f"127.0.0.1:{port}"},
            # What foreign layers may refer to; by default nothing.
            "validation": {"manifests": {"urls": {"allow": ["^https://"]}}},
        }
        if tls is not None:
            config["http"]["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
        if basic:
            users = folder / "htpasswd"
            command = [program("htpasswd"), "-Bbn", "-C", "4", USER, PASSWORD]
            users.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(users)}}
        elif tokens is not None:
            config["auth"] = {
                "token": {
                    "realm": tokens.url,
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": str(tokens.signer.certificate),
                }
            }
        path = folder / "config.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([executable, "serve", path], stdout=log, stderr=log)
        try:
            if _listens(port, process):
                yield Registry(f"127.0.0.1:{port}", storage, tokens, basic, process)
                return
        finally:
            end(process)
        assert attempt < 2, (folder / "log").read_text()


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        if listens(process, port):
            return True
        time.sleep(0.01)
    return False


@contextmanager
def quick(**options: Any) -> Iterator[RegistryClient]:
    """A client that does not try for long."""
    with Client(backoff=0.01, tries=2, host_patience=0) as http:
        yield RegistryClient(http=http, **options)
