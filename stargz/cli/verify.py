"""Verify a layer: every gzip member and its CRC, every chunk and file against its digest,
and the TOC against the tree that the tar makes when it is applied in order. Of zstd:chunked every
frame, up to the blob's end; where it has a tar-split, the tar that is put together of that must be
the one in the blob, and each header say what its entry in the TOC says, as podman demands.

Of an image (without --layer) all of it: manifests, configs, the digest, DiffID and TOC of every
layer of every platform, or of --platform.

Of several SRCs each is verified. Exit code 3 where anything fails verification: what was read is
no whole true layer or image (damaged, cut short, or not seekable at all). Exit code 1 where
something could not be read (no such file, no permission, a server that fails), and nothing
failed."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from stargz.cli import _options
from stargz.cli._errors import OK, UNVERIFIED, describe, report, say
from stargz.cli._layers import access_options, index_trust, is_image, open_layer
from stargz.cli._output import counted, relay, size_text, warn
from stargz.cli._progress import Progress
from stargz.cli._several import Told, each
from stargz.errors import (
    DigestError,
    FormatError,
    MissingBlobError,
    PlatformError,
    UnindexableError,
    UnindexedError,
    UnsupportedError,
    UnverifiedError,
    UsageError,
    mask,
    printable,
)

if TYPE_CHECKING:
    from stargz.oci.verify.image import ImageProblem, ImageVerifyResult

EXAMPLE = """\
stargz verify layer.stargz
stargz verify first.stargz second.stargz
stargz verify docker://registry.example/app:1.0"""

# What was read, and is no whole true layer. (OSErrors tell of what could not be read.)
_REFUSED = (FormatError, DigestError, UnverifiedError, MissingBlobError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz verify`."""
    _options.add_layer_options(parser, several=True)


def run(args: argparse.Namespace) -> int:
    """Verify every SRC."""
    return each(args, _verify, _unread)


def _verify(args: argparse.Namespace) -> Told:
    if args.layer is None and is_image(args.src):
        return _verify_image(args)
    try:
        with open_layer(args) as layer:
            with Progress("verify", args) as progress:
                result = layer.verify(progress=progress.callback)
            toc_digest = layer.toc_digest
            indexed = layer.kind == "indexed"
            kept = layer.kind in ("zstd:chunked", "external-toc")  # the tar, and so its DiffID
            trust = index_trust(args, layer) if indexed else None
    except (PlatformError, UnsupportedError, UnindexedError, UnindexableError):
        raise
    except _REFUSED as error:
        report(error)
        return Told(_refused(error), [], UNVERIFIED)
    errors: list[dict[str, Any]] = [
        {"name": e.name, "offset": e.offset, "message": e.message} for e in result.errors
    ]
    for each_error in result.errors:
        _say(args.src, each_error.name, each_error.offset, each_error.message)
    for text in result.warnings:
        warn(args, f"{args.src}: {text}")
    value = {
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
    if indexed:
        value |= {
            "blob_digest": result.blob_digest,
            "diff_id": result.diff_id,
            "index_trust": trust,
        }
    if kept:
        value["diff_id"] = result.diff_id
    counts = (
        f"{counted(result.files, 'file')}, {counted(result.chunks, 'chunk')}, "
        f"{size_text(result.bytes)}"
    )
    more = "" if result.ok else f", {counted(result.error_count, 'error')}"
    if indexed and result.ok:  # it was indexed anew, so all of its bytes were seen
        counts += f"; blob {result.blob_digest}, DiffID {result.diff_id}"
    if kept and result.ok:
        counts += f"; DiffID {result.diff_id}"
    if result.ok and not result.verified:
        # Consistent in itself; whether it is the layer that was meant, nobody said.
        more = " (unverified: " + (
            "files without a digest)"
            if args.toc_digest or args.index_digest
            else f"no --{'index' if indexed else 'toc'}-digest was given)"
        )
    return _told(args, value, result.ok, counts + more)


def _told(args: argparse.Namespace, value: dict[str, Any], good: bool, text: str) -> Told:
    """The verdict; of several SRCs it begins with the name."""
    name = f"{printable(mask(args.src))}: " if len(args.sources) > 1 else ""
    lines = [] if args.quiet else [f"{name}{'ok' if good else 'FAILED'}: {text}"]
    return Told(value, lines, OK if good else UNVERIFIED)


def _refused(error: Exception) -> dict[str, Any]:
    """The report of what was read, and is no whole true layer that could be gone through."""
    if isinstance(error, FormatError):
        return _unread(error.message, offset=error.offset)
    if isinstance(error, DigestError):
        return _unread(error.message, error.name, error.offset)
    return _unread(describe(error))


def _unread(message: str, name: str = "", offset: int | None = None) -> dict[str, Any]:
    return {
        "ok": False,
        "files": 0,
        "chunks": 0,
        "bytes": 0,
        "errors": [{"name": name, "offset": offset, "message": message}],
        "error_count": 1,
        "verified": False,
        "toc_digest": None,
        "warnings": [],
    }


def _say(where: str, name: str, offset: int | None, message: str) -> None:
    at = "" if offset is None else f" at offset {offset}"
    say(f"{where}{at}: {f'{name}: ' if name else ''}{message}")


# --- whole images -----------------------------------------------------------------------


def _verify_image(args: argparse.Namespace) -> Told:
    from stargz.oci.registry.access import Access
    from stargz.oci.verify.image import verify_image

    single = _options.of_one_layer(args)
    if single is not None:
        raise UsageError(f"{args.src}: {single} is for one layer; choose --layer")
    relay(args)
    with Progress("verify", args) as progress:
        result = verify_image(
            args.src,
            platforms=[args.platform] if args.platform else (),
            access=Access.of(**access_options(args)),
            creds=args.creds,
            threads=args.threads,
            progress=progress.callback,
            require_verified=args.require_verified,
        )
    for error in result.errors:
        _say(_place(args.src, error), error.name, error.offset, error.message)
    return _told(args, result.to_json(), result.ok, _counts(result))


def _place(src: str, error: ImageProblem) -> str:
    parts = [src]
    if error.layer:
        parts.append(f"layer {error.layer}")
    elif error.image:
        parts.append(f"manifest {error.image}")
    return ": ".join(parts)


_OTHERS = {"artifact": "artifact", "attestation": "attestation", "other": "other manifest"}


def _counts(result: ImageVerifyResult) -> str:
    images = [image for image in result.images if image.kind == "image"]
    layers = {layer.digest: layer.status for image in images for layer in image.layers}
    counts = (
        f"{counted(len(images), 'image')}, {counted(len(layers), 'layer')}, "
        f"{counted(result.files, 'file')}, {counted(result.chunks, 'chunk')}, "
        f"{size_text(result.bytes)}"
    )
    others = Counter(image.kind for image in result.images if image.kind != "image")
    counts += "".join(f", {counted(n, _OTHERS[kind])}" for kind, n in sorted(others.items()))
    if not result.ok:
        return f"{counts}, {counted(result.error_count, 'error')}"
    other = Counter(status for status in layers.values() if status != "verified")
    more = ", ".join(f"{counted(n, 'layer')} {status}" for status, n in sorted(other.items()))
    return f"{counts}{f' ({more})' if more else ''}"
