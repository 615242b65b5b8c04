"""`stargz`, and `python -m stargz`, which is the same.

A Ctrl-C that comes before the command has its own handler ends the process by the signal: Python's
would show a traceback of whatever is being imported.
"""

import _signal  # type: ignore[import-not-found]  # `signal` itself imports others
import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command that the process was started for (or `argv`); its exit code."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from stargz.cli import main as run

    code = run(argv)
    if argv is None:
        # What it did stands, and so does its code: the second of two Ctrl-Cs only hastens the end.
        for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
            if _signal.getsignal(number) != _signal.SIG_IGN:
                _signal.signal(number, lambda *_: os._exit(code))
    daemon = sys.modules.get("stargz.cli._daemon")
    if argv is None and daemon is not None and daemon.done:
        # Who waits for it need not wait until all modules are taken down: 10 ms.
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
