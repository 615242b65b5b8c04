"""Whatever a tar.gz was made by, by its index it reads as tarfile reads it: by the library, and by
the kernel's mount."""

from __future__ import annotations

import gzip
import io
import json
import os
import posixpath
import random
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import blobs
import ordinary
import pytest
from command import ok, ok_here
from mounts import cli_mount, needs_fuse
from servers import nginx

import stargz

ROUNDS = int(os.environ.get("STARGZ_PROPERTY_ROUNDS", "12"))
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def random_tar(rng: random.Random) -> bytes:
    """A tree of files of all sizes, links and directories, some of them twice."""
    out = io.BytesIO()
    files: list[str] = []
    before = rng.choice(("", "./", "/", "a/../", ".//"))
    with tarfile.open(fileobj=out, mode="w", format=rng.choice(FORMATS)) as tar:
        for number in range(rng.randrange(1, 40)):
            info = tarfile.TarInfo(
                f"{before}d{rng.randrange(3)}/f{number}" + "x" * rng.choice((0, 0, 90))
            )
            info.mode = rng.choice((0o644, 0o755, 0o600))
            info.uid, info.gid = rng.randrange(3000), rng.randrange(3000)
            info.mtime = rng.randrange(2_000_000_000)
            kind = rng.random()
            if kind < 0.1 and files:
                info.type, info.linkname = tarfile.LNKTYPE, rng.choice(files)
                tar.addfile(info)
            elif kind < 0.2:
                info.type, info.linkname = tarfile.SYMTYPE, f"../d0/f{number - 1}"
                tar.addfile(info)
            else:
                if kind < 0.25 and files:
                    info.name = rng.choice(files)  # the last one counts
                size = rng.choice((0, 1, 511, 512, 513, 5000, 70_000, 200_000, 300_000))
                noise = blobs.noise(str(rng.random()), size)
                data = noise if rng.random() < 0.5 else (noise[:100] * (size // 100 + 1))[:size]
                info.size = size
                tar.addfile(info, io.BytesIO(data))
                files.append(info.name)
    return out.getvalue()


def deflated(rng: random.Random) -> Callable[[bytes], bytes]:
    """gzip by zlib in one of its many ways."""
    level, memory = rng.randrange(10), rng.randrange(1, 10)
    strategy = rng.choice((0, 1, 2, 3, 4))
    flush = rng.choice((None, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH))
    piece = rng.choice((1000, 30_000, 100_000))

    def compress(tar: bytes) -> bytes:
        body = zlib.compressobj(level, zlib.DEFLATED, 31, memory, strategy)
        out = []
        for at in range(0, len(tar), piece):
            out.append(body.compress(tar[at : at + piece]))
            if flush is not None:
                out.append(body.flush(flush))
        return b"".join(out) + body.flush()

    return compress


def same(layer: stargz.Layer, tar: bytes) -> None:
    """The layer has what tarfile has, of each name the last."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        last = {posixpath.normpath(info.name).lstrip("/"): info for info in archive}
        assert set(layer.toc.names()) - {""} == set(last)
        for name, info in last.items():
            entry = layer.entry(name)
            if info.islnk():
                continue  # it has what it is a link to, even if that is replaced behind it
            assert entry.mode & 0o7777 == info.mode
            assert (entry.uid, entry.gid, entry.mtime) == (info.uid, info.gid, info.mtime)
            if info.isfile():
                file = archive.extractfile(info)
                assert file is not None
                content = file.read()
                assert layer.read(name) == content
                if content:
                    at = len(content) * 2 // 3
                    assert layer.read(name, at, 100) == content[at : at + 100]
            elif info.issym():
                assert (entry.type, entry.link_name) == ("symlink", info.linkname)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_random_trees(seed: int) -> None:
    rng = random.Random(seed)
    tar = random_tar(rng)
    wrap = rng.choice([*ordinary.WRAPS.values(), *[deflated(rng)] * 6])
    blob = wrap(tar)
    out = io.BytesIO()
    stargz.index(blob, out, span_size=ordinary.SPAN, threads=rng.choice((1, 2, 4)))
    index = out.getvalue()
    again = io.BytesIO()
    stargz.index(io.BytesIO(blob), again, span_size=ordinary.SPAN)
    assert index == again.getvalue()
    for options in ({}, {"index": index}, {"index": index, "index_digest": blobs.sha256(index)}):
        with stargz.open(blob, **options) as layer:  # type: ignore[arg-type]
            same(layer, tar)
            assert layer.verify().ok


@pytest.mark.parametrize("tool", ["gzip", "igzip"])
def test_what_other_programs_compress(tool: str, tmp_path: Path) -> None:
    tar = ordinary.big_tar()
    (tmp_path / "any.tar").write_bytes(tar)
    path = ordinary.by_tool(tool, tmp_path / "any.tar")
    stargz.index(path, span_size=ordinary.SPAN)
    with stargz.open(path) as layer:
        same(layer, tar)


def test_npm_and_pypi(tmp_path: Path) -> None:
    """As their tools make them: no entries for directories, names in one directory."""
    source = blobs.tar_of([(f"package/{n}", b"x" * 50) for n in ("package.json", "lib/index.js")])
    (tmp_path / "left-pad.tgz").write_bytes(gzip.compress(source, 9, mtime=0))
    assert ok("find", tmp_path / "left-pad.tgz", "-name", "*.js") == "package/lib/index.js\n"
    tree = tmp_path / "demo-1.0"
    (tree / "demo").mkdir(parents=True)
    (tree / "demo/__init__.py").write_text("x = 1\n")
    (tree / "PKG-INFO").write_text("Name: demo\n")
    made = tmp_path / "demo-1.0.tar.gz"
    subprocess.run(["tar", "-C", tmp_path, "-czf", made, "demo-1.0"], check=True)
    assert ok("cat", made, "demo-1.0/demo/__init__.py") == "x = 1\n"
    assert ok("find", made, "-name", "PKG*").split() == ["demo-1.0/PKG-INFO"]


def test_names_in_front_of_all(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_text("content\n")
    made = tmp_path / "dots.tgz"
    subprocess.run(["tar", "-C", tree, "-czf", made, "."], check=True)
    assert ok("cat", made, "sub/file") == "content\n"
    assert ok("ls", made) == "sub\n"


@pytest.mark.parametrize("format", ["native", "soci"])
@pytest.mark.parametrize("wrap", ["tar", "gz"])
@pytest.mark.parametrize("names", [[], ["file"]])
def test_archives_that_end_before_their_file_does(
    names: list[str], wrap: str, format: str, tmp_path: Path
) -> None:
    """As GNU tar fills them up to whole records, one of nothing too."""
    (tmp_path / "file").write_text("content\n")
    made, index = tmp_path / f"any.{wrap}", tmp_path / "index"
    options = ["-C", str(tmp_path), *(["-z"] if wrap == "gz" else []), "-cf", str(made)]
    subprocess.run(["tar", *options, "-T", "-"], input="\n".join(names), text=True, check=True)
    ok_here("index", "--format", format, "-o", index, made)
    assert ok_here("ls", "--index", index, made).split() == names
    assert json.loads(ok_here("verify", "--json", "--index", index, made))["ok"]


def test_sparse_files(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(3 << 20)
        file.write(b"middle")
        file.seek(9 << 20)
        file.write(b"end")
        file.truncate(10 << 20)
    for form in ("gnu", "posix"):
        made = tmp_path / f"{form}.tar.gz"
        subprocess.run(
            ["tar", "-C", tmp_path, "-S", f"--format={form}", "-czf", made, "sparse"], check=True
        )
        with stargz.open(made) as layer:
            assert layer.read("sparse") == path.read_bytes()
            assert layer.read("sparse", (9 << 20) - 2, 5) == b"\0\0end"
            assert layer.verify().ok


def test_mounted(tmp_path: Path) -> None:
    needs_fuse()
    tar = ordinary.big_tar()
    (tmp_path / "www").mkdir()
    path = tmp_path / "www/any.tar.gz"
    path.write_bytes(gzip.compress(tar, 6))
    with stargz.open(path) as layer:
        names = layer.toc.names("reg")
        contents = {name: layer.read(name) for name in names}
    with cli_mount(path, directory=tmp_path / "mnt") as mounted:
        assert {name: (mounted / name).read_bytes() for name in names} == contents
        with (mounted / "d/last").open("rb") as file:
            file.seek(1000)
            assert file.read(10) == contents["d/last"][1000:1010]
    stargz.index(path, span_size=ordinary.SPAN)
    with (
        nginx(tmp_path / "www", tmp_path) as url,
        cli_mount(f"{url}/any.tar.gz", directory=tmp_path / "far") as mounted,
    ):
        assert {name: (mounted / name).read_bytes() for name in names} == contents
