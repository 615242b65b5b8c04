"""The keywords by which registries are reached, as functions take them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from stargz.errors import UsageError
from stargz.oci.registry.access import Access

if TYPE_CHECKING:
    from stargz.oci.registry.client import RegistryClient
    from stargz.oci.registry.credentials import Credentials
    from stargz.sources.client import Client

StrPath = str | os.PathLike[str]


class ReadOptions(TypedDict, total=False):
    """What is read by; see RegistryClient."""

    authfile: StrPath | None
    ca_file: StrPath | None
    plain_http: bool | Sequence[str]
    mirrors: Mapping[str, Sequence[str]] | None
    patience: float


class AccessOptions(ReadOptions, total=False):
    """What is read and written by: an `Access`."""

    upload_hosts: Sequence[str]


class RegistryOptions(ReadOptions, total=False):
    """What `open_repository` takes: `creds` ("user:password", or both as a tuple), the account for
    the image's own registry, which the token server that this names gets too, and no other host;
    and a client of the caller's in place of one that is made of the others."""

    creds: str | tuple[str, str] | Credentials | None
    credentials: Credentials | None
    http: Client | None
    client: RegistryClient | None


def check_keywords(
    function: str, given: Mapping[str, object], known: type = RegistryOptions
) -> None:
    """Refuse what `function` does not take as **registry, as Python itself would in its call."""
    for name in given:
        if name not in known.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def access_of(
    function: str, access: Access | None, given: ReadOptions, known: type = AccessOptions
) -> Access:
    """What a function that takes both has been given: `access`, or the options by themselves,
    which are those of `known`."""
    check_keywords(function, given, known)
    if access is None:
        return Access.of(**given)
    if given:
        raise UsageError(f"access has them all: give it, or {', '.join(sorted(given))}")
    return access
