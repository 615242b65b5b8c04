"""Layers of containers/storage in parts, to be put together so that they lie."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import plain_chunked
import zstandard
from plain_chunked import C_MAGIC, C_PREFIX, S_MAGIC, sha256

CHECKSUM, POSITION = f"{C_PREFIX}manifest-checksum", f"{C_PREFIX}manifest-position"
SPLIT = f"{C_PREFIX}tarsplit-position"


@dataclass
class Parts:
    """A layer, which can be put together otherwise."""

    body: bytes
    toc: dict[str, Any]
    split: list[dict[str, Any]]
    behind: bytes = b""  # the TOC's JSON
    annotate: Callable[[dict[str, str]], object] = field(default=lambda _: None)

    @classmethod
    def of(cls, blob: bytes, annotations: dict[str, str]) -> Parts:
        """Of a layer that containers/storage reads."""
        found = plain_chunked.read(blob, annotations)
        assert found.split is not None
        lines = [json.loads(text) for text in found.split.splitlines()]
        return cls(blob[: found.data_end], copy.deepcopy(found.toc), lines)

    def entry(self, name: str) -> dict[str, Any]:
        return next(e for e in self.toc["entries"] if e["name"] == name and e["type"] != "chunk")

    def chunks(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.toc["entries"] if entry["name"] == name]

    def layer(self) -> tuple[bytes, dict[str, str]]:
        """The blob, with footers that are right, and annotations that are but for `annotate`."""
        out = bytearray(self.body)

        def skippable(payload: bytes) -> int:
            nonlocal out
            out += struct.pack("<II", 0x184D2A50, len(payload)) + payload
            return len(out) - len(payload)

        lines = b"".join(json.dumps(line).encode() + b"\n" for line in self.split)
        split = zstandard.compress(lines)
        if "tarSplitDigest" in self.toc:
            self.toc["tarSplitDigest"] = sha256(split)
        text = json.dumps(self.toc, ensure_ascii=False).encode() + self.behind
        toc = zstandard.compress(text)
        numbers = [skippable(toc), len(toc), len(text), 1]
        more = [skippable(split), len(split), len(lines)]
        skippable(struct.pack("<7Q", *numbers, *more) + C_MAGIC)
        skippable(struct.pack("<4Q", *numbers) + S_MAGIC)
        annotations = {
            CHECKSUM: sha256(toc),
            POSITION: ":".join(map(str, numbers)),
            SPLIT: ":".join(map(str, more)),
        }
        self.annotate(annotations)
        return bytes(out), annotations
