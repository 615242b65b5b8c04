"""docs/environment.md has every variable that the code reads, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What the code has others read, by what it calls for it.
INDIRECT = {
    "gettempdir(": {"TMPDIR"},
    "Path.home()": {"HOME"},
    "getproxies()": {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"},
    "proxy_bypass(": {"NO_PROXY"},
    "load_default_certs()": {"SSL_CERT_FILE", "SSL_CERT_DIR"},
    "shutil.which(": {"PATH"},
}
# Calls of these are the C library's, and none of ours.
GETENV = re.compile(r"\b(?:secure_)?getenv\s*\(")


def read_by(path: Path) -> Iterator[str]:
    """The names that are looked up in an `environ`; of a variable name that is no literal, the
    constants of the module that look like one."""
    text = path.read_text()
    if path.suffix == ".pyx":
        if "environ" in text:
            yield from re.findall(r'"(STARGZ_[A-Z]+)"', text)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and node.args:
            called, key = ast.unparse(node.func), node.args[0]
            if not called.endswith(("environ.get", "os.getenv", "environ.pop")):
                continue
        elif isinstance(node, ast.Subscript):
            called, key = ast.unparse(node.value), node.slice
            if not called.endswith("environ"):
                continue
        else:
            continue
        assert isinstance(key, ast.Constant), f"{path}:{node.lineno}: what does it read?"
        yield str(key.value)


def test_every_variable_is_told_of() -> None:
    sources = [
        path
        for path in (ROOT / "stargz").rglob("*.py*")
        if path.suffix in (".py", ".pyx") and "__pycache__" not in path.parts
    ]
    text = "\n".join(path.read_text() for path in sources)
    read = {name for path in sources for name in read_by(path)}
    read |= {name for call, names in INDIRECT.items() if call in text for name in names}
    assert {"STARGZ_DEBUG", "STARGZ_ISAL", "DOCKER_CONFIG", "TERM", "NO_PROXY"} <= read
    page = (ROOT / "docs/environment.md").read_text()
    told = re.findall(r"^\| `([A-Z_]+)` \|", page, re.M)
    assert sorted(told) == sorted(read)
    for path in (ROOT / "csrc").rglob("*.[ch]"):
        assert not GETENV.search(path.read_text()), path


# What makes temporary files, and a word of its row; "" is what has none of its own.
TEMPORARY = {
    "benchmark": "`bench`",
    "cli/_layers.py": "standard input",
    "cli/demo.py": "`demo`",
    "conversion.py": "`convert --prioritize`",
    "mount/kernel.py": "",  # what fusermount3 says
    "oci/bulk/report_page.py": "`image bulk --report FILE.html`",
    "oci/convert/flatten.py": "`--flatten`",
    "oci/convert/keeping.py": "a layer that no TOC can hold",
    "oci/convert/layers.py": "a layer that may stay as it is",
    "oci/extraction.py": "`image extract` of an ordinary image",
    "oci/formats/archive.py": "a layer in xz or bzip2",
    "oci/formats/archive_writer.py": "",  # beside DST
    "oci/formats/tar_file.py": "images in archives",
    "oci/registry/upload.py": "each layer on its way",
    "oci/verify/blob.py": "`verify` of an image in a registry",
    "patching/applying.py": "`apply`",
    "patching/members.py": "`delta`, `toc --members`",
    "sources/http.py": "a server without ranges",
    "sources/spool.py": "",  # of the others
    "durable.py": "",
    "_engine/ztoc.pxi": "each point of the ztoc",
}


def test_all_that_makes_temporary_files_is_told_of() -> None:
    makes = re.compile(r"\btempfile\.[A-Za-z]*(?:File|mkdtemp|Directory)\b|\bgettempdir\(|"
                       r"\bSpool\(|\bunlinked\(")  # fmt: skip
    found = set()
    for path in (ROOT / "stargz").rglob("*.p*"):
        if path.suffix in (".py", ".pyx", ".pxi") and makes.search(path.read_text()):
            name = str(path.relative_to(ROOT / "stargz"))
            found.add("benchmark" if name.startswith("benchmark/") else name)
    assert found == TEMPORARY.keys()
    page = (ROOT / "docs/environment.md").read_text()
    table = page[page.index("## What is in TMPDIR") :]
    assert all(word in table for word in TEMPORARY.values())
