"""Which index an ordinary tar is read by that is far away: nothing is fetched unasked."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import blobs
import fsspec
import ordinary
import pytest
from command import fails_here, here, ok_here
from faraway import Faraway
from ordinary import TEXT, beside, span_size
from servers import Fault, FaultProxy, nginx

import stargz
from stargz.errors import UnindexedError

TAR = ordinary.big_tar()
GZ = gzip.compress(TAR, 6)
DEFAULT = 4 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "any.tar.gz"
    made.write_bytes(GZ)
    return made


@pytest.fixture
def web(path: Path, tmp_path: Path) -> Any:
    (tmp_path / "nginx").mkdir()
    with nginx(tmp_path, tmp_path / "nginx") as url, FaultProxy(url) as proxy:
        yield proxy


def test_nothing_is_fetched_unasked(web: FaultProxy, path: Path, user_cache: Path) -> None:
    url = f"{web.url}/{path.name}"
    text = fails_here(1, "ls", url)
    assert f"an ordinary tar.gz of {len(GZ):,} bytes" in text
    assert "--build-index" in text and "index=" not in text
    assert [r.path for r in web.log if r.status < 400].count("/any.tar.gz.index") == 0
    assert sum(r.sent for r in web.log) < len(GZ) + 4096  # it is so small that its tail is all
    with pytest.raises(UnindexedError, match='index="build"'):
        stargz.open(url)
    assert not list(user_cache.glob("index/*"))


def test_a_layer_without_its_footer_is_called_so(web: FaultProxy, tmp_path: Path) -> None:
    """No ordinary tar.gz, of which an index could be made."""
    layer = tmp_path / "cut.stargz"
    stargz.convert(GZ, layer)
    layer.write_bytes(layer.read_bytes()[:-51])
    for code, command in ((1, "ls"), (3, "verify")):
        text = fails_here(code, command, f"{web.url}/{layer.name}")
        assert "begins as a seekable layer and has no footer: it was cut short" in text
    assert '"cut_short": "it begins as' in ok_here("info", "--json", f"{web.url}/{layer.name}")


@pytest.mark.parametrize("large", [True, False])
def test_what_has_come_whole_is_indexed_unasked(
    web: FaultProxy, path: Path, tmp_path: Path, user_cache: Path, large: bool
) -> None:
    """Nothing more is fetched for it: of a server without ranges, or small enough that its end is
    all."""
    if large:
        web.plan = lambda request: Fault(ignore_range=True)
        path.write_bytes(gzip.compress(ordinary.big_tar(2_000_000), 6))
    else:
        path.write_bytes(gzip.compress(blobs.tar_of([("d/text", TEXT)]), 6))
    url = f"{web.url}/{path.name}"
    done = here("cat", url, "d/text", text=False)
    assert (done.returncode, done.stdout) == (0, TEXT)
    assert ("the server has no ranges" in done.stderr) is large
    assert len(list(user_cache.glob("index/*"))) == 1
    assert [r.path for r in web.log if r.status < 400] == ["/any.tar.gz"]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UnindexedError):
        stargz.open(url, index=False)


def test_what_nothing_tells_from_another_is_not_kept(
    web: FaultProxy, path: Path, user_cache: Path
) -> None:
    """A tar whose server does not tell of versions: one of the same size has the same end."""
    tar = path.with_name("any.tar")
    url = f"{web.url}/{tar.name}"
    web.plan = lambda request: Fault(drop=("ETag", "Last-Modified"))
    for name in ("one", "two"):
        tar.write_bytes(blobs.tar_of([(name, b"content")]))
        with stargz.open(url, index="build") as layer:
            assert layer.names() == [name]
    assert not list(user_cache.glob("index/*"))
    # The end of a gzip member has its check sum.
    with stargz.open(f"{web.url}/{path.name}", index="build"):
        assert len(list(user_cache.glob("index/*"))) == 1


def test_asked_for_it_is_read_once(web: FaultProxy, path: Path, user_cache: Path) -> None:
    url = f"{web.url}/{path.name}"
    assert ok_here("cat", "--build-index", url, "d/text", text=False) == TEXT
    assert len(list(user_cache.glob("index/*"))) == 1
    for chunk in user_cache.glob("??/*"):
        chunk.unlink()
    web.reset()
    assert ok_here("cat", url, "d/text", text=False) == TEXT
    assert len(web.log) <= 4
    # Another blob of that name: nothing of the one before is used.
    other = bytearray(ordinary.big_tar())
    at = bytes(other).index(b"line 7 ")
    other[at : at + 6] = b"LINE 7"
    path.write_bytes(gzip.compress(bytes(other), 6))
    fails_here(1, "ls", url)
    assert b"LINE 7" in ok_here("cat", "--build-index", "--no-cache", url, "d/large", text=False)


def test_one_beside_a_url(web: FaultProxy, path: Path) -> None:
    url = f"{web.url}/{path.name}"
    beside(path)
    with stargz.open(url, cache=False) as layer:
        assert span_size(layer) == ordinary.SPAN
        assert layer.read("d/text") == TEXT
    assert ok_here("cat", url, "d/text", text=False) == TEXT
    # A query names nothing that has others beside it.
    web.reset()
    with pytest.raises(UnindexedError):
        stargz.open(f"{url}?token=1")
    assert not [r for r in web.log if ".index" in r.path]
    # A seekable layer is not looked beside.
    stargz.convert(path, path.with_name("layer.stargz"))
    web.reset()
    with stargz.open(f"{web.url}/layer.stargz"):
        assert [r.path for r in web.log] == ["/layer.stargz"]


def test_a_url_of_an_index(web: FaultProxy, path: Path, tmp_path: Path) -> None:
    index = beside(path).rename(tmp_path / "elsewhere.index")
    url = f"{web.url}/{path.name}"
    with stargz.open(url, index=f"{web.url}/elsewhere.index", cache=False) as layer:
        assert layer.read("d/small7").startswith(b"7 ")
    paths = [r.path for r in web.log]
    assert paths.count("/elsewhere.index") == 1 and len(paths) <= 4
    assert ok_here("cat", "--index", index, url, "d/text", text=False) == TEXT
    assert ok_here("cat", "--index", f"{web.url}/{index.name}", path, "d/text", text=False) == TEXT


def test_other_sources(path: Path) -> None:
    far = Faraway(GZ)
    with pytest.raises(UnindexedError):
        stargz.open(far)
    with stargz.open(Faraway(GZ), index="build", cache=False) as layer:
        assert layer.read("d/text") == TEXT
    index = beside(path).read_bytes()
    with stargz.open(Faraway(GZ), index=index, cache=False) as layer:
        assert layer.extractall(path.with_name("out"))
        assert path.with_name("out").joinpath("d/text").read_bytes() == TEXT
        assert layer.verify().ok
    memory = fsspec.filesystem("memory")
    memory.pipe("/any.tar.gz", GZ)
    try:
        with pytest.raises(UnindexedError):
            stargz.open("memory://any.tar.gz")
        with stargz.open("memory://any.tar.gz", index="build") as layer:
            assert span_size(layer) == DEFAULT
        memory.pipe("/any.tar.gz.index", index)
        with stargz.open("memory://any.tar.gz") as layer:
            assert span_size(layer) == ordinary.SPAN
    finally:
        memory.rm("/any.tar.gz")


def test_info_makes_none(path: Path, web: FaultProxy, user_cache: Path) -> None:
    for src in (path, f"{web.url}/{path.name}"):
        info = json.loads(ok_here("info", "--json", src))
        assert (info["kind"], info["size"], info["compression"]) == ("plain", len(GZ), "gzip")
        assert info["toc_digest"] is None
        assert "stargz index" in ok_here("info", src)
    assert not list(user_cache.glob("index/*"))
    ok_here("ls", path)
    info = json.loads(ok_here("info", "--json", path))
    assert info["kind"] == "indexed"
    assert info["uncompressed_size"] == len(TAR)
    assert info["blob_digest"] == blobs.sha256(GZ)
    assert info["diff_id"] == blobs.sha256(TAR)
    assert info["toc_offset"] is None
    assert info["toc_digest"] == blobs.sha256(ok_here("toc", path).encode())
    assert "longest_span" in ok_here("info", path)
