"""Deflate data that no compressor writes: level="reuse" has a decoder of its own, which takes what
ISA-L takes (level 1), and refuses the rest in the same words; and zlib is of the same opinion."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import re
import signal
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade
import pytest
from command import command, environment, together
from deflating import Deflate, match, member
from pieces import Pieces

import stargz
from stargz.errors import GzipError, TarError

A = ord("a")
BLOCK, SYMBOL, FAR = "invalid deflate block", "invalid deflate symbol", "distance too far back"
NOISE = random.Random(1).randbytes(32768)
REST = (0, 99)  # bits behind what is wrong, or it would be cut off
STEPS = {0: 3, 1: 3, 2: 3, 16: 3, 17: 2, 18: 2}  # codes that lengths of codes are written with
TO_END = [(18, 127), (18, 107)]  # no literal has a code
MATCHES = {A: 2, 256: 2, 257: 1}


def some(*more: int) -> dict[int, int]:
    """Codes of eight bits: three literals', the end's and `more`."""
    return dict.fromkeys([A, A + 1, A + 2, 256, *more], 8)


def header(
    *lengths: int | tuple[int, int],
    counts: tuple[int, int] = (257, 1),
    steps: dict[int, int] = STEPS,
    out: bytes = b"",
) -> Deflate:
    """A byte, then the header of a block which decodes to `out`."""
    data = Deflate().fixed([A], last=False).header(counts, steps, lengths)
    data.out += out
    return data


def dynamic(literals: dict[int, int], distances: dict[int, int], *tokens: Any) -> Deflate:
    return Deflate().dynamic(literals, distances, tokens)


def broken(literals: dict[int, int], distances: dict[int, int], *tokens: Any) -> Deflate:
    return Deflate().dynamic(literals, distances, tokens, end=False)


def fixed(*tokens: Any, end: bool = True) -> Deflate:
    return Deflate().fixed(tokens, end=end)


def empty(write: Callable[[Deflate], Deflate]) -> Deflate:
    data = Deflate()
    for _ in range(300):
        write(data)
    return data.fixed([A, match(9, 1)])


GOOD = {
    "one distance, of one bit": dynamic(MATCHES, {0: 1}, A, match(3, 1)),
    "one distance, not the first": dynamic(MATCHES, {2: 1}, A, A, A, match(3, 3)),
    "no distance": dynamic({A: 1, 256: 1}, {}, *[A] * 9),
    "only an end": header(*TO_END, 1, 0).bits(0, 1),
    "a step that another block had": Deflate()
    .dynamic({15: 1, 256: 1}, {}, [15], last=False)
    .header((257, 1), STEPS, [*TO_END, 1, 0])
    .bits(0, 1),
    "30 distances": dynamic({A: 1, 256: 2, 285: 2}, {0: 1, 29: 1}, A, match(258, 1), A),
    "286 literals": dynamic({A: 1, 256: 2, 285: 2}, {0: 1}, A, match(258, 1), A),
    "codes of 15 bits": dynamic(
        {A + i: i + 1 for i in range(14)} | {256: 15, 285: 15},
        {i: i + 1 for i in range(14)} | {14: 15, 15: 15},
        *range(A, A + 14),
        *[A] * 300,
        *(match(258, 1 + i * 7) for i in range(36)),
    ),
    "lengths repeated as distances": header(*TO_END, 1, (16, 0), counts=(258, 2), out=b"aaa").bits(
        0b001, 3
    ),
    "farthest": Deflate().stored(NOISE, last=False).fixed([match(258, 32768), match(3, 32768)]),
    "258 by symbol 285": fixed(A, match(258, 1)),
    "258 by symbol 284": fixed(A, (284, 31, 0, 0), A),
    "258 by symbol 284, dynamic": dynamic({A: 1, 256: 2, 284: 2}, {0: 1}, A, (284, 31, 0, 0), A),
    "stored, all there can be": Deflate().stored(NOISE + NOISE[1:]),
    "stored, empty": empty(lambda data: data.stored(b"", last=False)),
    "fixed, empty": empty(lambda data: data.fixed([], last=False)),
    "dynamic, empty": empty(lambda data: data.dynamic({A: 1, 256: 1}, {}, last=False)),
}
# zlib takes no codes that leave values unused, but for one code of one bit.
LENIENT = {
    "few literals": dynamic(some(), {}, A, A + 2, A + 1),
    "few long literals": dynamic({A: 1, A + 1: 13, 256: 13}, {}, A, A + 1),
    "few long distances": dynamic(MATCHES, {0: 1, 1: 12, 2: 12}, A, match(3, 1), match(3, 3)),
    "few distances": dynamic(MATCHES, {0: 3, 1: 3}, A, match(3, 1), match(3, 2)),
    "one distance, of two bits": dynamic(MATCHES, {0: 2}, A, match(3, 1)),
    "few codes for lengths": header(*TO_END, 1, 0, steps={0: 2, 1: 2, 18: 2}).bits(0, 1),
}
BAD = {
    "too many literals": (dynamic({A: 1, A + 1: 1, 256: 1}, {}), BLOCK),
    "too many literals, the last": (dynamic({A: 1, A + 1: 2, A + 2: 2, 256: 15}, {}), BLOCK),
    "too many distances": (dynamic({A: 1, 256: 1}, {0: 1, 1: 1, 2: 1}), BLOCK),
    "too many distances, the last": (dynamic({A: 1, 256: 1}, {0: 1, 1: 1, 2: 15}), BLOCK),
    "too many codes for lengths": (header(steps={0: 1, 1: 1, 18: 7}), BLOCK),
    "no code for lengths": (header(steps={}), BLOCK),
    "none of few literals": (broken(some(), {}, A).bits(255, 8).bits(*REST), SYMBOL),
    "none of few long literals": (
        broken({A: 1, A + 1: 13, 256: 13}, {0: 1, 1: 1}, A).bits(0b0100000000001, 13).bits(*REST),
        SYMBOL,
    ),
    "none of few long distances": (
        broken(MATCHES, {0: 1, 1: 12, 2: 12}, A, (257, 0, 9, 0))
        .bits(0b010000000001, 12)
        .bits(*REST),
        SYMBOL,
    ),
    "none of few distances": (
        broken(MATCHES, {0: 3, 1: 3}, A, (257, 0, 9, 0)).bits(7, 3).bits(*REST),
        SYMBOL,
    ),
    "none of few codes for lengths": (
        header(steps={0: 2, 1: 2, 18: 2}).bits(3, 2).bits(*REST),
        BLOCK,
    ),
    "one distance, the other bit": (
        broken(MATCHES, {0: 1}, A, (257, 0, 9, 0)).bits(1, 1).bits(*REST),
        SYMBOL,
    ),
    "no distance, a match": (broken(MATCHES, {}, A, (257, 0, 9, 0)).bits(*REST), SYMBOL),
    "only an end, the other bit": (header(*TO_END, 1, 0).bits(1, 1).bits(*REST), SYMBOL),
    "no end": (header(*TO_END, 0, 1, 1, counts=(258, 2)), BLOCK),
    "no end, within zeros": (header((18, 127), (18, 101), (18, 99), counts=(286, 30)), BLOCK),
    "no end, zeros up to it": (header((18, 127), (18, 97), (18, 99), counts=(286, 30)), BLOCK),
    "no end, another behind it": (header(*TO_END, 0, 1, 1, 1, counts=(286, 30)), BLOCK),
    "nothing to repeat": (header((16, 0)), BLOCK),
    "repeated too often": (header(*TO_END, 1, (16, 0)), BLOCK),
    "zeros too many": (header(*TO_END, 1, (17, 0)), BLOCK),
    "many zeros too many": (header(*TO_END, 1, (18, 0)), BLOCK),
    "287 literals": (header(counts=(287, 1)), BLOCK),
    "288 literals": (header(counts=(288, 1)), BLOCK),
    "31 distances": (header(counts=(257, 31)), BLOCK),
    "32 distances": (header(counts=(257, 32)), BLOCK),
    "symbol 286": (fixed(A, (286, 0, 0, 0), end=False).bits(*REST), SYMBOL),
    "symbol 287": (fixed(A, (287, 0, 0, 0), end=False).bits(*REST), SYMBOL),
    "distance 30": (fixed(A, (257, 0, 30, 0), end=False).bits(*REST), SYMBOL),
    "distance 31": (fixed(A, (257, 0, 31, 0), end=False).bits(*REST), SYMBOL),
    "distance 30, in two bytes": (
        fixed(200, 200, (257, 0, 30, 0), end=False).bits(*REST),
        SYMBOL,
    ),
    "distance 31, in two bytes": (
        fixed(200, 200, (257, 0, 31, 0), end=False).bits(*REST),
        SYMBOL,
    ),
    "before the first byte": (fixed(match(3, 1)), FAR),
    "before the member": (fixed(*[A] * 9, match(3, 10)), FAR),
    "before the member, 32 KiB": (
        Deflate().stored(NOISE[1:], last=False).fixed([match(258, 32768)]),
        FAR,
    ),
    "reserved type": (Deflate().begin(3), BLOCK),
    "reserved type, later": (Deflate().fixed([A], last=False).begin(3), BLOCK),
    "stored, of two lengths": (Deflate().stored(b"x" * 9, wrong=4), BLOCK),
    "stored, empty, of two lengths": (Deflate().stored(b"", wrong=0xFFFF), BLOCK),
}


def layer(data: Deflate) -> tuple[bytes, int]:
    """A tar.gz with a file of what this member of its own decodes to, and of a byte; and where the
    member is."""
    size = len(data.out) + 1
    first = handmade.member(handmade.header("f", size))
    last = handmade.member(b"." + bytes(-size % 512 + 1024))
    return first + member(data.data, data.out) + last, len(first)


def verdict(blob: bytes, level: Any, step: int = 1 << 20) -> tuple[str, int | None] | bytes:
    """The layer, or the words and the place of the error."""
    source: Any = Pieces(blob, step)
    out = io.BytesIO()
    try:
        stargz.convert(source, out, level=level, verify=True)
    except (GzipError, TarError) as error:
        return str(error), error.offset
    return out.getvalue()


def verdicts(blob: bytes) -> tuple[str, int | None] | bytes:
    """That of level="reuse", which the error must be level 1's for."""
    found = verdict(blob, "reuse")
    for step in (1, 61) if len(blob) < 4000 else (997,):
        assert verdict(blob, "reuse", step) == found
    plain = verdict(blob, 1)
    if isinstance(found, bytes) and isinstance(plain, bytes):
        assert gzip.decompress(found)[:512] == gzip.decompress(plain)[:512]
    else:
        assert found == plain
    return found


