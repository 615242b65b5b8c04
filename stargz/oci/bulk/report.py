"""The report of a conversion of many images: as JSON, or as one HTML page that needs nothing else.

The images come one by one and are written as they come; only the largest and slowest are kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from stargz.durable import check_place, complete_or_absent
from stargz.errors import UsageError


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that was not converted, and why."""

    source: str
    destination: str  # "" where none was found for it
    error: str
    status: str = "failed"  # or "throttled": a host refused for want of time, as long as it may


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkReport:
    """What a bulk run did. `totals` has images, converted, unchanged, failed, throttled, skipped,
    layers (distinct ones of the images that were converted), layers_converted, layers_kept,
    layers_not_seekable, layers_reused (the others, known from runs before), bytes_before,
    bytes_after (of those layers), bytes_read and bytes_written (of those made in this run); of a
    dry run images, unchanged, failed, throttled, skipped, layers, layers_known, bytes (of the
    layers to be made) and to_do (images). Where indexes are made there are indexed and
    not_indexable instead of converted, layers_indexed and layers_left_out, and what is after and
    written are ztocs."""

    source: str
    destination: str | None
    started: str  # ISO 8601, UTC
    seconds: float
    dry_run: bool = False
    options: dict[str, Any]
    totals: dict[str, int]
    failures: tuple[Failure, ...] = ()
    skipped: tuple[Failure, ...] = ()  # what is no image, and what it is instead
    stale: tuple[dict[str, Any], ...] = ()  # name, kind, digest, and the image's source
    warnings: tuple[dict[str, str], ...] = ()  # the image's source, and the warning
    # Of a dry run every image, as a report's file has it: what would be done to which layers.
    images: tuple[dict[str, Any], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no image failed."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        lists = {key: list(map(asdict, getattr(self, key))) for key in ("failures", "skipped")}
        lists |= {key: list(getattr(self, key)) for key in ("stale", "warnings", "images")}
        found = {**asdict(self), **lists}
        if not self.dry_run:
            del found["images"]
        return found


def report_target(path: str | os.PathLike[str]) -> str:
    """A report's file, which can be written; UsageError for another suffix, and OSError."""
    name = os.fspath(path)
    _suffix(name)
    check_place(name, "reports (--report)")
    return name


def _suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a report's path, ".json" or ".html"; UsageError for any other."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".html"):
        raise UsageError(f"{os.fspath(path)}: a report is written to a .json or .html file")
    return suffix


def write_report(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Write a report to a path, as JSON or HTML by its suffix; complete, or not at all.

    `report` has "version", "source", "destination", "started" (ISO 8601), "seconds", "options",
    "totals" and "images": any iterable of objects, read once, each with "source", "destination",
    "status", "seconds", "size_before", "size_after" (bytes), "error", "stale", "warnings" and
    "layers"; and "dry_run", if nothing of it was done. A file that is there is replaced.

    Raises UsageError for another suffix, and OSError.
    """
    suffix = _suffix(path)
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
