"""Whatever an image says of itself, errors stay lines that can be read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layouts
import pytest
from blobs import tar_of
from command import each_here

LONG = 5000 * "x"
LINE = 1200  # characters; the names of files in it are this machine's
COMMANDS = [
    "verify SRC", "image info SRC", "image ls SRC", "image extract SRC -C out",
    "image convert SRC oci:new", "image index SRC oci:new", "image bulk SRC oci:all",
    "image ls --platform linux/amd64 SRC", "image info --layer 1 SRC", "verify --layer 1 SRC",
]  # fmt: skip


def texts(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all texts in a document, and of the names of keys (which end in None)."""
    if isinstance(value, str):
        yield where
    elif isinstance(value, dict):
        for key, one in value.items():
            yield (*where, key, None)
            yield from texts(one, (*where, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from texts(one, (*where, number))


def lengthen(document: Any, where: tuple[Any, ...]) -> None:
    """Make the text there, or the key, a long one."""
    *way, last = where[:-1] if where[-1] is None else where
    for step in way:
        document = document[step]
    if where[-1] is None:
        document[LONG] = document.pop(last)
    else:
        document[last] = LONG


class Image:
    """An image in a layout: its documents, which can be changed and have their digests again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        layouts.image(path, [tar_of([("etc/name", b"text" * 99)])])
        self.index = json.loads((path / "index.json").read_text())
        self.index["manifests"][0]["platform"] = {"os": "linux", "architecture": "amd64"}
        self.manifest = self.load(self.index["manifests"][0]["digest"])
        self.config = self.load(self.manifest["config"]["digest"])

    def load(self, digest: str) -> Any:
        return json.loads((self.path / "blobs/sha256" / digest[7:]).read_text())

    def store(self, document: Any) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def write(self, which: str, where: tuple[Any, ...]) -> None:
        if which == "config":
            lengthen(self.config, where)
        self.manifest["config"] |= self.store(self.config)
        if which == "manifest":
            lengthen(self.manifest, where)
        self.index["manifests"][0] |= self.store(self.manifest)
        if which == "index":
            lengthen(self.index, where)
        (self.path / "index.json").write_text(json.dumps(self.index))


@pytest.mark.parametrize("which", ["index", "manifest", "config"])
def test_a_long_text_is_cut(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    places = list(texts(getattr(Image(tmp_path / "whole"), which)))
    assert len(places) > 10
    said = 0
    for number, where in enumerate(places):
        Image(tmp_path / f"i{number}").write(which, where)
        lines = (command.replace("SRC", f"oci:i{number}").split() for command in COMMANDS)
        for line, done in zip(COMMANDS, each_here(*lines), strict=True):
            for text in done.stderr.splitlines():
                said += 1
                assert len(text) < LINE, (which, where, line, len(text), text[:300])
    assert said > len(places)
