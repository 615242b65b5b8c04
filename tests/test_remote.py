"""Reads of layers that are not local: what is fetched for them, when, and what faults do."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import blobs
import bombs
import bounded
import command
import pytest
from absence import absent
from faraway import Faraway
from servers import Fault, FaultProxy, find_nginx, flip, nginx

import stargz
from stargz.cache import Cache
from stargz.errors import DigestError, GzipError, SourceError
from stargz.remote import Fetcher

FILES = {f"d{n % 7}/f{n:04}": blobs.noise(f"{n}", 500 + 37 * (n % 800)) for n in range(1200)}
LARGE = blobs.noise("large", 24_000_000)


def layer_of(files: dict[str, bytes], **options: object) -> bytes:
    return blobs.build(blobs.tar_of(list(files.items())), **options).data  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small_files() -> bytes:
    return layer_of(FILES)


@pytest.fixture(scope="module")
def large_file() -> bytes:
    return layer_of({"large": LARGE, "next": b"n" * 1000}, chunk_size=1 << 20)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def workers() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("stargz-fetch")}


others: set[threading.Thread] = set()  # of tests before, whose layers were not closed


@pytest.fixture(autouse=True)
def workers_of_others() -> None:
    others.clear()
    others.update(workers())


def no_workers() -> bool:
    return workers() <= others


def ended() -> None:
    """Wait for workers that were told to end."""
    for thread in workers() - others:
        thread.join(10)
        assert not thread.is_alive()


# --- what is asked for ----------------------------------------------------------------------------


def test_an_isolated_read_costs_little(small_files: bytes) -> None:
    source = Faraway(small_files)
    with stargz.open(source, cache=False) as layer:
        del source.log[:]
        assert layer.read("d5/f0600") == FILES["d5/f0600"]
        assert len(source.log) == 1
        assert source.total <= 128 << 10


def test_reading_on_asks_for_more_at_a_time(small_files: bytes) -> None:
    source = Faraway(small_files, delay=0.002)
    with stargz.open(source, cache=False) as layer:
        del source.log[:]
        source.peak = 0
        for name, content in FILES.items():
            assert layer.read(name) == content
    sizes = [size for _, size in source.log]
    assert sizes[0] <= 128 << 10
    assert sizes[:4] == sorted(sizes[:4])
    assert max(sizes) >= 2 << 20
    assert len(sizes) <= 30
    assert source.total <= len(small_files) * 1.05


def test_a_large_file_has_several_requests_under_way(large_file: bytes) -> None:
    for whole in (True, False):
        source = Faraway(large_file, delay=0.02)
        with stargz.open(source, cache=False) as layer:
            del source.log[:]
            source.peak = 0
            if whole:
                assert layer.read("large") == LARGE
            else:
                with layer.open("large") as file:
                    while piece := file.read(300_000):
                        assert piece == LARGE[file.tell() - len(piece) : file.tell()]
        assert source.peak >= 2
        assert max(size for _, size in source.log) >= 4 << 20
        assert len(source.log) <= 14
        assert source.total <= len(large_file) * 1.05


def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """700 MiB of contents in chunks of 4 MiB; the limit of processor time is what it checks too."""
    path = tmp_path / "layer"
    tar = tmp_path / "tar"
    with tar.open("wb") as out:
        import tarfile

        info = tarfile.TarInfo("zeros")
        info.size = 700 << 20
        out.write(info.tobuf())
        out.truncate(512 + info.size + 1024)
    stargz.convert(tar, path)
    code = """
class Far:
    def __init__(self, data):
        self.data, self.name, self.size = data, "far", len(data)
    def read_at(self, offset, size):
        return self.data[offset : offset + size]
    def read_ranges(self, ranges):
        return [self.read_at(*r) for r in ranges]
    def close(self):
        pass
with stargz.open(Far(open(sys.argv[1], "rb").read()), cache=False) as layer:
    before, total = peak(), 0
    with layer.open("zeros") as file:
        while piece := file.read(1 << 20):
            total += len(piece)
    print(total, peak() - before)
