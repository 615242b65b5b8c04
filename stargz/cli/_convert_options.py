"""The options of every command that converts or indexes: how layers are laid out, and how images
are reached."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stargz.cli import _options
from stargz.cli._creds import add_creds
from stargz.cli._errors import CommandError
from stargz.cli._layers import access_options
from stargz.errors import UsageError, not_text
from stargz.options import FORMATS

if TYPE_CHECKING:
    from stargz.oci.convert.options import LayerOptions
    from stargz.oci.registry.access import Access

_LIST_MAX = 64 << 20  # bytes of a --prioritize-from file


def add_layout_options(parser: argparse.ArgumentParser, *, image: bool = False) -> None:
    """What decides a layer's bytes. Of an `image` those that are not given are None: layers that
    are seekable already may keep what they have."""

    def default(value: Any) -> Any:
        return None if image else value

    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=default("estargz"),
        help="estargz (the default), read lazily by stargz-snapshotter; stargz, its older layout; "
        "external-toc, eStargz that keeps the tar and has its TOC in a second file or image; "
        "zstd:chunked, podman's, which keeps the tar; zstd:chunked-stargz, stargz-snapshotter's "
        "(docs/formats.md compares them)",
    )
    parser.add_argument(
        "--level",
        type=_options.level,
        metavar="N|reuse",
        help="1 and 2 are ISA-L's; 3 to 12 are smaller and slower and need libdeflate (default: "
        "1); -6 is the same as --level 6. Of zstd:chunked 1 to 19 (default: 3). reuse: of gzip, "
        "code again what its compressor found: smaller than 1 in about the same time, but "
        "the bytes depend on that too",
    )
    parser.add_argument(
        "--chunk-size",
        type=_options.size,
        default=default(4 << 20),
        metavar="SIZE",
        help="files longer than this are cut into chunks that are read alone (default: 4M)",
    )
    parser.add_argument(
        "--min-chunk-size",
        type=_options.size,
        default=default(0),
        metavar="SIZE",
        help="put small files together until a gzip member holds this much: smaller layers, "
        "slower reads of single files. Read by stargz-snapshotter from 0.13 on; older ones misread "
        "it, and the reference package's VerifyTOC and containers/storage refuse it "
        "(default: 0, off)",
    )
    parser.add_argument(
        "--prioritize",
        action="append",
        default=[],
        metavar="PATH",
        help="put this file first, to be fetched ahead of all others; a name, no pattern; "
        "symlinked directories are followed within the layer (repeatable, in order)",
    )
    parser.add_argument(
        "--prioritize-from",
        metavar="FILE",
        help="the same for every line of FILE: a path, or a JSON object with a path key ('stargz "
        "mount --record' writes such a file)",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="report prioritized paths that are not there, and go on",
    )
    parser.add_argument(
        "--lossless",
        action="store_true",
        help="keep the tar's bytes exactly as they are: no landmarks, no reordering; external-toc "
        "and zstd:chunked always do",
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """What is converted of images, how, and how registries are reached; with the options above."""
    parser.add_argument(
        "--upgrade",
        action="store_true",
        help="replace SRC itself: its tag then names what was made (without DST)",
    )
    parser.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="replace what DST's tag names even if that is no seekable image (those are replaced "
        "anyway), and an archive even if it has other contents",
    )
    parser.add_argument(
        "--flatten",
        action="store_true",
        help="merge each image's layers into one, whiteouts applied",
    )
    add_layout_options(parser, image=True)
    parser.add_argument(
        "--docker-types",
        action="store_true",
        help="write Docker's media types instead of OCI's; such images are not pulled lazily",
    )
    parser.add_argument(
        "--verify", action="store_true", help="read what was written again, and check all of it"
    )
    add_strict(parser)
    parser.add_argument(
        "--both",
        action="store_true",
        help="write each image twice into one index: as eStargz, which all clients take, and last, "
        "for those that prefer it, in zstd:chunked. Each layer is read twice",
    )
    add_ends(parser)
    _options.add_limits(parser)


def add_index_options(parser: argparse._ActionsContainer, *, bulk: bool = False) -> None:
    """What SOCI indexes are to be like. Of a `bulk` command those that are not given are None."""
    parser.add_argument(
        "--soci-version",
        type=int,
        choices=(2, 1),
        default=None if bulk else 2,
        help="2: the image's index and manifests name the SOCI indexes; 1: these name the image "
        "(default: 2)",
    )
    parser.add_argument(
        "--min-layer-size",
        type=_options.size,
        default=None if bulk else 10 << 20,
        metavar="SIZE",
        help="smaller layers get no ztoc (default: 10M, as SOCI's)",
    )
    parser.add_argument(
        "--span-size",
        type=_options.size,
        metavar="SIZE",
        help="bytes of a tar from one place to the next where reading can begin (default: 4M; an "
        "index that is there is kept whatever it has)",
    )


def add_strict(parser: argparse.ArgumentParser) -> None:
    """--strict."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail where the format cannot hold a layer, as a hard link into a layer below; by "
        "default zstd:chunked becomes plain zstd then, and a layer of an image else stays as it "
        "is, with a warning",
    )


