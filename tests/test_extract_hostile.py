"""Nothing is written outside of the directory, whatever the layer and other processes do."""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import os
import random
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bounded
import handmade
import pytest
from handmade import directory, hardlink, reg, symlink
from trees import leftovers, snapshot

import stargz
from stargz import errors
from stargz.sources import MemorySource

Place = tuple[Path, Path]


def run(entries: list[dict[str, Any]], path: Path, **options: Any) -> None:
    blob = handmade.blob(entries, chunk_size=options.pop("chunk_size", 4 << 20))
    with stargz.open(blob) as layer:
        layer.extractall(path, **options)


@pytest.fixture
def walk_by_component(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths as on a kernel without openat2."""
    import stargz.extract

    engine = stargz.extract._engine
    monkeypatch.setattr(
        stargz.extract,
        "_engine",
        SimpleNamespace(extract=functools.partial(engine.extract, openat2=False)),
    )


@pytest.fixture(params=["openat2", "by component"])
def walking(request: pytest.FixtureRequest) -> str:
    """Both ways of walking a path."""
    if request.param == "by component":
        request.getfixturevalue("walk_by_component")
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """(directory to extract into, directory beside it that must not change)."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    (outside / "dir").mkdir(parents=True)
    (outside / "dir/secret").write_bytes(b"secret")
    (outside / "secret").write_bytes(b"secret")
    (outside / "dir").chmod(0o500)
    before = snapshot(outside)
    yield inside, outside
    assert snapshot(outside) == before
    assert {p.name for p in tmp_path.iterdir()} == {"inside", "outside"}
    assert not leftovers(inside)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../outside/new",
        "../../../../../../tmp/stargz-test-escape",
        "/stargz-test-escape",
        "//stargz-test-escape",
        "a/../../outside/new",
        "./../outside/new",
        "../outside/dir/new",
        "..//..//outside//new",
    ],
)
@pytest.mark.parametrize("kind", ["reg", "dir", "symlink", "fifo", "hardlink"])
def test_names_that_lead_out_end_up_inside(name: str, kind: str, place: Place) -> None:
    inside, _ = place
    entry = {"name": name, "type": kind, "mode": 0o700}
    if kind == "symlink":
        entry["linkName"] = "/etc/passwd"
    if kind == "hardlink":
        entry["linkName"] = "first"
    run([reg("first", b"first"), {**entry, **({"content": b"x"} if kind == "reg" else {})}], inside)
    assert not Path("/stargz-test-escape").exists()
    assert not Path("/tmp/stargz-test-escape").exists()
    # Clamped at the root, as a look-up would find it.
    clean = os.path.normpath("/" + name).lstrip("/")
    assert (inside / clean).lstat()


@pytest.mark.parametrize(
    "entries",
    [
        [reg("..", b"x")],
        [reg("", b"x")],
        [reg("/", b"x")],
        [symlink(".", "/etc")],
        [symlink("a/..", "/etc")],
        [hardlink("..", "a"), reg("a", b"a")],
        [reg("nul\0byte", b"x")],
        [directory("nul\0byte/")],
        [symlink("a", "target\0nul")],
        [symlink("a", "")],
    ],
    ids=repr,
)
def test_names_that_cannot_be_are_refused_before_anything(
    entries: list[dict[str, Any]], place: Place
) -> None:
    inside, _ = place
    with pytest.raises(errors.StargzError):
        run([*entries, reg("after", b"after")], inside)
    assert not list(inside.iterdir())


@pytest.mark.parametrize("name", ["n" * 256, "d/" + "n" * 256, "n" * 256 + "/f", "x/" * 2100 + "f"])
def test_names_that_are_too_long_are_refused_before_anything(name: str, place: Place) -> None:
    inside, _ = place
    with pytest.raises(errors.TOCError, match=r"over the limit of (255|4095)"):
        run([reg("before", b"before"), reg(name, b"x")], inside)
    assert not list(inside.iterdir())


