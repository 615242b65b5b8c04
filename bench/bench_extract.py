"""Parallel extraction against `tar xzf`, both to memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

import stargz
from stargz.benchmark import trees
from stargz.benchmark.peers import tar_xzf


@pytest.mark.parametrize("name", ["debian", "ansible"])
def test_extract(name: str, request: Any, tmp_path: Path, compare: Any) -> None:
    source: Path = request.getfixturevalue(name)
    blob = tmp_path / "blob"
    stargz.convert(source, blob)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        target = Path(memory) / "out"

        def ours() -> None:
            with stargz.open(blob) as layer:
                layer.extractall(target)

        seconds = compare.medians(
            ours, {"tar xzf": lambda: tar_xzf(source, target)}, between=lambda: trees.empty(target)
        )
    compare.figure(
        f"extract {name}: times the speed of tar xzf",
        seconds["tar xzf"] / seconds["ours"],
        ">= 2.5",
    )
