"""Which images a bulk run finds, and where their twins go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import blobs
import fleets
import layouts
import pytest
import registries
from command import fails, run
from registries import Registry
from servers import FaultProxy, closed_port

from stargz.errors import RegistryError, SourceError, UsageError
from stargz.oci.bulk.discover import Pair, discover
from stargz.oci.bulk.patterns import Filter

HEX = "a" * 64
IMAGES = range(4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleets.layout(tmp_path_factory.mktemp("fleet") / "layouts", IMAGES, size=10)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Registry]:
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        for number in IMAGES:
            served.push(folder / fleets.name(number), fleets.name(number), "v1")
        served.push(folder / fleets.name(0), fleets.name(0), "v2")
        # What is found by the digest of another image is not an image of its own.
        for tag in (f"sha256-{HEX}.sig", f"sha256-{HEX}", "v1-esgztoc"):
            served.push(folder / fleets.name(0), fleets.name(0), tag)
        yield served


def find(
    src: object,
    dst: str | None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    **options: Any,
) -> list[Pair]:
    chosen = Filter(include, exclude)
    with registries.quick() as client:
        return list(discover(str(src), dst, client=client, chosen=chosen, **options))


def names(pairs: list[Pair]) -> list[tuple[str, str]]:
    assert not [pair for pair in pairs if pair.error]
    return sorted((pair.source, pair.destination) for pair in pairs)


TAGS = [
    ("team0/app00", "v1"),
    ("team0/app00", "v2"),
    ("team0/app02", "v1"),
    ("team1/app01", "v1"),
    ("team1/app03", "v1"),
]


@pytest.mark.parametrize(
    ("dst", "root"),
    [
        ("docker://other.example", "docker://other.example"),
        ("docker://other.example/", "docker://other.example"),
        ("docker://other.example/a/b", "docker://other.example/a/b"),
        ("docker://localhost:5000", "docker://localhost:5000"),
        ("oci:some/where", "oci:some/where"),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_registry(served: Registry, dst: str, root: str, slash: str) -> None:
    assert names(find(f"docker://{served.host}{slash}", dst)) == [
        (f"docker://{served.host}/{name}:{tag}", f"{root}/{name}:{tag}") for name, tag in TAGS
    ]


def test_a_storage_folder(served: Registry) -> None:
    wanted = [
        (f"storage:{served.storage}//{name}:{tag}", f"oci:out/{name}:{tag}") for name, tag in TAGS
    ]
    for src in (served.storage, f"storage:{served.storage}//", f"storage:{served.storage}"):
        assert names(find(src, "oci:out")) == wanted
    one = f"storage:{served.storage}//team0/app02"
    assert names(find(one, "docker://h.example/x")) == [(f"{one}:v1", "docker://h.example/x:v1")]
    assert names(find(f"{one}:v1", "oci:x:y")) == [(f"{one}:v1", "oci:x:y")]


@pytest.mark.parametrize(
    ("dst", "made"),
    [
        ("docker://other.example/repo2", "docker://other.example/repo2"),
        ("docker://other.example", "docker://other.example/team0/app00"),
        ("docker://other.example/up/", "docker://other.example/up/team0/app00"),
        ("oci:dir", "oci:dir"),
        ("oci:dir/", "oci:dir/team0/app00"),
    ],
)
def test_one_repository(served: Registry, dst: str, made: str) -> None:
    src = f"docker://{served.host}/team0/app00"
    assert names(find(src, dst)) == [(f"{src}:{tag}", f"{made}:{tag}") for tag in ("v1", "v2")]
    assert names(find(f"{src}:v2", dst)) == [(f"{src}:v2", f"{made}:v2")]


def test_one_image_with_another_tag(served: Registry) -> None:
    src = f"docker://{served.host}/team0/app00:v2"
    there = f"docker://{served.host}/team0/app00:v2-esgz"
    assert names(find(src, there)) == [(src, there)]
    assert names(find(src, "oci:d:ref")) == [(src, "oci:d:ref")]
    by_digest = f"docker://{served.host}/team0/app00@sha256:{HEX}"
    assert names(find(by_digest, "oci:d")) == [(by_digest, f"oci:d:sha256.{HEX}")]


def test_upgrade(served: Registry, folder: Path) -> None:
    for src in (f"docker://{served.host}", folder):
        pairs = find(src, None, upgrade=True)
        assert len(pairs) >= len(IMAGES)
        assert all(pair.source == pair.destination and not pair.error for pair in pairs)


def test_a_folder_of_layouts(folder: Path) -> None:
    wanted = sorted(
        (f"oci:{folder / name}:v1", f"docker://h.example/p/{name}:v1")
        for name in map(fleets.name, IMAGES)
    )
    for src in (folder, f"oci:{folder}"):
        assert names(find(src, "docker://h.example/p")) == wanted
    one = folder / fleets.name(1)
    for src in (one, f"oci:{one}", f"oci:{one}:v1"):
        assert names(find(src, "oci:d")) == [(f"oci:{one}:v1", "oci:d:v1")]
        assert names(find(src, "docker://h.example/")) == [
            (f"oci:{one}:v1", "docker://h.example/app01:v1")
        ]


def test_the_names_in_a_layout(tmp_path: Path) -> None:
    made = layouts.Layout(tmp_path / "all" / "app")
    images = [made.manifest([made.plain_layer(blobs.tar_of([(name, b"")]))]) for name in "abc"]
    made.tag(images[0], "docker.io/library/app:1.0")
    made.tag(images[1], "no tag at all!")
    nameless = layouts.Layout(tmp_path / "all" / "nameless")
    entry = nameless.manifest([nameless.plain_layer(blobs.tar_of([("x", b"")]))])
    nameless.tag(entry, None)
    several = layouts.Layout(tmp_path / "all" / "several")
    for name in "ab":
        one = several.manifest([several.plain_layer(blobs.tar_of([(name, b"")]))])
        del one["platform"]
        several.tag(one, None)
    digests = [found["digest"] for found in fleets.of_layout(several.path)["manifests"]]
    pairs = find(tmp_path / "all", "oci:d")
    good = [(pair.source, pair.destination) for pair in pairs if not pair.error]
    assert good == [
        (f"oci:{made.path}:docker.io/library/app:1.0", "oci:d/app:1.0"),
        (f"oci:{nameless.path}", "oci:d/nameless:latest"),
        *(
            (f"oci:{several.path}:{one}", f"oci:d/several:{one.replace(':', '.')}")
            for one in digests
        ),
    ]
    (bad,) = (pair for pair in pairs if pair.error)
    assert "no tag at all!" in str(bad.error)


def test_a_layout_that_is_broken_fails_alone(tmp_path: Path) -> None:
    fleets.layout(tmp_path, range(2), size=10)
    (tmp_path / fleets.name(0) / "index.json").write_text("{")
    bad, good = find(tmp_path, "oci:d")
    assert bad.source == f"oci:{tmp_path / fleets.name(0)}" and "not JSON" in str(bad.error)
    assert good.destination == f"oci:d/{fleets.name(1)}:v1"


def test_a_file(tmp_path: Path, folder: Path) -> None:
    one = folder / fleets.name(1)
    listed = tmp_path / "images.txt"
    listed.write_text(
        f"""# comment
