"""Pushing to registries: real ones, real ones behind faults, and ones that lie."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
import registries
from registries import PASSWORD, USER, Identity, TokenServer, lying, no_secret_in
from servers import Fault, FaultProxy, Request, free_port
from uploads import Asked, UploadServer, upload_server

from stargz.errors import DigestError, FormatError, RegistryError, StargzError, UsageError
from stargz.oci.destination import Destination, cancel_upload, copy_blob, open_destination
from stargz.oci.formats.manifest import Descriptor
from stargz.oci.formats.reference import LayoutReference, Reference
from stargz.oci.image import load_image
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.credentials import Credentials
from stargz.oci.registry.sessions import location
from stargz.oci.registry.upload import STREAMED
from stargz.oci.repository import open_repository
from stargz.sources import spool
from stargz.sources.client import Client, Response

NAME = "some/image"
ACCOUNT = Credentials(USER, PASSWORD)
BLOB = blobs.noise("pushed", 5 * STREAMED + 7)
DIGEST = blobs.sha256(BLOB)
ENTRY = Descriptor("", DIGEST, len(BLOB))
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": layouts.OCI_INDEX, "manifests": []})
QUICK = {"backoff": 0.01, "tries": 3, "timeout": 10.0, "host_patience": 0, "max_wait": 0.1}


class Sessions:
    """What is told of upload sessions."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.gone: list[str] = []

    def began(self, url: str) -> None:
        self.urls.append(url)

    def ended(self, url: str) -> None:
        self.gone.append(url)


@contextmanager
def pushing(
    host: str,
    *,
    tag: str = ":v1",
    account: Credentials | None = ACCOUNT,
    http: dict[str, Any] | None = None,
    uploads: Sessions | None = None,
    name: str = NAME,
    **options: Any,
) -> Iterator[Destination]:
    """A destination, with a client that is quick to give up."""
    with Client(**{**QUICK, **(http or {})}) as made:
        client = RegistryClient(http=made, credentials=account, **options)
        with open_destination(f"docker://{host}/{name}{tag}", client=client, uploads=uploads) as to:
            yield to


def push(to: Destination, data: bytes, piece: int = 300_000) -> str:
    """In pieces, as a converter does."""
    with to.writer() as writer:
        for at in range(0, len(data), piece):
            assert writer.write(memoryview(data)[at : at + piece]) == len(data[at : at + piece])
        digest = blobs.sha256(data)
        writer.commit(digest)
    return digest


def got(host: str, data: bytes, http: dict[str, Any] | None = None) -> bool:
    """Whether the registry has these bytes."""
    with Client(**(http or {})) as made:
        client = RegistryClient(http=made, credentials=ACCOUNT)
        reference = Reference(host, NAME, "v1")
        return client.read_blob(reference, Descriptor("", blobs.sha256(data), len(data))) == data


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    left = [thread for thread in threading.enumerate() if thread.name == "stargz-upload"]
    for thread in left:
        thread.join(5)
    assert not any(thread.is_alive() for thread in left)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return registries.identity(tmp_path_factory.mktemp("identity"))


@pytest.fixture(scope="module")
def tokens(signer: Identity) -> Iterator[TokenServer]:
    with registries.token_server(signer) as server:
        yield server


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with registries.registry(tmp_path_factory.mktemp("plain")) as made:
        yield made


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with registries.registry(tmp_path_factory.mktemp("basic"), basic=True) as made:
        yield made


@pytest.fixture(scope="module")
def token(
    tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer
) -> Iterator[registries.Registry]:
    with registries.registry(tmp_path_factory.mktemp("token"), tokens=tokens) as made:
        yield made


@pytest.fixture
def proxy(plain: registries.Registry) -> Iterator[FaultProxy]:
    with FaultProxy(f"http://{plain.host}") as made:
        yield made


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with upload_server() as made:
        yield made


def host_of(proxy: FaultProxy) -> str:
    return f"127.0.0.1:{proxy.port}"


# --- a registry that behaves ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "basic", "token"])
def test_blobs_of_all_sizes(kind: str, request: pytest.FixtureRequest, signer: Identity) -> None:
    registry: registries.Registry = request.getfixturevalue(kind)
    trust = {"ca_file": str(signer.certificate)}
    with pushing(registry.host, http=trust) as to:
        for size in (0, 1, STREAMED - 1, STREAMED, STREAMED + 1, 5 * STREAMED + 1):
            data = blobs.noise(f"{kind} {size}", size)
            entry = Descriptor("", blobs.sha256(data), size)
            assert not to.has_blob(entry)
            push(to, data)
            assert to.has_blob(entry)
            assert not to.has_blob(Descriptor("", entry.digest, size + 1))
            with Client(**trust) as http:
                client = RegistryClient(http=http, credentials=ACCOUNT)
                assert client.read_blob(Reference(registry.host, NAME), entry) == data


