"""What `ls` prints of a tree, of one layer or of an image."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from stargz.cli import _selection
from stargz.cli._errors import OK
from stargz.cli._nodes import LongLines, below, labels, newest_first, order_of, print_entries
from stargz.cli._options import Parser, add_human_readable
from stargz.cli._output import line_printer

if TYPE_CHECKING:
    from stargz.tree import Tree

Shown = tuple[str, int]  # how a node is called, and its number


def add_ls_options(parser: Parser) -> None:
    """PATH and what `ls` is asked for."""
    _selection.add_selection_options(parser, "what is listed (default: the root)")
    parser.add_argument(
        "-l", dest="long", action="store_true", help="mode, owner, size, time and link target too"
    )
    add_human_readable(parser)
    parser.add_argument(
        "-R", "--recursive", action="store_true", help="everything below, as full paths"
    )
    parser.add_argument(
        "-d", "--directory", action="store_true", help="directories themselves, not what they hold"
    )
    parser.add_argument(
        "-a", "-A", "--all", "--almost-all", dest="all", action="store_true",
        help="also what a layer has for itself (.prefetch.landmark, .no.prefetch.landmark); other "
        "names that begin with a dot are shown anyway",
    )  # fmt: skip
    parser.add_argument("-t", dest="sort", action="store_const", const="time", help="newest first")
    parser.add_argument("-S", dest="sort", action="store_const", const="size", help="largest first")
    parser.add_argument("-r", "--reverse", action="store_true", help="the other way round")
    parser.add_argument(
        "-F", "--classify", dest="marks", action="store_const", const="/@*|", default="",
        help="a / behind directories, @ behind symlinks, * what can be run, | fifos",
    )  # fmt: skip
    parser.add_argument(
        "-p", dest="marks", action="store_const", const="/", help="a / behind directories"
    )
    parser.add_argument(
        "-n", "--numeric-uid-gid", dest="numeric", action="store_true",
        help="as -l, with numbers of users and groups",
    )  # fmt: skip
    parser.add_argument("-1", dest="one", action="store_true", help="one name a line, as always")
    parser.add_argument(
        "-0", "--zero", action="store_true",
        help="end names with NUL, for xargs -0; of several directories full paths, no headings",
    )  # fmt: skip


def list_tree(tree: Tree, args: argparse.Namespace) -> int:
    """Print what PATHs have, as the options of `add_ls_options` and --json say."""
    args.long = args.long or args.numeric
    listing = _Listing(tree, args)
    if args.json:
        print_entries(tree, (node for _, group in listing.groups() for _, node in group))
        return OK
    put = line_printer(nul=args.zero)
    line: Callable[[int, str], str] | None = None
    if args.long:
        line = LongLines(tree, human=args.human, numeric=args.numeric).line
    first = True
    for heading, group in listing.groups():
        if heading is not None:
            if not first:
                put("")
            put(f"{heading}:")
        for label, node in group:
            if args.marks and (mark := _mark(tree, node, long=args.long)) in args.marks:
                label += mark
            put(line(node, label) if line else label)
        first = False
    return OK


def _mark(tree: Tree, node: int, *, long: bool) -> str:
    """What -F puts behind a name. A line of -l shows that a symlink is one."""
    kind = tree.engine.type(node)
    if kind == "reg":
        return "*" if tree.engine.attr(node)[3] & 0o111 else ""
    return {"dir": "/", "symlink": "" if long else "@", "fifo": "|"}.get(kind, "")


class _Listing:
    """What PATHs name, in the order of `ls`: files, then what each directory holds."""

    def __init__(self, tree: Tree, args: argparse.Namespace) -> None:
        self.tree = tree
        self.args = args
        self.order = order_of(tree, args)
        selection = _selection.select(tree.engine, args)
        self.excluded = selection.excluded
        self.several = len(selection.matches) > 1
        self.files: list[Shown] = []
        self.directories: list[Shown] = []
        for match in selection.matches:
            node = match.node
            if not args.long and not args.directory and "@" not in args.marks:
                node = _selection.followed(tree.engine, match)
            is_dir = tree.engine.type(node) == "dir"
            listed = self.directories if is_dir and not args.directory else self.files
            listed.append((match.path, node))

    def groups(self) -> Iterator[tuple[str | None, Iterator[Shown]]]:
        """(heading, what is listed below it) for the files and for each directory."""
        if self.files:
            yield None, ((label or ".", node) for label, node in self.sorted(self.files))
        full = self.args.recursive or (self.args.zero and self.several)
        for path, node in self.sorted(self.directories):
            heading = (path or ".") if self.several and not full else None
            yield heading, self.held(path, node, full)

    def sorted(self, listed: list[Shown]) -> list[Shown]:
        """As siblings are."""
        attr, args = self.tree.engine.attr, self.args
        listed = sorted(listed, key=lambda shown: shown[0].encode("utf-8", "surrogateescape"))
        if args.sort:
            newest = newest_first(self.tree)
            by = newest if args.sort == "time" else lambda node: (-attr(node)[1],)
            listed.sort(key=lambda shown: by(shown[1]))
        return listed[::-1] if args.reverse else listed

    def held(self, path: str, node: int, full: bool) -> Iterator[Shown]:
        """What a directory holds."""
        label = labels(self.tree, node, path) if full else self.tree.engine.name
        deepest = None if self.args.recursive else 1
        for kid, _ in below(self.tree, node, self.excluded, self.order, deepest):
            yield label(kid), kid
