"""What the linker sees of csrc/: names that say their room, and no kernels in circles."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
KERNELS = sorted(path.relative_to(CSRC) for path in CSRC.rglob("*.c"))

Symbols = dict[Path, set[str]]


@pytest.fixture(scope="module")
def symbols(
    tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]
) -> tuple[Symbols, Symbols]:
    """Of each kernel the global symbols that it defines, and those that it uses."""
    folder = tmp_path_factory.mktemp("objects")

    def compile_one(kernel: Path) -> tuple[set[str], set[str]]:
        out = folder / str(kernel.with_suffix(".o")).replace("/", "_")
        flags: list[str | Path] = ["-std=gnu11", "-O0", "-I", CSRC, "-c", "-o", out]
        subprocess.run([tool("cc"), *flags, CSRC / kernel], check=True)
        listed = subprocess.run(
            [tool("nm"), "--extern-only", "--format=posix", out],
            check=True,
            capture_output=True,
            text=True,
        )
        names = [line.split() for line in listed.stdout.splitlines()]
        return {n[0] for n in names if n[1] != "U"}, {n[0] for n in names if n[1] == "U"}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(KERNELS, pool.map(compile_one, KERNELS), strict=True))
    return ({k: v[0] for k, v in found.items()}, {k: v[1] for k, v in found.items()})


def test_names(symbols: tuple[Symbols, Symbols]) -> None:
    defined = symbols[0]
    for kernel, names in defined.items():
        wrong = [name for name in names if not name.startswith(f"sgz_{kernel.parts[0]}_")]
        assert not wrong, f"{kernel}: {sorted(wrong)}"
    twice = [name for name, n in Counter(s for x in defined.values() for s in x).items() if n > 1]
    assert not twice


def test_no_circles(symbols: tuple[Symbols, Symbols]) -> None:
    """State below, driver on top: no kernel needs one that needs it."""
    home = {name: kernel for kernel, names in symbols[0].items() for name in names}
    edges = {k: {home[n] for n in names if n in home} - {k} for k, names in symbols[1].items()}
    done: set[Path] = set()

    def visit(kernel: Path, trail: tuple[Path, ...]) -> None:
        assert kernel not in trail, " calls ".join(map(str, (*trail, kernel)))
        if kernel not in done:
            for other in sorted(edges[kernel]):
                visit(other, (*trail, kernel))
            done.add(kernel)

    for kernel in KERNELS:
        visit(kernel, ())


def test_types_have_one_home() -> None:
    """No two headers name a type alike: C would only notice where both are included."""
    named: dict[str, set[Path]] = {}
    for path in CSRC.rglob("*.h"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        for pattern in (r"^\} (\w+);", r"^typedef [^{;]*?\b(\w+);", r"^typedef [^;{]*\(\*(\w+)\)"):
            for name in re.findall(pattern, text, re.MULTILINE):
                named.setdefault(name, set()).add(path.relative_to(CSRC))
    for name, homes in sorted(named.items()):
        assert name.startswith("sgz_"), f"{name} in {homes}"
        # A header may announce what another of its room completes.
        assert len({home.parts[0] for home in homes}) == 1, f"{name} in {homes}"
