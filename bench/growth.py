"""How something grows: y = fixed + each * x, fitted to what was measured, and where that bends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# A point that is so far from what those before it foretell is where the growth bends.
_FAR = 0.25


@dataclass(frozen=True)
class Growth:
    """`exponent` is how what is not fixed grows: 1 is in proportion; nan where hardly anything
    does. `bends` are the points that those before them do not foretell."""

    fixed: float
    each: float
    exponent: float
    bends: tuple[float, ...]


def fit(xs: Sequence[float], ys: Sequence[float]) -> Growth:
    """Least squares of the relative errors: small points count as much as large ones."""
    fixed, each = _line(xs, ys)
    bends = []
    for at in range(2, len(xs)):
        before, more = _line(xs[:at], ys[:at])
        foretold = before + more * xs[at]
        if abs(ys[at] - foretold) > _FAR * ys[at]:
            bends.append(xs[at])
    grown = [(x, y - fixed) for x, y in zip(xs, ys, strict=True) if y - fixed > _FAR * y]
    exponent = math.nan
    if len(grown) > 1:
        (x0, y0), (x1, y1) = grown[0], grown[-1]
        exponent = math.log(y1 / y0) / math.log(x1 / x0)
    return Growth(fixed, each, exponent, tuple(bends))


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Fixed and each, neither of which is negative."""
    weights = [1 / y**2 for y in ys]
    total = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, xs, strict=True)) / total
    mean_y = sum(w * y for w, y in zip(weights, ys, strict=True)) / total
    square = sum(w * (x - mean_x) ** 2 for w, x in zip(weights, xs, strict=True))
    product = sum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(weights, xs, ys, strict=True))
    each = max(product / square, 0.0)
    fixed = mean_y - each * mean_x
    if fixed < 0:
        ratio = sum(w * x * y for w, x, y in zip(weights, xs, ys, strict=True))
        return 0.0, ratio / sum(w * x**2 for w, x in zip(weights, xs, strict=True))
    return fixed, each
