"""ls, find, du and tree beside the programs of these names, which see the same files extracted."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command import command, environment, fails, ok, run
from layouts import Layout

import stargz
from stargz.cli import main
from stargz.cli._output import human_size

MIB = 1 << 20
# Name, size, mode, modification time.
FILES = [
    (".hidden", 7, 0o600, 1_700_000_000),
    ("a b/space d", 40, 0o644, 1_600_000_000),
    ("etc/conf", 700, 0o644, 1_500_000_000),
    ("etc/empty", 0, 0o644, 1_500_000_001),
    ("etc/UPPER.CONF", 512, 0o640, 1_500_000_002),
    ("new\nline", 3, 0o644, 1_650_000_000),
    ("red\x1b[31m", 3, 0o644, 1_650_000_000),
    ("sizes/below", MIB - 1, 0o644, 1_400_000_003),
    ("sizes/above", MIB + 1, 0o444, 1_400_000_002),
    ("sizes/just", MIB, 0o644, 1_400_000_001),
    ("sizes/tie", MIB, 0o644, 1_400_000_001),
    ("usr/bin/set", 20, 0o4755, 1_450_000_000),
    ("usr/bin/tool", 5000, 0o755, 1_450_000_001),
    ("usr/lib/deep/er/x.so", 9000, 0o755, 1_450_000_002),
    ("usr/lib/x.so", 9001, 0o755, 1_450_000_003),
    ("usr/lib/\u00fc.so", 1, 0o755, 1_450_000_004),
]
LINKS = {"bin": "usr/bin", "usr/bin/alias": "tool", "dangling": "nowhere", "loop": "loop"}
HARD = {"usr/bin/zhard": "usr/bin/tool", "sizes/zhard": "sizes/above"}


def sample() -> bytes:
    names = [name for name, *_ in FILES] + [*LINKS, *HARD, "hollow/x"]
    folders = {name.rpartition("/")[0] for name in names if "/" in name} | {"usr", "usr/lib/deep"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int = 0o755, link: str = "", size: int = 0) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode, info.size = kind, link, mode, size
            info.mtime = times.get(name, 1_300_000_000)
            tar.addfile(info, io.BytesIO(bytes(size)))

        times = {name: time for name, _, _, time in FILES}
        for name in sorted(folders):
            add(name, tarfile.DIRTYPE)
        for name, size, mode, _ in FILES:
            add(name, tarfile.REGTYPE, mode, size=size)
        for name, target in LINKS.items():
            add(name, tarfile.SYMTYPE, 0o777, target)
        for name, target in HARD.items():
            add(name, tarfile.LNKTYPE, link=target)
    return out.getvalue()


def said(*words: object) -> str:
    """What `stargz WORDS` prints, which must succeed, in this process: a new one for each line of
    the tables takes most of their time."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")
    with contextlib.redirect_stdout(out):
        assert main([str(word) for word in words]) == 0, words
    out.flush()
    return out.buffer.getvalue().decode()  # type: ignore[attr-defined]


class Both(NamedTuple):
    """A layer, and its files as `extract` wrote them."""

    layer: Path
    root: Path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    path = tmp_path_factory.mktemp("listing")
    stargz.convert(sample(), path / "layer.stargz")
    ok("extract", path / "layer.stargz", "--setid", "-C", path / "root", "-q")
    return Both(path / "layer.stargz", path / "root")


