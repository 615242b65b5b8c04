"""Verification of layers in zstd:chunked: what is right, and all that can be wrong."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blobs import sha256
from chunked_layers import FORMATS, a_tar, add, convert, plain
from chunked_parts import Parts
from command import ok, run
from faraway import Faraway

import stargz
from stargz.ending import check_end
from stargz.errors import FooterError, FormatError
from stargz.footer import MAX_FOOTER_SIZE, parse_footer
from stargz.layer import VerifyResult
from stargz.sources import MemorySource

ROUNDS = int(os.environ.get("STARGZ_PROPERTY_ROUNDS", "400"))


def verify(blob: bytes, notes: dict[str, str] | None = None) -> VerifyResult:
    with stargz.open(blob, annotations=notes) as layer:
        return layer.verify()


def skippable(payload: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(payload)) + payload


# --- what is right --------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("options", [{}, {"format": tarfile.GNU_FORMAT}, {"behind": 3_000_000}])
def test_ours(format: str, options: dict[str, Any]) -> None:
    tar = a_tar(**options)
    blob, result = convert(tar, format, chunk_size=10_000)
    for notes in (result.annotations, None):
        found = verify(blob, notes)
        assert found.ok and not found.errors and not found.warnings
        assert (found.verified, found.diff_id) == (notes is not None, result.diff_id)
    assert (result.diff_id == sha256(tar)) == (format == "zstd:chunked")


def test_what_the_packages_of_go_made(data: Path) -> None:
    notes = json.loads((data / "containers_storage.json").read_text())
    for name, wanted in (("containers_storage.zst", notes), ("zstd_chunked.zst", None)):
        blob = (data / name).read_bytes()
        found = verify(blob, wanted)
        assert found and not found.warnings
        assert found.diff_id == sha256(plain(blob))
        if wanted:
            assert found.verified and found.diff_id == sha256((data / "tree.tar").read_bytes())


def test_from_far_away() -> None:
    blob, result = convert(a_tar(), "zstd:chunked")
    with stargz.open(Faraway(blob), annotations=result.annotations, cache=False) as layer:
        assert layer.verify().diff_id == result.diff_id


def test_the_command(tmp_path: Path) -> None:
    blob, result = convert(a_tar(), "zstd:chunked")
    (tmp_path / "layer.zst").write_bytes(blob)
    assert f"DiffID {result.diff_id}" in ok("verify", tmp_path / "layer.zst")
    found = json.loads(ok("verify", "--json", tmp_path / "layer.zst"))
    assert (found["ok"], found["diff_id"]) == (True, result.diff_id)
    (tmp_path / "layer.zst").write_bytes(bytes([*blob[:2000], blob[2000] ^ 1, *blob[2001:]]))
    done = run("verify", tmp_path / "layer.zst")
    assert done.returncode == 3 and "zstd frame" in done.stderr
    assert done.stdout.startswith("FAILED: ")


def test_many_entries() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(5000):
            add(tar, f"{number % 50}/{number:05d}", b"x" * (number % 3), mtime=number)
    blob, result = convert(out.getvalue(), "zstd:chunked")
    found = verify(blob, result.annotations)
    assert found.ok and found.files == 5000 and found.diff_id == result.diff_id


# --- TOC, tar-split, tar --------------------------------------------------------------------------


def shuffle(parts: Parts) -> None:
    """Entries without contents in another order, which containers/storage takes."""
    rows = parts.toc["entries"]
    bare = [entry for entry in rows if "offset" not in entry]
    for entry in bare:
        rows.remove(entry)
    rows[:0] = reversed(bare)


def line(parts: Parts, name: str) -> dict[str, Any]:
    return next(line for line in parts.split if line.get("name") == name)


def cut_segment(parts: Parts) -> None:
    """A header in two segments."""
    first = parts.split[0]
    data = base64.b64decode(first["payload"])
    pieces = [base64.b64encode(piece).decode() for piece in (data[:100], data[100:])]
    parts.split[:1] = [first | {"payload": piece} for piece in pieces]
    for number, row in enumerate(parts.split):
        row["position"] = number


CASES: dict[str, tuple[Callable[[Parts], object], str]] = {
    "type": (lambda p: p.entry("./f").update(type="block"), "type is block in the TOC, fifo"),
    "name": (lambda p: p.entry("./s").update(name="s"), "by this name"),
    "slash": (lambda p: p.entry("./d/").update(name="./d"), "by this name"),
    "link": (lambda p: p.entry("./s").update(linkName="d/b"), "its link is not the tar's"),
    "hard link": (lambda p: p.entry("./h").update(linkName="d/a"), "its link is not the tar's"),
    "mode": (lambda p: p.entry("./d/a").update(mode=0o600), "mode is 600 in the TOC, 644"),
    "type bits": (lambda p: p.entry("./noise").update(mode=0o100644), "100644 in the TOC"),
    "size": (lambda p: p.entry("./h").update(size=1), "size is 1 in the TOC, 0 in the tar"),
    "uid": (lambda p: p.entry("./d/a").update(uid=0), "owner is 0:6 in the TOC, 5:6"),
    "gid": (lambda p: p.entry("./d/a").pop("gid"), "owner is 5:0 in the TOC, 5:6"),
    "mtime": (lambda p: p.entry("./d/a").update(modtime="2023-11-14T22:13:20Z"), "modification"),
    "no mtime": (lambda p: p.entry("./d/a").pop("modtime"), "modification time"),
    "no such mtime": (lambda p: p.entry("./d/a").update(modtime="now"), "no time"),
    "atime": (lambda p: p.entry("./d/a").update(accesstime="2023-11-14T22:13:20Z"), "access time"),
    "no ctime": (lambda p: p.entry('./x "<é>').pop("changetime"), "change time"),
    "major": (lambda p: p.entry("./d/a").update(devMajor=1), "device is 1:0 in the TOC, 0:0"),
    "minor": (lambda p: p.entry("./c").update(devMinor=4), "device is 1:4 in the TOC, 1:3"),
    "xattr": (lambda p: p.entry('./x "<é>')["xattrs"].update({"user.k": "AAAA"}), "attributes"),
    "xattrs": (lambda p: p.entry('./x "<é>').pop("xattrs"), "extended attributes"),
    "user": (lambda p: p.entry("./s").update(userName="root"), "user or group name"),
    "digest": (lambda p: p.entry("./d/a").pop("digest"), "no digest"),
    "end": (lambda p: p.entry("./d/a").update(endOffset=p.entry("./d/a")["offset"]), "endOffset"),
    "less": (lambda p: p.toc["entries"].remove(p.entry("./s")), "by this name"),
    "more": (lambda p: p.toc["entries"].append({"type": "dir", "name": "new/"}), "not in the tar"),
    "twice": (lambda p: p.toc["entries"].append(p.entry("./s")), "path twice"),
    "cleaned": (
        lambda p: p.toc["entries"].append(p.entry("./s") | {"name": "s"}), "path twice",
    ),
    "swapped data": (
        lambda p: p.entry("./d/a").update(
            {key: p.entry("./neg")[key] for key in ("offset", "endOffset")}
        ),
        "before that of the entry|overlaps|not where the TOC says|is not",
    ),
    "position": (lambda p: p.split[3].update(position=4), "position 4 where 3 is next"),
    "line's type": (lambda p: p.split[0].update(type=3), "neither of a file nor of a segment"),
    "line's name": (lambda p: line(p, "./d/a").update(name="d/a"), "another name"),
    "line's size": (lambda p: line(p, "./d/a").update(size=5), "its size is 5, in the tar 6"),
    "line's sum": (lambda p: line(p, "./d/a").update(payload="AAAAAAAAAAA="), "its CRC-64 is"),
    "no sum": (lambda p: line(p, "./d/a").update(payload=None), "no CRC-64"),
    "no line": (lambda p: p.split.remove(line(p, "./d/a")), "position"),
    "no end": (lambda p: p.split.pop(), "ends before the tar"),
    "another end": (lambda p: p.split.append(p.split[-1] | {"position": len(p.split)}), "behind"),
    "two segments": (cut_segment, "more than one segment"),
}  # fmt: skip


@pytest.fixture(scope="module")
def base() -> tuple[bytes, dict[str, str]]:
    blob, result = convert(a_tar(), "zstd:chunked")
    return blob, result.annotations


@pytest.mark.parametrize("what", CASES)
def test_contradictions(base: tuple[bytes, dict[str, str]], what: str) -> None:
    change, told = CASES[what]
    parts = Parts.of(*base)
    change(parts)
    blob, notes = parts.layer()
    try:
        found = verify(blob, notes)
        messages = [error.message for error in found.errors]
    except FormatError as error:
        messages = [error.message]
    assert messages and re.search(told, messages[0]), messages
    assert len(messages) < 5


@pytest.mark.parametrize(
    "change",
    [
        shuffle,
        lambda p: p.entry("./d/zeros").update(modtime="1970-01-01T01:00:00+01:00"),
        lambda p: p.entry("./d/zeros").update(modtime="0001-01-01T00:00:00Z"),
        lambda p: p.entry("./d/zeros").pop("modtime"),
        lambda p: p.entry("./d/a").update(foo=[{}], ACCESSTIME=None),
        lambda p: [entry.pop("endOffset", None) for entry in p.toc["entries"]],
        lambda p: [entry.pop("chunkType", None) for entry in p.toc["entries"]],
        lambda p: line(p, "./d/empty").update(payload="AAAAAAAAAAA="),
    ],
)
def test_what_containers_storage_takes(
    base: tuple[bytes, dict[str, str]], change: Callable[[Parts], object]
) -> None:
    parts = Parts.of(*base)
    change(parts)
    found = verify(*parts.layer())
    assert found.ok and not found.warnings, found.errors


def test_a_tar_split_that_nothing_vouches_for(base: tuple[bytes, dict[str, str]]) -> None:
    parts = Parts.of(*base)
    del parts.toc["tarSplitDigest"]
    parts.split[3]["position"] = 9
    found = verify(*parts.layer())
    assert found.ok and "pull the layer as a whole" in found.warnings[0]


def test_a_tar_split_that_is_another(base: tuple[bytes, dict[str, str]]) -> None:
    parts = Parts.of(*base)
    blob, notes = parts.layer()
    at, size, _ = map(int, notes[next(key for key in notes if "tarsplit" in key)].split(":"))
    found = verify(blob[: at + size - 1] + bytes([blob[at + size - 1] ^ 1]) + blob[at + size :])
    assert "the tar-split" in found.errors[0].message and "sha256" in found.errors[0].message


# --- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("filler", [skippable(b"x"), bytes(16)])
@pytest.mark.parametrize("before", [True, False])
def test_what_stands_between_frames(
    base: tuple[bytes, dict[str, str]], filler: bytes, before: bool
) -> None:
    """Also where a file's data should be."""
    parts = Parts.of(*base)
    at = parts.entry("./noise")["offset"]
    parts.body = parts.body[:at] + filler + parts.body[at:]
    for entry in parts.toc["entries"]:
        for key in ("offset", "endOffset"):
            moved = entry.get(key, 0) >= at + (before and key == "offset")
            entry.update({key: entry[key] + len(filler)} if moved else {})
    found = verify(*parts.layer())
    assert "where a frame with bytes of the tar should be" in found.errors[0].message


