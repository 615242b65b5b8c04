"""`stargz image index` in real registries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
from command import fails, ok
from layouts import OCI_INDEX, OCI_MANIFEST, Layout
from servers import FaultProxy
from soci_images import (
    LARGE,
    MIN,
    SOCI_V1,
    SOCI_V2,
    ReferrersAPI,
    index,
    one_layer,
    packed,
    root,
    two_platforms,
)

COSIGN = "application/vnd.dev.cosign.simplesigning.v1+json"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with registries.registry(folder / "served") as served:
        served.push(two_platforms(folder / "src").path, "app", "v1")
        yield served


def manifest(registry: registries.Registry, target: str, repository: str = "app") -> Any:
    import urllib.request

    url = f"http://{registry.host}/v2/{repository}/manifests/{target}"
    kinds = f"{OCI_MANIFEST}, {OCI_INDEX}"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": kinds})) as answer:
        return json.load(answer)


def test_in_a_registry(registry: registries.Registry, tmp_path: Path) -> None:
    src = f"docker://{registry.host}/app:v1"
    dst = f"docker://{registry.host}/other/repository:soci"
    made = json.loads(ok("image", "index", src, dst, "--min-layer-size", MIN, "--json", "-q"))
    assert made["status"] == "indexed"
    local = index(f"oci:{two_platforms(tmp_path / 'src').path}:v1", f"oci:{tmp_path}/dst:v1")
    assert made["digest"] == local.digest
    listed = manifest(registry, "soci", "other/repository")["manifests"]
    assert [entry.get("artifactType") for entry in listed] == [None, None, SOCI_V2, SOCI_V2]
    # Only what is small is asked for again, and the ztocs, to see what they are.
    with FaultProxy(f"http://{registry.host}") as proxy:
        src, dst = (name.replace(registry.host, f"127.0.0.1:{proxy.port}") for name in (src, dst))
        again = index(src, dst)
        assert (again.status, again.digest) == ("unchanged", local.digest)
        assert proxy.bytes < 20_000 + again.size
        gets = [one.path for one in proxy.log if one.method == "GET" and "/blobs/" in one.path]
        assert len(gets) == len(set(gets)), "something was fetched twice"
        assert not any(layer.source_digest in path for layer in again.layers for path in gets)
        assert not any(request.method in ("POST", "PATCH") for request in proxy.log)


def test_version_1_by_the_tag_where_there_is_no_api(
    registry: registries.Registry, tmp_path: Path
) -> None:
    registry.push(two_platforms(tmp_path / "src").path, "tagged", "v1")
    src = f"docker://{registry.host}/tagged:v1"
    images = manifest(registry, "v1", "tagged")["manifests"]
    tags = [entry["digest"].replace(":", "-") for entry in images]
    # Something else refers to it already.
    other = Layout(tmp_path / "other")
    entry = other.manifest([other.blob(b"{}", COSIGN)]) | {"artifactType": "x/y"}
    other.tag(other.index([entry], annotations={"kept": "yes"}))
    registry.push(other.path, "tagged", tags[0])
    made = index(src, soci_version=1)
    assert (made.status, made.destination, made.digest) == ("indexed", src, made.source_digest)
    for tag, image in zip(tags, images, strict=True):
        found = manifest(registry, tag, "tagged")
        assert found["mediaType"] == OCI_INDEX
        last = found["manifests"][-1]
        assert (last["artifactType"], last["digest"]) == (SOCI_V1, made.indexes[image["digest"]])
        soci = manifest(registry, last["digest"], "tagged")
        assert soci["subject"]["digest"] == image["digest"]
        assert "artifactType" not in soci
    first = manifest(registry, tags[0], "tagged")
    assert [one["artifactType"] for one in first["manifests"]] == ["x/y", SOCI_V1]
    assert first["annotations"] == {"kept": "yes"}
    assert len(manifest(registry, tags[1], "tagged")["manifests"]) == 1
    by_digest = f"docker://{registry.host}/tagged@{made.digest}"
    again = index(by_digest, soci_version=1)
    assert (again.status, again.destination) == ("unchanged", by_digest)
    assert index(src, soci_version=1, span_size=64 << 10).status == "indexed"
    assert [one["artifactType"] for one in manifest(registry, tags[0], "tagged")["manifests"]] == [
        *("x/y", SOCI_V1)
    ]
    # As a source for elsewhere, and at the destination.
    dst = f"docker://{registry.host}/tagged-copy:v1"
    for _ in range(2):
        assert index(src, dst, soci_version=1).status == "unchanged"
    assert index(dst, soci_version=1).status == "unchanged"


def test_a_tag_of_referrers_that_is_something_else(
    registry: registries.Registry, tmp_path: Path
) -> None:
    layout = one_layer(tmp_path / "src", packed(LARGE))
    registry.push(layout.path, "taken", "v1")
    image = root(layout.path).digest
    registry.push(layout.path, "taken", image.replace(":", "-"))
    line = fails(1, "image", "index", f"docker://{registry.host}/taken:v1", "--soci-version", "1",
                 "--min-layer-size", MIN)  # fmt: skip
    assert f"/taken:{image.replace(':', '-')}: the tag by which" in line and "delete it" in line


def test_version_1_by_the_referrers_api(tmp_path: Path) -> None:
    layout = one_layer(tmp_path / "src", packed(LARGE))
    with registries.registry(tmp_path / "served") as served:
        image = served.push(layout.path, "app", "v1")
        api = ReferrersAPI(served)
        api.subject = image
        with FaultProxy(f"http://{served.host}") as proxy:
            proxy.plan = api
            src = f"docker://127.0.0.1:{proxy.port}/app:v1"
            made = index(src, soci_version=1)
            assert made.status == "indexed" and not made.warnings
            assert index(src, soci_version=1).status == "unchanged"
            other = index(src, soci_version=1, span_size=64 << 10)
            assert other.status == "indexed"
            (warning,) = other.warnings
            assert made.indexes[image] in warning and "delete it" in warning
        assert not api.tags
