"""The list of a blob's gzip members: what the walk finds, and the file that it is kept in."""

from __future__ import annotations

import hashlib
import io
import json
import random
import signal
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import handmade
import pytest
from blobs import noise, varied_tar
from command import run

import stargz
from stargz._engine.patch import GAP, MEMBER, PROOF, compress, prove
from stargz.errors import DigestError, FormatError, GzipError
from stargz.patching import members
from stargz.patching.members import MemberList, Members

EXTERNAL = "external_toc"


def by_zlib(blob: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    at = 0
    while at < len(blob):
        stream = zlib.decompressobj(31)
        stream.decompress(blob[at:])
        assert stream.eof
        size = len(blob) - at - len(stream.unused_data)
        found.append((at, size, hashlib.sha256(blob[at : at + size]).digest()))
        at += size
    return found


def listed(blob: bytes, **options: Any) -> MemberList:
    with stargz.open(blob, **options) as layer:
        return MemberList.from_layer(layer, threads=3)


def written(members: MemberList) -> bytes:
    out = io.BytesIO()
    assert members.write(out) == len(out.getvalue())
    return out.getvalue()


def test_golden(data: Path, goldens: list[dict[str, Any]]) -> None:
    for golden in goldens:
        if golden["kind"] != "gzip" and golden["name"] != EXTERNAL:
            continue
        blob = (data / golden["blob"]).read_bytes()
        toc = data / f"{golden['blob']}.toc" if golden["name"] == EXTERNAL else None
        with stargz.open(blob, toc=toc) as layer:
            found = MemberList.from_layer(layer)
            assert list(found.members) == by_zlib(blob)
            assert found.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
            assert found.toc == layer.read_toc()
            assert (found.toc_offset, found.size) == (layer.toc_offset, len(blob))
        again = MemberList.parse(written(found))
        assert (again.members, again.toc, again.chunks) == (found.members, found.toc, found.chunks)
        assert again.data_end == found.data_end
        assert written(again) == written(found)


@pytest.mark.parametrize("options", [{}, {"chunk_size": 1024}, {"min_chunk_size": 5000}])
def test_own(options: dict[str, int]) -> None:
    out = io.BytesIO()
    stargz.convert(varied_tar(), out, **options)
    blob = out.getvalue()
    found = listed(blob)
    assert list(found.members) == by_zlib(blob)
    assert found.contents is not None
    sizes = [len(zlib.decompress(blob[at : at + size], 31)) for at, size, _ in found.members]
    assert list(found.contents) == sizes


def test_from_a_callback(tmp_path: Path) -> None:
    """A source without descriptor or memory is fetched once, and gives the same."""
    blob = handmade.blob([handmade.reg("a", noise("a", 9000)), handmade.reg("b", b"b")])

    class Far:
        name = "far"
        size = len(blob)

        def read_at(self, offset: int, size: int) -> bytes:
            return blob[offset : offset + size]

        def read_ranges(self, ranges: Any) -> list[bytes]:
            return [self.read_at(*part) for part in ranges]

        def close(self) -> None:
            pass

    with stargz.open(Far(), cache=False) as layer:
        assert list(MemberList.from_layer(layer).members) == by_zlib(blob)


def test_lie_about_a_chunk_names_the_entry() -> None:
    lie = {"chunkDigest": handmade.digest(b"other")}
    blob = handmade.blob(
        [handmade.reg("fine", b"1"), handmade.reg("liar", b"22", override=lie)], pack=1
    )
    with pytest.raises(DigestError, match="liar") as caught:
        listed(blob)
    assert caught.value.actual == handmade.digest(b"22")


def test_first_error_whatever_the_threads() -> None:
    entries = []
    for n in range(3000):
        override = {"chunkDigest": handmade.digest(b"x")} if n >= 1500 else {}
        entries.append(handmade.reg(f"f{n}", noise(f"{n}", 900), override=override))
    blob = handmade.blob(entries, level=0)
    for threads in (1, 2, 5, 5, 5):
        with stargz.open(blob) as layer, pytest.raises(DigestError, match="f1500"):
            MemberList.from_layer(layer, threads=threads)


def test_damaged_everywhere() -> None:
    """One flipped byte anywhere in the members is one error (or, in a gzip header, another
    member with the same contents)."""
    blob = handmade.blob([handmade.reg("a", noise("a", 300)), handmade.reg("b", b"b" * 300)])
    good = listed(blob)
    for at in range(good.toc_offset):
        bad = bytearray(blob)
        bad[at] ^= 0x41
        try:
            with stargz.open(bytes(bad)) as layer:
                found = MemberList.from_layer(layer)
        except (GzipError, DigestError):
            continue
        assert found.members != good.members


def test_bytes_that_are_no_member() -> None:
    blob = handmade.blob([handmade.reg("a", b"a" * 100), handmade.reg("b", b"b" * 100)])
    # An offset in the middle of a member: what stands there is none.
    text = json.loads(listed(blob).toc)
    text["entries"][1]["offset"] += 3
    broken = blob[: listed(blob).toc_offset]
    packed = json.dumps(text).encode()
    padded = packed + bytes(-len(packed) % 512)
    toc = handmade.member(handmade.header("stargz.index.json", len(packed)) + padded + bytes(1024))
    with pytest.raises(GzipError, match=r"at offset \d+"):
        listed(broken + toc + handmade.footer(len(broken)))


# --- the file -----------------------------------------------------------------------------


def test_toc_that_is_not_utf8() -> None:
    blob = handmade.blob([handmade.reg("a", b"a")])
    found = listed(blob)
    toc = found.toc.replace(b'"version"', b'"x": "\\u00e9", "version"')
    assert toc != found.toc
    changed = dict(json.loads(written(found)))
    changed["toc"] = toc.decode()
    changed["toc_digest"] = handmade.digest(toc)
    assert MemberList.parse(json.dumps(changed).encode()).toc == toc


def edited(**keys: Any) -> bytes:
    value = json.loads(written(listed(handmade.blob([handmade.reg("a", b"a" * 9)]))))
    for key, change in keys.items():
        if change is None:
            del value[key]
        else:
            value[key] = change(value[key]) if callable(change) else change
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "no object with a version"),
        (b"[1]", "no object with a version"),
        (edited(version=2), "version is 2"),
        (edited(version="1"), "version is '1'"),
        (edited(digest="sha256:00"), "'digest' is not"),
        (edited(digest=None), "'digest' is missing"),
        (edited(size="9"), "'size' is missing or of the wrong type"),
        (edited(size=True), "'size' is missing or of the wrong type"),
        (edited(size=lambda n: n + 1), "members have"),
        (edited(toc="\ud800"), "stand for no bytes"),
        (edited(toc=lambda text: text + " "), "does not match its digest"),
        (edited(toc_offset=lambda n: n + 1), "not where members begin"),
        (edited(toc_offset=-2), "not where members begin"),
        (edited(toc_end=lambda n: n + 1), "not where members begin"),
        (edited(members={}), "'members' is missing"),
        (edited(members=[]), "members have 0 bytes"),
        (edited(members=[[0, 1]]), "number 0"),
        (edited(members=[7]), "number 0"),
        (edited(members=lambda m: [*m, [0, 1, "0" * 64]]), "number 4"),
        (edited(members=lambda m: [[0, 2.0, "0" * 64], *m]), "number 0"),
        (edited(members=lambda m: [[0, m[0][1], " " * 64], *m[1:]]), "number 0"),
        (edited(members=lambda m: [[0, -1, "0" * 64], *m]), "number 0"),
    ],
)
def test_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        MemberList.parse(data, "the list")
    assert str(caught.value).startswith("the list: not a list of members: ")


