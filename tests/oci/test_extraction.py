"""Whole images below a directory: what their layers come to, of whatever kind those are."""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import blobs
import layouts
import pytest
import registries
import stacks
from command import fails, ok, run
from handmade import directory, hardlink, reg, symlink
from hypothesis import given, settings
from servers import FaultProxy
from trees import leftovers, snapshot

from stargz import errors
from stargz.oci.extraction import extract_image
from stargz.oci.formats.platforms import this_platform

ROOT = os.geteuid() == 0
HERE = str(this_platform())


def image(path: Path, layers: list[stacks.Layer], *, plain: bool = False) -> str:
    """A layout of one image, the lowest layer first; `plain`: not seekable."""
    layout = layouts.Layout(path)
    tars = map(stacks.as_tar, layers)
    made = [layout.plain_layer(tar) if plain else layout.layer(tar) for tar in tars]
    layout.tag(layout.manifest(made, platform=HERE))
    return f"oci:{path}"


def expected(layers: list[stacks.Layer]) -> dict[str, Any]:
    """Of every name: type, mode, owner, contents or target; and which are one file."""
    found = stacks.names_of(stacks.applied(layers))
    shape: dict[str, Any] = {}
    same: dict[int, list[str]] = {}
    for name, node in found.items():
        if not name or (node.kind == "char" and not ROOT):
            continue
        entry = node.entry or {"mode": 0o755}
        body = entry.get("content", b"") if node.kind == "reg" else entry.get("linkName")
        mode = None if node.kind == "symlink" else entry["mode"]
        owner = entry.get("uid", 0) if ROOT else None
        shape[name] = (node.kind, mode, owner, body)
        if node.kind != "dir":
            same.setdefault(id(node), []).append(name)
    shape["one file"] = sorted(sorted(names) for names in same.values() if len(names) > 1)
    return shape


def written(path: Path) -> dict[str, Any]:
    """The same of what is there."""
    kinds = {"d": "dir", "-": "reg", "l": "symlink", "p": "fifo", "c": "char"}
    shape: dict[str, Any] = {"one file": snapshot(path)["one file"]}
    for found in path.rglob("*"):
        info = found.lstat()
        kind = kinds[stat.filemode(info.st_mode)[0]]
        body: Any = None
        if kind == "reg":
            body = found.read_bytes()
        elif kind == "symlink":
            body = os.readlink(found)  # noqa: PTH115
        mode = None if kind == "symlink" else stat.S_IMODE(info.st_mode)
        name = str(found.relative_to(path))
        shape[name] = (kind, mode, info.st_uid if ROOT else None, body)
    return shape


@settings(max_examples=15, deadline=None)
@given(stacks.stacks())
def test_it_is_what_applying_the_layers_gives(layers: list[stacks.Layer]) -> None:
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        seekable = image(top / "seekable", layers)
        [result] = extract_image(seekable, top / "one", devices=ROOT, threads=2)
        assert written(top / "one") == expected(layers)
        assert (result.platform, result.verified) == (HERE, True)
        plain = image(top / "plain", layers, plain=True)
        [result] = extract_image(plain, top / "two", devices=ROOT, threads=2)
        assert written(top / "two") == expected(layers)
        assert result.verified
        assert not leftovers(top)


LAYERS = [
    [
        directory("etc", mode=0o755),
        reg("etc/a", b"lower"),
        reg("etc/gone", b"gone"),
        reg("secret/key", b"key"),
        directory("sealed", mode=0o755),
        reg("sealed/deep/file", b"file"),
        reg("target", b"shared"),
        hardlink("link", "target"),
        symlink("lib", "usr/lib"),
    ],
    [
        reg("etc/a", b"upper"),
        reg("etc/.wh.gone", b""),
        directory("secret", mode=0o700),
        directory("sealed", mode=0o500),
        reg("target", b"new"),
        reg("usr/lib/x.so", b"x"),
        reg("usr/share/locale/de", b"de"),
    ],
]


