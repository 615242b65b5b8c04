"""Images: layouts and registries, platforms, trust, and the commands that read them."""

from __future__ import annotations

import base64
import json
import lzma
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
import registries
from command import command, environment, fails, ok, run
from registries import PASSWORD, USER, Registry
from servers import Fault, FaultProxy

import stargz
from stargz.errors import (
    DigestError,
    EntryNotFoundError,
    FooterError,
    FormatError,
    MissingBlobError,
    SourceError,
    StargzError,
    UnverifiedError,
    UsageError,
)
from stargz.oci.formats.layout import Layout
from stargz.oci.formats.manifest import Descriptor
from stargz.oci.formats.platforms import Platform, parse_platform, this_platform
from stargz.oci.image import open_image, open_layer
from stargz.tree import Tree

LOWER = blobs.tar_of([("etc", None), ("etc/a", b"lower a"), ("etc/b", b"lower b"), ("gone", b"x")])
UPPER = blobs.tar_of(
    [("etc/a", b"upper a"), (".wh.gone", b""), ("big", blobs.noise("big", 5 << 20))]
)
CONTENTS = {"etc/a": b"upper a", "etc/b": b"lower b", "big": blobs.noise("big", 5 << 20)}
HERE = this_platform()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> layouts.Layout:
    made = layouts.Layout(tmp_path_factory.mktemp("image") / "layout")
    layers = [made.layer(tar) for tar in (LOWER, UPPER)]
    made.tag(made.manifest(layers, platform=str(HERE)), "v1")
    return made


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, layout: layouts.Layout
) -> Iterator[Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        served.push(layout.path, "some/image", "v1")
        yield served


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins with an empty disk cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., layouts.Layout]:
    """A new, empty layout."""
    return lambda name="layout": layouts.Layout(tmp_path / name)


@pytest.fixture(params=["layout", "registry"])
def src(request: pytest.FixtureRequest, layout: layouts.Layout, registry: Registry) -> str:
    """The image, in both kinds of places."""
    if request.param == "layout":
        return f"oci:{layout.path}:v1"
    return f"docker://{registry.host}/some/image:v1"


def manifest_of(layout: layouts.Layout) -> dict[str, Any]:
    entry = json.loads((layout.path / "index.json").read_text())["manifests"][-1]
    return json.loads((layout.blobs / entry["digest"].partition(":")[2]).read_text())


# --- open images ------------------------------------------------------------------------


def test_an_image(src: str, layout: layouts.Layout) -> None:
    with open_image(src) as image:
        assert image.name == src
        assert image.verified
        assert [entry.digest for entry in image.descriptors] == [
            entry["digest"] for entry in manifest_of(layout)["layers"]
        ]
        assert image.config["architecture"] == HERE.architecture
        assert image.digest == "sha256:" + next(
            path.name for path in layout.blobs.iterdir() if path.read_bytes() == image.manifest.data
        )
        tree = Tree(image.layers)
        for name, content in CONTENTS.items():
            assert tree.open(name).read() == content
        with pytest.raises(EntryNotFoundError):
            tree.stat("gone")
        lower = image.layers[0]
        assert lower.read("gone") == b"x"
    with pytest.raises(ValueError, match="closed"):
        lower.read("gone")
    image.close()


def test_one_layer_is_opened_alone(registry: Registry, layout: layouts.Layout) -> None:
    upper, lower = (entry["digest"] for entry in manifest_of(layout)["layers"][::-1])
    with FaultProxy(f"http://{registry.host}") as proxy:
        src = f"docker://{proxy.url.partition('://')[2]}/some/image:v1"
        for layer in (1, -2, "1", lower, lower[:19], lower[7:20]):
            with open_layer(src, layer) as opened:
                assert opened.read("etc/a") == b"lower a"
        for layer in (2, -1, "2", "-1", upper):
            with open_layer(src, layer) as opened:
                assert opened.read("etc/a") == b"upper a"
        proxy.reset()
        with open_layer(src, 1) as opened:
            assert opened.read("gone") == b"x"
        paths = [request.path for request in proxy.log]
        assert any(lower in path for path in paths) and not any(upper in path for path in paths)


