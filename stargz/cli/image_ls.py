"""List the files of an image, its layers merged.

A directory lists what it holds, anything else itself; with -l a symlink itself, but with a slash
behind it. Times are UTC."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._layers import open_tree
from stargz.cli._ls import add_ls_options, list_tree

EXAMPLE = """\
stargz image ls -l docker://registry.example/app:1.0 usr/bin
stargz image ls -R oci:layout:latest | grep python"""


def add_arguments(parser: _options.Parser) -> None:
    """The options of `stargz image ls`."""
    _options.add_image_options(parser)
    add_ls_options(parser)


def run(args: argparse.Namespace) -> int:
    """List PATHs of SRC."""
    with open_tree(args, landmarks=args.all) as tree:
        return list_tree(tree, args)