host.example/a:1   # behind
docker://host.example/b/c
host.example/d@sha256:{HEX}
host.example/e:2@sha256:{HEX}

debian:12 other.example/mine
host.example/f:1 docker://other.example/mine:f
host.example/g:1 oci:my-layout
oci:{one}:v1
docker-archive:/tmp/saved.tar:app:3
storage:/srv/registry//g/h:4
"""
    )
    pairs = find(listed, "docker://h.example/p")
    assert [(pair.source, pair.destination) for pair in pairs if not pair.error] == [
        ("docker://host.example/a:1", "docker://h.example/p/a:1"),
        ("docker://host.example/b/c:latest", "docker://h.example/p/b/c:latest"),
        (f"docker://host.example/d@sha256:{HEX}", f"docker://h.example/p/d:sha256.{HEX}"),
        (f"docker://host.example/e:2@sha256:{HEX}", "docker://h.example/p/e:2"),
        ("docker://docker.io/library/debian:12", "docker://other.example/mine:12"),
        ("docker://host.example/f:1", "docker://other.example/mine:f"),
        ("docker://host.example/g:1", "oci:my-layout:1"),
        (f"oci:{one}:v1", "docker://h.example/p/app01:v1"),
        ("docker-archive:/tmp/saved.tar:app:3", "docker://h.example/p/saved:3"),
        ("storage:/srv/registry//g/h:4", "docker://h.example/p/g/h:4"),
    ]


def test_bad_lines_fail_alone(tmp_path: Path) -> None:
    listed = tmp_path / "images.txt"
    listed.write_text(
        f"""host.example/UPPER:1
