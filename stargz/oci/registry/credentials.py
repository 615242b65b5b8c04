"""Credentials for registries, from the files that other tools keep them in.

Docker's `config.json` (`auths`, `credHelpers`, `credsStore`, `identitytoken`,
`registrytoken`) and `auth.json` of containers/image, whose keys may be a host and the
beginning of a repository's path. Errors name the file, and never what is in it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import selectors
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stargz.errors import ACCOUNT_OPTIONS, SourceError, UsageError
from stargz.oci.formats.reference import DEFAULT_REGISTRY, Reference
from stargz.oci.registry.failures import words

_MAX_FILE = 4 << 20
_HELPER_NAME = re.compile(r"[a-z0-9-]{1,100}")
_HELPER_SECONDS = 30
_MAX_ANSWER = 1 << 20
_HUB_KEY = "https://index.docker.io/v1/"  # under which Docker Hub's credentials are kept


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password, or an identity token (for the oauth2 request of a token), or a
    token that is sent as it is. Never shown by repr."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    origin: str = field(default="", repr=False, compare=False)  # the file that they are from

    def described(self, scope: str) -> str:
        """Which account it is, in words without a secret."""
        if self.origin:
            return f"the account in {self.origin}"
        return f"the account from {'--dest-creds' if 'push' in scope else ACCOUNT_OPTIONS}"

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


def as_credentials(value: str | tuple[str, str] | Credentials) -> Credentials:
    """Of (user, password), or "user:password"; UsageError, which does not show it."""
    if isinstance(value, Credentials):
        return value
    if isinstance(value, str):
        user, colon, password = value.partition(":")
        if user and colon and _are_texts(user, password):
            return Credentials(user, password)
    elif isinstance(value, tuple) and len(value) == 2:
        user, password = value
        if _are_texts(user, password) and user and ":" not in user:
            return Credentials(user, password)
    raise UsageError("creds are (user, password), or the text 'user:password'")


def _are_texts(*values: object) -> bool:
    """Whether they can be sent: JSON, and an argument that is no UTF-8, may have halves of
    surrogate pairs."""
    for value in values:
        if not isinstance(value, str):
            return False
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return True


class CredentialStore:
    """Where credentials are looked for: `accounts`, by registry; `authfile` alone, or the usual
    files in their order.

    Those are REGISTRY_AUTH_FILE alone, or $XDG_RUNTIME_DIR/containers/auth.json,
    $XDG_CONFIG_HOME/containers/auth.json, and Docker's config.json (in $DOCKER_CONFIG or
    ~/.docker). The first that has some for the repository wins. An `authfile` must exist.
    """

    def __init__(
        self,
        authfile: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        accounts: Mapping[str, Credentials] | None = None,
    ) -> None:
        self._accounts = accounts or {}
        self._environ = os.environ if environ is None else environ
        given = authfile or self._environ.get("REGISTRY_AUTH_FILE")
        self._must_exist = bool(given)
        self._paths = [Path(given)] if given else self._usual()

    def _usual(self) -> list[Path]:
        environ = self._environ
        home = Path(environ.get("HOME") or Path.home())
        paths = []
        if environ.get("XDG_RUNTIME_DIR"):
            paths.append(Path(environ["XDG_RUNTIME_DIR"], "containers", "auth.json"))
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        paths.append(config / "containers" / "auth.json")
        docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
        paths.append(docker / "config.json")
        return paths

    def find(self, reference: Reference) -> Credentials | None:
        """The credentials for a repository; None where there are none.

        Raises SourceError for a file that cannot be read or a helper program that fails.
        """
        if reference.registry in self._accounts:
            return self._accounts[reference.registry]
        for path in self._paths:
            config = self._load(path)
            if config is not None:
                found = self._find_in(config, path, reference)
                if found is not None:
                    return replace(found, origin=str(path))
        return None

    def _load(self, path: Path) -> dict[str, Any] | None:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE + 1)
        except (FileNotFoundError, NotADirectoryError):
            if self._must_exist:
                raise
            return None
        except PermissionError:
            if self._must_exist:
                raise
            return None  # another user's home, as under sudo: as good as absent
        if len(data) > _MAX_FILE:
            raise SourceError(f"{path}: over {_MAX_FILE} bytes; is it a file of credentials?")
        if not data.strip():
            return {}
        try:
            config = json.loads(data)
        except (ValueError, RecursionError):
            # Its message could quote the file.
            raise SourceError(f"{path}: not JSON; 'docker login' or its like writes it") from None
        if not isinstance(config, dict):
            raise SourceError(f"{path}: not a JSON object; 'docker login' or its like writes it")
        return config

    def _find_in(
        self, config: dict[str, Any], path: Path, reference: Reference
    ) -> Credentials | None:
        keys = _keys(reference)
        helpers = _plain_keys(_table(config, "credHelpers", path))
        # Only docker knows helpers of single registries by Docker Hub's URL: it comes first.
        hub = [_plain_key(_HUB_KEY)] if reference.registry == DEFAULT_REGISTRY else []
        for key in [*hub, *keys]:
            if key in helpers:
                return self._ask(helpers[key], reference, path)
        if config.get("credsStore"):
            found = self._ask(config["credsStore"], reference, path)
            if found is not None:
                return found
        auths = _plain_keys(_table(config, "auths", path))
        for key in keys:
            # An empty entry only says that a helper has the secret.
            found = _entry(auths[key], key, path) if auths.get(key) else None
            if found is not None:
                return found
        return None

    def _ask(self, helper: object, reference: Reference, path: Path) -> Credentials | None:
        if not isinstance(helper, str) or not _HELPER_NAME.fullmatch(helper):
            raise SourceError(
                f"{path}: a credential helper's name is up to 100 of a-z, 0-9 and -; correct the "
                "file"
            )
        for server in _servers(reference):
            answer = self._run(f"docker-credential-{helper}", server, path)
            if answer is not None:
                username, secret = answer
                if username == "<token>":
                    return Credentials(identity_token=secret)
                return Credentials(username, secret)
        return None

    def _run(self, program: str, server: str, path: Path) -> tuple[str, str] | None:
        try:
            code, stdout, stderr = _output(program, server, self._environ)
        except subprocess.TimeoutExpired:
            raise SourceError(
                f"{path}: {program} did not answer within {_HELPER_SECONDS} s for {server}"
            ) from None
        except _TooMuchError:
            raise SourceError(
                f"{path}: {program} gave over {_MAX_ANSWER} bytes for {server}; is it a credential "
                "helper?"
            ) from None
        except OSError as error:
            raise SourceError(
                f"{path}: {program} cannot be run ({error.strerror}); install it, or give another "
                "file (--authfile)"
            ) from None
        if code:
            # What helpers say, in the words of the library that most of them are made with.
            if b"credentials not found" in stdout.lower():
                return None
            said = _words(stdout, stderr)
            raise SourceError(
                f"{path}: {program} failed for {server} (exit code {code})"
                + (f": {said}" if said else "")
            )
        try:
            answer = json.loads(stdout)
            username, secret = answer["Username"], answer["Secret"]
        except (ValueError, TypeError, KeyError, RecursionError):
            username = secret = None
        if not _are_texts(username, secret):
            said = _words(b"", stderr)
            raise SourceError(
                f"{path}: {program} gave no Username and Secret for {server}"
                + (f": {said}" if said else "")
            )
        return (username, secret) if username or secret else None


class _TooMuchError(Exception):
    """A helper gives more than any has to say."""


def _output(program: str, server: str, environ: Mapping[str, str]) -> tuple[int, bytes, bytes]:
    """What a helper gives for a server: exit code, standard output and standard error; OSError,
    TimeoutExpired, and _TooMuchError, which end it."""
    until = time.monotonic() + _HELPER_SECONDS
    command = [program, "get"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=dict(environ)
        ) as process,
        selectors.DefaultSelector() as waiting,
    ):
        assert process.stdin and process.stdout and process.stderr
        try:
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(server.encode())
            said = {stream.fileno(): bytearray() for stream in (process.stdout, process.stderr)}
            for number in said:
                waiting.register(number, selectors.EVENT_READ)
            while waiting.get_map():
                ready = waiting.select(until - time.monotonic())
                if time.monotonic() >= until:
                    raise subprocess.TimeoutExpired(command, _HELPER_SECONDS)
                for key, _ in ready:
                    piece = os.read(key.fd, 64 << 10)
                    if not piece:
                        waiting.unregister(key.fd)
                    said[key.fd] += piece
                    if len(said[key.fd]) > _MAX_ANSWER:
                        raise _TooMuchError
            code = process.wait(max(0.0, until - time.monotonic()))
        except BaseException:
            process.kill()
            raise
        stdout, stderr = map(bytes, said.values())
        return code, stdout, stderr


def _words(stdout: bytes, stderr: bytes) -> str:
    """What a helper says of its failure; a JSON value could be the secret."""
    said = [words(text) for text in (stdout, stderr) if not text.lstrip().startswith((b"{", b"["))]
    return "; ".join(dict.fromkeys(filter(None, said)))


def _keys(reference: Reference) -> list[str]:
    """What an entry for the repository may be filed under, without a scheme, the most specific
    first."""
    parts = reference.name.split("/")
    keys = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    if reference.registry == DEFAULT_REGISTRY:
        keys += ["index.docker.io", reference.api_host]
    return keys


def _servers(reference: Reference) -> list[str]:
    """What a helper may know a registry by, in the order to ask: as docker logs in there, as podman
    does, and as others do."""
    if reference.registry == DEFAULT_REGISTRY:
        return [_HUB_KEY, DEFAULT_REGISTRY, "index.docker.io", reference.api_host]
    return [reference.registry, f"https://{reference.registry}"]


def _plain_key(key: str) -> str:
    """A key without the scheme and API version that older clients wrote."""
    scheme, separator, rest = key.partition("://")
    if not separator or scheme not in ("http", "https"):
        return key
    return re.sub(r"/(v[12]/?)?$", "", rest)


def _plain_keys(table: dict[str, Any]) -> dict[str, Any]:
    """The table by plain keys; of several that are the same then, a URL's entry counts if it is
    Docker Hub's, else that of the host itself."""
    plain = {_plain_key(key): value for key, value in table.items()}
    plain.update({key: value for key, value in table.items() if "://" not in key and value})
    if table.get(_HUB_KEY):
        plain[_plain_key(_HUB_KEY)] = table[_HUB_KEY]
    return plain


def _table(config: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = config.get(name)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise SourceError(f"{path}: {name} is not a JSON object")
    return table


def _entry(entry: object, key: str, path: Path) -> Credentials | None:
    problem = SourceError(f"{path}: the entry for {key} is malformed; log in again")
    if not isinstance(entry, dict):
        raise problem
    names = ("auth", "username", "password", "identitytoken", "registrytoken")
    values = [entry.get(name) or "" for name in names]
    if not _are_texts(*values):
        raise problem
    auth, username, password, identity_token, registry_token = values
    if auth:
        try:
            decoded = base64.b64decode(auth, validate=True).decode()
        except (binascii.Error, ValueError):
            raise problem from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise problem
        password = password.rstrip("\0")  # some writers pad it
    found = Credentials(username, password, identity_token, registry_token)
    return None if found == Credentials() else found
