"""Images: the layers of one platform, open for reading.

with open_image("docker://host/repo:tag") as image:
    image.tree.listdir("etc")
"""

from __future__ import annotations

import logging
import os
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NoReturn, Self, Unpack

from stargz._engine.reader import Blob
from stargz.descriptors import TOC_DIGEST
from stargz.errors import (
    FooterError,
    MissingBlobError,
    NotPicklableError,
    UnindexedError,
    UnsupportedError,
    UnverifiedError,
)
from stargz.footer import kind_of
from stargz.layer import Layer
from stargz.oci.formats.manifest import Manifest, layer_kind
from stargz.oci.formats.platforms import Platform
from stargz.oci.loading import ImageManifest, Selector, as_platform
from stargz.oci.loading import load_image as load_image  # other programs have it from here
from stargz.oci.registry.options import RegistryOptions, check_keywords
from stargz.oci.repository import Repository, open_repository, toc_not_found
from stargz.opening import OpenOptions, open_as
from stargz.options import MAX_TOC_SIZE
from stargz.paths import text
from stargz.sources import ByteSource, MemorySource, Source

if TYPE_CHECKING:
    from concurrent.futures import Future

    from stargz.cache import Cache
    from stargz.indexes import IndexSource
    from stargz.remote import Fetcher
    from stargz.tree import Tree

_log = logging.getLogger("stargz")

_PARALLEL = 8  # layers that are opened at the same time


class Image(ImageManifest):
    """An open image; made by `open_image`. Use it as a context manager, or close it.

    After `close` what must be read raises ValueError, and so do the layers. `closed` says whether
    that was called.
    """

    layers: list[Layer]  # the lowest first

    def __init__(
        self,
        repository: Repository,
        platform: Platform | None,
        root: Manifest | None = None,
        *,
        typed: str = "",
    ) -> None:
        super().__init__(repository, platform, root, typed=typed)
        self.layers = []
        self._stack = ExitStack()

    @cached_property
    def tree(self) -> Tree:
        """The layers' files, merged."""
        from stargz.tree import Tree

        return Tree(self.layers, name=self.name)

    @property
    def verified(self) -> bool:
        """Whether every read of every layer is checked by way of the manifest's digest."""
        return all(is_verified(layer) for layer in self.layers)

    def open_layers(
        self,
        options: OpenOptions,
        stack: ExitStack,
        opened: Callable[[Layer], object] | None = None,
        index: Literal["build", False] | None = None,
    ) -> None:
        """Open the layers, and take over what is on `stack`: it is closed with the image."""
        self.layers = _open_layers(self, options, stack, opened, index)
        self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the layers and what they are read from. More than once is harmless."""
        self.closed = True
        self._stack.close()

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            f"{self.name}: an open image cannot be pickled; open it where it is needed"
        )

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = ", closed" if self.closed else ""
        return f"<stargz image {self.name!r} ({len(self.layers)} layers{closed})>"


def is_verified(layer: Layer) -> bool:
    """Whether a layer's TOC is the one that was asked for, with a digest for every chunk."""
    return layer.verified


def open_image(
    src: str,
    *,
    platform: str | Platform | None = None,
    verify: bool = True,
    require_verified: bool = False,
    threads: int | None = None,
    max_toc_size: int = MAX_TOC_SIZE,
    cache: Cache | str | os.PathLike[str] | bool | None = None,
    prefetch: bool = False,
    background: bool = False,
    index: Literal["build", False] | None = None,
    opened: Callable[[Layer], object] | None = None,
    progress: Callable[[int, int], object] | None = None,
    **registry: Unpack[RegistryOptions],
) -> Image:
    """Open an image with all of its layers: `docker://host/repo[:tag][@digest]`, or
    `oci:DIR[:ref]`.

    Every layer's TOC must have the digest that the manifest gives for it; layers without one
    are opened too, but nothing vouches for what they say (`image.verified`), and
    `require_verified` refuses them. `platform` is "linux/arm64" or the like (default: Linux on
    this machine's architecture).

    Layers that are not seekable are read by the image's SOCI index, if it has one, and those that
    this leaves out by an index that is made in one pass, and kept in the user's cache. Of an image
    without a SOCI index layers that must be fetched get one if `index` is "build", else that is
    an error; False has no index looked for nor made. `progress(done, total)` is called meanwhile.

    `opened` is called with each layer as soon as it is open, by any thread. `registry` are the
    options by which registries are reached (`authfile`, `ca_file`, `plain_http`, `mirrors`,
    `patience`; see RegistryClient), the rest those of `stargz.open`.

    Raises RegistryError, SourceError, FormatError and DigestError, whose texts name the image
    and the layer's digest; FooterError for a layer that is not seekable, UnindexedError if it could
    be indexed.
    """
    check_keywords("open_image", registry)
    wanted = as_platform(platform)
    shared = SharedFetcher(cache, prefetch, background)
    options = OpenOptions(
        verify, require_verified, threads, max_toc_size, cache, prefetch, background, shared.get,
        progress,
    )  # fmt: skip
    with ExitStack() as stack:
        stack.callback(shared.close)
        repository = stack.enter_context(open_repository(text(src), **registry))
        image = Image(repository, wanted, typed=text(src))
        image.open_layers(options, stack, opened, index)
    return image


