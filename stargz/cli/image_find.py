"""List what of an image, its layers merged, passes all tests.

Tests are those of `stargz find`."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._find import add_find_options, find_in
from stargz.cli._layers import open_tree

EXAMPLE = """\
stargz image find docker://registry.example/app:1.0 usr -name '*.so' -size +1M"""


def add_arguments(parser: _options.Parser) -> None:
    """The options of `stargz image find`."""
    _options.add_image_options(parser)
    add_find_options(parser)


def run(args: argparse.Namespace) -> int:
    """List what of SRC passes."""
    with open_tree(args) as tree:
        return find_in(tree, args)
