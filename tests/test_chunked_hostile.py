"""Bad layers in zstd:chunked: one error that says what is wrong, and nothing wrong is read."""

from __future__ import annotations

import ctypes.util
import errno
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blobs
import bounded
import pytest
from absence import absent
from blobs import sha256
from chunked_layers import FORMATS, a_tar, convert
from command import fails, here
from faraway import Faraway
from mounts import cli_mount, needs_fuse
from test_chunked_reading import C, Handmade, frame, skippable

import stargz
from stargz.cache import Cache
from stargz.errors import (
    DigestError,
    FooterError,
    FormatError,
    GzipError,
    StargzError,
    TOCError,
)

NAME = "the-blob"
U64 = (1 << 64) - 1


def opened(blob: bytes, notes: dict[str, str] | None = None, **options: Any) -> stargz.Layer:
    source = Faraway(blob, name=NAME)
    return stargz.open(source, annotations=notes, index=False, cache=False, **options)


def refused(
    kind: type[FormatError], match: str, blob: bytes, notes: dict[str, str] | None = None
) -> None:
    with pytest.raises(kind, match=match) as caught:
        opened(blob, notes)
    assert str(caught.value).startswith(NAME)
    assert "\n" not in str(caught.value)


def of_entries(edit: Callable[[list[dict[str, Any]]], object]) -> tuple[bytes, dict[str, str]]:
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.file("b", b"x" * 50, bytes(4096), b"y" * 50)
    edit(made.entries)
    return made.finish("C")


def of_text(text: bytes) -> bytes:
    made = Handmade()
    made.file("a", b"hello" * 100)
    return made.end(frame(text), len(text), "C")[0]


# --- where things are ---------------------------------------------------------------------------

# What a position is, the offset and size of a good one given.
BAD_POSITIONS: list[Callable[[int, int, int], tuple[int, int, int]]] = [
    lambda at, packed, size: (at, packed, U64),
    lambda at, packed, size: (at, packed, 1 << 63),
    lambda at, packed, size: (at, packed, (1 << 63) - 1),
    lambda at, packed, size: (at, packed, 0),
    lambda at, packed, size: (at, packed, size - 1),
    lambda at, packed, size: (at, packed, size + 1),
    lambda at, packed, size: (at, U64, size),
    lambda at, packed, size: (at, 1 << 63, size),
    lambda at, packed, size: (at, 0, size),
    lambda at, packed, size: (at, packed - 1, size),
    lambda at, packed, size: (U64, packed, size),
    lambda at, packed, size: (U64 - packed + 1, packed, size),
    lambda at, packed, size: (at + 1, packed, size),
    lambda at, packed, size: (at - 1, packed, size),
    lambda at, packed, size: (8, packed, size),
    lambda at, packed, size: (1, packed, size),
    lambda at, packed, size: (0, 0, 0),
]


@pytest.mark.parametrize("where", ["S", "C", "annotation"])
@pytest.mark.parametrize("number", range(len(BAD_POSITIONS)))
def test_positions_that_cannot_be(number: int, where: str) -> None:
    made = Handmade()
    made.file("a", b"hello" * 100)
    text, packed = made.toc()
    at = len(made.data) + 8
    offset, length, size = BAD_POSITIONS[number](at, len(packed), len(text))
    blob = made.data + skippable(packed)
    notes = None
    if where == "annotation":
        notes = {f"{C}manifest-position": f"{offset}:{length}:{size}:1"}
    else:
        split = skippable(frame(b"{}\n")) if where == "C" else b""
        more = struct.pack("<3Q", len(blob) + 8, len(split) - 8, 3) if split else b""
        numbers = struct.pack("<4Q", offset, length, size, 1) + more
        blob += split + skippable(numbers + (b"GNUlInUx" if split else b"GnUlInUx"))
    refused(FormatError, "TOC|table of contents|zstd frame|no position", blob, notes)


