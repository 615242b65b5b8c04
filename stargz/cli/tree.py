"""Draw a layer's directories as a tree.

Lines are drawn in ASCII where the locale has no UTF-8. Directories and symlinks to them are
counted as directories, as tree(1) does. A PATH that is a symlink to a directory is gone into."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._layers import open_tree
from stargz.cli._tree import add_tree_options, draw

EXAMPLE = """\
stargz tree -L 2 layer.stargz
stargz tree -h layer.stargz usr/lib --exclude '*.pyc'"""


def add_arguments(parser: _options.Parser) -> None:
    """The options of `stargz tree`."""
    _options.add_layer_options(parser)
    add_tree_options(parser)


def run(args: argparse.Namespace) -> int:
    """Draw PATHs of SRC."""
    with open_tree(args, landmarks=args.all) as tree:
        return draw(tree, args)
