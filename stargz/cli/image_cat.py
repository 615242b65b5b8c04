"""Write files' contents of an image to standard output.

Only the chunks that hold them are read. Symlinks are followed within the image."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._contents import cat_tree
from stargz.cli._layers import open_tree
from stargz.cli._selection import add_selection_options

EXAMPLE = "stargz image cat docker://registry.example/app:1.0 etc/os-release"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz image cat`."""
    _options.add_image_options(parser)
    add_selection_options(parser, "a file's name, or a pattern of names", nargs="+")


def run(args: argparse.Namespace) -> int:
    """Write every PATH of SRC, one after the other."""
    with open_tree(args) as tree:
        return cat_tree(tree, args)