@pytest.fixture(scope="module")
def system(both: Both) -> Callable[..., str]:
    """Run a program of the system among the extracted files; what it prints."""

    def call(*words: str) -> str:
        env = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        env.pop("LS_BLOCK_SIZE", None)
        done = subprocess.run(
            words, cwd=both.root, env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    return call


def names(text: str) -> list[str]:
    return text.removesuffix("\0").split("\0") if text else []


# --- find -----------------------------------------------------------------------------------

EXPRESSIONS = [
    "",
    "-name *.so",
    "-name ?.so",
    "-name .*",
    "-name [a-e]*",
    "-iname *.conf",
    "-path ./usr/*.so",
    "-ipath ./USR/l*",
    "-type f",
    "-type d",
    "-type l",
    "-type l,d",
    "-type c,b,p",
    "-type f -size +1000c",
    "-type f -size -1000c",
    "-type f -size 1048576c",
    "-type f -size 0",
    "-newer etc/conf",
    "-newer bin",
    "-newermt 2017-07-14",
    "-newermt @1500000000",
    "! -newermt 2017-07-14",
    "-perm 644",
    "-perm 0644",
    "-perm -111",
    "-perm /6000",
    "-perm -4000",
    "-perm /222 -type f",
    "-maxdepth 1",
    "-maxdepth 0",
    "-mindepth 3",
    "-mindepth 2 -maxdepth 2 -type f",
    "-type f ! -name *o*",
    "-not -not -type d",
    "-name *.so -o -name conf",
    "-type d -name u* -or -type f -a -name t*",
    "-name x.so -size +9000c -o ! -type f -name a*",
    "-type f -empty",
    "( -name *.so -o -name conf ) -size +700c -type f",
    "! ( -type d -o -type l ) -perm /222",
    "( ! ( ( -name x* ) ) -type f -a ( -size 0 -o -name a* ) )",
    "-type d ( -name usr -o ( -name e* ! -name er ) ) -o -name t*",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_find_finds_what_find_finds(
    expression: str, both: Both, system: Callable[..., str]
) -> None:
    words = expression.split()
    # Alternatives bind less than the -print0 behind them, there.
    theirs = system("find", ".", *(["(", *words, ")"] if words else []), "-print0")
    ours = names(said("find", both.layer, *words, "-0"))
    assert sorted(ours) == sorted(n.removeprefix("./") for n in names(theirs) if n != ".")
    assert ours == sorted(ours, key=lambda name: name.encode().split(b"/"))


def test_find_begins_where_it_is_told_to(both: Both, system: Callable[..., str]) -> None:
    theirs = names(system("find", "usr/lib", "etc/conf", "-name", "*o*", "-print0"))
    ours = names(ok("find", both.layer, "usr/lib", "etc/conf", "-name", "*o*", "-print0"))
    assert sorted(ours) == sorted(theirs)
    assert ours[-1] == "etc/conf"
    assert ok("find", both.layer, "etc", "-maxdepth", 0) == "etc\n"
    theirs = names(system("find", "-H", "bin", "-type", "f", "-print0"))
    ours = names(ok("find", both.layer, "bin", "-type", "f", "-print0"))
    assert sorted(ours) == sorted(theirs)
    assert "bin/tool" in ours
    # What a pattern matches is not followed: usr has it already.
    assert ok("find", both.layer, "b*", "-name", "*") == "bin\n"
    assert "bin/tool" in ok("find", both.layer, "b*/", "-name", "*")
    pruned = ok("find", both.layer, "usr", "-name", "x*", "--exclude", "deep")
    assert pruned == "usr/lib/x.so\n"


def test_the_expression_may_stand_anywhere_and_have_two_dashes(both: Both) -> None:
    layer = both.layer
    for words in (
        [layer, "usr", "-name", "*o*", "-size", "+1k", "!", "-name", "*.so"],
        ["-name", "*o*", "-size", "+1k", "!", "-name", "*.so", layer, "usr"],
        [layer, "--name", "*o*", "usr", "--size", "+1k", "--not", "--name", "*.so"],
        [layer, "-name=*o*", "-size=+1k", "--not", "--name=*.so", "usr"],
        ["-q", "-name", "*o*", "-size", "-1M", "-size", "+1k", "-not", "-name", "*.so", "--",
         layer, "usr"],
    ):  # fmt: skip
        assert said("find", *words) == "usr/bin/tool\n", words


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ("+1M", ["sizes/above", "sizes/zhard"]),
        ("1M", ["sizes/just", "sizes/tie"]),
        ("1048576", ["sizes/just", "sizes/tie"]),
        ("1024KiB", ["sizes/just", "sizes/tie"]),
    ],
)
def test_sizes_are_exact(size: str, found: list[str], both: Both) -> None:
    assert said("find", both.layer, "sizes", "-size", size).split() == found


def test_minus_a_unit_is_what_is_smaller(both: Both) -> None:
    found = names(said("find", both.layer, "-size", "-1M", "-0"))
    files = {name for name, size, *_ in FILES if size < MIB} | {"usr/bin/zhard"}
    assert set(found) == files


