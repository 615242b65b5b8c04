"""No example of the pages escapes: what is not run is counted, and uses commands that are there."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator

import examples
from examples import PAGES, ROOT, Block

from stargz.cli._parsers import commands

# Blocks that no test runs, by why. One more is to be wanted: raise the number.
NOT_RUN = {
    "demo": 1,  # these two .ci/run runs
    "test": 1,
    "there is no such host": 2,
    "needs a proxy": 1,
    "needs a scheduler": 1,
    "needs an account": 2,
    "needs containerd": 1,
    "needs cosign, and a key": 1,
    "needs cron": 1,
    "needs docker": 2,
    "needs the right to mount": 1,
}
BLOCKS = [block for page in PAGES for block in examples.blocks(page)]
OPTIONS = {
    one.name: {option for action in one.parser._actions for option in action.option_strings}
    for one in commands()
}
GROUPS = {one.name for one in commands() if one.commands is not None}


def test_what_is_not_run_is_counted() -> None:
    left = Counter(
        block.mark.removeprefix("not run: ") or f"{block.where}: no word after the fence"
        for block in BLOCKS
        if not examples.runs(block) and block.kind not in ("toml", "json")
    )
    assert left == NOT_RUN


def test_no_fence_is_passed_over() -> None:
    """What is indented, or of tildes, is no block for tests/examples.py; other pages are not."""
    for page in PAGES:
        assert not re.search(r"^[ >]+(```|~~~)|^~~~", page.read_text(), re.M), page
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        assert "```" not in (ROOT / name).read_text(), name


def lines(block: Block) -> Iterator[str]:
    """The lines of a script, those that a backslash continues as one."""
    yield from block.text.replace("\\\n", " ").splitlines()


def mentioned() -> Iterator[tuple[str, list[str]]]:
    """Every `stargz ...` in blocks, run or not, and in the text: where, and its words."""
    for block in BLOCKS:
        if block.kind == "sh" or block.mark:
            for line in lines(block):
                yield from ((block.where, words) for words in called(line))
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
        for code in re.findall(r"`(stargz [^`]+)`", text):
            yield from ((page.name, words) for words in called(code.replace("\n", " ")))


def called(line: str) -> Iterator[list[str]]:
    """The words of each stargz that a line of shell starts."""
    line = re.sub(r'"\$\(([^()"]*)\)"', r"$(\1)", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&()<>")
    lexer.whitespace_split = True
    words: list[str] | None = None
    for word in [*lexer, ";"]:
        if word and set(word) <= set("|;&()<>"):
            if words:
                yield words
            words = None
        elif words is not None:
            words.append(word)
        elif word.rpartition("/")[2] == "stargz":
            words = []


def test_commands_and_options_that_are_mentioned_are_there() -> None:
    count = 0
    for where, words in mentioned():
        name = words[0]
        if name in GROUPS and len(words) > 1:
            name = f"{name} {words[1]}"
        if name.isupper():  # `stargz COMMAND --help`
            continue
        assert name.startswith("-") or name in OPTIONS, (where, words)
        known = OPTIONS["" if name.startswith("-") else name]
        for word in words:
            if re.match(r"--[a-z]", word):
                assert word.partition("=")[0] in known, (where, words)
                count += 1
    assert count > 80
