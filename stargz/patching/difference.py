"""What differs between two layers, or two stacks of layers, from their TOCs alone.

    difference = diff("first.stargz", "https://host/next.stargz")
    print(difference.added, difference.changed, difference.totals.bytes_to_send)

Of a remote layer only footer and TOC are fetched. stargz.oci.difference compares images.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Literal, Protocol

from stargz._engine import toc as _toc
from stargz.layer import Layer
from stargz.opening import open as open_layer
from stargz.sources import Source
from stargz.toc import LANDMARKS, TOC, clean_name

Field = Literal[
    "contents", "type", "size", "mode", "uid", "gid", "mtime", "link", "device", "xattrs"
]
Contents = Literal["same", "changed", "unknown"]

_REG = _toc.TYPES.index("reg") + 1
_SYMLINK = _toc.TYPES.index("symlink") + 1
_HARDLINK = _toc.TYPES.index("hardlink") + 1
_CHUNK = _toc.TYPES.index("chunk") + 1
_ZEROS = _toc.TYPES.index("zeros") + 1


@dataclass(frozen=True, slots=True)
class Change:
    """A name that both layers have, and that is not alike in them.

    `contents` "unknown": no digests tell. `fields` are what differs, "contents" among them when
    they are not known to be the same; of a hard link the metadata is that of the file it leads
    to, and "type" and "link" are its own.
    """

    name: str
    contents: Contents
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers of entries, and bytes.

    `unknown` entries are among the `changed`. `unchanged_files` regular files with
    `unchanged_bytes` have the same contents under the same name (hard links apart).

    `bytes_to_send` is an estimate, which `stargz.delta` makes exact: the compressed
    `member_bytes` of the gzip members that hold a chunk of B whose contents A has under no name,
    and `toc_bytes`, B's TOC and footer. Headers are not counted, and a patch need not send all
    of the TOC. `contents_bytes` are the decoded bytes of the files in those members. Of images it
    is what a pull lacks: all of the layers of B that A has not.
    """

    added: int
    removed: int
    changed: int
    unknown: int
    metadata: int
    unchanged: int
    unchanged_files: int
    unchanged_bytes: int
    member_bytes: int
    contents_bytes: int
    toc_bytes: int

    @property
    def bytes_to_send(self) -> int:
        """An upper estimate of what A lacks to become B."""
        return self.member_bytes + self.toc_bytes

    def to_json(self) -> dict[str, int]:
        """All of it as numbers."""
        return {**asdict(self), "bytes_to_send": self.bytes_to_send}


@dataclass(frozen=True, slots=True)
class Difference:
    """What is in B and not in A, in A and not in B, or in both and not alike.

    Names are cleaned, relative to the root (which is ""), and sorted by their bytes. `changed`
    have other contents, or may have; `metadata` have the same, or none. Landmarks and
    directories that other names only imply are no entries.
    """

    added: list[str]
    removed: list[str]
    changed: list[Change]
    metadata: list[Change]
    totals: Totals

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.changed or self.metadata)

    def to_json(self) -> dict[str, Any]:
        """Names, changes as objects, and totals."""
        return {
            "added": self.added,
            "removed": self.removed,
            "changed": [_json(change) for change in self.changed],
            "metadata": [_json(change) for change in self.metadata],
            "totals": self.totals.to_json(),
        }


def _json(change: Change) -> dict[str, Any]:
    return {"name": change.name, "contents": change.contents, "fields": list(change.fields)}


def diff(a: Source | Layer, b: Source | Layer) -> Difference:
    """Compare two layers by their TOCs.

    Each is what `stargz.open` takes (open it yourself to give options, such as `toc_digest`), or
    an open Layer, which stays open. Contents are the same if the files' digests are, or those of
    all chunks where a file has none. Compared are also type, size, permission bits, numeric
    owners, time, link target, device numbers and xattrs; not the owners' names, which a TOC
    passes on from entry to entry.

    Raises what `stargz.open` raises; ValueError for a Layer that is closed.
    """
    with _opened(a) as before, _opened(b) as after:
        old, new = _Side.of_layer(before), _Side.of_layer(after)
        return _compare(old, new, _members_to_send(old, new, after))


def diff_stacks(
    a: Sequence[Layer], a_engine: _toc.Tree, b: Sequence[Layer], b_engine: _toc.Tree
) -> Difference:
    """The same of open layers, the lowest first, by the trees that they make."""
    old, new = _Side.of_stack(a, a_engine), _Side.of_stack(b, b_engine)
    return _compare(old, new, _layers_to_send(a, b))


@contextmanager
def _opened(side: Source | Layer) -> Iterator[Layer]:
    if isinstance(side, Layer):
        side.names()  # that it is open
        yield side
        return
    with open_layer(side, cache=False) as layer:
        yield layer


