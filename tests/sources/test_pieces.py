"""Blobs of a web server that are decoded while they come, and opened meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from absence import absent
from servers import Fault, FaultProxy, find_nginx, nginx

from stargz.errors import SourceError
from stargz.sources.http import Client, HTTPSource

BLOB = random.Random(1).randbytes(3 << 20)
PART = (12_345, 2_000_000)
BYTES = BLOB[PART[0] : sum(PART)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if find_nginx() is None:
        absent("nginx is not installed")
    root: Path = tmp_path_factory.mktemp("site")
    (root / "blob").write_bytes(BLOB)
    extra = f"location /plain/ {{ alias {root}/; max_ranges 0; }}"
    with nginx(root, tmp_path_factory.mktemp("nginx"), extra) as url:
        yield url


@pytest.fixture
def proxy(site: str) -> Iterator[FaultProxy]:
    with FaultProxy(site) as running:
        yield running


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(tries=3, backoff=0.005, max_wait=0.02, host_patience=0) as made:
        yield made


def test_pieces(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))
    pieces = list(source.read_pieces(*PART))
    assert b"".join(pieces) == BYTES
    assert len(pieces) > 10
    assert list(source.read_pieces(*PART))
    assert proxy.requests == 2 and proxy.connections == 1  # it is kept


def test_pieces_of_what_is_at_hand(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, tail=100_000)
    assert source.at_hand == 100_000
    assert b"".join(source.read_pieces(len(BLOB) - 70_000, 60_000)) == BLOB[-70_000:-10_000]
    assert proxy.requests == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(close_after=500_000), Fault(close_after=500_000, reset=True), Fault(status=503)],
)
def test_pieces_that_break_off_are_resumed(proxy: FaultProxy, client: Client, fault: Fault) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))
    proxy.plan = [fault]
    assert b"".join(source.read_pieces(*PART)) == BYTES
    assert proxy.requests == 2


def test_pieces_that_cannot_be_had(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))
    proxy.plan = lambda request: Fault(close_after=0)
    with pytest.raises(SourceError, match="broke off"):
        list(source.read_pieces(*PART))


@pytest.mark.parametrize("ends", [False, True])
def test_pieces_without_ranges(proxy: FaultProxy, client: Client, ends: bool) -> None:
    """Also where the server forgets of them meanwhile."""
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))
    proxy.plan = [Fault(close_after=300_000) if ends else Fault(ignore_range=True)]
    if ends:
        proxy.plan += [Fault(ignore_range=True)]
    assert b"".join(source.read_pieces(*PART)) == BYTES


def test_a_body_that_is_too_long(proxy: FaultProxy, client: Client) -> None:
    """What came of it is good, and the last piece is asked for anew."""
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))
    longer = f"bytes={PART[0]}-{sum(PART) + 1000}"
    said = f"bytes {PART[0]}-{sum(PART) - 1}/{len(BLOB)}"
    headers = {"Content-Range": said}
    proxy.plan = [Fault(ask_range=longer, headers=headers, drop=("Content-Length",))]
    assert b"".join(source.read_pieces(*PART)) == BYTES
    assert source.read_at(*PART) == BYTES


def test_pieces_that_nobody_takes(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, size=len(BLOB))
    pieces = source.read_pieces(*PART)
    assert BYTES.startswith(next(pieces))
    pieces.close()
    assert source.read_at(5, 100) == BLOB[5:105]


def test_opened_meanwhile(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/blob", client=client, tail=0)
    assert source.identity is not None  # which waits for it
    assert source.size == len(BLOB)
    assert source.read_at(*PART) == BYTES
    proxy.plan = [Fault(ignore_range=True)]  # no two threads fetch all of it
    source = HTTPSource(f"{proxy.url}/blob", client=client, tail=0)
    assert source.read_at(*PART) == BYTES
    assert proxy.requests == 3


def test_opened_meanwhile_in_vain(proxy: FaultProxy, client: Client) -> None:
    source = HTTPSource(f"{proxy.url}/none", client=client, tail=0)
    for _ in range(2):
        with pytest.raises(SourceError, match="404"):
            _ = source.size
    proxy.plan = [Fault(trickle_head=60)]  # whose head does not come
    source = HTTPSource(f"{proxy.url}/blob", client=client, tail=0)
    client.close()
    with pytest.raises(ValueError, match="closed"):
        _ = source.size
