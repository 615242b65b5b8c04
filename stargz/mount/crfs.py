"""A root of many images and layers, found as they are looked up.

    images/HOST/REPOSITORY/TAG/...     the merged files of an image, by tag or digest
    layers/HOST/REPOSITORY/DIGEST/...  one layer of a repository
    layers/local/FILE/...              the layers in a local directory, and ordinary tars

Only hosts that were allowed exist: a look-up below one is a request with the credentials of who
mounted, whoever makes it.

What is read below a digest is what has that digest. An image's manifest vouches for its layers'
TOCs, and those for every chunk; or for its SOCI index, and that for every span. A layer with
neither is read once, to be indexed. For a layer that is looked up alone an image vouches that
was looked up before, by digest, in the same repository. Where nothing vouches for a layer in this
way the whole blob is fetched once, into a temporary file, and checked against its own digest.
Content that has another one is EIO, and a line in the log.

Registries tell whether they have an image, but not which names begin with "some/": what is not
an image may lead to one, and is an empty directory.
"""

from __future__ import annotations

import copy
import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stargz.digests import is_sha256
from stargz.errors import DigestError, FormatError, RegistryError, StargzError, UnverifiedError
from stargz.mount.serving import Asked
from stargz.oci.formats.reference import Reference, check_registry, is_repository, is_tag

if TYPE_CHECKING:
    from stargz._engine.mount import Request
    from stargz.layer import Layer
    from stargz.mount.serving import Mount, Served
    from stargz.oci.formats.manifest import Descriptor
    from stargz.oci.image import Image
    from stargz.oci.registry.blob import RegistryBlob
    from stargz.oci.registry.client import RegistryClient
    from stargz.tree import Tree, Whiteouts

# Seconds that the kernel may remember a name: of a digest, of a tag, of what is not there.
_DIGEST_SECONDS = 86400
_TAG_SECONDS = 30
_ABSENT_SECONDS = 5
_LOCAL_SECONDS = 1

# Errors that are of this process, not of the file.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_DEPTH_MAX = 8  # of a repository's name
# All directories together, since whoever may look may make them; and what is remembered of names.
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


