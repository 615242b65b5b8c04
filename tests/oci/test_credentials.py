"""Credentials: where they are found, which of them, and that no error shows one."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from stargz.errors import SourceError, StargzError, UsageError
from stargz.oci.formats.reference import parse_reference
from stargz.oci.registry import credentials
from stargz.oci.registry.credentials import Credentials, CredentialStore, as_credentials

SECRET = "hunter2-secret"
HOST = "host.example"
IMAGE = parse_reference(f"{HOST}/team/app:1")


def entry(user: str = "me", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, config: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def helper(folder: Path, name: str, script: str) -> None:
    """A credential helper program, in sh."""
    folder.mkdir(exist_ok=True)
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Of a user whose home is empty, with a folder of helper programs in front of PATH."""
    (tmp_path / "home").mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {"HOME": str(tmp_path / "home"), "PATH": path}


def find(environ: dict[str, str], image: str = str(IMAGE), **options: Any) -> Credentials | None:
    return CredentialStore(environ=environ, **options).find(parse_reference(image))


def test_none(environ: dict[str, str]) -> None:
    assert find(environ) is None


def test_the_usual_files(tmp_path: Path, environ: dict[str, str]) -> None:
    """Each new file comes before those that were there."""
    home = tmp_path / "home"
    for number, (path, change) in enumerate(
        [
            (home / ".docker/config.json", {}),
            (tmp_path / "docker/config.json", {"DOCKER_CONFIG": str(tmp_path / "docker")}),
            (home / ".config/containers/auth.json", {}),
            (tmp_path / "run/containers/auth.json", {"XDG_RUNTIME_DIR": str(tmp_path / "run")}),
            (tmp_path / "named.json", {"REGISTRY_AUTH_FILE": str(tmp_path / "named.json")}),
        ]
    ):
        environ.update(change)
        write(path, {"auths": {HOST: entry(f"user{number}")}})
        assert find(environ) == Credentials(f"user{number}", SECRET)
    given = write(tmp_path / "given.json", {"auths": {HOST: entry("given")}})
    assert find(environ, authfile=given) == Credentials("given", SECRET)


def test_a_file_without_the_registry_leads_on(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "home/.config/containers/auth.json", {"auths": {"other.example": entry()}})
    write(tmp_path / "home/.docker/config.json", {"auths": {HOST: entry("docker")}})
    assert find(environ) == Credentials("docker", SECRET)


