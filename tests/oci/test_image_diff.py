"""`image diff`: what differs between the merged trees of two images."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import layouts
import pytest
import stacks
from command import ok, run
from handmade import directory, hardlink, reg
from hypothesis import given, settings

import stargz
from stargz.oci.difference import diff_images
from stargz.oci.formats.platforms import this_platform
from stargz.oci.image import open_image

HERE = str(this_platform())


def image(layout: layouts.Layout, ref: str, layers: list[stacks.Layer], **options: Any) -> str:
    made = [layout.layer(stacks.as_tar(layer)) for layer in layers]
    layout.tag(layout.manifest(made, platform=HERE, **options), ref)
    return f"oci:{layout.path}:{ref}"


LOWER = [
    directory("etc", mode=0o755),
    reg("etc/conf", b"one"),
    reg("etc/same", b"same"),
    reg("gone", b"gone"),
    reg("mode", b"mode", mode=0o644),
    reg("x" * 20, b"y" * 5000),
]
UPPER = [
    reg("etc/conf", b"two"),
    reg(".wh.gone", b""),
    reg("new/file", b"new"),
    reg("mode", b"mode", mode=0o600),
]


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    layout = layouts.Layout(tmp_path / "layout")
    return image(layout, "a", [LOWER]), image(layout, "b", [LOWER, UPPER])


def test_what_differs(two: tuple[str, str]) -> None:
    text = ok("image", "diff", *two).splitlines()
    assert text[:-1] == [
        "M etc/conf",
        "- gone",
        "m mode (mode)",
        "+ new/file",
    ]
    assert "1 added, 1 removed, 1 changed, 1 metadata only, 3 unchanged; to send" in text[-1]
    assert ok("image", "diff", *two, "--name-only").split() == [
        "etc/conf",
        "gone",
        "mode",
        "new/file",
    ]
    found = json.loads(ok("image", "diff", *two, "--json"))
    assert found["added"] == ["new/file"]
    # All of the layer that the first has not, and nothing of the one that both have.
    with open_image(two[1]) as after:
        assert found["totals"]["bytes_to_send"] == after.layers[1].size
    assert run("image", "diff", *two, "--exit-code").returncode == 1


def test_from_python(two: tuple[str, str]) -> None:
    found = stargz.diff_images(*two)
    with open_image(two[0]) as before, open_image(two[1]) as after:
        assert diff_images(before, after) == found
        assert not diff_images(after, after)
    assert found
    assert [change.name for change in found.metadata] == ["mode"]


def test_layers_that_are_not_seekable(tmp_path: Path) -> None:
    """They are indexed first."""
    layout = layouts.Layout(tmp_path / "layout")
    seekable = layout.manifest([layout.layer(stacks.as_tar(LOWER))], platform=HERE)
    layout.tag(seekable, "seekable")
    plain = layout.manifest([layout.plain_layer(stacks.as_tar(LOWER))], platform=HERE)
    layout.tag(plain, "plain")
    sides = f"oci:{layout.path}:seekable", f"oci:{layout.path}:plain"
    assert ok("image", "diff", *sides, "--name-only", "--no-cache") == ""


def test_two_platforms_of_one_image(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    made = []
    for platform in ("linux/amd64", "linux/arm64"):
        layer = layout.layer(stacks.as_tar([reg("arch", platform.encode())]))
        made.append(layout.manifest([layer], platform=platform))
    layout.tag(layout.index(made))
    src = f"oci:{layout.path}"
    args = ["--platform-a", "linux/amd64", "--platform-b", "linux/arm64", "--name-only"]
    assert ok("image", "diff", src, src, *args) == "arch\n"
    assert ok("image", "diff", src, src, "--platform=linux/arm64", "--name-only") == ""


def test_an_image_without_layers(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    empty, full = image(layout, "a", []), image(layout, "b", [[reg("f", b"f")]])
    assert diff_images(empty, full).added == ["f"]
    assert diff_images(full, empty).removed == ["f"]
    assert not diff_images(empty, empty)


@settings(max_examples=15, deadline=None)
@given(stacks.stacks(depth=3), stacks.stacks(depth=3))
def test_names_and_contents_are_those_of_the_merged_trees(
    before: list[stacks.Layer], after: list[stacks.Layer]
) -> None:
    old, new = (stacks.names_of(stacks.applied(stack)) for stack in (before, after))
    # What no layer lists is no entry.
    old, new = ({n: node for n, node in side.items() if node.entry} for side in (old, new))
    with tempfile.TemporaryDirectory() as place:
        layout = layouts.Layout(Path(place) / "layout")
        found = diff_images(image(layout, "a", before), image(layout, "b", after))
    assert set(found.added) == new.keys() - old.keys()
    assert set(found.removed) == old.keys() - new.keys()

    def contents(node: stacks.Node) -> Any:
        return node.entry.get("content") if node.kind == "reg" and node.entry else None

    both = old.keys() & new.keys()
    changed = {name for name in both if contents(old[name]) != contents(new[name])}
    assert {change.name for change in found.changed} == changed


def test_hard_links_lead_to_files_of_their_own_layer(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    lower = [reg("a", b"first"), hardlink("b", "a")]
    one = image(layout, "a", [lower])
    two = image(layout, "b", [[reg("z", b"z")], lower, [reg("a", b"second")]])
    found = diff_images(one, two)
    assert [change.name for change in found.changed] == ["a"]
    assert found.added == ["z"]
