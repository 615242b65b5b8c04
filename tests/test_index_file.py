"""The file of a side index: what its description says is there (plain_index.py reads by that
alone), it comes back as it was, and what is damaged or lies is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from typing import Any

import plain_index
import pytest
import synthetic
import zstandard
from mutated_tars import mutated_tar

import stargz
from stargz._engine.index import Index, build, load
from stargz.errors import IndexFileError, StargzError, TOCError

SPAN = 64 << 10
TAR = synthetic.tar_bytes()
# Index: digest of the file.
PINS = {
    "gzip": "f49f96834aab2ef9be689592e8c4563e183ecf8146d4c93127ccec90b935512c",
    "tar": "91a90e33f2922b7badae8d6ba42158b8ba071d21c5e2f69fcc763b19f12ac5c8",
}


def index_of(blob: bytes, **options: Any) -> Index:
    options = {"threads": 2, "span_size": SPAN, **options}
    return build(io.BytesIO(blob).read, source_name="blob", **options)


def dumped(index: Index) -> bytes:
    pieces: list[bytes] = []
    index.dump(pieces.append)
    return b"".join(pieces)


def frames(tar: bytes) -> bytes:
    pack = zstandard.ZstdCompressor(3).compress
    return b"".join(pack(tar[at : at + 100_000]) for at in range(0, len(tar), 100_000))


WRAPS = {
    "plain": lambda tar: tar,
    "gzip": lambda tar: gzip.compress(tar, 6),
    "members": lambda tar: b"".join(
        gzip.compress(tar[at : at + 150_001], 1) for at in range(0, len(tar), 150_001)
    ),
    "zstd": frames,
}


def same(one: Index, other: Index) -> None:
    for name in ("kind", "size", "digest", "tar_size", "archive_size", "diff_id", "span_size"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.spans == other.spans and one.longest_span == other.longest_span
    assert one.json() == other.json()


def check(
    plain: plain_index.Index, blob: bytes, tar: bytes, *, spans: bool, ended: bool = True
) -> None:
    """What it says against the bytes that it is about."""
    assert (plain.size, plain.tar_size) == (len(blob), len(tar))
    assert plain.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert plain.diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert (tar[plain.archive_size - 1024 : plain.archive_size] == bytes(1024)) == ended
    outs = {point.offset: point.out for point in plain.points}
    ends = [*sorted(outs.values())[1:], len(tar)]
    starts = dict(zip(sorted(outs.values()), ends, strict=True)) if outs else {}
    assert plain.longest == max((end - start for start, end in starts.items()), default=0)
    for number in range(len(plain.points)) if spans else ():
        out = plain.points[number].out
        assert plain_index.span(plain, number, blob) == tar[out : starts[out]]
    for entry in plain.entries:
        name = entry.texts.get(4, entry.name)
        headers = tar[entry.content - entry.header : entry.content]
        with tarfile.open(fileobj=io.BytesIO(headers + bytes(1024)), errorlevel=0) as one:
            found = one.next()
        assert found and plain_index.clean(found.name.encode("utf-8", "surrogateescape")) == name
        at = entry.content
        for piece in entry.pieces:
            size = piece.get("chunkSize") or entry.row["size"] - piece.get("chunkOffset", 0)
            if piece.get("chunkType") == "zeros":
                continue
            offset, inner = piece.get("offset", 0), piece.get("innerOffset", 0)
            start = outs[offset] if outs else offset
            assert start + inner == at and at + size <= (starts[start] if outs else len(tar))
            digest = "sha256:" + hashlib.sha256(tar[at : at + size]).hexdigest()
            assert piece["chunkDigest"] == digest
            at += size


@pytest.mark.parametrize("wrap", WRAPS)
def test_of_the_sample(wrap: str) -> None:
    blob = WRAPS[wrap](TAR)
    index = index_of(blob)
    data = dumped(index)
    again = load(data)
    same(index, again)
    assert dumped(again) == data
    plain = plain_index.read(data)
    assert plain.json == index.json() == again.json()
    assert again.toc_digest == "sha256:" + hashlib.sha256(plain.json).hexdigest()
    check(plain, blob, TAR, spans=wrap in ("gzip", "members"))


def test_of_random_tars() -> None:
    """Whatever a tar has that can be indexed: sparse files, bad names, entries below symlinks."""
    taken = 0
    for seed in range(200):
        tar = mutated_tar(seed)
        wrap = list(WRAPS)[seed % 4]
        blob = WRAPS[wrap](tar)
        try:
            index = index_of(blob)
        except StargzError:
            continue
        data = dumped(index)
        again = load(data)
        same(index, again)
        assert dumped(again) == data
        ended = not any("no end of an archive" in note for note in index.notes)
        check(plain_index.read(data), blob, tar, spans=wrap in ("gzip", "members"), ended=ended)
        taken += 1
    assert taken > 20


# --- names ------------------------------------------------------------------------------------


def tar_with_names(*names: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            info.size = 3
            info.uname = "g\udce9rard"
            tar.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("l\udcfe")
        link.type, link.linkname = tarfile.SYMTYPE, "to\udcff"
        tar.addfile(link)
        link = tarfile.TarInfo("hard")
        link.type, link.linkname = tarfile.LNKTYPE, names[0].decode("utf-8", "surrogateescape")
        tar.addfile(link)
    return out.getvalue()


def test_names_that_json_cannot_hold() -> None:
    """Also such that it could not tell apart, in a directory of such a name."""
    names = (
        b"caf\xe9",
        b"caf\xff",
        "café".encode(),
        b"d\xe9/./x",
        b"./caf\xef\xbf\xbd",
        b'a\\\xff"b',
    )
    tar = tar_with_names(*names)
    blob = gzip.compress(tar)
    data = dumped(index_of(blob))
    plain = plain_index.read(data)
    check(plain, blob, tar, spans=True)
    assert [entry.name for entry in plain.entries[: len(names)]] == [
        plain_index.clean(name) for name in names
    ]
    assert all(entry.texts[2] == b"g\xe9rard" for entry in plain.entries[: len(names)])
    link, hard = plain.entries[len(names) :]
    assert (link.name, link.texts[1]) == (b"l\xfe", b"to\xff")
    assert (hard.name, hard.texts[1]) == (b"hard", b"caf\xe9")
    again = load(data)
    assert dumped(again) == data
    assert again.entries == len(names) + 2
    toc = again.toc
    assert sorted(toc.names()) == sorted(
        entry.name.decode("utf-8", "surrogateescape") for entry in plain.entries
    )
    for name in toc.names():
        assert toc.name(toc.lookup(name)) == name
    assert toc.link(toc.lookup("l\udcfe")) == "to\udcff"
    assert toc.resolve(toc.lookup("hard")) == toc.lookup("caf\udce9")
    assert [name for name, _ in toc.children("d\udce9") or ()] == ["x"]
    assert toc.lookup("\ud800") == -1 and not toc.is_dir("\ud800")


def test_names_beside_the_toc_are_those_in_it() -> None:
    """Its digest would vouch for others else."""
    data = dumped(index_of(gzip.compress(tar_with_names(b"caf\xe9", b"d\xff/x"))))
    points, windows, _, packed, toc = struct.unpack_from("<5Q", data, plain_index.HEAD - 40)
    at = plain_index.HEAD + points + windows
    texts = gzip.decompress(data[at : at + packed])
    for old, new in (
        (b"caf\xe9", b"bad\xe9"),
        (b"caf\xe9", b"c\xe9fa"),
        (b"d\xff/x", b"d\xff/\xff"),
        (b"to\xff", b"\xffto"),
    ):
        assert old in texts
        entries = gzip.compress(texts.replace(old, new))
        lengths = struct.pack("<5Q", points, windows, len(texts), len(entries), toc)
        head = data[: plain_index.HEAD - 40] + lengths + data[plain_index.HEAD : at]
        changed = head + entries + data[at + packed : -32]
        changed += hashlib.sha256(changed).digest()
        with pytest.raises(StargzError, match="not the one that stands in it"):
            load(changed)


def test_names_that_moved() -> None:
    """Below a symlink of the layer an entry goes elsewhere, and a replaced file lives on as its
    hard link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(
            name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b""
        ) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            tar.addfile(info, io.BytesIO(data))

        add("usr/lib", tarfile.DIRTYPE)
        add("lib", tarfile.SYMTYPE, "usr/lib")
        add("lib/moved", data=b"moved")
        add("first", data=b"old")
        add("second", tarfile.LNKTYPE, "first")
        add("first", data=b"new")
    tar_bytes = out.getvalue()
    blob = gzip.compress(tar_bytes)
    data = dumped(index_of(blob))
    plain = plain_index.read(data)
    check(plain, blob, tar_bytes, spans=True)
    moved = {entry.name: entry.texts[4] for entry in plain.entries if 4 in entry.texts}
    assert moved == {b"usr/lib/moved": b"lib/moved", b"second": b"first"}
    assert dumped(load(data)) == data


