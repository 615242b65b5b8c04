"""The state file of bulk runs: what it keeps, who may have it, what it refuses."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from command import environment

from stargz.errors import StateError
from stargz.oci.bulk.making import Converting
from stargz.oci.bulk.state import KnownImage, KnownLayer, LayerKey, State, default_path

KEY = LayerKey("docker://host", "sha256:a", "options")
LAYER = {"source_size": 7, "size": 5, "status": "converted", "digest": "sha256:b"}
REPORT = {
    **{"source_digest": "sha256:s", "digest": "sha256:d", "size_before": 9, "size_after": 8},
    **{"status": "converted", "destination": "oci:d", "stale": [{}], "warnings": ["w"]},
}
COUNTED = (Converting.images, Converting.layers)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "state.db"


def begun(path: Path | None) -> State:
    state = State(path)
    state.begin("src", "dst", 0.0)
    return state


def test_what_is_kept(path: Path) -> None:
    with begun(path) as state:
        assert state.layer(KEY) is None
        assert state.image("oci:d") is None
        state.keep_layer(KEY, LAYER, "docker://host/repo")
        number = state.claim("oci:s", "oci:d")
        state.finish(number, "converted", 1.5, options="o", report=REPORT)
        state.upload_began("http://host/upload", "host/repo")
    assert sorted(item.name for item in path.parent.iterdir()) == ["state.db"]
    with begun(path) as state:
        assert state.layer(KEY) == KnownLayer(LAYER, "docker://host/repo")
        assert state.image("oci:d") == KnownImage("oci:s", "sha256:s", "o", "sha256:d", REPORT)
        assert list(state.outcomes()) == []
        assert state.totals(*COUNTED)["layers_reused"] == 1
        assert state.uploads() == [("http://host/upload", "host/repo")]
        state.upload_ended("http://host/upload")
        assert state.uploads() == []
        state.forget_layer(KEY)
        assert state.layer(KEY) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": None}, {"destination": 1}, {"digest": 5}, {"size_before": "9"},
        {"layers": {}}, {"stale": ["x"]}, {"warnings": [1]},
    ],
)  # fmt: skip
def test_what_is_no_report_is_forgotten(path: Path, wrong: dict[str, Any]) -> None:
    """Whole as a row, and of other types."""
    with begun(path) as state:
        state.finish(state.claim("oci:s", "oci:d"), "converted", 1.5, report={**REPORT, **wrong})
        assert state.image("oci:d") is None
        state.keep_layer(KEY, {**LAYER, "size": "5"}, "docker://host/repo")
        assert state.layer(KEY) is None


def test_outcomes_and_totals() -> None:
    with begun(None) as state:
        for source, destination in (("a", "x"), ("b", "y"), ("c", "z"), ("d", "")):
            state.claim(source, destination)
        state.finish(1, "converted", 1.0, options="o", report=REPORT)
        state.finish(2, "failed", 1.0, error="why", transient=True)
        state.finish(3, "unchanged", 0.5)
        state.keep_layer(KEY, LAYER, "oci:x")
        assert state.claimed("y") == "b"
        assert state.claimed("nothing") is None
        assert state.claimed("") is None
        assert state.transient() == [(2, "b", "y")]
        found = {outcome.source: outcome for outcome in state.outcomes()}
        assert found["a"].report == REPORT
        assert (found["b"].status, found["b"].error, found["b"].report) == ("failed", "why", None)
        assert found["c"].report is None
        assert found["d"].status == "running"
        assert [one.source for one in state.outcomes("failed")] == ["b"]
        assert state.totals(*COUNTED) == {
            "images": 4, "converted": 1, "unchanged": 1, "failed": 1, "throttled": 0, "skipped": 0,
            "layers": 1, "layers_converted": 1, "layers_kept": 0, "layers_not_seekable": 0,
            "layers_reused": 0, "bytes_before": 7, "bytes_after": 5, "bytes_read": 7,
            "bytes_written": 5,
        }  # fmt: skip


def test_a_failure_keeps_what_was_known(path: Path) -> None:
    with begun(path) as state:
        state.finish(state.claim("s", "d"), "converted", 1.0, options="o", report=REPORT)
    with begun(path) as state:
        state.finish(state.claim("s", "d"), "failed", 1.0, error="gone")
        known = state.image("d")
        assert known is not None and known.digest == "sha256:d"


def test_many_threads(path: Path) -> None:
    with begun(path) as state:

        def work(first: int) -> None:
            for number in range(first, first + 50):
                key = LayerKey("oci:", str(number), "o")
                state.keep_layer(key, LAYER, "oci:x")
                state.finish(state.claim("s", str(number)), "converted", 0.1, report=REPORT)
                assert state.layer(key) is not None

        threads = [threading.Thread(target=work, args=(50 * n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert state.totals(*COUNTED)["converted"] == state.totals(*COUNTED)["layers"] == 300
        assert len(list(state.outcomes())) == 300


# --- who may have it --------------------------------------------------------------------


def test_the_second_is_refused(path: Path) -> None:
    with begun(path):
        for options in ({}, {"read_only": True}):
            with pytest.raises(StateError, match="another bulk run uses this state file") as caught:
                State(path, **options)
            assert str(path) in str(caught.value)
    State(path).close()


def test_a_killed_process_loses_nothing_that_was_done(path: Path) -> None:
    script = f"""
