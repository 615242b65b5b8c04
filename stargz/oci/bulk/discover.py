"""Which images a bulk run converts, and to where: found as the run goes on, never all at once.

SRC is a registry, a repository, one image, a file of references, a folder of OCI image layouts,
or a registry's storage folder; DST a registry (or a part of one), a repository, or a folder of
layouts.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from stargz.digests import is_digest
from stargz.errors import (
    RegistryError,
    SourceError,
    StargzError,
    UsageError,
    mask_reference,
    not_text,
)
from stargz.oci.bulk.patterns import Filter
from stargz.oci.bulk.places import Places, is_below, is_host, normal, same_root
from stargz.oci.formats.layout import Layout
from stargz.oci.formats.manifest import EXTERNAL
from stargz.oci.formats.reference import (
    IMAGE_PREFIXES,
    MAX_NAME,
    MAX_TAG,
    STDIN,
    ArchiveReference,
    LayoutReference,
    Reference,
    StorageReference,
    check_registry,
    is_tag,
    parse_image,
    parse_reference,
)
from stargz.oci.registry.client import RegistryClient

STORAGE = Path("docker", "registry", "v2", "repositories")
_AHEAD = 4  # repositories whose tags are asked for at the same time
_MAX_LINE = 4 << 10
_LONGEST_REF = MAX_NAME + 1 + MAX_TAG  # characters of a layout's reference: a whole name
# What refers to an image by a tag made of its digest: cosign's, and the referrers tag.
_COMPANION = re.compile(r"sha256-[0-9a-f]{64}(\.[A-Za-z0-9_.-]*)?")


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and where its twin goes; or, with `error`, why there is none."""

    source: str  # docker://host/repo:tag, oci:DIR:ref, ...
    destination: str
    error: StargzError | OSError | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An image of a source, before it is known where its twin goes."""

    source: str
    repository: str  # as the source names it, without a registry
    tag: str
    destination: str | None = None  # its own
    error: StargzError | OSError | None = None


# --- sources ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """SRC, taken apart. `root` is where its repositories are, in the form that a destination's
    root has; None where each image has its own. `repository` is the only one, if it names one, and
    `tag` the only image."""

    images: Callable[[Filter], Iterator[Found]]
    root: str | None = None
    repository: str | None = None
    tag: str | None = None


def _open_source(src: str, client: RegistryClient) -> _Source:
    if src.startswith("docker://"):
        return _registry(src, client)
    if src.startswith("storage:"):
        return _storage_named(src)
    if src.startswith(("docker-archive:", "oci-archive:")):
        raise UsageError(
            f"{src}: an archive is converted with stargz image convert, or named in a file of "
            "references"
        )
    ref = None
    path = Path(src)
    if src.startswith("oci:"):
        place = parse_image(src)
        assert isinstance(place, LayoutReference)
        path, ref = Path(place.path), place.ref
    if path.is_dir():
        if ref is None and (path / STORAGE).is_dir():
            return _storage(path)
        return _layouts(path, ref)
    if ref is not None or src.startswith("oci:"):
        raise SourceError(f"{src}: no such directory")
    if path.exists():
        return _Source(lambda chosen: _listed(path, chosen))
    if re.match(r"[A-Za-z0-9.-]+(:\d+)?(/|$)", src) and "." in src.partition("/")[0]:
        raise UsageError(f"{src}: no such file or folder; a registry is docker://{src}")
    raise SourceError(f"{src}: no such file or folder")


def _registry(src: str, client: RegistryClient) -> _Source:
    text = src.removeprefix("docker://")
    if is_host(text):
        registry = check_registry(text.rstrip("/"), src)
        return _Source(
            lambda chosen: _catalog(registry, client, chosen), root=f"docker://{registry}"
        )
    reference = parse_reference(text)
    root = f"docker://{reference.registry}"
    repository = reference.repository
    if reference.tag or reference.digest:
        found = Found(f"docker://{reference}", repository, _tag_of(reference))
        return _Source(lambda chosen: _chosen([found], chosen), root, repository, found.tag)
    return _Source(
        lambda chosen: _chosen(_tagged(reference, client.tags(reference)), chosen), root, repository
    )


def _tag_of(reference: Reference) -> str:
    """Its tag; a digest alone becomes one: sha256.HEX (with a dash, signatures are found by it)."""
    if reference.tag:
        return reference.tag
    return (reference.digest or "latest").replace(":", ".")[:128]


def _tagged(reference: Reference, tags: Iterator[str] | Sequence[str]) -> Iterator[Found]:
    for tag in tags:
        if not _is_companion(tag):
            yield Found(f"docker://{reference.with_tag(tag)}", reference.repository, tag)


def _is_companion(tag: str) -> bool:
    """Signatures and the like go with the image that they are for, and not by themselves."""
    return bool(_COMPANION.fullmatch(tag)) or tag.endswith(EXTERNAL)


def _chosen(found: Iterator[Found] | Sequence[Found], chosen: Filter) -> Iterator[Found]:
    for one in found:
        if chosen.has(one.repository, one.tag):
            yield one


def _catalog(registry: str, client: RegistryClient, chosen: Filter) -> Iterator[Found]:
    def repositories() -> Iterator[str]:
        for name in client.catalog(registry):
            if chosen.may_have(name):
                yield name

    def tags(name: str) -> tuple[Reference | None, list[str]]:
        try:
            reference = parse_reference(f"{registry}/{name}")
            return reference, list(client.tags(reference))
        except RegistryError as error:
            if error.status == 404:
                return None, []  # of a catalog's repository, all of whose images were deleted
            raise

    names = repositories()
    with ThreadPoolExecutor(_AHEAD, "stargz-tags") as threads:
        ahead: deque[tuple[str, Future[tuple[Reference | None, list[str]]]]] = deque()
        try:
            while True:
                while len(ahead) < _AHEAD and (name := next(names, None)) is not None:
                    ahead.append((name, threads.submit(tags, name)))
                if not ahead:
                    return
                name, future = ahead.popleft()
                try:
                    reference, listed = future.result()
                except (StargzError, OSError) as error:
                    yield Found(f"docker://{registry}/{name}", name, "", error=error)
                    continue
                if reference is not None:
                    yield from _chosen(_tagged(reference, listed), chosen)
        finally:
            for _, future in ahead:
                future.cancel()


def _storage_named(src: str) -> _Source:
    path, slashes, name = src.removeprefix("storage:").rpartition("//")
    if not slashes or not name:
        return _storage(Path((path or name).rstrip("/") or "/"))
    place = parse_image(src)
    assert isinstance(place, StorageReference)
    source = _storage(Path(place.path), place.repository)
    if not place.tag and not place.digest:
        return source
    tag = _tag_of(Reference("", place.repository, place.tag, place.digest))
    found = Found(str(place), place.repository, tag)
    return _Source(lambda chosen: _chosen([found], chosen), source.root, place.repository, tag)


def _storage(path: Path, repository: str | None = None) -> _Source:
    from stargz.oci.formats.storage import Storage

    storage = Storage(path)

    def images(chosen: Filter) -> Iterator[Found]:
        for name in (repository,) if repository else storage.repositories():
            if not chosen.may_have(name):
                continue
            for tag in storage.tags(name):
                if chosen.has(name, tag) and not _is_companion(tag):
                    yield Found(str(StorageReference(str(path), name, tag)), name, tag)

    return _Source(images, f"storage:{path}", repository)


# --- folders of layouts -----------------------------------------------------------------


def _layouts(path: Path, ref: str | None) -> _Source:
    root = f"oci:{path}"
    name = path.resolve().name or "layout"
    if ref is not None:
        tag = _tag_in(ref) or "latest"
        found = Found(f"oci:{path}:{ref}", name, tag)
        return _Source(lambda chosen: _chosen([found], chosen), f"oci:{path.parent}", name, tag)
    if (path / "oci-layout").exists():
        return _Source(
            lambda chosen: _chosen(_in_layout(path, name), chosen), f"oci:{path.parent}", name
        )

    def images(chosen: Filter) -> Iterator[Found]:
        seen = False
        for folder in _walk(path):
            seen = True
            name = folder.relative_to(path).as_posix()
            if not chosen.may_have(name):
                continue
            try:
                yield from _chosen(_in_layout(folder, name), chosen)
            except (StargzError, OSError) as error:
                yield Found(f"oci:{folder}", name, "", error=error)
        if not seen:
            raise SourceError(
                f"{path}: neither an OCI image layout, nor are there any in it, nor is it the "
                "storage folder of a registry"
            )

    return _Source(images, root)


def _walk(path: Path) -> Iterator[Path]:
    """The layouts below a folder; symlinks are not followed."""
    for folder, names, files in os.walk(path):
        names.sort()
        if "oci-layout" in files:
            if "blobs" in names:
                names.remove("blobs")
            yield Path(folder)


def _in_layout(path: Path, name: str) -> Iterator[Found]:
    layout = Layout(path)
    refs = dict.fromkeys(layout.refs())
    entries = layout.images
    if refs:
        for ref in refs:
            tag = _tag_in(ref)
            if not ref.isprintable():  # half a surrogate pair, or NUL, is the name of no file
                tag, ref = None, repr(ref)[1:-1]
            if len(ref) > _LONGEST_REF:
                tag, ref = None, f"{ref[:_LONGEST_REF]}..."
            source = f"oci:{path}:{ref}"
            if tag is None:
                error = UsageError(f"{source}: it has no tag in it that a registry would take")
                yield Found(source, name, "", error=error)
            elif not _is_companion(tag):
                yield Found(source, name, tag)
    elif len({entry.digest for entry in entries}) == 1 or (
        entries and all(entry.platform for entry in entries)
    ):
        yield Found(f"oci:{path}", name, "latest")
    else:
        for digest in dict.fromkeys(entry.digest for entry in entries):
            yield Found(f"oci:{path}:{digest}", name, digest.replace(":", ".")[:128])


def _tag_in(ref: str) -> str | None:
    """The tag of a layout's reference, which may be the whole name of an image."""
    if is_tag(ref):
        return ref
    if is_digest(ref):
        return ref.replace(":", ".")[:128]
    tag = ref.rpartition(":")[2]
    return tag if is_tag(tag) else None


