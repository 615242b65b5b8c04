"""The command line: one small module per command, imported when its command is used.

A command's module has `HELP` (one line), `EXAMPLE`, `add_arguments(parser)` and
`run(args)`, which returns the exit code. A module with `COMMANDS` instead is a group: its
command `image ls` is in `image_ls.py`. Only the standard library's small modules are
imported up to the point where a command does its work, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

# The one place that lists the commands; the help line stands here so that `stargz --help`
# imports none of their modules.
COMMANDS = {
    "convert": "make a seekable layer from a tar, tar.gz or tar.zst",
    "pack": "make a seekable layer of a directory; with --base at the cost of what changed",
    "index": "make the index by which an ordinary tar.gz or tar is read where it is",
    "info": "kind, sizes, counts and digests of a layer",
    "ls": "list a layer's files",
    "find": "list the files that pass tests: -name '*.so' -size +1M ...",
    "du": "bytes of the files below a layer's directories",
    "tree": "draw a layer's directories as a tree",
    "cat": "write files' contents to standard output, reading only what they need",
    "extract": "unpack a layer or some of its paths, safely and in parallel",
    "verify": "check every member, chunk and file of a layer, and its TOC",
    "toc": "write a layer's TOC (JSON) to standard output, byte for byte",
    "diff": "what differs between two layers, and how much there is to send",
    "delta": "make a patch: what one layer needs to become another",
    "apply": "make a layer of another one and a patch",
    "image": "convert, index, bulk, info, ls, find, du, tree, cat, extract, diff of images",
    "mount": "mount a layer or an image, read-only",
    "cache": "info, prune: the disk cache of what was fetched",
    "demo": "convert, verify and read a real layer made on this machine",
}

_EXIT_CODES = """\
exit codes:
  0 done, 1 failed, 2 wrong usage, 3 verification failed, 130 interrupted

STARGZ_DEBUG=1 in the environment adds Python's traceback to an error.
'stargz COMMAND --help' has the options and an example of each command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (interface: `stargz COMMAND`)."""
    from stargz.cli import _errors

    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt as error:  # at the very edge of what is done about it
        return _errors.report(error)


def _run(arguments: list[str]) -> int:
    from stargz.cli import _errors, _signals, _stdout

    with _signals.raising() as seen:
        try:
            _stdout.prepare()
            code = _dispatch(arguments)
            sys.stdout.flush()
            return code
        except BaseException as caught:
            error = _signals.Signalled(seen[0]) if seen else caught
            code = _errors.report(error)
            _stdout.finish(discard=isinstance(error, KeyboardInterrupt))
            if code == _errors.STDOUT_CLOSED:
                _signals.die_of_sigpipe()
            return code


def _dispatch(arguments: list[str]) -> int:
    from stargz.cli._options import Parser
    from stargz.errors import UsageError

    first = _skip_common(arguments)
    name = arguments[first] if first < len(arguments) else ""
    if name not in COMMANDS:
        if name and not name.startswith("-"):
            raise UsageError(f"no command {name!r}; 'stargz --help' lists the commands")
        return _top_level(arguments)
    from importlib import import_module

    module = import_module(f"stargz.cli.{name}")
    rest = arguments[:first] + arguments[first + 1 :]
    if hasattr(module, "COMMANDS"):
        first = _skip_common(rest, first)
        inner = rest[first] if first < len(rest) else ""
        if inner not in module.COMMANDS:
            return _group(name, module, rest, inner)
        del rest[first]
        module = import_module(f"stargz.cli.{name}_{inner}")
        name = f"{name} {inner}"
    parser = Parser(prog=f"stargz {name}", description=module.__doc__, example=module.EXAMPLE)
    module.add_arguments(parser)
    args = parser.parse(rest)
    if args is None:
        return 0
    if args.log_level == "debug":
        from stargz.cli._logs import relay

        relay(args)
    try:
        code: int = module.run(args)
    finally:
        logs = sys.modules.get("stargz.cli._logs")
        if logs is not None:
            logs.end()
    return code


_COMMON_FLAGS = frozenset(("-q", "--quiet", "-v", "--verbose", "--json"))


def _skip_common(arguments: list[str], first: int = 0) -> int:
    """Past the options that every command knows, which may stand before its name too."""
    while first < len(arguments):
        word = arguments[first]
        if word == "--log-level":
            first += 1
        elif word not in _COMMON_FLAGS and not word.startswith("--log-level="):
            break
        first += 1
    return min(first, len(arguments))


def _listing(commands: dict[str, str]) -> str:
    width = max(map(len, commands))
    return "\n".join(f"  {name:{width}}  {text}" for name, text in commands.items())


def _group(name: str, module: ModuleType, arguments: list[str], given: str) -> int:
    from stargz.cli._options import Parser, add_output_options

    parser = Parser(
        prog=f"stargz {name}",
        usage=f"stargz {name} COMMAND [options] ...",
        description=f"{module.__doc__}\n\ncommands:\n{_listing(module.COMMANDS)}",
        example=module.EXAMPLE,
    )
    add_output_options(parser)
    if given and not given.startswith("-"):
        parser.error(f"no command {name + ' ' + given!r}")
    if parser.parse(arguments):
        parser.error("a command is needed")
    return 0


def _top_level(arguments: list[str]) -> int:
    from stargz.cli._options import Parser, add_output_options

    listing = _listing(COMMANDS)
    parser = Parser(
        prog="stargz",
        usage="stargz COMMAND [options] ...",
        description="Make compressed container layers seekable, and read, verify and extract "
        f"them.\n\ncommands:\n{listing}",
        example="stargz convert layer.tar.gz",
        notes=_EXIT_CODES,
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    parser.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "fish"),
        metavar="SHELL",
        help="print what bash, zsh or fish needs to complete commands and options, and stop: "
        'eval "$(stargz --print-completion bash)"',
    )
    add_output_options(parser)
    args = parser.parse(arguments)
    if args and args.print_completion:
        from stargz.cli._completion import script

        print(script(args.print_completion, COMMANDS))
        return 0
    if args and not args.version:
        parser.error("a command is needed")
    if args:
        from stargz import __version__

        print(f"stargz {__version__}")
    return 0
