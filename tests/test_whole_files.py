"""Files of several chunks of which not all have a digest: that of the file is checked by whoever
reads all of it, and what reads a part of it says that it is not verified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blobs
import pytest
from command import run
from faraway import Faraway
from mounts import cli_mount, needs_fuse

import stargz
from stargz.errors import DigestError, UnverifiedError
from stargz.tree import Tree

CONTENT = blobs.noise("content", 5000)
OTHER = blobs.sha256(b"another file")


def some_without(keep: int) -> Callable[[list[dict[str, Any]]], None]:
    """Every `keep`th chunk has a digest."""

    def edit(rows: list[dict[str, Any]]) -> None:
        chunks = [row for row in rows if "chunkDigest" in row]
        for number, row in enumerate(chunks):
            if not keep or number % keep:
                del row["chunkDigest"]

    return edit


KINDS: dict[str, dict[str, Any]] = {
    "legacy": {"kind": "stargz"},
    "legacy, shared members": {"kind": "stargz", "pack": 3},
    "no chunk digests": {"edit": some_without(0)},
    "a few": {"edit": some_without(3)},
    "most": {"edit": some_without(2), "pack": 9},
}


def made(kind: str, wrong: bool) -> blobs.Made:
    options = dict(KINDS[kind])
    edit = options.pop("edit", lambda rows: None)

    def change(rows: list[dict[str, Any]]) -> None:
        edit(rows)
        for row in rows:
            if wrong and row["name"] == "d/f" and row["type"] == "reg":
                row["digest"] = OTHER

    tar = blobs.tar_of([("d", None), ("a", b"a"), ("d/f", CONTENT), ("e", None)])
    return blobs.build(tar, chunk_size=1024, edit=change, **options)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bad(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / "bad"
    path.write_bytes(made(kind, True).data)
    return path


@pytest.fixture
def good(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / "good"
    path.write_bytes(made(kind, False).data)
    return path


@pytest.mark.parametrize("where", [bytes, Faraway])
def test_reads(kind: str, where: Any) -> None:
    for wrong in (False, True):
        with stargz.open(where(made(kind, wrong).data), cache=False) as layer:
            tree = Tree([layer])
            reads: list[Callable[[], bytes]] = [
                lambda layer=layer: layer.read("d/f"),
                lambda layer=layer: layer.read("d/f", 0, 5000),
                lambda layer=layer: layer.open("d/f").read(),
                lambda layer=layer: b"".join(layer.open("d/f")),
                lambda tree=tree: tree.read("d/f"),
                lambda layer=layer: in_pieces(layer, 700),
            ]
            for read in reads:
                if not wrong:
                    assert read() == CONTENT
                    continue
                with pytest.raises(DigestError, match="d/f: the file does not match") as caught:
                    read()
                assert caught.value.expected == OTHER
                assert caught.value.actual == "sha256:" + hashlib.sha256(CONTENT).hexdigest()
            # Parts have their CRC.
            assert layer.read("d/f", 1, 4999) == CONTENT[1:]
            assert layer.read("d/f", 0, 4999) == CONTENT[:-1]
            with layer.open("d/f") as file:
                file.seek(10)
                assert file.read() == CONTENT[10:]
    with stargz.open(made(kind, True).data, verify=False) as layer:
        assert layer.read("d/f") == CONTENT


def in_pieces(layer: stargz.Layer, size: int) -> bytes:
    found = b""
    with layer.open("d/f") as file:
        assert file.read(100) == CONTENT[:100]
        file.seek(0)  # from the start again
        while piece := file.read(size):
            found += piece
    return found


def test_commands(bad: Path, good: Path, tmp_path: Path) -> None:
    says = f"d/f: the file does not match its digest: expected {OTHER}, got sha256:"
    for words in (
        ["cat", bad, "d/f"],
        ["extract", bad, "-C", tmp_path / "out"],
        ["extract", bad, "d/f", "-C", tmp_path / "out"],
        ["toc", "--members", bad],
        ["delta", good, bad, "-o", tmp_path / "patch"],
        ["delta", bad, good, "-o", tmp_path / "patch"],
    ):
        done = run(*words)
        assert done.returncode == 3, (words, done.stderr)
        assert says in done.stderr
    assert not (tmp_path / "patch").exists()
    assert not (tmp_path / "out/d/f").exists()
    assert run("verify", bad).returncode == 3
    assert run("delta", good, good, "-o", tmp_path / "patch").returncode == 0


def test_what_is_said_of_it(kind: str) -> None:
    blob = made(kind, False)
    with stargz.open(blob.data, toc_digest=blob.digest) as layer:
        assert not layer.verified
        assert layer.verify().verified
    with pytest.raises(UnverifiedError, match="have no digest to verify reads against"):
        stargz.open(blob.data, toc_digest=blob.digest, require_verified=True)


def test_mount(bad: Path, tmp_path: Path) -> None:
    """It reads ranges: the CRC is all there is."""
    needs_fuse()
    with cli_mount(bad, directory=tmp_path / "mnt") as directory:
        assert (directory / "d/f").read_bytes() == CONTENT
