from collections.abc import Callable

def unwrap(
    source: int | Callable[[int], bytes],
    sink: int = -1,
    *,
    source_name: str,
    progress: Callable[[int, int], object] | None = None,
    source_size: int = 0,
) -> tuple[str, int]: ...

class Conversion:
    missing: list[bytes]
    plain: bool
    def __init__(
        self,
        source: int | Callable[[int], bytes],
        sink: int | Callable[[memoryview], int | None],
        *,
        level: int,
        chunk_size: int,
        min_chunk_size: int,
        legacy: bool,
        lossless: bool,
        threads: int,
        source_name: str,
        sink_name: str,
        progress: Callable[[int, int], None] | None,
        source_size: int,
    ) -> None: ...
    def prioritize(self, names: list[bytes], spool: int, reread: bool) -> None: ...
    def run(self) -> dict[str, str | int | bool]: ...
