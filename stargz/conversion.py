"""Make a seekable layer of a tar, in one pass."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from stargz.descriptors import annotations_of
from stargz.durable import put_back
from stargz.endpoints import (
    Sink,
    Source,
    is_replaced,
    is_same_file,
    is_stream,
    open_sink,
    open_source,
)
from stargz.errors import EntryNotFoundError, UnindexableError, UsageError
from stargz.options import (
    DEFAULT_CHUNK_SIZE,
    TOC_SUFFIX,
    ConvertOptions,
    Format,
    Level,
    check_max_sparse,
    check_memory,
    codec_name,
    default_level,
    is_zstd,
    thread_count,
)
from stargz.paths import Name, several
from stargz.results import Result
from stargz.wildcards import is_pattern

PLAIN_ZSTD = "zstd"  # what layers are that were to be zstd:chunked, and cannot be
TOC_SIZE_WARNING = 150 << 20  # containers/storage refuses a larger TOC
# What a result has of the engine's.
_MADE = ("digest", "size", "diff_id", "toc_digest", "uncompressed_size", "entries", "chunks")


@dataclass(frozen=True, slots=True)
class ConvertResult(Result):
    """What a conversion made. Digests are "sha256:" and 64 hex digits; sizes are bytes.

    `toc_digest` is of the decompressed TOC in every format; "" where the layer was left without
    one. `annotations` are what its descriptor needs. `entries` counts what the TOC names,
    landmark included and chunks not; `chunks` the pieces of file contents that can be read
    alone. `missing` are the prioritized names that were not there (with allow_missing). `codec`
    says what compressed: levels above 2 give the same bytes only with the same libdeflate.
    `source_size` is None where it is not known before (a pipe, a file object). `toc_blob` is the
    digest of an external TOC's own blob, and `toc_blob_size` its bytes. `format` is what the layer
    is: that of the call, or "zstd" where it was left without a TOC, and so without entries.
    Where it was left so, `unfit` says why.
    """

    digest: str
    size: int
    diff_id: str
    toc_digest: str
    uncompressed_size: int
    entries: int
    chunks: int
    level: Level
    seconds: float
    codec: str
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    source_size: int | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    toc_blob: str = ""
    toc_blob_size: int = 0
    format: str = ""
    unfit: str = ""


def convert(
    src: Source,
    dst: Sink,
    *,
    level: Level | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    min_chunk_size: int = 0,
    prioritized: Iterable[Name] = (),
    allow_missing: bool = False,
    lossless: bool = False,
    format: Format = "estargz",
    strict: bool = False,
    force: bool = True,
    verify: bool = False,
    threads: int | None = None,
    memory: int | None = None,
    max_sparse: int | None = None,
    toc_out: Sink | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConvertResult:
    """Convert a tar, tar.gz or tar.zst into a seekable layer.

    src is a path, bytes or a binary file object, dst a path or a binary file object; file
    objects are not closed. A dst path appears complete or not at all, and then replaces what
    was there. The bytes depend on the input's content and the options alone, not
    on threads or on how the input arrives.

    level: 1 and 2 are ISA-L's, 3 to 12 libdeflate's (extra "dense"); of zstd 1 to 19. None is the
        format's own: 1, of zstd 3. "reuse" does not compress anew: what the compressor of a gzip
        input found is coded again, so that the bytes depend on that too; input that is not gzip,
        or that has prioritized files, is compressed by level 1, and so is what was poorly
        compressed.
    chunk_size: bytes of a file that can be read alone, 1 KiB to 1 GiB.
    min_chunk_size: put neighbours into one gzip member until it holds that many bytes; smaller,
        but not every reader knows it (the snapshotter does from 0.13).
    prioritized: names that come first, in this order, before the prefetch landmark; what they
        lead to by way of symlinked directories, and those links, where no entry has such a name.
        The input is read twice and a compressed one is spooled to an unlinked temporary file.
    lossless: keep the tar's bytes as they are; only the TOC is added behind them.
    format: "estargz"; "stargz" for the layout of google/crfs; "external-toc" for eStargz that keeps
        the tar's bytes, and has its TOC in a file of its own; "zstd:chunked" for the layout of
        containers/storage, which keeps the tar's bytes (stargz-snapshotter reads it, too);
        "zstd:chunked-stargz" for that of stargz-snapshotter.
    strict: fail where the format cannot hold the tar; without, a layer that was to be zstd:chunked
        is plain zstd then, and the warnings say why.
    force: replace a dst path that exists, as open(dst, "wb") does; without, FileExistsError, as the
        command without --force.
    verify: inflate each gzip member again before it is written, and compare; of the zstd formats
        there is none of that (`Layer.verify` checks what was written).
    threads: default: the processors this process may use. Memory is about 25 MB a thread and
        the chunk size at the default chunk size; with "reuse" up to a sixth more.
    memory: bytes that the window of a zstd frame may take more (default: 512 MiB).
    max_sparse: bytes that the holes of all sparse files may have, which a layer stores as zeros
        (default: 8 GiB).
    toc_out: of "external-toc", where the TOC goes: a path or a binary file object, as dst (default:
        the path dst with ".toc" behind it).
    progress: called with (bytes done, bytes in all or 0 when not known), at most some tens of
        times a second.

    Raises UsageError; EntryNotFoundError for a prioritized name that is not there; GzipError
    and TarError (with source and offset) for a malformed input; CodecError when a library is
    missing; OSError. KeyboardInterrupt leaves nothing behind.
    """
    names = several(prioritized, "prioritized")
    if level is None:
        level = default_level(format)
    options = ConvertOptions(
        level, chunk_size, min_chunk_size, names, allow_missing, lossless, format, strict
    )
    return convert_as(
        options, src, dst, threads, progress, memory, max_sparse, force, toc_out, verify
    )


def convert_as(
    options: ConvertOptions,
    src: Source,
    dst: Sink,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    memory: int | None = None,
    max_sparse: int | None = None,
    force: bool = True,
    toc_out: Sink | None = None,
    verify: bool = False,
) -> ConvertResult:
    """`convert`, with the options in one."""
    names = [os.fsencode(name) for name in options.prioritized]
    threads = thread_count(threads)
    check_memory(memory)
    check_max_sparse(max_sparse)
    if verify and is_zstd(options.format):
        raise UsageError(
            f"verify (--verify) is of gzip: of format (--format) {options.format} check what was "
            "written, by stargz verify"
        )
    from stargz._engine.write import Conversion

    begin = time.perf_counter()
    with ExitStack() as stack:
        source, source_name, source_size = open_source(src, stack)
        if is_same_file(src, dst):
            raise UsageError(f"{source_name}: source and destination are the same file")
        beside = None
        if options.format == "external-toc" or toc_out is not None:
            beside = _toc_out(options, src, dst, toc_out)
        keep = None
        if isinstance(beside, (str, os.PathLike)) and is_replaced(beside):
            # Before the layer: until that is in its place the old TOC can be put back.
            old = put_back(os.path.realpath(beside), called=os.fspath(beside))
            keep = stack.enter_context(old)
        sink, sink_name, folder = open_sink(dst, stack, force)
        if beside is not None:
            # After the layer, so that it is complete before that appears.
            *toc, _ = open_sink(beside, stack, force)
        conversion = Conversion(
            source,
            sink,
            level=1 if options.level == "reuse" else options.level,
            reuse=options.level == "reuse",
            verify=verify,
            chunk_size=options.chunk_size,
            min_chunk_size=options.min_chunk_size,
            format=options.format,
            lossless=options.lossless,
            threads=threads,
            source_name=source_name,
            sink_name=sink_name,
            progress=progress,
            source_size=source_size,
            memory=memory,
            max_sparse=max_sparse,
            strict=options.strict,
            folder=os.fsencode(folder or tempfile.gettempdir()),
        )
        if beside is not None:
            conversion.put_toc(*toc)
        missing: tuple[str, ...] = ()
        if names:
            reread = conversion.plain and source_size > 0 and isinstance(src, (str, os.PathLike))
            missing = _prioritize(conversion, names, source if reread else None, folder, stack)
            if missing and not options.allow_missing:
                raise not_prioritized(EntryNotFoundError(missing[0], source_name))
        fields = _run(conversion, options.strict, synced=folder is not None)
        if beside is not None and folder is not None:
            os.fsync(sink)  # nothing of that may fail when the TOC is there
        if keep is not None:
            keep(toc[0])
    if not fields["toc_size"]:
        fields["toc_digest"] = ""
    done = options.level if options.level != "reuse" or fields["reused"] else 1
    return ConvertResult(
        level=options.level,
        seconds=time.perf_counter() - begin,
        codec=codec_name(done, options.format),
        annotations=annotations_of(options.format, fields),
        missing=missing,
        warnings=tuple(warnings_of(fields)),
        source_size=source_size or None,
        toc_blob=fields["toc_checksum"] if beside is not None else "",
        toc_blob_size=fields["toc_packed"] if beside is not None else 0,
        format=options.format if fields["toc_size"] else PLAIN_ZSTD,
        unfit=fields.get("unfit", ""),
        **{name: fields[name] for name in _MADE},
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
        source, name, size = open_source(src, stack)
        return unwrap(source, source_name=name, progress=progress, source_size=size)


def _toc_out(options: ConvertOptions, src: Source, dst: Sink, toc_out: Sink | None) -> Sink:
    """Where an external TOC goes."""
    if options.format != "external-toc":
        raise UsageError("toc_out (--toc-out) is for format (--format) external-toc alone")
    if toc_out is None:
        if not isinstance(dst, (str, os.PathLike)) or is_stream(dst):
            raise UsageError(
                "format (--format) external-toc has its TOC in a file of its own: name that by "
                "toc_out (--toc-out)"
            )
        toc_out = os.fspath(dst) + TOC_SUFFIX
    for other, what in ((src, "source"), (dst, "destination")):
        if is_same_file(toc_out, other) or (other is toc_out):
            raise UsageError(f"toc_out (--toc-out) and the {what} are the same file")
    return toc_out


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


def _run(conversion: Any, strict: bool, *, synced: bool) -> dict[str, Any]:
    """Convert; `synced` says whether what is written is synced when it is complete."""
    try:
        return conversion.run(synced=synced)  # type: ignore[no-any-return]
    except UnindexableError as error:
        if not strict:
            raise
        raise UnindexableError(
            f"{error.message}, which zstd:chunked cannot hold; without strict (--strict) the layer "
            "is plain zstd",
            error.source,
            error.offset,
        ) from None


def not_prioritized(error: EntryNotFoundError) -> EntryNotFoundError:
    """The error of a name to prioritize that is not there, which may have been meant otherwise."""
    if is_pattern(error.name):
        error.args = (f"{error}; what is prioritized is a name, not a pattern",)
    return error


def warnings_of(fields: dict[str, Any]) -> Iterator[str]:
    """What the maker of a layer should know of it."""
    yield from fields["notes"]
    if fields["toc_size"] > TOC_SIZE_WARNING:
        yield (
            f"the TOC is {fields['toc_size'] >> 20} MiB; containers/storage refuses more than 150"
        )
    if why := fields.get("unfit"):
        yield f"{why}: so the layer is plain zstd, without a TOC"
