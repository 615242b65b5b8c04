"""A blob at any URL that fsspec knows: object stores, memory, chains of file systems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

from stargz.errors import SourceError, UsageError
from stargz.sources.base import check_range
from stargz.sources.ranges import Link, plan

# fsspec runs the requests of one batch together; this many, so that a batch of thousands of
# ranges does not open thousands of connections at once.
_BATCH = 32
# What file systems say of a file that is the same for another version of one size.
_SAME = frozenset(
    ("name", "size", "type", "islink", "mode", "uid", "gid", "uname", "gname", "nlink", "url",
     "mimetype", "contenttype", "partial", "key", "storageclass", "kind")
)  # fmt: skip
# What fsspec reads the most usual places by; of all others it tells itself, once it is there.
_PACKAGES = {
    "http": "'fsspec[http]'", "https": "'fsspec[http]'",
    "s3": "s3fs", "s3a": "s3fs",
    "gs": "gcsfs", "gcs": "gcsfs",
    "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
}  # fmt: skip
_SCHEMES = re.compile(r"(?:^|::)([a-z][a-z0-9+.-]*)(?=::|://)", re.I)
# User and password; one with a slash is told from a port.
_USER = re.compile(r"://([^/\s]*|[^/@:\s]*:(?!\d+/)[^@\s]*)@")


class FsspecSource:
    """A ByteSource over fsspec, for any number of threads; needs the extra `fsspec`, and what
    the scheme needs (s3fs for s3://, gcsfs for gs://, adlfs for az://).

    `options` are those of the file system (`storage_options`); `opened` is that, with a path, if
    it is there. Raises UsageError for what fsspec cannot open, SourceError for what it cannot
    read.
    """

    def __init__(self, url: str, *, opened: tuple[Any, str] | None = None, **options: Any) -> None:
        # Queries and user names may be secrets.
        self.name: str = re.sub(r"\?.*", "?...", _USER.sub("://", url))
        self._url = url
        self._secrets = _secrets(url)
        self._closed = False
        self._link = Link()
        try:
            import fsspec  # type: ignore[import-untyped]
        except ImportError as error:
            raise UsageError(
                f"{self.name}: this kind of URL needs fsspec: pip install {_packages(url)}"
            ) from error
        try:
            found: tuple[Any, str] = opened or fsspec.url_to_fs(url, **options)
            self._fs, self._path = found
        except ImportError as error:
            needed = _packages(url, by_itself="")
            advice = f": pip install {needed}" if needed else ""
            raise UsageError(f"{self.name}: {self._line(error)}{advice}") from error
        except ValueError as error:
            raise UsageError(
                f"{self.name}: fsspec cannot open this URL: {self._line(error)}"
            ) from error
        except Exception as error:
            raise self._error("cannot be opened", error) from error
        try:
            info = self._fs.info(self._path)
        except Exception as error:
            raise self._error("cannot be opened", error) from error
        self._info: dict[str, Any] = info
        size = info.get("size")
        if info.get("type") == "directory" or not isinstance(size, int):
            raise SourceError(f"{self.name}: is a directory, or has no known size; name one blob")
        self.size = size

    @property
    def identity(self) -> tuple[str, str] | None:
        """See ByteSource: the version is all that the file system says of it. None where that is
        no more than what each version has."""
        kinds = (str, int, float, bytes, datetime)
        said = sorted((k, str(v)) for k, v in self._info.items() if isinstance(v, kinds))
        if all(key.lower() in _SAME for key, _ in said):
            return None
        return f"fsspec {self._url}", repr(said)

    def beside(self, suffix: str) -> FsspecSource | None:
        """See ByteSource."""
        if "?" in self._path:
            return None
        try:
            return FsspecSource(f"{self._url}{suffix}", opened=(self._fs, self._path + suffix))
        except SourceError as error:
            if isinstance(error.__cause__, FileNotFoundError | PermissionError):
                return None
            raise

    def _error(self, what: str, error: Exception) -> SourceError:
        if isinstance(error, FileNotFoundError):
            return SourceError(f"{self.name}: there is no such blob; check the URL")
        if isinstance(error, PermissionError):
            return SourceError(f"{self.name}: access is denied; check the credentials")
        return SourceError(f"{self.name}: {what}: {self._line(error)}")

    def _line(self, error: BaseException) -> str:
        """What an exception of another package says, on one line, without secrets of the URL."""
        text = " ".join(str(error).split()) or type(error).__name__
        if self._secrets is not None:
            text = self._secrets.sub("***", text)
        return re.sub(r"\?[^\s'\"]*", "?...", text)[:200]

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; SourceError if they cannot be had."""
        return self.read_ranges([(offset, size)])[0]

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges: one batch of fsspec's `cat_ranges`."""
        if self._closed:
            raise ValueError(f"{self.name}: the source is closed")
        for offset, size in ranges:
            check_range(self.name, self.size, offset, size)
        todo = plan(ranges, self._link.gap, self._link.part, _BATCH)
        bodies: list[bytes] = []
        for first in range(0, len(todo.requests), _BATCH):
            bodies += self._batch(todo.requests[first : first + _BATCH])
        return todo.assemble(bodies)

    def _batch(self, requests: Sequence[tuple[int, int]]) -> list[bytes]:
        starts = [offset for offset, _ in requests]
        ends = [offset + size for offset, size in requests]
        try:
            if len(requests) == 1:
                found = [self._fs.cat_file(self._path, start=starts[0], end=ends[0])]
            else:
                found = self._fs.cat_ranges([self._path] * len(requests), starts, ends)
        except Exception as error:
            what = f"bytes {starts[0]} to {ends[-1] - 1} cannot be read"
            raise self._error(what, error) from error
        bodies = []
        for (offset, size), data in zip(requests, found, strict=True):
            if isinstance(data, Exception):
                what = f"bytes {offset} to {offset + size - 1} cannot be read"
                raise self._error(what, data) from data
            if len(data) != size:
                raise SourceError(
                    f"{self.name}: {size} bytes at offset {offset} are wanted, the file system "
                    f"gave {len(data)}; did the blob change? open it again"
                )
            bodies.append(bytes(data))
        return bodies

    def close(self) -> None:
        """Reading afterwards raises ValueError. fsspec keeps its connections for others."""
        self._closed = True


def _packages(url: str, by_itself: str = "fsspec") -> str:
    """What is to be installed for all schemes of a URL, which may be a chain of them, as words of
    pip; `by_itself` where none of them is known to need more than fsspec."""
    schemes = [scheme.lower() for scheme in _SCHEMES.findall(url)]
    found = [_PACKAGES[scheme] for scheme in schemes if scheme in _PACKAGES]
    return " ".join(dict.fromkeys(found)) or by_itself


def _secrets(url: str) -> re.Pattern[str] | None:
    """What is found where a file system repeats users and passwords of the URL, as it is or
    quoted, together or alone."""
    found: set[str] = set()
    for match in _USER.finditer(url):
        user, _, password = match[1].partition(":")
        parts = *match[1].split("/"), *password.split("/")  # in case it is read as a path
        for text in (match[1], user, password, *parts):
            plain = unquote(text)
            found |= {text, plain, quote(plain), quote(plain, safe="")}
    pieces = sorted(filter(None, found), key=len, reverse=True)
    # A short one is in many words.
    words = [re.escape(one) if len(one) > 3 else rf"\b{re.escape(one)}\b" for one in pieces]
    return re.compile("|".join(words)) if words else None
