"""What images are made of in the field: documents with null, kinds that are not known, manifests
that say what they are about."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
from blobs import noise, sha256, tar_of
from command import fails
from conversions import CACHE, TAR, cache, convert, docker, written
from layouts import OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Layout
from servers import Fault, FaultProxy, Request

from stargz.errors import (
    ArtifactError,
    FormatError,
    RegistryError,
    SourceError,
)
from stargz.oci.bulk import bulk
from stargz.oci.conversion import convert_image
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import DOCKER_TYPES, OCI_TYPES, parse_manifest
from stargz.oci.image import load_image
from stargz.oci.verify.image import verify_image

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
SOCI = "application/vnd.amazon.soci.index.v2+json"


def named(path: Path) -> None:
    """Every digest that a layout's documents name is there, but of what may not be distributed."""

    def look(entry: dict[str, Any]) -> None:
        if ".nondistributable." in entry.get("mediaType", "") or ".foreign." in entry["mediaType"]:
            return
        data = (path / "blobs" / Path(*entry["digest"].split(":"))).read_bytes()
        assert (len(data), sha256(data)) == (entry["size"], entry["digest"])
        if not entry["mediaType"].endswith(("manifest.v1+json", "index.v1+json", "list.v2+json")):
            return
        found = json.loads(data)
        for key in ("config", "subject"):
            if found.get(key):
                look(found[key])
        for child in [*found.get("layers", ()), *found.get("manifests", ())]:
            look(child)
            notes = child.get("annotations", {})
            for key in ("vnd.docker.reference.digest", "com.amazon.soci.image-manifest-digest"):
                if key in notes:
                    assert (path / "blobs" / Path(*notes[key].split(":"))).is_file()

    for entry in json.loads((path / "index.json").read_text())["manifests"]:
        look(entry)


# --- null ---------------------------------------------------------------------------------------


def nulls(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda found: found | changes


NULLS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "annotations": nulls(annotations=None, subject=None, artifactType=None),
    "of another kind": nulls(manifests=None, fsLayers=None),
    "in descriptors": lambda found: (
        found
        | {
            key: [entry | dict.fromkeys(("annotations", "urls", "platform")) for entry in entries]
            for key, entries in found.items()
            if key == "layers"
        }
        | {"config": found["config"] | {"annotations": None, "data": None}}
    ),
    "an annotation": lambda found: (
        found | {"layers": [entry | {"annotations": {"a": None}} for entry in found["layers"]]}
    ),
}


@pytest.mark.parametrize("kind", NULLS)
def test_null_is_as_good_as_absent(tmp_path: Path, kind: str) -> None:
    layout = Layout(tmp_path / "src")
    image = layout.manifest([layout.plain_layer(TAR)])
    changed = NULLS[kind](json.loads((layout.blobs / image["digest"][7:]).read_bytes()))
    layout.tag(layout.blob(json.dumps(changed).encode(), OCI_MANIFEST), "null")
    layout.tag(image, "v1")
    report = convert(layout, tmp_path / "dst", "null", verify=True)
    plain = convert(layout, tmp_path / "dst")
    assert [layer.digest for layer in report.layers] == [layer.digest for layer in plain.layers]
    with load_image(f"oci:{tmp_path}/dst:null", platform="linux/amd64") as found:
        assert len(found.descriptors) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"rootfs": {"type": "layers", "diff_ids": None}, "history": None},
        {"rootfs": None, "history": None},
        {"config": None, "created": None, "history": None},
    ],
)
def test_null_in_an_image_without_layers(tmp_path: Path, config: dict[str, Any]) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([], config=config), "v1")
    empty = layout.manifest([], config=config)
    found = json.loads((layout.blobs / empty["digest"][7:]).read_bytes()) | {"layers": None}
    layout.tag(layout.blob(json.dumps(found).encode(), OCI_MANIFEST), "null")
    for ref in ("v1", "null"):
        for flatten in (False, True):
            report = convert(layout, tmp_path / "dst", ref, verify=True, flatten=flatten)
            assert report.layers == ()


