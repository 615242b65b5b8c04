"""The rooms of csrc/: a file includes its own room's headers and those of the rooms below."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"

# From the ground up; rooms of one floor do not know each other.
FLOORS = (
    ("base",),
    ("codec", "tar"),
    ("io", "toc"),
    ("index", "read", "write"),
    ("chunks", "extract", "pack", "patch", "verify"),
    ("mount",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path.relative_to(CSRC) for path in CSRC.rglob("*.[ch]"))
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def includes(path: Path) -> list[Path]:
    return [Path(name) for name in INCLUDE.findall((CSRC / path).read_text())]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_direction(path: Path) -> None:
    assert len(path.parts) == 2, "a kernel lives in one of the rooms"
    room = path.parts[0]
    assert room in FLOOR, f"{room} is on no floor: add it to FLOORS in {__file__}"
    for name in includes(path):
        assert name in FILES, f'#include "{name}" is no file of csrc/; write "room/file.h"'
        other = name.parts[0]
        assert other == room or FLOOR[other] < FLOOR[room], f"{path} includes {name} from above"


def test_no_circles() -> None:
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " includes ".join(map(str, (*trail, path)))
        if path not in done:
            for other in includes(path):
                visit(other, (*trail, path))
            done.add(path)

    for path in FILES:
        visit(path, ())


def test_kernels_know_nothing_of_python() -> None:
    for path in FILES:
        assert "Python.h" not in (CSRC / path).read_text(), path


@pytest.mark.parametrize("room", ["read", "chunks", "extract", "mount", "verify"])
def test_only_the_decoder_knows_what_a_blob_is_made_of(room: str) -> None:
    for path in (CSRC / room).iterdir():
        names = re.findall(r"(?i)gzip|inflater|SGZ_POINT_\w+", path.read_text())
        assert not names, f"{path.name}: ask codec/decode.h, which will know other kinds too"
