"""Ignore files: the semantics of .dockerignore.

What a pattern means is fixed by what Docker does: the Go packages patternmatcher and
patternmatcher/ignorefile of moby, with the results of parent directories carried along, as
BuildKit uses them. They make regular expressions of patterns, and some of what follows from
that (a backslash and a letter, stars within brackets) is part of the semantics. Malformed
patterns are refused, also those that they happen to take.
"""

from __future__ import annotations

import posixpath
import re

from stargz.errors import UsageError

_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# What the reference escapes. It does not braces and the bar, which so keep their meaning in a
# pattern that becomes a regular expression.
_ESCAPED = frozenset(".+()$")
_REPEAT = re.compile(r"\{(0|[1-9][0-9]*)(,(?:0|[1-9][0-9]*)?)?\}")
_SPECIAL = re.compile(r"[*?\[\]\\^]")
_PERL = {"d": "0-9", "s": r"\t\n\f\r ", "w": "0-9A-Za-z_"}
_CONTROL = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ASSERTION = {"A": r"\A", "z": r"\Z", "b": r"(?a:\b)", "B": r"(?a:\B)"}
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


class _PatternError(Exception):
    """Why a pattern cannot be used."""


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


class _Regex:
    """A regular expression in Go's syntax, as far as patterns can lead to it, in Python's."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def translate(self) -> str:
        out = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\\":
                out.append(self._outside())
                continue
            self.at += 1
            if char == "[":
                out.append(self._brackets())
            elif char in ".*?)|":
                out.append(char)
            elif char == "{" and (match := _REPEAT.match(self.text, self.at - 1)):
                out.append(self._repeat(match, out))
            else:
                known = {"(": "(?:", "^": r"\A", "$": r"\Z"}
                out.append(known.get(char) or re.escape(char))
        return "".join(out)

    def _repeat(self, match: re.Match[str], before: list[str]) -> str:
        self.at = match.end()
        low, high = int(match[1]), int((match[2] or "")[1:] or match[1])
        if not low <= high <= 1000 or before[-1] in (r"\A", "|", "?", "*") or before[-1][0] == "{":
            raise _PatternError(f"the repetition {match[0]} has no meaning here")
        return match[0]

    def _outside(self) -> str:
        letter = self.text[self.at + 1]
        if letter in _ASSERTION:
            self.at += 2
            return _ASSERTION[letter]
        perl = self._perl()
        return f"[{perl}]" if perl else re.escape(self._escaped())

    def _perl(self) -> str:
        r"""The insides of \d and its kin, if that is what follows."""
        letter = self.text[self.at + 1 : self.at + 2]
        if letter in _PERL:
            self.at += 2
            return _PERL[letter]
        if letter and letter.lower() in _PERL:
            self.at += 2
            return {"D": r"\x00-/:-\U0010ffff", "S": r"\x00-\x08\x0b\x0e-\x1f!-\U0010ffff"}.get(
                letter, r"\x00-/:-@\[-\^`{-\U0010ffff"
            )
        return ""

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

    def _brackets(self) -> str:
        text = self.text
        out = []
        if text[self.at : self.at + 1] == "^":
            out.append("^")
            self.at += 1
        first = True
        while first or text[self.at : self.at + 1] != "]":
            first = False
            end = text.find(":]", self.at) if text.startswith("[:", self.at) else -1
            if end > 0:
                out.append(self._posix(text[self.at + 2 : end]))
                self.at = end + 2
                continue
            perl = self._perl() if text[self.at : self.at + 1] == "\\" else ""
            if perl:
                out.append(perl)
                continue
            low = high = self._inside()
            if text[self.at : self.at + 1] == "-" and text[self.at + 1 : self.at + 2] not in "]":
                self.at += 1
                high = self._inside()
            if high < low:
                raise _PatternError(f"the range {low}-{high} is the wrong way round")
            out.append(f"\\U{ord(low):08x}-\\U{ord(high):08x}")
        self.at += 1
        return f"[{''.join(out)}]"

    @staticmethod
    def _posix(name: str) -> str:
        if name in _POSIX:
            return _POSIX[name]
        raise _PatternError(f"[:{name}:] is no class of characters")

    def _inside(self) -> str:
        if self.at >= len(self.text):
            raise _PatternError("a bracket expression is not closed")
        if self.text[self.at] == "\\":
            return self._escaped()
        self.at += 1
        return self.text[self.at - 1]


# The translations of a star, a question mark, and two stars with a slash.
_STAR, _ANY, _DIRS = (_Regex(text).translate() for text in ("[^/]*", "[^/]", "(.*/)?"))
_BACKTRACKS_MAX = 3  # where several wildcards of one pattern try everything against each other


def _bounded(expression: str) -> str:
    """The same expression without the backtracking that takes a power of the name's length.

    Go's matching is linear. Here, what stands between two wildcards may be taken where it comes
    first, for good: whatever follows a later place follows that one too. That holds where it has a
    fixed length, and between two `**/` where it ends with a slash.
    """
    if "|" in expression:
        return _limited(expression, expression.count("*"))
    while 2 * _DIRS in expression:
        expression = expression.replace(2 * _DIRS, _DIRS)
    first, *parts = expression.split(_DIRS)
    free = 0
    done = []
    for part in (first, *parts):
        made, left = _bounded_stars(part)
        done.append(made)
        free += left
    out = done[0]
    for number, (part, made) in enumerate(zip(parts, done[1:], strict=True), 1):
        if number == len(parts):
            out += _DIRS + made
        elif part.endswith("/") and not _variable(part.replace(_STAR, "")):
            out += f"(?>(?:.*?/)??{made})"
        else:
            out += _DIRS + made
            free += 1
    return _limited(out, free)


def _bounded_stars(part: str) -> tuple[str, int]:
    first, *rest = part.split(_STAR)
    out, free = first, 0
    for number, piece in enumerate(rest, 1):
        if number == len(rest) or "/" in piece.replace(_ANY, ""):
            out += _STAR + piece  # the component ends here, so only one length can be right
        elif _variable(piece):
            out += _STAR + piece
            free += 1
        else:
            out += f"(?>{_STAR}?{piece})"
    return out, free


def _variable(text: str) -> bool:
    """Whether it may have several lengths, or match a slash that is not written."""
    return re.search(r"[\[(*?{]", text.replace(_ANY, "")) is not None


def _limited(expression: str, free: int) -> str:
    if free > _BACKTRACKS_MAX:
        raise _PatternError("with so many wildcards beside brackets or bars it could take for ever")
    return expression


# --- patterns -------------------------------------------------------------------------------


class _Pattern:
    def __init__(self, text: str, exception: bool) -> None:
        _check(text)
        self.text = text
        self.exception = exception
        self.plain = _SPECIAL.search(text) is None
        self.kind, expression = self._compile()
        self.begin = self._begin()
        if self.kind == "regex":
            self.regex = re.compile(_bounded(_Regex(f"^{expression}$").translate()))

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
                    out.append("(.*/)?")
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
        return self.regex.search(name) is not None

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
    def parse(cls, text: bytes, source: str) -> IgnoreFile:
        """Parse the contents of an ignore file; `source` names it in errors. UsageError."""
        patterns = []
        for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            try:
                pattern = cls._parse_line(line.decode("utf-8", "surrogateescape"))
            except _PatternError as error:
                shown = line.decode("utf-8", "backslashreplace").strip()
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
