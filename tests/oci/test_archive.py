"""Images in the archives of `docker save` and its likes: as tools make them, and by hand."""

from __future__ import annotations

import bz2
import gc
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
import zstandard
from blobs import sha256
from command import run
from descriptors import descriptors
from hypothesis import given, settings
from hypothesis import strategies as st
from registries import program

from stargz.errors import DigestError, FormatError, SourceError, StargzError, TarError, UsageError
from stargz.oci.formats.archive import open_archive
from stargz.oci.formats.manifest import DOCKER_MANIFEST
from stargz.oci.formats.reference import ArchiveReference, parse_image
from stargz.oci.formats.tar_index import TarIndex
from stargz.oci.image import load_image, open_image
from stargz.oci.repository import open_repository

BASE = blobs.varied_tar()
TOP = blobs.noise("top", 100_000)
TAR = "application/vnd.docker.image.rootfs.diff.tar"
SPARSE = {"GNU.sparse.size": str(len(TOP)), "GNU.sparse.map": f"0,{len(TOP)}"}


def config_of(*layers: bytes) -> bytes:
    document = {
        "os": "linux", "architecture": "amd64", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
    }  # fmt: skip
    return json.dumps(document).encode()


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def write(
    path: Path, *members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def manifest(*entries: dict[str, Any]) -> tuple[tarfile.TarInfo, bytes]:
    return member("manifest.json", json.dumps(entries).encode())


def image(
    layers: list[str], config: str = "config.json", tags: list[str] | None = None
) -> dict[str, Any]:
    return {"Config": config, "RepoTags": tags, "Layers": layers}


def check(src: str, layers: list[bytes], kinds: list[str] | None = None) -> None:
    """The image of an archive has these layers, streamed and read at random."""
    with open_repository(src) as found:
        root = found.root()
        assert root.media_type == DOCKER_MANIFEST and root.kind == "manifest"
        assert found.digest() == root.digest == sha256(root.data)
        assert found.root().data == root.data
        config = found.read_blob(root.config, 1 << 20)
        assert root.config.digest == sha256(config) and root.config.size == len(config)
        assert [entry.digest for entry in root.layers] == [sha256(layer) for layer in layers]
        assert [entry.media_type for entry in root.layers] == (kinds or [TAR] * len(layers))
        for entry, layer in zip(root.layers, layers, strict=True):
            with closing(found.stream_blob(entry)) as stream:
                assert stream.read() == layer
            with closing(found.open_blob(entry)) as source:
                assert source.size == len(layer)
                assert source.read_at(len(layer) // 2, 100) == layer[len(layer) // 2 :][:100]
                assert source.read_ranges([(0, 5), (5, 3)]) == [layer[:5], layer[5:8]]
        assert found.companions(root.digest) == [] and found.external() is None


# --- what tools make --------------------------------------------------------------------


def test_an_archive_made_by_skopeo(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    tars = [BASE, blobs.varied_tar() + bytes(1024)]
    layout.tag(layout.manifest([layout.plain_layer(tar) for tar in tars]))
    archive = tmp_path / "image.tar"
    command = [program("skopeo"), "--insecure-policy", "copy", f"oci:{layout.path}:latest"]
    subprocess.run(
        [*command, f"docker-archive:{archive}:some/image:v1"], check=True, capture_output=True
    )
    src = f"docker-archive:{archive}"
    for ref in ("", ":some/image:v1", ":docker.io/some/image:v1", ":@0"):
        check(src + ref, tars)
    with load_image(src) as loaded:
        assert [entry.digest for entry in loaded.descriptors] == list(map(sha256, tars))
        assert loaded.config["os"] == "linux"


# --- shapes of docker save, by hand -----------------------------------------------------


def test_old_docker_save_with_a_layer_that_is_a_link(tmp_path: Path) -> None:
    config = config_of(BASE, TOP, BASE)
    name = hashlib.sha256(config).hexdigest() + ".json"
    path = write(
        tmp_path / "a.tar",
        member("one/", type=tarfile.DIRTYPE),
        member("one/VERSION", b"1.0"),
        member("one/layer.tar", BASE),
        member("two/layer.tar", TOP),
        symlink("three/layer.tar", "../one/layer.tar"),
        member(name, config),
        manifest(image(["one/layer.tar", "two/layer.tar", "three/layer.tar"], name, ["a:b"])),
        member("repositories", b"{}"),
        format=tarfile.GNU_FORMAT,
    )
    check(f"docker-archive:{path}", [BASE, TOP, BASE])


def test_docker_save_since_25_with_blobs(tmp_path: Path) -> None:
    packed = gzip.compress(TOP)
    config = config_of(BASE, TOP)
    names = [f"blobs/sha256/{hashlib.sha256(one).hexdigest()}" for one in (BASE, packed, config)]
    path = write(
        tmp_path / "a.tar",
        member("blobs", type=tarfile.DIRTYPE),
        *(member(n, data) for n, data in zip(names, (BASE, packed, config), strict=True)),
        member("index.json", b"{}"),
        member("oci-layout", b"{}"),
        manifest({**image(names[:2], names[2], ["a:b"]), "LayerSources": {}}),
    )
    check(f"docker-archive:{path}", [BASE, packed], [TAR, TAR + ".gzip"])


def test_a_compressed_layer_of_any_name_is_hashed(tmp_path: Path) -> None:
    import zstandard

    packed = [gzip.compress(BASE), zstandard.compress(TOP)]
    path = write(
        tmp_path / "a.tar",
        member("x", packed[0]),
        member("y", packed[1]),
        member("config.json", config_of(BASE, TOP)),
        manifest(image(["x", "./y"])),
    )
    check(f"docker-archive:{path}", packed, [TAR + ".gzip", TAR + ".zstd"])


def simple(path: Path, *layers: bytes, tags: list[str] | None = None) -> Path:
    return write(
        path,
        *(member(f"{n}.tar", layer) for n, layer in enumerate(layers)),
        member("config.json", config_of(*layers)),
        manifest(image([f"{n}.tar" for n in range(len(layers))], tags=tags)),
    )


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "zstd behind a skippable frame": lambda data: (
        b"\x5a\x2a\x4d\x18\4\0\0\0skip" + zstandard.compress(data)
    ),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("kind", PACKERS)
def test_an_archive_that_is_compressed_as_a_whole(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = PACKERS[kind]
    plain = simple(tmp_path / "plain.tar", BASE, TOP)
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(pack(plain.read_bytes()))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with open_repository(f"docker-archive:{packed}") as one:
        root = one.root()
        with open_repository(f"docker-archive:{plain}") as two:
            assert root.data == two.root().data
        assert list(temporary.iterdir()) == []  # its copy has no name
    check(f"docker-archive:{packed}", [BASE, TOP])
    packed.write_bytes(pack(plain.read_bytes())[:-2000])
    with (
        pytest.raises(FormatError, match="unpacked") as caught,
        open_repository(f"docker-archive:{packed}"),
    ):
        pass
    assert str(packed) in str(caught.value)


STREAMS: dict[str, Callable[[bytes], bytes]] = {
    "xz of two streams": lambda data: (
        lzma.compress(data[:5000]) + bytes(8) + lzma.compress(data[5000:]) + bytes(4)
    ),
    "bzip2 of two streams": lambda data: bz2.compress(data[:5000]) + bz2.compress(data[5000:]),
    **{kind: PACKERS[kind] for kind in ("xz", "bzip2")},
}


@pytest.mark.parametrize("kind", STREAMS)
def test_layers_of_any_compression(tmp_path: Path, kind: str) -> None:
    layers = [BASE, TOP, BASE]
    path = write(
        tmp_path / "a.tar",
        *(member(f"{n}.tar", STREAMS[kind](layer)) for n, layer in enumerate(layers)),
        member("config.json", config_of(*layers)),
        manifest(image(["0.tar", "1.tar", "2.tar"])),
    )
    check(f"docker-archive:{path}", layers)
    archive = tmp_path / "b.tar"
    archive.write_bytes(STREAMS[kind](path.read_bytes()))
    check(f"docker-archive:{archive}", layers)


@pytest.mark.parametrize("kind", ["xz", "bzip2"])
def test_layers_whose_compression_is_damaged(tmp_path: Path, kind: str) -> None:
    packed = PACKERS[kind](TOP)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 1
    for number, data in enumerate((packed[:-1], bytes(flipped), packed + b"garbage")):
        path = write(
            tmp_path / f"{number}.tar",
            member("0.tar", data),
            member("config.json", config_of(TOP)),
            manifest(image(["0.tar"])),
        )
        with (
            pytest.raises(FormatError, match=f"'0.tar': it cannot be unpacked: .*{kind} data"),
            open_repository(f"docker-archive:{path}") as found,
        ):
            found.root()
    other = write(
        tmp_path / "other.tar",
        member("0.tar", PACKERS[kind](BASE)),
        member("config.json", config_of(TOP)),
        manifest(image(["0.tar"])),
    )
    with open_repository(f"docker-archive:{other}") as found:
        (entry,) = found.root().layers
        with pytest.raises(DigestError), closing(found.stream_blob(entry)) as stream:
            stream.read()


def test_an_archive_that_needs_too_much_memory(tmp_path: Path) -> None:
    data = bytearray(lzma.compress(b"x"))
    end = 12 + 4 * data[12]  # of the block's header, without its CRC
    assert data[14:16] == b"\x21\1"  # LZMA2, and one byte for the size of its dictionary
    data[16] = 40  # 4 GiB
    data[end : end + 4] = zlib.crc32(data[12:end]).to_bytes(4, "little")
    path = tmp_path / "a.tar.xz"
    path.write_bytes(data)
    with (
        pytest.raises(FormatError, match="more memory than 512 MiB"),
        open_repository(f"docker-archive:{path}"),
    ):
        pass


def test_a_compressed_archive_stops_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(bytes(32 << 20), 1))
    monkeypatch.setattr("stargz.sources.spool.spared", lambda total: total)
    with pytest.raises(SourceError, match="TMPDIR"), open_repository(f"docker-archive:{packed}"):
        pass


def test_an_archive_is_shared_while_it_is_open(tmp_path: Path) -> None:
    path = str(simple(tmp_path / "a.tar", BASE))
    gc.collect()  # what other tests left
    before = descriptors(tmp_path)
    with open_archive(path) as one:
        assert descriptors(tmp_path) > before
        with open_archive(path) as two:
            assert one is two
        source = one.open_blob(one.manifest().layers[0])
    del one, two
    assert source.read_at(0, 512) == BASE[:512]
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.read_at(0, 1)
    del source
    assert descriptors(tmp_path) == before


def test_several_images(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tar",
        member("0", BASE),
        member("1", TOP),
        member("c0", config_of(BASE)),
        member("c1", config_of(BASE, TOP)),
        manifest(
            image(["0"], "c0", ["app:1", "app:one"]),
            image(["0", "1"], "c1", ["registry.example/team/app:1"]),
            image(["1"], "c0", None),
        ),
    )
    src = f"docker-archive:{path}"
    check(f"{src}:app:one", [BASE])
    check(f"{src}:docker.io/library/app:1", [BASE])
    check(f"{src}:registry.example/team/app:1", [BASE, TOP])
    check(f"{src}:@1", [BASE, TOP])
    for ref in ("", ":app", ":app:2", ":@3", ":team/app:1"):
        with (
            open_repository(src + ref) as found,
            pytest.raises(SourceError, match=r"app:1, registry.example/team/app:1, @2"),
        ):
            found.root()
    with open_archive(str(path)) as archive:
        assert archive.refs() == ["app:1", "registry.example/team/app:1", "@2"]


def test_an_image_whose_layers_are_seekable_is_opened(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    entry = layout.layer(BASE)
    layer = (layout.blobs / entry["digest"].partition(":")[2]).read_bytes()
    path = write(
        tmp_path / "a.tar",
        member("layer.tar", layer),
        member("config.json", config_of(BASE)),
        manifest(image(["layer.tar"])),
    )
    with open_image(f"docker-archive:{path}", platform="linux/amd64") as opened:
        assert len(opened.layers) == 1 and not opened.verified


def test_an_image_without_layers(tmp_path: Path) -> None:
    check(f"docker-archive:{simple(tmp_path / 'a.tar')}", [])


# --- references -------------------------------------------------------------------------


def test_the_file_of_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "a:b.tar"
    path.write_bytes(b"")
    for ref in (None, "app:v1", "host:5000/app:v1", "@3"):
        found = parse_image(f"docker-archive:{path}{f':{ref}' if ref else ''}")
        assert found == ArchiveReference(str(path), ref)
        assert parse_image(str(found)) == found
    assert parse_image("docker-archive:not/there:a:b") == ArchiveReference("not/there", "a:b")
    for text in ("docker-archive:", f"docker-archive:{path}:Not A Tag"):
        with pytest.raises(UsageError):
            parse_image(text)


# --- hostile ----------------------------------------------------------------------------


def refused(path: Path, match: str, error: type[StargzError] = StargzError) -> None:
    with (
        pytest.raises(error, match=match) as caught,
        open_repository(f"docker-archive:{path}") as r,
    ):
        r.root()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "members", "match"),
    [
        ("../x", [], "leads out"),
        ("/etc/passwd", [], "no member"),
        ("missing", [], "no member"),
        ("link", [symlink("link", "../../etc/passwd")], "leads out"),
        ("link", [symlink("link", "/etc/passwd")], "no member 'etc/passwd'"),
        ("link", [symlink("link", "link")], "circle"),
        ("a/l", [symlink("a/l", "../b/l"), symlink("b/l", "../a/l")], "circle"),
        ("hard", [member("hard", type=tarfile.LNKTYPE, linkname="gone")], "no member 'gone'"),
        ("fifo", [member("fifo", type=tarfile.FIFOTYPE)], "no plain file"),
        ("node", [member("node", type=tarfile.CHRTYPE)], "no plain file"),
        ("folder", [member("folder", type=tarfile.DIRTYPE)], "no member"),
        ("sparse", [member("sparse", TOP, pax_headers=SPARSE)], "no plain"),
        ("sparse", [member("sparse", TOP, pax_headers={"GNU.sparse.major": "1"})], "sparse"),
        ("sparse", [member("sparse", TOP, type=tarfile.GNUTYPE_SPARSE)], "sparse"),
        ("label", [member("label", TOP, type=b"V")], "no plain"),
    ],
)
def test_layers_that_are_none(
    tmp_path: Path, layer: str, members: list[tuple[tarfile.TarInfo, bytes]], match: str
) -> None:
    config = member("config.json", config_of(BASE))
    refused(write(tmp_path / "a.tar", *members, config, manifest(image([layer]))), match, TarError)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "JSON"),
        (b"{}", "not a list"),
        (b"[" * 100_000, "JSON"),
        (b"[3]", "not an object"),
        (b"[{}]", "Config"),
        (b'[{"Config": 7}]', "Config"),
        (b'[{"Config": "config.json", "Layers": "x"}]', "Layers"),
        (b'[{"Config": "config.json", "Layers": [7]}]', "Layers"),
        (b'[{"Config": "config.json", "RepoTags": {}}]', "RepoTags"),
        (b'[{"Config": "missing"}]', "no member"),
        (b'[{"Config": "../../etc/passwd"}]', "leads out"),
        (b'[{"Config": "config.json"}]', "1 diff_ids for 0 layers"),
        (b"[]", "0 images"),
        (json.dumps([image(["x"] * 5000)]).encode(), "layers"),
    ],
)
def test_a_manifest_of_wrong_shape(tmp_path: Path, data: bytes, match: str) -> None:
    config = member("config.json", config_of(BASE))
    refused(write(tmp_path / "a.tar", config, member("manifest.json", data)), match)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{}", "0 diff_ids for 1 layers"),
        (b'{"rootfs": {"diff_ids": {}}}', "diff_ids"),
        (b'{"rootfs": {"diff_ids": ["sha256:../x"]}}', "diff_ids"),
        (config_of(BASE, BASE), "2 diff_ids for 1 layers"),
    ],
)
def test_a_config_of_wrong_shape(tmp_path: Path, config: bytes, match: str) -> None:
    members = [member("layer", BASE), member("config.json", config), manifest(image(["layer"]))]
    refused(write(tmp_path / "a.tar", *members), match, FormatError)


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"not a tar" * 1000)
    refused(path, "checksum", TarError)
    path.write_bytes(b"")
    refused(path, "no manifest.json", FormatError)
    refused(
        write(path, member("oci-layout", b"{}"), member("index.json", b"{}")), "give oci-archive:"
    )
    refused(write(path, member("repositories", b"{}")), "before 1.10")
    refused(write(path, member("manifest.json", bytes(5 << 20))), "limit")
    refused(tmp_path / "missing.tar", "no such file", SourceError)
    refused(tmp_path, "not a regular file", SourceError)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refused(fifo, "not a regular file", SourceError)


