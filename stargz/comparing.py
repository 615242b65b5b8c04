"""Verify what is read by an index: index it once more, and compare."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from stargz.digests import Hashed
from stargz.ending import without_footer
from stargz.errors import FormatError, SourceError, StargzError
from stargz.indexing import build
from stargz.options import SPAN_SIZE, SPAN_SIZES

if TYPE_CHECKING:
    from stargz._engine.index import Index
    from stargz._engine.reader import Reader
    from stargz._engine.toc import TOC

_ERRORS = 100  # that are told of
_PIECE = 4 << 20

# Of TOC.fields, but for the name and the digest.
_FIELDS = (
    "type", "size", "mtime", "mode", "uid", "gid", "user name", "group name", "link", "major",
    "minor", "xattrs", "fraction of mtime",
)  # fmt: skip
_DIGEST = 13

Problem = dict[str, Any]


def compare(
    reader: Reader, index: Index, progress: Callable[[int, int], object] | None = None
) -> dict[str, Any]:
    """Read all of a blob, and compare it with the index that `reader` reads it by: what the blob
    is, its entries, and that the entry points lead to their contents. A dict as of
    Reader.verify."""
    source = reader.blob.source
    span_size = index.span_size if index.span_size in SPAN_SIZES else SPAN_SIZE
    try:
        fresh = build(source, span_size=span_size, progress=progress)
    except FormatError as error:
        return _found([_problem(error.message, offset=error.offset)], None)
    lost = without_footer(source)
    cut = [_problem(lost, offset=source.size)] if lost else []
    return _found(chain(cut, _problems(reader, index, fresh)), fresh)


def _found(problems: Iterable[Problem], fresh: Index | None) -> dict[str, Any]:
    numbered = enumerate(problems, 1)
    errors = [problem for _, problem in islice(numbered, _ERRORS)]
    count = len(errors) + sum(1 for _ in numbered)
    counts = fresh.toc.counts() if fresh is not None else {"files": 0, "chunks": 0}
    return {
        "files": counts["files"],
        "chunks": counts["chunks"],
        "bytes": fresh.tar_size if fresh is not None else 0,
        "errors": errors,
        "error_count": count,
        "notes": fresh.notes if fresh is not None else [],
        "blob_digest": fresh.digest if fresh is not None else "",
        "diff_id": fresh.diff_id if fresh is not None else "",
    }


def _problem(message: str, name: str = "", offset: int | None = None) -> Problem:
    return {"name": name, "offset": offset, "message": message}


def _problems(reader: Reader, index: Index, fresh: Index) -> Iterator[Problem]:
    tar_size = "tar_size" if index.digest else "archive_size"  # which is all that SOCI's says
    for what, given, real in (
        ("digest", index.digest, fresh.digest),
        ("DiffID", index.diff_id, fresh.diff_id),
        ("tar's size", getattr(index, tar_size), getattr(fresh, tar_size)),
    ):
        if given not in ("", real):
            yield _problem(f"the index gives the blob's {what} as {given}, it is {real}")
    if index.digest and _dumped(index) == _dumped(fresh):  # as ours are
        return
    old, new = _numbers(index.toc), _numbers(fresh.toc)
    for name in old.keys() - new.keys():
        yield _problem("is in the index, and not in the blob", name)
    for name, number in new.items():
        if name not in old:
            yield _problem("is in the blob, and not in the index", name)
            continue
        told, found = index.toc.fields(old[name]), fresh.toc.fields(number)
        wrong = list(_differences(told, found))
        if wrong:
            yield _problem(", ".join(wrong), name)
        elif found[1] == "reg" and (why := _unlike(reader, old[name], found)):
            yield _problem(why, name)


def _numbers(toc: TOC) -> dict[str, int]:
    return {toc.name(number): number for number in toc.entries()}


def _differences(told: tuple[Any, ...], found: tuple[Any, ...]) -> Iterator[str]:
    for what, one, other in zip(_FIELDS, _compared(told), _compared(found), strict=True):
        if one != other:
            yield f"{what} is {one!r} in the index, {other!r} in the blob"
    if told[_DIGEST] not in ("", found[_DIGEST]):
        yield f"digest is {told[_DIGEST]} in the index, {found[_DIGEST]} in the blob"


def _compared(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*fields[1:_DIGEST], *fields[_DIGEST + 1 :])


def _unlike(reader: Reader, row: int, found: tuple[Any, ...]) -> str:
    """Why a file is not what the blob has when it is read by the index; "" if it is."""
    size, digest = found[2], hashlib.sha256()
    try:
        for at in range(0, size, _PIECE):
            digest.update(reader.read(row, at, min(_PIECE, size - at)))
    except SourceError:
        raise
    except StargzError as error:
        return str(getattr(error, "message", error))
    actual = f"sha256:{digest.hexdigest()}"
    if found[_DIGEST] in ("", actual):
        return ""
    return f"is {actual} by way of the index, and {found[_DIGEST]} in the blob"


def _dumped(index: Index) -> str:
    whole = Hashed()
    index.dump(whole.write)
    return whole.digest
