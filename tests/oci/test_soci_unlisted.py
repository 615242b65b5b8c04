"""Registries that do not tell which SOCI indexes of version 1 there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
from blobs import noise, tar_of
from command import run
from layouts import OCI_INDEX, Layout
from servers import Fault, FaultProxy, Plan, Request
from soci_images import ReferrersAPI, index, one_layer, packed

import stargz
from stargz.errors import FormatError, RegistryError
from stargz.oci.registry.client import RegistryClient
from stargz.oci.repository import open_repository
from stargz.sources.client import Client

LARGE = tar_of([("etc/", None), ("etc/large", noise("unlisted", 300_000).hex().encode()),
                ("etc/small", b"small\n")])  # fmt: skip
UNTOLD = "whether there are SOCI indexes could not be found out: "
# What the list of referrers may be answered; whether that says that there is no such API.
FAULTS = {
    "404": Fault(status=404),
    "405": Fault(status=405),
    "401": Fault(status=401),
    "403": Fault(status=403),
    "429": Fault(status=429),
    "429, and when": Fault(status=429, headers={"Retry-After": "600"}),
    "500": Fault(status=500),
    "cut": Fault(refuse=True),
    "malformed": Fault(status=200, headers={"Content-Type": OCI_INDEX}, body=b"{"),
    "page": Fault(status=200, headers={"Content-Type": "text/html"}, body=b"<html>"),
}
WITHOUT = ("404", "405")
KINDS = list(FAULTS)


class Registry:
    """A registry with the API for referrers: "app" and "other" have an index of version 1."""

    def __init__(self, served: registries.Registry, proxy: FaultProxy, layout: Layout) -> None:
        self.api = ReferrersAPI(served)
        self.proxy = proxy
        self.host = f"127.0.0.1:{proxy.port}"
        self.image = ""
        for name in ("app", "other"):
            self.image = served.push(layout.path, name, "v1")
        self.api.subject = self.image
        proxy.plan = self.api
        for name in ("app", "other"):
            self.indexed = index(f"docker://{self.host}/{name}:v1", soci_version=1)
        self.layer = self.indexed.layers[0].source_digest

    def plan(self, fault: Fault, of: str = "/app/referrers/") -> None:
        """Answer so what has `of` in its path."""

        def plan(request: Request) -> Fault | None:
            return fault if of in request.path else self.api(request)

        plans: Plan = plan
        self.proxy.reset(plans)

    def fetched(self) -> int:
        """Bytes of the layer that were sent."""
        return sum(one.sent for one in self.proxy.log if one.path.endswith(self.layer))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("unlisted")
    layout = one_layer(folder / "src", packed(LARGE))
    with (
        registries.registry(folder / "served") as served,
        FaultProxy(f"http://{served.host}") as proxy,
    ):
        yield Registry(served, proxy, layout)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Client.__init__.__kwdefaults__, "backoff", 0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_as_without(
    registry: Registry, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry.plan(FAULTS[kind])
    src = f"docker://{registry.host}/app:v1"
    options: dict[str, Any] = {"platform": "linux/amd64", "cache": False, "patience": 2}
    with stargz.open_image(src, index="build", **options) as image:
        assert image.tree.read("etc/small") == b"small\n"
        assert image.ways == {0: "pass"}
    told = [line for line in caplog.messages if UNTOLD in line]
    assert len(told) == (kind not in WITHOUT)
    assert all(f"/app/referrers/{registry.image}: " in line for line in told)


@pytest.mark.parametrize("kind", KINDS)
def test_verify_does_not_say_that_there_is_none(
    registry: Registry, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry.plan(FAULTS[kind])
    report = stargz.verify_image(f"docker://{registry.host}/app:v1", patience=2)
    assert report.ok
    assert len([line for line in caplog.messages if UNTOLD in line]) == (kind not in WITHOUT)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_made_of_what_may_have_it(registry: Registry, kind: str, tmp_path: Path) -> None:
    registry.plan(FAULTS[kind])
    src = f"docker://{registry.host}/app:v1"
    listed = tmp_path / "list"
    listed.write_text(f"{src}\ndocker://{registry.host}/other:v1\n")
    if kind in WITHOUT:
        assert index(src, soci_version=1).status == "indexed" and registry.fetched()
        return
    with pytest.raises((RegistryError, FormatError), match=f"/app/referrers/{registry.image}: "):
        index(src, soci_version=1, patience=0.05)
    report = stargz.bulk(str(listed), index=True, soci_version=1, min_layer_size=0, jobs=1,
                         patience=0.05)  # fmt: skip
    if "429" not in kind:  # which is for the whole host
        assert "/app/referrers/" in str(report.failures[0].error)
        assert report.totals["unchanged"] == 1, "the other repository's is told"
    assert not registry.fetched()


def test_one_repository_says_nothing_of_another(registry: Registry) -> None:
    registry.plan(FAULTS["404"])
    with RegistryClient() as client:
        for name, there in (("app", False), ("other", True), ("app", False), ("other", True)):
            image = f"docker://{registry.host}/{name}:v1"
            with open_repository(image, client=client) as found:
                assert bool(found.referrers(registry.image)) == there
    asked = [one.path for one in registry.proxy.log if "/referrers/" in one.path]
    assert len(asked) == 3, "where there is no API, it is asked for again"


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("status", [401, 403, 500])
def test_the_tag_that_failed_is_named(registry: Registry, method: str, status: int) -> None:
    tag = registry.image.replace(":", "-")

    def plan(request: Request) -> Fault | None:
        if request.method == method and request.path.endswith(tag):
            return Fault(status=status)
        return Fault(status=404) if "/referrers/" in request.path else None

    registry.proxy.reset(plan)
    with pytest.raises(RegistryError, match=f"/app:{tag}: "):
        index(f"docker://{registry.host}/app:v1", soci_version=1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WITHOUT])
def test_an_index_that_was_written_is_not_failed(
    registry: Registry, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it cannot be found out afterwards whether there is another."""
    written = []

    def plan(request: Request) -> Fault | None:
        if request.method == "PUT" and "/manifests/" in request.path:
            written.append(request.path)
        if written and "/referrers/" in request.path:
            return FAULTS[kind]
        return registry.api(request)

    registry.proxy.reset(plan)
    made = index(
        f"docker://{registry.host}/app:v1",
        soci_version=1,
        span_size=(64 << 10) * (1 + KINDS.index(kind)),
    )
    assert made.status == "indexed" and written
    (line,) = caplog.messages
    assert "written, but" in line and "/app/referrers/" in line


def test_an_index_that_cannot_be_had_now_is_not_made_again(registry: Registry) -> None:
    registry.proxy.reset(registry.api)
    (digest,) = index(f"docker://{registry.host}/other:v1", soci_version=1).indexes.values()
    registry.plan(FAULTS["500"], digest)
    with pytest.raises(RegistryError, match=digest):
        index(f"docker://{registry.host}/other:v1", soci_version=1)
    assert not registry.fetched()


def test_the_commands(registry: Registry) -> None:
    registry.plan(FAULTS["429"])
    src = f"docker://{registry.host}/app:v1"
    cat = run("image", "cat", "--no-cache", "--patience", "1s", src, "etc/small")
    assert (cat.returncode, cat.stdout) == (0, "small\n")
    assert UNTOLD in cat.stderr
    for command in (["image", "info"], ["verify"]):
        done = run(*command, src)
        assert done.returncode == 0 and done.stderr.count(UNTOLD) == 1
