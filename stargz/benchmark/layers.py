"""A layer: convert, index, open, one small file, all files, verify, extract."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stargz.benchmark import children, peers, tally, trees
from stargz.benchmark.inputs import Input
from stargz.benchmark.kinds import Measurement
from stargz.benchmark.measuring import Cell, Run, WrongError, unable
from stargz.benchmark.tally import Tally
from stargz.errors import CodecError

QUICK_LEVELS: tuple[int | str, ...] = (1, 6, "reuse")
LEVELS: tuple[int | str, ...] = (*range(1, 13), "reuse")
FORMATS = ("zstd:chunked", "zstd:chunked-stargz")


def command(*args: object) -> list[str]:
    """The words of `stargz ARGS`, with this Python."""
    return [sys.executable, "-m", "stargz", *map(str, args)]


# --- convert ----------------------------------------------------------------------------------


def convert(given: Input, quick: bool) -> Iterator[Cell]:
    """To each level and format; and what compresses the same tar."""
    for level in QUICK_LEVELS if quick else LEVELS:
        dense = isinstance(level, int) and level > 2
        made = level == "reuse" and not given.was_packed
        note = "of the tar.gz that gzip -6 made" if made else ""
        yield _converted(
            given, f"--level {level}", {"level": level}, note, "libdeflate" if dense else "isal"
        )
    for form in FORMATS[:1] if quick else FORMATS:
        yield _converted(given, f"--format {form}", {"format": form}, "level 3", "zstd")
    for name in peers.COMPRESSORS:
        if peers.has(name.split()[0]):
            yield _compressed(given, name)


def _converted(given: Input, name: str, options: dict[str, Any], note: str, library: str) -> Cell:
    from stargz.conversion import convert as run

    out = given.folder / f"as{name.replace(' ', '-').replace(':', '-')}"
    if why := lacking(library):
        return unable(f"stargz {name}", why, ours=True)
    return Cell(
        f"stargz {name}",
        lambda: run(given.packed, out, **options),
        lambda _: check_layer(given, out),
        made=out,
        ours=True,
        note=note,
    )


def _compressed(given: Input, name: str) -> Cell:
    program = name.split()[0]
    out = given.folder / f"by-{program}{peers.suffix(name)}"
    return Cell(
        name,
        lambda: peers.compress(name, given.tar, out),
        lambda _: equal(given.size, peers.unpacked_size(program, out)),
        made=out,
        note="from the plain tar, not seekable",
    )


def lacking(library: str) -> str:
    """Why a codec library cannot be used; "" where it can."""
    from stargz._engine.base import need

    try:
        need(library)
    except CodecError as error:
        return str(error)
    return ""


def check_layer(given: Input, path: Path) -> None:
    """WrongError unless a layer is whole and has the files of the input."""
    from stargz.opening import open as open_layer

    with open_layer(path) as layer:
        verified = layer.verify()
        if not verified.ok:
            raise WrongError(f"wrong: {verified.errors[0].message}")
        given.truth.check(tally.of_layer(layer, Tally()))


def equal(expected: object, found: object) -> None:
    """WrongError unless the two are the same."""
    if expected != found:
        raise WrongError(f"wrong: {found!s:.80} came out instead of {expected!s:.80}")


# --- index ------------------------------------------------------------------------------------


def index(given: Input, quick: bool) -> Iterator[Cell]:
    """Of the tar.gz as it is, so that any place in it can be read."""
    for form in ("native", "soci"):
        yield _indexed(given, form)
    if peers.has("indexed_gzip"):
        yield _indexed_by(given, "indexed_gzip", peers.index_by_indexed_gzip, peers.indexed_gzip)
    if peers.has("rapidgzip"):
        yield _indexed_by(given, "rapidgzip", peers.index_by_rapidgzip, peers.rapidgzip)
    yield from _by_ratarmount(given)


def _indexed(given: Input, form: Any) -> Cell:
    from stargz.indexing import index as run
    from stargz.opening import open as open_layer

    out = given.folder / f"index-{form}"

    def check(_: object) -> None:
        with open_layer(given.packed, index=out) as layer:
            given.truth.check(tally.of_layer(layer, Tally()))

    return Cell(
        f"stargz --format {form}",
        lambda: run(given.packed, out, format=form, force=True),
        check,
        made=out,
        ours=True,
    )


def _indexed_by(
    given: Input,
    name: str,
    make: Callable[[Path, Path], object],
    read: Callable[[Path, Path], Any],
) -> Cell:
    out = given.folder / f"index-{name}"
    return Cell(
        name,
        lambda: make(given.packed, out),
        lambda _: given.truth.check(tally.of_tar_in(read(given.packed, out), Tally())),
        lambda: out.unlink(missing_ok=True),
        made=out,
        note="of the gzip stream, without the files in it",
    )


def _by_ratarmount(given: Input) -> Iterator[Cell]:
    from stargz.benchmark import mounts

    if not peers.has("ratarmount"):
        return
    if why := mounts.unable():
        yield unable("ratarmount", why)
        return
    out = given.folder / "index-ratarmount"
    yield Cell(
        "ratarmount",
        lambda: mounts.ratarmount_first(given.packed, out),
        before=lambda: out.unlink(missing_ok=True),
        made=out,
        note="its first mount, a process",
    )


# --- open, and one small file -----------------------------------------------------------------


def opening(given: Input, quick: bool) -> Iterator[Cell]:
    """Up to the first look-up."""
    from stargz.opening import open as open_layer

    small = given.small
    if small is None:
        return
    name = small.name

    def ours(**options: Any) -> int:
        with open_layer(options.pop("path"), **options) as layer:
            return layer.entry(name).size

    def by_tarfile(path: Path, mode: str) -> int:
        import tarfile

        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            size: int = tar.getmember(small.stated).size
            return size

    def by_zipfile() -> int:
        import zipfile

        with zipfile.ZipFile(given.zip) as archive:
            return archive.getinfo(name).file_size

    def check(size: object) -> None:
        equal(len(small.content), size)

    yield Cell("stargz", lambda: ours(path=given.layer), check, ours=True, note="the layer")
    yield Cell(
        "stargz, by its index",
        lambda: ours(path=given.packed, index=given.index),
        check,
        ours=True,
        note="the tar.gz",
    )
    yield Cell("tarfile", lambda: by_tarfile(given.packed, "r:gz"), check, note="the tar.gz")
    yield Cell("tarfile, plain tar", lambda: by_tarfile(given.tar, "r:"), check)
    yield Cell("zipfile", by_zipfile, check, note="a zip of the same files")


def one_file(given: Input, quick: bool) -> Iterator[Cell]:
    """From a closed file to the bytes of one in its middle."""
    from stargz.opening import open as open_layer

    small = given.small
    if small is None:
        return
    name, stated = small.name, small.stated

    def ours(path: Path, **options: Any) -> bytes:
        with open_layer(path, **options) as layer:
            return layer.read(name)

    def by_zipfile() -> bytes:
        import zipfile

        with zipfile.ZipFile(given.zip) as archive:
            return archive.read(name)

    def check(content: object) -> None:
        if content != small.content:
            raise WrongError(f"wrong: {name!r} came out with other contents")

    cat = command("cat", "--no-cache")
    yield Cell("stargz", lambda: ours(given.layer), check, ours=True, note="the layer")
    yield Cell(
        "stargz, by its index",
        lambda: ours(given.packed, index=given.index),
        check,
        ours=True,
        note="the tar.gz",
    )
    yield Cell(
        "stargz cat",
        lambda: children.output(*cat, given.layer, name),
        check,
        ours=True,
        note="a process",
    )
    yield Cell("tarfile", lambda: read_tar(given.packed, "r|gz", stated), check, note="the tar.gz")
    yield Cell(
        "tarfile, plain tar", lambda: read_tar(given.tar, "r|", stated), check, note="up to it"
    )
    if peers.has("tar", "gzip"):
        yield Cell(
            "tar", lambda: peers.tar_cat(given.packed, stated), check, note="a process, the tar.gz"
        )
    yield Cell("zipfile", by_zipfile, check, note="a zip of the same files")
    if peers.has("mksquashfs", "unsquashfs"):
        yield Cell(
            "unsquashfs",
            lambda: peers.unsquashfs_cat(given.squashfs, name),
            check,
            note="a process, squashfs with zstd",
        )
    if peers.has("indexed_gzip"):
        yield Cell(
            "indexed_gzip, tarfile",
            lambda: read_tar_in(
                peers.indexed_gzip(given.packed, given.index_of_indexed_gzip), stated
            ),
            check,
            note="the tar.gz, by its index",
        )
    if peers.has("rapidgzip"):
        yield Cell(
            "rapidgzip, tarfile",
            lambda: read_tar_in(peers.rapidgzip(given.packed, given.index_of_rapidgzip), stated),
            check,
            note="the tar.gz, by its index",
        )


def read_tar(path: Path, mode: str, name: str) -> bytes:
    """As anyone reads one file of a tar: from the start to that file."""
    import tarfile

    with tarfile.open(path, mode, errors="surrogateescape") as tar:  # type: ignore[call-overload]
        return _file_of(tar, name)


def read_tar_in(file: Any, name: str) -> bytes:
    """Likewise, in an open file that can seek."""
    import tarfile

    with file, tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
        return _file_of(tar, name)


def _file_of(tar: Any, name: str) -> bytes:
    for info in tar:
        if info.name == name:
            content: bytes = tar.extractfile(info).read()
            return content
    raise WrongError(f"wrong: {name!r} was not found")


# --- all files --------------------------------------------------------------------------------


def all_files(given: Input, quick: bool) -> Iterator[Cell]:
    """Every file's bytes, counted."""
    from stargz.opening import open as open_layer

    def layer(tallied: Tally, path: Path, **options: Any) -> Tally:
        with open_layer(path, **options) as opened:
            return tally.of_layer(opened, tallied)

    ways: list[tuple[str, str, Callable[[Tally], Tally], bool]] = [
        ("stargz", "the layer", lambda t: layer(t, given.layer), True),
        (
            "stargz, by its index", "the tar.gz",
            lambda t: layer(t, given.packed, index=given.index), True,
        ),
        ("tarfile", "the tar.gz", lambda t: tally.of_tar_at(given.packed, "r|gz", t), False),
        ("tarfile, plain tar", "", lambda t: tally.of_tar_at(given.tar, "r|", t), False),
        ("zipfile", "a zip of the same files", lambda t: tally.of_zip(given.zip, t), False),
    ]  # fmt: skip
    if peers.has("indexed_gzip"):
        ways.append(
            ("indexed_gzip, tarfile", "the tar.gz",
             lambda t: tally.of_tar_in(peers.indexed_gzip(given.packed), t), False)
        )  # fmt: skip
    if peers.has("rapidgzip"):
        ways.append(
            ("rapidgzip, tarfile", "the tar.gz, on all cores",
             lambda t: tally.of_tar_in(peers.rapidgzip(given.packed), t), False)
        )  # fmt: skip
    for name, note, read, ours in ways:
        yield reading(name, read, given.truth, ours=ours, note=note)
    for name in ("gzip", "pigz", "igzip"):
        if peers.has(name):
            yield Cell(
                f"{name} -dc",
                partial(peers.unpacked_size, name, given.packed),
                lambda size: equal(given.size, size),
                note="a process, the tar.gz; the tar is only counted",
            )