def test_a_whole_image(
    plain: registries.Registry, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    made = layouts.image(tmp_path / "layout", [blobs.varied_tar(), blobs.tar_of([("a", b"1")])])
    source = f"oci:{made.path}:latest"
    with pushing(plain.host, tag="", name="whole/image") as to, open_repository(source) as there:
        assert to.name == f"docker://{plain.host}/whole/image:latest"
        assert to.digest() is None
        manifest = there.root()
        for entry in (manifest.config, *manifest.layers):
            assert copy_blob(there, to, entry)
            assert not copy_blob(there, to, entry)
        assert to.write_manifest(manifest.data, manifest.media_type, named=False) == manifest.digest
        assert to.digest() is None
        to.write_manifest(manifest.data, manifest.media_type, named=True)
        assert to.digest() == manifest.digest
    with load_image(to.name) as image:
        assert image.digest == manifest.digest
    command = [tool("skopeo"), "inspect", "--tls-verify=false", to.name]
    seen = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert seen["Digest"] == manifest.digest
    assert seen["Layers"] == [entry.digest for entry in manifest.layers]
    command = [tool("skopeo"), "copy", "--src-tls-verify=false", to.name, f"dir:{tmp_path}/copy"]
    subprocess.run(command, check=True, capture_output=True)


def test_it_is_sent_while_it_is_written(server: UploadServer) -> None:
    sessions = Sessions()
    with pushing(server.host, uploads=sessions) as to, to.writer() as writer:
        writer.write(BLOB[:STREAMED])
        assert not server.log
        writer.write(BLOB[STREAMED : 3 * STREAMED])
        assert server.arrived.wait(20)
        assert server.asked("PATCH")[0].chunked
        assert sessions.urls and not sessions.gone
        writer.write(BLOB[3 * STREAMED :])
        writer.commit(DIGEST)
    assert server.writes() == ["POST", "PATCH", "PUT"]
    assert server.blobs == {DIGEST: BLOB} and not server.sessions
    assert sessions.gone == sessions.urls


def test_a_small_blob_is_sent_at_once(server: UploadServer) -> None:
    data = b"config"
    with pushing(server.host) as to:
        to.write_blob(data, blobs.sha256(data))
        with pytest.raises(DigestError):
            to.write_blob(data, DIGEST)
    assert server.writes() == ["POST", "PUT"]
    assert server.asked("PUT")[0].headers["content-length"] == str(len(data))
    assert "state=a%2Fb&digest=sha256%3A" in server.asked("PUT")[0].path
    assert list(server.blobs.values()) == [data]


def test_many_at_once(plain: registries.Registry) -> None:
    made = [blobs.noise(f"many {number}", 2 * STREAMED + number) for number in range(8)]
    with pushing(plain.host) as to, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: push(to, data), made))
    assert all(got(plain.host, data) for data in made)


def test_one_token_for_all(
    token: registries.Registry, tokens: TokenServer, signer: Identity
) -> None:
    tokens.requests.clear()
    with pushing(token.host, http={"ca_file": str(signer.certificate)}, name="a/token") as to:
        assert not to.has_blob(ENTRY)
        push(to, BLOB)
        to.write_manifest(MANIFEST.encode(), layouts.OCI_INDEX, named=True)
    scopes = [request["query"]["scope"] for request in tokens.requests]
    assert len(scopes) == 1 and "repository:a/token:pull,push" in scopes[0]


def test_a_token_that_expires(
    token: registries.Registry, tokens: TokenServer, signer: Identity
) -> None:
    trust = {"ca_file": str(signer.certificate)}
    tokens.requests.clear()
    tokens.stale = 1  # the first one is no good
    with pushing(token.host, http=trust) as to:
        push(to, BLOB)
        assert to.has_blob(ENTRY)
    assert len(tokens.requests) == 2
    assert got(token.host, BLOB, trust)


