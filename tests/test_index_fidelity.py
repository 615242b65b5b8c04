"""What is read in place is what GNU tar takes out of the same archive: names, kinds, modes, owners,
times to the nanosecond, extended attributes, links and holes."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from blobs import tar_of
from command import ok
from mounts import cli_mount, listed, needs_fuse

import stargz
import stargz.fsspec
from stargz.tree import Tree

PLAIN_NS = 1_600_000_000_000_000_000
TIMES = {  # of what is in the tree; fractions that a rounded second would move
    "d": PLAIN_NS + 999_999_999,
    "d/file": PLAIN_NS + 1,
    "d/link": PLAIN_NS + 500_000_000,
    "d/hole": -1_500_000_000,
    "fifo": 1_000_000_000_250_000_000,
    "old": -1,
    "plain": PLAIN_NS,
}

Shown = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar.gz of a tree with everything in it, as GNU tar makes it."""
    root = tmp_path_factory.mktemp("source")
    tree = root / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/file").write_bytes(b"contents\n" * 1000)
    (tree / "d/file").chmod(0o4751)
    os.setxattr(tree / "d/file", "user.key", b"\0\xffvalue")
    os.link(tree / "d/file", tree / "d/other name")
    (tree / "d/link").symlink_to("../plain")
    with (tree / "d/hole").open("wb") as file:
        file.seek(300_000)
        file.write(b"data" * 2000)
        file.truncate(5_000_000)
    with (tree / "nothing but a hole").open("wb") as file:
        file.truncate(1 << 20)
    os.mkfifo(tree / "fifo", 0o640)
    (tree / "old").write_bytes(b"")
    (tree / "plain").write_bytes(b"p")
    (tree / ".prefetch.landmark").write_bytes(b"of a user")
    (tree / "stargz.index.json").write_bytes(b"{}")
    (tree / ".no.prefetch.landmark").mkdir()
    (tree / ".no.prefetch.landmark/file").write_bytes(b"inside")
    if os.geteuid() == 0:
        os.chown(tree / "plain", 1234, 4321)
        os.mknod(tree / "device", stat.S_IFCHR | 0o600, os.makedev(7, 300))
    for path in sorted(tree.rglob("*"), reverse=True):
        ns = TIMES.get(str(path.relative_to(tree)), PLAIN_NS + 123_456_789)
        os.utime(path, ns=(ns, ns), follow_symlinks=False)
    made = root / "any.tar.gz"
    words = ["tar", "--format=pax", "--xattrs", "-S", "-C", tree, "-czf", made, "."]
    subprocess.run(words, check=True)
    return made


