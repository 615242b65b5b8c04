"""Blobs behind a real web server, and what a proxy on the way can do to them."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import re
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from absence import absent
from command import fails, run
from servers import (
    NO_URLS,
    Fault,
    FaultProxy,
    Request,
    SignedURLs,
    find_nginx,
    flip,
    nginx,
    redirect,
)

import stargz
from stargz.errors import DigestError, FormatError, SourceError
from stargz.sources import as_source
from stargz.sources.base import TAIL, TAIL_MIN
from stargz.sources.client import redact
from stargz.sources.http import Client, HTTPSource

# Larger than the tail, so that most reads need a request.
BLOB = random.Random(1).randbytes(2 * TAIL + 12345)
PLACES = [(0, 1000), (70_000, 300_000), (len(BLOB) - TAIL - 5, 10), (len(BLOB) - 7, 7)]


def tar_of(files: dict[str, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


FILES = {f"dir/{n}": random.Random(n).randbytes(40_000 + n) for n in range(40)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """nginx over a folder with `blob`, `layer`, `small` and `empty`."""
    if find_nginx() is None:
        absent("nginx is not installed")
    root = tmp_path_factory.mktemp("site")
    (root / "blob").write_bytes(BLOB)
    (root / "small").write_bytes(BLOB[:1000])
    (root / "empty").write_bytes(b"")
    stargz.convert(tar_of(FILES), root / "layer")
    state = tmp_path_factory.mktemp("nginx")
    extra = f"location /plain/ {{ alias {root}/; max_ranges 0; }}"
    with nginx(root, state, extra) as url:
        yield url, root


@pytest.fixture
def proxy(site: tuple[str, Path]) -> Iterator[FaultProxy]:
    with FaultProxy(site[0]) as running:
        yield running


def quick(**options: Any) -> Client:
    """A client that loses patience soon."""
    settings = {
        "timeout": 5,
        "tries": 4,
        "patience": 20,
        "host_patience": 0,
        "backoff": 0.005,
        "max_wait": 0.02,
    }
    return Client(**(settings | {"min_rate": 1e8} | options))


def impatient(kind: str) -> dict[str, float]:
    """For faults that are over only when the client has had enough."""
    slow = "stall" in kind or "trickle" in kind
    return {"timeout": 0.25} if slow else {}


@pytest.fixture
def client() -> Iterator[Client]:
    with quick() as made:
        yield made


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text and "secret" not in text
    return text


def check_places(source: HTTPSource) -> None:
    for offset, size in PLACES:
        assert source.read_at(offset, size) == BLOB[offset : offset + size]


# --- as it should be --------------------------------------------------------------------------


def test_opening_is_one_request(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    assert source.size == len(BLOB)
    assert source.read_at(len(BLOB) - TAIL_MIN, TAIL_MIN) == BLOB[-TAIL_MIN:]
    assert source.read_at(len(BLOB) - 10, 10) == BLOB[-10:]
    assert [r.range for r in proxy.log] == [f"bytes=-{TAIL_MIN}"]
    assert proxy.log[0].headers["accept-encoding"] == "identity"
    assert proxy.log[0].headers["user-agent"] == f"stargz/{stargz.__version__}"
    check_places(source)
    assert proxy.connections == 1  # it is kept


def test_a_known_size_needs_no_request(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB), name="it")
    assert (source.name, proxy.requests) == ("it", 0)
    check_places(source)
    assert proxy.requests == len(PLACES)


@pytest.mark.parametrize("name", ["small", "empty", "plain/small", "plain/empty"])
def test_small_blobs(proxy: FaultProxy, client: Client, name: str) -> None:
    source = HTTPSource(f"{proxy.url}/{name}", client=client)
    want = b"" if name.endswith("empty") else BLOB[:1000]
    assert source.read_at(0, source.size) == want
    assert source.read_at(source.size // 2, 0) == b""
    assert proxy.requests == 1
    assert not client.rangeless


def test_a_file_of_a_layer(proxy: FaultProxy) -> None:
    with stargz.open(f"{proxy.url}/layer") as layer:
        assert proxy.requests == 1
        assert layer.read("dir/7") == FILES["dir/7"]
        assert layer.size > 1_500_000
    assert proxy.requests == 2
    assert proxy.bytes < TAIL_MIN + 50_000


def test_a_whole_layer(site: tuple[str, Path]) -> None:
    with stargz.open(f"{site[0]}/layer") as layer:
        assert layer.verify().ok
        assert {name: layer.read(name) for name in FILES} == FILES


def test_a_large_toc_is_two_requests(site: tuple[str, Path], proxy: FaultProxy) -> None:
    names = random.Random(3)
    files = {f"{names.randbytes(45).hex()}": b"" for _ in range(13_000)}
    stargz.convert(tar_of(files), site[1] / "names")
    with stargz.open(f"{proxy.url}/names") as layer:
        assert layer.size - layer.toc_offset > TAIL
        assert len(layer) == len(files)
    assert proxy.requests == 2


def test_ranges_are_merged_and_in_order(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))
    ranges = [(300_000, 10), (1000, 50), (0, 900), (2000, 0), (1100, 7), (len(BLOB), 0)]
    source.link.latency, source.link.bandwidth = 0.001, 50e6  # a gap of 50 kB
    assert source.read_ranges(ranges) == [BLOB[o : o + n] for o, n in ranges]
    asked = {r.range for r in proxy.log}
    assert asked == {"bytes=0-1106", "bytes=300000-300009"}
    assert source.read_ranges([]) == []


def test_large_reads_run_in_parallel(proxy: FaultProxy) -> None:
    together = threading.Barrier(3, timeout=10)

    def plan(request: Request) -> None:
        together.wait()  # fails unless three requests are under way at once

    with quick(timeout=10, parallel=3) as client:
        big = BLOB * 4
        source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))
        source.link.latency = 1e-6
        proxy.plan = plan
        parts = [(0, 1000), (500_000, 1000), (900_000, 1000)]
        assert source.read_ranges(parts) == [big[o : o + n] for o, n in parts]


def test_many_threads(proxy: FaultProxy) -> None:
    faults = random.Random(5)
    kinds = [None, None, Fault(close_after=700), Fault(status=503), Fault(refuse=True)]
    proxy.plan = lambda request: faults.choice(kinds)
    with quick(tries=30, timeout=5) as client:
        source = HTTPSource(f"{proxy.url}/blob", client=client)

        def read(seed: int) -> None:
            places = random.Random(seed)
            for _ in range(12):
                ranges = [
                    (places.randrange(len(BLOB) - 3000), places.randrange(3000)) for _ in range(4)
                ]
                assert source.read_ranges(ranges) == [BLOB[o : o + n] for o, n in ranges]

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(read, range(6)))


def test_closed(proxy: FaultProxy) -> None:
    source = as_source(f"{proxy.url}/blob")
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.read_at(0, 1)
    with quick() as client:
        source = HTTPSource(f"{proxy.url}/blob", client=client)
        source.close()
        assert client.request("GET", f"{proxy.url}/small").data == BLOB[:1000]
    with pytest.raises(ValueError, match="closed"):
        client.request("GET", f"{proxy.url}/small")


def test_closing_the_client_ends_what_is_under_way(proxy: FaultProxy) -> None:
    client = quick(timeout=100, patience=100)
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    stalled = threading.Event()

    def plan(request: Request) -> Fault:
        stalled.set()
        return Fault(stall_after=10)

    proxy.plan = plan
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(source.read_at, 0, 1000)
        assert stalled.wait(10)
        client.close()
        with pytest.raises(ValueError, match="closed"):
            read.result(10)


def test_outside_of_the_blob(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    for offset, size in ((-1, 5), (len(BLOB), 1), (0, len(BLOB) + 1), (5, -1)):
        with pytest.raises(SourceError, match="were asked for, the blob has"):
            source.read_at(offset, size)
    assert proxy.requests == 1


# --- faults that pass -------------------------------------------------------------------------

PASSING = {
    "close": Fault(close_after=100),
    "reset": Fault(close_after=5, reset=True),
    "close at once": Fault(close_after=0),
    "refuse": Fault(refuse=True),
    "stall": Fault(stall_after=100),
    "stall before the head": Fault(delay=1),
    "trickle": Fault(trickle=0.02),
    "trickle in the head": Fault(trickle_head=0.02),
    "408": Fault(status=408),
    "429": Fault(status=429, headers={"Retry-After": "0"}),
    "429 until a date": Fault(status=429, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
    "499": Fault(status=499),
    "500": Fault(status=500, body=b"x" * 200_000),
    "503": Fault(status=503, headers={"Retry-After": "nonsense"}),
    "wrong range": Fault(ask_range="bytes=5-9"),
    "no Content-Range": Fault(drop=("Content-Range",)),
    "nonsense in Content-Range": Fault(headers={"Content-Range": "bytes 9-5/3"}),
    "wrong total": Fault(headers={"Content-Range": "bytes 70000-369999/5000000"}),
    "wrong length": Fault(headers={"Content-Length": "10"}),
    "other ETag": Fault(headers={"ETag": '"other"'}),
}


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes(proxy: FaultProxy, kind: str) -> None:
    """Once while opening, once while reading: both recover."""
    if kind not in ("other ETag", "wrong total", "wrong range"):  # nothing is known yet
        proxy.plan = [PASSING[kind]]
    with quick(**impatient(kind)) as client:
        source = HTTPSource(f"{proxy.url}/blob", client=client)
        assert source.size == len(BLOB)
        opened = proxy.requests
        proxy.reset([PASSING[kind]])
        assert source.read_at(70_000, 300_000) == BLOB[70_000:370_000]
        if not impatient(kind):
            assert proxy.requests == 2
            assert opened <= 2
        check_places(source)


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_stays(proxy: FaultProxy, kind: str) -> None:
    """It ends, in one line that says what and how often."""
    with quick(**impatient(kind)) as client:
        source = HTTPSource(f"{proxy.url}/blob?token=secret", client=client)
        fault = PASSING[kind]
        proxy.reset(lambda request: fault)
        with pytest.raises(SourceError) as caught:
            source.read_at(70_000, 300_000)
    text = one_line(caught.value)
    assert text.startswith(f"{proxy.url}/blob?...: bytes 70000 to 369999: ")
    tries = 2 if kind in ("other ETag", "wrong total") else 4
    assert f"({tries} tries)" in text
    assert proxy.requests == tries
    status = int(kind[:3]) if kind[:3].isdigit() else None
    if tries == 2:
        status = 200  # answered, with another blob: not worth asking for again
    assert caught.value.status == (206 if "Content-Range" in kind else status)


def test_a_broken_body_is_resumed(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))
    proxy.plan = [Fault(close_after=100_000), Fault(close_after=100_000), None]
    assert source.read_at(1000, 300_000) == BLOB[1000:301_000]
    assert proxy.log[0].range == "bytes=1000-300999"
    starts = [int(r.range[6:].partition("-")[0]) for r in proxy.log]
    assert starts[1] >= 1000 + 65_536 and starts[2] >= 1000 + 2 * 65_536
    assert proxy.bytes <= 300_000 + 2 * 65_536


def test_less_than_asked_for_is_continued(proxy: FaultProxy, client: Client) -> None:
    """Some servers cap the size of a range."""
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))

    def plan(request: Request) -> Fault:
        first, last = map(int, request.range[6:].split("-"))
        return Fault(ask_range=f"bytes={first}-{min(last, first + 299_999)}")

    proxy.plan = plan
    assert source.read_at(0, 1_000_000) == BLOB[:1_000_000]
    assert proxy.requests == 4


def test_a_stalled_server_does_not_hold_a_layer(proxy: FaultProxy) -> None:
    client = quick(timeout=0.25)
    with client, stargz.open(HTTPSource(f"{proxy.url}/layer", client=client)) as layer:
        proxy.plan = lambda request: Fault(stall_after=1000)
        with pytest.raises(SourceError, match="the server stalled"):
            layer.read("dir/1")
        proxy.reset()
        assert layer.read("dir/1") == FILES["dir/1"]


def test_wrong_bytes_reach_nobody(proxy: FaultProxy, client: Client) -> None:
    with stargz.open(HTTPSource(f"{proxy.url}/layer", client=client)) as layer:
        proxy.plan = lambda request: Fault(corrupt=flip)
        with pytest.raises((FormatError, DigestError)):
            layer.read("dir/2")
        proxy.reset()
        assert layer.read("dir/2") == FILES["dir/2"]
    proxy.reset(lambda request: Fault(corrupt=flip))
    with pytest.raises(FormatError):
        stargz.open(HTTPSource(f"{proxy.url}/layer", client=client))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_no_retry_mends(proxy: FaultProxy, client: Client, status: int) -> None:
    proxy.plan = lambda request: Fault(status=status)
    with pytest.raises(SourceError, match=f"answered {status}") as caught:
        HTTPSource(f"{proxy.url}/blob", client=client)
    assert caught.value.status == status
    assert "tries" not in one_line(caught.value)
    assert proxy.requests <= 2


def test_nobody_listens(client: Client, tmp_path: Path) -> None:
    from servers import closed_port

    with pytest.raises(SourceError, match=r"cannot connect: Connection refused \(4 tries\)"):
        HTTPSource(f"http://127.0.0.1:{closed_port()}/blob", client=client)
    with pytest.raises(SourceError, match="not a URL"):
        HTTPSource("http://host:port/blob", client=client)


def test_an_encoded_blob_is_refused(proxy: FaultProxy, client: Client) -> None:
    proxy.plan = lambda request: Fault(headers={"Content-Encoding": "gzip"})
    with pytest.raises(SourceError, match="encoded as 'gzip'"):
        HTTPSource(f"{proxy.url}/blob", client=client)
    assert proxy.requests == 1


@pytest.mark.parametrize("size", [len(BLOB), len(BLOB) - 5])
def test_a_blob_that_changes(
    site: tuple[str, Path], proxy: FaultProxy, client: Client, size: int
) -> None:
    path = site[1] / f"changing-{size}"
    path.write_bytes(BLOB)
    source = HTTPSource(f"{proxy.url}/{path.name}", client=client)
    path.write_bytes(BLOB[::-1][:size])
    os.utime(path, (1, 1))
    with pytest.raises(SourceError, match="the blob changed while it was read"):
        source.read_at(0, 10)
    assert source.read_at(len(BLOB) - 10, 10) == BLOB[-10:]  # of the first, from the tail


def test_a_size_that_is_not_so(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB) + 1)
    with pytest.raises(SourceError, match=f"it had {len(BLOB) + 1} bytes, has {len(BLOB)}"):
        source.read_at(0, 10)


# --- servers without ranges -------------------------------------------------------------------

WITHOUT: dict[str, Callable[[Request], Fault | None]] = {
    "200": lambda request: Fault(ignore_range=True),
    "200 of unknown length": lambda request: Fault(ignore_range=True, drop=("Content-Length",)),
    **{
        str(status): lambda request, status=status: Fault(status=status) if request.range else None
        for status in (400, 405, 416, 501)
    },
}


@pytest.mark.parametrize("kind", WITHOUT)
def test_a_server_without_ranges(
    proxy: FaultProxy, client: Client, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.plan = WITHOUT[kind]
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    check_places(source)
    assert source.read_ranges(PLACES) == [BLOB[o : o + n] for o, n in PLACES]
    if kind.startswith("200"):  # what the first request is answered with is all there is
        assert proxy.requests == 1
    else:
        assert sum(r.method == "GET" and not r.range for r in proxy.log) == 1
        assert proxy.requests <= 4
    size = "all of it is" if "unknown" in kind else f"all {len(BLOB):,} bytes are"
    [said] = caplog.messages
    assert said == f"{source.name}: the server has no ranges: {size} fetched"
    assert client.requests == proxy.requests and client.fetched == len(BLOB)
    asked = proxy.requests
    with stargz.open(HTTPSource(f"{proxy.url}/layer", client=client)) as layer:
        assert layer.read("dir/3") == FILES["dir/3"]
    if kind.startswith("200"):  # remembered for the host
        assert proxy.requests == asked + 1


def test_what_is_absent_beside_a_blob_is_not_told_of(
    proxy: FaultProxy, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.reset(lambda request: Fault(ignore_range=True))
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    assert client.rangeless
    assert source.beside(".index") is None
    assert proxy.requests == 2
    assert caplog.messages == [
        f"{source.name}: the server has no ranges: all {len(BLOB):,} bytes are fetched"
    ]


def test_an_answer_with_the_whole_is_resumed_too(proxy: FaultProxy, client: Client) -> None:
    proxy.reset([Fault(ignore_range=True, close_after=800_000), None])
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    check_places(source)
    assert [r.status for r in proxy.log] == [200, 206]


def test_the_commands_say_what_was_fetched(proxy: FaultProxy) -> None:
    url = f"{proxy.url}/layer"
    assert not run("ls", url).stderr
    said = run("ls", "-v", url, "dir/3").stderr.splitlines()
    size = proxy.log[-1].sent
    assert said[-1] == f"stargz: fetched {size:,} bytes in 1 request"
    said = run("ls", "--log-level", "debug", url).stderr.splitlines()
    assert said[-1] == f"stargz: fetched {size:,} bytes in 1 request"
    assert any("urllib3.connectionpool: " in line for line in said)
    assert not any("retries" in line for line in said)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_refused_is_named_without_its_ranges(proxy: FaultProxy, status: int) -> None:
    url = f"{proxy.url}/layer"
    proxy.plan = lambda request: Fault(status=status)
    assert re.match(rf"{url}: the server answered {status}\b", fails(1, "ls", url))
    proxy.reset()
    with quick() as client:  # of a known size
        proxy.plan = lambda request: Fault(status=status)
        source = HTTPSource(url, client=client, size=1000)
        with pytest.raises(SourceError, match=f"^{url}: the server answered {status}"):
            source.read_at(0, 10)


def test_the_whole_is_fetched_once(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    proxy.reset(WITHOUT["200"])
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: source.read_at(n, 1000), range(0, 60_000, 1000)))
    assert found == [BLOB[n : n + 1000] for n in range(0, 60_000, 1000)]
    assert sum(not r.range for r in proxy.log) == 1


def test_the_whole_is_resumed(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    proxy.reset([Fault(status=416), Fault(close_after=800_000), Fault(status=503), None])
    assert source.read_at(0, 1000) == BLOB[:1000]
    assert source.read_at(500_000, 1000) == BLOB[500_000:501_000]
    assert [r.status for r in proxy.log] == [416, 200, 503, 206]
    assert proxy.bytes < len(BLOB) + 300_000


def test_the_whole_begins_anew(proxy: FaultProxy, client: Client) -> None:
    """When ranges are ignored for the rest as well."""
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    cut = Fault(ignore_range=True, close_after=800_000)
    proxy.reset([Fault(ignore_range=True), cut, Fault(ignore_range=True)])
    assert source.read_at(100_000, 1000) == BLOB[100_000:101_000]


def test_no_space_for_the_whole(
    proxy: FaultProxy, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    proxy.reset(WITHOUT["200"])
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(SourceError, match=f"{len(BLOB)} bytes are needed, 1000 are free.*TMPDIR"):
        source.read_at(0, 10)
    monkeypatch.undo()
    assert source.read_at(0, 10) == BLOB[:10]


def test_an_old_server_that_takes_the_suffix_for_a_start(proxy: FaultProxy, client: Client) -> None:
    proxy.plan = [Fault(ask_range=f"bytes=0-{TAIL}")]
    source = HTTPSource(f"{proxy.url}/blob", client=client)
    assert source.size == len(BLOB)
    check_places(source)


# --- redirects and credentials ----------------------------------------------------------------


def test_signed_urls_that_expire(site: tuple[str, Path], proxy: FaultProxy, client: Client) -> None:
    with FaultProxy(site[0]) as store:
        signed = SignedURLs(store.url)
        proxy.plan = store.plan = signed
        source = HTTPSource(f"{proxy.url}/blob", client=client)
        check_places(source)
        assert (proxy.requests, signed.issued) == (1, 1)  # its target is remembered
        signed.expire()
        check_places(source)
        assert (proxy.requests, signed.issued, signed.refused) == (2, 2, 1)
        store.plan = lambda request: Fault(status=403)
        with pytest.raises(SourceError, match="answered 403") as caught:
            source.read_at(0, 10)
        one_line(caught.value)


def test_credentials_stay_with_their_host(site: tuple[str, Path], proxy: FaultProxy) -> None:
    with FaultProxy(site[0]) as store, quick(headers={"X-Key": "secret"}) as client:
        proxy.plan = lambda request: redirect(f"{store.url}{request.path}")
        url = proxy.url.replace("//", "//user:secret@")
        source = HTTPSource(f"{url}/blob", client=client)
        check_places(source)
        basic = "Basic " + base64.b64encode(b"user:secret").decode()
        assert proxy.log[0].headers["authorization"] == basic
        assert proxy.log[0].headers["x-key"] == "secret"
        assert store.requests == len(PLACES)
        for request in store.log:
            assert not {"authorization", "x-key"} & set(request.headers)
        assert "secret" not in source.name


def test_credentials_follow_on_their_host(proxy: FaultProxy, client: Client) -> None:
    def plan(request: Request) -> Fault | None:
        return redirect("/blob", 302) if request.path == "/old" else None

    proxy.plan = plan
    source = HTTPSource(proxy.url.replace("//", "//user:secret@") + "/old", client=client)
    check_places(source)
    assert all("authorization" in r.headers for r in proxy.log)


def test_expired_tokens_are_renewed_once(proxy: FaultProxy, client: Client) -> None:
    class Token(HTTPSource):
        tokens = 0

        def _target(self, fresh: bool) -> tuple[str, dict[str, str]]:
            self.tokens += fresh
            return self._url, {"Authorization": f"Bearer {self.tokens}"}

    valid = 0

    def plan(request: Request) -> Fault | None:
        good = request.headers["authorization"] == f"Bearer {valid}"
        return None if good else Fault(status=401)

    proxy.plan = plan
    source = Token(f"{proxy.url}/blob", client=client)
    valid = 1
    check_places(source)
    assert [r.status for r in proxy.log].count(401) == 1
    valid = -1
    asked = proxy.requests
    with pytest.raises(SourceError, match="answered 401 Unauthorized; give credentials"):
        source.read_at(0, 10)
    assert (source.tokens, proxy.requests - asked) == (2, 2)


def test_redirects_end(proxy: FaultProxy, client: Client) -> None:
    proxy.plan = lambda request: redirect(f"{request.path}x")
    with pytest.raises(SourceError, match="more than 5 redirects"):
        HTTPSource(f"{proxy.url}/blob", client=client)
    assert proxy.requests == 6


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/blob", "file:///etc/passwd", *NO_URLS])
def test_redirects_to_what_cannot_be_asked(target: str, proxy: FaultProxy, client: Client) -> None:
    proxy.plan = [redirect(target)]
    with pytest.raises(SourceError, match="redirects to what is no http or https URL") as caught:
        HTTPSource(f"{proxy.url}/blob", client=client)
    assert str(caught.value).startswith(f"{proxy.url}/blob: ")


def test_private_addresses_are_refused_on_demand(proxy: FaultProxy, client: Client) -> None:
    assert client.request("GET", f"{proxy.url}/small").data == BLOB[:1000]
    for host in ("127.0.0.1", "localhost"):  # on a kept connection, and on a new one
        with pytest.raises(SourceError, match="to a private address"):
            client.request("GET", f"http://{host}:{proxy.port}/small", public_only=True)
    assert proxy.requests == 1


# --- the client -------------------------------------------------------------------------------


def test_request(proxy: FaultProxy, client: Client) -> None:
    found = client.request("HEAD", f"{proxy.url}/small")
    assert (found.status, found.data, found.headers["content-length"]) == (200, b"", "1000")
    assert client.request("GET", f"{proxy.url}/none").status == 404
    with pytest.raises(SourceError, match="more than 999 bytes"):
        client.request("GET", f"{proxy.url}/small", limit=999)
    proxy.reset([Fault(status=200, body=b'{"a": 1}')])
    assert client.request("GET", f"{proxy.url}/x").json() == {"a": 1}
    proxy.reset([Fault(close_after=10), Fault(status=502), None])
    assert client.request("GET", f"{proxy.url}/small").data == BLOB[:1000]
    proxy.reset([Fault(status=503)])
    with pytest.raises(SourceError, match=r"answered 503 Service Unavailable; try") as caught:
        client.request("GET", f"{proxy.url}/small?secret=1", tries=1)
    one_line(caught.value)


def test_bodies_are_sent_again(proxy: FaultProxy, client: Client) -> None:
    want = hashlib.sha256(BLOB).hexdigest()
    calls = []

    def body() -> io.BytesIO:
        calls.append(1)
        return io.BytesIO(BLOB)

    for sent in (BLOB, body):
        proxy.reset([Fault(status=500), Fault(status=201, body=want.encode())])
        done = client.request("PUT", f"{proxy.url}/x", body=sent, size=len(BLOB))
        assert (done.status, done.data.decode()) == (201, want)
    assert len(calls) == 2


def test_proxies_of_the_environment(
    proxy: FaultProxy, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    source = HTTPSource("http://host.invalid/blob", client=client)
    check_places(source)
    assert proxy.log[0].path == "http://host.invalid/blob"
    monkeypatch.setenv("NO_PROXY", "host.invalid")
    with pytest.raises(SourceError, match="the name of the host is not known"):
        HTTPSource("http://host.invalid/blob", client=quick(tries=1))


def test_names_hold_no_secrets() -> None:
    assert redact("https://u:p@host:1/a/b?X-Signature=s#f") == "https://host:1/a/b?..."
    assert redact("http://host/a") == "http://host/a"


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Path:
    """A key and a certificate for 127.0.0.1 that it signed itself."""
    folder = tmp_path_factory.mktemp("tls")
    command = f"{tool('openssl')} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    command += f" -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1 -keyout {folder}/key"
    command += f" -out {folder}/cert"
    subprocess.run(command.split(), check=True, capture_output=True)
    both = folder / "both"
    both.write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return both


def test_tls(site: tuple[str, Path], proxy: FaultProxy, certificate: Path) -> None:
    with FaultProxy(site[0], certificate) as secure:
        with quick(ca_file=str(certificate), timeout=0.5) as client:
            source = HTTPSource(f"{secure.url}/blob", client=client)
            secure.plan = [Fault(close_after=100), Fault(stall_after=100)]
            check_places(source)
            secure.plan = [redirect(f"{proxy.url}/blob")]
            with pytest.raises(SourceError, match="from https to plain http"):
                HTTPSource(f"{secure.url}/blob", client=client)
            assert proxy.requests == 0
        with quick() as client, pytest.raises(SourceError, match=r"self.signed.*--ca-file"):
            HTTPSource(f"{secure.url}/blob", client=client)
        with (
            quick(ca_file=str(certificate)) as client,
            pytest.raises(SourceError, match=r"mismatch.*by a name that its certificate has"),
        ):
            HTTPSource(f"{secure.url.replace('127.0.0.1', 'localhost')}/blob", client=client)
        with (
            quick(ca_file="/nowhere") as client,
            pytest.raises(SourceError, match="/nowhere: No such file or directory"),
        ):
            HTTPSource(f"{secure.url}/blob", client=client)
