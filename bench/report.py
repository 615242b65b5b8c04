"""Print the figures of a benchmark run as one markdown table, measured against target, and
then the tables that benchmarks made themselves.

pytest bench/bench_*.py --benchmark-json=bench.json
python -m bench.report bench.json
"""

from __future__ import annotations

import json
import operator
import sys
from pathlib import Path

COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}


def verdict(value: float, target: str) -> str:
    if not target:
        return ""
    sign, bound = target.split()
    return "yes" if COMPARE[sign](value, float(bound)) else "**no**"


def table(path: Path) -> str:
    run = json.loads(path.read_text())
    cpu = run["machine_info"]["cpu"]
    lines = [
        f"{cpu.get('brand_raw', 'unknown CPU')}, {cpu.get('count', '?')} cores",
        "",
        "| figure | measured | target | met |",
        "|---|---|---|---|",
    ]
    for bench in run["benchmarks"]:
        for figure in bench["extra_info"].get("figures", ()):
            value, target = figure["value"], figure["target"]
            shown = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
            lines.append(f"| {figure['name']} | {shown} | {target} | {verdict(value, target)} |")
    for bench in run["benchmarks"]:
        if made := bench["extra_info"].get("table"):
            lines += ["", made["title"], ""]
            lines += [_row(made["columns"]), "|---" * len(made["columns"]) + "|"]
            lines += map(_row, made["rows"])
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(table(Path(sys.argv[1])))