def test_fractions_of_times() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, time in enumerate(("1.25", "1.75", "-0.5", "7")):
            info = tarfile.TarInfo(f"f{number}")
            info.pax_headers = {"mtime": time}
            tar.addfile(info)
    plain = plain_index.read(dumped(index_of(gzip.compress(out.getvalue()))))
    assert [entry.ns for entry in plain.entries] == [250000000, 750000000, 500000000, 0]
    assert [entry.row["modtime"][-3:] for entry in plain.entries] == ["01Z", "02Z", "00Z", "07Z"]


# --- pins -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pinned_blob(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tar.gz whose bytes are pinned themselves (test_pins.py)."""
    path = tmp_path_factory.mktemp("index") / "blob.stargz"
    stargz.convert(io.BytesIO(TAR), path, level=1, chunk_size=1 << 20)
    return path.read_bytes()


@pytest.mark.parametrize(("threads", "piece"), [(1, 1 << 20), (2, 1000), (4, 77777)])
def test_pins(pinned_blob: bytes, threads: int, piece: int) -> None:
    """A change here makes other bytes of every index: it needs a line in CHANGELOG.md."""
    found = {}
    for kind, blob in (("gzip", pinned_blob), ("tar", TAR)):
        file = io.BytesIO(blob)
        index = build(
            lambda n, file=file: file.read(min(n, piece)),
            source_name=kind,
            span_size=SPAN,
            threads=threads,
        )
        found[kind] = hashlib.sha256(dumped(index)).hexdigest()
    assert found == PINS


