"""`stargz bench`: what it measures, on small inputs and with the programs that are here."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import layouts
import pytest
from absence import absent
from command import command, environment, fails, fails_here, here, run
from mounts import needs_fuse

from stargz.benchmark import measuring, peers, tally, trees
from stargz.benchmark.measuring import Cell, measure

ROOT = Path(__file__).parent.parent


def make_tree(root: Path) -> Path:
    """A few files of all the kinds that matter."""
    (root / "usr/lib").mkdir(parents=True)
    for number in range(30):
        text = "".join(f"{number} line {line}\n" for line in range(40 * number))
        (root / f"usr/lib/file-{number}").write_text(text)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0\n")
    (root / "etc/hard").hardlink_to(root / "etc/passwd")
    (root / "etc/soft").symlink_to("passwd")
    (root / "-odd \x1b[31m name").write_text("odd\n")
    return root


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    path = folder / "small.tar.gz"
    subprocess.run(["tar", "-C", make_tree(folder / "tree"), "-czf", path, "."], check=True)
    return path


def program(name: str) -> str:
    """Where a program is, that Debian has in a package of its name, or everybody has."""
    return shutil.which(name) or absent(f"needs {name}: apt-get install {name}")


def programs(folder: Path, *names: str, **scripts: str) -> str:
    """A PATH that has only these programs, and scripts of these names."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(program(name))
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def bench(*args: object, **options: Any) -> tuple[int, dict[str, Any], str]:
    """`stargz bench -q --quick --json ARGS`: its exit code, its report and what it says."""
    done = run("bench", "-q", "--quick", "--json", *args, **options)
    return done.returncode, json.loads(done.stdout), done.stderr


def cells(report: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    (given,) = report["inputs"]
    (found,) = [one for one in given["measurements"] if one["name"] == name]
    return {cell["name"]: cell for cell in found["cells"]}


# --- all of it --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(
    packed: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], str, Path]:
    """One run of it all, with three programs that are always there, one that fails and one that
    does nothing; its page, and the folder for temporary files."""
    folder = tmp_path_factory.mktemp("everything")
    (folder / "tmp").mkdir()
    path = programs(
        folder / "bin", "gzip", "tar", "zstd", "find", "umount",
        igzip="echo igzip: out of order >&2; exit 4", pigz="exit 0",
    )  # fmt: skip
    page = folder / "page.html"
    code, report, said = bench(
        "--rounds", 1, "--report", page, packed, env={"PATH": path, "TMPDIR": str(folder / "tmp")}
    )
    assert (code, said) == (0, "")
    return report, page.read_text(), folder / "tmp"


def test_everything_is_measured(everything: tuple[dict[str, Any], str, Path]) -> None:
    report, _, tmp = everything
    (given,) = report["inputs"]
    assert [one["name"] for one in given["measurements"]] == [
        "convert", "index", "open", "file", "files", "verify", "extract", "mount-find",
        "mount-stat", "mount-sequential", "mount-random", "mount-small", "mount-all", "pack",
        "delta", "apply", "image",
    ]  # fmt: skip
    mounted = Path("/dev/fuse").exists() and not os.geteuid()
    for one in given["measurements"]:
        ours = [cell for cell in one["cells"] if cell["ours"]]
        assert ours
        for cell in ours:
            if one["name"].startswith("mount") and not mounted:
                assert "fuse" in cell["error"]
                continue
            assert cell["state"] == "ok", (one["name"], cell)
            assert len(cell["seconds"]) == report["rounds"] == 1
            assert cell["median"] == cell["seconds"][0] > 0
    converted = cells(report, "convert")
    assert {"stargz --level 1", "stargz --level reuse", "gzip -6", "zstd -3 -T0"} <= set(converted)
    assert all(cell["bytes"] > 100 for cell in converted.values() if not cell["error"])
    assert "stargz pack --base" in cells(report, "pack")
    assert not list(tmp.iterdir())


