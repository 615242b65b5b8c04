"""Runs the real command line, as a user's shell does: for the tests of the commands."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import stargz

# The commands run in other directories: they must find the very package under test.
ROOT = Path(stargz.__file__).parent.parent


def environment(**changes: str) -> dict[str, str]:
    """The environment of a user's shell."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STARGZ_", "PYTHON"))}
    if "STARGZ_CACHE_DIR" in os.environ:  # that of the test, not the user's
        kept["STARGZ_CACHE_DIR"] = os.environ["STARGZ_CACHE_DIR"]
    ours = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **ours, **changes}


def shell_environment() -> dict[str, str]:
    """That of a shell which starts commands by `env LD_PRELOAD="$PRELOADED"`: a shell itself ends
    with SIGSEGV where ThreadSanitizer is preloaded, whose setjmp is none for it."""
    return environment(LD_PRELOAD="", PRELOADED=os.environ.get("LD_PRELOAD", ""))


# What `run` leaves to whoever runs the tests: whether commands tell of files that stay open.
STRICT = ("PYTHONDEVMODE", "PYTHONWARNINGS")


def command(*args: object) -> list[str]:
    """The words of `stargz ARGS`."""
    return [sys.executable, "-m", "stargz", *map(str, args)]


def run(*args: object, env: dict[str, str] | None = None, **options: Any) -> Any:
    """Run `stargz ARGS`; the finished process, with its output as text."""
    options.setdefault("stdin", subprocess.DEVNULL)
    if "input" in options:
        del options["stdin"]
    for stream in ("stdout", "stderr"):
        options.setdefault(stream, subprocess.PIPE)
    options.setdefault("text", True)
    strict = {name: os.environ[name] for name in STRICT if name in os.environ}
    return subprocess.run(
        command(*args), env=environment(**strict, **(env or {})), timeout=120, **options
    )


def ok(*args: object, **options: Any) -> Any:
    """Run `stargz ARGS`, which must succeed and say nothing on stderr; its stdout."""
    done = run(*args, **options)
    assert (done.returncode, done.stderr or None) == (0, None), done
    return done.stdout


def fails(code: int, *args: object, **options: Any) -> str:
    """Run `stargz ARGS`, which must fail with one line on stderr and nothing on stdout."""
    done = run(*args, **options)
    out, err = done.stdout, done.stderr
    if isinstance(err, bytes):
        err = err.decode()
    assert done.returncode == code, err
    assert not out
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("stargz: ")
    assert "bug" not in lines[0]
    return lines[0].removeprefix("stargz: ")


# Each of several commands, in one process: how it ends, and what it says.
_TOGETHER = """
import contextlib, io, json, sys
from stargz.cli import main
told = []
for words in json.load(sys.stdin):
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = main(words)
        out.flush()
    told.append((code, out.buffer.getvalue().decode(), err.getvalue()))
json.dump(told, sys.stdout)
"""


def together(
    *lines: Sequence[object], env: dict[str, str] | None = None, **options: Any
) -> list[tuple[int, str, str]]:
    """Run each of `lines` as `stargz ARGS`, one after the other in one process: exit code, stdout
    and stderr of each. For tables of what needs no process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _TOGETHER],
        input=json.dumps([list(map(str, line)) for line in lines]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
        env=environment(**(env or {})),
        **options,
    )
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


class Here(NamedTuple):
    """How a command ended in this process, and what it said."""

    returncode: int
    stdout: Any
    stderr: str


def here(*args: object, text: bool = True) -> Here:
    """Run `stargz ARGS` in this process, which takes a hundredth of the time: for what needs no
    process of its own, nor standard input."""
    from stargz.cli import main

    with (
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = main([str(arg) for arg in args])
        out.flush()
    said = out.buffer.getvalue()  # type: ignore[attr-defined]
    return Here(code, said.decode() if text else said, err.getvalue())


def each_here(*lines: Sequence[object]) -> list[Here]:
    """The same of several, one after the other."""
    return [here(*line) for line in lines]


def ok_here(*args: object, text: bool = True) -> Any:
    """The same as `ok`, in this process."""
    done = here(*args, text=text)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def fails_here(code: int, *args: object) -> str:
    """The same as `fails`, in this process."""
    done = here(*args)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
    assert done.stderr.startswith("stargz: ") and "bug" not in done.stderr
    return done.stderr.removeprefix("stargz: ").rstrip()


def sha256(data: bytes) -> str:
    """As manifests write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
