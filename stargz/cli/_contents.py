"""What `cat` writes of a tree, of one layer or of an image."""

from __future__ import annotations

import argparse
import collections
from typing import TYPE_CHECKING

from stargz.cli import _selection, _stdout
from stargz.cli._errors import OK, CommandError
from stargz.cli._output import print_json, warn
from stargz.errors import quoted

if TYPE_CHECKING:
    from stargz.paths import Match
    from stargz.tree import Tree

_PIECE = 1 << 20  # bytes: whole files are never held, however long they are

# What is left out of a pattern's matches, in words.
_OTHERS = {
    "dir": ("directory", "directories"),
    "symlink": ("symlink that leads nowhere", "symlinks that lead nowhere"),
    "char": ("character device", "character devices"),
    "block": ("block device", "block devices"),
    "fifo": ("named pipe", "named pipes"),
}


def cat_tree(tree: Tree, args: argparse.Namespace) -> int:
    """Write every PATH, one after the other."""
    # All are looked up first: a wrong name costs no output.
    nodes = _files(tree, args)
    out = _stdout.binary()
    written = []
    for node in nodes:
        size = 0
        layer, row = tree.engine.row(node)
        name = tree.engine.path(node)
        with tree.layers[layer].open_row(row, name) as file:
            while piece := file.read(_PIECE):
                out.write(piece)
                size += len(piece)
        written.append({"name": name, "size": size})
    if args.json:
        print_json(written, to_stderr=True)
    return OK


def _files(tree: Tree, args: argparse.Namespace) -> list[int]:
    """The nodes of the files that are chosen. A pattern's other matches are left out; what was
    named has to be a file."""
    chosen = _selection.select(tree.engine, args)
    nodes = []
    others: collections.Counter[str] = collections.Counter()
    for match in chosen.matches:
        node, kind = _target(tree, match, args)
        if kind == "reg":
            nodes.append(node)
        elif match.by_pattern:
            others[kind] += 1
        elif kind == "dir":
            lister = _selection.lister(args)
            raise CommandError(
                f"{args.src}: {quoted(match.path)} is a directory; 'stargz {lister}' lists it"
            )
        else:
            raise CommandError(
                f"{args.src}: {quoted(match.path)} is of type {kind} and has no content"
            )
    if others:
        words = ", ".join(f"{n:,} {_OTHERS[kind][n > 1]}" for kind, n in sorted(others.items()))
        if not nodes:
            raise CommandError(f"{args.src}: only {words} there: nothing has content")
        warn(args, f"{args.src}: left out: {words}")
    return nodes


def _target(tree: Tree, match: Match, args: argparse.Namespace) -> tuple[int, str]:
    """The node that a match leads to, and its type."""
    kind = tree.engine.type(match.node)
    if kind != "symlink":
        return match.node, kind
    try:
        with _selection.found(args):
            node = tree.node(tree.engine.path(match.node))
    except (CommandError, OSError):
        if not match.by_pattern:
            raise
        return match.node, kind
    return node, tree.engine.type(node)
