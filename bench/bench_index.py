"""Ordinary tar.gz files with an index beside them: making it, and reading through it.

Against SOCI's own builder (the ztoc package of soci-snapshotter, Go), ratarmount, and the same
layer converted.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import stargz
from bench import corpus, link, peers
from bench.bench_memory import MB
from bench.bench_remote import SMALL_FILE, command
from stargz.benchmark import children, mounts
from stargz.benchmark.mounts import Mounted, Ours, find, read_all

RANDOM_READS = 2000
RANDOM_SIZE = 4096


def run(*args: object) -> None:
    subprocess.run(command("-q", *args), check=True, stdout=subprocess.DEVNULL)


# --- making it -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["debian", "ansible", "python"])
def test_index(name: str, tmp_path: Path, compare: Any) -> None:
    """The library, but for ratarmount, which is a process, against ours as one."""
    source = corpus.build(name)
    converted, index, ztoc = (tmp_path / word for word in ("converted", "index", "ztoc"))
    stargz.convert(source, converted)
    go = [peers.soci_program(), "build", "gzip", source, 4 << 20, tmp_path / "theirs"]

    def verify_and_hash() -> None:
        with stargz.open(converted) as layer:
            assert layer.verify().ok
        with source.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    others: dict[str, Callable[[], Any]] = {
        "soci": lambda: stargz.index(source, ztoc, format="soci", force=True),
        "process": lambda: run("index", "--force", source, "-o", index),
        "verify and hash": verify_and_hash,
        "ztoc": lambda: children.run(*go),
        "ratarmount": lambda: mounts.ratarmount_first(source),
    }
    seconds = compare.medians(lambda: stargz.index(source, index, force=True), others)

    def figure(what: str, value: float, target: str = "") -> None:
        compare.figure(f"index {name}: {what}", value, target if name == "debian" else "")

    figure("seconds", seconds["ours"])
    figure("SOCI's builder over ours, as a ztoc", seconds["ztoc"] / seconds["soci"], ">= 4.5")
    figure("SOCI's builder over ours", seconds["ztoc"] / seconds["ours"], ">= 3.8")
    figure(
        "ratarmount's first mount over ours", seconds["ratarmount"] / seconds["process"], ">= 1.8"
    )
    figure(
        "over verifying the converted layer and hashing the blob",
        seconds["ours"] / seconds["verify and hash"],
        "<= 1.25",
    )
    size = source.stat().st_size
    figure("% of the tar.gz", 100 * index.stat().st_size / size, "<= 0.5")
    figure("% of the tar.gz, as a ztoc", 100 * ztoc.stat().st_size / size)


@pytest.mark.parametrize("name", ["debian", "ansible"])
def test_first_listing(name: str, tmp_path: Path, compare: Any) -> None:
    """`ls` of a tar.gz that nobody has looked at, whose index is made and kept: the next one is
    instant."""
    source = corpus.build(name)
    cache = tmp_path / "cache"

    def ls() -> None:
        words = command("ls", "--cache-dir", cache, source)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    def first() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        ls()

    seconds = compare.medians(
        first,
        {
            "tar": lambda: children.run("tar", "tzf", source),
            "gzip": lambda: children.run("sh", "-c", 'gzip -dc "$0" | wc -c', source),
            "again": ls,
        },
    )
    compare.figure(f"ls of {name}.tar.gz, the first: seconds", seconds["ours"])
    compare.figure(
        f"ls of {name}.tar.gz, the first: over tar tzf", seconds["ours"] / seconds["tar"]
    )
    compare.figure(
        f"ls of {name}.tar.gz, the first: over gzip -dc", seconds["ours"] / seconds["gzip"]
    )
    compare.figure(
        f"ls of {name}.tar.gz, the second: over tar tzf", seconds["again"] / seconds["tar"]
    )


def peak_from_a_pipe(form: str, kind: str, count: int, out: Path) -> float:
    """MB of the process that indexes `python -m bench.inputs KIND COUNT`, compressed."""
    make = [sys.executable, "-m", "bench.inputs", kind, str(count)]
    index = command("-q", "index", "--force", "--format", form, "-", "-o", out)
    with (
        subprocess.Popen(make, stdout=subprocess.PIPE, cwd=peers.ROOT) as maker,
        subprocess.Popen(["igzip", "-1"], stdin=maker.stdout, stdout=subprocess.PIPE) as packed,
        subprocess.Popen(index, stdin=packed.stdout) as indexer,
    ):
        for pipe in (maker.stdout, packed.stdout):
            assert pipe is not None
            pipe.close()
        _, status, usage = os.wait4(indexer.pid, 0)
        indexer.returncode = os.waitstatus_to_exitcode(status)
    assert indexer.returncode == 0
    return usage.ru_maxrss * 1024 / MB


@pytest.mark.parametrize("form", ["native", "soci"])
@pytest.mark.parametrize(
    ("kind", "count", "native", "soci"),
    [("single", 30 * 10**9, 250, 250), ("empty", 10**6, 300, 450)],
    ids=["30 GB", "a million empty files"],
)
def test_memory(
    kind: str, count: int, native: int, soci: int, form: str, tmp_path: Path, compare: Any,
    request: Any,
) -> None:  # fmt: skip
    peaks: list[float] = []
    compare.benchmark.pedantic(
        lambda: peaks.append(peak_from_a_pipe(form, kind, count, tmp_path / "index")), rounds=1
    )
    label = request.node.callspec.id.replace(f"-{form}", "").replace(f"{form}-", "")
    bound = native if form == "native" else soci
    compare.figure(f"index ({form}) of {label} from a pipe: peak MB", max(peaks), f"< {bound}")


# --- reading through it ----------------------------------------------------------------------


def test_cat_over_http(debian: Path, tmp_path: Path, compare: Any) -> None:
    import servers

    served = tmp_path / "served"
    served.mkdir()
    (served / "layer.tar.gz").symlink_to(debian)
    stargz.index(debian, served / "layer.tar.gz.index")
    stargz.convert(debian, served / "converted")
    with servers.nginx(served, tmp_path / "nginx") as url, servers.FaultProxy(url) as counting:

        def cat(base: str, *more: str) -> None:
            words = ["cat", "--no-cache", *more, f"{base}", SMALL_FILE]
            subprocess.run(command(*words), check=True, stdout=subprocess.DEVNULL)

        def ours(base: str, index: str) -> None:
            named = ["--index", f"{base}/layer.tar.gz.index"] if index == "named" else []
            cat(f"{base}/layer.tar.gz", *named)

        for index in ("named", "beside the blob"):
            counting.reset()
            ours(counting.url, index)
            percent = 100 * counting.bytes / debian.stat().st_size
            what = f"indexed ({index}), cat over HTTP"
            compare.figure(f"{what}: requests", counting.requests, "<= 4")
            compare.figure(f"{what}: % of the bytes", percent, "<= 2.6")
        seconds = compare.medians(
            lambda: ours(url, "named"),
            {
                "beside": lambda: ours(url, "beside the blob"),
                "converted": lambda: cat(f"{url}/converted"),
            },
        )
    for index, value in (("named", seconds["ours"]), ("beside the blob", seconds["beside"])):
        compare.figure(
            f"indexed ({index}), cat over HTTP: over the converted layer",
            value / seconds["converted"],
        )


@pytest.mark.parametrize("where", ["at the beginning", "at the end"])
def test_slow_link(where: str, debian: Path, tmp_path: Path, compare: Any) -> None:
    """The first read, of a file there in a span, over 25 ms each way and 100 Mbit/s."""
    import servers

    served = tmp_path / "served"
    served.mkdir()
    (served / "layer.tar.gz").symlink_to(debian)
    stargz.index(debian, served / "layer.tar.gz.index")
    stargz.convert(debian, served / "converted")
    name = SMALL_FILE if where == "at the beginning" else _late_in_a_span(debian, served)
    with (
        link.slow_link() as slow,
        servers.nginx(served, tmp_path / "nginx", "", link.SERVER, slow.server) as url,
    ):

        def cat(*words: str) -> None:
            line = slow.client(*command("cat", "--no-cache", *words, name))
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)

        layer = f"{url}/layer.tar.gz"
        seconds = compare.medians(
            lambda: cat("--index", f"{layer}.index", layer),
            {"beside": lambda: cat(layer), "converted": lambda: cat(f"{url}/converted")},
        )
    for index, key, target in (("named", "ours", "<= 1.6"), ("beside the blob", "beside", "")):
        compare.figure(
            f"indexed ({index}), slow link: first read, {where} of a span, over the converted "
            "layer's",
            seconds[key] / seconds["converted"],
            target,
        )


def _late_in_a_span(debian: Path, served: Path) -> str:
    """A small file for which nearly all of a span is needed."""
    with stargz.open(debian, index=served / "layer.tar.gz.index") as layer:
        small = (e for e in layer.toc if e.type == "reg" and 0 < e.size < 10_000)
        return max(small, key=lambda entry: layer.chunks(entry.name)[0].inner_offset).name


@contextmanager
def mounted(debian: Path, folder: Path) -> Iterator[dict[str, Mounted]]:
    stargz.index(debian, folder / "index")
    stargz.convert(debian, folder / "converted")
    with (
        Ours(debian, folder / "ours", folder / "index") as ours,
        Ours(folder / "converted", folder / "other") as other,
        mounts.ratarmount(debian, folder / "theirs.sqlite", folder / "theirs") as theirs,
    ):
        theirs.mount()
        theirs.unmount()
        yield {"ours": ours, "converted": other, "ratarmount": theirs}


def small_reads(directory: Path) -> None:
    """Of files anywhere, at random places."""
    chance = random.Random(1)
    for path, size in _files(directory, chance):
        with path.open("rb", buffering=0) as file:
            file.seek(chance.randrange(max(1, size - RANDOM_SIZE)))
            file.read(RANDOM_SIZE)


def _files(directory: Path, chance: random.Random) -> list[tuple[Path, int]]:
    names = sorted(Path(folder, name) for folder, _, files in os.walk(directory) for name in files)
    found = [(path, path.lstat()) for path in names]
    regular = [(path, info.st_size) for path, info in found if (info.st_mode >> 12) == 8]
    return chance.choices(regular, k=RANDOM_READS)


@pytest.mark.parametrize("what", ["find", "tar of everything", "random reads"])
def test_mounted(what: str, debian: Path, tmp_path: Path, compare: Any) -> None:
    use = {"find": find, "tar of everything": read_all, "random reads": small_reads}[what]
    with mounted(debian, tmp_path) as made:

        def again() -> None:
            for one in made.values():
                one.again()

        runs = {name: lambda one=one: use(one.directory) for name, one in made.items()}
        ours = runs.pop("ours")
        seconds = compare.medians(ours, runs, between=again)
    converted, theirs = {
        "find": ("<= 1.1", ""),
        "tar of everything": ("<= 1.3", ">= 3"),
        "random reads": ("", ">= 5"),
    }[what]
    compare.figure(f"indexed, mounted, {what}: seconds", seconds["ours"])
    compare.figure(
        f"indexed, mounted, {what}: over the converted layer's",
        seconds["ours"] / seconds["converted"],
        converted,
    )
    compare.figure(
        f"indexed, mounted, {what}: ratarmount over ours",
        seconds["ratarmount"] / seconds["ours"],
        theirs,
    )
