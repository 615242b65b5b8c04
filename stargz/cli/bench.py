"""Measure stargz and what else does the same, on your own input and on this machine.

SRC is a tar, tar.gz or tar.zst, a directory, or an image (of which the largest layer is measured,
and the conversion of all of it). Without SRC it is what 'stargz demo' makes: this machine's own
Python. Other programs are found on the PATH, packages in this Python's environment; those that are
missing are named with how to get them, and what fails is told in its place, in its own words.

Everything is made below TMPDIR, or in memory where that has room, and removed. It takes a quarter
of an hour for a layer of 200 MB; --quick does less. docs/benchmark.md says what is measured, and
how."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stargz.cli import _options
from stargz.cli._creds import add_creds
from stargz.cli._errors import FAILED, OK, UNVERIFIED, say
from stargz.cli._output import log, print_json

EXAMPLE = """\
stargz bench --quick
stargz bench layer.tar.gz --only convert,extract
stargz bench docker://registry.example/app:1.0 --report bench.html"""

# Bytes of Python's files in the tar that is measured without SRC.
_QUICK_CAP = 16 << 20

# What is made of an input takes up to so many times its tar.
_TIMES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz bench`."""
    parser.add_argument(
        "src", nargs="*", metavar="SRC", help="a tar, tar.gz, directory or image to measure with"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="measure only this: convert, index, open, file, files, verify, extract, mount (or one "
        "of mount-find, -stat, -sequential, -random, -small, -all), pack, delta, apply, image; "
        "several with commas, or repeatable",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer levels, runs and reads, and without SRC less input",
    )
    parser.add_argument(
        "--rounds",
        type=_rounds,
        metavar="N",
        help="runs of each that are counted (default: 5; with --quick 3)",
    )
    parser.add_argument(
        "--threads",
        type=_options.count,
        metavar="N",
        help="run everything, also the other programs, on N of the processors (default: on all)",
    )
    parser.add_argument(
        "--report", metavar="FILE", help="write the report as a page (HTML), which needs no other"
    )
    _options.add_output_options(parser)
    group = parser.add_argument_group("images")
    _options.add_platform(group)
    _options.add_registry_options(group)
    add_creds(group, {"--creds": "SRC"})


def _rounds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:4]) <= 100 or len(text) > 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Measure all, then print."""
    from stargz.benchmark import trees
    from stargz.benchmark.inputs import check, size_of
    from stargz.benchmark.report import lines
    from stargz.benchmark.run import cells, chosen
    from stargz.benchmark.run import run as measure
    from stargz.cli._layers import registry_options
    from stargz.durable import check_place

    measurements = chosen(args.only)
    sources = [(check(src), src) for src in args.src]
    if args.report:
        check_place(args.report, "--report")
    room = max((size_of(src) for src, _ in sources), default=0) * _TIMES
    with (
        trees.scratch(max(room, trees.ROOM)) as folder,
        _telling(args) as (told, finished),
        _processors(args.threads),
    ):
        report = measure(
            sources or [_demo(folder, args.quick, told)],
            folder,
            measurements,
            quick=args.quick,
            rounds=args.rounds,
            image_options=registry_options(args),
            told=told,
            finished=finished,
        )
    if args.report:
        _write(args.report, report)
    if args.json:
        print_json(report)
    elif not args.quiet:
        from stargz.cli._output import shown

        for line in lines(report):
            print(shown(line))
        if args.report:
            print(f"\nreport: {args.report}")
    states = {cell["state"] for cell in cells(report) if cell["ours"]}
    for cell in cells(report):
        if cell["ours"] and cell["state"] in ("failed", "wrong"):
            say(f"{cell['name']}: {cell['error']}")
            break
    return UNVERIFIED if "wrong" in states else FAILED if "failed" in states else OK


def _demo(folder: Path, quick: bool, told: Any) -> tuple[str, str]:
    """What `stargz demo` makes a layer of."""
    from stargz.cli.demo import CAP, make_tar

    told("making a tar of this Python's standard library and site-packages")
    tar = folder / "demo.tar"
    make_tar(tar, _QUICK_CAP if quick else CAP)
    return str(tar), "this machine's Python"


@contextmanager
def _processors(count: int | None) -> Iterator[None]:
    """Have this process and those that it starts run on so many."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _telling(args: argparse.Namespace) -> Iterator[tuple[Any, Any]]:
    """What is being measured: a line that is drawn again on a terminal, lines with -v. And what has
    been, which is a line where none is drawn: of a quarter of an hour a log should tell."""
    from stargz.cli._screen import Screen, is_terminal

    screen = Screen()
    drawn = not args.quiet and is_terminal() and args.log_level not in ("debug", "info")

    def tell(text: str) -> None:
        if drawn:
            from stargz.errors import printable

            screen.draw(lambda width, _: [printable(text)])
        else:
            log(args, text)

    def finish(text: str) -> None:
        if not drawn and not args.quiet:
            say(text)

    try:
        yield tell, finish
    finally:
        screen.close()


def _write(path: str, report: dict[str, Any]) -> None:
    from stargz.benchmark.page import page
    from stargz.durable import complete_or_absent, write_all

    with complete_or_absent(str(Path(path).absolute()), called=path) as fd:
        write_all(fd, page(report).encode("utf-8", "backslashreplace"))
