"""The limits of what layers are made with, and the one check of each."""

from __future__ import annotations

import contextlib
import operator
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stargz.errors import TOCError, UsageError

Format = Literal["estargz", "stargz", "external-toc", "zstd:chunked", "zstd:chunked-stargz"]

# "reuse": what the compressor of a gzip input found is coded again; other input by level 1.
Level = int | Literal["reuse"]

FORMATS = get_args(Format)
MEMBERS_SHARED = ("estargz", "external-toc")  # in which small files may share a member
LEVELS = range(1, 13)
DEFAULT_LEVEL = 1
ZSTD_LEVELS = range(1, 20)
# Of Debian's layer (204 MB), s of processor time and MB: at 1 1.4 and 101.0, at 2 1.4 and 99.5, at
# 3 1.6 and 98.7, at 4 1.9 and 97.8, at 5 2.4 and 96.7, at 6 2.9 and 95.9, at 9 4.3 and 95.5. The Go
# packages at their level 3: containers/storage 4.4 and 99.2, stargz-snapshotter 3.3 and 96.7. A
# level from 4 on costs a fifth more time for a hundredth less; so with Python's and Ansible's.
DEFAULT_ZSTD_LEVEL = 3
DEFAULT_CHUNK_SIZE = 4 << 20  # the reference's
CHUNK_SIZES = range(1 << 10, (1 << 30) + 1)
TOC_SUFFIX = ".toc"  # of an external TOC, behind the name of its layer
INDEX_SUFFIX = ".index"  # of the file that is looked for beside a blob
SPAN_SIZE = 4 << 20
SPAN_SIZES = range(64 << 10, (1 << 30) + 1)  # decoded bytes from one entry point to the next
MEMBER_MAX = (2 << 30) - (16 << 20)  # of one gzip member: its length is 32 bits
THREADS = range(1, 1025)
MAX_TOC_SIZE = 1 << 30  # of its JSON


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What decides a layer's bytes, beside its tar; see `stargz.convert`. UsageError for what is
    out of bounds, or contradicts itself."""

    level: Level = DEFAULT_LEVEL
    chunk_size: int = DEFAULT_CHUNK_SIZE
    min_chunk_size: int = 0
    prioritized: tuple[str, ...] = ()
    allow_missing: bool = False
    lossless: bool = False
    format: Format = "estargz"
    strict: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"format {self.format!r} is not one of {', '.join(FORMATS)}")
        check_level(self.level, self.format)
        check_chunk_size(self.chunk_size)
        least = self.min_chunk_size
        if least and not _is_in(least, range(1, CHUNK_SIZES.stop)):
            raise UsageError(
                f"min_chunk_size (--min-chunk-size) {least!r:.40} is not in 0 to 1 GiB"
            )
        if self.chunk_size + least > MEMBER_MAX:
            raise UsageError(
                "chunk_size (--chunk-size) and min_chunk_size (--min-chunk-size) together are over "
                "2 GiB less 16 MiB"
            )
        if self.strict and self.format != "zstd:chunked":
            raise UsageError(
                "strict (--strict) is for format (--format) zstd:chunked alone: the others fail "
                "anyway where they cannot hold the tar"
            )
        if least and self.format not in MEMBERS_SHARED:
            raise UsageError(
                f"format (--format) {self.format} cannot put small files together: no "
                "min_chunk_size (--min-chunk-size) with it"
            )
        if self.format == "stargz" and self.prioritized:
            raise UsageError(
                "format (--format) stargz has no landmarks: no prioritized (--prioritize) files "
                "with it"
            )
        if self.format in ("external-toc", "zstd:chunked") and self.prioritized:
            raise UsageError(
                f"format (--format) {self.format} keeps the order of the input: no prioritized "
                "(--prioritize) files with it"
            )
        if self.lossless and self.prioritized:
            raise UsageError(
                "lossless (--lossless) keeps the order of the input: no prioritized (--prioritize) "
                "files with it"
            )
        for name in self.prioritized:
            if any("\ud800" <= char < "\udc80" or "\udcff" < char <= "\udfff" for char in name):
                raise UsageError(
                    f"prioritized path {name[:100]!a}: half of a surrogate pair is in no name"
                )


def _is_in(value: object, allowed: range) -> bool:
    """Whether it is one of these. What is no number, or a number of another kind, would be
    compared with each of them."""
    try:
        return operator.index(value) in allowed  # type: ignore[arg-type]
    except TypeError:
        return False


def is_zstd(format: str) -> bool:
    """Whether layers of this format are frames of zstd."""
    return format.startswith("zstd")


def default_level(format: str = "estargz") -> int:
    """The level of a format for which none is given."""
    return DEFAULT_ZSTD_LEVEL if is_zstd(format) else DEFAULT_LEVEL


def check_level(level: Level, format: str = "estargz") -> None:
    """UsageError for a level that there is not."""
    if level == "reuse":
        if is_zstd(format):
            raise UsageError(
                f"level (--level) reuse makes gzip alone: of format (--format) {format} give 1 to "
                f"{ZSTD_LEVELS[-1]}, or none for the default"
            )
        return
    levels = ZSTD_LEVELS if is_zstd(format) else LEVELS
    if not _is_in(level, levels):
        other = "" if is_zstd(format) else ", nor reuse"
        raise UsageError(
            f"level (--level) {level!r:.40} is not in 1 to {levels[-1]}, those of {format}{other}"
        )


def check_chunk_size(size: int) -> None:
    """UsageError for a chunk size that no reader would take, or that none needs."""
    if not _is_in(size, CHUNK_SIZES):
        raise UsageError(f"chunk_size (--chunk-size) {size!r:.40} is not in 1 KiB to 1 GiB")


def check_span_size(size: int) -> None:
    """UsageError for a span that no reader would take, or that none needs."""
    if not _is_in(size, SPAN_SIZES):
        raise UsageError(f"span_size (--span-size) {size!r:.40} is not in 64 KiB to 1 GiB")


def check_min_layer_size(size: int) -> None:
    """UsageError for a size that no layer can have."""
    if not _is_in(size, range(1 << 63)):
        raise UsageError(
            f"min_layer_size (--min-layer-size) {size!r:.40} is no number of bytes, 0 or more"
        )


def check_memory(size: int | None) -> None:
    """UsageError for memory that no frame of zstd could do with."""
    if size is not None and not _is_in(size, range(1 << 10, 1 << 63)):
        raise UsageError(f"memory (--memory) of {size!r:.40} bytes is not 1 KiB or more")


def check_max_sparse(size: int | None) -> None:
    """UsageError for bytes of holes that cannot be counted."""
    if size is not None and not _is_in(size, range(1, 1 << 62)):
        raise UsageError(f"max_sparse (--max-sparse) {size!r:.40} is not 1 byte to 4 EiB")


def toc_too_large(size: int, limit: int, source: str) -> TOCError:
    """The error for the file of an external TOC that is over max_toc_size."""
    return TOCError(
        f"{size} bytes are more than a TOC may have, {limit}; max_toc_size (--max-toc-size) allows "
        "more",
        source,
    )


def is_given(index: object) -> bool:
    """Whether the keyword `index` is an index, and not what to do where there is none."""
    if index is True or (isinstance(index, int | float) and index is not False):
        raise UsageError(
            f"index is {index!r:.40}: give an index's file (a path, URL, bytes ...), an Index, "
            '"build", or False'
        )
    if index == "":
        raise UsageError("index (--index) is empty: name the file of an index")
    return not (index is None or index is False or index == "build")


def default_threads() -> int:
    """The processors this process may run on."""
    return len(os.sched_getaffinity(0))


def available_memory() -> int:
    """Bytes of memory that are free to be used, or what this process's control groups let it
    have in all, if that is less; 0 where the system does not say."""
    least = 0
    with contextlib.suppress(OSError, ValueError):
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
        least = int(found[1]) << 10 if found else 0
    for limit in _group_limits():
        with contextlib.suppress(OSError, ValueError):  # "max" is none
            least = min(least, int(limit.read_text()))
    return least


def _group_limits() -> Iterator[Path]:
    """The files of the control groups above this process, of either version, that limit it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            yield folder / name
            if folder == root:
                break


