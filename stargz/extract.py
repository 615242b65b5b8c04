"""A layer's files, written below a directory: in parallel, and never outside of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from stargz._engine import extract as _engine
from stargz._engine.reader import Blob
from stargz._engine.toc import TOC
from stargz.errors import UsageError
from stargz.options import thread_count

# Why things are left out, by the engine's names for the counts.
SKIPPED = {
    "devices": "device nodes",
    "setid": "set-uid and set-gid bits",
    "xattrs": "xattrs outside of user.*",
    "xattrs-failed": "xattrs refused by the file system",
}


@dataclass(frozen=True)
class ExtractResult:
    """What an extraction wrote, and what it left out."""

    files: int
    """Regular files written; a hard link to one of them is not counted."""
    bytes: int
    """Bytes of contents in them."""
    unverified: int = 0
    """Files of whose contents the TOC has no digest: only CRCs were checked."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many of what were left out, by the words of SKIPPED; zeros are not listed."""


class Tree(Protocol):
    """What extraction needs to know of an open layer."""

    @property
    def toc(self) -> TOC: ...
    @property
    def blob(self) -> Blob: ...
    @property
    def data_end(self) -> int:
        """Blob offset at which the members of chunks end."""


def extract(
    layer: Tree,
    path: str | os.PathLike[str],
    members: Iterable[str | bytes] | None = None,
    *,
    threads: int | None = None,
    same_owner: bool | None = None,
    devices: bool = False,
    setid: bool = False,
    xattrs: Literal["none", "user", "all"] = "user",
    verify: bool = True,
    progress: Callable[[int, int], object] | None = None,
) -> ExtractResult:
    """Write a layer, or some of its members, below the directory `path`.

    `path` is made if it is missing. `members` are names as in the TOC; that of a directory
    stands for all below it; one that is not there raises EntryNotFoundError, before
    anything is written. Landmarks and the TOC's own entry are left out unless they are named.
    Whiteouts (`.wh.*`) are files like any other.

    What is there already is replaced, directories are kept. No symlink is followed and
    nothing is written outside of `path`, even while other processes change it: a link in
    the way is removed. A file gets its name once it is complete and its digest was checked
    (`verify`); when anything fails, or on KeyboardInterrupt, those that are not are gone.

    Modes and times are the archive's, whatever the umask, less the set-id bits unless
    `setid`. `same_owner` sets numeric owners (default: when run as root). `devices` makes
    device nodes. `xattrs` is "user" (user.*, without overlay's), "all" or "none".

    `threads` is how many threads to use (default: one for each core). `progress(done, total)`
    is called some tens of times a second with bytes of contents, in the calling thread; an
    exception that it raises ends the extraction.

    Raises ExtractError for entries that cannot be written safely, DigestError for contents
    that do not match, FormatError for damaged members, OSError with the name of the file
    for what the file system refuses (a full disk, a directory with files in it where a file
    should go).
    """
    if isinstance(members, str | bytes):
        raise UsageError("members is a list of names, not one name")
    if xattrs not in ("none", "user", "all"):
        raise UsageError(f"xattrs is 'none', 'user' or 'all', not {xattrs!r}")
    threads = thread_count(threads)
    if same_owner is None:
        same_owner = os.geteuid() == 0
    names = None
    if members is not None:
        names = [m.encode("utf-8", "surrogateescape") if isinstance(m, str) else m for m in members]
        if not names:
            return ExtractResult(0, 0)
    Path(path).mkdir(parents=True, exist_ok=True)
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        counts = _engine.extract(
            layer.toc,
            layer.blob,
            layer.data_end,
            root,
            names,
            threads=threads,
            verify=verify,
            same_owner=same_owner,
            devices=devices,
            setid=setid,
            xattrs=xattrs,
            progress=progress,
        )
    finally:
        os.close(root)
    return ExtractResult(
        counts["files"],
        counts["bytes"],
        counts["unverified"],
        {SKIPPED[key]: counts[key] for key in SKIPPED if counts[key]},
    )
