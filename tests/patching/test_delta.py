"""Patches: made here, applied by a second implementation (patch_oracle)."""

from __future__ import annotations

import io
import json
import os
import random
import re
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blobs
import handmade
import patch_oracle
import pytest
from blobs import noise, varied_tar
from command import fails, ok, run, sha256
from faraway import Faraway
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stargz
from stargz.errors import DigestError, FormatError, GzipError, UsageError
from stargz.patching import toc_lines
from stargz.patching.file import (
    PASS_FREE,
    PASS_PER_BYTE,
    WORK_OPERATION,
    WORK_SEEK,
    Work,
    varint,
    zigzag,
)
from stargz.patching.members import MemberList


def tar(files: dict[str, bytes], mtime: int = 1) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), mtime
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def layer(files: dict[str, bytes] | bytes, mtime: int = 1, **options: Any) -> bytes:
    out = io.BytesIO()
    stargz.convert(files if isinstance(files, bytes) else tar(files, mtime), out, **options)
    return out.getvalue()


def opened(blob: bytes, toc: bytes | None = None) -> stargz.Layer:
    return stargz.open(blob, toc=toc)


def patch_of(
    base: bytes, new: bytes, *, toc: bytes | None = None, new_toc: bytes | None = None
) -> tuple[patch_oracle.Applied, bytes, Any]:
    """The patch, applied and checked; it is the same of BASE's members alone, and of one thread."""
    out, again = io.BytesIO(), io.BytesIO()
    with opened(base, toc) as before, opened(new, new_toc) as after:
        result = stargz.delta(before, after, out, threads=3)
        listed = io.BytesIO()
        MemberList.from_layer(before).write(listed)
        stargz.delta(listed.getvalue(), after, again, threads=1)
    patch = out.getvalue()
    assert again.getvalue() == patch
    done = patch_oracle.apply(base, patch)
    assert done.data == new
    made = io.BytesIO()
    applied = stargz.apply(io.BytesIO(base), io.BytesIO(patch), made)
    assert made.getvalue() == new
    assert (applied.copied, applied.regenerated) == (result.copied, result.regenerated)
    assert result.patch_size == len(patch)
    assert result.copied + result.regenerated + result.sent == len(new) == result.new_size
    assert (result.base_digest, result.new_digest) == (sha256(base), sha256(new))
    assert result.toc_remade == bool(done.head["toc_json_size"])
    return done, patch, result


def files(count: int, size: int = 3000) -> dict[str, bytes]:
    """Texts that compress to about half, each another one."""
    found = {}
    for n in range(count):
        words = random.Random(n)
        text = b"".join(b"%06x\n" % words.getrandbits(24) for _ in range(size // 7))
        found[f"dir{n % 7}/file{n:05}"] = text
    return found


# --- random pairs ---------------------------------------------------------------------------

CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.integers(0, 30), st.sampled_from([1, 511, 512, 3000, 9000])).map(
        lambda seed: random.Random(seed[0]).randbytes(seed[1] // 2) * 2
    ),
)
TREES = st.dictionaries(st.sampled_from([f"d{n % 3}/f{n}" for n in range(12)]), CONTENTS)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "level": st.sampled_from([1, 2, 6, 9]),
        "chunk_size": st.sampled_from([1024, 4096]),
        "min_chunk_size": st.sampled_from([1, 4000]),
        "lossless": st.booleans(),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES, TREES, st.booleans(), OPTIONS, OPTIONS, st.randoms())
def test_random_pairs(
    old: dict[str, bytes],
    fresh: dict[str, bytes],
    related: bool,
    options: dict[str, Any],
    others: dict[str, Any],
    chance: random.Random,
) -> None:
    if related:
        fresh = {name: fresh.get(name, body) for name, body in old.items()} | {
            f"moved/{name}": body for name, body in old.items() if chance.random() < 0.3
        }
        others = options
    patch_of(layer(old, **options), layer(fresh, mtime=chance.choice([1, 2]), **others))


