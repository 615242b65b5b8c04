"""What stargz is compared with, each as a function that runs it once."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@functools.cache
def reference_program() -> Path:
    """The Go reference package behind tests/interop/main.go, built once."""
    out = Path(tempfile.gettempdir()) / f"stargz-reference-{os.getuid()}"
    subprocess.run([ROOT / "tests/interop/build", out], check=True, stdout=subprocess.DEVNULL)
    return out


def reference(*args: object) -> Any:
    command = [reference_program(), *map(str, args)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@functools.cache
def soci_program() -> Path:
    """SOCI's packages behind tests/interop/soci/main.go, built once."""
    out = Path(tempfile.gettempdir()) / f"stargz-soci-{os.getuid()}"
    subprocess.run([ROOT / "tests/interop/soci/build", out], check=True, stdout=subprocess.DEVNULL)
    return out


@functools.cache
def chunked_program() -> Path:
    """Both packages that write zstd:chunked behind tests/interop/chunked/main.go, built once."""
    out = Path(tempfile.gettempdir()) / f"stargz-chunked-{os.getuid()}"
    build = ROOT / "tests/interop/chunked/build"
    subprocess.run([build, out], check=True, stdout=subprocess.DEVNULL)
    return out


def quietly(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)


def ratarmount(*args: object) -> list[str]:
    """Its command: of the PATH, or what $RATARMOUNT names, which may be of another environment."""
    return [os.environ.get("RATARMOUNT", "ratarmount"), *map(str, args)]


def ratarmount_first(src: Path) -> None:
    """Mount it where it has no index yet, and take it down again."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        quietly(*ratarmount("--index-file", Path(folder, "index.sqlite"), src, root))
        quietly("umount", root)


def gzip6(src: Path, dst: Path) -> None:
    with dst.open("wb") as out:
        subprocess.run(["gzip", "-6", "-c", src], check=True, stdout=out)


def igzip(src: Path, dst: Path) -> None:
    with dst.open("wb") as out:
        subprocess.run(["igzip", "-1", "-c", src], check=True, stdout=out)


def tar_xzf(src: Path, target: Path) -> None:
    subprocess.run(["tar", "xzf", src, "-C", target], check=True)


def python_pass() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)
