"""Layers that stay as they are, since a TOC cannot hold them, images in zstd:chunked, and the
whiteouts of a layer that is flattened alone."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from blobs import noise, sha256, tar_of
from command import fails, ok, run
from conversions import CACHE, TAR, cache, convert, docker, written
from layouts import OCI_LAYER, TOC_DIGEST, Layout

import stargz
from stargz.errors import (
    DigestError,
    FormatError,
    TarError,
    UnindexableError,
)
from stargz.oci.bulk import bulk
from stargz.oci.convert.options import LayerOptions
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.image import open_image
from stargz.oci.verify.image import verify_image

DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar"


# --- layers that a TOC cannot hold --------------------------------------------------------------


def special(*members: tuple[str, bytes, str]) -> bytes:
    """A tar of entries (name, type, target) and a file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime = kind, link, 1_700_000_000
            archive.addfile(info)
        info = tarfile.TarInfo("other")
        info.size = 6
        archive.addfile(info, io.BytesIO(b"other\n"))
    return out.getvalue()


def of_type(kind: bytes) -> bytes:
    """A tar with an entry of a type that no layer has."""
    tar = bytearray(special(("odd", tarfile.REGTYPE, "")))
    tar[156:157] = kind
    tar[148:156] = b" " * 8
    tar[148:156] = b"%06o\0 " % sum(tar[:512])
    return bytes(tar)


UNINDEXABLE = {
    "a hard link into a lower layer": special(("alias", tarfile.LNKTYPE, "etc/file")),
    "a hard link to a directory": special(
        ("d/", tarfile.DIRTYPE, ""), ("alias", tarfile.LNKTYPE, "d")
    ),
    "a fifo in the place of a directory with entries": special(
        ("d/", tarfile.DIRTYPE, ""), ("d/f", tarfile.REGTYPE, ""), ("d", tarfile.FIFOTYPE, "")
    ),
    "an entry of another type": of_type(b"q"),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda tar: tar,
    "gzip": lambda tar: gzip.compress(tar, 1, mtime=0),
}


@pytest.mark.parametrize("kind", UNINDEXABLE)
@pytest.mark.parametrize("packing", PACKED)
def test_a_layer_that_a_toc_cannot_hold_stays(tmp_path: Path, kind: str, packing: str) -> None:
    tar = UNINDEXABLE[kind]
    with pytest.raises(UnindexableError):
        stargz.convert(tar, io.BytesIO())
    layout = Layout(tmp_path / "src")
    suffix = ".gzip" if packing == "gzip" else ""
    lower = layout.plain_layer(TAR) | {"mediaType": f"{DOCKER_TAR}.gzip"}
    odd = layout.plain_layer(tar, PACKED[packing](tar)) | {
        "mediaType": f"{DOCKER_TAR}{suffix}",
        "annotations": {"a": "b", TOC_DIGEST: sha256(b"a lie")},
    }
    layout.tag(docker(layout, [lower, odd]), "v1")
    report = convert(layout, tmp_path / "dst", verify=True)
    made, left = report.layers
    assert made.status == "converted"
    assert (left.status, left.toc_digest, left.digest) == ("not seekable", None, odd["digest"])
    assert (left.diff_id, left.uncompressed_size) == (sha256(tar), len(tar))
    assert [odd["digest"] in text and "TOC" in text for text in report.warnings] == [True]
    entry = written(tmp_path / "dst").layers[1]
    assert entry.json == {
        "mediaType": f"application/vnd.oci.image.layer.v1.tar{suffix.replace('.', '+')}",
        "digest": odd["digest"],
        "size": odd["size"],
        "annotations": {"a": "b"},
    }
    config = json.loads(
        (tmp_path / "dst/blobs/sha256" / written(tmp_path / "dst").config.digest[7:]).read_bytes()
    )
    assert config["rootfs"]["diff_ids"] == [made.diff_id, sha256(tar)]
    with pytest.raises(UnindexableError, match=odd["digest"]):
        convert(layout, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict/index.json").exists() or not Reading(tmp_path / "strict").refs()
    again = convert(tmp_path / "dst", tmp_path / "again")
    assert (again.status, again.digest) == ("unchanged", report.digest)


def test_what_a_lossless_layer_cannot_hold_stays(tmp_path: Path) -> None:
    """There the tar's bytes have to be those of the files."""
    sparse = {"GNU.sparse.size": "9", "GNU.sparse.map": "2,2"}
    tar = tar_of([("f", b"ab")], pax_headers=sparse)
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(tar)]), "v1")
    options = LayerOptions(lossless=True)
    report = convert(layout, tmp_path / "dst", options=options, verify=True)
    assert [layer.status for layer in report.layers] == ["not seekable"]
    report = convert(layout, tmp_path / "other", verify=True)
    assert [layer.status for layer in report.layers] == ["converted"]


