"""stargz.open and Layer: look-up, reads, sources, trust."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import blobs
import pytest
from chunked_layers import plain
from descriptors import descriptors
from hypothesis import given, settings
from hypothesis import strategies as st
from merged_usr import FILES, merged_usr

import stargz
from stargz.errors import (
    DigestError,
    EntryNotFoundError,
    FooterError,
    FormatError,
    GzipError,
    SourceError,
    UnverifiedError,
    UsageError,
)
from stargz.layer import Layer

DATA = Path(__file__).parent / "data"
LARGE = blobs.noise("large file", 3_000_000) + bytes(1_500_000)


def open_golden(case: dict[str, Any], source: Any = None, **options: Any) -> Layer:
    if case["kind"] == "ext":
        options["toc"] = DATA / f"{case['blob']}.toc"
    return stargz.open(DATA / case["blob"] if source is None else source, **options)


class Counting:
    """A ByteSource without descriptor or memory, which counts what is asked of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.name = "counting"
        self.size = len(data)
        self.reads: list[tuple[int, int]] = []
        self.closed = False

    def read_at(self, offset: int, size: int) -> bytes:
        self.reads.append((offset, size))
        assert 0 <= offset <= offset + size <= self.size
        return self.data[offset : offset + size]

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read_at(*r) for r in ranges]

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def large() -> blobs.Made:
    """One file of 4.5 MB in chunks of 1,000,000 bytes, and a small one."""
    tar = blobs.tar_of([("large", LARGE), ("small", b"small")])
    return blobs.build(tar, chunk_size=1_000_000, level=1)


# --- the golden blobs ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["path", "bytes", "file object", "file", "source"])
def test_golden_files(goldens: list[dict[str, Any]], how: str) -> None:
    seen = 0
    for case in goldens:
        path = DATA / case["blob"]
        data = path.read_bytes()
        with path.open("rb") as file:
            file.seek(7)
            source = {
                "path": str(path),
                "bytes": data,
                "file object": io.BytesIO(data),
                "file": file,
                "source": Counting(data),
            }[how]
            with open_golden(case, source, toc_digest=case["toc_digest"]) as layer:
                for name, digest in case["file_sha256"].items():
                    assert hashlib.sha256(layer.read(name)).hexdigest() == digest, name
                    with layer.open(name) as opened:
                        assert hashlib.sha256(opened.read()).hexdigest() == digest, name
                    seen += 1
            assert not file.closed
            assert file.tell() == 7
    assert seen == sum(len(case["file_sha256"]) for case in goldens)


def test_facts(goldens: list[dict[str, Any]]) -> None:
    kinds = {"gzip": "estargz", "ext": "external-toc", "zstd": "zstd:chunked"}
    for case in goldens:
        with open_golden(case) as layer:
            assert layer.kind == kinds[case["kind"]]
            assert layer.size == case["blob_size"]
            assert layer.toc_digest == case["toc_digest"]
            assert blobs.sha256(layer.read_toc()) == case["toc_digest"]
            assert b"".join(layer.iter_toc(1000)) == layer.read_toc()
            blob = (DATA / case["blob"]).read_bytes()
            stream = plain(blob) if case["kind"] == "zstd" else blobs.inflated(blob)
            assert layer.uncompressed_size() == len(stream)
            assert "sha256:" + hashlib.sha256(stream).hexdigest() == case["diff_id"]
            assert (layer.prefetch_size > 0) == bool(case["prioritized"])
            for name in case["prioritized"]:
                assert all(c.offset < layer.prefetch_size for c in layer.chunks(name))


# --- names --------------------------------------------------------------------------------


def test_names() -> None:
    with stargz.open(DATA / "tree.esgz") as layer:
        names = layer.names()
        assert len(names) == 19
        assert names[0] == ".no.prefetch.landmark"
        assert "usr/bin/tool" in layer
        assert "/./usr//bin/../bin/tool" in layer
        assert "usr" in layer
        assert "nothing" not in layer
        assert 7 not in layer
        assert layer.entry("setuid").mode & 0o7777 == 0o4755
        assert layer.isdir("usr/bin")
        assert layer.isdir("")
        assert not layer.isdir("setuid")
        assert "tool" in layer.listdir("usr/bin")
        assert "etc" in layer.listdir()
        with pytest.raises(NotADirectoryError):
            layer.listdir("setuid")
        with pytest.raises(EntryNotFoundError):
            layer.listdir("nothing")


