"""Code that runs as a process of its own, within a limit of processor time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command import environment

PREFIX = """
import re, resource, sys
import stargz

def peak():
    "MiB of memory that this process had at most."
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) >> 10

resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv.pop(1)),) * 2)
"""


def run(code: str, *args: object, seconds: int = 20) -> str:
    """What `code` prints. A process that takes more than `seconds` of processor time is
    killed, and the test fails: for inputs that took minutes once and take a moment now."""
    if os.environ.get("STARGZ_SANITIZE"):
        pytest.skip("sanitizers take memory and processor time of their own")
    words = [sys.executable, "-c", PREFIX + code, str(seconds), *map(str, args)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, env=environment())
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout
