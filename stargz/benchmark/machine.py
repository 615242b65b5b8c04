"""What the measurements run on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any


def machine(scratch: Path) -> dict[str, Any]:
    """The processor, memory, system, and where the files are."""
    return {
        "cpu": _field("/proc/cpuinfo", r"^(?:model name|Model|cpu model)\s*:\s*(.*)$")
        or platform.processor()
        or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": _field("/etc/os-release", r'^PRETTY_NAME="?(.*?)"?$') or platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "scratch": file_system(scratch),
    }


def _field(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(errors="replace"), re.M)
    except OSError:
        return ""
    return found[1].strip() if found else ""


def file_system(path: Path) -> str:
    """The type of the file system that a directory is on: "tmpfs" or the like."""
    best, kind = "", "unknown"
    real = os.path.realpath(path)
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return kind
    for line in lines:
        directory, name = line.split(" ")[1:3]
        inside = directory == "/" or real == directory or real.startswith(f"{directory}/")
        if inside and len(directory) >= len(best):
            best, kind = directory, name
    return kind


def engines() -> dict[str, str]:
    """The codec libraries that were used so far, and where each is."""
    from stargz._engine import base

    return base.loaded()
