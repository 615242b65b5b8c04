"""What is measured: its name, what it means, and the ways to do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stargz.benchmark.inputs import Input
from stargz.benchmark.measuring import Cell


@dataclass(frozen=True)
class Measurement:
    """`cells` gives the ways to do it, of which those of other programs that are not here are left
    out. `name` is what --only takes."""

    name: str
    title: str
    meaning: str
    cells: Callable[[Input, bool], Iterator[Cell]]
