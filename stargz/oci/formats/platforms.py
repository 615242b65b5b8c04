"""Platforms that images are for, by the names of the Go language."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from stargz.errors import PlatformError, UsageError

_ARCHITECTURES = {
    "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386",
    "armhf": "arm", "armel": "arm/v6", "armv7l": "arm/v7", "armv6l": "arm/v6",
    "loongarch64": "loong64",
}  # fmt: skip
_SYSTEMS = {
    "aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "linux", "netbsd",
    "openbsd", "plan9", "solaris", "windows",
}  # fmt: skip
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
# Which variants run where another is asked for, the best first.
_LOWER = {"arm": ("v8", "v7", "v6", "v5"), "amd64": ("v4", "v3", "v2", "v1")}


@dataclass(frozen=True, slots=True)
class Platform:
    """os/architecture[/variant] in the names of the Go language."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def normal(self) -> Platform:
        """With an architecture's own name, and the variant that is meant by none."""
        name, _, implied = _ARCHITECTURES.get(self.architecture, self.architecture).partition("/")
        variant = self.variant or implied or _DEFAULT_VARIANTS.get(name, "")
        if name == "arm64":
            variant = "v8" if variant == "8" else variant
        return Platform(self.os.lower(), name, variant)

    def acceptable(self) -> list[Platform]:
        """This one, and the lower variants that run on it."""
        me = self.normal()
        variants = _LOWER.get(me.architecture, ())
        if me.variant not in variants:
            return [me]
        start = variants.index(me.variant)
        return [Platform(me.os, me.architecture, variant) for variant in variants[start:]]


def parse_platform(text: str) -> Platform:
    """A platform from "linux/arm64/v8", "linux/amd64" or "arm64"; raises UsageError."""
    parts = text.lower().split("/")
    if parts[0] in _SYSTEMS and len(parts) == 1:
        raise UsageError(
            f"{text!r} is not a platform, but a system: give both, such as {parts[0]}/amd64"
        )
    if len(parts) == 1:
        parts.insert(0, "linux")
    if len(parts) > 3 or not all(
        part and part.replace("-", "").replace("_", "").replace(".", "").isalnum() for part in parts
    ):
        raise UsageError(f"{text!r} is not a platform such as linux/amd64 or linux/arm/v7")
    return Platform(*parts).normal()


def this_platform() -> Platform:
    """Linux on this machine's architecture."""
    return Platform("linux", os.uname().machine.lower()).normal()


def platform_of(value: dict[str, Any] | None) -> Platform | None:
    """The platform that an index or a config states; None when it does not say."""
    if not value:
        return None
    os, architecture = value.get("os"), value.get("architecture")
    variant = value.get("variant") or ""
    if not (isinstance(os, str) and isinstance(architecture, str) and isinstance(variant, str)):
        return None
    if not os or not architecture:
        return None
    return Platform(os, architecture, variant)


def choice_of(value: dict[str, Any] | None) -> str | None:
    """A text that is equal for platforms, as an index states them, of which clients choose the same
    entry; None where none is stated."""
    found = platform_of(value)
    if value is None or found is None:
        return None
    return json.dumps([str(found.normal()), value.get("os.version"), value.get("os.features")])


def check_platform(stated: Platform | None, wanted: Platform, source: str) -> None:
    """Raise PlatformError unless an image that is `stated` to be for a platform runs on another."""
    if stated and stated.normal() not in wanted.acceptable():
        shown = str(stated)[:100]
        raise PlatformError(f"the image is for {shown}, not for {wanted} (--platform)", source)
