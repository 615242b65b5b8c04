"""docs/limits.md: each number is the code's, and each limit of the code has its number there."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from stargz.sources.client import Client

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "limits.md"

# What each row is about: MODULE.NAME of the package, NAME of csrc/, or a parameter of Client.
ROWS = {
    "JSON of a TOC": "options.MAX_TOC_SIZE SGZ_TOC_SIZE_MAX",
    "memory of an open TOC beyond one and a half times its JSON (zstd:chunked: four times)": (
        "SGZ_TOC_MEMORY_FREE"
    ),
    "JSON of one entry of a TOC": "SGZ_TOC_TEXT_MAX",
    "a name, and a symlink's target": "SGZ_TOC_PATH_MAX SGZ_PATH_MAX",
    "a part of a name between slashes": "SGZ_TOC_BASE_MAX SGZ_BASE_MAX SGZ_FUSE_NAME_MAX",
    "symlinks that lead to one file": (
        "SGZ_TOC_SYMLINKS_MAX paths.MAX_LINKS oci.convert.flatten.MAX_LINKS"
    ),
    "xattrs of one entry": "SGZ_XATTRS_MAX",
    "name of an xattr": "SGZ_XATTR_KEY_MAX",
    "a chunk": "SGZ_CHUNK_MAX",
    "holes of files that are hashed by `extract`, then no more": "SGZ_TOC_ZEROS_HASHED",
    "window of a zstd frame of a layer in zstd:chunked, or read by an index": "SGZ_FRAME_MEMORY",
    "window of a zstd frame of what is converted": "SGZ_ZSTD_MEMORY",
    "frames behind the tar of a layer in zstd:chunked": "skippable._MOST",
    "a line of a tar-split": "SGZ_VERIFY_LINE_MAX",
    "PAX records, and long names, of one entry of a tar": "SGZ_TAR_LONG_MAX",
    "map of a sparse file": "SGZ_TAR_MAP_MAX",
    "a sparse file, with its holes": "SGZ_TAR_SPARSE_MAX",
    "holes of all sparse files of a tar that is converted": "SGZ_TAR_HOLES_MAX",
    "entry points of an index": "SGZ_INDEX_POINTS_MAX",
    "how much larger than its blob an index may be that nobody named": "indexes._ROOM",
    "a ztoc that is written": "SGZ_ZTOC_SIZE_MAX",
    "what `apply` makes, if that is more than 4 times BASE": "SGZ_PATCH_NEW_FREE",
    "a frame of a patch, stored and inflated": "patching.file.FRAME_MAX SGZ_PATCH_FRAME",
    "JSON of the TOC that a patch makes": "SGZ_PATCH_JSON_MAX patching.make._JSON_MAX",
    "contents of a member that a patch has compressed": "SGZ_PATCH_MEMBER_MAX",
    "what a patch may have inflated in vain, beside 64 KiB for each byte that it makes": (
        "SGZ_PATCH_WORK_FREE patching.file.WORK_FREE"
    ),
    "a list of members": "patching.members.SIZE_MAX",
    "a manifest, an index, `index.json`, `manifest.json`": "oci.formats.manifest.MAX_MANIFEST_SIZE",
    "a config": "oci.formats.manifest.MAX_CONFIG_SIZE",
    "layers of a manifest": "oci.formats.manifest.MAX_LAYERS SGZ_TREE_LAYERS_MAX",
    "manifests of an image": "oci.formats.manifest.MAX_MANIFESTS",
    "indexes within an index": "oci.formats.manifest.MAX_INDEX_NESTING",
    "manifests and configs of an image that is converted, together": (
        "oci.convert.plan.MAX_DOCUMENTS"
    ),
    "layers of an image that is converted, together": "oci.convert.plan.MAX_IMAGE",
    "directories in one another, of a layer that is merged": "oci.convert.flatten.MAX_DEPTH",
    "images in an archive": "oci.formats.archive._MAX_IMAGES",
    "members of an archive": "oci.formats.tar_index.MAX_MEMBERS",
    "name of a member": "oci.formats.tar_index._MAX_NAME",
    "names of all members": "oci.formats.tar_index._MAX_NAMES",
    "links that lead to a member": "oci.formats.tar_index._MAX_LINKS",
    "memory that xz may ask for": "oci.formats.packing._MAX_MEMORY",
    "registry and repository of a name": "oci.formats.reference.MAX_NAME",
    "a tag": "oci.formats.reference.MAX_TAG",
    "a link in a registry's storage folder": "oci.formats.storage._MAX_LINK",
    "an answer that is no blob: a page of a list": "oci.registry.client._MAX_PAGE",
    "an answer that refuses": "oci.registry.client._MAX_REFUSAL",
    "a blob that is read into memory: a config, an external TOC": "oci.registry.client._MAX_BLOB",
    "pages of a list": "oci.registry.client._MAX_PAGES",
    "tags of a repository": "oci.registry.client._MAX_TAGS",
    "repositories of a registry": "oci.registry.client._MAX_REPOSITORIES",
    "referrers of a manifest": "oci.registry.client._MAX_REFERRERS",
    "answer of a token server": "oci.registry.auth._MAX_ANSWER",
    "life of a token, whatever its server says": "oci.registry.auth._MAX_SECONDS",
    "WWW-Authenticate, of which no more is read": "oci.registry.fields._MAX_HEADER",
    "Location of an upload": "oci.registry.sessions._MAX_LOCATION",
    "answer about an upload": "oci.registry.sessions._MAX_ANSWER",
    "redirects": "sources.client.MAX_REDIRECTS",
    "a line of the framing of an answer": "sources.framing._MAX_LINE",
    "trailers": "sources.framing._MAX_TRAILERS",
    "answers that say to wait, before the one that counts": "sources.framing._MAX_HEADS",
    "one text of a server that an error repeats": "oci.registry.failures._MAX_WORDS",
    "all of them": "oci.registry.failures._MAX_SAID",
    "a wait for bytes, a connection": "timeout",
    "a request, beside what its bytes take at 16 KiB/s": "patience",
    "tries": "tries",
    "a host that refuses since it is asked too often": "host_patience",
    "one pause between tries": "max_wait",
    "a file of credentials": "oci.registry.credentials._MAX_FILE",
    "answer of a credential helper": "oci.registry.credentials._MAX_ANSWER",
    "time of a credential helper": "oci.registry.credentials._HELPER_SECONDS",
    "an ignore file": "ignore._SIZE_MAX",
    "parts of its patterns": "ignore._STATES_MAX",
    "a list of files (`--prioritize-from`)": "cli._convert_options._LIST_MAX",
    "a line of a list of images (`image bulk`)": "oci.bulk.discover._MAX_LINE",
    "a line of a file of a password": "cli._creds._MAX_LINE",
}

# What looks like a limit of what is read, and is none.
NO_LIMITS = {
    "bounds of formats and of codecs": """
        SGZ_ZSTD_LEVEL_MAX SGZ_LEVEL_MAX SGZ_LEVEL_ISAL_MAX SGZ_HUFFMAN_MAX SGZ_MATCH_MAX
        SGZ_CODE_MAX SGZ_PRECODE_MAX SGZ_LZ_RUN_MAX SGZ_LZ_LITERALS_MAX SGZ_DISTANCE_MAX
        SGZ_HISTORY_MAX SGZ_TRIES_MAX SGZ_VARINT_MAX SGZ_TIME_MAX SGZ_NAME_MAX SGZ_NOTE_NAME_MAX
        SGZ_TOC_KEY_MAX footer.MAX_FOOTER_SIZE patching.file.ENGINE_MAX options.MEMBER_MAX
        patching.make._OP_MAX patching.toc_lines._TEXT_MAX SGZ_INDEX_SIZE_MAX
        SGZ_INDEX_SECTION_MAX SGZ_INDEX_WINDOW_MAX SGZ_INDEX_HEADER_MAX
        SGZ_UNITS_MEMBER_MAX""",
    "what follows from the size of a TOC or the work of a patch": """
        SGZ_TOC_ROWS_FREE patching.file.PASS_FREE patching.make._TAIL_MAX
        patching.make._INNER_MAX""",
    "buffers, pauses and steps of our own": """
        SGZ_SPOOL_MEMORY SGZ_CHUNKER_FREE SGZ_CHUNKS_SPARE_MAX SGZ_REQUEST_MAX fsspec._MAX_BUFFER
        remote._STEP_MAX sources.ranges.MAX_GAP sources.client._MAX_PACES durable._MOST_SPARED
        indexes._MAX_MADE mount.contents._MEMORY_MAX mount.kernel._NAME_MAX
        oci.bulk.images._MAX_COORDINATORS oci.bulk.store._MAX_BAD oci.formats.layout._MAX_SUBJECTS
        oci.indexes._MOST oci.convert.occupied._MAX_LOOKED_AT oci.registry.auth._MAX_SECRETS""",
    "of what is packed, listed or searched, which is the user's own": """
        SGZ_WALK_OPEN_MAX SGZ_WALK_NAME_MAX SGZ_WALK_XATTR_MAX mount.crfs._DEPTH_MAX
        mount.crfs._DIRECTORIES_MAX cli._find._NESTED_MAX oci.extraction.MAX_SHADOWED
        oci.verify.image.MAX_ERRORS""",
}

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}
_NAME = re.compile(r"_?(?:[A-Z0-9]+_)*(?:MAX|MOST|LIMIT)(?:_[A-Z0-9]+)*")


@cache
def rows() -> dict[str, str]:
    """The numbers of the page, by what they are of."""
    found = re.findall(r"^\| (.+?) \| ([0-9][^|]*?) \|[^|]*\|$", PAGE.read_text(), re.M)
    assert len(dict(found)) == len(found)
    return dict(found)


def number(text: str) -> int:
    size, _, less = text.partition(" less ")
    digits, _, unit = size.partition(" ")
    value = int(digits.replace(",", "")) * UNITS.get(unit, 1)
    assert unit in (*UNITS, "", "s", "bytes", "characters"), text
    return value - (int(less.split()[0]) if less else 0)


def of_package() -> dict[str, Any]:
    """Every constant that is called a limit, by MODULE.NAME."""
    found = {}
    for path in (ROOT / "stargz").rglob("*.py"):
        if "benchmark" in path.parts:
            continue  # bounds of its own work
        module = ".".join(path.relative_to(ROOT / "stargz").with_suffix("").parts)
        for name in re.findall(r"^(\w+)(?:: \w+)? = ", path.read_text(), re.M):
            if _NAME.fullmatch(name):
                found[f"{module}.{name}"] = path
    return found


@cache
def of_kernels() -> dict[str, str]:
    """The same of csrc/, by name, with what stands behind it."""
    found = {}
    for path in (ROOT / "csrc").rglob("*.[ch]"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        for name, value in re.findall(r"^#define (SGZ_\w+) (.+)$", text, re.M):
            found[name] = value.strip()
    return found


def constant(name: str) -> Any:
    if "." in name:
        module, _, last = name.rpartition(".")
        return getattr(importlib.import_module(f"stargz.{module}"), last)
    if name.islower():
        return inspect.signature(Client).parameters[name].default
    defined = of_kernels()
    text = re.sub(r"SGZ_\w+", lambda found: str(constant(found[0])), defined[name])
    text = re.sub(r"\((?:u?int\d+_t|size_t)\)", "", text).replace("INT32_MAX", str((1 << 31) - 1))
    assert re.fullmatch(r"[0-9u<>()*+ -]+", text), (name, text)
    return eval(text.replace("u", ""))


@pytest.mark.parametrize("what", ROWS)
def test_each_number_is_the_codes(what: str) -> None:
    stated = number(rows()[what])
    for name in ROWS[what].split():
        assert constant(name) == stated, name


def test_each_row_is_about_a_limit() -> None:
    assert rows().keys() == ROWS.keys()


def test_each_limit_of_the_code_is_there() -> None:
    known = set(" ".join((*ROWS.values(), *NO_LIMITS.values())).split())
    kernels = {name for name in of_kernels() if re.search(r"_(MAX|FREE|MEMORY)$", name)}
    assert of_package().keys() | kernels <= known
    assert all(constant(name) is not None for name in known)
