"""Every exception that stargz raises on purpose.

The text is one line: what is wrong, where, and what to do. No secret of a URL is in it. Import
nothing of the package here: this is the bottom of the house.
"""

from __future__ import annotations

import re
from typing import Any

# A user before a host, up to the last @ that does not begin a digest; a password may have a slash
# in a reference, where no path has an @.
_USER = re.compile(r"(?<=\bdocker://)\S*@(?!sha\d+:)|(?<=://)[^\s/?#'\"]*@")
_PATH = 4096  # characters of what the kernel takes as a path
# What an account to read with is given by; the command line names those of the command.
ACCOUNT_OPTIONS = "--creds, --src-creds"
# Of a signed URL the query is the signature.
_QUERY = re.compile(r"(?i)(\bhttps?://[^\s?#'\"]*)\?[^\s'\"]*[^\s'\",;:.)]")


def mask(text: str) -> str:
    """The text with what may be a secret in URLs left out: users, passwords, queries."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1?...", _USER.sub("***@", text))


def mask_reference(text: str) -> str:
    """The same of what should be the name of an image, with a scheme or without."""
    return re.sub(r"^(?!\S*://)\S*@(?!sha\d+:)", "***@", mask(text))


# What each extra has. Its name is of no use in a message: who installed a wheel has no clone.
_EXTRAS = {
    "dask": "distributed",
    "dense": "deflate",
    "fsspec": "'fsspec[http]'",
    "zstd": "zstandard",
}


def extra(name: str) -> str:
    """How to install what an extra of this package has."""
    return f"pip install {_EXTRAS[name]}"


def may_hold_secret(url: str) -> bool:
    """Whether a URL has a user or a query, which may be a password or a signature."""
    return "?" in url or mask(url) != url or bool(re.search(r"://[^/@:\s]*:(?!\d+/)[^@\s]*@", url))


def printable(text: str) -> str:
    """`text` on one line, with control and undecodable characters escaped.

    Names come from the layer, and an escape sequence in one must not reach a terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    """A byte of a name that is not UTF-8 is shown as that byte."""
    return f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else ascii(c)[1:-1]


def quoted(name: str) -> str:
    """A name as it was typed, in quotes; of one that is longer than any path, the beginning. (The
    repr would double backslashes.)"""
    return f"'{printable(name[:_PATH])}{'...' if len(name) > _PATH else ''}'"


def not_text(lines: bytes) -> str:
    """Why the beginning of a file of lines is no text, which has no zero byte; "" if it is one."""
    offset = lines.find(b"\0")
    return "" if offset < 0 else f"no text (a zero byte at offset {offset}); is it the right file?"


def _told(text: str) -> str:
    """What an error says: one line, without secrets."""
    return printable(mask(text))


def retryable(status: int) -> bool:
    """Whether an HTTP answer may be another one when asked again."""
    return status in (408, 425, 429, 499) or (500 <= status < 600 and status not in (501, 505))


class StargzError(Exception):
    """Base of all errors of this package."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(_told(one) if isinstance(one, str) else one for one in args))


class UsageError(StargzError, ValueError):
    """The caller's arguments are wrong or contradict each other."""


class NotPicklableError(UsageError, TypeError):
    """What is open cannot be had again elsewhere, or only with credentials."""


class CodecError(StargzError):
    """A codec library is missing, too old or failed its self-test."""


class FormatError(StargzError, ValueError):
    """Bytes that are not what the format says.

    `source` names the blob, file or reference; `offset` is the byte offset in it, or None.
    """

    def __init__(self, message: str, source: str = "", offset: int | None = None) -> None:
        where = source
        if offset is not None:
            where = f"{where} at offset {offset}" if where else f"offset {offset}"
        super().__init__(f"{where}: {message}" if where else message)
        self.message: str = _told(message)
        self.source: str = mask(source)
        self.offset = offset


class FooterError(FormatError):
    """The blob does not end in a footer of a known kind."""


class UnindexedError(FooterError):
    """An ordinary tar without an index, and none may be made unasked: the blob is far away."""


class UnsupportedError(FooterError):
    """A layer that cannot be read without something that is not in it; nothing is wrong with it."""


