"""An image without its layers: the manifest and config of one platform.

with load_image("docker://host/repo:tag") as image:
    print(image.digest, image.config["os"])
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Unpack

from stargz.descriptors import Chunked, chunked_of, stated_toc_digest
from stargz.digests import is_digest
from stargz.errors import UsageError
from stargz.oci.formats.manifest import (
    MAX_CONFIG_SIZE,
    Descriptor,
    Manifest,
    load_json,
)
from stargz.oci.formats.platforms import (
    Platform,
    check_platform,
    parse_platform,
    platform_of,
    this_platform,
)
from stargz.oci.formats.selection import descend
from stargz.oci.registry.options import RegistryOptions, check_keywords
from stargz.oci.repository import Repository, external_toc, open_repository
from stargz.paths import text
from stargz.sources import ByteSource

if TYPE_CHECKING:
    from stargz.indexes import IndexSource
    from stargz.oci.indexes import FoundIndex
    from stargz.opening import OpenOptions

Selector = int | str | None


class ImageManifest:
    """One platform's image, its layers not open yet: all that its manifest and config say.

    `root` is what the reference names, an index as a rule; `manifest` the image's own. Both,
    and the config, are checked against their digests.
    """

    closed = False

    def __init__(
        self,
        repository: Repository,
        platform: Platform | None,
        root: Manifest | None = None,
        *,
        typed: str = "",
    ) -> None:
        self.repository = repository
        self.name: str = repository.name
        self.typed: str = typed or repository.name  # as the caller has called it
        self.root: Manifest = root or repository.root()
        self.root.check_image(self.name)
        wanted = platform or this_platform()
        self.manifest: Manifest = descend(self.root, wanted, repository.manifest)
        self.descriptors: list[Descriptor] = self.manifest.layers
        self.digest: str = self.manifest.digest
        self._config = self.manifest.config
        self._soci: FoundIndex | None = None
        self._lock = threading.Lock()
        # By what layers are read that have no TOC: "ztoc", or "pass", for those that were read to
        # be indexed. Those that are neither are seekable, or were indexed before.
        self.ways: dict[int, Literal["ztoc", "pass"]] = {}
        self.manifest.check_image(self.name)
        if platform is not None and self.root.kind == "manifest":
            check_platform(self.platform, platform, self.name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The image's config, read when first asked for: a mount does without."""
        self._check()
        data = self.repository.read_blob(self._config, MAX_CONFIG_SIZE)
        return load_json(data, f"{self.name}: config {self._config.digest}")

    @property
    def soci(self) -> FoundIndex:
        """The image's SOCI indexes. One for all threads: it counts what it reads for nothing."""
        from stargz.oci.indexes import FoundIndex

        with self._lock:
            if self._soci is None:
                self._soci = FoundIndex(self.repository, self.manifest)
            return self._soci

    @property
    def platform(self) -> Platform | None:
        """What the config says that the image is for."""
        return platform_of(self.config)

    def _check(self) -> None:
        if self.closed:
            raise ValueError(f"{self.name}: the image is closed")

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
            + (
                "; give --layer N or DIGEST ('stargz image' has commands for all together)"
                if layer is None
                else ""
            )
        )

    def describe(self, number: int) -> str:
        """What errors call a layer."""
        digest = self.descriptors[number].digest
        return f"{self.name}: layer {number + 1} of {len(self.descriptors)}, {digest}"

    def toc_digest(self, number: int) -> str | None:
        """The digest of a layer's TOC that its annotations give."""
        return stated_toc_digest(self.descriptors[number].annotations, self.describe(number))

    def chunked(self, number: int) -> Chunked | None:
        """What a layer's annotations say of it in zstd:chunked."""
        return chunked_of(self.descriptors[number].annotations, self.describe(number))

    def open_source(self, number: int) -> ByteSource:
        """The bytes of a layer's blob; to be closed by the caller."""
        self._check()
        return self.repository.open_blob(self.descriptors[number])

    def index(self, number: int, asked: IndexSource, options: OpenOptions) -> IndexSource:
        """What a layer is to be read by if it is not seekable: what is `asked` for, if that is an
        index; else the ztoc of the image's own. What that leaves out is indexed by us: others pull
        it whole."""
        if options.require_verified or not (asked is None or asked == "build"):
            return asked  # nothing vouches for a ztoc
        found = self.soci.ztoc(self.descriptors[number], options.max_toc_size)
        if found is not None:
            self.ways[number] = "ztoc"
            return found
        return "build" if asked is None and self.soci.exists() else asked

    def external_toc(self, digest: str, max_size: int) -> bytes | None:
        """The gzip'ed tar of the TOC of a layer whose TOC is external; None if there is none."""
        self._check()
        return external_toc(self.repository, self.repository.external(), digest, max_size)


@contextmanager
def load_image(
    src: str, *, platform: str | Platform | None = None, **registry: Unpack[RegistryOptions]
) -> Iterator[ImageManifest]:
    """Manifest and config of the image that `src` names, without opening a layer.

    `platform` is "linux/arm64" or the like (default: this machine's); `registry` are the options
    of `open_repository`.
    """
    check_keywords("load_image", registry)
    wanted = as_platform(platform)
    with open_repository(text(src), **registry) as repository:
        yield ImageManifest(repository, wanted, typed=text(src))


def as_platform(platform: str | Platform | None) -> Platform | None:
    """A platform that may be given as text; UsageError if it is none."""
    return parse_platform(platform) if isinstance(platform, str) else platform
