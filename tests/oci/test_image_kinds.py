"""What images are made of in the field: documents with null, kinds that are not known, manifests
that say what they are about, layers that a TOC cannot hold."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
import zstandard
from blobs import noise, sha256, tar_of
from command import fails, ok, run
from layouts import OCI_INDEX, OCI_LAYER, OCI_MANIFEST, TOC_DIGEST, Layout

import stargz
from stargz.errors import (
    ArtifactError,
    DigestError,
    FormatError,
    SourceError,
    TarError,
    UnindexableError,
)
from stargz.footer import NOT_READ
from stargz.oci.bulk import bulk
from stargz.oci.conversion import ImageReport, convert_image
from stargz.oci.convert.layers import LayerOptions
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import DOCKER_TYPES, OCI_TYPES, Manifest, parse_manifest
from stargz.oci.image import load_image
from stargz.oci.verify.image import verify_image

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
SOCI = "application/vnd.amazon.soci.index.v2+json"
CACHE = "application/vnd.buildkit.cacheconfig.v0"
TAR = tar_of([("etc/file", b"content\n")])


def convert(layout: Layout | Path, dst: Path, ref: str = "v1", **options: Any) -> ImageReport:
    src = layout.path if isinstance(layout, Layout) else layout
    return convert_image(f"oci:{src}:{ref}", f"oci:{dst}:{ref}", threads=1, jobs=2, **options)


def written(path: Path, ref: str = "v1") -> Manifest:
    reading = Reading(path)
    return reading.manifest(reading.resolve(ref))


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
    convert(layout, tmp_path / "dst", flatten=True, verify=True)


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


def cache(layout: Layout, ref: str = "cache") -> dict[str, Any]:
    """BuildKit's cache, in the form of an index."""
    blobs = [layout.plain_layer(TAR), layout.blob(b"{}", CACHE)]
    return layout.tag(layout.index(blobs), ref)


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