def test_null_history_of_a_flattened_image(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layers = [layout.plain_layer(TAR), layout.plain_layer(tar_of([("b", b"b")]))]
    layout.tag(layout.manifest(layers, config={"history": None}), "v1")
    report = convert(layout, tmp_path / "dst", flatten=True, verify=True)
    assert [layer.entries for layer in report.layers] == [3]
    with load_image(f"oci:{tmp_path}/dst:v1", platform="linux/amd64") as found:
        config = found.config
    assert not config.get("history") and len(config["rootfs"]["diff_ids"]) == 1


def test_a_layout_whose_list_is_null(tmp_path: Path) -> None:
    """As umoci makes one."""
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(TAR)]), "v1")
    empty = Layout(tmp_path / "dst").path
    (empty / "index.json").write_text('{"schemaVersion":2,"manifests":null}')
    convert(layout, empty, verify=True)
    assert Reading(empty).refs() == ["v1"]


def test_what_is_needed_has_to_be_there() -> None:
    for text in (b"{}", b'{"config":null}', b'{"mediaType":null}'):
        with pytest.raises(FormatError, match="no 'layers' in it"):
            parse_manifest(text, "here")
    assert parse_manifest(b'{"manifests":null}', "here").manifests == []
    unknown = parse_manifest(b'{"layers":null,"x":null,"y":{"z":null}}', "here").json
    assert unknown == {"layers": [], "x": None, "y": {"z": None}}
    with pytest.raises(FormatError):
        parse_manifest(b'{"layers":' + b'{"config":' * 900 + b"1" + b"}" * 901, "here")


# --- kinds that are not known -------------------------------------------------------------------


def index_with(layout: Layout, extra: dict[str, Any], ref: str = "v1") -> dict[str, Any]:
    """An index of an image and something else, said to be for another platform."""
    image = layout.manifest([layout.plain_layer(TAR)])
    other = {"platform": {"os": "linux", "architecture": "arm64"}} | extra
    layout.tag(layout.index([image, other]), ref)
    return other