@dataclass(eq=False)
class _Opening:
    """What is just being opened, and how many wait for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class Root(Asked):
    """Answers for the directories above the images and layers of one mount.

    `hosts` are the registries (host[:port]) that exist; UsageError for what is none. `local` is the
    directory of `layers/local`. `client` asks the registries (default: a new one). `platform` is
    that of images for several, `whiteouts` those of single layers. `options` are those of
    `stargz.open` that all layers are opened with.
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
        for host in hosts:
            check_registry(host)
        self._hosts = tuple(hosts)
        self._local = None if local is None else os.path.realpath(local)
        self._client: RegistryClient | None = client
        self._platform = platform
        self._whiteouts = whiteouts
        self._options = options or {}
        self._lock = threading.Lock()
        self._directories: dict[int, _Directory] = {1: _Directory(1, "")}
        self._by_place: dict[tuple[str, tuple[str, ...]], _Directory] = {}
        # Those that can be forgotten, by node: the one that was not looked up for longest first.
        self._empty: OrderedDict[int, _Directory] = OrderedDict()
        self._last_node = 1
        self._served: dict[object, Served] = {}
        self._opening: dict[object, _Opening] = {}
        self._refused: dict[object, tuple[float, StargzError]] = {}
        # By repository and digest of a blob, the digests of TOCs that manifests give for it.
        self._toc_digests: dict[tuple[tuple[str, ...], str], str] = {}
        self._repositories: dict[tuple[str, ...], tuple[float, bool]] = {}
        self._stack = ExitStack()

    def close(self) -> None:
        """Close every image and layer that was opened."""
        self._stack.close()

    # --- requests -----------------------------------------------------------------------

    def slow(self, request: Request) -> bool:
        """Whether it is a look-up below a host, or of a local layer, which must be opened."""
        directory = self._directories.get(request.node)
        return (
            request.kind == "lookup"
            and directory is not None
            and (directory.kind == "local" or bool(directory.where))
        )

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
            where = name
            if directory:
                top = "layers/local" if directory.kind == "local" else directory.kind
                where = "/".join((top, *directory.where, name))
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
        self._note(directory, name)
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

    def _note(self, directory: _Directory, name: str) -> None:
        """From now on a name is listed."""
        with self._lock:
            if (
                name not in directory.names
                and directory.kind != "local"
                and directory.node in self._directories
            ):
                directory.names[name] = None
                directory.changed = time.time_ns()
                self._empty.pop(directory.node, None)

    def _directory(self, kind: str, where: tuple[str, ...]) -> _Directory | None:
        with self._lock:
            found = self._by_place.get((kind, where))
            if found is None:
                if len(self._directories) >= _DIRECTORIES_MAX and not self._forget_one():
                    return None
                self._last_node += 1  # never one that the kernel may still know
                found = _Directory(self._last_node, kind, where)
                self._directories[found.node] = self._by_place[kind, where] = found
                if _can_go(found):
                    self._empty[found.node] = found
            elif found.node in self._empty:
                self._empty.move_to_end(found.node)
            return found

    def _forget_one(self) -> bool:
        """Make room for a directory; whether there was an empty one. The kernel is told that it
        is stale, and looks it up anew."""
        if not self._empty:
            return False
        node, old = self._empty.popitem(last=False)
        del self._directories[node]
        del self._by_place[old.kind, old.where]
        parent = self._by_place.get((old.kind, old.where[:-1]))
        if parent is not None and parent.names.pop(old.where[-1], self) is None:
            parent.changed = time.time_ns()
            if _can_go(parent):
                self._empty[parent.node] = parent
        return True

    def _component(self, directory: _Directory, name: str) -> _Directory | None:
        """The directory of one more component of a repository's name."""
        if not is_repository(name) or len(directory.where) > _DEPTH_MAX:
            return None
        return self._directory(directory.kind, (*directory.where, name))

    # --- images and layers --------------------------------------------------------------

    @property
    def client(self) -> RegistryClient:
        """Who asks the registries; made when it is first needed."""
        with self._lock:
            if self._client is None:
                from stargz.oci.registry.client import RegistryClient

                self._client = self._stack.enter_context(RegistryClient())
            return self._client

    def _reference(self, where: tuple[str, ...]) -> Reference:
        return Reference(where[0], "/".join(where[1:]))

    def _find_image(
        self, directory: _Directory, name: str, mount: Mount
    ) -> tuple[_Directory | Served | None, int]:
        where = directory.where
        if len(where) < 2:  # no repository yet
            return self._component(directory, name), _TAG_SECONDS
        reference = self._reference(where)
        by_digest = is_sha256(name)
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
            from stargz.oci.image import is_verified, open_image
            from stargz.tree import Tree

            source = f"docker://{pinned}"
            # What has no index gets one, which takes all of the layer: as `stargz mount` does.
            options = {"index": "build", "client": self.client, **self._options}
            platform = self._platform
            with open_image(source, platform=platform, **options) as image, ExitStack() as stack:
                layers = list(image.layers)
                for number, entry in enumerate(image.descriptors):
                    by_ztoc = image.ways.get(number) == "ztoc"  # which the manifest names
                    if not by_ztoc and not is_verified(layers[number]):
                        blob = self._open_blob(pinned, entry, stack)
                        layers[number] = self._open_whole(blob, stack)
                if by_digest:
                    self._learn(where, image)
                yield Tree(layers, name=image.name)

        path = "/".join(("images", *where, name))
        served = self._open(("image", str(pinned)), path, opened, mount)
        return served, _DIGEST_SECONDS if by_digest else _TAG_SECONDS

    def _digest(self, reference: Reference, tag: str) -> str | None:
        if not is_tag(tag):
            return None
        try:
            return self.client.digest(reference.with_tag(tag))
        except RegistryError as error:
            if error.status == 404:
                return None
            raise

    def _is_repository(self, where: tuple[str, ...]) -> bool:
        """Whether a registry knows a repository of this name."""
        if not is_repository("/".join(where[1:]), where[0]):
            return False
        expires, known = self._repositories.get(where, (0.0, False))
        if expires > time.monotonic():
            return known
        known = self.client.knows(self._reference(where))
        with self._lock:
            if len(self._repositories) >= _DIRECTORIES_MAX:
                self._repositories.clear()
            self._repositories[where] = time.monotonic() + _ABSENT_SECONDS, known
        return known

    def _find_layer(
        self, directory: _Directory, name: str, mount: Mount
    ) -> tuple[_Directory | Served | None, int]:
        where = directory.where
        if not is_sha256(name):
            return self._component(directory, name), _TAG_SECONDS
        if len(where) < 2:
            return None, _DIGEST_SECONDS
        reference = self._reference(where).with_digest(name)

        @contextmanager
        def opened() -> Iterator[Tree]:
            from stargz.tree import Tree

            with self._open_layer(reference, self._toc_digests.get((where, name))) as layer:
                yield Tree([layer], self._whiteouts)

        path = "/".join(("layers", *where, name))
        return self._open(("layer", str(reference)), path, opened, mount), _DIGEST_SECONDS

    def _learn(self, where: tuple[str, ...], image: Image) -> None:
        """What an image that was asked for by its digest says of its layers. (By tag it would be
        the registry's word alone.)"""
        for number, entry in enumerate(image.descriptors):
            toc_digest = image.toc_digest(number)
            if toc_digest is not None:
                with self._lock:
                    if len(self._toc_digests) >= _DIRECTORIES_MAX:
                        self._toc_digests.clear()
                    self._toc_digests[where, entry.digest] = toc_digest

    @contextmanager
    def _open_layer(self, reference: Reference, toc_digest: str | None) -> Iterator[Layer]:
        """A layer whose bytes are tied to the digest in its reference: by the digest of its TOC,
        else by all of the blob."""
        from stargz.footer import MAX_FOOTER_SIZE, parse_footer
        from stargz.oci.formats.manifest import Descriptor
        from stargz.opening import open as open_layer

        assert reference.digest is not None
        size = self.client.blob_size(reference)
        with ExitStack() as stack:
            entry = Descriptor("", reference.digest, size)
            blob = self._open_blob(reference, entry, stack)
            tail = min(size, MAX_FOOTER_SIZE)  # before all of what is no layer is fetched
            parse_footer(blob.read_at(size - tail, tail), size, blob.name)
            if toc_digest is not None:
                trust = {"toc_digest": toc_digest, "require_verified": True}
                options = {**self._options, **trust}
                try:
                    layer = stack.enter_context(open_layer(blob, **options))
                except (DigestError, UnverifiedError):
                    toc_digest = None  # not one that a manifest can vouch for, or is right about
            if toc_digest is None:
                layer = self._open_whole(blob, stack)
            yield layer

    def _open_blob(self, reference: Reference, entry: Descriptor, stack: ExitStack) -> RegistryBlob:
        from stargz.oci.registry.blob import RegistryBlob

        return stack.enter_context(closing(RegistryBlob(self.client, reference, entry)))

    def _open_whole(self, blob: RegistryBlob, stack: ExitStack) -> Layer:
        from stargz.opening import open as open_layer

        whole = stack.enter_context(closing(blob.read_whole()))
        options = {**self._options, "require_verified": False}  # all of it is
        return stack.enter_context(open_layer(whole, **options))

    def _open(
        self,
        key: object,
        path: str,
        opened: Callable[[], Any],
        mount: Mount,
    ) -> Served:
        """The tree of a key: opened once, however many ask for it at the same time."""
        with self._lock:
            opening = self._opening.setdefault(key, _Opening())
            opening.users += 1
        known = None
        try:
            with opening.lock:
                served = self._served.get(key)
                if served is None:
                    expires, refused = self._refused.get(key, (0.0, None))
                    if refused is not None and expires > time.monotonic():
                        known = copy.copy(refused)
                        raise known
                    with ExitStack() as stack:
                        served = mount.add(path, stack.enter_context(opened()))
                        kept = stack.pop_all()
                    with self._lock:
                        self._stack.push(kept)
                        self._served[key] = served
                return served
        except (FormatError, DigestError) as error:
            # Not to fetch all of it again for every look-up.
            if error is not known:
                with self._lock:
                    if len(self._refused) >= _DIRECTORIES_MAX:
                        self._refused.clear()
                    # Without the frames it came through: they hold on to the blob.
                    self._refused[key] = time.monotonic() + _TAG_SECONDS, copy.copy(error)
            raise
        finally:
            with self._lock:
                opening.users -= 1
                if not opening.users:
                    del self._opening[key]

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
        if not _is_shown(path):
            return None, _LOCAL_SECONDS

        @contextmanager
        def opened() -> Iterator[Tree]:
            from stargz.opening import open as open_layer
            from stargz.sources.local import NamedSource
            from stargz.tree import Tree

            # Without a descriptor each: there may be any number of them.
            source = closing(NamedSource(path))
            with source as blob, open_layer(blob, **self._options) as layer:
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
            try:
                if inside is not None and (Path(inside).is_dir() or _is_shown(inside)):
                    names.append(name)
            except OSError as error:
                if error.errno in _SHORT:
                    raise
                # One that cannot be read does not hide the others.
        return names


def _can_go(directory: _Directory) -> bool:
    """Whether nothing is lost if a directory is forgotten: it is no fixed one, and empty."""
    return len(directory.where) >= (1 if directory.kind == "local" else 2) and not directory.names


def _is_shown(path: str) -> bool:
    """Whether a file ends as a seekable layer does, or begins as a tar. Neither its TOC nor its
    index is looked at. OSError where that cannot be told: that a name is not there is only said
    when it is not."""
    from stargz.footer import kind_of
    from stargz.indexes import begins_as_tar
    from stargz.sources.local import LocalSource

    try:
        if not Path(path).is_file():
            return False
        with closing(LocalSource(path)) as file:
            return kind_of(file) is not None or begins_as_tar(file)
    except (FormatError, FileNotFoundError, NotADirectoryError):
        return False


def _errno(error: Exception) -> int:
    if isinstance(error, RegistryError) and error.status in (401, 403):
        return errno.EACCES
    if isinstance(error, OSError) and not isinstance(error, StargzError) and error.errno:
        return error.errno
    return errno.EIO
