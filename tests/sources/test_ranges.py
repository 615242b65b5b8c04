"""stargz.sources.ranges: which requests are made for a batch of ranges."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from stargz.sources.ranges import MAX_GAP, MIN_GAP, Link, Plan, plan

BLOB = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(64))
RANGE = st.integers(0, len(BLOB)).flatmap(
    lambda offset: st.tuples(st.just(offset), st.integers(0, len(BLOB) - offset))
)


def bodies(made: Plan) -> list[bytes]:
    return [BLOB[offset : offset + size] for offset, size in made.requests]


@given(st.lists(RANGE, max_size=12), st.integers(0, 300), st.integers(1, 2000), st.integers(1, 8))
def test_every_range_gets_its_bytes(
    ranges: list[tuple[int, int]], gap: int, part: int, parallel: int
) -> None:
    made = plan(ranges, gap, part, parallel)
    assert made.assemble(bodies(made)) == [BLOB[o : o + n] for o, n in ranges]


@given(st.lists(RANGE, max_size=12), st.integers(0, 300), st.integers(1, 2000), st.integers(1, 8))
def test_requests_are_few_and_disjoint(
    ranges: list[tuple[int, int]], gap: int, part: int, parallel: int
) -> None:
    made = plan(ranges, gap, part, parallel)
    asked = sum(size for _, size in ranges)
    ends = 0
    for offset, size in made.requests:
        assert size > 0 and offset >= ends
        ends = offset + size
        assert any(o < ends and offset < o + n for o, n in ranges if n) or size <= gap
    wanted = {b for o, n in ranges for b in range(o, o + n)}
    fetched = sum(size for _, size in made.requests)
    assert len(wanted) <= fetched <= len(wanted) + gap * len(ranges)
    assert (fetched > 0) == (asked > 0)
    assert len(made.requests) <= len(ranges) * parallel


def test_near_neighbours_share_a_request() -> None:
    assert plan([(0, 10), (20, 10)], 10, 100, 4).requests == ((0, 30),)
    assert plan([(0, 10), (21, 10)], 10, 100, 4).requests == ((0, 10), (21, 10))
    assert plan([(20, 10), (0, 10), (5, 20)], 0, 100, 4).requests == ((0, 30),)


def test_large_ranges_come_in_parts() -> None:
    assert plan([(5, 199)], 0, 100, 4).requests == ((5, 199),)
    assert plan([(5, 200)], 0, 100, 4).requests == ((5, 100), (105, 100))
    assert plan([(0, 1001)], 0, 100, 4).requests == ((0, 251), (251, 251), (502, 251), (753, 248))


def test_nothing_is_copied_that_need_not_be() -> None:
    made = plan([(0, 10), (1000, 10)], 0, 100, 4)
    parts = bodies(made)
    assert [a is b for a, b in zip(made.assemble(parts), parts, strict=True)] == [True, True]


def test_the_gap_is_what_the_link_does_in_a_wait() -> None:
    link = Link()
    link.saw(0.1, 1 << 20, 1.0)
    assert link.gap == int(0.1 * (1 << 20))
    for _ in range(50):  # an estimate follows what is seen
        link.saw(0.001, 1 << 20, 0.1)
    assert link.gap < 0.02 * (1 << 20)
    small = Link()
    small.saw(0.05, 100, 1e-9)  # too small to say anything of the bandwidth
    assert small.bandwidth == Link().bandwidth


@given(st.floats(0, 1e6), st.integers(0, 1 << 40), st.floats(0, 1e6))
def test_the_gap_is_bounded(first: float, size: int, body: float) -> None:
    link = Link()
    link.saw(first, size, body)
    assert MIN_GAP <= link.gap <= MAX_GAP
    assert link.part >= link.gap
