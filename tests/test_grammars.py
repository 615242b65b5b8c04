"""Fields of HTTP, written by their grammars at random: what is read is what was written.

RFC 9110: WWW-Authenticate (11.6.1), Content-Range (14.4), Retry-After (10.2.3); RFC 8288: Link.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stargz.oci.registry.fields import Challenge, parse_challenges, parse_links
from stargz.sources.http import _content_range
from stargz.sources.pace import retry_after
from stargz.sources.tries import TransientError

ROUNDS = settings(
    max_examples=int(os.environ.get("STARGZ_PROPERTY_ROUNDS", "50")), deadline=None, database=None
)

TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
tokens = st.text(TCHAR, min_size=1, max_size=8)
blanks = st.text(" \t", max_size=2)
# Quoted text may have a tab, a space, what is visible, and bytes from 0x80 on.
texts = st.text([chr(c) for c in (9, *range(32, 127), *range(128, 256))], max_size=12)


@st.composite
def quoted(draw: st.DrawFn, text: str) -> str:
    """With a backslash where there must be one, and where there may."""
    out = [f"\\{c}" if c in '"\\' or draw(st.booleans()) else c for c in text]
    return f'"{"".join(out)}"'


@st.composite
def valued(draw: st.DrawFn) -> tuple[str, str, str]:
    """A parameter: its name, its value, and the two as they stand there."""
    name = draw(tokens)
    around = draw(blanks), draw(blanks)
    if draw(st.booleans()):
        value = draw(tokens)
        shown = value
    else:
        value = draw(texts)
        shown = draw(quoted(value))
    return name, value, f"{name}{around[0]}={around[1]}{shown}"


@st.composite
def listed(draw: st.DrawFn, items: list[str]) -> str:
    """A list, which may have empty elements."""
    gaps = st.lists(blanks, min_size=1, max_size=2).map(",".join)
    out = draw(st.just("") | gaps.map(lambda gap: f"{gap},"))
    for number, item in enumerate(items):
        comma = f"{draw(blanks)},{draw(gaps)}" if number else ""
        out += comma + item
    return out + draw(st.sampled_from(("", ",", " , ")))


@st.composite
def challenges(draw: st.DrawFn) -> tuple[str, list[Challenge]]:
    items, expected = [], []
    for _ in range(draw(st.integers(1, 4))):
        scheme = draw(tokens)
        found = Challenge(scheme.lower())
        kind = draw(st.sampled_from(("none", "token68", "parameters", "parameters")))
        if kind == "token68":
            # One that cannot be taken for a parameter, nor for the scheme of the next.
            scheme += " " + draw(st.from_regex(r"\A[A-Za-z0-9._~+/-]{1,9}/={0,2}\Z"))
        if kind == "parameters":
            parameters = draw(st.lists(valued(), min_size=1, max_size=4))
            for name, value, _ in parameters:
                found.parameters.setdefault(name.lower(), value)
            first, *others = [shown for *_, shown in parameters]
            items += [f"{scheme} {first}", *others]
        else:
            items.append(scheme)
        expected.append(found)
    return draw(listed(items)), expected


@ROUNDS
@given(challenges())
def test_challenges(made: tuple[str, list[Challenge]]) -> None:
    header, expected = made
    assert parse_challenges(header) == expected


@st.composite
def links(draw: st.DrawFn) -> tuple[str, list[tuple[str, frozenset[str]]]]:
    items, expected = [], []
    urls = st.text("abc/?&=%:;,.~-", max_size=12)
    relations = st.lists(st.sampled_from(("next", "prev", "NEXT", "nextfoo", "http://x/next")))
    for _ in range(draw(st.integers(0, 4))):
        url = draw(urls)
        shown = f"<{url}>"
        first: dict[str, str] = {}
        for _ in range(draw(st.integers(0, 4))):
            kind = draw(st.sampled_from(("rel", "rel", "REL", "anchor", "flag", "any")))
            name, value, text = draw(valued())
            if kind == "rel" or kind == "REL":
                value = " ".join(draw(relations))
                text = f"{kind}={draw(quoted(value))}"
                if value and " " not in value and draw(st.booleans()):
                    text = f"{kind}={value}"
                name = kind
            elif kind == "anchor":
                name, text = kind, f"{kind}={draw(quoted(value))}"
            elif kind == "flag":
                value, text = "", name
            first.setdefault(name.lower(), value)
            shown += f"{draw(blanks)};{draw(blanks)}{text}"
        items.append(shown)
        if "anchor" not in first:
            expected.append((url, frozenset(first.get("rel", "").lower().split())))
    return draw(listed(items)), expected


@ROUNDS
@given(links())
def test_links(made: tuple[str, list[tuple[str, frozenset[str]]]]) -> None:
    header, expected = made
    assert parse_links(header) == expected


def test_a_long_list_of_links() -> None:
    """All of it: what is behind the cut would be pages that nobody reads."""
    listed = "".join(f"<https://mirror{n}.example/>; rel=duplicate, " for n in range(2000))
    assert parse_links(f"{listed}</next>; rel=next")[-1] == ("/next", frozenset(["next"]))


@pytest.mark.parametrize(
    ("header", "next_"),
    [
        ('</a>; rel="next"', "/a"),
        ("</a>;rel=next", "/a"),
        ('</a>; rel="prev", </b>; rel="next"', "/b"),
        ('</a>; title="x, y"; rel="prev next"', "/a"),
        ('</a>; title="; rel=next"; rel="prev"', None),
        ('</a>; rel="nextfoo"', None),
        ('</a>; rel="prev"; rel="next"', None),
        ('</a>; anchor="#x"; rel="next"', None),
        ('</a>; rel="next', None),
        ("</a; rel=next", None),
        ("/a; rel=next", None),
        ('<<a>>; rel="next"', None),
        ("", None),
    ],
)
def test_the_next_page(header: str, next_: str | None) -> None:
    found = [url for url, relations in parse_links(header) if "next" in relations]
    assert found == ([] if next_ is None else [next_])


def test_long_fields_take_no_time() -> None:
    for text in ("<>;" * 300_000, '<a>;b="' + "\\" * 10**6, "<a>" + " ;" * 10**6, "<" * 10**6,
                 "<a>;" + " " * 10**6, "<a>;b=" * 10**5, "," * 10**6):  # fmt: skip
        assert len(parse_links(text)) < 1 << 14


# --- Content-Range ------------------------------------------------------------------------------


def range_of(text: str) -> tuple[int, int, int | None] | None:
    """By the grammar, without a pattern; None for what is no range of bytes, or an impossible
    one."""
    unit, blank, rest = text.strip().partition(" ")
    places, slash, total = rest.partition("/")
    first, dash, last = places.partition("-")
    numbers = [first, last] + [total] * (total != "*")
    digits = all(0 < len(n) < 19 and set(n) <= set("0123456789") for n in numbers)
    if unit != "bytes" or not (blank and slash and dash and digits):
        return None
    size = None if total == "*" else int(total)
    possible = int(first) <= int(last) and (size is None or int(last) < size)
    return (int(first), int(last), size) if possible else None


NUMBER = st.integers(0, 1 << 64).map(str) | st.sampled_from(("0", "007", "-1", "+1", "1_0", "\xb2"))


@ROUNDS
@given(
    st.builds("bytes {}-{}/{}".format, NUMBER, NUMBER, NUMBER | st.just("*"))
    | st.tuples(*[st.integers(0, 99)] * 3).map(lambda n: "bytes {}-{}/{}".format(*n))
    | st.lists(st.sampled_from(("bytes", " ", "-", "/", "*", "1", "20", "\t")), max_size=8).map(
        "".join
    )
)
def test_ranges(text: str) -> None:
    reply: Any = SimpleNamespace(headers={"Content-Range": text}, close=lambda: None)
    try:
        found = _content_range(reply)
    except TransientError:
        found = None
    assert found == range_of(text)


# --- Retry-After --------------------------------------------------------------------------------


DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y")


@ROUNDS
@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31)).map(
        lambda when: when.replace(microsecond=0)
    ),
    st.sampled_from(
        ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y")
    ),
    st.sampled_from(("UTC", "America/New_York", "XXX-5:30")),
)
def test_dates(when: datetime, form: str, zone: str) -> None:
    """All three forms of RFC 9110, 5.6.7, wherever this machine is."""
    import time

    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        seconds = retry_after({"Retry-After": when.strftime(form)}, now=0.0)
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()
    assert seconds == when.replace(tzinfo=UTC).timestamp()


@ROUNDS
@given(st.integers(0, 10**9 - 1))
def test_seconds(seconds: int) -> None:
    assert retry_after({"Retry-After": f" {seconds} "}) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "9" * 10, "\xb2", "soon", "Mon"])
def test_what_says_nothing(text: str) -> None:
    assert retry_after({"Retry-After": text}) is None