def docker(layout: Layout, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """An image of Docker's schema 2."""
    return layout.manifest(layers, mediaType=DOCKER_MANIFEST) | {"mediaType": DOCKER_MANIFEST}


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
    convert_image(f"oci:{layout.path}:v1", f"docker://{served.host}/foreign/app:v1", verify=True)


def test_types_are_one_table() -> None:
    assert {OCI_TYPES[docker] for docker in OCI_TYPES} == set(DOCKER_TYPES)
    assert all(DOCKER_TYPES[oci] == docker for docker, oci in OCI_TYPES.items())
    assert all(docker.startswith("application/vnd.docker.") for docker in OCI_TYPES)
    assert all(oci.startswith("application/vnd.oci.image.") for oci in DOCKER_TYPES)


# --- layers that a TOC cannot hold --------------------------------------------------------------


def special(*members: tuple[str, bytes, str]) -> bytes:
    """A tar of entries (name, type, target) and a file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime = kind, link, 1_700_000_000
            archive.addfile(info)
        info = tarfile.TarInfo("other")
        info.size = 6
        archive.addfile(info, io.BytesIO(b"other\n"))
    return out.getvalue()


def of_type(kind: bytes) -> bytes:
    """A tar with an entry of a type that no layer has."""
    tar = bytearray(special(("odd", tarfile.REGTYPE, "")))
    tar[156:157] = kind
    tar[148:156] = b" " * 8
    tar[148:156] = b"%06o\0 " % sum(tar[:512])
    return bytes(tar)


UNINDEXABLE = {
    "a hard link into a lower layer": special(("alias", tarfile.LNKTYPE, "etc/file")),
    "a hard link to a directory": special(
        ("d/", tarfile.DIRTYPE, ""), ("alias", tarfile.LNKTYPE, "d")
    ),
    "an entry of another type": of_type(b"q"),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda tar: tar,
    "gzip": lambda tar: gzip.compress(tar, 1, mtime=0),
}


@pytest.mark.parametrize("kind", UNINDEXABLE)
@pytest.mark.parametrize("packing", PACKED)
def test_a_layer_that_a_toc_cannot_hold_stays(tmp_path: Path, kind: str, packing: str) -> None:
    tar = UNINDEXABLE[kind]
    with pytest.raises(UnindexableError):
        stargz.convert(tar, io.BytesIO())
    layout = Layout(tmp_path / "src")
    suffix = ".gzip" if packing == "gzip" else ""
    lower = layout.plain_layer(TAR) | {"mediaType": f"{DOCKER_TAR}.gzip"}
    odd = layout.plain_layer(tar, PACKED[packing](tar)) | {
        "mediaType": f"{DOCKER_TAR}{suffix}",
        "annotations": {"a": "b", TOC_DIGEST: sha256(b"a lie")},
    }
    layout.tag(docker(layout, [lower, odd]), "v1")
    report = convert(layout, tmp_path / "dst", verify=True)
    made, left = report.layers
    assert made.status == "converted"
    assert (left.status, left.toc_digest, left.digest) == ("not seekable", None, odd["digest"])
    assert (left.diff_id, left.uncompressed_size) == (sha256(tar), len(tar))
    assert [odd["digest"] in text and "TOC" in text for text in report.warnings] == [True]
    entry = written(tmp_path / "dst").layers[1]
    assert entry.json == {
        "mediaType": f"application/vnd.oci.image.layer.v1.tar{suffix.replace('.', '+')}",
        "digest": odd["digest"],
        "size": odd["size"],
        "annotations": {"a": "b"},
    }
    config = json.loads(
        (tmp_path / "dst/blobs/sha256" / written(tmp_path / "dst").config.digest[7:]).read_bytes()
    )
    assert config["rootfs"]["diff_ids"] == [made.diff_id, sha256(tar)]
    with pytest.raises(UnindexableError, match=odd["digest"]):
        convert(layout, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict/index.json").exists() or not Reading(tmp_path / "strict").refs()
    again = convert(tmp_path / "dst", tmp_path / "again")
    assert (again.status, again.digest) == ("unchanged", report.digest)


def test_what_a_lossless_layer_cannot_hold_stays(tmp_path: Path) -> None:
    """There the tar's bytes have to be those of the files."""
    sparse = {"GNU.sparse.size": "9", "GNU.sparse.map": "2,2"}
    tar = tar_of([("f", b"ab")], pax_headers=sparse)
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(tar)]), "v1")
    options = LayerOptions(lossless=True)
    report = convert(layout, tmp_path / "dst", options=options, verify=True)
    assert [layer.status for layer in report.layers] == ["not seekable"]
    report = convert(layout, tmp_path / "other", verify=True)
    assert [layer.status for layer in report.layers] == ["converted"]


def damaged(kind: str) -> tuple[bytes, bytes]:
    """A tar that a TOC cannot hold, and what is stored in its place."""
    tar = UNINDEXABLE["a hard link into a lower layer"]
    if kind == "truncated tar":
        tar = tar[:1027]
        return tar, gzip.compress(tar)
    if kind == "corrupt tar":
        tar = tar[:512] + b"\x01" * 512 + tar[1024:]
        return tar, gzip.compress(tar)
    packed = bytearray(gzip.compress(tar + noise("more", 100_000)))
    if kind == "truncated":
        return tar, bytes(packed[:-5000])
    packed[-3000] ^= 1
    return tar, bytes(packed)


@pytest.mark.parametrize("kind", ["truncated tar", "corrupt tar", "truncated", "corrupt"])
def test_what_is_damaged_does_not_stay(tmp_path: Path, kind: str) -> None:
    tar, packed = damaged(kind)
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(tar, packed)]), "v1")
    with pytest.raises(FormatError) as caught:
        convert(layout, tmp_path / "dst")
    assert not isinstance(caught.value, UnindexableError)


def test_other_bytes_than_those_of_the_digest_do_not_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    tar = UNINDEXABLE["a hard link into a lower layer"]
    odd = layout.plain_layer(tar, tar)
    (layout.blobs / odd["digest"][7:]).write_bytes(tar[:-1] + b"\1")
    layout.tag(layout.manifest([odd]), "v1")
    with pytest.raises(DigestError):
        convert(layout, tmp_path / "dst")


def test_limits_are_no_reason_to_stay() -> None:
    with pytest.raises(TarError) as caught:
        stargz.convert(tar_of([("x", b"")], uname="x" * 70_000), io.BytesIO())
    assert not isinstance(caught.value, UnindexableError)


