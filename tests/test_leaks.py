"""Commands that read: what kernels ask for is given back, however the command ends, and its lack is
one line; and nothing grows while layers stay open. (test_faults.py has the commands that write.)

Each block that a kernel asks for is known by who asked (tests/failing.c), so a leak is exact: one
block more than none. STARGZ_FAULT_POINTS is how many requests of each command fail (default: 2; 0
means all of them).
"""

from __future__ import annotations

import errno
import functools
import gzip
import http.server
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blobs
import fleets
import layouts
import pytest
from command import ok_here
from failing import Done, Failing, sanitized
from mounts import clean_up, needs_fuse
from registries import serving

POINTS = int(os.environ.get("STARGZ_FAULT_POINTS", "2"))
FILES = [(f"dir{n % 3}/file{n}", blobs.noise(f"{n}", 40_000 >> n)) for n in range(9)]
FORMATS = {"estargz": "a", "zstd:chunked": "chunked"}

# What is read, by the commands that read it; `{given}` is the folder of `given` below.
READING = {
    **{
        f"{words.split()[0]} of {kind}": words.replace("LAYER", f"{{given}}/{name}")
        for kind, name in [*FORMATS.items(), ("an index", "tar.gz")]
        for words in (
            "info LAYER", "ls -l LAYER", "cat LAYER dir0/file0 dir1/file1", "verify LAYER",
            "extract LAYER dir0 -C {to}",
        )
    },
    "find": "find {given}/a -name *1 -size +1",
    "du": "du {given}/a",
    "tree": "tree {given}/a",
    "toc": "toc {given}/chunked",
    "diff": "diff {given}/a {given}/b",
    "image ls": "image ls -l oci:{given}/image:v1",
    "image cat": "image cat oci:{given}/image:v1 etc/name",
    "image diff": "image diff oci:{given}/image:v1 oci:{given}/image:v1",
}  # fmt: skip


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    if sanitized():
        pytest.skip("a sanitizer has the memory")
    with Failing(tmp_path_factory.mktemp("failing")) as running:
        yield running


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    folder = tmp_path_factory.mktemp("given")
    tar = blobs.tar_of([*((f"dir{n}", None) for n in range(3)), *FILES])
    (folder / "tar").write_bytes(tar)
    (folder / "tar.gz").write_bytes(gzip.compress(tar, 6, mtime=0))
    for kind, name in FORMATS.items():
        ok_here("-q", "convert", folder / "tar", folder / name, "--format", kind)
    (folder / "other").write_bytes(blobs.tar_of([*FILES[3:], ("new", b"new" * 999)]))
    ok_here("-q", "convert", folder / "other", folder / "b")
    ok_here("-q", "delta", folder / "a", folder / "b", folder / "patch")
    ok_here("-q", "index", folder / "tar.gz", folder / "index")
    layout = layouts.Layout(folder / "image")
    layers = map(layout.plain_layer, fleets.layers(0))
    layout.tag(layout.manifest(layers), "v1")
    return folder


def run(failing: Failing, words: str, tmp_path: Path, given: Path, **how: Any) -> Done:
    """One command, with caches of its own that are as they were."""
    to = tmp_path / "to"
    to.mkdir(parents=True, exist_ok=True)
    asked = words.format(given=given, to=to).split()
    env = {"TMPDIR": str(tmp_path), "STARGZ_CACHE_DIR": str(tmp_path / "cache")}
    return failing.run("-q", *asked, below=tmp_path, env=env, **how)


def chosen(total: int, seed: str) -> list[int]:
    """Some of `total` requests: others for each seed, the same each time."""
    if not POINTS or total <= POINTS:
        return list(range(total))
    return sorted(random.Random(seed).sample(range(total), POINTS))


@pytest.mark.parametrize("name", READING)
def test_no_memory(name: str, failing: Failing, given: Path, tmp_path: Path) -> None:
    """For kernels, or no threads: once, or from then on."""
    clean = run(failing, READING[name], tmp_path / "clean", given)
    assert clean.code == 0, clean
    clean.holds_nothing()
    for call, error in (("memory", errno.ENOMEM), ("thread", errno.EAGAIN)):
        for at in chosen(clean.seen[call], f"{name} {call}"):
            how = {"call": call, "at": at, "on": at % 2 == 1, "error": error}
            done = run(failing, READING[name], tmp_path / f"{call}{at}", given, **how)
            done.holds_nothing()
            if done.code == 0:  # it could do without
                assert (done.out, done.err) == (clean.out, ""), done
            else:
                assert done.code == 1 and done.err.count("\n") == 1, done
                assert "memory" in done.err or "no thread can be started" in done.err, done