def thread_count(threads: int | None) -> int:
    """How many threads to use: those asked for, else one for each processor."""
    if threads is None:
        return default_threads()
    if not _is_in(threads, THREADS):
        raise UsageError(f"{threads!r:.40} threads are not in 1 to 1024")
    return threads


def check_jobs(jobs: int | None) -> None:
    """UsageError for what cannot be done at the same time; 0 is as many as there are cores."""
    if jobs is not None and not _is_in(jobs, range(THREADS.stop)):
        raise UsageError(f"jobs (--jobs) {jobs!r:.40} is not in 1 to 1024")


def codec_name(level: Level, format: str = "estargz") -> str:
    """What compresses at this level; CodecError when the library is not there."""
    if level == "reuse":
        return "the input's matches"
    if is_zstd(format):
        from stargz._engine.base import zstd_version

        return f"zstd {zstd_version()}"
    if level <= 2:
        return "isa-l"
    from importlib.metadata import PackageNotFoundError, version

    from stargz._engine.base import loaded, need

    need("libdeflate")
    path = Path(loaded()["libdeflate"])
    if path.name.startswith("_deflate."):
        try:
            return f"libdeflate of deflate {version('deflate')}"
        except PackageNotFoundError:
            pass
    return f"libdeflate ({path.name})"
