"""docs/json.md says what `--json` of every command prints: its keys are what is printed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import command, environment
from examples import ROOT, prepare
from mounts import clean_up, needs_fuse

from stargz.cli._parsers import commands

PAGE = (ROOT / "docs/json.md").read_text()
ROW = re.compile(r"^\| (?:`(?P<inner>\w+)` of )?`(?P<command>[^`]+)` \| (?P<keys>.*?) \|", re.M)
COMMANDS = {
    "convert": "layer.tar.gz new.stargz",
    "pack": "tree packed.stargz",
    "index": "layer.tar.gz",
    "info": "layer.stargz",
    "info ARCHIVE": "layer.tar.gz --index old.index",
    "du": "layer.stargz",
    "cat": "layer.stargz etc/passwd",
    "extract": "layer.stargz -C out",
    "verify": "layer.stargz",
    "verify IMAGE": "oci:lazy",
    "toc": "layer.stargz",
    "diff": "layer.stargz layer.stargz",
    "delta": "layer.stargz layer.stargz new.patch",
    "apply": "layer.stargz old.patch applied.stargz",
    "image convert": "oci:layout oci:again",
    "image index": "oci:layout --soci-version 1 --min-layer-size 0",
    "image bulk": "oci:layout oci:all --state state.db",
    "image info": "oci:lazy",
    "image du": "oci:lazy",
    "image cat": "oci:lazy etc/passwd",
    "image extract": "oci:lazy -C root",
    "image diff": "oci:lazy oci:lazy",
    "cache info": "",
    "cache prune": "--size 1G",
    "mount": "layer.stargz mnt",
}
# What is in these values has rows of its own.
INNER = {
    "verify IMAGE": "images",
    "diff": "totals",
    "image convert": "layers",
    "image index": "layers",
    "image bulk": "totals",
    "image info": "layers",
}
# What prints entries, measures, or is a group.
NOT = {"ls", "find", "tree", "image ls", "image find", "image tree", "demo", "bench"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("json")
    prepare(made)
    for name in ("tree", "mnt"):
        (made / name).mkdir()
    for words in (
        "image convert -q oci:layout oci:lazy",
        "index -q layer.tar.gz old.index",
        "delta -q layer.stargz layer.stargz old.patch",
    ):
        subprocess.run(command(*words.split()), cwd=made, check=True, stdout=subprocess.DEVNULL)
    return made


def name_of(row: str) -> str:
    """The command of a row: what is in capitals says of what."""
    return re.sub(r" [A-Z]+$", "", row)


def printed(name: str, folder: Path) -> Any:
    """What a command prints, from stderr where stdout has the data."""
    words = [*name_of(name).split(), *COMMANDS[name].split(), "--json"]
    done = subprocess.run(
        command(*words), cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr if name in ("cat", "toc", "image cat") else done.stdout)


def keys(value: Any) -> str:
    """The keys as the page has them."""
    if isinstance(value, list):
        return f"[{keys(value[0])}]"
    return ", ".join(f"`{key}`" for key in value)


def test_every_command_is_on_the_page() -> None:
    listed = {row["command"] for row in ROW.finditer(PAGE)}
    assert listed == COMMANDS.keys()
    every = {one.name for one in commands() if one.name and one.commands is None}
    assert every - NOT == {name_of(row) for row in listed}


@pytest.mark.parametrize("name", COMMANDS)
def test_keys(name: str, folder: Path) -> None:
    if name == "mount":
        needs_fuse()
    try:
        value = printed(name, folder)
        rows = {row["inner"]: row["keys"] for row in ROW.finditer(PAGE) if row["command"] == name}
        inner = {one: keys(value[one]) for one in INNER.get(name, "").split()}
        assert rows == {None: keys(value)} | inner
    finally:
        clean_up(folder / "mnt")
