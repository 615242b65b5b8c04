"""A report as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stargz.errors import printable


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The whole report."""
    for name, value in about(report):
        yield f"{name:9}  {value}"
    for given in report["inputs"]:
        yield ""
        yield f"{printable(given['source'])}: {described(given)}"
        for one in given["measurements"]:
            yield ""
            yield f"{one['title']}: {one['meaning']}"
            yield from _table(one["cells"]) if one["cells"] else ("  nothing in it for this",)
    yield ""
    yield from report["notes"]


def about(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The machine and the programs, by lines."""
    machine = report["machine"]
    yield (
        "machine",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, "
        f"{machine['system']}, Linux {machine['kernel']}",
    )
    codecs = ", ".join(sorted(report["libraries"])) or "no codec library"
    yield "stargz", f"{report['stargz']} with {codecs}; Python {machine['python']}"
    yield (
        "runs",
        f"{report['rounds']} of each{' (quick)' if report['quick'] else ''}, on "
        f"{machine['scratch']}; load before: {machine['load']:.1f}",
    )
    yield "peers", ", ".join(f"{peer['name']} {peer['version']}" for peer in report["peers"])
    missing = [f"{peer['name']} ({peer['get']})" for peer in report["missing"]]
    yield "missing", ", ".join(missing) or "none"


def described(given: dict[str, Any]) -> str:
    """What an input is."""
    layers = f", the largest layer of {given['layers']}" if "layers" in given else ""
    return (
        f"{given['kind']}{layers}: {megabytes(given['tar_bytes'])} of tar, {given['files']:,} "
        f"files in {given['entries']:,} entries, {megabytes(given['tar_gz_bytes'])} as tar.gz"
    )


def megabytes(count: int) -> str:
    """Bytes, as people compare them."""
    if count < 100_000:
        return f"{count:,} bytes"
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"


def seconds(value: float) -> str:
    """With three digits that count."""
    for scale, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * scale >= 1 or unit == "µs":
            shown = value * scale
            return f"{shown:.{0 if shown >= 100 else 1 if shown >= 10 else 2}f} {unit}"
    raise AssertionError


def spread(cell: dict[str, Any]) -> str:
    """Half of what lies between the fastest run and the slowest, of the median; of one run none."""
    return f"±{cell['spread']:.0%}" if len(cell["seconds"]) > 1 else ""


def against(cell: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """How much longer it took than the first of ours: "2.1 x"."""
    first = next((one["median"] for one in cells if one["ours"] and one["median"]), None)
    if not first or not cell["median"]:
        return ""
    times = cell["median"] / first
    return f"{times:,.0f} x" if times >= 100 else f"{times:.3g} x"


def _table(cells: list[dict[str, Any]]) -> Iterator[str]:
    rows: list[tuple[str, tuple[str, ...], str]] = []
    for cell in cells:
        if cell["error"]:
            rows.append((cell["name"], (), _failed(cell)))
            continue
        size = "" if cell["bytes"] is None else f"{cell['bytes']:,} bytes"
        figures = (
            seconds(cell["median"]),
            spread(cell),
            against(cell, cells),
            size,
        )
        rows.append((cell["name"], figures, cell["note"]))
    width = max(len(name) for name, _, _ in rows)
    filled = [figures for _, figures, _ in rows if figures]
    widths = [max((len(row[at]) for row in filled), default=0) for at in range(4)]
    for name, row, note in rows:
        padded = [f"{text:>{size}}" for text, size in zip(row, widths, strict=False)]
        yield "  ".join(("", f"{name:{width}}", *padded, note)).rstrip()


def _failed(cell: dict[str, Any]) -> str:
    words = {"unable": "not here: ", "failed": "failed: ", "wrong": ""}[cell["state"]]
    return words + printable(cell["error"])
