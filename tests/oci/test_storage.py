"""A registry's own storage folder, read without the registry; its catalog and referrers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
import registries
from blobs import sha256
from registries import NAME, quick

from stargz.errors import DigestError, FormatError, RegistryError, SourceError, UsageError
from stargz.oci.formats.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor
from stargz.oci.formats.reference import Reference, StorageReference, parse_image
from stargz.oci.formats.storage import Storage, images
from stargz.oci.image import load_image, open_image
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.companions import Companion
from stargz.oci.registry.credentials import Credentials
from stargz.oci.repository import open_repository
from stargz.sources.client import Client

REPOSITORIES = ["a", "a/b", "a/b/c", "a-b", "some/image"]


class Filled:
    """A registry with an image in several repositories."""

    def __init__(self, registry: registries.Registry, layout: layouts.Layout) -> None:
        self.registry = registry
        self.host = registry.host
        self.layout = layout
        for name in REPOSITORIES:
            self.digest = registry.push(layout.path, name, "v1")
        for tag in ("latest", "v10", "v2"):
            registry.push(layout.path, NAME, tag)

    def sign(self, repository: str) -> str:
        """What cosign pushes, and a referrers' index by its tag."""
        entry = self.layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
        self.registry.push_blob(repository, b"{}")
        artifact = {
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry, "layers": [entry],
            "artifactType": "application/spdx+json",
            "subject": {"mediaType": OCI_MANIFEST, "digest": self.digest, "size": 1},
        }  # fmt: skip
        data = json.dumps(artifact).encode()
        tag = self.digest.replace(":", "-")
        for suffix in (".sig", ".att", ".other"):
            self.registry.push_manifest(repository, tag + suffix, data, OCI_MANIFEST)
        digest = sha256(data)
        listed = {
            "mediaType": OCI_MANIFEST, "digest": digest, "size": len(data),
            "artifactType": "application/spdx+json",
        }  # fmt: skip
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]}
        self.registry.push_manifest(repository, tag, json.dumps(index).encode(), OCI_INDEX)
        return digest


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    folder = tmp_path_factory.mktemp("filled")
    layout = layouts.Layout(folder / "layout")
    manifests = [
        layout.manifest([layout.layer(blobs.varied_tar())], platform=platform)
        for platform in ("linux/amd64", "linux/arm64")
    ]
    layout.tag(layout.index(manifests))
    with registries.registry(folder) as registry:
        yield Filled(registry, layout)


@pytest.fixture
def copied(filled: Filled, tmp_path: Path) -> Path:
    """A copy of the storage folder, to be spoilt."""
    target = tmp_path / "storage"
    shutil.copytree(filled.registry.storage, target)
    return target


def repositories_in(folder: Path) -> Path:
    return folder / "docker" / "registry" / "v2" / "repositories"


def data_of(folder: Path, digest: str) -> Path:
    value = digest.partition(":")[2]
    return folder / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data"


# --- storage ----------------------------------------------------------------------------


def test_names_in_storage(filled: Filled) -> None:
    storage = Storage(filled.registry.storage)
    assert list(storage.repositories()) == REPOSITORIES
    tags = list(storage.tags(NAME))
    assert tags == sorted(tags) and {"latest", "v1", "v10", "v2"} <= set(tags)
    assert list(storage.tags("not/there")) == []
    inner = Storage(filled.registry.storage / "docker/registry/v2")
    assert list(inner.repositories()) == list(storage.repositories())
    assert ("a/b", "v1") in list(images(filled.registry.storage))


@pytest.mark.parametrize("target", ["", ":v1", ":v1@DIGEST", "@DIGEST"])
def test_an_image_is_the_same_in_storage_and_at_the_registry(filled: Filled, target: str) -> None:
    target = target.replace("DIGEST", filled.digest)
    src = f"storage:{filled.registry.storage}//{NAME}{target}"
    with (
        open_repository(src) as found,
        open_repository(f"docker://{filled.host}/{NAME}:v1") as served,
    ):
        assert found.name == src
        root = found.root()
        assert root.data == served.root().data and root.media_type == OCI_INDEX
        assert found.digest() == served.digest() == filled.digest
        entry = root.manifests[1]
        manifest = found.manifest(entry)
        assert manifest.data == served.manifest(entry).data
        layer = manifest.layers[0]
        with closing(found.stream_blob(layer)) as one, closing(served.stream_blob(layer)) as two:
            assert one.read() == two.read() != b""
        config = found.read_blob(manifest.config, 1 << 20)
        assert config == served.read_blob(manifest.config, 1 << 20)
        with pytest.raises(FormatError, match="limit"):
            found.read_blob(manifest.config, 10)
        assert found.external() is None


