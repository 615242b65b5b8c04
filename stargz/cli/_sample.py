"""A small root tree and an image of it, the same on every machine: the examples of README and of
docs/ are about this one."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tarfile

_MTIME = 1704067200  # 2024-01-01
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\n"

Content = bytes | str | None
"""What a file has, where a symlink leads, or nothing: a directory."""


def tree() -> dict[str, Content]:
    """Name to content, in the order of the tar."""
    library = hashlib.shake_128(b"libdemo").hexdigest(1 << 20).encode()  # half as large compressed
    return {
        "bin": "usr/bin",
        "etc": None,
        "etc/passwd": _PASSWD,
        "lib": "usr/lib",
        "usr": None,
        "usr/bin": None,
        "usr/bin/tool": b"#!/bin/sh\n" * 1000,
        "usr/lib": None,
        "usr/lib/libdemo.so": "libdemo.so.1",
        "usr/lib/libdemo.so.1": library,
        "usr/share": None,
        "usr/share/table.csv": b"name,bytes\nlayer,123\n",
    }


def write_tree(tar: tarfile.TarFile) -> list[str]:
    """Add the tree to a tar; returns the names of the regular files, in order."""
    import tarfile

    names = []
    for name, content in tree().items():
        info = tarfile.TarInfo(name)
        info.mtime = _MTIME
        info.mode = 0o755 if content is None or "/bin/" in name else 0o644
        if content is None:
            info.type = tarfile.DIRTYPE
        elif isinstance(content, str):
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, content, 0o777
        else:
            info.size = len(content)
            names.append(name)
        tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return names


def write_layout(folder: Path, tar: Path, tar_gz: Path) -> None:
    """Make an OCI layout of an image with one layer: as a build leaves it, not seekable."""
    from stargz.digests import digest_of
    from stargz.oci.formats.layout_writer import LayoutDestination
    from stargz.oci.formats.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
    from stargz.oci.formats.reference import LayoutReference

    with tar.open("rb") as file:
        diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    with tar_gz.open("rb") as file:
        layer = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/tool"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": OCI_LAYER, "digest": layer, "size": tar_gz.stat().st_size}],
    }
    layout = LayoutDestination(LayoutReference(str(folder), "latest"))
    with layout.writer() as blob, tar_gz.open("rb") as file:
        while data := file.read(1 << 20):
            blob.write(data)
        blob.commit(layer)
    layout.write_blob(config, digest_of(config))
    layout.write_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, named=True)
    layout.close()
