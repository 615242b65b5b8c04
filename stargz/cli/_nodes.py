"""Nodes of a tree as `ls`, `find`, `du` and `tree` go through them and show them."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from stargz.cli._output import human_size, print_json_list
from stargz.cli._selection import followed

if TYPE_CHECKING:
    from stargz.paths import Match
    from stargz.tree import Tree

Order = Callable[[Iterable[int]], Iterable[int]]


def order_of(tree: Tree, args: argparse.Namespace) -> Order | None:
    """How siblings are sorted by -t, -S and -r; None: as the tree has them, by the bytes of their
    names."""
    attr, sort, backwards = tree.engine.attr, args.sort, args.reverse
    if sort == "time":
        by = newest_first(tree)
    elif sort == "size":
        by = lambda node: (-attr(node)[1],)  # noqa: E731
    elif backwards:
        return lambda nodes: sorted(nodes, reverse=True)  # siblings are numbered by their names
    else:
        return None
    return lambda nodes: sorted(nodes, key=by)[:: -1 if backwards else 1]


def newest_first(tree: Tree) -> Callable[[int], tuple[int, ...]]:
    """What to sort nodes by, for -t."""
    attr = tree.engine.attr
    return lambda node: (-attr(node)[2], -attr(node)[9])


def below(
    tree: Tree,
    start: int,
    excluded: frozenset[int] = frozenset(),
    order: Order | None = None,
    deepest: int | None = None,
) -> Iterator[tuple[int, int]]:
    """(node, depth) of all that is below a node and not excluded, each directory before what is
    in it; what `start` holds has depth 1."""
    children = tree.engine.children
    if deepest == 0:
        return
    pending = [iter(order(children(start)) if order else children(start))]
    while pending:
        depth = len(pending)
        for kid in pending[-1]:
            if kid in excluded:
                continue
            yield kid, depth
            if depth != deepest and (kids := children(kid)):
                pending.append(iter(order(kids) if order else kids))
                break
        else:
            pending.pop()


def start_of(tree: Tree, match: Match) -> int:
    """Where a walk from a PATH begins: a symlink that was named is followed. Those that a pattern
    matches are not: with `*` what they lead to is there as well."""
    return match.node if match.by_pattern else followed(tree.engine, match)


def labels(tree: Tree, start: int, path: str) -> Callable[[int], str]:
    """The paths of nodes below `start` as one reaches them by way of `path`."""
    path_of = tree.engine.path
    real = path_of(start)
    if real == path:
        return path_of
    skipped = len(real) + 1 if real else 0
    prefix = f"{path.rstrip('/')}/" if path else ""
    return lambda node: path if node == start else prefix + path_of(node)[skipped:]


def print_entries(tree: Tree, nodes: Iterable[int]) -> None:
    """The TOC's entries of nodes, as a JSON list."""
    print_json_list(tree.entry_of(node).to_json() for node in nodes)


class LongLines:
    """Lines as `tar tv` prints them; the columns are wide enough for most layers."""

    def __init__(self, tree: Tree, *, human: bool = False, numeric: bool = False) -> None:
        self.tree = tree
        self.human = human
        self.numeric = numeric

    def line(self, node: int, label: str) -> str:
        """The line of a node."""
        engine = self.tree.engine
        _, size, mtime, mode, _, uid, gid, major, minor, _ = engine.attr(node)
        user, group = ("", "") if self.numeric else engine.owner(node)
        kind = engine.type(node)
        word = stat.filemode(mode)
        if kind in ("char", "block"):
            shown = f"{major},{minor}"
        else:
            shown = human_size(size) if self.human else str(size)
        if kind == "symlink":
            label += f" -> {engine.target(node)}"
        elif kind != "dir" and (first := self._linked_to(node)):
            word = "h" + word[1:]
            label += f" link to {first}"
        owner = f"{user or uid}/{group or gid}"
        return f"{word} {owner:<15} {shown:>10} {_minute(mtime)} {label}"

    def _linked_to(self, node: int) -> str:
        """What the entry of a hard link names; "" of what is none."""
        layer, row = self.tree.engine.entry(node)
        rows = self.tree.engine.tocs[layer] if row >= 0 else None
        return rows.link(row) if rows and rows.type(row) == "hardlink" else ""


@lru_cache(4096)
def _minute(mtime: int) -> str:
    from stargz.toc import format_time

    return format_time(mtime)[:-4].replace("T", " ")
