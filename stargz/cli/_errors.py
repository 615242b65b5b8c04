"""From an exception to one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import re
import sys

from stargz.cli._signals import Signalled
from stargz.errors import (
    ACCOUNT_OPTIONS,
    DigestError,
    StargzError,
    UnverifiedError,
    UsageError,
    mask,
    printable,
)

OK = 0
FAILED = 1
USAGE = 2
UNVERIFIED = 3
INTERRUPTED = 130
STDOUT_CLOSED = 141  # what a shell shows for a process that SIGPIPE ended


class CommandError(StargzError):
    """A command cannot do what it was asked; the text says why and what to do."""


def say(text: str) -> None:
    """One line on stderr."""
    if sys.stderr is not None:
        from stargz.cli import _screen

        try:
            with _screen.hidden():
                print(f"stargz: {printable(mask(in_options(text)))}", file=sys.stderr, flush=True)
        except OSError:
            return  # nobody reads stderr: the exit code still tells


def report(error: BaseException) -> int:
    """Tell the user about `error` and return the exit code."""
    if os.environ.get("STARGZ_DEBUG") == "1" and sys.stderr is not None:
        import traceback

        print(mask("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        return 128 + error.signum if isinstance(error, Signalled) else INTERRUPTED
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return STDOUT_CLOSED
    say(describe(error))
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, (DigestError, UnverifiedError)):
        return UNVERIFIED
    return FAILED


# The library's messages name a keyword and, in parentheses, the option that is the same.
_KEYWORD = re.compile(
    r"\b([a-z]+(?:_[a-z]+)*(?:=\"[a-z]+\")?) \((--([a-z][a-z-]*)(?: [^()\s]+)?)\)"
)
_OTHERWISE = {
    "prioritized": "prioritize",
    "reports": "report",
    "upload_hosts": "allow-upload-host",
    'index="build"': "build-index",
}


def describe(error: BaseException) -> str:
    """What is wrong, as a line, in the words of the command line; `say` escapes and masks it."""
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(n) for n in (error.filename, error.filename2) if _is_path(n)]
        return ": ".join([" -> ".join(names), error.strerror] if names else [error.strerror])
    if isinstance(error, (StargzError, OSError)):
        return in_options(str(error))
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return "no thread can be started; allow this user or container more processes"
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{text} (this is a bug in stargz; STARGZ_DEBUG=1 shows the traceback to report)"


# The options for accounts to read with that the command has; see `_creds.add_creds`.
accounts: list[str] = []


def in_options(text: str) -> str:
    """What the library says, in the words of the command line."""
    if accounts:
        text = text.replace(ACCOUNT_OPTIONS, " or ".join(accounts))
    return _KEYWORD.sub(_option, text)


def _option(found: re.Match[str]) -> str:
    keyword, option, name = found.groups()
    same = _OTHERWISE.get(keyword, keyword.replace("_", "-")) == name
    return option if same else found[0]


def _is_path(name: object) -> bool:
    return isinstance(name, (str, bytes, os.PathLike))
