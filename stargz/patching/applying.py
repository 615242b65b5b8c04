"""Make a blob of another one and a patch (`stargz.delta` makes patches)."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from stargz.endpoints import is_url, open_sink, open_source
from stargz.errors import CodecError, DigestError, FooterError, UsageError
from stargz.footer import MAX_FOOTER_SIZE, parse_footer
from stargz.options import is_zstd, thread_count
from stargz.patching.file import engine
from stargz.results import Result
from stargz.sources.spool import Spool

File = str | os.PathLike[str] | IO[bytes]

_SPOOL_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class ApplyResult(Result):
    """What was made. `digest` is "sha256:" and 64 hex digits; sizes are bytes.

    `copied`, `regenerated` and `received` are how many of NEW's bytes came from BASE as they
    are, were compressed anew here, and were in the patch; `patch_size` is that of the patch.
    """

    digest: str
    size: int
    copied: int
    regenerated: int
    received: int
    patch_size: int
    seconds: float


def apply(
    base: File,
    patch: File,
    dst: File,
    *,
    force: bool = True,
    max_size: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> ApplyResult:
    """Make NEW, byte for byte, of BASE and a patch.

    base is the path of a local file, or a binary file object: one that is no regular file (a
    pipe) is kept in an unlinked temporary file first. patch and dst are paths or binary file
    objects; a patch is read once, in order. File objects are not closed. BASE is checked before
    anything is written.

    A dst path appears complete and checked or not at all, and then replaces what was there; it
    may be BASE's. Any other dst gets NEW as it is made, but its TOC and footer not before NEW's
    digest is right; until then they are in an unlinked temporary file.

    force: replace a dst path that exists, as open(dst, "wb") does; without, FileExistsError, as the
        command without --force.
    max_size: bytes that NEW may have; a patch that makes more is refused. Default: 4 times BASE's
        size and what PATCH inflates to, but at least 1 GiB.
    threads: 1 does one thing after another; else up to three threads read, hash and write side
        by side (default: as there are processors). Memory is about 10 MB, and some times the
        largest member that is compressed anew, of at most 64 MiB.
    progress: called with (bytes done, bytes of BASE and NEW), at most some tens of times a
        second.

    Raises PatchError (with source and offset) for a malformed patch; DigestError when base is
    not the blob that the patch was made for, or NEW does not become what it should be;
    CodecError when what compressed where the patch was made is not here; OSError; UsageError.
    """
    threads = thread_count(threads)
    if max_size is not None and not 0 < max_size < 1 << 63:
        raise UsageError(f"max_size (--max-size) is {max_size}, not a positive number of bytes")
    from stargz._engine.patch import Patch

    begin = time.perf_counter()
    with ExitStack() as stack:
        source, patch_name, _ = _open(patch, stack, "patch")
        delta = Patch(source, patch_name)
        _check_engine(delta.level, delta.engine, patch_name)
        base_fd, base_name, base_size = _open_base(base, delta.base_size, stack)
        if base_size != delta.base_size:
            raise _other_base(
                _what_is(base_fd, base_size),
                base_name,
                f"{delta.base_digest} of {delta.base_size} bytes",
                f"{base_size} bytes",
            )
        sink, sink_name, spool = _open_sink(dst, stack, force)
        try:
            fields: dict[str, Any] = delta.run(
                base_fd,
                sink,
                spool,
                max_size=max_size or 0,
                threads=threads,
                base_name=base_name,
                sink_name=sink_name,
                progress=progress,
            )
        except DigestError as error:
            if error.name == "BASE":
                what = _what_is(base_fd, base_size)
                raise _other_base(what, base_name, error.expected, error.actual) from None
            raise
    return ApplyResult(seconds=time.perf_counter() - begin, **fields)


def _what_is(base_fd: int, size: int) -> str:
    """What else a BASE is, of which there are no patches; "" for what may be a layer of some."""
    start = max(0, size - MAX_FOOTER_SIZE)
    try:
        kind = parse_footer(os.pread(base_fd, size - start, start), size).kind
    except FooterError:
        return ", but no seekable layer"
    return ", but in zstd:chunked (patches are between layers in gzip)" if is_zstd(kind) else ""


def _other_base(what: str, name: str, expected: str, actual: str) -> DigestError:
    said = f"BASE is not the blob the patch was made for{what}"
    return DigestError(said, expected, actual, name, what="it")


def _check_engine(level: int, made_with: str, name: str) -> None:
    """Refuse a patch whose members another library compresses to other bytes here."""
    if not level:
        return
    here = engine(level)
    if made_with != here:
        raise CodecError(
            f"{name}: made with {made_with} at level {level}, and here is {here}, which makes "
            "other bytes; install the same, or make the patch with level 1 layers"
        )


def _open(file: File, stack: ExitStack, what: str) -> tuple[Any, str, int]:
    """See `open_source`."""
    if isinstance(file, (str, os.PathLike)) and is_url(file):
        raise UsageError(f"{os.fspath(file)}: only local files are patched; download it first")
    return open_source(file, stack, what)


def _open_base(base: File, expected: int, stack: ExitStack) -> tuple[int, str, int]:
    """The descriptor of a regular file, a name for errors, and its size."""
    source, name, size = _open(base, stack, "base")
    if isinstance(source, int) and stat.S_ISREG(os.fstat(source).st_mode):
        return source, name, size
    read = partial(os.read, source) if isinstance(source, int) else source
    spool = Spool(name, expected)
    while piece := read(_SPOOL_STEP):
        spool.append(piece)
        if spool.size > expected:  # another one: an endless one must not fill the disk
            break
    stack.callback(lambda: spool)  # its descriptor is open as long as it is there
    return spool.fd, name, spool.size


def _open_sink(dst: File, stack: ExitStack, force: bool) -> tuple[Any, str, int]:
    """A descriptor or a write(view), a name for errors, and the descriptor of a temporary file
    for what must not be seen before it is checked, or -1."""
    sink, name, folder = open_sink(dst, stack, force)
    if folder is not None:
        return sink, name, -1  # nothing of it is seen
    held = stack.enter_context(tempfile.TemporaryFile(prefix="stargz-"))
    return sink, name, held.fileno()