@pytest.fixture(params=["seekable", "ordinary"])
def src(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return image(tmp_path / request.param, LAYERS, plain=request.param == "ordinary")


def files(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_symlink() or p.is_file()}


def test_directories_are_those_of_the_uppermost_layer(src: str, tmp_path: Path) -> None:
    for _ in range(2):  # and once more, over what is sealed now
        extract_image(src, tmp_path / "out")
        assert written(tmp_path / "out") == expected(LAYERS)


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_sealed_directories_are_filled_without_privileges() -> None:
    layers = [
        [reg("ro/deep/f", b"f"), directory("none", mode=0o755), reg("none/x", b"x")],
        [directory("ro", mode=0o555), directory("ro/deep", mode=0o500), directory("none", mode=0)],
        [reg("ro/other", b"o"), reg("none/y/z", b"z")],
    ]

    def as_nobody(top: Path, src: str) -> None:
        for _ in range(2):  # the second time over what is sealed
            extract_image(src, top / "out", cache=False)
            modes = [stat.S_IMODE((top / "out" / n).stat().st_mode) for n in ("ro", "none")]
            assert modes == [0o555, 0]
            assert (top / "out/ro/deep").stat().st_mode & 0o777 == 0o500
            (top / "out/none").chmod(0o700)
            assert files(top / "out") == {"ro/deep/f", "ro/other", "none/x", "none/y/z"}

    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        src = image(top / "image", layers)
        top.chmod(0o777)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                as_nobody(top, src)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("members", "options", "names"),
    [
        (["etc"], {}, {"etc/a"}),
        (["lib/*.so"], {}, {"lib", "usr/lib/x.so"}),
        (["link", "target"], {}, {"link", "target"}),
        (None, {"exclude": ["/[lst]*", "etc", "share"]}, {"usr/lib/x.so"}),
        (["usr", "sealed"], {"exclude": "*locale*"}, {"usr/lib/x.so", "sealed/deep/file"}),
        (["usr"], {"strip_components": 2}, {"x.so", "locale/de"}),
    ],
)
def test_parts_of_an_image(
    members: list[str] | None, options: Any, names: set[str], src: str, tmp_path: Path
) -> None:
    extract_image(src, tmp_path / "out", members, **options)
    assert files(tmp_path / "out") == names


def test_what_is_not_in_an_image(src: str, tmp_path: Path) -> None:
    text = fails(1, "image", "extract", src, "etc/gone", "-C", tmp_path / "out")
    # An ordinary image is one that `image ls` does not list.
    hinted = re.search(r"'stargz (image ls -R \S+)' shows what there is", text)
    assert bool(hinted) == src.endswith("seekable")
    if hinted:
        ok(*hinted[1].split())
    assert not (tmp_path / "out").exists()
    text = fails(2, "image", "extract", src, "--all-platforms", "--platform", "arm64")
    assert "--all-platforms" in text


def test_verbose_and_json(src: str, tmp_path: Path) -> None:
    done = run("image", "extract", src, "etc", "-v", "--json", "-C", tmp_path / "out")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["platform"] == HERE
    assert result["digest"].startswith("sha256:")
    assert result["files"] == 1
    listed = {line for line in done.stderr.splitlines() if not line.startswith("stargz: ")}
    assert listed == {"etc/", "etc/a"}


def test_whiteouts_of_a_lone_layer_are_not_written(tmp_path: Path) -> None:
    only = [[reg("a/.wh.b", b""), reg("a/c", b"c")]]
    extract_image(image(tmp_path / "image", only), tmp_path / "out")
    assert files(tmp_path / "out") == {"a/c"}


# --- platforms --------------------------------------------------------------------------------


def several(path: Path, *, plain: bool = False, **changes: str) -> layouts.Layout:
    layout = layouts.Layout(path)
    made = []
    for platform in ("linux/amd64", "linux/arm64/v8"):
        tar = stacks.as_tar(
            [reg("etc/arch", platform.encode()), reg("etc/locale/de", b""), reg("bin/x", b"")]
        )
        layer = layout.plain_layer(tar) if plain else layout.layer(tar)
        made.append(layout.manifest([layer], platform=changes.get(platform, platform)))
    attestation = layout.manifest([], platform="unknown/unknown")
    layout.tag(layout.index([*made, attestation]))
    return layout


@pytest.mark.parametrize("plain", [False, True])
def test_etc_of_the_arm_variant_without_its_locale_files(plain: bool, tmp_path: Path) -> None:
    several(tmp_path / "image", plain=plain)
    src = f"oci:{tmp_path / 'image'}"
    out = tmp_path / "out"
    args = ["etc", "--platform", "linux/arm64", "--exclude", "*locale*", "-C", out]
    assert ok("image", "extract", src, *args).startswith("1 file, ")
    assert files(out) == {"etc/arch"}
    assert (out / "etc/arch").read_text() == "linux/arm64/v8"


def test_all_platforms(tmp_path: Path) -> None:
    several(tmp_path / "image")
    src = f"oci:{tmp_path / 'image'}"
    args = ["--all-platforms", "etc/arch", "--json", "-C", tmp_path / "out"]
    results = json.loads(ok("image", "extract", src, *args))
    assert [result["platform"] for result in results] == ["linux/amd64", "linux/arm64/v8"]
    assert files(tmp_path / "out") == {"linux-amd64/etc/arch", "linux-arm64-v8/etc/arch"}
    assert (tmp_path / "out/linux-arm64-v8/etc/arch").read_text() == "linux/arm64/v8"