class Passes:
    """Tells how far the passes over several layers are, together."""

    def __init__(self, progress: Callable[[int, int], object] | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._done: dict[int, tuple[int, int]] = {}

    def of(
        self, image: ImageManifest, number: int, source: ByteSource
    ) -> Callable[[int, int], object]:
        """The `progress` of one layer, which is first called when its pass begins."""

        def progress(done: int, total: int) -> None:
            with self._lock:
                begins = number not in self._done
                self._done[number] = done, image.descriptors[number].size
                sums = [sum(values) for values in zip(*self._done.values(), strict=True)]
            if begins:
                image.ways[number] = "pass"
                log = _log.info if Blob(source).direct else _log.warning
                log(
                    "%s: it is not seekable, and there is no index of it: all of its %s bytes are "
                    "read, once, to make one",
                    image.describe(number), f"{source.size:,}",
                )  # fmt: skip
            if self._progress is not None:
                self._progress(*sums)

        return progress


class SharedFetcher:
    """One for all layers that are opened with it, made when the first of them has to fetch."""

    def __init__(
        self, cache: Cache | str | os.PathLike[str] | bool | None, prefetch: bool, background: bool
    ) -> None:
        self._options = (cache, prefetch, background)
        self._lock = threading.Lock()
        self._made: Fetcher | None = None

    def get(self) -> Fetcher:
        from stargz.cache import as_cache
        from stargz.remote import Fetcher

        with self._lock:
            if self._made is None or self._made.chunks.forked():
                cache, prefetch, background = self._options
                disk = None if cache is False else as_cache(cache)
                self._made = Fetcher(disk, prefetch=prefetch, background=background)
            return self._made

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()


@contextmanager
def open_layer(
    src: str,
    layer: Selector = None,
    *,
    platform: str | Platform | None = None,
    toc: Source | None = None,
    toc_digest: str | None = None,
    index: IndexSource = None,
    index_digest: str | None = None,
    verify: bool = True,
    require_verified: bool = False,
    threads: int | None = None,
    max_toc_size: int = MAX_TOC_SIZE,
    cache: Cache | str | os.PathLike[str] | bool | None = None,
    progress: Callable[[int, int], object] | None = None,
    **registry: Unpack[RegistryOptions],
) -> Iterator[Layer]:
    """One layer of an image, which alone is opened; see `open_image` for the options.

    `layer` is its number, counted from 1 for the lowest, or its digest (or eight or more
    characters that begin it); an image of one layer needs none. `toc_digest` is compared
    besides the manifest's. `index`, `index_digest` and `progress` are those of `stargz.open`.
    """
    check_keywords("open_layer", registry)
    options = OpenOptions(verify, require_verified, threads, max_toc_size, cache, progress=progress)
    with load_image(src, platform=platform, **registry) as image, ExitStack() as stack:
        number = image.number(layer)
        given = (toc, toc_digest, index, index_digest)
        with _foreign(image, number):
            blob = stack.enter_context(closing(image.open_source(number)))
            opened = stack.enter_context(
                _open_one(image, number, blob, options, *given, alone=True)
            )
        yield opened


def _open_layers(
    image: ImageManifest,
    options: OpenOptions,
    stack: ExitStack,
    opened: Callable[[Layer], object] | None,
    index: Literal["build", False] | None,
) -> list[Layer]:
    """All layers, opened in parallel; closing them is put on `stack`."""
    passes = Passes(options.progress)
    # A layer that the image has twice is read once to be indexed: then there is an index of it.
    turns = {entry.digest: threading.Lock() for entry in image.descriptors}

    def open_one(number: int) -> tuple[Layer, ExitStack]:
        turn = turns[image.descriptors[number].digest]
        with turn, _foreign(image, number), ExitStack() as own:
            source = own.enter_context(closing(image.open_source(number)))
            told = replace(options, progress=passes.of(image, number, source))
            layer = own.enter_context(_open_one(image, number, source, told, index=index))
            if opened is not None:
                opened(layer)
            return layer, own.pop_all()

    def keep(result: tuple[Layer, ExitStack]) -> Layer:
        stack.push(result[1])
        return result[0]

    count = len(image.descriptors)
    if count == 1:
        return [keep(open_one(0))]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_PARALLEL, count or 1), "stargz-open") as executor:
        futures: list[Future[tuple[Layer, ExitStack]]] = []
        try:
            futures.extend(executor.submit(open_one, number) for number in range(count))
            return [keep(future.result()) for future in futures]
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C must not wait for the network
                image.repository.interrupt()
            for future in futures:
                future.cancel()
            for future in futures:
                # Those that were opened after the one that failed, too.
                with suppress(BaseException):
                    keep(future.result())
            raise


