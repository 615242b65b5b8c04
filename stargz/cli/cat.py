"""Write files' contents to standard output.

Only the chunks that hold them are read. Symlinks are followed within the layer."""

from __future__ import annotations

import argparse

from stargz.cli import _options, _stdout
from stargz.cli._errors import OK, CommandError
from stargz.cli._layers import open_layer, resolve
from stargz.cli._output import print_json

EXAMPLE = "stargz cat layer.stargz etc/passwd"

_PIECE = 1 << 20  # bytes: whole files are never held, however long they are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz cat`."""
    _options.add_layer_options(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file's name in the layer")


def run(args: argparse.Namespace) -> int:
    """Write every PATH of SRC, one after the other."""
    written = []
    with open_layer(args) as layer:
        # All are looked up first: a wrong name costs no output.
        names = [resolve(layer, path, args.src) for path in args.paths]
        for path, name in zip(args.paths, names, strict=True):
            if layer.isdir(name):
                raise CommandError(f"{args.src}: {path!r} is a directory; 'stargz ls' lists it")
            kind = layer.entry(name).type
            if kind not in ("reg", "hardlink"):
                raise CommandError(f"{args.src}: {path!r} is of type {kind} and has no content")
        out = _stdout.binary()
        for name in names:
            size = 0
            with layer.open(name) as file:
                while piece := file.read(_PIECE):
                    out.write(piece)
                    size += len(piece)
            written.append({"name": name, "size": size})
    if args.json:
        print_json(written, to_stderr=True)
    return OK
