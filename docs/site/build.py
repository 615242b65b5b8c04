"""The documentation as a site: `python docs/site/build.py [DIR]`, with the extra "docs".

Its pages are docs/**/*.md and, from the root, README, CONTRIBUTING, SECURITY and CHANGELOG, as they
stand there. Made are the reference of the commands, from their parsers, and that of the library,
from its docstrings. docs/README.md is the index, and its sections are the navigation. Whatever
Sphinx warns of, a link that leads nowhere first of all, is an error.

DIR is build/site, if it is not given. What is made is not committed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sphinx.cmd.build import build_main

SITE = Path(__file__).resolve().parent
sys.path.insert(0, str(SITE))  # PYTHONSAFEPATH leaves it out

import commands  # noqa: E402
import library  # noqa: E402

DOCS, ROOT = SITE.parent, SITE.parent.parent

# Pages of the root, and what they are called here; docs/README.md is where a reader begins.
OUTSIDE = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
# Of a page that has every word, so that the search would begin with it, whatever is looked for.
UNSEARCHED = "---\nnosearch: true\n---\n\n"
# Where the navigation has what is made: in that section of the index.
MADE = {
    "Reference": [
        (f"{commands.FOLDER}/index.md", "every command and every option, as `--help` has them"),
        (f"{library.FOLDER}/index.md", "every function and class of the library"),
    ]
}


def gather(source: Path) -> None:
    """Lay out all pages in a directory as Sphinx reads them."""
    for page in sorted(DOCS.glob("**/*.md")):
        name = page.relative_to(DOCS)
        text = page.read_text()
        if name == Path("README.md"):
            name, text = Path("index.md"), index(text)
        write(source / name, links(text, "../" * (len(name.parts) - 1)))
    for name, becomes in OUTSIDE.items():
        text = links(from_docs((ROOT / name).read_text()), "")
        write(source / becomes, UNSEARCHED + text if name == "CHANGELOG.md" else text)
    for folder, pages in ((commands.FOLDER, commands.pages()), (library.FOLDER, library.pages())):
        for page_name, text in pages:
            write(source / folder / page_name, text)


def write(path: Path, text: str) -> None:
    """A page, with the directories that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def from_docs(text: str) -> str:
    """Links of a page of the root as a page of docs/ has them."""
    link = re.compile(r"\]\((docs/)?(?=[\w/-]+\.md)")
    return link.sub(lambda found: "](" if found[1] else "](../", text)


def links(text: str, up: str) -> str:
    """Links to the pages of the root, and to docs/README.md, by the names that these have here; one
    whose text is a page's file shows the page's title."""
    text = re.sub(r"\[[\w./-]+\.md\]\((?!http)", "[](", text)
    for name, becomes in OUTSIDE.items():
        text = text.replace(f"]({up}../{name}", f"]({up}{becomes}")
    return re.sub(rf"\]\({re.escape(up)}README\.md", f"]({up}index.md", text)


def index(text: str) -> str:
    """The index page: each section's links are a part of the navigation."""
    first, *sections = re.split(r"^(?=## )", text, flags=re.M)
    made = []
    for section in sections:
        title = section.partition("\n")[0].removeprefix("## ")
        for target, about in MADE.get(title, ()):
            section = (
                f"{section.rstrip()}\n| [{target.partition('/')[0]}]({target}) | {about} |\n\n"
            )
        made.append(section)
    return first + "".join(made) + "\n".join(toctrees(made))


def toctrees(sections: list[str]) -> Iterator[str]:
    """A hidden table of contents for each section that links to pages."""
    for section in sections:
        title = section.partition("\n")[0].removeprefix("## ")
        targets = re.findall(r"^\| \[[^]]*\]\(([^)#]+)\)", section, re.M)
        if targets:
            yield f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n"
            for target in targets:
                name = target.removeprefix("../")
                yield f"/{OUTSIDE.get(name, name) if name != target else target}"
            yield "```"


def main(arguments: list[str]) -> int:
    """Build the site; 1 where anything was wrong."""
    out = Path(arguments[0]) if arguments else ROOT / "build/site"
    with tempfile.TemporaryDirectory(prefix="stargz-docs-") as folder:
        source = Path(folder, "docs")
        gather(source)
        code = run(source, out)
    if code == 0:
        print(f"{out}/index.html")
    return code


def run(source: Path, out: Path) -> int:
    """Have Sphinx make a site of the pages in a directory."""
    shutil.rmtree(out, ignore_errors=True)
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", SITE, "-d", source / ".doctrees"]
    code: int = build_main([str(word) for word in (*options, source, out)])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
