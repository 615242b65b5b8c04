"""Layers and images as an fsspec file system, read-only; registered as `stargz://`.

    fsspec.open("stargz://usr/bin/python3::https://host/layer.stargz")
    fsspec.filesystem("stargz", fo="docker://registry/repository:tag").ls("etc")

A thin adapter over `stargz.tree`. Needs the extra `fsspec`.
"""

from __future__ import annotations

import errno
import io
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, cast

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.utils import stringify_path, tokenize  # type: ignore[import-untyped]

from stargz import opening as _opening
from stargz.errors import EntryNotFoundError, UsageError
from stargz.layer import Layer
from stargz.oci.formats.reference import IMAGE_PREFIXES
from stargz.tree import Stat, Tree, Whiteouts

_TYPES = {"dir": "directory", "reg": "file", "symlink": "link"}
_BUFFER = 64 << 10
_MAX_BUFFER = 64 << 20

Info = dict[str, Any]


class _Instances(type(AbstractFileSystem)):  # type: ignore[misc]
    """fsspec hands out one instance for equal arguments. Objects are known to it by their repr
    alone, and two of them may have the same: so they are not kept."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        fo = args[0] if args else kwargs.get("fo", "")
        if not isinstance(fo, str | os.PathLike):
            kwargs["skip_instance_cache"] = True
        return super().__call__(*args, **kwargs)


class StargzFileSystem(AbstractFileSystem, metaclass=_Instances):  # type: ignore[misc]
    """The files of a layer, or of an image's layers merged.

    `fo` is a path, a URL, a binary file object, an open Layer or Tree, or an image
    ("docker://…", "oci:DIR[:ref]", "oci-archive:FILE[:ref]", "docker-archive:FILE[:ref]",
    "storage:DIR//repo[:tag]"). In a chain fsspec gives it, with `target_protocol` and
    `target_options` of the file system that the blob is on. http(s) URLs without options are read
    by stargz itself, in few requests. `whiteouts` is that of `stargz.tree.Tree`. What `stargz.open`
    takes (toc, index, require_verified, cache, ...) can be given too; `image_options` are what
    `stargz.open_image` takes besides.

    Symlinks are followed within the tree. In listings one that leads to a file is a "file" with
    `islink`, and one that leads to a directory, or nowhere, a "link": so nothing that recurses
    runs in circles.

    fsspec keeps instances: equal arguments give the same object, in one thread, already open
    (skip_instance_cache=True asks for another). A local blob that was replaced since is opened
    anew, and so is any after a fork. Pickles open the blob again where they are loaded.
    """

    protocol = "stargz"
    root_marker = ""
    cachable = True

    def __init__(
        self,
        fo: Any = "",
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        *,
        whiteouts: Whiteouts = "apply",
        toc: Any = None,
        toc_digest: str | None = None,
        index: Any = None,
        index_digest: str | None = None,
        image_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if self._cached:
            return
        given = {k: options.pop(k) for k in _OPEN_OPTIONS if k in options}
        if unknown := sorted(set(options) - _FSSPEC_OPTIONS):
            raise UsageError(f"stargz:// has no option {unknown[0]!r}")
        super().__init__(**options)
        if isinstance(fo, os.PathLike):
            fo = os.fspath(fo)
        if isinstance(fo, str) and not fo:
            raise UsageError("stargz:// needs a blob: stargz://path::URL, or fo=")
        self.fo = fo
        self.target_protocol = target_protocol
        self.target_options: dict[str, Any] = dict(target_options or {})
        self.whiteouts = whiteouts
        one = {"toc": toc, "toc_digest": toc_digest, "index": index, "index_digest": index_digest}
        self._layer_options = {key: value for key, value in one.items() if value is not None}
        self._open_options = given
        self._image_options = dict(image_options or {})
        self._lock = threading.Lock()
        self._tree: Tree | None = None
        self._opened_as: object = None
        # Of all that was opened, with the process that did.
        self._opened: list[_Opened] = []
        weakref.finalize(self, _close_all, self._opened)
        self.file_tree  # noqa: B018 - what cannot be opened is told now

    # --- opening ------------------------------------------------------------------------

    @property
    def file_tree(self) -> Tree:
        """The tree behind it, for as long as the file system is there; opened when it must be.
        (`tree()` is fsspec's, which draws one.)"""
        with self._lock:
            version = self._version()
            if self._tree is None or version != self._opened_as:
                # An old one may be in use still: it is closed with the others.
                tree, close = self._open_tree()
                self._opened.append(_Opened(os.getpid(), tree, close))
                self._tree, self._opened_as = tree, version
            return self._tree

    def _version(self) -> object:
        """What changes when the blob must be opened anew."""
        path = self._local_path()
        if path is None:
            return os.getpid()
        try:
            info = os.stat(path)  # noqa: PTH116
        except OSError:
            return self._opened_as  # gone: what is open stays good
        return os.getpid(), info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns

    def _local_path(self) -> str | None:
        if not isinstance(self.fo, str) or self.target_protocol not in (None, "file", "local"):
            return None
        if self.fo.startswith("file://"):
            return self.fo[len("file://") :]
        return None if "://" in self.fo or self.fo.startswith(IMAGE_PREFIXES) else self.fo

    def _open_tree(self) -> tuple[Tree, Callable[[], None] | None]:
        fo = self.fo
        if isinstance(fo, Tree):
            return fo, None
        if isinstance(fo, Layer):
            return Tree([fo], self.whiteouts), None
        if isinstance(fo, str) and self.target_protocol is None and fo.startswith(IMAGE_PREFIXES):
            from stargz.oci.image import open_image

            if self._layer_options:
                raise UsageError(f"{fo}: {next(iter(self._layer_options))} is for single layers")
            image = open_image(fo, **self._open_options, **self._image_options)
            return Tree(image.layers, self.whiteouts, image.name), image.close
        source, owned = self._source()
        try:
            layer = _opening.open(source, **self._open_options, **self._layer_options)
        except BaseException:
            if owned is not None:
                owned()
            raise

        def close() -> None:
            layer.close()
            if owned is not None:
                owned()

        return Tree([layer], self.whiteouts), close

    def _source(self) -> tuple[Any, Callable[[], None] | None]:
        """What stargz.open takes, and what closes it where that does not."""
        path = self._local_path()
        if path is not None:
            return path, None
        protocol = self.target_protocol
        plain = protocol in (None, "http", "https") and not self.target_options
        if plain or not isinstance(self.fo, str):
            return self.fo, None
        from stargz.sources.fsspec_url import FsspecSource

        if protocol is None or "://" in self.fo:
            source = FsspecSource(self.fo, **self.target_options)
        else:
            source = FsspecSource(f"{protocol}://{self.fo}", **self.target_options)
        return source, source.close

    def close(self) -> None:
        """Give back what is open, once running reads are done. What uses the file system after
        that opens it again."""
        with self._lock:
            opened, self._opened[:] = self._opened[:], []
            self._tree = None
        _close_all(opened)

    def __enter__(self) -> StargzFileSystem:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- looking up ---------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped if isinstance(stripped, list) else stripped.lstrip("/")

    def info(self, path: str, **kwargs: Any) -> Info:
        """What is at a path: `name`, `type` ("file", "directory", "link", "other"), `size`,
        `mode`, `mtime`, `mtime_ns`, `uid`, `gid`, `ino`, `nlink`, `islink`; of a link also its
        `destination`.

        A symlink's are those of what it leads to; type "link" where that is nothing.
        """
        path = self._strip_protocol(path)
        tree = self.file_tree
        with _as_file_errors(path):
            found = tree.stat(path, follow=False)
        return self._info(tree, path, found, directories=True)

    def _info(self, tree: Tree, name: str, found: Stat, *, directories: bool) -> Info:
        more: Info = {}
        if found.is_symlink():
            more["destination"] = found.target
            try:
                end = tree.stat(found.path)
            except (KeyError, OSError):
                end = found
            if directories or not end.is_dir():
                found = end
        return {
            "name": name,
            "type": _TYPES.get(found.type, "other"),
            "size": found.size,
            "mode": found.mode,
            "mtime": found.mtime,
            "mtime_ns": found.mtime_ns,
            "uid": found.uid,
            "gid": found.gid,
            "ino": found.ino,
            "nlink": found.nlink,
            "islink": bool(more),
            **more,
        }

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What a directory holds, or the file itself, as paths or, with `detail`, as `info`."""
        path = self._strip_protocol(path)
        tree = self.file_tree
        with _as_file_errors(path):
            if not tree.stat(path).is_dir():
                return [self.info(path)] if detail else [path]
            prefix = f"{path}/" if path else ""
            if not detail:
                return [prefix + name for name in tree.listdir(path)]
            return [
                self._info(tree, prefix + found.name, found, directories=False)
                for found in tree.scandir(path)
            ]

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: Any = "omit",
        **kwargs: Any,
    ) -> Iterator[tuple[str, Any, Any]]:
        """As fsspec's, for trees of any depth."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        detail = kwargs.pop("detail", False)
        path = self._strip_protocol(path)
        pending: list[tuple[str, int]] = [(path, 1)]
        done: list[tuple[str, Any, Any]] = []
        while pending:
            at, depth = pending.pop()
            try:
                listing = self.ls(at, detail=True)
            except OSError as error:
                if on_error == "raise":
                    raise
                if callable(on_error):
                    on_error(error)
                continue
            dirs = {_base(i): i for i in listing if i["type"] == "directory"}
            files = {
                "" if i["name"] == at else _base(i): i for i in listing if i["type"] != "directory"
            }
            shown = (dirs, files) if detail else (list(dirs), list(files))
            if topdown:
                yield at, *shown
            else:
                done.append((at, *shown))
            if maxdepth is None or depth < maxdepth:
                below = f"{at}/" if at else ""
                names = list(shown[0])[::-1] if topdown else list(dirs)
                pending += [(below + name, depth + 1) for name in names]
        # Directories were met before what is in them.
        yield from reversed(done)

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """All below a path, sorted; with `detail` a dict of their `info`. Directories only
        `withdirs`."""
        if maxdepth is not None:
            return super().find(path, maxdepth, withdirs, detail, **kwargs)
        path = self._strip_protocol(path)
        tree = self.file_tree
        found: dict[str, Info] = {}
        if not tree.isdir(path):
            if tree.exists(path):
                found[path] = self.info(path)
        else:
            if withdirs and path:
                found[path] = self.info(path)
            at = len(tree.resolve(path))
            prefix = f"{path}/" if path else ""
            for item in tree.scandir(path, recursive=True):
                if withdirs or not item.is_dir():
                    name = prefix + item.path[at:].lstrip("/")
                    found[name] = self._info(tree, name, item, directories=False)
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def glob(self, path: Any, maxdepth: int | None = None, **kwargs: Any) -> Any:
        """As fsspec's; a pattern may be a PurePath too, as all names may."""
        return super().glob(stringify_path(path), maxdepth, **kwargs)

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether a path leads to something."""
        return self.file_tree.exists(self._strip_protocol(path))

    def lexists(self, path: str, **kwargs: Any) -> bool:
        """Whether something is at a path, be it a dangling link."""
        return self.file_tree.lexists(self._strip_protocol(path))

    def isfile(self, path: str) -> bool:
        """Whether a path leads to a regular file."""
        return self.file_tree.isfile(self._strip_protocol(path))

    def isdir(self, path: str) -> bool:
        """Whether a path leads to a directory."""
        return self.file_tree.isdir(self._strip_protocol(path))

    def islink(self, path: str) -> bool:
        """Whether a symlink is at a path."""
        return self.file_tree.islink(self._strip_protocol(path))

    def modified(self, path: str) -> datetime:
        """When a file was last modified, UTC. OverflowError for years datetime cannot hold."""
        try:
            seconds, ns = divmod(self.info(path)["mtime_ns"], 1_000_000_000)
            return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=ns // 1000)
        except (ValueError, OSError) as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise
            raise OverflowError(f"{path}: its time is beyond the years 1 to 9999") from None

    def created(self, path: str) -> datetime:
        """The same: a layer has no other time."""
        return self.modified(path)

    def ukey(self, path: str) -> str:
        """What changes when the contents do: made of the file's digest, where it has one."""
        path = self._strip_protocol(path)
        tree = self.file_tree
        with _as_file_errors(path):
            layer, row = tree.engine.row(tree.node(path))
        digest = tree.layers[layer].toc.rows.digest(row) if row >= 0 else ""
        return cast(str, tokenize(digest or (self.fo, self.info(path))))

    # --- contents -----------------------------------------------------------------------

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """The bytes of a file, from `start` to `end` as in a slice."""
        path = self._strip_protocol(path)
        tree = self.file_tree
        with _as_file_errors(path):
            return tree.read(path, *_range(tree, path, start, end))

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """The ranges of several files; what a remote blob has to be asked for is asked for
        together. Exceptions stand in the list, unless `on_error` is "raise"."""
        if not isinstance(paths, list):
            raise TypeError("cat_ranges takes a list of paths")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(paths) == len(starts) == len(ends):
            raise ValueError("paths, starts and ends are of different lengths")
        tree = self.file_tree
        found: list[Any] = [None] * len(paths)
        requests: dict[int, tuple[str, int, int]] = {}
        for i, (name, start, end) in enumerate(zip(paths, starts, ends, strict=True)):
            path = self._strip_protocol(name)
            try:
                with _as_file_errors(path):
                    requests[i] = (path, *_range(tree, path, start, end))
            except Exception as error:
                if on_error == "raise":
                    raise
                found[i] = error
        try:
            for i, data in zip(requests, tree.read_many(list(requests.values())), strict=True):
                found[i] = data
        except Exception:
            if on_error == "raise":
                raise
            for i, request in requests.items():  # which of them fail?
                try:
                    found[i] = tree.read(*request)
                except Exception as error:
                    found[i] = error
        return found

    def cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any
    ) -> Any:
        """The contents of a file, or, of several, a dict; see fsspec. In one batch."""
        names = self.expand_path(path, recursive=recursive)
        if (
            len(names) == 1
            and not isinstance(path, list)
            and names[0] == self._strip_protocol(path)
        ):
            return self.cat_file(names[0], **kwargs)
        start, end = kwargs.get("start"), kwargs.get("end")
        names = [name for name in names if not self.isdir(name)]
        found = self.cat_ranges(
            names, start, end, on_error="raise" if on_error == "raise" else "return"
        )
        return {
            name: data
            for name, data in zip(names, found, strict=True)
            if on_error != "omit" or not isinstance(data, Exception)
        }

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> StargzFile:
        if mode != "rb":
            _read_only(path)
        with _as_file_errors(path):
            file = self.file_tree.open(path)
            return StargzFile(self, path, file.detach(), block_size)

    # --- what cannot be done ------------------------------------------------------------

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused, as all that writes: OSError (EROFS)."""
        _read_only(str(next(iter((*args, *kwargs.values())), "")))

    mkdir = rmdir = rm_file = _rm = cp_file = mv = touch = _refuse

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Refused, unless it is there already and that is fine."""
        if not (exist_ok and self.isdir(path)):
            _read_only(path)


