"""From a command's SRC to an open layer or image."""

from __future__ import annotations

import argparse
import copy
import errno
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from stargz.cli._errors import CommandError
from stargz.cli._kinds import check_file, check_image, of_images
from stargz.cli._output import counted, log, relay, warn
from stargz.endpoints import is_url
from stargz.errors import UsageError

if TYPE_CHECKING:
    from stargz.layer import Layer
    from stargz.oci.image import Image
    from stargz.sources import ByteSource, Source
    from stargz.tree import Tree

_STDIN = "standard input"


class Found(NamedTuple):
    """The bytes of a layer, and the digest of its TOC, the uncompressed size and the annotations
    where an image's manifest has them."""

    source: Source
    toc_digest: str | None = None
    uncompressed_size: int | None = None
    annotations: Mapping[str, str] | None = None


def is_image(src: str) -> bool:
    """Whether SRC names an image."""
    if ":" not in src:  # a file most often, for which nothing of images is imported
        return False
    from stargz.oci.formats.reference import IMAGE_PREFIXES

    return src.startswith(IMAGE_PREFIXES)


@contextmanager
def open_layer(args: argparse.Namespace, *, make: bool = True) -> Iterator[Layer]:
    """The layer that SRC and the options of `add_layer_options` mean. Without `make` no index is
    made."""
    if is_image(args.src):
        from stargz.oci.image import is_verified
        from stargz.oci.image import open_layer as open_one

        relay(args)
        options = {**layer_options(args), **registry_options(args)}
        with ExitStack() as stack:
            with _indexing(args, make) as indexing:
                one = open_one(args.src, args.layer, **options, **indexing)
                layer = stack.enter_context(one)
            _tell(args, layer, "verified" if is_verified(layer) else "unverified")
            yield layer
        return
    with source(args) as found, open_source(found, args, make=make) as layer:
        yield layer


def side(args: argparse.Namespace, name: str, other: str) -> argparse.Namespace:
    """The options of `add_two_layers_options` for one of the two, as commands with one SRC have
    them."""
    given = copy.copy(args)
    given.src = getattr(args, name)
    for option in ("layer", "toc", "toc_digest", "creds", "index", "index_digest"):
        setattr(given, option, getattr(args, f"{option}_{name}", None))
    # --layer is for both, and one of them may be a file.
    if given.layer is None and (is_image(given.src) or not is_image(getattr(args, other))):
        given.layer = args.layer
    return given


def image_side(args: argparse.Namespace, name: str) -> argparse.Namespace:
    """The same of `add_two_images_options`."""
    given = copy.copy(args)
    given.src = getattr(args, name)
    given.platform = getattr(args, f"platform_{name}") or args.platform
    given.creds = getattr(args, f"creds_{name}")
    return given


def open_source(found: Found, args: argparse.Namespace, *, make: bool = True) -> Layer:
    """The layer in what `source` found, as the options say; `make` is that of `open_layer`."""
    import stargz

    src = found.source
    if not isinstance(src, str) or "://" in src or is_ordinary(src):
        relay(args)
    options = layer_options(args)
    digest = options.pop("toc_digest") or found.toc_digest
    with _indexing(args, make) as indexing:
        layer = stargz.open(
            src, toc_digest=digest, annotations=found.annotations, **options, **indexing
        )
    trust = "as --toc-digest says" if args.toc_digest else "as the manifest says"
    if layer.kind == "indexed":
        trust = f"by an index: {index_trust(args, layer)}"
    elif not layer.trusted:
        trust = "not checked against a manifest"
    _tell(args, layer, trust)
    return layer


def is_ordinary(path: str) -> bool:
    """Whether this is a file that does not end as a seekable layer does."""
    from stargz.footer import kind_of
    from stargz.sources import as_source

    if not Path(path).is_file():
        return False
    with closing(as_source(path)) as blob:
        return blob.size > 0 and kind_of(blob) is None


