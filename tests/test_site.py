"""The documentation's site builds without a warning, and has what it should; manual pages, too."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from absence import absent

import stargz
from stargz.cli import _man
from stargz.cli._parsers import commands

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "docs/site/build.py"


def needs_sphinx() -> None:
    for name in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(name) is None:
            absent(f"needs {name}: pip install -e '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_sphinx()
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, BUILD, out], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return out


def test_every_page_is_in_the_navigation(site: Path) -> None:
    shown = (site / "index.html").read_text()
    pages = [page.relative_to(ROOT / "docs") for page in ROOT.glob("docs/**/*.md")]
    for page in pages:
        if page.name != "README.md":
            assert f'href="{page.with_suffix(".html")}"' in shown, page
    for name in ("overview", "contributing", "security", "changelog"):
        assert f'href="{name}.html"' in shown


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    """By what a browser would follow, pages that are made included."""
    ids: dict[Path, set[str]] = {}
    for page in site.rglob("*.html"):
        ids[page] = set(re.findall(r'\bid="([^"]+)"', page.read_text()))
    for page in ids:
        for link in re.findall(r'<a [^>]*href="([^"]+)"', page.read_text()):
            target, _, anchor = html.unescape(link).partition("#")
            if "://" in target or target.startswith("mailto:") or "_sources" in target:
                continue
            file = (page.parent / target).resolve() if target else page
            assert file.exists(), (page, link)
            assert not anchor or anchor in ids[file], (page, link)


def test_the_search_does_not_begin_with_the_changelog(site: Path) -> None:
    text = (site / "searchindex.js").read_text()
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    pages = {
        index["docnames"][one]
        for found in index["terms"].values()
        for one in (found if isinstance(found, list) else [found])
    }
    assert "faq" in pages and "changelog" not in pages


def test_the_reference_has_every_command_and_option(site: Path) -> None:
    for command in commands():
        name = "-".join(["stargz", *command.name.split()]) if command.name else "index"
        text = html.unescape((site / f"commands/{name}.html").read_text())
        for action in command.actions:
            assert all(option in text for option in action.option_strings), command.name


def test_the_reference_has_every_name_of_the_library(site: Path) -> None:
    text = "".join(page.read_text() for page in site.glob("library/*.html"))
    names = [f"stargz.{name}" for name in stargz.__all__]
    names += [f"stargz.mount.{name}" for name in stargz.mount.__all__]
    names += ["stargz.Layer.extractall", "stargz.ConvertResult.toc_digest"]
    for name in names:
        if name not in ("stargz.__version__", "stargz.errors", "stargz.mount"):
            assert f'id="{name}"' in text, name


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    needs_sphinx()
    (tmp_path / "index.md").write_text("# One\n\n[gone](gone.md) and [so](#this)\n")
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import build; "
        "sys.exit(build.run(Path(sys.argv[2]), Path(sys.argv[2], 'out')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, BUILD.parent, tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "'gone.md'" in done.stderr and "'this'" in done.stderr


def requests(page: str) -> Iterator[str]:
    """The lines of a manual page that roff takes for requests."""
    return (line for line in page.splitlines() if line.startswith((".", "'")))


def test_manual_pages() -> None:
    made = dict(_man.pages("1.0"))
    listed = list(commands())
    assert len(made) == len(listed)
    for command in listed:
        page = made["-".join(["stargz", *command.name.split()]) + ".1"]
        assert page.startswith(f'.TH "STARGZ{"-" if command.name else ""}')
        known = {".TH", ".SH", ".TP", ".PP", ".nf", ".fi"}
        assert {line.split()[0] for line in requests(page)} <= known
        for action in command.actions:
            for option in action.option_strings:
                assert option.replace("-", r"\-").replace("\\(", r"\e(") in page, option


def test_man_reads_them(tmp_path: Path) -> None:
    man = shutil.which("man") or absent("needs man: apt-get install man-db")
    folder = tmp_path / "man1"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "stargz.cli._man", folder], check=True)
    for name, words in {"stargz": "image", "stargz-image-bulk": "--dry-run"}.items():
        done = subprocess.run(
            [man, "--warnings", "-l", folder / f"{name}.1"],
            env={"PATH": "/usr/bin:/bin", "MANWIDTH": "90", "LC_ALL": "C.UTF-8"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        shown = " ".join(done.stdout.split())  # lines are justified
        assert words in shown and f"{name} - " in shown
