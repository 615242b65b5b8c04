"""A report as one HTML page that needs nothing else: bars are inline SVG, no script runs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any

from stargz.benchmark.report import about, against, described, megabytes, seconds, spread
from stargz.errors import printable

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --soft: #57606a;
  --line: #d8dee4; --bar: #8c959f; --ours: #0969da; --bad: #b35900; }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --text: #e6edf3; --soft: #9198a1;
  --line: #30363d; --bar: #6e7681; --ours: #4493f8; --bad: #f0883e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--ground);
  color: var(--text); font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .25rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 0; }
p { margin: .25rem 0 .75rem; } .soft, dt, .note { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0; }
dd { margin: 0; }
nav a { margin-right: .75rem; } a { color: var(--ours); }
ul.cells { list-style: none; margin: .5rem 0; padding: 0; }
.cells li { display: grid; gap: 0 .75rem; align-items: baseline; padding: .3rem 0;
  grid-template-columns: 15rem 1fr 5.5rem 4rem 4.5rem; border-top: 1px solid var(--line); }
.name { font-weight: 500; } .ours .name { color: var(--ours); font-weight: 600; }
.figure { text-align: right; font-variant-numeric: tabular-nums; }
.chart { align-self: center; } svg { display: block; width: 100%; height: .9rem; }
rect { fill: var(--bar); } .ours rect { fill: var(--ours); }
line { stroke: var(--text); stroke-width: 2; vector-effect: non-scaling-stroke; }
.note { grid-column: 1 / -1; font-size: .85rem; }
.error { grid-column: 2 / -1; color: var(--bad); }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); font-size: .9rem; }
@media (max-width: 44rem) {
  .cells li { grid-template-columns: 1fr auto auto; }
  .name { grid-row: 1; grid-column: 1; } .figure { grid-row: 1; }
  .figure.spread { grid-row: 3; grid-column: 2 / -1; }
  .chart, .error { grid-column: 1 / -1; } .note { grid-column: 1; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
}
"""


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    data = json.dumps(report).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src '
            f"'none'; style-src 'sha256-{digest}'\">",
            f"<title>stargz bench</title><style>{_STYLE}</style></head><body>",
            "<h1>stargz bench</h1>",
            *_about(report),
            *_contents(report),
            *(line for at, given in enumerate(report["inputs"]) for line in _input(at, given)),
            "<footer>",
            *(f"<p>{_text(note)}</p>" for note in report["notes"]),
            "</footer>",
            f'<script type="application/json" id="report">{data}</script>',
            "</body></html>",
            "",
        )
    )


def _text(text: object) -> str:
    return escape(printable(str(text)))


def _about(report: dict[str, Any]) -> Iterator[str]:
    yield "<dl>"
    for name, value in about(report):
        yield f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>"
    yield "</dl>"


def _contents(report: dict[str, Any]) -> Iterator[str]:
    for at, given in enumerate(report["inputs"]):
        links = (
            f'<a href="#{at}-{_text(one["name"])}">{_text(one["title"])}</a>'
            for one in given["measurements"]
        )
        yield f"<nav><p>{_text(given['source'])}: {' '.join(links)}</p></nav>"


def _input(at: int, given: dict[str, Any]) -> Iterator[str]:
    yield f"<section><h2>{_text(given['source'])}</h2>"
    yield f'<p class="soft">{_text(described(given))}</p>'
    for one in given["measurements"]:
        yield f'<h3 id="{at}-{_text(one["name"])}">{_text(one["title"])}</h3>'
        yield f'<p class="soft">{_text(one["meaning"])}; shorter bars are faster</p>'
        yield '<ul class="cells">'
        longest = max((_end(cell) for cell in one["cells"] if not cell["error"]), default=1.0)
        for cell in one["cells"]:
            yield _cell(cell, one["cells"], longest)
        yield "</ul>"
    yield "</section>"


def _end(cell: dict[str, Any]) -> float:
    """Where the bar of a cell ends, with its spread."""
    return float(max(cell["seconds"]))


def _cell(cell: dict[str, Any], cells: list[dict[str, Any]], longest: float) -> str:
    kind = ' class="ours"' if cell["ours"] else ""
    name = f'<span class="name">{_text(cell["name"])}</span>'
    if cell["error"]:
        words = {"unable": "not here: ", "failed": "failed: ", "wrong": ""}[cell["state"]]
        return f'<li{kind}>{name}<span class="error">{words}{_text(cell["error"])}</span></li>'
    size = "" if cell["bytes"] is None else megabytes(cell["bytes"])
    note = "; ".join(part for part in (size, cell["note"]) if part)
    return "".join(
        (
            f"<li{kind}>{name}",
            f'<span class="chart">{_bar(cell, longest)}</span>',
            f'<span class="figure time">{seconds(cell["median"])}</span>',
            f'<span class="figure spread soft">{spread(cell)}</span>',
            f'<span class="figure soft">{against(cell, cells)}</span>',
            f'<span class="note">{_text(note)}</span>' if note else "",
            "</li>",
        )
    )


def _bar(cell: dict[str, Any], longest: float) -> str:
    """From 0 to the median; a line from the fastest run to the slowest."""
    scale = 1000 / (longest or 1)
    median, low, high = (
        value * scale for value in (cell["median"], min(cell["seconds"]), max(cell["seconds"]))
    )
    label = escape(f"{cell['name']}: {seconds(cell['median'])}", quote=True)
    return (
        f'<svg viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f'<rect x="0" y="1" width="{max(median, 1):.1f}" height="8"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="5" y2="5"/></svg>'
    )
