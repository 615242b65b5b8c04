"""Manifests and indexes in the very bytes that Go programs write them in.

Some readers parse a manifest into the structs of image-spec's Go package, write it anew, and keep
that under the digest of what they had read: for these any other form is another document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stargz.errors import FormatError

# The fields of each struct in their order; what is not known follows, in its own.
_DOCUMENT = (
    "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject",
    "annotations",
)  # fmt: skip
_DESCRIPTOR = (
    "mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType",
)  # fmt: skip
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")
_ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def dump(document: Mapping[str, Any], source: str) -> bytes:
    """A manifest or an index as Go writes it; FormatError for what no JSON can hold."""
    try:
        found = _ordered(document, _DOCUMENT)
        text = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its JSON cannot be written again ({error})", source) from None
    # Half of a surrogate pair is U+FFFD to Go.
    whole = text.translate(_ESCAPED).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.encode()


def _ordered(found: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """What is known in its order, and what is in it likewise; then what is not."""
    known = {key: _value(key, found[key]) for key in order if key in found}
    return {**known, **{key: value for key, value in found.items() if key not in known}}


def _value(key: str, value: Any) -> Any:
    if isinstance(value, list) and key in ("layers", "manifests"):
        return [_value("config", one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if key == "annotations":
        return dict(sorted(value.items()))
    if key == "platform":
        return _ordered(value, _PLATFORM)
    return _ordered(value, _DESCRIPTOR) if key in ("config", "subject") else value
