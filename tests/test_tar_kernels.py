"""csrc/tar/ and csrc/toc/rows.c on tars of GNU tar and Python: against what tarfile reads."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
Dump = Callable[[str, Path], subprocess.CompletedProcess[bytes]]

FORMATS = ["v7", "oldgnu", "gnu", "ustar", "pax"]
SPARSE = {
    "oldgnu": ["--format=oldgnu"],
    "gnu": ["--format=gnu"],
    "pax-0.0": ["--format=pax", "--sparse-version=0.0"],
    "pax-0.1": ["--format=pax", "--sparse-version=0.1"],
    "pax-1.0": ["--format=pax", "--sparse-version=1.0"],
}


@pytest.fixture(scope="module")
def dump(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Dump:
    """dump(mode, tar): run tests/kernels/tar_dump.c, under AddressSanitizer and UBSan."""
    program = tmp_path_factory.mktemp("tar_dump") / "tar_dump"
    sources = [*ROOT.glob("csrc/tar/*.c"), *ROOT.glob("csrc/toc/*.c")]
    for name in ("open.c", "open_frame.c", "footer.c"):  # they need the codecs
        sources.remove(ROOT / "csrc/toc" / name)
    sources += ROOT.glob("csrc/base/*.c")
    flags = ["-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined"]
    flags += ["-fno-sanitize-recover=all", f"-I{ROOT / 'csrc'}"]
    driver = ROOT / "tests/kernels/tar_dump.c"
    command: list[str | Path] = [tool("cc"), *flags, "-o", program, driver, *sources, "-lm"]
    subprocess.run(command, check=True)

    def run(mode: str, tar: Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([program, mode, tar], capture_output=True)

    return run


def lines(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def text(value: str) -> str:
    return os.fsdecode(bytes.fromhex(value))


def seen(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of tar_dump in tarfile's terms."""
    return {
        "name": text(entry["name"]).rstrip("/"),
        "type": "0" if entry["type"] == "S" else entry["type"],
        "size": entry["size"],
        "link": text(entry["link"]),
        "mtime": entry["mtime"],
        "mode": entry["mode"] & 0o7777,
        "ids": (entry["uid"], entry["gid"]),
        "names": (text(entry["uname"]), text(entry["gname"])),
        "xattrs": {k: bytes.fromhex(v) for k, v in entry["xattrs"].items()},
    }


def expected(member: tarfile.TarInfo) -> dict[str, Any]:
    kind = "0" if member.isreg() else member.type.decode()
    prefix = "SCHILY.xattr."
    return {
        "name": member.name,
        "type": kind,
        "size": member.size if kind == "0" else 0,
        "link": member.linkname,
        "mtime": math.floor(member.mtime + 0.5),
        "mode": member.mode,
        "ids": (member.uid, member.gid),
        "names": (member.uname, member.gname),
        "xattrs": {
            key.removeprefix(prefix): os.fsencode(value)
            for key, value in member.pax_headers.items()
            if key.startswith(prefix)
        },
    }


