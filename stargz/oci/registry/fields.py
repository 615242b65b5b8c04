"""Fields of answers that have a grammar of their own: WWW-Authenticate (RFC 9110, section 11) and
Link (RFC 8288, section 3).

What is malformed ends the list: it is better to lack a challenge or a link than to guess one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_MAX_HEADER = 16 << 10

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_NAME = re.compile(_TOKEN)
_VALUE = re.compile(rf"[ \t]*=[ \t]*(?:{_QUOTED}|({_TOKEN}))", re.DOTALL)
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_TARGET = re.compile(r"[ \t,]*<([^<>]*)>")
# The value of a parameter may be more than a token where it has no quotes: a URL, say.
_PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*(?:({_TOKEN})[ \t]*(?:=[ \t]*(?:{_QUOTED}|([^\s",;]*)))?)?', re.DOTALL
)
_END = re.compile(r"[ \t]*(?:,|$)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; scheme and parameter names in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header, in their order."""
    found: list[Challenge] = []
    header = header[:_MAX_HEADER]
    at = 0
    while True:
        while at < len(header) and header[at] in ", \t":
            at += 1
        name = _NAME.match(header, at)
        if not name:
            return found
        value = _VALUE.match(header, name.end())
        if value and found:
            found[-1].parameters.setdefault(name[0].lower(), _text(value[1], value[2]))
            at = value.end()
            continue
        if value:
            return found  # a parameter of nothing
        found.append(Challenge(name[0].lower()))
        at = name.end()
        token68 = _TOKEN68.match(header, at)
        if token68:
            at = token68.end()
        elif at < len(header) and header[at] not in ", \t":
            return found[:-1]


def parse_links(header: str) -> list[tuple[str, frozenset[str]]]:
    """The links of a Link header in their order: what each leads to, and as what (its relations, in
    lower case). Those that are about something else than the answer (`anchor`) are left out."""
    found: list[tuple[str, frozenset[str]]] = []
    at = 0
    while target := _TARGET.match(header, at):
        at = target.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, at):
            at = parameter.end()
            if parameter[1]:
                text = _text(parameter[2], parameter[3] or "")
                parameters.setdefault(parameter[1].lower(), text)  # the first counts
        end = _END.match(header, at)
        if not end:
            break
        at = end.end()
        if "anchor" not in parameters:
            found.append((target[1], frozenset(parameters.get("rel", "").lower().split())))
    return found


def _text(quoted: str | None, token: str) -> str:
    return token if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
