"""The examples of README.md and docs/**/*.md, run as they stand there.

What a page's code blocks are, by the word after the fence:

    sh, python      run, each in a process of its own, all of a page in the order they have, in
                    one directory; nothing may be on stderr, unless a `text` block follows
    text            what the example above it prints, stdout and then stderr; `...` stands for
                    anything, and registry.example for whatever registry it is;
                    https://files.example is a web server here that has the directory
    toml, json      must parse
    (no word)       nothing is done: a picture, a layout

`<!-- not run: why -->` on the line above a block leaves that block out; `<!-- demo -->` and
`<!-- test -->` mark README's commands, which .ci/run runs.

The directory has what docs/README.md says.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from absence import absent
from command import environment
from mounts import clean_up, needs_fuse
from registries import registry
from servers import find_nginx, nginx

import stargz
from stargz.benchmark.layouts import write_layout
from stargz.cli._sample import write_tree

ROOT = Path(__file__).parent.parent
FILES = "https://files.example"
# A thread of pyarrow's may let go of a buffer while Python ends, which then aborts: all is printed.
ABORTED = (-signal.SIGABRT, "terminate called without an active exception\n")
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>.*?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    mark: str
    kind: str
    text: str
    prints: str | None = None

    @property
    def where(self) -> str:
        """The page and the line, as editors take it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order; a `text` block belongs to the one above it."""
    content = page.read_text()
    found: list[Block] = []
    for match in FENCE.finditer(content):
        line = content.count("\n", 0, match.start("text"))
        block = Block(page, line, match["mark"] or "", match["kind"], match["text"])
        if block.kind == "text":
            assert found and found[-1].prints is None, f"{block.where}: output of which example?"
            found[-1].prints = block.text
        else:
            found.append(block)
    fences = len(re.findall(r"^```", content, re.M)) // 2
    assert fences == len(found) + sum(block.prints is not None for block in found), page
    return found


def runs(block: Block) -> bool:
    """Whether a block is run, rather than read."""
    return block.kind in ("sh", "python") and not re.match(r"not run: |demo$|test$", block.mark)


def prepare(folder: Path) -> None:
    """Make what docs/README.md says that the examples find, but for the registries."""
    tar, gz = folder / "layer.tar", folder / "layer.tar.gz"
    with tarfile.open(tar, "w") as file:
        write_tree(file)
    gz.write_bytes(gzip.compress(tar.read_bytes(), mtime=0))
    stargz.convert(gz, folder / "layer.stargz")
    write_layout(folder / "layout", [(tar, gz)])


def programs(folder: Path, work: Path) -> None:
    """`stargz`, the command that is tested; `ssh` and `scp`, to a host that is a directory."""
    folder.mkdir()
    scripts = {
        "stargz": f'exec "{sys.executable}" -m stargz "$@"',
        "ssh": f'cd "{work}/../$1" && shift && exec "$@"',
        "scp": f'[ "${{2#*:}}" = "" ] && exec cp "$1" "{work}/../${{2%:}}/"',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


@contextlib.contextmanager
def hosts(folder: Path, work: Path, text: str) -> Iterator[dict[str, str]]:
    """registry.example, which has app:1.0, mirror.example, which is empty, and files.example,
    which has the directory: where named."""
    with contextlib.ExitStack() as stack:
        names = {}
        for name in ("registry.example", "mirror.example"):
            if name in text:
                names[name] = stack.enter_context(registry(folder / name))
        if full := names.get("registry.example"):
            full.push(work / "layout", "app", "1.0")
        found = {name: server.host for name, server in names.items()}
        if FILES in text:
            find_nginx() or absent("needs nginx: apt-get install nginx-light")
            found[FILES] = stack.enter_context(nginx(work, folder / "nginx"))
        yield found


def run_page(page: Path, folder: Path) -> None:
    """Run every example of a page; `folder` is an empty directory."""
    examples = [block for block in blocks(page) if runs(block)]
    if not examples:
        return
    text = "".join(block.text for block in examples)
    work = folder / "work"
    for path in (work, folder / "builder"):
        path.mkdir()
    prepare(work)
    programs(folder / "bin", work)
    env = environment(HOME=str(folder), XDG_STATE_HOME=str(folder / "state"))
    env["PATH"] = f"{folder / 'bin'}:{env['PATH']}"
    with contextlib.ExitStack() as stack:
        if "stargz mount" in text or "stargz.mount" in text:
            needs_fuse()
            stack.callback(clean_up, work / "mnt")
        if re.search(r"^skopeo ", text, re.M):
            shutil.which("skopeo") or absent("needs skopeo: apt-get install skopeo")
        names = stack.enter_context(hosts(folder, work, text))
        for block in examples:
            run_block(block, work, env, names)


def run_block(block: Block, work: Path, env: dict[str, str], names: dict[str, str]) -> None:
    """Run one example, and compare what it prints with the page."""
    script = block.text
    for name, host in names.items():
        script = script.replace(name, host)
    command = (
        [sys.executable, "-c"] if block.kind == "python" else ["bash", "-euo", "pipefail", "-c"]
    )
    done = subprocess.run(
        [*command, script],
        cwd=work, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    code, out, err = done.returncode, done.stdout, done.stderr
    if (code, err) == ABORTED and "parquet" in script:
        code, err = 0, ""
    for name, host in names.items():
        out, err = out.replace(host, name), err.replace(host, name)
    assert code == 0, f"{block.where}: {out}{err}"
    if block.prints is None:
        assert not err, f"{block.where}: on stderr, and the page does not show it: {err}"
    else:
        assert same(block.prints, out + err), (
            f"{block.where}: the page shows\n{block.prints}\nand this is printed:\n{out}{err}"
        )


def same(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed; `...` stands for anything."""
    pattern = ".*?".join(map(re.escape, shown.split("...")))
    return re.fullmatch(pattern, printed, re.S) is not None


def parses(block: Block) -> None:
    """A block in a language that is only read must be of that language."""
    if block.kind == "toml":
        tomllib.loads(block.text)
    elif block.kind == "json":
        json.loads(block.text)
    else:
        assert block.kind in ("", "sh", "python"), f"{block.where}: how is {block.kind!r} tried?"
