"""What those expect of an open layer who know zipfile, tarfile and the stat module."""

from __future__ import annotations

import ast
import gzip
import hashlib
import importlib
import io
import json
import pydoc
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import blobs
import layouts
import pytest

import stargz
from stargz.layer import Layer, VerifyResult
from stargz.oci.image import open_image
from stargz.oci.verify.image import ImageVerifyResult
from stargz.toc import MARKERS
from stargz.tree import Tree

DATA = Path(__file__).parent / "data"
TREE = DATA / "tree.esgz"
DOOR = Path(stargz.__file__)


@pytest.fixture
def layer() -> Any:
    """One with a root entry, a whiteout, and everything that a layer has of its own."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as out:
        for name in ("./", "etc/"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            out.addfile(entry)
        for name, data in [("etc/hosts", b"here\n"), ("etc/.wh.passwd", b""), ("j", b'{"a": [1]}')]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
        for name, kind in [("fifo", tarfile.FIFOTYPE), ("tty", tarfile.CHRTYPE)]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o4600
            out.addfile(entry)
        for name, kind in [("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, "etc/hosts", 0o777
            out.addfile(entry)
    data = io.BytesIO()
    stargz.convert(tar.getvalue(), data, prioritized=["j"])
    with stargz.open(data.getvalue()) as opened:
        yield opened


# --- what the package shows -----------------------------------------------------------------


def test_names_are_imported_from_where_the_types_are() -> None:
    (block,) = [node for node in ast.parse(DOOR.read_text()).body if isinstance(node, ast.If)]
    homes = {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert sorted([*homes, "__version__"]) == sorted(stargz.__all__) == dir(stargz)
    for name, home in homes.items():
        found = getattr(stargz, name)
        assert found is getattr(importlib.import_module(home), name)


def test_a_function_is_never_hidden_by_a_module() -> None:
    """`stargz.bulk` stays the function when stargz.oci.bulk, or anything else, is imported."""
    code = """
import importlib, pkgutil, types, stargz, stargz.oci.bulk
for info in pkgutil.walk_packages(stargz.__path__, "stargz."):
    if info.name != "stargz.__main__":
        importlib.import_module(info.name)
modules = {name for name in stargz.__all__ if isinstance(getattr(stargz, name), types.ModuleType)}
assert modules == {"errors", "mount"}, modules
assert stargz.bulk is stargz.oci.bulk.bulk
assert callable(stargz.mount.mount)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_shows_images() -> None:
    shown = pydoc.plain(pydoc.render_doc(stargz))
    for name in ("open_image", "convert_image", "bulk", "class Image", "class Tree"):
        assert name in shown


# --- what is iterated ---------------------------------------------------------------------


def test_iteration_is_over_the_files(layer: Layer) -> None:
    assert list(layer) == ["j", "etc", "etc/hosts", "etc/.wh.passwd", "fifo", "tty", "link", "hard"]
    assert len(layer) == len(list(layer)) == 8
    assert layer.listdir() == ["etc", "fifo", "hard", "j", "link", "tty"]
    assert layer.listdir("./") == layer.listdir("/") == layer.listdir()
    assert layer.listdir("etc") == [".wh.passwd", "hosts"]


def test_look_ups_and_names_are_whole(layer: Layer) -> None:
    assert set(layer.names()) - set(layer) == {"", ".prefetch.landmark"}
    assert "" in layer and ".prefetch.landmark" in layer
    assert layer.entry("").type == "dir"
    assert layer.entry(".prefetch.landmark").size == 1
    assert layer.read(".prefetch.landmark") == b"\x0f"
    assert len(layer.toc) == len(layer.names()) == 10
    assert ".prefetch.landmark" in layer.toc.listdir()


@pytest.mark.parametrize("marker", MARKERS)
def test_marker_names_below_the_root_are_files(marker: str) -> None:
    made = blobs.build(blobs.tar_of([(f"d/{marker}", b"x"), ("f", b"")]))
    with stargz.open(made.data) as layer:
        assert f"d/{marker}" in list(layer)
        assert layer.listdir("d") == [marker]
        assert len(layer) == len(list(layer))
        assert not {*layer.listdir(), *layer} & {*MARKERS, ""}


