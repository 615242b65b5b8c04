"""The report of a conversion of many images: as JSON, or as one HTML page that needs nothing else.

The images come one by one and are written as they come; only the largest and slowest are kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from stargz.durable import complete_or_absent
from stargz.errors import UsageError

SUFFIXES = (".json", ".html")


def check_report_path(path: str | os.PathLike[str]) -> str:
    """The suffix of a report's path, ".json" or ".html"; UsageError for any other."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{os.fspath(path)}: a report is written to a .json or .html file")
    return suffix


def write_report(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Write a report to a path, as JSON or HTML by its suffix; complete, or not at all.

    `report` has "version", "source", "destination", "started" (ISO 8601), "seconds", "options",
    "totals" and "images": any iterable of objects, read once, each with "source", "destination",
    "status", "seconds", "size_before", "size_after" (bytes), "error", "stale", "warnings" and
    "layers". A file that is there is replaced.

    Raises UsageError for another suffix, and OSError.
    """
    suffix = check_report_path(path)
    with (
        complete_or_absent(os.path.realpath(path)) as fd,
        open(fd, "wb", closefd=False) as file,
    ):
        if suffix == ".json":
            _write_json(file, report)
        else:
            from stargz.oci.bulk.report_page import write_page

            write_page(file, report)


def _write_json(file: IO[bytes], report: Mapping[str, Any]) -> None:
    encode = json.JSONEncoder(ensure_ascii=True, indent=1).encode
    head = {key: value for key, value in report.items() if key != "images"}
    text = encode(head).removesuffix("}").rstrip()
    file.write(f'{text}{"," if head else ""}\n "images": ['.encode())
    images: Iterable[Mapping[str, Any]] = report.get("images", ())
    before = "\n"
    for image in images:
        file.write(f"{before}{encode(dict(image))}".encode())
        before = ",\n"
    file.write(b"]\n}\n")
