"""What servers say goes into the errors, without the secrets that it may repeat."""

from __future__ import annotations

import json

import pytest
from command import run
from registries import PASSWORD, USER, lying, no_secret_in

from stargz.digests import digest_of
from stargz.errors import RegistryError, SourceError, UsageError, mask
from stargz.oci.formats.manifest import Descriptor
from stargz.oci.formats.reference import Reference
from stargz.oci.registry.blob import RegistryBlob
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.credentials import Credentials
from stargz.oci.registry.failures import failure, is_fresh, words
from stargz.sources.client import Client, Response

REFERENCE = Reference("registry.example", "team/app", "v1")


def answer(status: int, body: object = b"", kind: str = "application/json") -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {"Content-Type": kind}, data, "http://registry.example")


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (
            400,
            {"errors": [{"code": "NAME_INVALID"}]},
            "answered 400: check the host and the name; its logs may say why (NAME_INVALID)",
        ),
        (
            400,
            {"errors": [{"code": "DENIED", "message": "no more\n space"}, {"message": "two"}]},
            "its logs may say why (DENIED: no more space; two)",
        ),
        (
            404,
            {"errors": [{"code": "UNKNOWN", "message": "x", "detail": {"Digest": "sha256:1"}}]},
            'has been pushed (UNKNOWN: x, {"Digest": "sha256:1"})',
        ),
        (403, {"errors": [{"code": "DENIED", "detail": "quota"}]}, "(DENIED: quota)"),
        (415, {"errors": [{"message": "manifest v2 only"}]}, "media type (manifest v2 only)"),
        (
            500,
            {"errors": [{"code": "UNKNOWN", "detail": "foreign"}]},
            "500: try again later (UNKNOWN: foreign)",
        ),
        (400, {"errors": [{"code": text} for text in "ABCDEFG"]}, "(A; B; C; D; E; F; G)"),
        (400, {"errors": [{"code": "A", "message": 600 * "b"}]}, f"(A: {500 * 'b'}...)"),
        (
            400,
            {"errors": 9 * [{"code": "A", "message": 400 * "b"}]},
            f"({4 * ('A: ' + 400 * 'b' + '; ')}5 more)",
        ),
        (400, {"errors": [{"code": "low-1", "message": "\x1b[31mred"}]}, "(low-1: ?[31mred)"),
        (400, {"errors": ["x", 5, {}, {"code": 5}]}, "(x; 5)"),
        (400, {"errors": {"code": "A"}}, "(A)"),
        (400, {"errors": "no room"}, "(no room)"),
        (403, {"code": "DENIED", "message": "m", "details": ["d"]}, '(DENIED: m, ["d"])'),
        (403, {"error": "invalid_scope", "error_description": "no"}, "(invalid_scope: no)"),
        (403, {"message": "blocked", "status": 403}, "(blocked)"),
        (
            400,
            {"errors": [{"detail": {"päth": "a\nb", "token": "s3cret"}}]},
            '\\nb", "token": "***"})',
        ),
        (400, [], "answered 400: check the host and the name; its logs may say why"),
        (400, b"nonsense", "answered 400: check the host and the name; its logs may say why"),
        (418, b"", "answered 418: check the host and the name; its logs may say why"),
        (501, b"", "answered 501: check the host and the name; its logs may say why"),
        (503, b"", "answered 503: try again later"),
        (400, 5000 * b"[", "answered 400: check the host and the name; its logs may say why"),
    ],
)
def test_all_that_a_server_says(status, body, text):
    error = failure(answer(status, body), REFERENCE)
    assert str(error).startswith("registry.example/team/app:v1: ")
    assert str(error).endswith(text)
    assert error.status == status


def test_text_that_a_server_says():
    assert "(upload limit)" in str(failure(answer(413, b"upload\nlimit", "text/plain"), REFERENCE))
    assert "<html>" not in str(failure(answer(413, b"<html>", "text/html"), REFERENCE))


