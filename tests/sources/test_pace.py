"""Hosts that refuse because they are asked too often: what they say, and how long we wait."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from registries import lying
from servers import Fault, FaultProxy, Raw, Request

from stargz.errors import RegistryError, SourceError, retryable
from stargz.sources import client as client_module
from stargz.sources.client import Client
from stargz.sources.http import HTTPSource
from stargz.sources.pace import Pace, asked_to_wait

_NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30),
        ({"Retry-After": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1e9"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "soon", "RateLimit-Reset": "9"}, 9),
        ({"Retry-After": "5", "RateLimit-Reset": "9"}, 5),
        ({"RateLimit-Reset": "42"}, 42),
        ({"RateLimit-Reset": "42.7"}, 42),
        ({"RateLimit-Reset": "42;w=60"}, 42),
        ({"RateLimit-Reset": "never"}, None),
        ({"X-RateLimit-Reset": "1800000060"}, 60),
        ({"X-RateLimit-Reset": "1799999999"}, 0),
        ({"X-Rate-Limit-Reset": "8"}, 8),
        ({"RateLimit": "limit=100, remaining=0, reset=50"}, 50),
        ({"RateLimit": '"default";r=0;t=30'}, 30),
        ({"RateLimit": '"burst";r=0;t=3, "day";r=0;t=90'}, 90),
        ({"RateLimit": '"default";r=0'}, None),
        ({"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}, 216),
        ({"RateLimit-Limit": "0;w=21600"}, None),
        ({"RateLimit-Limit": "100"}, None),
    ],
)
def test_what_a_server_says(headers, seconds):
    assert asked_to_wait(headers, _NOW) == seconds


AGAIN = {408, 425, 429, 499, *range(500, 600)} - {501, 505}


def test_what_is_tried_again():
    statuses = range(100, 600)
    assert {status for status in statuses if retryable(status)} == AGAIN
    errors = [RegistryError("x", status=status) for status in statuses]
    assert {error.status for error in errors if error.transient} == AGAIN


def test_no_answer_may_be_one_later():
    assert RegistryError("x").transient


# --- the pace, by a clock of ours -------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def enter(pace: Pace, rank: tuple[bool, float] = (False, 0.0)) -> float:
    with pace.queue(rank) as wait:
        return wait()


def test_a_host_that_does_not_say_is_left_alone_for_longer_and_longer():
    clock = Clock()
    pace = Pace(1.0, 30.0, 900.0, clock)
    assert enter(pace) == 0 and pace.left() == 900
    waits = []
    for _ in range(8):
        pace.refused(clock.now, None)
        wait = enter(pace)
        assert wait >= pace.blocked() > 0
        waits.append(wait)
        clock.now += wait
        assert enter(pace) == 0
    for number, wait in enumerate(waits):
        gap = min(2.0**number, 30.0)
        assert gap / 2 <= wait <= gap
    assert pace.left() == pytest.approx(900 - sum(waits))


def test_those_that_were_on_their_way_together_count_once():
    clock = Clock()
    pace = Pace(1.0, 30.0, 900.0, clock)
    begun = clock.now
    clock.now += 0.5
    for _ in range(8):
        pace.refused(begun, None)
    assert 0.5 <= pace.blocked() <= 1


def test_as_it_says_and_one_by_one_after_that():
    clock = Clock()
    pace = Pace(1.0, 30.0, 900.0, clock)
    pace.refused(clock.now, 60.0)
    assert 60 <= enter(pace) <= 61
    clock.now += 61
    assert enter(pace) == 0
    assert enter(pace) == pytest.approx(1)  # the next has to wait
    clock.now += 1
    assert enter(pace) == 0
    for _ in range(20):
        pace.answered()
    clock.now += 1
    assert [enter(pace) for _ in range(5)] == 5 * [0]
    assert pace.left() == 900


def test_the_pace_settles_at_what_a_host_allows():
    """Three a second, of a bucket that holds three."""
    clock = Clock()
    pace = Pace(0.25, 30.0, 900.0, clock)
    tokens, filled, good, bad = 3.0, clock.now, 0, 0
    begun = clock.now
    while good < 300:
        clock.now += enter(pace) or 0.01
        if enter(pace):
            continue
        tokens, filled = min(3.0, tokens + 3 * (clock.now - filled)), clock.now
        if tokens >= 1:
            tokens -= 1
            good += 1
            pace.answered()
        else:
            bad += 1
            pace.refused(clock.now, None)
    assert good / (clock.now - begun) > 1  # of the three
    assert bad < good


@pytest.mark.parametrize("said", [0.0, 1.0, 8.0])
def test_what_it_says_bounds_the_gap(said):
    clock = Clock()
    pace = Pace(0.25, 30.0, 900.0, clock)
    for _ in range(20):
        pace.refused(clock.now, said)
        assert said <= pace.blocked() <= said + 1
        clock.now += pace.blocked()
        assert enter(pace) == 0
        assert 0 < enter(pace) <= max(0.25, said / 4) + 1e-9  # of the clock's
        clock.now += enter(pace)
    assert enter(pace) == 0 and enter(pace) == pytest.approx(max(0.25, said / 4))


def test_the_eldest_has_its_tries_first():
    """Each request is refused twice: not all have their first refusal before one has an answer."""
    clock = Clock()
    begun = clock.now
    pace = Pace(0.25, 30.0, 5.0, clock)
    refusals = dict.fromkeys(range(6), 0)
    while refusals:
        with ExitStack() as stack:
            turns = {n: stack.enter_context(pace.queue((False, n))) for n in refusals}
            waits = {n: turns[n]() for n in random.sample(sorted(turns), len(turns))}
        free = [n for n in waits if not waits[n]]
        for n in free:
            refusals[n] += 1
            if refusals[n] <= 2:
                pace.refused(clock.now, 1.0)
            else:
                pace.answered()
                del refusals[n]
        assert pace.left() > 1
        clock.now += 0 if free else min(waits.values())
    assert clock.now - begun < 6 * 3


def test_who_had_all_its_tries_lets_others_go_first():
    clock = Clock()
    pace = Pace(1.0, 30.0, 900.0, clock)
    pace.refused(clock.now, None)
    clock.now += 1
    with pace.queue((True, 1.0)) as old, pace.queue((False, 2.0)) as new:
        assert old() > 0 and new() == 0
        clock.now += 1
        assert old() > 0
    assert enter(pace, (True, 1.0)) == 0


def test_hosts_that_are_at_rest_are_forgotten(monkeypatch):
    monkeypatch.setattr(client_module, "_MAX_PACES", 2)
    with lying() as one, lying() as two, lying() as three, Client(tries=1) as client:
        for server, status in ((one, 429), (two, 200), (three, 429)):
            server.answers["/x"] = (status, {"Retry-After": "3600"}, b"")
        for _ in range(3):
            for server in (one, two):
                with suppress(SourceError):
                    client.request("GET", f"{server.url}/x")
        with pytest.raises(SourceError):  # in the place of the second
            client.request("GET", f"{three.url}/x")
        for _ in range(3):
            with pytest.raises(SourceError, match="again in"):
                client.request("GET", f"{three.url}/x")
        assert [len(server.log) for server in (one, two, three)] == [1, 3, 1]
        assert client.request("GET", f"{two.url}/x").status == 200  # in that of the first
        assert len(client._paces) == 2


# --- a host that refuses ----------------------------------------------------------------------


class Bucket:
    """A plan: so many requests at once, and so many a second; the others are refused."""

    def __init__(self, size: float, rate: float, **headers: str) -> None:
        self.size = self.tokens = size
        self.rate = rate
        self.headers = headers
        self.refused = 0
        self._filled = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        with self._lock:
            now = time.monotonic()
            self.tokens = min(self.size, self.tokens + self.rate * (now - self._filled))
            self._filled = now
            if self.tokens >= 1:
                self.tokens -= 1
                return None
            self.refused += 1
            headers = {key.replace("_", "-"): value for key, value in self.headers.items()}
            return Fault(status=429 if self.refused % 2 else 503, headers=headers)


@pytest.mark.parametrize("headers", [{}, {"Retry_After": "0"}, {"RateLimit_Reset": "0"}])
def test_threads_that_share_a_host_that_throttles(headers):
    """All of them get all, though none has enough tries to get it alone."""
    with Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as server:
        bucket = Bucket(3, 60, **headers)
        with FaultProxy(server.url) as proxy:
            proxy.reset(bucket)
            with (
                Client(backoff=0.02, tries=2, host_patience=60) as client,
                ThreadPoolExecutor(8) as threads,
            ):
                asked = [threads.submit(client.request, "GET", proxy.url) for _ in range(60)]
                assert {done.result().data for done in asked} == {b"hello"}
            assert bucket.refused
            assert proxy.requests == 60 + bucket.refused


@pytest.mark.parametrize("status", [429, 503])
def test_a_host_that_says_too_long_is_asked_once(status):
    with lying() as server, Client(host_patience=600) as client:
        server.answers["/x"] = (status, {"Retry-After": "3600"}, b"")
        with pytest.raises(
            SourceError, match=rf"{status}.*; try again in 360. s, or with"
        ) as caught:
            client.request("GET", f"{server.url}/x")
        assert caught.value.throttled and caught.value.status == status
        # Nor is it asked for anything else meanwhile, by any thread.
        for path in ("x", "y"):
            with pytest.raises(
                SourceError, match=rf"answered {status} .*; try again in .* patience \(--patience\)"
            ) as caught:
                client.request("GET", f"{server.url}/{path}")
            assert caught.value.throttled and caught.value.status == status
        with pytest.raises(SourceError, match=r"try again in .* patience \(--patience\)"):
            HTTPSource(f"{server.url}/z", client=client)
        assert len(server.log) == 1
        with lying() as other:  # others are
            other.answers["/x"] = (200, {}, b"hello")
            assert client.request("GET", f"{other.url}/x").data == b"hello"


def test_patience_comes_to_an_end():
    with lying() as server, Client(backoff=0.02, tries=3, host_patience=0.3) as client:
        server.answers["/x"] = (429, {}, b"")
        with pytest.raises(SourceError, match=r"\(\d+ tries\)") as caught:
            client.request("GET", f"{server.url}/x")
        assert caught.value.throttled
        asked = len(server.log)
        assert 3 < asked < 10
        for _ in range(5):  # and it stays at its end: a question now and then
            with pytest.raises(SourceError):
                client.request("GET", f"{server.url}/x")
        assert len(server.log) <= asked + 5


def test_waiting_for_others_costs_no_patience():
    with Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as server:
        seen = Counter()

        def plan(request: Request) -> Fault | None:
            seen[request.path] += 1
            refused = seen[request.path] <= 2
            return Fault(status=503, headers={"Retry-After": "1"}) if refused else None

        with FaultProxy(server.url) as proxy:
            proxy.reset(plan)
            with (
                Client(host_patience=3, tries=3, max_wait=0.5) as client,
                ThreadPoolExecutor(2) as threads,
            ):
                urls = [f"{proxy.url}/{number}" for number in range(2)]
                answers = list(threads.map(lambda url: client.request("GET", url), urls))
            assert [answer.data for answer in answers] == 2 * [b"hello"]
            assert proxy.requests == 6


def test_who_waits_for_a_host_ends_with_the_client():
    with lying() as server, Client(host_patience=600) as client:
        server.answers["/x"] = (429, {"Retry-After": "500"}, b"")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(client.request, "GET", f"{server.url}/x")
            while not server.log:
                time.sleep(0.01)
            client.close()
            with pytest.raises(ValueError, match="closed"):
                waiting.result(timeout=30)
