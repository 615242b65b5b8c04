"""A root of many images and layers, found as they are looked up.

    images/HOST/REPOSITORY/TAG/...     the merged files of an image, by tag or digest
    layers/HOST/REPOSITORY/DIGEST/...  one layer of a repository
    layers/local/FILE/...              the layers in a local directory

Only hosts that were allowed exist: a look-up below one is a request with the credentials of who
mounted, whoever makes it.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stargz.errors import FormatError, RegistryError, StargzError

if TYPE_CHECKING:
    from stargz._engine.mount import Request
    from stargz.mount.serving import Mount, Served
    from stargz.oci.reference import Reference
    from stargz.oci.registry import RegistryClient
    from stargz.tree import Tree, Whiteouts

# Seconds that the kernel may remember a name: of a digest, of a tag, of what is not there.
_DIGEST_SECONDS = 86400
_TAG_SECONDS = 30
_ABSENT_SECONDS = 5
_LOCAL_SECONDS = 1

_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Of a repository's name; and all directories together, since whoever may look may make them.
_DEPTH_MAX = 8
_DIRECTORIES_MAX = 100_000


@dataclass(eq=False)
class _Directory:
    """A directory above the trees. `kind` is "", "images", "layers" or "local"; `where` its path
    below that: host and components of a repository, or a path below the local directory."""

    node: int
    kind: str
    where: tuple[str, ...] = ()
    names: dict[str, None] = field(default_factory=dict)  # what was found in it so far
    changed: int = field(default_factory=time.time_ns)


class Root:
    """Answers for the directories above the images and layers of one mount.

    `hosts` are the registries (host[:port]) that exist; `local` is the directory of
    `layers/local`. `client` asks the registries (default: a new one). `platform` is that of
    images for several, `whiteouts` those of single layers. `options` are those of `stargz.open`
    that all layers are opened with.
    """

    def __init__(
        self,
        hosts: Sequence[str] = (),
        *,
        local: str | os.PathLike[str] | None = None,
        client: RegistryClient | None = None,
        platform: str | None = None,
        whiteouts: Whiteouts = "overlay",
        options: dict[str, Any] | None = None,
    ) -> None:
        self._hosts = tuple(hosts)
        self._local = None if local is None else os.path.realpath(local)
        self._client: RegistryClient | None = client
        self._platform = platform
        self._whiteouts = whiteouts
        self._options = options or {}
        self._lock = threading.Lock()
        self._directories: dict[int, _Directory] = {1: _Directory(1, "")}
        self._by_place: dict[tuple[str, tuple[str, ...]], _Directory] = {}
        self._served: dict[object, Served] = {}
        self._opening: dict[object, threading.Lock] = {}
        self._repositories: dict[tuple[str, ...], tuple[float, bool]] = {}
        self._stack = ExitStack()

    def close(self) -> None:
        """Close every image and layer that was opened."""
        self._stack.close()

    # --- requests -----------------------------------------------------------------------

    def answer(self, request: Request, mount: Mount) -> None:
        """Reply to one request of the kernel's."""
        server = mount.server
        directory = self._directories.get(request.node)
        try:
            if directory is None:
                server.reply_error(request, errno.ESTALE)
            elif request.kind == "statfs":
                server.reply_statfs(request)
            elif request.kind == "getattr":
                server.reply_dir(request, directory.node, self._changed(directory), 0)
            elif request.kind == "readdir":
                names = sorted(os.fsencode(name) for name in self._list(directory))
                server.reply_names(request, names)
            else:
                self._reply_found(request, directory, mount)
        except Exception as error:
            # Whatever went wrong, the process that asked must not wait for ever.
            server.reply_error(request, _errno(error))
            name = os.fsdecode(request.name)
            where = "/".join((directory.kind, *directory.where, name)) if directory else name
            mount.report(f"{mount.directory}/{where}: {error}")

    def _reply_found(self, request: Request, directory: _Directory, mount: Mount) -> None:
        server = mount.server
        try:
            name = request.name.decode()
        except UnicodeDecodeError:
            name = ""
        found, seconds = self._find(directory, name, mount) if name else (None, _ABSENT_SECONDS)
        if found is None:
            server.reply_absent(request, seconds)
            return
        if name not in directory.names and directory.kind != "local":
            with self._lock:
                directory.names[name] = None
                directory.changed = time.time_ns()
        if isinstance(found, _Directory):
            server.reply_dir(request, found.node, self._changed(found), seconds)
        else:
            server.reply_tree(request, found.number, seconds)

    def _find(
        self, directory: _Directory, name: str, mount: Mount
    ) -> tuple[_Directory | Served | None, int]:
        """What a name in a directory is, and for how many seconds; None: nothing."""
        try:
            if directory.kind == "":
                if name in ("images", "layers"):
                    return self._directory(name, ()), _DIGEST_SECONDS
                return None, _DIGEST_SECONDS
            if directory.kind == "local":
                return self._find_local(directory, name, mount)
            if not directory.where:
                if name in self._hosts:
                    return self._directory(directory.kind, (name,)), _DIGEST_SECONDS
                if name == "local" and directory.kind == "layers" and self._local is not None:
                    return self._directory("local", ()), _DIGEST_SECONDS
                return None, _DIGEST_SECONDS
            if directory.kind == "layers":
                return self._find_layer(directory, name, mount)
            return self._find_image(directory, name, mount)
        except RegistryError as error:
            if error.status == 404:
                return None, _ABSENT_SECONDS
            raise

    def _directory(self, kind: str, where: tuple[str, ...]) -> _Directory | None:
        with self._lock:
            found = self._by_place.get((kind, where))
            if found is None and len(self._directories) < _DIRECTORIES_MAX:
                found = _Directory(len(self._directories) + 1, kind, where)
                self._directories[found.node] = self._by_place[kind, where] = found
            return found

    def _component(self, directory: _Directory, name: str) -> _Directory | None:
        """The directory of one more component of a repository's name."""
        if not _COMPONENT.fullmatch(name) or len(directory.where) > _DEPTH_MAX:
            return None
        return self._directory(directory.kind, (*directory.where, name))

    # --- images and layers --------------------------------------------------------------

    @property
    def client(self) -> RegistryClient:
        """Who asks the registries; made when it is first needed."""
        with self._lock:
            if self._client is None:
                from stargz.oci.registry import RegistryClient

                self._client = self._stack.enter_context(RegistryClient())
            return self._client

    def _reference(self, where: tuple[str, ...]) -> Reference:
        from stargz.oci.reference import Reference

        return Reference(where[0], "/".join(where[1:]))

    def _find_image(
        self, directory: _Directory, name: str, mount: Mount
    ) -> tuple[_Directory | Served | None, int]:
        where = directory.where
        if len(where) < 2:  # no repository yet
            return self._component(directory, name), _TAG_SECONDS
        reference = self._reference(where)
        by_digest = bool(_DIGEST.fullmatch(name))
        digest = name if by_digest else self._digest(reference, name)
        if digest is None:
            # Below a repository there is no directory but that of another one; below what is
            # none (a name space) any name may lead to one.
            if self._is_repository(where) and not self._is_repository((*where, name)):
                return None, _ABSENT_SECONDS
            return self._component(directory, name), _TAG_SECONDS
        pinned = reference.with_digest(digest)

        @contextmanager
        def opened() -> Iterator[Tree]:
            from stargz.oci.image import open_image
            from stargz.tree import Tree

            source = f"docker://{pinned}"
            options = {"platform": self._platform, "client": self.client, **self._options}
            with open_image(source, **options) as image:
                yield Tree(image.layers, name=image.name)

        path = "/".join(("images", *where, name))
        served = self._open(("image", str(pinned)), path, opened, mount)
        return served, _DIGEST_SECONDS if by_digest else _TAG_SECONDS

    def _digest(self, reference: Reference, tag: str) -> str | None:
        if not _TAG.fullmatch(tag):
            return None
        try:
            return self.client.digest(reference.with_tag(tag))
        except RegistryError as error:
            if error.status == 404:
                return None
            raise

    def _is_repository(self, where: tuple[str, ...]) -> bool:
        """Whether a registry knows a repository of this name."""
        if not all(_COMPONENT.fullmatch(part) for part in where[1:]):
            return False
        expires, known = self._repositories.get(where, (0.0, False))
        if expires > time.monotonic():
            return known
        try:
            next(self.client.tags(self._reference(where)), None)
            known = True
        except RegistryError as error:
            # Some registries do not say which names they do not know.
            if error.status not in (401, 403, 404):
                raise
            known = False
        with self._lock:
            if len(self._repositories) >= _DIRECTORIES_MAX:
                self._repositories.clear()
            self._repositories[where] = time.monotonic() + _ABSENT_SECONDS, known
        return known

    def _find_layer(
        self, directory: _Directory, name: str, mount: Mount
    ) -> tuple[_Directory | Served | None, int]:
        where = directory.where
        if not _DIGEST.fullmatch(name):
            return self._component(directory, name), _TAG_SECONDS
        if len(where) < 2:
            return None, _DIGEST_SECONDS
        reference = self._reference(where).with_digest(name)

        @contextmanager
        def opened() -> Iterator[Tree]:
            from stargz.layer import open as open_layer
            from stargz.oci.manifest import Descriptor
            from stargz.tree import Tree

            size = self._blob_size(reference)
            blob = self.client.open_blob(reference, Descriptor("", name, size))
            try:
                with open_layer(blob, **self._options) as layer:
                    yield Tree([layer], self._whiteouts)
            finally:
                blob.close()

        path = "/".join(("layers", *where, name))
        return self._open(("layer", str(reference)), path, opened, mount), _DIGEST_SECONDS

    def _blob_size(self, reference: Reference) -> int:
        from stargz.oci.registry import failure

        endpoints = self.client.endpoints(reference)
        for endpoint in endpoints:
            path = f"blobs/{reference.digest}"
            answer = self.client.request(reference, "HEAD", path, endpoint=endpoint)
            length = answer.headers.get("Content-Length", "")
            if answer.status == 200 and length.isdecimal():
                return int(length)
        raise failure(answer, reference)

    def _open(
        self,
        key: object,
        path: str,
        opened: Callable[[], Any],
        mount: Mount,
    ) -> Served:
        """The tree of a key: opened once, however many ask for it at the same time."""
        with self._lock:
            single = self._opening.setdefault(key, threading.Lock())
        with single:
            served = self._served.get(key)
            if served is None:
                with ExitStack() as stack:
                    served = mount.add(path, stack.enter_context(opened()))
                    kept = stack.pop_all()
                with self._lock:
                    self._stack.push(kept)
                    self._served[key] = served
        with self._lock:
            self._opening.pop(key, None)
        return served

    # --- local layers -------------------------------------------------------------------

    def _local_path(self, where: tuple[str, ...]) -> str | None:
        """The path of something below the local directory, links followed; None where that
        leads out of it."""
        if self._local is None:
            return None
        path = os.path.realpath("/".join((self._local, *where)))
        return path if path == self._local or path.startswith(self._local + "/") else None

    def _find_local(
        self, directory: _Directory, name: str, mount: Mount
    ) -> tuple[_Directory | Served | None, int]:
        where = (*directory.where, name)
        path = self._local_path(where)
        if path is None:
            return None, _LOCAL_SECONDS
        try:
            info = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None, _LOCAL_SECONDS
        if Path(path).is_dir():
            return self._directory("local", where), _LOCAL_SECONDS
        if not _is_layer(path):
            return None, _LOCAL_SECONDS

        @contextmanager
        def opened() -> Iterator[Tree]:
            from stargz.layer import open as open_layer
            from stargz.tree import Tree

            with open_layer(path, **self._options) as layer:
                yield Tree([layer], self._whiteouts)

        key = ("local", path, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
        served = self._open(key, "/".join(("layers/local", *where)), opened, mount)
        return served, _LOCAL_SECONDS

    # --- listings -----------------------------------------------------------------------

    def _changed(self, directory: _Directory) -> int:
        path = self._local_path(directory.where) if directory.kind == "local" else None
        if path is None:
            return directory.changed
        try:
            return Path(path).stat().st_mtime_ns
        except OSError:
            return directory.changed

    def _list(self, directory: _Directory) -> list[str]:
        if directory.kind == "":
            return ["images", "layers"]
        if directory.kind == "local":
            return self._list_local(directory)
        with self._lock:
            names = dict(directory.names)
        if not directory.where:
            names.update(dict.fromkeys(self._hosts))
            if directory.kind == "layers" and self._local is not None:
                names["local"] = None
        return list(names)

    def _list_local(self, directory: _Directory) -> list[str]:
        path = self._local_path(directory.where)
        if path is None:
            return []
        names = []
        for name in os.listdir(path):  # noqa: PTH208
            inside = self._local_path((*directory.where, name))
            if inside is not None and (Path(inside).is_dir() or _is_layer(inside)):
                names.append(name)
        return names


def _is_layer(path: str) -> bool:
    """Whether a file ends as a seekable layer does."""
    from stargz.footer import MAX_FOOTER_SIZE, parse_footer

    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_FOOTER_SIZE))
            parse_footer(file.read(MAX_FOOTER_SIZE), size, path)
    except (FormatError, OSError):
        return False
    return True


def _errno(error: Exception) -> int:
    if isinstance(error, RegistryError) and error.status in (401, 403):
        return errno.EACCES
    if isinstance(error, OSError) and not isinstance(error, StargzError) and error.errno:
        return error.errno
    return errno.EIO
