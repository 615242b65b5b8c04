"""What `--level reuse` takes beyond hashes, alone: python -m bench.transcode_kernels TAR.GZ..."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.kernels import LAUNCH, ROOT
from stargz._engine import base

SOURCES = (
    *("base/*.c", "codec/codecs.c", "codec/blocks.c", "codec/gzip.c", "codec/inflate.c"),
    *("codec/lz*.c", "codec/recode.c", "codec/block.c", "codec/huffman.c", "tar/*.c"),
)


@functools.cache
def program() -> Path:
    out = Path(tempfile.gettempdir()) / f"stargz-transcode-kernels-{os.getuid()}.so"
    sources = [path for pattern in SOURCES for path in (ROOT / "csrc").glob(pattern)]
    flags = ["-std=gnu11", "-O3", "-fPIC", "-shared", "-I", ROOT / "csrc"]
    command = ["gcc", *flags, ROOT / "bench/transcode_kernels.c", *sources, "-pthread", "-ldl"]
    subprocess.run([*command, "-o", out], check=True)
    return out


def run(*sources: object) -> list[dict[str, Any]]:
    base.need("isal")
    base.need("libdeflate")
    loaded = base.loaded()
    args = [loaded["isal"], loaded["libdeflate"], *map(str, sources)]
    command = [sys.executable, "-c", LAUNCH, program(), *args]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    for one in run(*sys.argv[1:]):
        print(f"{one['name']}: {one['input'] / 1e6:.2f} MB, {one['members']:,} members")
        ratio = one["tokens"] / one["inflate"]
        print(f"  inflate {one['inflate']:8.3f} s; to tokens {one['tokens']:.3f} s ({ratio:.2f})")
        for name in ("level 1", "reuse"):
            seconds, size = one[name]
            print(f"  {name:8}{seconds:8.3f} s {size / 1e6:9.2f} MB")
        for name in ("level 6", "level 9"):
            print(f"  {name:8}{one[name] / 1e6:20.2f} MB (libdeflate)")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
