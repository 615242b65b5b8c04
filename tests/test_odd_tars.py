"""Odd tars are read where they are as GNU tar reads them: one entry that no tree can hold takes
nothing of the rest with it."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import blobs
import pytest
from command import each_here, fails_here, here, ok_here
from mounts import cli_mount, listed, needs_fuse
from test_tar_doors import ABC, END, GNU, block, extended, octal, padded, pax, record, signed

import stargz
from stargz.errors import TarError, TOCError

GOOD = block(b"good") + padded(b"good")[:512]
Z = bytes(512)
LONG = b"n" * 256
FAR = "/".join(["n" * 200] * 21)


def file(name: bytes, kind: bytes = b"0", **fields: bytes) -> bytes:
    return block(name, kind=kind, **fields) + ABC


def empty(name: bytes, kind: bytes, **fields: bytes) -> bytes:
    return block(name, octal(0), kind, **fields)


def link(name: bytes, kind: bytes, target: bytes) -> bytes:
    return extended(b"K", target + b"\0") + empty(name, kind, a157=target[:100])


class Odd(NamedTuple):
    """A tar without its end, what is in it besides "good", what is noted of it, and whether GNU
    tar extracts the same."""

    tar: bytes
    names: frozenset[str] | set[str] = frozenset()
    note: str = ""
    as_gnu: bool = True
    end: bytes = END


PIECE = empty(b"m", b"M")
SPARSE = {"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 9}
ODD: dict[str, Odd] = {
    # What is no file.
    "a volume label": Odd(empty(b"LABEL", b"V"), note="nothing to show"),
    "of another volume": Odd(file(b"m", b"M"), note="nothing to show"),
    "a Solaris ACL": Odd(file(b"acl", b"A"), note="nothing to show", as_gnu=False),
    "an unknown type": Odd(file(b"q", b"Q"), {"q"}, "type that is not known"),
    "a socket": Odd(empty(b"s", b"s"), {"s"}, "type that is not known"),
    "old long names": Odd(file(b"n", b"N"), {"n"}, "type that is not known"),
    "contiguous": Odd(file(b"c", b"7"), {"c"}),
    "a dumpdir": Odd(block(b"d/", kind=b"D") + padded(b"Ya\0"), {"d/"}, "incremental"),
    "a device": Odd(empty(b"c", b"3", a329=b"0000001\0", a337=b"0000003\0"), {"c"}),
    "a device of no number": Odd(empty(b"c", b"3", a329=b"z"), {"c"}, "malformed", as_gnu=False),
    # Where nothing can be.
    "below a file": Odd(file(b"x") + file(b"x/y"), {"x"}, "below what is no directory"),
    "in a directory's place": Odd(file(b"x/y") + file(b"x"), {"x/", "x/y"}, "where a directory"),
    "in an empty one's": Odd(empty(b"x/", b"5") + file(b"x"), {"x"}),
    "a dangling hard link": Odd(link(b"l", b"1", b"gone"), note="no file of the archive before"),
    "a forward hard link": Odd(link(b"l", b"1", b"x") + file(b"x"), {"x"}, "archive before"),
    "a hard link to a directory": Odd(
        empty(b"d/", b"5") + link(b"l", b"1", b"d"), {"d/"}, "no file of the archive before"
    ),
    "a hard link to a symlink": Odd(link(b"s", b"2", b"good") + link(b"l", b"1", b"s"), {"s", "l"}),
    "no name": Odd(file(b""), note="is empty"),
    "no target": Odd(empty(b"l", b"2"), note="is empty"),
    "the root is a file": Odd(file(b"."), note="where a directory"),
    "the root": Odd(empty(b"./", b"5")),
    "the root by a slash": Odd(empty(b"/", b"5")),
    "a name of 256 bytes": Odd(extended(b"L", LONG + b"\0") + file(b"n"), note="too long"),
    "a path of 4220 bytes": Odd(pax(path=FAR) + file(b"n"), note="too long"),
    "a target of 256 bytes": Odd(link(b"l", b"2", LONG), {"l"}),
    "a target of 4096 bytes": Odd(link(b"l", b"2", b"n/" * 2048), note="too long"),
    "a circle": Odd(
        link(b"a", b"2", b"b") + link(b"b", b"2", b"a") + file(b"a/f"), {"a", "b"}, "in circles"
    ),
    "behind a symlink, too far": Odd(
        link(b"l", b"2", FAR[:4000].encode()) + file(b"l/" + b"n" * 97), {"l"}, "too long"
    ),
    "an absolute name": Odd(file(b"/top/f"), {"top/", "top/f"}),
    "a name above": Odd(file(b"../up"), {"up"}, "has .. in", as_gnu=False),
    # What is said twice, or not at all.
    "twice": Odd(file(b"f") + block(b"f") + padded(b"new"), {"f"}),
    "a slash behind a file": Odd(block(b"d/") + ABC, {"d/"}, "slash behind", as_gnu=False),
    "a slash of V7": Odd(block(b"d/", octal(0), b"\0", magic=b""), {"d/"}),
    "no mode": Odd(file(b"f", a100=b"zzzzzzz\0"), {"f"}, "malformed numbers", as_gnu=False),
    "no mtime": Odd(file(b"f", a136=b"zzzz\0"), {"f"}, "malformed numbers", as_gnu=False),
    "no uid": Odd(file(b"f", a108=b"zzzz\0"), {"f"}, "malformed numbers", as_gnu=False),
    "a huge uid": Odd(file(b"f", a108=b"\x80\0\0\0\0\1\0\0"), {"f"}),
    "before 1970": Odd(file(b"f", a136=b"\xff" * 11 + b"\xf0"), {"f"}),
    "a prefix": Odd(file(b"f", a345=b"some/where"), {"some/", "some/where/", "some/where/f"}),
    "signed checksum": Odd(block(b"f", a265=b"\xe9", sum_of=signed) + ABC, {"f"}),
    "a malformed record": Odd(extended(b"x", b"99 path=x\n") + file(b"f"), {"f"}, "malformed"),
    "a good one before": Odd(
        extended(b"x", record("path", "p") + b"no record") + file(b"f"), {"p"}, "malformed"
    ),
    "a record of no number": Odd(pax(mtime="then") + file(b"f"), {"f"}, "malformed"),
    "a size of no number": Odd(pax(size="1e3") + file(b"f"), {"f"}, "malformed"),
    "a NUL in a path": Odd(pax(path="p\0q") + file(b"f"), {"p"}, "malformed"),
    "an xattr of a long name": Odd(
        pax(**{"SCHILY.xattr.user." + "n" * 256: "x"}) + file(b"f"), {"f"}, "malformed"
    ),
    "two names": Odd(pax(path="p") + extended(b"L", b"l\0") + file(b"f"), {"p"}),
    "two targets": Odd(pax(linkpath="p") + link(b"l", b"2", b"q"), {"l"}),
    "a star prefix": Odd(
        file(b"f", a345=b"p" * 143, a508=b"tar\0"), {"p" * 143 + "/", "p" * 143 + "/f"}
    ),
    "names for all": Odd(
        extended(b"g", record("path", "all") + record("size", "9")) + file(b"f"),
        {"f"},
        "do not count, as for bsdtar",
        as_gnu=False,
    ),
    "a header for all in between": Odd(
        pax(path="p") + extended(b"g", record("comment", "c")) + file(b"f"), {"p"}, "as for bsdtar"
    ),
    "Solaris": Odd(extended(b"X", record("path", "p")) + file(b"f"), {"p"}, "Solaris"),
    "sparse of no known word": Odd(pax(**{"GNU.sparse.x": "y"}) + file(b"f"), {"f"}, "malformed"),
    "sparse by name alone": Odd(pax(**{"GNU.sparse.name": "n"}) + file(b"f"), {"n"}),
    "sparse by size alone": Odd(pax(**{"GNU.sparse.realsize": 3}) + file(b"f"), {"f"}),
    "sparse by another size alone": Odd(
        pax(**{"GNU.sparse.realsize": 9}) + file(b"f"), {"f"}, "malformed", as_gnu=False
    ),
    "sparse without a map": Odd(
        pax(**SPARSE) + block(b"s", octal(515)) + b"no map".ljust(512) + ABC,
        note="nothing to show",
        as_gnu=False,
    ),
    "sparse with half a map": Odd(
        pax(**SPARSE) + block(b"s", octal(512)) + b"1\n0\n".ljust(512, b"\n"),
        note="nothing to show",
        as_gnu=False,
    ),
    "sparse without contents": Odd(
        pax(**SPARSE) + block(b"s", octal(0)), note="nothing to show", as_gnu=False
    ),
    "sparse beyond its end": Odd(
        block(b"s", kind=b"S", magic=GNU, a386=octal(20) + octal(3), a483=octal(9)) + ABC,
        note="nothing to show",
        as_gnu=False,
    ),
    "sparse of no GNU": Odd(block(b"s", kind=b"S") + ABC, note="nothing to show", as_gnu=False),
    # The end.
    "another tar behind": Odd(b"", note="followed by something", end=END + file(b"b") + END),
    "garbage behind": Odd(b"", note="followed by something", end=END + b"garbage"),
    "a lone block of zeros": Odd(b"", note="followed by something", end=Z + file(b"b") + END),
    "no end": Odd(b"", note="cut short", end=b""),
    "half an end": Odd(b"", note="cut short", end=Z),
    "a fifth of a block": Odd(b"", note="cut short", end=bytes(100)),
    "headers of nothing": Odd(b"", end=pax(path="p") + END),
    "a padded end": Odd(b"", end=bytes(10240)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of them, "good" before it and behind it, as tar and tar.gz."""
    path = tmp_path_factory.mktemp("odd")
    for number, odd in enumerate(ODD.values()):
        tar = GOOD + odd.tar + block(b"last") + ABC + odd.end
        (path / f"{number}.tar").write_bytes(tar)
        (path / f"{number}.tar.gz").write_bytes(gzip.compress(tar, 1))
    return path


