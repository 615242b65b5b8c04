"""An image's files, below a directory: all layers merged, as a container has them.

Layers that are seekable are read where they are, so that a few files of a remote image cost what
they hold. Those of an ordinary image are merged into one such layer first, in temporary files.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from stargz import opening, paths
from stargz.cache import Cache
from stargz.conversion import convert_as
from stargz.durable import release, unlinked
from stargz.errors import (
    EntryNotFoundError,
    FooterError,
    FormatError,
    SourceError,
    UnindexableError,
    UnverifiedError,
    UsageError,
)
from stargz.extract import ExtractOptions, ExtractResult, Member, Part, Xattrs, check, extract
from stargz.layer import Layer
from stargz.oci.convert.flatten import Shadowed, merged_tar
from stargz.oci.convert.layers import Input, explained
from stargz.oci.formats.manifest import MAX_CONFIG_SIZE, layer_kind, load_json
from stargz.oci.formats.platforms import Platform, platform_of
from stargz.oci.formats.selection import images
from stargz.oci.image import Image, SharedFetcher
from stargz.oci.loading import as_platform
from stargz.oci.registry.options import RegistryOptions, check_keywords
from stargz.oci.repository import Repository, open_repository
from stargz.opening import OpenOptions
from stargz.options import MAX_TOC_SIZE, ConvertOptions
from stargz.paths import Name
from stargz.sources.forward import Blocks
from stargz.sources.spool import FULL
from stargz.tree import Tree

__all__ = ["ImageExtractResult", "extract_image"]

MAX_SHADOWED = 10  # links that are told of


@dataclass(frozen=True)
class ImageExtractResult(ExtractResult):
    """What was written of an image; see ExtractResult."""

    platform: str | None = None
    """What the image's config says that it is for."""
    digest: str = ""
    """Of the image's manifest."""
    directory: str = ""
    """Where it was written."""
    verified: bool = False
    """Whether all that was written was checked by way of the manifest's digest."""
    warnings: tuple[str, ...] = ()
    """What is not as an ordinary image's layers have it, as `stargz.convert` tells of a tar; and,
    where all is written, symlinks in whose place there are directories (the first of them)."""

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "platform": self.platform,
            "digest": self.digest,
            "directory": self.directory,
            "verified": self.verified,
            **super().to_json(),
            "warnings": self.warnings,
        }


def extract_image(
    src: str,
    path: str | os.PathLike[str] = ".",
    members: Iterable[Member] | None = None,
    *,
    platform: str | Platform | None = None,
    all_platforms: bool = False,
    exclude: Name | Iterable[Name] = (),
    strip_components: int = 0,
    keep_going: bool = False,
    threads: int | None = None,
    same_owner: bool | None = None,
    devices: bool = False,
    setid: bool = False,
    xattrs: Xattrs = "user",
    verify: bool = True,
    require_verified: bool = False,
    max_toc_size: int = MAX_TOC_SIZE,
    progress: Callable[[int, int], object] | None = None,
    written: Callable[[str], object] | None = None,
    cache: Cache | str | os.PathLike[str] | bool | None = None,
    **registry: Unpack[RegistryOptions],
) -> list[ImageExtractResult]:
    """Write an image, or some members of it, below the directory `path`: its layers merged, with
    whiteouts applied, as `stargz.layer.Layer.extractall` writes one layer. A result for each
    platform that was written.

    `platform` is "linux/arm64" or the like (default: Linux on this machine's architecture). With
    `all_platforms` each that the image is for goes into a directory of its own, such as
    `path`/linux-arm64-v8 (further ones for the same platform with the beginning of their digest
    behind that); attestations are no images. Ordinary images are read as a whole, into temporary
    files (TMPDIR): what they hold in a tar's odd ways is there as `stargz.convert_image`
    with `flatten` has it. `cache` and `registry` are the options of `open_image`.

    Raises what that and `extractall` do.
    """
    check_keywords("extract_image", registry)
    if all_platforms and platform is not None:
        raise UsageError(
            "platform (--platform) and all_platforms (--all-platforms) contradict each other"
        )
    if isinstance(members, str | bytes | os.PathLike):
        raise UsageError("members is a list of names, not one name")
    asked = None if members is None else list(members)
    chosen = as_platform(platform)
    excluded = paths.listed(exclude)
    options = ExtractOptions(
        strip_components=strip_components,
        keep_going=keep_going,
        threads=threads,
        same_owner=same_owner,
        devices=devices,
        setid=setid,
        xattrs=xattrs,
        verify=verify,
        progress=progress,
        written=written,
    )

    shared = SharedFetcher(cache, prefetch=False, background=False)
    reading = OpenOptions(
        verify, require_verified, threads, max_toc_size, cache, fetcher=shared.get
    )
    with ExitStack() as stack:
        stack.callback(shared.close)
        repository = stack.enter_context(open_repository(paths.text(src), **registry))
        if all_platforms:
            wanted = _platforms(repository, path)
        else:
            wanted = [(path, Image(repository, chosen))]
        # All are opened, and asked for the members, before the first is written.
        found = [
            (folder, stack.enter_context(_opened(image, reading, progress, asked is not None)))
            for folder, image in wanted
        ]
        if all_platforms and (asked is not None or excluded):
            for _, source in found:
                source.check(asked, excluded)
        return [source.extract(folder, asked, excluded, options) for folder, source in found]


