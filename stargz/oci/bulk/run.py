"""A whole registry converted or indexed: images side by side, each distinct layer once, and what
is done is known to the next run.

report = bulk("docker://host", "docker://other", state="bulk.db")
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

from stargz.errors import (
    SourceError,
    StargzError,
    StateError,
    UsageError,
)
from stargz.oci.bulk.discover import Pair, discover
from stargz.oci.bulk.dry_run import DryRun
from stargz.oci.bulk.images import Images, is_transient
from stargz.oci.bulk.making import Converting, Indexing, Making
from stargz.oci.bulk.patterns import Filter
from stargz.oci.bulk.places import registry_of
from stargz.oci.bulk.report import BulkReport, Failure, report_target, write_report
from stargz.oci.bulk.state import FAILED, Outcome, State
from stargz.oci.bulk.store import Events, StateStore
from stargz.oci.conversion import ImageOptions
from stargz.oci.convert.call import parallel
from stargz.oci.convert.options import LayerOptions, layer_options
from stargz.oci.formats.reference import Reference, parse_reference
from stargz.oci.formats.soci import Version
from stargz.oci.registry.access import Access, Creds, shared_client
from stargz.oci.registry.options import AccessOptions, access_of
from stargz.oci.soci.images import MIN_LAYER_SIZE, IndexOptions
from stargz.options import Format, Level, check_jobs, default_threads, thread_count
from stargz.paths import Name, several, text


def bulk(
    src: str | os.PathLike[str],
    dst: str | None = None,
    *,
    options: LayerOptions | None = None,
    level: Level | None = None,
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
    both: bool = False,
    upgrade: bool = False,
    index: bool = False,
    soci_version: Version | None = None,
    min_layer_size: int | None = None,
    span_size: int | None = None,
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
    """Convert all images of `src`, or, with `index`, make SOCI indexes of them; see the command
    `stargz image bulk`.

    src, dst, include, exclude, upgrade: see `stargz.oci.bulk.discover.discover`.
    level, chunk_size, min_chunk_size, prioritized, lossless, format, options, platforms, flatten,
        allow_missing, docker_types, verify, strict, both, force, access and the options by which
        registries are reached: see `stargz.convert_image`, which converts each image.
    index: make indexes, as `stargz.index_image` does of each image, whose layers stay as they are;
        soci_version (default: 2), min_layer_size (10 MiB), span_size: see there. Version 1 needs no
        `dst`. With it nothing is converted, and no option of conversions is taken.
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
    and skipped. Raises what keeps all of them from being converted: UsageError, StateError, OSError
    of reports that cannot be written, and errors of a source that cannot be listed.
    KeyboardInterrupt ends it at once, and the state knows what was finished.
    """
    src = text(src)
    names = several(prioritized, "prioritized")
    platforms = several(platforms, "platforms (--platform)")
    given = LayerOptions(level, chunk_size, min_chunk_size, names, lossless, format)
    options = layer_options(options, given)
    access = access_of("bulk", access, registry)
    version = (soci_version or 2) if index else None
    stays = dst is None and version == 1 and not upgrade
    if executor is not None and dask is not None:
        raise UsageError("an executor and a Dask cluster: only one of them can convert")
    reading, writing = _accesses(src, dst, upgrade or stays, access, src_creds, dest_creds)
    if dask is not None and (src_creds or dest_creds):
        raise UsageError(
            "--src-creds and --dest-creds do not go to a Dask cluster, which would pass them on in "
            "the clear: have an --authfile where its workers are"
        )
    if executor is None and dask is None:
        jobs, threads = parallel(jobs, threads)
    else:
        check_jobs(jobs)
        threads = thread_count(threads or 2)  # on machines whose cores are not known
    _check_options(
        index,
        {
            "flatten": flatten,
            "allow_missing": allow_missing,
            "docker_types": docker_types,
            "verify": verify,
            "strict": strict,
            "both": both,
            "memory": memory,
            "max_sparse": max_sparse,
            **({one.name: getattr(options, one.name) for one in fields(options)}),
        },
        {"soci_version": soci_version, "min_layer_size": min_layer_size, "span_size": span_size},
    )
    making: Making
    if version is not None:
        least = MIN_LAYER_SIZE if min_layer_size is None else min_layer_size
        making = Indexing(
            IndexOptions(
                soci_version=version,
                min_layer_size=least,
                span_size=span_size,
                platforms=platforms,
                upgrade=upgrade,
                force=force,
                access=reading,
                writing=writing,
                threads=threads,
            )
        )
    else:
        making = Converting(
            ImageOptions(
                layers=options,
                platforms=platforms,
                flatten=flatten,
                allow_missing=allow_missing,
                docker_types=docker_types,
                upgrade=upgrade,
                verify=verify,
                strict=strict,
                both=both,
                access=reading,
                threads=threads,
                memory=memory,
                max_sparse=max_sparse,
                force=force,
                writing=writing,
            )
        )
    targets = [report_target(path) for path in reports]
    with ExitStack() as stack:
        client = stack.enter_context(shared_client(reading))
        writer = stack.enter_context(shared_client(writing))
        chosen = Filter(include, exclude, registry_of(src))
        found = discover(src, dst, client=client, chosen=chosen, upgrade=upgrade, stays=stays)
        known = stack.enter_context(State(state, read_only=dry_run))
        run: Images
        work: Callable[[Iterator[Pair], str], None]
        if dry_run:
            run = dry = DryRun(known, client, writer, making, jobs or 1, progress)
            work = dry.count
        else:
            used, stop, jobs = stack.enter_context(_executor(executor, dask, jobs))
            run = all_of = _Run(known, client, writer, making, jobs, progress)
            work = partial(all_of.make, executor=used, stop=stop)
        began = time.time()
        begin = time.perf_counter()
        first = next(found, None)
        if first is not None:
            run.reach(first)
            found = chain((first,), found)
        elif (why := chosen.none_chosen()) is not None:
            raise SourceError(f"{src}: {why}")
        if not dry_run:
            known.begin(src, dst, began)
            writer.uploads = partial(_Uploads, known)
            stack.callback(setattr, writer, "uploads", None)
        work(found, src)
        totals = run.totals()
        seconds = time.perf_counter() - begin
        if not dry_run:
            known.end(seconds, totals)
        stale, warnings = _remarks(known, making.images)
        if run.found_all:
            unused = ({"source": src, "warning": pattern} for pattern in chosen.unused())
            warnings = (*unused, *warnings)
        report = BulkReport(
            source=src,
            destination=dst,
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            seconds=seconds,
            options={
                **making.shown(),
                "jobs": jobs or 0,
                "include": list(include),
                "exclude": list(exclude),
            },
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
            images=tuple(_entries(known)) if dry_run else (),
        )
        if targets:
            head = report.to_json()
            if not dry_run:
                del head["dry_run"]
            whole = {"version": 1, **head, "images": list(_entries(known))}
            for target in targets:
                write_report(target, whole)
        return report


def _check_options(
    index: bool, converting: Mapping[str, object], indexing: Mapping[str, object]
) -> None:
    """Refuse options of what is not done."""
    for name, value in (converting if index else indexing).items():
        if value is not None and value is not False and value != ():
            option = "prioritize" if name == "prioritized" else name.replace("_", "-")
            raise UsageError(
                f"{name} (--{option}) is about conversions, and with --index nothing is converted"
                if index
                else f"{name} (--{option}) is about SOCI indexes: it needs --index"
            )


def _accesses(
    src: str,
    dst: str | None,
    in_place: bool,
    access: Access,
    src_creds: Creds | None,
    dest_creds: Creds | None,
) -> tuple[Access, Access]:
    """How what is read is reached, and what is written."""
    if in_place:
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


class _Run(Images):
    """Each image is worked on by a thread that waits for what is made of its layers by others."""

    def _cancel_uploads(self) -> None:
        """A run that was killed may have left uploads at registries: they are given up."""
        from stargz.oci.registry.sessions import cancel_upload

        for url, repository in self._state.uploads():
            try:
                gone = cancel_upload(self._writer, parse_reference(repository), url)
            except StargzError:
                gone = True  # or the registry will have to find it by itself
            if gone:
                self._state.upload_ended(url)

    def make(
        self, found: Iterator[Pair], src: str, executor: Executor, stop: Callable[[], object]
    ) -> None:
        """Work on them all, and once more on those that the network kept from it."""
        self._cancel_uploads()
        store = StateStore(self._state, executor, self._making.read, self._progress)

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

    def _one(self, number: int, pair: Pair, store: StateStore[Any]) -> None:
        begin = time.perf_counter()
        try:
            status = self._known(pair)
            if status is not None:
                self._making.check(pair)
                seconds = time.perf_counter() - begin
                self._state.finish(number, status, seconds)
                self._tell_image(pair, status, None, seconds)
                return
            report = self._making.make(pair, store, self._progress, self._own(pair))
        except Exception as error:
            if self._stop.is_set():
                return
            if isinstance(error, StateError):
                raise
            self._failed(number, pair, error, time.perf_counter() - begin, is_transient(error))
            return
        seconds = time.perf_counter() - begin
        status = report["status"]
        key = self._making.options.key
        self._state.finish(number, status, seconds, options=key, report=report)
        self._tell_image(pair, status, None, seconds)


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


# --- the report -------------------------------------------------------------------------


def _remarks(
    state: State, made_of: Sequence[str]
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, str], ...]]:
    """Of the images that something was made of: what no longer fits them, and what there is to
    know."""
    stale: list[dict[str, Any]] = []
    warnings: list[dict[str, str]] = []
    for outcome in chain.from_iterable(map(state.outcomes, made_of)):
        made = outcome.report or {}
        stale += ({**one, "source": outcome.source} for one in made.get("stale", ()))
        warnings += (
            {"source": outcome.source, "warning": text} for text in made.get("warnings", ())
        )
    return tuple(stale), tuple(warnings)


def _entries(state: State) -> Iterator[dict[str, Any]]:
    """What became of each image, or would."""
    return map(_image_entry, state.outcomes())


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