# --- from other repositories ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "token"])
def test_mount(
    kind: str, request: pytest.FixtureRequest, signer: Identity, tokens: TokenServer
) -> None:
    registry: registries.Registry = request.getfixturevalue(kind)
    trust = {"ca_file": str(signer.certificate)}
    data = blobs.noise(f"mounted {kind}", STREAMED)
    entry = Descriptor("", blobs.sha256(data), len(data))
    with pushing(registry.host, http=trust, name="from/here") as to:
        push(to, data)
    sessions = registry.storage / "docker/registry/v2/repositories/to/there/_uploads"
    with (
        FaultProxy(f"http://{registry.host}") as proxy,
        pushing(host_of(proxy), http=trust, name="to/there") as to,
    ):
        assert not to.has_blob(entry)
        tokens.requests.clear()
        proxy.reset()
        theirs = Reference(host_of(proxy), "from/here", "v1")
        assert to.mount_blob(entry, theirs)
        assert [asked.status for asked in proxy.log] == [404, 201]
        assert to.has_blob(entry)
        if kind == "token":
            (asked,) = tokens.requests
            scopes = ["repository:to/there:pull,push", "repository:from/here:pull"]
            assert asked["query"]["scope"] == scopes
        before = proxy.requests
        assert not to.mount_blob(entry, LayoutReference("/tmp"))
        assert not to.mount_blob(entry, Reference("127.0.0.1:1", "from/here", "v1"))
        assert proxy.requests == before
        assert to.mount_blob(entry, Reference(host_of(proxy), "to/there"))  # it is there
        missing = Descriptor("", blobs.sha256(b"missing"), 7)
        assert not to.mount_blob(missing, theirs)
        assert not to.mount_blob(missing, Reference(host_of(proxy), "no/such"))
        assert not [path for path in sessions.glob("*/data") if path.exists()]
        proxy.reset(lambda asked: Fault(status=400))
        assert not to.mount_blob(entry, theirs)
        proxy.reset(lambda asked: Fault(refuse=True))
        assert not to.mount_blob(entry, theirs)


def test_mirrors_are_left_alone(plain: registries.Registry) -> None:
    with lying() as mirror:
        options = {"mirrors": {plain.host: [mirror.url]}}
        with pushing(plain.host, **options) as to:
            assert not to.has_blob(Descriptor("", DIGEST, 1))
            push(to, blobs.noise("mirror", 2 * STREAMED))
            digest = to.write_manifest(MANIFEST.encode(), layouts.OCI_INDEX, named=True)
            assert to.digest() == digest
        assert mirror.log == []


# --- registries that fail, and return ---------------------------------------------------

FAULTS = {
    "cut": Fault(cut_request=1_000_000),
    "cut at once": Fault(cut_request=0),
    "reset": Fault(cut_request=2_500_000, reset=True),
    "refused": Fault(refuse=True),
    "lost answer": Fault(deaf=True),
    "429": Fault(status=429, headers={"Retry-After": "0"}),
    "503": Fault(status=503, headers={"Retry-After": "0"}),
    "500": Fault(status=500),
    "half an answer": Fault(status=202, headers={"Content-Length": "10"}, close_after=0),
}


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault(fault: str, method: str, proxy: FaultProxy) -> None:
    data = blobs.noise(f"{fault} {method}", 4 * STREAMED)
    left = [FAULTS[fault]]

    def plan(request: Request) -> Fault | None:
        return left.pop() if left and request.method == method else None

    proxy.reset(plan)
    with pushing(host_of(proxy)) as to:
        assert not to.has_blob(Descriptor("", blobs.sha256(data), len(data)))
        push(to, data)
    assert not left
    assert got(host_of(proxy), data)


@pytest.mark.parametrize("seed", range(6))
def test_random_faults(seed: int, proxy: FaultProxy) -> None:
    """The blob is right, whatever breaks on the way; or there is one clear error, and no blob."""
    rng = random.Random(seed)
    data = blobs.noise(f"random {seed}", 3 * STREAMED + seed)
    kinds = [*FAULTS.values(), Fault(cut_request=rng.randrange(len(data)), reset=True)]

    def plan(request: Request) -> Fault | None:
        return rng.choice(kinds) if rng.random() < 0.3 else None

    proxy.reset(plan)
    entry = Descriptor("", blobs.sha256(data), len(data))
    with pushing(host_of(proxy), http={"tries": 6}) as to:
        try:
            push(to, data, 100_000)
        except RegistryError as error:
            assert host_of(proxy) in str(error) and "tries" in str(error)
            return
        proxy.reset()
        assert to.has_blob(entry)
    assert got(host_of(proxy), data)


