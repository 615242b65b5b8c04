"""`stargz demo`: the whole of it once, and its tar."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sysconfig
import tarfile
import tempfile
import time
from pathlib import Path

import pytest
from command import command, environment, fails, ok, run, sha256

from stargz.cli import demo as demo_module
from stargz.cli import main
from stargz.cli._sample import write_tree
from stargz.cli.demo import make_tar


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """What the demo printed, where it kept its files, and the folder for temporary ones."""
    base = tmp_path_factory.mktemp("demo")
    (base / "tmp").mkdir()
    done = run("demo", "--keep", base / "kept", env={"TMPDIR": str(base / "tmp")})
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("stargz: ") for line in done.stderr.splitlines())
    return done.stdout, base / "kept", base / "tmp"


def test_demo_prints_a_table(demo: tuple[str, Path, Path]) -> None:
    text, kept, _ = demo
    lines = text.splitlines()
    assert lines[0].split() == ["seconds", "bytes"]
    labels = ("tar", "gzip -6", "stargz convert", "stargz verify", "one file of the tar.gz",
              "one file of the layer")  # fmt: skip
    for label, line in zip(labels, lines[1:], strict=False):
        assert line.startswith(f"{label} "), text
    for name in ("layer.tar", "layer.tar.gz", "layer.stargz"):
        assert f"{(kept / name).stat().st_size:,}" in text.split()


def test_demo_keeps_a_real_layer_and_leaves_nothing_else(demo: tuple[str, Path, Path]) -> None:
    _, kept, tmp = demo
    assert not list(tmp.iterdir())
    assert {path.name for path in kept.iterdir()} == {
        "layer.tar", "layer.tar.gz", "layer.stargz", "layout",
    }  # fmt: skip
    assert ok("verify", kept / "layer.stargz").startswith("ok: ")
    names = set(ok("ls", "-R", kept / "layer.stargz").splitlines())
    with tarfile.open(kept / "layer.tar") as tar:
        assert set(tar.getnames()) <= names
    assert "opt/python/lib/argparse.py" in names


def test_the_examples_can_be_tried_on_what_the_demo_kept(demo: tuple[str, Path, Path]) -> None:
    _, kept, _ = demo
    assert ok("cat", kept / "layer.stargz", "etc/passwd").startswith("root:")
    assert ok("ls", "-l", kept / "layer.stargz", "bin").endswith("bin -> usr/bin\n")
    ok("image", "convert", f"oci:{kept}/layout", f"oci:{kept}/lazy", "-q")
    assert ok("image", "cat", f"oci:{kept}/lazy", "usr/share/table.csv").startswith("name,")
    shutil.rmtree(kept / "lazy")


def test_demo_does_not_overwrite(demo: tuple[str, Path, Path]) -> None:
    _, kept, _ = demo
    before = sha256((kept / "layer.stargz").read_bytes())
    assert "layer.tar: already exists" in fails(1, "demo", "-q", "--keep", kept)
    assert sha256((kept / "layer.stargz").read_bytes()) == before


def test_demo_json_without_keep_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_module, "CAP", 2 << 20)  # once at full size is enough
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no gzip there: Python's own serves
    assert main(["demo", "--json", "-q"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert report["gzip"]["program"] == "Python's gzip"
    assert report["verify"]["ok"] is True
    assert report["convert"]["size"] > 0
    assert report["read"]["layer_seconds"] > 0
    assert not list(tmp_path.iterdir())


def test_the_tar_is_the_same_each_time_and_capped(tmp_path: Path) -> None:
    names = make_tar(tmp_path / "one.tar", 1 << 20)
    with tarfile.open(tmp_path / "tree.tar", "w") as tar:
        tree = len(write_tree(tar))
    assert make_tar(tmp_path / "two.tar", 1 << 20) == names
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        members = tar.getmembers()
        files = [member for member in members if member.isreg()]
        assert [member.name for member in files] == names
        assert 0 < sum(member.size for member in files[tree:]) <= 1 << 20
        assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "")}
        assert not any("__pycache__" in member.name for member in members)
        one = next(name for name in names if name.startswith("opt/python/lib/"))
        content = tar.extractfile(one).read()  # type: ignore[union-attr]
    source = Path(sysconfig.get_path("stdlib"), one.removeprefix("opt/python/lib/"))
    assert content == source.read_bytes()


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("demo", "-q"), env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        while not list(tmp_path.glob("*/layer.tar.gz")):  # gzip is at work
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() + process.stderr.read() == b""
    assert not list(tmp_path.iterdir())
