"""A tree packed again after a small change, and only the difference sent: against packing and
sending all of it, and against other ways to find and send a difference.

Everything is on tmpfs and in the page cache; no side waits for a disk. The commands of the peers
are in stargz/benchmark/deltas.py, the trees in `trees.py`.
"""

from __future__ import annotations

import filecmp
import hashlib
import shutil
import statistics
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import trees
from stargz.benchmark import deltas, peers
from stargz.benchmark.measuring import clock
from stargz.benchmark.trees import SETTLED, memory

ROUNDS = 5
PEER_ROUNDS = 3
_BLOCK = 1 << 20


@dataclass
class State:
    """A tree in its second state, the layers of both, and the patch between them."""

    name: str
    folder: Path
    pair: trees.Pair
    old: Path
    old_alone: Path  # packed without its DiffID
    new: Path
    patch: Path


@pytest.fixture(scope="module", params=["debian", "small"])
def state(request: Any) -> Iterator[State]:
    with tempfile.TemporaryDirectory(dir=memory(), prefix="stargz-bench-") as temporary:
        folder = Path(temporary)
        pair = trees.make(request.param, folder)
        time.sleep(SETTLED)
        made = [folder / name for name in ("old", "old-alone", "new")]
        stargz.pack(pair.tree, made[0])
        stargz.pack(pair.tree, made[1], diff_id=False)
        pair.edit()
        time.sleep(SETTLED)
        stargz.pack(pair.tree, made[2])
        patch = folder / "patch"
        stargz.delta(made[0], made[2], patch)
        yield State(request.param, folder, pair, *made, patch)


def test_pack(state: State, compare: Any) -> None:
    tree, out, whole = state.pair.tree, state.folder / "out", state.folder / "whole"
    seconds = compare.medians(
        lambda: stargz.pack(tree, out, base=state.old),
        {
            "whole": lambda: stargz.pack(tree, whole),
            "alone": lambda: stargz.pack(
                tree, state.folder / "alone", base=state.old_alone, diff_id=False
            ),
            "whole alone": lambda: stargz.pack(tree, state.folder / "alone", diff_id=False),
        },
        rounds=ROUNDS,
    )
    assert filecmp.cmp(out, whole, shallow=False)
    name = f"pack {state.name}"
    compare.figure(f"{name}: seconds", seconds["whole"])
    compare.figure(f"{name} --no-diff-id: seconds", seconds["whole alone"])
    compare.figure(f"{name} --base: seconds", seconds["ours"])
    compare.figure(
        f"{name} --base: times the speed without", seconds["whole"] / seconds["ours"], ">= 2.5"
    )
    compare.figure(f"{name} --base --no-diff-id: seconds", seconds["alone"])
    compare.figure(
        f"{name} --base --no-diff-id: times the speed without both",
        seconds["whole"] / seconds["alone"],
        ">= 8",
    )


def test_what_units_cost(state: State, compare: Any) -> None:
    """Members of their own for headers, against the same tree's tar converted: with the same names,
    and no names of owners either."""
    tar, converted = state.folder / "tar", state.folder / "converted"
    tree = state.pair.tree
    names = sorted(path.name for path in tree.iterdir())
    options = ["--sort=name", "--numeric-owner"]
    subprocess.run(["tar", "-C", tree, *options, "-cf", tar, *names], check=True)
    compare.benchmark.pedantic(lambda: stargz.convert(tar, converted), rounds=1)
    sizes = state.new.stat().st_size, converted.stat().st_size
    compare.figure(f"pack {state.name}: MB", sizes[0] / 1e6)
    compare.figure(
        f"pack {state.name}: % larger than convert makes its tar", 100 * (sizes[0] / sizes[1] - 1)
    )
    tar.unlink()
    converted.unlink()


def compressed(layer: stargz.Layer, name: str) -> int:
    """Bytes of the members that hold a file, exactly."""
    total = 0
    for chunk in layer.chunks(name):
        member = zlib.decompressobj(31)
        end = chunk.offset
        while not member.eof:
            piece = layer.source.read_at(end, min(_BLOCK, layer.size - end))
            member.decompress(piece)
            end += len(piece) - len(member.unused_data)
        total += end - chunk.offset
    return total


def test_patch_size(state: State, compare: Any) -> None:
    difference = stargz.diff(state.old, state.new)
    with stargz.open(state.new) as layer:
        names = [*difference.added, *(change.name for change in difference.changed)]
        sent = sum(compressed(layer, name) for name in names if layer.entry(name).is_file())
    unchanged = difference.totals.unchanged_files
    compare.benchmark.pedantic(
        lambda: stargz.delta(state.old, state.new, state.folder / "again"), rounds=ROUNDS
    )
    assert filecmp.cmp(state.patch, state.folder / "again", shallow=False)
    size = state.patch.stat().st_size
    compare.figure(f"patch {state.name}: kB", size / 1e3)
    compare.figure(f"patch {state.name}: changed files compressed, kB", sent / 1e3)
    compare.figure(
        f"patch {state.name}: size over 1.1 x that and 60 bytes an unchanged file",
        size / (1.1 * sent + 60 * unchanged),
        "<= 1",
    )
    compare.figure(
        f"patch {state.name}: bytes over what diff foretells",
        size / difference.totals.bytes_to_send,
    )


def copy_and_hash(src: Path, dst: Path) -> None:
    """As `apply` may: read, hash, write. (fsync costs nothing on tmpfs.)"""
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with src.open("rb", buffering=0) as source, dst.open("wb", buffering=0) as out:
        while count := source.readinto(block):
            digest.update(block[:count])
            out.write(block[:count])


