"""README's snippets are run as they stand, and what it claims in numbers is checked."""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import layouts
import pytest
from command import environment, sha256
from mounts import needs_fuse
from registries import registry

import stargz
from stargz.cli import COMMANDS
from stargz.oci.image import open_image
from stargz.options import CHUNK_SIZES, MAX_TOC_SIZE

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(mark: str) -> str:
    """The one code block that follows `<!-- mark -->`."""
    found = re.findall(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```$", README, re.M | re.S)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the layer.tar.gz that the snippets talk of."""
    files = {
        "etc/passwd": b"root:x:0:0\n",
        "usr/bin/tool": b"#!/bin/sh\n" * 1000,
        "usr/share/table.csv": b"name,bytes\nlayer,123\n",
    }
    with tarfile.open(tmp_path / "layer.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return tmp_path


def test_python(folder: Path) -> None:
    code = block("python")
    assert len(code.splitlines()) == 6
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['passwd'] b'root:x:0:0\\n'\n"
    assert (folder / "root/usr/bin/tool").stat().st_size == 10000
    assert not (folder / "root/etc").exists()


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script where `stargz` is the command that is tested."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    program = bin_folder / "stargz"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stargz "$@"\n')
    program.chmod(0o755)
    env = environment()
    env["PATH"] = f"{bin_folder}:{env['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env=env, capture_output=True, text=True,
    )  # fmt: skip


def test_every_command_is_shown() -> None:
    assert set(re.findall(r"\bstargz ([a-z]+)", README)) >= set(COMMANDS)


def test_shell(folder: Path) -> None:
    script = block("shell")
    (folder / "root").mkdir()
    done = shell(script, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "root:x:0:0\n" in done.stdout
    assert (folder / "root/usr/bin/tool").stat().st_size == 10000
    toc_digest = re.search(r"^toc_digest +(sha256:\w+)$", done.stdout, re.M)
    assert toc_digest
    assert f"{toc_digest[1].removeprefix('sha256:')}  -\n" in done.stdout
    piped = (folder / "piped.stargz").read_bytes()
    assert sha256(piped) != sha256((folder / "layer.stargz").read_bytes())  # level 2


@pytest.fixture
def project(folder: Path) -> Path:
    """The directory that is packed, and a `ssh` whose far side is the folder "builder"."""
    (folder / "project/node_modules").mkdir(parents=True)
    (folder / "project/.dockerignore").write_text("node_modules\n")
    (folder / "project/node_modules/big").write_bytes(bytes(100_000))
    (folder / "project/same").write_bytes(bytes(range(256)) * 100)
    (folder / "project/edited").write_text("before\n")
    return folder


def test_pack(project: Path) -> None:
    script = block("pack")
    assert len(script.splitlines()) == 4
    lines = script.splitlines(keepends=True)
    far = project / "builder"
    far.mkdir()
    ssh = project / "ssh"
    ssh.write_text(f'#!/bin/sh\n[ "$1" = builder ] && cd {far} && shift && exec "$@"\n')
    ssh.chmod(0o755)
    lines.insert(1, "cp first.stargz builder/; echo after > project/edited\n")
    done = shell("PATH=$PWD:$PATH\n" + "".join(lines), project)
    assert (done.returncode, done.stderr) == (0, "")
    assert (far / "next.stargz").read_bytes() == (project / "next.stargz").read_bytes()
    with stargz.open(far / "next.stargz") as layer:
        assert layer.read("edited") == b"after\n"
        assert "node_modules" not in layer
    assert "edited" in done.stdout
    assert "same" not in done.stdout


def test_pack_from_python(project: Path) -> None:
    stargz.pack(project / "project", project / "first.stargz")
    (project / "project/edited").write_text("after\n")
    done = subprocess.run(
        [sys.executable, "-c", block("pack-python")],
        cwd=project, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    digest = sha256((project / "next.stargz").read_bytes())
    assert done.stdout == f"['edited']\n{digest}\n"
    assert (project / "rebuilt.stargz").read_bytes() == (project / "next.stargz").read_bytes()


def test_mount(folder: Path) -> None:
    needs_fuse()
    stargz.convert(folder / "layer.tar.gz", folder / "layer.stargz")
    script = block("mount")
    assert len(script.splitlines()) == 4
    done = shell(script, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "passwd\nroot:x:0:0\n" in done.stdout
    assert not (folder / "mnt").is_mount()


def test_mount_from_python(folder: Path) -> None:
    needs_fuse()
    stargz.convert(folder / "layer.tar.gz", folder / "layer.stargz")
    layouts.image(folder / "layout", [folder / "layer.tar.gz"])
    (folder / "mnt").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", block("mount-python")],
        cwd=folder, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"root:x:0:0\n\nsha256:\w{64} \['passwd'\]\n", done.stdout)


@pytest.fixture
def hosts(folder: Path) -> Iterator[tuple[str, str]]:
    """A registry with app:1.0, and an empty one."""
    layout = layouts.Layout(folder / "layout")
    tar = gzip.decompress((folder / "layer.tar.gz").read_bytes())
    layout.tag(layout.manifest([layout.plain_layer(tar)]))
    with registry(folder / "one") as full, registry(folder / "two") as empty:
        full.push(layout.path, "app", "1.0")
        yield full.host, empty.host


def test_image(folder: Path, hosts: tuple[str, str]) -> None:
    script = block("image")
    assert len(script.splitlines()) == 3
    done = shell(script.replace("registry.example", hosts[0]), folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nok: " in done.stdout
    assert done.stdout.endswith(" passwd\n")


def test_bulk(folder: Path, hosts: tuple[str, str]) -> None:
    script = block("bulk")
    assert len(script.splitlines()) == 3
    script = script.replace("registry.example", hosts[0]).replace("mirror.example", hosts[1])
    done = shell(f"export XDG_STATE_HOME=$PWD/state\n{script}", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"(\d) converted, (\d) unchanged", done.stdout) == [("1", "0"), ("0", "1")]
    assert b"app:1.0" in (folder / "report.html").read_bytes()
    with open_image(f"docker://{hosts[1]}/app:1.0") as image:
        assert image.verified
        assert image.layers[0].read("etc/passwd") == b"root:x:0:0\n"


@pytest.mark.usefixtures("hosts")
def test_images_from_python(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("image-python")],
        cwd=folder, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    digest = r"sha256:\w{64}"
    assert re.match(rf"{digest} \['{digest}'\]\n{{'images': 1, 'converted': 1,", done.stdout)


def test_fsspec(folder: Path) -> None:
    stargz.convert(folder / "layer.tar.gz", folder / "layer.stargz")
    code = block("fsspec")
    assert len(code.splitlines()) == 4
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['etc/passwd']\n")
    assert "layer    123" in done.stdout


@pytest.mark.parametrize(("mark", "ending"), [("demo", "stargz demo"), ("test", "pytest")])
def test_install_commands_are_one_complete_line(mark: str, ending: str) -> None:
    line = block(mark)
    assert line.count("\n") == 1
    subprocess.run(["bash", "-n", "-c", line], check=True)
    for word in ("apt-get update", "python3-venv", "gcc", "python3 -m venv .venv", "pip install"):
        assert word in line
    assert line.strip().endswith(f".venv/bin/{ending}")


def test_the_stated_limits_are_the_codes() -> None:
    assert MAX_TOC_SIZE == 1 << 30
    assert (CHUNK_SIZES[0], CHUNK_SIZES[-1]) == (1 << 10, 1 << 30)
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    assert 'requires-python = ">=3.11"' in pyproject.read_text()