@pytest.mark.parametrize("layer", [None, 0, 3, -3, "3", "0", "x", "sha256:", "", "sha256:00000000"])
def test_what_is_no_layer(layer: Any, src: str, layout: layouts.Layout) -> None:
    with pytest.raises(UsageError) as caught, open_layer(src, layer):
        pass
    for entry in manifest_of(layout)["layers"]:
        assert entry["digest"][:19] in str(caught.value)


def test_an_image_of_one_layer_needs_no_number(build: Any) -> None:
    layout = build()
    layout.tag(layout.manifest([layout.layer(LOWER)]), None)
    with open_layer(f"oci:{layout.path}") as layer:
        assert layer.read("etc/b") == b"lower b"


def test_an_image_of_no_layers(build: Any) -> None:
    layout = build()
    layout.tag(layout.manifest([]))
    with open_image(f"oci:{layout.path}") as image:
        assert image.layers == []
    with pytest.raises(UsageError, match="0 layers"), open_layer(f"oci:{layout.path}"):
        pass


def test_few_requests(registry: Registry) -> None:
    """The manifest, and one request for each layer; the config only for who asks for it."""
    with FaultProxy(f"http://{registry.host}") as proxy:
        image = open_image(f"docker://{proxy.url.partition('://')[2]}/some/image:v1")
        image.close()
        assert len(proxy.log) == 1 + len(image.descriptors)


def test_many_layers(build: Any) -> None:
    layout = build()
    layers = [layout.layer(blobs.tar_of([(f"f{n}", b"%d" % n)])) for n in range(60)]
    layout.tag(layout.manifest(layers))
    with open_image(f"oci:{layout.path}") as image:
        tree = Tree(image.layers)
        assert [tree.open(f"f{n}").read() for n in range(60)] == [b"%d" % n for n in range(60)]


# --- trust ------------------------------------------------------------------------------


def test_layers_that_nothing_vouches_for(build: Any) -> None:
    layout = build()
    layers = [layout.layer(LOWER), layout.layer(UPPER, annotated=False)]
    layout.tag(layout.manifest(layers))
    src = f"oci:{layout.path}"
    with open_image(src) as image:
        assert not image.verified
        assert Tree(image.layers).open("etc/a").read() == b"upper a"
    with pytest.raises(UnverifiedError, match=layers[1]["digest"]):
        open_image(src, require_verified=True)
    with open_layer(src, 1, require_verified=True) as layer:
        assert layer.read("etc/a") == b"lower a"


def test_a_toc_of_another_digest(build: Any) -> None:
    layout = build()
    layer = layout.layer(LOWER)
    layer["annotations"] = {layouts.TOC_DIGEST: "sha256:" + "0" * 64}
    layout.tag(layout.manifest([layer]))
    with pytest.raises(DigestError, match=layer["digest"].partition(":")[2]):
        open_image(f"oci:{layout.path}")


@pytest.mark.parametrize("blob", ["manifest", "config"])
def test_changed_blobs(blob: str, build: Any) -> None:
    layout = build()
    entry = layout.manifest([layout.layer(LOWER)])
    layout.tag(entry)
    digest = entry["digest"] if blob == "manifest" else manifest_of(layout)["config"]["digest"]
    path = layout.blobs / digest.partition(":")[2]
    path.write_bytes(path.read_bytes().replace(b"linux", b"Linux").replace(b"layers", b"Layers"))
    with pytest.raises(DigestError, match=digest), open_image(f"oci:{layout.path}") as image:
        assert image.config


def test_each_layer_is_told_of_as_soon_as_it_is_open(build: Any) -> None:
    layout = build()
    layout.tag(layout.manifest([layout.layer(LOWER), layout.layer(UPPER)]))
    told: list[stargz.Layer] = []
    with open_image(f"oci:{layout.path}", opened=told.append) as image:
        assert {id(layer) for layer in told} == {id(layer) for layer in image.layers}


