"""A layer that is open for reading: look-up, random reads, extraction, verification."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from stargz import footer as _footer
from stargz._engine import toc as _toc
from stargz._engine.reader import Blob, JSONStream, Reader, read_toc
from stargz.digests import check_digest, is_sha256
from stargz.errors import (
    DigestError,
    EntryNotFoundError,
    FooterError,
    FormatError,
    TOCError,
    UnverifiedError,
    UsageError,
)
from stargz.options import MAX_TOC_SIZE, thread_count
from stargz.sources import ByteSource, FileObjectSource, Source, as_source
from stargz.sources.base import tail_size
from stargz.toc import PREFETCH_LANDMARK, TOC, Chunk, Entry

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from stargz.cache import Cache
    from stargz.extract import ExtractResult
    from stargz.remote import Fetcher

# More than this between the TOC's offset and the footer is read in steps, not at once: a
# false offset must not fetch the blob.
_TOC_FETCH = 64 << 20
# What a file object reads at a time; most files of most layers are smaller.
_BUFFER = 64 << 10
# Reads of one batch that wait for a remote source together.
_PARALLEL = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """One error that verification found: the entry it is about ("" if none), the blob offset
    (None if it has none) and what is wrong."""

    name: str
    offset: int | None
    message: str


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What verification of a whole blob found.

    `files` regular files and `chunks` good chunks in `bytes` decoded bytes (all of the blob's
    tar, its TOC included). `errors` holds the first hundred of `error_count` problems.
    `verified`: the TOC's digest was given when the layer was opened and every file has a
    digest, so that the contents, and not only their consistency, were checked.
    """

    ok: bool
    files: int
    chunks: int
    bytes: int
    errors: list[Problem] = field(default_factory=list)
    error_count: int = 0
    verified: bool = False


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
            raise UsageError("require_verified and verify=False contradict each other")


def open_as(
    options: OpenOptions, source: Source, toc: Source | None = None, toc_digest: str | None = None
) -> Layer:
    """`open`, with the options in one."""
    if toc_digest is not None:
        check_digest(toc_digest, good=is_sha256)
    elif options.require_verified:
        raise UnverifiedError(
            "require_verified needs toc_digest: without it nothing vouches for the TOC"
        )
    opened = as_source(source)
    owned = opened is not source
    try:
        disk = _disk_cache(options.cache, opened)
        layer = _open(opened, owned, toc, toc_digest, options)
    except BaseException:
        if owned:
            opened.close()
        raise
    if not layer.blob.direct:
        layer.reader.attach(_connect(disk, layer.prefetch_size, options))
        if options.prefetch or options.background:
            layer.reader.start()
    if options.require_verified:
        try:
            missing = layer.reader.undigested()
            if missing:
                raise UnverifiedError(
                    f"{layer.name}: {missing} chunks have no digest to verify reads against "
                    f"({layer.kind} layer); convert the layer again"
                )
        except BaseException:
            layer.close()
            raise
    return layer


def _disk_cache(
    cache: Cache | str | os.PathLike[str] | bool | None, source: ByteSource
) -> Callable[[], Cache | None]:
    """What the `cache` parameter means; the user's own is not opened before it is needed."""
    if cache is False or (cache is None and isinstance(source, FileObjectSource)):
        return lambda: None
    from stargz.cache import as_cache

    if cache is None:
        return lambda: as_cache(None)
    opened = as_cache(cache)
    return lambda: opened


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
    length = min(size, _footer.MAX_FOOTER_SIZE) if blob.direct else tail_size(size)
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
                f"{source.name}: the layer has its own TOC; toc is for layers without one"
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
    place = _Place(toc_blob, json_offset, json_end, json_size)
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


def _find_footer(tail: bytes, size: int, name: str) -> _footer.Footer:
    footer = _footer.parse_footer(tail[-_footer.MAX_FOOTER_SIZE :], size, name)
    if footer.kind == "zstd:chunked":
        raise FormatError(
            "zstd:chunked is not read by this version; convert the layer to eStargz",
            name,
            size - footer.size,
        )
    return footer


def _external(toc: Source, max_size: int) -> tuple[Blob, int, int]:
    source = as_source(toc)
    try:
        if source.size > max_size:
            raise TOCError(
                f"{source.size} bytes are more than a TOC may have, {max_size} (max_toc_size)",
                source.name,
            )
        # It is small, and needed once more for read_toc: keep it.
        data = source.read_at(0, source.size)
    finally:
        if source is not toc:
            source.close()
    return Blob(source, data, 0), 0, len(data)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the TOC's JSON is: its member, the end of its members, its length."""

    blob: Blob
    offset: int
    end: int
    json_size: int


