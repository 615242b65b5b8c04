"""The disk cache: what is in it, and making it smaller.

It holds chunks of layers that were read from servers and registries, by their digest, and the
indexes that were made of ordinary tar.gz files and tars. The folder is --cache-dir, else
$STARGZ_CACHE_DIR, else stargz in $XDG_CACHE_HOME or ~/.cache."""

from __future__ import annotations

import argparse
import re

EXAMPLE = """\
stargz cache info
stargz cache prune --size 1G"""

COMMANDS = {
    "info": "where the disk cache is, and what it holds",
    "prune": "empty the disk cache, or make it smaller",
}

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def age(text: str) -> float:
    """Seconds of '90s', '15m', '12h', '7d' or '2w'."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip().lower())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 12h or 7d")
    return float(int(found[1]) * _AGES[found[2]])


def exists(args: argparse.Namespace) -> bool:
    """Whether there is a cache: looking at one must not make it."""
    import os

    from stargz.cache import default_path

    return os.path.lexists(args.cache_dir or default_path())
