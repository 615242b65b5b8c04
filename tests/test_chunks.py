"""The table of chunks and the disk cache's files, as Python sees them."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blobs
import pytest
from faraway import Faraway

import stargz
from stargz._engine.chunks import AHEAD, BACKGROUND, DEMAND, PREFETCH, Chunks, Job, Store
from stargz.errors import DigestError, GzipError, SourceError
from stargz.layer import Layer

FILES = {f"f{n:03}": blobs.noise(f"{n}", 3000 + 41 * n) for n in range(300)}


@pytest.fixture(scope="module")
def data() -> bytes:
    return blobs.build(blobs.tar_of(list(FILES.items()))).data


@pytest.fixture
def far(data: bytes) -> Iterator[Layer]:
    with stargz.open(Faraway(data), cache=False) as layer:
        yield layer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield Store(fd)
    os.close(fd)


def row(layer: Layer, name: str) -> int:
    return layer._file(name)


def reading(chunks: Chunks, layer: Layer, name: str) -> tuple[threading.Thread, list[Any]]:
    """Start a read; what it gave or raised is in the list once the thread has ended."""
    found: list[Any] = []

    def run() -> None:
        out = bytearray(len(FILES[name]))
        try:
            chunks.read_into(0, row(layer, name), 0, len(out), out)
            found.append(bytes(out))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def bytes_of(data: bytes, job: Job) -> bytes:
    return data[job.offset : job.offset + job.size]


def wanted(chunks: Chunks) -> Job:
    job = chunks.next(DEMAND, 30_000)
    assert job is not None
    return job


def test_a_local_layer_needs_no_workers(data: bytes) -> None:
    with stargz.open(data) as layer:
        for memory in (0, 100_000):
            chunks = Chunks(memory)
            assert chunks.add(layer.reader) == 0
            for name, content in FILES.items():
                out = bytearray(1000)
                chunks.read_into(0, row(layer, name), 500, 1000, out)
                assert out == content[500:1500]
            stats = chunks.stats()
            assert stats["read_bytes"] == 1000 * len(FILES)
            assert stats["touched_bytes"] == sum(map(len, FILES.values()))
            assert stats["fetched_requests"] == 0


def test_a_read_waits_for_its_delivery(far: Layer, data: bytes) -> None:
    chunks = Chunks(1 << 20)
    assert chunks.add(far.reader) == 0
    assert chunks.next(BACKGROUND, 0) is None
    thread, found = reading(chunks, far, "f007")
    job = wanted(chunks)
    assert (job.layer, job.priority, job.in_steps) == (0, DEMAND, False)
    assert job.offset == far.chunks("f007")[0].offset
    assert not found
    with pytest.raises(ValueError, match="bytes are wanted"):
        chunks.deliver(job, b"short")
    chunks.deliver(job, bytes_of(data, job))
    thread.join()
    assert found == [FILES["f007"]]
    assert chunks.stats()["fetched_bytes"] == job.size
    # Its neighbours came along.
    out = bytearray(10)
    chunks.read_into(0, row(far, "f008"), 0, 10, out)
    assert out == FILES["f008"][:10]


def test_wrong_bytes_wake_nobody(far: Layer, data: bytes) -> None:
    chunks = Chunks(1 << 20)
    chunks.add(far.reader)
    thread, found = reading(chunks, far, "f100")
    job = wanted(chunks)
    good = bytes_of(data, job)
    bad = good[:50] + bytes([good[50] ^ 1]) + good[51:]
    with pytest.raises((DigestError, GzipError)):
        chunks.deliver(job, bad)
    assert not found
    chunks.deliver(job, good)
    thread.join()
    assert found == [FILES["f100"]]


@pytest.mark.parametrize(
    "cause",
    [SourceError("the link is down"), ConnectionResetError(104, "reset"), RuntimeError("odd")],
)
def test_a_failure_is_its_cause_and_is_forgotten(far: Layer, data: bytes, cause: Exception) -> None:
    chunks = Chunks(1 << 20)
    chunks.add(far.reader)
    thread, found = reading(chunks, far, "f100")
    other, elsewhere = reading(chunks, far, "f299")
    jobs = [wanted(chunks), wanted(chunks)]
    jobs.sort(key=lambda job: job.offset)
    chunks.fail(jobs[0], cause)
    thread.join()
    assert found == [cause]
    chunks.deliver(jobs[1], bytes_of(data, jobs[1]))
    other.join()
    assert elsewhere == [FILES["f299"]]
    thread, found = reading(chunks, far, "f100")
    job = wanted(chunks)
    chunks.deliver(job, bytes_of(data, job))
    thread.join()
    assert found == [FILES["f100"]]
    assert chunks.stats()["failures"] == 1


def test_the_same_chunk_is_asked_for_once(far: Layer, data: bytes) -> None:
    chunks = Chunks(1 << 20)
    chunks.add(far.reader)
    reads = [reading(chunks, far, "f050") for _ in range(8)]
    job = wanted(chunks)
    assert chunks.next(BACKGROUND, 50) is None
    chunks.deliver(job, bytes_of(data, job))
    for thread, found in reads:
        thread.join()
        assert found == [FILES["f050"]]


def test_stop_ends_all_waiting(far: Layer) -> None:
    chunks = Chunks(1 << 20)
    chunks.add(far.reader)
    thread, found = reading(chunks, far, "f050")
    job = wanted(chunks)
    ended: list[object] = []
    worker = threading.Thread(target=lambda: ended.append(chunks.next()))
    worker.start()
    chunks.stop()
    worker.join()
    thread.join()
    assert ended == [None]
    assert "closed" in str(found[0])
    with pytest.raises(ValueError, match="closed"):
        chunks.read_into(0, row(far, "f051"), 0, 1, bytearray(1))
    chunks.fail(job, SourceError("late"))  # what was under way may end


def test_ctrl_c_ends_a_wait(far: Layer, data: bytes) -> None:
    chunks = Chunks(1 << 20)
    chunks.add(far.reader)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        chunks.read_into(0, row(far, "f050"), 0, 1, bytearray(1))
    timer.join()
    assert chunks.next(DEMAND, 0) is None  # it was given up
    thread, found = reading(chunks, far, "f050")
    job = wanted(chunks)
    chunks.deliver(job, bytes_of(data, job))
    thread.join()
    assert found == [FILES["f050"]]


def test_background_waits_for_what_is_wanted(far: Layer, data: bytes, store: Store) -> None:
    chunks = Chunks(1 << 20, store)
    chunks.add(far.reader, prefetch_end=100_000)
    assert chunks.next(BACKGROUND, 0) is None
    chunks.unasked(prefetch=True, background=True)
    first = chunks.next(BACKGROUND, 0)
    assert first is not None
    assert (first.priority, first.offset) == (PREFETCH, far.chunks("f000")[0].offset)
    assert first.offset + first.size >= 100_000
    assert chunks.next(BACKGROUND, 0) is None  # prefetch is under way
    chunks.deliver(first, bytes_of(data, first))
    background = chunks.next(BACKGROUND, 0)
    assert background is not None
    assert (background.priority, background.size <= 5 << 18) == (BACKGROUND, True)
    thread, found = reading(chunks, far, "f299")
    job = wanted(chunks)
    assert job.priority == DEMAND
    assert chunks.next(BACKGROUND, 0) is None
    chunks.deliver(job, bytes_of(data, job))
    thread.join()
    assert found == [FILES["f299"]]
    while background is not None:
        chunks.deliver(background, bytes_of(data, background))
        background = chunks.next(BACKGROUND, 0)
    for content in FILES.values():
        assert store.has(hashlib.sha256(content).digest(), len(content))
    # Nothing was fetched twice.
    assert chunks.stats()["fetched_bytes"] <= len(data) * 1.02


def test_background_waits_for_a_reader_that_goes_forward(
    far: Layer, data: bytes, store: Store
) -> None:
    """It would only overtake it."""
    chunks = Chunks(8 << 20, store)
    chunks.add(far.reader)

    def read(name: str) -> None:
        thread, found = reading(chunks, far, name)
        while thread.is_alive():
            if (job := chunks.next(AHEAD, 5)) is not None:
                chunks.deliver(job, bytes_of(data, job))
        assert found == [FILES[name]]
        while (job := chunks.next(AHEAD, 0)) is not None:
            chunks.deliver(job, bytes_of(data, job))

    names = iter(FILES)
    for _ in range(100):
        read(next(names))
    chunks.unasked(background=True)
    # Where the machine stands still after a read, the reader seems to have stopped.
    while read(next(names)) or (job := chunks.next(BACKGROUND, 0)) is not None:
        chunks.deliver(job, bytes_of(data, job))
    # The rest is there, and waits until it has.
    job = chunks.next(BACKGROUND, 30_000)
    assert job is not None
    assert job.priority == BACKGROUND


def test_without_a_store_nothing_is_prefetched(far: Layer) -> None:
    chunks = Chunks(1 << 20)
    chunks.add(far.reader, prefetch_end=100_000)
    chunks.unasked(prefetch=True, background=True)
    assert chunks.next(BACKGROUND, 0) is None


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("verify", [True, False])
def test_a_chunk_that_is_held_by_parts(local: bool, verify: bool) -> None:
    size = (64 << 20) + 1000
    content = bytes(size - 1000) + blobs.noise("end", 1000)
    made = blobs.build(blobs.tar_of([("big", content)]), chunk_size=1 << 30)
    source: Any = made.data if local else Faraway(made.data)
    with stargz.open(source, verify=verify, cache=False) as layer:
        chunks = Chunks(1 << 20)
        chunks.add(layer.reader)

        def work() -> None:
            while (job := chunks.next()) is not None:
                chunks.deliver(job, bytes_of(made.data, job))

        worker = threading.Thread(target=work)
        worker.start()
        out = bytearray(2000)
        chunks.read_into(0, row(layer, "big"), size - 2000, 2000, out)
        assert out == content[-2000:]
        chunks.stop()
        worker.join()


def test_chunks_of_one_member_are_decoded_once() -> None:
    """500 files share each member; read in order, its start is not decoded for each."""
    files = [(f"s{n:04}", blobs.noise(f"s{n}", 400)) for n in range(1000)]
    made = blobs.build(blobs.tar_of([*files]), pack=500)
    for read_order in (files, files[::-1]):
        with stargz.open(made.data) as layer:
            chunks = Chunks(1 << 20)
            chunks.add(layer.reader)
            for name, content in read_order:
                out = bytearray(400)
                chunks.read_into(0, row(layer, name), 0, 400, out)
                assert out == content


# --- the store ------------------------------------------------------------------------------------


def key(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_store(store: Store, tmp_path: Path) -> None:
    content = b"chunk" * 100
    assert store.get(key(content), 500) is None
    assert store.put(key(content), content)
    assert store.has(key(content), 500)
    assert not store.has(key(content), 499)
    assert store.get(key(content), 500) == content
    assert (store.added, store.hits, store.misses) == (500, 1, 1)
    name = key(content).hex()
    assert (tmp_path / name[:2] / name[2:]).read_bytes() == content
    with pytest.raises(ValueError, match="32 bytes"):
        store.get(b"", 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"x" * 500),
        lambda path: path.write_bytes(b"cut short"),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: path.unlink() or os.mkfifo(path),  # type: ignore[func-returns-value]
    ],
)
def test_damaged_files_are_replaced(
    store: Store, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    content = b"chunk" * 100
    assert store.put(key(content), content)
    name = key(content).hex()
    damage(tmp_path / name[:2] / name[2:])
    assert store.get(key(content), 500) is None
    assert store.put(key(content), content)
    assert store.get(key(content), 500) == content
