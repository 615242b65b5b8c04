"""Make the side index of an ordinary tar.gz, tar or tar.zst, in one pass."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from stargz.digests import Hashed, is_sha256
from stargz.durable import release
from stargz.ending import HEAD, lost_footer
from stargz.endpoints import Sink, is_same_file, open_source, open_writer
from stargz.errors import DigestError, SourceError, TarError, UsageError
from stargz.options import INDEX_SUFFIX, SPAN_SIZE, check_span_size, thread_count
from stargz.results import Result
from stargz.sources import ByteSource, Source, as_source, url_scheme
from stargz.sources.base import is_direct
from stargz.sources.local import file_identity

if TYPE_CHECKING:
    from stargz._engine.index import Foreign, Index

IndexFormat = Literal["native", "soci"]

FORMATS = get_args(IndexFormat)
# A file whose last byte is this far behind an entry point takes some tenths of a second to read.
LONG_SPAN = 64 << 20

Progress = Callable[[int, int], object]
# What the engine reads from front to back: a descriptor, or a read(n).
Input = int | Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class IndexResult(Result):
    """What an index is, and of what. Digests are "sha256:" and 64 hex digits; sizes are bytes.

    `digest` and `size` are of the index itself, at `path` (None: a file object); `blob_digest` and
    `blob_size` of what it is about, whose tar has the DiffID `diff_id`. Reading begins at one of
    `spans` entry points; `longest_span` decoded bytes lie between two of them at most. `entries`
    counts what the TOC names, whose JSON has the digest `toc_digest`.
    """

    format: IndexFormat
    path: str | None
    digest: str
    size: int
    blob_digest: str
    blob_size: int
    diff_id: str
    toc_digest: str
    spans: int
    longest_span: int
    entries: int
    seconds: float
    warnings: tuple[str, ...] = ()


def index(
    src: Source,
    dst: Sink | None = None,
    *,
    format: IndexFormat = "native",
    span_size: int = SPAN_SIZE,
    threads: int | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> IndexResult:
    """Make an index of an ordinary tar.gz, tar, or tar.zst of several frames (or small), by
    which `stargz.open` reads it where it is: the blob itself is not touched.

    src is a path, URL, bytes, a binary file object (read from where it stands, which may be a
    pipe), or a ByteSource; dst a path or a binary file object. Neither is closed. Without dst it is
    src, a path, with ".index" behind it, where `stargz.open` finds it.

    format: "native", which is small and holds digests of all that it leads to, or "soci": a ztoc,
        as the soci-snapshotter reads it.
    span_size: decoded bytes from one entry point to the next, 64 KiB to 1 GiB: what has to be
        decoded to read a byte. Where the blob has no such points there are fewer.
    threads: default: the processors this process may use; never changes the result.
    progress: called with (bytes done, bytes in all or 0 when not known), at most some tens of
        times a second.
    force: replace a dst path that exists; without, FileExistsError.

    Raises GzipError and TarError (with source and offset) for what is no such tar, also a tar.zst
    of one frame that is more than 4 MiB and a span; UsageError; OSError.
    """
    check_span_size(span_size)
    if format not in FORMATS:
        raise UsageError(f"format (--format) {format!r} is not one of {', '.join(FORMATS)}")
    target = _beside(src) if dst is None else dst
    threads = thread_count(threads)
    begin = time.perf_counter()
    with ExitStack() as stack:
        given = stack.enter_context(_opened(src))
        if is_same_file(src, target) or is_same_file(target, src):
            raise UsageError(f"{given.name}: source and destination are the same file")
        out = Hashed(open_writer(target, stack, force))
        made = _build(given, span_size, format == "soci", threads, progress)
        made.write_ztoc(out.write) if format == "soci" else made.dump(out.write)
    _be_no_older(target, src)
    return IndexResult(
        format=format,
        path=os.fspath(target) if isinstance(target, (str, os.PathLike)) else None,
        digest=out.digest,
        size=out.size,
        blob_digest=made.digest,
        blob_size=made.size,
        diff_id=made.diff_id,
        toc_digest=toc_digest_of(made),
        spans=made.spans,
        longest_span=made.longest_span,
        entries=made.entries,
        seconds=time.perf_counter() - begin,
        warnings=(*made.notes, *_warnings(made, given.head)),
    )


def build(
    source: ByteSource,
    *,
    span_size: int = SPAN_SIZE,
    threads: int | None = None,
    progress: Progress | None = None,
    wanted: Foreign | None = None,
) -> Index:
    """The index of all of a blob, which is read once; SourceError if it changes meanwhile. The
    entry points are those of the index that is `wanted`, if there is one."""
    with _forward(source) as read:
        whole = _Given(read, source.name, source.size, lambda: _identity(source))
        made = _build(whole, span_size, False, thread_count(threads), progress, wanted)
    if made.size != source.size:
        raise _changed(source.name)
    return made


def toc_digest_of(made: Index) -> str:
    """The digest of the JSON of an index's TOC."""
    if made.toc_digest:
        return made.toc_digest
    whole = Hashed()
    made.toc.format_to(whole.write)
    return whole.digest


