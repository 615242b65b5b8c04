"""Write files' contents to standard output.

Only the chunks that hold them are read. Symlinks are followed within the layer."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._contents import cat_tree
from stargz.cli._layers import open_layer
from stargz.cli._selection import add_selection_options

EXAMPLE = """\
stargz cat layer.stargz etc/passwd
stargz cat layer.stargz 'usr/share/**/*.txt' --exclude locale"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz cat`."""
    _options.add_layer_options(parser)
    add_selection_options(parser, "a file's name, or a pattern of names", nargs="+")


def run(args: argparse.Namespace) -> int:
    """Write every PATH of SRC, one after the other."""
    from stargz.tree import Tree

    with open_layer(args) as layer:
        return cat_tree(Tree([layer], "raw"), args)