# --- a file of references ---------------------------------------------------------------


def _listed(path: Path, chosen: Filter) -> Iterator[Found]:
    with path.open("rb") as file:
        if why := not_text(file.read(_MAX_LINE)):
            raise UsageError(f"{path}: {why}")
        file.seek(0)
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            where = f"{path}, line {number}"
            text = os.fsdecode(line).partition("#")[0] if b"#" in line else os.fsdecode(line)
            words = text.split()
            if not words:
                continue
            if len(line) == _MAX_LINE or len(words) > 2 or "\0" in text:
                error = UsageError(f"{where}: not a reference, or two; is it the right file?")
                yield Found(where, "", "", error=error)
                continue
            try:
                found = _line(words)
            except (StargzError, OSError) as error:
                shown = mask_reference(words[0])
                yield Found(shown, shown, "", error=UsageError(f"{where}: {error}"))
                continue
            if chosen.has(found.repository, found.tag):
                yield found


def _line(words: list[str]) -> Found:
    name, tag, source = _named(words[0])
    own = None
    if len(words) > 1:
        text = words[1] if words[1].startswith(IMAGE_PREFIXES) else f"docker://{words[1]}"
        place = parse_image(text)
        if isinstance(place, LayoutReference):
            own = str(place if place.ref else LayoutReference(place.path, tag))
        elif isinstance(place, ArchiveReference) and place.kind == "oci-archive":
            own = str(place if place.ref else replace(place, ref=tag))
        elif not isinstance(place, Reference):
            raise UsageError(f"{words[1]}: nothing is written there; give docker://... or oci:DIR")
        elif place.digest:
            raise UsageError(f"{words[1]}: a destination has a tag, not a digest")
        else:
            own = f"docker://{place if place.tag else place.with_tag(tag)}"
    return Found(source, name, tag, own)


