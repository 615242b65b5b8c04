"""Convert whole images, and look into them: all layers of one platform, merged as a container
sees them.

'stargz verify' and 'stargz mount' take images as they are."""

from __future__ import annotations

EXAMPLE = """\
stargz image convert docker://registry.example/app:1.0 docker://registry.example/app:1.0-lazy
stargz image ls -l docker://registry.example/app:1.0 etc
stargz image info oci:layout:latest"""

COMMANDS = {
    "convert": "make every layer of an image seekable, on all platforms",
    "index": "make SOCI indexes of an image, whose layers stay as they are",
    "bulk": "convert or index all images of a registry, a repository, a list or a folder",
    "info": "an image's digests, platforms and layers, from its manifest",
    "ls": "list the files of an image",
    "find": "list the files of an image that pass tests: -name, -type, -size, ...",
    "du": "bytes of the files below an image's directories",
    "tree": "draw an image's directories as a tree",
    "cat": "write files' contents to standard output",
    "diff": "what differs between two images, their layers merged",
    "extract": "unpack an image or some of its paths, safely and in parallel",
}
