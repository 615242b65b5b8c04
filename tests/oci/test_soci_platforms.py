"""`stargz image index` of some of an image's platforms, and of what is about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layouts import Layout
from soci_images import LARGE, OTHER, SOCI_V2, files, index, root

import stargz
from stargz.errors import PlatformError
from stargz.oci.formats import manifest as manifests
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import Descriptor, Manifest
from stargz.oci.formats.platforms import parse_platform, platform_of
from stargz.oci.formats.selection import descend
from stargz.oci.repository import open_repository

TARS = (OTHER, OTHER + bytes(512), OTHER + bytes(1024))
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/s390x")


def three_platforms(path: Path) -> Layout:
    layout = Layout(path)
    shared = layout.plain_layer(LARGE)
    images = [
        layout.manifest([shared, layout.plain_layer(tar)], platform=platform)
        for tar, platform in zip(TARS, PLATFORMS, strict=True)
    ]
    layout.tag(layout.index(images), "v1")
    return layout


@pytest.mark.parametrize("order", [PLATFORMS[::-1], (*PLATFORMS[1:], PLATFORMS[0])])
def test_the_same_whichever_platform_was_first(tmp_path: Path, order: tuple[str, ...]) -> None:
    src = f"oci:{three_platforms(tmp_path / 'src').path}:v1"
    whole = index(src, f"oci:{tmp_path}/whole:v1")
    for platform in order:
        index(src, upgrade=True, platforms=[platform])
    assert root(tmp_path / "src").digest == whole.digest
    assert files(tmp_path / "src").items() >= {
        item for item in files(tmp_path / "whole").items() if item[0].startswith("blobs/")
    }
    assert index(src, upgrade=True).status == "unchanged"


# --- what is about them -------------------------------------------------------------------------


def about(layout: Layout, image: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An attestation as buildx makes it, listed for no platform."""
    named = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
    }
    statement = layout.blob(image["digest"].encode(), "application/vnd.in-toto+json")
    made = layout.manifest([statement], platform="unknown/unknown", **more)
    return made | {"annotations": named}


def attested(path: Path) -> Layout:
    layout = Layout(path)
    images = [
        layout.manifest([layout.plain_layer(tar)], platform=platform)
        for tar, platform in zip((LARGE, OTHER), PLATFORMS, strict=False)
    ]
    by_subject = about(
        layout, images[0], subject={key: images[0][key] for key in ("mediaType", "digest", "size")}
    )
    del by_subject["annotations"]
    of_none = about(layout, images[0])
    del of_none["annotations"]["vnd.docker.reference.digest"]
    layout.tag(
        layout.index([*images, *(about(layout, one) for one in images), by_subject, of_none]), "v1"
    )
    return layout


def of_each(path: Path) -> dict[str, list[str | None]]:
    """What an image's index lists as being about which of its images, of which platform; by what
    is about it."""
    layout = Reading(path)
    entries = root(path).manifests
    names = {one.digest: str(platform_of(one.platform)) for one in entries}
    found: dict[str, list[str | None]] = {}
    for entry in entries:
        kind = entry.json.get("artifactType") or entry.annotations.get("vnd.docker.reference.type")
        whose = manifests.about(entry) or layout.manifest(entry).subject
        found.setdefault(str(kind), []).append(names.get(whose or ""))
    return found


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("platforms", [PLATFORMS[:1], PLATFORMS[:2]])
def test_attestations_follow_their_images(
    tmp_path: Path, platforms: tuple[str, ...], version: Any
) -> None:
    src = f"oci:{attested(tmp_path / 'src').path}:v1"
    dst = f"oci:{tmp_path}/dst:v1"
    report = index(src, dst, platforms=platforms, soci_version=version)
    found = of_each(tmp_path / "dst")
    assert found["attestation-manifest"] == [*platforms]
    assert found.get(SOCI_V2, []) == ([*platforms] if version == 2 else [])
    assert found["None"].count("linux/amd64") == 1, "of the one that names its subject itself"
    none = root(tmp_path / "src").manifests[-1]
    (told,) = (text for text in report.warnings if "left out: it does not say" in text)
    assert f"the attestation-manifest {none.digest} is left out" in told
    assert index(src, dst, platforms=platforms, soci_version=version).status == "unchanged"
    # All of it stays where nothing is chosen.
    whole = index(src, f"oci:{tmp_path}/whole:v1", soci_version=version)
    assert not any("left out: it does" in text for text in whole.warnings)
    assert len(root(tmp_path / "whole").manifests) == 6 + (2 if version == 2 else 0)


