"""Runs in turn, their medians and spreads, and that each did what it was to do."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stargz.benchmark.children import PeerError
from stargz.errors import StargzError

Run = Callable[[], Any]
State = Literal["ok", "unable", "failed", "wrong"]

# A measurement that has taken so long stops after so many rounds.
_LONG = 120.0
_ENOUGH = 3


class WrongError(Exception):
    """Something was done, and not what was to be done."""


class UnableError(Exception):
    """Something cannot be measured here; the text says why."""


def clock(run: Run) -> float:
    """Seconds that something takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def nothing(*_: object) -> None:
    """What a cell does that has nothing to do there."""


@dataclass
class Cell:
    """One way to do what is measured.

    `before` is called before each run, and is not timed; `check` has what the first and the last
    run gave, and raises WrongError where that is not right. `made` is the file or layout that a run
    makes: its bytes are told, and it is removed in the end. `close` is called when no more runs
    come.
    """

    name: str
    run: Run
    check: Callable[[Any], object] = nothing
    before: Run = nothing
    close: Run = nothing
    made: Path | None = None
    note: str = ""
    ours: bool = False


@dataclass
class Result:
    """What came of a cell."""

    name: str
    ours: bool
    note: str
    seconds: list[float] = field(default_factory=list)
    bytes: int | None = None
    error: str = ""
    state: State = "ok"

    @property
    def median(self) -> float | None:
        """Of its seconds; None if it failed."""
        return statistics.median(self.seconds) if self.seconds and not self.error else None

    @property
    def spread(self) -> float | None:
        """Half of what lies between the fastest run and the slowest, as a share of the median."""
        median = self.median
        if not median:
            return None
        return (max(self.seconds) - min(self.seconds)) / 2 / median

    def to_json(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            "name": self.name,
            "ours": self.ours,
            "note": self.note,
            "median": self.median,
            "spread": self.spread,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "error": self.error or None,
            "state": self.state,
        }


Told = Callable[[str], object]


def measure(cells: Iterable[Cell], rounds: int, told: Told = nothing) -> list[Result]:
    """Run all cells once (which warms up caches and libraries, and is not counted), and then in
    turn, each round from another one on."""
    results: list[Result] = []
    started = time.monotonic()
    with ExitStack() as stack:
        alive: list[tuple[Cell, Result]] = []
        for cell in cells:
            told(f"{cell.name}, a first time")
            stack.callback(_end, cell)
            result = Result(cell.name, cell.ours, cell.note)
            results.append(result)
            with telling(result):
                cell.before()
                cell.check(cell.run())
                if cell.made is not None:
                    result.bytes = bytes_of(cell.made)
            if not result.error:
                alive.append((cell, result))
        for number in range(rounds):
            late = number + 1 >= _ENOUGH and time.monotonic() - started > _LONG
            last = late or number + 1 == rounds
            for at in range(len(alive)):
                cell, result = alive[(at + number) % len(alive)]
                if result.error:
                    continue
                told(f"{cell.name}, {number + 1} of {rounds}")
                with telling(result):
                    cell.before()
                    start = time.perf_counter()
                    value = cell.run()
                    seconds = time.perf_counter() - start
                    if last:
                        cell.check(value)
                    result.seconds.append(seconds)
            if last:
                break
    return results


def _end(cell: Cell) -> None:
    cell.close()
    if cell.made is not None:
        if cell.made.is_dir():
            shutil.rmtree(cell.made, ignore_errors=True)
        cell.made.unlink(missing_ok=True)


def bytes_of(path: Path) -> int:
    """Of a file, or of all files in a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.stat().st_size for one in files if one.is_file())


@contextmanager
def telling(result: Result) -> Iterator[None]:
    """What fails in the block is told in the result."""
    try:
        yield
    except Exception as error:
        result.error = words(error)
        kinds: dict[type, State] = {WrongError: "wrong", UnableError: "unable"}
        result.state = kinds.get(type(error), "failed")


def words(error: Exception) -> str:
    """What went wrong, as one line."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        return f"{name}: {error.strerror}" if isinstance(name, str) else error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, PeerError | WrongError | UnableError | StargzError | OSError) and text:
        return text
    if isinstance(error, MemoryError):
        return "out of memory"
    return text or type(error).__name__


def unable(name: str, why: str, *, ours: bool = False) -> Cell:
    """A cell that says why there is nothing in it."""

    def run() -> None:
        raise UnableError(why)

    return Cell(name, run, ours=ours)


def chunks(file: Any, size: int = 1 << 20) -> Iterator[bytes]:
    """All of a file, which is closed at the end."""
    with closing(file):
        while data := file.read(size):
            yield data
