"""The package's logger, for modules that most of the time have nothing to tell."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging


def logger() -> logging.Logger:
    """It is imported when it is first used: 2 ms of the start of a command."""
    import logging

    return logging.getLogger("stargz")
