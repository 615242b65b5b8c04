"""What `ls` prints of a tree, of one layer or of an image."""

from __future__ import annotations

import argparse
import stat
from typing import TYPE_CHECKING

from stargz.cli import _selection
from stargz.cli._errors import OK
from stargz.cli._output import print_json_list, shown

if TYPE_CHECKING:
    from stargz.toc import Entry
    from stargz.tree import Tree


def add_ls_options(parser: argparse.ArgumentParser) -> None:
    """PATH, -l and -R."""
    parser.add_argument("path", metavar="PATH", nargs="?", default="", help="default: the root")
    parser.add_argument(
        "-l", dest="long", action="store_true", help="mode, owner, size, time and link target too"
    )
    parser.add_argument(
        "-R", "--recursive", action="store_true", help="everything below, as full paths"
    )


def list_tree(tree: Tree, args: argparse.Namespace, command: str = "ls") -> int:
    """Print what PATH has, as the options of `add_ls_options` and --json say."""
    with _selection.found(args, command):
        found = tree.stat(args.path, follow=not args.long)
    is_dir = found.is_dir()
    if is_dir:
        entries = tree.entries(found.path, recursive=args.recursive)
    else:
        entries = iter([tree.entry(found.path)])
    if args.json:
        print_json_list(entry.to_json() for entry in entries)
        return OK
    prefix = f"{found.path}/" if is_dir and found.path and not args.recursive else ""
    for entry in entries:
        label = entry.name.removeprefix(prefix)
        print(_long(entry, label) if args.long else shown(label))
    return OK


def _long(entry: Entry, label: str) -> str:
    """One line as `tar tv` prints it; the columns are wide enough for most layers."""
    from stargz.toc import format_time

    mode = stat.filemode(entry.st_mode)
    owner = f"{entry.user_name or entry.uid}/{entry.group_name or entry.gid}"
    size = str(entry.size)
    if entry.type in ("char", "block"):
        size = f"{entry.dev_major},{entry.dev_minor}"
    time = format_time(entry.mtime)[:-4].replace("T", " ")  # to the minute
    if entry.type == "symlink":
        label += f" -> {entry.link_name}"
    elif entry.type == "hardlink":
        mode = "h" + mode[1:]
        label += f" link to {entry.link_name}"
    return shown(f"{mode} {owner:<15} {size:>10} {time} {label}")