def test_the_machine_and_the_programs_are_named(
    everything: tuple[dict[str, Any], str, Path],
) -> None:
    report, _, _ = everything
    assert report["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert report["machine"]["cpu"] and report["machine"]["scratch"]
    found = {peer["name"]: peer["version"] for peer in report["peers"]}
    said = subprocess.run(["gzip", "--version"], capture_output=True, text=True).stdout
    assert found["gzip"] in said.splitlines()[0]
    assert {"tar", "zstd", "tarfile", "zipfile"} <= set(found)
    missing = {peer["name"]: peer["get"] for peer in report["missing"]}
    assert missing["squashfuse"] == "apt-get install squashfuse"
    assert not set(found) & set(missing)
    assert all(missing.values())


def test_what_fails_is_told_in_its_place(everything: tuple[dict[str, Any], str, Path]) -> None:
    report, page, _ = everything
    cell = cells(report, "convert")["igzip -1"]
    assert cell["error"] == "igzip: out of order (exit code 4)"
    assert (cell["state"], cell["median"], cell["seconds"]) == ("failed", None, [])
    assert "failed: igzip: out of order (exit code 4)" in page


def test_who_does_nothing_is_not_fast(everything: tuple[dict[str, Any], str, Path]) -> None:
    report, _, _ = everything
    for name, cell in (("convert", "pigz -6"), ("files", "pigz -dc"), ("pack", "tar | pigz -6")):
        found = cells(report, name)[cell]
        assert found["state"] in ("wrong", "failed") and found["median"] is None, found


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.tags: list[str] = []
        self.labels: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action", "poster") or (
                name == "href" and not str(value).startswith("#")
            ):
                self.outside.append(f"{tag} {name}={value}")
            if name == "aria-label":
                self.labels.append(str(value))


def test_the_page_needs_nothing_else(everything: tuple[dict[str, Any], str, Path]) -> None:
    report, text, _ = everything
    page = Page()
    page.feed(text)
    assert not page.outside
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert "@import" not in text and "url(" not in text
    found = [cell for one in report["inputs"][0]["measurements"] for cell in one["cells"]]
    measured = [cell for cell in found if cell["median"]]
    assert len(page.labels) == len(measured) == page.tags.count("svg")
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text
    data = text.partition('id="report">')[2].partition("</script>")[0]
    assert json.loads(data) == report


def test_names_cannot_break_the_page(packed: Path, tmp_path: Path) -> None:
    source = tmp_path / "<script>alert(1)<\\script>\x1b[31m.tar.gz"
    shutil.copy(packed, source)
    done = here("bench", "--only", "open", "--rounds", 1, "--report", tmp_path / "page", source)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page").read_text()
    assert "<script>alert" not in text and "\x1b" not in text
    assert "\x1b" not in done.stdout


def test_a_log_tells_how_far_it_is(packed: Path) -> None:
    """A line for each measurement where no terminal shows them; with -v one for each run."""
    words = ("bench", "--quick", "--only", "open,verify", "--rounds", 1, packed)
    said = re.sub(r"\d+ s", "N s", here(*words).stderr)
    assert said == f"stargz: {packed}: open: N s (1 of 2)\nstargz: {packed}: verify: N s (2 of 2)\n"
    assert len(here(*words, "-v").stderr.splitlines()) > 4
    assert not here(*words, "-q").stderr


# --- inputs -----------------------------------------------------------------------------------


def test_every_kind_of_input(packed: Path, tmp_path: Path) -> None:
    tree = packed.with_name("tree")
    tar, zst = tmp_path / "plain.tar", tmp_path / "small.tar.zst"
    subprocess.run(["tar", "-C", tree, "-cf", tar, "."], check=True)
    subprocess.run([program("zstd"), "-q", tar, "-o", zst], check=True)
    layout = layouts.Layout(tmp_path / "layout")
    layers = [layout.plain_layer(tar.read_bytes(), packed.read_bytes())]
    layout.tag(layout.manifest(layers))
    blob = tmp_path / "blob"
    shutil.copy(packed, blob)
    sources = [tree, tar, zst, blob, layout.path, f"oci:{layout.path}"]
    done = here("bench", "-q", "--quick", "--json", "--only", "verify", "--rounds", 1, *sources)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    kinds = [given["kind"] for given in report["inputs"]]
    assert kinds == ["directory", "tar", "tar.zst", "tar.gz", "image", "image"]
    assert [given["source"] for given in report["inputs"]] == list(map(str, sources))
    for given in report["inputs"]:
        assert (given["files"], given["file_bytes"]) == (
            report["inputs"][0]["files"], report["inputs"][0]["file_bytes"],
        )  # fmt: skip
        states = {cell["state"] for one in given["measurements"] for cell in one["cells"]}
        assert states == {"ok"}, given


