"""A small root tree, the same on every machine: the examples of README and of docs/ are about this
one."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tarfile

_MTIME = 1704067200  # 2024-01-01
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\n"

Content = bytes | str | None
"""What a file has, where a symlink leads, or nothing: a directory."""


def tree() -> dict[str, Content]:
    """Name to content, in the order of the tar."""
    library = hashlib.shake_128(b"libdemo").hexdigest(1 << 20).encode()  # half as large compressed
    return {
        "bin": "usr/bin",
        "etc": None,
        "etc/passwd": _PASSWD,
        "lib": "usr/lib",
        "usr": None,
        "usr/bin": None,
        "usr/bin/tool": b"#!/bin/sh\n" * 1000,
        "usr/lib": None,
        "usr/lib/libdemo.so": "libdemo.so.1",
        "usr/lib/libdemo.so.1": library,
        "usr/share": None,
        "usr/share/table.csv": b"name,bytes\nlayer,123\n",
    }


def write_tree(tar: tarfile.TarFile) -> list[str]:
    """Add the tree to a tar; returns the names of the regular files, in order."""
    import tarfile

    names = []
    for name, content in tree().items():
        info = tarfile.TarInfo(name)
        info.mtime = _MTIME
        info.mode = 0o755 if content is None or "/bin/" in name else 0o644
        if content is None:
            info.type = tarfile.DIRTYPE
        elif isinstance(content, str):
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, content, 0o777
        else:
            info.size = len(content)
            names.append(name)
        tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return names
