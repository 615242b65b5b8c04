"""What images are compared with: containerd and its ctr-remote (Debian's containerd and
stargz-snapshotter), as its documents say to convert an image and to pull one lazily. Needs root.

with containerd() as peer:
    seconds = peer.convert(host, "plain:latest", "made:latest")
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers import ROOT, snapshotter_program
from stargz.benchmark import images, trees
from stargz.benchmark.mounts import read_all

sys.path.insert(0, str(ROOT / "tests"))

import containers


@dataclass(frozen=True)
class Seconds:
    """What each part took, by the clock."""

    pull: float
    convert: float
    push: float

    @property
    def total(self) -> float:
        return self.pull + self.convert + self.push


@dataclass(frozen=True)
class Peer:
    """A containerd with an empty store."""

    engine: images.Containerd

    def convert(
        self, host: str, src: str, dst: str, level: int | None = None, to: str = "--estargz"
    ) -> Seconds:
        """Convert HOST/SRC to HOST/DST, from and to the registry, which speaks plain HTTP: pull
        (blobs only, nothing is unpacked), convert, push. `level` None: the default, which is 9
        of eStargz, 3 of `--zstdchunked`.
        """
        more = [to] if level is None else [to, "--estargz-compression-level", level]
        source, made = f"{host}/{src}", f"{host}/{dst}"
        remote = ("ctr-remote", "images")
        steps: tuple[tuple[object, ...], ...] = (
            ("ctr-remote", "content", "fetch", "--plain-http", source),
            (*remote, "convert", "--oci", *more, source, made),
            (*remote, "push", "--plain-http", made),
        )
        took = []
        for step in steps:
            started = time.perf_counter()
            self.engine.run(*step)
            took.append(time.perf_counter() - started)
        self.engine.forget()
        return Seconds(*took)


@contextmanager
def containerd() -> Iterator[Peer]:
    """A containerd of its own, gone with all that it keeps at the end."""
    with images.containerd() as engine:
        yield Peer(engine)


class Snapshotter:
    """containerd with stargz-snapshotter, which run already and have nothing of the image yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = ExitStack()

    def again(self) -> None:
        self.stop()
        with ExitStack() as stack:
            self._folder.mkdir()
            stack.callback(trees.gone, self._folder)
            program = snapshotter_program()
            self._engine = stack.enter_context(containers.containerd(self._folder, program))
            self._running = stack.pop_all()

    def stop(self) -> None:
        self._running.close()

    def read_whole(self, name: str, diff_ids: list[str]) -> None:
        """As `ctr-remote run` does it: pulled lazily, and mounted as a container's root."""
        self._engine.run("ctr-remote", "images", "rpull", "--plain-http", f"{name}:latest")
        assert self._engine.lazily()
        view = self._engine.view(containers.chain_id(diff_ids), self._folder / "view", "stargz")
        read_all(self._running.enter_context(view))
