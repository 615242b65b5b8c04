"""The TOC: what the reference writes is read and written again, and nonsense is refused."""

from __future__ import annotations

import base64
import gzip
import json
import posixpath
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toc_text import D1, D2, END, chunk, dated, doc, entry, go_json, go_string, parse, reg

from stargz._engine.toc import FLAGS, TYPES
from stargz._engine.toc import TOC as Rows  # noqa: N811
from stargz.errors import TOCError
from stargz.toc import TOC, Chunk, Entry, clean_name, format_time

DATA = Path(__file__).parent / "data"
GOLDENS = {
    case["name"]: case
    for case in json.loads((DATA / "manifest.json").read_text())
    if case["kind"] in ("gzip", "ext")
}


def golden(name: str) -> tuple[str, int]:
    """The JSON of a golden blob's TOC, and where the blob's data ends."""
    blob = (DATA / GOLDENS[name]["blob"]).read_bytes()
    if GOLDENS[name]["kind"] == "ext":
        end = len(blob) - 46
        tar = gzip.decompress((DATA / (GOLDENS[name]["blob"] + ".toc")).read_bytes())
    else:
        end = int(blob[-35:-19], 16)
        tar = gzip.decompress(blob[end:-51])
    return tar[512 : 512 + int(tar[124:135], 8)].decode(), end


# --- golden blobs ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_is_written_again(name: str) -> None:
    text, end = golden(name)

    def cleaned(match: re.Match[str]) -> str:
        return '"name": ' + go_string(clean_name(json.loads(match[1])))

    expected = re.sub(r'"name": ("(?:[^"\\]|\\.)*")', cleaned, text)
    expected = go_json(dated(json.loads(expected)["entries"]))
    toc = TOC.parse(text.encode(), end)
    found = toc.rows.format().decode()
    if name == "prioritized":
        # The reference wrote this in two sections, each with its own memory of the names.
        lines = re.compile(r'\t\t\t"(user|group)Name": .*\n')
        assert found != expected
        expected, found = lines.sub("", expected), lines.sub("", found)
    assert found == expected
    pieces: list[bytes] = []
    length = toc.rows.format_to(pieces.append)
    assert b"".join(pieces) == toc.rows.format()
    assert length == len(toc.rows.format())


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_entries(name: str) -> None:
    text, end = golden(name)
    toc = TOC.parse(text.encode(), end)
    entries = [e for e in json.loads(text)["entries"] if e["type"] != "chunk"]
    names = [clean_name(e["name"]) for e in entries]
    assert toc.names() == [e.name for e in toc] == names
    users: dict[int, str] = {}
    for found, e in zip(toc, entries, strict=True):
        if e.get("userName"):
            users[e.get("uid", 0)] = e["userName"]
        e["name"] = clean_name(e["name"])
        for place in ("offset", "innerOffset", "chunkSize", "chunkDigest"):
            e.pop(place, None)
        for key in ("userName", "groupName"):
            e.pop(key, None)
        got = found.to_json()
        assert got.pop("userName", "") == users.get(e.get("uid", 0), "")
        got.pop("groupName", None)
        assert got == e
    files = dict(GOLDENS[name]["file_sha256"])
    assert {n: toc.resolve(n).digest[7:] for n in files} == files


# --- round trips -----------------------------------------------------------------------------

# Surrogates are no text; NUL cannot be in a name.
letters = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
parts = st.text(letters.filter(lambda c: c != "/"), min_size=1, max_size=6).filter(
    lambda part: part not in (".", "..")
)
digests = st.binary(min_size=32, max_size=32).map(lambda b: "sha256:" + b.hex())
u32 = st.integers(1, 2**32 - 1)


