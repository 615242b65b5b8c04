"""Files that are there complete, or not at all, even after a crash or SIGKILL."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

# What stays free on a disk for everyone else, of what may have no end (a cache, a spool): a share
# of it, up to a bound, since 5% of a large disk is much and may never be free.
_SHARE = 0.05
_MOST_SPARED = 1 << 30


def spared(total: int) -> int:
    """The bytes of a disk of `total` bytes that caches and temporary files leave free."""
    return min(int(total * _SHARE), _MOST_SPARED)


class NewFile:
    """A file in `folder` that has no name before `publish`; open for writing at `fd`.

    Unnamed where the file system has such files, so that even SIGKILL leaves nothing; else a
    temporary file named after `hint`, which goes with `close` (or the `with` block).
    """

    def __init__(self, folder: str, hint: str) -> None:
        self._folder = folder
        self._fd = -1
        self._beside = _beside(folder, hint, "partial")
        try:
            self._fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
            self._named = False
        except (AttributeError, OSError):
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
            self._fd = os.open(self._beside, flags, 0o666)
            self._named = True

    @property
    def fd(self) -> int:
        """The descriptor, until `close`."""
        return self._fd

    def publish(self, path: str, *, replace: bool = True, sync: bool = True) -> bool:
        """Have the content under `path`, in the same folder, and on the disk. Without `replace`
        a file that is there stays, and False is returned. Without `sync` it may be cut short
        after a power failure: for what is checked when it is read, and can be missed."""
        if sync:
            os.fsync(self._fd)
        if not replace:
            try:
                self._link(path)
            except FileExistsError:
                return False
        else:
            if not self._named:
                self._link(self._beside)
                self._named = True
            os.replace(self._beside, path)  # noqa: PTH105
            self._named = False
        if sync:
            sync_folder(self._folder)
        return True

    def _link(self, path: str) -> None:
        if self._named:
            os.link(self._beside, path)
            return
        # A src_dir_fd, although the path is absolute: without one, os.link calls link(2),
        # which does not follow the link in /proc.
        source = f"/proc/self/fd/{self._fd}"
        os.link(source, path, src_dir_fd=self._fd, follow_symlinks=True)

    def close(self) -> None:
        """Let go of the descriptor, and of a temporary name."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            release(fd)
        if self._named:
            self._named = False
            with suppress(FileNotFoundError):
                os.unlink(self._beside)  # noqa: PTH108

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_place(path: str, name: str) -> None:
    """Before much work: OSError unless a file can be written at `path`; `name` is what names it,
    as a parameter with its option."""
    folder = os.path.dirname(path) or "."  # noqa: PTH120
    try:
        mode = os.stat(folder).st_mode  # noqa: PTH116
    except FileNotFoundError:
        text = f"its directory is missing; make it first ({name})"
        raise OSError(errno.ENOENT, text, path) from None
    except OSError as error:
        raise OSError(error.errno, f"its directory: {error.strerror} ({name})", path) from None
    if not stat.S_ISDIR(mode):
        raise OSError(errno.ENOTDIR, f"its directory is a file ({name})", path)
    if os.path.isdir(path):  # noqa: PTH112
        raise OSError(errno.EISDIR, f"is a directory; name the file to write ({name})", path)
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        raise OSError(errno.EINVAL, f"is no regular file; name another ({name})", path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, f"its directory is not writable ({name})", path)


@contextmanager
def complete_or_absent(
    path: str, *, replace: bool = True, called: str | None = None
) -> Iterator[int]:
    """A descriptor whose content replaces `path` when the block ends well, synced. Without
    `replace` FileExistsError where something is there, before or by then. `called` is what an
    error calls it, if that is another name."""
    called = called or path
    folder, name = os.path.split(path)
    taken = FileExistsError(errno.EEXIST, "already exists, and is not to be replaced", called)
    if not replace and os.path.lexists(path):
        raise taken
    try:
        file = NewFile(folder, name)
    except OSError as error:
        raise OSError(error.errno, error.strerror, called) from None
    with file:
        try:
            yield file.fd
        except OSError as error:
            if error.filename is None and error.errno is not None:  # of the descriptor
                raise OSError(error.errno, error.strerror, called) from None
            raise
        try:
            done = file.publish(path, replace=replace)
        except OSError as error:  # it may be about a name that only this program knows
            raise OSError(error.errno, error.strerror, called) from None
        if not done:
            raise taken


@contextmanager
def put_back(path: str, *, called: str | None = None) -> Iterator[Callable[[int], None]]:
    """Have `path` as it was if the block fails. What is yielded is to be called with the descriptor
    of the file that is about to be published there; from then on the old one has a second name
    beside it, `.NAME.<number>.old`, which is all that SIGKILL leaves."""
    kept = _beside(*os.path.split(path), "old")
    new: list[os.stat_result] = []

    def keep(fd: int) -> None:
        new.append(os.fstat(fd))
        try:
            found = os.stat(path)  # noqa: PTH116
            if stat.S_ISREG(found.st_mode):  # else it cannot be replaced anyway
                _set_aside(path, kept, found.st_uid == os.geteuid())
        except FileNotFoundError:
            return
        except OSError as error:
            raise OSError(error.errno, error.strerror, called or path) from None

    try:
        yield keep
    except BaseException:
        if new:
            with suppress(OSError):
                _restore(path, kept, new[0])
        raise
    with suppress(OSError):
        os.unlink(kept)  # noqa: PTH108


def _set_aside(path: str, kept: str, own: bool) -> None:
    """Give a file a second name; only that where there are no hard links, or it is another's, of
    which a sticky folder lets us make names, but not remove them."""
    if own:
        with suppress(OSError):
            os.link(path, kept)
            return
    os.rename(path, kept)  # noqa: PTH104


def _restore(path: str, kept: str, new: os.stat_result) -> None:
    """Put what was kept in the place of the new file, but not of another that came meanwhile."""
    try:
        free = os.path.samestat(os.stat(path), new)  # noqa: PTH116
    except FileNotFoundError:
        free = True
    try:
        if free:
            os.replace(kept, path)  # noqa: PTH105
        else:
            os.unlink(kept)  # noqa: PTH108
    except FileNotFoundError:  # there was none
        if free:
            os.unlink(path)  # noqa: PTH108
    sync_folder(os.path.dirname(path))  # noqa: PTH120


def _beside(folder: str, name: str, what: str) -> str:
    """A hidden name of our own in the same folder."""
    short = os.fsdecode(os.fsencode(name)[:200])  # names are at most 255 bytes
    return f"{folder}/.{short}.{os.getpid()}.{time.monotonic_ns():x}.{what}"


def write_all(fd: int, data: bytes | memoryview) -> int:
    """Write all of it, or raise; its length."""
    with memoryview(data) as view, view.cast("B") as octets:
        done = 0
        while done < len(octets):
            done += os.write(fd, octets[done:])
        return done


def unlinked() -> int:
    """The descriptor of a new temporary file without a name; the caller closes it."""
    import tempfile  # which takes a while

    file = tempfile.TemporaryFile(prefix="stargz-")
    try:
        return os.dup(file.fileno())
    finally:
        with suppress(OSError):
            file.close()


def release(fd: int) -> None:
    """Close a descriptor by which nothing was written, or all of which is on the disk: what the
    system says then is of no consequence."""
    with suppress(OSError):
        os.close(fd)


def sync_folder(folder: str) -> None:
    """Have the names in `folder` on the disk, where its file system can do that, and we may open
    it: by now they are there, and whole."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
