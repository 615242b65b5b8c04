"""The kernels' own times: the bound that efficiency is measured against.

The efficiency of a conversion is the core-seconds of its kernels (inflate of the input, every
hash pass, deflate of the same members, each with its CRC, or zstd of the same frames; of
zstd:chunked also where chunks end, and CRC-64), each alone on the same data with
all cores busy, over cores x wall time. bench/kernels.c times them; it links the package's
own kernels and loads the same codec libraries.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import stargz
from stargz._engine import base
from stargz.compressions import HEAD, compression

ROOT = Path(__file__).parent.parent

CONVERT = ("inflate", "diff_id", "chunks", "files", "pack", "blob")
CHUNKED = (*CONVERT, "cut", "crc64")
VERIFY = ("inflate_blob", "chunks", "files")


# The wheels' codec libraries need a running Python around them: so kernels.c is a library,
# and its main is called from one.
LAUNCH = """
import ctypes, sys
args = [arg.encode() for arg in sys.argv[1:]]
sys.exit(ctypes.CDLL(args[0]).main(len(args), (ctypes.c_char_p * len(args))(*args)))
"""


SOURCES = (
    *("base/status.c", "base/vec.c", "codec/codecs.c", "codec/blocks.c", "codec/gzip.c"),
    *("codec/inflate.c", "codec/zstd.c", "codec/crc64.c", "codec/frames.c", "codec/roll.c"),
    "write/chunker.c",
)


def compiled(main: Path, sources: Iterable[Path]) -> Path:
    """The library of a C program and the engine's sources that it needs. Another run may have its
    own in use meanwhile, of other sources."""
    digest = hashlib.sha256()
    sources = [main, *sources]
    for path in (*sources, *sorted((ROOT / "csrc").rglob("*.h"))):
        digest.update(path.read_bytes())
    name = f"stargz-{main.stem}-{digest.hexdigest()[:16]}-{os.getuid()}.so"
    out = Path(tempfile.gettempdir()) / name
    if not out.exists():
        flags = ["-std=gnu11", "-O3", "-fPIC", "-shared", "-I", ROOT / "csrc"]
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, name)
            command = ["gcc", *flags, *sources, "-pthread", "-ldl", "-o", made]
            subprocess.run(command, check=True)
            made.rename(out)
    return out


@functools.cache
def program() -> Path:
    return compiled(ROOT / "bench/kernels.c", [ROOT / "csrc" / name for name in SOURCES])


def libraries(blob: Path, level: int) -> list[str]:
    """The files of the codec libraries that the engine itself loads."""
    with blob.open("rb") as file:
        zstd = compression(file.read(HEAD)) == "zstd"
    packer = ["zstd"] if zstd else ["libdeflate"] if level > 2 else []
    for library in ("isal", "crypto", *packer):
        base.need(library)
    files = base.loaded()
    return [files.get(name, "none") for name in ("isal", "crypto", "libdeflate", "zstd")]


def chunk_lines(blob: Path) -> str:
    """What kernels.c reads: offset, innerOffset, length and file of every chunk."""
    lines = []
    file, size = -1, 0
    with stargz.open(blob) as layer:
        entries = json.loads(layer.read_toc())["entries"]
    for entry in entries:
        if entry["type"] == "reg":
            file, size = file + 1, entry.get("size", 0)
        if entry["type"] not in ("reg", "chunk") or not size:
            continue
        length = entry.get("chunkSize", 0) or size - entry.get("chunkOffset", 0)
        lines.append(f"{entry.get('offset', 0)} {entry.get('innerOffset', 0)} {length} {file}\n")
    return "".join(lines)


class Kernels:
    """Run the kernels on one input and its blob as often as wanted; medians at the end."""

    def __init__(self, source: Path, blob: Path, level: int, cores: int) -> None:
        args = [*libraries(blob, level), source, blob, str(level), str(cores)]
        self.command = [sys.executable, "-c", LAUNCH, program(), *args]
        self.chunks = chunk_lines(blob)
        self.runs: list[dict[str, float]] = []

    def __call__(self) -> None:
        done = subprocess.run(
            self.command, input=self.chunks, check=True, stdout=subprocess.PIPE, text=True
        )
        self.runs.append(json.loads(done.stdout))

    def core_seconds(self, names: tuple[str, ...]) -> float:
        return sum(sorted(run[name] for run in self.runs)[len(self.runs) // 2] for name in names)

    def speed(self, name: str) -> float:
        """Bytes of the tar a second."""
        return self.runs[0]["bytes"] / self.core_seconds((name,))


def main() -> None:
    source, blob, level = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    cores = len(os.sched_getaffinity(0))
    kernels = Kernels(source, blob, level, cores)
    for _ in range(3):
        kernels()
    for name in kernels.runs[0]:
        if name != "bytes":
            print(f"{name:14}{kernels.core_seconds((name,)):8.3f} s")
    for what, names in (("convert", CONVERT), ("zstd:chunked", CHUNKED), ("verify", VERIFY)):
        print(f"{what:14}{kernels.core_seconds(names) / cores:8.3f} s on {cores} cores")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m bench.kernels INPUT BLOB LEVEL")
    main()
