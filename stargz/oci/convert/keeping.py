"""Layers that stay as they are: whether one that is in the wanted format already can, and what
there is to say of it, and of one that has to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from stargz._engine.write import TarEntries
from stargz.descriptors import annotations_of
from stargz.footer import TARSPLIT_FOOTER_SIZE
from stargz.layer import Layer
from stargz.options import Format
from stargz.sources.spool import Spool, unlinked, unpack


def examined(
    layer: Layer,
    format: Format,
    unpacked: Callable[[], tuple[str, int]],
    progress: Callable[[int, int], object],
    *,
    flatten: bool,
) -> dict[str, Any] | str | None:
    """What is to be reported of an open layer that can be kept; or what is wrong with it; None if
    it is good, but not what is wanted. `unpacked` has its DiffID, and the bytes of its tar."""
    from stargz.oci.convert.flatten import is_whiteout

    if layer.reader.undigested():
        return "not everything in it has a digest"
    if not _is_read_as(layer, format):
        return None
    if flatten and any(map(is_whiteout, layer.names())):
        return None  # they are to be applied
    result = layer.verify(progress)
    if not result.ok:
        problem = result.errors[0]
        return f"{problem.name}: {problem.message}" if problem.name else problem.message
    counts = layer.toc.rows.counts()
    diff_id, size = unpacked() if result.diff_id is None else (result.diff_id, result.bytes)
    return {
        "status": "kept",
        "format": format,
        "diff_id": diff_id,
        "uncompressed_size": size,
        "toc_digest": layer.toc_digest,
        "entries": counts["entries"],
        "chunks": counts["chunks"],
        "level": None,
        "annotations": annotations_of(format, _places(layer, size)),
    }


def left(spool: Spool, memory: int | None) -> dict[str, Any]:
    """What is to be reported of a layer that a TOC cannot hold; `memory` is that of
    `stargz.convert`. Raises what else is wrong with it."""
    tar = unlinked()
    try:
        os.lseek(spool.fd, 0, os.SEEK_SET)
        diff_id, size = unpack(spool.fd, tar, spool.name, memory)
        entries = sum(1 for _ in TarEntries(tar, size, spool.name, any_type=True))
    finally:
        os.close(tar)
    return {
        "diff_id": diff_id,
        "toc_digest": None,
        "uncompressed_size": size,
        "entries": entries,
        "chunks": 0,
        "level": None,
    }


def _is_read_as(layer: Layer, format: Format) -> bool:
    """Whether the readers of a format find all in a layer that they need: those of zstd:chunked
    have demands of their own, and one blob may be for both."""
    footer = layer.footer
    if format == "zstd:chunked":
        return footer.split is not None and bool(layer.split_digest)
    if format == "zstd:chunked-stargz":
        theirs = footer.size not in (0, TARSPLIT_FOOTER_SIZE)
        return theirs and not layer.toc.rows.bare_chunks
    return True


def _places(layer: Layer, size: int) -> dict[str, Any]:
    """What the engine tells of a layer that it made, for its annotations, of one that is there;
    `size` is that of its tar."""
    found: dict[str, Any] = {"toc_digest": layer.toc_digest, "uncompressed_size": size}
    found |= {"toc_offset": layer.toc_offset, "toc_packed": 0, "toc_size": 1}
    found["toc_checksum"] = layer.toc_checksum
    for name, at in (("toc", layer.footer.toc), ("split", layer.footer.split)):
        if at is not None:
            found |= {f"{name}_offset": at.offset, f"{name}_packed": at.packed}
            found[f"{name}_size"] = at.size
    return found
