"""`stargz image index`: SOCI indexes of images, in layouts and archives."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import registries
import zstandard
from blobs import noise, sha256
from command import fails, ok, run, together
from layouts import OCI_MANIFEST, REF_NAME, Layout
from soci_images import (
    LARGE,
    MIN,
    OTHER,
    SMALL,
    SOCI_V1,
    files,
    index,
    one_layer,
    packed,
    root,
    soci_of,
    two_platforms,
)

import stargz
from stargz.errors import OccupiedError, UsageError
from stargz.oci.formats.layout import Layout as Reading
from stargz.oci.formats.soci import named_by

COSIGN = "application/vnd.dev.cosign.simplesigning.v1+json"
OCI_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
ENCRYPTED = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
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
