"""Digests as texts: an algorithm, a colon, and lower-case hex digits."""

from __future__ import annotations

import re
from collections.abc import Callable

from stargz.errors import UsageError

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_SHA512 = re.compile(r"sha512:[0-9a-f]{128}")


def is_sha256(value: object) -> bool:
    """Whether `value` is a digest of the only algorithm that TOCs and lists of members know."""
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def is_digest(value: object) -> bool:
    """Whether `value` is a digest that can be checked, of any algorithm that manifests know."""
    return is_sha256(value) or (isinstance(value, str) and bool(_SHA512.fullmatch(value)))


def check_digest(
    digest: object, source: str = "", good: Callable[[object], bool] = is_digest
) -> str:
    """A digest as `good` takes it; UsageError else."""
    if not isinstance(digest, str) or not good(digest):
        where = f"{source}: " if source else ""
        raise UsageError(
            f"{where}{digest!r:.200} is not a digest: sha256: and 64 lower-case hex digits"
        )
    return digest


def digest_of(data: bytes | bytearray, like: str = "sha256:") -> str:
    """The digest of `data`, by the algorithm of the digest `like`."""
    import hashlib

    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Hashed:
    """What is written, counted and hashed on its way to `put`, if there is one."""

    def __init__(self, put: Callable[[bytes], object] | None = None) -> None:
        import hashlib

        self._put = put
        self._hash = hashlib.sha256()
        self.size: int = 0

    @property
    def digest(self) -> str:
        """That of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> None:
        """Take a piece."""
        self._hash.update(data)
        self.size += len(data)
        if self._put is not None:
            self._put(data)
