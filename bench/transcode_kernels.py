"""What `--level reuse` takes beyond hashes, alone: python -m bench.transcode_kernels TAR.GZ..."""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
from itertools import chain
from pathlib import Path

from bench.kernels import LAUNCH, ROOT, compiled
from stargz._engine import base


@functools.cache
def program() -> Path:
    sources = (sorted((ROOT / "csrc" / room).glob("*.c")) for room in ("base", "codec", "tar"))
    return compiled(ROOT / "bench/transcode_kernels.c", chain.from_iterable(sources))


class Kernels:
    """Run the kernels on one tar.gz as often as wanted; medians at the end."""

    def __init__(self, source: Path, cores: int) -> None:
        base.need("isal")
        args = [program(), base.loaded()["isal"], str(cores), source]
        self.command = [sys.executable, "-c", LAUNCH, *args]
        self.runs: list[dict[str, float]] = []

    def __call__(self) -> None:
        done = subprocess.run(self.command, check=True, stdout=subprocess.PIPE)
        self.runs.append(json.loads(done.stdout))

    def median(self, name: str) -> float:
        return statistics.median(run[name] for run in self.runs)


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    for path in sys.argv[1:]:
        kernels = Kernels(Path(path), cores)
        for _ in range(3):
            kernels()
        of = kernels.median
        print(f"{path}: {of('input') / 1e6:.2f} MB, {of('members'):,.0f} members")
        ratio = of("tokens") / of("inflate")
        print(f"  inflate {of('inflate'):8.3f} s; to tokens {of('tokens'):.3f} s ({ratio:.2f})")
        for name in ("level 1", "reuse"):
            print(f"  {name:8}{of(name):8.3f} s {of(f'{name} bytes') / 1e6:9.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
