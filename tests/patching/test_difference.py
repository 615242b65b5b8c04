"""What differs between two layers, against a comparison of the tars that they were made of."""

from __future__ import annotations

import io
import itertools
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import blobs
import handmade
import layouts
import oracle
import pytest
from absence import absent
from command import fails, ok, run
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import FaultProxy, find_nginx, nginx

import stargz
from stargz.errors import FooterError
from stargz.patching.difference import Change, Difference, diff
from stargz.sources.base import TAIL

CHUNK = 1024
XATTR = "SCHILY.xattr.user."

# --- trees, their tars, and what tarfile says of these --------------------------------------

Node = dict[str, Any]
Tree = dict[str, Node]

NAMES = ["a", "b", "d/a", "d/b", "d", "e/é", "e/f/g", "x" * 120, ".wh.gone", "z"]
CONTENTS = [b"", b"one", b"two", b"x" * CHUNK, b"x" * 2 * CHUNK, blobs.noise("n", 3000)]
CONTENTS += [b"x" * CHUNK + b"tail", CONTENTS[5][:2048] + b"other end"]


def nodes(targets: list[str]) -> st.SearchStrategy[Node]:
    meta = {
        "mode": st.sampled_from([0o644, 0o755]),
        "uid": st.sampled_from([0, 1000, 3_000_000]),
        "gid": st.sampled_from([0, 100]),
        "mtime": st.sampled_from([0, 1_700_000_000]),
        "xattrs": st.sampled_from([{}, {}, {"k": "v"}, {"k": "w", "l": ""}]),
    }

    def of(kind: bytes, **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Node]:
        return st.fixed_dictionaries({"type": st.just(kind), **meta, **keys})

    kinds = [
        of(tarfile.REGTYPE, content=st.sampled_from(CONTENTS)),
        of(tarfile.REGTYPE, content=st.sampled_from(CONTENTS)),
        of(tarfile.SYMTYPE, linkname=st.sampled_from(["a", "../b"])),
        of(tarfile.CHRTYPE, devmajor=st.integers(0, 2), devminor=st.integers(0, 2)),
        of(tarfile.FIFOTYPE),
    ]
    if targets:
        kinds.append(of(tarfile.LNKTYPE, linkname=st.sampled_from(targets)))
    return st.one_of(kinds)


@st.composite
def trees(draw: st.DrawFn, base: Tree | None = None) -> Tree:
    """A tree; of `base` some entries stay as they are, or differ in one thing."""
    tree: Tree = {}
    chosen = draw(st.lists(st.sampled_from(NAMES), unique=True))
    files: list[str] = []
    for name in NAMES:
        stays = base is not None and name in base and draw(st.booleans())
        if stays and base is not None:
            node = dict(base[name])
            if draw(st.integers(0, 3)) == 0:
                fresh = draw(nodes(files))
                key = draw(st.sampled_from(sorted(node.keys() & fresh.keys() - {"type"})))
                node[key] = fresh[key]
        elif name in chosen:
            node = draw(nodes(files))
        else:
            continue
        if node["type"] == tarfile.LNKTYPE and node["linkname"] not in files:
            continue
        if name == "d" and any(other.startswith("d/") for other in tree):
            node = {**node, "type": tarfile.DIRTYPE}
        if node["type"] == tarfile.REGTYPE and name != ".wh.gone":  # no link is to a whiteout
            files.append(name)
        tree[name] = node
    return tree


