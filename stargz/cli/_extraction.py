"""Options and results that `extract` and `image extract` share."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from stargz.cli._errors import FAILED, OK, UNVERIFIED, say
from stargz.cli._output import counted, size_text, warn
from stargz.cli._selection import add_selection_options, warn_nothing_left
from stargz.errors import printable, quoted

if TYPE_CHECKING:
    from stargz.cli._progress import Progress
    from stargz.extract import ExtractResult


# One of what `ExtractResult.others` counts.
_ONE = {
    "directories": "directory",
    "symlinks": "symlink",
    "hard links": "hard link",
    "special files": "special file",
}
_ONE_LEFT_OUT = {
    "device nodes": "device node",
    "set-uid and set-gid bits": "set-uid or set-gid bit",
    "xattrs outside of user.*": "xattr outside of user.*",
    "xattrs refused by the file system": "xattr refused by the file system",
}
_LESS = {"--exclude": "exclude", "--strip-components": "strip_components"}


def add_extract_options(parser: argparse.ArgumentParser) -> None:
    """PATH..., --exclude, -C, and what is written how."""
    add_selection_options(parser, "only these, and what they hold (default: all)")
    parser.add_argument(
        "-C",
        "--directory",
        metavar="DIR",
        default=".",
        help="where to (default: here); what is there already is replaced, directories are kept",
    )
    parser.add_argument(
        "--strip-components",
        type=_components,
        metavar="N",
        default=0,
        help="leave out the first N components of names, and entries that have no more",
    )
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="go on after entries that fail, and tell of them; the exit code is 3 if contents were "
        "damaged, else 1",
    )
    owner = parser.add_mutually_exclusive_group()
    owner.add_argument(
        "--same-owner",
        dest="same_owner",
        action="store_true",
        default=None,
        help="set owners (the default for root only)",
    )
    owner.add_argument(
        "--no-same-owner", dest="same_owner", action="store_false", help="never set owners"
    )
    parser.add_argument("--devices", action="store_true", help="make device nodes")
    parser.add_argument("--setid", action="store_true", help="keep set-uid and set-gid bits")
    parser.add_argument(
        "--xattrs",
        choices=("none", "user", "all"),
        default="user",
        help="which extended attributes (default: user)",
    )


def _components(text: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of components")
    return int(text)


def extract_options(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """The keywords that the options mean, beside those for reading (--threads)."""
    return {
        "members": args.paths or None,
        "exclude": args.exclude,
        "strip_components": args.strip_components,
        "keep_going": args.keep_going,
        "same_owner": args.same_owner,
        "devices": args.devices,
        "setid": args.setid,
        "xattrs": args.xattrs,
        "progress": None if args.verbose else progress.callback,
        "written": _print_name if args.verbose else None,
    }


def _print_name(name: str) -> None:
    """As `tar -v` does, but on stderr, where a result on stdout is not in its way."""
    if sys.stderr is not None:
        print(printable(name), file=sys.stderr)


def tell(args: argparse.Namespace, result: ExtractResult, src: str) -> int:
    """Say what failed or was left out, and unless with --json what was written; the exit code."""
    for pattern in result.unmatched:
        warn(args, f"{src}: nothing matches --exclude {quoted(pattern)}")
    less = [option for option, given in _LESS.items() if getattr(args, given)]
    if less and not (result.files or result.others or result.skipped or result.error_count):
        warn_nothing_left(args, src, *less)
    for error in result.errors:
        if error.path is not None:
            say(f"{error.path}: {error.message}")
            continue
        layer = "" if error.layer is None else f": layer {error.layer}"
        at = "" if error.offset is None else f" at offset {error.offset}"
        say(f"{src}{layer}{at}: {f'{error.name}: ' if error.name else ''}{error.message}")
    more = result.error_count - len(result.errors)
    if more:
        say(f"{src}: and {more:,} more that failed")
    if not args.json:
        for what, count in result.skipped.items():
            shown = _ONE_LEFT_OUT[what] if count == 1 else what
            warn(args, f"{src}: left out: {count:,} {shown}")
        if result.unverified:
            warn(args, f"{src}: {counted(result.unverified, 'file')} without a digest to check")
        if not args.quiet:
            failed = (
                f"; {counted(result.error_count, 'entry')} failed" if result.error_count else ""
            )
            written = [counted(result.files, "file"), size_text(result.bytes)]
            written += [counted(count, _ONE[what]) for what, count in result.others.items()]
            print(", ".join(written) + failed)
    if result.damaged:
        return UNVERIFIED
    return FAILED if result.error_count else OK
