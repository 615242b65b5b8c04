"""DiffIDs: against hashlib, whatever the tar is wrapped in and however it arrives."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blobs import inflated, noise, sha256, varied_tar

import stargz
from stargz._engine.write import unwrap
from stargz.conversion import diff_id
from stargz.errors import GzipError, TarError, UsageError

TAR = varied_tar() + noise("tail", 700_000) + bytes(10_240)
EXPECTED = sha256(TAR), len(TAR)
MEMBERS = b"".join(gzip.compress(TAR[at : at + 65_537], 1) for at in range(0, len(TAR), 65_537))
FRAMES = b"".join(zstandard.compress(TAR[at : at + 99_999]) for at in range(0, len(TAR), 99_999))
WRAPPED = {"plain": TAR, "gzip": gzip.compress(TAR), "members": MEMBERS, "zstd": FRAMES}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrappings(wrap: str, tmp_path: Path) -> None:
    data = WRAPPED[wrap]
    path = tmp_path / "layer"
    path.write_bytes(data)
    seen: list[tuple[int, int]] = []
    assert diff_id(data) == EXPECTED
    assert diff_id(path, progress=lambda *at: seen.append(at)) == EXPECTED
    assert seen[-1] == (len(data), len(data))
    with path.open("rb") as file:
        assert diff_id(file) == EXPECTED
        assert diff_id(file) == ("sha256:" + hashlib.sha256().hexdigest(), 0)  # it is at its end


def test_goldens(goldens: list[dict[str, Any]], data: Path) -> None:
    for golden in goldens:
        blob = data / golden["blob"]
        found, size = diff_id(blob)
        assert found == golden["diff_id"], golden["name"]
        if golden["kind"] == "gzip":
            assert size == len(inflated(blob.read_bytes()))


def test_what_a_conversion_says(tmp_path: Path) -> None:
    out = io.BytesIO()
    result = stargz.convert(gzip.compress(varied_tar()), out)
    assert diff_id(out.getvalue()) == (result.diff_id, result.uncompressed_size)


def test_small_inputs() -> None:
    for data in (b"", b"\x1f", b"abc", bytes(512)):
        assert diff_id(data) == (sha256(data), len(data))
    assert diff_id(gzip.compress(b"")) == (sha256(b""), 0)


def test_readers_of_any_step() -> None:
    rest = io.BytesIO(MEMBERS)

    class Slow:
        name = "slow"

        def read(self, size: int) -> bytes:
            return rest.read(min(size, 7001))

    assert diff_id(Slow()) == EXPECTED  # type: ignore[arg-type]


def test_a_pipe_and_a_signal() -> None:
    """A signal while the input is silent is seen at once, and does no harm to what follows."""
    out, into = os.pipe()
    seen: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))

    def feed() -> None:
        with os.fdopen(into, "wb") as pipe:
            pipe.write(MEMBERS[:5])
            pipe.flush()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            pipe.write(MEMBERS[5:])

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with os.fdopen(out, "rb", buffering=0) as file:
            assert diff_id(file) == EXPECTED
    finally:
        feeder.join()
        signal.signal(signal.SIGUSR1, old)
    assert seen == [1]


@pytest.mark.parametrize("wrap", ["gzip", "members", "zstd"])
def test_truncated(wrap: str, tmp_path: Path) -> None:
    data = WRAPPED[wrap]
    path = tmp_path / "layer"
    path.write_bytes(data[:-3])
    with pytest.raises(GzipError, match="truncated") as caught:
        diff_id(path)
    assert caught.value.source == str(path) and caught.value.offset == len(data) - 3


def test_corrupt() -> None:
    for at in range(2, len(MEMBERS), len(MEMBERS) // 40):  # behind what makes it gzip
        damaged = bytearray(MEMBERS)
        damaged[at] ^= 0x10
        try:
            found = diff_id(bytes(damaged))
        except GzipError as error:
            assert error.offset is not None and error.source == "input"
        else:
            assert found == EXPECTED  # a bit of a header that means nothing
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(TAR)
    with pytest.raises(GzipError, match="zstd"):
        diff_id(checked[:1000] + b"\xff" + checked[1001:])


def test_trailing_garbage_is_ignored_as_by_convert() -> None:
    assert diff_id(MEMBERS + b"garbage") == EXPECTED
    assert diff_id(MEMBERS + bytes(1000)) == EXPECTED


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(TarError, match="xz"):
        diff_id(b"\xfd7zXZ\0 and so on")
    with pytest.raises(FileNotFoundError):
        diff_id(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        diff_id(tmp_path)
    with pytest.raises(UsageError, match="a source is"):
        diff_id(7)  # type: ignore[arg-type]


def test_exceptions_of_callbacks() -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        diff_id(Broken())  # type: ignore[arg-type]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diff_id(TAR, progress=stop)


def test_a_copy(tmp_path: Path) -> None:
    with (tmp_path / "tar").open("wb") as file:
        found = unwrap(io.BytesIO(MEMBERS).read, file.fileno(), source_name="members")
    assert found == EXPECTED
    assert (tmp_path / "tar").read_bytes() == TAR


def test_a_full_disk() -> None:
    with Path("/dev/full").open("wb") as full, pytest.raises(OSError, match="temporary copy"):
        unwrap(io.BytesIO(MEMBERS).read, full.fileno(), source_name="members")
