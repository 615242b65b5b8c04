"""README's and docs' examples are run as they stand, and what they claim in numbers is checked."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import examples
import pytest
from absence import absent

from stargz.cli import COMMANDS
from stargz.cli._parsers import commands
from stargz.errors import extra
from stargz.options import CHUNK_SIZES, MAX_TOC_SIZE

ROOT = Path(__file__).parent.parent
TEXT = "\n".join(page.read_text() for page in examples.PAGES)


def name_of(page: Path) -> str:
    """As the index of the pages has it."""
    return str(page.relative_to(ROOT)).removeprefix("docs/")


EVERY = pytest.mark.parametrize("page", examples.PAGES, ids=name_of)


@EVERY
def test_the_examples_of(page: Path, tmp_path: Path) -> None:
    for block in examples.blocks(page):
        examples.parses(block)
    examples.run_page(page, tmp_path)


def test_every_command_is_shown() -> None:
    assert set(re.findall(r"\bstargz ([a-z]+)", TEXT)) >= set(COMMANDS)


@EVERY
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings]
            assert anchor in slugs, target


@EVERY
def test_options_are_those_of_their_commands(page: Path) -> None:
    """In examples that are not run, too; what other programs take stands behind a | or a ;."""
    options = {
        command.name: {option for action in command.actions for option in action.option_strings}
        for command in commands()
    }
    found = re.findall(r"stargz ((?:image |cache )?[a-z]+)((?: [^`\n|;]*)?)", page.read_text())
    for name, words in found:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", words):
            assert option in options.get(name, {option}), (name, option)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for page in examples.PAGES[1:]:
        assert page.name == "README.md" or f"({name_of(page)})" in index, page


def test_messages_that_the_questions_quote_are_messages() -> None:
    """As far as they stand in one piece in the source, which breaks lines."""
    python = "".join(path.read_text() for path in ROOT.glob("stargz/**/*.py"))
    kernels = "".join(path.read_text() for path in ROOT.glob("csrc/*/*.c"))
    source = re.sub(r'"\s*f?"', "", re.sub(r"\{[^{}]*\}", "...", python) + kernels)
    headings = re.findall(r"^\*\*(.*)\*\*", (ROOT / "docs/faq.md").read_text(), re.M)
    quoted = [text for heading in headings for text in re.findall(r'"([^"]+)"', heading)]
    assert len(quoted) > 5
    for text in quoted:
        assert all(part.strip(" ,") in source for part in text.split("...")), text


def test_readme_is_two_screens() -> None:
    assert len((ROOT / "README.md").read_text()) < 7500


def test_containerd_reads_the_configuration(tmp_path: Path) -> None:
    (config,) = (b.text for b in examples.blocks(ROOT / "README.md") if b.kind == "toml")
    containerd = shutil.which("containerd") or absent(
        "needs containerd: apt-get install containerd"
    )
    (tmp_path / "config.toml").write_text(config)
    done = subprocess.run(
        [containerd, "-c", tmp_path / "config.toml", "config", "dump"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read = tomllib.loads(done.stdout)
    assert read["proxy_plugins"]["stargz"]["type"] == "snapshot"
    images = read["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]
    assert (images["snapshotter"], images["disable_snapshot_annotations"]) == ("stargz", False)


def test_extras_are_named_by_what_they_have() -> None:
    """`pip install` of an extra asks the index for this package, which a wheel is not from."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in ("dask", "dense", "fsspec", "zstd"):
        (package,) = declared["optional-dependencies"][name]
        words = shlex.split(extra(name))
        assert words == ["pip", "install", re.split("[<>=]", package)[0]], name
    sources = [path for end in ("py", "pyx") for path in ROOT.glob(f"stargz/**/*.{end}")]
    texts = [TEXT, *(path.read_text() for path in sources)]
    assert not any("stargz[" in text for text in texts)


@pytest.mark.parametrize(
    ("mark", "ending"),
    [("demo", "stargz demo"), ("test", "pytest")],
)
def test_install_commands_are_one_complete_line(mark: str, ending: str) -> None:
    (line,) = (b.text for b in examples.blocks(ROOT / "README.md") if b.mark == mark)
    assert line.count("\n") == 1
    subprocess.run(["bash", "-n", "-c", line], check=True)
    for word in ("apt-get update", "python3-venv", "gcc", "python3 -m venv .venv", "pip install"):
        assert word in line
    assert line.strip().endswith(f".venv/bin/{ending}")


def test_the_stated_limits_are_the_codes() -> None:
    assert MAX_TOC_SIZE == 1 << 30
    assert (CHUNK_SIZES[0], CHUNK_SIZES[-1]) == (1 << 10, 1 << 30)
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()
