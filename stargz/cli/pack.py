"""Pack a directory into a seekable layer, and again at the cost of what changed.

The same tree gives the same bytes. With --base PREVIOUS what has not changed is copied from the
layer that was packed before, by the manifest that is kept beside it; the bytes are the same as
without. DST appears complete or not at all."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from stargz.cli import _options
from stargz.cli._destination import add_destination, needed, writable
from stargz.cli._errors import OK
from stargz.cli._kinds import check_directory
from stargz.cli._output import counted, layer_rows, layer_speed, print_result, size_text
from stargz.cli._progress import Progress
from stargz.errors import UsageError

if TYPE_CHECKING:
    from stargz.packing import PackResult

EXAMPLE = """\
stargz pack project first.stargz --ignore-file project/.dockerignore
stargz pack project next.stargz --ignore-file project/.dockerignore --base first.stargz
SOURCE_DATE_EPOCH=0 stargz pack build - | ssh host 'cat > layer.stargz'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz pack`."""
    parser.add_argument("src", metavar="DIR", help="the directory to pack")
    add_destination(parser, "the layer to write, or - for standard output")
    parser.add_argument(
        "--base",
        metavar="PREVIOUS",
        help="copy what has not changed from this layer, packed earlier at the same level and "
        "chunk size (may be DST itself)",
    )
    parser.add_argument(
        "--checksum",
        action="store_true",
        help="read every file to tell what has changed, instead of trusting sizes, times and "
        "inodes: for fresh checkouts and copies",
    )
    parser.add_argument(
        "--ignore-file",
        metavar="FILE",
        help="leave out what this file says, in the syntax of .dockerignore",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        help="where to keep what --base needs next time (default: DST.manifest)",
    )
    parser.add_argument(
        "--base-manifest",
        metavar="FILE",
        help="where that of PREVIOUS is (default: PREVIOUS.manifest)",
    )
    parser.add_argument(
        "--level",
        type=_options.level,
        default=1,
        metavar="N|reuse",
        help="1 and 2 are ISA-L's; 3 to 12 are smaller and slower and need libdeflate (default: "
        "1; and so is reuse, as of all that is no gzip); -6 is the same as --level 6",
    )
    parser.add_argument(
        "--chunk-size",
        type=_options.size,
        default=4 << 20,
        metavar="SIZE",
        help="files longer than this are cut into chunks that are read alone (default: 4M)",
    )
    parser.add_argument(
        "--owner", type=_owner, metavar="UID:GID", help="the owner of everything, in numbers"
    )
    parser.add_argument(
        "--mtime",
        type=_seconds,
        metavar="SECONDS",
        help="the time of everything, since the epoch (SOURCE_DATE_EPOCH in the environment only "
        "brings later times down to it)",
    )
    parser.add_argument(
        "--no-diff-id",
        action="store_true",
        help="do without the DiffID, a hash of the whole tar: much faster with --base. Images "
        "need it",
    )
    parser.add_argument(
        "--one-file-system",
        action="store_true",
        help="do not enter directories where another file system is mounted",
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace DST if it exists")
    parser.add_argument("--format", help=argparse.SUPPRESS)
    _options.add_threads(parser)
    _options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Pack DIR to DST."""
    from stargz.packing import pack

    if args.format not in (None, "estargz"):
        raise UsageError(
            f"--format {args.format}: pack makes eStargz alone; for another format, 'tar -cC DIR . "
            "| stargz convert --format FORMAT - DST'"
        )
    check_directory(args.src)
    dst = needed(args)
    to_stdout = dst == "-"
    label = Path(args.src).name or args.src
    target = writable(dst, [], args.force)
    with Progress(label, args, json_on_stderr=to_stdout) as progress:
        result = pack(
            args.src,
            target,
            base=args.base,
            base_manifest=args.base_manifest,
            manifest=args.manifest,
            checksum=args.checksum,
            ignore=args.ignore_file,
            level=args.level,
            chunk_size=args.chunk_size,
            diff_id=not args.no_diff_id,
            owner=args.owner,
            mtime=args.mtime,
            one_file_system=args.one_file_system,
            threads=args.threads,
            progress=progress.callback,
        )
    _report(result, args)
    return OK


def _owner(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,10}):(\d{1,10})", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not UID:GID, two numbers")
    return int(found[1]), int(found[2])


def _seconds(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return int(text)


def _report(result: PackResult, args: argparse.Namespace) -> None:
    rows = [*layer_rows(result, args.dst), ("read", counted(result.read_files, "file"))]
    if args.base is not None:
        copied = size_text(result.reused_bytes)
        rows.append(("copied", f"{counted(result.reused_files, 'file')}, {copied} of the base"))
    rows.append(("seconds", f"{result.seconds:.3f}"))
    print_result(args, args.dst, result, rows, layer_speed(result), result.warnings)
