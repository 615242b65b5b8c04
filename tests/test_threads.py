"""One layer used by many threads at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blobs
import pytest

import stargz
from stargz.sources import FileObjectSource

THREADS = 16
CONTENTS = {f"d/f{n}": blobs.noise(f"{n}", 30_000 * (n + 1)) for n in range(12)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = blobs.build(blobs.tar_of(list(CONTENTS.items())), chunk_size=65_536, pack=2, level=1)
    path = tmp_path_factory.mktemp("threads") / "layer"
    path.write_bytes(made.data)
    return path


def together(work: Callable[[int], object]) -> None:
    """Run work(0) to work(15) at once; the first exception is raised."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> None:
        start.wait()
        work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(run, number) for number in range(THREADS)]:
            future.result()


@pytest.mark.parametrize("how", ["file", "memory", "file object"])
@pytest.mark.parametrize("verify", [True, False])
def test_random_reads(path: Path, how: str, verify: bool) -> None:
    with path.open("rb") as file:
        source = {
            "file": path,
            "memory": path.read_bytes(),
            "file object": FileObjectSource(file),
        }[how]
        with stargz.open(source, verify=verify) as layer:

            def work(number: int) -> None:
                dice = random.Random(number)
                for _ in range(60):
                    name = dice.choice(list(CONTENTS))
                    content = CONTENTS[name]
                    offset = dice.randrange(len(content))
                    size = dice.choice([1, 1000, 70_000, len(content)])
                    assert layer.read(name, offset, size) == content[offset : offset + size]

            together(work)


def test_file_objects_and_look_ups(path: Path) -> None:
    with stargz.open(path) as layer:

        def work(number: int) -> None:
            for name, content in CONTENTS.items():
                with layer.open(name) as file:
                    assert file.read(7) == content[:7]
                    assert file.read() == content[7:]
                assert layer.entry(name).size == len(content)
                assert sorted(layer.listdir("d")) == sorted(n[2:] for n in CONTENTS)

        together(work)


def test_verify_while_reading(path: Path) -> None:
    with stargz.open(path, threads=3) as layer:

        def work(number: int) -> None:
            if number % 4 == 0:
                assert layer.verify().ok
            else:
                for name, content in CONTENTS.items():
                    assert layer.read(name) == content

        together(work)


def test_close_while_reading(path: Path) -> None:
    for _ in range(5):
        layer = stargz.open(path)
        first = threading.Event()

        def work(number: int, layer: stargz.Layer = layer, first: threading.Event = first) -> None:
            if number == 0:
                first.wait()
                layer.close()
                return
            with pytest.raises(ValueError, match="the layer is closed"):
                while True:
                    for name, content in CONTENTS.items():
                        assert layer.read(name) == content
                        first.set()

        together(work)
