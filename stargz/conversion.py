"""Make a seekable layer of a tar, in one pass."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from stargz.durable import complete_or_absent
from stargz.errors import EntryNotFoundError, UsageError

LEVELS = range(1, 13)
DEFAULT_LEVEL = 1
DEFAULT_CHUNK_SIZE = 4 << 20  # the reference's
CHUNK_SIZES = range(1 << 10, (1 << 30) + 1)
MEMBER_MAX = (2 << 30) - (16 << 20)  # of one gzip member: its length is 32 bits
FORMATS = ("estargz", "stargz")
TOC_SIZE_WARNING = 150 << 20  # containers/storage refuses a larger TOC

Source = str | os.PathLike[str] | bytes | IO[bytes]
Sink = str | os.PathLike[str] | IO[bytes]


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """What a conversion made. Digests are "sha256:" and 64 hex digits; sizes are bytes.

    `entries` counts what the TOC names, landmark included and chunks not; `chunks` the pieces
    of file contents that can be read alone. `missing` are the prioritized names that were not
    there (with allow_missing). `codec` says what compressed: levels above 2 give the same
    bytes only with the same libdeflate.
    """

    digest: str
    size: int
    diff_id: str
    toc_digest: str
    uncompressed_size: int
    entries: int
    chunks: int
    level: int
    seconds: float
    codec: str
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def default_threads() -> int:
    """The processors this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def convert(
    src: Source,
    dst: Sink,
    *,
    level: int = DEFAULT_LEVEL,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    min_chunk_size: int = 0,
    prioritized: Iterable[str] = (),
    allow_missing: bool = False,
    lossless: bool = False,
    format: str = "estargz",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConvertResult:
    """Convert a tar, tar.gz or tar.zst into a seekable layer.

    src is a path, bytes or a binary file object, dst a path or a binary file object; file
    objects are not closed. A dst path appears complete or not at all, and then replaces what
    was there. The bytes depend on the input's content and the options alone, not
    on threads or on how the input arrives.

    level: 1 and 2 are ISA-L's, 3 to 12 libdeflate's (extra "dense").
    chunk_size: bytes of a file that can be read alone, 1 KiB to 1 GiB.
    min_chunk_size: put neighbours into one gzip member until it holds that many bytes; smaller,
        but not every reader knows it (the snapshotter does from 0.13).
    prioritized: names that come first, in this order, before the prefetch landmark. The input
        is read twice and a compressed one is spooled to an unlinked temporary file.
    lossless: keep the tar's bytes as they are; only the TOC is added behind them.
    format: "estargz", or "stargz" for the layout of google/crfs.
    threads: default: the processors this process may use. Memory is about 25 MB a thread and
        the chunk size at the default chunk size.
    progress: called with (bytes done, bytes in all or 0 when not known), at most some tens of
        times a second.

    Raises UsageError; EntryNotFoundError for a prioritized name that is not there; GzipError
    and TarError (with source and offset) for a malformed input; CodecError when a library is
    missing; OSError. KeyboardInterrupt leaves nothing behind.
    """
    if isinstance(prioritized, str):
        raise UsageError("prioritized is a list of names, not one string")
    names = [os.fsencode(name) for name in prioritized]
    _check(level, chunk_size, min_chunk_size, format, lossless, bool(names), threads)
    from stargz._engine.write import Conversion

    begin = time.perf_counter()
    with ExitStack() as stack:
        source, source_name, source_size = _open_source(src, stack)
        _refuse_same(src, dst)
        sink, sink_name, folder = open_sink(dst, stack)
        conversion = Conversion(
            source,
            sink,
            level=level,
            chunk_size=chunk_size,
            min_chunk_size=min_chunk_size,
            legacy=format == "stargz",
            lossless=lossless,
            threads=threads or default_threads(),
            source_name=source_name,
            sink_name=sink_name,
            progress=progress,
            source_size=source_size,
        )
        missing: tuple[str, ...] = ()
        if names:
            reread = conversion.plain and source_size > 0 and isinstance(src, (str, os.PathLike))
            missing = _prioritize(conversion, names, source if reread else None, folder, stack)
            if missing and not allow_missing:
                raise EntryNotFoundError(missing[0], source_name)
        fields: dict[str, Any] = conversion.run()
    return ConvertResult(
        level=level,
        seconds=time.perf_counter() - begin,
        codec=codec_name(level),
        missing=missing,
        warnings=tuple(warnings_of(fields)),
        **{
            key: fields[key]
            for key in (
                "digest",
                "size",
                "diff_id",
                "toc_digest",
                "uncompressed_size",
                "entries",
                "chunks",
            )
        },
    )


def diff_id(
    src: Source, *, progress: Callable[[int, int], object] | None = None
) -> tuple[str, int]:
    """The DiffID of a layer, seekable or not, and the bytes of its tar.

    The DiffID is "sha256:" and the digest of all that the layer inflates to (OCI image
    specification, config.md, "Layer DiffID"). src is a path, bytes or a binary file object, which
    is read from its position on: a plain tar, gzip of any number of members, or zstd. Bytes behind
    the last gzip member are ignored, as by `convert`. progress(done, total) is as in `convert`.

    Raises GzipError (with source and offset) for what cannot be inflated; TarError for another
    compression; CodecError when a library is missing; OSError; UsageError.
    """
    from stargz._engine.write import unwrap

    with ExitStack() as stack:
        source, name, size = _open_source(src, stack)
        return unwrap(source, source_name=name, progress=progress, source_size=size)


def _check(
    level: int,
    chunk_size: int,
    min_chunk_size: int,
    format: str,
    lossless: bool,
    prioritized: bool,
    threads: int | None,
) -> None:
    if level not in LEVELS:
        raise UsageError(f"level {level} is not in 1 to 12")
    if chunk_size not in CHUNK_SIZES:
        raise UsageError(f"chunk size {chunk_size} is not in 1 KiB to 1 GiB")
    if min_chunk_size and min_chunk_size not in range(1, CHUNK_SIZES.stop):
        raise UsageError(f"minimum chunk size {min_chunk_size} is not in 0 to 1 GiB")
    if chunk_size + min_chunk_size > MEMBER_MAX:
        raise UsageError("chunk size and minimum chunk size together are over 2 GiB less 16 MiB")
    if format not in FORMATS:
        raise UsageError(f"format {format!r} is not one of {', '.join(FORMATS)}")
    if threads is not None and not 1 <= threads <= 1024:
        raise UsageError(f"{threads} threads are not in 1 to 1024")
    if format == "stargz" and min_chunk_size:
        raise UsageError("format stargz has no innerOffset: no minimum chunk size with it")
    if format == "stargz" and prioritized:
        raise UsageError("format stargz has no landmarks: no prioritized files with it")
    if lossless and prioritized:
        raise UsageError("lossless keeps the order of the input: no prioritized files with it")


def _open_source(src: Source, stack: ExitStack) -> tuple[Any, str, int]:
    """A descriptor or a read(n), a name for errors, and the size in bytes or 0."""
    if isinstance(src, (bytes, bytearray, memoryview)):
        return io.BytesIO(src).read, "input", len(src)
    if isinstance(src, (str, os.PathLike)):
        src = stack.enter_context(Path(src).open("rb", buffering=0))
    name = str(getattr(src, "name", "") or "input")
    if isinstance(src, io.FileIO):
        status = os.fstat(src.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "Is a directory", name)
        if stat.S_ISCHR(status.st_mode):
            raise UsageError(f"{name}: a character device; give a file or a pipe")
        return src.fileno(), name, status.st_size if stat.S_ISREG(status.st_mode) else 0
    if not callable(getattr(src, "read", None)):
        raise UsageError(f"a source is a path, bytes or a binary file, not {type(src).__name__}")
    return src.read, name, 0


def _refuse_same(src: Source, dst: Sink) -> None:
    paths = (str, os.PathLike)
    if isinstance(src, paths) and isinstance(dst, paths):
        with suppress(FileNotFoundError):
            if Path(src).samefile(dst):
                raise UsageError(f"{os.fspath(src)}: source and destination are the same file")


def open_sink(dst: Sink, stack: ExitStack) -> tuple[Any, str, str | None]:
    """A descriptor or a write(view), a name for errors, and a folder for temporary files."""
    if isinstance(dst, (str, os.PathLike)):
        try:
            regular = stat.S_ISREG(os.stat(dst).st_mode)  # noqa: PTH116
        except FileNotFoundError:
            regular = True
        if regular:
            path = os.path.realpath(dst)
            return stack.enter_context(complete_or_absent(path)), path, os.path.dirname(path)  # noqa: PTH120
        # A device or a pipe cannot be replaced, only written.
        dst = stack.enter_context(Path(dst).open("wb", buffering=0))
    name = str(getattr(dst, "name", "") or "output")
    if isinstance(dst, io.FileIO):
        return dst.fileno(), name, None
    if not callable(getattr(dst, "write", None)):
        raise UsageError(f"a destination is a path or a binary file, not {type(dst).__name__}")
    return dst.write, name, None


def _prioritize(
    conversion: Any, names: list[bytes], reread: int | None, folder: str | None, stack: ExitStack
) -> tuple[str, ...]:
    """The first pass; `reread` is the descriptor of a plain tar that can be read again."""
    if reread is not None:
        conversion.prioritize(names, reread, True)
    else:
        spool = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        conversion.prioritize(names, spool.fileno(), False)
    return tuple(os.fsdecode(name) for name in conversion.missing)


def warnings_of(fields: dict[str, Any]) -> Iterator[str]:
    """What the maker of a layer should know of it."""
    if fields["bad_names"]:
        yield (
            f"{fields['bad_names']} names are not UTF-8: in the TOC each bad byte is U+FFFD, "
            "as JSON cannot hold it"
        )
    if fields.get("trailing_garbage"):
        yield "bytes behind the last gzip member were ignored"
    if fields["toc_size"] > TOC_SIZE_WARNING:
        yield (
            f"the TOC is {fields['toc_size'] >> 20} MiB; containers/storage refuses more than 150"
        )


def codec_name(level: int) -> str:
    """What compresses at this level, once it is loaded."""
    if level <= 2:
        return "isa-l"
    from importlib.metadata import PackageNotFoundError, version

    from stargz._engine.base import loaded

    path = Path(loaded()["libdeflate"])
    if path.name.startswith("_deflate."):
        try:
            return f"libdeflate of deflate {version('deflate')}"
        except PackageNotFoundError:
            pass
    return f"libdeflate ({path.name})"
