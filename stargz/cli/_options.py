"""Options that several commands share, and the parser that they are added to."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from stargz.cli._creds import add_creds
from stargz.errors import UsageError

if TYPE_CHECKING:
    from stargz.options import Level

LOG_LEVELS = ("debug", "info", "warning", "error")

# How the name of an image is written.
IMAGE = (
    "docker://HOST/REPO[:TAG][@DIGEST], oci:DIR[:REF], oci-archive:FILE[:REF], "
    "docker-archive:FILE[:REF] (FILE may be -, standard input) or storage:DIR//REPO[:TAG][@DIGEST]"
)

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


# What options call the names that they take.
_FILES = frozenset({"DIR", "DST", "FILE", "FILE|URL", "NEW", "PATCH", "PREVIOUS"})


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and whose help ends in an example."""

    def __init__(
        self,
        prog: str,
        description: str | None,
        example: str,
        usage: str | None = None,
        notes: str = "",
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog="example:\n  " + example.replace("\n", "\n  ") + (notes and f"\n\n{notes}"),
            formatter_class=_Formatter,
            allow_abbrev=False,
            add_help=False,
        )
        #: What the words become before they are parsed.
        self.rewrite: Callable[[list[str]], list[str]] | None = None

    def parse(self, arguments: list[str]) -> argparse.Namespace | None:
        """The options; None after printing the help, if that is what was asked for.

        (argparse's own way of printing it hides a full disk.)
        """
        self.complete()
        short = {"-h"} & set(self._option_string_actions["--help"].option_strings)
        until = arguments.index("--") if "--" in arguments else len(arguments)
        if arguments != ["-h"] and not {*short, "--help"} & set(arguments[:until]):
            level, words = self._gzip_level(self._joined(arguments[:until]))
            words += arguments[until:]
            args = self.parse_intermixed_args(self.rewrite(words) if self.rewrite else words)
            if level is not None:
                if args.level != level and any(w.split("=")[0] == "--level" for w in words):
                    self.error(f"-{level} and --level {args.level} contradict each other")
                args.level = level
            if not args.help:
                self._check_names(args)
                args.log_level = args.log_level or _log_level(args)
                args.prog = self.prog
                return args
        print(self.format_help())
        return None

    def complete(self) -> Parser:
        """Add what every command has in the end."""
        short = ["-h"] if "-h" not in self._option_string_actions else []  # `ls` has its own
        self.add_argument(*short, "--help", action="store_true", help="show this and stop")
        self.usage = self.usage or self._words()
        return self

    def _check_names(self, args: argparse.Namespace) -> None:
        """Refuse "" as the name of a file, which a shell makes of a variable that is not set. (As a
        PATH it is the root of a layer.)"""
        for action in self._actions:
            if action.option_strings:
                if action.metavar not in _FILES:
                    continue
            elif action.dest == "paths":
                continue
            given = getattr(args, action.dest, None)
            if given == "" or (isinstance(given, list) and "" in given):
                name = action.option_strings[-1] if action.option_strings else action.metavar
                self.error(f"{name} is '', which names nothing")

    def _words(self) -> str:
        """The usage: argparse's own has every option, which are listed below it anyway."""
        forms = {None: "{0}", "?": "[{0}]", "*": "[{0} ...]", "+": "{0} [{0} ...]"}
        named = (
            (action.metavar or action.dest, action) for action in self._get_positional_actions()
        )
        words = (forms[action.nargs].format(name) for name, action in named)  # type: ignore[index]
        return " ".join((self.prog, "[options]", *words))

    def _joined(self, words: list[str]) -> list[str]:
        """`--layer -1` as `--layer=-1`, so that it is not taken for an option -1."""
        known, joined = self._option_string_actions, [""]
        for word in words:
            before = joined[-1]
            takes_it = before in known and known[before].nargs is None
            if takes_it and re.fullmatch(r"-\d+", word):
                joined[-1] += ("=" if len(before) > 2 else "") + word
            else:
                joined.append(word)
        return joined[1:]

    def _gzip_level(self, words: list[str]) -> tuple[int | None, list[str]]:
        """-1 to -9 are levels, as of gzip, where there is --level, also among letters (-9f); and
        the words without them."""
        known = self._option_string_actions
        if "--level" not in known:
            return None, words
        levels, others = [], []
        for word in words:
            rest = word
            while found := re.fullmatch(r"-([a-zA-Z]*)([0-9]+)((?:[a-zA-Z].*)?)", rest, re.S):
                letters, digits, behind = found.groups()
                if any(f"-{c}" not in known or known[f"-{c}"].nargs != 0 for c in letters):
                    break  # the digits belong to a letter that takes a value
                if digits == "0" or len(digits) > 1:
                    self.error(f"-{digits} is no level: they are -1 to -9, or --level N")
                levels.append(int(digits))
                rest = f"-{letters}{behind}"
            if rest == word or rest != "-":
                others.append(rest)
        if len(set(levels)) > 1:
            self.error(f"-{levels[0]} and -{levels[-1]} contradict each other")
        return (levels[0] if levels else None), others

    def error(self, message: str) -> NoReturn:
        if found := re.fullmatch(
            r"argument -\w(?:/\S+)?: ignored explicit argument '(.).*'", message
        ):
            message = f"no option -{found[1]}"  # behind others, as in -lx
        elif found := re.fullmatch(r"unrecognized arguments: (-\w)", message):
            message = f"no option {found[1]}"  # so is that from Python 3.12 on
        elif found := re.fullmatch(r"unrecognized arguments: ([^-].*)", message, re.S):
            message = f"too many arguments: {found[1]}: {self.usage}"
        # An option that the command has not is quoted with its value.
        message = re.sub(r"(--[\w-]*cred[\w-]*[= ])\S+", r"\1***", message)
        raise UsageError(f"{message}; see '{self.prog} --help'")


