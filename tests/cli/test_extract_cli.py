"""`stargz extract`, used as people use tar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import handmade
import pytest
from command import fails, ok, run
from handmade import directory, reg, symlink

WRONG = {"digest": handmade.digest(b"other"), "chunkDigest": handmade.digest(b"other")}
ENTRIES = [
    symlink("bin", "usr/bin"),
    directory("usr/", mode=0o755),
    reg("usr/bin/dash", b"dash"),
    reg("usr/share/locale/de", b"de"),
    reg("usr/share/doc/x", b"doc"),
    reg("etc/conf", b"conf"),
]


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer.stargz"
    path.write_bytes(handmade.blob(ENTRIES))
    return path


def files(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_symlink() or p.is_file()}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["bin/dash"], {"bin", "usr/bin/dash"}),
        (["usr", "--exclude", "*locale*"], {"usr/bin/dash", "usr/share/doc/x"}),
        (["--exclude", "usr/share/", "--exclude=bin"], {"etc/conf"}),
        (["usr/share", "--strip-components", "2"], {"locale/de", "doc/x"}),
    ],
)
def test_what_is_chosen(args: list[str], expected: set[str], layer: Path, tmp_path: Path) -> None:
    count = len(expected - {"bin"})
    assert ok("extract", layer, *args, "-C", tmp_path / "out").startswith(
        (f"{count} files, ", f"{count} file, ")
    )
    assert files(tmp_path / "out") == expected


def test_what_is_not_there(layer: Path, tmp_path: Path) -> None:
    assert "no entry matches 'opt/*'" in fails(1, "extract", layer, "opt/*", "-C", tmp_path / "out")
    assert "no entry 'etc/no'" in fails(1, "extract", layer, "etc/no", "-C", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = run("extract", layer, "--exclude", "lokale", "-C", tmp_path / "out")
    assert done.returncode == 0
    assert "nothing matches --exclude 'lokale'" in done.stderr
    assert "not a number" in fails(2, "extract", layer, "--strip-components", "x")


def test_verbose_lists_the_names(layer: Path, tmp_path: Path) -> None:
    done = run("extract", layer, "-v", "-C", tmp_path / "out")
    assert done.returncode == 0
    listed = [line for line in done.stderr.splitlines() if not line.startswith("stargz: ")]
    assert sorted(listed) == sorted(entry["name"] for entry in ENTRIES)


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([reg("a", b"a", override=WRONG), symlink("s", "")], 3),
        ([symlink("s", "")], 1),
    ],
)
def test_keep_going(entries: list[dict[str, Any]], code: int, tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(handmade.blob([*entries, reg("good", b"good")]))
    done = run("extract", path, "-C", tmp_path / "out", "--keep-going")
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == len(entries)
    assert all(line.startswith(f"stargz: {path}") for line in done.stderr.splitlines())
    assert "1 file, 4 bytes; " in done.stdout
    assert files(tmp_path / "out") == {"good"}
    done = run("extract", path, "-C", tmp_path / "out", "--keep-going", "--json")
    assert done.returncode == code
    result = json.loads(done.stdout)
    assert [e["name"] for e in result["errors"]] == [e["name"] for e in entries]
    assert result["error_count"] == len(entries)


@pytest.mark.parametrize("name", ["file", "file/below", "file/below/that", "link"])
@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["extract", "no.stargz", "-C"], "-C"),
        (["image", "extract", "oci:none", "-C"], "-C"),
        (["demo", "--keep"], "--keep"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_directory_that_is_a_file(
    words: list[str], option: str, name: str, tmp_path: Path
) -> None:
    """It is told of before any work."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    said = fails(1, *words, name, cwd=tmp_path)
    what = "file is" if "/" in name else "is"
    assert said == f"{name}: {what} no directory; give {option} one, or a new name"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}