@st.composite
def entry_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Entries in the reference's form, with names that are clean and each there once."""
    found: list[dict[str, Any]] = []
    offset = draw(st.integers(1, 1000))
    owners: dict[tuple[str, int], str] = {}
    for name in draw(st.lists(parts, unique=True, max_size=8)):
        kind = draw(st.sampled_from(TYPES[:7]))
        if kind == "hardlink" and (not found or found[0]["type"] == "dir"):
            kind = "symlink"
        e = entry("d/" + name, kind)
        if draw(st.booleans()):
            # Years 0 to 9999, without the two moments that the reference leaves out.
            time = draw(st.integers(-62167219200, 253402300799))
            if time not in (0, -62135596800):
                e["modtime"] = format_time(time)
        for key in ("mode", "uid", "gid"):
            if draw(st.booleans()):
                e[key] = draw(u32) if key == "mode" else draw(st.integers(1, 3))
        for key, id in (("userName", "uid"), ("groupName", "gid")):
            text = draw(st.text(letters, max_size=3))
            if text and owners.get((id, e.get(id, 0))) != text:
                e[key] = owners[id, e.get(id, 0)] = text
        if draw(st.booleans()):
            pairs = draw(st.dictionaries(st.text(letters, max_size=5), st.binary(max_size=9)))
            if pairs:
                keys = sorted(pairs, key=str.encode)
                e["xattrs"] = {k: base64.b64encode(pairs[k]).decode() for k in keys}
        if kind == "symlink":
            e["linkName"] = draw(st.text(letters, min_size=1, max_size=9))
        if kind == "hardlink":
            e["linkName"] = "./" + found[0]["name"]
        if kind in ("char", "block"):
            e |= {"devMajor": draw(u32), "devMinor": draw(u32)}
        found.append(e)
        if kind == "reg":
            sizes = draw(st.lists(st.integers(1, 2000), max_size=3))
            at = inner = last = 0
            for n, size in enumerate(sizes):
                c = e if n == 0 else entry(e["name"], "chunk")
                zeros = draw(st.booleans())
                if zeros:
                    c |= {"chunkSize": size, "chunkType": "zeros"}
                elif last and draw(st.booleans()):
                    inner += draw(st.integers(last, 9999))
                else:
                    offset += draw(st.integers(1, 5000))
                    inner = draw(st.integers(0, 9999))
                if not zeros:
                    last = size
                    c |= {"offset": offset, "chunkDigest": draw(digests)}
                if inner and not zeros:
                    c["innerOffset"] = inner
                if at:
                    c["chunkOffset"] = at
                    found.append(c)
                if n < len(sizes) - 1 or draw(st.booleans()):
                    c["chunkSize"] = size
                at += size
            if at:
                e["size"] = at
            single = len(sizes) == 1 and "chunkDigest" in e
            e["digest"] = e["chunkDigest"] if single else draw(digests)
    return found


@settings(max_examples=200, deadline=None)
@given(entries=entry_lists(), step=st.integers(1, 400))
def test_round_trip(entries: list[dict[str, Any]], step: int) -> None:
    text = go_json(entries).encode()
    toc = TOC.parse((text[at : at + step] for at in range(0, len(text), step)), END)
    written = go_json(dated(entries)).encode()
    assert toc.rows.format() == written
    users: dict[int, str] = {}
    named = [e for e in entries if e["type"] != "chunk"]
    assert toc.names() == [e["name"] for e in named]
    for number, (e, row) in enumerate(zip(named, toc.rows.entries(), strict=True)):
        users.update({e.get("uid", 0): e["userName"]} if "userName" in e else {})
        found = toc[number]
        assert found == toc.entry("/./" + e["name"] + "/")
        assert found.user_name == users.get(e.get("uid", 0), "")
        assert found.link_name == e.get("linkName", "")
        assert found.digest == e.get("digest", "")
        assert found.xattrs == {k: base64.b64decode(v) for k, v in e.get("xattrs", {}).items()}
        assert (found.mtime != 0) == ("modtime" in e)
        assert toc.rows.lookup(e["name"]) == row
        if found.is_file():
            chunks = toc.chunks(e["name"])
            assert sum(c.size for c in chunks) == found.size == e.get("size", 0)
    # In any other layout the same is read.
    again = TOC.parse(doc(*entries), END)
    assert again.rows.format() == written
    shuffled = doc(*(dict(reversed(e.items())) for e in entries))
    assert TOC.parse(shuffled, END).rows.format() == written


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_cut_and_changed(data: st.DataObject) -> None:
    """A damaged TOC is refused or is another TOC, the same for any pieces; nothing else."""
    text = bytearray(golden("tree_chunk4096")[0].encode())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    step = data.draw(st.integers(1, 300))
    results = []
    for size in (len(text), step):
        try:
            pieces = (bytes(text[n : n + size]) for n in range(0, len(text), size))
            results.append(TOC.parse(pieces, END).rows.format())
        except TOCError as error:
            assert error.offset is None or 0 <= error.offset <= len(text)
            results.append(b"refused")
    assert results[0] == results[1]


