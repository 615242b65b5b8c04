"""Layers and images as a mounted file system (Linux, FUSE).

The kernel's protocol is served by threads of this process that hold no GIL while they work.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from stargz.errors import UsageError
from stargz.mount.contents import Contents
from stargz.mount.kernel import MountError, Options, check_directory
from stargz.mount.serving import Asked, Log, Mount, Usage
from stargz.options import default_threads, thread_count

if TYPE_CHECKING:
    from stargz.cache import Cache
    from stargz.indexes import IndexSource
    from stargz.layer import Layer
    from stargz.mount.crfs import Root
    from stargz.sources import Source
    from stargz.tree import Tree, Whiteouts

__all__ = ["Mount", "MountError", "Usage", "mount"]


def mount(
    source: Source | Layer | Tree | Sequence[Layer] | Root,
    directory: str | os.PathLike[str],
    *,
    toc: Source | None = None,
    toc_digest: str | None = None,
    index: IndexSource = None,
    index_digest: str | None = None,
    require_verified: bool = False,
    whiteouts: Whiteouts | None = None,
    name: str | None = None,
    allow_other: bool = False,
    dev: bool = False,
    suid: bool = False,
    cache: Cache | str | os.PathLike[str] | bool | None = None,
    prefetch: bool = True,
    background: bool = True,
    memory: int | None = None,
    threads: int | None = None,
    log: Log | None = None,
    contents: Contents | None = None,
) -> Mount:
    """Mount a layer or the merged layers of an image on a directory, read-only.

        with stargz.mount.mount("layer.stargz", "/mnt"):
            print(open("/mnt/etc/passwd").read())

    `source` is what `stargz.open` takes, an open Layer, several (from the lowest up), a
    `stargz.tree.Tree`, or a `stargz.mount.crfs.Root`. Open ones stay the caller's, and stay open
    until the mount has ended. `toc`, `toc_digest`, `index`, `index_digest` and `require_verified`
    are those of `stargz.open`, for what it has to open. `whiteouts` of a single layer are "overlay"
    by default (see Tree). `name` is what /proc/mounts shows. `allow_other` lets other users in,
    `dev` and `suid` make device nodes and set-id bits count; permissions are checked by the kernel
    in any case.
    Of remote layers `cache` is the disk cache (None: the user's; False: none), `prefetch` and
    `background` say whether what is not asked for is fetched into it. `memory` bounds the decoded
    chunks that are held, in bytes (None: an eighth of what is available, 64 MiB to 1 GiB). `log`
    gets one line for each problem (default: the logger "stargz.mount").

    Do not map files of a remote mount, or load libraries from it, in the process that serves it:
    a page fault holds the interpreter's lock, which the fetching thread needs.

    Raises MountError for what the system lacks or refuses, and what `stargz.open` raises.
    """
    if threads is None:  # two at the least: one may be decoding while another answers look-ups
        threads = max(2, min(default_threads(), 16))
    threads = thread_count(threads)
    if memory is not None and memory < 0:
        raise UsageError(f"memory is at least 0 bytes, not {memory}")
    trust: dict[str, Any] = {
        "toc": toc, "toc_digest": toc_digest, "index": index, "index_digest": index_digest,
        "require_verified": require_verified,
    }  # fmt: skip
    path = check_directory(os.fspath(directory))
    with ExitStack() as stack:
        if isinstance(source, Asked):
            _check_open(trust)
            tree = None
        else:
            tree = _tree(source, whiteouts, {**trust, "cache": cache}, stack)
        shown = name or (tree.name if tree is not None else "crfs") or "layer"
        remote = tree is None or not all(layer.blob.direct for layer in tree.layers)
        if contents is None:
            contents = Contents(
                cache, memory, remote=remote, prefetch=prefetch, background=background
            )
        return Mount(
            path,
            Options(shown, allow_other, dev, suid),
            contents,
            tree,
            source if isinstance(source, Asked) else None,
            log or _logger(),
            threads,
            stack.pop_all(),
        )


def _tree(
    source: Source | Layer | Tree | Sequence[Layer],
    whiteouts: Whiteouts | None,
    options: dict[str, Any],
    stack: ExitStack,
) -> Tree:
    from stargz.layer import Layer
    from stargz.opening import open as open_layer
    from stargz.tree import Tree

    if isinstance(source, Tree | Layer | list | tuple):
        _check_open({key: value for key, value in options.items() if key != "cache"})
    if isinstance(source, Tree):
        return source
    if isinstance(source, Layer):
        layers: list[Layer] = [source]
    elif isinstance(source, list | tuple):
        layers = list(source)
        if not layers:
            raise UsageError("no layers were given to mount")
    else:
        given = cast("Source", source)
        layers = [stack.enter_context(open_layer(given, **options))]
    if whiteouts is None:
        whiteouts = "overlay" if len(layers) == 1 else "apply"
    return Tree(layers, whiteouts)


def _check_open(trust: dict[str, Any]) -> None:
    given = next((key for key, value in trust.items() if value not in (None, False)), None)
    if given is not None:
        raise UsageError(f"{given} is for what is opened here; give it to stargz.open")


def _logger() -> Log:
    import logging

    return logging.getLogger("stargz.mount").warning