def zlib_takes(data: Deflate) -> bool:
    unzip = zlib.decompressobj(-15)
    with contextlib.suppress(zlib.error):
        return unzip.decompress(data.data + bytes(8)) == data.out and unzip.eof
    return False


@pytest.mark.parametrize("data", (GOOD | LENIENT).values(), ids=GOOD | LENIENT)
def test_good(data: Deflate) -> None:
    assert zlib_takes(data) == (data in GOOD.values())
    blob, _ = layer(data)
    made = verdicts(blob)
    assert isinstance(made, bytes), made
    with stargz.open(made) as opened:
        assert opened.read("f") == data.out + b"."


@pytest.mark.parametrize(("data", "says"), BAD.values(), ids=BAD)
def test_bad(data: Deflate, says: str) -> None:
    assert not zlib_takes(data)
    blob, at = layer(data)
    found = verdicts(blob)
    assert isinstance(found, tuple)
    assert says in found[0]
    assert found[1] == at


SMALL = Deflate().fixed([A, match(9, 1)], last=False).stored(b"stored", last=False)
SMALL.dynamic(MATCHES, {0: 2, 1: 2, 2: 1}, [A, match(3, 1), match(3, 2), match(3, 3)], last=False)
SMALL.header((258, 1), STEPS, [*TO_END, 1, 1, 0], last=False).bits(0, 1).fixed([])
WHOLE, AT = layer(SMALL)


