"""A whole registry converted: images side by side, each distinct layer once, and what is done is
known to the next run.

report = bulk("docker://host", "docker://other", state="bulk.db")
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, Unpack

from stargz.errors import (
    ArtifactError,
    RegistryError,
    SourceError,
    StargzError,
    StateError,
    UsageError,
)
from stargz.oci.bulk.discover import Pair, discover
from stargz.oci.bulk.patterns import Filter
from stargz.oci.bulk.places import registry_of
from stargz.oci.bulk.report import BulkReport, Failure, report_target, write_report
from stargz.oci.bulk.state import FAILED, Outcome, State
from stargz.oci.bulk.store import Events, StateStore, layer_key
from stargz.oci.conversion import ImageOptions, check_image, convert_as, parallel
from stargz.oci.convert.layers import LayerOptions, LayerTask, layer_options
from stargz.oci.convert.occupied import ordinary_image, refusal
from stargz.oci.destination import open_destination
from stargz.oci.formats.manifest import TOC_DIGEST, layer_kind
from stargz.oci.formats.reference import Reference, parse_reference
from stargz.oci.registry.access import Access, Creds, shared_client
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.options import AccessOptions, access_of
from stargz.oci.repository import open_repository
from stargz.options import Format, default_threads
from stargz.paths import Name, several, text

_AHEAD = 1000  # images that are found before their turn comes
_MAX_COORDINATORS = 200
_TICK = 0.1  # seconds in which threads that wait see that all ends


def bulk(
    src: str | os.PathLike[str],
    dst: str | None = None,
    *,
    options: LayerOptions | None = None,
    level: int | None = None,
    chunk_size: int | None = None,
    min_chunk_size: int | None = None,
    prioritized: Iterable[Name] = (),
    lossless: bool = False,
    format: Format | None = None,
    platforms: Sequence[str] = (),
    flatten: bool = False,
    allow_missing: bool = False,
    docker_types: bool = False,
    verify: bool = False,
    strict: bool = False,
    upgrade: bool = False,
    force: bool = False,
    access: Access | None = None,
    src_creds: Creds | None = None,
    dest_creds: Creds | None = None,
    state: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    memory: int | None = None,
    max_sparse: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dry_run: bool = False,
    executor: Executor | None = None,
    dask: str | None = None,
    reports: Sequence[str | os.PathLike[str]] = (),
    progress: Events | None = None,
    **registry: Unpack[AccessOptions],
) -> BulkReport:
    """Convert all images of `src`; see the command `stargz image bulk`.

    src, dst, include, exclude, upgrade: see `stargz.oci.bulk.discover.discover`.
    level, chunk_size, min_chunk_size, prioritized, lossless, format, options, platforms, flatten,
        allow_missing, docker_types, verify, strict, force, access and the options by which
        registries are reached: see `stargz.convert_image`, which converts each image.
    src_creds, dest_creds: as there. They are for sources and destinations that name one registry,
        not for a file of references, nor for the workers of a Dask cluster, to which passwords
        would go in the clear.
    state: the file that remembers what is done; nobody else may use it meanwhile. None: nothing
        is remembered.
    jobs, threads: layers that are converted at the same time (default: one for each core, at
        most 8), and the threads of each.
    memory, max_sparse: of each layer, as for `stargz.convert`.
    executor: converts the layers instead, in processes or on other machines; it is not shut down.
        `dask` is the address of a Dask scheduler, or its file, whose workers do.
    dry_run: nothing is written but reports; what there is to do is counted, and listed in `images`.
    reports: files to write at the end, .json or .html, with every image and layer.
    progress: gets the events of `convert_image`, {"event": "layer-failed", "digest"} and, for
        every image, {"event": "found", "images"} and {"event": "image", "source", "destination",
        "status", "error", "seconds"}, from any thread.

    An image that fails is in the report, and the others go on; those that failed for want of
    the network are tried once more at the end. An index of blobs, as BuildKit's cache, is no image,
    and skipped. Raises what keeps all of them from being converted: UsageError, StateError, and
    errors of a source that cannot be listed.
    KeyboardInterrupt ends it at once, and the state knows what was finished.
    """
    src = text(src)
    names = several(prioritized, "prioritized")
    given = LayerOptions(level, chunk_size, min_chunk_size, names, lossless, format)
    options = layer_options(options, given)
    access = access_of(access, registry)
    if executor is not None and dask is not None:
        raise UsageError("an executor and a Dask cluster: only one of them can convert")
    accesses = _accesses(src, dst, upgrade, access, src_creds, dest_creds)
    if dask is not None and (src_creds or dest_creds):
        raise UsageError(
            "--src-creds and --dest-creds do not go to a Dask cluster, which would pass them on in "
            "the clear: have an --authfile where its workers are"
        )
    if executor is None and dask is None:
        jobs, threads = parallel(jobs, threads)
    else:
        threads = threads or 2  # on machines whose cores are not known
    images = ImageOptions(
        options,
        tuple(platforms),
        flatten,
        allow_missing,
        docker_types,
        upgrade,
        verify,
        strict,
        accesses[0],
        threads,
        memory,
        max_sparse,
        force,
        accesses[1],
    )
    with ExitStack() as stack:
        client = stack.enter_context(shared_client(images.access))
        writer = stack.enter_context(shared_client(accesses[1]))
        chosen = Filter(include, exclude)
        found = discover(src, dst, client=client, chosen=chosen, upgrade=upgrade)
        targets = [report_target(path) for path in reports]
        known = stack.enter_context(State(state, read_only=dry_run))
        used = stop = None
        if not dry_run:
            used, stop, jobs = stack.enter_context(_executor(executor, dask, jobs))
        run = _Run(known, client, writer, images, jobs or 1, progress)
        began = time.time()
        begin = time.perf_counter()
        first = next(found, None)
        if first is not None:
            run.reach(first)
            found = chain((first,), found)
        if used is None or stop is None:
            run.dry(found, src)
        else:
            known.begin(src, dst, began)
            writer.uploads = partial(_Uploads, known)
            stack.callback(setattr, writer, "uploads", None)
            run.cancel_uploads()
            run.convert(found, src, used, stop)
        totals = run.totals()
        seconds = time.perf_counter() - begin
        if not dry_run:
            known.end(seconds, totals)
        stale, warnings = run.remarks()
        if run.found_all:
            warnings = (*({"source": src, "warning": text} for text in chosen.unused()), *warnings)
        report = BulkReport(
            source=src,
            destination=dst,
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            seconds=seconds,
            options=_shown(images, jobs or 0, include, exclude),
            totals=totals,
            failures=tuple(
                Failure(one.source, one.destination, one.error or "", one.status)
                for status in FAILED
                for one in known.outcomes(status, reports=False)
            ),
            skipped=tuple(
                Failure(one.source, one.destination, one.error or "")
                for one in known.outcomes("skipped", reports=False)
            ),
            stale=stale,
            warnings=warnings,
            dry_run=dry_run,
            images=tuple(run.entries()) if dry_run else (),
        )
        if targets:
            whole = run.report(report)
            for target in targets:
                write_report(target, whole)
        return report


def _accesses(
    src: str,
    dst: str | None,
    upgrade: bool,
    access: Access | None,
    src_creds: Creds | None,
    dest_creds: Creds | None,
) -> tuple[Access, Access]:
    """How what is read is reached, and what is written."""
    access = access or Access()
    if upgrade:
        dst = dst or src
        src_creds, dest_creds = src_creds or dest_creds, dest_creds or src_creds
    for option, place, creds in ("src", src, src_creds), ("dest", dst, dest_creds):
        if creds is not None and (place is None or Path(place).is_file()):
            raise UsageError(
                f"--{option}-creds is for one registry, and a file of references may name any: log "
                "in (podman login), or give an --authfile"
            )
    return (
        access.with_creds(registry_of(src), src_creds),
        access.with_creds(registry_of(dst) if dst else None, dest_creds),
    )


# --- one run ----------------------------------------------------------------------------


class _Run:
    """The images of a run on their way: found by one thread, converted by several, each of which
    waits for the layers of one image."""

    def __init__(
        self,
        state: State,
        client: RegistryClient,
        writer: RegistryClient,
        images: ImageOptions,
        jobs: int,
        progress: Events | None,
    ) -> None:
        self._state = state
        self._client = client  # of sources
        self._writer = writer  # of destinations
        self._images = images
        # Some have all their layers, and write; some only look.
        self._coordinators = min(2 * jobs + 2, _MAX_COORDINATORS)
        self._progress = progress
        self._stop = threading.Event()
        self._fatal: BaseException | None = None
        self._lock = threading.Lock()
        self._layers: dict[str, int] = {}  # of a dry run
        self._known = 0
        self._dry = False
        self.found_all = False  # of the source, nothing kept it from being listed

    def reach(self, first: Pair) -> None:
        """Raise the error of a destination that cannot be reached at all."""
        if first.error is not None or not first.destination.startswith("docker://"):
            return
        try:
            with open_destination(first.destination, client=self._writer) as destination:
                destination.digest()
        except RegistryError as error:
            if error.status is None:
                raise

    def cancel_uploads(self) -> None:
        """A run that was killed may have left uploads at registries: they are given up."""
        from stargz.oci.registry.sessions import cancel_upload

        for url, repository in self._state.uploads():
            try:
                gone = cancel_upload(self._writer, parse_reference(repository), url)
            except StargzError:
                gone = True  # or the registry will have to find it by itself
            if gone:
                self._state.upload_ended(url)

    def convert(
        self, found: Iterator[Pair], src: str, executor: Executor, stop: Callable[[], object]
    ) -> None:
        """Convert them all, and those once more that the network kept from it."""
        store = StateStore(self._state, executor, self._progress)

        def work(number: int, pair: Pair) -> None:
            self._one(number, pair, store)

        def end() -> None:
            store.stop()
            stop()

        self._all(self._claimed(found, src), work, end)
        again = self._state.transient()
        self._all(
            ((number, Pair(source, destination)) for number, source, destination in again),
            work,
            end,
        )

    def dry(self, found: Iterator[Pair], src: str) -> None:
        """Count what there is to do; nothing is written."""
        self._dry = True
        helpers = ThreadPoolExecutor(8, "stargz-plan")
        try:
            self._all(
                self._claimed(found, src),
                lambda number, pair: self._count(number, pair, helpers),
                lambda: helpers.shutdown(wait=False, cancel_futures=True),
            )
        finally:
            helpers.shutdown(cancel_futures=True)

    # --- threads ------------------------------------------------------------------------

    def _all(
        self,
        pairs: Iterator[tuple[int, Pair]],
        work: Callable[[int, Pair], None],
        end: Callable[[], object],
    ) -> None:
        """Do it for each, in threads; what ends one of them unforeseen, or Ctrl-C, ends all."""
        queue: Queue[tuple[int, Pair] | None] = Queue(_AHEAD)

        def find() -> None:
            for pair in pairs:
                self._put(queue, pair)
            for _ in range(self._coordinators):
                self._put(queue, None)

        def take() -> None:
            while not self._stop.is_set():
                try:
                    item = queue.get(timeout=_TICK)
                except Empty:
                    continue
                if item is None:
                    return
                work(*item)

        def guarded(function: Callable[[], None]) -> None:
            try:
                function()
            except BaseException as error:
                with self._lock:
                    self._fatal = self._fatal or error
                self._stop.set()
                end()

        threads = [
            threading.Thread(target=guarded, args=(function,), name=name, daemon=True)
            for function, name in [(find, "stargz-find")]
            + [(take, f"stargz-bulk-{n}") for n in range(self._coordinators)]
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._stop.set()
            end()
            self._client.close()  # Ctrl-C does not wait for the network
            self._writer.close()
            for thread in threads:
                thread.join()
            raise
        if self._fatal is not None:
            raise self._fatal

    def _put(self, queue: Queue[tuple[int, Pair] | None], item: tuple[int, Pair] | None) -> None:
        while not self._stop.is_set():
            try:
                queue.put(item, timeout=_TICK)
                return
            except Full:
                continue

    def _claimed(self, found: Iterator[Pair], src: str) -> Iterator[tuple[int, Pair]]:
        """Those that can be converted, each destination once."""
        count = 0
        whole = True
        while not self._stop.is_set():
            try:
                pair = next(found, None)
            except (StargzError, OSError) as failed:
                if isinstance(failed, StateError):
                    raise
                # Of the rest nothing is known; what was found is converted all the same.
                pair = Pair(src, "", failed)
            whole = whole and (pair is None or pair.error is None)
            if pair is None:
                self.found_all = whole
                return
            count += 1
            self._tell({"event": "found", "images": count})
            error = pair.error
            names = pair.source + pair.destination
            if error is None and printable(names) != names:
                error = UsageError(f"{printable(pair.source)}: a name that is not UTF-8; rename it")
            first = self._state.claimed(pair.destination) if error is None else None
            if first is not None:
                error = UsageError(
                    f"{pair.source}: its destination {pair.destination} is that of {first} too"
                )
            shown = pair.destination if first is None else ""
            number = self._state.claim(printable(pair.source), printable(shown))
            if error is None:
                yield number, pair
            else:
                again = _is_transient(error) and pair.error is not None and bool(pair.destination)
                self._failed(number, pair, error, 0.0, again)

    # --- one image ----------------------------------------------------------------------

    def _one(self, number: int, pair: Pair, store: StateStore) -> None:
        begin = time.perf_counter()
        try:
            if self._is_done(pair):
                if self._images.verify:
                    check_image(pair.destination, self._images.writing or self._images.access)
                seconds = time.perf_counter() - begin
                self._state.finish(number, "unchanged", seconds)
                self._tell_image(pair, "unchanged", None, seconds)
                return
            report = convert_as(
                self._images,
                pair.source,
                pair.destination,
                store,
                self._progress,
                own=self._own(pair),
            )
        except Exception as error:
            if self._stop.is_set():
                return
            if isinstance(error, StateError):
                raise
            self._failed(number, pair, error, time.perf_counter() - begin, _is_transient(error))
            return
        seconds = time.perf_counter() - begin
        self._state.finish(
            number, report.status, seconds, options=self._images.key, report=report.to_json()
        )
        self._tell_image(pair, report.status, None, seconds)

    def _failed(
        self, number: int, pair: Pair, error: BaseException, seconds: float, again: bool
    ) -> None:
        text = describe(error)
        throttled = isinstance(error, SourceError) and error.throttled
        status = "throttled" if throttled else "failed"
        if isinstance(error, ArtifactError):
            status = "skipped"
        self._state.finish(number, status, seconds, error=text, transient=again)
        self._tell_image(pair, status, text, seconds)

    def _is_done(self, pair: Pair) -> bool:
        """Whether source and destination are what they were when it was converted."""
        known = self._state.image(pair.destination)
        if known is None or known.options != self._images.key or known.source != pair.source:
            return False
        with open_repository(pair.source, client=self._client) as source:
            digest = source.digest()
        if pair.source == pair.destination:  # --upgrade: what was made is the source now
            return digest == known.digest
        if digest != known.source_digest:
            return False
        with open_destination(pair.destination, client=self._writer) as destination:
            return destination.digest() == known.digest and destination.is_whole(known.digest)

    def _own(self, pair: Pair) -> str | None:
        """The digest of what an earlier run wrote to the destination."""
        known = self._state.image(pair.destination)
        return known.digest if known is not None else None

    def _check_free(self, pair: Pair) -> None:
        """Raise what the conversion would."""
        if self._images.force or pair.source == pair.destination:
            return
        with open_destination(pair.destination, client=self._writer) as destination:
            there = ordinary_image(destination, self._own(pair))
            if there is not None:
                raise refusal(destination, there)

    def _count(self, number: int, pair: Pair, helpers: Executor) -> None:
        from stargz.oci.convert.plan import make_plan

        begin = time.perf_counter()
        status = "unchanged"
        try:
            if not self._is_done(pair):
                status = "to do"
                with open_repository(pair.source, client=self._client) as source:
                    plan = make_plan(source, self._images.platforms, helpers)
                self._check_free(pair)
                layers: dict[str, dict[str, Any]] = {}
                for image in plan.images():
                    tars = [one for one in image.manifest.layers if layer_kind(one) == "tar"]
                    flat = self._images.flatten
                    for entries in [tars] if flat and tars else [[one] for one in tars]:
                        task = LayerTask(
                            pair.source,
                            pair.destination,
                            tuple(entries),
                            self._images.layers,
                            flatten=flat,
                        )
                        key = layer_key(task)
                        known = self._state.layer(key) is not None
                        with self._lock:
                            if key.sources not in self._layers:
                                self._known += known
                            size = sum(entry.size for entry in entries)
                            self._layers[key.sources] = 0 if known else size
                        layers[task.made_of] = self._planned(task, known)
                size = sum(layer["source_size"] for layer in layers.values())
                self._state.plan(number, {"size_before": size, "layers": list(layers.values())})
        except Exception as error:
            if self._stop.is_set():
                return
            self._failed(number, pair, error, time.perf_counter() - begin, False)
            return
        self._state.finish(number, status, time.perf_counter() - begin)
        self._tell_image(pair, status, None, time.perf_counter() - begin)

    def _planned(self, task: LayerTask, known: bool) -> dict[str, Any]:
        """A layer as the report of a dry run has it."""
        status = "to convert"
        if known:
            status = "done"
        elif len(task.entries) == 1 and not task.flatten and not task.options.relayout:
            status = "seekable" if TOC_DIGEST in task.entries[0].annotations else status
        return {
            "source_digest": "+".join(entry.digest for entry in task.entries),
            "source_size": sum(entry.size for entry in task.entries),
            "status": status,
        }

    def _tell_image(self, pair: Pair, status: str, error: str | None, seconds: float) -> None:
        self._tell(
            {
                "event": "image",
                "source": pair.source,
                "destination": pair.destination,
                "status": status,
                "error": error,
                "seconds": seconds,
            }
        )

    def _tell(self, event: Mapping[str, Any]) -> None:
        if self._progress is not None:
            self._progress(event)

    # --- the end ------------------------------------------------------------------------

    def totals(self) -> dict[str, int]:
        """See BulkReport."""
        found = self._state.totals()
        if self._dry:
            del found["converted"]
            found["to_do"] = found["images"] - found["unchanged"] - found["skipped"]
            found["to_do"] -= found["failed"] + found["throttled"]
            found["layers"] = len(self._layers)
            found["layers_known"] = self._known
            found["bytes"] = sum(self._layers.values())
        return found

    def remarks(self) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, str], ...]]:
        """Of the images that were converted: what no longer fits them, and what there is to
        know."""
        stale: list[dict[str, Any]] = []
        warnings: list[dict[str, str]] = []
        for outcome in self._state.outcomes("converted"):
            made = outcome.report or {}
            stale += ({**one, "source": outcome.source} for one in made.get("stale", ()))
            warnings += (
                {"source": outcome.source, "warning": text} for text in made.get("warnings", ())
            )
        return tuple(stale), tuple(warnings)

    def report(self, report: BulkReport) -> dict[str, Any]:
        """All of it, for report.write_report."""
        head = report.to_json()
        if not report.dry_run:
            del head["dry_run"]
        return {"version": 1, **head, "images": list(self.entries())}

    def entries(self) -> Iterator[dict[str, Any]]:
        """What became of each image, or would."""
        return map(_image_entry, self._state.outcomes())


class _Uploads:
    """The upload sessions in a repository, told to the state."""

    def __init__(self, state: State, reference: Reference) -> None:
        self._state = state
        self._repository = reference.name

    def began(self, url: str) -> None:
        with suppress(StateError):  # at the worst a session stays
            self._state.upload_began(url, self._repository)

    def ended(self, url: str) -> None:
        with suppress(StateError):
            self._state.upload_ended(url)


def _image_entry(outcome: Outcome) -> dict[str, Any]:
    made = outcome.report or {}
    skipped = outcome.status == "skipped"
    return {
        "source": outcome.source,
        "destination": outcome.destination,
        "status": outcome.status,
        "source_digest": made.get("source_digest"),
        "digest": made.get("digest"),
        "seconds": outcome.seconds,
        "size_before": made.get("size_before", 0),
        "size_after": made.get("size_after", 0),
        "error": None if skipped else outcome.error,
        "stale": made.get("stale", []),
        "warnings": [outcome.error] if skipped else made.get("warnings", []),
        "layers": made.get("layers", []),
    }


def _shown(
    images: ImageOptions, jobs: int, include: Sequence[str], exclude: Sequence[str]
) -> dict[str, Any]:
    """The options as a report has them."""
    layers = asdict(images.layers.filled())
    del layers["allow_missing"]
    names = ("flatten", "docker_types", "verify", "strict", "threads", "upgrade")
    return {
        **layers,
        "prioritized": len(images.layers.prioritized),
        "platforms": list(images.platforms),
        **{name: getattr(images, name) for name in names},
        "jobs": jobs,
        "include": list(include),
        "exclude": list(exclude),
    }


def _is_transient(error: BaseException) -> bool:
    """Whether it may be otherwise in a minute."""
    return isinstance(error, RegistryError) and error.transient


def printable(text: str) -> str:
    """The text without half surrogate pairs, of which hostile JSON and file names can be made."""
    return text.encode("utf-8", "backslashreplace").decode()


def describe(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error, StargzError):
        names = [os.fsdecode(one) for one in (error.filename, error.filename2) if one is not None]
        text = ": ".join([*(str(name) for name in names), error.strerror])
    elif isinstance(error, StargzError | OSError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "out of memory"
    else:
        text = f"{type(error).__name__}: {error} (this is a bug in stargz)"
    return printable(" ".join(text.split()))


@contextmanager
def _executor(
    given: Executor | None, dask: str | None, jobs: int | None
) -> Iterator[tuple[Executor, Callable[[], object], int]]:
    """What converts layers, what ends it at once, and how many it converts at the same time."""
    if given is not None:
        yield given, lambda: None, jobs or default_threads()
        return
    if dask is not None:
        from stargz.oci.bulk.cluster import connect

        with connect(dask) as cluster:
            yield cluster, cluster.cancel, jobs or cluster.threads
        return
    jobs, _ = parallel(jobs, None)
    with ThreadPoolExecutor(jobs, "stargz-layer") as threads:
        yield threads, lambda: threads.shutdown(wait=False, cancel_futures=True), jobs
