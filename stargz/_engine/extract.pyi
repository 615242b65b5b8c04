from collections.abc import Callable, Sequence

from stargz._engine.reader import Blob
from stargz._engine.toc import TOC

def extract(
    toc: TOC,
    blob: Blob,
    data_end: int,
    root: int,
    members: Sequence[bytes] | None,
    *,
    threads: int,
    verify: bool,
    same_owner: bool,
    devices: bool,
    setid: bool,
    xattrs: str,
    progress: Callable[[int, int], object] | None,
    openat2: bool = True,
) -> dict[str, int]: ...