def test_implied_directories() -> None:
    with stargz.open(DATA / "implied_dirs.esgz") as layer:
        assert "x/y" not in layer.names()
        assert "x/y" in layer
        assert layer.listdir("x/y") == ["z"]
        assert layer.entry("x").mode == 0o755


def test_missing_name() -> None:
    with stargz.open(DATA / "tree.esgz") as layer:
        for call in (layer.read, layer.open, layer.entry, layer.chunks):
            with pytest.raises(KeyError) as caught:
                call("no/such/file")
            assert isinstance(caught.value, stargz.StargzError)
            assert str(caught.value).endswith("tree.esgz: no entry 'no/such/file' in the layer")


def test_names_lead_through_symlinks() -> None:
    blob = io.BytesIO()
    stargz.convert(merged_usr(), blob)
    with stargz.open(blob) as layer:
        dash = FILES["usr/bin/dash"]
        for name in ("bin/dash", "bin/sh", "/bin//./sh", "etc/alternatives/sh", "bin/../bin/sh",
                     "usr/share/here/here/../bin/dash", Path("bin/dash"), PurePosixPath("/bin/sh"),
                     "nowhere/../bin/../usr/bin/dash"):  # fmt: skip
            assert layer.read(name) == dash
            with layer.open(name) as file:
                assert (file.read(), file.raw.name) == (dash, str(name))  # type: ignore[attr-defined]
            assert layer.chunks(name) == layer.chunks("usr/bin/dash")
            assert not layer.isdir(name)
        # The last one is itself, as for lstat.
        assert layer.entry("bin/sh").name == "usr/bin/sh"
        assert layer.entry("bin").link_name == layer.entry("bin/").link_name == "usr/bin"
        assert layer.entry(Path("lib/x86_64-linux-gnu/libc.so.6")).size == 12000
        assert layer.entry("lib/../bin/dash").name == "usr/bin/dash"  # of /usr/lib
        assert layer.entry("lib/../bin").type == "dir"
        assert "lib/../etc/motd" not in layer
        assert "nowhere/../etc/motd" in layer
        for name in ("bin/dash", Path("bin"), "etc/mtab", "usr/share/here/here/locale"):
            assert name in layer
        for name in ("bin/zsh", Path("bin/x/y"), "etc/mtab/x", "bin/dash/x"):
            assert name not in layer
            assert not layer.isdir(name)
        assert layer.isdir("bin") and layer.isdir(Path("usr/share/here/locale"))
        assert layer.listdir("bin") == layer.listdir(Path("usr/bin")) == ["bash", "dash", "sh"]
        assert layer.glob("bin/*sh") == ["bin/bash", "bin/dash", "bin/sh"]
        # What trees do not show is there by its name.
        assert layer.read(".no.prefetch.landmark") == b"\x0f"
        assert ".no.prefetch.landmark" in layer and layer.glob(".no.prefetch*") == []


def test_names_that_lead_nowhere() -> None:
    with stargz.open(blobs.build(merged_usr()).data) as layer:
        for name, words in [
            ("etc/mtab", r"'etc/mtab' \(looked up as 'proc'\)"),
            ("bin/zsh", r"'bin/zsh' \(looked up as 'usr/bin/zsh'\)"),
            ("bin/dash/x", r"'bin/dash/x' in the layer"),
            ("usr/bin/zsh/x", r"'usr/bin/zsh/x' in the layer"),
        ]:
            for call in (layer.read, layer.open, layer.chunks, layer.listdir):
                with pytest.raises(EntryNotFoundError, match=f"no entry {words}"):
                    call(name)  # type: ignore[operator]
        with pytest.raises(NotADirectoryError, match="'bin/sh' is no directory"):
            layer.listdir("bin/sh")
        with pytest.raises(IsADirectoryError, match="'usr/share/here' is a directory"):
            layer.read("usr/share/here")
        with pytest.raises(OSError, match="more than 40 symlinks"):
            layer.entry("usr/share/" + "here/" * 41 + "x")
        with pytest.raises(UsageError, match="a string or a path, not 7"):
            layer.read(7)  # type: ignore[arg-type]
    for call in (layer.isdir, layer.glob, layer.__contains__):
        with pytest.raises(ValueError, match="closed"):
            call("bin/dash")


