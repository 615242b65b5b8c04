"""Packing with a base: the bytes are those of a pack without, whatever changed, whatever is
damaged; and what did not change is copied."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import command
import oracle
import pytest
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stargz

CHUNK = 1024
TICK = 0.03  # seconds: more than the granularity of a file system's timestamps


def settle() -> None:
    """Let time pass, so that what was written is not too young to be trusted."""
    time.sleep(TICK)


def populate(root: Path) -> None:
    (root / "src" / "deep").mkdir(parents=True)
    for i in range(40):
        (root / "src" / f"file{i:02}").write_bytes(synthetic.text(f"{i}", 200 + 97 * i))
        (root / "src" / "deep" / f"noise{i:02}").write_bytes(synthetic.noise(f"n{i}", 50 + 331 * i))
    (root / "src" / "empty").touch()
    os.link(root / "src" / "file03", root / "src" / "hard")
    (root / "link").symlink_to("src/file01")
    with suppress(OSError):
        os.setxattr(root / "src" / "file05", "user.x", b"value")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    populate(root)
    settle()
    return root


def same_as_without(tree: Path, base: Path, **options: Any) -> stargz.PackResult:
    """Pack with the base, in every way; each gives the bytes of a pack without."""
    options = {"chunk_size": CHUNK, **options}
    with tempfile.TemporaryDirectory() as folder:
        plain, out = Path(folder, "plain"), Path(folder, "out")
        expected = stargz.pack(tree, plain, **options)
        wanted = plain.read_bytes()
        results = []
        for more in ({}, {"diff_id": False}, {"checksum": True}, {"threads": 1}):
            result = stargz.pack(tree, out, base=base, **options, **more)
            assert out.read_bytes() == wanted, more
            if result.diff_id:
                assert result.diff_id == expected.diff_id
            assert result.uncompressed_size == expected.uncompressed_size
            assert (result.toc_digest, result.chunks) == (expected.toc_digest, expected.chunks)
            results.append(result)
            # The manifest that it wrote serves as well.
            second = Path(folder, "second")
            stargz.pack(tree, second, base=out, **options)
            assert second.read_bytes() == wanted
        return results[0]


# --- what is copied ------------------------------------------------------------------------


def test_nothing_changed(tree: Path, tmp_path: Path) -> None:
    first = stargz.pack(tree, tmp_path / "base", chunk_size=CHUNK)
    result = same_as_without(tree, tmp_path / "base")
    assert result.read_files == 0
    assert result.reused_files == first.read_files == 80
    # All but the first unit's headers, with the landmark before them.
    toc_offset = oracle.toc_offset((tmp_path / "base").read_bytes())
    assert 0 < toc_offset - result.reused_bytes < 1000
    assert result.warnings == ()


def test_a_tree_that_is_not_in_memory(tree: Path, tmp_path: Path) -> None:
    """The tar's bytes for the DiffID come out of the base, then."""
    stargz.pack(tree, tmp_path / "base", chunk_size=CHUNK)
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    out = tmp_path / "out"
    result = stargz.pack(tree, out, base=tmp_path / "base", chunk_size=CHUNK)
    assert result.read_files == 0
    assert result.diff_id == oracle.diff_id(out)
    assert out.read_bytes() == (tmp_path / "base").read_bytes()


def test_one_file_changed(tree: Path, tmp_path: Path) -> None:
    stargz.pack(tree, tmp_path / "base", chunk_size=CHUNK)
    (tree / "src" / "file20").write_bytes(b"new")
    result = same_as_without(tree, tmp_path / "base")
    assert (result.read_files, result.reused_files) == (1, 79)


def test_base_and_destination_may_be_one_file(tree: Path, tmp_path: Path) -> None:
    stargz.pack(tree, tmp_path / "layer", chunk_size=CHUNK)
    for i in range(3):
        (tree / "src" / "file20").write_bytes(b"%d" % i)
        settle()
        result = stargz.pack(tree, tmp_path / "layer", base=tmp_path / "layer", chunk_size=CHUNK)
        assert (result.read_files, result.reused_files) == (1, 79)
    expected = stargz.pack(tree, tmp_path / "plain", chunk_size=CHUNK)
    assert result.digest == expected.digest


