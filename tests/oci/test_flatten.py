"""Layers merged into one tar: against a plain applier, the Tree of the layers, and GNU tar."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blobs import noise
from handmade import directory, hardlink, reg, symlink
from hypothesis import given, settings
from stacks import WH, Layer, applied, as_tar, names_of, stacks
from trees import snapshot

import stargz
from stargz.errors import GzipError, SourceError, TarError
from stargz.oci.convert.flatten import merged_tar
from stargz.tree import Tree

BLOCK = 512


def merged(*tars: bytes) -> bytes:
    with merged_tar([io.BytesIO(tar) for tar in tars]) as tar:
        return tar.read()


def layer_of(*entries: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo, form: int = 2) -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for entry in entries:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **keys: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    for key, value in keys.items():
        setattr(found, key, value)
    return found


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar), errorlevel=2) as archive:
        listed = archive.getmembers()
    found = {member.name: member for member in listed}
    assert len(found) == len(listed), "a name stands twice in the tar"
    return found


def contents(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        found = {}
        for member in archive:
            if member.isreg() or member.islnk():
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
        return found


# --- any stack ------------------------------------------------------------------------------


def view(trees: Iterable[stargz.Layer]) -> dict[str, Any]:
    """All that a Tree tells of its paths, except where from; names of one file by the first."""
    tree = Tree(list(trees))
    found: dict[str, Any] = {}
    first: dict[int, str] = {}
    for item in [tree.stat(""), *tree.scandir(recursive=True)]:
        body = tree.read(item.path) if item.is_file() else item.target
        one = first.setdefault(item.ino, item.path)
        meta = (item.type, item.mode, item.uid, item.gid, item.mtime, item.major, item.minor)
        found[item.path] = (meta, item.nlink, body, one, tree.xattrs(item.path, follow=False))
    return found


def converted(tar: bytes) -> stargz.Layer:
    out = io.BytesIO()
    stargz.convert(tar, out, threads=1)
    return stargz.open(out.getvalue())


@given(stacks())
@settings(max_examples=250, deadline=None)
def test_a_stack_merged_is_what_applying_its_layers_gives(stack: list[Layer]) -> None:
    expected = names_of(applied(stack))
    tar = merged(*(as_tar(layer) for layer in stack))
    found = members(tar)
    for path in found:
        assert path in expected and WH not in path
    with converted(tar) as layer:
        tree = Tree([layer])
        names = {item.path for item in tree.scandir(recursive=True)} | {""}
        assert names == set(expected)
        inodes: dict[int, set[int]] = {}
        for path, node in expected.items():
            item, entry = tree.stat(path, follow=False), node.entry or {}
            assert item.type == node.kind
            assert stat.S_IMODE(item.mode) == (entry.get("mode", 0) if entry else 0o755)
            assert item.uid == entry.get("uid", 0)
            assert item.target == entry.get("linkName", "")
            if node.kind == "reg":
                assert tree.read(path) == entry["content"]
            inodes.setdefault(id(node), set()).add(item.ino)
        assert all(len(of_one) == 1 for of_one in inodes.values())
        assert len(set().union(*inodes.values())) == len(inodes)


@given(stacks(names="abcd"))
@settings(max_examples=100, deadline=None)
def test_a_stack_merged_is_its_tree(stack: list[Layer]) -> None:
    tars = [as_tar(layer) for layer in stack]
    layers = [converted(tar) for tar in tars]
    with converted(merged(*tars)) as one:
        assert view([one]) == view(layers)
    for layer in layers:
        layer.close()


@given(stacks())
@settings(max_examples=40, deadline=None)
def test_merging_again_changes_nothing(stack: list[Layer]) -> None:
    once = merged(*(as_tar(layer) for layer in stack))
    assert merged(once) == once


@given(stacks(names="abcd", most=12))
@settings(max_examples=25, deadline=None)
def test_gnu_tar_extracts_the_same(tool: Callable[[str], str], stack: list[Layer]) -> None:
    """What tar makes of the merged one is what it makes of the layers' tree."""
    expected = names_of(applied(stack))
    with tempfile.TemporaryDirectory() as folder:
        command = [tool("tar"), "-x", "-p", "-f", "-", "-C", folder]
        tar = merged(*(as_tar(layer) for layer in stack))
        done = subprocess.run(command, input=tar, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        found = snapshot(Path(folder), owners=False)
    assert set(found) - {"one file"} == set(expected)
    groups: dict[int, list[str]] = {}
    for path, node in expected.items():
        if node.kind != "dir":
            groups.setdefault(id(node), []).append(path)
    assert found["one file"] == sorted(sorted(g) for g in groups.values() if len(g) > 1)


# --- rules, one by one ------------------------------------------------------------------------


def test_hard_links_whose_first_name_is_gone() -> None:
    lower = as_tar([reg("a", b"content", mode=0o640), hardlink("b", "a"), hardlink("c", "b")])
    gone = merged(lower, as_tar([reg(".wh.a", b"")]))
    found = members(gone)
    assert sorted(found) == ["b", "c"]
    assert found["b"].isreg() and found["b"].mode == 0o640
    assert found["c"].islnk() and found["c"].linkname == "b"
    assert contents(gone) == {"b": b"content", "c": b"content"}
    replaced = merged(lower, as_tar([reg("a", b"new"), hardlink("d", "a")]))
    assert contents(replaced) == {"a": b"new", "b": b"content", "c": b"content", "d": b"new"}
    assert members(replaced)["d"].linkname == "a"
    middle = merged(lower, as_tar([reg(".wh.b", b""), hardlink("z", "c")]))
    found = members(middle)
    assert {name: member.linkname for name, member in found.items()} == {
        "a": "",
        "c": "a",
        "z": "a",
    }


def test_whiteouts_do_not_touch_their_own_layer() -> None:
    lower = as_tar([directory("d"), reg("d/old", b"1"), reg("e", b"2")])
    upper = as_tar([reg("d/new", b"3"), reg("d/.wh..wh..opq", b""), reg("e", b"4"), reg(".wh.e")])
    assert contents(merged(lower, upper)) == {"d/new": b"3", "e": b"4"}


def test_what_replaces_what() -> None:
    lower = as_tar(
        [directory("d", mode=0o700), reg("d/x", b"1"), reg("f", b"2"), symlink("s", "d")]
    )
    meta = merged(lower, as_tar([directory("d", mode=0o711)]))
    assert members(meta)["d"].mode == 0o711 and contents(meta)["d/x"] == b"1"
    file = merged(lower, as_tar([reg("d", b"3")]))
    assert contents(file) == {"d": b"3", "f": b"2"}
    folder = merged(lower, as_tar([reg("f/below", b"4"), directory("s")]))
    assert sorted(members(folder)) == ["d", "d/x", "f/below", "s"]
    assert members(folder)["s"].isdir()


def test_names_written_in_other_ways() -> None:
    lower = layer_of(
        info("./", tarfile.DIRTYPE, mode=0o700), (info("./a"), b"1"), (info("b"), b"2")
    )
    upper = layer_of((info("/a"), b"3"), info("./b", tarfile.DIRTYPE), (info("x/../c"), b"4"))
    tar = merged(lower, upper)
    with converted(tar) as layer:
        tree = Tree([layer])
        assert {item.path for item in tree.scandir(recursive=True)} == {"a", "b", "c"}
        assert tree.read("a") == b"3" and tree.stat("b").is_dir()
        assert stat.S_IMODE(tree.stat("").mode) == 0o700


def test_an_entry_that_stands_twice() -> None:
    once = layer_of((info("a"), b"first"), info("l", tarfile.LNKTYPE, "a"), (info("a"), b"second"))
    assert contents(merged(once)) == {"l": b"first", "a": b"second"}


def test_seekable_layers_lose_their_toc_and_landmarks(data: Path) -> None:
    blob = (data / "prioritized.esgz").read_bytes()
    plain = (data / "prioritized.tar").read_bytes()
    tar = merged(blob)
    assert not {"stargz.index.json", ".prefetch.landmark"} & set(members(tar))
    assert contents(tar) == contents(plain)


def test_every_golden_tar_stays_what_it_is(goldens: list[dict[str, Any]], data: Path) -> None:
    for name in {golden["tar"] for golden in goldens} - {"empty.tar", "whiteouts.tar"}:
        tar = (data / name).read_bytes()
        with converted(tar) as before, converted(merged(tar)) as after:
            assert view([after]) == view([before]), name
    white = (data / "whiteouts.tar").read_bytes()
    with converted(white) as before, converted(merged(white)) as after:
        assert view([after]) == view([before])


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_xattrs(form: int) -> None:
    long = "directory/" * 20 + "file"
    xattrs = {"SCHILY.xattr.user.k": "value"} if form == tarfile.PAX_FORMAT else {}
    lower = layer_of(
        (info("a", pax_headers=xattrs), b"1"),
        info(long, tarfile.LNKTYPE, "a"),
        info("z" * 150, tarfile.LNKTYPE, long),
        info("soft", tarfile.SYMTYPE, "t" * 180),
        info("hard", tarfile.LNKTYPE, "soft"),
        form=form,
    )
    tar = merged(lower, layer_of((info(".wh.a"), b""), (info(".wh.soft"), b"")))
    found = members(tar)
    assert found[long].isreg() and contents(tar)[long] == b"1"
    assert found["z" * 150].linkname == long
    assert found["hard"].issym() and found["hard"].linkname == "t" * 180
    if xattrs:
        assert found[long].pax_headers["SCHILY.xattr.user.k"] == "value"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("length", [5, 150])
def test_names_that_are_not_utf8(form: int, length: int) -> None:
    name = os.fsdecode(b"\xff" * length)
    lower = layer_of(
        (info("a"), b"1"), info(name, tarfile.LNKTYPE, "a"), (info("k"), b"2"), form=form
    )
    tar = merged(lower, layer_of((info(".wh.a"), b"")))
    with converted(tar) as layer:
        assert layer.read("\ufffd" * length) == b"1"
    assert (b"\xff" * min(length, 100)) in tar


def global_header(**records: str) -> bytes:
    return tarfile.TarInfo.create_pax_global_header(records)


def test_global_headers_hold_for_their_layer_alone() -> None:
    end = bytes(2 * BLOCK)
    lower = global_header(uid="4711", **{"SCHILY.xattr.user.g": "all"})
    lower += layer_of((info("a"), b"1"), (info("b", uid=3, pax_headers={"uid": "3"}), b"2"))
    upper = layer_of((info("c"), b"3"), (info(".wh.nothing"), b""))
    tar = merged(lower, upper)
    with converted(tar) as layer:
        assert (layer.entry("a").uid, layer.entry("b").uid, layer.entry("c").uid) == (4711, 3, 0)
        assert layer.entry("a").xattrs == {"user.g": b"all"} and not layer.entry("c").xattrs
    plain = layer_of((info("a"), b"1"))
    assert merged(global_header(comment="a commit") + plain) == merged(plain)
    with pytest.raises(TarError, match="'path' in a PAX global header"):
        merged(global_header(path="x") + plain + end)


SPARSE = {
    "gnu": ["--format=gnu"],
    "oldgnu": ["--format=oldgnu"],
    "0.0": ["--format=pax", "--sparse-version=0.0"],
    "0.1": ["--format=pax", "--sparse-version=0.1"],
    "1.0": ["--format=pax", "--sparse-version=1.0"],
}


@pytest.mark.parametrize("kind", SPARSE)
def test_sparse_files(kind: str, tool: Callable[[str], str], tmp_path: Path) -> None:
    """As they are, and under another name when the first one is gone."""
    with (tmp_path / "sparse").open("wb") as file:
        for at in range(0, 40 << 20, 1 << 20):  # more holes than fit into one header
            file.seek(at)
            file.write(noise(str(at), 4096))
        file.truncate(50 << 20)
    os.link(tmp_path / "sparse", tmp_path / "two")
    command = [tool("tar"), "-c", "--sparse", *SPARSE[kind], "-C", str(tmp_path), "sparse", "two"]
    lower = subprocess.run(command, capture_output=True, check=True).stdout
    expected = (tmp_path / "sparse").read_bytes()
    assert len(lower) < 1 << 20
    tar = merged(lower, layer_of((info("other"), b"1")))
    assert len(tar) < 1 << 20
    with converted(tar) as layer:
        assert layer.read("sparse") == layer.read("two") == expected
    tar = merged(lower, layer_of((info(".wh.sparse"), b"")))
    with converted(tar) as layer:
        assert [name for name in layer.names() if "landmark" not in name] == ["two"]
        assert layer.read("two") == expected


# --- inputs -------------------------------------------------------------------------------------


def test_wrappings_and_readers() -> None:
    tars = [as_tar([reg(name, noise(name, 300_000))]) for name in ("a", "b", "c")]
    expected = merged(*tars)
    packed = [tars[0], gzip.compress(tars[1][:700]) + gzip.compress(tars[1][700:])]
    packed.append(zstandard.compress(tars[2]))
    with merged_tar([io.BytesIO(data) for data in packed]) as tar:
        pieces = list(iter(lambda: tar.read(777), b""))
    assert b"".join(pieces) == expected and {len(piece) for piece in pieces[:-1]} == {777}
    assert sorted(contents(expected)) == ["a", "b", "c"]


def test_a_tar_without_its_last_padding() -> None:
    tar = layer_of((info("a"), b"abc"))[: BLOCK + 3]
    assert contents(merged(tar, layer_of((info("b"), b"d")))) == {"a": b"abc", "b": b"d"}
    assert contents(merged(layer_of((info("b"), b"d")), tar)) == {"a": b"abc", "b": b"d"}


def test_no_temporary_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # others' files come and go in /tmp
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(TarError):
        merged(as_tar([reg("a", b"1")]), b"not a tar" * 100)
    assert not list(tmp_path.iterdir())
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(".")
    full = type(usage)(usage.total, usage.total, min(usage.total // 100, 1 << 29))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    large = as_tar([reg("a", bytes(17 << 20))])
    with pytest.raises(SourceError, match="TMPDIR"):
        merged(large)
    # What is small fits: the share that is left free is no reason to refuse it.
    assert contents(merged(as_tar([reg("a", b"1")]))) == {"a": b"1"}
    # Nor is a share of a large disk.
    much = type(usage)(100 << 40, 100 << 40, 2 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: much)
    assert contents(merged(large)) == {"a": bytes(17 << 20)}


# --- hostile tars -----------------------------------------------------------------------------


def damaged(tar: bytes, at: int, data: bytes, *, check: bool = True) -> bytes:
    """A tar with other bytes at a place of its first header, whose checksum is right again."""
    header = bytearray(tar[:BLOCK])
    header[at : at + len(data)] = data
    if check:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + tar[BLOCK:]


GOOD = layer_of((info("a"), b"abc"), (info("b"), b"def"))
HOSTILE = {
    "no tar": (b"x" * 2048, "checksum"),
    "checksum": (damaged(GOOD, 0, b"z", check=False), "checksum"),
    "second header": (GOOD[:1024] + b"!" + GOOD[1025:], "checksum"),
    "truncated": (GOOD[: 3 * BLOCK + 1], "truncated"),
    "in a header": (GOOD[: 2 * BLOCK + 100], "truncated"),
    "huge size": (damaged(GOOD, 124, b"\x80" + b"\xff" * 11), "not a number"),
    "negative size": (damaged(GOOD, 124, b"\xff" * 12), "range"),
    "size": (damaged(GOOD, 124, b"99999999999\0"), "not a number"),
    "kind": (damaged(GOOD, 156, b"V"), "type"),
    "long without end": (damaged(GOOD, 124, b"77777777777\0")[:156], "before a first header"),
    "link to nothing": (layer_of(info("l", tarfile.LNKTYPE, "no")), "not there"),
    "link to a directory": (
        layer_of(info("d", tarfile.DIRTYPE), info("l", tarfile.LNKTYPE, "d")),
        "a directory",
    ),
    "file as directory": (layer_of((info("a"), b"1"), (info("a/b"), b"2")), "used as a directory"),
    "root": (layer_of(info(".", tarfile.SYMTYPE, "x")), "root"),
    "depth": (layer_of((info("a/" * 5000 + "b"), b"1")), "more than 4096 directories"),
    "records": (b"", "malformed PAX record"),
}


def test_below_symlinks_of_the_layer() -> None:
    """A layer's entries go where its own symlinks lead, and stay there when those are replaced."""
    base = layer_of(info("d", tarfile.DIRTYPE), (info("d/old"), b"0"), (info("d/gone"), b"0"))
    top = layer_of(
        info("d", tarfile.DIRTYPE), info("s", tarfile.SYMTYPE, "/d"), (info("s/new"), b"1"),
        info("s/.wh.gone"), info("h", tarfile.LNKTYPE, "s/new"),
    )  # fmt: skip
    found = members(merged(base, top))
    assert set(found) == {"d", "d/old", "d/new", "s", "h"}
    assert found["h"].linkname == "d/new"
    last = layer_of(info("s", tarfile.DIRTYPE), (info("s/f"), b"2"))
    assert set(members(merged(base, top, last))) == {"d", "d/old", "d/new", "s", "s/f", "h"}
    with pytest.raises(TarError, match="more than 40 symlinks"):
        merged(layer_of(info("s", tarfile.SYMTYPE, "s"), (info("s/f"), b"1")))


def test_whiteouts_below_a_file_of_the_layer() -> None:
    base = layer_of(info("d", tarfile.DIRTYPE), (info("d/a"), b"0"))
    file, gone = (info("d"), b"1"), info("d/.wh.a")
    for top in (layer_of(file, gone), layer_of(gone, file)):
        found = members(merged(base, top))
        assert {name: member.type for name, member in found.items()} == {"d": tarfile.REGTYPE}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tars(name: str) -> None:
    data, says = HOSTILE[name]
    if name == "records":
        body = b"99999999999999999999 path=x\n".ljust(BLOCK, b"\0")
        data = damaged(layer_of((info("x"), body)), 156, b"x")[: 2 * BLOCK] + GOOD
    with pytest.raises(TarError, match=says) as caught:
        merged(as_tar([reg("good", b"1")]), data)
    assert "\n" not in str(caught.value) and caught.value.source == "layer 2"


def test_damaged_gzip() -> None:
    with pytest.raises(GzipError, match="truncated"):
        merged(gzip.compress(GOOD)[:-9])


def test_any_flipped_byte_is_an_error_or_harmless() -> None:
    tar = layer_of(
        (info("n" * 120, pax_headers={"SCHILY.xattr.user.a": "1"}), b"abc"),
        info("l", tarfile.LNKTYPE, "n" * 120),
    )
    for at in range(0, len(tar), 3):
        flipped = bytearray(tar)
        flipped[at] ^= 0x41
        try:
            found = merged(bytes(flipped))
        except TarError:
            continue
        assert len(found) % BLOCK == 0


def test_a_layer_of_no_bytes_adds_nothing() -> None:
    with merged_tar([io.BytesIO(GOOD), io.BytesIO(b""), io.BytesIO(gzip.compress(b""))]) as found:
        merged = found.read()
    with merged_tar([io.BytesIO(GOOD)]) as found:
        assert found.read() == merged
