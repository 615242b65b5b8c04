"""Images with external TOCs: both images written, in registries, layouts and archives, and read."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layouts
import pytest
import registries
import zstandard
from blobs import sha256, tar_of
from command import ok_here, run
from conversions import convert, written
from layouts import LAYER_DIGEST, OCI_CONFIG, OCI_LAYER, TOC_DIGEST, Layout
from registries import Registry
from servers import FaultProxy

import stargz
from stargz.errors import FooterError, OccupiedError, UsageError
from stargz.oci.bulk import bulk
from stargz.oci.conversion import convert_image
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import Manifest
from stargz.oci.image import open_image
from stargz.oci.verify.image import verify_image

LOWER = tar_of([("etc/a", b"lower a"), ("etc/b", b"b" * 9000)])
UPPER = tar_of([("etc/a", b"upper a"), ("c", b"c")])
OTHER = tar_of([("d", b"other")])
OPTIONS: dict[str, Any] = {"format": "external-toc"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        yield served


def source(path: Path, tag: str = "v1") -> Layout:
    """An image for two platforms, which share a layer; of tar.gz, tar and tar.zst."""
    layout = Layout(path)
    shared = layout.plain_layer(LOWER)
    packed = layout.plain_layer(OTHER, zstandard.compress(OTHER))
    packed["mediaType"] = OCI_LAYER.replace("gzip", "zstd")
    plain = layout.plain_layer(UPPER, UPPER)
    plain["mediaType"] = OCI_LAYER.removesuffix("+gzip")
    images = [
        layout.manifest([shared, plain]),
        layout.manifest([shared, packed], platform="linux/arm64"),
    ]
    layout.tag(layout.index(images), tag)
    return layout


def images(path: Path, ref: str = "v1") -> list[Manifest]:
    reading = Reading(path)
    root = written(path, ref)
    return [reading.manifest(entry) for entry in root.manifests] if root.kind == "index" else [root]


def check_tocs(path: Path, ref: str = "v1") -> None:
    """The second image has the TOC of each seekable layer, once, and in order."""
    reading = Reading(path)
    layers = {entry.digest: entry for image in images(path, ref) for entry in image.layers}
    found = written(path, f"{ref}-esgztoc").json
    assert list(found) == ["schemaVersion", "mediaType", "config", "layers"]
    assert found["config"] == {"mediaType": OCI_CONFIG, "digest": sha256(b"{}"), "size": 2}
    assert reading.blob_path(sha256(b"{}")).read_bytes() == b"{}"
    tocs = found["layers"]
    assert [toc["digest"] for toc in tocs] == sorted(toc["digest"] for toc in tocs)
    assert {toc["annotations"][LAYER_DIGEST] for toc in tocs} == layers.keys()
    assert len(tocs) == len(layers)
    for toc in tocs:
        assert (toc["mediaType"], list(toc["annotations"])) == (OCI_LAYER, [LAYER_DIGEST])
        layer = layers[toc["annotations"][LAYER_DIGEST]]
        assert layer.media_type == OCI_LAYER
        data = reading.blob_path(toc["digest"]).read_bytes()
        assert (sha256(data), len(data)) == (toc["digest"], toc["size"])
        blob = reading.blob_path(layer.digest).read_bytes()
        assert layer.annotations["io.containers.estargz.uncompressed-size"] == str(
            len(gzip.decompress(blob))
        )
        with stargz.open(blob, toc=data, toc_digest=layer.annotations[TOC_DIGEST]) as opened:
            assert opened.verify().ok


def test_in_a_layout(tmp_path: Path) -> None:
    src = source(tmp_path / "src")
    before = [image.config for image in images(src.path)]
    report = convert(src, tmp_path / "dst", **OPTIONS)
    assert report.toc_image is not None
    assert report.toc_image.name == f"oci:{tmp_path / 'dst'}:v1-esgztoc"
    assert report.toc_image.digest == written(tmp_path / "dst", "v1-esgztoc").digest
    check_tocs(tmp_path / "dst")
    assert [image.config for image in images(tmp_path / "dst")] == before  # DiffIDs are kept
    names = [
        entry["annotations"][layouts.REF_NAME]
        for entry in json.loads((tmp_path / "dst/index.json").read_bytes())["manifests"]
    ]
    assert names == ["v1-esgztoc", "v1"]
    for layer in report.layers:
        assert layer.toc_blob and layer.annotations[TOC_DIGEST] == layer.toc_digest
    # Read by its name, by its digest, and as the only image there is.
    for name in ("", ":v1", f":{report.digest}"):
        with open_image(f"oci:{tmp_path / 'dst'}{name}", platform="linux/amd64") as image:
            assert image.verified
            assert image.tree.read("etc/a") == b"upper a"
    assert verify_image(f"oci:{tmp_path / 'dst'}:v1").ok
    # The same again has the same bytes.
    again = convert_image(f"oci:{src.path}:v1", f"oci:{tmp_path / 'two'}:v1", threads=2, **OPTIONS)
    assert (again.digest, again.toc_image and again.toc_image.digest) == (
        report.digest,
        report.toc_image.digest,
    )


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    src = source(tmp_path / "src")
    first = convert(src, tmp_path / "a", verify=True, **OPTIONS)
    kept = convert(tmp_path / "a", tmp_path / "b", verify=True, **OPTIONS)
    assert kept.status == "unchanged" and kept.digest == first.digest
    assert {layer.status for layer in kept.layers} == {"kept"}
    assert [layer.annotations for layer in kept.layers] == [
        layer.annotations for layer in first.layers
    ]
    assert kept.toc_image and first.toc_image and kept.toc_image.digest == first.toc_image.digest
    check_tocs(tmp_path / "b")
    # Without the TOCs, or what vouches for them, nothing is kept.
    index = tmp_path / "a/index.json"
    text = index.read_text()
    index.write_text(text.replace("v1-esgztoc", "other"))
    with pytest.raises(FooterError, match=f"no image oci:{tmp_path}/a:v1-esgztoc that has it$"):
        open_image(f"oci:{tmp_path / 'a'}:v1", platform="linux/amd64")
    assert "a:v1-esgztoc that has it" in verify_image(f"oci:{tmp_path / 'a'}:v1").errors[0].message
    made = convert(tmp_path / "a", tmp_path / "c", **OPTIONS)
    assert {layer.status for layer in made.layers} == {"converted"}
    assert (made.status, made.digest) == ("converted", first.digest)
    index.write_text(text)
    # To eStargz, and back: the DiffIDs are others then, and that is said.
    packed = convert(tmp_path / "a", tmp_path / "d")
    assert packed.toc_image is None
    assert {layer.status for layer in packed.layers} == {"converted"}
    back = convert(tmp_path / "d", tmp_path / "e", verify=True, **OPTIONS)
    assert sum("stargz.index.json" in text for text in back.warnings) == 3
    check_tocs(tmp_path / "e")


def test_a_layer_that_it_cannot_hold_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    link = layout.plain_layer(hard_link_to_nothing())
    layout.tag(layout.manifest([layout.plain_layer(LOWER), link]), "v1")
    report = convert(layout, tmp_path / "dst", **OPTIONS)
    assert [layer.status for layer in report.layers] == ["converted", "not seekable"]
    (toc,) = written(tmp_path / "dst", "v1-esgztoc").layers
    assert toc.annotations[LAYER_DIGEST] == report.layers[0].digest


def hard_link_to_nothing() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.LNKTYPE, "nothing"
        tar.addfile(info)
    return out.getvalue()


def test_an_archive_has_both(tmp_path: Path) -> None:
    src = source(tmp_path / "src")
    name = f"oci-archive:{tmp_path / 'a.tar'}:v1"
    for _ in range(2):  # what is replaced has both too
        report = convert_image(f"oci:{src.path}:v1", name, verify=True, **OPTIONS)
        assert report.toc_image is not None
    assert report.toc_image.name == f"{name}-esgztoc"
    with open_image(name, platform="linux/arm64") as image:
        assert image.verified and image.tree.read("d") == b"other"


@pytest.mark.parametrize(
    ("dst", "match"),
    [
        ("docker://registry.example/app", "tag"),
        ("docker://registry.example/app@sha256:" + 64 * "0", "tag"),
        ("oci:{}", "tag"),
        ("oci-archive:{}/a.tar", "tag"),
        ("oci:{}:registry.example/app", "tag"),
        ("docker://registry.example/app:" + 121 * "t", "120"),
        ("oci:{}:" + 121 * "t", "120"),
        ("oci:{}:registry.example/app:" + 121 * "t", "120"),
        ("oci:{}:" + 129 * "t", "120"),
        ("oci:{}:a tag", "'a tag' is no tag"),
    ],
)
def test_names_by_which_they_are_not_found(tmp_path: Path, dst: str, match: str) -> None:
    src = f"oci:{tmp_path}/none"
    with pytest.raises(UsageError, match=match):
        convert_image(src, dst.format(tmp_path), **OPTIONS)
    assert not [*tmp_path.iterdir()]


def test_other_wrong_usage(tmp_path: Path) -> None:
    src = source(tmp_path / "src")
    for options in ({"docker_types": True}, {"prioritized": ["etc/a"]}):
        with pytest.raises(UsageError, match="external-toc"):
            convert(src, tmp_path / "dst", **OPTIONS, **options)
    layouts.image(tmp_path / "dst", [LOWER], "v1-esgztoc")
    with pytest.raises(OccupiedError, match="v1-esgztoc"):
        convert(src, tmp_path / "dst", **OPTIONS)
    assert "v1" not in Reading(tmp_path / "dst").refs()
    convert(src, tmp_path / "dst", force=True, **OPTIONS)
    check_tocs(tmp_path / "dst")


def test_a_toc_that_nothing_vouches_for_is_not_looked_for(tmp_path: Path) -> None:
    src = source(tmp_path / "src")
    convert(src, tmp_path / "dst", platforms=["linux/amd64"], **OPTIONS)
    index = json.loads((tmp_path / "dst/index.json").read_bytes())
    (entry,) = [one for one in index["manifests"] if one["annotations"][layouts.REF_NAME] == "v1"]
    manifest = written(tmp_path / "dst").json
    for layer in manifest["layers"]:
        del layer["annotations"][TOC_DIGEST]
    data = json.dumps(manifest).encode()
    entry |= {"digest": sha256(data), "size": len(data)}
    (tmp_path / "dst/blobs" / entry["digest"].replace(":", "/")).write_bytes(data)
    (tmp_path / "dst/index.json").write_text(json.dumps(index))
    with pytest.raises(FooterError, match=TOC_DIGEST):
        open_image(f"oci:{tmp_path / 'dst'}:v1")


def test_longest_name(tmp_path: Path) -> None:
    tag = "t" * 120
    src = source(tmp_path / "src", tag)
    convert(src, tmp_path / "dst", tag, **OPTIONS)
    check_tocs(tmp_path / "dst", tag)


def test_in_a_registry_the_tocs_come_first(tmp_path: Path, registry: Registry) -> None:
    src = source(tmp_path / "src")
    with FaultProxy(f"http://{registry.host}") as proxy:
        host = proxy.url.removeprefix("http://")
        dst = f"docker://{host}/app:v1"
        told = ok_here(
            "image",
            "convert",
            "--format",
            "external-toc",
            "--verify",
            "--plain-http",
            f"oci:{src.path}:v1",
            dst,
        )
        assert f"{dst}-esgztoc" in told
        named = [
            request.path.rpartition("/")[2]
            for request in proxy.log
            if request.method == "PUT" and "/manifests/v1" in request.path
        ]
        assert named == ["v1-esgztoc", "v1"]
    name = f"docker://{registry.host}/app:v1"
    with open_image(name, platform="linux/amd64") as image:
        assert image.verified and image.tree.read("etc/a") == b"upper a"
        digest = image.root.digest
    # With a digest behind the tag, by that tag; by a digest alone there is no way.
    with open_image(f"{name}@{digest}", platform="linux/amd64") as image:
        assert image.verified
    with pytest.raises(FooterError, match=r"digest does not lead: .*TAG@sha256") as told_of:
        open_image(f"docker://{registry.host}/app@{digest}", platform="linux/amd64")
    assert "--toc" not in str(told_of.value)
    lone = ["ls", "--layer", "1", "--platform", "linux/amd64", "--plain-http"]
    assert "give the TOC as --toc" in run(*lone, f"docker://{registry.host}/app@{digest}").stderr
    assert (
        verify_image(f"docker://{registry.host}/app@{digest}")
        .errors[0]
        .message.endswith("TAG@sha256:...")
    )
    again = convert_image(name, upgrade=True, **OPTIONS)
    assert again.status == "unchanged" and again.digest == digest


def test_bulk(tmp_path: Path, registry: Registry) -> None:
    for number, tag in enumerate(["one", "two"]):
        layout = Layout(tmp_path / "src" / f"app{number}")
        layers = [layout.plain_layer(tar) for tar in (LOWER, (UPPER, OTHER)[number])]
        layout.tag(layout.manifest(layers), tag)
        layout.tag(layout.manifest(layers[:1]), "t" * 121)
    dst = f"docker://{registry.host}/bulk"

    def run(**options: Any) -> Any:
        state = tmp_path / "state"
        return bulk(str(tmp_path / "src"), dst, state=state, jobs=2, **OPTIONS, **options)

    for dry in (True, False):
        report = run(dry_run=dry)
        assert len(report.failures) == 2 and all("120" in one.error for one in report.failures)
    assert report.totals["converted"] == 2
    for number, tag in enumerate(["one", "two"]):
        with open_image(f"{dst}/app{number}:{tag}") as image:
            assert image.verified
            assert image.tree.read("etc/b") == b"b" * 9000
    # All is there: nothing is done. Without the TOCs of one, they are written again.
    assert run().totals["unchanged"] == 2
    gone = layouts.image(tmp_path / "gone", [LOWER], "x", annotated=False)
    registry.push(gone.path, "bulk/app0", "one-esgztoc")
    with pytest.raises(FooterError):
        open_image(f"{dst}/app0:one")
    assert run(force=True).totals["unchanged"] == 1
    with open_image(f"{dst}/app0:one") as image:
        assert image.verified
    # What a bulk run finds in such a repository are images, not their TOCs.
    back = bulk(f"{dst}/app0", f"oci:{tmp_path / 'back'}", jobs=2, **OPTIONS)
    assert back.totals["images"] == 1
    check_tocs(tmp_path / "back", "one")
