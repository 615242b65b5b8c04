"""`stargz --print-completion`: in the shells themselves."""

from __future__ import annotations

import os
import pty
import re
import select
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
    assert set(bash("image", "")) >= {*image.COMMANDS, "--help"}
    assert bash("--vers") == ["--version"] and bash("--print-completion", "f") == ["fish"]
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

    assert complete("stargz veri") == ["verify"] and complete("stargz --vers") == ["--version"]
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


# How each begins, and what makes its prompt one that is waited for, and stargz say its words.
POSIX = "source {}; stargz() {{ echo \"<$*>\"; }}; PS1=rea''dy"
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], POSIX),
    "zsh": (["zsh", "-f", "-i"], f"autoload -U compinit; compinit -D; {POSIX}"),
    "fish": (
        ["fish", "--no-config", "-i"],
        'source {}; function stargz; echo "<$argv>"; end; '
        "function fish_prompt; echo rea''dy; end",
    ),
}
TYPED = {
    "--format zst": "--format zstd:chunked",
    "--format zstd:": "--format zstd:chunked",
    "--format zstd:chunked-": "--format zstd:chunked-stargz",
    "--format=zstd:chunked-": "--format=zstd:chunked-stargz",
    "--format=ext": "--format=external-toc",
    "--format zstd:chunked --str": "--format zstd:chunked --strict",
    "--log-level=d": "--log-level=debug",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_typed_in_a_terminal(
    shell: str, tool: Callable[[str], str], tmp_path: Path
) -> None:
    """Where bash takes ":" and "=" for words of their own."""
    tool(shell)
    file = tmp_path / "script"
    file.write_text(ok("--print-completion", shell))
    words, begin = SHELLS[shell]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvpe(words[0], words, {"PATH": os.environ["PATH"], "HOME": ".", "TERM": "xterm"})

    def said(pattern: str) -> str:
        text = ""
        while not (found := re.search(pattern, text, re.S)):
            assert select.select([terminal], [], [], 60)[0], text
            text += os.read(terminal, 1 << 16).decode(errors="replace")
        return found[1]

    try:
        os.write(terminal, f"{begin.format(file)}\n".encode())
        said("(ready)")
        for typed, meant in TYPED.items():
            os.write(terminal, f"stargz convert {typed}\t\n".encode())
            assert said(r"<([^<>\n]*)>.*ready").split() == ["convert", *meant.split()], typed
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def test_other_shells_are_wrong_usage() -> None:
    assert "csh" in fails(2, "--print-completion", "csh")
