"""Make compressed container layers seekable, and read them lazily, at hardware speed.

`stargz.open` gives a `Layer`; `stargz.convert` makes one of a tar.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; importing typing would take most of the time
if TYPE_CHECKING:
    from typing import Any

    from stargz.conversion import ConvertResult, convert
    from stargz.errors import (
        CodecError,
        DigestError,
        EntryNotFoundError,
        ExtractError,
        FooterError,
        FormatError,
        GzipError,
        PatchError,
        RegistryError,
        SourceError,
        StargzError,
        TarError,
        TOCError,
        UnverifiedError,
        UsageError,
    )
    from stargz.layer import Layer, VerifyResult
    from stargz.opening import open
    from stargz.packing import PackResult, pack
    from stargz.patching.applying import ApplyResult, apply
    from stargz.patching.difference import Difference, diff
    from stargz.patching.make import DeltaResult, delta
    from stargz.patching.members import MemberList

__version__ = "0.1.0"

__all__ = [
    "ApplyResult",
    "CodecError",
    "ConvertResult",
    "DeltaResult",
    "Difference",
    "DigestError",
    "EntryNotFoundError",
    "ExtractError",
    "FooterError",
    "FormatError",
    "GzipError",
    "Layer",
    "MemberList",
    "PackResult",
    "PatchError",
    "RegistryError",
    "SourceError",
    "StargzError",
    "TOCError",
    "TarError",
    "UnverifiedError",
    "UsageError",
    "VerifyResult",
    "__version__",
    "apply",
    "convert",
    "delta",
    "diff",
    "open",
    "pack",
]

# Everything is imported when it is first used: `import stargz` costs nothing.
_HOME = {
    "ApplyResult": "patching.applying",
    "apply": "patching.applying",
    "ConvertResult": "conversion",
    "convert": "conversion",
    "DeltaResult": "patching.make",
    "delta": "patching.make",
    "MemberList": "patching.members",
    "Difference": "patching.difference",
    "diff": "patching.difference",
    "PackResult": "packing",
    "pack": "packing",
    "Layer": "layer",
    "VerifyResult": "layer",
    "open": "opening",
}


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'stargz' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"stargz.{_HOME.get(name, 'errors')}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