def test_find_by_owner(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, uid, uname in (("a", 0, "root"), ("b", 33, "www"), ("c", 34, ""), ("d", 7, "33")):
            info = tarfile.TarInfo(name)
            info.uid = info.gid = uid
            info.uname = info.gname = uname
            tar.addfile(info)
    stargz.convert(out.getvalue(), tmp_path / "l")
    for test in ("-user", "-group"):
        assert said("find", tmp_path / "l", test, "www").split() == ["b"]
        assert said("find", tmp_path / "l", test, "33").split() == ["b", "d"]
        assert said("find", tmp_path / "l", test, "34").split() == ["c"]
        assert said("find", tmp_path / "l", test, "nobody") == ""


def test_find_long_and_json(both: Both) -> None:
    line = ok("find", both.layer, "usr", "-name", "tool", "-ls")
    assert line == ok("ls", "-l", both.layer, "usr/bin/tool")
    assert line == ok("find", both.layer, "usr", "-name", "tool", "-l")
    entries = json.loads(ok("find", both.layer, "bin", "-name", "[tz]*", "--json"))
    assert [entry["name"] for entry in entries] == ["usr/bin/tool", "usr/bin/zhard"]
    assert entries == json.loads(ok("ls", both.layer, "bin/tool", "bin/zhard", "--json"))
    assert json.loads(ok("find", both.layer, "-name", "nothing", "--json")) == []


WRONG = {
    "-nome x": ("-nome", "-name -iname"),
    "-prune": ("-prune", "--exclude"),
    "-exec rm": ("-exec", "-newermt"),
    "-name": ("-name", "argument"),
    "-size 1X": ("'1X'", "+1M"),
    "-size 10b": ("'10b'", "+1M"),
    "-type q": ("'q'", "f (files)"),
    "-type f,": ("'f,'", "f (files)"),
    "-perm 999": ("'999'", "644"),
    "-perm u+x": ("'u+x'", "644"),
    "-maxdepth -1": ("-maxdepth", "'-1'"),
    "-newermt yesterday": ("'yesterday'", "2024-01-31"),
    "-name x -o": ("-o", "missing"),
    "-o -name x": ("-o", "missing"),
    "!": ("-not", "missing"),
    "-name x -not": ("-not", "missing"),
    "( -name x": ("( without a )",),
    "-name x )": (") without a (",),
    "-name x -o ( )": ("missing before )",),
    "( " * 101 + "-empty" + " )" * 101: ("over 100 deep",),
}


@pytest.mark.parametrize("expression", WRONG)
def test_wrong_expressions_are_wrong_usage(
    expression: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find", "no-such-layer", *expression.split()]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    for word in (*WRONG[expression], "stargz find --help"):
        assert word in text


def test_newer_than_what_is_not_there(both: Both) -> None:
    text = fails(1, "find", both.layer, "-newer", "2024-01-31")
    assert text.startswith(f"{both.layer}: no entry '2024-01-31' for -newer")
    assert "-newermt takes a date" in text


# --- ls -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "-1",
        "-1t",
        "-1S",
        "-1F",
        "-1p",
        "-1r",
        "-1tr",
        "-1Sr",
        "-1tS",
        "-1St",
        "-1a",
        "-1A",
        "-A1rt",
    ],
)
def test_ls_sorts_as_ls(options: str, both: Both, system: Callable[..., str]) -> None:
    theirs = system("ls", options.replace("a", "A"), "sizes", "etc")
    assert said("ls", options, both.layer, "etc", "sizes") == theirs
    for path in ("usr/lib/x.so", "sizes"):
        assert said("ls", options, both.layer, path) == system(
            "ls", options.replace("a", "A"), path
        )


@pytest.mark.parametrize(
    "words",
    ["etc usr/lib/x.so sizes", "bin etc/conf", "dangling", "-d bin etc .", "-d bin/",
     "-R", "-R etc bin", "-d usr/bin/tool bin/tool", "-F bin etc", "bin/alias bin/tool"],
)  # fmt: skip
def test_ls_of_several(words: str, both: Both, system: Callable[..., str]) -> None:
    if "-R" in words.split():  # full paths, as find's
        paths = words.split()[1:] or ["."]
        theirs = "".join(
            system("find", "-H", path, "-mindepth", "1", "-print0") for path in sorted(paths)
        )
        ours = names(said("ls", "-0", both.layer, *words.split()))
        assert sorted(ours) == sorted(name.removeprefix("./") for name in names(theirs))
        return
    # They keep the slash that was typed.
    theirs = system("ls", "-1", *words.split()).replace("bin/\n", "bin\n")
    assert said("ls", both.layer, *words.split()) == theirs


