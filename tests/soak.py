"""Reads through a mount, for as long as is asked, while its registry is good and bad in turn.

    python tests/soak.py [--seconds N] [--seed N] [--json FILE]     # as root, with docker-registry

Threads read an image's files from front to back, at random, by mmap, and look at its directories.
The registry stalls, cuts connections, answers 401, 429 and 500, sends wrong bytes, the wrong
part, or all where a part was asked for, and between that is good. Not one byte may be wrong, no
read may fail but with EIO while the registry is bad, all reads work again when it is good, names
and sizes are there all the time; and the memory and the descriptors of the process that serves do
not grow. Ends with 0 when all of that held.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import layouts
import registries
from blobs import tar_of
from command import environment
from mounts import clean_up, wait_for
from servers import Fault, FaultProxy, Request, flip

THREADS = 6
GOOD = (3.0, 9.0)  # seconds, at the least and at the most
BAD = (2.0, 5.0, 5.0, 25.0)  # one of these: requests are tried again for longer than most
RECOVERY = 120.0  # seconds until a read works again, at the most
SAMPLE = 5.0  # seconds from one look at the process to the next
MEMORY, CACHE = 4 << 20, 8 << 20  # less than the image has: what was read is fetched again
SETTLED = 60  # samples of a half: in less time it has not had all that it may have
# What may be more in the second half than in the first.
GROWTH_RSS, GROWTH_FDS = 8 << 20, 4

# The process that serves: its memory must be bounded closer than the command does.
SERVE = """
import sys
from stargz.cache import Cache
from stargz.mount import mount
from stargz.oci.image import open_image
src, directory, cache, size, memory = sys.argv[1:]
cache = Cache(cache, int(size))
with open_image(src, plain_http=True, cache=cache, patience=2) as image:
    with mount(image.tree, directory, cache=cache, memory=int(memory), log=print) as mounted:
        mounted.wait()
"""
# In a process of its own: a page that cannot be read is a SIGBUS.
MAPPED = """
import hashlib, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as pages:
    print(hashlib.sha256(pages).hexdigest())