@pytest.mark.parametrize("call", ["memory", "thread"])
def test_nobody_waits_for_what_cannot_be_had(
    call: str, failing: Failing, given: Path, tmp_path: Path
) -> None:
    """Those who fetch have no memory from then on, and the reader hears of it."""
    files = functools.partial(Quiet, directory=str(given))
    with serving(files) as url:  # type: ignore[arg-type]
        words = f"cat {url}/a dir0/file0 dir1/file1"
        clean = run(failing, words, tmp_path / "clean", given)
        assert clean.code == 0, clean
        total = clean.seen[call]
        for at in range(total - 25 if POINTS and call == "memory" else 0, total):
            done = run(failing, words, tmp_path / f"{at}", given, call=call, at=at, on=True,
                       error=errno.ENOMEM)  # fmt: skip
            done.holds_nothing()
            fails = done.code == 1 and done.err.count("\n") == 1
            assert fails or (done.code, done.out) == (0, clean.out), done


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


# --- bad input ------------------------------------------------------------------------------


def damaged(data: bytes, seed: str) -> bytes:
    """With some of it overwritten, cut off, or put in twice."""
    rng = random.Random(seed)
    at = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + rng.randbytes(rng.randrange(1, 40)) + data[at:]
        case 2:  # close to the end, where footers and TOCs are
            at = max(0, len(data) - 1 - rng.randrange(2000))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


BAD = {
    **{f"{words} {kind}": (name, words) for kind, name in FORMATS.items()
       for words in ("verify BAD", "extract BAD -C {to}", "cat BAD dir0/file0")},
    "convert BAD": ("tar.gz", "convert BAD {to}/out --force"),
    "convert a tar": ("tar", "convert BAD {to}/out --force"),
    "index BAD": ("tar.gz", "index BAD {to}/out --force"),
    "apply BAD": ("patch", "apply {given}/a BAD {to}/out --force"),
    "apply to BAD": ("a", "apply BAD {given}/patch {to}/out --force"),
    "an index that is BAD": ("index", "cat {given}/tar.gz dir0/file0 --index BAD"),
    "a delta of BAD": ("a", "delta BAD {given}/b {to}/out --force"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, failing: Failing, given: Path, tmp_path: Path) -> None:
    source, words = BAD[name]
    data = (given / source).read_bytes()
    for n in range(3 * POINTS or 500):
        (tmp_path / "bad").write_bytes(damaged(data, f"{name} {n}"))
        done = run(failing, words.replace("BAD", str(tmp_path / "bad")), tmp_path, given)
        lines = done.err.count("\n")
        assert (done.code, lines) in [(0, 0), (1, 1)] or (done.code == 3 and lines), (n, done)
        done.holds_nothing()


# --- layers that stay open ------------------------------------------------------------------

# In a process where blocks are counted: `steps` are done again and again, and then as many blocks
# are there as before.
ROUNDS = """
import gc, os, shutil, sys
def flat(step):
    def there():
        gc.collect()
        return (state.live, len(os.listdir("/proc/self/fd"))), sys.getallocatedblocks()
    for _ in range(10):
        step()
    before, blocks = there()
    for _ in range(60):
        step()
    after, more = there()
    assert after == before and more - blocks < 60, (after, before, more - blocks)
"""

OPEN = {
    "reading": """
layer = stargz.open(path)
def step():
    layer.read("dir0/file0"), layer.read("dir1/file1", 7, 9), layer.listdir("dir2")
    layer.entry("dir0/file3"), layer.chunks("dir0/file0"), layer.glob("**/file*")
    with layer.open("dir2/file2") as file:
        file.seek(9), file.read(99)
    for name in ("none", "dir0", "dir0/file0/x"):
        with suppress(OSError, stargz.StargzError):
            layer.read(name)
flat(step)
layer.close()
""",
    "verifying and extracting": """
layer = stargz.open(path)
def step():
    assert layer.verify().ok
    shutil.rmtree(to, ignore_errors=True)
    layer.extractall(to, ["dir0"])
flat(step)
layer.close()
""",
    "opening what is good and what is not": """
with open(path, "rb") as file:
    data = file.read()
def step():
    for bad in (data, data[:-1], data[: len(data) // 2], b"", data[:-20] + data[-21:]):
        with suppress(stargz.StargzError), stargz.open(bad) as layer:
            layer.read("dir0/file0")
flat(step)
""",
    "a mount": """
import stargz.mount
os.mkdir(to)
with stargz.mount.mount(path, to, memory=1 << 16) as mounted:
    def step():
        for folder, _, names in os.walk(to):
            for name in names:
                fd = os.open(os.path.join(folder, name), os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.pread(fd, 5000, 0), os.pread(fd, 1 << 20, 1000)
                os.close(fd)
    flat(step)
""",
}


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("kind", ["estargz", "zstd:chunked"])
def test_what_stays_open_does_not_grow(
    name: str, kind: str, failing: Failing, given: Path, tmp_path: Path
) -> None:
    if name == "a mount":
        needs_fuse()
    source = f"""
import os
from contextlib import suppress
import stargz
path, to = words
{ROUNDS}
{OPEN[name]}
"""
    to = tmp_path / "to"
    env = {"STARGZ_CACHE_DIR": str(tmp_path / "cache")}
    try:
        done = failing.run("python", source, given / FORMATS[kind], to, below=tmp_path, env=env)
    finally:
        clean_up(to)
    assert (done.code, done.err) == (0, ""), done
    done.holds_nothing()