def open_image(args: argparse.Namespace, opened: Callable[[Layer], object] | None = None) -> Image:
    """The image that SRC and the options of `add_image_options` mean, with all its layers;
    `opened` gets each as soon as it is there."""
    from stargz.cli._progress import Progress
    from stargz.oci.image import open_image as open_all

    check_image(args)
    relay(args)
    options = {
        "require_verified": args.require_verified,
        **reading_options(args),
        **cache_options(args),
        **registry_options(args),
    }
    with Progress("index", args) as progress:
        told = progress.callback
        image = open_all(args.src, index="build", opened=opened, progress=told, **options)
    if not all(layer.verified or layer.kind == "indexed" for layer in image.layers):
        warn(args, f"{args.src}: unverified: not every layer has a TOC digest in the manifest")
    log(args, f"{args.src}: {image.digest}, {counted(len(image.layers), 'layer')}")
    return image


@contextmanager
def open_tree(args: argparse.Namespace, *, landmarks: bool = False) -> Iterator[Tree]:
    """The files of SRC: of an image as a container sees them, of a layer as they are in it."""
    from stargz.tree import Tree

    if of_images(args):
        with open_image(args) as image:
            yield Tree(image.layers, name=args.src, landmarks=landmarks)
    else:
        with open_layer(args) as layer:
            yield Tree([layer], "raw", landmarks=landmarks)


def _tell(args: argparse.Namespace, layer: Layer, trust: str) -> None:
    if args.log_level in ("debug", "info"):  # else the digest may have to be made for nothing
        log(args, f"{args.src}: {layer.kind}, TOC {layer.toc_digest}, {trust}")


def index_trust(args: argparse.Namespace, layer: Layer) -> str:
    """What vouches for the index of an ordinary tar."""
    if not layer.trusted:
        return "nothing vouches for it"
    if args.index_digest:
        return "it has the digest that was asked for"
    return "its TOC has the digest that was asked for" if args.toc_digest else "it was made here"


# --- options as keyword arguments -------------------------------------------------------


def layer_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `stargz.open` is given of the options of `add_layer_options`."""
    if args.toc == "-":
        raise UsageError("--toc -: a TOC is not read from standard input; give a file (./- is one)")
    return {
        "toc": args.toc,
        "toc_digest": args.toc_digest,
        "index_digest": args.index_digest,
        "require_verified": args.require_verified,
        **reading_options(args),
        **cache_options(args),
    }


@contextmanager
def _indexing(args: argparse.Namespace, make: bool) -> Iterator[dict[str, Any]]:
    """What `stargz.open` is given to find an index, or to make one."""
    from stargz.cli._progress import Progress

    build = getattr(args, "build_index", False)
    if build and args.index is not None:
        raise UsageError("--index names an index, --build-index makes one: give one of them")
    index: Any = "build" if build else args.index
    if index is None and not make and not args.index_digest:  # which is of one that is there
        index = False
    with ExitStack() as stack:
        if args.index is not None:
            if _is_http(index):
                if not _is_http(args.src):  # else by its connections
                    from stargz.sources.base import BESIDE

                    index = stack.enter_context(_web(index, args, tail=BESIDE))
            elif not is_url(index):
                index = Path(index)  # a file may be called "build"
        progress = stack.enter_context(Progress("index", args))
        yield {"index": index, "progress": progress.callback}


def reading_options(args: argparse.Namespace) -> dict[str, Any]:
    """The same of what is read of any layer."""
    limit = {} if args.max_toc_size is None else {"max_toc_size": args.max_toc_size}
    return {"threads": args.threads, **limit}


def registry_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `stargz.oci.image.open_image` is given of the options of `add_image_options`."""
    return {"platform": args.platform, "creds": args.creds, **access_options(args)}


