"""From what a user names to what is in a layer or an image: paths, patterns, selections.

All on the engine's tree (`stargz._engine.toc.Tree`), by its node numbers. Paths are relative to
the root, which is ""; symlinks are followed within the tree as in a chroot.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from stargz._engine import toc as _toc
from stargz.errors import EntryNotFoundError, UsageError, quoted
from stargz.wildcards import escaped, is_pattern, matcher

MAX_LINKS = 40  # as Linux does before it says ELOOP

Name = str | os.PathLike[str]


def text(name: Name) -> str:
    """A name as a string."""
    if isinstance(name, str):
        return name
    found = os.fspath(name) if isinstance(name, os.PathLike) else None
    if not isinstance(found, str):
        raise UsageError(f"a name is a string or a path, not {name!r}")
    return found


def several(names: Iterable[Name], what: str) -> tuple[str, ...]:
    """Several names as strings; UsageError, in which they are called `what`, for one alone."""
    if isinstance(names, str | bytes | os.PathLike):
        raise UsageError(f"{what} is a list of names, not one name")
    if not isinstance(names, Iterable):
        raise UsageError(f"{what} is a list of names, not {names!r:.100}")
    return tuple(text(name) for name in names)


# --- one path ---------------------------------------------------------------------------


def find(
    engine: _toc.Tree,
    path: str,
    *,
    follow: bool = True,
    links: list[int] | None = None,
    source: str = "",
) -> int:
    """The node that a path leads to; `follow` a symlink at its end.

    `links` gets the nodes of the symlinks gone through. `source` is what errors call the tree:
    EntryNotFoundError, NotADirectoryError, OSError (ELOOP).
    """
    node = engine.find(path) if ".." not in path else -1
    if (
        node >= 0  # then no link is on the way
        and not path.endswith(("/", "/."))
        and not (follow and engine.type(node) == "symlink")
    ):
        return node
    pending = path.split("/")[::-1]
    node = count = 0
    while pending:
        part = pending.pop()
        if part in ("", ".", ".."):
            if engine.type(node) != "dir":
                raise _no_directory(engine, path, node, source)
            if part == "..":
                node = engine.parent(node)
            continue
        child = engine.child(node, part)
        if child < 0:
            raise _missing(engine, path, node, part, source)
        if engine.type(child) != "symlink" or not (pending or follow):
            node = child
            continue
        count += 1
        if count > MAX_LINKS:
            words = f"more than {MAX_LINKS} symlinks on the way"
            raise OSError(errno.ELOOP, words, _where(path, source))
        if links is not None:
            links.append(child)
        target = engine.target(child)
        if target.startswith("/"):
            node = 0
        pending.extend(target.split("/")[::-1])
    return node


def _missing(engine: _toc.Tree, path: str, node: int, part: str, source: str) -> Exception:
    if engine.type(node) != "dir":
        return _no_directory(engine, path, node, source)
    at = engine.path(node)
    found = f"{at}/{part}" if at else part
    within = "layer" if len(engine.tocs) == 1 else "image"
    looked_up = "" if path.strip("/") == found else found
    return EntryNotFoundError(path, source, looked_up, within=within)


def _no_directory(engine: _toc.Tree, path: str, node: int, source: str) -> Exception:
    at = engine.path(node)
    via = "" if path in (at, f"{at}/", f"{at}/.") else f" (on the way to {quoted(path)})"
    return NotADirectoryError(f"{_where(at, source)} is no directory{via}")


def _where(path: str, source: str) -> str:
    return f"{source}: {path}" if source else path


# --- patterns ---------------------------------------------------------------------------


class Match(NamedTuple):
    """What a name or a pattern found: the path by which it was reached, where symlinked
    directories are as they were named; its node, a symlink's own at the end; the nodes of the
    symlinks gone through; and whether it was a pattern. After ".." the path is that of the
    directory it leads to."""

    path: str
    node: int
    links: tuple[int, ...] = ()
    by_pattern: bool = False


def glob(engine: _toc.Tree, pattern: str) -> Iterator[Match]:
    """What a pattern matches, in the order of the tree.

    Between two slashes `*` is any text, `?` a character, `[a-z]` and `[!a-z]` one of some or of
    all others; a dot in front is a character like any other. `**` is any number of directories,
    none too, and at the end of the pattern all that is in them; it does not go through symlinked
    directories, as everything else does. A "/" at the end asks for directories. The root is no
    match.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    first = next((i for i, part in enumerate(parts) if is_pattern(part)), len(parts))
    if ".." in parts[first:]:
        raise UsageError(f'{quoted(pattern)}: ".." is not for after a pattern')
    follow = first < len(parts) or pattern.endswith(("/", "/."))
    links: list[int] = []
    try:
        found = find(engine, "/".join(parts[:first]), links=links, follow=follow)
    except (KeyError, OSError):
        return
    base = engine.path(found) if ".." in parts[:first] else "/".join(parts[:first])
    walk = _Walk(engine, parts[first:], pattern)
    yield from walk.run(Match(base, found, tuple(links), True))


