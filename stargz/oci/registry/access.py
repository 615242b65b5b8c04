"""How registries are reached: options that travel to other threads, processes and machines."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.credentials import Credentials, as_credentials

Creds = str | tuple[str, str] | Credentials  # "user:password", or (user, password)


@dataclass(frozen=True, slots=True)
class Access:
    """The options of RegistryClient as one value that can be compared, hashed and pickled."""

    authfile: str | None = None
    ca_file: str | None = None
    plain_http: bool | tuple[str, ...] = False
    mirrors: tuple[tuple[str, tuple[str, ...]], ...] = ()
    upload_hosts: tuple[str, ...] = ()
    patience: float = 900.0
    accounts: tuple[tuple[str, Credentials], ...] = field(default=(), repr=False)  # by registry

    @classmethod
    def of(
        cls,
        *,
        authfile: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        plain_http: bool | Sequence[str] = False,
        mirrors: Mapping[str, Sequence[str]] | None = None,
        upload_hosts: Sequence[str] = (),
        patience: float = 900.0,
    ) -> Access:
        """From the arguments of RegistryClient."""
        return cls(
            None if authfile is None else os.fspath(authfile),
            None if ca_file is None else os.fspath(ca_file),
            plain_http if isinstance(plain_http, bool) else tuple(plain_http),
            tuple((host, tuple(urls)) for host, urls in (mirrors or {}).items()),
            tuple(upload_hosts),
            patience,
        )

    def with_creds(self, registry: str | None, creds: Creds | None) -> Access:
        """The same with an account for one registry, if there are both."""
        if registry is None or creds is None:
            return self
        accounts = dict(self.accounts) | {registry: as_credentials(creds)}
        return replace(self, accounts=tuple(accounts.items()))

    def client(self) -> RegistryClient:
        """A new client with these options; to be closed."""
        return RegistryClient(**self.options())

    def options(self) -> dict[str, Any]:
        """As RegistryClient takes them."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {
            "mirrors": dict(self.mirrors),
            "accounts": dict(self.accounts),
        }


_lock = threading.Lock()
_shared: dict[tuple[int, Access], tuple[RegistryClient, int]] = {}


@contextmanager
def shared_client(access: Access) -> Iterator[RegistryClient]:
    """This process's client for these options: connections and tokens are used by all who ask
    for it at the same time, and closed behind the last of them."""
    key = os.getpid(), access  # a forked child makes its own
    with _lock:
        client, users = _shared.get(key) or (access.client(), 0)
        _shared[key] = client, users + 1
    try:
        yield client
    finally:
        with _lock:
            users = _shared[key][1] - 1
            if users:
                _shared[key] = client, users
            else:
                del _shared[key]
        if not users:
            client.close()
