"""Open layers in other processes: pickled as what they were opened of, never with credentials."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
from servers import nginx

import stargz
from stargz.cache import Cache
from stargz.errors import DigestError, NotPicklableError
from stargz.sources import LocalSource, MemorySource
from stargz.tree import Tree

DATA = Path(__file__).parent / "data"
TREE = DATA / "tree.esgz"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def again(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def head(layer: stargz.Layer, name: str) -> bytes:
    """What a worker does."""
    with layer:
        return layer.read(name, size=4)


@pytest.mark.parametrize("copied", [again, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", [str, Path, Path.read_bytes, lambda p: bytearray(p.read_bytes())])
def test_a_copy_is_a_layer_of_its_own(
    copied: Callable[[stargz.Layer], stargz.Layer], kind: Callable[[Path], Any]
) -> None:
    with stargz.open(kind(TREE), threads=1) as layer:
        other = copied(layer)
        assert other.toc_digest == layer.toc_digest
        assert other.read("setuid") == layer.read("setuid")
    assert not other.closed
    assert other.listdir() and other.read("setuid")
    other.close()


def test_relative_paths_mean_where_they_were_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(TREE, tmp_path / "layer")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with stargz.open("layer", cache="chunks") as layer:
        monkeypatch.chdir(tmp_path / "elsewhere")
        with again(layer) as other:
            assert other.name == str(tmp_path / "layer")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_options_and_trust_travel(tmp_path: Path) -> None:
    with stargz.open(TREE) as layer:
        digest = layer.toc_digest
        with again(layer) as other:
            assert not other.verified  # nobody vouched for the TOC: that it is the same is no trust
            assert not other.verify().verified
    with (
        stargz.open(
            TREE, toc_digest=digest, require_verified=True, cache=Cache(tmp_path / "c", 1 << 20)
        ) as layer,
        again(layer) as other,
    ):
        assert other.verified
    with stargz.open(TREE, verify=False) as layer, again(layer) as other:
        assert not other.reader.verified


def test_an_external_toc_travels(goldens: list[dict[str, Any]]) -> None:
    (case,) = [case for case in goldens if case["kind"] == "ext"][:1]
    blob = DATA / case["blob"]
    with stargz.open(blob, toc=f"{blob}.toc") as layer, again(layer) as other:
        assert other.names() == layer.names()


def test_another_layer_at_the_path_is_told(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    shutil.copy(TREE, path)
    with stargz.open(path) as layer:
        kept = pickle.dumps(layer)
    with pickle.loads(kept) as other:
        assert other.toc_digest == layer.toc_digest
    path.write_bytes(blobs.build(blobs.tar_of([("f", b"x")])).data)
    with pytest.raises(DigestError, match="table of contents"):
        pickle.loads(kept)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(kept)


def test_urls_travel_without_credentials(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    shutil.copy(TREE, tmp_path / "site/layer")
    with nginx(tmp_path / "site", tmp_path / "state") as server:
        url = f"{server}/layer"
        with stargz.open(url) as layer, again(layer) as other:
            assert other.read("setuid") == layer.read("setuid")
            assert other.name == url
        host = url.removeprefix("http://")
        for secret in (f"http://user:s3cret@{host}", f"{url}?sig=s3cret", f"http://s3cret@{host}"):
            with stargz.open(secret) as layer:
                for refused in (pickle.dumps, copy.copy, copy.deepcopy):
                    with pytest.raises(TypeError, match="may be secret") as caught:
                        refused(layer)
                    assert "s3cret" not in str(caught.value)
                    assert isinstance(caught.value, stargz.UsageError)
                    assert "\n" not in str(caught.value)


def test_what_cannot_be_opened_again_is_refused(tmp_path: Path) -> None:
    data = TREE.read_bytes()
    with TREE.open("rb") as file:
        for source, kind in [
            (file, "BufferedReader"),
            (io.BytesIO(data), "BytesIO"),
            (MemorySource(data), "MemorySource"),
            (LocalSource(TREE), "LocalSource"),
        ]:
            with stargz.open(source) as layer:
                for refused in (pickle.dumps, copy.copy):
                    with pytest.raises(NotPicklableError, match=f"was opened of a {kind}"):
                        refused(layer)
            if isinstance(source, LocalSource):
                source.close()
    layer.close()
    with pytest.raises(ValueError, match="closed"):
        pickle.dumps(layer)
    name = f"oci:{layouts.image(tmp_path / 'layout', [blobs.tar_of([('f', b'x')])]).path}"
    with stargz.open_image(name) as image:
        for open_one in (image, image.layers[0], image.tree):
            with pytest.raises(NotPicklableError, match="cannot be pickled"):
                pickle.dumps(open_one)


def test_trees_travel() -> None:
    with stargz.open(TREE) as layer:
        tree = again(Tree([layer], "raw", "shown"))
        assert (tree.name, tree.whiteouts) == ("shown", "raw")
        assert tree.listdir() == Tree([layer], "raw").listdir()
        tree.layers[0].close()
        whole = Tree([layer], "raw", landmarks=True)
        other = again(whole)
        assert other.listdir() == whole.listdir() != Tree([layer], "raw").listdir()
        other.layers[0].close()


def test_workers_read(tmp_path: Path) -> None:
    """As dask and multiprocessing do on systems without fork."""
    spawn = multiprocessing.get_context("spawn")
    with stargz.open(TREE) as layer, ProcessPoolExecutor(1, mp_context=spawn) as pool:
        expected = layer.read("setuid", size=4)
        assert pool.submit(head, layer, "setuid").result() == expected
        with pytest.raises(stargz.EntryNotFoundError) as caught:
            pool.submit(head, layer, "nope").result()
    assert str(caught.value) == f"{TREE}: no entry 'nope' in the layer"