# --- layers that cannot be read ---------------------------------------------------------


ENCRYPTED = f"{layouts.OCI_LAYER}+encrypted"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
NO_LAYERS: dict[str, tuple[Any, str]] = {
    "text": (
        lambda layout: layout.blob(b"no tar", layouts.OCI_LAYER),
        "no tar, tar.gz or tar.zst: its first bytes are of none of these",
    ),
    "xz": (lambda layout: layout.blob(lzma.compress(b"x"), layouts.OCI_LAYER), "xz"),
    "encrypted": (lambda layout: layout.blob(b"secret", ENCRYPTED), "encrypted; decrypt the image"),
    # That one is made readable by it.
    "empty": (lambda layout: layout.blob(b"", layouts.OCI_LAYER), "stargz image convert {src} DST"),
    "foreign": (
        lambda layout: {"mediaType": FOREIGN, "digest": f"sha256:{7:064}", "size": 9},
        "is a foreign layer, which may not be distributed: it is not with the image",
    ),
}


@pytest.mark.parametrize("kind", NO_LAYERS)
def test_layers_that_are_no_layers(build: Any, kind: str) -> None:
    make, says = NO_LAYERS[kind]
    layout = build()
    plain = make(layout)
    layout.tag(layout.manifest([layout.layer(LOWER), plain]))
    src = f"oci:{layout.path}"
    for reads in (open_image, lambda src: open_layer(src, 2).__enter__()):
        with pytest.raises(MissingBlobError if kind == "foreign" else FooterError) as caught:
            reads(src)
        text = str(caught.value)
        assert plain["digest"] in text and "layer 2 of 2" in text
        assert says.format(src=src) in text
        assert ("convert" in text) == (kind == "empty")
    with open_layer(src, 1) as layer:
        assert layer.read("etc/a") == b"lower a"
    assert says.format(src=src) in fails(1, "image", "ls", src)


def test_an_external_toc(build: Any, registry: Registry) -> None:
    made = blobs.build(LOWER, kind="external-toc")
    assert made.external is not None
    layout = build()
    layer = layout.blob(made.data, layouts.OCI_LAYER)
    layer["annotations"] = {layouts.TOC_DIGEST: made.digest}
    layout.tag(layout.manifest([layer]), "v1")
    src = f"oci:{layout.path}:v1"
    registry.push(layout.path, "external", "v1")
    remote = f"docker://{registry.host}/external:v1"
    for name in (src, remote):
        with pytest.raises(FooterError, match="-esgztoc"):
            open_image(name)
    toc = layout.blob(made.external, layouts.OCI_LAYER)
    toc["annotations"] = {layouts.LAYER_DIGEST: layer["digest"]}
    layout.tag(layout.manifest([toc]), "v1-esgztoc")
    registry.push(layout.path, "external", "v1-esgztoc")
    for name in (src, remote):
        with open_image(name) as image, open_layer(name) as alone:
            assert image.verified
            assert image.layers[0].read("etc/a") == alone.read("etc/a") == b"lower a"
    toc_file = layout.path / "toc"
    toc_file.write_bytes(made.external)
    with open_layer(src, toc=toc_file) as alone:
        assert alone.read("etc/b") == b"lower b"


# --- platforms --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64", "v1")),
        ("AMD64", Platform("linux", "amd64", "v1")),
        ("x86_64", Platform("linux", "amd64", "v1")),
        ("linux/arm64", Platform("linux", "arm64", "v8")),
        ("linux/aarch64/v8", Platform("linux", "arm64", "v8")),
        ("linux/arm", Platform("linux", "arm", "v7")),
        ("linux/arm/v6", Platform("linux", "arm", "v6")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/s390x", Platform("linux", "s390x")),
        ("freebsd/riscv64", Platform("freebsd", "riscv64")),
    ],
)
def test_platforms(text: str, expected: Platform) -> None:
    assert parse_platform(text) == expected


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "/amd64", "a/b/c/d", "linux/../x", "a b", "é!"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UsageError, match="platform"):
        parse_platform(text)


