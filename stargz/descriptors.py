"""The annotations that a layer's descriptor needs: they say that it is seekable, where its TOC is,
and by what digest that is trusted. Two programs have a set of names each for zstd:chunked, which
differ in a few letters, and containers/storage refuses a descriptor that has both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stargz.digests import is_sha256
from stargz.errors import FormatError
from stargz.footer import Position

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

ZSTD_CHUNKED = (_STARGZ, _CHUNKED)  # how those of both begin, also such as are of the past

_TYPE = 1


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
    made = {} if format == "stargz" else {TOC_DIGEST: fields["toc_digest"]}
    made[UNCOMPRESSED_SIZE] = str(fields["uncompressed_size"])
    if format == "zstd:chunked-stargz":
        made[STARGZ_CHECKSUM] = fields["toc_checksum"]
        made[STARGZ_POSITION] = toc_position(toc)
    return made


def is_of_format(name: str) -> bool:
    """Whether an annotation says in which format a layer is: it is not true of another one."""
    return name in (TOC_DIGEST, UNCOMPRESSED_SIZE) or name.startswith(ZSTD_CHUNKED)


@dataclass(frozen=True, slots=True)
class Chunked:
    """What the annotations of a layer say of its TOC: where it is, and the sha256 that it has as
    JSON (`digest`) or as the frame that holds it (`checksum`); "" is not said."""

    toc: Position | None
    split: Position | None
    digest: str
    checksum: str


_POSITION = re.compile(r"(\d{1,19}):(\d{1,19}):(\d{1,19})", re.ASCII)


def chunked_of(annotations: Mapping[str, str], source: str = "") -> Chunked | None:
    """What they say of a layer in zstd:chunked; None where they say nothing of where its TOC is,
    or by what digest of its frame that is trusted.

    Those of containers/storage count before those of stargz-snapshotter. Raises FormatError for
    what is no position, and no digest."""
    if CHECKSUM in annotations or POSITION in annotations:
        checksum, position, split = CHECKSUM, POSITION, SPLIT_POSITION
    elif STARGZ_POSITION in annotations:
        checksum, position, split = STARGZ_CHECKSUM, STARGZ_POSITION, ""
    else:
        return None
    split_at = _position(annotations, split, source)
    return Chunked(
        _position(annotations, position, source, f":{_TYPE}"),
        split_at if split_at and split_at.offset else None,  # as its footer says that there is none
        _digest(annotations, TOC_DIGEST, source),
        _digest(annotations, checksum, source),
    )


def _digest(annotations: Mapping[str, str], name: str, source: str) -> str:
    text = annotations.get(name, "")
    if text and not is_sha256(text):
        raise FormatError(f"the annotation {name} is {text[:80]!a}, and no sha256 digest", source)
    return text


def _position(
    annotations: Mapping[str, str], name: str, source: str, end: str = ""
) -> Position | None:
    text = annotations.get(name)
    if text is None:
        return None
    found = _POSITION.fullmatch(text.removesuffix(end)) if text.endswith(end) else None
    if found is None:
        raise FormatError(f"the annotation {name} is {text[:80]!a}, and no position", source)
    return Position(*map(int, found.groups()))