@pytest.mark.parametrize(
    ("status", "code", "fresh"),
    [
        (400, "DIGEST_INVALID", True),
        (400, "BLOB_UNKNOWN", True),
        (404, "BLOB_UNKNOWN", True),
        (400, "MANIFEST_BLOB_UNKNOWN", True),
        (404, "MANIFEST_BLOB_UNKNOWN", True),
        (404, "MANIFEST_UNKNOWN", True),
        (400, "MANIFEST_INVALID", False),
        (400, "NAME_INVALID", False),
        (403, "BLOB_UNKNOWN", False),
        (404, "NAME_UNKNOWN", False),
        (415, "UNSUPPORTED", False),
    ],
)
def test_what_may_be_over_in_a_moment(status, code, fresh):
    assert is_fresh(answer(status, {"errors": [{"code": code}]})) is fresh
    assert is_fresh(answer(status, {"errors": [{"code": "OTHER"}, {"code": code}]})) is fresh
    assert not is_fresh(answer(status))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://bob:secret@host/x", "https://***@host/x"),
        ("https://secret@host/x: no", "https://***@host/x: no"),
        ("see http://b:se@cret@host, and", "see http://***@host, and"),
        ("docker://bob:secret@host/x", "docker://***@host/x"),
        ("'docker://bob:sec/ret@host/x:tag'", "'docker://***@host/x:tag'"),
        ("docker://bob:se@cret@host/x@sha256:12", "docker://***@host/x@sha256:12"),
        ("docker://host:5000/x@sha256:12", "docker://host:5000/x@sha256:12"),
        ("docker://host:5000/x:tag@sha256:12", "docker://host:5000/x:tag@sha256:12"),
        ("simplecache::https://b:secret@host/x", "simplecache::https://***@host/x"),
        ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
        ("https://host/x?X-Amz-Signature=secret&a=b: gone", "https://host/x?...: gone"),
        ("'https://host/x?sig=secret', or", "'https://host/x?...', or"),
        ("https://host/a@b/c", "https://host/a@b/c"),
        ("https://host:80/a@1.0/c", "https://host:80/a@1.0/c"),
        ("mail bob@host", "mail bob@host"),
    ],
)
def test_secrets_of_urls_are_masked(text, shown):
    assert mask(text) == shown
    for error in (SourceError(text), UsageError(text), RegistryError(text, "here")):
        assert str(error).endswith(shown)
        assert "secret" not in repr(error)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer s3cret",
        "Basic s3cret",
        '{"token": "s3cret"}',
        "password=s3cret",
        "my-api-key: s3cret",
        "https://a:s3cret@b",
    ],
)
def test_secrets_in_words_are_masked(text):
    assert "s3cret" not in words(text) and "***" in words(text)
    assert "s3cret" not in words(text.encode())


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_a_server_that_repeats_what_was_sent(scheme):
    with lying() as server, Client(backoff=0.01) as http:
        token = "" if scheme == "Basic" else "the-identity"
        account = Credentials(USER, PASSWORD, registry_token=token)
        header = f'{scheme} realm="https://tokens.example"'
        said = f"you sent {token} {account.basic()}, that is {USER} and {PASSWORD}!"
        body = json.dumps({"errors": [{"code": "DENIED", "message": said}]}).encode()
        blob = Descriptor("", digest_of(b""), 10)
        for kind in ("manifests/v1", "tags/list?n=1000", f"blobs/{blob.digest}"):
            path = f"/v2/some/image/{kind}"
            server.answers[path] = (403, {"WWW-Authenticate": header}, body)
        client = RegistryClient(http=http, credentials=account)
        reference = Reference(server.host, "some/image", "v1")
        for ask in (
            lambda: client.manifest(reference),
            lambda: list(client.tags(reference)),
            lambda: RegistryBlob(client, reference, blob).read_at(0, 1),
        ):
            with pytest.raises(RegistryError, match="you sent") as caught:
                ask()
            no_secret_in(caught.value)


def test_what_a_failing_server_says_at_the_end():
    body = json.dumps({"errors": [{"code": "UNKNOWN", "message": "no\nspace", "detail": "disk 1"}]})
    with lying() as server, Client(backoff=0.01, tries=2) as http:
        blob = Descriptor("", digest_of(b""), 10)
        for kind in ("manifests/v1", f"blobs/{blob.digest}"):
            server.answers[f"/v2/some/image/{kind}"] = (500, {}, body.encode())
        client = RegistryClient(http=http)
        reference = Reference(server.host, "some/image", "v1")
        for ask in (
            lambda: client.manifest(reference),
            lambda: RegistryBlob(client, reference, blob).read_at(0, 1),
        ):
            with pytest.raises(
                RegistryError, match=r"500.*2 tries.*\(UNKNOWN: no space, disk 1\)$"
            ):
                ask()


