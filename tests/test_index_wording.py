"""What is said where something else is given than a tar and its index: what it is, and what to
do."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import blobs
import ordinary
import pytest
from command import fails, here, ok

import stargz
from stargz.errors import StargzError, UsageError

TAR = blobs.tar_of([("a", b"contents")])
NOISE = blobs.noise("no tar", 5000)


def index_of(blob: bytes) -> bytes:
    out = io.BytesIO()
    stargz.index(blob, out)
    return out.getvalue()


def with_version(number: int) -> bytes:
    index = bytearray(index_of(TAR))
    index[8] = number
    return bytes(index)


NO_TARS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (bytes, "no tar, tar.gz or tar.zst: it is empty"),
    "text": (lambda: b"some words", "its first bytes are of none of these"),
    "noise": (lambda: NOISE, "its first bytes are of none of these"),
    "notes.txt.gz": (lambda: gzip.compress(b"some words"), "no tar: it ends before a first header"),
    "photo.jpg.gz": (lambda: gzip.compress(NOISE), "no tar: it does not begin with a header"),
    "bz2": (lambda: b"BZh91AY&SY" + NOISE, "it is compressed by bzip2; decompress it"),
    "xz": (lambda: b"\xfd7zXZ\0" + NOISE, "it is compressed by xz; decompress it"),
    "zip": (lambda: b"PK\x03\x04" + NOISE, "it is a zip archive"),
    "index": (lambda: index_of(TAR), "it is an index, of another file"),
}


@pytest.mark.parametrize("name", NO_TARS)
def test_what_is_no_tar(name: str) -> None:
    make, said = NO_TARS[name]
    with pytest.raises(StargzError) as caught:
        stargz.open(make())
    assert said in str(caught.value)


NO_INDEXES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (bytes, "it is empty, and no index"),
    "tar": (lambda: TAR, "it begins as a tar, and is no index: 'stargz index' makes one"),
    "tar.gz": (lambda: gzip.compress(TAR), "it begins as a tar.gz, and is no index"),
    "text": (lambda: b"some words", "no index that is known"),
    "future": (lambda: with_version(9), "version 9, and this stargz knows version 1"),
    "cut": (lambda: index_of(TAR)[:100], "it was cut short; make it again"),
    "other": (lambda: index_of(TAR + bytes(512)), "make it again ('stargz index')"),
}


@pytest.mark.parametrize("name", NO_INDEXES)
def test_what_is_no_index(name: str) -> None:
    make, said = NO_INDEXES[name]
    with pytest.raises(StargzError) as caught:
        stargz.open(TAR, index=make())
    assert said in str(caught.value)


def test_by_the_commands(tmp_path: Path) -> None:
    """`index` says what `ls` says, and leaves nothing behind."""
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "any.tar.xz").write_bytes(b"\xfd7zXZ\0" + NOISE)
    (tmp_path / "any.tar").write_bytes(TAR)
    for name, said in (("empty", "it is empty"), ("any.tar.xz", "it is compressed by xz")):
        for command in ("ls", "index"):
            assert said in fails(1, command, tmp_path / name)
        assert not (tmp_path / f"{name}.index").exists()
    assert "no tar: it is empty" in fails(1, "index", "-", "-o", tmp_path / "out", input="")
    assert "is a directory, not a file" in fails(1, "ls", "--index", tmp_path, tmp_path / "any.tar")
    assert "character device" not in fails(1, "index", tmp_path / "missing")
    assert "is the same file" in fails(
        1, "index", "-f", "-o", tmp_path / "any.tar", tmp_path / "any.tar"
    )
    assert "64 KiB to 1 GiB" in fails(2, "index", "--span-size", "1K", tmp_path / "any.tar")
    assert ok("ls", "-", input=TAR, text=False) == b"a\n"


def test_a_signed_checksum_is_one() -> None:
    """Old programs add bytes up as signed characters."""
    tar = bytearray(blobs.tar_of([("\N{LATIN SMALL LETTER E WITH ACUTE}", b"x")]))
    total = sum(byte - 256 * (byte >= 128) for byte in tar[:148] + b" " * 8 + tar[156:512])
    tar[148:156] = b"%06o\0 " % total
    with stargz.open(bytes(tar)) as layer:
        assert len(layer) == 1


@pytest.mark.parametrize("index", [5, True, 1.5, ""])
def test_what_is_no_file_of_an_index(index: object) -> None:
    with pytest.raises(UsageError, match=r"^index "):
        stargz.open(TAR, index=index)  # type: ignore[arg-type]


def test_a_cache_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "any.tar").write_bytes(TAR)
    monkeypatch.setenv("STARGZ_CACHE_DIR", "/proc/none")
    told = here("ls", tmp_path / "any.tar").stderr
    assert told.startswith("stargz: warning: nothing is kept on disk: /proc/none: the cache cannot")
    assert told.count("\n") == 1 and "Errno" not in told


def test_one_frame_of_zstd(tmp_path: Path) -> None:
    """What `info` says of it holds, and nothing is damaged."""
    path = tmp_path / "one.tar.zst"
    large = blobs.tar_of([("a", bytes(4 << 20))])
    path.write_bytes(ordinary.frames(large, len(large)))
    text = "of several frames, or small: a large one of a single frame has to be converted"
    assert text in ok("info", path)
    fails(1, "verify", path)
    path.write_bytes(ordinary.frames(TAR, len(TAR)))
    assert ok("ls", path) == "a\n"
    ok("verify", path)
    assert "single frame" not in ok("info", write(tmp_path / "any.tar", TAR))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
