"""How time and memory grow: with entries, with bytes, and with threads.

Time is that of processors, of a whole process (which other processes on the machine disturb the
least), and memory its peak. Each series is fitted (`growth.py`), which says where it bends.
STARGZ_BENCH_MOST bounds the bytes of the largest tar (default 10 GB).
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import growth, peers
from bench.bench_memory import MB

pytestmark = pytest.mark.timeout(7200)

ENTRIES = (1_000, 10_000, 100_000, 1_000_000)
MOST = int(os.environ.get("STARGZ_BENCH_MOST", 10**10))
BYTES = tuple(size for size in (10**8, 10**9, 10**10, 3 * 10**10, 10**11) if size <= MOST)
Cost = tuple[float, float]


def cost(*words: object, kind: str = "", count: int = 0, packed: bool = False) -> Cost:
    """Processor seconds and peak MB of `stargz WORDS`; its standard input is a tar of inputs.py,
    `packed` by igzip."""
    command = [sys.executable, "-m", "stargz", *map(str, words)]
    if not kind:
        return _wait(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    make = [sys.executable, "-m", "bench.inputs", kind, str(count)]
    with subprocess.Popen(make, stdout=subprocess.PIPE, cwd=peers.ROOT) as maker:
        pipe = maker.stdout
        assert pipe is not None
        if not packed:
            process = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL)
            pipe.close()
            return _wait(process)
        pack = ["igzip", "-1", "-c"]
        with subprocess.Popen(pack, stdin=pipe, stdout=subprocess.PIPE) as packer:
            pipe.close()
            assert packer.stdout is not None
            process = subprocess.Popen(command, stdin=packer.stdout, stdout=subprocess.DEVNULL)
            packer.stdout.close()
            return _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> Cost:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MB


def series(
    compare: Any,
    title: str,
    xs: tuple[int, ...],
    run: Callable[[int], Cost],
    per: str,
    limits: Cost,
) -> None:
    """Measure at all of `xs`: a table, and the growth of both as figures. `limits` are the
    exponents that are good enough."""
    costs: list[Cost] = []
    compare.benchmark.pedantic(lambda: costs.extend(run(x) for x in xs), rounds=1)
    rows = [[f"{x:,}", f"{c:.2f}", f"{m:.0f}"] for x, (c, m) in zip(xs, costs, strict=True)]
    for at, (what, unit, scale) in enumerate((("time", "ns", 1e9), ("memory", "bytes", MB))):
        found = growth.fit(xs, [one[at] for one in costs])
        bends = ", ".join(f"{x:,}" for x in found.bends) or "nowhere"
        compare.figure(f"{title}: {what}, {unit} for each {per}", found.each * scale)
        if not math.isnan(found.exponent):
            compare.figure(
                f"{title}: {what} grows by a power of", found.exponent, f"<= {limits[at]}"
            )
        rows.append([f"{what}: fixed", f"{found.fixed:.3g} {'s' if at == 0 else 'MB'}", ""])
        rows.append([f"{what}: bends at", bends, ""])
    compare.table(title, [per, "processor s", "peak MB"], rows)


@pytest.mark.parametrize("command", ["convert", "index", "open"])
def test_entries(command: str, tmp_path: Path, compare: Any) -> None:
    def run(count: int) -> Cost:
        out = tmp_path / "out"
        if command == "index":
            words = ("index", "-q", "--force", "-", "-o", out)
            return cost(*words, kind="empty", count=count, packed=True)
        converted = cost("convert", "-q", "--force", "-", out, kind="empty", count=count)
        if command == "convert":
            return converted
        return cost("ls", "-d", out, f"dir/empty-{count - 1:08}")

    series(compare, f"{command}, by entries", ENTRIES, run, "entry", (1.1, 1.1))


@pytest.mark.parametrize("command", ["convert", "index"])
def test_bytes(command: str, tmp_path: Path, compare: Any) -> None:
    def run(size: int) -> Cost:
        out = tmp_path / "out"
        if command == "index":
            words = ("index", "-q", "--force", "-", "-o", out)
            return cost(*words, kind="single", count=size, packed=True)
        return cost("convert", "-q", "--force", "-", out, kind="single", count=size)

    series(compare, f"{command}, by bytes of one file", BYTES, run, "byte", (1.1, 0.2))


def test_threads(debian: Path, tmp_path: Path, compare: Any, cores: int) -> None:
    """Each number on as many processors: what the serial part leaves of them."""
    before = os.sched_getaffinity(0)
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n <= cores]

    def on(count: int) -> Callable[[], None]:
        def run() -> None:
            os.sched_setaffinity(0, sorted(before)[:count])
            try:
                stargz.convert(debian, tmp_path / "out", threads=count)
            finally:
                os.sched_setaffinity(0, before)

        return run

    seconds = compare.medians(on(1), {str(n): on(n) for n in counts[1:]})
    for count in counts[1:]:
        compare.figure(
            f"convert debian on {count} processors: times the speed of one",
            seconds["ours"] / seconds[str(count)],
        )
