"""Make SOCI indexes of a whole image: each layer stays as it is, and has a ztoc beside it.

All platforms by default. The SOCI snapshotter then pulls the image lazily, and so do 'stargz mount'
and the other commands here. Version 2 binds the indexes to the image, whose manifests (not layers)
change for that: it needs DST or --upgrade. Version 1 (--soci-version 1) leaves the image as it is,
and is found by the registry's referrers. Layers that can have no ztoc are left out, and pulled
whole. An image whose indexes are there already is not read again. DST appears complete or not at
all."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from stargz.cli import _options
from stargz.cli._convert_options import add_ends, add_index_options, ends_options
from stargz.cli._destination import add_destination, named
from stargz.cli._errors import OK, CommandError
from stargz.cli._kinds import check_image
from stargz.cli._output import log, print_json, print_table, relay, shown, size_text, speed_of, warn
from stargz.cli._progress import Progress, Sum

if TYPE_CHECKING:
    from stargz.oci.soci.images import ImageIndexReport

EXAMPLE = """\
stargz image index docker://registry.example/app:1.0 docker://registry.example/app:1.0-soci
stargz image index --upgrade docker://registry.example/app:1.0
stargz image index --soci-version 1 --min-layer-size 0 docker://registry.example/app:1.0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz image index`."""
    parser.add_argument("src", metavar="SRC", help=f"the image: {_options.IMAGE}")
    add_destination(
        parser,
        "what to write: docker://HOST/REPO[:TAG], oci:DIR[:REF] or oci-archive:FILE[:REF] "
        "(a tar, replaced as a whole); left out with --upgrade, which writes SRC, and in version 1",
    )
    add_index_options(parser)
    parser.add_argument(
        "--upgrade",
        action="store_true",
        help="replace SRC itself: its tag then names what was made (without DST)",
    )
    parser.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="replace what DST's tag names even if that has no SOCI index (those that have are "
        "replaced anyway), and an archive even if it has other contents",
    )
    add_ends(parser)
    _options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Make the indexes of SRC."""
    from stargz.oci.soci.images import NOT_INDEXABLE, index_image

    dst = named(args)
    relay(args)
    check_image(args)
    with Progress(args.src, args) as progress:
        report = index_image(
            args.src,
            dst,
            soci_version=args.soci_version,
            min_layer_size=args.min_layer_size,
            span_size=args.span_size,
            upgrade=args.upgrade,
            force=args.force,
            progress=None if progress.callback is None else Sum(progress),
            **ends_options(args),
        )
    if report.status == NOT_INDEXABLE and dst is not None:
        raise CommandError(f"{args.src}: {_why(report)}; nothing was written to {dst}")
    if args.json:
        print_json(report.to_json())
    else:
        _print(report, args)
    return OK


def _why(report: ImageIndexReport) -> str:
    reasons = "; ".join(report.warnings[:3]) or "it has no layers"
    return f"no layer can be indexed: {reasons}"


def _print(report: ImageIndexReport, args: argparse.Namespace) -> None:
    from stargz.oci.soci.images import NOT_INDEXABLE

    for text in report.warnings:
        warn(args, f"{args.src}: {text}")
    for companion in report.stale:
        warn(
            args,
            f"{args.src}: {companion.kind} {companion.name} is about the source, not about what "
            "was made of it",
        )
    size = sum(layer.uncompressed_size or 0 for layer in report.layers)
    log(args, speed_of(size, report.seconds, "tar"))
    if args.quiet:
        return
    done = {
        "unchanged": ": it has its indexes already",
        NOT_INDEXABLE: ": nothing was written",
    }.get(report.status, "")
    indexes = dict.fromkeys(report.indexes.values())
    print_table(
        [
            ("image", report.destination),
            ("digest", report.digest),
            ("status", report.status + done),
            ("indexes", ", ".join(indexes) or "none"),
            ("size", f"{size_text(report.size)} of ztocs"),
            ("seconds", f"{report.seconds:.3f}"),
        ]
    )
    for layer in report.layers:
        what = f"ztoc {layer.digest}  {layer.size:,} bytes" if layer.digest else layer.why
        print(shown(f"layer  {layer.source_digest}  {layer.status}  {what}"))
