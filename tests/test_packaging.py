"""The source distribution has everything that the repository has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from absence import absent

ROOT = Path(__file__).parent.parent

MADE = {"setup.cfg", "PKG-INFO"}  # by setuptools


def in_the_repository(folder: Path) -> set[str]:
    """The files that a clone of what is here would have, whether this is one or not."""
    if not shutil.which("git"):
        absent("needs git: apt-get install git")
    git = ["git", f"--git-dir={folder}", f"--work-tree={ROOT}"]
    subprocess.run([*git, "init", "-q"], check=True, capture_output=True)
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {name for name in listed.stdout.split("\0") if name}


def test_the_sdist_has_every_file_of_the_repository(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path],
        cwd=ROOT, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (sources,) = tmp_path.glob("*.egg-info/SOURCES.txt")
    lines = sources.read_text().splitlines()
    names = {os.path.normpath(name) for name in lines if ".egg-info/" not in name}
    assert names - MADE == in_the_repository(tmp_path / "git") - MADE
