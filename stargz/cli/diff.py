"""What differs between two layers, from their TOCs alone: of a remote one little is fetched.

A line for each name: "+" added in B, "-" removed, "M" other contents ("M?" where no digests
tell), "m" other metadata only. What differs, besides the contents, stands in parentheses. The
last line counts; the bytes to send are an estimate, which `stargz delta` makes exact. A and B may
be of different formats, and ordinary tars.

Exit code 0 whether or not anything differs, unless --exit-code is given."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._difference import add_diff_options, tell
from stargz.cli._layers import open_layer, side
from stargz.errors import UsageError

EXAMPLE = """\
stargz diff first.stargz next.stargz
stargz diff docker://registry.example/app:1.0 docker://registry.example/app:1.1 --layer -1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz diff`."""
    _options.add_two_layers_options(parser, "a", "b")
    add_diff_options(parser)


def run(args: argparse.Namespace) -> int:
    """Compare A and B."""
    from stargz.patching.difference import diff

    if args.a == args.b == "-":
        raise UsageError("A and B cannot both be standard input")
    with open_layer(side(args, "a", "b")) as before, open_layer(side(args, "b", "a")) as after:
        difference = diff(before, after)
    return tell(args, difference)
