"""A whole image, from an OCI layout to another."""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from stargz.benchmark import children, peers, tally, trees
from stargz.benchmark.inputs import Input
from stargz.benchmark.kinds import Measurement
from stargz.benchmark.layers import command
from stargz.benchmark.measuring import Cell, unable
from stargz.benchmark.tally import Tally

# Characters of a directory's name that leave room for that of a socket in it (108 in all).
_SOCKET_ROOM = 50
_NAME = "bench.example/image:latest"


def convert(given: Input, quick: bool) -> Iterator[Cell]:
    """All layers, config and manifest."""
    src = f"oci:{given.layout}:latest"
    truth = files_of(src)
    ways = {"": (), " --format zstd:chunked": ("--format", "zstd:chunked")}
    if not quick:
        ways |= {" --level 6": ("--level", "6"), " --level reuse": ("--level", "reuse")}
    for number, (name, options) in enumerate(ways.items()):
        out = given.folder / f"converted-{number}"
        words = command("image", "convert", "-q", *options, src, f"oci:{out}:latest")
        yield _layout_made(f"stargz image convert{name}", words, out, truth)
    if peers.has("skopeo"):
        out = given.folder / "copied"
        options = ("--insecure-policy", "copy", "-q", "--dest-compress-format", "zstd:chunked")
        words = ["skopeo", *options, src, f"oci:{out}:latest"]
        yield _layout_made("skopeo copy to zstd:chunked", words, out, truth)
    if peers.has("ctr-remote", "containerd"):
        yield _by_containerd(given, truth)


def _layout_made(name: str, words: list[str], out: Path, truth: Tally) -> Cell:
    # skopeo keeps what it learns about blobs below the user's home.
    env = {**os.environ, "HOME": str(out.parent), "XDG_DATA_HOME": str(out.parent / "data")}
    ours = name.startswith("stargz")
    return Cell(
        name,
        partial(children.run, *words, env=None if ours else env),
        lambda _: truth.check(files_of(f"oci:{out}:latest")),
        partial(trees.gone, out),
        made=out,
        note="a process",
        ours=ours,
    )


def _by_containerd(given: Input, truth: Tally) -> Cell:
    """As its documents say to convert an image, in a containerd that has only this one: import,
    convert, export."""
    name = "ctr-remote convert --estargz"
    if os.geteuid():
        return unable(name, "containerd needs root")
    stack = ExitStack()
    made = given.folder / "by-containerd.tar"
    engines: list[Containerd] = []

    def before() -> None:
        if not engines:
            engines.append(stack.enter_context(containerd()))
        made.unlink(missing_ok=True)

    def run() -> None:
        remote = partial(engines[0].run, "ctr-remote", "images")
        remote("import", "--index-name", _NAME, archive(given))
        remote("convert", "--oci", "--estargz", _NAME, f"{_NAME}-esgz")
        remote("export", made, f"{_NAME}-esgz")
        engines[0].forget()

    return Cell(
        name,
        run,
        lambda _: truth.check(files_of(f"oci-archive:{made}")),
        before,
        stack.close,
        made=made,
        note="import, convert (level 9, its default), export; containerd runs already",
    )


def archive(given: Input) -> Path:
    """The image's layout as a tar, which containerd imports."""
    path = given.folder / "layout.tar"
    if not path.exists():
        with tarfile.open(path, "w") as tar:
            for below in sorted(given.layout.iterdir()):
                tar.add(below, below.name)
    return path


def files_of(src: str) -> Tally:
    """The files of an image as a container sees them."""
    from stargz.oci.image import open_image

    with open_image(src, cache=False, index="build") as image:
        return tally.of_image(image, Tally())


# --- containerd -------------------------------------------------------------------------------


class Containerd:
    """A running containerd, of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "containerd.sock"

    def run(self, *command: object) -> None:
        """Run ctr or ctr-remote against it."""
        children.run(*command, env=self._environment)

    def forget(self) -> None:
        """Remove all images and their blobs."""
        names = children.output("ctr", "images", "ls", "-q", env=self._environment).decode()
        if names:
            self.run("ctr", "images", "rm", "--sync", *names.split())

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CONTAINERD_ADDRESS": str(self.socket)}

    @property
    def configuration(self) -> str:
        """All that it keeps is below its folder. JSON's strings are TOML's."""
        return f"""
            version = 2
            root = {json.dumps(str(self.folder / "root"))}
            state = {json.dumps(str(self.folder / "state"))}
            disabled_plugins = ["io.containerd.grpc.v1.cri"]
            [grpc]
            address = {json.dumps(str(self.socket))}
            [plugins."io.containerd.internal.v1.opt"]
            path = {json.dumps(str(self.folder / "opt"))}
        """


@contextmanager
def containerd() -> Iterator[Containerd]:
    """A containerd, gone with all that it keeps at the end. (Its path is short: a socket is in
    it.)"""
    with ExitStack() as stack:
        usual = tempfile.gettempdir()
        short = usual if len(usual) < _SOCKET_ROOM else "/tmp"
        folder = Path(tempfile.mkdtemp(prefix="stargz-bench-", dir=trees.memory() or short))
        stack.callback(trees.gone, folder)
        engine = Containerd(folder)
        (folder / "config.toml").write_text(engine.configuration)
        words = ("containerd", "-c", folder / "config.toml")
        ready: Callable[[], bool] = engine.socket.exists
        stack.enter_context(children.served(*words, ready=ready, log=folder / "log"))
        yield engine


MEASUREMENTS = (
    Measurement(
        "image", "Convert an image", "from a layout to another: layers, config, manifest", convert
    ),
)