"""
    total, used = map(int, bounded.run(code, path, seconds=30).split())
    assert total == 700 << 20
    assert used <= 120


def test_the_whole_blob_is_read_in_large_blocks(large_file: bytes, tmp_path: Path) -> None:
    source = Faraway(large_file, delay=0.002)
    with stargz.open(source, cache=False) as layer:
        del source.log[:]
        source.peak = 0
        assert layer.verify().ok
        assert source.peak >= 2
        assert len(source.log) == -(-len(large_file) // (4 << 20))
        del source.log[:]
        layer.extractall(tmp_path / "out")
        assert (tmp_path / "out/large").read_bytes() == LARGE
        assert len(source.log) <= -(-len(large_file) // (4 << 20))
        del source.log[:]
        layer.extractall(tmp_path / "one", ["next"])
        assert source.total <= 1 << 18
        source.plan = lambda n, offset, size: b"" if offset else None
        with pytest.raises(SourceError, match="the source gave"):
            layer.verify()
    assert no_workers()


def test_what_is_read_stays_in_memory(small_files: bytes) -> None:
    source = Faraway(small_files)
    with stargz.open(source, cache=False) as layer:
        layer.read("d5/f0600")
        count = len(source.log)
        for at in range(0, 400, 100):
            assert layer.read("d5/f0600", at, 100) == FILES["d5/f0600"][at : at + 100]
        assert len(source.log) == count


def test_threads_share_what_is_fetched(small_files: bytes) -> None:
    source = Faraway(small_files, delay=0.001)
    wrong: list[str] = []

    def read(layer: stargz.Layer, step: int) -> None:
        names = list(FILES)
        for name in [names[n * step % len(names)] for n in range(200)]:
            if layer.read(name) != FILES[name]:
                wrong.append(name)

    with stargz.open(source, cache=False) as layer:
        del source.log[:]
        threads = [threading.Thread(target=read, args=(layer, s)) for s in (1, 7, 1, 11, 13, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert source.total <= len(small_files) * 1.1


def test_prefetch_and_background_fill_the_cache(tmp_path: Path) -> None:
    first = {f"first{n}": blobs.noise(f"p{n}", 30_000) for n in range(20)}
    landmark = {".prefetch.landmark": b"\x0f"}
    data = layer_of({**first, **landmark, **FILES})
    cache = Cache(tmp_path / "cache")
    source = Faraway(data)
    with stargz.open(source, cache=cache, prefetch=True, background=True) as layer:
        end = layer.prefetch_size
        assert end > 600_000
        for content in [*FILES.values(), *first.values(), b"\x0f"]:
            while not cache.store.has(sha(content), len(content)):
                time.sleep(0.01)
    assert source.log[1][0] < end
    assert all(size <= 5 << 18 for offset, size in source.log[2:] if offset > end)
    assert source.total <= len(data) * 1.05 + (512 << 10)
    source = Faraway(data)
    with stargz.open(source, cache=cache, background=True) as layer:
        for name, content in FILES.items():
            assert layer.read(name) == content
    assert len(source.log) == 1  # the TOC


def test_background_does_not_flood_the_cache(small_files: bytes, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 4 << 20)
    source = Faraway(small_files)
    with stargz.open(source, cache=cache, background=True):
        while cache.store.added <= 2 << 20:
            time.sleep(0.01)
        time.sleep(0.1)
    assert cache.store.added <= 5 << 20
    assert source.total <= len(small_files) // 2


def test_nothing_is_fetched_unasked_by_default(small_files: bytes, tmp_path: Path) -> None:
    source = Faraway(small_files)
    with stargz.open(source, cache=tmp_path / "cache") as layer:
        assert no_workers()
        layer.read("d0/f0000")
        gc.collect()
        time.sleep(0.05)
    assert len(source.log) == 2


# --- faults ---------------------------------------------------------------------------------------


def flipped(data: bytes, offset: int, size: int) -> bytes:
    return flip(data[offset : offset + size])


def test_bytes_damaged_on_the_way_are_fetched_again(
    small_files: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Faraway(small_files)
    cache = Cache(tmp_path)
    with stargz.open(source, cache=cache) as layer:
        source.plan = lambda n, at, size: flipped(small_files, at, size) if n == 1 else None
        with caplog.at_level(logging.INFO, "stargz"):
            assert layer.read("d5/f0600") == FILES["d5/f0600"]
        assert source.log[1] == source.log[2]
        assert "again" in caplog.text


def test_wrong_bytes_reach_neither_reader_nor_cache(
    small_files: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Faraway(small_files)
    cache = Cache(tmp_path)
    name = "d5/f0600"
    with stargz.open(source, cache=cache) as layer:
        source.plan = lambda _, at, size: flipped(small_files, at, size)
        for _ in range(2):
            with pytest.raises((DigestError, GzipError), match="faraway"):
                layer.read(name)
        assert len(source.log) == 5
        assert cache.info().chunks == 0
        source.plan = None
        assert layer.read(name) == FILES[name]
    # It is kept after the reader has it, and before the layer is closed.
    assert cache.store.get(sha(FILES[name]), len(FILES[name])) == FILES[name]


def test_one_bad_chunk_does_not_harm_its_neighbours(small_files: bytes) -> None:
    with stargz.open(small_files) as layer:
        (bad,) = layer.chunks("d3/f0024")
    middle = bad.offset + 200
    data = small_files[:middle] + flip(small_files[middle : middle + 1]) + small_files[middle + 1 :]
    with stargz.open(Faraway(data), cache=False) as layer:
        for name in list(FILES)[20:30]:
            if name == "d3/f0024":
                with pytest.raises((DigestError, GzipError), match="d3/f0024"):
                    layer.read(name)
            else:
                assert layer.read(name) == FILES[name]


def test_the_sources_own_exception_is_raised(small_files: bytes) -> None:
    source = Faraway(small_files)
    error = SourceError("the registry is on fire")

    def fail(n: int, offset: int, size: int) -> bytes | None:
        if offset < 1_000_000:
            raise error
        return None

    with stargz.open(source, cache=False) as layer:
        source.plan = fail
        with pytest.raises(SourceError) as caught:
            layer.read("d0/f0000")
        assert caught.value is error
        assert layer.read("d2/f1199") == FILES["d2/f1199"]
        source.plan = None
        assert layer.read("d0/f0000") == FILES["d0/f0000"]


def test_a_source_that_gives_too_much(small_files: bytes) -> None:
    source = Faraway(small_files)
    with stargz.open(source, cache=False) as layer:
        source.plan = lambda _, at, size: small_files[at : at + size + 1]
        with pytest.raises(SourceError, match="are wanted, the source gave"):
            layer.read("d0/f0000")


# --- life -----------------------------------------------------------------------------------------


def test_closing_ends_the_workers(small_files: bytes) -> None:
    source = Faraway(small_files)
    layer = stargz.open(source, cache=False)
    layer.read("d0/f0000")
    assert not no_workers()
    layer.close()
    assert no_workers()
    with pytest.raises(ValueError, match="closed"):
        layer.read("d0/f0000")


def test_a_forgotten_layer_ends_its_workers(small_files: bytes) -> None:
    layer = stargz.open(Faraway(small_files), cache=False)
    layer.read("d0/f0000")
    del layer
    gc.collect()
    ended()


def test_closing_does_not_wait_for_a_stuck_source(small_files: bytes, tmp_path: Path) -> None:
    source = Faraway(small_files, delay=0.01)
    layer = stargz.open(source, cache=tmp_path / "cache", background=True)
    assert source.waiting.acquire(timeout=30)  # the TOC came
    source.gate.clear()
    layer.reader.start()
    assert source.waiting.acquire(timeout=30)  # a background request waits at the gate
    layer.close()
    source.gate.set()
    ended()


def test_a_forked_process_reads_on(small_files: bytes) -> None:
    with stargz.open(Faraway(small_files), cache=False) as layer:
        layer.read("d0/f0000")
        pid = os.fork()
        if not pid:
            code = 1
            try:
                good = all(layer.read(name) == FILES[name] for name in list(FILES)[::50])
                layer.close()
                code = 0 if good else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert layer.read("d2/f1199") == FILES["d2/f1199"]


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), 2)", "if not os.fork(): sys.exit()"])
def test_the_interpreter_ends_with_workers_at_work(
    small_files: bytes, tmp_path: Path, ending: str
) -> None:
    (tmp_path / "layer").write_bytes(small_files)
    code = f"""
