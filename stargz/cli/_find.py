"""`find`: tests, what combines them, and the walk."""

from __future__ import annotations

import argparse
import operator
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from stargz.cli import _selection
from stargz.cli._errors import OK, CommandError
from stargz.cli._nodes import LongLines, below, labels, print_entries, start_of
from stargz.cli._options import UNITS, Parser, directories
from stargz.cli._output import line_printer
from stargz.errors import EntryNotFoundError, quoted
from stargz.wildcards import matcher

if TYPE_CHECKING:
    from stargz.tree import Tree

#: Whether a node, and the path it is shown as, pass.
Passes = Callable[[int, str], object]
#: A test of what a command line says, to be had once there is a tree.
Test = Callable[["Tree"], Passes]

_TYPES = {
    "f": "reg",
    "d": "dir",
    "l": "symlink",
    "b": "block",
    "c": "char",
    "p": "fifo",
}
_COMPARE = {"": operator.eq, "+": operator.gt, "-": operator.lt}
_NOT, _OR, _OPEN, _CLOSE = "-not", "-o", "(", ")"
_NESTED_MAX = 100


# --- tests ----------------------------------------------------------------------------------


def _name(pattern: str, *, fold: bool = False) -> Test:
    matches = matcher(pattern, fold=fold)

    def bind(tree: Tree) -> Passes:
        name = tree.engine.name
        return lambda node, path: matches(name(node))

    return bind


def _path(pattern: str, *, fold: bool = False) -> Test:
    # Paths are shown without either of them.
    matches = matcher(pattern.removeprefix("./").lstrip("/"), fold=fold)
    return lambda tree: lambda node, path: matches(path)


def _type(letters: str) -> Test:
    wanted = set(letters.split(","))
    if not wanted <= _TYPES.keys():
        raise argparse.ArgumentTypeError(
            f"{letters!r} is not of f (files), d (directories), l (symlinks), b, c (devices), p "
            "(fifos), with commas between them"
        )
    kinds = {_TYPES[letter] for letter in wanted}

    def bind(tree: Tree) -> Passes:
        kind = tree.engine.type
        return lambda node, path: kind(node) in kinds

    return bind


def _size(text: str) -> Test:
    found = re.fullmatch(r"([+-]?)(\d{1,18})(c?|[kmgt](?:i?b)?)", text, re.I)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size such as +1M (more), -64k (less) or 100 (bytes); units are c "
            "(bytes), k, M, G and T"
        )
    compare, limit = _COMPARE[found[1]], int(found[2]) * UNITS[found[3][:1].lower().strip("c")]

    def bind(tree: Tree) -> Passes:
        kind, attr = tree.engine.type, tree.engine.attr
        return lambda node, path: kind(node) == "reg" and compare(attr(node)[1], limit)

    return bind


def _empty(tree: Tree) -> Passes:
    kind, attr, children = tree.engine.type, tree.engine.attr, tree.engine.children

    def passes(node: int, path: str) -> bool:
        word = kind(node)
        return not children(node) if word == "dir" else word == "reg" and not attr(node)[1]

    return passes


def _newer_than(tree: Tree, ns: int) -> Passes:
    attr = tree.engine.attr
    return lambda node, path: attr(node)[2] * 1_000_000_000 + attr(node)[9] > ns


def _newer(name: str) -> Test:
    def bind(tree: Tree) -> Passes:
        try:
            found = tree.stat(name, follow=False)
        except (EntryNotFoundError, OSError):
            raise CommandError(
                f"{tree.name}: no entry {quoted(name)} for -newer, which takes an entry of SRC; "
                "-newermt takes a date"
            ) from None
        return _newer_than(tree, found.mtime_ns)

    return bind


def _newer_date(text: str) -> Test:
    from datetime import UTC, datetime

    try:
        if re.fullmatch(r"@-?\d{1,12}", text):
            seconds = float(text[1:])
        else:
            date = datetime.fromisoformat(text)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a date such as 2024-01-31, '2024-01-31 12:00' or @1700000000"
        ) from None
    ns = round(seconds * 1_000_000) * 1000  # more digits than these a float has not
    return lambda tree: _newer_than(tree, ns)


