"""The commands, run as a user runs them: what they print, write and return."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, command, environment, fails, ok, run, sha256

import stargz
from stargz.cli import COMMANDS

CONVERT_KEYS = {
    "digest", "size", "diff_id", "toc_digest", "uncompressed_size", "entries", "chunks",
    "level", "seconds",
}  # fmt: skip
INFO_KEYS = {
    "kind", "size", "toc_offset", "toc_digest", "entries", "files", "chunks",
    "uncompressed_size", "prefetch_size",
}  # fmt: skip


@pytest.fixture
def tree(data: Path) -> Path:
    """A layer that the reference wrote."""
    return data / "tree.esgz"


@pytest.fixture
def tar(data: Path, tmp_path: Path) -> Path:
    """A tar to convert, in a directory of its own."""
    path = tmp_path / "layer.tar"
    path.write_bytes((data / "tree.tar").read_bytes())
    return path


def toc_names(layer: Path) -> list[str]:
    toc = json.loads(ok("toc", layer))
    return [entry["name"] for entry in toc["entries"] if entry["type"] != "chunk"]


# --- what every command does ----------------------------------------------------------------


def all_commands() -> list[str]:
    """Those of groups too: "image ls"."""
    names = []
    for name in COMMANDS:
        module = importlib.import_module(f"stargz.cli.{name}")
        names += [name, *(f"{name} {inner}" for inner in getattr(module, "COMMANDS", ()))]
    return names


@pytest.mark.parametrize("name", all_commands())
def test_help_shows_an_example(name: str) -> None:
    text = ok(*name.split(), "--help")
    assert text.startswith(f"usage: stargz {name} ")
    assert f"stargz {name}" in text.split("example:")[1]
    for option in ("--quiet", "--verbose", "--log-level", "--json"):
        assert option in text
    assert "--threads" in text or name.startswith("cache") or "COMMAND" in text


@pytest.mark.parametrize("name", ["info", "ls", "cat", "extract", "verify", "toc"])
def test_reading_commands_share_the_trust_options(name: str) -> None:
    text = ok(name, "--help")
    for option in ("--toc-digest", "--require-verified", "--toc FILE"):
        assert option in text


def test_top_level_help_lists_the_commands_and_exit_codes() -> None:
    text = ok("--help")
    for name, line in COMMANDS.items():
        assert f"  {name}" in text
        assert line in text
    assert "3 verification failed" in text


def test_version() -> None:
    assert ok("--version") == f"stargz {stargz.__version__}\n"


def test_help_and_cat_import_neither_numpy_nor_rich(tree: Path) -> None:
    for args in (["--help"], ["ls", "--help"], ["cat", tree, "etc/conf"]):
        words = command(*args)
        words[1:1] = ["-X", "importtime"]
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
        imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
        assert "stargz.cli" in imported
        assert not {"numpy", "rich", "asyncio", "subprocess"} & imported
        if "--help" in args:
            assert not {"stargz.layer", "stargz.conversion", "dataclasses", "shutil"} & imported


def test_options_may_stand_anywhere(tree: Path) -> None:
    plain = ok("ls", tree, "etc", "--json")
    assert ok("ls", "--json", tree, "etc") == plain
    assert ok("--json", "ls", tree, "etc") == plain
    assert ok("ls", tree, "--json", "etc") == plain
    assert ok("ls", "--json", "--", tree, "etc") == plain


def test_main_can_be_called_from_python(tar: Path) -> None:
    code = (
        "import sys, stargz; from stargz.cli import main; code = main(sys.argv[1:]);"
        "assert callable(stargz.convert); print('code', code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", "-q", tar], env=environment(), capture_output=True
    )
    assert done.stderr == b""
    assert done.stdout.endswith(b"code 0\n")
    assert tar.with_name("layer.stargz").exists()


# --- convert ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "TAR", "layer"])
def test_convert_names_the_result_after_the_source(suffix: str, tar: Path) -> None:
    source = tar.with_name(f"in.{suffix}")
    data = tar.read_bytes()
    source.write_bytes(gzip.compress(data) if "gz" in suffix else data)
    ok("convert", source)
    name = "in.layer.stargz" if suffix == "layer" else "in.stargz"
    assert {p.name for p in tar.parent.iterdir()} == {"layer.tar", source.name, name}
    assert ok("cat", tar.with_name(name), "etc/empty") == ""


def test_convert_json_says_what_was_written(tar: Path) -> None:
    result = json.loads(ok("convert", tar, "--json", "--chunk-size", "16K"))
    assert set(result) >= CONVERT_KEYS
    blob = tar.with_name("layer.stargz").read_bytes()
    inflated = gzip.decompress(blob)
    assert result["size"] == len(blob)
    assert result["digest"] == sha256(blob)
    assert result["uncompressed_size"] == len(inflated)
    assert result["diff_id"] == sha256(inflated)
    toc = ok("toc", tar.with_name("layer.stargz"), text=False)
    assert result["toc_digest"] == sha256(toc)
    entries = json.loads(toc)["entries"]
    assert result["entries"] == sum(entry["type"] != "chunk" for entry in entries)
    assert result["chunks"] == sum("chunkDigest" in entry for entry in entries)
    assert result["level"] == 1
    assert result["missing"] == []


def test_convert_prints_a_table_for_people(tar: Path) -> None:
    text = ok("convert", tar)
    blob = tar.with_name("layer.stargz").read_bytes()
    assert f"digest      {sha256(blob)}" in text
    assert f"{len(blob):,} bytes" in text
    assert ok("convert", "-q", tar, "--force") == ""
    assert json.loads(ok("convert", "-q", "--json", tar, "--force"))["digest"] == sha256(blob)


def test_convert_gives_the_same_bytes_by_file_pipe_and_thread_count(tar: Path) -> None:
    ok("convert", tar)
    blob = tar.with_name("layer.stargz").read_bytes()
    data = tar.read_bytes()
    assert ok("convert", "-", "-", input=data, text=False) == blob
    assert ok("convert", "-", "-", input=gzip.compress(data), text=False) == blob
    for threads in (1, 2, 5):
        assert ok("convert", tar, "-", "--threads", threads, text=False) == blob
    with tar.open("rb") as file:
        ok("convert", "-", "piped", stdin=file, cwd=tar.parent)
    assert tar.with_name("piped").read_bytes() == blob


def test_convert_to_stdout_puts_the_json_on_stderr(tar: Path) -> None:
    done = run("convert", tar, "-", "--json", text=False)
    assert done.returncode == 0
    assert json.loads(done.stderr)["digest"] == sha256(done.stdout)


def test_convert_replaces_only_with_force(tar: Path) -> None:
    target = tar.with_name("layer.stargz")
    target.write_bytes(b"precious")
    text = fails(1, "convert", tar)
    assert str(target) in text
    assert "--force" in text
    assert target.read_bytes() == b"precious"
    ok("convert", tar, "--force")
    assert gzip.decompress(target.read_bytes())
    assert {p.name for p in tar.parent.iterdir()} == {"layer.tar", "layer.stargz"}


def test_convert_makes_a_file_of_the_usual_mode(tar: Path) -> None:
    ok("convert", tar, umask=0o027)
    assert stat.S_IMODE(tar.with_name("layer.stargz").stat().st_mode) == 0o640


def test_convert_refuses_to_overwrite_its_source(tar: Path) -> None:
    before = tar.read_bytes()
    link = tar.with_name("link")
    link.symlink_to(tar)
    for target in (tar, link):
        assert "same file" in fails(1, "convert", tar, target, "--force")
    assert tar.read_bytes() == before


def test_convert_writes_into_pipes_and_devices_in_place(tar: Path) -> None:
    fifo = tar.with_name("fifo")
    os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()), daemon=True)
    reader.start()
    ok("convert", tar, fifo)
    reader.join(60)
    assert stat.S_ISFIFO(fifo.lstat().st_mode)
    assert got[0] == ok("convert", tar, "-", text=False)
    ok("convert", tar, "/dev/null", "--force")
    assert stat.S_ISCHR(Path("/dev/null").lstat().st_mode)


def test_prioritized_files_come_first(tar: Path) -> None:
    listed = tar.with_name("list")
    listed.write_text('data/zeros\n\n{"path": "usr/bin/tool", "layerIndex": 3}\n')
    ok("convert", tar, "--prioritize", "etc/conf", "--prioritize-from", listed)
    names = [name.strip("/") for name in toc_names(tar.with_name("layer.stargz"))]
    at = [names.index(n) for n in ("etc/conf", "data/zeros", "usr/bin/tool")]
    assert at == sorted(at)
    assert names.index(".prefetch.landmark") == at[-1] + 1
    info = json.loads(ok("info", tar.with_name("layer.stargz"), "--json"))
    assert 0 < info["prefetch_size"] < info["size"]


# Files that are given where lines of text are wanted.
NO_TEXT: dict[str, bytes] = {
    "a tar.gz": gzip.compress(bytes(range(256)) * 9),
    "a tar": b"name\0".ljust(512, b"\0"),
    "UTF-16": "etc/conf\n".encode("utf-16"),
    "lines and then a zero byte": b"etc/conf\n" * 99 + b"\0",
}


@pytest.mark.parametrize("kind", NO_TEXT)
@pytest.mark.parametrize(
    "words",
    [
        ["convert", "layer.tar", "new", "--prioritize-from"],
        ["image", "convert", "oci:none", "oci:new", "--prioritize-from"],
        ["pack", ".", "new", "--ignore-file"],
        ["image", "bulk", "--dry-run", "--state=state", "--output=oci:new"],
    ],
    ids=" ".join,
)
def test_what_is_no_text_is_said_so(kind: str, words: list[str], tar: Path) -> None:
    given = tar.with_name("given")
    given.write_bytes(NO_TEXT[kind])
    code = 1 if "--prioritize-from" in words else 2
    said = fails(code, *words, given.name, cwd=tar.parent)
    offset = NO_TEXT[kind].index(b"\0")
    assert said.startswith(
        f"given: no text (a zero byte at offset {offset}); is it the right file?"
    )
    assert len(said) < 100


def test_a_name_that_is_longer_than_any_path_is_cut(tar: Path) -> None:
    given = tar.with_name("given")
    given.write_text("a" * 100_000)
    assert len(fails(1, "convert", tar, "--prioritize-from", given)) < 5000
    given.write_text('\n\n{"path": 3}\n')
    assert "the path of line 3 is not" in fails(1, "convert", tar, "--prioritize-from", given)


def test_a_missing_prioritized_file_is_an_error_unless_allowed(tar: Path) -> None:
    assert "'no/such'" in (text := fails(1, "convert", tar, "--prioritize", "no/such"))
    assert "--allow-missing" in text
    assert "over 64 MiB" in fails(1, "convert", tar, "--prioritize-from", "/dev/zero")
    assert not tar.with_name("layer.stargz").exists()
    done = run("convert", tar, "--prioritize", "no/such", "--allow-missing")
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1
    assert "no/such" in done.stderr
    result = ok("convert", tar, "--force", "--prioritize", "no/such", "--allow-missing", "--json")
    assert json.loads(result)["missing"] == ["no/such"]


def test_lossless_keeps_the_tar_as_it_is(tar: Path) -> None:
    ok("convert", tar, "--lossless")
    inflated = gzip.decompress(tar.with_name("layer.stargz").read_bytes())
    assert inflated.startswith(tar.read_bytes().rstrip(b"\0"))
    assert "landmark" not in "".join(toc_names(tar.with_name("layer.stargz")))


def test_legacy_format_and_minimum_chunk_size(tar: Path) -> None:
    ok("convert", tar, "old", "--format", "stargz", cwd=tar.parent)
    assert json.loads(ok("info", tar.with_name("old"), "--json"))["kind"] == "stargz"
    ok("convert", tar, "packed", "--min-chunk-size", "1MiB", cwd=tar.parent)
    assert "innerOffset" in ok("toc", tar.with_name("packed"))
    help_text = " ".join(ok("convert", "--help").split())
    for reader in ("stargz-snapshotter from 0.13 on", "VerifyTOC", "containers/storage"):
        assert reader in help_text


def on_terminal(words: list[str], pieces: list[bytes], pause: float) -> str:
    """What a command shows on a terminal while its input comes in slowly."""
    terminal, side = os.openpty()
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=side, env=environment()
    )
    os.close(side)
    shown = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while piece := os.read(terminal, 65536):
                shown.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    with process:
        assert process.stdin is not None
        for piece in pieces:
            process.stdin.write(piece)
            process.stdin.flush()
            time.sleep(pause)
        process.stdin.close()
        assert process.wait(60) == 0
    reader.join()
    os.close(terminal)
    return b"".join(shown).decode()


def test_a_bar_is_shown_on_a_terminal_for_what_takes_over_a_second(tmp_path: Path) -> None:
    content = os.urandom(6 << 20)
    with tarfile.open(tmp_path / "large.tar", "w") as tar:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    data = (tmp_path / "large.tar").read_bytes()
    third = len(data) // 3
    pieces = [data[:third], data[third : 2 * third], data[2 * third :]]
    words = command("convert", "-", tmp_path / "out.stargz", "--force")
    assert "MB/s" in on_terminal(words, pieces, 0.8)
    assert on_terminal([*words, "-q"], pieces, 0.8) == ""
    assert on_terminal(words, [data], 0) == ""


# --- info, toc --------------------------------------------------------------------------------


def test_info_json_of_every_golden_layer(data: Path, goldens: list[dict[str, Any]]) -> None:
    for golden in goldens:
        if golden["kind"] != "gzip":
            continue
        blob = data / golden["blob"]
        info = json.loads(ok("info", blob, "--json"))
        assert set(info) >= INFO_KEYS
        assert info["kind"] == "estargz"
        assert info["size"] == golden["blob_size"]
        assert info["toc_digest"] == golden["toc_digest"]
        assert info["uncompressed_size"] == len(gzip.decompress(blob.read_bytes()))
        assert (info["prefetch_size"] > 0) == bool(golden["prioritized"])


def test_info_for_people(tree: Path) -> None:
    text = ok("info", tree)
    assert "estargz" in text
    assert "26,396 bytes" in text


def test_info_of_an_external_toc(data: Path) -> None:
    blob, toc = data / "external_toc.esgz", data / "external_toc.esgz.toc"
    info = json.loads(ok("info", blob, "--toc", toc, "--json"))
    assert info["kind"] == "external-toc"
    assert info["entries"] > 10
    assert "--toc" in fails(1, "ls", blob)
    alone = json.loads(ok("info", blob, "--json"))
    assert (alone["kind"], alone["entries"]) == ("external-toc", None)


def test_info_of_zstd_chunked(data: Path) -> None:
    info = json.loads(ok("info", data / "zstd_chunked.zst", "--json"))
    assert (info["kind"], info["toc_offset"]) == ("zstd:chunked", 26368)
    assert (info["landmark"], info["tar_split"]) == ("no prefetch", False)
    assert info["uncompressed_size"] > info["content_size"] > 0


@pytest.mark.parametrize("wrap", [gzip.compress, bytes])
def test_info_of_a_plain_layer(wrap: Any, tar: Path) -> None:
    plain = tar.with_name("plain")
    plain.write_bytes(wrap(tar.read_bytes()))
    info = json.loads(ok("info", plain, "--json"))
    assert set(info) >= INFO_KEYS
    assert (info["kind"], info["size"]) == ("plain", plain.stat().st_size)
    assert info["toc_digest"] is None
    fails(1, "info", plain, "--toc-digest", "sha256:" + "0" * 64)


def test_toc_is_the_stored_json_byte_for_byte(tree: Path) -> None:
    with tarfile.open(tree) as tar:
        stored = tar.extractfile("stargz.index.json").read()  # type: ignore[union-attr]
    done = run("toc", tree, "--json", text=False)
    assert done.stdout == stored
    assert json.loads(done.stderr)["toc_digest"] == sha256(stored)


# --- ls ---------------------------------------------------------------------------------------


def test_ls_lists_children_and_files(tree: Path) -> None:
    assert ok("ls", tree, "etc").splitlines() == ["conf", "conf2", "empty"]
    assert ok("ls", tree, "/etc/../usr/bin/").splitlines() == ["alias", "hard", "tool"]
    assert ok("ls", tree, "etc/conf").splitlines() == ["etc/conf"]
    assert {"usr", "etc", "data"} <= set(ok("ls", tree).splitlines())


def test_ls_recursive_is_what_the_tar_holds(data: Path, tree: Path) -> None:
    with tarfile.open(data / "tree.tar") as tar:
        names = set(tar.getnames())
    listed = ok("ls", "-R", tree).splitlines()
    assert set(listed) == names  # neither the landmark nor the TOC
    assert listed.index("usr") < listed.index("usr/bin") < listed.index("usr/bin/tool")
    below = [name for name in listed if name.startswith("usr/")]
    assert ok("ls", "-R", tree, "usr").splitlines() == below


def test_ls_long_shows_what_tar_shows(tree: Path) -> None:
    lines = {line.split(" 12:26 ")[1]: line.split() for line in ok("ls", "-lR", tree).splitlines()
             if " 12:26 " in line}  # fmt: skip
    assert lines["usr/bin/tool"][:4] == ["-rwxr-xr-x", "root/root", "9000", "2020-09-13"]
    assert lines["usr/bin/alias -> tool"][0] == "lrwxr-xr-x"
    assert lines["usr/bin/hard link to usr/bin/tool"][0] == "hrwxr-xr-x"
    assert lines["etc/conf2"][1] == "app/app"  # written once in the TOC, for etc/conf
    assert lines["dev/null"][:3] == ["crwxr-xr-x", "root/root", "1,3"]
    assert lines["run/pipe"][0] == "prwxr-xr-x"
    assert lines["setuid"][0] == "-rwsr-xr-x"
    assert ok("ls", "-l", tree, "usr/bin/alias").startswith("lrwxr-xr-x")


def test_ls_json_has_the_tocs_keys_and_cleaned_names(data: Path) -> None:
    entries = json.loads(ok("ls", "-R", "--json", data / "dot_slash.esgz"))
    stored = json.loads(ok("toc", data / "dot_slash.esgz"))["entries"]
    assert any(entry["name"].startswith("./") for entry in stored)
    known = {entry["name"].removeprefix("./").strip("/"): entry for entry in stored}
    for entry in entries:
        assert not entry["name"].startswith((".", "/"))
        assert entry["type"] == known[entry["name"]]["type"]
        assert entry.get("digest") == known[entry["name"]].get("digest")
    one = json.loads(ok("ls", "--json", data / "tree.esgz", "etc/conf"))
    assert [entry["name"] for entry in one] == ["etc/conf"]
    assert json.loads(ok("ls", "--json", data / "tree.esgz", "etc/empty"))


def test_ls_of_an_empty_directory_is_an_empty_list(tar: Path) -> None:
    with tarfile.open(tar, "w") as out:
        out.addfile(tarfile.TarInfo("empty"))
        made = tarfile.TarInfo("hollow")
        made.type = tarfile.DIRTYPE
        out.addfile(made)
    ok("convert", tar)
    assert ok("ls", tar.with_name("layer.stargz"), "hollow") == ""
    assert json.loads(ok("ls", "--json", tar.with_name("layer.stargz"), "hollow")) == []


def test_ls_shows_implied_directories(data: Path) -> None:
    listed = json.loads(ok("ls", "-R", "--json", data / "implied_dirs.esgz"))
    names = {entry["name"]: entry for entry in listed}
    assert len(names) == len(listed)
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or names[parent]["type"] == "dir"


def test_ls_escapes_what_a_terminal_would_obey_and_only_there(tar: Path) -> None:
    with tarfile.open(tar, "w") as out:
        out.addfile(tarfile.TarInfo("red\x1b[31m\u00fc"))
    ok("convert", tar)
    layer = tar.with_name("layer.stargz")
    assert "red\x1b[31m\u00fc\n" in ok("ls", layer, env={"PYTHONUTF8": "1"})
    terminal, side = os.openpty()
    assert run("ls", layer, stdout=side, env={"PYTHONUTF8": "1"}).returncode == 0
    assert "red\\x1b[31m\u00fc" in os.read(terminal, 65536).decode()
    os.close(side)
    os.close(terminal)


# --- cat --------------------------------------------------------------------------------------


def test_cat_writes_files_one_after_the_other(data: Path, tree: Path) -> None:
    with tarfile.open(data / "tree.tar") as tar:
        conf, zeros = (tar.extractfile(n).read() for n in ("etc/conf", "data/zeros"))  # type: ignore[union-attr]
    done = run("cat", tree, "etc/conf", "/data/zeros", "etc/empty", "--json", text=False)
    assert done.stdout == conf + zeros
    assert json.loads(done.stderr) == [
        {"name": "etc/conf", "size": 700},
        {"name": "data/zeros", "size": 50000},
        {"name": "etc/empty", "size": 0},
    ]


def test_cat_reads_a_layer_from_a_pipe_or_a_redirected_file(tree: Path) -> None:
    conf = ok("cat", tree, "etc/conf", text=False)
    assert ok("cat", "-", "etc/conf", input=tree.read_bytes(), text=False) == conf
    with tree.open("rb") as file:
        assert ok("cat", "-", "etc/conf", stdin=file, text=False) == conf


def test_cat_follows_links_within_the_layer_only(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "layer.tar", "w") as out:
        info = tarfile.TarInfo("real/deep/file")
        info.size = 5
        out.addfile(info, io.BytesIO(b"hello"))
        links = {
            "to-dir": "real/deep",
            "absolute": "/to-dir/file",
            "out": "../../../../real/deep/file",
            "real/up": "../to-dir/../deep/file",
            "loop": "loop",
            "dangling": "nowhere",
            "escape": "/etc/hostname",
        }
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            out.addfile(link)
    ok("convert", tmp_path / "layer.tar")
    layer = tmp_path / "layer.stargz"
    for path in ("to-dir/file", "absolute", "out", "real/up", "real/deep/../deep/./file"):
        assert ok("cat", layer, path) == "hello"
    assert "more than 40" in fails(1, "cat", layer, "loop")
    assert "nowhere" in fails(1, "cat", layer, "dangling")
    assert "etc" in fails(1, "cat", layer, "escape")
    assert ok("ls", layer, "to-dir").split() == ["file"]


def test_cat_of_what_is_no_file_writes_nothing(tree: Path) -> None:
    assert "directory" in fails(1, "cat", tree, "etc/conf", "etc")
    assert "fifo" in fails(1, "cat", tree, "etc/conf", "run/pipe")
    assert "no/such" in fails(1, "cat", tree, "etc/conf", "no/such")
    assert "etc/conf/x" in fails(1, "cat", tree, "etc/conf/x")


def test_reads_are_checked_against_the_toc_digest(tree: Path, goldens: list[Any]) -> None:
    good = next(g["toc_digest"] for g in goldens if g["name"] == "tree")
    assert ok("cat", tree, "etc/conf", "--toc-digest", good, "--require-verified")
    bad = "sha256:" + "0" * 64
    for name, *paths in (["cat", "etc/conf"], ["ls"], ["info"], ["verify"], ["toc"]):
        text = fails(3, name, tree, *paths, "--toc-digest", bad)
        assert bad in text
        assert good in text


# --- extract, verify --------------------------------------------------------------------------


def test_extract_makes_the_trees_files(data: Path, tree: Path, tmp_path: Path) -> None:
    result = json.loads(ok("extract", tree, "-C", tmp_path / "root", "--json"))
    with tarfile.open(data / "tree.tar") as tar:
        for info in tar:
            path = tmp_path / "root" / info.name
            if info.isreg() or info.islnk():
                assert path.read_bytes() == tar.extractfile(info).read()  # type: ignore[union-attr]
            elif info.issym():
                assert os.readlink(path) == info.linkname  # noqa: PTH115
    assert not (tmp_path / "root/dev/null").exists()
    assert not (tmp_path / "root/setuid").stat().st_mode & stat.S_ISUID
    assert result["files"] == 7
    assert result["skipped"]["device nodes"] == 2


def test_extract_of_some_paths(tree: Path, tmp_path: Path) -> None:
    assert ok("extract", tree, "etc", "/usr/bin/tool", "-C", tmp_path).startswith("4 files, ")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"etc/conf", "etc/conf2", "etc/empty", "usr/bin/tool"}
    assert "no/such" in fails(1, "extract", tree, "no/such", "-C", tmp_path)


def test_extract_keeps_set_id_bits_when_asked(tree: Path, tmp_path: Path) -> None:
    ok("extract", tree, "setuid", "--setid", "-C", tmp_path)
    assert (tmp_path / "setuid").stat().st_mode & stat.S_ISUID


def test_verify_of_a_sound_layer(tree: Path) -> None:
    assert ok("verify", tree).startswith("ok: ")
    result = json.loads(ok("verify", tree, "--json"))
    assert result["ok"] is True
    assert result["errors"] == []
    assert result["files"] > 5


def test_verify_names_what_is_damaged(tree: Path, tmp_path: Path) -> None:
    entries = json.loads(ok("toc", tree))["entries"]
    offset = next(e["offset"] for e in entries if e["name"] == "data/random.bin")
    blob = bytearray(tree.read_bytes())
    blob[offset + 200] ^= 1  # random bytes are stored, not compressed: the content changes
    damaged = tmp_path / "damaged"
    damaged.write_bytes(blob)
    done = run("verify", damaged, "--json")
    assert done.returncode == 3
    result = json.loads(done.stdout)
    assert result["ok"] is False
    assert result["errors"]
    for error in result["errors"]:
        assert set(error) == {"name", "offset", "message"}
    assert any(error["name"] == "data/random.bin" for error in result["errors"])
    assert len(done.stderr.splitlines()) == len(result["errors"])
    assert run("verify", damaged).stdout.startswith("FAILED: ")
    fails(3, "cat", damaged, "data/random.bin")
    assert ok("cat", damaged, "etc/conf", text=False)


def test_the_package_runs_from_its_own_directory_too() -> None:
    assert "usage: stargz" in ok("--help", cwd=ROOT)