def test_a_registry_that_is_killed_and_returns(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = free_port()
        first = stack.enter_context(registries.registry(tmp_path, at=port))
        to = stack.enter_context(pushing(first.host, http={"tries": 30, "max_wait": 0.2}))
        with to.writer() as writer:
            writer.write(BLOB[: 3 * STREAMED])
            data = first.storage / f"docker/registry/v2/repositories/{NAME}/_uploads"
            while not any(path.stat().st_size for path in data.glob("*/data")):
                pass  # until some of it has arrived
            assert first.process is not None
            first.process.kill()
            first.process.wait()
            writer.write(BLOB[3 * STREAMED :])
            stack.enter_context(registries.registry(tmp_path, at=port))
            writer.commit(DIGEST)
        assert got(first.host, BLOB)
        digest = to.write_manifest(MANIFEST.encode(), layouts.OCI_INDEX, named=True)
        assert to.digest() == digest


def test_a_stream_that_breaks_is_resumed(server: UploadServer) -> None:
    with FaultProxy(server.url) as proxy:
        cuts = [Fault(cut_request=3 * STREAMED), Fault(cut_request=STREAMED, reset=True)]
        proxy.reset(lambda asked: cuts.pop(0) if cuts and asked.method == "PATCH" else None)
        sessions = Sessions()
        with pushing(host_of(proxy), uploads=sessions, http={"tries": 2}) as to:
            push(to, BLOB)
    assert server.blobs == {DIGEST: BLOB}
    assert server.methods().count("POST") == 1 == len(sessions.urls)
    ranges = [asked.headers.get("content-range") for asked in server.asked("PATCH")]
    assert ranges[0] is None and all(ranges[1:])
    assert sum(asked.received for asked in server.asked("PATCH")) == len(BLOB)


LIES = ["0-99999999999", "0-", "nonsense", "", "5-100", "0-" + "9" * 400, "-1", f"0-{len(BLOB)}"]


@pytest.mark.parametrize("text", LIES)
def test_positions_that_cannot_be(text: str, server: UploadServer) -> None:
    """It is begun anew then."""
    with FaultProxy(server.url) as proxy:
        cuts = [Fault(cut_request=3 * STREAMED)]
        lies = [text]

        def honest(size: int) -> str:
            return lies.pop() if lies and not cuts and size else f"0-{max(0, size - 1)}"

        proxy.reset(lambda asked: cuts.pop() if cuts and asked.method == "PATCH" else None)
        server.range = honest
        with pushing(host_of(proxy)) as to:
            push(to, BLOB)
    assert not lies
    assert server.blobs == {DIGEST: BLOB} and not server.sessions
    assert server.methods().count("POST") == 2


@pytest.mark.parametrize("text", ["0-99999999999", "nonsense", "0-0", "0-5"])
def test_a_registry_that_always_lies_of_its_position(text: str, server: UploadServer) -> None:
    server.range = lambda size: text
    with pushing(server.host) as to, pytest.raises(RegistryError, match=NAME):
        push(to, BLOB)
    assert len(server.log) < 30
    assert not server.blobs


def test_a_lost_answer_is_looked_for(server: UploadServer) -> None:
    """What has arrived is not sent again."""
    for size in (10, len(BLOB)):
        server.log.clear()
        with FaultProxy(server.url) as proxy:
            lost = [Fault(deaf=True)]
            proxy.reset(
                lambda asked, left=lost: left.pop() if left and asked.method == "PUT" else None
            )
            with pushing(host_of(proxy)) as to:
                push(to, BLOB[:size])
        assert server.writes() == ["POST", *(["PATCH"] if size > 10 else []), "PUT"]
        assert server.methods().count("HEAD") == 2


def test_a_registry_that_takes_a_little_at_a_time(server: UploadServer) -> None:
    server.takes = 10
    with pushing(server.host) as to, pytest.raises(RegistryError, match="the registry took 10 of"):
        push(to, BLOB)
    assert len(server.log) < 20
    server.takes = 2 * STREAMED
    with pushing(server.host) as to:
        push(to, BLOB)
    assert server.blobs == {DIGEST: BLOB}


def test_a_session_that_is_forgotten(server: UploadServer) -> None:
    with FaultProxy(server.url) as proxy:
        cuts = [Fault(cut_request=3 * STREAMED)]
        proxy.reset(lambda asked: cuts.pop() if cuts and asked.method == "PATCH" else None)
        server.forgetful = True
        sessions = Sessions()
        with pushing(host_of(proxy), uploads=sessions) as to:
            push(to, BLOB)
    assert server.blobs == {DIGEST: BLOB}
    assert len(sessions.urls) == 2 and sessions.gone == sessions.urls


@pytest.mark.parametrize("status", [400, 404, 405, 411, 501])
def test_no_bodies_of_unknown_length(status: int, server: UploadServer) -> None:
    server.answer = lambda asked: (status, {}) if asked.chunked else None
    with pushing(server.host) as to:
        push(to, BLOB)
    assert server.blobs == {DIGEST: BLOB} and not server.sessions
    assert server.writes() == ["POST", "PATCH", "DELETE", "POST", "PUT"]
    assert server.asked("PUT")[0].headers["content-length"] == str(len(BLOB))


def test_a_registry_that_is_read_only(server: UploadServer) -> None:
    server.answer = lambda asked: (405, {}) if asked.method == "POST" else None
    with pushing(server.host) as to, pytest.raises(RegistryError, match="read-only") as caught:
        push(to, BLOB)
    assert caught.value.status == 405


@pytest.mark.parametrize("status", [401, 403, 413, 418])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_refusals_are_final(method: str, status: int, server: UploadServer) -> None:
    server.answer = lambda asked: (status, {}) if asked.method == method else None
    with (
        pushing(server.host) as to,
        pytest.raises(RegistryError) as caught,
    ):
        push(to, BLOB)
    assert caught.value.status == status
    assert server.methods().count(method) == 1
    assert f"{server.host}/{NAME}" in str(caught.value)
    if status in (401, 403):
        assert "account that may write" in str(caught.value)
    assert not server.blobs and not server.sessions


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_accounts_that_may_not(kind: str, request: pytest.FixtureRequest, signer: Identity) -> None:
    registry: registries.Registry = request.getfixturevalue(kind)
    wrong = Credentials(USER, PASSWORD + "-wrong")
    for account in (None, wrong):
        with pushing(
            registry.host, account=account, http={"ca_file": str(signer.certificate)}
        ) as to:
            for act in (
                lambda: push(to, BLOB),
                lambda: to.write_manifest(MANIFEST.encode(), layouts.OCI_INDEX, named=True),
                lambda: to.has_blob(ENTRY),
                lambda: to.digest(),
            ):
                with pytest.raises(RegistryError, match=r"credentials|account") as caught:
                    act()
                assert caught.value.status == 401
                no_secret_in(caught.value)


def test_a_converter_is_told_early(server: UploadServer) -> None:
    server.answer = lambda asked: (403, {}) if asked.method == "POST" else None
    with pushing(server.host) as to, to.writer() as writer:
        with pytest.raises(RegistryError, match="may write"):
            while True:
                writer.write(BLOB)
        with pytest.raises(RegistryError, match="may write"):
            writer.commit(DIGEST)


def test_a_registry_that_never_recovers(proxy: FaultProxy) -> None:
    proxy.reset(lambda asked: Fault(status=503))
    with pushing(host_of(proxy)) as to:
        for act in (
            lambda: push(to, BLOB),
            lambda: push(to, b"small"),
            lambda: to.write_manifest(MANIFEST.encode(), layouts.OCI_INDEX, named=True),
            lambda: to.has_blob(ENTRY),
        ):
            with pytest.raises(RegistryError, match=r"503.*3 tries") as caught:
                act()
            assert caught.value.status == 503
    assert proxy.requests < 20


# --- several writers ------------------------------------------------------------------------


def test_writers_of_one_blob_wait_for_each_other(plain: registries.Registry) -> None:
    """Each in a repository once, whoever writes it, by whichever way."""
    small, large = blobs.noise("small", 1000), blobs.noise("large", 3 * STREAMED)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": layouts.OCI_INDEX, "manifests": []})
    with (
        FaultProxy(f"http://{plain.host}") as proxy,
        pushing(host_of(proxy), name="several/writers") as to,
        ThreadPoolExecutor(8) as threads,
    ):
        acts: list[Callable[[], object]] = [
            lambda: to.write_blob(small, blobs.sha256(small)),
            lambda: push(to, large),
            lambda: to.write_manifest(manifest.encode(), layouts.OCI_INDEX, named=False),
        ]
        for done in [threads.submit(act) for act in 8 * acts]:
            done.result()
        written = [asked.path for asked in proxy.log if asked.method == "PUT"]
        for digest in map(blobs.sha256, (small, large, manifest.encode())):
            assert sum(digest in path.replace("%3A", ":") for path in written) == 1
        assert len(written) == 3
    assert not any(plain.storage.rglob("several/writers/_uploads/*/data"))


@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "DIGEST_INVALID"])
def test_what_a_registry_does_not_know_yet(code: str, proxy: FaultProxy) -> None:
    body = json.dumps({"errors": [{"code": "OTHER"}, {"code": code, "detail": {}}]}).encode()
    left = [Fault(status=404 if "BLOB" in code else 400, body=body) for _ in range(2)]
    proxy.reset(lambda asked: left.pop() if left and asked.method == "PUT" else None)
    with pushing(host_of(proxy)) as to:
        to.write_manifest(MANIFEST.encode(), layouts.OCI_INDEX, named=True)
        assert not left
        proxy.reset(lambda asked: Fault(status=400, body=body) if asked.method == "PUT" else None)
        with pytest.raises(RegistryError, match=rf"OTHER; {code}.*3 tries"):
            to.write_manifest(MANIFEST.encode(), layouts.OCI_INDEX, named=True)


