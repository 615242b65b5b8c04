"""Manual pages, made of the parsers: `python -m stargz.cli._man DIR` writes one for each command.

The build does that, and installs them; `man stargz`, `man stargz convert` show them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from stargz.cli._parsers import Command, commands

_SECTION = 1


def pages(version: str) -> Iterator[tuple[str, str]]:
    """The name of each page's file, and the page."""
    listed = list(commands())
    for command in listed:
        yield f"{_name(command.name)}.{_SECTION}", "\n".join(_page(command, version)) + "\n"


def _name(command: str) -> str:
    """ "stargz-image-convert", as git calls such pages."""
    return "-".join(["stargz", *command.split()])


def _page(command: Command, version: str) -> Iterator[str]:
    name, parser = _name(command.name), command.parser
    about, _, listing = (parser.description or "").partition("\n\ncommands:\n")
    summary = command.help or about.split("\n\n")[0].rstrip(".")
    yield f'.TH "{name.upper()}" {_SECTION} "" "stargz {version}" "stargz manual"'
    yield from (".SH NAME", rf"{_text(name)} \- {_text(summary)}")
    yield from (".SH SYNOPSIS", rf"\fB{_text(parser.prog)}\fR{_text(_operands(command))}")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(about)
    if listing:
        yield ".SH COMMANDS"
        for inner, text in (command.commands or {}).items():
            page = _name(f"{command.name} {inner}".strip())
            yield from (".TP", rf"\fB{_text(page)}\fR({_SECTION})", _text(text))
    for title, rows in command.sections():
        yield f".SH {title.upper()}"
        for words, text in rows:
            yield from (".TP", rf"\fB{_text(words)}\fR", _text(text))
    examples, _, notes = (parser.epilog or "").removeprefix("example:\n").partition("\n\n")
    yield from (".SH EXAMPLES", ".nf", *map(_text, examples.splitlines()), ".fi")
    if notes:
        yield from (".SH NOTES", ".nf", *map(_text, notes.splitlines()), ".fi")
    group = command.name.rpartition(" ")[0]
    if command.name:
        yield from (".SH SEE ALSO", rf"\fB{_text(_name(group))}\fR({_SECTION})")


def _operands(command: Command) -> str:
    usage = command.parser.usage or ""
    return usage.removeprefix(command.parser.prog)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from (".PP", _text(" ".join(paragraph.split())))


def _text(text: str) -> str:
    """Words that roff prints as they are: dashes as one types them, no line a request."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return re.sub(r"^(?=[.])", r"\&", escaped.replace("`", r"\(ga"))


def main(arguments: list[str]) -> int:
    """Write all pages into a directory."""
    from stargz import __version__

    (directory,) = arguments
    for name, page in pages(__version__):
        (Path(directory) / name).write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
