"""Whatever convert accepts, everything else does, and all see the same tree: open, verify, extract,
GNU tar and the reference implementation. Or a warning says that they do not.

500 tars; STARGZ_PROPERTY_ROUNDS=20000 for more of them, STARGZ_PROPERTY_SEED=N from the Nth on.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutated_tars import mutated_tar

import stargz
from stargz.errors import TarError

BATCH = 100
COUNT = int(os.environ.get("STARGZ_PROPERTY_ROUNDS", "500"))
FIRST = int(os.environ.get("STARGZ_PROPERTY_SEED", "0"))
OURS = {".no.prefetch.landmark", "stargz.index.json"}
# Tars that GNU tar takes otherwise, or not at all, and of which that is said.
TOLD = ("below symlinks", "left out", " .. in the path")


def disk(root: Path) -> dict[str, Any]:
    """Every path, what it is, and which others are the same file."""
    found: dict[str, Any] = {}
    inodes: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = Path(folder, name)
            at, info = str(path.relative_to(root)), path.lstat()
            if at in OURS or stat.S_ISCHR(info.st_mode):
                continue
            body: Any = None
            if path.is_symlink():
                body = str(path.readlink())
            elif path.is_file():
                body = hashlib.sha256(path.read_bytes()).hexdigest(), info.st_mode & 0o777
            found[at] = (stat.S_IFMT(info.st_mode), body, info.st_ino)
            if not path.is_dir() or path.is_symlink():
                inodes[info.st_ino] = min(inodes.get(info.st_ino, at), at)
    return {at: (kind, body, inodes.get(ino)) for at, (kind, body, ino) in found.items()}


def toc(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The kinds of all names as the reference tells them, hard links as what they are, and the
    digests of files."""
    kinds, files = {}, {}
    with stargz.open(path) as layer:
        result = layer.verify()
        assert result.ok, result.errors
        for name in layer.names():
            entry = layer.entry(name)
            kinds[name] = entry.type
            if entry.type == "reg":
                files[name] = hashlib.sha256(layer.read(name)).hexdigest()
    return kinds, files


def is_put_off(tar: bytes) -> bool:
    """GNU tar makes last what might leave the root: symlinks, and hard links to those or by a name
    with .. in it. Until then an empty file stands there. An entry that replaces one may get its
    inode, and is then taken for it; and a hard link leads to what has its target's name by then."""
    names: list[str] = []
    leaves = False
    with tarfile.open(fileobj=io.BytesIO(tar + bytes(1024))) as archive:
        for member in archive:
            names.append(posixpath.normpath("/" + member.name.lstrip("/")))
            up = ".." in member.linkname.split("/")
            leaves |= up or (member.issym() and member.linkname.startswith("/"))
    return leaves and len(set(names)) < len(names)


@pytest.mark.parametrize("start", range(FIRST, FIRST + COUNT, BATCH))
def test_whatever_convert_accepts(
    tmp_path: Path, start: int, reference: Callable[..., Any], tool: Callable[[str], str]
) -> None:
    accepted: dict[str, tuple[int, dict[str, str], dict[str, str]]] = {}
    for seed in range(start, start + BATCH):
        blob = tmp_path / f"{seed}"
        try:
            made = stargz.convert(mutated_tar(seed), blob, threads=1)
        except TarError as error:
            assert "\n" not in str(error)
            continue
        accepted[str(blob)] = (seed, *toc(blob))
        for where in ("ours", "theirs"):
            shutil.rmtree(tmp_path / where, ignore_errors=True)
            (tmp_path / where).mkdir()
        with stargz.open(blob) as layer:
            layer.extractall(tmp_path / "ours")
        if any(told in warning for warning in made.warnings for told in TOLD):
            continue
        # Devices are not extracted, nor the directories that they are in.
        if "char" in accepted[str(blob)][1].values() or is_put_off(mutated_tar(seed)):
            continue
        done = subprocess.run(
            [tool("tar"), "-xpzf", blob, "-C", tmp_path / "theirs", "--no-same-owner"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (seed, done.stderr)
        assert disk(tmp_path / "ours") == disk(tmp_path / "theirs"), seed
    assert len(accepted) > BATCH // 16
    for blob_name, seen in reference("each", *accepted).items():
        seed, kinds, files = accepted[blob_name]
        assert "error" not in seen, (seed, seen)
        named = {name: seen["kinds"].get(name) for name in kinds if name}
        for name, kind in kinds.items():
            if name and kind != "hardlink":
                assert named[name] == kind, (seed, name)
        assert all(seen["files"][name] == digest for name, digest in files.items()), seed
