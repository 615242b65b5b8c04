"""The public API is typed: mypy and pyright accept its use and refuse its misuse."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absence import absent

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "stargz"
CASES = ["public_api.py", "misuse.py"]


@pytest.mark.parametrize("case", CASES)
def test_mypy(case: str, tmp_path: Path) -> None:
    # --strict includes --warn-unused-ignores: a mistake that is not caught is an error too.
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull]
    command += ["--follow-imports=silent", "--cache-dir", str(tmp_path)]
    command += [str(TESTS / "typing_cases" / case)]
    environ = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr


def pyright(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """By basedpyright, which brings its Node along: pyright's wheel fetches one when it runs."""
    if importlib.util.find_spec("basedpyright") is None:
        absent("basedpyright is not installed: pip install basedpyright")
    # Installed as users have it, beside their project; what they do not see is not looked for.
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, *options]
    # --verifytypes asks the `python` of PATH where packages are.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environ = {**os.environ, "PATH": path}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environ)


def test_pyright(tmp_path: Path) -> None:
    settings = {
        "include": [str(TESTS / "typing_cases" / case) for case in CASES],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = pyright(tmp_path, "--project", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_package_shows_has_types_for_every_checker(tmp_path: Path) -> None:
    """Attributes whose type would only be inferred count: checkers infer differently."""
    import stargz

    done = pyright(tmp_path, "--verifytypes", "stargz", "--ignoreexternal", "--outputjson")
    found = {
        symbol["name"]: symbol for symbol in json.loads(done.stdout)["typeCompleteness"]["symbols"]
    }
    assert "stargz.layer.Layer.read" in found, done.stdout
    shown = {name: getattr(stargz, name) for name in stargz.__all__ if name != "__version__"}
    for name, value in shown.items():
        module = inspect.ismodule(value)
        home = f"stargz.{name}" if module else f"{value.__module__}.{value.__qualname__}"
        for symbol in found.values():
            if symbol["name"] == home or symbol["name"].startswith(f"{home}."):
                assert symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"], symbol


def test_every_cython_module_has_a_stub() -> None:
    """Each that Python code imports; one that is only cimported has nothing to type."""
    python = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for path in PACKAGE.rglob("*.pyx"):
        used = re.search(rf"stargz\._engine(?:\.| import ){path.stem}\b", python)
        assert not used or path.with_suffix(".pyi").exists(), f"{path.name} has no .pyi"
    assert (PACKAGE / "py.typed").exists()


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


@pytest.mark.parametrize(
    "path",
    sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]),
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_every_function_is_annotated(path: Path) -> None:
    for function in functions(path):
        where = f"{path.name}:{function.lineno}: {function.name}"
        # mypy --strict gives an __init__ with annotated arguments None by itself.
        assert function.returns or function.name == "__init__", f"{where} has no return type"
        spec = function.args
        for arg in [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]:
            assert arg.annotation or arg.arg in ("self", "cls"), f"{where}: {arg.arg}"
        for rest in (spec.vararg, spec.kwarg):
            assert rest is None or rest.annotation, f"{where}: {rest}"


def test_every_public_name_has_a_docstring() -> None:
    import stargz

    for name in stargz.__all__:
        value = getattr(stargz, name)
        if callable(value):
            assert (value.__doc__ or "").strip(), f"stargz.{name} has no docstring"
