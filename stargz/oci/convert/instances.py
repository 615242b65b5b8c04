"""Images that are there twice in one index: in gzip, which everybody pulls, and in zstd for those
who prefer that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from stargz.errors import FormatError
from stargz.oci.convert.plan import Node, Plan, index_of, stated_platform
from stargz.oci.formats.manifest import ZSTD_INSTANCE, Descriptor, about, is_zstd_instance
from stargz.oci.formats.platforms import platform_of

_BYTES = ("mediaType", "digest", "size", "data")


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


def with_one(plan: Plan, zstd: bool) -> Plan:
    """A plan in which each image is once, for a conversion to one format: where there are two, that
    which is in zstd already or that which is not."""
    warnings = list(plan.warnings)
    for node in plan.nodes:
        if node.kind != "index":
            continue
        platforms = _twice(node.children)
        others: set[str] = set()
        for entry, child in node.children:
            has_two = child.kind == "image" and _platform(entry) in platforms
            if has_two and is_zstd_instance(entry) != zstd:
                others.add(entry.digest)
                warnings.append(
                    f"{entry.digest}, the instance of {platform_of(entry.platform)} "
                    f"in {'gzip' if zstd else 'zstd'}, is left out: there is one in "
                    f"{'zstd' if zstd else 'gzip'}, and both would be of the same format"
                )
        node.children = [
            (entry, child)
            for entry, child in node.children
            if not others & {entry.digest, about(entry), child.manifest.subject}
        ]
    if len(warnings) == len(plan.warnings):
        return plan
    return replace(plan, nodes=_below(plan.root), warnings=warnings)


def _twice(children: Sequence[tuple[Descriptor, Node]]) -> set[str]:
    """The platforms that have an image of either kind."""
    found = [
        (_platform(entry), is_zstd_instance(entry))
        for entry, child in children
        if child.kind == "image" and platform_of(entry.platform) is not None
    ]
    return {one for one, zstd in found if zstd} & {one for one, zstd in found if not zstd}


def _children(index: Node, seconds: dict[Node, Node]) -> list[tuple[Descriptor, Node]]:
    firsts: list[tuple[Descriptor, Node]] = []
    found: list[tuple[Descriptor, Node]] = []
    children = [(_with_platform(entry, child), child) for entry, child in index.children]
    platforms = _twice(children)
    for entry, child in children:
        if child.kind != "image":
            firsts.append((entry, child))
            continue
        second = seconds.setdefault(child, replace(child, zstd=True))
        has_two = _platform(entry) in platforms
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