def _perm(text: str) -> Test:
    found = re.fullmatch(r"([-/]?)0*([0-7]{1,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a mode such as 644 (just this), -111 (all of these bits) or /6000 "
            "(any of them)"
        )
    bits = int(found[2], 8)
    mask = bits if found[1] else 0o7777

    def bind(tree: Tree) -> Passes:
        attr = tree.engine.attr
        if found[1] == "/" and bits:
            return lambda node, path: attr(node)[3] & bits
        return lambda node, path: attr(node)[3] & mask == bits

    return bind


def _owner(name: str, *, which: int) -> Test:
    """By name; a number is that of one too."""
    number = int(name) if re.fullmatch(r"\d{1,10}", name) else -1

    def bind(tree: Tree) -> Passes:
        attr, owner = tree.engine.attr, tree.engine.owner
        return lambda node, path: owner(node)[which] == name or attr(node)[5 + which] == number

    return bind


class _Kind(NamedTuple):
    metavar: str
    make: Callable[[str], Test]
    help: str


_KINDS = {
    "name": _Kind("GLOB", _name, "the base name matches, *, ? and [...] in it"),
    "iname": _Kind("GLOB", lambda text: _name(text, fold=True), "the same in any case"),
    "path": _Kind("GLOB", _path, "the path matches; * matches slashes too"),
    "ipath": _Kind("GLOB", lambda text: _path(text, fold=True), "the same in any case"),
    "type": _Kind("f,d,l,b,c,p", _type, "files, directories, symlinks, devices, fifos"),
    "size": _Kind(
        "[+-]N[kMGT]", _size, "files of more (+), less (-) or just N bytes, not rounded to units"
    ),
    "newer": _Kind("PATH", _newer, "modified later than this entry of SRC"),
    "newermt": _Kind("DATE", _newer_date, "modified later than 2024-01-31, say, or @SECONDS"),
    "perm": _Kind("MODE", _perm, "just mode 644; all bits of -111; any bit of /6000"),
    "user": _Kind("NAME|UID", lambda text: _owner(text, which=0), "of this owner"),
    "group": _Kind("NAME|GID", lambda text: _owner(text, which=1), "of this group"),
}
_DEPTHS = {"maxdepth": "no deeper than N below a PATH", "mindepth": "at least N below it"}
_WORDS = {
    "not": "not", "o": "o", "or": "o", "a": "a", "and": "a", "empty": "empty",
    "print": "print", "print0": "print0", "ls": "ls",
}  # fmt: skip
_SHORT = "qvhl0"  # which may be combined


# --- the command line -----------------------------------------------------------------------


def add_find_options(parser: Parser) -> None:
    """PATHs, tests, and how what is found is shown."""
    _selection.add_selection_options(parser, "where to begin (default: the root)")
    parser.rewrite = lambda words: list(_spelled(parser, words))
    tests = parser.add_argument_group("tests")
    for name, kind in _KINDS.items():
        tests.add_argument(
            f"-{name}", dest="tests", action="append", type=kind.make,
            metavar=kind.metavar, help=kind.help,
        )  # fmt: skip
    words: list[tuple[list[str], object, str]] = [
        (["-empty"], _empty, "empty files and directories"),
        (["-not"], _NOT, "what the next test does not pass; also !"),
        (["-o"], _OR, "what passes the tests before it, or those behind it"),
        (["-("], _OPEN, argparse.SUPPRESS),
        (["-)"], _CLOSE, argparse.SUPPRESS),
    ]
    for options, const, text in words:
        tests.add_argument(*options, dest="tests", action="append_const", const=const, help=text)
    tests.add_argument("-a", action="store_true", help="between tests: nothing is needed")
    for name, text in _DEPTHS.items():
        parser.add_argument(f"-{name}", type=directories, metavar="N", help=text)
    parser.add_argument(
        "-l",
        "-ls",
        dest="long",
        action="store_true",
        help="lines as of `ls -l`, for all that is found",
    )
    parser.add_argument(
        "-0", "-print0", dest="zero", action="store_true",
        help="end paths with NUL, for xargs -0",
    )  # fmt: skip
    parser.add_argument("-print", action="store_true", help="print paths, as always")


