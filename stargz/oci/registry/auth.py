"""Authorization for registries: challenges, Basic, and tokens (Bearer).

RFC 7617 (Basic), and the distribution project's token and oauth2 specifications. Two rules hold
throughout. Credentials go to the registry that they are for, and to the token server that it
names, over https; a token goes to the registry alone. And a registry on a public address cannot
send us to a token server on a private one.
"""

from __future__ import annotations

import ipaddress
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from stargz.errors import RegistryError
from stargz.oci.registry.credentials import Credentials
from stargz.oci.registry.failures import answered, as_registry_error, log_in, words_of
from stargz.oci.registry.fields import Challenge, parse_challenges
from stargz.sources.client import Client, Response

_DEFAULT_SECONDS = 60.0  # of a token whose server does not say (token specification)
_MAX_SECONDS = 86400.0
_MAX_ANSWER = 1 << 20
_MAX_SECRETS = 1000
_CLIENT_ID = "stargz"

_BEARER = re.compile(r"[!-~]+")  # what may stand in a header after "Bearer "


@dataclass
class _Slot:
    """The authorization for one scope; whoever makes it holds the lock, others wait for it,
    and share its failure too: else a token server that hangs would be waited for by each."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    value: str | None = None
    until: float = 0.0
    made: int = 0
    failed: RegistryError | None = None


class Authorizer:
    """The Authorization headers for one host of a registry; any number of threads may ask.

    `url` is the host's own URL, `find` gives the credentials for it when they are first
    needed. Nothing is asked of it before the host has sent a challenge.
    """

    def __init__(self, http: Client, url: str, find: Callable[[str], Credentials | None]) -> None:
        self._http = http
        self._url = urlsplit(url)
        self._find = find
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._challenges: list[Challenge] = []
        self._secrets: set[str] = set()  # that were sent
        self._accounts: dict[str, str] = {}  # in words, by the scope that they were found for
        # Whether the host itself is on a private address: then its token server may be too.
        self.private = False

    def current(self, scope: str, source: str) -> str | None:
        """The Authorization header to begin with for a scope, or several with a space between
        them; None where none is known yet. The account is that for the first."""
        with self._lock:
            challenges = self._challenges
        # The scope in them is that of another request.
        return self._value(scope, None, challenges, source, False) if challenges else None

    def refusal(self, answer: Response, scope: str) -> Response:
        """An answer with the account that was found for a scope, in words, and without the secrets
        that were sent, which it may repeat."""
        return replace(answer, data=self.masked(answer.data), account=self._accounts.get(scope))

    @property
    def challenged(self) -> bool:
        """Whether the host has said how it wants to be asked."""
        return bool(self._challenges)

    def masked(self, data: bytes) -> bytes:
        """What a server says, without the secrets that it was sent."""
        with self._lock:
            secrets = sorted(self._secrets, key=len, reverse=True)
        for secret in secrets:
            data = data.replace(secret.encode(), b"***")
        return data

    def learn(self, answer: Response) -> None:
        """Take the challenge of an answer, if it has one."""
        challenges = parse_challenges(answer.headers.get("WWW-Authenticate", ""))
        if challenges:
            with self._lock:
                self._challenges = challenges

    def renew(
        self, scope: str, refused: str | None, answer: Response | None, source: str
    ) -> str | None:
        """A header other than `refused`, which got a 401 or 403; None where there is none."""
        if answer is not None:
            self.learn(answer)
        with self._lock:
            challenges = self._challenges
        if not challenges:
            return None
        value = self._value(scope, refused, challenges, source, answer is not None)
        return None if value == refused else value

    def _value(
        self,
        scope: str,
        refused: str | None,
        challenges: list[Challenge],
        source: str,
        own: bool,
    ) -> str | None:
        with self._lock:
            slot = self._slots.setdefault(scope, _Slot())
        before = slot.made
        with slot.lock:  # single flight: one asks the token server, the others wait
            if slot.value and slot.value != refused and time.monotonic() < slot.until:
                return slot.value
            if slot.failed is not None and slot.made != before:
                failed = slot.failed
                error = RegistryError(failed.message, failed.source, failed.status)
                error.throttled = failed.throttled
                raise error from failed
            slot.value, slot.failed = None, None
            try:
                slot.value, seconds = self._make(scope, challenges, source, own)
            except RegistryError as error:
                slot.failed = error
                raise
            finally:
                slot.made += 1
            slot.until = time.monotonic() + seconds
            if slot.value:
                self._sent(slot.value.partition(" ")[2])
            return slot.value

    def _sent(self, *secrets: str) -> None:
        with self._lock:
            if len(self._secrets) > _MAX_SECRETS:
                self._secrets.clear()
            self._secrets.update(filter(None, secrets))

    def _make(
        self, scope: str, challenges: list[Challenge], source: str, own: bool
    ) -> tuple[str | None, float]:
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        credentials = self._find(scope)
        if credentials is not None:
            self._accounts[scope] = credentials.described(scope)
            self._sent(credentials.password, credentials.identity_token, credentials.registry_token)
        if "bearer" in by_scheme:
            if credentials is not None and credentials.registry_token:
                return _bearer(credentials.registry_token, source), _MAX_SECONDS
            return self._token(by_scheme["bearer"], scope, credentials, source, own)
        if "basic" in by_scheme and credentials is not None and credentials.username:
            return credentials.basic(), _MAX_SECONDS
        return None, 0.0

    # --- tokens -------------------------------------------------------------------------

    def _token(
        self,
        challenge: Challenge,
        scope: str,
        credentials: Credentials | None,
        source: str,
        own: bool,
    ) -> tuple[str, float]:
        realm = self._realm(challenge.parameters.get("realm", ""), source)
        service = challenge.parameters.get("service")
        stated = challenge.parameters.get("scope", "") if own else ""
        scopes = list(dict.fromkeys([*scope.split(), *stated.split()]))
        begun = time.monotonic()
        answer = None
        if credentials is not None and credentials.identity_token:
            answer = self._oauth(realm, service, scopes, credentials.identity_token, source)
        if answer is None:
            answer = self._get(realm, service, scopes, credentials, source)
        name = realm.netloc
        if answer.status != 200:
            if answer.status in (400, 401, 403):
                why = (
                    f"it needs credentials, and no account is known: {log_in('push' in scope)}"
                    if credentials is None
                    else f"{credentials.described(scope)} is not accepted: correct it, or log in "
                    "again"
                )
            else:
                why = f"it {answered(answer.status)}"
            said = words_of(replace(answer, data=self.masked(answer.data)))
            said = f" ({said})" if said else ""
            raise RegistryError(f"no token from {name}; {why}{said}", source, answer.status)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RegistryError(f"{name} gave no token", source, answer.status)
        token = found.get("token") or found.get("access_token")
        value = _bearer(token, source, name)
        # Counted from when it was asked for, and given up a little early.
        seconds = _lifetime(found.get("expires_in"))
        return value, seconds * 0.9 - (time.monotonic() - begun)

    def _oauth(
        self, realm: SplitResult, service: str | None, scopes: list[str], token: str, source: str
    ) -> Response | None:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": token,
            "client_id": _CLIENT_ID,
            "scope": " ".join(scopes),
        }
        if service is not None:
            form["service"] = service
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode()
        answer = self._ask("POST", urlunsplit(realm), headers, body, source)
        return None if answer.status in (404, 405) else answer

    def _get(
        self,
        realm: SplitResult,
        service: str | None,
        scopes: list[str],
        credentials: Credentials | None,
        source: str,
    ) -> Response:
        query = [("scope", scope) for scope in scopes]
        if service is not None:
            query.insert(0, ("service", service))
        headers = {}
        if credentials is not None:
            if credentials.username and credentials.password:
                query.insert(0, ("account", credentials.username))
                headers["Authorization"] = credentials.basic()
            elif credentials.identity_token:
                name = credentials.username or "<token>"
                pair = Credentials(name, credentials.identity_token)
                headers["Authorization"] = pair.basic()
        joined = "&".join(filter(None, (realm.query, urlencode(query))))
        return self._ask("GET", urlunsplit(realm._replace(query=joined)), headers, None, source)

    def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, source: str
    ) -> Response:
        name = f"{source}: token server {urlsplit(url).netloc}"
        with as_registry_error(self.masked):
            return self._http.request(
                method,
                url,
                headers=headers,
                body=body,
                name=name,
                limit=_MAX_ANSWER,
                public_only=not self.private,
            )

    def _realm(self, realm: str, source: str) -> SplitResult:
        """The token server's URL, if credentials may go there."""
        try:
            parts = urlsplit(realm)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.username is not None or not realm.isascii() or not realm.isprintable():
            raise RegistryError("the registry names no token server that can be asked", source)
        if not self.private and _is_private(host):
            # What a name leads to is checked when it is connected to; a proxy hides that.
            raise RegistryError(
                f"the registry names a token server on a private address ({host}): refused",
                source,
            )
        # Plain http only where the registry itself is spoken to so, and on its own host.
        same = self._url.scheme == "http" and host == self._url.hostname
        if parts.scheme != "https" and not (parts.scheme == "http" and same):
            raise RegistryError(
                f"the registry names a token server that is not https ({host}): refused, since "
                "the credentials would go there in the clear",
                source,
            )
        return parts._replace(fragment="")


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _bearer(token: Any, source: str, name: str = "") -> str:
    if not isinstance(token, str) or not _BEARER.fullmatch(token):
        where = f"{name} gave no token" if name else "the token in the file is malformed"
        raise RegistryError(where, source)
    return f"Bearer {token}"


def _lifetime(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        return _DEFAULT_SECONDS
    return float(min(seconds, _MAX_SECONDS))
