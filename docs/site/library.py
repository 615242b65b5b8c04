"""The reference of the library: what `stargz.__all__` and `stargz.mount.__all__` list, made of
signatures and docstrings. Which members of a class are public, docs/python.md says."""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import stargz
import stargz.mount

FOLDER = "library"
PAGE = Path(__file__).parent.parent / "python.md"

Pages = Iterator[tuple[str, str]]


def pages() -> Pages:
    """The name and text of each page."""
    functions, classes, results, errors = _sorted()
    parts = {
        "functions.md": ("Functions", functions),
        "classes.md": ("Classes", classes),
        "results.md": ("Results and values", results),
        "errors.md": ("Errors", errors),
    }
    yield "index.md", _index({name: title for name, (title, _) in parts.items()})
    for name, (title, found) in parts.items():
        blocks = (_block(full, value) for full, value in found)
        listed = ", ".join(f"{{py:obj}}`{full}`" for full, _ in found)
        yield name, f"# {title}\n\n{listed}\n\n" + "\n".join(blocks)


def _sorted() -> list[list[tuple[str, Any]]]:
    """What is public: functions, classes with behaviour, results, errors."""
    listed: list[list[tuple[str, Any]]] = [[], [], [], []]
    public = {f"stargz.{name}": getattr(stargz, name) for name in stargz.__all__}
    public |= {f"stargz.mount.{name}": getattr(stargz.mount, name) for name in stargz.mount.__all__}
    public |= {
        f"stargz.errors.{name}": value
        for name, value in vars(stargz.errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and value not in public.values()
    }
    for full, value in sorted(public.items(), key=lambda item: item[0].casefold()):
        if inspect.isfunction(value):
            listed[0].append((full, value))
        elif inspect.isclass(value):
            kind = (
                3 if issubclass(value, Exception) else 2 if dataclasses.is_dataclass(value) else 1
            )
            listed[kind].append((full, value))
    return listed


def _index(titles: dict[str, str]) -> str:
    lines = ["# Library", "", "[The Python library](../python.md) is where to begin.", ""]
    lines += [f"- [{title}]({name})" for name, title in titles.items()]
    lines += ["", "```{toctree}", ":hidden:", "", *titles, "```", ""]
    return "\n".join(lines)


def _block(full: str, value: Any) -> str:
    name = full.rpartition(".")[2]
    if inspect.isfunction(value):
        return _directive("function", full, signature(value), prose(value))
    if issubclass(value, Exception):
        return _directive("exception", full, "", prose(value))
    members = "\n".join(_member(value, one) for one in _members(name, value))
    # What a function makes, or is a result, is not made by its caller.
    made = "made by" in (value.__doc__ or "") or _is_data(value) or "__init__" not in vars(value)
    words = "" if made else signature(value.__init__, bound=True).removesuffix(" -> None")
    return _directive("class", full, words, f"{prose(value)}\n\n{members}", depth=4)


def _directive(kind: str, name: str, words: str, text: str, depth: int = 3) -> str:
    fence = ":" * depth
    return f"{fence}{{py:{kind}}} {name}{words}\n\n{text}\n{fence}\n"


def _members(name: str, value: type) -> list[str]:
    """The public members: those that docs/python.md lists, else fields and what is defined here."""
    row = re.search(rf"^\| `{name}` \| (`.*) \|$", PAGE.read_text(), re.M)
    if row:
        return re.findall(r"`(\w+)`", row[1])
    fields = [one.name for one in dataclasses.fields(value)] if _is_data(value) else []
    return fields + [one for one in vars(value) if not one.startswith("_") and one not in fields]


def _is_data(value: type) -> bool:
    return dataclasses.is_dataclass(value)


def _member(owner: type, name: str) -> str:
    found = inspect.getattr_static(owner, name, None)
    if isinstance(found, (staticmethod, classmethod)):
        return _directive(
            "staticmethod", name, signature(getattr(owner, name)), prose(found.__func__)
        )
    if inspect.isfunction(found):
        return _directive("method", name, signature(found, bound=True), prose(found))
    if isinstance(found, property):
        kind = inspect.signature(found.fget).return_annotation if found.fget else ""
    else:
        kind = next(
            (
                k.__annotations__[name]
                for k in owner.__mro__
                if name in vars(k).get("__annotations__", ())
            ),
            "",
        )
    typed = f"\n:type: {kind}" if kind and isinstance(kind, str) else ""
    text = prose(found) if isinstance(found, property) else ""
    # Types in signatures are looked up by their last name: `bytes` is a field of results, too.
    hidden = "\n:no-index:" if name in vars(builtins) else ""
    return f":::{{py:attribute}} {name}{typed}{hidden}\n\n{text}\n:::\n"


def signature(function: Callable[..., Any], *, bound: bool = False) -> str:
    """Parameters and result as the source has them: annotations are strings there."""
    found = inspect.signature(function)
    parameters = list(found.parameters.values())[bound:]

    def written(annotation: Any) -> Any:
        return annotation if annotation is inspect.Parameter.empty else _Words(annotation)

    return str(
        found.replace(
            parameters=[one.replace(annotation=written(one.annotation)) for one in parameters],
            return_annotation=written(found.return_annotation),
        )
    )


class _Words:
    def __init__(self, annotation: object) -> None:
        self._text = annotation if isinstance(annotation, str) else repr(annotation)

    def __repr__(self) -> str:
        return self._text


def prose(value: object) -> str:
    """A docstring as Markdown: blocks of `name: text` are lists, the rest is paragraphs."""
    blocks = re.split(r"\n\n+", inspect.getdoc(value) or "")
    return "\n\n".join(
        _parameters(block) if _PARAMETER.match(block) else plain(block) for block in blocks
    )


_PARAMETER = re.compile(r"(\w+(?:, \w+)*): ")


def _parameters(block: str) -> str:
    """A list of what is said of each parameter; continued lines are indented in the source."""
    items = re.split(r"\n(?=\w+(?:, \w+)*: )", block)
    return "\n".join(
        _PARAMETER.sub(r"- **\1**: ", plain(" ".join(item.split())), count=1) for item in items
    )


def plain(text: str) -> str:
    """Text whose backticks are Markdown's, and nothing else is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*\[\]<>#|$~^])", r"\\\1", part)
        for part in parts
    )
