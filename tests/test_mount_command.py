"""`stargz mount` as users run it: in the background, with its options, and to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from blobs import tar_of
from command import command, environment, fails, ok
from layouts import image
from mounts import cli_mount, foreground, listed, mount_line, needs_fuse, servers, wait_for

import stargz

FILES = [("a", b"first"), ("b", b"second" * 1000), ("d", None), ("d/c", b"third"), ("z", b"last")]


@pytest.fixture(scope="module", autouse=True)
def fuse() -> None:
    needs_fuse()


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    (tmp_path / "tar").write_bytes(tar_of(FILES))
    stargz.convert(tmp_path / "tar", tmp_path / "layer")
    return tmp_path / "layer"


def test_background_and_umount(layer: Path, tmp_path: Path) -> None:
    with cli_mount(layer, directory=tmp_path / "mnt") as directory:
        assert (directory / "d/c").read_bytes() == b"third"
        assert len(servers(directory)) == 1
        subprocess.run(["umount", directory], check=True)
        wait_for(lambda: not servers(directory))
        assert listed(directory) == []


def test_sigterm_unmounts(layer: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with cli_mount("--log", log, layer, directory=tmp_path / "mnt") as directory:
        assert (directory / "b").read_bytes() == b"second" * 1000
        (process,) = servers(directory)
        os.kill(process, signal.SIGTERM)
        wait_for(lambda: not servers(directory))
        assert not mount_line(directory)
    lines = log.read_text().splitlines()
    assert len(lines) == 1, lines
    assert f"{directory}: touched 1 of 6 files, 6,000 of 6,014 bytes" in lines[0]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_foreground_codes(layer: Path, tmp_path: Path, number: int, code: int) -> None:
    with foreground(layer, directory=tmp_path / "mnt") as process:
        assert (tmp_path / "mnt/a").read_bytes() == b"first"
        process.send_signal(number)
        assert process.wait(20) == code
        assert not mount_line(tmp_path / "mnt")
        assert process.stderr is not None
        assert "touched 1 of 6 files" in process.stderr.read()


def test_errors_come_before_it_detaches(layer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "mnt"
    assert "no such directory" in fails(1, "mount", layer, directory)
    directory.mkdir()
    assert "No such file" in fails(1, "mount", tmp_path / "none", directory)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(layer.read_bytes()[:-60])
    assert str(damaged) in fails(1, "mount", damaged, directory)
    wrong = "sha256:" + "0" * 64
    assert wrong in fails(3, "mount", "--toc-digest", wrong, layer, directory)
    assert "needs --allow-host or --local" in fails(2, "mount", directory)
    assert "give DIR alone" in fails(2, "mount", "--local", tmp_path, layer, directory)
    assert not mount_line(directory)
    assert not servers(directory)
    with cli_mount(layer, directory=directory):
        assert "has something mounted there" in fails(1, "mount", layer, directory)


def test_without_the_device(layer: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    script = 'mount -t tmpfs none /dev && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command("mount", layer, tmp_path / "mnt")],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 1
    assert "/dev/fuse is missing" in done.stderr


def test_a_dead_mount_is_named(layer: Path, tmp_path: Path) -> None:
    with cli_mount(layer, directory=tmp_path / "mnt") as directory:
        (process,) = servers(directory)
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: not servers(directory))
        assert "whose process has ended" in fails(1, "mount", layer, directory)


def test_image_is_merged(tmp_path: Path) -> None:
    image(tmp_path / "image", [tar_of(FILES), tar_of([(".wh.a", b""), ("d/new", b"n")])])
    with cli_mount(f"oci:{tmp_path / 'image'}", directory=tmp_path / "mnt") as directory:
        assert listed(directory) == ["b", "d", "z"]
        assert listed(directory / "d") == ["c", "new"]
        assert (directory / "d/new").read_bytes() == b"n"
    one = ("--layer", "1", f"oci:{tmp_path / 'image'}")
    with cli_mount(*one, directory=tmp_path / "mnt") as directory:
        assert (directory / "a").read_bytes() == b"first"


def test_record_orders_the_next_conversion(layer: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    with cli_mount("--record", record, layer, directory=tmp_path / "mnt") as directory:
        for name in ("z", "d/c", "z"):
            assert (directory / name).read_bytes()
        (process,) = servers(directory)
        os.kill(process, signal.SIGUSR1)
        wait_for(record.exists)
        rows = [json.loads(line) for line in record.read_text().splitlines()]
        assert [row["path"] for row in rows] == ["z", "d/c"]
        assert (directory / "a").read_bytes() == b"first"
        os.kill(process, signal.SIGTERM)
        wait_for(lambda: not servers(directory))
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(row["path"], row["bytes"]) for row in rows] == [("z", 4), ("d/c", 5), ("a", 5)]
    assert {row["layer"] for row in rows} == {str(layer)}
    assert 0 < rows[0]["first"] < rows[1]["first"] < rows[2]["first"] < 60
    ok("convert", "-q", "--prioritize-from", record, tmp_path / "tar", tmp_path / "next")
    with stargz.open(tmp_path / "next") as opened:
        names = [name for name in opened.names() if opened.entry(name).type == "reg"]
        assert names == ["z", "d/c", "a", ".prefetch.landmark", "b"]


UNPRIVILEGED = """\
mknod "$1/fuse" c 10 229 && chmod 666 "$1/fuse" && mount --bind "$1/fuse" /dev/fuse || exit 9
shift
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_read_search \\
    --ambient-caps=+dac_read_search "$@"
"""


def test_as_another_user(layer: Path, tmp_path: Path, tool: Callable[[str], str]) -> None:
    """By fusermount3. (The capability is to read Python itself, wherever it is.)"""
    tool("fusermount3")
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    directory = tmp_path / "mnt"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    (tmp_path / "inner.py").write_text(
        "import os, subprocess, sys\n"
        "import stargz.mount\n"
        "with stargz.mount.mount(sys.argv[1], sys.argv[2]) as m:\n"
        "    print(open(sys.argv[2] + '/d/c').read())\n"
        "    print([l for l in open('/proc/mounts') if sys.argv[2] in l][0])\n"
        "print(os.listdir(sys.argv[2]))\n"
        "try:\n"
        "    stargz.mount.mount(sys.argv[1], sys.argv[2], dev=True)\n"
        "except stargz.StargzError as error:\n"
        "    print(error)\n"
    )
    words = [*command()[:1], tmp_path / "inner.py", layer, directory]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", UNPRIVILEGED, "sh", tmp_path, *words],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "third"
    assert "fuse.stargz ro,nosuid,nodev" in lines[1] and "default_permissions" in lines[1]
    assert lines[3:] == ["[]", "--dev and --suid are for root alone"]
