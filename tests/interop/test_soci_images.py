"""SOCI indexes of images, and the documents they are bound to, as Go's programs write them anew."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import registries
from blobs import noise, tar_of

import stargz
from stargz.oci.formats import go_json
from stargz.oci.formats.layout import Layout as Reading

SOCI_V1 = "application/vnd.amazon.soci.index.v1+json"
ZTOC = "application/octet-stream"
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


def test_the_first_of_several_of_others_is_read(soci: SOCI, tmp_path: Path) -> None:
    """Of version 1, made by SOCI's packages, as a registry without the API for them lists them."""
    layout = layouts.Layout(tmp_path / "src")
    layer = layout.plain_layer(tar_of([("file", noise("file", 300_000))]))
    image = layout.tag(layout.manifest([layer]), "v1")
    blob, entries = layout.blobs / layer["digest"][7:], []
    for span in (64 << 10, 128 << 10):
        soci("build", "gzip", blob, span, tmp_path / "ztoc")
        said = {
            "com.amazon.soci.image-layer-digest": layer["digest"],
            "com.amazon.soci.image-layer-mediaType": layer["mediaType"],
            "com.amazon.soci.span-size": str(span),
        }
        ztoc = layout.blob((tmp_path / "ztoc").read_bytes(), ZTOC, annotations=said)
        document = {
            "schemaVersion": 2,
            "mediaType": layouts.OCI_MANIFEST,
            "config": layout.blob(b"{}", SOCI_V1),
            "layers": [ztoc],
            "subject": {key: image[key] for key in ("mediaType", "digest", "size")},
            "annotations": {"com.amazon.soci.build-tool-identifier": "another"},
        }
        made = layout.blob(json.dumps(document).encode(), layouts.OCI_MANIFEST)
        entries.append(made | {"artifactType": SOCI_V1})
    layout.tag(layout.index(entries), image["digest"].replace(":", "-"))
    with registries.registry(tmp_path / "served") as served:
        served.push(layout.path, "app", image["digest"].replace(":", "-"))
        manifest = (layout.blobs / image["digest"][7:]).read_bytes()
        served.push_manifest("app", "v1", manifest, layouts.OCI_MANIFEST)
        src = f"docker://{served.host}/app:v1"
        with stargz.open_image(src, platform="linux/amd64", cache=False) as opened:
            found = opened.soci.get()
            assert opened.ways == {0: "ztoc"} and found is not None
            assert found.manifest.digest == entries[0]["digest"]
            assert opened.tree.read("file") == noise("file", 300_000)
        kept = stargz.index_image(src, soci_version=1, min_layer_size=0)
        assert kept.status == "unchanged"
        assert list(kept.indexes.values()) == [entries[0]["digest"]]
        # One of version 2 comes before all of version 1.
        both = stargz.index_image(src, f"docker://{served.host}/app:v2", min_layer_size=0)
        assert both.status == "indexed"
        with stargz.open_image(
            f"docker://{served.host}/app:v2", platform="linux/amd64", cache=False
        ) as two:
            found = two.soci.get()
            assert found is not None and found.version == 2
