"""The gzip members of a layer: what one needs to know of it to make a patch against it.

`stargz toc --members` writes a `MemberList` as one JSON value::

    {"version": 1, "digest": "sha256:...", "size": ..., "toc_offset": ..., "toc_end": ...,
     "toc_digest": "sha256:...", "toc": "<the TOC's JSON, byte for byte>",
     "members": [[offset, size, "<hex sha256 of the compressed bytes>"], ...]}

The members cover the blob from its first byte to its last: those of the chunks, the TOC's and
the footer. Of a layer with an external TOC, toc_offset is -1 and toc_end is where the footer
begins.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Never, overload

from stargz._engine.reader import Blob
from stargz.digests import is_sha256
from stargz.errors import FooterError, FormatError, StargzError, UnindexedError
from stargz.options import thread_count

if TYPE_CHECKING:
    from stargz.layer import Layer
    from stargz.sources import ByteSource

Progress = Callable[[int, int], object]

VERSION = 1
SIZE_MAX = 1 << 30  # of a file with members, in bytes
_STEP = 1 << 20
_FETCH = 4 << 20
_LINES = 4096  # members that are written at once
_KEYS = {
    "version": int,
    "digest": str,
    "size": int,
    "toc_offset": int,
    "toc_end": int,
    "toc_digest": str,
    "toc": str,
    "members": list,
}


_MEMBER = struct.Struct("<qq32s")  # as stargz._engine.patch.MEMBER


class Members(Sequence[tuple[int, int, bytes]]):
    """Members as (offset, size, 32 bytes of sha256), in blob order and without gaps.

    A blob may have millions of them: they are held as `records` of 48 bytes.
    """

    __slots__ = ("records",)

    def __init__(self, records: bytes) -> None:
        self.records: bytes = records

    def __len__(self) -> int:
        return len(self.records) // _MEMBER.size

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        return _MEMBER.iter_unpack(self.records)

    @overload
    def __getitem__(self, at: int) -> tuple[int, int, bytes]: ...
    @overload
    def __getitem__(self, at: slice) -> Members: ...
    def __getitem__(self, at: int | slice) -> tuple[int, int, bytes] | Members:
        size = _MEMBER.size
        if isinstance(at, slice):
            numbers = range(*at.indices(len(self)))
            return Members(b"".join(self.records[size * n : size * (n + 1)] for n in numbers))
        offset, length, digest = _MEMBER.unpack_from(self.records, size * range(len(self))[at])
        return offset, length, digest

    def __eq__(self, other: object) -> bool:
        return self.records == other.records if isinstance(other, Members) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.records)

    def starts_at(self, offset: int) -> bool:
        """Whether one of them begins there."""
        number = bisect_left(self, offset, key=lambda member: member[0])
        return number < len(self) and self[number][0] == offset


@dataclass(frozen=True, slots=True)
class MemberList:
    """A blob as its gzip members, and its TOC.

    Digests are "sha256:..."; `toc` is the TOC's JSON as it is stored; `members` is a
    sequence of (offset, size, 32 bytes of sha256) in blob order, without gaps. `chunks` are the
    chunks of the TOC as records of stargz._engine.patch.CHUNK. `contents` is how many bytes each
    member inflates to; None where the list comes from a file.
    """

    digest: str
    size: int
    toc_offset: int
    toc_end: int
    toc_digest: str
    toc: bytes
    members: Members
    chunks: bytes = field(repr=False)
    name: str = ""
    contents: Sequence[int] | None = field(default=None, repr=False)

    @property
    def data_end(self) -> int:
        """Where the members of chunks end, in bytes from the blob's start."""
        return self.toc_offset if self.toc_offset >= 0 else self.toc_end

    @classmethod
    def from_layer(
        cls,
        layer: Layer,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> MemberList:
        """The members of an open layer; all of it is decoded, and each chunk checked.

        progress(done, total) gets bytes of the blob. Raises GzipError for bytes that are no
        member, DigestError for a chunk that is not what the TOC says.
        """
        with local(check_seekable(layer)) as (blob, digest):
            return cls.from_blob(layer, blob, digest, threads=threads, progress=progress)

    @classmethod
    def from_blob(
        cls,
        layer: Layer,
        blob: Blob,
        digest: str = "",
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> MemberList:
        """The same of a blob that `local` gave, with its digest if that is known."""
        from stargz._engine.patch import walk

        toc = layer.read_toc()  # ValueError if it is closed
        check_seekable(layer)
        toc_end = layer.size - layer.footer.size
        with _hashed(blob, digest) as whole:
            found, contents, chunks = walk(
                blob,
                layer.toc.rows,
                layer.data_end,
                toc_end,
                thread_count(threads),
                progress,
            )
            _check_whole_files(layer, blob)
        return cls(
            digest=whole(),
            size=layer.size,
            toc_offset=layer.toc_offset,
            toc_end=toc_end,
            toc_digest=layer.toc_digest,
            toc=toc,
            members=Members(found),
            chunks=chunks,
            name=layer.name,
            contents=memoryview(contents).cast("Q"),
        )

    # --- the file -----------------------------------------------------------------------

    def write(self, stream: IO[bytes]) -> int:
        """Write the list as JSON; returns the number of bytes."""
        head = {
            "version": VERSION,
            "digest": self.digest,
            "size": self.size,
            "toc_offset": self.toc_offset,
            "toc_end": self.toc_end,
            "toc_digest": self.toc_digest,
            "toc": self.toc.decode("utf-8", "surrogateescape"),
        }
        size = 0

        def put(text: str) -> None:
            nonlocal size
            data = text.encode("ascii")
            stream.write(data)
            size += len(data)

        put(json.dumps(head)[:-1] + ', "members": [')
        between = "\n"
        members = iter(self.members)
        while some := list(itertools.islice(members, _LINES)):
            put(between + ",\n".join(f'[{at}, {n}, "{d.hex()}"]' for at, n, d in some))
            between = ",\n"
        put("\n]}\n")
        return size

    @classmethod
    def read(cls, stream: IO[bytes], name: str = "") -> MemberList:
        """Read what `write` wrote. Raises FormatError, which calls the file `name`."""
        name = name or str(getattr(stream, "name", "") or "members")
        return cls.parse(stream.read(SIZE_MAX + 1), name)

    @classmethod
    def parse(cls, data: bytes, name: str = "members") -> MemberList:
        """The same of the file's bytes. Every number is checked against the others."""
        from stargz._engine.patch import CHUNK, chunks
        from stargz._engine.toc import TOC

        if len(data) > SIZE_MAX:
            _refuse(name, f"it is larger than {SIZE_MAX >> 30} GiB")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            _refuse(name, f"it is not JSON ({error})")
        if type(found) is not dict or "version" not in found:
            _refuse(name, "it is no object with a version")
        if found["version"] != VERSION:
            _refuse(name, f"its version is {found['version']!r:.40}, this stargz reads {VERSION}")
        for key, kind in _KEYS.items():
            if type(found.get(key)) is not kind:
                _refuse(name, f"{key!r} is missing or of the wrong type")
        toc = _text(found["toc"], name)
        members = _members(found["members"], found["size"], name)
        toc_offset, toc_end = found["toc_offset"], found["toc_end"]
        if not -1 <= toc_offset < toc_end or not members.starts_at(toc_end):
            _refuse(name, "the TOC is not where members begin and end")
        if toc_offset >= 0 and not members.starts_at(toc_offset):
            _refuse(name, "the TOC is not where members begin and end")
        _check_digest(found["digest"], "digest", name)
        _check_digest(found["toc_digest"], "toc_digest", name)
        if found["toc_digest"] != f"sha256:{hashlib.sha256(toc).hexdigest()}":
            _refuse(name, "the TOC does not match its digest")
        data_end = toc_offset if toc_offset >= 0 else toc_end
        try:
            records = chunks(TOC.parse(toc, data_end, name), data_end, name)
        except StargzError as error:
            raise FormatError(f"not a list of members: {error}", name) from None
        starts = (offset for offset, _, _ in members)
        at = next(starts)
        for record in struct.iter_unpack(CHUNK, records):  # in blob order, as the members
            offset = record[0]
            while at < offset and (start := next(starts, -1)) >= 0:
                at = start
            if at != offset:
                _refuse(name, "a chunk of the TOC does not begin in one of the members")
        return cls(
            digest=found["digest"],
            size=found["size"],
            toc_offset=toc_offset,
            toc_end=toc_end,
            toc_digest=found["toc_digest"],
            toc=toc,
            members=members,
            chunks=records,
            name=name,
        )


@contextmanager
def seekable_alone() -> Iterator[None]:
    """Ordinary tars have no members to be copied: for those who open layers with index=False."""
    try:
        yield
    except UnindexedError as error:
        raise _ordinary(error.source) from None


def check_seekable(layer: Layer) -> Layer:
    """The layer itself; FooterError for one that is read by an index."""
    if layer.index is not None:
        raise _ordinary(layer.name)
    return layer


def _ordinary(name: str) -> FooterError:
    return FooterError(
        "an ordinary tar, and a patch is between seekable layers; convert it first ('stargz "
        "convert')",
        name,
    )


def _refuse(name: str, why: str) -> Never:
    raise FormatError(
        f"not a list of members: {why}; 'stargz toc --members' writes them", name
    ) from None


def _text(text: str, name: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        _refuse(name, "its TOC has characters that stand for no bytes")


def _check_digest(text: str, key: str, name: str) -> None:
    if not is_sha256(text):
        _refuse(name, f"{key!r} is not sha256: and 64 lower-case hex digits")


def _members(listed: list[Any], size: int, name: str) -> Members:
    records = bytearray()
    end = 0
    try:
        for offset, length, hexed in listed:
            if (
                type(offset) is not int
                or type(length) is not int
                or type(hexed) is not str
                or offset != end
                or length <= 0
                or len(hexed) != 64
            ):
                raise ValueError
            digest = bytes.fromhex(hexed)
            if len(digest) != 32:
                raise ValueError
            records += _MEMBER.pack(offset, length, digest)
            end += length
    except (ValueError, TypeError, struct.error):
        _refuse(name, f"number {len(records) // _MEMBER.size} of its members is wrong")
    if end != size or size >= 1 << 63:
        _refuse(name, f"its members have {end} bytes, not the {size} of the blob")
    return Members(bytes(records))


def is_list(source: ByteSource) -> bool:
    """Whether this is a list of members, and no blob: those begin otherwise."""
    return source.size > 0 and source.read_at(0, 1) == b"{"


def read_list(source: ByteSource) -> MemberList:
    """The list of members in a source. Raises FormatError."""
    if source.size > SIZE_MAX:
        _refuse(source.name, f"it is larger than {SIZE_MAX >> 30} GiB")
    return MemberList.parse(source.read_at(0, source.size), source.name)


# --- blobs ------------------------------------------------------------------------------


def _check_whole_files(layer: Layer, blob: Blob) -> None:
    """Files that only their own digest vouches for: DigestError where it is another."""
    from stargz._engine.reader import Reader
    from stargz.contents import WholeFile

    rows = layer.toc.rows
    reader = Reader(blob, rows, layer.data_end, False, 1, None)
    for row, digest in rows.whole_digests():
        size = rows.size(row)
        check = WholeFile(rows, row, digest, rows.name(row), layer.name)
        for at in range(0, max(size, 1), _STEP):
            check.update(at, reader.read(row, at, min(_STEP, size - at)))


@contextmanager
def local(layer: Layer) -> Iterator[tuple[Blob, str]]:
    """The blob of a layer for those who read it more than once, and its digest if that fell out:
    what is remote is fetched into an unlinked temporary file."""
    if layer.blob.direct:
        yield layer.blob, ""
        return
    from stargz.sources.forward import ForwardSource
    from stargz.sources.local import LocalSource
    from stargz.sources.spool import Spool

    spool = Spool(layer.name, layer.size, "sha256")
    with ForwardSource(layer.source) as source:
        while spool.size < layer.size:
            piece = source.read_at(spool.size, min(_FETCH, layer.size - spool.size))
            spool.append(piece)
    yield Blob(LocalSource(layer.name, spool.fd, keep=spool)), spool.digest


@contextmanager
def _hashed(blob: Blob, digest: str) -> Iterator[Callable[[], str]]:
    """Hash a blob from front to back while the block runs; then the result."""
    if digest:
        yield lambda: digest
        return
    sha = hashlib.sha256()
    failed: list[BaseException] = []
    stop, ended = threading.Event(), threading.Event()

    def run() -> None:
        source = blob.source
        try:
            for at in range(0, source.size, _STEP):
                if stop.is_set():
                    return
                sha.update(source.read_at(at, min(_STEP, source.size - at)))
        except BaseException as error:
            failed.append(error)
        finally:
            ended.set()

    def wait() -> None:
        # Not by join(): one that is interrupted takes the thread for stopped, and the blob would
        # be closed while it is read.
        interrupted: KeyboardInterrupt | None = None
        while not ended.is_set():
            try:
                ended.wait()
            except KeyboardInterrupt as error:
                interrupted = error
                stop.set()
        if interrupted:
            raise interrupted

    thread = threading.Thread(target=run, name="stargz-digest")
    thread.start()
    try:

        def result() -> str:
            wait()
            if failed:
                raise failed[0]
            return f"sha256:{sha.hexdigest()}"

        yield result
    except BaseException:
        stop.set()
        raise
    finally:
        wait()
