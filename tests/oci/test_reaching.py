"""How registries are reached, and what is said where they are not: TLS, http, pages, mirrors."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import layouts
import pytest
from blobs import tar_of
from command import fails, ok, run
from registries import USER, Identity, Registry, identity, lying, registry
from servers import Fault, FaultProxy, closed_port

import stargz
from stargz.errors import MissingBlobError, RegistryError
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.credentials import Credentials
from stargz.oci.registry.hosts import Hosts
from stargz.sources.client import Client


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
    # What speaks http alone is spoken to as ever, since the authority may be another registry's;
    # but it is said, once.
    name = f"docker://{served.host}/app:v1"
    done = run("verify", *trust, name)
    assert (done.returncode, done.stdout[:2]) == (0, "ok")
    said = f"stargz: warning: {served.host}: it speaks http alone, and is spoken to so: --ca-file"
    assert done.stderr == f"{said} is of no use for it\n"
    assert not run("verify", "-q", *trust, name).stderr
    assert ok("verify", *trust, "--plain-http", name).startswith("ok")
    other = fails(1, "verify", "--ca-file", "/dev/null", f"docker://{tls}/app:v1")
    assert "not a PEM file" in other
    # Asked for is asked for.
    fails(1, "verify", *trust, "--plain-http", f"docker://{tls}/app:v1")


@pytest.mark.parametrize("kind", ["resets", "closes", "is closed"])
def test_with_an_authority_nothing_is_sent_by_http_to_what_gives_no_answer(
    kind: str, signer: Identity
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard: list[bytes] = []

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    with peer:
                        if kind == "resets":  # with bytes unread
                            peer.setsockopt(
                                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                            )
                            peer.recv(1)
                        else:
                            heard.append(peer.recv(1 << 16))

        port = closed_port() if kind == "is closed" else server.getsockname()[1]
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        found = _url_of(f"127.0.0.1:{port}", signer)
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert found == f"https://127.0.0.1:{port}"
    assert not any(data.startswith(b"GET") for data in heard)


def _url_of(host: str, signer: Identity) -> str:
    """How a registry is reached where an authority is given."""
    with Client(ca_file=signer.certificate) as http:
        accounts = Credentials("user", "password")
        return Hosts(http, accounts, False, {}).own(Reference(host, "app")).url


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


# --- accounts ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed(folder: Path) -> Iterator[Registry]:
    """A registry that asks for an account."""
    with registry(folder / "closed", basic=True) as one:
        yield one


def test_no_account_and_one_that_is_refused(closed: Registry, tmp_path: Path) -> None:
    src, out = f"docker://{closed.host}/app:v1", f"oci:{tmp_path}/out"
    authfile = tmp_path / "auth.json"
    authfile.write_text("{}")
    empty = ("--authfile", authfile)
    read, two = ("info", "--layer", "1", src), ("image", "convert", src, out)
    both = ("image", "diff", src, src)
    for words, options in (
        (read, "--creds"),
        (two, "--src-creds"),
        (both, "--creds-a or --creds-b"),
    ):
        said = fails(1, *words, *empty)
        assert (
            f"no account is known: log in to the registry, or give an account ({options})" in said
        )
    for words, option in ((read, "--creds"), (two, "--src-creds")):
        said = fails(1, *words, *empty, option, f"{USER}:wrong-one")
        assert f"the account from {option} is not accepted" in said
        assert "no account" not in said and "wrong-one" not in said
    said = fails(1, "image", "bulk", "--dry-run", f"docker://{closed.host}", out, *empty)
    assert "it does not list its repositories" in said
    auth = base64.b64encode(f"{USER}:wrong-one".encode()).decode()
    authfile.write_text(json.dumps({"auths": {closed.host: {"auth": auth}}}))
    for words in (read, two, ("image", "bulk", "--dry-run", f"docker://{closed.host}", out)):
        said = fails(1, *words, *empty)
        assert f"the account in {authfile} is not accepted" in said and "wrong" not in said


# --- what a registry has not, or has wrong ------------------------------------------------


def _data(served: Registry, repository: str, number: int = 0) -> Path:
    """Where the registry keeps a layer of an image (or its config: -1)."""
    name = f"docker://{served.host}/{repository}:v1"
    info = json.loads(ok("image", "info", "--json", name))
    digest = info["layers"][number]["digest"] if number >= 0 else _config(served, repository)
    value = digest.removeprefix("sha256:")
    return next(served.storage.rglob(f"{value[:2]}/{value}/data"))


def _config(served: Registry, repository: str) -> str:
    (found,) = served.storage.rglob(f"{repository}/_manifests/tags/v1/current/link")
    value = found.read_text().removeprefix("sha256:")
    manifest = next(served.storage.rglob(f"{value[:2]}/{value}/data"))
    return str(json.loads(manifest.read_text())["config"]["digest"])


@pytest.fixture
def spoilt(served: Registry, tmp_path: Path) -> Iterator[str]:
    """The repository of an image of its own at the registry; what is done to it is its own."""
    name = f"spoilt{len(list(served.storage.rglob('_manifests')))}"
    tar = tar_of([("f", os.urandom(20_000)), ("name", name.encode())])
    served.push(layouts.image(tmp_path / "layout", [tar]).path, name, "v1")
    yield name


@pytest.mark.parametrize("keep", [0, 1, 9000])
def test_a_blob_that_is_cut_short_at_the_registry(served: Registry, spoilt: str, keep: int) -> None:
    path = _data(served, spoilt)
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    src = f"docker://{served.host}/{spoilt}:v1"
    for words in (["verify", "-q"], ["verify", "-q", "--layer", "1"]):
        said = fails(3, *words, src)
        if keep:
            assert f"the manifest says {len(data)} bytes, the registry has {keep}" in said
        assert "changed while" not in said and "tries" not in said
    fails(1, "image", "cat", src, "f")


@pytest.mark.parametrize("number", [0, -1])
def test_a_blob_that_the_registry_lacks(
    served: Registry, spoilt: str, number: int, tmp_path: Path
) -> None:
    _data(served, spoilt, number).unlink()
    src = f"docker://{served.host}/{spoilt}:v1"
    assert "is not there" in fails(3, "verify", "-q", src)
    if number < 0:
        said = fails(1, "image", "convert", src, f"oci:{tmp_path}/twin")
    else:
        said = fails(3, "verify", "-q", "--layer", "1", src)
    assert "the registry has not this blob, which the manifest lists" in said
    assert "address" not in said
    with pytest.raises(MissingBlobError) as caught:
        stargz.convert_image(src, f"oci:{tmp_path}/twin")
    assert isinstance(caught.value, RegistryError) and caught.value.status == 404
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
    # What is not there at all was not read.
    assert "not found" in fails(1, "verify", f"docker://{served.host}/{spoilt}:v2")


# --- mirrors -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--plain-http"]])
def test_http_where_https_is_spoken(signer: Identity, tmp_path: Path, options: list[str]) -> None:
    """Go's server says so in a text without a type."""
    with registry(tmp_path, tls=signer) as one:
        said = fails(1, "verify", *options, f"docker://{one.host}/app:v1")
        assert "speaks https: let --ca-file name" in said
        said = fails(1, "verify", "--ca-file", signer.certificate, f"docker://{one.host}/app:v1")
        assert "not found" in said
        assert "give https:// in the URL" in fails(1, "ls", f"http://{one.host}/layer")


