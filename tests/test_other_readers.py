"""What we write is still a tar.gz to everybody else: GNU tar, gzip, igzip, Python."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic

import stargz

Tool = Callable[[str], str]

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "level 2": {"level": 2},
    "level 12": {"level": 12},
    "small chunks": {"chunk_size": 4096},
    "minimum chunk size": {"chunk_size": 4096, "min_chunk_size": 100_000},
    "prioritized": {"prioritized": ["usr/large"]},
    "lossless": {"lossless": True},
    "legacy": {"format": "stargz"},
}
OURS = {".prefetch.landmark", ".no.prefetch.landmark", "stargz.index.json"}


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readers") / "in.tar"
    path.write_bytes(synthetic.tar_bytes())
    return path


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def blob(
    request: pytest.FixtureRequest, tar: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("readers") / "out.tar.gz"
    stargz.convert(tar, path, **request.param)
    return path


def members(path: Path) -> dict[str, tuple[Any, ...]]:
    """Name: metadata and content of every member but those a converter adds."""
    found = {}
    with tarfile.open(path) as archive:
        for info in archive:
            if info.name in OURS:
                continue
            file = archive.extractfile(info) if info.isreg() else None
            content = hashlib.sha256(file.read()).hexdigest() if file else None
            meta = (info.type, info.mode, info.mtime, info.uid, info.linkname, info.size)
            found[info.name] = (*meta, content)
    return found


def test_python_tarfile(tar: Path, blob: Path) -> None:
    assert members(blob) == members(tar)


def test_gnu_tar(tool: Tool, tar: Path, blob: Path, tmp_path: Path) -> None:
    program = tool("tar")
    for source, name in ((tar, "in"), (blob, "out")):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [program, "-xf", source, "-C", tmp_path / name], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    excluded = [f"--exclude={name}" for name in OURS]
    done = subprocess.run(
        ["diff", "-r", *excluded, tmp_path / "in", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "out/usr/hard").samefile(tmp_path / "out/usr/small-000")


def test_gzip(tool: Tool, blob: Path) -> None:
    done = subprocess.run([tool("gzip"), "-t", blob], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_igzip(tool: Tool, blob: Path) -> None:
    done = subprocess.run([tool("igzip"), "-d", "-c", blob], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == gzip.decompress(blob.read_bytes())


def test_lossless_holds_the_input_as_it_is(tar: Path, tmp_path: Path) -> None:
    stargz.convert(tar, tmp_path / "out", lossless=True)
    inflated = gzip.decompress((tmp_path / "out").read_bytes())
    assert inflated.startswith(tar.read_bytes())