def test_checksum_finds_contents_under_other_names(tree: Path, tmp_path: Path) -> None:
    stargz.pack(tree, tmp_path / "base", chunk_size=CHUNK)
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)  # new inodes and times
    (copy / "src").rename(copy / "moved")
    settle()
    result = stargz.pack(copy, tmp_path / "out", base=tmp_path / "base", chunk_size=CHUNK)
    assert result.read_files >= 80
    assert result.reused_files >= 80
    assert result.digest == stargz.pack(copy, tmp_path / "plain", chunk_size=CHUNK).digest
    same_as_without(copy, tmp_path / "base")


def test_a_chunk_that_ends_files_of_other_lengths(tmp_path: Path) -> None:
    """Its padding depends on the length of the file where chunks are no whole blocks."""
    root = tmp_path / "tree"
    root.mkdir()
    tail = synthetic.noise("tail", 300)
    (root / "a").write_bytes(synthetic.noise("a", 1100) + tail)
    settle()
    stargz.pack(root, tmp_path / "base", chunk_size=1100)
    (root / "b").write_bytes(synthetic.noise("b", 2200) + tail)
    (root / "c").write_bytes(synthetic.noise("a", 1100) + b"another")
    same_as_without(root, tmp_path / "base", chunk_size=1100)


def test_large_files_and_many_slabs(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for i in range(5):
        (root / f"{i}").write_bytes(synthetic.text(f"{i}", 3_700_000 + i))
        (root / f"{i}.small").write_bytes(b"%d" % i)
    settle()
    for chunk in (300_001, 1 << 20, 4 << 20):
        stargz.pack(root, tmp_path / "base", chunk_size=chunk)
        (root / "2.small").write_bytes(b"%d" % chunk)
        result = same_as_without(root, tmp_path / "base", chunk_size=chunk)
        assert result.read_files == 1


def test_units_without_contents(tmp_path: Path) -> None:
    """More headers than fit in one run, and of these some change."""
    root = tmp_path / "tree"
    root.mkdir()
    for i in range(4500):
        (root / f"{i:05}").touch()
    settle()
    stargz.pack(root, tmp_path / "base")
    os.utime(root / "03000", (1, 1))
    out, plain = tmp_path / "out", tmp_path / "plain"
    result = stargz.pack(root, out, base=tmp_path / "base")
    stargz.pack(root, plain)
    assert out.read_bytes() == plain.read_bytes()
    assert result.reused_bytes > 1000


# --- any change -----------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d/a", "d/b", "d/e/a", "z"]
name = st.sampled_from(NAMES)
size = st.sampled_from([0, 1, 511, 512, 513, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 4000])
edit = st.one_of(
    st.tuples(st.just("write"), name, size, st.integers(0, 2)),
    st.tuples(st.just("same size"), name),
    st.tuples(st.just("touch"), name, st.integers(0, 3)),
    st.tuples(st.just("remove"), name),
    st.tuples(st.just("rename"), name, name),
    st.tuples(st.just("chmod"), name, st.sampled_from([0o600, 0o644, 0o755])),
    st.tuples(st.just("link"), name, name),
    st.tuples(st.just("symlink"), name, st.sampled_from(["x", "y"])),
    st.tuples(st.just("xattr"), name, st.binary(max_size=3)),
    st.tuples(st.just("directory"), name),
    st.tuples(st.just("copy"), name, name),
)


def apply(root: Path, change: tuple[Any, ...]) -> None:
    """One edit, where it can be made."""
    what, path, *more = change[0], root / change[1], *change[2:]
    with suppress(OSError, shutil.Error):
        path.parent.mkdir(parents=True, exist_ok=True)
        if what == "write":
            path.write_bytes(synthetic.text(f"{more[1]}", more[0]))
        elif what == "same size":
            path.write_bytes(bytes(b ^ 1 for b in path.read_bytes()))
        elif what == "touch":
            os.utime(path, (more[0], more[0]), follow_symlinks=False)
        elif what == "remove":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif what == "rename":
            path.rename(root / more[0])
        elif what == "chmod":
            path.chmod(more[0])
        elif what == "link":
            os.link(path, root / more[0], follow_symlinks=False)
        elif what == "symlink":
            path.symlink_to(more[0])
        elif what == "xattr":
            os.setxattr(path, "user.x", more[0], follow_symlinks=False)
        elif what == "directory":
            path.mkdir()
        elif what == "copy":
            shutil.copyfile(path, root / more[0], follow_symlinks=False)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(edit, max_size=12),
    st.lists(edit, max_size=6),
    st.booleans(),
    st.sampled_from([CHUNK, 1500, 4 << 20]),
)
def test_random_edits(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], calm: bool, chunk: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "tree")
        root.mkdir()
        for i, path in enumerate(("a", "d/a", "d/e/a", "z")):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(synthetic.text(f"{i % 3}", 700 * i + 5))
        for change in before:
            apply(root, change)
        if calm:
            settle()
        stargz.pack(root, Path(folder, "base"), chunk_size=chunk)
        for change in after:
            apply(root, change)
        same_as_without(root, Path(folder, "base"), chunk_size=chunk)


