"""Make a patch: what somebody who has BASE needs to make NEW, byte for byte."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stargz.endpoints import Sink, is_same_file, open_writer
from stargz.errors import CodecError, UsageError
from stargz.layer import Layer
from stargz.opening import open as open_layer
from stargz.options import thread_count
from stargz.patching.file import (
    FRAME_MAX,
    LITERAL,
    MEMBER,
    PIECE,
    Head,
    Operations,
    PatchWriter,
    Work,
    engine,
    varint,
)
from stargz.patching.members import (
    SIZE_MAX,
    MemberList,
    check_seekable,
    is_list,
    local,
    read_list,
    seekable_alone,
)
from stargz.results import Result
from stargz.sources import Source, as_source

if TYPE_CHECKING:
    from stargz._engine.reader import Blob

Progress = Callable[[int, int], object]

# Members that are looked at together, and the bytes of contents that a patch may carry of them.
_WINDOW = 4096
_WINDOW_LITERALS = 8 << 20
# A member of at most this much goes uncompressed, if the engine remakes it: neighbours share a
# frame's deflate stream and need no gzip headers.
_SMALL = 16 << 10
_OP_MAX = FRAME_MAX - 64
# What is tried to find the level of NEW: members of this content, so many of them.
_SAMPLE = range(1 << 10, (256 << 10) + 1)
_SAMPLES = 6
# The end of a blob that is compared with one that the engine makes, at most; and the JSON that
# may be remade at several levels.
_TAIL_MAX = 256 << 20
_JSON_MAX = SIZE_MAX
# Offsets in a member beyond this are not taken from BASE: nobody writes such members.
_INNER_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class DeltaResult(Result):
    """What a patch does. Digests are "sha256:" and 64 hex digits; sizes are bytes.

    `copied`, `regenerated` and `sent` are how many of NEW's bytes come from BASE as they are, are
    compressed anew from what BASE and the patch hold, and are in the patch; `members`,
    `members_copied` and `members_regenerated` count gzip members. `toc_remade`: NEW's TOC is made
    of BASE's.
    """

    base_digest: str
    new_digest: str
    base_size: int
    new_size: int
    patch_size: int
    copied: int
    regenerated: int
    sent: int
    members: int
    members_copied: int
    members_regenerated: int
    toc_remade: bool
    level: int
    engine: str
    seconds: float


def delta(
    base: Source | Layer | MemberList,
    new: Source | Layer,
    patch: Sink,
    *,
    force: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> DeltaResult:
    """Write the patch that makes NEW of BASE; `stargz.apply` applies it.

    `base` is a layer: an open one, or whatever `stargz.open` takes; or only its members: a
    `MemberList`, or a path or other source of a file that `stargz toc --members` wrote. `new` is
    a layer likewise. `patch` is a path, which appears complete or not at all, or a binary file
    object, which is not closed.

    What is copied: members that BASE has, too. What is compressed anew: members whose contents
    BASE has, under any name or place, where this machine's engine makes the same bytes of them,
    which is tried. All of NEW, and of BASE where it is a layer, is decoded and checked against its
    TOC. The patch does not depend on threads, nor on what stands for BASE. Memory is bounded but
    for both TOCs and the lists of members; what must be fetched is kept in a temporary file.

    force: replace a patch path that exists, as open(patch, "wb") does; without, FileExistsError,
        as the command without --force.
    threads: default: the processors this process may use.
    progress: called with (bytes done, bytes of both layers), some tens of times a second.

    Raises FormatErrors (with source and offset) for what is no seekable layer or list of members;
    DigestError for a layer whose chunks are not what its TOC says; UsageError; OSError.
    """
    threads = thread_count(threads)
    begin = time.perf_counter()
    with ExitStack() as stack:
        for source in (base, new):
            if is_same_file(source, patch):
                raise UsageError(f"{source!s}: is to be read; name another PATCH")
        write = open_writer(patch, stack, force)
        old = _open_base(base, stack)
        layer = new if isinstance(new, Layer) else _open(new, stack)
        sizes = old.size if isinstance(old, Layer) else 0, layer.size
        if isinstance(old, Layer):
            step = progress and _shifted(progress, 0, sum(sizes))
            old = MemberList.from_layer(old, threads=threads, progress=step)
        blob, digest = stack.enter_context(local(check_seekable(layer)))
        step = progress and _shifted(progress, sizes[0], sum(sizes))
        fresh = MemberList.from_blob(layer, blob, digest, threads=threads, progress=step)
        maker = _Maker(old, fresh, blob, layer.kind, threads)
        fields = maker.run(write)
    return DeltaResult(
        base_digest=old.digest,
        new_digest=fresh.digest,
        base_size=old.size,
        new_size=fresh.size,
        members=len(fresh.members),
        seconds=time.perf_counter() - begin,
        **fields,
    )


# --- sources and sinks ------------------------------------------------------------------


def _open_base(base: Source | Layer | MemberList, stack: ExitStack) -> Layer | MemberList:
    if isinstance(base, (Layer, MemberList)):
        return base
    source = as_source(base)
    if source is not base:
        stack.callback(source.close)
    if is_list(source):
        return read_list(source)
    return _open(source, stack)


def _open(source: Source, stack: ExitStack) -> Layer:
    with seekable_alone():
        return stack.enter_context(open_layer(source, index=False))


def _shifted(progress: Progress, done: int, total: int) -> Progress:
    return lambda now, _: progress(done + now, total)


# --- the patch --------------------------------------------------------------------------


@dataclass(slots=True)
class _Copy:
    """A member of NEW that BASE has, too, and where it is there."""

    offset: int
    size: int


@dataclass(slots=True)
class _Item:
    """A member of NEW that BASE does not have: where it is in NEW, and what its contents are made
    of: pieces are (offset in BASE, inner offset, length), or (-1, start in them, length). The
    operation is there once it is known that the engine remakes it."""

    offset: int
    size: int
    content: int
    pieces: list[tuple[int, int, int]]
    operation: bytes | None = None

    def literals(self) -> int:
        return sum(length for at, _, length in self.pieces if at < 0)


class _Maker:
    def __init__(
        self, old: MemberList, fresh: MemberList, blob: Blob, kind: str, threads: int
    ) -> None:
        self.old, self.fresh, self.blob = old, fresh, blob
        self.kind = kind
        self.threads = threads
        self.contents = fresh.contents or ()
        self.work = Work()
        self.first: dict[bytes, int] = {}
        for number, (_, _, digest) in enumerate(old.members):
            self.first.setdefault(digest, number)
        self.counts = dict.fromkeys(
            ("copied", "regenerated", "sent", "members_copied", "members_regenerated"), 0
        )

    def run(self, write: Callable[[bytes], object]) -> dict[str, Any]:
        old, fresh = self.old, self.fresh
        level, toc_frames = self._level_and_toc()
        name = engine(level)
        has_toc = old.toc_offset >= 0
        head = Head(
            base_size=old.size,
            base_digest=bytes.fromhex(old.digest[7:]),
            new_size=fresh.size,
            new_digest=bytes.fromhex(fresh.digest[7:]),
            new_toc_offset=fresh.data_end,
            base_toc_offset=old.toc_offset if has_toc else 0,
            base_toc_end=old.toc_end if has_toc else 0,
            base_json_size=len(old.toc) if has_toc else 0,
            level=level,
            legacy=self.kind == "stargz",
            toc_json_size=len(fresh.toc) if toc_frames else 0,
            engine=name,
        )
        out = PatchWriter(write, head)
        operations = Operations(out, self.blob.source)
        count = len(fresh.members)
        if toc_frames:
            count = self._data_members()
        for item in self._proven(self._items(count), level):
            self._emit(operations, item)
        operations.finish()
        if toc_frames:
            out.put(toc_frames)
            self.counts["regenerated"] += fresh.size - fresh.data_end
            self.counts["members_regenerated"] += len(fresh.members) - count
        out.finish()
        return {
            **self.counts,
            "patch_size": out.size,
            "toc_remade": bool(toc_frames),
            "level": level,
            "engine": name,
        }

    def _data_members(self) -> int:
        """How many members stand before the TOC."""
        end = self.fresh.data_end
        count = len(self.fresh.members)
        while count and self.fresh.members[count - 1][0] >= end:
            count -= 1
        return count

    def _emit(self, operations: Operations, item: _Copy | _Item) -> None:
        if isinstance(item, _Copy):
            operations.copy(item.offset, item.size)
            self.work.copy()
            self.counts["copied"] += item.size
            self.counts["members_copied"] += 1
        elif item.operation is not None and self.work.member(item.pieces, item.offset):
            operations.member(item.operation)
            self.counts["regenerated"] += item.size
            self.counts["members_regenerated"] += 1
        else:
            operations.data(item.offset, item.size)
            self.counts["sent"] += item.size

    # --- what happens to each member ----------------------------------------------------

    def _items(self, count: int) -> Iterator[_Copy | _Item]:
        """What the first `count` members of NEW are, in order."""
        from stargz._engine.patch import CHUNK

        members, first = self.old.members, self.first
        known: dict[bytes, tuple[int, int, int]] = {}
        for offset, inner, size, digest, there in struct.iter_unpack(CHUNK, self.old.chunks):
            if there and inner + size <= _INNER_MAX:
                known.setdefault(digest, (offset, inner, size))
        chunks = struct.iter_unpack(CHUNK, self.fresh.chunks)
        chunk = next(chunks, None)
        segment = position = 0
        follower = -1  # the member of BASE behind the last one that was copied
        for number in range(count):
            offset, size, digest = self.fresh.members[number]
            content = self.contents[number]
            if chunk is not None and chunk[0] == offset:
                segment, position = offset, 0
            end = position + content
            if 0 <= follower < len(members) and members[follower][1:] == (size, digest):
                same = follower
            else:
                same = first.get(digest, -1)
            copied = same >= 0 and members[same][1] == size
            pieces: list[tuple[int, int, int]] = []
            done = position
            while chunk is not None and chunk[0] == segment and chunk[1] < end:
                _, inner, length, chunk_digest, _ = chunk
                found = None if copied else known.get(chunk_digest)
                if found is not None and found[2] == length:
                    start, stop = max(inner, position), min(inner + length, end)
                    if done < start:
                        pieces.append((-1, done - position, start - done))
                    pieces.append((found[0], found[1] + start - inner, stop - start))
                    done = stop
                if inner + length > end:
                    break
                chunk = next(chunks, None)
            if copied:
                follower = same + 1
                yield _Copy(members[same][0], size)
            else:
                if done < end:
                    pieces.append((-1, done - position, end - done))
                yield _Item(offset, size, content, pieces)
            position = end

    def _proven(self, items: Iterator[_Copy | _Item], level: int) -> Iterator[_Copy | _Item]:
        """The same, with the operation of each item that the engine remakes."""
        window: list[_Copy | _Item] = []
        hopeful: list[_Item] = []
        literals = 0
        for item in items:
            window.append(item)
            if level and isinstance(item, _Item) and _is_hopeful(item):
                hopeful.append(item)
                literals += item.literals()
            if len(window) >= _WINDOW or literals >= _WINDOW_LITERALS:
                self._prove(hopeful, level)
                yield from window
                window, hopeful, literals = [], [], 0
        self._prove(hopeful, level)
        yield from window

    def _prove(self, items: list[_Item], level: int) -> None:
        if not items:
            return
        from stargz._engine.patch import GAP, PROOF, prove

        proofs, gaps = bytearray(), bytearray()
        first = size = 0
        for item in items:
            number = 0
            for at, start, length in item.pieces:
                if at < 0:
                    gaps += struct.pack(GAP, start, length, size)
                    size += length
                    number += 1
            proofs += struct.pack(PROOF, item.offset, item.size, item.content, first, number)
            first += number
        flags, literals = prove(self.blob, proofs, gaps, size, level, self.threads)
        at = 0
        for item, made in zip(items, flags, strict=True):
            end = at + item.literals()
            if made:
                item.operation = _member(item, literals[at:end])
            at = end

    # --- the level, and the end of NEW --------------------------------------------------

    def _level_and_toc(self) -> tuple[int, bytes]:
        """The level that made NEW (0: none), and the frames that make its TOC, if they do."""
        levels = self._levels()
        count = self._data_members()
        tail = self.fresh.members[count:]
        size = self.fresh.size - self.fresh.data_end
        old_toc = self.old.toc if self.old.toc_offset >= 0 else b""  # apply has the blob alone
        level = levels[0] if levels else 0
        if (
            not levels
            or self.fresh.toc_offset < 0  # not in the blob
            or size > _TAIL_MAX
            or max(len(self.fresh.toc), len(old_toc)) > _JSON_MAX
            or all(digest in self.first for _, _, digest in tail)
        ):
            return level, b""
        made_at = self._toc_level(levels, size)
        if not made_at:
            return level, b""
        from stargz.patching import toc_lines

        operations = toc_lines.difference(old_toc, self.fresh.toc)
        if toc_lines.remake(old_toc, operations) != self.fresh.toc:
            return level, b""
        frames = toc_lines.frames(operations)
        return (made_at, frames) if len(frames) < size else (level, b"")

    def _toc_level(self, levels: list[int], size: int) -> int:
        """The first of the levels that makes the end of NEW of its TOC, or 0."""
        from stargz._engine.patch import toc_members

        tail = self.blob.source.read_at(self.fresh.data_end, size)
        for level in levels:
            made = toc_members(self.fresh.toc, self.fresh.toc_offset, level, self.kind == "stargz")
            if made == tail:
                return level
        return 0

    def _levels(self) -> list[int]:
        """The levels at which the engine makes NEW's members, by a sample of them."""
        from stargz._engine.patch import PROOF, prove

        sample = self._sample()
        if not sample:
            return [1]
        extra = {self.blob.source.read_at(offset + 8, 1)[0] for offset, _, _ in sample}
        proofs = b"".join(struct.pack(PROOF, *member, 0, 0) for member in sample)
        found: dict[int, int] = {}
        # The byte XFL tells which levels are worth a try, and the bytes whether it is one.
        for level in range(1, 13):
            if (4 if level == 1 else 2 if level >= 9 else 0) not in extra:
                continue
            try:
                flags, _ = prove(self.blob, proofs, b"", 0, level, self.threads)
            except CodecError:
                break  # no libdeflate here
            found[level] = sum(flags)
        best = max(found.values(), default=0)
        return [level for level, made in found.items() if made == best] if best else []

    def _sample(self) -> list[tuple[int, int, int]]:
        """(offset, size, content) of some members, spread over NEW."""
        every = [
            (offset, size, content)
            for (offset, size, _), content in zip(
                itertools.islice(self.fresh.members, self._data_members()),
                self.contents,
                strict=False,
            )
            if content
        ]
        good = [member for member in every if member[2] in _SAMPLE]
        if not good:
            # A large one takes long at high levels, small ones tell little.
            every.sort(key=lambda member: member[2])
            large = [member for member in every if member[2] >= _SAMPLE.stop]
            return large[:1] or every[-_SAMPLES:]
        step = max(1, len(good) // _SAMPLES)
        return good[step // 2 :: step][:_SAMPLES]


def _is_hopeful(item: _Item) -> bool:
    from stargz._engine.patch import MEMBER_MAX

    literals = item.literals()
    if not 0 < item.content <= MEMBER_MAX or literals + 64 * len(item.pieces) > _OP_MAX:
        return False
    return literals <= _SMALL or literals < item.size


def _member(item: _Item, literals: bytes) -> bytes | None:
    """The operation, or None if the member itself is not larger."""
    out = [bytes((MEMBER,)), varint(len(item.pieces))]
    at = 0
    for offset, start, length in item.pieces:
        if offset < 0:
            out += bytes((LITERAL,)), varint(length), literals[at : at + length]
            at += length
        else:
            out += bytes((PIECE,)), varint(offset), varint(start), varint(length)
    operation = b"".join(out)
    if len(operation) < item.size:
        return operation
    import zlib

    # As if it were alone; in its frame it will be smaller.
    packed = len(operation) - len(literals) + len(zlib.compress(literals, 6)) - 6
    return operation if packed < item.size else None
