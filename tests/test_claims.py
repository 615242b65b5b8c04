"""What an index that nothing vouches for says of a file is compared with the file's tar header
before any of its content is handed out: locally, fetched, extracted; whichever chunk is first."""

from __future__ import annotations

import contextlib
import io
import os
import random
import tarfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blobs
import pytest
from faraway import Faraway
from mounts import cli_mount, needs_fuse
from mutated_tars import mutated_tar
from servers import nginx

import stargz
from stargz._engine import extract as _extract
from stargz._engine.chunks import DEMAND, Chunks
from stargz._engine.index import Index, build, load, load_ztoc
from stargz._engine.reader import Blob, Reader
from stargz.errors import TarError, TOCError
from stargz.sources.memory import MemorySource

SPAN = 64 << 10
SIZES = {"a": 10, "d/b": 3000, "d/large": 5 * SPAN + 77, "d/pax": 70_000, "e": 0, "z": 40_000}
FILES = {name: blobs.noise(name, size) for name, size in SIZES.items()}


def tar_of(edit: Callable[[tarfile.TarInfo], object] = lambda info: None) -> bytes:
    """The tar, whose headers are changed; where everything lies is always the same."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid = len(content), 0o640, 1000, 1001
            info.mtime = 1_000_000_000
            if name == "d/pax":
                info.pax_headers = {
                    "mtime": "1000000000.25",
                    "SCHILY.xattr.user.a": "value",
                    "comment": "c" * 70_000,  # headers of more than a span
                }
            edit(info)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def gzipped(tar: bytes, members: int, level: int) -> bytes:
    size = len(tar) // members + 1
    out = b""
    for at in range(0, len(tar), size):
        packer = zlib.compressobj(level, wbits=31)
        out += packer.compress(tar[at : at + size]) + packer.flush()
    return out


# Only stored: two tars of one length are then two blobs of one length with the same blocks.
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda tar: tar,
    "gzip": lambda tar: gzipped(tar, 1, 0),
    "members": lambda tar: gzipped(tar, 7, 0),
}


def index_of(blob: bytes, form: str = "made") -> Index:
    """An index as it was made, or as it comes out of a file."""
    soci = form == "ztoc"
    index = build(
        io.BytesIO(blob).read,
        source_name="x",
        span_size=SPAN,
        soci=soci,
        digests=not soci,
        threads=2,
    )
    if form == "made":
        return index
    pieces: list[bytes] = []
    if soci:
        index.write_ztoc(pieces.append)
        return load_ztoc(b"".join(pieces), blob_size=len(blob))
    index.dump(pieces.append)
    return load(b"".join(pieces))


def reader_of(source: Any, index: Index, *, claims: bool = True) -> Reader:
    return Reader(Blob(source), index.toc, source.size, True, 2, None, index=index, claims=claims)


def local(blob: bytes) -> MemorySource:
    return MemorySource(blob, "some.tar")


CHANGES: dict[str, tuple[str, Callable[[tarfile.TarInfo], object]]] = {
    "mode": ("mode is 0640 in the index and 4755", lambda info: setattr(info, "mode", 0o4755)),
    "uid": ("uid is 1000 in the index and 0", lambda info: setattr(info, "uid", 0)),
    "gid": ("gid is 1001 in the index and 5", lambda info: setattr(info, "gid", 5)),
    "mtime": ("modification time", lambda info: setattr(info, "mtime", 999_999_999)),
    "name": ("has the name", lambda info: setattr(info, "name", info.name[:-1] + "X")),
    "type": ("a file in the index and none", lambda info: setattr(info, "type", b"6")),
}
PAX = {
    "fraction": ("fraction", {"mtime": "1000000000.26"}),
    "xattr value": ("extended attributes", {"SCHILY.xattr.user.a": "valuX"}),
    "xattr name": ("extended attributes", {"SCHILY.xattr.user.b": "value"}),
}


@pytest.mark.parametrize("kind", [*KINDS, "packed", "packed members"])
@pytest.mark.parametrize("form", ["made", "native", "ztoc"])
@pytest.mark.parametrize("before", ["", "./", "/", "..//x/../"])
def test_a_true_index_is_read(kind: str, form: str, before: str) -> None:
    """Also where the tar spells names as `tar -C DIRECTORY .` does, or worse."""
    tar = tar_of(lambda info: setattr(info, "name", before + info.name))
    make = KINDS.get(kind, lambda tar: gzipped(tar, 7 if "members" in kind else 1, 6))
    blob = make(tar)
    index = index_of(blob, form)
    rng = random.Random(3)
    for _ in range(3):
        reader = reader_of(local(blob), index)
        for name in rng.sample([*FILES, *FILES], 2 * len(FILES)):
            content = FILES[name]
            at = rng.randrange(len(content) + 1)
            size = rng.randrange(len(content) - at + 1)
            assert reader.read(index.toc.lookup(name), at, size) == content[at : at + size]


def wrong(kind: str, field: str, name: str) -> tuple[bytes, Index, str]:
    """A blob, the index of another one, and what is to be said of the file `name`."""
    message, change = CHANGES[field]
    blob = KINDS[kind](tar_of(lambda info: change(info) if info.name == name else None))
    index = index_of(KINDS[kind](tar_of()), "native")
    assert index.size == len(blob)
    return blob, index, message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("name", ["d/b", "d/large", "z"])
def test_a_wrong_one_is_told(kind: str, field: str, name: str) -> None:
    blob, index, message = wrong(kind, field, name)
    row = index.toc.lookup(name)
    for at in (0, SIZES[name] - 5):
        reader = reader_of(local(blob), index)
        for _ in range(2):
            with pytest.raises(TOCError, match=f"'{name}': .*{message}.*: the index does not fit"):
                reader.read(row, at, 5)
        for other in FILES.keys() - {name}:
            assert reader.read(index.toc.lookup(other), 0, SIZES[other]) == FILES[other]
    if field != "type":
        trusting = reader_of(local(blob), index, claims=False)
        assert trusting.read(row, 0, SIZES[name]) == FILES[name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", PAX)
def test_what_pax_records_say(kind: str, field: str) -> None:
    message, records = PAX[field]

    def change(info: tarfile.TarInfo) -> None:
        if info.name == "d/pax":
            old = info.pax_headers
            if field == "xattr name":
                del old["SCHILY.xattr.user.a"]
            info.pax_headers = {**records, **{k: v for k, v in old.items() if k not in records}}

    blob = KINDS[kind](tar_of(change))
    index = index_of(KINDS[kind](tar_of()))
    reader = reader_of(local(blob), index)
    with pytest.raises(TOCError, match=f"'d/pax': .*{message}.*: the index does not fit"):
        reader.read(index.toc.lookup("d/pax"), 60_000, 10)


def tar_with_holes(name: str, mode: int = 0o644) -> bytes:
    """Files that are one hole each, between others; where everything lies is always the same."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for at in range(4):
            info = tarfile.TarInfo(f"before {at}")
            info.size = SPAN
            tar.addfile(info, io.BytesIO(blobs.noise(info.name, SPAN)))
            info = tarfile.TarInfo("in the header")
            info.size = 512
            info.mode = mode if at == 2 else 0o644
            info.pax_headers = {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": name if at == 2 else f"hole {at}",
                "GNU.sparse.realsize": "100000",
            }
            tar.addfile(info, io.BytesIO(b"0\n".ljust(512, b"\0")))
    return out.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["made", "native"])
