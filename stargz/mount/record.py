"""What was read through a mount, in order of first access."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stargz.mount.serving import Mount


def records(mount: Mount) -> Iterator[dict[str, Any]]:
    """One dict a file that was read: `path` in its tree, `layer` it is from, `first` access in
    seconds since the mount, the same as wall-clock `time` (RFC 3339, UTC), and `bytes` that the
    kernel asked for; `image` says which tree where a mount has several."""
    found = [
        (first, served, node, size)
        for served in mount.served
        for first, node, size in mount.accesses(served)
    ]
    found.sort(key=lambda row: row[0])
    for first, served, node, size in found:
        engine = served.tree.engine
        layer, _ = engine.row(node)
        moment = datetime.fromtimestamp(mount.began + first, UTC)
        row = {
            "path": engine.path(node),
            "layer": layer_label(served.tree.layers[layer]),
            "first": round(first, 6),
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "bytes": size,
        }
        if served.path:
            row["image"] = served.path
        yield row


def layer_label(layer: Any) -> str:
    """The digest of a layer's blob where its source knows it, else its name."""
    digest = getattr(layer.source, "digest", None)
    return digest if isinstance(digest, str) else str(layer.name)


def write(mount: Mount, path: str | os.PathLike[str]) -> int:
    """Write JSON lines, complete or not at all; how many. `stargz convert --prioritize-from`
    takes them."""
    target = Path(path)
    text = [json.dumps(row, ensure_ascii=False) + "\n" for row in records(mount)]
    # The directory may be one where others write too: a name that nobody knows before, and never
    # a file or a link that is there already.
    unfinished = target.with_name(f".stargz-{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(unfinished, flags, 0o666)
    try:
        # Names that are not UTF-8 come out of the tree as surrogates.
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(text)
        unfinished.rename(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return len(text)
