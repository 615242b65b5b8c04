"""`stargz mount` as users run it: in the background, with its options, and to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from blobs import build, tar_of
from command import command, environment, fails, ok, run, shell_environment
from layouts import image
from mounts import (
    clean_up,
    cli_mount,
    foreground,
    listed,
    mount_line,
    needs_fuse,
    servers,
    wait_for,
)
from servers import Fault, FaultProxy, nginx

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
    assert f"{directory}: touched 1 of 6 entries, 6,000 of 6,014 bytes" in lines[0]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_foreground_codes(layer: Path, tmp_path: Path, number: int, code: int) -> None:
    with foreground(layer, directory=tmp_path / "mnt") as process:
        assert (tmp_path / "mnt/a").read_bytes() == b"first"
        process.send_signal(number)
        assert process.wait(20) == code
        assert not mount_line(tmp_path / "mnt")
        assert process.stderr is not None
        assert "touched 1 of 6 entries" in process.stderr.read()


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
    script = 'mount -t tmpfs none /dev && exec env LD_PRELOAD="$PRELOADED" "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command("mount", layer, tmp_path / "mnt")],
        capture_output=True,
        text=True,
        env=shell_environment(),
    )
    assert done.returncode == 1
    assert "/dev/fuse is missing" in done.stderr


def test_a_dead_mount_is_named(layer: Path, tmp_path: Path) -> None:
    with cli_mount(layer, directory=tmp_path / "mnt") as directory:
        (process,) = servers(directory)
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: not servers(directory))
        assert "whose process has ended" in fails(1, "mount", layer, directory)


def test_killed_before_it_is_there(tmp_path: Path) -> None:
    """As a system without memory does it: the command says so for the process in the background."""
    with FaultProxy("http://127.0.0.1:9") as proxy:
        proxy.plan = lambda request: Fault(status=200, body=bytes(99), stall_after=1)
        words = command("mount", f"{proxy.url}/layer", tmp_path)
        with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE) as process:
            wait_for(lambda: proxy.log)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            os.kill(int(children), signal.SIGKILL)
            _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said.decode().count("\n") == 1 and b"was killed before it was ready" in said


def test_json_says_who_serves(layer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "mnt"
    directory.mkdir()
    try:
        done = run("mount", "--json", layer, directory)
        assert (done.returncode, done.stderr) == (0, "")
        (process,) = servers(directory)
        assert json.loads(done.stdout) == {
            "dir": str(directory),
            "src": str(layer),
            "pid": process,
        }
        os.kill(process, signal.SIGTERM)
        wait_for(lambda: not servers(directory))
    finally:
        clean_up(directory)
    with foreground("--json", "--local", tmp_path, directory=directory) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(5)]
        assert json.loads("".join(lines)) == {
            "dir": str(directory),
            "src": None,
            "pid": running.pid,
        }


def test_places_are_checked_before_it_detaches(layer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "mnt"
    directory.mkdir()
    none = tmp_path / "none"
    assert "--record" in fails(1, "mount", "--record", none / "file", layer, directory)
    assert "is a directory" in fails(1, "mount", "--record", tmp_path, layer, directory)
    for path in (none, layer):
        assert f"{path}: is not a directory" in fails(1, "mount", "--local", path, directory)
    for host in ("https://host.example", "host.example/path", "host.example:port"):
        assert "is not host[:port]" in fails(2, "mount", "--allow-host", host, directory)
    assert not mount_line(directory)


def test_one_of_several_at_once(layer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "mnt"
    directory.mkdir()
    try:
        started = [
            subprocess.Popen(
                command("mount", layer, directory),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            for _ in range(4)
        ]
        said = [process.communicate(timeout=60)[1] for process in started]
        assert sorted(process.returncode for process in started) == [0, 1, 1, 1], said
        assert sum("has something mounted there" in text for text in said) == 3
        assert (directory / "a").read_bytes() == b"first"
        subprocess.run(["umount", directory], check=True)
        wait_for(lambda: not servers(directory))
        assert not mount_line(directory)
    finally:
        clean_up(directory)


FORKED = """
import gc, os, signal, sys
from stargz.mount import mount
made = mount(sys.argv[1], sys.argv[2])
with made:
    child = os.fork()
    if child == 0:
        how = sys.argv[3]
        if how == "unmount":
            made.unmount()
            made.unmount()
        elif how == "forget":
            made._server = None
            gc.collect()
        if how == "stay":
            print("there", flush=True)
            signal.pause()
        elif how != "leave":
            sys.exit(7)
    elif sys.argv[3] == "stay":
        signal.pause()
    else:
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), open(sys.argv[2] + "/a").read(), flush=True)
if child == 0:
    sys.exit(8)