class _Rows(Protocol):
    """What is looked up row by row; see stargz._engine.toc.TOC."""

    def resolve(self, number: int) -> int: ...
    def link(self, number: int) -> str: ...
    def xattrs(self, number: int) -> dict[str, bytes]: ...
    def digest(self, number: int) -> str: ...
    def chunks(self, number: int) -> list[tuple[int, int, int, int, str, bool]]: ...


class _StackedRows:
    """The rows of some TOCs one after the other."""

    def __init__(self, tocs: Sequence[_toc.TOC]) -> None:
        self.tocs = tocs
        self.firsts = list(accumulate((len(toc) for toc in tocs), initial=0))

    def _place(self, number: int) -> tuple[_toc.TOC, int]:
        layer = bisect_right(self.firsts, number) - 1
        return self.tocs[layer], number - self.firsts[layer]

    def resolve(self, number: int) -> int:
        toc, row = self._place(number)
        return number - row + toc.resolve(row)

    def link(self, number: int) -> str:
        toc, row = self._place(number)
        return toc.link(row)

    def xattrs(self, number: int) -> dict[str, bytes]:
        toc, row = self._place(number)
        return toc.xattrs(row)

    def digest(self, number: int) -> str:
        toc, row = self._place(number)
        return toc.digest(row)

    def chunks(self, number: int) -> list[tuple[int, int, int, int, str, bool]]:
        toc, row = self._place(number)
        return toc.chunks(row)


def _no_entries() -> TOC:
    parser = _toc.Parser(0)
    parser.feed(b'{"version": 1, "entries": []}')
    return TOC(parser.finish())


@dataclass(frozen=True, slots=True)
class _Side:
    """Entries by name, as numbers of rows, and the rows as columns."""

    rows: _Rows
    columns: Any
    numbers: dict[str, int]
    landmarks: list[int]

    @classmethod
    def of_layer(cls, layer: Layer) -> _Side:
        """The entries of a layer."""
        rows = layer.toc.rows
        numbers = dict(zip(rows.names(), rows.entries(), strict=True))
        own = LANDMARKS if layer.markers else ()
        landmarks = [numbers.pop(name) for name in own if name in numbers]
        return cls(rows, layer.toc.columns, numbers, landmarks)

    @classmethod
    def of_stack(cls, layers: Sequence[Layer], engine: _toc.Tree) -> _Side:
        """What is there of several, each name's entry in the layer that has it."""
        import numpy

        tocs = [layer.toc for layer in layers] or [_no_entries()]
        rows = _StackedRows([toc.rows for toc in tocs])
        numbers = {}
        for node in range(len(engine)):
            layer, row = engine.entry(node)
            if row >= 0:
                numbers[engine.path(node)] = rows.firsts[layer] + row
        return cls(rows, numpy.concatenate([toc.columns for toc in tocs]), numbers, [])

    def entries(self, names: list[str]) -> _Entries:
        import numpy

        own = numpy.fromiter((self.numbers[name] for name in names), "u4", len(names))
        resolved = own.copy()
        for at in numpy.flatnonzero(self.columns["type"][own] == _HARDLINK).tolist():
            resolved[at] = self.rows.resolve(int(own[at]))
        return _Entries(self.rows, self.columns, own, resolved)


class _Entries:
    """Some entries of one side, in order: their own rows, and those that hard links lead to."""

    def __init__(self, rows: _Rows, columns: Any, own: Any, resolved: Any) -> None:
        self.rows = rows
        self.columns = columns
        self.own = own
        self.resolved = resolved
        self.own_type = columns["type"][own]
        self.type = self["type"]
        # Of files that many hard links lead to, or that are compared with many.
        self._chunks: dict[int, Any] = {}
        self._xattrs: dict[int, Any] = {}

    def __getitem__(self, column: str) -> Any:
        return self.columns[column][self.resolved]

    def digests(self) -> tuple[Any, Any]:
        """The files' digests as rows of four numbers, and which of them are there. (Of longer
        files they are not in a column.)"""
        import numpy

        both = _toc.FLAGS["has_digest"] | _toc.FLAGS["digest_is_chunk"]
        there = self["flags"] & both == both
        return numpy.ascontiguousarray(self["chunk_digest"]).view("=u8").reshape(-1, 4), there

    def hard_link(self, at: int) -> str:
        """The name that a hard link gives."""
        hard = self.own_type[at] == _HARDLINK
        return clean_name(self.rows.link(int(self.own[at]))) if hard else ""

    def target(self, row: int) -> str:
        """The target of a symlink."""
        return self.rows.link(row) if self.columns["type"][row] == _SYMLINK else ""

    def xattrs(self, row: int) -> Any:
        found = self._xattrs.get(row)
        if found is None:
            found = self.rows.xattrs(row)
            if found:
                self._xattrs[row] = found
        return found

    def chunks(self, row: int) -> Any:
        found = self._chunks.get(row)
        if found is None:
            found = self._chunks[row] = self.rows.chunks(row)
        return found