def test_every_prefix_is_refused() -> None:
    text = golden("xattrs")[0].encode()
    for end in range(len(text)):
        with pytest.raises(TOCError, match="too early") as caught:
            TOC.parse(text[:end], END)
        assert caught.value.offset == end
    assert len(TOC.parse(text + b" \n\t\r", END)) > 0


def test_escapes() -> None:
    name = "".join(map(chr, range(1, 0x80))) + "é\u2028\u2029\u202a\ufffd\U0010ffff"
    toc = TOC.parse(go_json([entry("s", "symlink", linkName=name)]).encode(), END)
    assert toc.entry("s").link_name == name
    formatted = toc.rows.format()
    assert formatted == go_json(dated([entry("s", "symlink", linkName=name)])).encode()
    for escape in (rb"\b", rb"\f", rb"\u0001", rb"\u003c", rb"\u0026", rb"\u2028", rb"\\"):
        assert escape in formatted


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("./usr/", "usr"),
        ("/usr", "usr"),
        ("usr/", "usr"),
        ("../x", "x"),
        ("a//b/../c", "a/c"),
        ("./", ""),
        ("/", ""),
        ("", ""),
        (".", ""),
        ("..", ""),
        ("../..", ""),
        ("a/..", ""),
        ("a/../../b", "b"),
        ("a/./b/.", "a/b"),
        (".a/..b/...", ".a/..b/..."),
        ("./.a", ".a"),
        ("././/./a", "a"),
        ("a/b/../../../c/d/..", "c"),
    ],
)
def test_cleaning(name: str, clean: str) -> None:
    toc = parse(entry(name), entry("other/"))
    assert toc.names() == [clean, "other"]
    assert clean_name(name) == clean
    assert toc.rows.lookup(name) == toc.rows.lookup(clean) == 0
    assert name in toc


names = st.text(st.sampled_from("ab./"), max_size=12)


@settings(deadline=None)
@given(name=names)
def test_cleaning_is_as_posixpath_does(name: str) -> None:
    expected = posixpath.normpath("/" + name).lstrip("/")
    assert clean_name(name) == expected
    toc = parse(entry(name))
    assert toc.names() == [expected]
    assert toc.rows.lookup(name) == toc.rows.lookup(expected) == 0


def test_look_up() -> None:
    toc = parse(entry("a"), entry("a/b"), entry("ü"))
    assert toc.rows.lookup("a/c") == -1
    assert toc.rows.lookup("\udc80") == -1
    assert "\udc80" not in toc
    assert "a/c" not in toc
    assert "ü" in toc
    assert 3 not in toc
    assert toc.rows.lookup("x/" * 5000 + "../" * 5000 + "a/b") == 1
    with pytest.raises(KeyError):
        toc.entry("a/c")
    with pytest.raises(IndexError):
        toc.rows.name(3)
    with pytest.raises(OverflowError):
        toc.rows.name(-1)


def test_many_names() -> None:
    toc = parse(*(entry(f"d{n % 7}/n{n}") for n in range(5000)))
    for n in range(5000):
        assert toc.rows.lookup(f"d{n % 7}/n{n}") == n
        assert toc.rows.lookup(f"d{n % 7}/m{n}") == -1


def test_long_names() -> None:
    name = "/".join("x" * (n % 255 + 1) for n in range(270))[-4000:].strip("/")
    toc = parse(entry(name), entry("./" + name + "/../y"))
    assert toc.names() == [name, posixpath.dirname(name) + "/y"]
    assert toc.rows.lookup(name) == 0
    assert toc.is_dir(posixpath.dirname(name))


