"""What is converted, pulled by containerd: lazily through the reference's snapshotter, verified;
and whole by its own snapshotters, as any image."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layouts
import pytest
import registries
import sample_images
from absence import absent
from blobs import noise, tar_of
from conftest import INTEROP
from containers import Containerd, containerd, needs_overlay, tree
from mounts import needs_fuse
from sample_images import NAME, NEW, PLATFORMS, look, name
from servers import FaultProxy

from stargz.oci.conversion import convert_image

LAZY = ("ctr-remote", "images", "rpull", "--plain-http")
WHOLE = ("ctr", "images", "pull", "--plain-http")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with sample_images.served(tmp_path_factory.mktemp("app")) as served:
        yield served


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    needs_fuse()
    needs_overlay(tmp_path_factory.mktemp("overlay"))
    registries.program("containerd")
    registries.program("ctr-remote")
    snapshotter = tmp_path_factory.mktemp("snapshotter") / "snapshotter"
    built = subprocess.run(
        [INTEROP / "snapshotter/build", snapshotter], capture_output=True, text=True
    )
    if built.returncode:
        absent(f"the reference's snapshotter cannot be built: {built.stderr.strip()}")
    with containerd(tmp_path_factory.mktemp("c"), snapshotter) as running:
        yield running


@pytest.fixture
def proxy(engine: Containerd, registry: registries.Registry) -> Iterator[FaultProxy]:
    """In front of the registry: counts what is fetched. Nothing of it is left in the engine."""
    with FaultProxy(f"http://{registry.host}") as running:
        yield running
        engine.forget()
        assert not engine.lazily()


@pytest.fixture(scope="module")
def expected(
    engine: Containerd, registry: registries.Registry, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """The files of the image before it was converted, by platform."""
    found = {}
    plain = f"{registry.host}/{NAME}:plain"
    for number, platform in enumerate(PLATFORMS):
        directory = tmp_path_factory.mktemp("expected") / f"expected{number}"
        engine.run(*WHOLE, "--snapshotter", "overlayfs", "--platform", platform, plain)
        chain = look(registry, "plain", platform).chain
        with engine.view(chain, directory, "overlayfs") as files:
            found[platform] = tree(files)
    engine.forget()
    one = found[PLATFORMS[0]]
    assert one["etc/new"] and "etc/hidden" not in one and "gone" not in one
    assert one["one file"] == [["bin/hard2", "bin/large"]]
    return found


def reference(proxy: FaultProxy, tag: str) -> str:
    return f"{proxy.url.partition('://')[2]}/{NAME}:{tag}"


def fetched(proxy: FaultProxy) -> int:
    """Bytes of blobs."""
    return sum(request.sent for request in proxy.log if "/blobs/" in request.path)


def test_pulled_lazily(
    engine: Containerd,
    registry: registries.Registry,
    proxy: FaultProxy,
    expected: dict[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    image = look(registry, "seekable")
    engine.run(*LAZY, reference(proxy, "seekable"))
    assert len(engine.lazily()) == len(image.layers) == 3
    pulled = fetched(proxy)
    assert 0 < pulled < image.size / 20
    with engine.view(image.chain, tmp_path / "view", "stargz") as files:
        assert (files / "etc/new").read_bytes() == NEW
        assert fetched(proxy) < pulled + 200_000
        assert tree(files) == expected[PLATFORMS[0]]
    assert fetched(proxy) > image.size / 2


def test_a_container_starts_before_its_image_is_there(
    engine: Containerd, registry: registries.Registry, proxy: FaultProxy
) -> None:
    def run(tag: str, pull: tuple[str, ...], snapshotter: str) -> subprocess.CompletedProcess[str]:
        image = reference(proxy, tag)
        engine.run(*pull, "--snapshotter", snapshotter, image)
        options = ("--rm", "--snapshotter", snapshotter)
        return engine.try_run("ctr", "run", *options, image, tag, "/show", "/etc/new")

    registries.program("runc")
    done = run("plain", WHOLE, "overlayfs")
    if done.returncode:
        pytest.skip(f"runc cannot run a container on this machine: {done.stderr.strip()}")
    assert done.stdout == NEW.decode()
    proxy.reset()
    done = run("seekable", LAZY, "stargz")
    assert (done.returncode, done.stdout, done.stderr) == (0, NEW.decode(), "")
    assert fetched(proxy) < look(registry, "seekable").size / 2


@pytest.mark.parametrize("wrong", [True, False], ids=["another TOC digest", "no TOC digest"])
def test_what_cannot_be_verified_is_not_pulled_lazily(
    wrong: bool,
    engine: Containerd,
    registry: registries.Registry,
    proxy: FaultProxy,
    tmp_path: Path,
) -> None:
    """The layer is fetched whole instead, and checked by its digest."""
    layout = layouts.Layout(tmp_path / "layout")
    data = noise("unverified", 1 << 20)
    good = layout.layer(tar_of([("lower", b"lower")]))
    layer = layout.layer(tar_of([("data", data)]), annotated=False)
    if wrong:
        layer["annotations"] = {layouts.TOC_DIGEST: good["annotations"][layouts.TOC_DIGEST]}
    layout.tag(layout.manifest([good, layer]))
    tag = "wrong" if wrong else "absent"
    registry.push(layout.path, NAME, tag)
    before = len(engine.log)
    engine.run(*LAZY, reference(proxy, tag))
    assert len(engine.lazily()) == 1
    assert fetched(proxy) > len(data)
    assert ("invalid TOC JSON" if wrong else "digest of TOC JSON must be passed") in engine.log[
        before:
    ]
    with engine.view(look(registry, tag).chain, tmp_path / "view", "stargz") as files:
        assert (files / "data").read_bytes() == data


@pytest.mark.parametrize("platform", PLATFORMS)
def test_pulled_whole(
    platform: str,
    engine: Containerd,
    registry: registries.Registry,
    proxy: FaultProxy,
    expected: dict[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    """containerd checks every digest and DiffID."""
    engine.run(
        *WHOLE, "--snapshotter", "overlayfs", "--platform", platform, reference(proxy, "seekable")
    )
    chain = look(registry, "seekable", platform).chain
    with engine.view(chain, tmp_path / "view", "overlayfs") as files:
        assert tree(files) == expected[platform]


def test_flattened_image_is_pulled_lazily(
    engine: Containerd,
    registry: registries.Registry,
    proxy: FaultProxy,
    expected: dict[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    convert_image(name(registry, "plain"), name(registry, "flat"), flatten=True)
    image = look(registry, "flat")
    engine.run(*LAZY, reference(proxy, "flat"))
    assert len(engine.lazily()) == len(image.layers) == 1
    with engine.view(image.chain, tmp_path / "view", "stargz") as files:
        assert tree(files) == expected[PLATFORMS[0]]


def test_docker_types_are_pulled_whole(
    engine: Containerd,
    registry: registries.Registry,
    proxy: FaultProxy,
    expected: dict[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    convert_image(name(registry, "plain"), name(registry, "docker"), docker_types=True)
    image = look(registry, "docker")
    assert {layer["mediaType"] for layer in image.layers} == {sample_images.DOCKER_LAYER}
    engine.run(*WHOLE, "--snapshotter", "overlayfs", reference(proxy, "docker"))
    with engine.view(image.chain, tmp_path / "view", "overlayfs") as files:
        assert tree(files) == expected[PLATFORMS[0]]


def test_what_the_reference_converted_is_kept(
    engine: Containerd, registry: registries.Registry, proxy: FaultProxy
) -> None:
    src, dst = reference(proxy, "plain"), reference(proxy, "theirs")
    engine.run("ctr", "content", "fetch", "--plain-http", src)
    engine.run("ctr-remote", "images", "convert", "--oci", "--estargz", src, dst)
    engine.run("ctr-remote", "images", "push", "--plain-http", dst)
    report = convert_image(name(registry, "theirs"), name(registry, "kept"))
    assert report.status == "unchanged"
    assert [layer.status for layer in report.layers] == ["kept"] * 3
    assert look(registry, "kept").layers == look(registry, "theirs").layers


def test_all_platforms_are_complete(engine: Containerd, proxy: FaultProxy) -> None:
    image = reference(proxy, "seekable")
    engine.run("ctr", "content", "fetch", "--plain-http", "--all-platforms", image)
    listed = engine.run("ctr", "images", "check", "--quiet", f"name=={image}").split()
    assert listed == [image]
    line = engine.run("ctr", "images", "ls", f"name=={image}").splitlines()[1]
    assert ",".join(PLATFORMS) in line
