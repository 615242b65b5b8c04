"""What a command costs before it does anything, against an empty Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import stargz
from stargz.benchmark.peers import python_pass


def command(*args: object) -> None:
    """The installed script where there is one."""
    script = Path(sys.executable).with_name("stargz")
    start = [script] if script.exists() else [sys.executable, "-m", "stargz"]
    subprocess.run([*start, *map(str, args)], check=True, stdout=subprocess.DEVNULL)


def test_help(compare: Any) -> None:
    seconds = compare.medians(lambda: command("--help"), {"python": python_pass}, rounds=21)
    compare.figure(
        "stargz --help: seconds over python -c pass", seconds["ours"] - seconds["python"], "<= 0.06"
    )


def test_cat(debian: Path, tmp_path: Path, compare: Any) -> None:
    blob = tmp_path / "blob"
    stargz.convert(debian, blob)
    seconds = compare.medians(
        lambda: command("cat", blob, "etc/passwd"), {"python": python_pass}, rounds=21
    )
    compare.figure(
        "stargz cat of a small file: seconds over python -c pass",
        seconds["ours"] - seconds["python"],
        "<= 0.2",
    )
