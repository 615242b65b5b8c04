"""A registry of many images that share layers: python -m bench.fleet [DIR]

200 images, each of three layers: one of 4 bases (most of Debian), one of 16 runtimes (half of
Python, numpy and ansible) and an application of its own (some 3 MB of files). 220 distinct layers,
3 GB of tar, as gzip -6 makes them. What is in a layer is chosen by a seeded generator.

DIR becomes the storage folder of a registry (CNCF distribution's layout), written straight, as
every upload of a shared layer would be stored once all the same.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import corpus

IMAGES, BASES, RUNTIMES = 200, 4, 16
APPLICATION = 3 << 20  # bytes of files
_VERSION = 1  # of what is made: another one is made anew
_OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Kind:
    """How one kind of layer is chosen from the files of the inputs."""

    inputs: tuple[str, ...]
    share: float  # of the files
    most: int  # bytes


KINDS = {
    "base": Kind(("debian",), 0.9, 1 << 30),
    "runtime": Kind(("python", "ansible"), 0.5, 1 << 30),
    "application": Kind(("ansible",), 0.1, APPLICATION),
}


def names() -> Iterator[tuple[str, int]]:
    """Every distinct layer: its kind and number."""
    for kind, count in (("base", BASES), ("runtime", RUNTIMES), ("application", IMAGES)):
        yield from ((kind, number) for number in range(count))


def layers_of(image: int) -> list[tuple[str, int]]:
    """The layers of an image, the lowest first."""
    return [("base", image % BASES), ("runtime", image % RUNTIMES), ("application", image)]


def repository(image: int) -> str:
    return f"team{image % 10}/app{image:03}"


def _pack(kind: str, number: int, target: Path) -> dict[str, Any]:
    """Make a layer and put it among the blobs: its descriptor and DiffID."""
    chosen, chance = KINDS[kind], random.Random(f"{kind} {number}")
    with tempfile.TemporaryDirectory(dir=target) as temp:
        tar, packed = Path(temp) / "tar", Path(temp) / "gz"
        with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as out:
            _choose(chosen, chance, out)
        with tar.open("rb") as src, gzip.GzipFile("", "wb", 6, packed.open("wb"), 0) as dst:
            shutil.copyfileobj(src, dst, 1 << 20)
        diff_id = hash_of(tar)
        digest, size = hash_of(packed), packed.stat().st_size
        put(target, digest, packed)
    media_type = f"{_OCI}.layer.v1.tar+gzip"
    return {"digest": digest, "size": size, "mediaType": media_type, "diff_id": diff_id}


def _choose(kind: Kind, chance: random.Random, out: tarfile.TarFile) -> None:
    left = kind.most
    for name in kind.inputs:
        with tarfile.open(corpus.build(name).with_suffix("")) as source:
            for member in source:
                # A hard link may have lost its file.
                if member.islnk() or (not member.isdir() and chance.random() > kind.share):
                    continue
                left -= member.size
                if left < 0:
                    return
                out.addfile(member, source.extractfile(member) if member.isreg() else None)


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def put(target: Path, digest: str, file: Path) -> None:
    """Have a file as the blob of its digest."""
    folder = registry_folder(target) / "blobs/sha256" / digest[:2] / digest
    folder.mkdir(parents=True, exist_ok=True)
    file.rename(folder / "data")


def registry_folder(target: Path) -> Path:
    return target / "docker/registry/v2"


def _put_json(target: Path, value: Any) -> tuple[str, int]:
    data = json.dumps(value).encode()
    path = target / "unfinished"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    put(target, digest, path)
    return digest, len(data)


def _link(folder: Path, *digests: str) -> None:
    for digest in digests:
        (folder / digest).mkdir(parents=True)
        (folder / digest / "link").write_text(f"sha256:{digest}")


def _image(target: Path, number: int, made: dict[tuple[str, int], dict[str, Any]]) -> None:
    layers = [made[name] for name in layers_of(number)]
    config, config_size = _put_json(
        target,
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Labels": {"number": str(number)}},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{one['diff_id']}" for one in layers],
            },
        },
    )

    def describe(digest: str, size: int, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}

    manifest, _ = _put_json(
        target,
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": describe(config, config_size, f"{_OCI}.config.v1+json"),
            "layers": [describe(one["digest"], one["size"], one["mediaType"]) for one in layers],
        },
    )
    folder = registry_folder(target) / "repositories" / repository(number)
    _link(folder / "_layers/sha256", config, *(one["digest"] for one in layers))
    _link(folder / "_manifests/revisions/sha256", manifest)
    tag = folder / "_manifests/tags/1.0"
    _link(tag / "index/sha256", manifest)
    (tag / "current").mkdir()
    (tag / "current/link").write_text(f"sha256:{manifest}")


def build(target: Path | None = None) -> Path:
    """The storage folder, made if it is not there yet."""
    target = target or corpus.folder() / f"fleet-{_VERSION}"
    if target.exists():
        return target
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    for kind in KINDS.values():
        for name in kind.inputs:
            corpus.build(name)
    listed = list(names())
    with ProcessPoolExecutor() as pool:
        made = pool.map(_pack, *zip(*listed, strict=True), [unfinished] * len(listed))
        layers = dict(zip(listed, made, strict=True))
    for number in range(IMAGES):
        _image(unfinished, number, layers)
    unfinished.rename(target)
    return target


def layers(target: Path) -> Iterable[Path]:
    """The files of the distinct layers."""
    blobs = registry_folder(target) / "blobs/sha256"
    return (path for path in sorted(blobs.glob("*/*/data")) if is_gzip(path))


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
