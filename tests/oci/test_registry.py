"""The registry client: against real registries, open and with accounts, behind redirects,
and against ones that lie."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
import registries
from registries import (
    PASSWORD,
    USER,
    Identity,
    Lying,
    Registry,
    TokenServer,
    lying,
    no_secret_in,
    quick,
)
from servers import Fault, FaultProxy, SignedURLs, closed_port, flip

from stargz.errors import (
    DigestError,
    RegistryError,
    SourceError,
    StargzError,
    UsageError,
)
from stargz.oci.formats.manifest import Descriptor
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.blob import RegistryBlob
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.credentials import Credentials
from stargz.sources.client import Client

NAME = "some/image"
BLOB = blobs.noise("blob", 3 << 20)
ACCOUNT = Credentials(USER, PASSWORD)


class Served:
    """A registry that has an image, and a client's view of it."""

    def __init__(self, registry: Registry, digest: str, ca_file: str) -> None:
        self.registry = registry
        self.digest = digest
        self.ca_file = ca_file
        self.reference = Reference(registry.host, NAME, "v1")

    @contextmanager
    def client(
        self, account: Credentials | None = ACCOUNT, **options: Any
    ) -> Iterator[RegistryClient]:
        with Client(ca_file=self.ca_file, backoff=0.01, tries=3, host_patience=0) as http:
            yield RegistryClient(http=http, credentials=account, **options)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return registries.identity(tmp_path_factory.mktemp("identity"))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> layouts.Layout:
    made = layouts.Layout(tmp_path_factory.mktemp("layout") / "layout")
    layers = [made.layer(blobs.varied_tar()), made.blob(BLOB, layouts.OCI_LAYER)]
    made.tag(made.manifest(layers))
    return made


@pytest.fixture(scope="module")
def tokens(signer: Identity) -> Iterator[TokenServer]:
    with registries.token_server(signer) as server:
        yield server


@pytest.fixture(autouse=True)
def forget(request: pytest.FixtureRequest) -> None:
    """Every test begins with a token server that behaves."""
    if "token" in request.fixturenames or "tokens" in request.fixturenames:
        server: TokenServer = request.getfixturevalue("tokens")
        server.requests.clear()
        server.field_name, server.expires_in, server.stale = "token", 300, 0
        server.oauth, server.anonymous = True, False


def served(
    tmp_path_factory: pytest.TempPathFactory, layout: layouts.Layout, signer: Identity, **kind: Any
) -> Iterator[Served]:
    with registries.registry(tmp_path_factory.mktemp("registry"), **kind) as registry:
        digest = registry.push(layout.path, NAME, "v1")
        yield Served(registry, digest, str(signer.certificate))


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, layout: layouts.Layout, signer: Identity
) -> Iterator[Served]:
    yield from served(tmp_path_factory, layout, signer)


@pytest.fixture(scope="module")
def basic(
    tmp_path_factory: pytest.TempPathFactory, layout: layouts.Layout, signer: Identity
) -> Iterator[Served]:
    yield from served(tmp_path_factory, layout, signer, basic=True)


@pytest.fixture(scope="module")
def token(
    tmp_path_factory: pytest.TempPathFactory,
    layout: layouts.Layout,
    signer: Identity,
    tokens: TokenServer,
) -> Iterator[Served]:
    yield from served(tmp_path_factory, layout, signer, tokens=tokens)


# --- a registry that is open to all -----------------------------------------------------


def test_manifests_by_tag_and_digest(plain: Served, layout: layouts.Layout) -> None:
    with plain.client(None) as client:
        by_tag = client.manifest(plain.reference)
        by_digest = client.manifest(plain.reference.with_digest(plain.digest))
        assert by_tag.digest == by_digest.digest == plain.digest == client.digest(plain.reference)
        assert by_tag.data == by_digest.data
        assert [entry.size for entry in by_tag.layers][1] == len(BLOB)
        config = client.read_blob(plain.reference, by_tag.config)
        assert json.loads(config)["architecture"] == "amd64"
        assert list(client.tags(plain.reference)) == ["v1"]


