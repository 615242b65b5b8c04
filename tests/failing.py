"""Runs commands in which one chosen call on a file fails, or after which they are killed.

    with Failing(tmp_path / "shim") as failing:
        done = failing.run("convert", tar, folder / "out", below=folder)
        done.seen["write"]                                           # calls of each kind
        failing.run(..., below=folder, call="fsync", at=0, error=errno.EIO)
        failing.run(..., below=folder, call="any", at=17)            # SIGKILL at the 18th call

A process that has tests/failing.c preloaded, and all modules imported, forks a child for each:
a case takes milliseconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absence import absent
from command import environment

KINDS = ("open", "write", "fsync", "rename", "link", "close", "truncate", "mkdir")

# What commands import late is imported before the fork, once.
_DRIVER = """
import ctypes, json, os, signal, sys
from importlib import import_module
for name in json.loads(sys.argv[1]):
    import_module(name)
from stargz.cli import main
N = len(json.loads(sys.argv[2]))
class State(ctypes.Structure):
    _fields_ = [("seen", ctypes.c_long * (N + 1)), ("hit", ctypes.c_long), ("kind", ctypes.c_long),
                ("at", ctypes.c_long), ("on", ctypes.c_long), ("error", ctypes.c_long),
                ("below", ctypes.c_char * 4096)]
shim = ctypes.CDLL(None)
shim.failing_state.restype = ctypes.POINTER(State)
state = shim.failing_state().contents
for line in sys.stdin:
    case = json.loads(line)
    ctypes.memset(ctypes.byref(state), 0, ctypes.sizeof(state))
    state.kind, state.at, state.on = case["kind"], case["at"], case["on"]
    state.error = case["error"]
    out, err = os.memfd_create("out"), os.memfd_create("err")
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1), os.dup2(err, 2)
        os.environ.update(case["env"])
        state.below = os.fsencode(case["below"])
        try:
            code = main(case["words"])
            sys.stdout.flush()
        finally:
            state.below = b""
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = []
    for fd in (out, err):
        with os.fdopen(fd, "rb") as file:
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    print(json.dumps({"code": code, "out": said[0], "err": said[1], "seen": list(state.seen),
                      "hit": state.hit}), flush=True)
"""

_MODULES = (
    "stargz.cli._options", "stargz.conversion", "stargz.packing", "stargz.indexing",
    "stargz.indexes", "stargz.extract", "stargz.patching", "stargz.oci.conversion",
    "stargz.oci.extraction", "stargz.oci.image", "stargz.oci.local", "stargz.oci.soci.images",
    "stargz.oci.bulk", "stargz.tree", "stargz.cache", "concurrent.futures.thread", "tempfile",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended, what it said, the calls that it made by kind ("any": all), and how many
    of them failed."""

    code: int
    out: str
    err: str
    seen: dict[str, int]
    hit: int


class Failing:
    """See above; `folder` takes the compiled shim."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("gcc") is None:
            absent("gcc is not installed (Debian's package gcc)")
        folder.mkdir(exist_ok=True)
        library = folder / "failing.so"
        source = Path(__file__).with_name("failing.c")
        compiler = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, source, "-ldl"]
        subprocess.run(compiler, check=True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, json.dumps(_MODULES), json.dumps(KINDS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment(LD_PRELOAD=f"{os.environ.get('LD_PRELOAD', '')} {library}"),
        )  # fmt: skip

    def run(
        self,
        *words: object,
        below: Path,
        call: str = "",
        at: int = 0,
        on: bool = False,
        error: int = 0,
        env: dict[str, str] | None = None,
    ) -> Done:
        """Run `stargz WORDS`. The call number `at` (from 0) of a kind, or of "any", on files
        `below` a folder fails with `error`, and with `on` all behind it; without `error` it is
        SIGKILL."""
        kind = -1 if not call else len(KINDS) if call == "any" else KINDS.index(call)
        case: dict[str, Any] = {
            "words": list(map(str, words)), "below": str(below), "kind": kind, "at": at, "on": on,
            "error": error, "env": env or {},
        }  # fmt: skip
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        seen = dict(zip((*KINDS, "any"), told["seen"], strict=True))
        return Done(told["code"], told["out"], told["err"], seen, told["hit"])

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