def contents(tar: Path) -> list[tuple[dict[str, Any], bytes | None]]:
    with tarfile.open(tar) as archive:
        return [
            (expected(member), file.read() if (file := archive.extractfile(member)) else None)
            if member.isreg()
            else (expected(member), None)
            for member in archive
        ]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind that needs no root; names that each format can hold."""
    root = tmp_path_factory.mktemp("tree")
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "dir" / "file").write_bytes(b"hello" * 300)
    (root / "dir" / "empty").touch()
    (root / "dir" / "ümlaut").write_text("x")
    (root / "dir" / "sub" / "exact").write_bytes(bytes(1024))
    os.link(root / "dir" / "file", root / "hardlink")
    (root / "symlink").symlink_to("dir/file")
    os.mkfifo(root / "fifo")
    (root / "dir" / "empty").chmod(0o4755)
    os.utime(root / "dir" / "file", ns=(0, 1_600_000_000_500_000_000))
    os.utime(root / "dir" / "empty", ns=(0, 1_600_000_000_250_000_000))
    return root


def make(tool: Callable[[str], str], tar: Path, tree: Path, *options: str) -> Path:
    subprocess.run([tool("tar"), "-cf", tar, "--sort=name", *options, "-C", tree, "."], check=True)
    return tar


def check(dump: Dump, tar: Path) -> None:
    """Entries as tarfile reads them, and a rewritten tar that says the same."""
    entries = lines(dump("entries", tar))
    assert [seen(entry) for entry in entries] == [fields for fields, _ in contents(tar)]
    rewritten = dump("expand", tar)
    assert rewritten.returncode == 0, rewritten.stderr
    copy = tar.with_suffix(".rewritten")
    copy.write_bytes(rewritten.stdout)
    assert contents(copy) == contents(tar)
    # The time to the nanosecond, not only as a rounded second.
    again = lines(dump("entries", copy))
    assert [e["nsec"] for e in again] == [e["nsec"] for e in entries]
    assert not any(e["runs"] or e["rewrite"] for e in again)


@pytest.mark.parametrize("format", FORMATS)
def test_formats(
    dump: Dump, tool: Callable[[str], str], tree: Path, tmp_path: Path, format: str
) -> None:
    options = ["--exclude=fifo"] if format == "v7" else []  # which v7 cannot hold
    check(dump, make(tool, tmp_path / "t.tar", tree, f"--format={format}", *options))


@pytest.mark.parametrize("format", ["oldgnu", "gnu", "pax"])
def test_long_names(dump: Dump, tool: Callable[[str], str], tmp_path: Path, format: str) -> None:
    tree = tmp_path / "tree"
    for length in (99, 100, 101, 155, 156, 200):
        folder = tree / ("d" * length)
        folder.mkdir(parents=True)
        (folder / ("f" * length)).write_bytes(b"x" * length)
        (tree / f"link{length}").symlink_to("k" * length)
        os.link(folder / ("f" * length), folder / ("h" * length))
    tar = make(tool, tmp_path / "t.tar", tree, f"--format={format}")
    check(dump, tar)
    assert max(len(text(e["name"])) for e in lines(dump("entries", tar))) > 400


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("runs", [0, 1, 3, 4, 5, 40])
def test_sparse(
    dump: Dump, tool: Callable[[str], str], tmp_path: Path, kind: str, runs: int
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        for n in range(runs):
            file.seek(n * 131072)
            file.write(bytes([n + 1]) * 4096)
        file.truncate(max(runs, 1) * 131072 + 100)
    (tree / "then").write_bytes(b"what follows must not be lost" * 100)
    tar = make(tool, tmp_path / "t.tar", tree, "--sparse", "--hole-detection=raw", *SPARSE[kind])
    check(dump, tar)
    entry = next(e for e in lines(dump("entries", tar)) if text(e["name"]) == "./sparse")
    assert entry["type"] == "S" and entry["payload"] == sum(run[1] for run in entry["runs"])
    assert len(entry["runs"]) == runs
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run([tool("tar"), "-xf", tmp_path / "t.rewritten", "-C", out], check=True)
    assert (out / "sparse").read_bytes() == (tree / "sparse").read_bytes()
    assert (out / "then").read_bytes() == (tree / "then").read_bytes()


def test_python_pax(dump: Dump, tmp_path: Path) -> None:
    tar = tmp_path / "t.tar"
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for n, mtime in enumerate([0, 1.5, -1.25, -7, 2**34 + 0.75]):
            info = tarfile.TarInfo(f"f{n}/" + "n" * 250)
            info.mtime, info.uid, info.gid = mtime, 3_000_000_000, 2**21 + n
            info.uname = info.gname = "ö" * 40
            info.pax_headers = {"SCHILY.xattr.user.two": "b", "SCHILY.xattr.user.one": ""}
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    check(dump, tar)


def test_global_header(dump: Dump, tmp_path: Path) -> None:
    tar = tmp_path / "t.tar"
    headers = {"uname": "all", "SCHILY.xattr.user.all": "v", "mtime": "12.5"}
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT, pax_headers=headers) as archive:
        archive.addfile(tarfile.TarInfo("a"))
        info = tarfile.TarInfo("b")
        info.pax_headers = {"uname": "mine", "SCHILY.xattr.user.b": "w"}
        archive.addfile(info)
    entries = lines(dump("entries", tar))
    assert all(entry["rewrite"] for entry in entries)
    assert [text(entry["uname"]) for entry in entries] == ["all", "mine"]
    assert [sorted(entry["xattrs"]) for entry in entries] == [["user.all"], ["user.all", "user.b"]]
    check_rewritten = tmp_path / "plain.tar"
    check_rewritten.write_bytes(dump("expand", tar).stdout)
    with tarfile.open(check_rewritten) as archive:
        assert not archive.pax_headers
        assert [member.uname for member in archive] == ["all", "mine"]
        assert [member.mtime for member in archive] == [12.5, 12.5]
        assert all("SCHILY.xattr.user.all" in member.pax_headers for member in archive)


def test_xattrs(dump: Dump, tool: Callable[[str], str], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("x")
    try:
        os.setxattr(tree / "f", "user.bytes", b"\0=\n\xff")
        os.setxattr(tree / "f", "user.a", b"1")
    except OSError as error:
        pytest.skip(f"this file system has no user xattrs: {error}")
    tar = make(tool, tmp_path / "t.tar", tree, "--format=pax", "--xattrs")
    entry = next(e for e in lines(dump("entries", tar)) if text(e["name"]) == "./f")
    assert {"user.a": "31", "user.bytes": b"\0=\n\xff".hex()}.items() <= entry["xattrs"].items()
    check(dump, tar)


def test_goldens_apply(dump: Dump, data: Path, goldens: list[dict[str, Any]]) -> None:
    for golden in goldens:
        tar = data / golden["tar"]
        rows = lines(dump("rows", tar))
        last = {}
        with tarfile.open(tar) as archive:
            for member in archive:
                last[os.path.normpath("/" + member.name).lstrip("/")] = member.size
        names = [os.path.normpath("/" + text(row["name"])).lstrip("/") for row in rows]
        assert sorted(names) == sorted(last), golden["name"]


def test_cut_off_anywhere(
    dump: Dump, tool: Callable[[str], str], tree: Path, tmp_path: Path
) -> None:
    tar = make(tool, tmp_path / "t.tar", tree, "--format=pax")
    whole = tar.read_bytes()
    complete = lines(dump("entries", tar))
    for end in range(0, len(whole), 512):
        tar.write_bytes(whole[:end])
        done = dump("entries", tar)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert found == complete[: len(found)]
        assert done.returncode == 0 or b"cut off" in done.stderr
