"""Where the images of a bulk run go, and which names are those of one place."""

from __future__ import annotations

import os
from contextlib import suppress

from stargz.errors import UsageError
from stargz.oci.formats.reference import (
    LayoutReference,
    check_registry,
    parse_image,
    parse_reference,
)

_IN_A_LAYOUT = ("blobs", "index.json", "oci-layout")


class Places:
    """Where the twins of a source's images go: those of `repository` if it has only one, or only
    one image, `tag`."""

    def __init__(self, dst: str, repository: str | None, tag: str | None) -> None:
        self.fixed: str | None = None  # the only repository, or layout
        self.tag: str | None = None
        whole = not dst.endswith("/") and repository is not None
        if dst.startswith("docker://"):
            self.kind: str = "docker://"
            text = dst.removeprefix("docker://")
            if is_host(text):
                self.root: str = f"docker://{check_registry(text.rstrip('/'), dst)}"
                return
            reference = parse_reference(text.rstrip("/"))
            self.root = f"docker://{reference.name}"
            ref: str | None = reference.tag
            digest = reference.digest
        elif dst.startswith("oci:"):
            self.kind = "oci:"
            place = parse_image(dst.rstrip("/") if dst != "oci:/" else dst)
            assert isinstance(place, LayoutReference)
            if ":" in place.path:
                raise UsageError(f"{dst}: a folder of layouts cannot have a colon in its name")
            self.root = f"oci:{place.path}"
            ref, digest = place.ref, None
        else:
            raise UsageError(
                f"{dst!r} is not a destination: give docker://HOST[/PREFIX], or oci:DIR"
                + (" (an archive has one image: stargz image convert)" if "archive:" in dst else "")
            )
        if digest or (ref and not (whole and tag)):
            raise UsageError(
                f"{dst}: "
                + ("a destination has no digest" if digest else "a tag here is for one image only")
                + "; give docker://HOST[/PREFIX], or oci:DIR"
            )
        if whole:
            self.fixed, self.tag = self.root, ref

    def of(self, repository: str, tag: str) -> str:
        """The destination of an image; UsageError if it cannot have one."""
        where = self.fixed or f"{self.root}/{repository}"
        if self.kind == "docker://":
            reference = parse_reference(where.removeprefix("docker://"))
            return f"docker://{reference.with_tag(self.tag or tag)}"
        parts = repository.split("/")
        if not self.fixed and (
            any(part in ("", ".", "..") or {":", "\0"} & set(part) for part in parts)
            or any(part in _IN_A_LAYOUT for part in parts)
            or any(len(os.fsencode(part)) > 255 for part in parts)
        ):
            raise UsageError(f"{repository!r} cannot be the folder of an image layout")
        return f"{where}:{self.tag or tag}"


def is_host(text: str) -> bool:
    """Whether what stands behind docker:// is a registry alone, and not a repository of Docker
    Hub. A slash at its end always says so."""
    if text.endswith("/"):
        return "/" not in text[:-1]
    name = text.partition(":")[0]
    return "/" not in text and ("." in name or name == "localhost" or text.startswith("["))


def registry_of(place: str) -> str | None:
    """The registry of a source or destination that is one, or in one."""
    text = place.removeprefix("docker://")
    if text == place:
        return None
    if is_host(text):
        return check_registry(text.rstrip("/"), place)
    return parse_reference(text.rstrip("/")).registry


def normal(place: str) -> str:
    """Equal for names of the same image or folder."""
    if place.startswith("oci:"):
        with suppress(UsageError):
            found = parse_image(place)
            assert isinstance(found, LayoutReference)
            return f"oci:{os.path.realpath(found.path)}:{found.ref or 'latest'}"
    return place


def is_below(source: str, root: str, top: str | None) -> bool:
    """Whether an image of a source lies where the destinations are, inside of it."""
    if top is None or root == top:
        return False
    if source.startswith("oci:") and root.startswith("oci:"):
        source, root, top = (
            "oci:" + os.path.realpath(text.removeprefix("oci:")) for text in (source, root, top)
        )
    return root.startswith(f"{top}/") and source.startswith(f"{root}/")


def same_root(root: str) -> str:
    """Equal for roots that are the same place."""
    if root.startswith("oci:"):
        return "oci:" + os.path.realpath(root.removeprefix("oci:"))
    return root
