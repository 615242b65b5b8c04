"""What annotations say of a layer in zstd:chunked."""

from __future__ import annotations

import pytest

from stargz.descriptors import Chunked, Position, chunked_of
from stargz.errors import FormatError

C = "io.github.containers.zstd-chunked."
S = "io.containers.zstd-chunked."
DIGEST = "containerd.io/snapshot/stargz/toc.digest"
ONE, TWO = ("sha256:" + digit * 64 for digit in "12")


def test_of_containers_storage() -> None:
    said = {C + "manifest-checksum": ONE, C + "manifest-position": "98:67:293:1"}
    assert chunked_of(said) == Chunked(Position(98, 67, 293), None, "", ONE)
    said[C + "tarsplit-position"] = "173:5:60"
    assert chunked_of(said) == Chunked(Position(98, 67, 293), Position(173, 5, 60), "", ONE)


def test_of_the_snapshotter() -> None:
    said = {DIGEST: TWO, S + "manifest-checksum": ONE, S + "manifest-position": "98:67:293:1"}
    assert chunked_of(said) == Chunked(Position(98, 67, 293), None, TWO, ONE)
    assert chunked_of({DIGEST: TWO}) is None
    assert chunked_of({}) is None


@pytest.mark.parametrize(
    "text",
    ["", "1:2:3", "1:2:3:2", "1:2:3:1:1", "-1:2:3:1", "1: 2:3:1", "1:2:3:1\n", "\u0661:2:3:1",
     f"{10**20}:2:3:1"],
)  # fmt: skip
def test_what_is_no_position(text: str) -> None:
    for prefix in (C, S):
        with pytest.raises(FormatError, match="manifest-position"):
            chunked_of({prefix + "manifest-checksum": "", prefix + "manifest-position": text}, "l")


@pytest.mark.parametrize("name", [C + "manifest-checksum", S + "manifest-checksum", DIGEST])
def test_what_is_no_digest(name: str) -> None:
    prefix = C if name.startswith(C) else S
    with pytest.raises(FormatError, match=f"{name} is .*no sha256 digest"):
        chunked_of({prefix + "manifest-position": "1:2:3:1", name: "sha256:1"})
