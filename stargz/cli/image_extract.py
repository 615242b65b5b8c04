"""Unpack an image, or some of its paths, on all cores: all its layers merged, whiteouts applied.

It is as safe as 'stargz extract': nothing is written outside DIR; device nodes, set-id bits
and xattrs other than user.* are left out unless asked for. Of an image whose layers are
seekable only what is needed is read; of any other all of it, by way of temporary files (TMPDIR).
-v lists names as they are written."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._destination import check_directory
from stargz.cli._errors import FAILED, OK, UNVERIFIED
from stargz.cli._extraction import add_extract_options, extract_options, tell
from stargz.cli._kinds import check_image
from stargz.cli._layers import cache_options, reading_options, registry_options
from stargz.cli._output import log, print_json, relay, warn
from stargz.cli._progress import Progress
from stargz.cli._selection import found

EXAMPLE = """\
stargz image extract docker://registry.example/app:1.0 -C root
stargz image extract oci:layout etc --platform linux/arm64 --exclude '*locale*' -C root"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz image extract`."""
    _options.add_image_options(parser)
    add_extract_options(parser)
    parser.add_argument(
        "--all-platforms",
        action="store_true",
        help="all that the image is for, each in a directory of its own: DIR/linux-arm64-v8",
    )


def run(args: argparse.Namespace) -> int:
    """Unpack PATHs of SRC below DIR."""
    from stargz.errors import UsageError
    from stargz.oci.extraction import extract_image

    if args.all_platforms and args.platform:
        raise UsageError("--all-platforms contradicts --platform")
    check_image(args)
    check_directory(args.directory, "-C")
    relay(args)
    with Progress("extract", args) as progress, found(args):
        results = extract_image(
            args.src,
            args.directory,
            all_platforms=args.all_platforms,
            require_verified=args.require_verified,
            **extract_options(args, progress),
            **reading_options(args),
            **cache_options(args),
            **registry_options(args),
        )
    if args.json:
        listed = [result.to_json() for result in results]
        print_json(listed if args.all_platforms else listed[0])
    codes = set()
    for result in results:
        src = f"{args.src} ({result.platform})" if args.all_platforms else args.src
        log(args, f"{src}: {result.digest}")
        if not result.verified:
            warn(args, f"{src}: unverified: not every layer has a TOC digest in the manifest")
        if not args.json:
            for warning in result.warnings:
                warn(args, f"{src}: {warning}")
        codes.add(tell(args, result, src))
    return next((code for code in (UNVERIFIED, FAILED) if code in codes), OK)