def test_every_golden_layer_has_one_length(goldens: list[dict[str, Any]]) -> None:
    for case in goldens:
        if case["kind"] == "gzip":
            with stargz.open(DATA / case["blob"]) as layer:
                assert len(layer) == len(list(layer))
                assert set(layer) == set(layer.names()) - {*MARKERS, ""}


# --- names that are paths -----------------------------------------------------------------


class Named:
    """Another PathLike."""

    def __init__(self, name: str | bytes) -> None:
        self.name = name

    def __fspath__(self) -> str | bytes:
        return self.name


@pytest.mark.parametrize("path", [PurePosixPath, Named])
def test_names_may_be_paths(layer: Layer, path: Callable[[str], Any]) -> None:
    toc, name = layer.toc, path("j")
    assert name in toc
    assert path("nope") not in toc
    assert toc.entry(name) == toc.resolve(name) == toc.entry("j")
    assert toc.row(name) == toc.row("j")
    assert toc.chunks(name) == toc.chunks("j")
    assert not toc.is_dir(name) and toc.is_dir(path("etc"))
    assert toc.listdir(path("etc")) == toc.listdir("etc")
    assert toc.children(path("etc")) == toc.children("etc")
    out = io.BytesIO()
    tar = blobs.tar_of([("a/x", b"1"), ("b", b"2"), ("c", b"3")])
    result = stargz.convert(tar, out, prioritized=[path("c"), "nope"], allow_missing=True)
    assert result.missing == ("nope",)
    with stargz.open(out.getvalue()) as made:
        assert next(iter(made)) == "c"


@pytest.mark.parametrize("one", ["j", b"j", PurePosixPath("j")])
def test_one_name_is_no_list(one: Any) -> None:
    with pytest.raises(stargz.UsageError, match="prioritized is a list of names, not one name"):
        stargz.convert(blobs.tar_of([("j", b"")]), io.BytesIO(), prioritized=one)


def test_what_is_no_name(layer: Layer) -> None:
    for wrong in (b"j", 7, None, Named(b"j")):
        with pytest.raises(stargz.UsageError, match="a name is a string or a path"):
            layer.toc.entry(wrong)  # type: ignore[arg-type]
        with pytest.raises(stargz.UsageError, match="a name is a string or a path"):
            stargz.convert(b"", io.BytesIO(), prioritized=[wrong])  # type: ignore[list-item]
    assert 7 not in layer.toc and b"j" not in layer.toc


# --- modes --------------------------------------------------------------------------------


def test_st_mode_is_what_the_stat_module_takes(layer: Layer) -> None:
    shown = {entry.name: stat.filemode(entry.st_mode) for entry in layer.toc}
    assert shown["etc"] == "drwxrwxrwt"
    assert shown["j"] == shown["etc/.wh.passwd"] == "-rw-r--r--"
    assert (shown["fifo"], shown["tty"]) == ("prwS------", "crwS------")
    assert shown["link"] == "lrwxrwxrwx"
    assert shown["hard"] == "-rwxrwxrwx"
    assert stat.S_ISDIR(layer.entry("").st_mode)
    assert layer.entry("etc").mode == 0o1777  # as the tar has it
    with stargz.open(DATA / "implied_dirs.esgz") as other:
        assert other.entry("x").st_mode == stat.S_IFDIR | 0o755
        tree = Tree([other])
        assert tree.stat("x").st_mode == tree.stat("x").mode == tree.entry("x").st_mode


# --- verification -------------------------------------------------------------------------


def test_a_verification_is_as_true_as_it_is_ok(layer: Layer) -> None:
    assert layer.verify()
    for kind in (VerifyResult, ImageVerifyResult):
        assert bool(kind(True, 0, 0, 0)) is True
        assert bool(kind(False, 0, 0, 0)) is False
    spoilt = bytearray(TREE.read_bytes())
    spoilt[20] ^= 0xFF
    with stargz.open(bytes(spoilt)) as other:
        assert not other.verify()


# --- closed -------------------------------------------------------------------------------


