"""Imports go downward only, and the heavy ones wait until they are used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stargz"

# From the bottom up. A module may import its own floor and those below; __init__ and
# __main__ are the doors, above all.
FLOORS = (
    ("errors", "durable"),
    ("footer", "_engine"),
    ("toc", "sources", "extract"),
    ("cache",),
    ("remote",),
    ("layer", "extract", "conversion"),
    ("packing", "ignore", "patching"),
    ("patch",),
    ("tree",),
    ("oci",),
    ("fsspec", "mount"),
    ("cli",),
    ("__init__", "__main__"),
)
FLOOR = {room: n for n, rooms in enumerate(FLOORS) for room in rooms}
_NAME = r"(stargz[\w.]*)"
CYTHON_IMPORT = re.compile(rf"^\s*(?:from\s+{_NAME}\s+c?import|c?import\s+{_NAME})", re.M)


def modules() -> list[Path]:
    """What runs; a stub may name a type from above."""
    return sorted(p for kind in ("py", "pyx", "pxd") for p in PACKAGE.rglob(f"*.{kind}"))


def room_of(path: Path) -> str:
    """The room a module is in: its name under stargz/, or its folder's."""
    return path.relative_to(PACKAGE).parts[0].split(".")[0]


def imports_of(path: Path) -> Iterator[str]:
    """Every stargz module that a file imports, in functions too."""
    text = path.read_text()
    if path.suffix in (".pyx", ".pxd"):
        text = re.sub(r"\bfrom stargz (c?import) ", r"\1 stargz.", text)
        for match in CYTHON_IMPORT.finditer(text):
            yield match[1] or match[2]
        return
    tree = ast.parse(text)
    for node in ast.walk(tree):  # likewise what only a type checker sees
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "stargz":  # from stargz import layer
                yield from (f"stargz.{alias.name}" for alias in node.names)
            else:
                yield node.module


def rooms_imported(path: Path) -> set[str]:
    names = [name.split(".") for name in imports_of(path)]
    rooms = {parts[1] for parts in names if parts[0] == "stargz" and len(parts) > 1}
    # `from stargz import convert` names a module's function through the door: the CLI may.
    return {room for room in rooms if room in FLOOR}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_direction(path: Path) -> None:
    room = room_of(path)
    assert room in FLOOR, f"{room} is on no floor: add it to FLOORS in {__file__}"
    above = {other for other in rooms_imported(path) if FLOOR[other] > FLOOR[room]}
    assert not above, f"{path.relative_to(ROOT)} imports from above: {sorted(above)}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_import_through_the_door(path: Path) -> None:
    """Inside the package, `import stargz` would hide what a module depends on."""
    if room_of(path) not in ("cli", "__main__"):
        assert "stargz" not in set(imports_of(path))


def test_rooms_of_one_floor_have_no_cycle() -> None:
    edges: dict[str, set[str]] = {}
    for path in modules():
        edges.setdefault(room_of(path), set()).update(rooms_imported(path) - {room_of(path)})
    done: set[str] = set()

    def visit(room: str, trail: tuple[str, ...]) -> None:
        assert room not in trail, " imports ".join((*trail, room))
        if room not in done:
            for other in sorted(edges.get(room, ())):
                visit(other, (*trail, room))
            done.add(room)

    for room in sorted(edges):
        visit(room, ())


def test_kernels_know_nothing_of_python() -> None:
    for path in sorted((ROOT / "csrc").glob("*.[ch]")):
        assert "Python.h" not in path.read_text(), path.name


HEAVY = {"numpy", "rich", "zstandard", "isal", "deflate", "urllib3", "fsspec"}


@pytest.mark.parametrize(
    "code",
    [
        "import stargz",
        "from stargz.cli import main; main(['--help'])",
        "from stargz.cli import main; main(['convert', '--help'])",
        "from stargz.cli import main; main(['--version'])",
    ],
)
def test_lazy(code: str) -> None:
    script = f"""
import sys
try:
    {code}
except SystemExit as stop:
    assert not stop.code, stop.code
print("|".join(sorted({{name.partition(".")[0] for name in sys.modules}})), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.strip().splitlines()[-1].split("|"))
    assert "stargz" in loaded
    assert not loaded & HEAVY
