"""What a command says of what is wrong, the same everywhere: where it is, and what to do."""

from __future__ import annotations

import json
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import handmade
import layouts
import pytest
import registries
from command import fails, ok, run
from handmade import directory, hardlink, reg, symlink
from servers import FaultProxy

import stargz
from stargz.errors import DigestError

NOISE = random.Random(1).randbytes(300_000)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A layer with one wrong byte in the second of the chunks of usr/noise."""
    blob = bytearray(
        handmade.blob(
            [reg("usr/a", b"a"), reg("usr/noise", NOISE), reg("usr/z", b"z")],
            chunk_size=100_000,
            level=0,
        )
    )
    blob[blob.index(NOISE[150_000:150_016])] ^= 1
    path = tmp_path / "bad.stargz"
    path.write_bytes(blob)
    return path


def test_damage_is_told_in_the_same_words(damaged: Path, tmp_path: Path) -> None:
    with stargz.open(damaged) as layer:
        offset = layer.chunks("usr/noise")[1].offset
        with pytest.raises(DigestError) as caught:
            layer.read("usr/noise")
        with pytest.raises(DigestError) as again:
            layer.extractall(tmp_path / "py")
    error = caught.value
    assert (error.name, error.source, error.offset) == ("usr/noise", str(damaged), offset)
    said = (
        f"{damaged} at offset {offset}: usr/noise: a chunk does not match its digest: "
        f"expected {error.expected}, got {error.actual}"
    )
    assert str(error) == str(again.value) == said
    assert f"usr/noise: {error.message}" in said
    out = tmp_path / "out"
    assert fails(3, "extract", damaged, "-C", out) == said
    for words in (["cat", damaged, "usr/noise"], ["verify", damaged],
                  ["extract", damaged, "-C", out, "--keep-going"]):  # fmt: skip
        done = run(*words)
        assert done.returncode == 3
        assert done.stderr.splitlines()[0] == f"stargz: {said}"


def test_what_is_wrong_with_a_member_has_the_name_of_its_file(damaged: Path) -> None:
    found = json.loads(run("verify", "--json", damaged).stdout)
    assert [e["name"] for e in found["errors"]] == ["usr/noise", "usr/noise"]
    assert "CRC-32" in found["errors"][1]["message"]


def test_a_wrong_table_of_contents_has_a_verb_too(damaged: Path) -> None:
    other = "sha256:" + "0" * 64
    for command in ("ls", "verify"):
        text = fails(3, command, damaged, "--toc-digest", other)
        assert text.startswith(
            f"{damaged}: the table of contents does not match its digest: expected {other}, got"
        )
    found = json.loads(run("verify", "--json", damaged, "--toc-digest", other).stdout)
    assert found["errors"][0]["name"] == "the table of contents"
    assert found["errors"][0]["message"].startswith(f"does not match its digest: expected {other}")


# --- extract ----------------------------------------------------------------------------


def many_kinds(path: Path) -> Path:
    """A layer with an entry of each kind."""
    path.write_bytes(
        handmade.blob(
            [
                directory("usr/"),
                directory("usr/bin/"),
                reg("usr/bin/touch", b"touch"),
                symlink("usr/bin/sh", "dash"),
                symlink("bin", "usr/bin"),
                hardlink("usr/bin/again", "usr/bin/touch"),
                {"name": "usr/pipe", "type": "fifo", "mode": 0o644},
            ]
        )
    )
    return path


def test_what_the_file_system_refuses_is_named_where_it_is(tmp_path: Path) -> None:
    layer = many_kinds(tmp_path / "x.stargz")
    (tmp_path / "out/usr/bin/touch/full").mkdir(parents=True)
    there = {"cwd": tmp_path}
    place = "out/usr/bin/touch"
    assert fails(1, "extract", layer, "-C", "out", **there).startswith(
        f"{place}: a directory that is not empty"
    )
    done = run("extract", layer, "-C", "out", "--keep-going", **there)
    assert done.returncode == 1
    assert done.stderr.startswith(f"stargz: {place}: a directory that is not empty is in the way: ")
    found = json.loads(run("extract", "--json", layer, "-C", "out", "--keep-going", **there).stdout)
    assert found["ok"] is False and found["errors"][0]["path"] == place
    assert found["errors"][0]["name"] == "usr/bin/touch"
    # Without its first components it is elsewhere.
    (tmp_path / "cut/touch/full").mkdir(parents=True)
    text = fails(1, "extract", layer, "-C", f"{tmp_path}/cut", "--strip-components", 2)
    assert text.startswith(f"{tmp_path}/cut/touch: a directory that is not empty")
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.add(layer, "usr/bin/touch")
    image = layouts.image(tmp_path / "image", [(tmp_path / "tar").read_bytes()])
    text = fails(1, "image", "extract", f"oci:{image.path}", "-C", "out", **there)
    assert text.startswith(f"{place}: a directory that is not empty")


@pytest.fixture
def few_files(tmp_path: Path) -> Iterator[Path]:
    """A file system for three directories, its root among them."""
    where = tmp_path / "few"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=3", "stargz-test", where]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this user cannot mount a small file system: {mounted.stderr.strip()}")
    yield where
    subprocess.run(["umount", where], check=True)


def test_a_full_disk_names_directories_and_files(few_files: Path, tmp_path: Path) -> None:
    layer = tmp_path / "x.stargz"
    layer.write_bytes(handmade.blob([reg("w/a/b/c/f", b"f"), directory("w/a/b/d/")]))
    full = "No space left on device"
    text = fails(1, "extract", layer, "-C", few_files, "--strip-components", 1)
    assert text == f"{few_files}/a/b/c: cannot make the directory: {full}" or (
        text == f"{few_files}/a/b/c/f: cannot create the file: {full}"
    )
    with stargz.open(layer) as opened:
        result = opened.extractall(few_files, keep_going=True, strip_components=1)
    assert not result and not result.ok
    assert [e.name for e in result.errors] == ["w/a/b/c", "w/a/b/d"]
    assert [e.path for e in result.errors] == [f"{few_files}/a/b/c", f"{few_files}/a/b/d"]
    assert {e.message for e in result.errors} == {f"cannot make the directory: {full}"}


def test_all_that_was_written_is_counted(tmp_path: Path) -> None:
    layer = many_kinds(tmp_path / "x.stargz")
    out = tmp_path / "out"
    said = ok("extract", layer, "-C", out)
    assert said == ("1 file, 5 bytes, 2 directories, 2 symlinks, 1 hard link, 1 special file\n")
    # By way of the symlink, which is written too.
    assert ok("extract", layer, "-C", out, "bin/sh") == "0 files, 0 bytes, 2 symlinks\n"
    found = json.loads(ok("extract", "--json", layer, "-C", out))
    assert found["ok"] is True
    assert found["others"] == {
        "directories": 2, "symlinks": 2, "hard links": 1, "special files": 1,
    }  # fmt: skip
    with stargz.open(layer) as opened:
        result = opened.extractall(out, ["usr/bin/sh"])
    assert result and result.others == {"symlinks": 1}


def test_nothing_is_left(tmp_path: Path) -> None:
    layer = many_kinds(tmp_path / "x.stargz")
    left = "warning: " + f"{layer}: nothing is left: "
    for words, why in [
        (["cat", layer, "usr/bin/touch", "--exclude", "touch"], "--exclude leaves"),
        (["ls", layer, "usr/bin/touch", "--exclude", "usr"], "--exclude leaves"),
        (["find", layer, "usr/bin/touch", "--exclude", "usr"], "--exclude leaves"),
        (["extract", layer, "-C", tmp_path / "o", "bin/sh", "--exclude", "usr"],
         "--exclude leaves"),
        (["extract", layer, "-C", tmp_path / "o", "--strip-components", 99],
         "--strip-components leaves"),
        (["extract", layer, "-C", tmp_path / "o", "--strip-components", 9, "--exclude", "sh"],
         "--exclude and --strip-components leave"),
    ]:  # fmt: skip
        done = run(*words)
        assert done.returncode == 0
        assert done.stderr == f"stargz: {left}{why} all of it out\n"
        assert not run(*words, "-q").stderr
    assert not run("cat", layer, "usr/bin/touch", "--exclude", "sh").stderr
    empty = tmp_path / "empty.stargz"
    empty.write_bytes(handmade.blob([]))
    assert ok("extract", empty, "-C", tmp_path / "o") == "0 files, 0 bytes\n"


# --- what SRC cannot be -----------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["ls", ""], ["cat", "", "a"], ["verify", "x", ""], ["convert", ""], ["convert", "x", ""],
        ["image", "ls", ""], ["image", "convert", "x", ""], ["mount", "x", ""], ["pack", "", "x"],
        ["diff", "x", ""], ["delta", "", "x"], ["apply", "x", ""], ["extract", "x", "-C", ""],
        ["ls", "x", "--toc", ""], ["delta", "x", "x", "-o", ""], ["image", "bulk", "", "x"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_name_is_wrong_usage(words: list[str], tmp_path: Path) -> None:
    assert "is '', which names nothing; see 'stargz " in fails(2, *words, cwd=tmp_path)


def test_an_empty_path_is_the_root(tmp_path: Path) -> None:
    assert ok("ls", many_kinds(tmp_path / "x.stargz"), "") == "bin\nusr\n"


@pytest.mark.parametrize("command", ["ls", "verify", "convert", "info", "extract"])
def test_a_device_is_no_layer(command: str) -> None:
    assert "/dev/null: a character device; give a file" in fails(2, command, "/dev/null")


def test_a_pipe_is_taken_as_standard_input(tmp_path: Path) -> None:
    data = many_kinds(tmp_path / "x.stargz").read_bytes()
    text = fails(1, "ls", "/dev/stdin", input=data, text=False)
    assert "which a pipe cannot do; give - for standard input" in text
    assert ok("ls", "-", input=data, text=False) == b"bin\nusr\n"


@pytest.mark.parametrize(("name", "shown"), [("a\xfe", r"a\xfe"), ("it's\xfe", r"it's\xfe")])
def test_names_that_are_not_utf_8_are_escaped_once(name: str, shown: str, tmp_path: Path) -> None:
    gnu = tarfile.GNU_FORMAT
    with tarfile.open(tmp_path / "x.tar", "w", format=gnu, encoding="latin-1") as tar:
        for one in (name.replace("\xfe", "\xff"), name):
            tar.addfile(tarfile.TarInfo(one))
    text = fails(1, "convert", tmp_path / "x.tar")
    assert f"x.tar at offset 512: '{shown}': this name is not UTF-8" in text


# --- what is fetched --------------------------------------------------------------------


def test_what_a_registry_gave_is_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.add(__file__, "f")
    image = layouts.image(tmp_path / "image", [tmp_path / "tar"])
    with registries.registry(tmp_path / "registry") as registry:
        registry.push(image.path, "a/b", "c")
        with FaultProxy(f"http://{registry.host}") as proxy:
            name = f"docker://127.0.0.1:{proxy.port}/a/b:c"
            for words in (["cat", "--layer", "1", name, "f"], ["image", "cat", name, "f"]):
                proxy.reset()
                done = run(*words, "-v", "--no-cache", "--plain-http")
                assert done.stdout == Path(__file__).read_text()
                size = f"{sum(r.sent for r in proxy.log):,}"
                asked = f"fetched {size} bytes in {proxy.requests} requests"
                assert done.stderr.splitlines()[-1] == f"stargz: {asked}"


def test_what_is_left_out_is_counted_in_words(tmp_path: Path) -> None:
    null = {"name": "null", "type": "char", "devMajor": 1, "devMinor": 3}
    for number, told in ((1, "1 device node"), (2, "2 device nodes")):
        blob = handmade.blob([reg("a", b"a"), *({**null, "name": f"n{n}"} for n in range(number))])
        (tmp_path / "layer").write_bytes(blob)
        done = run("extract", tmp_path / "layer", "-C", tmp_path / str(number))
        assert done.stderr == f"stargz: warning: {tmp_path}/layer: left out: {told}\n"
