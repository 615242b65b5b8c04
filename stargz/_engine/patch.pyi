from collections.abc import Callable

from stargz._engine.reader import Blob
from stargz._engine.toc import TOC

MEMBER: str
CHUNK: str
PROOF: str
GAP: str
MEMBER_MAX: int

def chunks(toc: TOC, end: int, name: str = "") -> bytes: ...
def walk(
    blob: Blob,
    toc: TOC,
    end: int,
    toc_end: int,
    threads: int,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[bytes, bytes, bytes]: ...
def prove(
    blob: Blob,
    proofs: bytes | bytearray | memoryview,
    gaps: bytes | bytearray | memoryview,
    literal_size: int,
    level: int,
    threads: int,
) -> tuple[bytes, bytes]: ...
def compress(data: bytes | bytearray | memoryview, level: int) -> bytes: ...
def toc_members(
    json: bytes | bytearray | memoryview, toc_offset: int, level: int, legacy: bool
) -> bytes: ...

class Patch:
    level: int
    engine: str
    base_size: int
    new_size: int
    base_digest: str
    def __init__(self, source: int | Callable[[int], bytes], name: str) -> None: ...
    def run(
        self,
        base: int,
        sink: int | Callable[[memoryview], int | None],
        spool: int,
        *,
        max_size: int,
        threads: int,
        base_name: str,
        sink_name: str,
        progress: Callable[[int, int], object] | None,
    ) -> dict[str, str | int]: ...
