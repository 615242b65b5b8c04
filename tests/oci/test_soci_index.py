"""`stargz image index`: SOCI indexes of images, in layouts, archives and real registries."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import registries
import zstandard
from blobs import noise, sha256, tar_of
from command import fails, ok, run, together
from layouts import OCI_INDEX, OCI_MANIFEST, REF_NAME, Layout
from servers import Fault, FaultProxy, Request

import stargz
from stargz.errors import OccupiedError, UsageError
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.manifest import Manifest
from stargz.oci.formats.soci import SociIndex, named_by, read_index

SOCI_V1 = "application/vnd.amazon.soci.index.v1+json"
SOCI_V2 = "application/vnd.amazon.soci.index.v2+json"
COSIGN = "application/vnd.dev.cosign.simplesigning.v1+json"
OCI_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
ENCRYPTED = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
LARGE = tar_of(
    [("etc/", None), ("etc/large", noise("large", 400_000)), ("etc/zeros", bytes(1 << 20))]
)
OTHER = tar_of([("usr/other", noise("other", 300_000))])
SMALL = tar_of([("small", b"small")])
MIN = 100_000  # between SMALL and the others


def two_platforms(path: Path, ref: str = "v1") -> Layout:
    """An image that shares a layer between its platforms."""
    layout = Layout(path)
    shared = layout.plain_layer(LARGE)
    images = [
        layout.manifest([shared, layout.plain_layer(SMALL)]),
        layout.manifest([shared, layout.plain_layer(OTHER)], platform="linux/arm64"),
    ]
    layout.tag(layout.index(images), ref)
    return layout


def one_layer(path: Path, layer: Callable[[Layout], dict[str, Any]], ref: str = "v1") -> Layout:
    layout = Layout(path)
    layout.tag(layout.manifest([layer(layout)]), ref)
    return layout


def index(src: str, dst: str | None = None, **options: Any) -> stargz.ImageIndexReport:
    options.setdefault("min_layer_size", MIN)
    return stargz.index_image(src, dst, threads=1, **options)


def root(path: Path, ref: str = "v1") -> Manifest:
    layout = Reading(path)
    return layout.manifest(layout.resolve(ref))


def soci_of(path: Path, ref: str = "v1") -> list[SociIndex]:
    """The indexes of version 2 that the image's index lists, all of whose blobs are there."""
    layout = Reading(path)
    found = [entry for entry in root(path, ref).manifests if entry.json.get("artifactType")]
    indexes = [read_index(layout.manifest(entry)) for entry in found]
    for one in indexes:
        for entry in one.blobs:
            layout.read_blob(entry)
    return indexes


def files(path: Path) -> dict[str, bytes]:
    found = (one for one in path.rglob("*") if one.is_file())
    return {str(one.relative_to(path)): one.read_bytes() for one in found}


# --- version 2 ----------------------------------------------------------------------------------


def test_all_layers_and_platforms_and_each_distinct_layer_once(tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "src")
    events: list[dict[str, Any]] = []
    report = index(
        f"oci:{layout.path}:v1",
        f"oci:{tmp_path}/dst:v1",
        progress=lambda event: events.append({**event}),
    )
    first, second = root(layout.path).manifests
    large, other = (sha256(gzip.compress(tar, 1, mtime=0)) for tar in (LARGE, OTHER))
    assert (report.status, report.soci_version, report.stale) == ("indexed", 2, ())
    assert [(layer.source_digest, layer.status) for layer in report.layers] == [
        (large, "indexed"),
        (sha256(gzip.compress(SMALL, 1, mtime=0)), "left out"),
        (other, "indexed"),
    ]
    assert report.warnings == ("1 layer is left out: less than 100,000 bytes (--min-layer-size)",)
    ends = [event["source_digest"] for event in events if event["event"] == "layer-done"]
    assert sorted(ends) == sorted([large, other])
    plan = {
        "event": "plan",
        "layers": 2,
        "bytes": sum(one.source_size for one in report.layers[::2]),
    }
    assert events[0] == plan
    indexes = soci_of(tmp_path / "dst")
    assert [list(one.ztocs) for one in indexes] == [[large], [large, other]]
    assert indexes[0].ztocs[large].digest == report.layers[0].digest
    assert report.indexes == {
        first.digest: indexes[0].manifest.digest,
        second.digest: indexes[1].manifest.digest,
    }
    made = report.layers[0]
    assert (made.uncompressed_size, made.entries) == (len(LARGE), 3)
    assert (made.span_size, made.spans) == (4 << 20, 1)
    assert report.size == report.layers[0].size + report.layers[2].size
    assert report.digest == root(tmp_path / "dst").digest
    before, after = files(layout.path), files(tmp_path / "dst")
    for entry in (first, second):
        image = Reading(layout.path).manifest(entry)
        for blob in (image.config, *image.layers):
            name = f"blobs/sha256/{blob.digest[7:]}"
            assert before[name] == after[name]