def test_a_command_tells_of_layers_that_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    odd = layout.plain_layer(UNINDEXABLE["a hard link into a lower layer"])
    layout.tag(layout.manifest([layout.plain_layer(TAR), odd]), "v1")
    words = ["image", "convert", f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1"]
    done = run(*words)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and odd["digest"] in done.stderr
    assert f"{odd['digest']}  not seekable" in done.stdout
    assert odd["digest"] in fails(1, *words, "--strict")


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


# --- one layer flattened ------------------------------------------------------------------------


@pytest.mark.parametrize("seekable", [False, True])
@pytest.mark.parametrize("name", ["a/.wh..wh..opq", "a/.wh.x", ".wh.y"])
def test_flatten_applies_the_whiteouts_of_one_layer(
    tmp_path: Path, name: str, seekable: bool
) -> None:
    layout = Layout(tmp_path / "src")
    tar = tar_of([("a", None), (name, b""), ("a/y", b"y")])
    layer = layout.layer(tar) if seekable else layout.plain_layer(tar)
    layout.tag(layout.manifest([layer]), "v1")
    report = convert(layout, tmp_path / "dst", flatten=True, verify=True)
    (entry,) = written(tmp_path / "dst").layers
    with stargz.open(tmp_path / "dst/blobs/sha256" / entry.digest[7:]) as found:
        names = {name for name in found.names() if "landmark" not in name}
    assert names == {"a", "a/y"}
    again = convert(tmp_path / "dst", tmp_path / "again", flatten=True)
    assert (again.status, again.digest) == ("unchanged", report.digest)


def test_flatten_of_one_layer_without_whiteouts_is_its_conversion(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(TAR)]), "v1")
    plain = convert(layout, tmp_path / "plain")
    assert convert(layout, tmp_path / "flat", flatten=True).digest == plain.digest
    kept = convert(tmp_path / "plain", tmp_path / "kept", flatten=True)
    assert [layer.status for layer in kept.layers] == ["kept"]
    assert (kept.status, kept.digest) == ("unchanged", plain.digest)


# --- zstd:chunked -------------------------------------------------------------------------------


def chunked(data: Path, dialect: str) -> tuple[bytes, dict[str, str]]:
    """A zstd:chunked layer and its annotations, as stargz-snapshotter and as containers/storage
    end and annotate it."""
    blob = (data / "zstd_chunked.zst").read_bytes()
    cases = json.loads((data / "manifest.json").read_text())
    (notes,) = (case["annotations"] for case in cases if case["name"] == "zstd_chunked")
    if dialect == "stargz-snapshotter":
        return blob, notes
    offset, size, inflated, kind = map(int, notes[f"{S}manifest-position"].split(":"))
    split = noise("split", 40)
    place = len(blob) - 48 + 8
    numbers = (offset, size, inflated, kind, place, len(split), 99)
    footer = b"".join(number.to_bytes(8, "little") for number in numbers) + b"GNUlInUx"
    frames = b"".join(
        bytes.fromhex("502a4d18") + len(one).to_bytes(4, "little") + one for one in (split, footer)
    )
    checksum = f"{C}manifest-checksum"
    position = f"{offset}:{size}:{inflated}:{kind}"
    return blob[:-48] + frames, {checksum: sha256(b"?"), f"{C}manifest-position": position}


S, C = "io.containers.zstd-chunked.", "io.github.containers.zstd-chunked."
OCI_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


