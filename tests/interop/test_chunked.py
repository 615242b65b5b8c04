"""Both implementations of zstd:chunked, of containers/storage and of stargz-snapshotter, read what
we write, and we read what they write."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chunked_layers
import plain_chunked
import pytest
import zstandard
from absence import absent
from chunked_layers import FORMATS
from containers import as_pulled, needs_overlay
from conversions import written
from layouts import OCI_LAYER, Layout
from oracle import LANDMARKS, entries_of, toc_in
from random_trees import Stream
from rich_tars import Item, extracted, gnu_tar, mixture, python_tar, tree
from trees import snapshot

import stargz
from stargz.conversion import ConvertResult
from stargz.oci.conversion import convert_image
from stargz.oci.formats.layout import Layout as Reading

Program = Callable[..., Any]
Tool = Callable[[str], str]

WRITERS: dict[str, Callable[[Tool, Path, int], None]] = {
    "Python, PAX": lambda _, path, seed: python_tar(path, tree(seed), tarfile.PAX_FORMAT),
    "Python, GNU": lambda _, path, seed: python_tar(path, tree(seed), tarfile.GNU_FORMAT),
    "GNU tar, posix": lambda tool, path, seed: gnu_tar(tool, path, tree(seed), "posix"),
    "GNU tar, gnu": lambda tool, path, seed: gnu_tar(tool, path, tree(seed), "gnu"),
}
CASES = [(writer, seed) for seed in range(2) for writer in WRITERS]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]} {case[1]}")
def tar(request: pytest.FixtureRequest, tool: Tool, tmp_path: Path) -> Path:
    """A tar of a random tree."""
    if os.geteuid() != 0:
        absent("these tests make devices, and set owners, as root")
    writer, seed = request.param
    path = tmp_path / "layer.tar"
    WRITERS[writer](tool, path, seed)
    return path


def sums(files: Path) -> dict[str, str]:
    """The sha256 of every regular file in a directory, all names of it."""
    return {
        str(path.relative_to(files)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def seen(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name not in LANDMARKS}


@pytest.fixture(scope="module")
def pull(
    chunked: Program, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Pull a blob partially, as podman does, into a new store: pull(blob, annotations)."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "overlay").mkdir()
    needs_overlay(folder / "overlay")
    count = 0

    def run(blob: Path, annotations: dict[str, str], store: Path | None = None) -> dict[str, Any]:
        nonlocal count
        count += 1
        described = folder / f"{count}.json"
        described.write_text(json.dumps(annotations))
        return chunked("pull", store or folder / str(count), blob, described)

    yield run


def convert(tar: Path, format: str = "zstd:chunked", **options: Any) -> tuple[Path, ConvertResult]:
    dst = tar.with_suffix(".zst")
    result = stargz.convert(tar, dst, format=format, **options)
    assert result.annotations
    return dst, result


# --- what we write ----------------------------------------------------------------------


def test_containers_storage_pulls_ours(
    pull: Callable[..., dict[str, Any]], tool: Tool, tar: Path, tmp_path: Path
) -> None:
    """It compares the TOC with the tar-split, entry by entry, and what it has put together of
    the tar-split and the files with the DiffID."""
    blob, result = convert(tar)
    found = pull(blob, result.annotations)
    digest = plain_chunked.sha256(tar.read_bytes())
    assert found.get("diff_id") == found["again"] == result.diff_id == digest, found
    assert found["bytes"] < blob.stat().st_size
    expected = extracted(tool, tar, tmp_path / "expected")
    assert as_pulled(Path(found["files"])) == as_pulled(expected)


@pytest.mark.parametrize(
    ("format", "chunk_size"), [("zstd:chunked", 4 << 20), ("zstd:chunked-stargz", 8192)]
)
def test_the_snapshotter_reads_ours(
    chunked: Program, tool: Tool, tar: Path, tmp_path: Path, format: str, chunk_size: int
) -> None:
    """What is annotated for containers/storage, too: one blob serves both."""
    blob, result = convert(tar, format, chunk_size=chunk_size)
    found = chunked("read", blob, result.toc_digest)
    assert seen(found["files"]) == sums(extracted(tool, tar, tmp_path / "expected"))
    if format == "zstd:chunked":
        assert found["chunks"] == result.chunks


def test_entries_and_lines_are_those_of_containers_storage(
    chunked: Program, tar: Path, tmp_path: Path
) -> None:
    blob, result = convert(tar)
    theirs = tmp_path / "theirs"
    made = chunked("write", "c", tar, theirs)
    ours = plain_chunked.read(blob.read_bytes(), result.annotations)
    other, split = toc_of(theirs, made["annotations"])
    assert ours.split is not None
    assert lines(ours.split) == lines(split)
    assert entries(ours.toc) == entries(other)


def toc_of(blob: Path, annotations: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    """TOC and tar-split, where the annotations say."""
    data = blob.read_bytes()

    def at(name: str) -> bytes:
        offset, size = map(int, annotations[plain_chunked.C_PREFIX + name].split(":")[:2])
        return zstandard.ZstdDecompressor().decompressobj().decompress(data[offset : offset + size])

    return json.loads(at("manifest-position")), at("tarsplit-position")


def lines(split: bytes) -> list[dict[str, Any]]:
    """With what ends the archive in one, which may be cut anywhere."""
    found = [json.loads(line) for line in split.splitlines()]
    while found[-2]["type"] == 2:
        last = found.pop()
        parts = (base64.b64decode(one["payload"]) for one in (found[-1], last))
        found[-1]["payload"] = base64.b64encode(b"".join(parts)).decode()
    return found


def entries(toc: dict[str, Any]) -> list[dict[str, Any]]:
    """Without what is of the frames, and the digests of files' only chunks, which only ours has."""
    several = {entry["name"] for entry in toc["entries"] if entry["type"] == "chunk"}
    return [
        {
            key: value
            for key, value in entry.items()
            if key not in ("offset", "endOffset")
            and (key != "chunkDigest" or entry["name"] in several)
        }
        for entry in toc["entries"]
    ]