"""

FAULTS: dict[str, Callable[[random.Random], Fault]] = {
    "stall": lambda chance: Fault(stall_after=chance.randrange(20_000)),
    "cut": lambda chance: Fault(close_after=chance.randrange(20_000), reset=chance.random() < 0.5),
    "refuse": lambda chance: Fault(refuse=True),
    "401": lambda chance: Fault(401, {"WWW-Authenticate": 'Basic realm="x"'}),
    "429": lambda chance: Fault(429, {"Retry-After": "1"} if chance.random() < 0.5 else {}),
    "500": lambda chance: Fault(500),
    "wrong bytes": lambda chance: Fault(corrupt=flip),
    "wrong part": lambda chance: Fault(ask_range=f"bytes=0-{chance.randrange(1, 50_000)}"),
    "no parts": lambda chance: Fault(ignore_range=True),
}


def image(seed: int) -> list[dict[str, bytes]]:
    """The files of two layers; those of the upper one replace others of the same name."""
    chance = random.Random(seed)
    lower = {f"low/d{n % 7}/f{n}": chance.randbytes(chance.randrange(300_000)) for n in range(120)}
    upper = {f"up/f{n}": chance.randbytes(chance.choice((0, 1, 4096, 70_000))) for n in range(40)}
    upper["up/large"] = chance.randbytes(9_000_000)
    upper["low/d0/f0"] = b"replaced"
    return [lower, upper]


class Soak:
    """One run."""

    def __init__(self, files: dict[str, bytes], directory: Path, seed: int) -> None:
        self.files = files
        self.names = sorted(files)
        self.directory = directory
        self.chance = random.Random(seed)
        self.fault = ""  # what the registry does
        self.ending = threading.Event()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        # Reads fail while the registry is bad, and those that began then may fail later.
        self.good_since: float | None = time.monotonic()
        self.lock = threading.Lock()

    def plan(self, request: Request) -> Fault | None:
        """What the proxy does with a request."""
        fault = self.fault
        if not fault or "/blobs/" not in request.path or self.chance.random() < 0.2:
            return None
        return FAULTS[fault](self.chance)

    def fail(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text)

    # --- reads --------------------------------------------------------------------------

    def work(self, number: int) -> None:
        """Read, until the end; for a thread."""
        chance = random.Random(f"{number}")
        kinds = [self.whole] * 6 + [self.parts] * 6 + [self.look] * 2 + [self.mapped]
        while not self.ending.is_set():
            kind = chance.choice(kinds)
            began, good = time.monotonic(), self.good_since
            try:
                kind(chance.choice(self.names), chance)
                self.counts[kind.__name__] += 1
            except OSError as error:
                self.counts["EIO"] += 1
                still = good is not None and good == self.good_since and began > good
                if kind == self.look or error.errno != errno.EIO or still:
                    self.fail(f"{kind.__name__} {error} (the registry: {self.fault or 'good'})")

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        fd = os.open(self.directory / name, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            yield fd
        finally:
            os.close(fd)

    def compare(self, name: str, at: int, data: bytes, size: int) -> None:
        if data != self.files[name][at : at + size]:
            self.fail(f"{name}: {size} bytes at {at} are wrong")
        self.counts["bytes"] += len(data)

    def whole(self, name: str, chance: random.Random) -> None:
        at, size = 0, chance.choice((4096, 65_536, 1 << 20))
        with self.opened(name) as fd:
            while data := os.read(fd, size):
                self.compare(name, at, data, len(data))
                at += len(data)
        if at != len(self.files[name]):
            self.fail(f"{name}: ends at {at}")

    def parts(self, name: str, chance: random.Random) -> None:
        total = len(self.files[name])
        with self.opened(name) as fd:
            for _ in range(12):
                at, size = chance.randrange(total + 1), chance.randrange(1, 50_000)
                self.compare(name, at, os.pread(fd, size, at), size)

    def look(self, name: str, chance: random.Random) -> None:
        found = {}
        for folder, _, names in os.walk(self.directory, onerror=_raise):
            for one in names:
                path = Path(folder, one)
                found[str(path.relative_to(self.directory))] = path.stat().st_size
        if found != {one: len(data) for one, data in self.files.items()}:
            self.fail("names or sizes are wrong")

    def mapped(self, name: str, chance: random.Random) -> None:
        if not self.files[name]:
            return
        done = subprocess.run(
            [sys.executable, "-S", "-c", MAPPED, self.directory / name], capture_output=True
        )
        if done.returncode:
            raise OSError(errno.EIO, done.stderr.decode()[-80:] or "SIGBUS", name)
        if done.stdout.decode().strip() != hashlib.sha256(self.files[name]).hexdigest():
            self.fail(f"{name}: mapped pages are wrong")

    # --- the registry's life --------------------------------------------------------------

    def turn(self, fault: str) -> None:
        """Let the registry be bad, and good again; all must recover."""
        self.good_since = None
        self.fault = fault
        self.ending.wait(self.chance.choice(BAD))
        self.fault = ""
        began = time.monotonic()
        probes = self.chance.sample([n for n in self.names if self.files[n]], 5)
        while probes and not self.ending.is_set():
            try:
                self.whole(probes[-1], self.chance)
                probes.pop()
            except OSError:
                if time.monotonic() - began > RECOVERY:
                    self.fail(f"no recovery from {fault!r} in {RECOVERY:.0f} s")
                    return
                time.sleep(0.2)
        self.counts["slowest recovery (ms)"] = max(
            self.counts["slowest recovery (ms)"], int((time.monotonic() - began) * 1000)
        )
        self.good_since = time.monotonic()
        self.ending.wait(self.chance.uniform(*GOOD))


def _raise(error: OSError) -> None:
    raise error


def sample(process: int) -> tuple[int, int, int]:
    """RSS in bytes, descriptors and threads of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return (
        int(values["VmRSS"].split()[0]) << 10,
        len(os.listdir(f"/proc/{process}/fd")),  # noqa: PTH208
        int(values["Threads"]),
    )


