"""The entries of a plain tar in a file: where each stands, and its headers under another name.

As much of tar (POSIX.1-2017 pax, GNU) as merging layers needs; every other check is the
converter's, which reads what comes of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from stargz.errors import TarError

BLOCK = 512
MAX_HEADERS = 1 << 20  # bytes of the extended headers of one entry, as the converter has it

_NAME = slice(0, 100)
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_TYPE = 156
_LINK = slice(157, 257)
_MAGIC = slice(257, 263)
_PREFIX = slice(345, 500)
_SPARSE_NAME = b"GNU.sparse.name"
# What a global header says of every entry can be these for no two of them.
_NOT_GLOBAL = (b"path", b"linkpath", b"size")

Records = list[tuple[bytes, bytes]]  # of PAX headers; sparse files repeat keys


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: `start` of its first header, `header` of its last, `end` behind its padded
    payload, in bytes of the tar. `type` is "0" for all regular files, "S" for old sparse ones;
    `shared` are the records of the global headers before it."""

    name: bytes
    type: bytes
    link: bytes
    start: int
    header: int
    end: int
    shared: Records = field(default_factory=list, compare=False)


def scan(fd: int, size: int, source: str) -> Iterator[Entry]:
    """The entries of a tar of `size` bytes, in their order; TarError for what is none."""
    if not size:
        raise TarError("the input is empty: not a tar archive", source)
    shared: Records = []
    at = 0
    while at < size:
        block = _block(fd, at, source)
        if not any(block):
            return
        entry, at = _entry(fd, at, block, size, shared, source)
        if isinstance(entry, Entry):
            yield entry
        else:
            given = dict(entry)
            shared = [pair for pair in shared if pair[0] not in given] + list(given.items())


def _block(fd: int, at: int, source: str) -> bytes:
    block = os.pread(fd, BLOCK, at)
    if len(block) < BLOCK:
        raise TarError("the tar is truncated inside a header", source, at)
    return block


def _entry(
    fd: int, at: int, block: bytes, size: int, shared: Records, source: str
) -> tuple[Entry | Records, int]:
    """The entry whose first header is `block`, or the records of a global one; and where the
    next begins."""
    start = at
    long: dict[bytes, bytes] = {}
    while True:
        _check(block, at, source)
        kind = block[_TYPE : _TYPE + 1]
        if kind not in (b"x", b"g", b"L", b"K"):
            break
        length = _number(block[_SIZE], "size of an extended header", at, source)
        if length > MAX_HEADERS or at + BLOCK + length - start > 4 * MAX_HEADERS:
            raise TarError("extended headers of one entry are over 1 MiB", source, at)
        body = os.pread(fd, length, at + BLOCK)
        if len(body) < length:
            raise TarError("the tar is truncated inside a header", source, at)
        if kind == b"g" and at != start:
            raise TarError("a PAX global header between the headers of one entry", source, at)
        if kind in long:
            raise TarError("two extended headers of one type for one entry", source, at)
        at += BLOCK + _padded(length)
        if kind == b"g":
            return _global(_records(body, at, source), start, source), at
        long[kind] = body
        if at >= size:
            raise TarError("the tar is truncated inside a header", source, at)
        block = _block(fd, at, source)
        if not any(block):
            raise TarError("a block of zeros between the headers of one entry", source, at)
    records = dict(_records(long[b"x"], start, source)) if b"x" in long else {}
    name = records.get(_SPARSE_NAME) or records.get(b"path") or _long(long, b"L") or _name(block)
    link = records.get(b"linkpath") or _long(long, b"K") or _text(block[_LINK])
    kind = b"0" if kind in (b"\0", b"7") else kind
    if not (b"0" <= kind <= b"6" or kind == b"S"):
        raise TarError(f"{os.fsdecode(name)!r}: a tar entry of type {kind!r}", source, at)
    length = 0
    if kind in (b"0", b"S"):
        text = records.get(b"size")
        length = (
            _decimal(text, start, source)
            if text
            else _number(block[_SIZE], "size in the tar header", at, source)
        )
        if kind == b"0" and name.endswith(b"/"):
            kind = b"5"
    payload = at + BLOCK
    if kind == b"S":
        payload = _behind_map(fd, at, block, source)
    end = payload + _padded(length)
    if payload + length > size:
        raise TarError(
            f"{os.fsdecode(name)!r}: the tar is truncated inside the entry", source, start
        )
    return Entry(name, kind, link, start, at, end, shared), end


def _check(block: bytes, at: int, source: str) -> None:
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * 32
    signed = total - 256 * sum(1 for byte in block[:148] + block[156:] if byte >= 128)
    try:
        stated = int(block[_CHECKSUM].replace(b"\0", b" ").split()[0], 8)
    except (ValueError, IndexError):
        stated = -1
    if stated not in (total, signed):
        raise TarError("not a tar header (its checksum does not match)", source, at)


def _number(text: bytes, what: str, at: int, source: str) -> int:
    found = -1
    if text[0] & 0x80:
        if not text[0] & 0x40:
            found = int.from_bytes(text, "big") & ~(0x80 << 8 * (len(text) - 1))
    else:
        digits = text.replace(b"\0", b" ").strip()
        if digits.translate(None, b"01234567") == b"":
            found = int(digits or b"0", 8)
    if not 0 <= found < 1 << 62:
        raise TarError(f"the {what} is no number in range", source, at)
    return found


