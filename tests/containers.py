"""Container engines for tests: containerd (with a snapshotter that pulls lazily) and podman.

with containerd(tmp_path, snapshotter=built) as engine:
    engine.run("ctr-remote", "images", "rpull", "--plain-http", f"{host}/some/image:latest")
    with engine.view(chain_id, tmp_path / "mnt", "stargz") as tree:
        ...

Everything they keep is below the folder they are given; they end with the block, and nothing
stays mounted.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from absence import absent
from mounts import clean_up
from registries import program
from trees import snapshot

# What converters add to a layer; mounts hide it.
ADDED = (".no.prefetch.landmark", ".prefetch.landmark", "stargz.index.json")


def tree(root: Path) -> dict[str, Any]:
    """trees.snapshot of an image's files: without the root itself, whose mode and time are the
    engine's own, and without what converters add."""
    return {
        name: value
        for name, value in snapshot(root, root_itself=False).items()
        if name not in ADDED
    }


def as_pulled(root: Path) -> dict[str, Any]:
    """Likewise, of what containers/storage makes of layers that it pulls in parts: no devices and
    pipes, of links only where they lead to, and of directories not the time."""
    kept: dict[str, Any] = {}
    for name, value in tree(root).items():
        if name == "one file":
            kept[name] = [[one for one in names if one in kept] for names in value]
        elif value[0][0] == "l":
            kept[name] = value[3]
        elif value[0][0] in "-d":
            kept[name] = value[:2] + value[2 + (value[0][0] == "d") :]
    return kept


def chain_id(diff_ids: Sequence[str]) -> str:
    """What containerd calls the snapshot of a stack of layers (OCI image-spec, config.md)."""
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()
    return chain


def needs_overlay(folder: Path) -> None:
    """Skip where the kernel cannot put an overlay upon this folder's file system, as it cannot
    where that is an overlay itself."""
    if os.geteuid() != 0:
        absent("these tests mount as root")
    for part in ("lower", "upper", "work", "merged"):
        (folder / part).mkdir()
    options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, folder / "merged"]
    done = _call(command, dict(os.environ))
    if done.returncode:
        pytest.skip(f"no overlays on this machine's {folder}: {done.stderr.strip()}")
    clean_up(folder / "merged")


def _call(command: Sequence[object], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env=env,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )


def _succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}: {done.stderr}{done.stdout}"
    return done.stdout


@contextmanager
def _child(command: Sequence[object], log: Path, socket: Path) -> Iterator[None]:
    """A daemon, from when its socket is there."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        until = time.monotonic() + 30
        while not socket.exists():
            alive = process.poll() is None and time.monotonic() < until
            assert alive, f"{command[0]} did not start: {log.read_text()}"
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _unmount_below(folder: Path) -> None:
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        directory = line.split(" ")[1]
        if directory.startswith(f"{folder}/"):
            clean_up(Path(directory))


# --- containerd -------------------------------------------------------------------------


@dataclass(frozen=True)
class Containerd:
    """A running containerd."""

    folder: Path
    snapshotter: str = "stargz"  # how the one is called that pulls lazily

    @property
    def log(self) -> str:
        """What that snapshotter said so far."""
        return (self.folder / "snapshotter.log").read_text()

    def try_run(self, *args: object) -> subprocess.CompletedProcess[str]:
        """Run ctr or ctr-remote against it."""
        environment = {**os.environ, "CONTAINERD_ADDRESS": str(self.folder / "containerd.sock")}
        own = self.folder / "bin" / str(args[0])
        return _call([own if own.exists() else program(str(args[0])), *args[1:]], environment)

    def run(self, *args: object) -> str:
        """Likewise; it must succeed. Its output."""
        return _succeeded(self.try_run(*args))

    @contextmanager
    def view(self, chain: str, directory: Path, snapshotter: str) -> Iterator[Path]:
        """The files of a snapshot, mounted at `directory`."""
        key = f"view-{directory.name}"
        snapshots = ("ctr", "snapshots", "--snapshotter", snapshotter)
        directory.mkdir()
        try:
            # It prints the command that mounts. What "view" makes may be collected at any time.
            words = self.run(*snapshots, "prepare", "--target", directory, key, chain).split()
            assert words[0] == "mount"
            _succeeded(_call(words, dict(os.environ)))
            yield directory
        finally:
            clean_up(directory)
            self.try_run(*snapshots, "rm", key)

    def lazily(self) -> list[Path]:
        """The layers that the snapshotter has mounted."""
        root = f"{self.folder}/snapshotter/"
        lines = [line.split(" ") for line in Path("/proc/mounts").read_text().splitlines()]
        return [
            Path(words[1])
            for words in lines
            if words[0] == self.snapshotter
            and words[2].startswith("fuse")
            and words[1].startswith(root)
        ]

    def forget(self) -> None:
        """Remove all images, their blobs and their snapshots."""
        names = self.run("ctr", "images", "ls", "-q").split()
        if names:
            self.run("ctr", "images", "rm", "--sync", *names)


@contextmanager
def containerd(folder: Path, snapshotter: Path | None = None) -> Iterator[Containerd]:
    """A containerd of its own below `folder` (not too long a path: sockets are in it), and the
    program `snapshotter` (tests/interop/snapshotter) as its snapshotter "stargz"."""
    with _containerd(Containerd(folder), [program("containerd")], _CONFIG, snapshotter) as engine:
        yield engine


@contextmanager
def containerd_with_soci(folder: Path, built: Path) -> Iterator[Containerd]:
    """Likewise containerd 2 with soci-snapshotter, which are both in the program that is `built`
    (tests/interop/soci/snapshotter). `ctr images pull --snapshotter soci` pulls lazily."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in ("containerd", "ctr", "snapshotter"):
        (programs / name).symlink_to(built)
    engine = Containerd(folder, "soci")
    command = [programs / "containerd"]
    with _containerd(engine, command, _CONFIG_2, programs / "snapshotter") as running:
        yield running


