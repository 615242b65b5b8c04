"""Images: a manifest, a config, and the layers of one platform, open for reading.

with open_image("docker://host/repo:tag") as image:
    Tree(image.layers)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from stargz import layer as _layer
from stargz.digests import is_digest, is_sha256
from stargz.errors import (
    FooterError,
    FormatError,
    UnverifiedError,
    UsageError,
)
from stargz.footer import MAX_FOOTER_SIZE, parse_footer
from stargz.layer import MAX_TOC_SIZE, Layer
from stargz.oci.formats.manifest import (
    LAYER_DIGEST,
    MAX_CONFIG_SIZE,
    TOC_DIGEST,
    descend,
    load_json,
)
from stargz.oci.formats.platforms import Platform, parse_platform, platform_of, this_platform
from stargz.oci.repository import EXTERNAL, Repository, open_repository
from stargz.sources import ByteSource, MemorySource

if TYPE_CHECKING:
    from concurrent.futures import Future

    from stargz.remote import Fetcher

_PARALLEL = 8  # layers that are opened at the same time
MAX_LAYERS = 4096  # of an image that is opened: as many as a tree can have

Selector = int | str | None


class ImageManifest:
    """One platform's image, its layers not open yet: all that its manifest and config say.

    `root` is what the reference names, an index as a rule; `manifest` the image's own. Both,
    and the config, are checked against their digests.
    """

    def __init__(self, repository: Repository, platform: Platform | None) -> None:
        self.repository = repository
        self.name = repository.name
        self.root = repository.root()
        wanted = platform or this_platform()
        self.manifest = descend(self.root, wanted, repository.manifest)
        self.descriptors = self.manifest.layers
        self.digest = self.manifest.digest
        config = self.manifest.config
        if self.manifest.is_artifact:
            kind = self.manifest.json.get("artifactType") or config.media_type
            raise FormatError(f"it is no image, but an artifact ({str(kind)[:100]!r})", self.name)
        if platform is not None and self.root.kind == "manifest":
            self._check_platform(platform)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The image's config, read when first asked for: a mount does without."""
        described = self.manifest.config
        data = self.repository.read_blob(described, MAX_CONFIG_SIZE)
        return load_json(data, f"{self.name}: config {described.digest}")

    @property
    def platform(self) -> Platform | None:
        """What the config says that the image is for."""
        return platform_of(self.config)

    def _check_platform(self, wanted: Platform) -> None:
        stated = self.platform
        if stated and stated.normal() not in wanted.acceptable():
            raise FormatError(
                f"the image is for {stated}, not for {wanted} (--platform)", self.name
            )

    @property
    def json(self) -> dict[str, Any]:
        """The manifest as it stands."""
        return self.manifest.json

    def number(self, layer: Selector) -> int:
        """The place in `descriptors` of a layer: by its number, counted from 1 for the lowest
        (or from -1 for the topmost, downwards), or by its digest or the beginning of it.

        Raises UsageError that lists the layers.
        """
        count = len(self.descriptors)
        if layer is None and count == 1:
            return 0
        if isinstance(layer, str) and layer.removeprefix("-").isdecimal() and len(layer) < 8:
            layer = int(layer)
        if isinstance(layer, int) and 1 <= abs(layer) <= count:
            return layer - 1 if layer > 0 else count + layer
        found: set[int] = set()
        if isinstance(layer, str) and len(layer) >= 8:
            found = {
                number
                for number, entry in enumerate(self.descriptors)
                if entry.digest.startswith(layer)
                or entry.digest.partition(":")[2].startswith(layer)
            }
        if len(found) == 1 or (found and is_digest(layer)):
            return min(found)
        there = ", ".join(
            f"{number} {entry.digest[:19]} ({entry.size:,} bytes)"
            for number, entry in enumerate(self.descriptors[:40], 1)
        )
        what = "say which of its" if layer is None else f"no layer {layer!r} (--layer) among its"
        raise UsageError(
            f"{self.name}: {what} {count} layers: {there or 'none'}"
            + ("; give --layer N or DIGEST" if layer is None else "")
        )

    def describe(self, number: int) -> str:
        """What errors call a layer."""
        digest = self.descriptors[number].digest
        return f"{self.name}: layer {number + 1} of {len(self.descriptors)}, {digest}"

    def toc_digest(self, number: int) -> str | None:
        """The digest of a layer's TOC that its annotations give."""
        digest = self.descriptors[number].annotations.get(TOC_DIGEST)
        if digest is not None and not is_sha256(digest):
            raise FormatError(
                f"{self.describe(number)}: its annotation {TOC_DIGEST} is not a sha256 digest"
            )
        return digest

    def open_source(self, number: int) -> ByteSource:
        """The bytes of a layer's blob; to be closed by the caller."""
        return self.repository.open_blob(self.descriptors[number])

    def external_toc(self, digest: str) -> bytes | None:
        """The gzip'ed tar of the TOC of a layer whose TOC is external; None if there is none."""
        manifest = self.repository.external()
        if manifest is None or manifest.kind != "manifest":
            return None
        for entry in manifest.layers:
            if entry.annotations.get(LAYER_DIGEST) == digest:
                return self.repository.read_blob(entry, MAX_TOC_SIZE)
        return None


