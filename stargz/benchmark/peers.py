"""What else does what stargz does: whether it is here, in which version, how to get it; and each as
a function that runs it once."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stargz.benchmark import children

# It may be of another environment: it and what it needs must not meet what is measured here.
_RATARMOUNT = os.environ.get("RATARMOUNT") or "ratarmount"


@dataclass(frozen=True)
class Peer:
    """A program, or with `module` a package of this Python."""

    name: str
    get: str  # how to get it
    module: bool = False
    version_words: tuple[str, ...] = ("--version",)
    program: str = ""  # where it is not of its name on the PATH

    @property
    def path(self) -> str | None:
        """Where it is; None where it is not."""
        if self.module:
            found = importlib.util.find_spec(self.name)
            return found.origin or self.name if found else None
        return shutil.which(self.program or self.name)

    @functools.cached_property
    def version(self) -> str:
        """What it says of its version, as short as that can be told."""
        if self.module:
            try:
                return importlib.metadata.version(self.name)
            except importlib.metadata.PackageNotFoundError:
                return ".".join(map(str, sys.version_info[:3]))  # comes with Python
        import subprocess

        try:
            done = subprocess.run(
                [self.path or self.name, *self.version_words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=30,
            )
        except (OSError, subprocess.TimeoutExpired):
            return "unknown version"
        found = re.search(r"\d+(?:\.\d+)+[\w.+~-]*", done.stdout + done.stderr)
        return found[0].rstrip(".") if found else "unknown version"


def _debian(package: str) -> str:
    return f"apt-get install {package}"


PEERS = {
    peer.name: peer
    for peer in (
        Peer("tar", _debian("tar")),
        Peer("gzip", _debian("gzip")),
        Peer("pigz", _debian("pigz")),
        Peer("igzip", _debian("isal")),
        Peer("zstd", _debian("zstd")),
        Peer("xdelta3", _debian("xdelta3"), version_words=("-V",)),
        Peer("rsync", _debian("rsync")),
        Peer("mksquashfs", _debian("squashfs-tools"), version_words=("-version",)),
        Peer("unsquashfs", _debian("squashfs-tools"), version_words=("-version",)),
        Peer("squashfuse", _debian("squashfuse"), version_words=("--help",)),
        Peer("ratarmount", "pip install ratarmount", program=_RATARMOUNT),
        Peer("indexed_gzip", "pip install indexed_gzip", module=True),
        Peer("rapidgzip", "pip install rapidgzip", module=True),
        Peer("tarfile", "", module=True),
        Peer("zipfile", "", module=True),
        Peer("skopeo", _debian("skopeo")),
        Peer("containerd", _debian("containerd")),
        Peer("ctr-remote", _debian("stargz-snapshotter")),
        Peer("soci", "https://github.com/awslabs/soci-snapshotter/releases"),
    )
}


@functools.cache
def has(*names: str) -> bool:
    """Whether all of these are here."""
    return all(PEERS[name].path for name in names)


def found() -> Iterator[Peer]:
    """Those that are here."""
    return (peer for peer in PEERS.values() if has(peer.name))


def missing() -> Iterator[Peer]:
    """Those that are not."""
    return (peer for peer in PEERS.values() if not has(peer.name))


# --- compressed, and back ---------------------------------------------------------------------

# What each compressor is run as, from its input to standard output.
COMPRESSORS: dict[str, tuple[str, ...]] = {
    "gzip -6": ("gzip", "-6", "-n", "-c"),
    "pigz -6": ("pigz", "-6", "-n", "-c"),
    "igzip -1": ("igzip", "-1", "-c"),
    "zstd -3 -T0": ("zstd", "-q", "-3", "-T0", "-c"),
}
# And the same of what tests and unpacks their output.
TESTERS: dict[str, tuple[str, ...]] = {
    name: (name, "-t") for name in ("gzip", "pigz", "igzip", "zstd")
}
UNPACKERS = {name: (name, "-d", "-c") for name in TESTERS}


def compress(name: str, src: Path, dst: Path) -> None:
    """One of COMPRESSORS, from a file to a file."""
    children.run(*COMPRESSORS[name], src, out=dst)


def suffix(name: str) -> str:
    """How the output of one of COMPRESSORS is called."""
    return ".zst" if name.startswith("zstd") else ".gz"


def unpacked_size(name: str, src: Path) -> int:
    """Bytes that one of UNPACKERS makes of a file."""
    return children.stream(*UNPACKERS[name], src)


# --- tars -------------------------------------------------------------------------------------


def tar_xzf(src: Path, target: Path, *more: str) -> None:
    """Extract a tar.gz; `more` are options as `-I pigz`."""
    unpack = more or ("-z",)
    children.run("tar", "-x", *unpack, "-f", src, "-C", target)


def tar_cat(src: Path, name: str) -> bytes:
    """One file of a tar.gz, of which tar then reads no more."""
    return children.output("tar", "-x", "-z", "-O", "--occurrence=1", "-f", src, "--", name)


def zip_tree(tree: Path, out: Path) -> None:
    """A zip of the files in a directory, by Python's zipfile."""
    import zipfile

    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for folder, folders, files in os.walk(tree):
            folders.sort()
            for name in sorted(files):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    archive.write(path, path.relative_to(tree))


# --- indexes of gzip --------------------------------------------------------------------------


def indexed_gzip(src: Path, index: Path | None = None) -> Any:
    """The tar in a tar.gz by indexed_gzip, with an index that it made before."""
    file = importlib.import_module("indexed_gzip").IndexedGzipFile(str(src))
    if index is not None:
        file.import_index(str(index))
    return file


def index_by_indexed_gzip(src: Path, index: Path) -> None:
    """Make that index."""
    with indexed_gzip(src) as file:
        file.build_full_index()
        file.export_index(str(index))


def rapidgzip(src: Path, index: Path | None = None) -> Any:
    """The tar in a tar.gz by rapidgzip, on all cores, with an index that it made before."""
    file = importlib.import_module("rapidgzip").open(str(src), parallelization=0)
    if index is not None:
        file.import_index(str(index))
    return file


def index_by_rapidgzip(src: Path, index: Path) -> None:
    """Make that index."""
    with rapidgzip(src) as file:
        while file.read(4 << 20):
            pass
        file.export_index(str(index))


def ratarmount(*args: object) -> list[str]:
    """Its command."""
    return [_RATARMOUNT, *map(str, args)]


# --- squashfs ---------------------------------------------------------------------------------


def mksquashfs(tree: Path, out: Path) -> None:
    """An image of a directory, compressed by zstd."""
    out.unlink(missing_ok=True)
    children.run("mksquashfs", tree, out, "-comp", "zstd", "-quiet", "-no-progress")


def unsquashfs(src: Path, target: Path) -> None:
    """Unpack an image into a directory."""
    children.run("unsquashfs", "-quiet", "-no-progress", "-f", "-d", target, src)


def unsquashfs_cat(src: Path, name: str) -> bytes:
    """One file of an image."""
    return children.output("unsquashfs", "-cat", src, name)


# --- the least that a process takes -----------------------------------------------------------


def python_pass() -> None:
    """A process of this Python that does nothing."""
    children.run(sys.executable, "-c", "pass")
