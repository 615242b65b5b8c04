"""Reports: JSON as it was given, and a page that is whole, right, harmless and needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stargz.errors import UsageError
from stargz.oci.bulk.report import write_report

HOSTILE = (
    "</td></table><script>alert('x')</script><img src=x onerror=\"a()\">&amp;\x1b[2J\u202e\udcff"
)
VOID = {"meta", "rect", "img", "br", "link", "input"}


def layer(number: int, **keys: Any) -> dict[str, Any]:
    return {
        "digest": f"sha256:{number:064x}", "size": 3_000_000, "diff_id": None, "toc_digest": None,
        "uncompressed_size": 9_000_000, "entries": 7, "chunks": 5, "level": 1, "seconds": 0.5,
        "source_digest": f"sha256:{number + 10**9:064x}", "source_size": 2 << 20,
        "status": "converted", **keys,
    }  # fmt: skip


def image(number: int, **keys: Any) -> dict[str, Any]:
    return {
        "source": f"docker://host/app:{number}", "destination": f"docker://other/app:{number}",
        "status": "converted", "source_digest": "sha256:1", "digest": "sha256:2",
        "seconds": 1.0 + number, "size_before": (1 + number) << 20, "size_after": 3 << 19,
        "error": None, "stale": [], "warnings": [], "layers": [layer(number)], **keys,
    }  # fmt: skip


def report(images: Any, **keys: Any) -> dict[str, Any]:
    return {
        "version": 1, "source": "docker://host", "destination": "docker://other",
        "started": "2024-01-02T03:04:05Z", "seconds": 61.5,
        "options": {"level": 1, "include": ["a/*"], "threads": None},
        "totals": {"images": 3, "converted": 2, "failed": 1, "bytes_before": 5 << 20,
                   "bytes_read": 123_000_000},
        "images": images, **keys,
    }  # fmt: skip


class Page(HTMLParser):
    """The page's tables, texts, tags and attributes; every tag is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self.raw: dict[str, str] = {}
        self._title = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self._title = ""
        if tag == "tr":
            self.tables.setdefault(self._title, []).append([])
        if tag in ("td", "th"):
            self.tables[self._title][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open:
            return
        if self.open[-1] in ("script", "style"):
            self.raw[self.open[-1]] = data
            return
        self.texts.append(data)
        if self.open[-1] == "h2":
            self._title += data
        if self.open[-1] in ("td", "th"):
            self.tables[self._title][-1][-1] += data


def page_of(tmp_path: Path, value: dict[str, Any]) -> Page:
    path = tmp_path / "report.html"
    write_report(path, value)
    return Page(path.read_text())


def test_json_is_what_was_given(tmp_path: Path) -> None:
    images = [image(1), image(2, status="failed", error=HOSTILE)]
    path = tmp_path / "report.JSON"
    write_report(path, report(iter(images)))
    assert json.loads(path.read_text()) == report(images)
    write_report(str(path), report([]))
    assert json.loads(path.read_text())["images"] == []
    assert [file.name for file in tmp_path.iterdir()] == ["report.JSON"]


def test_the_tables_of_a_page(tmp_path: Path) -> None:
    stale = [{"name": "host/app:sha256-1.sig", "kind": "cosign signature", "digest": None}]
    images = [
        image(0, stale=stale),
        image(1, status="failed", error="denied", size_after=0, layers=[]),
        image(2, status="unchanged", warnings=["a thing"]),
    ]
    page = page_of(tmp_path, report(iter(images)))
    totals = dict(page.tables["Totals"])
    assert totals["images"] == "3" and totals["bytes before"] == "5.0 MiB"
    assert totals["include"] == '["a/*"]' and totals["threads"] == "null"
    assert page.tables["Failed"][1:] == [["docker://host/app:1", "denied"]]
    heads, *rows = page.tables["All images"]
    assert [row[0] for row in rows] == [one["source"] for one in images]
    first, second, third = (dict(zip(heads, row, strict=True)) for row in rows)
    assert (first["Before"], first["After"], first["Change"]) == ("1.0 MiB", "1.5 MiB", "+50.0%")
    assert (first["Seconds"], first["Layers"], first["Notes"]) == ("1.00", "1", "1 no longer match")
    assert (second["Status"], second["Notes"], second["Change"]) == ("failed", "denied", "")
    assert third["Notes"] == "a thing"
    assert page.tables["Signatures and the like that no longer match"][1][1:3] == [
        "host/app:sha256-1.sig", "cosign signature",
    ]  # fmt: skip
    slowest = page.tables["The slowest layers"][1]
    assert slowest[3:] == ["2.0 MiB", "2.9 MiB", "0.50", "4.2"]
    assert "2024-01-02T03:04:05Z, 61.5 seconds, 2.0 MB/s read" in page.texts
    order = [text for text in page.texts if text in page.tables]
    assert order[:2] == ["Totals", "Failed"] and order[-1] == "All images"


def test_charts_and_slowest_layers_are_the_top(tmp_path: Path) -> None:
    images = [image(number, layers=[layer(number % 50, seconds=number % 50 + 1)])
              for number in range(200)]  # fmt: skip
    page = page_of(tmp_path, report(iter(images)))
    bars = [attrs for tag, attrs in page.tags if tag == "rect"]
    kinds = [attrs["class"] for attrs in bars]
    assert kinds.count("before") == 20 and kinds.count("time") == 20
    widths = [float(attrs["width"] or 0) for attrs in bars if attrs["class"] == "time"]
    assert widths == sorted(widths, reverse=True) and widths[0] == 470
    assert "200.0 MiB" in page.texts and "200.00 s" in page.texts
    seconds = [row[5] for row in page.tables["The slowest layers"][1:]]
    assert seconds == [f"{value:.2f}" for value in range(50, 30, -1)]  # each layer once
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 3


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    stale = [{"name": HOSTILE, "kind": HOSTILE, "digest": HOSTILE}]
    texts = {"source": HOSTILE, "destination": HOSTILE, "error": HOSTILE, "warnings": [HOSTILE]}
    bad = [
        image(0, **texts, status=status, stale=stale, layers=[layer(1, digest=HOSTILE)])
        for status in ("failed", "converted", HOSTILE)
    ]
    bad.append({"source": None, "size_before": "many", "seconds": float("nan"), "layers": None})
    bad.append(image(9, size_before=10**400, seconds=float("inf"), size_after=True))
    whole = report(bad, source=HOSTILE, started=HOSTILE, options={HOSTILE: HOSTILE})
    page = page_of(tmp_path, {**whole, "totals": {HOSTILE: HOSTILE}})
    kinds = [tag for tag, _ in page.tags]
    assert kinds.count("script") == 1 and "img" not in kinds
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    shown = (
        HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\udcff", "\\udcff")
    )
    assert shown in page.tables["Failed"][1][0] and shown in page.tables["Failed"][1][1]
    text = (tmp_path / "report.html").read_text()
    assert "\x1b" not in text and "\u202e" not in text and "nan" not in text.lower().split('"')


def test_it_needs_nothing_else(tmp_path: Path) -> None:
    page = page_of(tmp_path, report([image(0), image(1, status="failed", error="e")]))
    attributes = [name for _, attrs in page.tags for name in attrs]
    assert not {"src", "href", "srcset", "style", "action", "xlink:href", "data"} & set(attributes)
    for code in page.raw.values():
        assert not re.search(r"https?:|url\(|@import|fetch|XMLHttp|innerHTML", code)
    (policy,) = (
        attrs["content"] or "" for tag, attrs in page.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )  # fmt: skip
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for code in page.raw.values():
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "prefers-color-scheme:dark" in page.raw["style"]


def test_another_suffix(tmp_path: Path) -> None:
    for name in ("report", "report.txt", "html", ".json"):
        with pytest.raises(UsageError, match=r"\.json or \.html"):
            write_report(tmp_path / name, report([]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["json", "html"])
def test_complete_or_absent(suffix: str, tmp_path: Path) -> None:
    def images() -> Iterator[dict[str, Any]]:
        yield image(1)
        raise RuntimeError("no more")

    path = tmp_path / f"report.{suffix}"
    with pytest.raises(RuntimeError, match="no more"):
        write_report(path, report(images()))
    assert not list(tmp_path.iterdir())
    path.write_text("the one before")
    with pytest.raises(RuntimeError, match="no more"):
        write_report(path, report(images()))
    assert path.read_text() == "the one before"
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "no" / f"report.{suffix}", report([]))


@pytest.mark.parametrize("suffix", ["json", "html"])
def test_thousands_of_images_are_not_held(suffix: str, tmp_path: Path) -> None:
    def images() -> Iterator[dict[str, Any]]:
        for number in range(5000):
            yield image(number, warnings=["w" * 500], layers=[layer(number), layer(number + 1)])

    path = tmp_path / f"report.{suffix}"
    tracemalloc.start()
    try:
        write_report(path, report(images()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 3_000_000 and peak < 4_000_000
    if suffix == "json":
        assert len(json.loads(path.read_text())["images"]) == 5000
    else:
        assert len(Page(path.read_text()).tables["All images"]) == 5001