def test_a_blob(plain: Served) -> None:
    with plain.client(None) as client:
        entry = client.manifest(plain.reference).layers[1]
        blob = RegistryBlob(client, plain.reference, entry)
        assert blob.size == len(BLOB)
        assert blob.read_at(100, 50) == BLOB[100:150]
        ranges = [(len(BLOB) - 10, 10), (0, 5), (2 << 20, 1 << 20)]
        assert blob.read_ranges(ranges) == [BLOB[at : at + size] for at, size in ranges]
        assert blob.read_at(0, len(BLOB)) == BLOB
        with pytest.raises(SourceError, match=entry.digest):
            blob.read_at(len(BLOB), 1)
        blob.close()
        with pytest.raises(ValueError, match="closed"):
            blob.read_at(0, 1)


def test_what_is_not_there(plain: Served) -> None:
    missing = "sha256:" + "0" * 64
    with plain.client(None) as client:
        for reference in (
            plain.reference.with_tag("absent"),
            plain.reference.with_digest(missing),
            Reference(plain.registry.host, "no/such"),
        ):
            with pytest.raises(RegistryError, match="not found") as caught:
                client.manifest(reference)
            assert caught.value.status == 404
            assert str(reference) in str(caught.value)
        blob = RegistryBlob(client, plain.reference, Descriptor("", missing, 10))
        with pytest.raises(RegistryError, match=missing) as caught:
            blob.read_at(0, 1)
        assert caught.value.status == 404
        with pytest.raises(RegistryError, match=missing):
            client.read_blob(plain.reference, Descriptor("", missing, 10))


def test_a_blob_of_another_size(plain: Served) -> None:
    with plain.client(None) as client:
        entry = client.manifest(plain.reference).layers[1]
        for size in (len(BLOB) - 1, len(BLOB) + 1, 1 << 62):
            blob = RegistryBlob(client, plain.reference, Descriptor("", entry.digest, size))
            with pytest.raises(StargzError, match=entry.digest):
                blob.read_at(size - 100, 100)


# --- accounts ---------------------------------------------------------------------------


def test_basic(basic: Served) -> None:
    with basic.client() as client:
        entry = client.manifest(basic.reference).layers[1]
        assert RegistryBlob(client, basic.reference, entry).read_at(7, 9) == BLOB[7:16]
    with basic.client() as client:  # a blob is the first thing that is asked for
        assert RegistryBlob(client, basic.reference, entry).read_at(7, 9) == BLOB[7:16]


@pytest.mark.parametrize("account", [None, Credentials(USER, "wrong-" + PASSWORD)])
@pytest.mark.parametrize("kind", ["basic", "token"])
def test_no_or_wrong_credentials(
    kind: str, account: Credentials | None, request: pytest.FixtureRequest
) -> None:
    served: Served = request.getfixturevalue(kind)
    entry = Descriptor("", "sha256:" + "0" * 64, 10)
    words = "is not accepted" if account else "no account is known"
    with served.client(account) as client:
        for act in (
            lambda: client.manifest(served.reference),
            lambda: RegistryBlob(client, served.reference, entry).read_at(0, 1),
            lambda: list(client.tags(served.reference)),
        ):
            with pytest.raises(RegistryError, match=words) as caught:
                act()
            assert caught.value.status == 401
            assert served.reference.name in str(caught.value)
            no_secret_in(caught.value)


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_tokens(field: str, token: Served, tokens: TokenServer) -> None:
    tokens.field_name = field
    with token.client() as client:
        manifest = client.manifest(token.reference)
        blob = RegistryBlob(client, token.reference, manifest.layers[1])
        assert blob.read_at(0, len(BLOB)) == BLOB
        assert len(tokens.requests) == 1
        assert tokens.requests[0]["query"]["scope"] == [f"repository:{NAME}:pull"]
        assert tokens.requests[0]["query"]["service"] == [registries.SERVICE]
    with token.client() as client:  # a blob is the first thing that is asked for
        blob = RegistryBlob(client, token.reference, manifest.layers[1])
        assert blob.read_at(7, 9) == BLOB[7:16]


