"""Images whose layers stay as they are, read by their SOCI indexes, and by those that are made."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
from blobs import noise, sha256, tar_of
from command import fails_here, here, ok_here, run
from layouts import OCI_MANIFEST, TOC_DIGEST, Layout
from mounts import clean_up, listed, needs_fuse
from servers import FaultProxy

import stargz
from stargz.errors import DigestError, FooterError, UnindexedError
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import SOCI_V1, Descriptor
from stargz.oci.formats.soci import read_index
from stargz.oci.indexes import indexes_of
from stargz.oci.repository import open_repository

NAMES = [f"etc/{number}" for number in range(30)]


def contents(name: str) -> bytes:
    """Text, which a command can print."""
    return noise(name, 20_000).hex().encode() + name.encode()


LARGE = tar_of([("etc/", None), *((name, contents(name)) for name in NAMES)])
SMALL = tar_of([("small", b"of the small layer\n"), ("etc/7", b"replaced\n")])
MIN = 100_000
SOCI_V2 = "application/vnd.amazon.soci.index.v2+json"


def ordinary(path: Path, *tars: bytes) -> Layout:
    """An image as any tool makes it."""
    layout = Layout(path)
    layout.tag(layout.manifest([layout.plain_layer(tar) for tar in tars or (LARGE, SMALL)]), "v1")
    return layout


def index(src: str, dst: str | None = None, **options: Any) -> stargz.ImageIndexReport:
    options = {"min_layer_size": MIN, "span_size": 64 << 10, "threads": 1, **options}
    return stargz.index_image(src, dst, **options)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout: "v1" is ordinary, "v2" has an index of version 2."""
    folder = tmp_path_factory.mktemp("indexed")
    layout = ordinary(folder / "src")
    index(f"oci:{layout.path}:v1", f"oci:{layout.path}:v2")
    return layout.path


def copied(layout: Path, to: Path) -> Path:
    for path in layout.rglob("*"):
        if path.is_file():
            target = to / path.relative_to(layout)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to


def rewritten(layout: Path, change: Callable[[bytes], bytes], *, size: bool = True) -> None:
    """Change the only ztoc of "v2", and all that names it by its digest; without `size` the ztoc
    alone."""
    reading = Reading(layout)

    def replace(old: str, new: bytes) -> None:
        (layout / "blobs/sha256" / sha256(new)[7:]).write_bytes(new)
        changes[old] = sha256(new), len(new)

    def again(data: bytes) -> bytes:
        def fix(value: Any) -> Any:
            if isinstance(value, list):
                return [fix(one) for one in value]
            if not isinstance(value, dict):
                return changes.get(value, (value,))[0] if isinstance(value, str) else value
            if value.get("digest") in changes:
                digest, length = changes[value["digest"]]
                value = value | {"digest": digest, "size": length}
            return {key: fix(one) for key, one in value.items()}

        return json.dumps(fix(json.loads(data))).encode()

    changes: dict[str, tuple[str, int]] = {}
    root = reading.manifest(reading.resolve("v2"))
    (entry,) = (one for one in root.manifests if one.json.get("artifactType") == SOCI_V2)
    (ztoc,) = read_index(reading.manifest(entry)).ztocs.values()
    data = reading.read_blob(ztoc)
    if not size:
        (layout / "blobs/sha256" / ztoc.digest[7:]).write_bytes(change(data))
        return
    replace(ztoc.digest, change(data))
    replace(entry.digest, again(reading.manifest(entry).data))
    for one in root.manifests:
        if one.digest != entry.digest:
            replace(one.digest, again(reading.manifest(one).data))
    replace(root.digest, again(root.data))
    (layout / "index.json").write_bytes(again((layout / "index.json").read_bytes()))


# --- what is read -------------------------------------------------------------------------------


def check(image: stargz.Image) -> None:
    tree = image.tree
    assert sorted(tree.glob("**")) == sorted(["etc", *NAMES, "small"])
    for name in NAMES:
        wanted = b"replaced\n" if name == "etc/7" else contents(name)
        assert tree.read(name) == wanted
    assert tree.read("etc/3", 39_990, 15) == contents("etc/3")[39_990:]


