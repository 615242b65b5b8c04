"""The commands on layers in zstd:chunked, in both dialects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from chunked_layers import FORMATS, a_tar, convert
from command import each_here, fails_here, here, ok_here
from mounts import cli_mount, needs_fuse
from servers import nginx

import stargz
import stargz.fsspec

DIALECTS = {
    "zstd:chunked": "both",
    "zstd:chunked-stargz": "stargz-snapshotter",
    "containers/storage": "containers/storage",
    "stargz-snapshotter": "stargz-snapshotter",
}


@pytest.fixture(params=[*FORMATS, "containers/storage", "stargz-snapshotter"])
def made(request: pytest.FixtureRequest, tmp_path: Path, data: Path) -> tuple[Path, Path, str]:
    """A layer, the tar that it has, and the digest of its TOC: ours, and those that the packages of
    Go made."""
    blob, tar = tmp_path / "layer.zst", tmp_path / "layer.tar"
    if request.param == "containers/storage":
        shutil.copy(data / "containers_storage.zst", blob)
        shutil.copy(data / "tree.tar", tar)
    elif request.param == "stargz-snapshotter":
        shutil.copy(data / "zstd_chunked.zst", blob)
        shutil.copy(data / "zstd_chunked.tar", tar)
    else:
        tar.write_bytes(a_tar())
        blob.write_bytes(convert(tar.read_bytes(), request.param, chunk_size=10_000)[0])
    with stargz.open(blob) as layer:
        return blob, tar, layer.toc_digest


def test_what_containers_storage_made(data: Path) -> None:
    notes = json.loads((data / "containers_storage.json").read_text())
    with (
        stargz.open(
            data / "containers_storage.zst", annotations=notes, require_verified=True
        ) as layer,
        stargz.open(data / "tree.esgz") as other,
    ):
        assert layer.verified
        assert sorted(layer) == sorted(other)
        for name in layer.toc.names("reg"):
            assert layer.read(name) == other.read(name)


def test_reading_commands(
    made: tuple[Path, Path, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    blob, tar, digest = made
    dialect = DIALECTS[request.node.callspec.params["made"]]
    gzip = tmp_path / "layer.esgz"
    ok_here("-q", "convert", tar, gzip)
    options = ["--toc-digest", digest, "--require-verified"]
    trees = [["ls", "-R"], ["find"], ["tree"], ["du", "--all"]]
    with tarfile.open(tar) as opened:
        files = [one.name for one in opened if one.isreg() and one.size]
    lines = [
        *([*words, *options, blob] for words in trees),
        *([*words, gzip] for words in trees),
        ["info", "--json", blob],
        ["toc", blob],
        ["diff", "--json", gzip, blob],
        ["ls", "--toc-digest", "sha256:" + "0" * 64, blob],
    ]
    told = each_here(*lines)
    assert [code for code, _, _ in told] == [0] * (len(lines) - 1) + [3]
    said = [out for _, out, _ in told]
    assert said[:4] == said[4:8]
    info, toc, found = map(json.loads, said[8:11])
    assert (info["kind"], info["toc_digest"]) == ("zstd:chunked", digest)
    assert toc["version"] == 1
    assert info["tar_split"] == ("tarSplitDigest" in toc)
    assert info["dialect"] == dialect
    assert not found["added"] + found["removed"] + found["changed"]
    assert "the table of contents" in told[-1][2]
    both = [ok_here("cat", one, *files, text=False) for one in (blob, gzip)]
    assert both[0] == both[1]


def test_extract(made: tuple[Path, Path, str], tmp_path: Path) -> None:
    blob, tar, _ = made
    for folder, source in (("a", blob), ("b", tar)):
        done = here("extract", "--setid", "--devices", source, "-C", tmp_path / folder)
        assert done.returncode == 0, done.stderr
    same = subprocess.run(
        ["diff", "-r", "--no-dereference", tmp_path / "a", tmp_path / "b"],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in same.stdout.splitlines() if not line.startswith("File ")]
    assert not lines, same.stdout


@pytest.mark.parametrize("made", FORMATS, indirect=True)
def test_patches_are_refused(made: tuple[Path, Path, str], tmp_path: Path) -> None:
    blob, tar, _ = made
    gzip, patch = tmp_path / "layer.esgz", tmp_path / "patch"
    ok_here("-q", "convert", tar, gzip)
    refused = each_here(
        ["delta", gzip, blob, patch], ["delta", blob, gzip, patch], ["toc", "--members", blob]
    )
    for code, _, said in refused:
        assert code == 1
        assert f"{blob}: a layer in zstd:chunked, and a patch is between layers in gzip" in said
    assert not patch.exists()
    ok_here("-q", "delta", gzip, gzip, patch)
    assert "BASE is not the blob" in fails_here(3, "apply", blob, patch, tmp_path / "new")


@pytest.mark.parametrize("made", FORMATS, indirect=True)
def test_over_http(made: tuple[Path, Path, str], tmp_path: Path) -> None:
    blob, tar, digest = made
    with nginx(tmp_path, tmp_path / "nginx") as server:
        url = f"{server}/{blob.name}"
        assert ok_here("ls", "-R", "--toc-digest", digest, url) == ok_here("ls", "-R", blob)
        files = stargz.fsspec.StargzFileSystem(url, toc_digest=digest)
        with tarfile.open(tar) as opened:
            for file in opened:
                if file.isreg():
                    content = opened.extractfile(file)
                    assert content is not None
                    assert files.cat_file(os.path.normpath(file.name)) == content.read()


def test_mounted(made: tuple[Path, Path, str], tmp_path: Path) -> None:
    needs_fuse()
    blob, tar, digest = made
    with (
        stargz.open(blob) as layer,
        cli_mount("--toc-digest", digest, blob, directory=tmp_path / "m") as directory,
        tarfile.open(tar) as opened,
    ):
        for info in opened:
            name = os.path.normpath(info.name)
            there = (directory / name).lstat()
            if not info.islnk():
                assert there.st_mtime_ns == layer.entry(name).mtime_ns
            if info.isreg():
                content = opened.extractfile(info)
                assert content is not None
                assert (directory / name).read_bytes() == content.read()
                with (directory / name).open("rb") as file:
                    file.seek(info.size // 2)
                    assert len(file.read()) == info.size - info.size // 2