def damaged(kind: str) -> tuple[bytes, bytes]:
    """A tar that a TOC cannot hold, and what is stored in its place."""
    tar = UNINDEXABLE["a hard link into a lower layer"]
    if kind == "truncated tar":
        tar = tar[:1027]
        return tar, gzip.compress(tar)
    if kind == "corrupt tar":
        tar = tar[:512] + b"\x01" * 512 + tar[1024:]
        return tar, gzip.compress(tar)
    packed = bytearray(gzip.compress(tar + noise("more", 100_000)))
    if kind == "truncated":
        return tar, bytes(packed[:-5000])
    packed[-3000] ^= 1
    return tar, bytes(packed)


@pytest.mark.parametrize("kind", ["truncated tar", "corrupt tar", "truncated", "corrupt"])
def test_what_is_damaged_does_not_stay(tmp_path: Path, kind: str) -> None:
    tar, packed = damaged(kind)
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(tar, packed)]), "v1")
    with pytest.raises(FormatError) as caught:
        convert(layout, tmp_path / "dst")
    assert not isinstance(caught.value, UnindexableError)


def test_other_bytes_than_those_of_the_digest_do_not_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    tar = UNINDEXABLE["a hard link into a lower layer"]
    odd = layout.plain_layer(tar, tar)
    (layout.blobs / odd["digest"][7:]).write_bytes(tar[:-1] + b"\1")
    layout.tag(layout.manifest([odd]), "v1")
    with pytest.raises(DigestError):
        convert(layout, tmp_path / "dst")


def test_limits_are_no_reason_to_stay() -> None:
    with pytest.raises(TarError) as caught:
        stargz.convert(tar_of([("x", b"")], uname="x" * 70_000), io.BytesIO())
    assert not isinstance(caught.value, UnindexableError)