def every_method(layer: Layer) -> list[Callable[[], object]]:
    entry = layer.toc.row("setuid")
    return [
        layer.names,
        lambda: list(layer),
        lambda: iter(layer),
        lambda: len(layer),
        lambda: "setuid" in layer,
        lambda: layer.entry("setuid"),
        lambda: layer.isdir(""),
        layer.listdir,
        lambda: layer.chunks("setuid"),
        lambda: layer.read("setuid"),
        lambda: layer.read_row(entry),
        lambda: layer.read_rows([]),
        lambda: layer.read_rows([(entry, 0, 1)] * 2),
        lambda: layer.open("setuid"),
        lambda: layer.open_row(entry, "setuid"),
        layer.read_toc,
        lambda: list(layer.iter_toc()),
        layer.uncompressed_size,
        layer.verify,
        lambda: layer.extractall("/nonexistent/never-made"),
        lambda: layer.extractall("/nonexistent/never-made", members=[]),
        layer.__enter__,
    ]


def test_closed(tmp_path: Path) -> None:
    layer = stargz.open(TREE)
    calls = every_method(layer)
    file = layer.open("setuid")
    tree = Tree([layer])
    assert not layer.closed
    assert repr(layer) == f"<stargz.Layer {str(TREE)!r} (estargz)>"
    layer.close()
    layer.close()
    assert layer.closed
    assert repr(layer) == f"<stargz.Layer {str(TREE)!r} (estargz, closed)>"
    calls += [
        lambda: file.read(1),
        lambda: tree.read("setuid"),
        lambda: tree.open("setuid"),
        lambda: tree.stat("setuid"),
        lambda: tree.exists("setuid"),
        lambda: tree.isdir(""),
        lambda: tree.listdir(),
        lambda: list(tree.walk()),
        lambda: list(tree.entries()),
        lambda: tree.readlink("setuid"),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(ValueError, match="closed") as caught:
            call()
        assert str(TREE) in str(caught.value), number
    with pytest.raises(ValueError, match="closed"), layer:
        pass
    assert "closed" not in repr(file)
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        file.read()
    repr(tree)


def test_leaving_the_block_closes(layer: Layer) -> None:
    with stargz.open(TREE) as opened:
        assert not opened.closed
    assert opened.closed


# --- files as other libraries use them ----------------------------------------------------


def test_files_as_other_libraries_use_them(layer: Layer, tmp_path: Path) -> None:
    assert json.load(layer.open("j")) == {"a": [1]}
    with layer.open("etc/hosts") as file, (tmp_path / "copy").open("wb") as copy:
        shutil.copyfileobj(file, copy)
    assert (tmp_path / "copy").read_bytes() == b"here\n"
    with io.TextIOWrapper(layer.open("etc/hosts"), encoding="ascii") as text:
        assert text.readlines() == ["here\n"]
    with layer.open("etc/hosts") as file:
        assert file.readable() and file.seekable() and not file.writable()
        assert (file.name, file.mode) == ("etc/hosts", "rb")
        assert list(file) == [b"here\n"]


def test_modes_are_those_of_reading(layer: Layer) -> None:
    tree = Tree(layer)
    for mode in ("r", "rb"):
        for opened in (layer.open("j", mode), tree.open("j", mode=mode)):  # type: ignore[arg-type]
            assert opened.read() == b'{"a": [1]}'
    for mode in ("w", "rt", "a", "r+b", ""):
        for call in (layer.open, tree.open):
            with pytest.raises(stargz.UsageError, match="files of a layer are read, as bytes"):
                call("j", mode)  # type: ignore[arg-type]


def test_other_readers_take_the_files(tmp_path: Path) -> None:
    inner = blobs.tar_of([("deep", b"inside")])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("z", b"zipped")
    tar = blobs.tar_of(
        [("t.tar", inner), ("t.gz", gzip.compress(inner)), ("t.zip", packed.getvalue())]
    )
    with stargz.open(blobs.build(tar).data) as layer:
        for name in ("t.tar", "t.gz"):
            with tarfile.open(fileobj=layer.open(name)) as found:
                member = found.extractfile("deep")
                assert member is not None and member.read() == b"inside"
        with zipfile.ZipFile(layer.open("t.zip")) as unpacked:
            assert unpacked.read("z") == b"zipped"
        digest = hashlib.file_digest(layer.open("t.tar"), "sha256").hexdigest()
        assert digest == hashlib.sha256(inner).hexdigest()


def test_a_tree_of_one_layer_and_what_is_in_it(layer: Layer) -> None:
    tree = Tree(layer)
    assert tree.layers == (layer,)
    assert "etc/hosts" in tree and PurePosixPath("/etc") in tree and "" in tree
    assert "etc/passwd" not in tree and 7 not in tree
    with pytest.raises(stargz.UsageError, match="of open layers"):
        Tree(["name"])  # type: ignore[list-item]


def test_extracting_is_here_by_default(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layer.extractall(members=["j"])
    assert (tmp_path / "j").read_bytes() == b'{"a": [1]}'


def test_a_missing_name_is_a_key_error_that_reads_well(layer: Layer) -> None:
    with pytest.raises(KeyError) as caught:
        layer.read("nope")
    assert str(caught.value) == "<bytes>: no entry 'nope' in the layer"


# --- images -------------------------------------------------------------------------------


def test_images_close_too(tmp_path: Path) -> None:
    tars = [blobs.tar_of([("etc/a", text)]) for text in (b"lower", b"upper")]
    name = f"oci:{layouts.image(tmp_path / 'layout', tars).path}"
    with open_image(name) as image:
        assert not image.closed
        assert repr(image).endswith("(2 layers)>")
        assert image.tree.read("etc/a") == b"upper"
        tree = image.tree
    assert image.closed
    image.close()
    assert repr(image).endswith("(2 layers, closed)>")
    for call in (
        image.__enter__,
        lambda: image.config,
        lambda: image.open_source(0),
        lambda: image.external_toc("sha256:" + 64 * "0", 1 << 20),
        lambda: image.layers[0].read("etc/a"),
        lambda: tree.read("etc/a"),
        lambda: tree.listdir(),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_images_take_the_same_words(tmp_path: Path) -> None:
    """Layout and registries by keywords, as `stargz.convert` and `open_image` do; or in one."""
    src = f"oci:{layouts.image(tmp_path / 'src', [blobs.tar_of([('a', b'1'), ('b', b'2')])]).path}"
    dst = f"oci:{tmp_path / 'dst'}"
    alike = [
        stargz.convert_image(src, f"{dst}:1", level=2, prioritized=[PurePosixPath("b")]),
        stargz.convert_image(
            src,
            f"{dst}:2",
            options=stargz.LayerOptions(level=2, prioritized=[PurePosixPath("b")]),  # type: ignore[arg-type]
        ),
    ]
    assert alike[0].digest == alike[1].digest
    with stargz.open_image(f"{dst}:1", plain_http=True) as image:
        assert next(iter(image.layers[0])) == "b"
    access = stargz.Access.of(authfile=tmp_path / "auth.json")
    for call in (stargz.convert_image, stargz.bulk):
        with pytest.raises(stargz.UsageError, match="options has the layout"):
            call(src, f"{dst}:3", options=stargz.LayerOptions(), level=2)
        with pytest.raises(stargz.UsageError, match="access has them all: give it, or authfile"):
            call(src, f"{dst}:3", access=access, authfile="other")
        with pytest.raises(stargz.UsageError, match="list of names, not one"):
            call(src, f"{dst}:3", prioritized="b")
    assert stargz.bulk(tmp_path / "src", f"oci:{tmp_path / 'all'}", chunk_size=1 << 20).ok
    assert stargz.verify_image(f"{dst}:1", plain_http=True)


@pytest.mark.parametrize(
    "call",
    [
        lambda path: stargz.open_image(path),
        lambda path: stargz.verify_image(path),
        lambda path: stargz.convert_image(path, "oci:x"),
        lambda path: stargz.convert_image("oci:x", path),
    ],
)
def test_a_path_is_no_image(call: Callable[[Any], Any], tmp_path: Path) -> None:
    with pytest.raises(stargz.UsageError, match="is not an image: give docker://"):
        call(tmp_path)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("open_image", 1),
        ("extract_image", 1),
        ("diff_images", 2),
        ("convert_image", 2),
        ("verify_image", 1),
        ("bulk", 2),
    ],
)
def test_an_unknown_keyword_is_told_of_the_function_that_was_called(name: str, places: int) -> None:
    function = getattr(stargz, name)
    for keyword in ("accounts", "platform_a", "max_bytes"):
        with pytest.raises(TypeError, match=rf"^{name}\(\) got .*'{keyword}'"):
            function(*["oci:nowhere"] * places, **{keyword: None})