def test_cut_anywhere() -> None:
    whole = edited()
    for length in random.Random(1).sample(range(len(whole)), 60):
        with pytest.raises(FormatError):
            MemberList.parse(whole[:length])


def test_command(tmp_path: Path) -> None:
    blob = handmade.blob([handmade.reg("a", b"a" * 1000)])
    (tmp_path / "layer").write_bytes(blob)
    done = run("toc", "--members", "--json", "layer", cwd=tmp_path)
    assert done.returncode == 0
    expected = written(listed(blob))
    assert done.stdout.encode() == expected
    assert json.loads(done.stderr)["members"] == len(by_zlib(blob))


# --- proofs -------------------------------------------------------------------------------


def test_prove() -> None:
    contents = [noise("a", 100), b"", bytes(3_000_000), b"text " * 500]
    members = [compress(content, 1) for content in contents]
    members.append(handmade.member(b"zlib " * 500, 9))
    contents.append(b"zlib " * 500)
    blob = b"".join(members)
    proofs, gaps, literals = b"", b"", b""
    at = 0
    for n, (member, content) in enumerate(zip(members, contents, strict=True)):
        assert zlib.decompress(member, 31) == content
        proofs += struct.pack(PROOF, at, len(member), len(content), n, 1)
        gaps += struct.pack(GAP, len(content) // 2, len(content) // 4, len(literals))
        literals += content[len(content) // 2 :][: len(content) // 4]
        at += len(member)
    with stargz.open(handmade.blob([handmade.reg("a", b"a")])) as layer:
        kind = type(layer.blob)
    from stargz.sources import as_source

    view = kind(as_source(blob))
    flags, found = prove(view, proofs, gaps, len(literals), 1, 2)
    assert flags == b"\1\1\1\1\0"
    sent = len(literals) - len(contents[-1]) // 4
    assert found[:sent] == literals[:sent]
    assert prove(view, proofs, gaps, len(literals), 2, 2)[0][2:3] == b"\0"
    wrong = struct.pack(PROOF, 0, len(members[0]), 99, 0, 0)
    with pytest.raises(GzipError, match="not what it was"):
        prove(view, wrong, b"", 0, 1, 1)
    for bad in (
        struct.pack(GAP, 90, 11, 0),
        struct.pack(GAP, 0, 11, 2**64 - 5),
        struct.pack(GAP, 2**64 - 1, 2, 0),
    ):
        with pytest.raises(ValueError, match="gap outside"):
            prove(view, struct.pack(PROOF, 0, len(members[0]), 100, 0, 1), bad, 20, 1, 1)
    with pytest.raises(ValueError, match="not there"):
        prove(view, struct.pack(PROOF, 0, len(members[0]), 100, 1, 2**64 - 1), b"", 0, 1, 1)


def test_members_are_a_sequence() -> None:
    digests = [bytes([n]) * 32 for n in range(4)]
    rows = [(n * 10, 10, digest) for n, digest in enumerate(digests)]
    found = Members(b"".join(struct.pack(MEMBER, *row) for row in rows))
    assert (list(found), len(found), found[1], found[-1]) == (rows, 4, rows[1], rows[3])
    assert list(found[1:3]) == rows[1:3] and list(found[::-2]) == rows[::-2]
    assert [at for at in range(-1, 41) if found.starts_at(at)] == [0, 10, 20, 30]
    assert found == found[:] and found != found[1:] and hash(found) == hash(found[:])
    with pytest.raises(IndexError):
        found[4]


def test_an_interrupted_wait_ends_after_the_reader() -> None:
    """Ctrl-C while the digest is waited for: the blob is not closed under the thread."""
    main, reading, released = threading.main_thread(), threading.Event(), threading.Event()
    after: list[bool] = []

    class Source:
        name, size = "slow", 1 << 22

        def read_at(self, offset: int, size: int) -> bytes:
            reading.set()
            assert released.wait(20)
            return bytes(size)

    class Blob:
        source = Source()

    def interrupt() -> None:
        assert reading.wait(20)
        for _ in range(3):
            time.sleep(0.05)
            signal.pthread_kill(main.ident or 0, signal.SIGINT)
        time.sleep(0.05)
        after.append(True)
        released.set()

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(KeyboardInterrupt), members._hashed(Blob(), "") as whole:  # type: ignore[arg-type]
        whole()
    assert after
    helper.join()
