"""`stargz index` and `stargz.index`: what is written, where, and what is told."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import blobs
import layouts
import ordinary
import pytest
from command import command, each_here, environment, fails_here, here, ok, ok_here
from mounts import listed
from registries import registry
from servers import FaultProxy, nginx

import stargz
from stargz.errors import DigestError, UsageError
from stargz.sources import MemorySource

TAR = ordinary.big_tar()
GZ = gzip.compress(TAR, 6)
KEYS = {
    "format", "path", "digest", "size", "blob_digest", "blob_size", "diff_id", "toc_digest",
    "spans", "longest_span", "entries", "seconds", "warnings",
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "any.tar.gz"
    made.write_bytes(GZ)
    return made


def test_what_is_written_and_told(path: Path) -> None:
    told = json.loads(ok_here("index", "--json", "--span-size", "64K", path))
    index = path.with_name("any.tar.gz.index")
    assert set(told) == KEYS
    assert told["path"] == str(index)
    assert told["digest"] == blobs.sha256(index.read_bytes())
    assert told["size"] == index.stat().st_size < len(GZ) // 4
    assert (told["blob_digest"], told["blob_size"]) == (blobs.sha256(GZ), len(GZ))
    assert told["diff_id"] == blobs.sha256(TAR)
    assert told["entries"] == 44
    assert told["spans"] > 5 and 64 << 10 <= told["longest_span"] < 512 << 10
    assert told["toc_digest"] == blobs.sha256(ok_here("toc", path).encode())
    assert path.read_bytes() == GZ
    assert index.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    table = ok_here("index", "--force", path)
    assert table.startswith("index ") and "blob_digest" in table
    assert ok_here("index", "-q", "--force", path) == ""


def current_umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_the_same_bytes_always(path: Path, tmp_path: Path) -> None:
    made = []
    sources: list[Any] = [path, GZ, io.BytesIO(GZ), MemorySource(GZ), str(path)]
    for threads, source in enumerate(sources, 1):
        out = io.BytesIO()
        result = stargz.index(source, out, threads=threads, span_size=64 << 10)
        assert result.path is None
        assert result.digest == blobs.sha256(out.getvalue())
        made.append(out.getvalue())
    with path.open("rb") as file:
        piped = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        out_of = ok("index", "-", "-o", "-", "--span-size", "64K", stdin=piped.stdout, text=False)
        piped.wait()
        assert piped.stdout is not None
        piped.stdout.close()
    assert {*made} == {out_of}


def test_where_it_goes(path: Path, tmp_path: Path) -> None:
    index = path.with_name("any.tar.gz.index")
    ok_here("index", path)
    good = index.read_bytes()
    with pytest.raises(FileExistsError):
        stargz.index(path)
    (code, _, err), forced, *others = each_here(
        ("index", path),
        ("index", "-f", path, "--span-size", "64K"),
        ("index", "-"),
        ("index", "https://host.example/any.tar.gz"),
        ("index", "docker://host.example/app", "--layer", "1"),
    )
    assert code == 1 and "--force replaces it" in err
    assert forced[0] == 0 and index.read_bytes() != good
    for code, _, err in others:
        assert code == 2 and "FILE is needed" in err
    with pytest.raises(UsageError, match="give dst"):
        stargz.index(GZ)
    # Never SRC itself.
    os.link(path, tmp_path / "link")
    (tmp_path / "symlink").symlink_to(path)
    itself = (path, tmp_path / "link", tmp_path / "symlink")
    for dst in itself:
        with pytest.raises(UsageError, match="same file"):
            stargz.index(path, dst, force=True)
    told = each_here(
        *(("index", "-f", path, "-o", dst) for dst in itself),
        ("index", path, "-o", tmp_path),
        ("index", path, "-o", tmp_path / "none/such"),
        ("index", tmp_path),
        ("index", path, "-o", ""),
        ("index", path, "--span-size", "1K"),
        ("index", path, "--span-size", "2G"),
        ("index", path, "--format", "other"),
    )
    assert [code for code, _, _ in told] == [1] * 6 + [2] * 4
    assert all(not out and err.count("\n") == 1 for _, out, err in told)
    assert path.read_bytes() == GZ


def test_what_cannot_be_indexed_leaves_nothing(tmp_path: Path) -> None:
    before = {
        "bad": GZ[: len(GZ) // 2],
        "flipped": GZ[:5000] + bytes(8) + GZ[5008:],
        "no": b"x" * 99,
    }
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)
        assert str(tmp_path / name) in fails_here(1, "index", tmp_path / name)
        assert str(tmp_path / name) in fails_here(1, "ls", tmp_path / name)
    assert listed(tmp_path) == sorted(before)


def test_killed_it_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("index", "-", "-o", tmp_path / "i"), stdin=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None
    process.stdin.write(GZ[:-1000])
    process.stdin.flush()
    process.terminate()
    process.stdin.close()
    assert process.wait(30) == 143
    assert not listed(tmp_path)


def test_of_a_url_and_of_a_registry(path: Path, tmp_path: Path) -> None:
    (tmp_path / "nginx").mkdir()
    with nginx(tmp_path, tmp_path / "nginx") as url, FaultProxy(url) as proxy:
        ok_here("index", f"{proxy.url}/any.tar.gz", "-o", tmp_path / "of-url")
        assert proxy.bytes < len(GZ) * 1.1
    layout = layouts.Layout(tmp_path / "layout")
    layout.tag(layout.manifest([layout.plain_layer(TAR, GZ)]))
    ok_here("index", f"oci:{layout.path}", "--layer", "1", "-o", tmp_path / "of-layout")
    with registry(tmp_path / "registry") as host:
        host.push(layout.path, "app", "latest")
        src = f"docker://{host.host}/app:latest"
        ok_here("index", src, "-o", tmp_path / "of-registry")
        assert "--build-index" in fails_here(1, "ls", "--layer", "1", src)
        text = ok_here("cat", "--layer", "1", "--index", tmp_path / "of-registry", src, "d/small2")
        assert text.startswith("2 ")
        assert ok_here("cat", "--layer", "1", "--build-index", src, "d/small2") == text
        assert ok_here("cat", "--layer", "1", src, "d/small2") == text  # it was kept
    ok_here("index", path, "-o", tmp_path / "of-file")
    made = {
        (tmp_path / f"of-{name}").read_bytes() for name in ("url", "layout", "registry", "file")
    }
    assert len(made) == 1


def test_a_blob_that_is_not_what_its_digest_says() -> None:
    class Lying(MemorySource):
        identity = ("sha256:" + "1" * 64, "")

    with pytest.raises(DigestError, match="the blob"):
        stargz.index(Lying(GZ), io.BytesIO())


def test_what_is_worth_a_warning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stargz.convert(path, path.with_name("any.stargz"))
    done = here("index", path.with_name("any.stargz"))
    assert done.returncode == 0 and "is seekable without an index" in done.stderr
    monkeypatch.setattr("stargz.indexing.LONG_SPAN", 1 << 20)
    done = here("index", path, "--span-size", "1G")
    assert "for one byte up to 1 MiB have to be decoded" in done.stderr
    assert (
        json.loads(ok_here("index", "--json", "-f", path, "--span-size", "64K"))["warnings"] == []
    )


def test_soci(path: Path, tmp_path: Path) -> None:
    told = json.loads(ok_here("index", "--format", "soci", "--json", "-o", tmp_path / "z", path))
    assert told["format"] == "soci"
    assert told["digest"] == blobs.sha256((tmp_path / "z").read_bytes())
    assert ok_here("cat", "--index", tmp_path / "z", path, "d/text", text=False) == ordinary.TEXT
    with stargz.open(path, index=tmp_path / "z") as layer:
        assert layer.verify().ok
        assert not layer.verified
    (tmp_path / "z").rename(path.with_name("any.tar.gz.index"))
    assert ok_here("cat", path, "d/text", text=False) == ordinary.TEXT


def test_a_span_is_what_was_asked_for() -> None:
    spans = []
    for size in (64 << 10, 256 << 10, 4 << 20):
        result = stargz.index(GZ, io.BytesIO(), span_size=size)
        spans.append(result.spans)
        assert result.longest_span <= max(size, len(TAR)) + (1 << 20)
    assert spans == sorted(spans, reverse=True) and spans[0] > spans[-1]


def test_standard_output_under_another_name(path: Path, tmp_path: Path) -> None:
    """Nothing but the index goes there, whether it is a pipe or a file."""
    made = ok("index", path, "-o", "-", text=False)
    assert ok("index", path, "-o", "/dev/stdout", text=False) == made
    for command_name in ("index", "convert"):
        with (tmp_path / command_name).open("wb") as out:
            subprocess.run(
                command(command_name, path, "-o", "/dev/stdout"),
                stdout=out, env=environment(), check=True,
            )  # fmt: skip
    assert (tmp_path / "index").read_bytes() == made
    assert (tmp_path / "convert").read_bytes() == ok("convert", path, "-", text=False)
