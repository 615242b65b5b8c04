"""Make a patch: what somebody who has BASE needs to make NEW, byte for byte.

BASE is a layer, or what `stargz toc --members` wrote of it where it is. NEW is a layer. What
BASE has under any name or place is not sent, where its compressed bytes can be copied or the
engine makes the same of its contents, which is tried. `stargz apply BASE PATCH` makes NEW. Both
are layers in gzip, as eStargz is: not zstd:chunked, nor an ordinary tar."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from stargz.cli import _options
from stargz.cli._destination import add_destination, needed, writable
from stargz.cli._errors import OK, CommandError
from stargz.cli._layers import is_image, open_layer, open_source, side, source
from stargz.cli._output import print_result, size_text, speed_of
from stargz.cli._progress import Progress
from stargz.errors import UsageError

if TYPE_CHECKING:
    from stargz.layer import Layer
    from stargz.patching.make import DeltaResult
    from stargz.patching.members import MemberList

EXAMPLE = """\
stargz delta first.stargz next.stargz -o next.patch
stargz delta first.stargz next.stargz -o - | ssh host stargz apply first.stargz - -o next.stargz
ssh host stargz toc --members first.stargz > first.json
stargz delta first.json next.stargz -o next.patch"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz delta`."""
    _options.add_two_layers_options(parser, "base", "new", indexed=False)
    add_destination(parser, "the patch to write, or - for standard output", "PATCH")
    parser.add_argument("-f", "--force", action="store_true", help="replace PATCH if it exists")


def run(args: argparse.Namespace) -> int:
    """Write the patch from BASE to NEW."""
    from stargz.patching.make import delta
    from stargz.patching.members import seekable_alone

    if args.base == args.new == "-":
        raise UsageError("BASE and NEW cannot both be -; name one of them")
    dst = needed(args, "PATCH")
    to_stdout = dst == "-"
    target = writable(dst, [args.base, args.new], args.force, "PATCH")
    with (
        seekable_alone(),
        _base(args) as base,
        open_layer(side(args, "new", "base"), make=False) as new,
        Progress("delta", args, json_on_stderr=to_stdout) as progress,
    ):
        result = delta(base, new, target, threads=args.threads, progress=progress.callback)
    _report(result, args)
    return OK


@contextmanager
def _base(args: argparse.Namespace) -> Iterator[Layer | MemberList]:
    given = side(args, "base", "new")
    if is_image(given.src):
        with open_layer(given, make=False) as layer:
            yield layer
        return
    from stargz.patching.members import is_list, read_list
    from stargz.sources import as_source

    with ExitStack() as stack:
        found = stack.enter_context(source(given))
        opened = as_source(found.source)
        if opened is not found.source:
            stack.enter_context(closing(opened))
        if not is_list(opened):
            yield stack.enter_context(open_source(found, given, make=False))
            return
        if given.toc is not None or given.layer is not None:
            raise UsageError(f"{given.src}: is a list of members: no --toc-base, no --layer-base")
        members = read_list(opened)
        if given.toc_digest not in (None, members.toc_digest):
            raise CommandError(
                f"{given.src}: is of a layer with the TOC {members.toc_digest}, not "
                f"{given.toc_digest}"
            )
        yield members


def _report(result: DeltaResult, args: argparse.Namespace) -> None:
    def part(size: int) -> str:
        return f"{size_text(size)}, {100 * size / max(result.new_size, 1):.1f}% of NEW"

    rows = [
        ("patch", args.dst),
        ("base", result.base_digest),
        ("new", result.new_digest),
        ("size", part(result.patch_size)),
        ("copied", part(result.copied)),
        ("regenerated", part(result.regenerated)),
        ("sent", part(result.sent)),
        (
            "members",
            f"{result.members:,}: {result.members_copied:,} copied, "
            f"{result.members_regenerated:,} regenerated",
        ),
        ("seconds", f"{result.seconds:.3f}"),
    ]
    engine = f"level {result.level} by {result.engine}" if result.level else "nothing regenerated"
    said = f"{engine}, {speed_of(result.new_size, result.seconds, 'NEW')}"
    print_result(args, args.dst, result, rows, said)