def test_a_given_file_must_be_there(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(OSError, match="absent"):
        find(environ, authfile=tmp_path / "absent")
    environ["REGISTRY_AUTH_FILE"] = str(tmp_path / "absent")
    with pytest.raises(OSError, match="absent"):
        find(environ)


@pytest.mark.parametrize(
    "key",
    [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"https://{HOST}/v2/", f"http://{HOST}/"],
)
def test_how_a_host_is_written(key: str, tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "home/.docker/config.json", {"auths": {key: entry()}})
    assert find(environ) == Credentials("me", SECRET)


def test_another_port_is_another_registry(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "home/.docker/config.json", {"auths": {f"{HOST}:5000": entry()}})
    assert find(environ) is None
    assert find(environ, f"{HOST}:5000/app") == Credentials("me", SECRET)


def test_the_default_registry(tmp_path: Path, environ: dict[str, str]) -> None:
    auths = {"https://index.docker.io/v1/": entry("hub")}
    write(tmp_path / "home/.docker/config.json", {"auths": auths})
    assert find(environ, "alpine") == Credentials("hub", SECRET)
    auths["docker.io"] = entry("plain")
    write(tmp_path / "home/.docker/config.json", {"auths": auths})
    assert find(environ, "alpine") == Credentials("plain", SECRET)


def test_the_most_specific_entry(tmp_path: Path, environ: dict[str, str]) -> None:
    auths = {
        HOST: entry("host"),
        f"{HOST}/team": entry("team"),
        f"{HOST}/team/app": entry("app"),
    }
    write(tmp_path / "home/.config/containers/auth.json", {"auths": auths})
    expected = {"team/app": "app", "team/other": "team", "teams/app": "host", "app": "host"}
    for repository, user in expected.items():
        assert find(environ, f"{HOST}/{repository}") == Credentials(user, SECRET)


def test_forms_of_an_entry(tmp_path: Path, environ: dict[str, str]) -> None:
    path = tmp_path / "home/.docker/config.json"
    for value, expected in [
        ({"username": "me", "password": SECRET}, Credentials("me", SECRET)),
        (entry("me", "a:b:c"), Credentials("me", "a:b:c")),
        (entry("me", SECRET + "\0\0"), Credentials("me", SECRET)),
        (
            {**entry("me", ""), "identitytoken": "the-token"},
            Credentials("me", "", identity_token="the-token"),
        ),
        ({"registrytoken": "bearer"}, Credentials(registry_token="bearer")),
        ({}, None),
        ({"auth": ""}, None),
    ]:
        write(path, {"auths": {HOST: value}})
        assert find(environ) == expected


def test_nothing_of_them_is_shown() -> None:
    shown = repr(Credentials("the-user", SECRET, "the-token", "the-other"))
    assert not any(part in shown for part in ("the-user", SECRET, "the-token", "the-other"))


# --- helper programs --------------------------------------------------------------------


def test_a_helper_for_a_host(tmp_path: Path, environ: dict[str, str]) -> None:
    script = f"""[ "$1" = get ] || exit 1
server=$(cat)
echo "{{\\"Username\\": \\"$server\\", \\"Secret\\": \\"{SECRET}\\"}}" """
    helper(tmp_path / "bin", "test-1", script)
    config = {"credHelpers": {HOST: "test-1", "docker.io": "test-1"}, "auths": {HOST: entry()}}
    write(tmp_path / "home/.docker/config.json", config)
    assert find(environ) == Credentials(HOST, SECRET)
    assert find(environ, "alpine") == Credentials("https://index.docker.io/v1/", SECRET)
    assert find(environ, "other.example/app") is None


def test_the_store_of_all_credentials(tmp_path: Path, environ: dict[str, str]) -> None:
    answer = f'{{"Username": "<token>", "Secret": "{SECRET}"}}'
    helper(tmp_path / "bin", "store", f"grep -qx {HOST} && echo '{answer}' && exit 0; "
           "echo 'credentials not found in native keychain'; exit 1")  # fmt: skip
    config = {"credsStore": "store", "auths": {HOST: {}, "other.example": entry("file")}}
    write(tmp_path / "home/.docker/config.json", config)
    assert find(environ) == Credentials(identity_token=SECRET)
    assert find(environ, "other.example/a") == Credentials("file", SECRET)
    assert find(environ, "third.example/a") is None


HUB = "https://index.docker.io/v1/"
HUB_NAMES = [HUB, "docker.io", "index.docker.io", "registry-1.docker.io"]


@pytest.mark.parametrize("filed", [*HUB_NAMES, "https://docker.io", "https://index.docker.io"])
@pytest.mark.parametrize("known", HUB_NAMES)
@pytest.mark.parametrize("repository", ["alpine", "docker.io/me/private"])
def test_a_helper_for_docker_hub(
    filed: str, known: str, repository: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    """Under whatever name the file has it, and whatever the helper has the account."""
    log = tmp_path / "asked"
    found = f'{{"Username": "me", "Secret": "{SECRET}"}}'
    script = f"""read server || [ "$server" ]
echo "$server" >> {log}
[ "$server" = {known} ] && echo '{found}' && exit 0
echo credentials not found in native keychain; exit 1"""
    helper(tmp_path / "bin", "hub", script)
    write(tmp_path / "home/.docker/config.json", {"credHelpers": {filed: "hub"}})
    assert find(environ, repository) == Credentials("me", SECRET)
    assert log.read_text().split() == HUB_NAMES[: HUB_NAMES.index(known) + 1]


def test_docker_hub_as_docker_has_it(tmp_path: Path, environ: dict[str, str]) -> None:
    for name in ("one", "two"):
        helper(tmp_path / "bin", name, f'echo \'{{"Username": "{name}", "Secret": "x"}}\'')
    for helpers in ({HUB: "one", "docker.io": "two"}, {"docker.io": "two", HUB: "one"}):
        write(tmp_path / "home/.docker/config.json", {"credHelpers": helpers})
        assert find(environ, "alpine") == Credentials("one", "x")
    for name in HUB_NAMES:
        write(tmp_path / "home/.docker/config.json", {"auths": {name: entry("file")}})
        assert find(environ, "alpine") == Credentials("file", SECRET)


@pytest.mark.parametrize(
    "filed", ["{}", "https://{}", "https://{}/", "http://{}", "https://{}/v2/"]
)
@pytest.mark.parametrize("known", ["{}", "https://{}"])
def test_a_helper_for_a_url(
    filed: str, known: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    script = f"""read server || true
[ "$server" = {known.format(HOST)} ] && echo '{{"Username": "me", "Secret": "x"}}' && exit 0
echo credentials not found in native keychain; exit 1"""
    helper(tmp_path / "bin", "url", script)
    for config in ({"credHelpers": {filed.format(HOST): "url"}}, {"credsStore": "url"}):
        write(tmp_path / "home/.docker/config.json", config)
        assert find(environ) == Credentials("me", "x")


@pytest.mark.parametrize("name", ["../evil", "a/b", "a b", "A", "", "a;b", "a\n", 7, None, ["a"]])
def test_names_that_no_helper_has(name: object, tmp_path: Path, environ: dict[str, str]) -> None:
    path = write(tmp_path / "home/.docker/config.json", {"credHelpers": {HOST: name}})
    with pytest.raises(SourceError, match="credential helper's name") as caught:
        find(environ)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo no keyring; echo is it\\ locked? >&2; exit 3", r"3\): no keyring; is it locked\?$"),
        ("echo the same; echo the same >&2; exit 1", r"code 1\): the same$"),
        ("exit 1", r"exit code 1\)$"),
        (f"echo 'bad password: {SECRET}'; exit 3", r"code 3\): bad password: \*\*\*$"),
        (f"echo 'https://me:{SECRET}@host: no'; exit 3", r"3\): https://\*\*\*@host: no$"),
        (f'echo \'{{"Secret": "{SECRET}"}}\'; echo why >&2; exit 3', r"exit code 3\): why$"),
        ("printf '\\033[2Jclear'; exit 3", r"code 3\): \?\[2Jclear$"),
        ("yes | head -c 999999; exit 3", r"y y .{180,200}\.\.\.$"),
        ("exec yes", r"docker-credential-bad gave over 1048576 bytes for "),
        ("exec yes >&2", r"docker-credential-bad gave over 1048576 bytes for "),
        ("yes; exit 0", r"docker-credential-bad gave over 1048576 bytes for "),
        ("exec >&- 2>&-; exec sleep 60", "did not answer"),
        ("exec <&-; sleep 0.1; exit 4", r"exit code 4\)$"),
        ("echo oops >&2", "no Username and Secret for .*: oops$"),
        (f"echo {SECRET}", "no Username and Secret"),
        (f'echo \'{{"Secret": "{SECRET}"}}\'', "no Username and Secret"),
        (f'echo \'{{"Username": 1, "Secret": "{SECRET}"}}\'', "no Username and Secret"),
        ("exec sleep 60", "did not answer"),
    ],
)
def test_helpers_that_fail(
    script: str,
    says: str,
    tmp_path: Path,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credentials, "_HELPER_SECONDS", 0.5)
    helper(tmp_path / "bin", "bad", script)
    path = write(tmp_path / "home/.docker/config.json", {"credHelpers": {HOST: "bad"}})
    with pytest.raises(SourceError, match=says) as caught:
        find(environ)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_helper_that_says_much(tmp_path: Path, environ: dict[str, str]) -> None:
    answer = '{"Username": "me", "Secret": "word"}'
    helper(
        tmp_path / "bin",
        "much",
        f"yes | head -c 1000000 >&2; echo '{answer}'; yes '' | head -c 900000",
    )
    write(tmp_path / "home/.docker/config.json", {"credHelpers": {HOST: "much"}})
    assert find(environ) == Credentials("me", "word")