def _named(source: str) -> tuple[str, str, str]:
    """Repository, tag and whole name of an image that a file names."""
    place = parse_image(source if source.startswith(IMAGE_PREFIXES) else f"docker://{source}")
    if isinstance(place, LayoutReference):
        return Path(place.path).resolve().name, _tag_in(place.ref or "latest") or "latest", source
    if isinstance(place, ArchiveReference):
        if place.path == STDIN:
            raise UsageError(f"{source}: standard input is one archive: stargz image convert")
        tag = _tag_in(place.ref) if place.ref and not place.ref.startswith("@") else None
        return Path(place.path).name.partition(".")[0], tag or "latest", source
    if isinstance(place, StorageReference):
        tag = _tag_of(Reference("", place.repository, place.tag, place.digest))
        return place.repository, tag, source
    if not place.tag and not place.digest:
        place = place.with_tag("latest")
    return place.repository, _tag_of(place), f"docker://{place}"


def discover(
    src: str,
    dst: str | None,
    *,
    client: RegistryClient,
    chosen: Filter | None = None,
    upgrade: bool = False,
    stays: bool = False,
) -> Iterator[Pair]:
    """The images of SRC and their destinations, in the order in which they are found: with
    `upgrade` and `stays` themselves. What is written beside images that stay as they are needs no
    tag.

    A source that names one repository (`docker://host/repo`, with or without a tag, or one
    layout) has a destination that names one; below `docker://host`, and below any DST that ends
    in a slash, repositories keep their names. Tags by which signatures and external TOCs
    are found are left out. Raises UsageError at once, StargzError and OSError for a source that
    cannot be listed; images that cannot be converted come with an error.
    """
    chosen = chosen or Filter()
    source = _open_source(src, client)
    places = None
    if upgrade and dst is not None:
        raise UsageError("--upgrade replaces images under their own names: leave DST out")
    if (upgrade or stays) and (source.root or "").startswith("storage:"):
        raise UsageError(f"{src}: a registry's storage folder is only read; name a DST")
    if dst is not None:
        places = Places(dst, source.repository, source.tag)
        _refuse_same(src, dst, source, places)
    elif not (upgrade or stays) and source.root is not None:
        raise UsageError("DST is needed: docker://HOST[/PREFIX] or oci:DIR; or --upgrade")
    return _pairs(source, places, chosen, upgrade, stays)


