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
MAX_FOOTER_SIZE = TARSPLIT_FOOTER_SIZE

NOT_READ = (
    "zstd:chunked is not read by this version, but for the tar.zst that it is: convert it to "
    "eStargz (stargz convert, or stargz image convert)"
)

Kind = Literal["estargz", "stargz", "external-toc", "zstd:chunked", "indexed"]

_HEADER = bytes.fromhex("1f8b08040000000000ff")
_TAIL = bytes.fromhex("010000ffff") + bytes(8)
_MAGIC = b"STARGZ"
_EXTERNAL = b"STARGZEXTERNALTOC"
_SKIPPABLE = bytes.fromhex("502a4d18")
# Of stargz-snapshotter, which containers/storage wrote too before it had a tar-split; and its own.
_ZSTD = ((ZSTD_FOOTER_SIZE, b"GnUlInUx"), (TARSPLIT_FOOTER_SIZE, b"GNUlInUx"))
# How footers in gzip begin: XLEN tells them from other empty members with an Extra field, such as
# the one that ends what bgzip writes.
_BEGINNINGS = tuple(_HEADER + bytes((size, 0)) for size in (26, 22, 21))
_HEX = frozenset(b"0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Footer:
    """What the end of a blob says: its kind, where the TOC begins (bytes from the start of
    the blob; -1 for an external TOC) and how long the footer itself is.

    An ordinary tar that is read by an index is of kind "indexed", and has no footer: NO_FOOTER.

    Of zstd:chunked, toc_offset is where the TOC's compressed bytes begin, past the header of
    the skippable frame; toc_size is their number. It is 0 for the other kinds, whose TOC
    goes up to the footer.
    """

    kind: Kind
    toc_offset: int
    size: int
    toc_size: int = 0


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
        return None


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
    for length, magic in _ZSTD:
        footer = tail[-length:]
        head = _SKIPPABLE + (length - 8).to_bytes(4, "little")
        if len(footer) == length and footer.startswith(head) and footer.endswith(magic):
            break
    else:
        return None
    offset, size, _, kind = (int.from_bytes(footer[n : n + 8], "little") for n in (8, 16, 24, 32))
    where = blob_size - length
    if kind != 1:
        raise FooterError(f"a zstd:chunked TOC of type {kind}; only 1 is known", source, where)
    _inside(offset, where, source)
    if not 0 < size <= where - offset:
        raise FooterError(
            f"a TOC of {size} bytes at {offset} does not end before the footer", source, where
        )
    return Footer("zstd:chunked", offset, length, size)


def _inside(toc_offset: int, where: int, source: str) -> int:
    if not 0 <= toc_offset < where:
        raise FooterError(
            f"the TOC offset {toc_offset} is not inside the {where} bytes before the footer: "
            "the blob was cut short, or its footer is damaged",
            source,
            where,
        )
    return toc_offset
