"""Make a seekable layer of a directory; again and again, at the cost of what changed."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stargz.conversion import warnings_of
from stargz.durable import NewFile
from stargz.endpoints import Sink, is_replaced, is_same_file, open_sink
from stargz.errors import FormatError, StargzError, UsageError
from stargz.options import (
    DEFAULT_CHUNK_SIZE,
    DEFAULT_LEVEL,
    Level,
    check_chunk_size,
    check_level,
    codec_name,
    thread_count,
)
from stargz.results import Result

if TYPE_CHECKING:
    from stargz._engine.write import Manifest, Packing, Saving
    from stargz.ignore import IgnoreFile

MANIFEST_SUFFIX = ".manifest"
MANIFEST_MAGIC = b"SGZMANIF"
TIMES = range(-(1 << 62), 1 << 62)
IDS = range((1 << 32) - 1)  # the last one means none to chown(2)

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class PackResult(Result):
    """What a pack made. Digests are "sha256:" and 64 hex digits; sizes are bytes.

    `entries` counts what the TOC names, landmark included and chunks not; `chunks` the pieces
    of file contents that can be read alone. `diff_id` is None where it was not asked for.
    `read_files` had their contents read; `reused_files` had them copied from the base as they
    are there, compressed: `reused_bytes` with their headers. (A file that was read and then found
    in the base counts as both.) `codec` says what compressed: levels above 2 give the same bytes
    only with the same libdeflate.
    """

    digest: str
    size: int
    diff_id: str | None
    toc_digest: str
    uncompressed_size: int
    entries: int
    chunks: int
    read_files: int
    reused_files: int
    reused_bytes: int
    level: Level
    seconds: float
    codec: str
    warnings: tuple[str, ...] = ()


def pack(
    src: StrPath,
    dst: Sink,
    *,
    base: StrPath | None = None,
    base_manifest: StrPath | None = None,
    manifest: StrPath | None = None,
    checksum: bool = False,
    ignore: StrPath | IgnoreFile | None = None,
    level: Level = DEFAULT_LEVEL,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    diff_id: bool = True,
    owner: tuple[int, int] | None = None,
    mtime: int | None = None,
    source_date_epoch: int | None = None,
    one_file_system: bool = False,
    force: bool = True,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PackResult:
    """Pack a directory into a seekable layer.

    src is the directory, dst a path or a binary file object, which is not closed. A dst path
    appears complete or not at all, and then replaces what was there. The bytes depend on the
    tree and the options alone: parents before children, names sorted by their bytes, times in
    whole seconds (rounded down), no names of users and groups. Hard links, xattrs, device nodes
    and fifos are kept, holes of sparse files are zeros, sockets are left out with a warning. No
    symlink is followed.

    base: a layer that was packed earlier of (nearly) the same tree. What has not changed is
        copied from it, not compressed again, nor read from the disk (for the DiffID the tar is
        put together from what the kernel has in memory, or inflated); the result is byte for byte
        that without.
        It needs the base's manifest (base_manifest; default: the base's name and ".manifest"),
        and the same level, chunk size and compressor. Where one of these is missing or does not
        fit, a warning says so and everything is compressed. base and dst may be the same file.
    checksum: do not trust sizes, times and inodes to tell what has not changed: read every file,
        and copy those whose contents the base has, under any name.
    manifest: where this layer's manifest is written (default: a dst path and ".manifest"; none
        for what is no regular file). A file there that is no manifest is never replaced.
    ignore: what to leave out: an IgnoreFile, or the path of one, in the syntax of .dockerignore.
    level: 1 and 2 are ISA-L's, 3 to 12 libdeflate's (extra "dense"). "reuse" is 1 here, as of all
        that is no gzip.
    chunk_size: bytes of a file that can be read alone, 1 KiB to 1 GiB.
    diff_id: False does without the DiffID, a hash of the whole tar, which takes most of the time
        when little has changed.
    owner: (uid, gid) of everything; default: as it is.
    mtime: modification time of everything, in seconds since the epoch.
    source_date_epoch: later times become this one; default: the environment's SOURCE_DATE_EPOCH.
    one_file_system: do not enter directories where another file system is mounted.
    force: replace a dst path that exists, as open(dst, "wb") does; without, FileExistsError, as the
        command without --force.
    threads: default: the processors this process may use.
    progress: called with (bytes of contents done, bytes in all), at most some tens of times a
        second.

    A file that changes while it is packed has a warning, and zeros where it has become too short.
    Raises SourceError for one that was replaced or removed meanwhile; OSError for what cannot be
    read or written; UsageError; CodecError when a library is missing; TarError for names that a
    layer cannot hold. KeyboardInterrupt leaves nothing behind.
    """
    epoch = _epoch(source_date_epoch)
    check_level(level)
    done = 1 if level == "reuse" else level
    check_chunk_size(chunk_size)
    threads = thread_count(threads)
    if owner is not None and not (owner[0] in IDS and owner[1] in IDS):
        raise UsageError(f"owner {owner[0]}:{owner[1]} is not two numbers from 0 to {IDS[-1]}")
    if mtime is not None and mtime not in TIMES:
        raise UsageError(f"mtime {mtime} is not a time in seconds since the epoch")
    if base_manifest is not None and base is None:
        raise UsageError("base_manifest (--base-manifest) is of no use without base (--base)")
    from stargz._engine.base import isal_pinned
    from stargz._engine.write import Packing

    begin = time.perf_counter()
    warnings: list[str] = []
    uid, gid = owner if owner is not None else (-1, -1)
    engine = codec_name(done)
    with ExitStack() as stack:
        root = os.open(src, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        packing = Packing(
            root,
            os.fspath(src),
            level=done,
            chunk_size=chunk_size,
            owner=uid,
            group=gid,
            mtime=mtime,
            mtime_max=epoch,
            engine=engine if done > 2 or isal_pinned() else f"{engine}, not the pinned one",
            diff_id=diff_id,
            threads=threads,
            progress=progress,
        )
        manifest = _manifest_for(dst, manifest, base, warnings)
        base_fd, known = -1, None
        if base is not None:
            beside = base_manifest if base_manifest is not None else _manifest_of(base)
            base_fd, known = _open_base(packing, base, beside, stack, warnings)
        else:
            beside = None
        skip = _inside(src, dst, manifest, base, beside)
        sockets, socket, met, reserved = packing.walk(
            list(skip), _decider(ignore), one_file_system, known, not checksum
        )
        warnings += [f"left out, as it is the layer's or its base's: {skip[name]}" for name in met]
        if reserved:
            warnings.append(f"left out, as a layer has its own: {', '.join(sorted(reserved))}")
        if sockets:
            more = f" and {sockets - 1} more" if sockets > 1 else ""
            warnings.append(f"sockets are left out, as a layer cannot hold them: {socket}{more}")
        with ExitStack() as writing:
            sink, sink_name, folder = open_sink(dst, writing, force)
            fields = packing.run(sink, sink_name, folder is not None, base_fd)
            # Written while the layer is synced, which happens as this block ends; named after it.
            saving = None if manifest is None else stack.enter_context(_Saving(packing, manifest))
        warnings += _warnings(fields, base)
        if saving is not None:
            warnings += saving.publish()
    names = (
        "digest size diff_id toc_digest uncompressed_size entries chunks read_files reused_files "
        "reused_bytes"
    )
    return PackResult(
        level=level,
        seconds=time.perf_counter() - begin,
        codec=engine,
        warnings=tuple(warnings),
        **{name: fields[name] for name in names.split()},
    )


def _epoch(given: int | None) -> int | None:
    if given is None:
        text = os.environ.get("SOURCE_DATE_EPOCH")
        if not text:
            return None
        given = int(text) if re.fullmatch(r"\d{1,19}", text, re.ASCII) else -1
        if given not in TIMES or given < 0:
            raise UsageError(f"SOURCE_DATE_EPOCH={text}: not a number of seconds since the epoch")
    if given not in TIMES:
        raise UsageError(
            f"source_date_epoch (SOURCE_DATE_EPOCH) {given} is not a time in seconds since 1970"
        )
    return given


def _manifest_of(layer: StrPath) -> str:
    return os.fspath(layer) + MANIFEST_SUFFIX


def _manifest_for(
    dst: Sink, given: StrPath | None, base: StrPath | None, warnings: list[str]
) -> StrPath | None:
    """Where the manifest is written, which must not cost any other file; None: nowhere."""
    manifest = given
    if manifest is None:  # beside the layer; nowhere for a pipe or a device
        if not isinstance(dst, (str, os.PathLike)) or not is_replaced(dst):
            return None
        manifest = _manifest_of(os.path.realpath(dst))
    shown = os.fspath(manifest)
    for file, what in ((dst, "layer"), (base, "base")):
        if is_same_file(manifest, file):
            raise UsageError(f"{shown}: the {what} itself; name another file for the manifest")
    if _is_replaceable(manifest):
        return manifest
    if given is not None:
        raise UsageError(f"{shown}: exists and is no manifest; name another file for it")
    warnings.append(f"{shown}: is no manifest and was left alone; name another with --manifest")
    return None


def _is_replaceable(manifest: StrPath) -> bool:
    """Whether there is nothing, an empty file, or a manifest."""
    try:
        fd = _open_regular(manifest)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, UsageError):
        return False
    with os.fdopen(fd, "rb", buffering=0) as file:
        return file.read(len(MANIFEST_MAGIC)) in (b"", MANIFEST_MAGIC)


def _open_regular(path: StrPath) -> int:
    """A descriptor to read a file from, which cannot be a fifo that nobody writes to."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise UsageError(f"{os.fspath(path)}: is no regular file; name one")


