"""--creds and its kin: a user and a password for the registry of one image."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from stargz.cli import _errors

# As skopeo calls them; a command that has others refuses these with the names of its own.
_NAMES = ("--creds", "--src-creds", "--dest-creds")
_MAX_LINE = 64 << 10


def add_creds(
    parser: argparse._ActionsContainer, names: Mapping[str, str], hidden: Sequence[str] = ()
) -> None:
    """An option for each of `names`, which say of what image it is; `hidden` ones without help."""
    _errors.accounts[:] = [name for name in names if name != "--dest-creds"]
    for name, image in names.items():
        text = (
            f"account for the registry of {image} and the token server that it names, and for no "
            "other host; - reads a line from "
            "standard input (the command line is no secret), and a USER alone is asked for the "
            "password on a terminal"
        )
        parser.add_argument(
            name, type=_account, metavar="USER[:PASSWORD]", help=text.replace("%", "%%")
        )
    for name in hidden:
        parser.add_argument(name, type=_account, help=argparse.SUPPRESS)
    for name in _NAMES:
        if name not in names and name not in hidden:
            instead = " or ".join(names)
            parser.add_argument(name, action=_Refused, instead=instead, help=argparse.SUPPRESS)


class _Refused(argparse.Action):
    """An option that a command has not, but for which there is another one."""

    def __init__(self, *args: Any, instead: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._instead = instead

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser.error(f"{self.option_strings[0]}: this command has {self._instead} instead")


def _account(text: str) -> tuple[str, str]:
    """User and password. No error says what was given."""
    if text == "-":
        text = _line()
    user, colon, password = text.partition(":")
    if not user:
        raise argparse.ArgumentTypeError("there is no user in it: give USER:PASSWORD")
    if not colon:
        if sys.stdin is None or not sys.stdin.isatty():
            raise argparse.ArgumentTypeError(
                "there is no password in it, nor a terminal to ask on: give USER:PASSWORD, or - to "
                "have that read from standard input"
            )
        import getpass

        try:
            password = getpass.getpass(f"Password of {user}: ")
        except EOFError:
            raise argparse.ArgumentTypeError("no password was given") from None
    return user, password


def _line() -> str:
    """A line of standard input; what comes behind it is left there."""
    line = bytearray()
    try:
        while len(line) <= _MAX_LINE and (byte := os.read(0, 1)) not in (b"", b"\n"):
            line += byte
        text = line.removesuffix(b"\r").decode()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text or len(line) > _MAX_LINE:
        raise argparse.ArgumentTypeError("no line of USER:PASSWORD came from standard input")
    return text