def test_anonymous_tokens(token: Served, tokens: TokenServer) -> None:
    tokens.anonymous = True
    with token.client(None) as client:
        assert client.manifest(token.reference).digest == token.digest
    assert tokens.requests[0]["authorization"] is None


def test_one_token_for_all_threads(token: Served, tokens: TokenServer) -> None:
    with token.client() as client, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: client.manifest(token.reference).digest, range(32)))
    assert set(found) == {token.digest}
    assert len(tokens.requests) == 1


def test_a_token_expires(token: Served, tokens: TokenServer) -> None:
    """By what its server said; without a word, after a minute."""
    for seconds, expected in ((1e-9, 2), (None, 1), (-5, 1), (300, 1)):
        tokens.requests.clear()
        tokens.expires_in = seconds  # type: ignore[assignment]
        with token.client() as client:
            client.manifest(token.reference)
            client.manifest(token.reference)
        assert len(tokens.requests) == expected


def test_a_token_that_is_refused_is_replaced(token: Served, tokens: TokenServer) -> None:
    with token.client() as client:
        tokens.stale = 1
        manifest = client.manifest(token.reference)
        assert manifest.digest == token.digest
        assert len(tokens.requests) == 2
        blob = RegistryBlob(client, token.reference, manifest.layers[1])
        assert blob.read_at(0, 10) == BLOB[:10]
        assert len(tokens.requests) == 2


def test_tokens_that_are_always_refused(token: Served, tokens: TokenServer) -> None:
    tokens.stale = 1000
    with token.client() as client, pytest.raises(RegistryError) as caught:
        client.manifest(token.reference)
    assert caught.value.status == 401
    assert len(tokens.requests) == 2  # one, and one new one


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_expires_in_the_middle(status: int, token: Served, tokens: TokenServer) -> None:
    """The registry begins to refuse what it took before; some say 403, without a challenge."""
    refused: set[str] = set()

    def plan(request: Any) -> Fault | None:
        if request.headers.get("authorization") in refused:
            return Fault(status=status, body=b"{}")
        return None

    with FaultProxy(f"http://{token.registry.host}") as proxy, token.client() as client:
        proxy.reset(plan)
        reference = Reference(proxy.url.partition("://")[2], NAME, "v1")
        manifest = client.manifest(reference)
        blob = RegistryBlob(client, reference, manifest.layers[1])
        assert blob.read_at(0, 10) == BLOB[:10]
        refused |= {r.headers["authorization"] for r in proxy.log if "authorization" in r.headers}
        assert len(refused) == 1
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda at: blob.read_at(at << 17, 10), range(16)))
        assert found == [BLOB[at << 17 : (at << 17) + 10] for at in range(16)]
        assert len(tokens.requests) == 2
        refused |= {r.headers["authorization"] for r in proxy.log if "authorization" in r.headers}
        assert client.manifest(reference).digest == token.digest
        assert len(tokens.requests) == 3


def test_identity_tokens(token: Served, tokens: TokenServer) -> None:
    account = Credentials(identity_token=tokens.refresh_token)
    with token.client(account) as client:
        assert client.manifest(token.reference).digest == token.digest
    (asked,) = tokens.requests
    assert asked["method"] == "POST"
    assert asked["authorization"] is None
    assert asked["query"]["grant_type"] == ["refresh_token"]
    tokens.requests.clear()
    wrong = Credentials(identity_token="the-identity-of-another")
    with token.client(wrong) as client, pytest.raises(RegistryError) as caught:
        client.manifest(token.reference)
    no_secret_in(caught.value)


def test_identity_tokens_where_only_get_is_known(token: Served, tokens: TokenServer) -> None:
    tokens.oauth = False
    with token.client(Credentials(USER, "", identity_token=PASSWORD)) as client:
        assert client.manifest(token.reference).digest == token.digest
    assert [request["method"] for request in tokens.requests] == ["POST", "GET"]


