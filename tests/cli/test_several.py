"""`verify` and `info`: what their exit codes mean, several SRCs, and what is fetched for `info`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import layouts
import pytest
from blobs import tar_of
from command import fails, ok, run
from registries import registry
from servers import Fault, FaultProxy, find_nginx, nginx

import stargz
from stargz.cli import main
from stargz.oci.conversion import convert_image
from stargz.sources.base import TAIL


@pytest.fixture
def tree(data: Path) -> Path:
    return data / "tree.esgz"


def verify(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any, str]:
    """The exit code of `stargz verify --json WORDS`, what it printed, and what it said."""
    code = main(["verify", "--json", *map(str, words)])
    done = capsys.readouterr()
    return code, json.loads(done.out) if done.out else None, done.err


# --- one SRC ------------------------------------------------------------------------------


def test_what_is_cut_or_flipped_is_verified_wrong(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blob = tree.read_bytes()
    with stargz.open(tree) as layer:
        toc = layer.toc_offset
    # (Cut where a member ends it is an ordinary tar.gz.)
    cuts = [0, 1, 10, 45, 46, 51, 1000, toc - 1, toc + 1, len(blob) - 52, len(blob) - 1]
    damaged = [blob[:n] for n in cuts]
    for at in (0, 3, 200, toc // 2, toc - 9, toc, toc + 12, len(blob) - 60, *range(-51, 0, 5)):
        at %= len(blob)
        damaged.append(blob[:at] + bytes([blob[at] ^ 0x41]) + blob[at + 1 :])
    damaged += [blob + b"\0", blob[:toc] + blob[toc + 1 :], blob * 2, gzip.compress(b"x" * 99)]
    damaged += [
        gzip.compress(tree.with_suffix(".tar").read_bytes())[:-1],
        b"",
    ]  # (a block of zeros is an empty tar)
    bad = tmp_path / "bad"
    for number, content in enumerate(damaged):
        bad.write_bytes(content)
        code, found, said = verify(capsys, bad)
        assert code == 3, number
        assert found["ok"] is False and found["error_count"] >= len(found["errors"]) >= 1
        assert all({"name", "offset", "message"} == set(error) for error in found["errors"])
        assert str(bad) in said
        # The others read no more than they need; what they need must be right.
        assert main(["ls", "-q", str(bad)]) in (0, 1)
        capsys.readouterr()


def test_external_tocs(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blob, toc = data / "external_toc.esgz", data / "external_toc.esgz.toc"
    assert verify(capsys, blob, "--toc", toc)[0] == 0
    assert verify(capsys, blob)[0] == 1
    bad = tmp_path / "toc"
    right = toc.read_bytes()
    for content in (b"", right[:-20], right[:100] + b"?" + right[101:], b"{}"):
        bad.write_bytes(content)
        code, found, said = verify(capsys, blob, "--toc", bad)
        assert (code, found["ok"], len(said.splitlines())) == (3, False, 1)
    assert verify(capsys, blob, "--toc", tmp_path / "none")[:2] == (1, None)


def test_digests_that_are_not_the_ones_asked_for(
    tree: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, _ = verify(capsys, tree, "--toc-digest", "sha256:" + "0" * 64)
    assert code == 3 and "expected sha256:0000" in found["errors"][0]["message"]
    assert verify(capsys, tree, "--require-verified")[0] == 3
    assert fails(3, "verify", data / "tree.tar", "--toc-digest", "sha256:" + "0" * 64)


def test_what_cannot_be_read_is_not_verified_wrong(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for src in (tmp_path, tmp_path / "none", f"oci:{tmp_path}/no"):
        assert verify(capsys, src)[:2] == (1, None), src
    assert verify(capsys, "oci:")[0] == 2
    assert verify(capsys, tree, "--layer", "1")[0] == 2
    if os.geteuid():
        closed = tmp_path / "closed"
        shutil.copy(tree, closed)
        closed.chmod(0)
        assert verify(capsys, closed)[:2] == (1, None)


def test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = layouts.Layout(tmp_path / "layout")
    made.tag(made.manifest([made.plain_layer(tar_of([("etc/file", b"content\n")]))]), "v1")
    convert_image(f"oci:{made.path}:v1", f"oci:{tmp_path}/twin:v1")
    src = f"oci:{tmp_path}/twin:v1"
    assert verify(capsys, src)[0] == verify(capsys, src, "--layer", "1")[0] == 0
    assert verify(capsys, f"oci:{made.path}:v1", "--layer", "1")[0] == 0  # by an index
    assert verify(capsys, f"oci:{tmp_path}/twin:v2")[:2] == (1, None)
    digest = json.loads(ok("image", "info", "--json", src))["layers"][0]["digest"]
    (tmp_path / "twin/blobs/sha256" / digest.removeprefix("sha256:")).unlink()
    assert verify(capsys, src)[0] == verify(capsys, src, "--layer", "1")[0] == 3
    for words in (["--platform", "linux/mips"], ["--layer", "1", "--platform", "linux/mips"]):
        assert verify(capsys, src, *words)[:2] == (1, None)


def _of_index(text: str | None) -> Callable[[Path], None]:
    def change(layout: Path) -> None:
        (layout / "index.json").unlink()
        if text is not None:
            (layout / "index.json").write_text(text)

    return change


def _without_manifest(layout: Path) -> None:
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    (layout / "blobs/sha256" / digest.partition(":")[2]).unlink()


def _file_for_folder(layout: Path) -> None:
    shutil.rmtree(layout / "blobs")
    (layout / "blobs").write_text("")


def _folder_for_file(layout: Path) -> None:
    (layout / "index.json").unlink()
    (layout / "index.json").mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no manifest": _without_manifest,
    "no marker": lambda layout: (layout / "oci-layout").unlink(),
    "another version": lambda layout: (layout / "oci-layout").write_text("{}"),
    "no index": _of_index(None),
    "empty index": _of_index(""),
    "no JSON": _of_index("{"),
    "a list": _of_index("[]"),
    "no manifests": _of_index("{}"),
    "bad descriptors": _of_index('{"schemaVersion": 2, "manifests": [7]}'),
    "a folder for the index": _folder_for_file,
    "a file for the blobs": _file_for_folder,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_layouts_are_verified_wrong(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = layouts.image(tmp_path / "layout", [tar_of([("f", b"content")])])
    tree, tar = f"oci:{made.path}:latest", tmp_path / "saved.tar"
    DAMAGE[damage](made.path)
    with tarfile.open(tar, "w") as file:
        file.add(made.path, ".")
    for src in (tree, f"oci-archive:{tar}"):
        code, found, said = verify(capsys, src)
        assert (code, found["ok"], found["error_count"]) == (3, False, 1), said
        assert src.partition(":")[2].removesuffix(":latest") in said
        assert len(said.splitlines()) == 1
        assert verify(capsys, src, "--layer", "1")[0] == 3


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_cut_archives_are_verified_wrong(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = tar_of([("f", os.urandom(5000))])
    whole = tmp_path / "whole"
    if kind == "oci-archive":
        made = layouts.image(tmp_path / "layout", [tar])
        ok("image", "convert", f"oci:{made.path}:latest", f"{kind}:{whole}")
    else:
        diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
        config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [diff_id]}}
        images = [{"Config": "c.json", "RepoTags": ["app:v1"], "Layers": ["1/layer.tar"]}]
        members = [("c.json", config), ("manifest.json", images)]
        files = [(name, json.dumps(value).encode()) for name, value in members]
        whole.write_bytes(tar_of([("1/layer.tar", tar), *files]))
    assert verify(capsys, f"{kind}:{whole}")[0] == 0
    for data in (whole.read_bytes(), gzip.compress(whole.read_bytes())):
        for size in (0, 1, 5, 600, len(data) // 2):
            (tmp_path / "cut").write_bytes(data[:size])
            code, found, said = verify(capsys, f"{kind}:{tmp_path}/cut")
            assert (code, found["ok"]) == (3, False), (size, said)
    assert verify(capsys, f"{kind}:{tmp_path}/none")[:2] == (1, None)
    assert verify(capsys, f"{kind}:{tmp_path}")[:2] == (1, None)


# --- several ------------------------------------------------------------------------------


def test_each_src_is_done_and_told(
    tree: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(tree.read_bytes()[:-1])
    none = tmp_path / "none"
    layout = layouts.image(tmp_path / "layout", [tar_of([("etc/file", b"content\n")])])
    image = f"oci:{layout.path}:latest"
    right = [str(tree), str(data / "empty.esgz"), image]
    done = run("verify", *right)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(": ")[:2] for line in done.stdout.splitlines()] == [[s, "ok"] for s in right]
    done = run("verify", none, tree, bad, image)
    assert done.returncode == 3
    assert [line.rpartition(": ok: ")[0] for line in done.stdout.splitlines()] == [str(tree), image]
    assert [line.split()[1].rstrip(":") for line in done.stderr.splitlines()] == [
        str(none),
        str(bad),
    ]
    code, found, _ = verify(capsys, none, tree, bad, image)
    assert code == 3
    assert [one["source"] for one in found] == [str(none), str(tree), str(bad), image]
    assert [one["exit_code"] for one in found] == [1, 0, 3, 0]
    assert [one["ok"] for one in found] == [False, True, False, True]
    assert all("message" in error for one in found for error in one["errors"])
    assert verify(capsys, tree, none)[0] == 1
    assert verify(capsys, tree, tree)[0] == 0


@pytest.mark.parametrize("name", ["verify", "info"])
def test_what_is_about_one_layer_is_wrong_usage_for_several(name: str, tree: Path) -> None:
    digest = "sha256:" + "0" * 64
    for option in (["--toc-digest", digest], ["--toc", "x"], ["--layer", "1"]):
        assert option[0] in fails(2, name, tree, tree, *option)
    assert "standard input" in fails(2, name, "-", "-")
    assert "standard input" in fails(2, name, "oci-archive:-", tree, "-")


def test_info_of_several(tree: Path, data: Path, tmp_path: Path) -> None:
    other = data / "empty.esgz"
    blocks = ok("info", tree, other).split("\n\n")
    assert [block.splitlines()[0].split() for block in blocks] == [
        ["source", str(tree)],
        ["source", str(other)],
    ]
    done = run("info", "--json", tree, tmp_path / "none", data / "tree.tar")
    first, second, third = json.loads(done.stdout)
    assert done.returncode == 1
    assert first["source"] == str(tree) and first["kind"] == "estargz"
    assert second["kind"] is None and "No such file" in second["error"]
    assert third["kind"] == "plain"
    assert isinstance(json.loads(ok("info", "--json", tree)), dict)


def test_quiet_leaves_the_exit_code_and_the_errors(tree: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(tree.read_bytes()[:200] + b"?" + tree.read_bytes()[201:])
    assert ok("verify", "-q", tree, tree) == ""
    done = run("verify", "-q", bad)
    assert (done.returncode, done.stdout) == (3, "") and str(bad) in done.stderr


# --- what info fetches --------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a layer `blob` of 4 MB."""
    folder = tmp_path_factory.mktemp("large")
    tar = tar_of([(f"{n}", os.urandom(200_000)) for n in range(20)])
    stargz.convert(io.BytesIO(tar), folder / "blob")
    return folder


