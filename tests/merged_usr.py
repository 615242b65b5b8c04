"""A layer of the shape of Debian's: /usr is merged, so that /bin, /lib and /sbin are symlinks."""

from __future__ import annotations

import io
import tarfile

FILES = {
    "etc/os-release": b"NAME=some\n",
    "etc/motd": b"hello\n",
    "usr/bin/bash": b"bash" * 5000,
    "usr/bin/dash": b"dash" * 100,
    "usr/lib/os-release": b"NAME=merged\n",
    "usr/lib/x86_64-linux-gnu/libc.so.6": b"libc" * 3000,
    "usr/lib/x86_64-linux-gnu/locale/de/x.mo": b"de",
    "usr/sbin/ldconfig": b"ldconfig",
    "usr/share/locale/fr/x.mo": b"fr",
}
LINKS = {
    "bin": "usr/bin",
    "etc/alternatives/sh": "/bin/dash",
    "etc/mtab": "../proc/mounts",
    "lib": "usr/lib",
    "sbin": "usr/sbin",
    "usr/bin/sh": "dash",
    "usr/share/here": ".",
}


def merged_usr() -> bytes:
    """The tar, in the order in which debootstrap and docker have it."""
    names = {**FILES, **LINKS}
    for name in list(names):
        while name := name.rpartition("/")[0]:
            names.setdefault(name, b"/")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in sorted(names.items()):
            info = tarfile.TarInfo(f"./{name}")
            info.mode = 0o755
            if isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
            elif what == b"/":
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(what)
            tar.addfile(
                info, io.BytesIO(what) if info.isreg() and isinstance(what, bytes) else None
            )
    return out.getvalue()
