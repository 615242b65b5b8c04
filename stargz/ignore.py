"""Ignore files: the semantics of .dockerignore.

What a pattern means is fixed by what Docker does: the Go packages patternmatcher and
patternmatcher/ignorefile of moby, with the results of parent directories carried along, as
BuildKit uses them. They make regular expressions of patterns, and some of what follows from
that (a backslash and a letter, stars within brackets) is part of the semantics. Malformed
patterns are refused, also those that they happen to take.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable

from stargz._engine.write import Pattern
from stargz.errors import UsageError, not_text

_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# What the reference escapes. It does not braces and the bar, which so keep their meaning in a
# pattern that becomes a regular expression.
_ESCAPED = frozenset(".+()$")
_REPEAT = re.compile(r"\{(0|[1-9][0-9]*)(,(?:0|[1-9][0-9]*)?)?\}")
_SPECIAL = re.compile(r"[*?\[\]\\^]")
_LAST = 0x10FFFF
_NUL, _DIGIT, _UPPER, _LOWER = ("\0", "\x7f"), ("0", "9"), ("A", "Z"), ("a", "z")
_WORD = (_DIGIT, _UPPER, ("_", "_"), _LOWER)
_PERL = {"d": (_DIGIT,), "s": (("\t", "\n"), ("\f", "\r"), (" ", " ")), "w": _WORD}
_CONTROL = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_POSIX = {
    "alnum": (_DIGIT, _UPPER, _LOWER),
    "alpha": (_UPPER, _LOWER),
    "ascii": (_NUL,),
    "blank": (("\t", "\t"), (" ", " ")),
    "cntrl": (("\0", "\x1f"), ("\x7f", "\x7f")),
    "digit": (_DIGIT,),
    "graph": (("!", "~"),),
    "lower": (_LOWER,),
    "print": ((" ", "~"),),
    "punct": (("!", "/"), (":", "@"), ("[", "`"), ("{", "~")),
    "space": (("\t", "\r"), (" ", " ")),
    "upper": (_UPPER,),
    "word": _WORD,
    "xdigit": (_DIGIT, ("A", "F"), ("a", "f")),
}
# Of all patterns of a file, since each state takes memory and a little time for each name.
_STATES_MAX = 200_000
_SIZE_MAX = 1 << 20  # bytes of a file; those in use have some kilobytes
_SHOWN = 200  # characters of a pattern that is wrong


class _PatternError(Exception):
    """Why a pattern cannot be used."""


def _too_large() -> _PatternError:
    return _PatternError(f"with it the file's patterns have more than {_STATES_MAX:,} parts")


def _clean(path: str) -> str:
    """Go's filepath.Clean: as normpath, but "//" at the beginning is "/"."""
    path = posixpath.normpath(path)
    return path[1:] if path.startswith("//") else path


# --- syntax ---------------------------------------------------------------------------------


def _check(pattern: str) -> None:
    """The syntax of Go's filepath.Match."""
    at, end = 0, len(pattern)

    def one() -> None:  # a character within brackets
        nonlocal at
        if at == end or pattern[at] in "-]":
            raise _PatternError("a bracket expression is malformed")
        at += pattern[at] == "\\"
        at += 1
        if at >= end:
            raise _PatternError("a bracket expression is not closed")

    while at < end:
        char = pattern[at]
        at += 1
        if char == "\\":
            if at == end:
                raise _PatternError("nothing follows the backslash")
            at += 1
        elif char == "[":
            at += pattern[at : at + 1] == "^"
            first = True
            while first or pattern[at] != "]":
                first = False
                one()
                if pattern[at] == "-":
                    at += 1
                    one()
            at += 1


_Ranges = tuple[tuple[int, int], ...]