def test_the_same_bytes_whatever_makes_them(tmp_path: Path) -> None:
    src = f"oci:{two_platforms(tmp_path / 'src').path}:v1"
    made = index(src, f"oci:{tmp_path}/a:v1", jobs=1)
    with ProcessPoolExecutor(1) as pool:
        again = index(src, f"oci:{tmp_path}/b:v1", executor=pool)
    assert made.digest == again.digest
    assert files(tmp_path / "a") == files(tmp_path / "b")
    archived = f"oci-archive:{tmp_path}/c.tar:v1"
    assert index(src, archived).digest == made.digest
    assert index(archived, f"oci:{tmp_path}/d:v1").status == "unchanged"
    assert index(src, f"oci:{tmp_path}/e:v1", span_size=64 << 10).digest != made.digest


def test_what_is_indexed_is_not_read_again(tmp_path: Path) -> None:
    """At its source, and at the destination where it was written before."""
    layout = two_platforms(tmp_path / "src")
    src, dst = f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1"
    made = index(src, dst)
    before = files(tmp_path / "dst")
    for options in ({}, {"min_layer_size": 200_000}, {"span_size": 4 << 20}):
        again = index(src, dst, **options)
        assert (again.status, again.digest) == ("unchanged", made.digest)
        assert {layer.status for layer in again.layers} == {"kept", "left out"}
        assert again.size == made.size
    assert files(tmp_path / "dst") == before
    copied = index(dst, f"oci:{tmp_path}/copy:v1")
    assert (copied.status, copied.digest) == ("unchanged", made.digest)
    assert files(tmp_path / "copy") == before
    assert index(dst, upgrade=True).status == "unchanged"
    # Options that ask for more do not keep it.
    assert index(src, dst, min_layer_size=0).status == "indexed"
    assert len(soci_of(tmp_path / "dst")[0].ztocs) == 2
    assert index(src, dst).status == "unchanged", "more than what is asked for is there"
    assert index(src, dst, span_size=64 << 10).status == "indexed"
    assert index(src, dst).status == "unchanged", "no size is asked for"


def test_an_index_that_lost_a_ztoc_is_made_again(tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "src")
    src = f"oci:{layout.path}:v1"
    made = index(src, upgrade=True)
    (layout.blobs / made.layers[0].digest[7:]).unlink()
    again = index(src, upgrade=True)
    assert (again.status, again.digest) == ("indexed", made.digest)
    soci_of(layout.path)


