"""Imports go downward only, and the heavy ones wait until they are used."""

from __future__ import annotations

import ast
import gzip
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import blobs
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stargz"

# From the bottom up. A module may import its own floor and those below; __init__ and
# __main__ are the doors, above all.
FLOORS = {
    "stargz": (
        ("errors", "compressions", "durable", "digests", "logs", "results", "wildcards"),
        ("footer", "_engine"),
        ("toc", "paths", "contents", "sources", "options", "endpoints", "descriptors"),
        ("cache", "skippable"),
        ("remote",),
        ("layer", "tail", "extract", "conversion", "indexing", "indexes", "ending", "comparing"),
        ("packing", "ignore", "opening"),
        ("patching",),
        ("tree",),
        ("oci",),
        ("fsspec", "mount"),
        ("benchmark",),
        ("cli",),
        ("patch",),  # a name for other programs
        ("__init__", "__main__"),
    ),
    "stargz.oci": (
        ("formats",),
        ("registry",),
        ("local",),
        ("repository", "destination"),
        ("indexes",),
        ("loading",),
        ("image", "verify"),
        ("convert",),
        ("conversion", "extraction", "difference"),
        ("soci",),
        ("bulk",),
        ("credentials", "reference"),  # names for other programs
        ("__init__",),
    ),
}
FLOOR = {
    house: {room: n for n, rooms in enumerate(floors) for room in rooms}
    for house, floors in FLOORS.items()
}
_NAME = r"(stargz[\w.]*)"
CYTHON_IMPORT = re.compile(rf"^\s*(?:from\s+{_NAME}\s+c?import|c?import\s+{_NAME})", re.M)


def modules() -> list[Path]:
    """What runs; a stub may name a type from above."""
    return sorted(p for kind in ("py", "pyx", "pxd") for p in PACKAGE.rglob(f"*.{kind}"))


def name_of(path: Path) -> str:
    """The name a module is imported by; that of a package ends in __init__."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(name: str, house: str) -> str:
    """The room of a house that a module is in: its name there, or its folder's; "" if in none."""
    return name.removeprefix(f"{house}.").split(".")[0] if name.startswith(f"{house}.") else ""


def imports_of(path: Path) -> Iterator[str]:
    """Every stargz module that a file imports, in functions too, or a name in it."""
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
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path, house: str) -> set[str]:
    # `from stargz import convert` names a module's function through the door: the CLI may.
    return {room_of(name, house) for name in imports_of(path)} & FLOOR[house].keys()


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_direction(path: Path) -> None:
    name = name_of(path)
    for house, floor in FLOOR.items():
        if room := room_of(name, house):
            assert room in floor, f"{room} is on no floor: add it to FLOORS in {__file__}"
            above = {n for n in rooms_imported(path, house) if floor[n] > floor[room]}
            assert not above, f"{name} imports from above: {sorted(above)}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_import_through_the_door(path: Path) -> None:
    """Inside the package, `import stargz` would hide what a module depends on."""
    if room_of(name_of(path), "stargz") not in ("cli", "__main__"):
        assert "stargz" not in set(imports_of(path))


def check_no_circle(edges: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(node: str, trail: tuple[str, ...]) -> None:
        assert node not in trail, " imports ".join((*trail, node))
        if node not in done:
            for other in sorted(edges.get(node, ())):
                visit(other, (*trail, node))
            done.add(node)

    for node in sorted(edges):
        visit(node, ())


@pytest.mark.parametrize("house", FLOORS)
def test_no_circle_of_rooms(house: str) -> None:
    edges: dict[str, set[str]] = {}
    for path in modules():
        if room := room_of(name_of(path), house):
            edges.setdefault(room, set()).update(rooms_imported(path, house) - {room})
    check_no_circle(edges)


def test_no_circle_of_modules() -> None:
    names = {name_of(path).removesuffix(".__init__"): path for path in modules()}
    edges: dict[str, set[str]] = {}
    for name, path in names.items():
        found = (n if n in names else n.rpartition(".")[0] for n in imports_of(path))
        edges[name] = {other for other in found if other in names and other != name}
    check_no_circle(edges)


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


def loaded_by(*words: object) -> set[str]:
    """The modules that a command has imported when it is done."""
    script = """
import sys
from stargz.cli import main
code = main(sys.argv[1:])
print("|".join(sys.modules), file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.strip().splitlines()[-1].split("|"))


def test_reading_a_file() -> None:
    """What a local layer has no use for is not imported to read a file of it."""
    layer = ROOT / "tests/data/duplicates.esgz"
    listed = subprocess.run(
        [sys.executable, "-m", "stargz", "find", layer, "-type", "f"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = loaded_by("cat", layer, listed.stdout.splitlines()[0])
    assert "stargz.layer" in loaded
    assert not loaded & {"stargz.cache", "stargz.oci", "logging", "hashlib"}


def test_an_index(tmp_path: Path) -> None:
    """Neither is what an index has none for, to make it or to read by it."""
    layer = tmp_path / "layer.tar.gz"
    layer.write_bytes(gzip.compress(blobs.tar_of([("file", b"content")])))
    index = tmp_path / "layer.index"
    never = {"stargz.oci", "stargz.conversion", "stargz.cache", "stargz.remote", "tempfile"}
    made = loaded_by("-q", "index", layer, "-o", index)
    assert "stargz.indexing" in made
    assert not made & {*never, "logging"}
    read = loaded_by("cat", "--index", index, layer, "file")
    assert "stargz.indexes" in read
    assert not read & {*never, "stargz.indexing", "hashlib"}
    kept = tmp_path / "cache"
    loaded_by("ls", "--cache-dir", kept, layer)
    assert not loaded_by("ls", "--cache-dir", kept, layer) & {*never, "stargz.indexing"} - {
        "stargz.cache"
    }
