"""Mount a layer, or the merged layers of an image, on a directory, read-only.

What is read is fetched, checked and decoded when it is read. The command ends when the mount
works, and a process in the background serves it until 'umount DIR' (fusermount3 -u DIR for users
other than root) or a SIGTERM. SIGUSR1 has it say how much was read so far. With DIR alone, it is a
root where images and layers are found as they are looked up: images/HOST/REPOSITORY/TAG,
layers/HOST/REPOSITORY/DIGEST and, with --local, layers/local/FILE. A mistyped REPOSITORY looks like
an empty directory: registries do not tell which names begin with it. A layer whose TOC's digest no
manifest gives is fetched whole into TMPDIR, to be checked, and kept until the mount ends; below
layers/HOST only the manifest of an image looked up by digest in the same repository counts.

What was decoded is held in memory, of which it takes an eighth of what is available, 64 MiB to
1 GiB.

With --json it prints {"dir", "src", "pid"} once the mount works; pid is of the process that
serves it."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from stargz.cli import _daemon, _options
from stargz.cli._errors import OK, CommandError, say
from stargz.cli._layers import (
    access_options,
    cache_options,
    is_image,
    open_image,
    open_layer,
    reading_options,
)
from stargz.cli._output import log, print_json
from stargz.cli._signals import Signalled
from stargz.errors import UsageError, printable

if TYPE_CHECKING:
    from stargz.mount import Mount
    from stargz.mount.contents import Contents
    from stargz.mount.crfs import Root
    from stargz.oci.image import Image
    from stargz.tree import Tree

# Objects that are made before Python looks for garbage among them: more than a mount needs.
_ALLOCATIONS = 200_000

EXAMPLE = """\
stargz mount layer.stargz /mnt
stargz mount --record used.jsonl docker://registry.example/app:1.0 /mnt
stargz mount --allow-host registry.example:5000 /mnt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz mount`."""
    _options.add_layer_options(parser, optional=True)
    parser.add_argument("dir", metavar="DIR", help="the directory to mount on")
    parser.add_argument(
        "--whiteouts",
        choices=("overlay", "hide", "raw"),
        help="what a single layer's whiteouts become: as overlayfs stacks them, nothing, or "
        "ordinary files (default: overlay)",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="at the end, and at SIGUSR1, write the files that were read, in order of first "
        "access, as JSON lines that 'stargz convert --prioritize-from' takes",
    )
    parser.add_argument(
        "--foreground", action="store_true", help="serve in this process, messages on stderr"
    )
    parser.add_argument(
        "--log",
        metavar="FILE",
        help="where messages go from the background: appended to FILE (default: syslog)",
    )
    parser.add_argument(
        "--allow-other", action="store_true", help="let other users in; permissions hold for them"
    )
    parser.add_argument("--dev", action="store_true", help="let device nodes count (root only)")
    parser.add_argument("--suid", action="store_true", help="let set-id bits count (root only)")
    parser.add_argument(
        "--no-prefetch",
        action="store_true",
        help="do not fetch what a remote layer has put first before it is read",
    )
    parser.add_argument(
        "--no-background",
        action="store_true",
        help="do not fetch the rest of a remote layer while nothing else is fetched",
    )
    parser.add_argument(
        "--allow-host",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="with DIR alone: a registry that can be looked into, where every look-up is a "
        "request with your credentials, whoever makes it (repeatable)",
    )
    parser.add_argument(
        "--local",
        metavar="PATH",
        help="with DIR alone: the directory of layers/local, of seekable layers and ordinary tars",
    )


def run(args: argparse.Namespace) -> int:
    """Mount SRC on DIR; in the background process serve it to its end."""
    _check(args)
    for name in ("record", "log"):  # the background process works elsewhere
        if getattr(args, name) is not None:
            setattr(args, name, str(Path(getattr(args, name)).absolute()))
    detached = None
    if not args.foreground:
        # Before all else is imported, which the process that waits has no use for.
        found = _daemon.start()
        if isinstance(found, int):
            return found
        detached = found
    return _serve(args, detached)


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Until the mount works next to nothing becomes garbage: to look for it among all that is
    imported took a tenth of the time to the first byte."""
    before = gc.get_threshold()
    gc.set_threshold(_ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.freeze()  # it stays to the end: not to be looked through now, nor ever
        gc.set_threshold(*before)


def _check(args: argparse.Namespace) -> None:
    if args.src is None:
        single = _options.of_one_layer(args, "layer")
        if single is not None:
            raise UsageError(f"{single} is for one SRC; only DIR was given")
        if not args.allow_host and args.local is None:
            raise UsageError(
                "only DIR was given: a root of many images needs --allow-host or --local, a "
                "single layer or image needs SRC before DIR"
            )
        if args.creds and len(args.allow_host) != 1:
            raise UsageError("--creds is for one registry: with DIR alone, give one --allow-host")
        return
    single = _options.of_one_layer(args)
    if single is not None and is_image(args.src) and args.layer is None:
        raise UsageError(f"{single} is for one layer of an image: give --layer, too")
    if args.allow_host or args.local is not None:
        option = "--allow-host" if args.allow_host else "--local"
        raise UsageError(f"{option} is for a root of many images: give DIR alone, without SRC")


def _check_places(args: argparse.Namespace) -> None:
    """What would else be found wrong only when it is used, by a process in the background."""
    if args.allow_host:
        from stargz.oci.formats.reference import check_registry

        for host in args.allow_host:
            check_registry(host, "--allow-host")
    if args.local is not None and not Path(args.local).is_dir():
        raise CommandError(f"{args.local}: is not a directory that there is (--local)")
    if args.record is not None:
        from stargz.durable import check_place

        check_place(args.record, "--record")


def _serve(args: argparse.Namespace, detached: _daemon.Detached | None) -> int:
    with ExitStack() as stack:
        messages = _Messages(stack)
        stack.enter_context(_logged(messages))
        served: list[Mount] = []

        def summary() -> None:
            for mounted in served:
                _record(mounted, args, messages)
                messages(f"{args.dir}: {mounted.usage()}")

        stack.enter_context(_at_signal(signal.SIGUSR1, summary))
        with _little_garbage():
            from stargz.mount.kernel import check_directory

            _check_places(args)
            args.dir = check_directory(args.dir)
            mounted = stack.enter_context(_mounted(args, messages))
        served.append(mounted)
        code = OK
        try:
            log(args, f"{args.dir}: mounted")
            if detached is not None:
                messages.leave(args.log)
            _tell(args)
            if detached is not None:
                detached.ready()
            mounted.wait()
        except Signalled as signalled:
            if signalled.signum != signal.SIGTERM:
                code = 128 + signalled.signum
        mounted.unmount()
        if not args.quiet or args.record:
            summary()
    return code


def _tell(args: argparse.Namespace) -> None:
    """With --json: what was mounted, and who serves it."""
    if args.json:
        print_json({"dir": args.dir, "src": args.src, "pid": os.getpid()})
        if sys.stdout is not None:
            sys.stdout.flush()


@contextmanager
def _mounted(args: argparse.Namespace, messages: Callable[[str], None]) -> Iterator[Mount]:
    from stargz.mount import mount
    from stargz.mount.contents import Contents

    with ExitStack() as stack:
        # First of all, so that what is to be prefetched of a layer is on its way while the
        # others are opened.
        contents = Contents(
            cache_options(args).get("cache"),
            remote=args.src is None or "://" in args.src,
            prefetch=not args.no_prefetch,
            background=not args.no_background,
        )
        stack.callback(contents.close)
        source = stack.enter_context(_source(args, contents))
        with mount(
            source,
            args.dir,
            allow_other=args.allow_other,
            dev=args.dev,
            suid=args.suid,
            threads=args.threads,
            log=messages,
            contents=contents,
        ) as mounted:
            yield mounted


@contextmanager
def _source(args: argparse.Namespace, contents: Contents) -> Iterator[Tree | Root]:
    """What is to be mounted, open."""
    from stargz.tree import Tree

    if args.src is None:
        from stargz.mount.crfs import Root
        from stargz.oci.formats.reference import check_registry
        from stargz.oci.registry.client import RegistryClient
        from stargz.oci.registry.credentials import as_credentials

        accounts = {}
        if args.creds is not None:
            (host,) = args.allow_host  # see _check
            accounts = {check_registry(host): as_credentials(args.creds)}
        reading = {
            "require_verified": args.require_verified,
            **reading_options(args),
            **cache_options(args),  # where indexes are kept, too
        }
        with RegistryClient(**access_options(args), accounts=accounts) as client:
            yield Root(
                args.allow_host,
                local=args.local,
                client=client,
                platform=args.platform,
                whiteouts=args.whiteouts or "overlay",
                options=reading,
            )
    elif is_image(args.src) and args.layer is None:
        if args.whiteouts is not None:
            raise UsageError(
                "--whiteouts is for a single layer (--layer); an image's are applied to its layers"
            )
        with open_image(args, contents.add) as image:
            _tell_ways(args, image)
            yield Tree(image.layers, name=image.name)
    else:
        with open_layer(args) as layer:
            # The layer's name: SRC may hold a password or a signature, /proc/mounts is public.
            name = layer.name if "://" in args.src else args.src
            yield Tree([layer], args.whiteouts or "overlay", name)


def _tell_ways(args: argparse.Namespace, image: Image) -> None:
    """Which layers are read lazily, and by what, and which had to be read whole first; nothing
    where all are seekable."""
    ways: dict[str, list[int]] = {}
    for number in range(len(image.layers)):
        ways.setdefault(_way(image, number), []).append(number)
    if args.quiet or ways.keys() <= {_SEEKABLE}:
        return
    said = []
    for way, numbers in ways.items():
        one = len(numbers) == 1
        listed = ", ".join(str(number + 1) for number in numbers)
        if way:
            what = f"{'is' if one else 'are'} read lazily, by {way}"
        else:
            size = sum(image.descriptors[number].size for number in numbers)
            what = f"had to be read whole first, to be indexed ({size:,} bytes)"
        said.append(f"layer{'' if one else 's'} {listed} {what}")
    say(f"{args.src}: {'; '.join(said)}")


_SEEKABLE = "the TOC"


def _way(image: Image, number: int) -> str:
    """What a layer is read by; "" for one that was read whole."""
    if image.layers[number].kind != "indexed":
        return _SEEKABLE
    way = image.ways.get(number)
    return {"ztoc": "the SOCI index", "pass": ""}.get(way or "", "an index that was kept")


def _record(mounted: Mount, args: argparse.Namespace, messages: Callable[[str], None]) -> None:
    if args.record is None:
        return
    from stargz.mount.record import write

    try:
        write(mounted, args.record)
    except OSError as error:
        messages(f"{args.record}: cannot be written: {error.strerror}")


@contextmanager
def _at_signal(number: int, call: Callable[[], None]) -> Iterator[None]:
    """Call it at every signal, by a thread of its own: a handler would break into whatever the
    main thread does, into itself too."""
    asked = threading.Event()
    ended = False

    def work() -> None:
        while asked.wait() and not ended:
            asked.clear()
            call()

    thread = threading.Thread(target=work, name="stargz-signal", daemon=True)
    before = signal.signal(number, lambda *_: asked.set())
    thread.start()
    try:
        yield
    finally:
        # One that comes late must not be the end of the process.
        signal.signal(number, signal.SIG_IGN if before == signal.SIG_DFL else before)
        ended = True
        asked.set()


@contextmanager
def _logged(messages: Callable[[str], None]) -> Iterator[None]:
    """What the package logs (requests that failed) goes where the command's messages go."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages(record.getMessage())

    logger = logging.getLogger("stargz")
    handler = Handler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Messages:
    """Lines on stderr; from the background in a file or in the system's log."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._file: TextIO | None = None
        self._syslog = False

    def leave(self, path: str | None) -> None:
        """The terminal is left."""
        if path is not None:
            self._file = self._stack.enter_context(Path(path).open("a", encoding="utf-8"))
        else:
            import syslog

            syslog.openlog("stargz", syslog.LOG_PID, syslog.LOG_DAEMON)
            self._syslog = True

    def __call__(self, text: str) -> None:
        # Nothing that is served may depend on whether the log can be written.
        with suppress(OSError, ValueError):
            self._write(text)

    def _write(self, text: str) -> None:
        if self._file is not None:
            from datetime import datetime

            now = datetime.now().astimezone().isoformat(timespec="seconds")
            print(f"{now} {printable(text)}", file=self._file, flush=True)
        elif self._syslog:
            import syslog

            syslog.syslog(syslog.LOG_WARNING, printable(text))
        elif sys.stderr is not None:
            say(text)
