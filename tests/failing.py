"""Runs commands in which one chosen call on a file fails, or after which they are killed.

    with Failing(tmp_path / "shim") as failing:
        done = failing.run("convert", tar, folder / "out", below=folder)
        done.seen["write"]                                           # calls of each kind
        failing.run(..., below=folder, call="fsync", at=0, error=errno.EIO)
        failing.run(..., below=folder, call="any", at=17)            # SIGKILL at the 18th call
    failing.run(..., below=folder, call="memory", at=3, error=errno.ENOMEM)

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
COUNTED = (*KINDS, "any", "memory", "thread")  # memory: that kernels ask for

# What commands import late is imported before the fork, once.
_DRIVER = """
import ctypes, gc, json, os, signal, sys, threading
from importlib import import_module
for name in json.loads(sys.argv[1]):
    import_module(name)
from stargz.cli import main
N = len(json.loads(sys.argv[2]))
class State(ctypes.Structure):
    _fields_ = [("seen", ctypes.c_long * N), ("hit", ctypes.c_long), ("live", ctypes.c_long),
                ("kind", ctypes.c_long), ("at", ctypes.c_long), ("on", ctypes.c_long),
                ("error", ctypes.c_long), ("below", ctypes.c_char * 4096)]
shim = ctypes.CDLL(None)
shim.failing_state.restype = ctypes.POINTER(State)
state = shim.failing_state().contents
assert shim.failing_modules() > 5
def files():  # once nobody opens or closes any
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass  # that of the list
    return sorted(found)
for line in sys.stdin:
    case = json.loads(line)
    ctypes.memset(ctypes.byref(state), 0, ctypes.sizeof(state))
    state.kind, state.at, state.on = case["kind"], case["at"], case["on"]
    state.error = case["error"]
    out, err, held = (os.memfd_create(name) for name in ("out", "err", "held"))
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1), os.dup2(err, 2)
        os.environ.update(case["env"])
        code, opened = 99, files()
        state.below = os.fsencode(case["below"])
        try:
            if case["words"][0] == "python":
                exec(case["words"][1], {"words": case["words"][2:], "state": state})
                code = 0
            else:
                code = main(case["words"])
            sys.stdout.flush()
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            state.below = b""
            gc.collect()
            text = ctypes.create_string_buffer(4096)
            shim.failing_live(text, len(text))
            left = [name for name in files() if name not in opened]
            os.write(held, json.dumps([text.value.decode(), left]).encode())
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = []
    for fd in (out, err, held):
        with os.fdopen(fd, "rb") as file:
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    print(json.dumps({"code": code, "out": said[0], "err": said[1], "seen": list(state.seen),
                      "hit": state.hit, "live": state.live, "held": said[2]}), flush=True)
"""

_MODULES = (
    "stargz.cli._options", "stargz.conversion", "stargz.packing", "stargz.indexing",
    "stargz.indexes", "stargz.extract", "stargz.patching", "stargz.oci.conversion",
    "stargz.oci.extraction", "stargz.oci.image", "stargz.oci.local", "stargz.oci.soci.images",
    "stargz.oci.bulk", "stargz.tree", "stargz.cache", "concurrent.futures.thread", "numpy",
    "tempfile",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended, what it said, the calls that it made by kind ("any": all on files), how
    many of them failed, and how many blocks the kernels still have; `held` tells who asked for
    these, and files that are open."""

    code: int
    out: str
    err: str
    seen: dict[str, int]
    hit: int
    live: int
    held: str

    def holds_nothing(self) -> None:
        """Whatever kernels asked for is given back, and files are closed."""
        assert (self.live, self.held) == (0, '["", []]'), self


def sanitized() -> bool:
    """Whether a sanitizer is what gives out memory: then it is not counted."""
    return "san.so" in os.environ.get("LD_PRELOAD", "")


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
            [sys.executable, "-c", _DRIVER, json.dumps(_MODULES), json.dumps(COUNTED)],
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
        """Run `stargz WORDS`, or of ("python", SOURCE, ...) the source. The call number `at` (from
        0) of a kind, or of "any", on files `below` a folder fails with `error`, and with `on` all
        behind it; without `error` it is SIGKILL."""
        kind = COUNTED.index(call) if call else -1
        case: dict[str, Any] = {
            "words": list(map(str, words)), "below": str(below), "kind": kind, "at": at, "on": on,
            "error": error, "env": env or {},
        }  # fmt: skip
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        seen = dict(zip(COUNTED, told.pop("seen"), strict=True))
        return Done(seen=seen, **told)

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
