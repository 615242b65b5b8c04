"""docs/vocabulary.md: every option of a command beside the keyword of the library's function, from
the parsers and signatures themselves."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import stargz
from stargz.cli import COMMANDS
from stargz.oci.registry import options as registry_options

PAGE = Path(__file__).parent.parent / "docs/vocabulary.md"
NONE = "—"


@dataclass
class Row:
    """One line of a table: what pairs up, and why where one side has nothing."""

    options: list[str]
    keywords: list[str]
    why: str


@dataclass
class Section:
    """A heading with the table below it; one that names no commands is about all of them."""

    title: str
    commands: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def sections() -> list[Section]:
    found: list[Section] = []
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            left, _, right = line[3:].partition(":")
            commands = [name.removeprefix("stargz ") for name in spans(left)]
            found.append(Section(line[3:], commands, spans(right)))
        elif line.startswith("|") and not line.startswith(("| option |", "|---")):
            option, keyword, why = (cell.strip() for cell in line.strip("|").split("|"))
            found[-1].rows.append(Row(spans(option), spans(keyword), why))
            assert found[-1].rows[-1].options or option == NONE, line
            assert found[-1].rows[-1].keywords or keyword == NONE, line
    return found


SECTIONS = sections()
COMMON = [row for section in SECTIONS if not section.commands for row in section.rows]
OF_COMMAND = {name: section for section in SECTIONS for name in section.commands}


def commands() -> Iterator[str]:
    for name in COMMANDS:
        inner = getattr(importlib.import_module(f"stargz.cli.{name}"), "COMMANDS", None)
        yield from [name] if inner is None else [f"{name} {one}" for one in inner]


def options(command: str) -> list[argparse.Action]:
    """What the command's parser knows."""
    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    module = importlib.import_module(f"stargz.cli.{command.replace(' ', '_')}")
    module.add_arguments(parser)
    return [
        action
        for action in parser._actions
        if action.help is not argparse.SUPPRESS and "--help" not in action.option_strings
    ]


def labels(action: argparse.Action) -> set[str]:
    """The strings of an option, or what the help calls an argument."""
    return set(action.option_strings) or {str(action.metavar)}


def actions(command: str) -> list[set[str]]:
    return [labels(action) for action in options(command)]


def keywords(function: Callable[..., Any]) -> set[str]:
    """The parameters of a function, with those that a TypedDict stands for."""
    found = set()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            name = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation))
            assert name, f"{function}: **{parameter.name} says nothing of its keywords"
            found |= set(getattr(registry_options, name[1]).__annotations__)
        elif parameter.name != "self":
            found.add(parameter.name)
    return found


def functions(section: Section) -> Iterator[Callable[..., Any]]:
    for name in section.functions:
        value: Any = stargz
        for part in name.removeprefix("stargz.").split("."):
            value = getattr(value, part)
        yield value


def keywords_of(section: Section) -> set[str]:
    return set().union(*map(keywords, functions(section)))


def test_every_command_has_its_section() -> None:
    assert sorted(OF_COMMAND) == sorted(commands())


def test_what_pairs_with_nothing_says_why() -> None:
    for section in SECTIONS:
        for row in section.rows:
            assert row.options or row.keywords
            assert (row.options and row.keywords) or row.why, (section.title, row)


@pytest.mark.parametrize("command", list(commands()))
def test_every_option_has_its_keyword(command: str) -> None:
    section = OF_COMMAND[command]
    there = keywords_of(section)
    for names in actions(command):
        rows = [row for row in (*section.rows, *COMMON) if names & set(row.options)]
        assert rows, f"{command} {sorted(names)}: is in no table"
        fits = [row for row in rows if not row.keywords or set(row.keywords) & there]
        assert fits, f"{command} {sorted(names)}: {section.functions} have no {rows[0].keywords}"


@pytest.mark.parametrize("section", [s for s in SECTIONS if s.commands], ids=lambda s: s.title[:40])
def test_every_keyword_has_its_option(section: Section) -> None:
    options = set().union(*(names for command in section.commands for names in actions(command)))
    for keyword in sorted(keywords_of(section)):
        rows = [row for row in (*section.rows, *COMMON) if keyword in row.keywords]
        fits = [row for row in rows if not row.options or set(row.options) & options]
        assert fits, f"{section.functions}: {keyword}: {rows or 'is in no table'}"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.title[:40])
def test_tables_have_nothing_that_is_gone(section: Section) -> None:
    users = section.commands or list(commands())
    options = set().union(*(names for command in users for names in actions(command)))
    there = set().union(*(keywords_of(OF_COMMAND[command]) for command in users))
    for row in section.rows:
        assert set(row.options) <= options, set(row.options) - options
        assert set(row.keywords) <= there, set(row.keywords) - there


def test_pairs_have_one_name() -> None:
    """--chunk-size is chunk_size: an option that is called otherwise says so here."""
    other = {
        "--output", "--stdout", "--prioritize", "--ignore-file", "--mirror", "--allow-upload-host",
        "--cache-dir", "--cache-size", "--platform", "--report", "--directory", "--build-index",
    }  # fmt: skip
    for section in SECTIONS:
        for row in section.rows:
            for option in row.options:
                if option.startswith("--") and row.keywords and option not in other:
                    name = option.removeprefix("--").removeprefix("no-").replace("-", "_")
                    base = re.sub(r"_(a|b|base|new)$", "", name)
                    assert {name, base} & set(row.keywords), (option, row.keywords)


@pytest.mark.parametrize("command", list(commands()))
def test_defaults_are_the_commands_or_say_why_not(command: str) -> None:
    section = OF_COMMAND[command]
    parameters = [
        (function, one)
        for function in functions(section)
        for one in inspect.signature(function).parameters.values()
    ]
    for action in options(command):
        for row in (*section.rows, *COMMON):
            if not labels(action) & set(row.options) or row.why:
                continue
            negated = all(name.startswith("--no-") for name in action.option_strings)
            for function, one in parameters:
                if one.name in row.keywords and action.option_strings and not negated:
                    # None is the function's own default.
                    alike = action.default is None or (action.default or None) == (
                        one.default or None
                    )
                    assert alike, (function, one, action.default)
