"""The Go references, each as a program that is built once. What else stargz is compared with is in
stargz.benchmark, which the command `stargz bench` uses too."""

from __future__ import annotations

import functools
import json
import os
import subprocess
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
def snapshotter_program() -> Path:
    """A stargz-snapshotter that is newer than Debian's, built once."""
    out = Path(tempfile.gettempdir()) / f"stargz-snapshotter-{os.getuid()}"
    command = [ROOT / "tests/interop/soci/build", out, "../snapshotter/newer"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


@functools.cache
def chunked_program() -> Path:
    """Both packages that write zstd:chunked behind tests/interop/chunked/main.go, built once."""
    out = Path(tempfile.gettempdir()) / f"stargz-chunked-{os.getuid()}"
    build = ROOT / "tests/interop/chunked/build"
    subprocess.run([build, out], check=True, stdout=subprocess.DEVNULL)
    return out
