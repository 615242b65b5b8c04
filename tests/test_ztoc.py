"""SOCI's ztoc: what is written says what its description asks for (plain_ztoc.py reads by that
alone), any ztoc that says so is read, and what is broken or lies is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import random
import tarfile

import plain_index
import plain_ztoc
import pytest
import zstandard
from mutated_tars import mutated_tar
from plain_ztoc import Entry, Point, Ztoc
from ztocs import SPAN, TAR, WRAPS, entry, in_members, index_of, make_tar, written

from stargz._engine.index import Index, load_ztoc
from stargz.errors import IndexFileError, StargzError, UnindexableError

# Digests of ztocs of TAR: the bytes are those of the reference's builder.
PINS = {
    "plain": "077987f324de90ced5e158d639480ffbde538897ad49933c2d1c6985e0a02651",
    "stored": "fb2262e8ff5768e81fa5bfbf77463f7f9259be0e2398c0c270ea46c9f3e7240e",
}
RECORDS = {"SCHILY.xattr.user.first": "1", "SCHILY.xattr.user.a": "\udcff\udc80", "comment": "c"}


def raw_name(info: tarfile.TarInfo) -> bytes:
    """As in the tar: tarfile drops a directory's slash."""
    name = info.name.encode("utf-8", "surrogateescape")
    return name + b"/" if info.isdir() else name


# --- written ----------------------------------------------------------------------------------

TYPES = {
    tarfile.REGTYPE: b"reg",
    tarfile.LNKTYPE: b"hardlink",
    tarfile.SYMTYPE: b"symlink",
    tarfile.DIRTYPE: b"dir",
    tarfile.FIFOTYPE: b"fifo",
    tarfile.CHRTYPE: b"char",
    tarfile.BLKTYPE: b"block",
}


def check(ztoc: Ztoc, blob: bytes, tar: bytes, *, several: bool = False) -> None:
    """The ztoc is that of the blob, which is of the tar, in `several` members of gzip."""
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        members = archive.getmembers()
        end = archive.offset + 1024
    assert ztoc.size == len(blob) and ztoc.archive_size == end and ztoc.span == SPAN
    assert len(members) == len(ztoc.entries)
    begin = 0
    for info, found in zip(members, ztoc.entries, strict=True):
        assert found.name == raw_name(info) and found.type == TYPES[info.type]
        assert found.size == (info.size if info.isreg() else 0)
        assert found.offset == info.offset_data and begin < found.offset
        begin = (found.offset + found.size + 511) // 512 * 512
        assert (found.mode, found.uid, found.gid) == (info.mode, info.uid, info.gid)
        assert found.link == info.linkname.encode("utf-8", "surrogateescape")
        assert found.uname == info.uname.encode() and found.gname == info.gname.encode()
        assert found.dev == (info.devmajor, info.devminor)
        records = {
            key.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
            for key, value in info.pax_headers.items()
        }
        assert list(found.records) == sorted(records.items())
    starts = [p.offset - (p.bits != 0) for p in ztoc.points]
    ends = [p.offset for p in ztoc.points[1:]] + [len(blob)]
    if not ztoc.gzip:
        assert ztoc.plain_size == len(blob)
        starts = list(range(0, len(blob), SPAN))
        ends = [*starts[1:], len(blob)]
    digests = [
        f"sha256:{hashlib.sha256(blob[at:end]).hexdigest()}".encode()
        for at, end in zip(starts, ends, strict=True)
    ]
    assert ztoc.digests == digests
    outs = [p.out for p in ztoc.points] + [len(tar)]
    for start, end, point, out in zip(starts, ends, ztoc.points, outs[1:], strict=False):
        history = tar[max(point.out - plain_ztoc.WINDOW, 0) : point.out]
        assert point.window == history.rjust(plain_ztoc.WINDOW, b"\0")
        data, _ = plain_index.inflate(blob[start:end], -point.bits & 7, history, out - point.out)
        assert data == tar[point.out : point.out + len(data)]
        assert several or len(data) == out - point.out
    assert all(b - a > SPAN for a, b in itertools.pairwise(outs[:-1]))


