"""Which index an ordinary tar.gz, tar or tar.zst is read by: one that was given, one that lies
beside it, one that was kept, or a new one."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stargz._engine.index import Foreign, Index, load, load_foreign, load_ztoc
from stargz.compressions import compression, is_tar_header
from stargz.digests import Hashed, digest_of
from stargz.ending import without_footer
from stargz.errors import (
    DigestError,
    FooterError,
    IndexFileError,
    StargzError,
    UnindexedError,
    UnverifiedError,
    UsageError,
)
from stargz.logs import logger
from stargz.options import INDEX_SUFFIX, is_given
from stargz.sources import ByteSource, FileObjectSource, Source, as_source
from stargz.sources.base import BESIDE, is_direct

if TYPE_CHECKING:
    from stargz.cache import Cache
    from stargz.indexing import Progress

# What an index can be given as: its file, itself, or what to do where there is none.
IndexSource = Source | Index | Literal["build", False] | None

_MAGIC = b"SGZINDEX"  # of ours
_ROOM = 64 << 20  # how much larger than its blob an index may be that nobody named
_PIECE = 16 << 20  # what is larger is not in memory twice
_HEAD = 512  # bytes by which a tar is known, compressed or not
_PEEK = 4096  # compressed ones that are enough for these
# Times of files are those of the kernel's clock, which ticks in steps of up to 10 ms: a file that
# is written to within one has the same times as before.
_TICK_NS = 20_000_000
_SECOND_NS = 1_000_000_000
# What decompresses others.
_PROGRAMS = {"bzip2": "bzip2", "xz": "xz", "lz4": "lz4", "lzip": "lzip", "compress": "gzip"}
# What begins so, for those who give something else.
_OTHERS = {
    b"PK\x03\x04": "it is a zip archive",
    b"7z\xbc\xaf\x27\x1c": "it is a 7z archive",
    _MAGIC: "it is an index, of another file (--index takes it)",
}
# What the files of indexes hash to that this process made of blobs of known digests, and kept.
_made: dict[tuple[str, str], str] = {}
_MAX_MADE = 10_000
# What zstd itself writes has one frame, which is not told without decoding all of it.
IF_FRAMES = (
    " (of several frames, or small: a large one of a single frame has to be converted, 'stargz "
    "convert')"
)
_KINDS = {"gzip": "tar.gz", "zstd": "tar.zst", "none": "tar"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What index is asked for: see `stargz.open`, and `stargz.opening.open_as`."""

    index: IndexSource = None
    index_digest: str | None = None
    blob_digest: str | None = None
    toc_digest: str | None = None
    require_verified: bool = False
    max_size: int = 1 << 30
    cache: Cache | str | os.PathLike[str] | bool | None = None
    threads: int | None = None
    progress: Progress | None = None

    @property
    def given(self) -> bool:
        """Whether it is a file, which alone will do."""
        return is_given(self.index)


@dataclass(frozen=True, slots=True)
class Found:
    """An index, and whether it is known to be true: it was made here, or has the digest that was
    asked for. What another one says has to be compared with the blob."""

    index: Index
    vouched: bool


def find(blob: ByteSource, wanted: Wanted) -> Found:
    """The index to read a blob by. One that is given as an Index is of somebody else's.

    Raises UnindexedError where there is none, and none may be made unasked; FooterError for what
    is no tar; IndexFileError for one that was given and is none, or of another blob; DigestError
    and UnverifiedError.
    """
    if wanted.given:
        if isinstance(wanted.index, Index) and wanted.index_digest is not None:
            raise UsageError(
                f"{blob.name}: index_digest (--index-digest) is that of an index's file, and index "
                "is none"
            )
        if wanted.require_verified and not (wanted.index_digest or wanted.toc_digest):
            raise UnverifiedError(
                f"{blob.name}: require_verified (--require-verified) needs index_digest "
                "(--index-digest): without it nothing vouches for the index"
            )
        return _given(blob, wanted)
    if wanted.index_digest is not None or not wanted.require_verified:
        found = _sibling(blob, wanted)
        if found is not None:
            return found
    # Nothing vouches for a file in the cache, either: where all must be verified, `read` takes only
    # what this process made.
    place = _Place(blob, wanted)
    made = place.read()
    if made is None:
        _may_be_made(blob, wanted)
        made = place.make()
    return Found(made, True)