def test_an_image_is_measured_as_it_is(packed: Path, tmp_path: Path) -> None:
    """Its tar.gz is not packed again; and others can read the layout, also of Docker's types."""
    from stargz.benchmark.inputs import Input
    from stargz.oci.formats.manifest import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST

    layout = layouts.Layout(tmp_path / "layout")
    entry = layout.manifest([layout.plain_layer(gzip.decompress(packed.read_bytes()))])
    text = json.loads((layout.blobs / str(entry["digest"])[7:]).read_bytes())
    text["mediaType"] = DOCKER_MANIFEST
    text["config"]["mediaType"] = DOCKER_CONFIG
    text["layers"][0]["mediaType"] = DOCKER_LAYER
    layout.tag(layout.blob(json.dumps(text).encode(), DOCKER_MANIFEST))
    (tmp_path / "work").mkdir()
    given = Input(f"oci:{layout.path}", tmp_path / "work")
    assert given.was_packed and given.packed.name == "layer.tar.gz"
    blob = layout.blobs / text["layers"][0]["digest"][7:]
    assert given.packed.read_bytes() == blob.read_bytes()
    (named,) = json.loads((given.layout / "index.json").read_text())["manifests"]
    assert named["mediaType"] == layouts.OCI_MANIFEST
    copy = json.loads((given.layout / "blobs/sha256" / named["digest"][7:]).read_text())
    assert copy["config"]["mediaType"] == layouts.OCI_CONFIG
    assert copy["layers"][0]["mediaType"] == layouts.OCI_LAYER


def test_threads_are_processors_of_all(packed: Path, tmp_path: Path) -> None:
    """Of other programs too: gzip says here how many it may run on."""
    script = f'nproc >> {tmp_path}/said; exec {shutil.which("gzip")} "$@"'
    path = programs(tmp_path / "bin", "tar", gzip=script)
    path += f":{Path(shutil.which('nproc') or '').parent}"
    words = ("--only", "verify", "--rounds", 1, "--threads", 1, packed)
    code, report, _ = bench(*words, env={"PATH": path})
    assert code == 0
    assert report["machine"]["cores"] == 1
    assert set((tmp_path / "said").read_text().split()) == {"1"}


def test_without_input_it_is_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stargz.cli import bench as module

    monkeypatch.setattr(module, "_QUICK_CAP", 1 << 20)
    done = here("bench", "-q", "--quick", "--json", "--only", "open", "--rounds", 1)
    assert (done.returncode, done.stderr) == (0, "")
    (given,) = json.loads(done.stdout)["inputs"]
    assert given["source"] == "this machine's Python"
    assert given["files"] > 10


