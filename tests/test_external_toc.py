"""Layers whose TOC is written to a file of its own, read by tests/oracle.py."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import command
import oracle
import pytest
from blobs import tar_of

import stargz
from stargz.conversion import ConvertResult
from stargz.errors import TarError, UnindexableError, UsageError

DATA = Path(__file__).parent / "data"
GOLDEN = next(
    case
    for case in json.loads((DATA / "manifest.json").read_text())
    if case["name"] == "external_toc"
)
TAR = (DATA / GOLDEN["tar"]).read_bytes()
SMALL = tar_of([("a", b"content"), ("d/b", b"x" * 600)])
FOOTER = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff\x15\0SG\x11\0STARGZEXTERNALTOC\x01\0\0\xff\xff"


def convert(data: bytes, **options: Any) -> tuple[bytes, bytes, ConvertResult]:
    layer, toc = io.BytesIO(), io.BytesIO()
    result = stargz.convert(io.BytesIO(data), layer, format="external-toc", toc_out=toc, **options)
    return layer.getvalue(), toc.getvalue(), result


@pytest.mark.parametrize("level", [1, 6])
@pytest.mark.parametrize("end", [b"", bytes(100), b"behind" * 40_000])
def test_the_tar_is_kept(end: bytes, level: int) -> None:
    tar = TAR + end
    layer, toc, result = convert(tar, chunk_size=4096, level=level)
    assert gzip.decompress(layer) == tar
    assert layer.endswith(FOOTER + bytes(8))
    assert result.digest == oracle.sha256(layer)
    assert (result.diff_id, result.uncompressed_size) == (oracle.sha256(tar), len(tar))
    assert result.toc_digest == oracle.sha256(oracle.toc_in(toc))
    assert result.annotations == {
        "containerd.io/snapshot/stargz/toc.digest": result.toc_digest,
        "io.containers.estargz.uncompressed-size": str(len(tar)),
    }
    assert not result.warnings
    with stargz.open(layer, toc=toc, toc_digest=result.toc_digest, require_verified=True) as opened:
        assert opened.kind == "external-toc"
        found = {name: oracle.sha256(opened.read(name))[7:] for name in GOLDEN["file_sha256"]}
        assert found == GOLDEN["file_sha256"]
        assert opened.verify().ok


def test_the_toc_is_that_of_the_reference() -> None:
    """But for the landmark, which a tar that is kept has not."""
    _, toc, _ = convert(TAR, chunk_size=GOLDEN["chunk_size"])
    theirs = (DATA / f"{GOLDEN['blob']}.toc").read_bytes()
    entries, golden = (oracle.entries_of(oracle.toc_in(one)) for one in (toc, theirs))
    assert golden.pop(0)["name"] == ".no.prefetch.landmark"
    assert entries == golden
    assert [list(entry) for entry in entries] == [list(entry) for entry in golden]
    # The tar that holds it: the same header but for size and check sum, and nothing behind.
    tars = [gzip.decompress(one) for one in (toc, theirs)]
    same, other = (tar[:124] + tar[136:148] + tar[156:512] for tar in tars)
    assert same == other
    for tar in tars:
        with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
            (info,) = opened.getmembers()
        assert len(tar) == 512 + -(-info.size // 512) * 512 + 1024
        assert not any(tar[512 + info.size :])


def test_where_chunks_are() -> None:
    """A gzip member begins with each file and chunk; small files share one if that is asked for."""
    layer, toc, _ = convert(TAR, chunk_size=4096)
    for entry in oracle.entries_of(oracle.toc_in(toc), places=True):
        if entry["type"] == "chunk" or entry.get("size"):
            assert layer[entry["offset"] :].startswith(b"\x1f\x8b\x08")
            assert "innerOffset" not in entry
    layer, toc, result = convert(TAR, chunk_size=4096, min_chunk_size=60_000)
    entries = oracle.entries_of(oracle.toc_in(toc), places=True)
    assert any("innerOffset" in entry for entry in entries)
    with stargz.open(layer, toc=toc, toc_digest=result.toc_digest) as opened:
        assert opened.verify().ok


@pytest.mark.parametrize("cut", [1024, 1024 + 300])
def test_a_tar_without_its_end(cut: int) -> None:
    """Nothing has to follow it, so it may also end in the padding of a file."""
    end = len(SMALL.rstrip(b"\0")) + 424 + 1024
    tar = SMALL[: end - cut]
    layer, toc, result = convert(tar)
    assert gzip.decompress(layer) == tar
    with stargz.open(layer, toc=toc, toc_digest=result.toc_digest) as opened:
        assert opened.read("d/b") == b"x" * 600


def test_the_bytes_are_those_of_any_number_of_threads() -> None:
    assert len({convert(TAR * 1, chunk_size=1024, threads=n)[:2] for n in (1, 2, 5)}) == 1


def test_a_toc_of_the_input_is_left_out_and_said() -> None:
    first = io.BytesIO()
    before = stargz.convert(io.BytesIO(TAR), first)
    layer, toc, result = convert(first.getvalue())
    (told,) = result.warnings
    assert "stargz.index.json" in told and "DiffID" in told
    assert result.diff_id not in (before.diff_id, oracle.sha256(TAR))
    names = tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))).getnames()
    assert "stargz.index.json" not in names and ".no.prefetch.landmark" in names
    with stargz.open(layer, toc=toc, toc_digest=result.toc_digest) as opened:
        assert opened.verify().ok
        assert opened.read("etc/conf")


def test_what_it_cannot_hold() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1", "GNU.sparse.name": "s"}
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(UnindexableError, match="another format"):
        convert(out.getvalue())


def test_wrong_usage(tmp_path: Path) -> None:
    src, dst = tmp_path / "in.tar", tmp_path / "out"
    src.write_bytes(SMALL)

    def refused(match: str, **options: Any) -> None:
        with pytest.raises(UsageError, match=match):
            stargz.convert(src, **{"dst": dst, "format": "external-toc", **options})

    refused("toc_out", dst=io.BytesIO())
    refused("alone", format="estargz", toc_out=tmp_path / "toc")
    refused("destination", toc_out=dst)
    refused("source", toc_out=src)
    refused("keeps the order", prioritized=["a"])
    refused("13 is not in 1 to 12", level=13)
    refused("alone: the others", strict=True)
    same = io.BytesIO()
    refused("destination", dst=same, toc_out=same)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tar"]


def test_both_files_or_none(tmp_path: Path) -> None:
    src, dst, toc = tmp_path / "in.tar", tmp_path / "out", tmp_path / "out.toc"
    src.write_bytes(SMALL[:515])
    with pytest.raises(TarError):
        stargz.convert(src, dst, format="external-toc")
    assert not dst.exists() and not toc.exists()
    src.write_bytes(SMALL)
    toc.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        stargz.convert(src, dst, format="external-toc", force=False)
    assert not dst.exists() and toc.read_bytes() == b"old"

    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise OSError(28, "No space left on device", "the TOC")

    with pytest.raises(OSError, match="No space"):
        stargz.convert(src, dst, format="external-toc", toc_out=Full())
    assert not dst.exists()

    class Meanwhile(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            dst.write_bytes(b"another's")
            return super().read(size)

    toc.unlink()
    with pytest.raises(FileExistsError):
        stargz.convert(Meanwhile(SMALL), dst, format="external-toc", force=False)
    assert dst.read_bytes() == b"another's" and not toc.exists()
    made = stargz.convert(src, dst, format="external-toc")
    assert made.toc_digest == oracle.sha256(oracle.toc_in(toc.read_bytes()))


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(SMALL)
    src, dst, toc = (str(tmp_path / name) for name in ("in.tar", "in.stargz", "in.stargz.toc"))
    kept = "--format", "external-toc"
    assert toc in command.ok_here("convert", *kept, src)
    assert command.ok_here("cat", "--toc", toc, dst, "a") == "content"
    report = json.loads(command.ok_here("info", "--json", "--toc", toc, dst))
    digest = report["toc_digest"]
    assert (report["kind"], report["toc_offset"]) == ("external-toc", None)
    trusted = "--require-verified", "--toc-digest", digest
    command.ok_here("verify", *trusted, "--toc", toc, dst)
    assert "already exists" in command.fails_here(
        1, "convert", *kept, src, f"{dst}2", "--toc-out", toc
    )
    other = str(tmp_path / "other")
    made = command.ok_here("convert", "--json", *kept, "--toc-out", other, "-f", src, dst)
    assert json.loads(made)["annotations"]["containerd.io/snapshot/stargz/toc.digest"] == digest
    assert Path(other).read_bytes() == Path(toc).read_bytes()
    for words in (
        [*kept, src, "-"],
        [*kept, "--toc-out", "-", src, dst],
        [*kept, "--toc-out", dst, src, dst],
        ["--toc-out", other, src, dst],
    ):
        assert "--toc-out" in command.fails_here(2, "convert", *words)
