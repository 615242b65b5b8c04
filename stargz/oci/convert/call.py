"""What all have in common that make an image of an image, whatever becomes of its layers: how they
are called."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stargz.errors import UsageError
from stargz.oci.convert.ends import not_on_stdin
from stargz.oci.convert.store import Events, LocalStore, R, Store
from stargz.oci.formats.reference import registry_of
from stargz.oci.registry.access import Access, Creds
from stargz.options import check_jobs, default_threads, thread_count
from stargz.paths import several, text


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments, checked. `writing` reaches the destination, `reading` the source."""

    src: str
    dst: str | None
    platforms: tuple[str, ...]
    reading: Access
    writing: Access
    jobs: int
    threads: int


def checked(
    src: str,
    dst: str | None,
    *,
    platforms: Sequence[str],
    upgrade: bool,
    access: Access,
    src_creds: Creds | None,
    dest_creds: Creds | None,
    jobs: int | None,
    threads: int | None,
    executor: Executor | None,
) -> Call:
    """See `convert_image`. Without DST the source is what is written, by either account."""
    src, dst = text(src), None if dst is None else text(dst)
    if upgrade and dst is not None:
        raise UsageError(
            f"{dst}: --upgrade replaces {src} itself: leave DST out; or leave --upgrade out, and "
            "replace what is at DST with --force"
        )
    not_on_stdin(src, executor)
    jobs, threads = parallel(jobs, threads)
    if dst is None:
        src_creds, dest_creds = src_creds or dest_creds, dest_creds or src_creds
    return Call(
        src,
        dst,
        several(platforms, "platforms (--platform)"),
        access.with_creds(registry_of(src), src_creds),
        access.with_creds(registry_of(dst or src), dest_creds),
        jobs,
        threads,
    )


def parallel(jobs: int | None, threads: int | None) -> tuple[int, int]:
    """How many layers are worked on here at the same time, and by how many threads each: together
    twice as many as there are cores, since some always wait for the network."""
    check_jobs(jobs)
    cores = default_threads()
    jobs = jobs or min(cores, 8)
    return jobs, thread_count(threads or min(cores, math.ceil(2 * cores / jobs)))


@contextmanager
def layers_made(
    store: Store[R] | None, executor: Executor | None, jobs: int, progress: Events | None
) -> Iterator[tuple[Store[R], LocalStore[R] | None]]:
    """Where layers are made: the store that was given; or one of this call's own, by the executor
    that was given or by threads, and that as what is to end with the call."""
    if store is not None:
        yield store, None
    elif executor is not None:
        local: LocalStore[Any] = LocalStore(executor, progress)
        yield local, local
    else:
        with ThreadPoolExecutor(jobs, "stargz-layer") as threads:
            local = LocalStore(threads, progress)
            yield local, local