def test_credentials_of_a_file(token: Served, tmp_path: Path) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"auths": {f"{token.registry.host}/some": {"auth": auth}}}))
    with RegistryClient(authfile=authfile, ca_file=token.ca_file) as client:
        assert client.manifest(token.reference).digest == token.digest


# --- where credentials go ---------------------------------------------------------------


@pytest.fixture
def liar() -> Iterator[Lying]:
    with lying() as server:
        yield server


def test_a_redirect_elsewhere_carries_no_credentials(basic: Served, plain: Served) -> None:
    with (
        FaultProxy(f"http://{plain.registry.host}") as elsewhere,
        FaultProxy(f"http://{basic.registry.host}") as proxy,
        basic.client() as client,
    ):
        reference = Reference(proxy.url.partition("://")[2], NAME, "v1")
        client.manifest(reference)

        def plan(request: Any) -> Fault:
            return Fault(status=307, headers={"Location": elsewhere.url + request.path})

        proxy.reset(plan)
        manifest = client.manifest(reference)
        assert manifest.digest == plain.digest
        blob = RegistryBlob(client, reference, manifest.layers[1])
        assert blob.read_at(0, 10) == BLOB[:10]
        assert blob.read_at(0, len(BLOB)) == BLOB
        assert proxy.log and all("authorization" in r.headers for r in proxy.log)
        assert elsewhere.log and not any("authorization" in r.headers for r in elsewhere.log)


def test_signed_urls_that_expire(token: Served, plain: Served) -> None:
    """A blob's redirect is remembered, and asked for anew when it is refused."""
    with (
        FaultProxy(f"http://{plain.registry.host}") as storage,
        FaultProxy(f"http://{token.registry.host}") as proxy,
        token.client() as client,
    ):
        reference = Reference(proxy.url.partition("://")[2], NAME, "v1")
        manifest = client.manifest(reference)
        signed = SignedURLs(storage.url)
        storage.reset(signed)

        def plan(request: Any) -> Fault | None:
            return signed(request) if "/blobs/" in request.path else None

        proxy.reset(plan)
        blob = RegistryBlob(client, reference, manifest.layers[1])
        for at in range(4):
            assert blob.read_at(at * 1000, 10) == BLOB[at * 1000 : at * 1000 + 10]
        assert signed.issued == 1 and proxy.requests == 1
        signed.expire()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda at: blob.read_at(at << 17, 10), range(16)))
        assert found == [BLOB[at << 17 : (at << 17) + 10] for at in range(16)]
        assert signed.refused >= 1
        assert signed.issued <= 1 + 8  # no more than one for every thread that was refused
        assert not any("authorization" in r.headers for r in storage.log)


def test_where_a_redirect_leads_cannot_ask_for_credentials(
    tokens: TokenServer, basic: Served, signer: Identity
) -> None:
    """A challenge counts only when it is the registry's own."""
    for scheme in (f'Bearer realm="{tokens.url}",service="x"', 'Basic realm="x"'):
        with (
            lying() as elsewhere,
            FaultProxy(f"http://{basic.registry.host}") as proxy,
            basic.client() as client,
        ):
            reference = Reference(proxy.url.partition("://")[2], NAME, "v1")
            entry = client.manifest(reference).layers[1]
            for path in ("manifests/v1", f"blobs/{entry.digest}"):
                answer = (401, {"WWW-Authenticate": scheme}, b"{}")
                elsewhere.answers[f"/v2/{NAME}/{path}"] = answer

            def plan(request: Any, url: str = elsewhere.url) -> Fault:
                return Fault(status=307, headers={"Location": url + request.path})

            proxy.reset(plan)
            with pytest.raises(RegistryError):
                client.manifest(reference)
            with pytest.raises(RegistryError):
                RegistryBlob(client, reference, entry).read_at(0, 1)
            assert elsewhere.log
            assert not any("authorization" in headers for _, headers in elsewhere.log)
        assert not tokens.requests


