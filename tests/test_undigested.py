"""Bytes that only a gzip member's CRC vouches for, however far behind them its trailer is.

Nothing gives them out, or ends well, before that CRC was right, unless verify=False was said."""

from __future__ import annotations

import errno
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blobs import Made, build, member, noise, tar_of, with_toc
from command import run
from faraway import Faraway
from mounts import cli_mount, needs_fuse

import stargz
from stargz._engine.chunks import Chunks
from stargz._engine.patch import walk
from stargz.errors import DigestError, GzipError

CONTENT = noise("content", 5000)
RUN = 9000  # headers behind the last chunk, in its member: 4.6 MB


def without_digests(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row.pop("digest", None)
        row.pop("chunkDigest", None)


def layer(edit: Callable[[list[dict[str, Any]]], Any] | None = None, **options: Any) -> Made:
    tar = tar_of([("a", noise("a", 700)), ("f", CONTENT)] + [("d", None)] * RUN)
    return build(tar, level=0, edit=edit, **options)


@dataclass(frozen=True)
class Case:
    """A layer, and what extracting it ends with when a bit of f's last chunk is wrong."""

    made: Made
    error: type[stargz.StargzError] = GzipError
    code: int = 1
    file_digest: bool = False  # it vouches for the whole file, but for no range of it


CASES = {
    "legacy": Case(layer(without_digests, kind="stargz")),
    "legacy, chunks": Case(layer(without_digests, kind="stargz", chunk_size=1024)),
    "no digests": Case(layer(without_digests)),
    "no digests, shared member": Case(layer(without_digests, pack=9, chunk_size=1024)),
    "whole files": Case(layer(kind="stargz", chunk_size=1024), DigestError, 3, file_digest=True),
}


def turned(made: Made, at: int) -> bytes:
    data = bytearray(made.data)
    data[at] ^= 8
    return bytes(data)


def wrong_chunk(made: Made) -> bytes:
    """Nothing is compressed: only the CRC tells that a byte of f's last chunk is another."""
    return turned(made, made.data.index(CONTENT[4800:4900]))


def wrong_trailer(made: Made) -> bytes:
    """The bytes are right, and the CRC behind the run of headers is another."""
    return turned(made, made.toc_offset - 8)


DAMAGE = {"chunk": wrong_chunk, "trailer": wrong_trailer}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(params=DAMAGE)
def damage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(case: Case, damage: str, tmp_path: Path) -> Path:
    path = tmp_path / "layer"
    path.write_bytes(DAMAGE[damage](case.made))
    return path


def fails(code: int, *args: object, says: str = "trailer says") -> None:
    done = run(*args)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert says in done.stderr


def test_what_is_right_is_read(case: Case, tmp_path: Path) -> None:
    with stargz.open(case.made.data) as layer:
        assert layer.read("f") == CONTENT
        assert layer.read("f", 4950, 10) == CONTENT[4950:4960]
        assert layer.verify().ok
        result = layer.extractall(tmp_path / "out")
    assert (tmp_path / "out/f").read_bytes() == CONTENT
    assert result.unverified == (0 if case.file_digest else 2)


@pytest.mark.parametrize("open_blob", [bytes, Faraway])
@pytest.mark.parametrize("ask", [(0, -1), (4096, -1), (4990, 5)])
def test_read(case: Case, damage: str, ask: tuple[int, int], open_blob: Any) -> None:
    with stargz.open(open_blob(DAMAGE[damage](case.made))) as layer:
        for _ in range(2):
            with pytest.raises(GzipError, match=r"f'?: .*CRC-32"):
                layer.read("f", *ask)
        with layer.open("f") as file, pytest.raises(GzipError):
            file.seek(ask[0])
            file.read()
    with stargz.open(open_blob(DAMAGE[damage](case.made)), verify=False) as layer:
        right = layer.read("f") == CONTENT
    assert right == (damage == "trailer")


def test_cat(path: Path) -> None:
    fails(1, "cat", path, "f")
    fails(1, "cat", "--json", path, "f")


@pytest.mark.parametrize("select", [[], ["f"]])
def test_extract(case: Case, damage: str, path: Path, tmp_path: Path, select: list[str]) -> None:
    if case.file_digest and damage == "trailer":  # something else vouches for the bytes
        assert run("extract", path, *select, "-C", tmp_path / "out").returncode == 0
        assert (tmp_path / "out/f").read_bytes() == CONTENT
        return
    says = "expected sha256:" if case.file_digest else "trailer says"
    fails(case.code, "extract", path, *select, "-C", tmp_path / "out", says=says)
    assert not (tmp_path / "out/f").exists()
    with stargz.open(path) as layer:
        for threads in (1, 4):
            with pytest.raises(case.error, match=r"[af]'?: "):
                layer.extractall(tmp_path / "again", threads=threads)
        layer.extractall(tmp_path / "unverified", verify=False)
    right = (tmp_path / "unverified/f").read_bytes() == CONTENT
    assert right == (damage == "trailer")


def test_verify(path: Path) -> None:
    done = run("verify", path)
    assert done.returncode == 3
    assert done.stdout.startswith("FAILED")
    assert "trailer says" in done.stderr


def test_mount(path: Path, tmp_path: Path) -> None:
    needs_fuse()
    with cli_mount(path, directory=tmp_path / "mnt") as directory:
        for _ in range(2):
            with (directory / "f").open("rb") as file:
                file.seek(4096)
                with pytest.raises(OSError, match="error") as caught:
                    file.read()
                assert caught.value.errno == errno.EIO


def test_members_and_patches(case: Case, path: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(case.made.data)
    fails(1, "toc", "--members", path)
    for pair in ((good, path), (path, good)):
        fails(1, "delta", *pair, "-o", tmp_path / "patch")
        assert not (tmp_path / "patch").exists()


@pytest.mark.parametrize("wrong", [False, True])
def test_what_follows_on_the_members_of_a_chunk(wrong: bool, tmp_path: Path) -> None:
    # The chunk's own member ends right behind its bytes. Another one that is damaged follows.
    before, good, after = member(b"a header"), bytearray(member(CONTENT)), bytearray(member(b"x"))
    after[-8] ^= 1
    good[-8] ^= wrong
    row = {"name": "f", "type": "reg", "size": 5000, "offset": len(before)}
    text = json.dumps({"version": 1, "entries": [row]}).encode()
    with stargz.open(with_toc(bytes(before + good + after), text)) as layer:
        assert not layer.verify().ok
        if wrong:
            with pytest.raises(GzipError, match="CRC"):
                layer.read("f")
            with pytest.raises(GzipError, match="CRC"):
                layer.extractall(tmp_path)
        else:
            assert layer.read("f") == CONTENT
            assert layer.extractall(tmp_path).unverified == 1
    assert (tmp_path / "f").exists() != wrong


# --- a member that goes on and on ---------------------------------------------------------------


def endless(size: int) -> bytes:
    """A layer without digests; `size` zeros follow on its only file in the file's member."""
    step = 1 << 20
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -15)
    first = squeeze.compress(CONTENT) + squeeze.flush(zlib.Z_FULL_FLUSH)
    zeros = squeeze.compress(bytes(step)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(CONTENT)
    for _ in range(size // step):
        crc = zlib.crc32(bytes(step), crc)
    trailer = crc.to_bytes(4, "little") + (5000 + size & 0xFFFFFFFF).to_bytes(4, "little")
    data = first + zeros * (size // step) + squeeze.flush() + trailer
    before = member(b"a header")
    text = json.dumps(
        {
            "version": 1,
            "entries": [{"name": "f", "type": "reg", "size": 5000, "offset": len(before)}],
        }
    ).encode()
    return with_toc(before + b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + data, text)


@pytest.mark.parametrize("mib, fine", [(1023, True), (1025, False)])
def test_a_trailer_too_far_away_to_look_at(mib: int, fine: bool, tmp_path: Path) -> None:
    with stargz.open(endless(mib << 20)) as layer:
        if fine:
            assert layer.read("f") == CONTENT
            assert layer.extractall(tmp_path).unverified == 1
            return
        with pytest.raises(GzipError, match="goes on for too long"):
            layer.read("f")
        with pytest.raises(GzipError, match="goes on for too long"):
            layer.extractall(tmp_path)
        assert not (tmp_path / "f").exists()
        layer.extractall(tmp_path, verify=False)
    assert (tmp_path / "f").read_bytes() == CONTENT


# --- members that end otherwise -----------------------------------------------------------------


def stored(data: bytes, last: bool = True) -> bytes:
    """Deflate blocks that are not compressed; without `last` none is the last one."""
    blocks = b""
    for at in range(0, len(data), 1000):
        piece = data[at : at + 1000]
        final = last and at + 1000 >= len(data)
        blocks += bytes([final]) + len(piece).to_bytes(2, "little")
        blocks += (len(piece) ^ 0xFFFF).to_bytes(2, "little") + piece
    return blocks


def trailer(data: bytes, wrong: int = 0) -> bytes:
    crc = zlib.crc32(data) ^ wrong
    return crc.to_bytes(4, "little") + len(data).to_bytes(4, "little")


HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
BEHIND = bytes(3000)
WHOLE = CONTENT + BEHIND
# The chunk's member, which is the blob's last, and whether it vouches for its bytes.
ENDS = {
    "stored": (HEAD + stored(WHOLE) + trailer(WHOLE), True),
    "stored, CRC": (HEAD + stored(WHOLE) + trailer(WHOLE, 1), False),
    "no trailer": (HEAD + stored(WHOLE), False),
    "half a trailer": (HEAD + stored(WHOLE) + trailer(WHOLE)[:4], False),
    "no last block": (HEAD + stored(WHOLE, last=False) + trailer(WHOLE), False),
    "no last block, no trailer": (HEAD + stored(WHOLE, last=False), False),
    "cut in a block behind": (HEAD + stored(WHOLE)[:-500], False),
    "exactly the chunk": (HEAD + stored(CONTENT) + trailer(CONTENT), True),
    "exactly the chunk, CRC": (HEAD + stored(CONTENT) + trailer(CONTENT, 1), False),
    "exactly the chunk, no trailer": (HEAD + stored(CONTENT), False),
    "length": (HEAD + stored(WHOLE) + trailer(WHOLE)[:4] + bytes(4), False),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("chunks", [1, 5])
@pytest.mark.parametrize("short", [0, 1500])
def test_ends_of_members(name: str, chunks: int, short: int, tmp_path: Path) -> None:
    """Also where the size in the TOC ends amid the member's bytes."""
    data, fine = ENDS[name]
    before = member(b"a header")
    content = CONTENT[: 5000 - short]
    step = -(-len(content) // chunks)
    rows = [
        {
            "name": "f",
            "type": "chunk" if at else "reg",
            "size": 0 if at else len(content),
            "offset": len(before),
            "innerOffset": at,
            "chunkOffset": at,
            "chunkSize": min(step, len(content) - at),
        }
        for at in range(0, len(content), step)
    ]
    rows.append({"name": "empty", "type": "reg"})
    text = json.dumps({"version": 1, "entries": rows}).encode()
    path = tmp_path / "layer"
    path.write_bytes(with_toc(before + data, text))
    outcomes: dict[str, object] = {}
    with stargz.open(path) as layer, stargz.open(Faraway(path.read_bytes())) as far:
        table = Chunks(0)
        table.add(layer.reader)

        def by_table() -> bytes:
            out = bytearray(len(content))
            table.read_into(0, layer._file("f"), 0, len(out), out)
            return bytes(out)

        def by_extraction() -> bytes:
            layer.extractall(tmp_path / "out", ["f"])
            return (tmp_path / "out/f").read_bytes()

        def by_members() -> bytes:
            walk(layer.blob, layer._rows, layer.data_end, layer._members_end(), 1)
            return content

        reads = [lambda: layer.read("f"), lambda: far.read("f"), lambda: layer.open("f").read()]
        for number, read in enumerate([*reads, by_table, by_extraction, by_members]):
            try:
                outcomes[str(number)] = read() == content
            except GzipError:
                outcomes[str(number)] = "refused"
        assert set(outcomes.values()) == {True if fine else "refused"}, outcomes
        assert layer.read("empty") == b""
        broken = [error for error in layer.verify().errors if "gzip" in error.message]
        assert bool(broken) == (not fine)
