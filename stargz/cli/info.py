"""What a layer is: its kind, sizes, counts and digests.

Of a remote layer the footer and the TOC are fetched, no more. Its uncompressed size, and with it
the ratio, are what an image's manifest says, or what --all finds by decoding all of it; a file is
always decoded. An ordinary tar, tar.gz or tar.zst is told of by its index if there is one, and else
as "plain": none is made. One whose first and last bytes show that it was cut short is told so; all
of it is looked at by 'stargz verify'. Of several SRCs each is told of."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING, Any

from stargz.cli import _options
from stargz.cli._layers import Found, index_trust, open_source, source
from stargz.cli._output import size_text, table
from stargz.cli._several import Told, each
from stargz.errors import UnindexedError, mask

if TYPE_CHECKING:
    from stargz._engine.index import Index
    from stargz.layer import Layer
    from stargz.sources import ByteSource

EXAMPLE = """\
stargz info layer.stargz
stargz info --all https://host.example/layer.stargz"""

# What other tools may count on; None where it is not known.
_KEYS = (
    "kind", "size", "toc_offset", "toc_digest", "entries", "files", "chunks",
    "uncompressed_size", "prefetch_size",
)  # fmt: skip


_UNINDEXED = (
    "an ordinary tar without an index: ls, cat, mount ... make one and keep it (of a remote one "
    "with --build-index); 'stargz index' makes one to lie beside it"
)
_APART = "its TOC is not in it: --toc FILE tells more, or the name of the image that it is of"
_ALL = "not known (--all reads the whole layer for it)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz info`."""
    _options.add_layer_options(parser, several=True, build=False)
    parser.add_argument(
        "--all",
        action="store_true",
        help="read and decode a remote layer whole, for its uncompressed size and ratio (a local "
        "one is decoded anyway)",
    )


def run(args: argparse.Namespace) -> int:
    """Tell what every SRC is."""
    return each(args, _info, lambda error: {**dict.fromkeys(_KEYS), "error": error})


def _info(args: argparse.Namespace) -> Told:
    from stargz.sources import as_source

    with source(args) as found, closing(as_source(found.source)) as blob:
        demands = args.toc or args.toc_digest or args.require_verified or args.index_digest
        report = None if demands or args.index else _without_toc(blob)
        if report is None:
            try:
                opened = open_source(Found(blob, found.toc_digest), args, make=False)
            except UnindexedError:
                if demands:
                    raise
                report = _plain(blob)
            else:
                with opened as layer:
                    report = _with_toc(layer, found.uncompressed_size, decode=args.all)
                    if layer.index is not None:
                        report["index_trust"] = index_trust(args, layer)
    report = {**dict.fromkeys(_KEYS), **report}
    rows = _rows(report)
    if len(args.sources) > 1:
        rows.insert(0, ("source", mask(args.src)))
    return Told(report, table(rows))


def _with_toc(layer: Layer, stated: int | None, *, decode: bool) -> dict[str, Any]:
    """`stated` is the uncompressed size that a manifest gives."""
    from stargz._engine.toc import TYPES

    counts = layer.toc.counts()
    chunks = layer.toc.columns
    data = chunks["type"] != TYPES.index("zeros") + 1
    uncompressed_size = stated
    if decode or layer.blob.direct or layer.index is not None:
        uncompressed_size = layer.uncompressed_size()
    landmarks = {".prefetch.landmark": "prefetch", ".no.prefetch.landmark": "no prefetch"}
    if layer.index is not None:  # there they are a user's
        landmarks = {}
    return {
        "kind": layer.kind,
        "size": layer.size,
        "toc_offset": layer.toc_offset if layer.toc_offset >= 0 else None,
        "toc_digest": layer.toc_digest,
        "entries": counts["entries"],
        "files": counts["files"],
        "chunks": counts["chunks"],
        "uncompressed_size": uncompressed_size,
        "prefetch_size": layer.prefetch_size,
        "content_size": counts["bytes"],
        "ratio": None
        if uncompressed_size is None
        else round(layer.size / max(uncompressed_size, 1), 4),
        "largest_chunk": int(chunks["chunk_size"][data].max(initial=0)),
        "inner_offsets": bool(chunks["inner_offset"].any()),
        "landmark": next((kind for name, kind in landmarks.items() if name in layer), None),
        **({} if layer.index is None else _of_index(layer.index, layer.blob.source)),
        **({} if layer.footer.toc is None else _of_chunked(layer)),
    }


def _of_chunked(layer: Layer) -> dict[str, Any]:
    """What is known of zstd:chunked besides."""
    readers = layer.dialects
    dialect = "both" if len(readers) > 1 else readers[0] if readers else "neither"
    return {"dialect": dialect, "tar_split": layer.footer.split is not None}


def _of_index(index: Index, blob: ByteSource) -> dict[str, Any]:
    """What is known of an ordinary tar besides."""
    from stargz.ending import without_footer

    return {
        "spans": index.spans,
        "longest_span": index.longest_span,
        "blob_digest": index.digest or None,
        "blob_size": index.size,
        "diff_id": index.diff_id or None,
        "cut_short": without_footer(blob),
    }


def _plain(blob: ByteSource) -> dict[str, Any]:
    from stargz.ending import cut_short
    from stargz.indexes import compression_of

    compression = compression_of(blob)
    return {
        "kind": "plain",
        "size": blob.size,
        "compression": compression,
        "cut_short": cut_short(blob, compression),
    }


def _without_toc(blob: ByteSource) -> dict[str, Any] | None:
    """What is known of a blob whose TOC is elsewhere; None for all others."""
    from stargz.footer import MAX_FOOTER_SIZE, find_footer

    size = min(blob.size, MAX_FOOTER_SIZE)
    found = find_footer(blob.read_at(blob.size - size, size), blob.size, blob.name)
    if found is None or found.kind != "external-toc":
        return None
    return {"kind": found.kind, "size": blob.size, "toc_offset": None}


def _note(report: dict[str, Any]) -> str:
    """Of what has no index."""
    from stargz.indexes import IF_FRAMES

    if report["cut_short"]:
        return str(report["cut_short"])
    return _UNINDEXED + (IF_FRAMES if report["compression"] == "zstd" else "")


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    def text(key: str, value: Any) -> str:
        if value is None and key in ("uncompressed_size", "ratio"):
            return _ALL if report["toc_digest"] else "not known"
        if value is None:
            none = key == "landmark" or (key == "toc_offset" and report["kind"] == "indexed")
            return "none" if none else "not known"
        if key.endswith("size") or key in ("largest_chunk", "longest_span"):
            return size_text(value)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:,}" if isinstance(value, int) and key != "toc_offset" else str(value)

    rows = [
        (key, text(key, value))
        for key, value in report.items()
        if (value is not None or report["kind"] != "plain") and key != "cut_short"
    ]
    if report["kind"] == "plain":
        rows.append(("note", _note(report)))
    elif report.get("cut_short"):
        rows.append(("note", report["cut_short"]))
    elif report["toc_digest"] is None:
        rows.append(("note", _APART))
    return rows
