"""What a blob is called in other processes, its version, and what lies beside it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import fsspec
import pytest
from servers import Fault, FaultProxy, nginx

from stargz.errors import SourceError
from stargz.sources import MemorySource, as_source
from stargz.sources.fsspec_url import FsspecSource
from stargz.sources.http import HTTPSource


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"content")
    one, two = as_source(path), as_source(str(path))
    assert one.identity == two.identity is not None
    before = one.identity
    os.link(path, tmp_path / "link")
    name, version = one.identity
    assert name == before[0] and version != before[1]
    path.unlink()
    (tmp_path / "link").unlink()
    assert one.identity is None
    one.close()
    two.close()
    with tempfile.TemporaryFile() as file:
        assert as_source(file).identity is None
    assert getattr(MemorySource(b"x"), "identity", None) is None


def test_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"content")
    source = as_source(tmp_path / "blob")
    assert source.beside(".index") is None
    (tmp_path / "blob.index").write_bytes(b"index")
    found = source.beside(".index")
    assert found.read_at(0, found.size) == b"index"
    found.close()
    source.close()
    with (tmp_path / "blob").open("rb") as file:
        assert as_source(file).beside(".index") is None  # who knows where it is


def test_a_url(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    blob = tmp_path / "www/blob"
    blob.write_bytes(b"content")
    (tmp_path / "www/blob.index").write_bytes(b"index")
    with nginx(tmp_path / "www", tmp_path) as url, FaultProxy(url) as proxy:
        one, two = as_source(f"{proxy.url}/blob"), HTTPSource(f"{proxy.url}/blob", tail=0)
        assert one.identity[0] == two.identity[0]
        assert proxy.log[1].sent == 1
        found = one.beside(".index")
        assert found.read_at(0, found.size) == b"index"
        found.close()
        assert one.beside(".none") is None
        blob.write_bytes(b"changed")
        os.utime(blob, (1, 1))
        other = as_source(f"{proxy.url}/blob")
        assert other.identity[0] == one.identity[0] and other.identity[1] != one.identity[1]
        for status in (403, 404, 410):
            fault = Fault(status=status)
            proxy.reset(lambda _, fault=fault: fault)
            assert one.beside(".index") is None
        proxy.reset(lambda _: Fault(status=401))
        with pytest.raises(SourceError):
            one.beside(".index")
        proxy.reset()
        query = as_source(f"{proxy.url}/blob?signature=secret")
        assert query.beside(".index") is None
        assert [r.path for r in proxy.log] == ["/blob?signature=secret"]
        for source in (one, two, other, query):
            source.close()


def test_a_url_with_a_user(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www/blob").write_bytes(b"content")
    (tmp_path / "www/blob.index").write_bytes(b"index")
    with nginx(tmp_path / "www", tmp_path) as url, FaultProxy(url) as proxy:
        source = as_source(proxy.url.replace("://", "://user:secret@") + "/blob")
        assert "secret" not in repr(source.identity)
        found = source.beside(".index")
        assert "secret" not in found.name
        assert [r.headers.get("authorization", "")[:5] for r in proxy.log] == ["Basic"] * 2
        found.close()
        source.close()


def test_fsspec() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/blob", b"content")
    try:
        one = FsspecSource("memory://blob")
        assert one.identity == FsspecSource("memory://blob").identity
        assert one.beside(".index") is None
        memory.pipe("/blob.index", b"index")
        found = one.beside(".index")
        assert found is not None and found.read_at(0, found.size) == b"index"
        memory.pipe("/blob", b"changed")
        assert one.identity != FsspecSource("memory://blob").identity
    finally:
        memory.rm("/blob")
        memory.rm("/blob.index")
