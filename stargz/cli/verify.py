"""Verify a layer: every gzip member and its CRC, every chunk and file against its digest,
and the TOC against the tree that the tar makes when it is applied in order.

Of an image (without --layer) all of it: manifests, configs, the digest, DiffID and TOC of every
layer of every platform, or of --platform.

Exit code 3 where anything fails."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from stargz.cli import _options
from stargz.cli._errors import OK, UNVERIFIED, say
from stargz.cli._layers import open_layer, registry_options
from stargz.cli._output import print_json, size_text, warn
from stargz.cli._progress import Progress

if TYPE_CHECKING:
    from stargz.oci.verify.image import ImageProblem, ImageVerifyResult

EXAMPLE = """\
stargz verify layer.stargz
stargz verify docker://registry.example/app:1.0"""

_IMAGES = ("docker://", "oci:", "docker-archive:", "storage:")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz verify`."""
    _options.add_layer_options(parser)


def run(args: argparse.Namespace) -> int:
    """Verify SRC."""
    if args.layer is None and args.src.startswith(_IMAGES):
        return _verify_image(args)
    with open_layer(args) as layer:
        with Progress("verify", args) as progress:
            result = layer.verify(progress=progress.callback)
        toc_digest = layer.toc_digest
    errors: list[dict[str, Any]] = [
        {"name": e.name, "offset": e.offset, "message": e.message} for e in result.errors
    ]
    if args.json:
        print_json(
            {
                "ok": result.ok,
                "files": result.files,
                "chunks": result.chunks,
                "bytes": result.bytes,
                "errors": errors,
                "error_count": result.error_count,
                "verified": result.verified,
                "toc_digest": toc_digest,
                "warnings": list(result.warnings),
            }
        )
    for error in errors:
        _say(args.src, error["name"], error["offset"], error["message"])
    for text in result.warnings:
        warn(args, f"{args.src}: {text}")
    if not args.json:
        word = "ok" if result.ok else "FAILED"
        counts = f"{result.files:,} files, {result.chunks:,} chunks, {size_text(result.bytes)}"
        more = "" if result.ok else f", {result.error_count:,} errors"
        if result.ok and not result.verified:
            # Consistent in itself; whether it is the layer that was meant, nobody said.
            more = " (unverified: " + (
                "files without a digest)" if args.toc_digest else "no --toc-digest was given)"
            )
        print(f"{word}: {counts}{more}")
    return OK if result.ok else UNVERIFIED


def _say(where: str, name: str, offset: int | None, message: str) -> None:
    at = "" if offset is None else f" at offset {offset}"
    say(f"{where}{at}: {f'{name}: ' if name else ''}{message}")


# --- whole images -----------------------------------------------------------------------


def _verify_image(args: argparse.Namespace) -> int:
    from stargz.errors import UsageError
    from stargz.oci.registry.access import Access
    from stargz.oci.verify.image import verify_image

    if args.toc is not None or args.toc_digest is not None:
        raise UsageError(f"{args.src}: --toc and --toc-digest are for one layer; choose --layer")
    options: dict[str, Any] = registry_options(args)
    platform = options.pop("platform")
    with Progress("verify", args) as progress:
        result = verify_image(
            args.src,
            platforms=[platform] if platform else (),
            access=Access.of(**options),
            threads=args.threads,
            progress=progress.callback,
            require_verified=args.require_verified,
        )
    if args.json:
        print_json(result.to_json())
    for error in result.errors:
        _say(_place(args.src, error), error.name, error.offset, error.message)
    if not args.json:
        print(_verdict(result))
    return OK if result.ok else UNVERIFIED


def _place(src: str, error: ImageProblem) -> str:
    parts = [src]
    if error.layer:
        parts.append(f"layer {error.layer}")
    elif error.image:
        parts.append(f"manifest {error.image}")
    return ": ".join(parts)


def _verdict(result: ImageVerifyResult) -> str:
    word = "ok" if result.ok else "FAILED"
    images = [image for image in result.images if image.kind == "image"]
    layers = {layer.digest: layer.status for image in images for layer in image.layers}
    counts = (
        f"{_count(len(images), 'image')}, {_count(len(layers), 'layer')}, {result.files:,} files, "
        f"{result.chunks:,} chunks, {size_text(result.bytes)}"
    )
    if not result.ok:
        return f"{word}: {counts}, {_count(result.error_count, 'error')}"
    other = Counter(status for status in layers.values() if status != "verified")
    more = ", ".join(f"{_count(n, 'layer')} {status}" for status, n in sorted(other.items()))
    return f"{word}: {counts}{f' ({more})' if more else ''}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
