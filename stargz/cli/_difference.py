"""What `diff` and `image diff` share: the options, and how a difference is told."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stargz.cli._errors import FAILED, OK
from stargz.cli._output import print_json, shown

if TYPE_CHECKING:
    from stargz.patching.difference import Difference, Totals


def add_diff_options(parser: argparse.ArgumentParser) -> None:
    """--name-only and --exit-code."""
    parser.add_argument(
        "--name-only", action="store_true", help="the names that differ, and nothing else"
    )
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with 1 if anything differs, as git diff does"
    )


def tell(args: argparse.Namespace, difference: Difference) -> int:
    """Print what differs; the exit code."""
    if args.json:
        print_json(difference.to_json())
    else:
        for line in _lines(difference, args.name_only):
            print(shown(line))
        if not args.name_only:
            print(_summary(difference.totals))
    return FAILED if args.exit_code and difference else OK


def _lines(difference: Difference, name_only: bool) -> Iterator[str]:
    """A line for each name, in the order of the names."""
    found = [(name, "+ ", "") for name in difference.added]
    found += [(name, "- ", "") for name in difference.removed]
    for mark, changes in (("M", difference.changed), ("m", difference.metadata)):
        for change in changes:
            doubt = "?" if change.contents == "unknown" else ""
            fields = ", ".join(field for field in change.fields if field != "contents")
            found.append((change.name, f"{mark}{doubt} ", f" ({fields})" if fields else ""))
    for name, mark, fields in sorted(found):
        name = name or "."  # the root
        yield name if name_only else f"{mark}{name}{fields}"


def _summary(totals: Totals) -> str:
    doubt = f" ({totals.unknown:,} unknown)" if totals.unknown else ""
    return (
        f"{totals.added:,} added, {totals.removed:,} removed, {totals.changed:,} changed{doubt}, "
        f"{totals.metadata:,} metadata only, {totals.unchanged:,} unchanged; "
        f"to send: about {totals.bytes_to_send:,} bytes for {totals.contents_bytes:,} of contents"
    )
