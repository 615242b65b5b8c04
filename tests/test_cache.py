"""The disk cache: safe to use, bounded, and never wrong, whoever else uses it."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import blobs
import command
import pytest
from descriptors import descriptors
from faraway import Faraway

import stargz
from stargz.cache import DEFAULT_SIZE, Cache, as_cache, default_path
from stargz.durable import spared
from stargz.errors import DigestError, SourceError


def put(cache: Cache, content: bytes) -> bytes:
    key = hashlib.sha256(content).digest()
    assert cache.store.put(key, content)
    return key


def file_of(cache: Cache, key: bytes) -> Path:
    return Path(cache.path) / key.hex()[:2] / key.hex()[2:]


def used(cache: Cache, key: bytes, seconds_ago: float) -> None:
    at = time.time() - seconds_ago
    os.utime(file_of(cache, key), (at, at))


# --- the folder -----------------------------------------------------------------------------------


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STARGZ_CACHE_DIR", "/a/b")
    assert default_path() == Path("/a/b")
    monkeypatch.delenv("STARGZ_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_path() == Path("/xdg/stargz")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".cache/stargz"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_path() == tmp_path / ".cache/stargz"


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "x/y/cache")
    assert (tmp_path / "x/y/cache").stat().st_mode & 0o777 == 0o700
    key = put(cache, b"chunk")
    assert file_of(cache, key).stat().st_mode & 0o777 == 0o600
    assert file_of(cache, key).parent.stat().st_mode & 0o777 == 0o700
    assert cache.size == DEFAULT_SIZE == 10 << 30
    (tmp_path / "empty").mkdir(mode=0o755)
    Cache(tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700


def test_unsafe_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(SourceError, match="symlink"):
        Cache(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match="must be a directory"):
        Cache(tmp_path / "file")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/theirs").write_bytes(b"")
    (tmp_path / "shared").chmod(0o750)
    with pytest.raises(SourceError, match=r"mode 750.*--cache-dir"):
        Cache(tmp_path / "shared")
    with pytest.raises(SourceError, match="cannot be used"):
        Cache("/proc/nowhere/cache")
    with pytest.raises(ValueError, match="at least 0"):
        Cache(tmp_path / "new", -1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_anothers_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(SourceError, match="belongs to user 12345"):
        Cache(tmp_path / "theirs")


def test_what_the_parameter_means(
    user_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert as_cache(False) is None
    assert not user_cache.exists()
    mine = as_cache(None)
    assert mine is not None
    assert mine.path == str(user_cache)
    assert as_cache(True) is mine is as_cache(user_cache)
    assert as_cache(mine) is mine
    # One that was removed meanwhile is not used on.
    user_cache.rename(tmp_path / "moved")
    again = as_cache(None)
    assert again is not mine
    assert again is not None
    key = put(again, b"x")
    assert file_of(again, key).exists()
    del mine, again
    gc.collect()
    # The user's own is done without where it cannot be; one that was asked for is an error.
    file_of(Cache(user_cache), key).parent.parent.chmod(0o755)
    assert as_cache(None) is None
    assert "nothing is kept on disk" in caplog.text
    with pytest.raises(SourceError):
        as_cache(user_cache)


def test_closed_with_its_last_user(tmp_path: Path) -> None:
    gc.collect()
    before = descriptors(tmp_path)
    cache = Cache(tmp_path / "cache")
    store = cache.store
    assert descriptors(tmp_path) > before
    del cache
    gc.collect()
    assert store.put(hashlib.sha256(b"x").digest(), b"x")
    del store
    gc.collect()
    assert descriptors(tmp_path) == before


# --- size -----------------------------------------------------------------------------------------


def test_info_and_prune(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.info().chunks == 0
    assert cache.info().oldest is None
    keys = [put(cache, bytes([n]) * 5000) for n in range(10)]
    for n, key in enumerate(keys):
        used(cache, key, 1000 * n)
    info = cache.info()
    assert (info.path, info.chunks, info.bytes) == (cache.path, 10, 10 * 8192)
    assert info.oldest == pytest.approx(time.time() - 9000, abs=100)
    assert info.cap <= DEFAULT_SIZE
    assert cache.prune(older_than=7500).chunks == 2
    assert cache.prune(size=5 * 8192).bytes == 3 * 8192
    assert [file_of(cache, key).exists() for key in keys] == [True] * 5 + [False] * 5
    stranger = Path(cache.path) / "notes.txt"
    stranger.write_text("mine")
    assert cache.prune().chunks == 5
    assert cache.info().chunks == 0
    assert stranger.read_text() == "mine"


def test_eviction_is_by_last_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1 << 20)
    keys = []
    for n in range(400):
        keys.append(put(cache, blobs.noise(f"{n}", 8000)))
        used(cache, keys[-1], 4000 - n)
        # The first is used again and again.
        assert cache.store.get(keys[0], 8000) is not None
        cache.tidy()
        if n % 50 == 49:
            assert cache.info().bytes <= (1 << 20) * (1 + 1 / 32)
    there = [file_of(cache, key).exists() for key in keys]
    assert there[0]
    assert there[-90:] == [True] * 90
    assert sum(there) < 130


def test_what_others_add_counts(tmp_path: Path) -> None:
    mine, other = (Cache(tmp_path / "cache", 1 << 20) for _ in range(2))
    for n in range(200):
        put(other, blobs.noise(f"other{n}", 8000))
        put(mine, blobs.noise(f"mine{n}", 8000))
        mine.tidy()
    assert mine.info().bytes <= (1 << 20) * 1.4


def test_the_disk_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    put(cache, b"x" * 5000)
    real = os.fstatvfs(cache._fd)

    class Full:
        f_bavail = spared(real.f_blocks * real.f_frsize) // real.f_frsize
        f_frsize, f_blocks = real.f_frsize, real.f_blocks

    monkeypatch.setattr(os, "fstatvfs", lambda fd: Full)
    assert cache.info().cap < 8192 + real.f_frsize


def test_leftovers_of_killed_processes(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1 << 20)
    folder = file_of(cache, put(cache, b"x" * 20_000)).parent
    for name, age in ((".tmp-old", 7200), (".tmp-new", 60)):
        (folder / name).write_bytes(b"part")
        os.utime(folder / name, (time.time() - age,) * 2)
    cache.tidy()
    assert sorted(p.name for p in folder.glob(".tmp-*")) == [".tmp-new"]


# --- layers ---------------------------------------------------------------------------------------


FILES = {f"f{n}": blobs.noise(f"{n}", 3000 + n) for n in range(100)}


def layer_of(files: dict[str, bytes], level: int = 6) -> bytes:
    return blobs.build(blobs.tar_of(list(files.items())), level=level).data


def test_equal_files_of_different_layers_are_stored_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    other = layer_of({"new": b"n" * 10, **{f"x/{k}": v for k, v in FILES.items()}}, level=1)
    for data, prefix in ((layer_of(FILES), ""), (other, "x/")):
        source = Faraway(data)
        with stargz.open(source, cache=cache) as layer:
            for name, content in FILES.items():
                assert layer.read(prefix + name) == content
    assert cache.info().chunks == len(FILES)
    assert len(source.log) == 1  # nothing but the TOC


def test_damage_is_found_and_mended(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    data = layer_of(FILES)
    for damage in (None, b"", b"short", b"?" * 3050, None):
        source = Faraway(data)
        path = file_of(cache, hashlib.sha256(FILES["f50"]).digest())
        if damage is not None:
            path.write_bytes(damage)
        with stargz.open(source, cache=cache) as layer:
            for name, content in FILES.items():
                assert layer.read(name) == content
        assert path.read_bytes() == FILES["f50"]
    assert len(source.log) == 1


def test_a_lying_toc_does_no_harm(tmp_path: Path) -> None:
    """One that names the digest of another chunk, with a wrong length."""
    cache = Cache(tmp_path / "cache")
    known = b"known" * 500
    key = put(cache, known)

    def lie(rows: list[dict[str, Any]]) -> None:
        rows[0]["digest"] = rows[0]["chunkDigest"] = blobs.sha256(known)

    data = blobs.build(blobs.tar_of([("f", b"x" * 3000)]), edit=lie).data
    with stargz.open(Faraway(data), cache=cache) as layer, pytest.raises(DigestError):
        layer.read("f")
    assert cache.store.get(key, len(known)) == known
    assert cache.info().chunks == 1


def test_chunks_without_digest_are_not_kept(tmp_path: Path) -> None:
    def strip(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            del row["digest"], row["chunkDigest"]

    data = blobs.build(blobs.tar_of(list(FILES.items())), edit=strip).data
    with stargz.open(Faraway(data), cache=tmp_path / "cache") as layer:
        assert layer.read("f7") == FILES["f7"]
    assert Cache(tmp_path / "cache").info().chunks == 0


def test_where_it_is_on(user_cache: Path, tmp_path: Path) -> None:
    data = layer_of(FILES)
    (tmp_path / "layer").write_bytes(data)
    with (tmp_path / "layer").open("rb") as file:
        import io

        for local in (data, tmp_path / "layer", file, io.BytesIO(data)):
            with stargz.open(local) as layer:
                layer.read("f7")
    assert not user_cache.exists()
    with stargz.open(Faraway(data), cache=False) as layer:
        layer.read("f7")
    assert not user_cache.exists()
    with stargz.open(Faraway(data)) as layer:
        layer.read("f7")
    assert Cache(user_cache).info().chunks > 0


CHILD = """
import hashlib, random, sys
from stargz.cache import Cache
cache = Cache(sys.argv[1], 400_000)
rng = random.Random(sys.argv[2])
print("ready", flush=True)
while True:
    n = rng.randrange(200)
    content = random.Random(n).randbytes(2000 + 40 * n)
    key = hashlib.sha256(content).digest()
    found = cache.store.get(key, len(content))
    assert found is None or found == content
    if found is None:
        cache.store.put(key, content)
    cache.tidy()