def test_duplicates() -> None:
    toc = parse(
        reg("a", 4, 9, chunkSize=2, digest=D1),
        chunk(2, 19),
        entry("b", uid=1, userName="u"),
        reg("./b/../a", 3, 30, digest=D2),
        entry("/b", "symlink", linkName="c", uid=1),
    )
    assert toc.names() == ["a", "b"]
    assert len(toc) == 2
    assert (toc.entry("a").size, toc.entry("a").digest) == (3, D2)
    assert toc.entry("b").type == "symlink"
    assert toc.entry("b").user_name == "u"
    assert toc.chunks("a") == [Chunk(30, 0, 0, 3, "")]
    dropped = toc.columns["flags"] & FLAGS["dropped"] != 0
    assert dropped.tolist() == [True, True, True, False, False]
    assert toc.counts() == {"entries": 2, "files": 1, "chunks": 1, "bytes": 3}
    # The name of the owner moves to the first entry that is left.
    expected = [reg("a", 3, 30, digest=D2)]
    expected += [entry("b", "symlink", linkName="c", uid=1, userName="u")]
    assert toc.rows.format().decode() == go_json(dated(expected))


def test_hard_links() -> None:
    toc = parse(
        entry("l1", "hardlink", linkName="./l2"),
        entry("l2", "hardlink", linkName="/d/../d/f"),
        reg("d/f", 5, 9, chunkSize=2, chunkDigest=D1),
        chunk(2, 99, chunkDigest=D2),
        entry("s", "symlink", linkName="nowhere"),
        entry("l3", "hardlink", linkName="s"),
    )
    assert toc.entry("l1").type == "hardlink"
    assert toc.entry("l1").link_name == "./l2"
    assert toc.resolve("l1") == toc.resolve("l2") == toc.entry("d/f")
    assert toc.resolve("l3").type == "symlink"
    chunks = [Chunk(9, 0, 0, 2, D1), Chunk(99, 0, 2, 3, D2)]
    assert toc.chunks("l1") == toc.chunks("d/f") == chunks
    assert toc.chunks("s") == []


def test_a_long_chain_of_links() -> None:
    links = [entry(f"l{n}", "hardlink", linkName=f"l{n + 1}") for n in range(20000)]
    toc = parse(*links, reg("l20000", 1, 9))
    assert toc.resolve("l0").size == 1
    assert toc.row("l7") == 20000


def test_owners_are_filled_in() -> None:
    rows = [(0, "root"), (5, ""), (5, "x"), (0, ""), (5, ""), (5, "y"), (5, "x"), (0, "root")]
    toc = parse(*(entry(f"n{i}", uid=id, userName=name) for i, (id, name) in enumerate(rows)))
    assert [e.user_name for e in toc] == ["root", "", "x", "root", "x", "y", "x", "root"]
    written = json.loads(toc.rows.format())["entries"]
    assert [e.get("userName", "") for e in written] == ["root", "", "x", "", "", "y", "x", ""]


def test_thousands_of_owners() -> None:
    toc = parse(*(entry(f"n{n}", gid=n * 65536, groupName=f"g{n}") for n in range(9000)))
    assert [e.group_name for e in toc] == [f"g{n}" for n in range(9000)]


# --- directories -----------------------------------------------------------------------------


def test_children() -> None:
    toc = parse(entry("b/c/d/e", "fifo"), entry("b/a"), entry("z", "fifo"), entry("b/c/ü"))
    assert toc.listdir() == ["b", "z"]
    assert toc.listdir("b/") == ["a", "c"]
    assert toc.listdir("/b/./c") == ["d", "ü"]
    assert toc.listdir("b/a") == []
    assert [e.name for e in toc.children("b")] == ["b/a", "b/c"]
    assert toc.children()[0] == Entry("b", "dir", mode=0o755)
    assert toc.entry("./b/c") == Entry("b/c", "dir", mode=0o755)
    assert toc.entry("") == Entry("", "dir", mode=0o755)
    assert toc.is_dir("b/c/d")
    assert not toc.is_dir("z")
    assert not toc.is_dir("nothing")
    assert "b/c" in toc
    with pytest.raises(NotADirectoryError):
        toc.listdir("z")
    with pytest.raises(KeyError):
        toc.listdir("nothing")


