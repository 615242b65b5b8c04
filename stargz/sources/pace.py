"""How fast a host is asked: one pace for all threads that share a client.

A host that answers 429 or 503 is left alone for as long as it says, or for a time that doubles
from one refusal to the next; after that requests begin one by one, the eldest first, with a gap
that grows with refusals (up to a part of the time that the host says, if it does) and shrinks with
answers.
"""

from __future__ import annotations

import datetime
import email.utils
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Rank = tuple[bool, float]  # see Tries.rank

THROTTLING = (429, 503)
_SHRINK = 0.8  # of the gap, with each answer
_EPOCH = 10**9  # a reset that is over this is a time of day, and not seconds from now


class Pace:
    """That of one host. `first` and `most` are the seconds that it is left alone where it does not
    say; `patience` is for how long it may refuse without one answer in between."""

    def __init__(
        self,
        first: float,
        most: float,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.patience = patience
        self._first = first
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._gap = 0.0  # seconds between the beginnings of requests
        self._next = 0.0  # when one may begin
        self._until = 0.0  # when the host may be asked again
        self._changed = -1.0
        self._waiting: list[Rank] = []
        self._since: float | None = None  # the first refusal after the last answer
        self.said: tuple[str, int] = ("it refuses to be asked again so soon", 429)

    @contextmanager
    def queue(self, rank: Rank) -> Iterator[Callable[[], float]]:
        """Who waits for a turn: gives the function that tells the seconds to wait before the
        request may be made, whose turn is then; 0 if it is now. Ask again after waiting: the host
        may have refused another meanwhile.

        A host that refuses gets first what has the lowest rank, so that a request which needs
        several tries has them, and others do not all need theirs at the same time.
        """
        with self._lock:
            self._waiting.append(rank)
        try:
            yield lambda: self._enter(rank)
        finally:
            with self._lock:
                self._waiting.remove(rank)

    def _enter(self, rank: Rank) -> float:
        with self._lock:
            now = self._clock()
            at = max(now, self._next, self._until)
            if at <= now and self._gap and min(self._waiting) < rank:
                return self._gap
            if at <= now:
                self._next = now + self._gap
            return at - now

    def blocked(self) -> float:
        """Seconds until the host may be asked again."""
        with self._lock:
            return max(0.0, self._until - self._clock())

    def left(self) -> float:
        """Seconds of patience left."""
        with self._lock:
            waited = 0.0 if self._since is None else self._clock() - self._since
            return self.patience - waited

    def at_rest(self) -> bool:
        """Whether it is as that of a host that was never asked."""
        with self._lock:
            return self._since is None and self._gap == 0 and self._until <= self._clock()

    def refused(self, begun: float, said: float | None) -> None:
        """The host refused a request that was begun then, and said how long to wait, if it did."""
        with self._lock:
            now = self._clock()
            if self._since is None:
                self._since = now
            # Of those that were on their way together one counts.
            if begun >= self._changed:
                self._gap = min(max(2 * self._gap, self._first), self._most)
                self._changed = now
            if said is not None:  # it does the pacing; we only keep from coming all at once
                self._gap = min(self._gap, max(self._first, said / 4))
            if said is None:
                wait = self._gap * random.uniform(0.5, 1.0)
            else:  # not all at the same moment, and not before it
                wait = said + random.uniform(0, min(self._gap, 1.0))
            self._until = max(self._until, now + wait)

    def answered(self) -> None:
        """The host answered something else."""
        with self._lock:
            self._since = None
            self._gap *= _SHRINK
            if self._gap < self._first / 4:
                self._gap = 0.0


def asked_to_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """The seconds for which a server that refuses wants to be left alone; None if it does not say.

    Retry-After (RFC 9110, 10.2.3); the fields of the IETF's RateLimit drafts, in their old and new
    forms; those in use before them (X-RateLimit-Reset), as seconds or as a time of day; and Docker
    Hub's ratelimit-limit of N;w=SECONDS, of which one is due every SECONDS / N.
    """
    now = time.time() if now is None else now
    seconds = retry_after(headers, now)
    if seconds is not None:
        return seconds
    found = re.findall(r"(?:\breset=|;\s*t=)(\d{1,12})\b", headers.get("RateLimit", ""))
    for name in ("RateLimit-Reset", "X-RateLimit-Reset", "X-Rate-Limit-Reset"):
        found += re.findall(r"^\s*(\d{1,12})(?:\.\d*)?\s*(?:$|;)", headers.get(name, ""))
    if found:
        return max(max(0.0, int(one) - now) if int(one) > _EPOCH else float(one) for one in found)
    rates = re.findall(r"\b(\d{1,9})\s*;\s*w=(\d{1,9})\b", headers.get("RateLimit-Limit", ""))
    due = [int(window) / int(limit) for limit, window in rates if int(limit)]
    return max(due) if due else None


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """What Retry-After says, in seconds or as a date; None if that is nothing."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
        if when.tzinfo is None:  # asctime's form says none: it is GMT, as in the others
            when = when.replace(tzinfo=datetime.UTC)
        seconds = when.timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
    return max(0.0, seconds - (time.time() if now is None else now))