@pytest.mark.parametrize("what", ["nothing", "directories", "empty files"])
def test_tars_with_little_in_them(what: str, tmp_path: Path) -> None:
    path = tmp_path / "little.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(0 if what == "nothing" else 3):
            info = tarfile.TarInfo(f"one-{number}")
            info.type = tarfile.DIRTYPE if what == "directories" else tarfile.REGTYPE
            tar.addfile(info)
    only = "convert,index,open,file,files,verify,extract,pack,delta,mount-random,mount-find"
    done = here("bench", "-q", "--quick", "--json", "--only", only, "--rounds", 1, path)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert "no file in it has contents" in cells(report, "pack")["stargz"]["error"]
    assert cells(report, "convert")["stargz --level 1"]["state"] == "ok"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--only", "speed"], 2, "--only speed: measured are convert, index, open"),
        (["--rounds", "0"], 2, "'0' is not a number from 1 to 100"),
        (["nowhere.tar"], 1, "nowhere.tar: No such file"),
        (["https://registry.example/layer.tar.gz"], 2, "a URL"),
        (["/dev/null"], 2, "/dev/null: is no file"),
        (["--report", "nowhere/page.html"], 1, "nowhere/page.html: its directory is missing"),
        (["xz.tar.xz"], 2, "compressed by xz"),
        (["text"], 1, "text: "),
    ],
)
def test_what_cannot_be_measured(
    words: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xz.tar.xz").write_bytes(b"\xfd7zXZ\0" + bytes(100))
    (tmp_path / "text").write_text("no tar\n" * 200)
    assert said in fails_here(code, "bench", *words)


# --- what is wrong, and what is not here ------------------------------------------------------


def test_ours_that_is_wrong_fails_verification(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a layer would be whose files have other contents than the tar's."""
    right = tally.of_layer

    def wrong(layer: Any, found: tally.Tally) -> tally.Tally:
        right(layer, found)
        if found.contents:
            found.contents["usr/lib/file-7"] = bytes(32)
        return found

    monkeypatch.setattr(tally, "of_layer", wrong)
    done = here("bench", "--quick", "--only", "files", "--rounds", 1, packed)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last == "stargz: stargz: wrong: 'usr/lib/file-7' came out with other contents"
    assert "wrong: 'usr/lib/file-7' came out with other contents" in done.stdout


def test_without_fuse_mounts_say_why(packed: Path) -> None:
    if os.geteuid():
        pytest.skip("another /dev needs root")
    script = "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9"
    words = command("bench", "-q", "--quick", "--json", "--only=mount", "--rounds=1", packed)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh", *words],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr}")
    assert (done.returncode, done.stderr) == (0, "")
    for cell in cells(json.loads(done.stdout), "mount-find").values():
        assert cell["state"] == "unable"
        assert "/dev/fuse is missing" in cell["error"]


def test_interrupted_it_leaves_nothing(packed: Path, tmp_path: Path) -> None:
    """In the middle of mounts, of which one is another program's, if that is there."""
    needs_fuse()
    process = subprocess.Popen(
        command("bench", "-q", "--only", "mount", "--rounds", 100, packed),
        env=environment(TMPDIR=str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip

    def mounted() -> list[str]:
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return [line for line in lines if f" {tmp_path}/" in line]

    with process:
        while len(mounted()) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() + process.stderr.read() == b""
    assert not mounted()
    assert not list(tmp_path.iterdir())


# --- how it measures --------------------------------------------------------------------------


def test_runs_alternate() -> None:
    ran: list[str] = []
    found = measure([Cell(name, lambda name=name: ran.append(name)) for name in "abc"], 3)  # type: ignore[misc]
    assert "".join(ran) == "abc" + "abc" + "bca" + "cab"
    assert [len(result.seconds) for result in found] == [3, 3, 3]


def test_one_that_fails_later_is_left_out() -> None:
    runs = iter(range(10))

    def work() -> None:
        if next(runs) == 2:
            raise measuring.PeerError("no more")

    closed: list[str] = []
    found = measure([Cell("a", work, close=lambda: closed.append("a")), Cell("b", lambda: None)], 4)
    assert found[0].error == "no more" and found[0].median is None
    assert found[1].error == "" and len(found[1].seconds) == 4
    assert closed == ["a"]


def test_what_is_not_timed() -> None:
    ran: list[str] = []
    cell = Cell(
        "a", lambda: ran.append("run"), lambda _: ran.append("check"),
        lambda: ran.append("before"), lambda: ran.append("close"),
    )  # fmt: skip
    measure([cell], 2)
    assert ran == [
        *("before", "run", "check"), *("before", "run"), *("before", "run", "check"), "close",
    ]  # fmt: skip


def test_an_edit_is_the_same_each_time(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        tree = make_tree(tmp_path / name)
        before = tally.of_tree(tree, tally.Tally()).contents
        assert trees.edit(tree) >= 1
        after = tally.of_tree(tree, tally.Tally()).contents
        assert before != after
        made.append(after)
    assert made[0] == made[1]


def test_scratch_goes_whatever_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with trees.scratch() as folder:
        assert folder.parent == tmp_path
        (folder / "locked").mkdir()
        (folder / "locked/file").touch()
        (folder / "locked").chmod(0o500)
    assert not list(tmp_path.iterdir())


def test_versions_of_what_is_here() -> None:
    for peer in peers.found():
        assert peer.version[0].isdigit(), (peer.name, peer.version)


def test_it_is_imported_when_it_is_used() -> None:
    for words in (["--version"], ["bench", "--help"], ["demo", "--help"]):
        script = "import sys; from stargz.cli import main; main(sys.argv[1:]); print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
        )
        loaded = done.stdout.splitlines()[-1].split()
        assert "stargz.cli" in loaded
        assert not [name for name in loaded if name.startswith("stargz.benchmark")]


def test_the_developers_benchmarks_import() -> None:
    """They share the peers and the measurements, and CI does not run them."""
    names = sorted(path.stem for path in (ROOT / "bench").glob("bench_*.py"))
    script = f"import {', '.join(f'bench.{name}' for name in names)}"
    path = f"{ROOT}:{ROOT / 'tests'}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
        env=environment(PYTHONPATH=path, PYTHONSAFEPATH=""),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_growth_is_found_with_its_bends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.growth import fit

    xs = [1e3, 1e4, 1e5, 1e6]
    found = fit(xs, [0.1 + 2e-6 * x for x in xs])
    assert (found.fixed, found.each) == (pytest.approx(0.1), pytest.approx(2e-6))
    assert found.exponent == pytest.approx(1) and found.bends == ()
    bent = fit(xs, [0.1 + 2e-6 * x for x in xs[:3]] + [8.0])
    assert bent.bends == (1e6,) and bent.exponent > 1.1
    assert fit(xs, [5.0] * 4).each == pytest.approx(0)


def test_a_report_is_complete_or_not_there(packed: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("an older one")
    assert "is not a file" not in fails(1, "bench", "--report", page, tmp_path / "no.tar")
    assert page.read_text() == "an older one"
