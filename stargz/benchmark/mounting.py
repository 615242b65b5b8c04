"""A layer mounted: first byte, find, stat, sequential, random and small reads, everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stargz.benchmark import mounts, peers, tally
from stargz.benchmark.inputs import Input
from stargz.benchmark.kinds import Measurement
from stargz.benchmark.measuring import Cell, WrongError, unable
from stargz.benchmark.mounts import Mounted, Uses
from stargz.benchmark.tally import Tally

_QUICK_READS = 200

Use = Callable[[Path], int]


def ways(given: Input) -> Iterator[tuple[str, str, bool, Callable[[Path], Mounted]]]:
    """Name, what is read, whether that is ours, and what makes it."""
    yield "stargz", "the layer", True, lambda at: mounts.Ours(given.layer, at)
    yield (
        "stargz, by its index", "the tar.gz", True,
        lambda at: mounts.Ours(given.packed, at, given.index),
    )  # fmt: skip
    if peers.has("mksquashfs", "squashfuse"):
        yield (
            "squashfuse", "squashfs with zstd", False,
            lambda at: mounts.squashfuse(given.squashfs, at),
        )  # fmt: skip
    if peers.has("ratarmount"):
        yield (
            "ratarmount", "the tar.gz, by its index", False,
            lambda at: mounts.ratarmount(given.packed, given.index_of_ratarmount, at),
        )  # fmt: skip


def used(what: str) -> Callable[[Input, bool], Iterator[Cell]]:
    """The cells of one use, each through a mount that was made just before."""

    def cells(given: Input, quick: bool) -> Iterator[Cell]:
        why = mounts.unable()
        if why:
            for name, _, ours, _ in ways(given):
                yield unable(name, why, ours=ours)
            return
        uses = Uses(given.tree, _QUICK_READS if quick else mounts.RANDOM_READS)
        use = _use(what, uses)
        if use is None:
            return
        check = _check(what, given, use(given.tree))
        for number, (name, note, ours, make) in enumerate(ways(given)):
            at = given.folder / f"mnt-{number}"
            yield _cell(name, note, ours, partial(make, at), use, partial(check, at))
        yield Cell(
            "unpacked", lambda: use(given.tree), partial(check, given.tree),
            note="no mount: the files as they are, in memory",
        )  # fmt: skip

    return cells


def _check(what: str, given: Input, expected: int) -> Callable[[Path, int], None]:
    """Whether a use has found what is in the tree."""

    def found(_: Path, value: int) -> None:
        # The tree may be without device nodes, which mounts show.
        if value != expected and not (what == "find" and value == expected + given.left_out):
            raise WrongError("wrong: what was read is not what is in it")

    def contents(directory: Path, value: int) -> None:
        # How large tar's output is depends on what it takes for hard links.
        if value < given.truth.bytes:
            raise WrongError(f"wrong: {value} of {given.truth.bytes} bytes were read")
        given.truth.check(tally.of_tree(directory, Tally()))

    return contents if what == "all" else found


def _cell(
    name: str,
    note: str,
    ours: bool,
    make: Callable[[], Mounted],
    use: Use,
    check: Callable[[int], None],
) -> Cell:
    made: list[Mounted] = []  # at the first use: making it may fail

    def again() -> None:
        if not made:
            made.append(make())
        made[0].again()

    def close() -> None:
        for one in made:
            one.unmount()

    run = partial(_used, use, made)
    return Cell(name, run, check, again, close, note=note, ours=ours)


def _used(use: Use, made: list[Mounted]) -> int:
    return use(made[0].directory)


def _use(what: str, uses: Uses) -> Use | None:
    """None where the tree has nothing for it."""
    if what == "sequential":
        return uses.sequential if uses.largest else None
    if what == "random":
        return uses.random if uses.places else None
    if what == "small":
        return uses.small_files if uses.small else None
    return {"find": mounts.find, "stat": uses.stat, "all": mounts.read_all}[what]


def _measurement(name: str, title: str, meaning: str) -> Measurement:
    return Measurement(f"mount-{name}", f"Mount: {title}", meaning, used(name))


MEASUREMENTS = (
    _measurement("find", "find", "the names of everything, by find"),
    _measurement("stat", "stat", "size and mode of everything, one after the other"),
    _measurement("sequential", "sequential", "the largest file, from its beginning to its end"),
    _measurement("random", "random", "4 KiB each at random places of random files"),
    _measurement("small", "small files", "many files of at most 64 KiB, in no order"),
    _measurement("all", "everything", "all files, by tar, through a pipe"),
)