def index_of(layout: layouts.Layout, *platforms: str) -> dict[str, Any]:
    """An index of an image for each, with attestations and the like between them."""
    entries = []
    for platform in platforms:
        entry = layout.manifest([layout.layer(blobs.tar_of([("is", platform.encode())]))],
                                platform=platform)  # fmt: skip
        attestation = layout.manifest([], platform="unknown/unknown")
        attestation["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
        artifact = {**entry, "artifactType": "application/spdx+json"}
        chart = {**entry, "mediaType": "application/vnd.cncf.helm.chart"}
        entries += [attestation, artifact, chart, entry]
    return layout.index(entries)


def chosen(src: str, platform: str | None = None) -> str:
    with open_image(src, platform=platform) as image:
        return image.layers[0].read("is").decode()


def test_the_image_of_a_platform(build: Any, registry: Registry) -> None:
    layout = build()
    there = ["linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v5", "linux/386"]
    there += ["linux/amd64/v3", "windows/amd64", "linux/s390x"]
    layout.tag(index_of(layout, *there), "many")
    registry.push(layout.path, "platforms", "many")
    for src in (f"oci:{layout.path}", f"docker://{registry.host}/platforms:many"):
        for wanted, expected in {
            "linux/amd64": "linux/amd64",
            "amd64/v1": None,
            "linux/amd64/v2": "linux/amd64",
            "linux/amd64/v4": "linux/amd64/v3",
            "arm64": "linux/arm64/v8",
            "linux/arm": "linux/arm/v6",
            "linux/arm/v5": "linux/arm/v5",
            "windows/amd64": "windows/amd64",
            "linux/riscv64": None,
        }.items():
            if expected is not None:
                assert chosen(src, wanted) == expected
                continue
            with pytest.raises(FormatError, match=r"linux/s390x.*--platform") as caught:
                chosen(src, wanted)
            assert "unknown" not in str(caught.value)
        if HERE.architecture == "amd64":
            assert chosen(src) == "linux/amd64"


def test_an_image_that_is_for_another_platform(build: Any) -> None:
    layout = build()
    layout.tag(layout.manifest([layout.layer(LOWER)], platform="linux/arm64"))
    src = f"oci:{layout.path}"
    with open_image(src) as image:  # there is no choice, and files are files
        assert str(image.platform) == "linux/arm64"
    with pytest.raises(FormatError, match="linux/arm64"):
        open_image(src, platform="linux/amd64")


def test_an_index_that_says_no_platform(build: Any) -> None:
    layout = build()
    entry = layout.manifest([layout.layer(LOWER)])
    del entry["platform"]
    layout.tag(layout.index([layout.index([entry])]))
    with open_image(f"oci:{layout.path}") as image:
        assert image.layers[0].read("etc/a") == b"lower a"


def test_a_layout_of_one_image_for_several_platforms(build: Any) -> None:
    layout = build()
    for platform in ("linux/amd64", "linux/s390x"):
        tar = blobs.tar_of([("is", platform.encode())])
        layout.tag(layout.manifest([layout.layer(tar)], platform=platform), None)
    src = f"oci:{layout.path}"
    assert chosen(src, "linux/s390x") == "linux/s390x"
    assert chosen(src, "linux/amd64") == "linux/amd64"
    with pytest.raises(FormatError, match="linux/s390x"):
        chosen(src, "linux/arm64")


# --- layouts ----------------------------------------------------------------------------


def test_references_of_a_layout(build: Any) -> None:
    layout = build()
    for ref in ("one", "two", "group/app:three"):
        tar = blobs.tar_of([("is", ref.encode())])
        entry = layout.tag(layout.manifest([layout.layer(tar)]), ref)
        assert chosen(f"oci:{layout.path}:{ref}") == ref
        assert chosen(f"oci:{layout.path}:{entry['digest']}") == ref
    assert Layout(layout.path).refs() == ["one", "two", "group/app:three"]
    for src in (f"oci:{layout.path}", f"oci:{layout.path}:four"):
        with pytest.raises(SourceError, match=r"one, two, group/app:three"):
            open_image(src)


def test_a_layout_by_another_tool(tmp_path: Path, tool: Any, layout: layouts.Layout) -> None:
    """Copied by skopeo, as others would."""
    copied = tmp_path / "copied"
    words = [tool("skopeo"), "--insecure-policy", "copy", "--preserve-digests"]
    words += [f"oci:{layout.path}:v1", f"oci:{copied}:v2"]
    subprocess.run(words, check=True, capture_output=True)
    with open_image(f"oci:{copied}:v2") as image:
        assert image.verified
        assert Tree(image.layers).open("etc/b").read() == b"lower b"


def test_an_image_pushed_by_another_tool(
    tool: Any, layout: layouts.Layout, registry: Registry
) -> None:
    words = [tool("skopeo"), "--insecure-policy", "copy", "--dest-tls-verify=false"]
    words += [f"oci:{layout.path}:v1", f"docker://{registry.host}/by/skopeo:v1"]
    subprocess.run(words, check=True, capture_output=True)
    with open_image(f"docker://{registry.host}/by/skopeo:v1") as image:
        assert image.verified
        assert Tree(image.layers).open("etc/b").read() == b"lower b"


def test_an_image_with_types_of_docker(
    tool: Any, layout: layouts.Layout, registry: Registry
) -> None:
    """These have no annotations: nothing vouches for the layers."""
    words = [tool("skopeo"), "--insecure-policy", "copy", "--format=v2s2"]
    words += ["--dest-tls-verify=false", f"oci:{layout.path}:v1"]
    subprocess.run([*words, f"docker://{registry.host}/docker:v2"], check=True)
    src = f"docker://{registry.host}/docker:v2"
    with open_image(src) as image:
        assert image.manifest.media_type.startswith("application/vnd.docker.")
        assert not image.verified
        assert Tree(image.layers).open("etc/b").read() == b"lower b"
    with pytest.raises(UnverifiedError):
        open_image(src, require_verified=True)


def test_blobs_of_a_layout(build: Any, tmp_path: Path) -> None:
    """A symlink may lead to a blob; what is no file, or of another size, is refused."""
    layout = build()
    layer = layout.layer(LOWER)
    layout.tag(layout.manifest([layer]))
    src, path = f"oci:{layout.path}", layout.blobs / layer["digest"].partition(":")[2]
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with open_image(src) as image:
        assert image.layers[0].read("etc/a") == b"lower a"
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        path.unlink()
        make()
        with pytest.raises(SourceError, match=path.name):
            open_image(src)
        if path.is_dir():
            path.rmdir()
            path.touch()
    path.unlink()
    with pytest.raises(SourceError, match=layer["digest"]):
        open_image(src)
    path.write_bytes(elsewhere.read_bytes() + b"x")
    with pytest.raises(FormatError, match=path.name):
        open_image(src)


def test_digests_that_are_paths(layout: layouts.Layout) -> None:
    opened = Layout(layout.path)
    for digest in ("sha256:../../index.json", "../oci-layout", "sha256:/etc/passwd", ""):
        with pytest.raises(StargzError):
            opened.open_blob(Descriptor("", digest, 10))


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("oci-layout", None, "without its file oci-layout"),
        ("oci-layout", "{}", "version"),
        ("oci-layout", '{"imageLayoutVersion": "2.0.0"}', "version"),
        ("oci-layout", "[]", "oci-layout"),
        ("index.json", "", "index.json"),
        ("index.json", "[]", "index.json"),
        ("index.json", '{"manifests": 7}', "index.json"),
        ("index.json", '{"manifests": [{"digest": "sha256:../x", "size": 1}]}', "digest"),
        ("index.json", '{"manifests": []}', "none"),
        ("index.json", " " * (5 << 20), "4194304"),
    ],
)
def test_malformed_layouts(file: str, text: str | None, says: str, build: Any) -> None:
    layout = build()
    layout.tag(layout.manifest([layout.layer(LOWER)]))
    path = layout.path / file
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises((StargzError, OSError), match=says) as caught:
        open_image(f"oci:{layout.path}")
    assert str(layout.path) in str(caught.value)


