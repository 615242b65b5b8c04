"""From a source to an open layer: footer, TOC, and the way to a blob that must be fetched."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stargz._engine.reader import Blob, Reader, read_toc
from stargz.digests import check_digest, is_sha256
from stargz.errors import (
    DigestError,
    FooterError,
    NotPicklableError,
    TOCError,
    UnsupportedError,
    UnverifiedError,
    UsageError,
    may_hold_secret,
)
from stargz.footer import MAX_FOOTER_SIZE, NOT_READ, Footer, parse_footer
from stargz.layer import Layer, Place
from stargz.options import MAX_TOC_SIZE, thread_count
from stargz.sources import ByteSource, FileObjectSource, Source, as_source, url_scheme
from stargz.sources.base import tail_size

if TYPE_CHECKING:
    from stargz.cache import Cache
    from stargz.remote import Fetcher

# More than this between the TOC's offset and the footer is read in steps, not at once: a
# false offset must not fetch the blob.
_TOC_FETCH = 64 << 20


def open(
    source: Source,
    *,
    toc: Source | None = None,
    toc_digest: str | None = None,
    verify: bool = True,
    require_verified: bool = False,
    threads: int | None = None,
    max_toc_size: int = MAX_TOC_SIZE,
    cache: Cache | str | os.PathLike[str] | bool | None = None,
    prefetch: bool = False,
    background: bool = False,
    fetcher: Callable[[], Fetcher] | None = None,
) -> Layer:
    """Open a seekable layer.

    `source` is a path, bytes, a binary file object (its position does not matter; it is not
    closed), or a ByteSource. `toc` is the same for a blob whose TOC is external: the
    gzip'ed tar that holds it. `toc_digest` ("sha256:...") is what the TOC must hash to, as an
    image's manifest says. Reads check chunks against their digests unless `verify` is false;
    `require_verified` refuses layers whose reads cannot be trusted: without `toc_digest`, or
    with chunks that have no digest. `threads` is how many a large read and verification use
    (default: one for each core). `max_toc_size` bounds the TOC's JSON in bytes.

    Of a blob that must be fetched, `cache` is where chunks are kept on disk: a
    `stargz.cache.Cache`, the path of one, True for the user's own, False for none; None is the
    user's own for URLs and ByteSources, and none for file objects. With `prefetch` the
    prioritized files, with `background` all others are fetched into it without being asked
    for, while the layer is open. `fetcher` gives a `stargz.remote.Fetcher` that several layers
    share, with its workers and memory, in place of one made of these options; it is not closed
    here.

    Raises FooterError, TOCError and other FormatErrors for what is no seekable layer,
    DigestError when the TOC is not the one asked for, UnverifiedError, UsageError, and
    OSError for what the system refuses.
    """
    options = OpenOptions(
        verify, require_verified, threads, max_toc_size, cache, prefetch, background, fetcher
    )
    return open_as(options, source, toc, toc_digest)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How layers are opened, whichever they are; see `open`."""

    verify: bool = True
    require_verified: bool = False
    threads: int | None = None
    max_toc_size: int = MAX_TOC_SIZE
    cache: Cache | str | os.PathLike[str] | bool | None = None
    prefetch: bool = False
    background: bool = False
    fetcher: Callable[[], Fetcher] | None = None

    def __post_init__(self) -> None:
        thread_count(self.threads)
        if self.require_verified and not self.verify:
            raise UsageError(
                "require_verified (--require-verified) and verify=False contradict each other"
            )


def open_as(
    options: OpenOptions, source: Source, toc: Source | None = None, toc_digest: str | None = None
) -> Layer:
    """`open`, with the options in one."""
    if toc_digest is not None:
        check_digest(toc_digest, good=is_sha256)
    elif options.require_verified:
        raise UnverifiedError(
            "require_verified (--require-verified) needs toc_digest (--toc-digest): without it "
            "nothing vouches for the TOC"
        )
    origin = _Origin(_lasting(source), _lasting(toc), _lasting(options.cache), options)
    opened = as_source(source)
    owned = opened is not source
    try:
        disk = _disk_cache(options.cache, opened)
        layer = _open(opened, owned, toc, toc_digest, options)
    except BaseException:
        if owned:
            opened.close()
        raise
    layer.origin = origin
    if not layer.blob.direct:
        layer.reader.attach(_connect(disk, layer.prefetch_size, options))
        if options.prefetch or options.background:
            layer.reader.start()
    if options.require_verified:
        try:
            missing = layer.reader.undigested()
            if missing:
                raise UnverifiedError(
                    f"{layer.name}: {missing} of its chunks have no digest to verify reads against "
                    f"({layer.kind} layer); convert the layer again"
                )
        except BaseException:
            layer.close()
            raise
    return layer


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a layer was opened of."""

    source: Source
    toc: Source | None
    cache: Cache | str | bool | None
    options: OpenOptions

    def reduce(self, name: str, toc_digest: str, trusted: bool) -> tuple[Any, ...]:
        """See `stargz.layer.Origin`. Never with credentials."""
        if self.options.fetcher is not None:
            raise NotPicklableError(
                f"{name}: cannot be pickled, as it shares what fetches with other layers; open the "
                "image where the layer is needed"
            )
        toc = None if self.toc is None else _portable(self.toc, name)
        source = _portable(self.source, name)
        options = replace(self.options, cache=self.cache)
        return _reopen, (options, source, toc, toc_digest, trusted)


def _reopen(
    options: OpenOptions, source: Source, toc: Source | None, toc_digest: str, trusted: bool
) -> Layer:
    layer = open_as(options, source, toc, toc_digest)
    # Its TOC is the one that was seen, which is not to say that anything vouches for it.
    layer.trusted = trusted
    return layer


def _lasting(source: Any) -> Any:
    """A path that means the same when the working directory is another."""
    if isinstance(source, str | os.PathLike) and not url_scheme(source):
        with suppress(FileNotFoundError):  # there is no working directory: nor is there the path
            return os.path.abspath(source)  # noqa: PTH100
    return source


def _portable(source: Any, name: str) -> Source:
    """What means the same in another process."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str) and url_scheme(source):
        if may_hold_secret(source):
            raise NotPicklableError(
                f"{name}: cannot be pickled, as its URL has a user or a query, which may be "
                "secret; open it where it is needed"
            )
        return source
    if isinstance(source, str | os.PathLike):
        return source
    raise NotPicklableError(
        f"{name}: cannot be pickled, as it was opened of a {type(source).__name__}, not of a path, "
        "URL or bytes; open it where it is needed"
    )


