"""Convert, verify and read a real layer, made of this machine's own Python.

Makes a tar.gz of a small root tree and the running Python's standard library and site-packages
with gzip -6, converts it, verifies the result, reads one file out of each, and prints what that
took. Under a minute on any machine; what it makes is removed unless --keep is given. In DIR, where
`layout` is an image of the tar.gz, the examples of README and docs/ can be tried."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from stargz.cli import _options
from stargz.cli._destination import check_directory
from stargz.cli._errors import OK, UNVERIFIED, CommandError, say
from stargz.cli._output import print_json
from stargz.cli._sample import write_tree

EXAMPLE = """\
stargz demo
stargz demo --keep /tmp/stargz-demo
stargz ls -l /tmp/stargz-demo/layer.stargz usr"""

# Bytes of files in the tar: gzip -6 takes 25 s for this much on a core of 5 MB/s.
CAP = 128 << 20

_FILES = ("layer.tar", "layer.tar.gz", "layer.stargz")
_LAYOUT = "layout"

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz demo`."""
    parser.add_argument("--keep", metavar="DIR", help="make the files in DIR and leave them there")
    _options.add_threads(parser)
    _options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Make, convert, verify, read; then print the table."""
    with _directory(args.keep) as directory:
        report = _measure(directory, args)
        if args.keep:
            from stargz.benchmark.layouts import write_layout

            tar, tar_gz = (directory / name for name in _FILES[:2])
            write_layout(directory / _LAYOUT, [(tar, tar_gz)])
    if args.json:
        print_json(report)
    elif not args.quiet:
        _print(report)
        if args.keep:
            print(f"\nkept in {args.keep}: {', '.join((*_FILES, _LAYOUT))}")
    return OK if report["verify"]["ok"] else UNVERIFIED


@contextmanager
def _directory(keep: str | None) -> Iterator[Path]:
    if keep is None:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="stargz-demo-") as name:
            yield Path(name)
        return
    check_directory(keep, "--keep")
    directory = Path(keep)
    directory.mkdir(parents=True, exist_ok=True)
    for name in (*_FILES, _LAYOUT):
        if os.path.lexists(directory / name):
            raise CommandError(f"{directory / name}: already exists; give --keep another DIR")
    yield directory


def _measure(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    import stargz
    from stargz.conversion import convert

    def step(text: str) -> None:
        if not args.quiet:
            say(text)

    tar, gz, layer_path = (directory / name for name in _FILES)
    step("making a tar of a small root tree and this Python's standard library and site-packages")
    names = make_tar(tar, CAP)
    tar_size = tar.stat().st_size
    step(f"gzip -6 of {len(names):,} files, {tar_size:,} bytes")
    program, gzip_seconds = _timed(lambda: _gzip(tar, gz))
    step("converting the tar.gz")
    converted, convert_seconds = _timed(
        lambda: convert(str(gz), str(layer_path), threads=args.threads)
    )
    step("verifying the layer")
    with stargz.open(
        str(layer_path), toc_digest=converted.toc_digest, threads=args.threads
    ) as layer:
        verified, verify_seconds = _timed(layer.verify)
    # From the middle: on the way to it a reader of the tar.gz decompresses half of it.
    name = names[len(names) // 2]
    step(f"reading {name} from each")
    from_gz, gz_seconds = _timed(lambda: _read_tar_gz(gz, name))
    from_layer, layer_seconds = _timed(lambda: _read_layer(layer_path, name))
    if from_gz != from_layer:
        raise CommandError(f"{name}: the layer and the tar.gz differ, which is a bug in stargz")
    return {
        "files": len(names),
        "tar": {"size": tar_size},
        "gzip": {"program": program, "size": gz.stat().st_size, "seconds": gzip_seconds},
        "convert": {
            "size": converted.size,
            "seconds": convert_seconds,
            "level": converted.level,
            "entries": converted.entries,
            "chunks": converted.chunks,
            "digest": converted.digest,
            "toc_digest": converted.toc_digest,
        },
        "verify": {
            "ok": verified.ok,
            "seconds": verify_seconds,
            "errors": [error.message for error in verified.errors],
        },
        "read": {
            "name": name,
            "size": len(from_layer),
            "tar_gz_seconds": gz_seconds,
            "layer_seconds": layer_seconds,
        },
    }


def make_tar(path: Path, cap: int) -> list[str]:
    """Write a small root tree and the running Python's files, of which at most `cap` bytes.

    Sorted, with owners and modes that say nothing about this machine: the same files give
    the same tar. Returns the names of the regular files, in order.
    """
    import io
    import sysconfig
    import tarfile

    roots = {"lib": "stdlib", "site-packages": "purelib", "site-packages-64": "platlib"}
    seen: set[str] = set()
    with tarfile.open(path, "w") as tar:
        names = write_tree(tar)
        for label, key in roots.items():
            for file, name in _walk(Path(sysconfig.get_path(key)), f"opt/python/{label}", seen):
                info = tarfile.TarInfo(name)
                data = b""
                try:
                    status = file.lstat()
                    if file.is_symlink():
                        info.type, info.linkname = tarfile.SYMTYPE, str(file.readlink())
                        info.linkname.encode()
                    elif file.is_dir():
                        info.type = tarfile.DIRTYPE
                    elif not file.is_file() or status.st_size > cap:
                        continue
                    else:
                        data = file.read_bytes()
                except (OSError, UnicodeEncodeError):
                    continue  # unreadable, or gone since it was listed
                info.mode = 0o755 if status.st_mode & 0o111 else 0o644
                info.mtime = int(status.st_mtime)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                cap -= len(data)
                if info.isreg():
                    names.append(name)
    return names


def _walk(root: Path, label: str, seen: set[str]) -> Iterator[tuple[Path, str]]:
    """Paths below `root` and their names in the tar; none that an earlier walk gave."""
    for where, directories, files in os.walk(root):
        real = os.path.realpath(where)
        directories[:] = sorted(d for d in directories if d != "__pycache__")
        if real in seen:
            directories.clear()
            continue
        seen.add(real)
        below = Path(where).relative_to(root)
        for name in [*directories, *sorted(files)]:
            full = (label / below / name).as_posix() if label else name
            if full.isprintable():
                yield Path(where) / name, full


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of `work`, and seconds of wall time."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _gzip(source: Path, target: Path) -> str:
    """Compress as most layers are; returns what did it."""
    import shutil
    import subprocess

    program = shutil.which("gzip")
    with source.open("rb") as reader, target.open("wb") as writer:
        if program:
            subprocess.run([program, "-6", "-n", "-c"], stdin=reader, stdout=writer, check=True)
            return "gzip"
        import gzip

        with gzip.GzipFile("", "wb", 6, writer, mtime=0) as packed:
            shutil.copyfileobj(reader, packed, 1 << 20)
        return "Python's gzip"


def _read_tar_gz(path: Path, name: str) -> bytes:
    """As anyone reads one file of a tar.gz: from its start to that file."""
    import tarfile

    with tarfile.open(path, "r|gz") as tar:
        for info in tar:
            if info.name == name:
                file = tar.extractfile(info)
                return file.read() if file else b""
    raise CommandError(f"{path}: no {name!r} in it, though it was just written")


def _read_layer(path: Path, name: str) -> bytes:
    import stargz

    with stargz.open(str(path)) as layer:
        return bytes(layer.read(name))


def _print(report: dict[str, Any]) -> None:
    gzip, convert, verify, read = (report[key] for key in ("gzip", "convert", "verify", "read"))
    share = convert["size"] / gzip["size"]
    faster = read["tar_gz_seconds"] / max(read["layer_seconds"], 1e-9)
    rows = [
        ("", "seconds", "bytes", ""),
        ("tar", "", f"{report['tar']['size']:,}", f"{report['files']:,} files"),
        (f"{gzip['program']} -6", f"{gzip['seconds']:.3f}", f"{gzip['size']:,}", ""),
        (
            "stargz convert",
            f"{convert['seconds']:.3f}",
            f"{convert['size']:,}",
            f"from the tar.gz, level {convert['level']}: {share:.2f} of its size",
        ),
        ("stargz verify", f"{verify['seconds']:.3f}", "", "ok" if verify["ok"] else "FAILED"),
        ("one file of the tar.gz", f"{read['tar_gz_seconds']:.4f}", f"{read['size']:,}", "tarfile"),
        (
            "one file of the layer",
            f"{read['layer_seconds']:.4f}",
            f"{read['size']:,}",
            f"opening included: {faster:,.0f} times as fast",
        ),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for label, seconds, size, note in rows:
        line = f"{label:{widths[0]}}  {seconds:>{widths[1]}}  {size:>{widths[2]}}  {note}"
        print(line.rstrip())
