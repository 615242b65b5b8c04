"""Verification of whole images: a good one passes, and every kind of damage is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
import registries
from command import fails, ok, run
from layouts import OCI_LAYER, REF_NAME, TOC_DIGEST
from registries import Registry
from servers import Fault, FaultProxy

from stargz.errors import FormatError, RegistryError, SourceError, UsageError
from stargz.oci.registry.access import Access
from stargz.oci.verify.image import ImageVerifyResult, verify_image

LOWER = blobs.tar_of([("etc", None), ("etc/a", b"lower a"), ("gone", b"x")])
UPPER = blobs.tar_of([("etc/a", b"upper a"), ("big", blobs.noise("big", 1 << 20))])
OTHER = blobs.tar_of([("only", blobs.noise("arm", 50_000))])
SIZE = "io.containers.estargz.uncompressed-size"
Edit = Callable[[dict[str, Any]], object]


class Made:
    """A layout of an image for two platforms, with an attestation; its descriptors."""

    def __init__(self, path: Path) -> None:
        self.layout = layouts.Layout(path)
        self.src = f"oci:{path}:v1"
        self.lower, self.upper = (self.layout.layer(tar) for tar in (LOWER, UPPER))
        self.other = self.layout.layer(OTHER)
        self.amd64 = self.layout.manifest([self.lower, self.upper])
        self.arm64 = self.layout.manifest([self.lower, self.other], platform="linux/arm64")
        claim = self.layout.blob(b'{"_type": "statement"}', "application/vnd.in-toto+json")
        about = {"vnd.docker.reference.type": "attestation-manifest"}
        self.attestation = self.layout.manifest([claim], platform="unknown/unknown")
        self.attestation["annotations"] = about
        self.index = self.layout.index([self.amd64, self.arm64, self.attestation])
        self.layout.tag(self.index, "v1")

    def path(self, entry: dict[str, Any]) -> Path:
        return self.layout.blobs / entry["digest"].partition(":")[2]

    def load(self, entry: dict[str, Any]) -> dict[str, Any]:
        return json.loads(self.path(entry).read_text())

    def rewrite(self, edit: Edit, config: Edit | None = None) -> None:
        """Another manifest for amd64, under the same tag and right in all its digests."""
        document = self.load(self.amd64)
        edit(document)
        if config is not None:
            found = self.load(document["config"])
            config(found)
            described = self.layout.blob(json.dumps(found).encode(), layouts.OCI_CONFIG)
            document["config"] = described
        text = json.dumps(document).encode()
        self.amd64 = self.layout.blob(text, layouts.OCI_MANIFEST, platform=self.amd64["platform"])
        self.index = self.layout.index([self.amd64, self.arm64, self.attestation])
        self.layout._tagged.clear()
        self.layout.tag(self.index, "v1")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "layout")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        yield served


def told(result: ImageVerifyResult) -> list[tuple[str | None, str]]:
    """Which layer each error is about, and what it says."""
    assert result.ok is not bool(result.errors)
    assert result.error_count >= len(result.errors)
    return [(error.layer, error.message) for error in result.errors]


def one(result: ImageVerifyResult) -> tuple[str | None, str]:
    (found,) = told(result)
    return found


def same(problem: tuple[str | None, str], layer: Any, *words: str) -> None:
    assert problem[0] == (layer and layer["digest"])
    for word in words:
        assert word in problem[1]


# --- good images ------------------------------------------------------------------------


@pytest.fixture(params=["layout", "registry"])
def src(request: pytest.FixtureRequest, made: Made, registry: Registry) -> str:
    """The good image, in both kinds of places."""
    if request.param == "layout":
        return made.src
    registry.push(made.layout.path, "good/image", "v1")
    return f"docker://{registry.host}/good/image:v1"


def test_a_good_image(src: str, made: Made) -> None:
    seen: list[tuple[int, int]] = []
    result = verify_image(src, progress=lambda *at: seen.append(at), threads=2)
    assert told(result) == [] and result.ok and result.verified
    assert (result.name, result.digest) == (src, made.index["digest"])
    kinds = [(image.kind, image.platform, image.ok) for image in result.images]
    assert kinds == [
        ("image", "linux/amd64", True),
        ("image", "linux/arm64", True),
        ("attestation", "unknown/unknown", True),
    ]
    statuses = [[layer.status for layer in image.layers] for image in result.images]
    assert statuses == [["verified"] * 2, ["verified"] * 2, ["blob"]]
    upper = result.images[0].layers[1]
    assert upper.digest == made.upper["digest"] and upper.kind == "estargz"
    assert upper.toc_digest == made.upper["annotations"][TOC_DIGEST]
    assert upper.diff_id == made.layout._diff_ids[upper.digest]
    # Distinct layers, landmarks included: 2 + 1, 2 + 1 and 1 + 1 files.
    assert (result.files, result.chunks) == (8, 8)
    distinct = {layer.digest: layer for image in result.images[:2] for layer in image.layers}
    assert result.bytes == sum(layer.uncompressed_size or 0 for layer in distinct.values())
    totals = {total for _, total in seen}
    assert len(totals) == 1 and seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_one_platform(src: str, made: Made) -> None:
    # What is wrong with another platform is not looked at.
    result = verify_image(src, platforms=["linux/arm64"])
    assert result.ok and [image.platform for image in result.images] == ["linux/arm64"]
    both = verify_image(src, platforms=["linux/arm64", "linux/amd64"])
    assert [image.platform for image in both.images] == ["linux/arm64", "linux/amd64"]
    with pytest.raises(FormatError, match="s390x"):
        verify_image(src, platforms=["linux/s390x"])
    with pytest.raises(UsageError):
        verify_image(src, platforms=["a/b/c/d"])


def test_a_manifest_without_an_index(made: Made) -> None:
    made.layout.tag(made.amd64, "alone")
    src = f"oci:{made.layout.path}:alone"
    result = verify_image(src)
    assert result.verified and result.images[0].platform == "linux/amd64"
    assert verify_image(src, platforms=["linux/amd64"]).ok
    with pytest.raises(FormatError, match="linux/amd64, not for linux/arm64"):
        verify_image(src, platforms=["arm64"])


def test_layers_that_are_not_seekable(made: Made) -> None:
    layout = made.layout
    layers = [layout.plain_layer(LOWER), layout.layer(UPPER, annotated=False), made.other]
    layout.tag(layout.manifest(layers), "plain")
    src = f"oci:{layout.path}:plain"
    result = verify_image(src)
    assert result.ok and not result.verified
    statuses = [layer.status for layer in result.images[0].layers]
    assert statuses == ["not seekable", "unverified", "verified"]
    strict = verify_image(src, require_verified=True)
    assert [layer for layer, _ in told(strict)] == [layer["digest"] for layer in layers[:2]]
    assert "(1 layer not seekable, 1 layer unverified)" in ok("verify", src)
    assert run("verify", "--require-verified", src).returncode == 3


def test_artifacts_and_foreign_layers(made: Made) -> None:
    layout = made.layout
    chart = layout.blob(b"not a tar at all", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    artifact = layout.manifest([chart], artifactType="application/vnd.example")
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": blobs.sha256(b"far away"),
        "size": 8,
    }
    windows = layout.manifest([foreign, made.lower], platform="windows/amd64")
    layout.tag(layout.index([artifact, windows]), "mixed")
    src = f"oci:{layout.path}:mixed"
    result = verify_image(src)
    assert result.ok and not result.verified
    assert [image.kind for image in result.images] == ["artifact", "image"]
    assert [layer.status for layer in result.images[1].layers] == ["foreign", "verified"]
    made.path(chart).write_bytes(b"not a tar at ALL")
    same(one(verify_image(src)), chart, "the blob does not match its digest: expected")


def test_an_external_toc(made: Made, goldens: list[dict[str, Any]], data: Path) -> None:
    golden = next(g for g in goldens if g["name"] == "external_toc")
    layout = made.layout
    layer = layout.blob((data / golden["blob"]).read_bytes(), OCI_LAYER)
    layer["annotations"] = {TOC_DIGEST: golden["toc_digest"]}
    layout._diff_ids[layer["digest"]] = golden["diff_id"]
    layout.tag(layout.manifest([layer]), "ext")
    src = f"oci:{layout.path}:ext"
    same(one(verify_image(src)), layer, "its TOC is kept apart")
    toc = layout.blob((data / f"{golden['blob']}.toc").read_bytes(), OCI_LAYER)
    toc["annotations"] = {"containerd.io/snapshot/stargz/layer.digest": layer["digest"]}
    layout.tag(layout.manifest([toc]), "ext-esgztoc")
    result = verify_image(src)
    assert result.verified and result.images[0].layers[0].kind == "external-toc"


# --- damage: the manifests are right, what they name is not -------------------------------


def served(place: str, made: Made, registry: Registry, name: str) -> tuple[str, Path | None]:
    """The image in a layout or in a registry's storage; where the registry's blobs are."""
    if place == "layout":
        return made.src, None
    registry.push(made.layout.path, name, "v1")
    return f"docker://{registry.host}/{name}:v1", registry.storage


def blob_path(made: Made, storage: Path | None, entry: dict[str, Any]) -> Path:
    if storage is None:
        return made.path(entry)
    digest = entry["digest"].partition(":")[2]
    (found,) = storage.glob(f"**/blobs/sha256/{digest[:2]}/{digest}/data")
    return found


@pytest.mark.parametrize("place", ["layout", "registry"])
@pytest.mark.parametrize("where", ["data", "toc", "footer"])
def test_a_flipped_byte(place: str, where: str, made: Made, tmp_path: Path) -> None:
    with registries.registry(tmp_path / "flipped") as own:
        src, storage = served(place, made, own, "flip/image")
        path = blob_path(made, storage, made.upper)
        damaged = bytearray(path.read_bytes())
        at = {"data": 500_000, "toc": len(damaged) - 200, "footer": len(damaged) - 30}[where]
        damaged[at] ^= 1
        path.write_bytes(damaged)
        result = verify_image(src)
        found = told(result)
        assert {layer for layer, _ in found} == {made.upper["digest"]}
        assert any("the blob does not match its digest: expected" in text for _, text in found)
        if where == "data":
            assert any(error.offset is not None for error in result.errors)
            if place == "layout":
                assert any(error.name == "big" for error in result.errors)
        assert [image.ok for image in result.images] == [False, True, True]
        assert result.images[0].layers[0].status == "verified"
        assert result.images[0].layers[1].status == "failed"


@pytest.mark.parametrize("place", ["layout", "registry"])
@pytest.mark.parametrize("damage", ["missing", "longer", "shorter"])
def test_a_blob_of_another_size_or_none(
    place: str, damage: str, made: Made, tmp_path: Path
) -> None:
    with registries.registry(tmp_path / "sizes") as own:
        src, storage = served(place, made, own, "size/image")
        for entry in (made.lower, made.load(made.arm64)["config"]):
            path = blob_path(made, storage, entry)
            if damage == "missing":
                path.unlink()
            elif damage == "longer":
                path.write_bytes(path.read_bytes() + b"more")
            else:
                path.write_bytes(path.read_bytes()[:-4])
        result = verify_image(src)
        found = dict(told(result))
        assert set(found) == {None, made.lower["digest"]}  # shared, and told of once
        assert result.error_count == 2
        assert found[None].startswith("config: ")
        if damage == "missing":
            assert "is not there" in found[None] and "is not there" in found[made.lower["digest"]]
        assert not result.images[0].ok and not result.images[1].ok
        assert result.images[0].layers[1].status == "verified"


def test_a_replaced_config(made: Made) -> None:
    config = made.load(made.amd64)["config"]
    path = made.path(config)
    path.write_bytes(path.read_bytes().replace(b"/bin/sh", b"/bin/rm"))
    same(one(verify_image(made.src)), None, "config: ", "expected", config["digest"])


def test_a_replaced_manifest_and_index(made: Made) -> None:
    path = made.path(made.arm64)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"schemaVersion", b"schemaversion"))
    result = verify_image(made.src)
    same(one(result), None, "expected", made.arm64["digest"])
    assert result.errors[0].image == made.arm64["digest"]
    assert [image.platform for image in result.images] == ["linux/amd64", "unknown/unknown"]
    path.unlink()
    same(one(verify_image(made.src)), None, made.arm64["digest"], "not in the layout")
    path.write_bytes(good)
    made.path(made.index).write_bytes(made.path(made.index).read_bytes() + b" ")
    result = verify_image(made.src)
    same(one(result), None, "its descriptor says")
    assert result.images == []


# --- damage: all digests are right, what is said is not -----------------------------------


@pytest.mark.parametrize("place", ["layout", "registry"])
def test_a_wrong_diff_id(place: str, made: Made, registry: Registry) -> None:
    wrong = blobs.sha256(b"another")

    def edit(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][1] = wrong

    made.rewrite(lambda manifest: None, edit)
    src, _ = served(place, made, registry, "diff/id")
    right = made.layout._diff_ids[made.upper["digest"]]
    same(one(verify_image(src)), made.upper, "diff_ids[1]", wrong, right)


def test_another_number_of_diff_ids(made: Made) -> None:
    made.rewrite(lambda manifest: None, lambda config: config["rootfs"]["diff_ids"].pop())
    same(one(verify_image(made.src)), None, "1 diff_ids", "2 layers")
    made.rewrite(lambda manifest: None, lambda config: config.pop("rootfs"))
    same(one(verify_image(made.src)), None, "diff_ids")


@pytest.mark.parametrize("place", ["layout", "registry"])
def test_wrong_annotations(place: str, made: Made, registry: Registry) -> None:
    size = verify_image(made.src).images[0].layers[0].uncompressed_size

    def edit(manifest: dict[str, Any]) -> None:
        lower, upper = manifest["layers"]
        upper["annotations"][TOC_DIGEST] = blobs.sha256(b"another")
        lower["annotations"][SIZE] = str(size)

    made.rewrite(edit)
    src, _ = served(place, made, registry, "anno/tated")
    same(one(verify_image(src)), made.upper, TOC_DIGEST, blobs.sha256(b"another"))
    made.rewrite(lambda manifest: manifest["layers"][0]["annotations"].update({SIZE: "17"}))
    src, _ = served(place, made, registry, "anno/tated")
    assert [layer for layer, _ in told(verify_image(src))] == [
        made.lower["digest"],
        made.upper["digest"],
    ]


def test_a_toc_digest_for_a_layer_without_a_toc(made: Made) -> None:
    plain = made.layout.plain_layer(LOWER)
    plain["annotations"] = {TOC_DIGEST: blobs.sha256(b"toc")}
    made.layout.tag(made.layout.manifest([plain]), "odd")
    same(one(verify_image(f"oci:{made.layout.path}:odd")), plain, TOC_DIGEST, "it has no TOC")


def test_a_layer_that_cannot_be_inflated(made: Made) -> None:
    layout = made.layout
    broken = layout.plain_layer(LOWER, b"\x1f\x8b\x08\0 and no more")
    layout.tag(layout.manifest([broken, made.upper]), "broken")
    result = verify_image(f"oci:{layout.path}:broken")
    problem = told(result)[0]
    assert problem[0] == broken["digest"]
    assert result.images[0].layers[1].status == "verified"


def test_a_toc_that_lies(made: Made) -> None:
    """The digests are right from top to bottom, but the TOC is of another tar."""
    swapped = blobs.build(UPPER, edit=lambda rows: rows[0].update(mode=0o777))
    entry = made.layout.blob(swapped.data, OCI_LAYER, annotations={TOC_DIGEST: swapped.digest})
    made.layout._diff_ids[entry["digest"]] = blobs.sha256(blobs.inflated(swapped.data))
    made.layout.tag(made.layout.manifest([entry]), "lies")
    result = verify_image(f"oci:{made.layout.path}:lies")
    assert [(error.name, error.layer) for error in result.errors] == [("etc/a", entry["digest"])]


def test_nested_indexes(made: Made) -> None:
    layout, inner = made.layout, made.index
    for _ in range(3):
        inner = layout.index([inner])
    layout.tag(inner, "deep")
    src = f"oci:{layout.path}:deep"
    assert verify_image(src).verified
    assert len(verify_image(src, platforms=["linux/arm64"]).images) == 1
    layout.tag(layout.index([inner]), "deeper")
    same(one(verify_image(f"oci:{layout.path}:deeper")), None, "indexes one inside the other")


def test_manifests_without_layers_or_sense(made: Made) -> None:
    layout = made.layout
    document = made.load(made.amd64) | {"layers": [{"digest": "../../etc/passwd", "size": 1}]}
    strange = layout.blob(json.dumps(document).encode(), layouts.OCI_MANIFEST)
    layout.tag(layout.index([strange, made.arm64]), "strange")
    result = verify_image(f"oci:{layout.path}:strange")
    assert "not a digest" in told(result)[0][1] and result.images[1].ok
    layout.tag(layout.manifest([], config={"rootfs": {"type": "layers"}}), "empty")
    assert verify_image(f"oci:{layout.path}:empty").ok


# --- failures -----------------------------------------------------------------------------


def test_what_is_not_there(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="not found"):
        verify_image(f"docker://{registry.host}/no/such:v1")
    with pytest.raises(SourceError, match="no such directory"):
        verify_image(f"oci:{tmp_path}/nowhere")


def test_a_registry_that_refuses_is_no_damage(made: Made, registry: Registry) -> None:
    registry.push(made.layout.path, "net/work", "v1")
    with FaultProxy(f"http://{registry.host}") as proxy:
        proxy.reset(lambda request: Fault(status=403) if "/blobs/" in request.path else None)
        with pytest.raises(RegistryError, match="403"):
            verify_image(f"docker://127.0.0.1:{proxy.port}/net/work:v1", access=Access())


def test_an_exception_of_progress_ends_it(made: Made) -> None:
    def stop(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        verify_image(made.src, progress=stop)


# --- the command ----------------------------------------------------------------------------


def test_the_command(src: str, made: Made) -> None:
    said = ok("verify", src)
    assert said.startswith("ok: 2 images, 3 layers, 8 files, 8 chunks, ")
    assert said.endswith(" MiB), 1 attestation\n")
    found = json.loads(ok("verify", "--json", src))
    assert (found["ok"], found["files"], found["chunks"], found["errors"]) == (True, 8, 8, [])
    assert found["verified"] and found["digest"] == made.index["digest"]
    assert found["images"][0]["layers"][0]["status"] == "verified"
    one_platform = json.loads(ok("verify", "--json", "--platform", "linux/arm64", src))
    assert [image["platform"] for image in one_platform["images"]] == ["linux/arm64"]
    layer = json.loads(ok("verify", "--json", "--layer", "1", "--platform=linux/amd64", src))
    assert layer["ok"] and "images" not in layer
    assert "--layer" in fails(2, "verify", src, "--toc-digest", blobs.sha256(b""))


def test_the_command_on_damage(made: Made) -> None:
    path = made.path(made.upper)
    data = bytearray(path.read_bytes())
    data[500_000] ^= 1
    path.write_bytes(data)
    done = run("verify", made.src)
    assert done.returncode == 3 and done.stdout.startswith("FAILED: 2 images, ")
    assert all(made.upper["digest"] in line for line in done.stderr.splitlines())
    found = json.loads(run("verify", "--json", made.src).stdout)
    assert found["ok"] is False
    assert all({"name", "offset", "message"} <= set(error) for error in found["errors"])
    assert REF_NAME not in json.dumps(found)
