"""`--level reuse` against level 1 and the reference's package, on what several compressors made."""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import corpus, kernels, packers, peers, transcode_kernels
from bench.bench_memory import MB

CORPORA = ("debian", "site-packages", "ansible", "text")
each = pytest.mark.parametrize("name", CORPORA)
pytestmark = pytest.mark.timeout(3600)  # inputs may have to be made first
# What each corpus must reach: seconds over level 1's, size over the reference's level 9.
SECONDS = {"debian": "<= 0.88", "site-packages": "<= 0.88", "ansible": "<= 1.0"}
SIZES = {"debian": "<= 1.005", "ansible": "<= 1.04"}
HASHES = ("diff_id", "chunks", "files", "blob")


def convert(source: Path, out: Path, level: Any, **options: Any) -> Any:
    return stargz.convert(source, out, level=level, **options)


def counted(run: Callable[[], object], spent: list[float]) -> Callable[[], None]:
    """It, with its seconds of processor time appended: of all threads and processes."""

    def runs() -> None:
        begin = sum(os.times()[:4])
        run()
        spent.append(sum(os.times()[:4]) - begin)

    return runs


@each
def test_against_level_1(name: str, tmp_path: Path, compare: Any, cores: int) -> None:
    """In turn, with the kernels' own times; and verified."""
    source, out, made = corpus.build(name), tmp_path / "out", tmp_path / "made"
    size, one = convert(source, made, "reuse").size, convert(source, out, 1).size
    hashes = kernels.Kernels(source, made, 1, cores)
    recoding = transcode_kernels.Kernels(source, cores)
    plain: list[float] = []
    first: list[float] = []
    verified: list[float] = []
    seconds = compare.medians(
        counted(lambda: convert(source, out, "reuse"), plain),
        {
            "level 1": counted(lambda: convert(source, out, 1), first),
            "verified": counted(lambda: convert(source, out, "reuse", verify=True), verified),
            "hashes": hashes,
            "recoding": recoding,
        },
    )
    ratio, ours = seconds["ours"] / seconds["level 1"], seconds["ours"]
    busy = hashes.core_seconds(HASHES) + recoding.median("tokens") + recoding.median("reuse")
    tokens = recoding.median("tokens") / recoding.median("inflate")
    spent = statistics.median(plain)
    less, more = spent / statistics.median(first), statistics.median(verified) / spent
    label = f"convert {name} --level reuse"
    compare.figure(f"{label}: seconds over level 1's", ratio, SECONDS.get(name, ""))
    compare.figure(f"{label}: processor time over level 1's", less)
    compare.figure(f"{label}: seconds", ours)
    compare.figure(f"{label}: efficiency", busy / (cores * ours), ">= 0.85")
    compare.figure(f"{label}: tokens over ISA-L's inflate", tokens, "<= 1.1")
    compare.figure(f"{label}: size over level 1's", size / one)
    compare.figure(f"{label} --verify: seconds over those without", seconds["verified"] / ours)
    compare.figure(f"{label} --verify: processor time over that without", more)


def by_reference(name: str, out: Path) -> None:
    """At its default, which is its level 9."""
    peers.reference("build", corpus.build(name), out)


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reference made of each corpus, once."""
    return tmp_path_factory.mktemp("reference")


@each
def test_levels(name: str, tmp_path: Path, references: Path, compare: Any) -> None:
    """Seconds and sizes by level, against the reference."""
    source, out, ref = corpus.build(name), tmp_path / "out", references / name
    levels: tuple[Any, ...] = ("reuse", 1, 6, 9)
    sizes = {f"level {n}": convert(source, out, n).size for n in levels}
    runs = {f"level {n}": functools.partial(convert, source, out, n) for n in levels}
    runs["reference"] = lambda: by_reference(name, ref)
    spent: dict[str, list[float]] = {one: [] for one in runs}
    ours, *others = (counted(run, spent[one]) for one, run in runs.items())
    seconds = compare.medians(ours, dict(zip([*runs][1:], others, strict=True)), rounds=3)
    seconds["level reuse"] = seconds["ours"]
    sizes["reference"] = ref.stat().st_size
    compare.figure(
        f"convert {name} --level reuse: times the reference's speed",
        seconds["reference"] / seconds["ours"],
        ">= 22",
    )
    rows = [
        [one, f"{seconds[one]:.2f}", f"{statistics.median(took):.2f}", f"{sizes[one] / MB:.1f}"]
        for one, took in spent.items()
    ]
    title = f"{name}, from {source.stat().st_size / MB:.1f} MB by gzip -6"
    compare.table(title, ["", "seconds", "processor seconds", "MB"], rows)


@each
def test_inputs(name: str, tmp_path: Path, references: Path, compare: Any) -> None:
    """By what the input was made with: in turn with level 1, and the output against the input's own
    size and the reference's level 9 (which is the same for all)."""
    out, ref = tmp_path / "out", references / name
    if not ref.exists():
        by_reference(name, ref)
    best, rows = ref.stat().st_size, []
    for packer in packers.PACKERS:
        try:
            source = packers.packed(name, packer)
        except pytest.skip.Exception as skipped:
            rows.append([packer, str(skipped.msg), "", "", "", ""])
            continue
        taken: dict[Any, list[float]] = {"reuse": [], 1: []}
        sizes = {}
        for _ in range(5):
            for level, seconds in taken.items():
                result = convert(source, out, level)
                seconds.append(result.seconds)
                sizes[level] = result.size
        one, reuse = (statistics.median(taken[level]) for level in (1, "reuse"))
        own, size = source.stat().st_size, sizes["reuse"]
        megabytes = (f"{n / MB:.1f}" for n in (own, sizes[1], size))
        rows.append([packer, *megabytes, f"{one:.2f}", f"{reuse:.2f}"])
        label = f"convert {name} by {packer} --level reuse"
        target = "<= 1.02" if (name, packer) == ("debian", "Go") else SIZES.get(name, "")
        compare.figure(f"{label}: seconds over level 1's", reuse / one, SECONDS.get(name, ""))
        compare.figure(f"{label}: size over the reference's level 9", size / best, target)
        target = "<= 1.04" if name == "debian" else ""
        compare.figure(f"{label}: size over the input's", size / own, target)
    compare.benchmark.pedantic(lambda: None, rounds=1)
    columns = ["compressor", "input, MB", "level 1, MB", "reuse, MB", "level 1, s", "reuse, s"]
    compare.table(f"{name}, by what the input was made with", columns, rows)


# The kernel's own figure: what wait4 tells of a process begins with what its parent had.
PEAK = """
import re, sys
from stargz.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
sys.exit(code)
"""


def peak_of(*words: object) -> float:
    """MB that `stargz WORDS` takes at most."""
    command = [sys.executable, "-c", PEAK, *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=peers.ROOT)
    return int(done.stdout) * 1024 / MB


@each
def test_memory(name: str, tmp_path: Path, compare: Any) -> None:
    peaks = {}
    for level in ("1", "reuse"):
        words = ["convert", "-q", "--force", "--level", level, corpus.build(name), tmp_path / "out"]
        peaks[level] = statistics.median(peak_of(*words) for _ in range(3))
    compare.benchmark.pedantic(lambda: None, rounds=1)
    label = f"convert {name} --level reuse"
    compare.figure(f"{label}: MB of memory", peaks["reuse"])
    compare.figure(f"{label}: memory over level 1's", peaks["reuse"] / peaks["1"], "<= 1.1")
