"""Look into a whole image: all layers of one platform, merged as a container sees them."""

from __future__ import annotations

EXAMPLE = """\
stargz image ls -l docker://registry.example/app:1.0 etc
stargz image info oci:layout:latest"""

COMMANDS = {
    "info": "an image's digests, platforms and layers, from its manifest",
    "ls": "list the files of an image",
    "cat": "write files' contents to standard output",
}