def test_chunks_end_where_those_of_containers_storage_do(chunked: Program, tmp_path: Path) -> None:
    rng = Stream(1)
    sizes = [0, 1, 63, 64, 65, 1023, 1024, 1025, 3 << 20]
    sizes += [rng.below(3 << 20 if number % 2 else 200_000) for number in range(50 - len(sizes))]
    tar = tmp_path / "files.tar"
    items = []
    for number, size in enumerate(sizes):
        content = (rng.content, rng.data, lambda size: mixture(rng, size))[number % 3](size)
        items.append(Item(f"{number}", stat.S_IFREG, content=content))
    python_tar(tar, items, tarfile.PAX_FORMAT)
    blob, result = convert(tar)
    made = chunked("write", "c", tar, tmp_path / "theirs")
    other, _ = toc_of(tmp_path / "theirs", made["annotations"])
    ours = plain_chunked.read(blob.read_bytes(), result.annotations)
    assert entries(ours.toc) == entries(other)
    kinds = [entry.get("chunkType", "data") for entry in other["entries"]]
    assert min(kinds.count("zeros"), kinds.count("data")) > 100


# --- what they write --------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["c", "s"])
def test_we_read_and_verify_theirs(
    chunked: Program, tool: Tool, tar: Path, tmp_path: Path, dialect: str
) -> None:
    blob = tmp_path / "theirs"
    annotations = chunked("write", dialect, tar, blob)["annotations"]
    files = extracted(tool, tar, tmp_path / "expected")
    with stargz.open(blob, annotations=annotations, require_verified=True) as layer:
        found = layer.verify()
        assert found.ok, found.errors
        assert {
            name: hashlib.sha256(layer.read(name)).hexdigest()
            for name in layer
            if layer.entry(name).type in ("reg", "hardlink")
        } == sums(files)
        layer.extractall(tmp_path / "ours", devices=True, setid=True)
    ours, expected = (snapshot(path, root_itself=False) for path in (tmp_path / "ours", files))
    if dialect == "s":  # with times rounded, where GNU tar has them to the nanosecond
        for one in (ours, expected):
            links = one.pop("one file")
            one |= {name: value[:2] + value[3:] for name, value in one.items()}
            one["one file"] = links
    assert ours == expected


def test_external_tocs(chunked: Program, tool: Tool, tar: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    files = sums(extracted(tool, tar, tmp_path / "expected"))
    result = stargz.convert(tar, ours, format="external-toc", chunk_size=8192)
    assert chunked("read", "-toc", f"{ours}.toc", ours, result.toc_digest)["files"] == files
    made = chunked("write", "external", "-chunk-size", 8192, tar, theirs)
    assert made["diff_id"] == result.diff_id
    with stargz.open(theirs, toc=f"{theirs}.toc", toc_digest=made["toc_digest"]) as layer:
        assert layer.verify().ok
        assert {
            name: hashlib.sha256(layer.read(name)).hexdigest()
            for name in layer
            if layer.entry(name).type in ("reg", "hardlink")
        } == files
    own, other = (entries_of(toc_in(Path(f"{path}.toc").read_bytes())) for path in (ours, theirs))
    for entry in own:  # of the epoch's first second it says nothing, we only of the epoch itself
        if entry.get("modtime", "") in ("1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"):
            del entry["modtime"]
    assert own == other


@pytest.mark.parametrize(("dialect", "format"), [("c", FORMATS[0]), ("s", FORMATS[1])])
def test_images_with_their_layers(
    chunked: Program, tmp_path: Path, dialect: str, format: str
) -> None:
    """A layer that is what is wanted stays; of the other kind it is made anew, and it is read."""
    tar = tmp_path / "layer.tar"
    python_tar(tar, tree(9), tarfile.PAX_FORMAT)
    made = chunked("write", dialect, tar, tmp_path / "blob")
    layout = Layout(tmp_path / "src")
    kind = OCI_LAYER.replace("gzip", "zstd")
    blob = layout.blob((tmp_path / "blob").read_bytes(), kind, annotations=made["annotations"])
    plain = plain_chunked.sha256(chunked_layers.plain((tmp_path / "blob").read_bytes()))
    layout.tag(layout.manifest([blob], config={"rootfs": {"type": "layers", "diff_ids": [plain]}}))
    for wanted in FORMATS:
        dst = tmp_path / wanted.replace(":", "-")
        report = convert_image(f"oci:{layout.path}", f"oci:{dst}:made", format=wanted)
        (layer,) = report.layers
        assert layer.status == ("kept" if wanted == format else "converted")
        (entry,) = written(dst, "made").layers
        found = Reading(dst).blob_path(entry.digest)
        assert set(entry.json["annotations"]) >= set(
            stargz.convert(tar, io.BytesIO(), format=wanted).annotations
        ) - {plain_chunked.SIZE}
        if wanted == "zstd:chunked-stargz":
            toc_digest = entry.json["annotations"][plain_chunked.TOC_DIGEST]
            assert chunked("read", found, toc_digest)["chunks"] > 20
