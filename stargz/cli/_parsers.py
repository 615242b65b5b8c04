"""All commands by their parsers: what completion, manual pages and the reference of the
documentation are made of."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from stargz.cli._commands import COMMANDS, command_parser, group_parser, top_parser
from stargz.cli._options import Parser


@dataclass(frozen=True, slots=True)
class Command:
    """One command, or group of commands; that of `stargz` itself has the name ""."""

    name: str  # "image convert"
    help: str
    parser: Parser
    commands: dict[str, str] | None = None  # of a group

    @property
    def actions(self) -> list[argparse.Action]:
        """The arguments and options that the help shows."""
        return [one for one in self.parser._actions if one.help is not argparse.SUPPRESS]

    def sections(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """The sections of the help: each argument or option as it is written, and its text."""
        formatter = self.parser._get_formatter()
        for group in self.parser._action_groups:
            shown = [one for one in group._group_actions if one.help is not argparse.SUPPRESS]
            rows = [(written(one), formatter._expand_help(one)) for one in shown]
            if rows:
                yield _TITLES.get(group.title or "", group.title or ""), rows


# As argparse calls them.
_TITLES = {"positional arguments": "arguments"}


def commands() -> Iterator[Command]:
    """`stargz` itself, then every command, each group before what is in it."""
    yield Command("", "", top_parser().complete(), COMMANDS)
    yield from _commands(COMMANDS)


def _commands(listed: dict[str, str], group: str = "") -> Iterator[Command]:
    for name, text in listed.items():
        module = import_module(f"stargz.cli.{group and group + '_'}{name}")
        full = f"{group} {name}".strip()
        inner = getattr(module, "COMMANDS", None)
        if inner is None:
            yield Command(full, text, command_parser(full, module).complete())
        else:
            yield Command(full, text, group_parser(full, module).complete(), inner)
            yield from _commands(inner, name)


def written(action: argparse.Action) -> str:
    """How an argument or option is typed: "-o, --output DST"."""
    value = action.metavar or (action.choices and f"{{{','.join(map(str, action.choices))}}}")
    if not action.option_strings:
        return str(value or action.dest)
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {value or action.dest.upper()}"