def access_options(args: argparse.Namespace) -> dict[str, Any]:
    """What registry clients are given of the options of `add_registry_options`."""
    mirrors: dict[str, list[str]] = {}
    for host, url in args.mirror:
        mirrors.setdefault(host, []).append(url)
    return {
        "authfile": args.authfile,
        "ca_file": args.ca_file,
        "plain_http": args.plain_http,
        "mirrors": mirrors,
        "patience": args.patience,
    }


def cache_options(args: argparse.Namespace) -> dict[str, Any]:
    """`cache=`, where the options say something of it."""
    if args.no_cache:
        if args.cache_dir or args.cache_size is not None:
            raise UsageError("--no-cache contradicts --cache-dir and --cache-size")
        return {"cache": False}
    if args.cache_dir is None and args.cache_size is None:
        return {}
    from stargz.cache import Cache

    return {"cache": Cache(args.cache_dir, args.cache_size)}


# --- sources ----------------------------------------------------------------------------


@contextmanager
def source(args: argparse.Namespace, *, tail: int | None = None) -> Iterator[Found]:
    """The bytes that SRC means: a path as it is; standard input as a file that can be read
    anywhere; what is remote, opened, by its last `tail` bytes if that is given."""
    src = args.src
    if is_image(src):
        from stargz.oci.loading import load_image

        with load_image(src, **registry_options(args)) as image:
            number = image.number(args.layer)
            with closing(image.open_source(number)) as blob:
                entry = image.descriptors[number]
                yield Found(
                    blob, image.toc_digest(number), entry.uncompressed_size, entry.annotations
                )
        return
    if args.layer is not None:
        raise UsageError(f"{src}: --layer chooses a layer of an image (docker://, oci: ...)")
    if src == "-":
        with _stdin() as file:
            yield Found(file)
        return
    if _is_http(src):
        relay(args)
        if tail is None and args.index is not None:
            tail = 0  # the TOC is elsewhere
        with _web(src, args, **({} if tail is None else {"tail": tail})) as web:
            yield Found(web)
        return
    check_file(src)
    yield Found(src)


def _is_http(src: str) -> bool:
    return bool(re.match(r"https?://", src, re.I))


@contextmanager
def _web(src: str, args: argparse.Namespace, **options: Any) -> Iterator[ByteSource]:
    from stargz.sources.http import Client, HTTPSource

    with (
        Client(ca_file=args.ca_file) as client,
        closing(HTTPSource(src, client=client, **options)) as web,
    ):
        yield web


@contextmanager
def _stdin() -> Iterator[io.FileIO]:
    stdin = binary_stdin()
    if stat.S_ISREG(os.fstat(stdin.fileno()).st_mode) and stdin.tell() == 0:
        yield stdin
        return
    import shutil
    import tempfile

    from stargz.sources.spool import FULL

    try:
        # Unlinked from the start: nothing is left behind however the process ends.
        with tempfile.TemporaryFile(prefix="stargz-") as spool:
            shutil.copyfileobj(stdin, spool, 1 << 20)
            spool.flush()
            raw = cast(io.FileIO, getattr(spool, "raw"))  # noqa: B009
            raw.name = _STDIN  # what errors call it
            yield raw
    except OSError as error:
        if error.filename is None:
            full = f"{tempfile.gettempdir()} (TMPDIR can name another place)"
            error.filename = full if error.errno in FULL else _STDIN
        raise


def check_not_url(src: str) -> None:
    """Refuse what is plainly an address and not a file."""
    if is_url(src):
        raise CommandError(f"{src}: only local files are converted; download it, or pipe it to -")


def binary_stdin() -> io.FileIO:
    """Standard input for bytes, refused where a person would have to type them."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), _STDIN)
    if sys.stdin.isatty():
        raise UsageError("SRC is - and standard input is a terminal; pipe the data in")
    raw = io.FileIO(sys.stdin.fileno(), closefd=False)
    try:
        raw.read(0)  # it may be open for writing alone
    except OSError as error:
        error.filename = _STDIN
        raise
    raw.name = _STDIN
    return raw
