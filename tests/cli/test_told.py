"""What a command says of what is wrong, the same everywhere: where it is, and what to do."""

from __future__ import annotations

import json
import random
from pathlib import Path

import handmade
import pytest
from command import fails, run
from handmade import reg

import stargz
from stargz.errors import DigestError

NOISE = random.Random(1).randbytes(300_000)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A layer with one wrong byte in the second of the chunks of usr/noise."""
    blob = bytearray(
        handmade.blob(
            [reg("usr/a", b"a"), reg("usr/noise", NOISE), reg("usr/z", b"z")],
            chunk_size=100_000,
            level=0,
        )
    )
    blob[blob.index(NOISE[150_000:150_016])] ^= 1
    path = tmp_path / "bad.stargz"
    path.write_bytes(blob)
    return path


def test_damage_is_told_in_the_same_words(damaged: Path, tmp_path: Path) -> None:
    with stargz.open(damaged) as layer:
        offset = layer.chunks("usr/noise")[1].offset
        with pytest.raises(DigestError) as caught:
            layer.read("usr/noise")
        with pytest.raises(DigestError) as again:
            layer.extractall(tmp_path / "py")
    error = caught.value
    assert (error.name, error.source, error.offset) == ("usr/noise", str(damaged), offset)
    said = (
        f"{damaged} at offset {offset}: usr/noise: a chunk does not match its digest: "
        f"expected {error.expected}, got {error.actual}"
    )
    assert str(error) == str(again.value) == said
    assert f"usr/noise: {error.message}" in said
    out = tmp_path / "out"
    assert fails(3, "extract", damaged, "-C", out) == said
    for words in (["cat", damaged, "usr/noise"], ["verify", damaged],
                  ["extract", damaged, "-C", out, "--keep-going"]):  # fmt: skip
        done = run(*words)
        assert done.returncode == 3
        assert done.stderr.splitlines()[0] == f"stargz: {said}"


def test_a_wrong_table_of_contents_has_a_verb_too(damaged: Path) -> None:
    other = "sha256:" + "0" * 64
    for command in ("ls", "verify"):
        text = fails(3, command, damaged, "--toc-digest", other)
        assert text.startswith(
            f"{damaged}: the table of contents does not match its digest: expected {other}, got"
        )
    found = json.loads(run("verify", "--json", damaged, "--toc-digest", other).stdout)
    assert found["errors"][0]["name"] == "the table of contents"
    assert found["errors"][0]["message"].startswith(f"does not match its digest: expected {other}")
