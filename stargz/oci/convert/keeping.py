"""Layers that stay as they are: whether one that is in the wanted format already can, and what
there is to say of it, and of one that has to."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

from stargz._engine.write import TarEntries
from stargz.descriptors import annotations_of
from stargz.digests import Hashed
from stargz.durable import release, unlinked
from stargz.layer import Layer
from stargz.options import Format
from stargz.sources.spool import Spool, unpack

_PIECE = 1 << 20  # bytes of a tar that are packed at a time
_FRAME, _SKIPPABLE = 0xFD2FB528, 0x184D2A50  # what a frame of zstd begins with


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


def left_as_it_is(
    spool: Spool,
    memory: int | None,
    use: Callable[[int, int], object] = lambda tar, size: None,
) -> dict[str, Any]:
    """What is to be reported of a layer that a TOC cannot hold; `memory` is that of
    `stargz.convert`. `use` gets its tar, and the bytes of that. Raises what else is wrong with
    it."""
    tar = unlinked()
    try:
        os.lseek(spool.fd, 0, os.SEEK_SET)
        diff_id, size = unpack(spool.fd, tar, spool.name, memory)
        entries = sum(1 for _ in TarEntries(tar, size, spool.name, any_type=True))
        use(tar, size)
    finally:
        release(tar)
    return {
        "diff_id": diff_id,
        "toc_digest": None,
        "uncompressed_size": size,
        "entries": entries,
        "chunks": 0,
        "level": None,
        "annotations": {},
    }


def is_zstd_data(spool: Spool) -> bool:
    """Whether a layer is in zstd, by its first bytes."""
    magic = int.from_bytes(spool.read(0, 4), "little")
    return magic == _FRAME or magic & ~15 == _SKIPPABLE


def as_gzip(
    spool: Spool,
    memory: int | None,
    write: Callable[[bytes], object],
    tell: Callable[[], object],
) -> dict[str, Any]:
    """The same of one that is written as plain gzip, with the digest and the size that it has then;
    `tell` is called now and then, and may raise."""
    out = Hashed(write)

    def pack(tar: int, size: int) -> None:
        packer = zlib.compressobj(wbits=31)  # without a name or a time: the same bytes each time
        for at in range(0, size, _PIECE):
            out.write(packer.compress(os.pread(tar, min(_PIECE, size - at), at)))
            tell()
        out.write(packer.flush())

    found = left_as_it_is(spool, memory, pack)
    return {**found, "digest": out.digest, "size": out.size}


def _is_read_as(layer: Layer, format: Format) -> bool:
    """Whether the readers of a format find all in a layer that they need: those of zstd:chunked
    have demands of their own, and one blob may be for both."""
    readers = {"zstd:chunked": "containers/storage", "zstd:chunked-stargz": "stargz-snapshotter"}
    return format not in readers or readers[format] in layer.dialects


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
