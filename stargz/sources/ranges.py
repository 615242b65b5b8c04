"""Which requests to make for a batch of ranges: pure planning, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Range = tuple[int, int]  # offset, size

# Until a request has been timed: 30 ms and 4 MB/s, a home's link to a data centre.
_LATENCY = 0.03
_BANDWIDTH = 4e6
# A gap below the first costs less than the headers of a request; above the second, a wrong
# estimate would cost too many bytes.
MIN_GAP = 4 << 10
MAX_GAP = 1 << 20
# Bodies below this say more of the latency than of the bandwidth.
_TIMED = 64 << 10
# Two connections are not faster than one below this: a new one starts slowly. 3 MB over a link
# of 100 Mbit/s and 50 ms took 0.25 s longer in two parts.
_PART_MIN = 4 << 20
# How much the newest request counts.
_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Plan:
    """`requests` are sorted, disjoint and not empty; together they hold every range."""

    ranges: tuple[Range, ...]
    requests: tuple[Range, ...]

    def assemble(self, bodies: Sequence[bytes]) -> list[bytes]:
        """The bytes of each range, in the order asked for, from those of each request."""
        import bisect

        starts = [offset for offset, _ in self.requests]
        result = []
        for offset, size in self.ranges:
            pieces = []
            at = bisect.bisect_right(starts, offset) - 1 if size else 0
            while size:
                start = starts[at]
                body = bodies[at]
                piece = body[offset - start : offset - start + size]
                pieces.append(piece)
                offset += len(piece)
                size -= len(piece)
                at += 1
            result.append(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return result


def plan(ranges: Sequence[Range], gap: int, part: int, parallel: int) -> Plan:
    """Merge ranges that are at most `gap` bytes apart, then split what is larger than two
    `part`s into up to `parallel` pieces, so that they come over several connections."""
    merged: list[list[int]] = []
    for offset, size in sorted(r for r in ranges if r[1]):
        if merged and offset - merged[-1][1] <= gap:
            merged[-1][1] = max(merged[-1][1], offset + size)
        else:
            merged.append([offset, offset + size])
    requests: list[Range] = []
    for start, end in merged:
        pieces = max(1, min(parallel, (end - start) // part))
        step = -(-(end - start) // pieces)
        requests += [(at, min(step, end - at)) for at in range(start, end, step)]
    return Plan(tuple(ranges), tuple(requests))


class Link:
    """What the requests so far say of latency and bandwidth. Racing updates do no harm."""

    def __init__(self) -> None:
        self.latency: float = _LATENCY
        self.bandwidth: float = _BANDWIDTH
        self._timed = self._measured = False

    def saw(self, first: float, size: int, body: float) -> None:
        """A request whose answer began after `first` seconds and whose `size` bytes took
        `body` seconds more."""
        self.latency += (first - self.latency) * (_WEIGHT if self._timed else 1)
        self._timed = True
        if size >= _TIMED:
            rate = size / max(body, 1e-6)
            self.bandwidth += (rate - self.bandwidth) * (_WEIGHT if self._measured else 1)
            self._measured = True

    @property
    def gap(self) -> int:
        """Bytes that come in the time that another request would wait."""
        return int(min(MAX_GAP, max(MIN_GAP, self.latency * self.bandwidth)))

    @property
    def part(self) -> int:
        """What is worth a connection of its own: its wait is a small share of it."""
        return max(_PART_MIN, 4 * self.gap)
