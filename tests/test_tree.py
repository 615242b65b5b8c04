"""The tree of layers against a plain applier, umoci, and what the layers were made of."""

from __future__ import annotations

import base64
import collections
import errno
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import handmade
import pytest
from blobs import varied_tar
from handmade import directory, hardlink, reg, symlink
from hypothesis import given, settings
from stacks import OPAQUE, Layer, applied, as_tar, layers, names_of, stacks

import stargz
from stargz.errors import EntryNotFoundError, UsageError
from stargz.tree import Stat, Tree, Whiteouts


@contextmanager
def tree_of(*stack: Layer, whiteouts: Whiteouts = "apply") -> Iterator[Tree]:
    with ExitStack() as opened:
        yield Tree(
            [opened.enter_context(stargz.open(handmade.blob(layer))) for layer in stack],
            whiteouts,
            "stack",
        )


def listing(tree: Tree) -> dict[str, Stat]:
    found = {item.path: item for item in tree.scandir(recursive=True)}
    return {"": tree.stat(""), **found}


# --- merging ----------------------------------------------------------------------------------


@given(stacks())
@settings(max_examples=400, deadline=None)
def test_a_stack_is_what_applying_its_layers_gives(stack: list[Layer]) -> None:
    expected = names_of(applied(stack))
    with tree_of(*stack) as tree:
        found = listing(tree)
        assert set(found) == set(expected)
        assert len(tree) == len(found)
        inodes: dict[Any, set[int]] = collections.defaultdict(set)
        names = collections.Counter(id(node) for node in expected.values())
        for path, node in expected.items():
            item, entry = found[path], node.entry or {}
            assert item.type == node.kind
            assert stat.S_IMODE(item.mode) == (entry.get("mode", 0) if entry else 0o755)
            assert item.uid == entry.get("uid", 0)
            assert (item.major, item.minor) == (entry.get("devMajor", 0), entry.get("devMinor", 0))
            if entry:
                assert item.layer == node.layer
            if node.kind == "dir":
                assert item.nlink == 2 + sum(kid.kind == "dir" for kid in node.kids.values())
                assert tree.listdir(path) == sorted(node.kids)
            else:
                assert item.nlink == names[id(node)]
            if node.kind == "reg":
                assert tree.read(path) == entry["content"]
            assert item.target == entry.get("linkName", "")
            inodes[id(node)].add(item.ino)
        assert all(len(of_one) == 1 for of_one in inodes.values())
        assert len(set().union(*inodes.values())) == len(inodes) == tree.inodes
        reg_sizes = {id(n): len(n.entry["content"]) for n in expected.values() if n.kind == "reg"}
        assert tree.size == sum(reg_sizes.values())


