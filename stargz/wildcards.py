"""Shell patterns of one name: POSIX, "Pattern Matching Notation" (XCU 2.13).

What the standard library's fnmatch has, and `[^...]`, classes such as `[[:upper:]]` (of ASCII) and
the backslash, as shells, tar and find know them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from stargz.errors import UsageError

_MAGIC = frozenset("*?[")
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t-\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_NEVER = "(?!)"


def is_pattern(text: str) -> bool:
    """Whether it has a character that means others: `*`, `?` or `[`."""
    return not _MAGIC.isdisjoint(text)


def escaped(text: str) -> str:
    """A pattern that this text alone matches."""
    return re.sub(r"[*?[\\]", r"\\\g<0>", text) if is_pattern(text) else text


def matcher(pattern: str, *, fold: bool = False) -> Callable[[str], object]:
    """What tells whether a pattern is all of a text; with `fold` in any case.

    Time is in proportion to the text and the pattern's length, whatever they are. Raises UsageError
    for a class that is not known.
    """
    return re.compile(_translate(pattern), re.IGNORECASE if fold else 0).match


def _translate(pattern: str) -> str:
    runs = [""]  # what is between stars
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            runs.append("")
        elif char == "?":
            runs[-1] += "."
        elif char == "\\" and at < len(pattern):
            runs[-1] += re.escape(pattern[at])
            at += 1
        elif char == "[" and (found := _bracket(pattern, at)):
            runs[-1] += found[0]
            at = found[1]
        else:
            runs[-1] += re.escape(char)
    if len(runs) == 1:
        return rf"(?s:{runs[0]})\Z"
    # The first place that fits a run is as good as any later one, so none is tried again.
    between = "".join(f"(?>.*?{run})" for run in runs[1:-1] if run)
    return rf"(?s:{runs[0]}{between}.*{runs[-1]})\Z"


def _bracket(pattern: str, at: int) -> tuple[str, int] | None:
    """The expression of a bracket whose inside begins here, and where it ends; None if it does
    not."""
    negated = pattern[at : at + 1] in ("!", "^")
    at = begin = at + negated
    items = ""
    while at < len(pattern):
        if pattern[at] == "]" and at > begin:
            if not items:
                return ("." if negated else _NEVER), at + 1
            return f"[{'^' * negated}{items}]", at + 1
        if named := re.compile(r"\[:(\w*):\]").match(pattern, at):
            if named[1] not in _CLASSES:
                raise UsageError(f"no class {named[0]} in patterns: {', '.join(_CLASSES)}")
            items += _CLASSES[named[1]]
            at = named.end()
            continue
        first, at = _char(pattern, at)
        if pattern[at : at + 1] == "-" and at + 1 < len(pattern) and pattern[at + 1] != "]":
            last, at = _char(pattern, at + 1)
            if first <= last:  # else there is nothing between them
                items += f"{re.escape(first)}-{re.escape(last)}"
        else:
            items += re.escape(first)
    return None


def _char(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\" and at + 1 < len(pattern):
        at += 1
    return pattern[at], at + 1
