"""Convert all images of a registry, a repository, a list, or a folder; or, with --index, make SOCI
indexes of them.

Each distinct layer is worked on once. What is done is kept in a state file: the command can be
stopped at any moment, by kill -9 too, and goes on from there; run again, it does what is new,
has changed, or failed. Images that fail are listed, the others go on, and the exit code is 1, as it
is if --include chooses no image at all.

With --index layers stay as they are, and options of conversions are refused. Version 2 needs DST or
--upgrade; version 1 (--soci-version 1) leaves the images as they are, and needs none.

SRC is docker://HOST (all repositories), docker://HOST/REPO (all tags), one image, a file with
an image a line (and, if wanted, its destination behind it; # begins a comment), a folder of OCI
layouts, or a registry's storage folder. What docker://NAME alone means: a registry if NAME has a
dot or is localhost, else a repository of Docker Hub; docker://NAME/ is always a registry.

DST is docker://HOST[/PREFIX] or oci:DIR, a folder with a layout for each repository; below it
repositories keep their names. If SRC is one repository, DST is one too, unless it ends in
a slash. An image known by its digest alone gets the tag sha256.HEX. Tags of signatures
(sha256-HEX.sig) and of external TOCs are left out."""

from __future__ import annotations

import argparse
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stargz.cli import _convert_options, _options
from stargz.cli._board import Board, failure_line
from stargz.cli._destination import add_destination, named
from stargz.cli._errors import FAILED, OK, say
from stargz.cli._output import log, print_json, print_table, relay, shown, size_text, speed, warn

if TYPE_CHECKING:
    from stargz.oci.bulk import BulkReport