LINES = st.lists(
    st.sampled_from(
        [
            "\t\t{",
            "\t\t},",
            "}",
            '\t\t\t"offset": 5,',
            '\t\t\t"offset": 17',
            '"offset": 007,',
            '\0\t\t\t"offset": \0,',  # no JSON has a NUL
            '\t\t\t"offset": 5,\0\t\t\t"offset": \0,',
            '"offset": 9999999999999999999,',
            '"offset": 12345678901234567890',
            '"offset": 1 ,',
            '"name": "a"',
            '"name": "b"',
            "",
        ]
    )
)


@settings(max_examples=300, deadline=None)
@given(LINES, LINES, st.booleans(), st.booleans())
def test_lines_of_any_text(old: list[str], new: list[str], end: bool, newer_end: bool) -> None:
    base = "\n".join(old).encode() + b"\n" * end
    fresh = "\n".join(new).encode() + b"\n" * newer_end
    operations = toc_lines.difference(base, fresh)
    assert toc_lines.remake(base, operations) == fresh
    lines = base.split(b"\n")
    lines = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    at = 0
    for op in operations:
        if isinstance(op, toc_lines.Lines):
            at += op.passed
            assert b"".join(lines[at : at + op.taken]) == base[op.start : op.end]
            at += op.taken
            assert op.taken > 0