def _inside(src: StrPath, *files: Sink | None) -> dict[bytes, str]:
    """Those files that are in the tree, by their names there: not to be packed."""
    root = Path(os.path.realpath(src))
    found = {}
    for file in files:
        if isinstance(file, (str, os.PathLike)):
            path = Path(os.path.realpath(file))
            if path != root and path.is_relative_to(root):
                name = str(path.relative_to(root))
                found[os.fsencode(name)] = name
    return found


def _decider(ignore: StrPath | IgnoreFile | None) -> Callable[[bytes, bool], int] | None:
    if ignore is None:
        return None
    from stargz.ignore import IgnoreFile

    if isinstance(ignore, (str, os.PathLike)):
        ignore = IgnoreFile.read(ignore)
    return ignore.decide


def _open_base(
    packing: Packing, base: StrPath, beside: StrPath, stack: ExitStack, warnings: list[str]
) -> tuple[int, Manifest | None]:
    """The base's descriptor and manifest; a warning where they are of no use."""
    from stargz._engine.write import Manifest

    def useless(why: str) -> tuple[int, None]:
        warnings.append(f"{why}: everything is compressed")
        return -1, None

    layer = _open_regular(base)
    stack.callback(os.close, layer)
    try:
        file = _open_regular(beside)
    except OSError as error:
        return useless(f"{os.fspath(beside)}: {error.strerror}")
    except UsageError:
        return useless(f"{os.fspath(beside)}: is no regular file")
    stack.callback(os.close, file)
    try:
        known = Manifest(file, os.fspath(beside))
    except (FormatError, OSError) as error:
        return useless(str(error))
    if other := packing.other_options(known):
        return useless(f"{os.fspath(beside)}: the base was packed with {other}")
    size, toc_offset, digest = known.blob
    if os.fstat(layer).st_size != size or _tail(layer, toc_offset) != digest:
        return useless(f"{os.fspath(beside)}: is not the manifest of {os.fspath(base)}")
    return layer, known


