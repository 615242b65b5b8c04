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
