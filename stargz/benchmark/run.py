"""All measurements on all inputs, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stargz.benchmark import images, layers, mounting, packing, peers, trees
from stargz.benchmark.inputs import Input
from stargz.benchmark.kinds import Measurement
from stargz.benchmark.machine import engines, machine
from stargz.benchmark.measuring import Result, Told, measure, nothing, telling
from stargz.errors import UsageError

MEASUREMENTS: tuple[Measurement, ...] = (
    *layers.MEASUREMENTS,
    *mounting.MEASUREMENTS,
    *packing.MEASUREMENTS,
    *images.MEASUREMENTS,
)

ROUNDS = 5
QUICK_ROUNDS = 3

# What every report says of its figures.
NOTES = (
    "Each cell is the median of several runs, made in turn with those of the others; the spread is "
    "half of what lies between the fastest and the slowest.",
    "One run of each goes before, is not counted, and its result is compared with what is in the "
    "input, as is that of the last: bytes, not only sizes.",
    "Everything is in the page cache: no disk is measured, and nothing waits for one. Mounts are "
    "made anew for each run: the kernel has nothing of them, of the files below them all.",
    "What is no process is a call in this one, libraries loaded.",
)


def chosen(only: Sequence[str]) -> list[Measurement]:
    """Those that are named: `mount` is all whose names begin with "mount-". All where none is."""
    names = [name for given in only for name in given.replace(",", " ").split()]
    found = [
        one
        for one in MEASUREMENTS
        if not only or any(one.name == name or one.name.startswith(f"{name}-") for name in names)
    ]
    for name in names:
        if not any(one.name == name or one.name.startswith(f"{name}-") for one in MEASUREMENTS):
            known = ", ".join(one.name for one in MEASUREMENTS)
            raise UsageError(f"--only {name}: measured are {known}; mount is all of mount-...")
    return found


def run(
    sources: Sequence[tuple[str, str]],
    folder: Path,
    measurements: Sequence[Measurement],
    *,
    quick: bool = False,
    rounds: int | None = None,
    image_options: dict[str, Any] | None = None,
    told: Told = nothing,
    finished: Told = nothing,
) -> dict[str, Any]:
    """Measure; `sources` are SRCs with what the report calls them, `folder` is an empty directory
    for all that is made. `told` gets a line before each run, `finished` one after all those of a
    measurement. What `--json` prints."""
    from stargz import __version__

    count = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    report: dict[str, Any] = {
        "stargz": __version__,
        "machine": machine(folder),
        "quick": quick,
        "rounds": count,
        "notes": list(NOTES),
        "peers": [{"name": peer.name, "version": peer.version} for peer in peers.found()],
        "missing": [{"name": peer.name, "get": peer.get} for peer in peers.missing()],
        "inputs": [],
    }
    for number, (source, name) in enumerate(sources):
        told(f"{name}: preparing")
        inside = folder / f"input-{number}"
        inside.mkdir()
        given = Input(source, inside, image_options, name)
        report["inputs"].append(
            {
                **given.to_json(),
                "measurements": list(_measured(given, measurements, quick, count, told, finished)),
            }
        )
        trees.remove(inside)
    report["libraries"] = engines()
    return report


def _measured(
    given: Input,
    measurements: Sequence[Measurement],
    quick: bool,
    rounds: int,
    told: Told,
    finished: Told,
) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(measurements, 1):
        began = time.monotonic()
        ours = Result("stargz", True, "")
        results = [ours]
        with telling(ours):  # what all its cells need, which cannot be made
            results = measure(
                one.cells(given, quick), rounds, partial(_tell, told, f"{given.source}: {one.name}")
            )
        yield {
            "name": one.name,
            "title": one.title,
            "meaning": one.meaning,
            "cells": [result.to_json() for result in results],
        }
        seconds = time.monotonic() - began
        finished(f"{given.source}: {one.name}: {seconds:.0f} s ({number} of {len(measurements)})")


def _tell(told: Told, where: str, text: str) -> None:
    told(f"{where}: {text}")


def cells(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All cells of a report."""
    for given in report["inputs"]:
        for one in given["measurements"]:
            yield from one["cells"]