def test_two_images_for_one_platform(tmp_path: Path) -> None:
    """Windows has several versions, podman several compressions; and names may be alike by -."""
    layout = layouts.Layout(tmp_path / "image")
    platforms = ["windows/amd64", "windows/amd64", "a-b/c", "a/b-c"]
    made = [
        layout.manifest([layout.layer(stacks.as_tar([reg(f"f{n}", b"")]))], platform=platform)
        for n, platform in enumerate(platforms)
    ]
    layout.tag(layout.index(made))
    out = tmp_path / "out"
    results = extract_image(f"oci:{tmp_path / 'image'}", out, all_platforms=True)
    second, fourth = (made[n]["digest"][7:19] for n in (1, 3))
    names = {"windows-amd64/f0", f"windows-amd64-{second}/f1", "a-b-c/f2", f"a-b-c-{fourth}/f3"}
    assert files(out) == names
    assert [result.platform for result in results] == platforms
    assert [result.digest for result in results] == [one["digest"] for one in made]


@pytest.mark.parametrize("plain", [False, True])
def test_all_platforms_or_none(plain: bool, tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "image")
    make = layout.plain_layer if plain else layout.layer
    entries = {"linux/amd64": [reg("etc/a", b"a"), reg("etc/b", b"b")]}
    entries["linux/arm64/v8"] = entries["linux/amd64"][:1]
    made = [
        layout.manifest([make(stacks.as_tar(held))], platform=platform)
        for platform, held in entries.items()
    ]
    layout.tag(layout.index(made))
    src, out = f"oci:{tmp_path / 'image'}", tmp_path / "out"
    text = fails(1, "image", "extract", src, "--all-platforms", "etc/a", "etc/b", "-C", out)
    assert f"{src} (linux/arm64/v8): no entry 'etc/b'" in text
    assert not out.exists()
    ok("image", "extract", src, "--all-platforms", "etc/a", "-C", out)
    assert files(out) == {"linux-amd64/etc/a", "linux-arm64-v8/etc/a"}


@pytest.mark.parametrize("plain", [False, True])
def test_a_tag_that_moves_does_not_mix_two_images(plain: bool, tmp_path: Path) -> None:
    layout = several(tmp_path / "image", plain=plain)
    other = [
        layout.manifest([layout.layer(stacks.as_tar([reg("etc/moved", b"")]))], platform=platform)
        for platform in ("linux/amd64", "linux/arm64/v8")
    ]

    def move(_: object) -> None:
        layout.retag(layout.index(other))

    extract_image(
        f"oci:{tmp_path / 'image'}", tmp_path / "out", ["etc/*"], all_platforms=True, written=move
    )
    names = {"etc/arch", "etc/locale/de"}
    assert files(tmp_path / "out") == {
        f"{platform}/{name}" for platform in ("linux-amd64", "linux-arm64-v8") for name in names
    }


def test_a_platform_does_not_lead_out(tmp_path: Path) -> None:
    several(tmp_path / "image", **{"linux/amd64": "../amd64"})
    with pytest.raises(errors.FormatError, match="names no directory"):
        extract_image(f"oci:{tmp_path / 'image'}", tmp_path / "out", all_platforms=True)
    assert not (tmp_path / "out").exists()


# --- failures ---------------------------------------------------------------------------------


def test_keep_going_says_which_layer(tmp_path: Path) -> None:
    first = [reg("a", b"a"), reg("b", b"b"), reg("bad", os.urandom(100_000))]
    src = image(tmp_path / "image", [first, [reg("c", b"c")]])
    [blob] = (p for p in (tmp_path / "image/blobs/sha256").iterdir() if p.stat().st_size > 99_000)
    with blob.open("r+b") as file:
        file.seek(50_000)
        file.write(b"wrong")
    (tmp_path / "out/a/below").mkdir(parents=True)
    done = run("image", "extract", src, "-C", tmp_path / "out", "--keep-going", "--json")
    assert done.returncode == 3
    refused, bad = json.loads(done.stdout)["errors"]
    assert (bad["name"], bad["layer"]) == ("bad", 1)
    assert f"stargz: {src}: layer 1 at offset {bad['offset']}: bad: " in done.stderr
    assert (refused["name"], refused["layer"]) == ("a", 1)
    assert f"stargz: {tmp_path / 'out/a'}: a directory that is not empty" in done.stderr
    assert files(tmp_path / "out") == {"b", "c"}