def test_a_file_that_is_a_hole(kind: str, form: str) -> None:
    """No chunk brings its headers, so they are compared before anything is read."""
    index = index_of(KINDS[kind](tar_with_holes("hole 2")), form)
    reader = reader_of(local(KINDS[kind](tar_with_holes("hole 2"))), index)
    for at in range(4):
        assert reader.read(index.toc.lookup(f"hole {at}"), 5, 100) == bytes(100)
        name = f"before {at}"
        assert reader.read(index.toc.lookup(name), 0, SPAN) == blobs.noise(name, SPAN)
    for message, tar in (
        ("has the name 'hols 2'", tar_with_holes("hols 2")),
        ("mode is 0644 in the index and 4755", tar_with_holes("hole 2", 0o4755)),
    ):
        blob = KINDS[kind](tar)
        for source in (local(blob), Faraway(blob)):
            with pytest.raises(TOCError, match=f"'hole 2': .*{message}.*: the index does not fit"):
                reader_of(source, index)


class Fetching:
    """Reads of a far blob: each is waited for, a thread fetches."""

    def __init__(self, reader: Reader, source: Faraway) -> None:
        self.chunks = Chunks(1 << 20)
        self.chunks.add(reader)
        self.source = source
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self) -> None:
        while (job := self.chunks.next(DEMAND)) is not None:
            try:
                self.chunks.deliver(job, self.source.read_at(job.offset, job.size))
            except TOCError as error:
                self.chunks.fail(job, error)
            except KeyboardInterrupt:  # stopped meanwhile
                return

    def read(self, row: int, at: int, size: int) -> bytes:
        out = bytearray(size)
        self.chunks.read_into(0, row, at, size, out)
        return bytes(out)

    def __enter__(self) -> Fetching:
        return self

    def __exit__(self, *_: object) -> None:
        self.chunks.stop()
        self.thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_fetched(kind: str) -> None:
    blob = KINDS[kind](tar_of())
    index = index_of(blob)
    for name in ("d/large", "d/pax", "z"):
        for at in (0, SIZES[name] - 5):
            source = Faraway(blob)
            with Fetching(reader_of(source, index), source) as far:
                row = index.toc.lookup(name)
                assert far.read(row, at, 5) == FILES[name][at : at + 5]
                before = source.total
                assert far.read(row, at, 5) == FILES[name][at : at + 5]
                assert source.total == before < len(blob)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["mode", "name"])
