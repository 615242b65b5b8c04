"""Other programs, run once: what they say when they fail, and that none outlives its use."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

Words = Sequence[object]

# Seconds after which a program counts as stuck.
PATIENCE = 3600
_START = 60
_END = 20


class PeerError(Exception):
    """Another program failed; the text is what it said."""


def run(*command: object, out: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a program; what it prints goes to `out`, or nowhere."""
    if out is None:
        _run(command, subprocess.DEVNULL, env)
    else:
        with out.open("wb") as file:
            _run(command, file, env)


def output(*command: object, env: dict[str, str] | None = None) -> bytes:
    """Run a program; what it prints."""
    return _run(command, subprocess.PIPE, env)


def _run(command: Words, out: int | IO[bytes], env: dict[str, str] | None) -> bytes:
    words = list(map(str, command))
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            env=env,
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"{words[0]} was stopped after {PATIENCE} seconds") from None
    _check(words, done.returncode, done.stderr)
    return done.stdout or b""


def stream(*command: object) -> int:
    """Run a program and read all that it prints: how many bytes that is."""
    with _piped(list(map(str, command))) as pipe:
        count, buffer = 0, bytearray(1 << 20)
        while size := pipe.readinto(buffer):  # type: ignore[attr-defined]
            count += size
        return count


@contextmanager
def _piped(words: list[str]) -> Iterator[IO[bytes]]:
    """What a program prints, to be read to its end; the program must succeed."""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout
            _, said = process.communicate(timeout=PATIENCE)
        except BaseException:
            process.kill()
            raise
    _check(words, process.returncode, said)


def pipeline(first: Words, second: Words, out: Path) -> None:
    """FIRST | SECOND > OUT; both must succeed."""
    with _piped(list(map(str, first))) as pipe, out.open("wb") as file:
        words = list(map(str, second))
        done = subprocess.run(
            words, stdin=pipe, stdout=file, stderr=subprocess.PIPE, timeout=PATIENCE
        )
        _check(words, done.returncode, done.stderr)


@contextmanager
def served(*command: object, ready: Callable[[], bool], log: Path) -> Iterator[None]:
    """A program in the foreground of its own, from when it is `ready` until the block ends."""
    words = list(map(str, command))
    with log.open("wb") as said:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        until = time.monotonic() + _START
        while not ready():
            if process.poll() is not None:
                _check(words, process.returncode or 1, log.read_bytes())
            if time.monotonic() > until:
                raise PeerError(f"{words[0]} was not ready after {_START} seconds")
            time.sleep(0.002)
        yield
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, and see that it does."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check(words: Sequence[str], code: int, said: bytes) -> None:
    if not code:
        return
    lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
    what = next((line for line in reversed(lines) if line), "")
    name = os.path.basename(words[0])  # noqa: PTH119
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    raise PeerError(f"{what} ({how})" if name in what else f"{name}: {what or how}")