def test_lines_that_moved() -> None:
    """Whatever goes, comes or changes places, the rest is taken from BASE."""
    entries = [
        f'\t\t{{\n\t\t\t"name": "{n}",\n\t\t\t"offset": {90 * n}\n\t\t}},\n' for n in range(99)
    ]
    base = "".join(entries).encode()
    moved = [*entries[:10], *entries[20:50], entries[70], *entries[50:70], *entries[71:]]
    operations = toc_lines.difference(base, "".join(moved).encode())
    assert sum(len(op) for op in operations if isinstance(op, bytes)) == len(entries[70])
    shifted = "".join(entries).replace('offset": ', 'offset": 1').encode()
    assert toc_lines.remake(base, toc_lines.difference(base, shifted)) == shifted


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 2**63 - 1, 2**64 - 1])
def test_numbers(number: int) -> None:
    packed = patch_oracle._Bytes(varint(number))
    assert packed.varint() == number
    assert not packed.more()
    for signed in (number // 2, -(number // 2), -(number // 2) - 1):
        assert patch_oracle._Bytes(zigzag(signed)).zigzag() == signed


# --- what is sent ---------------------------------------------------------------------------


def test_same_blob() -> None:
    blob = layer(files(50))
    done, patch, result = patch_of(blob, blob)
    assert (done.operations, done.sent) == ({"copy": 1}, b"")
    assert len(patch) < 300
    assert result.members_copied == result.members


def test_nothing_shared() -> None:
    new = layer({"x": noise("x", 50_000), "y": noise("y", 3000)})
    _, patch, result = patch_of(layer({"a": noise("a", 40_000)}), new)
    # A landmark and the zeros at the end are in every layer.
    assert len(patch) < len(new) + 300
    assert result.sent > 50_000


@pytest.mark.parametrize("level", [1, 2, 6])
def test_one_of_many_changed(level: int) -> None:
    old = files(300)
    new = dict(old)
    changed = "dir3/file00150"
    new[changed] = new[changed][:100] + b"an edit" + new[changed][100:]
    base, blob = layer(old, level=level), layer(new, level=level)
    done, patch, result = patch_of(base, blob)
    assert result.level == level
    assert result.toc_remade
    assert done.operations["lines"] <= 4
    # The changed file's member, its TOC entry, and next to nothing for each of the others.
    one = len(layer({changed: new[changed]}, level=level))
    assert len(patch) < one + 600


def test_moved_and_copied_contents_are_not_sent() -> None:
    old = {"a/one": noise("1", 20_000), "b/two": noise("2", 30_000), "c": noise("3", 10_000)}
    new = {"z/first": old["b/two"], "y": old["a/one"], "x": old["c"], "w": old["c"], "c": b"new"}
    done, patch, result = patch_of(layer(old), layer(new))
    assert len(patch) < 2000
    assert result.sent == 0
    assert done.operations["member"] >= 4  # the headers that follow are others


def test_contents_from_another_tool_are_regenerated() -> None:
    """BASE's members were made by zlib; ours are made of their contents."""
    old = files(60)
    foreign = blobs.build(tar(old), level=9).data
    new = layer(old)
    done, patch, result = patch_of(foreign, new)
    assert result.copied < 1000
    assert result.regenerated > len(new) - 1000
    assert len(patch) < len(new) / 10
    # And the other way round nothing can be made, so that it is sent.
    _, patch, result = patch_of(new, foreign)
    assert (result.level, result.regenerated) == (0, 0)
    assert len(patch) > len(foreign) * 0.9
    assert done.data == new


def test_a_large_file_of_many_chunks() -> None:
    body = noise("large", 200_000)
    edited = body[:100_000] + b"!" + body[100_001:]
    options = {"chunk_size": 4096}
    _, patch, result = patch_of(layer({"f": body}, **options), layer({"f": edited}, **options))
    assert result.sent == 0 or result.sent < 5000
    assert len(patch) < 6500


def test_neighbours_in_one_member() -> None:
    """min_chunk_size: of a member with many files only the changed ones are in the patch."""
    old = {f"f{n}": noise(f"{n}", 800) for n in range(200)}
    new = {**old, "f77": b"short"}
    options = {"min_chunk_size": 20_000}
    _, patch, result = patch_of(layer(old, **options), layer(new, **options))
    assert result.sent == 0
    # Headers are in the members too: they go as literals.
    assert len(patch) < 8000


def test_a_large_inner_offset_is_not_passed_over_too_often() -> None:
    """In a member of BASE small files stand behind a large one, and NEW has them in reverse: for
    each the decoder would pass over all of it."""
    large = noise("large", 1 << 16) * 128
    small = {f"f{n:05}": b"file %d\n" % n for n in range(1000)}
    base = layer({"a": large, **small}, min_chunk_size=1 << 29, chunk_size=1 << 29)
    new = layer({f"n{name}": small[name] for name in reversed(small)})
    _, _, result = patch_of(base, new)
    passed = result.members_regenerated * len(large)
    assert 0 < passed < PASS_FREE + PASS_PER_BYTE * len(new) + len(large)
    assert result.sent > len(new) / 2


def test_the_account_of_work() -> None:
    """The constants are those of the other side, and a MEMBER that is not made costs nothing."""
    header = (Path(__file__).parents[2] / "csrc/patch/format.h").read_text()
    found = re.findall(r"define (SGZ_PATCH_WORK_\w+) \(\(uint64_t\)(\d+) << (\d+)\)", header)
    assert {name.removeprefix("SGZ_PATCH_"): int(n) << int(by) for name, n, by in found} == {
        name: getattr(stargz.patching.file, name)
        for name in ("WORK_FREE", "WORK_PER_BYTE", "WORK_OPERATION", "WORK_SEEK")
    }
    work = Work()
    assert work.member([(0, 100, 5), (-1, 0, 9), (0, 105, 5)], 0)
    assert (work.spent, work.passed) == (4 * WORK_OPERATION + WORK_SEEK + 100, 100)
    assert work.member([(0, 120, 5)], 0)  # goes on
    assert (work.spent, work.passed) == (6 * WORK_OPERATION + WORK_SEEK + 110, 110)
    assert not work.member([(0, PASS_FREE + 110, 5)], 0)
    assert work.passed == 110
    assert work.member([(0, PASS_FREE + 110, 5)], 2)
    assert not work.member([(9, 0, 1), (8, 0, 1)] * 8000, 1000)
    assert work.member([(9, 0, 1), (8, 0, 1)] * 8000, 1 << 20)


def test_a_toc_that_is_not_remade_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    base, new = layer(files(30)), layer(files(31))
    right = toc_lines.difference
    assert patch_of(base, new)[2].toc_remade

    def wrong(before: bytes, after: bytes) -> list[toc_lines.Operation]:
        return [*right(before, after), b" "]

    monkeypatch.setattr(toc_lines, "difference", wrong)
    done, _, result = patch_of(base, new)
    assert not result.toc_remade and done.head["toc_json_size"] == 0


def test_prioritized() -> None:
    old = files(40)
    names = ["dir1/file00008", "dir0/file00014"]
    base, new = layer(old), layer(old, prioritized=names)
    _, patch, result = patch_of(base, new)
    assert result.copied + result.regenerated > 0.9 * len(new)
    assert len(patch) < len(new) / 4


def test_legacy() -> None:
    old = files(30)
    new = {**old, "more": b"more" * 100}
    done, patch, result = patch_of(layer(old, format="stargz"), layer(new, format="stargz"))
    assert result.toc_remade and done.head["legacy"] == 1
    assert len(patch) < 1500
    # Its chunks have no digests, but those of whole files are as good.
    done, patch, _ = patch_of(layer(old, format="stargz"), layer(new))
    assert len(patch) < len(layer(new)) / 5


def test_external_toc(data: Path) -> None:
    toc = (data / "external_toc.esgz.toc").read_bytes()
    blob = (data / "external_toc.esgz").read_bytes()
    done, patch, result = patch_of(blob, blob, toc=toc, new_toc=toc)
    assert len(patch) < 300 and not result.toc_remade
    ours = layer((data / "external_toc.tar").read_bytes())
    done, _, result = patch_of(blob, ours, toc=toc)
    assert done.head["base_json_size"] == 0
    assert result.toc_remade and done.head["toc_json_size"] == len(opened(ours).read_toc())
    assert result.regenerated > 0
    patch_of(ours, blob, new_toc=toc)


def test_golden(data: Path, goldens: list[dict[str, Any]]) -> None:
    """What the reference made, to what we make of the same tar and back."""
    for golden in goldens:
        if golden["kind"] != "gzip" or golden["name"] == "external_toc":
            continue
        blob = (data / golden["blob"]).read_bytes()
        ours = layer((data / golden["tar"]).read_bytes())
        patch_of(blob, ours)
        patch_of(ours, blob)


def test_packed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name, content in files(80).items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    stargz.pack(tree, tmp_path / "first")
    (tree / "dir3/file00003").write_bytes(b"edited")
    (tree / "dir4/file00004").rename(tree / "dir5/renamed")
    stargz.pack(tree, tmp_path / "next")
    base, new = ((tmp_path / name).read_bytes() for name in ("first", "next"))
    _, patch, result = patch_of(base, new)
    assert result.sent < 100
    assert len(patch) < 1500
    stargz.delta(tmp_path / "first", tmp_path / "next", tmp_path / "patch")
    stargz.apply(tmp_path / "first", tmp_path / "patch", tmp_path / "made")
    assert (tmp_path / "made").read_bytes() == new


def test_everything_at_once() -> None:
    base, new = varied_tar(), layer(varied_tar(), chunk_size=1024, min_chunk_size=3000)
    for options in ({}, {"level": 2}, {"lossless": True}):
        patch_of(layer(base, **options), new)
        patch_of(new, layer(base, **options))


# --- wrong input ----------------------------------------------------------------------------


def test_new_lies_about_a_digest(tmp_path: Path) -> None:
    secret = b"what BASE has" * 30
    base = layer({"known": secret})
    lie = {"chunkDigest": handmade.digest(secret), "digest": handmade.digest(secret)}
    liar = handmade.blob([handmade.reg("liar", b"x" * len(secret), override=lie)])
    target = tmp_path / "patch"
    with pytest.raises(DigestError, match="liar"):
        stargz.delta(base, liar, target)
    with pytest.raises(DigestError, match="liar"):
        stargz.delta(liar, base, target)
    assert list(tmp_path.iterdir()) == []


def test_damaged(tmp_path: Path) -> None:
    blob = layer(files(5))
    for at in random.Random(5).sample(range(len(blob)), 40):
        bad = blob[:at] + bytes([blob[at] ^ 0x55]) + blob[at + 1 :]
        for pair in ((bad, blob), (blob, bad)):
            try:
                stargz.delta(*pair, tmp_path / "patch")
            except (FormatError, DigestError):
                assert list(tmp_path.iterdir()) == []
                continue
            # A change in a header of gzip or in the TOC's words: still a layer, and made exactly.
            made = patch_oracle.apply(pair[0], (tmp_path / "patch").read_bytes())
            assert made.data == pair[1]
            (tmp_path / "patch").unlink()
    for length in (0, 1, 46, 51, len(blob) // 2, len(blob) - 1):
        with pytest.raises(FormatError):
            stargz.delta(blob, blob[:length], tmp_path / "patch")
        with pytest.raises(FormatError):
            stargz.delta(blob[:length], blob, tmp_path / "patch")
    assert list(tmp_path.iterdir()) == []


def test_new_that_does_not_inflate(tmp_path: Path) -> None:
    blob = bytearray(layer({"a": noise("a", 5000)}))
    with stargz.open(bytes(blob)) as found:
        at = found.chunks("a")[0].offset + 200
    blob[at] ^= 1
    with pytest.raises((GzipError, DigestError)):
        stargz.delta(bytes(blob), bytes(blob), io.BytesIO())


def test_patch_is_one_of_the_inputs(tmp_path: Path) -> None:
    blob = layer({"a": b"a"})
    (tmp_path / "a").write_bytes(blob)
    (tmp_path / "b").write_bytes(blob)
    for target in ("a", "b"):
        with pytest.raises(UsageError, match="name another PATCH"):
            stargz.delta(tmp_path / "a", tmp_path / "b", tmp_path / target)
        message = fails(1, "delta", "a", "b", "-o", target, "--force", cwd=tmp_path)
        assert "name another PATCH" in message
    assert (tmp_path / "a").read_bytes() == blob


@pytest.mark.parametrize("threads", [0, 1025])
def test_threads(threads: int) -> None:
    with pytest.raises(UsageError, match="threads"):
        stargz.delta(layer({}), layer({}), io.BytesIO(), threads=threads)


def test_kinds_of_sources_and_sinks(tmp_path: Path) -> None:
    old = layer(files(9))
    new = layer(files(10))
    expected = io.BytesIO()
    stargz.delta(old, new, expected)
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    with stargz.open(old) as before:
        members = MemberList.from_layer(before)
    with (tmp_path / "members").open("wb") as file:
        members.write(file)
    calls: list[tuple[int, int]] = []
    for base in (members, tmp_path / "members", str(tmp_path / "old"), io.BytesIO(old)):
        with (tmp_path / "patch").open("wb", buffering=0) as sink:
            stargz.delta(
                base, tmp_path / "new", sink, progress=lambda *call: calls.append(call)
            )  # fmt: skip
        assert (tmp_path / "patch").read_bytes() == expected.getvalue()
    assert calls and all(0 <= done <= total for done, total in calls)


class Slow(io.RawIOBase):
    """Takes a few bytes at once."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data)[:1000]
        return min(len(data), 1000)


def test_pipes_and_raw_files(tmp_path: Path) -> None:
    old, new = layer({}), layer({"noise": noise("pipe", 300_000)})
    expected = io.BytesIO()
    stargz.delta(old, new, expected)
    assert len(expected.getvalue()) > 1 << 18  # more than a pipe holds
    slow = Slow()
    stargz.delta(old, new, slow)
    assert bytes(slow.taken) == expected.getvalue()
    os.mkfifo(tmp_path / "pipe")
    for buffering in (0, -1, None):
        got: list[bytes] = []
        reader = threading.Thread(
            target=lambda got=got: got.append((tmp_path / "pipe").read_bytes())
        )
        reader.start()
        if buffering is None:
            stargz.delta(old, new, tmp_path / "pipe")
        else:
            with (tmp_path / "pipe").open("wb", buffering=buffering) as sink:
                stargz.delta(old, new, sink)
                assert not sink.closed
        reader.join()
        assert got == [expected.getvalue()]
    assert (tmp_path / "pipe").is_fifo()


def test_remote(tmp_path: Path) -> None:
    old, new = layer(files(9)), layer(files(10))
    expected = io.BytesIO()
    stargz.delta(old, new, expected)
    out = io.BytesIO()
    stargz.delta(Faraway(old), Faraway(new), out)
    assert out.getvalue() == expected.getvalue()
    for broken in range(2):
        pair = [Faraway(old), Faraway(new)]
        with stargz.open(pair[0]) as before, stargz.open(pair[1]) as after:
            pair[broken].plan = refuse
            with pytest.raises(OSError, match="the line is dead"):
                stargz.delta(before, after, tmp_path / "patch")
    assert list(tmp_path.iterdir()) == []


def refuse(number: int, offset: int, size: int) -> bytes:
    raise OSError("the line is dead")


def test_closed_layer() -> None:
    blob = layer({"a": b"a"})
    found = stargz.open(blob)
    found.close()
    for pair in ((found, blob), (blob, found)):
        with pytest.raises(ValueError, match="closed"):
            stargz.delta(*pair, io.BytesIO())


def test_sink_that_fails() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        stargz.delta(layer({}), layer({"a": b"a"}), Full())


# --- the command ----------------------------------------------------------------------------


def test_command(tmp_path: Path, tool: Callable[[str], str]) -> None:
    old, new = layer(files(20)), layer({**files(20), "new": b"new"})
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    out = ok("delta", "old", "new", "-o", "patch", cwd=tmp_path)
    assert sha256(old) in out and sha256(new) in out and "% of NEW" in out
    patch = (tmp_path / "patch").read_bytes()
    assert patch_oracle.apply(old, patch).data == new
    assert "already exists" in fails(1, "delta", "old", "new", "-o", "patch", cwd=tmp_path)
    assert "/dev/full: " in fails(1, "delta", "old", "new", "-o", "/dev/full", cwd=tmp_path)
    done = run("delta", "old", "new", "-o", "-", "--json", cwd=tmp_path, text=False)
    assert (done.returncode, done.stdout) == (0, patch)
    result = json.loads(done.stderr)
    assert result["patch_size"] == len(patch) and result["new_digest"] == sha256(new)
    members = run("toc", "--members", "old", cwd=tmp_path, text=False).stdout
    (tmp_path / "members").write_bytes(members)
    for base, options in (
        ("members", {}),
        ("-", {"input": members}),
        ("-", {"input": old}),
    ):
        done = run("delta", base, "new", "-o", "-", cwd=tmp_path, text=False, **options)
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", patch)


def test_command_refuses(tmp_path: Path) -> None:
    blob = layer({"a": b"a"})
    (tmp_path / "new").write_bytes(blob)
    (tmp_path / "list").write_bytes(b'{"version": 1')
    (tmp_path / "folder").mkdir()
    assert "list: not a list of members" in fails(
        1, "delta", "list", "new", "-o", "p", cwd=tmp_path
    )
    assert "both" in fails(2, "delta", "-", "-", "-o", "p", cwd=tmp_path)
    assert "--output" in fails(2, "delta", "new", "new", cwd=tmp_path)
    assert "directory" in fails(1, "delta", "new", "new", "-o", "folder", cwd=tmp_path)
    wrong = "sha256:" + "0" * 64
    message = fails(
        3, "delta", "new", "new", "-o", "p", "--toc-digest-base", wrong, cwd=tmp_path
    )  # fmt: skip
    assert wrong in message
    with stargz.open(blob) as found, (tmp_path / "list").open("wb") as file:
        MemberList.from_layer(found).write(file)
    message = fails(
        1, "delta", "list", "new", "-o", "p", "--toc-digest-base", wrong, cwd=tmp_path
    )  # fmt: skip
    assert wrong in message
    assert not (tmp_path / "p").exists()
