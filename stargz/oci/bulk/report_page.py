"""A report as one HTML page: no other file, no network, and every text in it escaped.

Its scripts and styles are those that the Content-Security-Policy names by hash; without scripts
everything is there all the same, only not sortable.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import html
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

from stargz.oci.bulk.state import FAILED
from stargz.oci.convert.layers import NOT_SEEKABLE
from stargz.oci.soci.layers import LEFT_OUT

TOP = 20  # bars of a chart, rows of the table of slowest layers

Image = Mapping[str, Any]

_STYLE = """\
:root{color-scheme:light dark;--text:#1b1f24;--back:#fff;--soft:#5b6572;--line:#d5dae0;
--head:#f3f5f7;--before:#9db4c8;--after:#2f7d4f;--time:#b5762a;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--text:#e4e8ec;--back:#15181c;--soft:#9aa4b0;
--line:#333a42;--head:#20252b;--before:#56708a;--after:#57b27c;--time:#d89b4a;--bad:#f2867e}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--text);background:var(--back);
margin:2rem auto;max-width:75rem;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
p.soft,.soft{color:var(--soft)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top;overflow-wrap:anywhere}
th{background:var(--head);white-space:nowrap}
.sorts th{cursor:pointer}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.facts{width:auto}
.failed{color:var(--bad)}
code{font-size:.85em}
svg{width:100%;height:auto;max-width:60rem}
svg text{font-size:12px;fill:var(--text)}
.before{fill:var(--before)}.after{fill:var(--after)}.time{fill:var(--time)}
"""

_SCRIPT = """\
document.querySelectorAll("table.sorts").forEach(function(table){
table.querySelectorAll("th").forEach(function(head,column){
head.addEventListener("click",function(){
var down=head.dataset.down!=="1",body=table.tBodies[0];head.dataset.down=down?"1":"0";
var key=function(row){var cell=row.cells[column];
return "v" in cell.dataset?Number(cell.dataset.v):cell.textContent;};
Array.from(body.rows).sort(function(a,b){var x=key(a),y=key(b),
c=typeof x==="number"?x-y:x.localeCompare(y);return down?-c:c;})
.forEach(function(row){body.appendChild(row);});});});});
"""


def write_page(file: IO[bytes], report: Mapping[str, Any]) -> None:
    """Write the page of a report (see `stargz.oci.bulk.report.write_report`)."""
    with ExitStack() as stack:
        rows, failed, left, stale = (
            stack.enter_context(tempfile.TemporaryFile()) for _ in range(4)
        )
        seen = _Seen()
        for image in report.get("images", ()):
            seen.add(image)
            _write(rows, _image_row(image))
            if image.get("status") in FAILED:
                _write(failed, _row(_cell(image.get("source")), _error(image)))
            for layer in image.get("layers") or ():
                if layer.get("status") in _LEFT:
                    why = layer.get("why") or (layer.get("warnings") or [""])[-1]
                    digest = layer.get("source_digest")
                    _write(left, _row(_cell(image.get("source")), _cell(digest), _cell(why)))
            for one in image.get("stale") or ():
                keys = ("name", "kind", "digest")
                cells = (_cell(one.get(key)) for key in keys)
                _write(stale, _row(_cell(image.get("source")), *cells))
        for text in _head(report):
            _write(file, text)
        _table(file, "Failed", ("Image", "Error"), failed)
        for text in seen.charts():
            _write(file, text)
        for text in seen.slowest_layers():
            _write(file, text)
        indexed = bool((report.get("options") or {}).get("index"))
        what = "left out" if indexed else "not seekable"
        _table(file, f"Layers that are {what}", ("Image", "Layer", "Why"), left)
        _table(file, "Signatures and the like that no longer match", _STALE_HEADS, stale)
        _table(file, "All images", _IMAGE_HEADS, rows, sorts=True)
        _write(file, f"<script>{_SCRIPT}</script>\n</body>\n</html>\n")


_LEFT = (NOT_SEEKABLE, LEFT_OUT)
_STALE_HEADS = ("Image", "Refers to it", "Kind", "Digest")
_IMAGE_HEADS = (
    "Image", "Became", "Status", "Before", "After", "Change", "Seconds", "Layers", "Notes",
)  # fmt: skip


def _write(file: IO[bytes], text: str) -> None:
    file.write(text.encode("utf-8", "backslashreplace"))


# --- texts and numbers --------------------------------------------------------------------


def _text(value: object) -> str:
    """Any value, on one line and harmless wherever it stands in the page."""
    text = "" if value is None else str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return html.escape(text, quote=True)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(value) if abs(value) < 1e18 else 0.0  # also what is no number


def size_text(value: object) -> str:
    """Bytes in a unit that is easy to read."""
    count = _number(value)
    if abs(count) < 1024:
        return f"{count:,.0f} bytes"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        count /= 1024
        if abs(count) < 1024 or unit == "PiB":
            break
    return f"{count:,.1f} {unit}"


def _rate(size: float, seconds: float) -> float:
    """Megabytes a second."""
    return size / seconds / 1e6 if seconds > 0 else 0.0


def _cell(value: object, kind: str = "") -> str:
    return f"<td{f' class={kind}' if kind else ''}>{_text(value)}</td>"


def _amount(value: object, text: str) -> str:
    """A number that is sorted by its value."""
    return f'<td class="n" data-v="{_number(value):.6f}">{_text(text)}</td>'


def _size(value: object) -> str:
    return _amount(value, size_text(value))


def _row(*cells: str) -> str:
    return f"<tr>{''.join(cells)}</tr>\n"


def _error(image: Image) -> str:
    return _cell(image.get("error") or "no reason was given", "failed")


# --- the beginning ------------------------------------------------------------------------


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    policy = (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>stargz: {_text(report.get('source'))}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_places(report)}</h1>\n"
    )
    if report.get("dry_run"):
        yield "<p><strong>A dry run: what there is to do. Nothing was written.</strong></p>\n"
    totals = report.get("totals") or {}
    seconds = _number(report.get("seconds"))
    rate = _rate(_number(totals.get("bytes_read")), seconds)
    yield (
        f'<p class="soft">{_text(report.get("started"))}, {seconds:,.1f} seconds, '
        f"{rate:,.1f} MB/s read</p>\n"
    )
    yield "<h2>Totals</h2>\n"
    yield from _facts((_label(key), _total(key, value)) for key, value in totals.items())
    yield "<details><summary>Options</summary>\n"
    options = report.get("options") or {}
    yield from _facts((str(key), _cell(_shown(value))) for key, value in options.items())
    yield "</details>\n"


def _places(report: Mapping[str, Any]) -> str:
    """What is read, and where what is made of it goes, if that is another place."""
    places = (report.get("source"), report.get("destination"))
    return " to ".join(_text(place) for place in places if place is not None)


def _label(key: object) -> str:
    return str(key).replace("_", " ")


def _total(key: object, value: object) -> str:
    return (
        _size(value) if str(key).startswith("bytes") else _amount(value, f"{_number(value):,.0f}")
    )


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _facts(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield '<table class="facts"><tbody>\n'
    for name, cell in pairs:
        yield _row(f"<th>{_text(name)}</th>", cell)
    yield "</tbody></table>\n"


# --- tables -------------------------------------------------------------------------------


def _table(
    file: IO[bytes], title: str, heads: Sequence[str], rows: IO[bytes], *, sorts: bool = False
) -> None:
    """A table of rows that were put aside; nothing if there are none."""
    if not rows.tell():
        return
    rows.seek(0)
    _write(file, _table_head(title, heads, sorts=sorts))
    shutil.copyfileobj(rows, file, 1 << 20)
    _write(file, "</tbody></table></div>\n")


def _table_head(title: str, heads: Sequence[str], *, sorts: bool = False) -> str:
    names = "".join(f"<th>{_text(head)}</th>" for head in heads)
    kind = ' class="sorts"' if sorts else ""
    return (
        f'<h2>{_text(title)}</h2>\n<div class="wide"><table{kind}><thead><tr>{names}</tr></thead>'
        "<tbody>\n"
    )


def _image_row(image: Image) -> str:
    before, after = _number(image.get("size_before")), _number(image.get("size_after"))
    change = (after - before) / before if before and after else 0.0
    seconds = _number(image.get("seconds"))
    layers = len(image.get("layers") or ())
    notes = [str(text) for text in image.get("warnings") or ()]
    if image.get("error"):
        notes.insert(0, str(image["error"]))
    if count := len(image.get("stale") or ()):
        notes.append(f"{count} no longer match")
    status = image.get("status")
    return _row(
        _cell(image.get("source")),
        _cell(image.get("destination")),
        _cell(status, "failed" if status in FAILED else ""),
        _size(before),
        _size(after),
        _amount(change, f"{change:+.1%}" if before and after else ""),
        _amount(seconds, f"{seconds:,.2f}"),
        _amount(layers, f"{layers:,}"),
        _cell("; ".join(notes)),
    )


# --- charts -------------------------------------------------------------------------------


class _Seen:
    """What is kept of the images that went by: the largest, the slowest, and their speeds."""

    def __init__(self) -> None:
        self._number = 0
        self._largest: list[tuple[float, int, str, float, float]] = []
        self._slowest: list[tuple[float, int, str]] = []
        self._layers: list[tuple[float, int, Mapping[str, Any], str]] = []
        self._known: set[tuple[object, object]] = set()  # layers in the list
        self._speeds: Counter[int] = Counter()

    def add(self, image: Image) -> None:
        """Look at the next image."""
        self._number += 1
        name, seconds = str(image.get("source") or ""), _number(image.get("seconds"))
        before, after = _number(image.get("size_before")), _number(image.get("size_after"))
        if before or after:
            _keep(self._largest, (max(before, after), -self._number, name, before, after))
        if seconds > 0 and image.get("status") in ("converted", "indexed"):
            _keep(self._slowest, (seconds, -self._number, name))
            if before:
                self._speeds[int(_rate(before, seconds)).bit_length()] += 1
        for layer in image.get("layers") or ():
            self._add_layer(layer, name)

    def _add_layer(self, layer: Mapping[str, Any], name: str) -> None:
        key = layer.get("source_digest"), layer.get("digest")
        seconds = _number(layer.get("seconds"))
        if seconds <= 0 or key in self._known:
            return
        self._number += 1
        self._known.add(key)
        dropped = _keep(self._layers, (seconds, -self._number, layer, name))
        if dropped is not None:
            gone = dropped[2]
            self._known.discard((gone.get("source_digest"), gone.get("digest")))

    def charts(self) -> Iterator[str]:
        """The charts, as SVG in the page."""
        largest = sorted(self._largest, reverse=True)
        if largest:
            yield "<h2>Sizes: before (pale) and after, the largest images</h2>\n"
            yield from _bars(
                [
                    (
                        name,
                        (("before", before, size_text(before)), ("after", after, size_text(after))),
                    )
                    for _, _, name, before, after in largest
                ]
            )
        slowest = sorted(self._slowest, reverse=True)
        if slowest:
            yield "<h2>Seconds: the slowest images</h2>\n"
            yield from _bars(
                [(name, (("time", value, f"{value:,.2f} s"),)) for value, _, name in slowest]
            )
        if self._speeds:
            yield "<h2>Throughput: images by compressed MB/s</h2>\n"
            low, high = min(self._speeds), max(self._speeds)
            yield from _bars(
                [
                    (_bin(bits), (("after", self._speeds[bits], f"{self._speeds[bits]:,}"),))
                    for bits in range(low, high + 1)
                ]
            )

    def slowest_layers(self) -> Iterator[str]:
        """The table of the layers that took the most time."""
        if not self._layers:
            return
        heads = ("Layer", "Became", "Image", "Before", "After", "Seconds", "MB/s")
        yield _table_head("The slowest layers", heads, sorts=True)
        for seconds, _, layer, name in sorted(self._layers, key=lambda x: x[:2], reverse=True):
            rate = _rate(_number(layer.get("source_size")), seconds)
            yield _row(
                _cell(layer.get("source_digest")),
                _cell(layer.get("digest")),
                _cell(name),
                _size(layer.get("source_size")),
                _size(layer.get("size")),
                _amount(seconds, f"{seconds:,.2f}"),
                _amount(rate, f"{rate:,.1f}"),
            )
        yield "</tbody></table></div>\n"


def _keep(heap: list[Any], item: Any) -> Any:
    """Keep the TOP largest; what had to go."""
    if len(heap) < TOP:
        heapq.heappush(heap, item)
        return None
    return heapq.heappushpop(heap, item)


def _bin(bits: int) -> str:
    return "under 1" if not bits else f"{1 << (bits - 1):,} to {1 << bits:,}"


_Bar = tuple[str, float, str]  # class, value, label


def _bars(rows: Sequence[tuple[str, Sequence[_Bar]]]) -> Iterator[str]:
    """Horizontal bars, in groups of one name."""
    largest = max((value for _, bars in rows for _, value, _ in bars), default=0) or 1
    thick, gap, left, width = 14, 8, 330, 470
    height = sum(len(bars) * thick + gap for _, bars in rows) + gap
    yield f'<svg viewBox="0 0 900 {height}" role="img">\n'
    y = gap
    for name, bars in rows:
        short = name if len(name) <= 46 else f"…{name[-45:]}"
        middle = y + len(bars) * thick / 2 + 4
        yield (
            f'<text x="{left - 8}" y="{middle:.0f}" text-anchor="end">{_text(short)}'
            f"<title>{_text(name)}</title></text>\n"
        )
        for kind, value, label in bars:
            long = max(value / largest * width, 1)
            yield (
                f'<rect class="{kind}" x="{left}" y="{y}" width="{long:.1f}" height="{thick - 2}"/>'
                f'<text x="{left + long + 6:.1f}" y="{y + thick - 3}">{_text(label)}</text>\n'
            )
            y += thick
        y += gap
    yield "</svg>\n"