@pytest.fixture
def site(large: Path, tmp_path: Path) -> Iterator[FaultProxy]:
    if find_nginx() is None:
        pytest.skip("needs nginx")
    with nginx(large, tmp_path) as url, FaultProxy(url) as proxy:
        yield proxy


def test_info_of_a_url_fetches_footer_and_toc(site: FaultProxy, large: Path) -> None:
    url = f"{site.url}/blob"
    size = (large / "blob").stat().st_size
    found = json.loads(ok("info", "--json", url))
    assert (found["size"], found["entries"]) == (size, 21)
    assert found["uncompressed_size"] is found["ratio"] is None
    assert sum(request.sent for request in site.log) <= TAIL < size / 7
    assert len(site.log) <= 3
    assert "--all" in next(
        line for line in ok("info", url).splitlines() if line.startswith("uncompressed_size")
    )
    found = json.loads(ok("info", "--json", "--all", url))
    assert found == json.loads(ok("info", "--json", large / "blob"))
    assert found["uncompressed_size"] > 4_000_000


def test_a_server_that_fails_is_no_verification_that_fails(site: FaultProxy) -> None:
    url = f"{site.url}/blob"
    assert run("verify", url).returncode == 0
    site.reset(lambda request: Fault(status=403))
    assert "403" in fails(1, "verify", url)
    site.reset()
    assert "404" in fails(1, "verify", f"{site.url}/none")


