"""`stargz image index` of some of an image's platforms, and of what is about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import Layout
from test_soci_index import LARGE, OTHER, files, index, root

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/s390x")


def three_platforms(path: Path) -> Layout:
    layout = Layout(path)
    shared = layout.plain_layer(LARGE)
    tars = (OTHER, OTHER + bytes(512), OTHER + bytes(1024))
    images = [
        layout.manifest([shared, layout.plain_layer(tar)], platform=platform)
        for tar, platform in zip(tars, PLATFORMS, strict=True)
    ]
    layout.tag(layout.index(images), "v1")
    return layout


@pytest.mark.parametrize("order", [PLATFORMS[::-1], (*PLATFORMS[1:], PLATFORMS[0])])
def test_the_same_whichever_platform_was_first(tmp_path: Path, order: tuple[str, ...]) -> None:
    src = f"oci:{three_platforms(tmp_path / 'src').path}:v1"
    whole = index(src, f"oci:{tmp_path}/whole:v1")
    for platform in order:
        index(src, upgrade=True, platforms=[platform])
    assert root(tmp_path / "src").digest == whole.digest
    assert files(tmp_path / "src").items() >= {
        item for item in files(tmp_path / "whole").items() if item[0].startswith("blobs/")
    }
    assert index(src, upgrade=True).status == "unchanged"
