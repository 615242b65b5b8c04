"""Registries that lie: every answer is either right or one clear error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import blobs
import layouts
import pytest
from hypothesis import given
from hypothesis import strategies as st
from registries import NAME, PASSWORD, USER, Lying, lying, no_secret_in, quick
from servers import NO_URLS

from stargz.digests import is_digest
from stargz.errors import DigestError, FormatError, RegistryError, StargzError
from stargz.oci.formats.manifest import Descriptor, parse_manifest
from stargz.oci.formats.platforms import parse_platform
from stargz.oci.formats.selection import select
from stargz.oci.image import load_image
from stargz.oci.registry import client as registry_module
from stargz.oci.registry.credentials import Credentials

SECRET = "se$cret:word"


@pytest.fixture
def liar() -> Iterator[Lying]:
    with lying() as server:
        yield server


DIGEST = "sha256:" + "1" * 64
CONFIG = b'{"os": "linux", "architecture": "amd64"}'
CONFIG_ENTRY = {
    "mediaType": layouts.OCI_CONFIG,
    "digest": blobs.sha256(CONFIG),
    "size": len(CONFIG),
}


def image(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": layouts.OCI_MANIFEST,
        "config": CONFIG_ENTRY,
        "layers": [],
        **more,
    }


def index(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": layouts.OCI_INDEX, "manifests": entries, **more}


def layer(**more: Any) -> dict[str, Any]:
    return image(layers=[{"mediaType": layouts.OCI_LAYER, "digest": DIGEST, "size": 1, **more}])


BAD: dict[str, tuple[Any, str]] = {
    "empty": (b"", "JSON"),
    "not JSON": (b"html", "JSON"),
    "null": (b"null", "JSON"),
    "list": (b"[]", "JSON"),
    "deep": (b'{"layers":' + b"[" * 200_000, "JSON"),
    "not UTF-8": (b"\xff\xfe{}", "JSON"),
    "large": (b" " * (5 << 20), "4194304 bytes"),
    "schema 1": ({"schemaVersion": 1, "fsLayers": [], "history": []}, "schema 1"),
    "both": (image(manifests=[]), "manifests"),
    "both, as an index": (index(layers=[]), "mediaType|layers|calls itself"),
    "no layers": ({"schemaVersion": 2, "mediaType": layouts.OCI_MANIFEST}, "layers"),
    "another type": (image(mediaType="text/html"), "calls itself|not a manifest"),
    "type of no text": (image(mediaType=7), "mediaType"),
    "layers no list": (image(layers={}), "layers"),
    "layer no object": (image(layers=["x"]), "layers"),
    "layer null": (image(layers=[None]), "layers"),
    "no config": (image(config=None), "config"),
    "digest a path": (layer(digest="sha256:../../../etc/passwd"), "digest"),
    "digest a path, absolute": (layer(digest="/etc/passwd"), "digest"),
    "digest upper": (layer(digest=DIGEST.upper()), "digest"),
    "digest weak": (layer(digest="md5:" + "0" * 32), "digest"),
    "digest missing": (layer(digest=None), "digest"),
    "digest long": (layer(digest="sha256:" + "0" * 1_000_000), "digest"),
    "size negative": (layer(size=-1), "size"),
    "size huge": (layer(size=1 << 63), "size"),
    "size endless": (layer(size=10**4000), "size|JSON"),
    "size fraction": (layer(size=1.5), "size"),
    "size text": (layer(size="1"), "size"),
    "size true": (layer(size=True), "size"),
    "annotations": (layer(annotations={"a": 1}), "annotations"),
    "toc digest a path": (
        layer(annotations={layouts.TOC_DIGEST: "sha256:../../x"}),
        "toc.digest",
    ),
    "config huge": (
        image(config={"mediaType": layouts.OCI_CONFIG, "digest": DIGEST, "size": 1 << 40}),
        "limit",
    ),
    "layers twice": (
        json.dumps(image()).replace('"layers"', '"layers": [], "layers"').encode(),
        "the key 'layers' is there twice",
    ),
    "layers in two cases": (image(Layers=[]), "'Layers' stands for 'layers'"),
    "layers with a long s": (image(**{"layer\u017f": []}), "stands for 'layers'"),
    "digests in two cases": (layer(Digest=DIGEST), "'Digest' stands for 'digest'"),
    "a digest twice": (
        json.dumps(image()).replace('"digest"', '"digest": "x", "digest"').encode(),
        "the key 'digest' is there twice",
    ),
    "artifact": (image(artifactType="application/spdx+json"), "artifact"),
}


@pytest.mark.parametrize("case", BAD)
def test_hostile_manifests(case: str, liar: Lying) -> None:
    document, says = BAD[case]
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    liar.manifest("v1", data)
    liar.answers[f"/v2/{NAME}/blobs/{CONFIG_ENTRY['digest']}"] = (200, {}, CONFIG)
    with (
        quick() as client,
        pytest.raises(StargzError, match=says) as caught,
        load_image(f"docker://{liar.reference()}", client=client) as found,
    ):
        [found.toc_digest(number) for number in range(len(found.descriptors))]
        _ = found.config
    text = str(caught.value)
    assert liar.host in text
    assert "\n" not in text and len(text) < 800


KEYS = "mediaType layers config manifests digest size annotations platform os architecture variant"
WORDS = (
    layouts.OCI_MANIFEST,
    layouts.OCI_INDEX,
    layouts.OCI_CONFIG,
    DIGEST,
    "sha256:../x",
    "linux",
)
words = st.sampled_from([*KEYS.split(), *WORDS, "amd64", "artifactType", "urls"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6),
    max_leaves=20,
)


@given(st.dictionaries(words, values, max_size=6) | st.builds(image, layers=values, config=values)
       | st.builds(index, values, values))  # fmt: skip
def test_any_manifest_is_read_or_refused(document: Any) -> None:
    try:
        found = parse_manifest(json.dumps(document).encode(), "source")
        listed = found.manifests if found.kind == "index" else [found.config, *found.layers]
        assert all(is_digest(entry.digest) and entry.size >= 0 for entry in listed)
        if found.kind == "index":
            assert select(found, parse_platform("linux/amd64"), lambda _: found) in listed
    except FormatError as error:
        assert "source" in str(error) and "\n" not in str(error)


def test_wrong_bytes_of_a_manifest(liar: Lying) -> None:
    data = json.dumps(image()).encode()
    liar.manifest(DIGEST, data)
    with quick() as client:
        with pytest.raises(DigestError, match=DIGEST):
            client.manifest(liar.reference().with_digest(DIGEST))
        path = f"/v2/{NAME}/manifests/v1"
        liar.answers[path] = (200, {"Docker-Content-Digest": DIGEST}, data)
        with pytest.raises(DigestError, match=DIGEST):
            client.manifest(liar.reference())
        entry = Descriptor("", DIGEST, len(data) + 1)
        with pytest.raises(FormatError, match="descriptor says"):
            client.manifest(liar.reference(), entry)
        with pytest.raises(RegistryError, match="4 MiB"):
            client.manifest(liar.reference(), Descriptor("", DIGEST, (4 << 20) + 1))


def test_an_index_that_is_called_a_manifest(liar: Lying) -> None:
    liar.manifest("v1", json.dumps(index()).encode(), layouts.OCI_MANIFEST)
    with quick() as client, pytest.raises(FormatError, match="calls itself"):
        client.manifest(liar.reference())


@pytest.mark.parametrize("depth", [4, 5, 50])
def test_nested_indexes(depth: int, liar: Lying) -> None:
    liar.answers[f"/v2/{NAME}/blobs/{CONFIG_ENTRY['digest']}"] = (200, {}, CONFIG)
    data, kind = json.dumps(image()).encode(), layouts.OCI_MANIFEST
    bottom = blobs.sha256(data)
    for _ in range(depth):
        digest = blobs.sha256(data)
        liar.manifest(digest, data, kind)
        entry = {"mediaType": kind, "digest": digest, "size": len(data)}
        data, kind = json.dumps(index(entry)).encode(), layouts.OCI_INDEX
    liar.manifest("v1", data, kind)
    with quick() as client:
        if depth <= 4:
            with load_image(f"docker://{liar.reference()}", client=client) as found:
                assert found.digest == bottom
            return
        with (
            pytest.raises(FormatError, match="more than 4 indexes"),
            load_image(f"docker://{liar.reference()}", client=client),
        ):
            pass
    assert len(liar.log) <= 5


def test_texts_of_a_registry_are_shown_with_care(liar: Lying) -> None:
    """An answer could have what we sent in it, or escapes for a terminal."""
    body = json.dumps({"errors": [{"code": "DENIED", "message": f"{SECRET}\x1b[2J"}]}).encode()
    challenge = {"WWW-Authenticate": "Basic"}
    liar.answers[f"/v2/{NAME}/manifests/v1"] = (403, challenge, body)
    account = Credentials(USER, PASSWORD)
    refused = pytest.raises(RegistryError, match=r"DENIED: \*\*\*\?\[2J")
    with quick(credentials=account) as client, refused as caught:
        client.manifest(liar.reference())
    no_secret_in(caught.value)
    assert caught.value.status == 403
    body = json.dumps({"errors": [{"code": f"{SECRET}"}]}).encode()
    liar.answers[f"/v2/{NAME}/manifests/v1"] = (403, {}, body)
    with quick() as client, pytest.raises(RegistryError) as caught:
        client.manifest(liar.reference())
    assert SECRET not in str(caught.value)


# --- pages ------------------------------------------------------------------------------


def tag_page(server: Lying, query: str, tags: list[Any], link: str = "") -> None:
    headers = {"Link": link} if link else {}
    body = json.dumps({"name": NAME, "tags": tags}).encode()
    server.answers[f"/v2/{NAME}/tags/list?{query}"] = (200, headers, body)


def test_tags_come_in_pages(liar: Lying) -> None:
    path = f"/v2/{NAME}/tags/list"
    tag_page(liar, "n=1000", ["a", "b", "../x", 7 and "c d"], f'<{path}?n=1000&last=b>; rel="next"')
    tag_page(liar, "n=1000&last=b", ["d"], f"<{liar.url}{path}?last=d>;rel=next")
    tag_page(liar, "last=d", [])
    with quick() as client:
        assert list(client.tags(liar.reference())) == ["a", "b", "d"]


def test_pages_that_lead_astray(liar: Lying) -> None:
    path = f"/v2/{NAME}/tags/list"
    with quick() as client:
        tag_page(liar, "n=1000", ["a"], f'<{path}?n=1000&last=a>; rel="next"')
        tag_page(liar, "n=1000&last=a", ["a"], f'<{path}?n=1000&last=a>; rel="next"')
        with pytest.raises(RegistryError, match="circle"):
            list(client.tags(liar.reference()))
        for elsewhere in ("http://127.0.0.1:1/x", "https://host.example/x", "//host.example/x"):
            tag_page(liar, "n=1000", ["a"], f'<{elsewhere}>; rel="next"')
            with pytest.raises(RegistryError, match="another host"):
                list(client.tags(liar.reference()))
        for nowhere in ("ftp://host.example/x", *NO_URLS):
            tag_page(liar, "n=1000", ["a"], f'<{nowhere}>; rel="next"')
            with pytest.raises(RegistryError, match=r"^127.*pages lead to what is no http or ht"):
                list(client.tags(liar.reference()))
        for body in (b"[]", b'{"tags": 7}', b'{"tags": [7]}', b"x"):
            liar.answers[f"{path}?n=1000"] = (200, {}, body)
            with pytest.raises(RegistryError, match="tags"):
                list(client.tags(liar.reference()))


def test_endless_pages(liar: Lying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_MAX_PAGES", 5)
    path = f"/v2/{NAME}/tags/list"
    tag_page(liar, "n=1000", ["a"], f'<{path}?0>; rel="next"')
    for number in range(10):
        tag_page(liar, str(number), ["a"], f'<{path}?{number + 1}>; rel="next"')
    with quick() as client, pytest.raises(RegistryError, match="more than 5 pages"):
        list(client.tags(liar.reference()))
