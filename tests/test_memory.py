"""Small inputs do not take much memory: limits that open and convert share."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import blobs
import bounded
import pytest
from isal import igzip

import stargz
from stargz.errors import TarError

OPEN = """
with stargz.open(sys.argv[2]) as layer:
    layer.toc.listdir()
before = peak()
try:
    with stargz.open(sys.argv[1]) as layer:
        layer.toc.listdir()
    what = "opened"
except stargz.FormatError as error:
    what = str(error)
print(peak() - before, what)
"""
MANY = 150_000


def numbered(entry: str, count: int = MANY) -> Iterator[str]:
    return (entry.replace("#", str(n)) for n in range(count))


def chunks() -> Iterator[str]:
    yield f'{{"type":"reg","name":"f","size":{MANY},"offset":1,"chunkSize":1}}'
    for n in range(1, MANY):
        yield (f'{{"type":"chunk","offset":1,"innerOffset":{n},"chunkOffset":{n},"chunkSize":1}}')


# Shapes of a TOC: what is opened, and how what is not is refused.
SHAPES: dict[str, tuple[Iterator[str], str]] = {
    "the same": (numbered('{"type":"dir","name":"a"}', 400_000), "'a': the entries to here"),
    "short names": (numbered('{"type":"dir","name":"#"}', 400_000), "the entries to here take"),
    "long names": (
        numbered('{"type":"dir","name":"#' + ("/" + "n" * 200) * 10 + '"}', 9000), "opened",
    ),
    "deep names": (numbered('{"type":"dir","name":"#/' + "a/" * 2000 + '"}', 5000), "imply too"),
    "one deep place": (numbered('{"type":"dir","name":"' + "a/" * 2000 + '#"}', 5000), "opened"),
    "too deep": (numbered('{"type":"dir","name":"#/' + "a/" * 2100 + '"}', 1), "limit of 4095"),
    "bad bytes": (
        numbered('{"type":"dir","name":"#' + ("/" + "\udcff" * 200) * 4 + '"}', 50_000),
        "the entries to here take",
    ),
    "escapes": (numbered('{"type":"dir","name":"#' + "\\u00e9" * 99 + '"}', 30_000), "opened"),
    "xattrs": (
        numbered(
            '{"type":"dir","name":"#","xattrs":{'
            + ",".join(f'"{n:x}":""' for n in range(4000)) + "}}", 200,
        ),
        "opened",
    ),
    "more xattrs": (
        iter(['{"type":"dir","name":"a","xattrs":{'
              + ",".join(f'"{n}":""' for n in range(300_000)) + "}}"]),
        "more than 8192 xattrs",
    ),
    "chunks": (chunks(), "opened"),
    "links": (
        numbered('{"type":"hardlink","name":"h#","linkName":"h/../f"}', 400_000),
        "the entries to here take",
    ),
    "owners": (numbered('{"type":"dir","name":"#","userName":"u#","uid":#}'), "opened"),
    "brackets": (iter(['{"type":"dir","name":"a","x":' + "[" * 2040 + "]" * 2040 + "}"]), "opened"),
    "deeper brackets": (
        iter(['{"type":"dir","name":"a","x":' + "[" * 2050 + "]" * 2050 + "}"]), "too deeply",
    ),
    "a long value": (iter(['{"type":"dir","name":"a","x":"' + "x" * (15 << 20) + '"}']), "opened"),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_toc_takes_one_and_a_half_times_its_size(tmp_path: Path, shape: str) -> None:
    entries, says = SHAPES[shape]
    text = '{"version":1,"entries":[' + ",".join(entries) + "]}"
    data = text.encode(errors="surrogateescape")
    path = tmp_path / "blob"
    # Noise: else there are more entries than a blob of this size could have.
    path.write_bytes(blobs.with_toc(blobs.member(blobs.noise("room", 1 << 20)), data))
    small = tmp_path / "small"
    small.write_bytes(blobs.with_toc(b"", b'{"version":1,"entries":[]}'))
    memory, what = bounded.run(OPEN, path, small, seconds=30).split(" ", 1)
    assert says in what
    assert int(memory) <= (1.5 * len(data) + 50e6) / (1 << 20)


CONVERT = """
before = peak()
try:
    stargz.convert(sys.argv[1], sys.argv[2], threads=1)
    what = "converted"
except stargz.FormatError as error:
    what = str(error)
