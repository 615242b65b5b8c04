"""Pinned digests: levels 1 and 2 give these bytes, whatever the input's wrapping, the size of
its pieces, the thread count and the processor, of one architecture. A change here is a change
for every user who caches blobs by digest: it needs a new minor version and a line in
CHANGELOG.md."""

from __future__ import annotations

import gzip
import os
import platform
import threading
from pathlib import Path
from typing import Any

import pytest
import synthetic
from oracle import sha256
from pieces import Pieces

import stargz

# Options, and the digest of the blob: on x86-64, and on aarch64, where ISA-L searches otherwise.
_PINS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"level": 1},
        "sha256:45df474a0af56b99fb0b3fdc7a989fc53b9d70f306381f8f171d95c0803f1d41",
        "sha256:f05092c2e88a39f242f8f6f0bdaf796b813a0eb403614326f4db5c979f43d6a3",
    ),
    (
        {"level": 2},
        "sha256:45f1e14249e9673408796ced8857209fff78e19c6de3e7b98b003c424c9ab671",
        "sha256:eaf566b0224e3b3a4b5ccb7f9985b5614e9d8c5bdd4d9f750b650e4a1fb1a495",
    ),
    (
        {"level": 1, "chunk_size": 65536},
        "sha256:02bf0b3f495d5b57609417557a5a7fe483227db4c0644482514f14cb078e75a1",
        "sha256:57714797541f078891a3212eb353a8b56a951eea1becd4963e5acd5995986531",
    ),
    (
        {"level": 2, "chunk_size": 65536},
        "sha256:6e50e2a3a467fff4b029fc720a9f5f775e4ac839a791940bd8b9a18a215f8040",
        "sha256:542f47695e662813f9b471116b7cc89fdb72dc81f6ea69d585869ea448e5953a",
    ),
    (
        {"level": 1, "chunk_size": 65536, "min_chunk_size": 300_000},
        "sha256:6ced0f65a80553507e34c857a9b771b07db3e4ea8c63d4940b587dd9e9985410",
        "sha256:be44e7ca38b7ef0f8ecb64fa0b75f994ea2d339c0423b6c2183d3e3f73a1a5cc",
    ),
    (
        {"level": 1, "chunk_size": 65536, "prioritized": ["usr/large", "usr/hard"]},
        "sha256:aabdfb4b11934948960bdfc5c341846d247e717907aa6b17bfb56be3e483f5a1",
        "sha256:794fc6b2986b977a57b2a92a5a8fab00e7dbbd1762ec91ef21c16338e944f2a5",
    ),
    (
        {"level": 1, "lossless": True},
        "sha256:f25c24133c4dc8c3584fa9a6981bf86cc04aff22e36b4a40eb1892e2c6ce1402",
        "sha256:7c751740850db20dba067809ecccb4fa0d98129878c0f4af607163641f9e3fde",
    ),
    (
        {"level": 1, "format": "stargz"},
        "sha256:1173dbfca2ec5a2363fc7e4b8304cd4f58822fd4754d62114d6c3ad0f857efc4",
        "sha256:c1bce44097765157b0cb4dee1a7260d6dcd5cdc77ea345a45f83b628a2531f7f",
    ),
]
_ARM = platform.machine() == "aarch64"
PINS = [(options, arm if _ARM else x86) for options, x86, arm in _PINS]
IDS = ["-".join(map(str, options.values())) for options, _ in PINS]


@pytest.fixture(scope="module")
def tar() -> bytes:
    return synthetic.tar_bytes()


@pytest.fixture(scope="module")
def source(tar: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pins") / "in.tar"
    path.write_bytes(tar)
    return path


def digest_of(src: Any, dst: Path, **options: Any) -> str:
    result = stargz.convert(src, dst, **options)
    assert result.digest == sha256(dst.read_bytes())
    return result.digest


def test_the_input_is_the_one_that_was_pinned(tar: bytes) -> None:
    assert sha256(tar) == f"sha256:{synthetic.INPUT_SHA256}"


@pytest.mark.parametrize(("options", "digest"), PINS, ids=IDS)
def test_pinned(source: Path, tmp_path: Path, options: dict[str, Any], digest: str) -> None:
    assert digest_of(source, tmp_path / "out", **options) == digest


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(("options", "digest"), PINS, ids=IDS)
def test_any_number_of_threads(
    source: Path, tmp_path: Path, options: dict[str, Any], digest: str, threads: int
) -> None:
    assert digest_of(source, tmp_path / "out", threads=threads, **options) == digest


@pytest.mark.parametrize("size", [1000, 4096, 65537, 1 << 20])
@pytest.mark.parametrize(("options", "digest"), PINS, ids=IDS)
def test_pieces_of_any_size(
    tar: bytes, tmp_path: Path, options: dict[str, Any], digest: str, size: int
) -> None:
    assert digest_of(Pieces(tar, size), tmp_path / "out", **options) == digest


@pytest.mark.parametrize("level", [0, 1, 9])
def test_the_inputs_compression_does_not_matter(tar: bytes, tmp_path: Path, level: int) -> None:
    path = tmp_path / "in.tar.gz"
    path.write_bytes(gzip.compress(tar, level))
    assert digest_of(path, tmp_path / "out") == PINS[0][1]


def test_several_gzip_members(tar: bytes, tmp_path: Path) -> None:
    parts = [tar[at : at + 700_001] for at in range(0, len(tar), 700_001)]
    (tmp_path / "in.tar.gz").write_bytes(b"".join(gzip.compress(part) for part in parts))
    assert digest_of(tmp_path / "in.tar.gz", tmp_path / "out") == PINS[0][1]


def test_real_pipe(tar: bytes, tmp_path: Path) -> None:
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(tar)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(read, "rb") as pipe:
        assert digest_of(pipe, tmp_path / "out") == PINS[0][1]
    feeder.join()