def _united(ranges: Iterable[tuple[int, int]]) -> _Ranges:
    """The same characters in ascending ranges that do not touch."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            out[-1] = out[-1][0], max(high, out[-1][1])
        else:
            out.append((low, high))
    return tuple(out)


def _others(ranges: Iterable[tuple[int, int]]) -> _Ranges:
    """All other characters."""
    out, at = [], 0
    for low, high in _united(ranges):
        if at < low:
            out.append((at, low - 1))
        at = high + 1
    return (*out, (at, _LAST)) if at <= _LAST else tuple(out)


def _numbers(ranges: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
    return [(ord(low), ord(high)) for low, high in ranges]


_ANY = _others(_numbers([("\n", "\n")]))
# csrc/pack/pattern.h has what these are.
_ONE, _MANY, _ALWAYS, _BEGIN, _END, _EDGE, _NO_EDGE, _FOUND = range(8)
_ASSERTION = {"A": _BEGIN, "z": _END, "b": _EDGE, "B": _NO_EDGE}
_DIRS = "(.*/)?"  # what two stars and a slash become


def _meaningless(match: re.Match[str]) -> _PatternError:
    return _PatternError(f"the repetition {match[0][:_SHOWN]} has no meaning here")


class _Regex:
    """A regular expression in Go's syntax, as far as patterns can lead to it, as the states of
    one that is matched in linear time (Go's are, Python's are not)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.last_class = text.rfind(":]")
        self.states: list[tuple[int, int, _Ranges]] = []
        self.starts = [0]
        while self.at < len(self.text):
            self._item()
        self._add(_FOUND)

    def _add(self, kind: int, ranges: _Ranges = (), skip: int = 0) -> None:
        if len(self.states) == _STATES_MAX:
            raise _too_large()
        self.states.append((kind, skip, ranges))

    def _item(self) -> None:
        """The next piece of the text, with what says how often it comes."""
        kind = _ONE
        ranges: _Ranges = ()
        char = self.text[self.at]
        if self.text.startswith(_DIRS, self.at):
            self.at += len(_DIRS)
            self._add(_ALWAYS, skip=3)
            self._add(_MANY, _ANY, 1)
            self._add(_ONE, _united(_numbers([("/", "/")])))
            return self._once()
        if char == "\\":
            kind, ranges = self._outside()
        else:
            self.at += 1
            if char == "[":
                ranges = self._brackets()
            elif char == ".":
                ranges = _ANY
            elif char == "^":
                kind = _BEGIN
            elif char == "$":
                kind = _END
            elif char == "|":
                self._add(_FOUND)
                self.starts.append(len(self.states))
                return self._once()
            else:
                ranges = ((ord(char), ord(char)),)
        if self.text.startswith("*", self.at):
            self.at += 1
            self._add(_MANY, ranges, 1)
            return self._once()
        match = _REPEAT.match(self.text, self.at)
        if match is None:
            return self._add(kind, ranges)
        self.at = match.end()
        self._repeat(match, kind, ranges)
        return self._once()

    def _once(self) -> None:
        """Nothing may say how often what was read comes."""
        match = _REPEAT.match(self.text, self.at)
        if match:
            raise _meaningless(match)

    def _repeat(self, match: re.Match[str], kind: int, ranges: _Ranges) -> None:
        low, high = (min(int(n[:5]), 1001) for n in (match[1], (match[2] or "")[1:] or match[1]))
        if not low <= high <= 1000:
            raise _meaningless(match)
        if kind != _ONE:  # a condition, which holds once or as often as one likes
            return self._add(kind, skip=int(low == 0))
        for number in range(high):
            self._add(_ONE, ranges, int(number >= low))
        if match[2] == ",":
            self._add(_MANY, ranges, 1)
        return None

    def _outside(self) -> tuple[int, _Ranges]:
        letter = self.text[self.at + 1]
        if letter in _ASSERTION:
            self.at += 2
            return _ASSERTION[letter], ()
        perl = self._perl()
        if perl is not None:
            return _ONE, perl
        code = ord(self._escaped())
        return _ONE, ((code, code),)

    def _perl(self) -> _Ranges | None:
        r"""The characters of \d and its kin, if that is what follows."""
        letter = self.text[self.at + 1 : self.at + 2]
        if not letter or letter.lower() not in _PERL:
            return None
        self.at += 2
        ranges = _numbers(_PERL[letter.lower()])
        return _united(ranges) if letter.islower() else _others(ranges)

    def _escaped(self) -> str:
        """The character that a backslash and what follows stand for."""
        char = self.text[self.at + 1]
        self.at += 2
        if char in _CONTROL:
            return _CONTROL[char]
        if char == "x" or char in "01234567":
            octal = re.compile("0[0-7]{0,2}|[1-7][0-7]{1,2}")
            match = (
                re.compile("[0-9A-Fa-f]{2}").match(self.text, self.at)
                if char == "x"
                else octal.match(self.text, self.at - 1)
            )
            if match:
                self.at = match.end()
                return chr(int(match[0], 16 if char == "x" else 8))
        elif char.isascii() and not char.isalnum():
            return char
        raise _PatternError(f"the escape \\{char} has no meaning here")

    def _brackets(self) -> _Ranges:
        text = self.text
        out: list[tuple[int, int]] = []
        negated = text[self.at : self.at + 1] == "^"
        self.at += negated
        first = True
        while first or text[self.at : self.at + 1] != "]":
            first = False
            if text.startswith("[:", self.at) and self.at < self.last_class:
                end = text.find(":]", self.at)
                out += self._posix(text[self.at + 2 : end])
                self.at = end + 2
                continue
            perl = self._perl() if text[self.at : self.at + 1] == "\\" else None
            if perl is not None:
                out += perl
                continue
            low = high = self._inside()
            if text[self.at : self.at + 1] == "-" and text[self.at + 1 : self.at + 2] not in "]":
                self.at += 1
                high = self._inside()
            if high < low:
                raise _PatternError(f"the range {low}-{high} is the wrong way round")
            out += _numbers([(low, high)])
        self.at += 1
        return _others(out) if negated else _united(out)

    @staticmethod
    def _posix(name: str) -> list[tuple[int, int]]:
        if name.removeprefix("^") in _POSIX:
            ranges = _numbers(_POSIX[name.removeprefix("^")])
            return list(_others(ranges)) if name[0] == "^" else ranges
        raise _PatternError(f"[:{name[:_SHOWN]}:] is no class of characters")

    def _inside(self) -> str:
        if self.at >= len(self.text):
            raise _PatternError("a bracket expression is not closed")
        if self.text[self.at] == "\\":
            return self._escaped()
        self.at += 1
        return self.text[self.at - 1]


