"""One layer's way from a repository through the engine to a destination.

`convert_layer` is what workers run, in threads, processes or on other machines: its argument
and its result can be pickled, and it opens by itself what it reads and writes.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from stargz import opening as _opening
from stargz.conversion import PLAIN_ZSTD, ConvertResult, convert_as, diff_id
from stargz.descriptors import TOC_DIGEST
from stargz.errors import FormatError, StargzError, UnindexableError
from stargz.footer import kind_of
from stargz.oci.convert.keeping import as_gzip, examined, is_zstd_data, left_as_it_is
from stargz.oci.convert.options import LayerOptions
from stargz.oci.destination import BlobWriter, Destination, copy_blob, open_destination
from stargz.oci.formats.manifest import ZSTD_LAYERS, Descriptor, is_zstd_chunked
from stargz.oci.formats.reference import LayoutReference, Reference, parse_image
from stargz.oci.registry.access import Access, shared_client
from stargz.oci.registry.stream import BlobStream
from stargz.oci.repository import Repository, external_entry, open_repository, toc_not_found
from stargz.options import MAX_TOC_SIZE, Level, is_zstd
from stargz.sources import ByteSource, MemorySource
from stargz.sources.local import LocalSource
from stargz.sources.spool import Spool

NOT_SEEKABLE = "not seekable"
PLAIN_GZIP = "gzip"  # the format of layers that were to be eStargz, cannot be, and must not be zstd
_PIECE = 1 << 20  # bytes that are copied at a time

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class LayerTask:
    """One layer to be converted (or, with more `entries`, to be flattened into one). `flatten`
    applies the whiteouts of a single one too."""

    source: str  # docker://..., oci:..., docker-archive:..., storage:...
    destination: str  # docker://... or oci:...
    entries: tuple[Descriptor, ...]  # the lowest first
    options: LayerOptions = field(default_factory=LayerOptions)
    access: Access = field(default_factory=Access)
    threads: int | None = None
    memory: int | None = None
    max_sparse: int | None = None
    flatten: bool = False
    writing: Access | None = None  # of the destination, if it is not `access`
    within: str | None = None  # see open_destination

    @property
    def made_of(self) -> str:
        """A text that is equal for tasks that make a layer of the same ones in the same way, but
        for the options."""
        # The sizes too: an image that states a wrong one must not get, nor spoil, what others
        # share.
        text = "+".join(f"{entry.digest}/{entry.size}" for entry in self.entries)
        return f"{text}+" if self.flatten and len(self.entries) == 1 else text

    @property
    def key(self) -> str:
        """A text that is equal for tasks that make the same layer, wherever it comes from and
        goes."""
        return f"{self.options.key} {self.made_of}"

    def run(self, progress: Callable[[int, int], None] | None = None) -> LayerReport:
        """See `convert_layer`."""
        return convert_layer(self, progress)


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What became of a layer; sizes in bytes. What the result's fields mean is in
    `stargz.conversion.ConvertResult`; `status` is "converted", "kept" for one that was seekable
    already, or NOT_SEEKABLE for one that a TOC cannot hold, and that stays as it is or became plain
    zstd or gzip: `toc_digest` is None then, and `unfit` tells why. `format` is
    that of `stargz.convert`, PLAIN_ZSTD, PLAIN_GZIP, or "" for one that stays as it is."""

    status: str
    source_digest: str
    source_size: int
    digest: str
    size: int
    diff_id: str
    toc_digest: str | None
    uncompressed_size: int
    entries: int
    chunks: int
    level: Level | None
    seconds: float
    annotations: dict[str, str]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    toc_blob: str = ""
    toc_blob_size: int = 0
    format: str = ""
    unfit: str = ""
    codec: str = ""

    @property
    def beside(self) -> tuple[Descriptor, ...]:
        """The blob of its TOC, if that is external."""
        return (Descriptor("", self.toc_blob, self.toc_blob_size),) if self.toc_blob else ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "missing": list(self.missing), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LayerReport:
        """The inverse of to_json; TypeError for what is none, such as one of an earlier build."""
        lists = {key: tuple(value.get(key, ())) for key in ("missing", "warnings")}
        return cls(**{**value, **lists})

    @property
    def is_other(self) -> bool:
        """Whether a manifest has anything to say of it that it has not said of its source."""
        return self.status != NOT_SEEKABLE or self.format in (PLAIN_ZSTD, PLAIN_GZIP)


