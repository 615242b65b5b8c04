"""Tars of OCI image layouts, read and written (oci-archive:); archives from standard input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import layouts
import pytest
import zstandard
from blobs import noise, tar_of
from command import command, environment, fails, ok, run
from containers import podman
from registries import program

from stargz.digests import digest_of
from stargz.errors import FormatError, OccupiedError, SourceError, TarError, UsageError
from stargz.oci.bulk import bulk
from stargz.oci.conversion import convert_image
from stargz.oci.destination import open_destination
from stargz.oci.formats.reference import ArchiveReference, parse_image
from stargz.oci.verify.image import verify_image

TAR = tar_of([("etc/hosts", b"localhost"), ("usr/noise", noise("1", 300_000))])


def source(folder: Path, ref: str = "v1") -> Path:
    """A layout of an ordinary image."""
    made = layouts.Layout(folder / "plain")
    made.tag(made.manifest([made.plain_layer(TAR)]), ref)
    return made.path


def skopeo(*args: object) -> str:
    done = subprocess.run(
        [program("skopeo"), *map(str, args)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def packed(path: Path, kind: str) -> bytes:
    import bz2
    import gzip
    import lzma

    data = path.read_bytes()
    packers = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress}
    packers |= {"zstd": zstandard.ZstdCompressor().compress, "plain": bytes}
    return packers[kind](data)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What skopeo makes of the layout."""
    path = tmp_path / "src.tar"
    skopeo("copy", "-q", f"oci:{source(tmp_path)}:v1", f"oci-archive:{path}:v1")
    return path


def test_the_reference(tmp_path: Path) -> None:
    (tmp_path / "a:b").write_bytes(b"")
    for text, path, ref in (
        (f"{tmp_path}/a:b", f"{tmp_path}/a:b", None),
        (f"{tmp_path}/a:b:host/app:1", f"{tmp_path}/a:b", "host/app:1"),
        ("new.tar:v1", "new.tar", "v1"),
        ("-", "-", None),
        ("-:v1", "-", "v1"),
    ):
        made = parse_image(f"oci-archive:{text}")
        assert made == ArchiveReference(path, ref, "oci-archive")
        assert str(made) == f"oci-archive:{text}"
    with pytest.raises(UsageError, match="oci-archive:FILE"):
        parse_image("oci-archive:")


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd", "xz", "bzip2"])
def test_archives_are_known_by_their_bytes(tmp_path: Path, archive: Path, kind: str) -> None:
    data = packed(archive, kind)
    named = tmp_path / "archive"
    named.write_bytes(data)
    report = convert_image(f"oci-archive:{named}:v1", f"oci-archive:{tmp_path}/dst.tar:v2")
    assert report.destination == f"oci-archive:{tmp_path}/dst.tar:v2"
    assert verify_image(report.destination, require_verified=True).ok


@pytest.mark.parametrize("kind", ["plain", "xz"])
def test_standard_input(tmp_path: Path, archive: Path, kind: str) -> None:
    data = packed(archive, kind)
    told = run("image", "info", "--json", "oci-archive:-", input=data, text=False)
    assert json.loads(told.stdout)["layers"][0]["seekable"] is False
    dst = f"oci-archive:{tmp_path}/dst.tar:v1"
    assert run("image", "convert", "oci-archive:-", dst, input=data, text=False).returncode == 0
    assert "localhost" in ok("image", "cat", dst, "etc/hosts")
    saved = tmp_path / "saved.tar"
    skopeo("copy", "-q", dst, f"docker-archive:{saved}:app:1")
    with saved.open("rb") as file:
        assert "sha256" in ok("image", "info", "docker-archive:-", stdin=file)
    done = run("image", "info", "docker-archive:-", preexec_fn=lambda: os.close(0))
    assert "-: standard input is closed" in done.stderr
    with saved.open("rb") as file:
        assert "ok: 1 image" in ok("verify", "docker-archive:-", stdin=file)


def test_standard_input_is_not_that_of_other_processes(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1) as processes, pytest.raises(UsageError, match="save it to a file"):
        convert_image("oci-archive:-", f"oci:{tmp_path}/dst:v1", executor=processes)


