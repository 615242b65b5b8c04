"""Image layouts that are written, and what other programs make of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import blobs
import command
import layouts
import pytest

from stargz.errors import DigestError, FormatError, SourceError, StargzError, UsageError
from stargz.oci.destination import copy_blob, open_destination
from stargz.oci.formats.layout import Layout
from stargz.oci.formats.layout_writer import LayoutDestination
from stargz.oci.formats.manifest import Descriptor, Manifest
from stargz.oci.formats.reference import LayoutReference, Reference
from stargz.oci.image import load_image
from stargz.oci.repository import open_repository

DATA = b"any blob"
DIGEST = blobs.sha256(DATA)
ENTRY = Descriptor("", DIGEST, len(DATA))
INDEX = json.dumps({"schemaVersion": 2, "mediaType": layouts.OCI_INDEX, "manifests": []}).encode()


@pytest.fixture
def source(tmp_path: Path) -> layouts.Layout:
    tars = [blobs.varied_tar(), blobs.tar_of([("above", b"1")])]
    return layouts.image(tmp_path / "source", tars)


def copy(source: layouts.Layout, dst: str) -> Manifest:
    """The whole image."""
    with open_repository(f"oci:{source.path}") as there, open_destination(dst) as to:
        manifest = there.root()
        for entry in (manifest.config, *manifest.layers):
            copy_blob(there, to, entry)
        to.write_manifest(manifest.data, manifest.media_type, named=True)
    return manifest


def index(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "index.json").read_bytes())
    return found


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def manifest(number: int) -> bytes:
    return json.dumps({**json.loads(INDEX), "annotations": {"number": str(number)}}).encode()


def test_others_read_it(source: layouts.Layout, tmp_path: Path, tool: Callable[[str], str]) -> None:
    made = tmp_path / "made"
    copied = copy(source, f"oci:{made}:some.name")
    with load_image(f"oci:{made}:some.name") as image:
        assert image.digest == copied.digest
    skopeo = tool("skopeo")
    command = [skopeo, "inspect", f"oci:{made}:some.name"]
    seen = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert seen["Digest"] == copied.digest
    assert seen["Layers"] == [entry.digest for entry in copied.layers]
    command = [skopeo, "copy", f"oci:{made}:some.name", f"dir:{tmp_path}/copy"]
    subprocess.run(command, check=True, capture_output=True)
    command = [tool("umoci"), "raw", "unpack", "--rootless", "--image", f"{made}:some.name"]
    subprocess.run([*command, tmp_path / "tree"], check=True, capture_output=True)
    assert (tmp_path / "tree/above").read_bytes() == b"1"


def test_nothing_is_made_before_something_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with open_destination(f"oci:{folder}:x") as to:
        assert to.name == f"oci:{folder}:x"
        assert to.reference == LayoutReference(str(folder), "x")
        assert not to.has_blob(ENTRY) and to.digest() is None
        assert not to.mount_blob(ENTRY, LayoutReference(str(tmp_path)))
        assert not to.mount_blob(ENTRY, Reference("127.0.0.1:1", "a"))
        with pytest.raises(DigestError):
            to.write_blob(DATA, "sha256:" + "0" * 64)
        with pytest.raises(FormatError, match="4 MiB"):
            to.write_manifest(INDEX + b" " * (4 << 20), layouts.OCI_INDEX, named=True)
        assert not folder.parent.exists()
        to.write_blob(DATA, DIGEST)
        assert to.has_blob(ENTRY) and to.digest() is None
        assert not to.has_blob(Descriptor("", DIGEST, len(DATA) + 1))
    assert files(folder) == [f"blobs/sha256/{DIGEST[7:]}", "index.json", "oci-layout"]
    assert index(folder)["manifests"] == []
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_a_blob_is_written_in_pieces_or_to_the_descriptor(tmp_path: Path) -> None:
    with open_destination(f"oci:{tmp_path}/made") as to:
        with to.writer(len(DATA)) as writer:
            assert writer.write(memoryview(DATA)[:3]) == 3
            assert writer.fd is not None
            os.write(writer.fd, DATA[3:])
            writer.commit(DIGEST)
        assert (tmp_path / "made/blobs/sha256" / DIGEST[7:]).read_bytes() == DATA
        long = "sha512:" + "a" * 128
        with to.writer() as writer:
            writer.commit(long)
        assert (tmp_path / "made/blobs/sha512" / long[7:]).read_bytes() == b""


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_blob_that_is_given_up_leaves_nothing(
    unnamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not unnamed:
        monkeypatch.delattr(os, "O_TMPFILE")
    with open_destination(f"oci:{tmp_path}/made") as to:
        with suppress(ZeroDivisionError), to.writer() as writer:
            writer.write(DATA)
            raise ZeroDivisionError
        for bad in ("sha256:../../x", "/etc/passwd", "sha256:" + "0" * 63):
            with pytest.raises(UsageError, match="digest"), to.writer() as writer:
                writer.commit(bad)
            with pytest.raises(UsageError, match="digest"):
                to.has_blob(Descriptor("", bad, 1))
        assert files(tmp_path / "made") == ["index.json", "oci-layout"]
        to.write_blob(DATA, DIGEST)
        assert len(files(tmp_path / "made")) == 3


def test_a_blob_that_is_there_is_replaced(tmp_path: Path) -> None:
    with open_destination(f"oci:{tmp_path}/made") as to:
        to.write_blob(DATA, DIGEST)
        path = tmp_path / "made/blobs/sha256" / DIGEST[7:]
        (tmp_path / "same").hardlink_to(path)
        with to.writer() as writer:
            writer.write(DATA)
            writer.commit(DIGEST)
        assert not path.samefile(tmp_path / "same")  # it might have been damaged
        assert path.read_bytes() == DATA
        path.write_bytes(DATA[:3])  # cut short by a crash of another program
        to.write_blob(DATA, DIGEST)
        assert path.read_bytes() == DATA
        path.unlink()
        path.symlink_to("x" * len(DATA))  # a link's size is that of its text
        to.write_blob(DATA, DIGEST)
        assert path.read_bytes() == DATA and not path.is_symlink()


def test_names(tmp_path: Path) -> None:
    """The entry of the same name is replaced, and nothing else is lost."""
    made = tmp_path / "made"
    layout = layouts.Layout(made)
    other = layout.tag(layout.index([]), "other")
    unknown = {**index(made), "annotations": {"kept": "yes"}, "unknown": [1]}
    (made / "index.json").write_text(json.dumps(unknown))
    for number in range(3):
        with open_destination(f"oci:{made}:mine") as to:
            digest = to.write_manifest(manifest(number), layouts.OCI_INDEX, named=True)
            assert to.digest() == digest
            hidden = to.write_manifest(manifest(number + 10), layouts.OCI_INDEX, named=False)
            assert to.digest() == digest
            assert to.has_blob(Descriptor("", hidden, len(manifest(number + 10))))
    found = index(made)
    assert found["annotations"] == {"kept": "yes"} and found["unknown"] == [1]
    mine = {
        "mediaType": layouts.OCI_INDEX,
        "digest": digest,
        "size": len(manifest(2)),
        "annotations": {layouts.REF_NAME: "mine"},
    }
    assert found["manifests"] == [other, mine]
    assert Layout(made).refs() == ["other", "mine"]


def test_without_a_name(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with open_destination(f"oci:{made}") as to:
        for _ in range(2):
            digest = to.write_manifest(manifest(0), layouts.OCI_INDEX, named=True)
        assert [entry["digest"] for entry in index(made)["manifests"]] == [digest]
        assert "annotations" not in index(made)["manifests"][0]
        assert to.digest() == digest
        with open_destination(f"oci:{made}:named") as named:
            named.write_manifest(manifest(1), layouts.OCI_INDEX, named=True)
        assert to.digest() == digest
        to.write_manifest(manifest(2), layouts.OCI_INDEX, named=True)
        assert to.digest() is None  # two could be meant
    assert len(index(made)["manifests"]) == 3


def test_hard_links_between_layouts(source: layouts.Layout, tmp_path: Path) -> None:
    entry = Layout(source.path).manifest(Layout(source.path).resolve()).layers[0]
    theirs = Layout(source.path).blob_path(entry.digest)
    with open_destination(f"oci:{tmp_path}/made") as to:
        assert to.mount_blob(entry, LayoutReference(str(source.path)))
        assert Layout(tmp_path / "made").blob_path(entry.digest).samefile(theirs)
        assert to.mount_blob(entry, LayoutReference(str(source.path), "latest"))
        assert not to.mount_blob(ENTRY, LayoutReference(str(source.path)))
        assert not to.mount_blob(
            Descriptor("", entry.digest, entry.size + 1), LayoutReference(str(source.path))
        )
        path = source.blobs / DIGEST[7:]
        path.symlink_to(theirs)
        linked = Descriptor("", DIGEST, entry.size)
        assert not to.mount_blob(linked, LayoutReference(str(source.path)))
        assert not to.has_blob(linked)


def test_no_hard_links_between_file_systems(source: layouts.Layout) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == source.path.stat().st_dev:
        pytest.skip("there is no second file system")
    entry = Layout(source.path).manifest(Layout(source.path).resolve()).layers[0]
    folder = shm / f"stargz-test-{os.getpid()}"
    try:
        with open_destination(f"oci:{folder}") as to:
            assert not to.mount_blob(entry, LayoutReference(str(source.path)))
            assert not to.has_blob(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_directories_of_others(tmp_path: Path) -> None:
    """What is no layout is not made one."""
    (tmp_path / "file").write_text("mine")
    with open_destination(f"oci:{tmp_path}:x") as to:
        for act in (
            lambda: to.write_blob(DATA, DIGEST),
            lambda: to.write_manifest(INDEX, layouts.OCI_INDEX, named=True),
            lambda: to.writer(),
        ):
            with pytest.raises(SourceError, match="new or empty"):
                act()
    assert files(tmp_path) == ["file"]
    with (
        open_destination(f"oci:{tmp_path}/file:x") as to,
        pytest.raises(FileExistsError, match="file"),
    ):
        to.write_blob(DATA, DIGEST)


@pytest.mark.parametrize("case", ["version", "version no JSON", "index", "manifests", "large"])
def test_layouts_that_are_not_understood(case: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    layouts.Layout(made)
    bad = {
        "version": ("oci-layout", '{"imageLayoutVersion": "7.0.0"}'),
        "version no JSON": ("oci-layout", "?"),
        "index": ("index.json", "[]"),
        "manifests": ("index.json", '{"manifests": 7}'),
        "large": ("index.json", " " * (5 << 20)),
    }
    name, text = bad[case]
    (made / name).write_text(text)
    with open_destination(f"oci:{made}:x") as to, pytest.raises(FormatError, match=str(made)):
        to.write_manifest(INDEX, layouts.OCI_INDEX, named=True)
    assert (made / name).read_text() == text


def test_threads_and_processes_write_to_one_layout(tmp_path: Path) -> None:
    made = tmp_path / "made"
    script = """
