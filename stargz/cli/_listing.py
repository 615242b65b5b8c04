"""What `ls` and `cat` print of a tree, of one layer or of an image."""

from __future__ import annotations

import argparse
import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stargz.cli import _stdout
from stargz.cli._errors import OK, CommandError
from stargz.cli._output import print_json, print_json_list, shown
from stargz.errors import EntryNotFoundError

if TYPE_CHECKING:
    from stargz.toc import Entry
    from stargz.tree import Tree

_PIECE = 1 << 20  # bytes: whole files are never held, however long they are


def add_ls_options(parser: argparse.ArgumentParser) -> None:
    """PATH, -l and -R."""
    parser.add_argument("path", metavar="PATH", nargs="?", default="", help="default: the root")
    parser.add_argument(
        "-l", dest="long", action="store_true", help="mode, owner, size, time and link target too"
    )
    parser.add_argument(
        "-R", "--recursive", action="store_true", help="everything below, as full paths"
    )


def add_cat_options(parser: argparse.ArgumentParser) -> None:
    """PATH, once or more."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file's name")


def list_tree(tree: Tree, args: argparse.Namespace, command: str = "ls") -> int:
    """Print what PATH has, as the options of `add_ls_options` and --json say."""
    with _found(args, command):
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


def cat_tree(tree: Tree, args: argparse.Namespace, command: str = "ls") -> int:
    """Write every PATH, one after the other; `command` is what lists such a SRC."""
    written = []
    # All are looked up first: a wrong name costs no output.
    names = []
    for path in args.paths:
        with _found(args, command, path):
            found = tree.stat(path)
        if found.is_dir():
            raise CommandError(f"{args.src}: {path!r} is a directory; 'stargz {command}' lists it")
        if not found.is_file():
            raise CommandError(f"{args.src}: {path!r} is of type {found.type} and has no content")
        names.append(found.path)
    out = _stdout.binary()
    for name in names:
        size = 0
        with tree.open(name) as file:
            while piece := file.read(_PIECE):
                out.write(piece)
                size += len(piece)
        written.append({"name": name, "size": size})
    if args.json:
        print_json(written, to_stderr=True)
    return OK


@contextmanager
def _found(args: argparse.Namespace, command: str, path: str | None = None) -> Iterator[None]:
    """Say what is not there in the words of the command line."""
    path = args.path if path is None else path
    try:
        yield
    except EntryNotFoundError as error:
        via = "" if error.looked_up == error.name else f" (looked up as {error.looked_up!r})"
        hint = f"'stargz {command} -R {args.src}' shows what there is"
        raise CommandError(f"{args.src}: no entry {path!r}{via}; {hint}") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise CommandError(f"{args.src}: {path!r}: {error.strerror}") from None


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
