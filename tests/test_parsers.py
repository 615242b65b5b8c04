"""Whatever the parsers in Python are given, they end with a right result or an error of one line.

A few dozen mutated inputs for each; STARGZ_PROPERTY_ROUNDS=20000 for more of them,
STARGZ_PROPERTY_SEED=N from the Nth on. And what a fuzzer found once.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from parsers import PARSERS, Parser

CORPUS = Path(__file__).parent / "fuzz" / "corpus" / "python"
ROUNDS = int(os.environ.get("STARGZ_PROPERTY_ROUNDS", "60"))
FIRST = int(os.environ.get("STARGZ_PROPERTY_SEED", "0"))

NUMBERS = (0, 1, -1, 127, 128, 255, 256, 65535, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, 1 << 64)
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1 << 63, float("nan"), "", "\ud800", "\0\n\x1b[0m", [], {}),
    *("x" * 5000, [[]], {"": None}, "sha256:../x", 10**400),
)


def mutated(rng: random.Random, one: Parser) -> bytes:
    data = rng.choice(one.seeds)
    for _ in range(rng.choice((1, 1, 2, 4, 10))):
        change = rng.choice((of_bytes, of_bytes, of_json))
        data = change(rng, data, one)
    return data


def of_bytes(rng: random.Random, data: bytes, one: Parser) -> bytes:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((0, 1, 2, 8, 64, 512)))
    other = rng.choice(one.seeds)
    start = rng.randrange(len(other) + 1)
    width = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS)
    middle = rng.choice(
        (
            rng.choice(one.tokens),
            rng.randbytes(end - at),
            b"",
            data[at:end] * 2,
            other[start : start + rng.choice((1, 8, 100, 600))],
            (number % (1 << 8 * width)).to_bytes(width, rng.choice(("little", "big"))),
            b"%d" % number,
        )
    )
    if rng.random() < 0.3:
        end = min(len(data), at + len(middle))  # nothing moves
    return data[:at] + middle + data[end:] if rng.random() < 0.95 else data[:at]


def of_json(rng: random.Random, data: bytes, one: Parser) -> bytes:
    """Another value in one place of a document; other inputs have a bit flipped."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict | list):
        if not data:
            return data
        at = rng.randrange(len(data))
        return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]
    places: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        value = pending.pop()
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in list(inner):
            places.append((value, key))
            if isinstance(child, dict | list):
                pending.append(child)
    if places:
        value, key = rng.choice(places)
        odd = rng.choice((*ODD, deep(rng)))
        value[key] = rng.choice((odd, [odd], {"a": odd}, value[key], [value[key]]))
        if isinstance(value, dict) and isinstance(key, str) and rng.random() < 0.2:
            value[rng.choice((key.upper(), key + "x", "\udfff"))] = value.pop(key)
    try:
        return json.dumps(document).encode()
    except RecursionError:
        return data


def deep(rng: random.Random) -> Any:
    value: Any = None
    for _ in range(rng.choice((10, 100, 300, 500, 900))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


@pytest.mark.parametrize("name", PARSERS)
def test_any_input_is_read_or_refused(name: str) -> None:
    one = PARSERS[name]
    for seed in one.seeds:
        one.read(seed)
    for number in range(FIRST, FIRST + ROUNDS):
        data = mutated(random.Random(f"{name} {number}"), one)
        try:
            one.read(data)
        except Exception as error:
            pytest.fail(f"seed {number}: {type(error).__name__}: {error}: {data[:500]!r}")


def found() -> list[Path]:
    return sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", found(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once(path: Path) -> None:
    PARSERS[path.parent.name].read(path.read_bytes())
