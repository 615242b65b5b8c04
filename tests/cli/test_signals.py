"""Signals end a command in the middle of long work in C: at once, and with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bombs
import handmade
import layouts
import pytest
from command import command, environment

SIZE = 16 << 30  # some ten seconds of work for each command, or much more
BUSY = 0.7  # seconds of processor time after which a command is at it


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    bombs.layer(folder / "one", ["f"], SIZE)
    bombs.layer(folder / "two", ["g"], SIZE)
    bombs.layer(folder / "bare", ["f"], SIZE, digest=False)
    header = bytearray(handmade.header("f"))
    # A size of more than 11 octal digits is a number of base 256.
    header[124:136] = b"\x80" + SIZE.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with (folder / "tar.gz").open("wb") as file:
        file.writelines(bombs.zeros(SIZE, bytes(header)))
    (folder / "dir").mkdir()
    with (folder / "dir/f").open("wb") as file:
        file.truncate(SIZE)
    layout = layouts.Layout(folder / "layout")
    packed = (folder / "tar.gz").read_bytes()
    layout.tag(layout.manifest([layout.plain_layer(b"", packed)]), "t")
    return folder


def processor_time(pid: int) -> float:
    """Of all threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def busy(place: Path, folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`stargz WORDS` in the middle of its work; temporary files are in `folder`."""
    options = {"env": environment(TMPDIR=str(folder)), "cwd": place}
    with subprocess.Popen(
        command("-q", *words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options
    ) as process:
        try:
            until = time.monotonic() + 60
            while processor_time(process.pid) < BUSY:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


COMMANDS = [
    "cat one f",
    "cat bare f",
    "extract one -C {}",
    "extract bare -C {} --threads 1",
    "verify one",
    "convert tar.gz {}/out",
    "convert tar.gz {}/out --lossless --level 6 --chunk-size 64M",
    "convert tar.gz {}/out --prioritize f",
    "pack dir {}/out",
    "delta one two -o {}/out",
    "verify oci:layout:t",
    "image convert oci:layout:t oci:{}/out --flatten",
    "image bulk layout oci:{}/out",
]


@pytest.mark.parametrize("words", COMMANDS)
def test_long_work_is_interrupted(words: str, place: Path, tmp_path: Path) -> None:
    number = signal.SIGTERM if COMMANDS.index(words) % 2 else signal.SIGINT
    with busy(place, tmp_path, *words.format(tmp_path).split()) as process:
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == b""
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    # A layout may have been made: of nothing.
    assert [p for p in left if p.name not in ("oci-layout", "index.json")] == []


CODE = """
import io, signal, sys, tarfile, threading
import stargz

out = io.BytesIO()
tar = tarfile.open(fileobj=(made := io.BytesIO()), mode="w")
info = tarfile.TarInfo("f")
info.size = 192 << 20
tar.addfile(info, open("/dev/zero", "rb"))
tar.close()
stargz.convert(made.getvalue(), out, chunk_size=192 << 20)
order = []

def read():
    with stargz.open(out.getvalue(), threads=1) as layer:
        assert layer.read("f", 0, 4096) == bytes(4096)
    order.append("read")
"""


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE + code],
        env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_handlers_run_during_a_read() -> None:
    """One that raises nothing changes nothing; what one raises is what the read raises."""
    run("""
signal.signal(signal.SIGPROF, lambda *_: order.append("handler"))
signal.setitimer(signal.ITIMER_PROF, 0.02)
read()
assert order == ["handler", "read"], order
def handler(*_):
    raise LookupError("mine")
signal.signal(signal.SIGPROF, handler)
signal.setitimer(signal.ITIMER_PROF, 0.02)
try:
    read()
except LookupError as error:
    assert str(error) == "mine"
else:
    sys.exit("not raised")
read()
assert order == ["handler", "read", "read"], order
""")


def test_reads_of_other_threads_go_on() -> None:
    run("""
thread = threading.Thread(target=read)
thread.start()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    order.append("raised")
thread.join()
assert order == ["raised", "read"], order
""")


# Sends the process SIGINT when it imports its Nth module from stargz.cli on.
EARLY = """
import os, sys

left = None
def hook(event, args):
    global left
    if event == "import":
        if args[0] == "stargz.cli" and left is None:
            left = int(os.environ["TEST_NTH"])
        elif left is not None:
            left -= 1
        if left == 0:
            left = -1
            os.kill(os.getpid(), 2)

sys.addaudithook(hook)
"""


@pytest.mark.parametrize("nth", [0, 1, 2, 4, 8, 12, 16, 20, 30, 50, 70])
def test_an_interrupt_while_it_starts_shows_no_traceback(
    nth: int, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(EARLY)
    start = "import sys; from stargz.__main__ import main; sys.exit(main())"
    env = environment(TEST_NTH=str(nth))
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", start, "ls", data / "tree.esgz"],
        env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) in [(-signal.SIGINT, ""), (130, "")]


def test_errors_that_an_interrupt_causes_are_the_interrupt(data: Path, tmp_path: Path) -> None:
    # As argparse's own code for intermixed arguments does, which cannot be broken into.
    (tmp_path / "sitecustomize.py").write_text(
        "import argparse, os\n"
        "def parse(self, words):\n"
        "    try:\n"
        "        os.kill(os.getpid(), 2)\n"
        "    finally:\n"
        "        raise AttributeError('save_nargs')\n"
        "argparse.ArgumentParser.parse_intermixed_args = parse\n"
    )
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env["PYTHONPATH"]])
    done = subprocess.run(
        command("ls", data / "tree.esgz"), env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "")
