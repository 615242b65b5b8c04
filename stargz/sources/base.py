"""What a blob's bytes are read from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from stargz.errors import SourceError

# Bytes at a blob's end that are fetched in one request: footer and TOC of nearly all layers
# (a compressed TOC has about 50 bytes an entry, so 10,000 entries), and half of 1% of a layer
# of 100 MB, which is what a look at one small file in it may cost.
TAIL = 512 << 10
# What is read of a blob whose size is not known before: the TOC of 2,600 entries. It takes fewer
# round trips of a new connection, and is less to lose where the blob is an ordinary tar.
TAIL_MIN = TAIL // 4
# An index of so many bytes comes in one request, with its size.
BESIDE = 8 << 20


@runtime_checkable
class ByteSource(Protocol):
    """Random access to the bytes of one blob; any number of threads may call it.

    Three attributes are optional and let the engine read without Python, where they are not None:
    `fd`, an open file descriptor for pread; `buffer`, all of the bytes; and `named`, a file that
    is opened whenever it is read (see NamedSource).

    Two more are for indexes. `identity`, where it is not None, is what the blob is called and its
    version, both as texts: in any process the same texts mean the same bytes. `beside(suffix)`
    opens what is called as the blob is, with `suffix` behind it: None where there is no such thing.

    `at_hand` says how many of its last bytes cost nothing to read.

    `read_pieces(offset, size)`, where it is there, gives what `read_at` does in pieces as they
    come, to be decoded meanwhile: an iterator, which is closed where not all of them are taken.
    """

    @property
    def name(self) -> str:
        """What errors call the blob: its path, URL or reference."""

    @property
    def size(self) -> int:
        """Bytes of the blob."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; raises SourceError (an OSError) otherwise."""

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of several (offset, size) ranges, in the order asked for.

        One call, so that a source with latency can fetch them together.
        """

    def close(self) -> None:
        """Give back what the source holds. Reading afterwards raises ValueError."""


def is_direct(source: ByteSource) -> bool:
    """Whether the engine reads it without Python: a file, or memory."""
    return any(getattr(source, name, None) is not None for name in ("fd", "buffer", "named"))


def tail_size(size: int) -> int:
    """How much of the end of a blob of `size` bytes to read for its footer and TOC.

    A TOC is 0.34% of a Debian layer, 0.38% of one of Python and numpy, 2% of 24,000 small files.
    """
    return min(size, TAIL, max(TAIL_MIN, size // 250))


def check_range(name: str, total: int, offset: int, size: int) -> None:
    """Raise SourceError unless [offset, offset + size) lies within `total` bytes."""
    if offset < 0 or size < 0 or offset > total or size > total - offset:
        raise SourceError(
            f"{name}: bytes {offset} to {offset + size} were asked for, the blob has {total}"
        )


def pread_all(fd: int, offset: int, size: int, short: str) -> bytes:
    """`size` bytes of a file; SourceError, which says `short`, where it ends before."""
    pieces = []
    while size:
        piece = os.pread(fd, size, offset)
        if not piece:
            raise SourceError(short)
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