def compression_of(blob: ByteSource) -> str | None:
    """How a tar is compressed that begins as the blob does: "gzip", "zstd" or "none"; None for
    what is no tar."""
    return _compression_of(blob.read_at(0, min(blob.size, _HEAD)))


def _compression_of(head: bytes) -> str | None:
    kind = compression(head)
    if kind in ("gzip", "zstd"):
        return kind
    empty = head == bytes(_HEAD)
    return "none" if empty or is_tar_header(head) else None


def begins_as_tar(blob: ByteSource) -> bool:
    """Whether it is most likely an ordinary tar, also a compressed one: so much of it is looked at
    as tells. One of zstd is known by its name alone."""
    head = blob.read_at(0, min(blob.size, _PEEK))
    kind = _compression_of(head[:_HEAD])
    if kind == "gzip":
        try:
            head = zlib.decompressobj(31).decompress(head, _HEAD)
        except zlib.error:
            return False
        return is_tar_header(head) or head == bytes(_HEAD)
    if kind == "zstd":
        return blob.name.endswith((".tar.zst", ".tar.zstd", ".tzst"))
    return kind is not None


def what_it_is(head: bytes) -> str:
    """Of what begins so, and is no tar: what it is, and what to do."""
    if not head:
        return "it is empty"
    kind = compression(head)
    if kind in _PROGRAMS:
        return f"it is compressed by {kind}; decompress it ({_PROGRAMS[kind]} -d)"
    for magic, told in _OTHERS.items():
        if head.startswith(magic):
            return told
    return "its first bytes are of none of these"


def check_tar(blob: ByteSource) -> str:
    """How a tar is compressed, by its first bytes; FooterError for what is none."""
    kind = compression_of(blob)
    if kind is None:
        why = what_it_is(blob.read_at(0, min(blob.size, _HEAD)))
        raise FooterError(f"no seekable layer, and no tar, tar.gz or tar.zst: {why}", blob.name)
    return kind


def _may_be_made(blob: ByteSource, wanted: Wanted) -> None:
    """Refuse to fetch all of what is far away, or what is no tar."""
    kind = check_tar(blob)
    here = _is_local(blob) or getattr(blob, "at_hand", 0) >= blob.size  # it has come whole
    if wanted.index is not False and (here or wanted.index == "build"):
        return
    if wanted.index is not False and (lost := without_footer(blob)):
        raise FooterError(lost, blob.name)
    if wanted.require_verified:
        lacks = "no index of it that is verified: one that was kept is not enough"
        names = "index and index_digest (--index, --index-digest) name one"
    else:
        lacks, names = "no index of it", "index (--index) names one"
    if wanted.index is False:  # `stargz info` makes none, nor does who asked for that
        makes = "'stargz index' makes one"
    else:
        makes = 'index="build" (--build-index) reads it once to make one'
    raise UnindexedError(
        f"an ordinary {_KINDS[kind]} of {blob.size:,} bytes, and there is {lacks}: {makes}, {names}"
        f"{IF_FRAMES if kind == 'zstd' else ''}",
        blob.name,
    )


def _is_local(blob: ByteSource) -> bool:
    """Whether it is a file, memory, or a file object, which its owner has opened to be read."""
    return is_direct(blob) or isinstance(blob, FileObjectSource)


# --- files ------------------------------------------------------------------------------


def _given(blob: ByteSource, wanted: Wanted) -> Found:
    source = wanted.index
    if isinstance(source, Index):
        _check_fits(source, blob.name, blob, wanted.blob_digest)
        return Found(source, False)
    client = getattr(blob, "client", None)  # whose connection may serve both
    opened = as_source(source, client=client, tail=BESIDE)  # type: ignore[arg-type]
    try:
        return _read(opened, blob, wanted)
    finally:
        if opened is not source:
            opened.close()


def _sibling(blob: ByteSource, wanted: Wanted) -> Found | None:
    beside: Callable[[str], ByteSource | None] | None = getattr(blob, "beside", None)
    try:
        opened = None if beside is None else beside(INDEX_SUFFIX)
        if opened is not None:
            with closing(opened):
                if wanted.index_digest is None:
                    _check_owner(opened, blob)
                    _check_size(opened, blob)
                    _check_age(opened, blob)
                return _read(opened, blob, wanted)
    except (StargzError, OSError) as error:
        if wanted.index_digest is not None:
            raise
        text: object = error
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.filename or blob.name + INDEX_SUFFIX}: {error.strerror}"
        logger().warning("%s; this index is not used", text)
    if wanted.index_digest is not None:
        raise UsageError(
            f"{blob.name}: index_digest (--index-digest) is of an index, and there is none: give "
            "it as index (--index)"
        )
    return None


