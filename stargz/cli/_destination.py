"""DST: what a command writes a layer to, and how it tells that it did."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stargz.cli import _stdout
from stargz.cli._errors import CommandError
from stargz.errors import UsageError


@contextmanager
def writable(dst: str, src: str, force: bool) -> Iterator[str | BinaryIO]:
    """What the result is written to, checked before any work starts."""
    if dst == "-":
        if sys.stdout.isatty():
            raise UsageError("DST is - and standard output is a terminal; redirect it or name DST")
        yield _stdout.binary()
        return
    try:
        found = os.stat(dst)  # noqa: PTH116
    except FileNotFoundError:
        yield dst
        return
    if stat.S_ISDIR(found.st_mode):
        raise CommandError(f"{dst}: is a directory; name the file to write")
    if not stat.S_ISREG(found.st_mode):
        yield dst  # a pipe or a device: written to, never replaced
        return
    if src != "-" and Path(src).exists() and Path(src).samefile(dst):
        raise CommandError(f"{dst}: SRC and DST are the same file; name another DST")
    if not force:
        raise CommandError(f"{dst}: already exists; --force replaces it")
    yield dst
