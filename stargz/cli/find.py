"""List what of a layer passes all tests, such as -name '*.so' -size +1M, as full paths.

Tests have one dash or two, and stand before or behind SRC and PATHs. All must hold; -o between them
is "or", ! before one is "not", and parentheses group them (quote them for the shell). Sizes are
compared by the byte, not rounded up to whole units: -size -1M is every file of less than 1,048,576
bytes. Times are UTC. A PATH that is a symlink to a directory is gone into."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._find import add_find_options, find_in
from stargz.cli._layers import open_tree

EXAMPLE = """\
stargz find layer.stargz usr/lib -name '*.so' -size +1M
stargz find layer.stargz -type f,l ! -newermt 2024-01-31 -ls
stargz find layer.stargz etc -name '*.conf' -0 | xargs -0 stargz cat layer.stargz"""


def add_arguments(parser: _options.Parser) -> None:
    """The options of `stargz find`."""
    _options.add_layer_options(parser)
    add_find_options(parser)


def run(args: argparse.Namespace) -> int:
    """List what of SRC passes."""
    with open_tree(args) as tree:
        return find_in(tree, args)
