"""From a command's SRC to an open layer, and from a path to an entry's name."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stargz.cli._errors import CommandError
from stargz.cli._output import log
from stargz.errors import UsageError

if TYPE_CHECKING:
    from stargz.layer import Layer
    from stargz.sources import Source

_STDIN = "standard input"
_MAX_LINKS = 40  # as Linux does before it says ELOOP


@contextmanager
def open_layer(args: argparse.Namespace) -> Iterator[Layer]:
    """The layer that SRC and the options of `add_layer_options` mean."""
    with source(args.src) as opened, open_source(opened, args) as layer:
        yield layer


def open_source(opened: Source, args: argparse.Namespace) -> Layer:
    """The layer in an open source, as the options say."""
    import stargz

    layer = stargz.open(
        opened,
        toc=args.toc,
        toc_digest=args.toc_digest,
        require_verified=args.require_verified,
        threads=args.threads,
    )
    trust = "as --toc-digest says" if args.toc_digest else "not checked against a manifest"
    log(args, f"{args.src}: {layer.kind}, TOC {layer.toc_digest}, {trust}")
    return layer


@contextmanager
def source(src: str) -> Iterator[str | io.FileIO]:
    """A path as it is; standard input as a file that can be read anywhere."""
    if src != "-":
        check_not_url(src)
        yield src
        return
    stdin = binary_stdin()
    if stat.S_ISREG(os.fstat(stdin.fileno()).st_mode) and stdin.tell() == 0:
        yield stdin
        return
    import shutil
    import tempfile

    try:
        # Unlinked from the start: nothing is left behind however the process ends.
        with tempfile.TemporaryFile(prefix="stargz-") as spool:
            shutil.copyfileobj(stdin, spool, 1 << 20)
            spool.flush()
            raw = cast(io.FileIO, getattr(spool, "raw"))  # noqa: B009
            raw.name = _STDIN  # what errors call it
            yield raw
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:
            error.filename = f"{tempfile.gettempdir()} (TMPDIR can name another place)"
        raise


def check_not_url(src: str) -> None:
    """Refuse what is plainly an address and not a file."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", src) and not Path(src).exists():
        raise CommandError(f"{src}: only local files can be read; download it, or pipe it to -")


def binary_stdin() -> io.FileIO:
    """Standard input for bytes, refused where a person would have to type them."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), _STDIN)
    if sys.stdin.isatty():
        raise UsageError("SRC is - and standard input is a terminal; pipe the data in")
    raw = io.FileIO(sys.stdin.fileno(), closefd=False)
    raw.name = _STDIN
    return raw


def resolve(layer: Layer, path: str, src: str, *, follow_last: bool = True) -> str:
    """The cleaned name that `path` leads to, through the layer's own symlinks.

    As within a chroot: absolute links start at the layer's root, and `..` stops there.
    """
    pending = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        name = "/".join([*done, part])
        if name not in layer:
            via = "" if name == path.strip("/") else f" (looked up as {name!r})"
            raise CommandError(
                f"{src}: no entry {path!r}{via}; 'stargz ls -R {src}' shows what there is"
            )
        found = layer.entry(name)
        if found.type != "symlink" or not (pending or follow_last):
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise CommandError(f"{src}: {path!r}: more than {_MAX_LINKS} symlinks on the way")
        if found.link_name.startswith("/"):
            done.clear()
        pending.extend(found.link_name.split("/")[::-1])
    return "/".join(done)
