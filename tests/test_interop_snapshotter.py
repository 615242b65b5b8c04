"""Images with external TOCs, and in zstd:chunked, pulled by containerd: lazily through a
snapshotter that knows them, or whole."""

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
from containers import Containerd, containerd, needs_overlay, tree
from mounts import needs_fuse
from sample_images import NAME, NEW, look, name
from servers import FaultProxy

from stargz.oci.conversion import convert_image
from stargz.oci.repository import open_repository

LAZY = ("ctr-remote", "images", "rpull", "--plain-http")
TAGS = {"external-toc": "external", "zstd:chunked-stargz": "stargz", "zstd:chunked": "podman"}
WHOLE = ("ctr", "images", "pull", "--plain-http", "--snapshotter", "overlayfs")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    """NAME:plain, and what was made of it by the names of formats."""
    with sample_images.served(tmp_path_factory.mktemp("app")) as served:
        for format, tag in TAGS.items():
            convert_image(name(served, "plain"), name(served, tag), format=format)
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


@pytest.fixture(scope="module")
def expected(
    engine: Containerd, registry: registries.Registry, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The files of the image, unpacked by containerd itself."""
    engine.run(*WHOLE, f"{registry.host}/{NAME}:plain")
    chain = look(registry, "plain").chain
    with engine.view(chain, tmp_path_factory.mktemp("expected") / "view", "overlayfs") as files:
        found = tree(files)
    engine.forget()
    return found


@pytest.mark.parametrize("format", ["external-toc", "zstd:chunked-stargz"])
def test_pulled_lazily(
    format: str,
    engine: Containerd,
    registry: registries.Registry,
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    image = look(registry, TAGS[format])
    kept = image.chain == look(registry, "plain").chain
    assert kept == (format == "external-toc")  # the DiffIDs
    with FaultProxy(f"http://{registry.host}") as proxy:

        def fetched() -> int:
            return sum(request.sent for request in proxy.log if "/blobs/" in request.path)

        engine.run(*LAZY, f"{proxy.url.partition('://')[2]}/{NAME}:{TAGS[format]}")
        assert len(engine.lazily()) == len(image.layers) == 3
        assert any("external-esgztoc" in request.path for request in proxy.log) == kept
        pulled = fetched()
        assert 0 < pulled < image.size / 20
        with engine.view(image.chain, tmp_path / "view", "stargz") as files:
            assert (files / "etc/new").read_bytes() == NEW
            assert fetched() < pulled + 200_000
            assert tree(files) == expected
        engine.forget()
        assert not engine.lazily()


@pytest.mark.parametrize("format", TAGS)
def test_pulled_whole(
    format: str,
    engine: Containerd,
    registry: registries.Registry,
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    """As every image: containerd checks the digests and the DiffIDs."""
    engine.run(*WHOLE, f"{registry.host}/{NAME}:{TAGS[format]}")
    with engine.view(look(registry, TAGS[format]).chain, tmp_path / "view", "overlayfs") as files:
        assert tree(files) == expected
    engine.forget()


def test_what_is_for_podman_is_pulled_whole(
    engine: Containerd, registry: registries.Registry, expected: dict[str, Any], tmp_path: Path
) -> None:
    """Through the snapshotter too, which could read it, were there the annotation that it wants."""
    engine.run(*LAZY, f"{registry.host}/{NAME}:podman")
    assert not engine.lazily()
    with engine.view(look(registry, "podman").chain, tmp_path / "view", "stargz") as files:
        assert tree(files) == expected
    engine.forget()


def test_of_two_instances_the_first_is_taken(
    engine: Containerd, registry: registries.Registry, expected: dict[str, Any], tmp_path: Path
) -> None:
    """That in gzip, which is lazy here."""
    convert_image(name(registry, "plain"), name(registry, "both"), both=True)
    engine.run(*LAZY, f"{registry.host}/{NAME}:both")
    image = look(registry, "seekable")
    assert len(engine.lazily()) == len(image.layers)
    with engine.view(image.chain, tmp_path / "view", "stargz") as files:
        assert tree(files) == expected
    engine.forget()


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
