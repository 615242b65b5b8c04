"""A registry of 200 images that share layers, converted into another one, and indexed."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import fleet
from bench.images import registries
from stargz.benchmark.measuring import clock

ROUNDS = 3


@pytest.fixture(scope="module")
def storage() -> Path:
    return fleet.build()


@contextmanager
def serve(storage: Path, folder: Path) -> Iterator[registries.Registry]:
    """A registry over the generated storage folder."""
    folder.mkdir()
    (folder / "storage").symlink_to(storage)
    with registries.registry(folder) as served:
        yield served


def processor_time(served: registries.Registry) -> float:
    """Seconds that a registry has used, user and system."""
    fields = Path(f"/proc/{served.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Linux counts a child's memory from its fork on: so a small process has to start it.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def bulk(src: str, dst: str, state: Path, *options: str) -> float:
    """Run it; MB of memory at its peak."""
    command = [sys.executable, "-m", "stargz", "image", "bulk", "-q", src, dst]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *command, "--state", state, *options],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout) * 1024 / 1e6


def engine(storage: Path, out: Path) -> None:
    """Every distinct layer by itself, one after the other, from file to file."""
    for layer in fleet.layers(storage):
        stargz.convert(layer, out)


@pytest.mark.parametrize("kind", ["registry to registry", "registry to layouts"])
def test_200_images(kind: str, storage: Path, tmp_path: Path, compare: Any, cores: int) -> None:
    """On one machine the registries have a share of the processors: what they alone would take is
    reported too."""
    peaks: list[float] = []
    registries_took: list[float] = []
    seconds: dict[str, list[float]] = {"engine": [], "first": [], "second": []}

    def run() -> None:
        folder = tmp_path / str(len(peaks))
        folder.mkdir()
        with (
            serve(storage, folder / "source") as source,
            registries.registry(folder / "made") as made,
        ):
            layouts = f"oci:{folder / 'layouts'}"
            dst = layouts if kind == "registry to layouts" else f"docker://{made.host}"
            arguments = (f"docker://{source.host}", dst, folder / "state")
            seconds["first"].append(clock(lambda: peaks.append(bulk(*arguments))))
            registries_took.append(processor_time(source) + processor_time(made))
            seconds["second"].append(clock(lambda: bulk(*arguments)))

    def before() -> None:
        seconds["engine"].append(clock(lambda: engine(storage, tmp_path / "out")))

    engine(storage, tmp_path / "out")  # the page cache
    compare.benchmark.pedantic(run, setup=before, rounds=ROUNDS)
    shutil.rmtree(tmp_path)
    bound, first, second = (statistics.median(times) for times in seconds.values())
    compare.benchmark.extra_info["seconds"] = seconds
    compare.figure(f"200 images, {kind}: seconds", first)
    compare.figure(
        f"200 images, {kind}: over its distinct layers' conversion alone", first / bound, "<= 1.25"
    )
    alone = bound + statistics.median(registries_took) / cores
    compare.figure(
        f"200 images, {kind}: over that and the registries' own processor time", first / alone
    )
    compare.figure(f"200 images, {kind}: second run over the first", second / first, "< 0.05")
    compare.figure(f"200 images, {kind}: peak MB", max(peaks), "<= 200")


@pytest.mark.parametrize("kind", ["version 1 in place", "version 2 into layouts"])
def test_indexes_of_200_images(kind: str, storage: Path, tmp_path: Path, compare: Any) -> None:
    """Beside what the same conversion takes, into a registry and into layouts."""
    seconds: dict[str, list[float]] = {"converted": [], "first": [], "second": []}
    peaks: list[float] = []
    in_place = kind == "version 1 in place"
    options = ["--index", "--min-layer-size", "0"]

    def folder(name: str) -> Path:
        made = tmp_path / f"{name}-{len(peaks)}"
        made.mkdir()
        return made

    def before() -> None:
        place = folder("converted")
        with serve(storage, place / "source") as source, registries.registry(place / "r") as made:
            dst = f"docker://{made.host}" if in_place else f"oci:{place / 'layouts'}"
            words = (f"docker://{source.host}", dst, place / "state")
            seconds["converted"].append(clock(lambda: bulk(*words)))
        shutil.rmtree(place)

    def run() -> None:
        place = folder("indexed")
        shutil.copytree(storage, place / "storage", copy_function=os.link)
        with serve(place / "storage", place / "source") as source:
            words: tuple[Any, ...] = (f"docker://{source.host}", f"oci:{place / 'layouts'}")
            if in_place:
                words = (f"docker://{source.host}", "--soci-version=1")  # for want of a DST
            words = (*words, place / "state", *options)
            seconds["first"].append(clock(lambda: peaks.append(bulk(*words))))
            seconds["second"].append(clock(lambda: bulk(*words)))
        shutil.rmtree(place)

    engine(storage, tmp_path / "out")  # the page cache
    compare.benchmark.pedantic(run, setup=before, rounds=ROUNDS)
    converted, first, second = (statistics.median(times) for times in seconds.values())
    compare.benchmark.extra_info["seconds"] = seconds
    compare.figure(f"indexes of 200 images, {kind}: seconds", first)
    compare.figure(
        f"indexes of 200 images, {kind}: over their conversion", first / converted, "<= 0.6"
    )
    compare.figure(f"indexes of 200 images, {kind}: second run", second / first, "< 0.05")
    compare.figure(f"indexes of 200 images, {kind}: peak MB", max(peaks), "<= 120")


def test_memory(storage: Path, tmp_path: Path, compare: Any) -> None:
    """Image 0 to 19 have layers of every base and runtime: what differs is how many there are."""
    peaks: dict[str, list[float]] = {"20": [], "200": []}

    def run() -> None:
        with serve(storage, tmp_path / "source") as source:
            for count, options in (
                ("20", ("--include", "*/app00?", "--include", "*/app01?")),
                ("200", ()),
            ):
                out = tmp_path / count
                peaks[count].append(
                    bulk(
                        f"docker://{source.host}",
                        f"oci:{out}",
                        tmp_path / f"state-{count}",
                        *options,
                    )
                )
                shutil.rmtree(out)

    compare.benchmark.pedantic(run, rounds=1)
    compare.figure(
        "200 images: peak memory over that of 20", peaks["200"][0] / peaks["20"][0], "<= 1.2"
    )