def _beside(src: Source) -> str:
    if isinstance(src, str | os.PathLike) and not url_scheme(src):
        return os.fspath(src) + INDEX_SUFFIX
    raise UsageError("of what is no file the index needs a name: give dst")


def _be_no_older(target: Sink, src: Source) -> None:
    """An index that is older than its blob is not taken unasked: that of a blob with a time to
    come gets the same."""
    if not isinstance(target, str | os.PathLike) or not isinstance(src, str | os.PathLike):
        return
    with suppress(OSError):
        info, of = os.stat(target), os.stat(src)  # noqa: PTH116
        if stat.S_ISREG(info.st_mode) and info.st_mtime_ns < of.st_mtime_ns:
            os.utime(target, ns=(info.st_atime_ns, of.st_mtime_ns))


def _warnings(made: Index, head: bytes) -> Iterator[str]:
    if lost := lost_footer(head):
        yield lost
    if made.longest_span > LONG_SPAN:
        yield (
            f"for one byte up to {made.longest_span >> 20} MiB have to be decoded: there are no "
            "more places to begin at; 'stargz convert' makes a layer without this"
        )


@dataclass(frozen=True, slots=True)
class _Given:
    """What an index is made of; `identity` changes with it. `head` is how it begins, where that
    can be read again."""

    read: Input
    name: str
    size: int  # 0 if it is not known
    identity: Callable[[], object]
    head: bytes = b""


@contextmanager
def _opened(src: Source) -> Iterator[_Given]:
    if isinstance(src, ByteSource) or url_scheme(src):
        source = as_source(src)
        try:
            head = source.read_at(0, min(source.size, HEAD))
            with _forward(source) as read:
                yield _Given(read, source.name, source.size, lambda: _identity(source), head)
        finally:
            if source is not src:
                source.close()
        return
    with ExitStack() as stack:
        read, name, size = open_source(src, stack)  # type: ignore[arg-type]
        head = b""
        with suppress(OSError):  # of a pipe
            if isinstance(read, int):
                head = os.pread(read, HEAD, os.lseek(read, 0, os.SEEK_CUR))
        yield _Given(read, name, size, lambda: _file(read), head)


def _build(
    given: _Given,
    span_size: int,
    soci: bool,
    threads: int,
    progress: Progress | None,
    wanted: Foreign | None = None,
) -> Index:
    from stargz._engine.index import build as make

    before = given.identity()
    made = make(
        given.read,
        span_size=span_size,
        soci=soci,
        threads=threads,
        progress=progress,
        source_name=given.name,
        source_size=given.size,
        wanted=wanted,
    )
    if given.identity() != before:
        raise _changed(given.name)
    if not made.size:
        raise TarError("no tar: it is empty", given.name)
    expected = str(before[0]) if isinstance(before, tuple) else ""
    if is_sha256(expected) and made.digest != expected:
        raise DigestError("the blob", expected, made.digest, given.name)
    return made


def _changed(name: str) -> SourceError:
    return SourceError(f"{name}: it was changed while its index was made; try again")


def _identity(source: ByteSource) -> object:
    return getattr(source, "identity", None)


def _file(read: Any) -> object:
    return file_identity(os.fstat(read)) if isinstance(read, int) else None


@contextmanager
def _forward(source: ByteSource) -> Iterator[Input]:
    """A blob to be read from front to back, whatever else reads it meanwhile."""
    fd = getattr(source, "fd", None)
    own = -1
    if fd is not None:
        try:  # a place of its own to read at
            own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            own = -1
    if own >= 0:
        try:
            yield own
        finally:
            release(own)
    elif is_direct(source):
        yield _reader(source)
    else:
        from stargz.sources.forward import ForwardSource

        with ForwardSource(source) as ahead:
            yield _reader(ahead)


def _reader(source: ByteSource) -> Callable[[int], bytes]:
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        piece = source.read_at(at, min(size, source.size - at))
        at += len(piece)
        return piece

    return read
