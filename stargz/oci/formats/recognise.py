"""Whether a tar is an archive of images, which somebody may take for a layer."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import Literal

from stargz._engine.write import TarEntries, unwrap
from stargz.compressions import HEAD
from stargz.durable import release, write_all
from stargz.errors import StargzError
from stargz.oci.formats.packing import packing, unpacked

_ENOUGH = 1 << 20  # bytes of the tar whose names are looked at before it is unpacked
# What is in such archives, whoever wrote them: nothing of that kind begins a root directory's tar.
_HEX = r"(?:sha256[:/])?[0-9a-f]{12,64}(?:/.*|\.json|\.tar(?:\.\w+)?)?"
_MEMBER = re.compile(
    rf"(?:\./)*(?:(manifest\.json|repositories|oci-layout|blobs(?:/.*)?|[^/]+/layer\.tar|{_HEX})"
    r"|[\w.-]+\.(?:json|tar|tar\.\w+|tgz))?/?"
)


class _EnoughError(Exception):
    """No more of the tar is needed."""


def archive_kind(path: str) -> Literal["docker-archive", "oci-archive"] | None:
    """What an image in the file would be named by; None for any other file. A tar that has a
    manifest.json, say, of its own is none: what that names must be there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode) or not _may_be(fd):
                return None
        finally:
            release(fd)
        # Hardly any file comes this far: `convert` starts without what reads archives.
        from stargz.oci.formats.archive import Archive
        from stargz.oci.formats.layout import ArchivedLayout
        from stargz.oci.formats.tar_file import TarFile, open_file

        tar = TarFile(path, path, open_file(path, path)[0])
        with suppress(StargzError):
            return "docker-archive" if Archive(tar).has_images() else None
        return "oci-archive" if ArchivedLayout(tar).has_images() else None
    except (StargzError, OSError, ValueError):
        return None


def _may_be(fd: int) -> bool:
    """Whether the names at the beginning of the tar are those of an archive's members."""
    kind = packing(os.pread(fd, HEAD, 0))
    if kind is None:
        return _names_fit(fd, os.fstat(fd).st_size)
    head = os.memfd_create("stargz")
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        piece = os.pread(fd, min(size, _ENOUGH), at)
        at += len(piece)
        return piece

    def check(_done: int, _total: int) -> None:
        if os.fstat(head).st_size >= _ENOUGH:
            raise _EnoughError

    try:
        with suppress(StargzError, _EnoughError):
            if kind in ("xz", "bzip2"):
                write_all(head, unpacked(read, kind, "")(_ENOUGH))
            else:
                unwrap(read, head, source_name="", progress=check)
        return _names_fit(head, os.fstat(head).st_size)
    finally:
        os.close(head)


def _names_fit(fd: int, size: int) -> bool:
    """Whether all may be members, and one is what nothing else has: not only data in JSON, say,
    which would be unpacked for nothing."""
    telling = False
    with suppress(StargzError):  # cut off
        for entry in TarEntries(fd, size, "", any_type=True):
            found = _MEMBER.fullmatch(entry.name.decode("utf-8", "replace"))
            if not found:
                return False
            telling = telling or found[1] is not None
    return telling