@pytest.mark.parametrize("data", [SMALL, *(BAD[name][0] for name in BAD if "32" not in name)])
def test_cut_off_anywhere(data: Deflate) -> None:
    """Also where what was wrong is cut off, and nobody knows yet, or it is certain already."""
    blob, at = layer(data)
    for end in range(at, at + 18 + len(data.data)):
        found = verdict(blob[:end], "reuse")
        assert found == verdict(blob[:end], 1) == verdict(blob[:end], "reuse", 1), end
        assert isinstance(found, tuple)


def changed(at: int, by: int = 1) -> bytes:
    return WHOLE[:at] + bytes([WHOLE[at] ^ by]) + WHOLE[at + 1 :]


def headed(head: bytes, wrong: int | None = None) -> bytes:
    """With this behind the method, and a CRC of the header."""
    head = b"\x1f\x8b\x08" + head
    if wrong is not None:
        head += ((zlib.crc32(head) & 0xFFFF) ^ wrong).to_bytes(2, "little")
    return WHOLE[:AT] + member(SMALL.data, SMALL.out, head) + WHOLE[END:]


TIME = b"\1\2\3\4\0\xff"
END = AT + 18 + len(SMALL.data)
EMPTY = handmade.member(b"")
AROUND: dict[str, tuple[bytes, str | None]] = {
    "empty members": (EMPTY + WHOLE[:AT] + EMPTY * 3 + WHOLE[AT:] + EMPTY, None),
    "every flag": (headed(b"\x1f" + TIME + b"\5\0AB\1\0xname\0comment\0", 0), None),
    "wrong header CRC": (headed(b"\x02" + TIME, 1), "CRC-16"),
    "reserved flag": (headed(b"\x20" + TIME), "reserved flags"),
    "method": (changed(AT + 2), "method 9"),
    "wrong CRC": (changed(END - 8), "CRC-32"),
    "wrong length": (changed(END - 1, 128), "trailer says 21474"),
    "zeros behind": (WHOLE + bytes(700), None),
    "garbage behind": (WHOLE + b"garbage", None),
    "zeros, then garbage": (WHOLE + bytes(100) + b"\x1f\x8b", None),
    "half a magic behind": (WHOLE + b"\x1f", "truncated"),
    "a magic behind": (WHOLE + b"\x1f\x8b", "truncated"),
    "a header behind": (WHOLE + WHOLE[:10], "truncated"),
    "another method behind": (WHOLE + b"\x1f\x8b\x07" + TIME + b"\0", "method 7"),
    "garbage within": (WHOLE[:AT] + b"garbage", ""),
    "zeros within": (WHOLE[:AT] + bytes(700), ""),
}


