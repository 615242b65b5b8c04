"""Real kernel mounts for tests, which are gone when the test is, however it ended."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from absence import absent
from command import command, environment, run

XATTR = "SCHILY.xattr."
# cap_net_raw=ep, as the kernel stores it (linux/capability.h: version 2, effective).
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def needs_fuse() -> None:
    """Skip where the kernel's FUSE is not to be had."""
    if not Path("/dev/fuse").exists():
        pytest.skip("/dev/fuse is missing: no FUSE mounts on this machine")
    if os.geteuid() != 0:
        absent("these tests mount as root")


def clean_up(directory: Path) -> None:
    """Whatever is mounted there goes, from sight at least."""
    for _ in range(8):
        if subprocess.run(["umount", "-l", directory], capture_output=True).returncode:
            return


def listed(directory: Path) -> list[str]:
    """The names in a directory, sorted."""
    return sorted(entry.name for entry in directory.iterdir())


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds, which takes no time as a rule."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def mount_line(directory: Path) -> list[str]:
    """What /proc/mounts says of a directory: source, directory, type, options; [] if nothing."""
    for line in Path("/proc/mounts").read_text().splitlines():
        words = line.split(" ")
        if words[1] == str(directory):
            return words
    return []


def servers(directory: Path) -> list[int]:
    """The processes that `stargz mount ... DIRECTORY` left in the background."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            state = path.with_name("stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if b"mount" in words and os.fsencode(directory) in words and state != "Z":
            found.append(int(path.parent.name))
    return found


@contextmanager
def cli_mount(*args: object, directory: Path, **options: Any) -> Iterator[Path]:
    """`stargz mount ARGS DIRECTORY`, in the background; it must work."""
    directory.mkdir(exist_ok=True)
    try:
        done = run("mount", *args, directory, **options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        yield directory
    finally:
        clean_up(directory)
        for process in servers(directory):
            os.kill(process, signal.SIGTERM)
        try:
            wait_for(lambda: not servers(directory))
        finally:
            for process in servers(directory):
                os.kill(process, signal.SIGKILL)


@contextmanager
def foreground(*args: object, directory: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """`stargz mount --foreground ARGS DIRECTORY`, from when it says that it works."""
    directory.mkdir(exist_ok=True)
    process = subprocess.Popen(
        command("mount", "--foreground", "-v", *args, directory),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line == f"stargz: {directory}: mounted\n":
                break
        yield process
    finally:
        clean_up(directory)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()


# Directories that only other names imply; what extraction makes of them has another time.
IMPLIED = ("dev", "many", "usr", "usr/lib", "usr/lib/deep", "ü")


def root_tar() -> bytes:
    """Every kind of file, owners, modes, times, xattrs, a capability, hard links, deep names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **keys: Any) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode, info.mtime = kind, len(data), 0o644, 1_700_000_000
            for key, value in keys.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))

        def xattrs(**values: bytes) -> dict[str, str]:
            return {XATTR + key.replace("__", "."): value.decode() for key, value in values.items()}

        add("./", tarfile.DIRTYPE, mode=0o755, mtime=1_600_000_000)
        add("etc/", tarfile.DIRTYPE, mode=0o750, uid=7, gid=8, mtime=1_234_567_890)
        add("etc/passwd", data=b"root:x:0:0\n", uid=1000, gid=100, mtime=1)
        add("etc/shadow", data=b"secret\n", mode=0o600)
        add("etc/empty", mode=0o444)
        add("bin/", tarfile.DIRTYPE, mode=0o755)
        add("bin/large", data=os.urandom(1 << 20) + bytes(9 << 20), mode=0o755)
        add(
            "bin/ping",
            data=b"#!/bin/true\n",
            mode=0o755,
            pax_headers=xattrs(security__capability=CAPABILITY),
        )
        add("bin/hard", tarfile.LNKTYPE, linkname="bin/large")
        add("usr/lib/deep/er", tarfile.DIRTYPE, mode=0o700)
        add("usr/lib/hard2", tarfile.LNKTYPE, linkname="bin/large")
        add("usr/x", data=b"x", pax_headers=xattrs(user__a=b"1", user__b=b"two\1"))
        add("usr/soft", tarfile.SYMTYPE, linkname="../etc/passwd", mode=0o777)
        add("usr/dangling", tarfile.SYMTYPE, linkname="/nowhere", mode=0o777)
        add("usr/suid", data=b"suid", mode=0o4755)
        add("usr/sticky", tarfile.DIRTYPE, mode=0o1777)
        add("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add("dev/big", tarfile.BLKTYPE, devmajor=259, devminor=70_000)
        add("dev/fifo", tarfile.FIFOTYPE)
        add("n" * 255, data=b"the longest name")
        add("ü/ñ", data="ü".encode())
        for number in range(1000):
            add(f"many/{number:04}", data=b"%d" % number)
    return out.getvalue()