def test_a_tar_split_that_is_where_the_toc_is() -> None:
    made = Handmade()
    made.file("a", b"hello" * 100)
    blob, notes = made.finish("C")
    end = len(blob) - 72
    offset, packed, size = map(int, notes[f"{C}manifest-position"].split(":")[:3])
    split = tuple(map(int, notes[f"{C}tarsplit-position"].split(":")))
    for bad in (
        (offset, packed, size),
        (offset + packed - 1, 5, 5),
        (offset + packed + 7, 5, 5),
        (offset - 5, 20, 20),
        (offset - 20, 13, 13),
        (*split[:2], U64),
        (split[0], split[1] + 1, 3),
        (split[0], U64, 3),
        (U64, 1, 1),
        (3, 1, 1),
    ):
        numbers = struct.pack("<7Q", offset, packed, size, 1, *bad)
        refused(FooterError, "tar-split", blob[:end] + skippable(numbers + b"GNUlInUx"))
        annotated = notes | {f"{C}tarsplit-position": ":".join(map(str, bad))}
        refused(FormatError, "annotation", blob[:end], annotated)
    # None at all, as its footer says that too.
    with opened(blob[:end], notes | {f"{C}tarsplit-position": "0:0:0"}) as layer:
        assert layer.read("a") == b"hello" * 100


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":::1", "1", "1:2:3", "1:2:3:", "1:2:3:2", "1:2:3:01", "1:2:3:1:", "1:2:3:1:1"),
        *(" 1:2:3:1", "1 :2:3:1", "1:2:3:1 ", "1:2:3:1\n", "+1:2:3:1", "-1:2:3:1", "1:-2:3:1"),
        *("1.0:2:3:1", "1e3:2:3:1", "0x9:2:3:1", "1_0:2:3:1", "\u0661:2:3:1", "a:b:c:1"),
        *("9" * 20 + ":2:3:1", "1:2:" + "9" * 5000 + ":1", "1,2,3,1", "null", "1:2:3:1\0"),
    ],
)
def test_annotations_that_are_no_positions(text: str) -> None:
    made = Handmade()
    made.file("a", b"hello")
    blob, notes = made.finish("C")
    for key in ("manifest-position", "tarsplit-position"):
        if key == "tarsplit-position" and text == "1:2:3":
            continue
        refused(FormatError, "no position$", blob, notes | {f"{C}{key}": text})


def test_footers_of_a_blob_for_both_that_do_not_agree() -> None:
    blob, result = convert(a_tar(), "zstd:chunked")
    for place in (-48 + 8, -48 + 16, -48 + 24):  # of the numbers of the last footer
        bad = bytearray(blob)
        bad[place] ^= 1
        refused(FooterError, "two footers that do not agree", bytes(bad))
    # Neither is at the end.
    refused(FooterError, "no footer", blob + skippable(b"x"))
    with opened(blob + skippable(b"x"), result.annotations) as layer:
        assert layer.verified and layer.read("noise")


# --- frames -------------------------------------------------------------------------------------


def before_2016(magic: int, data: bytes) -> bytes:
    """A frame of one of zstd's formats before 0.8, of one stored block."""
    head = {0x25: b"\x04", 0x26: b"\x44" + bytes([len(data)]), 0x27: b"\x20" + bytes([len(data)])}
    block = bytes([0x40, 0, len(data)]) + data
    return bytes([magic]) + b"\xb5\x2f\xfd" + head.get(magic, b"\x04") + block + b"\xc0\0\0"


@pytest.mark.parametrize("library", [None, "libzstd.so.1"])
def test_frames_of_formats_before_2016(library: str | None, tmp_path: Path) -> None:
    """Some builds of libzstd decode them, and most have no check sum."""
    if library and not ctypes.util.find_library("zstd"):
        absent("this needs the system's libzstd: apt install libzstd1")
    cases = []
    for magic in (0x1E, *range(0x22, 0x28)):
        for digests in (True, False):
            made = Handmade()
            made.file("a", b"hello" * 20, digests=digests)
            made.data = made.data[: made.entries[0]["offset"]]
            made.put(before_2016(magic, b"hello" * 20))
            cases.append(made.finish("S")[0])
        text = b'{"version":1,"entries":[]}'
        packed = before_2016(magic, text)
        cases.append(made.end(packed, len(text))[0])
        cases.append(made.end(frame(text[:9]) + before_2016(magic, text[9:]), len(text))[0])
    for number, blob in enumerate(cases):
        (tmp_path / f"{number}.zst").write_bytes(blob)
    code = (
        "import os, sys, pathlib\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        stargz.open(path).read('a')\n"
        "        print('read')\n"
        "    except stargz.FormatError as error:\n"
        "        print(error)\n"
    )
    if library:
        code = f"import os\nos.environ['STARGZ_LIBZSTD'] = {library!r}\n{code}"
    told = bounded.run(code, tmp_path).splitlines()
    assert len(told) == len(cases)
    assert all("of a format of before 2016" in line for line in told)