def test_info_of_an_images_layer_has_the_manifests_size(tmp_path: Path) -> None:
    made = layouts.image(tmp_path / "layout", [tar_of([("f", os.urandom(2_000_000))])])
    convert_image(f"oci:{made.path}:latest", f"oci:{tmp_path}/twin:v1")
    with registry(tmp_path / "registry") as served, FaultProxy(f"http://{served.host}") as proxy:
        served.push(tmp_path / "twin", "app", "v1")
        src = f"docker://{proxy.url.partition('://')[2]}/app:v1"
        found = json.loads(ok("info", "--json", "--layer", "1", src))
        assert sum(request.sent for request in proxy.log) < 600_000
        local = json.loads(ok("info", "--json", "--layer", "1", f"oci:{tmp_path}/twin:v1"))
        assert found == local and found["ratio"] > 0.9


def test_loggers_are_left_as_they_were(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By main, which a process calls that goes on."""
    (tmp_path / "a.tar").write_bytes(bytes(1024))
    logger = logging.getLogger("stargz")
    before = logger.level, logger.handlers[:]
    for option in ("-q", "-v", "--log-level=debug"):
        assert main(["ls", option, str(tmp_path / "a.tar")]) == 0
        assert (logger.level, logger.handlers) == before
    logger.warning("told")
    assert "told" in caplog.text