def _compare(before: _Side, after: _Side, to_send: dict[str, int]) -> Difference:
    """The totals of what is to be sent are given."""
    import numpy

    added = sorted(after.numbers.keys() - before.numbers.keys())
    removed = sorted(before.numbers.keys() - after.numbers.keys())
    names = sorted(before.numbers.keys() & after.numbers.keys())
    old, new = before.entries(names), after.entries(names)
    contents = _contents(old, new)
    differs = {"contents": contents > _SAME, **_fields(old, new)}
    changes: dict[bool, list[Change]] = {True: [], False: []}
    for at in numpy.flatnonzero(numpy.logical_or.reduce(list(differs.values()))).tolist():
        fields: Any = tuple(field for field, found in differs.items() if found[at])
        change = Change(names[at], _WORDS[contents[at]], fields)
        changes[change.contents != "same"].append(change)
    same_files = (contents == _SAME) & (new.own_type == _REG)
    totals = Totals(
        added=len(added),
        removed=len(removed),
        changed=len(changes[True]),
        unknown=int((contents == _UNKNOWN).sum()),
        metadata=len(changes[False]),
        unchanged=len(names) - len(changes[True]) - len(changes[False]),
        unchanged_files=int(same_files.sum()),
        unchanged_bytes=sum(new["size"][same_files].tolist()),
        **to_send,
    )
    return Difference(added, removed, changes[True], changes[False], totals)


# --- metadata ---------------------------------------------------------------------------


def _fields(old: _Entries, new: _Entries) -> dict[Field, Any]:
    """For each field where the entries differ in it."""
    import numpy

    symlinks = numpy.flatnonzero((old.type == _SYMLINK) | (new.type == _SYMLINK))
    links = numpy.zeros(len(old.own), bool)
    links[symlinks] = _by_pair(old, new, symlinks, lambda a, b: old.target(a) != new.target(b))
    hard = (old.own_type == _HARDLINK) | (new.own_type == _HARDLINK)
    for at in numpy.flatnonzero(hard & ~links).tolist():
        links[at] = old.hard_link(at) != new.hard_link(at)
    every = slice(None)
    xattrs = _by_pair(old, new, every, lambda a, b: old.xattrs(a) != new.xattrs(b))
    return {
        "type": (old.own_type != new.own_type) | (old.type != new.type),
        "size": old["size"] != new["size"],
        "mode": (old["mode"] ^ new["mode"]) & 0o7777 != 0,  # some writers add the type's bits
        "uid": old["uid"] != new["uid"],
        "gid": old["gid"] != new["gid"],
        "mtime": old["mtime"] != new["mtime"],
        "link": links,
        "device": (old["dev_major"] != new["dev_major"]) | (old["dev_minor"] != new["dev_minor"]),
        "xattrs": numpy.array(xattrs, bool),
    }


def _by_pair(
    old: _Entries, new: _Entries, which: Any, compare: Callable[[int, int], int]
) -> list[int]:
    """compare(row, row) of some entries; once for each pair of rows, as a file may have as many
    hard links as it has chunks or xattrs."""
    found: dict[tuple[int, int], int] = {}
    results = []
    pairs = zip(old.resolved[which].tolist(), new.resolved[which].tolist(), strict=True)
    for pair in pairs:
        result = found.get(pair)
        if result is None:
            result = found[pair] = compare(*pair)
        results.append(result)
    return results


# --- contents ---------------------------------------------------------------------------

_SAME, _CHANGED, _UNKNOWN = range(3)
_WORDS: tuple[Contents, ...] = ("same", "changed", "unknown")


def _contents(old: _Entries, new: _Entries) -> Any:
    """_SAME, _CHANGED or _UNKNOWN for each; what is no file has no contents."""
    import numpy

    files = (old.type == _REG) & (new.type == _REG)
    alike = (old["size"] == new["size"]) & files
    result = numpy.where((old.type == _REG) != (new.type == _REG), _CHANGED, _SAME)
    result[files & ~alike] = _CHANGED
    (old_digests, old_there), (new_digests, new_there) = old.digests(), new.digests()
    known = alike & old_there & new_there
    result[known & (old_digests != new_digests).any(axis=1)] = _CHANGED
    others = numpy.flatnonzero(alike & ~known & (old["size"] > 0))
    result[others] = _by_pair(old, new, others, lambda a, b: _file(old, a, new, b))
    return result