def test_ls_of_patterns_is_ls_of_what_the_shell_makes_of_them(
    both: Both, system: Callable[..., str]
) -> None:
    for pattern in ("etc/*", "usr/lib/*.so", "s*", "usr/*", "b*"):
        assert said("ls", both.layer, pattern) == system("sh", "-c", f"ls -1 {pattern}"), pattern
        assert said("ls", "-d", both.layer, pattern) == system("sh", "-c", f"ls -1d {pattern}")
    assert said("ls", both.layer, "usr/**/*.so", "--exclude", "deep").splitlines() == [
        "usr/lib/x.so",
        "usr/lib/\u00fc.so",
    ]
    assert "no entry matches 'x*'" in fails(1, "ls", both.layer, "etc", "x*")
    assert said("ls", both.layer, "--exclude", "*zhard", "sizes").split() == [
        "above", "below", "just", "tie",
    ]  # fmt: skip


def test_ls_long(both: Both) -> None:
    lines = said("ls", "-lhS", both.layer, "sizes", "usr/bin", "bin").splitlines()
    assert lines[0] == "lrwxrwxrwx 0/0                      7 2011-03-13 07:06 bin -> usr/bin"
    sizes = lines.index("sizes:")
    assert [line.split()[2:] for line in lines[sizes + 1 : sizes + 6]] == [
        ["1.1M", "2014-05-13", "16:53", "above"],
        ["1.1M", "2014-05-13", "16:53", "zhard", "link", "to", "sizes/above"],
        ["1.0M", "2014-05-13", "16:53", "just"],
        ["1.0M", "2014-05-13", "16:53", "tie"],
        ["1.0M", "2014-05-13", "16:53", "below"],
    ]
    assert said("ls", "-l", both.layer, "bin/", "-d").split()[-1] == "bin"
    assert said("ls", "-ld", both.layer).endswith(" .\n")
    assert said("ls", "-lFd", both.layer, "bin", "usr").endswith(" usr/\n")
    assert said("ls", "-n", both.layer, "etc") == said("ls", "-l", both.layer, "etc")
    assert said("ls", "-laR", both.layer) == said("ls", both.layer, "-R", "-l", "-a")


