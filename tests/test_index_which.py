"""Which index an ordinary tar.gz is read by: the one that is given, the one beside it, the one that
was kept, a new one; and when there is none."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import blobs
import fsspec
import layouts
import ordinary
import pytest
from command import each_here, fails_here, here, ok, ok_here
from faraway import Faraway
from ordinary import TEXT, beside, span_size

import stargz
from stargz import indexes
from stargz.errors import (
    DigestError,
    FooterError,
    IndexFileError,
    UnindexedError,
    UnverifiedError,
    UsageError,
)
from stargz.sources import MemorySource

TAR = ordinary.big_tar()
GZ = gzip.compress(TAR, 6)
NONE = "sha256:" + "0" * 64
DEFAULT = 4 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "any.tar.gz"
    made.write_bytes(GZ)
    return made


# --- what just works ------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ordinary.WRAPS)
def test_commands_take_any_tar(wrap: str, tmp_path: Path) -> None:
    path = tmp_path / f"any.{wrap}"
    path.write_bytes(ordinary.WRAPS[wrap](TAR))
    cat = ("cat", path, "d/text")
    (_, listed, _), *twice = each_here(("ls", "-R", path, "d"), cat, cat)
    assert len(listed.split()) == 43
    assert twice == [(0, TEXT.decode(), "")] * 2  # made, and from the cache


def test_every_command(path: Path, tmp_path: Path) -> None:
    converted = tmp_path / "any.stargz"
    stargz.convert(path, converted)
    lines = [("find", "-name", "small1?"), ("tree",), ("ls", "-lR"), ("du", "--apparent-size")]
    found = each_here(*((name, src, *more) for name, *more in lines for src in (path, converted)))
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert one == other and one[0] == 0
    compared, extracted, toc, verified = each_here(
        ("diff", "--json", path, converted),
        ("extract", path, "-C", tmp_path / "out"),
        ("toc", "--json", path),
        ("verify", "--json", path),
    )
    difference = json.loads(compared[1])
    assert not any(difference[key] for key in ("added", "removed", "changed", "metadata"))
    assert extracted[0] == 0 and (tmp_path / "out/d/text").read_bytes() == TEXT
    assert json.loads(toc[2])["toc_digest"] == blobs.sha256(toc[1].encode())
    assert json.loads(verified[1])["ok"]


def test_a_pipe_and_memory(path: Path) -> None:
    with path.open("rb") as file:
        assert ok("cat", "-", "d/text", stdin=file, text=False) == TEXT  # a file
    assert ok("cat", "-", "d/text", input=GZ, text=False) == TEXT  # a pipe
    sources: list[Any] = [GZ, io.BytesIO(GZ), MemorySource(GZ), path, str(path)]
    for source in sources:
        with stargz.open(source) as layer:
            assert layer.read("d/text") == TEXT
    with path.open("rb") as file, stargz.open(file) as layer:
        assert layer.read("d/text", 5, 10) == TEXT[5:15]
        assert file.tell() == 0


def test_progress(path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with stargz.open(path, cache=False, progress=lambda *at: seen.append(at)):
        assert seen[-1][1] == len(GZ)


def test_file_system(path: Path) -> None:
    with fsspec.open(f"stargz://d/text::{path}") as file:
        assert file.read() == TEXT
    index = beside(path).rename(path.with_name("elsewhere"))
    files = fsspec.filesystem("stargz", fo=str(path), index=str(index))
    assert span_size(files.file_tree.layers[0]) == ordinary.SPAN
    with pytest.raises(UsageError, match="index is for single layers"):
        fsspec.filesystem("stargz", fo="oci:none", index=str(index))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """Listings have their bytes, as other programs give them."""
    path = tmp_path / "old.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("caf\udce8", "caf\udce9"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(name[-1:].encode(errors="surrogateescape")))
    listed, tree, found = (
        ok(*words, text=False).splitlines()
        for words in (("ls", "-l", path), ("tree", path), ("find", path))
    )
    assert found == [b"caf\xe8", b"caf\xe9"]
    assert listed[0].endswith(b" caf\xe8") and tree[1].endswith(b" caf\xe8")
    names = [row["name"] for row in json.loads(ok("--json", "ls", path))]
    assert names == ["caf\udce8", "caf\udce9"]
    assert ok_here("cat", path, "caf\udce9", text=False) == b"\xe9"


def test_an_empty_tar(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    assert ok_here("ls", tmp_path / "empty.tar") == ""
    beside(tmp_path / "empty.tar")
    with stargz.open(tmp_path / "empty.tar") as layer:
        assert span_size(layer) == ordinary.SPAN
        assert layer.listdir() == []
        layer.extractall(tmp_path / "root")


@pytest.mark.parametrize("data", [b"", b"x", bytes(100), b"#!/bin/sh\n" * 100])
def test_what_is_no_tar(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    assert "no tar, tar.gz or tar.zst" in fails_here(1, "ls", tmp_path / "file")
    with pytest.raises(FooterError):
        stargz.open(data)
    fails_here(3, "verify", tmp_path / "file")


def test_a_seekable_layer_stays_what_it_is(path: Path, tmp_path: Path) -> None:
    layer = tmp_path / "any.stargz"
    stargz.convert(path, layer)
    index = beside(layer)
    with stargz.open(layer) as opened:
        assert opened.kind == "estargz"
    with stargz.open(layer, index="build") as opened:
        assert opened.kind == "estargz"
    with stargz.open(layer, index=index) as opened:
        assert span_size(opened) == ordinary.SPAN
        assert opened.read("d/text") == TEXT
    with pytest.raises(UsageError, match="has its own TOC"):
        stargz.open(layer, index_digest=NONE)


def test_a_spoilt_footer_is_no_ordinary_tar(path: Path) -> None:
    out = io.BytesIO()
    stargz.convert(path, out)
    data = bytearray(out.getvalue())
    data[-51] ^= 1
    with pytest.raises(FooterError, match="no footer"):
        stargz.open(bytes(data))


def test_what_bgzip_ends_in_is_no_footer(tmp_path: Path) -> None:
    """An empty member with an Extra field, as a footer is."""
    path = tmp_path / "any.tar.gz"
    path.write_bytes(GZ + bytes.fromhex("1f8b08040000000000ff0600424302001b0003") + bytes(9))
    assert ok_here("cat", path, "d/text") == TEXT.decode()
    assert json.loads(ok_here("--json", "info", path))["kind"] == "indexed"


# --- one that is given ----------------------------------------------------------------------------


def test_the_one_that_is_given(path: Path, tmp_path: Path) -> None:
    beside(path)
    other = tmp_path / "other"
    stargz.index(path, other, span_size=128 << 10)
    sources: list[Any] = [other, str(other), other.read_bytes(), MemorySource(other.read_bytes())]
    for source in sources:
        with stargz.open(path, index=source) as layer:
            assert span_size(layer) == 128 << 10
            assert layer.read("d/text") == TEXT
    assert ok_here("cat", "--index", other, path, "d/text", text=False) == TEXT


def test_one_that_does_not_fit_is_an_error(path: Path, tmp_path: Path) -> None:
    """Never replaced, though there is another."""
    beside(path)
    (tmp_path / "longer.tar.gz").write_bytes(gzip.compress(TAR + bytes(5000)))
    wrong = beside(tmp_path / "longer.tar.gz")
    (tmp_path / "junk").write_bytes(b"<html>not here</html>" * 10)
    (tmp_path / "empty").write_bytes(b"")
    names = (wrong, tmp_path / "junk", tmp_path / "empty", tmp_path / "missing")
    told = each_here(*(("ls", "--index", name, path) for name in names))
    size = (tmp_path / "longer.tar.gz").stat().st_size
    words = (f"of a blob of {size:,} bytes", "no index", "no index", "No such file")
    for (code, out, err), name, word in zip(told, names, words, strict=True):
        assert (code, out) == (1, "") and word in err and str(name) in err
        assert err.count("\n") == 1
    with pytest.raises(IndexFileError):
        stargz.open(path, index=b"")


def test_one_of_another_program(tmp_path: Path, user_cache: Path) -> None:
    """It has entry points alone: the blob is read once, and the whole index is kept."""
    path, gzi = tmp_path / "any.tar.gz", tmp_path / "any.tar.gz.gzi"
    path.write_bytes(ordinary.members(TAR))
    gzi.write_bytes(ordinary.members_index(TAR))
    for _ in range(2):
        with stargz.open(path, index=gzi) as layer:
            assert layer.index is not None and layer.index.spans == -(-len(TAR) // 150_000)
            assert layer.read("d/text") == TEXT
            assert layer.verify().ok
    with stargz.open(path) as layer:  # which is not the one that is made without
        assert layer.index is not None and layer.index.spans == 1
    assert len(list(user_cache.glob("index/*"))) == 2
    assert ok_here("cat", "--index", gzi, path, "d/text", text=False) == TEXT
    wrong = bytearray(gzi.read_bytes())
    wrong[8] ^= 1
    gzi.write_bytes(wrong)
    assert str(path) in fails_here(1, "ls", "--index", gzi, path)
    with pytest.raises(UnindexedError, match="all have to be read"):
        stargz.open(Faraway(path.read_bytes()), index=ordinary.members_index(TAR))


def test_contradictions(path: Path, tmp_path: Path) -> None:
    told = each_here(
        ("ls", "--index", path, "--build-index", path),
        ("ls", "--index", path, "--toc", path, path),
        ("ls", "--build-index", "--index-digest", NONE, path),
        ("ls", "--index-digest", NONE, path),
        ("ls", "--index-digest", "sha256:0", path),
        ("info", "--build-index", path),
        ("info", "--index", path, path, path),
        ("verify", "--index", path, "oci:none"),
        ("mount", "--index", path, "oci:none", tmp_path),
        ("mount", "--index", path, "--allow-host", "h.example", tmp_path),
    )
    for code, out, err in told:
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert "index" in err


def test_each_side_of_a_diff_has_its_own(path: Path, tmp_path: Path) -> None:
    index = beside(path).rename(tmp_path / "a.index")
    other = tmp_path / "b.tar.gz"
    other.write_bytes(gzip.compress(blobs.varied_tar()))
    text = ok_here("diff", "--index-a", index, path, other)
    assert "- d/text" in text
    assert "of a blob of" in fails_here(1, "diff", "--index-b", index, path, other)


# --- info -----------------------------------------------------------------------------------------


def test_info_says_what_vouches_for_it(path: Path, tmp_path: Path) -> None:
    def trust(*options: object) -> str:
        return json.loads(ok_here("info", "--json", *options, path))["index_trust"]

    ok_here("ls", path)
    assert trust() == "it was made here"
    index = beside(path)
    assert trust() == trust("--index", index) == "nothing vouches for it"
    assert "index_trust        nothing vouches for it" in ok_here("info", path)
    assert "by an index: nothing vouches for it" in here("ls", "-v", path).stderr
    digest = blobs.sha256(index.read_bytes())
    assert trust("--index-digest", digest) == "it has the digest that was asked for"
    toc_digest = blobs.sha256(ok_here("toc", path).encode())
    assert trust("--toc-digest", toc_digest) == "its TOC has the digest that was asked for"
    with pytest.raises(UnindexedError):
        stargz.open(GZ, index=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of several users")
def test_another_users_sibling_is_not_taken_unasked(path: Path, user_cache: Path) -> None:
    """Where many may write, as in /tmp, it could forge what it is of."""
    index = beside(path)
    os.chown(path, 4001, 4001)
    for owner, taken in ((4001, True), (0, True), (4002, False)):
        os.chown(index, owner, owner)
        done = here("ls", path)
        assert done.returncode == 0
        assert ("another user (4002)" in done.stderr) is not taken, done.stderr
        with stargz.open(path) as layer:
            assert (span_size(layer) == DEFAULT) is not taken
    with stargz.open(path, index=index) as layer:
        assert span_size(layer) != DEFAULT
    digest = blobs.sha256(index.read_bytes())
    with stargz.open(path, index_digest=digest) as layer:
        assert span_size(layer) != DEFAULT


# --- trust ----------------------------------------------------------------------------------------


def test_require_verified(path: Path, tmp_path: Path, user_cache: Path) -> None:
    # Made now.
    with stargz.open(path, require_verified=True) as layer:
        assert layer.verified
        toc_digest = layer.toc_digest
    assert ok_here("cat", "--require-verified", path, "d/text", text=False) == TEXT
    # What lies beside it is nobody's word: one is made.
    index = beside(path)
    with stargz.open(path, require_verified=True) as layer:
        assert span_size(layer) == DEFAULT
    text = fails_here(3, "ls", "--require-verified", "--index", index, path)
    assert "--index-digest" in text
    digest = json.loads(ok_here("index", "--json", "-o", tmp_path / "i", path))["digest"]
    assert digest == blobs.sha256((tmp_path / "i").read_bytes())
    trusted = ("--require-verified", "--index", tmp_path / "i", "--index-digest", digest)
    assert ok_here("cat", *trusted, path, "d/text", text=False) == TEXT
    fails_here(3, "ls", "--index", index, "--index-digest", digest, path)
    # The TOC's digest says the same of what is in it.
    with stargz.open(path, index=tmp_path / "i", toc_digest=toc_digest) as layer:
        assert layer.verified
    with pytest.raises(DigestError):
        stargz.open(path, toc_digest=NONE)
    assert ok_here("ls", "--index", tmp_path / "i", "--toc-digest", toc_digest, path)
    with pytest.raises(UnverifiedError):
        stargz.open(Faraway(GZ), index=index, require_verified=True)


def test_require_verified_and_one_that_was_kept(path: Path) -> None:
    """It is not enough, which is told; `info` makes none, and does not say that it would."""
    far = Faraway(GZ)
    far.identity = ("far", "1")
    stargz.open(far, index="build").close()
    stargz.open(far).close()
    indexes._made.clear()  # as in another process
    with pytest.raises(UnindexedError) as caught:
        stargz.open(far, require_verified=True)
    told = caught.value.message
    assert "verified: one that was kept is not enough" in told
    assert "--build-index" in told and "--index-digest" in told
    with stargz.open(far, require_verified=True, index="build") as layer:
        assert layer.verified
    ok_here("ls", path)
    told = fails_here(1, "info", "--require-verified", path)
    assert "--build-index" not in told and "'stargz index' makes one" in told
    assert "--index-digest" in told


def test_what_a_digest_is_of(path: Path, tmp_path: Path, user_cache: Path) -> None:
    """That of an index's file says nothing of an index that is none; a TOC's nothing of the digests
    that a ztoc has of spans."""
    with stargz.open(path) as layer:
        mine = layer.index
    with pytest.raises(UsageError, match="index_digest"):
        stargz.open(path, index=mine, index_digest=NONE, require_verified=True)
    ztoc = tmp_path / "i.ztoc"
    digest = stargz.index(path, ztoc, format="soci").digest
    with stargz.open(path, index=ztoc) as layer:
        toc_digest = layer.toc_digest
        assert not layer.verified
    with stargz.open(path, index=ztoc, toc_digest=toc_digest) as layer:
        assert not layer.verified
        assert layer.read("d/text") == TEXT
    with pytest.raises(UnverifiedError, match="--index-digest"):
        stargz.open(path, index=ztoc, toc_digest=toc_digest, require_verified=True)
    with stargz.open(path, index=ztoc, index_digest=digest, require_verified=True) as layer:
        assert layer.verified


# --- other commands -------------------------------------------------------------------------------


def test_patches_are_between_seekable_layers(path: Path, tmp_path: Path) -> None:
    layer = tmp_path / "any.stargz"
    stargz.convert(path, layer)
    for base, new in ((path, layer), (layer, path)):
        text = fails_here(1, "delta", base, new, "-o", tmp_path / "patch")
        assert str(path) in text and "convert" in text
        with pytest.raises(FooterError, match="between seekable layers"):
            stargz.delta(base, new, tmp_path / "patch")
    assert "convert" in fails_here(1, "toc", "--members", path)
    with stargz.open(path) as opened, pytest.raises(FooterError, match="seekable"):
        stargz.MemberList.from_layer(opened)
    ok_here("delta", layer, layer, "-o", tmp_path / "patch")
    assert "BASE is not" in fails_here(3, "apply", path, tmp_path / "patch", "-o", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_convert_is_as_ever(path: Path, tmp_path: Path) -> None:
    beside(path)
    ok_here("convert", path, tmp_path / "one")
    path.with_name("any.tar.gz.index").unlink()
    ok_here("convert", path, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_tar_zst_of_one_frame(tmp_path: Path) -> None:
    import zstandard

    path = tmp_path / "one.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(ordinary.big_tar(20 << 20)))
    for command in ("ls", "index"):
        assert "convert" in fails_here(1, command, path)


def test_a_layer_of_a_layout(path: Path, tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    layout.tag(layout.manifest([layout.plain_layer(TAR, GZ)]))
    src = f"oci:{tmp_path}/layout"
    assert ok_here("cat", "--layer", "1", src, "d/text", text=False) == TEXT
    index = beside(path)
    assert ok_here("cat", "--layer", "1", "--index", index, src, "d/text", text=False) == TEXT
    (tmp_path / "other.tar.gz").write_bytes(gzip.compress(TAR, 6, mtime=1))
    wrong = beside(tmp_path / "other.tar.gz")
    assert (tmp_path / "other.tar.gz").stat().st_size == len(GZ)
    assert "index of the blob" in fails_here(1, "ls", "--layer", "1", "--index", wrong, src)


def test_a_directory_called_as_the_keyword(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    shutil.copy(beside(path), "build")
    assert ok_here("cat", "--index", "build", path, "d/text", text=False) == TEXT
    os.remove("build")  # noqa: PTH107
    assert "No such file" in fails_here(1, "ls", "--index", "build", path)


def test_what_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stargz")
    stargz.open(path).close()
    assert [r.getMessage() for r in caplog.records if "spans" in r.getMessage()]
    caplog.clear()
    stargz.open(path).close()
    assert not caplog.records
