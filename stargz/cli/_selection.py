"""PATH... and --exclude: what they are on the command line, and what they choose."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from stargz.cli._errors import CommandError
from stargz.cli._kinds import of_images
from stargz.cli._output import warn
from stargz.errors import EntryNotFoundError, quoted

if TYPE_CHECKING:
    from stargz._engine import toc as _toc
    from stargz.paths import Match, Selection

_NOTES = """

patterns:
  * and ? are any text and any character of a name, [a-z] one of some; ** is any
  number of directories, and at the end all in them. Quote them for the shell.
  A PATH that is so called is no pattern. Symlinked directories are followed,
  but not by **. A PATTERN to exclude that has no / is of names in any directory."""


def add_selection_options(
    parser: argparse.ArgumentParser,
    help: str,
    *,
    nargs: Literal["*", "+"] = "*",
) -> None:
    """PATH, any number of times or at least once, and --exclude; `help` says what PATH is."""
    # (Without the default argparse would say that PATH is missing.)
    default: list[str] | None = [] if nargs == "*" else None
    parser.add_argument("paths", metavar="PATH", nargs=nargs, default=default, help=help)
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out what this matches, and all below it (repeatable)",
    )
    parser.epilog = f"{parser.epilog or ''}{_NOTES}"


def select(engine: _toc.Tree, args: argparse.Namespace) -> Selection:
    """What the options of `add_selection_options` choose; the root where there is no PATH."""
    from stargz import paths

    with found(args):
        selection = paths.select(engine, args.paths or [""], args.exclude, args.src)
    for pattern in selection.unmatched:
        warn(args, f"{args.src}: nothing matches --exclude {quoted(pattern)}")
    if not selection.matches:  # all were found
        warn_nothing_left(args, args.src, "--exclude")
    return selection


def warn_nothing_left(args: argparse.Namespace, src: str, *options: str) -> None:
    """Say that the options left out all that was asked for."""
    leave = "leaves" if len(options) == 1 else "leave"
    warn(args, f"{src}: nothing is left: {' and '.join(options)} {leave} all of it out")


@contextmanager
def found(args: argparse.Namespace) -> Iterator[None]:
    """Say what is not there in the words of the command line."""
    try:
        yield
    except EntryNotFoundError as error:
        words = "no entry matches" if error.pattern else "no entry"
        via = "" if error.looked_up == error.name else f" (looked up as {quoted(error.looked_up)})"
        where = error.source if getattr(args, "all_platforms", False) else args.src
        hint = f"; '{_listing(args)}' shows what there is" if error.listed else ""
        raise CommandError(f"{where}: {words} {quoted(error.name)}{via}{hint}") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise CommandError(f"{error.filename}: {error.strerror}") from None


def lister(args: argparse.Namespace) -> str:
    """The command that lists such a SRC."""
    return "image ls" if of_images(args) else "ls"


def _listing(args: argparse.Namespace) -> str:
    """The command that lists SRC."""
    import shlex

    words = ["stargz", *lister(args).split(), "-R", args.src]
    for option in ("platform", "layer"):
        if (given := getattr(args, option, None)) is not None:
            words += [f"--{option}", str(given)]
    return shlex.join(words)


def followed(engine: _toc.Tree, match: Match) -> int:
    """The node that a match leads to; of a symlink that leads nowhere its own."""
    from stargz import paths

    try:
        return paths.find(engine, engine.path(match.node))
    except (KeyError, OSError):
        return match.node