def ends(
    blob: bytes, notes: dict[str, str]
) -> dict[str, tuple[bytes, dict[str, str] | None, str | None]]:
    """Ends that the blob could have, annotations with it, and what is told."""
    positions = [text for key, text in notes.items() if key.endswith("position")]
    (toc, packed), (split, split_packed) = (map(int, text.split(":")[:2]) for text in positions)
    tar, end = blob[: toc - 8], split + split_packed
    return {
        "nothing": (blob, None, None),
        "no footer": (blob[:end], notes, None),
        "only that of containers/storage": (blob[: end + 72], None, None),
        "only that of stargz-snapshotter": (blob[:end] + blob[-48:], None, None),
        "a frame more": (
            blob[:end] + skippable(b"what") + blob[end:], None,
            "warning: a skippable frame of 4 bytes stands at",
        ),
        "a frame of zstd": (
            blob[:end] + zstandard.compress(b"tar") + blob[end:], None, "other than skippable",
        ),
        "zeros": (blob[:end] + bytes(512) + blob[end:], None, "other than skippable frames"),
        "a footer that is none": (
            blob[:end] + skippable(bytes(64)) + blob[end:], None, "should be a footer is none",
        ),
        "many": (blob[:end] + skippable(b"") * 20 + blob[end:], None, "more than 16 skippable"),
        "cut off": (blob[: end - 8], notes, "does not end before|cut off"),
        "no tar-split": (
            blob[: toc + packed] + blob[-48:], None, "digest of a tar-split, and there is none",
        ),
        "a TOC apart": (
            tar + b"\0" + blob[toc - 7 :], None, "other than skippable frames|is no frame",
        ),
    }  # fmt: skip