@pytest.mark.parametrize("wrap", WRAPS)
def test_written(wrap: str) -> None:
    blob = WRAPS[wrap](TAR)
    index = index_of(blob)
    data = written(index, tool="a tool")
    ztoc = plain_ztoc.read(data)
    check(ztoc, blob, TAR, several="members" in wrap)
    assert any("several members" in note for note in index.notes) == ("members" in wrap)
    assert ztoc.tool == b"a tool" and index.spans == len(ztoc.digests) > 20
    assert all(data == written(index_of(blob, threads=n, piece=p), tool="a tool")
               for n, p in ((1, 0), (3, 700), (2, 99_999)))  # fmt: skip
    assert data == written(index, tool="a tool"), "and again"


@pytest.mark.parametrize("wrap", PINS)
def test_pinned(wrap: str) -> None:
    data = written(index_of(WRAPS[wrap](TAR)), tool="reference")
    assert hashlib.sha256(data).hexdigest() == PINS[wrap]


def test_every_kind_of_entry() -> None:
    tar = make_tar(
        entry("./", tarfile.DIRTYPE, mode=0o755),
        entry("./d/", tarfile.DIRTYPE, mode=0o1777, mtime=0),
        entry("d/file", mtime=1_700_000_000, mode=0o4755, uname="ann", gname="users", size=700),
        entry("d/file", size=3),
        entry("d/\udcff\udcfe", size=5),
        entry("hard", tarfile.LNKTYPE, linkname="./d/file"),
        entry("soft", tarfile.SYMTYPE, linkname="../\udcff"),
        entry("dev", tarfile.CHRTYPE, devmajor=5, devminor=300),
        entry("disk", tarfile.BLKTYPE, devmajor=8),
        entry("pipe", tarfile.FIFOTYPE),
        entry("l" * 200 + "/" + "m" * 200, size=1, uid=5_000_000_000 >> 1),
        entry("xattrs", pax_headers=RECORDS),
        entry(".wh.gone"),
    )
    ztoc = plain_ztoc.read(written(index_of(tar)))
    check(ztoc, tar, tar)
    assert not ztoc.gzip


TIMES = {
    "1700000000.123456789": b"2023-11-14T22:13:20.123456789Z",
    "1700000000.5": b"2023-11-14T22:13:20.5Z",
    "1700000000.0": b"2023-11-14T22:13:20Z",
    "1.9999999999": b"1970-01-01T00:00:01.999999999Z",
    "-0.25": b"1969-12-31T23:59:59.75Z",
    "-5": b"1969-12-31T23:59:55Z",
    "-62167219200": b"0000-01-01T00:00:00Z",
    "253402300799.9": b"9999-12-31T23:59:59.9Z",
}


@pytest.mark.parametrize("time", TIMES)
def test_times(time: str) -> None:
    tar = make_tar(entry("file", pax_headers={"mtime": time}))
    (found,) = plain_ztoc.read(written(index_of(tar))).entries
    assert found.mtime == TIMES[time] and found.records == [(b"mtime", time.encode())]


def sparse() -> bytes:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "holes"}
    headers["GNU.sparse.realsize"] = "100000"
    info = entry("x", pax_headers=headers, size=512)
    out = io.BytesIO()
    out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8"))
    out.write(b"0\n".ljust(512, b"\0"))
    return out.getvalue() + bytes(1024)


def with_global(*infos: tarfile.TarInfo, key: str = "comment", value: str = "x") -> bytes:
    return tarfile.TarInfo.create_pax_global_header({key: value}) + make_tar(*infos)


