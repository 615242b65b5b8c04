"""Which of the manifests that an index lists, and the indexes in it, are images, and of which
platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stargz.errors import FormatError, PlatformError
from stargz.oci.formats.manifest import (
    INDEXES,
    KNOWN,
    MAX_INDEX_NESTING,
    MAX_MANIFESTS,
    Descriptor,
    Manifest,
    is_attestation,
    is_image,
)
from stargz.oci.formats.platforms import Platform, platform_of

Load = Callable[[Descriptor], Manifest]
"""Gets a manifest by its descriptor."""


def select(index: Manifest, wanted: Platform, load: Load) -> Descriptor:
    """The entry of an index that is the image for a platform, or an index that leads to one.

    The first with the platform, or a variant that runs on it; else the first index without a
    platform in which there is one; else the only image that states none. Raises PlatformError that
    lists the platforms there are, FormatError where there are too many indexes.
    """
    return _Selection(wanted, load).select(index, 1)


def descend(found: Manifest, wanted: Platform, load: Load) -> Manifest:
    """The image's manifest for a platform, below at most MAX_INDEX_NESTING indexes, by `select`.
    FormatError where there are more."""
    return path_to(found, wanted, load)[-1]


def path_to(found: Manifest, wanted: Platform, load: Load) -> list[Manifest]:
    """The indexes that lead to what `descend` finds, and that."""
    selection = _Selection(wanted, load)
    path = [found]
    while path[-1].kind == "index":
        if len(path) > MAX_INDEX_NESTING:
            raise _too_deep(found)
        path.append(selection.load(selection.select(path[-1], len(path))))
    return path


class _Selection:
    """One platform of an image; each index in an index is read once."""

    def __init__(self, wanted: Platform, load: Load) -> None:
        self._wanted = wanted
        self._load = load
        self._loaded: dict[str, Manifest] = {}
        self._leads: dict[tuple[str, bool], bool] = {}
        self._there: dict[str, None] = {}  # the platforms that were seen

    def load(self, entry: Descriptor) -> Manifest:
        """A manifest by its descriptor."""
        found = self._loaded.get(entry.digest)
        if found is None:
            if len(self._loaded) >= MAX_MANIFESTS:
                raise FormatError(f"more than {MAX_MANIFESTS} manifests")
            found = self._loaded[entry.digest] = self._load(entry)
        return found

    def select(self, index: Manifest, depth: int) -> Descriptor:
        """See `select`; `index` is below so many, with itself."""
        found = self._candidates(index, True)
        if len(found) == 1:
            return found[0]
        for silent in (False, True):
            for entry in self._candidates(index, silent):
                if self._leads_on(entry, index, depth, silent):
                    return entry
        raise PlatformError(
            f"no image for {self._wanted} in the index; it has "
            f"{', '.join(self._there)[:300] or 'none'} (--platform)",
            index.source,
        )

    def _candidates(self, index: Manifest, silent: bool) -> list[Descriptor]:
        """What has the platform, the best first, and indexes without any; also the only image
        without one, if it may be `silent`."""
        entries = [
            (platform_of(entry.platform), entry)
            for entry in index.manifests
            if entry.media_type in KNOWN and not is_attestation(entry)
        ]
        self._there.update((str(platform), None) for platform, _ in entries if platform)
        found = [
            entry
            for accepted in self._wanted.acceptable()
            for platform, entry in entries
            if platform is not None and platform.normal() == accepted
        ]
        others = [entry for platform, entry in entries if platform is None]
        found += [entry for entry in others if entry.media_type in INDEXES]
        images = [entry for entry in others if entry.media_type not in INDEXES]
        return found + (images if silent and len(images) == 1 else [])

    def _leads_on(self, entry: Descriptor, index: Manifest, depth: int, silent: bool) -> bool:
        """Whether it is an image, or an index in which there is one."""
        if entry.media_type not in INDEXES:
            return True
        if depth >= MAX_INDEX_NESTING:
            raise _too_deep(index)
        key = entry.digest, silent
        if key not in self._leads:
            inner = self.load(entry)
            self._leads[key] = any(
                self._leads_on(one, inner, depth + 1, silent)
                for one in self._candidates(inner, silent)
            )
        return self._leads[key]


def _too_deep(found: Manifest) -> FormatError:
    return FormatError(
        f"more than {MAX_INDEX_NESTING} indexes one inside the other (index nesting)",
        found.source,
    )


def images(found: Manifest, load: Load) -> Iterator[tuple[Platform | None, Manifest]]:
    """The manifests of all images in an index, or the image itself, with the platforms that the
    index states for them; attestations and other artifacts are left out.

    FormatError where there are too many.
    """
    seen = {found.digest}
    pending: list[tuple[Platform | None, Manifest, int]] = [(None, found, 0)]
    while pending:
        platform, manifest, depth = pending.pop()
        if manifest.kind == "manifest":
            if is_image(manifest):
                yield platform, manifest
            continue
        if depth == MAX_INDEX_NESTING:
            raise _too_deep(found)
        below = []
        for entry in manifest.manifests:
            if entry.media_type not in KNOWN or is_attestation(entry) or entry.digest in seen:
                continue
            seen.add(entry.digest)
            if len(seen) > MAX_MANIFESTS:
                raise FormatError(f"more than {MAX_MANIFESTS} manifests", found.source)
            below.append((platform_of(entry.platform) or platform, load(entry), depth + 1))
        pending += reversed(below)
