"""Empty the disk cache, or make it smaller.

Without options all of it goes. Commands that use the cache meanwhile fetch again what is gone, and
make the indexes of local files anew."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._errors import OK
from stargz.cli._output import counted, print_json, size_text
from stargz.cli.cache import age, exists

EXAMPLE = """\
stargz cache prune
stargz cache prune --size 1G
stargz cache prune --older-than 7d"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz cache prune`."""
    parser.add_argument(
        "--size",
        type=_options.size,
        metavar="SIZE",
        help="remove what was least recently used until this much is left, such as 1G",
    )
    parser.add_argument(
        "--older-than",
        type=age,
        metavar="AGE",
        help="remove what was not used for this long, such as 12h or 7d",
    )
    _options.add_cache_dir(parser)
    _options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Remove chunks."""
    from dataclasses import asdict

    from stargz.cache import Cache, Pruned

    removed = Pruned(0, 0)
    if exists(args):
        removed = Cache(args.cache_dir).prune(args.size, args.older_than)
    if args.json:
        print_json(asdict(removed))
    elif not args.quiet:
        what = counted(removed.chunks, "chunk")
        if removed.indexes:
            what += f" and {counted(removed.indexes, 'index')}"
        print(f"removed {what}, {size_text(removed.bytes)}")
    return OK