class Image(ImageManifest):
    """An open image; made by `open_image`. Use it as a context manager, or close it."""

    layers: list[Layer]  # the lowest first

    def __init__(self, repository: Repository, platform: Platform | None) -> None:
        super().__init__(repository, platform)
        self.layers = []
        self._stack = ExitStack()

    @property
    def verified(self) -> bool:
        """Whether every read of every layer is checked by way of the manifest's digest."""
        return all(is_verified(layer) for layer in self.layers)

    def close(self) -> None:
        """Close the layers and what they are read from. More than once is harmless."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<stargz image {self.name!r} ({len(self.layers)} layers)>"


def is_verified(layer: Layer) -> bool:
    """Whether a layer's TOC is the one that was asked for, with a digest for every chunk."""
    return layer._trusted and not layer._reader.undigested()


@contextmanager
def load_image(
    src: str, *, platform: str | Platform | None = None, **registry: Any
) -> Iterator[ImageManifest]:
    """Manifest and config of the image that `src` names, without opening a layer.

    `platform` is "linux/arm64" or the like (default: this machine's); `registry` are the options
    of `open_repository`.
    """
    with open_repository(src, **registry) as repository:
        yield ImageManifest(repository, _platform(platform))


def open_image(
    src: str,
    *,
    platform: str | Platform | None = None,
    verify: bool = True,
    require_verified: bool = False,
    threads: int | None = None,
    max_toc_size: int = MAX_TOC_SIZE,
    cache: Any = None,
    prefetch: bool = False,
    background: bool = False,
    opened: Callable[[Layer], object] | None = None,
    **registry: Any,
) -> Image:
    """Open an image with all of its layers: `docker://host/repo[:tag][@digest]`, or
    `oci:DIR[:ref]`.

    Every layer's TOC must have the digest that the manifest gives for it; layers without one
    are opened too, but nothing vouches for what they say (`image.verified`), and
    `require_verified` refuses them. `platform` is "linux/arm64" or the like (default: Linux on
    this machine's architecture). `opened` is called with each layer as soon as it is open, by any
    thread. `registry` are the options of `open_repository`, the rest those of `stargz.open`.

    Raises RegistryError, SourceError, FormatError and DigestError, whose texts name the image
    and the layer's digest; FooterError for a layer that is not seekable.
    """
    options = {
        "verify": verify,
        "require_verified": require_verified,
        "threads": threads,
        "max_toc_size": max_toc_size,
        "cache": cache,
        "prefetch": prefetch,
        "background": background,
    }
    with ExitStack() as stack:
        shared = _SharedFetcher(cache, prefetch, background)
        stack.callback(shared.close)
        options["fetcher"] = shared.get
        repository = stack.enter_context(open_repository(src, **registry))
        image = Image(repository, _platform(platform))
        if len(image.descriptors) > MAX_LAYERS:
            raise FormatError(
                f"{len(image.descriptors)} layers are more than {MAX_LAYERS}", image.name
            )
        closing = stack.enter_context(ExitStack())
        every = range(len(image.descriptors))
        image.layers = _open_layers(image, every, options, closing, opened)
        image._stack = stack.pop_all()
    return image


