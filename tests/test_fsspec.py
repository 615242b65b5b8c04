"""The fsspec file system: over local files, nginx, other file systems; as pandas and pyarrow
use it."""

from __future__ import annotations

import concurrent.futures
import errno
import fnmatch
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pandas
import pyarrow
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import pytest
from absence import absent
from blobs import build, tar_of
from handmade import blob, directory, hardlink, reg, symlink
from layouts import Layout
from servers import FaultProxy, find_nginx, nginx

import stargz
from stargz.errors import UsageError
from stargz.fsspec import StargzFileSystem
from stargz.tree import Tree

ENTRIES = [
    directory("d", mode=0o750, uid=7, gid=8, modtime="2023-01-02T03:04:05Z"),
    reg("d/a.txt", b"0123456789"), reg("d/b.txt", b"second\nline\n"), hardlink("d/c", "d/a.txt"),
    reg("d/sub/deep/x.txt", b"x"), symlink("link", "d/a.txt"), symlink("dirlink", "d"),
    symlink("d/self", "."), symlink("nowhere", "no/where"), {"name": "pipe", "type": "fifo"},
    reg(".wh.gone"), reg(".no.prefetch.landmark", b"\x0f"), reg("empty"),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    """As installing does it."""
    fsspec.register_implementation("stargz", StargzFileSystem, clobber=True)
    yield
    StargzFileSystem.clear_instance_cache()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "layer.stargz"
    made.write_bytes(blob(ENTRIES))
    return made


@pytest.fixture
def fs(path: Path) -> Iterator[StargzFileSystem]:
    with fsspec.filesystem("stargz", fo=str(path)) as found:
        yield found


def same_as_local(path: Path, tmp_path: Path) -> tuple[Any, str]:
    """fsspec's own local file system over the extracted layer."""
    with stargz.open(path) as layer:
        layer.extractall(tmp_path / "out")
    return fsspec.filesystem("file"), str(tmp_path / "out")


# --- listing ----------------------------------------------------------------------------------


def test_names_are_those_of_the_extracted_layer(
    fs: StargzFileSystem, path: Path, tmp_path: Path
) -> None:
    local, root = same_as_local(path, tmp_path)
    own = {".wh.gone", ".no.prefetch.landmark"}

    def below(names: list[str]) -> list[str]:
        return sorted({name.removeprefix(root).lstrip("/") for name in names} - own)

    assert fs.find("") == below(local.find(root))
    assert fs.find("d", withdirs=True) == below(local.find(f"{root}/d", withdirs=True))
    assert fs.find("d", maxdepth=1) == below(local.find(f"{root}/d", maxdepth=1))
    for pattern in ("*", "d/*", "**/*.txt", "d/**", "d/[ab].txt", "dirlink/*.txt", "no*", "x*"):
        assert sorted(fs.glob(pattern)) == below(local.glob(f"{root}/{pattern}")), pattern
    for folder in ("", "d", "d/sub", "dirlink"):
        assert sorted(fs.ls(folder, detail=False)) == below(local.ls(f"{root}/{folder}", False))


def test_info_is_what_stat_has(fs: StargzFileSystem, path: Path, tmp_path: Path) -> None:
    local, root = same_as_local(path, tmp_path)
    for name in ("d", "d/a.txt", "d/c", "link", "dirlink", "d/self", "dirlink/a.txt", "pipe"):
        found, expected = fs.info(name), local.info(f"{root}/{name}")
        assert found["name"] == name
        for key in ("type", "islink", "mode", "nlink"):
            if (key, found["type"]) not in (("nlink", "directory"), ("mode", "other")):
                assert found[key] == expected[key], (name, key)
        if found["type"] == "file":
            assert found["size"] == expected["size"]
        assert found.get("destination") == (
            os.fsdecode(expected["destination"]) if expected["islink"] else None
        )
    assert (fs.info("d")["uid"], fs.info("d")["gid"]) == (7, 8)
    assert fs.info("d/a.txt")["ino"] == fs.info("d/c")["ino"]
    assert fs.info("nowhere")["type"] == "link"
    assert fs.info("")["type"] == "directory"
    assert fs.modified("d") == fs.created("d") == datetime(2023, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_listings_do_not_follow_links_to_directories(fs: StargzFileSystem) -> None:
    types = {item["name"]: item["type"] for item in fs.ls("")}
    assert types == {
        "d": "directory", "dirlink": "link", "empty": "file", "link": "file", "nowhere": "link",
        "pipe": "other",
    }  # fmt: skip
    assert fs.ls("d/a.txt")[0]["size"] == 10
    assert fs.ls("dirlink/a.txt", detail=False) == ["dirlink/a.txt"]


@pytest.mark.parametrize("options", [{}, {"topdown": False}, {"maxdepth": 2}, {"detail": True}])
def test_walk_is_fsspecs(fs: StargzFileSystem, options: dict[str, Any]) -> None:
    plain = fsspec.AbstractFileSystem.walk
    for start in ("", "d", "dirlink", "d/a.txt", "not/there"):
        assert list(fs.walk(start, **options)) == list(plain(fs, start, **options))
    pruned = []
    for folder, folders, _ in fs.walk(""):
        pruned.append(folder)
        folders[:] = [name for name in folders if name != "sub"]
    assert pruned == ["", "d"]
    with pytest.raises(FileNotFoundError):
        list(fs.walk("not/there", on_error="raise"))


def test_a_deep_tree_is_walked(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 2000)
    with StargzFileSystem(fo=io.BytesIO(blob([reg(f"{deep}/f")]))) as fs:
        assert fs.find("") == [f"{deep}/f"]
        assert sum(1 for _ in fs.walk("")) == 2001


def test_what_is_there_and_what_is_not(fs: StargzFileSystem) -> None:
    assert fs.exists("d/a.txt")
    assert fs.exists("/d//a.txt")
    assert fs.exists("stargz://d/a.txt")
    assert not fs.exists("nowhere")
    assert fs.lexists("nowhere")
    assert not fs.lexists("missing")
    assert fs.isfile("link")
    assert not fs.isfile("dirlink")
    assert fs.isdir("dirlink")
    assert fs.islink("dirlink")
    assert not fs.isdir("d/a.txt/x")
    for call in (fs.info, fs.ls, fs.cat_file, fs.open, fs.ukey, fs.modified, fs.size):
        with pytest.raises(FileNotFoundError) as caught:
            call("d/missing")
        assert caught.value.filename == "d/missing"
    with pytest.raises(IsADirectoryError):
        fs.cat_file("d")
    with pytest.raises(NotADirectoryError):
        fs.ls("d/a.txt/x")


# --- contents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [None, 0, 3, 9, 50, -4, -50])
@pytest.mark.parametrize("end", [None, 0, 5, 10, 50, -2, -50])
def test_cat_file_slices(fs: StargzFileSystem, start: int | None, end: int | None) -> None:
    assert fs.cat_file("d/a.txt", start, end) == b"0123456789"[start:end]
    assert fs.cat_ranges(["link"], start, end) == [b"0123456789"[start:end]]


def test_cat_ranges_gives_errors_in_their_places(fs: StargzFileSystem) -> None:
    names = ["d/b.txt", "missing", "d", "d/c", "pipe"]
    found = fs.cat_ranges(names, [0, 0, 0, 2, 0], [6, 1, 1, -1, 1])
    assert (found[0], found[3]) == (b"second", b"2345678")
    assert [type(found[i]) for i in (1, 2)] == [FileNotFoundError, IsADirectoryError]
    assert isinstance(found[4], UsageError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(names, 0, 1, on_error="raise")
    with pytest.raises(ValueError, match="different lengths"):
        fs.cat_ranges(names, [0], 1)


def test_cat_ranges_gives_what_is_good_of_a_damaged_blob() -> None:
    wrong = {"override": {"chunkDigest": "sha256:" + "0" * 64}}
    data = blob([reg("good", b"good"), reg("bad", b"bad", **wrong), reg("fine", b"fine")])
    with StargzFileSystem(fo=io.BytesIO(data)) as fs:
        found = fs.cat_ranges(["good", "bad", "fine"], 0, None)
        assert (found[0], found[2]) == (b"good", b"fine")
        assert isinstance(found[1], stargz.DigestError)
        with pytest.raises(stargz.DigestError):
            fs.cat_ranges(["good", "bad"], 0, None, on_error="raise")


def test_cat_of_several(fs: StargzFileSystem) -> None:
    assert fs.cat("d/a.txt") == b"0123456789"
    assert fs.cat(["d/a.txt", "d/b.txt"], start=1, end=3) == {"d/a.txt": b"12", "d/b.txt": b"ec"}
    found = fs.cat("d/sub", recursive=True)
    assert found == {"d/sub/deep/x.txt": b"x"}
    assert fs.cat("d/*.txt") == {"d/a.txt": b"0123456789", "d/b.txt": b"second\nline\n"}
    assert set(fs.cat(["d/a.txt", "pipe"], on_error="omit")) == {"d/a.txt"}


def test_open_has_what_callers_use(fs: StargzFileSystem) -> None:
    with fs.open("link") as file:
        assert (file.size, file.path) == (10, "link")
        assert file.seek(4) == 4
        again = pickle.loads(pickle.dumps(file))
        assert file.read(3) == again.read(3) == b"456"
        again.close()
    with fs.open("d/b.txt", "rt") as file:
        assert file.readlines() == ["second\n", "line\n"]
    with fs.open("d/a.txt", block_size=3) as file:
        assert file.read() == b"0123456789"
    assert fs.read_block("d/b.txt", 3, 20, delimiter=b"\n") == b"line\n"
    assert fs.head("d/a.txt", 2) == b"01"
    assert fs.tail("d/a.txt", 2) == b"89"
    assert fs.ukey("d/a.txt") == fs.ukey("d/c") != fs.ukey("d/b.txt")
    assert fs.get_mapper("d/sub")["deep/x.txt"] == b"x"


def test_get_copies_out(fs: StargzFileSystem, tmp_path: Path) -> None:
    fs.get("d/sub", str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy" / "deep" / "x.txt").read_bytes() == b"x"


def test_writing_is_refused(fs: StargzFileSystem) -> None:
    calls = [
        lambda: fs.open("new", "wb"), lambda: fs.pipe("new", b""), lambda: fs.rm("empty"),
        lambda: fs.mkdir("new"), lambda: fs.makedirs("new/er"), lambda: fs.rmdir("d"),
        lambda: fs.touch("empty"), lambda: fs.cp_file("empty", "new"), lambda: fs.mv("empty", "x"),
        lambda: fs.rm_file("empty"), lambda: fs.open("empty", "ab"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(OSError, match="read-only") as caught:
            call()
        assert caught.value.errno == errno.EROFS
    fs.makedirs("d", exist_ok=True)


# --- opening ----------------------------------------------------------------------------------


def test_what_fo_may_be(path: Path) -> None:
    data = path.read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/blobs/layer", data)
    places: list[dict[str, Any]] = [
        {"fo": str(path)}, {"fo": path}, {"fo": f"file://{path}"}, {"fo": io.BytesIO(data)},
        {"fo": "memory://blobs/layer"}, {"fo": "/blobs/layer", "target_protocol": "memory"},
        {"fo": str(path), "target_protocol": "file", "target_options": {"auto_mkdir": True}},
    ]  # fmt: skip
    for options in places:
        with fsspec.filesystem("stargz", **options, cache=False) as fs:
            assert fs.cat_file("d/a.txt", 2, 4) == b"23", options
    with stargz.open(path) as layer:
        assert StargzFileSystem(fo=layer).cat("empty") == b""
        raw = StargzFileSystem(fo=Tree([layer], "raw"))
        assert ".wh.gone" in raw.ls("", detail=False)
        assert not StargzFileSystem(fo=layer, whiteouts="overlay").isfile("gone")
        with path.open("rb") as file:
            assert StargzFileSystem(fo=file).cat("link") == b"0123456789"
    memory.rm("/blobs", recursive=True)


def test_chains(path: Path, tmp_path: Path) -> None:
    for url in (f"stargz://d/a.txt::{path}", f"stargz://d/a.txt::file://{path}"):
        with fsspec.open(url) as file:
            assert file.read() == b"0123456789"
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/layer", path.read_bytes())
    with fsspec.open("stargz://link::memory://layer", stargz={"cache": False}) as file:
        assert file.read() == b"0123456789"
    cached = "stargz://d/b.txt::simplecache::memory://layer"
    storage = str(tmp_path / "cache")
    options: dict[str, Any] = {"simplecache": {"cache_storage": storage}}
    with fsspec.open(cached, "rt", stargz={"cache": False}, **options) as file:
        assert file.read() == "second\nline\n"
    assert os.listdir(storage)  # noqa: PTH208
    found = fsspec.open_files(f"stargz://d/*.txt::{path}")
    assert [file.path for file in found] == ["d/a.txt", "d/b.txt"]
    memory.rm("/layer")


def test_errors_when_opening(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a blob"):
        fsspec.filesystem("stargz")
    with pytest.raises(FileNotFoundError):
        fsspec.filesystem("stargz", fo=str(tmp_path / "missing"))
    with pytest.raises(stargz.FooterError):
        fsspec.filesystem("stargz", fo=io.BytesIO(bytes(100)))
    with pytest.raises(stargz.DigestError):
        fsspec.filesystem("stargz", fo=str(path), toc_digest="sha256:" + "0" * 64)
    with pytest.raises(UsageError, match="single layers"):
        fsspec.filesystem("stargz", fo=f"oci:{tmp_path}", toc_digest="sha256:" + "0" * 64)
    with pytest.raises(stargz.UnverifiedError):
        fsspec.filesystem("stargz", fo=str(path), require_verified=True)


def test_instances_are_kept(path: Path) -> None:
    one = fsspec.filesystem("stargz", fo=str(path))
    assert fsspec.filesystem("stargz", fo=str(path)) is one
    other = fsspec.filesystem("stargz", fo=str(path), skip_instance_cache=True)
    assert other is not one
    assert other.file_tree is other.file_tree is not one.file_tree
    with path.open("rb") as first, path.open("rb") as second:
        assert StargzFileSystem(fo=first) is not StargzFileSystem(fo=second)
    other.close()
    assert one.cat("d/a.txt") == other.cat("d/a.txt")  # opened again
    one.close()
    other.close()


def test_a_replaced_blob_is_opened_anew(fs: StargzFileSystem, path: Path) -> None:
    old = fs.open("d/a.txt", block_size=1)
    assert old.read(2) == b"01"
    new = path.with_name("new")
    new.write_bytes(blob([reg("d/a.txt", b"replaced")]))
    new.rename(path)
    assert fs.cat("d/a.txt") == b"replaced"
    assert old.read() == b"23456789"  # still the old one's
    old.close()
    path.unlink()
    assert fs.cat("d/a.txt") == b"replaced"


def read_elsewhere(fs: StargzFileSystem) -> bytes:
    return fs.cat_file("d/a.txt") + b"%d" % os.getpid()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_other_processes_read(way: str, fs: StargzFileSystem) -> None:
    again = pickle.loads(pickle.dumps(fs))
    assert again == fs
    context = multiprocessing.get_context(way)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(read_elsewhere, fs).result()
    assert found.startswith(b"0123456789")
    assert found != read_elsewhere(fs)
    assert fs.cat("d/a.txt") == b"0123456789"


def test_threads_share_one(fs: StargzFileSystem) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: fs.cat_file("d/a.txt", i % 9, None), range(200)))
    assert found == [b"0123456789"[i % 9 :] for i in range(200)]


def test_an_image_is_merged(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    low = layout.layer(tar_of([("etc/a", b"low"), ("etc/b", b"b"), ("gone", b"")]))
    high = layout.layer(tar_of([("etc/a", b"high"), (".wh.gone", b"")]))
    layout.tag(layout.manifest([low, high]))
    with fsspec.filesystem("stargz", fo=f"oci:{tmp_path / 'image'}:latest") as fs:
        assert fs.find("") == ["etc/a", "etc/b"]
        assert fs.cat(["etc/a", "etc/b"]) == {"etc/a": b"high", "etc/b": b"b"}


def test_registration(tmp_path: Path) -> None:
    """Through the entry point that pyproject.toml declares, in a fresh interpreter."""
    project = Path(__file__).parent.parent / "pyproject.toml"
    points = tomllib.loads(project.read_text())["project"]["entry-points"]["fsspec.specs"]
    info = tmp_path / "site" / "declared-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 1\n")
    text = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[fsspec.specs]\n{text}")
    (tmp_path / "layer").write_bytes(blob(ENTRIES))
    code = f"import fsspec\nprint(fsspec.open('stargz://d/b.txt::{tmp_path}/layer').open().read())"
    places = [str(info.parent), str(Path(stargz.__file__).parent.parent)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
    )
    assert (done.stdout, done.stderr) == ("b'second\\nline\\n'\n", "")


# --- tables in a remote layer -----------------------------------------------------------------


FRAME = pandas.DataFrame({"n": range(20_000), "text": [f"row {n}" for n in range(20_000)]})
PARTS = 8


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """nginx with a layer of tables and much else, behind a proxy that counts."""
    if find_nginx() is None:
        absent("nginx is not installed")
    folder = tmp_path_factory.mktemp("remote")
    tables = folder / "tables"
    tables.mkdir()
    FRAME.to_csv(tables / "table.csv", index=False)
    for part in range(PARTS):
        rows = FRAME[FRAME.n % PARTS == part]
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pandas(rows, preserve_index=False),
            tables / f"part-{part}.parquet",
            row_group_size=500,
        )
    (tables / "padding").write_bytes(os.urandom(6 << 20))
    with tarfile.open(folder / "layer.tar", "w") as tar:
        for file in sorted(tables.iterdir(), key=lambda file: file.suffix == ".parquet"):
            tar.add(file, f"data/{file.name}")
    root = folder / "root"
    root.mkdir()
    stargz.convert(folder / "layer.tar", root / "layer.stargz")
    with nginx(root, folder / "state") as upstream, FaultProxy(upstream) as proxy:
        yield proxy
        StargzFileSystem.clear_instance_cache()


def chain(proxy: FaultProxy, path: str) -> str:
    return f"stargz://{path}::{proxy.url}/layer.stargz"


NO_CACHE: dict[str, Any] = {"cache": False}


def test_one_small_read_takes_few_requests_and_bytes(remote: FaultProxy) -> None:
    remote.reset()
    fs = fsspec.filesystem("stargz", fo=f"{remote.url}/layer.stargz", cache=False)
    with fs:
        assert remote.requests <= 2
        opened = remote.requests
        assert fs.cat_file("data/table.csv", 0, 6) == b"n,text"
        assert remote.requests <= opened + 1
        assert len(fs.find("")) == PARTS + 2
        assert remote.requests <= opened + 1


def test_a_batch_is_fetched_together(remote: FaultProxy) -> None:
    names = [f"data/part-{part}.parquet" for part in range(PARTS)]
    with fsspec.filesystem("stargz", fo=f"{remote.url}/layer.stargz", cache=False) as fs:
        remote.reset()
        found = fs.cat_ranges(names, -4, None)
        assert found == [b"PAR1"] * PARTS
        assert remote.requests <= PARTS


def test_pandas_reads_csv(remote: FaultProxy) -> None:
    url = chain(remote, "data/table.csv")
    found = pandas.read_csv(url, storage_options=NO_CACHE)
    pandas.testing.assert_frame_equal(found, FRAME, check_dtype=False)


def test_pandas_reads_parquet(remote: FaultProxy) -> None:
    url = chain(remote, "data/part-3.parquet")
    found = pandas.read_parquet(url, storage_options=NO_CACHE)
    expected = FRAME[FRAME.n % PARTS == 3].reset_index(drop=True)
    pandas.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_pyarrow_reads_a_dataset(remote: FaultProxy) -> None:
    with fsspec.filesystem("stargz", fo=f"{remote.url}/layer.stargz", cache=False) as fs:
        names = [name for name in fs.ls("data", detail=False) if fnmatch.fnmatch(name, "*.parquet")]
        dataset = pyarrow.dataset.dataset(names, format="parquet", filesystem=fs)
        assert dataset.count_rows() == len(FRAME)
        found = dataset.to_table(filter=pyarrow.dataset.field("n") < 100).sort_by("n")
        assert found["text"].to_pylist() == [f"row {n}" for n in range(100)]
        # pyarrow finds the files by itself, too.
        arrow = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs))
        selector = pyarrow.fs.FileSelector("data", recursive=True)
        kinds = {item.path: item.type for item in arrow.get_file_info(selector)}
        assert len(kinds) == PARTS + 2
        assert set(kinds.values()) == {pyarrow.fs.FileType.File}


def test_plain_urls_need_no_other_http_client(remote: FaultProxy) -> None:
    with fsspec.filesystem("stargz", fo=f"{remote.url}/layer.stargz", cache=False) as fs:
        assert type(fs.file_tree.layers[0].source).__name__ == "HTTPSource"
    options = {"target_protocol": "http", "target_options": {"client_kwargs": {"trust_env": True}}}
    with fsspec.filesystem("stargz", fo=f"{remote.url}/layer.stargz", cache=False, **options) as fs:
        assert type(fs.file_tree.layers[0].source).__name__ == "FsspecSource"
        assert fs.cat_file("data/table.csv", 0, 6) == b"n,text"


def test_a_misspelt_option_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(build(tar_of([("a", b"x")])).data)
    with pytest.raises(UsageError, match="no option 'toc_digst'"):
        fsspec.filesystem("stargz", fo=str(path), toc_digst="sha256:" + "0" * 64)
    assert fsspec.filesystem("stargz", fo=str(path), use_listings_cache=False).ls("", detail=False)
