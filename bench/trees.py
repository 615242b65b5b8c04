"""Trees that are packed again after a small change: what `pack --base` and `delta` are for.

debian   the root file system of `corpus.py` (200 MB, 6,000 files), or, where that is neither there
         nor can debootstrap make it, about as much of this Python's own files
small    50,000 files of compressible text, log-normal in size (median 2 KB, mean 3 KB)

`make` gives a tree as it is at first, `Pair.edit` changes it in place, as work does: of every
hundredth file the contents (a line put into the middle), and a few files are added, removed and
renamed (stargz/benchmark/trees.py). All of it depends on a seed alone.
"""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import corpus
from stargz.benchmark.trees import edit

SMALL_FILES = 50_000


@dataclass
class Pair:
    """A tree that is edited in place, and a copy of it as it was at first."""

    tree: Path
    first: Path

    def edit(self) -> int:
        """Make the second state; how many files are new or have new contents."""
        return edit(self.tree)


def make(name: str, folder: Path) -> Pair:
    """The tree NAME below an empty folder."""
    pair = Pair(folder / "tree", folder / "first")
    pair.tree.mkdir()
    _MAKERS[name](pair.tree)
    subprocess.run(["cp", "-a", pair.tree, pair.first], check=True)
    return pair


def _debian(root: Path) -> None:
    tar = corpus.folder() / "debian.tar"
    if tar.exists() or shutil.which("debootstrap"):
        tar = corpus.build("debian").with_suffix("")
        # Device nodes need root, and nobody's build context has any.
        command = ["tar", "xf", tar, "-C", root, "--exclude=./dev/*", "--no-same-owner"]
        subprocess.run(command, check=True)
    else:
        _python(root)


def _python(root: Path) -> None:
    """Copies of this Python's library, each with a line more in every file, to 200 MB."""
    library = Path(sysconfig.get_path("stdlib"))
    found = sorted(
        path
        for path in library.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "site-packages" not in path.parts
    )
    left = 200_000_000
    for number in itertools.count():
        for path in found:
            content = b"# copy %d\n" % number + path.read_bytes()
            target = root / f"copy-{number}" / path.relative_to(library)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            left -= len(content)
            if left < 0:
                return


def _small(root: Path) -> None:
    pick = random.Random(7)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(pick.choices(letters, k=pick.randint(2, 10))) for _ in range(6000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    text = pick.choices(words, weights, k=3_000_000)
    for at in range(0, len(text), 9):
        text[at] += "\n   "
    pool = " ".join(text).encode()
    for number in range(SMALL_FILES):
        folder = root / f"module-{number // 1000:02}" / f"part-{number // 25 % 40:02}"
        if number % 25 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        size = min(int(pick.lognormvariate(7.6, 0.9)), 200_000)
        start = pick.randrange(len(pool) - size)
        (folder / f"file-{number}.c").write_bytes(
            b"/* %d */\n" % number + pool[start : start + size]
        )


_MAKERS: dict[str, Callable[[Path], None]] = {"debian": _debian, "small": _small}
