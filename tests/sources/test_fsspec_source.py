"""Blobs at any URL that fsspec opens: memory, a chain, an s3-compatible server."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import fsspec
import pytest
from fsspec import AbstractFileSystem

import stargz
from stargz.errors import SourceError, StargzError, UsageError
from stargz.sources import as_source
from stargz.sources.client import Client
from stargz.sources.fsspec_url import FsspecSource

BLOB = b"".join(hashlib.sha256(n.to_bytes(2, "big")).digest() for n in range(8192))


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/tests/blob", BLOB)
    yield fs
    fs.rm("/tests", recursive=True)


def test_ranges(memory: Any) -> None:
    source = as_source("memory://tests/blob")
    assert isinstance(source, FsspecSource)
    assert source.size == len(BLOB)
    ranges = [(200_000, 10), (0, 5), (3, 100), (0, 0), (len(BLOB), 0), (100, 262_000)]
    assert source.read_ranges(ranges) == [BLOB[o : o + n] for o, n in ranges]
    assert source.read_at(7, 70_000) == BLOB[7:70_007]
    with pytest.raises(SourceError, match="were asked for, the blob has"):
        source.read_at(len(BLOB) - 1, 2)
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.read_at(0, 1)


def test_a_layer(memory: Any, data: Path) -> None:
    memory.pipe_file("/tests/layer", (data / "tree.esgz").read_bytes())
    with stargz.open("memory://tests/layer") as layer, stargz.open(data / "tree.esgz") as local:
        assert layer.names() == local.names()
        assert layer.verify().ok


def test_a_chain(data: Path, tmp_path: Path) -> None:
    with stargz.open(f"simplecache::file://{data}/tree.esgz") as layer:
        assert layer.verify().ok


def test_a_blob_that_changes(memory: Any) -> None:
    source = FsspecSource("memory://tests/blob")
    memory.pipe_file("/tests/blob", BLOB[:1000])
    for read in (lambda: source.read_at(900, 200), lambda: source.read_ranges([(0, 1), (990, 20)])):
        with pytest.raises(SourceError, match="are wanted, the file system gave") as caught:
            read()
        assert "\n" not in str(caught.value)
    memory.rm("/tests/blob")
    memory.pipe_file("/tests/other", b"")
    with pytest.raises(SourceError, match="there is no such blob"):
        source.read_at(0, 10)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("memory://tests/missing?secret=1", SourceError, r"missing\?\.\.\.: there is no such blob"),
        ("memory://tests", SourceError, "is a directory"),
        ("nothing://host/blob", UsageError, "fsspec cannot open this URL"),
        ("dropbox://blob", UsageError, "dropbox"),
    ],
)
def test_what_cannot_be_opened(memory: Any, url: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        as_source(url)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


class Repeats(AbstractFileSystem):  # type: ignore[misc]
    """A file system that says all it was told."""

    protocol = "repeats"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        netloc, _, rest = path.partition("://")[2].partition("/")
        user, _, host = unquote(netloc).rpartition("@")
        raise OSError(
            f"{path}, {path!r}, {quote(path)}: {user.split(':')} may not see {rest}, {host}"
        )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://key1:s3cret@bucket/x", "cannot be opened: .*bucket"),
        ("s3://key1:s3/cret@bucket/x", "s3://bucket/x: cannot be opened"),
        ("simplecache::s3://key1:s3cret@bucket/x", "simplecache::s3://bucket/x: .*bucket"),
        ("nothing://key1:s3cret@host/x", "nothing://host/x: fsspec cannot open"),
        ("repeats://key1:s3cret@host/x", "repeats://host/x: .*may not see x, host"),
        ("repeats://key1:s3%2Fcret@host/x", "may not see x"),
        ("repeats://key1:s3/cret@host/x", "repeats://host/x: "),
        ("repeats://key1:s3@cret@host/x", "repeats://host/x: "),
        ("repeats://s3cret@host/x", "may not see x"),
        (
            "repeats://u:s3cret@user/upper",
            r"repeats://user/upper: .*'\*\*\*'\] may not see upper, user",
        ),
        ("simplecache::repeats://key1:s3cret@host/x", "host/x"),
        ("https://key1:s3/cret@127.0.0.1:1/x", "https://127.0.0.1:1/x: not a URL"),
        ("https://key1:s3?cret@127.0.0.1:1/x", "https://127.0.0.1:1/x: not a URL"),
        ("https://key1:s3cret@[::1/x", r"https://\[::1/x: not a URL"),
        ("http://key1:s3cret@127.0.0.1:1/x", "http://127.0.0.1:1/x: .*cannot connect"),
    ],
)
def test_no_error_repeats_a_secret(url: str, says: str) -> None:
    fsspec.register_implementation("repeats", Repeats, clobber=True)
    with pytest.raises(StargzError, match=says) as caught, Client(tries=1) as client:
        as_source(url, client=client)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # others have other credentials
    text = str(caught.value)
    assert not [secret for secret in ("key1", "s3cret", "s3/", "cret@") if secret in text], text


@pytest.mark.parametrize("url", ["repeats://host:80/a@b", "repeats://host/key:a@b"])
def test_an_at_in_a_path_is_no_secret(url: str) -> None:
    fsspec.register_implementation("repeats", Repeats, clobber=True)
    with pytest.raises(SourceError, match=f"^{url}: cannot be opened: {url}, "):
        as_source(url)


def test_what_it_is_known_by() -> None:
    """The whole URL, not the path in its last file system; and what tells of versions, if anything
    does."""
    fs = fsspec.filesystem("memory")
    for name in ("one", "two"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(zipfile.ZipInfo("blob"), b"content")
        fs.pipe(f"/{name}.zip", packed.getvalue())
    try:
        one, two = (FsspecSource(f"zip://blob::memory://{name}.zip") for name in ("one", "two"))
        assert one.identity and two.identity and one.identity[0] != two.identity[0]
        one._info = {"name": "blob", "size": 7, "type": "file", "ETag": None}
        assert one.identity is None
    finally:
        fs.rm("/one.zip")
        fs.rm("/two.zip")


# What there is to install for a URL, as words of pip.
NEEDS = {
    "s3://bucket/key": "s3fs",
    "S3A://bucket/key": "s3fs",
    "gs://bucket/key": "gcsfs",
    "gcs://bucket/key": "gcsfs",
    "az://container/blob": "adlfs",
    "abfs://container/blob": "adlfs",
    "abfss://container/blob": "adlfs",
    "simplecache::s3://bucket/key": "s3fs",
    "simplecache::https://host/blob": "'fsspec[http]'",
    "zip://blob::s3://bucket/key": "s3fs",
    "zip://s3:::blob::gs://bucket/key": "gcsfs",
    "memory://blob": "fsspec",
    "ftp://host/blob": "fsspec",
}


def test_without_fsspec() -> None:
    script = """
