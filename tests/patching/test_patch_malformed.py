"""Patches and bases that are damaged, cut, swapped or hostile: one clear error, at once, and
nothing left behind."""

from __future__ import annotations

import hashlib
import io
import random
import zlib
from pathlib import Path

import bounded
import command
import patch_builder as pb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_builder import Head, Ops, data, frame, lines, patch, text, varint, zigzag

from stargz._engine.patch import toc_members
from stargz.errors import DigestError, PatchError, StargzError, UsageError
from stargz.patching.applying import apply

HEAD_END = len(pb.MAGIC) + 12 + pb.HEAD.size


def gzipped(content: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(content) + packer.flush()


JSON = b'{\n\t"entries": [\n\t\t"offset": 0,\n\t\t"offset": 40\n\t]\n}'
NEW_JSON = b'{\n\t"Entries": [\n\t\t"offset": 37,\n\t\t"offset": 77\n\t]\n}'
FIRST = gzipped(b"first member " * 20)
SECOND = gzipped(hashlib.shake_128(b"noise").digest(600))
FRONT = FIRST + SECOND
BASE = FRONT + toc_members(JSON, len(FRONT), 1, False)


def head(new: bytes, **changes: object) -> Head:
    return Head(
        *(BASE, new),
        level=1,
        base_toc_offset=len(FRONT),
        base_toc_end=len(BASE) - 51,
        base_json_size=len(JSON),
    ).but(**changes)


# A patch with everything in it.
_PIECE = b"of the patch" * 38 + b"abcdef"
_MADE = pb.compressed(_PIECE + (b"first member " * 20)[3:53])
_LITERAL = b"literal" * 9
NEW_FRONT = SECOND + _MADE + _LITERAL
NEW = NEW_FRONT + toc_members(NEW_JSON, len(NEW_FRONT), 1, False)
HEAD = head(NEW, new_toc_offset=len(NEW_FRONT), toc_json_size=len(NEW_JSON))
OPERATIONS = Ops().copy(len(FIRST), len(SECOND)).member(_PIECE, (0, 3, 50)).frame()
LITERAL = data(_LITERAL, deflated=True)
TOC_FRAMES = [
    frame(b"T", lines(0, 1)),
    frame(b"T", text(b'\t"Entries": [\n') + lines(1, 4, 37), deflated=True),
]
PATCH = patch(HEAD, OPERATIONS, LITERAL, *TOC_FRAMES)


def made(patched: bytes, base: bytes = BASE) -> bytes:
    out = io.BytesIO()
    apply(io.BytesIO(base), io.BytesIO(patched), out)
    return out.getvalue()


def refused(
    patched: bytes, why: str, base: bytes = BASE, kind: type[StargzError] = PatchError
) -> None:
    """One error of the right class; to a pipe no byte from the TOC on came."""
    out = io.BytesIO()
    with pytest.raises(kind, match=why) as caught:
        apply(io.BytesIO(base), io.BytesIO(patched), out, threads=1)
    assert "\n" not in str(caught.value)
    if isinstance(caught.value, PatchError):
        assert caught.value.source == "patch"
        assert caught.value.offset is not None
        assert 0 <= caught.value.offset <= len(patched)
    assert len(out.getvalue()) <= max(len(NEW_FRONT), HEAD.new_toc_offset or 0)


def test_it_is_right() -> None:
    assert made(PATCH) == NEW


# --- damage --------------------------------------------------------------------------------


def test_every_byte() -> None:
    """Every byte of the patch, by two bit flips each: CRC or sha256 tell."""
    random_bits = random.Random(1)
    for at in range(len(PATCH)):
        for bit in (1 << random_bits.randrange(8), 0xFF):
            refused(PATCH[:at] + bytes([PATCH[at] ^ bit]) + PATCH[at + 1 :], ".")


def test_every_length() -> None:
    for end in range(len(PATCH)):
        refused(PATCH[:end], "cut off" if end >= len(pb.MAGIC) else "not a patch")
    for more in (b"\0", PATCH):
        refused(PATCH + more, "bytes follow the end")


def test_every_byte_of_base() -> None:
    for at in range(len(BASE)):
        bad = BASE[:at] + bytes([BASE[at] ^ 0x10]) + BASE[at + 1 :]
        refused(PATCH, "BASE is not the blob the patch was made for", bad, DigestError)


def test_another_base() -> None:
    for bad in (b"", BASE[:-1], BASE + b"\0", NEW, BASE * 1000):
        refused(PATCH, "BASE is not the blob the patch was made for", bad, DigestError)


def test_files_are_complete_or_absent(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(BASE)
    for at in range(0, len(PATCH), 7):
        bad = PATCH[:at] + bytes([PATCH[at] ^ 4]) + PATCH[at + 1 :]
        with pytest.raises(PatchError):
            apply(tmp_path / "base", io.BytesIO(bad), tmp_path / "new")
    with pytest.raises(PatchError):
        apply(tmp_path / "base", io.BytesIO(PATCH[:-1]), tmp_path / "base")
    assert [p.name for p in tmp_path.iterdir()] == ["base"]
    assert (tmp_path / "base").read_bytes() == BASE


def test_frames_elsewhere() -> None:
    """Frames that are right, in any other order, twice, or not at all."""
    right = [OPERATIONS, LITERAL, *TOC_FRAMES]
    for n in range(len(right)):
        without = right[:n] + right[n + 1 :]
        refused(patch(HEAD, *without), ".")
        refused(patch(HEAD, *right[: n + 1], *right[n:]), ".")
        for k in range(len(right)):
            moved = [*without[:k], right[n], *without[k:]]
            if moved != right:
                kinds = (PatchError, DigestError)
                with pytest.raises(kinds):
                    made(patch(HEAD, *moved))


# --- frames --------------------------------------------------------------------------------


def test_head() -> None:
    packed = HEAD.pack()
    for version in (0, 2, 1 << 31):
        refused(patch(HEAD.but(version=version)), f"a patch of version {version}; .*version 1")
    later = varint(2) + bytes(3) + b"of another length"
    refused(patch(later), "a patch of version 2; this stargz reads version 1")
    refused(patch(packed[:-1]), "a head of 195 bytes")
    refused(patch(packed + b"\0"), "a head of 197 bytes")
    refused(patch(b""), "does not begin with its head")
    refused(pb.MAGIC + OPERATIONS, "does not begin with its head")
    refused(pb.MAGIC + frame(b"H", packed, deflated=True), "compressed")
    refused(patch(HEAD, frame(b"H", packed)), "a second head")
    for changes in (
        {"level": 13},
        {"level": 0},  # but there is a TOC
        {"legacy": 2},
        {"base_size": -1},
        {"new_size": -1, "new_toc_offset": -1},
        {"new_toc_offset": len(NEW) + 1},
        {"base_toc_offset": -1},
        {"base_toc_end": len(BASE) + 1},
        {"base_toc_end": len(FRONT) - 1},
        {"engine": b""},
        {"engine": b"isa\0l"},
        {"engine": b"isa-\xff"},
    ):
        refused(patch(HEAD.but(**changes)), "contradict")
    refused(patch(HEAD.but(toc_json_size=(1 << 30) + 1)), "more than 1 GiB")
    refused(patch(HEAD.but(base_json_size=1 << 63)), "more than 1 GiB")


def test_frames() -> None:
    plain = head(b"")
    for kind in (b"\0", b"A", b"d", b"\xff"):
        refused(patch(plain, frame(kind, b"")), "unknown type")
    refused(patch(plain, frame(b"D", b"", zero=1)), "unknown flags")
    refused(patch(plain, frame(b"D", b"", length=0x80000000)), "a frame of 2147483648 bytes")
    refused(patch(plain, frame(b"D", bytes((1 << 20) + 1))), "a frame of 1048577 bytes")
    refused(patch(plain, end=False), "cut off")
    refused(patch(plain, end=False) + frame(b"E", bytes(31)), "a frame E of 31 bytes")
    refused(patch(plain, end=False) + frame(b"E", bytes(32)), "its sha256 is another")
    refused(patch(plain, end=False) + frame(b"E", bytes(32), deflated=True), "compressed")
    refused(patch(plain) + frame(b"D", b""), "bytes follow the end")


def deflated(kind: bytes, stored: bytes) -> bytes:
    """A frame that says its payload is compressed."""
    front = kind + b"\1\0\0" + len(stored).to_bytes(4, "little")
    crc = zlib.crc32(stored, zlib.crc32(front))
    return front + crc.to_bytes(4, "little") + stored


def raw(content: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(content) + packer.flush()


def test_deflated_frames() -> None:
    million = bytes(1 << 20)
    assert made(patch(Head(BASE, million), deflated(b"D", raw(million)))) == million
    big = Head(BASE, bytes(3 << 20))
    bomb = raw(bytes(1 << 27))
    for kind in (b"D", b"M", b"T"):
        refused(patch(big, deflated(kind, raw(million + b"\0"))), "inflates to more than 1048576")
        refused(patch(big, deflated(kind, bomb)), "inflates to more than 1048576")
        refused(patch(big, deflated(kind, b"")), "ends early")
        refused(patch(big, deflated(kind, raw(b"something")[:-1])), "ends early|not inflate")
        refused(patch(big, deflated(kind, raw(b"something") + b"\0")), "bytes follow")
        refused(patch(big, deflated(kind, raw(b"something") + bytes(100))), "bytes follow")
        refused(patch(big, deflated(kind, b"\7\7\7\7")), "does not inflate")
        refused(patch(big, deflated(kind, gzipped(b"something"))), "does not inflate")
    for cut in range(len(raw(million[:100000]))):
        refused(patch(big, deflated(b"D", raw(million[:100000])[:cut])), ".")


# --- operations ----------------------------------------------------------------------------

MAX = (1 << 64) - 1


def test_copy() -> None:
    new = Head(BASE, bytes(1000))
    for operation, why in [
        (b"\1" + zigzag(len(BASE)) + varint(1), "beyond BASE"),
        (b"\1" + zigzag(0) + varint(len(BASE) + 1), "beyond BASE"),
        (b"\1" + zigzag(len(BASE) + 1) + varint(0), "beyond BASE"),
        (b"\1" + zigzag(-1) + varint(1), "beyond BASE"),
        (b"\1" + zigzag(5) + varint(MAX), "beyond BASE"),
        (b"\1" + zigzag(5) + varint(MAX - 4), "beyond BASE"),
        (b"\1" + zigzag((1 << 63) - 1) + varint(1), "beyond BASE"),
        (b"\1" + zigzag(-(1 << 63)) + varint(1), "beyond BASE"),
        (b"\1" + zigzag(5) + varint(5) + b"\1" + zigzag((1 << 63) - 1) + varint(1), "beyond BASE"),
        (b"\1" + zigzag(0) + varint(600) + b"\1" + zigzag(-600) + varint(401), "more comes out"),
        (b"\1" + zigzag(0) + varint(800) + b"\1" + zigzag(-800) + varint(199), "less comes out"),
        (b"", "less comes out"),
        (b"\1", "does not end"),
        (b"\1\0", "does not end"),
        (b"\1\0\x80", "does not end"),
        (b"\1" + b"\xff" * 9 + b"\2\0", "does not end"),
        (b"\1" + b"\x80" * 20 + b"\0\0", "does not end"),
        (b"\0", "unknown kind"),
        (b"\3", "unknown kind"),
    ]:
        refused(patch(new, frame(b"M", operation)), why)
    refused(patch(new, data(bytes(1001))), "more comes out")
    refused(patch(new, data(bytes(999))), "less comes out")
    # An operation does not cross a frame's end.
    copy = b"\1" + zigzag(0) + varint(1000)
    refused(patch(new, frame(b"M", copy[:2]), frame(b"M", copy[2:])), "does not end")


def test_member() -> None:
    new = head(bytes(10_000_000))
    terabytes = varint(1 << 41)
    for operation, why in [
        (b"\2\1\1\0\0" + terabytes, "beyond BASE"),
        (b"\2\1\1\0" + terabytes + b"\1", "beyond BASE"),
        (b"\2\1\1\0" + varint(MAX) + varint(MAX), "beyond BASE"),
        (b"\2\1\1\0\0" + varint(len(BASE) * 1032 + 2000), "beyond BASE"),
        (b"\2\1\1" + varint(len(BASE) + 1) + b"\0\0", "beyond BASE"),
        (b"\2\1\1" + varint(MAX) + b"\0\0", "beyond BASE"),
        (b"\2\1\1" + varint(1) + b"\0\1", "no such member"),
        (b"\2\1\1" + varint(len(BASE)) + b"\0\1", "beyond a member|no such member"),
        (b"\2\1\1\0" + varint(5000) + b"\1", "beyond a member|no such member"),
        (b"\2" + varint(MAX) + b"\0\0", "unknown kind"),
        (b"\2" + varint(3) + b"\0\0", "unknown kind"),
        (b"\2\1\2", "unknown kind"),
        (b"\2\1\0\5abcd", "does not end"),
        (b"\2\1\0" + varint(MAX) + b"abcd", "does not end"),
        (b"\2\1\1\0\0", "does not end"),
        (b"\2", "does not end"),
    ]:
        refused(patch(new, frame(b"M", operation)), why)
    many = b"\2" + varint(200_000) + b"\1\0\0" + varint(20_000)
    many += (b"\1\0\0" + varint(20_000)) * 199_999
    refused(patch(new, *[frame(b"M", many[: 1 << 20])]), "a MEMBER of more than 64 MiB")
    few = b"\2" + varint(1000) + b"\1\0\0\x82\2" * 1000
    refused(patch(head(bytes(100)), frame(b"M", few)), "more comes out")
    refused(patch(head(bytes(22)), frame(b"M", b"\2\1\0\5abcde")), "more comes out")
    refused(patch(Head(BASE, bytes(100)), frame(b"M", b"\2\0")), "no level in the head")


def test_larger_than_it_may_be(tmp_path: Path) -> None:
    """By default NEW has 4 times BASE and what frames inflate to, and at least 1 GiB; a small patch
    could fill any disk."""
    gib = 1 << 30
    base = bytes(1 << 20)
    whole = zigzag(-len(base)) + varint(len(base))
    copies = b"\1" + zigzag(0) + varint(len(base)) + (b"\1" + whole) * 29_999
    sizes = {"new_size": 30_000 << 20, "new_toc_offset": 30_000 << 20}
    bomb = patch(Head(base, b"").but(**sizes), frame(b"M", copies, deflated=True))
    assert len(bomb) < 1000
    (tmp_path / "base").write_bytes(base)
    with pytest.raises(PatchError, match=f"at least {gib + len(base)} bytes.* {gib} .*--max-size"):
        apply(tmp_path / "base", io.BytesIO(bomb), tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["base"]
    # What came with the patch is no such thing.
    piece = deflated(b"D", raw(bytes(pb.FRAME)))
    head = Head(b"", b"").but(new_size=gib + pb.FRAME, new_toc_offset=gib + pb.FRAME)
    with Path("/dev/null").open("wb") as null, pytest.raises(DigestError, match="NEW"):
        apply(io.BytesIO(b""), io.BytesIO(patch(head, *[piece] * (gib // pb.FRAME + 1))), null)


def test_max_size(tmp_path: Path) -> None:
    for name, content in (("base", BASE), ("patch", PATCH)):
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / name for name in ("base", "patch", "new")]
    with pytest.raises(PatchError, match=f"of {len(NEW)} bytes.* {len(NEW) - 1} .*--max-size") as e:
        apply(*files, max_size=len(NEW) - 1)
    assert (e.value.source, e.value.offset) == (str(files[1]), len(pb.MAGIC))
    assert not files[2].exists()
    for wrong in (0, -1, 1 << 63):
        with pytest.raises(UsageError, match="max_size"):
            apply(*files, max_size=wrong)
    assert apply(*files, max_size=len(NEW)).size == len(NEW)
    words = ["apply", *files[:2], "-o", files[2], "--force", "--max-size"]
    assert "--max-size" in command.fails(1, *words, len(NEW) - 1)
    command.ok(*words, "1M")


def test_sizes_that_overflow() -> None:
    """What is added up for the progress."""
    most = (1 << 63) - 1
    refused(patch(head(b"").but(new_size=most, new_toc_offset=most)), "contradict each other")


def test_work_that_makes_nothing() -> None:
    """A small patch that would take hours."""
    base = gzipped(bytes(64 << 20))
    start = Head(base, bytes(100), level=1)
    piece = b"\1\0" + varint(60 << 20)
    for operation in (
        b"\2" + varint(100_000) + (piece + b"\0" + b"\1\0\0\0") * 50_000,
        b"\2" + varint(100_000) + (piece + b"\1") * 100_000,
    ):
        frames = [deflated(b"M", raw(operation))]
        assert len(frames[0]) < 10_000
        refused(patch(start, *frames), "too much work", base)
    empty = deflated(b"M", raw(b"\1\0\0" * 340_000))
    refused(patch(start, *[empty] * 10), "too much work", base)
    nothing = deflated(b"T", raw(lines(0, 0) * 260_000))
    toc = start.but(base=BASE, base_toc_offset=len(FRONT), base_toc_end=len(BASE) - 51)
    toc = toc.but(base_json_size=len(JSON), toc_json_size=9, new_toc_offset=0)
    refused(patch(toc, *[nothing] * 10), "too much work")


def toc_refused(why: str, *operations: bytes, **changes: object) -> None:
    frames = [frame(b"T", operation) for operation in operations]
    start = head(b"\0" * 500, new_toc_offset=0, toc_json_size=len(JSON))
    refused(patch(start.but(**changes), *frames), why)


def test_toc() -> None:
    toc_refused("lines are wanted", lines(0, 7))
    toc_refused("lines are wanted", lines(0, MAX))
    toc_refused("lines are wanted", lines(MAX, 0))
    toc_refused("lines are wanted", lines(6, 1))
    toc_refused("lines are wanted", lines(0, 6), lines(1, 0))
    toc_refused("negative or too large", lines(0, 6, -1))
    toc_refused("negative or too large", lines(0, 6, (1 << 63) - 1), toc_json_size=100)
    toc_refused("longer than was announced", lines(0, 6), text(b"x"))
    toc_refused("longer than was announced", lines(0, 6, 100_000))
    toc_refused("shorter than was announced", lines(0, 5))
    toc_refused("lacks the TOC")
    toc_refused("does not end|do not end", b"\1")
    toc_refused("does not end", b"\2\5abcd")
    toc_refused("unknown kind", b"\0")
    toc_refused("no TOC in the head", lines(0, 6), toc_json_size=0)
    toc_refused("less comes out before the TOC", lines(0, 6), new_toc_offset=1)
    toc_refused("less comes out than", lines(0, 6))
    toc_refused("more comes out", lines(0, 6), new_size=100)
    whole = (lines(0, 6),)
    toc_refused("not where the patch says", *whole, base_toc_offset=0)
    toc_refused("not where the patch says", *whole, base_toc_offset=len(FRONT) + 1)
    toc_refused("not where the patch says", *whole, base_toc_end=len(FRONT))
    toc_refused("not where the patch says|not inflate", *whole, base_toc_end=len(FRONT) + 90)
    toc_refused("not as long", *whole, base_json_size=len(JSON) + 1)
    toc_refused("not as long", *whole, base_json_size=1 << 30)
    after = head(b"\0" * 500, new_toc_offset=0, toc_json_size=len(JSON))
    for late in (data(b"x"), Ops().copy(0, 1).frame(), frame(b"D", b"")):
        refused(patch(after, frame(b"T", lines(0, 6)), late), "after the TOC")


def test_base_toc_that_is_a_bomb() -> None:
    """Only as much is inflated as head and BASE's tar header both say."""
    bomb = gzipped(b"\n" * (1 << 28))
    tar = toc_members(b"\n" * 1000, 0, 1, False)
    header = zlib.decompressobj(31).decompress(tar)[:512]
    base = gzipped(header) + bomb
    start = Head(
        *(base, b"\0" * 500),
        level=1,
        new_toc_offset=0,
        toc_json_size=1001,
        base_toc_end=len(base),
        base_json_size=1000,
    )
    refused(patch(start, frame(b"T", lines(1, 1000))), "lines are wanted", base)
    refused(patch(start.but(base_json_size=1 << 30)), "lacks the TOC", base)
    longer = start.but(base_json_size=1 << 28)
    refused(patch(longer, frame(b"T", lines(0, 1))), "not as long", base)


HOSTILE = """
import io, sys
sys.path[:0] = sys.argv[1:]
import test_patch_malformed as t
from stargz.errors import PatchError
before = peak()
for patched in t.greedy():
    try:
        t.made(patched)
    except PatchError:
        continue
    raise AssertionError("not refused")
print(peak() - before)
"""


def greedy() -> list[bytes]:
    """Patches that ask for much."""
    huge = head(bytes(100), new_size=1 << 62, new_toc_offset=1 << 62)
    piece = b"\1\0\0" + varint(200)
    many = b"\2" + varint(170_000) + piece * 170_000
    return [
        patch(huge, frame(b"M", b"\2\1\1\0\0" + varint(1 << 20))),
        patch(huge, frame(b"M", many)),
        patch(huge, deflated(b"M", raw(bytes(1 << 27)))),
        patch(huge.but(level=2, toc_json_size=1 << 30), frame(b"T", lines(MAX, MAX))),
        patch(huge.but(base_json_size=1 << 30)),
    ]


def test_memory_is_bounded() -> None:
    grown = int(bounded.run(HOSTILE, *Path(__file__).parents[:2], seconds=20))
    assert grown < 200


# --- anything ------------------------------------------------------------------------------

_OPERATION = st.one_of(
    st.builds(
        lambda a, n: b"\1" + zigzag(a) + varint(n), st.integers(-900, 900), st.integers(0, 300)
    ),
    st.builds(
        lambda a, i, n: b"\2\1\1" + varint(a) + varint(i) + varint(n),
        st.sampled_from([0, len(FIRST), len(FRONT), 5]),
        st.integers(0, 600),
        st.integers(0, 600),
    ),
    st.builds(lambda p, n, a: lines(p, n, a), *[st.integers(0, 7)] * 2, st.integers(-50, 50)),
    st.builds(text, st.binary(max_size=20)),
    st.binary(max_size=12),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"D", b"M", b"T"]), st.lists(_OPERATION)), max_size=5),
    st.integers(0, 600),
)
def test_any_frames(frames: list[tuple[bytes, list[bytes]]], size: int) -> None:
    """Whole frames of anything, in a patch whose checksums are right: an error of ours, or NEW."""
    built = [frame(kind, b"".join(operations)) for kind, operations in frames]
    zeros = head(bytes(size))
    for start in (zeros, HEAD, HEAD.but(new_toc_offset=0)):
        try:
            got = made(patch(start, *built))
        except (PatchError, DigestError):
            continue
        assert got == start.new