import sys
from stargz.oci.destination import open_destination
made, first = sys.argv[1], int(sys.argv[2])
sys.stdin.readline()
for number in range(first, first + 20):
    data = b'{"schemaVersion":2,"manifests":[],"annotations":{"n":"%d"}}' % number
    with open_destination(f"oci:{made}:r{number}") as to:
        to.write_blob(b"%d" % (number % 7), to_digest := "sha256:" + __import__("hashlib").sha256(b"%d" % (number % 7)).hexdigest())
        to.write_manifest(data, "application/vnd.oci.image.index.v1+json", named=True)
"""  # noqa: E501
    command = [sys.executable, "-c", script, str(made)]
    running = [
        subprocess.Popen([*command, str(first)], stdin=subprocess.PIPE) for first in (0, 20, 40)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()

    def write(number: int) -> str:
        with open_destination(f"oci:{made}:t{number}") as to:
            return to.write_manifest(manifest(number), layouts.OCI_INDEX, named=True)

    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(write, range(20)))
    for process in running:
        process.communicate()
        assert process.returncode == 0
    layout = Layout(made)
    assert set(layout.refs()) == {f"r{n}" for n in range(60)} | {f"t{n}" for n in range(20)}
    assert len(layout.refs()) == 80
    for number, digest in enumerate(digests):
        assert layout.resolve(f"t{number}").digest == digest
        assert layout.manifest(layout.resolve(f"t{number}")).digest == digest
    assert len(files(made)) == 2 + 80 + 7


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Every blob that has a name is complete, and nothing else is left."""
    made = tmp_path / "made"
    script = """
import hashlib, os, sys
from stargz.oci.destination import open_destination
print("ready", flush=True)
number = 0
while True:
    data = b"%d %d " % (os.getpid(), number) * 100_000
    with open_destination(f"oci:{sys.argv[1]}:r{number % 5}") as to:
        to.write_blob(data, "sha256:" + hashlib.sha256(data).hexdigest())
        to.write_manifest(b'{"manifests":[],"annotations":{"n":"%d"}}' % number,
                          "application/vnd.oci.image.index.v1+json", named=True)
    number += 1
"""
    for wait in (0.0, 0.03, 0.05, 0.08, 0.13):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(made)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        threading.Event().wait(wait)
        process.kill()
        process.communicate()
    (made / f".index.json.{process.pid}.1f.partial").write_text("half of it")
    with open_destination(f"oci:{made}:last") as to:
        to.write_manifest(INDEX, layouts.OCI_INDEX, named=True)
    for path in (made / "blobs/sha256").iterdir():
        assert blobs.sha256(path.read_bytes()) == f"sha256:{path.name}"
    layout = Layout(made)
    for ref in layout.refs():
        layout.manifest(layout.resolve(ref))
    assert {path.name for path in made.iterdir()} == {"oci-layout", "index.json", "blobs"}


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    script = """
import resource, signal, sys
from stargz.oci.destination import open_destination
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with open_destination(f"oci:{sys.argv[1]}") as to:
    try:
        with to.writer() as writer:
            while True:
                writer.write(bytes(100_000))
    except OSError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "made"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout and f"{tmp_path}/made" in done.stdout
    assert not (tmp_path / "made").exists()


def test_a_source_that_lies_leaves_nothing(source: layouts.Layout, tmp_path: Path) -> None:
    entry = Layout(source.path).manifest(Layout(source.path).resolve()).layers[0]
    path = Layout(source.path).blob_path(entry.digest)
    path.write_bytes(bytes(entry.size))
    with (
        open_repository(f"oci:{source.path}") as there,
        open_destination(f"oci:{tmp_path}/made") as to,
    ):
        with pytest.raises(StargzError, match=entry.digest):
            copy_blob(there, to, entry)
        assert not to.has_blob(entry)
        assert files(tmp_path / "made") == ["index.json", "oci-layout"]
    assert not (tmp_path / "made").exists()


def test_a_layout_that_was_made_for_nothing_is_taken_away(tmp_path: Path) -> None:
    """Also the directories above; not one that was there, is in use, or has anything."""
    before, there = files(tmp_path), tmp_path / "there"
    for _ in range(2):
        with (
            suppress(KeyboardInterrupt),
            open_destination(f"oci:{tmp_path}/a/b/c") as outer,
            open_destination(f"oci:{tmp_path}/a/b/c") as to,
            to.writer(),
        ):
            assert index(tmp_path / "a/b/c")["manifests"] == []
            raise KeyboardInterrupt
        assert files(tmp_path) == before and not (tmp_path / "a").exists()
    with open_destination(f"oci:{there}") as outer:
        with open_destination(f"oci:{there}") as to:
            to.writer().__exit__()
            with open_destination(f"oci:{there}") as other:
                other.writer().__exit__()
            assert (there / "index.json").exists()
        assert not there.exists()
        outer.write_blob(DATA, DIGEST)
    made = files(there)
    assert made == [f"blobs/sha256/{DIGEST[7:]}", "index.json", "oci-layout"]
    (there / made[0]).unlink()
    with open_destination(f"oci:{there}") as to:
        to.writer().__exit__()
    assert files(there) == made[1:]


def test_many_make_one_layout_for_nothing(tmp_path: Path) -> None:
    """Nobody is hindered by another who takes away what both made."""
    reference = LayoutReference(f"{tmp_path}/a/b/c")

    def make(to: LayoutDestination) -> None:
        with closing(to), to.writer():
            pass

    with ThreadPoolExecutor(8) as pool:
        for _ in range(60):
            list(pool.map(make, [LayoutDestination(reference) for _ in range(8)]))
            assert not (tmp_path / "a").exists()


def test_an_image_that_fails_leaves_no_layout(tmp_path: Path) -> None:
    layout = layouts.image(tmp_path / "source", [blobs.varied_tar()])
    with load_image(f"oci:{layout.path}") as image:
        path = layout.path / "blobs/sha256" / image.descriptors[-1].digest[7:]
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    command.fails(3, "image", "convert", f"oci:{layout.path}", f"oci:{tmp_path}/out/new:v")
    assert not (tmp_path / "out").exists()
