"""What commands print: JSON, tables, and numbers for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from stargz.cli._errors import say
from stargz.errors import printable

if TYPE_CHECKING:
    from stargz.conversion import ConvertResult
    from stargz.packing import PackResult


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


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """The lines of names and values in two columns."""
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    return [f"{name:{width}}  {printable(value)}".rstrip() for name, value in listed]


def print_table(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    for line in table(rows):
        print(line)


def print_result(
    args: argparse.Namespace,
    dst: str,
    result: Any,
    rows: Iterable[tuple[str, str]],
    said: str,
    warnings: Iterable[str] = (),
) -> None:
    """What was made: as JSON, or as a table unless it went to stdout or -q was given, and `said`
    with -v."""
    if args.json:
        print_json(result.to_json(), to_stderr=dst == "-")
        return
    for text in warnings:
        warn(args, text)
    if dst != "-" and not args.quiet:
        print_table(rows)
    log(args, said)


def layer_rows(
    result: ConvertResult | PackResult, dst: str, source: str = ""
) -> list[tuple[str, str]]:
    """What is told of a layer that was made; `source` is its size against what it was made of."""
    share = 100 * result.size / max(result.uncompressed_size, 1)
    size = ("size", f"{size_text(result.size)}, {share:.1f}% of the tar{source}")
    digests = [("layer", dst), ("digest", result.digest), ("diff_id", result.diff_id or "-")]
    if not result.toc_digest:
        return [*digests, ("format", "plain zstd, without a TOC"), size]
    return [
        *digests,
        ("toc_digest", result.toc_digest),
        size,
        ("entries", f"{result.entries:,} in {counted(result.chunks, 'chunk')}"),
    ]


def layer_speed(result: ConvertResult | PackResult) -> str:
    """What made it, and how fast."""
    return f"level {result.level} by {result.codec}, " + speed_of(
        result.uncompressed_size, result.seconds, "tar"
    )


def speed(size: int, seconds: float) -> str:
    """Bytes in seconds, as people compare them; "" where nothing was done."""
    return rate_text(size / max(seconds, 1e-3))


def speed_of(size: int, seconds: float, what: str) -> str:
    """The same with what the bytes are of."""
    rate = speed(size, seconds)
    return f"{rate} of {what}" if rate else f"no bytes of {what}"


def rate_text(rate: float) -> str:
    """Bytes a second; "" for none."""
    if rate < 1:
        return ""
    if rate < 1e6:
        return f"{max(rate / 1e3, 0.1):,.1f} kB/s"
    return f"{rate / 1e6:,.{1 if rate < 1e7 else 0}f} MB/s"


def shown(name: str) -> str:
    """A name as listings print it: escaped only where a terminal would act on it."""
    return printable(name) if sys.stdout.isatty() else name


def line_printer(*, nul: bool = False) -> Callable[[str], object]:
    """What prints lines of names by the hundred thousand: as `shown` has them, or with `nul` as
    they are, each ended by a NUL."""
    if nul:
        sys.stdout.flush()
        put = sys.stdout.buffer.write
        return lambda text: put(text.encode("utf-8", "surrogateescape") + b"\0")
    write = sys.stdout.write
    if sys.stdout.isatty():
        return lambda text: write(f"{printable(text)}\n")
    return lambda text: write(f"{text}\n")


def human_size(count: int) -> str:
    """Bytes as `ls -h` prints them: powers of 1024, rounded up."""
    if count < 1024:
        return str(count)
    for power, unit in enumerate("KMGTPE", 1):
        scale = 1 << 10 * power
        tenths = -(-count * 10 // scale)
        if tenths < 100:
            return f"{tenths // 10}.{tenths % 10}{unit}"
        whole = -(-count // scale)
        if whole < 1024 or unit == "E":
            break
    return f"{whole}{unit}"


def log(args: argparse.Namespace, text: str) -> None:
    """A line on stderr with -v."""
    if args.log_level in ("debug", "info"):
        say(text)


def warn(args: argparse.Namespace, text: str) -> None:
    """A line on stderr without -q."""
    if args.log_level != "error":
        say(f"warning: {text}")


def relay(args: argparse.Namespace) -> None:
    """From now on, tell what the package logs."""
    from stargz.cli import _logs

    _logs.relay(args)


def counted(number: int, what: str) -> str:
    """A number of things: "1 entry", "2,000 entries"."""
    if number == 1:
        return f"1 {what}"
    if what.endswith("y"):
        return f"{number:,} {what[:-1]}ies"
    return f"{number:,} {what}es" if what.endswith("x") else f"{number:,} {what}s"


def size_text(count: int) -> str:
    """Bytes, exactly and (from 10 KiB on) in a unit that is easy to read."""
    exact = counted(count, "byte")
    if count < 10 << 10:
        return exact
    power = min((count.bit_length() - 1) // 10, 4)
    return f"{exact} ({count / (1 << 10 * power):.1f} {' KMGT'[power]}iB)"