def grown(samples: list[tuple[float, int, int, int]]) -> list[str]:
    """What is more in the second half than in the first, whose first fifth is the start."""
    half = len(samples) // 2
    first, second = samples[half // 5 : half], samples[half:]
    if half < SETTLED:
        return []
    told = []
    for place, name, more in ((1, "RSS", GROWTH_RSS), (2, "descriptors", GROWTH_FDS)):
        before, after = (max(one[place] for one in part) for part in (first, second))
        if after > before + more:
            told.append(f"{name} grew: at most {before:,}, and {after:,} in the second half")
    return told


def run(seconds: float, seed: int, folder: Path) -> dict[str, object]:
    """The whole of it: counts, samples, and what was wrong."""
    layers = image(seed)
    files = {name: data for layer in layers for name, data in layer.items()}
    layout = layouts.image(folder / "layout", [tar_of(list(one.items())) for one in layers])
    directory = folder / "mnt"
    directory.mkdir()
    soak = Soak(files, directory, seed)
    samples: list[tuple[float, int, int, int]] = []
    with registries.registry(folder / "registry") as served:
        served.push(layout.path, "soak")
        with FaultProxy(f"http://{served.host}") as proxy:
            src = f"docker://{proxy.url.partition('://')[2]}/soak"
            words = [src, directory, folder / "cache", str(CACHE), str(MEMORY)]
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", SERVE, *words], stdout=log, stderr=log, env=environment()
                )
            threads: list[threading.Thread] = []
            try:
                wait_for(lambda: os.path.ismount(directory) or process.poll() is not None)
                proxy.reset(soak.plan)
                for number in range(THREADS):
                    thread = threading.Thread(target=soak.work, args=(number,), daemon=True)
                    threads.append(thread)
                    thread.start()
                begun = last = time.monotonic()
                turns = threading.Thread(target=_turns, args=(soak, proxy), daemon=True)
                turns.start()
                while time.monotonic() - begun < seconds and not soak.wrong:
                    time.sleep(0.5)
                    if process.poll() is not None:
                        soak.fail(f"the process that serves ended with {process.returncode}")
                    elif time.monotonic() - last >= SAMPLE:
                        last = time.monotonic()
                        samples.append((round(last - begun, 1), *sample(process.pid)))
                soak.fault = ""
                soak.ending.set()
                for thread in (turns, *threads):
                    thread.join(RECOVERY)
                    if thread.is_alive():
                        soak.fail("a read does not end")
            finally:
                clean_up(directory)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    soak.fail("the process that serves does not end")
                    process.kill()
                    process.wait()
    return {
        "seconds": round(time.monotonic() - begun),
        "counts": dict(soak.counts),
        "wrong": [*soak.wrong[:20], *grown(samples)],
        "samples": samples,
        "log": (folder / "log").read_text(errors="replace").splitlines()[-20:],
    }


def _turns(soak: Soak, proxy: FaultProxy) -> None:
    while not soak.ending.is_set():
        for fault in soak.chance.sample(list(FAULTS), len(FAULTS)):
            if soak.ending.is_set():
                return
            soak.turn(fault)
            soak.counts[f"turns: {fault}"] += 1
            with proxy.lock:
                proxy.log.clear()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write counts and samples there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stargz-soak-") as folder:
        found = run(args.seconds, args.seed, Path(folder))
    if args.json:
        args.json.write_text(json.dumps(found))
    samples = found["samples"]
    assert isinstance(samples, list) and isinstance(found["counts"], dict)
    for at, rss, descriptors, threads in samples[:: max(1, len(samples) // 20)]:
        print(f"{at:8.0f} s  {rss / 1e6:6.1f} MB  {descriptors:4} descriptors  {threads:3} threads")
    for name, value in sorted(found["counts"].items()):
        print(f"{name}: {value:,}")
    wrong = found["wrong"]
    assert isinstance(wrong, list)
    for text in wrong:
        print(f"WRONG: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
