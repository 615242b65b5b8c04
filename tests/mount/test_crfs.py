"""A root of many images and layers: what is below a digest has it, and look-ups cost little."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import bombs
import layouts
import pytest
import registries
from blobs import tar_of
from mounts import clean_up, listed, needs_fuse, wait_for
from servers import Fault, FaultProxy, Request, flip

import stargz
from stargz.errors import RegistryError, UsageError
from stargz.mount import crfs, mount
from stargz.oci.formats.manifest import Descriptor
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.blob import RegistryBlob
from stargz.oci.registry.client import RegistryClient

GOOD = random.Random(11).randbytes(3_000_000)
EVIL = random.Random(12).randbytes(3_000_000)


@pytest.fixture(scope="module", autouse=True)
def fuse() -> None:
    needs_fuse()


class Served:
    """A registry behind a proxy with some/app:latest of one layer, and another layer's blob."""

    def __init__(self, proxy: FaultProxy, registry: registries.Registry, folder: Path) -> None:
        layout = layouts.Layout(folder)
        self.proxy = proxy
        self.host = proxy.url.removeprefix("http://")
        self.direct = registry.host
        self.good = layout.layer(tar_of([("file", GOOD), ("a", b"good")]))
        self.evil = layout.layer(tar_of([("file", EVIL), ("a", b"evil")]))
        plain = layout.plain_layer(tar_of([("file", GOOD)]))
        self.plain = plain["digest"]
        self.digest = self.good["digest"]
        # What a registry that lies gives out: the right blob, with the TOC of another.
        lying = {**self.evil, "digest": self.digest}
        for entry, tag in (
            (layout.manifest([self.good, self.evil, plain]), "all"),
            (layout.manifest([lying]), "lie"),
            (layout.manifest([{**lying, "annotations": {}}]), "bare-lie"),
            (layout.manifest([{**self.good, "annotations": {}}]), "bare"),
            (layout.manifest([self.good]), "latest"),
        ):
            layout.tag(entry, tag)
            registry.push(folder, "some/app", tag)
            self.image = entry["digest"]

    def tampered(self, request: Request) -> Fault | None:
        """The other layer's bytes under the digest of the good one."""
        if request.path.endswith(self.digest) and "/blobs/" in request.path:
            return Fault(path=request.path.replace(self.digest, self.evil["digest"]))
        return None


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("crfs")
    with (
        registries.registry(folder / "registry") as registry,
        FaultProxy(f"http://{registry.host}") as proxy,
    ):
        yield Served(proxy, registry, folder / "layout")


@pytest.fixture
def served(services: Served) -> Served:
    services.proxy.reset()
    return services


@contextmanager
def rooted(
    served: Served, directory: Path, host: str = "", **options: object
) -> Iterator[tuple[Path, Path, list[str], crfs.Root]]:
    """Where images and layers of some/app are in a mounted root, its log, and the root."""
    directory.mkdir(exist_ok=True)
    lines: list[str] = []
    host = host or served.host
    with registries.quick(**options) as client:
        root = crfs.Root([host], client=client, options={"cache": False})
        try:
            with mount(root, directory, cache=False, log=lines.append):
                app = f"{host}/some/app"
                yield directory / "images" / app, directory / "layers" / app, lines, root
        finally:
            clean_up(directory)


def refused(path: Path, number: int = errno.EIO) -> None:
    with pytest.raises(OSError) as caught:
        listed(path)
    assert caught.value.errno == number


def test_a_layer_is_what_its_digest_says(served: Served, tmp_path: Path) -> None:
    served.proxy.reset(served.tampered)
    with rooted(served, tmp_path / "mnt") as (_, layers, lines, root):
        refused(layers / served.digest)
        wait_for(lambda: lines)
        assert served.digest in lines[0] and served.evil["digest"] in lines[0]
        before = served.proxy.bytes
        refused(layers / served.digest)
        assert served.proxy.bytes == before  # what was wrong is not fetched again at once
        assert not root._opening
    served.proxy.reset()
    with rooted(served, tmp_path / "mnt") as (_, layers, lines, _):
        assert listed(layers / served.digest) == ["a", "file"]
        assert served.good["size"] <= served.proxy.bytes < served.good["size"] + 100_000
        served.proxy.reset(served.tampered)
        assert (layers / served.digest / "a").read_bytes() == b"good"
        assert (layers / served.digest / "file").read_bytes() == GOOD
        assert not lines and not served.proxy.requests