def by_tar(archive: Path, to: Path) -> Path:
    """What GNU tar takes out of it."""
    to.mkdir()
    words = ["tar", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp"]
    subprocess.run([*words, "--numeric-owner", "-xpf", archive, "-C", to], check=True)
    return to


def shown(root: Path) -> Shown:
    """By name all that a system tells of what is below a directory."""
    found: Shown = {}
    inodes: dict[int, str] = {}
    for path in sorted([root, *root.rglob("*")]):
        name, info = str(path.relative_to(root)), path.lstat()
        word = contents(path, info)
        first = inodes.setdefault(info.st_ino, name)
        size = 0 if path.is_dir() else info.st_size
        links = 0 if path.is_dir() else info.st_nlink
        xattrs = {k: os.getxattr(path, k, follow_symlinks=False) for k in keys(path)}
        found[name] = (
            info.st_mode, info.st_uid, info.st_gid, info.st_rdev, info.st_mtime_ns, size, links,
            first, xattrs, word,
        )  # fmt: skip
    return found


def keys(path: Path) -> list[str]:
    return [key for key in os.listxattr(path, follow_symlinks=False) if key.startswith("user.")]


def contents(path: Path, info: os.stat_result) -> object:
    if stat.S_ISLNK(info.st_mode):
        return str(path.readlink())
    return path.read_bytes() if stat.S_ISREG(info.st_mode) else None


def differences(one: Shown, other: Shown) -> dict[str, Any]:
    return {
        name: (one.get(name), other.get(name))
        for name in one.keys() | other.keys()
        if one.get(name) != other.get(name)
    }


def test_extract_is_as_tar_does_it(archive: Path, tmp_path: Path) -> None:
    ok("extract", "--quiet", "--setid", "--devices", archive, "-C", tmp_path / "ours")
    wanted = shown(by_tar(archive, tmp_path / "theirs"))
    assert differences(shown(tmp_path / "ours"), wanted) == {}
    for name in ("d/hole", "nothing but a hole"):
        blocks = [(tmp_path / side / name).stat().st_blocks for side in ("ours", "theirs")]
        assert blocks[0] <= blocks[1]


def test_a_ztoc_keeps_the_fraction_too(archive: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    os.utime(tree / "file", ns=(PLAIN_NS, PLAIN_NS + 987_654_321))
    subprocess.run(["tar", "--format=pax", "-C", tree, "-czf", tmp_path / "a.tgz", "."], check=True)
    ok("index", "--quiet", "--format", "soci", "-o", tmp_path / "ztoc", tmp_path / "a.tgz")
    index = ("--index", tmp_path / "ztoc")
    ok("extract", "--quiet", *index, tmp_path / "a.tgz", "-C", tmp_path / "out")
    assert (tmp_path / "out/file").stat().st_mtime_ns == PLAIN_NS + 987_654_321


def test_mount_is_as_tar_does_it(archive: Path, tmp_path: Path) -> None:
    needs_fuse()
    wanted = shown(by_tar(archive, tmp_path / "theirs"))
    with cli_mount(archive, directory=tmp_path / "mnt") as directory:
        assert differences(shown(directory), wanted) == {}
        for name, stored in (("d/hole", 8192), ("nothing but a hole", 0)):
            # A hole has no blocks; tar ends data where its own blocks end.
            assert stored <= (directory / name).stat().st_blocks * 512 <= stored + 16384
        before = {path.lstat().st_ino for path in directory.rglob("*")}
    with cli_mount(archive, directory=tmp_path / "mnt") as directory:
        assert {path.lstat().st_ino for path in directory.rglob("*")} == before


def test_library_has_the_fractions(archive: Path) -> None:
    with stargz.open(archive) as layer:
        tree = Tree(layer)
        for name, ns in TIMES.items():
            assert layer.entry(name).mtime_ns == tree.stat(name, follow=False).mtime_ns == ns
        entry = layer.entry("d/file")
        assert (entry.mtime, entry.mtime_nsec) == (PLAIN_NS // 10**9, 1)
        assert entry.to_json()["modtime"] == "2020-09-13T12:26:40.000000001Z"
        assert layer.entry("plain").to_json()["modtime"] == "2020-09-13T12:26:40Z"
        assert layer.entry("old").to_json()["modtime"] == "1969-12-31T23:59:59.999999999Z"
        fs = stargz.fsspec.StargzFileSystem(archive)
        assert fs.info("d/file")["mtime_ns"] == TIMES["d/file"]
        assert fs.modified("d").microsecond == 999_999


def test_commands_have_the_fractions(archive: Path) -> None:
    assert '"modtime": "2020-09-13T12:26:40.999999999Z"' in ok("ls", "-d", "--json", archive, "d")
    assert ok("find", archive, "-newer", "plain", "-type", "f", "-path", "d/*") == (
        "d/file\nd/other name\n"
    )
    assert ok("ls", "-t", archive, "d").splitlines() == ["link", "file", "other name", "hole"]
    for word in ("@1600000000", "2020-09-13T12:26:40"):
        assert "d/file\n" in ok("find", archive, "-newermt", word)
    assert "d/file\n" not in ok("find", archive, "-newermt", "2020-09-13T12:26:40.000001")


def test_times_of_a_converted_layer_are_whole(archive: Path, tmp_path: Path) -> None:
    stargz.convert(archive, tmp_path / "layer")
    with stargz.open(tmp_path / "layer") as layer:
        found = [layer.entry(name).mtime_ns for name in ("d", "d/file", "d/link")]
    assert found == [PLAIN_NS + 10**9, PLAIN_NS, PLAIN_NS + 10**9]
    # Which is no difference of the files. (What a layer has for itself it has not of a user.)
    assert "4 removed, 0 changed, 0 metadata only" in ok("diff", archive, tmp_path / "layer")


def test_names_of_the_format_are_files_of_an_ordinary_tar(archive: Path, tmp_path: Path) -> None:
    names = {".prefetch.landmark", "stargz.index.json", ".no.prefetch.landmark"}
    assert names < set(ok("ls", archive).splitlines())
    assert names < set(ok("ls", "-a", archive).splitlines())
    assert ok("cat", archive, "stargz.index.json") == "{}"
    with stargz.open(archive) as layer:
        assert names < set(layer) & set(layer.listdir())
        assert len(layer) == len(list(layer))
        assert layer.prefetch_size == 0
        members = ["stargz.index.json", ".no.prefetch.landmark"]
        layer.extractall(tmp_path / "some", members=members)
    assert listed(tmp_path / "some") == sorted(members)
    assert listed(tmp_path / "some/.no.prefetch.landmark") == ["file"]
    assert ok("info", "--json", archive).count('"landmark": null') == 1


def test_what_the_format_itself_puts_there_is_not(archive: Path, tmp_path: Path) -> None:
    """A seekable layer, by an index, shows what it does by its TOC."""
    stargz.convert(archive, tmp_path / "layer", prioritized=["plain"])
    ok("index", "-q", tmp_path / "layer", "-o", tmp_path / "index")
    by_toc = ok("ls", "-R", tmp_path / "layer")
    assert ok("ls", "-R", "--index", tmp_path / "index", tmp_path / "layer") == by_toc


def test_verify_says_what_it_has_seen(archive: Path, tmp_path: Path) -> None:
    """The digests of blob and tar, whoever made the index; and what vouched for that."""
    (tmp_path / "any.tar.gz").write_bytes(archive.read_bytes())
    made = json.loads(ok("index", "--json", tmp_path / "any.tar.gz"))
    (tmp_path / "any.tar.gz.index").rename(tmp_path / "named")
    seen = f"blob {made['blob_digest']}, DiffID {made['diff_id']}"
    named = ("--index", tmp_path / "named", tmp_path / "any.tar.gz")
    assert ok("verify", tmp_path / "any.tar.gz").endswith(f"; {seen}\n")
    assert ok("verify", "--index-digest", made["digest"], *named).endswith(f"; {seen}\n")
    unvouched = "(unverified: no --index-digest was given)"
    assert ok("verify", *named).endswith(f"; {seen} {unvouched}\n")
    told = json.loads(ok("verify", "--json", *named))
    assert (told["verified"], told["index_trust"]) == (False, "nothing vouches for it")
    # `info` calls things as `index` does.
    info = json.loads(ok("info", "--json", *named))
    shared = made.keys() - {"format", "path", "digest", "size", "seconds", "warnings"}
    assert {key: info[key] for key in shared} == {key: made[key] for key in shared}
    assert {key: told[key] for key in ("blob_digest", "diff_id")} == {
        key: made[key] for key in ("blob_digest", "diff_id")
    }


def test_without_entries_of_their_own_directories_have_no_time(tmp_path: Path) -> None:
    """As in a seekable layer: 1970 wherever it is shown. (An extraction makes them now.)"""
    needs_fuse()
    (tmp_path / "any.tar").write_bytes(tar_of([("a/b/file", b"x")], mtime=1_000_000_000))
    with cli_mount(tmp_path / "any.tar", directory=tmp_path / "mnt") as directory:
        for name in ("", "a", "a/b"):
            info = (directory / name).stat()
            assert (info.st_mtime_ns, stat.S_IMODE(info.st_mode)) == (0, 0o755)
    assert "1970-01-01 00:00 a" in ok("ls", "-l", tmp_path / "any.tar")


def test_a_symlink_has_no_mode_of_its_own(tmp_path: Path) -> None:
    needs_fuse()
    link = tarfile.TarInfo("link")
    link.type, link.linkname, link.mode = tarfile.SYMTYPE, "where/to", 0o640
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(link)
    (tmp_path / "any.tar").write_bytes(out.getvalue())
    with cli_mount(tmp_path / "any.tar", directory=tmp_path / "mnt") as directory:
        info = (directory / "link").lstat()
        assert (stat.filemode(info.st_mode), info.st_size) == ("lrwxrwxrwx", 8)
    # As `tar tv` lists it.
    assert ok("ls", "-l", tmp_path / "any.tar").startswith("lrw-r-----")


@pytest.mark.parametrize("time", ["253402300800.75", "-62135596801.5", "1e3"])
def test_times_that_no_toc_can_say(time: str, tmp_path: Path) -> None:
    """Those have none; nor is a fraction left of them."""
    info = tarfile.TarInfo("file")
    info.pax_headers = {"mtime": time}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with stargz.open(out.getvalue()) as layer:
        assert layer.entry("file").mtime_ns == 0
