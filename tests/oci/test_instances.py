"""Two instances of each image in one index, and layers that zstd:chunked cannot hold: by the
commands, in layouts and in a registry."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
from blobs import sha256, tar_of
from command import fails, ok, run
from conversions import convert, docker, written
from layouts import OCI_LAYER, OCI_MANIFEST, TOC_DIGEST, Layout
from registries import Registry

from stargz.errors import FormatError, UnindexableError, UsageError
from stargz.oci.bulk import bulk
from stargz.oci.conversion import convert_image
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import Manifest
from stargz.oci.image import open_image
from stargz.oci.loading import load_image
from stargz.oci.verify.image import verify_image

ZSTD = "io.github.containers.compression.zstd"
CHECKSUM = "io.github.containers.zstd-chunked.manifest-checksum"
ZSTD_LAYER = OCI_LAYER.replace("gzip", "zstd")
ABOUT = "vnd.docker.reference.digest"
LOWER = tar_of([("etc/a", b"lower a"), ("etc/b", b"b" * 9000)])
UPPER = tar_of([("etc/a", b"upper a")])
ARM = ["linux/arm64"]
ALL = ["linux/amd64", "linux/arm64"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        yield served


def source(path: Path, *, attested: bool = False) -> Layout:
    """An image of two platforms that share a layer."""
    layout = Layout(path)
    shared, upper = layout.plain_layer(LOWER), layout.plain_layer(UPPER)
    images = [layout.manifest([shared, upper]), layout.manifest([shared], platform="linux/arm64")]
    entries = images[:]
    if attested:
        claim = layout.blob(b'{"claim": 1}', "application/vnd.in-toto+json")
        found = layout.manifest([claim], platform="unknown/unknown")
        annotations = {ABOUT: images[0]["digest"], "vnd.docker.reference.type": "attestation"}
        entries.append(found | {"annotations": annotations})
    layout.tag(layout.index(entries), "v1")
    return layout


def listed(path: Path, ref: str = "v1") -> list[tuple[str, bool, str]]:
    """What an index lists: (architecture, whether it is marked as zstd, digest)."""
    return [
        (
            entry.json["platform"]["architecture"],
            entry.annotations.get(ZSTD) == "true",
            entry.digest,
        )
        for entry in written(path, ref).manifests
    ]


def manifest(path: Path, digest: str) -> Manifest:
    return Reading(path).manifest(Reading(path).resolve(digest))


def test_both_instances_of_each_platform(tmp_path: Path) -> None:
    src = source(tmp_path / "src", attested=True)
    dst = tmp_path / "dst"
    report = json.loads(
        ok("image", "convert", "--both", "--json", f"oci:{src.path}:v1", f"oci:{dst}:v1")
    )
    found = listed(dst)
    assert [one[:2] for one in found] == [
        ("amd64", False), ("arm64", False), ("unknown", False), ("amd64", True), ("arm64", True),
    ]  # fmt: skip
    for architecture, zstd, digest in found:
        if architecture == "unknown":
            continue
        image = manifest(dst, digest)
        assert image.media_type == OCI_MANIFEST
        for layer in image.layers:
            assert layer.media_type == (ZSTD_LAYER if zstd else OCI_LAYER)
            assert (CHECKSUM in layer.annotations, TOC_DIGEST in layer.annotations) == (
                zstd,
                not zstd,
            )
        # Each is read, and right.
        with open_image(f"oci:{dst}:{digest}", platform=f"linux/{architecture}") as opened:
            assert opened.verified and opened.tree.read("etc/b") == b"b" * 9000
    # The tar stays in zstd:chunked, and so does the config.
    before = {image.config.digest for image in map(src_image(src), listed(src.path)[:2])}
    assert before == {manifest(dst, digest).config.digest for _, zstd, digest in found if zstd}
    # What is about an image is about the first that is made of it.
    assert written(dst).manifests[2].annotations[ABOUT] == found[0][2]
    assert [companion["kind"] for companion in report["stale"]] == ["attestation"]
    # It goes with the instance that it is about.
    one = convert(dst, tmp_path / "one", format="zstd:chunked")
    assert listed(tmp_path / "one") == found[3:] and len(one.warnings) == 2
    convert(dst, tmp_path / "gzip")
    assert listed(tmp_path / "gzip") == found[:3]
    assert [layer["format"] for layer in report["layers"]].count("zstd:chunked") == 2
    assert len(report["layers"]) == 4
    # Who does not know of it takes the first, also we.
    for platform, digest in (("linux/amd64", found[0][2]), ("linux/arm64", found[1][2])):
        with load_image(f"oci:{dst}:v1", platform=platform) as loaded:
            assert loaded.digest == digest
    shown = ok("image", "info", "--platform", "linux/arm64", f"oci:{dst}:v1")
    assert f"instance  {found[4][2]}  linux/arm64  (in zstd)" in shown
    info = json.loads(ok("image", "info", "--platform", "linux/arm64", "--json", f"oci:{dst}:v1"))
    assert [(one["digest"], one["zstd"]) for one in info["instances"]] == [
        (digest, zstd) for architecture, zstd, digest in found if architecture != "unknown"
    ]
    ok("image", "cat", "--platform", "linux/arm64", f"oci:{dst}:{found[4][2]}", "etc/a")


def src_image(src: Layout) -> Any:
    return lambda one: manifest(src.path, one[2])


def test_both_again_changes_nothing(tmp_path: Path) -> None:
    src = source(tmp_path / "src")
    first = convert(src, tmp_path / "a", both=True)
    again = convert(tmp_path / "a", tmp_path / "b", both=True, verify=True)
    assert (again.status, again.digest) == ("unchanged", first.digest)
    assert {layer.status for layer in again.layers} == {"kept"}
    # One platform of it has two instances still, which are those that there were.
    convert(tmp_path / "a", tmp_path / "c", both=True, platforms=["linux/arm64"])
    assert listed(tmp_path / "c") == [one for one in listed(tmp_path / "a") if one[0] == "arm64"]
    # One of them is made into both; to one format both become one.
    for digest in (listed(tmp_path / "a")[0][2], listed(tmp_path / "a")[2][2]):
        made = tmp_path / digest[-8:]
        convert_image(f"oci:{tmp_path / 'a'}:{digest}", f"oci:{made}:v1", both=True)
        assert [one[:2] for one in listed(made)] == [("amd64", False), ("amd64", True)]
    # To one format that of the two is taken that is nearer to it, of one platform too.
    for number, (format, taken) in enumerate((("estargz", 0), ("zstd:chunked", 2))):
        one = convert(tmp_path / "a", tmp_path / f"one{number}", format=format)
        assert listed(tmp_path / f"one{number}") == listed(tmp_path / "a")[taken : taken + 2]
        assert {layer.status for layer in one.layers} == {"kept"}
        assert sum("is left out" in text for text in one.warnings) == 2
        arm = convert(tmp_path / "a", tmp_path / f"arm{number}", format=format, platforms=ARM)
        assert (arm.status, arm.digest) == ("unchanged", listed(tmp_path / "a")[taken + 1][2])
        two = convert(tmp_path / "a", tmp_path / f"two{number}", format=format, platforms=ALL)
        assert two.digest == one.digest
    # What lists the one in zstd first is set right.
    root = written(tmp_path / "a").json
    layout = Layout(tmp_path / "turned")
    for blob in Reading(tmp_path / "a").path.glob("blobs/sha256/*"):
        (layout.blobs / blob.name).write_bytes(blob.read_bytes())
    layout.tag(layout.index(root["manifests"][::-1]), "v1")
    convert(layout, tmp_path / "right", both=True)
    assert [one[:2] for one in listed(tmp_path / "right")] == [
        ("arm64", False), ("amd64", False), ("arm64", True), ("amd64", True),
    ]  # fmt: skip


def test_both_of_one_image_without_an_index(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(docker(layout, [layout.plain_layer(LOWER)]), "v1")
    report = convert(layout, tmp_path / "dst", both=True, flatten=True, verify=True)
    assert [one[:2] for one in listed(tmp_path / "dst")] == [("amd64", False), ("amd64", True)]
    assert report.status == "converted"
    # An index need not say what its only image is for; two could not be told apart.
    only = layout.manifest([layout.plain_layer(LOWER)])
    del only["platform"]
    layout.tag(layout.index([only]), "silent")
    convert(layout, tmp_path / "said", "silent", both=True)
    found = listed(tmp_path / "said", "silent")
    assert [one[:2] for one in found] == [("amd64", False), ("amd64", True)]
    nowhere = layout.manifest([layout.plain_layer(LOWER)], config={"architecture": ""})
    layout.tag(nowhere, "nowhere")
    with pytest.raises(FormatError, match="what platform"):
        convert(layout, tmp_path / "none", "nowhere", both=True)


def test_what_both_is_not_for(tmp_path: Path) -> None:
    src = source(tmp_path / "src")
    names = f"oci:{src.path}:v1", f"oci:{tmp_path / 'dst'}:v1"
    told = fails(2, "image", "convert", "--both", "--format", "stargz", *names)
    assert "--both" in told and "stargz" in told
    for options, text in WRONG:
        with pytest.raises(UsageError, match=text):
            convert_image(*names, **options)
        with pytest.raises(UsageError, match=text):
            bulk(f"oci:{src.path}", f"oci:{tmp_path / 'all'}", **options)
    with pytest.raises(UsageError, match="--both"):
        bulk(f"oci:{src.path}", index=True, both=True)
    assert not (tmp_path / "dst").exists()
    # Those that are for eStargz alone are not for the other.
    report = convert(src, tmp_path / "dst", both=True, prioritized=["etc/b", "none"], **ANY)
    assert report.missing == ("none",)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"both": True, "format": "external-toc"}, "--both.*external-toc"),
    ({"both": True, "format": "zstd:chunked-stargz"}, "--both.*chunked-stargz"),
    ({"both": True, "docker_types": True}, "--both.*--docker-types"),
    ({"format": "zstd:chunked", "docker_types": True}, "zstd:chunked.*--docker-types"),
    ({"format": "zstd:chunked", "prioritized": ["etc/a"]}, "--prioritize"),
    ({"both": True, "level": 13}, "1 to 12"),
    ({"format": "zstd:chunked", "level": 20}, "1 to 19"),
]
ANY: dict[str, Any] = {"allow_missing": True, "min_chunk_size": 1 << 20}


def test_both_in_place_and_in_archives(tmp_path: Path) -> None:
    src = source(tmp_path / "src")
    name = f"oci:{src.path}:v1"
    first = convert_image(name, upgrade=True, both=True)
    assert [one[1] for one in listed(src.path)] == [False, False, True, True]
    again = convert_image(name, upgrade=True, both=True)
    assert (again.status, again.digest) == ("unchanged", first.digest)
    archive = f"oci-archive:{tmp_path / 'a.tar'}:v1"
    assert convert_image(name, archive, both=True).digest == first.digest
    assert verify_image(archive).ok
    out = f"oci:{tmp_path / 'out'}:v1"
    assert convert_image(archive, out, both=True).digest == first.digest
    # What is read by an archive's, or a layout's, digest.
    second = listed(src.path)[3][2]
    for place in (archive.removesuffix(":v1"), f"oci:{tmp_path / 'out'}"):
        with load_image(f"{place}:{second}", platform="linux/arm64") as image:
            assert image.digest == second
    told = fails(1, "image", "info", f"oci:{tmp_path / 'out'}:sha256:{'0' * 64}")
    assert "no image" in told


def test_images_that_leave_zstd_lose_the_mark(tmp_path: Path) -> None:
    src = source(tmp_path / "src")
    convert(src, tmp_path / "zstd", format="zstd:chunked-stargz")
    assert [one[1] for one in listed(tmp_path / "zstd")] == [True, True]
    convert(tmp_path / "zstd", tmp_path / "gzip")
    assert [one[1] for one in listed(tmp_path / "gzip")] == [False, False]


# --- layers that it cannot hold -------------------------------------------------------------------


def twice() -> bytes:
    """A tar with a path that is there twice."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for data in (b"one", b"two!"):
            info = tarfile.TarInfo("dir/same")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_what_cannot_be_chunked_is_plain_zstd(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    plain = layout.plain_layer(twice())
    plain["annotations"] = {TOC_DIGEST: sha256(b"stale"), "mine": "kept"}
    layout.tag(layout.manifest([layout.plain_layer(LOWER), plain]), "v1")
    src, dst = f"oci:{layout.path}:v1", f"oci:{tmp_path / 'dst'}:v1"
    done = run("image", "convert", "--format", "zstd:chunked", "--json", "--verify", src, dst)
    assert done.returncode == 0
    report = json.loads(done.stdout)
    good, bad = report["layers"]
    assert (good["status"], bad["status"]) == ("converted", "not seekable")
    assert (bad["format"], bad["annotations"], bad["toc_digest"]) == ("zstd", {}, None)
    assert bad["diff_id"] == sha256(twice())
    (warning,) = report["warnings"]
    assert warning.startswith(f"layer {plain['digest']}: ") and "dir/same" in warning
    assert warning.count(plain["digest"]) == 1
    image = written(tmp_path / "dst")
    assert image.layers[1].media_type == ZSTD_LAYER
    assert image.layers[1].annotations == {"mine": "kept"}
    before = written(layout.path)
    assert image.config.digest == before.config.digest
    # Again it is as it was, by way of the same bytes.
    again = convert(tmp_path / "dst", tmp_path / "again", format="zstd:chunked")
    assert (again.status, again.digest) == ("unchanged", report["digest"])
    told = fails(1, "image", "convert", "--format", "zstd:chunked", "--strict", src, f"{dst}2")
    assert "dir/same" in told and plain["digest"] in told
    with pytest.raises(UnindexableError, match="dir/same"):
        convert(layout, tmp_path / "no", both=True, strict=True)
    assert Reading(tmp_path / "dst").refs() == ["v1"]
    # Of both instances the one in gzip is seekable.
    both = convert(layout, tmp_path / "both", both=True)
    first, second = (
        manifest(tmp_path / "both", digest) for *_, digest in listed(tmp_path / "both")
    )
    assert all(TOC_DIGEST in layer.annotations for layer in first.layers)
    assert second.layers == image.layers
    assert [layer.status for layer in both.layers].count("not seekable") == 1


# --- in a registry, and in bulk -------------------------------------------------------------------


HOW: dict[str, dict[str, Any]] = {"both": {"both": True}, "one": {"format": "zstd:chunked"}}


@pytest.mark.parametrize("name", HOW)
def test_bulk(registry: Registry, tmp_path: Path, name: str) -> None:
    how, count = HOW[name], 4 if name == "both" else 2
    registry.push(source(tmp_path / "src").path, f"bulk/{name}", "v1")
    here = f"docker://{registry.host}"
    names = f"{here}/bulk/{name}", f"{here}/made/{name}"
    state = tmp_path / "state.db"
    dry = bulk(*names, state=state, dry_run=True, **how)
    assert dry.totals["layers"] == count
    report = bulk(*names, state=state, **how)
    assert (report.totals["converted"], report.totals["layers_converted"]) == (1, count)
    options = ["--both"] if name == "both" else ["--format", "zstd:chunked"]
    again = json.loads(ok("image", "bulk", *options, "--json", "--state", state, *names))
    assert (again["totals"]["unchanged"], again["totals"]["layers"]) == (1, 0)
    # For another destination the layers are known; without the state they are kept.
    more = bulk(names[0], f"{here}/more/{name}", state=state, **how)
    assert more.totals["layers_reused"] == count
    kept = bulk(names[1], f"{here}/kept/{name}", **how)
    assert kept.totals["layers_kept"] == count
    digests = []
    for place in ("made", "more", "kept"):
        with open_image(f"{here}/{place}/{name}:v1", platform="linux/arm64") as opened:
            assert opened.verified and opened.tree.read("etc/a") == b"lower a"
            digests.append(opened.root.digest)
    assert len(set(digests)) == 1
    assert verify_image(f"{here}/kept/{name}:v1").ok
