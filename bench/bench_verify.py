"""Verification of a whole layer against the kernels it cannot do without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import kernels


@pytest.mark.parametrize("name", ["debian", "ansible"])
def test_verify(name: str, request: Any, tmp_path: Path, compare: Any, cores: int) -> None:
    source: Path = request.getfixturevalue(name)
    blob = tmp_path / "blob"
    stargz.convert(source, blob)
    bound = kernels.Kernels(source, blob, 1, cores)

    def ours() -> None:
        with stargz.open(blob) as layer:
            assert layer.verify().ok

    seconds = compare.medians(ours, {"kernels": bound}, rounds=7)
    best = bound.core_seconds(kernels.VERIFY) / cores
    target = ">= 0.80" if name == "debian" else ""
    compare.figure(f"verify {name}: kernels' bound over seconds", best / seconds["ours"], target)
