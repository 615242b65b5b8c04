"""Accounts that are given for one image: --creds, --src-creds, --dest-creds; and those in names."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import layouts
import pytest
import registries
from blobs import tar_of
from command import command, environment, fails, ok, run, together
from mounts import cli_mount, needs_fuse
from registries import PASSWORD, USER, Registry
from servers import FaultProxy

import stargz
from stargz.errors import RegistryError, UsageError
from stargz.oci.bulk import bulk
from stargz.oci.conversion import convert_image
from stargz.oci.image import open_image
from stargz.oci.registry.access import Access
from stargz.oci.registry.credentials import Credentials
from stargz.oci.verify.image import verify_image

ACCOUNT = f"{USER}:{PASSWORD}"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with an account, which has app:v1."""
    folder = tmp_path_factory.mktemp("creds")
    made = layouts.image(folder / "layout", [tar_of([("etc/hosts", b"localhost")])])
    with registries.registry(folder / "registry", basic=True) as served:
        served.push(made.path, "app", "v1")
        yield served


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Without any account."""
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}


COMMANDS = [
    "image ls {}",
    "image cat {} etc/hosts",
    "image info {}",
    "verify {}",
    "info {} --layer 1",
    "ls {} --layer 1",
    "cat {} --layer 1 etc/hosts",
    "extract {} --layer 1 -C {dir}",
    "toc {} --layer 1",
    "image find {}",
    "image tree {}",
    "image du {}",
    "image extract {} -C {dir}",
    "find {} --layer 1",
    "du {} --layer 1",
    "tree {} --layer 1",
]


def test_every_command_of_one_image(source: Registry, tmp_path: Path, env: dict[str, str]) -> None:
    name, out = f"docker://{source.host}/app:v1", tmp_path / "out"
    lines = [[*line.format(name, dir=out).split(), "--creds", ACCOUNT] for line in COMMANDS]
    for line, (code, _, said) in zip(COMMANDS, together(*lines, env=env), strict=True):
        assert (code, said) == (0, ""), line


def test_without_an_account_or_with_a_wrong_one(source: Registry, env: dict[str, str]) -> None:
    words = ("image", "ls", f"docker://{source.host}/app:v1")
    assert "--creds" in fails(1, *words, env=env)
    assert "wr0ng" not in fails(1, *words, "--creds", f"{USER}:wr0ng", env=env)


def test_a_line_of_standard_input(source: Registry, env: dict[str, str]) -> None:
    name = f"docker://{source.host}/app:v1"
    for text in f"{ACCOUNT}\n", f"{ACCOUNT}\r\n", ACCOUNT:
        assert "etc" in ok("image", "ls", name, "--creds", "-", input=text, env=env)
    for value, text in ("-", ""), ("-", "only-a-user\n"), (":pw", ""), ("s3cret", ""):
        said = fails(2, "image", "ls", name, "--creds", value, input=text, env=env)
        assert "USER:PASSWORD" in said and "s3cret" not in said and "only-a-user" not in said


def test_two_images(source: Registry, tmp_path: Path, env: dict[str, str]) -> None:
    name = f"docker://{source.host}/app:v1"
    other = f"docker://{source.host}/copy:v1"
    both = f"{ACCOUNT}\n{ACCOUNT}\n"
    convert = ("image", "convert", "-q")
    assert "--dest-creds" in fails(1, *convert, name, other, "--src-creds", ACCOUNT, env=env)
    assert "--src-creds" in fails(1, *convert, name, other, "--dest-creds", ACCOUNT, env=env)
    ok(*convert, name, other, "--src-creds", "-", "--dest-creds", "-", input=both, env=env)
    local = f"oci:{tmp_path}/l:v1"
    ok(*convert, name, local, "--src-creds", ACCOUNT, "--verify", env=env)
    ok(*convert, local, other, "--dest-creds", ACCOUNT, "--verify", env=env)
    ok(*convert, "--upgrade", other, "--creds", ACCOUNT, env=env)
    diff = ("diff", name, other, "--layer", "1")
    ok(*diff, "--creds-a", ACCOUNT, "--creds-b", ACCOUNT, "-q", env=env)
    images = ("image", "diff", name, other)
    assert "--creds" in fails(1, *images, "--creds-a", ACCOUNT, "-q", env=env)
    ok(*images, "--creds-a", ACCOUNT, "--creds-b", ACCOUNT, "-q", env=env)
    bulk_ = ("image", "bulk", f"docker://{source.host}/app", f"oci:{tmp_path}/many")
    ok(*bulk_, "--src-creds", ACCOUNT, "--state", tmp_path / "s", "-q", env=env)
    listed = tmp_path / "list"
    listed.write_text(f"{name}\n")
    refused: list[tuple[tuple[object, ...], str]] = [
        ((*convert, name, other, "--creds", ACCOUNT), "--src-creds"),
        (("image", "bulk", name, "oci:x", "--creds", ACCOUNT), "--dest-creds"),
        ((*diff, "--creds", ACCOUNT), "--creds-a"),
        (("image", "ls", name, "--src-creds", ACCOUNT), "--creds"),
        (("convert", "--creds", ACCOUNT, "a.tar"), "unrecognized"),
        (("convert", f"--creds={ACCOUNT}", "a.tar"), "***"),
        (("image", "bulk", listed, "oci:x", "--src-creds", ACCOUNT), "one registry"),
        ((*bulk_, "--src-creds", ACCOUNT, "--dask", "127.0.0.1:1"), "--authfile"),
    ]
    told = together(*(words for words, _ in refused), env=env)
    for (_, named), (code, _, said) in zip(refused, told, strict=True):
        assert code == 2 and named in said and PASSWORD not in said


def test_two_accounts_of_one_registry(source: Registry, tmp_path: Path) -> None:
    """Each is for its own image, though both are on one host."""
    name, wrong = f"docker://{source.host}/app:v1", f"{USER}:wrong"
    authfile = tmp_path / "none.json"
    authfile.write_text("{}")
    access = Access.of(authfile=authfile)
    with pytest.raises(RegistryError, match="copy"):
        convert_image(
            name, f"{name[:-6]}copy:v2", access=access, src_creds=ACCOUNT, dest_creds=wrong
        )
    pair = (USER, PASSWORD)
    convert_image(name, f"{name[:-6]}copy:v2", access=access, src_creds=pair, dest_creds=pair)
    assert verify_image(name, access=access, creds=pair).ok
    with open_image(name, authfile=authfile, creds=pair) as image:
        assert PASSWORD not in repr(image)
    for creds in ("user", "", ("a", "b", "c"), ("", "x"), ("a:b", "c")):
        with pytest.raises(UsageError, match="'user:password'"):
            open_image(name, creds=creds)
    with access.client() as client:
        for other in {"client": client}, {"credentials": Credentials("a", "b")}:
            with pytest.raises(UsageError, match="no other account"):
                open_image(name, creds=pair, **other)
    with pytest.raises(UsageError, match="one registry"):
        bulk(str(authfile), "oci:x", src_creds=pair)


def test_they_override_the_authfile(source: Registry, tmp_path: Path) -> None:
    name = f"docker://{source.host}/app:v1"
    authfile = tmp_path / "auth.json"
    entry = {"username": USER, "password": "wrong"}
    authfile.write_text(json.dumps({"auths": {source.host: entry}}))
    fails(1, "image", "ls", name, "--authfile", authfile)
    ok("image", "ls", name, "--authfile", authfile, "--creds", ACCOUNT)


def test_no_other_host_gets_them(source: Registry, tmp_path: Path, env: dict[str, str]) -> None:
    """Neither a mirror, which asks for an account too, nor the registry of another image."""
    with FaultProxy(f"http://{source.host}") as proxy:
        mirror = ["--mirror", f"{source.host}={proxy.url}"]
        name = f"docker://{source.host}/app:v1"
        ok("image", "info", name, "--creds", ACCOUNT, *mirror, env=env)
        assert proxy.requests and not any("authorization" in one.headers for one in proxy.log)
        proxy.reset()
        there = f"docker://{proxy.url[7:]}/app:twin"
        words = ("image", "convert", "-q", name, there, "--src-creds", ACCOUNT)
        fails(1, *words, env=env)
        assert proxy.requests and not any("authorization" in one.headers for one in proxy.log)
        both = ("verify", name, there.replace("twin", "v1"), "--creds", ACCOUNT)
        assert "one registry" in fails(2, *both, env=env)


def test_mounted(source: Registry, tmp_path: Path, env: dict[str, str]) -> None:
    needs_fuse()
    target = tmp_path / "mnt"
    target.mkdir()
    words = (f"docker://{source.host}/app:v1", "--creds", ACCOUNT, "-q")
    with cli_mount(*words, directory=target, env=env):
        assert (target / "etc/hosts").read_text() == "localhost"
    assert "one --allow-host" in fails(2, "mount", target, "--local", tmp_path, "--creds", ACCOUNT)


def test_nothing_shows_them() -> None:
    access = Access.of().with_creds("host.example", ACCOUNT)
    assert PASSWORD not in repr(access) and "tester" not in repr(access)
    assert pickle.loads(pickle.dumps(access)) == access != Access.of()
    other = access.with_creds("other.example", "a:b").with_creds("other.example", "c:d")
    assert [host for host, _ in other.accounts] == ["host.example", "other.example"]
    assert other.accounts[1][1].password == "d"


# --- in names ---------------------------------------------------------------------------------

NAME = "docker://user:pa55@host.example/app:v1"
TABLE = [
    "image ls {}",
    "image cat {} a",
    "image info {}",
    "image find {}",
    "image du {}",
    "image tree {}",
    "image extract {} -C x",
    "find {} --layer 1",
    "image convert {} oci:x",
    "image convert oci:x {}",
    "image convert --upgrade {}",
    "image bulk {} oci:x",
    "image bulk oci:. {}",
    "image bulk docker://user:pa55@host.example oci:x",
    "image bulk docker://us.er:pa55@host.example oci:x",
    "image bulk oci:. docker://us.er:pa55@host.example",
    "verify {}",
    "verify {} --layer 1",
    "info {} --layer 1",
    "ls {} --layer 1",
    "cat {} --layer 1 a",
    "toc {} --layer 1",
    "extract {} --layer 1 -C x",
    "mount {} .",
    "mount {} . --layer 1",
    "mount . --allow-host user:pa55@host.example",
    "diff {} b --layer-a 1",
    "image diff {} b",
    "diff a {} --layer-b 1",
    "delta {} a -o x --layer-base 1",
    "convert {}",
]


def test_names_have_no_accounts(tmp_path: Path) -> None:
    stargz.convert(tar_of([]), tmp_path / "a")
    lines = [line.format(NAME) for line in TABLE]
    alone = [line for line in lines if line.startswith("mount")]  # it forks
    others = [line for line in lines if line not in alone]
    done = together(*(line.split() for line in others), cwd=tmp_path)
    told = {line: (code, said) for line, (code, _, said) in zip(others, done, strict=True)}
    told |= {line: (2, fails(2, *line.split(), cwd=tmp_path)) for line in alone}
    for line, (code, said) in told.items():
        assert code == 2 and said.count("\n") <= 1, (line, said)
        assert "pa55" not in said and "us.er" not in said and "user:" not in said, line
        assert "***@host.example" in said and "creds" in said and "podman login" in said, line


def test_lines_of_a_file(tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text(f"{NAME}\n{NAME[9:]}\noci:x {NAME}\n")
    done = run("image", "bulk", listed, "oci:x", "--state", tmp_path / "s", cwd=tmp_path)
    assert done.returncode == 1
    assert "pa55" not in done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("has no place in the name of an image") == 3


@pytest.mark.parametrize("typed", [f"{PASSWORD}\n", "\x04"], ids=["a password", "nothing"])
def test_a_terminal_is_asked_for_the_password(
    source: Registry, env: dict[str, str], typed: str
) -> None:
    words = command("image", "ls", f"docker://{source.host}/app:v1", "--creds", USER)
    pid, terminal = os.forkpty()
    if not pid:
        os.execve(words[0], words, environment(**env))
    shown = b""
    try:
        while b"Password of tester: " not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, typed.encode())
        with suppress(OSError):  # the terminal ends with the command
            while piece := os.read(terminal, 1000):
                shown += piece
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    if typed == "\x04":
        assert os.waitstatus_to_exitcode(status) == 2 and b"no password was given" in shown
    else:
        assert not status and b"etc" in shown and PASSWORD.encode() not in shown