def _log_level(args: argparse.Namespace) -> str:
    return "error" if args.quiet else "info" if args.verbose else "warning"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        # argparse would import shutil, and with it three compression modules, for this.
        try:
            columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
        except (ValueError, OSError):
            columns = 80
        super().__init__(prog, max_help_position=28, width=max(40, min(columns, 100) - 2))


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """-q, -v, --log-level and --json."""
    group = parser.add_argument_group("what is told")
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="no progress, no warnings, no word of what was done: data and errors alone",
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="say more, on stderr: --log-level info"
    )
    group.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        help="what is said on stderr; debug has every request (default: warning; error with -q)",
    )
    group.add_argument("--json", action="store_true", help="print the result as one JSON value")


def add_human_readable(parser: argparse.ArgumentParser) -> None:
    """-h, which is not of the help then."""
    parser.add_argument(
        "-h",
        "--human-readable",
        dest="human",
        action="store_true",
        help="sizes such as 1.1K and 23M: powers of 1024, rounded up",
    )


def add_threads(parser: argparse._ActionsContainer) -> None:
    """--threads."""
    parser.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="threads to use (default: one for each available core); never changes the output",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """--memory and --max-sparse."""
    parser.add_argument(
        "--memory",
        type=size,
        metavar="SIZE",
        help="memory that the window of a zstd frame may take (default: 512M, zstd --long=29)",
    )
    parser.add_argument(
        "--max-sparse",
        type=size,
        metavar="SIZE",
        help="bytes that the holes of a tar's sparse files may have together, which a layer stores "
        "as zeros (default: 8G)",
    )


def add_layer_options(
    parser: argparse.ArgumentParser,
    *,
    optional: bool = False,
    several: bool = False,
    build: bool = True,
) -> None:
    """SRC, which may be `optional`, and how far its TOC is trusted: for every command that reads
    a layer. With `several` the SRCs are `sources`, for `_several.each`. Without `build` the command
    makes no index."""
    parser.add_argument(
        "sources" if several else "src",
        metavar="SRC",
        nargs="+" if several else "?" if optional else None,
        help=f"the layer: a file, - for standard input, a URL, or an image with --layer: {IMAGE}",
    )
    group = parser.add_argument_group("how SRC is read")
    add_layer_number(group)
    group.add_argument(
        "--toc-digest",
        type=digest,
        metavar="sha256:HEX",
        help="refuse a TOC that has another digest (image manifests carry it as an annotation)",
    )
    _add_require_verified(group)
    group.add_argument(
        "--toc", metavar="FILE", help="a TOC that is kept apart from the layer (external TOC)"
    )
    group.add_argument(
        "--index",
        metavar="FILE|URL",
        help="the index of an ordinary tar.gz or tar, as 'stargz index' or SOCI makes them "
        "(default: SRC.index, or one that is made and kept)",
    )
    group.add_argument(
        "--index-digest",
        type=digest,
        metavar="sha256:HEX",
        help="refuse an index whose file has another digest; with it the index is trusted",
    )
    if build:
        _add_build_index(group)
    _add_reading(parser, group)


