"""What `--help` says, over all commands: the same option in the same words, and examples that the
command takes. What looks wrong here is mended in the parsers, without taking away a spelling."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections import defaultdict

import pytest

from stargz.cli import _options
from stargz.cli._commands import command_parser
from stargz.cli._parsers import Command, commands, written

COMMANDS = list(commands())
EVERY = pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name or "stargz")

# One option, more than one meaning: as of the tools that a command is like, or as said.
DIFFERENT = {
    "--all": "ls, du and tree have their own, and so has info",
    "--directory": "where to, of extract; as of ls and of tree",
    "--exclude": "paths of layers; images, of image bulk",
    "--format": "of a layer; of an index",
    "--index": "the index to read by; of image bulk what is to be made",
    "--keep": "as of gzip; where demo leaves its files",
    "--layer": "of one SRC; of two",
    "--report": "of bulk what became of each image; of bench the page",
    "--threads": "of bench on how many processors the other programs run, too",
    "--size": "as of tree; what cache prune leaves",
    "--verify": "members, before they are written; an image, afterwards",
    "--force": "what is replaced differs",
    "--platform": "of what is read, one; of what is made, some",
    "--help": "ls, du and tree have another -h",
    "--level": "pack reads no gzip whose matches could be used again, and writes no zstd",
}
# What a value is called says how it is written.
METAVARS = {
    _options.size: {"SIZE"},
    _options.count: {"N"},
    _options.digest: {"sha256:HEX"},
    _options.duration: {"TIME"},
    _options.mirror: {"HOST=URL"},
}
PLACES = {"DIR", "DST", "FILE", "FILE|URL", "NEW", "PATCH", "PREVIOUS", "PATH"}


def texts(command: Command) -> dict[argparse.Action, str]:
    formatter = command.parser._get_formatter()
    return {action: formatter._expand_help(action) for action in command.actions}


def plain(text: str, command: Command) -> str:
    """A help without what has to differ: the default, and what the command calls its arguments."""
    text = re.sub(r" *\([^()]*default: [^()]*\)", "", text)
    names = [str(action.metavar) for action in command.actions if not action.option_strings]
    return re.sub(rf"\b({'|'.join((*names, 'SRC', 'FILE'))})\b", "X", text)


def test_an_option_is_the_same_in_every_command() -> None:
    told: dict[str, dict[tuple[str, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for command in COMMANDS:
        for action, text in texts(command).items():
            for option in action.option_strings:
                if option.startswith("--"):
                    value = "X" if option == "--output" else written(action)
                    words = value, plain(text, command)
                    told[option][words].append(command.name)
    several = {option: dict(words) for option, words in told.items() if len(words) > 1}
    assert {o: w for o, w in several.items() if o not in DIFFERENT} == {}
    assert set(DIFFERENT) <= set(several), "these do not differ any more"


def test_a_letter_is_one_option_but_where_tools_differ() -> None:
    """As of ls, du, tree, find and gzip, whose users know them."""
    alike = {"ls", "du", "tree", "find"}
    told: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for command in COMMANDS:
        if command.name.split()[-1:] and command.name.split()[-1] not in alike:
            for action in command.actions:
                longs = tuple(o for o in action.option_strings if o.startswith("--"))
                for option in action.option_strings:
                    if not option.startswith("--"):
                        told[option].add(longs)
    assert {letter: longs for letter, longs in told.items() if len(longs) > 1} == {}


def test_names_of_options() -> None:
    """Lower case with dashes, and one long spelling for each: those of `ls -A` are ls's own."""
    for command in COMMANDS:
        for action in command.actions:
            longs = [option for option in action.option_strings if option.startswith("--")]
            assert all(re.fullmatch(r"--[a-z]+(-[a-z]+)*", option) for option in longs), longs
            assert len(longs) <= 1 or longs == ["--all", "--almost-all"], longs


@EVERY
def test_what_values_are_called(command: Command) -> None:
    for action, text in texts(command).items():
        if action.option_strings and action.nargs is None:
            name = action.metavar
            wanted = METAVARS.get(action.type)  # type: ignore[arg-type]
            assert name is None or isinstance(name, str)
            assert wanted is None or name in wanted, written(action)
            assert name or action.choices, written(action)
            if re.search(r"-(dir|file|from|out)$", action.option_strings[-1]):
                assert name in PLACES, written(action)
            if isinstance(action, argparse._AppendAction) and action.option_strings[0][:2] == "--":
                assert "repeatable" in text, written(action)
            if action.default not in (None, [], "", 0) and "SIZE" in str(name):
                assert "default: " in text, written(action)


@EVERY
def test_words_of_the_help(command: Command) -> None:
    for action, text in texts(command).items():
        assert text and not text.endswith((".", " ")) and "  " not in text, written(action)
        first = text.split()[0]
        assert first[0].islower() or not first.isalpha() or first.isupper(), written(action)
        if "default:" in text:
            assert re.search(r"\(([^()]*; )?default: ", text), text
    if command.name:
        assert command.help[0].islower() and not re.search(r"[^.][.]$", command.help), command.name
        assert len(command.help) <= 80
    description = command.parser.description or ""
    first = description.split("\n\n")[0]
    assert first[0].isupper() and first.endswith("."), first
    assert max(map(len, description.splitlines())) <= 100


def fresh(name: str) -> _options.Parser:
    """A parser that has parsed nothing."""
    return command_parser(name, importlib.import_module(f"stargz.cli.{name.replace(' ', '_')}"))


def examples(command: Command) -> list[list[str]]:
    """The words behind `stargz` of each line's commands."""
    shown = (command.parser.epilog or "").partition("example:\n")[2].partition("\n\n")[0]
    found = []
    for line in shown.splitlines():
        words = shlex.split(line)
        for begin in (at + 1 for at, word in enumerate(words) if word == "stargz"):
            if "xargs" in words[:begin]:
                continue  # which adds words
            ends = (at for at, word in enumerate(words) if word in ("|", ">") and at > begin)
            found.append(words[begin : next(ends, len(words))])
    return found


@EVERY
def test_there_is_an_example_that_the_command_takes(command: Command) -> None:
    names = {one.name for one in COMMANDS if one.commands is None}
    shown = []
    for words in examples(command):
        depth = 1 if words[0] in names else 2
        shown.append(" ".join(words[:depth]))
        assert fresh(shown[-1]).parse(words[depth:]) is not None, words
    inner = command.name if command.commands is None else f"{command.name} ".lstrip()
    assert any(name.startswith(inner) for name in shown), shown
