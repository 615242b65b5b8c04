"""What a command writes a layer, a patch or an image to."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from typing import BinaryIO, cast

from stargz.cli import _stdout
from stargz.cli._errors import CommandError
from stargz.endpoints import is_same_file
from stargz.errors import UsageError


def add_destination(parser: argparse.ArgumentParser, help: str, name: str = "DST") -> None:
    """Where the result goes: the last argument, or -o. `name` is what the help calls it."""
    parser.add_argument("dst", metavar=name, nargs="?", help=help)
    parser.add_argument("-o", "--output", metavar=name, help=f"{name}, as an option")


def named(args: argparse.Namespace, name: str = "DST") -> str | None:
    """The destination, whichever way it was given; None if it was not."""
    if args.dst is not None and args.output is not None:
        raise UsageError(f"{name} is given twice: {args.dst}, and by --output; leave one out")
    args.dst = args.dst if args.output is None else args.output
    if args.dst is not None and is_stdout(args.dst):
        args.dst = "-"
    return cast("str | None", args.dst)


def is_stdout(path: str) -> bool:
    """Whether a path leads to standard output (/dev/stdout, or where the shell sends it), in which
    then nothing else may be written. In a device such as /dev/null nothing is mixed up."""
    try:
        found = os.fstat(sys.stdout.fileno())
        if stat.S_ISCHR(found.st_mode) and not sys.stdout.isatty():
            return False
        return os.path.samestat(found, os.stat(path))  # noqa: PTH116
    except (OSError, ValueError, AttributeError):
        return False


def needed(args: argparse.Namespace, name: str = "DST") -> str:
    """The same of a command that has no default for it."""
    dst = named(args, name)
    if dst is None:
        raise UsageError(
            f"{name} is needed, as the last argument or by --output; - is standard output"
        )
    return dst


def writable(
    dst: str, reads: Sequence[str], force: bool, name: str = "DST", note: str = ""
) -> str | BinaryIO:
    """What the result is written to, checked before any work starts: nothing that the command
    `reads` itself. `name` is what the command's help calls it; the `note` is of one that exists."""
    if dst == "-":
        if sys.stdout.isatty():
            raise UsageError(
                f"{name} is - and standard output is a terminal; redirect it or name {name}"
            )
        return _stdout.binary()
    try:
        found = os.stat(dst)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        from stargz.durable import check_place

        check_place(dst, name)
        return dst
    if stat.S_ISDIR(found.st_mode):
        raise CommandError(f"{dst}: is a directory; name the file to write ({name})")
    if not stat.S_ISREG(found.st_mode):
        return dst  # a pipe or a device: written to, never replaced
    for other in reads:
        if other != "-" and is_same_file(other, dst):
            raise CommandError(
                f"{dst}: is the same file as {other}, which is read; name another {name}"
            )
    if not force:
        raise CommandError(f"{dst}: already exists{note}; --force replaces it")
    return dst


def check_directory(path: str, option: str) -> None:
    """Before any work: CommandError unless `path` is a directory, or one can be below what is
    there; `option` is what names it."""
    there = os.path.abspath(path)  # noqa: PTH100
    missing = False
    while not os.path.lexists(there):
        there, missing = os.path.dirname(there), True  # noqa: PTH120
    if not os.path.isdir(there):  # noqa: PTH112
        what = f"{os.path.basename(there)} is" if missing else "is"  # noqa: PTH119
        raise CommandError(f"{path}: {what} no directory; give {option} one, or a new name")
