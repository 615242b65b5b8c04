"""Applying patches: every kind of operation, every kind of file, and that nothing is left."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import command
import patch_builder as pb
import pytest
from command import fails, ok
from descriptors import open_files

import stargz
from stargz.errors import CodecError, DigestError, PatchError, UsageError
from stargz.patching.applying import ApplyResult, apply
from stargz.patching.file import engine


def layer(files: dict[str, bytes], level: int = 1, format: str = "estargz") -> bytes:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    made = io.BytesIO()
    stargz.convert(tar.getvalue(), made, level=level, chunk_size=1 << 14, format=format)
    return made.getvalue()


def noise(seed: str, size: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


FILES = {f"dir/{n:03}": noise(f"f{n}", 300 * n) + b"text " * n for n in range(60)}
# One file anew, one grown, one gone, one renamed: members move, and some keep their contents
# while the headers behind them change.
CHANGED = {
    "aaa": b"new at the front" * 100,
    **{k: v for k, v in FILES.items() if k not in ("dir/020", "dir/030")},
    "dir/040": noise("other", 20000),
    "zzz": FILES["dir/030"],
}


@pytest.fixture(scope="module")
def pair() -> tuple[pb.Blob, pb.Blob]:
    return pb.Blob.of(layer(FILES)), pb.Blob.of(layer(CHANGED))


@pytest.fixture(scope="module")
def small(pair: tuple[pb.Blob, pb.Blob]) -> bytes:
    """A patch between the two with every kind of operation."""
    return pb.delta(*pair, 1, "isa-l")


@pytest.fixture
def place(tmp_path: Path, pair: tuple[pb.Blob, pb.Blob], small: bytes) -> Path:
    """A folder with base and patch."""
    (tmp_path / "base").write_bytes(pair[0].data)
    (tmp_path / "patch").write_bytes(small)
    return tmp_path


def applied(base: bytes, patch: bytes, **options: int) -> tuple[bytes, ApplyResult]:
    out = io.BytesIO()
    result = apply(io.BytesIO(base), io.BytesIO(patch), out, **options)
    return out.getvalue(), result


# --- operations ----------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_all_operations(pair: tuple[pb.Blob, pb.Blob], small: bytes, threads: int) -> None:
    base, new = pair
    out, result = applied(base.data, small, threads=threads)
    assert out == new.data
    assert result.digest == command.sha256(new.data)
    assert result.size == len(new.data)
    assert result.patch_size == len(small)
    assert result.copied > 0
    assert result.regenerated > 0
    assert result.received > 0
    assert result.copied + result.regenerated + result.received == result.size
    assert set(result.to_json()) == {
        *("digest", "size", "copied", "regenerated", "received", "patch_size", "seconds")
    }


@pytest.mark.parametrize("format", ["estargz", "stargz"])
@pytest.mark.parametrize("level", [1, 2, 6, 9])
def test_levels_and_formats(level: int, format: str) -> None:
    base = pb.Blob.of(layer(FILES, level, format))
    new = pb.Blob.of(layer(CHANGED, level, format))
    patch = pb.delta(base, new, level, engine(level))
    out, result = applied(base.data, patch)
    assert out == new.data
    assert len(patch) < len(new.data) / 4
    assert result.regenerated > len(new.data) - new.toc_offset


def test_nothing_in_common() -> None:
    base, new = b"base", b"\1" * 3_000_000
    assert applied(base, pb.patch(pb.Head(base, new), pb.data(new, deflated=True)))[0] == new


def test_empty_blobs() -> None:
    assert applied(b"", pb.patch(pb.Head(b"", b"")))[0] == b""
    assert applied(b"", pb.patch(pb.Head(b"", b"x"), pb.data(b"x")))[0] == b"x"


def test_large_copies_in_any_order() -> None:
    base = noise("large", 3 << 20)
    cuts = [(1 << 20, 2_000_001), (0, 1), (5, 262_144), (3 << 20, 0), (17, (3 << 20) - 17)]
    new = b"".join(base[at : at + size] for at, size in cuts)
    ops = pb.Ops()
    for at, size in cuts:
        ops.copy(at, size)
    assert applied(base, pb.patch(pb.Head(base, new), ops.frame()))[0] == new


def test_members_of_pieces(pair: tuple[pb.Blob, pb.Blob]) -> None:
    """Pieces of the patch and of BASE in any order, forwards and back, also across members."""
    base = pair[0]
    stream = b"".join(base.members.values())
    starts = {at: sum(map(len, list(base.members.values())[:n])) for n, at in
              enumerate(base.members)}  # fmt: skip
    third, last = list(base.members)[3], list(base.members)[-1]
    size = len(stream) - starts[third]
    pieces: list[bytes | tuple[int, int, int]] = [
        b"literal",
        (third, 10, 100),
        (third, 200, size - 200),
        (third, 0, 7),
        (last, 1, 3),
        b"",
        (0, 5, 0),
    ]
    content = b"literal" + stream[starts[third] + 10 :][:100] + stream[starts[third] + 200 :]
    content += stream[starts[third] :][:7] + stream[starts[last] + 1 :][:3]
    pieces.append(bytes(-len(content) % 512))
    content += bytes(-len(content) % 512)
    for level in (1, 2, 6):
        new = pb.compressed(content, level)
        head = pb.Head(base.data, new, level=level, engine=engine(level).encode()[:64])
        patch = pb.patch(head, pb.Ops().member(*pieces).frame())
        assert applied(base.data, patch)[0] == new


def test_toc_lines() -> None:
    """What is an offset line and what is not."""
    old = (
        b'{\n\t\t"offset": 5,\n"offset": 7\n \t "offset": 1234567890123456789,\n'
        b'"offset": 12345678901234567890\n"offset":9,\n"offset": 9 ,\nx"offset": 9,\n'
        b'"offset": ,\n"innerOffset": 4\n"offset": 9,,\n' + b"\t" * 600_000 + b'"offset": 11\n'
        + b"long" * 300_000 + b'\n  "offset": 13'
    )  # fmt: skip
    new = (
        b'{\n\t\t"offset": 105,\n"offset": 107\n \t "offset": 1234567890123456889,\n'
        b'"offset": 12345678901234567890\n"offset":9,\n"offset": 9 ,\nx"offset": 9,\n'
        b'"offset": ,\n"innerOffset": 4\n"offset": 9,,\n' + b"\t" * 600_000 + b'"offset": 111\n'
        + b"long" * 300_000 + b'\n  "offset": 113'
    )  # fmt: skip
    base, made = toc_only(old), toc_only(new)
    patch = toc_patch(base, made, pb.lines(0, old.count(b"\n") + 1, 100))
    assert applied(base, patch)[0] == made
    for frames in range(1, 4):  # no operation on them: the same as it stands
        patch = toc_patch(base, base, *[pb.lines(0, 1)] * frames, pb.lines(0, 14 - frames))
        assert applied(base, patch)[0] == base


def toc_only(text: bytes) -> bytes:
    from stargz._engine.patch import toc_members

    return toc_members(text, 0, 1, False)


def toc_patch(base: bytes, new: bytes, *operations: bytes) -> bytes:
    one, other = pb.Blob.of(base), pb.Blob.of(new)
    head = pb.Head(
        *(base, new),
        level=1,
        new_toc_offset=0,
        toc_json_size=len(other.json),
        base_toc_end=one.end,
        base_json_size=len(one.json),
    )
    return pb.patch(head, *(pb.frame(b"T", operation) for operation in operations))


# --- files ---------------------------------------------------------------------------------


def test_paths(place: Path, pair: tuple[pb.Blob, pb.Blob]) -> None:
    result = apply(place / "base", place / "patch", place / "new")
    assert (place / "new").read_bytes() == pair[1].data
    assert result.size == len(pair[1].data)
    assert sorted(p.name for p in place.iterdir()) == ["base", "new", "patch"]
    apply(str(place / "base"), place / "patch", place / "base")  # in place
    assert (place / "base").read_bytes() == pair[1].data


def test_files_objects_and_pipes(place: Path, pair: tuple[pb.Blob, pb.Blob]) -> None:
    """Also where they give and take less than they are asked for."""
    fifos = [place / name for name in ("base.pipe", "patch.pipe", "new.pipe")]
    for fifo in fifos:
        os.mkfifo(fifo)
    got: list[bytes] = []
    threads = [
        threading.Thread(target=fifos[0].write_bytes, args=(pair[0].data,)),
        threading.Thread(target=fifos[1].write_bytes, args=((place / "patch").read_bytes(),)),
        threading.Thread(target=lambda: got.append(fifos[2].read_bytes())),
    ]
    for thread in threads:
        thread.start()
    apply(*fifos)
    for thread in threads:
        thread.join()
    assert got == [pair[1].data]

    class Few(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def __init__(self, data: bytes) -> None:
            self.source = io.BytesIO(data)

        def read(self, size: int = -1, /) -> bytes:
            return self.source.read(min(size, 1000))

    out = io.BytesIO()
    with (place / "base").open("rb") as base:
        apply(base, Few((place / "patch").read_bytes()), out)
        assert not base.closed
    assert out.getvalue() == pair[1].data


def test_progress(place: Path, pair: tuple[pb.Blob, pb.Blob]) -> None:
    seen: list[tuple[int, int]] = []
    apply(place / "base", place / "patch", place / "new", progress=lambda *at: seen.append(at))
    total = len(pair[0].data) + len(pair[1].data)
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_a_failing_callback(place: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        apply(place / "base", place / "patch", place / "new", progress=stop)

    class Broken(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise OSError("no room")

        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("no bytes")

    for arguments in [
        (place / "base", Broken(), place / "new"),
        (place / "base", place / "patch", Broken()),
        (Broken(), place / "patch", place / "new"),
    ]:
        with pytest.raises(OSError, match=r"no room|no bytes"):
            apply(*arguments)  # type: ignore[arg-type]
    assert sorted(p.name for p in place.iterdir()) == ["base", "patch"]


def test_usage(place: Path) -> None:
    for arguments, why in [
        ((1, place / "patch", place / "new"), "a base is a path"),
        ((place / "base", 1, place / "new"), "a patch is a path"),
        ((place / "base", place / "patch", 1), "a destination is a path"),
        (("http://host/base", place / "patch", place / "new"), "download it first"),
        ((place / "base", "https://host/patch", place / "new"), "download it first"),
    ]:
        with pytest.raises(UsageError, match=why):
            apply(*arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="0 threads"):
        apply(place / "base", place / "patch", place / "new", threads=0)
    with pytest.raises(IsADirectoryError):
        apply(place, place / "patch", place / "new")
    with pytest.raises(FileNotFoundError):
        apply(place / "none", place / "patch", place / "new")


def test_another_engine(place: Path, pair: tuple[pb.Blob, pb.Blob]) -> None:
    """Refused before anything is written, also to a pipe."""
    for level, made_with in [(1, "isa-l 9"), (6, "libdeflate of another world")]:
        out = io.BytesIO()
        with pytest.raises(CodecError, match=f"made with {made_with} at level {level}"):
            apply(place / "base", io.BytesIO(pb.delta(*pair, level, made_with)), out)
        assert out.getvalue() == b""


# --- the command ---------------------------------------------------------------------------


def test_command(place: Path, pair: tuple[pb.Blob, pb.Blob]) -> None:
    said = ok("apply", place / "base", place / "patch", "-o", place / "new")
    assert command.sha256(pair[1].data) in said
    assert (place / "new").read_bytes() == pair[1].data
    assert "already exists" in fails(
        1, "apply", place / "base", place / "patch", "-o", place / "new"
    )
    assert "name another NEW" in fails(
        1, "apply", place / "base", place / "patch", "-o", place / "patch", "--force"
    )
    report = ok("apply", place / "base", place / "patch", "-o", place / "new", "--force", "--json")
    assert json.loads(report)["size"] == len(pair[1].data)


def test_command_and_pipes(place: Path, pair: tuple[pb.Blob, pb.Blob]) -> None:
    done = command.run(
        *("apply", place / "base", "-", "-o", "-", "--json"),
        input=(place / "patch").read_bytes(),
        text=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == pair[1].data
    assert json.loads(done.stderr)["digest"] == command.sha256(pair[1].data)


def test_between_processes(place: Path, pair: tuple[pb.Blob, pb.Blob]) -> None:
    """As with ssh in the middle."""
    (place / "made").write_bytes(pair[1].data)
    with (
        (place / "new").open("wb") as new,
        subprocess.Popen(
            command.command("delta", place / "base", place / "made", "-o", "-"),
            stdout=subprocess.PIPE,
            env=command.environment(),
        ) as maker,
        subprocess.Popen(
            command.command("apply", place / "base", "-", "-o", "-"),
            stdin=maker.stdout,
            stdout=new,
            env=command.environment(),
        ) as taker,
    ):
        assert maker.stdout is not None
        maker.stdout.close()
        assert taker.wait(timeout=60) == 0
        assert maker.wait(timeout=60) == 0
    assert (place / "new").read_bytes() == pair[1].data


def test_command_exit_codes(place: Path, pair: tuple[pb.Blob, pb.Blob], small: bytes) -> None:
    (place / "other").write_bytes(pair[1].data)
    (place / "flipped").write_bytes(pair[0].data[:-1] + b"\1")
    (place / "cut").write_bytes(small[:-1])
    wrong = pb.patch(pb.Head(pair[0].data, b"x" * 9), pb.data(b"y" * 9))
    (place / "wrong").write_bytes(wrong)
    for code, base, patch, why in [
        (3, "other", "patch", "not the blob the patch was made for"),
        (3, "flipped", "patch", "not the blob the patch was made for"),
        (3, "base", "wrong", "expected sha256"),
        (1, "base", "cut", "cut off"),
        (1, "base", "base", "not a patch"),
        (2, "-", "-", "both"),
    ]:
        paths = [name if name == "-" else place / name for name in (base, patch)]
        assert why in fails(code, "apply", *paths, "-o", place / "new")
        assert not (place / "new").exists()
    assert "NEW is needed" in fails(2, "apply", place / "base", place / "patch")


def test_killed_leaves_nothing(place: Path, small: bytes) -> None:
    """The patch does not end: it waits for more until it is killed."""
    for number in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(
            command.command("apply", place / "base", "-", "-o", place / "new"),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=command.environment(),
        ) as process:
            assert process.stdin is not None
            process.stdin.write(small[:-40])
            process.stdin.flush()
            wait_for(lambda: any("(deleted)" in str(path) for path in open_files(process.pid)))
            process.send_signal(number)
            assert process.wait(timeout=20) in (-number, 128 + number)
        assert sorted(p.name for p in place.iterdir()) == ["base", "patch"]


def wait_for(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_pipes_are_held_back(pair: tuple[pb.Blob, pb.Blob], small: bytes) -> None:
    """Everything before the TOC comes before the patch has ended; nothing of the TOC does."""
    seen: list[int] = []
    out = io.BytesIO()

    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(100)
            if not piece:
                wait_for(lambda: out.tell() == pair[1].toc_offset)
            seen.append(out.tell())
            return piece

    apply(io.BytesIO(pair[0].data), Source(small), out)
    assert out.getvalue() == pair[1].data
    assert seen[-1] == pair[1].toc_offset


def test_digest_of_new(pair: tuple[pb.Blob, pb.Blob], tmp_path: Path) -> None:
    """A patch that is whole, but about another NEW."""
    base, new = pair
    other = pb.Blob(new.data[:-1] + b"\1", new.toc_offset, new.legacy, new.json, new.members)
    patch = pb.delta(base, other, 1, "isa-l")
    out = io.BytesIO()
    with pytest.raises(DigestError, match="NEW") as caught:
        apply(io.BytesIO(base.data), io.BytesIO(patch), out)
    assert caught.value.expected == command.sha256(other.data)
    assert caught.value.actual == command.sha256(new.data)
    assert out.getvalue() == new.data[: new.toc_offset]
    with pytest.raises(DigestError):
        apply(io.BytesIO(base.data), io.BytesIO(patch), tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_the_last_bytes_wait_for_the_digest() -> None:
    """Also of a NEW whose TOC the head places at its end: no footer comes through."""
    new = noise("new", 3000)
    head = pb.Head(b"base", new, new_toc_offset=len(new))
    out = io.BytesIO()
    with pytest.raises(DigestError, match="NEW"):
        apply(io.BytesIO(b"base"), io.BytesIO(pb.patch(head, pb.data(new[:-1] + b"?"))), out)
    assert out.getvalue() == new[:-51]
    out = io.BytesIO()
    apply(io.BytesIO(b"base"), io.BytesIO(pb.patch(head, pb.data(new))), out)
    assert out.getvalue() == new


def test_a_signal_ends_the_wait_for_a_head(place: Path) -> None:
    with subprocess.Popen(
        command.command("apply", place / "base", "-", "-o", place / "new"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=command.environment(),
    ) as process:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


def test_not_a_patch(place: Path) -> None:
    with pytest.raises(PatchError, match="not a patch") as caught:
        apply(place / "base", place / "base", place / "new")
    assert caught.value.offset == 0
    assert caught.value.source == str(place / "base")
