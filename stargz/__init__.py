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
        RegistryError,
        SourceError,
        StargzError,
        TarError,
        TOCError,
        UnverifiedError,
        UsageError,
    )
    from stargz.layer import Layer, VerifyResult, open

__version__ = "0.1.0"

__all__ = [
    "CodecError",
    "ConvertResult",
    "DigestError",
    "EntryNotFoundError",
    "ExtractError",
    "FooterError",
    "FormatError",
    "GzipError",
    "Layer",
    "RegistryError",
    "SourceError",
    "StargzError",
    "TOCError",
    "TarError",
    "UnverifiedError",
    "UsageError",
    "VerifyResult",
    "__version__",
    "convert",
    "open",
]

# Everything is imported when it is first used: `import stargz` costs nothing.
_HOME = {
    "ConvertResult": "conversion",
    "convert": "conversion",
    "Layer": "layer",
    "VerifyResult": "layer",
    "open": "layer",
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