OTHERS = {
    "schema 1": (json.dumps({"schemaVersion": 1, "fsLayers": [], "name": "x"}), SCHEMA_1),
    "a manifest": ('{"schemaVersion":2,"x":1}', "application/vnd.example.thing.v1+json"),
    "JSON": ('{"x":1}', "application/vnd.example.thing.v1+json"),
    "bytes": ("\0 \xff", "application/octet-stream"),
    "a layer": ("no tar at all", OCI_LAYER),
    "nothing": ("", "application/vnd.example.thing.v1+json"),
    "too large for a manifest": ("x" * (5 << 20), "text/plain"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_known_stays(tmp_path: Path, kind: str, served: registries.Registry) -> None:
    layout = Layout(tmp_path / "src")
    text, media_type = OTHERS[kind]
    other = index_with(layout, layout.blob(text.encode(), media_type))
    report = convert(layout, tmp_path / "dst", verify=True)
    assert report.status == "converted"
    assert [other["digest"] in warning for warning in report.warnings] == [True]
    entry = written(tmp_path / "dst").manifests[1]
    assert entry.json == {"platform": other["platform"]} | other
    named(tmp_path / "dst")
    (found,) = [one for one in verify_image(f"oci:{tmp_path}/dst:v1").images if one.kind == "other"]
    assert found.ok
    (tmp_path / "dst/blobs/sha256" / other["digest"][7:]).write_bytes(b"?")
    assert not verify_image(f"oci:{tmp_path}/dst:v1").ok
    # The same through a registry, which has it as a blob.
    repository = f"{kind.replace(' ', '-').lower()}/app"
    served.push(layout.path, repository, "v1")
    name = f"docker://{served.host}/{repository}"
    there = convert_image(f"{name}:v1", f"docker://{served.host}/new/{repository}:v1", verify=True)
    assert there.digest == report.digest
    one = convert(layout, tmp_path / "one", platforms=["linux/amd64"])
    assert one.warnings == ()


def test_what_a_registry_does_not_take(tmp_path: Path, served: registries.Registry) -> None:
    """CNCF's distribution, from version 3 on, takes no index of what it has as a blob."""
    layout = Layout(tmp_path / "src")
    kind = "application/vnd.example.thing.v1+json"
    index_with(layout, layout.blob(b"{}", kind))
    body = b'{"errors":[{"code":"MANIFEST_INVALID","message":"no such blob"}]}'

    def plan(asked: Request) -> Fault | None:
        index = asked.method == "PUT" and asked.path.endswith("/manifests/v1")
        return Fault(status=400, body=body) if index else None

    with FaultProxy(f"http://{served.host}") as proxy:
        proxy.plan = plan
        to = f"docker://{proxy.url.removeprefix('http://')}/refused/app:v1"
        text = f"no such blob.*\\({re.escape(kind)}\\): choose the platforms.*--platform"
        with pytest.raises(RegistryError, match=text):
            convert_image(f"oci:{layout.path}:v1", to)


def test_bulk_knows_what_is_whole(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    other = index_with(layout, layout.blob(b"?", "text/plain"))
    source, to = f"oci:{layout.path}", f"oci:{tmp_path}/dst"
    made = [bulk(source, to, state=tmp_path / "state").totals for _ in range(2)]
    assert [totals["converted"] for totals in made] == [1, 0]
    (tmp_path / "dst/blobs/sha256" / other["digest"][7:]).unlink()
    assert bulk(source, to, state=tmp_path / "state").totals["converted"] == 1
    named(tmp_path / "dst")


def test_a_manifest_that_is_missing(tmp_path: Path, served: registries.Registry) -> None:
    layout = Layout(tmp_path / "src")
    gone = {"mediaType": OCI_MANIFEST, "digest": sha256(b"gone"), "size": 4}
    index_with(layout, gone)
    text = f"the index lists {gone['digest']} \\(linux/arm64\\), which is not there.*--platform"
    with pytest.raises(SourceError, match=text):
        convert(layout, tmp_path / "dst")
    assert not (tmp_path / "dst").exists()
    assert convert(layout, tmp_path / "dst", platforms=["linux/amd64"], verify=True)
    unknown = gone | {"mediaType": "application/vnd.example.thing.v1+json"}
    index_with(layout, unknown, "unknown")
    with pytest.raises(SourceError, match=text):
        convert(layout, tmp_path / "other", "unknown")


def test_schema_1_itself_is_said_to_be_old() -> None:
    data = json.dumps({"schemaVersion": 1, "fsLayers": [{"blobSum": "x"}]}).encode()
    for media_type in (None, "text/plain", SCHEMA_1):
        with pytest.raises(FormatError, match=r"schema 1.*push it anew"):
            parse_manifest(data, "here", media_type=media_type)


# --- artifacts ----------------------------------------------------------------------------------


def test_an_index_of_blobs_is_no_image(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    cache(layout)
    with pytest.raises(ArtifactError, match=f"no image, but an artifact .*{CACHE}"):
        convert(layout, tmp_path / "dst", "cache")
    assert not (tmp_path / "dst").exists()
    source = f"oci:{layout.path}:cache"
    assert CACHE in fails(1, "image", "info", source)
    assert CACHE in fails(1, "image", "convert", source, f"oci:{tmp_path}/dst:x")


# --- what manifests are about -------------------------------------------------------------------


def attested(layout: Layout, order: str) -> list[dict[str, Any]]:
    """Two images, an attestation for each with a subject, and one that is about that."""
    images = [
        layout.manifest([layout.plain_layer(tar_of([("f", name.encode())]))], platform=name)
        for name in ("linux/amd64", "linux/arm64")
    ]

    def about(one: dict[str, Any], text: bytes) -> dict[str, Any]:
        statement = layout.blob(text, "application/vnd.in-toto+json")
        subject = {key: one[key] for key in ("mediaType", "digest", "size")}
        found = layout.manifest([statement], platform="unknown/unknown", subject=subject)
        notes = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": one["digest"],
        }
        return found | {"annotations": notes}

    first = [about(image, b"%d" % n) for n, image in enumerate(images)]
    second = about(first[0], b"about the attestation")
    entries = [*images, *first, second]
    return entries[::-1] if order == "reversed" else entries


@pytest.mark.parametrize("order", ["ordered", "reversed"])
@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("docker", [False, True])
def test_subjects_follow(tmp_path: Path, order: str, flatten: bool, docker: bool) -> None:
    layout = Layout(tmp_path / "src")
    entries = attested(layout, order)
    inner = layout.index(entries)
    layout.tag(layout.index([inner]), "v1")
    report = convert(layout, tmp_path / "dst", flatten=flatten, docker_types=docker)
    named(tmp_path / "dst")
    reading = Reading(tmp_path / "dst")
    index = reading.manifest(written(tmp_path / "dst").manifests[0])
    became = {old["digest"]: new for old, new in zip(entries, index.manifests, strict=True)}
    for old, new in zip(entries, index.manifests, strict=True):
        assert new.digest != old["digest"]
        about = old.get("annotations", {}).get("vnd.docker.reference.digest")
        if about is None:
            continue
        assert new.annotations["vnd.docker.reference.digest"] == became[about].digest
        manifest = reading.manifest(new)
        assert manifest.json["subject"] == {
            "mediaType": became[about].media_type,
            "digest": became[about].digest,
            "size": became[about].size,
        }
        assert manifest.data.count(b"sha256:") == 3  # config, layer, subject: and nothing old
    assert len(report.stale) == 3
    if not docker:
        again = convert(tmp_path / "dst", tmp_path / "again", flatten=flatten)
        assert (again.status, again.digest) == ("unchanged", report.digest)


def test_subjects_follow_in_a_registry(tmp_path: Path, served: registries.Registry) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.index(attested(layout, "ordered")), "v1")
    served.push(layout.path, "attested/app", "v1")
    src = f"docker://{served.host}/attested/app:v1"
    report = bulk(src, f"docker://{served.host}/attested/new:v1")
    assert report.ok
    base = f"http://{served.host}/v2/attested/new"
    accept = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}"}

    def get(path: str) -> Any:
        with urllib.request.urlopen(urllib.request.Request(base + path, headers=accept)) as answer:
            return json.loads(answer.read())

    listed = get("/manifests/v1")["manifests"]
    manifests = [get(f"/manifests/{entry['digest']}") for entry in listed]
    assert sum("subject" in found for found in manifests) == 3
    digests = {entry["digest"] for entry in listed}
    assert {found["subject"]["digest"] for found in manifests if "subject" in found} <= digests


def test_a_subject_elsewhere_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    subject = {"mediaType": OCI_MANIFEST, "digest": sha256(b"elsewhere"), "size": 9}
    layout.tag(layout.manifest([layout.plain_layer(TAR)], subject=subject), "v1")
    convert(layout, tmp_path / "dst")
    assert written(tmp_path / "dst").json["subject"] == subject


# --- SOCI ---------------------------------------------------------------------------------------


def with_soci(layout: Layout, layers: list[dict[str, Any]], ref: str = "v1") -> str:
    """An image with a SOCI index, as it is bound to the image by version 2; that index's digest."""
    ztoc = layout.blob(noise("ztoc", 1000), "application/octet-stream")
    config = layout.blob(b"{}", SOCI)
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [ztoc]}
    soci = layout.blob(json.dumps(document).encode(), OCI_MANIFEST)
    notes = {"com.amazon.soci.index-digest": soci["digest"]}
    image = layout.manifest(layers, annotations=notes) | {"annotations": notes}
    plain = layout.manifest([layout.plain_layer(tar_of([("p", b"p")]))], platform="linux/arm64")
    entry = soci | {
        "platform": image["platform"],
        "artifactType": SOCI,
        "annotations": {"com.amazon.soci.image-manifest-digest": image["digest"]},
    }
    layout.tag(layout.index([image, plain, entry]), ref)
    return str(soci["digest"])