@pytest.mark.parametrize("version", [1, 2])
def test_by_the_index_of_the_image(indexed: Path, tmp_path: Path, version: Any) -> None:
    src = f"oci:{indexed}:v2"
    if version == 1:
        src = f"oci:{copied(indexed, tmp_path / 'one')}:v1"
        index(src, soci_version=1)
    with stargz.open_image(src, platform="linux/amd64", cache=tmp_path / "cache") as image:
        assert image.ways == {0: "ztoc", 1: "pass"}
        assert [layer.kind for layer in image.layers] == ["indexed", "indexed"]
        assert not image.layers[0].verified, "nobody vouches for a ztoc"
        check(image)
    with stargz.open_image(src, platform="linux/amd64", cache=tmp_path / "cache") as image:
        assert image.ways == {0: "ztoc"}, "what was made was not kept"


@pytest.mark.parametrize("version", [1, 2])
def test_an_index_that_the_digest_says_nothing_of(
    indexed: Path, tmp_path: Path, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may push can forge what is read by one of version 1; not under the image's digest."""
    layout = copied(indexed, tmp_path / "one")
    if version == 1:
        index(f"oci:{layout}:v1", soci_version=1)
    reading = Reading(layout)
    digest = reading.resolve(f"v{version}").digest
    options: dict[str, Any] = {"platform": "linux/amd64", "cache": False}
    with stargz.open_image(f"oci:{layout}:v{version}", **options) as image:
        assert image.ways[0] == "ztoc" and not caplog.messages
    with stargz.open_image(f"oci:{layout}:{digest}", **options) as image:
        assert image.ways[0] == ("ztoc" if version == 2 else "pass")
        told = [line for line in caplog.messages if "version 1" in line]
        assert len(told) == (version == 1) and image.verified == (version == 1)
        check(image)
    if version == 2:
        return
    with served(indexed, tmp_path / "registry") as proxy:
        src = f"docker://127.0.0.1:{proxy.port}/app"
        index(f"{src}:v1", soci_version=1)
        for name, lazily in ((":v1", True), (f":v1@{digest}", False), (f"@{digest}", False)):
            options = {"platform": "linux/amd64", "cache": tmp_path / "cache"}
            with stargz.open_image(f"{src}{name}", **options) as image:
                assert ("ztoc" in image.ways.values()) == lazily, name


def test_an_image_without_one(indexed: Path, tmp_path: Path) -> None:
    for _ in range(2):
        cache = tmp_path / "cache"
        with stargz.open_image(f"oci:{indexed}:v1", platform="linux/amd64", cache=cache) as image:
            assert image.ways == ({} if _ else {0: "pass", 1: "pass"})
            check(image)
            assert image.verified
    with stargz.open_image(
        f"oci:{indexed}:v2", platform="linux/amd64", cache=cache, require_verified=True
    ) as image:
        assert "ztoc" not in image.ways.values()
        check(image)
    with pytest.raises(FooterError):
        stargz.open_image(
            f"oci:{indexed}:v1", platform="linux/amd64", cache=cache / "x", index=False
        )


def test_a_layer_that_is_there_several_times_is_indexed_once(tmp_path: Path) -> None:
    layout = ordinary(tmp_path / "src", LARGE, SMALL, SMALL, LARGE, SMALL)
    with stargz.open_image(f"oci:{layout.path}:v1", cache=tmp_path / "cache") as image:
        read = [image.descriptors[number].digest for number in image.ways]
        assert sorted(read) == sorted({entry.digest for entry in image.descriptors})
        check(image)


def test_what_must_be_verified_is_read_once_by_a_process(tmp_path: Path) -> None:
    """By what it made and kept itself, and by that only as it was."""
    # Of layers that no other test reads: what this process knows, it knows of all caches.
    own = LARGE + bytes(512)
    layout = ordinary(tmp_path / "src", own, SMALL + bytes(512), own)
    src, cache = f"oci:{layout.path}:v1", tmp_path / "cache"

    def ways() -> dict[int, str]:
        with stargz.open_image(src, cache=cache, require_verified=True) as image:
            assert image.verified and image.tree.read("etc/8") == contents("etc/8")
            return image.ways

    words = ("image", "ls", "--require-verified", "--cache-dir", cache, src)
    assert run(*words).returncode == 0
    assert list(ways().values()) == ["pass", "pass"], "of three layers; another process made them"
    assert ways() == {}
    assert run(*words).returncode == 0  # which makes the same anew
    assert ways() == {}
    kept = max((cache / "index").iterdir(), key=lambda one: one.stat().st_size)
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert list(ways().values()) == ["pass"]
    assert ways() == {}


def test_a_seekable_layer_is_read_by_its_toc(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    seekable = layout.layer(LARGE)
    layout.tag(layout.manifest([seekable, layout.plain_layer(LARGE)]), "v1")
    src = f"oci:{layout.path}:v1"
    report = index(src, upgrade=True)
    assert [layer.status for layer in report.layers] == ["indexed", "indexed"]
    with stargz.open_image(src, platform="linux/amd64", cache=False) as image:
        assert [layer.kind for layer in image.layers] == ["estargz", "indexed"]
        assert image.descriptors[0].annotations[TOC_DIGEST] == image.layers[0].toc_digest
        assert image.layers[0].verified


def test_the_commands(indexed: Path, tmp_path: Path) -> None:
    options = ["--platform", "linux/amd64", "--cache-dir", tmp_path / "cache"]
    for src in (f"oci:{indexed}:v1", f"oci:{indexed}:v2"):
        assert ok_here("image", "cat", *options, src, "small") == "of the small layer\n"
        assert ok_here("image", "ls", *options, src, "etc").split() == sorted(
            name[4:] for name in NAMES
        )
        assert "etc/12\n" in ok_here("image", "find", *options, src, "-name", "12")
        out = tmp_path / "out"
        assert ok_here("image", "extract", *options, src, "etc/7", "-C", out, "-q") == ""
        assert (out / "etc/7").read_bytes() == b"replaced\n"
        assert "small" in ok_here("image", "tree", *options, src)
        assert ok_here("image", "du", *options, src, "-s").split()
    info = ok_here("image", "info", "--platform", "linux/amd64", f"oci:{indexed}:v2")
    assert "soci_version  2" in info
    first, second = [line for line in info.splitlines() if line.startswith("layer")]
    assert "indexed by SOCI: ztoc sha256:" in first and "SOCI" not in second
    assert "soci" not in ok_here("image", "info", "--platform", "linux/amd64", f"oci:{indexed}:v1")
    told = json.loads(
        ok_here("image", "info", "--json", "--platform", "linux/amd64", f"oci:{indexed}:v2")
    )
    assert [bool(layer["ztoc_digest"]) for layer in told["layers"]] == [True, False]
    assert (told["soci_version"], told["seekable"]) == (2, False)


# --- registries ---------------------------------------------------------------------------------


@contextlib.contextmanager
def served(indexed: Path, folder: Path) -> Iterator[FaultProxy]:
    """ "app:v1" and "app:v2" behind a proxy."""
    with registries.registry(folder) as registry:
        layout = json.loads((indexed / "index.json").read_text())["manifests"]
        for entry in layout:
            one = copied(indexed, folder / entry["digest"][7:])
            (one / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
            ref = entry["annotations"]["org.opencontainers.image.ref.name"]
            registry.push(one, "app", ref)
        with FaultProxy(f"http://{registry.host}") as proxy:
            yield proxy


def test_what_is_fetched(indexed: Path, tmp_path: Path) -> None:
    with served(indexed, tmp_path / "registry") as proxy:
        base = f"docker://127.0.0.1:{proxy.port}/app"
        options = ["--platform", "linux/amd64", "--cache-dir", tmp_path / "cache"]
        done = run("image", "cat", *options, f"{base}:v2", "etc/20")
        assert done.returncode == 0 and done.stdout.endswith("etc/20")
        (line,) = done.stderr.splitlines()  # of the small layer, which the index leaves out
        assert "layer 2 of 2" in line and "no index of it" in line
        wholes = [request for request in proxy.log if request.sent > len(LARGE) // 4]
        ztoc = [request for request in wholes if not request.range]
        assert len(wholes) == len(ztoc) <= 1, "more than a ztoc of many windows"
        proxy.reset()
        assert ok_here("image", "cat", *options, f"{base}:v2", "etc/21").endswith("etc/21")
        # Without a SOCI index all is read, once, and that is told before.
        proxy.reset()
        done = here("image", "ls", *options, f"{base}:v1", "etc")
        assert done.returncode == 0
        assert [f"layer {n} of 2" in done.stderr for n in (1, 2)] == [True, False]
        size = Reading(indexed).manifest(Reading(indexed).resolve("v1")).layers[0].size
        assert f"all of its {size:,} bytes are read" in done.stderr
        proxy.reset()
        assert ok_here("image", "ls", *options, f"{base}:v1", "etc")
        assert proxy.bytes < size // 4
        assert "no index" not in here("image", "ls", *options, "-q", f"{base}:v1").stderr
        # The library does not read whole layers unasked, but what an index leaves out.
        with pytest.raises(UnindexedError, match="layer 1 of 2"):
            stargz.open_image(f"{base}:v1", platform="linux/amd64", cache=False)
        with stargz.open_image(f"{base}:v2", platform="linux/amd64", cache=False) as image:
            assert image.ways == {0: "ztoc", 1: "pass"}
        with stargz.open_image(
            f"{base}:v1", platform="linux/amd64", cache=False, index="build"
        ) as image:
            assert image.ways == {0: "pass", 1: "pass"}
            check(image)


def test_any_image_can_be_mounted(indexed: Path, tmp_path: Path) -> None:
    needs_fuse()
    large, small = Reading(indexed).manifest(Reading(indexed).resolve("v1")).layers
    whole = "had to be read whole first, to be indexed"
    ways = {
        "v2": f"layer 1 is read lazily, by the SOCI index; layer 2 {whole} ({small.size:,} bytes)",
        "v1": f"layer 1 {whole} ({large.size:,} bytes); layer 2 is read lazily, by an index that "
        "was kept",
        "again": "layers 1, 2 are read lazily, by an index that was kept",
    }
    with served(indexed, tmp_path / "registry") as proxy:
        for name, way in ways.items():
            src = f"docker://127.0.0.1:{proxy.port}/app:{'v1' if name == 'again' else name}"
            folder = tmp_path / name
            folder.mkdir()
            try:
                options = ["--platform", "linux/amd64", "--cache-dir", tmp_path / "cache"]
                done = run("mount", *options, src, folder)
                assert done.returncode == 0, done.stderr
                assert f"stargz: {src}: {way}" in done.stderr.splitlines()
                assert listed(folder / "etc") == sorted(name[4:] for name in NAMES)
                assert (folder / "etc/7").read_bytes() == b"replaced\n"
                assert (folder / "etc/8").read_bytes() == contents("etc/8")
            finally:
                clean_up(folder)


# --- what is broken -----------------------------------------------------------------------------


def test_a_broken_ztoc_is_as_good_as_none(indexed: Path, tmp_path: Path) -> None:
    changes: dict[str, tuple[Callable[[bytes], bytes], bool]] = {
        "no flatbuffer": (lambda data: b"\xff" * len(data), True),
        "cut off": (lambda data: data[: len(data) // 2], True),
        "empty": (lambda data: b"", True),
        "of another digest": (lambda data: data[:-1] + b"?", False),
        "of another size": (lambda data: data + b"?", False),
    }
    for name, (change, renamed) in changes.items():
        layout = copied(indexed, tmp_path / name)
        rewritten(layout, change, size=renamed)
        done = here("image", "cat", "--no-cache", "--platform", "linux/amd64",
                   f"oci:{layout}:v2", "etc/20")  # fmt: skip
        assert done.returncode == 0, (name, done.stderr)
        assert done.stdout.endswith("etc/20")
        assert "ztoc" in done.stderr and "not used" in done.stderr, name
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_only_so_many_indexes_are_looked_at(tmp_path: Path) -> None:
    """Whoever may push to a repository can add as many as they like."""
    layout = Layout(tmp_path / "many")
    image = layout.tag(layout.manifest([layout.plain_layer(SMALL)]), "v1")
    subject = {key: image[key] for key in ("mediaType", "digest", "size")}
    for number in range(60):
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": SOCI_V1,
            "config": layout.blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [],
            "subject": subject,
            "annotations": {"number": str(number)},
        }
        layout.tag(layout.blob(json.dumps(document).encode(), OCI_MANIFEST), None)
    found: list[str] = []
    with open_repository(f"oci:{layout.path}:v1") as repository:
        manifest = repository.manifest(Descriptor(OCI_MANIFEST, image["digest"], image["size"]))
        assert len(repository.referrers(manifest.digest)) == 60
        told = indexes_of(repository, manifest, 2, 1, broken=lambda one, _: found.append(one))
        assert not list(told)
    assert len(found) == len(set(found)) == 50


def test_a_ztoc_that_lies_is_found_out(indexed: Path, tmp_path: Path) -> None:
    layout = copied(indexed, tmp_path / "lies")
    rewritten(layout, lambda data: data.replace(b"etc/20", b"etc/99"))
    src = f"oci:{layout}:v2"
    options = ["--no-cache", "--platform", "linux/amd64"]
    assert "the index does not fit" in fails_here(1, "image", "cat", *options, src, "etc/99")
    assert ok_here("image", "cat", *options, src, "etc/21").endswith("etc/21")
    done = here("verify", "--json", src)
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert not found["ok"] and any("ztoc" in error["message"] for error in found["errors"])


def test_a_span_that_is_not_the_ztocs_is_found_out(indexed: Path, tmp_path: Path) -> None:
    layout = copied(indexed, tmp_path / "flipped")
    entry = Reading(layout).manifest(Reading(layout).resolve("v1")).layers[0]
    path = layout / "blobs/sha256" / entry.digest[7:]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with stargz.open_image(f"oci:{layout}:v2", platform="linux/amd64", cache=False) as image:
        failed = 0
        for name in NAMES:
            try:
                found = image.layers[0].read(name)
            except (DigestError, stargz.FormatError):
                failed += 1
            else:
                assert found == contents(name)
        assert 0 < failed < 10


def test_verify_checks_ztocs(indexed: Path) -> None:
    found = json.loads(ok_here("verify", "--json", f"oci:{indexed}:v2"))
    (image,) = (one for one in found["images"] if one["kind"] == "image")
    assert [layer["status"] for layer in image["layers"]] == ["indexed", "not seekable"]
    assert found["ok"] and not found["verified"]
    required = json.loads(
        here("verify", "--json", "--require-verified", f"oci:{indexed}:v2").stdout
    )
    assert not required["ok"]


def test_an_image_copied_without_its_index(indexed: Path, tmp_path: Path) -> None:
    """As by tools that copy one platform of it."""
    reading = Reading(indexed)
    (entry, _) = reading.manifest(reading.resolve("v2")).manifests
    layout = copied(indexed, tmp_path / "one")
    soci = reading.manifest(entry).annotations["com.amazon.soci.index-digest"]
    (layout / "blobs/sha256" / soci[7:]).unlink()
    named = {"mediaType": OCI_MANIFEST, "digest": entry.digest, "size": entry.size}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    with stargz.open_image(f"oci:{layout}", platform="linux/amd64", cache=False) as image:
        assert image.ways == {0: "pass", 1: "pass"}
        check(image)
    for words in (("image", "ls"), ("image", "info", "--json"), ("verify", "--json")):
        done = here(*words, f"oci:{layout}")
        (line,) = done.stderr.splitlines()
        told = f"stargz: warning: oci:{layout}: the SOCI index {soci} is not used: "
        assert line.startswith(told) and "is not in the layout" in line
        assert done.returncode == 0
        assert here(*words, "-q", f"oci:{layout}").stderr == ""
    assert json.loads(done.stdout)["ok"]
