"""What commands print: JSON, tables, and numbers for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from stargz.cli._errors import printable, say


def print_json(value: object, *, to_stderr: bool = False) -> None:
    """One JSON value; on stderr where the data itself goes to stdout."""
    import json

    stream = sys.stderr if to_stderr else sys.stdout
    if stream is not None:
        print(json.dumps(value, indent=1), file=stream)


def print_json_list(values: Iterable[object]) -> None:
    """A JSON list, written as its items come: a layer may have a million of them."""
    import json

    encode = json.JSONEncoder(ensure_ascii=True).encode
    write = sys.stdout.write
    before = "[\n"
    for value in values:
        write(before + encode(value))
        before = ",\n"
    write("[]\n" if before == "[\n" else "\n]\n")


def print_table(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    for name, value in listed:
        print(f"{name:{width}}  {printable(value)}".rstrip())


def shown(name: str) -> str:
    """A name as listings print it: escaped only where a terminal would act on it."""
    return printable(name) if sys.stdout.isatty() else name


def log(args: argparse.Namespace, text: str) -> None:
    """A line on stderr with -v."""
    if args.verbose:
        say(text)


def warn(args: argparse.Namespace, text: str) -> None:
    """A line on stderr without -q."""
    if not args.quiet:
        say(f"warning: {text}")


def size_text(count: int) -> str:
    """Bytes, exactly and (from 10 KiB on) in a unit that is easy to read."""
    exact = f"{count:,} bytes"
    if count < 10 << 10:
        return exact
    power = min((count.bit_length() - 1) // 10, 4)
    return f"{exact} ({count / (1 << 10 * power):.1f} {' KMGT'[power]}iB)"
