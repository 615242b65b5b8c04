"""Deflate data (RFC 1951) put together symbol by symbol, right or wrong, and what it decodes to."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

END = 256
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
LENGTH_EXTRA = [0] * 8 + [i // 4 for i in range(4, 24)] + [0]
LENGTH_BASE = [3 + sum(1 << x for x in LENGTH_EXTRA[:i]) for i in range(28)] + [258]
DISTANCE_EXTRA = [0, 0] + [i // 2 for i in range(28)]
DISTANCE_BASE = [1 + sum(1 << x for x in DISTANCE_EXTRA[:i]) for i in range(30)]
FIXED_LITERALS = dict.fromkeys(range(288), 8) | dict.fromkeys(range(144, 256), 9)
FIXED_LITERALS |= dict.fromkeys(range(256, 280), 7)
FIXED_DISTANCES = dict.fromkeys(range(32), 5)

# A literal, or the symbol of a length and of a distance with what is added to each.
Token = int | tuple[int, int, int, int]


def match(length: int, distance: int) -> Token:
    """As every compressor writes it."""
    a = max(i for i in range(29) if LENGTH_BASE[i] <= length)
    b = max(i for i in range(30) if DISTANCE_BASE[i] <= distance)
    return 257 + a, length - LENGTH_BASE[a], b, distance - DISTANCE_BASE[b]


def codes(lengths: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Each symbol's code, with its first bit lowest, and how many bits that is."""
    made, code, before = {}, 0, 0
    for length, symbol in sorted((n, symbol) for symbol, n in lengths.items() if n):
        code <<= length - before
        made[symbol] = int(f"{code:0{length}b}"[::-1], 2), length
        code, before = code + 1, length
    return made


class Deflate:
    """`data` is the stream as far as it is written, `out` what it decodes to."""

    def __init__(self) -> None:
        self.out = bytearray()
        self._value = self._count = 0

    @property
    def data(self) -> bytes:
        return self._value.to_bytes((self._count + 7) // 8, "little")

    def bits(self, value: int, count: int) -> Deflate:
        self._value |= (value & ((1 << count) - 1)) << self._count
        self._count += count
        return self

    def begin(self, kind: int, last: bool = True) -> Deflate:
        return self.bits(last, 1).bits(kind, 2)

    def stored(self, data: bytes, last: bool = True, wrong: int = 0) -> Deflate:
        self.begin(0, last).bits(0, -self._count % 8)
        self.bits(len(data), 16).bits(~len(data) ^ wrong, 16)
        self.out += data
        return self.bits(int.from_bytes(data, "little"), 8 * len(data))

    def fixed(self, tokens: Iterable[Token], last: bool = True, end: bool = True) -> Deflate:
        self.begin(1, last)
        return self._symbols(tokens, FIXED_LITERALS, FIXED_DISTANCES, end)

    def dynamic(
        self,
        literals: Mapping[int, int],
        distances: Mapping[int, int],
        tokens: Iterable[Token] = (),
        last: bool = True,
        end: bool = True,
    ) -> Deflate:
        """A block with codes of these lengths, each written by itself."""
        counts = max(257, 1 + max(literals)), max(1, 1 + max(distances, default=0))
        lengths = [literals.get(i, 0) for i in range(counts[0])]
        lengths += [distances.get(i, 0) for i in range(counts[1])]
        self.header(counts, dict.fromkeys(range(16), 4), lengths, last)
        return self._symbols(tokens, literals, distances, end)

    def header(
        self,
        counts: tuple[int, int],
        steps: Mapping[int, int],
        lengths: Iterable[int | tuple[int, int]],
        last: bool = True,
    ) -> Deflate:
        """Of a dynamic block: `lengths` are symbols of `steps`, or with what is added to them."""
        count = 1 + max((i for i in range(4, 19) if steps.get(ORDER[i])), default=3)
        self.begin(2, last).bits(counts[0] - 257, 5).bits(counts[1] - 1, 5).bits(count - 4, 4)
        for symbol in ORDER[:count]:
            self.bits(steps.get(symbol, 0), 3)
        how = codes(steps)
        for length in lengths:
            symbol, more = length if isinstance(length, tuple) else (length, 0)
            self.bits(*how[symbol]).bits(more, {16: 2, 17: 3, 18: 7}.get(symbol, 0))
        return self

    def _symbols(
        self,
        tokens: Iterable[Token],
        literals: Mapping[int, int],
        distances: Mapping[int, int],
        end: bool,
    ) -> Deflate:
        first, second = codes(literals), codes(distances)
        for token in tokens:
            if isinstance(token, int):
                self.bits(*first[token])
                self.out.append(token & 255)
                continue
            a, more, b, far = token
            self.bits(*first[a])
            if a > 285:
                continue
            self.bits(more, LENGTH_EXTRA[a - 257])
            if b not in second:
                continue
            self.bits(*second[b])
            if b > 29:
                continue
            self.bits(far, DISTANCE_EXTRA[b])
            distance = DISTANCE_BASE[b] + far
            for _ in range(LENGTH_BASE[a - 257] + more):
                self.out += self.out[-distance : len(self.out) - distance + 1] or b"?"
        return self.bits(*first[END]) if end else self


def member(
    data: bytes, out: bytes | bytearray, head: bytes = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
) -> bytes:
    """Deflate data as a gzip member, with the check sum and length of `out`."""
    size = len(out) & 0xFFFFFFFF
    return head + data + zlib.crc32(out).to_bytes(4, "little") + size.to_bytes(4, "little")
