"""Images that are to be there twice in one index: as eStargz in gzip, which everybody pulls, and in
zstd:chunked for those who prefer that."""

from __future__ import annotations

import json
from dataclasses import replace

from stargz.errors import FormatError
from stargz.oci.convert.plan import Node, Plan, index_of, stated_platform
from stargz.oci.formats.manifest import ZSTD_INSTANCE, Descriptor
from stargz.oci.formats.platforms import platform_of

_BYTES = ("mediaType", "digest", "size", "data")


def is_zstd_instance(entry: Descriptor) -> bool:
    """Whether an index says that an image of it is in zstd."""
    return entry.annotations.get(ZSTD_INSTANCE) == "true"


def mark(entry: Descriptor, zstd: bool) -> Descriptor:
    """An index's entry of an image that is in zstd, or is not."""
    if zstd == is_zstd_instance(entry) and (zstd or ZSTD_INSTANCE not in entry.annotations):
        return entry
    others = {key: text for key, text in entry.annotations.items() if key != ZSTD_INSTANCE}
    return entry.annotated(others | ({ZSTD_INSTANCE: "true"} if zstd else {}))


def told(entry: Descriptor) -> str:
    """All that an index says of what it lists, but for which bytes that is."""
    found = {key: value for key, value in entry.json.items() if key not in _BYTES}
    return json.dumps(found, sort_keys=True)


def with_instances(plan: Plan) -> Plan:
    """A plan whose indexes list two of each image. Where there are two already each is made of its
    own; else both are made of the one that there is. Those in zstd come last, since clients that do
    not know of them take the first entry that has their platform."""
    root = index_of(plan.root) if plan.root.kind == "image" else plan.root
    seconds: dict[Node, Node] = {}
    for node in dict.fromkeys((root, *plan.nodes)):
        if node.kind == "index":
            node.children = _children(node, seconds)
    return replace(plan, root=root, nodes=_below(root))


def _children(index: Node, seconds: dict[Node, Node]) -> list[tuple[Descriptor, Node]]:
    firsts: list[tuple[Descriptor, Node]] = []
    found: list[tuple[Descriptor, Node]] = []
    children = [(_with_platform(entry, child), child) for entry, child in index.children]
    images = [entry for entry, child in children if child.kind == "image"]
    in_gzip = {_platform(entry) for entry in images if not is_zstd_instance(entry)}
    in_zstd = {_platform(entry) for entry in images if is_zstd_instance(entry)}
    for entry, child in children:
        platform = _platform(entry)
        if child.kind != "image":
            firsts.append((entry, child))
            continue
        second = seconds.setdefault(child, replace(child, zstd=True))
        has_two = platform in in_gzip and platform in in_zstd
        if not has_two or not is_zstd_instance(entry):
            firsts.append((entry, child))
        if not has_two or is_zstd_instance(entry):
            found.append((entry, second))
    return firsts + found


def _with_platform(entry: Descriptor, child: Node) -> Descriptor:
    """An index's entry of an image with its platform: of two without one nobody could choose."""
    if child.kind != "image" or platform_of(entry.platform) is not None:
        return entry
    stated = stated_platform(child)
    if stated is None:
        raise FormatError(
            "neither the index nor the config says what platform it is for: there cannot be two of "
            "it (--both)",
            child.manifest.source,
        )
    return replace(entry, json={**entry.json, "platform": stated})


def _platform(entry: Descriptor) -> str:
    """Equal for entries of which a client takes one."""
    return json.dumps(entry.platform, sort_keys=True)


def _below(root: Node) -> list[Node]:
    """All documents that are left, those that indexes list before these."""
    found: dict[Node, None] = {}
    left = [root]
    while left:
        node = left[-1]
        below = [child for _, child in node.children if child not in found]
        if below:
            left += reversed(below)
        else:
            found[left.pop()] = None
    return list(found)