def test_one_platform_of_several(tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "src")
    report = index(f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1", platforms=["linux/arm64"])
    entries = root(tmp_path / "dst").manifests
    assert [entry.platform for entry in entries] == [{"architecture": "arm64", "os": "linux"}] * 2
    assert len(report.indexes) == 1
    # Where the image is replaced, the others stay.
    before = root(layout.path)
    for _ in range(2):
        index(f"oci:{layout.path}:v1", upgrade=True, platforms=["linux/arm64"])
        entries = root(layout.path).manifests
        assert [bool(entry.annotations) for entry in entries] == [False, True, True]
        assert entries[0].json == before.manifests[0].json
    # Of what has its index already, that comes along.
    whole = index(f"oci:{layout.path}:v1", f"oci:{tmp_path}/whole:v1")
    for number, platforms in enumerate((["linux/arm64"], ["linux/arm64", "linux/amd64"])):
        part = f"oci:{tmp_path}/part{number}:v1"
        again = index(f"oci:{tmp_path}/whole:v1", part, platforms=platforms)
        assert again.status == "unchanged"
        assert len(soci_of(tmp_path / f"part{number}")) == len(platforms)
        assert (again.digest == whole.digest) == (number == 1)


def test_other_sources(tmp_path: Path) -> None:
    layout = one_layer(tmp_path / "src", packed(LARGE))
    saved = tmp_path / "saved.tar"
    skopeo = registries.program("skopeo")
    copy = [
        skopeo,
        "--insecure-policy",
        "copy",
        "-q",
        f"oci:{layout.path}:v1",
        f"docker-archive:{saved}:app:v1",
    ]
    subprocess.run(copy, check=True)
    report = index(f"docker-archive:{saved}", f"oci:{tmp_path}/dst:v1")
    # The archive has the layer's tar as it is.
    assert [layer.status for layer in report.layers] == ["indexed"]
    assert report.layers[0].source_digest == sha256(LARGE)
    (one,) = soci_of(tmp_path / "dst")
    assert list(one.ztocs) == [sha256(LARGE)]
    with registries.registry(tmp_path / "registry") as served:
        served.push(layout.path, "app", "v1")
        stored = f"storage:{served.storage}//app:v1"
        made = index(stored, f"oci:{tmp_path}/second:v1")
        assert made.digest == index(f"oci:{layout.path}:v1", f"oci:{tmp_path}/third:v1").digest


def test_an_image_that_is_listed_without_a_platform_is_what_others_find(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    image = layout.manifest([layout.plain_layer(LARGE)])
    del image["platform"]
    layout.tag(layout.index([image]), "v1")
    report = index(f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1")
    assert len(soci_of(tmp_path / "dst")) == 1
    form = ["--format", "{{.Layers}}"]
    inspect = [registries.program("skopeo"), "inspect", *form, f"oci:{tmp_path}/dst:v1"]
    told = subprocess.run(inspect, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert told == f"[{report.layers[0].source_digest}]\n"


# --- what is left out ---------------------------------------------------------------------------


def sparse(folder: Path) -> bytes:
    with (folder / "sparse").open("wb") as file:
        file.write(noise("start", 200_000))
        file.truncate(4 << 20)
    command = ["tar", "-S", "--format=pax", "-C", folder, "-cf", "-", "sparse"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def with_global_header() -> bytes:
    out = io.BytesIO()
    keys = {"comment": "a commit"}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=keys) as tar:
        info = tarfile.TarInfo("file")
        info.size = 200_000
        tar.addfile(info, io.BytesIO(noise("global", 200_000)))
    return out.getvalue()


def packed(tar: bytes) -> Callable[[Layout], dict[str, Any]]:
    return lambda layout: layout.plain_layer(tar)


def of_kind(kind: str, data: bytes) -> Callable[[Layout], dict[str, Any]]:
    return lambda layout: layout.plain_layer(LARGE, data) | {"mediaType": kind}


LEFT_OUT: dict[str, tuple[Callable[[Path], Callable[[Layout], dict[str, Any]]], str]] = {
    "small": (lambda _: packed(SMALL), "less than 100,000 bytes"),
    "sparse": (lambda folder: packed(sparse(folder)), "parse"),
    "global header": (lambda _: packed(with_global_header()), "global"),
    "zstd": (lambda _: of_kind(OCI_ZSTD, zstandard.compress(LARGE)), "zstd"),
    "zstd under another name": (
        lambda _: lambda layout: layout.plain_layer(LARGE, zstandard.compress(LARGE)),
        "zstd",
    ),
    "encrypted": (lambda _: of_kind(ENCRYPTED, noise("x", 200_000)), "+encrypted"),
    "cut off": (
        lambda _: lambda layout: layout.plain_layer(LARGE, gzip.compress(LARGE)[:-5000]),
        "damaged",
    ),
    "no tar": (lambda _: packed(noise("no tar", 200_000)), "no tar"),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_a_layer_that_can_have_no_ztoc_is_left_out(tmp_path: Path, kind: str) -> None:
    make, says = LEFT_OUT[kind]
    layout = Layout(tmp_path / "src")
    odd = make(tmp_path)(layout)
    layout.tag(layout.manifest([layout.plain_layer(LARGE), odd]), "v1")
    src, dst = f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1"
    report = index(src, dst)
    assert [layer.status for layer in report.layers] == ["indexed", "left out"]
    (warning,) = report.warnings
    assert says in warning and "left out" in warning and "\n" not in warning
    assert kind == "small" or odd["digest"] in warning
    assert files(layout.path).items() >= {
        (
            f"blobs/sha256/{odd['digest'][7:]}",
            files(tmp_path / "dst")[f"blobs/sha256/{odd['digest'][7:]}"],
        )
    }
    # Whoever finds that out once does not read the layer again.
    path = tmp_path / "dst/blobs/sha256" / odd["digest"][7:]
    path.unlink()  # it may be the source's, linked
    path.write_bytes(b"not looked at")
    for again in (index(src, dst), index(dst, upgrade=True)):
        assert (again.status, again.digest) == ("unchanged", report.digest)


def test_layers_without_entries_are_left_out(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    empty = [(b"", b""), (b"", gzip.compress(b"")), (bytes(1024), bytes(1024))]
    empty.append((bytes(10240), gzip.compress(bytes(10240))))
    layers = [layout.plain_layer(*one) for one in empty]
    layout.tag(layout.manifest([layout.plain_layer(SMALL), *layers]), "v1")
    src = f"oci:{layout.path}:v1"
    report = index(src, upgrade=True, min_layer_size=0)
    assert [layer.status for layer in report.layers] == ["indexed", *["left out"] * 4]
    assert [text.endswith(": it is empty") for text in report.warnings] == [True] * 4
    assert index(src, upgrade=True, min_layer_size=0).status == "unchanged"


def test_foreign_layers_stay_where_they_are(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "src")
    foreign = {"mediaType": FOREIGN, "digest": sha256(b"elsewhere"), "size": MIN}
    layout.tag(layout.manifest([layout.plain_layer(LARGE), foreign]), "v1")
    report = index(f"oci:{layout.path}:v1", f"oci:{tmp_path}/dst:v1")
    assert sum("may not be distributed" in text for text in report.warnings) == 1
    assert [layer.status for layer in report.layers] == ["indexed", "left out"]


def test_nothing_to_index_is_said_and_nothing_written(tmp_path: Path) -> None:
    layout = one_layer(tmp_path / "src", packed(SMALL))
    src, dst = f"oci:{layout.path}:v1", tmp_path / "dst"
    before = files(layout.path)
    in_place = [["image", "index", src, *more] for more in (["--upgrade"], ["--soci-version", "1"])]
    lines = [
        ["image", "index", src, f"oci:{dst}:v1"],
        *in_place,
        *([*w, "--json"] for w in in_place),
    ]
    (code, _, said), *told = together(*lines)
    assert code == 1
    assert "no layer can be indexed" in said and "10,485,760" in said
    assert not dst.exists()
    for code, out, err in told[:2]:
        assert (code, "--min-layer-size" in err) == (0, True)
        assert "not indexable: nothing was written" in out
    for code, out, err in told[2:]:
        found = json.loads(out)
        assert (code, err, found["status"], found["indexes"]) == (0, "", "not indexable", {})
    assert files(layout.path) == before
    assert index(src, f"oci:{dst}:v1", min_layer_size=0).status == "indexed"


# --- version 1 ----------------------------------------------------------------------------------


def test_version_1_in_a_layout(tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "src")
    src = f"oci:{layout.path}:v1"
    before = files(layout.path)
    report = index(src, soci_version=1)
    assert (report.status, report.digest) == ("indexed", root(layout.path).digest)
    after = files(layout.path)
    assert {name: after[name] for name in before if name != "index.json"}.items() <= before.items()
    entries = json.loads(after["index.json"])["manifests"]
    assert entries[0] == json.loads(before["index.json"])["manifests"][0]
    images = root(layout.path).manifests
    for entry, image in zip(entries[1:], images, strict=True):
        assert list(entry) == ["mediaType", "digest", "size", "artifactType"]
        assert (entry["mediaType"], entry["artifactType"]) == (OCI_MANIFEST, SOCI_V1)
        found = json.loads(after[f"blobs/sha256/{entry['digest'][7:]}"])
        assert found["subject"] == {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": image.size,
        }
    assert index(src, soci_version=1).status == "unchanged"
    assert files(layout.path) == after
    # Without a name it is still the layout of one image.
    assert index(f"oci:{layout.path}", soci_version=1).status == "unchanged"
    # One for each image, however often it is made.
    assert index(src, soci_version=1, span_size=64 << 10).status == "indexed"
    assert len(json.loads((layout.path / "index.json").read_text())["manifests"]) == 3
    with_dst = index(src, f"oci-archive:{tmp_path}/x.tar:v1", soci_version=1)
    assert (with_dst.status, with_dst.digest) == ("unchanged", report.digest)
    archive = f"oci-archive:{tmp_path}/x.tar"
    for dst in (f"oci:{tmp_path}/y:v1", f"oci:{tmp_path}/y:v1", f"oci-archive:{tmp_path}/z.tar"):
        again = index(archive, dst, soci_version=1)
        assert (again.status, again.digest) == ("unchanged", report.digest)


def test_version_1_cannot_be_added_to_an_archive(tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "src")
    index(f"oci:{layout.path}:v1", f"oci-archive:{tmp_path}/x.tar:v1")
    said = fails(2, "image", "index", "--soci-version", "1", f"oci-archive:{tmp_path}/x.tar:v1")
    assert "name a DST" in said


# --- registries ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with registries.registry(folder / "served") as served:
        served.push(two_platforms(folder / "src").path, "app", "v1")
        yield served


def manifest(registry: registries.Registry, target: str, repository: str = "app") -> Any:
    import urllib.request

    url = f"http://{registry.host}/v2/{repository}/manifests/{target}"
    kinds = f"{OCI_MANIFEST}, {OCI_INDEX}"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": kinds})) as answer:
        return json.load(answer)


def test_in_a_registry(registry: registries.Registry, tmp_path: Path) -> None:
    src = f"docker://{registry.host}/app:v1"
    dst = f"docker://{registry.host}/other/repository:soci"
    made = json.loads(ok("image", "index", src, dst, "--min-layer-size", MIN, "--json", "-q"))
    assert made["status"] == "indexed"
    local = index(f"oci:{two_platforms(tmp_path / 'src').path}:v1", f"oci:{tmp_path}/dst:v1")
    assert made["digest"] == local.digest
    listed = manifest(registry, "soci", "other/repository")["manifests"]
    assert [entry.get("artifactType") for entry in listed] == [None, None, SOCI_V2, SOCI_V2]
    # Only what is small is asked for again, and the ztocs, to see what they are.
    with FaultProxy(f"http://{registry.host}") as proxy:
        src, dst = (name.replace(registry.host, f"127.0.0.1:{proxy.port}") for name in (src, dst))
        again = index(src, dst)
        assert (again.status, again.digest) == ("unchanged", local.digest)
        assert proxy.bytes < 20_000 + again.size
        gets = [one.path for one in proxy.log if one.method == "GET" and "/blobs/" in one.path]
        assert len(gets) == len(set(gets)), "something was fetched twice"
        assert not any(layer.source_digest in path for layer in again.layers for path in gets)
        assert not any(request.method in ("POST", "PATCH") for request in proxy.log)


def test_version_1_by_the_tag_where_there_is_no_api(
    registry: registries.Registry, tmp_path: Path
) -> None:
    registry.push(two_platforms(tmp_path / "src").path, "tagged", "v1")
    src = f"docker://{registry.host}/tagged:v1"
    images = manifest(registry, "v1", "tagged")["manifests"]
    tags = [entry["digest"].replace(":", "-") for entry in images]
    # Something else refers to it already.
    signature = {
        "mediaType": OCI_MANIFEST,
        "digest": sha256(b"{}"),
        "size": 2,
        "artifactType": "x/y",
    }
    other = Layout(tmp_path / "other")
    entry = other.manifest([other.blob(b"{}", COSIGN)]) | {"artifactType": "x/y"}
    other.tag(other.index([entry], annotations={"kept": "yes"}))
    registry.push(other.path, "tagged", tags[0])
    del signature
    made = index(src, soci_version=1)
    assert (made.status, made.destination, made.digest) == ("indexed", src, made.source_digest)
    for tag, image in zip(tags, images, strict=True):
        found = manifest(registry, tag, "tagged")
        assert found["mediaType"] == OCI_INDEX
        last = found["manifests"][-1]
        assert (last["artifactType"], last["digest"]) == (SOCI_V1, made.indexes[image["digest"]])
        soci = manifest(registry, last["digest"], "tagged")
        assert soci["subject"]["digest"] == image["digest"]
        assert "artifactType" not in soci
    first = manifest(registry, tags[0], "tagged")
    assert [one["artifactType"] for one in first["manifests"]] == ["x/y", SOCI_V1]
    assert first["annotations"] == {"kept": "yes"}
    assert len(manifest(registry, tags[1], "tagged")["manifests"]) == 1
    by_digest = f"docker://{registry.host}/tagged@{made.digest}"
    again = index(by_digest, soci_version=1)
    assert (again.status, again.destination) == ("unchanged", by_digest)
    assert index(src, soci_version=1, span_size=64 << 10).status == "indexed"
    assert [one["artifactType"] for one in manifest(registry, tags[0], "tagged")["manifests"]] == [
        *("x/y", SOCI_V1)
    ]
    # As a source for elsewhere, and at the destination.
    dst = f"docker://{registry.host}/tagged-copy:v1"
    for _ in range(2):
        assert index(src, dst, soci_version=1).status == "unchanged"
    assert index(dst, soci_version=1).status == "unchanged"


def test_a_tag_of_referrers_that_is_something_else(
    registry: registries.Registry, tmp_path: Path
) -> None:
    layout = one_layer(tmp_path / "src", packed(LARGE))
    registry.push(layout.path, "taken", "v1")
    image = root(layout.path).digest
    registry.push(layout.path, "taken", image.replace(":", "-"))
    line = fails(1, "image", "index", f"docker://{registry.host}/taken:v1", "--soci-version", "1",
                 "--min-layer-size", MIN)  # fmt: skip
    assert f"/taken:{image.replace(':', '-')}: the tag by which" in line and "delete it" in line


class ReferrersAPI:
    """A FaultProxy's plan that gives a registry without the API one."""

    def __init__(self, registry: registries.Registry) -> None:
        self._storage = registry.storage
        self.tags: list[str] = []  # referrers' tags that were asked for

    def __call__(self, request: Request) -> Fault | None:
        kind, _, target = request.path.rpartition("/")
        if kind.endswith("/manifests") and target.startswith("sha256-"):
            self.tags.append(target)
        if kind.endswith("/referrers"):
            found = [one for one, subject in self._subjects() if subject == target]
            document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
            headers = {"Content-Type": OCI_INDEX}
            return Fault(status=200, headers=headers, body=json.dumps(document).encode())
        if kind.endswith("/manifests") and request.method == "PUT":
            return Fault(headers={"OCI-Subject": self.subject})
        return None

    subject = ""

    def _subjects(self) -> Iterator[tuple[dict[str, Any], str]]:
        for path in sorted(self._storage.rglob("data")):
            data = path.read_bytes()
            if data.startswith(b'{"schemaVersion"') and b'"subject"' in data:
                found = json.loads(data)
                yield (
                    {
                        "mediaType": found["mediaType"],
                        "digest": sha256(data),
                        "size": len(data),
                        "artifactType": found["config"]["mediaType"],
                    },
                    found["subject"]["digest"],
                )


def test_version_1_by_the_referrers_api(tmp_path: Path) -> None:
    layout = one_layer(tmp_path / "src", packed(LARGE))
    with registries.registry(tmp_path / "served") as served:
        image = served.push(layout.path, "app", "v1")
        api = ReferrersAPI(served)
        api.subject = image
        with FaultProxy(f"http://{served.host}") as proxy:
            proxy.plan = api
            src = f"docker://127.0.0.1:{proxy.port}/app:v1"
            made = index(src, soci_version=1)
            assert made.status == "indexed" and not made.warnings
            assert index(src, soci_version=1).status == "unchanged"
            other = index(src, soci_version=1, span_size=64 << 10)
            assert other.status == "indexed"
            (warning,) = other.warnings
            assert made.indexes[image] in warning and "delete it" in warning
        assert not api.tags


# --- what could go wrong ------------------------------------------------------------------------


def test_wrong_usage(tmp_path: Path) -> None:
    src = f"oci:{two_platforms(tmp_path / 'src').path}:v1"
    before = files(tmp_path)
    lines = {
        (src,): "--upgrade",
        (src, src): "--upgrade",
        (src, f"oci:{tmp_path}/x:v1", "--upgrade"): "leave DST out",
        (src, f"docker-archive:{tmp_path}/x.tar"): "annotations",
        (src, "--soci-version", "3"): "--soci-version",
        (src, "--upgrade", "--span-size", "1K"): "64 KiB",
        (src[4:-3], "--upgrade"): "oci:",
    }
    told = together(*(["image", "index", *words] for words in lines))
    for says, (code, out, err) in zip(lines.values(), told, strict=True):
        assert (code, out, says in err, len(err.splitlines())) == (2, "", True, 1), err
    for options in ({"soci_version": 3}, {"min_layer_size": -1}, {"span_size": 0}):
        with pytest.raises(UsageError):
            index(src, upgrade=True, **options)
    assert files(tmp_path) == before


WRONG: list[tuple[dict[str, Any], str]] = [
    *(({"min_layer_size": value}, "min_layer_size") for value in ("10M", 1.5, None)),
    *(({"span_size": value}, "span_size") for value in ("4M", 1e6)),
    ({"soci_version": "2"}, "soci_version"),
    *(({"jobs": value}, "jobs") for value in (-1, "2", 2.0)),
    *(({"threads": value}, "threads") for value in (-1, "2")),
    *(({"platforms": value}, "platforms") for value in ("linux/amd64", None, 7)),
    ({"platforms": [7]}, "7"),
]
ALSO: list[tuple[dict[str, Any], str]] = [
    ({"chunk_size": "4M"}, "chunk_size"),
    ({"min_chunk_size": 1.5}, "min_chunk_size"),
    ({"memory": "1G"}, "memory"),
    ({"max_sparse": 1e9}, "max_sparse"),
    ({"level": "3"}, "level"),
]


def test_arguments_of_another_type_are_told_by_their_names(tmp_path: Path) -> None:
    """At once: none is compared with all numbers that it might be."""
    src, dst = f"oci:{two_platforms(tmp_path / 'src').path}:v1", f"oci:{tmp_path}/dst:v1"
    common = [one for one in WRONG if {"jobs", "threads", "platforms"} & one[0].keys()]
    for options, name in WRONG:
        with pytest.raises(UsageError, match=name):
            stargz.index_image(src, dst, **options)
    for options, name in common + ALSO:
        with pytest.raises(UsageError, match=name):
            stargz.convert_image(src, dst, **options)
    for options, name in WRONG:
        if options != {"min_layer_size": None}:  # the default there
            with pytest.raises(UsageError, match=name):
                stargz.bulk(src, dst, index=True, **options)
    with pytest.raises(UsageError, match="platforms"):
        stargz.verify_image(src, platforms="linux/amd64")
    assert not (tmp_path / "dst").exists()


def test_other_images_at_the_destination_stay(tmp_path: Path) -> None:
    src = f"oci:{two_platforms(tmp_path / 'src').path}:v1"
    one_layer(tmp_path / "dst", packed(OTHER))
    dst = f"oci:{tmp_path}/dst:v1"
    before = files(tmp_path / "dst")
    for version in (1, 2):
        with pytest.raises(OccupiedError, match=r"no SOCI index.*--force"):
            index(src, dst, soci_version=version)
    assert files(tmp_path / "dst") == before
    index(src, dst, force=True)
    # What this made of another image is replaced: it can be made again.
    index(f"oci:{one_layer(tmp_path / 'new', packed(OTHER)).path}:v1", dst)


def test_a_layer_that_is_not_what_was_asked_for(tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "src")
    entry = Reading(layout.path).manifest(root(layout.path).manifests[0]).layers[0]
    path = layout.blobs / entry.digest[7:]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = files(layout.path)
    ways = (["--upgrade"], ["--soci-version", 1], [f"oci:{tmp_path}/dst:v1"])
    words = ["image", "index", f"oci:{layout.path}:v1", "--min-layer-size", 0]
    for code, out, err in together(*([*words, *way] for way in ways)):
        assert (code, out, entry.digest in err) == (3, "", True)
    after = files(layout.path)
    assert {name: after[name] for name in before} == before
    dst = tmp_path / "dst"
    assert not dst.exists() or not Reading(dst).index.manifests, "one ztoc may have been made"


def test_signatures_that_do_not_fit_any_more_are_listed(tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "src")
    image = root(layout.path).manifests[0]
    tag = image.digest.replace(":", "-")
    layout.tag(layout.manifest([layout.blob(b"{}", COSIGN)]), f"{tag}.sig")
    src = f"oci:{layout.path}:v1"
    assert not index(src, f"oci:{tmp_path}/one:v1", soci_version=1).stale, "the image stays"
    done = run("image", "index", src, f"oci:{tmp_path}/two:v1", "--min-layer-size", MIN)
    assert done.returncode == 0
    said = f"cosign signature oci:{layout.path}:{tag}.sig is about the source"
    assert said in done.stderr
    # Where the image is replaced, too: of those platforms whose manifests become others.
    second = f"sha256-{root(layout.path).manifests[1].digest[7:]}.sig"
    layout.tag(layout.manifest([layout.blob(b"{ }", COSIGN)]), second)
    words = ["image", "index", src, "--upgrade", "--min-layer-size", MIN, "--platform"]
    done = run(*words, "linux/amd64")
    assert done.returncode == 0 and said in done.stderr and second not in done.stderr
    done = run(*words, "linux/arm64")
    assert done.returncode == 0 and said not in done.stderr and second in done.stderr


def test_the_table_of_the_command(tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "src")
    src = f"oci:{layout.path}:v1"
    done = run("image", "index", src, "--upgrade", "--min-layer-size", MIN)
    said = "1 layer is left out: less than 100,000 bytes (--min-layer-size)"
    assert (done.returncode, done.stderr) == (0, f"stargz: warning: {src}: {said}\n")
    table = done.stdout
    images = Reading(layout.path)
    for entry in root(layout.path).manifests[:2]:
        assert str(named_by(images.manifest(entry))) in table
    assert "status   indexed\n" in table
    assert table.count("ztoc sha256:") == 2
    again = ok("image", "index", src, "--upgrade", "--min-layer-size", MIN, "-q")
    assert again == ""
    entries = json.loads((layout.path / "index.json").read_text())["manifests"]
    assert [entry["annotations"] for entry in entries] == [{REF_NAME: "v1"}]
