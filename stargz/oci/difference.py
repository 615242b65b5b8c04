"""What differs between two images: their layers merged, by the TOCs of these alone.

difference = diff_images("docker://host/app:1.0-lazy", "docker://host/app:1.1-lazy")
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Unpack

from stargz.errors import UsageError
from stargz.oci.formats.platforms import Platform
from stargz.oci.image import Image, open_image
from stargz.oci.registry.access import Creds
from stargz.oci.registry.options import RegistryOptions, check_keywords
from stargz.patching.difference import Difference, diff_stacks

__all__ = ["diff_images"]


def diff_images(
    a: str | Image,
    b: str | Image,
    *,
    platform: str | Platform | None = None,
    creds_a: Creds | None = None,
    creds_b: Creds | None = None,
    **registry: Unpack[RegistryOptions],
) -> Difference:
    """Compare two images as `stargz.diff` compares layers: what a container sees in them.

    Each is what `open_image` takes, or an open Image, which stays open (then `platform` and
    `registry`, which are its options, do not matter). In the totals what is to be sent are the
    layers of B that A has not.

    `creds_a` and `creds_b` are what `creds` is to `open_image`, each for its own image.

    Raises what `open_image` raises, FooterError for an image whose layers are not seekable.
    """
    check_keywords("diff_images", registry)
    if "creds" in registry:
        raise UsageError("there are two images: give creds_a (--creds-a) or creds_b (--creds-b)")
    sides = registry | {"creds": creds_a}, registry | {"creds": creds_b}
    with _opened(a, platform, sides[0]) as before, _opened(b, platform, sides[1]) as after:
        trees = before.tree, after.tree
        return diff_stacks(before.layers, trees[0].engine, after.layers, trees[1].engine)


@contextmanager
def _opened(
    side: str | Image, platform: str | Platform | None, registry: RegistryOptions
) -> Iterator[Image]:
    if isinstance(side, Image):
        yield side
        return
    with open_image(side, platform=platform, cache=False, **registry) as image:
        yield image
