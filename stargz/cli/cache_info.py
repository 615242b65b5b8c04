"""Where the disk cache is, and what it holds.

`bytes` counts whole blocks of 4 KiB. `cap` is what it may become: 10 GiB, or less where the disk
would be left with less than 5% or 1 GiB free. `oldest` is when what goes first was last used.
`indexes` are of ordinary tar.gz files and tars that were read; they take at most a sixteenth."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._errors import OK
from stargz.cli._output import print_json, print_table, size_text
from stargz.cli.cache import exists

EXAMPLE = """\
stargz cache info
stargz cache info --json --cache-dir /var/cache/layers"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz cache info`."""
    _options.add_cache_dir(parser)
    _options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Tell what the cache holds."""
    from dataclasses import asdict

    from stargz.cache import DEFAULT_SIZE, Cache, CacheInfo, default_path

    if exists(args):
        info = Cache(args.cache_dir).info()
    else:
        path = str(args.cache_dir or default_path())
        info = CacheInfo(path, 0, 0, DEFAULT_SIZE, None)
    if args.json:
        print_json(asdict(info))
        return OK
    from datetime import datetime

    oldest = "none"
    if info.oldest is not None:
        oldest = datetime.fromtimestamp(info.oldest).astimezone().isoformat(" ", "seconds")
    print_table(
        [
            ("path", info.path),
            ("chunks", f"{info.chunks:,}"),
            ("indexes", f"{info.indexes:,}"),
            ("bytes", size_text(info.bytes)),
            ("cap", size_text(info.cap)),
            ("oldest", oldest),
        ]
    )
    return OK
