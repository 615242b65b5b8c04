"""What decides the layers of an image that is converted."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass

from stargz.descriptors import TOC_DIGEST
from stargz.errors import UsageError
from stargz.oci.formats.manifest import Descriptor, is_zstd_chunked
from stargz.options import DEFAULT_CHUNK_SIZE, ConvertOptions, Format, Level, default_level, is_zstd
from stargz.paths import several


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """What decides a layer's bytes; those of stargz.convert. None: not asked for, so the default,
    and a layer that is seekable already may keep what it has."""

    level: Level | None = None
    chunk_size: int | None = None
    min_chunk_size: int | None = None
    prioritized: tuple[str, ...] = ()
    lossless: bool = False
    format: Format | None = None
    gzip: bool = False  # for clients without zstd: what stays as it is, too, becomes gzip

    def __post_init__(self) -> None:
        # A list is as good, and so are paths.
        object.__setattr__(self, "prioritized", several(self.prioritized, "prioritized"))

    @property
    def kept(self) -> Format | None:
        """The format of layers that can stay as they are; None if an option asks for a layout that
        they need not have, or nothing vouches for them in this format."""
        if self != LayerOptions(format=self.format, gzip=self.gzip) or self.format == "stargz":
            return None
        return self.format or "estargz"

    def keeps(self, entry: Descriptor) -> bool:
        """Whether a layer's descriptor says that it is one that can stay as it is."""
        if self.kept is None:
            return False
        chunked = is_zstd_chunked(entry)
        if is_zstd(self.kept):
            return chunked
        return bool(entry.annotations.get(TOC_DIGEST)) and not chunked

    def filled(self) -> ConvertOptions:
        """With the defaults; UsageError for what is wrong or contradicts itself. Prioritized
        files may always be missing: they are those of a whole image."""
        format = self.format or "estargz"
        return ConvertOptions(
            default_level(format) if self.level is None else self.level,
            DEFAULT_CHUNK_SIZE if self.chunk_size is None else self.chunk_size,
            self.min_chunk_size or 0,
            self.prioritized,
            True,
            self.lossless,
            format,
        )

    @property
    def key(self) -> str:
        """A short text that is equal for options that give the same bytes (of the same version
        of the package): what a state file knows a converted layer by."""
        fields = {**asdict(self), "prioritized": list(self.prioritized)}
        if not self.gzip:
            del fields["gzip"]
        text = json.dumps([getattr(sys.modules.get("stargz"), "__version__", ""), fields])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def layer_options(options: LayerOptions | None, given: LayerOptions) -> LayerOptions:
    """What a function that takes both has been given: `options`, or each by itself."""
    if options is None:
        return given
    if given != LayerOptions():
        raise UsageError("options has the layout of layers: give it, or level, format and the like")
    return options
