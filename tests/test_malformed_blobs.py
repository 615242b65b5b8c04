"""Format section 9: each malformed blob is one clear error that names the blob and the
place, raised quickly and in little memory."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blobs
import pytest

import stargz
from stargz.errors import (
    DigestError,
    FooterError,
    FormatError,
    GzipError,
    StargzError,
    TarError,
    TOCError,
)
from stargz.sources import MemorySource

DATA = Path(__file__).parent / "data"
NAME = "the-blob"
Entries = list[dict[str, Any]]

TAR = blobs.tar_of([("a", b"contents of a"), ("b", b"contents of b")])


def opened(data: bytes) -> stargz.Layer:
    return stargz.open(MemorySource(data, NAME))


def refused(data: bytes, kind: type[FormatError], message: str | None = None) -> FormatError:
    """Open must fail, with exactly this error, naming the blob."""
    with pytest.raises(kind, match=message) as caught:
        opened(data)
    assert caught.value.source == NAME
    assert str(caught.value).startswith(NAME)
    assert "\n" not in str(caught.value)
    return caught.value


def json_of(*entries: dict[str, Any], version: Any = 1) -> bytes:
    return json.dumps({"version": version, "entries": list(entries)}).encode()


def with_json(text: bytes) -> bytes:
    made = blobs.build(TAR)
    return blobs.with_toc(made.data[: made.toc_offset], text)


def reg(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "reg", **keys}


# --- the footer ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 45, 46, 50, 51, 1000, 10_000])
def test_no_footer(size: int) -> None:
    refused(blobs.noise("no footer", size), FooterError, "no seekable layer, and no tar")


def test_plain_gzip() -> None:
    with opened(gzip.compress(TAR)) as layer:
        assert (layer.kind, layer.read("a")) == ("indexed", b"contents of a")
    refused(gzip.compress(TAR)[:-9], GzipError, "truncated")
    refused(gzip.compress(b"no tar" * 100), TarError)


@pytest.mark.parametrize(
    "digits",
    [
        b"-000000000000001",
        b"7fffffffffffffff",
        b"8000000000000000",
        b"ffffffffffffffff",
        b"00000000000000zz",
        b"0x00000000000010",
        b"               1",
        b"+000000000000010",
    ],
)
def test_toc_offset(digits: bytes) -> None:
    made = blobs.build(TAR)
    data = made.data.replace(b"%016xSTARGZ" % made.toc_offset, digits + b"STARGZ")
    assert data != made.data
    error = refused(data, FooterError, "TOC offset")
    assert error.offset == len(data) - 51


def test_toc_offset_at_the_end() -> None:
    made = blobs.build(TAR)
    body = made.data[:-51]
    refused(body + blobs.footer(len(body)), FooterError, "is not inside")


def test_toc_offset_not_at_a_member() -> None:
    made = blobs.build(TAR)
    for shift in (1, -1, 30):
        data = made.data[:-51] + blobs.footer(made.toc_offset + shift)
        error = refused(data, GzipError, "gzip")
        assert error.offset == made.toc_offset + shift


def test_wrong_entry_at_the_toc_offset() -> None:
    made = blobs.build(TAR)
    error = refused(made.data[:-51] + blobs.footer(0), TOCError, "not the file stargz.index.json")
    assert error.offset == 0
    for name in ("stargz.index.jso", "dir/stargz.index.json", "stargz.index.json2"):
        toc = blobs.member(blobs.toc_entry(made.text, name) + bytes(1024))
        refused(toc + blobs.footer(0), TOCError, "not the file stargz.index.json")
    toc = blobs.member(blobs.noise("no tar", 4096))
    refused(toc + blobs.footer(0), TOCError, "no tar entry stargz.index.json")
    refused(blobs.member(b"") + blobs.footer(0), TOCError, "no table of contents")
    refused(blobs.member(bytes(2048)) + blobs.footer(0), TOCError, "stargz.index.json")


# --- the TOC ------------------------------------------------------------------------------

DIGEST = blobs.sha256(b"contents of a")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[null]",
        b"7",
        b'"text"',
        b"{",
        b'{"version": 1, "entries": [',
        b'{"version": 1, "entries": null',
        b'{"version": 1, "entries": [null]}',
        b'{"version": 1, "entries": [[]]}',
        b'{"version": 1, "entries": {}}',
        b'{"version": "1", "entries": []}',
        json_of(version=99),
        json_of(version=None),
        json_of() + b"{}",
        json_of() + b"\0",
        json_of({"name": "a"}),
        json_of({"type": "dir"}),
        json_of({"name": "a", "type": "unknown"}),
        json_of({"name": "a", "type": ""}),
        json_of({"name": 1, "type": "dir"}),
        json_of({"name": "a", "type": "dir", "mode": "0755"}),
        json_of({"name": "a", "type": "dir", "mode": -1}),
        json_of({"name": "a", "type": "dir", "xattrs": {"user.a": "*"}}),
        json_of({"name": "a", "type": "dir", "xattrs": []}),
        json_of({"name": "a", "type": "chunk"}),
        json_of({"name": "a", "type": "chunk", "offset": 5, "chunkSize": 5}),
        json_of({"name": "d", "type": "dir"}, {"name": "d", "type": "chunk", "offset": 5}),
        json_of(reg("a", size=-1)),
        json_of(reg("a", size=1.5)),
        json_of(reg("a", size=2**63, offset=5)),
        json_of(reg("a", size=9 * 10**18, offset=5, chunkSize=1)),
        json_of(reg("a", size=13, offset=-5)),
        json_of(reg("a", size=13, offset=10**9)),
        json_of(reg("a", size=13, offset=5, innerOffset=-1)),
        json_of(reg("a", size=13, offset=5, chunkSize=-1)),
        json_of(reg("a", size=13, offset=5, chunkOffset=3)),
        json_of(reg("a", size=13, offset=5, chunkSize=20)),
        json_of(reg("a", size=13, offset=5, chunkSize=5)),
        json_of(reg("a", size=13, offset=5, digest="sha256:12")),
        json_of(reg("a", size=13, offset=5, chunkDigest="md5:" + 64 * "0")),
        json_of(reg("a", size=13, offset=60), reg("b", size=13, offset=5)),
        json_of(reg("a", size=13, offset=5), reg("b", size=13, offset=5)),
        json_of(reg("a", size=13, offset=5), reg("b", size=3, offset=5, innerOffset=12)),
        json_of({"name": "a", "type": "hardlink", "linkName": "nothing"}),
        json_of({"name": "a", "type": "hardlink"}),
        json_of({"name": "a", "type": "hardlink", "linkName": "a"}),
        json_of(
            {"name": "a", "type": "hardlink", "linkName": "b"},
            {"name": "b", "type": "hardlink", "linkName": "a"},
        ),
        json_of(reg("a"), reg("a/b")),
        json_of({"name": "a", "type": "symlink", "linkName": "x"}, reg("a/b/c")),
        json_of(reg("", size=0)),
        json_of({"name": "a", "type": "dir"}).replace(b'"name"', b'"name": "b", "name"'),
        json_of({"name": "a", "type": "dir"}).replace(b'"name"', b'"Name": "b", "name"'),
        b'{"version": 1, "entries": ' + b"[" * 100_000,
        json_of({"name": "a", "type": "dir", "x": 7}).replace(b"7", b"[" * 9999 + b"]" * 9999),
    ],
)
def test_toc(text: bytes) -> None:
    refused(with_json(text), TOCError)


def test_json_longer_or_shorter_than_the_tar_says() -> None:
    text = json_of()
    for size, tail in ((len(text) + 5000, b""), (len(text) - 1, bytes(1024))):
        data = blobs.member(blobs.toc_entry(text, size=size) + tail) + blobs.footer(0)
        refused(data, TOCError)


def test_a_truncated_toc_member() -> None:
    made = blobs.build(TAR)
    for cut in (60, 100, 150):
        data = made.data[: -51 - cut] + blobs.footer(made.toc_offset)
        error = refused(data, FormatError)
        assert error.offset == made.toc_offset


def test_too_large_a_toc() -> None:
    made = blobs.build(TAR)
    stargz.open(made.data, max_toc_size=len(made.text)).close()
    with pytest.raises(TOCError, match=r"more than the limit of \d+ \(more: max_toc_size"):
        stargz.open(made.data, max_toc_size=len(made.text) - 1)


# --- contents -----------------------------------------------------------------------------


def reading(data: bytes, name: str) -> FormatError:
    with opened(data) as layer, pytest.raises(FormatError) as caught:
        layer.read(name)
    assert caught.value.source == NAME
    assert repr(name) in str(caught.value)
    return caught.value


def place(made: blobs.Made, name: str) -> tuple[int, int]:
    with stargz.open(made.data) as layer:
        (chunk,) = layer.chunks(name)
        ends = [c.offset for n in layer for c in layer.chunks(n)] + [layer.toc_offset]
    return chunk.offset, min(end for end in ends if end > chunk.offset)


@pytest.mark.parametrize("digests", [True, False])
def test_members_that_are_too_short(digests: bool) -> None:
    def edit(entries: Entries) -> None:
        for entry in entries:
            if not digests:
                del entry["digest"], entry["chunkDigest"]

    made = blobs.build(TAR, edit=edit)
    start, end = place(made, "b")
    for content in (b"", b"contents of"):
        data = made.data[:start] + blobs.member(content)
        error = reading(blobs.with_toc(data, made.text), "b")
        assert "ends before its 13 bytes" in str(error)
        assert error.offset == start
    # Cut in the middle, and broken in the middle.
    for damaged in (
        made.data[start : start + 20],
        made.data[start : start + 10] + b"\xff" * 10 + made.data[start + 20 : end],
        b"no gzip" + made.data[start + 7 : end],
    ):
        error = reading(blobs.with_toc(made.data[:start] + damaged, made.text), "b")
        assert isinstance(error, GzipError)
        assert error.offset == start
    with opened(blobs.with_toc(data, made.text)) as layer:
        assert layer.read("a") == b"contents of a"


def test_a_chunk_never_takes_bytes_of_the_next() -> None:
    # Without digests, a member that is too short must not go on in the next file's.
    def edit(entries: Entries) -> None:
        for entry in entries:
            del entry["digest"], entry["chunkDigest"]

    made = blobs.build(TAR, edit=edit)
    start, end = place(made, "a")
    short = blobs.member(b"short")
    text = json.loads(made.text)
    text["entries"][1]["offset"] += len(short) - (end - start)
    data = made.data[:start] + short + made.data[end : made.toc_offset]
    error = reading(blobs.with_toc(data, json.dumps(text).encode()), "a")
    assert "ends before its 13 bytes" in str(error)


def test_sizes_that_cannot_be() -> None:
    def edit(entries: Entries) -> None:
        entries[1].update(size=9 * 10**18)
        del entries[1]["digest"], entries[1]["chunkDigest"]

    data = blobs.build(TAR, edit=edit).data
    try:
        layer = opened(data)
    except TOCError as error:
        assert error.source == NAME
        return
    with layer:
        for call in (lambda: layer.read("b"), lambda: layer.read("b", 5, 10), layer.verify):
            with pytest.raises(FormatError, match="too small for it"):
                call()


def test_inner_offset_beyond_the_member() -> None:
    def edit(entries: Entries) -> None:
        entries[1]["innerOffset"] = 5000

    error = reading(blobs.build(TAR, edit=edit).data, "b")
    assert "ends before its 13 bytes" in str(error)


def test_digests_that_do_not_match() -> None:
    def edit(entries: Entries) -> None:
        entries[1]["chunkDigest"] = DIGEST

    with opened(blobs.build(TAR, edit=edit).data) as layer, pytest.raises(DigestError) as caught:
        layer.read("b")
    assert NAME in str(caught.value)
    assert caught.value.name == "b"


def test_a_read_never_inflates_beyond_its_chunk() -> None:
    # The member of "b" goes on with a damaged block: nobody asked for it.
    made = blobs.build(TAR)
    start, _ = place(made, "b")
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = stream.compress(b"contents of b") + stream.flush(zlib.Z_FULL_FLUSH)
    member = bytes.fromhex("1f8b08000000000000ff") + body + b"\xff" * 50
    with opened(blobs.with_toc(made.data[:start] + member, made.text)) as layer:
        assert layer.read("b") == b"contents of b"
        assert not layer.verify().ok


# --- quickly, in little memory --------------------------------------------------------------


def _packed_zeros(total: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = [stream.compress(bytes(1 << 20)) for _ in range(total >> 20)]
    return b"".join(out) + stream.flush()


def _endless_toc() -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = stream.compress(blobs.toc_entry(b"", size=(8 << 30) - 1))
    out += b"".join(stream.compress(b" " * (1 << 20)) for _ in range(400))
    return out + stream.flush() + blobs.footer(0)


def _spaces_toc() -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = stream.compress(blobs.toc_entry(b"", size=1 << 29))
    out += b"".join(stream.compress(b" " * (1 << 20)) for _ in range(512))
    return out + stream.flush() + blobs.footer(0)


def _endless_string() -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = stream.compress(blobs.toc_entry(b"", size=(1 << 29) + 40))
    out += stream.compress(b'{"version": 1, "entries": [{"name": "')
    out += b"".join(stream.compress(b"a" * (1 << 20)) for _ in range(512))
    return out + stream.flush() + blobs.footer(0)


def _empty_entries() -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    entry = b'{"name":"a","type":"dir"},' * 40_000
    out = stream.compress(blobs.toc_entry(b"", size=1 << 29))
    out += stream.compress(b'{"version": 1, "entries": [')
    out += b"".join(stream.compress(entry) for _ in range((1 << 29) // len(entry) + 1))
    return out + stream.flush() + blobs.footer(0)


def _nested() -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = stream.compress(blobs.toc_entry(b"", size=1 << 28))
    out += stream.compress(b'{"version": 1, "x": ')
    out += b"".join(stream.compress(b"[" * (1 << 20)) for _ in range(256))
    return out + stream.flush() + blobs.footer(0)


def _zero_header() -> bytes:
    return _packed_zeros(1 << 28) + blobs.footer(0)


@pytest.mark.parametrize(
    "make",
    [_endless_toc, _spaces_toc, _endless_string, _empty_entries, _nested, _zero_header],
)
def test_bombs(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(make())
    code = (
        "import re, stargz, sys, time\n"
        "start = time.process_time()\n"
        "try:\n"
        "    stargz.open(sys.argv[1])\n"
        "except stargz.FormatError as error:\n"
        "    print(error)\n"
        "print(time.process_time() - start)\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
    )
    message, seconds, memory = done.stdout.splitlines()
    assert re.search(rf"{NAME}( at offset \d+)?: ", message), message
    assert float(seconds) < 10
    assert int(memory) < 400_000, "KiB"


def test_random_damage_is_one_error() -> None:
    right = (DATA / "tree_chunk4096.esgz").read_bytes()
    for n in range(200):
        noise = blobs.noise(f"damage {n}", 8)
        start = int.from_bytes(noise[:4], "big") % len(right)
        size = noise[4]
        wrong = right[:start] + blobs.noise(f"bytes {n}", size) + right[start + size :]
        try:
            with opened(wrong[: len(right)]) as layer:
                result = layer.verify()
                for name in layer:
                    if layer.entry(name).is_file():
                        try:
                            layer.read(name)
                        except StargzError as error:
                            assert NAME in str(error)
                            assert not result.ok
        except FormatError as error:
            assert error.source == NAME