class Without:
    """An ignore file that leaves out these names."""

    def __init__(self, *names: str) -> None:
        self.names = {os.fsencode(n) for n in names}

    def decide(self, name: bytes, is_dir: bool) -> int:
        return 2 if name in self.names else 0


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(name, name), min_size=1, max_size=6), st.sets(name), st.sets(name))
def test_what_is_left_out_changes_which_name_is_the_first(
    links: list[tuple[str, str]], first: set[str], second: set[str]
) -> None:
    """Nothing about the files themselves changes then, but hard links become files."""

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "tree")
        (root / "d" / "e").mkdir(parents=True)
        for i, path in enumerate(("a", "d/a")):
            (root / path).write_bytes(synthetic.text(f"{i}", 1500 + i))
            with suppress(OSError):
                os.setxattr(root / path, "user.x", b"value")
        for old, new in links:
            with suppress(OSError):
                os.link(root / old, root / new)
        settle()
        base = Path(folder, "base")
        stargz.pack(root, base, chunk_size=CHUNK, ignore=Without(*first))  # type: ignore[arg-type]
        same_as_without(root, base, ignore=Without(*second))


def test_a_second_name_that_becomes_the_first_has_its_own_header(tmp_path: Path) -> None:
    """Also when it is as long as the name that is gone, and its unit as it was otherwise."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "0").write_bytes(b"000\n")
    (root / "a").write_bytes(b"hello\n")
    os.link(root / "a", root / "b")
    settle()
    stargz.pack(root, tmp_path / "base", chunk_size=CHUNK)
    result = same_as_without(root, tmp_path / "base", ignore=Without("a"))
    assert result.read_files == 0
    stargz.pack(root, tmp_path / "out", base=tmp_path / "base", chunk_size=CHUNK,
                ignore=Without("a"))  # type: ignore[arg-type]  # fmt: skip
    with stargz.open(tmp_path / "out") as layer:
        assert layer.verify().files
        assert layer.read("b") == b"hello\n"
    assert "ok" in command.ok("verify", tmp_path / "out")


def test_a_renamed_directory_with_the_first_name(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for folder in ("d1", "d2"):
        (root / folder).mkdir(parents=True)
        (root / folder / "0").write_bytes(folder.encode())
    (root / "d1" / "a").write_bytes(b"hello\n")
    os.link(root / "d1" / "a", root / "d2" / "a")
    settle()
    stargz.pack(root, tmp_path / "base", chunk_size=CHUNK)
    (root / "d1").rename(root / "d3")
    same_as_without(root, tmp_path / "base")
    stargz.pack(root, tmp_path / "out", base=tmp_path / "base", chunk_size=CHUNK)
    assert "ok" in command.ok("verify", tmp_path / "out")
    with stargz.open(tmp_path / "out") as layer:
        assert layer.read("d2/a") == b"hello\n"


def test_a_link_that_is_to_another_name_now(tmp_path: Path) -> None:
    """In a unit that is as it was but for the target."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a").write_bytes(b"hello\n")
    for name in ("0", "bm", "cn"):
        (root / name).write_bytes(name.encode())
    for name in ("b", "c"):
        os.link(root / "a", root / name)
    settle()
    stargz.pack(root, tmp_path / "base", chunk_size=CHUNK)
    result = same_as_without(root, tmp_path / "base", ignore=Without("a"))
    assert result.read_files == 0


class During:
    """An ignore file that leaves out some names, and calls a function at the walk's last one."""

    def __init__(self, call: Callable[[], object], *names: str) -> None:
        self.call = call
        self.names = {os.fsencode(n) for n in names}

    def decide(self, name: bytes, is_dir: bool) -> int:
        if name == b"zz/last":
            self.call()
        return 2 if name in self.names else 0