def test_a_blob_that_is_refused_though_its_manifest_is_not():
    """With the account and the server's words, as for a manifest; not of the host that it
    redirects to, which has nothing to do with the account."""
    blob = Descriptor("", digest_of(b""), 10)
    body = json.dumps({"errors": [{"code": "DENIED", "message": "pull more"}]}).encode()
    with lying() as server, lying() as other, Client(backoff=0.01) as http:
        client = RegistryClient(http=http, credentials=Credentials(USER, PASSWORD))
        reference = Reference(server.host, "some/image", "v1")
        path = f"/v2/some/image/blobs/{blob.digest}"
        server.answers["/v2/"] = (401, {"WWW-Authenticate": "Basic"}, b"")
        for status, headers, match in (
            (401, {}, r"the account from .* is not accepted \(401\).*pull more"),
            (403, {}, r"access is denied \(403\).*--creds.*\(DENIED: pull more\)"),
            (404, {}, r"the manifest lists \(404\).*\(DENIED: pull more\)"),
            (410, {}, r"410.*\(DENIED: pull more\)"),
            (302, {"Location": f"{other.url}/blob"}, r"answered 403.*\(DENIED: pull more\)"),
        ):
            server.answers[path] = (status, headers, body)
            other.answers["/blob"] = (403, {}, body)
            with pytest.raises(RegistryError, match=match) as caught:
                RegistryBlob(client, reference, blob).read_at(0, 1)
            assert caught.value.status == (403 if status == 302 else status)


def test_what_a_token_server_says():
    body = json.dumps({"errors": [{"code": "DENIED", "message": f"no {PASSWORD}"}]})
    with lying() as server, Client(backoff=0.01) as http:
        challenge = {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}
        server.answers["/v2/some/image/manifests/v1"] = (401, challenge, b"")
        scope = "scope=repository%3Asome%2Fimage%3Apull"
        server.answers[f"/token?account={USER}&{scope}"] = (401, {}, body.encode())
        client = RegistryClient(http=http, credentials=Credentials(USER, PASSWORD))
        with pytest.raises(RegistryError, match=r"log in again \(DENIED: no \*\*\*\)$"):
            client.manifest(Reference(server.host, "some/image", "v1"))


@pytest.mark.parametrize(
    "words_of_a_command",
    [
        "image ls docker://bob:s3cret@host.example/x",
        "image ls docker://bob:s3/cret@host.example/x",
        "image info bob:s3cret@host.example/x",
        "image convert oci:nothing docker://bob:s3cret@host.example/x",
        "image convert docker://bob:s3cret@host.example/x@sha256:12 oci:out",
        "image bulk docker://bob:s3cret@host.example oci:out",
        "image bulk docker://s3cret@host.example oci:out",
        "image bulk oci:nothing docker://bob:s3cret@host.example/x",
        "ls http://bob:s3cret@127.0.0.1:1/x?sig=s3cret",
        "ls -v https://bob:s3cret@[::1/x?sig=s3cret",
        "ls docker://host.example/x --layer 1 --mirror host.example=https://bob:s3cret@m.example",
        "ls docker://host.example/x --layer 1 --mirror host.example=bob:s3cret@m.example",
        "ls docker://host.example/x --layer 1 --mirror https://bob:s3cret@m.example",
    ],
)
def test_passwords_on_the_command_line_are_not_repeated(words_of_a_command, tmp_path):
    done = run(*words_of_a_command.split(), env={"STARGZ_DEBUG": "1"}, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert "Traceback" in done.stderr and "\nstargz: " in done.stderr
    assert "s3cret" not in done.stdout + done.stderr and "cret@" not in done.stderr
    assert [path for path in tmp_path.rglob("*") if "cret" in path.name] == []


def test_passwords_in_a_list_are_not_kept(tmp_path):
    listed = tmp_path / "list"
    listed.write_text("bob:s3cret@host.example/x oci:out\ndocker://bob:s3cret@host.example/y\n")
    state, report, page = (tmp_path / name for name in ("state.db", "r.json", "r.html"))
    options = ("--state", state, "--report", report, "--report", page)
    for json_or_not in ((), ("--json",)):
        done = run("image", "bulk", listed, *options, *json_or_not, "-v", cwd=tmp_path)
        assert done.returncode == 1 and "***@host.example" in done.stderr
        assert "s3cret" not in done.stdout + done.stderr
    for path in tmp_path.iterdir():
        assert path == listed or b"s3cret" not in path.read_bytes()


@pytest.mark.parametrize("options", [("--json",), ("--json", "-q"), ("-q",)])
def test_bulk_tells_what_failed_beside_data(tmp_path, options):
    listed = tmp_path / "list"
    listed.write_text("oci:missing oci:out\n")
    done = run("image", "bulk", listed, "--state", tmp_path / "state.db", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "stargz: failed: oci:missing: " in done.stderr
    assert bool(done.stdout) == ("--json" in options)
