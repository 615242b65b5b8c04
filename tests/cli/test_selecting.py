"""PATH, patterns and --exclude through the commands."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from command import fails, ok, run
from layouts import Layout
from merged_usr import FILES, merged_usr

import stargz


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("merged") / "usr.stargz"
    stargz.convert(merged_usr(), path)
    return path


def test_cat_takes_patterns(layer: Path) -> None:
    both = (FILES["usr/bin/bash"] + FILES["usr/bin/dash"]).decode()
    assert ok("cat", layer, "bin/?ash") == both
    assert ok("cat", layer, "./bin//[bd]ash", "--exclude", "bash") == FILES["usr/bin/dash"].decode()
    assert ok("cat", layer, "**/*.mo", "etc/motd") == "defrhello\n"
    assert ok("cat", layer, "**/*.mo", "--exclude", "lib/", "--exclude", "motd") == "fr"
    assert ok("cat", layer, "etc/motd", "etc/motd") == "hello\nhello\n"
    assert ok("cat", "-q", layer, "etc/motd", "--exclude", "/etc") == ""
    done = run("cat", layer, "/sbin/*", "--json")
    assert json.loads(done.stderr) == [{"name": "usr/sbin/ldconfig", "size": 8}]


def test_cat_follows_links(layer: Path) -> None:
    for name in ("bin/dash", "bin/sh", "etc/alternatives/sh", "usr/share/here/../bin/dash"):
        assert ok("cat", layer, name) == FILES["usr/bin/dash"].decode()
    assert ok("cat", layer, "etc/alternatives/*") == FILES["usr/bin/dash"].decode()


def test_cat_of_a_pattern_leaves_out_what_has_no_content(layer: Path) -> None:
    done = run("cat", layer, "etc/*")
    assert done.stdout == "hello\nNAME=some\n"
    assert done.stderr == (
        f"stargz: warning: {layer}: left out: 1 directory, 1 symlink that leads nowhere\n"
    )
    assert ok("cat", "-q", layer, "etc/*") == "hello\nNAME=some\n"
    assert fails(1, "cat", layer, "usr/*").endswith("only 4 directories there: nothing has content")
    assert "'bin' is a directory; 'stargz ls' lists it" in fails(1, "cat", layer, "etc/motd", "bin")
    assert "no entry 'etc/mtab' (looked up as 'proc')" in fails(1, "cat", layer, "etc/mtab")


def test_what_is_not_there_costs_no_output(layer: Path) -> None:
    assert fails(1, "cat", layer, "etc/motd", "bin/x*") == (
        f"{layer}: no entry matches 'bin/x*'; 'stargz ls -R {layer}' shows what there is"
    )
    assert fails(1, "cat", layer, "etc/motd", "bin/zsh") == (
        f"{layer}: no entry 'bin/zsh' (looked up as 'usr/bin/zsh'); "
        f"'stargz ls -R {layer}' shows what there is"
    )
    assert "more than 40 symlinks" in fails(1, "cat", layer, "usr/share/" + "here/" * 41 + "x")
    assert "what is excluded has a name" in fails(2, "cat", layer, "etc/motd", "--exclude", "")
    assert '".." is not for after a pattern' in fails(2, "cat", layer, "*/../etc/motd")


def test_excluding_what_is_not_there_is_a_warning(layer: Path) -> None:
    done = run("cat", layer, "etc/motd", "--exclude", "*.pyc", "--exclude", "locale")
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert done.stderr == f"stargz: warning: {layer}: nothing matches --exclude '*.pyc'\n"
    assert ok("cat", "-q", layer, "etc/motd", "--exclude", "*.pyc") == "hello\n"


def test_help_says_what_a_pattern_is() -> None:
    for words in (["cat"], ["image", "cat"]):
        text = ok(*words, "--help")
        assert "--exclude PATTERN" in text
        assert "** is any" in text


def test_cat_of_an_image_selects_from_all_layers(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("usr/bin/zsh", "usr/bin/fish", "usr/bin/.wh.bash"):
            info = tarfile.TarInfo(name)
            info.size = 0 if ".wh." in name else 3
            tar.addfile(info, io.BytesIO(b"new"[: info.size]))
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.manifest([layout.layer(merged_usr()), layout.layer(out.getvalue())]), "v1")
    src = f"oci:{tmp_path}/layout:v1"
    dash = FILES["usr/bin/dash"].decode()
    assert ok("image", "cat", src, "bin/*sh", "--exclude", "sh") == dash + "newnew"
    assert "no entry matches 'bin/b*'; 'stargz image ls" in fails(1, "image", "cat", src, "bin/b*")


def test_prioritizing_follows_symlinked_directories(tmp_path: Path) -> None:
    tar, out = tmp_path / "usr.tar", tmp_path / "out.stargz"
    tar.write_bytes(merged_usr())
    (tmp_path / "list").write_text('lib/os-release\n{"path": "/etc/motd"}\n')
    words = ["--prioritize", "bin/dash", "--prioritize-from", tmp_path / "list"]
    ok("convert", tar, out, *words)
    first = "bin usr usr/bin usr/bin/dash lib usr/lib usr/lib/os-release etc etc/motd"
    with stargz.open(out) as layer:
        assert layer.names()[:10] == [*first.split(), ".prefetch.landmark"]
    error = fails(1, "convert", "--force", tar, out, "--prioritize", "bin/zsh")
    assert error.startswith(f"{tar}: no entry 'bin/zsh' in the layer; --allow-missing")
    error = fails(1, "convert", "--force", tar, out, "--prioritize", "bin/*")
    assert "no entry 'bin/*' in the layer; what is prioritized is a name, not a pattern" in error


def test_prioritizing_in_an_image_follows_those_of_the_same_layer(tmp_path: Path) -> None:
    upper = io.BytesIO()
    with tarfile.open(fileobj=upper, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("usr/bin/new"))
    layout = Layout(tmp_path / "layout")
    layers = [layout.plain_layer(merged_usr()), layout.plain_layer(upper.getvalue())]
    layout.tag(layout.manifest(layers), "v1")
    src, dst = f"oci:{tmp_path}/layout:v1", f"oci:{tmp_path}/out:v1"
    ok("image", "convert", src, dst, "--prioritize", "bin/dash", "--prioritize", "usr/bin/new")
    with stargz.open_image(dst) as image:
        lower, new = (layer.names() for layer in image.layers)
    assert lower[:5] == ["bin", "usr", "usr/bin", "usr/bin/dash", ".prefetch.landmark"]
    assert new == ["usr/bin/new", ".prefetch.landmark"]
    error = fails(1, "image", "convert", src, dst, "--prioritize", "bin/new")
    assert "no layer of the image has 'bin/new', which is to be prioritized" in error
