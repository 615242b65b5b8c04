"""docs/json.md says what `--json` of every command prints: its keys are what is printed."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import blobs
import layouts
import pytest
from command import command, environment
from examples import ROOT, prepare
from mounts import clean_up, needs_fuse

from stargz.cli._parsers import commands

PAGE = (ROOT / "docs/json.md").read_text()
# What each is tried with, behind the exit code; `-1` is 1, and that nothing is printed.
CASES = {
    "convert": """
        0 layer.tar.gz new.stargz
        0 twice.tar new.tar.zst --format zstd:chunked
        0 layer.tar.gz kept.stargz --format external-toc
        0 layer.tar.gz prioritized.stargz --prioritize gone --allow-missing
        0 layer.tar.gz -
        -1 none never.stargz""",
    "pack": """
        0 tree tree.stargz
        0 tree again.stargz --base tree.stargz
        -1 gone never.stargz""",
    "index": """
        0 layer.tar.gz
        0 layer.tar.gz new.ztoc --format soci
        -1 broken.tar.gz""",
    "info": """
        0 layer.stargz
        0 layer.tar.gz --index old.index
        0 plain.tar.zst
        0 chunked.tar.zst
        0 apart.stargz
        0 apart.stargz --toc apart.stargz.toc
        0 oci:lazy --layer 1
        1 layer.stargz gone chunked.tar.zst
        -1 gone""",
    "ls": """
        0 -R odd.stargz
        -1 layer.stargz gone""",
    "find": """
        0 odd.stargz -type f
        0 layer.stargz -name gone
        -1 gone""",
    "tree": """
        0 odd.stargz
        -1 gone""",
    "image ls": """
        0 -R oci:lazy
        -1 oci:lazy gone""",
    "image find": """
        0 oci:pair:latest
        -1 oci:gone""",
    "image tree": """
        0 oci:lazy
        -1 oci:gone""",
    "du": """
        0 layer.stargz
        -1 layer.stargz gone""",
    "image du": """
        0 oci:lazy
        -1 oci:gone""",
    "cat": """
        0 layer.stargz etc/passwd
        -1 layer.stargz gone""",
    "image cat": """
        0 oci:lazy etc/passwd
        -1 oci:lazy gone""",
    "extract": """
        0 layer.stargz -C out
        3 damaged.stargz -C out --keep-going
        1 layer.stargz -C /proc --keep-going
        -3 damaged.stargz -C out""",
    "image extract": """
        0 oci:lazy -C root
        0 oci:layout -C whole
        0 oci:two -C both --all-platforms
        1 oci:pair:latest -C /proc --keep-going
        3 oci:damaged -C left --keep-going
        -3 oci:damaged -C left""",
    "verify": """
        0 layer.stargz
        0 chunked.tar.zst
        0 apart.stargz --toc apart.stargz.toc
        0 layer.tar.gz --index old.index
        3 damaged.stargz
        3 broken.tar.gz
        3 layer.stargz gone none
        -1 gone""",
    "verify IMAGE": """
        0 oci:lazy
        0 oci:apart:1
        0 oci:soci
        0 oci:two
        3 oci:damaged
        3 oci:lacking
        3 oci:lazy oci:damaged
        -1 oci:gone""",
    "toc": """
        0 layer.stargz
        0 layer.stargz --members
        -1 none""",
    "diff": """
        0 layer.stargz layer.stargz
        1 layer.stargz changed.stargz --exit-code
        -1 layer.stargz gone""",
    "image diff": """
        0 oci:lazy oci:changed-image
        -1 oci:lazy oci:gone""",
    "delta": """
        0 layer.stargz changed.stargz new.patch
        -1 layer.stargz gone never.patch""",
    "apply": """
        0 layer.stargz old.patch applied.stargz
        -1 layer.stargz none never.stargz""",
    "image convert": """
        0 oci:layout oci:once
        0 oci:lazy oci:once
        0 oci:layout oci:named:1 --format external-toc
        0 oci:layout oci:instances --both
        0 oci:pair:latest oci:one --flatten
        0 oci:pair:twice oci:plain --format zstd:chunked
        0 oci:signed:latest oci:unsigned
        -1 oci:gone oci:never""",
    "image index": """
        0 oci:layout oci:bound --min-layer-size 0
        0 oci:layout --soci-version 1 --min-layer-size 0
        0 oci:signed:latest oci:bound-too --min-layer-size 0
        0 oci:pair:latest oci:part --min-layer-size 1000
        -1 oci:gone oci:never""",
    "image bulk": """
        1 list oci:all --state first --dry-run
        1 list oci:all --state first --report all.json
        1 list oci:all --state first
        1 list oci:all --state first --dry-run
        1 list --index --soci-version 1 --min-layer-size 0 --state second --dry-run
        1 list --index --soci-version 1 --min-layer-size 0 --state second
        -1 tree oci:all""",
    "image info": """
        0 oci:lazy
        0 oci:layout
        0 oci:soci
        0 oci:apart:1
        0 oci:two
        -1 oci:gone""",
    "cache info": """
        0
        0 --cache-dir gone
        -1 --cache-dir none""",
    "cache prune": """
        0 --size 1G
        -1 --cache-dir none""",
    "mount": """
        0 layer.stargz mnt
        -1 gone mnt""",
}
NOT = {"demo", "bench"}  # they measure: their keys may change
# Objects whose keys are data; of a list, they are no such.
OPEN = {"annotations", "indexes", "options", "others", "skipped", "xattrs"}


class Row(NamedTuple):
    """A row of the page: the keys of a value, or of what is `inner` in it."""

    inner: str | None
    commands: tuple[str, ...]
    listed: bool
    keys: list[str]
    more: list[str]  # what only some have
    sometimes_listed: bool


def rows() -> Iterator[Row]:
    table = PAGE[PAGE.index("## By command") :]
    for cells in re.findall(r"^\| (`.*?`) \| (.+?) \| (.*?) ?\|$", table, re.M):
        name, keys, more = cells
        inner, _, of = name.rpartition(" of ")
        some = [one for part in more.split("; ") for one in words(part.partition(":")[0])]
        yield Row(
            inner.strip("`") or None,
            tuple(words(of)),
            keys.startswith("["),
            words(keys),
            [one for one in some if one != "[...]"],
            "[...]" in some,
        )


def words(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


ROWS = list(rows())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cases are of."""
    made = tmp_path_factory.mktemp("json")
    prepare(made)
    for name in ("tree", "mnt"):
        (made / name).mkdir()
    (made / "none").write_text("this is no layer")
    (made / "broken.tar.gz").write_bytes((made / "layer.tar.gz").read_bytes()[:1000])
    (made / "damaged.stargz").write_bytes(spoilt((made / "layer.stargz").read_bytes()))
    twice = blobs.tar_of([("a", b"1"), ("a", b"2")])
    (made / "twice.tar").write_bytes(twice)
    (made / "odd.tar").write_bytes(blobs.varied_tar())
    images(made, twice)
    prepared = """
        convert odd.tar odd.stargz
        convert twice.tar plain.tar.zst --format zstd:chunked
        convert layer.tar.gz chunked.tar.zst --format zstd:chunked
        convert layer.tar.gz apart.stargz --format external-toc
        extract layer.stargz -C changed
        index layer.tar.gz old.index
        delta layer.stargz layer.stargz old.patch
        image convert oci:layout oci:lazy
        image convert oci:layout oci:apart:1 --format external-toc
        image index oci:layout oci:soci --min-layer-size 0
        image convert oci:layout oci:damaged
        image convert oci:layout oci:lacking
    """
    for line in prepared.strip().splitlines():
        run(made, line)
    (made / "changed/etc/passwd").write_text("changed")
    (made / "changed/usr/bin/tool").chmod(0o600)
    run(made, "pack changed changed.stargz")
    with tarfile.open(made / "changed.tar", "w") as tar:
        tar.add(made / "changed", ".")
    layouts.image(made / "changed-image", [made / "changed.tar"])
    largest(made / "damaged").write_bytes(spoilt(largest(made / "damaged").read_bytes()))
    largest(made / "lacking").unlink()
    return made


