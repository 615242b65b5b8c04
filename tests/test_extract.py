"""Extraction: the tree that GNU tar makes of the same tar, complete or not at all."""

from __future__ import annotations

import functools
import io
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import handmade
import pytest
from handmade import directory, hardlink, reg, symlink
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import leftovers, snapshot

import stargz
from stargz import errors
from stargz.extract import ExtractResult

ROOT = os.geteuid() == 0
GOLDEN = [
    "dot_slash",
    "duplicates",
    "empty",
    "implied_dirs",
    "long_names_gnu",
    "long_names_pax",
    "min_chunk_60000",
    "prioritized",
    "tree",
    "tree_chunk4096",
    "tree_exact_multiple",
    "whiteouts",
    "xattrs",
]


def run(blob: Any, path: Path, *args: Any, **options: Any) -> ExtractResult:
    with stargz.open(blob) as layer:
        return layer.extractall(path, *args, **options)


def gnu_tar(tool: Callable[[str], str], tar: Path, target: Path) -> None:
    """What is expected. Directory times are the archive's, not those of tar's own writes."""
    target.mkdir()
    options = ["--delay-directory-restore", "--xattrs", "--xattrs-include=*", "-p"]
    if not ROOT:
        options += ["--exclude=dev/*"]
    # tar ends with 1 where the kernel refuses an xattr; so do we, more quietly.
    subprocess.run([tool("tar"), "-xf", tar, "-C", target, *options], capture_output=True)


def same_as_tar(
    tool: Callable[[str], str], tar: Path, blob: Any, tmp_path: Path, **kw: Any
) -> None:
    gnu_tar(tool, tar, tmp_path / "tar")
    options: dict[str, Any] = {"setid": True, "devices": ROOT, "xattrs": "all", **kw}
    run(blob, tmp_path / "ours", **options)
    # The top directory's own time is the archive's only if it has an entry for it.
    assert snapshot(tmp_path / "ours", root_itself=False) == snapshot(
        tmp_path / "tar", root_itself=False
    )
    assert not leftovers(tmp_path / "ours")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_blobs_extract_as_gnu_tar_does(
    name: str, data: Path, tool: Callable[[str], str], tmp_path: Path
) -> None:
    same_as_tar(tool, data / f"{name}.tar", data / f"{name}.esgz", tmp_path)


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


