"""`--level reuse` against level 1 and the reference's package, on what several compressors made."""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import corpus, kernels, packers, peers, transcode_kernels
from bench.bench_memory import MB

CORPORA = ("debian", "site-packages", "ansible", "text")
each = pytest.mark.parametrize("name", CORPORA)
# What each corpus must reach: seconds over level 1's, size over the reference's level 9.
SECONDS = {"debian": "<= 0.88", "site-packages": "<= 0.88", "ansible": "<= 1.0"}
SIZES = {"debian": "<= 1.005", "ansible": "<= 1.04"}
HASHES = ("diff_id", "chunks", "files", "blob")


def convert(source: Path, out: Path, level: Any, **options: Any) -> Any:
    return stargz.convert(source, out, level=level, **options)


def processor_seconds(run: Callable[[], object]) -> float:
    """Of all threads."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


@each
def test_against_level_1(name: str, tmp_path: Path, compare: Any, cores: int) -> None:
    """In turn, with the kernels' own times; and verified."""
    source, out, made = corpus.build(name), tmp_path / "out", tmp_path / "made"
    size, one = convert(source, made, "reuse").size, convert(source, out, 1).size
    hashes = kernels.Kernels(source, made, 1, cores)
    recoding = transcode_kernels.Kernels(source, cores)
    spent: dict[bool, list[float]] = {False: [], True: []}

    def reuse(verify: bool) -> None:
        seconds = processor_seconds(lambda: convert(source, out, "reuse", verify=verify))
        spent[verify].append(seconds)

    seconds = compare.medians(
        lambda: reuse(False),
        {
            "level 1": lambda: convert(source, out, 1),
            "verified": lambda: reuse(True),
            "hashes": hashes,
            "recoding": recoding,
        },
    )
    ratio, ours = seconds["ours"] / seconds["level 1"], seconds["ours"]
    busy = hashes.core_seconds(HASHES) + recoding.median("tokens") + recoding.median("reuse")
    tokens = recoding.median("tokens") / recoding.median("inflate")
    verified = statistics.median(spent[True]) / statistics.median(spent[False])
    label = f"convert {name} --level reuse"
    compare.figure(f"{label}: seconds over level 1's", ratio, SECONDS.get(name, ""))
    compare.figure(f"{label}: seconds", ours)
    compare.figure(f"{label}: efficiency", busy / (cores * ours), ">= 0.85")
    compare.figure(f"{label}: tokens over ISA-L's inflate", tokens, "<= 1.1")
    compare.figure(f"{label}: size over level 1's", size / one)
    compare.figure(f"{label} --verify: seconds over those without", seconds["verified"] / ours)
    compare.figure(f"{label} --verify: processor time over that without", verified)


@functools.cache
def reference_size(name: str, folder: Path) -> int:
    out = folder / f"{name}-reference"
    peers.reference("build", "-level", 9, corpus.build(name), out)
    size = out.stat().st_size
    out.unlink()
    return size


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@each
def test_levels(name: str, tmp_path: Path, shared: Path, compare: Any) -> None:
    """Seconds and sizes by level, against the reference, whose default is its level 9."""
    source, out, ref = corpus.build(name), tmp_path / "out", tmp_path / "ref"
    levels = (1, 6, 9)
    sizes = {level: convert(source, out, level).size for level in (*levels, "reuse")}
    seconds = compare.medians(
        lambda: convert(source, out, "reuse"),
        {
            **{str(n): functools.partial(convert, source, out, n) for n in levels},
            "reference": lambda: peers.reference("build", source, ref),
        },
        rounds=3,
    )
    best = reference_size(name, shared)
    compare.figure(
        f"convert {name} --level reuse: times the reference's speed",
        seconds["reference"] / seconds["ours"],
        ">= 22",
    )
    made = [(f"`--level {n}`", seconds[str(n)], sizes[n]) for n in levels]
    made.insert(0, ("`--level reuse`", seconds["ours"], sizes["reuse"]))
    made.append(("reference", seconds["reference"], best))
    rows = [[label, f"{took:.2f}", f"{size / MB:.1f}"] for label, took, size in made]
    title = f"{name}, from {source.stat().st_size / MB:.1f} MB by gzip -6"
    compare.table(title, ["level", "seconds", "MB"], rows)


@each
def test_inputs(name: str, tmp_path: Path, shared: Path, compare: Any) -> None:
    """By what the input was made with: in turn with level 1, and the output against the input's own
    size and the reference's level 9 (which is the same for all)."""
    out, best = tmp_path / "out", reference_size(name, shared)
    rows = []
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


def peak_of(*command: object) -> float:
    """MB of a process, at most."""
    with subprocess.Popen(list(map(str, command))) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024 / MB


@each
def test_memory(name: str, tmp_path: Path, compare: Any) -> None:
    peaks = {}
    for level in ("1", "reuse"):
        command = ["convert", "-q", "--force", "--level", level, corpus.build(name)]
        made = [peak_of(sys.executable, "-m", "stargz", *command, tmp_path / "out") for _ in "abc"]
        peaks[level] = statistics.median(made)
    compare.benchmark.pedantic(lambda: None, rounds=1)
    label = f"convert {name} --level reuse"
    compare.figure(f"{label}: MB of memory", peaks["reuse"])
    compare.figure(f"{label}: memory over level 1's", peaks["reuse"] / peaks["1"], "<= 1.1")
