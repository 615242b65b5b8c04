"""Whole images: converted between layouts, through real registries, and read by other tools."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import registries
import zstandard
from blobs import build, inflated, noise, sha256, tar_of, varied_tar
from command import fails, ok, run
from layouts import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, REF_NAME, TOC_DIGEST, Layout
from trees import snapshot

import stargz
from stargz.errors import (
    DigestError,
    EntryNotFoundError,
    FormatError,
    GzipError,
    RegistryError,
    SourceError,
    StargzError,
    UsageError,
)
from stargz.oci.conversion import ImageReport, convert_image
from stargz.oci.convert.layers import LayerReport, LayerTask, convert_layer
from stargz.oci.convert.options import LayerOptions
from stargz.oci.convert.store import LocalStore
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import UNCOMPRESSED_SIZE, Manifest
from stargz.oci.formats.reference import LayoutReference, Reference
from stargz.oci.image import is_verified, open_image
from stargz.oci.registry.access import Access

OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
COSIGN = "application/vnd.dev.cosign.simplesigning.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def tar_with(entries: dict[str, bytes | None], **links: str) -> bytes:
    """A tar of these files (and directories), and hard links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = 1_700_000_000, 0o644
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            info.size = len(content or b"")
            archive.addfile(info, io.BytesIO(content or b""))
        for name, target in links.items():
            info = tarfile.TarInfo(f"d/{name}")
            info.type, info.linkname = tarfile.LNKTYPE, target
            archive.addfile(info)
    return out.getvalue()


LOWER = tar_with(
    {
        "./": None,
        "d/": None,
        "d/file": b"lower" * 1000,
        "d/gone": b"gone",
        "d/large": noise("large", 300_000),
        "o/": None,
        "o/hidden": b"hidden",
    },
    hard="d/file",
)
UPPER = tar_with(
    {"d/": None, "d/.wh.gone": b"", "o/": None, "o/.wh..wh..opq": b"", "o/new": b"new"},
    upper="o/new",
)
THIRD = tar_with({"third": b"3" * 5000, "d/": None, "d/file": b"replaced"})


def source(path: Path, tars: tuple[bytes, ...] = (LOWER, UPPER, THIRD), ref: str = "v1") -> Layout:
    """A layout of one image as other tools make it."""
    layout = Layout(path)
    layout.tag(layout.manifest([layout.plain_layer(tar) for tar in tars]), ref)
    return layout


def convert(src: Path, dst: Path, **options: Any) -> ImageReport:
    """oci:SRC:v1 to oci:DST:v1."""
    return convert_image(f"oci:{src}:v1", f"oci:{dst}:v1", **options)


def written(path: Path, ref: str = "v1") -> Manifest:
    """What a layout has under a name."""
    layout = Reading(path)
    return layout.manifest(layout.resolve(ref))


def blob(path: Path, digest: str) -> bytes:
    return (path / "blobs" / "sha256" / digest.partition(":")[2]).read_bytes()


