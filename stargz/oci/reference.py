"""References, under the name that other programs import."""

from stargz.oci.formats.reference import *  # noqa: F403