def test_an_image_in_storage_is_opened(filled: Filled) -> None:
    with open_image(f"storage:{filled.registry.storage}//a/b:v1", platform="linux/arm64") as image:
        assert image.verified and len(image.layers) == 1


def test_names_that_are_none_are_refused(filled: Filled) -> None:
    storage = filled.registry.storage
    for name in ("", "../a", "a/../b", "A", "a:b:c", "a@sha256:0", "/etc", "a//"):
        with (
            pytest.raises((UsageError, SourceError)),
            open_repository(f"storage:{storage}//{name}") as found,
        ):
            found.root()
    for text in ("storage:", "storage:/dir", "storage://a", "storage:/dir//"):
        with pytest.raises(UsageError):
            parse_image(text)
    named = parse_image("storage:/var//lib//a/b:c")
    assert named == StorageReference("/var//lib", "a/b", "c")
    assert parse_image(str(named)) == named


def test_what_is_not_there_is_said(filled: Filled, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not the storage folder"):
        Storage(tmp_path)
    base = f"storage:{filled.registry.storage}//"
    for name in ("none:v1", f"{NAME}:none", f"{NAME}@sha256:{'0' * 64}"):
        with open_repository(base + name) as found, pytest.raises(SourceError, match="not in"):
            found.root()
    with open_repository(f"{base}a:v1") as found:
        missing = Descriptor("", sha256(b"missing"), 7)
        with pytest.raises(SourceError, match="not in the storage"):
            found.open_blob(missing)


@pytest.mark.parametrize(
    "text", [b"", b"../../../etc/passwd", b"sha256:../x", b"sha256:" + b"0" * 4000, b"\xff\xfe"]
)
def test_a_link_is_a_digest(copied: Path, text: bytes) -> None:
    link = repositories_in(copied) / NAME / "_manifests/tags/v1/current/link"
    link.write_bytes(text)
    with (
        open_repository(f"storage:{copied}//{NAME}:v1") as found,
        pytest.raises(FormatError, match=r"digest|limit"),
    ):
        found.root()


def test_content_is_checked(filled: Filled, copied: Path) -> None:
    src = f"storage:{copied}//{NAME}:v1"
    with open_repository(src) as found:
        layer = found.manifest(found.root().manifests[0]).layers[0]
        path = data_of(copied, layer.digest)
        good = path.read_bytes()
        path.write_bytes(bytes(len(good)))
        with closing(found.stream_blob(layer)) as stream, pytest.raises(DigestError):
            stream.finish()
        path.write_bytes(good[:-1])
        with pytest.raises(FormatError, match="cut short"):
            found.open_blob(layer)
        data_of(copied, filled.digest).write_bytes(b"{}")
        with pytest.raises(DigestError):
            found.root()


def test_symlinks_do_not_lead_out(filled: Filled, copied: Path, tmp_path: Path) -> None:
    path = data_of(copied, filled.digest)
    outside = tmp_path / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)
    with (
        open_repository(f"storage:{copied}//{NAME}:v1") as found,
        pytest.raises(FormatError, match="leads out"),
    ):
        found.root()
    repositories = repositories_in(copied)
    (repositories / "loop").symlink_to(repositories)
    (repositories / "away").symlink_to(tmp_path)
    (repositories / "NotOne" / "_manifests").mkdir(parents=True)
    assert not {"loop", "away", "NotOne"} & set(Storage(copied).repositories())


def test_a_pipe_in_the_place_of_a_file_does_not_hang(filled: Filled, copied: Path) -> None:
    import os

    path = data_of(copied, filled.digest)
    path.unlink()
    os.mkfifo(path)
    with (
        open_repository(f"storage:{copied}//{NAME}:v1") as found,
        pytest.raises(FormatError, match="not a regular file"),
    ):
        found.root()