import sys
sys.modules["fsspec"] = None
import stargz
for url in sys.argv[1:]:
    try:
        stargz.open(url)
    except stargz.UsageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, *NEEDS], capture_output=True, text=True)
    told = [line.rpartition(": pip install ")[2] for line in done.stdout.splitlines()]
    assert dict(zip(NEEDS, told, strict=True)) == NEEDS, done.stderr


@pytest.mark.parametrize("url", [url for url, needs in NEEDS.items() if needs[0] in "sga"])
def test_without_what_a_scheme_needs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise ImportError("Install another package")

    monkeypatch.setattr("fsspec.url_to_fs", lacking)
    with pytest.raises(UsageError, match=f"another package: pip install {NEEDS[url]}$"):
        FsspecSource(url)


def test_fsspec_names_the_same_packages() -> None:
    from fsspec.registry import known_implementations

    for url, needs in NEEDS.items():
        scheme = url.partition(":")[0].lower()
        known = known_implementations.get(scheme, {}).get("err", "")
        if known and "::" not in url:
            assert needs in known, scheme


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """Options for s3fs: a server of its own in this process, with the bucket `layers`."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"key": "key", "secret": "secret", "endpoint_url": f"http://{host}:{port}"}
        s3fs.S3FileSystem(**options).mkdir("layers")
        yield options
    finally:
        server.stop()


def test_object_storage(s3: dict[str, Any], data: Path) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(**s3)
    fs.pipe_file("layers/layer", (data / "tree.esgz").read_bytes())
    fs.pipe_file("layers/blob", BLOB)
    source = FsspecSource("s3://layers/blob", **s3)
    ranges = [(0, 10), (200_000, 1000), (100_000, 10)]
    assert source.read_ranges(ranges) == [BLOB[o : o + n] for o, n in ranges]
    with stargz.open(FsspecSource("s3://layers/layer", **s3)) as layer:
        assert layer.verify().ok
    with pytest.raises(SourceError, match="there is no such blob"):
        FsspecSource("s3://layers/none", **s3)


def test_object_storage_by_url(
    s3: dict[str, Any], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the settings that the environment gives, as users do."""
    import s3fs

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3["secret"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3["endpoint_url"])
    s3fs.S3FileSystem(**s3).pipe_file("layers/url", (data / "tree.esgz").read_bytes())
    with stargz.open("s3://layers/url") as layer:
        assert layer.verify().ok