import os, signal
from stargz.oci.bulk.state import LayerKey, State
state = State({str(path)!r})
state.begin("src", "dst", 0.0)
state.keep_layer(LayerKey("r", "s", "o"), {LAYER!r}, "oci:x")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.with_name("state.db-wal").stat().st_size > 0
    with State(path, read_only=True) as state:
        assert state.layer(LayerKey("r", "s", "o")) is not None
    with begun(path) as state:
        assert state.layer(LayerKey("r", "s", "o")) is not None
    assert [item.name for item in path.parent.iterdir()] == ["state.db"]


def test_reading_changes_nothing(path: Path) -> None:
    with State(path, read_only=True) as state:
        assert state.layer(KEY) is None
    assert not path.parent.exists()
    with begun(path) as state:
        state.keep_layer(KEY, LAYER, "oci:x")
    before = path.read_bytes()
    with State(path, read_only=True) as state:
        assert state.layer(KEY) is not None
        assert state.claim("s", "d") == 1
        state.finish(1, "failed", 0.0, error="no")
        assert state.totals(*COUNTED)["failed"] == 1
    assert path.read_bytes() == before


def test_killed_while_it_is_made(path: Path) -> None:
    """Whenever that is, the next run has a state."""
    script = f"""
import os, signal, sqlite3, sys
from pathlib import Path
from stargz.oci.bulk.state import State
class Deadly(sqlite3.Connection):
    def execute(self, *args):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*args)
connect = sqlite3.connect
sqlite3.connect = lambda *args, **options: connect(*args, factory=Deadly, **options)
for number in range(1, 100):
    path = Path({str(path.parent)!r}) / str(number)
    child = os.fork()
    if not child:
        left = number
        State(path).begin("src", "dst", 0.0)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
sqlite3.connect = connect
for number in range(1, number + 1):
    path = Path({str(path.parent)!r}) / str(number)
    State(path, read_only=True).close()
    state = State(path)
    state.begin("src", "dst", 0.0)
    print(number, state.run)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=environment(), check=True, stdout=subprocess.PIPE, text=True, timeout=120
    )
    runs = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(runs) > 10 and set(runs[:-1]) == {1} and runs[-1] == 2


# --- what is spoilt ---------------------------------------------------------------------


def known_of(path: Path) -> list[object]:
    """What a run is told of a state file; the errors of a file that is none."""
    try:
        with State(path, read_only=True) as state:
            read_only = [state.layer(KEY), state.image("oci:d")]
        with State(path) as state:
            state.begin("src", "dst", 0.0)
            told: list[object] = [state.layer(KEY), state.image("oci:d"), *state.uploads()]
            number = state.claim("oci:s", "oci:d")
            state.finish(number, "unchanged", 1.0)
            told.extend(outcome.report for outcome in state.outcomes())
            state.totals(*COUNTED)
            assert told[:2] == read_only or None in read_only
            return told
    except StateError as error:
        assert str(error).startswith(f"{path}: ") and "--state" in str(error)
        return []


@pytest.fixture
def made(path: Path) -> bytes:
    with begun(path) as state:
        state.keep_layer(KEY, LAYER, "docker://host/repo")
        number = state.claim("oci:s", "oci:d")
        state.finish(number, "converted", 1.5, options="o", report=REPORT)
        state.upload_began("http://host/upload", "host/repo")
    return path.read_bytes()


GOOD: list[object] = [
    KnownLayer(LAYER, "docker://host/repo"),
    KnownImage("oci:s", "sha256:s", "o", "sha256:d", REPORT),
    ("http://host/upload", "host/repo"),
    REPORT,
    None,
]


def test_any_flipped_bit(path: Path, made: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What is told is right, or nothing is."""
    assert known_of(path) == GOOD[:-1]
    rng = random.Random(7)
    texts = [made.index(one) for one in (b"sha256:b", b"sha256:d", b"oci:s", b"/upload", b'"size"')]
    places = [at + n for at in texts for n in range(8)]
    places += [*range(0, 112, 3), *(rng.randrange(len(made)) for _ in range(100))]
    told = 0
    for place in places:
        spoilt = bytearray(made)
        spoilt[place] ^= 1 << rng.randrange(8)
        path.unlink()
        path.write_bytes(spoilt)
        found = known_of(path)
        assert all(one in GOOD for one in found), (place, found)
        told += found == GOOD[:-1]
        for other in path.parent.glob("state.db-*"):
            other.unlink()
    assert 50 < told < len(places)
    assert "is damaged: done anew" in caplog.text


