"""What a layer is: its kind, sizes, counts and digests.

Of a remote layer the footer and the TOC are fetched, no more. Its uncompressed size, and with it
the ratio, are what an image's manifest says, or what --all finds by decoding all of it; a file is
always decoded. A plain tar, tar.gz or tar.zst is reported as such. Of several SRCs each is told
of."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING, Any

from stargz.cli import _options
from stargz.cli._layers import Found, open_source, source
from stargz.cli._output import size_text, table
from stargz.cli._several import Told, each
from stargz.errors import mask
from stargz.footer import NOT_READ

if TYPE_CHECKING:
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


_ALL = "not known (--all reads the whole layer for it)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz info`."""
    _options.add_layer_options(parser, several=True)
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
        report = None
        if not (args.toc or args.toc_digest or args.require_verified):
            report = _without_toc(blob)
        if report is None:
            with open_source(Found(blob, found.toc_digest), args) as layer:
                report = _with_toc(layer, found.uncompressed_size, decode=args.all)
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
    if decode or layer.blob.direct:
        uncompressed_size = layer.uncompressed_size()
    landmarks = {".prefetch.landmark": "prefetch", ".no.prefetch.landmark": "no prefetch"}
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
    }


def _without_toc(blob: ByteSource) -> dict[str, Any] | None:
    """What is known of a blob whose TOC is not in it or not read; None for all others."""
    from stargz import footer
    from stargz.errors import FooterError

    size = min(blob.size, footer.MAX_FOOTER_SIZE)
    tail = blob.read_at(blob.size - size, size)
    try:
        found = footer.parse_footer(tail, blob.size, blob.name)
    except FooterError:
        compression = _plain(blob)
        if compression is None or b"STARGZ" in tail or b"UlInUx" in tail:
            raise
        return {"kind": "plain", "size": blob.size, "compression": compression}
    if found.kind in ("estargz", "stargz"):
        return None
    offset = found.toc_offset if found.toc_offset >= 0 else None
    return {"kind": found.kind, "size": blob.size, "toc_offset": offset}


def _plain(blob: ByteSource) -> str | None:
    """How a tar without a TOC is compressed; None for what is no tar."""
    from stargz.oci.formats.packing import packing

    head = blob.read_at(0, min(blob.size, 512))
    kind = packing(head)
    if kind in ("gzip", "zstd"):
        return kind
    # ustar, PAX and GNU have the word; an empty tar is zeros.
    return "none" if head[257:262] == b"ustar" or head == bytes(512) else None


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    def text(key: str, value: Any) -> str:
        if value is None and key in ("uncompressed_size", "ratio"):
            return _ALL if report["toc_digest"] else "not known"
        if value is None:
            return "none" if key == "landmark" else "not known"
        if key.endswith("size") or key == "largest_chunk":
            return size_text(value)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:,}" if isinstance(value, int) and key != "toc_offset" else str(value)

    rows = [
        (key, text(key, value))
        for key, value in report.items()
        if value is not None or report["kind"] not in ("plain", "zstd:chunked")
    ]
    return [*rows, ("note", NOT_READ)] if report["kind"] == "zstd:chunked" else rows
