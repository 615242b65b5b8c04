"""What this process has open, while threads of other tests open and close what is theirs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def descriptors(below: Path) -> int:
    """How many descriptors lead to a folder, or to what is below it."""
    below = below.resolve()
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed, as that of the list is
            target = path.readlink()
            found += target == below or below in target.parents
    return found
