"""A layer that is open: look-up, random reads, extraction, verification. opening.py opens it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

from stargz import footer as _footer
from stargz import paths
from stargz._engine import toc as _toc
from stargz._engine.reader import Blob, JSONStream, Reader
from stargz.contents import File, Mode, WholeFile, check_mode, clamp
from stargz.errors import (
    EntryNotFoundError,
    FormatError,
    NotPicklableError,
    UsageError,
    quoted,
)
from stargz.paths import Name
from stargz.sources import ByteSource
from stargz.toc import MARKERS, PREFETCH_LANDMARK, TOC, Chunk, Entry, clean_name

if TYPE_CHECKING:
    from stargz._engine.index import Index
    from stargz.extract import ExtractResult, Member, Part, Xattrs
    from stargz.sources.forward import Blocks

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
    digest, so that the contents, and not only their consistency, were checked. `warnings` are
    of headers in which other readers see another tree, and of what keeps those of zstd:chunked from
    its TOC. `diff_id` is what the tar was found to have, in zstd:chunked and of an ordinary tar; of
    the latter `blob_digest` is what the blob has. It is true (`if layer.verify():`) when `ok` is.
    """

    ok: bool
    files: int
    chunks: int
    bytes: int
    errors: list[Problem] = field(default_factory=list)
    error_count: int = 0
    verified: bool = False
    warnings: tuple[str, ...] = ()
    blob_digest: str | None = None
    diff_id: str | None = None

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class Place:
    """Where the TOC's JSON is: its member (of zstd:chunked its frame), the end of its members, its
    length; and the sha256 of that frame."""

    blob: Blob
    offset: int
    end: int
    json_size: int
    checksum: str = ""


class Origin(Protocol):
    """What a layer was opened of."""

    def reduce(self, name: str, toc_digest: str, trusted: bool) -> tuple[Any, ...]:
        """What pickle makes the layer of again, for a layer that is called `name`."""


