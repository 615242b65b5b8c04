"""The disk cache: chunks of remote layers, and indexes of ordinary tars, kept between runs.

A folder of its owner with one file a chunk, named by the sha256 of its bytes
(csrc/chunks/disk.h), so equal files of different layers and images are stored once. Any number of
processes may use it at once. Bytes are hashed before they enter and again when they leave.

The folder `index` in it has a file for each blob that an index was made of, named by the sha256 of
what the blob is called: a line with the sha256 of the blob's version, and the index.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stargz._engine.chunks import Store
from stargz.durable import NewFile, release, spared, write_all
from stargz.errors import SourceError
from stargz.logs import logger

DEFAULT_SIZE = 10 << 30

_INDEXES = "index"
_FOLDER = re.compile(rf"[0-9a-f]{{2}}|{_INDEXES}")
_CHUNK = re.compile(r"[0-9a-f]{62}")
_INDEX = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = "."
# What indexes may take of the cache: a chunk that has to go is fetched again, an index is another
# pass over its blob, but they are small.
_INDEX_SHARE = 1 / 16
# A temporary file that is older belongs to a process that was killed: a chunk is written in
# less than a second.
_LEFTOVER = 3600.0
# Eviction goes on to here, so that it is not due again at once.
_LOW = 0.9
# What a file takes is counted in these: most file systems' blocks.
_BLOCK = 4096
# How much is added between two looks at the whole folder: each costs a system call a file, and
# several processes may together go over the cap by this fraction of it each.
_INTERVAL = 1 / 64
_EXISTING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What a cache holds: `chunks` and `indexes` files that take `bytes` of at most `cap`; `oldest`
    is when the one that goes first was last used (seconds since the epoch), None if there is
    none."""

    path: str
    chunks: int
    bytes: int
    cap: int
    oldest: float | None
    indexes: int = 0


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed: `chunks` and `indexes` files that took `bytes`."""

    chunks: int
    bytes: int
    indexes: int = 0


def default_path() -> Path:
    """$STARGZ_CACHE_DIR, else stargz in $XDG_CACHE_HOME, else ~/.cache/stargz."""
    given = os.environ.get("STARGZ_CACHE_DIR")
    if given:
        return Path(given)
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():  # the XDG specification: such a path is to be ignored
        root = Path.home() / ".cache"
    return root / "stargz"


class Cache:
    """The disk cache in the folder `path` (see `default_path`), of at most `size` bytes (default
    10 GiB), and never so much that less than 5% of the disk stays free.

    The folder is made if it is not there. It must be its owner's alone (mode 0700): it is never
    shared between users. Any number of threads may use it, and of processes.

    Raises SourceError, an OSError, when the folder cannot be made or is not safe to use.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, size: int | None = None) -> None:
        folder = default_path() if path is None else Path(path)
        if size is not None and size < 0:
            raise ValueError(f"the size of a cache is at least 0, not {size}")
        self.path: str = str(folder.absolute())
        self.size: int = DEFAULT_SIZE if size is None else size
        folder_of = _Folder(_open_folder(self.path))
        self._fd = folder_of.fd
        # It keeps the descriptor open, also when this object is gone.
        self.store: Store = Store(self._fd, folder_of)
        self._lock = threading.Lock()
        self._next_look = int(self.size * _INTERVAL)

    def __repr__(self) -> str:
        return f"<stargz.Cache {self.path!r}>"

    def __reduce__(self) -> tuple[type[Cache], tuple[str, int]]:
        return Cache, (self.path, self.size)

    def is_current(self) -> bool:
        """Whether the folder at the path is still the one that was opened."""
        try:
            return os.path.samestat(Path(self.path).stat(), os.fstat(self._fd))
        except OSError:
            return False

    def info(self) -> CacheInfo:
        """What is there now; every file is looked at."""
        chunks = indexes = total = 0
        oldest: float | None = None
        for _, name, used, taken in self._files():
            indexes += _is_index(name)
            chunks += not _is_index(name)
            total += taken
            oldest = used if oldest is None else min(oldest, used)
        return CacheInfo(self.path, chunks, total, self._cap(total), oldest, indexes)

    def index(self, blob: str, version: str) -> bytes | None:
        """The index that was kept of what is called `blob`; None if there is none of this
        `version`."""
        try:
            with (
                self._indexes() as folder,
                os.fdopen(os.open(_index_name(blob), _EXISTING, dir_fd=folder), "rb") as file,
            ):
                if file.read(65) != _sha256_of(version) + b"\n":
                    return None
                os.utime(file.fileno())  # it is of use: others go first
                return file.read()
        except OSError as error:
            if error.errno != errno.ENOENT:
                logger().warning("%s: an index in it cannot be read: %s", self.path, error.strerror)
            return None

    def keep_index(
        self, blob: str, version: str, write: Callable[[Callable[[bytes], int]], object]
    ) -> bool:
        """Keep an index, which `write(put)` writes, in place of that of another version. It is
        there complete or not at all; False where the disk does not take it."""
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(_INDEXES, 0o700, dir_fd=self._fd)
            with self._indexes() as folder:
                name = _index_name(blob)
                path = f"/proc/self/fd/{folder}"
                with NewFile(path, name) as file:
                    write_all(file.fd, _sha256_of(version) + b"\n")
                    write(lambda data: write_all(file.fd, data))
                    os.fchmod(file.fd, 0o600)
                    file.publish(f"{path}/{name}")
            self._tidy_indexes()
        except OSError as error:
            logger().warning("%s: an index is not kept: %s", self.path, error.strerror or error)
            return False
        return True

    @contextlib.contextmanager
    def _indexes(self) -> Iterator[int]:
        """A descriptor of the folder of indexes: that of the folder which was found safe, whatever
        its path leads to by now."""
        folder = os.open(_INDEXES, _DIRECTORY, dir_fd=self._fd)
        try:
            yield folder
        finally:
            release(folder)

    def _tidy_indexes(self) -> None:
        """Remove the least recently used indexes where they take more than their share."""
        with self._indexes() as folder:
            found = sorted((used, taken, name) for _, name, used, taken in _files_in(folder, True))
            left = sum(taken for _, taken, _ in found)
            cap = int(self.size * _INDEX_SHARE)
            for _, taken, name in found if left > cap else ():
                if left <= cap * _LOW:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
                left -= taken

    def prune(self, size: int | None = None, older_than: float | None = None) -> Pruned:
        """Remove chunks and indexes not used for `older_than` seconds, then the least recently used
        ones until at most `size` bytes are left; all when neither is given.

        Waits for another process that is evicting.
        """
        if size is None:
            size = 0 if older_than is None else 1 << 62
        before = time.time() - older_than if older_than is not None else None
        with self._lock:
            return self._evict(size, before, wait=True) or Pruned(0, 0)

    def tidy(self) -> None:
        """Evict if it is time: called after each addition; mostly it costs nothing.

        The least recently used chunks go, until nine tenths of the cap are left.
        """
        if self.store.added < self._next_look or not self._lock.acquire(blocking=False):
            return
        try:
            total = sum(taken for *_, taken in self._files(sweep=True))
            cap = self._cap(total)
            if total > cap:
                self._evict(int(cap * _LOW), None, wait=False)
                total = min(total, int(cap * _LOW))
            # Others add, too: look again long before what is left can be used up.
            room = max((cap - total) // 4, int(cap * _INTERVAL), 1)
            self._next_look = self.store.added + room
        except OSError as error:
            logger().warning("%s: cannot be tidied: %s", self.path, error)
            self._next_look = self.store.added + int(self.size * _INTERVAL) + 1
        finally:
            self._lock.release()

    def _cap(self, total: int) -> int:
        disk = os.fstatvfs(self._fd)
        free = disk.f_bavail * disk.f_frsize - spared(disk.f_blocks * disk.f_frsize)
        return max(0, min(self.size, total + free))

    def _files(self, *, sweep: bool = False) -> Iterator[tuple[int, str, float, int]]:
        """(descriptor of its folder, name, last use, bytes) of every chunk and index. With `sweep`
        leftovers of killed processes are removed."""
        with os.scandir(self._fd) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            if not _FOLDER.fullmatch(name):
                continue
            try:
                folder = os.open(name, _DIRECTORY, dir_fd=self._fd)
            except OSError:
                continue  # something foreign, or gone
            try:
                yield from _files_in(folder, sweep)
            finally:
                release(folder)

    def _evict(self, target: int, before: float | None, *, wait: bool) -> Pruned | None:
        """None when another process is at it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(".lock", flags, 0o600, dir_fd=self._fd)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return None
            uses = sorted((used, taken) for _, _, used, taken in self._files(sweep=True))
            left = total = sum(taken for _, taken in uses)
            last = float("-inf")  # of the ones to go
            for used, taken in uses:
                if left <= target and not (before is not None and used < before):
                    break
                left -= taken
                last = used
            chunks = indexes = removed = 0
            for folder, name, used, taken in self._files():
                # Of several used at the very moment of the last one some may stay.
                if used > last or removed >= total - left:
                    continue
                try:
                    os.unlink(name, dir_fd=folder)
                except FileNotFoundError:
                    continue
                indexes += _is_index(name)
                chunks += not _is_index(name)
                removed += taken
            return Pruned(chunks, removed, indexes)
        finally:
            release(lock)


def _is_index(name: str) -> bool:
    return _INDEX.fullmatch(name) is not None


def _sha256_of(text: str) -> bytes:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest().encode()


def _index_name(blob: str) -> str:
    return _sha256_of(blob).decode()


def _files_in(folder: int, sweep: bool) -> Iterator[tuple[int, str, float, int]]:
    now = time.time()
    with os.scandir(folder) as entries:
        for entry in entries:
            chunk = bool(_CHUNK.fullmatch(entry.name)) or _is_index(entry.name)
            if not chunk and not (sweep and entry.name.startswith(_TEMPORARY)):
                continue
            try:
                info = entry.stat(follow_symlinks=False)
                if chunk and stat.S_ISREG(info.st_mode):
                    yield folder, entry.name, info.st_mtime, -(-info.st_size // _BLOCK) * _BLOCK
                elif not chunk and now - info.st_mtime > _LEFTOVER:
                    os.unlink(entry.name, dir_fd=folder)
            except FileNotFoundError:
                continue


class _Folder:
    """Owns the descriptor of a cache's folder."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


def _open_folder(path: str) -> int:
    try:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            Path(path).mkdir(mode=0o700)
        fd = os.open(path, _DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise SourceError(
                f"{path}: the cache must be a directory, not a symlink or file; choose another "
                "(--cache-dir, STARGZ_CACHE_DIR)"
            ) from None
        told = error.strerror or os.strerror(errno.EIO)
        raise SourceError(
            error.errno or errno.EIO,
            f"the cache cannot be used ({told}); choose another (--cache-dir, STARGZ_CACHE_DIR)",
            path,
        ) from error
    try:
        _check_folder(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_folder(fd: int, path: str) -> None:
    info = os.fstat(fd)
    if info.st_uid != os.geteuid():
        raise SourceError(
            f"{path}: the cache belongs to user {info.st_uid}, not to {os.geteuid()}; choose "
            "another (--cache-dir, STARGZ_CACHE_DIR)"
        )
    if info.st_mode & 0o077 and not os.listdir(fd):
        os.fchmod(fd, 0o700)  # freshly made for this
        info = os.fstat(fd)
        if os.listdir(fd):
            raise SourceError(f"{path}: another process fills the cache; choose another")
    if info.st_mode & 0o077:
        raise SourceError(
            f"{path}: others may enter this directory (mode {stat.S_IMODE(info.st_mode):o}), so it "
            "is no safe cache; choose another (--cache-dir, STARGZ_CACHE_DIR), or chmod 700 one "
            "that is only a cache"
        )


# Caches that are in use, so that the layers of an image share one and its count.
_shared: weakref.WeakValueDictionary[tuple[str, int], Cache] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def as_cache(cache: Cache | str | os.PathLike[str] | bool | None) -> Cache | None:
    """The Cache that the `cache` parameter of `stargz.open` means.

    A Cache, or a path; True for the user's own; False for none. None is the user's own, if it can
    be used (else a warning is logged).
    """
    if isinstance(cache, Cache):
        return cache
    if cache is None:
        try:
            return _share(default_path())
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
            text: object = error
            if isinstance(error, OSError) and error.strerror:
                text = f"{error.filename}: {error.strerror}"
            logger().warning("nothing is kept on disk: %s", text)
            return None
    if isinstance(cache, bool):
        return _share(default_path()) if cache else None
    return _share(Path(cache))


def _share(path: Path) -> Cache:
    key = (str(path.absolute()), DEFAULT_SIZE)
    with _sharing:
        cache = _shared.get(key)
        if cache is None or not cache.is_current():
            cache = _shared[key] = Cache(path)
        return cache