def test_names_as_long_as_they_may_be(place: Place, walking: str) -> None:
    inside, _ = place
    deep = ("x" * 12 + "/") * 314 + "f" * 13
    assert len(deep) == 4095
    wide = "/".join(["n" * 255] * 12)
    run([reg(deep, b"deep"), reg(wide, b"wide"), directory(deep[:-14] + "/d")], inside)
    at = os.open(inside, os.O_RDONLY)
    for _ in range(314):
        down = os.open("x" * 12, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=at)
        os.close(at)
        at = down
    assert sorted(os.listdir(at)) == ["d", "f" * 13]  # noqa: PTH208 - too long for a path
    os.close(at)
    assert (inside / wide).read_bytes() == b"wide"


# --- the archive's own links ---------------------------------------------------------------------


@pytest.mark.parametrize("target", ["../outside", "/etc", ".", "dir"])
@pytest.mark.parametrize("first", ["symlink", "file"])
def test_no_file_is_written_through_a_symlink_of_the_archive(
    target: str, first: str, place: Place
) -> None:
    inside, _ = place
    entries = [symlink("link", target), reg("link/new", b"x")]
    with pytest.raises(errors.StargzError):
        run(entries if first == "symlink" else entries[::-1], inside)
    assert not list(inside.iterdir())


def test_a_symlink_that_a_later_file_replaces(place: Place) -> None:
    inside, _ = place
    run([symlink("a", "../outside/secret"), reg("a", b"mine")], inside)
    assert (inside / "a").read_bytes() == b"mine"
    assert not (inside / "a").is_symlink()


def test_a_symlink_that_leads_out_is_only_a_symlink(place: Place) -> None:
    inside, _ = place
    run([symlink("a", "../outside/dir", mode=0o4777, uid=7), symlink("b", "/etc/passwd")], inside)
    assert os.readlink(inside / "a") == "../outside/dir"  # noqa: PTH115
    assert os.readlink(inside / "b") == "/etc/passwd"  # noqa: PTH115


@pytest.mark.parametrize(
    "target", ["../outside/secret", "/etc/passwd", "missing", "self", "dir", "../../../etc/passwd"]
)
def test_hard_links_that_lead_out_are_refused_before_anything(target: str, place: Place) -> None:
    inside, _ = place
    with pytest.raises(errors.StargzError):
        run([reg("a", b"a"), directory("dir"), hardlink("self", target)], inside)
    assert not list(inside.iterdir())


def test_a_hard_link_does_not_go_through_a_symlink(place: Place) -> None:
    """tar would link to what the symlink leads to."""
    inside, _ = place
    with pytest.raises(errors.StargzError):
        run([symlink("s", "../outside"), hardlink("h", "s/secret")], inside)
    run([symlink("s", "../outside/secret"), hardlink("h", "s")], inside)
    assert (inside / "h").is_symlink()


# --- links that are there already ----------------------------------------------------------------

TREE = [
    directory("a", mode=0o751),
    directory("a/b", mode=0o751),
    reg("a/b/file", b"file"),
    reg("a/b/empty", b""),
    reg("a/b/large", random.Random(1).randbytes(600_000)),
    symlink("a/b/soft", "file"),
    hardlink("a/b/hard", "a/b/file"),
    {"name": "a/b/fifo", "type": "fifo", "mode": 0o600},
    directory("a/b/sub", mode=0o700),
    reg("implied/file", b"implied"),
]
LEAVES = ["a/b/file", "a/b/empty", "a/b/large", "a/b/soft", "a/b/hard", "a/b/fifo", "a/b/sub"]