def test_a_manifest_vouches_for_a_layer(served: Served, tmp_path: Path) -> None:
    """One that was asked for by its digest: then the blob is read where it is read."""
    with rooted(served, tmp_path / "mnt") as (images, layers, lines, _):
        assert listed(images / served.image) == ["a", "file"]
        assert (layers / served.digest / "a").read_bytes() == b"good"
        assert served.proxy.bytes < served.good["size"] // 2
        assert not lines
    with rooted(served, tmp_path / "mnt") as (images, layers, _, _):
        assert listed(images / served.image) == ["a", "file"]
        served.proxy.reset(served.tampered)
        refused(layers / served.digest)


def test_a_tag_vouches_for_nothing(served: Served, tmp_path: Path) -> None:
    """What it means is the registry's word alone."""
    served.proxy.reset(served.tampered)
    with rooted(served, tmp_path / "mnt") as (images, layers, _, _):
        assert (images / "lie/a").read_bytes() == b"evil"
        refused(layers / served.digest)


def test_layers_that_a_manifest_does_not_vouch_for(served: Served, tmp_path: Path) -> None:
    """An image without TOC digests: its layers are checked as a whole, too."""
    with rooted(served, tmp_path / "mnt") as (images, _, lines, _):
        assert (images / "bare/a").read_bytes() == b"good"
        assert not lines
        served.proxy.reset(served.tampered)
        assert (images / "bare/file").read_bytes() == GOOD
        refused(images / "bare-lie")
        wait_for(lambda: lines)
        assert served.evil["digest"] in lines[0]


def test_a_manifest_that_is_wrong_hides_no_layer(served: Served, tmp_path: Path) -> None:
    with RegistryClient() as client:
        lie = client.digest(Reference(served.direct, "some/app", "lie"))
    with rooted(served, tmp_path / "mnt") as (images, layers, _, root):
        root._toc_digests[(served.host, "some", "app"), served.digest] = "sha256:" + "0" * 64
        refused(images / lie)
        assert (layers / served.digest / "a").read_bytes() == b"good"


def test_what_is_no_layer_is_not_fetched(served: Served, tmp_path: Path) -> None:
    with rooted(served, tmp_path / "mnt") as (_, layers, lines, _):
        refused(layers / served.plain)
        wait_for(lambda: lines)
        assert served.plain in lines[0]
        assert served.proxy.bytes < 10_000


@pytest.mark.parametrize("broken", [Fault(status=500), Fault(status=404), Fault(refuse=True)])
def test_mirrors_that_fail(served: Served, tmp_path: Path, broken: Fault) -> None:
    served.proxy.reset(lambda request: broken)
    mirrors = {served.direct: [served.proxy.url]}
    options = {"mirrors": mirrors}
    with rooted(served, tmp_path / "mnt", served.direct, **options) as (_, layers, lines, _):
        assert (layers / served.digest / "a").read_bytes() == b"good"
        assert not (layers / ("sha256:" + "0" * 64)).exists()
        assert served.proxy.requests and not lines


def corrupted(request: Request) -> Fault | None:
    return Fault(corrupt=flip) if "/blobs/" in request.path else None


@pytest.mark.parametrize("how", ["another blob", "wrong bytes"])
def test_a_mirror_that_lies(served: Served, how: str) -> None:
    """The registry behind it has the right bytes."""
    served.proxy.reset(served.tampered if how == "another blob" else corrupted)
    mirrors = {served.direct: [served.proxy.url]}
    reference = Reference(served.direct, "some/app").with_digest(served.digest)
    with registries.quick(mirrors=mirrors) as client:
        blob = RegistryBlob(client, reference, Descriptor("", served.digest, served.good["size"]))
        with closing(blob.read_whole()) as whole:
            data = whole.read_at(0, whole.size)
        assert "sha256:" + hashlib.sha256(data).hexdigest() == served.digest
        assert served.proxy.requests


def test_blob_size_errors(served: Served) -> None:
    reference = Reference(served.direct, "some/app").with_digest(served.digest)
    mirrors = {served.direct: [served.proxy.url]}
    with registries.quick(mirrors=mirrors) as client:
        served.proxy.reset(lambda request: Fault(status=500))
        assert client.blob_size(reference) == served.good["size"]
        with pytest.raises(RegistryError) as caught:
            client.blob_size(reference.with_digest("sha256:" + "0" * 64))
        assert caught.value.status == 404  # of the registry itself, not the mirror's
    reference = Reference(served.host, "some/app").with_digest(served.digest)
    with registries.quick() as client:
        served.proxy.reset(lambda request: Fault(drop=("Content-Length",)))
        with pytest.raises(RegistryError, match="size"):
            client.blob_size(reference)


def test_failures_are_not_remembered(served: Served, tmp_path: Path) -> None:
    served.proxy.reset(lambda request: Fault(status=403))
    with rooted(served, tmp_path / "mnt") as (_, layers, _, root):
        refused(layers / served.digest, errno.EACCES)
        assert not root._opening
        served.proxy.reset()
        assert listed(layers / served.digest) == ["a", "file"]
        assert not root._opening


