"""Both ends of an image's way: what it is read from and what it is written to, by name and open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stargz.digests import is_digest
from stargz.errors import UsageError
from stargz.oci.convert.store import LocalStore
from stargz.oci.destination import Destination, cancel_uploads, open_destination
from stargz.oci.formats.layout import ImageLayout, Layout, open_archived
from stargz.oci.formats.manifest import EXTERNAL, REF_NAME
from stargz.oci.formats.reference import (
    DEFAULT_TAG,
    MAX_TAG,
    STDIN,
    ArchiveReference,
    ImageReference,
    LayoutReference,
    Reference,
    is_tag,
    parse_image,
)
from stargz.oci.registry.access import Access, shared_client
from stargz.oci.repository import Repository, open_repository

_PARALLEL = 8  # small things that are read and written at the same time: manifests, configs


@dataclass(frozen=True, slots=True)
class Ends:
    """Source and destination, open, and threads for what is small."""

    source: Repository
    destination: Destination
    helpers: ThreadPoolExecutor


@contextmanager
def open_ends(
    src: str, dst: str, reading: Access, writing: Access, local: LocalStore[Any] | None = None
) -> Iterator[Ends]:
    """Both ends. Whatever ends the block by an error ends what `local` makes too, before the
    destination is closed; an interrupt does not wait for the network, or hardly."""
    with (
        shared_client(reading) as client,
        shared_client(writing) as writer,
        open_repository(src, client=client) as source,
        open_destination(dst, client=writer) as destination,
        ThreadPoolExecutor(_PARALLEL, "stargz-image") as helpers,
    ):
        try:
            yield Ends(source, destination, helpers)
        except BaseException as error:
            if local is not None:
                local.stop()
            interrupted = not isinstance(error, Exception)
            if interrupted:  # Ctrl-C must not wait for the network, or hardly
                client.close()
                writer.close()
            helpers.shutdown(cancel_futures=True)
            if local is not None:  # whose workers write to the destination, which is closed next
                local.wait()
            if interrupted:
                cancel_uploads(writer, writing)
            raise


def not_on_stdin(src: str, executor: Executor | None) -> None:
    """Refuse a source on standard input where what reads it may be elsewhere."""
    if executor is not None and not isinstance(executor, ThreadPoolExecutor):
        source = parse_image(src)
        if isinstance(source, ArchiveReference) and source.path == STDIN:
            raise UsageError(
                f"{src}: an executor's processes do not have this standard input: save it to a file"
            )


def destination_name(src: str, dst: str | None, upgrade: bool) -> str:
    """What is written; UsageError if that cannot be, or is the source and must not be."""
    if dst is None:
        if not upgrade:
            raise UsageError(f"{src}: no destination; name one, or replace the source (--upgrade)")
        source = parse_image(src)
        if isinstance(source, Reference) and source.digest:
            if not source.tag:
                raise UsageError(f"{src}: a digest cannot be replaced; name a tag")
            return f"docker://{replace(source, digest=None)}"
        dst = src
    if dst.startswith(("docker-archive:", "storage:")):
        raise UsageError(
            f"{dst}: it would lose the annotations, without which nothing reads the image lazily; "
            "write to docker://..., oci:DIR:REF or oci-archive:FILE:REF"
        )
    place = parse_image(dst)
    same = is_same(parse_image(src), place)
    if same and upgrade and isinstance(place, LayoutReference | ArchiveReference):
        if not place.ref:
            return str(replace(place, ref=_only_name(place, src)))
        if isinstance(place, LayoutReference) and is_digest(place.ref):
            raise UsageError(f"{src}: a digest cannot be replaced; give the image's name")
    if same and not upgrade:
        raise UsageError(f"{dst}: source and destination are the same image; --upgrade replaces it")
    return dst


def check_toc_image(name: str) -> None:
    """UsageError for a destination whose external TOCs would not be found."""
    place = parse_image(name)
    if isinstance(place, Reference):
        tag = place.tag
    else:
        tag = (getattr(place, "ref", None) or "").rpartition(":")[2]
    if not tag:
        raise UsageError(
            f"{name}: it has no tag, by which alone an image's external TOCs are found: give one"
        )
    if len(tag + EXTERNAL) > MAX_TAG:
        raise UsageError(
            f"{name}: its tag has {len(tag)} characters, but external TOCs need one of at most "
            f"{MAX_TAG - len(EXTERNAL)}: their image is named by it and {EXTERNAL}"
        )
    if not is_tag(tag):
        raise UsageError(
            f"{name}: {tag!r} is no tag, by which alone an image's external TOCs are found: give "
            "one of letters, digits, '_', '.' and '-'"
        )


def worker_name(destination: Destination) -> str:
    """What workers know the destination by."""
    place = destination.reference
    return f"docker://{place}" if isinstance(place, Reference) else str(place)


def _only_name(place: LayoutReference | ArchiveReference, src: str) -> str | None:
    """The name of a layout's only image, which is to be replaced under it."""
    if isinstance(place, ArchiveReference):
        with open_archived(place.path) as archived:
            layout: ImageLayout = archived
        if not layout.refs() and len(layout.images) == 1:
            return None
    else:
        layout = Layout(place.path)
    names = {name for entry in layout.images if (name := entry.annotations.get(REF_NAME))}
    if not names:
        raise UsageError(
            f"{src}: --upgrade replaces what a name means, and the layout has none: name a DST"
        )
    if len(names) != 1 or len(layout.images) != 1:
        raise UsageError(f"{src}: --upgrade replaces what a name means; give one: {src}:REF")
    return names.pop()


def is_same(source: ImageReference, to: ImageReference) -> bool:
    if isinstance(source, Reference) and isinstance(to, Reference):
        by_tag = source.tag or source.digest is None
        tags = source.tag or DEFAULT_TAG, to.tag or DEFAULT_TAG
        return bool(by_tag) and source.name == to.name and tags[0] == tags[1]
    if isinstance(source, ArchiveReference) and isinstance(to, ArchiveReference):
        return source.path != STDIN and os.path.realpath(source.path) == os.path.realpath(to.path)
    if isinstance(source, LayoutReference) and isinstance(to, LayoutReference):
        paths = os.path.realpath(source.path), os.path.realpath(to.path)
        return paths[0] == paths[1] and (source.ref == to.ref or None in (source.ref, to.ref))
    return False


def absolute(name: str) -> str:
    """The name of an image for workers, which may be elsewhere in the file system."""
    found = parse_image(name)
    if isinstance(found, Reference) or found.path == STDIN:
        return name
    return str(replace(found, path=os.path.abspath(found.path)))  # noqa: PTH100
