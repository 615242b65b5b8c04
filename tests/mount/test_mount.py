"""Kernel mounts against the trees that they are made of."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import random
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from blobs import build, tar_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mounts import CAPABILITY, IMPLIED, clean_up, listed, mount_line, needs_fuse, root_tar, wait_for
from trees import snapshot

import stargz
from stargz.errors import UsageError
from stargz.mount import Mount, MountError, mount, serving

Mounted = Callable[..., tuple[Mount, Path]]


@pytest.fixture(scope="module", autouse=True)
def fuse() -> None:
    needs_fuse()


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a layer, the tree that GNU tar makes of the same tar)."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "tar").write_bytes(root_tar())
    stargz.convert(folder / "tar", folder / "layer")
    (folder / "tree").mkdir()
    command = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]
    subprocess.run([*command, folder / "tar", "-C", folder / "tree"], check=True)
    for name in IMPLIED:
        os.utime(folder / "tree" / name, (0, 0))
    return folder / "layer", folder / "tree"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """mounted(source, ...): a Mount of this process, and its directory."""
    with ExitStack() as stack:

        def make(source: Any, **options: Any) -> tuple[Mount, Path]:
            directory = tmp_path / f"mnt{len(list(tmp_path.glob('mnt*')))}"
            directory.mkdir()
            stack.callback(clean_up, directory)
            return stack.enter_context(mount(source, directory, **options)), directory

        yield make


def test_is_the_tree(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    layer, tree = extracted
    _, directory = mounted(layer, dev=True, suid=True)
    assert snapshot(directory) == snapshot(tree)
    assert os.getxattr(directory / "bin/ping", "security.capability") == CAPABILITY
    assert (directory / "bin/large").stat().st_nlink == 3
    assert (directory / "dev/big").lstat().st_rdev == os.makedev(259, 70_000)


def test_link_counts_of_directories(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    _, directory = mounted(extracted[0])
    for folder, directories, _ in os.walk(directory):
        assert Path(folder).stat().st_nlink == 2 + len(directories), folder


def test_inodes_are_stable(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    """The same from one mount to the next, in stat and in listings."""
    found = []
    for _ in range(2):
        _, directory = mounted(extracted[0])
        inodes = {}
        for folder, _, _ in os.walk(directory):
            for entry in os.scandir(folder):
                info = entry.stat(follow_symlinks=False)
                assert entry.inode() == info.st_ino
                inodes[os.path.relpath(entry.path, directory)] = info.st_ino
        found.append(inodes)
    assert found[0] == found[1]
    assert len(found[0]) == 1000 + 26
    assert len(set(found[0].values())) == len(found[0]) - 2  # two more names of bin/large


def test_listing_goes_on_where_it_stopped(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    """Positions stay good (telldir, seekdir): read a few names at a time, twice."""
    import ctypes

    _, directory = mounted(extracted[0])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir64.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    stream = ctypes.c_void_p(libc.opendir(os.fsencode(directory / "many")))
    assert stream.value
    names, positions = [], []
    try:
        while True:
            positions.append(libc.telldir(stream))
            entry = libc.readdir64(stream)
            if not entry:
                break
            names.append(ctypes.string_at(entry + 19))  # struct dirent64: d_name
        assert sorted(names) == sorted([b".", b"..", *(b"%04d" % n for n in range(1000))])
        for at in (700, 3, 1001, 0, 2, 500):
            libc.seekdir(stream, ctypes.c_long(positions[at]))
            assert ctypes.string_at(libc.readdir64(stream) + 19) == names[at]
    finally:
        libc.closedir(stream)


def test_statfs(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    layer, tree = extracted
    _, directory = mounted(layer)
    info = os.statvfs(directory)
    sizes = {p.stat().st_ino: p.stat().st_size for p in tree.rglob("*") if p.is_file()}
    total = sum(sizes[inode] for inode in sizes)
    assert (info.f_blocks - 1) * info.f_frsize < total <= info.f_blocks * info.f_frsize
    assert (info.f_bfree, info.f_bavail, info.f_namemax) == (0, 0, 255)
    assert info.f_flag & os.ST_RDONLY
    with stargz.open(layer) as opened:
        from stargz.tree import Tree

        assert info.f_files == Tree([opened], "overlay").inodes


def test_xattrs(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    _, directory = mounted(extracted[0])
    path = directory / "usr/x"
    assert sorted(os.listxattr(path)) == ["user.a", "user.b"]
    assert os.getxattr(path, "user.b") == b"two\1"
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr(path, "user.c")
    assert os.listxattr(directory / "etc/passwd") == []
    assert _xattr_size(path, b"user.b", 0) == 4
    with pytest.raises(OSError, match=os.strerror(errno.ERANGE)):
        _xattr_size(path, b"user.b", 3)


def _xattr_size(path: Path, key: bytes, room: int) -> int:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(max(room, 1))
    size: int = libc.getxattr(os.fsencode(path), key, buffer, ctypes.c_size_t(room))
    if size < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return size


def test_without_xattrs_the_kernel_asks_once(mounted: Mounted) -> None:
    blob = build(tar_of([("a", b"1"), ("b", b"2")])).data
    made, directory = mounted(blob)
    for name in ("a", "b") * 3:
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            os.getxattr(directory / name, "user.a")
    before = made.server.stats()["requests"]
    with pytest.raises(OSError):
        os.getxattr(directory / "a", "user.other")
    assert made.server.stats()["requests"] == before


def test_nothing_is_asked_for_twice(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    """Names, also those that are not there, attributes, listings and pages are kept."""
    made, directory = mounted(extracted[0])

    def use() -> None:
        for folder, _, files in os.walk(directory):
            for name in files:
                Path(folder, name).lstat()
        fd = os.open(directory / "bin/large", os.O_RDONLY)  # open() asks for a terminal
        while os.read(fd, 1 << 20):
            pass
        os.close(fd)
        os.readlink(directory / "usr/soft")  # noqa: PTH115
        assert not (directory / "etc/none").exists()

    def settled() -> int:
        """How many requests there were, once readahead that nobody waits for has come too."""
        count = -1
        while count != (count := made.server.stats()["requests"]):
            time.sleep(0.1)
        return count

    use()
    asked = []
    while 0 not in asked and len(asked) < 6:  # the kernel may forget what it kept, now and then
        before = settled()
        use()
        asked.append(settled() - before)
    assert 0 in asked, asked


def test_writing_is_refused(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    _, directory = mounted(extracted[0])
    for attempt in (
        lambda: (directory / "new").write_bytes(b""),
        lambda: (directory / "etc/passwd").open("ab"),
        lambda: (directory / "etc/passwd").unlink(),
        lambda: (directory / "etc/passwd").chmod(0o600),
        lambda: (directory / "d").mkdir(),
        lambda: os.setxattr(directory / "etc/passwd", "user.a", b""),
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            attempt()


def test_permissions_hold_for_others(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    _, closed = mounted(extracted[0])
    _, opened = mounted(extracted[0], allow_other=True)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for folder in (closed, *closed.parents):
        folder.is_mount() or folder.chmod(folder.stat().st_mode | 0o055)

    def read(path: Path) -> tuple[int, bytes, bytes]:
        done = subprocess.run([*nobody, "cat", path], capture_output=True)
        return done.returncode, done.stdout, done.stderr

    assert read(opened / "usr/x")[:2] == (0, b"x")
    assert b"Permission denied" in read(opened / "etc/shadow")[2]
    assert b"Permission denied" in read(closed / "usr/x")[2]


def test_options_in_proc_mounts(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    _, plain = mounted(extracted[0])
    _, free = mounted(extracted[0], dev=True, suid=True, allow_other=True, name="a name")
    source, _, kind, options, *_ = mount_line(plain)
    assert (source, kind) == (str(extracted[0]), "fuse.stargz")
    words = set(options.split(","))
    assert {"ro", "nosuid", "nodev", "default_permissions", "user_id=0"} <= words
    assert "allow_other" not in words
    source, _, _, options, *_ = mount_line(free)
    words = set(options.split(","))
    assert source == r"a\040name"
    assert {"ro", "default_permissions", "allow_other"} <= words
    assert not {"nosuid", "nodev"} & words


def test_read_ahead_is_raised(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    _, directory = mounted(extracted[0])
    device = directory.stat().st_dev
    path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if not os.access(path, os.W_OK):
        pytest.skip("/sys is not writable here")
    assert path.read_text().strip() == "1024"


# --- overlayfs and chroot -----------------------------------------------------------------


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Callable[[list[Path]], Path]]:
    """overlay(lowers): an overlay mount of directories, the uppermost first."""
    directory = tmp_path / "overlay"
    directory.mkdir()

    def make(lowers: list[Path]) -> Path:
        for name in ("upper", "work"):
            (tmp_path / name).mkdir()
        options = f"lowerdir={':'.join(map(str, lowers))}"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", f"{options},ro", directory], check=True
        )
        return directory

    yield make
    clean_up(directory)


LOWER = [
    ("keep", b"k"),
    ("gone", b"g"),
    ("dir", None),
    ("dir/below", b"b"),
    ("both", None),
    ("both/old", b"o"),
    ("both/same", b"s"),
]
UPPER = [
    (".wh.gone", b""),
    ("dir", None),
    ("dir/.wh..wh..opq", b""),
    ("dir/new", b"n"),
    ("both", None),
    ("both/.wh.old", b""),
    ("both/more", b"m"),
    ("keep", b"K"),
]


def test_single_layers_stack_in_an_overlay(
    mounted: Mounted, overlay: Callable[[list[Path]], Path]
) -> None:
    lower, upper = (build(tar_of(entries)).data for entries in (LOWER, UPPER))
    _, low = mounted(lower)
    _, up = mounted(upper)
    info = (up / "gone").lstat()
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
    assert os.getxattr(up / "dir", "trusted.overlay.opaque") == b"y"
    stacked = overlay([up, low])
    with stargz.open(lower) as first, stargz.open(upper) as second:
        _, merged = mounted([first, second])
        names = [str(p.relative_to(merged)) for p in sorted(merged.rglob("*"))]
        assert names == ["both", "both/more", "both/same", "dir", "dir/new", "keep"]
        one, other = snapshot(stacked), snapshot(merged)
        for found in (one, other):
            for name, values in found.items():
                if name != "one file":
                    values[4].clear()  # overlayfs hides its own xattrs, as it must
        assert one == other


def test_whiteouts_hidden_or_raw(mounted: Mounted) -> None:
    blob = build(tar_of(UPPER)).data
    _, hidden = mounted(blob, whiteouts="hide")
    _, raw = mounted(blob, whiteouts="raw")
    assert listed(hidden) == ["both", "dir", "keep"]
    assert listed(raw) == [".wh.gone", "both", "dir", "keep"]
    assert (raw / "dir/.wh..wh..opq").read_bytes() == b""


def test_programs_run_in_a_chroot(tmp_path: Path, mounted: Mounted) -> None:
    source = tmp_path / "main.c"
    source.write_text(
        '#include <stdio.h>\nint main(void) { char b[9] = {0}; FILE *f = fopen("/data", "r");'
        " return !f || !fgets(b, 9, f) || puts(b) < 0; }\n"
    )
    subprocess.run(["gcc", "-static", "-o", tmp_path / "main", source], check=True)
    program = (tmp_path / "main").read_bytes()
    tar = tar_of([("data", b"inside"), ("main", program)], mode=0o755)
    (tmp_path / "tar").write_bytes(tar)
    stargz.convert(tmp_path / "tar", tmp_path / "layer", chunk_size=64 << 10)
    _, directory = mounted(tmp_path / "layer")
    done = subprocess.run(["chroot", directory, "/main"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "inside\n", "")


# --- contents -----------------------------------------------------------------------------


def test_any_range_of_a_file(tmp_path: Path, mounted: Mounted) -> None:
    content = random.Random(5).randbytes(3_000_001)
    blob = build(tar_of([("first", b"x" * 777), ("file", content)]), chunk_size=300_007).data
    _, directory = mounted(blob)
    fd = os.open(directory / "file", os.O_RDONLY)
    direct = os.open(directory / "file", os.O_RDONLY | os.O_DIRECT)
    ranges = st.tuples(st.integers(0, len(content) + 5000), st.integers(0, 500_000))

    @settings(max_examples=60, deadline=None)
    @given(ranges)
    def check(where: tuple[int, int]) -> None:
        offset, size = where
        expected = content[offset : offset + size]
        assert os.pread(fd, size, offset) == expected
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, size, offset) == expected
        assert os.pread(direct, size, offset) == expected

    try:
        check()
    finally:
        os.close(fd)
        os.close(direct)


def test_many_threads_read_one_file(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    layer, tree = extracted
    _, directory = mounted(layer, threads=4)
    expected = hashlib.sha256((tree / "bin/large").read_bytes()).hexdigest()
    found: list[str] = []

    def read(name: str) -> None:
        found.append(hashlib.sha256((directory / name).read_bytes()).hexdigest())

    names = ["bin/large", "bin/hard", "usr/lib/hard2"] * 3
    threads = [threading.Thread(target=read, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * len(names)


def test_a_damaged_blob_gives_eio_and_never_wrong_bytes(tmp_path: Path, mounted: Mounted) -> None:
    content = random.Random(6).randbytes(400_000)
    made = build(tar_of([("good", b"good"), ("bad", content)]), chunk_size=100_000)
    with stargz.open(made.data) as layer:
        chunk = layer.chunks("bad")[2]
    damaged = bytearray(made.data)
    damaged[chunk.offset + 5000] ^= 0x10
    lines: list[str] = []
    _, directory = mounted(bytes(damaged), log=lines.append)
    assert (directory / "good").read_bytes() == b"good"
    fd = os.open(directory / "bad", os.O_RDONLY | os.O_DIRECT)
    try:
        for _ in range(2):  # it is not forgotten, and not remembered wrongly
            with pytest.raises(OSError) as caught:
                os.pread(fd, 10, 250_000)
            assert caught.value.errno == errno.EIO
        assert os.pread(fd, 100_000, 0) == content[:100_000]
        assert os.pread(fd, 100_000, 300_000) == content[300_000:]
    finally:
        os.close(fd)
    mounts_end = str(directory / "bad")
    # Told by a thread of its own.
    wait_for(lambda: any(line.startswith(mounts_end + ": read failed: ") for line in lines))


def test_log_lines_are_limited(mounted: Mounted) -> None:
    made = build(tar_of([("bad", random.Random(7).randbytes(100_000))]))
    damaged = bytearray(made.data)
    damaged[made.toc_offset // 2] ^= 0x10
    lines: list[str] = []
    made_mount, directory = mounted(bytes(damaged), log=lines.append)
    fd = os.open(directory / "bad", os.O_RDONLY | os.O_DIRECT)
    for _ in range(300):
        with pytest.raises(OSError):
            os.pread(fd, 10, 0)
    os.close(fd)
    assert made_mount.usage().failed == 300
    assert 1 <= len(lines) <= 21


# --- life ---------------------------------------------------------------------------------


def test_unmounted_from_outside(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    made, directory = mounted(extracted[0])
    subprocess.run(["umount", directory], check=True)
    assert made.wait(20)
    made.unmount()
    assert listed(directory) == []


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        ((7, 31), "ready"),
        ((7, 45), "ready"),
        ((7, 30), "refused"),
        ((6, 99), "refused"),
        (None, "ended"),
    ],
)
def test_the_first_answer_stays(version: tuple[int, int] | None, answer: str) -> None:
    """Whoever asks how the mount began may do so when it has ended (linux/fuse.h, FUSE_INIT)."""
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, ours:
        ours.setblocking(False)
        server = serving.Server(ours.fileno(), False)
        if version is not None:
            kernel.send(struct.pack("<IIQQIIIIIIII", 56, 26, 1, 0, 0, 0, 0, 0, *version, 0, 0))
        kernel.shutdown(socket.SHUT_WR)
        with pytest.raises(stargz.StargzError, match="half a request"):
            server.serve()
        assert server.wait(5) == answer
        assert server.version == (version or (0, 0))


def test_unmounted_as_soon_as_it_answers(
    extracted: tuple[Path, Path],
    mounted: Mounted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was mounted, and then it was not any more: nothing failed."""

    class Unmounted(serving.Server):
        def wait(self, seconds: float = 0) -> str:
            directory = tmp_path / "mnt0"
            wait_for(lambda: listed(directory))
            subprocess.run(["umount", directory], check=True)
            with pytest.raises(StopIteration):  # the events' thread may have had it
                while True:
                    self.next()
            return super().wait(seconds)

    monkeypatch.setattr(serving, "Server", Unmounted)
    one, directory = mounted(extracted[0])
    assert one.wait(20)
    assert not directory.is_mount()
    assert listed(directory) == []