def test_no_layout(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such directory"):
        open_image(f"oci:{tmp_path}/absent")
    with pytest.raises(UsageError, match="is not an image"):
        open_image(str(tmp_path))


# --- the command line -------------------------------------------------------------------


def test_image_commands(src: str, layout: layouts.Layout) -> None:
    assert ok("image", "ls", src).splitlines() == ["big", "etc"]
    assert ok("image", "ls", "-R", src, "etc").splitlines() == ["etc/a", "etc/b"]
    assert ok("image", "cat", src, "etc/a", "/etc/b") == "upper alower b"
    listed = json.loads(ok("image", "ls", "--json", src, "etc"))
    assert [entry["name"] for entry in listed] == ["etc/a", "etc/b"]
    info = json.loads(ok("image", "info", "--json", src))
    layers = manifest_of(layout)["layers"]
    assert [layer["digest"] for layer in info["layers"]] == [entry["digest"] for entry in layers]
    assert info["seekable"] is True and info["size"] == sum(entry["size"] for entry in layers)
    assert all(len(layer["diff_id"]) == 71 and layer["toc_digest"] for layer in info["layers"])
    text = ok("image", "info", src)
    assert info["digest"] in text and layers[0]["digest"] in text
    assert "no entry 'gone'" in fails(1, "image", "cat", src, "gone")


def test_layer_commands_on_a_layer_of_an_image(
    registry: Registry, layout: layouts.Layout, tmp_path: Path
) -> None:
    assert ok("ls", f"oci:{layout.path}:v1", "--layer", "1", "etc").splitlines() == ["a", "b"]
    src = f"docker://{registry.host}/some/image:v1"
    assert ok("cat", src, "--layer=-1", "etc/a") == "upper a"
    verified = json.loads(ok("verify", src, "--layer", "2", "--json"))
    assert verified["ok"] and verified["verified"]
    info = json.loads(ok("info", src, "--layer", "2", "--json"))
    assert info["kind"] == "estargz" and info["files"] == 4
    toc = ok("toc", src, "--layer", "1")
    assert (
        blobs.sha256(toc.encode())
        == json.loads(ok("info", src, "--layer", "1", "--json", "--require-verified"))["toc_digest"]
    )
    ok("extract", src, "--layer", "1", "-C", tmp_path)
    assert (tmp_path / "etc/b").read_bytes() == b"lower b"
    text = fails(2, "ls", src)
    assert "--layer" in text and "sha256:" in text
    assert "--layer" in fails(2, "ls", src, "--layer", "7")


def test_wrong_usage(layout: layouts.Layout, data: Path) -> None:
    src = f"oci:{layout.path}:v1"
    blob = next(iter(layout.blobs.iterdir()))
    assert "image" in fails(2, "ls", blob, "--layer", "1")
    assert "platform" in fails(2, "image", "ls", src, "--platform", "a/b/c/d")
    assert "HOST=URL" in fails(2, "image", "ls", src, "--mirror", "x")
    assert "is no image but a file" in fails(2, "image", "ls", blob)
    assert "image" in fails(2, "image")
    assert "frobnicate" in fails(2, "image", "frobnicate")
    assert "--no-cache" in fails(2, "image", "ls", src, "--no-cache", "--cache-dir", "x")
    assert "linux/s390x" in fails(1, "image", "ls", src, "--platform", "linux/s390x")


def test_help() -> None:
    for name in ("ls", "cat", "info"):
        text = ok("image", name, "--help")
        assert "example:" in text and "--mirror" in text
    assert "cat" in ok("image", "--help") and "image" in ok("--help")


def test_an_unconverted_image(build: Any) -> None:
    layout = build()
    layout.tag(layout.manifest([layout.plain_layer(LOWER)]))
    src = f"oci:{layout.path}"
    info = json.loads(ok("image", "info", "--json", src))
    assert info["seekable"] is False and info["layers"][0]["toc_digest"] is None
    assert "not seekable" in ok("image", "info", src)
    assert json.loads(ok("info", "--json", src))["kind"] == "plain"
    fails(3, "image", "info", "--require-verified", src)


def test_unverified_images_are_reported(build: Any) -> None:
    layout = build()
    layout.tag(layout.manifest([layout.layer(LOWER, annotated=False)]))
    src = f"oci:{layout.path}"
    done = run("image", "cat", src, "etc/a")
    assert done.stdout == "lower a" and "unverified" in done.stderr
    assert ok("image", "cat", "-q", src, "etc/a") == "lower a"
    fails(3, "image", "cat", "--require-verified", src, "etc/a")
    fails(3, "cat", "--require-verified", src, "etc/a")


@contextmanager
def private(tmp_path: Path, layout: Path) -> Iterator[Registry]:
    with registries.registry(tmp_path / "private", basic=True) as served:
        served.push(layout, "app", "v1")
        yield served


def test_credentials_and_mirrors_of_the_command_line(
    tmp_path: Path, layout: layouts.Layout
) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    env = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "", "XDG_CONFIG_HOME": ""}
    with private(tmp_path, layout.path) as served:
        src = f"docker://{served.host}/app:v1"
        text = fails(1, "image", "ls", src, env=env)
        assert "log in" in text and served.host in text
        authfile = tmp_path / "auth.json"
        authfile.write_text(json.dumps({"auths": {served.host: {"auth": auth}}}))
        assert ok("image", "ls", src, "--authfile", authfile, env=env).split() == ["big", "etc"]
        (tmp_path / ".docker").mkdir()
        shutil.copy(authfile, tmp_path / ".docker/config.json")
        assert ok("image", "ls", src, env=env).split() == ["big", "etc"]
        mirror = f"registry.invalid=http://{served.host}"
        there = "docker://registry.invalid/app:v1"
        assert ok("image", "cat", there, "etc/a", "--mirror", mirror, env=env) == "upper a"
        authfile.write_text(f'{{"auths": "{PASSWORD}"}}')
        text = fails(1, "image", "ls", src, "--authfile", authfile, env=env)
        assert str(authfile) in text and PASSWORD not in text