# --- catalog ----------------------------------------------------------------------------


def test_the_catalog_of_a_real_registry(filled: Filled) -> None:
    with quick() as client:
        assert set(client.catalog(filled.host)) == set(REPOSITORIES)


def test_a_catalog_of_many_pages(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stargz.oci.registry.client._PAGE", 2)
    with quick() as client:
        assert sorted(client.catalog(filled.host)) == sorted(REPOSITORIES)


def test_a_catalog_needs_a_token_of_its_own(tmp_path: Path) -> None:
    signer = registries.identity(tmp_path)
    account = Credentials(registries.USER, registries.PASSWORD)
    with (
        registries.token_server(signer) as tokens,
        registries.registry(tmp_path / "registry", tokens=tokens) as registry,
        Client(ca_file=str(signer.certificate)) as http,
    ):
        registry.push_blob("a/b", b"blob")
        assert list(RegistryClient(http=http, credentials=account).catalog(registry.host)) == [
            "a/b"
        ]
        scopes = [r["query"].get("scope") for r in tokens.requests]
        assert scopes == [["registry:catalog:*"]]
        with pytest.raises(RegistryError, match=r"credentials|log in"):
            list(RegistryClient(http=http).catalog(registry.host))


CATALOG = "/v2/_catalog?n=1000"


def test_hostile_catalogs() -> None:
    with registries.lying() as server, quick() as client:
        for status in (401, 403, 404, 405):
            server.answers = {CATALOG: (status, {}, b"{}")}
            with pytest.raises(RegistryError, match="list") as caught:
                list(client.catalog(server.host))
            assert caught.value.status == status
        for body in (b"", b"[]", b"null", b"{}", b'{"repositories": 3}', b"[" * 5000):
            server.answers = {CATALOG: (200, {}, body)}
            with pytest.raises(RegistryError, match="malformed"):
                list(client.catalog(server.host))
        names = ["ok", "../../etc", "A", "", 7, None, "a" * 300, "a/b", "a\nb", "a b"]
        body = json.dumps({"repositories": names}).encode()
        server.answers = {CATALOG: (200, {}, body)}
        assert list(client.catalog(server.host)) == ["ok", "a/b"]
        link = f"<{CATALOG}>; rel=next"
        server.answers = {CATALOG: (200, {"Link": link}, b'{"repositories": ["a"]}')}
        with pytest.raises(RegistryError, match="circle"):
            list(client.catalog(server.host))
        elsewhere = {"Link": "<http://127.0.0.1:1/v2/_catalog>; rel=next"}
        server.answers = {CATALOG: (200, elsewhere, b'{"repositories": null}')}
        with pytest.raises(RegistryError, match="another host"):
            list(client.catalog(server.host))


# --- companions -------------------------------------------------------------------------


def expected(base: str, tagged: str, digest: str, artifact: str) -> list[Companion]:
    tag = digest.replace(":", "-")
    return [
        Companion(f"{base}@{artifact}", "application/spdx+json", artifact),
        Companion(f"{tagged}{tag}.att", "cosign attestation"),
        Companion(f"{tagged}{tag}.other", "cosign other"),
        Companion(f"{tagged}{tag}.sig", "cosign signature"),
    ]


def test_companions_at_a_real_registry_and_in_its_storage(filled: Filled) -> None:
    artifact = filled.sign("a/b/c")
    with quick() as client:
        base = f"docker://{filled.host}/a/b/c"
        with open_repository(f"{base}:v1", client=client) as found:
            wanted = expected(base, f"{base}:", filled.digest, artifact)
            assert found.companions(filled.digest) == wanted
            assert found.companions(sha256(b"another")) == []
    base = f"storage:{filled.registry.storage}//a/b/c"
    with open_repository(f"{base}:v1") as found:
        assert found.companions(filled.digest) == expected(
            base, f"{base}:", filled.digest, artifact
        )
        assert found.companions(sha256(b"another")) == []


def test_companions_in_a_layout(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "layout")
    image = layout.tag(layout.manifest([layout.layer(blobs.varied_tar())]))
    empty = layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
    subject = {"mediaType": OCI_MANIFEST, "digest": image["digest"], "size": image["size"]}
    artifact = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/spdx+json",
        "config": empty, "layers": [], "subject": subject,
    }  # fmt: skip
    entry = layout.blob(json.dumps(artifact).encode(), OCI_MANIFEST)
    layout.tag(entry, None)
    tag = image["digest"].replace(":", "-") + ".sig"
    layout.tag(image, tag)
    layout.tag({**entry, "digest": sha256(b"gone")}, None)
    with open_repository(f"oci:{layout.path}:latest") as found:
        assert found.companions(image["digest"]) == [
            Companion(f"oci:{layout.path}:{tag}", "cosign signature"),
            Companion(f"oci:{layout.path}:{entry['digest']}", "application/spdx+json",
                      entry["digest"]),
        ]  # fmt: skip


