"""The Go reference implementation reads what we write, and we read what it writes."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracle import LANDMARKS, toc_entries
from random_trees import random_tar

import stargz

REF = Callable[..., Any]


def without_landmarks(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name not in LANDMARKS}


def read_all(path: Path) -> dict[str, str]:
    """sha256 of every regular file (hardlinks too), verified as it is read."""
    found = {}
    with stargz.open(path) as layer:
        layer.verify()
        for name in layer.names():
            if layer.entry(name).type in ("reg", "hardlink"):
                found[name] = hashlib.sha256(layer.read(name)).hexdigest()
    return without_landmarks(found)


OURS: dict[str, dict[str, Any]] = {
    "default": {},
    "level 2": {"level": 2},
    "level 6": {"level": 6},
    "chunk 4096": {"chunk_size": 4096},
    "lossless": {"lossless": True},
    "lossless, chunk 4096": {"lossless": True, "chunk_size": 4096},
    "one thread": {"threads": 1, "chunk_size": 8192},
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", OURS.values(), ids=OURS)
def test_reference_verifies_ours(
    reference: REF, tmp_path: Path, options: dict[str, Any], seed: int
) -> None:
    files = random_tar(tmp_path / "in.tar", seed)
    result = stargz.convert(tmp_path / "in.tar", tmp_path / "out.esgz", **options)
    seen = reference("verify", "-toc-digest", result.toc_digest, tmp_path / "out.esgz")
    assert seen["toc_digest"] == result.toc_digest
    assert without_landmarks(seen["files"]) == files


@pytest.mark.parametrize("seed", range(4))
def test_reference_verifies_ours_prioritized(reference: REF, tmp_path: Path, seed: int) -> None:
    files = random_tar(tmp_path / "in.tar", seed)
    wanted = sorted(files)[::3]
    result = stargz.convert(
        tmp_path / "in.tar", tmp_path / "out.esgz", prioritized=wanted, chunk_size=8192
    )
    seen = reference("verify", "-toc-digest", result.toc_digest, tmp_path / "out.esgz")
    assert without_landmarks(seen["files"]) == files
    assert ".prefetch.landmark" in seen["files"]


@pytest.mark.parametrize("seed", range(2))
def test_reference_reads_our_legacy_stargz(reference: REF, tmp_path: Path, seed: int) -> None:
    files = random_tar(tmp_path / "in.tar", seed)
    stargz.convert(tmp_path / "in.tar", tmp_path / "out", format="stargz", chunk_size=8192)
    assert without_landmarks(reference("verify", tmp_path / "out")["files"]) == files


@pytest.mark.parametrize("seed", range(4))
def test_reference_reads_our_min_chunk_size(reference: REF, tmp_path: Path, seed: int) -> None:
    """It opens and reads shared members, but its VerifyTOC refuses them (format.md, 7)."""
    if reference.version == "debian":  # type: ignore[attr-defined]
        pytest.skip("the reference reads innerOffset from 0.13 on; Debian has 0.12")
    files = random_tar(tmp_path / "in.tar", seed)
    result = stargz.convert(
        tmp_path / "in.tar", tmp_path / "out.esgz", chunk_size=8192, min_chunk_size=100_000
    )
    assert without_landmarks(reference("verify", tmp_path / "out.esgz")["files"]) == files
    with pytest.raises(RuntimeError, match="found twice"):
        reference("verify", "-toc-digest", result.toc_digest, tmp_path / "out.esgz")


THEIRS: dict[str, tuple[object, ...]] = {
    "default": (),
    "level 1": ("-level", 1),
    "chunk 4096": ("-chunk-size", 4096),
    "lossless": ("-lossless", "-chunk-size", 8192),
    "min chunk": ("-chunk-size", 8192, "-min-chunk-size", 50_000),
    "six workers": ("-workers", 6, "-chunk-size", 8192),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", THEIRS.values(), ids=THEIRS)
def test_we_verify_reference(
    reference: REF, tmp_path: Path, options: tuple[object, ...], seed: int
) -> None:
    old = reference.version == "debian"  # type: ignore[attr-defined]
    if old and {"-min-chunk-size", "-workers"} & set(options):
        pytest.skip("Debian's reference 0.12 has neither minimum chunk size nor workers")
    files = random_tar(tmp_path / "in.tar", seed)
    built = reference("build", *options, tmp_path / "in.tar", tmp_path / "ref.esgz")
    assert read_all(tmp_path / "ref.esgz") == files
    with stargz.open(tmp_path / "ref.esgz") as layer:
        assert layer.toc_digest == built["toc_digest"]


@pytest.mark.parametrize("seed", range(4, 8))
@pytest.mark.parametrize("prioritized", [False, True], ids=["plain", "prioritized"])
def test_same_toc_as_reference(
    reference: REF, tmp_path: Path, seed: int, prioritized: bool
) -> None:
    files = random_tar(tmp_path / "in.tar", seed)
    wanted = sorted(files)[::4] if prioritized else []
    # The golden tars go in plain; this one compressed, as layers come.
    source = tmp_path / "in.tar.gz"
    source.write_bytes(gzip.compress((tmp_path / "in.tar").read_bytes(), 6))
    flags = [flag for name in wanted for flag in ("-prioritize", name)]
    # Each of its workers begins anew with the user names, so it gets only one.
    one = {"GOMAXPROCS": "1"}
    reference("build", *flags, "-chunk-size", 8192, source, tmp_path / "ref.esgz", env=one)
    stargz.convert(source, tmp_path / "our.esgz", chunk_size=8192, prioritized=wanted)
    assert toc_entries(tmp_path / "our.esgz") == toc_entries(tmp_path / "ref.esgz")
