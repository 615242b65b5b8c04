"""The index that lies beside an ordinary tar.gz: when it is used, and what is told if it is not."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import blobs
import ordinary
import pytest
from command import each_here, here
from ordinary import TEXT, beside, span_size

import stargz
from stargz.errors import DigestError

TAR = ordinary.big_tar()
GZ = gzip.compress(TAR, 6)
NONE = "sha256:" + "0" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "any.tar.gz"
    made.write_bytes(GZ)
    return made


def test_one_beside_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = beside(path)
    with stargz.open(path) as layer:
        assert span_size(layer) == ordinary.SPAN
        assert not layer.verified
    with stargz.open(path, index_digest=blobs.sha256(index.read_bytes())) as layer:
        assert span_size(layer) == ordinary.SPAN
        assert layer.verified
    with pytest.raises(DigestError):
        stargz.open(path, index_digest=NONE)
    assert not caplog.records


def test_one_beside_it_that_is_of_no_use_is_a_warning(path: Path) -> None:
    index = beside(path)
    good = index.read_bytes()
    for bad in (b"", b"junk", good[:-1], good[:100], good[:200] + b"\xff" + good[201:]):
        index.write_bytes(bad)
        told, quiet = each_here(("cat", path, "d/text"), ("cat", "-q", path, "d/text"))
        assert told[:2] == quiet[:2] == (0, TEXT.decode())
        assert told[2].startswith(f"stargz: warning: {index}")
        assert told[2].endswith("this index is not used\n") and told[2].count("\n") == 1
        assert quiet[2] == ""
    path.write_bytes(gzip.compress(TAR + bytes(4096)))
    index.write_bytes(good)
    assert "of a blob of" in here("ls", path).stderr
    # One that would take all memory.
    with index.open("r+b") as file:
        file.truncate(200 << 20)
    assert "are many for the index of" in here("ls", path).stderr
    # One that cannot be read.
    index.unlink()
    index.mkdir()
    assert "is a directory" in here("ls", path).stderr
    index.rmdir()
    index.symlink_to(index)
    told = here("ls", path).stderr
    assert told.startswith(f"stargz: warning: {index}: Too many levels of symbolic links; this")


def test_one_of_an_earlier_file_is_not_taken_unasked(path: Path, tmp_path: Path) -> None:
    """What has no contents is not compared: a link would lead where it did."""
    tars = [ordinary.linked_tar(target) for target in ("old", "new")]
    src = tmp_path / "links.tar"
    src.write_bytes(tars[0])
    index = beside(src)
    made = index.stat().st_mtime_ns

    def target(*options: object) -> tuple[str, str]:
        done = here("ls", "-l", *options, src)
        assert done.returncode == 0
        return done.stdout.split()[-1], done.stderr

    src.write_bytes(tars[1])
    assert len(tars[0]) == len(tars[1])
    os.utime(src, ns=(made + 1, made + 1))
    shown, told = target()
    assert shown == "new"
    assert told == (
        f"stargz: warning: {index}: it is older than {src}: make it again ('stargz index --force "
        f"{src}') or name it (--index); this index is not used\n"
    )
    digest = blobs.sha256(index.read_bytes())
    assert target("--index", index) == target("--index-digest", digest) == ("old", "")
    os.utime(index, ns=(made + 1, made + 1))
    assert target() == ("old", "")
    os.utime(index, ns=(made + 10**9, made + 10**9))
    assert target() == ("old", "")
    # Whole seconds, as FAT, ustar and rsync keep them.
    second = made // 10**9 * 10**9
    os.utime(src, ns=(second + 5, second + 5))
    os.utime(index, ns=(second, second))
    assert target() == ("old", "")
    os.utime(src, ns=(second + 10**9, second + 10**9))
    assert target()[0] == "new"


def test_a_fresh_index_is_never_the_older(path: Path, tmp_path: Path) -> None:
    """Also of a file with a time to come; and copies and archives of both."""
    for _ in range(20):
        path.write_bytes(GZ[:1000] + GZ[1000:])
        assert beside(path).stat().st_mtime_ns >= path.stat().st_mtime_ns
    os.utime(path, (4e9, 4e9 + 0.5))
    index = beside(path)
    folder = tmp_path / "both"
    folder.mkdir()
    for file in (path, index):
        shutil.copy2(file, folder)
    for name in ("preserved", "unpacked"):
        (tmp_path / name).mkdir()
    subprocess.run(["cp", "-a", folder, tmp_path / "preserved"], check=True)
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "t", "both"], check=True)
    subprocess.run(["tar", "-C", tmp_path / "unpacked", "-xf", tmp_path / "t"], check=True)
    for name in (".", "preserved", "unpacked"):
        with stargz.open(tmp_path / name / "both" / path.name) as layer:
            assert span_size(layer) == ordinary.SPAN