DIGEST = sha256(b"an image")
REFERRERS = f"/v2/{NAME}/referrers/{DIGEST}"
TAGS = f"/v2/{NAME}/tags/list?n=1000"


def index_of(*digests: str, **more: Any) -> bytes:
    entries = [{"mediaType": OCI_MANIFEST, "digest": one, "size": 1, **more} for one in digests]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document).encode()


def test_the_referrers_api_is_read_page_by_page() -> None:
    one, two = sha256(b"1"), sha256(b"2")
    kind = {"Content-Type": OCI_INDEX}
    with registries.lying() as server, quick() as client:
        more = f"{REFERRERS}?next=1"
        server.answers = {
            REFERRERS: (200, {**kind, "Link": f"<{more}>; rel=next"}, index_of(one)),
            more: (200, kind, index_of(two, artifactType="x/y")),
        }
        base = f"docker://{server.host}/{NAME}"
        with open_repository(f"{base}:v1", client=client) as found:
            assert found.companions(DIGEST) == [
                Companion(f"{base}@{one}", OCI_MANIFEST, one),
                Companion(f"{base}@{two}", "x/y", two),
            ]
            # The tag of those who have no API is not asked for, and tags but once.
            found.companions(DIGEST)
        assert [path for path, _ in server.log].count(TAGS) == 1
        assert not any("manifests" in path for path, _ in server.log)


def test_companions_never_fail_and_ask_little() -> None:
    bad: dict[str, list[tuple[int, dict[str, str], bytes]]] = {
        REFERRERS: [
            (404, {}, b"{}"), (403, {}, b"{}"), (500, {}, b""), (200, {}, b"<html>"),
            (200, {}, index_of("sha256:../x")), (200, {}, b"[" * 5000),
        ],
        TAGS: [(404, {}, b"{}"), (200, {}, b"{"), (401, {}, b"{}"), (500, {}, b"")],
    }  # fmt: skip
    for path, answers in bad.items():
        for answer in answers:
            with registries.lying() as server, quick() as client:
                server.answers = {path: answer}
                reference = f"docker://{server.host}/{NAME}:v1"
                with open_repository(reference, client=client) as found:
                    assert found.companions(DIGEST) == []
                    before = len(server.log)
                    assert found.companions(sha256(b"other")) == []
                    again = answer[0] in (401, 403)
                    assert len(server.log) - before <= (2 if again else 1)


def test_a_referrers_tag_that_is_wrong_is_still_told_of(filled: Filled) -> None:
    tag = sha256(b"subject").replace(":", "-")
    filled.registry.push(filled.layout.path, "a-b", tag + "0")  # one digit too many
    filled.registry.push(filled.layout.path, "a-b", f"{tag}.sbom")
    with quick() as client, open_repository(f"docker://{filled.host}/a-b", client=client) as found:
        assert [c.kind for c in found.companions(sha256(b"subject"))] == ["cosign SBOM"]


def test_the_image_of_a_descriptor_is_loaded_from_storage_by_the_command(filled: Filled) -> None:
    with load_image(f"storage:{filled.registry.storage}//a:v1", platform="linux/amd64") as image:
        assert image.platform is not None and image.platform.architecture == "amd64"
    assert Reference("host", "").name == "host"