# --- slow ones --------------------------------------------------------------------------


def test_a_slow_converter_is_waited_for(server: UploadServer) -> None:
    """Longer than a server may take."""
    options = {"timeout": 0.3, "patience": 0.3}
    with pushing(server.host, http=options) as to, to.writer() as writer:
        for at in range(0, len(BLOB), STREAMED):
            writer.write(BLOB[at : at + STREAMED])
            if at in (STREAMED, 3 * STREAMED):
                threading.Event().wait(0.7)
        writer.commit(DIGEST)
    assert server.writes() == ["POST", "PATCH", "PUT"]
    assert server.blobs == {DIGEST: BLOB}


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_server_that_stalls(method: str, server: UploadServer) -> None:
    with FaultProxy(server.url) as proxy:
        proxy.reset(lambda asked: Fault(stall_request=10_000) if asked.method == method else None)
        with (
            pushing(host_of(proxy), http={"timeout": 0.3, "tries": 2}) as to,
            pytest.raises(RegistryError, match=r"stalled|broke off"),
        ):
            push(to, blobs.noise("stalled", (20 if method == "PATCH" else 2) * STREAMED))
    assert not server.blobs


def test_interrupt(server: UploadServer) -> None:
    with FaultProxy(server.url) as proxy:
        stalled = threading.Event()

        def plan(request: Request) -> Fault | None:
            if request.method != "PATCH":
                return None
            stalled.set()
            return Fault(stall_request=10_000)

        proxy.reset(plan)
        with (
            open_destination(f"docker://{host_of(proxy)}/{NAME}") as to,
            to.writer() as writer,
        ):
            writer.write(BLOB)
            timer = threading.Thread(target=lambda: (stalled.wait(20), to.interrupt()))
            timer.start()
            with pytest.raises((ValueError, StargzError)):
                writer.commit(DIGEST)
            timer.join()