# --- patterns -------------------------------------------------------------------------------


class _Pattern:
    def __init__(self, text: str, exception: bool) -> None:
        _check(text)
        self.text = text
        self.exception = exception
        self.plain = _SPECIAL.search(text) is None
        self.kind, expression = self._compile()
        self.states = 0
        self.begin = self._begin()
        if self.kind == "regex":
            regex = _Regex(f"^{expression}$")
            self.states = len(regex.states)
            self.regex = Pattern(regex.states, regex.starts)

    def _begin(self) -> str:
        """What all that it matches begins with."""
        special = _SPECIAL.search(self.text)
        begin = self.text[: special.start()] if special else self.text
        if self.kind == "regex":
            # The bar makes alternatives, of which only the first is bound to the name's start;
            # a repetition may take away the character before it.
            if "|" in self.text:
                return ""
            before, brace, _ = begin.partition("{")
            begin = before[:-1] if brace else begin
        return begin

    def _compile(self) -> tuple[str, str]:
        """What kind of comparison it takes, and Go's regular expression for the last kind."""
        kind, out, at, text = "exact", [], 0, self.text
        while at < len(text):
            char, start = text[at], at
            at += 1
            if char == "*" and text.startswith("*", at):
                at += 1
                at += text.startswith("/", at)
                if at < len(text):
                    out.append(_DIRS)
                    kind = "regex"
                elif kind == "exact":
                    kind = "prefix"
                else:
                    out.append(".*")
                    kind = "regex"
                if not start:
                    kind = "suffix"
            elif char in "*?":
                out.append("[^/]*" if char == "*" else "[^/]")
                kind = "regex"
            elif char == "\\":
                out.append("\\" + text[at])
                at += 1
                kind = "regex"
            elif char in _ESCAPED:
                out.append("\\" + char)
            else:
                out.append(char)
                if char in "[]":
                    kind = "regex"
        return kind, "".join(out)

    def matches(self, name: str) -> bool:
        if self.kind == "exact":
            return name == self.text
        if self.kind == "prefix":
            return name.startswith(self.text[:-2])
        if self.kind == "suffix":
            suffix = self.text[2:]
            return name.endswith(suffix) or (suffix[0] == "/" and name == suffix[1:])
        return self.regex.match(name)

    def may_match_below(self, directory: str) -> bool:
        """Whether it can match something in this directory, or matches the directory."""
        inside = directory + "/"
        if self.plain:
            return self.text.startswith(inside) or inside.startswith(self.text + "/")
        return self.begin.startswith(inside) or inside.startswith(self.begin)


