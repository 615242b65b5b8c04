"""Odd tars: conversion, its first pass, merging and the index of an archive read them alike."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stargz
from stargz._engine.write import TarEntries
from stargz.errors import TarError
from stargz.oci.convert.flatten import merged_tar
from stargz.oci.formats.tar_index import TarIndex

END = bytes(1024)


def block(
    name: bytes = b"f",
    size: bytes = b"00000000003\0",
    kind: bytes = b"0",
    *,
    sum_of: Callable[[bytes], int] = sum,
    form: bytes = b"%06o\0 ",
    magic: bytes = b"ustar\x0000",
    **fields: bytes,
) -> bytes:
    """A header block, its fields as they are given and its checksum made of that."""
    header = bytearray(512)
    places = {0: name, 100: b"0000644\0", 124: size, 156: kind, 257: magic}
    places |= {int(key[1:]): value for key, value in fields.items()}
    for at, value in places.items():
        header[at : at + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = (form % sum_of(header)).ljust(8, b" ")
    return bytes(header)


def signed(header: bytes) -> int:
    return sum(byte - 256 if byte > 127 else byte for byte in header)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def octal(number: int) -> bytes:
    return b"%011o\0" % number


def extended(kind: bytes, body: bytes) -> bytes:
    return block(b"x", octal(len(body)), kind) + padded(body)


def record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text) + len(str(len(text)))
    return b"%d%s" % (len(text) + len(str(length)), text)


def pax(**records: Any) -> bytes:
    return extended(b"x", b"".join(record(k.replace("_", "."), str(v)) for k, v in records.items()))


ABC = padded(b"abc")
LAST = block(b"last") + ABC + END
LONG = b"long/" * 30 + b"name"
GNU = b"ustar  \0"
GNU_PREFIX = block(magic=GNU, a345=b"some/where")
MAP = b"1\n2\n3\n".ljust(512, b"\0")

# What the tar holds besides "last".
READ: dict[str, tuple[bytes, dict[str, bytes]]] = {
    "plain": (block() + ABC, {"f": b"abc"}),
    "nothing": (b"", {}),
    "v7": (block(magic=b"") + ABC, {"f": b"abc"}),
    "prefix": (block(a345=b"some/where") + ABC, {"some/where/f": b"abc"}),
    "base-256": (block(size=b"\x80" + (3).to_bytes(11, "big")) + ABC, {"f": b"abc"}),
    "blanks": (block(size=b"         3 \0") + ABC, {"f": b"abc"}),
    "no NUL": (block(size=b"000000000003") + ABC, {"f": b"abc"}),
    "behind the NUL": (block(size=b"00000000003\0"[:11] + b"\0") + ABC, {"f": b"abc"}),
    "no size": (block(size=b""), {"f": b""}),
    "signed": (block(b"f", a265=b"\xe9", sum_of=signed) + ABC, {"f": b"abc"}),
    "form of checksum": (block(form=b" %6o\0") + ABC, {"f": b"abc"}),
    "whole field": (block(form=b"%08o") + ABC, {"f": b"abc"}),
    "old regular": (block(kind=b"\0") + ABC, {"f": b"abc"}),
    "contiguous": (block(kind=b"7") + ABC, {"f": b"abc"}),
    "PAX size": (pax(size=3) + block(size=octal(0)) + ABC, {"f": b"abc"}),
    "PAX size for a huge one": (pax(size=3) + block(size=b"77777777777\0") + ABC, {"f": b"abc"}),
    "PAX name": (pax(path=LONG.decode()) + block() + ABC, {LONG.decode(): b"abc"}),
    "GNU name": (extended(b"L", LONG + b"\0") + block() + ABC, {LONG.decode(): b"abc"}),
    "GNU name of nothing": (extended(b"L", b"\0") + block() + ABC, {"f": b"abc"}),
    "both": (extended(b"L", b"p") + pax(path="p") + block() + ABC, {"p": b"abc"}),
    "two PAX headers": (pax(path="a", size=9) + pax(path="b") + block() + ABC, {"b": b"abc"}),
    "two GNU names": (extended(b"L", b"a") + extended(b"L", b"b") + block() + ABC, {"b": b"abc"}),
    "Solaris header": (extended(b"X", record("path", "p")) + block() + ABC, {"p": b"abc"}),
    "incremental directory": (block(b"d", kind=b"D") + padded(b"Yf\0"), {}),
    "prefix in a GNU header": (GNU_PREFIX + ABC, {"some/where/f": b"abc"}),
    "times in a GNU header": (block(magic=GNU, a345=octal(7) * 2) + ABC, {"f": b"abc"}),
    "empty PAX name": (pax(path="") + block() + ABC, {"f": b"abc"}),
    "directory with a size": (block(b"d", kind=b"5"), {}),
    "directory by its name": (block(b"d/", size=octal(0)), {}),
    "link with a size": (block(b"l", kind=b"2", a157=b"last"), {}),
    "global": (extended(b"g", record("uid", "7")) + block() + ABC, {"f": b"abc"}),
}
# Of sparse files the index tells no contents, the other two what is stored.
SPARSE: dict[str, bytes] = {
    "old GNU": block(kind=b"S", magic=b"ustar  \0", a386=octal(2) + octal(3), a483=octal(9)) + ABC,
    "PAX 0.1": pax(GNU_sparse_size=9, GNU_sparse_map="2,3") + block() + ABC,
    "PAX 1.0": pax(
        GNU_sparse_major=1, GNU_sparse_minor=0, GNU_sparse_name="f", GNU_sparse_realsize=9
    )
    + block(b"x", octal(515))
    + MAP
    + ABC,
}
REFUSED: dict[str, tuple[bytes, str]] = {
    "checksum": (block(sum_of=lambda header: sum(header) + 1) + ABC, "checksum"),
    "no checksum": (block(form=b"x%o") + ABC, "checksum"),
    "not octal": (block(size=b"99999999999\0"), "not a number"),
    "behind the digits": (block(size=b"3x"), "not a number"),
    "huge": (block(size=b"\x80" + b"\xff" * 11), "not a number"),
    "far": (block(size=b"\x80\0\0\0\x7f" + b"\xff" * 7), "out of range"),
    "negative": (block(size=b"\xff" * 12), "out of range"),
    "too long": (block(size=b"77777777777\0") + ABC, "truncated"),
    "PAX size of no digits": (pax(size="1e3") + block() + ABC, "'size' is not a number"),
    "PAX size below 0": (pax(size=-3) + block() + ABC, "'size' is not a number"),
    "record too long": (extended(b"x", b"99 path=x\n") + block() + ABC, "malformed PAX record"),
    "record of nothing": (extended(b"x", b"0 path=x\n") + block() + ABC, "malformed PAX record"),
    "NUL among records": (extended(b"x", b"9 a=bcde\n\0") + block(), "malformed PAX record"),
    "no key": (extended(b"x", b"6 =ab\n") + block() + ABC, "without a key"),
    "PAX and GNU name": (pax(path="a") + extended(b"L", b"b") + block(), "are not the same"),
    "contents of a directory": (block(b"d/"), "a file with the name of a directory"),
    "star prefix": (block(a345=b"p" * 143, a508=b"tar\0") + ABC, "does not end where"),
    "long of 1 MiB": (block(size=octal((1 << 20) + 1), kind=b"L"), "over the limit of 1 MiB"),
    "global path": (extended(b"g", record("path", "x")) + block(), "global"),
    "global in between": (pax(path="a") + extended(b"g", record("uid", "1")), "global header"),
    "zeros in between": (pax(path="a") + END, "zeros between the headers"),
    "a lone block of zeros": (block() + ABC + bytes(512), "a lone block of zeros"),
    "sparse map": (pax(GNU_sparse_size=9, GNU_sparse_map="2,3,1,1") + block() + ABC, "sparse"),
    "no name": (block(b"") + ABC, "without a name"),
}
# Without what follows in all of the above.
ENDS: dict[str, tuple[bytes, dict[str, bytes] | str]] = {
    "nothing at all": (b"", {}),
    "no end": (block() + ABC, {"f": b"abc"}),
    "one block of zeros": (block() + ABC + bytes(512), {"f": b"abc"}),
    "behind the end": (block() + ABC + END + b"garbage" * 99, {"f": b"abc"}),
    "no padding": (block() + b"abc", {"f": b"abc"}),
    "in the padding": (block() + ABC[:500], {"f": b"abc"}),
    "in the data": (block() + b"ab", "truncated"),
    "in a header": (block() + ABC + block()[:511], "truncated"),
    "in the zeros": (block() + ABC + bytes(511), "truncated"),
    "in the records": (pax(path="a")[:600], "truncated"),
    "behind the records": (pax(path="a"), "truncated"),
}


def by_conversion(tar: bytes, **options: Any) -> dict[str, bytes]:
    out = io.BytesIO()
    stargz.convert(io.BytesIO(tar), out, threads=1, **options)
    with stargz.open(out.getvalue()) as layer:
        found = {name: layer.entry(name) for name in layer.names()}
        return {
            name: layer.read(name)
            for name, entry in found.items()
            if entry.type == "reg" and "landmark" not in name
        }


def prioritized(tar: bytes) -> dict[str, bytes]:
    return by_conversion(tar, prioritized=["last"], allow_missing=True)


def merged(tar: bytes) -> dict[str, bytes]:
    with merged_tar([io.BytesIO(tar)]) as found:
        return by_conversion(found.read())


@pytest.fixture
def doors(tmp_path: Path) -> list[Callable[[bytes], dict[str, bytes]]]:
    """All that reads a tar: each tells the regular files in it."""
    path = tmp_path / "tar"

    def one_by_one(tar: bytes) -> dict[str, bytes]:
        path.write_bytes(tar)
        with path.open("rb") as file:
            return {
                os.fsdecode(entry.name): os.pread(file.fileno(), entry.size, entry.data)
                for entry in TarEntries(file.fileno(), len(tar), "tar")
                if entry.type in (b"0", b"S")
            }

    def by_name(tar: bytes) -> dict[str, bytes]:
        path.write_bytes(tar)
        with path.open("rb") as file:
            index = TarIndex(file.fileno(), len(tar), "tar")
            found = {name: index.find(name) for name, member in index.members.items()}
            return {
                name: os.pread(file.fileno(), member.size, member.offset)
                for name, member in found.items()
                if index.members[name].kind == "file"
            }

    return [by_conversion, prioritized, one_by_one, merged, by_name]


@pytest.mark.parametrize("name", READ)
def test_all_read(name: str, doors: list[Callable[[bytes], dict[str, bytes]]]) -> None:
    head, expected = READ[name]
    for door in doors:
        assert door(head + LAST) == expected | {"last": b"abc"}


@pytest.mark.parametrize("name", SPARSE)
def test_all_read_sparse(name: str, doors: list[Callable[[bytes], dict[str, bytes]]]) -> None:
    tar = SPARSE[name] + LAST
    conversion, first, entries, both, index = doors
    for door in (conversion, first, both):
        assert door(tar) == {"f": b"\0\0abc\0\0\0\0", "last": b"abc"}
    assert entries(tar) == {"f": b"abc", "last": b"abc"}
    with pytest.raises(TarError, match="no plain file"):
        index(tar)


@pytest.mark.parametrize("name", [*REFUSED, *ENDS])
def test_all_refuse(name: str, doors: list[Callable[[bytes], dict[str, bytes]]]) -> None:
    """With the same words, at the same place."""
    tar, says = ENDS[name] if name in ENDS else (REFUSED[name][0] + LAST, REFUSED[name][1])
    said = set()
    for door in doors if tar else doors[:-1]:  # an empty archive has no manifest.json
        if isinstance(says, dict):
            assert door(tar) == says
            continue
        with pytest.raises(TarError, match=says) as caught:
            door(tar)
        said.add((caught.value.message, caught.value.offset))
    assert len(said) == isinstance(says, str)


def test_only_an_archive_may_hold_what_no_layer_can(
    doors: list[Callable[[bytes], dict[str, bytes]]],
) -> None:
    tar = block(b"label", size=octal(3), kind=b"V") + ABC + LAST
    *layers, index = doors
    for door in layers:
        with pytest.raises(TarError, match="type 'V' \\(volume label\\)"):
            door(tar)
    with pytest.raises(TarError, match="'label' is no plain file"):
        index(tar)


def test_global_records_are_told_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "tar"
    first = extended(b"g", record("uid", "7") + record("comment", "c") + record("a.b", "1"))
    second = extended(b"g", record("uid", "8"))
    path.write_bytes(first + block(b"a") + ABC + second + pax(size=3, mtime=1) + LAST)
    with path.open("rb") as file:
        one, two = TarEntries(file.fileno(), path.stat().st_size, "tar")
        assert list(one.shared.items()) == [(b"uid", b"7"), (b"a.b", b"1")]
        assert list(two.shared.items()) == [(b"a.b", b"1"), (b"uid", b"8")]
        assert one.records(file.fileno()) == []
        assert two.records(file.fileno()) == [(b"size", b"3"), (b"mtime", b"1")]
    assert (one.start, one.header, one.data, one.end) == (1024, 1024, 1536, 2048)
    assert (two.start, two.header, two.data, two.end) == (3072, 4096, 4608, 5120)


def test_global_records_have_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "tar"
    with path.open("w+b") as file:
        for number in range(3):
            file.write(extended(b"g", record(f"k{number}", "x" * 400_000)))
        file.write(LAST)
        file.flush()
        with pytest.raises(TarError, match="over the limit of 1 MiB"):
            list(TarEntries(file.fileno(), path.stat().st_size, "tar"))