# --- what is given up -------------------------------------------------------------------


def test_an_aborted_upload_leaves_nothing(server: UploadServer) -> None:
    sessions = Sessions()
    with pushing(server.host, uploads=sessions) as to:
        for size in (10, 3 * STREAMED, len(BLOB)):
            with suppress(ZeroDivisionError), to.writer() as writer:
                writer.write(BLOB[:size])
                if size > STREAMED:
                    assert server.arrived.wait(20)
                raise ZeroDivisionError
            server.arrived.clear()
            with pytest.raises(ValueError, match="closed"):
                writer.write(b"more")
            with pytest.raises(ValueError, match="closed"):
                writer.commit(DIGEST)
    assert not server.sessions and not server.blobs
    assert len(sessions.urls) == 2 and sessions.gone == sessions.urls


def test_an_aborted_upload_leaves_nothing_at_a_real_registry(tmp_path: Path) -> None:
    with registries.registry(tmp_path) as registry, pushing(registry.host) as to:
        uploads = registry.storage / f"docker/registry/v2/repositories/{NAME}/_uploads"
        with suppress(ZeroDivisionError), to.writer() as writer:
            writer.write(BLOB)
            while not any(path.stat().st_size for path in uploads.glob("*/data")):
                pass
            raise ZeroDivisionError
        assert not list(uploads.glob("*/data"))
        assert not (registry.storage / "docker/registry/v2/blobs").exists()