# --- what is refused --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> bytes:
    return dumped(index_of(gzip.compress(tar_with_names(b"a", b"b\xff"))))


def test_damage(small: bytes) -> None:
    for at in range(len(small)):
        broken = bytearray(small)
        broken[at] ^= 1 << at % 8
        with pytest.raises(IndexFileError):
            load(broken, name="x.index")


def test_cut_short(small: bytes) -> None:
    for length in range(len(small)):
        with pytest.raises(IndexFileError) as caught:
            load(small[:length], name="x.index")
        if length >= 8:
            assert caught.value.offset == length
            assert str(caught.value) == (
                f"x.index at offset {length}: the index ends too early, it was cut short; "
                "make it again"
            )
    with pytest.raises(
        IndexFileError, match="bytes follow that do not belong to the index"
    ) as more:
        load(small + b"\0")
    assert more.value.offset == len(small)


def test_other_versions(small: bytes) -> None:
    newer = small[:8] + b"\x02\0\0\0" + b"whatever that has"
    with pytest.raises(IndexFileError) as caught:
        load(newer, name="x.index")
    assert str(caught.value) == (
        "x.index at offset 8: the index has version 2, and this stargz knows version 1: use a "
        "newer one, or make the index again"
    )
    for other in (b"", b"\x1f\x8b" + bytes(300), b"SQLite format 3\0" + bytes(300)):
        with pytest.raises(IndexFileError, match="this is not an index of stargz"):
            load(other)


def test_limit_of_the_toc(small: bytes) -> None:
    size = int.from_bytes(small[136:144], "little")
    load(small, max_toc_size=size)
    with pytest.raises(TOCError, match="max_toc_size"):
        load(small, max_toc_size=size - 1)


def test_who_writes_fails() -> None:
    index = index_of(TAR)

    def full(piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        index.dump(full)
