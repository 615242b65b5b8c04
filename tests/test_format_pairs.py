"""Layers of any format converted to any other, and read alike by every command."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import oracle
import pytest
import zstandard
from blobs import tar_of
from chunked_layers import add, plain
from command import each_here, fails_here, here, ok_here
from layouts import Layout
from mounts import cli_mount, needs_fuse
from trees import snapshot

import stargz
import stargz.fsspec
from stargz.conversion import ConvertResult
from stargz.options import FORMATS

DATA = Path(__file__).parent / "data"
TOC, LANDMARKS = "stargz.index.json", {".no.prefetch.landmark", ".prefetch.landmark"}
# What the formats do to a tar; docs/formats.md says the same, and is compared with it elsewhere.
KEEPS = {"external-toc", "zstd:chunked"}
HAS_TOC = {"estargz", "stargz"}


@cache
def odd_tar(format: int) -> bytes:
    """Valid, with all that is seldom: to be read by every tar, and held by every format."""
    out = io.BytesIO()
    pax = format == tarfile.PAX_FORMAT
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        fraction = 0.457654321 if pax else 0
        add(tar, "./", type=tarfile.DIRTYPE, mode=0o1755, mtime=1_600_000_000 + fraction)
        add(tar, "./d e/", type=tarfile.DIRTYPE, mode=0o2750, uid=5, gid=6, uname="u", gname="g")
        add(tar, "./d e/a\nb\\\"'<&>", b"quoted\n", mode=0o4711, mtime=1_700_000_000 + fraction)
        add(tar, "implied/up/é/\N{SNOWMAN}", b"x" * 513, uid=1 << 21, gid=1 << 31)
        add(tar, "n/" * 140 + "end", bytes(range(256)) * 300, mtime=1 << 34)
        add(tar, "empty", b"", mode=0)
        add(tar, "zeros", bytes(20_000))
        add(tar, "mixed", b"x" * 5000 + bytes(4096) + b"y" * 700 + bytes(1024), mode=0o644)
        add(tar, "hard", type=tarfile.LNKTYPE, linkname="./d e/a\nb\\\"'<&>", mode=0o4711)
        add(tar, "soft", type=tarfile.SYMTYPE, linkname="../" * 60 + "of", mode=0o777)
        add(tar, "char", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add(tar, "block", type=tarfile.BLKTYPE, devmajor=259, devminor=70_000, mode=0o660)
        add(tar, "fifo", type=tarfile.FIFOTYPE, mode=0o600)
        add(tar, "d e/.wh.gone", b"")
        if pax:
            records = {
                "SCHILY.xattr.user.bytes": "a\0\udcff=\n",
                "SCHILY.xattr.security.capability": "\1\0\0\2",
                "atime": "1700000001.5",
                "comment": "none of ours",
            }
            add(tar, "attributes", b"xattr", pax_headers=records)
            add(tar, "before", b"1", pax_headers={"mtime": "-5.25"})
    return out.getvalue() + bytes(5120)


@dataclass(frozen=True)
class Made:
    """A layer that was made of a tar."""

    blob: bytes
    toc: bytes | None
    result: ConvertResult

    @property
    def tar(self) -> bytes:
        """What it decompresses to."""
        return plain(self.blob) if self.blob.startswith(b"(") else gzip.decompress(self.blob)

    def open(self) -> stargz.Layer:
        return stargz.open(
            self.blob, toc=self.toc, annotations=self.result.annotations, index=False
        )


def make(tar: bytes, format: str, **options: object) -> Made:
    blob, toc = io.BytesIO(), io.BytesIO()
    more = {"toc_out": toc} if format == "external-toc" else {}
    result = stargz.convert(io.BytesIO(tar), blob, format=format, **more, **options)
    return Made(blob.getvalue(), toc.getvalue() if more else None, result)


def frames(tar: bytes) -> bytes:
    parts = (zstandard.compress(tar[at : at + 9000]) for at in range(0, len(tar), 9000))
    return b"".join(parts)


SOURCES: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda tar: tar,
    "tar.gz": gzip.compress,
    "tar.zst": zstandard.compress,
    "tar.zst of several frames": frames,
    "zstd:chunked-stargz, lossless": lambda t: make(t, FORMATS[4], lossless=True).blob,
    "estargz, prioritized": lambda t: make(t, FORMATS[0], prioritized=["mixed", "zeros"]).blob,
    **{format: lambda tar, format=format: make(tar, format).blob for format in FORMATS},
}


def check(made: Made, entries: stargz.Layer) -> None:
    """`made` has what `entries` has, and all that it says of itself is true."""
    result = made.result
    assert result.digest == oracle.sha256(made.blob) and result.size == len(made.blob)
    assert result.diff_id == oracle.sha256(made.tar)
    assert result.uncompressed_size == len(made.tar)
    with made.open() as layer:
        assert layer.toc_digest == result.toc_digest == oracle.sha256(layer.read_toc())
        assert layer.verify().ok
        found = stargz.diff(entries, layer)
        assert not found.changed + found.metadata
        theirs = {*LANDMARKS, TOC}
        assert {*found.added} | {*found.removed} <= theirs


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["pax", "gnu"])
def test_every_pair(kind: str, source: str) -> None:
    tar = odd_tar(tarfile.PAX_FORMAT if kind == "pax" else tarfile.GNU_FORMAT)
    blob = SOURCES[source](tar)
    before = Made(blob, None, None).tar if source != "tar" else tar  # type: ignore[arg-type]
    of_toc = source.partition(",")[0] in HAS_TOC
    with stargz.open(tar) as entries:
        for format in FORMATS:
            made = make(blob, format)
            check(made, entries)
            told = [warning for warning in made.result.warnings if "DiffID" in warning]
            assert bool(told) == (of_toc and format == "external-toc"), (format, told)
            if format in KEEPS and not told:
                assert made.tar == before, format
            elif source in ("tar", "tar.gz", "tar.zst"):
                assert made.result.diff_id != oracle.sha256(before), format
            names = tarfile.open(fileobj=io.BytesIO(made.tar)).getnames()
            kept = of_toc and format == "zstd:chunked"
            assert names.count(TOC) == (kept or format in HAS_TOC), format
            if format == "zstd:chunked-stargz" or format == "estargz":
                assert len(LANDMARKS & {*names}) == 1


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", sorted(path.stem for path in DATA.glob("*.tar")))
def test_what_others_made(case: str, format: str) -> None:
    """Tars, and what the reference made of them."""
    tar = (DATA / f"{case}.tar").read_bytes()
    (blob,) = (path for end in ("esgz", "zst") if (path := DATA / f"{case}.{end}").exists())
    twice = case == "duplicates" and format == "zstd:chunked"  # in the tar, not in the layer
    with stargz.open(tar) as entries:
        for source in (tar, blob.read_bytes()):
            made = make(source, format)
            if twice and source is tar:
                assert made.tar == tar
                assert (made.result.annotations, made.result.toc_digest) == ({}, "")
            else:
                check(made, entries)


@pytest.mark.parametrize("format", FORMATS)
def test_a_tar_that_ends_early(format: str) -> None:
    """In what pads its last file, or behind that: kept so by what keeps the tar."""
    for end in (2048 + 100, 2560):
        tar = tar_of([("a", b"1" * 600), ("b", b"222")])[:end]
        made = make(tar, format)
        assert made.tar == tar or format not in KEEPS
        if made.result.toc_digest:
            with made.open() as layer:
                assert layer.verify().ok and layer.read("b") == b"222"
        else:  # it has to be whole for containers/storage
            assert (format, end) == ("zstd:chunked", 2048 + 100)


def test_a_toc_behind_the_end_is_not_zstd_chunked() -> None:
    """Where eStargz that keeps the tar has it."""
    blob = make(odd_tar(tarfile.PAX_FORMAT), "estargz", lossless=True).blob
    made = make(blob, "zstd:chunked")
    assert made.tar == gzip.decompress(blob) and not made.result.annotations
    (said,) = made.result.warnings
    assert "behind the end of the archive" in said and "plain zstd" in said


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The words by which a command reads the same tar in each format, and in none."""
    folder = tmp_path_factory.mktemp("formats")
    (folder / "layer.tar").write_bytes(odd_tar(tarfile.PAX_FORMAT))
    found = {}
    for format in FORMATS:
        path = folder / format.replace(":", "-")
        ok_here("-q", "convert", "--format", format, folder / "layer.tar", path)
        found[format] = [*(["--toc", f"{path}.toc"] if format == "external-toc" else []), str(path)]
    gz = folder / "layer.tar.gz"
    gz.write_bytes(gzip.compress((folder / "layer.tar").read_bytes()))
    return {**found, "indexed": [str(gz)]}


