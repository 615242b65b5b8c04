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
from stargz.conversion import ConvertResult, convert_as, diff_id
from stargz.errors import FormatError, StargzError, UnindexableError, UsageError
from stargz.footer import kind_of
from stargz.oci.convert.keeping import examined, left
from stargz.oci.destination import BlobWriter, Destination, copy_blob, open_destination
from stargz.oci.formats.manifest import (
    TOC_DIGEST,
    UNCOMPRESSED_SIZE,
    Descriptor,
    is_zstd_chunked,
)
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
    is_zstd,
)
from stargz.paths import several
from stargz.sources import ByteSource
from stargz.sources.local import LocalSource
from stargz.sources.spool import Spool

NOT_SEEKABLE = "not seekable"
PLAIN_ZSTD = "zstd"  # the format of layers that were to be zstd:chunked, and cannot be
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
    def kept(self) -> Format | None:
        """The format of layers that can stay as they are; None if an option asks for a layout that
        they need not have, or nothing vouches for them in this format."""
        if self != LayerOptions(format=self.format) or self.format == "stargz":
            return None
        return self.format or "estargz"

    def keeps(self, entry: Descriptor) -> bool:
        """Whether a layer's descriptor says that it is one that can stay as it is."""
        if self.kept is None:
            return False
        chunked = is_zstd_chunked(entry)
        if is_zstd(self.kept):
            return chunked
        return bool(entry.annotations.get(TOC_DIGEST)) and not chunked

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
    if given != LayerOptions():
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
    already, or NOT_SEEKABLE for one that a TOC cannot hold, and that stays as it is or became plain
    zstd: `toc_digest` is None then, and the last of the `warnings` tells why. `format` is that of
    `stargz.convert`, PLAIN_ZSTD, or "" for one that stays as it is."""

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
    format: str = ""

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
        found = {**value, **lists}
        if "annotations" not in found and found.get("toc_digest"):  # of before there were others
            size = str(found.get("uncompressed_size"))
            found["annotations"] = {TOC_DIGEST: found["toc_digest"], UNCOMPRESSED_SIZE: size}
        return cls(**found)

    @property
    def is_other(self) -> bool:
        """Whether a manifest has anything to say of it that it has not said of its source."""
        return self.status != NOT_SEEKABLE or self.format == PLAIN_ZSTD


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
        del fields["codec"], fields["source_size"]
        warnings = list(result.warnings)
        made: dict[str, Any] = {"status": "converted", "missing": result.missing}
        made["format"] = self.task.options.format or "estargz"
        if not result.toc_digest:
            made |= {"status": NOT_SEEKABLE, "format": PLAIN_ZSTD, "toc_digest": None}
            where = _describe(self.source, self.task.entries[0])
            warnings.append(warnings.pop(0).removeprefix(where).lstrip(": "))
        return fields | made | {"warnings": (*self._warnings, *warnings)}

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
            if apart is None or TOC_DIGEST not in entry.annotations:
                return None  # nothing vouches for what a tag leads to
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
        toc = None if apart is None else self.source.read_blob(apart, MAX_TOC_SIZE)
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
        """Have the layer at the destination as it is, since a TOC cannot hold it; whatever else is
        wrong with it is an error as ever."""
        found = left(spool, self.task.memory)
        self._copy(entry, spool)
        where = "" if why.offset is None else f"at offset {why.offset} of the tar, "
        text = f"it stays as it is, since a TOC cannot hold it: {where}{why.message}"
        return {
            **found,
            "status": NOT_SEEKABLE,
            "digest": entry.digest,
            "size": entry.size,
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
