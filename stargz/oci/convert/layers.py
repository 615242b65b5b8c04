"""One layer's way from a repository through the engine to a destination.

`convert_layer` is what workers run, in threads, processes or on other machines: its argument
and its result can be pickled, and it opens by itself what it reads and writes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from stargz import opening as _opening
from stargz._engine.write import TarEntries
from stargz.conversion import ConvertResult, convert_as, diff_id
from stargz.errors import FormatError, StargzError, UnindexableError, UsageError
from stargz.footer import Kind, kind_of
from stargz.oci.destination import BlobWriter, Destination, copy_blob, open_destination
from stargz.oci.formats.manifest import TOC_DIGEST, UNCOMPRESSED_SIZE, Descriptor
from stargz.oci.formats.reference import LayoutReference, Reference, parse_image
from stargz.oci.registry.access import Access, shared_client
from stargz.oci.registry.stream import BlobStream
from stargz.oci.repository import Repository, external_entry, open_repository
from stargz.options import (
    DEFAULT_CHUNK_SIZE,
    MAX_TOC_SIZE,
    ConvertOptions,
    Format,
    Level,
    default_level,
)
from stargz.paths import several
from stargz.sources.local import LocalSource
from stargz.sources.spool import Spool, unlinked, unpack

NOT_SEEKABLE = "not seekable"
_WHITEOUTS = "it has whiteouts, which are to be applied"
_PIECE = 1 << 20  # bytes that are copied at a time

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """What decides a layer's bytes; those of stargz.convert. None: not asked for, so the default,
    and a layer that is seekable already may keep what it has."""

    level: Level | None = None
    chunk_size: int | None = None
    min_chunk_size: int | None = None
    prioritized: tuple[str, ...] = ()
    lossless: bool = False
    format: Format | None = None

    def __post_init__(self) -> None:
        # A list is as good, and so are paths.
        object.__setattr__(self, "prioritized", several(self.prioritized, "prioritized"))

    @property
    def relayout(self) -> bool:
        """Whether an option asks for a layout that a seekable layer need not have."""
        return self != LayerOptions()

    @property
    def kept(self) -> Kind | None:
        """The kind of layers that can stay as they are; None if an option asks for a layout that
        they need not have."""
        if not self.relayout:
            return "estargz"
        return "external-toc" if self == LayerOptions(format="external-toc") else None

    def filled(self) -> ConvertOptions:
        """With the defaults; UsageError for what is wrong or contradicts itself. Prioritized
        files may always be missing: they are those of a whole image."""
        format = self.format or "estargz"
        return ConvertOptions(
            default_level(format) if self.level is None else self.level,
            DEFAULT_CHUNK_SIZE if self.chunk_size is None else self.chunk_size,
            self.min_chunk_size or 0,
            self.prioritized,
            True,
            self.lossless,
            format,
        )

    @property
    def key(self) -> str:
        """A short text that is equal for options that give the same bytes (of the same version
        of the package): what a state file knows a converted layer by."""
        fields = {**asdict(self), "prioritized": list(self.prioritized)}
        text = json.dumps([getattr(sys.modules.get("stargz"), "__version__", ""), fields])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def layer_options(options: LayerOptions | None, given: LayerOptions) -> LayerOptions:
    """What a function that takes both has been given: `options`, or each by itself."""
    if options is None:
        return given
    if given.relayout:
        raise UsageError("options has the layout of layers: give it, or level, format and the like")
    return options


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
    already, or NOT_SEEKABLE for one that stays as it is because a TOC cannot hold it: `toc_digest`
    is None then, and the last of the `warnings` tells why."""

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
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    annotations: dict[str, str] = field(default_factory=dict)
    toc_blob: str = ""
    toc_blob_size: int = 0

    @property
    def beside(self) -> tuple[Descriptor, ...]:
        """The blob of its TOC, if that is external."""
        return (Descriptor("", self.toc_blob, self.toc_blob_size),) if self.toc_blob else ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "missing": list(self.missing), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LayerReport:
        """The inverse of to_json."""
        lists = {key: tuple(value.get(key, ())) for key in ("missing", "warnings")}
        return cls(**{**value, **lists})


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
        if self.kept is not None and _may_be_seekable(self.source, entry, self.kept):
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
        del fields["codec"], fields["source_size"]
        warnings = (*self._warnings, *result.warnings)
        return {**fields, "status": "converted", "missing": result.missing, "warnings": warnings}

    # --- keeping ------------------------------------------------------------------------

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
        if kind_of(local) != self.kept:
            return None
        apart = None
        if self.kept == "external-toc":
            apart = external_entry(self.source.external(), entry.digest)
            if apart is None or TOC_DIGEST not in entry.annotations:
                return None  # nothing vouches for what a tag leads to
        try:
            found = self._verify(entry, local, apart)
        except (StargzError, ValueError) as error:
            found = str(error)
        if found is _WHITEOUTS:
            return None
        if isinstance(found, str):
            self._warnings.append(f"its TOC is not trusted, so it was converted again: {found}")
            return None
        file = _descriptor(spool.fd, spool.name)
        found["diff_id"], found["uncompressed_size"] = diff_id(file)
        found["annotations"] = {
            UNCOMPRESSED_SIZE: str(found["uncompressed_size"]),
            TOC_DIGEST: found["toc_digest"],
        }
        self._copy(entry, spool)
        if apart is not None:
            copy_blob(self.source, self.destination, apart)
            found |= {"toc_blob": apart.digest, "toc_blob_size": apart.size}
        return {**found, "digest": entry.digest, "size": entry.size}

    def _verify(
        self, entry: Descriptor, local: LocalSource, apart: Descriptor | None
    ) -> dict[str, Any] | str:
        """What is to be reported of a layer that can be kept; or what is wrong with it. Its TOC may
        be `apart`."""
        from stargz.oci.convert.flatten import is_whiteout

        def tell(done: int, total: int) -> None:
            self._tell(done // 2, 0)

        stated = entry.annotations.get(TOC_DIGEST)
        threads = self.task.threads
        toc = None if apart is None else self.source.read_blob(apart, MAX_TOC_SIZE)
        with _opening.open(
            local, toc=toc, toc_digest=stated, threads=threads, cache=False
        ) as opened:
            if opened.reader.undigested():
                return "not everything in it has a digest"
            if self.task.flatten and any(map(is_whiteout, opened.names())):
                return _WHITEOUTS
            result = opened.verify(tell)
            if not result.ok:
                problem = result.errors[0]
                return f"{problem.name}: {problem.message}" if problem.name else problem.message
            counts = opened.toc.rows.counts()
            return {
                "status": "kept",
                "toc_digest": opened.toc_digest,
                "entries": counts["entries"],
                "chunks": counts["chunks"],
                "level": None,
            }

    def _leave(self, entry: Descriptor, spool: Spool, why: UnindexableError) -> dict[str, Any]:
        """Have the layer at the destination as it is, since a TOC cannot hold it; whatever else is
        wrong with it is an error as ever."""
        tar = unlinked()
        try:
            os.lseek(spool.fd, 0, os.SEEK_SET)
            found, size = unpack(spool.fd, tar, spool.name, self.task.memory)
            entries = sum(1 for _ in TarEntries(tar, size, spool.name, any_type=True))
        finally:
            os.close(tar)
        self._copy(entry, spool)
        where = "" if why.offset is None else f"at offset {why.offset} of the tar, "
        text = f"it stays as it is, since a TOC cannot hold it: {where}{why.message}"
        return {
            "status": NOT_SEEKABLE,
            "digest": entry.digest,
            "size": entry.size,
            "diff_id": found,
            "toc_digest": None,
            "uncompressed_size": size,
            "entries": entries,
            "chunks": 0,
            "level": None,
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


def _descriptor(fd: int, name: str, mode: str = "r") -> io.FileIO:
    """An open file as the engine takes it, from its beginning on."""
    os.lseek(fd, 0, os.SEEK_SET)
    file = io.FileIO(fd, mode, closefd=False)
    file.name = name
    return file


def _sink(writer: BlobWriter) -> Any:
    """A blob's writer as the engine takes it."""
    return writer if writer.fd is None else _descriptor(writer.fd, writer.name, "w")


def _may_be_seekable(source: Repository, entry: Descriptor, kind: Kind) -> bool:
    """Whether it is worth having the whole layer to see if it can be kept: its descriptor or its
    last bytes say that it is one of that kind."""
    if entry.annotations.get(TOC_DIGEST):
        return True
    with suppress(StargzError, OSError), closing(source.open_blob(entry)) as blob:
        return kind_of(blob) == kind
    return False


def bring_blob(source: Repository, destination: Destination, entry: Descriptor) -> None:
    """Have a blob at the destination, byte for byte; checked on its way, if it has to move."""
    origin = parse_image(source.name)
    # A layout's blob is copied, not linked: nobody has looked at its digest.
    if not (isinstance(origin, Reference) and destination.mount_blob(entry, origin)):
        copy_blob(source, destination, entry)
