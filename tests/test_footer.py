"""Footers: the golden blobs' are recognised and made again, everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargz.errors import FooterError
from stargz.footer import (
    EXTERNAL_FOOTER_SIZE,
    FOOTER_SIZE,
    LEGACY_FOOTER_SIZE,
    MAX_FOOTER_SIZE,
    TARSPLIT_FOOTER_SIZE,
    ZSTD_FOOTER_SIZE,
    Footer,
    Position,
    make_footer,
    parse_footer,
)

DATA = Path(__file__).parent / "data"
GOLDENS = {case["name"]: case for case in json.loads((DATA / "manifest.json").read_text())}


def zstd_footer(offset: int, size: int, kind: int = 1, magic: bytes = b"GnUlInUx") -> bytes:
    numbers = b"".join(n.to_bytes(8, "little") for n in (offset, size, 7, kind))
    return bytes.fromhex("502a4d1828000000") + numbers + magic


def tarsplit_footer(offset: int, size: int, kind: int = 1, magic: bytes = b"GNUlInUx") -> bytes:
    """As containers/storage writes it: with the place of its tar-split."""
    values = (offset, size, 7, kind, offset + size + 8, 20, 30)
    numbers = b"".join(n.to_bytes(8, "little") for n in values)
    return bytes.fromhex("502a4d1840000000") + numbers + magic


@pytest.mark.parametrize("name", [n for n, case in GOLDENS.items() if case["kind"] == "gzip"])
def test_golden(name: str) -> None:
    blob = (DATA / GOLDENS[name]["blob"]).read_bytes()
    footer = parse_footer(blob[-FOOTER_SIZE:], len(blob))
    assert footer.kind == "estargz"
    assert footer.size == FOOTER_SIZE
    assert blob[footer.toc_offset :][:2] == b"\x1f\x8b"
    assert make_footer(footer.toc_offset) == blob[-FOOTER_SIZE:]


def test_golden_external() -> None:
    blob = (DATA / "external_toc.esgz").read_bytes()
    assert parse_footer(blob[-FOOTER_SIZE:], len(blob)) == Footer("external-toc", -1, 46)
    assert make_footer(-1, "external-toc") == blob[-EXTERNAL_FOOTER_SIZE:]


def test_golden_zstd() -> None:
    blob = (DATA / "zstd_chunked.zst").read_bytes()
    offset, size, unpacked, _ = GOLDENS["zstd_chunked"]["annotations"][
        "io.containers.zstd-chunked.manifest-position"
    ].split(":")
    footer = parse_footer(blob[-FOOTER_SIZE:], len(blob))
    where = Position(int(offset), int(size), int(unpacked))
    assert footer == Footer("zstd:chunked", int(offset), ZSTD_FOOTER_SIZE, where)


def test_sizes_and_layout() -> None:
    assert make_footer(0x1234, "estargz").hex() == (
        "1f8b08040000000000ff"
        "1a00"
        "53471600" + b"0000000000001234STARGZ".hex() + "010000ffff"
        "0000000000000000"
    )
    assert len(make_footer(5, "estargz")) == FOOTER_SIZE
    assert len(make_footer(5, "stargz")) == LEGACY_FOOTER_SIZE
    assert len(make_footer(-1, "external-toc")) == EXTERNAL_FOOTER_SIZE


@given(offset=st.integers(0, 1 << 40), before=st.binary(max_size=9))
def test_round_trip(offset: int, before: bytes) -> None:
    size = offset + 1 + FOOTER_SIZE
    found = parse_footer(before + make_footer(offset, "estargz"), size)
    assert found == Footer("estargz", offset, FOOTER_SIZE)
    size = offset + 1 + LEGACY_FOOTER_SIZE
    found = parse_footer(before + make_footer(offset, "stargz"), size)
    assert found == Footer("stargz", offset, LEGACY_FOOTER_SIZE)


@given(tail=st.binary(max_size=60))
def test_any_bytes(tail: bytes) -> None:
    with pytest.raises(FooterError):
        parse_footer(tail, max(len(tail), 1000))


def frame(digits: bytes) -> bytes:
    return make_footer(0).replace(b"0" * 16, digits)


PLAIN_GZIP = bytes.fromhex("1f8b0800000000000003") + bytes(90)


@pytest.mark.parametrize(
    ("tail", "size", "offset", "message"),
    [
        (b"", 0, 0, "0 bytes are too few"),
        (bytes(45), 45, 0, "45 bytes are too few"),
        (PLAIN_GZIP, len(PLAIN_GZIP), 49, "no footer of a known kind"),
        (bytes(51), 51, 0, "no footer of a known kind"),
        (frame(b"-000000000000001"), 1000, 949, "not 16 hex digits"),
        (frame(b"+000000000000001"), 1000, 949, "not 16 hex digits"),
        (frame(b"0x00000000000001"), 1000, 949, "not 16 hex digits"),
        (frame(b"00000000000000_1"), 1000, 949, "not 16 hex digits"),
        (frame(b" 000000000000001"), 1000, 949, "not 16 hex digits"),
        (frame(b"000000000000000g"), 1000, 949, "not 16 hex digits"),
        (make_footer(949), 1000, 949, "not inside the 949 bytes"),
        (make_footer(953, "stargz"), 1000, 953, "not inside the 953 bytes"),
        (frame(b"ffffffffffffffff"), 1000, 949, "not inside the 949 bytes"),
        (make_footer(0)[:-1] + b"\x01", 1000, 949, "no footer of a known kind"),
        (make_footer(0)[1:] + b"\0", 1000, 949, "no footer of a known kind"),
        (zstd_footer(952, 1), 1000, 952, "not inside"),
        (zstd_footer(900, 53), 1000, 952, "does not end before the footer"),
        (zstd_footer(900, 0), 1000, 952, "a TOC of 0 bytes at 900 is none"),
        (zstd_footer(0, 52), 1000, 952, "a TOC at 0 leaves no room for the 8 bytes"),
        (zstd_footer(7, 52), 1000, 952, "a TOC at 7 leaves no room for the 8 bytes"),
        (zstd_footer(900, 52, kind=2), 1000, 952, "type 2"),
        (zstd_footer(900, 52, magic=b"GNUlInUx"), 1000, 949, "no footer of a known kind"),
        (tarsplit_footer(900, 28, magic=b"GnUlInUx"), 1000, 949, "no footer of a known kind"),
        (tarsplit_footer(900, 28, kind=2), 1000, 928, "type 2"),
        (tarsplit_footer(928, 1), 1000, 928, "not inside"),
        (tarsplit_footer(900, 29), 1000, 928, "does not end before the footer"),
    ],
)
def test_refused(tail: bytes, size: int, offset: int, message: str) -> None:
    with pytest.raises(FooterError, match=message) as caught:
        parse_footer(tail, size, "some.blob")
    assert caught.value.source == "some.blob"
    assert caught.value.offset == offset
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("offset", [-1, 1 << 63])
def test_unwritable_offsets(offset: int) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        make_footer(offset)


TOC = Position(900, 52, 7)


def test_footers_of_zstd_chunked() -> None:
    tail = bytes(100) + zstd_footer(900, 52)
    assert parse_footer(tail, 1000) == Footer("zstd:chunked", 900, ZSTD_FOOTER_SIZE, TOC)
    split = Position(960, 20, 30)
    tail = bytes(100) + tarsplit_footer(900, 52)
    assert parse_footer(tail, 1052) == Footer("zstd:chunked", 900, TARSPLIT_FOOTER_SIZE, TOC, split)
    tail += zstd_footer(900, 52)
    assert parse_footer(tail, 1100) == Footer("zstd:chunked", 900, MAX_FOOTER_SIZE, TOC, split)


def test_two_footers_that_do_not_agree() -> None:
    tail = bytes(100) + tarsplit_footer(900, 52) + zstd_footer(900, 51)
    with pytest.raises(FooterError, match="do not agree") as caught:
        parse_footer(tail, 1100)
    assert caught.value.offset == 980
    tail = bytes(100) + tarsplit_footer(900, 52)
    with pytest.raises(FooterError, match="tar-split"):
        parse_footer(tail, 1051)


def test_zstd_is_not_written() -> None:
    with pytest.raises(ValueError, match="not written"):
        make_footer(5, "zstd:chunked")
