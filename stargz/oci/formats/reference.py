"""Names of images: `host[:port]/repo[:tag][@digest]`, and where they are looked for.

The grammar is that of the distribution project (its `reference` package), read strictly:
every part of a name ends up in a URL or in a path of an image layout, so nothing that could
mean something else there is let through.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stargz.digests import check_digest
from stargz.errors import UsageError, mask, mask_reference

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
# Where docker.io answers; the key of its credentials is older than both.
_API_HOSTS = {DEFAULT_REGISTRY: "registry-1.docker.io"}
_OLD_NAMES = {"index.docker.io": DEFAULT_REGISTRY, "registry-1.docker.io": DEFAULT_REGISTRY}

STDIN = "-"  # the path of an archive that is standard input
MAX_TAG = 128  # characters
MAX_NAME = 255  # characters of registry and repository together

_ALNUM = "[a-z0-9]+"
_COMPONENT = rf"{_ALNUM}(?:(?:\.|_|__|-+){_ALNUM})*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?")
_TAG = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{MAX_TAG - 1}}}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One image of a registry, by tag, by digest, or by both (then the digest decides)."""

    registry: str  # host[:port]
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"

    @property
    def name(self) -> str:
        """Registry and repository; the registry alone for what is about all of it."""
        return f"{self.registry}/{self.repository}" if self.repository else self.registry

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest, else the tag, else "latest"."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def api_host(self) -> str:
        """The host[:port] that answers for the registry."""
        return _API_HOSTS.get(self.registry, self.registry)

    def with_digest(self, digest: str) -> Reference:
        """The same repository at a digest, without a tag."""
        return replace(self, tag=None, digest=check_digest(digest))

    def with_tag(self, tag: str) -> Reference:
        """The same repository at a tag; raises UsageError for what is no tag."""
        if not _TAG.fullmatch(tag):
            raise UsageError(f"{self.name}: {_quoted(tag)} is not a tag")
        return replace(self, tag=tag, digest=None)


@dataclass(frozen=True, slots=True)
class LayoutReference:
    """One image of an OCI image layout in a directory; `ref` is None where there is one."""

    path: str
    ref: str | None = None

    def __str__(self) -> str:
        return f"oci:{self.path}{f':{self.ref}' if self.ref else ''}"


@dataclass(frozen=True, slots=True)
class ArchiveReference:
    """One image of a tar: of what `docker save` writes (docker-archive), where `ref` is a name:tag
    of it, or @N for the image at place N (from 0); or of an OCI image layout (oci-archive), where
    it is as in a LayoutReference. None where there is one. The path "-" is standard input."""

    path: str
    ref: str | None = None
    kind: Literal["docker-archive", "oci-archive"] = "docker-archive"

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}{f':{self.ref}' if self.ref else ''}"


@dataclass(frozen=True, slots=True)
class StorageReference:
    """One image of the folder in which a registry (CNCF distribution) keeps what it has."""

    path: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"storage:{self.path}//{self.repository}{tag}{digest}"


ImageReference = Reference | LayoutReference | ArchiveReference | StorageReference

# How the names of images begin.
IMAGE_PREFIXES = ("docker://", "oci:", "oci-archive:", "docker-archive:", "storage:")


def parse_image(src: str) -> ImageReference:
    """What `docker://host/repo:tag`, `oci:DIR[:ref]`, `oci-archive:FILE[:ref]`,
    `docker-archive:FILE[:ref]` or `storage:DIR//repo[:tag][@digest]` names; raises UsageError."""
    if src.startswith("docker://"):
        return parse_reference(src.removeprefix("docker://"))
    if src.startswith("oci:"):
        return _parse_layout(src)
    if src.startswith("oci-archive:"):
        path, ref = _split_file(src)
        return ArchiveReference(path, ref, "oci-archive")
    if src.startswith("docker-archive:"):
        path, ref = _split_file(src)
        if ref is not None and not re.fullmatch(r"@[0-9]{1,6}", ref):
            parse_reference(ref)
        return ArchiveReference(path, ref)
    if src.startswith("storage:"):
        return _parse_storage(src)
    raise UsageError(
        f"{_quoted(mask_reference(src))} is not an image: give docker://host/repo:tag, "
        "oci:DIR[:ref], oci-archive:FILE[:ref], docker-archive:FILE[:ref] or "
        "storage:DIR//repo[:tag]"
    )


def registry_of(src: str) -> str | None:
    """The registry of the image that `src` names, if it is in one; raises UsageError."""
    found = parse_image(src)
    return found.registry if isinstance(found, Reference) else None


def without_name(text: str, src: str) -> str:
    """What an error says of the image that `src` names, or of a manifest or a file of it, without
    that name at its beginning: for where the name stands already."""
    names = {src, mask(src)}
    ends: tuple[str, ...] = (": ", "@")
    with suppress(UsageError):
        found = parse_image(src)
        if isinstance(found, Reference):
            names |= {str(found), found.name, f"docker://{found.name}"}
        else:
            for path in (found.path, os.path.abspath(found.path)):  # noqa: PTH100
                whole = str(replace(found, path=path))
                names |= {path, f"{src.partition(':')[0]}:{path}", whole}
            ends = (": ", "@", "/")
    for name in sorted(names, key=len, reverse=True):
        for end in ends:
            if text.startswith(name + end):
                return text[len(name + end) :]
    return text


def _quoted(text: str) -> str:
    """For messages, which say a long one twice."""
    return repr(text) if len(text) <= MAX_NAME else f"{text[:MAX_NAME]!r}..."