def test_a_conversion_to_one_manifest_tells_what_it_leaves_out(tmp_path: Path) -> None:
    layout = attested(tmp_path / "src")
    src = f"oci:{layout.path}:v1"
    report = stargz.convert_image(src, f"oci:{tmp_path}/one:v1", platforms=["linux/arm64"])
    first = root(layout.path).manifests[3]
    (told,) = report.warnings
    assert told == (
        f"the attestation-manifest {first.digest} is left out: of one platform its manifest alone "
        "is written (--platform)"
    )


# --- indexes in indexes -------------------------------------------------------------------------


def nested(path: Path, *, stated: bool = False) -> Layout:
    """An index of two indexes, which say of what platform they are only if it is `stated`."""
    layout = three_platforms(path)
    one, two, three = (entry.json for entry in root(path).manifests)
    inner = [layout.index([layout.index([one]), two]), layout.index([three])]
    if stated:
        inner[1]["platform"] = three["platform"]
    layout.retag(layout.index(inner), "v1")
    return layout


@pytest.mark.parametrize("stated", [False, True])
def test_what_is_indexed_in_indexes_of_indexes_is_read(tmp_path: Path, stated: bool) -> None:
    src, dst = f"oci:{nested(tmp_path / 'src', stated=stated).path}:v1", f"oci:{tmp_path}/dst:v1"
    report = index(src, dst)
    assert len(report.indexes) == 3
    for platform, tar in zip(
        PLATFORMS, (OTHER, OTHER + bytes(512), OTHER + bytes(1024)), strict=True
    ):
        with stargz.open_image(dst, platform=platform, cache=False) as image:
            assert image.ways == {0: "ztoc", 1: "ztoc"}
            assert image.layers[1].size and image.tree.read("usr/other") in tar
        some = index(src, f"oci:{tmp_path}/{platform[6:]}:v1", platforms=[platform])
        assert [report.indexes[one] for one in some.indexes] == list(some.indexes.values())
        again = index(dst, upgrade=True, platforms=[platform])
        assert (again.status, again.digest) == ("unchanged", report.digest)
    with pytest.raises(stargz.FormatError, match=r"it has linux/.*--platform"):
        stargz.open_image(dst, platform="linux/riscv64", cache=False)
    result = stargz.verify_image(dst, platforms=["linux/s390x"])
    assert result.ok and [layer.status for image in result.images for layer in image.layers]


def test_indexes_in_indexes_that_name_each_other_often(tmp_path: Path) -> None:
    """Each is read once, and there are only so many levels."""
    layout = Layout(tmp_path / "src")
    image = layout.manifest([layout.plain_layer(LARGE)])
    level = [layout.index([image], annotations={"n": str(n)}) for n in range(9)]
    for depth in range(2):
        level = [layout.index(level, annotations={"n": f"{depth} {n}"}) for n in range(9)]
    layout.tag(layout.index(level), "v1")
    src = f"oci:{layout.path}:v1"
    loads: list[str] = []
    with open_repository(src) as repository:

        def load(entry: Descriptor) -> Manifest:
            loads.append(entry.digest)
            return repository.manifest(entry)

        found = descend(repository.root(), parse_platform("linux/amd64"), load)
        assert found.digest == image["digest"]
        with pytest.raises(PlatformError):
            descend(repository.root(), parse_platform("linux/s390x"), load)
        assert len(loads) <= 4 + 27
    deep = [layout.index([image], annotations={"n": str(n)}) for n in range(2)]
    for _ in range(3):
        deep = [layout.index(deep), level[0]]
    layout.retag(layout.index(deep), "v1")
    with pytest.raises(stargz.FormatError, match="index nesting"):
        stargz.open_image(src, platform="linux/s390x", cache=False)


def test_a_platform_that_a_single_image_is_not_for(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(LARGE)]), "v1")
    src, dst = f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1"
    for act in (
        lambda: index(src, dst, platforms=["linux/arm64"]),
        lambda: stargz.convert_image(src, dst, platforms=["linux/arm64"]),
        lambda: stargz.open_image(src, platform="linux/arm64"),
    ):
        with pytest.raises(PlatformError, match="is for linux/amd64, not for linux/arm64"):
            act()
