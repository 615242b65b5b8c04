"""Where results go: the last argument or -o, for every command that writes a file; and what is
there already."""

from __future__ import annotations

import argparse
import importlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
from command import fails, ok, together

import stargz
from stargz.cli import COMMANDS
from stargz.durable import complete_or_absent

# Each command that writes: what it reads, and what its help calls the result.
WRITERS = {
    "convert": (["in.tar"], "DST"),
    "pack": (["tree"], "DST"),
    "delta": (["a", "b"], "PATCH"),
    "apply": (["a", "a-b.patch"], "NEW"),
    "index": (["in.tar"], "FILE"),
    "image convert": (["oci:layout"], "DST"),
    "image index": (["oci:layout"], "DST"),
    "image bulk": (["oci:layout"], "DST"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read, and a layer `a` to be there already."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "tree").mkdir()
    (folder / "tree/f").write_bytes(b"f")
    (folder / "in.tar").write_bytes(blobs.tar_of([("f", b"x")]))
    for name in ("a", "b"):
        stargz.convert(blobs.tar_of([("f", name.encode() * 1000)]), folder / name)
    stargz.delta(folder / "a", folder / "b", folder / "a-b.patch")
    layouts.image(folder / "layout", [folder / "in.tar"])
    return folder


def test_every_command_that_writes_is_here() -> None:
    """Those whose parser has DST."""
    from stargz.cli.image import COMMANDS as IMAGES

    found = set()
    for name in [*COMMANDS, *(f"image {name}" for name in IMAGES)]:
        module = importlib.import_module(f"stargz.cli.{name.replace(' ', '_')}")
        if hasattr(module, "add_arguments"):
            parser = argparse.ArgumentParser(add_help=False)
            module.add_arguments(parser)
            if {"dst", "output"} & {action.dest for action in parser._actions}:
                found.add(name)
    assert found == set(WRITERS)


@pytest.mark.parametrize("name", ["convert", "pack", "delta", "apply", "index"])
def test_both_ways_write_the_same(name: str, place: Path, tmp_path: Path) -> None:
    reads, _ = WRITERS[name]
    ways = [["1"], ["-o", "2"], ["--output=3"]]
    made = set()
    for way in ways:
        last = way[-1].removeprefix("--output=")
        way = [*way[:-1], way[-1].removesuffix(last) + str(tmp_path / last)]
        ok(*name.split(), *reads, *way, cwd=place)
        made.add((tmp_path / last).read_bytes())
    assert len(made) == 1
    options_first = ok("convert", "-o", tmp_path / "first", "in.tar", cwd=place)
    assert str(tmp_path / "first") in options_first


# Every option and argument that names a file to write.
FILES = {
    **{name: [*name.split(), *WRITERS[name][0]] for name in WRITERS if "image" not in name},
    "convert --toc-out": ["convert", "--format=external-toc", "in.tar", "new", "--toc-out"],
    "bench --report": ["bench", "in.tar", "--report"],
    "image bulk --report": ["image", "bulk", "oci:layout", "oci:new", "--report"],
    "mount --record": ["mount", "--foreground", "a", "mnt", "--record"],
}


@pytest.mark.parametrize("name", FILES)
def test_where_no_file_can_be_written(name: str, place: Path) -> None:
    """It is no wrong usage, but how the file system is: exit code 1, before any work."""
    (place / "folder.html").mkdir(exist_ok=True)
    (place / "mnt").mkdir(exist_ok=True)
    before = sorted(place.rglob("*"))
    paths = ["none/x.html", "in.tar/x.html", "folder.html"]
    told = together(*([*FILES[name], path] for path in paths), cwd=place)
    for path, done in zip(paths, told, strict=True):
        code, out, err = done
        assert (code, out, err.count("\n"), err.count(path)) == (1, "", 1, 1), done
        option = name.split()[-1] if "--" in name else WRITERS[name][1]
        assert f"({option})" in err, err
        assert "irectory" in err, err
    assert sorted(place.rglob("*")) == before


def test_images_go_both_ways(place: Path, tmp_path: Path) -> None:
    ok("image", "convert", "oci:layout", f"oci:{tmp_path}/1:a", cwd=place)
    ok("image", "convert", "oci:layout", "-o", f"oci:{tmp_path}/2:a", cwd=place)
    ok("image", "bulk", "layout", "-o", f"oci:{tmp_path}/3", "--state", tmp_path / "s", cwd=place)
    indexes = [(tmp_path / name / "index.json").read_bytes() for name in "12"]
    assert indexes[0] == indexes[1]
    assert (tmp_path / "3/index.json").exists() or list((tmp_path / "3").rglob("index.json"))


def test_given_twice_is_wrong_usage(place: Path) -> None:
    lines = [[*name.split(), *reads, "x", "-o", "x"] for name, (reads, _) in WRITERS.items()]
    told = together(*lines, cwd=place)
    for (name, (_, word)), (code, _, said) in zip(WRITERS.items(), told, strict=True):
        assert code == 2 and said.startswith(f"stargz: {word} is given twice"), name


@pytest.mark.parametrize("name", ["pack", "delta", "apply"])
def test_not_given_is_wrong_usage(name: str, place: Path) -> None:
    reads, word = WRITERS[name]
    assert f"{word} is needed" in fails(2, name, *reads, cwd=place)


def test_a_layer_is_not_made_of_a_layer_by_mistake(place: Path, tmp_path: Path) -> None:
    """The default for DST would be x.stargz.stargz."""
    for name in ("x.stargz", "X.STARGZ"):
        (tmp_path / name).write_bytes((place / "a").read_bytes())
        said = fails(2, "convert", name, cwd=tmp_path)
        assert f"{name}: is called a layer already" in said
        assert f"stargz convert {name} DST" in said
    ok("convert", "x.stargz", "y.stargz", cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"x.stargz", "X.STARGZ", "y.stargz"}


def test_several_sources_for_convert(place: Path, tmp_path: Path) -> None:
    """The second is DST: what is there stays, and the message says what it was taken for."""
    for name in ("1.tar", "2.tar"):
        (tmp_path / name).write_bytes((place / "in.tar").read_bytes())
    said = fails(1, "convert", "1.tar", "2.tar", cwd=tmp_path)
    assert said.startswith("2.tar: already exists (it would be DST: convert takes one SRC)")
    said = fails(2, "convert", "1.tar", "2.tar", "3.tar", cwd=tmp_path)
    assert said.startswith("too many arguments: 3.tar: stargz convert [options] SRC [DST];")
    said = fails(1, "convert", "-f", "1.tar", "2.tar", cwd=tmp_path)  # as gzip takes many
    assert said.startswith("2.tar: is an ordinary tar, and taken for DST: convert takes one SRC")
    assert (tmp_path / "2.tar").read_bytes() == (place / "in.tar").read_bytes()
    ok("convert", "-f", "1.tar", "-o", "2.tar", cwd=tmp_path)
    ok("convert", "-f", "1.tar", "2.tar", cwd=tmp_path)  # a layer now
    ok("verify", "2.tar", cwd=tmp_path)


# --- what is there already ----------------------------------------------------------------


def makers(place: Path) -> dict[str, Callable[..., Any]]:
    return {
        "convert": lambda dst, **o: stargz.convert(place / "in.tar", dst, **o),
        "pack": lambda dst, **o: stargz.pack(place / "tree", dst, **o),
        "delta": lambda dst, **o: stargz.delta(place / "a", place / "b", dst, **o),
        "apply": lambda dst, **o: stargz.apply(place / "a", place / "a-b.patch", dst, **o),
    }


@pytest.mark.parametrize("name", ["convert", "pack", "delta", "apply"])
def test_replacing(name: str, place: Path, tmp_path: Path) -> None:
    """The command asks for --force; the library replaces, unless force=False."""
    make, dst = makers(place)[name], tmp_path / "made"
    make(dst, force=False)
    made = dst.read_bytes()
    dst.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="already exists") as caught:
        make(dst, force=False)
    assert caught.value.filename == str(dst)
    assert "already exists" in fails(1, name, *WRITERS[name][0], dst, cwd=place)
    assert dst.read_bytes() == b"mine"
    make(dst)
    assert dst.read_bytes() == made
    for force in ("--force", "-f"):
        dst.write_bytes(b"mine")
        ok(name, *WRITERS[name][0], dst, force, cwd=place)
        assert dst.read_bytes() == made
    out = io.BytesIO()
    make(out, force=False)
    assert out.getvalue() == made
    assert [path.name for path in tmp_path.iterdir() if "manifest" not in path.name] == ["made"]


@pytest.mark.parametrize("name", WRITERS)
def test_force_has_its_letter(name: str) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"stargz.cli.{name.replace(' ', '_')}").add_arguments(parser)
    (force,) = [one for one in parser._actions if "--force" in one.option_strings]
    assert force.option_strings == ["-f", "--force"]


def test_a_dangling_link_is_written_through(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    stargz.convert(place / "in.tar", tmp_path / "link", force=False)
    assert (tmp_path / "target").is_file() and (tmp_path / "link").is_symlink()
    with pytest.raises(FileExistsError):
        stargz.convert(place / "in.tar", tmp_path / "link", force=False)


def test_one_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    """As another process may make it while this one converts."""
    path = tmp_path / "made"
    with (
        pytest.raises(FileExistsError),
        complete_or_absent(str(path), replace=False) as fd,
        open(fd, "wb", closefd=False) as file,
    ):
        file.write(b"ours")
        other = threading.Thread(target=path.write_bytes, args=(b"theirs",))
        other.start()
        other.join()
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]
