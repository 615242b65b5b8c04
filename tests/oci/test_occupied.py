"""What a conversion does not replace at its destination by mistake."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import pytest
import registries
from blobs import tar_of
from command import fails, ok, run
from layouts import Layout
from servers import Fault, FaultProxy, Request

from stargz.errors import OccupiedError, UsageError
from stargz.oci.bulk import bulk
from stargz.oci.conversion import convert_image
from stargz.oci.formats.layout import Layout as Reading


def plain(path: Path, text: str, ref: str = "v1") -> Layout:
    """A layout of an ordinary image."""
    made = Layout(path)
    made.tag(made.manifest([made.plain_layer(tar_of([("file", text.encode())]))]), ref)
    return made


def digest_in(path: Path, ref: str = "v1") -> str:
    return Reading(path).resolve(ref).digest


def test_an_ordinary_image_stays(tmp_path: Path) -> None:
    src = f"oci:{plain(tmp_path / 'src', 'one').path}:v1"
    other = plain(tmp_path / "other", "two").path
    before = digest_in(other)
    said = fails(1, "image", "convert", src, f"oci:{other}:v1", "-q")
    for part in (f"oci:{other}:v1", before, "ordinary image", "--force", "--upgrade"):
        assert part in said
    assert digest_in(other) == before
    assert len(list((other / "blobs/sha256").iterdir())) == 3, "something was converted"
    ok("image", "convert", src, f"oci:{other}:v2", "-q")
    ok("image", "convert", src, f"oci:{other}:v1", "-q", "--force")
    with pytest.raises(OccupiedError):
        convert_image(src, f"oci:{plain(tmp_path / 'third', 'three').path}:v1")


def test_twins_are_replaced(tmp_path: Path) -> None:
    dst = f"oci:{tmp_path}/dst:v1"
    convert_image(f"oci:{plain(tmp_path / 'a', 'one').path}:v1", dst)
    changed = f"oci:{plain(tmp_path / 'b', 'two').path}:v1"
    convert_image(changed, dst)
    convert_image(changed, dst, docker_types=True)
    convert_image(changed, dst)
    # A layer that a TOC cannot hold stays as it is, and so does the image.
    odd = Layout(tmp_path / "odd")
    odd.tag(odd.manifest([]), "v1")
    for _ in range(2):
        convert_image(f"oci:{odd.path}:v1", f"oci:{tmp_path}/odd-twin:v1")


def test_a_copy_of_the_source(tmp_path: Path) -> None:
    """Of which nothing becomes seekable it may be written again, and else not."""
    made = plain(tmp_path / "src", "one")
    entry = json.loads((made.path / "index.json").read_text())["manifests"][0]
    made.tag({key: entry[key] for key in ("mediaType", "digest", "size")}, "copy")
    with pytest.raises(OccupiedError, match="ordinary"):
        convert_image(f"oci:{made.path}:v1", f"oci:{made.path}:copy")


def test_in_a_registry(tmp_path: Path) -> None:
    first = plain(tmp_path / "first", "one")
    index = Layout(tmp_path / "index")
    entries = [
        index.manifest([index.plain_layer(tar_of([("a", name.encode())]))])
        | {"platform": {"os": "linux", "architecture": name}}
        for name in ("amd64", "arm64")
    ]
    index.tag(index.index(entries))
    artifact = Layout(tmp_path / "artifact")
    chart = artifact.blob(b"x", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    artifact.tag(artifact.manifest([chart], artifactType="application/vnd.cncf.helm.chart.v1"))
    with registries.registry(tmp_path / "registry") as served:
        name = f"docker://{served.host}/app"
        served.push(first.path, "app", "plain")
        for layout, kind in ((index, "ordinary image"), (artifact, "artifact")):
            digest = served.push(layout.path, "app", "there")
            with pytest.raises(OccupiedError, match=kind) as caught:
                convert_image(f"{name}:plain", f"{name}:there")
            assert digest in str(caught.value)
        convert_image(f"{name}:plain", f"{name}:there", force=True)
        convert_image(f"{name}:plain", f"{name}:there")
        assert convert_image(f"{name}:plain", upgrade=True).status == "converted"
        served.push(index.path, "app", "many")
        with FaultProxy(f"http://{served.host}") as proxy:
            convert_image(f"docker://{proxy.url[7:]}/app:many", upgrade=True)
            asked = [request.path for request in proxy.log if request.method == "GET"]
            for entry in entries:  # what it replaces has been read already
                assert asked.count(f"/v2/app/manifests/{entry['digest']}") == 1


def test_who_may_only_write_is_not_kept_from_it(tmp_path: Path) -> None:
    def plan(request: Request) -> Fault | None:
        if request.method in ("GET", "HEAD") and "/manifests/" in request.path:
            return Fault(403, body=b"{}")
        return None

    src = f"oci:{plain(tmp_path / 'src', 'one').path}:v1"
    with (
        registries.registry(tmp_path / "registry") as served,
        FaultProxy(f"http://{served.host}") as proxy,
    ):
        served.push(plain(tmp_path / "other", "two").path, "app", "v1")
        proxy.plan = plan
        report = convert_image(src, f"docker://{proxy.url[7:]}/app:v1")
        proxy.plan = []
        answer = served.request("GET", "/v2/app/manifests/v1", Accept=layouts.OCI_MANIFEST)
        assert answer.headers["Docker-Content-Digest"] == report.digest


def test_bulk_asks_for_each_image(tmp_path: Path) -> None:
    for name in ("one", "two"):
        plain(tmp_path / "src" / name, name)
    mirror = plain(tmp_path / "mirror" / "one", "what somebody else put there")
    before = digest_in(mirror.path)
    words = ("image", "bulk", tmp_path / "src", f"oci:{tmp_path}/mirror", "--state")
    dry = run(*words, tmp_path / "s", "--dry-run", "-q")
    assert dry.returncode == 1 and "--force" in dry.stdout + dry.stderr
    done = run(*words, tmp_path / "s", "-q")
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "ordinary image" in said and before in said
    assert digest_in(mirror.path) == before
    ok(*words, tmp_path / "s", "-q", "--force")
    # What it wrote it goes on with, also without its state.
    for state in ("s", "another"):
        again = bulk(f"{tmp_path}/src", f"oci:{tmp_path}/mirror", state=tmp_path / state)
        assert again.ok


def test_upgrade_takes_no_destination(tmp_path: Path) -> None:
    src = f"oci:{plain(tmp_path / 'src', 'one').path}:v1"
    for dst in (f"oci:{tmp_path}/dst:v1", src):
        assert "leave DST out" in fails(2, "image", "convert", "--upgrade", src, dst)
        with pytest.raises(UsageError, match="leave DST out"):
            convert_image(src, dst, upgrade=True)
    assert "leave DST out" in fails(2, "image", "bulk", "--upgrade", tmp_path, "oci:x")