def config_of(path: Path, manifest: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(blob(path, manifest.config.digest))
    return found


def check(path: Path, ref: str = "v1", platform: str = "linux/amd64") -> None:
    """Everything that a puller relies on holds."""
    with open_image(
        f"oci:{path}:{ref}", platform=platform, require_verified=True, cache=False
    ) as image:
        assert image.verified
        config = image.config
        assert len(config["rootfs"]["diff_ids"]) == len(image.layers)
        for layer, entry, diff_id in zip(
            image.layers, image.descriptors, config["rootfs"]["diff_ids"], strict=True
        ):
            data = blob(path, entry.digest)
            assert (sha256(data), len(data)) == (entry.digest, entry.size)
            assert entry.media_type == OCI_LAYER
            tar = inflated(data)
            assert sha256(tar) == diff_id
            assert entry.annotations[UNCOMPRESSED_SIZE] == str(len(tar))
            assert entry.annotations[TOC_DIGEST] == layer.toc_digest
            assert is_verified(layer)
            assert layer.verify().ok


def files(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*") if found.is_file()}


# --- layouts ----------------------------------------------------------------------------------


def test_layout_to_layout(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    before = files(layout.path)
    events: list[dict[str, Any]] = []
    report = convert(layout.path, tmp_path / "dst", progress=lambda event: events.append({**event}))
    check(tmp_path / "dst")
    manifest = written(tmp_path / "dst")
    assert report.status == "converted"
    assert report.source_digest == written(layout.path).digest
    assert report.digest == manifest.digest
    assert [layer.digest for layer in report.layers] == [e.digest for e in manifest.layers]
    assert [layer.source_digest for layer in report.layers] == [
        entry.digest for entry in written(layout.path).layers
    ]
    assert {layer.status for layer in report.layers} == {"converted"}
    assert files(layout.path) == before
    blobs = {f"blobs/sha256/{e.digest[7:]}" for e in (*manifest.layers, manifest.config)}
    manifest_file = f"blobs/sha256/{manifest.digest[7:]}"
    assert files(tmp_path / "dst") == {*blobs, manifest_file, "index.json", "oci-layout"}
    assert report.size_after == sum(e.size for e in (*manifest.layers, manifest.config))
    assert events[0] == {
        "event": "plan",
        "layers": 3,
        "bytes": sum(layer.source_size for layer in report.layers),
    }
    ends = [event for event in events if event["event"] == "layer-done"]
    assert {event["digest"] for event in ends} == {layer.digest for layer in report.layers}
    # What the engine alone makes of the same tars:
    for layer, tar in zip(report.layers, (LOWER, UPPER, THIRD), strict=True):
        out = io.BytesIO()
        alone = stargz.convert(tar, out)
        same = ("digest", "size", "diff_id", "toc_digest", "uncompressed_size", "entries", "chunks")
        assert [getattr(layer, key) for key in same] == [getattr(alone, key) for key in same]


def test_config_and_history_stay_but_for_the_diff_ids(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    more = {"history": [{"created_by": "ünder"}], "x.unknown": [1, None], "variant": "v1"}
    layout.tag(layout.manifest([layout.plain_layer(LOWER)], config=more, y="kept"), "v1")
    convert(layout.path, tmp_path / "dst")
    old, new = written(layout.path), written(tmp_path / "dst")
    configs = config_of(layout.path, old), config_of(tmp_path / "dst", new)
    assert list(configs[0]) == list(configs[1])
    assert configs[0]["rootfs"] != configs[1]["rootfs"]
    for config in configs:
        config.pop("rootfs")
    assert configs[0] == configs[1]
    assert new.json["y"] == "kept"


def test_converted_twice_is_unchanged(tmp_path: Path) -> None:
    source(tmp_path / "src")
    once = convert(tmp_path / "src", tmp_path / "one")
    twice = convert(tmp_path / "one", tmp_path / "two")
    assert (once.status, twice.status) == ("converted", "unchanged")
    assert once.digest == twice.digest
    assert written(tmp_path / "one").data == written(tmp_path / "two").data
    check(tmp_path / "two")
    for first, second in zip(once.layers, twice.layers, strict=True):
        assert second.status == "kept"
        for key in ("digest", "size", "diff_id", "toc_digest", "entries", "chunks"):
            assert getattr(first, key) == getattr(second, key)
    assert [layer.level for layer in twice.layers] == [None] * 3


def test_options_ask_for_another_layout(tmp_path: Path) -> None:
    source(tmp_path / "src")
    once = convert(tmp_path / "src", tmp_path / "one")
    options = LayerOptions(level=2, chunk_size=64 << 10)
    again = convert(tmp_path / "one", tmp_path / "two", options=options)
    assert again.status == "converted"
    assert {layer.status for layer in again.layers} == {"converted"}
    assert {layer.level for layer in again.layers} == {2}
    assert again.layers[0].chunks == once.layers[0].chunks + 4  # of the file of 300,000 bytes
    check(tmp_path / "two")
    straight = convert(tmp_path / "src", tmp_path / "three", options=options)
    assert straight.digest == again.digest


def test_every_packing_and_media_type(tmp_path: Path) -> None:
    """What the blob is counts, not what it is called."""
    layout = Layout(tmp_path / "src")
    tars = [tar_of([(f"f{n}", noise(str(n), 2000))]) for n in range(5)]
    packed = [
        (tars[0], tars[0], OCI_TAR),
        (tars[1], zstandard.compress(tars[1]), OCI_ZSTD),
        (tars[2], zstandard.compress(tars[2]), OCI_LAYER),
        (tars[3], tars[3], DOCKER_LAYER),
        (tars[4], gzip.compress(tars[4]), ""),
    ]
    layers = [layout.plain_layer(tar, blob) | {"mediaType": kind} for tar, blob, kind in packed]
    layout.tag(layout.manifest(layers), "v1")
    convert(layout.path, tmp_path / "dst")
    check(tmp_path / "dst")
    with open_image(f"oci:{tmp_path}/dst:v1", platform="linux/amd64", cache=False) as image:
        for number, layer in enumerate(image.layers):
            assert layer.read(f"f{number}") == noise(str(number), 2000)


def test_kept_layers_get_their_annotations(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layers = [layout.layer(LOWER, annotated=False), layout.layer(UPPER), layout.plain_layer(THIRD)]
    layout.tag(layout.manifest(layers), "v1")
    report = convert(layout.path, tmp_path / "dst")
    assert [layer.status for layer in report.layers] == ["kept", "kept", "converted"]
    assert [layer.digest for layer in report.layers[:2]] == [d["digest"] for d in layers[:2]]
    check(tmp_path / "dst")


def rename(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries[1]["name"] = "elsewhere"
    return entries


@pytest.mark.parametrize("annotated", [True, False])
def test_a_toc_that_lies_about_its_tar_is_made_again(tmp_path: Path, annotated: bool) -> None:
    tar = tar_of([("one", noise("1", 500)), ("two", noise("2", 500))])
    made = build(tar, edit=rename)
    layout = Layout(tmp_path / "src")
    notes = {"annotations": {TOC_DIGEST: sha256(made.text)}} if annotated else {}
    layout._diff_ids[sha256(made.data)] = sha256(inflated(made.data))
    layout.tag(layout.manifest([layout.blob(made.data, OCI_LAYER, **notes)]), "v1")
    report = convert(layout.path, tmp_path / "dst")
    assert [layer.status for layer in report.layers] == ["converted"]
    assert len(report.warnings) == 1
    assert "its TOC is not trusted" in report.warnings[0]
    check(tmp_path / "dst")
    with open_image(f"oci:{tmp_path}/dst:v1", platform="linux/amd64", cache=False) as image:
        assert image.layers[0].read("two") == noise("2", 500)
        assert "elsewhere" not in image.layers[0]


def test_a_toc_digest_that_is_another_layers_is_made_again(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layer = layout.layer(LOWER) | {"annotations": {TOC_DIGEST: sha256(b"another"), "mine": "1"}}
    layout.tag(layout.manifest([layer]), "v1")
    report = convert(layout.path, tmp_path / "dst")
    assert [layer.status for layer in report.layers] == ["converted"]
    assert sha256(b"another") in report.warnings[0]
    assert written(tmp_path / "dst").layers[0].annotations["mine"] == "1"
    check(tmp_path / "dst")


@pytest.mark.parametrize("kind", ["stargz", "external-toc"])
def test_other_seekable_kinds_are_converted(tmp_path: Path, kind: str) -> None:
    made = build(LOWER, kind=kind)
    layout = Layout(tmp_path / "src")
    layout._diff_ids[sha256(made.data)] = sha256(inflated(made.data))
    layout.tag(layout.manifest([layout.blob(made.data, OCI_LAYER)]), "v1")
    report = convert(layout.path, tmp_path / "dst")
    assert [layer.status for layer in report.layers] == ["converted"]
    assert report.warnings == ()
    check(tmp_path / "dst")


def test_legacy_format_promises_no_toc(tmp_path: Path) -> None:
    source(tmp_path / "src")
    convert(tmp_path / "src", tmp_path / "dst", options=LayerOptions(format="stargz"))
    for entry in written(tmp_path / "dst").layers:
        assert TOC_DIGEST not in entry.annotations


# --- several platforms, attestations, artifacts -----------------------------------------------


def attestation(layout: Layout, about: dict[str, Any], name: str = "x") -> dict[str, Any]:
    """As BuildKit writes them."""
    statement = {"subject": [{"name": name, "digest": {"sha256": about["digest"][7:]}}]}
    layer = layout.blob(json.dumps(statement).encode(), IN_TOTO)
    found = layout.manifest([layer], platform="unknown/unknown")
    notes = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": about["digest"],
    }
    return found | {"annotations": notes}


def multi(layout: Layout) -> list[dict[str, Any]]:
    """Two platforms that share a layer, each with an attestation."""
    shared = layout.plain_layer(LOWER)
    images = [
        layout.manifest([shared, layout.plain_layer(tar)], platform=platform)
        for tar, platform in ((UPPER, "linux/amd64"), (THIRD, "linux/arm64/v8"))
    ]
    return [*images, *(attestation(layout, image) for image in images)]


def test_all_platforms_with_attestations(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    entries = multi(layout)
    layout.tag(layout.index(entries, annotations={"of": "the index"}), "v1")
    report = convert(layout.path, tmp_path / "dst")
    check(tmp_path / "dst")
    check(tmp_path / "dst", platform="linux/arm64")
    index = written(tmp_path / "dst")
    assert index.digest == report.digest
    assert index.media_type == OCI_INDEX
    assert index.json["annotations"] == {"of": "the index"}
    assert len(report.layers) == 3  # the shared one once
    assert [e.platform for e in index.manifests] == [e["platform"] for e in entries]
    images, attestations = index.manifests[:2], index.manifests[2:]
    assert [e.digest for e in attestations] == [e["digest"] for e in entries[2:]]
    assert [e.annotations["vnd.docker.reference.digest"] for e in attestations] == [
        e.digest for e in images
    ]
    for entry in attestations:  # copied with all they refer to
        manifest = Reading(tmp_path / "dst").manifest(entry)
        assert manifest.data == blob(layout.path, entry.digest)
        for child in (manifest.config, *manifest.layers):
            assert blob(tmp_path / "dst", child.digest) == blob(layout.path, child.digest)
    assert [(c.kind, c.digest) for c in report.stale] == [
        ("attestation", e["digest"]) for e in entries[2:]
    ]
    again = convert(tmp_path / "dst", tmp_path / "again")
    assert (again.status, again.digest, again.stale) == ("unchanged", report.digest, ())


def test_one_platform_is_a_manifest(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.index(multi(layout)), "v1")
    report = convert(layout.path, tmp_path / "dst", platforms=["linux/arm64"])
    manifest = written(tmp_path / "dst")
    assert manifest.media_type == OCI_MANIFEST
    assert config_of(tmp_path / "dst", manifest)["architecture"] == "arm64"
    assert len(report.layers) == 2
    assert report.source_digest == written(layout.path).digest
    check(tmp_path / "dst", platform="linux/arm64")


def test_several_platforms_are_an_index_of_them(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    entries = multi(layout)
    third = layout.manifest([layout.plain_layer(varied_tar())], platform="linux/s390x")
    layout.tag(layout.index([third, *entries]), "v1")
    report = convert(layout.path, tmp_path / "dst", platforms=["linux/arm64", "linux/s390x"])
    index = written(tmp_path / "dst")
    assert [e.platform and e.platform["architecture"] for e in index.manifests] == [
        "s390x",
        "arm64",
        "unknown",
    ]
    about = index.manifests[2].annotations["vnd.docker.reference.digest"]
    assert about == index.manifests[1].digest
    assert len(report.layers) == 3


def test_a_platform_that_is_not_there(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.index(multi(layout)), "v1")
    with pytest.raises(FormatError, match=r"no image for linux/riscv64 .* it has linux/amd64"):
        convert(layout.path, tmp_path / "dst", platforms=["linux/riscv64"])
    source(tmp_path / "one")
    with pytest.raises(FormatError, match="is for linux/amd64, not for linux/arm64"):
        convert(tmp_path / "one", tmp_path / "dst", platforms=["linux/arm64"])
    assert not (tmp_path / "dst").exists()


def test_nested_indexes(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    first, second, *about = multi(layout)
    inner = layout.index([second, about[1]])
    layout.tag(layout.index([first, inner, about[0]]), "v1")
    report = convert(layout.path, tmp_path / "dst")
    outer = written(tmp_path / "dst")
    below = Reading(tmp_path / "dst").manifest(outer.manifests[1])
    for index, images, attestations in ((outer, 0, 2), (below, 0, 1)):
        named = index.manifests[attestations].annotations["vnd.docker.reference.digest"]
        assert named == index.manifests[images].digest
    assert len(report.stale) == 2
    assert convert(tmp_path / "dst", tmp_path / "again").status == "unchanged"


def test_artifacts_are_copied_as_they_are(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    image = layout.manifest([layout.plain_layer(LOWER)])
    seekable = layout.plain_layer(UPPER)
    config = layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
    artifact = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/x",
        "config": config,
        "layers": [seekable],
    }
    artifacts = [
        layout.blob(json.dumps(artifact, indent=3).encode(), OCI_MANIFEST, artifactType="x"),
        layout.manifest([layout.blob(b"signed", COSIGN)]),
    ]
    layout.tag(layout.index([image, *artifacts]), "v1")
    report = convert(layout.path, tmp_path / "dst")
    assert len(report.layers) == 1
    for entry, old in zip(written(tmp_path / "dst").manifests[1:], artifacts, strict=True):
        assert entry.digest == old["digest"]
        for child in Reading(tmp_path / "dst").manifest(entry).layers:
            assert blob(tmp_path / "dst", child.digest) == blob(layout.path, child.digest)


def test_an_artifact_alone_is_unchanged(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    entry = layout.manifest([layout.blob(b"signed", COSIGN)])
    layout.tag(entry, "v1")
    report = convert(layout.path, tmp_path / "dst")
    assert (report.status, report.digest, report.layers) == ("unchanged", entry["digest"], ())
    assert written(tmp_path / "dst").data == blob(layout.path, entry["digest"])


def test_layers_that_cannot_be_converted_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    foreign = {"mediaType": FOREIGN, "digest": sha256(b"not here"), "size": 9, "urls": ["http://x"]}
    secret = layout.blob(b"encrypted", f"{OCI_LAYER}+encrypted")
    layout.tag(layout.manifest([foreign, layout.plain_layer(LOWER), secret]), "v1")
    report = convert(layout.path, tmp_path / "dst")
    layers = written(tmp_path / "dst").layers
    oci = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    assert layers[0].json == foreign | {"mediaType": oci}
    assert layers[2].json == secret
    assert blob(tmp_path / "dst", secret["digest"]) == b"encrypted"
    assert len(report.layers) == 1
    assert [foreign["digest"] in text for text in report.warnings] == [True]
    ids = config_of(tmp_path / "dst", written(tmp_path / "dst"))["rootfs"]["diff_ids"]
    assert ids == [foreign["digest"], report.layers[0].diff_id, secret["digest"]]
    with pytest.raises(FormatError, match="cannot be merged"):
        convert(layout.path, tmp_path / "dst", flatten=True)


def test_an_image_without_layers(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([]), "v1")
    report = convert(layout.path, tmp_path / "dst")
    assert (report.status, report.layers) == ("unchanged", ())
    assert written(tmp_path / "dst").digest == written(layout.path).digest


def test_docker_types_on_request(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.index(multi(layout)), "v1")
    report = convert(layout.path, tmp_path / "dst", docker_types=True)
    index = written(tmp_path / "dst")
    assert index.media_type == DOCKER_LIST
    image = Reading(tmp_path / "dst").manifest(index.manifests[0])
    assert image.media_type == DOCKER_MANIFEST
    assert {entry.media_type for entry in image.layers} == {DOCKER_LAYER}
    assert any("not be pulled lazily" in text for text in report.warnings)


def test_layers_are_converted_once_however_often_they_are_listed(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layer = layout.plain_layer(LOWER)
    image = layout.manifest([layer, layer])
    layout.tag(layout.index([image] * 9000), "v1")
    events: list[str] = []
    report = convert(
        layout.path, tmp_path / "dst", progress=lambda event: events.append(event["event"])
    )
    assert len(report.layers) == 1
    assert events.count("layer-done") == 1
    assert len({entry.digest for entry in written(tmp_path / "dst").manifests}) == 1
    assert len(written(tmp_path / "dst").manifests) == 9000


# --- prioritized files ------------------------------------------------------------------------


def test_prioritized_paths_are_those_of_the_whole_image(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.index(multi(layout)), "v1")
    options = LayerOptions(prioritized=("third", "d/large"))
    report = convert(layout.path, tmp_path / "dst", options=options)
    assert report.missing == ()
    with open_image(f"oci:{tmp_path}/dst:v1", platform="linux/arm64", cache=False) as image:
        for layer, name in zip(image.layers, ("d/large", "third"), strict=True):
            order = layer.names()
            assert order.index(name) < order.index(".prefetch.landmark")
            assert layer.prefetch_size > 0


def test_prioritized_paths_that_no_layer_has(tmp_path: Path) -> None:
    source(tmp_path / "src")
    options = LayerOptions(prioritized=("nowhere", "third", "not/there"))
    with pytest.raises(EntryNotFoundError, match="no layer of the image has 'nowhere'"):
        convert(tmp_path / "src", tmp_path / "dst", options=options)
    with pytest.raises(SourceError):
        written(tmp_path / "dst")
    report = convert(tmp_path / "src", tmp_path / "dst", options=options, allow_missing=True)
    assert report.missing == ("nowhere", "not/there")
    check(tmp_path / "dst")


# --- names ------------------------------------------------------------------------------------


def test_the_source_itself_is_replaced_only_when_asked(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    old = written(layout.path)
    (tmp_path / "link").symlink_to(layout.path)
    for src, dst in (
        (f"oci:{layout.path}:v1", f"oci:{layout.path}:v1"),
        (f"oci:{layout.path}:v1", f"oci:{tmp_path}/link:v1"),
        (f"oci:{layout.path}", f"oci:{layout.path}:v1"),
        ("docker://host.invalid/app", "docker://host.invalid/app:latest"),
        ("docker://busybox", "docker://docker.io/library/busybox:latest"),
    ):
        with pytest.raises(UsageError, match="same image; --upgrade replaces it"):
            convert_image(src, dst)
    with pytest.raises(UsageError, match="no destination"):
        convert_image(f"oci:{layout.path}:v1", None)
    with pytest.raises(UsageError, match="a digest cannot be replaced"):
        convert_image(f"docker://host.invalid/app@{old.digest}", None, upgrade=True)
    with pytest.raises(UsageError, match="lose the annotations"):
        convert_image(f"oci:{layout.path}:v1", "docker-archive:x.tar")
    report = convert_image(f"oci:{layout.path}:v1", None, upgrade=True)
    assert (report.source_digest, report.digest) == (old.digest, written(layout.path).digest)
    assert [e.annotations[REF_NAME] for e in Reading(layout.path).index.manifests] == ["v1"]
    assert blob(layout.path, old.digest) == old.data  # it is there still, by its digest
    check(layout.path)
    assert convert_image(f"oci:{layout.path}:v1", None, upgrade=True).status == "unchanged"


def test_a_tag_that_moves_while_it_is_upgraded_stays(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    other = layout.manifest([layout.plain_layer(varied_tar())])

    def move(event: Any) -> None:
        if event["event"] == "plan":
            layout._tagged.clear()
            layout.tag(other, "v1")

    with pytest.raises(SourceError, match="it became another image"):
        convert_image(f"oci:{layout.path}:v1", upgrade=True, progress=move)
    assert written(layout.path).digest == other["digest"]


def test_wrong_options_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    for options, text in (
        (LayerOptions(level=13), r"level \(--level\) 13"),
        (LayerOptions(chunk_size=1), r"chunk_size \(--chunk-size\) 1 "),
        (LayerOptions(lossless=True, prioritized=("x",)), "keeps the order"),
        (LayerOptions(format="stargz", min_chunk_size=4096), "cannot put small files together"),
    ):
        with pytest.raises(UsageError, match=text):
            convert_image("docker://host.invalid/app", f"oci:{tmp_path}/dst:x", options=options)
    with pytest.raises(UsageError, match="not a platform"):
        convert(source(tmp_path / "src").path, tmp_path / "dst", platforms=["a/b/c/d"])


# --- what is wrong with sources ---------------------------------------------------------------


def test_a_corrupt_layer_is_one_clear_error(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    convert(layout.path, tmp_path / "dst")
    before = written(tmp_path / "dst").data, files(tmp_path / "dst")
    bad = layout.blob(gzip.compress(LOWER)[:-3000], OCI_LAYER)
    layout.tag(layout.manifest([layout.plain_layer(UPPER), bad, layout.plain_layer(THIRD)]), "bad")
    with pytest.raises(GzipError) as caught:
        convert_image(f"oci:{layout.path}:bad", f"oci:{tmp_path}/dst:v1")
    assert str(caught.value).startswith(f"oci:{layout.path}:bad: layer {bad['digest']} at offset ")
    assert written(tmp_path / "dst").data == before[0]
    assert {name for name in files(tmp_path / "dst") if "partial" in name} == set()
    assert files(tmp_path / "dst") == before[1]


def test_a_layer_of_other_bytes_than_its_digest(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    entry = written(layout.path).layers[0]
    path = layout.path / "blobs" / "sha256" / entry.digest[7:]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(DigestError, match=entry.digest) as caught:
        convert(layout.path, tmp_path / "dst")
    assert str(layout.path) in str(caught.value)
    path.write_bytes(data[:100])
    with pytest.raises(FormatError, match=entry.digest[7:]):
        convert(layout.path, tmp_path / "dst")
    path.unlink()
    with pytest.raises(SourceError, match=entry.digest):
        convert(layout.path, tmp_path / "dst")
    with pytest.raises(SourceError):
        written(tmp_path / "dst")


def nest(layout: Layout, depth: int) -> dict[str, Any]:
    entry = layout.manifest([layout.plain_layer(LOWER)])
    for _ in range(depth):
        entry = layout.index([entry])
    return entry


def test_index_nesting_has_a_limit(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(nest(layout, 4), "v1")
    layout.tag(nest(layout, 5), "deep")
    assert convert(layout.path, tmp_path / "dst").status == "converted"
    with pytest.raises(FormatError, match="more than 4 indexes one inside the other"):
        convert_image(f"oci:{layout.path}:deep", f"oci:{tmp_path}/dst:deep")


def test_index_nesting_by_way_of_siblings(tmp_path: Path) -> None:
    """A chain whose links are all listed by the root: each is at depth one, and yet at depth n."""
    layout = Layout(tmp_path / "src")
    links = [layout.manifest([layout.plain_layer(LOWER)])]
    for _ in range(30):
        links.append(layout.index([links[-1]]))
    layout.tag(layout.index(links), "v1")
    with pytest.raises(FormatError, match="more than 4 indexes one inside the other"):
        convert(layout.path, tmp_path / "dst")


def hostile(entry: str) -> Callable[[Layout], dict[str, Any]]:
    """A manifest that is wrong in one way."""

    def make(layout: Layout) -> dict[str, Any]:
        layer = layout.plain_layer(LOWER)
        if entry == "sizes":
            return layout.manifest([layer, layer | {"size": layer["size"] + 1}])
        if entry == "huge":
            return layout.manifest([layer, layer | {"digest": sha256(b""), "size": 1 << 62}])
        if entry == "diff_ids":
            return layout.manifest([layer], config={"rootfs": {"diff_ids": []}})
        if entry == "digest":
            return layout.manifest([layer | {"digest": "sha256:../../../../etc/passwd"}])
        if entry == "size":
            return layout.manifest([layer | {"size": -1}])
        if entry == "many":
            child = layer | {"mediaType": OCI_MANIFEST}
            return layout.index([child | {"digest": sha256(b"%d" % n)} for n in range(10_001)])
        assert entry == "layers"
        return layout.manifest([layer] * 5000)

    return make


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("sizes", "has two sizes"),
        ("huge", "more than 1 PiB"),
        ("diff_ids", "0 diff_ids, but the manifest 1 layers"),
        ("digest", "not a digest that can be checked"),
        ("size", "not a size"),
        ("many", "more than 10000 manifests"),
        ("layers", "5000 layers are more than 4096"),
    ],
)
def test_hostile_manifests(tmp_path: Path, entry: str, text: str) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(hostile(entry)(layout), "v1")
    with pytest.raises(FormatError, match=text) as caught:
        convert(layout.path, tmp_path / "dst")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "dst").exists()


# --- stores, executors, interruption ----------------------------------------------------------


def test_processes_convert_the_layers(tmp_path: Path) -> None:
    source(tmp_path / "src")
    with ProcessPoolExecutor(2) as executor:
        report = convert(tmp_path / "src", tmp_path / "dst", executor=executor, threads=1)
    assert report.digest == convert(tmp_path / "src", tmp_path / "other").digest
    check(tmp_path / "dst")


def task_of(path: Path, dst: Path, **options: Any) -> LayerTask:
    entry = written(path).layers[0]
    return LayerTask(f"oci:{path}:v1", f"oci:{dst}:v1", (entry,), **options)


def test_reports_and_keys_of_layers(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    report = convert_layer(task_of(layout.path, tmp_path / "dst"))
    assert LayerReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    keys = [
        LayerOptions(),
        LayerOptions(level=1),
        LayerOptions(prioritized=("a",)),
        LayerOptions(prioritized=("a", "b")),
        LayerOptions(prioritized=("a\udcff",)),
        LayerOptions(lossless=True),
    ]
    assert len({options.key for options in keys}) == len(keys)
    assert LayerOptions(level=1).key == replace(LayerOptions(), level=1).key


class Remembering:
    """A store whose layers were made for another image."""

    def __init__(self, inner: LocalStore, other: str) -> None:
        self.inner = inner
        self.other = other
        self.made: dict[str, Future[LayerReport]] = {}
        self.lost_ones: list[str] = []

    def submit(self, task: LayerTask) -> Future[LayerReport]:
        digest = task.entries[0].digest
        if digest in self.lost_ones:
            return self.inner.submit(task)
        return self.inner.submit(replace(task, destination=self.other))

    def place(self, task: LayerTask) -> Reference | LayoutReference | None:
        return self.inner.place(task)

    def lost(self, task: LayerTask) -> None:
        self.lost_ones.append(task.entries[0].digest)
        self.inner.lost(task)


def test_layers_that_a_store_made_elsewhere_are_brought(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    other = tmp_path / "other"
    with registries_pool() as pool:
        store = Remembering(LocalStore(pool), f"oci:{other}:x")
        report = convert(layout.path, tmp_path / "dst", store=store)
        check(tmp_path / "dst")
        assert not store.lost_ones
        for layer in report.layers:
            assert blob(other, layer.digest) == blob(tmp_path / "dst", layer.digest)
        # What somebody deleted is made again.
        gone = report.layers[1]
        for path in (other, tmp_path / "dst"):
            (path / "blobs" / "sha256" / gone.digest[7:]).unlink()
        assert convert(layout.path, tmp_path / "dst", store=store).digest == report.digest
        assert store.lost_ones == [gone.source_digest]
        check(tmp_path / "dst")


def registries_pool() -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(2)


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    tars = tuple(tar_of([(f"f{n}", noise(str(n), 4 << 20))]) for n in range(4))
    layout = source(tmp_path / "src", tars)
    threads = threading.active_count()

    class Stop(KeyboardInterrupt):
        pass

    seen = threading.Event()

    def progress(event: Any) -> None:
        if event["event"] == "layer" and event["done"]:
            seen.set()
            raise Stop

    with pytest.raises(Stop):
        convert(layout.path, tmp_path / "dst", progress=progress)
    assert seen.is_set()
    assert threading.active_count() == threads
    with pytest.raises(SourceError):
        written(tmp_path / "dst")
    assert not [name for name in files(tmp_path / "dst") if "partial" in name]


# --- other tools ------------------------------------------------------------------------------


def unpacked(umoci: str, layout: Path, folder: Path, ref: str = "v1") -> dict[str, Any]:
    command = [umoci, "unpack", "--image", f"{layout}:{ref}", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    found = snapshot(folder / "rootfs")
    for name in ("stargz.index.json", ".no.prefetch.landmark", ".prefetch.landmark"):
        found.pop(name, None)
    return without_root_times(found)


def without_root_times(found: dict[str, Any]) -> dict[str, Any]:
    """The landmark and the TOC, which are no part of the image, touch its root."""
    mode, owner, _, body, xattrs = found[""]
    return {**found, "": (mode, owner, 0, body, xattrs)}


@pytest.mark.parametrize("flatten", [False, True])
def test_umoci_unpacks_the_same_tree(
    tmp_path: Path, tool: Callable[[str], str], flatten: bool
) -> None:
    umoci = tool("umoci")
    layout = source(tmp_path / "src", (LOWER, UPPER, THIRD, varied_tar()))
    report = convert(layout.path, tmp_path / "dst", flatten=flatten)
    assert len(report.layers) == (1 if flatten else 4)
    trees = [unpacked(umoci, tmp_path / n, tmp_path / f"{n}-tree") for n in ("src", "dst")]
    assert trees[0] == trees[1]
    assert "d/gone" not in trees[1]
    check(tmp_path / "dst")
    if flatten:
        config = config_of(tmp_path / "dst", written(tmp_path / "dst"))
        assert config["rootfs"]["diff_ids"] == [report.layers[0].diff_id]


def skopeo_copy(skopeo: str, *words: str) -> None:
    command = [skopeo, "--insecure-policy", "copy", "--all", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def test_docker_schema_2_in_a_registry(
    tmp_path: Path, tool: Callable[[str], str], served: registries.Registry
) -> None:
    skopeo = tool("skopeo")
    layout = Layout(tmp_path / "src")
    layout.tag(layout.index(multi(layout)[:2]), "v1")
    name = f"docker://{served.host}/docker/app"
    to = ["--dest-tls-verify=false", f"oci:{layout.path}:v1", f"{name}:v2s2"]
    skopeo_copy(skopeo, "--format", "v2s2", *to)
    report = convert_image(f"{name}:v2s2", f"{name}:esgz")
    back = ["--src-tls-verify=false", f"{name}:esgz", f"oci:{tmp_path}/back:v1"]
    skopeo_copy(skopeo, "--preserve-digests", *back)
    index = written(tmp_path / "back")
    assert (index.digest, index.media_type) == (report.digest, OCI_INDEX)
    for entry in index.manifests:
        image = Reading(tmp_path / "back").manifest(entry)
        assert image.media_type == OCI_MANIFEST
        assert image.config.media_type == OCI_CONFIG
    check(tmp_path / "back")
    check(tmp_path / "back", platform="linux/arm64")
    # The same image, whatever way it came: configs that skopeo made of ours differ in nothing.
    assert len(report.layers) == 3


def test_registry_to_registry_and_umoci(
    tmp_path: Path, tool: Callable[[str], str], served: registries.Registry
) -> None:
    umoci, skopeo = tool("umoci"), tool("skopeo")
    layout = source(tmp_path / "src")
    served.push(layout.path, "plain/app", "v1")
    src = f"docker://{served.host}/plain/app:v1"
    report = convert_image(src, f"docker://{served.host}/seekable/app:v1", verify=True)
    back = f"docker://{served.host}/seekable/app:v1"
    skopeo_copy(skopeo, "--src-tls-verify=false", back, f"oci:{tmp_path}/back:v1")
    check(tmp_path / "back")
    assert report.digest == convert(layout.path, tmp_path / "dst").digest
    trees = [unpacked(umoci, tmp_path / n, tmp_path / f"{n}-tree") for n in ("src", "back")]
    assert trees[0] == trees[1]
    # Upgraded, the tag is the same image; by its digest the source is there still.
    upgraded = convert_image(src, upgrade=True)
    assert upgraded.digest == report.digest
    with open_image(src, platform="linux/amd64", require_verified=True) as image:
        assert image.digest == report.digest
    by_digest = f"docker://{served.host}/plain/app@{report.source_digest}"
    assert convert_image(by_digest, f"oci:{tmp_path}/again:v1").digest == report.digest


def test_signatures_that_no_longer_match_are_told(
    tmp_path: Path, served: registries.Registry
) -> None:
    layout = source(tmp_path / "src")
    digest = served.push(layout.path, "signed/app", "v1")
    signature = Layout(tmp_path / "signature")
    signature.tag(signature.manifest([signature.blob(b"signed", COSIGN)]))
    served.push(signature.path, "signed/app", f"sha256-{digest[7:]}.sig")
    name = f"docker://{served.host}/signed/app"
    report = convert_image(f"{name}:v1", f"{name}:esgz")
    assert [companion.name for companion in report.stale] == [f"{name}:sha256-{digest[7:]}.sig"]
    assert "signature" in report.stale[0].kind
    assert convert_image(f"{name}:esgz", f"{name}:again").stale == ()


def test_registry_with_tokens(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    with (
        registries.token_server(registries.identity(tmp_path)) as tokens,
        registries.registry(tmp_path / "registry", tokens=tokens) as served,
    ):
        served.push(layout.path, "plain/app", "v1")
        ca = str(tokens.signer.certificate)
        authfile = tmp_path / "auth.json"
        names = f"docker://{served.host}/plain/app:v1", f"docker://{served.host}/new/app:v1"
        with pytest.raises(RegistryError):
            convert_image(*names, access=Access.of(authfile=write_auth(authfile, {}), ca_file=ca))
        access = Access.of(authfile=write_auth(authfile, {served.host: True}), ca_file=ca)
        report = convert_image(*names, access=access, verify=True)
        assert report.digest == convert(layout.path, tmp_path / "dst").digest
        assert convert_image(names[1], upgrade=True, access=access).status == "unchanged"


def write_auth(path: Path, hosts: dict[str, bool]) -> Path:
    import base64

    pair = base64.b64encode(f"{registries.USER}:{registries.PASSWORD}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": pair} for host in hosts}}))
    return path


# --- the command ------------------------------------------------------------------------------


def test_command(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    names = f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1"
    report = json.loads(ok("image", "convert", *names, "--json", "--verify"))
    assert set(report) == {
        *("source", "destination", "source_digest", "digest", "status", "seconds", "size_before"),
        *("size_after", "layers", "stale", "missing", "warnings", "toc_image"),
    }
    pinned = {"digest", "size", "diff_id", "toc_digest", "uncompressed_size", "entries", "chunks"}
    for layer in report["layers"]:
        assert pinned | {"level", "seconds", "source_digest", "status"} <= set(layer)
    check(tmp_path / "dst")
    text = ok("image", "convert", *names)
    assert report["digest"] in text and "converted" in text
    assert "unchanged" in ok("image", "convert", names[1], "--upgrade")
    listed = tmp_path / "record"
    listed.write_text('{"path": "third"}\nd/file\n')
    options = ["--prioritize-from", listed, "--level", "2", "--chunk-size", "64K", "--jobs", "1"]
    again = json.loads(ok("image", "convert", *names, *options, "--json"))
    assert again["layers"][0]["level"] == 2
    reused = json.loads(ok("image", "convert", *names, "--level", "reuse", "--verify", "--json"))
    assert {layer["level"] for layer in reused["layers"]} == {"reuse"}
    check(tmp_path / "dst")
    assert "--allow-missing goes on" in fails(1, "image", "convert", *names, "--prioritize", "no")
    done = run("image", "convert", *names, "--prioritize", "no", "--allow-missing")
    assert done.returncode == 0
    assert "prioritized path is not there: no" in done.stderr


def test_holes_over_the_limit(tmp_path: Path) -> None:
    info = tarfile.TarInfo("lastlog")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "lastlog",
        "GNU.sparse.realsize": str(2 << 20),
    }
    info.size = 512
    head = info.tobuf(tarfile.PAX_FORMAT)
    layout = Layout(tmp_path / "src")
    tar = head + b"0\n".ljust(512, b"\0") + bytes(1024)
    layout.tag(layout.manifest([layout.plain_layer(tar)]), "v1")
    for kind, src, dst in ("convert", ":v1", ":v1"), ("bulk", "", ""):
        words = ("image", kind, f"oci:{layout.path}{src}", f"oci:{tmp_path}/{kind}{dst}")
        done = run(*words, "--max-sparse", (2 << 20) - 1)
        assert done.returncode == 1
        said = done.stdout + done.stderr
        assert "'lastlog': the holes of the sparse files" in said
        assert "allow more with --max-sparse SIZE" in said
        assert run(*words, "--max-sparse", "2M").returncode == 0
    path = tmp_path / "lastlog.tar"
    path.write_bytes(tar)
    assert "--max-sparse" in fails(1, "convert", path, "--max-sparse", "1M")
    assert run("convert", path, "--max-sparse", "2M").returncode == 0


def test_command_errors(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    name = f"oci:{layout.path}:v1"
    assert "no destination" in fails(2, "image", "convert", name)
    assert "--upgrade" in fails(2, "image", "convert", name, name)
    assert "annotations" in fails(2, "image", "convert", name, "docker-archive:x.tar")
    assert "no image 'v2'" in fails(1, "image", "convert", f"oci:{layout.path}:v2", "oci:x:y")
    assert "level" in fails(2, "image", "convert", name, f"oci:{tmp_path}/d:v", "--level", "99")
    other = ["--level", "reuse", "--format", "zstd:chunked"]
    assert "--level" in fails(2, "image", "convert", name, f"oci:{tmp_path}/d:v", *other)
    digest = written(layout.path).layers[0].digest
    (layout.path / "blobs" / "sha256" / digest[7:]).write_bytes(
        bytes(written(layout.path).layers[0].size)
    )
    assert digest in fails(3, "image", "convert", name, f"oci:{tmp_path}/d:v")


def test_errors_of_workers_can_be_raised_here(tmp_path: Path) -> None:
    layout = source(tmp_path / "src")
    entry = written(layout.path).layers[0]
    (layout.path / "blobs" / "sha256" / entry.digest[7:]).write_bytes(bytes(entry.size))
    with ProcessPoolExecutor(1) as executor, pytest.raises(StargzError, match=entry.digest):
        convert(layout.path, tmp_path / "dst", executor=executor)
