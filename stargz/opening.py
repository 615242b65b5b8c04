"""From a source to an open layer: footer, TOC, and the way to a blob that must be fetched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stargz._engine.reader import FRAMES, Blob, Reader, read_toc, read_toc_frame
from stargz.descriptors import TOC_DIGEST, chunked_of
from stargz.digests import check_digest, is_sha256
from stargz.errors import (
    DigestError,
    FooterError,
    NotPicklableError,
    UnverifiedError,
    UsageError,
    may_hold_secret,
)
from stargz.footer import NO_FOOTER
from stargz.layer import Layer, Place
from stargz.options import MAX_TOC_SIZE, is_given, thread_count, toc_too_large
from stargz.sources import ByteSource, FileObjectSource, Source, as_source, url_scheme
from stargz.sources.base import TAIL_MIN
from stargz.tail import Tail, read_tail

if TYPE_CHECKING:
    from stargz.cache import Cache
    from stargz.indexes import IndexSource
    from stargz.remote import Fetcher


def open(
    source: Source,
    *,
    toc: Source | None = None,
    toc_digest: str | None = None,
    index: IndexSource = None,
    index_digest: str | None = None,
    annotations: Mapping[str, str] | None = None,
    verify: bool = True,
    require_verified: bool = False,
    threads: int | None = None,
    max_toc_size: int = MAX_TOC_SIZE,
    cache: Cache | str | os.PathLike[str] | bool | None = None,
    prefetch: bool = False,
    background: bool = False,
    fetcher: Callable[[], Fetcher] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Layer:
    """Open a layer: a seekable one, or an ordinary tar.gz, tar, or tar.zst of several frames.

    `source` is a path, URL, bytes, a binary file object (its position does not matter; it is not
    closed), or a ByteSource. `toc` is the same for a blob whose TOC is external: the
    gzip'ed tar that holds it. `toc_digest` ("sha256:...") is what the TOC must hash to, as an
    image's manifest says; `annotations` are those of the layer's descriptor there, which say that,
    and of zstd:chunked where the TOC is. Reads check chunks against their digests unless `verify`
    is false; `require_verified` refuses layers whose reads cannot be trusted: without `toc_digest`,
    or with chunks that have no digest. `threads` is how many a large read and verification use
    (default: one for each core). `max_toc_size` bounds the TOC's JSON in bytes.

    An ordinary tar is read by an index. `index` is its file: a path, URL, bytes, ... that
    `stargz.index` or SOCI made; one that does not fit is an error. Without, the file beside
    `source` with ".index" behind its name is used if it fits, else one that was kept before, else
    one is made, which reads all of `source` once, and kept in the user's cache. Of a blob that must
    be fetched none is made unless `index` is "build"; False makes none at all. `index_digest` is
    the sha256 of the index's file, which makes it as trustworthy as that digest;
    `require_verified` needs it, or an index that is made now. `progress(done, total)` is called
    while one is made.

    Of a blob that must be fetched, `cache` is where chunks are kept on disk: a
    `stargz.cache.Cache`, the path of one, True for the user's own, False for none; None is the
    user's own for URLs and ByteSources, and none for file objects. With `prefetch` the
    prioritized files, with `background` all others are fetched into it without being asked
    for, while the layer is open. `fetcher` gives a `stargz.remote.Fetcher` that several layers
    share, with its workers and memory, in place of one made of these options; it is not closed
    here. Of what is local `cache` is where an index is kept that has to be made (None: the user's).

    Raises FooterError, TOCError and other FormatErrors for what is no layer, UnindexedError (a
    FooterError) for an ordinary one that is far away, IndexFileError for an index that is none or
    does not fit, DigestError when TOC or index are not those asked for, UnverifiedError,
    UsageError, and OSError for what the system refuses.
    """
    options = OpenOptions(
        verify, require_verified, threads, max_toc_size, cache, prefetch, background, fetcher,
        progress,
    )  # fmt: skip
    return open_as(options, source, toc, toc_digest, index, index_digest, annotations=annotations)


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
    progress: Callable[[int, int], object] | None = None  # of an index that is made

    def __post_init__(self) -> None:
        thread_count(self.threads)
        if self.require_verified and not self.verify:
            raise UsageError(
                "require_verified (--require-verified) and verify=False contradict each other"
            )


def open_as(
    options: OpenOptions,
    source: Source,
    toc: Source | None = None,
    toc_digest: str | None = None,
    index: IndexSource = None,
    index_digest: str | None = None,
    blob_digest: str | None = None,
    trusted: bool | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Layer:
    """`open`, with the options in one. `blob_digest` is that of the blob, where it is known; an
    index is kept by it. `trusted` says whether the `toc_digest` vouches for what it is of, where it
    is only what was seen before."""
    annotations = dict(annotations or {})
    toc_digest = toc_digest or annotations.get(TOC_DIGEST)
    for digest in (toc_digest, index_digest):
        if digest is not None:
            check_digest(digest, good=is_sha256)
    if index_digest is not None and (index is False or index == "build"):
        raise UsageError("index_digest (--index-digest) is of an index that is there")
    named = is_given(index)
    if toc is not None and named:
        raise UsageError(
            "toc (--toc) is for a seekable layer, index (--index) for an ordinary one: give one of "
            "them"
        )
    given = _Indexed(_lasting(index) if named else index, index_digest, blob_digest)
    kept = _lasting(options.cache)
    origin = _Origin(_lasting(source), _lasting(toc), given, kept, options, annotations)
    # Where the TOC is elsewhere, the blob's last bytes are of no use.
    opened = as_source(source, tail=0 if named else TAIL_MIN)
    owned = opened is not source
    try:
        disk = _disk_cache(options.cache, opened)
        chunked = None if named else chunked_of(annotations, opened.name)
        end = None if named else read_tail(Blob(opened), chunked, seekable=toc is not None)
        if end is None:
            layer = _open_indexed(opened, owned, toc_digest, given, options, trusted)
        else:
            if index_digest is not None:
                raise UsageError(
                    f"{opened.name}: the layer has its own TOC; index_digest (--index-digest) is "
                    "of an index"
                )
            open_it = _open_seekable if end.footer.toc is None else _open_chunked
            layer = open_it(Blob(opened), owned, end, toc, toc_digest, options, trusted)
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
class _Indexed:
    """What `open_as` was told of the index."""

    index: IndexSource
    index_digest: str | None
    blob_digest: str | None


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a layer was opened of."""

    source: Source
    toc: Source | None
    index: _Indexed
    cache: Cache | str | bool | None
    options: OpenOptions
    annotations: dict[str, str]

    def reduce(self, name: str, toc_digest: str, trusted: bool) -> tuple[Any, ...]:
        """See `stargz.layer.Origin`. Never with credentials."""
        if self.options.fetcher is not None:
            raise NotPicklableError(
                f"{name}: cannot be pickled, as it shares what fetches with other layers; open the "
                "image where the layer is needed"
            )
        toc = None if self.toc is None else _portable(self.toc, name)
        source = _portable(self.source, name)
        index = self.index.index
        if is_given(index):
            index = _portable(index, name)
        options = replace(self.options, cache=self.cache, progress=None)
        told = index, self.index.index_digest, self.index.blob_digest
        return open_as, (options, source, toc, toc_digest, *told, trusted, self.annotations)


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


def _open_indexed(
    source: ByteSource,
    owned: bool,
    toc_digest: str | None,
    given: _Indexed,
    options: OpenOptions,
    trusted: bool | None,
) -> Layer:
    """An ordinary blob, by its index."""
    from stargz.indexes import Wanted, find

    found = find(
        source,
        Wanted(
            index=given.index,
            index_digest=given.index_digest,
            blob_digest=given.blob_digest,
            toc_digest=toc_digest,
            require_verified=options.require_verified,
            max_size=options.max_toc_size,
            cache=options.cache,
            threads=options.threads,
            progress=options.progress,
        ),
    )
    index = found.index
    if toc_digest is not None:
        from stargz.indexing import toc_digest_of

        _check_toc(toc_digest, toc_digest_of(index), source.name)
    # A TOC's digest is about the digests in it, not about those of spans, which stand beside it.
    vouched = found.vouched or (toc_digest is not None and not index.has_span_digests)
    if options.require_verified and not vouched:
        raise UnverifiedError(
            f"{source.name}: toc_digest (--toc-digest) vouches for no contents here, as a ztoc's "
            "digests are not in its TOC: give index_digest (--index-digest)"
        )
    trusted = vouched if trusted is None else trusted and vouched
    reader = Reader(
        Blob(source),
        index.toc,
        source.size,
        options.verify,
        thread_count(options.threads),
        source.close if owned else None,
        index=index,
        claims=not (trusted or found.vouched),
    )
    return Layer(reader, index.toc, NO_FOOTER, None, toc_digest, trusted, index)


def _open_seekable(
    blob: Blob,
    owned: bool,
    end: Tail,
    toc: Source | None,
    toc_digest: str | None,
    options: OpenOptions,
    trusted: bool | None,
) -> Layer:
    if toc_digest is None:
        _check_demands(options)
    limit = options.max_toc_size
    source, footer = blob.source, end.footer
    size = source.size
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
        _check_own_toc(toc, source)
        data_end = json_offset = footer.toc_offset
        json_end = toc_end
        toc_blob = end.around(blob, json_offset, toc_end)
    rows, json_size, digest = read_toc(toc_blob, json_offset, json_end, limit, data_end)
    actual = f"sha256:{digest.hex()}"
    if toc_digest is not None:
        _check_toc(toc_digest, actual, toc_blob.source.name)
    place = Place(toc_blob, json_offset, json_end, json_size)
    threads = thread_count(options.threads)
    close = source.close if owned else None
    reader = Reader(blob, rows, data_end, options.verify, threads, close)
    if trusted is None:
        trusted = toc_digest is not None
    return Layer(reader, rows, footer, place, actual, trusted)


def _open_chunked(
    blob: Blob,
    owned: bool,
    end: Tail,
    toc: Source | None,
    toc_digest: str | None,
    options: OpenOptions,
    trusted: bool | None,
) -> Layer:
    """A layer in zstd:chunked, of whose TOC the JSON or the frame has a digest that is known."""
    source, footer, at = blob.source, end.footer, end.footer.toc
    assert at is not None
    checksum = ""
    if end.said is not None:
        checksum = end.said.checksum
    if not (toc_digest or checksum):
        _check_demands(options)
    _check_own_toc(toc, source)
    toc_end = at.offset + at.packed
    toc_blob = end.around(blob, at.offset, toc_end)
    rows, digest, packed_digest = read_toc_frame(
        toc_blob, at.offset, at.packed, at.size, options.max_toc_size, footer.data_end
    )
    actual, packed = f"sha256:{digest.hex()}", f"sha256:{packed_digest.hex()}"
    if toc_digest is not None:
        _check_toc(toc_digest, actual, source.name)
    if checksum:
        _check_toc(checksum, packed, source.name)
    reader = Reader(
        blob,
        rows,
        footer.data_end,
        options.verify,
        thread_count(options.threads),
        source.close if owned else None,
        index=FRAMES,
    )
    if trusted is None:
        trusted = bool(toc_digest or checksum)
    place = Place(toc_blob, at.offset, toc_end, at.size, packed)
    return Layer(reader, rows, footer, place, actual, trusted)


def _check_demands(options: OpenOptions) -> None:
    if options.require_verified:
        raise UnverifiedError(
            "require_verified (--require-verified) needs toc_digest (--toc-digest): without it "
            "nothing vouches for the TOC"
        )


def _check_own_toc(toc: Source | None, source: ByteSource) -> None:
    if toc is not None:
        raise UsageError(
            f"{source.name}: the layer has its own TOC; toc (--toc) is for layers without one"
        )


def _check_toc(expected: str, actual: str, name: str) -> None:
    if actual != expected:
        raise DigestError("the table of contents", expected, actual, name)


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


def _external(toc: Source, max_size: int) -> tuple[Blob, int, int]:
    source = as_source(toc)
    try:
        if source.size > max_size:
            raise toc_too_large(source.size, max_size, source.name)
        # It is small, and needed once more for read_toc: keep it.
        data = source.read_at(0, source.size)
    finally:
        if source is not toc:
            source.close()
    return Blob(source, data, 0), 0, len(data)
