"""Layers whose annotations, TOC, tar-split or footers lie: what containers/storage refuses, we
refuse too. Such a layer fails its pull: there is no way back to the whole layer."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chunked_layers import a_tar, convert
from chunked_parts import CHECKSUM, POSITION, SPLIT, Parts
from containers import needs_overlay
from plain_chunked import TOC_DIGEST

import stargz
from stargz.errors import StargzError


def with_annotations(change: Callable[[dict[str, str]], object]) -> Callable[[Parts], object]:
    def apply(parts: Parts) -> None:
        parts.annotate = change

    return apply


def number(key: str, at: int, value: object) -> Callable[[Parts], object]:
    """Another number at this place of an annotation."""

    def change(annotations: dict[str, str]) -> None:
        words = annotations[key].split(":")
        words[at] = str(value)
        annotations[key] = ":".join(words)

    return with_annotations(change)


def swap(parts: Parts, *names: str) -> None:
    rows = parts.toc["entries"]
    a, b = (rows.index(parts.entry(name)) for name in names)
    rows[a], rows[b] = rows[b], rows[a]


def drop(parts: Parts, key: str, name: str | None = None) -> None:
    for entry in parts.toc["entries"]:
        if name in (None, entry["name"]):
            entry.pop(key, None)


def line(parts: Parts, name: str) -> dict[str, Any]:
    return next(line for line in parts.split if line.get("name") == name)


def other_bytes(parts: Parts, at: int) -> None:
    """A segment with another byte."""
    data = bytearray(base64.b64decode(parts.split[at]["payload"]))
    data[-1] ^= 1
    parts.split[at]["payload"] = base64.b64encode(data).decode()


def header(parts: Parts, file: str, **fields: Any) -> None:
    """Another tar header before the line of a file in the tar-split."""
    at = parts.split.index(line(parts, file))
    data = base64.b64decode(parts.split[at - 1]["payload"])
    info = tarfile.TarInfo.frombuf(data[-512:], "utf-8", "surrogateescape")
    for key, value in fields.items():
        setattr(info, key, value)
    made = data[:-512] + info.tobuf(tarfile.USTAR_FORMAT)[-512:]
    parts.split[at - 1]["payload"] = base64.b64encode(made).decode()


ZEROS = "sha256:" + "0" * 64
# What the change is; what containers/storage does then; whether it verifies with us.
CASES: dict[str, tuple[Callable[[Parts], object], str, bool]] = {
    "nothing": (lambda p: None, "pulled", True),
    # entries
    "mode": (lambda p: p.entry("./d/a").update(mode=0o600), "refused", False),
    "type bits in the mode": (lambda p: p.entry("./d/a").update(mode=0o100644), "refused", False),
    "owner": (lambda p: p.entry("./d/a").update(uid=6), "refused", False),
    "group": (lambda p: p.entry("./d/a").update(gid=5), "refused", False),
    "time without its fraction": (
        lambda p: p.entry("./d/a").update(modtime="2023-11-14T22:13:20Z"), "refused", False,
    ),
    "time absent": (lambda p: p.entry("./d/a").pop("modtime"), "refused", False),
    "time absent at the epoch": (lambda p: p.entry("./d/zeros").pop("modtime"), "pulled", True),
    "time in another zone": (
        lambda p: p.entry("./d/zeros").update(modtime="1970-01-01T01:00:00+01:00"), "pulled", True,
    ),
    "another access time": (
        lambda p: p.entry('./x "<é>').update(accesstime="2023-11-14T22:13:21Z"), "refused", False,
    ),
    "no change time": (lambda p: p.entry('./x "<é>').pop("changetime"), "refused", False),
    "xattr changed": (
        lambda p: p.entry('./x "<é>')["xattrs"].update({"user.k": "AAAA"}), "refused", False,
    ),
    "xattr more": (lambda p: p.entry("./d/a").update(xattrs={"user.k": "AAAA"}), "refused", False),
    "xattr less": (lambda p: p.entry('./x "<é>').pop("xattrs"), "refused", False),
    "device": (lambda p: p.entry("./c").update(devMinor=4), "refused", False),
    "link target": (lambda p: p.entry("./s").update(linkName="d/b"), "refused", False),
    "hard link's target written otherwise": (
        lambda p: p.entry("./h").update(linkName="d/a"), "refused", False,
    ),
    "size of a link": (lambda p: p.entry("./h").update(size=6), "refused", False),
    "type": (lambda p: p.entry("./f").update(type="char"), "refused", False),
    "name without its slash": (lambda p: p.entry("./d/").update(name="./d"), "refused", False),
    "name without ./": (lambda p: p.entry("./s").update(name="s"), "refused", False),
    "an entry less": (lambda p: p.toc["entries"].remove(p.entry("./s")), "refused", False),
    "an entry more": (
        lambda p: p.toc["entries"].append({"type": "dir", "name": "new/"}), "refused", False,
    ),
    "an entry twice": (lambda p: p.toc["entries"].append(p.entry("./s")), "refused", False),
    "names of users": (lambda p: p.entry("./s").update(userName="root"), "pulled", False),
    "a key nobody knows": (lambda p: p.entry("./s").update(foo="root"), "pulled", True),
    # contents
    "digest": (lambda p: p.entry("./d/a").update(digest=ZEROS), "refused", False),
    "digest absent": (lambda p: p.entry("./d/a").pop("digest"), "refused", False),
    "digest of several chunks": (
        lambda p: p.entry("./d/mixed").update(digest=ZEROS), "refused", False,
    ),
    "size": (lambda p: p.entry("./d/a").update(size=7), "refused", False),
    "offset": (lambda p: p.entry("./d/a").update(offset=1), "refused", False),
    "offset of another": (
        lambda p: p.entry("./d/a").update(offset=p.entry("./noise")["offset"]), "refused", False,
    ),
    "two swapped": (lambda p: swap(p, "./d/a", "./noise"), "refused", False),
    "chunkDigest": (lambda p: p.entry("./d/mixed").update(chunkDigest=ZEROS), "pulled", False),
    "no chunkDigest": (lambda p: drop(p, "chunkDigest"), "pulled", True),
    "no endOffset": (lambda p: drop(p, "endOffset"), "pulled", True),
    "the last chunkSize absent": (
        lambda p: p.chunks("./d/mixed")[-1].pop("chunkSize"), "pulled", True,
    ),
    "zeros not marked": (lambda p: drop(p, "chunkType"), "pulled", True),
    "data marked as zeros": (
        lambda p: p.chunks("./d/mixed")[0].update(chunkType="zeros"), "refused", False,
    ),
    "a chunk less": (
        lambda p: p.toc["entries"].remove(p.chunks("./d/mixed")[-1]), "refused", False,
    ),
    # TOC
    "version 2": (lambda p: p.toc.update(version=2), "pulled", False),
    "white space behind": (lambda p: setattr(p, "behind", b"\n"), "pulled", True),
    "more behind": (lambda p: setattr(p, "behind", b"{}"), "refused", False),
    "no tarSplitDigest": (lambda p: p.toc.pop("tarSplitDigest"), "whole", True),
    # tar-split
    "padding": (lambda p: other_bytes(p, -1), "other DiffID", False),
    "a header's mode": (lambda p: header(p, "./d/a", mode=0o600), "refused", False),
    "a header's name": (lambda p: header(p, "./d/a", name="./d/b"), "refused", False),
    "a header's user name": (lambda p: header(p, "./d/a", uname="who"), "other DiffID", False),
    "CRC": (lambda p: line(p, "./d/a").update(payload="AAAAAAAAAAA="), "refused", False),
    "a file's size": (lambda p: line(p, "./d/a").update(size=5), "pulled", False),
    "a file's name": (lambda p: line(p, "./d/a").update(name="./d/b"), "refused", False),
    "the last line missing": (lambda p: p.split.pop(), "other DiffID", False),
    "a line twice": (lambda p: p.split.append(p.split[-1]), "other DiffID", False),
    # annotations
    "checksum": (with_annotations(lambda a: a.update({CHECKSUM: ZEROS})), "refused", False),
    "no manifest-position": (with_annotations(lambda a: a.pop(POSITION)), "refused", True),
    "manifest-position of three": (
        with_annotations(lambda a: a.update({POSITION: "1:2:3"})), "refused", False,
    ),
    "TOC's offset": (number(POSITION, 0, 9), "refused", False),
    "TOC's size": (number(POSITION, 1, 9), "refused", False),
    "TOC's size unpacked": (number(POSITION, 2, 10), "pulled", False),
    "a TOC too large": (number(POSITION, 2, 200 << 20), "whole", False),
    "type 2": (number(POSITION, 3, 2), "refused", False),
    "no tarsplit-position": (with_annotations(lambda a: a.pop(SPLIT)), "refused", True),
    "tar-split's offset": (number(SPLIT, 0, 9), "refused", False),
    "tar-split's size": (number(SPLIT, 1, 9), "refused", False),
    "both sets": (with_annotations(lambda a: a.update({TOC_DIGEST: ZEROS})), "refused", False),
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    (folder / "overlay").mkdir()
    needs_overlay(folder / "overlay")
    return folder


def theirs(
    chunked: Callable[..., Any], store: Path, blob: bytes, notes: dict[str, str], diff_id: str
) -> str:
    (store / "blob").write_bytes(blob)
    (store / "annotations").write_text(json.dumps(notes))
    # A new store: what is in one already is not fetched again.
    new = store / str(len(list(store.iterdir())))
    found = chunked("pull", new, store / "blob", store / "annotations")
    for word in ("refused", "whole"):
        if word in found:
            return word
    return "pulled" if found["diff_id"] == diff_id else "other DiffID"


def ours(blob: bytes, notes: dict[str, str]) -> bool:
    try:
        with stargz.open(io.BytesIO(blob), annotations=notes) as layer:
            return layer.verify().ok
    except StargzError:
        return False


@pytest.mark.parametrize("what", CASES)
def test_lies(chunked: Callable[..., Any], store: Path, what: str) -> None:
    change, does, good = CASES[what]
    data, result = convert(a_tar(), "zstd:chunked")
    parts = Parts.of(data, result.annotations)
    change(parts)
    blob, notes = parts.layer()
    assert theirs(chunked, store, blob, notes, result.diff_id) == does
    assert ours(blob, notes) == good
