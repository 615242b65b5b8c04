"""Verify a layer: every gzip member and its CRC, every chunk and file against its digest,
and the TOC against the tree that the tar makes when it is applied in order.

Exit code 3 where anything fails."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._errors import OK, UNVERIFIED, say
from stargz.cli._layers import open_layer
from stargz.cli._output import print_json, size_text
from stargz.cli._progress import Progress

EXAMPLE = "stargz verify layer.stargz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz verify`."""
    _options.add_layer_options(parser)


def run(args: argparse.Namespace) -> int:
    """Verify SRC."""
    with open_layer(args) as layer:
        with Progress("verify", args) as progress:
            result = layer.verify(progress=progress.callback)
        toc_digest = layer.toc_digest
    errors = [{"name": e.name, "offset": e.offset, "message": e.message} for e in result.errors]
    if args.json:
        print_json(
            {
                "ok": result.ok,
                "files": result.files,
                "chunks": result.chunks,
                "bytes": result.bytes,
                "errors": errors,
                "error_count": result.error_count,
                "verified": result.verified,
                "toc_digest": toc_digest,
            }
        )
    for error in errors:
        at = "" if error["offset"] is None else f" at offset {error['offset']}"
        name = f"{error['name']}: " if error["name"] else ""
        say(f"{args.src}{at}: {name}{error['message']}")
    if not args.json:
        word = "ok" if result.ok else "FAILED"
        counts = f"{result.files:,} files, {result.chunks:,} chunks, {size_text(result.bytes)}"
        more = "" if result.ok else f", {result.error_count:,} errors"
        if result.ok and not result.verified:
            # Consistent in itself; whether it is the layer that was meant, nobody said.
            more = " (unverified: " + (
                "files without a digest)" if args.toc_digest else "no --toc-digest was given)"
            )
        print(f"{word}: {counts}{more}")
    return OK if result.ok else UNVERIFIED
