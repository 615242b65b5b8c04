"""Images with a SOCI index of ours, pulled lazily by containerd 2 through soci-snapshotter."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
import sample_images
from absence import absent
from conftest import INTEROP
from containers import Containerd, containerd_with_soci, needs_overlay, tree
from mounts import needs_fuse
from sample_images import NAME, NEW, look, name
from servers import FaultProxy

import stargz

PULL = ("ctr", "images", "pull", "--plain-http", "--snapshotter")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    """NAME:plain without an index, :v2 with one of version 2, and :seekable, whose layers are of
    many gzip members, with one of version 1."""
    with sample_images.served(tmp_path_factory.mktemp("app")) as served:
        stargz.index_image(name(served, "plain"), name(served, "v2"), min_layer_size=0)
        stargz.index_image(name(served, "seekable"), soci_version=1, min_layer_size=0)
        yield served


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    needs_fuse()
    needs_overlay(tmp_path_factory.mktemp("overlay"))
    program = tmp_path_factory.mktemp("snapshotter") / "program"
    command = [INTEROP / "soci/build", program, "./snapshotter"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        absent(f"soci-snapshotter cannot be built: {built.stderr.strip()}")
    with containerd_with_soci(tmp_path_factory.mktemp("c"), program) as running:
        yield running


@pytest.fixture(scope="module")
def expected(
    engine: Containerd, registry: registries.Registry, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The files of the image, unpacked by containerd itself."""
    engine.run(*PULL, "overlayfs", f"{registry.host}/{NAME}:plain")
    chain = look(registry, "plain").chain
    with engine.view(chain, tmp_path_factory.mktemp("expected") / "view", "overlayfs") as files:
        found = tree(files)
    engine.forget()
    assert found["etc/new"] and "etc/hidden" not in found
    return found


@pytest.mark.parametrize("tag", ["v2", "seekable"])
def test_pulled_lazily(
    tag: str,
    engine: Containerd,
    registry: registries.Registry,
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    image = look(registry, tag)
    with FaultProxy(f"http://{registry.host}") as proxy:

        def fetched() -> int:
            return sum(request.sent for request in proxy.log if "/blobs/" in request.path)

        engine.run(*PULL, "soci", f"{proxy.url.partition('://')[2]}/{NAME}:{tag}")
        assert len(engine.lazily()) == len(image.layers) == 3
        assert 0 < fetched() < image.size / 8
        with engine.view(image.chain, tmp_path / "view", "soci") as files:
            assert (files / "etc/new").read_bytes() == NEW
            assert fetched() < image.size / 2
            assert tree(files) == expected
        assert fetched() > image.size / 2
        engine.forget()
    assert not engine.lazily()


def test_without_an_index_nothing_is_lazy(
    engine: Containerd, registry: registries.Registry, expected: dict[str, Any], tmp_path: Path
) -> None:
    """Were it lazy here too, the tests above would say nothing of our indexes."""
    engine.run(*PULL, "soci", f"{registry.host}/{NAME}:plain")
    assert not engine.lazily()
    with engine.view(look(registry, "plain").chain, tmp_path / "view", "soci") as files:
        assert tree(files) == expected
    engine.forget()