def places(folder: Path, suffix: str = ".tar.gz") -> list[tuple[str, Odd, Path]]:
    return [
        (name, odd, folder / f"{number}{suffix}") for number, (name, odd) in enumerate(ODD.items())
    ]


def test_ls_and_cat_just_work(folder: Path) -> None:
    """All names are there, what is odd is said once, and the rest is what it was."""
    for name, odd, path in places(folder):
        done, read, again = each_here(("find", path), ("cat", path, "good", "last"), ("find", path))
        assert done.returncode == 0, (name, done)
        found = set(done.stdout.splitlines()) - {"."}
        assert found == {n.rstrip("/") for n in odd.names} | {"good", "last"}, name
        said = done.stderr.splitlines()
        assert [odd.note in line for line in said] == [True] * bool(odd.note), (name, said)
        assert all(line.startswith(f"stargz: warning: {path}: 1 ") for line in said), said
        assert read == (0, "goo" + "abc", ""), name
        assert again == (0, done.stdout, ""), name


def tree(path: Path) -> dict[str, list[object]]:
    """What is in a directory; of a directory the name alone, which may be one that is implied."""
    found: dict[str, list[object]] = {}
    for above, folders, files in os.walk(path):
        for name in folders + files:
            at = Path(above, name)
            st = at.lstat()
            what: list[object] = [stat.S_IFMT(st.st_mode)]
            if not stat.S_ISDIR(st.st_mode):
                what += [stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, int(st.st_mtime)]
                what += [st.st_rdev, st.st_nlink]
            if stat.S_ISREG(st.st_mode):
                what.append(at.read_bytes())
            elif stat.S_ISLNK(st.st_mode):
                what.append(os.fspath(at.readlink()))
            found[os.path.relpath(at, path)] = what
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="what is compared are owners and devices, too")
@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_extracted_as_by_others(
    folder: Path, program: str, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """By GNU tar, but where it says that it does not; by bsdtar, where that has the same."""
    same = 0
    for name, odd, path in places(folder, ".tar"):
        if program == "bsdtar" and "4220" in name:
            continue  # it makes that, step by step, where nothing else finds it
        theirs, ours = tmp_path / f"{path.stem}-1", tmp_path / f"{path.stem}-2"
        theirs.mkdir()
        words = [tool(program), "--numeric-owner", "-pxf", path, "-C", theirs]
        subprocess.run(words, capture_output=True, timeout=60)
        with stargz.open(path, cache=False) as layer:
            layer.extractall(ours, devices=True)
        equal = tree(theirs) == tree(ours)
        same += equal
        assert equal or not odd.as_gnu or program != "tar", (name, tree(theirs), tree(ours))
    assert same > len(ODD) * 3 // 4


def test_an_index_of_them_fits(folder: Path) -> None:
    """Also one that nothing vouches for, which is compared with the headers."""
    for name, odd, path in places(folder):
        made = stargz.index(path, force=True)
        assert [odd.note in note for note in made.warnings] == [True] * bool(odd.note), name
        with stargz.open(path, cache=False, index=f"{path}.index") as layer:
            assert layer.kind == "indexed" and not layer.verified
            for entry in layer.names():
                if layer.entry(entry).type == "reg":
                    layer.read(entry)
            assert layer.read("last") == b"abc"
        with stargz.open(path, cache=False) as layer:
            assert layer.verify().ok, name
        Path(f"{path}.index").unlink()


def test_mounted(folder: Path, tmp_path: Path) -> None:
    needs_fuse()
    odd = [ODD[name] for name in ("below a file", "an unknown type", "no target", "a volume label")]
    path = tmp_path / "odd.tar.gz"
    path.write_bytes(gzip.compress(GOOD + b"".join(one.tar for one in odd) + END))
    assert here("ls", path).stderr.count("warning") == 4
    with cli_mount(path, directory=tmp_path / "mnt") as mnt:
        assert listed(mnt) == ["good", "q", "x"]
        assert {(mnt / name).read_bytes() for name in ("q", "x")} == {b"abc"}


@pytest.mark.parametrize(
    ("tar", "where"),
    [
        (GOOD + block(b"f", sum_of=lambda head: sum(head) + 1) + ABC + END, "1024: not a tar"),
        (GOOD + b"junk" * 128, "1024: not a tar header"),
        (GOOD + block(b"f", octal(5000)) + ABC, "2048: truncated"),
        (GOOD + block(b"f", b"zzz") + ABC + END, "1024: 'f': the size in the tar header"),
        (GOOD + pax(path="p"), "2048: truncated"),
        (GOOD + b"j" * 100, "1124: truncated"),
    ],
)
def test_what_cannot_be_parsed_is_an_error(tar: bytes, where: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(gzip.compress(tar))
    assert f"bad.tar.gz at offset {where}" in fails_here(1, "ls", path)


def test_a_conversion_and_a_ztoc_have_their_own_rules(folder: Path) -> None:
    """What they promise others: nothing is left out of these unasked."""
    refused = 0
    for _, odd, path in places(folder):
        if "left out" in odd.note or odd.note in ("nothing to show", "below what is no directory"):
            refused += 1
            for make in (
                lambda to, path=path: stargz.convert(path, to),
                lambda to, path=path: stargz.index(path, to, format="soci"),
            ):
                with pytest.raises(TarError):
                    make(io.BytesIO())
    assert refused > 5


# --- sparse files: as VM images are, and over the limits --------------------------------------

TIB3 = b"\x80" + (3 << 40).to_bytes(11, "big")
PAIR = octal(0) + octal(0)


def sparse_tar(form: str, runs: int, step: int) -> bytes:
    """A file "s" of `runs` bytes, each `step` behind the other."""
    data = bytes(65 + i % 26 for i in range(runs))
    size = runs * step
    payload = data + bytes(-len(data) % 512)
    if form == "gnu":
        pairs = [b"%011o\0%011o\0" % (i * step, 1) for i in range(runs)]
        head = block(
            b"s",
            octal(runs),
            b"S",
            magic=GNU,
            a386=b"".join(pairs[:4]),
            a482=b"\1",
            a483=octal(size),
        )
        more = [b"".join(pairs[i : i + 21]).ljust(504, b"\0") for i in range(4, runs, 21)]
        last = [b"\1".ljust(8, b"\0")] * (len(more) - 1) + [bytes(8)]
        return head + b"".join(a + b for a, b in zip(more, last, strict=True)) + payload
    pairs = [b"%d,1" % (i * step) for i in range(runs)]
    if form == "0.1":
        said = {"size": size, "numblocks": runs, "map": b",".join(pairs).decode()}
        return pax(**{f"GNU.sparse.{key}": value for key, value in said.items()}) + (
            block(b"s", octal(runs)) + payload
        )
    if form == "0.0":
        head = record("GNU.sparse.size", str(size))
        each = (
            record("GNU.sparse.offset", str(i * step)) + record("GNU.sparse.numbytes", "1")
            for i in range(runs)
        )
        return extended(b"x", head + b"".join(each)) + block(b"s", octal(runs)) + payload
    text = b"%d\n" % runs + b"".join(b"%d\n1\n" % (i * step) for i in range(runs))
    text += bytes(-len(text) % 512)
    said = SPARSE | {"GNU.sparse.realsize": size}
    return pax(**said) + block(b"s", octal(len(text) + runs)) + text + payload


@pytest.mark.parametrize("form", ["1.0", "0.1", "0.0", "gnu"])
def test_a_sparse_file_of_many_holes(form: str, tmp_path: Path) -> None:
    """As it is, by an index that is compared with the tar's headers, and converted."""
    runs, step = 120_000, 64
    expected = bytearray(runs * step)
    expected[::step] = bytes(65 + i % 26 for i in range(runs))
    path = tmp_path / "vm.tar.gz"
    tar = GOOD + sparse_tar(form, runs, step) + block(b"last") + ABC + END
    path.write_bytes(gzip.compress(tar, 1))
    made = stargz.index(path, tmp_path / "index")
    assert made.warnings == ()
    with stargz.open(path, cache=False, index=tmp_path / "index") as layer:
        assert not layer.verified
        assert (layer.read("s"), layer.read("last")) == (expected, b"abc")
    stargz.convert(path, tmp_path / "layer")
    with stargz.open(tmp_path / "layer") as layer:
        assert (layer.read("s"), layer.read("last")) == (expected, b"abc")
    with pytest.raises(TarError, match="lossless"):
        stargz.convert(path, io.BytesIO(), lossless=True)


def records_of(length: int) -> bytes:
    return pax(**{"GNU.sparse.size": 9, "GNU.sparse.map": "0," * (length // 2)})


OVER = {
    "3 TiB, 1.0": pax(**SPARSE | {"GNU.sparse.realsize": 3 << 40})
    + block(b"s", octal(515))
    + b"1\n0\n3\n".ljust(512, b"\0")
    + ABC,
    "3 TiB, 0.1": pax(**{"GNU.sparse.size": 3 << 40, "GNU.sparse.map": "0,3"}) + block(b"s") + ABC,
    "3 TiB, gnu": block(b"s", kind=b"S", magic=GNU, a386=octal(0) + octal(3), a483=TIB3) + ABC,
    "map, 1.0": pax(**SPARSE) + block(b"s", octal(515)) + b"5000000\n".ljust(512, b"0") + ABC,
    "map, 0.1": records_of(16 << 20) + block(b"s") + ABC,
    "records, 0.1": records_of(18 << 20) + block(b"s") + ABC,
    "map, gnu": block(b"s", octal(0), b"S", magic=GNU, a386=PAIR, a482=b"\1", a483=octal(9))
    + (PAIR * 21 + b"\1" + bytes(7)) * (1 << 15)
    + bytes(512),
    "a record": pax(comment="c" * (1 << 20)) + block(b"s") + ABC,
    "a name": extended(b"L", b"s" + b"n" * (1 << 20)) + block(b"s") + ABC,
    "records of two headers": pax(**{"GNU.sparse.map": "0," * (1 << 20)}) + pax() + file(b"s"),
}


@pytest.mark.parametrize("name", OVER)
def test_what_is_over_a_limit_is_left_out(name: str, tmp_path: Path) -> None:
    """With the reason, and nothing else with it; a conversion says it of the same limit."""
    path = tmp_path / "t.tar.gz"
    path.write_bytes(gzip.compress(GOOD + OVER[name] + block(b"last") + ABC + END, 1))
    done = here("find", path)
    assert (done.returncode, set(done.stdout.split())) == (0, {"good", "last"}), done
    assert "1 entry is over a limit" in done.stderr
    assert "(the first: 's" in done.stderr
    with pytest.raises(TarError, match="over the limit of"):
        stargz.convert(path, io.BytesIO())


# --- behind the gzip members, and of nothing --------------------------------------------------


@pytest.mark.parametrize(
    ("behind", "said"), [(b"", 0), (bytes(9), 0), (bytes(700_000), 0), (bytes(9) + b"junk", 1)]
)
def test_bytes_behind_the_last_member(behind: bytes, said: int, tmp_path: Path) -> None:
    """Zeros are padding; anything else is told, by a conversion in the same words."""
    data = gzip.compress(GOOD + END) + behind
    path = tmp_path / "t.tar.gz"
    path.write_bytes(data)
    done = here("ls", path)
    assert (done.returncode, done.stdout) == (0, "good\n")
    text = "1 input has bytes behind the last gzip member, which were ignored, as by gzip"
    assert done.stderr == f"stargz: warning: {path}: {text}\n" * said
    for options in ({}, {"prioritized": ["good"]}):
        result = stargz.convert(data, io.BytesIO(), **options)  # type: ignore[arg-type]
        assert result.warnings == (text,) * said
    layer = io.BytesIO()
    stargz.convert(data, layer)
    assert stargz.convert(layer.getvalue(), io.BytesIO()).warnings == ()


def test_behind_the_end_of_what_is_converted() -> None:
    tar = GOOD + END + b"more"
    said = "1 archive is followed by something"
    for options in ({}, {"prioritized": ["good"]}):
        result = stargz.convert(tar, io.BytesIO(), **options)  # type: ignore[arg-type]
        assert [text.startswith(said) for text in result.warnings] == [True]
    kept = io.BytesIO()
    assert stargz.convert(tar.ljust(4096, b"m"), kept, lossless=True).warnings == ()
    lossless = io.BytesIO()
    stargz.convert(GOOD + END, lossless, lossless=True)
    assert stargz.convert(lossless.getvalue(), io.BytesIO()).warnings == ()
    assert stargz.index(lossless.getvalue(), io.BytesIO()).warnings == ()


@pytest.mark.parametrize("name", ["t.tar", "t.tar.gz", "t.tar.zst"])
def test_nothing_is_an_empty_archive(name: str, tmp_path: Path) -> None:
    """For all commands alike, and said by all of them; but a file of nothing is told of as that."""
    import zstandard

    wraps: dict[str, Callable[[bytes], bytes]] = {
        "t.tar": bytes, "t.tar.gz": gzip.compress, "t.tar.zst": zstandard.compress
    }  # fmt: skip
    path = tmp_path / name
    for data, said in ((b"", "no bytes"), (Z, "cut short"), (END, ""), (bytes(10240), "")):
        path.write_bytes(wraps[name](data))
        if not path.stat().st_size:
            for words in (("ls", path), ("index", path)):
                assert fails_here(1, *words).endswith("it is empty")
            continue
        for words in (("ls", path), ("index", "--force", path)):
            done = here(*words)
            assert done.returncode == 0
            assert said in done.stderr and bool(said) == bool(done.stderr), done
        assert ok_here("ls", path) == ""
        Path(f"{path}.index").unlink()
    path.write_bytes(bytes(100))
    fails_here(1, "ls", path)


# --- an index of another blob -------------------------------------------------------------------


def test_an_index_of_another_blob_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    entries: list[Any] = [("a", b"a" * 5000), ("b", b"b" * 5000)]
    path.write_bytes(blobs.tar_of(entries))
    stargz.index(path)
    later = time.time() + 1000  # an older one is not used at all
    os.utime(f"{path}.index", (later, later))
    path.write_bytes(blobs.tar_of([(name, data.upper()) for name, data in entries]))
    hint = f"{path}.index may be of another blob: make it anew ('stargz index --force')"
    assert fails_here(3, "cat", path, "a").endswith(hint)
    path.write_bytes(blobs.tar_of([(name.upper(), data) for name, data in entries]))
    with stargz.open(path) as layer, pytest.raises(TOCError, match=r"does not fit; .*--force"):
        layer.read("a")
    ok_here("index", "--force", path)
    assert ok_here("cat", path, "A") == "a" * 5000