def test_fetched_and_wrong(kind: str, field: str) -> None:
    name = "d/large"
    blob, index, message = wrong(kind, field, name)
    for at in (0, SIZES[name] - 5):
        source = Faraway(blob)
        with Fetching(reader_of(source, index), source) as far:
            for _ in range(6):
                with pytest.raises(TOCError, match=message):
                    far.read(index.toc.lookup(name), at, 5)
            before = source.total
            with pytest.raises(TOCError, match=message):  # known by now
                far.read(index.toc.lookup(name), at, 5)
            assert source.total == before
            assert far.read(index.toc.lookup("z"), 9, 9) == FILES["z"][9:18]


def test_bytes_damaged_on_the_way_are_asked_for_again() -> None:
    blob = tar_of()
    index = index_of(blob)
    source = Faraway(blob)
    source.plan = lambda number, offset, size: b"\xff" * size if number < 2 else None
    with Fetching(reader_of(source, index), source) as far:
        row = index.toc.lookup("z")
        for _ in range(2):
            with pytest.raises(TOCError, match="the index does not fit"):
                far.read(row, 9, 9)
        assert far.read(row, 9, 9) == FILES["z"][9:18]


def extracted(blob: bytes, index: Index, path: Path, *, keep_going: bool) -> Any:
    reader = reader_of(local(blob), index)
    path.mkdir()
    root = os.open(path, os.O_RDONLY)
    try:
        return _extract.extract(
            [(index.toc, reader.blob, len(blob), None)], "x", root, str(path), empty=[], strip=0,
            keep_going=keep_going, written=None, threads=2, verify=True, same_owner=False,
            devices=False, setid=False, xattrs="none", progress=None,
        )  # fmt: skip
    finally:
        os.close(root)


@pytest.mark.parametrize("kind", KINDS)
def test_extracted(kind: str, tmp_path: Path) -> None:
    blob = KINDS[kind](tar_of())
    extracted(blob, index_of(blob), tmp_path / "right", keep_going=False)
    for name, content in FILES.items():
        assert (tmp_path / "right" / name).read_bytes() == content
    for name in ("d/b", "d/large"):
        blob, index, message = wrong(kind, "mode", name)
        with pytest.raises(TOCError, match=f"{name}.*{message}"):
            extracted(blob, index, tmp_path / f"{name.replace('/', '-')}", keep_going=False)
        out = tmp_path / f"{name.replace('/', '-')}-all"
        found = extracted(blob, index, out, keep_going=True)
        assert (found["error_count"], found["damaged"]) == (1, 1)
        files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
        assert files == FILES.keys() - {name}


# --- by the commands ---------------------------------------------------------------------------


def stored(blob: bytes, index: Index, path: Path) -> tuple[Path, Path]:
    """The blob in a file, and its index in another."""
    pieces: list[bytes] = []
    index.dump(pieces.append)
    blob_path, index_path = path / "some.tar.gz", path / "other.index"
    blob_path.write_bytes(blob)
    index_path.write_bytes(b"".join(pieces))
    return blob_path, index_path


@pytest.mark.parametrize("field", ["", "mode"])
def test_mounted(field: str, tmp_path: Path) -> None:
    needs_fuse()
    name = "d/large"
    blob = KINDS["gzip"](tar_of())
    index = index_of(blob)
    if field:
        blob, index, _ = wrong("gzip", field, name)
    source, index_path = stored(blob, index, tmp_path)
    with cli_mount("--index", index_path, source, directory=tmp_path / "mnt") as mounted:
        fd = os.open(mounted / name, os.O_RDONLY)
        try:
            for at in (SIZES[name] - 5, 0):
                if field:
                    with pytest.raises(OSError, match="Input/output"):
                        os.pread(fd, 5, at)
                else:
                    assert os.pread(fd, 5, at) == FILES[name][at : at + 5]
        finally:
            os.close(fd)
        for other in FILES.keys() - {name}:
            assert (mounted / other).read_bytes() == FILES[other]


