"""Directories to measure with: where they are made, how one becomes a tar, how work changes one,
and what is in its files."""

from __future__ import annotations

import os
import random
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stargz.benchmark.measuring import UnableError

ROOM = 4 << 30  # bytes: trees, their copies, layers and tars of one benchmark
SETTLED = 1.5  # seconds
UNCHANGEABLE = "no file in it has contents that could be changed"
FEW = 5  # files that an edit adds, removes and renames, each


def memory(room: int = ROOM) -> Path | None:
    """tmpfs, if it has the room; None is the usual temporary folder, as where TMPDIR is set."""
    folder = Path("/dev/shm")
    if "TMPDIR" in os.environ or not folder.is_dir() or not os.access(folder, os.W_OK):
        return None
    return folder if shutil.disk_usage(folder).free > room else None


@contextmanager
def scratch(room: int = ROOM) -> Iterator[Path]:
    """A new directory there, which is gone at the end whatever is in it."""
    folder = Path(tempfile.mkdtemp(prefix="stargz-bench-", dir=memory(room)))
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Take away a directory, also where directories in it may not be written to."""

    def retry(_: Callable[..., Any], path: str, __: Any) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)  # noqa: PTH101, PTH120
            if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
                os.chmod(path, 0o700)  # noqa: PTH101
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)  # noqa: PTH108

    shutil.rmtree(folder, onerror=retry)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def gone(folder: Path) -> None:
    """Take away a directory, if it is there."""
    if folder.exists():
        remove(folder)


def empty(folder: Path) -> None:
    """Have a directory there that has nothing in it."""
    gone(folder)
    folder.mkdir()


def copy(tree: Path, target: Path) -> None:
    """A copy of a directory that can be changed: owners and links within are as they were where
    this user may have it so."""
    shutil.copytree(tree, target, symlinks=True, copy_function=_copy, ignore=_special)
    for folder, folders, _ in os.walk(target):
        for name in (".", *folders):
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o700)


def _copy(src: str, dst: str) -> None:
    shutil.copy2(src, dst, follow_symlinks=False)


def _special(folder: str, names: list[str]) -> list[str]:
    """Devices, pipes and sockets, which nobody's build context has."""
    kinds = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
    return [name for name in names if stat.S_IFMT(Path(folder, name).lstat().st_mode) not in kinds]


def pack_tree(tree: Path, out: Path) -> None:
    """A tar of a directory, the same for the same one: names sorted, owners as numbers."""
    import tarfile

    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(path: Path, name: str) -> None:
            info = tar.gettarinfo(path, name)
            if info is None:
                return  # a socket
            info.uname = info.gname = ""
            if info.isreg():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
            if info.isdir():
                for below in sorted(os.scandir(path), key=lambda entry: entry.name):
                    add(Path(below.path), f"{name}/{below.name}" if name != "." else below.name)

        add(tree, ".")


def settle() -> None:
    """Wait until files that were changed just now are no longer read again by the next pack, which
    cannot know whether they change once more within a tick of the file system's clock."""
    time.sleep(SETTLED)


def edit(tree: Path) -> int:
    """Change a tree in place, as work does: of every hundredth file the contents (a line put into
    the middle), and a few files are added, removed and renamed. What it does depends on the tree
    alone. How many files are new or have new contents."""
    pick = random.Random(5)
    files = sorted(p for p in tree.rglob("*") if p.is_file() and not p.is_symlink())
    files = [path for path in files if (found := path.stat()).st_size and found.st_nlink == 1]
    if not files:
        raise UnableError(UNCHANGEABLE)
    few = min(FEW, len(files) // 10)
    chosen = pick.sample(files, max(1, len(files) // 100) + 3 * few)
    for path in chosen[3 * few :]:
        content = path.read_bytes()
        middle = len(content) // 2
        line = f"a line that was not there before, number {pick.randrange(10**9)}\n"
        path.write_bytes(content[:middle] + line.encode() + content[middle:])
    for number, path in enumerate(chosen[:few]):
        path.with_name(f"added-{number}").write_bytes(path.read_bytes()[::-1])
    for path in chosen[few : 2 * few]:
        path.unlink()
    for path in chosen[2 * few : 3 * few]:
        path.rename(path.with_name(f"{path.name}-renamed"))
    return len(chosen) - 2 * few