def _check_owner(file: ByteSource, blob: ByteSource) -> None:
    """An index can forge what it is of (docs/indexes.md), and many may write where a file of mine
    lies: /tmp. So nobody's index is taken unasked who could not write the blob."""
    owner = _owner(file)
    if owner not in (None, 0, os.geteuid(), _owner(blob)):
        raise IndexFileError(
            f"it belongs to another user ({owner}) than the blob: name it (--index) if it is to "
            "be used",
            file.name,
        )


def _check_size(file: ByteSource, blob: ByteSource) -> None:
    if file.size > blob.size + _ROOM:
        raise IndexFileError(
            f"{file.size:,} bytes are many for the index of {blob.size:,}: name it (--index) if it "
            "is to be used",
            file.name,
        )


def _check_age(file: ByteSource, blob: ByteSource) -> None:
    """What has no contents is compared with nothing, so one of an earlier SRC would show its links
    and modes. (A time of whole seconds is all that some file systems keep.)"""
    one, other = _status(file), _status(blob)
    if one is None or other is None:
        return
    made, changed = one.st_mtime_ns, other.st_mtime_ns
    if made % _SECOND_NS == 0:
        changed -= changed % _SECOND_NS
    if made < changed:
        raise IndexFileError(
            f"it is older than {blob.name}: make it again ('stargz index --force {blob.name}') or "
            "name it (--index)",
            file.name,
        )


def _status(source: ByteSource) -> os.stat_result | None:
    """That of a file."""
    fd = getattr(source, "fd", None)
    if fd is not None:
        return os.fstat(fd)
    return os.stat(source.name) if getattr(source, "named", None) is not None else None  # noqa: PTH116


def _owner(source: ByteSource) -> int | None:
    info = _status(source)
    return None if info is None else info.st_uid


def _read(file: ByteSource, blob: ByteSource, wanted: Wanted) -> Found:
    """The index in a file, which must be of this blob."""
    last = min(file.size, BESIDE)
    if file.size > wanted.max_size:
        raise IndexFileError(
            f"{file.size} bytes are more than an index may have, {wanted.max_size}; max_toc_size "
            "(--max-toc-size) allows more",
            file.name,
        )
    data: bytes | bytearray
    if _is_local(file):
        data = file.read_at(0, file.size)
    elif file.size > _PIECE:
        data = bytearray()
        for at in range(0, file.size, _PIECE):
            data += file.read_at(at, min(_PIECE, file.size - at))
    else:  # its last bytes came with its size
        data = b"".join(file.read_ranges([(0, file.size - last), (file.size - last, last)]))
    if wanted.index_digest is not None:
        actual = digest_of(data)
        if actual != wanted.index_digest:
            raise DigestError("the index", wanted.index_digest, actual, file.name)
    foreign = None if data.startswith(_MAGIC) else load_foreign(data, name=file.name)
    if foreign is not None:
        return Found(_made_of(foreign, data, file.name, blob, wanted), True)
    made = _parse(data, file.name, blob, wanted)
    made.file = file.name
    _check_fits(made, file.name, blob, wanted.blob_digest)
    return Found(made, wanted.index_digest is not None)


def _made_of(
    foreign: Foreign, data: bytes | bytearray, name: str, blob: ByteSource, wanted: Wanted
) -> Index:
    """The index with the entry points of one of indexed_gzip or bgzip, which says no more than
    these."""
    if foreign.size not in (0, blob.size):
        raise _misfit(foreign.size, name, blob)
    place = _Place(blob, wanted, foreign, f" by {digest_of(data)}")
    made = place.read()
    if made is None:
        if not _is_local(blob):
            raise UnindexedError(
                f"{name} says where decompression can begin, and nothing of what is there: of "
                f'{blob.size:,} bytes all have to be read; index="build" (--build-index) does that',
                blob.name,
            )
        made = place.make()
    return made