@pytest.mark.parametrize("target", ["", "dir", "dir/secret", "secret", "missing"])
@pytest.mark.parametrize("at", ["a", "a/b", "implied", "implied/file", *LEAVES])
def test_links_in_the_way_are_removed_and_never_followed(
    at: str, target: str, place: Place, walking: str
) -> None:
    inside, outside = place
    (inside / at).parent.mkdir(parents=True, exist_ok=True)
    (inside / at).symlink_to(outside / target)
    run(TREE, inside, chunk_size=100_000)
    run(TREE, inside.parent / "inside", threads=1)
    assert stat.S_ISDIR((inside / "a/b").lstat().st_mode)
    assert stat.S_IMODE((inside / "a/b").stat().st_mode) == 0o751
    assert (inside / "a/b/file").read_bytes() == b"file"
    assert (inside / "a/b/hard").samefile(inside / "a/b/file")
    assert (inside / "a/b/large").stat().st_size == 600_000
    assert not (inside / at).is_symlink() or at == "a/b/soft"
    assert os.readlink(inside / "a/b/soft") == "file"  # noqa: PTH115


def test_the_target_directory_itself_may_be_a_link(place: Place, tmp_path: Path) -> None:
    """It is the caller's own word; what is below it is not."""
    inside, _ = place
    (inside / "link").symlink_to("real")
    (inside / "real").mkdir()
    run(TREE, inside / "link")
    assert (inside / "real/a/b/file").read_bytes() == b"file"


def test_temporary_names_that_are_taken(place: Place) -> None:
    """Whatever stands under such a name is neither opened nor removed."""
    inside, outside = place
    (inside / ".stargz-0").symlink_to(outside / "secret")
    run(TREE, inside)
    assert (inside / ".stargz-0").is_symlink()
    (inside / ".stargz-0").unlink()


# --- other processes -----------------------------------------------------------------------------


@contextlib.contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Run `action` again and again in another process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            while True:
                with contextlib.suppress(OSError):
                    action()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


MANY = [
    *[reg(f"a/b{n % 5}/c/f{n}", b"x" * (n % 7)) for n in range(300)],
    *[symlink(f"a/b{n}/c/s", "f0") for n in range(5)],
    *[hardlink(f"a/b{n}/c/h", "a/b0/c/f0") for n in range(5)],
    *[directory(f"a/b{n}/c/d", mode=0o777) for n in range(5)],
    *[directory(f"a/b{n}/c", mode=0o777) for n in range(5)],
    directory("a", mode=0o777),
]