def test_a_truncated_archive(tmp_path: Path) -> None:
    path = simple(tmp_path / "a.tar", BASE, TOP)
    whole = path.read_bytes()
    for size in (512 * 3 + 100, len(BASE), len(whole) - 11 * 1024, 700):
        path.write_bytes(whole[:size])
        refused(path, "truncated|no manifest|no member", FormatError)


def test_a_layer_that_is_not_what_the_config_says(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tar",
        member("layer", TOP),
        member("config.json", config_of(BASE)),
        manifest(image(["layer"])),
    )
    with open_repository(f"docker-archive:{path}") as found:
        entry = found.root().layers[0]
        with closing(found.stream_blob(entry)) as stream, pytest.raises(DigestError):
            stream.finish()
    both = [member("x", TOP), member("y", BASE), member("config.json", config_of(BASE, BASE))]
    refused(write(path, *both, manifest(image(["x", "y"]))), "one digest", FormatError)


def test_a_manifest_only_has_what_it_lists(tmp_path: Path) -> None:
    from stargz.oci.formats.manifest import Descriptor

    with open_repository(f"docker-archive:{simple(tmp_path / 'a.tar', BASE)}") as found:
        with pytest.raises(SourceError, match="no such blob"):
            found.open_blob(Descriptor("", sha256(b"x"), 1))
        with pytest.raises(FormatError, match="descriptor says 1"):
            found.open_blob(Descriptor("", sha256(BASE), 1))
        with pytest.raises(FormatError, match="limit"):
            found.read_blob(found.root().config, 10)
        with pytest.raises(SourceError, match="no manifest"):
            found.manifest(Descriptor("", sha256(BASE), 1))


