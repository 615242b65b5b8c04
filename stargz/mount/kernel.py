"""Mounting and unmounting: mount(2) as root, fusermount3 for everyone else."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stargz._engine import mount as engine
from stargz.errors import StargzError

#: What /proc/mounts shows as the type of these mounts.
TYPE = "fuse.stargz"

_DEVICE = "/dev/fuse"
# From linux/mount.h and sys/mount.h.
_RDONLY, _NOSUID, _NODEV = 1, 2, 4
_DETACH, _NOFOLLOW = 2, 8
# The kernel reads 128 KiB ahead by default; with 1 MiB it asks an eighth as often.
_READ_AHEAD_KB = 1024
# After an unmount fusermount3 ends by itself.
_HELPER_SECONDS = 2.0
# For another process that is just mounting on the same directory.
_LOCK_SECONDS = 10.0
# Space, tab, newline and backslash in names (proc_pid_mountinfo(5)).
_ESCAPE = re.compile(rb"\\(040|011|012|134)")
_NAME_MAX = 1024  # bytes of the source's name: all options must fit into one page


class MountError(StargzError):
    """A file system cannot be mounted or unmounted; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to mount. `source` is the name in /proc/mounts."""

    source: str
    allow_other: bool = False
    dev: bool = False
    suid: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    device: str  # major:minor
    point: str
    type: str


def _mounts() -> list[_Entry]:
    """What is mounted, in order (proc_pid_mountinfo(5))."""
    entries = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        point = _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), fields[4])
        entries.append(
            _Entry(fields[2].decode(), os.fsdecode(point), after.split(b" ")[0].decode())
        )
    return entries


def _top(directory: str) -> _Entry | None:
    """What is mounted right on a directory, the last of several."""
    found = [entry for entry in _mounts() if entry.point == directory]
    return found[-1] if found else None


def check_directory(directory: str) -> str:
    """The absolute path of a directory that can be mounted on; MountError says why not."""
    path = os.path.realpath(directory)
    top = _top(path)
    ours = top is not None and top.type == TYPE
    try:
        if ours:
            os.statvfs(path)  # it is not remembered: whoever serves it must answer
        is_dir = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116
    except FileNotFoundError:
        raise MountError(f"{directory}: no such directory; make it first") from None
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise MountError(
                f"{directory}: a mount whose process has ended is there; 'umount {directory}' "
                "(or fusermount3 -u) removes it"
            ) from None
        raise
    if not is_dir:
        raise MountError(f"{directory}: is not a directory")
    if ours:
        raise _occupied(directory)
    return path


def _occupied(directory: str) -> MountError:
    return MountError(
        f"{directory}: stargz has something mounted there; unmount it first (umount, or "
        "fusermount3 -u)"
    )


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Of several processes that mount on a directory at once, one after the other; MountError for
    those that come after one that did."""
    fd = -1
    try:
        # A lock on what is below the mount, or (then it is refused) on the mount itself.
        with contextlib.suppress(PermissionError):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _lock(fd, directory)
        top = _top(directory)
        if top is not None and top.type == TYPE:
            raise _occupied(directory)
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def _lock(fd: int, directory: str) -> None:
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise MountError(
                    f"{directory}: another process holds a lock on it (flock); try again when it "
                    "is done"
                ) from None
            time.sleep(0.02)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            return  # a file system that has none
        else:
            return


