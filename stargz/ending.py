"""What ends a blob in zstd:chunked: skippable frames, gone through one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from stargz.footer import SKIPPABLE, SKIPPABLE_HEADER, Footer, Position, is_footer_size
from stargz.sources import ByteSource

# There are four at most: TOC, tar-split, and a footer for each of two readers.
_MOST = 16
_PIECE = 1 << 20


@dataclass(slots=True)
class Ending:
    """What was found: problems with their offsets, what is worth a warning, and where the tar-split
    is, if the TOC has the digest of one."""

    problems: list[tuple[int, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    split: Position | None = None


def check_end(source: ByteSource, footer: Footer, split_digest: str) -> Ending:
    """Whether all behind the tar's frames is skippable frames, which are what the footer (or the
    annotations) and the TOC say."""
    found = Ending(split=footer.split)
    known = {at.offset: (what, at.packed) for what, at in _named(footer)}
    last = source.size - footer.size
    sought = "" if footer.split else split_digest
    for offset, size in _frames(source, footer.data_end, found):
        what, packed = known.pop(offset, ("", 0))
        if what and size != packed:
            text = f"the frame of the {what} has {size} bytes, not {packed}"
            found.problems.append((offset, text))
        elif what or offset >= last:
            pass
        elif sought and _digest(source, offset, size) == sought:
            found.split = Position(offset, size, -1)
        elif is_footer_size(size + SKIPPABLE_HEADER):
            found.problems.append((offset, "what should be a footer is none: it is damaged"))
        else:
            found.warnings.append(
                f"a skippable frame of {size} bytes stands at {offset}, which nothing names"
            )
    for offset, (what, _) in known.items():
        if not found.problems:
            found.problems.append((offset, f"no skippable frame at the end holds the {what}"))
    if split_digest and found.split is None and not found.problems:
        found.problems.append(
            (footer.toc_offset, "the TOC has the digest of a tar-split, and there is none")
        )
    if found.split is not None and not split_digest:
        found.split = None
        found.warnings.append(
            "its TOC has no digest of the tar-split: podman and all others of containers/storage "
            "pull the layer as a whole"
        )
    return found


def _named(footer: Footer) -> Iterator[tuple[str, Position]]:
    if footer.toc is not None:
        yield "TOC", footer.toc
    if footer.split is not None:
        yield "tar-split", footer.split


def _frames(source: ByteSource, at: int, found: Ending) -> Iterator[tuple[int, int]]:
    """What each of them holds: where it is, and how long it is."""
    for _ in range(_MOST):
        if at == source.size:
            return
        head = source.read_at(at, min(SKIPPABLE_HEADER, source.size - at))
        size = int.from_bytes(head[4:], "little")
        if not head.startswith(SKIPPABLE):
            found.problems.append((at, "something other than skippable frames follows on the tar"))
            return
        at += SKIPPABLE_HEADER
        if size > source.size - at:
            found.problems.append((at - SKIPPABLE_HEADER, "the skippable frame here is cut off"))
            return
        yield at, size
        at += size
    if at != source.size:
        found.problems.append((at, f"more than {_MOST} skippable frames follow on the tar"))


def _digest(source: ByteSource, offset: int, size: int) -> str:
    found = hashlib.sha256()
    while size:
        piece = source.read_at(offset, min(size, _PIECE))
        found.update(piece)
        offset += len(piece)
        size -= len(piece)
        if not piece:
            break
    return f"sha256:{found.hexdigest()}"