class Layer:
    """An open layer; made by `stargz.open`. Use it as a context manager, or close it.

    Names are cleaned on the fly ("./usr//bin/" is "usr/bin"). A layer is a collection of
    names: iteration gives them in the order of the TOC, landmarks included. Any number of
    threads may use it. After `close` its methods raise ValueError.
    """

    def __init__(
        self,
        reader: Reader,
        rows: _toc.TOC,
        footer: _footer.Footer,
        place: _Place,
        toc_digest: str,
        trusted: bool,
    ) -> None:
        self.reader = reader  # the engine's, for those who read rows
        self._rows = rows
        self._place = place
        self._trusted = trusted
        self._toc: TOC | None = None
        self.footer = footer
        self.toc_digest = toc_digest

    # --- what it is ---------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<stargz.Layer {self.name!r} ({self.kind})>"

    @property
    def name(self) -> str:
        """What errors call the blob: its path, or what the source says."""
        return self.reader.blob.name

    @property
    def kind(self) -> str:
        """ "estargz", "stargz" (legacy) or "external-toc"."""
        return self.footer.kind

    @property
    def source(self) -> ByteSource:
        """Where the blob's bytes come from."""
        return self.reader.blob.source

    @property
    def blob(self) -> Blob:
        """The same, as the engine reads it."""
        return self.reader.blob

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return self.source.size

    @property
    def toc_offset(self) -> int:
        """Blob offset of the TOC's gzip member; -1 when the TOC is external."""
        return self.footer.toc_offset

    @property
    def data_end(self) -> int:
        """Blob offset at which the members of file data end: the TOC's, or the footer's."""
        return self.toc_offset if self.toc_offset >= 0 else self.size - self.footer.size

    @property
    def external_toc_size(self) -> int:
        """Bytes of the members of a TOC that is external; 0 of one that is in the blob."""
        return self._place.end - self._place.offset if self.toc_offset < 0 else 0

    @property
    def verified(self) -> bool:
        """Whether the TOC is the one that was asked for, with a digest for every chunk."""
        return self._trusted and not self.reader.undigested()

    @property
    def prefetch_size(self) -> int:
        """How many bytes from the blob's start hold the prioritized files; 0 if none are."""
        row = self._rows.lookup(PREFETCH_LANDMARK)
        chunks = self._rows.chunks(row) if row >= 0 else []
        return chunks[0][0] if chunks else 0

    @property
    def toc(self) -> TOC:
        """The table of contents: entries as objects, all rows as numpy columns."""
        if self._toc is None:
            self._toc = TOC(self._rows)
        return self._toc

    def read_toc(self) -> bytes:
        """The TOC's JSON, byte for byte as it is stored."""
        return self._json().read()

    def iter_toc(self, size: int = 1 << 20) -> Iterator[bytes]:
        """The same in pieces of at most `size` bytes."""
        stream = self._json()
        while piece := stream.read(size):
            yield piece

    def _json(self) -> JSONStream:
        return JSONStream(self.reader, self._place.blob, self._place.offset, self._place.end)

    def uncompressed_size(self) -> int:
        """Bytes that the whole blob inflates to, the TOC included; it is all decoded."""
        with self._whole() as blob:
            found = self.reader.verify(
                self._members_end(), self._place.json_size, size_only=True, blob=blob
            )
        for error in found["errors"]:
            raise FormatError(error["message"], self.name, error["offset"])
        return int(found["bytes"])

    @contextmanager
    def _whole(self) -> Iterator[Blob]:
        """The blob for those who read all of it."""
        if self.blob.direct:
            yield self.blob
            return
        from stargz.sources.forward import ForwardSource

        with ForwardSource(self.source) as source:
            yield Blob(source)

    def _members_end(self) -> int:
        return self.size - self.footer.size

    # --- names --------------------------------------------------------------------------

    def __len__(self) -> int:
        self.reader.check()
        return len(self.toc)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self.reader.check()
        return isinstance(name, str) and name in self.toc

    def names(self) -> list[str]:
        """The cleaned names of all entries, in the order of the TOC."""
        self.reader.check()
        return self._rows.names()

    def entry(self, name: str) -> Entry:
        """The entry of a name; directories that are only implied have one too.

        Raises EntryNotFoundError, a KeyError.
        """
        self.reader.check()
        try:
            return self.toc.entry(name)
        except KeyError:
            raise EntryNotFoundError(name, self.name) from None

    def isdir(self, name: str) -> bool:
        """Whether a name is a directory, listed or implied. "" is the root."""
        self.reader.check()
        return self._rows.is_dir(name)

    def listdir(self, name: str = "") -> list[str]:
        """Base names of what a directory holds, sorted.

        Raises EntryNotFoundError, or NotADirectoryError.
        """
        self.reader.check()
        try:
            return self.toc.listdir(name)
        except KeyError:
            raise EntryNotFoundError(name, self.name) from None

    def chunks(self, name: str) -> list[Chunk]:
        """Where the data of a regular file lies, hard links followed; [] if it is empty."""
        return [Chunk(*chunk) for chunk in self._rows.chunks(self._file(name))]

    # --- contents -----------------------------------------------------------------------

    def _file(self, name: str) -> int:
        """The row of a regular file, hard links followed. Symlinks are not."""
        self.reader.check()
        row = self._rows.lookup(name)
        if row < 0:
            if self._rows.is_dir(name):
                raise IsADirectoryError(f"{self.name}: {name!r} is a directory")
            raise EntryNotFoundError(name, self.name)
        row = self._rows.resolve(row)
        kind = self._rows.type(row)
        if kind == "dir":
            raise IsADirectoryError(f"{self.name}: {name!r} is a directory")
        if kind != "reg":
            raise UsageError(f"{self.name}: {name!r} is a {kind}; only files have contents")
        return row

    def read(self, name: str, offset: int = 0, size: int = -1) -> bytes:
        """At most `size` bytes (all when negative) of a file from `offset` on.

        Hard links are followed, symlinks are not. Raises EntryNotFoundError, DigestError for
        contents that do not match, GzipError for a damaged blob.
        """
        return self.read_row(self._file(name), offset, size)

    def read_row(self, row: int, offset: int = 0, size: int = -1) -> bytes:
        """The same of a regular file's row, as `stargz.tree.Tree` knows them."""
        return self.reader.read(row, *_clamp(self._rows.size(row), offset, size))

    def read_rows(self, requests: Sequence[tuple[int, int, int]]) -> list[bytes]:
        """`read_row` of several (row, offset, size), in the order asked for.

        What a remote source has to fetch for them is asked for at the same time.
        """
        if len(requests) < 2 or self.blob.direct:
            return [self.read_row(*request) for request in requests]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(len(requests), _PARALLEL), "stargz-read") as pool:
            return list(pool.map(lambda request: self.read_row(*request), requests))

    def open(self, name: str) -> io.BufferedReader:
        """A file object over a file's contents: binary, seekable, for any number of threads
        that take turns; open one each to read in parallel."""
        return self.open_row(self._file(name), name)

    def open_row(self, row: int, name: str) -> io.BufferedReader:
        """The same of a regular file's row; `name` is what the file object is called."""
        self.reader.check()
        return io.BufferedReader(_File(self.reader, row, self._rows.size(row), name), _BUFFER)

    def extractall(
        self,
        path: str | os.PathLike[str],
        members: Iterable[str | bytes] | None = None,
        **options: Any,
    ) -> ExtractResult:
        """Write the layer, or some members, below the directory `path`.

        `options` are those of `stargz.extract.extract`, which says what is safe about it.
        """
        from stargz.extract import extract

        self.reader.hold()
        try:
            options.setdefault("verify", self.reader.verified)
            with nullcontext(self.blob) if members is not None else self._whole() as blob:
                return extract(_Tree(self._rows, blob, self.data_end), path, members, **options)
        finally:
            self.reader.leave()

    def verify(self, progress: Callable[[int, int], object] | None = None) -> VerifyResult:
        """Decode and check the whole blob, on all threads.

        Every gzip member with its CRC, every chunk and file against its digest, and the TOC
        against the tree that the tar makes when it is applied in order. Errors of the blob
        are collected, not raised. `progress(done, total)` gets compressed bytes, some tens
        of times a second.
        """
        with self._whole() as blob:
            found = self.reader.verify(
                self._members_end(), self._place.json_size, progress, blob=blob
            )
        errors = [Problem(**error) for error in found["errors"]]
        return VerifyResult(
            ok=not errors,
            files=found["files"],
            chunks=found["chunks"],
            bytes=found["bytes"],
            errors=errors,
            error_count=found["error_count"],
            verified=self._trusted and not found["undigested"],
        )

    # --- life ---------------------------------------------------------------------------

    def close(self) -> None:
        """Give the blob back once running reads are done. More than once is harmless."""
        self.reader.close()

    def __enter__(self) -> Self:
        self.reader.check()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Tree:
    """What extraction needs to know of a layer."""

    toc: _toc.TOC
    blob: Blob
    data_end: int


def _clamp(total: int, offset: int, size: int) -> tuple[int, int]:
    if offset < 0:
        raise UsageError(f"offset is at least 0, not {offset}")
    offset = min(offset, total)
    return offset, total - offset if size < 0 else min(size, total - offset)


class _File(io.RawIOBase):
    """The contents of one file."""

    def __init__(self, reader: Reader, row: int, size: int, name: str) -> None:
        self._reader = reader
        self._row = row
        self._size = size
        self._at = 0
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer) as view:
            offset, size = _clamp(self._size, self._at, view.nbytes)
        self._reader.read_into(self._row, offset, size, buffer)
        self._at = offset + size
        return size

    def readall(self) -> bytes:
        offset, size = _clamp(self._size, self._at, -1)
        data = self._reader.read(self._row, offset, size)
        self._at = offset + size
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if self.closed:
            raise ValueError("the file is closed")
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}.get(whence)
        if start is None:
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}, before the start")
        self._at = start + offset
        return self._at