print(peak() - before, what)
"""


def headers(names: Iterator[str], kind: bytes) -> Iterator[bytes]:
    for name in names:
        info = tarfile.TarInfo(name)
        info.type = kind
        yield info.tobuf(tarfile.GNU_FORMAT)


def numbers(count: int, digits: int, kind: bytes) -> Iterator[bytes]:
    """Likewise, in a tenth of the time; names are numbers."""
    info = tarfile.TarInfo("0" * digits)
    info.type = kind
    block = info.tobuf(tarfile.USTAR_FORMAT)
    total = int(block[148:154], 8) - digits * ord("0")
    for n in range(count):
        name = b"%0*d" % (digits, n)
        yield name + block[digits:148] + b"%06o\0 " % (total + sum(name)) + block[156:]


def tar_of(members: Iterator[bytes], **fields: str) -> bytes:
    out = io.BytesIO()
    with igzip.IGzipFile(fileobj=out, mode="wb", compresslevel=1) as packed:
        if fields:
            packed.write(tarfile.TarInfo.create_pax_global_header(fields))
        packed.writelines(members)
        packed.write(bytes(1024))
    return out.getvalue()


DIR, REG = tarfile.DIRTYPE, tarfile.REGTYPE
# Made by the test: every process that runs tests reads this.
TARS: dict[str, tuple[Callable[[], bytes], str]] = {
    "names of a MiB": (
        lambda: tar_of(headers(numbered("#" + "x" * (1 << 19), 100), DIR)),
        "over the limit of 4095",
    ),
    "slashes": (
        lambda: tar_of(headers(numbered("#" + "/." * (1 << 18), 100), DIR)),
        "limit of 4095",
    ),
    "deep names": (
        lambda: tar_of(headers(numbered("#/" + "a/" * 2000, 1000), DIR)),
        "more memory than",
    ),
    "short names": (lambda: tar_of(numbers(1_200_000, 7, DIR)), "more memory than"),
    "a component": (
        lambda: tar_of(headers(iter(["a/" + "x" * 256]), REG)),
        "component of 256 bytes",
    ),
    "a long xattr name": (
        lambda: tar_of(headers(iter("a"), REG), **{"SCHILY.xattr.user." + "x" * 251: "1"}),
        "the name of an xattr has 256 bytes",
    ),
}


@pytest.mark.parametrize("kind", TARS)
def test_what_would_not_be_opened_is_not_written(tmp_path: Path, kind: str) -> None:
    make, says = TARS[kind]
    (tmp_path / "tar").write_bytes(make())
    memory, what = bounded.run(CONVERT, tmp_path / "tar", tmp_path / "blob").split(" ", 1)
    assert says in what
    assert int(memory) < 200
    assert not (tmp_path / "blob").exists()


def test_a_global_xattr_over_many_entries(tmp_path: Path) -> None:
    data = tar_of(numbers(14_000, 5, REG), **{"SCHILY.xattr.user.a": "v" * 60_000})
    with pytest.raises(TarError, match=r"has more than 1073741824 bytes, which is the limit"):
        stargz.convert(data, tmp_path / "blob")


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 256 MiB."""
    for root, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        made = root / f"stargz-test-{os.getpid()}"
        with suppress(OSError):
            made.mkdir()
            try:
                (made / limit).write_text(str(256 << 20))
                yield made
            finally:
                made.rmdir()
            return
    pytest.skip("control groups of memory cannot be made here (they are, as root on a machine)")


def test_memory_that_is_available(group: Path) -> None:
    script = "from stargz.options import available_memory as a; print(a())"
    inside = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    words = [sys.executable, "-c", script]
    bound = subprocess.check_output(["sh", "-c", inside, "sh", *words], cwd="/")
    assert int(bound) == 256 << 20
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < int(subprocess.check_output(words, cwd="/")) <= total


INDEX = """
from stargz._engine.index import build
small, large = (open(name, "rb") for name in sys.argv[1:])
build(small.fileno(), source_name="small", threads=1)
before = peak()
build(large.fileno(), source_name="large", threads=1)
print(peak() - before)
"""


def test_rows_are_not_there_twice(tmp_path: Path) -> None:
    """A row takes 160 bytes, where its entry is 32, the name 20, and the index of names 8 to 24."""
    count = 200_000
    (tmp_path / "small").write_bytes(b"".join(numbers(10, 20, REG)) + bytes(1024))
    with gzip.open(tmp_path / "large", "wb", 1) as out:
        out.writelines([*numbers(count, 20, REG), bytes(1024)])
    memory = bounded.run(INDEX, tmp_path / "small", tmp_path / "large")
    assert int(memory) < count * 350 >> 20
