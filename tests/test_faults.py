"""Every command that writes, while calls on its files fail, or it is killed in the middle.

After a call that failed the output is as it was before, or absent; the command ends with 1 and one
line, and leaves nothing behind. After SIGKILL the output is the old one or the new one, and the
next run works. STARGZ_FAULT_POINTS is how many calls of each kind are tried (default: 1; 0 means
all of them), and kills of each command.
"""

from __future__ import annotations

import errno
import gzip
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import blobs
import fleets
import layouts
import pytest
from absence import absent
from command import ok_here
from failing import KINDS, Done, Failing, sanitized

POINTS = int(os.environ.get("STARGZ_FAULT_POINTS", "1"))
SIZE = 40_000

Snapshot = dict[str, bytes | None]  # by path: contents; None of a directory


@dataclass(frozen=True)
class Command:
    """`{given}` in its words is a folder with what it reads, `{to}` the one that it writes to.

    `old` are files of `{to}` that it replaces. `parts`: what it writes is complete file by file
    only. `kept` are files that tell how far it came, which are no output.
    """

    words: str
    old: tuple[str, ...] = ()
    parts: bool = False
    kept: tuple[str, ...] = ()


COMMANDS = {
    "convert": Command("convert {given}/tar {to}/out --force", old=("out",)),
    "convert to a new file": Command("convert {given}/tar.gz {to}/out"),
    "convert to zstd:chunked": Command("convert {given}/tar {to}/out --format zstd:chunked"),
    "convert with a TOC apart": Command(
        "convert {given}/tar {to}/out --format external-toc --force", old=("out", "out.toc")
    ),
    "pack": Command("pack {given}/tree {to}/out --force", old=("out", "out.manifest")),
    "pack with a base": Command("pack {given}/tree {to}/out --base {given}/packed"),
    "index": Command("index {given}/tar.gz {to}/out --force", old=("out",)),
    "delta": Command("delta {given}/a {given}/b {to}/out --force", old=("out",)),
    "apply": Command("apply {given}/a {given}/patch {to}/out --force", old=("out",)),
    "extract": Command("extract {given}/a -C {to}", parts=True),
    "image convert": Command("image convert oci:{given}/image:v1 oci:{to}/image:v1", parts=True),
    "image convert to an archive": Command(
        "image convert oci:{given}/image:v1 oci-archive:{to}/out:v1"
    ),
    "image index": Command(
        "image index oci:{given}/image:v1 oci:{to}/image:v1 --min-layer-size 0", parts=True
    ),
    "image extract": Command("image extract oci:{given}/image:v1 -C {to}", parts=True),
    "image bulk": Command(
        "image bulk {given}/fleet oci:{to}/images --state {to}/state --report {to}/report.json",
        parts=True, kept=("state", "report"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    with Failing(tmp_path_factory.mktemp("failing")) as running:
        yield running


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    folder = tmp_path_factory.mktemp("given")
    files = [(f"dir{n % 3}/file{n}", blobs.noise(f"{n}", SIZE >> n)) for n in range(9)]
    tar = blobs.tar_of([*((f"dir{n}", None) for n in range(3)), *files])
    (folder / "tar").write_bytes(tar)
    (folder / "tar.gz").write_bytes(gzip.compress(tar, 6, mtime=0))
    for name, data in files:
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(data)
    ok_here("-q", "pack", folder / "tree", folder / "packed")
    ok_here("-q", "convert", folder / "tar", folder / "b")
    (folder / "other").write_bytes(blobs.tar_of([*files[3:], ("new", b"new" * 999)]))
    ok_here("-q", "convert", folder / "other", folder / "a")
    ok_here("-q", "delta", folder / "a", folder / "b", folder / "patch")
    layout = layouts.Layout(folder / "image")
    layers = map(layout.plain_layer, fleets.layers(0))
    layout.tag(layout.manifest(layers), "v1")
    fleets.layout(folder / "fleet", range(2))
    return folder


class Place:
    """A folder that one command writes to, as it was at the beginning."""

    def __init__(self, command: Command, given: Path, folder: Path) -> None:
        self.command = command
        self.given = given
        self.folder = folder
        self.to = folder / "to"
        self.tmp = folder / "tmp"
        self.reset()

    def reset(self) -> None:
        """As it was."""
        self.force = False
        shutil.rmtree(self.folder, ignore_errors=True)
        self.tmp.mkdir(parents=True)
        self.to.mkdir()
        for name in self.command.old:
            (self.to / name).write_bytes(b"precious")

    @property
    def words(self) -> list[str]:
        words = self.command.words.format(given=self.given, to=self.to).split()
        again = self.force and words[0] != "image" and "--force" not in words
        return ["-q", *words, *(["--force"] if again else [])]

    def env(self) -> dict[str, str]:
        """Temporary files and the cache are among what calls fail on."""
        return {"TMPDIR": str(self.tmp), "STARGZ_CACHE_DIR": str(self.tmp / "cache")}

    def run(self, failing: Failing, **how: object) -> Done:
        return failing.run(*self.words, below=self.folder, env=self.env(), **how)  # type: ignore[arg-type]

    def found(self) -> Snapshot:
        """What is there, but for what tells how far it came."""
        every = sorted(self.to.rglob("*"))
        kept = self.command.kept
        return {
            str(path.relative_to(self.to)): _contents(path)
            for path in every
            if not path.is_symlink() and not (kept and path.name.startswith(kept))
        }

    def temporary(self) -> list[str]:
        """What is left in TMPDIR; the cache is there to stay."""
        return [path.name for path in self.tmp.iterdir() if path.name != "cache"]


def _contents(path: Path) -> bytes | None:
    data = path.read_bytes() if path.is_file() else None
    # What a pack's manifest says of inodes and times is another each time.
    return data[:8] if data and path.suffix == ".manifest" else data


def is_part(path: str, data: bytes | None, good: Snapshot) -> bool:
    """Whether a file is as it is to be. An image layout begins with an index of nothing."""
    return good.get(path, b"") == data or (
        path.endswith("index.json") and data is not None and b'"manifests":[]' in data
    )


def without_aids(found: Snapshot) -> Snapshot:
    """But for what only makes the next run faster."""
    return {path: data for path, data in found.items() if not path.endswith(".manifest")}


def one_line(done: Done) -> None:
    lines = done.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("stargz: ") and "bug" not in lines[0], done


def well(done: Done) -> None:
    assert (done.code, done.err) == (0, ""), done


def chosen(total: int, seed: str, points: int = POINTS) -> list[int]:
    """Some of `total` calls: others for each seed, the same each time."""
    if not points or total <= points:
        return list(range(total))
    return sorted(random.Random(seed).sample(range(total), points))


def tried(name: str) -> list[str]:
    """Kinds of calls: all of them, or as few as there is time for."""
    if POINTS != 1:
        return list(KINDS)
    always = ["write", "fsync", "rename"]
    return [*always, random.Random(name).choice([kind for kind in KINDS if kind not in always])]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_that_fails(name: str, given: Path, failing: Failing, tmp_path: Path) -> None:
    command = COMMANDS[name]
    place = Place(command, given, tmp_path / "place")
    before = place.found()
    clean = place.run(failing)
    well(clean)
    good = place.found()
    assert good != before and not place.temporary()
    for kind in tried(name):
        for at in chosen(clean.seen[kind], f"{name} {kind}"):
            error = errno.EIO if kind in ("fsync", "close") else errno.ENOSPC
            place.reset()
            done = place.run(failing, call=kind, at=at, on=kind == "write", error=error)
            where = f"{kind} {at} of {clean.seen[kind]}: {done}"
            now = place.found()
            assert not place.temporary(), where
            if not done.hit or done.code == 0:  # it could do without
                assert without_aids(now) == without_aids(good), where
                continue
            assert done.code == 1, where
            if name != "image bulk":  # which has one of each image
                one_line(done)
                assert done.err.count(": ") > 1, where  # the line says where, too
            if command.parts:
                assert all(is_part(path, data, good) for path, data in now.items()), where
            else:
                assert now == before, where


@pytest.mark.parametrize("name", COMMANDS)
def test_no_memory(name: str, given: Path, failing: Failing, tmp_path: Path) -> None:
    """For kernels, or no threads: nothing of it is held when the command ends (test_leaks.py has
    those that read)."""
    if sanitized():
        pytest.skip("a sanitizer has the memory")
    command = COMMANDS[name]
    place = Place(command, given, tmp_path / "place")
    before = place.found()
    clean = place.run(failing)
    well(clean)
    clean.holds_nothing()
    good = place.found()
    for call, error in (("memory", errno.ENOMEM), ("thread", errno.EAGAIN)):
        for at in chosen(clean.seen[call], f"{name} {call}", 2 * POINTS):
            place.reset()
            done = place.run(failing, call=call, at=at, on=at % 2 == 1, error=error)
            done.holds_nothing()
            now = place.found()
            assert not place.temporary(), done
            if done.code == 0:  # it could do without
                assert without_aids(now) == without_aids(good), done
                continue
            assert done.code == 1 and ("memory" in done.err or "thread" in done.err), done
            if name != "image bulk":
                one_line(done)
            if not command.parts:
                assert now == before, done


@pytest.mark.parametrize("name", COMMANDS)
def test_kill_9(name: str, given: Path, failing: Failing, tmp_path: Path) -> None:
    command = COMMANDS[name]
    place = Place(command, given, tmp_path / "place")
    before = place.found()
    clean = place.run(failing)
    well(clean)
    good = place.found()
    for at in chosen(clean.seen["any"], name):
        place.reset()
        done = place.run(failing, call="any", at=at)
        if done.code == 0:  # its threads made fewer calls this time
            continue
        assert done.code == -9, done
        for path, data in place.found().items():
            hidden = any(part.startswith(".") for part in Path(path).parts)
            old = path in before and before[path] == data
            assert hidden or old or is_part(path, data, good), (at, path)
        place.force = (place.to / "out").exists()
        well(place.run(failing))
        now = place.found()
        assert good.items() <= now.items(), at
        assert all(Path(path).name.startswith(".") for path in now.keys() - good.keys()), (at, now)


# --- full disks -----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "stargz-test", where]
    if subprocess.run(mount, capture_output=True).returncode:
        absent("a tmpfs cannot be mounted here (it needs root)")
    yield where
    subprocess.run(["umount", where], check=True)


def test_full_disk(given: Path, failing: Failing, small_disk: Path) -> None:
    """A real one, for each command."""
    for name, command in COMMANDS.items():
        place = Place(command, given, small_disk / "place")
        before = place.found()
        with (small_disk / "rest").open("wb", buffering=0) as rest, suppress(OSError):
            while rest.write(bytes(4096)):
                pass
        done = place.run(failing)
        (small_disk / "rest").unlink()
        assert done.code == 1, (name, done)
        assert "No space left" in done.err or "disk is full" in done.err, (name, done)
        assert not place.temporary(), name
        if not command.parts:
            one_line(done)
            assert place.found() == before, name


# --- the cache ------------------------------------------------------------------------------


def test_a_cache_that_fails(given: Path, failing: Failing, tmp_path: Path) -> None:
    """What cannot be kept is not kept, and what was cut short is not believed: the command says
    the same."""
    words = ("-q", "ls", given / "tar.gz")

    def listed(folder: str, **how: object) -> Done:
        env = {"STARGZ_CACHE_DIR": str(tmp_path / folder)}
        return failing.run(*words, below=tmp_path, env=env, **how)  # type: ignore[arg-type]

    clean = listed("clean")
    well(clean)
    assert clean.out and clean.seen["rename"] and not listed("clean").seen["rename"]
    for kind in KINDS:
        for at in chosen(clean.seen[kind], kind):
            done = listed(f"{kind}{at}", call=kind, at=at, error=errno.ENOSPC)
            assert (done.code, done.out) == (0, clean.out), (kind, at, done)
    for at in chosen(clean.seen["any"], "kill"):
        done = listed(f"kill{at}", call="any", at=at)
        assert done.code == -9
        again = listed(f"kill{at}")
        assert (again.code, again.out, again.err) == (0, clean.out, ""), at
