"""Synthetic inputs, written straight to a pipe or file: python -m bench.inputs KIND N

empty N   a tar of N empty files
single N  a tar of one file of N bytes
"""

from __future__ import annotations

import sys
from typing import BinaryIO


def header(name: bytes, size: int) -> bytes:
    """A ustar header; a size from 8 GiB on as GNU tar writes it."""
    block = bytearray(512)
    block[: len(name)] = name
    number = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    block[100:136] = b"0000644\0" + b"0000000\0" * 2 + number
    block[136:148] = b"14524702400\0"
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar\00000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def empty(count: int, out: BinaryIO) -> None:
    first = header(b"dir/empty-00000000", 0)
    base = sum(first) - sum(first[148:156]) + 8 * 32 - 8 * ord("0")
    head, middle, tail = first[:10], first[18:148], first[156:]
    batch = []
    for n in range(count):
        digits = b"%08d" % n
        batch.append(head + digits + middle + b"%06o\0 " % (base + sum(digits)) + tail)
        if len(batch) == 4096:
            out.write(b"".join(batch))
            batch.clear()
    out.write(b"".join(batch) + bytes(1024))


def single(size: int, out: BinaryIO) -> None:
    block = b"".join(b"line %d of a large file\n" % n for n in range(60_000))
    out.write(header(b"large", size))
    for at in range(0, size, len(block)):
        out.write(block[: size - at])
    out.write(bytes(-size % 512 + 1024))


def main() -> None:
    kinds = {"empty": empty, "single": single}
    if len(sys.argv) != 3 or sys.argv[1] not in kinds:
        sys.exit(__doc__)
    kinds[sys.argv[1]](int(sys.argv[2]), sys.stdout.buffer)


if __name__ == "__main__":
    main()