def test_threads_share_a_failure(token: Served, tokens: TokenServer) -> None:
    """A token server that is gone is not waited for by each of them in turn."""
    with (
        FaultProxy(f"http://{token.registry.host}") as proxy,
        lying() as gone,
        token.client() as client,
    ):
        slow = Fault(status=401, headers={"WWW-Authenticate": f'Bearer realm="{gone.url}/t"'})
        proxy.reset(lambda request: slow)
        reference = Reference(proxy.url.partition("://")[2], NAME, "v1")
        gone.delay = 0.5

        def ask(_: int) -> str:
            with pytest.raises(RegistryError) as caught:
                client.manifest(reference)
            return str(caught.value)

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(ask, range(8)))) == 1
        assert 1 <= len(gone.log) < 8


def test_urls_of_descriptors_are_ignored(liar: Lying, plain: Served) -> None:
    with plain.client(None) as client:
        entry = client.manifest(plain.reference).layers[1]
        evil = Descriptor("", entry.digest, entry.size, {}, {"urls": [f"{liar.url}/evil"]})
        assert RegistryBlob(client, plain.reference, evil).read_at(0, 10) == BLOB[:10]
    assert not liar.log


def test_http_only_where_it_is_safe_or_asked_for() -> None:
    with RegistryClient() as client, RegistryClient(plain_http=True) as plain_client:
        for host, scheme in {
            "localhost": "http",
            "localhost:5000": "http",
            "127.0.0.1:5000": "http",
            "127.9.9.9": "http",
            "[::1]:5000": "http",
            "127.0.0.1.example": "https",
            "localhost.example": "https",
            "10.0.0.1": "https",
            "host.example": "https",
        }.items():
            reference = Reference(host, "a")
            assert client.hosts.of(reference)[0].url == f"{scheme}://{host}"
            assert plain_client.hosts.of(reference)[0].url == f"http://{host}"
    with RegistryClient(plain_http=["10.0.0.1"]) as client:
        assert client.hosts.of(Reference("10.0.0.1", "a"))[0].url == "http://10.0.0.1"
        assert client.hosts.of(Reference("10.0.0.2", "a"))[0].url == "https://10.0.0.2"


# --- mirrors ----------------------------------------------------------------------------


def test_a_mirror_comes_first(plain: Served, liar: Lying) -> None:
    reference = Reference("registry.invalid", NAME, "v1")
    mirrors = {"registry.invalid": [plain.registry.host]}
    with plain.client(ACCOUNT, mirrors=mirrors) as client:
        manifest = client.manifest(reference)
        assert manifest.digest == plain.digest
        blob = RegistryBlob(client, reference, manifest.layers[1])
        assert blob.read_at(0, 10) == BLOB[:10]
        assert blob.name.startswith("registry.invalid/")


def test_a_registry_over_tls(plain: Served, signer: Identity, tmp_path: Path) -> None:
    pem = tmp_path / "both.pem"
    pem.write_text(signer.key.read_text() + signer.certificate.read_text())
    reference = Reference("registry.invalid", NAME, "v1")
    with FaultProxy(f"http://{plain.registry.host}", pem) as proxy:
        mirrors = {"registry.invalid": [proxy.url]}
        with plain.client(None, mirrors=mirrors) as client:
            assert client.manifest(reference).digest == plain.digest
        mirrors = {plain.registry.host: [proxy.url]}
        with quick(mirrors=mirrors) as client:  # it does not know who signed
            assert client.manifest(plain.reference).digest == plain.digest
            url = f"{proxy.url}/v2/"
            with pytest.raises(SourceError, match="--ca-file"):
                client.http.request("GET", url)
        assert all(request.path != "/v2/" for request in proxy.log)


