"""How the commands fail: one line, the right exit code, and nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import command, environment, fails, ok, run

USAGE = [
    [],
    ["no-such-command"],
    ["--no-such-option"],
    ["ls"],
    ["convert"],
    ["convert", "-"],
    ["convert", "a.tar", "--level", "0"],
    ["convert", "a.tar", "--level", "13"],
    ["convert", "a.tar", "--level", "fast"],
    ["convert", "a.tar", "--format", "zip"],
    ["convert", "a.tar", "--chunk-size", "4X"],
    ["convert", "a.tar", "--chunk-size", "-1"],
    ["convert", "a.tar", "--threads", "0"],
    ["convert", ".tar"],
    ["info", "a", "--toc-digest", "sha256:12"],
    ["cat", "a"],
]


@pytest.mark.parametrize("args", USAGE, ids=" ".join)
def test_wrong_usage_is_exit_code_2(args: list[str], tmp_path: Path) -> None:
    text = fails(2, *args, cwd=tmp_path)
    assert args[:1] != ["convert"] or not list(tmp_path.iterdir()), text


@pytest.mark.parametrize("size", ["1", "512", "2G"])
def test_chunk_sizes_out_of_bounds_are_wrong_usage(size: str, data: Path, tmp_path: Path) -> None:
    text = fails(2, "convert", data / "tree.tar", tmp_path / "x", "--chunk-size", size)
    assert "chunk" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["info", "ls", "verify", "toc", "extract", "convert"])
def test_a_missing_source_is_named(name: str, tmp_path: Path) -> None:
    text = fails(1, name, "no-such-file", cwd=tmp_path)
    assert "no-such-file" in text
    assert "No such file" in text
    assert not list(tmp_path.iterdir())


def test_a_directory_as_source_or_target(data: Path, tmp_path: Path) -> None:
    assert str(tmp_path) in fails(1, "info", tmp_path)
    assert str(tmp_path) in fails(1, "convert", tmp_path)
    assert "directory" in fails(1, "convert", data / "tree.tar", tmp_path)
    assert "missing" in fails(1, "convert", data / "tree.tar", tmp_path / "missing/x")
    assert not list(tmp_path.iterdir())


def test_an_address_is_refused_by_name() -> None:
    assert "https://host/blob" in fails(1, "info", "https://host/blob")


def test_a_line_break_or_escape_in_a_name_stays_on_the_line(tmp_path: Path) -> None:
    text = fails(1, "info", "bad\nname\x1b[31m", cwd=tmp_path)
    assert "bad\\nname\\x1b[31m" in text


BAD_TARS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda tar: b"",
    "text": lambda tar: b"this is no tar, whatever its name says\n" * 100,
    "truncated": lambda tar: tar[:15000],
    "checksum": lambda tar: tar[:150] + b"9" + tar[151:],
}


@pytest.mark.parametrize("kind", BAD_TARS)
def test_bad_input_of_convert(kind: str, data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(BAD_TARS[kind]((data / "tree.tar").read_bytes()))
    if kind == "empty":
        layer = tmp_path / "layer"
        for src in (bad, "-"):  # an empty tar, as Go has it
            done = run("convert", "-f", src, layer, input="")
            assert done.returncode == 0 and ok("ls", layer) == ""
            assert "no bytes" in done.stderr and done.stderr.count("\n") == 1
    else:
        assert str(bad) in fails(1, "convert", bad)
        assert [p.name for p in tmp_path.iterdir()] == ["bad.tar"]
        with bad.open("rb") as file:
            assert "standard input" in fails(1, "convert", "-", "x", cwd=tmp_path, stdin=file)
        assert [p.name for p in tmp_path.iterdir()] == ["bad.tar"]


def test_bad_blobs(data: Path, tmp_path: Path) -> None:
    blob = (data / "tree.esgz").read_bytes()
    bad = tmp_path / "bad"
    for content in (b"", b"x", b"\0" * 51, blob[:-1], blob[-51:], blob[:-100] + blob[-51:]):
        bad.write_bytes(content)
        assert str(bad) in fails(1, "ls", bad)
        assert str(bad) in fails(3, "verify", bad)


def test_debug_adds_the_traceback(tmp_path: Path) -> None:
    done = run("info", "no-such-file", cwd=tmp_path, env={"STARGZ_DEBUG": "1"})
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1].startswith("stargz: no-such-file")


def test_an_unexpected_exception_is_one_line_that_says_how_to_report_it(tmp_path: Path) -> None:
    # A broken module in the place of a command's own stands in for a bug.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "class Broken(types.ModuleType):\n"
        "    HELP = EXAMPLE = ''\n"
        "    def add_arguments(self, parser): raise ZeroDivisionError('of zero\\nby zero')\n"
        "sys.modules['stargz.cli.ls'] = Broken('stargz.cli.ls')\n"
    )
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = run("ls", "x", env={"PYTHONPATH": path})
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "ZeroDivisionError: of zero\\nby zero" in done.stderr
    assert "STARGZ_DEBUG=1" in done.stderr


# --- standard output --------------------------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "args", [["--help"], ["ls", "-R"], ["cat", "data/zeros"], ["toc"], ["info", "--json"]]
)
def test_a_full_standard_output(args: list[str], unbuffered: str, data: Path) -> None:
    words = args if args[0].startswith("-") else [args[0], str(data / "tree.esgz"), *args[1:]]
    with Path("/dev/full").open("wb") as full:
        done = run(*words, stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 1
    assert done.stderr == "stargz: standard output: No space left on device\n"


def test_convert_to_a_full_standard_output(data: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run("convert", data / "tree.tar", "-", stdout=full)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("args", [["--help"], ["ls", "-R"], ["cat", "data/zeros"], ["toc"]])
def test_a_reader_that_goes_away_ends_the_command_quietly(
    args: list[str], unbuffered: str, data: Path
) -> None:
    words = args if args[0].startswith("-") else [args[0], str(data / "tree.esgz"), *args[1:]]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(*words, stdout=writer, env={"PYTHONUNBUFFERED": unbuffered})
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_convert_into_a_pipe_that_closes(data: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("convert", data / "tree.tar", "-", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_a_closed_standard_output_is_an_error(data: Path) -> None:
    words = command("cat", data / "tree.esgz", "etc/conf")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words],
        env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


# --- signals ----------------------------------------------------------------------------------


def endless_tar() -> Iterator[bytes]:
    """A tar without end: members of a mebibyte each, as pieces to write."""
    content = os.urandom(1 << 20)
    while True:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        yield info.tobuf()
        yield content


def feed(process: subprocess.Popen[bytes], size: int) -> None:
    """Write `size` bytes of an endless tar, and leave the pipe open."""
    stdin = process.stdin
    assert stdin is not None
    for piece in endless_tar():
        stdin.write(piece)
        size -= len(piece)
        if size < 0:
            break


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=str,
)
@pytest.mark.parametrize("options", [[], ["--prioritize", "file"]], ids=["plain", "spooled"])
def test_an_interrupted_convert_leaves_nothing(
    signum: int, code: int, options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        command("convert", "-", tmp_path / "out.stargz", *options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(TMPDIR=str(tmp_path / "tmp")),
        bufsize=0,
    )
    with process:
        feed(process, 24 << 20)  # a pipe holds 64 KiB: the rest of it has been read
        process.send_signal(signum)
        process.send_signal(signum)  # an impatient user
        assert process.wait(60) == code
        assert process.stderr is not None
        assert process.stderr.read() == b""
        with pytest.raises(BrokenPipeError):
            feed(process, 1 << 20)
    assert [p.name for p in tmp_path.rglob("*")] == ["tmp"]


def test_an_ignored_hangup_stays_ignored(data: Path, tmp_path: Path) -> None:
    words = command("convert", "-", tmp_path / "out.stargz")
    process = subprocess.Popen(
        ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *words],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        tar = (data / "tree.tar").read_bytes()
        # A pipe holds 64 KiB: what is written beyond has been waited for, in the right process.
        process.stdin.write(tar[:80000])
        process.stdin.flush()
        process.send_signal(signal.SIGHUP)
        process.stdin.write(tar[80000:])
        process.stdin.close()
        assert process.wait(60) == 0
    assert (tmp_path / "out.stargz").exists()


def test_main_gives_the_callers_signal_handlers_back() -> None:
    code = (
        "import signal; from stargz.cli import main; before = signal.getsignal(2);"
        "main(['--version']); assert signal.getsignal(2) is before is not None"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=environment(), check=True, stdout=subprocess.DEVNULL
    )


# --- full disks -------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "stargz-test", where],
        capture_output=True, text=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"this user cannot mount a small file system: {mounted.stderr.strip()}")
    yield where
    subprocess.run(["umount", where], check=True)


@pytest.fixture
def large_tar(tmp_path: Path) -> Path:
    """A tar of 4 MiB that does not compress."""
    path = tmp_path / "large.tar"
    with path.open("wb") as file:
        for piece, _ in zip(endless_tar(), range(8), strict=False):
            file.write(piece)
        file.write(bytes(1024))
    with tarfile.open(path) as tar:
        assert len(tar.getnames()) == 4
    return path


def test_convert_to_a_full_disk(small_disk: Path, large_tar: Path) -> None:
    target = small_disk / "out.stargz"
    text = fails(1, "convert", large_tar, target)
    assert str(small_disk) in text
    assert "No space left on device" in text
    assert not list(small_disk.iterdir())
    target.write_bytes(b"precious")
    fails(1, "convert", large_tar, target, "--force")
    assert [p.read_bytes() for p in small_disk.iterdir()] == [b"precious"]


def test_spooling_to_a_full_disk(small_disk: Path, large_tar: Path) -> None:
    env = {"TMPDIR": str(small_disk)}
    data = large_tar.read_bytes()
    for args in (["info", "-"], ["convert", "-", "/dev/null", "--prioritize", "file"]):
        text = fails(1, *args, input=data, env=env, text=False)
        assert "No space left on device" in text
        assert not list(small_disk.iterdir())


def test_extract_to_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    tar = tmp_path / "two.tar"
    with tarfile.open(tar, "w") as out:
        for name in ("one", "two"):
            (tmp_path / name).write_bytes(os.urandom(700_000))
            out.add(tmp_path / name, name)
    ok("convert", tar)
    text = fails(1, "extract", tmp_path / "two.stargz", "-C", small_disk)
    assert "No space left on device" in text
    # A file is there complete or not at all.
    for path in small_disk.rglob("*"):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_standard_input_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for words in (["ls", "-"], ["verify", "-"], ["info", "-"], ["convert", "-", tmp_path / "out"]):
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as writable:
            text = fails(1, *words, stdin=writable)
        assert text == "standard input: Bad file descriptor"


def test_a_spool_that_grows_too_large_is_named() -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    text = fails(1, "ls", "-", input=bytes(3 << 20), text=False, preexec_fn=small)
    assert text == f"{tempfile.gettempdir()} (TMPDIR can name another place): File too large"


@pytest.mark.parametrize("system", ["linux", "Windows", "darwin"])
def test_a_system_is_no_platform(system: str) -> None:
    text = fails(2, "image", "ls", "oci:nowhere", "--platform", system)
    assert f"'{system}' is not a platform, but a system" in text
    assert f"such as {system.lower()}/amd64" in text
