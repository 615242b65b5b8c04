"""The same tar to all: the entries that we see, and GNU tar, bsdtar, Python and Go, by name, type,
size, target and contents.

150 tars; STARGZ_PROPERTY_ROUNDS=1000 for more of them, STARGZ_PROPERTY_SEED=N from the Nth on.
The rules, where readers do not agree:

- What is read without a word is what every reader sees that can read it, but for APART.
- What is read with a note is what GNU tar sees, but for APART and what the note says is left out.
- We refuse nothing that all others read alike.

A reader that fails says nothing. Python ends without a word at a header that it cannot read, so
what it has to see is only not another thing.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from headered_tars import headered_tar

import stargz
from stargz.errors import StargzError

COUNT = int(os.environ.get("STARGZ_PROPERTY_ROUNDS", "150"))
FIRST = int(os.environ.get("STARGZ_PROPERTY_SEED", "0"))
BATCH = 50

# Who sees another tar than we do, which we read, and whom we follow.
APART: dict[str, tuple[set[str], str]] = {
    "a PAX name and a GNU name": ({"go"}, "the PAX name counts, as for GNU tar, bsdtar and Python"),
    "mutated: lose": ({"go"}, "a PAX name and a GNU name may now be of one entry"),
    "mutated: move": ({"go"}, "the same"),
    "a sparse map without its end": ({"gnu"}, "it has the size that is stated, as for all others"),
    "a sparse map in PAX records before a GNU header": (
        {"gnu"},
        "the map counts, as for bsdtar and Python; GNU tar looks for it in the header",
    ),
    "a prefix in a GNU header": ({"gnu", "bsdtar"}, "it is part of the name, as for Go and Python"),
    "another magic, or a prefix where there was none": (
        {"gnu", "bsdtar", "python"},
        "a prefix counts with ustar's magic, GNU's before its places too, as for Go",
    ),
    "another type, with a slash behind the name": (
        {"gnu"},
        "a slash makes a directory of a type that nobody knows, too, as for bsdtar",
    ),
    "a global path": ({"gnu", "python"}, "it is of no entry, as for bsdtar"),
}
# An archive that ends behind an extended header has lost an entry, whoever does not mind.
STRICTER = {"mutated: cut", "mutated: lose", "mutated: move"}
LEFT_OUT = "left out"

KINDS = {
    **dict.fromkeys(("0", "\0", "7", "S"), "reg"),
    **{"1": "hardlink", "2": "symlink", "3": "char", "4": "block", "5": "dir", "6": "fifo"},
}


class Entry(NamedTuple):
    kind: str
    size: int = 0
    target: str = ""
    digest: str = ""


class Seen:
    """What a reader sees: entries by name, or why it sees no more."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.failed = False
        self.notes: tuple[str, ...] = ()

    def add(self, name: str, kind: str, size: int, target: str, digest: str) -> None:
        path = normal(name)
        if kind == "reg":
            self.entries[path] = Entry(kind, size, "", digest)
        else:
            self.entries[path] = Entry(kind, 0, target if kind.endswith("link") else "")

    def tree(self) -> dict[str, Entry]:
        """As a disk has it: hard links are what they lead to, and directories above are there."""
        found = {}
        for name, entry in self.entries.items():
            for _ in range(len(self.entries)):
                if entry.kind != "hardlink":
                    break
                entry = self.entries.get(normal(entry.target), Entry("nothing"))
            found[name] = entry
            while name := posixpath.dirname(name):
                found.setdefault(name, Entry("dir"))
        found.pop("", None)
        return found


def normal(name: str) -> str:
    return posixpath.normpath(f"/{name.lstrip('/')}").lstrip("/")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def of_layer(layer: stargz.Layer, seen: Seen) -> Seen:
    for name in filter(None, layer.names()):
        entry = layer.entry(name)
        digest = sha256(layer.read(name)) if entry.type == "reg" else ""
        seen.add(name, entry.type, entry.size, entry.link_name, digest)
    return seen


def ours(path: Path) -> Seen:
    seen = Seen()
    index = io.BytesIO()
    try:
        seen.notes = stargz.index(path, index, threads=1).warnings
        with stargz.open(path, index=index.getvalue(), cache=False, threads=1) as layer:
            return of_layer(layer, seen)
    except StargzError as error:
        assert str(error).isprintable()
        seen.failed = True
        return seen


