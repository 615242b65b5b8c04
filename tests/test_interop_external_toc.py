"""Images with external TOCs, pulled lazily by containerd through a snapshotter that knows them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
import sample_images
from absence import absent
from conftest import INTEROP
from containers import Containerd, containerd, needs_overlay, tree
from mounts import needs_fuse
from sample_images import NAME, NEW, look, name
from servers import FaultProxy

from stargz.oci.conversion import convert_image
from stargz.oci.repository import open_repository

LAZY = ("ctr-remote", "images", "rpull", "--plain-http")
WHOLE = ("ctr", "images", "pull", "--plain-http", "--snapshotter", "overlayfs")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    """NAME:plain, and NAME:external that was made of it."""
    with sample_images.served(tmp_path_factory.mktemp("app")) as served:
        convert_image(name(served, "plain"), name(served, "external"), format="external-toc")
        yield served


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    needs_fuse()
    needs_overlay(tmp_path_factory.mktemp("overlay"))
    registries.program("containerd")
    registries.program("ctr-remote")
    snapshotter = tmp_path_factory.mktemp("snapshotter") / "snapshotter"
    command = [INTEROP / "soci/build", snapshotter, "../snapshotter/newer"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        absent(f"a newer stargz-snapshotter cannot be built: {built.stderr.strip()}")
    with containerd(tmp_path_factory.mktemp("c"), snapshotter) as running:
        yield running


def test_pulled_lazily(engine: Containerd, registry: registries.Registry, tmp_path: Path) -> None:
    plain, image = look(registry, "plain"), look(registry, "external")
    assert image.chain == plain.chain  # the DiffIDs are kept
    engine.run(*WHOLE, f"{registry.host}/{NAME}:plain")
    with engine.view(plain.chain, tmp_path / "whole", "overlayfs") as files:
        expected = tree(files)
    engine.forget()
    with FaultProxy(f"http://{registry.host}") as proxy:

        def fetched() -> int:
            return sum(request.sent for request in proxy.log if "/blobs/" in request.path)

        engine.run(*LAZY, f"{proxy.url.partition('://')[2]}/{NAME}:external")
        assert len(engine.lazily()) == len(image.layers) == 3
        assert any("external-esgztoc" in request.path for request in proxy.log)
        pulled = fetched()
        assert 0 < pulled < image.size / 20
        with engine.view(image.chain, tmp_path / "view", "stargz") as files:
            assert (files / "etc/new").read_bytes() == NEW
            assert fetched() < pulled + 200_000
            assert tree(files) == expected
        engine.forget()
        assert not engine.lazily()


def test_without_its_tocs_an_image_is_pulled_whole(
    engine: Containerd, registry: registries.Registry, tmp_path: Path
) -> None:
    """As by another name that nobody gave to the TOCs, too."""
    image = look(registry, "external")
    with open_repository(name(registry, "external")) as repository:
        root = repository.root()
    registry.push_manifest(NAME, "alone", root.data, root.media_type)
    engine.run(*LAZY, f"{registry.host}/{NAME}:alone")
    assert not engine.lazily()
    with engine.view(image.chain, tmp_path / "view", "stargz") as files:
        assert (files / "etc/new").read_bytes() == NEW
    engine.forget()
