"""Prioritized files need a scan before the pass: what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import stargz


@pytest.mark.parametrize("name", ["debian", "ansible"])
def test_prioritized(name: str, request: Any, tmp_path: Path, compare: Any) -> None:
    source: Path = request.getfixturevalue(name)
    out = tmp_path / "out"
    stargz.convert(source, out)
    with stargz.open(out) as layer:
        files = [entry.name for entry in layer.toc if entry.type == "reg" and entry.size > 1]
    # Spread over the whole layer, last ones first: nothing comes in the order it lies in.
    wanted = files[:: max(len(files) // 200, 1)][::-1]
    seconds = compare.medians(
        lambda: stargz.convert(source, out, prioritized=wanted),
        {"plain": lambda: stargz.convert(source, out)},
    )
    compare.figure(
        f"convert {name}, {len(wanted)} prioritized: times the plain conversion's seconds",
        seconds["ours"] / seconds["plain"],
        "<= 2",
    )
