"""List a layer's files.

A directory lists what it holds, anything else itself. Times are UTC."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stargz.cli import _options
from stargz.cli._errors import OK
from stargz.cli._layers import open_layer, resolve
from stargz.cli._output import print_json_list, shown

if TYPE_CHECKING:
    from stargz.layer import Layer
    from stargz.toc import Entry

EXAMPLE = """\
stargz ls -l layer.stargz usr/bin
stargz ls -R layer.stargz | grep python"""

_TYPE_BITS = {
    "dir": stat.S_IFDIR,
    "reg": stat.S_IFREG,
    "symlink": stat.S_IFLNK,
    "hardlink": stat.S_IFREG,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz ls`."""
    _options.add_layer_options(parser)
    parser.add_argument("path", metavar="PATH", nargs="?", default="", help="default: the root")
    parser.add_argument(
        "-l", dest="long", action="store_true", help="mode, owner, size, time and link target too"
    )
    parser.add_argument(
        "-R", "--recursive", action="store_true", help="everything below, as full paths"
    )


def run(args: argparse.Namespace) -> int:
    """List PATH of SRC."""
    with open_layer(args) as layer:
        directory = resolve(layer, args.path, args.src, follow_last=not args.long)
        listed = _listed(layer, directory, args.recursive)
        if args.json:
            print_json_list(layer.entry(name).to_json() for name in listed)
            return OK
        prefix = ""
        if not args.recursive and directory and layer.isdir(directory):
            prefix = directory + "/"
        for name in listed:
            label = name.removeprefix(prefix)
            print(_long(layer.entry(name), label) if args.long else shown(label))
    return OK


def _listed(layer: Layer, directory: str, recursive: bool) -> Iterator[str]:
    """Full names below `directory` in order, or `directory` itself where it is none."""
    if not layer.isdir(directory):
        yield directory
        return
    pending = _children(layer, directory)[::-1]
    while pending:
        name = pending.pop()
        yield name
        if recursive and layer.isdir(name):
            pending.extend(_children(layer, name)[::-1])


def _children(layer: Layer, directory: str) -> list[str]:
    prefix = f"{directory}/" if directory else ""
    return [prefix + name for name in layer.listdir(directory)]


def _long(entry: Entry, label: str) -> str:
    """One line as `tar tv` prints it; the columns are wide enough for most layers."""
    from stargz.toc import format_time

    mode = stat.filemode(_TYPE_BITS[entry.type] | (entry.mode & 0o7777))
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