class _SharedFetcher:
    """One for all layers of an image, made when the first of them has to fetch."""

    def __init__(self, cache: Any, prefetch: bool, background: bool) -> None:
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
    toc: Any = None,
    toc_digest: str | None = None,
    verify: bool = True,
    require_verified: bool = False,
    threads: int | None = None,
    max_toc_size: int = MAX_TOC_SIZE,
    cache: Any = None,
    **registry: Any,
) -> Iterator[Layer]:
    """One layer of an image, which alone is opened; see `open_image` for the options.

    `layer` is its number, counted from 1 for the lowest, or its digest (or eight or more
    characters that begin it); an image of one layer needs none. `toc_digest` is used in place of
    the manifest's.
    """
    options = {
        "verify": verify,
        "require_verified": require_verified,
        "threads": threads,
        "max_toc_size": max_toc_size,
        "cache": cache,
        **_given(toc=toc, toc_digest=toc_digest),
    }
    with load_image(src, platform=platform, **registry) as image, ExitStack() as stack:
        number = image.number(layer)
        (found,) = _open_layers(image, [number], options, stack)
        yield found


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _platform(platform: str | Platform | None) -> Platform | None:
    return parse_platform(platform) if isinstance(platform, str) else platform


def _open_layers(
    image: ImageManifest,
    numbers: Sequence[int],
    options: dict[str, Any],
    stack: ExitStack,
    opened: Callable[[Layer], object] | None = None,
) -> list[Layer]:
    """The layers, opened in parallel; closing them is put on `stack`."""

    def open_one(number: int) -> Callable[[], None]:
        source = image.open_source(number)
        try:
            layer = _open_one(image, number, source, options)
        except BaseException:
            source.close()
            raise
        layers[number] = layer
        if opened is not None:
            opened(layer)

        def close() -> None:
            layer.close()
            source.close()

        return close

    layers: dict[int, Layer] = {}
    if len(numbers) == 1:
        stack.callback(open_one(numbers[0]))
        return [layers[numbers[0]]]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_PARALLEL, len(numbers) or 1), "stargz-open") as executor:
        futures: list[Future[Callable[[], None]]] = []
        try:
            futures.extend(executor.submit(open_one, number) for number in numbers)
            for future in futures:
                stack.callback(future.result())
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C must not wait for the network
                image.repository.interrupt()
            for future in futures:
                future.cancel()
            for future in futures:
                # Those that were opened after the one that failed, too.
                with suppress(BaseException):
                    stack.callback(future.result())
            raise
    return [layers[number] for number in numbers]


def _open_one(
    image: ImageManifest, number: int, source: ByteSource, options: dict[str, Any]
) -> Layer:
    options = {"toc_digest": image.toc_digest(number), **options}
    where = image.describe(number)
    if options["require_verified"] and options["toc_digest"] is None:
        raise UnverifiedError(
            f"{where}: it has no annotation {TOC_DIGEST}, so nothing vouches for its TOC; convert "
            "the image"
        )
    try:
        return _layer.open(source, **options)
    except FooterError as error:
        external = "toc" not in options and _is_external(source)
        if not external:
            raise _not_seekable(image, number, error) from error
    toc = image.external_toc(image.descriptors[number].digest)
    if toc is None:
        raise FooterError(
            f"{where}: its TOC is kept apart, and there is no image {image.name}{EXTERNAL} that "
            "has it; give the TOC as toc (--toc)"
        )
    name = f"{image.name}{EXTERNAL}"
    return _layer.open(source, toc=MemorySource(toc, name), **options)


def _is_external(source: ByteSource) -> bool:
    size = min(source.size, MAX_FOOTER_SIZE)
    try:
        tail = source.read_at(source.size - size, size)
        return parse_footer(tail, source.size, source.name).kind == "external-toc"
    except FormatError:
        return False


def _not_seekable(image: ImageManifest, number: int, error: FooterError) -> FooterError:
    media_type = image.descriptors[number].media_type or "no media type"
    return FooterError(
        f"{image.describe(number)} ({media_type}) is not a seekable layer ({error.message}); "
        "convert the image first"
    )
