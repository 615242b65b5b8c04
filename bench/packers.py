"""What tar.gz files come from: corpora, packed by other compressors than gzip -6 too."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import corpus

GO = """package main
import ("compress/gzip"; "io"; "os")
func main() {
	w := gzip.NewWriter(os.Stdout)
	if _, err := io.Copy(w, os.Stdin); err != nil { panic(err) }
	if err := w.Close(); err != nil { panic(err) }
}
"""


@functools.cache
def go_gzip() -> Path:
    """Go's compress/gzip at its default level, as docker and BuildKit pack layers."""
    folder = Path(tempfile.mkdtemp(prefix="stargz-go-gzip-"))
    (folder / "main.go").write_text(GO)
    command = ["go", "build", "-o", folder / "go-gzip", folder / "main.go"]
    subprocess.run(command, check=True)
    return folder / "go-gzip"


# (zopfli takes an hour: libdeflate's 12 is as close to the best.)
PACKERS: dict[str, Callable[[], list[object]]] = {
    "gzip -6": lambda: ["gzip", "-6", "-n", "-c"],
    "gzip -9": lambda: ["gzip", "-9", "-n", "-c"],
    "pigz": lambda: ["pigz", "-n", "-c"],
    "Go": lambda: [go_gzip()],
    "libdeflate 12": lambda: ["libdeflate-gzip", "-12", "-n", "-c"],
}


def packed(name: str, packer: str) -> Path:
    """The path of a corpus packed so, kept for the next time; skips where there is no such
    compressor."""
    first = corpus.build(name)
    if packer == "gzip -6":
        return first
    tar, out = first.with_suffix(""), first.with_name(f"{name}.{packer.replace(' ', '')}.tar.gz")
    if out.exists() and out.stat().st_mtime >= tar.stat().st_mtime:
        return out
    with tempfile.TemporaryDirectory(dir=tar.parent) as temp:
        made = Path(temp, "gz")
        try:
            command = list(map(str, PACKERS[packer]()))
            with tar.open("rb") as read, made.open("wb") as write:
                subprocess.run(command, check=True, stdin=read, stdout=write)
        except FileNotFoundError as error:
            pytest.skip(f"{error.filename} is not installed")
        made.rename(out)
    return out
