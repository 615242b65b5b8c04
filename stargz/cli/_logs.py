"""What the package logs, as lines of the command on stderr."""

from __future__ import annotations

import argparse
import logging
import re

from stargz.cli._errors import say

# urllib3 tells of requests by their targets, without a scheme; of a signed URL the query is the
# signature.
_QUERY = re.compile(r"\?[^\s\"']*")

_levels: dict[str, int] = {}  # of the loggers that are relayed, as they were


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "urllib3.util.retry" and record.levelno == logging.DEBUG:
            return  # of how it was called, for each request
        text = record.getMessage()
        if record.name.startswith("urllib3"):
            text = f"{record.name}: {_QUERY.sub('?...', text)}"
        say(text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}")


def relay(args: argparse.Namespace) -> None:
    """Tell what is logged from the level of `args` on, unless whoever called `main` listens. At
    the level "debug" that has every request."""
    level = getattr(logging, args.log_level.upper())
    for name in ("stargz", *(["urllib3"] if args.log_level == "debug" else [])):
        logger = logging.getLogger(name)
        ours = [handler for handler in logger.handlers if isinstance(handler, _Handler)]
        for handler in ours:
            logger.removeHandler(handler)
        if ours or all(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            _levels.setdefault(name, logger.level)
            logger.addHandler(_Handler(level))
            logger.setLevel(level)


def end() -> None:
    """Leave the loggers as they were: whoever called `main` goes on."""
    while _levels:
        name, level = _levels.popitem()
        logger = logging.getLogger(name)
        logger.setLevel(level)
        for handler in logger.handlers[:]:
            if isinstance(handler, _Handler):
                logger.removeHandler(handler)
