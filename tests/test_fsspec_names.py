"""Every name that fsspec's base class has means the same in ours, and names may be paths."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pytest
from blobs import build, tar_of
from fsspec import AbstractFileSystem

import stargz
from stargz.fsspec import StargzFileSystem

PUBLIC = sorted(name for name in dir(AbstractFileSystem) if not name.startswith("_"))
CHANGED = [
    name
    for name in PUBLIC
    if inspect.getattr_static(AbstractFileSystem, name)
    is not inspect.getattr_static(StargzFileSystem, name)
]


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[Any]:
    fsspec.register_implementation("stargz", StargzFileSystem, clobber=True)
    path = tmp_path / "layer"
    path.write_bytes(build(tar_of([("d/f", b"text\n"), ("g", b"")])).data)
    with fsspec.filesystem("stargz", fo=path) as found:
        yield found
    StargzFileSystem.clear_instance_cache()


@pytest.mark.parametrize("name", PUBLIC)
def test_attributes_are_of_the_same_kind(fs: Any, name: str) -> None:
    theirs, ours = (
        inspect.getattr_static(cls, name) for cls in (AbstractFileSystem, StargzFileSystem)
    )
    assert callable(ours) == callable(theirs)
    assert callable(theirs) or type(ours) is type(theirs)
    assert name not in set(vars(fs)) - set(vars(AbstractFileSystem(skip_instance_cache=True)))


METHODS = [name for name in CHANGED if callable(getattr(StargzFileSystem, name))]


@pytest.mark.parametrize("name", METHODS)
def test_methods_take_what_those_of_the_base_take(name: str) -> None:
    ours = inspect.signature(getattr(StargzFileSystem, name))
    theirs = inspect.signature(getattr(AbstractFileSystem, name)).parameters.values()
    plain = [p for p in theirs if p.kind is p.POSITIONAL_OR_KEYWORD]
    ours.bind(*(p.name for p in plain))
    ours.bind(*(p.name for p in plain if p.default is p.empty))
    ours.bind(plain[0].name, **{p.name: None for p in plain[1:]})
    if any(p.kind is p.VAR_KEYWORD for p in theirs):
        ours.bind(*(p.name for p in plain), anything=None)


def test_tree_draws_a_tree(fs: Any) -> None:
    assert [line[4:] for line in fs.tree("").splitlines()] == ["d", "└── f", "g"]
    assert isinstance(fs.file_tree, stargz.Tree)
    assert fs.file_tree.listdir() == ["d", "g"]


def test_names_may_be_paths(fs: Any) -> None:
    path, folder = PurePosixPath("d/f"), PurePosixPath("d")
    assert fs.cat_file(path) == fs.cat(path) == b"text\n"
    assert fs.cat([path, PurePosixPath("g")]) == {"d/f": b"text\n", "g": b""}
    assert fs.cat_ranges([path], 0, 2) == [b"te"]
    assert fs.head(path, 3) == b"tex"
    with fs.open(path) as file:
        assert file.read() == b"text\n"
    assert fs.info(path)["name"] == "d/f"
    assert fs.ls(folder, detail=False) == fs.find(folder) == ["d/f"]
    assert [name for _, _, names in fs.walk(folder) for name in names] == ["f"]
    assert fs.exists(path) and fs.lexists(path) and fs.isfile(path) and fs.isdir(folder)
    assert not fs.islink(path)
    assert fs.size(path) == 5 and fs.du(folder) == 5
    assert fs.ukey(path) == fs.ukey("d/f")
    assert fs.modified(path) == fs.created(path)
    assert fs.glob(PurePosixPath("d/*")) == ["d/f"]


@pytest.mark.parametrize(
    "call",
    [
        lambda fs: fs.mkdir(path="n"),
        lambda fs: fs.mv(path1="g", path2="n"),
        lambda fs: fs.mv("g", "n"),
        lambda fs: fs.cp_file(path1="g", path2="n"),
        lambda fs: fs.touch(path="n"),
        lambda fs: fs.rm("g"),
        lambda fs: fs.rm_file(path="g"),
        lambda fs: fs.pipe_file("n", b""),
        lambda fs: fs.makedirs("n"),
        lambda fs: fs.rmdir("d"),
        lambda fs: fs.open("n", "wb"),
    ],
)
def test_what_writes_is_refused(fs: Any, call: Any) -> None:
    with pytest.raises(OSError) as caught:
        call(fs)
    assert caught.value.errno == errno.EROFS
