"""Which images of a source a bulk run is for: --include and --exclude."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from stargz.errors import UsageError
from stargz.wildcards import matcher


class Filter:
    """Patterns on images, as the shell's, where * matches slashes too. REPOSITORY:TAG has one for
    each; without a colon a pattern is for the repository with all its tags, for a tag in any
    repository, and for the two together."""

    def __init__(
        self, include: Sequence[str] = (), exclude: Sequence[str] = (), host: str | None = None
    ) -> None:
        self._host = host  # of the registry that the images are in, if it is one
        self._include = [_Pattern(text) for text in include]
        self._exclude = [_Pattern(text) for text in exclude]

    def may_have(self, repository: str) -> bool:
        """Whether any tag of it can be chosen."""
        excluded = [one.is_all_of(repository) for one in self._exclude]
        included = [one.may_match(repository) for one in self._include]
        return not any(excluded) and (not included or any(included))

    def has(self, repository: str, tag: str) -> bool:
        """Whether an image is chosen."""
        # Each is asked, to know in the end which matched nothing.
        included = [one.matches(repository, tag) for one in self._include]
        excluded = [one.matches(repository, tag) for one in self._exclude]
        return (not included or any(included)) and not any(excluded)

    def unused(self) -> Iterator[str]:
        """What to say of the patterns that matched nothing of what was found."""
        for option, patterns in ("--include", self._include), ("--exclude", self._exclude):
            for one in patterns:
                if not one.used:
                    yield f"{option} {one.text!r} matches no image{self._hint(one.text)}"

    def _hint(self, text: str) -> str:
        name = text.removeprefix("docker://")
        if self._host and name.startswith(f"{self._host}/"):
            name = name.removeprefix(f"{self._host}/")
            return f" (patterns are without the registry: {name or '*'!r})"
        if name != text:
            return " (patterns are without the registry)"
        return ""

    def none_chosen(self) -> str | None:
        """What to say where images were asked for by pattern, and none was found."""
        if not self._include:
            return None
        if not any(one.used for one in self._exclude):
            return f"no image is chosen: {'; '.join(self.unused())}"
        # Where all of a repository is left out, no tag of it has been looked at.
        names = ", ".join(f"{one.text!r}{self._hint(one.text)}" for one in self._include)
        return f"no image is chosen: --exclude leaves out what --include {names} may match"


class _Pattern:
    def __init__(self, text: str) -> None:
        name, colon, tag = text.rpartition(":")
        if not text or (colon and not (name and tag)):
            raise UsageError(f"{text!r} is not a pattern: give REPOSITORY[:TAG], with * ? []")
        self.text = text
        self.used = False
        self._name = matcher(name if colon else text)
        self._tag = matcher(tag) if colon else None
        # What a repository begins with whose images it can match; "" if it may be one for tags.
        fixed = re.split(r"[*?[\\]", name if colon else text)[0]
        self._prefix = fixed if colon or "/" in text else ""

    def matches(self, repository: str, tag: str) -> bool:
        """Whether it is for this image."""
        if self._tag is not None:
            found = bool(self._name(repository) and self._tag(tag))
        else:
            names = repository, tag, f"{repository}:{tag}"
            found = any(map(self._name, names))
        self.used = self.used or found
        return found

    def is_all_of(self, repository: str) -> bool:
        """Whether it is for all tags of a repository."""
        found = self._tag is None and bool(self._name(repository))
        self.used = self.used or found
        return found

    def may_match(self, repository: str) -> bool:
        """Whether it can be for a tag of a repository."""
        if self._tag is not None:
            return bool(self._name(repository))
        return repository.startswith(self._prefix)