def _parse(data: bytes | bytearray, name: str, blob: ByteSource, wanted: Wanted) -> Index:
    """An index of ours, or a ztoc, by its first bytes."""
    if data.startswith(_MAGIC):
        return load(data, name=name, max_toc_size=wanted.max_size)
    if not data:
        raise IndexFileError("it is empty, and no index", name)
    kind = _compression_of(bytes(data[:_HEAD]))
    if kind is not None:
        raise IndexFileError(
            f"it begins as a {_KINDS[kind]}, and is no index: 'stargz index' makes one of it", name
        )
    try:
        return load_ztoc(data, name=name, blob_size=blob.size)
    except IndexFileError as error:
        if name.endswith(".ztoc"):
            raise
        raise IndexFileError(
            "no index that is known: neither of 'stargz index' nor of SOCI, indexed_gzip or bgzip "
            f"({error.message})",
            name,
        ) from None


def _check_fits(made: Index, name: str, blob: ByteSource, blob_digest: str | None) -> None:
    if made.size != blob.size:
        raise _misfit(made.size, name, blob)
    if blob_digest is not None and made.digest not in ("", blob_digest):
        raise IndexFileError(
            f"the index of the blob {made.digest}, not of {blob_digest}: make it again ('stargz "
            "index')",
            name,
        )


def _misfit(size: int, name: str, blob: ByteSource) -> IndexFileError:
    return IndexFileError(
        f"the index of a blob of {size:,} bytes, and {blob.name} has {blob.size:,}: make it again "
        "('stargz index')",
        name,
    )


# --- the cache --------------------------------------------------------------------------


class _Place:
    """Where the index of a blob is kept: nowhere if nothing says what the blob is in another
    process, or nothing is to be kept."""

    def __init__(
        self, blob: ByteSource, wanted: Wanted, foreign: Foreign | None = None, by: str = ""
    ) -> None:
        self._blob = blob
        self._wanted = wanted
        self._foreign = foreign  # whose entry points are taken
        self._by = by  # what tells it from another
        self._cache: Cache | None = None
        if wanted.cache is not False and self._identity() is not None:
            from stargz.cache import as_cache

            self._cache = as_cache(wanted.cache)

    def _identity(self) -> tuple[str, str] | None:
        if self._wanted.blob_digest is not None:
            return self._wanted.blob_digest + self._by, ""
        name, version = getattr(self._blob, "identity", None) or ("", "")
        return (name + self._by, version) if name else None

    def read(self) -> Index | None:
        """What was kept; None if there is nothing that is of use. Where all must be verified, that
        is what this process made."""
        identity = self._identity()
        data = self._cache.index(*identity) if self._cache and identity else None
        if data is None or identity is None:
            return None
        if self._wanted.require_verified and digest_of(data) != _made.get(identity):
            return None
        assert self._cache is not None
        try:
            made = load(data, name=self._cache.path)
            _check_fits(made, self._cache.path, self._blob, self._wanted.blob_digest)
        except IndexFileError as error:
            logger().info("%s; it is made anew", error)
            return None
        return made

    def make(self) -> Index:
        """A new one, which is kept."""
        from stargz.indexing import build

        blob, wanted = self._blob, self._wanted
        _let_settle(blob)
        identity = self._identity()
        made = build(blob, threads=wanted.threads, progress=wanted.progress, wanted=self._foreign)
        if wanted.blob_digest is not None and made.digest != wanted.blob_digest:
            raise DigestError("the blob", wanted.blob_digest, made.digest, blob.name)
        lost = without_footer(blob)
        for note in (*made.notes, *([lost] if lost else [])):
            logger().warning("%s: %s", blob.name, note)
        if self._cache is not None and identity is not None and identity == self._identity():
            kept = self._keep(self._cache, identity, made)
            logger().info(
                "%s: %s in %s spans, %s", blob.name, f"{made.entries:,} entries",
                f"{made.spans:,}", "kept in the cache" if kept else "not kept",
            )  # fmt: skip
        return made

    def _keep(self, cache: Cache, identity: tuple[str, str], made: Index) -> bool:
        if self._wanted.blob_digest is None:  # of what is no layer of an image
            return cache.keep_index(*identity, made.dump)
        digests: list[str] = []

        def write(put: Callable[[bytes], object]) -> None:
            out = Hashed(put)
            made.dump(out.write)
            digests.append(out.digest)

        kept = cache.keep_index(*identity, write)
        if kept:
            if len(_made) >= _MAX_MADE:
                _made.clear()
            _made[identity] = digests[-1]
        return kept


def _let_settle(blob: ByteSource) -> None:
    """Wait until whatever is written to a file changes its times."""
    info = _status(blob)
    if info is not None:
        age = time.time_ns() - info.st_ctime_ns
        if 0 <= age < _TICK_NS:
            time.sleep((_TICK_NS - age) / 1e9)