def test_an_abort_while_the_server_stalls(
    server: UploadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stargz.oci.registry.upload._LEAVE", 0.3)
    stalled = threading.Event()

    def plan(request: Request) -> Fault | None:
        if request.method != "PATCH":
            return None
        stalled.set()
        return Fault(stall_request=10_000)

    with FaultProxy(server.url) as proxy:
        proxy.reset(plan)
        with pushing(host_of(proxy)) as to:
            with suppress(ZeroDivisionError), to.writer() as writer:
                writer.write(blobs.noise("stalled", 20 * STREAMED))
                assert stalled.wait(20)
                raise ZeroDivisionError
            assert not server.sessions


def test_sessions_that_a_crash_left(server: UploadServer, plain: registries.Registry) -> None:
    reference = Reference(server.host, NAME, "v1")
    with Client(tries=1) as http:
        client = RegistryClient(http=http, credentials=ACCOUNT)
        sessions = Sessions()
        with pushing(server.host, uploads=sessions) as to:
            server.answer = lambda asked: (403, {}) if asked.method == "DELETE" else None
            with suppress(ZeroDivisionError), to.writer() as writer:
                writer.write(BLOB)
                assert server.arrived.wait(20)
                raise ZeroDivisionError
        assert len(server.sessions) == 1 and not sessions.gone
        assert not cancel_upload(client, reference, sessions.urls[0])
        server.answer = lambda asked: None
        assert cancel_upload(client, reference, sessions.urls[0])
        assert not server.sessions
        assert cancel_upload(client, reference, sessions.urls[0])  # it is gone already
        with lying() as foreign, pytest.raises(RegistryError, match="another host"):
            cancel_upload(client, reference, f"{foreign.url}/x")
        assert foreign.log == []


def test_a_full_disk(server: UploadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "spared", lambda total: total)
    data = bytes(STREAMED)
    with pushing(server.host) as to:
        with pytest.raises(StargzError, match="TMPDIR"), to.writer() as writer:
            for _ in range(40):
                writer.write(data)
        with pytest.raises(StargzError, match="TMPDIR"):
            to.writer(1 << 60)
    assert not server.sessions and not server.blobs


# --- ones that lie ----------------------------------------------------------------------


@pytest.mark.parametrize("where", [
    "http://127.0.0.2:{port}{path}", "//127.0.0.2{path}", "http://user@127.0.0.1:{other}{path}",
    "https://127.0.0.1:{port}{path}", "file:///etc/passwd", "javascript:alert(1)",
    "http://[::1", "", "x" * 9000, "http://127.0.0.1:{port}:80/", "/a\u00e9",
])  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_locations_that_lead_astray(method: str, where: str, server: UploadServer) -> None:
    with lying() as foreign:
        port, other = (url.rpartition(":")[2] for url in (server.url, foreign.url))
        place = where.format(port=port, other=other, path="/v2/x")
        if method == "POST":
            server.location = lambda path: place
        else:
            seen: list[str] = []

            def later(path: str) -> str:
                seen.append(path)
                return path if len(seen) == 1 else place or "/v2/none"

            server.location = later
        with pushing(server.host) as to, pytest.raises(StargzError) as caught:
            push(to, BLOB)
        assert foreign.log == []
    assert not server.blobs
    text = str(caught.value)
    assert server.host in text and len(text) < 600 and "\n" not in text
    no_secret_in(caught.value)


def test_locations_of_the_same_origin(server: UploadServer) -> None:
    server.location = lambda path: f"{server.url}{path}#fragment"
    with pushing(server.host) as to:
        push(to, BLOB)
    assert server.blobs == {DIGEST: BLOB}
    assert "#" not in "".join(asked.path for asked in server.log)


def test_upload_hosts(server: UploadServer, basic: registries.Registry) -> None:
    """Uploads may go to hosts that are allowed, which get no credentials."""
    with FaultProxy(server.url) as front:
        server.location = lambda path: f"{server.url}{path}"
        authorization = {"WWW-Authenticate": 'Basic realm="x"'}

        def login(request: Request) -> Fault | None:
            known = "authorization" in request.headers
            return None if known else Fault(status=401, headers=authorization)

        front.reset(login)
        with pushing(host_of(front)) as to, pytest.raises(RegistryError, match="another host"):
            push(to, BLOB)
        server.log.clear()
        secret = {"headers": {"X-Secret": "1"}}
        with pushing(host_of(front), upload_hosts=[server.host], http=secret) as to:
            push(to, BLOB)
    assert server.writes() == ["POST", "PATCH", "PUT"]
    assert server.blobs == {DIGEST: BLOB}
    at_the_registry = [asked for asked in server.log if asked.method in ("HEAD", "POST")]
    assert len(at_the_registry) == 2
    for asked in at_the_registry:
        assert "authorization" in asked.headers and asked.headers["x-secret"]
    for asked in [*server.asked("PATCH"), *server.asked("PUT")]:
        assert not {"authorization", "x-secret"} & set(asked.headers)


def test_no_uploads_in_the_clear() -> None:
    """An https registry may not send them to http, whatever the host."""
    reference = Reference("registry.example", NAME)
    with RegistryClient(upload_hosts=["registry.example", "Uploads.example"]) as client:
        host = client.hosts.own(reference)
        assert host.url == "https://registry.example"
        for name in ("uploads.example", "registry.example"):
            good, bad = (
                Response(202, {"Location": f"{scheme}://{name}/x?y=z"}, b"", f"{host.url}/v2/")
                for scheme in ("https", "http")
            )
            assert location(good, host, client, reference) == f"https://{name}/x?y=z"
            with pytest.raises(RegistryError, match="another host"):
                location(bad, host, client, reference)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
def test_redirects(method: str, server: UploadServer) -> None:
    with upload_server() as foreign:

        def elsewhere(asked: Asked) -> tuple[int, dict[str, str]] | None:
            return (307, {"Location": f"{foreign.url}/x"}) if asked.method == method else None

        server.answer = elsewhere
        with pushing(server.host) as to:
            if method == "HEAD":
                assert not to.has_blob(ENTRY)
            else:
                with pytest.raises(RegistryError, match="307"):
                    push(to, BLOB)
        assert len(foreign.log) == (method == "HEAD")
        assert all("authorization" not in asked.headers for asked in foreign.log)
        server.answer = lambda asked: (307, {"Location": asked.path})
        with pushing(server.host) as to, pytest.raises(RegistryError):
            push(to, BLOB)
        with pushing(server.host) as to, pytest.raises(RegistryError, match="redirects"):
            to.has_blob(ENTRY)
    assert not server.blobs


def test_other_digests_than_were_sent(server: UploadServer) -> None:
    other = "sha256:" + "0" * 64
    server.stated = lambda digest: other
    with pushing(server.host) as to:
        with pytest.raises(DigestError, match=other):
            push(to, BLOB)
        server.answer = lambda asked: (201, {"Docker-Content-Digest": other})
        with pytest.raises(DigestError, match=other):
            to.write_manifest(MANIFEST.encode(), layouts.OCI_INDEX, named=True)
        assert not to.mount_blob(ENTRY, Reference(server.host, "another/image"))


def test_bytes_that_change_on_the_way(server: UploadServer) -> None:
    """They are sent twice, and then there is an error."""
    with (
        pushing(server.host) as to,
        pytest.raises(RegistryError, match="other bytes") as caught,
        to.writer() as writer,
    ):
        writer.write(BLOB)
        writer.commit(blobs.sha256(b"other"))
    assert caught.value.status == 400
    assert server.methods().count("PUT") == 2
    assert not server.blobs and not server.sessions


@pytest.mark.parametrize("headers", [
    {"X": "x" * 100_000}, {f"X-{number}": "x" for number in range(1000)}, {"Range": "0-" * 1000},
])  # fmt: skip
def test_huge_headers(headers: dict[str, str], server: UploadServer) -> None:
    server.answer = lambda asked: (202, headers)
    with pushing(server.host) as to, pytest.raises(RegistryError):
        push(to, BLOB)
    assert len(server.log) < 20


# --- manifests and names ----------------------------------------------------------------


def test_manifests(plain: registries.Registry) -> None:
    with pushing(plain.host, name="just/manifests") as to:
        data = MANIFEST.encode()
        digest = to.write_manifest(data, layouts.OCI_INDEX, named=False)
        assert digest == blobs.sha256(data) and to.digest() is None
        assert to.write_manifest(data, layouts.OCI_INDEX, named=True) == digest == to.digest()
        with pytest.raises(FormatError, match="4 MiB"):
            to.write_manifest(data + b" " * (4 << 20), layouts.OCI_INDEX, named=True)
        absent = {"mediaType": layouts.OCI_MANIFEST, "digest": DIGEST, "size": 1}
        broken = json.dumps({**json.loads(MANIFEST), "manifests": [absent]})
        with pytest.raises(RegistryError, match="UNKNOWN") as caught:
            to.write_manifest(broken.encode(), layouts.OCI_INDEX, named=True)
        assert caught.value.status in (400, 404)
        assert to.digest() == digest


@pytest.mark.parametrize("fault", FAULTS)
def test_manifests_survive_faults(fault: str, proxy: FaultProxy) -> None:
    proxy.reset([FAULTS[fault]])
    with pushing(host_of(proxy), name="faulty/manifests", tag=f":{len(fault)}") as to:
        digest = to.write_manifest(MANIFEST.encode(), layouts.OCI_INDEX, named=True)
        assert to.digest() == digest
    assert proxy.requests == 3 or fault == "half an answer"


def test_digests_without_the_header(server: UploadServer) -> None:
    with pushing(server.host) as to, lying() as liar:
        liar.manifest("v1", MANIFEST.encode())
        with pushing(liar.host) as there:
            assert there.digest() == blobs.sha256(MANIFEST.encode())  # it knows no HEAD
        server.answer = lambda asked: (500, {})
        with pytest.raises(RegistryError, match="500"):
            to.digest()


def test_names() -> None:
    digest = "sha256:" + "0" * 64
    for name in (f"docker://127.0.0.1:1/a@{digest}", f"docker://127.0.0.1:1/a:tag@{digest}"):
        with pytest.raises(UsageError, match="give a tag"), open_destination(name):
            pass
    with open_destination("docker://127.0.0.1:1/a") as to:
        assert to.name == "docker://127.0.0.1:1/a:latest"
        assert to.reference == Reference("127.0.0.1:1", "a", "latest")
    for name in ("docker-archive:x", "a", "oci:"):
        with pytest.raises(UsageError), open_destination(name):
            pass
