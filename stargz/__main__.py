"""`stargz`, and `python -m stargz`, which is the same.

A Ctrl-C that comes before the command has its own handler ends the process by the signal: Python's
would show a traceback of whatever is being imported.
"""

import _signal  # type: ignore[import-not-found]  # `signal` itself imports others
import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command that the process was started for (or `argv`); its exit code."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from stargz.cli import main as run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
