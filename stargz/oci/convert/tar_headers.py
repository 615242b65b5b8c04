"""The headers of a tar entry under another name."""

from __future__ import annotations

import os

from stargz._engine.write import TarEntry

BLOCK = 512

_NAME = slice(0, 100)
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_TYPE = 156
_LINK = slice(157, 257)
_MAGIC = slice(257, 263)
_PREFIX = slice(345, 500)
_SPARSE_NAME = b"GNU.sparse.name"

Records = list[tuple[bytes, bytes]]  # of PAX headers; sparse files repeat keys


def renamed(fd: int, entry: TarEntry, name: bytes, link: bytes | None = None) -> bytes:
    """The headers of an entry under another name (or its own), with the global records folded
    in; `link` makes a hard link of it. All else stays as it is."""
    own = entry.records(fd)
    stated = dict(own)
    records = [pair for pair in entry.shared.items() if pair[0] not in stated] + own
    block = bytearray(os.pread(fd, BLOCK, entry.header))
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
