"""Draw an image's directories as a tree, its layers merged."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._layers import open_tree
from stargz.cli._tree import add_tree_options, draw

EXAMPLE = """\
stargz image tree -L 2 docker://registry.example/app:1.0"""


def add_arguments(parser: _options.Parser) -> None:
    """The options of `stargz image tree`."""
    _options.add_image_options(parser)
    add_tree_options(parser)


def run(args: argparse.Namespace) -> int:
    """Draw PATHs of SRC."""
    with open_tree(args, landmarks=args.all) as tree:
        return draw(tree, args)
