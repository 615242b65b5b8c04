"""The annotations that a layer's descriptor needs: they say that it is seekable, where its TOC is,
and by what digest that is trusted. Two programs have a set of names each for zstd:chunked, which
differ in a few letters, and containers/storage refuses a descriptor that has both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"  # sha256 of the JSON
UNCOMPRESSED_SIZE = "io.containers.estargz.uncompressed-size"  # of the whole tar

# Of containers/storage, with the sha256 of the compressed TOC.
_CHUNKED = "io.github.containers.zstd-chunked."
CHECKSUM = _CHUNKED + "manifest-checksum"
POSITION = _CHUNKED + "manifest-position"
SPLIT_POSITION = _CHUNKED + "tarsplit-position"

# Of stargz-snapshotter.
_STARGZ = "io.containers.zstd-chunked."
STARGZ_CHECKSUM = _STARGZ + "manifest-checksum"
STARGZ_POSITION = _STARGZ + "manifest-position"

_TYPE = 1


@dataclass(frozen=True, slots=True)
class Position:
    """Where a frame is in a blob: behind the header of the skippable frame that holds it."""

    offset: int
    packed: int  # bytes of the frame
    size: int  # and of what it decodes to

    def __str__(self) -> str:
        return f"{self.offset}:{self.packed}:{self.size}"


def toc_position(where: Position) -> str:
    """The text of a manifest-position."""
    return f"{where}:{_TYPE}"


def annotations_of(format: str, fields: dict[str, Any]) -> dict[str, str]:
    """What the descriptor of a layer needs that the engine made."""
    if not fields["toc_size"]:
        return {}
    toc = Position(fields["toc_offset"], fields["toc_packed"], fields["toc_size"])
    if format == "zstd:chunked":
        split = Position(fields["split_offset"], fields["split_packed"], fields["split_size"])
        return {
            CHECKSUM: fields["toc_checksum"],
            POSITION: toc_position(toc),
            SPLIT_POSITION: str(split),
        }
    made = {UNCOMPRESSED_SIZE: str(fields["uncompressed_size"])}
    if format != "stargz":
        made[TOC_DIGEST] = fields["toc_digest"]
    if format == "zstd:chunked-stargz":
        made[STARGZ_CHECKSUM] = fields["toc_checksum"]
        made[STARGZ_POSITION] = toc_position(toc)
    return made