def test_threads_find_the_way_at_the_same_time() -> None:
    with stargz.open(blobs.build(merged_usr()).data) as layer, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(layer.read, ["bin/dash"] * 64)) == {FILES["usr/bin/dash"]}


def test_what_has_no_contents() -> None:
    with stargz.open(blobs.build(blobs.varied_tar()).data) as layer:
        with pytest.raises(IsADirectoryError):
            layer.read("d")
        with pytest.raises(UsageError, match="is a fifo"):
            layer.open("d/fifo")


# --- reads --------------------------------------------------------------------------------


@settings(deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(("chunk_size", "pack"), [(4 << 20, 1), (1000, 1), (1000, 7), (1, 5000)])
def test_reads_equal_slices(chunk_size: int, pack: int, verify: bool, data: Any) -> None:
    _, contents = _varied(chunk_size, pack)
    name = data.draw(st.sampled_from(sorted(contents)))
    content = contents[name]
    offset = data.draw(st.integers(0, len(content) + 10))
    size = data.draw(st.integers(-1, len(content) + 10))
    end = None if size < 0 else offset + size
    layer = _opened(chunk_size, pack, verify, data.draw(st.booleans()))
    assert layer.read(name, offset, size) == content[offset:end]
    with layer.open(name) as file:
        file.seek(offset)
        assert file.read(size) == content[offset:end]


@functools.cache
def _varied(chunk_size: int, pack: int) -> tuple[blobs.Made, dict[str, bytes]]:
    """A blob of varied_tar, and the contents of its files."""
    tar = blobs.varied_tar()
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        contents = {
            info.name: archive.extractfile(info).read()  # type: ignore[union-attr]
            for info in archive
            if info.isreg() or info.islnk()
        }
    return blobs.build(tar, chunk_size=chunk_size, pack=pack), contents


@functools.cache
def _opened(chunk_size: int, pack: int, verify: bool, as_source: bool) -> Layer:
    data = _varied(chunk_size, pack)[0].data
    return stargz.open(Counting(data) if as_source else data, verify=verify)


def test_hard_links_read_past_the_first_chunk() -> None:
    made, contents = _varied(1000, 1)
    with stargz.open(made.data) as layer:
        assert layer.read("d/hard", 1500, 30_000) == contents["d/large"][1500:31_500]
        assert layer.chunks("d/hard") == layer.chunks("d/large")


def test_large_reads(large: blobs.Made, tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(large.data)
    for source in (path, large.data, Counting(large.data)):
        for threads in (1, 2, 9):
            with stargz.open(source, threads=threads) as layer:
                assert layer.read("large") == LARGE
                assert layer.read("large", 999_999, 2_000_002) == LARGE[999_999:3_000_001]


def test_small_reads_decode_a_chunk_once(large: blobs.Made) -> None:
    source = Counting(large.data)
    with stargz.open(source) as layer:
        del source.reads[:]
        for at in range(0, 2_000_000, 10_000):
            assert layer.read("large", at, 10_000) == LARGE[at : at + 10_000]
        with layer.open("large") as file:
            assert file.read(100) == LARGE[:100]
    offsets = [offset for offset, _ in source.reads]
    assert len(set(offsets)) == len(offsets) <= 4
    assert sum(size for _, size in source.reads) <= len(large.data)


def test_unverified_reads_fetch_what_they_need(large: blobs.Made) -> None:
    source = Counting(large.data)
    with stargz.open(source, verify=False) as layer:
        del source.reads[:]
        assert layer.read("large", 2_345_678, 5) == LARGE[2_345_678:2_345_683]
        (chunk,) = (c for c in layer.chunks("large") if c.chunk_offset == 2_000_000)
        assert [offset for offset, _ in source.reads] == [chunk.offset]


def test_one_read_opens_a_small_layer() -> None:
    source = Counting((DATA / "tree.esgz").read_bytes())
    stargz.open(source)
    assert len(source.reads) == 1


def test_file_objects(large: blobs.Made) -> None:
    with stargz.open(large.data) as layer:
        with layer.open("large") as file:
            assert isinstance(file, io.BufferedReader)
            assert file.readable()
            assert file.seekable()
            assert not file.writable()
            assert file.seek(-10, io.SEEK_END) == len(LARGE) - 10
            assert file.read() == LARGE[-10:]
            assert file.read(1) == b""
            assert file.seek(len(LARGE) + 5) == len(LARGE) + 5
            assert file.read(1) == b""
            file.seek(1_000_000 - 3)
            target = bytearray(6)
            assert file.readinto(target) == 6
            assert target == LARGE[999_997:1_000_003]
            assert file.tell() == 1_000_003
            with pytest.raises(ValueError, match="before the start"):
                file.raw.seek(-1)
        with pytest.raises(ValueError, match="closed"):
            file.read(1)
        with io.TextIOWrapper(layer.open("small")) as text:
            assert text.read() == "small"


def test_negative_offset(large: blobs.Made) -> None:
    with stargz.open(large.data) as layer, pytest.raises(UsageError, match="offset"):
        layer.read("small", -1)


# --- trust --------------------------------------------------------------------------------


def damaged(made: blobs.Made, name: str) -> bytes:
    """The blob with other contents of a file in an intact member."""
    with stargz.open(made.data) as layer:
        (chunk,) = layer.chunks(name)
        tail = blobs.inflated(made.data[chunk.offset : layer.toc_offset])
    other = blobs.member(b"X" + tail[1:])
    moved = made.data[: chunk.offset] + other
    return blobs.with_toc(moved, made.text)


def test_changed_contents() -> None:
    made = blobs.build(blobs.tar_of([("a", b"first"), ("b", b"second")]))
    data = damaged(made, "b")
    with stargz.open(data, toc_digest=made.digest, require_verified=True) as layer:
        assert layer.read("a") == b"first"
        for _ in range(2):
            with pytest.raises(DigestError) as caught:
                layer.read("b")
            assert caught.value.name == "b"
            assert caught.value.expected == blobs.sha256(b"second")
            assert caught.value.actual == blobs.sha256(b"Xecond")
        with pytest.raises(DigestError), layer.open("b") as file:
            file.read(1)
        with pytest.raises(DigestError):
            layer.read("b", 3, 1)
    with stargz.open(data, verify=False) as layer:
        assert layer.read("b") == b"Xecond"


def test_toc_digest() -> None:
    path = DATA / "tree.esgz"
    right = "sha256:fc139b8a6b09d4186e1002cd364d4dfb8279bf71ca7532d03b26821bbb48e9fb"
    stargz.open(path, toc_digest=right, require_verified=True).close()
    wrong = "sha256:" + 64 * "0"
    with pytest.raises(DigestError) as caught:
        stargz.open(path, toc_digest=wrong)
    assert (caught.value.expected, caught.value.actual) == (wrong, right)
    for bad in ("sha256:12", "md5:" + 64 * "0", right.upper()):
        with pytest.raises(UsageError, match="is not a digest"):
            stargz.open(path, toc_digest=bad)


def test_require_verified() -> None:
    with pytest.raises(UnverifiedError, match="needs toc_digest"):
        stargz.open(DATA / "tree.esgz", require_verified=True)
    with pytest.raises(UsageError, match="contradict"):
        stargz.open(DATA / "tree.esgz", require_verified=True, verify=False)
    legacy = blobs.build(blobs.varied_tar(), kind="stargz")
    with pytest.raises(UnverifiedError, match="chunks have no digest"):
        stargz.open(legacy.data, toc_digest=legacy.digest, require_verified=True)
    with stargz.open(legacy.data, toc_digest=legacy.digest) as layer:
        assert layer.kind == "stargz"
        assert layer.read("d/small") == b"small\n"


# --- sources ------------------------------------------------------------------------------


def test_external_toc_is_asked_for() -> None:
    with pytest.raises(FooterError, match="give the file that holds it as toc"):
        stargz.open(DATA / "external_toc.esgz")
    with pytest.raises(UsageError, match="has its own TOC"):
        stargz.open(DATA / "tree.esgz", toc=DATA / "external_toc.esgz.toc")
    for toc, message in (
        (DATA / "tree.tar", "gzip"),
        (b"", "no table of contents"),
        (bytes(100_000), "more than a TOC may have"),
    ):
        with pytest.raises(FormatError, match=message):
            stargz.open(DATA / "external_toc.esgz", toc=toc, max_toc_size=99_999)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("docker://host/repo:tag", "is an image, not a layer.*--layer"),
        ("file:///layer", "give a local file as a path"),
        ("nothing://bucket/key", "fsspec"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stargz.open(url)


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read a layer from int"):
        stargz.open(7)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="mode 'rb'"):
        stargz.open(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="is a directory"):
        stargz.open(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        stargz.open(tmp_path / "nothing")
    assert caught.value.filename == str(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="random offsets"):
        stargz.open(tmp_path / "pipe")
    read, write = os.pipe()
    os.close(write)
    with os.fdopen(read, "rb") as pipe, pytest.raises(SourceError, match="random offsets"):
        stargz.open(pipe)
    with pytest.raises(UsageError, match="threads"):
        stargz.open(DATA / "tree.esgz", threads=0)


def test_gzip_file_objects_are_not_taken_for_their_file(tmp_path: Path) -> None:
    import gzip

    packed = tmp_path / "twice.gz"
    packed.write_bytes(gzip.compress((DATA / "tree.esgz").read_bytes()))
    with gzip.open(packed) as file, stargz.open(file) as layer:
        assert "setuid" in layer


def test_sources_are_closed_by_who_opened_them(tmp_path: Path) -> None:
    source = Counting((DATA / "tree.esgz").read_bytes())
    stargz.open(source).close()
    assert not source.closed
    before = descriptors(DATA)
    layer = stargz.open(DATA / "tree.esgz")
    assert descriptors(DATA) == before + 1
    layer.close()
    layer.close()
    assert descriptors(DATA) == before
    (tmp_path / "bad").write_bytes(b"x" * 1000)
    with pytest.raises(FooterError):
        stargz.open(tmp_path / "bad")
    assert descriptors(DATA) == before


def test_a_failing_source() -> None:
    class Failing(Counting):
        def read_at(self, offset: int, size: int) -> bytes:
            if len(self.reads) >= 1:
                raise TimeoutError("too slow")
            return super().read_at(offset, size)

    layer = stargz.open(Failing((DATA / "tree.esgz").read_bytes()))
    with pytest.raises(TimeoutError, match="too slow"):
        layer.read("setuid")
    with pytest.raises(TimeoutError, match="too slow"):
        layer.verify()


def test_a_source_that_gives_too_little() -> None:
    class Short(Counting):
        def read_at(self, offset: int, size: int) -> bytes:
            return super().read_at(offset, size)[: -1 if len(self.reads) > 1 else None]

    layer = stargz.open(Short((DATA / "tree.esgz").read_bytes()))
    with pytest.raises(SourceError, match="are wanted, the source gave"):
        layer.read("setuid")


def test_a_file_cut_short_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes((DATA / "tree.esgz").read_bytes())
    with stargz.open(path) as layer:
        os.truncate(path, 100)
        with pytest.raises(GzipError, match="became shorter") as caught:
            layer.read("data/random.bin")
        assert str(path) in str(caught.value)


def test_closed_layers() -> None:
    layer = stargz.open(DATA / "tree.esgz")
    file = layer.open("setuid")
    layer.close()
    for call in (
        lambda: layer.read("setuid"),
        lambda: layer.open("setuid"),
        lambda: layer.names(),
        lambda: layer.entry("setuid"),
        lambda: "setuid" in layer,
        lambda: list(layer),
        lambda: layer.verify(),
        lambda: layer.read_toc(),
        lambda: layer.uncompressed_size(),
        lambda: layer.extractall("/nonexistent/never-made"),
        lambda: layer.__enter__(),
        lambda: file.read(1),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_importing_is_light() -> None:
    code = (
        "import sys, stargz; light = set(sys.modules); stargz.open; "
        "assert 'stargz.layer' not in light; "
        "heavy = {'numpy', 'rich', 'stargz.convert'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(stargz.__all__) <= set(dir(stargz))
    for name in stargz.__all__:
        if name not in ("convert", "ConvertResult"):
            assert getattr(stargz, name) is not None
    with pytest.raises(AttributeError):
        stargz.nothing  # noqa: B018