def test_a_spoilt_row_is_forgotten_and_made_anew(path: Path, made: bytes) -> None:
    path.write_bytes(made.replace(b"sha256:b", b"sha256:c").replace(b"sha256:d", b"sha256:e"))
    with begun(path) as state:
        assert state.layer(KEY) is None and state.image("oci:d") is None
        state.keep_layer(KEY, LAYER, "docker://host/repo")
        state.finish(state.claim("oci:s", "oci:d"), "converted", 1.0, options="o", report=REPORT)
    assert known_of(path)[:2] == GOOD[:2]


def test_a_page_that_is_gone(path: Path) -> None:
    with begun(path) as state:
        for number in range(200):
            state.keep_layer(LayerKey("r", f"s{number}", "o"), LAYER, "oci:x" * 50)
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    damaged = pytest.raises(StateError, match=r"damaged .*; delete it, or name another")
    with damaged as caught, State(path) as state:
        state.begin("src", "dst", 0.0)
        state.layer(LayerKey("r", "s7", "o"))
    assert str(path) in str(caught.value)


# --- what is refused --------------------------------------------------------------------


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE other (x)")
    db.close()


def newer(path: Path, version: int = 99) -> None:
    begun(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={version}")
    db.close()


def older(path: Path) -> None:
    newer(path, 1)


def alien(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA application_id=7")
    db.close()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: path.write_bytes(b"a report, say\n" * 100), "not a state file of stargz"),
        (lambda path: path.write_bytes(b"x"), "not a state file of stargz"),
        (foreign, "not a state file of stargz"),
        (alien, "not a state file of stargz"),
        (newer, "a newer version of stargz"),
        (older, "an older version of stargz"),
        (Path.mkdir, "cannot be opened"),
    ],
    ids=[
        "text",
        "one byte",
        "another program's",
        "empty, but another's",
        "newer",
        "older",
        "folder",
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_refused_and_left_alone(path: Path, make: Any, match: str, read_only: bool) -> None:
    path.parent.mkdir()
    make(path)
    before = path.is_dir() or path.read_bytes()
    with pytest.raises(StateError, match=match) as caught:
        State(path, read_only=read_only)
    assert str(path) in str(caught.value) and "--state" in str(caught.value)
    assert before == (path.is_dir() or path.read_bytes())
    assert [item.name for item in path.parent.iterdir()] == ["state.db"]


def test_an_empty_file_is_a_new_state(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with begun(path) as state:
        assert state.run == 1


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="--state"):
        State(tmp_path / "file" / "state.db")


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = default_path("docker://a", "docker://b")
    assert path.parent == tmp_path / "stargz"
    assert path != default_path("docker://a", "docker://c")
    assert path == default_path("docker://a", "docker://b")
    assert default_path("list", None) == default_path(str(Path.cwd() / "list"), None)
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # to be ignored, says the specification
    assert default_path("a", "b").parent == Path.home() / ".local/state/stargz"
