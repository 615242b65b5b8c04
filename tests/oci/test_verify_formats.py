"""Verification of images whose layers are in zstd:chunked, or have an external TOC: blobs, DiffIDs,
and all that annotates them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from blobs import sha256
from chunked_layers import FORMATS, a_tar, convert, plain
from command import ok, run
from layouts import TOC_DIGEST, Layout

from stargz.oci.verify.image import ImageVerifyResult, verify_image

OCI_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
C, S = "io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."
ZEROS = "sha256:" + "0" * 64


def an_image(path: Path, blob: bytes, notes: dict[str, str], **config: Any) -> str:
    layout = Layout(path)
    layer = layout.plain_layer(plain(blob), blob) | {"mediaType": OCI_ZSTD, "annotations": notes}
    layout.tag(layout.manifest([layer], **config), "v1")
    return f"oci:{path}:v1"


def statuses(found: ImageVerifyResult) -> list[str]:
    return [layer.status for image in found.images for layer in image.layers]


@pytest.mark.parametrize("format", FORMATS)
def test_layers_are_verified_in_full(tmp_path: Path, format: str) -> None:
    blob, result = convert(a_tar(), format)
    source = an_image(tmp_path / "src", blob, result.annotations)
    found = verify_image(source, require_verified=True)
    assert found.ok and found.verified and found.files
    (layer,) = found.images[0].layers
    assert (layer.status, layer.kind) == ("verified", "zstd:chunked")
    assert (layer.diff_id, layer.toc_digest) == (result.diff_id, result.toc_digest)
    # Without footers too, by its annotations.
    if format == "zstd:chunked":
        end = sum(map(int, result.annotations[f"{C}tarsplit-position"].split(":")[:2]))
        assert verify_image(an_image(tmp_path / "bare", blob[:end], result.annotations)).verified
    # One bit, of which the digest tells as well.
    layout = tmp_path / "src/blobs/sha256" / result.digest.partition(":")[2]
    layout.write_bytes(bytes([*blob[:3000], blob[3000] ^ 1, *blob[3001:]]))
    done = run("verify", source)
    assert done.returncode == 3 and "the blob" in done.stderr and "zstd frame" in done.stderr


@pytest.mark.parametrize("format", FORMATS)
def test_a_diff_id_that_is_another(tmp_path: Path, format: str) -> None:
    blob, result = convert(a_tar(), format)
    config = {"rootfs": {"type": "layers", "diff_ids": [ZEROS]}}
    source = an_image(tmp_path / "src", blob, result.annotations, config=config)
    found = verify_image(source)
    assert [error.message for error in found.errors] == [
        f"its DiffID is {result.diff_id}, but the config's diff_ids[0] is {ZEROS}"
    ]


CHANGES = [
    ("zstd:chunked", {f"{C}manifest-checksum": ZEROS}, "in the blob"),
    ("zstd:chunked", {f"{C}manifest-position": None}, "without which podman fails"),
    ("zstd:chunked", {f"{C}tarsplit-position": None}, "without which podman fails"),
    ("zstd:chunked", {f"{C}manifest-position": "9:9:9:1"}, "do not agree where the TOC is"),
    ("zstd:chunked", {f"{C}manifest-position": "9:9:9"}, "and no position"),
    ("zstd:chunked", {f"{C}tarsplit-position": "9:9:9"}, "tar-split"),
    ("zstd:chunked", {TOC_DIGEST: "right"}, "of which podman refuses both"),
    ("zstd:chunked-stargz", {TOC_DIGEST: ZEROS}, "but its TOC has"),
    ("zstd:chunked-stargz", {f"{S}manifest-checksum": ZEROS}, "in the blob"),
    ("zstd:chunked-stargz", {f"{S}manifest-position": "9:9:9:1"}, "do not agree"),
    ("zstd:chunked-stargz", {"io.containers.estargz.uncompressed-size": "1"}, "inflates to"),
    ("estargz", {f"{C}manifest-checksum": ZEROS}, "the blob has no such thing"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_annotations_that_lie(tmp_path: Path, number: int) -> None:
    format, change, told = CHANGES[number]
    blob, result = convert(a_tar(), format)
    notes = dict(result.annotations)
    for key, text in change.items():
        notes.pop(key, None)
        if text is not None:
            notes[key] = result.toc_digest if text == "right" else text
    layout = Layout(tmp_path)
    if format == "estargz":
        layer = layout.layer(a_tar())
        layer["annotations"] |= change
    else:
        layer = layout.plain_layer(plain(blob), blob) | {"annotations": notes}
    layout.tag(layout.manifest([layer]), "v1")
    found = verify_image(f"oci:{tmp_path}:v1")
    assert not found.ok
    messages = [error.message for error in found.errors]
    assert told in messages[0], messages
    assert statuses(found) == ["failed"]


def test_two_images_of_one_blob(tmp_path: Path) -> None:
    """Each manifest's annotations are compared with it."""
    blob, result = convert(a_tar(), "zstd:chunked")
    layout = Layout(tmp_path)
    stored = layout.plain_layer(plain(blob), blob)
    notes = (result.annotations, {TOC_DIGEST: result.toc_digest}, {TOC_DIGEST: ZEROS})
    made = [
        layout.manifest([stored | {"mediaType": OCI_ZSTD, "annotations": one}], n=number)
        for number, one in enumerate(notes)
    ]
    layout.tag(layout.index(made[:2]), "both")
    layout.tag(layout.index(made), "all")
    assert verify_image(f"oci:{tmp_path}:both").verified
    found = verify_image(f"oci:{tmp_path}:all")
    assert statuses(found) == ["verified", "verified", "failed"]


def test_external_tocs(tmp_path: Path) -> None:
    layout, tar = Layout(tmp_path / "src"), a_tar()
    layout.tag(layout.manifest([layout.plain_layer(tar)]), "v1")
    words = ["-q", "image", "convert", "--format", "external-toc"]
    ok(*words, f"oci:{tmp_path}/src:v1", f"oci:{tmp_path}/dst:v1")
    found = verify_image(f"oci:{tmp_path}/dst:v1", require_verified=True)
    (layer,) = found.images[0].layers
    assert found.verified and layer.kind == "external-toc"
    assert layer.diff_id == sha256(tar)
