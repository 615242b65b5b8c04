"""Registries: the client and its credentials, blobs, uploads."""
