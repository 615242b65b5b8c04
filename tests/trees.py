"""What a directory holds, in a form that can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any


def snapshot(root: Path, *, owners: bool = True, root_itself: bool = True) -> dict[str, Any]:
    """Every name below `root` with all that extraction sets, and which names are one file."""
    names = [""] if root_itself else []
    for folder, directories, files in os.walk(root):
        names += [os.path.relpath(Path(folder, n), root) for n in directories + files]
    found: dict[str, Any] = {}
    inodes: dict[tuple[int, int], list[str]] = {}
    for name in sorted(names):
        path = root / name
        info = path.lstat()
        body: Any = None
        if stat.S_ISREG(info.st_mode):
            body = info.st_size, hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            body = os.readlink(path)  # noqa: PTH115 - bytes that are not UTF-8
        elif not stat.S_ISDIR(info.st_mode):
            body = info.st_rdev
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in sorted(os.listxattr(path, follow_symlinks=False))
        }
        owner = (info.st_uid, info.st_gid) if owners else None
        found[name] = (stat.filemode(info.st_mode), owner, int(info.st_mtime), body, xattrs)
        if not stat.S_ISDIR(info.st_mode):
            inodes.setdefault((info.st_dev, info.st_ino), []).append(name)
    found["one file"] = sorted(names for names in inodes.values() if len(names) > 1)
    return found


def leftovers(root: Path) -> list[str]:
    """Temporary names of an extraction that did not clean up. Paths may be of any length."""
    return [
        name
        for _, directories, files, _ in os.fwalk(root)
        for name in directories + files
        if len(name) == 24 and name.startswith(".stargz-")
    ]
