"""Commands with several SRCs: each is done, all are told of, and the exit code is the worst."""

from __future__ import annotations

import argparse
import copy
import errno
from collections.abc import Callable
from typing import Any, NamedTuple

from stargz.cli._errors import FAILED, OK, UNVERIFIED, USAGE, describe, report
from stargz.cli._options import of_one_layer
from stargz.cli._output import print_json
from stargz.errors import StargzError, UsageError, mask

# What fails verification is worse than what could not be read: somebody may have changed it.
_WORST_FIRST = (UNVERIFIED, FAILED, USAGE, OK)


class Told(NamedTuple):
    """What there is to say of one SRC: with --json, else as lines on stdout."""

    value: dict[str, Any]
    lines: list[str]
    code: int = OK


def each(
    args: argparse.Namespace,
    one: Callable[[argparse.Namespace], Told],
    unread: Callable[[str], dict[str, Any]],
) -> int:
    """`one` of every SRC of `add_layer_options(several=True)`; with --json one object for one
    SRC, a list for several, in which `unread` makes that of an error. Returns the exit code."""
    given = [copy.copy(args) for _ in args.sources]
    for this, src in zip(given, args.sources, strict=True):
        this.src = src
    if len(given) == 1:
        told = one(given[0])
        if args.json:
            print_json(told.value)
        for line in () if args.json else told.lines:
            print(line)
        return told.code
    single = of_one_layer(args, "layer")
    if single is not None:
        raise UsageError(f"{single} is about one SRC, and there are {len(given)}")
    if args.creds is not None:
        from stargz.oci.formats.reference import IMAGE_PREFIXES, registry_of

        found = {registry_of(src) for src in args.sources if src.startswith(IMAGE_PREFIXES)}
        if len(found - {None}) > 1:
            raise UsageError(
                "--creds is for one registry, and the images are in several: name those of each by "
                "themselves, or log in (podman login)"
            )
    if sum(src == "-" or src.endswith("-archive:-") for src in args.sources) > 1:
        raise UsageError("only one SRC can be -: standard input is read once")
    values = []
    codes = {OK}
    for number, this in enumerate(given):
        told = _try(this, one, unread)
        codes.add(told.code)
        values.append({"source": mask(this.src), **told.value, "exit_code": told.code})
        if args.json:
            continue
        between = [""] if number and len(told.lines) > 1 else []  # tables
        for line in between + told.lines:
            print(line, flush=True)
    if args.json:
        print_json(values)
    return next(code for code in _WORST_FIRST if code in codes)


def _try(
    args: argparse.Namespace,
    one: Callable[[argparse.Namespace], Told],
    unread: Callable[[str], dict[str, Any]],
) -> Told:
    try:
        return one(args)
    except (StargzError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise
        return Told(unread(mask(describe(error))), [], report(error))