def _decimal(text: bytes, at: int, source: str) -> int:
    if not text.isdigit() or len(text) > 18:
        raise TarError("the size in a PAX header is no number in range", source, at)
    return int(text)


def _records(body: bytes, at: int, source: str) -> Records:
    found: Records = []
    pos = 0
    while pos < len(body) and body[pos]:
        digits, space, _ = body[pos : pos + 21].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        key, equals, value = body[pos + len(digits) + 1 : pos + length].partition(b"=")
        if not equals or pos + length > len(body) or value[-1:] != b"\n":
            raise TarError("a malformed record in a PAX header", source, at)
        found.append((key, value[:-1]))
        pos += length
    return found


def _global(records: Records, at: int, source: str) -> Records:
    for key, _ in records:
        if key in _NOT_GLOBAL or key.startswith(b"GNU.sparse."):
            raise TarError(
                f"{os.fsdecode(key)!r} in a PAX global header cannot hold for every entry",
                source,
                at,
            )
    return [(key, value) for key, value in records if key != b"comment"]


def _long(bodies: dict[bytes, bytes], kind: bytes) -> bytes:
    return _text(bodies.get(kind, b""))


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _name(block: bytes) -> bytes:
    name = _text(block[_NAME])
    if block[_MAGIC] == b"ustar\0" and (prefix := _text(block[_PREFIX])):
        return prefix + b"/" + name
    return name


def _behind_map(fd: int, at: int, block: bytes, source: str) -> int:
    """Where the payload of an old GNU sparse file begins: its map may go on in more blocks."""
    first, more = at, block[482]
    at += BLOCK
    while more:
        if at - first > MAX_HEADERS:
            raise TarError("the sparse map is over the limit of 1 MiB", source, first)
        more = _block(fd, at, source)[504]
        at += BLOCK
    return at


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


# --- headers under another name -----------------------------------------------------------


def renamed(fd: int, entry: Entry, name: bytes, link: bytes | None = None) -> bytes:
    """The headers of an entry under another name (or its own), with the global records folded
    in; `link` makes a hard link of it. All else stays as it is."""
    raw = os.pread(fd, entry.header + BLOCK - entry.start, entry.start)
    own: Records = []
    at = 0
    while at < entry.header - entry.start:
        length = _number(raw[at : at + BLOCK][_SIZE], "size", at, "")
        if raw[at + _TYPE : at + _TYPE + 1] == b"x":
            own = _records(raw[at + BLOCK : at + BLOCK + length], at, "")
        at += BLOCK + _padded(length)
    stated = dict(own)
    records = [pair for pair in entry.shared if pair[0] not in stated] + own
    block = bytearray(raw[-BLOCK:])
    target = entry.link if link is None else link
    _put_text(records, block, b"path", name)
    if link is not None:
        # What is of the contents is not of a link.
        records = [
            (key, value)
            for key, value in records
            if not key.startswith(b"GNU.sparse.") and key != b"size"
        ]
        block[_TYPE] = ord("1")
        block[_SIZE] = b"%011o\0" % 0
    elif _SPARSE_NAME in stated:
        records = [(key, name if key == _SPARSE_NAME else value) for key, value in records]
    if target:
        _put_text(records, block, b"linkpath", target)
    block[_CHECKSUM] = b" " * 8
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return (_pax(records) if records else b"") + bytes(block)


def _put_text(records: Records, block: bytearray, key: bytes, text: bytes) -> None:
    """A name or link target: in its field, or in a record if it is too long for that."""
    records[:] = [pair for pair in records if pair[0] != key]
    where = _NAME if key == b"path" else _LINK
    block[where] = text[:100].ljust(100, b"\0")
    if key == b"path" and block[_MAGIC] == b"ustar\0":
        block[_PREFIX] = bytes(155)
    if len(text) > 100:
        records.append((key, text))


def _pax(records: Records) -> bytes:
    lines = []
    for key, value in records:
        size = len(key) + len(value) + 3
        length = size + len(str(size))
        length = size + len(str(length))
        lines.append(b"%d %s=%s\n" % (length, key, value))
    body = b"".join(lines)
    return _header(b"PaxHeaders/entry", b"x", len(body), 0o644) + body + bytes(-len(body) % BLOCK)


def directory(name: bytes) -> bytes:
    """The headers of a directory of root's, mode 0755, that a tar did not name."""
    block = bytearray(_header(b"", b"5", 0, 0o755))
    records: Records = []
    _put_text(records, block, b"path", name + b"/")
    block[_CHECKSUM] = b" " * 8
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return (_pax(records) if records else b"") + bytes(block)


def _header(name: bytes, kind: bytes, size: int, mode: int) -> bytes:
    block = bytearray(BLOCK)
    block[_NAME] = name.ljust(100, b"\0")
    block[100:108] = b"%07o\0" % mode
    block[108:116] = block[116:124] = b"%07o\0" % 0
    block[_SIZE] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 0
    block[_TYPE] = ord(kind)
    block[257:265] = b"ustar\x0000"
    block[_CHECKSUM] = b" " * 8
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)
