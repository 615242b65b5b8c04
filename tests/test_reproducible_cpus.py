"""Levels 1 and 2 give the same bytes on old and new CPUs: ISA-L picks its code by CPU, and
qemu-user plays the models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic

import stargz

MODELS = ("Nehalem", "SandyBridge", "Haswell", "Skylake-Server")
LEVELS = (1, 2)
SCRIPT = """
import sys, stargz
src, dst, *levels = sys.argv[1:]
for level in levels:
    print(stargz.convert(src, dst, level=int(level), chunk_size=65536, threads=2).digest)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cpus") / "in.tar"
    path.write_bytes(synthetic.tar_bytes())
    return path


@pytest.fixture(scope="module")
def native(source: Path) -> list[str]:
    return [
        stargz.convert(source, source.with_suffix(".native"), level=level, chunk_size=65536).digest
        for level in LEVELS
    ]


@pytest.mark.parametrize("model", MODELS)
def test_same_bytes_on_cpu(
    tool: Callable[[str], str], source: Path, native: list[str], tmp_path: Path, model: str
) -> None:
    if sys.implementation.name != "cpython" or not sys.platform.startswith("linux"):
        pytest.skip("qemu-user runs Linux programs only")
    command = [tool("qemu-x86_64"), "-cpu", model, sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        [*command, source, tmp_path / "out", *map(str, LEVELS)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == native