@given(stacks(names="abcd", most=14))
@settings(max_examples=40, deadline=None)
def test_a_stack_is_what_umoci_unpacks(tool: Callable[[str], str], stack: list[Layer]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        compare_with_umoci(tool("umoci"), Path(folder), stack)


def compare_with_umoci(umoci: str, tmp_path: Path, stack: list[Layer]) -> None:
    stack = [for_umoci(layer) for layer in stack]
    image(tmp_path / "image", [as_tar(layer) for layer in stack])
    command = [umoci, "unpack", "--rootless", "--image", f"{tmp_path}/image:latest"]
    done = subprocess.run([*command, tmp_path / "bundle"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rootfs = tmp_path / "bundle" / "rootfs"
    expected = {}
    for folder, folders, files in os.walk(rootfs):
        for name in folders + files:
            path = Path(folder, name)
            info = path.lstat()
            body: Any = info.st_nlink
            if stat.S_ISREG(info.st_mode):
                body = path.read_bytes(), info.st_nlink
            elif stat.S_ISLNK(info.st_mode):
                body = os.readlink(path)  # noqa: PTH115
            expected[str(path.relative_to(rootfs))] = (stat.S_IFMT(info.st_mode), body)
    with tree_of(*stack) as tree:
        found = {}
        for item in tree.scandir(recursive=True):
            body = item.nlink
            if item.is_file():
                body = tree.read(item.path), item.nlink
            elif item.is_symlink():
                body = item.target
            found[item.path] = (stat.S_IFMT(item.mode), body)
    # Directories of some file systems count otherwise.
    for names_found in (found, expected):
        for path, (kind, _) in names_found.items():
            if kind == stat.S_IFDIR:
                names_found[path] = (kind, None)
    assert found == expected


def for_umoci(layer: Layer) -> Layer:
    """Without what needs root; links after what they lead to. umoci makes no directory for a
    whiteout alone (containerd does): each is listed."""
    kinds = {"char": "fifo"}
    files = [e | {"mode": 0o700, "type": kinds.get(e["type"], e["type"])} for e in layer]
    names = {e["name"] for e in files}
    above = {name[:i] for name in names for i, c in enumerate(name) if c == "/"}
    files += [directory(name, mode=0o700) for name in above - names]
    order = ["dir", "reg", "symlink", "fifo", "hardlink"]
    files.sort(key=lambda e: (order.index(e["type"]), e["name"] if e["type"] == "dir" else ""))
    return files


def image(folder: Path, tars: list[bytes]) -> None:
    """An OCI image layout of plain layers."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    found = [put(tar, "layer.v1.tar") for tar in tars]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in found]},
        "config": {},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": found,
    }
    top = put(json.dumps(manifest).encode(), "manifest.v1+json")
    top["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def test_the_uppermost_layer_that_lists_a_directory_gives_its_metadata() -> None:
    low = [directory("d", mode=0o700, uid=1), reg("d/a", b"low")]
    middle = [directory("d", mode=0o1777, uid=2)]
    high = [reg("d/b", b"high")]  # implies d
    with tree_of(low, middle, high) as tree:
        found = tree.stat("d")
        assert (stat.S_IMODE(found.mode), found.uid, found.layer) == (0o1777, 2, 1)
        assert tree.entry("d").mode == 0o1777
        assert [tree.layer_of(f"d/{name}") for name in tree.listdir("d")] == [0, 2]


def test_a_type_change_hides_what_was_below() -> None:
    low = [directory("d"), reg("d/x"), reg("f", b"file")]
    with tree_of(low, [reg("d", b"now a file"), reg("f/x", b"now a directory")]) as tree:
        assert tree.listdir() == ["d", "f"]
        assert tree.read("d") == b"now a file"
        assert tree.listdir("f") == ["x"]
        assert stat.S_IMODE(tree.stat("f").mode) == 0o755
    with tree_of(low, [symlink("d", "elsewhere")], [reg("d/y")]) as tree:
        assert tree.listdir("d") == ["y"]


def test_a_whiteout_is_for_the_layers_below_alone() -> None:
    low = [reg("d/old"), reg("d/kept"), reg("gone/x")]
    high = [reg("d/.wh.old"), reg("d/old", b"new"), reg(".wh.gone"), reg(".wh.never")]
    with tree_of(low, high) as tree:
        assert tree.listdir() == ["d"]
        assert tree.listdir("d") == ["kept", "old"]
        assert tree.read("d/old") == b"new"
    with tree_of(low, [reg(".wh.d")], [reg("d/again")]) as tree:
        assert tree.listdir("d") == ["again"]


def test_an_opaque_directory_has_its_own_names_only() -> None:
    low = [directory("d", mode=0o700), reg("d/a"), reg("d/sub/b"), reg("e")]
    with tree_of(low, [reg(f"d/{OPAQUE}"), reg("d/c")]) as tree:
        assert tree.listdir("d") == ["c"]
        assert stat.S_IMODE(tree.stat("d").mode) == 0o700  # opaque is about contents
        assert tree.listdir() == ["d", "e"]
    with tree_of(low, [reg(OPAQUE)], [reg("x")]) as tree:
        assert tree.listdir() == ["x"]


def test_what_aufs_left_and_odd_whiteouts_hide_nothing() -> None:
    odd = [reg(".wh..wh.aufs"), directory(".wh..wh.plnk"), reg(".wh..wh.plnk/1.2"), reg(".wh."),
           reg("d/.wh.."), reg("d/.wh..."), reg(".wh.."), reg("-"), reg("0")]  # fmt: skip
    for mode in ("apply", "hide", "overlay"):
        with tree_of(odd, whiteouts=mode) as tree:
            assert tree.listdir() == ["-", "0", "d"]
            assert tree.listdir("d") == []
    with tree_of([reg("d/x"), reg("y")], odd) as tree:
        assert tree.listdir() == ["-", "0", "d", "y"]
        assert tree.listdir("d") == ["x"]


def test_hard_links_stay_within_their_layer() -> None:
    low = [reg("a", b"low"), hardlink("b", "a"), hardlink("c", "b")]
    with tree_of(low, [reg("a", b"high")]) as tree:
        assert [tree.read(name) for name in "abc"] == [b"high", b"low", b"low"]
        assert tree.stat("a").nlink == 1
        assert tree.stat("b").nlink == tree.stat("c").nlink == 2
        assert tree.stat("b").ino == tree.stat("c").ino != tree.stat("a").ino
        assert tree.entry("c").type == "hardlink"
        assert tree.entry("c").link_name == "b"
    with tree_of(low, [reg(".wh.a"), reg(".wh.b")]) as tree:
        assert tree.listdir() == ["c"]
        assert tree.read("c") == b"low"
        assert tree.stat("c").nlink == 1


# --- one layer --------------------------------------------------------------------------------


MARKED = [
    directory("d", mode=0o750), reg("d/.wh.gone"), reg(f"d/{OPAQUE}"), reg("d/kept", b"kept"),
    directory("both"), reg(".wh.both"), reg("file", b"f"), reg(".wh.file"), reg(".wh.away"),
    reg("implied/.wh..x"), reg("implied/.wh.-"),
]  # fmt: skip


def test_raw_shows_whiteouts_as_they_are() -> None:
    with tree_of(MARKED, whiteouts="raw") as tree:
        listed = sorted(e["name"] for e in MARKED)
        assert sorted(item.path for item in tree.scandir(recursive=True)) == sorted(
            [*listed, "implied"]
        )
        assert tree.stat("d/.wh.gone").is_file()


def test_overlay_turns_whiteouts_into_what_overlayfs_stacks() -> None:
    with tree_of(MARKED, whiteouts="overlay") as tree:
        found = listing(tree)
        assert sorted(found) == [
            "", "away", "both", "d", "d/gone", "d/kept", "file", "implied", "implied/-",
            "implied/.x",
        ]  # fmt: skip
        for name in ("away", "d/gone", "implied/.x", "implied/-"):
            item = found[name]
            assert item.whiteout
            assert (stat.S_IFMT(item.mode), item.major, item.minor) == (stat.S_IFCHR, 0, 0)
            assert tree.stat(name) == item
            assert tree.entry(name).type == "char"
        for name in ("d", "both"):
            assert found[name].opaque
            assert tree.xattrs(name) == {
                "trusted.overlay.opaque": b"y", "user.overlay.opaque": b"y",
            }  # fmt: skip
        assert tree.xattrs("implied") == {}
        assert tree.read("file") == b"f"
        assert not found["file"].whiteout


@pytest.mark.parametrize("whiteouts", ["apply", "hide", "raw", "overlay"])
def test_a_layer_does_not_speak_for_overlayfs(whiteouts: Any) -> None:
    """What overlayfs notes in xattrs (a name elsewhere, data elsewhere) is its own."""
    own = {"user.mine": b"1", "trusted.overlays": b"2", "user.overlay": b"3"}
    forged = {
        f"{name}.overlay.{what}": b"y"
        for name in ("user", "trusted")
        for what in ("opaque", "redirect", "metacopy", "overlay.opaque", "")
    }
    xattrs = {key: base64.b64encode(value).decode() for key, value in (own | forged).items()}
    entry = {"name": "d", "type": "dir", "mode": 0o755, "xattrs": xattrs}
    with tree_of([entry], whiteouts=whiteouts) as tree:
        assert tree.xattrs("d") == (own | forged if whiteouts == "raw" else own)


@given(layers(most=12))
@settings(max_examples=200, deadline=None)
def test_views_of_one_layer_agree(layer: Layer) -> None:
    with tree_of(layer) as tree, tree_of(layer, whiteouts="hide") as hidden:
        assert listing(tree) == listing(hidden)
        plain = listing(tree)
    with tree_of(layer, whiteouts="overlay") as tree:
        shown = {path: item for path, item in listing(tree).items() if not item.whiteout}
        whiteouts = {path for path, item in listing(tree).items() if item.whiteout}
        assert set(shown) == set(plain)
        assert [path for path in whiteouts if f".wh.{path.rpartition('/')[2]}" not in
                {e["name"].rpartition("/")[2] for e in layer}] == []  # fmt: skip
        for node in range(len(tree)):
            assert tree.engine.find(tree.engine.path(node)) == node
            names = [tree.engine.name(kid).encode() for kid in tree.engine.children(node)]
            assert names == sorted(set(names))
    with tree_of(layer, whiteouts="raw") as tree:
        assert {e["name"] for e in layer} <= set(listing(tree))


def test_only_one_layer_can_be_shown_raw() -> None:
    with pytest.raises(UsageError, match="one layer; 2"), tree_of([], [], whiteouts="raw"):
        pass
    with pytest.raises(UsageError, match="sideways"):
        Tree([], "sideways")  # type: ignore[arg-type]
    assert Tree([]).listdir() == []


@pytest.mark.parametrize("whiteouts", ["apply", "hide", "raw", "overlay"])
def test_landmarks_and_toc_are_hidden_in_the_root(whiteouts: Whiteouts) -> None:
    own = [".prefetch.landmark", ".no.prefetch.landmark", "stargz.index.json"]
    layer = [reg(name, b"\x0f") for name in own] + [reg(f"d/{name}") for name in own]
    with tree_of(layer, whiteouts=whiteouts) as tree:
        assert tree.listdir() == ["d"]
        assert tree.listdir("d") == sorted(own)
        assert not tree.exists(".no.prefetch.landmark")
        whole = Tree(tree.layers, whiteouts, landmarks=True)
        assert whole.listdir() == sorted([*own, "d"])
        assert [whole.entry_of(node).name for node in whole.nodes()] == whole.listdir()


# --- metadata ---------------------------------------------------------------------------------


def test_stat_is_what_the_tar_has(tmp_path: Path) -> None:
    made = io.BytesIO()
    stargz.convert(io.BytesIO(varied_tar()), made)
    with (
        stargz.open(made.getvalue()) as layer,
        tarfile.open(fileobj=io.BytesIO(varied_tar())) as tar,
    ):
        tree = Tree([layer])
        kinds = {tarfile.LNKTYPE: "reg"}
        for info in tar:
            found = tree.stat(info.name, follow=False)
            assert found.type == kinds.get(info.type, handmade.TYPES[info.type])
            assert stat.S_IMODE(found.mode) == info.mode
            assert found.mtime == info.mtime
            assert (found.uid, found.gid) == (info.uid, info.gid)
            if not info.islnk():
                names = (found.user_name, found.group_name)
                assert names in ((info.uname, info.gname), ("root", "users"), ("user", "users"))
            if info.issym():
                assert found.target == tree.readlink(info.name) == info.linkname
                assert found.size == len(info.linkname)
            if info.isdev():
                assert (found.major, found.minor) == (info.devmajor, info.devminor)
            if info.isreg():
                file = tar.extractfile(info)
                assert file is not None
                assert tree.read(info.name) == file.read()
                assert found.size == info.size
            assert tree.entry(info.name) == layer.entry(info.name)
        assert tree.xattrs("d/x") == {"user.a": b"1"}
        assert tree.stat("d/hard").nlink == tree.stat("d/large").nlink == 2
        assert tree.stat("d/hard").ino == tree.stat("d/large").ino
        assert repr(tree) == f"<stargz.tree.Tree {layer.name!r}: {len(tree)} names>"


def test_link_targets_count_their_bytes() -> None:
    with tree_of([symlink("l", "zür")]) as tree:
        assert tree.stat("l", follow=False).size == 4
        assert tree.readlink("l") == "zür"


def test_mode_bits_come_from_the_type_and_huge_times_stay() -> None:
    layer = [reg("f", mode=0o100644 | 0o4000), directory("d", mode=0o170000 | 0o1777)]
    layer[0]["modtime"] = "9999-12-31T23:59:59Z"
    with tree_of(layer) as tree:
        assert tree.stat("f").mode == stat.S_IFREG | 0o4644
        assert tree.stat("d").mode == stat.S_IFDIR | 0o1777
        assert tree.stat("f").mtime == 253402300799


def test_numbers_of_nodes_depend_on_the_layers_alone() -> None:
    stack = [[reg("b/x"), reg("a"), hardlink("c", "a")], [reg("b/y"), reg("a/z")]]
    with tree_of(*stack) as one, tree_of(*[layer[::-1] for layer in stack]) as other:
        assert {p: s.ino for p, s in listing(one).items()} == {
            p: s.ino for p, s in listing(other).items()
        }


# --- paths ------------------------------------------------------------------------------------


LINKED = [
    reg("real/deep/file", b"here"), symlink("dir", "real/deep"), symlink("abs", "/dir/file"),
    symlink("real/up", "../dir/.."), symlink("out", "../../../real"), symlink("loop", "loop"),
    symlink("dangling", "no/where"), symlink("through", "real/deep/file/x"),
]  # fmt: skip


def test_links_are_followed_as_in_a_chroot() -> None:
    with tree_of(LINKED) as tree:
        for path in ("dir/file", "abs", "/abs", "out/deep/file", "real/up/deep/./file",
                     "dir/../deep/file", "../../real//deep/file"):  # fmt: skip
            assert tree.resolve(path) == "real/deep/file"
            assert tree.read(path) == b"here"
        assert tree.resolve("dir") == tree.resolve("dir/") == "real/deep"
        assert tree.resolve("dir", follow=False) == "dir"
        assert tree.resolve("dir/", follow=False) == "real/deep"
        assert tree.islink("dir")
        assert not tree.islink("dir/file")
        assert tree.isdir("dir")
        assert not tree.isfile("dir")
        assert tree.stat("dir", follow=False).type == "symlink"
        assert tree.lexists("dangling")
        assert not tree.exists("dangling")
        assert not tree.exists("loop")
        assert tree.listdir("dir") == ["file"]


def test_forty_links_are_followed_and_no_more() -> None:
    chain = [reg("0", b"end")] + [symlink(f"{n}", f"{n - 1}") for n in range(1, 42)]
    with tree_of(chain) as tree:
        assert tree.read("40") == b"end"
        with pytest.raises(OSError, match="more than 40 symlinks") as caught:
            tree.read("41")
        assert caught.value.errno == errno.ELOOP
        assert caught.value.filename == "stack: 41"


def test_errors_say_where() -> None:
    with tree_of(LINKED) as tree:
        with pytest.raises(EntryNotFoundError, match=r"stack: no entry 'nope' in the layer") as no:
            tree.stat("nope")
        assert no.value.name == no.value.looked_up == "nope"
        with pytest.raises(EntryNotFoundError, match=r"'dangling' .looked up as 'no'"):
            tree.read("dangling")
        with pytest.raises(NotADirectoryError, match=r"real/deep/file is no directory .*'through'"):
            tree.read("through")
        with pytest.raises(NotADirectoryError, match="'abs' is no directory"):
            tree.listdir("abs")
        with pytest.raises(IsADirectoryError, match="stack: 'dir' is a directory"):
            tree.read("dir")
        with pytest.raises(UsageError, match="'dir/file' is no symlink"):
            tree.readlink("dir/file")
        with pytest.raises(UsageError, match="offset is at least 0"):
            tree.read("abs", -1)
        for path in ("\ud800", "a\0b", ".." * 3, "x" * 70000):
            assert not tree.exists(path)
    with tree_of([{"name": "p", "type": "fifo"}]) as tree:
        assert tree.lexists("p")
        with pytest.raises(UsageError, match="'p' is of type fifo"):
            tree.open("p")


def test_walk_and_scandir_are_in_order() -> None:
    layer = [reg("b/y"), reg("b/x/1"), reg("a"), reg("b.c"), symlink("l", "b"), reg("b/x/0")]
    with tree_of(layer) as tree:
        assert list(tree.walk()) == [
            ("", ["b"], ["a", "b.c", "l"]), ("b", ["x"], ["y"]), ("b/x", [], ["0", "1"]),
        ]  # fmt: skip
        names = [item.path for item in tree.scandir(recursive=True)]
        assert names == ["a", "b", "b/x", "b/x/0", "b/x/1", "b/y", "b.c", "l"]
        assert [entry.name for entry in tree.entries("l")] == ["b/x", "b/y"]
        pruned = []
        for folder, folders, _ in tree.walk():
            pruned.append(folder)
            folders.clear()
        assert pruned == [""]


def test_depth_costs_no_recursion() -> None:
    deep = "/".join(["d"] * 2000)
    with tree_of([reg(f"{deep}/f", b"deep")]) as tree:
        assert tree.read(f"{deep}/f") == b"deep"
        assert sum(1 for _ in tree.nodes(recursive=True)) == 2001
        assert sum(1 for _ in tree.walk()) == 2001


def test_many_layers_merge() -> None:
    stack = [[reg("d/same", b"%d" % n), reg(f"d/{n}"), reg(f"d/.wh.{n - 7}")] for n in range(60)]
    with tree_of(*stack) as tree:
        assert tree.read("d/same") == b"59"
        assert len(tree.listdir("d")) == 8


# --- contents ---------------------------------------------------------------------------------


def test_read_many_is_read_of_each() -> None:
    low = [reg("a", bytes(range(200))), reg("b", b"b")]
    with tree_of(low, [reg("c", b"high"), symlink("l", "a")]) as tree:
        requests = [("c", 1, 2), ("a", 5, 10), ("l", 190, -1), ("b", 9, 4), ("c", 0, -1)]
        assert tree.read_many(requests) == [tree.read(*request) for request in requests]
        assert tree.read_many([]) == []
        with pytest.raises(EntryNotFoundError):
            tree.read_many([("a", 0, 1), ("nope", 0, 1)])


def test_open_seeks_and_is_named() -> None:
    layer = [reg("a", bytes(range(200))), hardlink("h", "a")]
    with tree_of(layer) as tree, tree.open("h") as file:
        file.seek(-3, io.SEEK_END)
        assert file.read() == bytes([197, 198, 199])
        assert file.raw.name == "h"


def test_any_number_of_threads_read() -> None:
    files = {f"f{n}": hashlib.sha256(b"%d" % n).digest() * n for n in range(40)}
    with tree_of([reg(name, data) for name, data in files.items()]) as tree:
        wrong: list[str] = []

        def work() -> None:
            for name, data in files.items():
                if tree.read(name) != data or tree.stat(name).size != len(data):
                    wrong.append(name)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
