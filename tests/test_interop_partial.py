"""Images in "zstd:chunked", pulled in parts by podman 5 or newer where there is one, and by the
packages that are its own code: files that the store has already are not fetched, and DiffIDs are
verified."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import layouts
import pytest
import registries
import sample_images
from blobs import noise, sha256, tar_of
from containers import as_pulled, needs_overlay, podman
from mounts import clean_up
from sample_images import NAME, look, name
from servers import FaultProxy

import stargz
from stargz.oci.conversion import convert_image

# Pull an image, and mount it: its ID and its files.
Pull = Callable[[str], Any]
ZSTD = layouts.OCI_LAYER.replace("gzip", "zstd")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with sample_images.served(tmp_path_factory.mktemp("app")) as served:
        convert_image(name(served, "plain"), name(served, "chunked"), format="zstd:chunked")
        convert_image(name(served, "plain"), name(served, "both"), both=True)
        yield served


@pytest.fixture
def proxy(registry: registries.Registry) -> Iterator[FaultProxy]:
    """In front of the registry: counts what is fetched."""
    with FaultProxy(f"http://{registry.host}") as running:
        yield running


@pytest.fixture(params=["podman", "packages"])
def pull(
    request: pytest.FixtureRequest, chunked: Callable[..., Any], tmp_path: Path
) -> Iterator[Pull]:
    needs_overlay(tmp_path)
    store = tmp_path / "store"

    @contextmanager
    def by_packages(image: str) -> Iterator[tuple[str, Path]]:
        found = chunked("copy", store, f"//{image}")
        files = Path(found["files"])
        try:
            yield found["id"], files
        finally:
            clean_up(files)

    if request.param == "packages":
        yield by_packages
        clean_up(store / "graph/overlay")  # which the packages mount upon itself
        return
    version = subprocess.run(
        [registries.program("podman"), "--version"], capture_output=True, text=True
    ).stdout
    if int(re.findall(r"\d+", version)[0]) < 5:
        pytest.skip(f"{version.strip()} pulls no layers in parts: podman 5 or newer is needed")
    with podman(store, "overlay", partial=True) as engine:

        @contextmanager
        def by_podman(image: str) -> Iterator[tuple[str, Path]]:
            try:
                made = engine.run("pull", "--quiet", "--tls-verify=false", image)
            except AssertionError as exc:
                raise RuntimeError(str(exc)) from None
            with engine.mount(made) as files:
                yield made, files

        yield by_podman


def at(proxy: FaultProxy, tag: str) -> str:
    return f"{proxy.url.partition('://')[2]}/{NAME}:{tag}"


@dataclass
class Fetched:
    """Of an image's layers: requests for parts of them and for whole ones, and bytes."""

    parts: int
    whole: int
    bytes: int


def fetched(proxy: FaultProxy, registry: registries.Registry, tag: str) -> Fetched:
    """All since the last time."""
    layers = {layer["digest"] for layer in look(registry, tag).layers}
    log = [one for one in proxy.log if one.path.rpartition("/")[2] in layers]
    proxy.reset()
    parts = sum(bool(one.range) for one in log)
    return Fetched(parts, len(log) - parts, sum(one.sent for one in log))


def test_pulled_in_parts(pull: Pull, registry: registries.Registry, proxy: FaultProxy) -> None:
    with pull(at(proxy, "plain")) as (before, files):
        expected = as_pulled(files)
    assert "etc/new" in expected and "etc/hidden" not in expected
    assert fetched(proxy, registry, "plain").parts == 0
    with pull(at(proxy, "chunked")) as (after, files):
        assert as_pulled(files) == expected
    # The ID is the config's digest: of a layer whose DiffID is not known it would be another.
    assert after == before


def test_pulled_into_an_empty_store(
    pull: Pull, registry: registries.Registry, proxy: FaultProxy
) -> None:
    with pull(at(proxy, "chunked")) as (_, files):
        assert (files / "etc/new").read_bytes() == sample_images.NEW
        assert (files / "bin/large").read_bytes() == sample_images.LARGE
    found = fetched(proxy, registry, "chunked")
    assert found.whole == 0
    assert found.parts == 6  # of each layer what describes it, and its files


def test_of_two_instances_the_one_in_parts_is_taken(
    pull: Pull, registry: registries.Registry, proxy: FaultProxy
) -> None:
    with pull(at(proxy, "both")):
        pass
    assert fetched(proxy, registry, "chunked").parts >= 3


def test_what_is_there_is_not_fetched_again(
    pull: Pull, registry: registries.Registry, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Files under other names. (Where the store's file system has reflinks, chunks of files that
    differ elsewhere are not fetched again, either.)"""
    shared, long, own = noise("shared", 1 << 20), noise("long", 3 << 20), noise("own", 10_000)
    layout = layouts.Layout(tmp_path / "layout")
    for tag, tar in (
        ("first", tar_of([("a", shared), ("long", long)])),
        ("second", tar_of([("own", own), ("b", shared), ("c", long)])),
    ):
        layout.tag(layout.manifest([layout.plain_layer(tar)]), tag)
        convert_image(f"oci:{layout.path}:{tag}", name(registry, tag), format="zstd:chunked")
    with pull(at(proxy, "first")):
        pass
    assert fetched(proxy, registry, "first").bytes > len(shared) + len(long)
    with pull(at(proxy, "second")) as (made, files):
        found = {name: (files / name).read_bytes() for name in ("own", "b", "c")}
        assert found == {"own": own, "b": shared, "c": long}
    second = fetched(proxy, registry, "second")
    assert second.whole == 0
    assert len(own) < second.bytes < 20_000
    assert f"sha256:{made}" == look(registry, "second").id


@pytest.mark.parametrize("right", [True, False])
def test_diff_ids_are_verified(
    pull: Pull, registry: registries.Registry, proxy: FaultProxy, tmp_path: Path, right: bool
) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    out = io.BytesIO()
    result = stargz.convert(tar_of([("a", b"a" * 5000)]), out, format="zstd:chunked")
    layer = layout.blob(out.getvalue(), ZSTD, annotations=result.annotations)
    said = result.diff_id if right else sha256(b"another tar")
    rootfs = {"type": "layers", "diff_ids": [said]}
    layout.tag(layout.manifest([layer], config={"rootfs": rootfs}))
    tag = "right" if right else "wrong"
    registry.push(layout.path, NAME, tag)
    refused = pytest.raises(RuntimeError, match="config claims")
    with contextlib.nullcontext() if right else refused, pull(at(proxy, tag)) as (_, files):
        assert (files / "a").read_bytes() == b"a" * 5000