class Layer:
    """An open layer; made by `stargz.open`. Use it as a context manager, or close it.

    Names are cleaned on the fly ("./usr//bin/" is "usr/bin"), and found through symlinked
    directories as in a chroot; a name may be any `os.PathLike`. A layer is a collection of
    names: iteration gives those of its files in the order of the TOC, whiteouts among them, but
    neither the root's ("") nor what the format puts there (landmarks, the TOC). Look-ups and
    `names()` know these too. Any number of threads may use it. After `close` its methods raise
    ValueError.

    A layer of a path, a URL or bytes can be pickled and copied, which opens it again, and needs
    the TOC to be the same: else DigestError.
    """

    # What it was opened of, with what makes of that a pickle (opening.py).
    origin: Origin | None = None

    def __init__(
        self,
        reader: Reader,
        rows: _toc.TOC,
        footer: _footer.Footer,
        place: Place | None,
        toc_digest: str | None,
        trusted: bool,
        index: Index | None = None,
    ) -> None:
        self.reader = reader  # the engine's, for those who read rows
        self._rows = rows
        self._place = place
        self._digest = toc_digest  # None: it is made when it is asked for
        self.trusted = trusted  # whether its TOC is the one that was asked for
        self._toc: TOC | None = None
        self.footer = footer
        self.index = index  # the engine's, by which an ordinary tar is read

    # --- what it is ---------------------------------------------------------------------

    def __repr__(self) -> str:
        closed = ", closed" if self.closed else ""
        return f"<stargz.Layer {self.name!r} ({self.kind}{closed})>"

    @property
    def name(self) -> str:
        """What errors call the blob: its path, or what the source says."""
        return self.reader.blob.name

    @property
    def kind(self) -> _footer.Kind:
        """ "estargz", "stargz" (legacy), "external-toc" or "zstd:chunked"; "indexed": an ordinary
        tar, read by an index."""
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
    def markers(self) -> tuple[str, ...]:
        """The names that the format has for itself in the root: none in an ordinary tar."""
        return () if self._rows.ordinary else MARKERS

    @property
    def toc_digest(self) -> str:
        """The sha256 of the TOC's JSON: "sha256:..."."""
        if self._digest is None:
            from stargz.indexing import toc_digest_of

            assert self.index is not None
            self._digest = toc_digest_of(self.index)
        return self._digest

    @property
    def toc_checksum(self) -> str:
        """Of zstd:chunked the sha256 of the TOC's frame: "sha256:..."; "" of other kinds."""
        return self._place.checksum if self._place is not None else ""

    @property
    def split_digest(self) -> str:
        """Of zstd:chunked the sha256 of the tar-split's frame, which the TOC has; or ""."""
        return self._rows.split_digest

    @property
    def toc_offset(self) -> int:
        """Blob offset of the TOC's gzip member, or zstd frame; -1 when the TOC is external, or an
        index's."""
        return self.footer.toc_offset

    @property
    def data_end(self) -> int:
        """Blob offset at which the members of file data end: the TOC's, or the footer's."""
        if self.footer.toc is not None:
            return self.footer.data_end
        return self.toc_offset if self.toc_offset >= 0 else self.size - self.footer.size

    @property
    def external_toc_size(self) -> int:
        """Bytes of the members of a TOC that is external; 0 of one that is in the blob, or in an
        index."""
        if self._place is None or self.toc_offset >= 0:
            return 0
        return self._place.end - self._place.offset

    @property
    def verified(self) -> bool:
        """Whether the TOC is the one that was asked for, with a digest for every chunk."""
        return self.trusted and not self.reader.undigested()

    @property
    def prefetch_size(self) -> int:
        """How many bytes from the blob's start hold the prioritized files; 0 if none are."""
        row = self._rows.lookup(PREFETCH_LANDMARK) if self.markers else -1
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

    def _json(self) -> JSONStream | io.BytesIO:
        if self.index is not None:
            self.reader.check()
            return io.BytesIO(self.index.json())
        place = self._in_blob()
        size = -1 if self.footer.toc is None else place.json_size
        return JSONStream(self.reader, place.blob, place.offset, place.end, size)

    def _in_blob(self) -> Place:
        assert self._place is not None
        return self._place

    def uncompressed_size(self) -> int:
        """Bytes that the whole blob inflates to, the TOC included; it is all decoded, unless an
        index says it."""
        if self.index is not None:
            return self.index.tar_size
        with self._whole() as blob:
            found = self.reader.verify(
                self._members_end(), self._in_blob().json_size, size_only=True, blob=blob
            )
        for error in found["errors"]:
            raise FormatError(error["message"], self.name, error["offset"])
        return int(found["bytes"])

    @contextmanager
    def _whole(self, blocks: Blocks | None = None) -> Iterator[Blob]:
        """The blob for those who read all of it, and of others that share the `blocks`."""
        if self.blob.direct:
            yield self.blob
            return
        from stargz.sources.forward import ForwardSource

        with ForwardSource(self.source, blocks) as source:
            yield Blob(source, like=self.blob)

    def _members_end(self) -> int:
        """Where the members of the tar end, of which the TOC is one but in zstd:chunked."""
        return self.data_end if self.footer.toc is not None else self.size - self.footer.size

    # --- names --------------------------------------------------------------------------

    def __len__(self) -> int:
        self.reader.check()
        return len(self.toc) - sum(self._rows.lookup(name) >= 0 for name in ("", *self.markers))

    def __iter__(self) -> Iterator[str]:
        no_files = ("", *self.markers)
        return (name for name in self.names() if name not in no_files)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str | os.PathLike):
            return False
        try:
            self._way(name)
        except (KeyError, OSError):
            return False
        return True

    def names(self) -> list[str]:
        """The cleaned names of all entries, in the order of the TOC: also the root's and landmarks,
        if the TOC has them."""
        self.reader.check()
        return self._rows.names()

    def entry(self, name: Name) -> Entry:
        """The entry of a name; directories that are only implied have one too. Of a symlink its
        own.

        Raises EntryNotFoundError, a KeyError.
        """
        return self.toc.entry(self._way(name))

    def isdir(self, name: Name) -> bool:
        """Whether a name leads to a directory, listed or implied. "" is the root."""
        try:
            return self._rows.is_dir(self._way(name, follow=True))
        except (KeyError, OSError):
            return False

    def listdir(self, name: Name = "") -> list[str]:
        """Base names of what a directory holds, sorted; without landmarks and TOC in the root.

        Raises EntryNotFoundError, or NotADirectoryError.
        """
        path = self._way(name, follow=True)
        try:
            found = self.toc.listdir(path)
        except NotADirectoryError:
            raise NotADirectoryError(
                f"{self.name}: {quoted(paths.text(name))} is no directory"
            ) from None
        return found if clean_name(path) else [base for base in found if base not in self.markers]

    def glob(
        self, pattern: Name | Iterable[Name], exclude: Name | Iterable[Name] = ()
    ) -> list[str]:
        """The names that a pattern matches, or one of several, as `stargz.tree.Tree.glob` says."""
        self.reader.check()
        return paths.names(self.engine, pattern, exclude)

    @cached_property
    def engine(self) -> _toc.Tree:
        """The layer's names by node numbers, as `stargz.paths` walks them; whiteouts are ordinary
        entries, landmarks are left out. Made when it is first asked for."""
        return _toc.Tree([self._rows], "raw")

    def chunks(self, name: Name) -> list[Chunk]:
        """Where the data of the regular file that a name leads to lies, and its holes; [] if it is
        empty."""
        return [Chunk(*chunk) for chunk in self._rows.chunks(self._file(name))]

    def _way(self, name: Name, *, follow: bool = False) -> str:
        """What the TOC calls what a name leads to; `follow` a symlink at its end too.

        What the TOC has under a name, also a landmark, needs no way; one with ".." may mean
        another directory once symlinks are followed.
        """
        self.reader.check()
        path = paths.text(name)
        row = self._rows.lookup(path)
        there = row >= 0 or self._rows.is_dir(path)
        last = follow and row >= 0 and self._rows.type(self._rows.resolve(row)) == "symlink"
        if there and not last and ".." not in path:
            return path
        links: list[int] = []
        try:
            node = paths.find(self.engine, path, follow=follow, links=links, source=self.name)
        except (EntryNotFoundError, NotADirectoryError) as error:
            if there and not last and not links:
                return path
            if links and isinstance(error, EntryNotFoundError):
                raise
            raise EntryNotFoundError(path, self.name) from None
        return self.engine.path(node)

    # --- contents -----------------------------------------------------------------------

    def _file(self, name: Name) -> int:
        """The row of the regular file that a name leads to."""
        path = self._way(name, follow=True)
        row = self._rows.lookup(path)
        kind = "dir"  # an implied one
        if row >= 0:
            row = self._rows.resolve(row)
            kind = self._rows.type(row)
        if kind == "dir":
            raise IsADirectoryError(f"{self.name}: {quoted(paths.text(name))} is a directory")
        if kind != "reg":
            raise UsageError(
                f"{self.name}: {quoted(paths.text(name))} is a {kind}; only files have contents"
            )
        return row

    def read(self, name: Name, offset: int = 0, size: int = -1) -> bytes:
        """At most `size` bytes (all when negative) of a file from `offset` on.

        Links are followed within the layer. Raises EntryNotFoundError, DigestError for
        contents that do not match, GzipError for a damaged blob. Where chunks have no digest
        of their own, that of the file is checked when all of it is read; a part of it has the
        CRC alone (`verified` is false then).
        """
        return self.read_row(self._file(name), offset, size)

    def read_row(self, row: int, offset: int = 0, size: int = -1) -> bytes:
        """The same of a regular file's row, as `stargz.tree.Tree` knows them."""
        total = self._rows.size(row)
        offset, size = clamp(total, offset, size)
        data = self.reader.read(row, offset, size)
        if offset == 0 and size == total:
            check = self._whole_file(row)
            if check is not None:
                check.update(0, data)
        return data

    def _whole_file(self, row: int, name: str | None = None) -> WholeFile | None:
        """What checks a file that is read from start to end, where its chunks' digests do not."""
        expected = self._rows.whole_digest(row) if self.reader.verified else ""
        if not expected:
            return None
        return WholeFile(self._rows, row, expected, name or self._rows.name(row), self.name)

    def read_rows(self, requests: Sequence[tuple[int, int, int]]) -> list[bytes]:
        """`read_row` of several (row, offset, size), in the order asked for.

        What a remote source has to fetch for them is asked for at the same time.
        """
        self.reader.check()
        if len(requests) < 2 or self.blob.direct:
            return [self.read_row(*request) for request in requests]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(len(requests), _PARALLEL), "stargz-read") as pool:
            return list(pool.map(lambda request: self.read_row(*request), requests))

    def open(self, name: Name, mode: Mode = "rb") -> io.BufferedReader:
        """A file object over a file's contents: binary, seekable, for any number of threads
        that take turns; open one each to read in parallel. `mode` is for those who expect one."""
        check_mode(mode)
        return self.open_row(self._file(name), paths.text(name))

    def open_row(self, row: int, name: str) -> io.BufferedReader:
        """The same of a regular file's row; `name` is what the file object is called."""
        self.reader.check()
        check = self._whole_file(row, name)
        file = File(self.reader, row, self._rows.size(row), name, check)
        return io.BufferedReader(file, _BUFFER)

    def extractall(
        self,
        path: str | os.PathLike[str] = ".",
        members: Iterable[Member] | None = None,
        *,
        exclude: Name | Iterable[Name] = (),
        strip_components: int = 0,
        keep_going: bool = False,
        threads: int | None = None,
        same_owner: bool | None = None,
        devices: bool = False,
        setid: bool = False,
        xattrs: Xattrs = "user",
        verify: bool | None = None,
        progress: Callable[[int, int], object] | None = None,
        written: Callable[[str], object] | None = None,
    ) -> ExtractResult:
        """Write the layer, or some members, below the directory `path` (default: here), which is
        made if it is missing.

        `members` are names and patterns, as `glob` takes them; that of a directory stands for all
        below it, and where symlinked directories are on the way, the file is written where they
        lead, and they with it. What is not there raises EntryNotFoundError, before anything is
        written. `exclude` likewise; what it matches is left out with all below it. Landmarks and
        the TOC's own entry are left out unless they are named. Whiteouts (`.wh.*`) are files like
        any other. `strip_components` leaves out so many components in front of each name, and
        entries that have no more; of several that come to one name the last in the layer stays.

        What is there already is replaced, directories are kept. No symlink is followed and
        nothing is written outside of `path`, even while other processes change it: a link in
        the way is removed. A file gets its name once it is complete and its digest was checked
        (`verify`; default: unless the layer is not `verified`); when anything fails, or on
        KeyboardInterrupt, those that are not are gone. With `keep_going` entries that fail are
        `errors` of the result, and the others are written.

        Modes and times are the archive's, whatever the umask, less the set-id bits unless
        `setid`. `same_owner` sets numeric owners (default: when run as root). `devices` makes
        device nodes. `xattrs` is "user" (user.*, without overlay's), "all" or "none".

        `threads` is how many threads to use (default: one for each core). `progress(done, total)`
        is called some tens of times a second with bytes of contents, and `written(name)` once for
        each entry that is there (of directories with a "/" behind it), both in the calling
        thread; an exception that they raise ends the extraction.

        Raises ExtractError for entries that cannot be written safely, DigestError for contents
        that do not match, FormatError for damaged members, OSError with the name of the file
        for what the file system refuses (a full disk, a directory with files in it where a file
        should go).
        """
        from stargz.extract import ExtractOptions, extract

        excluded = paths.listed(exclude)
        with self.part(whole=members is None) as part:
            options = ExtractOptions(
                strip_components=strip_components,
                keep_going=keep_going,
                threads=threads,
                same_owner=same_owner,
                devices=devices,
                setid=setid,
                xattrs=xattrs,
                verify=self.reader.verified if verify is None else verify,
                progress=progress,
                written=written,
            )
            engine = self.engine if excluded or members is not None else None
            return extract([part], engine, self.name, path, members, excluded, options)

    @contextmanager
    def part(self, *, whole: bool, blocks: Blocks | None = None) -> Iterator[Part]:
        """What extraction reads, of an open layer; with `whole` for those who want about all of
        it, and of others that share the `blocks`."""
        self.reader.hold()
        try:
            with self._whole(blocks) if whole else nullcontext(self.blob) as blob:
                yield _Part(self._rows, blob, self.data_end)
        finally:
            self.reader.leave()

    def verify(self, progress: Callable[[int, int], object] | None = None) -> VerifyResult:
        """Decode and check the whole blob, on all threads.

        Every gzip member with its CRC, every chunk and file against its digest, and the TOC
        against the tree that the tar makes when it is applied in order. What is read by an index
        is indexed once more, and the two are compared. Of zstd:chunked every frame counts, those at
        the end too; with a tar-split the tar is put together of that, and each header compared with
        its entry, as containers/storage does. Errors of the blob are collected, not raised.
        `progress(done, total)` gets compressed bytes, some tens of times a second.
        """
        if self.index is not None:
            from stargz.comparing import compare

            self.reader.hold()
            try:
                found = compare(self.reader, self.index, progress)
                found["undigested"] = self.reader.undigested()
            finally:
                self.reader.leave()
        elif self.footer.toc is not None:
            found = self._verify_chunked(progress)
        else:
            with self._whole() as blob:
                found = self.reader.verify(
                    self._members_end(), self._in_blob().json_size, progress, blob=blob
                )
        errors = [Problem(**error) for error in found["errors"]]
        return VerifyResult(
            ok=not errors,
            files=found["files"],
            chunks=found["chunks"],
            bytes=found["bytes"],
            errors=errors,
            error_count=found["error_count"],
            verified=self.trusted and not found["undigested"],
            warnings=tuple(found["notes"]),
            blob_digest=found.get("blob_digest") or None,
            diff_id=found.get("diff_id") or None,
        )

    def _verify_chunked(self, progress: Callable[[int, int], object] | None) -> dict[str, Any]:
        from stargz.ending import check_end

        assert self.footer.toc is not None
        with self._whole() as blob:
            end = check_end(blob.source, self.footer, self._rows.split_digest)
            found = self.reader.verify(
                self.data_end,
                self._in_blob().json_size,
                progress,
                blob=blob,
                toc=astuple(self.footer.toc),
                split=None if end.split is None else astuple(end.split),
            )
        found["errors"] += [
            {"name": "", "offset": offset, "message": message} for offset, message in end.problems
        ]
        found["error_count"] += len(end.problems)
        found["notes"] += end.warnings
        return found

    # --- life ---------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        self.reader.check()
        if self.origin is None:
            raise NotPicklableError(f"{self.name}: a layer that `stargz.open` did not open")
        return self.origin.reduce(self.name, self.toc_digest, self.trusted)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.reader.closed

    def close(self) -> None:
        """Give the blob back once running reads are done. More than once is harmless."""
        self.origin = None  # it may be memory
        self.reader.close()

    def __enter__(self) -> Self:
        self.reader.check()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Part:
    """What extraction needs to know of a layer."""

    toc: _toc.TOC
    blob: Blob
    data_end: int