@pytest.mark.parametrize("field", ["", "mode"])
def test_over_http(field: str, tmp_path: Path) -> None:
    name = "d/large"
    blob = KINDS["gzip"](tar_of())
    index = index_of(blob)
    message = ""
    if field:
        blob, index, message = wrong("gzip", field, name)
    (tmp_path / "www").mkdir()
    source, index_path = stored(blob, index, tmp_path / "www")
    with nginx(tmp_path / "www", tmp_path) as url:
        options: dict[str, Any] = {"index": f"{url}/{index_path.name}", "cache": False}
        with stargz.open(f"{url}/{source.name}", **options) as layer:
            for at in (SIZES[name] - 5, 0):
                if field:
                    with pytest.raises(TOCError, match=message):
                        layer.read(name, at, 5)
                else:
                    assert layer.read(name, at, 5) == FILES[name][at : at + 5]
            assert layer.read("z") == FILES["z"]
            if field:
                with pytest.raises(TOCError, match=message):
                    layer.extractall(tmp_path / "out")
                assert not (tmp_path / "out" / name).exists()
            else:
                layer.extractall(tmp_path / "out")
                assert (tmp_path / "out" / name).read_bytes() == FILES[name]


# --- whatever a tar has -----------------------------------------------------------------------


def entries(*found: tuple[str, bytes | None, dict[str, Any]], **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as tar:
        for name, content, fields in found:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def joined(*tars: bytes) -> bytes:
    """One tar of several, whose last contents end with no zeros."""
    stripped = (tar.rstrip(b"\0") for tar in tars)
    return b"".join(tar + bytes(-len(tar) % 512) for tar in stripped) + bytes(1024)


ODD = {
    "global headers": entries(
        ("a", b"x", {}), ("b", b"y" * 600, {}), pax_headers={"mtime": "1.5", "comment": "c"}
    ),
    "global headers between": joined(
        entries(("a", b"1" * 600, {}), ("b", None, {"type": b"5"}), ("c", b"2", {})),
        entries(("d", b"3" * 600, {}), ("e", b"4", {}), pax_headers={"mtime": "1.5", "uid": "7"}),
        entries(("f", b"5", {}), pax_headers={"comment": "c", "SCHILY.xattr.user.a": "value"}),
        entries(("g", b"6", {}), ("h", b"7", {}), pax_headers={"mtime": "2", "gid": "8"}),
    ),
    "names": entries(
        ("./b", b"1", {}), ("/c", b"2", {}), ("d//e/./f", b"3", {}), ("../up", b"4", {}),
        ("a/" * 80 + "f", b"5", {}), ("n\udcff", b"6", {}), format=tarfile.GNU_FORMAT,
    ),
    "replaced": entries(
        ("a", b"1", {}), ("l", None, {"type": b"1", "linkname": "a"}), ("a", b"2", {})
    ),
    "below a symlink": entries(
        ("d", None, {"type": b"5"}), ("s", None, {"type": b"2", "linkname": "d"}), ("s/f", b"1", {})
    ),
    "numbers": entries(
        ("a", b"1", {"mtime": -5}), ("b", b"2", {"mtime": 2**40, "uid": 2**31}),
        ("c", b"3", {"mtime": 300_000_000_000, "gid": 2**32 - 1}), format=tarfile.GNU_FORMAT,
    ),
}  # fmt: skip


def check_own_index(tar: bytes) -> int:
    """Every file of a tar is read by its own index; how many there are."""
    index = index_of(tar, "native")
    checked, trusting = (reader_of(local(tar), index, claims=claims) for claims in (True, False))
    files = [row for row in index.toc.entries() if index.toc.type(row) == "reg"]
    for row in files[::2] + files[1::2][::-1]:  # not in the order of the tar
        size = index.toc.size(row)
        assert checked.read(row, 0, size) == trusting.read(row, 0, size)
    return len(files)


@pytest.mark.parametrize("what", ODD)
def test_odd_tars(what: str) -> None:
    assert check_own_index(ODD[what])


def test_random_tars() -> None:
    files = 0
    for seed in range(150):
        with contextlib.suppress(TarError):  # one that has no index
            files += check_own_index(mutated_tar(seed))
    assert files > 10
