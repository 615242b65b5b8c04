"""Configs, manifests and indexes of converted images, as data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from blobs import sha256
from hypothesis import given
from hypothesis import strategies as st

from stargz.errors import FormatError
from stargz.oci.convert import rewrite
from stargz.oci.convert.rewrite import DOCKER, OCI, NewLayer, Written
from stargz.oci.formats.manifest import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    TOC_DIGEST,
    UNCOMPRESSED_SIZE,
    Manifest,
    descriptor,
    is_image,
    layer_kind,
    parse_manifest,
)

D = [sha256(b"%d" % n) for n in range(10)]
NEW = NewLayer(D[0], 77, D[1], {TOC_DIGEST: D[2], UNCOMPRESSED_SIZE: "5120"})

texts = st.text(st.characters(), max_size=8)  # lone surrogates too
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
KNOWN = {"config", "layers", "manifests", "mediatype", "rootfs", "history", "fslayers"}
KNOWN |= {"artifacttype", "data", "urls", "annotations", "digest", "size", "platform", "subject"}
more = st.dictionaries(texts.filter(lambda key: key.lower() not in KNOWN), values, max_size=4)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def layer(media_type: str = OCI_LAYER, **keys: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": D[5], "size": 5, **keys}


def manifest(layers: list[dict[str, Any]], /, **keys: Any) -> Manifest:
    config = {"mediaType": OCI_CONFIG, "digest": D[6], "size": 6}
    found = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return parse_manifest(as_json({**found, **keys}), "here")


def config(diff_ids: list[str], /, **keys: Any) -> bytes:
    return as_json({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}, **keys})


SAME = Written(config([D[3]]), "", D[6], False)
OTHER = Written(config([D[1]]), "", D[7], True)


# --- configs ----------------------------------------------------------------------------------


@given(more, more, more)
def test_only_the_diff_ids_of_a_config_change(
    before: dict[str, Any], inside: dict[str, Any], after: dict[str, Any]
) -> None:
    history = [{"created_by": "ü", **inside}]
    rootfs = {**inside, "diff_ids": [D[3], D[4]], "type": "layers"}
    value = json.loads(as_json({**before, "rootfs": rootfs, **after, "history": history}))
    made = rewrite.rewrite_config(as_json(value), [D[0], D[4]], 2, "here")
    found = json.loads(made.data)
    assert found == {**value, "rootfs": {**value["rootfs"], "diff_ids": [D[0], D[4]]}}
    assert list(found) == list(value)
    assert list(found["rootfs"]) == list(value["rootfs"])
    assert made.changed and made.digest == sha256(made.data)


def test_a_config_that_stays_keeps_its_bytes() -> None:
    data = b' {"rootfs" : {"diff_ids": ["%s"]}}\n' % D[0].encode()
    made = rewrite.rewrite_config(data, [D[0]], 1, "here")
    assert (made.data, made.changed) == (data, False)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (config([D[0]]), "it has 1 diff_ids, but the manifest 2 layers"),
        (config([]), "0 diff_ids"),
        (b"{}", "not a list"),
        (b'{"rootfs": []}', "not a list"),
        (b'{"rootfs": {"diff_ids": [1, 2]}}', "not a list"),
        (b'{"rootfs": {"diff_ids": ["a", "b"]}, "RootFS": {}}', "'RootFS' stands for 'rootfs'"),
        (b'{"rootfs": {"diff_ids": ["a", "b"], "Diff_IDs": []}}', "stands for 'diff_ids'"),
        (b'{"rootfs": {"diff_ids": ["a", "b"]}, "x": 1e999}', "cannot be written"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "not a JSON object"),
    ],
)
def test_a_config_that_does_not_fit(data: bytes, text: str) -> None:
    with pytest.raises(FormatError, match=text) as caught:
        rewrite.rewrite_config(data, [D[0], D[1]], 2, "here")
    assert str(caught.value).startswith("here: ")


def test_the_history_of_a_flattened_image_counts_one_layer() -> None:
    steps = [
        {"created_by": "ADD base"},
        {"created_by": "ENV", "empty_layer": True},
        {"created_by": "RUN"},
        {"created_by": "CMD", "empty_layer": True},
    ]
    data = config([D[0], D[1]], history=steps)
    found = json.loads(rewrite.rewrite_config(data, [D[2]], 2, "here").data)
    assert found["rootfs"]["diff_ids"] == [D[2]]
    assert [step["created_by"] for step in found["history"]] == ["ADD base", "ENV", "RUN", "CMD"]
    assert [bool(step.get("empty_layer")) for step in found["history"]] == [True, True, False, True]


def test_a_flattened_image_whose_history_has_no_layer_gets_one() -> None:
    data = config([D[0], D[1]], history=[{"empty_layer": True}])
    found = json.loads(rewrite.rewrite_config(data, [D[2]], 2, "here").data)
    assert [bool(step.get("empty_layer")) for step in found["history"]] == [True, False]


# --- manifests --------------------------------------------------------------------------------


def test_a_converted_layer_keeps_what_is_not_about_its_bytes() -> None:
    annotations = {
        "my.own": "kept",
        "io.github.containers.zstd-chunked.manifest-checksum": "stale",
        "io.containers.zstd-chunked.manifest-position": "1:2:3:1",
        "containerd.io/uncompressed": D[9],
        TOC_DIGEST: D[9],
        UNCOMPRESSED_SIZE: "1",
    }
    old = layer("zstd", annotations=annotations, urls=["http://x"], data="eA==", other=[1])
    found = rewrite.layer_descriptor(descriptor(old, "here", "layer"), NEW, OCI)
    assert found == {
        "mediaType": OCI_LAYER,
        "digest": D[0],
        "size": 77,
        "other": [1],
        "annotations": {
            "my.own": "kept",
            "containerd.io/uncompressed": D[1],
            TOC_DIGEST: D[2],
            UNCOMPRESSED_SIZE: "5120",
        },
    }


def test_a_legacy_layer_promises_nothing_of_its_toc() -> None:
    old = descriptor(layer(annotations={TOC_DIGEST: D[9]}), "here", "layer")
    found = rewrite.layer_descriptor(old, NewLayer(D[0], 7, D[1], {UNCOMPRESSED_SIZE: "9"}), OCI)
    assert found["annotations"] == {UNCOMPRESSED_SIZE: "9"}


@given(more)
def test_unknown_fields_of_a_manifest_stay(fields: dict[str, Any]) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": D[8], "size": 8}
    old = manifest([layer()], annotations={"a": "b"}, subject=subject, **fields)
    new = rewrite.layer_descriptor(old.layers[0], NEW, OCI)
    made = rewrite.rewrite_manifest(old, OTHER, [new], OCI, {})
    found = json.loads(made.data)
    expected = {"mediaType": OCI_CONFIG, "digest": D[7], "size": len(OTHER.data)}
    assert found == {**old.json, "config": expected, "layers": [new]}
    assert list(found) == list(old.json)
    assert parse_manifest(made.data, "there").digest == made.digest


@given(more, st.sampled_from([OCI, DOCKER]))
def test_what_is_rewritten_twice_stays(fields: dict[str, Any], types: rewrite.Types) -> None:
    kept = NewLayer(NEW.digest, NEW.size, NEW.diff_id, NEW.annotations, kept=True)
    old = manifest([layer(urls=["http://x"])], **fields)
    once = rewrite.rewrite_manifest(
        old, OTHER, [rewrite.layer_descriptor(old.layers[0], NEW, types)], types, {}
    )
    again = parse_manifest(once.data, "there")
    layers = [rewrite.layer_descriptor(again.layers[0], kept, types)]
    twice = rewrite.rewrite_manifest(again, SAME, layers, types, {})
    assert (twice.data, twice.digest, twice.changed) == (once.data, once.digest, False)


def test_docker_becomes_oci_and_back() -> None:
    docker = {"mediaType": DOCKER_CONFIG, "digest": D[6], "size": 6}
    old = manifest([], mediaType=DOCKER_MANIFEST, config=docker)
    made = rewrite.rewrite_manifest(old, SAME, [], OCI, {})
    found = json.loads(made.data)
    assert (found["mediaType"], found["config"]["mediaType"]) == (OCI_MANIFEST, OCI_CONFIG)
    back = rewrite.rewrite_manifest(parse_manifest(made.data, "there"), SAME, [], DOCKER, {})
    assert json.loads(back.data) == old.json


def test_a_manifest_that_becomes_too_large() -> None:
    old = manifest([layer()] * 4000)
    new = rewrite.layer_descriptor(old.layers[0], NEW, OCI)
    more_text = new | {"annotations": {"x": "y" * 1100}}
    with pytest.raises(FormatError, match="is over the limit of 4194304 bytes"):
        rewrite.rewrite_manifest(old, OTHER, [more_text] * 4000, OCI, {})


@pytest.mark.parametrize("key", ["Layers", "CONFIG", "MediaType"])
def test_a_key_that_some_readers_take_for_another(key: str) -> None:
    with pytest.raises(FormatError, match=f"'{key}' stands for"):
        rewrite.rewrite_manifest(manifest([layer()], **{key: []}), OTHER, [], OCI, {})


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        ("", "tar"),
        (OCI_LAYER, "tar"),
        ("application/vnd.oci.image.layer.v1.tar", "tar"),
        ("application/vnd.oci.image.layer.v1.tar+zstd", "tar"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "tar"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "foreign"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "other"),
        ("application/vnd.dev.cosign.simplesigning.v1+json", "other"),
        ("application/vnd.in-toto+json", "other"),
    ],
)
def test_kinds_of_layers(media_type: str, kind: str) -> None:
    assert layer_kind(descriptor(layer(media_type), "here", "layer")) == kind


def test_what_is_an_image() -> None:
    signature = "application/vnd.dev.cosign.simplesigning.v1+json"
    assert is_image(manifest([]))
    assert is_image(manifest([layer(signature), layer()]))
    assert is_image(manifest([layer(f"{OCI_LAYER}+encrypted")]))
    assert not is_image(manifest([layer(signature)]))
    assert is_image(manifest([layer()], artifactType="x/y"))
    assert not is_image(manifest([layer(signature), layer(signature)], artifactType="x/y"))
    assert not is_image(manifest([layer()], config={"mediaType": "x/y", "digest": D[0], "size": 2}))


# --- indexes ----------------------------------------------------------------------------------


def index(entries: list[dict[str, Any]], /, **keys: Any) -> Manifest:
    found = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return parse_manifest(as_json({**found, **keys}), "here")


@given(more)
def test_an_index_keeps_order_platforms_and_what_is_not_known(fields: dict[str, Any]) -> None:
    about = {"vnd.docker.reference.type": "x", "vnd.docker.reference.digest": D[1]}
    entries: list[dict[str, Any]] = [
        {"mediaType": DOCKER_MANIFEST, "digest": D[1], "size": 1, "platform": {"os": "b"}, "x": 1},
        {"mediaType": OCI_MANIFEST, "digest": D[2], "size": 2, "platform": {"os": "a"}},
        {"mediaType": OCI_MANIFEST, "digest": D[3], "size": 3, "annotations": about},
    ]
    old = index(entries, mediaType=DOCKER_LIST, annotations={"a": "b"}, **fields)
    new = Written(b"12345", OCI_MANIFEST, D[9], True)
    same = Written(b"", OCI_MANIFEST, "", False)
    children = list(zip(old.manifests, (new, same, same), strict=True))
    made = rewrite.rewrite_index(old, children, OCI_INDEX, {D[1]: new})
    changed = [
        {**entries[0], "mediaType": OCI_MANIFEST, "digest": D[9], "size": 5},
        entries[1],
        {**entries[2], "annotations": {**about, "vnd.docker.reference.digest": D[9]}},
    ]
    expected = {**old.json, "mediaType": OCI_INDEX, "manifests": changed}
    assert json.loads(made.data) == expected
    assert list(json.loads(made.data)) == list(old.json)


def test_an_index_without_changes_keeps_its_bytes() -> None:
    old = index([{"mediaType": OCI_MANIFEST, "digest": D[1], "size": 1}], x="ü")
    same = Written(b"", OCI_MANIFEST, "", False)
    made = rewrite.rewrite_index(old, [(old.manifests[0], same)], OCI_INDEX, {})
    assert (made.data, made.changed) == (old.data, False)
    fewer = rewrite.rewrite_index(old, [], OCI_INDEX, {})
    assert fewer.changed and json.loads(fewer.data)["manifests"] == []
