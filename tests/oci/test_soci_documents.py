"""The documents of SOCI indexes and of the images that they are bound to, as bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blobs import sha256, tar_of
from conversions import DOCKER_MANIFEST, docker
from layouts import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Layout

from stargz.errors import FormatError
from stargz.oci.convert.plan import Node, make_plan
from stargz.oci.destination import open_destination
from stargz.oci.formats import go_json
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import Descriptor, Manifest, parse_manifest
from stargz.oci.formats.soci import (
    SociIndex,
    Ztoc,
    is_soci,
    make_index,
    named_by,
    read_index,
)
from stargz.oci.repository import open_repository
from stargz.oci.soci.manifests import IndexedManifests

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
SOCI_V2 = "application/vnd.amazon.soci.index.v2+json"
INDEX_DIGEST = "com.amazon.soci.index-digest"
IMAGE_DIGEST = "com.amazon.soci.image-manifest-digest"
EMPTY = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
A, B, C = (sha256(name) for name in (b"a", b"b", b"c"))


def ztoc(digest: str = A, layer: str = B, kind: str = OCI_LAYER) -> Ztoc:
    return Ztoc(digest, 7, Descriptor(kind, layer, 1000), 4 << 20)


# --- Go's JSON ----------------------------------------------------------------------------------


def test_go_writes_known_fields_first_and_in_its_order() -> None:
    found = {
        "x.unknown": {"b": 1, "a": None},
        "annotations": {"b": "2", "a": "1", "Z": "0"},
        "subject": {"size": 1, "digest": A, "mediaType": "s"},
        "layers": [
            {"artifactType": "t", "data": "e30=", "annotations": {"d": "", "c": ""}, "size": 2}
        ],
        "config": {"platform": {"variant": "v8", "os": "linux", "architecture": "arm64"}},
        "artifactType": "what",
        "mediaType": OCI_MANIFEST,
        "schemaVersion": 2,
    }
    assert go_json.dump(found, "") == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        b'"artifactType":"what","config":{"platform":{"architecture":"arm64","os":"linux",'
        b'"variant":"v8"}},"layers":[{"size":2,"annotations":{"c":"","d":""},"data":"e30=",'
        b'"artifactType":"t"}],"subject":{"mediaType":"s","digest":"' + A.encode() + b'","size":1},'
        b'"annotations":{"Z":"0","a":"1","b":"2"},"x.unknown":{"b":1,"a":null}}'
    )


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<a & b>", rb"\u003ca \u0026 b\u003e"),
        ("\u2028\u2029", rb"\u2028\u2029"),
        ('"\\/', rb"\"\\/"),
        ("\n\r\t\b\f\x00\x1f\x7f", b"\\n\\r\\t\\b\\f\\u0000\\u001f\x7f"),
        ("ü€😀", "ü€😀".encode()),
        ("a\ud800b\udfff", "a\ufffdb\ufffd".encode()),
    ],
)
def test_go_escapes(text: str, escaped: bytes) -> None:
    assert go_json.dump({"mediaType": text}, "") == b'{"mediaType":"' + escaped + b'"}'


# --- SOCI indexes -------------------------------------------------------------------------------


def test_an_index_of_version_2() -> None:
    index = make_index([ztoc(), ztoc(C, A, DOCKER_LAYER)], "stargz <test>")
    assert index.manifest.data.decode() == (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        '"config":{"mediaType":"application/vnd.amazon.soci.index.v2+json",'
        f'"digest":"{EMPTY}","size":2}},'
        f'"layers":[{{"mediaType":"application/octet-stream","digest":"{A}","size":7,'
        f'"annotations":{{"com.amazon.soci.image-layer-digest":"{B}",'
        f'"com.amazon.soci.image-layer-mediaType":"{OCI_LAYER}",'
        '"com.amazon.soci.span-size":"4194304"}},'
        f'{{"mediaType":"application/octet-stream","digest":"{C}","size":7,'
        f'"annotations":{{"com.amazon.soci.image-layer-digest":"{A}",'
        f'"com.amazon.soci.image-layer-mediaType":"{DOCKER_LAYER}",'
        '"com.amazon.soci.span-size":"4194304"}}],'
        '"annotations":{"com.amazon.soci.build-tool-identifier":"stargz \\u003ctest\\u003e"}}'
    )
    assert (index.version, index.ztocs[B].digest, index.spans[A]) == (2, A, 4 << 20)


def test_an_index_of_version_1() -> None:
    subject = Descriptor(DOCKER_MANIFEST, C, 77, {"a": "b"}, {"platform": {"os": "linux"}})
    index = make_index([ztoc()], "stargz", subject, [C, B, C])
    found = json.loads(index.manifest.data)
    assert list(found) == [
        *("schemaVersion", "mediaType", "config", "layers", "subject", "annotations")
    ]
    assert found["config"]["mediaType"] == "application/vnd.amazon.soci.index.v1+json"
    assert list(found["subject"].items()) == [
        *(("mediaType", DOCKER_MANIFEST), ("digest", C), ("size", 77))
    ]
    assert "artifactType" not in found
    again = read_index(parse_manifest(index.manifest.data, "here"))
    assert (again.version, again.without) == (1, {B, C})
    assert again.fits(Descriptor(OCI_LAYER, C, 1), None)
    assert again.fits(Descriptor(OCI_LAYER, B, 1), 1 << 20), "it can have none"
    assert not again.fits(Descriptor(OCI_LAYER, A, 1), None)


def test_the_last_ztoc_of_a_layer_counts_and_others_are_passed_over() -> None:
    def entry(digest: str, kind: str = "application/octet-stream", **notes: str) -> dict[str, Any]:
        named = {f"com.amazon.soci.{key.replace('_', '-')}": text for key, text in notes.items()}
        return {"mediaType": kind, "digest": digest, "size": 1, "annotations": named}

    prefetch = "application/vnd.amazon.soci.prefetch.v1+json"
    document = {
        "schemaVersion": 2,
        "config": {"mediaType": SOCI_V2, "digest": EMPTY, "size": 2},
        "layers": [
            entry(A, image_layer_digest=C, span_size="9" * 30),
            entry(B, image_layer_digest=C, span_size="65536"),
            entry(A, prefetch, image_layer_digest=C),
            entry(C),
        ],
    }
    index = read_index(parse_manifest(json.dumps(document).encode(), "here"))
    assert {key: value.digest for key, value in index.ztocs.items()} == {C: B}
    assert index.fits(Descriptor(OCI_LAYER, C, 1), 65536)
    assert not index.fits(Descriptor(OCI_LAYER, C, 1), 4 << 20)


def test_what_is_no_index() -> None:
    image = {"config": {"mediaType": OCI_CONFIG, "digest": A, "size": 1}, "layers": []}
    for document in (image, {"manifests": []}):
        found = parse_manifest(json.dumps(document).encode(), "here")
        assert not is_soci(found)
        with pytest.raises(FormatError, match="no SOCI index"):
            read_index(found)


@pytest.mark.parametrize("value", [None, 7, "", "latest", "sha256:x", {"a": "b"}])
def test_an_annotation_that_names_nothing(value: Any) -> None:
    assert named_by(Manifest(b"", A, OCI_MANIFEST, {"annotations": {INDEX_DIGEST: value}})) is None


# --- images that they are bound to --------------------------------------------------------------

TAR = tar_of([("etc/file", b"content\n")])


@contextmanager
def bound(
    layout: Layout, folder: Path, choose: Callable[[Node], SociIndex | None]
) -> Iterator[tuple[IndexedManifests, Callable[[], Manifest]]]:
    """What becomes of "v1" of a layout, and what writes it."""
    with (
        open_repository(f"oci:{layout.path}:v1") as source,
        open_destination(f"oci:{folder}:v1") as destination,
        ThreadPoolExecutor(2) as pool,
    ):
        plan = make_plan(source, (), pool)
        indexes = {node: index for node in plan.images() if (index := choose(node))}
        made = IndexedManifests(plan, indexes, lambda entries: None, source, destination)

        def write() -> Manifest:
            made.write(pool, None)
            reading = Reading(folder)
            return reading.manifest(reading.resolve("v1"))

        yield made, write


def of_layers(node: Node) -> SociIndex:
    return make_index([ztoc(A, entry.digest) for entry in node.manifest.layers], "stargz")


def of(*architectures: str) -> Callable[[Node], SociIndex | None]:
    def choose(node: Node) -> SociIndex | None:
        return of_layers(node) if json.loads(node.config)["architecture"] in architectures else None

    return choose


def attestation(layout: Layout, about: str) -> dict[str, Any]:
    """As buildx lists it."""
    made = layout.manifest([layout.blob(b"{}", "application/vnd.in-toto+json")])
    return made | {
        "platform": {"architecture": "unknown", "os": "unknown"},
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": about,
        },
    }


def test_of_an_index_only_the_images_that_are_indexed_change(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    one = layout.manifest([layout.plain_layer(TAR)], annotations={"own": "kept"})
    two = layout.manifest([layout.plain_layer(TAR + TAR)], platform="linux/arm64/v8")
    one_listed = one | {"annotations": {"listed": "kept"}, "x.unknown": 1}
    entries = [
        one_listed,
        attestation(layout, one["digest"]),
        two,
        attestation(layout, two["digest"]),
    ]
    layout.tag(layout.index(entries, annotations={"of": "index"}), "v1")
    with bound(layout, tmp_path / "dst", of("amd64")) as (made, write):
        root = write()
        stale = made.stale()
    assert root.data == go_json.dump(json.loads(root.data), "")
    listed = json.loads(root.data)
    assert listed["annotations"] == {"of": "index"}
    first, about_first, second, about_second, soci = listed["manifests"]
    assert first["annotations"] == {"listed": "kept", INDEX_DIGEST: soci["digest"]}
    assert first["x.unknown"] == 1 and first["platform"] == one["platform"]
    assert about_first["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": first["digest"],
    }
    assert about_first["digest"] == entries[1]["digest"]
    assert (second, about_second) == (two, entries[3])
    assert list(soci) == [
        *("mediaType", "digest", "size", "annotations", "platform", "artifactType")
    ]
    assert soci["annotations"] == {IMAGE_DIGEST: first["digest"]}
    assert (soci["artifactType"], soci["platform"]) == (SOCI_V2, one["platform"])
    reading = Reading(tmp_path / "dst")
    image = reading.by_digest(first["digest"])
    assert image.annotations == {"own": "kept", INDEX_DIGEST: soci["digest"]}
    assert image.data == go_json.dump(json.loads(image.data), "")
    index = read_index(reading.by_digest(soci["digest"]))
    assert list(index.ztocs) == [image.layers[0].digest]
    assert (tmp_path / "dst/blobs/sha256" / EMPTY[7:]).read_bytes() == b"{}"
    assert [one.digest for one in stale] == [entries[1]["digest"]], "signed for the image as it was"


def test_a_lone_manifest_of_docker_becomes_an_index(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layer = layout.plain_layer(TAR) | {"mediaType": DOCKER_LAYER}
    config = {"os.version": "1", "os.features": ["x"], "variant": "v3"}
    image = layout.manifest([layer], config=config, mediaType=DOCKER_MANIFEST)
    found = json.loads((layout.blobs / image["digest"][7:]).read_bytes())
    found["config"]["mediaType"] = DOCKER_CONFIG
    layout.tag(layout.blob(json.dumps(found).encode(), DOCKER_MANIFEST), "v1")
    with bound(layout, tmp_path / "dst", of_layers) as (_, write):
        root = write()
    assert (root.media_type, json.loads(root.data)["mediaType"]) == (OCI_INDEX, OCI_INDEX)
    first, soci = json.loads(root.data)["manifests"]
    assert first["mediaType"] == OCI_MANIFEST
    stated = {"architecture": "amd64", "os": "linux", **config}
    assert first["platform"] == soci["platform"] == stated
    assert list(first["platform"]) == [
        *("architecture", "os", "os.version", "os.features", "variant")
    ]
    manifest = Reading(tmp_path / "dst").by_digest(first["digest"])
    assert manifest.media_type == manifest.json["mediaType"] == OCI_MANIFEST
    assert manifest.config.media_type == OCI_CONFIG
    assert [entry.media_type for entry in manifest.layers] == [DOCKER_LAYER]
    assert first["annotations"] == {INDEX_DIGEST: soci["digest"]}


def test_a_list_of_docker_becomes_an_index_where_something_changes(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    images = [docker(layout, [layout.plain_layer(TAR)]), docker(layout, [layout.plain_layer(b"")])]
    images[1]["platform"] = {"os": "linux", "architecture": "s390x"}
    document = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": images}
    layout.tag(layout.blob(json.dumps(document).encode(), DOCKER_LIST), "v1")
    for chosen in ((), ("amd64",)):
        with bound(layout, tmp_path / f"dst{len(chosen)}", of(*chosen)) as (made, write):
            root = write()
            assert made.changed == bool(chosen)
        assert root.media_type == (OCI_INDEX if chosen else DOCKER_LIST)
    kinds = [entry.media_type for entry in root.manifests]
    # Both images are of amd64 by their configs, one of s390x by the index.
    assert kinds == [OCI_MANIFEST, OCI_MANIFEST, OCI_MANIFEST, OCI_MANIFEST]
    assert [entry.platform for entry in root.manifests[2:]] == [one["platform"] for one in images]


def test_an_index_of_the_same_platform_is_replaced(tmp_path: Path) -> None:
    """Once for each way that it can be told to be."""
    layout = Layout(tmp_path / "src")
    image = layout.manifest([layout.plain_layer(TAR)])
    other = layout.manifest([layout.plain_layer(TAR + TAR)], platform="linux/arm64")

    def soci(layer: str, about: str, platform: dict[str, str]) -> dict[str, Any]:
        data = make_index([ztoc(A, layer)], "another tool").manifest.data
        made = layout.blob(data, OCI_MANIFEST, annotations={IMAGE_DIGEST: about})
        return made | {"platform": platform, "artifactType": SOCI_V2}

    layout.blob(b"{}", "")
    old = soci(A, image["digest"], image["platform"])
    of_none = soci(C, sha256(b"gone"), image["platform"])
    of_other = soci(B, other["digest"], other["platform"])
    layout.tag(layout.index([old, image, of_none, of_other, other]), "v1")
    with bound(layout, tmp_path / "dst", of("amd64")) as (_, write):
        listed = json.loads(write().data)["manifests"]
    assert [listed[n]["digest"] for n in (1, 3)] == [other["digest"], of_other["digest"]]
    assert listed[0]["annotations"] == {INDEX_DIGEST: listed[2]["digest"]}
    assert listed[2]["annotations"] == {IMAGE_DIGEST: listed[0]["digest"]}
    assert len(listed) == 4


def test_an_image_that_is_listed_without_a_platform(tmp_path: Path) -> None:
    """Its index has none either: it would be the only one that fits."""
    layout = Layout(tmp_path / "src")
    images = [layout.manifest([layout.plain_layer(tar)]) for tar in (TAR, TAR + TAR)]
    del images[0]["platform"]
    layout.tag(layout.index(images), "v1")
    with bound(layout, tmp_path / "dst", of_layers) as (_, write):
        entries = write().manifests
    stated = [None, images[1]["platform"]]
    assert [entry.platform for entry in entries] == stated * 2
    assert [entry.json.get("artifactType") for entry in entries] == [None] * 2 + [SOCI_V2] * 2


def test_indexes_in_indexes(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    image = layout.manifest([layout.plain_layer(TAR)])
    inner = layout.index([image])
    layout.tag(layout.index([inner, image]), "v1")
    with bound(layout, tmp_path / "dst", of_layers) as (_, write):
        root = write()
    reading = Reading(tmp_path / "dst")
    assert len(root.manifests) == 3
    below = reading.manifest(root.manifests[0]).manifests
    assert [entry.digest for entry in below] == [entry.digest for entry in root.manifests[1:]]
