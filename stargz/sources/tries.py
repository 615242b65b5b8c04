"""When a request is made again: what one try may fail with, and the budget of all of them."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from stargz.errors import SourceError

if TYPE_CHECKING:
    from stargz.sources.client import Client, Response

_NOT_RETRIED = (501, 505)


def retryable(status: int) -> bool:
    """Whether an answer may be another one when asked again."""
    return status in (408, 425, 429, 499) or (500 <= status < 600 and status not in _NOT_RETRIED)


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
    ) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint
        self.status = status
        self.retry_after = retry_after
        self.tries = 1 if final else tries  # after which it is certain
        self.answer = answer  # what says more about it


class Tries:
    """The budget of one operation, made of requests: how many tries, and how much time."""

    def __init__(self, client: Client, what: str, size: int = 0, tries: int | None = None) -> None:
        self._client = client
        self.what = what
        self.made = 0
        self._tries = client.tries if tries is None else tries
        self._until = time.monotonic() + client.patience + size / client.min_rate

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
        client = self._client
        wait: float = client.backoff * 2 ** (self.made - 1) * random.uniform(0.5, 1.0)
        if failure.retry_after is not None:
            wait = max(wait, failure.retry_after)
        wait = min(wait, client.max_wait)
        tries = self._tries if failure.tries is None else min(self._tries, failure.tries)
        if self.made >= tries or time.monotonic() + wait >= self._until:
            error = self.error(failure.why, failure.hint, failure.status)
            error.answer = failure.answer
            raise error from failure
        return wait

    def error(self, why: str, hint: str, status: int | None = None) -> SourceError:
        """The error that ends the operation."""
        times = f" ({self.made} tries)" if self.made > 1 else ""
        error = SourceError(f"{self.what}: {why}{times}; {hint}")
        error.status = status
        return error
