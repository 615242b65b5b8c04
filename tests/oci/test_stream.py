"""Blobs that are read once, in order: resumed where they break off, and never wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import blobs
import layouts
import pytest
import registries
from blobs import sha256
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Fault, FaultProxy, SignedURLs, flip

import stargz
from stargz.errors import DigestError, FormatError, RegistryError
from stargz.oci.formats.manifest import Descriptor
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.blob import RegistryBlob
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.stream import RegistryStream, SourceStream
from stargz.oci.repository import BlobStream, open_repository
from stargz.sources import MemorySource
from stargz.sources.client import Client

NAME = "some/image"
BLOB = blobs.noise("stream", 3 << 20)
LONGER = BLOB + b"more"
DIGEST = sha256(BLOB)
ENTRY = Descriptor(layouts.OCI_LAYER, DIGEST, len(BLOB))


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.push_blob(NAME, BLOB)
        registry.push_blob(NAME, LONGER)
        registry.push_blob(NAME, b"")
        yield registry


@pytest.fixture
def proxy(upstream: registries.Registry) -> Iterator[FaultProxy]:
    with FaultProxy(f"http://{upstream.host}") as made:
        yield made


@contextmanager
def streaming(
    url: str, entry: Descriptor = ENTRY, http: dict[str, Any] | None = None, **options: Any
) -> Iterator[BlobStream]:
    reference = Reference(url.partition("://")[2], NAME, "v1")
    with (
        Client(**{"backoff": 0.01, "tries": 3, "host_patience": 0, **(http or {})}) as used,
        RegistryClient(http=used, **options) as client,
        closing(RegistryStream(RegistryBlob(client, reference, entry))) as stream,
    ):
        yield stream


def pieces(stream: BlobStream, size: int = 1 << 20) -> list[bytes]:
    return list(iter(lambda: stream.read(size), b""))


def test_a_blob_is_one_request_and_no_read_gives_more_than_was_asked_for(
    proxy: FaultProxy,
) -> None:
    with streaming(proxy.url) as stream:
        assert stream.size == len(BLOB) and DIGEST in stream.name and NAME in stream.name
        got = pieces(stream, 100_000)
        assert b"".join(got) == BLOB and max(map(len, got)) <= 100_000
        assert stream.read() == b"" and stream.read(0) == b""
        stream.finish()
    assert [(r.method, r.range) for r in proxy.log] == [("GET", "")]
    with streaming(proxy.url) as stream:
        assert stream.read() == BLOB


def test_the_engine_reads_it(tmp_path: Path, upstream: registries.Registry) -> None:
    layer = blobs.varied_tar()
    digest = upstream.push_blob(NAME, layer)
    with streaming(f"http://{upstream.host}", Descriptor("", digest, len(layer))) as stream:
        result = stargz.convert(cast(Any, stream), tmp_path / "out")
        stream.finish()
    assert result.entries > 1
    assert stargz.convert(layer, tmp_path / "again").digest == result.digest


def test_finish_reads_and_checks_the_rest(proxy: FaultProxy) -> None:
    with streaming(proxy.url) as stream:
        assert stream.read(10) == BLOB[:10]
        stream.finish()
        assert proxy.log[0].sent == len(BLOB)
        assert stream.read(1) == b""
    proxy.reset([Fault(corrupt=flip)])
    with streaming(proxy.url) as stream:
        stream.read(10)
        with pytest.raises(DigestError):
            stream.finish()
        with pytest.raises(DigestError):
            stream.finish()


def test_an_empty_blob_needs_no_request(proxy: FaultProxy) -> None:
    with streaming(proxy.url, Descriptor("", sha256(b""), 0)) as stream:
        assert stream.read(10) == b""
        stream.finish()
    assert proxy.requests == 0
    with streaming(proxy.url, Descriptor("", DIGEST, 0)) as stream, pytest.raises(DigestError):
        stream.read(10)


def test_a_body_that_breaks_off_is_resumed_behind_what_came(proxy: FaultProxy) -> None:
    proxy.plan = [Fault(close_after=1_500_000), Fault(close_after=1000)]
    with streaming(proxy.url) as stream:
        assert b"".join(pieces(stream)) == BLOB
    starts = [int(r.range.removeprefix("bytes=").rstrip("-")) for r in proxy.log[1:]]
    assert proxy.requests == 3
    assert 0 < starts[0] <= 1_500_000 and starts[0] <= starts[1] <= starts[0] + 1000
    assert all(r.status == 206 for r in proxy.log[1:])


def test_a_connection_that_is_reset_is_made_anew(proxy: FaultProxy) -> None:
    proxy.plan = [Fault(close_after=1_500_000, reset=True), Fault(refuse=True)]
    with streaming(proxy.url) as stream:
        assert b"".join(pieces(stream)) == BLOB
    assert proxy.requests == 3


def test_a_long_blob_may_break_off_more_often_than_there_are_tries(proxy: FaultProxy) -> None:
    proxy.plan = [Fault(close_after=1_400_000)] * 2
    with streaming(proxy.url, http={"tries": 2}) as stream:
        assert stream.read() == BLOB


def test_a_blob_that_always_breaks_off_is_an_error(proxy: FaultProxy) -> None:
    proxy.reset(lambda _: Fault(close_after=1000))
    with streaming(proxy.url) as stream:
        with pytest.raises(RegistryError, match=r"tries") as caught:
            pieces(stream)
        assert NAME in str(caught.value) and DIGEST in str(caught.value)
    assert proxy.requests == 3


@pytest.mark.parametrize(
    "fault", [Fault(ignore_range=True), Fault(status=416), Fault(status=501), Fault(status=400)]
)
def test_where_there_are_no_ranges_everything_is_asked_for_again(
    proxy: FaultProxy, fault: Fault
) -> None:
    proxy.plan = [Fault(close_after=2_000_000), fault]
    with streaming(proxy.url) as stream:
        assert b"".join(pieces(stream)) == BLOB
    assert proxy.requests == (2 if fault.ignore_range else 3)


def test_what_is_skipped_may_break_off_too(proxy: FaultProxy) -> None:
    proxy.plan = [Fault(close_after=2_000_000), Fault(ignore_range=True, close_after=900_000)]
    with streaming(proxy.url) as stream:
        assert stream.read() == BLOB
    assert proxy.requests == 3


def test_answers_that_pass_are_asked_for_again(proxy: FaultProxy) -> None:
    proxy.plan = [Fault(status=503), Fault(refuse=True)]
    with streaming(proxy.url) as stream:
        assert stream.read() == BLOB
    proxy.reset(lambda _: Fault(status=503))
    with streaming(proxy.url) as stream, pytest.raises(RegistryError) as caught:
        stream.read(1)
    assert caught.value.status == 503


def test_a_blob_that_is_not_there_is_not_asked_for_again(proxy: FaultProxy) -> None:
    missing = Descriptor("", sha256(b"missing"), 7)
    with streaming(proxy.url, missing) as stream, pytest.raises(RegistryError) as caught:
        stream.read(1)
    assert caught.value.status == 404 and proxy.requests == 1
    assert missing.digest in str(caught.value)


@pytest.mark.parametrize("after", [0, 100, 900_000])
def test_a_stall_ends(proxy: FaultProxy, after: int) -> None:
    proxy.reset(lambda _: Fault(stall_after=after))
    begun = time.monotonic()
    with (
        streaming(proxy.url, http={"timeout": 0.2, "tries": 2, "min_rate": 1 << 24}) as stream,
        pytest.raises(RegistryError, match=r"stalled|time"),
    ):
        pieces(stream)
    assert time.monotonic() - begun < 10


def test_a_trickle_ends(proxy: FaultProxy) -> None:
    proxy.reset(lambda _: Fault(trickle=0.02))
    with (
        streaming(proxy.url, http={"timeout": 0.3, "tries": 2, "min_rate": 1 << 24}) as stream,
        pytest.raises(RegistryError),
    ):
        pieces(stream)


def test_the_reader_may_take_its_time(proxy: FaultProxy) -> None:
    with streaming(proxy.url, http={"patience": 0.3, "min_rate": 1 << 24}) as stream:
        got = stream.read(100_000)
        time.sleep(0.7)
        proxy.plan = [Fault(status=503)]  # should the connection be gone
        assert got + b"".join(pieces(stream)) == BLOB


def test_wrong_content_is_never_given_whole(proxy: FaultProxy) -> None:
    proxy.plan = [Fault(corrupt=flip)]
    got = b""
    with streaming(proxy.url) as stream, pytest.raises(DigestError) as caught:
        while piece := stream.read(1 << 20):
            got += piece
    assert len(got) < len(BLOB)
    assert DIGEST in str(caught.value) and NAME in str(caught.value)


@pytest.mark.parametrize("told", [True, False])
def test_a_longer_body_is_refused(proxy: FaultProxy, told: bool) -> None:
    path = f"/v2/{NAME}/blobs/{sha256(LONGER)}"
    proxy.reset(lambda _: Fault(path=path, drop=() if told else ("Content-Length",)))
    with streaming(proxy.url) as stream:
        with pytest.raises(FormatError if told else RegistryError, match=r"longer|says") as caught:
            pieces(stream)
        assert DIGEST in str(caught.value)
    assert proxy.requests <= 2


@pytest.mark.parametrize("told", [True, False])
def test_a_shorter_body_is_refused(proxy: FaultProxy, told: bool) -> None:
    short = Descriptor("", sha256(LONGER), len(LONGER))
    path = f"/v2/{NAME}/blobs/{DIGEST}"
    proxy.reset(lambda _: Fault(path=path, drop=() if told else ("Content-Length",)))
    with (
        streaming(proxy.url, short) as stream,
        pytest.raises(FormatError, match=r"the manifest says .* bytes, the registry has"),
    ):
        pieces(stream)


def test_a_resumed_range_must_be_the_one_asked_for(proxy: FaultProxy) -> None:
    lie = Fault(ask_range="bytes=5-")
    proxy.plan = [Fault(close_after=1000), lie, lie, lie]
    with streaming(proxy.url) as stream, pytest.raises(RegistryError, match="gave bytes 5"):
        pieces(stream)


def test_ranges_that_are_given_in_parts(proxy: FaultProxy) -> None:
    half = len(BLOB) // 2

    def plan(request: Any) -> Fault | None:
        if not request.range:
            return Fault(close_after=1000)
        start = int(request.range.removeprefix("bytes=").rstrip("-"))
        return Fault(ask_range=f"bytes={start}-{half - 1}") if start < half else None

    proxy.reset(plan)
    with streaming(proxy.url) as stream:
        assert stream.read() == BLOB
    assert proxy.log[-1].range == f"bytes={half}-"


def test_a_signed_url_that_expires_is_asked_for_anew(proxy: FaultProxy) -> None:
    with FaultProxy(f"http://127.0.0.1:{proxy.upstream[1]}") as storage:
        signed = SignedURLs(storage.url, uses=1)
        cuts = [Fault(close_after=1_000_000)]

        def refuse_or_cut(request: Any) -> Fault | None:
            found = signed(request)
            if found is not None and found.status is None and cuts:
                cut = cuts.pop()
                return Fault(path=found.path, close_after=cut.close_after)
            return found

        storage.reset(refuse_or_cut)
        proxy.reset(signed)
        with streaming(proxy.url) as stream:
            assert stream.read() == BLOB
        assert signed.issued == 2 and signed.refused == 1
        assert not any("authorization" in r.headers for r in storage.log)
        assert [r.range != "" for r in storage.log] == [False, True, True]


def test_a_mirror_that_fails_midway_is_replaced_by_the_registry(proxy: FaultProxy) -> None:
    with FaultProxy(f"http://127.0.0.1:{proxy.upstream[1]}") as mirror:
        host = proxy.url.partition("://")[2]
        mirror.reset(lambda request: Fault(close_after=500_000 if not request.range else 0))
        with streaming(proxy.url, mirrors={host: [mirror.url]}) as stream:
            assert stream.read() == BLOB
        assert mirror.requests >= 2 and proxy.requests == 1
        assert proxy.log[0].range.startswith("bytes=")
        mirror.reset(lambda _: Fault(status=404))
        proxy.reset()
        with streaming(proxy.url, mirrors={host: [mirror.url]}) as stream:
            assert stream.read() == BLOB
        assert proxy.requests == 1


def test_closed_is_closed(proxy: FaultProxy) -> None:
    with streaming(proxy.url) as stream:
        stream.read(10)
        stream.close()
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            stream.read(10)


def test_a_client_that_is_closed_wakes_the_reader(proxy: FaultProxy) -> None:
    import threading

    proxy.reset(lambda _: Fault(stall_after=1000))
    http = Client(timeout=60)
    client = RegistryClient(http=http)
    reference = Reference(proxy.url.partition("://")[2], NAME)
    with closing(RegistryStream(RegistryBlob(client, reference, ENTRY))) as stream:
        stream.read(1000)
        timer = threading.Timer(0.2, http.close)
        timer.start()
        with pytest.raises((ValueError, RegistryError)):
            pieces(stream)
        timer.join()


# --- layouts ----------------------------------------------------------------------------


def test_a_layouts_blob_is_streamed_and_checked(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    layer = layout.blob(BLOB, layouts.OCI_LAYER)
    layout.tag(layout.manifest([layer]))
    with open_repository(f"oci:{layout.path}") as repository:
        assert repository.digest() == repository.root().digest
        entry = repository.root().layers[0]
        with closing(repository.stream_blob(entry)) as stream:
            assert b"".join(pieces(stream)) == BLOB
        path = layout.blobs / entry.digest.partition(":")[2]
        path.write_bytes(flip(BLOB))
        with (
            closing(repository.stream_blob(entry)) as stream,
            pytest.raises(DigestError, match=DIGEST),
        ):
            stream.finish()
        path.write_bytes(BLOB[:-1])
        with pytest.raises(FormatError, match="cut short"):
            repository.stream_blob(entry)


@settings(max_examples=50)
@given(st.binary(max_size=3000), st.lists(st.integers(1, 1000), max_size=20))
def test_whatever_the_pieces_the_bytes_are_the_blob(data: bytes, sizes: list[int]) -> None:
    stream = SourceStream(MemorySource(data), Descriptor("", sha256(data), len(data)), "memory")
    got = b"".join(stream.read(size) for size in sizes)
    assert got == data[: len(got)] and len(got) == min(len(data), sum(sizes))
    assert got + stream.read() == data


def test_sha512_is_checked_too() -> None:
    import hashlib

    good = "sha512:" + hashlib.sha512(BLOB).hexdigest()
    SourceStream(MemorySource(BLOB), Descriptor("", good, len(BLOB)), "memory").finish()
    bad = Descriptor("", "sha512:" + "0" * 128, len(BLOB))
    with pytest.raises(DigestError):
        SourceStream(MemorySource(BLOB), bad, "memory").finish()
