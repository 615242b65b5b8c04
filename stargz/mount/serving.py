"""A mounted tree, served by threads of this process."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from stargz._engine.mount import Failure, Request, Server
from stargz.errors import StargzError
from stargz.mount.contents import Contents
from stargz.mount.kernel import Attachment, MountError, Options
from stargz.tree import Tree

Log = Callable[[str], object]

# The kernel answers its own mount at once; this long only where the machine is stuck.
_ANSWER_SECONDS = 30.0
# Threads that wait for the network longer are left to themselves.
_JOIN_SECONDS = 5.0
# More lines about failed reads than this in so many seconds are counted, not written.
_LINES, _LINES_SECONDS = 20, 10.0
# Most trees have a file among so many names.
_NODES_TRIED = 10_000
# Threads for look-ups that may need the network. What does not is never behind them.
_ASKED_THREADS = 8
# Threads for what takes long to decode, a chunk of a layer at a time.
_DECODE_THREADS = 2


class Asked(ABC):
    """Who answers for the directories above the trees."""

    @abstractmethod
    def slow(self, request: Request) -> bool:
        """Whether its answer may have to wait, for the network say."""

    @abstractmethod
    def answer(self, request: Request, mount: Mount) -> None:
        """Reply to one request; any number of threads call this at once."""

    @abstractmethod
    def close(self) -> None:
        """Give back what was opened on the way."""


@dataclass(frozen=True, slots=True)
class Served:
    """One tree of a mount: `path` is where it is below the mount's root ("" is the root)."""

    path: str
    tree: Tree
    number: int


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of what is mounted was used so far.

    `files` and `bytes` (decoded) were touched, of `all_files` entries of any type and
    `all_bytes`. `fetched` bytes came from remote blobs in `requests` requests; `blob_bytes` is
    the size of all blobs. `failed` reads were answered with EIO.
    """

    files: int
    all_files: int
    bytes: int
    all_bytes: int
    fetched: int
    requests: int
    blob_bytes: int
    failed: int

    def __str__(self) -> str:
        text = (
            f"touched {self.files:,} of {self.all_files:,} entries, {self.bytes:,} of "
            f"{self.all_bytes:,} bytes ({_share(self.bytes, self.all_bytes)}); fetched "
            f"{self.fetched:,} of {self.blob_bytes:,} bytes "
            f"({_share(self.fetched, self.blob_bytes)}) in {self.requests:,} requests"
        )
        return text + (f"; {self.failed:,} reads failed" if self.failed else "")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "0%"


class Mount:
    """A mount of this process; made by `stargz.mount.mount`. A context manager: it is unmounted
    at the end, and at the latest when Python exits. A forked child has no part in it: there
    `unmount` does nothing.

    `directory` is its absolute path. Safe for any number of threads.
    """

    def __init__(
        self,
        directory: str,
        options: Options,
        contents: Contents,
        tree: Tree | None,
        asked: Asked | None,
        log: Log,
        threads: int,
        keep: ExitStack,
    ) -> None:
        self.directory = directory
        self._process = os.getpid()
        self.began: float = time.time()
        self._contents = contents
        self._asked = asked
        self._log = log
        self._keep = keep
        self._lock = threading.Lock()
        self._served: list[Served] = []
        self._threads: list[threading.Thread] = []
        self._slow: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._ended = False
        self._limit = _RateLimit(log)
        self._attachment: Attachment | None = None
        self._server: Server | None = None
        try:
            self._attachment = Attachment(directory, options)
            self._server = Server(self._attachment.fd, asked is not None)
            if tree is not None:
                self.add("", tree)
            self._start(self._server, self._attachment, threads)
        except BaseException:
            self.unmount()
            raise
        atexit.register(self.unmount)
        _mounts.add(self)

    def _start(self, server: Server, attachment: Attachment, threads: int) -> None:
        loops = [("serve", self._serve)] * threads + [("answer", server.answer)]
        loops.append(("events", self._events))
        loops += [("decode", self._contents.decode)] * _DECODE_THREADS
        if self._asked is not None:
            loops += [("look-up", self._answer_slow)] * _ASKED_THREADS
        for name, loop in loops:
            thread = threading.Thread(target=loop, name=f"stargz-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        state = server.wait(_ANSWER_SECONDS)
        if state == "refused":
            major, minor = server.version
            raise MountError(
                f"{self.directory}: this kernel's FUSE protocol {major}.{minor} is too old; Linux "
                "5.4 or later is needed"
            )
        if state != "ready":
            raise MountError(f"{self.directory}: the kernel did not answer the mount ({state})")
        attachment.raise_read_ahead()
        for served in self.served:
            _close_once(self.directory, served.tree)

    # --- what the threads do ------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self.server.serve()
        except (StargzError, OSError, MemoryError) as error:
            self._log(f"{self.directory}: {error}")

    def _events(self) -> None:
        while True:
            try:
                event = self.server.next()
            except StopIteration:
                for _ in range(_ASKED_THREADS):
                    self._slow.put(None)
                return
            try:
                if isinstance(event, Failure):
                    self._failed(event)
                elif event is not None and self._asked is not None:
                    if self._asked.slow(event):
                        self._slow.put(event)
                    else:
                        self._asked.answer(event, self)
            except Exception as error:
                # A log that cannot be written, say. The next event has its own chance.
                with contextlib.suppress(Exception):
                    self._log(f"{self.directory}: {error!r}")

    def _answer_slow(self) -> None:
        while (request := self._slow.get()) is not None:
            if self._asked is not None:
                self._asked.answer(request, self)

    def _failed(self, failure: Failure) -> None:
        found = [served for served in self._served if served.number == failure.tree]
        for served in found:
            name = served.tree.engine.path(failure.node)
            path = "/".join(part for part in (self.directory, served.path, name) if part)
            self._limit(f"{path}: read failed: {failure.error}", failure.more)

    def report(self, text: str) -> None:
        """One line for the log, unless there are too many."""
        self._limit(text, 0)

    # --- trees --------------------------------------------------------------------------

    @property
    def server(self) -> Server:
        """The engine's side; for whoever answers requests."""
        assert self._server is not None
        return self._server

    def add(self, path: str, tree: Tree) -> Served:
        """Serve one more tree, which is found at `path` below the root."""
        numbers = [self._contents.add(layer) for layer in tree.layers]
        with self._lock:
            number = self.server.add(tree.engine, self._contents.chunks, numbers)
            served = Served(path, tree, number)
            self._served.append(served)
        return served

    @property
    def served(self) -> tuple[Served, ...]:
        """The trees that are served."""
        with self._lock:
            return tuple(self._served)

    # --- what was used ------------------------------------------------------------------

    def accesses(self, served: Served) -> list[tuple[float, int, int]]:
        """(seconds since the mount, node, bytes read) of every file of a tree that was read, in
        the order of first access. The kernel keeps pages: what is read again is not counted."""
        return [(ns / 1e9, node, size) for ns, node, size in self.server.accesses(served.number)]

    def usage(self) -> Usage:
        """How much was touched and fetched so far."""
        every = self.served
        layers = {id(layer): layer for served in every for layer in served.tree.layers}
        stats = self._contents.stats()
        return Usage(
            files=sum(len(self.server.accesses(served.number)) for served in every),
            all_files=sum(served.tree.inodes for served in every),
            bytes=stats["touched_bytes"],
            all_bytes=sum(served.tree.size for served in every),
            fetched=stats["fetched_bytes"],
            requests=stats["fetched_requests"],
            blob_bytes=sum(layer.size for layer in layers.values()),
            failed=self.server.stats()["failed"],
        )

    # --- life ---------------------------------------------------------------------------

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the directory is unmounted, by whomever; whether it is."""
        for thread in self._threads:
            if thread.name == "stargz-serve":
                thread.join(seconds)
                return not thread.is_alive()
        return True

    def unmount(self) -> None:
        """Unmount, if that was not done from outside, and end all threads. Where the directory is
        in use it goes from sight at once, and reads below it fail from then on. More than once is
        harmless."""
        if os.getpid() != self._process:
            return  # before the lock, which a thread of the parent's may have held
        with self._lock:
            if self._ended:
                return
            self._ended = True
        atexit.unregister(self.unmount)
        try:
            if self._attachment is not None and not self._attachment.unmount():
                self._log(f"{self.directory}: still in use; detached, reads there fail from now on")
        except (StargzError, OSError) as error:
            self._log(f"{self.directory}: cannot unmount: {error}")
        finally:
            self._contents.stop()
            if self._server is not None:
                self._server.stop()
            until = time.monotonic() + _JOIN_SECONDS
            for thread in self._threads:
                if thread.is_alive() and thread is not threading.current_thread():
                    thread.join(max(0.0, until - time.monotonic()))
            if self._attachment is not None:
                # A look-up may still wait for the network.
                self._attachment.close(used=any(map(threading.Thread.is_alive, self._threads)))
            if self._asked is not None:
                self._asked.close()
            self._contents.close()
            self._keep.close()

    def forget(self) -> None:
        """Have no part in it: this process was forked from the one that serves it."""
        if self._attachment is not None:
            self._attachment.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.unmount()

    def __repr__(self) -> str:
        return f"<stargz.mount.Mount {self.directory!r}>"


_mounts: weakref.WeakSet[Mount] = weakref.WeakSet()


def _forked() -> None:
    for mount in list(_mounts):
        mount.forget()


os.register_at_fork(after_in_child=_forked)


def _close_once(directory: str, tree: Tree) -> None:
    """Open and close a file, so that the kernel learns now that it need not tell when one is
    closed. A process that ends with files of its own mount open would wait for itself."""
    engine = tree.engine
    for node in range(min(len(engine), _NODES_TRIED)):
        if engine.type(node) == "reg":
            with contextlib.suppress(OSError):
                path = os.path.join(directory, os.fsdecode(engine.path(node)))  # noqa: PTH118
                os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
                return


class _RateLimit:
    """Writes lines, but not thousands of them in a second."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._since = 0.0
        self._lines = 0
        self._left_out = 0

    def __call__(self, text: str, more: int) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._since > _LINES_SECONDS:
                left_out, self._left_out = self._left_out, 0
                self._since, self._lines = now, 0
                if left_out:
                    self._log(f"{left_out:,} more reads failed")
            self._left_out += more
            self._lines += 1
            if self._lines > _LINES:
                self._left_out += 1
                return
        self._log(text)
