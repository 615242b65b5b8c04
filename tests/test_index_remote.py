"""What the first read of an ordinary tar.gz by its index costs, where both are on a web server."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import blobs
import pytest
from absence import absent
from command import fails_here, ok_here
from servers import Fault, FaultProxy, Request, find_nginx, flip, nginx

import stargz
from stargz.sources.base import TAIL_MIN
from stargz.sources.http import Client, HTTPSource

FILES = [(f"d/{n}", blobs.noise(str(n), 100_000)) for n in range(60)]
NAME = "any.tar.gz"
INDEX = NAME + ".index"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """nginx over a folder with a tar.gz of two spans, and its index elsewhere."""
    if find_nginx() is None:
        absent("nginx is not installed")
    root = tmp_path_factory.mktemp("site")
    (root / NAME).write_bytes(gzip.compress(blobs.tar_of(FILES), 1))
    (root / "elsewhere").mkdir()
    stargz.index(root / NAME, root / "elsewhere" / INDEX)
    with nginx(root, tmp_path_factory.mktemp("nginx")) as url:
        yield url, root


@pytest.fixture
def web(site: tuple[str, Path]) -> Iterator[FaultProxy]:
    with FaultProxy(site[0]) as proxy:
        yield proxy


@pytest.fixture
def index(site: tuple[str, Path]) -> Path:
    return site[1] / "elsewhere" / INDEX


@pytest.fixture
def beside(site: tuple[str, Path], index: Path) -> Iterator[Path]:
    made = site[1] / INDEX
    made.write_bytes(index.read_bytes())
    yield made
    made.unlink()


def first_span(path: Path) -> int:
    """Bytes of the blob that the first span takes at most."""
    with stargz.open(path, index=path.with_name("elsewhere") / INDEX) as layer:
        return next(one.offset for name, _ in FILES if (one := layer.chunks(name)[0]).offset > 99)


def asked(web: FaultProxy, path: str) -> list[Request]:
    return [request for request in web.log if request.path == path]


def test_a_named_index(web: FaultProxy, site: tuple[str, Path], index: Path) -> None:
    """The index, the size of the blob meanwhile, and a span."""
    path = site[1] / NAME
    words = ["--no-cache", "--index", f"{web.url}/elsewhere/{INDEX}", f"{web.url}/{NAME}", "d/3"]
    assert ok_here("cat", *words, text=False) == FILES[3][1]
    assert len(asked(web, f"/elsewhere/{INDEX}")) == 1
    assert [r.range for r in asked(web, f"/{NAME}")][:1] == ["bytes=-1"]
    assert web.requests == 3 and web.connections <= 2
    assert web.bytes <= index.stat().st_size + 1 + first_span(path) + 1


def test_one_beside_the_blob(web: FaultProxy, site: tuple[str, Path], beside: Path) -> None:
    """The end of the blob, where a TOC could be, is all that it costs more."""
    path = site[1] / NAME
    assert ok_here("cat", "--no-cache", f"{web.url}/{NAME}", "d/3", text=False) == FILES[3][1]
    assert [r.path for r in web.log] == [f"/{NAME}", f"/{INDEX}", f"/{NAME}"]
    assert web.connections == 1
    assert web.bytes <= TAIL_MIN + beside.stat().st_size + first_span(path) + 1


def test_what_follows_is_not_waited_for(web: FaultProxy, index: Path) -> None:
    """A file is there once its own bytes are, though the span that holds it never comes."""
    with (
        Client(timeout=4, tries=1) as client,  # where it is waited for
        closing(HTTPSource(f"{web.url}/{NAME}", client=client)) as source,
        stargz.open(source, index=index, cache=False) as layer,
    ):
        web.plan = lambda request: Fault(stall_after=1 << 20)
        assert layer.read("d/1") == FILES[1][1]
        assert layer.read("d/0") == FILES[0][1]
    assert web.requests == 2


def test_a_body_that_breaks_off_is_resumed(web: FaultProxy, index: Path) -> None:
    with stargz.open(f"{web.url}/{NAME}", index=index, cache=False) as layer:
        web.reset([Fault(close_after=1 << 20)])
        assert layer.read("d/30") == FILES[30][1]
    assert [request.sent for request in web.log][:1] == [1 << 20]
    assert web.requests == 2


def test_bytes_that_are_wrong_are_not_given(web: FaultProxy, index: Path) -> None:
    with stargz.open(f"{web.url}/{NAME}", index=index, cache=False) as layer:
        web.reset([Fault(corrupt=flip)])
        assert layer.read("d/30") == FILES[30][1]  # once more
        assert web.requests == 2
    with stargz.open(f"{web.url}/{NAME}", index=index, cache=False) as layer:
        web.plan = lambda request: Fault(corrupt=flip)
        with pytest.raises(stargz.errors.StargzError, match="d/30"):
            layer.read("d/30")


def test_a_blob_that_is_not_there(web: FaultProxy, site: tuple[str, Path], index: Path) -> None:
    """It is opened while its index is read; either may fail."""
    for where in (index, f"{web.url}/elsewhere/{INDEX}"):
        assert "none.tar.gz" in fails_here(1, "ls", "--index", where, f"{web.url}/none.tar.gz")
    text = fails_here(1, "ls", "--index", f"{web.url}/none.index", f"{web.url}/{NAME}")
    assert "none.index" in text
    shorter = site[1] / "shorter.tar.gz"
    shorter.write_bytes((site[1] / NAME).read_bytes()[:-1])
    assert "the index of a blob of" in fails_here(
        1, "ls", "--index", index, f"{web.url}/shorter.tar.gz"
    )