def _platforms(
    repository: Repository, path: str | os.PathLike[str]
) -> list[tuple[str | os.PathLike[str], Image]]:
    """The image of each platform, and its directory below `path`."""
    found: dict[str, Image] = {}
    for stated, manifest in images(repository.root(), repository.manifest):
        platform = stated
        if platform is None:
            config = repository.read_blob(manifest.config, MAX_CONFIG_SIZE)
            platform = platform_of(load_json(config, manifest.source))
        if platform is None:
            raise FormatError(
                f"the image {manifest.digest} does not say what platform it is for",
                repository.name,
            )
        folder = _folder(platform, repository.name)
        if folder in found:  # of several versions of Windows, say, or several compressions
            folder += f"-{manifest.digest.partition(':')[2][:12]}"
        if folder in found:
            raise FormatError(f"two images for the directory {folder}", repository.name)
        image = found[folder] = Image(repository, None, manifest)
        image.name = f"{repository.name} ({platform})"  # what errors call it
    return [(Path(path, folder), image) for folder, image in found.items()]


def _folder(platform: Platform, name: str) -> str:
    """What a platform's directory is called."""
    parts = [platform.os, platform.architecture, *filter(None, [platform.variant])]
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", part):
            raise FormatError(f"the platform {str(platform)[:100]!r} names no directory", name)
    return "-".join(parts)


@dataclass(frozen=True)
class _Opened:
    """An image with its layers, or the one that they come to; `verified` is whether its digest
    vouches for all that is read."""

    image: Image
    layers: list[Layer]
    verified: bool
    warnings: Sequence[str] = ()
    shadowed: Sequence[Shadowed] = ()
    listed: bool = True  # whether `image ls` can list it

    def extract(
        self,
        path: str | os.PathLike[str],
        members: list[Member] | None,
        exclude: list[Name],
        options: ExtractOptions,
    ) -> ImageExtractResult:
        """Write the members below `path`."""
        warnings = list(self.warnings)
        with self._parts(whole=members is None) as (parts, engine):
            if members is None:
                warnings += map(str, [*self.shadowed, *_shadowed(engine)][:MAX_SHADOWED])
            found = extract(parts, engine, self.image.name, path, members, exclude, options)
        return ImageExtractResult(
            **vars(found),
            platform=str(self.image.platform) if self.image.platform else None,
            digest=self.image.digest,
            directory=os.fspath(path),
            verified=self.verified,
            warnings=tuple(warnings),
        )

    def check(self, members: list[Member] | None, exclude: list[Name]) -> None:
        """Raise what `extract` would for members that are not there."""
        with self._parts(whole=False) as (parts, engine):
            check(parts, engine, self.image.name, members, exclude)

    @contextmanager
    def _parts(self, *, whole: bool) -> Iterator[tuple[list[Part], Any]]:
        with ExitStack() as stack:
            blocks = stack.enter_context(Blocks())
            parts = [
                stack.enter_context(layer.part(whole=whole, blocks=blocks)) for layer in self.layers
            ]
            try:
                yield parts, Tree(self.layers, name=self.image.name).engine
            except EntryNotFoundError as error:
                error.listed = self.listed
                raise


