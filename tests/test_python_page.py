"""docs/python.md beside the library: its tables of fields, errors and public names."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import blobs
import layouts
import pytest

import stargz
from stargz import errors
from stargz.toc import EntryType

PAGE = (Path(__file__).parent.parent / "docs/python.md").read_text()

# What other parts of the package use, and no one else should.
INTERNAL = {
    "Layer": "blob data_end engine external_toc_size footer index markers open_row origin part "
    "read_row read_rows reader source trusted",
    "Tree": "engine entry_of landmarks locate node nodes whiteouts",
    "TOC": "parse row rows",
    "Cache": "index is_current keep_index store tidy",
    "Image": "chunked describe descriptors external_toc index json number open_layers open_source "
    "repository root soci typed ways",
}


def table(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its first line."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def spans(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


def test_fields_of_an_entry() -> None:
    rows = {name: cells[-1] for cells in table("Entries") for name in spans(cells[0])}
    assert sorted(rows) == sorted(
        [*(field.name for field in fields(stargz.Entry)), "mtime_ns", "st_mode"]
    )
    assert {word.strip('"') for word in spans(rows["type"])} == set(get_args(EntryType))


def test_errors_and_what_they_derive_from() -> None:
    told = {}
    for names, bases, _ in table("Errors"):
        told.update({name: set(spans(bases)) for name in spans(names)})
    there = {
        name: {base.__name__ for base in kind.__bases__} - {"StargzError"} or {"StargzError"}
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.StargzError)
    }
    there["StargzError"] = {"Exception"}
    assert told == there


@pytest.mark.parametrize("name", INTERNAL)
def test_public_names(name: str, tmp_path: Path) -> None:
    """A new name of a class is promised on the page, or listed above."""
    stargz.convert(blobs.tar_of([("a", b"a")]), tmp_path / "layer.stargz")
    layouts.image(tmp_path / "layout", [tmp_path / "layer.stargz"])
    with stargz.open(tmp_path / "layer.stargz") as layer:
        made: dict[str, object] = {
            "Layer": layer, "Tree": stargz.Tree(layer), "TOC": layer.toc,
            "Cache": stargz.Cache(tmp_path / "cache"),
        }  # fmt: skip
        if name == "Image":
            stargz.convert_image(f"oci:{tmp_path}/layout", f"oci:{tmp_path}/made")
            with stargz.open_image(f"oci:{tmp_path}/made") as image:
                names = set(dir(image))
        else:
            names = set(dir(made[name]))
    public = {one for one in names if not one.startswith("_")}
    promised = {spans(cell)[0]: spans(text) for cell, text in table("What is promised")}
    assert not set(promised[name]) & set(INTERNAL[name].split())
    assert {*promised[name], *INTERNAL[name].split()} == public
