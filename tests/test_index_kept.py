"""Indexes that are kept in the user's cache: the second command makes no pass, and none is ever
used for another blob."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tempfile
from pathlib import Path

import ordinary
import pytest
from command import command, each_here, environment, here, ok, ok_here
from mounts import listed

import stargz
from stargz.cache import Cache
from stargz.errors import DigestError

TAR = ordinary.big_tar()
GZ = gzip.compress(TAR, 6)
DEFAULT = 4 << 20
OTHER = 64 << 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "any.tar.gz"
    made.write_bytes(GZ)
    return made


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("index/*"))


def marked(cache: Path, path: Path) -> None:
    """Have the one that is kept be another, which is known by its spans."""
    (file,) = kept(cache)
    out = io.BytesIO()
    stargz.index(path, out, span_size=OTHER)
    file.write_bytes(file.read_bytes()[:65] + out.getvalue())


def spans(path: Path, **options: object) -> int:
    with stargz.open(path, **options) as layer:  # type: ignore[arg-type]
        assert layer.index is not None
        assert layer.read("d/small1") and layer.names()
        return layer.index.span_size


def test_the_second_time_there_is_no_pass(path: Path, user_cache: Path) -> None:
    assert spans(path) == DEFAULT
    marked(user_cache, path)
    assert spans(path) == OTHER
    with path.open("rb") as file, stargz.open(file) as layer:  # the same file
        assert layer.index is not None and layer.index.span_size == OTHER
    os.link(path, path.with_name("link"))  # which is a change of the file
    assert spans(path.with_name("link")) == DEFAULT
    assert len(kept(user_cache)) == 1
    (file,) = kept(user_cache)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert user_cache.stat().st_mode & 0o777 == 0o700


def test_a_file_that_changed_has_another(path: Path, user_cache: Path) -> None:
    spans(path)
    before = path.stat()
    for change in (
        lambda: path.write_bytes(GZ),
        lambda: os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns)),
        lambda: path.chmod(0o600),
    ):
        marked(user_cache, path)
        change()
        assert spans(path) == DEFAULT
    marked(user_cache, path)
    path.with_name("new").write_bytes(GZ)
    path.with_name("new").rename(path)
    assert spans(path) == DEFAULT


def test_content_that_changes_within_a_tick_of_the_clock(path: Path) -> None:
    for n in range(5):
        tar = ordinary.big_tar().replace(b"line 3 ", b"LINE %d " % n)
        data = gzip.compress(tar, 6)
        path.write_bytes(data)
        with stargz.open(path) as layer:
            assert layer.read("d/large").count(b"LINE %d " % n) == 1


def test_what_is_damaged_in_the_cache_is_made_anew(path: Path, user_cache: Path) -> None:
    spans(path)
    (file,) = kept(user_cache)
    good = file.read_bytes()
    for bad in (b"", good[:65], good[:-1], good[:400] + b"\xff\xfe" + good[402:], good + b"x"):
        file.write_bytes(bad)
        assert spans(path) == DEFAULT
        assert file.read_bytes() == good
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert spans(path) == DEFAULT


def test_without_the_cache(path: Path, user_cache: Path, tmp_path: Path) -> None:
    ok_here("ls", "--no-cache", path)
    assert not user_cache.exists()
    spans(path)
    marked(user_cache, path)
    assert spans(path, cache=False) == DEFAULT
    assert spans(path) == OTHER
    # Another one.
    ok_here("ls", "--cache-dir", tmp_path / "mine", path)
    assert len(kept(tmp_path / "mine")) == 1
    assert spans(path, cache=tmp_path / "mine") == DEFAULT
    assert spans(path, cache=Cache(tmp_path / "mine")) == DEFAULT


def test_what_has_no_name_is_not_kept(user_cache: Path) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(GZ)
        file.flush()
        with stargz.open(file) as layer:
            assert layer.read("d/small1")
    for source in (GZ, io.BytesIO(GZ)):
        stargz.open(source).close()
    ok("ls", "-", input=GZ, text=False)
    assert not kept(user_cache)


def test_a_cache_that_cannot_be_used_is_done_without(path: Path, user_cache: Path) -> None:
    user_cache.write_bytes(b"a file")
    done = here("cat", path, "d/small1")
    assert done.returncode == 0 and done.stdout.startswith("1 ")
    assert "nothing is kept on disk" in done.stderr
    user_cache.unlink()
    user_cache.mkdir(mode=0o700)
    (user_cache / "index").write_bytes(b"in the way")
    done = here("cat", path, "d/small1")
    assert done.returncode == 0 and done.stdout.startswith("1 ")
    assert "is not kept" in done.stderr
    assert listed(user_cache) == ["index"]


def test_the_commands_of_the_cache(path: Path, user_cache: Path) -> None:
    listed, told, table, young, pruned, again, counted = each_here(
        ("ls", path),
        ("cache", "info", "--json"),
        ("cache", "info"),
        ("cache", "prune", "--older-than", "1h"),
        ("cache", "prune"),
        ("ls", path),
        ("cache", "prune", "--json"),
    )
    info = json.loads(told[1])
    assert (info["chunks"], info["indexes"]) == (0, 1)
    assert info["bytes"] >= 4096
    assert "indexes  1" in table[1]
    assert young[1] == "removed 0 chunks, 0 bytes\n"
    assert "0 chunks and 1 index," in pruned[1]
    assert listed == again
    assert json.loads(counted[1])["indexes"] == 1
    assert not kept(user_cache)


def test_leftovers_of_killed_processes_go(path: Path, user_cache: Path) -> None:
    ok_here("ls", path)
    left = user_cache / "index" / ".abc.123.partial"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    ok_here("cache", "prune")
    assert not left.exists()


def test_a_folder_that_was_put_in_its_place_is_not_used(path: Path, tmp_path: Path) -> None:
    """What is in the cache is trusted: it is the folder that was found to be its owner's alone,
    also where its path leads to another by now."""
    mine, theirs = tmp_path / "cache", tmp_path / "theirs"
    cache = Cache(mine)
    assert spans(path, cache=Cache(theirs)) == DEFAULT
    marked(theirs, path)
    mine.rename(tmp_path / "moved")
    theirs.rename(mine)
    before = kept(mine)
    assert spans(path, cache=cache) == DEFAULT
    assert kept(mine) == before and len(kept(tmp_path / "moved")) == 1
    # A symlink in it is not followed.
    (tmp_path / "moved/index").rename(tmp_path / "elsewhere")
    (tmp_path / "moved/index").symlink_to(tmp_path / "elsewhere")
    marked(tmp_path / "moved", path)
    assert spans(path, cache=cache) == DEFAULT
    (tmp_path / "moved/index").unlink()


def test_several_at_once(path: Path, user_cache: Path) -> None:
    line = command("cat", path, "d/text")
    env = environment()
    running = [subprocess.Popen(line, stdout=subprocess.PIPE, env=env) for _ in range(4)]
    said = {process.communicate()[0] for process in running}
    assert said == {ordinary.TEXT}
    assert len(kept(user_cache)) == 1
    assert len(listed(user_cache / "index")) == 1


def test_a_wrong_one_is_never_served(path: Path, user_cache: Path) -> None:
    """One that would fit by all that is compared: its digests are those of other contents."""
    path = path.with_name("any.tar")
    path.write_bytes(TAR)
    spans(path)
    (file,) = kept(user_cache)
    out = io.BytesIO()
    stargz.index(TAR.replace(b"line 5 of some", b"LINE 5 OF SOME"), out)
    file.write_bytes(file.read_bytes()[:65] + out.getvalue())
    with stargz.open(path) as layer, pytest.raises(DigestError):
        layer.read("d/text")
