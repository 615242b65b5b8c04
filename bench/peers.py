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
