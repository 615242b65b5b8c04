"""Make a blob of another one and a patch (`stargz.delta` makes patches)."""

from __future__ import annotations

import io
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from stargz.conversion import default_threads, open_sink
from stargz.errors import CodecError, DigestError, UsageError
from stargz.patching.file import engine
from stargz.sources.spool import Spool

File = str | os.PathLike[str] | IO[bytes]

_SPOOL_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class ApplyResult:
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

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def apply(
    base: File,
    patch: File,
    dst: File,
    *,
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

    threads: 1 does one thing after another; else up to three threads read, hash and write side
        by side (default: as there are processors). Memory is about 10 MB, and twice the largest
        member that is compressed anew.
    progress: called with (bytes done, bytes of BASE and NEW), at most some tens of times a
        second.

    Raises PatchError (with source and offset) for a malformed patch; DigestError when base is
    not the blob that the patch was made for, or NEW does not become what it should be;
    CodecError when what compressed where the patch was made is not here; OSError; UsageError.
    """
    if threads is not None and not 1 <= threads <= 1024:
        raise UsageError(f"{threads} threads are not in 1 to 1024")
    from stargz._engine.patch import Patch

    begin = time.perf_counter()
    with ExitStack() as stack:
        source, patch_name = _open_patch(patch, stack)
        delta = Patch(source, patch_name)
        _check_engine(delta.level, delta.engine, patch_name)
        base_fd, base_name, base_size = _open_base(base, delta.base_size, stack)
        if base_size != delta.base_size:
            raise _other_base(
                base_name,
                f"{delta.base_digest} of {delta.base_size} bytes",
                f"{base_size} bytes",
            )
        sink, sink_name, spool = _open_sink(dst, stack)
        try:
            fields: dict[str, Any] = delta.run(
                base_fd,
                sink,
                spool,
                threads=threads or default_threads(),
                base_name=base_name,
                sink_name=sink_name,
                progress=progress,
            )
        except DigestError as error:
            if error.name == "BASE":
                raise _other_base(base_name, error.expected, error.actual) from None
            raise
    return ApplyResult(seconds=time.perf_counter() - begin, **fields)


def _other_base(name: str, expected: str, actual: str) -> DigestError:
    return DigestError("BASE is not the blob the patch was made for", expected, actual, name)


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


def _open_patch(patch: File, stack: ExitStack) -> tuple[Any, str]:
    """A descriptor or a read(n), and a name for errors."""
    if isinstance(patch, (str, os.PathLike)):
        _refuse_url(patch)
        patch = stack.enter_context(Path(patch).open("rb", buffering=0))
    name = str(getattr(patch, "name", "") or "patch")
    if isinstance(patch, io.FileIO):
        _refuse_directory(patch, name)
        return patch.fileno(), name
    if not callable(getattr(patch, "read", None)):
        raise UsageError(f"a patch is a path or a binary file, not {type(patch).__name__}")
    return patch.read, name


def _open_base(base: File, expected: int, stack: ExitStack) -> tuple[int, str, int]:
    """The descriptor of a regular file, a name for errors, and its size."""
    if isinstance(base, (str, os.PathLike)):
        _refuse_url(base)
        base = stack.enter_context(Path(base).open("rb", buffering=0))
    name = str(getattr(base, "name", "") or "base")
    if isinstance(base, io.FileIO):
        _refuse_directory(base, name)
        found = os.fstat(base.fileno())
        if stat.S_ISREG(found.st_mode):
            return base.fileno(), name, found.st_size
    if not callable(getattr(base, "read", None)):
        raise UsageError(f"a base is a path or a binary file, not {type(base).__name__}")
    spool = Spool(name, expected)
    while piece := base.read(_SPOOL_STEP):
        spool.append(piece)
        if spool.size > expected:  # another one: an endless one must not fill the disk
            break
    stack.callback(lambda: spool)  # its descriptor is open as long as it is there
    return spool.fd, name, spool.size


def _open_sink(dst: File, stack: ExitStack) -> tuple[Any, str, int]:
    """A descriptor or a write(view), a name for errors, and the descriptor of a temporary file
    for what must not be seen before it is checked, or -1."""
    sink, name, folder = open_sink(dst, stack)
    if folder is not None:
        return sink, name, -1  # nothing of it is seen
    held = stack.enter_context(tempfile.TemporaryFile(prefix="stargz-"))
    return sink, name, held.fileno()


def _refuse_url(path: str | os.PathLike[str]) -> None:
    text = os.fspath(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) and not Path(text).exists():
        raise UsageError(f"{text}: only local files are patched; download it first")


def _refuse_directory(file: io.FileIO, name: str) -> None:
    if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
        raise IsADirectoryError(21, "Is a directory", name)
