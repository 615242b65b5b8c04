"""Fixtures that several test modules share: data, outside tools, the reference program."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from absence import absent

import stargz

DATA = Path(__file__).parent / "data"
INTEROP = Path(__file__).parent / "interop"

# Signals that whoever started the tests ignores (nohup, a shell's background job) would be
# ignored by the programs under test too.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        _handler = signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        signal.signal(_number, _handler)

# Nothing is timed: a machine may be busy. (An installed wheel is tried without hypothesis.)
with contextlib.suppress(ImportError):
    import hypothesis

    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")

# Child processes must find the stargz that is tested, not the uncompiled one in the working
# directory.
if Path(stargz.__file__).parent != DATA.parent.parent / "stargz":
    os.environ["PYTHONSAFEPATH"] = "1"


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's disk cache: of each test its own, made when something is kept in it."""
    path = tmp_path_factory.getbasetemp() / "caches" / str(next(_caches))
    monkeypatch.setenv("STARGZ_CACHE_DIR", str(path))
    return path


_caches = itertools.count()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of golden tars and blobs."""
    return DATA


@pytest.fixture(scope="session")
def goldens() -> list[dict[str, Any]]:
    """What the reference built: see tests/data/manifest.json."""
    return json.loads((DATA / "manifest.json").read_text())


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """tool(name): the path of a program, or the test is skipped (fails in CI)."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            absent(f"{name} is not installed")
        return path

    return find


def go_program(build: Path, folder: Path, what: str) -> Callable[..., Any]:
    """run(command, *args): run a program that `build` builds; its JSON, or RuntimeError."""
    program = folder / "program"
    built = subprocess.run([build, program], capture_output=True, text=True)
    if built.returncode:
        absent(f"{what} cannot be built: {built.stderr.strip()}")

    def run(*args: object, env: dict[str, str] | None = None) -> Any:
        command = [program, *map(str, args)]
        environ = os.environ | (env or {})
        done = subprocess.run(command, capture_output=True, text=True, env=environ)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return json.loads(done.stdout)

    run.version = built.stdout.strip()  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """reference(command, *args): the Go reference program of eStargz."""
    folder = tmp_path_factory.mktemp("reference")
    return go_program(INTEROP / "build", folder, "the Go reference program")


@pytest.fixture(scope="session")
def soci(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """soci(command, *args): the Go program over SOCI's own packages."""
    folder = tmp_path_factory.mktemp("soci")
    return go_program(INTEROP / "soci/build", folder, "the program over SOCI's packages")


@pytest.fixture(scope="session")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """chunked(command, *args): the Go program over both implementations of zstd:chunked."""
    folder = tmp_path_factory.mktemp("chunked")
    return go_program(INTEROP / "chunked/build", folder, "the program over zstd:chunked's packages")


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, list[str]], list[Any]]:
    """others(command, questions): what Go's packages make of names or tars (interop/names)."""
    program = tmp_path_factory.mktemp("names") / "program"
    env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    command = [shutil.which("go") or "/usr/lib/go/bin/go", "build", "-o", program, "."]
    try:
        folder = INTEROP / "names"
        built = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    except FileNotFoundError:
        absent("go is not installed")
    if built.returncode:
        absent(f"the program over Go's packages cannot be built: {built.stderr.strip()}")

    def run(command: str, questions: list[str]) -> list[Any]:
        text = json.dumps(questions)
        done = subprocess.run([program, command], input=text, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)

    return run
