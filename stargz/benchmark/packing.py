"""A directory: packed, packed again after a small change, and only the change sent."""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stargz.benchmark import children, deltas, peers, tally, trees
from stargz.benchmark.inputs import Input
from stargz.benchmark.kinds import Measurement
from stargz.benchmark.measuring import Cell, Run, WrongError
from stargz.benchmark.tally import Tally

Patch = Callable[[Path, Path, Path], object]


def pack(given: Input, quick: bool) -> Iterator[Cell]:
    """The directory after its change: all of it, and by what its layer before has."""
    from stargz.packing import pack as run

    second = given.second
    folder = given.folder

    def layer(path: Path) -> None:
        from stargz.opening import open as open_layer

        with open_layer(path) as opened:
            if not opened.verify().ok:
                raise WrongError("wrong: the layer does not verify")
            second.truth.check(tally.of_layer(opened, Tally()))

    def cell(name: str, out: Path, make: Run, check: Callable[[Path], object], note: str) -> Cell:
        return Cell(
            name, make, lambda _: check(out), made=out, note=note,
            ours=name.startswith("stargz"),
        )  # fmt: skip

    whole, again, alone = (folder / f"pack-{name}" for name in ("whole", "again", "alone"))
    yield cell("stargz pack", whole, lambda: run(second.tree, whole), layer, "all of it")
    yield cell(
        "stargz pack --base", again, lambda: run(second.tree, again, base=second.old), layer,
        "by the layer before: the same bytes",
    )  # fmt: skip
    yield cell(
        "stargz pack --no-diff-id", alone, lambda: run(second.tree, alone, diff_id=False), layer,
        "all of it, without the tar's digest",
    )  # fmt: skip

    def unpacked(name: str) -> Callable[[Path], None]:
        def check(path: Path) -> None:
            with tempfile.NamedTemporaryFile(dir=folder) as plain:
                children.run(*peers.UNPACKERS[name], path, out=Path(plain.name))
                second.truth.check(tally.of_tar_at(Path(plain.name), "r:", Tally()))

        return check

    if peers.has("tar"):
        for name, words in peers.COMPRESSORS.items():
            program = name.split()[0]
            if peers.has(program):
                out = folder / f"pack-{program}"
                yield cell(
                    f"tar | {name}", out,
                    partial(deltas.tar_packed, second.tree, out, list(words)),
                    unpacked(program), "not seekable",
                )  # fmt: skip
    if peers.has("mksquashfs", "unsquashfs"):
        image = folder / "pack-squashfs"

        def check_image(path: Path) -> None:
            target = folder / "pack-unsquashed"
            trees.empty(target)
            peers.unsquashfs(path, target)
            second.truth.check(tally.of_tree(target, Tally()))
            trees.remove(target)

        yield cell(
            "mksquashfs -comp zstd", image, lambda: peers.mksquashfs(second.tree, image),
            check_image, "",
        )  # fmt: skip
    archive = folder / "pack-zip"
    yield cell(
        "zipfile", archive, lambda: peers.zip_tree(second.tree, archive),
        lambda path: second.truth.check(tally.of_zip(path, Tally())), "without owners",
    )  # fmt: skip


def delta(given: Input, quick: bool) -> Iterator[Cell]:
    """What makes the new of the old."""
    from stargz.patching.make import delta as run

    second = given.second
    folder = given.folder
    ours = folder / "delta"
    yield Cell(
        "stargz delta", lambda: run(second.old, second.new, ours),
        lambda _: _applies(second.old, ours, second.new, folder),
        made=ours, note="of the layers", ours=True,
    )  # fmt: skip
    if peers.has("zstd"):
        yield _of_tars(given, "zstd --patch-from", deltas.zstd_patch, deltas.zstd_apply)
    if peers.has("xdelta3"):
        yield _of_tars(given, "xdelta3", deltas.xdelta_patch, deltas.xdelta_apply)
    if peers.has("rsync"):
        out = folder / "delta-rsync"
        yield Cell(
            "rsync, a batch",
            lambda: deltas.rsync_batch(second.tree, second.first, out),
            made=out,
            note="of the directories",
        )


def _of_tars(given: Input, name: str, make: Patch, undo: Patch) -> Cell:
    second, out = given.second, given.folder / f"delta-{name.split()[0]}"
    return Cell(
        name,
        lambda: make(second.old_tar, second.new_tar, out),
        lambda _: _same(lambda made: undo(second.old_tar, out, made), second.new_tar, given.folder),
        made=out,
        note="of the plain tars, of which no layer comes",
    )


def apply(given: Input, quick: bool) -> Iterator[Cell]:
    """The new of the old and the patch."""
    from stargz.patching.applying import apply as run

    second = given.second
    out = given.folder / "applied"
    yield Cell(
        "stargz apply", lambda: run(second.old, second.patch, out),
        lambda _: _equal_files(second.new, out), note="the layer", ours=True,
    )  # fmt: skip
    if peers.has("zstd"):
        yield Cell(
            "zstd -d --patch-from", lambda: deltas.zstd_apply(second.old_tar, second.zstd, out),
            lambda _: _equal_files(second.new_tar, out), note="the plain tar",
        )  # fmt: skip
    if peers.has("xdelta3"):
        yield Cell(
            "xdelta3 -d", lambda: deltas.xdelta_apply(second.old_tar, second.xdelta, out),
            lambda _: _equal_files(second.new_tar, out), note="the plain tar",
        )  # fmt: skip


def _applies(old: Path, patch: Path, new: Path, folder: Path) -> None:
    from stargz.patching.applying import apply as run

    _same(lambda made: run(old, patch, made), new, folder)


def _same(make: Callable[[Path], object], expected: Path, folder: Path) -> None:
    made = folder / "made-again"
    make(made)
    _equal_files(expected, made)
    made.unlink()


def _equal_files(expected: Path, found: Path) -> None:
    if not filecmp.cmp(expected, found, shallow=False):
        raise WrongError("wrong: what the patch makes is not what it was made of")


MEASUREMENTS = (
    Measurement("pack", "Pack", "a directory of which 1% has changed, to a layer", pack),
    Measurement("delta", "Delta", "what to send to whoever has it as it was before", delta),
    Measurement("apply", "Apply", "the new one again, of the old one and that", apply),
)
