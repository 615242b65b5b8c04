"""Stacks of layers for tests: random ones, and a slow, plain applier to compare with."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from typing import Any

from handmade import TYPES, directory, hardlink, reg, symlink
from hypothesis import strategies as st

WH = ".wh."
OPAQUE = ".wh..wh..opq"

Layer = list[dict[str, Any]]


# --- random layers ----------------------------------------------------------------------------


@st.composite
def layers(draw: st.DrawFn, names: str = "abc", most: int = 9) -> Layer:
    """One layer whose entries do not contradict each other, in any order a tar may have."""
    paths = st.lists(st.sampled_from(list(names)), min_size=1, max_size=3)
    kinds = st.sampled_from(
        ["dir", "dir", "reg", "reg", "symlink", "hardlink", "char", "fifo", "wh", "wh", "opq"]
    )
    found: dict[str, dict[str, Any]] = {}
    for _ in range(draw(st.integers(0, most))):
        parts, kind = draw(paths), draw(kinds)
        name = "/".join(parts)
        keys = {
            "mode": draw(st.sampled_from([0o700, 0o755, 0o640])),
            "uid": draw(st.integers(0, 3)),
        }
        if kind == "wh":
            entry = reg("/".join([*parts[:-1], WH + parts[-1]]), mode=0)
        elif kind == "opq":
            entry = reg("/".join([*parts[:-1], OPAQUE]), mode=0)
        elif kind == "hardlink":
            targets = [e["name"] for e in found.values() if _linkable(e)]
            if not targets:
                continue
            entry = hardlink(name, draw(st.sampled_from(targets)), **keys)
        elif kind == "dir":
            entry = directory(name, **keys)
        elif kind == "reg":
            entry = reg(name, draw(st.binary(max_size=3)), **keys)
        elif kind == "symlink":
            entry = symlink(name, draw(st.sampled_from(["a", "../b", "/c", "nowhere"])), **keys)
        else:
            more = {"devMajor": 1, "devMinor": draw(st.integers(0, 9))} if kind == "char" else {}
            entry = {"name": name, "type": kind, **keys, **more}
        if not _contradicts(found, entry):
            found[entry["name"]] = entry
    return list(found.values())


def stacks(depth: int = 4, **options: Any) -> st.SearchStrategy[list[Layer]]:
    """Layers from the lowest up."""
    return st.lists(layers(**options), min_size=1, max_size=depth)


def _linkable(entry: dict[str, Any]) -> bool:
    return entry["type"] != "dir" and WH not in entry["name"]


def _contradicts(found: dict[str, dict[str, Any]], entry: dict[str, Any]) -> bool:
    name = entry["name"]
    if name in found:
        return True
    above = [name[:i] for i, c in enumerate(name) if c == "/"]
    if any(found[a]["type"] != "dir" for a in above if a in found):
        return True
    return entry["type"] != "dir" and any(n.startswith(name + "/") for n in found)


def as_tar(layer: Layer) -> bytes:
    """The same as a tar."""
    kinds = {word: kind for kind, word in reversed(TYPES.items())} | {"reg": tarfile.REGTYPE}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in layer:
            info = tarfile.TarInfo(entry["name"])
            info.type = kinds[entry["type"]]
            info.mode, info.uid = entry.get("mode", 0), entry.get("uid", 0)
            info.linkname = entry.get("linkName", "")
            info.devmajor, info.devminor = entry.get("devMajor", 0), entry.get("devMinor", 0)
            content = entry.get("content", b"")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


# --- applying them ----------------------------------------------------------------------------


@dataclass(eq=False)
class Node:
    """A file or directory; hard links are the same object under several names."""

    kind: str
    entry: dict[str, Any] | None
    layer: int
    kids: dict[str, Node] = field(default_factory=dict)


def applied(stack: list[Layer]) -> Node:
    """What unpacking the layers one after the other gives: each layer's whiteouts on what is
    there, then its entries."""
    root = Node("dir", None, 0)
    for number, layer in enumerate(stack):
        for entry in layer:
            folder, _, base = entry["name"].rpartition("/")
            if not base.startswith(WH):
                continue
            node: Node | None = root
            for part in folder.split("/") if folder else []:
                node = node.kids.get(part) if node is not None else None
            if node is not None and base == OPAQUE:
                node.kids.clear()
            elif node is not None:
                node.kids.pop(base[len(WH) :], None)
        added: dict[str, Node] = {}
        links = [e for e in layer if e["type"] == "hardlink"]
        for entry in [e for e in layer if e["type"] != "hardlink"] + links:
            folder, _, base = entry["name"].rpartition("/")
            node = root
            for part in folder.split("/") if folder else []:
                below = node.kids.get(part)
                if below is None or below.kind != "dir":
                    below = node.kids[part] = Node("dir", None, number)
                node = below
            if base.startswith(WH):
                continue
            old = node.kids.get(base)
            if entry["type"] == "hardlink":
                node.kids[base] = added[entry["name"]] = added[entry["linkName"]]
            elif entry["type"] == "dir" and old is not None and old.kind == "dir":
                old.entry, old.layer = entry, number
            else:
                node.kids[base] = added[entry["name"]] = Node(entry["type"], entry, number)
    return root


def names_of(root: Node) -> dict[str, Node]:
    """Every path, the root's "" too."""
    found = {"": root}
    pending = [("", root)]
    while pending:
        path, node = pending.pop()
        for base, kid in node.kids.items():
            name = f"{path}/{base}" if path else base
            found[name] = kid
            pending.append((name, kid))
    return found