def test_a_toc_in_several_frames() -> None:
    """Wherever a frame ends, the header of the next is looked at."""
    made = Handmade()
    names = blobs.noise("names", 400_000).hex()
    for at in range(0, len(names), 200):
        made.entries.append({"type": "fifo", "name": names[at : at + 200]})
    text, whole = made.toc()
    assert len(whole) > 1 << 18  # more than is read at once
    for cut in (1, 1000, 300_000, len(text) - 1):
        packed = frame(text[:cut]) + skippable(b"between") + frame(text[cut:])
        with opened(made.end(packed, len(text))[0]) as layer:
            assert len(layer) == len(made.entries)
        wide = frame(text[:cut]) + frame(text[cut:], window=26)
        refused(GzipError, "window of 64 MiB", made.end(wide, len(text))[0])
    # Borders around that of what is read at once.
    for size in range((1 << 18) - 20, (1 << 18) + 3):
        first = frame(text[:1])
        filler = skippable(bytes(size - len(first) - 8))
        packed = first + filler + frame(text[1:], window=26)
        refused(GzipError, "window of 64 MiB", made.end(packed, len(text))[0])


@pytest.mark.parametrize("sums", [True, False])
def test_damage_where_no_digest_is(sums: bool) -> None:
    """Each byte of the frames is another: what is read is right, or an error."""
    made = Handmade()
    contents = {"a": b"hello" * 20, "b": blobs.noise("b", 300), "c": b"x" * 70 + b"y" * 70}
    made.file("a", contents["a"], digests=False, write_checksum=sums)
    made.file("b", contents["b"], digests=False, write_content_size=False, write_checksum=sums)
    made.file("c", contents["c"][:70], contents["c"][70:], digests=False, write_checksum=sums)
    blob, notes = made.finish("C")
    read = 0
    for place in range(len(made.data)):
        bad = bytearray(blob)
        bad[place] ^= 1 << place % 8
        with stargz.open(bytes(bad), annotations=notes) as layer:
            for name, content in contents.items():
                try:
                    assert layer.read(name) == content
                    read += 1
                except GzipError:
                    pass
    assert bool(read) == sums


# --- the TOC ------------------------------------------------------------------------------------


DISPUTED = ("\u017fize", "s\u0130ze", "\\u0073\\u0130ze", "d\u0130gest", "lin\u212aName")


@pytest.mark.parametrize("key", DISPUTED)
def test_keys_that_not_all_readers_know(key: str) -> None:
    """Of two readers one folds letters beyond ASCII that the other does not: the same TOC would
    have other files for each."""
    row = '{"type":"reg","name":"a","size":0,"%s":"x"}'
    text = f'{{"version":1,"entries":[{row}]}}'
    refused(TOCError, "readers do not agree", of_text((text % key).encode()))
    opened(of_text((text % f"x{key}").encode())).close()


OUTER = ("ver\u017fion", "vers\u0130on", "entr\u0130es", "tarsPl\u0130tdigest")


@pytest.mark.parametrize("key", OUTER)
def test_outer_keys_that_not_all_readers_know(key: str) -> None:
    text = f'{{"version":1,"entries":[],"{key}":1}}'.encode()
    refused(TOCError, "readers do not agree", of_text(text))


@pytest.mark.parametrize("value", ["1", "[]", "{}", "true", '"x"', '"sha256:"', '"SHA256:%s"'])
def test_tar_split_digests_that_are_none(value: str) -> None:
    text = f'{{"version":1,"entries":[],"tarSplitDigest":{value}}}'.replace("%s", "0" * 64)
    refused(TOCError, "tarSplitDigest", of_text(text.encode()))


def test_zeros_beyond_every_file(tmp_path: Path) -> None:
    size = 1 << 62
    row = {"type": "reg", "name": "z", "size": size, "chunkSize": size, "chunkType": "zeros"}
    blob, notes = of_entries(lambda rows: rows.append(row | {"digest": sha256(b"other")}))
    path = tmp_path / "layer.zst"
    path.write_bytes(blob)
    with opened(blob, notes) as layer:
        assert layer.read("z", size - 5, 100) == bytes(5)
        assert layer.read("a") == b"hello" * 100
    assert str(size) in here("ls", "-l", path).stdout
    assert "File too large" in fails(1, "-q", "extract", path, "-C", tmp_path / "out")

    def twice(rows: list[dict[str, Any]]) -> None:
        rows += [row, row | {"name": "y"}]

    refused(TOCError, "impossibly large", *of_entries(twice))


