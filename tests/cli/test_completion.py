"""`stargz --print-completion`: in the shells themselves."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import fails, ok

from stargz.cli import COMMANDS, image


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """What bash offers for the words of a command line, of which the last is begun."""
    file = tmp_path_factory.mktemp("completion") / "bash"
    file.write_text(ok("--print-completion", "bash"))

    def complete(*words: str) -> list[str]:
        line = shlex.join(["stargz", *words])
        code = f"source {file}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _stargz; "
        code += 'printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(
            ["bash", "--norc", "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.split()

    return complete


def test_bash(bash: Callable[..., list[str]]) -> None:
    assert set(bash("")) >= {*COMMANDS, "--version"}
    assert bash("ver") == ["verify"]
    assert set(bash("image", "")) == {*image.COMMANDS, "--help"}
    assert bash("-q", "image", "conv") == ["convert"]
    assert "--min-chunk-size" in bash("convert", "--m") and "-q" in bash("convert", "-")
    assert bash("convert", "--format", "")[:2] == ["estargz", "stargz"]
    assert bash("image", "convert", "a", "--up") == ["--upgrade"]
    assert bash("ls", "--log-level", "d") == ["debug"]
    assert bash("convert", "") == bash("verify", "lay") == []  # files, which the shell knows


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_right(shell: str, tool: Callable[[str], str], tmp_path: Path) -> None:
    text = ok("--print-completion", shell)
    assert "verify" in text and "Traceback" not in text
    file = tmp_path / "script"
    file.write_text(text)
    done = subprocess.run([tool(shell), "-n", file], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_fish(tool: Callable[[str], str], tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(ok("--print-completion", "fish"))

    def complete(line: str) -> list[str]:
        code = f"source {file}; complete -C {shlex.quote(line)}"
        done = subprocess.run(
            [tool("fish"), "--no-config", "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return [found.partition("\t")[0] for found in done.stdout.splitlines()]

    assert complete("stargz veri") == ["verify"]
    assert complete("stargz image conv") == ["convert"]
    assert complete("stargz image convert --up") == ["--upgrade"]
    assert complete("stargz convert --format es") == ["estargz"]
    assert "--upgrade" not in complete("stargz convert --u")


def test_zsh(tool: Callable[[str], str], tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(ok("--print-completion", "zsh"))
    code = f"autoload -U compinit; compinit -D; source {file}; print ${{_comps[stargz]}}"
    done = subprocess.run([tool("zsh"), "-f", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "_stargz" in done.stdout


def test_other_shells_are_wrong_usage() -> None:
    assert "csh" in fails(2, "--print-completion", "csh")
