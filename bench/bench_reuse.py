"""`--level reuse` against level 1 and the reference's package, on what several compressors made."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import corpus, kernels, peers, transcode_kernels
from bench.bench_memory import MB

CORPORA = ("debian", "site-packages", "ansible", "text")
each = pytest.mark.parametrize("name", CORPORA)
# What each corpus must reach: seconds over level 1's, size over the reference's level 9.
SECONDS = {"debian": "<= 0.88", "site-packages": "<= 0.88", "ansible": "<= 1.0"}
SIZES = {"debian": "<= 1.005", "ansible": "<= 1.04"}

GO = """package main
import ("compress/gzip"; "io"; "os")
func main() {
	w := gzip.NewWriter(os.Stdout)
	if _, err := io.Copy(w, os.Stdin); err != nil { panic(err) }
	if err := w.Close(); err != nil { panic(err) }
}
"""


@functools.cache
def go_gzip() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="stargz-go-gzip-"))
    (folder / "main.go").write_text(GO)
    command = ["go", "build", "-o", folder / "go-gzip", folder / "main.go"]
    subprocess.run(command, check=True)
    return folder / "go-gzip"


# Whose output the input is. (zopfli takes an hour: libdeflate's 12 is as close to the best.)
PACKERS: dict[str, Callable[[], list[object]]] = {
    "gzip -6": lambda: ["gzip", "-6", "-n", "-c"],
    "gzip -9": lambda: ["gzip", "-9", "-n", "-c"],
    "pigz": lambda: ["pigz", "-n", "-c"],
    "Go": lambda: [go_gzip()],
    "libdeflate 12": lambda: ["libdeflate-gzip", "-12", "-n", "-c"],
}


def source_of(name: str) -> Path:
    return corpus.build(name)


def packed_by(packer: str, name: str, folder: Path) -> Path:
    tar, packed = source_of(name).with_suffix(""), folder / "in.tar.gz"
    try:
        command = PACKERS[packer]()
        with tar.open("rb") as read, packed.open("wb") as out:
            subprocess.run(list(map(str, command)), check=True, stdin=read, stdout=out)
    except FileNotFoundError as error:
        pytest.skip(f"{error.filename} is not installed")
    return packed


def convert(source: Path, out: Path, level: Any) -> Any:
    return stargz.convert(source, out, level=level)


@each
def test_against_level_1(name: str, tmp_path: Path, compare: Any, cores: int) -> None:
    """In turn, with the kernels' own times; and verified."""
    source, out = source_of(name), tmp_path / "out"
    made = convert(source, out, "reuse")
    one = convert(source, tmp_path / "one", 1)
    bound = kernels.Kernels(source, tmp_path / "one", 1, cores)
    alone: list[dict[str, Any]] = []
    seconds = compare.medians(
        lambda: convert(source, out, "reuse"),
        {
            "level 1": lambda: convert(source, tmp_path / "one", 1),
            "verified": lambda: stargz.convert(source, out, level="reuse", verify=True),
            "kernels": bound,
            "recoding": lambda: alone.extend(transcode_kernels.run(source)),
        },
        rounds=7,
    )
    hashes = ("diff_id", "chunks", "files", "blob")
    busy = bound.core_seconds(hashes) + sum(
        sorted(run)[len(run) // 2]
        for run in ([a["tokens"] for a in alone], [a["reuse"][0] for a in alone])
    )
    tokens = sorted(a["tokens"] / a["inflate"] for a in alone)[len(alone) // 2]
    label = f"convert {name} --level reuse"
    compare.figure(
        f"{label}: seconds over level 1's",
        seconds["ours"] / seconds["level 1"],
        SECONDS.get(name, ""),
    )
    compare.figure(f"{label}: seconds", seconds["ours"])
    compare.figure(
        f"{label}: seconds with --verify, over those without", seconds["verified"] / seconds["ours"]
    )
    compare.figure(f"{label}: efficiency", busy / (cores * seconds["ours"]), ">= 0.85")
    compare.figure(f"{label}: tokens over ISA-L's inflate", tokens, "<= 1.1")
    compare.figure(f"{label}: size over level 1's", made.size / one.size)


@each
def test_against_reference(name: str, tmp_path: Path, compare: Any) -> None:
    source, out, ref = source_of(name), tmp_path / "out", tmp_path / "ref"
    seconds = compare.medians(
        lambda: convert(source, out, "reuse"),
        {"reference": lambda: peers.reference("build", source, ref)},
        rounds=3,
    )
    compare.figure(
        f"convert {name} --level reuse: times the reference's speed",
        seconds["reference"] / seconds["ours"],
        ">= 22",
    )


@each
def test_sizes(name: str, tmp_path: Path, compare: Any) -> None:
    """By what the input was made with: the output against the input's own size, and against the
    reference's level 9 (which is the same for all)."""
    ref, out = tmp_path / "ref", tmp_path / "out"
    peers.reference("build", "-level", 9, source_of(name), ref)
    best, rows = ref.stat().st_size, []
    compare.benchmark.pedantic(lambda: convert(source_of(name), out, "reuse"), rounds=1)
    for packer in PACKERS:
        try:
            source = packed_by(packer, name, tmp_path)
        except pytest.skip.Exception as skipped:
            rows.append([packer, str(skipped.msg), "", "", ""])
            continue
        size, one = convert(source, out, "reuse").size, convert(source, out, 1).size
        rows.append([packer, *(f"{n / MB:.1f}" for n in (source.stat().st_size, one, size, best))])
        label = f"convert {name} by {packer} --level reuse"
        target = "<= 1.02" if (name, packer) == ("debian", "Go") else SIZES.get(name, "")
        compare.figure(f"{label}: size over the reference's level 9", size / best, target)
        compare.figure(
            f"{label}: size over the input's", size / source.stat().st_size,
            "<= 1.04" if name == "debian" else "",
        )  # fmt: skip
    columns = ["compressor", "input, MB", "level 1", "reuse", "reference's level 9"]
    compare.table(f"{name}, by what the input was made with", columns, rows)


def peak_of(*command: object) -> float:
    """MB of a process, at most."""
    with subprocess.Popen(list(map(str, command))) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024 / MB


def test_memory(debian: Path, tmp_path: Path, compare: Any) -> None:
    peaks = {}
    for level in ("1", "reuse"):
        command = ["convert", "-q", "--force", "--level", level, debian, tmp_path / "out"]
        peaks[level] = peak_of(sys.executable, "-m", "stargz", *command)
    compare.benchmark.pedantic(lambda: None, rounds=1)
    compare.figure("convert debian --level reuse: MB", peaks["reuse"])
    compare.figure("convert debian --level reuse: memory over level 1's",
                   peaks["reuse"] / peaks["1"], "<= 1.1")  # fmt: skip
