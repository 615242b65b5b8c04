from collections.abc import Callable

from stargz._engine.reader import Blob
from stargz._engine.toc import TOC

MEMBER: str
CHUNK: str
PROOF: str
GAP: str
PROOF_MAX: int

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