def _pairs(
    source: _Source, places: Places | None, chosen: Filter, upgrade: bool, stays: bool
) -> Iterator[Pair]:
    for found in source.images(chosen):
        if found.error is not None:
            yield Pair(found.source, "", found.error)
            continue
        if places and not places.fixed and is_below(found.source, places.root, source.root):
            continue  # made by an earlier run
        try:
            yield Pair(found.source, _destination(found, places, upgrade, stays))
        except StargzError as error:
            yield Pair(found.source, "", error)


def _destination(found: Found, places: Places | None, upgrade: bool, stays: bool) -> str:
    if found.destination is not None:
        made = found.destination
    elif places is not None:
        made = places.of(found.repository, found.tag)
    elif stays:
        if not found.source.startswith(("docker://", "oci:")):
            raise UsageError(f"{found.source}: nothing can be added to it; name a destination")
        return found.source
    elif not upgrade:
        raise UsageError(f"{found.source}: no DST, and none beside it in the file")
    else:
        made = found.source
        if "@sha" in made or not made.startswith(("docker://", "oci:")):
            raise UsageError(f"{made}: --upgrade needs a tag to replace; name a destination")
        return made
    if normal(found.source) == normal(made):
        raise UsageError(
            f"{found.source}: source and destination are the same; --upgrade allows it"
        )
    return made


def _refuse_same(src: str, dst: str, source: _Source, places: Places) -> None:
    if source.root is None:
        return
    here, there = source.root, places.root
    if places.fixed:
        here += f"/{source.repository}"
        if source.tag and places.tag and source.tag != places.tag:
            return
    if same_root(here) == same_root(there):
        raise UsageError(
            f"{src} and {dst} are the same place; --upgrade (without DST) replaces images under "
            "their own names"
        )