def _open_one(
    image: ImageManifest,
    number: int,
    source: ByteSource,
    options: OpenOptions,
    toc: Source | None = None,
    toc_digest: str | None = None,
    index: IndexSource = False,
    index_digest: str | None = None,
    *,
    alone: bool = False,
) -> Layer:
    """`alone`: it may be given a TOC."""
    if toc_digest is None:
        toc_digest = image.toc_digest(number)
    where = image.describe(number)
    blob_digest = image.descriptors[number].digest
    annotations = image.descriptors[number].annotations
    if toc is None and toc_digest is None and index_digest is None and not image.chunked(number):
        index = image.index(number, index, options)
    try:
        return open_as(
            options, source, toc, toc_digest, index, index_digest, blob_digest,
            annotations=annotations,
        )  # fmt: skip
    except FooterError as error:
        if image.chunked(number):
            raise
        if isinstance(error, UnindexedError) and index is not False:
            raise UnindexedError(error.message, where) from error
        if toc is not None or kind_of(source) != "external-toc":
            raise _not_seekable(image, number, error) from error
    except UnverifiedError as error:
        if toc_digest is not None or kind_of(source) is None:
            raise
        raise UnverifiedError(
            f"{where}: it has no annotation {TOC_DIGEST}, so nothing vouches for its TOC; convert "
            "the image"
        ) from error
    hint = "; give the TOC as toc (--toc)" if alone else ""
    if toc_digest is None:  # whoever may push may change where the name leads to
        raise UnsupportedError(
            f"{where}: its TOC is kept apart, and it has no annotation {TOC_DIGEST} to check that "
            f"by{hint}"
        )
    data = image.external_toc(blob_digest, options.max_toc_size)
    if data is None:
        raise UnsupportedError(f"{where}: {toc_not_found(image.repository)}{hint}")
    toc = MemorySource(data, image.repository.external_name or image.name)
    return open_as(options, source, toc, toc_digest, annotations=annotations)


def _not_seekable(image: ImageManifest, number: int, error: FooterError) -> FooterError:
    entry = image.descriptors[number]
    cut = " although its manifest has a TOC digest" if image.toc_digest(number) else ""
    what = f"{image.describe(number)} ({entry.media_type[:100] or 'no media type'})"
    if layer_kind(entry) == "tar" and (isinstance(error, UnindexedError) or entry.size == 0):
        command = shlex.join(["stargz", "image", "convert", image.typed])
        return FooterError(
            f"{what} is not a seekable layer{cut}; convert the image first: '{command} DST'"
        )
    if entry.media_type.endswith("+encrypted"):
        return FooterError(f"{what} is encrypted; decrypt the image first")
    kind = UnsupportedError if isinstance(error, UnsupportedError) else FooterError
    return kind(f"{what} cannot be read{cut}: {error.message}")


@contextmanager
def _foreign(image: ImageManifest, number: int) -> Iterator[None]:
    """Say of a foreign layer that is not there why that is so."""
    try:
        yield
    except MissingBlobError as error:
        if layer_kind(image.descriptors[number]) != "foreign":
            raise
        told = MissingBlobError(
            f"{image.describe(number)} is a foreign layer, which may not be distributed: it is not "
            f"with the image, which cannot be read without it ({error})"
        )
        told.status = error.status
        raise told from error
