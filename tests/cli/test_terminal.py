"""What the commands draw on a terminal: in tmux, which is one."""

from __future__ import annotations

import io
import random
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blobs import tar_of
from command import command, environment
from servers import find_nginx, nginx

import stargz
from stargz.cli import _progress, _screen


class Terminal:
    """A session of tmux with a shell in it."""

    def __init__(self, program: str, socket: Path, width: int) -> None:
        self._words = [program, "-f", "/dev/null", "-S", str(socket)]
        self("new-session", "-d", "-x", str(width), "-y", "12", "env", "PS1=$ ", "sh")

    def __call__(self, *words: str) -> str:
        return subprocess.run(
            [*self._words, *words],
            env={**environment(), "TERM": "xterm"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def screen(self) -> list[str]:
        """The lines that are not empty."""
        return [line for line in self("capture-pane", "-p").splitlines() if line.strip()]

    def type(self, *keys: str) -> None:
        self("send-keys", *keys)

    def until(self, good: Callable[[list[str]], bool]) -> list[str]:
        until = time.monotonic() + 30
        while not good(screen := self.screen()):
            assert time.monotonic() < until, screen
            time.sleep(0.05)
        return screen


@pytest.fixture
def terminal(tool: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[[int], Terminal]]:
    program = tool("tmux")
    made: list[Terminal] = []

    def start(width: int) -> Terminal:
        made.append(Terminal(program, tmp_path / f"tmux-{len(made)}", width))
        return made[-1]

    yield start
    for each in made:
        each("kill-server")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A layer of 48 MB behind a slow server."""
    if find_nginx() is None:
        pytest.skip("needs nginx")
    folder = tmp_path_factory.mktemp("slow")
    tar = tar_of([(f"{n}", random.Random(n).randbytes(1_000_000)) for n in range(48)])
    stargz.convert(io.BytesIO(tar), folder / "blob")
    with nginx(folder, tmp_path_factory.mktemp("state"), "limit_rate 3m;") as site:
        yield f"{site}/blob"


def typed(*words: str) -> str:
    """What is typed to run `stargz WORDS`."""
    kept = {k: v for k, v in environment().items() if k.startswith(("PYTHON", "STARGZ"))}
    line = shlex.join(["env", *(f"{k}={v}" for k, v in kept.items()), *command(*words)])
    return f"clear; printf 'one\\ntwo\\n'; {line}; echo ended=$?"


@pytest.mark.parametrize("width", [20, 80, 300])
def test_a_bar_leaves_nothing_on_ctrl_c(
    width: int, terminal: Callable[[int], Terminal], url: str, tmp_path: Path
) -> None:
    script = tmp_path / "run"  # short to type, whatever the width
    script.write_text(typed("verify", url))
    shell = terminal(width)
    shell.type(f"cd {tmp_path}; clear", "Enter")
    shell.type(". ./run", "Enter")
    screen = shell.until(lambda lines: any("%" in line for line in lines))
    assert screen[:2] == ["one", "two"] and len(screen) == 3, screen
    assert all(" 0 MB/s" not in line for line in screen)
    if width == 80:
        shell("resize-window", "-x", "40")  # what is drawn takes two lines now
        shell.until(lambda lines: lines[-2:-1] == ["two"] and "%" in lines[-1])
        shell("resize-window", "-x", "80")
    shell.type("C-c")
    screen = shell.until(lambda lines: any("ended=" in line for line in lines))
    assert [line.replace("^C", "") for line in screen if "%" in line or "MB" in line] == []
    assert any(line.endswith("ended=130") for line in screen)
    assert "".join(screen).count("ended") == 1
    assert shell("display-message", "-p", "#{cursor_flag}").strip() == "1"
    assert len(screen) <= 4, screen  # and the prompt


@pytest.mark.parametrize("width", range(10, 130, 7))
@pytest.mark.parametrize("total", [0, 123_456_789_012])
def test_bars_fit(width: int, total: int) -> None:
    for done in (0, 1, 98_765_432_109, total):
        for label in ("", "verify", "名前" * 30):
            line = _progress._line(label, done, total, "12 MB/s", width)
            assert _screen.columns(line) <= width or len(line.split("  ")) == 1
            assert _screen.columns(_screen.fit(line, width)) <= width