class TOCError(FormatError):
    """The table of contents is malformed or contradicts itself."""


class GzipError(FormatError):
    """A gzip member (RFC 1952) or zstd frame is malformed, truncated or fails its check sum."""


class TarError(FormatError):
    """A tar entry is malformed, truncated or of a kind that cannot be stored."""


class UnindexableError(TarError):
    """A tar that is right, but that a TOC cannot hold: a hard link into a lower layer, an entry
    of a kind that a TOC does not know, names that it cannot tell apart."""


class ArtifactError(FormatError):
    """What a reference names is no image, but an artifact of another kind."""


class PlatformError(FormatError):
    """An image is not for the platform that was asked for."""


class PatchError(FormatError):
    """A patch is malformed, truncated, of another version, or not about this BASE."""


class IndexFileError(FormatError):
    """The file of a side index is malformed, truncated, of a newer version, or about another
    blob."""


class DigestError(StargzError):
    """Content does not match its digest; `name` says whose content, `offset` where it is in the
    blob `source` (None: no one place), `message` what is wrong without these. `what` of `name` it
    is ("a chunk")."""

    def __init__(
        self,
        name: str,
        expected: str,
        actual: str,
        source: str = "",
        offset: int | None = None,
        what: str = "",
    ) -> None:
        digests = f"does not match its digest: expected {expected}, got {actual}"
        self.message: str = f"{what} {digests}" if what else digests
        where = source if offset is None else f"{source} at offset {offset}".lstrip()
        text = f"{name}: {self.message}" if what else f"{name} {digests}"
        super().__init__(f"{where}: {text}" if where else text)
        self.name = name
        self.expected = expected
        self.actual = actual
        self.source = source
        self.offset = offset
        self._what = what

    def __reduce__(self) -> tuple[object, ...]:
        known = (self.name, self.expected, self.actual, self.source, self.offset, self._what)
        return type(self), known


class EntryNotFoundError(StargzError, KeyError):
    """No entry of this name is there, or none that a `pattern` matches; `looked_up` is what a name
    came to when that is another one, since symlinks lead on."""

    listed = True  # whether 'ls' lists what is in the source

    def __init__(
        self,
        name: str,
        source: str = "",
        looked_up: str = "",
        *,
        pattern: bool = False,
        within: str = "layer",
    ) -> None:
        self.name = name
        self.source = source
        self.looked_up: str = looked_up or name
        self.pattern = pattern
        where = f"{source}: " if source else ""
        via = f" (looked up as {quoted(looked_up)})" if looked_up else f" in the {within}"
        what = f"no entry matches {quoted(name)}" if pattern else f"no entry {quoted(name)}{via}"
        super().__init__(f"{where}{what}")

    def __str__(self) -> str:
        # KeyError would show the repr of its argument.
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name,), {**self.__dict__, "args": self.args}


class UnverifiedError(StargzError):
    """Verification was required, but the blob carries no digests to verify against."""


class ExtractError(StargzError):
    """An entry that extraction refuses, because it would reach outside its directory."""


class SourceError(StargzError, OSError):
    """Bytes could not be had from where they are; `status` is that of HTTP's last answer."""

    status: int | None = None
    throttled = False  # the host refused all that was asked, for as long as it may
    answer: Any = None  # the client's Response, if its body may say more


class MissingBlobError(SourceError):
    """An image lacks a blob that its manifest names."""


class OccupiedError(StargzError, FileExistsError):
    """What the destination's name means is of another kind, and would be lost."""


class StateError(StargzError):
    """The file that remembers what a bulk conversion has done cannot be used."""


class RegistryError(SourceError):
    """A registry, or what it sends us to, refused or failed.

    `status` is the HTTP status of its answer, None where there was none; `source` is the
    reference: registry, repository, and tag or digest.
    """

    def __init__(self, message: str, source: str = "", status: int | None = None) -> None:
        super().__init__(f"{source}: {message}" if source else message)
        self.message: str = _told(message)
        self.source: str = mask(source)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether what was answered, or that nothing was, may be otherwise later."""
        return self.status is None or retryable(self.status)


class MissingFromRegistryError(RegistryError, MissingBlobError):
    """A registry lacks a blob that a manifest lists."""
