"""Reading from servers on loopback: the cost of one small file, and a whole image by a mount."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import stargz
from bench import images
from stargz.benchmark.mounts import read_all

SMALL_FILE = "etc/debian_version"


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "stargz", *map(str, args)]


def test_cat_over_http(debian: Path, tmp_path: Path, compare: Any) -> None:
    import servers

    served = tmp_path / "served"
    served.mkdir()
    size = stargz.convert(debian, served / "layer").size
    with (
        servers.nginx(served, tmp_path / "nginx") as url,
        servers.FaultProxy(url) as counting,
    ):
        cat = ["cat", "--no-cache"]
        subprocess.run(
            command(*cat, f"{counting.url}/layer", SMALL_FILE),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        compare.figure("cat over HTTP: requests", counting.requests, "<= 4")
        compare.figure("cat over HTTP: % of the bytes", 100 * counting.bytes / size, "<= 1")

        def ours() -> None:
            subprocess.run(
                command(*cat, f"{url}/layer", SMALL_FILE), check=True, stdout=subprocess.DEVNULL
            )

        def whole() -> None:
            """The way without an index."""
            script = f"curl -sSf {url}/layer | tar -xzO ./{SMALL_FILE}"
            subprocess.run(["sh", "-c", script], check=True, capture_output=True)

        seconds = compare.medians(ours, {"curl | tar": whole})
        compare.figure("cat over HTTP: seconds", seconds["ours"])
        faster = seconds["curl | tar"] / seconds["ours"]
        compare.figure("cat over HTTP: times as fast as curl and tar", faster)


def test_whole_image(tmp_path: Path, compare: Any) -> None:
    root, folders = tmp_path / "root", tmp_path / "folders"
    for path in (root, folders):
        path.mkdir(mode=0o700)

    def fresh() -> Path:
        """Nothing is deleted between the runs: ext4 makes files ten times as slowly while it
        avoids the inodes that were freed half a minute ago."""
        return Path(tempfile.mkdtemp(dir=folders))

    storage = tmp_path / "registry"
    plain, _ = images.plain(tmp_path / "plain")
    images.push(storage, {"plain": plain, "seekable": images.seekable(tmp_path / "seekable")})
    with images.serve(storage, "127.0.0.1", []) as host:

        def mounted(*more: str) -> None:
            options = ["--require-verified", "--cache-dir", fresh(), *more]
            subprocess.run(
                command("-q", "mount", f"docker://{host}/seekable", root, *options), check=True
            )

        def ours() -> None:
            mounted()
            read_all(root)
            subprocess.run(["umount", root], check=True)

        def pulled() -> None:
            work = fresh()
            copy = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{host}/plain"]
            subprocess.run([*copy, f"oci:{work}/layout:image"], check=True)
            unpack = ["umoci", "--log", "error", "unpack", "--image", f"{work}/layout:image"]
            subprocess.run([*unpack, work / "bundle"], check=True)
            read_all(work / "bundle/rootfs")

        def first_byte() -> None:
            mounted("--no-background")
            (root / SMALL_FILE).read_bytes()

        def clean() -> None:
            subprocess.run(["umount", root], check=False, capture_output=True)

        seconds = compare.medians(
            ours,
            {"skopeo, umoci": pulled, "first byte": first_byte},
            rounds=3,
            between=clean,
        )
        clean()
    compare.figure("whole image by mount, verified: seconds", seconds["ours"], "<= 2.5")
    compare.figure(
        "whole image by mount: times as fast as skopeo, umoci and tar",
        seconds["skopeo, umoci"] / seconds["ours"],
    )
    compare.figure("mount of an image to its first byte: seconds", seconds["first byte"], "<= 0.3")
