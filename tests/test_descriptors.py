"""What annotations say of a layer in zstd:chunked."""

from __future__ import annotations

import pytest

from stargz.descriptors import Chunked, Position, chunked_of, stated_toc_digest
from stargz.errors import FormatError

C = "io.github.containers.zstd-chunked."
S = "io.containers.zstd-chunked."
DIGEST = "containerd.io/snapshot/stargz/toc.digest"
ONE, TWO = ("sha256:" + digit * 64 for digit in "12")


def test_of_containers_storage() -> None:
    said = {C + "manifest-checksum": ONE, C + "manifest-position": "98:67:293:1"}
    assert chunked_of(said) == Chunked(Position(98, 67, 293), None, (ONE,))
    said[C + "tarsplit-position"] = "173:5:60"
    assert chunked_of(said) == Chunked(Position(98, 67, 293), Position(173, 5, 60), (ONE,))


def test_of_the_snapshotter() -> None:
    said = {DIGEST: TWO, S + "manifest-checksum": ONE, S + "manifest-position": "98:67:293:1"}
    assert chunked_of(said) == Chunked(Position(98, 67, 293), None, (ONE,))
    assert stated_toc_digest(said) == TWO
    assert chunked_of({DIGEST: TWO}) is None
    assert chunked_of({}) is stated_toc_digest({}) is None


def test_of_both() -> None:
    said = {C + "manifest-checksum": ONE, S + "manifest-checksum": ONE}
    assert chunked_of(said) == Chunked(None, None, (ONE,))
    said |= {S + "manifest-checksum": TWO, S + "manifest-position": "98:67:293:1"}
    assert chunked_of(said) == Chunked(Position(98, 67, 293), None, (ONE, TWO))
    said[C + "manifest-position"] = "98:67:293:1"
    assert chunked_of(said) == Chunked(Position(98, 67, 293), None, (ONE, TWO))
    said[C + "manifest-position"] = "99:67:293:1"
    with pytest.raises(FormatError, match="do not agree where the TOC is: at 99:67:293 or 98:67"):
        chunked_of(said)


@pytest.mark.parametrize(
    "text",
    ["", "1:2:3", "1:2:3:2", "1:2:3:1:1", "-1:2:3:1", "1: 2:3:1", "1:2:3:1\n", "\u0661:2:3:1",
     f"{10**20}:2:3:1"],
)  # fmt: skip
def test_what_is_no_position(text: str) -> None:
    for prefix in (C, S):
        with pytest.raises(FormatError, match="manifest-position"):
            chunked_of({prefix + "manifest-checksum": ONE, prefix + "manifest-position": text}, "l")


@pytest.mark.parametrize("text", ["", "sha256:1", "sha256:" + "A" * 64, ONE + "\n"])
@pytest.mark.parametrize("name", [C + "manifest-checksum", S + "manifest-checksum", DIGEST])
def test_what_is_no_digest(name: str, text: str) -> None:
    read = stated_toc_digest if name == DIGEST else chunked_of
    for more in ({}, {C + "manifest-position": "1:2:3:1"}, {S + "manifest-position": "1:2:3:1"}):
        with pytest.raises(FormatError, match=f"{name} is .*no sha256 digest"):
            read({name: text, **more})