class Attachment:
    """A mounted directory and the descriptor through which the kernel asks for its contents.

    `close` the descriptor once nobody reads it; whatever is still mounted then is dead.
    """

    def __init__(self, directory: str, options: Options) -> None:
        self.directory = directory
        self._helper: _Helper | None = None
        if not Path(_DEVICE).exists():
            raise MountError(
                f"{_DEVICE} is missing: the kernel's fuse module is not loaded (modprobe fuse), or "
                "this container was started without it (--device /dev/fuse)"
            )
        self._root = os.geteuid() == 0
        with _alone(directory):
            if self._root:
                self.fd: int = _mount_as_root(directory, options)
            else:
                self.fd, self._helper = _mount_as_user(directory, options)
            top = _top(directory)
        self._device = top.device if top is not None and top.type == TYPE else ""

    def raise_read_ahead(self) -> None:
        """Let the kernel read 1 MiB ahead; only root may, and only where /sys is writable."""
        if self._device:
            with contextlib.suppress(OSError):
                path = Path(f"/sys/class/bdi/{self._device}/read_ahead_kb")
                path.write_text(str(_READ_AHEAD_KB))

    def mounted(self) -> bool:
        """Whether it is still what is seen at its directory."""
        top = _top(self.directory)
        return top is not None and top.device == self._device

    def unmount(self) -> bool:
        """Unmount; where it is in use only from sight: then False, and it goes when the last user
        lets go. True also if it is not mounted any more."""
        if not self.mounted():
            return True
        try:
            _unmount(self.directory, lazily=False, root=self._root)
        except OSError as error:
            if not self.mounted():
                return True
            if error.errno != errno.EBUSY:
                raise
            _unmount(self.directory, lazily=True, root=self._root)
            return False
        return True

    def forget(self) -> None:
        """In a forked child: close the descriptors that it shares. The kernel ends what is mounted
        when the last one of a process that died is closed."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        if self._helper is not None:
            self._helper.watch.close()

    def close(self, *, used: bool = False) -> None:
        """Let go of the descriptor; one that is still `used` goes to /dev/null from now on."""
        fd, self.fd = self.fd, -1
        if fd >= 0 and used:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, fd, inheritable=False)
            os.close(null)
        elif fd >= 0:
            os.close(fd)
        if self._helper is not None:
            self._helper.close()


def _mount_as_root(directory: str, options: Options) -> int:
    try:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"{_DEVICE} cannot be opened: {error.strerror}") from None
    words = [f"fd={fd}", "rootmode=40000", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
    words.append("default_permissions")
    if options.allow_other:
        words.append("allow_other")
    flags = _RDONLY | (0 if options.dev else _NODEV) | (0 if options.suid else _NOSUID)
    name = os.fsencode(options.source)[:_NAME_MAX]
    try:
        engine.mount(name, os.fsencode(directory), TYPE.encode(), flags, ",".join(words).encode())
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EPERM:
            raise MountError(
                f"{directory}: mount is not permitted, although as root; in a container it needs "
                "CAP_SYS_ADMIN"
            ) from None
        if error.errno == errno.ENODEV:
            raise MountError("the kernel has no fuse module (modprobe fuse)") from None
        raise MountError(f"{directory}: cannot mount: {error.strerror}") from None
    return fd


def _mount_as_user(directory: str, options: Options) -> tuple[int, _Helper | None]:
    """fusermount3 is set-user-id root: it mounts, and sends the descriptor over a socket."""
    if options.dev or options.suid:
        raise MountError("--dev and --suid are for root alone")
    name = os.fsencode(options.source)[:_NAME_MAX]
    name = name.replace(b"\\", b"\\\\").replace(b",", b"\\,")
    words = [b"ro", b"nosuid", b"nodev", b"default_permissions", b"fsname=" + name]
    words += [b"subtype=stargz"]
    if options.allow_other:
        # auto_unmount: it stays, and unmounts should this process end without doing so. Without
        # allow_other it could not: as root it may not look at the mount of a user, and gives up.
        words += [b"allow_other", b"auto_unmount"]
    ours, theirs = socket.socketpair()
    try:
        with theirs, tempfile.TemporaryFile() as said:
            helper = subprocess.Popen(
                _fusermount([b"-o", b",".join(words)], directory),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "LC_ALL": "C", "_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
            )
            theirs.close()
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            if not fds:
                helper.wait()
                said.seek(0)
                raise MountError(f"{directory}: {_last_line(said.read(), helper.returncode)}")
        os.set_inheritable(fds[0], False)
        if options.allow_other:
            return fds[0], _Helper(helper, ours)
        helper.wait()
        ours.close()
        return fds[0], None
    except BaseException:
        ours.close()
        raise


@dataclass(frozen=True, slots=True)
class _Helper:
    """fusermount3, which waits for the other end of `watch` to be closed."""

    process: subprocess.Popen[bytes]
    watch: socket.socket

    def close(self) -> None:
        self.watch.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_HELPER_SECONDS)


def _fusermount(arguments: list[bytes], directory: str) -> list[bytes]:
    program = shutil.which("fusermount3")
    if program is None:
        raise MountError(
            "fusermount3 is not installed: users other than root need it to mount (Debian's "
            "package fuse3)"
        )
    return [os.fsencode(program), *arguments, b"--", os.fsencode(directory)]


def _last_line(said: bytes, code: int) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"fusermount3 ended with {code}"


def _unmount(directory: str, *, lazily: bool, root: bool) -> None:
    if root:
        engine.unmount(os.fsencode(directory), _NOFOLLOW | (_DETACH if lazily else 0))
    else:
        command = _fusermount([b"-u", b"-z"] if lazily else [b"-u"], directory)
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
        if done.returncode:
            text = _last_line(done.stderr, done.returncode)
            if "busy" in text:
                raise OSError(errno.EBUSY, text, directory)
            raise MountError(f"{directory}: {text}")