class _Plan(NamedTuple):
    """What may come in a directory. Parts are known by their numbers; the one after the last is
    the end."""

    stay: frozenset[int]  # those that are `**`: they hold on to all that is below
    names: dict[str, frozenset[int]]  # by a name: the parts after those that it is
    patterns: list[tuple[Callable[[str], object], int]]  # and likewise by a pattern
    rest: bool  # the last is `**`: everything matches


class _Walk:
    """One walk down the tree for all parts of a pattern at the same time: at each place it knows
    which of them may come next. So no path is tried twice, however many `**` there are."""

    def __init__(self, engine: _toc.Tree, parts: list[str], pattern: str) -> None:
        self.engine = engine
        self.pattern = pattern
        self.only_dirs = pattern.endswith(("/", "/."))
        self.parts = [p for i, p in enumerate(parts) if p != "**" or parts[i - 1 : i] != ["**"]]
        self.end = len(self.parts)
        self.matchers = {
            i: matcher(part)
            for i, part in enumerate(self.parts)
            if is_pattern(part) and part != "**"
        }
        self.plans: dict[frozenset[int], _Plan] = {}
        # The walk comes by each node once, and more often only by way of symlinks: those into
        # their own directory multiply with every part.
        self.left = 4 * len(engine) + 100_000

    def run(self, base: Match) -> Iterator[Match]:
        """All matches below a base, which is one itself where only `**` follows."""
        engine, end, only_dirs = self.engine, self.end, self.only_dirs
        name_of, children, type_of = engine.name, engine.children, engine.type
        states = self._closed(frozenset([0]))
        if type_of(base.node) != "dir":
            if not self.parts and not only_dirs:
                yield base
            return
        if end in states and base.path:
            yield base
        pending = [self._frame(base, states)]
        while pending:
            above, plan, kids = pending[-1]
            stay, rest = plan.stay, plan.rest
            prefix = above.path and f"{above.path}/"
            for kid in kids:
                name = name_of(kid)
                after = plan.names.get(name, _NONE)
                for matches, number in plan.patterns:
                    if matches(name):
                        after |= {number}
                if not after and not rest and not (stay and children(kid)):
                    continue
                kind = type_of(kid)
                here = Match(prefix + name, kid, above.links, True)
                if kind == "dir":
                    states = self._closed(after | stay)
                    if end in states:
                        yield here
                    if children(kid):
                        pending.append(self._frame(here, states))
                        break
                    continue
                whole = (end in after or rest) and not only_dirs
                if whole:
                    yield here
                if kind != "symlink" or not (after if only_dirs else after - {end}):
                    continue
                there = self._followed(here)
                if there is not None:
                    states = self._closed(after)
                    if end in states and not whole:
                        yield there
                    pending.append(self._frame(there, states))
                    break
            else:
                pending.pop()

    def _frame(self, at: Match, states: frozenset[int]) -> tuple[Match, _Plan, Iterator[int]]:
        plan = self.plans.get(states)
        if plan is None:
            plan = self.plans[states] = self._plan(states)
        if plan.stay or plan.patterns:
            kids: Sequence[int] = self.engine.children(at.node)
        else:
            found = (self.engine.child(at.node, name) for name in plan.names)
            kids = sorted(kid for kid in found if kid >= 0)
        self.left -= len(kids)
        if self.left < 0:
            raise UsageError(
                f"{quoted(self.pattern)}: too many paths by way of symlinks; say more of what is "
                "meant"
            )
        return at, plan, iter(kids)

    def _plan(self, states: frozenset[int]) -> _Plan:
        parts, end = self.parts, self.end
        stay = frozenset(i for i in states if i < end and parts[i] == "**")
        names: dict[str, frozenset[int]] = {}
        patterns: list[tuple[Callable[[str], object], int]] = []
        for i in sorted(states - stay - {end}):
            if i in self.matchers:
                patterns.append((self.matchers[i], i + 1))
            else:
                names[parts[i]] = names.get(parts[i], _NONE) | {i + 1}
        return _Plan(stay, names, patterns, end - 1 in stay)

    def _closed(self, states: frozenset[int]) -> frozenset[int]:
        """And those that follow where `**` is no directory at all."""
        skipped = {i + 1 for i in states if i < self.end and self.parts[i] == "**"}
        return states | skipped if skipped else states

    def _followed(self, link: Match) -> Match | None:
        """The directory that a symlink leads to."""
        links = list(link.links)
        try:
            node = find(self.engine, self.engine.path(link.node), links=links)
        except (KeyError, OSError):
            return None
        if self.engine.type(node) != "dir" or len(links) > MAX_LINKS:
            return None
        return Match(link.path, node, tuple(links), True)