def test_zeros_whose_digest_is_of_something_else(tmp_path: Path) -> None:
    """Others read the frame, which has just that."""
    contents = b"x" * 50, b"y" * 4096, b"z" * 50
    for size, digest in ((4096, sha256(contents[1])), (4096, sha256(bytes(4095)))):
        made = Handmade()
        made.file("a", *contents)
        made.file("b", bytes(4095), bytes(size), bytes(4095), bytes(1))
        made.entries[1] |= {"chunkType": "zeros", "chunkDigest": digest}
        refused(DigestError, "'?a'?: a chunk of zeros", *made.finish("C"))
        made.entries[1] |= {"chunkDigest": sha256(bytes(size))}
        with opened(*made.finish("C")) as layer:
            assert layer.read("b") == bytes(4095 * 2 + size + 1)
    # The digest of a longer one is not looked at when it is opened, that of its file is compared.
    size = (256 << 20) + 1
    made = Handmade()
    made.file("a", b"x", bytes(4096))
    made.put(frame(bytes(size)))
    row = {"size": 1 + size, "digest": sha256(b"other")}
    made.entries[0] |= row
    made.entries[1] |= {"chunkSize": size, "chunkDigest": sha256(b"another")}
    blob, notes = made.finish("C")
    with (
        opened(blob, notes) as layer,
        pytest.raises(DigestError, match=r"'?a'?: the file does not match"),
    ):
        layer.extractall(tmp_path)


BOMBS = """
import zstandard
from test_chunked_reading import Handmade
MiB = 1 << 20
row = b'{"name":"a","type":"dir"},'
for start, step, times, less in (
    (b"", b" " * MiB, 100, 0),
    (b"{", b" " * MiB, 300, 299 * MiB),
    (b'{"version":1,"entries":[{"name":"', b"a" * MiB, 99, 0),
    (b'{"version":1,"x":"', b"a" * MiB, 99, 0),
    (b'{"version":1,"x":', b"[" * MiB, 64, 0),
    (b'{"version":1,"entries":[', row * 40_000, 50, 0),
    (b'{"version":1,"entries":[{"type":"reg","name":"a","xattrs":{', b'"":"",' * MiB, 4, 0),
):
    squeezer = zstandard.ZstdCompressor(level=1).compressobj()
    parts = [squeezer.compress(start), *(squeezer.compress(step) for _ in range(times))]
    size = len(start) + len(step) * times - less
    blob, _ = Handmade().end(b"".join(parts) + squeezer.flush(), size)
    try:
        stargz.open(blob)
    except stargz.TOCError as error:
        print(error)
print(peak())
"""


def test_bombs() -> None:
    """A few KiB that decode to hundreds of MiB."""
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    *told, peak = bounded.run(path + BOMBS).splitlines()
    assert len(told) == 7
    assert int(peak) < 160


# --- commands -----------------------------------------------------------------------------------


def test_every_command_says_one_thing(tmp_path: Path) -> None:
    good, result = convert(a_tar(), "zstd:chunked")
    offset = int(result.annotations[f"{C}manifest-position"].partition(":")[0])
    toc = bytearray(good)
    toc[offset + 20] ^= 1
    cases = {
        "toc.zst": bytes(toc),
        "footer.zst": good[:-48] + skippable(struct.pack("<4Q", offset, 5, U64, 1) + b"GnUlInUx"),
        "empty.zst": of_text(b""),
        "keys.zst": of_text(b'{"version":1,"entries":[{"type":"dir","name":"a","name":"b"}]}'),
    }
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        for words in (
            ["ls", path],
            ["cat", path, "d/a"],
            ["info", path],
            ["toc", path],
            ["find", path],
            ["verify", path],
            ["diff", path, path],
            ["extract", path, "-C", tmp_path / "out"],
        ):
            done = here(*words)
            assert done.returncode in (1, 3), words
            lines = done.stderr.splitlines()
            assert len(lines) == 1 and name in lines[0], done.stderr
            assert "bug" not in lines[0]
    assert not (tmp_path / "out").exists() or not [*(tmp_path / "out").iterdir()]