@contextmanager
def _opened(
    image: Image,
    options: OpenOptions,
    progress: Callable[[int, int], object] | None,
    partly: bool,
) -> Iterator[_Opened]:
    """An image with its layers open, or merged if they are not seekable. Its SOCI index is of use
    where it is wanted `partly`: of all of it nothing needs to be read twice."""
    try:
        with ExitStack() as stack:
            image.open_layers(options, stack, index=None if partly and image.soci.get() else False)
    except (FooterError, UnverifiedError):
        # Whatever the layers are: all of them are read, and checked by their digests.
        with _merged(image, options.threads, progress) as (layer, warnings, shadowed):
            yield _Opened(image, [layer], True, warnings, shadowed, listed=False)
        return
    with image:
        yield _Opened(image, image.layers, image.verified)


def _shadowed(engine: Any) -> Iterator[Shadowed]:
    """The symlinks of layers in whose place there are directories that no layer lists."""
    tocs = engine.tocs
    for below, toc in enumerate(tocs[:-1]):
        for path in toc.names("symlink"):
            node = engine.find(path)
            if node < 0 or engine.type(node) != "dir":
                continue
            above, row = engine.row(node)
            folder, _, name = path.rpartition("/")
            gone = f"{folder}/.wh.{name}".lstrip("/")
            if row < 0 and all(toc.lookup(gone) < 0 for toc in tocs[below + 1 : above + 1]):
                yield Shadowed(above, path, toc.link(toc.lookup(path)))


@contextmanager
def _merged(
    image: Image, threads: int | None, progress: Callable[[int, int], object] | None
) -> Iterator[tuple[Layer, Sequence[str], Sequence[Shadowed]]]:
    """A layer of the layers of an ordinary image, and what is not as they have it. Progress is in
    their own bytes."""
    total, done = sum(entry.size for entry in image.descriptors), 0

    def told(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    for number, entry in enumerate(image.descriptors):
        if layer_kind(entry) != "tar":
            raise FormatError(
                f"{image.describe(number)} is of the kind {entry.media_type[:100]!r}: such layers "
                "cannot be extracted"
            )
    with ExitStack() as kept:
        spool = unlinked()
        kept.callback(release, spool)
        file = io.FileIO(spool, "r+", closefd=False)
        file.name = name = f"{image.name}: its layers merged"
        with ExitStack() as stack:
            streams = [
                stack.enter_context(closing(image.repository.stream_blob(entry)))
                for entry in image.descriptors
            ]
            stack.enter_context(explained(streams))
            inputs = [
                Input(image.describe(number), stream, told) for number, stream in enumerate(streams)
            ]
            tar: Any = stack.enter_context(merged_tar(inputs, lone_as_is=True, name=name))
            try:
                made = convert_as(ConvertOptions(level=1), tar, file, threads)
            except UnindexableError as error:
                # (Its offset is in a tar that nobody has.)
                raise UnindexableError(
                    f"{error.message}, or unpack the image with umoci or podman", name
                ) from error
            except OSError as error:
                if error.errno not in FULL:
                    raise
                raise SourceError(
                    f"{image.name}: its layers must be merged in {tempfile.gettempdir()}: no space "
                    "is left; let TMPDIR name a larger place"
                ) from error
            for stream in streams:
                stream.finish()
        with opening.open(file, toc_digest=made.toc_digest, threads=threads) as layer:
            yield layer, made.warnings, tar.shadowed