def run(folder: Path, line: str) -> None:
    done = subprocess.run(command(*line.split()), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def spoilt(data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


def largest(layout: Path) -> Path:
    return max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)


def images(folder: Path, twice: bytes) -> None:
    """Layouts: of two layers, of two platforms, signed; and a list of images."""
    one, other = blobs.tar_of([("a", b"1")], mode=0), blobs.tar_of([("b", blobs.noise("b", 5000))])
    pair = layouts.Layout(folder / "pair")
    pair.tag(pair.manifest([pair.layer(one), pair.layer(other)]))
    pair.tag(pair.manifest([pair.plain_layer(twice)]), "twice")
    two = layouts.Layout(folder / "two")
    both = [two.manifest([two.layer(one)], platform=f"linux/{cpu}") for cpu in ("amd64", "arm64")]
    two.tag(two.index(both))
    signed = layouts.Layout(folder / "signed")
    image = signed.manifest([signed.plain_layer(one)])
    signed.tag(image)
    signed.tag(image, image["digest"].replace(":", "-") + ".sig")
    cache = layouts.Layout(folder / "cache")
    cached = cache.blob(b"{}", "application/vnd.buildkit.cacheconfig.v0")
    cache.tag(cache.index([cache.plain_layer(one), cached]))
    names = "oci:layout oci:lazy oci:signed:latest oci:cache oci:pair:twice oci:gone"
    (folder / "list").write_text("\n".join(names.split()))


@pytest.fixture(scope="module")
def printed(folder: Path) -> Callable[[str], list[Any]]:
    """What a command prints, of each of its cases; None for nothing."""
    known: dict[str, list[Any]] = {}

    def of(name: str) -> list[Any]:
        if name not in known:
            if name == "mount":
                needs_fuse()
            try:
                known[name] = [one(folder, name, case) for case in CASES[name].strip().split("\n")]
            finally:
                clean_up(folder / "mnt")
        return known[name]

    return of


def one(folder: Path, name: str, case: str) -> Any:
    code, *arguments = case.split()
    line = [*re.sub(r" [A-Z]+$", "", name).split(), *arguments, "--json"]
    env = environment(XDG_CACHE_HOME=str(folder / "cache-home"))
    done = subprocess.run(command(*line), cwd=folder, env=env, capture_output=True)
    assert done.returncode == abs(int(code)), (line, done.stderr)
    if code.startswith("-"):
        assert done.stdout == b"" and done.stderr.startswith(b"stargz: "), line
        return None
    data_on_stdout = name in ("cat", "image cat", "toc") or "-" in arguments
    return json.loads(done.stderr if data_on_stdout else done.stdout)


def objects(value: Any, inner: str | None = None) -> Iterator[tuple[str | None, bool, list[str]]]:
    """Every object in a value: what it is, whether in a list, and its keys."""
    listed = isinstance(value, list)
    for found in value if listed else [value]:
        if not isinstance(found, dict):
            continue
        if inner not in OPEN or listed:
            yield inner, listed, list(found)
        for key, more in found.items():
            if key not in OPEN or isinstance(more, list):
                yield from objects(more, key)


def test_every_command_is_on_the_page() -> None:
    listed = [name for row in ROWS for name in row.commands if row.inner is None]
    assert sorted(listed) == sorted(CASES)
    every = {one.name for one in commands() if one.name and one.commands is None}
    assert every - NOT == {re.sub(r" [A-Z]+$", "", name) for name in listed}


@pytest.mark.parametrize(
    "row", ROWS, ids=[f"{row.inner or 'all'} of {row.commands[0]}" for row in ROWS]
)
def test_keys(row: Row, printed: Callable[[str], list[Any]]) -> None:
    """All have those of a row, in that order, and some what is told of apart."""
    found = [
        (listed, keys)
        for name in row.commands
        for value in printed(name)
        for inner, listed, keys in objects(value)
        if inner == row.inner
    ]
    assert found
    always = [key for key in found[0][1] if all(key in keys for _, keys in found)]
    sometimes = {key for _, keys in found for key in keys} - set(always)
    assert (row.keys, sorted(row.more)) == (always, sorted(sometimes))
    assert {listed for listed, _ in found} == ({row.listed} | ({True} & {row.sometimes_listed}))


@pytest.mark.parametrize("name", CASES)
def test_all_that_is_printed_is_on_the_page(name: str, printed: Callable[[str], list[Any]]) -> None:
    seen = {inner for value in printed(name) for inner, _, _ in objects(value)}
    told = {row.inner for row in ROWS if name in row.commands}
    assert seen == told


def test_a_report_has_what_is_printed(folder: Path, printed: Callable[[str], list[Any]]) -> None:
    """And all images; as the page says below the table."""
    (row,) = (one for one in ROWS if one.commands == ("image bulk",) and one.inner is None)
    (made,) = (one for one in ROWS if (one.inner, *one.commands) == ("layers", "image convert"))
    printed("image bulk")
    report = json.loads((folder / "all.json").read_text())
    assert sorted([*report, "dry_run"]) == sorted([*row.keys, "version", "images"])
    layers = [layer for image in report["images"] for layer in image["layers"]]
    assert layers and all(list(layer) == made.keys for layer in layers)
