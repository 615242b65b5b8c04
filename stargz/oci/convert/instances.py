"""Images that are there twice in one index: in gzip, which everybody pulls, and in zstd for those
who prefer that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from stargz.errors import FormatError
from stargz.oci.convert.plan import Node, Plan, index_of, stated_platform
from stargz.oci.formats.manifest import (
    ABOUT,
    ZSTD_INSTANCE,
    Descriptor,
    about,
    in_zstd,
    is_zstd_instance,
)
from stargz.oci.formats.platforms import choice_of, platform_of

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
        others: dict[str, Descriptor] = {}  # and the instances that stay, by the digests of these
        for entry, child in node.children:
            found = platforms.get(choice_of(entry.platform) or "")
            if child.kind == "image" and found is not None and in_zstd(child.manifest) != zstd:
                others[entry.digest] = found[zstd]
                warnings.append(
                    f"{entry.digest}, the instance of {platform_of(entry.platform)} "
                    f"in {'gzip' if zstd else 'zstd'}, is left out: there is one in "
                    f"{'zstd' if zstd else 'gzip'}, and both would be of the same format"
                )
        node.children = [
            (_about_other(entry, others), child)
            for entry, child in node.children
            if entry.digest not in others and not _is_of(child, others, warnings)
        ]
    if len(warnings) == len(plan.warnings):
        return plan
    return replace(plan, nodes=_below(plan.root), warnings=warnings)


def _about_other(entry: Descriptor, others: Mapping[str, Descriptor]) -> Descriptor:
    """An index's entry with what it says of an instance that is left out said of the other one,
    which is the same image."""
    stays = others.get(about(entry) or "")
    if stays is None:
        return entry
    moved = {key: stays.digest for key in ABOUT if entry.annotations.get(key) in others}
    return entry.annotated(entry.annotations | moved)


def _is_of(child: Node, others: Mapping[str, Descriptor], warnings: list[str]) -> bool:
    """Whether a manifest names by itself an instance that is left out, which its bytes go on
    doing."""
    if child.manifest.subject not in others:
        return False
    warnings.append(
        f"{child.manifest.digest} is left out: it is about {child.manifest.subject}, which is not "
        "taken"
    )
    return True


def _twice(children: Sequence[tuple[Descriptor, Node]]) -> dict[str, dict[bool, Descriptor]]:
    """The platforms that have an image with layers in zstd and one without: the first of either,
    whatever an index says that they are."""
    found: dict[str, dict[bool, Descriptor]] = {}
    for entry, child in children:
        choice = choice_of(entry.platform)
        if child.kind == "image" and choice is not None:
            found.setdefault(choice, {}).setdefault(in_zstd(child.manifest), entry)
    return {choice: either for choice, either in found.items() if len(either) > 1}


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
        has_two = choice_of(entry.platform) in platforms
        if not has_two or not in_zstd(child.manifest):
            firsts.append((entry, child))
        if not has_two or in_zstd(child.manifest):
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
