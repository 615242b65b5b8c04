"""The TOC we write lists what the reference's lists, for every golden tar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oracle import LANDMARKS, back_filled, diff_id, read_chunks, sha256, toc_entries, toc_json

import stargz

DATA = Path(__file__).parent / "data"
GOLDENS = {
    case["name"]: case
    for case in json.loads((DATA / "manifest.json").read_text())
    if case["kind"] == "gzip"
}

# Each of the reference's workers begins anew with the user names, and two built this one.
SEVERAL_WORKERS = {"prioritized"}


def convert(case: dict[str, Any], dst: Path) -> stargz.ConvertResult:
    return stargz.convert(
        DATA / case["tar"],
        dst,
        chunk_size=case["chunk_size"],
        min_chunk_size=case["min_chunk_size"],
        prioritized=case["prioritized"],
    )


@pytest.mark.parametrize("name", GOLDENS)
def test_same_metadata_as_reference(name: str, tmp_path: Path) -> None:
    case = GOLDENS[name]
    convert(case, tmp_path / "out")
    ours, theirs = toc_entries(tmp_path / "out"), toc_entries(DATA / case["blob"])
    if name in SEVERAL_WORKERS:
        assert back_filled(ours) == back_filled(theirs)
        return
    # The reference drops the earlier of two entries of one name, we the same from the TOC:
    # so even `duplicates` lists the same; only its tar differs.
    assert ours == theirs
    # The same keys in the same order too, not only the same values.
    assert [list(entry) for entry in ours] == [list(entry) for entry in theirs]


@pytest.mark.parametrize("name", GOLDENS)
def test_result_describes_the_blob(name: str, tmp_path: Path) -> None:
    result = convert(GOLDENS[name], tmp_path / "out")
    blob = (tmp_path / "out").read_bytes()
    assert result.digest == sha256(blob)
    assert result.size == len(blob)
    assert result.diff_id == diff_id(tmp_path / "out")
    assert result.toc_digest == sha256(toc_json(blob))
    entries = toc_entries(tmp_path / "out")
    chunks = [e for e in entries if e["type"] == "chunk" or (e["type"] == "reg" and e.get("size"))]
    assert result.chunks == len(chunks)
    assert result.entries == len([e for e in entries if e["type"] != "chunk"])


@pytest.mark.parametrize("name", GOLDENS)
def test_every_chunk_is_where_the_toc_says(name: str, tmp_path: Path) -> None:
    case = GOLDENS[name]
    convert(case, tmp_path / "out")
    files = {name: sha256(data)[7:] for name, data in read_chunks(tmp_path / "out").items()}
    assert {name: d for name, d in files.items() if name not in LANDMARKS} == case["file_sha256"]
