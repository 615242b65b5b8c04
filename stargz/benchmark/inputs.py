"""What is measured on: a tar, tar.gz, directory or image as it was given, and what is made of
it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stargz.benchmark import deltas, layouts, mounts, peers, tally, trees
from stargz.benchmark.measuring import UnableError
from stargz.compressions import HEAD
from stargz.errors import StargzError, UsageError

Kind = Literal["tar", "tar.gz", "tar.zst", "directory", "image"]

# Of files that are read as the one small file.
_SMALL = 64 << 10


@dataclass(frozen=True)
class Small:
    """A file in the middle of the tar: on the way to it a reader of a tar.gz inflates half."""

    name: str  # as layers have it
    stated: str  # as the tar has it
    content: bytes


def check(src: str) -> str:
    """SRC as it is called by its kind: the name of an image with its prefix; and that it is there.
    The command checks all before it measures the first."""
    from stargz.oci.formats.recognise import archive_kind
    from stargz.oci.formats.reference import IMAGE_PREFIXES, parse_image

    path = Path(src)
    if src.startswith(IMAGE_PREFIXES) and not path.exists():
        parse_image(src)
        return src
    if "://" in src and not path.exists():
        raise UsageError(f"{src}: a URL; bench takes files, directories and images: download it")
    if path.is_dir():
        return f"oci:{src}" if (path / "oci-layout").exists() else src
    if not path.is_file():
        path.stat()  # OSError where nothing is there
        raise UsageError(f"{src}: is no file, directory or image")
    kind = archive_kind(src)
    return f"{kind}:{src}" if kind else src


def size_of(src: str) -> int:
    """About how large a tar it will be; 0 for what must be fetched to know."""
    path = Path(src)
    if path.is_dir():
        return sum(
            os.lstat(f"{folder}/{name}").st_size
            for folder, _, files in os.walk(path)
            for name in files
            if os.path.lexists(f"{folder}/{name}")
        )
    return 3 * path.stat().st_size if path.is_file() else 0


class Input:
    """One SRC. What is made of it is made when it is first asked for, in `folder`."""

    def __init__(
        self, source: str, folder: Path, image_options: dict[str, Any] | None = None, name: str = ""
    ) -> None:
        from stargz.oci.formats.reference import IMAGE_PREFIXES

        self.source = name or source
        self.folder = folder
        self.tar = folder / "layer.tar"
        self.packed = folder / "layer.tar.gz"
        path = Path(source).resolve()  # zstd takes no symlinks
        if source.startswith(IMAGE_PREFIXES) and not Path(source).exists():
            self.kind: Kind = "image"
            self.given = self._image(source, image_options or {})
            inside = self._unpack(self.given)
        elif path.is_dir():
            self.kind, self.given = "directory", path
            trees.pack_tree(path, self.tar)
            inside = "directory"
        else:
            self.given = path
            self.kind = inside = self._unpack(path)
        #: Whether its tar.gz is one that was given, and not made here by gzip -6.
        self.was_packed = inside == "tar.gz"
        if self.was_packed and self.given.suffix in (".gz", ".tgz"):
            self.packed = self.given
        elif self.was_packed:
            _link(self.given, self.packed)
        try:
            self.truth = self._truth()
        except _tar_errors() as error:
            raise StargzError(f"{self.source}: no tar that can be read: {error}") from None
        if not self.packed.exists():
            gzip6(self.tar, self.packed)

    def _image(self, source: str, options: dict[str, Any]) -> Path:
        """Copy an image into a layout; its largest layer is what is measured as a layer."""
        from stargz.oci.loading import load_image

        with load_image(source, **options) as image:
            if not image.descriptors:
                raise StargzError(f"{source}: an image without layers")
            layouts.copy_image(image, self.layout_folder)
            largest = max(image.descriptors, key=lambda entry: entry.size)
            self.layers = len(image.descriptors)
        algorithm, _, value = largest.digest.partition(":")
        return self.layout_folder / "blobs" / algorithm / value

    def _unpack(self, path: Path) -> Kind:
        """Have the plain tar."""
        from stargz._engine.write import unwrap
        from stargz.compressions import compression

        with path.open("rb") as file:
            kind = compression(os.pread(file.fileno(), HEAD, 0))
            if kind is None:
                self.tar = path
                return "tar"
            if kind not in ("gzip", "zstd"):
                raise UsageError(
                    f"{self.source}: compressed by {kind}; bench takes tar, tar.gz and tar.zst"
                )
            with self.tar.open("wb") as out:
                unwrap(file.fileno(), out.fileno(), source_name=str(path))
            return "tar.gz" if kind == "gzip" else "tar.zst"

    def _truth(self) -> tally.Tally:
        """What is in its files, by Python's tarfile, and nobody of those that are measured."""
        import tarfile

        found = tally.Tally()
        candidates: list[tuple[int, str, int]] = []  # where, name, size
        with tarfile.open(self.tar, "r:", errors="surrogateescape") as tar:
            tally.of_tar(tar, found)
            names: dict[str, int] = {}
            for info in tar.getmembers():
                names[tally.clean(info.name)] = names.get(tally.clean(info.name), 0) + 1
                if info.isreg() and 0 < info.size <= _SMALL and info.name.isprintable():
                    candidates.append((info.offset_data, info.name, info.size))
            candidates = [one for one in candidates if names[tally.clean(one[1])] == 1]
            middle = self.tar.stat().st_size // 2
            if candidates:
                _, stated, _ = min(candidates, key=lambda one: abs(one[0] - middle))
                file = tar.extractfile(stated)
                assert file is not None
                self.small: Small | None = Small(tally.clean(stated), stated, file.read())
            else:
                self.small = None
        return found

    @property
    def size(self) -> int:
        """Bytes of the tar."""
        return self.tar.stat().st_size

    def to_json(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            "source": self.source,
            "kind": self.kind,
            "tar_bytes": self.size,
            "tar_gz_bytes": self.packed.stat().st_size,
            "entries": self.truth.entries,
            "files": self.truth.files,
            "file_bytes": self.truth.bytes,
            **({"layers": self.layers} if self.kind == "image" else {}),
        }

    # --- what is made of it -------------------------------------------------------------

    def _make(self, name: str, make: Callable[[Path], object]) -> Path:
        path = self.folder / name
        make(path)
        return path

    @cached_property
    def layer(self) -> Path:
        """Converted to eStargz, by default."""
        from stargz.conversion import convert

        return self._make("layer.stargz", lambda path: convert(self.packed, path))

    @cached_property
    def index(self) -> Path:
        """The index of the tar.gz."""
        from stargz.indexing import index

        return self._make("layer.index", lambda path: index(self.packed, path))

    @cached_property
    def index_of_indexed_gzip(self) -> Path:
        """Likewise, that package's."""
        return self._make("indexed", lambda path: peers.index_by_indexed_gzip(self.packed, path))

    @cached_property
    def index_of_rapidgzip(self) -> Path:
        """Likewise, that package's."""
        return self._make("rapid", lambda path: peers.index_by_rapidgzip(self.packed, path))

    @cached_property
    def index_of_ratarmount(self) -> Path:
        """Likewise, that program's."""

        def make(path: Path) -> None:
            with mounts.ratarmount(self.packed, path, self.folder / "ratarmount-first") as mounted:
                mounted.mount()

        return self._make("ratarmount.sqlite", make)

    @cached_property
    def tree(self) -> Path:
        """Unpacked, with the device nodes if that is allowed; `left_out` says how many are not
        there. (Not a directory that was given: what is in that is nobody's to change.)"""
        from stargz.opening import open as open_layer

        def make(path: Path) -> None:
            with open_layer(self.layer) as layer:
                done = layer.extractall(path, devices=not os.geteuid())
                self.left_out = done.skipped.get("device nodes", 0)

        return self._make("tree", make)

    @cached_property
    def zip(self) -> Path:
        """A zip of the same files."""
        return self._make("layer.zip", lambda path: peers.zip_tree(self.tree, path))

    @cached_property
    def squashfs(self) -> Path:
        """A squashfs image of the same files."""
        return self._make("layer.squashfs", lambda path: peers.mksquashfs(self.tree, path))

    def compressed(self, name: str) -> Path:
        """The tar, as one of `peers.COMPRESSORS` packs it."""
        path = self.folder / f"packed-{name.split()[0]}{peers.suffix(name)}"
        if not path.exists():
            peers.compress(name, self.tar, path)
        return path

    @property
    def layout_folder(self) -> Path:
        """Where the layout is, or will be."""
        return self.folder / "layout"

    @cached_property
    def layout(self) -> Path:
        """An OCI layout: of the image that was given, or of one with this as its only layer."""
        if self.kind != "image":
            layouts.write_layout(self.layout_folder, [(self.tar, self.packed)])
        return self.layout_folder

    @cached_property
    def second(self) -> Second:
        """The tree as it is after some work."""
        return Second(self)