EXAMPLE = """\
stargz image bulk docker://registry.example docker://mirror.example --jobs 4
stargz image bulk --dry-run docker://registry.example docker://mirror.example
stargz image bulk --include 'team/*:1.*' --report bulk.html docker://registry.example oci:layouts
stargz image bulk --index --soci-version 1 docker://registry.example
stargz image bulk --dask tcp://scheduler:8786 images.txt docker://registry.example/lazy"""

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # of malloc.h


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz image bulk`."""
    parser.add_argument("src", metavar="SRC", help="what to convert: see above")
    add_destination(
        parser,
        "docker://HOST[/PREFIX] or oci:DIR (not with --upgrade; with --soci-version 1 only where "
        "indexes are not to be beside the images of SRC)",
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="what is done is kept here (default: a file for SRC and DST below "
        "$XDG_STATE_HOME/stargz, that is ~/.local/state/stargz; -v tells its name)",
    )
    parser.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only images that match REPOSITORY:TAG, with * ? [] (* matches slashes too); without "
        "a colon it may match the repository, with all its tags, or the tag, or the two with the "
        "colon between them (repeatable)",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out images that match, as --include has it (repeatable)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list images, layers and bytes to do; nothing is written but the --report",
    )
    parser.add_argument(
        "--report",
        action="append",
        default=[],
        metavar="FILE",
        help="write every image and layer to FILE.json, or to FILE.html as a page (repeatable)",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="have the workers of a Dask cluster convert: HOST:PORT of its scheduler, or its "
        "file. They need the same stargz, --authfile where they are, and a shared file system for "
        "oci: and files",
    )
    group = parser.add_argument_group("SOCI indexes")
    group.add_argument(
        "--index",
        action="store_true",
        help="make SOCI indexes of the images, as 'stargz image index' does of one, instead of "
        "converting them",
    )
    _convert_options.add_index_options(group, bulk=True)
    _convert_options.add_image_options(parser)
    _options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Convert, or index, what SRC has."""
    from stargz.oci.bulk import bulk
    from stargz.oci.bulk.state import default_path

    _little_memory()
    relay(args)
    dst = named(args)
    state = args.state or default_path(args.src, dst, index=args.index)
    log(args, f"state: {state}")
    with Board(args) as board:
        report = bulk(
            args.src,
            dst,
            state=state,
            include=args.include,
            exclude=args.exclude,
            dry_run=args.dry_run,
            dask=args.dask,
            reports=args.report,
            progress=board,
            index=args.index,
            soci_version=args.soci_version,
            min_layer_size=args.min_layer_size,
            span_size=args.span_size,
            **_convert_options.image_options(args),
        )
    if args.json:
        print_json(report.to_json())
    _print(report, args)
    return OK if report.ok else FAILED


def _little_memory() -> None:
    """Have glibc share its heaps among the threads, of which every image has its own, and give
    large buffers back once they are freed: else those come from the heaps too, as soon as one was
    freed, and leave holes there. With 200 images on two cores the peak is 160 MB, and was 500."""
    import ctypes

    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def _print(report: BulkReport, args: argparse.Namespace) -> None:
    totals = report.totals
    if not totals["images"]:
        warn(args, f"{args.src}: no images found")
    data_alone = args.quiet or args.json
    if not data_alone:
        print_table(_planned(totals) if report.dry_run else _done(report))
    for one in report.warnings:
        warn(args, f"{one['source']}: {one['warning']}")
    for failure in report.failures:
        say(f"{failure.status}: {failure_line(failure.source, failure.error)}")
    if data_alone:
        return
    for image in report.images:
        if image["status"] in ("to do", "unchanged", "not indexable"):
            print(shown(_image_line(image)))
    for skip in report.skipped:
        print(shown(f"skipped  {failure_line(skip.source, skip.error)}"))
    for stale in report.stale:
        print(shown(f"stale  {stale['kind']} {stale['name']} (for {stale['source']} as it was)"))


_TO_DO = ("to convert", "seekable", "to index")
_LAYERS = {
    "to convert": "to convert",
    "to index": "to index",
    "seekable": "seekable already",
    "kept": "indexed already",
    "left out": "left out",
    "done": "done before",
}


def _image_line(image: dict[str, Any]) -> str:
    """An image of a dry run."""
    line = f"{image['status']}  {image['source']}"
    if image["destination"] != image["source"]:  # else it stays where it is
        line += f" -> {image['destination']}"
    if image["status"] != "to do":
        return line
    counts = Counter(layer["status"] for layer in image["layers"])
    told = [f"{counts[key]} {text}" for key, text in _LAYERS.items() if counts[key]]
    size = sum(one["source_size"] for one in image["layers"] if one["status"] in _TO_DO)
    number = len(image["layers"])
    layers = f"{number} layer{'' if number == 1 else 's'}"
    return f"{line}  {layers}{': ' if told else ''}{', '.join(told)}; {size_text(size)}"


def _planned(totals: dict[str, int]) -> list[tuple[str, str]]:
    return [
        (
            "images",
            f"{totals['images']:,}: {totals['to_do']:,} to do, {totals['unchanged']:,} done, "
            f"{totals['failed']:,} failed{_some(totals, 'not_indexable', 'not indexable')}"
            f"{_some(totals, 'skipped')}",
        ),
        (
            "layers",
            f"{totals['layers']:,} distinct, {totals['layers_known']:,} of them done",
        ),
        ("to do", size_text(totals["bytes"])),
    ]


def _some(totals: dict[str, int], key: str, what: str = "") -> str:
    """A number that is told if there are any."""
    return f", {totals[key]:,} {what or key}" if totals.get(key) else ""


def _done(report: BulkReport) -> list[tuple[str, str]]:
    totals = report.totals
    before, after = totals["bytes_before"], totals["bytes_after"]
    share = f", {100 * after / before:.1f}%" if before else ""
    rate = speed(totals["bytes_read"], report.seconds)
    indexed = "indexed" in totals
    made = "indexed" if indexed else "converted"
    kept = "" if indexed else f"{totals['layers_kept']:,} kept, "
    return [
        (
            "images",
            f"{totals['images']:,}: {totals[made]:,} {made}, {totals['unchanged']:,} "
            f"unchanged, {totals['failed']:,} failed{_some(totals, 'throttled')}"
            f"{_some(totals, 'not_indexable', 'not indexable')}{_some(totals, 'skipped')}",
        ),
        (
            "layers",
            f"{totals['layers']:,}: {totals[f'layers_{made}']:,} {made}, "
            f"{kept}{totals['layers_reused']:,} known from before"
            f"{_some(totals, 'layers_not_seekable', 'not seekable')}"
            f"{_some(totals, 'layers_left_out', 'left out')}",
        ),
        ("in all" if indexed else "before", size_text(before)),
        ("ztocs" if indexed else "after", f"{size_text(after)}{share}"),
        ("seconds", f"{report.seconds:.3f}{rate and f', {rate} of compressed layers'}"),
    ]
