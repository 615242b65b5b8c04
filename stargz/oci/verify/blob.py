"""Verify single blobs of an image: what they are by digest, DiffID, and TOC."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace

from stargz import opening as _opening
from stargz._engine.index import load_ztoc
from stargz._engine.write import unwrap
from stargz.descriptors import POSITION, SPLIT_POSITION, STARGZ_POSITION, chunked_of
from stargz.errors import DigestError, FormatError, IndexFileError, RegistryError, SourceError
from stargz.footer import Footer, kind_of
from stargz.layer import Problem
from stargz.oci.formats.manifest import Descriptor, Manifest
from stargz.oci.repository import Repository, external_toc
from stargz.opening import OpenOptions
from stargz.options import MAX_TOC_SIZE
from stargz.sources import ByteSource, LocalSource, MemorySource
from stargz.sources.spool import Spool

_PIECE = 1 << 20  # bytes read at a time
_PLACES = frozenset((POSITION, SPLIT_POSITION, STARGZ_POSITION))
_PARALLEL = 4  # blobs at a time, each with a share of the threads

Progress = Callable[[int, int], object]


@dataclass(slots=True)
class CheckedBlob:
    """What was found in a distinct blob."""

    entry: Descriptor
    layer: bool  # of an image; else only its digest is of interest
    problems: list[Problem] = field(default_factory=list)
    count: int = 0
    missing: bool = False
    diff_id: str | None = None
    uncompressed_size: int | None = None
    toc_digest: str | None = None
    toc_checksum: str = ""  # of zstd:chunked, as the next two are
    split_digest: str = ""
    footer: Footer | None = None
    kind: str | None = None
    digested: bool = False
    ztocs: dict[str, Descriptor] = field(default_factory=dict)  # that SOCI indexes name, by digest
    files: int = 0
    chunks: int = 0

    def add(self, error: Exception | str) -> None:
        """Note a problem."""
        self.problems.append(as_problem(error))
        self.count += 1


def as_problem(error: Exception | str) -> Problem:
    if isinstance(error, FormatError):
        return Problem("", error.offset, error.message)
    return Problem("", None, str(error))


def is_damage(error: SourceError) -> bool:
    """Whether it tells of the image and not of the way to it: what is not there, or has another
    size. (Of local files that cannot be read, other OSErrors tell.)"""
    return not isinstance(error, RegistryError) or error.status in (200, 404)


class BlobChecker:
    """Checks the blobs of one repository; `progress` is that of `verify_image`."""

    def __init__(self, repository: Repository, threads: int, progress: Progress | None) -> None:
        self._repository = repository
        self._remote = repository.name.startswith("docker://")
        self._threads = threads
        self._progress = progress
        self._lock = threading.Lock()
        self._external_lock = threading.Lock()
        self._external: Manifest | None = None
        self._asked_external = False
        self._stop = threading.Event()
        self._done = self._total = 0

    def read(self, blob: CheckedBlob) -> bytes:
        """A small blob."""
        pieces: list[bytes] = []
        with ExitStack() as stack:
            feed = self._feed(blob, stack, None)
            if feed is not None:
                with suppress(_DamagedError):
                    pieces.extend(iter(lambda: feed.read(_PIECE), b""))
        return b"".join(pieces)

    def check_all(self, blobs: Sequence[CheckedBlob]) -> None:
        """A few at the same time; the first exception ends all."""
        self._total = sum(blob.entry.size * (1 + blob.layer) for blob in blobs)
        if not blobs:
            return
        workers = min(len(blobs), max(2, min(_PARALLEL, self._threads)))
        share = max(1, self._threads // workers)
        with ThreadPoolExecutor(workers, "stargz-verify") as executor:
            futures: list[Future[None]] = []
            try:
                futures.extend(executor.submit(self._check, blob, share) for blob in blobs)
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException as error:
                self._stop.set()
                if not isinstance(error, Exception):  # Ctrl-C must not wait for the network
                    self._repository.interrupt()
                executor.shutdown(wait=False, cancel_futures=True)
                raise
        self._tell(self._total)  # what has no TOC was read once

    def _tell(self, count: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        if self._progress is not None and self._total:
            with self._lock:
                self._done += count
                self._progress(min(self._done, self._total), self._total)

    def _feed(self, blob: CheckedBlob, stack: ExitStack, spool: Spool | None) -> _Feed | None:
        """The blob as a stream; None, and a problem noted, if it cannot be opened."""
        try:
            if self._remote:
                stream = stack.enter_context(closing(self._repository.stream_blob(blob.entry)))
                return _Feed(blob, stream.read, spool, self._tell, checked=True)
            source = stack.enter_context(closing(self._repository.open_blob(blob.entry)))
            feed = _Feed(blob, _sequence(source, blob.entry.size), None, self._tell, checked=False)
            feed.source = source
            return feed
        except (DigestError, FormatError) as error:
            blob.add(error)
        except FileNotFoundError:
            blob.missing = True
        except SourceError as error:
            if not is_damage(error):
                raise
            blob.missing = True
        return None

    def _check(self, blob: CheckedBlob, threads: int) -> None:
        if self._stop.is_set():
            return
        with ExitStack() as stack:
            spool = None
            if self._remote and blob.layer:
                spool = Spool(f"{self._repository.name}@{blob.entry.digest}", blob.entry.size)
            feed = self._feed(blob, stack, spool)
            if feed is None:
                return
            if not blob.layer:
                with suppress(_DamagedError):
                    while feed.read(_PIECE):
                        pass
                return
            try:
                blob.diff_id, blob.uncompressed_size = unwrap(feed.read, source_name="")
            except FormatError as error:
                blob.add(error)
            except _DamagedError:
                pass
            with suppress(_DamagedError):  # what follows the last member, or the damage
                while feed.read(_PIECE):
                    pass
            if spool is not None and spool.size == blob.entry.size:
                feed.source = LocalSource(spool.name, spool.fd, keep=spool)
            if feed.source is not None:
                self._check_toc(blob, feed.source, threads)

    def _check_toc(self, blob: CheckedBlob, source: ByteSource, threads: int) -> None:
        blob.kind = kind_of(source)
        for ztoc in blob.ztocs.values():
            self._check_ztoc(blob, ztoc, source, threads)
        try:
            said = chunked_of(blob.entry.annotations)
        except FormatError as error:
            blob.add(error)
            return
        if blob.kind in (None, "indexed") and (said is None or said.toc is None):
            return
        tell = self._teller()
        try:
            toc = None
            if blob.kind == "external-toc":
                data = self._external_toc(blob.entry.digest)
                if data is None:
                    blob.add("its TOC is kept apart, and is not there")
                    return
                toc = MemorySource(data, "its external TOC")
            # Digests are compared afterwards: what else is wrong is worth knowing, too.
            notes = blob.entry.annotations
            places = {name: notes[name] for name in _PLACES & notes.keys()}
            with _opening.open(
                source, toc=toc, annotations=places, threads=threads, cache=False
            ) as layer:
                result = layer.verify(tell)
                blob.kind = layer.kind
                blob.toc_digest, blob.toc_checksum = layer.toc_digest, layer.toc_checksum
                blob.split_digest, blob.footer = layer.split_digest, layer.footer
                blob.digested = not layer.reader.undigested()
        except (FormatError, DigestError) as error:
            blob.add(error)
            return
        blob.problems += result.errors
        blob.count += result.error_count
        blob.files, blob.chunks = result.files, result.chunks

    def _teller(self) -> Progress:
        told = 0

        def tell(done: int, total: int) -> None:
            nonlocal told
            told, more = done, done - told
            self._tell(more)

        return tell

    def _check_ztoc(
        self, blob: CheckedBlob, ztoc: Descriptor, source: ByteSource, threads: int
    ) -> None:
        """Compare what a ztoc says with the layer; it is "indexed" if that has no TOC."""
        what = f"its ztoc {ztoc.digest}"
        try:
            data = self._repository.read_blob(ztoc, MAX_TOC_SIZE)
            index = load_ztoc(data, name=what, blob_size=blob.entry.size)
            options = OpenOptions(threads=threads, cache=False)
            with _opening.open_as(options, source, index=index) as layer:
                result = layer.verify(self._teller() if blob.kind is None else None)
        except SourceError as error:
            if not is_damage(error):
                raise
            blob.add(f"{what} is not there")
            return
        except (FormatError, DigestError, IndexFileError) as error:
            blob.add(error)
            return
        for problem in result.errors:
            blob.problems.append(replace(problem, message=f"{what}: {problem.message}"))
        blob.count += result.error_count
        if blob.kind is None:
            blob.kind = "indexed"
            blob.files, blob.chunks = result.files, result.chunks

    def _external_toc(self, digest: str) -> bytes | None:
        with self._external_lock:
            if not self._asked_external:
                self._external = self._repository.external()
                self._asked_external = True
            manifest = self._external
        return external_toc(self._repository, manifest, digest)


class _StoppedError(Exception):
    """The verification is over: another thread failed."""


class _DamagedError(Exception):
    """A blob's stream ended in what is noted as the blob's problem."""


class _Feed:
    """A blob's bytes, counted and checked, and kept in a spool where one is given."""

    def __init__(
        self,
        blob: CheckedBlob,
        read: Callable[[int], bytes],
        spool: Spool | None,
        tell: Callable[[int], None],
        *,
        checked: bool,
    ) -> None:
        self.source: ByteSource | None = None
        self._blob = blob
        self._next = read
        self._spool = spool
        self._tell = tell
        algorithm = blob.entry.digest.partition(":")[0]
        self._hash = None if checked else hashlib.new(algorithm)
        self._left = blob.entry.size
        self._ended = False

    def read(self, size: int) -> bytes:
        """The next bytes; b"" at the end. _DamagedError for content that is not the blob's."""
        if self._ended:
            return b""
        if self._hash is None and self._left > 1:
            # A checked stream keeps its last piece back if the digest is wrong: have it be short,
            # so that what is wrong is seen in its place as well.
            size = min(size, self._left - 1)
        try:
            piece = self._next(size)
        except (DigestError, FormatError) as error:
            self._ended = True
            self._blob.add(error)
            raise _DamagedError from None
        except SourceError as error:
            if not is_damage(error):
                raise
            self._ended = True
            if error.status == 404:
                self._blob.missing = True
            else:
                self._blob.add(error)
            raise _DamagedError from None
        self._left -= len(piece)
        if piece and self._spool is not None:
            self._spool.append(piece)
        if self._hash is not None:
            self._hash.update(piece)
        if not piece:
            self._end()
        self._tell(len(piece))
        return piece

    def _end(self) -> None:
        self._ended = True
        if self._hash is not None:
            expected = self._blob.entry.digest
            actual = f"{expected.partition(':')[0]}:{self._hash.hexdigest()}"
            if actual != expected:
                self._blob.add(DigestError("the blob", expected, actual))


def _sequence(source: ByteSource, size: int) -> Callable[[int], bytes]:
    """A source from its beginning on."""
    at = 0
    fd = getattr(source, "fd", None)

    def read(count: int) -> bytes:
        nonlocal at
        count = min(count, size - at)
        piece = os.pread(fd, count, at) if fd is not None else source.read_at(at, count)
        if len(piece) < count and not piece:
            raise FormatError(f"it ends after {at} bytes, its descriptor says {size}")
        at += len(piece)
        return piece

    return read
