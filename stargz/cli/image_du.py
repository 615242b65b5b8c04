"""How much the files below an image's directories have, its layers merged.

As `stargz du`."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._du import add_du_options, usage_of
from stargz.cli._layers import open_tree

EXAMPLE = """\
stargz image du -h -d 2 docker://registry.example/app:1.0"""


def add_arguments(parser: _options.Parser) -> None:
    """The options of `stargz image du`."""
    _options.add_image_options(parser)
    add_du_options(parser)


def run(args: argparse.Namespace) -> int:
    """Add up what PATHs of SRC have."""
    with open_tree(args) as tree:
        return usage_of(tree, args)
