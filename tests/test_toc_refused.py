"""TOC JSON is read as Go reads it; what is malformed or contradicts itself is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from toc_text import D1, END, ORDER, chunk, doc, entry, go_json, parse, reg

from stargz._engine.toc import FLAGS, Parser
from stargz.errors import TOCError
from stargz.toc import TOC, Entry

# --- JSON as Go reads it ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (rb"\ud83d\ude00", "😀"),
        (rb"\ud83dx", "\ufffdx"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00", "\ufffd😀"),
        (rb"\u00E9\u002f\/b", "é/b"),
        (b"a\xff", "a\ufffd"),
        (b"a\xe2\x82b", "a\ufffd\ufffdb"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\xc0\x80\xf4\x90\x80\x80", "\ufffd" * 6),
        (b"\xf0\x9f\x98\x80", "😀"),
    ],
)
def test_strings(raw: bytes, name: str) -> None:
    toc = TOC.parse(b'{"version":1,"entries":[{"type":"dir","name":"%s"}]}' % raw, END)
    assert toc.names() == [name]
    bad = bool(toc.columns["flags"][0] & FLAGS["bad_utf8"])
    assert bad == ("\ufffd" in name)


@pytest.mark.parametrize("key", ["size", "SIZE", "\u017fIze", "\\u0053ize", "\\u017fize"])
def test_keys_fold_as_in_go(key: str) -> None:
    text = f'{{"Version":1,"ENTRIES":[{{"Name":"a","tyPe":"reg","{key}":3,"offset":9}}]}}'
    assert TOC.parse(text.encode(), END).entry("a").size == 3


def test_kelvin_folds_too() -> None:
    text = '{"ver\u017fion":1,"entries":[{"name":"a","type":"symlink","linK\u212aName":"x",'
    text += '"lin\u212aName":"b"}]}'
    assert TOC.parse(text.encode(), END).entry("a").link_name == "b"


@pytest.mark.parametrize(
    "twice",
    [
        '"size":1,"size":1',
        '"size":1,"Size":1',
        '"size":1,"\u017fize":1',
        '"size":null,"size":1',
        '"linkName":"","lin\u212aName":""',
        '"NumLink":1,"numlink":1',
        '"xattrs":{"a":"","a":""}',
    ],
)
def test_duplicate_keys(twice: str) -> None:
    text = f'{{"version":1,"entries":[{{"name":"a","type":"reg",{twice},"offset":3}}]}}'
    with pytest.raises(TOCError, match="twice"):
        TOC.parse(text.encode(), END)


@pytest.mark.parametrize("key", ["version", "Version", "ver\u017fion", "entries", "ENTRIES"])
def test_duplicate_outer_keys(key: str) -> None:
    text = f'{{"version":1,"entries":[],"{key}":1}}'
    with pytest.raises(TOCError, match="twice"):
        TOC.parse(text.encode(), END)


def test_null_and_unknown_keys() -> None:
    nulls = {key: None for key in ORDER if key not in ("name", "type")}
    toc = TOC.parse(doc(entry("a", "dir", **nulls, NumLink=[1, {"x": 1.5e-3}], x=None), z=[]), END)
    assert toc.entry("a") == Entry("a", "dir")
    toc = parse(entry("a", "dir", xattrs={"k": None, "e": "", "v": "AQI="}))
    assert toc.entry("a").xattrs == {"e": b"", "k": b"", "v": b"\1\2"}


def test_no_entries() -> None:
    # The reference writes null for an empty list, in lossless mode.
    for text in (b'{"version":1,"entries":[]}', b'{"entries":null,"version":1}'):
        toc = TOC.parse(text, END)
        assert len(toc) == 0
        assert list(toc) == []
        assert toc.names() == []
        assert toc.listdir() == []
        assert toc.entry("") == Entry("", "dir", mode=0o755)
        assert len(toc.columns) == 0
        assert toc.rows.format() == go_json([]).encode()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1),
        ("2020-09-13T12:26:40Z", 1600000000),
        ("2020-09-13T12:26:40.999999999Z", 1600000000),
        ("2020-09-13T14:26:40+02:00", 1600000000),
        ("2020-09-13T02:56:40.5-09:30", 1600000000),
        ("0000-03-01T00:00:00Z", -62162035200),
        ("9999-12-31T23:59:59Z", 253402300799),
        ("2000-02-29T00:00:00Z", 951782400),
        ("1900-02-29T00:00:00Z", 0),
        ("2020-09-13 12:26:40Z", 0),
        ("2020-09-13T12:26:40", 0),
        ("2020-09-13T12:26:40.Z", 0),
        ("2020-09-13T12:26:40z", 0),
        ("2020-13-13T12:26:40Z", 0),
        ("2020-09-31T12:26:40Z", 0),
        ("2020-09-13T24:00:00Z", 0),
        ("2020-09-13T12:26:40+0200", 0),
        ("2020-09-13T12:26:40Z ", 0),
        ("nonsense", 0),
        ("", 0),
    ],
)
def test_modtime(text: str, seconds: int) -> None:
    assert parse(entry("a", modtime=text)).entry("a").mtime == seconds


# --- refused ---------------------------------------------------------------------------------


def one(**keys: Any) -> bytes:
    return doc(entry("a", **keys))


def raw(value: str, key: str = "size") -> bytes:
    return b'{"version":1,"entries":[{"name":"a","type":"dir","%s":%s}]}' % (
        key.encode(),
        value.encode(),
    )


HUGE = 9 * 10**18
SYNTAX = [
    (b"", 0, "too early"),
    (b"null", 0, "expected an object"),
    (b"[null]", 0, "expected an object"),
    (b'\xef\xbb\xbf{"version":1,"entries":[]}', 0, "expected an object"),
    (b"{}", None, "no version"),
    (b'{"version":1}', None, "no entries"),
    (b'{"version":1,"entries":{}}', 23, "array of entries"),
    (b'{"version":1,"entries":[null]}', 24, "expected an object"),
    (b'{"version":1,"entries":[1]}', 24, "expected an object"),
    (b'{"version":1,"entries":[[]]}', 24, "expected an object"),
    (b'{"version":99,"entries":[]}', 11, "only version 1"),
    (b'{"version":0,"entries":[]}', 11, "only version 1"),
    (b'{"version":1.0,"entries":[]}', None, "without fraction"),
    (b'{"version":null,"entries":[]}', 11, "expected an integer"),
    (b'{"version":"1","entries":[]}', 11, "expected an integer"),
    (b'{"version":1,"entries":[]}x', 26, "more follows"),
    (b'{"version":1,"entries":[]}{}', 26, "more follows"),
    (b'{"version":1,"entries":[]}\0', 26, "more follows"),
    (b'{"version":1,"entries":[],}', 26, "expected a key"),
    (b'{"version":1,"entries":[{"name":"a","type":"dir"},]}', 50, "expected an object"),
    (b'{"version":1,"entries":[{"name":"a","type":"dir",}]}', 49, "expected a key"),
    (b'{"version":1,"entries":[{"name":"a" "type":"dir"}]}', 36, "expected a comma"),
    (b'{"version":1,"entries":[{"name" "a"}]}', 32, "expected a colon"),
    (b'{"version":1 "entries":[]}', 13, "expected a comma"),
    (b'{"version":1x,"entries":[]}', 12, "expected a comma"),
    (b'{"version":1{},"entries":[]}', 12, "expected a comma"),
    (b"{version:1}", 1, "expected a key"),
    (b'{"version":1,"entries":[],"x":tru}', None, "expected a value"),
    (b'{"version":1,"entries":[],"x":01}', None, "begins with 0"),
    (b'{"version":1,"entries":[],"x":1.}', None, "lacks a digit"),
    (b'{"version":1,"entries":[],"x":[1}', None, "expected a comma"),
    (b'{"version":1,"entries":[],"x":"\n"}', 31, "control character"),
    (b'{"version":1,"entries":[],"x":"\\x"}', 32, "escape that JSON does not"),
    (b'{"version":1,"entries":[],"x":"\\u12g4"}', None, "four hex digits"),
    (b'{"version":1,"entries":[],"x":' + b"[" * 2048 + b"]" * 2048 + b"}", None, "too deeply"),
    (raw("1.0"), 56, "without fraction"),
    (raw("1e2"), 56, "without fraction"),
    (raw("-1"), 56, "must not be negative"),
    (raw("01"), 56, "begins with 0"),
    (raw("9223372036854775808"), None, "fit into 64 bits"),
    (raw("99999999999999999999999999"), None, "fit into 64 bits"),
    (raw('"1"'), 56, "size: expected an integer"),
    (raw("true"), 56, "size: expected an integer"),
    (raw("{}"), 56, "size: expected an integer"),
    (raw("1", "modtime"), None, "modtime: expected a string"),
    (raw("[]", "linkName"), None, "linkName: expected a string"),
    (raw('"a"', "xattrs"), None, "xattrs: expected an object"),
    (raw("[]", "xattrs"), None, "xattrs: expected an object"),
]


@pytest.mark.parametrize(("text", "offset", "message"), SYNTAX)
@pytest.mark.parametrize("step", [1, 5, 1 << 20])
def test_bad_json(text: bytes, offset: int | None, message: str, step: int) -> None:
    pieces = (text[at : at + step] for at in range(0, len(text), step))
    with pytest.raises(TOCError, match=re.escape(message)) as caught:
        TOC.parse(pieces, END, "some.blob")
    assert caught.value.source == "some.blob"
    if offset is not None:
        assert caught.value.offset == offset
    assert "\n" not in str(caught.value)


CONTRADICTIONS = [
    # Entries.
    ([{"name": "a"}], "no type"),
    ([entry("a", None)], "no type"),  # type: ignore[arg-type]
    ([entry("a", "file")], "unknown type"),
    ([entry("a", "")], "unknown type"),
    ([{"type": "dir"}], "no name"),
    ([entry("a\0b")], "NUL"),
    ([entry("a", "symlink", linkName="b\0")], "NUL"),
    ([entry("a", userName="b\0")], "NUL"),
    ([entry("a", groupName="b" * 65536)], "too long"),
    ([entry("a", mode=1 << 32)], "mode is beyond 32 bits"),
    ([entry("a", uid=1 << 32)], "uid is beyond 32 bits"),
    ([entry("a", gid=1 << 62)], "gid is beyond 32 bits"),
    ([entry("a", "char", devMinor=1 << 32)], "devMinor is beyond 32 bits"),
    ([entry("a", xattrs={"k": 1})], "not a base64 string"),
    ([entry("a", xattrs={"k": "AQI"})], "not padded base64"),
    ([entry("a", xattrs={"k": "A==="})], "not padded base64"),
    ([entry("a", xattrs={"k": "AQ=="[:2] + "=A"})], "not padded base64"),
    ([entry("a", xattrs={"k": "AQI\n"})], "not padded base64"),
    ([entry("a", xattrs={"k\0": ""})], "NUL"),
    ([reg("a", 0, 0, digest="sha512:" + "a" * 128)], "digest: expected sha256"),
    ([reg("a", 0, 0, digest=D1[:-1])], "digest: expected sha256"),
    ([reg("a", 0, 0, digest=D1.upper())], "digest: expected sha256"),
    ([reg("a", 0, 0, digest=D1[:-1] + "g")], "digest: expected sha256"),
    ([reg("a", 1, 9, digest=D1, chunkDigest=D1[:-2] + "zz")], "chunkDigest: expected sha256"),
    # Chunks.
    ([chunk(0, 9)], "begins with a chunk"),
    ([entry("a"), chunk(0, 9)], "a dir and no regular file"),
    ([reg("a", 0, 0), chunk(0, 9)], "a chunk of 0 bytes"),
    ([reg("a", 5, 9), chunk(5, 20)], "a chunk of 0 bytes"),
    ([reg("a", 5, 9, chunkSize=2)], "hold 2 of its 5 bytes"),
    ([reg("a", 5, 9, chunkSize=2), entry("b")], "hold 2 of its 5 bytes"),
    ([reg("a", 5, 9, chunkSize=6)], "6 bytes where the file has 5"),
    ([reg("a", 5, 9, chunkSize=2), chunk(2, 20, chunkSize=4)], "4 bytes where the file has 3"),
    ([reg("a", 5, 9, chunkSize=2), chunk(3, 20)], "at 3 of the file, expected one at 2"),
    ([reg("a", 5, 9, chunkSize=2), chunk(1, 20)], "at 1 of the file, expected one at 2"),
    ([reg("a", 5, 9, chunkOffset=1)], "at 1 of the file, expected one at 0"),
    ([reg("a", HUGE, 9, chunkSize=1)], f"hold 1 of its {HUGE} bytes"),
    ([reg("a", HUGE, 9, chunkSize=1), chunk(1, 10)], "cannot come of the"),
    # Offsets.
    ([reg("a", 5, 0)], "data but no offset"),
    ([reg("a", 5, END)], "not inside the"),
    ([reg("a", 5, 9), reg("b", 5, END + 7), reg("c", 5, END + 9)], f"{END + 7} is not inside"),
    ([reg("a", 5, 90), reg("b", 5, 80)], "is before that of the entry before it, 90"),
    ([reg("a", 5, 90, chunkSize=2), chunk(2, 80)], "is before that"),
    ([reg("a", 5, 90), reg("b", 5, 90)], "overlaps the entry before"),
    ([reg("a", 5, 90), reg("b", 5, 90, innerOffset=4)], "overlaps the entry before"),
    ([reg("a", 5, 90, innerOffset=9), reg("b", 5, 90)], "overlaps the entry before"),
    ([reg("a", HUGE, 9)], "cannot come of the"),
    ([reg("a", 70000, 9), reg("b", 1, 10)], "70000 bytes cannot come of the 1"),
    ([reg("a", HUGE, 9, innerOffset=HUGE)], "impossibly large"),
    ([reg("a", HUGE, END // 4), reg("b", HUGE, END // 2)], "impossibly large"),
    # Names and links.
    ([reg("a", 5, 9), entry("a/b")], "no directory, but other entries"),
    ([entry("a/b/c"), entry("a", "symlink", linkName="x")], "no directory, but other entries"),
    ([entry("a", "fifo"), entry("d"), entry("a/b/c/d/e")], "no directory, but other entries"),
    ([entry("/", "fifo")], "root is no directory"),
    ([entry("a", "hardlink", linkName="b")], "not there"),
    ([entry("a", "hardlink")], "not there"),
    ([entry("a", "hardlink", linkName="a")], "back to itself"),
    (
        [entry(x, "hardlink", linkName=y) for x, y in ("ab", "bc", "ca")],
        "back to itself",
    ),
    ([entry("d"), entry("a", "hardlink", linkName="d")], "a hard link to a directory"),
]


@pytest.mark.parametrize(("entries", "message"), CONTRADICTIONS)
def test_contradictions(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(TOCError, match=re.escape(message)) as caught:
        parse(*entries)
    assert caught.value.source == "some.blob"
    assert caught.value.offset is None
    assert "\n" not in str(caught.value)


def test_error_names_the_entry() -> None:
    with pytest.raises(TOCError, match=r"'usr/bin/x': entry 1 of the TOC: size: expected"):
        parse(entry("usr"), entry("usr/bin/x", size="1"))
    with pytest.raises(TOCError, match=r"'usr/bin/x': its chunks hold"):
        parse(reg("/usr/./bin/x", 5, 9, chunkSize=1))


def test_more_entries_than_the_blob_can_hold() -> None:
    """A small blob cannot list millions of files: refused before they take the memory."""
    item = b'{"name":"a","type":"dir"},'
    parser = Parser(1000, "some.blob")
    parser.feed(b'{"version":1,"entries":[')
    with pytest.raises(TOCError, match="more than the 69536 entries"):
        for _ in range(100):
            parser.feed(item * 1000)


def test_an_endless_entry() -> None:
    parser = Parser(1000)
    parser.feed(b'{"version":1,"entries":[{"name":"')
    with pytest.raises(TOCError, match="longer than 16777216 bytes"):
        for _ in range(40):
            parser.feed(b"a" * (1 << 20))
    with pytest.raises(TOCError, match="refused before"):
        parser.feed(b"a")


def test_an_endless_value() -> None:
    text = b'{"x":[' + b"1," * (9 << 20) + b'1],"version":1,"entries":[]}'
    for step in (len(text), 1 << 20):
        with pytest.raises(TOCError, match=r"too long|longer than"):
            TOC.parse((text[at : at + step] for at in range(0, len(text), step)), END)


def test_finished_parser() -> None:
    parser = Parser(END)
    parser.feed(doc())
    parser.finish()
    for call in (parser.finish, lambda: parser.feed(b"")):
        with pytest.raises(ValueError, match="finished"):
            call()
