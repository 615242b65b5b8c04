"""Opening a layer, up to the first look-up: against the reference, and a million entries."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import peers

PROBE = """
import json, resource, sys, time
import stargz
stargz.open(sys.argv[3]).close()  # codec libraries and modules
start = time.perf_counter()
with stargz.open(sys.argv[1]) as layer:
    assert sys.argv[2] in layer
    layer.entry(sys.argv[2])
    seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6]))
"""


def probe(blob: Path, name: str, small: Path) -> tuple[float, float]:
    """Seconds and peak MB of opening a blob in a process of its own."""
    command = [sys.executable, "-c", PROBE, blob, name, small]
    seconds, peak = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return seconds, peak


@pytest.mark.parametrize(("name", "file"), [("debian", "etc/passwd"), ("ansible", "")])
def test_open(name: str, file: str, request: Any, tmp_path: Path, compare: Any) -> None:
    blob = tmp_path / "blob"
    stargz.convert(request.getfixturevalue(name), blob)
    if not file:
        with stargz.open(blob) as layer:
            file = list(layer.names())[-1]
    theirs: list[float] = []

    def ours() -> None:
        with stargz.open(blob) as layer:
            layer.entry(file)

    def reference() -> None:
        theirs.extend(peers.reference("open", "-n", 5, blob, file)["seconds"])

    seconds = compare.medians(ours, {"reference": reference}, rounds=9)
    compare.figure(
        f"open {name}: times the reference's speed",
        statistics.median(theirs) / seconds["ours"],
        ">= 4" if name == "debian" else "",
    )
    compare.figure(f"open {name}: ms", seconds["ours"] * 1000)


def test_open_a_million(tmp_path: Path, compare: Any) -> None:
    blob, small = tmp_path / "blob", tmp_path / "small"
    for out, count in ((blob, 1_000_000), (small, 1)):
        make = [sys.executable, "-m", "bench.inputs", "empty", str(count)]
        with subprocess.Popen(make, stdout=subprocess.PIPE, cwd=peers.ROOT) as maker:
            stargz.convert(maker.stdout, out)
    runs: list[tuple[float, float]] = []
    compare.benchmark.pedantic(
        lambda: runs.append(probe(blob, "dir/empty-00999999", small)), rounds=5
    )
    theirs = peers.reference("open", "-n", 3, blob, "dir/empty-00999999")["seconds"]
    ours = statistics.median(seconds for seconds, _ in runs)
    compare.figure("open a million entries: seconds", ours, "<= 1.5")
    compare.figure("open a million entries: peak MB", max(peak for _, peak in runs), "<= 500")
    compare.figure(
        "open a million entries: times the reference's speed", statistics.median(theirs) / ours
    )