def reading(
    name: str, read: Callable[[Tally], Tally], truth: Tally, *, ours: bool, note: str
) -> Cell:
    """A cell that reads files and counts their bytes: each run as many as the one before, and the
    contents of all are compared when it is checked."""
    counted: list[int] = []

    def run() -> int:
        return read(Tally(contents=False)).bytes

    def check(count: object) -> None:
        found = read(Tally())
        truth.check(found)
        equal(found.bytes, count)

    def run_again() -> int:
        count = run()
        counted.append(count)
        equal(counted[0], count)
        return count

    return Cell(name, run_again, check, ours=ours, note=note)


# --- verify -----------------------------------------------------------------------------------


def verify(given: Input, quick: bool) -> Iterator[Cell]:
    """Every byte, against what the file says of itself."""
    from stargz.opening import open as open_layer

    def ours() -> int:
        with open_layer(given.layer) as layer:
            found = layer.verify()
            if not found.ok:
                raise WrongError(f"wrong: {found.errors[0].message}")
            return found.bytes

    def check(count: object) -> None:
        if not isinstance(count, int) or count < given.truth.bytes:
            raise WrongError(f"wrong: {count} of {given.truth.bytes} bytes were verified")

    def digest() -> str:
        with given.packed.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    yield Cell(
        "stargz", ours, check, ours=True,
        note="the layer: gzip's CRCs, the digest of every chunk and file, the TOC",
    )  # fmt: skip
    for name, words in peers.TESTERS.items():
        if peers.has(name):
            zstd = name == "zstd"
            yield Cell(
                " ".join(words),
                partial(_tested, given, words, zstd),
                note="a process, the tar.zst: checksum" if zstd else "a process, the tar.gz: CRC",
            )
    yield Cell("sha256", digest, note="of the tar.gz, as every pull does; nothing is inflated")