def test_apply(state: State, compare: Any) -> None:
    out = state.folder / "applied"
    seconds = compare.medians(
        lambda: stargz.apply(state.old, state.patch, out),
        {"copy": lambda: copy_and_hash(state.new, state.folder / "copy")},
        rounds=2 * ROUNDS,
        between=lambda: [path.unlink(missing_ok=True) for path in (out, state.folder / "copy")],
    )
    compare.figure(f"apply {state.name}: seconds", seconds["ours"])
    compare.figure(
        f"apply {state.name}: speed over copying and hashing the blob",
        seconds["copy"] / seconds["ours"],
        ">= 0.5",
    )
    stargz.apply(state.old, state.patch, out)
    assert filecmp.cmp(out, state.new, shallow=False)


# --- peers -----------------------------------------------------------------------------------


@dataclass
class Way:
    """One way to send a tree: what makes the bytes, what uses them, and which file they are."""

    name: str
    tool: str
    make: Callable[[], object]
    sent: Path
    apply: Callable[[], object] | None = None
    before_apply: Callable[[], object] = lambda: None
    check: tuple[Path, Path] | None = None  # what apply makes, and what it is to be


def ways(state: State) -> list[Way]:
    folder, tree, first = state.folder, state.pair.tree, state.pair.first
    old_tar, new_tar, made = folder / "old.tar", folder / "new.tar", folder / "made"
    copy = folder / "first-copy"
    deltas.tar(first, old_tar)
    again = folder / "again"

    def ours(*, diff_id: bool) -> None:
        base = state.old if diff_id else state.old_alone
        stargz.pack(tree, again, base=base, diff_id=diff_id)
        stargz.delta(state.old, again, folder / "sent")

    def fresh_copy() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-a", first, copy], check=True)

    def tarred(patch: Callable[[Path, Path, Path], None]) -> Callable[[], None]:
        def run() -> None:
            deltas.tar(tree, new_tar)
            patch(old_tar, new_tar, folder / "sent")

        return run

    def from_tar(apply: Callable[[Path, Path, Path], None]) -> Callable[[], None]:
        return lambda: apply(old_tar, folder / "sent", made)

    def from_layer(apply: Callable[[Path, Path, Path], None]) -> Callable[[], None]:
        return lambda: apply(state.old, folder / "sent", made)

    sent = folder / "sent"
    own_apply = from_layer(lambda old, patch, new: stargz.apply(old, patch, new))
    layers, tars = (made, state.new), (made, new_tar)
    zstd, unzstd = deltas.zstd_patch, deltas.zstd_apply
    xdelta, unxdelta = deltas.xdelta_patch, deltas.xdelta_apply

    def between_layers(patch: Callable[[Path, Path, Path], object]) -> Callable[[], object]:
        return lambda: patch(state.old, state.new, sent)

    def packed(*words: str) -> Callable[[], None]:
        return lambda: deltas.tar_packed(tree, sent, list(words))

    def nothing() -> None:
        pass

    return [
        Way("**pack --base, delta; apply**", "", lambda: ours(diff_id=True), sent, own_apply,
            nothing, layers),
        Way("**the same, --no-diff-id**", "", lambda: ours(diff_id=False), sent, own_apply,
            nothing, layers),
        Way("tar, gzip -6", "gzip", packed("gzip", "-6", "-n"), sent),
        Way("tar, igzip -1", "igzip", packed("igzip", "-1"), sent),
        Way("rsync --only-write-batch", "rsync",
            lambda: deltas.rsync_batch(tree, first, sent), sent,
            lambda: deltas.rsync_apply(sent, copy), fresh_copy),
        Way("tar, zstd --patch-from", "zstd", tarred(zstd), sent, from_tar(unzstd), nothing, tars),
        Way("tar, xdelta3", "xdelta3", tarred(xdelta), sent, from_tar(unxdelta), nothing, tars),
        Way("**delta; apply** (of the two layers)", "", between_layers(stargz.delta), sent,
            own_apply, nothing, layers),
        Way("zstd --patch-from, of the two layers", "zstd", between_layers(zstd), sent,
            from_layer(unzstd), nothing, layers),
        Way("xdelta3, of the two layers", "xdelta3", between_layers(xdelta), sent,
            from_layer(unxdelta), nothing, layers),
    ]  # fmt: skip


def test_peers(state: State, compare: Any) -> None:
    """One table of all: seconds to make what is sent, its bytes, seconds to use it."""
    found = ways(state)
    there = [way for way in found if not way.tool or shutil.which(way.tool)]
    makes: dict[str, list[float]] = {way.name: [] for way in there}
    applies: dict[str, list[float]] = {way.name: [] for way in there}
    sizes: dict[str, int] = {}

    def run() -> None:
        for way in there:
            way.sent.unlink(missing_ok=True)
            makes[way.name].append(clock(way.make))
            sizes[way.name] = way.sent.stat().st_size
            if way.apply is not None:
                way.before_apply()
                applies[way.name].append(clock(way.apply))
            if way.check is not None:
                assert filecmp.cmp(*way.check, shallow=False), way.name

    run()  # the page cache, and a check of each
    for times in (*makes.values(), *applies.values()):
        times.clear()
    compare.benchmark.pedantic(run, rounds=PEER_ROUNDS)
    rows = []
    for way in found:
        if way.name not in makes:
            package = peers.PEERS[way.tool].get
            rows.append([way.name, f"not installed ({package})", "", ""])
            continue
        applied = f"{statistics.median(applies[way.name]):.2f}" if way.apply else ""
        made = f"{statistics.median(makes[way.name]):.2f}"
        rows.append([way.name, made, f"{sizes[way.name]:,}", applied])
    title = f"{state.name}: what the other side lacks"
    compare.table(title, ["way", "make it: s", "bytes", "use it: s"], rows)