def test_mirrors_that_fail(plain: Served, liar: Lying) -> None:
    """One that is not there, one without the image, one with wrong bytes of its blob."""
    dead = f"127.0.0.1:{closed_port()}"
    with FaultProxy(f"http://{plain.registry.host}") as proxy:
        proxy.reset(lambda request: Fault(status=503) if "/blobs/" in request.path else None)
        for mirror in (dead, liar.host, f"{liar.url}/prefix", proxy.url):
            mirrors = {plain.registry.host: [mirror]}
            with plain.client(ACCOUNT, mirrors=mirrors) as client:
                manifest = client.manifest(plain.reference)
                blob = RegistryBlob(client, plain.reference, manifest.layers[1])
                assert blob.read_at(0, 10) == BLOB[:10]
                assert blob.read_ranges([(5, 5), (2 << 20, 10)])[0] == BLOB[5:10]
    assert liar.log and not any("authorization" in headers for _, headers in liar.log)
    assert any(path.startswith(f"/v2/prefix/{NAME}/") for path, _ in liar.log)


@pytest.mark.parametrize(
    "mirror", ["", "ftp://x", "http://", "https://u:p@host", "host/a?b", "host:x", "a b"]
)
def test_what_is_no_mirror(mirror: str) -> None:
    with pytest.raises(UsageError):
        RegistryClient(mirrors={"docker.io": [mirror]})


@pytest.mark.parametrize("ranges", [True, False])
def test_wrong_bytes_of_a_blob(ranges: bool, plain: Served) -> None:
    """Read whole they are refused, also from a server that knows no ranges."""
    fault = Fault(corrupt=flip, ignore_range=not ranges)
    with FaultProxy(f"http://{plain.registry.host}") as proxy, quick() as client:
        reference = Reference(proxy.url.partition("://")[2], NAME, "v1")
        entry = client.manifest(reference).layers[1]
        proxy.reset(lambda request: fault)
        blob = RegistryBlob(client, reference, entry)
        with pytest.raises(DigestError, match=entry.digest):
            blob.read_at(0, len(BLOB))
        if not ranges:
            with pytest.raises(DigestError, match=entry.digest):
                blob.read_at(100, 10)
        with pytest.raises(DigestError, match=entry.digest):
            client.read_blob(reference, entry)


def test_no_ranges(plain: Served) -> None:
    with FaultProxy(f"http://{plain.registry.host}") as proxy, quick() as client:
        proxy.reset(lambda request: Fault(ignore_range=True))
        reference = Reference(proxy.url.partition("://")[2], NAME, "v1")
        blob = RegistryBlob(client, reference, client.manifest(reference).layers[1])
        assert blob.read_at(1000, 10) == BLOB[1000:1010]
        assert blob.read_at(2000, 10) == BLOB[2000:2010]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_that_recovers_or_does_not(status: int, plain: Served) -> None:
    with FaultProxy(f"http://{plain.registry.host}") as proxy, quick() as client:
        reference = Reference(proxy.url.partition("://")[2], NAME, "v1")
        proxy.reset([Fault(status=status)])
        assert client.manifest(reference).digest == plain.digest
        proxy.reset(lambda request: Fault(status=status))
        with pytest.raises(RegistryError, match=NAME) as caught:
            client.manifest(reference)
        assert caught.value.status == status


def test_a_registry_that_is_not_there() -> None:
    reference = Reference(f"127.0.0.1:{closed_port()}", NAME, "v1")
    with quick() as client, pytest.raises(RegistryError, match="connect") as caught:
        client.manifest(reference)
    assert caught.value.status is None
    assert str(reference) in str(caught.value)


def test_many_threads_on_one_client(plain: Served) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(plain.client(None))
        entry = client.manifest(plain.reference).layers[1]
        blob = RegistryBlob(client, plain.reference, entry)
        failed: list[BaseException] = []

        def read(seed: int) -> None:
            try:
                for turn in range(10):
                    at = (seed * 7919 + turn * 104729) % (len(BLOB) - 1000)
                    assert blob.read_at(at, 1000) == BLOB[at : at + 1000]
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
