"""Headers that readers take differently: the layer says the same to all of them, or says so."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import handmade
import pytest
from test_tar_doors import (
    ABC,
    END,
    GNU,
    GNU_PREFIX,
    block,
    extended,
    octal,
    padded,
    pax,
    record,
)

import stargz
from stargz.conversion import ConvertResult
from stargz.errors import TarError

BEHIND = block(b"behind") + ABC
LINK = block(b"l", octal(0), b"2", a157=b"to")
# The entries, what they are called, and what is noted on them.
DIFFERENT: dict[str, tuple[bytes, list[str], str]] = {
    "prefix in a GNU header": (GNU_PREFIX + ABC, ["some/where/f"], "prefix in a GNU header"),
    "two PAX headers": (pax(path="a") + pax(path="b") + LINK, ["b"], "two extended headers"),
    "the second without": (pax(path="a") + pax(uid=5) + LINK, ["l"], "two extended headers"),
    "two GNU names": (extended(b"L", b"a") + extended(b"L", b"b") + LINK, ["b"], "two extended"),
    "two GNU links": (extended(b"K", b"a") + extended(b"K", b"b") + LINK, ["l"], "two extended"),
    "Solaris": (extended(b"X", record("path", "p")) + LINK, ["p"], "Solaris"),
    "incremental": (block(b"d", octal(1024), b"D") + BEHIND, ["d"], "incremental"),
    "empty path": (pax(path="") + LINK, ["l"], "empty PAX records"),
    "empty size": (pax(size="") + block() + ABC, ["f"], "empty PAX records"),
    "empty GNU name": (extended(b"L", b"\0") + LINK, ["l"], "empty PAX records"),
    "directory with a size": (block(b"d", octal(1024), b"5") + BEHIND, ["d", "behind"], "a size"),
    "old directory with a size": (block(b"d/", kind=b"\0") + BEHIND, ["d", "behind"], "a size"),
    "link with a size": (block(b"l", kind=b"2", a157=b"to") + BEHIND, ["l", "behind"], "a size"),
    "link with a PAX size": (pax(size=9) + LINK + BEHIND, ["l", "behind"], "a size"),
    "file with a slash": (block(b"d/", octal(0)), ["d"], "file has a slash behind"),
    "sizes": (pax(size=3) + block(size=octal(1024)) + ABC, ["f"], "another size"),
    "uid of 33 bits": (pax(uid=(1 << 32) + 5) + LINK, ["l"], "owner is"),
}


def made(tar: bytes, **options: bool) -> tuple[bytes, ConvertResult]:
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(tar), out, threads=1, **options)
    return out.getvalue(), result


@pytest.mark.parametrize("name", DIFFERENT)
def test_new_headers_say_the_same_to_all(name: str, tool: Callable[[str], str]) -> None:
    tar, names, note = DIFFERENT[name]
    blob, result = made(tar + END)
    assert [note in text for text in result.warnings] == [True]
    plain = gzip.decompress(blob)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert [m.name for m in archive if "landmark" not in m.name][:-1] == names
    listed = subprocess.run([tool("tar"), "-t"], input=plain, capture_output=True, check=True)
    found = [text.rstrip("/") for text in listed.stdout.decode().splitlines()]
    assert [text for text in found if "landmark" not in text][:-1] == names
    with stargz.open(blob) as layer:
        assert set(names) <= set(layer.names())
        found = layer.verify()
    assert found.ok and not found.warnings
    again, result = made(plain)
    assert again == blob and not result.warnings


@pytest.mark.parametrize("name", DIFFERENT)
def test_headers_that_are_kept_are_noted_by_verify(name: str) -> None:
    tar, names, note = DIFFERENT[name]
    blob, result = made(tar + END, lossless=True)
    assert gzip.decompress(blob).startswith(tar)
    with stargz.open(blob) as layer:
        assert set(layer.names()) == set(names)
        found = layer.verify()
    assert found.ok
    assert [note in text for text in found.warnings] == [True]
    assert found.warnings == result.warnings
    assert f"(the first: '{names[0]}" in found.warnings[0]


def test_global_headers_are_noted_where_they_stay() -> None:
    tar = extended(b"g", record("uid", "7") + record("comment", "c")) + LINK + LINK + END
    assert made(tar)[1].warnings == ()
    blob, result = made(tar, lossless=True)
    assert [text.split()[:2] for text in result.warnings] == [["2", "entries"]]
    with stargz.open(blob) as layer:
        assert layer.verify().warnings == result.warnings
    only_comments = extended(b"g", record("comment", "c")) + LINK + END
    assert made(only_comments, lossless=True)[1].warnings == ()


@pytest.mark.parametrize(
    ("tar", "says"),
    [
        (block(b"d/", octal(1024)) + BEHIND, "'d/': a file with the name of a directory"),
        (block(b"d/", octal(1024), b"7") + BEHIND, "'d/': a file with the name of a directory"),
        (pax(path="d/") + block(size=octal(1024)) + BEHIND, "'d/': a file with the name"),
        (extended(b"L", b"d/") + block(size=octal(1024)) + BEHIND, "'d/': a file with the name"),
        (pax(path="d/", size=1024) + block(size=octal(0)) + BEHIND, "'d/': a file with the name"),
        (pax(path="a") + extended(b"L", b"b") + block() + ABC, "'a': its name in the PAX header"),
        (extended(b"L", b"b") + pax(path="a") + block() + ABC, "'a': its name in the PAX header"),
        (pax(linkpath="a") + extended(b"K", b"b") + LINK, "'l': its target in the PAX header"),
    ],
)
def test_trees_that_differ_are_refused_and_verify_tells(tar: bytes, says: str) -> None:
    with pytest.raises(TarError, match=says):
        made(tar + END)


@pytest.mark.parametrize("format", [GNU, b"ustar\x0000"])
@pytest.mark.parametrize(
    ("value", "taken", "mode"),
    [
        (-2, (1 << 32) - 2, 0o6755),
        (-(1 << 32), 0, 0o6755),
        (-(1 << 32) - 1, 65534, 0o755),
        ((1 << 32) + 5, 5, 0o6755),
        ((1 << 33) - 1, (1 << 32) - 1, 0o6755),
        (1 << 33, 65534, 0o755),
        (1 << 50, 65534, 0o755),
    ],
)
@pytest.mark.parametrize("field", ["uid", "gid"])
def test_owners(format: bytes, value: int, taken: int, mode: int, field: str) -> None:
    at = {"uid": "a108", "gid": "a116"}[field]
    raw = ((value & ((1 << 64) - 1)) | 1 << 63).to_bytes(8, "big")
    by_header = block(magic=format, **{at: raw, "a100": b"0006755\0"}) + ABC + END
    by_pax = pax(**{field: value}) + block(magic=format, a100=b"0006755\0") + ABC + END
    for tar in (by_header, by_pax):
        for lossless in (False, True):
            blob, result = made(tar, lossless=lossless)
            assert [text.split()[:2] for text in result.warnings] == [["1", "owner"]]
            with stargz.open(blob) as layer:
                entry = layer.entry("f")
                assert (getattr(entry, field), entry.mode) == (taken, mode)
                assert layer.verify().ok


@pytest.mark.parametrize("year", [0, 10000, 1 << 30])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_odd_time(year: int, sign: int) -> None:
    seconds = sign * (year * 31556952) if year else -62135596801
    seconds = max(seconds, -(1 << 63))
    raw = ((seconds & ((1 << 96) - 1)) | 1 << 95).to_bytes(12, "big")
    odd = block(b"odd", a136=raw) + ABC
    other = pax(mtime=f"{seconds}.25") + block(b"other") + ABC
    blob, result = made(odd + other + block(b"good", a136=octal(7)) + ABC + END)
    assert [text.split()[:2] for text in result.warnings] == [["2", "times"]]
    with stargz.open(blob) as layer:
        times = {name: layer.entry(name).mtime for name in ("odd", "other", "good")}
        assert times == {"odd": 0, "other": 0, "good": 7}
        assert layer.verify().ok
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as archive:
        kept = {m.name: m.mtime for m in archive}
    assert kept["odd"] == seconds and kept["other"] == pytest.approx(seconds)


XATTRS = {"user.a=b": b"1", "user.p%3Dq": b"2", "user.%": b"3", "user.a0": b"4", "user.==%25": b"5"}


def noted(warnings: tuple[str, ...]) -> bool:
    return ["xattrs with % or =" in text for text in warnings] == [True]


def test_names_of_xattrs_that_tars_escape(tool: Callable[[str], str], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "f").write_bytes(b"x")
    try:
        for key, value in XATTRS.items():
            os.setxattr(folder / "f", key, value)
    except OSError as error:
        pytest.skip(f"this file system has no user xattrs: {error}")
    options = ["--xattrs", "--xattrs-include=user.*"]
    packed, base, converted = (tmp_path / name for name in ("packed", "base", "converted"))
    assert noted(stargz.pack(folder, packed).warnings)
    tar = tmp_path / "tar"
    subprocess.run([tool("tar"), *options, "-cf", tar, "-C", folder, "f"], check=True)
    assert noted(stargz.convert(tar, converted).warnings)
    stargz.pack(folder, base, base=packed)
    assert base.read_bytes() == packed.read_bytes()
    for blob in (packed, converted):
        with stargz.open(blob) as layer:
            found = layer.entry("f").xattrs
            assert {key: found[key] for key in XATTRS} == XATTRS
            assert layer.verify().ok
        out = tmp_path / f"{blob.name}.d"
        out.mkdir()
        plain = gzip.decompress(blob.read_bytes())
        subprocess.run([tool("tar"), *options, "-xf", "-", "-C", out], input=plain, check=True)
        assert {key: os.getxattr(out / "f", key) for key in XATTRS} == XATTRS


def test_what_is_no_escape_stays() -> None:
    body = b"".join(
        record("SCHILY.xattr." + key, "v") for key in ("user.%3d", "user.%", "user.%2", "user.%41")
    )
    blob, result = made(extended(b"x", body) + block() + ABC + END)
    assert result.warnings == ()
    with stargz.open(blob) as layer:
        assert sorted(layer.entry("f").xattrs) == ["user.%", "user.%2", "user.%3d", "user.%41"]


@pytest.mark.parametrize(("value", "ok"), [(b"1", True), (b"2", False)])
def test_verify_takes_escaped_names_as_other_writers_leave_them(value: bytes, ok: bool) -> None:
    keys = record("SCHILY.xattr.user.a%3Db", "1") + record("SCHILY.xattr.user.a0", "3")
    blob, _ = made(extended(b"x", keys) + LINK + END)
    with stargz.open(blob) as layer:
        at, toc = layer.toc_offset, json.loads(layer.read_toc())
    xattrs = toc["entries"][-1]["xattrs"]
    xattrs["user.a%3Db"] = base64.b64encode(value).decode()
    assert xattrs.pop("user.a=b")
    text = json.dumps(toc).encode()
    member = handmade.member(
        handmade.header("stargz.index.json", len(text)) + padded(text) + bytes(1024)
    )
    with stargz.open(blob[:at] + member + handmade.footer(at)) as layer:
        found = layer.verify()
    assert (found.ok, [problem.name for problem in found.errors]) == (ok, [] if ok else ["l"])
