"""Layer.verify: whole blobs, checked against every digest and against their own tar."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blobs
import bounded
import pytest
from chunked_layers import plain
from hypothesis import given, settings
from hypothesis import strategies as st

import stargz
from stargz.errors import StargzError
from stargz.layer import VerifyResult

DATA = Path(__file__).parent / "data"
Entries = list[dict[str, Any]]


def verify(made: blobs.Made | bytes, **options: Any) -> VerifyResult:
    data = made
    if isinstance(made, blobs.Made):
        data = made.data
        if made.external is not None:
            options["toc"] = made.external
    with stargz.open(data, **options) as layer:
        return layer.verify()


def messages(result: VerifyResult) -> list[tuple[str, str]]:
    return [(error.name, error.message) for error in result.errors]


def row(entries: Entries, name: str) -> dict[str, Any]:
    return next(e for e in entries if e["name"] == name and e["type"] != "chunk")


# --- what is right ------------------------------------------------------------------------


def test_golden_blobs(goldens: list[dict[str, Any]]) -> None:
    for case in goldens:
        options = {"toc": DATA / f"{case['blob']}.toc"} if case["kind"] == "ext" else {}
        path = DATA / case["blob"]
        with stargz.open(path, toc_digest=case["toc_digest"], **options) as layer:
            result = layer.verify()
            assert result.ok, (case["name"], result.errors)
            assert result.verified
            assert result.errors == []
            assert result.error_count == 0
            assert result.files == layer.toc.counts()["files"]
            assert result.chunks == layer.toc.counts()["chunks"]
            unpack = plain if case["kind"] == "zstd" else blobs.inflated
            assert result.bytes == len(unpack(path.read_bytes()))


@pytest.mark.parametrize("kind", ["estargz", "stargz", "external-toc"])
@pytest.mark.parametrize("keep_end", [False, True])
@pytest.mark.parametrize(("chunk_size", "pack"), [(4 << 20, 1), (1000, 1), (1000, 9), (1, 10**6)])
def test_made_blobs(kind: str, keep_end: bool, chunk_size: int, pack: int) -> None:
    tar = blobs.varied_tar()
    made = blobs.build(tar, kind=kind, keep_end=keep_end, chunk_size=chunk_size, pack=pack)
    for threads in (1, 5):
        result = verify(made, threads=threads, toc_digest=made.digest)
        assert result.ok, result.errors
        assert result.verified


@settings(deadline=None, max_examples=60)
@given(
    files=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "./c", "d/e", "d/é", "d/" + "n" * 150]),
            st.integers(0, 5000),
        )
    ),
    chunk_size=st.sampled_from([64, 512, 4096]),
    pack=st.sampled_from([1, 3, 1000]),
    threads=st.sampled_from([1, 2, 8]),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_tree_with_duplicates(
    files: list[tuple[str, int]], chunk_size: int, pack: int, threads: int, form: int
) -> None:
    entries = [(name, blobs.noise(f"{n}", size)) for n, (name, size) in enumerate(files)]
    made = blobs.build(blobs.tar_of(entries, form), chunk_size=chunk_size, pack=pack)
    # Replaced files stay in the tar, their rows are not in the TOC: see drop_duplicates.
    result = verify(made, threads=threads)
    assert result.ok, result.errors
    last = dict(entries)
    with stargz.open(made.data) as layer:
        for name, content in last.items():
            assert layer.read(name) == content


def test_files_of_many_chunks_on_many_threads() -> None:
    contents = [(f"f{n}", blobs.noise(f"{n}", 700_000 + n)) for n in range(12)]
    made = blobs.build(blobs.tar_of(contents), chunk_size=1024, level=1)
    expected = verify(made, threads=1)
    assert expected.ok
    assert expected.chunks == sum(-(-len(content) // 1024) for _, content in contents)
    for threads in (2, 3, 16):
        assert verify(made, threads=threads) == expected


def test_large_chunks_are_hashed_in_order() -> None:
    content = blobs.noise("a", 20 << 20)
    made = blobs.build(blobs.tar_of([("a", content)]), chunk_size=9 << 20, level=1)
    assert verify(made, threads=4).ok
    wrong = blobs.build(
        blobs.tar_of([("a", content)]),
        chunk_size=9 << 20,
        level=1,
        edit=lambda entries: entries[0].update(digest=blobs.sha256(b"other")),
    )
    result = verify(wrong, threads=4)
    assert [name for name, _ in messages(result)] == ["a"]
    assert "the file does not match its digest" in result.errors[0].message


def test_hard_links_to_what_is_replaced_later() -> None:
    # Format section 4: the link keeps the earlier contents, as a file of its own.
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content, link in (
            ("a", b"earlier", ""),
            ("link", b"", "a"),
            ("a", b"later one", ""),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.linkname = len(content), link
            info.type = tarfile.LNKTYPE if link else tarfile.REGTYPE
            archive.addfile(info, io.BytesIO(content))

    def as_file(entries: Entries) -> Entries:
        # At the earlier payload: the member after that of the first header.
        first = blobs.member(out.getvalue()[:512])
        earlier = {
            **row(entries, "link"),
            "type": "reg",
            "size": 7,
            "offset": len(first),
            "digest": blobs.sha256(b"earlier"),
            "chunkDigest": blobs.sha256(b"earlier"),
        }
        del earlier["linkName"]
        return [earlier, row(entries, "a")]

    made = blobs.build(out.getvalue(), edit=as_file)
    result = verify(made)
    assert result.ok, result.errors
    with stargz.open(made.data) as layer:
        assert layer.read("link") == b"earlier"
        assert layer.read("a") == b"later one"
    # As a hard link, the TOC would give it the later contents.
    result = verify(blobs.build(out.getvalue(), edit=lambda e: [row(e, "a"), row(e, "link")]))
    assert ("link", "its type is hardlink in the TOC, reg in the tar") in messages(result)


def test_names_that_are_not_utf8() -> None:
    tar = blobs.tar_of([("caf\udce9", b"latin-1"), ("plain", b"p")], tarfile.GNU_FORMAT)

    def replace(entries: Entries) -> None:
        entries[0]["name"] = "caf\ufffd"

    result = verify(blobs.build(tar, edit=replace))
    assert result.ok, result.errors


def test_back_filled_owner_names() -> None:
    tar = blobs.tar_of([("a", b"1"), ("b", b"2"), ("c", b"3")], uname="u", gname="g", uid=5)

    def dedupe(entries: Entries) -> None:
        for entry in entries[1:]:
            del entry["userName"], entry["groupName"]

    assert verify(blobs.build(tar, edit=dedupe)).ok


def test_progress_and_its_exceptions() -> None:
    content = blobs.noise("x", 8 << 20)
    made = blobs.build(blobs.tar_of([(f"f{n}", content) for n in range(6)]), level=1)
    seen: list[tuple[int, int]] = []
    with stargz.open(made.data) as layer:
        assert layer.verify(progress=lambda done, total: seen.append((done, total))).ok
        end = len(made.data) - 51
        assert seen[-1] == (end, end)
        assert seen == sorted(seen)

        def stop(done: int, total: int) -> None:
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            layer.verify(progress=stop)
        assert layer.read("f3", 5, 5) == content[5:10]


# --- what is wrong ------------------------------------------------------------------------


def change(name: str, **keys: Any) -> Callable[[Entries], None]:
    return lambda entries: row(entries, name).update(keys)


def remove(name: str) -> Callable[[Entries], Entries]:
    return lambda entries: [e for e in entries if e["name"] != name]


@pytest.mark.parametrize(
    ("edit", "name", "message"),
    [
        (change("d/small", mode=0o600), "d/small", "its mode is 0600 in the TOC, 0644 in the tar"),
        (change("d/set", mode=0o755), "d/set", "its mode is 0755 in the TOC, 4755 in the tar"),
        (change("d/x", uid=7), "d/x", "its owner is 7:100 in the TOC, 1000:100 in the tar"),
        (change("d/x", gid=0), "d/x", "its owner is 1000:0 in the TOC, 1000:100 in the tar"),
        (change("d/fifo", userName="eve"), "d/fifo", "its user name is not the tar's"),
        (change("d/fifo", groupName="eve"), "d/fifo", "its group name is not the tar's"),
        (
            change("d/z", modtime="2023-11-14T22:13:21Z"),
            "d/z",
            "its modification time is 1700000001 in the TOC, 1700000000 in the tar",
        ),
        (change("d/soft", linkName="/etc/shadow"), "d/soft", "its link target is not the tar's"),
        (
            change("d/hard", linkName="d/small"),
            "d/hard",
            "it is a hard link to another file than in the tar",
        ),
        (change("d/char", devMinor=5), "d/char", "its device is 1:5 in the TOC, 1:3 in the tar"),
        (change("d/char", type="block"), "d/char", "its type is block in the TOC, char in the tar"),
        (
            change("d/x", xattrs={"user.a": "Mg=="}),
            "d/x",
            "its extended attributes are not the tar's",
        ),
        (change("d/small", xattrs={"user.b": ""}), "d/small", "its extended attributes are not"),
        (remove("d/fifo"), "d/fifo", "it is in the tar but not in the TOC"),
        (remove("d/small"), "d/small", "it is in the tar but not in the TOC"),
        (
            lambda entries: entries.append({"name": "more", "type": "dir", "mode": 0o755}),
            "more",
            "it is in the TOC but not in the tar",
        ),
        (
            change("d/empty", digest=blobs.sha256(b"x")),
            "d/empty",
            "the file does not match its digest",
        ),
        (
            change("d/small", digest=blobs.sha256(b"x")),
            "d/small",
            "the file does not match its digest",
        ),
        (
            change("d/small", chunkDigest=blobs.sha256(b"x")),
            "d/small",
            "a chunk does not match its digest",
        ),
        (
            change("d/large", digest=blobs.sha256(b"x")),
            "d/large",
            "the file does not match its digest",
        ),
        (
            change("d/large", chunkDigest=blobs.sha256(b"x")),
            "d/large",
            "a chunk does not match its digest",
        ),
    ],
)
def test_a_toc_that_lies(edit: Any, name: str, message: str) -> None:
    tar = blobs.varied_tar()
    for options in ({"chunk_size": 10_000}, {"chunk_size": 10_000, "pack": 50}):
        result = verify(blobs.build(tar, edit=edit, **options))
        assert not result.ok
        assert any(n == name and m.startswith(message) for n, m in messages(result)), result.errors
        assert result.error_count == len(result.errors) == 1


def test_swapped_files() -> None:
    # Each name with the other's place: every digest is right, the tree is not.
    def swap(entries: Entries) -> None:
        entries[0]["name"], entries[1]["name"] = entries[1]["name"], entries[0]["name"]

    tar = blobs.tar_of([("a", b"same size"), ("b", b"SAME SIZE")])
    result = verify(blobs.build(tar, edit=swap))
    wrong = "its data in the tar is not where the TOC says"
    assert sorted(messages(result)) == [("a", wrong), ("b", wrong)]


def test_a_chunk_in_the_middle_of_other_contents() -> None:
    def inside(entries: Entries) -> None:
        entries[0].update(innerOffset=100, size=5, digest=blobs.sha256(b"A" * 5))
        entries[0]["chunkDigest"] = entries[0]["digest"]

    result = verify(blobs.build(blobs.tar_of([("a", b"A" * 512)]), edit=inside))
    assert messages(result) == [("a", "its size is 5 in the TOC, 512 in the tar")]


def test_a_chunk_where_headers_are() -> None:
    def header(entries: Entries) -> None:
        del entries[0]["digest"], entries[0]["chunkDigest"]
        entries[0].update(offset=0, innerOffset=10, size=502)

    result = verify(blobs.build(blobs.tar_of([("a", b"A" * 512)]), edit=header))
    assert ("a", "a chunk stands where the tar has no file contents") in messages(result)


def parts(made: blobs.Made) -> tuple[bytes, bytes]:
    return made.data[: made.toc_offset], made.text


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (bytes(1024) + b"x" * 512, "something other than zeros follows the JSON"),
        (b"\0" * 1023 + b"\1", "something other than zeros follows the JSON"),
        (b"", "the tar does not end in two blocks of zeros"),
        (bytes(512), "the tar does not end in two blocks of zeros"),
        (bytes(1025), "the tar does not end in two blocks of zeros"),
    ],
)
def test_what_follows_the_toc(tail: bytes, message: str) -> None:
    members, text = parts(blobs.build(blobs.varied_tar()))
    result = verify(blobs.with_toc(members, text, tail=tail))
    assert len(result.errors) == 1
    assert message in result.errors[0].message
    assert result.errors[0].offset == len(members)
    assert verify(blobs.with_toc(members, text, tail=bytes(1536))).ok


def test_bytes_between_members() -> None:
    made = blobs.build(blobs.varied_tar())
    members, text = parts(made)
    result = verify(blobs.with_toc(members + b"garbage", text))
    assert [e.message for e in result.errors] == [
        "bytes that are no gzip member stand between the members"
    ]
    toc = blobs.member(blobs.toc_entry(text) + bytes(1024))
    result = verify(members + toc + b"garbage" + blobs.footer(len(members)))
    assert len(result.errors) == 1
    assert "between the TOC and the footer" in result.errors[0].message


def test_landmarks() -> None:
    def check(*names: str, content: bytes = b"\x0f") -> list[tuple[str, str]]:
        files = [(n, content if "landmark" in n else b"content") for n in names]
        return messages(verify(blobs.build(blobs.tar_of(files))))

    yes, no = ".prefetch.landmark", ".no.prefetch.landmark"
    assert check(no, "a") == check("a", yes, "b") == check("a") == []
    assert check("a", no) == [(no, "this landmark is the first entry of a layer")]
    assert check(no, "a", yes) == [(no, "a layer has one of the two landmarks, not both")]
    one_byte = "a landmark is a file of the one byte 0x0f"
    assert check(no, "a", content=b"x") == [(no, one_byte)]
    assert check("a", yes, content=b"\x0f\x0f") == [(yes, one_byte)]


def test_broken_members_do_not_hide_the_others() -> None:
    contents = [(f"f{n}", blobs.noise(f"{n}", 3000)) for n in range(30)]
    made = blobs.build(blobs.tar_of(contents), chunk_size=1000)
    data = bytearray(made.data)
    with stargz.open(made.data) as layer:
        places = {n: layer.chunks(n)[1].offset for n in ("f3", "f17")}
    for place in places.values():
        data[place + 500] ^= 0x10
    expected = None
    for threads in (1, 4):
        result = verify(bytes(data), threads=threads)
        assert {e.name for e in result.errors} >= set(places)
        assert {e.offset for e in result.errors} >= set(places.values())
        assert result.chunks == 90 - 2
        assert expected in (None, result)
        expected = result
    with stargz.open(bytes(data)) as layer:
        assert layer.read("f4") == contents[4][1]
        with pytest.raises(StargzError):
            layer.read("f3")


def test_errors_are_counted_beyond_the_first_hundred() -> None:
    contents = [(f"f{n:03}", b"content") for n in range(250)]

    def lie(entries: Entries) -> None:
        for entry in entries:
            entry["mode"] = 0o777

    result = verify(blobs.build(blobs.tar_of(contents), edit=lie))
    assert not result.ok
    assert result.error_count == 250
    assert len(result.errors) == 100


def test_truncated_tar() -> None:
    tar = blobs.tar_of([("a", b"A" * 600)])

    def cut(entries: Entries) -> None:
        pass

    made = blobs.build(tar, edit=cut)
    with stargz.open(made.data) as layer:
        (chunk,) = layer.chunks("a")
    head = made.data[: chunk.offset]
    result = verify(blobs.with_toc(head + blobs.member(b"A" * 600), made.text))
    assert messages(result) == [("", "the tar ends within an entry")]


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_flipped_bits_never_pass(data: Any) -> None:
    name = data.draw(st.sampled_from(["empty", "xattrs", "tree_chunk4096", "min_chunk_60000"]))
    right = (DATA / f"{name}.esgz").read_bytes()
    at = data.draw(st.integers(0, len(right) - 1))
    bit = data.draw(st.integers(0, 7))
    _flip(right, at, bit)


@pytest.mark.parametrize("name", ["empty", "duplicates"])
def test_every_flipped_bit(name: str) -> None:
    right = (DATA / f"{name}.esgz").read_bytes()
    for at in range(len(right)):
        _flip(right, at, at % 8)


def _flip(right: bytes, at: int, bit: int) -> None:
    wrong = bytearray(right)
    wrong[at] ^= 1 << bit
    try:
        ok = verify(bytes(wrong), threads=2).ok
    except (StargzError, OSError) as error:
        assert not isinstance(error, OSError), error
        return
    if ok:  # a bit without a meaning, such as a gzip header's time
        assert _same_stream(bytes(wrong), right), f"bit {bit} of byte {at}"


def _same_stream(wrong: bytes, right: bytes) -> bool:
    try:
        return blobs.inflated(wrong) == blobs.inflated(right)
    except zlib.error:
        return False


def test_members_that_inflate_without_end(tmp_path: Path) -> None:
    # 1.5 GB of zeros as payload that no chunk names, and 300 MB of them in headers' place.
    tar = blobs.tar_of([("a", b"A" * 512)])
    made = blobs.build(tar)
    head = made.data[: made.toc_offset]
    zeros = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(300)) + zeros.flush()
    info = tarfile.TarInfo("dropped")
    info.size = 5 * (300 << 20)
    dropped = blobs.member(info.tobuf(tarfile.GNU_FORMAT)) + bomb * 5
    again = blobs.member(blobs.tar_of([("dropped", b"")])[:512])
    text = made.text.replace(
        b'"entries": [',
        b'"entries": [{"name": "dropped", "type": "reg", "mode": 420, "digest": "%s"},'
        % blobs.sha256(b"").encode(),
    )
    path = tmp_path / "bomb"
    path.write_bytes(blobs.with_toc(head + dropped + again + bomb, text))
    code = (
        "import re, stargz, sys\n"
        "with stargz.open(sys.argv[1]) as layer:\n"
        "    result = layer.verify()\n"
        "    assert result.ok, result.errors\n"
        "    assert layer.read('a') == b'A' * 512\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 120_000, "KiB of memory"


VERIFY = """
with stargz.open(sys.argv[1]) as layer:
    result = layer.verify()
