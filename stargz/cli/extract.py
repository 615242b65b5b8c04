"""Unpack a layer, or some of its paths, on all cores.

Nothing is written outside DIR, whatever the layer says: no '..', absolute name, symlink
or hardlink leads out. Device nodes, set-id bits and xattrs other than user.* are left out
unless asked for. A file is there complete or not at all. Symlinks on the way to a PATH
are written too. -v lists names as they are written."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._destination import check_directory
from stargz.cli._extraction import add_extract_options, extract_options, tell
from stargz.cli._layers import open_layer
from stargz.cli._output import print_json
from stargz.cli._progress import Progress
from stargz.cli._selection import found

EXAMPLE = """\
stargz extract layer.stargz -C root
stargz extract layer.stargz etc 'usr/bin/python3*' --exclude '*.pyc' -C root"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz extract`."""
    _options.add_layer_options(parser)
    add_extract_options(parser)


def run(args: argparse.Namespace) -> int:
    """Unpack PATHs of SRC below DIR."""
    check_directory(args.directory, "-C")
    with open_layer(args) as layer, Progress("extract", args) as progress, found(args):
        options = extract_options(args, progress)
        result = layer.extractall(args.directory, threads=args.threads, **options)
    if args.json:
        print_json(result.to_json())
    return tell(args, result, args.src)
