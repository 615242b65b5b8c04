"""`tree`: directories drawn as tree(1) draws them."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from stargz.cli import _selection
from stargz.cli._errors import OK
from stargz.cli._nodes import below, print_entries, start_of
from stargz.cli._options import Parser, add_human_readable
from stargz.cli._output import human_size, line_printer

if TYPE_CHECKING:
    from stargz.tree import Tree

_LINES = ("│   ", "├── ", "└── ")
_ASCII = ("|   ", "|-- ", "`-- ")


def add_tree_options(parser: Parser) -> None:
    """PATHs and what is drawn of them."""
    _selection.add_selection_options(parser, "where to begin (default: the root)")
    parser.add_argument(
        "-I", dest="exclude", action="extend", type=lambda text: text.split("|"), metavar="GLOB",
        help="the same as --exclude; several with | between them",
    )  # fmt: skip
    parser.add_argument("-L", type=_levels, metavar="N", help="no deeper than N levels")
    parser.add_argument("-d", "--directory", action="store_true", help="directories only")
    parser.add_argument(
        "-a", "--all", action="store_true",
        help="also what a layer has for itself (.prefetch.landmark, .no.prefetch.landmark)",
    )  # fmt: skip
    parser.add_argument("-s", "--size", action="store_true", help="sizes in bytes too")
    add_human_readable(parser)
    parser.add_argument("--noreport", action="store_true", help="no count at the end")


def _levels(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of levels from 1 on")
    return int(text)


def draw(tree: Tree, args: argparse.Namespace) -> int:
    """Print the tree below each PATH."""
    drawing = _Drawing(tree, args)
    selection = _selection.select(tree.engine, args)
    starts = [(match.path or ".", start_of(tree, match)) for match in selection.matches]
    if args.json:
        drawn = (
            node
            for _, start in starts
            for node, _ in below(tree, start, selection.excluded, deepest=args.L)
            if not args.directory or drawing.is_directory(node)
        )
        print_entries(tree, drawn)
        return OK
    for path, start in starts:
        drawing.draw(path, start, selection.excluded)
    if not args.noreport:
        drawing.report()
    return OK


class _Drawing:
    def __init__(self, tree: Tree, args: argparse.Namespace) -> None:
        self.tree = tree
        self.args = args
        self.put = line_printer()
        self.lines = _LINES if _has_utf8() else _ASCII
        self.directories = self.files = 0

    def is_directory(self, node: int) -> bool:
        """Whether a node is one, or a symlink that leads to one."""
        from stargz.paths import find

        engine = self.tree.engine
        kind = engine.type(node)
        if kind != "symlink":
            return kind == "dir"
        try:
            return engine.type(find(engine, engine.path(node))) == "dir"
        except (KeyError, OSError):
            return False

    def draw(self, label: str, start: int, excluded: frozenset[int]) -> None:
        """The lines of a start and of all below it."""
        children = self.tree.engine.children
        self.line("", label, start)
        # Of each directory on the way down: its children from the last to the first, and what
        # stands before their names.
        pending = [(self.kids(start, excluded), "")]
        while pending:
            kids, before = pending[-1]
            if not kids:
                pending.pop()
                continue
            node = kids.pop()
            bar, branch, last = self.lines
            self.line(before + (branch if kids else last), self.tree.engine.name(node), node)
            if children(node) and len(pending) != self.args.L:
                pending.append((self.kids(node, excluded), before + (bar if kids else "    ")))

    def kids(self, node: int, excluded: frozenset[int]) -> list[int]:
        """Those to be drawn, the last first."""
        kids = self.tree.engine.children(node)[::-1]
        if self.args.directory:
            return [kid for kid in kids if kid not in excluded and self.is_directory(kid)]
        return [kid for kid in kids if kid not in excluded]

    def line(self, before: str, label: str, node: int) -> None:
        """One line, and its node counted."""
        engine = self.tree.engine
        if self.is_directory(node):
            self.directories += 1
        else:
            self.files += 1
        size = ""
        if self.args.human:
            size = f"[{human_size(engine.attr(node)[1]):>4}]  "
        elif self.args.size:
            size = f"[{engine.attr(node)[1]:>11}]  "
        target = f" -> {engine.target(node)}" if engine.type(node) == "symlink" else ""
        self.put(f"{before}{size}{label}{target}")

    def report(self) -> None:
        """How many there were."""
        many = "directory" if self.directories == 1 else "directories"
        text = f"\n{self.directories} {many}"
        if not self.args.directory:
            text += f", {self.files} file{'s' * (self.files != 1)}"
        print(text)


def _has_utf8() -> bool:
    # Python writes UTF-8 in the C locale too, where others write ASCII.
    if os.environ.get("LC_ALL") in ("C", "POSIX"):
        return False
    return (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