def test_urls(tmp_path: Path, layout: layouts.Layout, registry: Registry) -> None:
    """A blob of a registry has a URL too."""
    digest = manifest_of(layout)["layers"][0]["digest"]
    url = f"http://{registry.host}/v2/some/image/blobs/{digest}"
    assert ok("cat", url, "etc/a") == "lower a"
    assert json.loads(ok("info", url, "--json"))["kind"] == "estargz"
    assert digest in fails(1, "cat", url.replace("some", "none"), "etc/a")


def test_a_failing_registry_is_told_in_one_line(registry: Registry) -> None:
    with FaultProxy(f"http://{registry.host}") as proxy:
        proxy.reset(lambda request: Fault(status=404) if "/blobs/" in request.path else None)
        src = f"docker://{proxy.url.partition('://')[2]}/some/image:v1"
        assert "some/image@sha256:" in fails(1, "image", "ls", src)


def test_an_interrupt_does_not_wait_for_the_network(registry: Registry) -> None:
    with FaultProxy(f"http://{registry.host}") as proxy:
        stalled = Fault(stall_after=10)
        proxy.reset(lambda request: stalled if "range" in request.headers else None)
        src = f"docker://{proxy.url.partition('://')[2]}/some/image:v1"
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command("image", "ls", src), env=environment(), stdout=pipe, stderr=pipe
        ) as process:
            until = time.monotonic() + 20
            while not any("range" in request.headers for request in proxy.log):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130


def test_public_names() -> None:
    assert issubclass(stargz.RegistryError, stargz.SourceError)
    assert stargz.RegistryError("text", "host/a:1", 404).status == 404
