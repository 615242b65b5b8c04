"""The page of `stargz bench --report` as a browser shows it: on a phone, dark and light."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stargz.benchmark.page import page

WIDTH, HEIGHT = 390, 700
DARK, LIGHT = 0, 1  # chromium's preferredColorScheme


def cell(name: str, *seconds: float, **more: Any) -> dict[str, Any]:
    """As measuring.Result.to_json has it."""
    median = sorted(seconds)[len(seconds) // 2] if seconds else None
    spread = (max(seconds) - min(seconds)) / 2 / median if median else None
    found = {"name": name, "ours": False, "note": "", "median": median, "spread": spread}
    found |= {"seconds": list(seconds), "bytes": None, "error": None, "state": "ok"}
    return {**found, **more}


REPORT: dict[str, Any] = {
    "stargz": "1.0",
    "machine": {
        "cpu": "A processor with a very long name @ 3.00GHz", "cores": 2, "memory": 8 << 30,
        "system": "Debian GNU/Linux 12 (bookworm)", "kernel": "6.1", "python": "3.11.2",
        "load": 0.1, "scratch": "tmpfs",
    },
    "quick": False, "rounds": 3, "notes": ["What every report says."],
    "libraries": {"isal": "libisal.so.2"},
    "peers": [{"name": "gzip", "version": "1.12"}],
    "missing": [{"name": "pigz", "get": "apt-get install pigz"}],
    "inputs": [{
        "source": "/a/directory/with/a/name/that/goes/on/and/on/and/on/and/on/and/on/layer.tar.gz",
        "kind": "tar.gz", "tar_bytes": 204_000_000, "tar_gz_bytes": 92_000_000,
        "entries": 6000, "files": 5000, "file_bytes": 200_000_000,
        "measurements": [{
            "name": "convert", "title": "Convert", "meaning": "a tar.gz to a layer",
            "cells": [
                cell("stargz --level 1", 0.61, 0.64, 0.7, ours=True, bytes=101_200_000),
                cell("gzip -6", 6.6, 6.7, 6.8, note="from the plain tar", bytes=92_600_000),
                cell("pigz -6", error="pigz: " + "abcdefghij" * 30, state="failed"),
            ],
        }],
    }],
}  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs chromium: apt-get install chromium (.ci/nightly has it)")
    folder = tmp_path_factory.mktemp("browser")
    kept = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # sanitizers are not for it

    def run(scheme: int, *options: str) -> str:
        done = subprocess.run(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}",
                f"--blink-settings=preferredColorScheme={scheme}", *options,
            ],
            capture_output=True, text=True, timeout=120, env=kept,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run


def framed(folder: Path) -> str:
    """The page in a frame as wide as a phone, which says how wide what is in it is."""
    (folder / "page.html").write_text(page(REPORT))
    script = """
frame.onload = () => { const inside = frame.contentDocument;
  said.textContent = JSON.stringify({
    wide: inside.documentElement.scrollWidth,
    bars: [...inside.querySelectorAll("rect")].map(one => one.getBoundingClientRect().width),
    names: [...inside.querySelectorAll(".name")].map(one => getComputedStyle(one).fontSize),
    ground: frame.contentWindow.getComputedStyle(inside.body).backgroundColor }); };
"""
    (folder / "framed.html").write_text(
        '<!doctype html><body style="margin:0"><iframe id="frame" src="page.html" '
        f'style="border:0;width:{WIDTH}px;height:{HEIGHT}px"></iframe><pre id="said"></pre>'
        f"<script>{script}</script>"
    )
    return (folder / "framed.html").as_uri()


@pytest.mark.parametrize("scheme", [DARK, LIGHT], ids=["dark", "light"])
def test_on_a_phone(browser: Any, tmp_path: Path, scheme: int) -> None:
    url = framed(tmp_path)
    dom = browser(scheme, "--virtual-time-budget=5000", "--dump-dom", url)
    (said,) = re.findall(r'<pre id="said">(.*?)</pre>', dom)
    found = json.loads(said)
    assert found["wide"] <= WIDTH, "one has to scroll sideways"
    assert found["bars"][1] > 8 * found["bars"][0] > 10  # 6.7 s and 0.64 s
    assert all(float(size[:-2]) >= 15 for size in found["names"])
    shot = tmp_path / "shot.png"
    browser(scheme, f"--window-size=500,{HEIGHT}", f"--screenshot={shot}", url)
    rows = pixels(shot.read_bytes())
    inside = Counter(pixel for row in rows for pixel in row[:WIDTH])
    ground = inside.most_common(1)[0][0]
    assert (sum(ground) < 150) if scheme == DARK else (sum(ground) > 700), ground
    contrast = [n for pixel, n in inside.items() if abs(sum(pixel) - sum(ground)) > 450]
    assert sum(contrast) > 500, "nothing is readable on it"
    assert any(blue > red + 60 for red, _, blue in inside), "none of ours is to be seen"


def pixels(data: bytes) -> list[list[tuple[int, int, int]]]:
    """The rows of a PNG of 8-bit RGB or RGBA."""
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    depth = {2: 3, 6: 4}[data[25]]
    at, packed = 8, b""
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + size]
        at += size + 12
    raw = zlib.decompress(packed)
    before, rows = bytearray(width * depth), []
    for number in range(height):
        start = number * (width * depth + 1)
        row = bytearray(raw[start + 1 : start + 1 + width * depth])
        _unfilter(raw[start], row, before, depth)
        rows.append([(row[x], row[x + 1], row[x + 2]) for x in range(0, width * depth, depth)])
        before = row
    return rows


def _unfilter(kind: int, row: bytearray, before: bytearray, depth: int) -> None:
    if kind == 2:
        row[:] = bytes((x + up) & 255 for x, up in zip(row, before, strict=True))
    elif kind:
        for at in range(len(row)):
            left = row[at - depth] if at >= depth else 0
            up, corner = before[at], before[at - depth] if at >= depth else 0
            if kind == 1:
                more = left
            elif kind == 3:
                more = (left + up) // 2
            else:
                guess = left + up - corner
                more = min((left, up, corner), key=lambda one: abs(guess - one))
            row[at] = (row[at] + more) & 255
