"""Packing a directory: what comes out is the tree, the same bytes for the same tree, and a layer
to everybody else."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command
import oracle
import pytest
import synthetic
import trees

import stargz
from stargz.errors import TarError

Tool = Callable[[str], str]
CHUNK = 4096
OURS = (".no.prefetch.landmark", "stargz.index.json")


def fill(root: Path) -> None:
    """Of everything that a layer can hold, something; only root can make some of it."""
    (root / "empty dir").mkdir()
    (root / "a" / "b").mkdir(parents=True)
    for name, size in {"empty": 0, "one": 1, "block": 512, "more": 513, "chunk": CHUNK,
                       "chunks": 2 * CHUNK, "large": 5 * CHUNK + 77}.items():  # fmt: skip
        (root / "a" / name).write_bytes(synthetic.noise(name, size))
    (root / "a" / "script").write_bytes(synthetic.text("script", 9000))
    (root / "a" / "script").chmod(0o4755)
    (root / "a.txt").write_bytes(b"sorts before the names in a/")
    os.link(root / "a" / "script", root / "a" / "b" / "second name")
    os.link(root / "a" / "script", root / "0 third name")
    (root / "link").symlink_to("a/b")
    (root / "dangling").symlink_to("../" * 40 + "x" * 150)
    long = root / ("d" * 120) / ("e" * 200)
    long.mkdir(parents=True)
    (long / ("f" * 200)).write_bytes(b"long")
    (root / os.fsdecode(b"not \xff utf-8")).write_bytes(b"bytes")
    (root / "na\u00efve \u2028 \\ \" %").write_bytes(b"escapes")  # fmt: skip
    with (root / "sparse").open("wb") as file:
        file.seek(3 * CHUNK + 5)
        file.write(b"data in the middle")
        file.truncate(200 * CHUNK)
    os.mkfifo(root / "fifo", 0o640)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    os.setxattr(root / "a" / "more", "user.one", b"\0binary\n=\xff")
    os.setxattr(root / "a" / "more", "user.two", b"")
    os.setxattr(root / "empty dir", "user.dir", b"x" * 300)
    if os.geteuid() == 0:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 300))
        os.chown(root / "a" / "one", 3_000_000, 70_000)
    os.utime(root / "a" / "one", ns=(0, 1_700_000_000_500_000_000))
    os.utime(root / "a" / "block", (0, -7))
    os.utime(root / "a" / "more", (0, 1 << 33))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pack") / "tree"
    root.mkdir()
    fill(root)
    return root


@pytest.fixture(scope="module")
def layer(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "tree.stargz"
    result = stargz.pack(tree, path, chunk_size=CHUNK)
    assert result.warnings == (
        "1 name is not UTF-8: in the TOC each bad byte is U+FFFD, as JSON cannot hold it "
        "(the first: 'not \ufffd utf-8')",
    )
    return path


def members(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return [m for m in tar.getmembers() if m.name not in OURS]


def first_member(data: bytes) -> tuple[bytes, bytes]:
    """What the first gzip member holds, and the bytes behind it."""
    inflater = zlib.decompressobj(31)
    return inflater.decompress(data), inflater.unused_data


def test_what_the_result_says(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "out"
    result = stargz.pack(tree, path, chunk_size=CHUNK)
    assert result.digest == oracle.sha256(path.read_bytes())
    assert result.diff_id == oracle.diff_id(path)
    assert result.toc_digest == oracle.sha256(oracle.toc_json(path.read_bytes()))
    assert result.size == path.stat().st_size
    entries = oracle.toc_entries(path)
    assert result.entries == sum(e["type"] != "chunk" for e in entries)
    assert result.chunks == sum(e["type"] == "chunk" or e.get("size", 0) > 0 for e in entries)
    files = [p for p in tree.rglob("*") if p.is_file() and not p.is_symlink()]
    assert result.read_files == len({p.stat().st_ino for p in files if p.stat().st_size})
    assert (result.reused_files, result.reused_bytes) == (0, 0)
    assert result.to_json()["diff_id"] == result.diff_id
    assert Path(f"{path}.manifest").stat().st_size > 1000


def test_verifies(layer: Path) -> None:
    with stargz.open(layer) as opened:
        assert opened.verify().files
    assert "ok" in command.ok("verify", layer)


def test_order_and_names(tree: Path, layer: Path) -> None:
    names = [os.fsencode(m.name) for m in members(layer)]
    expected: list[bytes] = []

    def walk(folder: Path, before: bytes) -> None:
        for path in sorted(folder.iterdir(), key=lambda p: os.fsencode(p.name)):
            expected.append(before + os.fsencode(path.name))
            if path.is_dir() and not path.is_symlink():
                walk(path, expected[-1] + b"/")

    walk(tree, b"")
    assert names == expected


def test_times_are_whole_seconds_rounded_down(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    times = {"a": 1_700_000_000_999_999_999, "b": -1_500_000_000, "c": -1, "d": 0}
    for name, mtime in times.items():
        (tmp_path / "tree" / name).touch()
        os.utime(tmp_path / "tree" / name, ns=(0, mtime))
    stargz.pack(tmp_path / "tree", tmp_path / "out")
    found = [(m.name, m.mtime) for m in members(tmp_path / "out")]
    assert found == [("a", 1_700_000_000), ("b", -2), ("c", -1), ("d", 0)]


def test_no_names_of_owners(layer: Path) -> None:
    assert {(m.uname, m.gname) for m in members(layer)} == {("", "")}


def test_gnu_tar_unpacks_the_same_tree(tree: Path, layer: Path, tmp_path: Path, tool: Tool) -> None:
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]
    subprocess.run([tool("tar"), "xzf", layer, *options, "-C", tmp_path], check=True)
    for name in OURS:
        (tmp_path / name).unlink()
    root = os.geteuid() == 0
    found = trees.snapshot(tmp_path, owners=root, root_itself=False)
    assert found == trees.snapshot(tree, owners=root, root_itself=False)
    listed = subprocess.run([tool("tar"), "tzf", layer], check=True, capture_output=True)
    assert not listed.stderr
    assert listed.stdout.count(b"\n") == len(members(layer)) + len(OURS)


def test_our_own_extraction_gives_the_same_tree(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "a", tmp_path / "in", symlinks=True)
    stargz.pack(tmp_path / "in", tmp_path / "layer")
    command.ok("extract", tmp_path / "layer", "-C", tmp_path / "out", "-q", "--setid")
    found = trees.snapshot(tmp_path / "out", root_itself=False)
    assert found == trees.snapshot(tmp_path / "in", root_itself=False)


def test_a_copy_of_the_tree_gives_the_same_bytes(
    tree: Path, layer: Path, tmp_path: Path, tool: Tool
) -> None:
    subprocess.run([tool("cp"), "-a", tree, tmp_path / "copy"], check=True)
    for threads in (1, 4):
        path = tmp_path / f"{threads}"
        stargz.pack(tmp_path / "copy", path, chunk_size=CHUNK, threads=threads)
        assert path.read_bytes() == layer.read_bytes()


def test_without_a_diff_id_the_bytes_are_the_same(tree: Path, layer: Path, tmp_path: Path) -> None:
    full = stargz.pack(tree, tmp_path / "full", chunk_size=CHUNK)
    result = stargz.pack(tree, tmp_path / "out", chunk_size=CHUNK, diff_id=False)
    assert result.diff_id is None
    assert (tmp_path / "out").read_bytes() == layer.read_bytes()
    assert result.uncompressed_size == full.uncompressed_size
    assert result.digest == full.digest


def test_each_chunk_is_a_member_with_its_padding(layer: Path) -> None:
    blob = layer.read_bytes()
    checked = 0
    size = 0
    for entry in oracle.toc_entries(layer, places=True):
        size = size if entry["type"] == "chunk" else entry.get("size", 0)
        if entry["type"] not in ("reg", "chunk") or not size:
            continue
        begin = entry.get("chunkOffset", 0)
        length = min(CHUNK, size - begin)
        data = first_member(blob[entry["offset"] :])[0]
        assert oracle.sha256(data[:length]) == entry["chunkDigest"]
        padding = -size % 512 if begin + length == size else 0
        assert data[length:] == bytes(padding)
        checked += 1
    assert checked > 200


def test_a_run_of_headers_is_closed_after_a_mebibyte(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for i in range(2100):  # 512 bytes each
        (root / f"{i:05}").touch()
    (root / "z").write_bytes(b"contents")
    first = stargz.pack(root, tmp_path / "out")
    with stargz.open(tmp_path / "out") as layer:
        assert layer.verify().files == 2102
    sizes = []
    rest = (tmp_path / "out").read_bytes()
    while rest:
        data, rest = first_member(rest)
        sizes.append(len(data))
    assert sizes[2:5] == [1 << 20, 53 * 512, 512]
    again = stargz.pack(root, tmp_path / "again", base=tmp_path / "out")
    assert again.digest == first.digest


# What is pinned here is a promise to users who cache blobs by digest: see test_pins.py.
PIN = "sha256:a58135030b34b99b7285bde6f1743341863dac9f7e71f1e37cbf22714666c968"


def test_pinned(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "usr" / "bin").mkdir(parents=True)
    for name, size in {"usr/bin/prog": 70_000, "usr/notes.txt": 3000, "usr/empty": 0}.items():
        (root / name).write_bytes(synthetic.text(name, size))
        (root / name).chmod(0o644)
    os.link(root / "usr" / "bin" / "prog", root / "usr" / "prog2")
    (root / "usr" / "link").symlink_to("bin/prog")
    for folder in (root / "usr", root / "usr" / "bin"):
        folder.chmod(0o755)
    options: dict[str, Any] = {"owner": (0, 0), "mtime": 1_000_000_000, "chunk_size": 65536}
    result = stargz.pack(root, tmp_path / "out", **options)
    assert result.digest == PIN
    for threads in (1, 2, 3, 8):
        assert stargz.pack(root, tmp_path / "o", threads=threads, **options).digest == PIN


def test_owner_and_mtime(tree: Path, tmp_path: Path) -> None:
    stargz.pack(tree, tmp_path / "out", owner=(7, 4_000_000_000), mtime=-5)
    assert {(m.uid, m.gid, m.mtime) for m in members(tmp_path / "out")} == {(7, 4_000_000_000, -5)}


def test_source_date_epoch(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = 1_600_000_000
    stargz.pack(tree, tmp_path / "given", source_date_epoch=epoch)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(epoch))
    stargz.pack(tree, tmp_path / "environment")
    assert (tmp_path / "given").read_bytes() == (tmp_path / "environment").read_bytes()
    times = {m.name: m.mtime for m in members(tmp_path / "given")}
    assert max(times.values()) == epoch
    assert times["a/block"] == -7
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert stargz.pack(tree, tmp_path / "empty").digest == stargz.pack(tree, tmp_path / "e").digest
    for bad in ("x", "1.5", "-3", "9" * 30, "\u0661", "1_0", " 5", "5 ", "+5", "5\n", "9" * 9000):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", bad)
        with pytest.raises(stargz.UsageError, match="SOURCE_DATE_EPOCH"):
            stargz.pack(tree, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_an_mtime_that_is_given_is_brought_down_too(tree: Path, tmp_path: Path) -> None:
    for mtime, epoch in ((2_000, 1_000), (500, 1_000)):
        stargz.pack(tree, tmp_path / "out", mtime=mtime, source_date_epoch=epoch)
        assert {m.mtime for m in members(tmp_path / "out")} == {min(mtime, epoch)}


def test_sinks(tree: Path, layer: Path, tmp_path: Path) -> None:
    """File objects and pipes get the same bytes, and no manifest unless one is named."""
    memory = io.BytesIO()
    stargz.pack(tree, memory, chunk_size=CHUNK)
    assert memory.getvalue() == layer.read_bytes()
    read, write = os.pipe()
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(Path(f"/dev/fd/{read}").read_bytes()))
    reader.start()
    with os.fdopen(write, "wb", buffering=0) as pipe:
        stargz.pack(tree, pipe, chunk_size=CHUNK, manifest=tmp_path / "kept")
    reader.join()
    os.close(read)
    assert got == [layer.read_bytes()]
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_the_layer_is_not_packed_into_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"contents")
    first = stargz.pack(tmp_path, tmp_path / "out.stargz")
    assert first.warnings == ()
    second = stargz.pack(tmp_path, tmp_path / "out.stargz", base=tmp_path / "out.stargz")
    assert second.digest == first.digest
    assert [w.rpartition(" ")[2] for w in second.warnings] == [
        "out.stargz",
        "out.stargz.manifest",
    ]


def test_an_earlier_layers_own_files_are_left_out(tmp_path: Path, tool: Tool) -> None:
    """So that packing what was unpacked gives the same layer."""
    root = tmp_path / "tree"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "stargz.index.json").write_bytes(b"not at the root: kept")
    first = stargz.pack(root, tmp_path / "one")
    (tmp_path / "out").mkdir()
    subprocess.run([tool("tar"), "xzf", tmp_path / "one", "-C", tmp_path / "out"], check=True)
    assert all((tmp_path / "out" / name).exists() for name in OURS)
    assert stargz.pack(tmp_path / "out", tmp_path / "two").digest == first.digest


def test_reserved_names_at_the_root_are_told_of(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "kept").touch()
    assert stargz.pack(root, tmp_path / "out").warnings == ()
    (root / ".prefetch.landmark").mkdir()
    (root / ".prefetch.landmark" / "inside").touch()
    for name in OURS:
        (root / name).touch()
    result = stargz.pack(root, tmp_path / "out")
    assert result.warnings == (
        "left out, as a layer has its own: .no.prefetch.landmark, .prefetch.landmark, "
        "stargz.index.json",
    )
    assert [m.name for m in members(tmp_path / "out")] == ["kept"]
    # Who leaves them out need not be told.
    (tmp_path / "ignore").write_text(".*\n!.prefetch.landmark/inside\n")
    result = stargz.pack(root, tmp_path / "out", ignore=tmp_path / "ignore")
    assert result.warnings == ("left out, as a layer has its own: stargz.index.json",)
    assert [m.name for m in members(tmp_path / "out")] == ["kept"]


# --- the manifest does not replace other files ----------------------------------------------


@pytest.mark.parametrize("way", ["name", "other name", "hard link", "file object"])
def test_the_manifest_is_not_the_layer(tmp_path: Path, way: str) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    root.mkdir()
    manifest = out
    if way == "other name":
        manifest = tmp_path / "link"
        manifest.symlink_to("out")
    elif way == "hard link":
        stargz.pack(root, out)
        manifest = tmp_path / "second"
        os.link(out, manifest)
    with out.open("ab") if way == "file object" else io.BytesIO() as file:
        before = out.read_bytes() if out.exists() else None
        with pytest.raises(stargz.UsageError, match="the layer itself"):
            stargz.pack(root, file if way == "file object" else out, manifest=manifest)
    assert (out.read_bytes() if out.exists() else None) == before


def test_the_manifest_is_not_the_base(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    base = tmp_path / "out.manifest"
    stargz.pack(root, base)
    before = base.read_bytes()
    given: list[dict[str, Any]] = [{"manifest": base}, {}]
    for options in given:
        with pytest.raises(stargz.UsageError, match="the base itself"):
            stargz.pack(root, tmp_path / "out", base=base, **options)
    assert base.read_bytes() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["file", "short", "directory", "fifo"])
def test_what_is_no_manifest_is_left_alone(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    other = root / "out.manifest"  # in the tree, and so packed
    if kind == "directory":
        other.mkdir()
    elif kind == "fifo":
        os.mkfifo(other)
    else:
        other.write_bytes(b"precious" * 9 if kind == "file" else b"S")
    before = trees.snapshot(root)
    with pytest.raises(stargz.UsageError, match=r"out\.manifest: exists and is no manifest"):
        stargz.pack(root, tmp_path / "x", manifest=other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tree"]
    result = stargz.pack(root, root / "out")
    assert result.warnings == (
        f"{other}: is no manifest and was left alone; name another with --manifest",
    )
    assert [m.name for m in members(root / "out")] == ["out.manifest"]
    (root / "out").unlink()
    before.pop("")
    assert trees.snapshot(root, root_itself=False) == before
    said = command.fails(2, "pack", root, tmp_path / "x", "--manifest", other)
    assert "is no manifest" in said
    assert not (tmp_path / "x").exists()


def test_manifests_and_empty_files_are_replaced(tmp_path: Path) -> None:
    root, kept = tmp_path / "tree", tmp_path / "kept"
    root.mkdir()
    kept.touch()
    for name in ("a", "b"):
        (root / name).write_bytes(b"contents")
        before = kept.read_bytes()
        assert stargz.pack(root, tmp_path / "out", manifest=kept).warnings == ()
        assert kept.read_bytes()[:8] == b"SGZMANIF"
        assert kept.read_bytes() != before


def test_ignore_file(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for name in ("keep/a.txt", "keep/b.log", "build/x/y.o", "build/x/kept.txt", "c.log", ".ignore"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"contents")
    (root / ".ignore").write_text("# not these\n**/*.log\nbuild\n!build/x/kept.txt\n.ignore\n")
    stargz.pack(root, tmp_path / "out", ignore=root / ".ignore")
    kept = ["build", "build/x", "build/x/kept.txt", "keep", "keep/a.txt"]
    assert [m.name for m in members(tmp_path / "out")] == kept
    command.ok("pack", root, tmp_path / "again", "--ignore-file", root / ".ignore", "-q")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "out").read_bytes()
    with pytest.raises(FileNotFoundError):
        stargz.pack(root, tmp_path / "none", ignore=root / "none")
    (root / ".ignore").write_text("fine\n[\n")
    with pytest.raises(stargz.UsageError, match="2"):
        stargz.pack(root, tmp_path / "none", ignore=root / ".ignore")
    assert not (tmp_path / "none").exists()


def test_an_exception_of_the_ignore_rules_ends_it(tmp_path: Path) -> None:
    class Broken:
        def decide(self, name: bytes, is_dir: bool) -> int:
            raise ZeroDivisionError(name)

    (tmp_path / "file").touch()
    with pytest.raises(ZeroDivisionError, match="file"):
        stargz.pack(tmp_path, tmp_path / "out", ignore=Broken())  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    result = stargz.pack(tmp_path / "tree", tmp_path / "out")
    assert result.entries == 1
    again = stargz.pack(tmp_path / "tree", tmp_path / "again", base=tmp_path / "out")
    assert (again.digest, again.warnings) == (result.digest, ())


def test_deep_and_wide(tmp_path: Path) -> None:
    """A path as long as a system call takes; what is longer, nobody could extract."""
    fd = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "tree").mkdir()
    here = os.open("tree", os.O_RDONLY, dir_fd=fd)
    for _ in range(20):
        os.mkdir("n" * 200, dir_fd=here)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, b"deep")
    for each in (fd, here, file):
        os.close(each)
    stargz.pack(tmp_path / "tree", tmp_path / "out")
    names = [m.name for m in members(tmp_path / "out")]
    assert names[-1] == "/".join(["n" * 200] * 20 + ["file"])
    with stargz.open(tmp_path / "out") as layer:
        assert layer.read(names[-1]) == b"deep"
    below = tmp_path / "/".join(["tree"] + ["n" * 200] * 10)
    os.chdir(below)
    Path("/".join(["n" * 200] * 10 + ["m" * 200])).mkdir()
    os.chdir(tmp_path)
    with pytest.raises(TarError, match=r"nnn.*has 4221 bytes, over the limit of 4095"):
        stargz.pack(tmp_path / "tree", tmp_path / "out")


def test_the_reference_reads_it(layer: Path, reference: Callable[..., Any]) -> None:
    found = reference("verify", layer)
    assert found


def test_progress(tree: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    stargz.pack(tree, tmp_path / "out", progress=lambda *c: calls.append(c))
    files = {p.stat().st_ino: p.stat().st_size for p in tree.rglob("*")
             if p.is_file() and not p.is_symlink()}  # fmt: skip
    assert calls[-1] == (sum(files.values()), sum(files.values()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 0}, r"level \(--level\) 0"),
        ({"level": 13}, r"level \(--level\) 13"),
        ({"chunk_size": 1000}, r"\(--chunk-size\) 1000"),
        ({"threads": 0}, "0 threads"),
        ({"owner": (-1, 0)}, "owner -1:0"),
        ({"owner": (0, 1 << 32)}, "owner 0:4294967296"),
        ({"mtime": 1 << 70}, "mtime"),
        ({"source_date_epoch": 1 << 70}, "source_date_epoch"),
        ({"base_manifest": "x"}, "base_manifest"),
    ],
)
def test_usage(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(stargz.UsageError, match=message):
        stargz.pack(tmp_path, tmp_path / "out", **options)
    assert [p.name for p in tmp_path.iterdir()] == []


def test_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        stargz.pack(tmp_path / "file", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        stargz.pack(tmp_path / "none", tmp_path / "out")


def test_command(tree: Path, layer: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = command.ok("pack", tree, out, "--chunk-size", CHUNK, "-q")
    assert "copied" not in said
    assert out.read_bytes() == layer.read_bytes()
    message = command.fails(1, "pack", tree, out)
    assert "--force replaces it" in message
    options = ("--force", "--base", out, "--owner", "1:2", "--mtime", "3", "--no-diff-id", "--json")
    made = command.run("pack", tree, out, *options)
    found = json.loads(made.stdout)
    assert found["diff_id"] is None
    assert any("packed with chunk size" in text for text in found["warnings"])
    assert {(m.uid, m.gid, m.mtime) for m in members(out)} == {(1, 2, 3)}
    assert "UID:GID" in command.fails(2, "pack", tree, tmp_path / "x", "--owner", "me")
    piped = command.run("pack", tree, "-", "--chunk-size", CHUNK, "-q", text=False)
    assert piped.stdout == layer.read_bytes()


def test_the_epoch_is_a_time(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/f").write_bytes(b"x")
    stargz.pack(tmp_path / "in", tmp_path / "out", mtime=0)
    with stargz.open(tmp_path / "out") as layer:
        found = {e["name"]: e.get("modtime") for e in json.loads(layer.read_toc())["entries"]}
        assert found == {".no.prefetch.landmark": None, "f": "1970-01-01T00:00:00Z"}
        assert layer.verify().ok