def test_a_command_tells_of_layers_that_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    odd = layout.plain_layer(UNINDEXABLE["a hard link into a lower layer"])
    layout.tag(layout.manifest([layout.plain_layer(TAR), odd]), "v1")
    words = ["image", "convert", f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1"]
    done = run(*words)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and odd["digest"] in done.stderr
    assert f"{odd['digest']}  not seekable" in done.stdout
    assert odd["digest"] in fails(1, *words, "--strict")


# --- one layer flattened ------------------------------------------------------------------------


@pytest.mark.parametrize("seekable", [False, True])
@pytest.mark.parametrize("name", ["a/.wh..wh..opq", "a/.wh.x", ".wh.y"])
def test_flatten_applies_the_whiteouts_of_one_layer(
    tmp_path: Path, name: str, seekable: bool
) -> None:
    layout = Layout(tmp_path / "src")
    tar = tar_of([("a", None), (name, b""), ("a/y", b"y")])
    layer = layout.layer(tar) if seekable else layout.plain_layer(tar)
    layout.tag(layout.manifest([layer]), "v1")
    report = convert(layout, tmp_path / "dst", flatten=True, verify=True)
    (entry,) = written(tmp_path / "dst").layers
    with stargz.open(tmp_path / "dst/blobs/sha256" / entry.digest[7:]) as found:
        names = {name for name in found.names() if "landmark" not in name}
    assert names == {"a", "a/y"}
    again = convert(tmp_path / "dst", tmp_path / "again", flatten=True)
    assert (again.status, again.digest) == ("unchanged", report.digest)


def test_flatten_of_one_layer_without_whiteouts_is_its_conversion(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    layout.tag(layout.manifest([layout.plain_layer(TAR)]), "v1")
    plain = convert(layout, tmp_path / "plain")
    assert convert(layout, tmp_path / "flat", flatten=True).digest == plain.digest
    kept = convert(tmp_path / "plain", tmp_path / "kept", flatten=True)
    assert [layer.status for layer in kept.layers] == ["kept"]
    assert (kept.status, kept.digest) == ("unchanged", plain.digest)


# --- zstd:chunked -------------------------------------------------------------------------------


def chunked(data: Path, dialect: str) -> tuple[bytes, dict[str, str]]:
    """A zstd:chunked layer and its annotations, as stargz-snapshotter and as containers/storage
    end and annotate it."""
    blob = (data / "zstd_chunked.zst").read_bytes()
    (case,) = (case for case in GOLDENS if case["name"] == "zstd_chunked")
    notes = case["annotations"]
    if dialect == "stargz-snapshotter":
        return blob, notes | {TOC_DIGEST: case["toc_digest"]}
    offset, size, inflated, kind = map(int, notes[f"{S}manifest-position"].split(":"))
    split = noise("split", 40)
    place = len(blob) - 48 + 8
    numbers = (offset, size, inflated, kind, place, len(split), 99)
    footer = b"".join(number.to_bytes(8, "little") for number in numbers) + b"GNUlInUx"
    frames = b"".join(
        bytes.fromhex("502a4d18") + len(one).to_bytes(4, "little") + one for one in (split, footer)
    )
    position = f"{offset}:{size}:{inflated}:{kind}"
    return blob[:-48] + frames, {
        f"{C}manifest-checksum": notes[f"{S}manifest-checksum"],
        f"{C}manifest-position": position,
    }


GOLDENS = json.loads((Path(__file__).parent.parent / "data/manifest.json").read_text())
S, C = "io.containers.zstd-chunked.", "io.github.containers.zstd-chunked."
OCI_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def an_image(path: Path, blob: bytes, notes: dict[str, str]) -> Layout:
    layout = Layout(path)
    tar = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True)
    layer = layout.plain_layer(tar.read(), blob) | {"mediaType": OCI_ZSTD, "annotations": notes}
    layout.tag(layout.manifest([layer]), "v1")
    return layout


@pytest.mark.parametrize("dialect", ["stargz-snapshotter", "containers/storage"])
def test_zstd_chunked_is_read_and_converted(tmp_path: Path, data: Path, dialect: str) -> None:
    blob, notes = chunked(data, dialect)
    path = tmp_path / "layer.zst"
    path.write_bytes(blob)
    layout = an_image(tmp_path / "src", blob, notes)
    source = f"oci:{layout.path}:v1"
    image = ["--platform", "linux/amd64", source]
    assert ok("image", "ls", "-R", "--require-verified", *image) == ok("ls", "-R", path)
    wanted = (data / "zstd_chunked.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(wanted)) as tar:
        file = next(one for one in tar if one.isreg() and one.size > 1000)
        content = tar.extractfile(file)
        assert content is not None
        assert ok("image", "cat", *image, file.name, text=False) == content.read()
    found = json.loads(ok("image", "info", "--json", *image))
    (layer,) = found["layers"]
    assert (found["seekable"], layer["kind"]) == (True, "zstd:chunked")
    checksum = next(text for key, text in notes.items() if key.endswith("checksum"))
    assert (layer["toc_digest"], layer["toc_checksum"]) == (notes.get(TOC_DIGEST), checksum)
    assert checksum in ok("image", "info", *image) or layer["toc_digest"]
    with open_image(source, platform="linux/amd64", require_verified=True) as opened:
        assert opened.verified
    # What can be done with it.
    report = convert(layout, tmp_path / "dst", verify=True)
    assert [one.status for one in report.layers] == ["converted"]
    assert report.warnings == ()
    assert verify_image(f"oci:{tmp_path}/dst:v1").verified
    assert not any("zstd" in key for key in written(tmp_path / "dst").layers[0].annotations)
    ok("-q", "convert", path, tmp_path / "layer.esgz")


@pytest.mark.parametrize("dialect", ["stargz-snapshotter", "containers/storage"])
def test_an_image_whose_annotations_are_of_another_toc(
    tmp_path: Path, data: Path, dialect: str
) -> None:
    blob, notes = chunked(data, dialect)
    for number, key in enumerate(notes):
        lie = {key: sha256(b"?") if "position" not in key else "9:9:9:1"}
        layout = an_image(tmp_path / str(number), blob, notes | lie)
        said = fails(3 if "position" not in key else 1, "image", "ls", f"oci:{layout.path}:v1")
        assert "the table of contents" in said or "do not agree where the TOC is" in said


def test_annotations_tell_of_zstd_chunked_without_a_footer(tmp_path: Path, data: Path) -> None:
    blob, notes = chunked(data, "stargz-snapshotter")
    layout = an_image(tmp_path / "src", blob[:-48], notes)
    source = f"oci:{layout.path}:v1"
    words = ["image", "ls", "-R", "--no-cache", "--require-verified", "--platform", "linux/amd64"]
    assert ok(*words, source)
    assert [one.kind for one in verify_image(source).images[0].layers] == ["zstd:chunked"]


# --- many images --------------------------------------------------------------------------------


def test_bulk_skips_caches_and_lists_layers_that_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    cache(layout)
    odd = layout.plain_layer(UNINDEXABLE["a hard link into a lower layer"])
    layout.tag(layout.manifest([layout.plain_layer(TAR), odd]), "odd")
    reports = [tmp_path / "report.json", tmp_path / "report.html"]
    words = ["image", "bulk", "--state", tmp_path / "state", f"oci:{layout.path}"]
    dry = json.loads(ok(*words, f"oci:{tmp_path}/dst", "--dry-run", "--json"))
    assert [dry["totals"][key] for key in ("images", "to_do", "skipped", "failed")] == [2, 1, 1, 0]
    done = run(*words, f"oci:{tmp_path}/dst", *(f"--report={path}" for path in reports))
    assert done.returncode == 0
    assert re.fullmatch(
        rf"stargz: warning: oci:{layout.path}:odd: layer .* stays .*\n", done.stderr
    )
    assert f"skipped  oci:{layout.path}:cache: it is no image, but an artifact" in done.stdout
    assert "1 skipped" in done.stdout and "1 not seekable" in done.stdout
    found = json.loads(reports[0].read_text())
    assert [one["source"] for one in found["skipped"]] == [f"oci:{layout.path}:cache"]
    assert (found["failures"], found["totals"]["skipped"]) == ([], 1)
    assert found["totals"]["layers_not_seekable"] == 1
    skipped, image = sorted(found["images"], key=lambda one: str(one["source"]))
    assert (skipped["status"], skipped["error"]) == ("skipped", None)
    assert CACHE in skipped["warnings"][0]
    assert [layer["status"] for layer in image["layers"]] == ["converted", "not seekable"]
    page = reports[1].read_text()
    assert "Layers that are not seekable" in page and "hard link" in page
    assert "Failed" not in page
    # Again nothing is to be done; asked to be strict, it is.
    assert bulk(f"oci:{layout.path}", f"oci:{tmp_path}/dst", state=tmp_path / "state").ok
    strict = bulk(
        f"oci:{layout.path}", f"oci:{tmp_path}/dst", state=tmp_path / "state", strict=True
    )
    assert [odd["digest"] in failure.error for failure in strict.failures] == [True]
    # Known from before, of another image: it is still counted as what it is.
    layout.tag(layout.manifest([odd]), "again")
    told = run(*words, f"oci:{tmp_path}/dst").stdout
    assert re.search("layers +1: 0 converted, 0 kept, 0 known from before, 1 not seekable", told)
    assert [one.destination for one in strict.skipped] == [f"oci:{tmp_path}/dst:cache"]


# --- layers without a byte ----------------------------------------------------------------------

NOTHING: dict[str, tuple[bytes, str]] = {
    "tar": (b"", "application/vnd.oci.image.layer.v1.tar"),
    "gzip": (gzip.compress(b"", mtime=0), OCI_LAYER),
    "zstd": (zstandard.compress(b""), OCI_ZSTD),
}


@pytest.mark.parametrize("packing", NOTHING)
@pytest.mark.parametrize("flatten", [False, True])
def test_a_layer_of_no_bytes_is_empty(tmp_path: Path, packing: str, flatten: bool) -> None:
    layout = Layout(tmp_path / "src")
    data, media_type = NOTHING[packing]
    empty = layout.plain_layer(b"", data) | {"mediaType": media_type}
    layout.tag(layout.manifest([layout.plain_layer(TAR), empty]), "v1")
    layout.tag(layout.manifest([empty]), "alone")
    assert verify_image(f"oci:{layout.path}:v1").ok
    for ref, layers in (("v1", 1 if flatten else 2), ("alone", 1)):
        report = convert(layout, tmp_path / "dst", ref, flatten=flatten, verify=True)
        assert [layer.status for layer in report.layers] == ["converted"] * layers
        assert verify_image(f"oci:{tmp_path}/dst:{ref}").verified
    assert report.layers[0].entries == 1  # the landmark