def test_what_is_written_is_read_by_others(tmp_path: Path, archive: Path) -> None:
    dst = tmp_path / "dst.tar"
    report = convert_image(f"oci-archive:{archive}", f"oci-archive:{dst}:v1", verify=True)
    assert json.loads(skopeo("inspect", f"oci-archive:{dst}:v1"))["Digest"] == report.digest
    skopeo("copy", "-q", f"oci-archive:{dst}:v1", f"oci:{tmp_path}/back:v1")
    assert verify_image(f"oci:{tmp_path}/back:v1", require_verified=True).ok
    first = dst.read_bytes()
    dst.unlink()
    convert_image(f"oci:{tmp_path}/plain:v1", f"oci-archive:{dst}:v1")
    assert dst.read_bytes() == first, "the bytes depend on more than the image"
    with tarfile.open(dst) as tar:
        assert {(one.uid, one.gid, one.mtime) for one in tar} == {(0, 0, 0)}
        assert tar.getnames()[:2] == ["oci-layout", "index.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "back",
        "dst.tar",
        "plain",
        "src.tar",
    ]


def test_podman_saves_what_is_read(tmp_path: Path, archive: Path) -> None:
    with podman(tmp_path / "podman", "vfs") as engine:
        engine.run("load", "-q", "-i", archive)
        (image,) = engine.run("images", "-q", "--no-trunc").split()
        saved = tmp_path / "saved.tar"
        engine.run("save", "-q", "--format", "oci-archive", "-o", saved, image)
    report = convert_image(f"oci-archive:{saved}", f"oci:{tmp_path}/dst:v1")
    assert report.layers[0].status == "converted"


def test_the_commands_take_it(tmp_path: Path, archive: Path) -> None:
    name = f"oci-archive:{tmp_path}/dst.tar:v1"
    convert_image(f"oci-archive:{archive}", name)
    assert ok("image", "ls", name, "etc") == "hosts\n"
    assert ok("ls", name, "--layer", "1", "etc") == "hosts\n"
    assert "ok: 1 image" in ok("verify", name)
    for words in "ls", "verify", "mount", "image convert", "image ls":
        assert "oci-archive:FILE" in "".join(ok(*words.split(), "--help").split())
    listed = tmp_path / "list"
    listed.write_text(f"oci-archive:{archive}\n")
    assert bulk(str(listed), f"oci:{tmp_path}/many", state=tmp_path / "state").ok
    assert verify_image(f"oci:{tmp_path}/many/src:latest").ok
    assert "image convert" in fails(2, "image", "bulk", name, f"oci:{tmp_path}/many")


def test_the_other_prefix_is_named(tmp_path: Path, archive: Path) -> None:
    assert f"give oci-archive:{archive}" in fails(1, "image", "info", f"docker-archive:{archive}")
    saved = tmp_path / "saved.tar"
    skopeo("copy", "-q", f"oci-archive:{archive}", f"docker-archive:{saved}:app:1")
    assert f"give docker-archive:{saved}" in fails(1, "image", "info", f"oci-archive:{saved}")
    # Docker's own, since 25, are both.
    with tarfile.open(archive) as tar, tarfile.open(saved, "a") as both:
        for entry in tar:
            both.addfile(entry, tar.extractfile(entry))
    digests = {
        json.loads(ok("image", "info", "--json", f"{kind}:{saved}"))["layers"][0]["diff_id"]
        for kind in ("docker-archive", "oci-archive")
    }
    assert len(digests) == 1


def test_what_cannot_be_read(tmp_path: Path, archive: Path) -> None:
    whole = archive.read_bytes()
    for data, error, match in (
        (b"", FormatError, "no file oci-layout"),
        (whole[:3000], TarError, "short|truncated|end"),
        (whole.replace(b'Version": "1', b'Version": "2'), FormatError, "another version"),
    ):
        archive.write_bytes(data)
        with pytest.raises(error, match=match):
            convert_image(f"oci-archive:{archive}", f"oci:{tmp_path}/dst:v1")
    with pytest.raises(SourceError, match="no such file"):
        convert_image(f"oci-archive:{tmp_path}/none", f"oci:{tmp_path}/dst:v1")
    archive.write_bytes(whole)
    with pytest.raises(SourceError, match="'v9' in the layout, which has v1"):
        convert_image(f"oci-archive:{archive}:v9", f"oci:{tmp_path}/dst:v1")


