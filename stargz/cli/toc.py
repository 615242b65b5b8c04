"""Write a layer's TOC to standard output, byte for byte as it is stored.

Its sha256 is the TOC digest. With --members, write what `stargz delta` needs to know of the
layer in place of the layer itself: one JSON value with the TOC and every gzip member's offset,
size and sha256. All of the layer is then read and checked."""

from __future__ import annotations

import argparse

from stargz.cli import _options, _stdout
from stargz.cli._errors import OK
from stargz.cli._layers import open_layer
from stargz.cli._output import print_json
from stargz.cli._progress import Progress

EXAMPLE = """\
stargz toc layer.stargz | sha256sum
stargz toc --members layer.stargz > layer.members"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz toc`."""
    parser.add_argument(
        "--members",
        action="store_true",
        help="write the TOC and all gzip members with their digests, as BASE for `stargz delta`",
    )
    _options.add_layer_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the TOC of SRC."""
    if args.members:
        return _members(args)
    with open_layer(args) as layer:
        out, size = _stdout.binary(), 0
        for piece in layer.iter_toc():
            size += out.write(piece)
        if args.json:
            print_json({"toc_digest": layer.toc_digest, "bytes": size}, to_stderr=True)
    return OK


def _members(args: argparse.Namespace) -> int:
    from stargz.patching.members import MemberList, seekable_alone

    with (
        seekable_alone(),
        open_layer(args, make=False) as layer,
        Progress(args.src, args, json_on_stderr=True) as progress,
    ):
        found = MemberList.from_layer(layer, threads=args.threads, progress=progress.callback)
    size = found.write(_stdout.binary())
    if args.json:
        result = {"digest": found.digest, "members": len(found.members), "bytes": size}
        print_json({"toc_digest": found.toc_digest, **result}, to_stderr=True)
    return OK