print(os.listdir(sys.argv[2]))
"""


@pytest.mark.parametrize("how, code", [("unmount", 7), ("exit", 7), ("forget", 7), ("leave", 8)])
def test_a_forked_child_has_no_part_in_it(layer: Path, tmp_path: Path, how: str, code: int) -> None:
    (tmp_path / "mnt").mkdir()
    done = subprocess.run(
        [*command()[:1], "-c", FORKED, layer, tmp_path / "mnt", how],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{code} first", "[]"]


def test_a_forked_child_keeps_no_dead_mount_alive(layer: Path, tmp_path: Path) -> None:
    """Else reads would wait for a process that is gone."""
    directory = tmp_path / "mnt"
    directory.mkdir()
    process = subprocess.Popen(
        [*command()[:1], "-c", FORKED, layer, directory, "stay"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        process_group=0,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.kill()
        process.wait()
        done = subprocess.run(["ls", directory], capture_output=True, text=True, timeout=20)
        assert "not connected" in done.stderr
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        clean_up(directory)


def test_a_record_goes_over_no_link(layer: Path, tmp_path: Path) -> None:
    """And what is written is as the umask says."""
    kept = tmp_path / "kept"
    kept.write_text("kept")
    (tmp_path / "mnt").mkdir()
    (tmp_path / "out").mkdir()
    record = tmp_path / "out/record"
    record.symlink_to(kept)
    script = (
        "import os, sys\n"
        "from stargz.mount import mount, record\n"
        "os.umask(0o027)\n"
        "with mount(sys.argv[1], sys.argv[2]) as made:\n"
        "    os.symlink(sys.argv[4], f'{os.path.dirname(sys.argv[3])}/.record.{os.getpid()}')\n"
        "    open(sys.argv[2] + '/z').read()\n"
        "    print(record.write(made, sys.argv[3]))\n"
    )
    done = subprocess.run(
        [*command()[:1], "-c", script, layer, tmp_path / "mnt", record, kept],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert kept.read_text() == "kept"
    assert not record.is_symlink() and json.loads(record.read_text())["path"] == "z"
    assert record.stat().st_mode & 0o777 == 0o640
    assert len(listed(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    "name", ["with space", "back\\slash", "\\040", "tab\there", "l\nf", "\u00fc#"]
)
def test_any_name_of_a_directory(layer: Path, tmp_path: Path, name: str) -> None:
    from stargz.mount import MountError, mount

    directory = tmp_path / name
    directory.mkdir()
    try:
        with mount(layer, directory):
            assert (directory / "a").read_bytes() == b"first"
            with pytest.raises(MountError, match="has something mounted there"):
                mount(layer, directory)
        assert listed(directory) == []
    finally:
        clean_up(directory)


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
    --ambient-caps=+dac_read_search env LD_PRELOAD="$PRELOADED" "$@"
"""


# ... with /etc/fuse.conf as it must be for --allow-other, and what is mounted afterwards.
ALLOWED = """\
echo user_allow_other > "$1/conf"
mount --bind "$1/conf" /etc/fuse.conf || exit 9
directory=$1/mnt
(UNPRIVILEGED)
echo "ended with $?"
for try in $(seq 100); do
    grep -q " $directory " /proc/mounts || break
    sleep 0.05
done
ls -A "$directory" && echo gone
""".replace("UNPRIVILEGED", UNPRIVILEGED)