def test_no_name_is_asked_for_where_there_is_none(tmp_path: Path) -> None:
    layouts.image(tmp_path / "layout", [])
    index = json.loads((tmp_path / "layout/index.json").read_text())
    (one,) = index["manifests"]
    other = {**one, "digest": "sha256:" + 64 * "1"}
    for manifests, said in (
        ([], "0 images in the layout, which has none"),
        ([one, other], "2 images in the layout, which has latest; name one: oci:"),
    ):
        text = json.dumps({**index, "manifests": manifests})
        (tmp_path / "layout/index.json").write_text(text)
        text = fails(1, "image", "info", f"oci:{tmp_path}/layout")
        assert said in text and ("name one" in text) == bool(manifests)


def test_an_archive_is_there_whole_or_not_at_all(tmp_path: Path, archive: Path) -> None:
    plain = tmp_path / "plain"
    (layer,) = [path for path in (plain / "blobs/sha256").iterdir() if path.stat().st_size > 9999]
    layer.write_bytes(bytes(layer.stat().st_size))
    fails(3, "image", "convert", f"oci:{plain}:v1", f"oci-archive:{tmp_path}/dst.tar:v1", "-q")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "src.tar"]
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    name = f"oci:{plain}:v1"
    assert "regular file" in fails(1, "image", "convert", name, f"oci-archive:{fifo}")
    assert "to a file" in fails(2, "image", "convert", name, "oci-archive:-")
    assert "no/dir" in fails(1, "image", "convert", name, f"oci-archive:{tmp_path}/no/dir/x")


def test_only_its_own_directories_are_taken_away(tmp_path: Path, archive: Path) -> None:
    """Those of a process that was killed go with the next; what only has such a name stays."""
    dst = f"oci-archive:{tmp_path}/dst.tar:v1"
    with open_destination(dst) as left:
        left.write_blob(b"{}", digest_of(b"{}"))
        (hidden,) = tmp_path.glob(".*")
        kept = tmp_path / "kept"
        shutil.copytree(hidden, kept)
        # One that is in use stays, as does one with more in it.
        convert_image(f"oci-archive:{archive}", dst)
        assert list(tmp_path.glob(".*")) == [hidden]
    assert not list(tmp_path.glob(".*"))
    kept.rename(hidden)
    others = [tmp_path / f".dst.tar.{name}" for name in ("abcdefgh.layout", "mine.layout", "abc")]
    for other in others:
        (other / "layout").mkdir(parents=True)
    (tmp_path / ".dst.tar.ABCD-FGH.layout").mkdir()
    (tmp_path / ".dst.tar.00000000.layout").mkdir()
    shutil.copytree(hidden, tmp_path / ".dst.tar.11111111.layout")
    (tmp_path / ".dst.tar.11111111.layout" / "thesis").write_bytes(b"mine")
    there = {*tmp_path.glob(".*")} - {hidden}
    convert_image(f"oci-archive:{archive}", dst)
    assert {*tmp_path.glob(".*")} == there