def test_a_soci_index_of_other_layers_is_left_out(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    soci = with_soci(layout, [layout.plain_layer(TAR)])
    for platforms in ([], ["linux/amd64"], ["linux/amd64", "linux/arm64"]):
        dst = tmp_path / f"dst{len(platforms)}"
        report = convert(layout, dst, platforms=platforms, verify=True)
        assert ["SOCI index" in text for text in report.warnings] == [True]
        assert report.stale == ()
        named(dst)
        texts = [path.read_bytes() for path in (dst / "blobs/sha256").iterdir()]
        assert not any(b"amazon" in text or soci.encode() in text for text in texts)
        assert noise("ztoc", 1000) not in texts


def test_a_soci_index_of_the_same_layers_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    soci = with_soci(layout, [layout.layer(TAR)], "first")
    found = convert(layout, tmp_path / "dst", "first", platforms=["linux/amd64", "linux/arm64"])
    # The descriptor of the layer gets an annotation, so the image is another, of the same layer.
    index = written(tmp_path / "dst", "first")
    assert [entry.digest == soci for entry in index.manifests] == [False, False, True]
    about = index.manifests[2].annotations["com.amazon.soci.image-manifest-digest"]
    assert about == index.manifests[0].digest
    assert index.manifests[0].annotations == {"com.amazon.soci.index-digest": soci}
    assert found.warnings == ()
    named(tmp_path / "dst")


def test_a_soci_index_by_itself_is_copied(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    soci = with_soci(layout, [layout.layer(TAR)])
    data = (layout.blobs / soci[7:]).read_bytes()
    layout.tag(layout.blob(data, OCI_MANIFEST), "soci")
    assert convert(layout, tmp_path / "dst", "soci").digest == soci
    named(tmp_path / "dst")


# --- media types --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gzip"])
def test_foreign_layers_have_the_types_of_their_manifest(tmp_path: Path, suffix: str) -> None:
    layout = Layout(tmp_path / "src")
    urls = ["https://registry.example/layer"]
    foreign = {"mediaType": FOREIGN + suffix, "digest": sha256(b"no"), "size": 2, "urls": urls}
    layers = [foreign, layout.plain_layer(TAR)]
    layout.tag(docker(layout, layers), "v1")
    convert(layout, tmp_path / "dst", verify=True)
    oci = NONDISTRIBUTABLE + suffix.replace(".", "+")
    assert written(tmp_path / "dst").layers[0].json == foreign | {"mediaType": oci}
    convert(tmp_path / "dst", tmp_path / "back", docker_types=True)
    assert written(tmp_path / "back").layers[0].json == foreign


def test_the_registry_takes_foreign_layers(tmp_path: Path, served: registries.Registry) -> None:
    layout = Layout(tmp_path / "src")
    urls = ["https://registry.example/layer"]
    foreign = {"mediaType": f"{FOREIGN}.gzip", "digest": sha256(b"no"), "size": 2, "urls": urls}
    layout.tag(docker(layout, [foreign, layout.plain_layer(TAR)]), "v1")
    to = f"docker://{served.host}/foreign/app:v1"
    convert_image(f"oci:{layout.path}:v1", to, verify=True)
    with load_image(to, platform="linux/amd64") as found:
        there = found.manifest.layers[0]
    assert there.json == foreign | {"mediaType": f"{NONDISTRIBUTABLE}+gzip"}


def test_types_are_one_table() -> None:
    assert {OCI_TYPES[docker] for docker in OCI_TYPES} == set(DOCKER_TYPES)
    assert all(DOCKER_TYPES[oci] == docker for docker, oci in OCI_TYPES.items())
    assert all(docker.startswith("application/vnd.docker.") for docker in OCI_TYPES)
    assert all(oci.startswith("application/vnd.oci.image.") for oci in DOCKER_TYPES)


# --- limits -------------------------------------------------------------------------------------


def test_manifests_have_a_limit_of_layers(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(TAR)] * 4097), "v1")
    text = "4097 layers are more than 4096"
    with pytest.raises(FormatError, match=text):
        convert(layout, tmp_path / "dst")
    source = f"oci:{layout.path}:v1"
    assert text in fails(1, "image", "info", "--platform", "linux/amd64", source)
    assert [text in error.message for error in verify_image(source).errors] == [True]


def test_configs_have_a_limit(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([], config={"x": "y" * (8 << 20)}), "v1")
    with pytest.raises(FormatError, match="over the limit of 8388608 bytes"):
        convert(layout, tmp_path / "dst")