def _tail(fd: int, offset: int) -> bytes:
    """The sha256 of a file from an offset on."""
    import hashlib

    digest = hashlib.sha256()
    while data := os.pread(fd, 1 << 20, offset):
        digest.update(data)
        offset += len(data)
    return digest.digest()


class _Saving:
    """A manifest that is written by a thread of its own, and has no name before `publish`."""

    def __init__(self, packing: Packing, path: StrPath) -> None:
        self._packing = packing
        self._path = os.path.realpath(path)
        self._shown = os.fspath(path)
        self._file: NewFile | None = None
        self._saving: Saving | None = None
        self._error: OSError | StargzError | MemoryError | None = None

    def __enter__(self) -> Self:
        from stargz._engine.write import Saving

        try:
            self._file = NewFile(*os.path.split(self._path))
            self._saving = Saving(self._packing, self._file.fd)
        except (OSError, StargzError, MemoryError) as error:
            self._error = error
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._wait()
        finally:
            if self._file is not None:
                self._file.close()

    def _wait(self) -> None:
        saving, self._saving = self._saving, None
        try:
            if saving is not None:
                saving.wait()
        except (OSError, StargzError, MemoryError) as error:
            self._error = error

    def publish(self) -> Iterator[str]:
        """Give it its name. A warning where that cannot be: the layer is good without."""
        self._wait()
        try:
            if self._error is not None:
                raise self._error
            assert self._file is not None
            # Not synced: one that a crash cuts short is refused, and everything compressed.
            self._file.publish(self._path, sync=False)
        except (OSError, StargzError, MemoryError) as error:
            why = getattr(error, "strerror", None) or error
            yield (
                f"{self._shown}: the manifest was not written, so the layer is of no use as a "
                f"base: {why}"
            )


def _warnings(fields: dict[str, Any], base: StrPath | None) -> Iterator[str]:
    for name, cut in fields["changed_names"]:
        yield f"{name}: changed while it was packed" + (": its end is zeros" if cut else "")
    more = fields["changed"] - len(fields["changed_names"])
    if more > 0:
        yield f"{more} more files changed while they were packed"
    if fields["damaged"]:
        yield (
            f"{os.fspath(base or '')}: is damaged; {fields['damaged']} parts of it were read and "
            "compressed again"
        )
    yield from warnings_of(fields)
