from collections.abc import Callable
from typing import Any

from stargz._engine.base import Points
from stargz._engine.toc import TOC
from stargz.sources.base import ByteSource

class Blob:
    source: ByteSource
    name: str
    direct: bool
    index: Points | None
    def __init__(
        self,
        source: ByteSource,
        data: bytes | None = None,
        base: int = 0,
        *,
        like: Blob | None = None,
    ) -> None: ...

def read_toc(
    blob: Blob, offset: int, end: int, max_size: int, blob_end: int
) -> tuple[TOC, int, bytes]: ...

FRAMES: Points

def read_toc_frame(
    blob: Blob, offset: int, packed: int, size: int, max_size: int, blob_end: int
) -> tuple[TOC, bytes, bytes]: ...

class Reader:
    blob: Blob
    toc: TOC
    verified: bool
    closed: bool
    def __init__(
        self,
        blob: Blob,
        toc: TOC,
        end: int,
        verify: bool,
        threads: int,
        on_close: Callable[[], None] | None,
        *,
        index: Points | None = None,
        claims: bool = False,
    ) -> None: ...
    def close(self) -> None: ...
    def check(self) -> None: ...
    def hold(self) -> int: ...
    def leave(self) -> int: ...
    remote: Any
    def attach(self, connect: Callable[[Reader], Any]) -> None: ...
    def start(self) -> None: ...
    def undigested(self) -> int: ...
    def read(self, row: int, offset: int, size: int) -> bytes: ...
    def read_into(self, row: int, offset: int, size: int, buffer: Any) -> None: ...
    def verify(
        self,
        toc_end: int,
        json_size: int,
        progress: Callable[[int, int], object] | None = None,
        *,
        size_only: bool = False,
        blob: Blob | None = None,
        toc: tuple[int, int, int] | None = None,
        split: tuple[int, int, int] | None = None,
    ) -> dict[str, Any]: ...

class JSONStream:
    def __init__(
        self, reader: Reader, blob: Blob, offset: int, end: int, size: int = -1
    ) -> None: ...
    def read(self, size: int = -1) -> bytes: ...
