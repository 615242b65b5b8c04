"""Bad images of external TOCs: one error that says where, and nothing of them is used."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blobs
import pytest
from blobs import sha256, tar_of
from command import here
from layouts import LAYER_DIGEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, TOC_DIGEST, Layout

import stargz
from stargz.errors import DigestError, FooterError, FormatError, GzipError, TOCError
from stargz.oci.image import open_image

TAR = tar_of([("etc/a", b"contents of a"), ("etc/b", b"b" * 9000)])
Edit = Callable[[dict[str, Any], Layout], dict[str, Any]]


def external(tar: bytes) -> tuple[bytes, bytes, str]:
    layer, toc = io.BytesIO(), io.BytesIO()
    made = stargz.convert(io.BytesIO(tar), layer, format="external-toc", toc_out=toc)
    return layer.getvalue(), toc.getvalue(), made.toc_digest


LAYER, TOC, DIGEST = external(TAR)
OTHER_TOC = external(tar_of([("other", b"other")]))[1]
HERE = {LAYER_DIGEST: sha256(LAYER)}
EMPTY = b'{"version":1,"entries":[]}'


def image(path: Path, tocs: list[tuple[bytes, dict[str, str]]], edit: Edit | None = None) -> str:
    layout = Layout(path)
    layer = layout.blob(LAYER, OCI_LAYER, annotations={TOC_DIGEST: DIGEST})
    layout.tag(layout.manifest([layer]), "v1")
    layers = [layout.blob(data, OCI_LAYER, annotations=notes) for data, notes in tocs]
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layout.blob(b"{}", OCI_CONFIG),
        "layers": layers,
    }
    if edit is not None:
        document = edit(document, layout)
    data = json.dumps(document).encode()
    layout.tag(layout.blob(data, document["mediaType"]), "v1-esgztoc")
    return f"oci:{path}:v1"


def named(name: str, text: bytes = EMPTY, **options: Any) -> bytes:
    return blobs.member(blobs.toc_entry(text, name, **options) + bytes(1024))


def endless(start: bytes, mib: int) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [squeezer.compress(start)]
    parts += [squeezer.compress(b" " * (1 << 20)) for _ in range(mib)]
    return b"".join(parts) + squeezer.flush()


@pytest.mark.parametrize(
    ("toc", "error", "match"),
    [
        (OTHER_TOC, DigestError, "the table of contents does not match"),
        (named("stargz.index.json"), DigestError, "the table of contents does not match"),
        (named("stargz.index.json2"), TOCError, "not the file stargz.index.json"),
        (named("./stargz.index.json"), TOCError, "not the file stargz.index.json"),
        (named("stargz.index.json", size=(8 << 30) - 1), TOCError, "more than the limit"),
        (named("stargz.index.json", size=5000), TOCError, "early"),
        (b"", TOCError, "no table of contents"),
        (TOC[:-9], GzipError, "cut off"),
        (TOC[:20], GzipError, "cut off"),
        (TOC[:-6] + b"?" + TOC[-5:], GzipError, "trailer says"),
        (gzip.decompress(TOC), GzipError, "not a gzip member"),
        (gzip.compress(b"", mtime=0) * 10_000, TOCError, "no table of contents"),
        (gzip.compress(b"no tar" * 200, mtime=0), TOCError, "no tar entry"),
        (endless(blobs.toc_entry(b"", size=64 << 20), 64), TOCError, "ends too early"),
        (endless(gzip.decompress(TOC), 64), TOCError, "after the JSON"),
    ],
)
def test_tocs_that_are_not_the_layers(
    toc: bytes, error: type[FormatError], match: str, tmp_path: Path
) -> None:
    name = image(tmp_path / "layout", [(toc, HERE)])
    with pytest.raises(error, match=match) as caught:
        open_image(name, platform="linux/amd64")
    assert str(caught.value).startswith(f"{name}-esgztoc")
    told = here("image", "ls", "--platform", "linux/amd64", name)
    assert told.returncode == (3 if error is DigestError else 1)
    assert (told.stdout, len(told.stderr.splitlines())) == ("", 1)


def in_index(document: dict[str, Any], layout: Layout) -> dict[str, Any]:
    entry = layout.blob(json.dumps(document).encode(), OCI_MANIFEST)
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}


def in_layer(**changes: Any) -> Edit:
    def edit(document: dict[str, Any], layout: Layout) -> dict[str, Any]:
        document["layers"][0] |= changes
        return document

    return edit


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (in_index, "there is no image"),
        (in_layer(annotations={}), "there is no image"),
        (in_layer(annotations={LAYER_DIGEST: sha256(TOC)}), "there is no image"),
        (in_layer(annotations={LAYER_DIGEST: 5}), "not texts"),
        (in_layer(annotations=[LAYER_DIGEST]), "not an object"),
        (in_layer(size=1 << 40), "more than a TOC may have"),
        (in_layer(size=5), "its descriptor says 5"),
        (in_layer(size=-1), "not a size"),
        (in_layer(digest="sha256:" + "0" * 64), "not in the layout"),
        (in_layer(digest="../../etc/passwd"), "not a digest"),
        (lambda document, _: document | {"layers": "x"}, "not a list"),
        (lambda document, _: document | {"layers": []}, "there is no image"),
        (lambda document, _: document | {"layers": document["layers"] * 5000}, "more than 4096"),
        (lambda document, _: document | {"manifests": []}, "does not belong"),
    ],
)
def test_manifests_that_are_bad(edit: Edit, match: str, tmp_path: Path) -> None:
    name = image(tmp_path / "layout", [(TOC, HERE)], edit)
    told = here("image", "ls", "--platform", "linux/amd64", name)
    assert (told.returncode, told.stdout, len(told.stderr.splitlines())) == (1, "", 1)
    assert match in told.stderr


def test_the_first_of_two_counts(tmp_path: Path) -> None:
    """As for stargz-snapshotter."""
    good = image(tmp_path / "good", [(OTHER_TOC, {}), (TOC, HERE), (OTHER_TOC, HERE)])
    with open_image(good, platform="linux/amd64") as opened:
        assert opened.verified and opened.tree.read("etc/a") == b"contents of a"
    bad = image(tmp_path / "bad", [(OTHER_TOC, HERE), (TOC, HERE)])
    with pytest.raises(DigestError):
        open_image(bad, platform="linux/amd64")


def test_no_more_than_max_toc_size_is_read(tmp_path: Path) -> None:
    name = image(tmp_path / "layout", [(TOC + bytes(5000), HERE)])
    with pytest.raises(TOCError, match="more than a TOC may have, 4096"):
        open_image(name, platform="linux/amd64", max_toc_size=4096)


def test_a_toc_that_was_asked_for(tmp_path: Path) -> None:
    """Positions beyond the blob, and TOCs of layers that have their own."""
    row = {"type": "reg", "name": "a", "size": 5, "offset": len(LAYER) - 46}
    text = json.dumps({"version": 1, "entries": [row]}).encode()
    with pytest.raises(TOCError, match="not inside"):
        stargz.open(LAYER, toc=named("stargz.index.json", text))
    with pytest.raises(FooterError, match="give the file"):
        stargz.open(LAYER)
    own = io.BytesIO()
    stargz.convert(io.BytesIO(TAR), own)
    # Behind an ordinary eStargz the footer of an external TOC counts, as it is the last.
    both = own.getvalue() + LAYER[-46:]
    with pytest.raises(FooterError, match="give the file"):
        stargz.open(both)
    for blob in (own.getvalue(), LAYER[:-46]):
        with pytest.raises(stargz.StargzError):
            stargz.open(blob, toc=TOC)