def test_human_sizes_are_those_of_ls(tmp_path: Path) -> None:
    tenths = (0, 10, 11, 12, 98, 99, 100, 101, 9_990, 10_000, 10_230, 10_231, 10_240)
    sizes = sorted({max(n * 1024**p // 10 + e, 0) for n in tenths for p in range(5)
                    for e in (-1, 0, 1)})  # fmt: skip
    theirs = []
    for size in sizes:
        with (tmp_path / f"{size:020}").open("wb") as file:
            file.truncate(min(size, 8 << 40))
    for line in subprocess.check_output(["ls", "-lh", tmp_path], text=True).splitlines()[1:]:
        theirs.append(line.split()[4])
    assert [human_size(min(size, 8 << 40)) for size in sizes] == theirs


def test_landmarks_are_shown_by_a(both: Both) -> None:
    plain, whole = said("ls", both.layer).splitlines(), said("ls", "-a", both.layer).splitlines()
    assert set(whole) - set(plain) == {".no.prefetch.landmark"}
    assert ".hidden" in plain
    assert said("ls", "-a", both.layer, ".no*") == ".no.prefetch.landmark\n"
    assert ".no.prefetch.landmark" in said("tree", "-a", both.layer)
    assert ".no.prefetch.landmark" not in said("tree", both.layer)


def test_json_is_one_list_in_the_order_of_the_lines(both: Both) -> None:
    entries = json.loads(ok("ls", "-t", "--json", both.layer, "sizes", "etc", "bin/set"))
    found = [entry["name"] for entry in entries]
    lines = ok("ls", "-t", both.layer, "sizes", "etc", "bin/set").splitlines()
    assert [name.rpartition("/")[2] for name in found] == [
        line.rpartition("/")[2] for line in lines if line and not line.endswith(":")
    ]
    assert {"name", "type", "size", "modtime", "digest"} <= set(entries[1])


def test_names_for_xargs_and_for_terminals(both: Both) -> None:
    found = names(ok("ls", "-0", both.layer))
    assert {"new\nline", "red\x1b[31m", "a b"} <= set(found)
    assert names(ok("ls", "-0", both.layer, "a b", "etc")) == [
        "a b/space d", "etc/UPPER.CONF", "etc/conf", "etc/empty",
    ]  # fmt: skip
    for name in ("ls", "find", "tree"):
        terminal, side = os.openpty()
        assert run(name, both.layer, stdout=side).returncode == 0
        shown = os.read(terminal, 65536).decode()
        os.close(side)
        os.close(terminal)
        assert "new\\nline" in shown
        assert "red\\x1b[31m" in shown
    xargs = subprocess.run(
        ["xargs", "-0", "-n1", "printf", "<%s>"], input="\0".join(found), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert "<new\nline>" in xargs.stdout


def test_h_alone_is_help_and_with_a_layer_sizes(both: Both) -> None:
    for name in ("ls", "du", "tree"):
        assert ok(name, "-h") == ok(name, "--help")
        assert "usage:" not in ok(name, "-h", both.layer)
    assert ok("find", "-h").startswith("usage: stargz find")


@pytest.mark.parametrize(
    "words",
    ["ls", "ls -lh", "ls -lhx y", "ls -Z x", "ls x --exclude", "find", "du",
     "du -s -d 1 x", "du -d x y", "tree", "tree -L 0 x", "tree -L -1 x"],
)  # fmt: skip
def test_wrong_usage(words: str) -> None:
    text = fails(2, *words.split())
    if words in ("ls", "ls -lh", "find", "du", "tree"):
        assert "required: SRC;" in text
    if words == "ls -lhx y":
        assert "no option -x" in text


# --- du -------------------------------------------------------------------------------------


def contents(text: str, root: Path) -> dict[str, int]:
    """What du says, less what it counts of directories and symlinks themselves."""
    found = {}
    for line in text.splitlines():
        size, path = line.split("\t")
        own = sum(
            os.lstat(Path(folder, name)).st_size
            for folder, folders, files in os.walk(root / path)
            for name in [".", *files, *(f for f in folders if Path(folder, f).is_symlink())]
            if name == "." or Path(folder, name).is_symlink()
        )
        found[path.removeprefix("./")] = int(size) - own
    return found


@pytest.mark.parametrize(
    "options",
    [
        "-b",
        "-bs",
        "-bd1",
        "-b --max-depth=2",
        "-bs sizes usr",
    ],
)
def test_du_is_dus(options: str, both: Both, system: Callable[..., str]) -> None:
    theirs = contents(system("du", *options.split()), both.root)
    lines = [line.split("\t") for line in said("du", both.layer, *options.split()).splitlines()]
    assert {path: int(size) for size, path in lines} == theirs
    paths = [path for _, path in lines if path != "."]
    for i, path in enumerate(paths):  # what is in a directory before it
        assert not any(later.startswith(f"{path}/") for later in paths[i + 1 :])


def test_du_units(both: Both) -> None:
    layer = both.layer
    total = sum(size for _, size, *_ in FILES)
    assert said("du", "-bs", layer) == f"{total}\t.\n"
    assert said("du", "-s", layer) == said("du", "-ks", layer) == f"{-(-total // 1024)}\t.\n"
    assert said("du", "-ms", layer) == f"{-(-total // MIB)}\t.\n"
    assert said("du", "-hs", layer) == f"{human_size(total)}\t.\n"
    assert said("du", "-bs", layer, "usr/bin", "usr", "usr") == "5020\tusr/bin\n18002\tusr\n"
    assert (
        said("du", "-bsc", layer, "etc", "usr/lib") == "1212\tetc\n18002\tusr/lib\n19214\ttotal\n"
    )
    assert said("du", "-ab0", layer, "etc").split("\0")[:2] == [
        "512\tetc/UPPER.CONF",
        "700\tetc/conf",
    ]
    assert said("du", "-b", layer, "--exclude", "*.so", "usr/lib").endswith("0\tusr/lib\n")
    assert said("du", "-b", layer, "bin") == "5020\tbin\n"
    assert json.loads(said("du", "--json", layer, "etc", "-a"))[-1] == {"name": "etc", "size": 1212}


@pytest.mark.parametrize("options", [{}, {"min_chunk_size": 1 << 16}, {"chunk_size": 4096}])
def test_compressed_sizes_add_up_to_the_blob(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "layer"
    stargz.convert(sample(), path, **options)
    with stargz.open(path) as layer:
        chunks = [c for e in layer.toc if e.type == "reg" for c in layer.toc.chunks(e.name)]
        end = layer.data_end
        offsets = sorted({c.offset for c in chunks} | {end})
        # What begins with the landmark, which is first, is not shown.
        first = offsets["min_chunk_size" not in options]
        tool = layer.toc.chunks("usr/bin/tool")[0]
        member = offsets[offsets.index(tool.offset) + 1] - tool.offset
        beside = sum(c.size for c in chunks if c.offset == tool.offset)
    total = int(ok("du", "--compressed", "-bs", path).split()[0])
    assert abs(first + total - end) <= (1 + end // 100 if first == offsets[0] else 1)
    if "chunk_size" not in options:
        one = ok("du", "--compressed", "-b", path, "usr/bin/tool").split()[0]
        assert int(one) == -(-member * tool.size // beside)


# --- tree -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", ["", "-L 1", "-L 2", "-d", "-dL 2", "-I *.so|etc", "--noreport", "usr etc", "bin"]
)
def test_tree_is_trees(options: str, both: Both, tool: Callable[[str], str]) -> None:
    program = tool("tree")
    words = options.split()
    for locale in ("C.UTF-8", "C"):
        env = {"LC_ALL": locale, "PATH": os.environ["PATH"]}
        theirs = subprocess.run(
            [program, "-aN", *words],
            cwd=both.root,
            env=env,
            capture_output=True,
            check=True,
        ).stdout.decode()
        ours = ok("tree", both.layer, *words, env={"LC_ALL": locale, "PYTHONUTF8": "1"})
        assert ours == theirs.replace("\u00a0", " "), locale


def test_tree_with_sizes(both: Both) -> None:
    assert said("tree", "-s", both.layer, "etc").splitlines()[:2] == [
        "[          0]  etc",
        "├── [        512]  UPPER.CONF",
    ]
    lines = said("tree", "-h", both.layer, "sizes", "--exclude", "t*").splitlines()
    assert lines[1] == "├── [1.1M]  above"
    assert lines[-1] == "1 directory, 4 files"
    found = json.loads(said("tree", "--json", "-d", both.layer, "usr"))
    assert [entry["name"] for entry in found] == [
        "usr/bin", "usr/lib", "usr/lib/deep", "usr/lib/deep/er",
    ]  # fmt: skip


# --- images, pipes ---------------------------------------------------------------------------


def test_the_same_of_an_image(both: Both, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, size in (("usr/bin/.wh.tool", 0), ("usr/bin/.wh.zhard", 0), ("usr/new", 6000)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.manifest([layout.layer(sample()), layout.layer(out.getvalue())]), "v1")
    src = f"oci:{tmp_path}/layout:v1"
    found = said("image", "find", src, "usr", "-size", "+5k").split()
    assert found == ["usr/lib/deep/er/x.so", "usr/lib/x.so", "usr/new"]
    assert said("image", "ls", "-1S", src, "usr").split() == ["new", "bin", "lib"]
    assert said("image", "du", "-b", src, "usr/bin", "usr/new") == "20\tusr/bin\n6000\tusr/new\n"
    assert int(said("image", "du", "-b", "--compressed", src, "usr/new").split()[0]) < 6000
    assert said("image", "tree", src, "usr/bin").splitlines()[1:3] == [
        "├── alias -> tool",
        "└── set",
    ]
    assert ".no.prefetch.landmark" in said("image", "ls", "-a", src).split()
    assert "'stargz image ls -R" in fails(1, "image", "find", src, "no/such")
    # A number below nought is of --layer, and no option.
    assert said("ls", "--layer", "-1", src, "usr/bin").split() == [".wh.tool", ".wh.zhard"]
    assert said("ls", "-1", src, "--layer", "-2", "sizes", "-r").split()[-1] == "above"


def test_a_closed_pipe_ends_them_quietly(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for n in range(3000):
            tar.addfile(tarfile.TarInfo(f"{'long' * 20}-{n}"))
    stargz.convert(out.getvalue(), tmp_path / "layer")
    for words in (["ls"], ["ls", "-0"], ["find"], ["du", "-a"], ["tree"]):
        with subprocess.Popen(
            command(*words, tmp_path / "layer"), env=environment(), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout
            assert process.stderr
            process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == -13, words
