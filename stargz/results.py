"""What functions return that made something."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


class Result:
    """What a function made: a dataclass of values that JSON has, too."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]