def test_every_command_reads_every_format(layers: dict[str, list[str]]) -> None:
    commands = (
        ["ls", "-lnR"],  # the TOC of containers/storage has no owners' names
        ["find", "-type", "f", "-size", "+0"],
        ["tree"],
        ["du", "--all"],
        ["cat", "mixed", "hard", "implied/up/é/\N{SNOWMAN}"],
    )
    for command, *more in commands:
        told = each_here(*([command, *words, *more] for words in layers.values()))
        first = told[0].stdout
        for kind, one in zip(layers, told, strict=True):
            assert (one.returncode, one.stderr) == (0, ""), (kind, one)
            assert one.stdout == first and first, (kind, command)


def test_what_commands_say_of_each_format(layers: dict[str, list[str]], tmp_path: Path) -> None:
    kinds = {"zstd:chunked-stargz": "zstd:chunked"}
    for kind, words in layers.items():
        ok_here("ls", *words)  # which makes an index where there is none
        report = json.loads(ok_here("info", "--json", *words))
        assert report["kind"] == kinds.get(kind, kind)
        assert report["uncompressed_size"] >= len(odd_tar(tarfile.PAX_FORMAT)) - 10_240
        toc = ok_here("toc", *words, text=False)
        assert report["toc_digest"] == oracle.sha256(toc)
        trusted = ["--toc-digest", report["toc_digest"]]
        assert json.loads(ok_here("verify", "--json", *trusted, *words))["ok"]
        if kind not in ("stargz", "indexed"):
            ok_here("ls", "--require-verified", *trusted, *words)
    trees = []
    for number, words in enumerate(layers.values()):
        target = tmp_path / str(number)
        done = here("extract", "--xattrs", "all", "--devices", *words, "-C", target)
        assert done.returncode == 0, done
        found = snapshot(target)
        implied = [name for name in found if re.fullmatch("n(/n)*|implied(/up(/é)?)?", name)]
        trees.append(found | {name: found[name][:2] for name in implied})  # they have no time
    for kind, tree in zip(layers, trees, strict=True):
        assert tree == trees[0], kind


