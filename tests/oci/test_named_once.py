"""What is wrong is said with the name of what it is in, once, by every command."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import pytest
from blobs import tar_of
from command import each_here

import stargz
from stargz.oci.formats.reference import without_name

# What begins so is advice, which may name it as it has to be given.
ADVICE = re.compile(r"(?:; |: |\()(?:give|name one|stargz|choose) ")

TAR = tar_of([("etc/file", b"content" * 900), ("noise", os.urandom(20_000))])


def layer() -> bytes:
    out = io.BytesIO()
    stargz.convert(TAR, out)
    return out.getvalue()


def check(where: str, *lines: list[str]) -> None:
    """Each command says something, and no line has `where` twice."""
    said = [line for done in each_here(*lines) for line in done.stderr.splitlines()]
    assert said
    twice = [line for line in said if ADVICE.split(line)[0].count(where) > 1]
    assert not twice, twice


# --- layers ------------------------------------------------------------------------------------

LAYERS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda blob: b"",
    "noise": lambda blob: os.urandom(5000),
    "cut": lambda blob: blob[: len(blob) // 2],
    "without half its footer": lambda blob: blob[:-20],
    "with a spoilt TOC": lambda blob: blob[:-400] + bytes(300) + blob[-100:],
    "with a spoilt chunk": lambda blob: blob[:9000] + b"????" + blob[9004:],
    "a cut tar": lambda blob: TAR[:3000],
    "a cut tar.gz": lambda blob: gzip.compress(TAR)[:3000],
    "a tar with a spoilt header": lambda blob: TAR[:150] + b"9" + TAR[151:],
    "xz": lambda blob: b"\xfd7zXZ\0" + bytes(100),
}
OF_LAYERS = [
    "info BAD", "ls BAD", "find BAD", "du BAD", "tree BAD", "cat BAD noise", "extract BAD -C out",
    "verify BAD", "verify BAD GOOD", "toc BAD", "diff BAD GOOD", "delta BAD GOOD p",
    "delta GOOD BAD p", "apply GOOD BAD n", "index BAD -o i", "convert BAD c",
    "pack DIR p --base BAD", "ls GOOD --toc BAD", "ls GOOD --index BAD", "ls TAR --index BAD",
]  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blob = layer()
    bad = tmp_path / "the-bad-one"
    bad.write_bytes(LAYERS[kind](blob))
    (tmp_path / "GOOD").write_bytes(blob)
    (tmp_path / "TAR").write_bytes(TAR)
    (tmp_path / "DIR").mkdir()
    check(str(bad), *([str(bad) if w == "BAD" else w for w in c.split()] for c in OF_LAYERS))


# --- images ------------------------------------------------------------------------------------


class Spoilt:
    """A layout that can be spoilt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (entry,) = json.loads((path / "index.json").read_text())["manifests"]
        self.manifest = self.blob(entry["digest"])
        document = json.loads(self.manifest.read_text())
        self.config = self.blob(document["config"]["digest"])
        self.layer = self.blob(document["layers"][0]["digest"])

    def blob(self, digest: str) -> Path:
        return self.path / "blobs/sha256" / digest.removeprefix("sha256:")

    def edit(self, change: Callable[[Any], Any]) -> None:
        """Another manifest, with its right digest."""
        document = json.loads(self.manifest.read_text())
        change(document)
        data = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blob(digest).write_bytes(data)
        index = json.loads((self.path / "index.json").read_text())
        index["manifests"][0] |= {"digest": digest, "size": len(data)}
        (self.path / "index.json").write_text(json.dumps(index))


IMAGES: dict[str, Callable[[Spoilt], object]] = {
    "no index": lambda one: (one.path / "index.json").unlink(),
    "an index that is no JSON": lambda one: (one.path / "index.json").write_text("{bad"),
    "an index that is a list": lambda one: (one.path / "index.json").write_text("[]"),
    "an index of nothing": lambda one: (one.path / "index.json").write_text("{}"),
    "no oci-layout": lambda one: (one.path / "oci-layout").unlink(),
    "no manifest": lambda one: one.manifest.unlink(),
    "a cut manifest": lambda one: one.manifest.write_bytes(one.manifest.read_bytes()[:-5]),
    "another manifest": lambda one: one.manifest.write_bytes(one.manifest.read_bytes()[::-1]),
    "no config": lambda one: one.config.unlink(),
    "a cut config": lambda one: one.config.write_bytes(b"{"),
    "no layer": lambda one: one.layer.unlink(),
    "a cut layer": lambda one: one.layer.write_bytes(one.layer.read_bytes()[:-5]),
    "another layer": lambda one: one.layer.write_bytes(one.layer.read_bytes()[::-1]),
    "no layers": lambda one: one.edit(lambda manifest: manifest.pop("layers")),
    "a layer without a digest": lambda one: one.edit(lambda m: m["layers"][0].update(digest="x")),
}
OF_IMAGES = [
    "verify BAD", "verify BAD BAD", "verify --layer 1 BAD", "info --layer 1 BAD",
    "image info BAD", "image ls BAD", "image cat BAD etc/file", "image extract BAD -C out",
    "image diff BAD BAD", "image convert BAD oci:new", "image convert --upgrade BAD",
    "image index BAD oci:new", "image bulk -q BAD oci:new", "image bulk -v BAD oci:new",
    "image bulk --dry-run BAD oci:new",
]  # fmt: skip


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("form", ["oci", "oci-archive"])
def test_images(kind: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "the-bad-one"
    layouts.image(path, [TAR])
    IMAGES[kind](Spoilt(path))
    if form == "oci-archive":
        with tarfile.open(tmp_path / "tar", "w") as tar:
            tar.add(path, ".")
        shutil.rmtree(path)
        (tmp_path / "tar").rename(path)
    for name in (path, f"{path}:latest", f"{path}:none", path.name, f"{path.name}:latest"):
        lines = (c.replace("BAD", f"{form}:{name}").split() for c in OF_IMAGES)
        check(path.name, *lines)


@pytest.mark.parametrize(
    ("text", "src", "left"),
    [
        ("oci:a/b: no", "oci:a/b", "no"),
        ("oci:a/b: no", "oci:a/b:v1", "no"),
        ("a/b/blobs/sha256/1: cut", "oci:a/b:v1", "blobs/sha256/1: cut"),
        ("oci:a/b@sha256:1: no", "oci:a/b:v1", "sha256:1: no"),
        (f"oci:{Path.cwd()}/a/b: no", "oci:a/b", "no"),
        (f"oci:{Path.cwd()}/a/b:v1@sha256:1: no", "oci:a/b:v1", "sha256:1: no"),
        (f"{Path.cwd()}/a/b/blobs/sha256/1: cut", "oci:a/b:v1", "blobs/sha256/1: cut"),
        ("oci:a/bc: no", "oci:a/b", "oci:a/bc: no"),
        ("oci-archive:a: no", "oci-archive:a:v1", "no"),
        ("docker://h.x/a:v1: no", "docker://h.x/a:v1", "no"),
        ("h.x/a:v1: no", "docker://h.x/a:v1", "no"),
        ("docker://h.x/a@sha256:1: no", "docker://h.x/a:v1", "sha256:1: no"),
        ("h.x/a:v2: no", "docker://h.x/a:v1", "h.x/a:v2: no"),
        ("h.x/a/b: no", "docker://h.x/a", "h.x/a/b: no"),
        ("list, line 3: no", "list, line 3", "no"),
    ],
)
def test_without_name(text: str, src: str, left: str) -> None:
    assert without_name(text, src) == left
