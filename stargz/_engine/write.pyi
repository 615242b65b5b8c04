from collections.abc import Callable, Iterator
from typing import Any

def unwrap(
    source: int | Callable[[int], bytes],
    sink: int = -1,
    *,
    source_name: str,
    progress: Callable[[int, int], object] | None = None,
    source_size: int = 0,
    memory: int | None = None,
) -> tuple[str, int]: ...

class TarEntry:
    type: bytes
    name: bytes
    link: bytes
    start: int
    header: int
    data: int
    size: int
    end: int
    shared: dict[bytes, bytes]
    def records(self, fd: int) -> list[tuple[bytes, bytes]]: ...

class TarEntries:
    def __init__(self, fd: int, size: int, source: str, *, any_type: bool = False) -> None: ...
    def __iter__(self) -> Iterator[TarEntry]: ...
    def __next__(self) -> TarEntry: ...

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
        format: str,
        lossless: bool,
        threads: int,
        source_name: str,
        sink_name: str,
        progress: Callable[[int, int], None] | None,
        source_size: int,
        memory: int | None = None,
        max_sparse: int | None = None,
        strict: bool = False,
        reuse: bool = False,
        verify: bool = False,
        folder: bytes = b".",
    ) -> None: ...
    def put_toc(self, sink: int | Callable[[memoryview], int | None], name: str) -> None: ...
    def prioritize(self, names: list[bytes], spool: int, reread: bool) -> None: ...
    def run(self, synced: bool = False) -> dict[str, str | int | bool]: ...

class Pattern:
    def __init__(
        self,
        states: list[tuple[int, int, tuple[tuple[int, int], ...]]],
        starts: list[int],
    ) -> None: ...
    def match(self, name: str) -> bool: ...

class Manifest:
    def __init__(self, fd: int, name: str) -> None: ...
    @property
    def blob(self) -> tuple[int, int, bytes]: ...

class Packing:
    def __init__(
        self,
        root: int,
        name: str,
        *,
        level: int,
        chunk_size: int,
        owner: int,
        group: int,
        mtime: int | None,
        mtime_max: int | None,
        engine: str,
        diff_id: bool,
        threads: int,
        progress: Callable[[int, int], None] | None,
    ) -> None: ...
    def other_options(self, base: Manifest) -> str: ...
    def walk(
        self,
        skip: list[bytes],
        ignore: Callable[[bytes, bool], int] | None,
        one_file_system: bool,
        base: Manifest | None,
        trust: bool,
    ) -> tuple[int, str, list[bytes], list[str]]: ...
    def run(
        self,
        where: int | Callable[[memoryview], int | None],
        sink_name: str,
        synced: bool,
        base_fd: int,
    ) -> dict[str, Any]: ...

class Saving:
    def __init__(self, packing: Packing, fd: int) -> None: ...
    def wait(self) -> None: ...