def test_a_helper_that_is_not_installed(tmp_path: Path, environ: dict[str, str]) -> None:
    path = write(tmp_path / "home/.docker/config.json", {"credsStore": "not-there"})
    with pytest.raises(SourceError, match="docker-credential-not-there") as caught:
        find(environ)
    assert str(path) in str(caught.value)


# --- malformed files --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f'{{"auths": {{"{HOST}": {{"password": "{SECRET}"',
        f'["{SECRET}"]',
        f'"{SECRET}"',
        "[" * 100_000 + SECRET,
        f'{{"auths": ["{SECRET}"]}}',
        f'{{"credHelpers": "{SECRET}"}}',
        f'{{"auths": {{"{HOST}": "{SECRET}"}}}}',
        f'{{"auths": {{"{HOST}": {{"auth": "{SECRET}"}}}}}}',
        f'{{"auths": {{"{HOST}": {{"auth": ["{SECRET}"]}}}}}}',
        f'{{"auths": {{"{HOST}": {{"auth": "aHVudGVyMi1zZWNyZXQ="}}}}}}',
        f'{{"auths": {{"{HOST}": {{"auth": "/w==", "password": "{SECRET}"}}}}}}',
    ],
)
def test_malformed(text: str, tmp_path: Path, environ: dict[str, str]) -> None:
    path = tmp_path / "home/.docker/config.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(StargzError) as caught:
        find(environ)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)


def test_too_large(tmp_path: Path, environ: dict[str, str]) -> None:
    path = tmp_path / "home/.docker/config.json"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(SourceError, match="bytes"):
        find(environ)


def test_an_empty_file_is_no_error(tmp_path: Path, environ: dict[str, str]) -> None:
    path = tmp_path / "empty"
    path.write_text("")
    assert find(environ, authfile=path) is None


@pytest.mark.parametrize("value", ["me:\udcff", "\ud800:p", ("me", "\udcff"), ("\ud800", "p")])
def test_what_cannot_be_sent(value: str | tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="creds are") as caught:
        as_credentials(value)
    assert str(caught.value).isprintable()
