"""SOCI indexes of images, and the documents they are bound to, as Go's programs write them anew."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
from blobs import noise, tar_of

import stargz
from stargz.oci.formats import go_json
from stargz.oci.formats.layout import Layout as Reading

SOCI = Callable[..., Any]
# Each has its own way in Go's JSON, or none.
CHARACTERS = [*map(chr, range(0x30)), *'<>&"\\\x7f\x80\xa0\ufffd\u2028\u2029\ufeff\uffff😀üz']


def test_an_index_and_its_image_keep_their_bytes(soci: SOCI, tmp_path: Path) -> None:
    """The snapshotter stores what it has written anew under the digest of what it fetched."""
    layout = layouts.Layout(tmp_path / "src")
    layer = layout.plain_layer(tar_of([("file", noise("file", 100_000))]))
    images = [layout.manifest([layer], platform=name) for name in ("linux/amd64", "linux/arm64/v8")]
    layout.tag(layout.index(images), "v1")
    src = f"oci:{layout.path}:v1"
    for version in (1, 2):
        stargz.index_image(src, f"oci:{tmp_path}/dst:v1", soci_version=version, min_layer_size=0,
                           force=True)  # fmt: skip
    reading = Reading(tmp_path / "dst")
    listed = [entry for entry in reading.index.manifests if entry.json.get("artifactType")]
    root = reading.manifest(reading.resolve("v1"))
    documents = {
        "index": [root],
        "manifest": list(map(reading.manifest, [*listed, *root.manifests])),
    }
    assert [len(found) for found in documents.values()] == [1, 6]
    for kind, found in documents.items():
        files = [tmp_path / "dst/blobs/sha256" / one.digest[7:] for one in found]
        assert soci("again", kind, *files) == [path.read_text() for path in files]


def test_any_text_is_escaped_as_go_does(soci: SOCI, tmp_path: Path) -> None:
    chance = random.Random(5)

    def text() -> str:
        return "".join(chance.choice(CHARACTERS) for _ in range(chance.randint(1, 12)))

    def texts() -> dict[str, str]:
        return {text(): text() for _ in range(5)}

    def descriptor() -> dict[str, Any]:
        platform = {"variant": text(), "os.features": [text()], "os": "x", "architecture": text()}
        return {
            "artifactType": text(), "platform": platform, "annotations": texts(), "size": 1 << 40,
            "digest": text(), "mediaType": text(),
        }  # fmt: skip

    paths = []
    for number in range(100):
        document = {
            "annotations": texts(), "layers": [descriptor(), descriptor()], "subject": descriptor(),
            "config": descriptor(), "mediaType": text(), "schemaVersion": 2,
        }  # fmt: skip
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(go_json.dump(document, ""))
    assert soci("again", "manifest", *paths) == [path.read_bytes().decode() for path in paths]