def add_layer_number(group: argparse._ActionsContainer) -> None:
    """--layer, of one SRC."""
    group.add_argument(
        "--layer",
        metavar="N|DIGEST",
        help="which layer of an image: counted from 1 for the lowest (-1: the topmost), or by the "
        "beginning of its digest",
    )


def _add_require_verified(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--require-verified",
        action="store_true",
        help="refuse to read what no trusted digest covers: an image's manifest has them, or an "
        "option gives one",
    )


def _add_build_index(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--build-index",
        action="store_true",
        help="read all of a remote tar.gz or tar once to make the index that it lacks, and keep it",
    )


def of_one_layer(args: argparse.Namespace, *more: str) -> str | None:
    """The first option, of those of `add_layer_options` that say something of one layer, and of
    `more`, that is given."""
    names = (*more, "toc", "toc_digest", "index", "index_digest")
    given = (name for name in names if getattr(args, name, None) is not None)
    return next((f"--{name.replace('_', '-')}" for name in given), None)


def add_two_layers_options(
    parser: argparse.ArgumentParser, first: str, second: str, *, indexed: bool = True
) -> None:
    """Two sources, and the options of `add_layer_options` for each: --toc-digest-a, ... Those for
    indexes only where ordinary tars are taken, too (`indexed`)."""
    sides = (first, second)
    for side in sides:
        parser.add_argument(
            side,
            metavar=side.upper(),
            help="a layer: a file, - for standard input, a URL, or an image (docker://..., oci:DIR "
            "...) with --layer",
        )
    group = parser.add_argument_group("how they are read")
    group.add_argument(
        "--layer",
        metavar="N|DIGEST",
        help="which layer of an image, of both if both are images: counted from 1 for the lowest "
        "(-1: the topmost), or by the beginning of its digest",
    )
    for side in sides:
        group.add_argument(
            f"--layer-{side}", metavar="N|DIGEST", help=f"the same of {side.upper()} alone"
        )
    for side in sides:
        group.add_argument(
            f"--toc-digest-{side}",
            type=digest,
            metavar="sha256:HEX",
            help=f"refuse a TOC of {side.upper()} that has another digest",
        )
    _add_require_verified(group)
    for side in sides:
        group.add_argument(
            f"--toc-{side}",
            metavar="FILE",
            help=f"the TOC of {side.upper()}, if it is kept apart from it (external TOC)",
        )
    for side in sides if indexed else ():
        group.add_argument(
            f"--index-{side}",
            metavar="FILE|URL",
            help=f"the index of {side.upper()}, if it is an ordinary tar.gz or tar",
        )
        group.add_argument(
            f"--index-digest-{side}",
            type=digest,
            metavar="sha256:HEX",
            help="refuse such an index whose file has another digest",
        )
    if indexed:
        _add_build_index(group)
    _add_reading(parser, group, sides)


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """SRC, and how it is read: for every command that reads a whole image."""
    parser.add_argument(
        "src",
        metavar="SRC",
        help=f"the image: {IMAGE}",
    )
    group = parser.add_argument_group("how SRC is read")
    _add_require_verified(group)
    _add_reading(parser, group)


def add_two_images_options(parser: argparse.ArgumentParser, first: str, second: str) -> None:
    """Two images, and how they are read: --platform-a, ..."""
    for side in (first, second):
        parser.add_argument(side, metavar=side.upper(), help=f"an image: {IMAGE}")
    group = parser.add_argument_group("how they are read")
    _add_require_verified(group)
    for side in (first, second):
        group.add_argument(
            f"--platform-{side}", metavar="OS/ARCH", help=f"--platform of {side.upper()} alone"
        )
    _add_reading(parser, group, (first, second))


