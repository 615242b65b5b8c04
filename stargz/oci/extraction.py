"""An image's files, below a directory: all layers merged, as a container has them.

Layers that are seekable are read where they are, so that a few files of a remote image cost what
they hold. Those of an ordinary image are merged into one such layer first, in temporary files.
"""

from __future__ import annotations

import errno
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from stargz import opening, paths
from stargz.cache import Cache
from stargz.conversion import convert_as
from stargz.errors import FooterError, FormatError, SourceError, UnverifiedError, UsageError
from stargz.extract import ExtractOptions, ExtractResult, Member, Xattrs, extract
from stargz.layer import Layer
from stargz.oci.convert.flatten import merged_tar
from stargz.oci.convert.layers import Input, explained
from stargz.oci.formats.manifest import MAX_CONFIG_SIZE, images, layer_kind, load_json
from stargz.oci.formats.platforms import Platform, platform_of
from stargz.oci.image import ImageManifest, load_image, open_image
from stargz.oci.registry.options import RegistryOptions
from stargz.oci.repository import open_repository
from stargz.options import MAX_TOC_SIZE, ConvertOptions
from stargz.paths import Name
from stargz.sources.forward import Blocks
from stargz.sources.spool import unlinked
from stargz.tree import Tree

__all__ = ["ImageExtractResult", "extract_image"]


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

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "platform": self.platform,
            "digest": self.digest,
            "directory": self.directory,
            "verified": self.verified,
            **super().to_json(),
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
    `path`/linux-arm64-v8; attestations are no images. Ordinary images are read as a whole, into
    temporary files (TMPDIR): what they hold in a tar's odd ways is there as `stargz.convert_image`
    with `flatten` has it. `cache` and `registry` are the options of `open_image`.

    Raises what that and `extractall` do.
    """
    if all_platforms and platform is not None:
        raise UsageError(
            "platform (--platform) and all_platforms (--all-platforms) contradict each other"
        )
    if isinstance(members, str | bytes | os.PathLike):
        raise UsageError("members is a list of names, not one name")
    asked = None if members is None else list(members)
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

    def one(wanted: str | Platform | None, folder: str | os.PathLike[str]) -> ImageExtractResult:
        reading = {
            "verify": verify,
            "require_verified": require_verified,
            "max_toc_size": max_toc_size,
            "cache": cache,
        }
        with _opened(src, wanted, threads, reading, registry, progress) as (image, layers, checked):
            found = _extract(layers, image.name, folder, asked, excluded, options)
            return ImageExtractResult(
                **vars(found),
                platform=str(image.platform) if image.platform else None,
                digest=image.digest,
                directory=os.fspath(folder),
                verified=checked,
            )

    if not all_platforms:
        return [one(platform, path)]
    return [one(found, Path(path, folder)) for folder, found in _platforms(src, registry).items()]


def _platforms(src: str, registry: RegistryOptions) -> dict[str, Platform]:
    """What an image is for, each by the name of its directory."""
    found: dict[str, Platform] = {}
    with open_repository(src, **registry) as repository:
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
            found.setdefault(_folder(platform, repository.name), platform)
    return found


def _folder(platform: Platform, name: str) -> str:
    """What a platform's directory is called."""
    parts = [platform.os, platform.architecture, *filter(None, [platform.variant])]
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", part):
            raise FormatError(f"the platform {str(platform)[:100]!r} names no directory", name)
    return "-".join(parts)


def _extract(
    layers: list[Layer],
    name: str,
    path: str | os.PathLike[str],
    members: list[Member] | None,
    exclude: list[Name],
    options: ExtractOptions,
) -> ExtractResult:
    with ExitStack() as stack:
        blocks = stack.enter_context(Blocks())
        whole = members is None
        parts = [stack.enter_context(layer.part(whole=whole, blocks=blocks)) for layer in layers]
        engine = Tree(layers, name=name).engine
        return extract(parts, engine, name, path, members, exclude, options)


@contextmanager
def _opened(
    src: str,
    platform: str | Platform | None,
    threads: int | None,
    reading: dict[str, Any],
    registry: RegistryOptions,
    progress: Callable[[int, int], object] | None,
) -> Iterator[tuple[ImageManifest, list[Layer], bool]]:
    """An image with its layers, or the one that they come to; and whether its digest vouches for
    all that is read."""
    with ExitStack() as stack:
        try:
            image = open_image(src, platform=platform, threads=threads, **reading, **registry)
        except (FooterError, UnverifiedError):
            pass
        else:
            with image:
                yield image, image.layers, image.verified
            return
        # Whatever the layers are: all of them are read, and checked by their digests.
        plain = stack.enter_context(load_image(src, platform=platform, **registry))
        yield plain, [stack.enter_context(_merged(plain, threads, progress))], True


@contextmanager
def _merged(
    image: ImageManifest, threads: int | None, progress: Callable[[int, int], object] | None
) -> Iterator[Layer]:
    """A layer of the layers of an ordinary image. Progress is in their own bytes."""
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
    with io.FileIO(unlinked(), "r+") as file:
        file.name = f"{image.name}: its layers merged"
        with ExitStack() as stack:
            streams = [
                stack.enter_context(closing(image.repository.stream_blob(entry)))
                for entry in image.descriptors
            ]
            stack.enter_context(explained(streams))
            inputs = [
                Input(image.describe(number), stream, told) for number, stream in enumerate(streams)
            ]
            tar: Any = stack.enter_context(merged_tar(inputs, lone_as_is=True))
            try:
                made = convert_as(ConvertOptions(level=1), tar, file, threads)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise SourceError(
                    f"{image.name}: its layers must be merged in {tempfile.gettempdir()}: no space "
                    "is left; let TMPDIR name a larger place"
                ) from error
            for stream in streams:
                stream.finish()
        with opening.open(file, toc_digest=made.toc_digest, threads=threads) as layer:
            yield layer
