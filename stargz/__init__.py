"""Make compressed container layers seekable, and read them lazily, at hardware speed.

`stargz.open` gives a `Layer`; `stargz.convert` makes one of a tar, `stargz.index` lets a tar.gz be
read as one. `stargz.open_image` and
`stargz.convert_image` do the same with images, `stargz.bulk` with registries.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; importing typing would take most of the time
if TYPE_CHECKING:
    from typing import Any

    from stargz import errors, mount
    from stargz.cache import Cache
    from stargz.conversion import ConvertResult, convert
    from stargz.errors import (
        CodecError,
        DigestError,
        EntryNotFoundError,
        ExtractError,
        FooterError,
        FormatError,
        GzipError,
        IndexFileError,
        PatchError,
        RegistryError,
        SourceError,
        StargzError,
        TarError,
        TOCError,
        UnindexedError,
        UnverifiedError,
        UsageError,
    )
    from stargz.extract import ExtractResult
    from stargz.indexing import IndexResult, index
    from stargz.layer import Layer, Problem, VerifyResult
    from stargz.oci.bulk import BulkReport, bulk
    from stargz.oci.conversion import ImageReport, convert_image
    from stargz.oci.convert.layers import LayerReport
    from stargz.oci.convert.options import LayerOptions
    from stargz.oci.difference import diff_images
    from stargz.oci.extraction import ImageExtractResult, extract_image
    from stargz.oci.image import Image, open_image
    from stargz.oci.registry.access import Access
    from stargz.oci.soci.images import ImageIndexReport, index_image
    from stargz.oci.soci.layers import ZtocReport
    from stargz.oci.verify.image import ImageVerifyResult, verify_image
    from stargz.opening import open
    from stargz.packing import PackResult, pack
    from stargz.patching.applying import ApplyResult, apply
    from stargz.patching.difference import Difference, diff
    from stargz.patching.make import DeltaResult, delta
    from stargz.patching.members import MemberList
    from stargz.toc import TOC, Chunk, Entry
    from stargz.tree import Stat, Tree

__version__ = "0.1.0"

__all__ = [
    "TOC",
    "Access",
    "ApplyResult",
    "BulkReport",
    "Cache",
    "Chunk",
    "CodecError",
    "ConvertResult",
    "DeltaResult",
    "Difference",
    "DigestError",
    "Entry",
    "EntryNotFoundError",
    "ExtractError",
    "ExtractResult",
    "FooterError",
    "FormatError",
    "GzipError",
    "Image",
    "ImageExtractResult",
    "ImageIndexReport",
    "ImageReport",
    "ImageVerifyResult",
    "IndexFileError",
    "IndexResult",
    "Layer",
    "LayerOptions",
    "LayerReport",
    "MemberList",
    "PackResult",
    "PatchError",
    "Problem",
    "RegistryError",
    "SourceError",
    "StargzError",
    "Stat",
    "TOCError",
    "TarError",
    "Tree",
    "UnindexedError",
    "UnverifiedError",
    "UsageError",
    "VerifyResult",
    "ZtocReport",
    "__version__",
    "apply",
    "bulk",
    "convert",
    "convert_image",
    "delta",
    "diff",
    "diff_images",
    "errors",
    "extract_image",
    "index",
    "index_image",
    "mount",
    "open",
    "open_image",
    "pack",
    "verify_image",
]

# Everything is imported when it is first used: `import stargz` costs nothing.
_HOME = {
    "Cache": "cache",
    "ConvertResult": "conversion",
    "convert": "conversion",
    "ExtractResult": "extract",
    "IndexResult": "indexing",
    "index": "indexing",
    "Layer": "layer",
    "Problem": "layer",
    "VerifyResult": "layer",
    "BulkReport": "oci.bulk",
    "bulk": "oci.bulk",
    "ImageReport": "oci.conversion",
    "convert_image": "oci.conversion",
    "LayerOptions": "oci.convert.options",
    "LayerReport": "oci.convert.layers",
    "ImageExtractResult": "oci.extraction",
    "extract_image": "oci.extraction",
    "diff_images": "oci.difference",
    "Image": "oci.image",
    "open_image": "oci.image",
    "Access": "oci.registry.access",
    "ImageIndexReport": "oci.soci.images",
    "index_image": "oci.soci.images",
    "ZtocReport": "oci.soci.layers",
    "ImageVerifyResult": "oci.verify.image",
    "verify_image": "oci.verify.image",
    "open": "opening",
    "PackResult": "packing",
    "pack": "packing",
    "ApplyResult": "patching.applying",
    "apply": "patching.applying",
    "Difference": "patching.difference",
    "diff": "patching.difference",
    "DeltaResult": "patching.make",
    "delta": "patching.make",
    "MemberList": "patching.members",
    "TOC": "toc",
    "Chunk": "toc",
    "Entry": "toc",
    "Stat": "tree",
    "Tree": "tree",
}
_MODULES = ("errors", "mount")


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'stargz' has no attribute {name!r}")
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"stargz.{name}")
    module = importlib.import_module(f"stargz.{_HOME.get(name, 'errors')}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
