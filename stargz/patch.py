"""The format of patches, under the name that other programs import."""

from stargz.patching.file import *  # noqa: F403
