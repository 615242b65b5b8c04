"""A second, slow reader of blobs in plain Python, to test against: nothing of stargz."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

TOC_NAME = "stargz.index.json"
LANDMARKS = {".prefetch.landmark", ".no.prefetch.landmark"}
# Where a chunk lies is each writer's own affair; everything else must be the same.
PLACES = ("offset", "innerOffset")


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def toc_offset(blob: bytes) -> int:
    """From an eStargz (51 bytes) or a legacy stargz footer (47)."""
    if blob[-51:-39] == b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0":
        return int(blob[-35:-19], 16)
    assert blob[-47:-35] == b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x16\0", "no footer"
    return int(blob[-35:-19], 16)


def toc_json(blob: bytes) -> bytes:
    """The TOC as it is stored; what toc_digest is the digest of."""
    return toc_in(blob[toc_offset(blob) :])


def toc_in(member: bytes) -> bytes:
    """The TOC in the gzip member that holds it, of a blob or apart."""
    inflated = zlib.decompressobj(31).decompress(member)
    with tarfile.open(fileobj=io.BytesIO(inflated)) as tar:
        file = tar.extractfile(TOC_NAME)
        assert file is not None
        return file.read()


def toc_entries(path: Path, *, places: bool = False) -> list[dict[str, Any]]:
    """The entries; without their offsets unless asked for."""
    return entries_of(toc_json(path.read_bytes()), places=places)


def entries_of(toc: bytes, *, places: bool = False) -> list[dict[str, Any]]:
    """The same of a TOC's JSON."""
    entries: list[dict[str, Any]] = json.loads(toc)["entries"]
    if places:
        return entries
    return [{k: v for k, v in entry.items() if k not in PLACES} for entry in entries]


def back_filled(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the names that a reader fills in from the last entry of the same uid or gid."""
    names: dict[tuple[str, int], str] = {}
    for entry in entries:
        for key, number in (("userName", "uid"), ("groupName", "gid")):
            slot = (key, entry.get(number, 0))
            entry[key] = names[slot] = entry.get(key) or names.get(slot, "")
    return entries


def diff_id(path: Path) -> str:
    return sha256(gzip.decompress(path.read_bytes()))


def read_chunks(path: Path) -> dict[str, bytes]:
    """Every regular file, each chunk inflated from its own offset and checked."""
    blob = path.read_bytes()
    files: dict[str, bytes] = {}
    name, size, digest = "", 0, ""
    for entry in toc_entries(path, places=True):
        if entry["type"] == "reg":
            name, size, digest = entry["name"], entry.get("size", 0), entry["digest"]
            files[name] = b""
        if entry["type"] not in ("reg", "chunk") or not size:
            continue
        start = entry.get("chunkOffset", 0)
        assert start == len(files[name])
        length = entry.get("chunkSize", 0) or size - start
        inner = entry.get("innerOffset", 0)
        data = b""
        at = blob[entry.get("offset", 0) :]
        while len(data) < inner + length:  # a chunk may go on in the next member
            member = zlib.decompressobj(31)
            data += member.decompress(at)
            at = member.unused_data
        chunk = data[inner : inner + length]
        assert sha256(chunk) == entry["chunkDigest"]
        files[name] += chunk
        if len(files[name]) == size:
            assert sha256(files[name]) == digest
    return files