@pytest.mark.parametrize("digests", [True, False])
def test_damaged_contents_are_errors_everywhere(digests: bool, tmp_path: Path) -> None:
    needs_fuse()
    made = Handmade()
    made.file("good", b"hello" * 100, digests=digests)
    made.file("bad", blobs.noise("bad", 900), digests=digests)
    made.file("last", b"world" * 100, digests=digests)
    blob, _ = made.finish("S")
    broken = bytearray(blob)
    broken[made.entries[1]["offset"] + 500] ^= 1
    path = tmp_path / "layer.zst"
    path.write_bytes(broken)
    with cli_mount(path, directory=tmp_path / "m") as directory:
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                (directory / "bad").read_bytes()
            assert caught.value.errno == errno.EIO
            assert (directory / "good").read_bytes() == b"hello" * 100
            assert (directory / "last").read_bytes() == b"world" * 100
    done = here("cat", path, "bad")
    assert (done.returncode, done.stdout) == (1, "")  # its check sum comes first
    done = here("-q", "extract", path, "-C", tmp_path / "out")
    assert done.returncode == 1
    assert not (tmp_path / "out/bad").exists()
    with stargz.open(bytes(broken)) as layer:
        assert not layer.verify().ok


def test_names_as_containers_storage_has_them(tmp_path: Path) -> None:
    """Raw, of which none leads out of the directory."""
    made = Handmade()
    made.entries += [
        {"type": "dir", "name": "./", "mode": 0o755},
        {"type": "dir", "name": "/", "mode": 0o750},
        {"type": "dir", "name": "./d//", "mode": 0o755},
        {"type": "symlink", "name": "./out", "linkName": "../outside"},
        {"type": "symlink", "name": "./abs", "linkName": "/"},
        {"type": "reg", "name": "../../up", "size": 0},
        {"type": "reg", "name": "/abs2/", "size": 0},
        {"type": "fifo", "name": "d/.wh.x"},
        {"type": "hardlink", "name": "./h", "linkName": "/abs2"},
        {"type": "char", "name": "./c", "devMajor": 1, "devMinor": 3},
    ]
    outside = tmp_path / "outside"
    outside.mkdir()
    with stargz.open(made.finish("C")[0]) as layer:
        layer.extractall(tmp_path / "in", devices=True)
    there = {str(path.relative_to(tmp_path / "in")) for path in (tmp_path / "in").rglob("*")}
    assert there == {"d", "out", "abs", "up", "abs2", "d/.wh.x", "h", "c"}
    assert not [*outside.iterdir()]
    for through in ("out/evil", "./abs/tmp/evil"):
        rows = [*made.entries, {"type": "reg", "name": through, "size": 0}]
        text = json.dumps({"version": 1, "entries": rows}).encode()
        refused(TOCError, "it is no directory", made.end(frame(text), len(text))[0])
    assert not [*outside.iterdir()]


# --- the cache ----------------------------------------------------------------------------------


def two_tocs() -> tuple[bytes, dict[str, str], dict[str, str]]:
    """A blob with two TOCs, of which the second lies: what annotates it with the one and the
    other."""
    made = Handmade()
    made.file("a", b"good" * 100)
    made.file("b", b"evil" * 100)
    good, notes = made.finish("none")
    made.data = good
    digests = [row["digest"] for row in made.entries]
    made.entries[0]["digest"], made.entries[1]["digest"] = reversed(digests)
    blob, other = made.finish("none")
    return blob, notes, other


def test_what_lies_is_not_kept(tmp_path: Path) -> None:
    blob, notes, other = two_tocs()
    cache = Cache(tmp_path / "cache")
    with stargz.open(Faraway(blob), annotations=other, cache=cache) as layer:
        assert layer.verified
        for name in ("a", "b"):
            with pytest.raises(DigestError):
                layer.read(name, 1, 2)
    assert cache.info().chunks == 0
    for _ in range(2):
        with stargz.open(Faraway(blob), annotations=notes, cache=cache) as layer:
            assert (layer.read("a"), layer.read("b")) == (b"good" * 100, b"evil" * 100)
    assert cache.info().chunks == 2
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        path.write_bytes(b"poison" * 66 + b"1234")
    source = Faraway(blob)
    with stargz.open(source, annotations=notes, cache=cache) as layer:
        assert (layer.read("a"), layer.read("b")) == (b"good" * 100, b"evil" * 100)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_wrong_is_kept_of_what_arrives_damaged(format: str, tmp_path: Path) -> None:
    blob, result = convert(a_tar(), format, chunk_size=10_000)
    cache = Cache(tmp_path / "cache")
    source = Faraway(blob)
    with stargz.open(source, annotations=result.annotations, cache=cache) as layer:
        wanted = {name: layer.entry(name).size for name in layer.toc.names("reg")}
        source.plan = lambda number, offset, size: bytes(
            byte ^ 0x10 for byte in blob[offset : offset + size]
        )
        for name, size in wanted.items():
            if size:
                with pytest.raises(StargzError):
                    layer.read(name)
    assert cache.info().chunks == 0
