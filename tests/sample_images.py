"""An image for the tests with container engines: what layers can do to each other, and every
kind of file; for two platforms."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import layouts
import registries
from blobs import noise, sha256
from containers import chain_id
from mounts import CAPABILITY, XATTR
from registries import program

from stargz.oci.conversion import convert_image

NAME = "some/app"
MTIME = 1_700_000_000
OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
ACCEPT = ", ".join(
    [
        layouts.OCI_MANIFEST,
        layouts.OCI_INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ]
)
# Over two chunks of the default size, and the last one is short.
LARGE = noise("large", 3 << 20) + bytes(6 << 20) + b"end"
NEW = b"new in the upper layer\n"
PLATFORMS = ("linux/amd64", "linux/arm64")

Add = Callable[..., None]


def _tar(fill: Callable[[Add], None]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, data: bytes | None = b"", **keys: Any) -> None:
            """A file, or of data None a directory; `keys` are those of TarInfo."""
            info = tarfile.TarInfo(name)
            info.mtime = MTIME
            if data is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size = len(data)
            for key, value in keys.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data or b""))

        add("./", None)
        fill(add)
    return out.getvalue()


def _lower(add: Add) -> None:
    add("etc/", None, mode=0o750, uid=7, gid=8, mtime=1_234_567_890)
    add("etc/passwd", b"root:x:0:0\n", uid=1000, gid=100, mtime=1)
    add("etc/shadow", b"secret\n", mode=0o600)
    add("etc/hidden", b"an opaque directory hides this\n")
    add("bin/", None)
    add("bin/large", LARGE, mode=0o755)
    add("bin/hard", type=tarfile.LNKTYPE, linkname="bin/large", mode=0o755)
    add("bin/hard2", type=tarfile.LNKTYPE, linkname="bin/large", mode=0o755)
    capability = {f"{XATTR}security.capability": CAPABILITY.decode()}
    add("bin/ping", b"#!/bin/true\n", mode=0o755, pax_headers=capability)
    add("bin/set", b"setuid and setgid", mode=0o6755)
    add("usr/", None)
    add("usr/x", b"x", pax_headers={f"{XATTR}user.a": "1", f"{XATTR}user.b": "two\1"})
    add("usr/soft", type=tarfile.SYMTYPE, linkname="../etc/passwd", mode=0o777)
    add("usr/dangling", type=tarfile.SYMTYPE, linkname="/nowhere", mode=0o777)
    add("usr/empty", mode=0o444)
    add("usr/empty-directory/", None, mode=0o700)
    add("usr/sticky/", None, mode=0o1777)
    add("dev/", None)
    add("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    add("dev/block", type=tarfile.BLKTYPE, devmajor=259, devminor=70_000)
    add("dev/fifo", type=tarfile.FIFOTYPE)
    add("n" * 255, b"the longest name")
    deep = ""
    for number in range(10):
        deep += f"{number:050}/"
        add(deep, None)
    add(f"{deep}file", b"a long path")
    add("ü/", None)
    add("ü/ñ", "ü".encode())
    add("many/", None)
    for number in range(500):
        add(f"many/{number:04}", b"%d" % number)
    for name in ("gone", "file-becomes-directory"):
        add(name, b"of the lower layer")
    for name in ("gone-directory/", "directory-becomes-file/"):
        add(name, None)
        add(f"{name}below", b"of the lower layer")


def _upper(add: Add) -> None:
    add(".wh.gone")
    add(".wh.gone-directory")
    add("bin/", None)
    add("bin/.wh.hard")
    add("bin/ping", b"another ping\n", mode=0o700, uid=3)
    add("etc/", None, mode=0o755)
    add("etc/.wh..wh..opq")
    add("etc/new", NEW)
    add("file-becomes-directory/", None)
    add("file-becomes-directory/below", b"of the upper layer")
    add("directory-becomes-file", b"of the upper layer")
    add("usr/", None)
    add("usr/noise", noise("upper", 2 << 20))


def show(folder: Path) -> bytes:
    """A static program that writes a file to stdout: what a container of the image can run."""
    source = folder / "show.c"
    source.write_text("""
        #include <stdio.h>
        int main(int count, char **words) {
            FILE *file = count == 2 ? fopen(words[1], "r") : NULL;
            if (!file) return 1;
            for (int byte; (byte = getc(file)) != EOF;) putchar(byte);
            return 0;
        }
    """)
    out = folder / "show"
    subprocess.run([program("gcc"), "-static", "-Os", "-s", "-o", out, source], check=True)
    return out.read_bytes()


def layout(path: Path) -> layouts.Layout:
    """The image: two packed layers that the platforms share, and for each a tar that is not
    packed; an index of the platforms is "latest"."""
    path.mkdir()
    executable = show(path)
    made = layouts.Layout(path / "layout")
    shared = []
    for fill in (_lower, _upper):
        tar = _tar(fill)
        shared.append(made.plain_layer(tar, gzip.compress(tar, 6, mtime=0)))
    manifests = []
    for platform in PLATFORMS:

        def top(add: Add, platform: str = platform) -> None:
            add("platform", platform.encode())
            add("show", executable, mode=0o755)

        tar = _tar(top)
        layer = made.plain_layer(tar, tar) | {"mediaType": OCI_TAR}
        manifests.append(made.manifest([*shared, layer], platform=platform))
    made.tag(made.index(manifests))
    return made


def name(registry: registries.Registry, tag: str) -> str:
    """NAME:tag of the registry, as convert_image takes it."""
    return f"docker://{registry.host}/{NAME}:{tag}"


@contextmanager
def served(folder: Path) -> Iterator[registries.Registry]:
    """A registry with the image as NAME:plain, and as NAME:seekable what it is converted to."""
    with registries.registry(folder / "registry") as registry:
        registry.push(layout(folder / "plain").path, NAME, "plain")
        convert_image(name(registry, "plain"), name(registry, "seekable"))
        yield registry


@dataclass(frozen=True)
class Image:
    """What a registry says about one platform of an image."""

    digest: str  # of what the tag names
    layers: list[dict[str, Any]]
    config: dict[str, Any]
    id: str  # the digest of its config

    @property
    def size(self) -> int:
        return sum(layer["size"] for layer in self.layers)

    @property
    def chain(self) -> str:
        """What containerd calls it."""
        return chain_id(self.config["rootfs"]["diff_ids"])


def look(registry: registries.Registry, tag: str, platform: str = PLATFORMS[0]) -> Image:
    """NAME:tag in the registry."""

    def get(kind: str, reference: str) -> tuple[Any, str]:
        request = urllib.request.Request(f"http://{registry.host}/v2/{NAME}/{kind}/{reference}")
        request.add_header("Accept", ACCEPT)
        with urllib.request.urlopen(request) as answer:
            body = answer.read()
        return json.loads(body), sha256(body)

    found, digest = get("manifests", tag)
    for entry in found.get("manifests", []):
        if "artifactType" in entry:  # a SOCI index
            continue
        if f"{entry['platform']['os']}/{entry['platform']['architecture']}" == platform:
            found, _ = get("manifests", entry["digest"])
    config, _ = get("blobs", found["config"]["digest"])
    return Image(digest, found["layers"], config, found["config"]["digest"])
