"""Fixtures of all benchmarks: the inputs, alternated runs, and the figures for the report."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
# Commands run as they do where they are installed: from bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from bench import corpus
from stargz.benchmark.measuring import clock

Run = Callable[[], Any]


@pytest.fixture(scope="session")
def debian() -> Path:
    return corpus.build("debian")


@pytest.fixture(scope="session")
def ansible() -> Path:
    return corpus.build("ansible")


@pytest.fixture(scope="session")
def cores() -> int:
    return len(os.sched_getaffinity(0))


class Comparison:
    """Runs of ours and of peers in turn, and figures with their targets."""

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark

    def medians(
        self, ours: Run, peers: dict[str, Run], rounds: int = 5, between: Run = lambda: None
    ) -> dict[str, float]:
        """Median seconds of "ours" and of each peer, run in turn; `between` is not timed.

        Each round has an order of its own, the same ones each time: a run may find less memory or
        fewer caches behind one of the others.
        """
        runs = {"ours": ours, **peers}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        shuffled = random.Random(0)
        turns = iter([name for _ in range(rounds) for name in shuffled.sample([*runs], len(runs))])

        def others() -> None:
            """Those before the next turn of ours, or the last ones."""
            between()
            for name in itertools.takewhile("ours".__ne__, turns):
                seconds[name].append(clock(runs[name]))
                between()

        between()
        ours()  # warm up: page cache, codec libraries
        self.benchmark.pedantic(
            lambda: seconds["ours"].append(clock(ours)), setup=others, rounds=rounds
        )
        others()
        result = {name: statistics.median(values) for name, values in seconds.items()}
        self.benchmark.extra_info["seconds"] = result
        return result

    def figure(self, name: str, value: float, target: str = "") -> None:
        """One line of the report; target is like ">= 0.8", or empty when there is none."""
        figures = self.benchmark.extra_info.setdefault("figures", [])
        figures.append({"name": name, "value": value, "target": target})

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """A table of the report, of what is no single figure."""
        self.benchmark.extra_info["table"] = {"title": title, "columns": columns, "rows": rows}


@pytest.fixture
def compare(benchmark: Any) -> Comparison:
    return Comparison(benchmark)