def test_unmount_while_in_use(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    lines: list[str] = []
    made, directory = mounted(extracted[0], log=lines.append)
    with (directory / "bin/large").open("rb") as file:
        assert file.read(10)
        made.unmount()
        assert lines == [f"{directory}: still in use; detached, reads there fail from now on"]
        assert listed(directory) == []
        file.seek(5 << 20)
        with pytest.raises(OSError):  # ENOTCONN, or EIO of a page
            file.read(3 << 20)
    made.unmount()


def test_one_directory_is_mounted_once(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    _, directory = mounted(extracted[0])
    with pytest.raises(MountError, match="has something mounted there"):
        mount(extracted[0], directory)


def test_refused_directories(extracted: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MountError, match="no such directory"):
        mount(extracted[0], tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MountError, match="is not a directory"):
        mount(extracted[0], tmp_path / "file")
    with pytest.raises(stargz.FooterError):
        mount(b"no layer", tmp_path)
    assert not mount_line(tmp_path)


def test_an_open_layer_stays_open(extracted: tuple[Path, Path], mounted: Mounted) -> None:
    with stargz.open(extracted[0]) as layer:
        made, directory = mounted(layer)
        assert (directory / "usr/x").read_bytes() == b"x"
        made.unmount()
        assert layer.read("usr/x") == b"x"


def test_an_ordinary_tar_by_an_index_of_ones_own(tmp_path: Path) -> None:
    """What `stargz.open` takes of trust and indexes, for what is opened here."""
    blob = gzip.compress(tar_of([("file", b"contents")]))
    (tmp_path / "any.tar.gz").write_bytes(blob)
    (tmp_path / "mnt").mkdir()
    made = stargz.index(tmp_path / "any.tar.gz", tmp_path / "index")
    options: dict[str, Any] = {"index": tmp_path / "index", "index_digest": made.digest}
    with mount(
        tmp_path / "any.tar.gz", tmp_path / "mnt", require_verified=True, **options
    ) as mounted:
        assert (Path(mounted.directory) / "file").read_bytes() == b"contents"
    with pytest.raises(stargz.UnindexedError):
        mount(tmp_path / "any.tar.gz", tmp_path / "mnt", index=False)
    with pytest.raises(stargz.errors.DigestError):
        mount(tmp_path / "any.tar.gz", tmp_path / "mnt", index=tmp_path / "index",
              index_digest="sha256:" + "0" * 64)  # fmt: skip
    with (
        stargz.open(tmp_path / "any.tar.gz") as layer,
        pytest.raises(UsageError, match="index_digest is for what is opened here"),
    ):
        mount(layer, tmp_path / "mnt", index_digest=made.digest)
