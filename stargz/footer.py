"""The footers that end a blob (format section 3): bytes in, plain objects out.

An eStargz footer is an empty gzip member whose Extra field (RFC 1952, section 2.3.1.1)
holds one subfield "SG" with the TOC's offset as 16 hex digits and the word STARGZ::

    10  gzip header, FEXTRA set        1f 8b 08 04 ...
     2  XLEN, 26                       legacy stargz: 22, and no subfield header
     4  "S" "G" and the length, 22
    22  %016x and "STARGZ"             external TOC: "STARGZEXTERNALTOC", 17 bytes
     5  empty stored block
     8  CRC-32 and length, both 0
    --
    51
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stargz.errors import FooterError

if TYPE_CHECKING:
    from stargz.sources import ByteSource

FOOTER_SIZE = 51
LEGACY_FOOTER_SIZE = 47
EXTERNAL_FOOTER_SIZE = 46
ZSTD_FOOTER_SIZE = 48
TARSPLIT_FOOTER_SIZE = 72
MAX_FOOTER_SIZE = TARSPLIT_FOOTER_SIZE + ZSTD_FOOTER_SIZE  # of a blob for both readers
SKIPPABLE = bytes.fromhex("502a4d18")  # how a frame begins that decodes to nothing
SKIPPABLE_HEADER = 8  # and so many bytes of it stand before what it holds

Kind = Literal["estargz", "stargz", "external-toc", "zstd:chunked", "indexed"]

_HEADER = bytes.fromhex("1f8b08040000000000ff")
_TAIL = bytes.fromhex("010000ffff") + bytes(8)
_MAGIC = b"STARGZ"
_EXTERNAL = b"STARGZEXTERNALTOC"
# Of stargz-snapshotter, which containers/storage wrote too before it had a tar-split; and its own.
_ZSTD = ((ZSTD_FOOTER_SIZE, b"GnUlInUx"), (TARSPLIT_FOOTER_SIZE, b"GNUlInUx"))
_HEADS = [(size, SKIPPABLE + (size - 8).to_bytes(4, "little")) for size, _ in _ZSTD]
# How footers in gzip begin: XLEN tells them from other empty members with an Extra field, such as
# the one that ends what bgzip writes.
_BEGINNINGS = tuple(_HEADER + bytes((size, 0)) for size in (26, 22, 21))
_HEX = frozenset(b"0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a frame is in a blob: behind the header of the skippable frame that holds it."""

    offset: int
    packed: int  # bytes of the frame
    size: int  # and of what it decodes to

    def __str__(self) -> str:
        return f"{self.offset}:{self.packed}:{self.size}"


@dataclass(frozen=True, slots=True)
class Footer:
    """What the end of a blob says: its kind, where the TOC begins (bytes from the start of
    the blob; -1 for an external TOC) and how long the footer itself is.

    An ordinary tar that is read by an index is of kind "indexed", and has no footer: NO_FOOTER.

    Of zstd:chunked there is more to know of the TOC, which goes up to the footer in the other
    kinds, and it may have a tar-split. `size` is that of two footers where there are two.
    """

    kind: Kind
    toc_offset: int
    size: int
    toc: Position | None = None
    split: Position | None = None

    @property
    def data_end(self) -> int:
        """Where the frames of a zstd:chunked blob's tar end."""
        return min(at.offset for at in (self.toc, self.split) if at) - SKIPPABLE_HEADER


NO_FOOTER = Footer("indexed", -1, 0)


def make_footer(toc_offset: int, kind: Kind = "estargz") -> bytes:
    """The footer of a blob whose TOC begins at `toc_offset`, which external-toc ignores."""
    if kind == "external-toc":
        return _gzip_footer(_subfield(_EXTERNAL))
    if not 0 <= toc_offset < 1 << 63:
        raise ValueError(f"a TOC offset of {toc_offset} cannot be written")
    payload = b"%016x" % toc_offset + _MAGIC
    if kind == "estargz":
        return _gzip_footer(_subfield(payload))
    if kind == "stargz":
        return _gzip_footer(payload)
    raise ValueError(f"footers of kind {kind} are not written")


def parse_footer(tail: bytes, blob_size: int, source: str = "") -> Footer:
    """The footer at the end of `tail`, the last bytes of a blob of `blob_size` bytes.

    `tail` should hold MAX_FOOTER_SIZE bytes or the whole blob. Raises FooterError, with the
    footer's offset in the blob, for everything that is not a footer of a blob of this size.
    """
    if blob_size < EXTERNAL_FOOTER_SIZE or len(tail) < EXTERNAL_FOOTER_SIZE:
        raise FooterError(
            f"{min(blob_size, len(tail))} bytes are too few for a footer; this is not a "
            "seekable layer: convert it first",
            source,
            0,
        )
    found = _parse_stargz(tail, blob_size, source) or _parse_zstd(tail, blob_size, source)
    if found:
        return found
    if tail[-EXTERNAL_FOOTER_SIZE:] == make_footer(-1, "external-toc"):
        return Footer("external-toc", -1, EXTERNAL_FOOTER_SIZE)
    raise FooterError(
        "no footer of a known kind at its end; this is not a seekable layer, or it was cut "
        "short: convert it first, or get it again",
        source,
        max(0, blob_size - FOOTER_SIZE),
    )