@pytest.mark.parametrize(
    "page",
    [
        b"<h1>400 Bad Request</h1><center>The plain HTTP request was sent to HTTPS port</center>",
        b"<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
    ],
)
def test_http_to_the_https_of_a_proxy(page: bytes) -> None:
    with lying() as server:
        server.answers["/v2/app/manifests/v1"] = (400, {"Content-Type": "text/html"}, page)
        assert "speaks https" in fails(1, "verify", f"docker://{server.host}/app:v1")


@pytest.mark.parametrize("kind", ["tls", "http", "closed"])
def test_a_mirror_that_fails_is_told_of_where_the_registry_fails_too(
    served: Registry, tls: str, kind: str
) -> None:
    mirror, why = {
        "tls": (f"https://{tls}", "no secure connection"),
        "http": (f"https://{served.host}", "speaks http"),
        "closed": (f"http://127.0.0.1:{closed_port()}", "cannot connect: Connection refused"),
    }[kind]
    words = ("verify", "--mirror", f"{served.host}={mirror}", f"docker://{served.host}/app:")
    said = fails(1, *words[:-1], f"{words[-1]}none")
    before, told, after = said.partition(f"; its mirror {mirror} failed: ")
    assert "not found" in before and told and why in after
    # Nothing is said where the registry itself has it.
    assert ok(*words[:-1], f"{words[-1]}v1").startswith("ok")


def test_a_mirror_that_fails_for_a_blob(served: Registry, spoilt: str) -> None:
    src = f"docker://{served.host}/{spoilt}:v1"
    path = _data(served, spoilt)
    path.unlink()
    with FaultProxy(f"http://{served.host}") as mirror:
        mirror.reset(lambda request: Fault(status=403) if "/blobs/" in request.path else None)
        said = fails(1, "image", "cat", "--mirror", f"{served.host}={mirror.url}", src, "f")
        assert "has not this blob" in said and f"its mirror {mirror.url} failed: " in said
        assert "403" in said
