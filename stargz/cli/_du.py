"""`du`: what the files below directories have."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from stargz.cli import _selection
from stargz.cli._errors import OK
from stargz.cli._nodes import labels, start_of
from stargz.cli._options import Parser, add_human_readable, directories
from stargz.cli._output import human_size, line_printer, print_json_list

if TYPE_CHECKING:
    from stargz.tree import Tree


def add_du_options(parser: Parser) -> None:
    """PATHs, what is printed of them, and in which unit."""
    _selection.add_selection_options(parser, "where to begin (default: the root)")
    parser.add_argument("-a", "--all", action="store_true", help="files too, not only directories")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument(
        "-s", "--summarize", dest="deepest", action="store_const", const=0,
        help="only the sum of each PATH",
    )  # fmt: skip
    depth.add_argument(
        "-d", "--max-depth", dest="deepest", type=directories, metavar="N",
        help="no deeper than N directories below a PATH; what is deeper is counted",
    )  # fmt: skip
    parser.add_argument("-c", "--total", action="store_true", help="the sum of all PATHs too")
    for option, unit, text in (
        ("-b", 1, "sizes in bytes"),
        ("-k", 1 << 10, "in KiB (1024 bytes), the default"),
        ("-m", 1 << 20, "in MiB"),
    ):
        parser.add_argument(option, dest="unit", action="store_const", const=unit, help=text)
    add_human_readable(parser)
    parser.add_argument(
        "--apparent-size", action="store_true", help="as it is: a layer has no other sizes"
    )
    parser.add_argument(
        "--compressed", action="store_true",
        help="what the contents take in the blob instead, with the tar headers behind them; files "
        "that are compressed together share that by their sizes",
    )  # fmt: skip
    parser.add_argument("-0", "--null", dest="zero", action="store_true", help="end lines with NUL")


def usage_of(tree: Tree, args: argparse.Namespace) -> int:
    """Print the sizes of PATHs and of what is below them."""
    usage = _Usage(tree, args)
    if args.json:
        real = tree.engine.path
        print_json_list(
            {"name": real(node), "size": math.ceil(size)} for size, node, _ in usage.found()
        )
        return OK
    put = line_printer(nul=args.zero)
    unit = args.unit or 1 << 10
    if args.human:
        text: Callable[[int], str] = human_size
    else:
        text = lambda size: str(-(-size // unit))  # noqa: E731
    for size, _, path in usage.found():
        put(f"{text(math.ceil(size))}\t{path or '.'}")
    if args.total:
        put(f"{text(math.ceil(usage.total))}\ttotal")
    return OK


class _Usage:
    def __init__(self, tree: Tree, args: argparse.Namespace) -> None:
        self.tree = tree
        self.args = args
        self.selection = _selection.select(tree.engine, args)
        self.size_of = _compressed(tree) if args.compressed else _contents(tree)
        self.seen: set[int] = set()  # inodes that are counted and may come again
        self.total: float = 0

    def found(self) -> Iterator[tuple[float, int, str]]:
        """(size, node, path) of what is printed, each directory behind what is in it."""
        for match in self.selection.matches:
            start = start_of(self.tree, match)
            yield from self.below(start, labels(self.tree, start, match.path))

    def below(self, start: int, path: Callable[[int], str]) -> Iterator[tuple[float, int, str]]:
        """The same of one PATH."""
        children, excluded = self.tree.engine.children, self.selection.excluded
        shown = self.args.deepest
        if self.counted(start):
            return
        # Of each directory on the way down: itself, its children to come, the sum so far.
        ways: list[tuple[int, Iterator[int]]] = [(start, iter(children(start)))]
        sums = [self.size_of(start)]
        while ways:
            node, kids = ways[-1]
            depth = len(ways)
            for kid in kids:
                if kid in excluded or self.counted(kid):
                    continue
                if self.tree.engine.type(kid) == "dir":
                    ways.append((kid, iter(children(kid))))
                    sums.append(0)
                    break
                size = self.size_of(kid)
                sums[-1] += size
                if self.args.all and (shown is None or depth <= shown):
                    yield size, kid, path(kid)
            else:
                ways.pop()
                size = sums.pop()
                if sums:
                    sums[-1] += size
                else:
                    self.total += size
                if shown is None or depth - 1 <= shown:
                    yield size, node, path(node)

    def counted(self, node: int) -> bool:
        """Whether a node was counted before, by another name or below another PATH."""
        attr = self.tree.engine.attr(node)
        if attr[4] == 1 and len(self.selection.matches) == 1:
            return False
        before = len(self.seen)
        self.seen.add(attr[0])
        return len(self.seen) == before


def _contents(tree: Tree) -> Callable[[int], float]:
    """Bytes of a regular file."""
    kind, attr = tree.engine.type, tree.engine.attr
    return lambda node: attr(node)[1] if kind(node) == "reg" else 0


def _compressed(tree: Tree) -> Callable[[int], float]:
    """Bytes of a blob that the chunks of a regular file take. Each member goes up to the next one
    in which a chunk begins, and its chunks share it by their decoded bytes."""
    rates: list[dict[int, float]] = []  # of each layer's members, by offset: bytes per decoded one
    for layer in tree.layers:
        rows = layer.toc.rows
        decoded: dict[int, float] = {}
        for row in rows.entries():
            for offset, _, _, size, _, zeros in rows.chunks(row):
                if not zeros:
                    decoded[offset] = decoded.get(offset, 0) + size
        for start, end in pairwise([*sorted(decoded), layer.data_end]):
            decoded[start] = (end - start) / decoded[start]
        rates.append(decoded)
    kind, place, tocs = tree.engine.type, tree.engine.row, tree.engine.tocs

    def size_of(node: int) -> float:
        if kind(node) != "reg":
            return 0
        layer, row = place(node)
        found = rates[layer]
        chunks = tocs[layer].chunks(row)
        return sum(size * found[offset] for offset, _, _, size, _, zeros in chunks if not zeros)

    return size_of