def _tested(given: Input, words: tuple[str, ...], zstd: bool) -> None:
    children.run(*words, given.compressed("zstd -3 -T0") if zstd else given.packed)


# --- extract ----------------------------------------------------------------------------------


def extract(given: Input, quick: bool) -> Iterator[Cell]:
    """All of it into an empty directory."""
    from stargz.opening import open as open_layer

    target = given.folder / "extracted"

    def clean() -> None:
        trees.empty(target)

    def ours(path: Path, **options: Any) -> None:
        with open_layer(path, **options) as layer:
            layer.extractall(target, devices=not os.geteuid())  # as tar does

    def by_tarfile() -> None:
        import tarfile

        with tarfile.open(given.packed, "r|gz", errors="surrogateescape") as tar:
            tar.extractall(target, **_fully_trusted())

    def by_zipfile() -> None:
        import zipfile

        with zipfile.ZipFile(given.zip) as archive:
            archive.extractall(target)

    def check(_: object) -> None:
        given.truth.check(tally.of_tree(target, Tally()))

    def cell(name: str, run: Run, note: str, ours: bool = False) -> Cell:
        return Cell(name, run, check, clean, note=note, ours=ours, close=lambda: trees.gone(target))

    yield cell("stargz", lambda: ours(given.layer), "the layer", True)
    yield cell(
        "stargz, by its index", lambda: ours(given.packed, index=given.index), "the tar.gz", True
    )
    if peers.has("tar", "gzip"):
        yield cell("tar xzf", lambda: peers.tar_xzf(given.packed, target), "the tar.gz")
    for name in ("pigz", "igzip"):
        if peers.has("tar", name):
            yield cell(
                f"tar -I {name}",
                partial(peers.tar_xzf, given.packed, target, "-I", name),
                "the tar.gz",
            )
    yield cell("tarfile", by_tarfile, "the tar.gz")
    yield cell("zipfile", by_zipfile, "a zip of the same files, without owners and modes")
    if peers.has("mksquashfs", "unsquashfs"):
        yield cell(
            "unsquashfs", lambda: peers.unsquashfs(given.squashfs, target), "squashfs with zstd"
        )


def _fully_trusted() -> dict[str, Any]:
    """What tarfile is told so that it does as tar does, where it knows filters."""
    import tarfile

    return {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}


MEASUREMENTS = (
    Measurement(
        "convert", "Convert", "a tar.gz to a seekable layer; others only compress its tar", convert
    ),
    Measurement("index", "Index", "make what an ordinary tar.gz is read by at any place", index),
    Measurement("open", "Open", "from a closed file to the size of one entry", opening),
    Measurement("file", "One small file", "from a closed file to the bytes of one in it", one_file),
    Measurement("files", "All files", "the bytes of every file, counted", all_files),
    Measurement("verify", "Verify", "every byte against what the file says of itself", verify),
    Measurement("extract", "Extract", "all files into an empty directory", extract),
)