@pytest.mark.parametrize("dialect", ["stargz-snapshotter", "containers/storage"])
def test_zstd_chunked_is_one_thing_to_all_commands(
    tmp_path: Path, data: Path, dialect: str
) -> None:
    blob, notes = chunked(data, dialect)
    path = tmp_path / "layer.zst"
    path.write_bytes(blob)
    info = json.loads(ok("info", "--json", path))
    assert (info["kind"], info["toc_digest"]) == ("zstd:chunked", None)
    said = {fails(1, command, path) for command in ("verify", "ls", "toc")}
    said |= {fails(1, "cat", path, "x"), fails(1, "extract", path, "-C", tmp_path / "x")}
    (text,) = said
    assert text.endswith(NOT_READ)
    assert NOT_READ in ok("info", path)
    layout = Layout(tmp_path / "src")
    tar = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True)
    layer = layout.plain_layer(tar.read(), blob) | {"mediaType": OCI_ZSTD, "annotations": notes}
    layout.tag(layout.manifest([layer]), "v1")
    source = f"oci:{layout.path}:v1"
    for words in (["image", "ls"], ["verify", "--layer", "1"]):
        assert fails(1, *words, "--platform", "linux/amd64", source).endswith(NOT_READ)
    found = json.loads(ok("image", "info", "--json", "--platform", "linux/amd64", source))
    assert (found["seekable"], found["layers"][0]["kind"]) == (False, "zstd:chunked")
    assert NOT_READ in ok("image", "info", "--platform", "linux/amd64", source)
    result = verify_image(source)
    assert (result.ok, result.verified) == (True, False)
    (there,) = result.images[0].layers
    assert (there.status, there.kind) == ("not seekable", "zstd:chunked")
    assert not verify_image(source, require_verified=True).ok
    # What can be done with it.
    report = convert(layout, tmp_path / "dst", verify=True)
    assert [one.status for one in report.layers] == ["converted"]
    assert report.warnings == ()
    assert verify_image(f"oci:{tmp_path}/dst:v1").verified
    assert not any("zstd" in key for key in written(tmp_path / "dst").layers[0].annotations)
    ok("-q", "convert", path, tmp_path / "layer.esgz")


def test_annotations_tell_of_zstd_chunked_without_a_footer(tmp_path: Path, data: Path) -> None:
    blob, _ = chunked(data, "stargz-snapshotter")
    layout = Layout(tmp_path / "src")
    plain = blob[:-48]
    tar = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(plain), read_across_frames=True)
    notes = {f"{C}manifest-position": "26368:1470:7680:1"}
    layer = layout.plain_layer(tar.read(), plain) | {"mediaType": OCI_ZSTD, "annotations": notes}
    layout.tag(layout.manifest([layer]), "v1")
    source = f"oci:{layout.path}:v1"
    assert fails(1, "image", "ls", "--platform", "linux/amd64", source).endswith(NOT_READ)
    assert [one.kind for one in verify_image(source).images[0].layers] == ["zstd:chunked"]


# --- many images --------------------------------------------------------------------------------


def test_bulk_skips_caches_and_lists_layers_that_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    cache(layout)
    odd = layout.plain_layer(UNINDEXABLE["a hard link into a lower layer"])
    layout.tag(layout.manifest([layout.plain_layer(TAR), odd]), "odd")
    reports = [tmp_path / "report.json", tmp_path / "report.html"]
    words = ["image", "bulk", "--state", tmp_path / "state", f"oci:{layout.path}"]
    dry = json.loads(ok(*words, f"oci:{tmp_path}/dst", "--dry-run", "--json"))
    assert [dry["totals"][key] for key in ("images", "to_do", "skipped", "failed")] == [2, 1, 1, 0]
    done = run(*words, f"oci:{tmp_path}/dst", *(f"--report={path}" for path in reports))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"skipped  oci:{layout.path}:cache: it is no image, but an artifact" in done.stdout
    assert "1 skipped" in done.stdout and "1 not seekable" in done.stdout
    found = json.loads(reports[0].read_text())
    assert [one["source"] for one in found["skipped"]] == [f"oci:{layout.path}:cache"]
    assert (found["failures"], found["totals"]["skipped"]) == ([], 1)
    assert found["totals"]["layers_not_seekable"] == 1
    skipped, image = sorted(found["images"], key=lambda one: str(one["source"]))
    assert (skipped["status"], skipped["error"]) == ("skipped", None)
    assert CACHE in skipped["warnings"][0]
    assert [layer["status"] for layer in image["layers"]] == ["converted", "not seekable"]
    page = reports[1].read_text()
    assert "Layers that are not seekable" in page and "hard link" in page
    assert "Failed" not in page
    # Again nothing is to be done; asked to be strict, it is.
    assert bulk(f"oci:{layout.path}", f"oci:{tmp_path}/dst", state=tmp_path / "state").ok
    strict = bulk(
        f"oci:{layout.path}", f"oci:{tmp_path}/dst", state=tmp_path / "state", strict=True
    )
    assert [odd["digest"] in failure.error for failure in strict.failures] == [True]
    assert [one.destination for one in strict.skipped] == [f"oci:{tmp_path}/dst:cache"]