def tar_of(tree: Tree) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, node in tree.items():
            info = tarfile.TarInfo(name)
            for key in ("type", "mode", "uid", "gid", "mtime"):
                setattr(info, key, node[key])
            if info.issym() or info.islnk():
                info.linkname = node["linkname"]
            if info.isdev() and not info.isfifo():
                info.devmajor, info.devminor = node["devmajor"], node["devminor"]
            info.pax_headers = {XATTR + key: value for key, value in node["xattrs"].items()}
            content = node.get("content", b"") if info.isreg() else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def seen(tar_bytes: bytes) -> dict[str, dict[str, Any]]:
    """Every name of a tar with what counts of it; of a hard link that is its file's."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(fileobj=io.BytesIO(tar_bytes)) as tar:
        for info in tar:
            if info.islnk():
                found[info.name] = {**found[info.linkname], "type": info.type}
                found[info.name]["link"] = ("hard", info.linkname)
                continue
            file = tar.extractfile(info) if info.isreg() else None
            found[info.name] = {
                "type": info.type,
                "content": file.read() if file else None,
                "size": info.size,
                "mode": info.mode,
                "uid": info.uid,
                "gid": info.gid,
                "mtime": info.mtime,
                "link": info.linkname,
                "device": (info.devmajor, info.devminor) if info.isdev() else (0, 0),
                "xattrs": {k: v for k, v in info.pax_headers.items() if k.startswith(XATTR)},
            }
    return found


def expected(old_tar: bytes, new_tar: bytes) -> dict[str, Any]:
    """The difference by the bytes themselves."""
    old, new = seen(old_tar), seen(new_tar)
    result: dict[str, Any] = {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": [],
        "metadata": [],
        "unchanged": 0,
    }
    for name in sorted(old.keys() & new.keys()):
        one, two = old[name], new[name]
        fields = {key for key in one if one[key] != two[key]}
        if "content" in fields:
            fields = fields - {"content"} | {"contents"}
            result["changed"].append((name, "changed", fields))
        elif fields:
            result["metadata"].append((name, "same", fields))
        else:
            result["unchanged"] += 1
    regular = [n for n in old.keys() & new.keys() if new[n]["type"] == tarfile.REGTYPE]
    same = [n for n in regular if old[n]["content"] == new[n]["content"]]
    result["unchanged_files"] = len(same)
    result["unchanged_bytes"] = sum(new[n]["size"] for n in same)
    return result


def simple(difference: Difference) -> dict[str, Any]:
    def listed(changes: list[Change]) -> list[Any]:
        return [(change.name, change.contents, set(change.fields)) for change in changes]

    totals = difference.totals
    assert (totals.added, totals.removed) == (len(difference.added), len(difference.removed))
    assert totals.changed == len(difference.changed)
    assert totals.metadata == len(difference.metadata)
    assert totals.unknown == 0
    return {
        "added": difference.added,
        "removed": difference.removed,
        "changed": listed(difference.changed),
        "metadata": listed(difference.metadata),
        "unchanged": totals.unchanged,
        "unchanged_files": totals.unchanged_files,
        "unchanged_bytes": totals.unchanged_bytes,
    }


def pieces(tar_bytes: bytes) -> tuple[set[bytes], set[bytes]]:
    """The chunks and the whole contents that a layer of this tar has."""
    whole = {
        node["content"]
        for node in seen(tar_bytes).values()
        if node["content"] and node["type"] == tarfile.REGTYPE
    }
    return {c[at : at + CHUNK] for c in whole for at in range(0, len(c), CHUNK)}, whole


def to_send(old_tar: bytes, new_tar: bytes, blob: Path) -> dict[str, int]:
    """The members of a blob of one chunk each whose contents the old tar has nowhere."""
    chunks, files = pieces(old_tar)
    entries = oracle.toc_entries(blob, places=True)
    end = oracle.toc_offset(blob.read_bytes())
    contents = {name: node["content"] for name, node in seen(new_tar).items()}
    starts, lacking, name = [], [], ""
    for entry in entries:
        name = entry["name"] if entry["type"] != "chunk" else name
        if "chunkDigest" not in entry:
            continue
        starts.append(entry["offset"])
        if name in oracle.LANDMARKS:
            continue
        at = entry.get("chunkOffset", 0)
        if contents[name][at : at + CHUNK] not in chunks and contents[name] not in files:
            lacking.append((entry["offset"], len(contents[name][at : at + CHUNK])))
    ends = dict(itertools.pairwise([*starts, end]))
    return {
        "member_bytes": sum(ends[start] - start for start, _ in lacking),
        "contents_bytes": sum(size for _, size in lacking),
        "toc_bytes": blob.stat().st_size - end,
    }


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_as_the_tars_differ(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    tree = data.draw(trees())
    old_tar, new_tar = tar_of(tree), tar_of(data.draw(trees(tree)))
    old, new = folder / "old", folder / "new"
    stargz.convert(io.BytesIO(old_tar), old, chunk_size=CHUNK, threads=1)
    stargz.convert(io.BytesIO(new_tar), new, chunk_size=CHUNK, threads=1)
    difference = diff(old, new)
    assert simple(difference) == expected(old_tar, new_tar)
    assert bool(difference) == (old_tar != new_tar and seen(old_tar) != seen(new_tar))
    totals = difference.totals.to_json()
    assert to_send(old_tar, new_tar, new).items() <= totals.items()
    # Cut otherwise, files are still told by their digests.
    stargz.convert(io.BytesIO(new_tar), new, chunk_size=2 * CHUNK, min_chunk_size=8192, threads=1)
    assert simple(diff(old, new)) == expected(old_tar, new_tar)
    mirrored = diff(new, old)
    assert (mirrored.added, mirrored.removed) == (difference.removed, difference.added)
    assert [c.name for c in mirrored.changed] == [c.name for c in difference.changed]


# --- single cases ----------------------------------------------------------------------------


def layer(files: dict[str, bytes], **options: Any) -> bytes:
    out = io.BytesIO()
    stargz.convert(io.BytesIO(blobs.tar_of(list(files.items()))), out, threads=1, **options)
    return out.getvalue()


def test_a_file_that_becomes_a_hard_link_to_the_same_contents() -> None:
    old = handmade.blob([handmade.reg("a", b"same"), handmade.reg("b", b"same")])
    new = handmade.blob([handmade.reg("a", b"same"), handmade.hardlink("b", "./a")])
    difference = diff(old, new)
    assert difference.changed == []
    assert difference.metadata == [Change("b", "same", ("type", "link"))]
    assert difference.totals.member_bytes == 0
    assert difference.totals.unchanged_files == 1


def test_hard_links_follow_the_file_that_they_lead_to() -> None:
    links = [handmade.hardlink("b", "a"), handmade.hardlink("c", "b")]
    old = handmade.blob([handmade.reg("a", b"old"), *links])
    new = handmade.blob([handmade.reg("a", b"newer", mode=0o600), *links])
    difference = diff(old, new)
    assert [change.name for change in difference.changed] == ["a", "b", "c"]
    assert {change.fields for change in difference.changed} == {("contents", "size", "mode")}


def test_the_bits_of_the_type_in_a_mode_do_not_count() -> None:
    old = handmade.blob([handmade.reg("a", b"x", mode=0o100644)])
    assert not diff(old, handmade.blob([handmade.reg("a", b"x", mode=0o644)]))
    assert diff(old, handmade.blob([handmade.reg("a", b"x", mode=0o4644)])).metadata


def test_contents_under_another_name_are_not_sent() -> None:
    old = layer({"a": b"moved" * 500, "b": b"stays"})
    difference = diff(old, layer({"b": b"stays", "c": b"moved" * 500}))
    assert (difference.added, difference.removed) == (["c"], ["a"])
    assert difference.totals.member_bytes == difference.totals.contents_bytes == 0
    assert difference.totals.bytes_to_send == difference.totals.toc_bytes > 0


def test_landmarks_are_no_entries() -> None:
    files = {"a": b"a", "b": b"b"}
    assert not diff(layer(files), layer(files, prioritized=["b"]))
    assert not diff(layer(files, prioritized=["a"]), layer(files, prioritized=["b"]))
    assert diff(layer({}), layer(files, prioritized=["b"])).added == ["a", "b"]


def test_layers_without_entries() -> None:
    empty = handmade.blob([])
    assert not diff(empty, empty)
    assert diff(empty, empty).totals.toc_bytes > 0
    assert diff(handmade.blob([handmade.directory("d")]), empty).removed == ["d"]


def test_the_root_is_an_entry_only_where_it_is_listed() -> None:
    listed = handmade.blob([handmade.directory("./"), handmade.reg("./d/a", b"1")])
    implied = handmade.blob([handmade.reg("d/a", b"1")])
    assert diff(implied, listed).added == [""]
    assert diff(listed, implied).removed == [""]


def test_a_replaced_entry_does_not_count() -> None:
    twice = handmade.blob([handmade.reg("a", b"first"), handmade.reg("a", b"second")])
    assert not diff(twice, handmade.blob([handmade.reg("a", b"second")]))
    first = diff(twice, handmade.blob([handmade.reg("a", b"first")]))
    assert [change.name for change in first.changed] == ["a"]
    assert first.totals.contents_bytes == len(b"first")


def without(*keys: str) -> Any:
    """An edit of a TOC: rows without these keys."""

    def edit(rows: list[dict[str, Any]]) -> None:
        for row, key in itertools.product(rows, keys):
            row.pop(key, None)

    return edit


LARGE = blobs.noise("large", 3 * CHUNK + 5)
OTHER = LARGE[: 2 * CHUNK] + bytes(CHUNK + 5)


@pytest.mark.parametrize(
    ("old_lacks", "new_lacks", "new", "chunk_size", "contents"),
    [
        # No file digests: all chunks tell, if they are cut alike.
        (("digest",), ("digest",), LARGE, CHUNK, "same"),
        (("digest",), (), LARGE, CHUNK, "same"),
        (("digest",), ("digest",), OTHER, CHUNK, "changed"),
        ((), ("digest",), LARGE, 2 * CHUNK, "unknown"),
        # No chunk digests, as in legacy layers: the files' tell.
        (("chunkDigest",), ("chunkDigest",), LARGE, CHUNK, "same"),
        (("chunkDigest",), (), LARGE, 2 * CHUNK, "same"),
        (("chunkDigest",), (), OTHER, CHUNK, "changed"),
        # A file of one chunk: its digest is the chunk's.
        (("chunkDigest",), ("digest",), LARGE, 1 << 20, "same"),
        (("digest",), ("chunkDigest",), LARGE, 1 << 20, "unknown"),
        # None at all.
        (("digest", "chunkDigest"), ("digest", "chunkDigest"), LARGE, CHUNK, "unknown"),
        (("digest", "chunkDigest"), (), LARGE, CHUNK, "unknown"),
        (("digest", "chunkDigest"), (), LARGE + b"longer", CHUNK, "changed"),
    ],
)
def test_where_digests_lack(
    old_lacks: tuple[str, ...],
    new_lacks: tuple[str, ...],
    new: bytes,
    chunk_size: int,
    contents: str,
) -> None:
    def made(content: bytes, lacks: tuple[str, ...], chunk_size: int) -> bytes:
        tar = blobs.tar_of([("empty", b""), ("large", content)])
        return blobs.build(tar, chunk_size=chunk_size, edit=without(*lacks)).data

    difference = diff(made(LARGE, old_lacks, CHUNK), made(new, new_lacks, chunk_size))
    assert [change.contents for change in difference.changed] == [contents] * (contents != "same")
    assert difference.metadata == []
    assert difference.totals.unknown == (contents == "unknown")
    assert bool(difference.totals.contents_bytes) == (contents != "same")
    assert difference.totals.unchanged_files == 1 + (contents == "same")


def test_one_chunk_has_the_digest_of_its_file() -> None:
    tar = blobs.tar_of([("a", b"contents")])
    chunk_only = blobs.build(tar, edit=without("digest")).data
    file_only = blobs.build(tar, edit=without("chunkDigest")).data
    for old, new in itertools.product((chunk_only, file_only), repeat=2):
        difference = diff(old, new)
        assert not difference
        assert difference.totals.member_bytes == 0


def test_an_external_toc_counts_as_bytes_to_send() -> None:
    made = blobs.build(blobs.varied_tar(), kind="external-toc")
    assert made.external is not None
    old = blobs.build(blobs.varied_tar()).data
    with stargz.open(made.data, toc=made.external) as after:
        difference = diff(old, after)
    assert not difference
    assert difference.totals.toc_bytes == len(made.external) + blobs.FOOTER_SIZES["external-toc"]
    with pytest.raises(FooterError):
        diff(old, made.data)


def test_open_layers_stay_open_and_closed_ones_are_refused() -> None:
    blob = layer({"a": b"x"})
    with stargz.open(blob) as one:
        assert not diff(one, blob)
        assert not diff(one, one)
        assert one.read("a") == b"x"
    with pytest.raises(ValueError, match="closed"):
        diff(one, blob)
    with pytest.raises(ValueError, match="closed"):
        diff(blob, one)


def test_a_remote_side_costs_two_requests(tmp_path: Path) -> None:
    if find_nginx() is None:
        absent("nginx is not installed")
    files = {f"d/{n}": random.Random(n).randbytes(60_000) for n in range(40)}
    root = tmp_path / "site"
    root.mkdir()
    (root / "old").write_bytes(layer(files))
    (root / "new").write_bytes(layer({**files, "d/7": b"another", "more": b"added"}))
    assert (root / "old").stat().st_size > 4 * TAIL
    with nginx(root, tmp_path / "nginx") as upstream, FaultProxy(upstream) as proxy:
        difference = diff(root / "old", f"{proxy.url}/new")
        assert len(proxy.log) <= 2
        assert proxy.bytes <= TAIL
        proxy.reset()
        assert diff(f"{proxy.url}/old", f"{proxy.url}/new") == difference
        assert len(proxy.log) <= 4
        proxy.reset()
        lines = ok("diff", f"{proxy.url}/old", f"{proxy.url}/new").splitlines()
        assert len(proxy.log) <= 4
    assert lines[:-1] == ["M d/7 (size)", "+ more"]
    assert (difference.added, [c.name for c in difference.changed]) == (["more"], ["d/7"])


# --- the command -----------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    tars = [
        blobs.tar_of([("d", None), ("d/gone", b"1"), ("d/kept", b"2"), ("edited", b"3")]),
        blobs.tar_of([("d", None), ("d/kept", b"2"), ("edited", b"4"), ("new", b"5")], uid=7),
    ]
    made = []
    for name, tar in zip("ab", tars, strict=True):
        stargz.convert(io.BytesIO(tar), tmp_path / name)
        made.append(tmp_path / name)
    return made[0], made[1]


def test_lines_in_the_order_of_names(pair: tuple[Path, Path]) -> None:
    *lines, last = ok("diff", *pair).splitlines()
    assert lines == ["m d (uid)", "- d/gone", "m d/kept (uid)", "M edited (uid)", "+ new"]
    assert last.startswith("1 added, 1 removed, 1 changed, 2 metadata only, 0 unchanged; ")
    assert last.endswith(" bytes for 2 of contents")
    names = ok("diff", "--name-only", *pair).splitlines()
    assert names == ["d", "d/gone", "d/kept", "edited", "new"]
    same = ok("diff", pair[0], pair[0])
    assert same.startswith("0 added, 0 removed, 0 changed, 0 metadata only, 4 unchanged; ")
    assert ok("diff", "--name-only", pair[0], pair[0]) == ""


def test_json(pair: tuple[Path, Path]) -> None:
    found = json.loads(ok("diff", "--json", *pair))
    assert found == diff(*pair).to_json()
    assert found["changed"] == [
        {"name": "edited", "contents": "changed", "fields": ["contents", "uid"]}
    ]
    totals = found["totals"]
    assert totals["bytes_to_send"] == totals["member_bytes"] + totals["toc_bytes"]


def test_exit_code(pair: tuple[Path, Path]) -> None:
    assert run("diff", *pair).returncode == 0
    assert run("diff", "--exit-code", *pair).returncode == 1
    assert run("diff", "--exit-code", "--json", *pair).returncode == 1
    assert run("diff", "--exit-code", pair[0], pair[0]).returncode == 0


def test_each_side_has_its_own_digest(pair: tuple[Path, Path]) -> None:
    digests = [oracle.sha256(oracle.toc_json(path.read_bytes())) for path in pair]
    right = ["--toc-digest-a", digests[0], "--toc-digest-b", digests[1]]
    assert ok("diff", *pair, *right, "--require-verified") == ok("diff", *pair)
    assert str(pair[1]) in fails(3, "diff", *pair, "--toc-digest-b", digests[0])
    assert str(pair[0]) in fails(3, "diff", *pair, "--toc-digest-a", digests[1])
    fails(3, "diff", *pair, *right[:2], "--require-verified")


def test_standard_input_is_one_side(pair: tuple[Path, Path]) -> None:
    with pair[1].open("rb") as file:
        assert ok("diff", pair[0], "-", stdin=file) == ok("diff", *pair)
    assert "standard input" in fails(2, "diff", "-", "-")


def test_names_for_a_terminal_and_the_root(tmp_path: Path) -> None:
    made = [handmade.directory("./"), handmade.reg("a b", b"")]
    (tmp_path / "new").write_bytes(handmade.blob(made))
    (tmp_path / "old").write_bytes(handmade.blob([]))
    lines = ok("diff", tmp_path / "old", tmp_path / "new").splitlines()
    assert lines[:-1] == ["+ .", "+ a b"]


def test_layers_of_images(tmp_path: Path) -> None:
    lower = blobs.tar_of([("a", b"1")])
    upper = blobs.tar_of([("a", b"1"), ("b", b"2")])
    layout = layouts.Layout(tmp_path / "layout")
    layout.tag(layout.manifest([layout.layer(lower), layout.layer(upper)]), None)
    src = f"oci:{layout.path}"
    added = "+ b"
    assert ok("diff", src, src, "--layer-a", "1", "--layer-b", "2").splitlines()[0] == added
    assert ok("diff", src, src, "--layer", "1", "--layer-b", "-1").splitlines()[0] == added
    assert ok("diff", src, src, "--layer", "2").startswith("0 added")
    stargz.convert(io.BytesIO(lower), tmp_path / "file")
    assert ok("diff", tmp_path / "file", src, "--layer", "2").splitlines()[0] == added
    assert "--layer" in fails(2, "diff", tmp_path / "file", tmp_path / "file", "--layer", "2")
    assert "--layer" in fails(2, "diff", src, src, "--layer-a", "1")


def test_large_layers_are_not_walked_in_quadratic_time() -> None:
    """50,000 entries: minutes if any step looked at all of them for each."""
    rows = [{"name": f"d/{n}", "type": "reg", "modtime": ""} for n in range(50_000)]
    old = blobs.with_toc(b"", json.dumps({"version": 1, "entries": rows}).encode())
    rows[123]["mode"] = 0o600  # type: ignore[assignment]
    new = blobs.with_toc(b"", json.dumps({"version": 1, "entries": rows[:-1]}).encode())
    difference = diff(old, new)
    assert difference.removed == ["d/49999"]
    assert difference.metadata == [Change("d/123", "same", ("mode",))]


def test_many_links_to_a_file_of_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are compared once: each link would look at each chunk, and each xattr."""
    count = 3000
    rows: list[dict[str, Any]] = [
        {"name": "f", "type": "reg", "size": count, "chunkSize": 1, "offset": 1}
    ]
    rows += [
        {"name": "f", "type": "chunk", "offset": 1 + n, "chunkOffset": n, "chunkSize": 1}
        for n in range(1, count)
    ]
    rows[0]["xattrs"] = {f"user.{n}": "eA==" for n in range(count)}
    rows += [{"name": f"l{n}", "type": "hardlink", "linkName": "f"} for n in range(count)]
    blob = blobs.with_toc(bytes(count + 10), json.dumps({"version": 1, "entries": rows}).encode())
    calls: list[str] = []
    for name in ("chunks", "xattrs"):
        right = getattr(stargz.patching.difference._Entries, name)

        def counted(side: Any, row: int, right: Any = right, name: str = name) -> Any:
            calls.append(name)
            return right(side, row)

        monkeypatch.setattr(stargz.patching.difference._Entries, name, counted)
    assert diff(blob, blob).totals.unknown == count + 1
    assert {"chunks", "xattrs"} == set(calls) and len(calls) < 10