def _disk_cache(
    cache: Cache | str | os.PathLike[str] | bool | None, source: ByteSource
) -> Callable[[], Cache | None]:
    """What the `cache` parameter means; the user's own is not opened before it is needed."""
    if cache is False or (cache is None and isinstance(source, FileObjectSource)):
        return lambda: None
    if cache is None:
        return _own_cache
    from stargz.cache import as_cache

    opened = as_cache(cache)
    return lambda: opened


def _own_cache() -> Cache | None:
    from stargz.cache import as_cache

    return as_cache(None)


def _open(
    source: ByteSource,
    owned: bool,
    toc: Source | None,
    toc_digest: str | None,
    options: OpenOptions,
) -> Layer:
    limit = options.max_toc_size
    blob = Blob(source)
    size = source.size
    # A local file is read where it is needed; anything else once.
    length = min(size, MAX_FOOTER_SIZE) if blob.direct else tail_size(size)
    tail = source.read_at(size - length, length) if length else b""
    footer = _find_footer(tail, size, source.name)
    toc_end = size - footer.size
    if footer.kind == "external-toc":
        if toc is None:
            raise FooterError(
                "the TOC of this layer is not in it: give the file that holds it as toc (--toc)",
                source.name,
                toc_end,
            )
        data_end = toc_end
        toc_blob, json_offset, json_end = _external(toc, limit)
    else:
        if toc is not None:
            raise UsageError(
                f"{source.name}: the layer has its own TOC; toc (--toc) is for layers without one"
            )
        data_end = json_offset = footer.toc_offset
        json_end = toc_end
        toc_blob = blob
        if not blob.direct and toc_end - json_offset <= _TOC_FETCH:
            start = size - length
            if json_offset < start:
                tail = source.read_at(json_offset, start - json_offset) + tail
                start = json_offset
            toc_blob = Blob(source, tail, start)
    rows, json_size, digest = read_toc(toc_blob, json_offset, json_end, limit, data_end)
    actual = f"sha256:{digest.hex()}"
    if toc_digest is not None and actual != toc_digest:
        raise DigestError("the table of contents", toc_digest, actual, source.name)
    place = Place(toc_blob, json_offset, json_end, json_size)
    threads = thread_count(options.threads)
    close = source.close if owned else None
    reader = Reader(blob, rows, data_end, options.verify, threads, close)
    return Layer(reader, rows, footer, place, actual, toc_digest is not None)


def _connect(
    disk: Callable[[], Cache | None], prefetch_end: int, options: OpenOptions
) -> Callable[[Reader], object]:
    """What makes a reader's way to a blob that must be fetched."""

    def connect(reader: Reader) -> object:
        from stargz.remote import Fetcher, Remote

        if options.fetcher is not None:
            fetcher = options.fetcher()
        else:
            fetcher = Fetcher(disk(), prefetch=options.prefetch, background=options.background)
        number = fetcher.add(reader, prefetch_end)
        return Remote(fetcher, number, owned=options.fetcher is None)

    return connect


def _find_footer(tail: bytes, size: int, name: str) -> Footer:
    footer = parse_footer(tail[-MAX_FOOTER_SIZE:], size, name)
    if footer.kind == "zstd:chunked":
        raise UnsupportedError(NOT_READ, name, size - footer.size)
    return footer


def _external(toc: Source, max_size: int) -> tuple[Blob, int, int]:
    source = as_source(toc)
    try:
        if source.size > max_size:
            raise TOCError(
                f"{source.size} bytes are more than a TOC may have, {max_size}; "
                "max_toc_size (--max-toc-size) allows more",
                source.name,
            )
        # It is small, and needed once more for read_toc: keep it.
        data = source.read_at(0, source.size)
    finally:
        if source is not toc:
            source.close()
    return Blob(source, data, 0), 0, len(data)
