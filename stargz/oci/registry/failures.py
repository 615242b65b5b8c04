"""What goes wrong at a registry, as the one error that tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from stargz.errors import (
    ACCOUNT_OPTIONS,
    MissingFromRegistryError,
    RegistryError,
    SourceError,
    mask,
    retryable,
)
from stargz.oci.formats.reference import Reference
from stargz.sources.client import Response

# Of an Authorization header, or of something that is called so.
_SECRET = re.compile(
    r"(?i)(\b(?:bearer|basic)\s+|\b[\w-]*(?:password|passwd|secret|token|signature|api-?key)"
    r"[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&]+"
)


@contextmanager
def as_registry_error(masked: Callable[[bytes], bytes] = bytes) -> Iterator[None]:
    """A SourceError of the block is a RegistryError; see `registry_error`."""
    try:
        yield
    except SourceError as error:
        wrapped = registry_error(error, masked)
        if wrapped is error:
            raise
        raise wrapped from error


def registry_error(error: SourceError, masked: Callable[[bytes], bytes] = bytes) -> RegistryError:
    """The error as a RegistryError, with what the server says; `masked` takes out what it was
    sent."""
    if isinstance(error, RegistryError):
        return error
    said = ""
    if error.answer is not None:
        said = words_of(replace(error.answer, data=masked(error.answer.data)))
    found = RegistryError(f"{error} ({said})" if said else str(error), status=error.status)
    found.throttled = error.throttled
    return found


# What a registry may say of blobs and manifests that it got a moment ago, while another writer is
# in the middle of the same, or one of its parts has not yet heard of them.
_FRESH = frozenset({"DIGEST_INVALID", "BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})
_MAX_WORDS = 500  # characters of one text
_MAX_SAID = 2000  # of all that a server says
# What registries, token servers (OAuth 2) and proxies call an error's code, and what they say.
_KEYS = (
    ("code", "error"),
    ("message", "error_description", "description", "detail", "details"),
)
# Words, or a number; anything else in its place could be something that was sent.
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,60}")


def codes(answer: Response) -> list[str]:
    """The codes of the errors in an answer (distribution specification, "Error codes")."""
    return [code for code, _ in _errors(answer) if code]


def is_fresh(answer: Response) -> bool:
    """Whether what a written manifest or blob was refused for may be over in a moment."""
    return answer.status in (400, 404) and not _FRESH.isdisjoint(codes(answer))


def failure(answer: Response, reference: Reference, *, writing: bool = False) -> RegistryError:
    """What an answer that is not the one hoped for means, when reading or writing, with all that
    the server says about it."""
    may = "write there" if writing else "read it"
    creds = "--dest-creds" if writing else ACCOUNT_OPTIONS
    account = f"log in with an account that may {may} (or give it: {creds})"
    meaning = {
        401: f"it needs credentials (401), and no account is known: {log_in(writing)}"
        if answer.account is None
        else f"{answer.account} is not accepted (401): correct it, or log in again",
        403: f"access is denied (403): check the name, or {account}",
        404: "not found: check the name, and that "
        + ("such a repository can be there" if writing else "it has been pushed"),
        405: "nothing can be written there (405): is it read-only, or a mirror?"
        if writing
        else f"the registry {answered(405)}",
        413: "it is larger than the registry, or a proxy before it, takes: raise its limit",
        415: "the registry does not take this media type",
    }.get(answer.status, f"the registry {answered(answer.status)}")
    if answer.wants_tls:
        meaning = (
            "it was spoken to by http, as loopback registries are, or by --plain-http, but speaks "
            "https: let --ca-file name the authority of its certificate, and leave out --plain-http"
        )
    said = words_of(answer)
    return RegistryError(f"{meaning}{f' ({said})' if said else ''}", str(reference), answer.status)


def log_in(writing: bool) -> str:
    """What to do where no account is known."""
    who = " with an account that may write there" if writing else ""
    creds = "--dest-creds" if writing else ACCOUNT_OPTIONS
    return (
        f"log in to the registry{who}, or give an account ({creds}) or a file of them (--authfile)"
    )


def missing(reference: Reference, said: str = "") -> MissingFromRegistryError:
    """What a 404 for a blob means whose digest is in a manifest that was read."""
    return MissingFromRegistryError(
        "the registry has not this blob, which the manifest lists (404): push the image again"
        + (f" ({said})" if said else ""),
        str(reference),
        404,
    )


def with_mirrors(error: RegistryError, failed: Mapping[str, SourceError]) -> RegistryError:
    """The error of a registry's own host, with those of the mirrors that were asked before, by
    URL. That neither has something is said once."""
    texts = []
    for url, before in failed.items():
        if error.status != 404 or before.status != 404:
            text = before.message if isinstance(before, RegistryError) else str(before)
            texts.append(f"; its mirror {url} failed: {text.removeprefix(f'{error.source}: ')}")
    if not texts:
        return error
    told = type(error)(f"{error.message}{''.join(texts)}", error.source, error.status)
    told.throttled = error.throttled
    return told


def refuse_page(answer: Response, reference: Reference) -> None:
    """Raise RegistryError for a web page (of a proxy, a portal, another server) in place of JSON,
    which cannot begin so."""
    if answer.data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise RegistryError(
            "it answers with a web page: is this a registry? check its host and port, and what is "
            "on the way to it",
            str(reference),
            answer.status,
        )


def answered(status: int) -> str:
    """Of a status that has no meaning of its own here, what to do."""
    hint = "check the host and the name; its logs may say why"
    return f"answered {status}: {'try again later' if retryable(status) else hint}"


def words_of(answer: Response) -> str:
    """What a server says: of each error code, message and detail; else its text, if it is
    one."""
    found = [": ".join(filter(None, one)) for one in _errors(answer)]
    size = 0
    for number, text in enumerate(found):
        size += len(text)
        if size > _MAX_SAID:
            found[number:] = [f"{len(found) - number} more"]
            break
    if not found and "text/plain" in answer.headers.get("Content-Type", ""):
        found = [words(answer.data)]
    return "; ".join(found)


def _errors(answer: Response) -> list[tuple[str, str]]:
    """Code and words of each error in an answer."""
    try:
        listed = answer.json()
    except ValueError:
        return []
    # Token servers and proxies have the one error itself there, in words of their own.
    if isinstance(listed, dict):
        listed = listed.get("errors") or listed
    found = []
    for one in listed if isinstance(listed, list) else [listed]:
        if isinstance(one, str):
            one = {"message": one}
        if not isinstance(one, dict):
            continue
        codes, texts = ([_value(one[key]) for key in keys if key in one] for keys in _KEYS)
        text = ", ".join(dict.fromkeys(filter(None, texts)))
        code = " ".join(text for text in codes if _CODE.fullmatch(text))
        if code or text:
            found.append((code, text))
    return found


def _value(value: object) -> str:
    """A value of JSON as an error may repeat it."""
    if value in (None, "", [], {}):
        return ""
    return words(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def words(text: str | bytes) -> str:
    """What others say (a server, a helper program), as an error may repeat it: one line, short,
    printable, and without what looks like a secret."""
    if isinstance(text, bytes):
        text = text[: 8 * _MAX_WORDS].decode(errors="replace")
    text = mask(" ".join(text[: 8 * _MAX_WORDS].split()))
    text = _SECRET.sub(r"\1***", text)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _MAX_WORDS else f"{text[:_MAX_WORDS]}..."
