"""JSON of others, wherever it comes from: what cannot be read is one line that says so."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import blobs
import pytest
from command import run
from layouts import OCI_CONFIG, OCI_MANIFEST, Layout
from registries import NAME, Lying, lying

from stargz.oci.bulk.state import _SEALED, _sum

TAR = blobs.tar_of([("a", b"hello\n")])
BAD = {
    "deep list": b"[" * 100_000,
    "deep, but whole": b'{"path":' * 990 + b"1" + b"}" * 990,
    "digits": b'{"path":' + b"9" * 5000 + b"}",
    "half of a pair": b'{"path":"\\ud800","token":"\\ud800","tags":["\\ud800"]}',
    "not UTF-8": b'{"path":"\xff"}',
    "a list": b"[]",
}
Words = list[object]


def layout(path: Path) -> Layout:
    made = Layout(path / "layout")
    made.tag(made.manifest([made.plain_layer(TAR)]), "v1")
    return made


def convert(path: Path, source: object = "oci:{}/layout:v1") -> Words:
    return ["image", "convert", str(source).format(path), f"oci:{path}/out:v1"]


def index(path: Path, data: bytes) -> Words:
    (layout(path).path / "index.json").write_bytes(data)
    return convert(path)


def index_of_the_destination(path: Path, data: bytes) -> Words:
    layout(path)
    (Layout(path / "out").path / "index.json").write_bytes(data)
    return convert(path)


def oci_layout(path: Path, data: bytes) -> Words:
    (layout(path).path / "oci-layout").write_bytes(data)
    return convert(path)


def manifest(path: Path, data: bytes) -> Words:
    made = Layout(path / "layout")
    made.tag(made.blob(data, OCI_MANIFEST), "v1")
    return convert(path)


def config(path: Path, data: bytes) -> Words:
    made = Layout(path / "layout")
    entry = made.manifest([made.plain_layer(TAR)])
    text = json.loads((made.blobs / str(entry["digest"])[7:]).read_bytes())
    text["config"] = made.blob(data, OCI_CONFIG)
    made.tag(made.blob(json.dumps(text).encode(), OCI_MANIFEST), "v1")
    return convert(path)


def archive(path: Path, data: bytes) -> Words:
    with tarfile.open(path / "archive.tar", "w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return convert(path, "docker-archive:{}/archive.tar")


def toc(path: Path, data: bytes) -> Words:
    (path / "blob").write_bytes(blobs.with_toc(gzip.compress(TAR), data))
    return ["ls", path / "blob"]


def external_toc(path: Path, data: bytes) -> Words:
    (path / "toc").write_bytes(data)
    (path / "blob").write_bytes(gzip.compress(TAR))
    return ["ls", "--toc", path / "toc", path / "blob"]


def members(path: Path, data: bytes) -> Words:
    assert run("convert", blobs_tar(path), path / "blob").returncode == 0
    (path / "members").write_bytes(data)
    return ["delta", path / "members", path / "blob", "-o", path / "patch"]


def blobs_tar(path: Path) -> Path:
    (path / "tar").write_bytes(TAR)
    return path / "tar"


def prioritized(path: Path, data: bytes) -> Words:
    (path / "list").write_bytes(data)
    return ["convert", blobs_tar(path), path / "blob", "--prioritize-from", path / "list"]


def state(path: Path, data: bytes) -> Words:
    """The rows are whole, but for what is in them."""
    words = ["image", "bulk", f"oci:{layout(path).path}", f"oci:{path}/out"]
    words += ["--state", str(path / "state"), f"--report={path}/report.json"]
    assert run(*words).returncode == 0
    with sqlite3.connect(path / "state") as db:
        for table in ("layers", "images"):
            db.execute(f"UPDATE {table} SET report = ?", (data.decode("latin-1"),))
            (row,) = db.execute(f"SELECT {', '.join(_SEALED[table])} FROM {table}").fetchall()
            db.execute(f"UPDATE {table} SET sum = ?", (_sum(row),))
    db.close()
    return [*words]


FILES = (
    *(index, index_of_the_destination, oci_layout, manifest, config, archive, toc, external_toc),
    *(members, prioritized, state),
)


def check(words: Words) -> None:
    done = run(*words)
    said = done.stdout + done.stderr
    assert done.returncode in (0, 1, 2), said
    assert "Traceback" not in said and "bug in stargz" not in said, said[-500:]
    assert done.returncode == 0 or len(done.stderr.splitlines()) <= 1, said


@pytest.mark.parametrize("source", FILES)
def test_files(tmp_path: Path, source: Callable[[Path, bytes], Words]) -> None:
    for number, data in enumerate(BAD.values()):
        path = tmp_path / str(number)
        path.mkdir()
        check(source(path, data))


def tags(server: Lying, data: bytes) -> None:
    server.answers[f"/v2/{NAME}/tags/list?n=1000"] = (200, {}, data)


def token(server: Lying, data: bytes) -> None:
    challenge = f'Bearer realm="{server.url}/token",service="s"'
    for path in (f"/v2/{NAME}/tags/list?n=1000", "/v2/"):
        server.answers[path] = (401, {"WWW-Authenticate": challenge}, b"{}")
    asked = f"/token?service=s&scope=repository%3A{NAME.replace('/', '%2F')}%3Apull"
    server.answers[asked] = (200, {}, data)


def errors(server: Lying, data: bytes) -> None:
    server.answers[f"/v2/{NAME}/tags/list?n=1000"] = (400, {}, data)


@pytest.mark.parametrize("answer", [tags, token, errors])
def test_answers(tmp_path: Path, answer: Callable[[Lying, bytes], None]) -> None:
    with lying() as server:
        for data in BAD.values():
            server.log.clear()
            answer(server, data)
            check(["image", "bulk", f"docker://{server.host}/{NAME}", f"oci:{tmp_path}/out"])
            assert any(path in server.answers for path, _ in server.log), server.log
            assert (answer is token) == any("/token" in path for path, _ in server.log)


def test_credentials(tmp_path: Path) -> None:
    with lying() as server:
        for data in BAD.values():
            (tmp_path / "auth").write_bytes(data)
            source = f"docker://{server.host}/{NAME}:v1"
            check([*convert(tmp_path, source), "--authfile", tmp_path / "auth"])
