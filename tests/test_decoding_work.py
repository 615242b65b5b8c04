"""How often members are decoded, counted by the bytes of the blob that are read for it.

Contents are stored, so that whoever decodes a member anew reads it anew."""

from __future__ import annotations

import itertools
import json
import os
import random
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blobs
import pytest
from faraway import Faraway
from mounts import wait_for

import stargz
from stargz._engine.chunks import DEMAND, Chunks
from stargz._engine.patch import walk
from stargz.errors import DigestError, GzipError
from stargz.layer import Layer

CHUNKS, SIZE = 300, 2000
CONTENT = blobs.noise("content", CHUNKS * SIZE)
RUN = 4000  # headers in the member of the chunks: 2 MiB
# What a decoder reads of a file at a time, and what else a test may read.
SLACK = 600_000


def bare(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row.pop("digest", None)
        row.pop("chunkDigest", None)


def made(pack: int = CHUNKS) -> blobs.Made:
    tar = blobs.tar_of([("f", CONTENT)] + [(f"d{n}", None) for n in range(RUN)])
    return blobs.build(tar, chunk_size=SIZE, pack=pack, level=0, edit=bare)


def many_members() -> blobs.Made:
    """All chunks are of one entry point, three of them in each of its members."""
    first = blobs.member(b"headers")
    parts = [CONTENT[at : at + 3 * SIZE] for at in range(0, len(CONTENT), 3 * SIZE)]
    data = b"".join(blobs.member(part, 0) for part in parts)
    rows = [
        {
            "name": "f",
            "type": "chunk" if at else "reg",
            "size": 0 if at else len(CONTENT),
            "offset": len(first),
            "chunkOffset": at,
            "innerOffset": at,
            "chunkSize": SIZE,
        }
        for at in range(0, len(CONTENT), SIZE)
    ]
    text = json.dumps({"version": 1, "entries": rows}).encode()
    return blobs.Made(blobs.with_toc(first + data, text), text, len(first + data))


MADE = {"one member": made(), "members": many_members(), "a third": made(CHUNKS // 3)}


@pytest.fixture(params=MADE)
def blob(request: pytest.FixtureRequest) -> blobs.Made:
    return MADE[request.param]


@pytest.fixture
def path(blob: blobs.Made, tmp_path: Path) -> Path:
    path = tmp_path / "layer"
    path.write_bytes(blob.data)
    return path


@pytest.fixture
def local(path: Path) -> Iterator[Layer]:
    with stargz.open(path) as layer:
        yield layer


def bytes_read() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        key, _, value = line.partition(": ")
        if key == "rchar":
            return int(value)
    raise AssertionError("no rchar")


def cost(work: Callable[[], object]) -> int:
    before = bytes_read()
    work()
    return bytes_read() - before


def pieces(size: int = SIZE) -> list[tuple[int, int]]:
    return [(at, size) for at in range(0, len(CONTENT), size)]


def read_whole(layer: Layer) -> None:
    assert layer.read("f") == CONTENT


def read_pieces(layer: Layer) -> None:
    for at, size in pieces():
        assert layer.read("f", at, size) == CONTENT[at : at + size]


def read_file(layer: Layer) -> None:
    with layer.open("f") as file:
        assert b"".join(iter(lambda: file.read(7000), b"")) == CONTENT


def read_table(layer: Layer) -> None:
    """As mounts do."""
    table = Chunks(0)
    table.add(layer.reader)
    for at, size in pieces(5000):
        out = bytearray(size)
        table.read_into(0, layer._file("f"), at, size, out)
        assert out == CONTENT[at : at + size]


READS = [read_whole, read_pieces, read_file, read_table]


@pytest.mark.parametrize("read", READS)
def test_members_are_decoded_twice_at_most(
    blob: blobs.Made, local: Layer, read: Callable[[Layer], None]
) -> None:
    read(local)  # modules, the index
    with stargz.open(local.name) as layer:
        layer.chunks("f")
        assert cost(lambda: read(layer)) < 2 * len(blob.data) + SLACK


@pytest.mark.parametrize("read", READS)
def test_a_second_time_no_check_sum_is_looked_for(
    blob: blobs.Made, local: Layer, read: Callable[[Layer], None]
) -> None:
    read(local)
    assert cost(lambda: read(local)) < len(blob.data) + SLACK


def test_backwards_only_what_is_before_a_chunk_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(MADE["one member"].data)
    with stargz.open(path) as layer:
        layer.read("f", 0, 1)
        few = [len(CONTENT) - SIZE, len(CONTENT) // 2, 0] * 4
        assert cost(lambda: [layer.read("f", at, SIZE) for at in few]) < 14 * len(CONTENT)


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_share_a_member(blob: blobs.Made, path: Path, threads: int) -> None:
    with stargz.open(path, threads=threads) as layer:
        layer.chunks("f")
        # Enough of it for threads: the index is all there is in between.
        assert cost(lambda: read_whole(layer)) < 2 * len(blob.data) + SLACK


@pytest.mark.parametrize("threads", [1, 4])
def test_extract(blob: blobs.Made, local: Layer, threads: int, tmp_path: Path) -> None:
    def extract() -> None:
        local.extractall(tmp_path / str(next(numbers)), ["f"], threads=threads)

    numbers = itertools.count()
    extract()
    assert cost(extract) < 2 * len(blob.data) + SLACK
    assert (tmp_path / "1/f").read_bytes() == CONTENT


def test_verify_and_members(blob: blobs.Made, local: Layer) -> None:
    def members() -> None:
        walk(local.blob, local._rows, local.data_end, local._members_end(), 2)

    local.verify()
    assert cost(local.verify) < len(blob.data) + SLACK
    assert cost(members) < len(blob.data) + SLACK


def test_a_blob_that_is_fetched(blob: blobs.Made) -> None:
    source = Faraway(blob.data)
    with stargz.open(source, cache=False) as layer:
        source.log.clear()
        assert layer.read("f") == CONTENT
        assert source.total < 2 * len(blob.data)
        assert layer.read("f") == CONTENT
        assert source.total < 4 * len(blob.data)


# --- what else is decoded from an entry point ----------------------------------------------------

MANY = blobs.noise("many", 4_000_000)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand chunks of one member."""
    made = blobs.build(blobs.tar_of([("f", MANY)]), chunk_size=SIZE, pack=10**6, level=0)
    path = tmp_path_factory.mktemp("many") / "layer"
    path.write_bytes(made.data)
    return path


@contextmanager
def served(layer: Layer, memory: int, behind: int = 2) -> Iterator[Callable[[int], None]]:
    """Reads of a chunk, with threads behind them as mounts have."""
    table = Chunks(memory)
    table.add(layer.reader)
    number = layer._file("f")
    threads = [threading.Thread(target=table.slow) for _ in range(behind)]

    def read(at: int) -> None:
        out = bytearray(SIZE)
        table.read_into(0, number, at, SIZE, out)
        assert out == MANY[at : at + SIZE]

    for thread in threads:
        thread.start()
    try:
        yield read
    finally:
        table.stop()
        for thread in threads:
            thread.join()


def test_the_rest_is_decoded_after_a_read(many: Path) -> None:
    with stargz.open(many) as layer, served(layer, 64 << 20) as read:
        before = bytes_read()
        read(len(MANY) // 2)
        wait_for(lambda: bytes_read() - before > len(MANY))
        places = range(0, len(MANY), SIZE)
        assert cost(lambda: [read(at) for at in random.Random(1).sample(places, 500)]) < 100_000


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_no_more_of_it_than_memory_is_for(many: Path, memory: int) -> None:
    with stargz.open(many) as layer, served(layer, memory) as read:
        before = bytes_read()
        read(0)
        if memory:
            wait_for(lambda: bytes_read() - before > memory // 4)
        time.sleep(0.1)
        assert bytes_read() - before < SLACK + memory // 4
        read(len(MANY) - SIZE)


@pytest.mark.parametrize("behind", [0, 2])
def test_who_comes_to_it_decodes_for_others(many: Path, behind: int) -> None:
    """Eight threads want chunks of one member, which is decoded once."""
    dice = random.Random(1)
    with stargz.open(many) as layer, served(layer, 64 << 20, behind) as read:
        start = threading.Barrier(8)

        def work(places: list[int]) -> None:
            start.wait()
            for at in places:
                read(at)

        def all_at_once() -> None:
            with ThreadPoolExecutor(8) as pool:
                places = [dice.sample(range(0, len(MANY), SIZE), 100) for _ in range(8)]
                list(pool.map(work, places))

        assert cost(all_at_once) < len(MANY) + SLACK


@pytest.mark.parametrize("behind", [0, 2])
@pytest.mark.parametrize("memory", [0, 50_000, 1 << 20])
def test_in_little_memory_it_is_right_too(many: Path, memory: int, behind: int) -> None:
    with stargz.open(many) as layer, served(layer, memory, behind) as read:

        def work(number: int) -> None:
            dice = random.Random(number)
            for _ in range(40):
                at = dice.randrange(len(MANY) // SIZE)
                for near in range(at, min(at + 5, len(MANY) // SIZE)):
                    read(near * SIZE)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))


def test_what_is_broken_fails_for_all(many: Path, tmp_path: Path) -> None:
    path = tmp_path / "layer"
    data = many.read_bytes()
    broken = 1_000_000
    path.write_bytes(spoiled(data, data.index(MANY[broken : broken + 100])))
    with stargz.open(path) as layer, served(layer, 64 << 20) as read:

        def work(number: int) -> None:
            for at in [broken, *range(number * SIZE, len(MANY), 60 * SIZE), broken]:
                if at == broken:
                    with pytest.raises(DigestError, match="f: a chunk does not match"):
                        read(at)
                else:
                    read(at)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(0, 60, 10)))


# --- what is broken ------------------------------------------------------------------------------


def spoiled(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("table", [False, True])
def test_a_member_that_was_broken_is_not_decoded_again(table: bool, tmp_path: Path) -> None:
    blob = MADE["one member"]
    path = tmp_path / "layer"
    path.write_bytes(spoiled(blob.data, blob.toc_offset - 8))  # its CRC
    with stargz.open(path) as layer:
        chunks = Chunks(0)
        chunks.add(layer.reader)

        def read(at: int, size: int) -> None:
            if table:
                chunks.read_into(0, layer._file("f"), at, size, bytearray(size))
            else:
                layer.read("f", at, size)

        def read_all() -> None:
            for at, size in pieces():
                with pytest.raises(GzipError, match=r"'f': .*CRC-32 is .* trailer says"):
                    read(at, size)

        assert cost(read_all) < len(blob.data) + SLACK


def test_a_member_before_a_broken_one_is_right(tmp_path: Path) -> None:
    blob = MADE["members"]
    path = tmp_path / "layer"
    bad = blob.data.index(CONTENT[60 * SIZE : 60 * SIZE + 100])  # the 21st member's
    path.write_bytes(spoiled(blob.data, bad))
    with stargz.open(path) as layer:
        for _ in range(2):
            for at, size in [*pieces()[::-7], *pieces()]:
                if at < 60 * SIZE:
                    assert layer.read("f", at, size) == CONTENT[at : at + size]
                else:
                    with pytest.raises(GzipError, match="CRC-32"):
                        layer.read("f", at, size)


def test_fetched_bytes_that_were_broken_may_be_right_later() -> None:
    blob = MADE["one member"]
    bad = spoiled(blob.data, blob.data.index(CONTENT[5 * SIZE : 5 * SIZE + 100]))
    with stargz.open(Faraway(blob.data), cache=False) as layer:
        for _ in range(3):
            assert "CRC-32 is" in delivered(layer, bad)
        assert delivered(layer, blob.data) == ""
        # What was right once is checked again when it is fetched again.
        assert "right before" in delivered(layer, bad)
        assert delivered(layer, blob.data) == ""


def delivered(layer: Layer, data: bytes) -> str:
    """Read some bytes that this blob's are delivered for; what the reader's error says."""
    table = Chunks(0)
    table.add(layer.reader)
    table.unasked(ahead=False)
    out = bytearray(10)
    failed: list[str] = []

    def read() -> None:
        try:
            table.read_into(0, layer._file("f"), 5 * SIZE, 10, out)
        except GzipError as error:
            failed.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    job = table.next(DEMAND, 30_000)
    assert job is not None
    try:
        table.deliver(job, data[job.offset : job.offset + job.size])
    except GzipError as error:
        table.fail(job, error)
    thread.join()
    assert failed or out == CONTENT[5 * SIZE : 5 * SIZE + 10]
    return "".join(failed)


# --- chunks of several windows -------------------------------------------------------------------

WINDOW = 64 << 20
LARGE = 2 * WINDOW + (2 << 20)


@pytest.fixture(scope="module", params=["digest", "none"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of one chunk, in a member of a tenth of its size."""
    folder = tmp_path_factory.mktemp("large")
    block = os.urandom(1024)
    with (folder / "f").open("wb") as file:
        for at in range(0, LARGE, 1 << 18):
            piece = os.urandom(20_000) + block * 250
            file.write(piece[: min(1 << 18, LARGE - at)].ljust(1 << 18, b"x"))
    with tarfile.open(folder / "f.tar", "w") as tar:
        tar.add(folder / "f", "f")
    kind = "estargz" if request.param == "digest" else "stargz"
    stargz.convert(folder / "f.tar", folder / "layer", chunk_size=1 << 30, format=kind, level=1)
    (folder / "f.tar").unlink()
    if request.param == "none":
        with stargz.open(folder / "layer") as layer:
            rows = json.loads(layer.read_toc())["entries"]
            end, kind = layer.toc_offset, layer.kind
        bare(rows)
        text = json.dumps({"version": 1, "entries": rows}).encode()
        blob = (folder / "layer").read_bytes()[:end]
        (folder / "layer").write_bytes(blobs.with_toc(blob, text, kind))
    return folder


def test_windows_go_on_where_they_stopped(large: Path) -> None:
    size = (large / "layer").stat().st_size
    assert size > 10 * SLACK
    content = (large / "f").read_bytes()
    with stargz.open(large / "layer") as layer, layer.open("f") as file:
        layer.chunks("f")

        def read() -> None:
            for at in range(0, LARGE, 1 << 20):
                assert file.read(1 << 20) == content[at : at + (1 << 20)]

        assert cost(read) < 2 * size + 2 * SLACK
    with stargz.open(large / "layer") as layer:
        layer.chunks("f")
        table = Chunks(0)
        table.add(layer.reader)

        def read_table() -> None:
            for at in range(0, LARGE, 1 << 20):
                out = bytearray(1 << 20)
                table.read_into(0, layer._file("f"), at, 1 << 20, out)
                assert out == content[at : at + (1 << 20)]

        assert cost(read_table) < 2 * size + 2 * SLACK
        assert cost(layer.verify) < size + 2 * SLACK


def test_windows_that_are_fetched_go_on_too(large: Path) -> None:
    data, content = (large / "layer").read_bytes(), (large / "f").read_bytes()
    source = Faraway(data)
    with stargz.open(source, cache=False) as layer:
        source.log.clear()
        with layer.open("f") as file:
            for at in range(0, LARGE, 1 << 20):
                assert file.read(1 << 20) == content[at : at + (1 << 20)]
        print(source.log)
        assert source.total < 2 * len(data) + (16 << 20)


def test_a_window_that_is_another_the_second_time(large: Path, tmp_path: Path) -> None:
    path = tmp_path / "layer"
    data = bytearray((large / "layer").read_bytes())
    path.write_bytes(data)
    with stargz.open(path) as layer:
        layer.read("f", 0, 1)
        for at in range(len(data) * 3 // 4, len(data) * 3 // 4 + 4000, 37):
            data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises((GzipError, DigestError)):
            layer.read("f", 2 * WINDOW - (1 << 20), 1)
            layer.read("f", 2 * WINDOW + 1, 1)