@pytest.fixture(scope="module")
def varied_tar(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Path:
    """A tree with one of everything that extraction has a case for."""
    top = tmp_path_factory.mktemp("varied")
    tree = top / "tree"
    random_bytes = random.Random(7).randbytes
    for name, content in {
        "empty": b"",
        "small": b"x",
        "zeros": bytes(600_000),
        "block": random_bytes(4096),
        "piece": random_bytes(256 << 10),
        "piece+1": random_bytes((256 << 10) + 1),
        "large": random_bytes(3_000_000) + bytes(2_000_000) + random_bytes(1000),
        "deep/er/still/file": b"deep",
        "n" * 255: b"NAME_MAX",
        "späß/µ": b"not ASCII",
        **{f"many/{n:03}": random_bytes(n * 37) for n in range(200)},
    }.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for n in range(20):
        (tree / f"empty-dir-{n}").mkdir()
    (tree / "read-only").mkdir()
    (tree / "read-only/file").write_bytes(b"in a read-only directory")
    (tree / "fifo").touch()
    (tree / "fifo").unlink()
    os.mkfifo(tree / "fifo", 0o640)
    (tree / "hard").hardlink_to(tree / "large")
    (tree / "many/hard").hardlink_to(tree / "small")
    (tree / "soft").symlink_to("deep/er/still")
    (tree / "dangling").symlink_to("/no/such/thing")
    (tree / "soft-hard").hardlink_to(tree / "soft")
    (tree / "fifo-hard").hardlink_to(tree / "fifo")
    os.setxattr(tree / "small", "user.test", b"\0value\xff")
    os.setxattr(tree / "deep", "user.dir", b"on a directory")
    (tree / "small").chmod(0o4751)
    (tree / "block").chmod(0)
    (tree / "deep/er").chmod(0o1777)
    (tree / "read-only").chmod(0o555)
    if ROOT:
        os.chown(tree / "small", 1234, 5678)
        os.chown(tree / "many", 12, 34)
        os.chown(tree / "soft", 1, 2, follow_symlinks=False)
        (tree / "small").chmod(0o4751)  # chown took the bit
    for name, seconds in {"small": 1, "deep": 1_500_000_000, "many": 2_000_000_000}.items():
        os.utime(tree / name, (seconds, seconds))
    tar = top / "varied.tar"
    options = ["--format=pax", "--xattrs", "--sort=name"]
    subprocess.run([tool("tar"), "-cf", tar, *options, "-C", tree, "."], check=True)
    return tar


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"chunk_size": 10_000},
        {"pack": 16},
        {"legacy": True},
        {"legacy": True, "chunk_size": 77_777},
    ],
    ids=lambda layout: "-".join(map(str, layout.items())) or "default",
)
def test_a_varied_tree_extracts_as_gnu_tar_does(
    varied_tar: Path,
    layout: dict[str, Any],
    threads: int,
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    blob = handmade.blob(handmade.entries_of(varied_tar.read_bytes()), **layout)
    same_as_tar(tool, varied_tar, blob, tmp_path, threads=threads)


def test_without_openat2(
    varied_tar: Path,
    tool: Callable[[str], str],
    tmp_path: Path,
    walk_by_component: None,
) -> None:
    blob = handmade.blob(handmade.entries_of(varied_tar.read_bytes()))
    same_as_tar(tool, varied_tar, blob, tmp_path)


def test_extracting_twice_changes_nothing(varied_tar: Path, tmp_path: Path) -> None:
    blob = handmade.blob(handmade.entries_of(varied_tar.read_bytes()))
    run(blob, tmp_path / "x")
    first = snapshot(tmp_path / "x")
    run(blob, tmp_path / "x")
    assert snapshot(tmp_path / "x") == first
    assert not leftovers(tmp_path / "x")


@pytest.mark.parametrize("kind", ["path", "bytes", "file object", "python source"])
def test_every_kind_of_source(kind: str, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(1_000_000)
    blob = handmade.blob([reg("a/file", content), reg("b", b"small")], chunk_size=70_000)
    (tmp_path / "blob").write_bytes(blob)
    with (tmp_path / "blob").open("rb") as file:
        source = {
            "path": tmp_path / "blob",
            "bytes": blob,
            "file object": file,
            "python source": io.BytesIO(blob),
        }[kind]
        result = run(source, tmp_path / "x", threads=3)
    assert (tmp_path / "x/a/file").read_bytes() == content
    assert (result.files, result.bytes) == (2, len(content) + 5)


paths = st.lists(
    st.lists(st.sampled_from(["a", "b", "long" * 20, "."]), min_size=1, max_size=4),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    names=paths,
    sizes=st.lists(st.integers(0, 3000), min_size=12, max_size=12),
    chunk_size=st.integers(1, 2000),
    pack=st.integers(1, 5),
    threads=st.integers(1, 4),
)
def test_random_trees_come_back(
    names: list[list[str]], sizes: list[int], chunk_size: int, pack: int, threads: int
) -> None:
    files = {}
    for number, (parts, size) in enumerate(zip(names, sizes, strict=False)):
        # A directory is never a file: files have names of their own.
        name = os.path.normpath("/".join([*parts, f"file{number}"]))
        files[name] = random.Random(number).randbytes(size // 2) + bytes(size - size // 2)
    blob = handmade.blob([reg(n, c) for n, c in files.items()], chunk_size=chunk_size, pack=pack)
    with tempfile.TemporaryDirectory() as top:
        result = run(blob, Path(top), threads=threads)
        found = {
            str(p.relative_to(top)): p.read_bytes() for p in Path(top).rglob("*") if p.is_file()
        }
    assert found == files
    assert result.files == len(files)
    assert result.bytes == sum(map(len, files.values()))


# --- what is there already -----------------------------------------------------------------------


def test_what_is_in_the_way_is_replaced(tmp_path: Path) -> None:
    top = tmp_path / "x"
    (top / "empty-dir").mkdir(parents=True)
    (top / "file").write_bytes(b"old")
    (top / "other").hardlink_to(top / "file")
    (top / "link").symlink_to("other")
    (top / "dir").write_bytes(b"a file where a directory goes")
    (top / "soft").write_bytes(b"a file where a symlink goes")
    (top / "hard").write_bytes(b"a file where a hard link goes")
    run(
        handmade.blob(
            [
                reg("file", b"new"),
                reg("link", b"was a link"),
                reg("empty-dir", b"was a directory"),
                directory("dir"),
                reg("dir/in", b"in"),
                symlink("soft", "file"),
                hardlink("hard", "file"),
            ]
        ),
        top,
    )
    assert (top / "file").read_bytes() == b"new"
    assert (top / "other").read_bytes() == b"old"  # it was another name of the old file
    assert not (top / "link").is_symlink()
    assert (top / "link").read_bytes() == b"was a link"
    assert (top / "empty-dir").read_bytes() == b"was a directory"
    assert (top / "dir/in").read_bytes() == b"in"
    assert (top / "soft").readlink() == Path("file")
    assert (top / "hard").samefile(top / "file")
    assert not leftovers(top)


@pytest.mark.parametrize(
    "entry", [reg("dir", b"file"), symlink("dir", "x"), hardlink("dir", "a"), reg("dir", b"")]
)
def test_a_directory_with_files_in_it_is_not_replaced(
    entry: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/precious").write_bytes(b"precious")
    with pytest.raises(FileExistsError) as caught:
        run(handmade.blob([reg("a", b"a"), entry]), tmp_path)
    assert caught.value.filename == str(tmp_path / "dir")
    assert (tmp_path / "dir/precious").read_bytes() == b"precious"
    assert not leftovers(tmp_path)


def test_a_directory_that_exists_keeps_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir(0o700)
    (tmp_path / "dir/mine").write_bytes(b"mine")
    run(handmade.blob([directory("dir", mode=0o750), reg("dir/new", b"new")]), tmp_path)
    assert {p.name for p in (tmp_path / "dir").iterdir()} == {"mine", "new"}
    assert stat.S_IMODE((tmp_path / "dir").stat().st_mode) == 0o750


# Extracts the layer on stdin twice: what the second needs was imported by the first, as root.
AS_ANOTHER = """
import os, sys, stargz
blob = sys.stdin.buffer.read()
first, second, umask, user = sys.argv[1], sys.argv[2], int(sys.argv[3], 8), int(sys.argv[4])
for path, who in ((first, 0), (second, user)):
    if who:
        os.setgroups([]), os.setgid(who), os.setuid(who)
    os.umask(umask)
    with stargz.open(blob) as layer:
        layer.extractall(path)
"""


@pytest.mark.parametrize("user", [0, 65534])
@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_modes_are_the_archives_whatever_the_umask(umask: int, user: int) -> None:
    if user and os.getuid():
        pytest.skip("only root can become another user")
    modes = {"d": 0o777, "d/f": 0o666, "d/e": 0o700, "r": 0o500, "r/f": 0o400, "i/j/f": 0o755}
    blob = handmade.blob(
        [
            directory(name, mode=mode) if name in ("d", "d/e", "r") else reg(name, b"", mode=mode)
            for name, mode in modes.items()
        ]
    )
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is root's alone
        Path(folder).chmod(0o755)
        targets = [Path(folder) / name for name in ("first", "second")]
        for target in targets:
            target.mkdir()
            target.chmod(0o777)
        command = [sys.executable, "-c", AS_ANOTHER, *targets, f"{umask:o}", str(user)]
        subprocess.run(command, input=blob, check=True)
        for target in targets:
            names = [*modes, "i", "i/j"]
            found = {name: stat.S_IMODE((target / name).stat().st_mode) for name in names}
            assert found == modes | {"i": 0o755, "i/j": 0o755}  # as they are listed


def test_the_target_is_made(tmp_path: Path) -> None:
    run(handmade.blob([reg("f", b"f")]), tmp_path / "not/yet/there")
    assert (tmp_path / "not/yet/there/f").read_bytes() == b"f"


def test_long_runs_of_zeros_are_holes(tmp_path: Path) -> None:
    content = bytes(64 << 20) + b"end"
    run(handmade.blob([reg("zeros", content)]), tmp_path)
    info = (tmp_path / "zeros").stat()
    assert info.st_size == len(content)
    assert info.st_blocks * 512 < 1 << 20
    assert (tmp_path / "zeros").read_bytes() == content


# --- selection -----------------------------------------------------------------------------------

CHOICE = [
    directory("etc", mode=0o711),
    reg("etc/conf", b"conf"),
    reg("etc/sub/deep", b"deep"),
    reg("etc-not", b"a prefix is not a parent"),
    reg("usr/a", b"data of a"),
    hardlink("usr/b", "usr/a"),
    hardlink("usr/c", "usr/a"),
    reg(".no.prefetch.landmark", b"\x0f"),
]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (None, {"etc/conf", "etc/sub/deep", "etc-not", "usr/a", "usr/b", "usr/c"}),
        (["etc"], {"etc/conf", "etc/sub/deep"}),
        (["./etc/", "/usr/a"], {"etc/conf", "etc/sub/deep", "usr/a"}),
        (["etc/sub"], {"etc/sub/deep"}),
        (["etc", "etc/sub", "etc/conf"], {"etc/conf", "etc/sub/deep"}),
        ([b"usr/b", "usr/c"], {"usr/b", "usr/c"}),
        ([".no.prefetch.landmark"], {".no.prefetch.landmark"}),
        (["."], {"etc/conf", "etc/sub/deep", "etc-not", "usr/a", "usr/b", "usr/c"}),
        ([], set()),
    ],
)
def test_members(members: list[str] | None, expected: set[str], tmp_path: Path) -> None:
    run(handmade.blob(CHOICE, chunk_size=3), tmp_path, members)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == expected


def test_a_hard_link_to_what_is_not_selected_gets_the_data(tmp_path: Path) -> None:
    result = run(handmade.blob(CHOICE, chunk_size=3), tmp_path, ["usr/b", "usr/c"])
    assert (tmp_path / "usr/b").read_bytes() == b"data of a"
    assert (tmp_path / "usr/b").samefile(tmp_path / "usr/c")
    assert result == ExtractResult(files=1, bytes=9, others={"hard links": 1})


def test_the_parents_of_a_member_get_no_metadata(tmp_path: Path) -> None:
    run(handmade.blob(CHOICE), tmp_path, ["etc/conf"])
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o755


@pytest.mark.parametrize("missing", ["nope", "etc/conf/x", "et", "usr/a/"[:-1] + "a"])
def test_a_member_that_is_not_there_is_an_error_before_anything(
    missing: str, tmp_path: Path
) -> None:
    with pytest.raises(errors.EntryNotFoundError, match=missing):
        run(handmade.blob(CHOICE), tmp_path, ["etc", missing])
    assert not list(tmp_path.iterdir())


def test_one_name_is_not_a_list(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="list"):
        run(handmade.blob(CHOICE), tmp_path, "etc")


# --- what is left out ----------------------------------------------------------------------------


def b64(value: bytes) -> str:
    import base64

    return base64.b64encode(value).decode()


SPECIAL = [
    {"name": "null", "type": "char", "mode": 0o666, "devMajor": 1, "devMinor": 3},
    hardlink("null2", "null"),
    {"name": "disk", "type": "block", "mode": 0o660, "devMajor": 8},
    reg("su", b"su", mode=0o6755),
    directory("shared", mode=0o2775),
    reg(
        "attrs",
        b"attrs",
        xattrs={
            "user.ok": b64(b"ok"),
            "user.overlay.opaque": b64(b"y"),
            "trusted.overlay.opaque": b64(b"y"),
            "trusted.other": b64(b"t"),
        },
    ),
    {"name": "fifo", "type": "fifo", "mode": 0o640},
]


def test_what_is_dangerous_is_left_out_and_counted(tmp_path: Path) -> None:
    result = run(handmade.blob(SPECIAL), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"su", "shared", "attrs", "fifo"}
    assert stat.S_IMODE((tmp_path / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o775
    assert os.listxattr(tmp_path / "attrs") == ["user.ok"]
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "fifo").stat().st_mode) == 0o640
    assert result.skipped == {
        "device nodes": 3,  # null2 is another name of one
        "set-uid and set-gid bits": 2,
        "xattrs outside of user.*": 3,
    }


@pytest.mark.skipif(not ROOT, reason="device nodes are made by root only")
def test_what_is_asked_for_is_made(tmp_path: Path) -> None:
    result = run(handmade.blob(SPECIAL), tmp_path, devices=True, setid=True, xattrs="all")
    info = (tmp_path / "null").stat()
    assert stat.S_ISCHR(info.st_mode)
    assert (os.major(info.st_rdev), os.minor(info.st_rdev)) == (1, 3)
    assert stat.S_IMODE(info.st_mode) == 0o666
    assert (tmp_path / "null2").samefile(tmp_path / "null")
    assert stat.S_IMODE((tmp_path / "su").stat().st_mode) == 0o6755
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o2775
    assert "trusted.overlay.opaque" in os.listxattr(tmp_path / "attrs")
    assert result.skipped == {}


@pytest.mark.skipif(not ROOT, reason="xattrs of symlinks and devices are for root only")
def test_xattrs_of_what_cannot_be_opened(tmp_path: Path) -> None:
    """They are set on what was made, not on what a symlink leads to."""
    xattrs = {"trusted.mine": b64(b"x")}
    blob = handmade.blob([
        reg("target", b"t"),
        {"name": "link", "type": "symlink", "linkName": "target", "xattrs": xattrs},
        {"name": "fifo", "type": "fifo", "mode": 0o640, "xattrs": xattrs},
        {"name": "null", "type": "char", "devMajor": 1, "devMinor": 3, "xattrs": xattrs},
    ])  # fmt: skip
    result = run(blob, tmp_path, devices=True, xattrs="all")
    for name in ("link", "fifo", "null"):
        path = tmp_path / name
        assert os.getxattr(path, "trusted.mine", follow_symlinks=False) == b"x"
        assert path.lstat().st_mtime == 0
    assert os.listxattr(tmp_path / "target") == []
    assert result.skipped == {}


def test_no_xattrs(tmp_path: Path) -> None:
    result = run(handmade.blob(SPECIAL), tmp_path, xattrs="none")
    assert os.listxattr(tmp_path / "attrs") == []
    assert "xattrs outside of user.*" not in result.skipped


def test_xattrs_that_the_kernel_refuses_are_counted(tmp_path: Path) -> None:
    entry = reg("f", b"f", xattrs={"nonsense": b64(b"x"), "no.such.name.space": b64(b"y")})
    result = run(handmade.blob([entry]), tmp_path, xattrs="all")
    assert (tmp_path / "f").read_bytes() == b"f"
    assert result.skipped == {"xattrs refused by the file system": 2}


# --- contents that are wrong ---------------------------------------------------------------------

WRONG = {"chunkDigest": handmade.digest(b"other"), "digest": handmade.digest(b"other")}
LARGE = random.Random(3).randbytes(700_000)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("entry", "layout"),
    [
        (reg("bad", b"content", override=WRONG), {}),
        (reg("bad", b"content", override={"digest": WRONG["digest"]}), {}),
        (reg("bad", LARGE, override=WRONG), {}),
        (reg("bad", LARGE, override=WRONG), {"chunk_size": 50_000}),
        (reg("bad", b"content", override={"digest": WRONG["digest"]}), {"legacy": True}),
        (
            reg("bad", LARGE, override={"digest": WRONG["digest"]}),
            {"legacy": True, "chunk_size": 50_000},
        ),
    ],
)
def test_contents_that_do_not_match_never_get_the_name(
    entry: dict[str, Any], layout: dict[str, Any], threads: int, tmp_path: Path
) -> None:
    blob = handmade.blob([reg("good", b"good"), entry], **layout)
    with pytest.raises(errors.DigestError) as caught:
        run(blob, tmp_path, threads=threads)
    assert caught.value.name == "bad"
    assert {p.name for p in tmp_path.iterdir()} <= {"good"}
    # ... unless nobody looks.
    run(blob, tmp_path, threads=threads, verify=False)
    assert (tmp_path / "bad").read_bytes() == entry["content"]


@pytest.mark.parametrize("size", [10, 700_000])
def test_without_digests_the_crc_decides(size: int, tmp_path: Path) -> None:
    content = random.Random(size).randbytes(size)
    entries = [reg("f", content), reg("g", b"g")]
    blob = handmade.blob(entries, digests=False, chunk_size=300_000, level=0)
    result = run(blob, tmp_path / "a")
    assert (result.files, result.unverified) == (2, 2)
    assert (tmp_path / "a/f").read_bytes() == content
    at = blob.index(content[5:10])
    broken = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
    with pytest.raises(errors.GzipError, match=r"f.*CRC"):
        run(broken, tmp_path / "b")
    assert not (tmp_path / "b/f").exists()
    assert not leftovers(tmp_path / "b")


@pytest.mark.parametrize("inner", [0, 1 << 50])
def test_a_member_that_ends_too_early(inner: int, tmp_path: Path) -> None:
    lies = {"size": 10_000, **({"innerOffset": inner} if inner else {})}
    with pytest.raises(errors.FormatError, match="f"):
        run(handmade.blob([reg("f", b"short", override=lies)]), tmp_path)
    assert not list(tmp_path.iterdir())


# --- errors, progress and interruption -----------------------------------------------------------


@pytest.fixture
def small_disk(tool: Callable[[str], str]) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if not ROOT:
        pytest.skip("only root can mount a tmpfs")
    with tempfile.TemporaryDirectory() as place:
        mount = [tool("mount"), "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mount is not allowed here")
        try:
            yield Path(place)
        finally:
            subprocess.run([tool("umount"), place], check=True)


@pytest.mark.parametrize("chunk_size", [100_000, 4 << 20])
def test_a_full_disk_names_the_file_and_leaves_nothing_partial(
    chunk_size: int, small_disk: Path
) -> None:
    content = random.Random(5).randbytes(2 << 20)
    blob = handmade.blob([reg("fits", b"fits"), reg("too/large", content)], chunk_size=chunk_size)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run(blob, small_disk)
    assert caught.value.filename == str(small_disk / "too/large")
    files = {str(p.relative_to(small_disk)) for p in small_disk.rglob("*") if p.is_file()}
    assert files <= {"fits"}


def test_progress_counts_bytes_in_the_calling_thread(tmp_path: Path) -> None:
    import threading

    seen: list[tuple[int, int]] = []
    threads = set()

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        threads.add(threading.get_ident())

    run(handmade.blob([reg("f", LARGE), reg("g", b"g")]), tmp_path, progress=progress)
    assert seen[-1] == (len(LARGE) + 1, len(LARGE) + 1)
    assert seen == sorted(seen)
    assert threads == {threading.get_ident()}


class Slow(io.BytesIO):
    """A source that never comes to an end by itself."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.slow = False

    def read(self, size: int | None = -1) -> bytes:
        if self.slow:
            import time

            time.sleep(0.01)
        return super().read(size)


def test_an_exception_from_progress_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    source = Slow(handmade.blob([reg("f", random.Random(9).randbytes(30 << 20))]))

    def progress(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with stargz.open(source) as layer:
        source.slow = True
        with pytest.raises(RuntimeError, match="enough"):
            layer.extractall(tmp_path, progress=progress)
    assert not list(tmp_path.iterdir())


def test_a_source_that_fails_is_the_error(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        broken = False

        def read(self, size: int | None = -1) -> bytes:
            if self.broken:
                raise ConnectionError("the line is dead")
            return super().read(size)

    source = Failing(handmade.blob([reg("f", random.Random(9).randbytes(3 << 20))]))
    with stargz.open(source) as layer:
        source.broken = True
        with pytest.raises(ConnectionError, match="the line is dead"):
            layer.extractall(tmp_path)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(
        handmade.blob([reg("f", random.Random(9).randbytes(30 << 20)), reg("g", b"g")])
    )
    code = f"""
        import io, time, stargz

        class Slow(io.BytesIO):
            slow = False
            def read(self, size=-1):
                if self.slow:
                    print("reading", flush=True)
                    time.sleep(0.05)
                return super().read(size)

        source = Slow(open({str(tmp_path / "blob")!r}, "rb").read())
        layer = stargz.open(source)
        source.slow = True
        try:
            layer.extractall({str(tmp_path / "x")!r})
        except KeyboardInterrupt:
            print("interrupted")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert "interrupted" in rest  # reads that are under way are not waited for
    assert process.returncode == 0
    assert not list((tmp_path / "x").iterdir())


def test_closing_the_layer_meanwhile(tmp_path: Path) -> None:
    """A local file is read to the end; the descriptor is the extraction's own."""
    (tmp_path / "blob").write_bytes(handmade.blob([reg("f", LARGE)]))
    layer = stargz.open(tmp_path / "blob")
    layer.extractall(tmp_path / "x", progress=lambda done, total: layer.close())
    assert (tmp_path / "x/f").read_bytes() == LARGE
    with pytest.raises(ValueError, match="closed"):
        layer.extractall(tmp_path / "x")


# --- without privileges --------------------------------------------------------------------------


@pytest.fixture
def as_nobody() -> Iterator[Callable[[Callable[[Path], None]], None]]:
    """as_nobody(action): run action(directory) as a user without privileges."""
    with tempfile.TemporaryDirectory() as top:
        place = Path(top, "x")
        place.mkdir()
        if not ROOT:
            yield lambda action: action(place)
            return
        Path(top).chmod(0o755)
        os.chown(place, 65534, 65534)

        def run_it(action: Callable[[Path], None]) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if not child:
                try:
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                    action(place)
                    os._exit(0)
                except BaseException:
                    import traceback

                    traceback.print_exc()
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0

        yield run_it


def test_read_only_directories_are_filled_without_privileges(
    as_nobody: Callable[[Callable[[Path], None]], None],
) -> None:
    blob = handmade.blob(
        [
            directory("ro", mode=0o555, uid=7, gid=7),
            directory("ro/deeper", mode=0o500),
            reg("ro/deeper/f", b"f", mode=0o400, uid=7, gid=7),
            directory("none", mode=0),
            reg("none/f", b"f", mode=0),
            reg("none/setid", b"", mode=0o4755),
        ]
    )

    def action(top: Path) -> None:
        run(blob, top)
        assert stat.S_IMODE((top / "ro").stat().st_mode) == 0o555
        assert stat.S_IMODE((top / "ro/deeper").stat().st_mode) == 0o500
        assert (top / "ro/deeper/f").read_bytes() == b"f"
        assert (top / "ro/deeper/f").stat().st_uid == os.geteuid()
        assert stat.S_IMODE((top / "none").stat().st_mode) == 0
        (top / "none").chmod(0o700)
        # Once more, over directories that are read-only now.
        run(blob, top)
        assert stat.S_IMODE((top / "ro").stat().st_mode) == 0o555
        (top / "none").chmod(0o700)
        assert (top / "none/f").stat().st_size == 1
        assert not leftovers(top)

    as_nobody(action)


def test_owners_are_refused_without_privileges_only_when_asked_for(
    as_nobody: Callable[[Callable[[Path], None]], None],
) -> None:
    def action(top: Path) -> None:
        blob = handmade.blob([reg("f", b"f", uid=12, gid=12)])
        run(blob, top)
        with pytest.raises(PermissionError, match="owner") as caught:
            run(blob, top, same_owner=True)
        assert caught.value.filename == str(top / "f")

    as_nobody(action)


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_owners(tmp_path: Path) -> None:
    entries = [
        reg("f", b"f", uid=12, gid=34),
        directory("d", uid=56, gid=78),
        symlink("s", "f", uid=90, gid=12),
    ]
    run(handmade.blob(entries), tmp_path / "a")
    owners = {p.name: (p.lstat().st_uid, p.lstat().st_gid) for p in (tmp_path / "a").iterdir()}
    assert owners == {"f": (12, 34), "d": (56, 78), "s": (90, 12)}
    run(handmade.blob(entries), tmp_path / "b", same_owner=False)
    assert {p.lstat().st_uid for p in (tmp_path / "b").iterdir()} == {0}
