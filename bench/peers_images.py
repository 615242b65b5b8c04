"""What image conversion is compared with: containerd and its ctr-remote (Debian's containerd and
stargz-snapshotter), as its documents say to convert an image. Needs root.

with containerd() as peer:
    seconds = peer.convert(host, "plain:latest", "made:latest")
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stargz.benchmark import images


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
