"""Unpack a layer, or some of its paths, on all cores.

Nothing is written outside DIR, whatever the layer says: no '..', absolute name, symlink
or hardlink leads out. Device nodes, set-id bits and xattrs other than user.* are left out
unless asked for. A file is there complete or not at all."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._errors import OK
from stargz.cli._layers import open_layer
from stargz.cli._output import print_json, size_text, warn
from stargz.cli._progress import Progress

EXAMPLE = """\
stargz extract layer.stargz -C root
stargz extract layer.stargz etc usr/bin/python3 -C root"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz extract`."""
    _options.add_layer_options(parser)
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", help="only these, and what they hold (default: all)"
    )
    parser.add_argument(
        "-C", "--directory", metavar="DIR", default=".", help="where to (default: here)"
    )
    owner = parser.add_mutually_exclusive_group()
    owner.add_argument(
        "--same-owner",
        dest="same_owner",
        action="store_true",
        default=None,
        help="set owners (the default for root only)",
    )
    owner.add_argument(
        "--no-same-owner", dest="same_owner", action="store_false", help="never set owners"
    )
    parser.add_argument("--devices", action="store_true", help="make device nodes")
    parser.add_argument("--setid", action="store_true", help="keep set-uid and set-gid bits")
    parser.add_argument(
        "--xattrs",
        choices=("none", "user", "all"),
        default="user",
        help="which extended attributes (default: user)",
    )


def run(args: argparse.Namespace) -> int:
    """Unpack PATHs of SRC below DIR."""
    with open_layer(args) as layer, Progress("extract", args) as progress:
        result = layer.extractall(
            args.directory,
            args.paths or None,
            threads=args.threads,
            same_owner=args.same_owner,
            devices=args.devices,
            setid=args.setid,
            xattrs=args.xattrs,
            progress=progress.callback,
        )
    if args.json:
        print_json(
            {
                "files": result.files,
                "bytes": result.bytes,
                "unverified": result.unverified,
                "skipped": result.skipped,
            }
        )
        return OK
    for what, count in result.skipped.items():
        warn(args, f"{args.src}: left out: {count:,} {what}")
    if result.unverified:
        warn(args, f"{args.src}: {result.unverified:,} files have no digest to check")
    if not args.quiet:
        print(f"{result.files:,} files, {size_text(result.bytes)}")
    return OK
