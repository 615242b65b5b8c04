"""What zstd:chunked takes beyond hashes, alone: python -m bench.chunked_kernels TAR [LEVEL...]"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.kernels import LAUNCH, ROOT
from stargz._engine import base

SOURCES = (
    *("base/*.c", "codec/codecs.c", "codec/blocks.c", "codec/gzip.c", "codec/inflate.c"),
    *("codec/crc64.c", "codec/frames.c", "codec/roll.c", "tar/*.c", "write/chunker.c"),
)


def program() -> Path:
    out = Path(tempfile.gettempdir()) / f"stargz-chunked-kernels-{os.getuid()}.so"
    sources = [path for pattern in SOURCES for path in (ROOT / "csrc").glob(pattern)]
    flags = ["-std=gnu11", "-O3", "-fPIC", "-shared", "-I", ROOT / "csrc"]
    command = ["gcc", *flags, ROOT / "bench/chunked_kernels.c", *sources, "-pthread", "-ldl"]
    subprocess.run([*command, "-o", out], check=True)
    return out


def main() -> None:
    base.need("zstd")
    args = [base.loaded()["zstd"], sys.argv[1], *(sys.argv[2:] or ["3"])]
    command = [sys.executable, "-c", LAUNCH, program(), *args]
    made = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    size = made["contents"]
    print(f"{made['frames']:,} frames, {size / 1e6:.1f} MB of contents")
    for name in ("cut", "crc64"):
        print(f"{name:8}{made[name]:8.3f} s {size / made[name] / 1e9:6.2f} GB/s")
    for level, (seconds, packed) in made["zstd"].items():
        print(f"zstd {level:3}{seconds:8.3f} s {packed / 1e6:9.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