def header(**fields: bytes) -> bytes:
    """A header with raw fields, its checksum right."""
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    for key, value in fields.items():
        at = {"size": 124, "type": 156, "name": 0}[key]
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "data",
    [
        header(size=b"\xff" * 12),  # -1
        header(size=b"\x80" + b"\xff" * 11),
        header(size=b"99999999999\0"),
        header(size=b"77777777777\0"),
        header(size=b"00010000000\0", type=b"L"),
        header(size=b"00000000020\0", type=b"x") + b"999 path=x\n".ljust(512, b"\0"),
        header(size=b"00000000020\0", type=b"x") + b"0 path=x\n".ljust(512, b"\0"),
        header(size=b"00000000022\0", type=b"x") + b"18 size=-11111111\n".ljust(512, b"\0"),
        header(size=b"00000000020\0", type=b"x")[:600],
        header(size=b"00000011610\0", type=b"L") + b"n" * 5000 + bytes(120) + header(),
    ],
)
def test_tars_that_lie(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    refused(path, "size|truncated|PAX|header|name", TarError)


def test_names_that_are_long_and_sizes_that_are_binary(tmp_path: Path) -> None:
    long = "/".join(["d" * 90] * 5)
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = write(
            tmp_path / "a.tar",
            member(f"{long}/layer", BASE, pax_headers={"mtime": "1.5"}),
            member(f"{long}/hard", type=tarfile.LNKTYPE, linkname=f"{long}/layer"),
            symlink("link", f"{long}/hard"),
            member("config.json", config_of(BASE)),
            manifest(image(["link"])),
            format=format,
        )
        check(f"docker-archive:{path}", [BASE])
    data = header(name=b"big", size=b"\x80" + (3).to_bytes(11, "big")) + b"abc".ljust(512, b"\0")
    (tmp_path / "b.tar").write_bytes(data)
    with (tmp_path / "b.tar").open("rb") as file:
        found = TarIndex(file.fileno(), len(data), "b").find("big")
    assert (found.offset, found.size) == (512, 3)


def test_the_index_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tar", *(member(str(n)) for n in range(30)))
    monkeypatch.setattr("stargz.oci.formats.tar_index.MAX_MEMBERS", 20)
    refused(path, "over 20 members", TarError)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_archive_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("changed") / "a.tar"
    simple(path, TOP[:1000])
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        with open_repository(f"docker-archive:{path}") as found:
            for entry in found.root().layers:
                with closing(found.stream_blob(entry)) as stream:
                    assert sha256(stream.read()) == entry.digest
    except StargzError as error:
        assert "\n" not in str(error)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(
            st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=200
        ).filter(lambda name: name not in (".", "..")),
        st.binary(max_size=1500),
        max_size=8,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_the_index_finds_what_tarfile_finds(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], format: int
) -> None:
    path = tmp_path_factory.mktemp("index") / "a.tar"
    write(path, *(member(name, data) for name, data in files.items()), format=format)
    with path.open("rb") as file:
        index = TarIndex(file.fileno(), path.stat().st_size, "tar")
        for name, data in files.items():
            found = index.find(name)
            assert os.pread(file.fileno(), found.size, found.offset) == data
    assert len(index.members) == len(files)


# --- the command ------------------------------------------------------------------------


def test_the_command_tells_of_an_archive(tmp_path: Path) -> None:
    path = simple(tmp_path / "a.tar", BASE, TOP, tags=["some/app:v1"])
    src = f"docker-archive:{path}"
    found = run("image", "info", "--json", "--platform", "linux/amd64", src)
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert [layer["digest"] for layer in report["layers"]] == [sha256(BASE), sha256(TOP)]
    assert report["seekable"] is False
    found = run("image", "ls", "--platform", "linux/amd64", src)
    # The first is a tar, which is read by an index of it; the second is none.
    told, failed = found.stderr.splitlines()
    assert "warning: " in told and "layer 1 of 2" in told
    assert found.returncode == 1 and "layer 2 of 2" in failed
    found = run("image", "info", f"{src}:none")
    assert found.returncode != 0 and "some/app:v1" in found.stderr
