"""zstd:chunked in both dialects, and external TOCs, against what writes them elsewhere: the Go
packages of containers/storage and of stargz-snapshotter, and the engine's own kernels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import bench_memory, kernels, peers
from bench.bench_memory import MB
from stargz.benchmark import children
from stargz.benchmark.mounts import Ours, find, read_all

LEVEL = 3
CHUNKED, STARGZ = "zstd:chunked", "zstd:chunked-stargz"
both_dialects = pytest.mark.parametrize("form", [CHUNKED, STARGZ])

PEERS = {CHUNKED: "c", STARGZ: "s"}
KERNELS = {CHUNKED: kernels.CHUNKED, STARGZ: kernels.CONVERT}


# --- writing ---------------------------------------------------------------------------------


@both_dialects
@pytest.mark.parametrize("packed", ["tar", "tar.gz"])
def test_efficiency(
    packed: str, form: str, debian: Path, tmp_path: Path, compare: Any, cores: int
) -> None:
    source = debian if packed == "tar.gz" else debian.with_suffix("")
    out = tmp_path / "out"
    stargz.convert(source, out, format=form, level=LEVEL)
    bound = kernels.Kernels(source, out, LEVEL, cores)
    seconds = compare.medians(
        lambda: stargz.convert(source, out, format=form, level=LEVEL), {"kernels": bound}
    )
    busy = bound.core_seconds(KERNELS[form])
    label = f"convert debian.{packed} to {form} level {LEVEL}"
    compare.figure(f"{label}: efficiency", busy / (cores * seconds["ours"]), ">= 0.80")
    compare.figure(f"{label}: seconds", seconds["ours"])
    if (packed, form) == ("tar", CHUNKED):
        rolled = bound.speed("roll")
        compare.figure("rolling sum of every byte: GB/s, one core", rolled / 1e9)
        compare.figure(
            "rolling sum of every byte: over memcpy's speed", rolled / bound.speed("copy")
        )
        compare.figure("CRC-64: GB/s, one core", bound.speed("crc64") / 1e9)


@pytest.mark.parametrize(("form", "times"), [(CHUNKED, 3.0), (STARGZ, 2.2)])
def test_against_packages(
    form: str, times: float, debian: Path, tmp_path: Path, compare: Any
) -> None:
    """As in bench_convert.py the package's program is a process, and ours is not; as one it is
    stated too."""
    source, out, theirs = debian.with_suffix(""), tmp_path / "ours", tmp_path / "theirs"
    go = [peers.chunked_program(), "write", PEERS[form], "-level", LEVEL, source, theirs]
    options = ["-q", "--force", "--format", form, "--level", LEVEL]
    command = [sys.executable, "-m", "stargz", "convert", *options, source, tmp_path / "command"]
    seconds = compare.medians(
        lambda: stargz.convert(source, out, format=form, level=LEVEL),
        {"package": lambda: children.run(*go), "command": lambda: children.run(*command)},
    )
    label = f"convert debian.tar to {form} level {LEVEL}"
    size = out.stat().st_size
    compare.figure(f"{label}: MB", size / MB)
    compare.figure(f"{label}: times the package's speed", seconds["package"] / seconds["ours"],
                   f">= {times}")  # fmt: skip
    compare.figure(
        f"{label}: times the package's speed, as a command",
        seconds["package"] / seconds["command"],
    )
    compare.figure(f"{label}: size over the package's", size / theirs.stat().st_size, "<= 1.03")


def test_external_toc(debian: Path, tmp_path: Path, compare: Any) -> None:
    source, out, theirs = debian.with_suffix(""), tmp_path / "ours", tmp_path / "theirs"
    go = [peers.chunked_program(), "write", "external", source, theirs]

    def ours(level: int) -> None:
        stargz.convert(source, out, format="external-toc", level=level, toc_out=tmp_path / "toc")

    seconds = compare.medians(
        lambda: ours(1),
        {"level 6": lambda: ours(6), "package": lambda: children.run(*go)},
        rounds=3,
    )
    label = "convert debian.tar to external-toc"
    compare.figure(
        f"{label} level 1: times the package's speed", seconds["package"] / seconds["ours"]
    )
    compare.figure(
        f"{label} level 6: times the package's speed", seconds["package"] / seconds["level 6"]
    )
    compare.figure(
        f"{label} level 6: size over the package's", out.stat().st_size / theirs.stat().st_size
    )


def test_levels(debian: Path, tmp_path: Path, compare: Any) -> None:
    """What each level takes and gives."""
    source, out = debian.with_suffix(""), tmp_path / "out"
    levels = (1, 2, 3, 4, 5, 6, 9, 12)
    size = {}

    def convert(level: int) -> None:
        size[level] = stargz.convert(source, out, format=CHUNKED, level=level).size

    others = {str(level): (lambda level=level: convert(level)) for level in levels}
    seconds = compare.medians(lambda: convert(LEVEL), others, rounds=3)
    rows = [[str(n), f"{seconds[str(n)]:.2f}", f"{size[n] / MB:.1f}"] for n in levels]
    compare.table(f"debian.tar to {CHUNKED}, by level", ["level", "s", "MB"], rows)


# --- memory ----------------------------------------------------------------------------------


@both_dialects
@pytest.mark.parametrize(
    ("kind", "count", "bound"),
    [("single", 30 * 10**9, 250), ("empty", bench_memory.ENTRIES, 400)],
    ids=["30 GB", "a million empty files"],
)
def test_memory(
    kind: str, count: int, bound: int, form: str, tmp_path: Path, compare: Any, request: Any
) -> None:
    peaks: list[float] = []
    compare.benchmark.pedantic(
        lambda: peaks.append(bench_memory.peak_of(kind, count, tmp_path / "out", "--format", form)),
        rounds=1,
    )
    label = request.node.callspec.id.replace(f"-{form}", "").replace(f"{form}-", "")
    compare.figure(f"convert {label} to {form} from a pipe: peak MB", max(peaks), f"<= {bound}")


# --- mounted ---------------------------------------------------------------------------------


@both_dialects
@pytest.mark.parametrize(
    ("use", "what"), [(find, "find"), (read_all, "tar of everything")], ids=["find", "tar"]
)
def test_mounted(
    use: Any, what: str, form: str, debian: Path, tmp_path: Path, compare: Any
) -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("/dev/fuse is missing")
    source = debian.with_suffix("")
    layers = {name: tmp_path / f"{number}.layer" for number, name in enumerate((form, "estargz"))}
    for name, path in layers.items():
        stargz.convert(source, path, format=name)
    with (
        Ours(layers[form], tmp_path / "chunked") as chunked,
        Ours(layers["estargz"], tmp_path / "estargz") as estargz,
    ):

        def again() -> None:
            for one in (chunked, estargz):
                one.unmount()
                one.mount()

        seconds = compare.medians(
            lambda: use(chunked.directory),
            {"estargz": lambda: use(estargz.directory)},
            rounds=9,
            between=again,
        )
    compare.figure(
        f"mount debian as {form}: {what}, first time, over eStargz",
        seconds["ours"] / seconds["estargz"],
        "<= 1.0",
    )
