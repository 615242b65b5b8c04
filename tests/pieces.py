"""A source that gives little at a time."""

from __future__ import annotations

import io
from typing import Any


class Pieces(io.RawIOBase):
    """Like a pipe: gives at most `size` bytes at a time, and cannot seek."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = io.BytesIO(data), size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.data.readinto(memoryview(buffer)[: self.size])
