"""TOC text for tests: made in plain Python, laid out as the reference does."""

from __future__ import annotations

import json
from typing import Any

from stargz.toc import TOC

END = 1 << 30
D1 = "sha256:" + "a1" * 32
D2 = "sha256:" + "b2" * 32


def go_string(text: str) -> str:
    """A string as Go's encoding/json escapes it."""
    out = json.dumps(text, ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        out = out.replace(char, f"\\u{ord(char):04x}")
    return out


# fmt: off
ORDER = [
    "name", "type", "size", "modtime", "linkName", "mode", "uid", "gid", "userName", "groupName",
    "offset", "innerOffset", "devMajor", "devMinor", "xattrs", "digest", "chunkOffset",
    "chunkSize", "chunkDigest", "chunkType",
]
# fmt: on


def go_json(entries: list[dict[str, Any]]) -> str:
    """A TOC as Go's json.MarshalIndent lays it out."""
    items = []
    for entry in entries:
        lines = []
        for key in sorted(entry, key=ORDER.index):
            value = entry[key]
            if key == "xattrs":
                pairs = [f"\t\t\t\t{go_string(k)}: {go_string(v)}" for k, v in value.items()]
                text = "{\n" + ",\n".join(pairs) + "\n\t\t\t}"
            else:
                text = go_string(value) if isinstance(value, str) else str(value)
            lines.append(f'\t\t\t"{key}": {text}')
        items.append("\t\t{\n" + ",\n".join(lines) + "\n\t\t}")
    entries_text = "[\n" + ",\n".join(items) + "\n\t]" if items else "null"
    return f'{{\n\t"version": 1,\n\t"entries": {entries_text}\n}}'


def dated(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As they are written again: what has no time has that of the epoch."""
    epoch = "1970-01-01T00:00:00Z"
    return [e if e["type"] == "chunk" else {"modtime": epoch, **e} for e in entries]


def entry(name: str, type: str = "dir", **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **keys}


def reg(name: str, size: int, offset: int, **keys: Any) -> dict[str, Any]:
    return entry(name, "reg", size=size, offset=offset, **keys)


def chunk(chunk_offset: int, offset: int, **keys: Any) -> dict[str, Any]:
    return entry("", "chunk", chunkOffset=chunk_offset, offset=offset, **keys)


def doc(*entries: Any, **keys: Any) -> bytes:
    return json.dumps({"version": 1, "entries": entries, **keys}).encode()


def parse(*entries: dict[str, Any], end: int = END) -> TOC:
    return TOC.parse(doc(*entries), end, "some.blob")