import os, sys, time
class Far:
    def __init__(self, data):
        self.data, self.name, self.size = data, "far", len(data)
    def read_at(self, offset, size):
        time.sleep(0.01)
        return self.data[offset : offset + size]
    def read_ranges(self, ranges):
        return [self.read_at(*r) for r in ranges]
    def close(self):
        pass
layer = stargz.open(Far(open(sys.argv[1], "rb").read()), cache=sys.argv[2], background=True)
layer.read("d0/f0000")
try:
    {ending or "pass"}
    time.sleep(0.02)
except KeyboardInterrupt:
    pass
"""
    assert bounded.run(code, tmp_path / "layer", tmp_path / "cache") == ""


# --- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, small_files: bytes
) -> Iterator[tuple[FaultProxy, Callable[[str], Path]]]:
    if find_nginx() is None:
        absent("nginx is not installed")
    root = tmp_path_factory.mktemp("served")
    (root / "small").write_bytes(small_files)
    with nginx(root, tmp_path_factory.mktemp("nginx")) as upstream, FaultProxy(upstream) as proxy:
        yield proxy, root.joinpath


def test_cat_of_a_small_file_costs_little(
    served: tuple[FaultProxy, Callable[[str], Path]], tmp_path: Path
) -> None:
    proxy, path = served
    import tarfile

    tar = tmp_path / "tar"
    with tarfile.open(tar, "w") as archive:
        for n in range(100):
            (tmp_path / "f").write_bytes(blobs.noise(f"big{n}", 1 << 20))
            archive.add(tmp_path / "f", f"usr/lib/f{n}")
        (tmp_path / "f").write_bytes(b"hello\n")
        archive.add(tmp_path / "f", "etc/hello")
    size = stargz.convert(tar, path("large")).size
    assert size > 100 << 20
    proxy.reset()
    assert command.ok("cat", f"{proxy.url}/large", "etc/hello") == "hello\n"
    assert proxy.requests <= 4
    assert proxy.bytes <= size // 100
    # And once more, from the cache: the TOC only.
    before = proxy.bytes
    assert command.ok("cat", f"{proxy.url}/large", "etc/hello") == "hello\n"
    assert proxy.bytes - before <= 512 << 10


def test_wrong_bytes_from_a_server(
    served: tuple[FaultProxy, Callable[[str], Path]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy, _ = served
    cache = Cache(tmp_path)
    bad = Fault(corrupt=flip)
    proxy.reset()
    with stargz.open(f"{proxy.url}/small", cache=cache) as layer:
        proxy.reset([bad])
        assert layer.read("d5/f0600") == FILES["d5/f0600"]
        assert proxy.requests == 2
    kept = cache.info().chunks
    assert kept
    proxy.reset()
    with stargz.open(f"{proxy.url}/small", cache=cache) as layer:
        proxy.reset(lambda _: bad)
        with pytest.raises((DigestError, GzipError)):
            layer.read("d4/f0004")
        assert cache.info().chunks == kept
        proxy.reset()
        assert layer.read("d4/f0004") == FILES["d4/f0004"]


def test_what_was_evicted_is_kept_again(small_files: bytes, tmp_path: Path) -> None:
    source = Faraway(small_files)
    cache = Cache(tmp_path)
    names = list(FILES)[:20]
    # Memory for one chunk: the others come from the disk, or not.
    fetcher = Fetcher(cache, memory=0)
    with stargz.open(source, fetcher=lambda: fetcher) as layer:
        for name in names:
            layer.read(name)
        cache.prune()
        for name in names:
            assert layer.read(name) == FILES[name]
        while cache.info().chunks < len(names):  # written after the reader was answered
            time.sleep(0.01)
        asked = len(source.log)
        for name in names:
            assert layer.read(name) == FILES[name]
        assert len(source.log) == asked
    fetcher.close()


def test_a_source_that_stalls_leaves_workers_for_others(small_files: bytes) -> None:
    stalled, healthy = Faraway(small_files, name="stalled"), Faraway(small_files)
    fetcher = Fetcher()
    threads = []
    with (
        stargz.open(stalled, fetcher=lambda: fetcher) as first,
        stargz.open(healthy, fetcher=lambda: fetcher) as second,
    ):
        stalled.gate.clear()
        for name in list(FILES)[::40]:
            threads.append(threading.Thread(target=first.read, args=(name,)))
            threads[-1].start()
        for _ in range(5):  # the tail, and four that are wanted
            assert stalled.waiting.acquire(timeout=20)
        name = next(iter(FILES))
        assert second.read(name) == FILES[name]
        stalled.gate.set()
        for thread in threads:
            thread.join()
    fetcher.close()


# --- what takes long to decode ------------------------------------------------------------------


@contextmanager
def decoding(fetcher: Fetcher) -> Iterator[None]:
    """With threads for what takes long, as mounts have."""
    threads = [threading.Thread(target=fetcher.decode, name="stargz-fetch-slow") for _ in range(2)]
    for thread in threads:
        thread.start()
    fetcher.start()
    try:
        yield
    finally:
        fetcher.close()
        for thread in threads:
            thread.join(60)
        ended()


@pytest.mark.parametrize("behind", [False, True], ids=["large chunks", "chunks behind much"])
def test_layers_do_not_keep_all_workers(tmp_path: Path, behind: bool) -> None:
    """Two would, of the four requests of each: others are answered meanwhile, and all can end."""
    names = [f"f{number}" for number in range(4)]
    bombs.layer(tmp_path / "bomb", names, 8 << 30, behind=behind)
    bomb = (tmp_path / "bomb").read_bytes()
    fetcher = Fetcher()
    failed: list[Exception] = []

    def read(number: int, row: int) -> None:
        try:
            fetcher.read_into(number, row, 0, 1, bytearray(1))
        except Exception as error:
            failed.append(error)

    layers = [stargz.open(Faraway(bomb, name=f"bomb{n}"), cache=False) for n in range(2)]
    good = stargz.open(Faraway(layer_of({"file": b"good"})), cache=False)
    readers = []
    for layer in layers:
        number = fetcher.add(layer.reader)
        for name in names:
            readers.append(threading.Thread(target=read, args=(number, layer._file(name))))
    number = fetcher.add(good.reader)
    with decoding(fetcher):
        before = [len(layer.source.log) for layer in layers]
        for reader in readers:
            reader.start()
        for layer, count in zip(layers, before, strict=True):
            until = time.monotonic() + 60
            while len(layer.source.log) < count + 4 and time.monotonic() < until:
                time.sleep(0.01)
        out = bytearray(4)
        fetcher.read_into(number, good._file("file"), 0, 4, out)
        assert out == b"good"
        assert not failed and all(reader.is_alive() for reader in readers)
    for reader in readers:
        reader.join(60)
    assert [type(error) for error in failed] == [ValueError] * 8
    for layer in (*layers, good):
        layer.close()


@pytest.mark.parametrize("large", [False, True], ids=["chunks behind others", "a large chunk"])
def test_what_takes_long_is_right(large: bool) -> None:
    """It is decoded once more, by another thread, and wrong bytes are told."""
    content = b"%8d" * (9 << 19) % tuple(range(9 << 19))
    half = len(content) // 2
    if large:
        files, options = {"a": content + content}, {"chunk_size": 1 << 30}
    else:
        files = {"a": content, "b": content[:10]}
        options = {"chunk_size": half + 1, "pack": 3}
    data = layer_of(files, level=1, **options)
    name, content = [*files.items()][-1]
    source = Faraway(data)
    with stargz.open(source, cache=False) as layer:
        for wrong in (False, True):
            fetcher = Fetcher()
            number = fetcher.add(layer.reader)
            out = bytearray(len(content))
            with decoding(fetcher):
                if wrong:
                    source.plan = lambda _, offset, size: flip(data[offset : offset + size])
                    with pytest.raises((DigestError, GzipError)):
                        fetcher.read_into(number, layer._file(name), 0, 10, out)
                else:
                    fetcher.read_into(number, layer._file(name), 0, len(out), out)
                    assert out == content
