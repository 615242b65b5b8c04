"""Authorization: challenges, and the token servers that credentials may go to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import registries
from hypothesis import given
from hypothesis import strategies as st
from registries import PASSWORD, USER, Identity, TokenServer, lying, no_secret_in
from servers import NO_URLS

from stargz.errors import RegistryError
from stargz.oci.registry.auth import Authorizer
from stargz.oci.registry.credentials import Credentials
from stargz.oci.registry.fields import Challenge, parse_challenges
from stargz.sources.client import Client, Response

ACCOUNT = Credentials(USER, PASSWORD)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return registries.identity(tmp_path_factory.mktemp("identity"))


@pytest.fixture
def tokens(signer: Identity) -> Iterator[TokenServer]:
    with registries.token_server(signer) as server:
        yield server


# --- challenges -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [Challenge("basic")]),
        ('Basic realm="a, b"', [Challenge("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://x/t?a=b",service=reg,scope="repository:a:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://x/t?a=b",
                        "service": "reg",
                        "scope": "repository:a:pull,push",
                    },
                )
            ],
        ),
        (
            'Negotiate abc==, BASIC Realm = "q\\"uo\\\\ted" , bearer x=1,y="",,',
            [
                Challenge("negotiate"),
                Challenge("basic", {"realm": 'q"uo\\ted'}),
                Challenge("bearer", {"x": "1", "y": ""}),
            ],
        ),
        ("Negotiate, Basic", [Challenge("negotiate"), Challenge("basic")]),
        ('Bearer realm="1", realm="2"', [Challenge("bearer", {"realm": "1"})]),
        ('Bearer realm="never ends', [Challenge("bearer")]),
        ('realm="of nothing"', []),
        ("= , =", []),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges(header) == expected


@given(st.text('Bearer ,="\\x \t\n', max_size=200) | st.text(max_size=100))
def test_any_header_is_read(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme


def test_a_long_header_takes_no_time() -> None:
    for text in ('Bearer a="' + "\\" * 1_000_000, "Bearer " + "a=b," * 300_000, "a " * 500_000):
        assert len(parse_challenges(text)) < 1 << 14


# --- token servers ---


def challenged(url: str, realm: str, private: bool, ca_file: str) -> tuple[Authorizer, Response]:
    """What asks for tokens for a registry at `url`, and the challenge it got."""
    http = Client(ca_file=ca_file, backoff=0.01, tries=2)
    auth = Authorizer(http, url, lambda scope: ACCOUNT)
    auth.private = private
    header = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}
    return auth, Response(401, header, b"", url)


def test_a_public_registry_cannot_name_a_private_token_server(
    tokens: TokenServer, signer: Identity
) -> None:
    port = tokens.url.split(":")[2]
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"):
        realm = f"https://{host}:{port}"
        auth, answer = challenged("https://registry.example", realm, False, str(signer.certificate))
        with pytest.raises(RegistryError) as caught:
            auth.renew("repository:a:pull", None, answer, "registry.example/a")
        no_secret_in(caught.value)
        assert "registry.example/a" in str(caught.value)
        assert "private address" in str(caught.value)
    assert not tokens.requests
    auth, answer = challenged("https://127.0.0.1", tokens.url, True, str(signer.certificate))
    value = auth.renew("repository:a:pull", None, answer, "127.0.0.1/a")
    assert value is not None and value.startswith("Bearer ")


@pytest.mark.parametrize(
    "realm",
    [
        "", "x", "/token", "//host.example/token", "ftp://host.example", "file:///etc/passwd",
        "http://host.example/token", "http://registry.example/token", "https://", "https://[x/",
        "https://user:pw@host.example/", "https://host.example:x/", "https://host.example/é",
        "javascript:alert(1)", "https://host.example/\x7f", *NO_URLS,
    ],
)  # fmt: skip
def test_what_is_no_token_server(realm: str, signer: Identity) -> None:
    auth, answer = challenged("https://registry.example", realm, False, str(signer.certificate))
    with pytest.raises(RegistryError, match="token server") as caught:
        auth.renew("repository:a:pull", None, answer, "registry.example/a")
    no_secret_in(caught.value)


@pytest.mark.parametrize(
    "answer", [{}, {"token": ""}, {"token": 7}, {"token": "a\r\nX: y"}, {"token": "a b"}, [], "x"]
)
def test_answers_that_are_no_token(answer: Any, signer: Identity) -> None:
    with lying(signer) as server:
        for path in ("/t?service=x&account=tester&scope=repository%3Aa%3Apull",):
            server.answers[path] = (200, {}, json.dumps(answer).encode())
        realm = f"{server.url}/t"
        auth, challenge = challenged(server.url, realm, True, str(signer.certificate))
        with pytest.raises(RegistryError, match="no token"):
            auth.renew("repository:a:pull", None, challenge, "host/a")
        assert server.log
