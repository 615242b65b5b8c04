"""Compare what a layer's descriptor is annotated with, and what is in its blob."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stargz.descriptors import (
    CHECKSUM,
    POSITION,
    SPLIT_POSITION,
    STARGZ_CHECKSUM,
    STARGZ_POSITION,
    TOC_DIGEST,
    UNCOMPRESSED_SIZE,
    toc_position,
)
from stargz.oci.verify.blob import CheckedBlob


def contradictions(annotations: Mapping[str, str], blob: CheckedBlob) -> Iterator[str]:
    """What the annotations say that is not so, and what is wrong with them for containers/storage,
    which then does not fall back to the whole layer, but fails."""
    yield from _of_chunked(annotations, blob)
    stated = annotations.get(TOC_DIGEST)
    if stated is not None and stated != blob.toc_digest:
        actual = f"its TOC has {blob.toc_digest}" if blob.toc_digest else "it has no TOC"
        yield f"the annotation {TOC_DIGEST} is {stated[:100]}, but {actual}"
    size = annotations.get(UNCOMPRESSED_SIZE)
    if size is not None and size != str(blob.uncompressed_size):
        yield (
            f"the annotation {UNCOMPRESSED_SIZE} is {size[:40]}, but it inflates to "
            f"{blob.uncompressed_size} bytes"
        )


def _of_chunked(annotations: Mapping[str, str], blob: CheckedBlob) -> Iterator[str]:
    toc = blob.footer.toc if blob.footer else None
    split = blob.footer.split if blob.footer else None
    position = toc and toc_position(toc)
    actual = {
        CHECKSUM: blob.toc_checksum,
        STARGZ_CHECKSUM: blob.toc_checksum,
        POSITION: position,
        STARGZ_POSITION: position,
        SPLIT_POSITION: split and str(split),
    }
    for name, value in actual.items():
        stated = annotations.get(name)
        if stated is not None and stated != value:
            has = f"it is {value} in the blob" if value else "the blob has no such thing"
            yield f"the annotation {name} is {stated[:100]}, but {has}"
    if CHECKSUM not in annotations:
        return
    if TOC_DIGEST in annotations:
        yield f"it has the annotations {CHECKSUM} and {TOC_DIGEST}, of which podman refuses both"
    needed = (POSITION, SPLIT_POSITION) if blob.split_digest else (POSITION,)
    for name in needed:
        if name not in annotations:
            yield f"it has the annotation {CHECKSUM} and not {name}, without which podman fails"
