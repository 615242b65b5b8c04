"""Commands that are given what another one takes name that one."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import subprocess
import tarfile
from pathlib import Path

import layouts
import pytest
import zstandard
from blobs import tar_of
from command import fails, ok, together
from registries import program

from stargz.oci.conversion import convert_image
from stargz.oci.formats.recognise import archive_kind


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    made = layouts.Layout(tmp_path / "layout")
    tar = tar_of([(f"f{n}", bytes([n]) * 400_000) for n in range(8)])
    made.tag(made.manifest([made.plain_layer(tar)]), "v1")
    return made.path


def saved(layout: Path, kind: str) -> Path:
    """What skopeo writes of the layout."""
    path = layout.parent / f"{kind}.tar"
    words = [program("skopeo"), "copy", "-q", f"oci:{layout}:v1", f"{kind}:{path}:app:1"]
    subprocess.run(words, check=True, timeout=60)
    return path


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_archives_of_images(layout: Path, kind: str) -> None:
    path = saved(layout, kind)
    data = path.read_bytes()
    for number, packed in enumerate(
        (
            data,
            gzip.compress(data, 1),
            zstandard.ZstdCompressor().compress(data),
            lzma.compress(data, preset=0),
        )
    ):
        other = layout.parent / f"packed{number}"
        other.write_bytes(packed)
        assert archive_kind(str(other)) == kind
    said = fails(2, "convert", path)
    assert f"stargz image convert {kind}:{path} DST" in said
    assert f"give {kind}:{path}" in fails(2, "image", "info", path)
    assert f"oci:{path}: a file; archives are oci-archive:FILE" in fails(
        1, "image", "info", f"oci:{path}"
    )
    # The other way is open.
    with path.open("rb") as file:
        ok("convert", "-", layout.parent / "as-tar", "-q", stdin=file)


@pytest.mark.parametrize(
    "files",
    [
        {"manifest.json": b"[]"},
        {"manifest.json": b'{"name": "an app"}', "main.js": b"1"},
        {"manifest.json": json.dumps([{"Config": "a.json", "Layers": ["b.tar"]}]).encode()},
        {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": b'{"manifests": []}'},
        {"index.json": b"{}", "data.tar": b"x", "a.json": b"{}"},
        {"bin/sh": b"", "manifest.json": b"[]"},
        {},
    ],
)
def test_tars_like_any_other(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(tar_of(list(files.items())))
    assert archive_kind(str(path)) is None
    ok("convert", path, "-q")


def test_data_in_json_is_not_unpacked_to_look_for_images(tmp_path: Path) -> None:
    path = tmp_path / "data.tar.zst"
    data = tar_of([("data.json", bytes(32 << 20))])
    path.write_bytes(zstandard.ZstdCompressor().compress(data))
    before = written()
    assert archive_kind(str(path)) is None
    assert written() - before < 16 << 20


def written() -> int:
    """Bytes that this process has written to files."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def test_what_is_hostile(tmp_path: Path) -> None:
    path = tmp_path / "a"
    bomb = zstandard.ZstdCompressor().compress(
        tar_of([("manifest.json", b"[]")])[:1024] + bytes(1 << 28)
    )
    for data in (b"", b"\x1f\x8b", b"\xfd7zXZ\0", bytes(2000), b"\x28\xb5\x2f\xfd123", bomb):
        path.write_bytes(data)
        assert archive_kind(str(path)) is None
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.type, info.linkname = tarfile.SYMTYPE, "manifest.json"
        tar.addfile(info)
    path.write_bytes(out.getvalue())
    assert archive_kind(str(path)) is None
    assert archive_kind(str(tmp_path)) is None and archive_kind(str(tmp_path / "none")) is None


def test_images_and_directories(tmp_path: Path, layout: Path) -> None:
    assert ".: is a directory: stargz pack . DST" in fails(1, "convert", ".", cwd=tmp_path)
    tree, storage = tmp_path / "tree", tmp_path / "storage"
    tree.mkdir()
    (storage / "docker/registry/v2/repositories").mkdir(parents=True)
    layer = tmp_path / "layer.tar"
    layer.write_bytes(tar_of([("a", b"1")]))
    table: list[tuple[tuple[object, ...], str]] = [
        (("convert", "docker://host.example/a:1"), "image convert docker://host.example/a:1 DST"),
        (("convert", f"oci:{layout}"), f"image convert oci:{layout} DST"),
        (("convert", layout), f"image convert oci:{layout} DST"),
        (("convert", tree), f"stargz pack {tree}"),
        (("convert", storage), f"image bulk {storage} DST"),
        (("verify", layout), f"oci:{layout}"),
        (("verify", tree), f"stargz pack {tree}"),
        (("ls", layout), f"oci:{layout}"),
        (("image", "convert", layout, "oci:x"), f"oci:{layout}"),
        (("image", "convert", tree, "oci:x"), f"stargz pack {tree}"),
        (("image", "convert", layer, "oci:x"), f"stargz convert {layer}"),
        (("image", "convert", "-", "oci:x"), "docker-archive:-"),
        (("image", "ls", layer), f"stargz ls {layer}"),
        (("image", "info", layer), f"stargz info {layer}"),
        (("pack", layer, "x"), f"is a file: stargz convert {layer} DST"),
        (("image", "cat", layer, "a"), f"stargz cat {layer}"),
    ]
    told = together(*(words for words, _ in table), cwd=tmp_path)
    for (words, named), (code, _, said) in zip(table, told, strict=True):
        assert code == (2 if words[0] == "image" or ":" in str(words[1]) else 1), words
        assert named in said and said.count("\n") == 1, words
    # What is there is what is meant.
    (tmp_path / "oci:x.tar").write_bytes(layer.read_bytes())
    ok("convert", "oci:x.tar", "-q", cwd=tmp_path)
    convert_image(f"oci:{layout}:v1", f"oci:{tmp_path}/dst:v1")
