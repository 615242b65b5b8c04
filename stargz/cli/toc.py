"""Write a layer's TOC to standard output, byte for byte as it is stored.

Its sha256 is the TOC digest."""

from __future__ import annotations

import argparse

from stargz.cli import _options, _stdout
from stargz.cli._errors import OK
from stargz.cli._layers import open_layer
from stargz.cli._output import print_json

EXAMPLE = "stargz toc layer.stargz | sha256sum"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz toc`."""
    _options.add_layer_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the TOC of SRC."""
    with open_layer(args) as layer:
        out, size = _stdout.binary(), 0
        for piece in layer.iter_toc():
            size += out.write(piece)
        if args.json:
            print_json({"toc_digest": layer.toc_digest, "bytes": size}, to_stderr=True)
    return OK
