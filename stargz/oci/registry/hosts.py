"""The hosts that answer for a registry: its mirrors and its own, and what each is authorized by."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from stargz.errors import UsageError, mask_reference
from stargz.logs import logger
from stargz.oci.formats.reference import Reference, check_registry
from stargz.oci.registry.auth import Authorizer
from stargz.oci.registry.credentials import Credentials, CredentialStore
from stargz.sources.client import Client, speaks_tls


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One host that answers for a registry: its URL, the prefix of its repositories, and
    what authorizes requests to it."""

    url: str  # scheme://host[:port]
    prefix: str
    registry: str
    auth: Authorizer
    mirror: bool = False

    def path(self, repository: str, rest: str) -> str:
        """The URL of something of a repository."""
        return f"{self.url}/v2/{self.prefix}{repository}/{rest}"

    def scope(self, repository: str, actions: str) -> str:
        """What a token must be good for."""
        return f"repository:{self.prefix}{repository}:{actions}"


class Hosts:
    """All of them, each with one Authorizer; for the parameters see RegistryClient."""

    def __init__(
        self,
        http: Client,
        accounts: Credentials | CredentialStore,
        plain_http: bool | Sequence[str],
        mirrors: Mapping[str, Sequence[str]],
    ) -> None:
        self._http = http
        self._accounts = accounts
        self._plain = plain_http
        self._mirrors = {
            check_registry(host): [_mirror(text) for text in urls] for host, urls in mirrors.items()
        }
        self._lock = threading.Lock()
        self._endpoints: dict[str, Endpoint] = {}
        self._tls: dict[str, bool] = {}  # loopback hosts that were asked whether they speak it
        self._asking = threading.Lock()

    def of(self, reference: Reference) -> list[Endpoint]:
        """The hosts that may have what a reference names, in the order to try them."""
        found = []
        for url, prefix in self._mirrors.get(reference.registry, ()):
            host = url.partition("://")[2]
            base = url if "://" in url else self._url(url)
            found.append(self._endpoint(base, prefix, host or url, True))
        return [*found, self.own(reference)]

    def own(self, reference: Reference) -> Endpoint:
        """The registry's own host: what is written to."""
        url = self._url(reference.api_host)
        return self._endpoint(url, "", reference.registry, False)

    def _endpoint(self, url: str, prefix: str, registry: str, mirror: bool) -> Endpoint:
        key = f"{url}/{prefix} {registry}"
        with self._lock:
            if key not in self._endpoints:

                def find(scope: str) -> Credentials | None:
                    if isinstance(self._accounts, Credentials):
                        return None if mirror else self._accounts
                    repository = scope.split(":")[1] if scope.startswith("repository:") else ""
                    return self._accounts.find(Reference(registry, repository))

                auth = Authorizer(self._http, url, find)
                self._endpoints[key] = Endpoint(url, prefix, registry, auth, mirror)
            return self._endpoints[key]

    def _url(self, host: str) -> str:
        plain = self._plain if isinstance(self._plain, bool) else host in self._plain
        if not plain and _is_loopback(host):
            plain = self._http.ca_file is None or not self._has_tls(host)
        return f"{'http' if plain else 'https'}://{host}"

    def _has_tls(self, host: str) -> bool:
        with self._asking:
            if host not in self._tls:
                parts = urlsplit(f"//{host}")
                self._tls[host] = speaks_tls(parts.hostname or "", parts.port or 443)
                if not self._tls[host]:
                    logger().warning(
                        "%s: it speaks http alone, and is spoken to so: ca_file (--ca-file) is of "
                        "no use for it",
                        host,
                    )
            return self._tls[host]


def _mirror(text: str) -> tuple[str, str]:
    """The URL (or host) and the repository prefix of a mirror; raises UsageError."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if (
        parts.scheme not in ("", "http", "https")
        or not parts.hostname
        or parts.username is not None
        or parts.query
        or parts.fragment
    ):
        raise UsageError(
            f"{mask_reference(text)!r} is not a mirror: give host[:port] or https://host[/prefix]"
        )
    check_registry(parts.netloc, text)
    prefix = parts.path.strip("/")
    if prefix and quote(prefix) != prefix:
        raise UsageError(f"{text!r}: {prefix!r} is not the beginning of a repository's name")
    scheme = f"{parts.scheme}://" if parts.scheme else ""
    return f"{scheme}{parts.netloc}", f"{prefix}/" if prefix else ""


def _is_loopback(host: str) -> bool:
    """Whether host[:port] can only be this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