class Second:
    """The tree of an input before and after 1% of it has changed, and what was made of both."""

    def __init__(self, given: Input) -> None:
        from stargz.packing import pack

        if not given.truth.bytes:
            raise UnableError(trees.UNCHANGEABLE)
        folder = given.folder / "second"
        trees.empty(folder)
        self.first, self.tree = given.tree, folder / "tree"
        trees.copy(given.tree, self.tree)
        self.old, self.new = folder / "old.stargz", folder / "new.stargz"
        self.old_tar, self.new_tar = folder / "old.tar", folder / "new.tar"
        trees.settle()
        pack(self.tree, self.old)
        trees.pack_tree(self.tree, self.old_tar)
        self.changed = trees.edit(self.tree)
        pack(self.tree, self.new)
        trees.pack_tree(self.tree, self.new_tar)
        self.truth = tally.of_tree(self.tree, tally.Tally())

    @cached_property
    def patch(self) -> Path:
        """From the old layer to the new one."""
        from stargz.patching.make import delta

        path = self.old.with_name("patch")
        delta(self.old, self.new, path)
        return path

    @cached_property
    def zstd(self) -> Path:
        """From the old tar to the new one, by zstd."""
        path = self.old.with_name("patch.zst")
        deltas.zstd_patch(self.old_tar, self.new_tar, path)
        return path

    @cached_property
    def xdelta(self) -> Path:
        """Likewise, by xdelta3."""
        path = self.old.with_name("patch.xdelta")
        deltas.xdelta_patch(self.old_tar, self.new_tar, path)
        return path


def _link(src: Path, dst: Path) -> None:
    """The same file by a name that gzip knows: it reads no others, and no symlinks."""
    import shutil

    try:
        dst.hardlink_to(src)
    except OSError:  # on another file system
        shutil.copyfile(src, dst)


def gzip6(tar: Path, out: Path) -> None:
    """Compress as most layers are: by gzip -6, or Python's where there is none."""
    if peers.has("gzip"):
        peers.compress("gzip -6", tar, out)
        return
    import gzip
    import shutil

    with tar.open("rb") as reader, gzip.GzipFile(out, "wb", 6, mtime=0) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def _tar_errors() -> tuple[type[Exception], ...]:
    import tarfile

    return (tarfile.TarError, EOFError, ValueError, OverflowError)