@pytest.mark.parametrize(("blob", "says"), AROUND.values(), ids=AROUND)
def test_around(blob: bytes, says: str | None) -> None:
    found = verdicts(blob)
    if says is None:
        assert isinstance(found, bytes), found
    else:
        assert isinstance(found, tuple)
        assert says in found[0]


def test_command(tmp_path: Path) -> None:
    """The words are level 1's there too."""
    words = []
    for number, (data, _) in enumerate(BAD.values()):
        (tmp_path / str(number)).write_bytes(layer(data)[0])
        for level in (1, "reuse"):
            words.append(["convert", "--level", level, tmp_path / str(number), tmp_path / "out"])
    told = together(*words)
    assert told[::2] == told[1::2]
    assert all(code == 1 and "corrupt gzip member" in err for code, _, err in told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["stored", "fixed", "dynamic", "members"])
def test_without_end(kind: str, tmp_path: Path) -> None:
    """What decodes to nothing takes no memory, however much there is, and can be interrupted."""
    data = Deflate()
    for _ in range(8):  # whole bytes, then
        if kind == "stored":
            data.stored(b"", last=False)
        elif kind == "fixed":
            data.fixed([], last=False)
        else:
            data.dynamic({A: 1, 256: 1}, {}, last=False)
    head, step, size = WHOLE[:AT] + WHOLE[:10], data.data, 4
    if kind == "members":
        head, step, size = WHOLE[:AT], EMPTY, 1
    words = command("convert", "--level", "reuse", "-", tmp_path / "out")
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(head)
        peaks = []
        for _ in range(2):
            process.stdin.write(step * ((size << 20) // len(step)))
            status = Path(f"/proc/{process.pid}/status").read_text()
            peaks.append(int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) >> 10)
        process.send_signal(signal.SIGINT)
        process.stdin.close()
        assert process.wait(60) == 130
    assert peaks[1] - peaks[0] < 3
    assert not (tmp_path / "out").exists()
