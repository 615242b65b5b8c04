"""Make the index of an ordinary tar.gz, tar, or tar.zst of several frames (or small), in one pass.

By it single files of SRC are read, listed and mounted where SRC is, which stays as it is. Without
FILE it is written beside SRC, where all commands that read layers find it; put both on a server,
and they find it there, too. Its digest vouches for what is read by it: --index-digest."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stargz.cli import _options
from stargz.cli._creds import add_creds
from stargz.cli._destination import add_destination, named, writable
from stargz.cli._errors import OK
from stargz.cli._layers import binary_stdin, is_image, source
from stargz.cli._output import print_result, size_text, speed_of, warn
from stargz.cli._progress import Progress
from stargz.endpoints import is_url
from stargz.errors import UsageError

if TYPE_CHECKING:
    from stargz.indexing import IndexResult

EXAMPLE = """\
stargz index layer.tar.gz
stargz index --format soci -o layer.ztoc layer.tar.gz
curl -s https://host.example/big.tar.gz | stargz index - -o big.index"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz index`."""
    parser.add_argument(
        "src",
        metavar="SRC",
        help="a tar.gz, tar or tar.zst: a file, - for standard input, a URL, or an image with "
        f"--layer: {_options.IMAGE}",
    )
    add_destination(
        parser, "the index to write, or - for standard output (default: SRC.index)", "FILE"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument(
        "--format",
        choices=("native", "soci"),
        default="native",
        help="native: small, with digests of all contents; soci: a ztoc, as the soci-snapshotter "
        "reads it (default: native)",
    )
    parser.add_argument(
        "--span-size",
        type=_options.size,
        default=4 << 20,
        metavar="SIZE",
        help="bytes of a tar from one place to the next where reading can begin (default: 4M)",
    )
    _options.add_threads(parser)
    _options.add_output_options(parser)
    group = parser.add_argument_group("images and registries")
    _options.add_layer_number(group)
    _options.add_platform(group)
    _options.add_registry_options(group)
    add_creds(group, {"--creds": "SRC"})


def run(args: argparse.Namespace) -> int:
    """Write the index of SRC."""
    from stargz.indexing import index
    from stargz.options import check_span_size

    check_span_size(args.span_size)
    dst = _destination(args)
    target = writable(dst, [args.src], args.force, "FILE")
    to_stdout = dst == "-"
    with (
        _source(args) as src,
        Progress(Path(args.src).name, args, json_on_stderr=to_stdout) as progress,
    ):
        result = index(
            src,
            target,
            format=args.format,
            span_size=args.span_size,
            threads=args.threads,
            progress=progress.callback,
            force=True,  # whether it may be replaced was asked above
        )
    _report(result, dst, args)
    return OK


def _destination(args: argparse.Namespace) -> str:
    """FILE, or its default: beside SRC."""
    dst = named(args, "FILE")
    if dst is not None:
        return dst
    if args.src == "-" or is_image(args.src) or is_url(args.src):
        raise UsageError(f"{args.src}: is no file, so FILE is needed (- for standard output)")
    from stargz.options import INDEX_SUFFIX

    return str(args.src) + INDEX_SUFFIX


@contextmanager
def _source(args: argparse.Namespace) -> Iterator[Any]:
    if args.src == "-":
        if args.layer is not None:
            raise UsageError("-: --layer chooses a layer of an image (docker://, oci: ...)")
        yield binary_stdin()
        return
    from stargz.footer import MAX_FOOTER_SIZE, kind_of
    from stargz.indexes import check_tar
    from stargz.sources import as_source

    with source(args, tail=MAX_FOOTER_SIZE) as found, closing(as_source(found.source)) as blob:
        kind = kind_of(blob)
        if kind is None:
            check_tar(blob)
        else:
            warn(args, f"{args.src}: is seekable without an index (it is {kind})")
        yield blob


def _report(result: IndexResult, dst: str, args: argparse.Namespace) -> None:
    share = 100 * result.size / max(result.blob_size, 1)
    rows = [
        ("index", dst),
        ("digest", result.digest),
        ("size", f"{size_text(result.size)}, {share:.2f}% of SRC"),
        ("blob_digest", result.blob_digest),
        ("blob_size", size_text(result.blob_size)),
        ("diff_id", result.diff_id),
        ("spans", f"{result.spans:,}, the longest of {size_text(result.longest_span)}"),
        ("entries", f"{result.entries:,}"),
        ("seconds", f"{result.seconds:.3f}"),
    ]
    told = [f"{args.src}: {text}" for text in result.warnings]
    print_result(args, dst, result, rows, speed_of(result.blob_size, result.seconds, "SRC"), told)
