"""Make a layer of another one and a patch.

NEW becomes byte for byte what 'stargz delta' made the patch from. BASE is checked first. A file
NEW appears complete and checked or not at all; a pipe gets the TOC and the footer only once the
whole is right."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stargz.cli import _options
from stargz.cli._destination import add_destination, needed, writable
from stargz.cli._errors import OK
from stargz.cli._layers import binary_stdin
from stargz.cli._output import print_result, size_text, speed
from stargz.cli._progress import Progress
from stargz.errors import UsageError

if TYPE_CHECKING:
    from stargz.patching.applying import ApplyResult

EXAMPLE = """\
stargz apply v1.stargz v1-v2.patch -o v2.stargz
stargz delta v1.stargz v2.stargz -o - | ssh host 'stargz apply v1.stargz - -o v2.stargz'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz apply`."""
    parser.add_argument(
        "base",
        metavar="BASE",
        help="the layer that PATCH was made for, or - for standard input",
    )
    parser.add_argument("patch", metavar="PATCH", help="the patch, or - for standard input")
    add_destination(parser, "the layer to write, or - for standard output", "NEW")
    parser.add_argument("-f", "--force", action="store_true", help="replace NEW if it exists")
    parser.add_argument(
        "--max-size",
        type=_options.size,
        metavar="SIZE",
        help="refuse a patch that makes a larger layer, such as 2G (default: 4 times BASE and what "
        "PATCH inflates to, but at least 1G)",
    )
    _options.add_threads(parser)
    _options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Apply PATCH to BASE."""
    from stargz.patching.applying import apply

    if args.base == "-" and args.patch == "-":
        raise UsageError("BASE and PATCH cannot both be -; name one of them")
    dst = needed(args, "NEW")
    # BASE may be replaced: its successor.
    target = writable(dst, [args.patch], args.force, "NEW")
    to_stdout = dst == "-"
    with Progress(
        Path(dst).name if not to_stdout else "apply", args, json_on_stderr=to_stdout
    ) as progress:
        base, patch = (binary_stdin() if n == "-" else n for n in (args.base, args.patch))
        result = apply(
            *(base, patch, target),
            max_size=args.max_size,
            threads=args.threads,
            progress=progress.callback,
        )
    _report(result, args)
    return OK


def _report(result: ApplyResult, args: argparse.Namespace) -> None:
    rows = [
        ("layer", args.dst),
        ("digest", result.digest),
        ("size", size_text(result.size)),
        ("copied", size_text(result.copied)),
        ("regenerated", size_text(result.regenerated)),
        ("received", f"{size_text(result.received)}, patch {size_text(result.patch_size)}"),
        ("seconds", f"{result.seconds:.3f}"),
    ]
    print_result(args, args.dst, result, rows, speed(result.size, result.seconds))