def test_every_two_formats_are_compared(layers: dict[str, list[str]]) -> None:
    """Whichever they are: nothing but landmarks differs."""
    for (one, a), (other, b) in itertools.product(layers.items(), repeat=2):
        words = [*(["--toc-a", a[1]] if len(a) > 1 else []), a[-1]]
        words += [*(["--toc-b", b[1]] if len(b) > 1 else []), b[-1]]
        found = json.loads(ok_here("diff", "--json", *words))
        assert not found["changed"] + found["metadata"], (one, other)
        assert {*found["added"], *found["removed"]} <= LANDMARKS, (one, other)


def test_fsspec_reads_every_format(layers: dict[str, list[str]]) -> None:
    for kind, words in layers.items():
        toc = words[1] if kind == "external-toc" else None
        files = stargz.fsspec.StargzFileSystem(words[-1], toc=toc)
        with tarfile.open(fileobj=io.BytesIO(odd_tar(tarfile.PAX_FORMAT))) as tar:
            for info in tar:
                if info.isreg() and "/.wh." not in info.name:
                    content = tar.extractfile(info)
                    assert content is not None
                    assert files.cat_file(os.path.normpath(info.name)) == content.read(), kind


@pytest.mark.parametrize("kind", ["stargz", "external-toc"])
def test_mounted(kind: str, layers: dict[str, list[str]], tmp_path: Path) -> None:
    """As the others are elsewhere."""
    needs_fuse()
    with cli_mount(*layers[kind], directory=tmp_path / "m") as directory:
        for name in ("mixed", "hard", "implied/up/é/\N{SNOWMAN}"):
            assert (directory / name).read_bytes() == ok_here(
                "cat", *layers[kind], name, text=False
            )


def test_patches_are_between_layers_in_gzip(layers: dict[str, list[str]], tmp_path: Path) -> None:
    gzipped = layers["estargz"][-1]
    for kind in ("zstd:chunked", "zstd:chunked-stargz", "indexed"):
        for two in ((gzipped, layers[kind][-1]), (layers[kind][-1], gzipped)):
            said = fails_here(1, "delta", *two, tmp_path / "patch")
            assert layers[kind][-1] in said and "a patch is between" in said
    assert not (tmp_path / "patch").exists()


def test_images_are_compared_in_every_format(layers: dict[str, list[str]], tmp_path: Path) -> None:
    """As images, and as a layer of one beside a file."""
    made = Layout(tmp_path / "layout")
    made.tag(made.manifest([made.plain_layer(odd_tar(tarfile.PAX_FORMAT))]), "v1")
    images = [f"oci:{tmp_path}/layout:v1"]
    for number, format in enumerate(FORMATS):
        images.append(f"oci:{tmp_path}/{number}:v1")
        ok_here("image", "convert", "-q", "--format", format, images[0], images[-1])
    for one, other in itertools.pairwise(images):
        found = json.loads(ok_here("image", "diff", "-q", "--json", one, other))
        assert not any(found[kind] for kind in ("added", "removed", "changed", "metadata"))
    for image, kind in itertools.product(images, ("stargz", "zstd:chunked", "indexed")):
        words = ["-q", "--json", "--layer-a", "1", image, layers[kind][-1]]
        found = json.loads(ok_here("diff", *words))
        assert not found["changed"] + found["metadata"]
        assert {*found["added"], *found["removed"]} <= LANDMARKS


def test_without_its_toc(layers: dict[str, list[str]]) -> None:
    """What is done where it is needed says how to name it."""
    path = layers["external-toc"][-1]
    told = ok_here("info", path)
    assert "--toc FILE" in told and "external-toc" in told
    for words in (["ls", path], ["cat", path, "mixed"], ["toc", path], ["diff", path, path]):
        assert "is not in it: give the file that holds it as --toc" in fails_here(1, *words)
