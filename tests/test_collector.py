"""What the garbage collector takes: objects of the engine whose memory points into others'."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref
from pathlib import Path

import blobs
import pytest
from faraway import Faraway

import stargz
from stargz.errors import SourceError

ENGINE = Path(__file__).parents[1] / "stargz/_engine"


class Breaking(Faraway):
    broken = False

    def read_at(self, offset: int, size: int) -> bytes:
        if self.broken:
            raise SourceError("the connection broke off")
        return super().read_at(offset, size)


def made() -> bytes:
    return blobs.build(
        blobs.tar_of([(f"f{n}", blobs.noise(f"{n}", 3000)) for n in range(300)])
    ).data


def fail_once(data: bytes) -> weakref.ref[Breaking]:
    """A layer is read, then a request fails; what is left of its source."""
    source = Breaking(data)
    with stargz.open(source, cache=False) as layer:
        layer.read("f1")
        source.broken = True
        with pytest.raises(SourceError, match="broke off"):
            layer.read("f299")
    return weakref.ref(source)


def test_an_error_of_a_request_keeps_nothing_alive() -> None:
    data = made()
    fail_once(data)  # caches and the like are there
    gc.collect()
    gc.disable()
    try:
        assert fail_once(data)() is None
    finally:
        gc.enable()


# Everything is in circles: only the collector can take it, in whatever order it likes.
CIRCLES = """
import gc, sys
sys.path.insert(0, {tests!r})
from test_collector import Breaking, made, stargz
from stargz._engine.chunks import Chunks
from stargz.tree import Tree
data = made()
for number in range(10):
    source = Breaking(data)
    layer = stargz.open(source, cache=False)
    layer.read("f1")
    source.broken = True
    try:
        layer.read("f299")
    except OSError as error:
        source.error = error
    local = stargz.open(data)
    table = Chunks(1 << 20)
    table.add(local.reader)
    table.read_into(0, local._file("f7"), 0, 3000, bytearray(3000))
    alone = Chunks(1 << 20)
    with stargz.open(data) as other:
        alone.add(other.reader)
        row = other._file("f7")
    alone.read_into(0, row, 0, 3000, bytearray(3000))
    del other
    tree = Tree([local])
    stream = local.iter_toc(100)
    next(stream)
    layer.close()
    circle = [alone]
    circle.append(circle)
    everything = [table, tree, local, layer, stream, local.reader, source]
    source.everything = everything
    everything.append(everything)
    del alone, circle, source, layer, local, table, tree, stream, everything
    gc.collect()
print("survived")
"""


@pytest.mark.parametrize("perturb", ["1", "165"])
def test_the_collector_takes_what_is_in_circles(perturb: str) -> None:
    # Freed memory is overwritten: who still reads it crashes.
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            CIRCLES.format(tests=str(Path(__file__).parent)),
        ],
        env={"MALLOC_PERTURB_": perturb, "PYTHONMALLOC": "malloc", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


# --- the classes as they are written ------------------------------------------------------------

CLASS = re.compile(r"^cdef class (\w+)[^\n]*:\n((?:(?:[ ]+[^\n]*)?\n)+)", re.M)
FIELD = re.compile(r"^    cdef (?:readonly )?(\w+) (\w+(?:, \w+)*)\s*(?:#.*)?$", re.M)
DEALLOC = re.compile(r"^    def __dealloc__\(self\):\n((?:(?:        [^\n]*)?\n)+)", re.M)


def test_what_ends_an_object_uses_nothing_of_pythons() -> None:
    """The collector may have emptied or freed any other object by then."""
    classes = [
        (path.name, *found)
        for pattern in ("*.pxd", "*.pyx", "*.pxi")
        for path in sorted(ENGINE.glob(pattern))
        for found in CLASS.findall(path.read_text())
    ]
    names = {name for _, name, _ in classes}
    python = names | {"object", "list", "dict", "tuple", "set", "str", "bytes", "bytearray"}
    python -= {"Py_buffer"}
    checked = 0
    for file, name, body in classes:
        for dealloc in DEALLOC.findall(body):
            module = file.partition(".")[0]
            bodies = [b for f, n, b in classes if n == name and f.partition(".")[0] == module]
            fields = {
                field: kind
                for text in bodies
                for kind, several in FIELD.findall(text)
                for field in several.split(", ")
            }
            used = set(re.findall(r"self\.(\w+)\b(?!\()", dealloc))
            assert not {field for field in used if fields.get(field) in python}, (file, name)
            checked += 1
    assert checked > 8
