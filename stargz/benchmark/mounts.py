"""Mounts of ours and of others, each made anew for every run, and what is done with them."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import tempfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from stargz.benchmark import children, peers
from stargz.benchmark.measuring import UnableError

RANDOM_READS = 2000
RANDOM_SIZE = 4096
SMALL = 64 << 10
_BLOCK = 1 << 20


# --- what is mounted --------------------------------------------------------------------------


class Mounted(ABC):
    """Something that is mounted anew before each run, so that nothing of it is cached by the
    kernel. A context manager: it is taken down at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.unmount()

    def again(self) -> None:
        """Mount it, after taking down what is there."""
        self.unmount()
        self.mount()

    @abstractmethod
    def mount(self) -> None:
        """Mount it, and return when it can be read."""

    @abstractmethod
    def unmount(self) -> None:
        """Take it down, if it is up."""


class Directory(Mounted):
    """A directory as it is, for comparison."""

    def mount(self) -> None:
        """Nothing is to be done."""

    def unmount(self) -> None:
        """Nor here."""


class Ours(Mounted):
    """A layer, mounted by this process; an ordinary tar.gz by its index. Whiteouts are shown as
    the files that they are in the tar."""

    def __init__(self, layer: Path, directory: Path, index: Path | None = None) -> None:
        super().__init__(directory)
        self._layer = layer
        self._index = index
        self._stack = ExitStack()

    def mount(self) -> None:
        """See Mounted."""
        from stargz.mount import MountError, mount
        from stargz.opening import open as open_layer

        with ExitStack() as stack:
            layer = stack.enter_context(open_layer(self._layer, index=self._index))
            try:
                mounted = mount(layer, self.directory, whiteouts="raw")
            except MountError as error:  # what the machine lacks or refuses
                raise UnableError(str(error)) from None
            stack.callback(mounted.unmount)
            self._stack = stack.pop_all()

    def unmount(self) -> None:
        """See Mounted."""
        self._stack.close()


class Program(Mounted):
    """What another program mounts that stays in the foreground as long as it serves."""

    def __init__(self, directory: Path, *command: object) -> None:
        super().__init__(directory)
        self._command = command
        self._stack = ExitStack()

    def mount(self) -> None:
        """See Mounted."""
        device = self.directory.stat().st_dev
        log = Path(f"{self.directory}.log")
        with ExitStack() as stack:
            stack.callback(unmount, self.directory)  # what its program has left
            stack.enter_context(
                children.served(
                    *self._command,
                    ready=lambda: self.directory.stat().st_dev != device,
                    log=log,
                )
            )
            self._stack = stack.pop_all()

    def unmount(self) -> None:
        """See Mounted."""
        self._stack.close()


def squashfuse(image: Path, directory: Path) -> Program:
    """A squashfs image, by squashfuse."""
    return Program(directory, "squashfuse", "-f", image, directory)


def ratarmount(src: Path, index: Path, directory: Path) -> Program:
    """A tar.gz by ratarmount, with the index that it made before (or makes now)."""
    words = peers.ratarmount("-f", "--index-file", index, src, directory)
    return Program(directory, *words)


def ratarmount_first(src: Path, index: Path | None = None) -> None:
    """Mount it where it has no index yet, and take it down again."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        with ratarmount(src, index or Path(folder, "index.sqlite"), root) as mounted:
            mounted.mount()


def unmount(directory: Path) -> None:
    """Take down whatever is mounted there; nothing, as a rule."""
    while os.path.ismount(directory):
        for words in (["umount"], ["fusermount3", "-u"], ["fusermount", "-u"], ["umount", "-l"]):
            if shutil.which(words[0]):
                done = subprocess.run([*words, directory], capture_output=True, check=False)
                if not done.returncode:
                    break
        else:
            return


def unable() -> str:
    """Why nothing can be mounted here; "" where it can."""
    if not Path("/dev/fuse").exists():
        return (
            "/dev/fuse is missing: this machine has no FUSE (modprobe fuse; in a container, "
            "--device /dev/fuse)"
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "this user may not open /dev/fuse (root may, and so may who is in its group)"
    if os.geteuid() and not (shutil.which("fusermount3") or shutil.which("fusermount")):
        return "users other than root need fusermount3 to mount (apt-get install fuse3)"
    return ""


# --- what is done with them -------------------------------------------------------------------


def find(directory: Path) -> int:
    """The names in it, by find."""
    return children.output("find", directory).count(b"\n")


def read_all(directory: Path) -> int:
    """Every file, by tar: how many bytes its tar has. (Through a pipe, and not to /dev/null, which
    tar knows, and then reads nothing.)"""
    return children.stream("tar", "-C", directory, "-cf", "-", ".")


class Uses:
    """What is done with the files of a tree in whichever way that is mounted. Each returns what
    depends on everything that it has read."""

    def __init__(self, tree: Path, reads: int = RANDOM_READS) -> None:
        chance = random.Random(1)
        self.names: list[str] = []  # of everything
        regular: list[tuple[str, int]] = []
        for folder, folders, files in os.walk(tree):
            folders.sort()
            for name in sorted([*folders, *files]):
                path = Path(folder, name)
                found = path.lstat()
                self.names.append(str(path.relative_to(tree)))
                if stat.S_ISREG(found.st_mode) and found.st_size:
                    regular.append((self.names[-1], found.st_size))
        self.largest = max(regular, key=lambda one: one[1], default=None)
        small = [name for name, size in regular if size <= SMALL]
        self.small = chance.sample(small, min(len(small), reads))
        picked = chance.choices(regular, k=reads) if regular else []
        self.places = [
            (name, chance.randrange(max(1, size - RANDOM_SIZE))) for name, size in picked
        ]

    def stat(self, directory: Path) -> int:
        """Look at everything."""
        total = 0
        for name in self.names:
            found = os.lstat(f"{directory}/{name}")
            if stat.S_ISREG(found.st_mode):
                total += found.st_size
        return total

    def sequential(self, directory: Path) -> int:
        """The largest file, from its beginning to its end."""
        assert self.largest is not None
        return _read(f"{directory}/{self.largest[0]}", 0, -1)

    def random(self, directory: Path) -> int:
        """Some of many files, at random places, four KiB each."""
        return _sum([_read(f"{directory}/{n}", at, RANDOM_SIZE) for n, at in self.places])

    def small_files(self, directory: Path) -> int:
        """Many small files, in no order."""
        return _sum([_read(f"{directory}/{name}", 0, -1) for name in self.small])


def _read(path: str, offset: int, size: int) -> int:
    """The CRC of so many bytes of a file: of all where `size` is negative."""
    crc = 0
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        file.seek(offset)
        if size >= 0:
            return zlib.crc32(file.read(size))
        while data := file.read(_BLOCK):
            crc = zlib.crc32(data, crc)
    return crc


def _sum(values: Sequence[int]) -> int:
    return zlib.crc32(b"".join(value.to_bytes(4, "big") for value in values))
