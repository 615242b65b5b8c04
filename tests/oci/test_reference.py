"""Names of images: the grammar, the defaults, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargz.digests import check_digest
from stargz.errors import UsageError
from stargz.oci.formats.reference import LayoutReference, Reference, parse_image, parse_reference

HEX = "0123456789abcdef" * 4
SHA256 = f"sha256:{HEX}"
SHA512 = f"sha512:{HEX * 2}"

GOOD = {
    "alpine": ("docker.io", "library/alpine", None, None),
    "alpine:3.20": ("docker.io", "library/alpine", "3.20", None),
    "some/app": ("docker.io", "some/app", None, None),
    "docker.io/alpine": ("docker.io", "library/alpine", None, None),
    "index.docker.io/library/alpine": ("docker.io", "library/alpine", None, None),
    f"alpine@{SHA256}": ("docker.io", "library/alpine", None, SHA256),
    f"alpine:x@{SHA512}": ("docker.io", "library/alpine", "x", SHA512),
    "localhost/app": ("localhost", "app", None, None),
    "localhost:5000/app:1": ("localhost:5000", "app", "1", None),
    "127.0.0.1:5000/a/b/c": ("127.0.0.1:5000", "a/b/c", None, None),
    "[::1]:5000/app": ("[::1]:5000", "app", None, None),
    "Host/app": ("Host", "app", None, None),
    "host.example/a__b/c--d.e_f": ("host.example", "a__b/c--d.e_f", None, None),
    "host.example:443/app:V1.2_x-y": ("host.example:443", "app", "V1.2_x-y", None),
}

BAD = [
    "",
    "/",
    "a//b",
    "/a",
    "a/",
    "Upper",
    "host.example/Upper",
    "host.example/",
    "host.example/../etc",
    "host.example/a/./b",
    "host.example/a..b",
    "host.example/a___b",
    "host.example/_a",
    "host.example/a-",
    "host.example/a%2f",
    "host.example/a b",
    "host.example/a\n",
    "host.example/a?x=1",
    "host.example/a#x",
    "host.example:/a",
    "host.example:0/a",
    "host.example:65536/a",
    "host.example:99999999999/a",
    "-host.example/a",
    "host..example/a",
    "user@host.example/a",
    "user:secret@host.example/a",
    "http://host.example/a",
    "[::1/a",
    "[zz]/a",
    "[1:::2]/a",
    "[::1.2]:5000/a",
    "host.example/a:",
    "host.example/a:-x",
    "host.example/a:" + "x" * 129,
    "host.example/a:é",
    "host.example/é",
    "host.example/a@",
    "host.example/a@sha256:",
    "host.example/a@sha256:../../../../etc/passwd",
    f"host.example/a@sha256:{HEX[:-1]}",
    f"host.example/a@sha256:{HEX}0",
    f"host.example/a@sha256:{HEX.upper()}",
    f"host.example/a@md5:{HEX[:32]}",
    f"host.example/a@{SHA256}@{SHA256}",
    f"host.example/a@{SHA256}\n",
    HEX,
    "host.example/" + "a" * 250,
]


@pytest.mark.parametrize("text", GOOD)
def test_read(text: str) -> None:
    assert parse_reference(text) == Reference(*GOOD[text])


@pytest.mark.parametrize("text", BAD)
def test_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "user:s3cret@host.example/a",
        "user:s3cret@host.example",
        "user:s3cret@127.0.0.1:5000/team/a:1.0",
        "user:s3cret@host.example:5000/a",
        "user:s3cret@localhost:5000",
        "user:s3cret@host.example/a:1.0",
        f"user:s3cret@host.example:5000/a@{SHA256}",
        f"user:s3cret@host.example/a:1@{SHA256}",
        "user:s3/cret@host.example:5000/a",
        "user:s3@cret@host.example:5000/a:1",
        "s3cret@host.example:5000/a",
        "user:s3cret@[::1]:5000/a:1",
        "user:s3 cret@host.example/a:1",
        "user:s3@cr et cret@host.example/a:1",
    ],
)
def test_users_and_passwords(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"has no place in the name of an image .*--creds"
    ) as caught:
        parse_image(f"docker://{text}")
    assert "cret" not in str(caught.value) and "user:" not in str(caught.value)


def test_a_registry_is_no_directory() -> None:
    with pytest.raises(UsageError, match="docker://HOST/REPO") as caught:
        parse_image("oci://user:s3cret@host.example/a")
    assert "cret" not in str(caught.value)
    assert str(parse_image("oci:///srv/images:v1")) == "oci:///srv/images:v1"


def test_what_a_registry_is_asked() -> None:
    assert parse_reference("alpine").target == "latest"
    assert parse_reference("alpine:3").target == "3"
    assert parse_reference(f"alpine:3@{SHA256}").target == SHA256
    assert parse_reference("alpine").api_host != "docker.io"
    assert parse_reference("host.example/a").api_host == "host.example"
    assert str(parse_reference("alpine:3")) == "docker.io/library/alpine:3"


def test_with_another_tag_or_digest() -> None:
    reference = parse_reference(f"host.example/a:1@{SHA256}")
    assert str(reference.with_digest(SHA512)) == f"host.example/a@{SHA512}"
    assert str(reference.with_tag("2")) == "host.example/a:2"
    with pytest.raises(UsageError, match="not a tag"):
        reference.with_tag("../x")
    with pytest.raises(UsageError, match="not a digest"):
        reference.with_digest("sha256:../../x")


@pytest.mark.parametrize("digest", [None, 7, ["sha256"], "", "sha256:", SHA256.upper()])
def test_what_is_no_digest(digest: object) -> None:
    with pytest.raises(UsageError, match="not a digest"):
        check_digest(digest)


words = st.sampled_from(["a", "0", "image", "x86", "a.b", "a_b", "a__b", "a--b", "a-b.c_d0"])
component = st.lists(words, min_size=1, max_size=3).map("".join)
hosts = st.sampled_from(["localhost", "localhost:5000", "host.example", "10.0.0.1:80", "[::1]:1"])
tags = st.none() | st.builds(
    "{}{}".format, st.sampled_from("aZ0_"), st.text("aZ0_.-", max_size=127)
)
digests = st.none() | st.sampled_from([SHA256, SHA512])


@given(hosts, st.lists(component, min_size=1, max_size=5), tags, digests)
def test_a_reference_reads_as_it_is_written(
    host: str, parts: list[str], tag: str | None, digest: str | None
) -> None:
    reference = Reference(host, "/".join(parts), tag, digest)
    assert parse_reference(str(reference)) == reference


@given(
    st.text(max_size=60)
    | st.text("aA0.-_:/@[]%~ \\\n", max_size=60)
    | st.builds("host.example/{}@sha256:{}".format, component, st.text(max_size=70))
)
def test_whatever_is_read_is_safe_in_a_path(text: str) -> None:
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    path = f"{reference.repository}/{reference.target}"
    assert re.fullmatch(r"[A-Za-z0-9._/:-]+", path)
    assert not {"", ".", ".."} & set(path.split("/"))
    assert parse_reference(str(reference)) == reference


def test_images_by_their_prefix(tmp_path: Path) -> None:
    assert parse_image("docker://alpine") == parse_reference("alpine")
    assert parse_image(f"oci:{tmp_path}") == LayoutReference(str(tmp_path))
    assert parse_image(f"oci:{tmp_path}:v1") == LayoutReference(str(tmp_path), "v1")
    assert parse_image(f"oci:{tmp_path}:a/b:v1") == LayoutReference(str(tmp_path), "a/b:v1")
    assert parse_image("oci:not/there:v1") == LayoutReference("not/there", "v1")
    colon = tmp_path / "a:b"
    colon.mkdir()
    assert parse_image(f"oci:{colon}") == LayoutReference(str(colon))
    assert parse_image(f"oci:{colon}:x") == LayoutReference(str(colon), "x")


@pytest.mark.parametrize("text", ["alpine", "", "oci:", "docker://", "docker:alpine", "http://x"])
def test_what_is_no_image(text: str) -> None:
    with pytest.raises(UsageError):
        parse_image(text)
