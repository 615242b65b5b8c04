"""The command line: one small module per command, imported when its command is used.

A command's module has `HELP` (one line), `EXAMPLE`, `add_arguments(parser)` and
`run(args)`, which returns the exit code. A module with `COMMANDS` instead is a group: its
command `image ls` is in `image_ls.py`. Only the standard library's small modules are
imported up to the point where a command does its work, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stargz.cli._commands import COMMANDS, command_parser, group_parser, top_parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["COMMANDS", "main"]


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
    args = command_parser(name, module).parse(rest)
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


def _group(name: str, module: ModuleType, arguments: list[str], given: str) -> int:
    parser = group_parser(name, module)
    if given and not given.startswith("-"):
        parser.error(f"no command {name + ' ' + given!r}")
    if parser.parse(arguments):
        parser.error("a command is needed")
    return 0


def _top_level(arguments: list[str]) -> int:
    parser = top_parser()
    args = parser.parse(arguments)
    if args and args.print_completion:
        from stargz.cli._completion import script

        print(script(args.print_completion))
        return 0
    if args and not args.version:
        parser.error("a command is needed")
    if args:
        from stargz import __version__

        print(f"stargz {__version__}")
    return 0