def test_what_is_in_memory_must_be_what_the_base_has(tmp_path: Path) -> None:
    """A file that changes once the walk took it for unchanged: what is copied is the base's, and
    so is what the DiffID is of."""
    root = tmp_path / "tree"
    (root / "zz").mkdir(parents=True)
    (root / "zz" / "last").touch()
    (root / "a").write_bytes(b"then" * 500)
    settle()
    first = stargz.pack(root, tmp_path / "base")
    during = During(lambda: (root / "a").write_bytes(b"now " * 500))
    result = stargz.pack(root, tmp_path / "out", base=tmp_path / "base", threads=1,
                         ignore=during)  # type: ignore[arg-type]  # fmt: skip
    assert result.read_files == 0
    assert result.diff_id == first.diff_id == oracle.diff_id(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "base").read_bytes()


def test_a_file_that_is_seen_twice_and_changes_in_between(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "zz").mkdir(parents=True)
    (root / "zz" / "last").touch()
    (root / "a").write_bytes(b"then" * 500)
    os.link(root / "a", root / "zz" / "link")
    settle()
    during = During(lambda: (root / "a").write_bytes(b"now " * 500))
    stargz.pack(root, tmp_path / "base", chunk_size=CHUNK, threads=1,
                ignore=during)  # type: ignore[arg-type]  # fmt: skip
    settle()
    same_as_without(root, tmp_path / "base", ignore=Without("a"))
    same_as_without(root, tmp_path / "base")


def test_a_change_within_one_tick_is_seen(tmp_path: Path) -> None:
    """Of the same size, with its time set back: the change time tells, or the file is too young
    to be trusted."""
    root = tmp_path / "tree"
    root.mkdir()
    for i in range(30):
        (root / "file").write_bytes(b"%03d" % i)
        (root / "other").write_bytes(b"%04d" % i)
        info = (root / "file").stat()
        stargz.pack(root, tmp_path / "base")
        (root / "file").write_bytes(b"%03d" % (i + 500))
        os.utime(root / "file", ns=(info.st_atime_ns, info.st_mtime_ns))
        out = stargz.pack(root, tmp_path / "out", base=tmp_path / "base")
        assert out.digest == stargz.pack(root, tmp_path / "plain").digest


# --- bases of no use ---------------------------------------------------------------------------


def useless(tree: Path, base: Path, tmp_path: Path, reason: str, **options: Any) -> None:
    result = stargz.pack(tree, tmp_path / "out", base=base, **options)
    assert len(result.warnings) == 1
    assert reason in result.warnings[0]
    assert result.warnings[0].endswith("everything is compressed")
    assert (result.reused_files, result.reused_bytes) == (0, 0)
    plain = {k: v for k, v in options.items() if k != "base_manifest"}
    assert result.digest == stargz.pack(tree, tmp_path / "plain", **plain).digest


