"""The reference of the commands: a page for each, made of its parser."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stargz.cli._parsers import Command
from stargz.cli._parsers import commands as all_commands

FOLDER = "commands"


def pages() -> Iterator[tuple[str, str]]:
    """The name and text of each page."""
    listed = list(all_commands())
    yield "index.md", "\n".join(_index(listed)) + "\n"
    for command in listed[1:]:
        yield f"{_file(command)}.md", "\n".join(_page(command)) + "\n"


def _file(command: Command) -> str:
    """As the manual page is called, which `index` keeps from being the index."""
    return "-".join(["stargz", *command.name.split()])


def _index(listed: list[Command]) -> Iterator[str]:
    top, *others = listed
    yield from ("# Commands", "", "| command | |", "|---|---|")
    for command in others:
        yield f"| [stargz {command.name}]({_file(command)}.md) | {plain(command.help)} |"
    yield ""
    yield from _options(top)
    yield from ("```{toctree}", ":hidden:", "", *map(_file, others), "```")


def _page(command: Command) -> Iterator[str]:
    about, _, listing = (command.parser.description or "").partition("\n\ncommands:\n")
    yield from (f"# stargz {command.name}", "", "```text", str(command.parser.usage), "```", "")
    yield from (plain(about), "")
    if listing:
        yield from ("| command | |", "|---|---|")
        for name, text in (command.commands or {}).items():
            link = f"[stargz {command.name} {name}]({_file(command)}-{name}.md)"
            yield f"| {link} | {plain(text)} |"
        yield ""
    yield from _options(command)
    examples = (command.parser.epilog or "").removeprefix("example:\n").partition("\n\n")[0]
    yield from ("## Examples", "", "```sh", re.sub("^  ", "", examples, flags=re.M), "```")


def _options(command: Command) -> Iterator[str]:
    for title, rows in command.sections():
        yield from (f"## {title[0].upper()}{title[1:]}", "")
        for words, text in rows:
            yield from (f"`` {words} ``", f": {plain(text)}", "")


def plain(text: str) -> str:
    """Text that is no Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|$~^])", r"\\\1", text)