def test_a_layer_of_another_kind(tmp_path: Path) -> None:
    layout = layouts.Layout(tmp_path / "image")
    plain = layout.plain_layer(stacks.as_tar([reg("a", b"a")]))
    other = layout.blob(b"?", "application/vnd.oci.image.layer.v1.tar+encrypted")
    layout.tag(layout.manifest([plain, other], platform=HERE))
    text = fails(1, "image", "extract", f"oci:{tmp_path / 'image'}", "-C", tmp_path / "out")
    assert "layer 2 of 2" in text
    assert "tar+encrypted" in text


def test_a_spoilt_ordinary_layer(tmp_path: Path) -> None:
    src = image(tmp_path / "image", [[reg("a", b"a" * 1000)]], plain=True)
    blobs = sorted((tmp_path / "image/blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    for path in blobs:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    fails(3, "image", "extract", src, "-C", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("above", "told"),
    [
        ([[reg("other", b"")], [reg("bin/app/tool", b"tool")]], True),
        ([[directory("bin", mode=0o755), reg("bin/tool", b"tool")]], False),
        ([[reg(".wh.bin", b"")], [reg("bin/tool", b"tool")]], False),
        ([[reg("bin/tool", b"tool")], [reg(".wh.bin", b"")]], False),
        ([[reg("usr/bin/tool", b"tool")]], False),
    ],
)
def test_a_directory_in_the_place_of_a_link_below_is_told(
    plain: bool, above: list[stacks.Layer], told: bool, tmp_path: Path
) -> None:
    below = [reg("usr/bin/sh", b"sh"), symlink("bin", "usr/bin")]
    src = image(tmp_path / "image", [below, *above], plain=plain)
    done = run("image", "extract", src, "-C", tmp_path / "out")
    assert done.returncode == 0
    said = "layer 3 has files in 'bin', which a layer below has as a link to 'usr/bin'"
    assert (said in done.stderr) == told == ("warning" in done.stderr)
    assert written(tmp_path / "out") == expected([below, *above])


def unreadable(path: Path, *names: str) -> str:
    """An ordinary image of files with names that need not be UTF-8, in two layers."""
    layout = layouts.Layout(path)
    tars = [blobs.tar_of([(name, b"x")], tarfile.GNU_FORMAT) for name in names]
    layout.tag(layout.manifest(map(layout.plain_layer, tars), platform=HERE))
    return f"oci:{path}"


def test_names_that_are_not_utf8_are_told(tmp_path: Path) -> None:
    src = unreadable(tmp_path / "image", "a", "caf\udce9")
    done = run("image", "extract", src, "-C", tmp_path / "out")
    assert done.returncode == 0
    assert files(tmp_path / "out") == {"a", "caf\ufffd"}
    assert f"stargz: warning: {src}: 1 name" in done.stderr
    [result] = extract_image(src, tmp_path / "out")
    assert "not UTF-8" in result.warnings[0]
    again = json.loads(ok("image", "extract", src, "--json", "-C", tmp_path / "out"))
    assert again["warnings"] == list(result.warnings)


def test_names_that_become_alike_are_an_error_of_the_image(tmp_path: Path) -> None:
    src = unreadable(tmp_path / "image", "a", "caf\udce9", "caf\udce8")
    text = fails(1, "image", "extract", src, "-C", tmp_path / "out")
    assert text.startswith(f"{src}: its layers merged: ")
    assert "not UTF-8" in text and "umoci" in text and "offset" not in text
    assert not (tmp_path / "out").exists()


# --- from a registry ----------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_of_a_registry_what_is_needed(plain: bool, tmp_path: Path) -> None:
    noise = [
        [reg("big/noise", blobs.noise("n", 3 << 20)), reg("etc/a", b"a")],
        [reg("etc/b", b"b")],
    ]
    image(tmp_path / "image", noise, plain=plain)
    told: list[tuple[int, int]] = []
    with registries.registry(tmp_path / "registry") as served:
        served.push(tmp_path / "image", "some/image", "v1")
        with FaultProxy(f"http://{served.host}") as proxy:
            src = f"docker://127.0.0.1:{proxy.port}/some/image:v1"
            options = {"plain_http": True, "cache": False}
            extract_image(src, tmp_path / "etc", ["etc"], **options)
            fetched = proxy.bytes
            extract_image(
                src, tmp_path / "all", progress=lambda *at: told.append(at), threads=2, **options
            )
    assert files(tmp_path / "etc") == {"etc/a", "etc/b"}
    assert files(tmp_path / "all") == {"etc/a", "etc/b", "big/noise"}
    # An ordinary image has to be read as a whole.
    assert (fetched < 1 << 20) == (not plain)
    assert all(0 <= done <= total for done, total in told)