@settings(max_examples=100, deadline=None)
@given(paths=st.lists(st.lists(st.sampled_from(["a", "b", "c", "aa", "é"]), max_size=4)))
def test_children_of_all(paths: list[list[str]]) -> None:
    toc = parse(*(entry("/".join(path)) for path in paths))
    everything = {tuple(path[:n]) for path in paths for n in range(len(path) + 1)} | {()}
    for path in everything:
        expected = sorted({p[-1] for p in everything if p and p[:-1] == path}, key=str.encode)
        assert toc.listdir("/".join(path)) == expected
        assert toc.is_dir("/".join(path))


def test_too_many_implied_directories() -> None:
    """2 MB of names must not become a hundred million directories."""
    deep = [entry(f"{n}/" + "a/" * 2000 + "b") for n in range(500)]
    assert len(parse(*deep[:250]).listdir()) == 250
    with pytest.raises(TOCError, match="too many directories"):
        parse(*deep)


def test_many_threads_list() -> None:
    toc = parse(*(entry(f"d{n % 50}/n{n}") for n in range(20000)))
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(toc.listdir("d7"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(names == sorted(f"n{n}" for n in range(7, 20000, 50)) for names in found)


# --- columns and entries ---------------------------------------------------------------------


def test_columns() -> None:
    toc = parse(
        reg("a", 10, 9, chunkSize=4, innerOffset=512, mode=0o100644, uid=3, gid=4,
            modtime="1970-01-01T00:01:00Z", digest=D2, chunkDigest=D1),
        chunk(4, 100, chunkDigest=D2),
        entry("c", "char", devMajor=7, devMinor=8),
        entry("d", "dir", size=55, offset=66, chunkSize=77, devMajor=1),
    )  # fmt: skip
    columns = toc.columns
    assert len(columns) == len(toc.rows) == 4
    assert columns.dtype.itemsize == memoryview(toc.rows).nbytes // 4
    assert columns["size"].tolist() == [10, 0, 0, 0]
    assert columns["offset"].tolist() == [9, 100, 0, 0]
    assert columns["inner_offset"].tolist() == [512, 0, 0, 0]
    assert columns["chunk_offset"].tolist() == [0, 4, 0, 0]
    assert columns["chunk_size"].tolist() == [4, 6, 0, 0]
    assert columns["mtime"].tolist() == [60, 0, 0, 0]
    assert columns["mode"].tolist() == [0o100644, 0, 0, 0]
    assert columns["uid"].tolist() == [3, 0, 0, 0]
    assert columns["gid"].tolist() == [4, 0, 0, 0]
    assert columns["dev_major"].tolist() == [0, 0, 7, 1]
    assert columns["dev_minor"].tolist() == [0, 0, 8, 0]
    assert [TYPES[t - 1] for t in columns["type"]] == ["reg", "chunk", "char", "dir"]
    assert columns["chunk_digest"][1].tobytes().hex() == D2[7:]
    has = FLAGS["has_chunk_digest"] | FLAGS["has_digest"] | FLAGS["digest_is_chunk"]
    assert (columns["flags"] & has).tolist() == [
        FLAGS["has_chunk_digest"] | FLAGS["has_digest"],
        FLAGS["has_chunk_digest"],
        0,
        0,
    ]
    assert not columns.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        columns["size"][0] = 1
    del toc
    assert columns["size"].tolist() == [10, 0, 0, 0]
    assert isinstance(columns, np.ndarray)


def test_chunk_size_in_both_forms() -> None:
    """With and without chunkSize on a last or only chunk: the same file."""
    for last in ({}, {"chunkSize": 4}):
        toc = parse(reg("a", 8, 9, chunkSize=4), chunk(4, 90, **last), reg("b", 4, 99, **last))
        assert [c.size for c in toc.chunks("a")] == [4, 4]
        assert [c.size for c in toc.chunks("b")] == [4]
        written = json.loads(toc.rows.format())["entries"]
        assert [e.get("chunkSize", 0) for e in written] == [4, *[last.get("chunkSize", 0)] * 2]


def test_first_offset_may_be_absent() -> None:
    toc = parse(entry("a", "reg", size=5, innerOffset=512), reg("b", 5, 0, innerOffset=1024))
    assert toc.chunks("a") == [Chunk(0, 512, 0, 5, "")]
    assert toc.chunks("b") == [Chunk(0, 1024, 0, 5, "")]


def test_legacy_format() -> None:
    toc = parse(reg("a", 5, 9, digest=D1, chunkDigest=D1))
    assert toc.rows.format(legacy=True).decode() == go_json(dated([reg("a", 5, 9, digest=D1)]))
    # A legacy TOC is read as it is.
    again = TOC.parse(toc.rows.format(legacy=True), END)
    assert again.chunks("a") == [Chunk(9, 0, 0, 5, "")]
    assert again.entry("a").digest == D1


def test_entry() -> None:
    toc = parse(
        entry("./a/", mode=0o755, modtime="2020-09-13T12:26:40Z", xattrs={"b": "AQ==", "a": ""}),
        reg("b", 5, 9, uid=1, userName="u", gid=2, groupName="g", digest=D1, chunkDigest=D1),
    )
    a, b = toc
    assert (toc[0], toc[-1], toc[:1]) == (a, b, [a])
    assert a.is_dir()
    assert not a.is_file()
    assert b.is_file()
    assert list(a.xattrs) == ["a", "b"]
    assert a.to_json() == {
        "name": "a",
        "type": "dir",
        "modtime": "2020-09-13T12:26:40Z",
        "mode": 0o755,
        "xattrs": {"a": "", "b": "AQ=="},
    }
    owner = ["uid", "gid", "userName", "groupName"]
    assert list(b.to_json()) == ["name", "type", "size", *owner, "digest"]
    assert hash(b) == hash(toc.entry("b"))
    with pytest.raises(AttributeError):
        a.name = "x"  # type: ignore[misc]
    assert toc.names("reg") == ["b"]
    assert toc.names("dir", "reg") == ["a", "b"]
    with pytest.raises(IndexError):
        toc[2]


def test_format_stops_when_the_callback_raises() -> None:
    toc = parse(*(entry(f"n{n}") for n in range(5000)))
    calls = 0

    def write(piece: bytes) -> None:
        nonlocal calls
        calls += 1
        assert len(piece) <= 1 << 16
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        toc.rows.format_to(write)
    assert calls == 1


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: [b[:9], b"", b[9:]]])
def test_kinds_of_input(make: Callable[[bytes], Any]) -> None:
    assert Rows.parse(make(doc(entry("a"))), END).names() == ["a"]


MANY = """
import resource, sys
from stargz._engine.toc import Parser

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

parser = Parser(1 << 40)
before = peak()
parser.feed(b'{"version":1,"entries":[')
total = 0
for n in range(200_000):
    offset = 100 + 1000 * n
    comma = "," if n else ""
    text = (
        f'{comma}{{"name":"usr/share/some/directory/d{n % 999}/file-{n}","type":"reg","size":999,'
        f'"modtime":"2020-01-01T00:00:00Z","mode":420,"offset":{offset},'
        f'"digest":"sha256:{n:064x}","chunkDigest":"sha256:{n:064x}"}}'
    ).encode()
    parser.feed(text)
    total += len(text)
parser.feed(b"]}")
toc = parser.finish()
assert toc.counts()["bytes"] == 999 * 200_000
print(len(toc), total, peak() - before)
"""


def test_memory_is_bounded() -> None:
    """200,000 entries, 66 MB of JSON: 250 bytes an entry and a few MB."""
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    count, total, used = map(int, done.stdout.split())
    assert count == 200_000
    assert total > 50_000_000
    assert used < 200_000 * 250 + (8 << 20)
