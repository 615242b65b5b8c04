"""Answers whose framing lies: what is read of them is bounded, and refused unless it is HTTP."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from servers import Raw

from stargz.errors import RegistryError, SourceError
from stargz.oci.formats.manifest import Descriptor
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.client import RegistryClient
from stargz.sources.client import Client
from stargz.sources.http import HTTPSource

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_DIGEST = "sha256:" + 64 * "a"
# What a client may have in its and the system's buffers when it leaves.
_BUFFERS = 16 << 20


@pytest.fixture
def client():
    with Client(backoff=0.01, tries=3, timeout=10) as made:
        yield made


@pytest.mark.parametrize(
    "body",
    [
        b"-1\r\nhello",
        b"-0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"0_5\r\nhello\r\n0\r\n\r\n",
        b"5_\r\nhello\r\n0\r\n\r\n",
        b"\xb2\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b";x=y\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello",
        b"5;" + 5000 * b"x" + b"\r\nhello\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",  # longer than its size
        b"6\r\nhello\r\n0\r\n\r\n",  # shorter
        b"5\r\nhello\r\n",  # no end
        b"5\r\nhello",
        b"fffffffffffffff\r\nhello",
        b"5\r\nhello\r\n0\r\n" + 200 * b"x: y\r\n" + b"\r\n",
    ],
)
def test_chunks_that_are_none_are_refused(client, body):
    with Raw(_CHUNKED + body) as server:
        with pytest.raises(SourceError, match=r"malformed|broke off"):
            client.request("GET", server.url)
        assert server.requests in (2, 3)


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"05\r\nhello\r\n000\r\n\r\n",
        b"5  \r\nhello\r\n0\r\n\r\n",
        b"5;name=value\r\nhello\r\n0;last\r\n\r\n",
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: y\r\n\r\n",
        b"1\r\nh\r\n" + b"".join(b"1\r\n%c\r\n" % c for c in b"ello") + b"0\r\n\r\n",
    ],
)
def test_chunks_are_read(client, body):
    with Raw(_CHUNKED + body) as server:
        assert client.request("GET", server.url).data == b"hello"
        assert server.requests == 1


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 0_5",
        b"Content-Length: 5, 6",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: five",
        b"Content-Length: 9999999999999999999",
        b"Content-Length: 6",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
    ],
)
def test_lengths_that_are_none_are_refused(client, head):
    refused = pytest.raises(SourceError, match=r"malformed|broke off|5 bytes of an answer of 6")
    with Raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\nhello") as server, refused:
        client.request("GET", server.url)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"\x16\x03\x01\x02\n\r\n\r\n", "for its first line"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "'SSH-2.0-OpenSSH_9.2' for its first line"),
        (b"220 mail ready\r\n", "'220 mail ready' for its first line"),
        (b"HTTP/1.1 two OK\r\n\r\n", "for its first line"),
        (b"HTTP/1.1 20000 OK\r\n\r\n", "for its first line"),
        (b"HTTP/1.1 -1 OK\r\n\r\n", "for its first line"),
        (b"HTTP/3.0 200 OK\r\n\r\n", "the unknown version 'HTTP/3.0'"),
        (b"HTTP/1.1 200 OK\r\nX: " + 100_000 * b"x" + b"\r\n\r\n", "a line without end"),
        (100_000 * b"x" + b"\r\n\r\n", "a line without end"),
        (b"HTTP/1.1 200 OK\r\n" + 101 * b"X: y\r\n" + b"\r\n", "headers without end"),
    ],
)
def test_heads_that_are_none_are_malformed(client, answer, what):
    with Raw(answer) as server:
        with pytest.raises(SourceError, match="the answer is malformed") as caught:
            client.request("GET", server.url)
        assert server.requests == 2
    assert what in str(caught.value)
    assert "the server, or a proxy on the way, is broken" in str(caught.value)


@pytest.mark.parametrize("answer", [b"", b"HT", b"HTTP/1.1 2", b"220 mail"])
def test_a_head_that_ends_early_broke_off(client, answer):
    with Raw(answer) as server, pytest.raises(SourceError, match="the connection broke off"):
        client.request("GET", server.url)


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 5", b"Content-Length: 5, 5", b"Transfer-Encoding: identity", b"X: y"],
)
def test_lengths_are_read(client, head):
    with Raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\nhello") as server:
        assert client.request("GET", server.url).data == b"hello"


def test_a_body_ends_where_its_length_says(client):
    with Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more") as server:
        assert [client.request("GET", server.url).data for _ in range(3)] == 3 * [b"hello"]
        assert client.request("HEAD", server.url).data == b""


def test_answers_that_say_to_wait_come_to_an_end(client):
    refused = pytest.raises(SourceError, match="over 10 answers")
    with Raw(b"", flood=b"HTTP/1.1 100 Continue\r\n\r\n") as server, refused:
        client.request("GET", server.url)


# --- every body is bounded while it is read ---------------------------------------------------


def _source(url: str, http: Client) -> object:
    return HTTPSource(url, client=http).read_at(0, 10)


def _sized(url: str, http: Client) -> object:
    return HTTPSource(url, client=http, size=1000).read_at(0, 10)


def _registry(ask: Callable[[RegistryClient, Reference], object]) -> Callable[[str, Client], None]:
    def run(url: str, http: Client) -> None:
        reference = Reference(url.partition("://")[2], "team/app", "v1")
        with RegistryClient(http=http) as registry:
            ask(registry, reference)

    return run


_ENTRY = Descriptor("application/octet-stream", _DIGEST, 1000)
READERS = {
    "a blob": _source,
    "a range": _sized,
    "a manifest": _registry(lambda registry, image: registry.manifest(image)),
    "a blob of a registry": _registry(lambda registry, image: registry.read_blob(image, _ENTRY)),
    "tags": _registry(lambda registry, image: list(registry.tags(image))),
    "a catalog": _registry(lambda registry, image: list(registry.catalog(image.registry))),
    "referrers": _registry(lambda registry, image: registry.referrers(image, _DIGEST)),
    "the digest of a tag": _registry(lambda registry, image: registry.digest(image)),
}
ENDLESS = {
    "200, a chunk of -1": _CHUNKED + b"-1\r\n",
    "206, a chunk of -1": (
        b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-9/1000\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"-1\r\n"
    ),
    "404, a chunk of -1": (b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"),
    "500, a chunk of -1": (b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"),
    "401, a chunk of -1": (
        b'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="http://%s/token"\r\n'
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n"
    ),
    "a redirect, a chunk of -1": (
        b"HTTP/1.1 302 No\r\nLocation: /\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"
    ),
    "200, a chunk of 2^59": _CHUNKED + b"800000000000000\r\n",
    "200, no length": b"HTTP/1.1 200 OK\r\n\r\n",
    "200, a length of 10^17": b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000000000\r\n\r\n",
    "404, no length": b"HTTP/1.1 404 No\r\n\r\n",
    "404, encoded": b"HTTP/1.1 404 No\r\nContent-Encoding: gzip\r\n\r\n",
    "endless headers": b"HTTP/1.1 200 OK\r\nX: ",
}


# A blob may be of any size, and one without ranges goes to the disk.
_GOOD = [("a blob", "200, no length"), ("a blob", "200, a chunk of 2^59")]


@pytest.mark.parametrize(
    ("reader", "endless"),
    [pair for pair in itertools.product(READERS, ENDLESS) if pair not in _GOOD],
)
def test_every_body_is_bounded_while_it_is_read(client, reader, endless):
    answer = ENDLESS[endless]
    with Raw(b"", flood=bytes(1 << 20)) as server:
        server.answer = answer.replace(b"%s", server.host.encode())
        with pytest.raises((SourceError, RegistryError)):
            READERS[reader](server.url, client)
        assert server.sent < _BUFFERS * max(1, server.requests)


def test_a_token_is_bounded_while_it_is_read(client):
    with Raw(b"", flood=bytes(1 << 20)) as tokens, Raw(b"") as server:
        tokens.answer = _CHUNKED + b"-1\r\n"
        server.answer = (
            b'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="http://%s/token"\r\n'
            b"Content-Length: 0\r\n\r\n" % tokens.host.encode()
        )
        with pytest.raises(RegistryError, match="malformed"):
            READERS["a manifest"](server.url, client)
        assert tokens.sent < _BUFFERS * tokens.requests