host.example/same:1 host.example/same:1
host.example/a:1
host.example/b:1 other.example/b@sha256:{HEX}
host.example/c:1 other.example/c:1
"""
    )
    pairs = find(listed, None)
    texts = [str(pair.error) for pair in pairs]
    assert "line 1" in texts[0] and "UPPER" in texts[0]
    assert "the same" in texts[1]
    assert "no DST" in texts[2]
    assert "line 4" in texts[3] and "digest" in texts[3]
    assert pairs[4] == Pair("docker://host.example/c:1", "docker://other.example/c:1")
    assert [str(one.error) for one in find(listed, None, upgrade=True)[2:3]] == ["None"]


def test_what_is_no_list(tmp_path: Path) -> None:
    binary = tmp_path / "layer.tar.gz"
    binary.write_bytes(blobs.noise("binary", 100_000))
    with pytest.raises(UsageError, match="is it the right file"):
        find(binary, "oci:d")


def test_patterns(served: Registry) -> None:
    def chosen(*include: str, exclude: tuple[str, ...] = ()) -> list[str]:
        pairs = find(f"docker://{served.host}", "oci:d", include=include, exclude=exclude)
        return [pair.destination.removeprefix("oci:d/") for pair in pairs]

    assert chosen("team0/*") == ["team0/app00:v1", "team0/app00:v2", "team0/app02:v1"]
    assert chosen("*:v2") == ["team0/app00:v2"]
    assert chosen("*/app0[13]", "*:v2") == ["team0/app00:v2", "team1/app01:v1", "team1/app03:v1"]
    assert chosen(exclude=("team0/*", "*3:v?")) == ["team1/app01:v1"]
    assert chosen("team1/*", exclude=("*/app01",)) == ["team1/app03:v1"]
    assert chosen("nothing") == []
    # Without a colon it may be the tag, or both.
    assert chosen("v2") == chosen("*2:v?", "*0:v2")[:1] == ["team0/app00:v2"]
    assert chosen("team0*v2") == ["team0/app00:v2"]
    assert chosen(exclude=("*1",)) == ["team0/app00:v2"]
    assert chosen("*1", exclude=("*app01",)) == [
        "team0/app00:v1",
        "team0/app02:v1",
        "team1/app03:v1",
    ]


def test_patterns_that_match_nothing(served: Registry) -> None:
    chosen = Filter(["team1/*", "*:v9"], ["v1", "*app01", "other/*:*", "*lazy*"])
    with registries.quick() as client:
        assert not list(discover(f"docker://{served.host}", "oci:d", client=client, chosen=chosen))
    assert list(chosen.unused()) == [
        "--include '*:v9' matches no image",
        "--exclude 'other/*:*' matches no image",
        "--exclude '*lazy*' matches no image",
    ]


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_what_is_included_and_matches_no_image_is_an_error(
    served: Registry, tmp_path: Path, dry: list[str]
) -> None:
    src, host = f"docker://{served.host}", served.host

    def said(*words: object, src: str = src) -> str:
        state = ("--state", tmp_path / "state")
        return fails(1, "image", "bulk", src, f"oci:{tmp_path}/out", *state, *dry, *words)

    assert "no image is chosen: --include 'team' matches no image" in said("--include", "team")
    both = said("--include", "none/*", "--include", "*:v9")
    assert "'none/*' matches no image; --include '*:v9' matches no image" in both
    hint = "(patterns are without the registry: 'team0/*')"
    for name in (f"{host}/team0/*", f"docker://{host}/team0/*"):
        assert hint in said("--include", name)
        assert hint in said("--include", name, src=f"{src}/team0/app00")
    left_out = said("--include", "team0/*", "--exclude", "*")
    assert "--exclude leaves out what --include 'team0/*' may match" in left_out
    assert not (tmp_path / "out").exists()
    # What matches beside it makes it a warning.
    words = ("--include", "team", "--include", "*:v2", "--dry-run")
    done = run("image", "bulk", src, f"oci:{tmp_path}/out", *words)
    assert done.returncode == 0 and "--include 'team' matches no image" in done.stderr


def test_patterns_that_are_none(served: Registry) -> None:
    def chosen(text: str) -> None:
        find(f"docker://{served.host}", "oci:d", include=[text])

    for text in ("", ":", "a:", ":b"):
        with pytest.raises(UsageError, match="not a pattern"):
            chosen(text)


def test_repositories_that_are_excluded_are_not_asked_for(served: Registry) -> None:
    with FaultProxy(f"http://{served.host}") as proxy:
        host = proxy.url.partition("://")[2]
        find(f"docker://{host}", "oci:d", include=["team1/*:v1"], exclude=["*/app03"])
        assert [one.path.partition("?")[0] for one in proxy.log if "tags" in one.path] == [
            "/v2/team1/app01/tags/list"
        ]


def test_found_as_it_goes(served: Registry) -> None:
    """The tags of all repositories are not read before the first image comes."""
    with FaultProxy(f"http://{served.host}") as proxy, registries.quick() as client:
        host = proxy.url.partition("://")[2]
        found = discover(f"docker://{host}", "oci:d", client=client)
        assert proxy.requests == 0
        next(found)
        assert 0 < proxy.requests <= 7
        found.close()


def test_what_was_made_below_the_source_is_left_out(served: Registry, folder: Path) -> None:
    registry = f"docker://{served.host}"
    assert len(find(registry, f"{registry}/team1")) == 3
    assert len(find(folder, f"oci:{folder}/team1")) == 2


@pytest.mark.parametrize(
    ("src", "dst", "match"),
    [
        ("docker://h.example", "docker://h.example", "the same place"),
        ("docker://h.example/", "docker://h.example", "the same place"),
        ("docker://h.example/a:1", "docker://h.example/a", "the same place"),
        ("docker://h.example/a:1", "docker://h.example/a:1", "the same place"),
        ("docker://h.example/a", "docker://h.example", "the same place"),
        ("docker://h.example", "docker://g.example/a:1", "for one image only"),
        ("docker://h.example", f"docker://g.example/a@sha256:{HEX}", "digest"),
        ("docker://h.example", "oci:dir:ref", "for one image only"),
        ("docker://h.example", "docker-archive:x.tar", "not a destination"),
        ("docker://h.example", "somewhere", "not a destination"),
        ("docker://h.example", None, "DST is needed"),
        ("docker://h.example/UPPER", "oci:d", "lower case"),
        ("docker-archive:x.tar", "oci:d", "archive is converted with"),
        ("registry.example:5000", "oci:d", "docker://registry.example:5000"),
    ],
)
def test_refused_before_anything(src: str, dst: str | None, match: str) -> None:
    with registries.quick() as client, pytest.raises(UsageError, match=match):
        discover(src, dst, client=client)


def test_refused_with_upgrade(folder: Path, served: Registry) -> None:
    with pytest.raises(UsageError, match="leave DST out"):
        find(folder, "oci:d", upgrade=True)
    with pytest.raises(UsageError, match="only read"):
        find(served.storage, None, upgrade=True)
    with pytest.raises(UsageError, match="the same place"):
        find(folder, f"oci:{folder}/../{folder.name}")


def test_sources_that_are_not_there(tmp_path: Path, served: Registry) -> None:
    for src in (tmp_path / "no", f"oci:{tmp_path / 'no'}", tmp_path, f"storage:{tmp_path}//"):
        with pytest.raises(SourceError, match=str(tmp_path)):
            find(src, "oci:d")
    with pytest.raises(RegistryError, match="127"):
        find(f"docker://127.0.0.1:{closed_port()}", "oci:d")
    with pytest.raises(RegistryError, match="no/such"):
        find(f"docker://{served.host}/no/such", "oci:d")


def test_names_that_a_layout_cannot_have(tmp_path: Path) -> None:
    made = layouts.Layout(tmp_path / "a" / "index.json")
    made.tag(made.manifest([made.plain_layer(blobs.tar_of([("x", b"")]))]), "v1")
    (pair,) = find(tmp_path, "oci:d")
    assert "cannot be the folder" in str(pair.error)
    upper = layouts.Layout(tmp_path / "b" / "UPPER")
    upper.tag(upper.manifest([upper.plain_layer(blobs.tar_of([("x", b"")]))]), "v1")
    assert "lower case" in str(find(tmp_path / "b", "docker://h.example/p")[0].error)
