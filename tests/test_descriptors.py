"""What annotations say of a layer in zstd:chunked."""

from __future__ import annotations

import pytest

from stargz.descriptors import Chunked, Position, chunked_of
from stargz.errors import FormatError

C = "io.github.containers.zstd-chunked."
S = "io.containers.zstd-chunked."
DIGEST = "containerd.io/snapshot/stargz/toc.digest"


def test_of_containers_storage() -> None:
    said = {C + "manifest-checksum": "c", C + "manifest-position": "98:67:293:1"}
    assert chunked_of(said) == Chunked(Position(98, 67, 293), None, "", "c")
    said[C + "tarsplit-position"] = "173:5:60"
    assert chunked_of(said) == Chunked(Position(98, 67, 293), Position(173, 5, 60), "", "c")


def test_of_the_snapshotter() -> None:
    said = {DIGEST: "d", S + "manifest-checksum": "c", S + "manifest-position": "98:67:293:1"}
    assert chunked_of(said) == Chunked(Position(98, 67, 293), None, "d", "c")
    assert chunked_of({DIGEST: "d"}) is None
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
