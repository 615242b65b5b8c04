"""How much the files below a layer's directories have: bytes of contents, each directory with
all that is below it, the deepest first.

Sizes are in KiB, rounded up, as of `du --apparent-size` (a layer has no blocks); -b says bytes.
A file of several names (hard links) is counted once, symlinks and directories themselves count
nothing. A PATH that is a symlink to a directory is gone into."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._du import add_du_options, usage_of
from stargz.cli._layers import open_tree

EXAMPLE = """\
stargz du -h -d 2 layer.stargz
stargz du -ab layer.stargz usr/lib | sort -n | tail
stargz du -sh --compressed layer.stargz usr etc"""


def add_arguments(parser: _options.Parser) -> None:
    """The options of `stargz du`."""
    _options.add_layer_options(parser)
    add_du_options(parser)


def run(args: argparse.Namespace) -> int:
    """Add up what PATHs of SRC have."""
    with open_tree(args) as tree:
        return usage_of(tree, args)