def add_ends(parser: argparse.ArgumentParser) -> None:
    """Which platforms of images there are to be, how many layers at the same time, and how
    registries are reached."""
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH",
        help="only this platform of an image for several (repeatable; default: all)",
    )
    parser.add_argument(
        "--jobs",
        type=_options.count,
        metavar="N",
        help="layers that are worked on at the same time (default: one for each core, at most 8)",
    )
    _options.add_threads(parser)
    group = parser.add_argument_group("registries")
    _options.add_registry_options(group, patience="15m")
    creds = {"--src-creds": "SRC", "--dest-creds": "DST"}
    add_creds(group, creds, hidden=["--creds"])
    group.add_argument(
        "--allow-upload-host",
        action="append",
        default=[],
        metavar="HOST",
        help="a registry may have uploads sent to this host[:port] (repeatable)",
    )


def prioritized(args: argparse.Namespace) -> tuple[str, ...]:
    """The paths of --prioritize and --prioritize-from."""
    return (*args.prioritize, *_listed(args.prioritize_from))


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_image_options` as arguments of `convert_image` and `bulk`."""
    return {
        "options": _layer_options(args),
        "flatten": args.flatten,
        "allow_missing": args.allow_missing,
        "docker_types": args.docker_types,
        "upgrade": args.upgrade,
        "verify": args.verify,
        "strict": args.strict,
        "both": args.both,
        "force": args.force,
        **ends_options(args),
        "memory": args.memory,
        "max_sparse": args.max_sparse,
    }


def ends_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_ends` as arguments of `convert_image`, `bulk` and `index_image`."""
    return {
        "platforms": args.platform,
        "access": _access(args),
        **_creds(args),
        "jobs": args.jobs,
        "threads": args.threads,
    }


def _layer_options(args: argparse.Namespace) -> LayerOptions:
    from stargz.oci.convert.options import LayerOptions

    return LayerOptions(
        level=args.level,
        chunk_size=args.chunk_size,
        min_chunk_size=args.min_chunk_size,
        prioritized=prioritized(args),
        lossless=args.lossless,
        format=args.format,
    )


def _creds(args: argparse.Namespace) -> dict[str, Any]:
    """--src-creds and --dest-creds; and --creds, where one image is both."""
    if args.creds is None:
        return {"src_creds": args.src_creds, "dest_creds": args.dest_creds}
    one = args.upgrade or (getattr(args, "soci_version", 2) == 1 and args.dst is None)
    if not one or args.src_creds or args.dest_creds:
        raise UsageError(
            "--creds: there are two images here: give --src-creds for SRC's registry, --dest-creds "
            "for DST's"
        )
    return {"src_creds": args.creds, "dest_creds": args.creds}


def _access(args: argparse.Namespace) -> Access:
    """The options of `add_image_options` about registries."""
    from stargz.oci.registry.access import Access

    return Access.of(**access_options(args), upload_hosts=args.allow_upload_host)


def _listed(file: str | None) -> list[str]:
    """The paths of --prioritize-from."""
    if file is None:
        return []
    import json

    with Path(file).open("rb") as stream:
        text = stream.read(_LIST_MAX + 1)
    if len(text) > _LIST_MAX:
        raise CommandError(f"{file}: a list of paths over 64 MiB; is it the right file?")
    if why := not_text(text):
        raise CommandError(f"{file}: {why} (--prioritize-from)")
    paths: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        path: object = os.fsdecode(line)
        if line.startswith(b"{"):
            # The snapshotter's recorder writes {"path": ..., ...}, one object a line.
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict) and "path" in record:
                path = record["path"]
        if not isinstance(path, str):
            raise CommandError(f"{file}: the path of line {number} is not a string")
        if path:
            paths.append(path)
    return paths