ENDS = [
    "nothing", "no footer", "only that of containers/storage", "only that of stargz-snapshotter",
    "a frame more", "a frame of zstd", "zeros", "a footer that is none", "many", "cut off",
    "no tar-split", "a TOC apart",
]  # fmt: skip


@pytest.mark.parametrize("what", ENDS)
def test_ends(base: tuple[bytes, dict[str, str]], what: str) -> None:
    blob, notes, told = ends(*base)[what]
    try:
        found = verify(blob, notes)
    except FormatError as error:
        assert told and re.search(told, error.message)
        return
    if told is None:
        assert found.ok and not found.warnings and found.diff_id, found
    elif told.startswith("warning: "):
        assert found.ok and told.removeprefix("warning: ") in found.warnings[0]
    else:
        assert not found.ok and re.search(told, found.errors[0].message), found.errors


# --- flipped bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["ours for both", "ours", "containers/storage", "stargz"])
def test_flipped_bits(which: str, data: Path) -> None:
    """Any is found, but for the few that no decoder looks at: then all decodes to the same."""
    if which.startswith("ours"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            add(tar, "d/", type=tarfile.DIRTYPE)
            add(tar, "d/a", b"hello" * 100 + bytes(2000) + b"world")
            add(tar, "b", b"b")
        blob = convert(out.getvalue(), FORMATS[which == "ours"])[0]
    elif which == "stargz":
        blob = (data / "zstd_chunked.zst").read_bytes()
    else:
        blob = (data / "containers_storage.zst").read_bytes()
    right = verify(blob)
    with stargz.open(blob) as layer:
        digest = layer.toc_digest
    same = 0
    dice = random.Random(which)
    for _ in range(ROUNDS // 4):
        at, bit = dice.randrange(len(blob)), dice.randrange(8)
        changed = bytearray(blob)
        changed[at] ^= 1 << bit
        try:
            with stargz.open(bytes(changed), index=False) as layer:
                found = layer.verify()
                if not found.ok:
                    continue
                assert (found.diff_id, layer.toc_digest) == (right.diff_id, digest), (at, bit)
                same += 1
        except FormatError:
            continue
    assert same <= ROUNDS // 40


# --- footers --------------------------------------------------------------------------------------


def test_any_end(base: tuple[bytes, dict[str, str]]) -> None:
    """Whatever stands at a blob's end is a footer of frames that are inside, or an error."""
    blob, notes = base
    positions = [text for key, text in notes.items() if key.endswith("position")]
    toc = int(positions[0].split(":")[0])
    dice = random.Random(5)
    numbers = [*range(9), toc - 8, toc, toc + 1, len(blob), (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    for _ in range(ROUNDS):
        tail = bytearray(blob[toc - 8 :])
        for _ in range(dice.randrange(1, 4)):
            at = len(tail) - dice.choice((40, 112)) + 8 * dice.randrange(7)
            tail[at : at + 8] = struct.pack("<Q", dice.choice(numbers))
        tail = tail[: len(tail) - dice.choice((0, 0, 0, 1, 48, 72))]
        changed = blob[: toc - 8] + bytes(tail)
        try:
            footer = parse_footer(changed[-MAX_FOOTER_SIZE:], len(changed))
        except FooterError as error:
            assert error.message and "\n" not in error.message
            continue
        for position in (footer.toc, footer.split):
            if position is not None:
                assert 8 <= position.offset < position.offset + position.packed
                assert position.offset + position.packed <= len(changed) - footer.size
        assert 0 <= footer.data_end <= len(changed)
        found = check_end(MemorySource(changed, "it"), footer, "sha256:" + "0" * 64)
        assert all(0 <= at <= len(changed) for at, _ in found.problems)
