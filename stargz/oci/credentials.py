"""Credentials, under the name that other programs import."""

from stargz.oci.registry.credentials import *  # noqa: F403