def _spelled(parser: Parser, words: list[str]) -> Iterator[str]:
    """Words with an expression of find's as argparse takes them: `--size -1M` is `-size=-1M`."""
    rest = iter(words)
    grammar = _Grammar(parser)
    for word in rest:
        dashes = len(word) - len(word.lstrip("-"))
        name, equals, _ = word[dashes:].partition("=")
        if word == "--":
            yield word
            yield from rest
        elif word in (_OPEN, _CLOSE):
            grammar.take(word)
            yield f"-{word}"
        elif word == "!" or (dashes in (1, 2) and name in _WORDS and not equals):
            plain = f"-{_WORDS['not' if word == '!' else name]}"
            if plain in (_NOT, _OR, "-a", "-empty"):
                grammar.take(plain)
            yield plain
        elif dashes in (1, 2) and name in _KINDS | _DEPTHS:
            value = next(rest, None) if not equals else word[dashes + len(name) + 1 :]
            if name in _KINDS:
                grammar.take(name)
            yield f"-{name}" if value is None else f"-{name}={value}"
        elif dashes == 1 and name[:1].isalpha() and not set(name) <= set(_SHORT):
            known = " ".join(f"-{test}" for test in (*_KINDS, "empty", "not", "o", *_DEPTHS))
            hint = "; --exclude leaves out what it names" if name == "prune" else ""
            parser.error(f"no test {word!r}{hint}; there are {known}")
        else:
            yield word
    grammar.end()


class _Grammar:
    """Whether the words of an expression may stand where they do."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self.before = ""
        self.open = 0

    def take(self, word: str) -> None:
        """The next word: a test, or what stands between them."""
        if word in (_OR, "-a", _CLOSE) and self.before in ("", _OPEN, _NOT, _OR, "-a"):
            self.parser.error(f"a test is missing before {word}")
        self.open += (word == _OPEN) - (word == _CLOSE)
        if self.open < 0:
            self.parser.error("there is a ) without a (")
        if self.open > _NESTED_MAX:
            self.parser.error(f"parentheses are over {_NESTED_MAX} deep")
        self.before = word

    def end(self) -> None:
        """No more words."""
        if self.before in (_NOT, _OR, "-a"):
            self.parser.error(f"a test is missing behind {self.before}")
        if self.open:
            self.parser.error("there is a ( without a )")


def _expression(tokens: list[Any], tree: Tree) -> Passes:
    """The one test that the words of a whole expression come to."""
    # Of each parenthesis that is open: alternatives, each of (whether it must pass, test), and
    # whether the next must.
    groups: list[list[list[tuple[bool, Passes]]]] = [[[]]]
    wanted = [True]
    for token in tokens:
        if token == _NOT:
            wanted[-1] = not wanted[-1]
        elif token == _OR:
            groups[-1].append([])
        elif token == _OPEN:
            groups.append([[]])
            wanted.append(True)
        else:
            if token == _CLOSE:
                wanted.pop()
                test = _any(groups.pop())
            else:
                test = token(tree)
            groups[-1][-1].append((wanted[-1], test))
            wanted[-1] = True
    return _any(groups[0])


def _any(alternatives: list[list[tuple[bool, Passes]]]) -> Passes:
    """Passes what passes all tests of one of them."""

    def passes(node: int, path: str) -> bool:
        for tests in alternatives:
            for wanted, test in tests:
                if bool(test(node, path)) is not wanted:
                    break
            else:
                return True
        return False

    return passes


# --- finding --------------------------------------------------------------------------------


def find_in(tree: Tree, args: argparse.Namespace) -> int:
    """Print what passes below PATHs, and they themselves."""
    found = _found(tree, args)
    if args.json:
        print_entries(tree, (node for node, _ in found))
        return OK
    put = line_printer(nul=args.zero)
    if args.long:
        line = LongLines(tree).line
        for node, path in found:
            put(line(node, path))
        return OK
    for _, path in found:
        put(path)
    return OK


def _found(tree: Tree, args: argparse.Namespace) -> Iterator[tuple[int, str]]:
    passes = _expression(args.tests or [], tree)
    selection = _selection.select(tree.engine, args)
    shallowest = args.mindepth or 0
    for match in selection.matches:
        start = start_of(tree, match)
        path_of = labels(tree, start, match.path)
        if start and not shallowest and passes(match.node, match.path):
            yield match.node, match.path
        for node, depth in below(tree, start, selection.excluded, deepest=args.maxdepth):
            path = path_of(node)
            if depth >= shallowest and passes(node, path):
                yield node, path