@pytest.mark.parametrize("swapped", ["a", "a/b0", "a/b0/c"])
def test_a_process_that_swaps_directories_for_symlinks(
    swapped: str, tmp_path: Path, walking: str
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for level in ("b0/c/d", "c/d", "d", "h"):
        (outside / level).mkdir(parents=True, exist_ok=True)
    inside.mkdir()
    before = snapshot(outside)
    numbers = itertools.count()

    def swap() -> None:
        path, number = inside / swapped, next(numbers)
        aside = inside / f"aside{number}"
        with contextlib.suppress(OSError):
            path.rename(aside)
        with contextlib.suppress(OSError):
            path.symlink_to(outside)
        time.sleep(number % 7 * 1e-4)
        with contextlib.suppress(OSError):
            path.unlink()
        aside.rename(path)

    blob = handmade.blob(MANY)
    rounds = done = 0
    end = time.monotonic() + 1.5
    with meanwhile(swap):
        while time.monotonic() < end or not rounds:
            rounds += 1
            # It may give up when everything is taken away from under it.
            with contextlib.suppress(OSError, errors.ExtractError), stargz.open(blob) as layer:
                layer.extractall(inside)
                done += 1
            assert snapshot(outside) == before
    assert rounds
    # And left alone, it works again.
    with contextlib.suppress(OSError):
        (inside / swapped).unlink()
    run(MANY, inside)
    assert (inside / "a/b0/c/f5").read_bytes() == b"xxxxx"
    assert snapshot(outside) == before


class Second(MemorySource):
    """A blob of a file of two chunks, which two threads come to: the second once the first was
    written and `then` was called. It is spoilt."""

    def __init__(self, data: bytes, begin: int, then: Callable[[], object]) -> None:
        super().__init__(data)
        self.begin = begin
        self.then = then
        self.asked, self.written = threading.Event(), threading.Event()

    @property
    def buffer(self) -> None:
        return None

    def progress(self, done: int, total: int) -> None:
        if 2 * done >= total:
            self.written.set()

    def read_at(self, offset: int, size: int) -> bytes:
        data = super().read_at(offset, size)
        if offset < self.begin:
            assert self.asked.wait(60)
        elif offset < self.begin + 1024:
            self.asked.set()
            assert self.written.wait(60)
            self.then()
            return bytes(len(data))
        return data


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_process_that_moves_a_directory_with_a_file_in_it_that_fails(
    keep_going: bool, place: Place
) -> None:
    """Whoever removes it is not the thread that created it."""
    inside, _ = place
    size = 1 << 20
    blob = handmade.blob([reg("d/f", random.Random(1).randbytes(2 * size))], chunk_size=size)
    with stargz.open(blob) as layer:
        begin = layer.chunks("d/f")[1].offset
    moved: list[Path] = []

    def move() -> None:
        if not moved:
            moved.append((inside / "d").rename(inside / "e"))

    source = Second(blob, begin, move)
    with stargz.open(source) as layer:
        extract = functools.partial(
            layer.extractall, inside, ["d"], threads=2, progress=source.progress
        )
        if keep_going:
            assert extract(keep_going=True).error_count == 1
        else:
            with pytest.raises(errors.FormatError):
                extract()
    assert moved
    assert not list((inside / "e").iterdir())


# --- TOCs that lie -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        {"size": 3},
        {"size": 1 << 62},
        {"size": -1},
        {"chunkSize": 2},
        {"chunkSize": 1 << 62},
        {"chunkOffset": 1},
        {"offset": 1 << 40},
        {"offset": -1},
        {"innerOffset": 1 << 62},
        {"innerOffset": -1},
    ],
    ids=repr,
)
def test_sizes_and_offsets_that_lie(lie: dict[str, int], place: Place) -> None:
    inside, _ = place
    with pytest.raises((errors.FormatError, errors.DigestError, OSError)):
        run([reg("before", b"before"), reg("f", b"content", override=lie)], inside)
    assert not (inside / "f").exists()


def test_a_file_used_as_a_directory(place: Place) -> None:
    inside, _ = place
    with pytest.raises(errors.StargzError):
        run([reg("a", b"a"), reg("a/b", b"b")], inside)
    assert not list(inside.iterdir())


def test_xattrs_of_a_directory_and_a_symlink_stay_on_them(place: Place) -> None:
    inside, outside = place
    value = {"user.test": base64.b64encode(b"x").decode()}
    (inside / "d").symlink_to(outside / "dir")
    run([directory("d", xattrs=value), symlink("s", "../outside/secret", xattrs=value)], inside)
    assert os.listxattr(inside / "d") == ["user.test"]
    assert os.listxattr(outside / "dir") == []
    assert os.listxattr(outside / "secret") == []


def test_names_that_imply_too_many_directories(tmp_path: Path) -> None:
    # 16 MB of names, 40 kB once packed, must not become eight million directories.
    path = tmp_path / "blob"
    path.write_bytes(handmade.blob([directory(f"{n:05}/" + "a/" * 2040) for n in range(4000)]))
    code = (
        "before = peak()\n"
        "try:\n"
        "    stargz.open(sys.argv[1])\n"
        "except stargz.TOCError as error:\n"
        "    print(peak() - before, error)\n"
    )
    memory, message = bounded.run(code, path).split(" ", 1)
    assert "imply too many directories" in message
    assert int(memory) < 74


def test_as_many_directories_as_layers_have(place: Place) -> None:
    inside, _ = place
    run([reg(f"{n}/" + "d/" * 30 + "f") for n in range(100)], inside)
    assert len(list(inside.glob("*/" + "d/" * 30 + "f"))) == 100
