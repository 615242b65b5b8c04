"""Convert a whole image: every layer seekable, configs and manifests rewritten to match.

All platforms by default; attestations and what else is no image is copied as it is. Layers that
are seekable already are kept, once their TOC is verified, unless an option asks for another
layout. The result is an OCI image that lazy pullers read by parts and all others pull as ever.
DST appears complete or not at all. External TOCs appear before it, as DST-esgztoc, and may stay
if it fails after that; what DST was before is then read as ever."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from stargz.cli import _convert_options, _options
from stargz.cli._destination import add_destination, named
from stargz.cli._errors import OK, CommandError
from stargz.cli._kinds import check_image
from stargz.cli._output import log, print_json, print_table, relay, shown, size_text, speed_of, warn
from stargz.cli._progress import Progress, Sum
from stargz.errors import EntryNotFoundError

if TYPE_CHECKING:
    from stargz.oci.conversion import ImageReport
    from stargz.oci.convert.layers import LayerReport

EXAMPLE = """\
stargz image convert docker://registry.example/app:1.0 docker://registry.example/app:1.0-lazy
stargz image convert --upgrade docker://registry.example/app:1.0
stargz image convert --platform linux/amd64 docker-archive:app.tar oci:layout:app"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz image convert`."""
    parser.add_argument(
        "src",
        metavar="SRC",
        help=f"the image: {_options.IMAGE}",
    )
    add_destination(
        parser,
        "what to write: docker://HOST/REPO[:TAG], oci:DIR[:REF] or oci-archive:FILE[:REF] "
        "(a tar, replaced as a whole); left out with --upgrade, which writes SRC",
    )
    _convert_options.add_image_options(parser)
    _options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Convert SRC to DST."""
    from stargz.oci.conversion import convert_image

    dst = named(args)
    relay(args)
    check_image(args)
    with Progress(args.src, args) as progress:
        try:
            report = convert_image(
                args.src,
                dst,
                progress=None if progress.callback is None else Sum(progress),
                **_convert_options.image_options(args),
            )
        except EntryNotFoundError as error:
            raise CommandError(f"{error}; --allow-missing goes on without it") from None
    if args.json:
        print_json(report.to_json())
    else:
        _print(report, args)
    return OK


def _print(report: ImageReport, args: argparse.Namespace) -> None:
    for text in report.warnings:
        warn(args, f"{args.src}: {text}")
    for path in report.missing:
        warn(args, f"{args.src}: prioritized path is not there: {path}")
    for companion in report.stale:
        warn(
            args,
            f"{args.src}: {companion.kind} {companion.name} is about the source, not about what "
            "was made of it",
        )
    size = sum(layer.uncompressed_size for layer in report.layers)
    log(args, speed_of(size, report.seconds, "tar"))
    done = report.status
    if done == "unchanged":
        again = any(layer.status == "converted" for layer in report.layers)
        done += ": what was made is what was there" if again else ": nothing had to be done"
    share = 100 * report.size_after / max(report.size_before, 1)
    if args.quiet:
        return
    tocs = [("external TOCs", report.toc_image.name)] if report.toc_image else []
    print_table(
        [
            ("image", report.destination),
            *tocs,
            ("digest", report.digest),
            ("status", done),
            ("size", f"{size_text(report.size_after)}, {share:.1f}% of the source"),
            ("seconds", f"{report.seconds:.3f}"),
        ]
    )
    for layer in report.layers:
        print(
            shown(
                f"layer  {layer.digest}  {layer.status}{_format(layer)}  {layer.size:,} bytes "
                f"(before: {layer.source_size:,})  {layer.seconds:.3f} s"
            )
        )


def _format(layer: LayerReport) -> str:
    """What a layer is now, but for the usual."""
    return "" if layer.format in ("", "estargz") else f" ({layer.format})"
