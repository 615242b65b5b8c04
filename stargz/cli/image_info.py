"""What an image is: its digests, platforms and layers, and its SOCI index, if it has one.

Manifest and config are read, and checked against their digests; no layer is."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from stargz.cli import _options
from stargz.cli._errors import OK
from stargz.cli._kinds import check_image
from stargz.cli._layers import registry_options
from stargz.cli._output import print_json, print_table, relay, shown, size_text

if TYPE_CHECKING:
    from stargz.oci.loading import ImageManifest

EXAMPLE = """\
stargz image info docker://registry.example/app:1.0
stargz image info --platform linux/arm64 --json oci:layout:latest"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz image info`."""
    _options.add_image_options(parser)


def run(args: argparse.Namespace) -> int:
    """Tell what SRC is."""
    from stargz.errors import UnverifiedError
    from stargz.oci.loading import load_image

    relay(args)
    check_image(args)
    with load_image(args.src, **registry_options(args)) as image:
        report = _report(image)
    if args.require_verified and not report["seekable"]:
        raise UnverifiedError(f"{args.src}: not every layer has a TOC digest in the manifest")
    if args.json:
        print_json(report)
        return OK
    print_table(
        (key, "not known" if value is None else _text(key, value))
        for key, value in report.items()
        if key not in ("layers", "instances") and not (value is None and key in _ABSENT)
    )
    for one in _several(report["instances"]):
        what = "  (in zstd)" if one["zstd"] else ""
        print(shown(f"instance  {one['digest']}  {one['platform']}{what}"))
    for layer in report["layers"]:
        toc = f"TOC {layer['toc_digest']}" if layer["seekable"] else "not seekable"
        if layer["seekable"] and not layer["toc_digest"]:
            toc = f"TOC's frame {layer['toc_checksum']}"
        if layer["kind"] is not None:
            toc = f"{layer['kind']}, {toc}"
        if layer["ztoc_digest"] is not None:
            toc += f", indexed by SOCI: ztoc {layer['ztoc_digest']}"
        print(shown(f"layer {layer['number']}  {layer['digest']}  {layer['size']:,} bytes  {toc}"))
    return OK


# What not every image has: nothing is to be known of it.
_ABSENT = ("index_digest", "soci_index", "soci_version")


def _several(instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of platforms for which there is more than one."""
    counts = Counter(one["platform"] for one in instances)
    return [one for one in instances if counts[one["platform"]] > 1]


def _text(key: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return size_text(value) if key == "size" else str(value)


def _report(image: ImageManifest) -> dict[str, Any]:
    from stargz.oci.formats.manifest import is_attestation, is_zstd_instance
    from stargz.oci.formats.platforms import platform_of

    found = image.config.get("rootfs")
    diff_ids = found.get("diff_ids") if isinstance(found, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(image.descriptors):
        diff_ids = [None] * len(image.descriptors)
    soci = image.soci.get()
    ztocs = {} if soci is None else soci.ztocs
    chunked = [image.chunked(number) for number in range(len(image.descriptors))]
    layers = [
        {
            "number": number,
            "digest": entry.digest,
            "size": entry.size,
            "media_type": entry.media_type,
            "diff_id": diff_id if isinstance(diff_id, str) else None,
            "toc_digest": image.toc_digest(number - 1),
            "toc_checksum": (said and said.checksum) or None,
            "kind": "zstd:chunked" if said else None,
            "seekable": bool(image.toc_digest(number - 1) or (said and said.checksum)),
            "ztoc_digest": ztocs[entry.digest].digest if entry.digest in ztocs else None,
            "uncompressed_size": entry.uncompressed_size,
        }
        for number, (entry, diff_id, said) in enumerate(
            zip(image.descriptors, diff_ids, chunked, strict=True), 1
        )
    ]
    platforms = [str(image.platform)] if image.platform else []
    instances: list[dict[str, Any]] = []
    if image.root.kind == "index":
        stated = [(platform_of(entry.platform), entry) for entry in image.root.manifests]
        platforms = list(dict.fromkeys(str(platform) for platform, _ in stated if platform))
        instances = [
            {
                "digest": entry.digest,
                "platform": str(platform),
                "zstd": is_zstd_instance(entry),
            }
            for platform, entry in stated
            if platform and not is_attestation(entry)
        ]
    return {
        "name": image.name,
        "digest": image.digest,
        "index_digest": image.root.digest if image.root.kind == "index" else None,
        "media_type": image.manifest.media_type,
        "platform": str(image.platform) if image.platform else None,
        "platforms": platforms,
        "size": sum(entry.size for entry in image.descriptors),
        "seekable": all(layer["seekable"] for layer in layers),
        "soci_index": None if soci is None else soci.manifest.digest,
        "soci_version": None if soci is None else soci.version,
        "instances": instances,
        "layers": layers,
    }
