"""Parallel extraction against `tar xzf`, both to memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import peers


@pytest.mark.parametrize("name", ["debian", "ansible"])
def test_extract(name: str, request: Any, tmp_path: Path, compare: Any) -> None:
    source: Path = request.getfixturevalue(name)
    blob = tmp_path / "blob"
    stargz.convert(source, blob)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        target = Path(memory) / "out"

        def clean() -> None:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()

        def ours() -> None:
            with stargz.open(blob) as layer:
                layer.extractall(target)

        seconds = compare.medians(
            ours, {"tar xzf": lambda: peers.tar_xzf(source, target)}, between=clean
        )
    compare.figure(
        f"extract {name}: times the speed of tar xzf",
        seconds["tar xzf"] / seconds["ours"],
        ">= 2.5",
    )
