"""Whoever reads a file of a damaged layer gets what the others get, or an error.

Blobs with and without digests are mutated: bits, members, entries of the TOC. Then, of each file:

- what `read` (and so `cat`) delivers, a file object, an extraction, the table of chunks (and so
  a mount) and a remote layer deliver too, the same bytes, in whatever pieces;
- `verify` knows of no digest that it does not match; where it finds nothing at all, all of
  them are delivered;
- where nothing but bits changed, it is what was packed.

More rounds: STARGZ_PROPERTY_ROUNDS=5000; one again: STARGZ_PROPERTY_SEED=17 with 1 round."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blobs
import pytest
from faraway import Faraway
from mounts import cli_mount, needs_fuse

import stargz
from stargz._engine.chunks import Chunks
from stargz.errors import StargzError
from stargz.layer import Layer

ROUNDS = int(os.environ.get("STARGZ_PROPERTY_ROUNDS", "120"))
SEED = int(os.environ.get("STARGZ_PROPERTY_SEED", "0"))
FILES = {
    "empty": b"",
    "one": b"1",
    "d/block": blobs.noise("block", 512),
    "d/zeros": bytes(5000),
    "d/text": b"some words, again and again\n" * 300,
    "d/noise": blobs.noise("noise", 7000),
    "large": blobs.noise("large", 3000) * 4,
    "last": blobs.noise("last", 700),
}
Rows = list[dict[str, Any]]


@dataclass
class Mutant:
    data: bytes
    only_damaged: bool  # nothing but bits changed


def strip(rng: random.Random) -> Callable[[Rows], None]:
    keys = rng.choice([(), (), ("chunkDigest",), ("digest", "chunkDigest"), ("digest",)])
    share = rng.choice([1.0, 1.0, 0.5])

    def edit(rows: Rows) -> None:
        for row in rows:
            if rng.random() < share:
                for key in keys:
                    row.pop(key, None)

    return edit


def original(rng: random.Random) -> blobs.Made:
    entries: list[tuple[str, bytes | None]] = [("d", None)]
    names = list(FILES)
    rng.shuffle(names)
    for name in names:
        entries.append((name, FILES[name]))
        entries += [(f"x{len(entries)}-{n}", None) for n in range(rng.choice([0, 0, 2, 30]))]
    return blobs.build(
        blobs.tar_of(entries),
        chunk_size=rng.choice([512, 3000, 1 << 20]),
        pack=rng.choice([1, 1, 3, 100]),
        kind=rng.choice(["estargz", "stargz"]),
        level=rng.choice([0, 1, 6]),
        edit=strip(rng),
    )


def split_member(rng: random.Random, data: bytearray, rows: Rows) -> None:
    """One member becomes several, with a CRC in each header: right, but not what writers make."""
    starts = sorted({row.get("offset", 0) for row in rows} | {len(data)})
    at = rng.randrange(len(starts) - 1)
    start, end = starts[at], starts[at + 1]
    content = blobs.inflated(bytes(data[start:end]))
    cuts = sorted(rng.randrange(len(content) + 1) for _ in range(rng.choice([1, 2, 9])))
    made = b""
    for low, high in itertools.pairwise([0, *cuts, len(content)]):
        head = b"\x1f\x8b\x08\x02\0\0\0\0\0\xff"
        head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
        made += head + blobs.member(content[low:high], rng.choice([0, 6]))[10:]
    data[start:end] = made
    for row in rows:
        if row.get("offset", 0) > start:
            row["offset"] += len(made) - (end - start)


# --- mutations ----------------------------------------------------------------------------------


def flip(rng: random.Random, data: bytearray, rows: Rows) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_at_an_end(rng: random.Random, data: bytearray, rows: Rows) -> None:
    """In a trailer, or in a header."""
    ends = sorted({row["offset"] for row in rows if "offset" in row} | {len(data)})
    at = rng.choice(ends) + rng.randrange(-8, 10)
    if 0 <= at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def lose(rng: random.Random, data: bytearray, rows: Rows) -> None:
    """Bytes become zeros: a hole, a lost page."""
    at = rng.randrange(len(data))
    size = min(rng.choice([1, 8, 100, 4096]), len(data) - at)
    data[at : at + size] = bytes(size)


def cut(rng: random.Random, data: bytearray, rows: Rows) -> None:
    del data[rng.randrange(len(data) // 2, len(data)) :]


def swap_members(rng: random.Random, data: bytearray, rows: Rows) -> None:
    """The TOC follows them, or does not."""
    starts = sorted({row["offset"] for row in rows if "offset" in row})
    if len(starts) < 3:
        return
    i = rng.randrange(len(starts) - 2)
    a, b, c = starts[i : i + 3]
    data[a:c] = data[b:c] + data[a:b]
    if rng.random() < 0.5:
        for row in rows:
            if row.get("offset") == a:
                row["offset"] = a + c - b
            elif row.get("offset") == b:
                row["offset"] = a


def edit_number(rng: random.Random, data: bytearray, rows: Rows) -> None:
    key = rng.choice(["offset", "innerOffset", "size", "chunkSize", "chunkOffset"])
    some = [row for row in rows if key in row]
    if not some:
        return
    row = rng.choice(some)
    change = rng.choice([-512, -1, 1, 512, 4096])
    row[key] = rng.choice([row[key] + change, rng.choice(some)[key], 0])


def edit_digest(rng: random.Random, data: bytearray, rows: Rows) -> None:
    key = rng.choice(["digest", "chunkDigest"])
    some = [row for row in rows if key in row]
    if not some:
        return
    row, other = rng.choice(some), rng.choice(some)
    if rng.random() < 0.5:
        del row[key]
    else:
        row[key], other[key] = other[key], row[key]


def edit_rows(rng: random.Random, data: bytearray, rows: Rows) -> None:
    at = rng.randrange(len(rows))
    if rng.random() < 0.5:
        del rows[at]
    else:
        rows.insert(rng.randrange(len(rows)), dict(rows[at]))


OF_BYTES = [flip, flip, flip_at_an_end, flip_at_an_end, lose, cut]
OF_THE_TOC = [edit_number, edit_number, edit_digest, edit_digest, edit_rows, swap_members]


def mutant(rng: random.Random) -> Mutant:
    made = original(rng)
    data = bytearray(made.data[: made.toc_offset])
    rows = json.loads(made.text)["entries"]
    kinds = rng.choice([OF_BYTES, OF_BYTES, OF_THE_TOC, OF_BYTES + OF_THE_TOC])
    chosen = [rng.choice(kinds) for _ in range(rng.choice([0, 1, 1, 1, 2, 3]))]
    if rng.random() < 0.3:
        split_member(rng, data, rows)
    for mutate in chosen:
        mutate(rng, data, rows)
    text = json.dumps({"version": 1, "entries": rows}).encode()
    kind = "stargz" if made.data.endswith(blobs.footer(made.toc_offset, "stargz")) else "estargz"
    return Mutant(
        blobs.with_toc(bytes(data), text, kind), all(mutate in OF_BYTES for mutate in chosen)
    )


# --- readers ------------------------------------------------------------------------------------


def attempt(read: Callable[[], bytes]) -> bytes | str:
    """What was read; or what the error says."""
    try:
        return read()
    except StargzError as error:
        return str(error)


def by_file(layer: Layer, name: str, step: int) -> bytes:
    with layer.open(name) as file:
        return b"".join(iter(lambda: file.read(step), b""))


def by_table(table: Chunks, layer: Layer, name: str, rng: random.Random) -> bytes:
    """Pages in any order, as a mount reads."""
    row = layer._file(name)
    size = layer.entry(name).size
    out = bytearray(size)
    step = rng.choice([512, 4096, 100_000])
    places = list(range(0, size, step))
    rng.shuffle(places)
    with memoryview(out) as view:
        for at in places:
            table.read_into(0, row, at, min(step, size - at), view[at : at + step])
    return bytes(out)


def by_extraction(layer: Layer, name: str, threads: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        layer.extractall(folder, [name], threads=threads)
        return (Path(folder) / name).read_bytes()


def check(seed: int) -> int:
    rng = random.Random(seed)
    made = mutant(rng)
    try:
        layer = stargz.open(made.data)
    except StargzError:
        return 0
    delivered = 0
    with layer, contextlib.ExitStack() as stack:
        names = [name for name in layer if layer.entry(name).type == "reg"]
        names = [name for name in names if layer.entry(name).size < 1 << 20]
        rng.shuffle(names)
        try:
            table = Chunks(rng.choice([0, 1 << 20]))
            table.add(layer.reader)
            far = stack.enter_context(stargz.open(Faraway(made.data), cache=False))
        except StargzError:
            for name in names:
                read = attempt(lambda name=name: layer.read(name))
                assert isinstance(read, str) or not read, name
            return 0
        verified = layer.verify()
        wrong = {e.name for e in verified.errors if "does not match its digest" in e.message}
        for name in names:
            first = attempt(lambda name=name: layer.read(name))
            others = {
                "again": attempt(lambda name=name: layer.read(name)),
                "file": attempt(lambda name=name: by_file(layer, name, rng.choice([100, 7000]))),
                "table": attempt(lambda name=name: by_table(table, layer, name, rng)),
                "far": attempt(lambda name=name: far.read(name)),
                "extract": attempt(lambda name=name: by_extraction(layer, name, 1)),
            }
            if isinstance(first, str):
                assert not verified.ok, (name, first)
                for how in ("again", "file", "far"):
                    assert isinstance(others[how], str), (name, how, first)
                continue
            delivered += 1
            for how, read in others.items():
                assert read == first, (name, how, read)
            # Where several chunks have a digest each, that of the file is not needed.
            if layer._rows.whole_digest(layer._file(name)) or len(layer.chunks(name)) < 2:
                assert name not in wrong, name
            if made.only_damaged:
                assert first == FILES[name], name
    return delivered


def test_readers_agree() -> None:
    delivered = 0
    for seed in range(SEED, SEED + ROUNDS):
        try:
            delivered += check(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert ROUNDS < 20 or delivered > 3 * ROUNDS  # it is not all refused


@pytest.mark.parametrize("seed", range(1000, 1004))
def test_a_mount_agrees(seed: int, tmp_path: Path) -> None:
    needs_fuse()
    while True:
        made = mutant(random.Random(seed))
        path = tmp_path / "layer"
        path.write_bytes(made.data)
        with contextlib.suppress(StargzError), stargz.open(made.data) as layer:
            layer.reader.undigested()
            break
        seed += 100
    with (
        stargz.open(path) as layer,
        cli_mount(path, directory=tmp_path / "mnt") as directory,
    ):
        for name in layer:
            if layer.entry(name).type != "reg" or layer.entry(name).size > 1 << 20:
                continue
            read = attempt(lambda name=name: layer.read(name))
            if isinstance(read, bytes):
                assert (directory / name).read_bytes() == read
