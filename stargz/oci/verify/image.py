"""Verify a whole image: manifests, configs and blobs against what names them, and every seekable
layer against its TOC.

result = verify_image("docker://host/app:1.0")
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Unpack

from stargz.descriptors import CHECKSUM, TOC_DIGEST
from stargz.errors import (
    DigestError,
    FormatError,
    MissingBlobError,
    PlatformError,
    SourceError,
)
from stargz.layer import Problem
from stargz.oci.formats.manifest import (
    KNOWN,
    MAX_CONFIG_SIZE,
    MAX_INDEX_NESTING,
    MAX_MANIFEST_SIZE,
    MAX_MANIFESTS,
    ZSTD_INSTANCE,
    Descriptor,
    Manifest,
    diff_ids,
    in_zstd,
    is_attestation,
    is_image,
    is_zstd_chunked,
    is_zstd_instance,
    layer_kind,
    load_json,
)
from stargz.oci.formats.platforms import Platform, check_platform, parse_platform, platform_of
from stargz.oci.formats.reference import registry_of, without_name
from stargz.oci.formats.selection import select
from stargz.oci.formats.soci import named_by
from stargz.oci.indexes import FoundIndex
from stargz.oci.registry.access import Access, Creds
from stargz.oci.registry.options import ReadOptions, access_of
from stargz.oci.repository import Repository, open_repository
from stargz.oci.verify.annotated import contradictions
from stargz.oci.verify.blob import (
    BlobChecker,
    CheckedBlob,
    Progress,
    as_problem,
    is_damage,
)
from stargz.options import thread_count
from stargz.paths import several, text
from stargz.results import Result

MAX_ERRORS = 100  # that are listed; all are counted


@dataclass(frozen=True, slots=True)
class ImageProblem:
    """One error: the file it is about and its offset in the layer's blob ("" and None if there
    are none), what is wrong, and in which manifest and which layer (digests; None if in none)."""

    name: str
    offset: int | None
    message: str
    image: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class VerifiedLayer:
    """One layer or other blob of a manifest, and how far it was checked.

    `status`: "verified" (by a TOC that the manifest vouches for, chunk by chunk), "unverified"
    (seekable and right, but without a TOC digest in the manifest or digests of all files),
    "indexed" (not seekable; what the ztoc of the image's SOCI index says of it is true), "not
    seekable" (digest and DiffID are right), "blob" (no layer; its digest is right),
    "foreign" (not there, as its media type allows), or "failed". `diff_id` and
    `uncompressed_size` (bytes) are what the blob has; `kind` is that of its footer, or "indexed".
    """

    digest: str
    size: int
    media_type: str
    status: str
    diff_id: str | None = None
    uncompressed_size: int | None = None
    toc_digest: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class VerifiedManifest:
    """One manifest: `kind` is "image", "artifact", "attestation", or "other" for what is of no
    kind that is known, of which the digest is all that is checked; `platform` as its config or the
    index has it."""

    digest: str
    kind: str
    platform: str | None
    ok: bool
    layers: tuple[VerifiedLayer, ...]


@dataclass(frozen=True, slots=True)
class ImageVerifyResult(Result):
    """What verification of an image found.

    `files`, good `chunks` and `bytes` (uncompressed) are of all distinct layers. `errors` holds
    the first hundred of `error_count`. `verified`: every layer of every image is "verified".
    `digest` is that of what the reference names ("" if it could not be read). It is true
    (`if verify_image(...):`) when `ok` is.
    """

    ok: bool
    files: int
    chunks: int
    bytes: int
    errors: list[ImageProblem] = field(default_factory=list)
    error_count: int = 0
    verified: bool = False
    name: str = ""
    digest: str = ""
    images: list[VerifiedManifest] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.ok


def verify_image(
    src: str,
    *,
    platforms: Sequence[str] = (),
    access: Access | None = None,
    creds: Creds | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    require_verified: bool = False,
    **registry: Unpack[ReadOptions],
) -> ImageVerifyResult:
    """Verify the image that `src` names, with all its platforms or those of `platforms`.

    Every manifest and index must have the digest and size by which it is named, every config and
    blob too; a config as many diff_ids as there are layers, each the DiffID of its layer; a
    seekable layer the TOC digest and uncompressed size that its annotations give, and then every
    gzip member, chunk, file and TOC entry is checked as by `Layer.verify`. Of artifacts and
    attestations the blobs' digests are checked. What is wrong with the image is listed, not
    raised, and one bad layer does not keep the others from being checked.

    With `require_verified` a layer that is not seekable, or whose TOC the manifest does not vouch
    for, is an error too. `progress(done, total)` gets bytes, from any thread, one at a time.
    Layers that are not local are kept one by one in unlinked temporary files. `creds` are those of
    `open_repository`.

    Raises RegistryError, SourceError and OSError for what cannot be read at all; PlatformError for
    one that is not there; UsageError.
    """
    threads = thread_count(threads)
    src = text(src)
    access = access_of("verify_image", access, registry, ReadOptions)
    access = access.with_creds(registry_of(src), creds)
    name = src
    try:
        with open_repository(src, **access.options()) as repository:
            name = repository.name
            return _Verification(repository, threads, progress, require_verified).run(platforms)
    except PlatformError:
        raise
    except (DigestError, FormatError, MissingBlobError) as error:
        # Of the layout, the archive, or the root: there is nothing to go through.
        offset = as_problem(error).offset
        what = str(error) if offset is None else str(error).replace(f" at offset {offset}", "", 1)
        problem = ImageProblem("", offset, without_name(what, src))
        return ImageVerifyResult(False, 0, 0, 0, [problem], 1, name=name)


@dataclass(slots=True)
class _Found:
    """A manifest on its way to being a VerifiedManifest."""

    manifest: Manifest
    kind: str
    platform: str | None
    problems: list[ImageProblem]
    diff_ids: list[str] | None = None
    blob: Descriptor | None = None  # what an index lists that was too large to be read


class _Verification:
    def __init__(
        self,
        repository: Repository,
        threads: int,
        progress: Progress | None,
        require_verified: bool,
    ) -> None:
        self._repository = repository
        self._blobs = BlobChecker(repository, threads, progress)
        self._required = require_verified
        self._problems: list[ImageProblem] = []  # of no manifest that could be read

    def run(self, platforms: Sequence[str]) -> ImageVerifyResult:
        name = self._repository.name
        wanted = [parse_platform(one) for one in several(platforms, "platforms (--platform)")]
        root = self._repository.root()
        found = list(self._walk(root, wanted))
        blobs: dict[tuple[str, int], CheckedBlob] = {}
        for each in found:
            self._config(each, blobs)
            for entry in self._layers(each):
                layer = each.kind == "image" and layer_kind(entry) != "other"
                blob = blobs.setdefault((entry.digest, entry.size), CheckedBlob(entry, layer))
                blob.layer |= layer
            for digest, ztoc in self._ztocs(each).items():
                for blob in blobs.values():
                    if blob.entry.digest == digest:
                        blob.ztocs[ztoc.digest] = ztoc
        self._blobs.check_all(list(blobs.values()))
        told: set[tuple[str, int]] = set()
        images = [self._judge(each, blobs, told) for each in found]
        errors = self._problems + [problem for each in found for problem in each.problems]
        shown = [
            replace(one, message=without_name(one.message, name)) for one in errors[:MAX_ERRORS]
        ]
        layers = [blob for blob in blobs.values() if blob.layer]
        hidden = sum(blob.count - len(blob.problems) for blob in blobs.values())
        every = [layer for image in images if image.kind == "image" for layer in image.layers]
        return ImageVerifyResult(
            ok=not errors,
            files=sum(blob.files for blob in layers),
            chunks=sum(blob.chunks for blob in layers),
            bytes=sum(blob.uncompressed_size or 0 for blob in layers),
            errors=shown,
            error_count=len(errors) + hidden,
            verified=not errors and all(layer.status == "verified" for layer in every),
            name=name,
            digest=root.digest,
            images=images,
        )

    # --- manifests ----------------------------------------------------------------------

    def _walk(self, root: Manifest, platforms: Sequence[Platform]) -> Iterator[_Found]:
        """Every distinct manifest; what cannot be read is a problem."""
        if platforms and root.kind == "manifest":
            self._check_platform(root, platforms)
        seen = {root.digest}
        pending = deque[tuple[Manifest, Descriptor | None, int, Sequence[Platform]]]()
        pending.append((root, None, 0, platforms))
        while pending:
            manifest, entry, depth, wanted = pending.popleft()
            if manifest.kind != "index":
                yield self._found(manifest, entry)
                continue
            if depth == MAX_INDEX_NESTING:
                self._note(
                    f"more than {MAX_INDEX_NESTING} indexes one inside the other", manifest.digest
                )
                continue
            try:
                entries = manifest.manifests
            except FormatError as error:
                self._note(error, manifest.digest)
                continue
            chosen: dict[str, list[Platform]] = {}
            if wanted:
                load = self._repository.manifest
                picked = [(select(manifest, platform, load), platform) for platform in wanted]
                entries = [listed for listed, _ in picked]
                for listed, platform in picked:
                    chosen.setdefault(listed.digest, []).append(platform)
            for listed in entries:
                if listed.digest in seen:
                    continue
                if len(seen) >= MAX_MANIFESTS:
                    self._note(f"more than {MAX_MANIFESTS} manifests", manifest.digest)
                    break
                seen.add(listed.digest)
                below = self._read_manifest(listed)
                if below is not None:
                    pending.append((below, listed, depth + 1, chosen.get(listed.digest, ())))

    def _check_platform(self, root: Manifest, wanted: Sequence[Platform]) -> None:
        stated = None
        with suppress(DigestError, FormatError, SourceError):  # noted when it is verified
            data = self._repository.read_blob(root.config, MAX_CONFIG_SIZE)
            stated = platform_of(load_json(data, self._repository.name))
        for platform in wanted:
            check_platform(stated, platform, self._repository.name)

    def _read_manifest(self, entry: Descriptor) -> Manifest | None:
        try:
            if entry.media_type in KNOWN:
                return self._repository.manifest(entry)
            data = self._repository.other(entry) if entry.size <= MAX_MANIFEST_SIZE else b""
            return Manifest(data, entry.digest, entry.media_type, {}, self._repository.name)
        except (DigestError, FormatError) as error:
            self._note(error, entry.digest)
        except SourceError as error:
            if not is_damage(error):
                raise
            self._note(error, entry.digest)
        return None

    def _note(self, error: Exception | str, manifest: str) -> None:
        self._problems.append(ImageProblem("", None, str(error), manifest))

    def _found(self, manifest: Manifest, entry: Descriptor | None) -> _Found:
        problems: list[ImageProblem] = []
        kind = "artifact"
        try:
            if manifest.kind == "other":
                kind = "other"
            elif entry is not None and is_attestation(entry):
                kind = "attestation"
            elif is_image(manifest):
                kind = "image"
                if entry is not None and is_zstd_instance(entry) and not in_zstd(manifest):
                    text = f"the index says that it is in zstd ({ZSTD_INSTANCE}), but no layer is"
                    problems.append(ImageProblem("", None, text, manifest.digest))
        except FormatError as error:
            problems.append(ImageProblem("", None, error.message, manifest.digest))
        platform = platform_of(entry.platform) if entry else None
        found = _Found(manifest, kind, str(platform) if platform else None, problems)
        if kind == "other" and not manifest.data:
            found.blob = entry
        return found

    def _layers(self, found: _Found) -> list[Descriptor]:
        if found.blob is not None:
            return [found.blob]
        try:
            return found.manifest.layers
        except FormatError:
            return []  # noted where its kind was asked for

    def _config(self, found: _Found, blobs: dict[tuple[str, int], CheckedBlob]) -> None:
        """Check the config; only an image's is also read."""
        manifest = found.manifest

        def note(error: Exception | str) -> None:
            text = without_name(str(error), self._repository.name)
            found.problems.append(ImageProblem("", None, f"config: {text}", manifest.digest))

        try:
            entry = manifest.config
        except FormatError as error:
            if found.kind == "image" or "config" in manifest.json:
                note(error.message)
            return
        if found.kind != "image":
            blobs.setdefault((entry.digest, entry.size), CheckedBlob(entry, False))
            return
        if entry.size > MAX_CONFIG_SIZE:
            note(f"{entry.size} bytes are over the limit of {MAX_CONFIG_SIZE} bytes")
            return
        blob = CheckedBlob(entry, False)
        data = self._blobs.read(blob)
        for problem in blob.problems:
            note(problem.message)
        if blob.missing:
            note(f"{entry.digest} is not there")
        if blob.problems or blob.missing:
            return
        try:
            config = load_json(data, self._repository.name)
            if found.platform is None:
                stated = platform_of(config)
                found.platform = str(stated) if stated else None
            found.diff_ids = diff_ids(config, len(manifest.layers), "")
        except FormatError as error:
            note(error.message)

    def _ztocs(self, found: _Found) -> Mapping[str, Descriptor]:
        """What an image's SOCI index says is the ztoc of which layer, if any of them needs one."""
        manifest = found.manifest
        if found.kind != "image" or (
            named_by(manifest) is None
            and all(TOC_DIGEST in entry.annotations for entry in self._layers(found))
        ):
            return {}
        index = FoundIndex(self._repository, manifest).get()
        return {} if index is None else index.ztocs

    # --- the verdict --------------------------------------------------------------------

    def _judge(
        self, found: _Found, blobs: dict[tuple[str, int], CheckedBlob], told: set[tuple[str, int]]
    ) -> VerifiedManifest:
        """Compare what is in the blobs with what the manifest says of them."""
        digest = found.manifest.digest
        layers = []
        entries = self._layers(found)
        if found.kind != "image" and (key := _key(found.manifest)) in blobs:
            self._tell_of(found, blobs[key], told, None)
        for number, entry in enumerate(entries):
            blob = blobs[entry.digest, entry.size]
            before = len(found.problems)
            foreign = blob.missing and layer_kind(entry) == "foreign"
            if not foreign:
                self._tell_of(found, blob, told, entry.digest)
            if found.kind == "image" and blob.layer and not blob.missing and not blob.problems:
                for text in self._compare(found, number, entry, blob):
                    found.problems.append(ImageProblem("", None, text, digest, entry.digest))
            failed = bool(blob.problems) or len(found.problems) > before
            failed |= blob.missing and not foreign
            status = "failed" if failed else "foreign" if foreign else _status(found, entry, blob)
            if self._required and status in ("unverified", "indexed", "not seekable", "foreign"):
                text = f"it is {status}, and every layer was required to be verified"
                found.problems.append(ImageProblem("", None, text, digest, entry.digest))
            layers.append(
                VerifiedLayer(
                    entry.digest,
                    entry.size,
                    entry.media_type,
                    status,
                    blob.diff_id,
                    blob.uncompressed_size,
                    blob.toc_digest,
                    _kind(entry, blob),
                )
            )
        ok = not found.problems and all(layer.status != "failed" for layer in layers)
        return VerifiedManifest(digest, found.kind, found.platform, ok, tuple(layers))

    @staticmethod
    def _tell_of(
        found: _Found, blob: CheckedBlob, told: set[tuple[str, int]], layer: str | None
    ) -> None:
        """The blob's own problems, once however many manifests share it."""
        key = blob.entry.digest, blob.entry.size
        if key in told:
            return
        told.add(key)
        problems = list(blob.problems)
        if blob.missing:
            problems.append(Problem("", None, f"the blob {blob.entry.digest} is not there"))
        for problem in problems:
            found.problems.append(
                ImageProblem(
                    problem.name, problem.offset, problem.message, found.manifest.digest, layer
                )
            )

    @staticmethod
    def _compare(found: _Found, number: int, entry: Descriptor, blob: CheckedBlob) -> Iterable[str]:
        if found.diff_ids is not None and found.diff_ids[number] != blob.diff_id:
            yield (
                f"its DiffID is {blob.diff_id}, but the config's diff_ids[{number}] is "
                f"{found.diff_ids[number][:100]}"
            )
        yield from contradictions(entry.annotations, blob)


def _key(manifest: Manifest) -> tuple[str, int] | None:
    with suppress(FormatError):
        return manifest.config.digest, manifest.config.size
    return None


def _kind(entry: Descriptor, blob: CheckedBlob) -> str | None:
    """By a layer's footer, else by its annotations."""
    return blob.kind or ("zstd:chunked" if is_zstd_chunked(entry) else None)


def _status(found: _Found, entry: Descriptor, blob: CheckedBlob) -> str:
    if found.kind != "image" or not blob.layer:
        return "blob"
    if blob.toc_digest is None:
        return "indexed" if blob.kind == "indexed" else "not seekable"
    stated = TOC_DIGEST in entry.annotations or CHECKSUM in entry.annotations
    vouched = stated and found.diff_ids is not None
    return "verified" if vouched and blob.digested else "unverified"