def convert_layer(
    task: LayerTask, progress: Callable[[int, int], None] | None = None
) -> LayerReport:
    """Convert one layer, and have it at the destination under its digest.

    `progress` gets (bytes done, bytes in all) of the compressed input, and ends the conversion by
    raising. Raises StargzError and OSError; nothing is left at the destination then.
    """
    begin = time.perf_counter()
    with ExitStack() as stack:
        client = stack.enter_context(shared_client(task.access))
        source = stack.enter_context(open_repository(task.source, client=client))
        writer = stack.enter_context(shared_client(task.writing or task.access))
        opened = open_destination(task.destination, client=writer, within=task.within)
        destination = stack.enter_context(opened)
        work = _Work(task, source, destination, progress or (lambda done, total: None))
        report = work.run()
        report["seconds"] = time.perf_counter() - begin
    return LayerReport(
        source_digest="+".join(entry.digest for entry in task.entries),
        source_size=work.size,
        **report,
    )


class _Work:
    """One task, with what it reads and writes open."""

    def __init__(
        self, task: LayerTask, source: Repository, destination: Destination, progress: Progress
    ) -> None:
        self.task = task
        self.source = source
        self.destination = destination
        self.size = sum(entry.size for entry in task.entries)
        self.kept = task.options.kept
        self._progress = progress
        self._warnings: list[str] = []
        self._read = 0
        self._writers: list[BlobWriter] = []

    def run(self) -> dict[str, Any]:
        """The report's fields."""
        entries = self.task.entries
        if len(entries) > 1:
            return self._flatten(entries)
        (entry,) = entries
        spool = None
        if self.kept is not None and self._may_be_kept(entry):
            spool = self._fetch(entry)
            if kept := self._keep(entry, spool):
                return kept
        if self.task.flatten:
            return self._flatten(entries)
        try:
            return self._convert(entry, spool)
        except UnindexableError as error:
            return self._leave(entry, spool or self._fetch(entry), error)

    # --- converting ---------------------------------------------------------------------

    def _convert(self, entry: Descriptor, spool: Spool | None = None) -> dict[str, Any]:
        where = _describe(self.source, entry)
        with ExitStack() as stack:
            if spool is not None:
                result = self._engine(_descriptor(spool.fd, where), stack)
            else:
                with closing(self.source.stream_blob(entry)) as stream, explained([stream]):
                    result = self._engine(Input(where, stream), stack)
                    stream.finish()
            self._commit(result)
        return self._converted(result)

    def _flatten(self, entries: Sequence[Descriptor]) -> dict[str, Any]:
        from stargz.oci.convert.flatten import merged_tar

        with ExitStack() as stack:
            streams = [
                stack.enter_context(closing(self.source.stream_blob(entry))) for entry in entries
            ]
            stack.enter_context(explained(streams))
            inputs = [
                Input(_describe(self.source, entry), stream, self._told)
                for entry, stream in zip(entries, streams, strict=True)
            ]
            tar = stack.enter_context(merged_tar(inputs, lone_as_is=True, memory=self.task.memory))
            name = f"{self.source.name}: its layers merged" if len(inputs) > 1 else inputs[0].name
            result = self._engine(Input(name, tar), stack)
            for stream in streams:
                stream.finish()
            self._commit(result)
        return self._converted(result)

    def _told(self, size: int) -> None:
        self._read += size
        self._tell(0, 0)

    def _engine(self, source: Any, stack: ExitStack) -> ConvertResult:
        task, options = self.task, self.task.options.filled()
        count = 2 if options.format == "external-toc" else 1
        self._writers = [stack.enter_context(self.destination.writer()) for _ in range(count)]
        sink, *toc = map(_sink, self._writers)
        limits = task.memory, task.max_sparse
        return convert_as(
            options,
            source,
            sink,
            task.threads,
            self._tell,
            *limits,
            toc_out=toc[0] if toc else None,
        )

    def _commit(self, result: ConvertResult) -> None:
        """What `_engine` wrote; an external TOC before the layer."""
        digests = result.digest, result.toc_blob
        for writer, digest in reversed(list(zip(self._writers, digests, strict=False))):
            writer.commit(digest)

    def _tell(self, done: int, total: int) -> None:
        # What is read a second time, or merged, is counted behind what was read.
        self._progress(min(self._read // 2 + done, self.size), self.size)

    def _converted(self, result: ConvertResult) -> dict[str, Any]:
        fields = result.to_json()
        del fields["source_size"]
        made: dict[str, Any] = {"status": "converted", "missing": result.missing}
        if result.format == PLAIN_ZSTD:
            made |= {"status": NOT_SEEKABLE, "toc_digest": None}
        return fields | made | {"warnings": (*self._warnings, *result.warnings)}

    # --- keeping ------------------------------------------------------------------------

    def _may_be_kept(self, entry: Descriptor) -> bool:
        """Whether it is worth having the whole layer to see if it can be kept: its descriptor or
        its last bytes say that it is of the format that is wanted."""
        if self.task.options.keeps(entry):
            return True
        with suppress(StargzError, OSError), closing(self.source.open_blob(entry)) as blob:
            return self._is_kept_kind(blob)
        return False

    def _is_kept_kind(self, blob: ByteSource) -> bool:
        """Whether a blob ends as those do that can stay; both dialects of zstd:chunked may."""
        zstd = self.kept is not None and is_zstd(self.kept)
        return kind_of(blob) == ("zstd:chunked" if zstd else self.kept)

    def _fetch(self, entry: Descriptor) -> Spool:
        """The whole layer, checked, in an unlinked file."""
        spool = Spool(_describe(self.source, entry), entry.size)
        with closing(self.source.stream_blob(entry)) as stream:
            while piece := stream.read(_PIECE):
                spool.append(piece)
                self._told(len(piece))
        return spool

    def _keep(self, entry: Descriptor, spool: Spool) -> dict[str, Any] | None:
        """Have the layer as it is at the destination, if its TOC tells the truth about it."""
        local = LocalSource(spool.name, spool.fd, keep=spool)
        # Of old layers of containers/storage the annotations alone tell.
        chunked = is_zstd_chunked(entry) and self.task.options.keeps(entry)
        if not (chunked or self._is_kept_kind(local)):
            return None
        apart = None
        if self.kept == "external-toc":
            apart = external_entry(self.source.external(), entry.digest)
            why = "" if apart is not None else toc_not_found(self.source)
            if TOC_DIGEST not in entry.annotations:  # nothing vouches for what a tag leads to
                why = f"it has no annotation {TOC_DIGEST} to check its TOC by"
            if why:
                self._warnings.append(f"{why}: it was converted again")
                return None
        try:
            found = self._verify(entry, local, apart)
        except (StargzError, ValueError) as error:
            found = str(error)
        if isinstance(found, str):
            self._warnings.append(f"its TOC is not trusted, so it was converted again: {found}")
        if found is None or isinstance(found, str):
            return None
        self._copy(entry, spool)
        if apart is not None:
            copy_blob(self.source, self.destination, apart)
            found |= {"toc_blob": apart.digest, "toc_blob_size": apart.size}
        return {**found, "digest": entry.digest, "size": entry.size}

    def _verify(
        self, entry: Descriptor, local: LocalSource, apart: Descriptor | None
    ) -> dict[str, Any] | str | None:
        """See `keeping.examined`. Its TOC may be `apart`."""
        format, threads = self.kept, self.task.threads
        assert format is not None
        stated = entry.annotations.get(TOC_DIGEST)
        annotations = entry.annotations if is_zstd(format) else None
        toc = None
        if apart is not None:
            name = self.source.external_name or self.source.name
            toc = MemorySource(self.source.read_blob(apart, MAX_TOC_SIZE), name)
        with _opening.open(
            local,
            toc=toc,
            toc_digest=stated,
            threads=threads,
            cache=False,
            annotations=annotations,
        ) as opened:
            return examined(
                opened,
                format,
                lambda: diff_id(_descriptor(local.fd, local.name)),
                lambda done, total: self._tell(done // 2, 0),
                flatten=self.task.flatten,
            )

    def _leave(self, entry: Descriptor, spool: Spool, why: UnindexableError) -> dict[str, Any]:
        """Have the layer at the destination as it is, or in plain gzip, since a TOC cannot hold it;
        whatever else is wrong with it is an error as ever."""
        made = {"digest": entry.digest, "size": entry.size}
        zstd = entry.media_type in ZSTD_LAYERS or is_zstd_data(spool)
        if self.task.options.gzip and zstd:
            with self.destination.writer() as writer:
                tell = lambda: self._tell(0, 0)  # noqa: E731
                found = as_gzip(spool, self.task.memory, writer.write, tell)
                made = {"digest": found["digest"], "size": found["size"], "format": PLAIN_GZIP}
                writer.commit(found["digest"])
        else:
            found = left_as_it_is(spool, self.task.memory)
            self._copy(entry, spool)
        where = "" if why.offset is None else f"at offset {why.offset} of the tar, "
        becomes = "becomes plain gzip" if "format" in made else "stays as it is"
        unfit = f"{where}{why.message}"
        text = f"it {becomes}, since a TOC cannot hold it: {unfit}"
        return {
            **found,
            **made,
            "status": NOT_SEEKABLE,
            "unfit": unfit,
            "missing": self.task.options.prioritized,
            "warnings": (*self._warnings, text),
        }

    def _copy(self, entry: Descriptor, spool: Spool) -> None:
        origin = parse_image(self.task.source)
        can_mount = isinstance(origin, (Reference, LayoutReference))
        if can_mount and self.destination.mount_blob(entry, origin):  # or it is there
            return
        if self.destination.has_blob(entry):
            return
        with self.destination.writer(entry.size) as writer:
            at = 0
            while at < spool.size:
                piece = spool.read(at, min(_PIECE, spool.size - at))
                writer.write(piece)
                at += len(piece)
                self._tell(self.size, 0)
            writer.commit(entry.digest)


class Input:
    """A stream under the name that errors are to give; `told` gets the sizes of what is read."""

    def __init__(self, name: str, stream: Any, told: Callable[[int], object] | None = None) -> None:
        self.name = name
        self._stream = stream
        self._told = told

    def read(self, size: int = -1, /) -> bytes:
        """See BlobStream.read."""
        piece: bytes = self._stream.read(size)
        if self._told is not None:
            self._told(len(piece))
        return piece


@contextmanager
def explained(streams: Sequence[BlobStream]) -> Iterator[None]:
    """What cannot be decoded may be other bytes than those that were asked for: that they do not
    have their digest is then the error."""
    try:
        yield
    except FormatError:
        for stream in streams:
            stream.finish()
        raise


def _describe(source: Repository, entry: Descriptor) -> str:
    """What errors call a layer."""
    return f"{source.name}: layer {entry.digest}"


def _descriptor(fd: int | None, name: str, mode: str = "r") -> io.FileIO:
    """An open file as the engine takes it, from its beginning on."""
    assert fd is not None
    os.lseek(fd, 0, os.SEEK_SET)
    file = io.FileIO(fd, mode, closefd=False)
    file.name = name
    return file


def _sink(writer: BlobWriter) -> Any:
    """A blob's writer as the engine takes it."""
    return writer if writer.fd is None else _descriptor(writer.fd, writer.name, "w")


def bring_blob(source: Repository, destination: Destination, entry: Descriptor) -> None:
    """Have a blob at the destination, byte for byte; checked on its way, if it has to move."""
    origin = parse_image(source.name)
    # A layout's blob is copied, not linked: nobody has looked at its digest.
    if not (isinstance(origin, Reference) and destination.mount_blob(entry, origin)):
        copy_blob(source, destination, entry)
