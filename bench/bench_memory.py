"""Peak memory of converting what does not fit: from a pipe, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import peers

MB = 1e6
ENTRIES = 1_000_000


def peak_of(kind: str, count: int, out: Path, *options: str) -> float:
    """MB of the process that converts `python -m bench.inputs KIND COUNT`."""
    make = [sys.executable, "-m", "bench.inputs", kind, str(count)]
    convert = [sys.executable, "-m", "stargz", "convert", "-q", "--force", *options, "-", str(out)]
    with subprocess.Popen(make, stdout=subprocess.PIPE, cwd=peers.ROOT) as maker:
        with subprocess.Popen(convert, stdin=maker.stdout) as converter:
            assert maker.stdout is not None
            maker.stdout.close()
            _, status, usage = os.wait4(converter.pid, 0)
            converter.returncode = os.waitstatus_to_exitcode(status)
        assert converter.returncode == 0
    return usage.ru_maxrss * 1024 / MB


@pytest.mark.parametrize(
    ("kind", "count", "entries", "options"),
    [
        ("empty", ENTRIES, ENTRIES, ()),
        ("empty", ENTRIES, ENTRIES, ("--format", "zstd:chunked")),
        ("single", 5 * 10**9, 1, ()),
        ("single", 5 * 10**9, 1, ("--prioritize", "large")),
    ],
    ids=[
        "a million empty files",
        "a million to zstd:chunked",
        "one file of 5 GB",
        "one prioritized file of 5 GB",
    ],
)
def test_peak(
    kind: str,
    count: int,
    entries: int,
    options: tuple[str, ...],
    tmp_path: Path,
    compare: Any,
    request: Any,
) -> None:
    peaks: list[float] = []
    compare.benchmark.pedantic(
        lambda: peaks.append(peak_of(kind, count, tmp_path / "out", *options)), rounds=1
    )
    label = request.node.callspec.id
    bound = 200 + 250 * entries / MB
    compare.figure(f"convert {label} from a pipe: peak MB", max(peaks), f"<= {bound:.0f}")