def _file(old: _Entries, a: int, new: _Entries, b: int) -> int:
    """Of two files that have the same size."""
    digest, other = _digest(old, a), _digest(new, b)
    if digest and other:
        return _SAME if digest == other else _CHANGED
    pieces, others = old.chunks(a), new.chunks(b)
    if len(pieces) != len(others):
        return _UNKNOWN
    if [_extent(piece) for piece in pieces] != [_extent(piece) for piece in others]:
        return _UNKNOWN
    both = zip(pieces, others, strict=True)
    pairs = [(piece[4], other[4]) for piece, other in both if not piece[5]]  # zeros are the same
    if any(one and two and one != two for one, two in pairs):
        return _CHANGED
    return _SAME if all(one and two for one, two in pairs) else _UNKNOWN


def _extent(piece: tuple[int, int, int, int, str, bool]) -> tuple[int, int, bool]:
    """Where a piece of a file begins, its size, and whether it is zeros."""
    return (*piece[2:4], piece[5])


def _digest(side: _Entries, row: int) -> str:
    """The digest of a file, also where only its one chunk has it; "" if it is not known."""
    digest = side.rows.digest(row)
    if digest:
        return digest
    chunks = side.chunks(row)
    return chunks[0][4] if len(chunks) == 1 else ""


# --- what is to be sent -----------------------------------------------------------------


def _layers_to_send(a: Sequence[Layer], b: Sequence[Layer]) -> dict[str, int]:
    """The totals of the layers that A lacks, each once."""
    there = {(layer.toc_digest, layer.size) for layer in a}
    lacking = {(layer.toc_digest, layer.size): layer for layer in b}
    found = [layer for key, layer in lacking.items() if key not in there]
    return {
        "member_bytes": sum(layer.data_end for layer in found),
        "contents_bytes": sum(layer.toc.rows.counts()["bytes"] for layer in found),
        "toc_bytes": sum(layer.size - layer.data_end + layer.external_toc_size for layer in found),
    }


def _members_to_send(before: _Side, after: _Side, b: Layer) -> dict[str, int]:
    """The totals of the members with contents that A lacks."""
    import numpy

    columns = after.columns
    data = _data(after)
    starts = numpy.unique(columns["offset"][data])
    lacking = _lacking(before, after)
    needed = numpy.unique(columns["offset"][lacking])
    place = numpy.searchsorted(starts, needed)
    ends = numpy.append(starts[1:], b.data_end)[place]
    inside = data & numpy.isin(columns["offset"], needed)
    return {
        "member_bytes": sum((ends - needed).tolist()),
        "contents_bytes": sum(columns["chunk_size"][inside].tolist()),
        "toc_bytes": b.size - b.data_end + b.external_toc_size,
    }


def _lacking(before: _Side, after: _Side) -> list[int]:
    """The rows of B's chunks whose contents A has under no name, by chunk or by file."""
    import numpy

    known = set(_chunk_digests(before)[1])
    spanning = _flag(before, "has_digest") & ~_flag(before, "digest_is_chunk")
    for row in numpy.flatnonzero(spanning & _live(before)).tolist():
        known.add(_raw(before.rows.digest(row)))
    rows, digests = _chunk_digests(after, every=True)
    files = numpy.maximum.accumulate(
        numpy.where(after.columns["type"] >= _CHUNK, 0, numpy.arange(len(after.columns)))
    )[rows].tolist()
    whole: dict[int, bool] = {}  # whether A has a file, by its row
    lacking = []
    for row, digest, file in zip(rows.tolist(), digests, files, strict=True):
        if digest in known:
            continue
        if file not in whole:
            whole[file] = _raw(after.rows.digest(file)) in known
        if not whole[file]:
            lacking.append(row)
    return lacking


def _chunk_digests(side: _Side, *, every: bool = False) -> tuple[Any, list[bytes]]:
    """Rows of chunks, and the digests of these; of `every` chunk, b"" where it has none."""
    import numpy

    digested = _flag(side, "has_chunk_digest")
    wanted = _live(side) & _data(side)
    rows = numpy.flatnonzero(wanted if every else wanted & digested)
    raw = side.columns["chunk_digest"][rows].tobytes()
    there = digested[rows].tolist()
    return rows, [raw[32 * at : 32 * at + 32] if has else b"" for at, has in enumerate(there)]


def _live(side: _Side) -> Any:
    """Rows that later ones did not replace, landmarks apart."""
    live = ~_flag(side, "dropped")
    live[side.landmarks] = False
    return live


def _data(side: _Side) -> Any:
    """Rows of which the blob has bytes."""
    return (side.columns["chunk_size"] > 0) & (side.columns["type"] != _ZEROS)


def _flag(side: _Side, name: str) -> Any:
    return side.columns["flags"] & _toc.FLAGS[name] != 0


def _raw(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))
