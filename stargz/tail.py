"""The last bytes of a blob: the footer in them, or what annotations say in its place."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from stargz._engine.reader import Blob
from stargz.descriptors import Chunked
from stargz.errors import FooterError
from stargz.footer import (
    MAX_FOOTER_SIZE,
    Footer,
    Position,
    check_positions,
    find_footer,
    parse_footer,
)
from stargz.sources.base import TAIL, tail_size

# More than this between the TOC's offset and the footer is read in steps, not at once: a
# false offset must not fetch the blob.
_TOC_FETCH = 64 << 20


@dataclass(frozen=True, slots=True)
class Tail:
    """The last bytes of a blob, and the footer in them."""

    footer: Footer
    tail: bytes
    said: Chunked | None  # by annotations

    def around(self, blob: Blob, start: int, end: int) -> Blob:
        """The blob, or of one that must be fetched those bytes of it."""
        if blob.direct or end - start > _TOC_FETCH:
            return blob
        source, tail = blob.source, self.tail
        at = source.size - len(tail)
        if end <= at:
            return Blob(source, source.read_at(start, end - start), start)
        if start < at:
            tail = source.read_at(start, at - start) + tail
            at = start
        return Blob(source, tail, at)


def read_tail(blob: Blob, said: Chunked | None, *, seekable: bool) -> Tail | None:
    """The end of a seekable layer; None for an ordinary blob, unless it is to be `seekable`."""
    source = blob.source
    size = source.size
    # A local file is read where it is needed; anything else once.
    at_hand = min(getattr(source, "at_hand", 0), TAIL)
    length = min(size, MAX_FOOTER_SIZE if blob.direct else at_hand or tail_size(size))
    tail = source.read_at(size - length, length) if length else b""
    find = parse_footer if seekable else find_footer
    footer: Footer | None
    if said is not None and said.toc is not None:
        footer = _as_annotated(tail[-MAX_FOOTER_SIZE:], size, said, said.toc, source.name)
    else:
        footer = find(tail[-MAX_FOOTER_SIZE:], size, source.name)
    return None if footer is None else Tail(footer, tail, said)


def _as_annotated(tail: bytes, size: int, said: Chunked, toc: Position, name: str) -> Footer:
    """The footer of zstd:chunked whose annotations say where the TOC is: containers/storage reads
    no other, and wrote several."""
    footer: Footer | None = None
    with suppress(FooterError):
        footer = find_footer(tail, size, name)
    if footer is None:
        footer = Footer("zstd:chunked", toc.offset, 0, toc, said.split)
    split = footer.split or said.split
    if footer.toc != toc or said.split not in (None, split):
        raise FooterError(
            f"its footer ({footer.kind}) and its annotations do not agree where the TOC is, at "
            f"{footer.toc or footer.toc_offset} or {toc}, or where the tar-split is",
            name,
            size - footer.size,
        )
    try:
        check_positions(toc, split, size - footer.size, name)
    except FooterError as error:
        raise FooterError(f"its annotations: {error.message}", name, error.offset) from None
    return replace(footer, split=split)
