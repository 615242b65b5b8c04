"""Conversion against the reference package, gzip, and the engine's own kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import kernels, peers
from stargz.benchmark.peers import compress


@pytest.mark.parametrize("level", [1, 6])
@pytest.mark.parametrize("name", ["debian", "ansible"])
def test_efficiency(
    name: str, level: int, request: Any, tmp_path: Path, compare: Any, cores: int
) -> None:
    source: Path = request.getfixturevalue(name)
    out = tmp_path / "out"
    stargz.convert(source, out, level=level)
    bound = kernels.Kernels(source, out, level, cores)
    seconds = compare.medians(
        lambda: stargz.convert(source, out, level=level), {"kernels": bound}, rounds=7
    )
    busy = bound.core_seconds(kernels.CONVERT)
    target = ">= 0.80" if (name, level) == ("debian", 1) else ""
    compare.figure(
        f"convert {name} level {level}: efficiency", busy / (cores * seconds["ours"]), target
    )
    compare.figure(f"convert {name} level {level}: seconds", seconds["ours"])


@pytest.mark.parametrize("name", ["debian", "ansible"])
def test_against_reference(name: str, request: Any, tmp_path: Path, compare: Any) -> None:
    source: Path = request.getfixturevalue(name)
    ours, dense, ref = tmp_path / "ours", tmp_path / "dense", tmp_path / "ref"
    # Many small files are converted for storage with members that they share.
    minimum = 0 if name == "debian" else 1 << 20
    seconds = compare.medians(
        lambda: stargz.convert(source, ours),
        {
            "level 6": lambda: stargz.convert(source, dense, level=6, min_chunk_size=minimum),
            "reference": lambda: peers.reference("build", source, ref),
            "reference level 1": lambda: peers.reference("build", "-level", 1, source, ref),
            "gzip -6": lambda: compress("gzip -6", source.with_suffix(""), tmp_path / "gz"),
            "igzip": lambda: compress("igzip -1", source.with_suffix(""), tmp_path / "gz"),
        },
        rounds=3,
    )
    peers.reference("build", source, ref)
    size = {path.name: path.stat().st_size for path in (ours, dense, ref, source)}
    compare.benchmark.extra_info["sizes"] = size
    label = f"convert {name}"
    compare.figure(
        f"{label} level 1: times the reference's speed",
        seconds["reference"] / seconds["ours"],
        ">= 20",
    )
    compare.figure(f"{label} level 1: times gzip -6's speed", seconds["gzip -6"] / seconds["ours"])
    compare.figure(f"{label} level 1: times igzip's speed", seconds["igzip"] / seconds["ours"])
    if name == "debian":
        compare.figure(
            f"{label} level 1: size over the reference's", size["ours"] / size["ref"], "<= 1.07"
        )
        compare.figure(
            f"{label} level 6: size over the reference's", size["dense"] / size["ref"], "< 1"
        )
        compare.figure(
            f"{label} level 6: times the reference's speed",
            seconds["reference"] / seconds["level 6"],
            ">= 6",
        )
    else:
        compare.figure(
            f"{label} level 6, minimum chunk 1 MiB: size over the tar.gz's",
            size["dense"] / size[source.name],
            "<= 1.06",
        )