class IgnoreFile:
    """Which files of a tree are left out: the patterns of an ignore file, the last that matches
    decides. Make one with `parse`."""

    def __init__(self, patterns: list[_Pattern]) -> None:
        self._patterns = patterns
        self._exceptions = [p for p in patterns if p.exception]
        # Which patterns matched a directory: of each one that was asked about.
        self._matched: dict[str, tuple[bool, ...]] = {"": (False,) * len(patterns)}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> IgnoreFile:
        """Parse the ignore file, or pipe, at `path`. OSError; UsageError, also for over 1 MiB."""
        name = os.fspath(path)
        with open(name, "rb") as file:  # noqa: PTH123
            text = file.read(_SIZE_MAX + 1)
        if len(text) > _SIZE_MAX:
            raise UsageError(f"{name}: over {_SIZE_MAX >> 20} MiB, which is no ignore file")
        if why := not_text(text):
            raise UsageError(f"{name}: {why}")
        return cls.parse(text, name)

    @classmethod
    def parse(cls, text: bytes, source: str) -> IgnoreFile:
        """Parse the contents of an ignore file; `source` names it in errors. UsageError."""
        patterns: list[_Pattern] = []
        states = 0
        for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            try:
                pattern = cls._parse_line(line.decode("utf-8", "surrogateescape"))
                states += pattern.states if pattern else 0
                if states > _STATES_MAX:
                    raise _too_large()
            except _PatternError as error:
                shown = line.decode("utf-8", "backslashreplace").strip()
                shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
                raise UsageError(
                    f"{source}, line {number}: pattern {shown!r}: {error}; correct the pattern"
                ) from None
            if pattern:
                patterns.append(pattern)
        return cls(patterns)

    @staticmethod
    def _parse_line(line: str) -> _Pattern | None:
        text = line.strip(_SPACE)
        if line.startswith("#") or not text:
            return None
        exception = text[0] == "!"
        if exception:
            text = text[1:].strip(_SPACE)
        if text:
            text = _clean(text)
            if len(text) > 1:
                text = text.removeprefix("/")
        # The matcher of the reference trims and cleans again, with the mark in front.
        text = _clean(("!" * exception + text).strip(_SPACE))
        if text[0] == "!":
            exception, text = True, text[1:]
            if not text:
                raise _PatternError("an exception must say from what")
        return _Pattern(text, exception)

    def decide(self, name: str | bytes, is_dir: bool) -> int:
        """Whether to leave out the file of this name, relative to the root of the tree: 0: no;
        1: yes, but look for exceptions in this directory; 2: yes, with all that is in it."""
        if isinstance(name, bytes):
            name = name.decode("utf-8", "surrogateescape")
        above, slash, _ = name.rpartition("/")
        ignored, matched = self._match(name, self._results(above) if slash else ())
        if is_dir:
            self._matched[name] = matched
        if not ignored:
            return 0
        look = is_dir and any(p.may_match_below(name) for p in self._exceptions)
        return 1 if look else 2

    def _results(self, directory: str) -> tuple[bool, ...]:
        known = self._matched.get(directory)
        if known is None:
            above, slash, _ = directory.rpartition("/")
            _, known = self._match(directory, self._results(above) if slash else ())
            self._matched[directory] = known
        return known

    def _match(self, name: str, above: tuple[bool, ...]) -> tuple[bool, tuple[bool, ...]]:
        """Whether it is ignored, and which patterns matched it or a directory above it."""
        ignored, results = False, []
        for n, pattern in enumerate(self._patterns):
            match = bool(above) and above[n]
            # One that would change nothing is not asked: the reference's results for what is
            # below depend on this.
            if not match and pattern.exception == ignored:
                match = pattern.matches(name)
            results.append(match)
            if match:
                ignored = not pattern.exception
        return ignored, tuple(results)