def test_repositories_are_asked_for_one_tag(served: Served, tmp_path: Path) -> None:
    with rooted(served, tmp_path / "mnt") as (images, _, _, _):
        assert not (images / "none").exists()
        assert not (images.parent / "app/none").exists()
        asked = [r.path for r in served.proxy.log if "/tags/list" in r.path]
        assert asked and all(path.endswith("?n=1") for path in asked)


def test_directories_are_forgotten(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks makes directories: the oldest that are empty make room."""
    monkeypatch.setattr(crfs, "_DIRECTORIES_MAX", 20)
    with rooted(served, tmp_path / "mnt") as (images, _, _, root):
        assert listed(images / "latest") == ["a", "file"]
        host = images.parents[1]
        with os_open(host / "stale") as stale:
            for number in range(100):
                assert (host / f"name{number}").is_dir()
                assert not (host / f"name{number}/Deep").exists()
            assert len(root._directories) == 20
            assert len(root._by_place) <= 20
            assert listed(host)[-2:] == ["name99", "some"]
            assert len(listed(host)) < 20
            with pytest.raises(OSError) as caught:
                os.stat("x", dir_fd=stale)
            assert caught.value.errno == errno.ESTALE
        assert (host / "stale").is_dir()
        # What leads to an image stays, however long ago it was looked up.
        assert (images / "latest/a").read_bytes() == b"good"
        assert root._directories[1].kind == ""


def test_a_host_that_stalls_does_not_hold_up_the_rest(served: Served, tmp_path: Path) -> None:
    local, root = tmp_path / "local", tmp_path / "mnt"
    local.mkdir()
    root.mkdir()
    with (
        registries.quick() as client,
        mount(crfs.Root([served.host], local=local, client=client), root, cache=False),
    ):
        served.proxy.reset(lambda request: Fault(stall_after=0))
        code = "import os, sys; os.path.exists(sys.argv[1])"
        waiting = [
            subprocess.Popen([sys.executable, "-c", code, root / f"images/{served.host}/x/t{n}"])
            for n in range(10)
        ]
        try:
            wait_for(lambda: served.proxy.requests >= 8)
            assert listed(root / "layers/local") == []
            assert listed(root) == ["images", "layers"]
            assert os.statvfs(root).f_namemax == 255
        finally:
            for process in waiting:
                process.kill()
                process.wait()
            served.proxy.reset()
            clean_up(root)


@contextmanager
def local_root(tmp_path: Path, layers: int) -> Iterator[tuple[Path, Path, list[str]]]:
    """A directory of layers, where they are mounted, and the log."""
    local, where = tmp_path / "local", tmp_path / "mnt"
    local.mkdir()
    where.mkdir()
    for number in range(layers):
        stargz.convert(tar_of([("file", b"%d" % number)]), local / f"l{number}")
    lines: list[str] = []
    try:
        with mount(crfs.Root(local=local), where, cache=False, log=lines.append):
            yield local, where / "layers/local", lines
    finally:
        clean_up(where)


def test_many_local_layers_take_no_descriptors(tmp_path: Path) -> None:
    with local_root(tmp_path, 40) as (_, mounted, lines):
        assert len(listed(mounted)) == 40
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(2):
            for number in range(40):
                assert (mounted / f"l{number}/file").read_bytes() == b"%d" % number
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
        assert not lines


def test_without_descriptors_nothing_is_said_to_be_absent(tmp_path: Path) -> None:
    with local_root(tmp_path, 3) as (_, mounted, lines):
        assert (mounted / "l0/file").read_bytes() == b"0"
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            for name in ("l1", "l1/file", "l2"):
                with pytest.raises(OSError) as caught:
                    (mounted / name).stat()
                assert caught.value.errno == errno.EMFILE
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        wait_for(lambda: len(lines) >= 3)
        assert all("/layers/local/l" in line and "open files" in line for line in lines), lines
        assert (mounted / "l1/file").read_bytes() == b"1"
        with pytest.raises(FileNotFoundError):
            (mounted / "l3").stat()


def test_a_layer_does_not_keep_all_threads(tmp_path: Path) -> None:
    """What takes minutes to decode is not done by who serves: other reads are answered meanwhile,
    a reader can be killed, and the mount can end."""
    read = "import os, sys; os.pread(os.open(sys.argv[1], os.O_RDONLY), 1, 0)"
    names = [f"f{number}" for number in range(6)]
    readers: list[subprocess.Popen[bytes]] = []

    def reader(path: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", read, str(path)]
        readers.append(subprocess.Popen(words, stderr=subprocess.DEVNULL))
        return readers[-1]

    local, where = tmp_path / "local", tmp_path / "mnt"
    local.mkdir()
    where.mkdir()
    bombs.layer(local / "bomb", names, 16 << 30)
    stargz.convert(tar_of([("file", b"good")]), local / "good")
    try:
        with mount(crfs.Root(local=local), where, cache=False, threads=2) as mounted:
            held = [reader(where / "layers/local/bomb" / name) for name in names]
            wait_for(lambda: mounted.server.stats()["parked"] >= 6)
            assert reader(where / "layers/local/good/file").wait(timeout=60) == 0
            assert all(process.poll() is None for process in held)
            for process in held[:3]:
                process.kill()
                process.wait(timeout=60)
        assert [t.name for t in threading.enumerate() if t.name == "stargz-serve"] == []
        assert all(process.wait(timeout=60) for process in held)
    finally:
        for process in readers:
            process.kill()
            process.wait()
        clean_up(where)


def test_a_local_layer_that_is_replaced(tmp_path: Path) -> None:
    """Where it was opened before it is stale, never of other bytes; a look-up finds the new one."""
    with local_root(tmp_path, 1) as (local, mounted, lines):
        with (mounted / "l0/file").open("rb") as old:
            stargz.convert(tar_of([("file", b"X")]), local / "new")
            (local / "new").replace(local / "l0")
            with pytest.raises(OSError) as caught:
                old.read()
            assert caught.value.errno == errno.EIO
        wait_for(lambda: bool(lines))
        assert "changed or replaced" in lines[0]

        def found() -> bool:  # once the kernel has forgotten the old one: after a second
            with suppress(OSError):
                return (mounted / "l0/file").read_bytes() == b"X"
            return False

        wait_for(found)


@contextmanager
def os_open(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("host", ["http://host.example", "host/path", "", "host:0", "a b"])
def test_hosts_are_checked(host: str) -> None:
    with pytest.raises(UsageError, match="is not host"):
        crfs.Root([host])


def test_ordinary_tars_in_a_local_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are listed by their first bytes, and indexed when one looks into them."""
    kept = tmp_path / "cache"
    monkeypatch.setenv("STARGZ_CACHE_DIR", str(kept))
    tar = tar_of([("file", b"contents")])
    with local_root(tmp_path, 1) as (local, mounted, lines):
        (local / "any.tar").write_bytes(tar)
        (local / "any.tar.gz").write_bytes(gzip.compress(tar))
        (local / "with.tgz").write_bytes(gzip.compress(tar, 1))
        made = stargz.index(local / "with.tgz")
        (local / "broken.tgz").write_bytes(gzip.compress(tar)[:-20])
        (local / "notes.gz").write_bytes(gzip.compress(b"no tar" * 1000))
        (local / "text").write_bytes(b"no tar")
        (local / "empty").write_bytes(b"")
        listing = ["any.tar", "any.tar.gz", "broken.tgz", "l0", "with.tgz"]
        assert listed(mounted) == listing
        assert not list(kept.rglob("index*/*")), "listing makes none"
        before = len(list(Path("/proc/self/fd").iterdir()))
        for name in ("with.tgz", "any.tar", "any.tar.gz"):
            assert (mounted / name / "file").read_bytes() == b"contents"
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
        assert not lines
        with pytest.raises(OSError) as caught:
            (mounted / "broken.tgz/file").stat()
        assert caught.value.errno == errno.EIO
        wait_for(lambda: lines)
        assert "broken.tgz" in lines[0] and "truncated" in lines[0]
        for name in ("notes.gz", "text", "empty", made.path or ""):
            assert not (mounted / Path(name).name).exists()
        # Another tar in its place.
        (local / "new").write_bytes(gzip.compress(tar_of([("file", b"another")])))
        (local / "new").replace(local / "any.tar.gz")
        wait_for(lambda: (mounted / "any.tar.gz/file").read_bytes() == b"another")


def test_images_that_are_not_seekable(services: Served, tmp_path: Path) -> None:
    """By their SOCI index, which the manifest names, a part of a layer is fetched; without one all
    of it, once, to be indexed."""
    stargz.index_image(
        f"docker://{services.direct}/some/app:all",
        f"docker://{services.direct}/some/app:soci",
        min_layer_size=0,
        span_size=64 << 10,
        plain_http=True,
    )
    with rooted(services, tmp_path / "mnt") as (images, _, lines, _root):
        for tag, least, most in (("soci", 1, 1 << 20), ("all", 3_000_000, 7_000_000)):
            services.proxy.reset()
            with (images / tag / "file").open("rb") as file:
                assert file.read(1000) == GOOD[:1000]
            answers = [sent for sent in services.proxy.log if sent.path.endswith(services.plain)]
            assert least <= sum(sent.sent for sent in answers) <= most, tag
            assert (images / tag / "a").read_bytes() == b"evil"
        assert not lines
