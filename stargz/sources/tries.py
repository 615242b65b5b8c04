"""When a request is made again: what one try may fail with, and the budget of all of them."""

from __future__ import annotations

import logging
import math
import random
import time
from typing import TYPE_CHECKING

from stargz.errors import SourceError

if TYPE_CHECKING:
    from stargz.sources.client import Client, Response
    from stargz.sources.pace import Pace

_log = logging.getLogger("stargz")
_TOLD = 5.0  # seconds of a wait that is worth a word


class TransientError(Exception):
    """One try failed in a way that another may not; never leaves the package."""

    def __init__(
        self,
        why: str,
        *,
        hint: str = "try again later",
        status: int | None = None,
        retry_after: float | None = None,
        final: bool = False,
        tries: int | None = None,
        answer: Response | None = None,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint
        self.status = status
        self.retry_after = retry_after
        self.tries: int | None = 1 if final else tries  # after which it is certain
        self.answer = answer  # what says more about it
        self.pace = pace  # of the host that refused it for want of time


class Tries:
    """The budget of one operation, made of requests: how many tries, and how much time.

    What is asked `aside` can be done without: that it is refused says nothing about what else the
    host is asked for, and it does not wait long.
    """

    def __init__(
        self,
        client: Client,
        what: str,
        size: int = 0,
        tries: int | None = None,
        *,
        patient: bool = True,
        aside: bool = False,
    ) -> None:
        self.aside: bool = aside
        self._client = client
        self.what = what
        self.made: int = 0
        self._tries = client.tries if tries is None else tries
        self._patience = client.host_patience if patient else 0.0
        self._asked = 0.0  # seconds that the host which refused it last asked for
        self._waited = 0.0  # and those before, together
        self._began = time.monotonic()
        self._until = self._began + client.patience + size / client.min_rate

    @property
    def rank(self) -> tuple[bool, float]:
        """The lower, the sooner is its turn at a host that refuses: the eldest, unless it has had
        its tries; then the host may have answers for others."""
        return self.made >= self._tries, self._began

    def deadline(self, size: int = 0) -> float:
        """When the next step must have ended, which moves `size` bytes."""
        client = self._client
        return min(self._until, time.monotonic() + client.timeout + size / client.min_rate)

    def extend(self, size: int) -> None:
        """More time, for bytes that were not counted on when it began."""
        self._until += size / self._client.min_rate

    def wait(self, seconds: float) -> None:
        """More time, for what passed while nothing was asked of the server."""
        self._until += seconds

    def again(self, failure: TransientError) -> None:
        """Wait before the next try; SourceError if there is none, or it would be useless."""
        if self._client.closing.wait(self.pause(failure)):
            raise ValueError(f"{self.what}: the client is closed")

    def pause(self, failure: TransientError) -> float:
        """Seconds to wait before the next try, which is counted; see `again`."""
        self.made += 1
        if failure.pace is not None:
            self.check(failure.pace, failure)
            blocked = failure.pace.blocked()
            if blocked > _TOLD:
                _log.warning("%s: %s: waiting %.0f s", self.what, failure.why, blocked)
            return 0.0  # whoever asks the host waits for it
        client = self._client
        wait: float = client.backoff * 2 ** (self.made - 1) * random.uniform(0.5, 1.0)
        if failure.retry_after is not None:
            wait = max(wait, failure.retry_after)
        long = self.aside and wait > _TOLD
        wait = min(wait, client.max_wait)
        tries = self._tries if failure.tries is None else min(self._tries, failure.tries)
        if long or self.made >= tries or time.monotonic() + wait >= self._until:
            raise self._ended(failure, failure.why, failure.hint)
        return wait

    def check(self, pace: Pace, failure: TransientError | None = None) -> None:
        """Raise the error of a host that refuses for too long: this request, for all that it was
        told to wait, or any. What others wait for does not count. Who has no patience has a few
        tries, unless others have lost theirs."""
        wait = pace.blocked()
        if failure is not None:
            self._waited += self._asked
            self._asked = max(wait, self._client.backoff)
        patient = wait <= min(pace.left(), self._patience - self._waited)
        lost = pace.left() <= 0 and pace.patience > 0
        few = self.made < self._tries and wait <= self._client.max_wait and not lost
        if (wait or failure) and not patient and not few:
            failure = failure or TransientError(pace.said[0], status=pace.said[1])
            hint = f"try again in {math.ceil(wait)} s, or with more patience (--patience)"
            error = self._ended(failure, failure.why, hint)
            error.throttled = True
            raise error

    def _ended(self, failure: TransientError, why: str, hint: str) -> SourceError:
        error = self.error(why, hint, failure.status)
        error.answer = failure.answer
        error.__cause__ = failure
        return error

    def error(self, why: str, hint: str, status: int | None = None) -> SourceError:
        """The error that ends the operation."""
        times = f" ({self.made} tries)" if self.made > 1 else ""
        error = SourceError(f"{self.what}: {why}{times}; {hint}")
        error.status = status
        return error