_CONFIG = """
    version = 2
    disabled_plugins = ["io.containerd.grpc.v1.cri"]
"""
# Who pulls tells a snapshotter what the layers are of only where it is said to want that.
_CONFIG_2 = """
    version = 3
    [proxy_plugins.soci.exports]
    enable_remote_snapshot_annotations = "true"
    [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = "linux"
    snapshotter = "overlayfs"
    [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = "linux"
    snapshotter = "soci"
"""


@contextmanager
def _containerd(
    engine: Containerd, command: Sequence[object], settings: str, snapshotter: Path | None
) -> Iterator[Containerd]:
    folder = engine.folder
    folder.mkdir(parents=True, exist_ok=True)
    socket, proxy = folder / "containerd.sock", folder / "snapshotter.sock"
    quoted = json.dumps  # JSON's strings are TOML's
    config = f"""
        root = {quoted(str(folder / "root"))}
        state = {quoted(str(folder / "state"))}
        {settings}
        [grpc]
        address = {quoted(str(socket))}
        [plugins."io.containerd.internal.v1.opt"]
        path = {quoted(str(folder / "opt"))}
    """
    if snapshotter is not None:
        config += f"""
        [proxy_plugins.{engine.snapshotter}]
        type = "snapshot"
        address = {quoted(str(proxy))}
        """
    (folder / "config.toml").write_text(config)
    command = [*command, "-c", folder / "config.toml"]
    try:
        with _child(command, folder / "containerd.log", socket):
            if snapshotter is None:
                yield engine
                return
            with _child(
                [snapshotter, proxy, folder / "snapshotter"], folder / "snapshotter.log", proxy
            ):
                yield engine
    finally:
        _unmount_below(folder)


# --- podman -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Podman:
    """podman with a storage of its own."""

    folder: Path
    runroot: Path
    driver: str

    def run(self, *args: object) -> str:
        """`podman ARGS`, which must succeed; its output without white space around it."""
        command = [program("podman"), "--root", self.folder / "root"]
        command += ["--runroot", self.runroot, "--storage-driver", self.driver]
        command += ["--tmpdir", self.folder / "state", "--events-backend", "none"]
        command += ["--cgroup-manager", "cgroupfs"]
        # Neither the machine's settings nor its accounts.
        environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "REGISTRY_AUTH_FILE": str(self.folder / "auth.json"),
            "TMPDIR": str(self.folder / "tmp"),
        }
        return _succeeded(_call([*command, *args], environment)).strip()

    @contextmanager
    def mount(self, image: str) -> Iterator[Path]:
        """The files of an image."""
        directory = Path(self.run("image", "mount", image))
        try:
            yield directory
        finally:
            self.run("image", "unmount", image)


@contextmanager
def podman(folder: Path, driver: str, *, partial: bool = False) -> Iterator[Podman]:
    """podman with what it keeps below `folder`; `driver` is vfs or overlay. `partial`: layers are
    pulled in parts where they can be, as distributions of podman 5 have it set."""
    program("podman")
    (folder / "tmp").mkdir(parents=True)
    # Networks are not needed, but podman wants a folder that could have their plugins, and a newer
    # one the program that makes them.
    helpers = json.dumps([str(folder / "tmp")])
    (folder / "tmp/netavark").touch(mode=0o755)
    # Locks are files in that folder: those in shared memory would be the same for every podman.
    (folder / "containers.conf").write_text(
        f"[network]\ncni_plugin_dirs = {helpers}\n"
        f'[engine]\nhelper_binaries_dir = {helpers}\nlock_type = "file"\n'
    )
    (folder / "auth.json").write_text("{}")
    with tempfile.TemporaryDirectory(dir="/tmp") as runroot:  # podman takes 50 characters
        lines = [
            f"driver = {json.dumps(driver)}",
            f"graphroot = {json.dumps(str(folder / 'root'))}",
        ]
        lines += [f"runroot = {json.dumps(runroot)}"]
        if partial:
            lines += ["[storage.options]", 'pull_options = { enable_partial_images = "true" }']
        (folder / "storage.conf").write_text("\n".join(["[storage]", *lines, ""]))
        engine = Podman(folder, Path(runroot), driver)
        try:
            yield engine
        finally:
            try:
                engine.run("system", "reset", "--force")
            finally:
                _unmount_below(folder)
                _unmount_below(Path(runroot))