class StargzFile(io.BufferedReader):
    """An open file, with what fsspec's callers ask of one: its `size`, `path` and `fs`."""

    def __init__(
        self, fs: StargzFileSystem, path: str, raw: io.RawIOBase, block_size: int | None
    ) -> None:
        super().__init__(raw, min(block_size, _MAX_BUFFER) if block_size else _BUFFER)
        self.fs = fs
        self.path: str = path
        self.full_name: str = path
        self.size: int = raw.seek(0, io.SEEK_END)
        raw.seek(0)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.fs, self.path, self.tell())


def _reopen(fs: StargzFileSystem, path: str, at: int) -> Any:
    file = fs.open(path)
    file.seek(at)
    return file


@dataclass(frozen=True, slots=True)
class _Opened:
    pid: int
    tree: Tree
    close: Callable[[], None] | None


def _close_all(opened: list[_Opened]) -> None:
    for one in opened:
        # What was opened before a fork is the parent's: its threads are not here.
        if one.close is not None and one.pid == os.getpid():
            one.close()


# Of fsspec.AbstractFileSystem; anything else may be a misspelt option of ours.
_FSSPEC_OPTIONS = {
    "asynchronous", "batch_size", "listings_expiry_time", "loop", "max_paths",
    "skip_instance_cache", "use_listings_cache",
}  # fmt: skip
# Of stargz.open and of open_image.
_OPEN_OPTIONS = (
    "verify", "require_verified", "threads", "max_toc_size", "cache", "prefetch", "background",
)  # fmt: skip


def _range(tree: Tree, path: str, start: int | None, end: int | None) -> tuple[int, int]:
    layer, row = tree.locate(path)
    first, last, _ = slice(start, end).indices(tree.layers[layer].toc.rows.size(row))
    return first, max(0, last - first)


def _base(info: Info) -> str:
    return cast(str, info["name"]).rpartition("/")[2]


@contextmanager
def _as_file_errors(path: str) -> Iterator[None]:
    """What is missing is a FileNotFoundError, as fsspec's callers expect."""
    try:
        yield
    except EntryNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error


def _read_only(path: str) -> NoReturn:
    raise OSError(errno.EROFS, "layers are read-only", path)
