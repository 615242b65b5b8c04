"""Random trees, options and reads: what comes out is what went in."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stargz

SEGMENTS = st.text(alphabet="abcé.-_ ", min_size=1, max_size=8).filter(
    lambda s: s.strip(".") and s == s.strip()
)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    size = draw(
        st.one_of(st.integers(0, 40), st.integers(0, 20_000), st.sampled_from([4096, 8192]))
    )
    kind = draw(st.sampled_from("zrt"))
    if kind == "z":
        return bytes(size)
    rng = random.Random(draw(st.integers(0, 1000)))
    return rng.randbytes(size) if kind == "r" else (rng.randbytes(7) * size)[:size]


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes]:
    """Files by name; a name may be longer than a ustar header holds."""
    folders = ["", "d/", "d/e/", "long" * 30 + "/"]
    names = {
        draw(st.sampled_from(folders)) + draw(SEGMENTS) + "-"
        for _ in range(draw(st.integers(0, 12)))
    }
    prefix = draw(st.sampled_from(["", "./", "/"]))
    return {prefix + name: draw(contents()) for name in sorted(names)}


def tar_of(files: dict[str, bytes], format: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid = len(data), 1_600_000_000, 1000
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


OPTIONS = st.fixed_dictionaries(
    {
        "level": st.sampled_from([1, 2, 3, 6, 12]),
        "chunk_size": st.sampled_from([1024, 4096, 10_000, 4 << 20]),
        "min_chunk_size": st.sampled_from([0, 1, 5000, 100_000]),
        "lossless": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    trees(),
    OPTIONS,
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(1, 5),
    st.booleans(),
    st.data(),
)
def test_round_trip(
    files: dict[str, bytes],
    options: dict[str, Any],
    format: int,
    threads: int,
    packed: bool,
    data: st.DataObject,
) -> None:
    tar = tar_of(files, format)
    out = io.BytesIO()
    source = io.BytesIO(gzip.compress(tar, 1) if packed else tar)
    result = stargz.convert(source, out, threads=threads, **options)
    blob = out.getvalue()

    again = io.BytesIO()
    assert stargz.convert(io.BytesIO(tar), again, threads=1, **options).digest == result.digest

    with tarfile.open(fileobj=io.BytesIO(gzip.GzipFile(fileobj=io.BytesIO(blob)).read())) as tar_:
        for name, content in files.items():
            member = tar_.extractfile(name)
            assert member is not None
            assert member.read() == content

    with stargz.open(io.BytesIO(blob), toc_digest=result.toc_digest) as layer:
        assert layer.verify().ok
        for name, content in files.items():
            assert layer.entry(name).size == len(content)
            assert layer.read(name) == content
            start = data.draw(st.integers(0, len(content) + 10))
            size = data.draw(st.integers(-1, 9000))
            expected = content[start:] if size < 0 else content[start : start + size]
            assert layer.read(name, start, size) == expected


@settings(max_examples=25, deadline=None)
@given(trees().filter(lambda files: len(files) > 1), st.data())
def test_prioritized_round_trip(files: dict[str, bytes], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(sorted(files)), unique=True, min_size=1))
    out = io.BytesIO()
    stargz.convert(io.BytesIO(tar_of(files, tarfile.PAX_FORMAT)), out, prioritized=wanted)
    with stargz.open(io.BytesIO(out.getvalue())) as layer:
        assert layer.verify().ok
        names = [name for name in layer.names() if layer.entry(name).size]
        landmark = names.index(".prefetch.landmark")
        clean = [layer.entry(name).name for name in wanted if files[name]]
        assert names[:landmark] == clean
        for name, content in files.items():
            assert layer.read(name) == content


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_large_inputs_cross_many_slabs(threads: int) -> None:
    rng = random.Random(5)
    files = {f"f{n}": rng.randbytes(rng.choice([0, 10, 3000, 700_000])) for n in range(60)}
    files["huge"] = rng.randbytes(1 << 20) * 21
    tar = tar_of(files, tarfile.GNU_FORMAT)
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(tar), out, threads=threads)
    alone = io.BytesIO()
    assert stargz.convert(io.BytesIO(tar), alone, threads=3).digest == result.digest
    with stargz.open(io.BytesIO(out.getvalue())) as layer:
        assert layer.verify().ok
        assert all(layer.read(name) == content for name, content in files.items())