def _add_reading(
    parser: argparse.ArgumentParser, group: argparse._ActionsContainer, sides: Sequence[str] = ()
) -> None:
    """What all commands that read layers or images have: of each of two `sides` an account."""
    group.add_argument(
        "--max-toc-size",
        type=size,
        metavar="SIZE",
        help="refuse a TOC of more JSON than this (default: 1G)",
    )
    add_threads(group)
    add_output_options(parser)
    creds = {f"--creds-{side}": side.upper() for side in sides} or {"--creds": "SRC"}
    _add_remote_options(parser, creds)


def _add_remote_options(parser: argparse.ArgumentParser, creds: Mapping[str, str]) -> None:
    """How sources that are not local are reached, and what is kept of them; `creds` are the options
    for accounts (`add_creds`)."""
    group = parser.add_argument_group("images, registries and other remote sources")
    add_platform(group)
    add_registry_options(group)
    add_creds(group, creds)
    add_cache_dir(group)
    group.add_argument(
        "--cache-size",
        type=size,
        metavar="SIZE",
        help="how large that may become (default: 10G)",
    )
    group.add_argument(
        "--no-cache", action="store_true", help="keep nothing on disk, also no index of a local SRC"
    )


def add_platform(group: argparse._ActionsContainer) -> None:
    """--platform, of what is read."""
    group.add_argument(
        "--platform",
        metavar="OS/ARCH",
        help="of an image for several (default: Linux on this machine's architecture)",
    )


def add_cache_dir(group: argparse._ActionsContainer) -> None:
    """--cache-dir."""
    group.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="the disk cache, where what is fetched is kept (default: the user's)",
    )


def add_registry_options(group: argparse._ArgumentGroup, patience: str = "2m") -> None:
    """How registries are reached; `patience` is the default of --patience."""
    group.add_argument(
        "--authfile",
        metavar="FILE",
        help="credentials for registries (default: the files of podman and docker)",
    )
    group.add_argument(
        "--ca-file",
        metavar="FILE",
        help="trust these certificate authorities (PEM) alone; loopback registries that speak TLS "
        "are then spoken to so",
    )
    group.add_argument(
        "--plain-http",
        action="store_true",
        help="speak http to registries (loopback ones are spoken to so without it)",
    )
    group.add_argument(
        "--mirror",
        type=mirror,
        action="append",
        default=[],
        metavar="HOST=URL",
        help="try this first for images of the registry HOST (repeatable)",
    )
    group.add_argument(
        "--patience",
        type=duration,
        default=patience,
        metavar="TIME",
        help="how long a registry may refuse because it is asked too often (429, 503), such as "
        f"90s, 15m or 2h (default: {patience})",
    )


def duration(text: str) -> float:
    """Seconds of '90', '90s', '15m' or '2h'."""
    found = re.fullmatch(r"(\d{1,9})([smh]?)", text.strip().lower())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 15m or 2h")
    return float(int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]])


def mirror(text: str) -> tuple[str, str]:
    """A registry and the host or URL to try before it."""
    host, equals, url = text.partition("=")
    if not equals or not host or not url:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST=URL")
    return host, url


def size(text: str) -> int:
    """Bytes of '4M', '64K', '1MiB' or '4096'; units are powers of 1024."""
    found = re.fullmatch(r"(\d{1,18})([kmgt]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 4M, 64K or 4096")
    return int(found[1]) * UNITS[found[2]]


def count(text: str) -> int:
    """A number of threads."""
    from stargz.options import THREADS

    if not re.fullmatch(r"\d{1,4}", text) or int(text) not in THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")
    return int(text)


def directories(text: str) -> int:
    """A number of directories."""
    if not re.fullmatch(r"\d{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of directories")
    return int(text)


def level(text: str) -> Level:
    """A compression level, or what takes its place."""
    from stargz.options import ZSTD_LEVELS

    if text == "reuse":
        return "reuse"
    if not re.fullmatch(r"\d{1,2}", text) or int(text) not in ZSTD_LEVELS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a level, from 1 to 12 and of zstd to 19, nor reuse"
        )
    return int(text)


def digest(text: str) -> str:
    """A sha256 digest as manifests write it."""
    from stargz.digests import is_sha256

    if not is_sha256(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not sha256: and 64 lower-case hex digits")
    return text