def parse_reference(text: str) -> Reference:
    """The reference that `text` writes, with the defaults put in; raises UsageError."""
    if not text:
        raise UsageError("no image is named: give docker://host/repo:tag")
    rest, at, digest = text.partition("@")
    if at and not re.match(r"(?:sha|md)[0-9]+:", digest):
        raise _credentials_in(text)
    if at:
        check_digest(digest, _quoted(mask_reference(text)))
    first, slash, remainder = rest.partition("/")
    if slash and (set(first) & set(".:[") or first == "localhost" or first != first.lower()):
        registry, rest = first, remainder
    else:
        registry = DEFAULT_REGISTRY
    repository, colon, tag = rest.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise UsageError(f"{_quoted(text)}: {_quoted(tag)} is not a tag")
    registry = check_registry(registry, text)
    if re.fullmatch("[0-9a-f]{64}", text):
        raise UsageError(f"{_quoted(text)} is an image's id, not the name of an image")
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    if not _REPOSITORY.fullmatch(repository):
        hint = " (only lower case)" if repository != repository.lower() else ""
        raise UsageError(
            f"{_quoted(text)}: {_quoted(repository)} is not the name of a repository{hint}"
        )
    if len(registry) + 1 + len(repository) > MAX_NAME:
        raise UsageError(f"{text[:40]!r}...: a name has at most {MAX_NAME} characters")
    return Reference(registry, repository, tag or None, digest or None)


def _credentials_in(text: str) -> UsageError:
    """Of a name with an @ that no digest is behind. What is before it may be a password."""
    shown = f"***@{text.rpartition('@')[2]}"
    return UsageError(
        f"{_quoted(shown)}: a user or password has no place in the name of an image (and what is "
        "behind @ is no digest): give --creds USER:PASSWORD (--src-creds, --dest-creds where there "
        "are two images), or log in (podman login, docker login)"
    )


def check_registry(registry: str, source: str = "") -> str:
    """`host[:port]` with old names replaced; raises UsageError for what is none."""
    if "@" in registry:
        raise _credentials_in(registry)
    found = _REGISTRY.fullmatch(registry)
    good = found is not None and int(found[1] or 1) in range(1, 65536)
    if good and registry.startswith("["):
        try:
            ipaddress.IPv6Address(registry[1 : registry.index("]")])
        except ValueError:
            good = False
    if not good:
        shown, where = mask_reference(registry), mask_reference(source)
        raise UsageError(
            f"{where[:MAX_NAME] or _quoted(shown)}: {_quoted(shown)} is not host[:port]"
        )
    return _OLD_NAMES.get(registry.lower(), registry)


def is_repository(value: object, registry: str = "") -> bool:
    """Whether `value` is the name of a repository of that registry."""
    return (
        isinstance(value, str)
        and len(registry) + 1 + len(value) <= MAX_NAME
        and bool(_REPOSITORY.fullmatch(value))
    )


def is_tag(value: object) -> bool:
    """Whether `value` is a tag."""
    return isinstance(value, str) and bool(_TAG.fullmatch(value))


def _split(text: str, there: Callable[[Path], bool]) -> tuple[str, str | None]:
    """A path and the ref behind it. Both may have colons: the longest path that is there is
    meant."""
    if _is(there, text):
        return text, None
    colons = [at for at, c in enumerate(text) if c == ":" and at]
    found = [at for at in colons if _is(there, text[:at])]
    at = found[-1] if found else colons[0] if colons else len(text)
    return text[:at], text[at + 1 :] or None


def _is(there: Callable[[Path], bool], path: str) -> bool:
    """What cannot be looked at is not there, such as what no path can be."""
    try:
        return there(Path(path))
    except (OSError, ValueError):
        return False


def _parse_layout(src: str) -> LayoutReference:
    path, ref = _split(src.removeprefix("oci:"), Path.is_dir)
    if not path:
        raise UsageError(f"{_quoted(src)} names no directory: give oci:DIR[:ref]")
    if re.match(r"//[^/]", path):
        raise UsageError(
            f"{_quoted(mask_reference(src))}: oci:DIR[:ref] is a directory; docker://HOST/REPO "
            "is in a registry"
        )
    return LayoutReference(path, ref)


def _split_file(src: str) -> tuple[str, str | None]:
    """The file of an archive, and the ref in it."""
    kind, _, rest = src.partition(":")
    if rest == STDIN or rest.startswith(f"{STDIN}:"):  # whatever files there are
        return STDIN, rest[2:] or None
    path, ref = _split(rest, Path.exists)
    if not path:
        raise UsageError(f"{_quoted(src)} names no file: give {kind}:FILE[:ref]")
    return path, ref


def _parse_storage(src: str) -> StorageReference:
    path, slashes, name = src.removeprefix("storage:").rpartition("//")
    if not slashes or not path or not name:
        raise UsageError(
            f"{_quoted(src)} names no image of a storage folder: give "
            "storage:DIR//repo[:tag][@digest]"
        )
    rest, at, digest = name.partition("@")
    repository, colon, tag = rest.partition(":")
    if at:
        check_digest(digest, src)
    if colon and not is_tag(tag):
        raise UsageError(f"{_quoted(src)}: {_quoted(tag)} is not a tag")
    if not is_repository(repository):
        raise UsageError(f"{_quoted(src)}: {_quoted(repository)} is not the name of a repository")
    return StorageReference(path, repository, tag or None, digest or None)