@pytest.mark.parametrize("blocks", [100, 295, 302, 309])  # of 310
def test_a_file_that_cannot_be_written_whole(tmp_path: Path, blocks: int) -> None:
    """Whatever is written when there is no more room, the user's name for it is told."""
    source(tmp_path)
    words = command("image", "convert", "oci:plain:v1", "oci-archive:dst.tar:v1", "-q")
    done = subprocess.run(
        ["bash", "-c", f'ulimit -f {blocks}; exec "$@"', "-", *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("stargz: oci-archive:dst.tar:v1: ")
    assert "layout" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_upgrade_replaces_the_file(tmp_path: Path, archive: Path) -> None:
    convert_image(f"oci-archive:{archive}", upgrade=True)
    assert verify_image(f"oci-archive:{archive}:v1", require_verified=True).ok
    assert convert_image(f"oci-archive:{archive}", upgrade=True).status == "unchanged"


def test_other_contents_are_not_lost(tmp_path: Path, archive: Path) -> None:
    name = f"oci-archive:{archive}:v1"
    dst = f"oci-archive:{tmp_path}/dst.tar"
    convert_image(name, f"{dst}:v1")
    convert_image(name, f"{dst}:v1")  # its own twin
    with pytest.raises(OccupiedError, match=r"other images \(v1\)"):
        convert_image(name, f"{dst}:v2")
    convert_image(name, f"{dst}:v2", force=True)
    other = tmp_path / "dst.tar"
    other.write_bytes(b"my thesis")
    with pytest.raises(OccupiedError, match="no archive of an OCI layout; --force"):
        convert_image(name, f"{dst}:v1")
    assert other.read_bytes() == b"my thesis"


def test_an_archive_that_has_another_image_since(tmp_path: Path, archive: Path) -> None:
    """Its name is not that of what an earlier run wrote, nor of anything."""
    dst = tmp_path / "dst.tar"
    listed = tmp_path / "list"
    listed.write_text(f"oci-archive:{archive}:v1 oci-archive:{dst}:v1\n")
    state = tmp_path / "state"
    assert bulk(str(listed), state=state).totals["converted"] == 1
    assert bulk(str(listed), state=state).totals["unchanged"] == 1
    convert_image(f"oci-archive:{archive}:v1", f"oci-archive:{dst}:v2", force=True)
    (failure,) = bulk(str(listed), state=state).failures
    assert "other images (v2)" in failure.error


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_standard_input_that_gives_nothing(kind: str, tmp_path: Path) -> None:
    text = fails(1, "image", "ls", f"{kind}:-", input="")
    assert text == f"{kind}:-: standard input is empty; pipe the archive in"
    with (tmp_path / "other").open("wb") as writable:
        text = fails(1, "image", "ls", f"{kind}:-", stdin=writable)
    assert text == f"{kind}:-: standard input cannot be read: Bad file descriptor"


# Reads standard input twice, has another put in its place, by descriptor and by name, and reads
# that; the first is open all the time.
_TWO_INPUTS = """
import os, sys
from stargz.errors import StargzError
from stargz.oci.image import open_image

def layers():
    with open_image("oci-archive:-") as image:
        return len(image.descriptors)

with open_image("oci-archive:-") as first:
    print(len(first.descriptors), layers())
    os.dup2(int(sys.argv[1]), 0)
    print(layers(), layers())
    sys.stdin = open(sys.argv[2])
    print(layers(), layers())
    sys.stdin.seek(0, 2)
    try:
        print(layers())
    except StargzError as error:
        print(error)
    sys.stdin = open(sys.argv[3])
    print(len(first.descriptors))
try:
    print(layers())
except StargzError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_another_standard_input_is_another_image(tmp_path: Path, kind: str) -> None:
    names = []
    for count in (1, 2, 3):
        folder = tmp_path / str(count)
        made = layouts.Layout(folder)
        tars = [tar_of([(f"f{n}", b"x")]) for n in range(count)]
        made.tag(made.manifest([made.layer(tar) for tar in tars]), "v1")
        names.append(f"{folder}.tar")
        skopeo("copy", "-q", f"oci:{folder}:v1", f"oci-archive:{names[-1]}:v1")
        Path(names[-1]).write_bytes(packed(Path(names[-1]), kind))
    reading, writing = os.pipe()
    (tmp_path / "empty").write_bytes(b"")
    data = Path(names[1]).read_bytes()
    assert len(data) < 1 << 16  # or the pipe is full
    os.write(writing, data)
    os.close(writing)
    words = [sys.executable, "-c", _TWO_INPUTS, str(reading), names[2], str(tmp_path / "empty")]
    done = subprocess.run(
        words,
        input=Path(names[0]).read_bytes(),
        pass_fds=[reading],
        env=environment(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    os.close(reading)
    lines = done.stdout.decode().splitlines()
    assert lines[:3] == ["1 1", "2 2", "3 3"]
    assert lines[3] == "oci-archive:-: standard input is empty; pipe the archive in"
    assert lines[4] == "1"
    assert lines[5] == "oci-archive:-: standard input is empty; pipe the archive in"