print(peak(), result.ok, *(error.message for error in result.errors), sep="\\n")
"""


def test_headers_without_end(tmp_path: Path) -> None:
    # 160 MB of names that the TOC of one entry knows nothing of, in a blob of 1 MB.
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = b""
    for n in range(40_000):
        info = tarfile.TarInfo(f"{n:05}/" + f"{'b' * 199}/" * 20)
        head += pack.compress(info.tobuf(tarfile.GNU_FORMAT))
    head += pack.flush()
    path = tmp_path / "blob"
    path.write_bytes(blobs.with_toc(head, b'{"version":1,"entries":[{"name":"x","type":"dir"}]}'))
    memory, ok, *wrong = bounded.run(VERIFY, path, seconds=60).splitlines()
    assert ok == "False"
    assert len(wrong) == 1
    assert "far more than the TOC's" in wrong[0]
    assert int(memory) < 220


def test_entries_without_end(tmp_path: Path) -> None:
    # Rows are counted too: they are larger than their names.
    tar = blobs.tar_of([("d", None)])[:512] * 1024
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = b"".join(pack.compress(tar) for _ in range(1100)) + pack.flush()
    path = tmp_path / "blob"
    path.write_bytes(blobs.with_toc(head, b'{"version":1,"entries":[{"name":"d","type":"dir"}]}'))
    _, ok, *wrong = bounded.run(VERIFY, path, seconds=60).splitlines()
    assert ok == "False"
    assert len(wrong) == 1
    assert "take more memory than" in wrong[0]


def test_owners_chosen_to_collide(tmp_path: Path) -> None:
    # Ids that a table without a seed puts into two rows of neighbouring places; then, again
    # and again, those at the end of them.
    info = tarfile.TarInfo("d")
    info.type, info.uname, info.gname = tarfile.DIRTYPE, "u", "g"
    tar = bytearray()
    for n in range(1 << 17):
        order = n if n < 1 << 16 else (1 << 16) - 1 - n % 2048
        info.name, info.uid, info.gid = f"d{n}", order << 16, order << 16
        tar += info.tobuf(tarfile.GNU_FORMAT)
    source, path = tmp_path / "tar", tmp_path / "blob"
    source.write_bytes(tar)
    stargz.convert(source, path)
    _, ok, *wrong = bounded.run(VERIFY, path, seconds=2).splitlines()
    assert (ok, wrong) == ("True", [])


@pytest.mark.parametrize("kind", ["deep names", "one directory"])
def test_names_that_are_long_before_they_are_cleaned(tmp_path: Path, kind: str) -> None:
    # Each cleaned again at every look-up that came by its place would take minutes.
    if kind == "deep names":
        names = [f"{n:05}/.//" + "b/" * 2000 for n in range(150)]
        names += [f"{n}/" + "a/" * 2000 + "a" for n in range(50)]
    else:
        names = ["d" + "/." * 2000, *(f"d/{n}" for n in range(40_000))]
    tar, path = tmp_path / "tar", tmp_path / "blob"
    tar.write_bytes(blobs.tar_of([(name, None) for name in names]))
    bounded.run("stargz.convert(sys.argv[1], sys.argv[2])", tar, path, seconds=20)
    _, ok, *wrong = bounded.run(VERIFY, path, seconds=20).splitlines()
    assert (ok, wrong) == ("True", [])


def test_the_golden_digests_are_of_the_blobs(goldens: list[dict[str, Any]]) -> None:
    for case in goldens:
        data = (DATA / case["blob"]).read_bytes()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == case["blob_digest"]
