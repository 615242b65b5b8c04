"""docs/formats.md: what its tables say is so."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
from pathlib import Path

import oracle
import pytest
from command import ok_here
from test_format_pairs import KEEPS, make, odd_tar

from stargz.options import FORMATS, ConvertOptions

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/formats.md").read_text()
TAR = odd_tar(tarfile.PAX_FORMAT)


def tables() -> list[list[dict[str, str]]]:
    """The rows of each table, by the heads of their columns."""
    found = []
    for lines in re.findall(r"(?:^\|.*\n)+", TEXT, re.M):
        head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in
                          lines.splitlines())  # fmt: skip
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


WHAT, DESCRIPTORS, READERS = tables()


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def row(table: list[dict[str, str]], format: str) -> dict[str, str]:
    (found,) = (row for row in table if names(row["`--format`"]) == [format])
    return found


@pytest.mark.parametrize("table", [WHAT, DESCRIPTORS], ids=["what it is", "descriptor"])
def test_each_format_is_one(table: list[dict[str, str]]) -> None:
    assert [names(row["`--format`"]) for row in table] == [[format] for format in FORMATS]
    defaults = [row["`--format`"] for row in WHAT if "(the default)" in row["`--format`"]]
    assert [names(cell) for cell in defaults] == [[ConvertOptions().format]]


@pytest.mark.parametrize("format", FORMATS)
def test_the_diff_id(format: str) -> None:
    said = row(WHAT, format)["DiffID"]
    assert said == ("kept" if make(TAR, format).result.diff_id == oracle.sha256(TAR) else "new")
    assert (said == "kept") == (format in KEEPS)
    if "zstd" in format:  # and lossless
        assert make(TAR, format, lossless=True).tar == TAR


@pytest.mark.parametrize("format", FORMATS)
def test_the_descriptor(format: str, tmp_path: Path) -> None:
    said = row(DESCRIPTORS, format)
    (tmp_path / "layer.tar").write_bytes(TAR)
    words = ["--format", format, tmp_path / "layer.tar", tmp_path / "out"]
    told = json.loads(ok_here("-q", "convert", "--json", *words))
    assert sorted(names(said["annotations"])) == sorted(told["annotations"])
    begins = (tmp_path / "out").read_bytes()[:4]
    kind = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f": "zstd"}[begins[:3]]
    assert names(said["media type"]) == [f"application/vnd.oci.image.layer.v1.tar+{kind}"]


def test_sizes() -> None:
    """Of the modules of the Python that runs this, which need not be that of the page."""
    root, out = Path(os.__file__).parent, io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted({*root.glob("*.py"), *root.glob("[aej]*/**/*.py")}):
            if path.parts[len(root.parts)] in ("asyncio", "email", "json", path.name):
                tar.add(path, path.relative_to(root).as_posix())
    data = out.getvalue()
    whole = len(gzip.compress(data, 6))
    said = [float(row(WHAT, format)["size"]) for format in FORMATS]
    sizes = []
    for format in FORMATS:
        made = make(data, format)
        sizes.append((len(made.blob) + len(made.toc or b"")) / whole)
    assert sizes == pytest.approx(said, abs=0.1)


def test_readers() -> None:
    """Each who is said to read a format lazily was tried with it, by a test that is there."""
    tried: dict[str, set[str]] = {format: set() for format in FORMATS}
    reader = ""
    for line in READERS:
        reader = line["reader"] or reader
        for path in names(line["tests"]):
            text = (ROOT / path).read_text()
            for format in names(line["formats"]):
                assert f'"{format}"' in text or format == ConvertOptions().format, (path, format)
                if not reader.endswith(", whole"):
                    tried[format].add(reader.partition(" (")[0])
    for format in FORMATS:
        said = row(WHAT, format)["read lazily by"].partition(" (")[0]
        those = {said, "its Go package"} if said == "stargz-snapshotter" else {said}
        assert "stargz" in tried[format] and those & tried[format], format


def test_every_option_is_refused_where_the_page_does_not_name_it() -> None:
    """--min-chunk-size, --prioritize and --strict."""
    for option, more in {
        "min-chunk-size": {"min_chunk_size": 1024},
        "prioritize": {"prioritized": ["mixed"]},
        "strict": {"strict": True},
    }.items():
        (said,) = re.findall(
            rf"`--{option}`(?: is)? of\s((?:[^;.]|\n)+?)(?:;|\.\n|, without)", TEXT
        )
        takes = []
        for format in FORMATS:
            try:
                make(TAR, format, **more)
                takes.append(format)
            except ValueError:
                pass
        assert names(said) == takes, option


def test_the_versions_that_were_run_are_those_of_the_modules() -> None:
    page = (ROOT / "docs/comparison.md").read_text()
    modules = {
        "containerd/stargz-snapshotter ": "snapshotter/newer/go.mod",
        "stargz-snapshotter/estargz ": "chunked/go.mod",
        "soci-snapshotter ": "soci/go.mod",
        "containerd/v2 ": "soci/go.mod",
        "go.podman.io/storage ": "chunked/go.mod",
        "go.podman.io/image/v5 ": "chunked/go.mod",
        "podman/v5@": "chunked/podman",
    }
    for module, file in modules.items():
        text = (ROOT / "tests/interop" / file).read_text()
        (version,) = re.findall(rf"{re.escape(module)}v([\d.]+)$", text, re.M)
        assert re.search(rf"[ |]{re.escape(version)}[ ,.|]", page), (module, version)
