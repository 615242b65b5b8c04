"""What a process has open, while it opens and closes more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def open_files(process: int | str) -> list[Path]:
    """Where the descriptors of a process ("self": this one) lead; none once it has ended."""
    found = []
    with suppress(OSError):
        for path in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):  # closed since it was listed, as that of the list is
                found.append(path.readlink())
    return found


def descriptors(below: Path) -> int:
    """How many descriptors of this process lead to a folder, or to what is below it."""
    below = below.resolve()
    return sum(target == below or below in target.parents for target in open_files("self"))