def by_python(path: Path) -> Seen:
    seen = Seen()
    try:
        with tarfile.open(path, "r:") as tar:
            for one in tar:
                kind = "reg" if one.isreg() else KINDS.get(one.type.decode("latin-1"), "other")
                file = tar.extractfile(one) if kind == "reg" else None
                digest = sha256(file.read()) if file else ""
                seen.add(one.name, kind, one.size, one.linkname, digest)
    except Exception:
        seen.failed = True
    return seen


def by_extracting(program: str, path: Path, folder: Path) -> Seen:
    seen = Seen()
    folder.mkdir()
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    words = [program, "-xpf", path, "-C", folder]
    seen.failed = subprocess.run(words, capture_output=True, env=env).returncode != 0
    kinds = {
        **{stat.S_IFREG: "reg", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"},
        **{stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo"},
    }
    for above, folders, files in os.walk(folder):
        for name in folders + files:
            at = Path(above, name)
            info = at.lstat()
            kind = kinds[stat.S_IFMT(info.st_mode)]
            target = os.fspath(at.readlink()) if kind == "symlink" else ""
            digest = sha256(at.read_bytes()) if kind == "reg" else ""
            seen.add(os.path.relpath(at, folder), kind, info.st_size, target, digest)
    return seen


def by_go(listing: dict[str, Any]) -> Seen:
    seen = Seen()
    seen.failed = bool(listing["error"])
    for one in listing["entries"]:
        name, target = (os.fsdecode(bytes.fromhex(one[key])) for key in ("name", "target"))
        seen.add(name, KINDS.get(one["kind"], "other"), one["size"], target, one["sha256"])
    return seen


@pytest.mark.skipif(os.geteuid() != 0, reason="what is compared are devices, too")
@pytest.mark.parametrize("start", range(FIRST, FIRST + COUNT, BATCH))
def test_all_readers_agree(
    start: int,
    tmp_path: Path,
    tool: Callable[[str], str],
    others: Callable[[str, list[str]], list[Any]],
) -> None:
    paths = {}
    for seed in range(start, start + BATCH):
        paths[seed] = tmp_path / f"{seed}.tar"
        paths[seed].write_bytes(headered_tar(seed).tar)
    listings = others("tars", list(map(str, paths.values())))
    read = 0
    for (seed, path), listing in zip(paths.items(), listings, strict=True):
        traits = headered_tar(seed).traits
        mine = ours(path)
        seen = {
            "gnu": by_extracting(tool("tar"), path, tmp_path / f"{seed}-gnu"),
            "bsdtar": by_extracting(tool("bsdtar"), path, tmp_path / f"{seed}-bsdtar"),
            "python": by_python(path),
            "go": by_go(listing),
        }
        trees = {who: found.tree() for who, found in seen.items() if not found.failed}
        where = f"seed {seed} ({', '.join(sorted(traits))})"
        if mine.failed:
            alike = len(trees) == len(seen) and all(tree == trees["gnu"] for tree in trees.values())
            assert not alike or traits & STRICTER, f"{where}: only we refuse it"
            continue
        read += 1
        tree = mine.tree()
        apart = set[str]().union(*(APART[trait][0] for trait in traits & APART.keys()))
        for who, theirs in trees.items():
            if who in apart or (mine.notes and who != "gnu"):
                continue
            if any(LEFT_OUT in note for note in mine.notes):
                continue
            if who == "python" and traits:
                theirs = tree | theirs
            assert tree == theirs, f"{where}: not as {who}"
        converted(path, mine, where)
    assert read > BATCH // 2


def converted(path: Path, mine: Seen, where: str) -> None:
    """What can be converted is what is read where it is."""
    out = io.BytesIO()
    try:
        made = stargz.convert(path, out, threads=1)
    except StargzError as error:
        assert str(error).isprintable()
        return
    with stargz.open(out.getvalue(), threads=1) as layer:
        seen = of_layer(layer, Seen())
    tree = {name: entry for name, entry in seen.tree().items() if "landmark" not in name}
    assert tree == mine.tree() or made.warnings, f"{where}: not as it is converted"
