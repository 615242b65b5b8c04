"""How registries are reached, and what is said where they are not: TLS, http, pages, mirrors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import layouts
import pytest
from blobs import tar_of
from command import fails, ok
from registries import Identity, Registry, identity, lying, registry
from servers import FaultProxy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reaching")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Registry]:
    """A registry that speaks http, with an image app:v1."""
    made = layouts.image(folder / "layout", [tar_of([("etc/file", b"content\n")])])
    with registry(folder / "registry") as one:
        one.push(made.path, "app", "v1")
        yield one


@pytest.fixture(scope="module")
def signer(folder: Path) -> Identity:
    (folder / "key").mkdir()
    return identity(folder / "key")


@pytest.fixture(scope="module")
def tls(served: Registry, signer: Identity, folder: Path) -> Iterator[str]:
    """The host:port of the same registry behind TLS."""
    pem = folder / "both.pem"
    pem.write_bytes(signer.certificate.read_bytes() + signer.key.read_bytes())
    with FaultProxy(f"http://{served.host}", pem) as proxy:
        yield proxy.url.partition("://")[2]


def test_tls_on_loopback(served: Registry, tls: str, signer: Identity) -> None:
    trust = ["--ca-file", signer.certificate]
    for host in (tls, tls.replace("127.0.0.1", "localhost")):
        assert ok("verify", *trust, f"docker://{host}/app:v1").startswith("ok")
        assert ok("image", "ls", *trust, f"docker://{host}/app:v1") == "etc\n"
    # What speaks no TLS is spoken to as ever: the authority may be another registry's.
    assert ok("verify", *trust, f"docker://{served.host}/app:v1").startswith("ok")
    other = fails(1, "verify", "--ca-file", "/dev/null", f"docker://{tls}/app:v1")
    assert "not a PEM file" in other
    # Asked for is asked for.
    fails(1, "verify", *trust, "--plain-http", f"docker://{tls}/app:v1")


def test_https_to_a_server_of_http(served: Registry) -> None:
    said = fails(1, "ls", f"https://{served.host}/blob")
    assert "the server speaks http" in said and "--plain-http" in said
    assert "tries" not in said and "WRONG" not in said


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><p>Hello", b"\n <html>", b"<?xml version='1.0'?>"]
)
def test_a_web_page_is_no_manifest(page: bytes) -> None:
    with lying() as server:
        for path in ("app/manifests/v1", "app/tags/list?n=1000", "_catalog?n=1000"):
            server.answers[f"/v2/{path}"] = 200, {"Content-Type": "text/html"}, page
        name = f"docker://{server.host}/app"
        for words in (["verify"], ["image", "info"]):
            assert "a web page: is this a registry?" in fails(1, *words, f"{name}:v1")
        for src in (name, f"docker://{server.host}"):
            said = fails(1, "image", "bulk", "--dry-run", src, "docker://127.0.0.1:1/all")
            assert "a web page" in said
