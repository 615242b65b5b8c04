"""What goes wrong at a registry, as the one error that tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stargz.errors import RegistryError, SourceError
from stargz.oci.formats.reference import Reference
from stargz.sources.client import Response


@contextmanager
def as_registry_error() -> Iterator[None]:
    """A SourceError of the block is a RegistryError."""
    try:
        yield
    except RegistryError:
        raise
    except SourceError as error:
        raise RegistryError(str(error), status=error.status) from error


def failure(answer: Response, reference: Reference, *, writing: bool = False) -> RegistryError:
    """What an answer that is not the one hoped for means, when reading or writing.

    Of the body only the error's code is told: its text could repeat what we sent.
    """
    code = ""
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        code = answer.json()["errors"][0]["code"]
    if not isinstance(code, str) or not re.fullmatch(r"[A-Z][A-Z_]{0,40}", code):
        code = ""
    may = "write there" if writing else "read it"
    account = f"log in with an account that may {may}"
    accepted = account if writing else "log in to the registry"
    meaning = {
        401: f"it needs credentials that are accepted: {accepted}",
        403: f"access is denied: check the name, or {account}",
        404: "not found: check the name, and that "
        + ("such a repository can be there" if writing else "it has been pushed"),
        413: "it is larger than the registry, or a proxy before it, takes: raise its limit",
    }.get(answer.status, f"the registry answered {answer.status}")
    return RegistryError(f"{meaning}{f' ({code})' if code else ''}", str(reference), answer.status)
