"""Indexes that are wrong, and blobs that change under one: one clear error, and wrong bytes reach
neither a reader nor the cache."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import random
import time
from pathlib import Path
from typing import Any

import blobs
import ordinary
import pytest
from command import fails_here, here, ok_here
from faraway import Faraway

import stargz
from stargz.errors import DigestError, FormatError, IndexFileError, StargzError

TAR = ordinary.big_tar(300_000)
GZ = gzip.compress(TAR, 6)
SPAN = ordinary.SPAN


def made(data: bytes, **options: Any) -> bytes:
    out = io.BytesIO()
    stargz.index(data, out, **{"span_size": SPAN, **options})
    return out.getvalue()


GOOD = made(GZ)


def contents(layer: stargz.Layer) -> dict[str, bytes]:
    return {name: layer.read(name) for name in layer.toc.names("reg")}


with stargz.open(GZ, cache=False) as _layer:
    CONTENTS = contents(_layer)


def never_wrong(index: bytes, blob: bytes = GZ, right: dict[str, bytes] | None = CONTENTS) -> int:
    """How many files are read by an index that may be wrong: what is read is right, and all else
    one clear error."""
    try:
        layer = stargz.open(blob, index=index)
    except StargzError as error:
        assert "\n" not in str(error)
        return 0
    good = 0
    with layer:
        for name in layer.toc.names("reg"):
            try:
                data = layer.read(name)
            except (StargzError, KeyError) as error:
                assert "\n" not in str(error)
            else:
                assert right is None or data == right.get(name)
                good += 1
    return good


def same_size(tar: bytes, size: int) -> bytes:
    """A tar.gz of a tar, of just this many bytes: with a comment as long as it takes."""
    data = gzip.compress(tar, 6, mtime=0)
    room = size - len(data)
    assert room > 0
    return data[:3] + b"\x10" + data[4:10] + b"c" * (room - 1) + b"\0" + data[10:]


# --- of another blob ------------------------------------------------------------------------------


def test_an_index_of_another_blob_of_the_same_size(tmp_path: Path) -> None:
    other = blobs.tar_of([("d/text", b"other text\n" * 500), ("e", blobs.noise("e", 90_000))])
    blob = same_size(other, len(GZ))
    index = made(blob)
    for data, wrong in ((GZ, index), (blob, GOOD)):
        with stargz.open(data, index=wrong) as layer, pytest.raises(StargzError):
            layer.read("d/text")
    # Its digest says what it is, not of what.
    trusted = blobs.sha256(index)
    with (
        stargz.open(GZ, index=index, index_digest=trusted) as layer,
        pytest.raises((DigestError, FormatError)),
    ):
        layer.read("d/text")
    (tmp_path / "blob").write_bytes(GZ)
    (tmp_path / "index").write_bytes(index)
    done = here("verify", "--index", tmp_path / "index", tmp_path / "blob")
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert any("digest" in line for line in lines)
    assert any("e: is in the index, and not in the blob" in line for line in lines)
    assert all(line.startswith(f"stargz: {tmp_path / 'blob'}") for line in lines)


@pytest.mark.parametrize("field", ["name", "content", "mode", "order"])
def test_tars_that_differ_in_one_thing(field: str) -> None:
    """Same sizes, same places, stored: only a header or a content is another."""
    names = ["aaa", "bbb", "ccc"]
    entries = [(name, name.encode() * 2000) for name in names]
    tar = blobs.tar_of(entries, mode=0o644)
    changed = {
        "name": lambda: blobs.tar_of([("xxx", entries[0][1]), *entries[1:]]),
        "content": lambda: tar.replace(b"bbbbbbbbb", b"bbbbBbbbb"),
        "mode": lambda: blobs.tar_of(entries, mode=0o640),
        "order": lambda: blobs.tar_of([entries[1], entries[0], entries[2]]),
    }[field]()
    assert len(changed) == len(tar)
    right = {
        name: content
        for name, content in entries
        if not (field == "name" and name == "aaa") and not (field == "order" and name != "ccc")
    }
    if field == "content":
        del right["bbb"]
    if field == "mode":
        right = {}
    good = never_wrong(made(tar), changed, right)
    assert good == len(right)


# --- damaged --------------------------------------------------------------------------------------


def test_truncated_and_flipped() -> None:
    assert never_wrong(GOOD) == len(CONTENTS)
    rng = random.Random(1)
    for size in {0, 1, 7, 8, 12, 64, len(GOOD) - 1, *rng.sample(range(len(GOOD)), 20)}:
        with pytest.raises(IndexFileError):
            stargz.open(GZ, index=GOOD[:size])
    for at in {*range(0, 64), *rng.sample(range(len(GOOD)), 60)}:
        bad = bytearray(GOOD)
        bad[at] ^= 1 << rng.randrange(8)
        with pytest.raises(IndexFileError) as caught:
            stargz.open(GZ, index=bytes(bad))
        assert "\n" not in str(caught.value)
    with pytest.raises(IndexFileError):
        stargz.open(GZ, index=GOOD + b"\0")


def test_a_version_of_the_future() -> None:
    bad = GOOD[:8] + (99).to_bytes(4, "little") + GOOD[12:]
    with pytest.raises(IndexFileError, match=r"(?i)version.*99|99.*version"):
        stargz.open(GZ, index=bad)


def test_a_ztoc_that_is_damaged() -> None:
    out = io.BytesIO()
    stargz.index(GZ, out, format="soci", span_size=SPAN)
    good = out.getvalue()
    assert never_wrong(good) == len(CONTENTS)
    rng = random.Random(2)
    for _ in range(60):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        # Nothing in it vouches for the bytes before a span, so that a flip there goes unnoticed.
        never_wrong(bytes(bad), right=None)
    for size in rng.sample(range(len(good)), 20):
        never_wrong(good[:size])


# --- changes --------------------------------------------------------------------------------------


def test_a_blob_that_changes_under_its_index(tmp_path: Path) -> None:
    path = tmp_path / "any.tar.gz"
    path.write_bytes(GZ)
    stargz.index(path)
    later = time.time() + 1000  # an older one is not used at all
    os.utime(path.with_name("any.tar.gz.index"), (later, later))
    other = TAR.replace(b"line 7 of", b"LINE 7 OF")
    blob = gzip.compress(other, 6, mtime=0)
    blob = same_size(other, len(GZ)) if len(blob) < len(GZ) else blob[: len(GZ)]
    path.write_bytes(blob)
    text = fails_here(3, "cat", path, "d/text")
    assert "digest" in text or "any.tar.gz" in text
    path.write_bytes(GZ + b"more")
    done = here("cat", path, "d/small1")
    assert done.stdout.startswith("1 ") and "of a blob of" in done.stderr


def test_a_blob_that_is_written_to_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "any.tar"
    path.write_bytes(TAR)
    with stargz.open(path) as layer:
        with path.open("r+b") as file:
            file.seek(TAR.index(b"line 7 of some text"))
            file.write(b"LINE")
        with pytest.raises(DigestError):
            layer.read("d/large")
        assert layer.read("d/small3").startswith(b"3 ")
        assert not layer.verify().ok
        path.write_bytes(b"short")
        assert not layer.verify().ok


def test_a_far_blob_that_gives_other_bytes(user_cache: Path) -> None:
    far = Faraway(GZ)
    with stargz.open(far, index=GOOD, cache=user_cache) as layer:
        far.plan = lambda number, offset, size: bytes(size)
        with pytest.raises(StargzError):
            layer.read("d/text")
        far.plan = None
        found = b""
        for _ in range(20):  # requests that were under way may fail once more
            with contextlib.suppress(StargzError):
                found = layer.read("d/text")
                break
        assert found == CONTENTS["d/text"]


def test_a_blob_that_changes_during_the_pass(tmp_path: Path) -> None:
    path = tmp_path / "any.tar.gz"
    big = gzip.compress(ordinary.big_tar(8 << 20), 1)
    path.write_bytes(big)
    touched = []

    def progress(done: int, total: int) -> None:
        if not touched:
            touched.append(path.write_bytes(big))

    with pytest.raises((StargzError, OSError), match=r"changed|truncated|corrupt"):
        stargz.open(path, progress=progress).close()
    assert touched


# --- verify ---------------------------------------------------------------------------------------


def test_verify_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "any.tar.gz"
    path.write_bytes(GZ)
    value = json.loads(ok_here("verify", "--json", path))
    assert value["ok"] and value["verified"] and value["bytes"] == len(TAR)
    assert value["files"] == len(CONTENTS) and value["chunks"] >= len(CONTENTS)
    index = tmp_path / "i"
    index.write_bytes(GOOD)
    value = json.loads(ok_here("verify", "--json", "--index", index, path))
    assert value["ok"] and not value["verified"]
    # The blob is damaged: what can be read of it is not all.
    bad = bytearray(GZ)
    bad[len(bad) // 2] ^= 0xFF
    path.write_bytes(bytes(bad))
    done = here("verify", "--index", index, "--json", path)
    assert done.returncode == 3
    assert not json.loads(done.stdout)["ok"]
    # Another tree, of the same names.
    path.write_bytes(TAR.replace(b"line 7 of", b"LINE 7 OF"))
    index.write_bytes(made(TAR))
    done = here("verify", "--index", index, path)
    assert done.returncode == 3
    for name in ("d/text", "d/large"):
        assert any(f"{name}: " in line for line in done.stderr.splitlines())
    assert not any("d/small1:" in line for line in done.stderr.splitlines())
    with stargz.open(path, index=index) as layer:
        result = layer.verify()
        assert not result and result.error_count >= 2


# --- pickles --------------------------------------------------------------------------------------


def test_pickles_carry_the_index(tmp_path: Path, user_cache: Path) -> None:
    path, index = tmp_path / "any.tar.gz", tmp_path / "i"
    path.write_bytes(GZ)
    index.write_bytes(GOOD)
    digest = blobs.sha256(GOOD)
    for options, trusted in (
        ({}, True),
        ({"index": index}, False),
        ({"index": GOOD}, False),
        ({"index": index, "index_digest": digest}, True),
        ({"index": index, "index_digest": digest, "require_verified": True}, True),
    ):
        with (
            stargz.open(path, progress=print, **options) as layer,
            pickle.loads(pickle.dumps(layer)) as other,
        ):
            assert other.kind == "indexed"
            assert other.toc_digest == layer.toc_digest
            assert other.verified == layer.verified == trusted
            assert contents(other) == CONTENTS
            assert other.index.span_size == layer.index.span_size
    with stargz.open(path, index=index) as layer:
        data = pickle.dumps(layer)
        index.write_bytes(made(gzip.compress(blobs.varied_tar())))
        with pytest.raises(StargzError):
            pickle.loads(data)
