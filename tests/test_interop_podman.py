"""What is converted, pulled whole by podman, skopeo and umoci: any image to them, and the same
files as before."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
import sample_images
from containers import ADDED, Podman, needs_overlay, podman, tree
from sample_images import NAME, PLATFORMS, look, name

from stargz.oci.conversion import convert_image

Tool = Callable[[str], str]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with sample_images.served(tmp_path_factory.mktemp("app")) as served:
        yield served


# --- podman -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["overlay", "vfs"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Podman]:
    if request.param == "overlay":
        needs_overlay(tmp_path_factory.mktemp("overlay"))
    with podman(tmp_path_factory.mktemp("podman"), request.param) as running:
        yield running


def pull(engine: Podman, registry: registries.Registry, tag: str, platform: str) -> str:
    """Pull an image; its ID."""
    name = f"{registry.host}/{NAME}:{tag}"
    return engine.run("pull", "--quiet", "--tls-verify=false", "--platform", platform, name)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_podman_has_the_same_files(
    platform: str, engine: Podman, registry: registries.Registry
) -> None:
    before = pull(engine, registry, "plain", platform)
    with engine.mount(before) as files:
        expected = tree(files)
    assert "etc/new" in expected
    assert "etc/hidden" not in expected
    after = pull(engine, registry, "seekable", platform)
    assert after != before
    with engine.mount(after) as files:
        assert tree(files) == expected
    described = json.loads(engine.run("image", "inspect", after))[0]
    image = look(registry, "seekable", platform)
    assert described["RootFS"]["Layers"] == image.config["rootfs"]["diff_ids"]
    assert described["Architecture"] == platform.partition("/")[2]
    assert f"{registry.host}/{NAME}@{image.digest}" in described["RepoDigests"]


@pytest.mark.parametrize("engine", ["overlay"], indirect=True)
@pytest.mark.parametrize("format", ["external-toc", "zstd:chunked", "zstd:chunked-stargz"])
def test_podman_pulls_every_format(
    format: str, engine: Podman, registry: registries.Registry
) -> None:
    """Whole, where it is older than 5; tests/test_interop_partial.py has newer ones."""
    tag = format.replace(":", "-")
    convert_image(name(registry, "plain"), name(registry, tag), format=format, force=True)
    engine.run("rmi", "--all", "--force")  # or it would take layers that it knows by their DiffIDs
    made = pull(engine, registry, tag, PLATFORMS[0])
    with engine.mount(made) as files:
        found = tree(files)
    engine.run("rmi", "--all", "--force")
    plain = pull(engine, registry, "plain", PLATFORMS[0])
    # Where the tar is kept, so is the config, whose digest is the ID.
    assert (made == plain) == (format != "zstd:chunked-stargz")
    with engine.mount(plain) as files:
        assert tree(files) == found


def test_podman_exports_the_same_files(
    engine: Podman, registry: registries.Registry, tmp_path: Path
) -> None:
    found = []
    for tag in ("plain", "seekable"):
        image = pull(engine, registry, tag, PLATFORMS[0])
        container = engine.run("create", "--network", "none", image, "/show", "/etc/new")
        out = tmp_path / tag
        engine.run("export", "--output", out, container)
        engine.run("rm", container)
        with tarfile.open(out) as archive:
            found.append(
                {
                    info.name: (info.type, info.mode, info.uid, info.gid, info.mtime, info.size)
                    for info in archive
                    if info.name not in ADDED
                }
            )
    assert found[0] == found[1]
    assert "usr/empty-directory" in found[0] or "usr/empty-directory/" in found[0]


@pytest.mark.parametrize("engine", ["overlay"], indirect=True)
def test_podman_pulls_one_of_both(
    tool: Tool, engine: Podman, registry: registries.Registry, tmp_path: Path
) -> None:
    both = convert_image(name(registry, "plain"), name(registry, "both"), both=True)
    plain = pull(engine, registry, "plain", PLATFORMS[0])
    # The first for its platform; podman from 5.0 on prefers zstd.
    either = (plain, pull(engine, registry, "seekable", PLATFORMS[0]))
    assert pull(engine, registry, "both", PLATFORMS[0]) in either
    layout = tmp_path / "layout"
    command = [tool("skopeo"), "--insecure-policy", "copy", "--all", "--src-tls-verify=false"]
    command += [f"docker://{registry.host}/{NAME}:both", f"oci:{layout}:both"]
    subprocess.run(command, check=True, capture_output=True)
    index = json.loads((layout / "index.json").read_text())
    assert index["manifests"][0]["digest"] == both.digest


# --- skopeo, umoci ----------------------------------------------------------------------


def fetch(tool: Tool, registry: registries.Registry, tag: str, dst: str, platform: str) -> None:
    """Copy an image of the registry with skopeo, which checks every digest."""
    architecture = platform.partition("/")[2]
    command = [tool("skopeo"), "--insecure-policy", "--override-arch", architecture, "copy"]
    command += ["--src-tls-verify=false", f"docker://{registry.host}/{NAME}:{tag}", dst]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def unpack(tool: Tool, layout: Path, tag: str, bundle: Path) -> dict[str, Any]:
    """What umoci, which checks DiffIDs, makes of an image."""
    command = [tool("umoci"), "unpack", "--image", f"{layout}:{tag}", bundle]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tree(bundle / "rootfs")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_umoci_unpacks_the_same_files(
    platform: str, tool: Tool, registry: registries.Registry, tmp_path: Path
) -> None:
    found = []
    for tag in ("plain", "seekable"):
        layout = tmp_path / tag
        fetch(tool, registry, tag, f"oci:{layout}:{tag}", platform)
        found.append(unpack(tool, layout, tag, tmp_path / f"{tag}-bundle"))
    assert found[0] == found[1]
    assert found[0]["platform"][3][0] == len(platform)


def test_skopeo_copies_all_platforms(
    tool: Tool, registry: registries.Registry, tmp_path: Path
) -> None:
    """Unchanged: the digest of the index is that of the registry."""
    layout = tmp_path / "layout"
    command = [tool("skopeo"), "--insecure-policy", "copy", "--all", "--src-tls-verify=false"]
    command += [f"docker://{registry.host}/{NAME}:seekable", f"oci:{layout}:seekable"]
    subprocess.run(command, check=True, capture_output=True)
    index = json.loads((layout / "index.json").read_text())
    assert index["manifests"][0]["digest"] == look(registry, "seekable").digest


def test_archives_are_converted(tool: Tool, registry: registries.Registry, tmp_path: Path) -> None:
    """From what `docker load` reads, to a layout."""
    archive, layout = tmp_path / "archive.tar", tmp_path / "layout"
    fetch(tool, registry, "plain", f"docker-archive:{archive}:app:plain", PLATFORMS[0])
    report = convert_image(f"docker-archive:{archive}", f"oci:{layout}:made")
    assert [layer.status for layer in report.layers] == ["converted"] * 3
    fetch(tool, registry, "plain", f"oci:{tmp_path / 'plain'}:plain", PLATFORMS[0])
    made = unpack(tool, layout, "made", tmp_path / "made-bundle")
    assert made == unpack(tool, tmp_path / "plain", "plain", tmp_path / "plain-bundle")


def test_archives_are_made(tool: Tool, registry: registries.Registry, tmp_path: Path) -> None:
    """What `docker load` reads, with the layers unpacked; and back."""
    layout, archive = tmp_path / "layout", tmp_path / "archive.tar"
    fetch(tool, registry, "seekable", f"docker-archive:{archive}:app:seekable", PLATFORMS[0])
    command = [tool("skopeo"), "--insecure-policy", "copy", f"docker-archive:{archive}"]
    subprocess.run([*command, f"oci:{layout}:again"], check=True, capture_output=True)
    fetch(tool, registry, "plain", f"oci:{layout}:plain", PLATFORMS[0])
    again = unpack(tool, layout, "again", tmp_path / "again")
    assert again == unpack(tool, layout, "plain", tmp_path / "plain")
