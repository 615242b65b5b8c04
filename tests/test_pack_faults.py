"""Packing while the tree changes, the disk is full, or somebody stops it: the layer is whole or
it is not there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stargz

Tool = Callable[[str], str]
SIZE = 300_000


def make_tree(root: Path, files: int = 60) -> Path:
    rng = random.Random(7)
    for n in range(files):
        folder = root / f"d{n % 6}" / f"s{n % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{n}").write_bytes(rng.randbytes(SIZE // (1 + n % 9)))
    (root / "still").write_bytes(b"still here")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def check(layer: Path, tar: str) -> dict[str, bytes]:
    """The layer verifies and GNU tar reads it to its end; its regular files."""
    done = subprocess.run([tar, "tzf", layer], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    with stargz.open(layer) as opened:
        opened.verify()
        files = [n for n in opened.names() if opened.entry(n).type == "reg"]
        return {name: opened.read(name) for name in files}


def left(folder: Path, *known: str) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name not in known)


# --- a tree that changes --------------------------------------------------------------------


def write(path: Path, data: bytes, mode: str = "wb") -> None:
    """Write to a file; a fifo that has taken its place is an OSError."""
    with open(path, mode, opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
        file.write(data)


def grow(path: Path) -> None:
    write(path, b"more" * 5000, "ab")


def shrink(path: Path) -> None:
    os.truncate(path, 10)


def to_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def rewrite(path: Path) -> None:
    write(path, b"\xaa" * path.stat().st_size)


def replace(path: Path) -> None:
    """By another file of the same size and times."""
    info = path.stat()
    other = path.with_name("beside")
    other.write_bytes(b"\xaa" * info.st_size)
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    other.replace(path)


CHANGES: list[Callable[[Path], None]] = [
    grow, shrink, to_symlink, to_directory, to_fifo, rewrite, replace, Path.unlink
]  # fmt: skip


class During:
    """An ignore file that leaves out nothing, and changes the tree at the walk's last name (all
    others were looked at, and no contents were read)."""

    def __init__(self, change: Callable[[], object]) -> None:
        self.change = change

    def decide(self, name: bytes, is_dir: bool) -> int:
        if name == b"zz/last":
            self.change()
        return 0


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_changed_after_the_walk(
    tmp_path: Path, tool: Tool, change: Callable[[Path], None], place: str
) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    root.mkdir()
    out.mkdir()
    victim = root / ("a" if place == "before" else "zz/victim")
    (root / "zz").mkdir()
    victim.write_bytes(b"v" * SIZE)
    (root / "b").write_bytes(b"b")
    (root / "zz/last").write_bytes(b"")
    name = str(victim.relative_to(root))
    during = During(lambda: change(victim)) if place == "before" else None
    if during is None:
        # "victim" is walked after "last": by then it is what it is, and nothing is wrong.
        during = During(lambda: change(victim))
    try:
        result = stargz.pack(root, out / "layer", ignore=during, threads=1)  # type: ignore[arg-type]
    except (stargz.SourceError, OSError) as error:
        assert place == "before" and name in str(error)
        assert change in (to_symlink, to_directory, to_fifo, replace, Path.unlink)
        assert not left(out)
        return
    files = check(out / "layer", tool("tar"))
    assert files["b"] == b"b"
    if place == "before":
        assert change in (grow, shrink, rewrite)
        assert any(name in w for w in result.warnings)
        assert len(files[name]) == SIZE
        if change is shrink:
            assert files[name] == b"v" * 10 + bytes(SIZE - 10)
        elif change is grow:
            assert files[name] == b"v" * SIZE
    else:
        assert not any(name in w for w in result.warnings)
        assert files.get(name, b"") == (victim.read_bytes() if victim.is_file() else b"") or (
            change is to_symlink and name not in files
        )
    # And the next pack does not believe what the last one says of it.
    if place == "before":
        again = stargz.pack(root, out / "again", base=out / "layer", threads=1)
        now = check(out / "again", tool("tar"))
        assert now[name] == victim.read_bytes() and again.read_files >= 1


@pytest.fixture
def unrest(tree: Path) -> Iterator[Path]:
    """A tree in which everything but `still` changes all the time."""
    stop = threading.Event()

    def run(seed: int) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            path = tree / f"d{rng.randrange(6)}" / f"s{rng.randrange(4)}" / f"f{rng.randrange(60)}"
            try:
                match rng.randrange(10):
                    case 0:
                        shutil.rmtree(path.parent)
                    case 1:
                        path.parent.parent.rename(tree / "d0" / f"moved{rng.randrange(3)}")
                    case 2:
                        rng.choice(CHANGES)(path)
                    case 3:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.parent.rmdir()
                        path.parent.symlink_to(tree)
                    case 4:
                        path.unlink()
                    case _:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        write(path, rng.randbytes(rng.randrange(SIZE)))
            except OSError:
                pass

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    yield tree
    stop.set()
    for thread in threads:
        thread.join()


def test_a_tree_without_rest(unrest: Path, tmp_path: Path, tool: Tool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    base: Path | None = None
    for n in range(25):
        layer = out / f"{n}.esgz"
        before = left(out)
        try:
            stargz.pack(unrest, layer, base=base)
        except OSError:
            assert left(out) == before
            continue
        assert check(layer, tool("tar"))["still"] == b"still here"
        base = layer
    for path in out.iterdir():
        assert path.name.endswith((".esgz", ".esgz.manifest"))


# --- what cannot be read or written ---------------------------------------------------------


def test_sockets_are_told_of(tree: Path, tmp_path: Path, tool: Tool) -> None:
    for name in ("one.sock", "two.sock"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(os.fspath(tree / name))
    result = stargz.pack(tree, tmp_path / "layer")
    assert [w for w in result.warnings if "one.sock and 1 more" in w]
    assert not any(name.endswith(".sock") for name in check(tmp_path / "layer", tool("tar")))


def child(code: str, *args: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stderr=subprocess.PIPE, text=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", ["file", "folder"])
def test_what_one_may_not_read(tree: Path, tmp_path: Path, mode: str) -> None:
    secret = tree / ("d1/s1/secret" if mode == "file" else "d1/secret")
    secret.mkdir() if mode == "folder" else secret.write_bytes(b"secret")
    secret.chmod(0)
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    code = """if True:
        import os, sys, stargz
        import stargz._engine.write, stargz._engine.base, stargz.packing
        stargz._engine.base.need("isal")
        os.setgid(65534), os.setuid(65534)
        try:
            stargz.pack(sys.argv[1], sys.argv[2])
        except OSError as error:
            print(error, error.errno, file=sys.stderr)
            sys.exit(9)
    """
    process = child(code, tree, out / "layer")
    stderr = process.communicate()[1]
    assert process.returncode == 9 and "secret" in stderr and "ermission" in stderr
    assert not left(out)


@pytest.fixture
def small_disk(tmp_path: Path, tool: Tool) -> Iterator[Path]:
    """A file system of one megabyte."""
    path = tmp_path / "small"
    path.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            [tool("mount"), "-t", "tmpfs", "-o", "size=1m", "none", path], capture_output=True
        ).returncode
    ):
        pytest.skip("file systems cannot be mounted here")
    yield path
    subprocess.run([tool("umount"), path], check=True)


def test_full_disk(tree: Path, small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        stargz.pack(tree, small_disk / "layer")
    assert not left(small_disk)


def slowly(tree: Path, out: Path, by: int) -> int:
    """Pack in a process that is sent a signal in the middle; its return code."""
    code = """if True:
        import sys, time
        from stargz.__main__ import main
        print("begun", file=sys.stderr, flush=True)
        sys.exit(main(["pack", sys.argv[1], sys.argv[2], "--level", "2"]))
    """
    with child(code, tree, out / "layer") as process:
        assert process.stderr
        process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(by)
        process.stderr.read()
        return process.wait()


@pytest.fixture
def long_tree(tmp_path: Path) -> Path:
    """Takes seconds: a sparse file of some gigabytes."""
    root = make_tree(tmp_path / "tree", 5)
    with (root / "large").open("wb") as file:
        file.truncate(20 << 30)
    return root


def test_killed(long_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert slowly(long_tree, out, signal.SIGKILL) == -signal.SIGKILL
    assert "layer" not in left(out) and "layer.manifest" not in left(out)


def test_interrupted(long_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert slowly(long_tree, out, signal.SIGINT) == 130
    assert not left(out)


def test_interrupted_while_it_walks(tree: Path, tmp_path: Path) -> None:
    """An exception of the ignore file ends the walk, and is what the caller sees."""

    def stop() -> None:
        raise KeyboardInterrupt

    (tree / "zz").mkdir()
    (tree / "zz/last").write_bytes(b"")
    with pytest.raises(KeyboardInterrupt):
        stargz.pack(tree, tmp_path / "layer", ignore=During(stop))  # type: ignore[arg-type]
    assert left(tmp_path) == ["tree"]


@pytest.mark.parametrize("times", [1, 3])
def test_interrupted_while_the_ignore_file_is_asked(tree: Path, tmp_path: Path, times: int) -> None:
    """The interrupt waits for the threads of the walk; none is left that asks or reads."""
    calls: list[bytes] = []
    ended = threading.Event()

    class Slow:
        def decide(self, name: bytes, is_dir: bool) -> int:
            calls.append(name)
            if len(calls) == 3:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.15)  # more than a poll: it is seen while this blocks
                ended.set()
            return 0

    def tasks() -> set[str]:
        return {p.name for p in Path("/proc/self/task").iterdir()}

    before, files = tasks(), set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(KeyboardInterrupt):
        stargz.pack(tree, tmp_path / "layer", ignore=Slow())  # type: ignore[arg-type]
    assert ended.is_set()
    seen = len(calls)
    deadline = time.monotonic() + 10
    while tasks() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not tasks() - before
    assert len(calls) == seen
    assert set(os.listdir("/proc/self/fd")) == files  # noqa: PTH208
    assert left(tmp_path) == ["tree"]


def test_a_manifest_is_waited_for_whatever_signals_come(tmp_path: Path) -> None:
    """The first interrupt does not make the wait for what saves it return early."""
    from stargz._engine.write import Packing, Saving

    for n in range(1000):
        (tmp_path / str(n)).touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    packing = Packing(
        fd,
        "",
        level=1,
        chunk_size=1 << 20,
        owner=-1,
        group=-1,
        mtime=None,
        mtime_max=None,
        engine="",
        diff_id=True,
        threads=1,
        progress=None,
    )
    packing.walk([], None, False, None, True)
    packing.run(len, "", False, -1)
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    got: list[bytes] = []

    def later() -> None:
        for _ in range(3):
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
        while data := os.read(read, 1 << 20):
            got.append(data)

    thread = threading.Thread(target=later)
    saving = Saving(packing, write)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        saving.wait()
    os.close(write)
    thread.join()
    manifest = b"".join(got)
    assert hashlib.sha256(manifest[:-32]).digest() == manifest[-32:]
    for other in (fd, read):
        os.close(other)