def open_to_others(tmp_path: Path) -> Path:
    """The directory to mount on as a user who is nobody."""
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    directory = tmp_path / "mnt"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    return directory


@pytest.mark.skipif(not Path("/etc/fuse.conf").exists(), reason="/etc/fuse.conf is missing")
def test_fusermount_cleans_up_where_it_can(
    layer: Path, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """With --allow-other it is left running, and unmounts after a process that was killed."""
    tool("fusermount3")
    directory = open_to_others(tmp_path)
    (tmp_path / "inner.py").write_text(
        "import os, signal, sys\n"
        "import stargz.mount\n"
        "m = stargz.mount.mount(sys.argv[1], sys.argv[2], allow_other=True)\n"
        "print(open(sys.argv[2] + '/d/c').read(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = [*command()[:1], tmp_path / "inner.py", layer, directory]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", ALLOWED, "sh", tmp_path, *words],
        capture_output=True,
        text=True,
        env=shell_environment(),
        timeout=60,
    )
    assert done.stdout.splitlines() == ["third", "ended with 137", "gone"], done.stderr


def test_as_another_user(layer: Path, tmp_path: Path, tool: Callable[[str], str]) -> None:
    """By fusermount3. (The capability is to read Python itself, wherever it is.)"""
    tool("fusermount3")
    directory = open_to_others(tmp_path)
    (tmp_path / "inner.py").write_text(
        "import os, subprocess, sys\n"
        "import stargz.mount\n"
        "with stargz.mount.mount(sys.argv[1], sys.argv[2]) as m:\n"
        "    print(open(sys.argv[2] + '/d/c').read())\n"
        "    print([l for l in open('/proc/mounts') if sys.argv[2] in l][0])\n"
        "    print(open(f'/proc/self/task/{os.getpid()}/children').read().split())\n"
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
        env=shell_environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "third"
    assert "fuse.stargz ro,nosuid,nodev" in lines[1] and "default_permissions" in lines[1]
    assert lines[3:] == ["[]", "[]", "--dev and --suid are for root alone"]


def test_a_log_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    """Neither for those who read, nor for the process."""
    data = bytearray(build(tar_of(FILES)).data)
    with stargz.open(bytes(data)) as whole:
        data[whole.chunks("a")[0].offset + 12] ^= 0xFF
    damaged = tmp_path / "layer"
    damaged.write_bytes(data)
    with cli_mount("--log", "/dev/full", damaged, directory=tmp_path / "mnt") as directory:
        (process,) = servers(directory)
        for _ in range(4):
            with pytest.raises(OSError):
                (directory / "a").read_bytes()
        for _ in range(20):
            os.kill(process, signal.SIGUSR1)
        assert (directory / "z").read_bytes() == b"last"
        assert servers(directory) == [process]


def test_options_of_a_layer_are_refused_for_an_image(layer: Path, tmp_path: Path) -> None:
    made = image(tmp_path / "layout", [tar_of(FILES)])
    directory = tmp_path / "mnt"
    directory.mkdir()
    for option in (["--toc-digest", "sha256:" + "0" * 64], ["--toc", str(layer)]):
        line = fails(2, "mount", *option, f"oci:{made.path}", directory)
        assert f"{option[0]} is for one layer" in line


def test_mounts_show_no_secrets(layer: Path, tmp_path: Path) -> None:
    with nginx(layer.parent, tmp_path / "nginx") as url:
        secret = f"{url.replace('://', '://user:hunter2@')}/layer?X-Signature=s3cret"
        with cli_mount("--no-cache", secret, directory=tmp_path / "mnt") as directory:
            assert listed(directory) == ["a", "b", "d", "z"]
            line = " ".join(mount_line(directory))
            assert "127.0.0.1" in line
            assert "hunter2" not in line and "s3cret" not in line
