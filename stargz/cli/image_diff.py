"""What differs between two images, their layers merged, from the layers' TOCs alone.

It is told as by 'stargz diff'. What is to be sent are the layers that B has and A has not. Layers
that are not seekable are read once, whole, to be indexed."""

from __future__ import annotations

import argparse

from stargz.cli import _options
from stargz.cli._difference import add_diff_options, tell
from stargz.cli._layers import image_side, open_image

EXAMPLE = """\
stargz image diff docker://registry.example/app:1.0 docker://registry.example/app:1.1
stargz image diff oci:layout:v1 oci:layout:v1 --platform-a linux/amd64 --platform-b linux/arm64"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz image diff`."""
    _options.add_two_images_options(parser, "a", "b")
    add_diff_options(parser)


def run(args: argparse.Namespace) -> int:
    """Compare A and B."""
    from stargz.oci.difference import diff_images

    with open_image(image_side(args, "a")) as before, open_image(image_side(args, "b")) as after:
        difference = diff_images(before, after)
    return tell(args, difference)
