from collections.abc import Callable

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
        threads: int,
        base_name: str,
        sink_name: str,
        progress: Callable[[int, int], object] | None,
    ) -> dict[str, str | int]: ...