_NONE: frozenset[int] = frozenset()


# --- selections -------------------------------------------------------------------------


def matches(engine: _toc.Tree, name: str, source: str = "") -> list[Match]:
    """What a name or a pattern means: the path that is so called, if there is one, else all that
    the pattern matches. EntryNotFoundError if there is nothing; a symlink at the end is itself.
    """
    links: list[int] = []
    try:
        node = find(engine, name, follow=False, links=links, source=source)
    except (KeyError, OSError):
        if not is_pattern(name):
            raise
    else:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        path = engine.path(node) if ".." in parts else "/".join(parts)
        return [Match(path, node, tuple(links))]
    found = list(glob(engine, name))
    if not found:
        raise EntryNotFoundError(name, source, pattern=True)
    return found


class Selection(NamedTuple):
    """What some names and patterns mean, less what is excluded.

    `matches` are in the order asked for, those of a pattern in the order of the tree; what is
    asked for twice is there twice. `excluded` has the nodes that patterns exclude, and not those
    below them: `excludes` knows them too. `unmatched` are the patterns that exclude nothing.
    """

    engine: _toc.Tree
    matches: list[Match]
    excluded: frozenset[int]
    unmatched: list[str]

    def excludes(self, node: int) -> bool:
        """Whether a node, or a directory above it, is excluded."""
        parent = self.engine.parent
        while self.excluded:
            if node in self.excluded:
                return True
            if not node:
                break
            node = parent(node)
        return False

    def below(self, node: int) -> Iterator[int]:
        """All that is below a directory and not excluded, in the order of the tree."""
        children = self.engine.children
        pending = [iter(children(node))]
        while pending:
            for kid in pending[-1]:
                if kid not in self.excluded:
                    yield kid
                    if kids := children(kid):
                        pending.append(iter(kids))
                        break
            else:
                pending.pop()


def select(
    engine: _toc.Tree, paths: Iterable[Name], exclude: Iterable[Name] = (), source: str = ""
) -> Selection:
    """What names and patterns mean: all of them are looked up first, and the first that means
    nothing raises EntryNotFoundError.

    `exclude`: names and patterns; one without a "/" (but at its end) is of names in any
    directory, else it is of paths from the root. With a directory all below it is left out.
    """
    found = [match for path in paths for match in matches(engine, text(path), source)]
    excluded: set[int] = set()
    unmatched = []
    for pattern in map(text, exclude):
        nodes = _excluded(engine, pattern)
        excluded.update(nodes)
        if not nodes:
            unmatched.append(pattern)
    selection = Selection(engine, found, frozenset(excluded), unmatched)
    if not excluded:
        return selection
    kept = [m for m in found if not any(map(selection.excludes, (m.node, *m.links)))]
    return Selection(engine, kept, selection.excluded, unmatched)


def names(
    engine: _toc.Tree, patterns: Name | Iterable[Name], exclude: Name | Iterable[Name] = ()
) -> list[str]:
    """The paths that names and patterns match, each once; those that match nothing are no error."""
    found: dict[str, None] = {}
    left_out = listed(exclude)
    for pattern in listed(patterns):
        with suppress(KeyError, OSError):
            selection = select(engine, [pattern], left_out)
            found.update((match.path, None) for match in selection.matches)
    found.pop("", None)  # the root
    return list(found)


def listed(given: Name | Iterable[Name]) -> list[Name]:
    return [given] if isinstance(given, str | os.PathLike) else list(given)


def _excluded(engine: _toc.Tree, pattern: str) -> set[int]:
    """What a name or a pattern excludes: what is so called and what it matches, so that no name in
    a layer keeps a pattern from the others."""
    if not pattern:
        raise UsageError("what is excluded has a name or a pattern, not ''")
    found: set[int] = set()
    if all(part in ("", ".", "..") for part in pattern.split("/")):
        found = {0}
    elif "/" in pattern.rstrip("/"):
        with suppress(KeyError, OSError):
            found = {find(engine, pattern, follow=False)}
        found.update(match.node for match in glob(engine, pattern))
    else:
        for one in escaped(pattern), pattern:
            found.update(match.node for match in glob(engine, f"**/{one}"))
    if 0 in found:
        raise UsageError(f"{quoted(pattern)} is the root: nothing would be left to exclude it from")
    return found
