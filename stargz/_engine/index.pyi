from collections.abc import Callable

from stargz._engine.base import Points
from stargz._engine.toc import TOC

class Index(Points):
    kind: str
    size: int
    digest: str
    tar_size: int
    archive_size: int
    diff_id: str
    span_size: int
    spans: int
    longest_span: int
    entries: int
    notes: list[str]
    toc: TOC
    toc_digest: str
    has_span_digests: bool
    def entry_points(self) -> list[tuple[int, int, int, bytes, str]]: ...
    def json(self) -> bytes: ...
    def dump(self, write: Callable[[bytes], object]) -> None: ...
    def write_ztoc(self, write: Callable[[bytes], object], *, tool: str = "stargz") -> None: ...

def build(
    source: int | Callable[[int], bytes],
    *,
    source_name: str,
    source_size: int = 0,
    span_size: int = 4 << 20,
    chunk_size: int = 4 << 20,
    soci: bool = False,
    digests: bool | None = None,
    whole: bool = True,
    threads: int,
    memory: int | None = None,
    progress: Callable[[int, int], object] | None = None,
    wanted: Foreign | None = None,
) -> Index: ...
def load(
    data: bytes | bytearray | memoryview, *, name: str = "", max_toc_size: int = 1 << 30
) -> Index: ...
def load_ztoc(
    data: bytes | bytearray | memoryview, *, name: str = "", blob_size: int | None = None
) -> Index: ...

class Foreign:
    size: int
    spans: int

def load_foreign(data: bytes | bytearray | memoryview, *, name: str = "") -> Foreign | None: ...