"""


def test_processes_that_are_killed_leave_no_wrong_bytes(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    Cache(path)
    rng = random.Random(5)
    for _ in range(4):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", CHILD, path, str(n)],
                stdout=subprocess.PIPE,
                env=command.environment(),
            )
            for n in range(3)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        time.sleep(0.2 + rng.random() / 10)
        for child in children:
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
            assert child.stdout is not None
            child.stdout.close()
    cache = Cache(path, 400_000)
    for n in range(200):
        content = random.Random(n).randbytes(2000 + 40 * n)
        key = hashlib.sha256(content).digest()
        assert cache.store.get(key, len(content)) in (None, content)
    assert cache.store.hits > 20
    assert cache.info().bytes < 1_000_000
    for left in path.glob("*/.tmp-*"):
        os.utime(left, (0, 0))
    cache.prune()
    assert not list(path.glob("*/*"))


# --- the commands ---------------------------------------------------------------------------------


def test_commands(tmp_path: Path, user_cache: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for n in range(4):
        used(cache, put(cache, bytes([n]) * 5000), n * 86400)
    where = ("--cache-dir", cache.path)
    info = json.loads(command.ok("cache", "info", "--json", *where))
    assert (info["path"], info["chunks"], info["bytes"]) == (cache.path, 4, 4 * 8192)
    assert set(info) == {"path", "chunks", "bytes", "cap", "oldest", "indexes"}
    assert "32,768 bytes" in command.ok("cache", "info", *where)
    old = ("--older-than", "36h")
    assert json.loads(command.ok("cache", "prune", "--json", *old, *where))["chunks"] == 2
    assert command.ok("cache", "prune", "--size", "8K", *where).startswith("removed 1 chunk,")
    assert command.ok("cache", "prune", "-q", *where) == ""
    assert cache.info().chunks == 0
    # The user's own is not made by looking at it.
    assert json.loads(command.ok("cache", "info", "--json"))["path"] == str(user_cache)
    assert command.ok("cache", "prune").startswith("removed 0")
    assert not user_cache.exists()
    assert "is not an age" in command.fails(2, "cache", "prune", "--older-than", "soon")
    (tmp_path / "open").mkdir()
    (tmp_path / "open/x").write_bytes(b"")
    (tmp_path / "open").chmod(0o755)
    assert "chmod 700" in command.fails(1, "cache", "info", "--cache-dir", tmp_path / "open")


# --- indexes --------------------------------------------------------------------------------------


def test_an_index_is_of_one_version_of_its_blob(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.index("blob", "1") is None
    assert cache.keep_index("blob", "1", lambda put: put(b"first"))
    assert cache.index("blob", "1") == b"first"
    assert cache.index("blob", "2") is None
    assert cache.keep_index("blob", "2", lambda put: (put(b"sec"), put(b"ond")))
    assert (cache.index("blob", "1"), cache.index("blob", "2")) == (None, b"second")
    (file,) = (tmp_path / "cache/index").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    # Complete, or as it was.
    with pytest.raises(ValueError, match="stop"):
        cache.keep_index("blob", "3", lambda put: (put(b"half"), int("stop")))
    assert cache.index("blob", "2") == b"second"
    assert len(list(file.parent.iterdir())) == 1
    put(cache, b"chunk")
    info = cache.info()
    assert (info.chunks, info.indexes, info.bytes) == (1, 1, 2 * 4096)
    pruned = cache.prune()
    assert (pruned.chunks, pruned.indexes) == (1, 1)
    assert cache.index("blob", "2") is None


def test_indexes_have_a_share_of_the_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 16 * 10_000)
    for number in range(8):
        for file in (tmp_path / "cache").glob("index/*"):
            os.utime(file, (file.stat().st_mtime - 10,) * 2)
        assert cache.keep_index(f"blob {number}", "1", lambda put: put(bytes(3000)))
    assert [cache.index(f"blob {n}", "1") is not None for n in range(8)] == [False] * 6 + [True] * 2


def test_an_index_that_cannot_be_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path / "cache")
    (tmp_path / "cache/index").write_bytes(b"in the way")
    assert not cache.keep_index("blob", "1", lambda put: put(b"x"))
    assert "an index is not kept" in caplog.text
    assert cache.index("blob", "1") is None
    (tmp_path / "cache/index").unlink()
    cache.keep_index("blob", "1", lambda put: put(b"x"))
    (file,) = (tmp_path / "cache/index").iterdir()
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert cache.index("blob", "1") is None