@pytest.mark.parametrize(
    "options",
    [
        {"level": 2},
        {"chunk_size": 2048},
    ],
    ids=str,
)
def test_other_options(tree: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    stargz.pack(tree, tmp_path / "base")
    useless(tree, tmp_path / "base", tmp_path, "the base was packed with", **options)


@pytest.mark.parametrize("then", [{}, {"owner": (3, 4), "mtime": 5, "source_date_epoch": 6}])
@pytest.mark.parametrize(
    "options",
    [{"owner": (1, 1)}, {"owner": (0, 0)}, {"mtime": 0}, {"source_date_epoch": 1}],
    ids=str,
)
@pytest.mark.parametrize("how", [{}, {"checksum": True}, {"diff_id": False}], ids=str)
def test_other_headers(
    tree: Path, tmp_path: Path, then: dict[str, Any], options: dict[str, Any], how: dict[str, Any]
) -> None:
    """Owners and times are in the headers only: contents are copied all the same."""
    stargz.pack(tree, tmp_path / "base", **then)
    result = stargz.pack(tree, tmp_path / "out", base=tmp_path / "base", **options, **how)
    plain = stargz.pack(tree, tmp_path / "plain", **options)
    assert result.digest == plain.digest
    assert result.warnings == ()
    assert result.reused_files == plain.read_files > 0


def test_no_manifest(tree: Path, tmp_path: Path) -> None:
    stargz.pack(tree, tmp_path / "base")
    (tmp_path / "base.manifest").unlink()
    useless(tree, tmp_path / "base", tmp_path, "No such file")
    with pytest.raises(FileNotFoundError):
        stargz.pack(tree, tmp_path / "out", base=tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_no_regular_files(tree: Path, tmp_path: Path, kind: str) -> None:
    stargz.pack(tree, tmp_path / "base")
    other = tmp_path / "other"
    os.mkfifo(other) if kind == "fifo" else other.mkdir()
    with pytest.raises(stargz.UsageError, match="other: is no regular file"):
        stargz.pack(tree, tmp_path / "out", base=other)
    assert not (tmp_path / "out").exists()
    useless(tree, tmp_path / "base", tmp_path, "is no regular file", base_manifest=other)


def test_a_manifest_kept_elsewhere(tree: Path, tmp_path: Path) -> None:
    stargz.pack(tree, tmp_path / "base", manifest=tmp_path / "kept")
    assert not (tmp_path / "base.manifest").exists()
    result = stargz.pack(
        tree, tmp_path / "out", base=tmp_path / "base", base_manifest=tmp_path / "kept"
    )
    assert result.read_files == 0


def test_a_manifest_of_another_layer(tree: Path, tmp_path: Path) -> None:
    stargz.pack(tree, tmp_path / "base")
    (tree / "src" / "file01").write_bytes(b"other")
    stargz.pack(tree, tmp_path / "other")
    options = {"base_manifest": tmp_path / "other.manifest"}
    useless(tree, tmp_path / "base", tmp_path, "is not the manifest of", **options)


def test_a_damaged_manifest(tree: Path, tmp_path: Path) -> None:
    stargz.pack(tree, tmp_path / "base")
    manifest = tmp_path / "base.manifest"
    data = manifest.read_bytes()
    for at in range(0, len(data), len(data) // 11):
        manifest.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        useless(tree, tmp_path / "base", tmp_path, "manifest")
    for end in (0, 10, len(data) - 1):
        manifest.write_bytes(data[:end])
        useless(tree, tmp_path / "base", tmp_path, "manifest")


@pytest.mark.parametrize("options", [{}, {"diff_id": False}, {"checksum": True}], ids=str)
def test_a_damaged_base(tree: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """One byte anywhere: it is found, and what it belongs to is made anew."""
    stargz.pack(tree, tmp_path / "base", chunk_size=CHUNK)
    blob = (tmp_path / "base").read_bytes()
    expected = hashlib.sha256(blob).hexdigest()
    noticed = 0
    for at in range(11, len(blob), len(blob) // 37):
        (tmp_path / "base").write_bytes(blob[:at] + bytes([blob[at] ^ 0x10]) + blob[at + 1 :])
        result = stargz.pack(
            tree, tmp_path / "out", base=tmp_path / "base", chunk_size=CHUNK, **options
        )
        assert result.digest == f"sha256:{expected}"
        assert (tmp_path / "out").read_bytes() == blob
        noticed += bool(result.warnings)
        assert all("damaged" in w or "is not the manifest" in w for w in result.warnings)
    assert noticed > 20


def test_a_damaged_base_and_a_lost_file(tree: Path, tmp_path: Path) -> None:
    """Copied bytes are right, or it is an error; never something else."""
    stargz.pack(tree, tmp_path / "base", chunk_size=CHUNK)
    blob = bytearray((tmp_path / "base").read_bytes())
    blob[len(blob) // 3 : len(blob) // 2] = bytes(len(blob) // 2 - len(blob) // 3)
    (tmp_path / "base").write_bytes(blob)
    result = same_as_without(tree, tmp_path / "base")
    assert any("damaged" in w for w in result.warnings)


def test_a_manifest_that_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    result = stargz.pack(tree, tmp_path / "out", manifest=tmp_path / "none" / "x")
    assert "manifest was not written" in result.warnings[0]
    assert (tmp_path / "out").stat().st_size == result.size


def test_command(tree: Path, tmp_path: Path, reference: Callable[..., Any]) -> None:
    command.ok("pack", tree, tmp_path / "base", "-q")
    said = command.ok("pack", tree, tmp_path / "next", "--base", tmp_path / "base")
    assert "80 files" in said
    assert (tmp_path / "base").read_bytes() == (tmp_path / "next").read_bytes()
    assert reference("verify", tmp_path / "next")
