"""Every digest of a TOC that `open` is told of is compared, whoever says it; what is none is
refused."""

from __future__ import annotations

import io
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import pytest
from blobs import sha256
from chunked_layers import FORMATS, a_tar, convert
from handmade_chunked import TOC_DIGEST, C, S

import stargz
from stargz.errors import DigestError, FooterError, FormatError, UnverifiedError, UsageError

WRONG = sha256(b"something else")
CHECKSUMS = [f"{prefix}manifest-checksum" for prefix in (C, S)]
ARGUMENT = "toc_digest"
SEEKABLE = ["estargz", "external-toc", *FORMATS]


@cache
def made(format: str) -> tuple[Any, dict[str, Any], dict[str, str], dict[str, str]]:
    """A layer, how it is opened, its annotations, and each way to name a digest, with the right
    one."""
    if format == "indexed":
        made_index, tar = io.BytesIO(), a_tar()
        stargz.index(tar, made_index)
        with stargz.open(tar, index=made_index.getvalue()) as layer:
            digest = layer.toc_digest
        return tar, {"index": made_index.getvalue()}, {}, {ARGUMENT: digest, TOC_DIGEST: digest}
    toc = io.BytesIO()
    blob, result = convert(a_tar(), format, **({"toc_out": toc} if "toc" in format else {}))
    with stargz.open(blob, **({"toc": toc.getvalue()} if "toc" in format else {})) as layer:
        right = dict.fromkeys((ARGUMENT, TOC_DIGEST), layer.toc_digest)
        if format in FORMATS:
            right |= dict.fromkeys(CHECKSUMS, layer.toc_checksum)
    options = {"toc": toc.getvalue()} if "toc" in format else {}
    return blob, options, result.annotations, right


def opened(format: str, known: dict[str, Any], notes: dict[str, Any]) -> stargz.Layer:
    blob, options, *_ = made(format)
    known = dict(known)
    given = {ARGUMENT: known.pop(ARGUMENT)} if ARGUMENT in known else {}
    return stargz.open(blob, annotations=notes | known, cache=False, **options, **given)


def without_digests(notes: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in notes.items() if key not in (TOC_DIGEST, *CHECKSUMS)}


@pytest.mark.parametrize("format", [*SEEKABLE, "indexed"])
def test_each_is_compared(format: str) -> None:
    """Alone and beside each other one, with and without what else there is."""
    *_, notes, right = made(format)
    for rest in ({}, without_digests(notes), notes):
        for one in right:
            with opened(format, {one: right[one]}, rest) as layer:
                assert layer.trusted, one
                with pickle.loads(pickle.dumps(layer)) as again:
                    assert again.trusted
            for other in right:
                with pytest.raises(DigestError, match="the table of contents") as caught:
                    opened(format, {other: right[other], one: WRONG}, rest)
                assert caught.value.expected == WRONG
        with opened(format, right, rest) as layer:
            assert layer.trusted
    with opened(format, {}, without_digests(notes)) as layer:
        assert not layer.trusted


def test_a_checksum_without_a_position_is_trust_enough() -> None:
    blob, _, _, right = made("zstd:chunked-stargz")
    for name in CHECKSUMS:
        stargz.open(blob, annotations={name: right[name]}, require_verified=True).close()
    with pytest.raises(UnverifiedError):
        stargz.open(blob, require_verified=True)
    blob, _, _, right = made("zstd:chunked")
    known = {CHECKSUMS[0]: right[CHECKSUMS[0]], f"{C}tarsplit-position": "8:9:9"}
    with pytest.raises(FooterError, match="do not agree"):
        stargz.open(blob, annotations=known)


@pytest.mark.parametrize("name", CHECKSUMS)
def test_a_checksum_of_what_is_not_there(name: str) -> None:
    """Of a frame with a TOC, where there is none."""
    tar = a_tar()
    for format in SEEKABLE[:2]:
        with pytest.raises(FooterError, match="a TOC in zstd:chunked"):
            opened(format, {name: WRONG}, made(format)[2])
    with pytest.raises(FooterError, match="a TOC in zstd:chunked"):
        stargz.open(tar, annotations={name: WRONG}, cache=False)


@pytest.mark.parametrize(
    "bad", ["", 0, b"", False, [], (), {}, 5, "x", WRONG.encode(), WRONG + "\n"]
)
def test_arguments_that_are_no_digests(bad: Any, tmp_path: Path) -> None:
    for format in ("estargz", "zstd:chunked", "indexed"):
        for notes in ({}, made(format)[2]):
            with pytest.raises(UsageError, match="is not a digest"):
                opened(format, {ARGUMENT: bad}, notes)
    path = tmp_path / "layer"
    path.write_bytes(made("estargz")[0])
    for option in ("toc_digest", "index_digest"):
        with pytest.raises(UsageError, match="is not a digest"):
            fsspec.filesystem("stargz", fo=str(path), skip_instance_cache=True, **{option: bad})
        with pytest.raises(UsageError, match="is not a digest"):
            stargz.open(path, **{option: bad})


@pytest.mark.parametrize("name", [TOC_DIGEST, *CHECKSUMS])
@pytest.mark.parametrize("bad", ["", "x", "sha256:", WRONG.upper(), WRONG + "\n"])
def test_annotations_that_are_no_digests(name: str, bad: str) -> None:
    for format in SEEKABLE:
        *_, notes, right = made(format)
        for known in ({}, {ARGUMENT: right[ARGUMENT]}):
            with pytest.raises(FormatError, match=f"{name} is .*no sha256 digest"):
                opened(format, known | {name: bad}, notes)


@pytest.mark.parametrize("bad", [None, 5, 0, [], ["x"], {}, b"", b"x", False])
def test_annotations_that_are_no_texts(bad: Any) -> None:
    places = [f"{prefix}manifest-position" for prefix in (C, S)]
    for name in (TOC_DIGEST, *CHECKSUMS, *places, f"{C}tarsplit-position", "another"):
        with pytest.raises(UsageError, match=f"{name}.* is .*, and no text"):
            opened("zstd:chunked", {name: bad}, made("zstd:chunked")[2])
    with pytest.raises(UsageError, match="and no text"):
        stargz.open(a_tar(), annotations={5: "x"}, cache=False)  # type: ignore[dict-item]


@pytest.mark.parametrize("bad", [[1], [], "", "x", 0, 5, False, b"", (("a", "b"),)])
def test_what_are_no_annotations(bad: Any) -> None:
    with pytest.raises(UsageError, match="annotations are no mapping"):
        stargz.open(made("estargz")[0], annotations=bad)
