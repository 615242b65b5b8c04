"""One TOC's JSON as lines of another: the operations of a patch's frames T (csrc/patch/format.h).

Both texts are cut into blocks, an entry each where the JSON is laid out as all writers do. A
block of NEW that is one of BASE's but for the numbers of its "offset" lines is taken from there.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stargz.patching.file import FRAME_MAX, LINES, TEXT, encode_frame, varint, zigzag

_BLOCK_END = re.compile(rb"\},?(?:\n|\Z)")
_OFFSET = re.compile(rb'^([ \t]*"offset": )([0-9]{1,19})(?=,?$)', re.M)
_TEXT_MAX = FRAME_MAX - 16


@dataclass(frozen=True, slots=True)
class Lines:
    """BASE's bytes [start, end), which are `taken` lines behind `passed` ones, with `shift` added
    to the numbers of their offset lines."""

    start: int
    end: int
    passed: int
    taken: int
    shift: int


Operation = Lines | bytes


class _Blocks:
    """A text in blocks: the key of each is the text without the numbers of offset lines."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.ends = [match.end() for match in _BLOCK_END.finditer(text)]
        if text and (not self.ends or self.ends[-1] < len(text)):
            self.ends.append(len(text))
        self.keys: list[bytes] = []
        self.numbers: list[list[bytes]] = []
        start = 0
        for end in self.ends:
            block = text[start:end]
            # JSON has no NUL, which stands for the numbers in keys; what has one is taken whole.
            whole = b"\0" in block
            parts = [b"\0\0" + block] if whole else _OFFSET.split(block)
            self.numbers.append(parts[2::3])
            del parts[2::3]
            self.keys.append(b"\0".join(parts))
            start = end

    def start(self, number: int) -> int:
        return self.ends[number - 1] if number else 0


def difference(base: bytes, new: bytes) -> list[Operation]:
    """What makes `new` of `base`: in an order that passes through `base` once."""
    old, fresh = _Blocks(base), _Blocks(new)
    operations: list[Operation] = []
    behind = 0  # in BASE, the end of the last Lines
    done = 0  # bytes of NEW

    def text_until(end: int) -> None:
        for at in range(done, end, _TEXT_MAX):
            operations.append(new[at : min(end, at + _TEXT_MAX)])

    for first, last, at, shift in _runs(old, fresh):
        start, end = old.start(at), old.ends[at + last - first]
        text_until(fresh.start(first))
        passed = base.count(b"\n", behind, start)
        taken = base.count(b"\n", start, end) + (end == len(base) and base[-1:] != b"\n")
        operations.append(Lines(start, end, passed, taken, shift))
        behind = end
        done = fresh.ends[last]
    text_until(len(new))
    return operations


def remake(base: bytes, operations: Iterable[Operation]) -> bytes:
    """What the operations make."""
    out = []
    for op in operations:
        if isinstance(op, bytes):
            out.append(op)
            continue
        text = base[op.start : op.end]
        if op.shift:
            shift = op.shift

            def moved(match: re.Match[bytes], shift: int = shift) -> bytes:
                return b"%s%d" % (match[1], int(match[2]) + shift)

            text = _OFFSET.sub(moved, text)
        out.append(text)
    return b"".join(out)


def frames(operations: Iterable[Operation]) -> bytes:
    """The operations as frames T."""
    out = bytearray()
    payload = bytearray()
    for op in operations:
        if isinstance(op, bytes):
            packed = bytes((TEXT,)) + varint(len(op)) + op
        else:
            packed = bytes((LINES,)) + varint(op.passed) + varint(op.taken) + zigzag(op.shift)
        if len(payload) + len(packed) > FRAME_MAX:
            out += encode_frame(b"T", bytes(payload), deflate=True)
            payload.clear()
        payload += packed
    if payload:
        out += encode_frame(b"T", bytes(payload), deflate=True)
    return bytes(out)


# --- matching ---------------------------------------------------------------------------


def _runs(old: _Blocks, fresh: _Blocks) -> Iterator[tuple[int, int, int, int]]:
    """(first, last, block of BASE, shift) of blocks that follow each other in both texts."""
    first = last = at = -1
    shift: int | None = None
    for number, other in _pairs(old.keys, fresh.keys):
        moved = _shift(old.numbers[other], fresh.numbers[number])
        if moved is False:
            continue
        if first >= 0:
            follows = number == last + 1 and other == at + number - first
            if follows and (moved is None or shift is None or moved == shift):
                last = number
                shift = shift if moved is None else moved
                continue
            yield first, last, at, shift or 0
        first, last, at, shift = number, number, other, moved
    if first >= 0:
        yield first, last, at, shift or 0


def _shift(old: list[bytes], new: list[bytes]) -> int | bool | None:
    """What is to be added to the numbers; None if there are none, False if nothing does it."""
    if not old:
        return None
    shift = int(new[0]) - int(old[0])
    for before, after in zip(old, new, strict=True):
        if (before if not shift else b"%d" % (int(before) + shift)) != after:
            return False
        if int(after) >= 1 << 63:
            return False
    return shift


def _pairs(old: list[bytes], new: list[bytes]) -> list[tuple[int, int]]:
    """Blocks of NEW and of BASE with the same key, ascending in both: the longest such sequence
    of keys that are unique, and what is the same next to them."""
    before, after = _unique(old), _unique(new)
    anchors = [(n, before[key]) for key, n in after.items() if key in before]
    anchors.sort()
    pairs: list[tuple[int, int]] = []
    n = m = 0  # the first blocks that are not matched
    for next_n, next_m in [*_ascending(anchors), (len(new), len(old))]:
        while n < next_n and m < next_m and new[n] == old[m]:
            pairs.append((n, m))
            n += 1
            m += 1
        tail = []
        end_n, end_m = next_n, next_m
        while end_n > n and end_m > m and new[end_n - 1] == old[end_m - 1]:
            end_n -= 1
            end_m -= 1
            tail.append((end_n, end_m))
        pairs.extend(reversed(tail))
        if next_n < len(new):
            pairs.append((next_n, next_m))
        n, m = next_n + 1, next_m + 1
    return pairs


def _unique(keys: list[bytes]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for number, key in enumerate(keys):
        found[key] = -1 if key in found else number
    return {key: number for key, number in found.items() if number >= 0}


def _ascending(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest run of pairs whose second numbers ascend, too (patience sorting)."""
    tops: list[int] = []  # the smallest second number that ends a run of each length
    ends: list[int] = []  # which pair that is
    previous = []
    for number, (_, value) in enumerate(pairs):
        pile = bisect_left(tops, value)
        previous.append(ends[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(value)
            ends.append(number)
        else:
            tops[pile] = value
            ends[pile] = number
    found = []
    number = ends[-1] if ends else -1
    while number >= 0:
        found.append(pairs[number])
        number = previous[number]
    return found[::-1]
