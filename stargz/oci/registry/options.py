"""The keywords by which registries are reached, as functions take them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from stargz.oci.registry.client import RegistryClient
    from stargz.oci.registry.credentials import Credentials
    from stargz.sources.client import Client

StrPath = str | os.PathLike[str]


class AccessOptions(TypedDict, total=False):
    """What `Access` has; see RegistryClient."""

    authfile: StrPath | None
    ca_file: StrPath | None
    plain_http: bool | Sequence[str]
    mirrors: Mapping[str, Sequence[str]] | None
    upload_hosts: Sequence[str]
    patience: float


class RegistryOptions(AccessOptions, total=False):
    """What `open_repository` takes: a client of the caller's in place of one that is made of the
    others."""

    credentials: Credentials | None
    http: Client | None
    client: RegistryClient | None