def find_footer(tail: bytes, blob_size: int, source: str = "") -> Footer | None:
    """The same; None where there is none, and nothing that looks like one."""
    try:
        return parse_footer(tail, blob_size, source)
    except FooterError:
        last = tail[-MAX_FOOTER_SIZE:]
        if any(part in last for part in (_MAGIC, b"UlInUx", *_BEGINNINGS)):
            raise
        if any(last[-size:].startswith(head) for size, head in _HEADS):
            raise
        return None


def is_footer_size(size: int) -> bool:
    """Whether a footer of zstd:chunked has so many bytes."""
    return any(size == length for length, _ in _ZSTD)


def kind_of(blob: ByteSource) -> Kind | None:
    """The kind of footer that a blob ends in; None for what is no seekable layer."""
    size = min(blob.size, MAX_FOOTER_SIZE)
    tail = blob.read_at(blob.size - size, size)
    try:
        return parse_footer(tail, blob.size, blob.name).kind
    except FooterError:
        return None


def _subfield(payload: bytes) -> bytes:
    return b"SG" + len(payload).to_bytes(2, "little") + payload


def _gzip_footer(extra: bytes) -> bytes:
    return _HEADER + len(extra).to_bytes(2, "little") + extra + _TAIL


def _parse_stargz(tail: bytes, blob_size: int, source: str) -> Footer | None:
    kinds: tuple[tuple[Kind, int], ...] = (
        ("estargz", FOOTER_SIZE),
        ("stargz", LEGACY_FOOTER_SIZE),
    )
    for kind, size in kinds:
        footer = tail[-size:]
        frame = make_footer(0, kind)
        start = len(frame) - len(_TAIL) - len(_MAGIC) - 16
        digits = footer[start : start + 16]
        if len(footer) < size or footer[:start] + footer[start + 16 :] != (
            frame[:start] + frame[start + 16 :]
        ):
            continue
        where = blob_size - size
        if not _HEX.issuperset(digits):
            raise FooterError(
                f"the TOC offset {digits.decode('ascii', 'backslashreplace')!r} is not 16 hex "
                "digits: the footer is damaged",
                source,
                where,
            )
        return Footer(kind, _inside(int(digits, 16), where, source), size)
    return None


def _parse_zstd(tail: bytes, blob_size: int, source: str) -> Footer | None:
    """Of stargz-snapshotter, and before it that of containers/storage in a blob for both."""
    found: list[Footer] = []
    size = 0
    for length, magic in _ZSTD:
        footer = tail[len(tail) - size - length : len(tail) - size]
        head = SKIPPABLE + (length - 8).to_bytes(4, "little")
        if len(footer) == length and footer.startswith(head) and footer.endswith(magic):
            size += length
            found.append(_zstd_footer(footer, blob_size - size, size, source))
    if not found:
        return None
    if found[0].toc != found[-1].toc:
        raise FooterError(
            f"two footers that do not agree where the TOC is: {found[-1].toc} and {found[0].toc}",
            source,
            blob_size - size,
        )
    return found[-1]


def _zstd_footer(footer: bytes, where: int, size: int, source: str) -> Footer:
    numbers = [int.from_bytes(footer[n : n + 8], "little") for n in range(8, len(footer) - 8, 8)]
    if numbers[3] != 1:
        raise FooterError(
            f"a zstd:chunked TOC of type {numbers[3]}; only 1 is known", source, where
        )
    toc = Position(*numbers[:3])
    split = Position(*numbers[4:]) if any(numbers[4:]) else None
    check_positions(toc, split, where, source)
    return Footer("zstd:chunked", toc.offset, size, toc, split)


def check_positions(toc: Position, split: Position | None, where: int, source: str) -> None:
    """Whether both are among the first `where` bytes of a blob, each in a frame of its own."""
    for what, found in (("TOC", toc), ("tar-split", split)):
        if found is None:
            continue
        _inside(found.offset, where, source, what)
        if found.offset < SKIPPABLE_HEADER or not 0 < found.packed <= where - found.offset:
            raise FooterError(
                f"a {what} of {found.packed} bytes at {found.offset} does not end before the "
                "footer",
                source,
                where,
            )
        if found.size >= 1 << 63:
            raise FooterError(f"a {what} of {found.size} bytes cannot be", source, where)
    if split is not None:
        first, second = sorted((toc, split), key=lambda found: found.offset)
        if first.offset + first.packed > second.offset - SKIPPABLE_HEADER:
            raise FooterError(
                f"the TOC, at {toc}, and the tar-split, at {split}, overlap", source, where
            )


def _inside(toc_offset: int, where: int, source: str, what: str = "TOC") -> int:
    if not 0 <= toc_offset < where:
        raise FooterError(
            f"the {what} offset {toc_offset} is not inside the {where} bytes before the footer: "
            "the blob was cut short, or its footer is damaged",
            source,
            where,
        )
    return toc_offset
