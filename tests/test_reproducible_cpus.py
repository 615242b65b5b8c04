"""Levels 1, 2 and reuse give the same bytes on old and new CPUs: ISA-L picks its code by CPU, and
so does what codes tokens again; qemu-user plays the models."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic
from failing import sanitized

import stargz

MODELS = ("Nehalem", "SandyBridge", "Haswell", "Skylake-Server")
LEVELS = (1, 2, "reuse")
SCRIPT = """
import sys, stargz
src, dst, *levels = sys.argv[1:]
for level in levels:
    level = int(level) if level.isdigit() else level
    print(stargz.convert(src, dst, level=level, chunk_size=65536, threads=2).digest)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts, and what does not get smaller. (The pinned tar is left to level 1.)"""
    path = tmp_path_factory.mktemp("cpus") / "in.tar.gz"
    files = [("noise", synthetic.noise("noise", 100_000)), ("zeros", bytes(300_000))]
    for text in sorted(Path(stargz.__file__).parent.rglob("*.py")):
        files.append((text.name, text.read_bytes()))
    with tarfile.open(path, "w:gz", compresslevel=9) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def native(source: Path) -> list[str]:
    levels: tuple[Any, ...] = LEVELS
    made = [
        stargz.convert(source, source.with_suffix(".native"), level=level, chunk_size=65536).digest
        for level in levels
    ]
    assert len(set(made)) == len(made)
    return made


@pytest.mark.parametrize("model", MODELS)
def test_same_bytes_on_cpu(
    tool: Callable[[str], str], source: Path, native: list[str], tmp_path: Path, model: str
) -> None:
    if sanitized():
        pytest.skip("AddressSanitizer's shadow memory has no room beside the emulator's")
    if sys.implementation.name != "cpython" or not sys.platform.startswith("linux"):
        pytest.skip("qemu-user runs Linux programs only")
    command = [tool("qemu-x86_64"), "-cpu", model, sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        [*command, source, tmp_path / "out", *map(str, LEVELS)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == native
