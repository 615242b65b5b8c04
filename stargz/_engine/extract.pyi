from collections.abc import Callable, Iterable
from typing import Any

from stargz._engine.reader import Blob
from stargz._engine.toc import TOC

def extract(
    layers: Iterable[tuple[TOC, Blob, int, bytearray | None]],
    name: str,
    root: int,
    directory: str,
    *,
    empty: Iterable[str],
    strip: int,
    keep_going: bool,
    written: Callable[[str], object] | None,
    threads: int,
    verify: bool,
    same_owner: bool,
    devices: bool,
    setid: bool,
    xattrs: str,
    progress: Callable[[int, int], object] | None,
    openat2: bool = True,
) -> dict[str, Any]: ...