REFUSED = {
    "sparse": (sparse(), "'holes': a sparse file"),
    "global": (with_global(entry("file")), "'file': a PAX global header stands right before"),
    "global owner": (
        with_global(entry("d", tarfile.DIRTYPE), entry("file"), key="uname", value="ann"),
        "'file': it has fields from a PAX global header",
    ),
    "year": (make_tar(entry("f", pax_headers={"mtime": "253402300800"})), "the years 0 to 9999"),
    "early": (make_tar(entry("f", pax_headers={"mtime": "-62167219200.1"})), "years 0 to 9999"),
    "owner": (make_tar(entry("f", pax_headers={"uid": "-1"})), "owner is outside of 32 bits"),
    "link": (
        make_tar(entry("h", tarfile.LNKTYPE, linkname="later"), entry("later")),
        "hard link to 'later', which is not in the tar before it",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str) -> None:
    tar, why = REFUSED[kind]
    for blob in (tar, gzip.compress(tar)):
        with pytest.raises(UnindexableError, match=why):
            index_of(blob)
        if kind != "link":
            index_of(blob, soci=False)


def test_refused_when_written() -> None:
    below = make_tar(
        entry("to", tarfile.DIRTYPE), entry("from", tarfile.SYMTYPE, linkname="to"), entry("from/f")
    )
    with pytest.raises(UnindexableError, match="below a symlink of the layer"):
        written(index_of(below))
    pack, tar = zstandard.ZstdCompressor().compress, make_tar(entry("file", size=300_000))
    frames = [pack(tar[at : at + 50_000]) for at in range(0, len(tar), 50_000)]
    with pytest.raises(UnindexableError, match="SOCI has indexes of gzip and of plain tars only"):
        written(index_of(b"".join(frames)))
    with pytest.raises(ValueError, match="not built for SOCI"):
        written(index_of(TAR, soci=False))


def test_a_global_header_before_a_directory_does_no_harm() -> None:
    tar = with_global(entry("d/", tarfile.DIRTYPE), entry("d/file", size=9))
    ztoc = plain_ztoc.read(written(index_of(gzip.compress(tar))))
    assert [(e.name, e.offset) for e in ztoc.entries] == [(b"d/", 1536), (b"d/file", 2048)]


def test_what_the_writer_raises_is_raised() -> None:
    index = index_of(TAR)

    def full(_: bytes) -> None:
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        index.write_ztoc(full)
    assert written(index)


# --- read -------------------------------------------------------------------------------------


def same(one: Index, other: Index) -> None:
    assert one.json() == other.json()
    for what in ("kind", "size", "span_size", "spans", "archive_size", "entries"):
        assert getattr(one, what) == getattr(other, what), what


@pytest.mark.parametrize("wrap", WRAPS)
def test_read_again(wrap: str) -> None:
    built = index_of(WRAPS[wrap](TAR))
    data = written(built)
    index = load_ztoc(data, blob_size=built.size)
    same(index, built)
    assert index.digest == index.diff_id == index.toc_digest == ""
    # Other writers leave other things out, order fields and entries otherwise, and align nothing.
    ztoc = plain_ztoc.read(data)
    same(load_ztoc(plain_ztoc.write(ztoc)), built)
    shuffled = random.Random(1).sample(ztoc.entries, len(ztoc.entries))
    other = plain_ztoc.write(ztoc.changed(entries=shuffled), sparing=False)
    same(load_ztoc(memoryview(b"x" + other)[1:]), built)


@pytest.mark.parametrize("seed", range(0, 400, 100))
def test_rows_are_those_of_the_tar(seed: int) -> None:
    compared = 0
    for number in range(seed, seed + 100):
        tar = mutated_tar(number)
        try:
            built = index_of(gzip.compress(tar))
            data = written(built)
        except StargzError:
            continue
        same(load_ztoc(data), built)
        compared += 1
    assert compared > 5


def test_checkpoints_of_the_first_version() -> None:
    built = index_of(WRAPS["gzip"](TAR))
    ztoc = plain_ztoc.read(written(built))
    assert ztoc.points[0].offset == 10
    same(load_ztoc(plain_ztoc.write(ztoc.changed(version=1))), built)


def test_what_was_indexed_of_the_first_member_alone() -> None:
    """As before 0.14 of the snapshotter: all that follows is in the last span."""
    built = index_of(in_members(TAR))
    ztoc = plain_ztoc.read(written(built))
    few = ztoc.changed(points=ztoc.points[:1], digests=ztoc.digests[:1])
    index = load_ztoc(plain_ztoc.write(few))
    assert index.spans == 1 and index.entries == built.entries
    assert index.longest_span == index.archive_size


def test_names_and_values_are_bytes() -> None:
    tar = make_tar(
        entry("\udcff", size=3),
        entry("\udcfe", size=4),
        entry("link", tarfile.SYMTYPE, linkname="\udcff"),
        entry("x", pax_headers={"SCHILY.xattr.user.v": "\udcff\udc80", "other": "\udcff"}),
    )
    built = index_of(tar)
    same(load_ztoc(written(built)), built)


def point_at(offset: int, out: int, bits: int = 0) -> Point:
    return Point(offset, out, bits)


GZIP = gzip.compress(make_tar(entry("a", size=300_000), entry("d/", tarfile.DIRTYPE), entry("b")))
SOUND = Ztoc(
    size=1_000_000,
    archive_size=300_000,
    entries=[
        Entry(b"d/", b"dir", 512),
        Entry(b"d/a", b"reg", 1024, 200_000),
        Entry(b"d/b", b"hardlink", 201_728, link=b"d/a"),
        Entry(b"d/x", b"reg", 202_752, 1, records=[(b"SCHILY.xattr.user.a", b"\xff")]),
    ],
    digests=[b"sha256:" + b"ab" * 32] * 3,
    points=[Point(10, 0), Point(5000, 100_000, 3), Point(9000, 180_000)],
)
PLAIN = SOUND.changed(
    gzip=False, size=300_000, points=[], span=100_000, digests=[b"sha256:" + b"cd" * 32] * 3
)


def test_sound() -> None:
    index = load_ztoc(plain_ztoc.write(SOUND), blob_size=1_000_000)
    rows = index.toc
    assert index.spans == 3 and index.longest_span == 120_000 and index.tar_size == 300_000
    assert rows is not None and load_ztoc(plain_ztoc.write(PLAIN)).kind == "tar"


def entries(*changed: Entry, ztoc: Ztoc = SOUND) -> Ztoc:
    return ztoc.changed(entries=list(changed))


BROKEN: dict[str, tuple[Ztoc, str]] = {
    "digests": (SOUND.changed(digests=SOUND.digests[:2], last=2), "one digest of each span"),
    "last span": (SOUND.changed(last=3), "one digest of each span"),
    "digest": (SOUND.changed(digests=[b"sha256:" + b"AB" * 32] * 3), "is no sha256"),
    "other digest": (SOUND.changed(digests=[b"sha512:" + b"ab" * 32] * 3), "is no sha256"),
    "points back": (
        SOUND.changed(points=[Point(10, 0), Point(9000, 100_000), Point(9000, 180_000)]),
        "do not ascend",
    ),
    "points of one out": (
        SOUND.changed(points=[Point(10, 0), Point(20, 0), Point(9000, 180_000)]),
        "do not ascend",
    ),
    "first out": (SOUND.changed(points=[Point(10, 5), *SOUND.points[1:]]), "do not ascend"),
    "point beyond": (SOUND.changed(size=9000), "beyond the end of the blob"),
    "bits": (SOUND.changed(points=[Point(10, 0, 8), *SOUND.points[1:]]), "impossible bits"),
    "negative": (SOUND.changed(points=[Point(-1, 0), *SOUND.points[1:]]), "negative offset"),
    "first bits": (SOUND.changed(points=[Point(10, 0, 3), *SOUND.points[1:]]), "no history"),
    "short window": (
        SOUND.changed(points=[*SOUND.points[:2], Point(9000, 180_000, 0, b"short")]),
        "another size than their number says",
    ),
    "span size": (SOUND.changed(span=-1), "span size is negative"),
    "sizes": (SOUND.changed(archive_size=-5), "a size in it is impossible"),
    "huge": (SOUND.changed(archive_size=1 << 62), "a size in it is impossible"),
    "promise": (SOUND.changed(archive_size=1 << 31), "a span of it promises more than its bytes"),
    "other promise": (
        SOUND.changed(points=[Point(10, 0), Point(20, 100_000), Point(9000, 180_000)]),
        "a span of it promises more than its bytes",
    ),
    "plain size": (PLAIN.changed(plain_size=299_999), "do not divide the blob"),
    "plain span": (PLAIN.changed(span=0), "do not divide the blob"),
    "plain digests": (PLAIN.changed(digests=PLAIN.digests[:2]), "one digest of each span"),
    "type": (entries(Entry(b"a", b"socket")), "'a': it is of a type"),
    "no header": (entries(Entry(b"a", offset=0)), "'a': there is no room for its tar header"),
    "overlap": (
        entries(Entry(b"a", size=512), Entry(b"b", offset=1024)),
        "'b': there is no room for its tar header",
    ),
    "twice": (entries(Entry(b"a"), Entry(b"b")), "'b': there is no room"),
    "far": (entries(Entry(b"a", offset=40 << 20)), "'a': there is no room .*, or too much"),
    "misplaced": (entries(Entry(b"a", offset=700)), "'a': the length of its tar headers"),
    "beyond": (entries(Entry(b"a", size=299_489)), "'a': its contents are beyond the end"),
    "size": (entries(Entry(b"a", size=-1)), "'a': its contents are beyond"),
    "huge size": (entries(Entry(b"a", size=(1 << 63) - 1)), "'a': its contents are beyond"),
    "no name": (entries(Entry(b"")), "a name that no file can have"),
    "slash": (entries(Entry(b"a/", size=3)), "'a/': it has a name that no file can have"),
    "NUL": (entries(Entry(b"a\0b")), "a name has a NUL in it"),
    "link": (entries(Entry(b"a", b"symlink")), "'a': a link that names no target"),
    "missing": (
        entries(Entry(b"a", b"hardlink", link=b"b")),
        "'a': hard link to 'b', which is not",
    ),
    "device": (entries(Entry(b"a", b"char", dev=(-1, 0))), "a device number is not one of"),
    "long": (entries(Entry(b"a" * 300)), "a component of 300 bytes"),
    "below a file": (
        entries(Entry(b"a"), Entry(b"a/b", offset=1024)),
        "'a/b': 'a' is used as a directory",
    ),
    "xattr": (
        entries(Entry(b"a", records=[(b"SCHILY.xattr.a\0", b"")])),
        "'a': an xattr's name has a NUL in it",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken(what: str) -> None:
    ztoc, why = BROKEN[what]
    with pytest.raises(IndexFileError, match=f"^a.ztoc: .*{why}"):
        load_ztoc(plain_ztoc.write(ztoc), name="a.ztoc")


def test_of_another_blob() -> None:
    with pytest.raises(IndexFileError, match="of a blob of 1000000 bytes, and this one has 77"):
        load_ztoc(plain_ztoc.write(SOUND), blob_size=77)


def test_cut_short() -> None:
    data = plain_ztoc.write(SOUND)
    reference = written(index_of(GZIP))
    for whole in (data, reference):
        for size in [*range(0, len(whole), 997), *range(64)]:
            with pytest.raises(IndexFileError):
                load_ztoc(whole[:size], name="a.ztoc")


@pytest.mark.parametrize("seed", range(4))
def test_flipped(seed: int) -> None:
    """It is refused, or what it says is within its bounds."""
    rng = random.Random(seed)
    whole = [plain_ztoc.write(SOUND), plain_ztoc.write(PLAIN), written(index_of(GZIP))]
    for _ in range(400):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.choice((1, 1, 2, 5))):
            # Windows are most of it, and nothing is wrong with any bytes of them.
            at = rng.choice((rng.randrange(len(data)), rng.randrange(300), -rng.randrange(1, 900)))
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        try:
            made = load_ztoc(data)
        except IndexFileError:
            continue
        places = [row.get("offset", 0) for row in json.loads(made.json())["entries"] or ()]
        assert max(places, default=0) <= made.size


def test_what_is_shared_is_not_worth_more_than_the_file() -> None:
    """A text that all entries have is 4 MB of a file, and would be gigabytes of rows."""
    user = b"u" * 60_000
    many = [Entry(b"%d" % n, offset=512 * n + 512, uname=user) for n in range(20_000)]
    ztoc = SOUND.changed(entries=many, archive_size=1 << 30, size=1 << 30)
    same_user = load_ztoc(plain_ztoc.write(ztoc.changed(entries=many[:20]), shared=[user]))
    assert same_user.entries == 20
    with pytest.raises(IndexFileError, match="more than a ztoc of this size can have"):
        load_ztoc(plain_ztoc.write(ztoc, shared=[user]))


def test_a_file_of_too_many_chunks() -> None:
    ztoc = SOUND.changed(archive_size=1 << 59, size=1 << 52)
    with pytest.raises(IndexFileError, match="'a': the entries to here are more than a ztoc"):
        load_ztoc(plain_ztoc.write(ztoc.changed(entries=[Entry(b"a", size=1 << 58)])))
