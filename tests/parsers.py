"""The parsers in Python that meet what others wrote: for each what a right input looks like, and a
reader that fails for an outcome that is neither a right result nor an error of one line.

tests/test_parsers.py has mutated inputs read by each, tests/fuzz/python guides them by coverage.
The parsers in C have their own targets in tests/fuzz.
"""

from __future__ import annotations

import atexit
import contextlib
import gzip
import io
import json
import math
import os
import shutil
import socketserver
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import blobs
import layouts

import stargz
from stargz.descriptors import chunked_of, stated_toc_digest
from stargz.digests import digest_of, is_digest
from stargz.errors import StargzError
from stargz.footer import find_footer, make_footer, parse_footer
from stargz.ignore import IgnoreFile
from stargz.oci.bulk.state import LayerKey, State
from stargz.oci.formats import go_json, manifest
from stargz.oci.formats.archive import Archive
from stargz.oci.formats.layout import ArchivedLayout
from stargz.oci.formats.platforms import choice_of, parse_platform, platform_of
from stargz.oci.formats.reference import (
    Reference,
    is_repository,
    is_tag,
    parse_image,
    parse_reference,
)
from stargz.oci.formats.selection import select
from stargz.oci.formats.soci import read_index
from stargz.oci.formats.tar_file import OpenFile, TarFile
from stargz.oci.formats.tar_index import TarIndex
from stargz.oci.registry.auth import Authorizer
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.credentials import CredentialStore
from stargz.oci.registry.failures import words_of
from stargz.oci.registry.fields import parse_challenges, parse_links
from stargz.patching import toc_lines
from stargz.sources.client import Client, Response, origin, redact, target
from stargz.sources.http import HTTPSource, _content_range
from stargz.sources.pace import asked_to_wait, retry_after
from stargz.sources.tries import TransientError

MAX_LINE = 4000  # characters of an error: some repeat names, which have a bound of their own


@dataclass(frozen=True)
class Parser:
    """`tokens` are what the inputs are made of: a mutation puts them anywhere."""

    read: Callable[[bytes], None]
    make: Callable[[], Iterable[bytes]]
    tokens: tuple[bytes, ...]

    @cached_property
    def seeds(self) -> list[bytes]:
        return list(self.make())


PARSERS: dict[str, Parser] = {}


def parser(
    make: Callable[[], Iterable[bytes]], *tokens: bytes
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    def add(read: Callable[[bytes], None]) -> Callable[[bytes], None]:
        PARSERS[read.__name__] = Parser(read, make, tokens)
        return read

    return add


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """An error that is one of ours, and told in one line of bounded length, is an answer."""
    try:
        yield
    except StargzError as error:
        one_line(str(error))


def one_line(text: str) -> None:
    assert text.isprintable() and text.strip() and len(text) < MAX_LINE, text
    text.encode()


def latin(data: bytes) -> str:
    """A header's value, as http.client has it."""
    return data.decode("latin-1")


def headers(**values: str) -> Any:
    """As they come with an answer: found in any case."""
    found = Message()
    for key, value in values.items():
        found[key.replace("_", "-")] = value
    return found


# --- fields of HTTP -----------------------------------------------------------------------------


@parser(
    lambda: [
        b'Bearer realm="https://auth.example/token",service="s",scope="repository:a/b:pull,push"',
        b'Basic realm="a \\"quoted\\" realm", charset=UTF-8, Negotiate, Custom dG9rZW4=, X a=b',
    ],
    *(b"Bearer ", b"Basic", b'realm="', b'"', b"\\", b",", b"=", b" \t", b"dG9rZW4=="),
)
def challenges(data: bytes) -> None:
    found = parse_challenges(latin(data))
    assert len(found) <= len(data)
    written = []
    for one in found:
        assert one.scheme and one.scheme == one.scheme.lower()
        escaped = {
            k: v.replace("\\", "\\\\").replace('"', '\\"') for k, v in one.parameters.items()
        }
        written.append(" ".join([one.scheme, ",".join(f'{k}="{v}"' for k, v in escaped.items())]))
    text = ", ".join(written)
    if len(text) < len(data) * 2 and len(text) < 8000:
        assert parse_challenges(text) == found


@parser(
    lambda: [
        b'</v2/a/tags/list?n=2&last=b>; rel="next"',
        b'<https://registry.example/x>; title="a, b; rel=next"; rel="prev", <y>; rel="up next"',
    ],
    *(
        b"<",
        b">",
        b";",
        b",",
        b'rel="next"',
        b"rel=next",
        b'anchor="#x"',
        b"rel",
        b"=",
        b'"',
        b"\\",
    ),
)
def links(data: bytes) -> None:
    for url, relations in parse_links(latin(data)):
        assert "<" not in url and ">" not in url
        assert all(one and one == one.lower() and " " not in one for one in relations)


@parser(
    lambda: [b"bytes 0-99/1234", b"bytes 5-5/*", b"bytes */77"],
    *(b"bytes ", b"-", b"/", b"*", b"99999999999999999999", b"\xb2"),
)
def ranges(data: bytes) -> None:
    reply: Any = SimpleNamespace(headers=headers(Content_Range=field(data)), close=lambda: None)
    try:
        first, last, total = _content_range(reply)
    except TransientError as error:
        one_line(str(error))
        return
    assert 0 <= first <= last < (1 << 62 if total is None else total)


def field(data: bytes) -> str:
    """One line of it, as no other can come in a header."""
    return latin(data).partition("\n")[0].partition("\r")[0]


@parser(
    lambda: [
        b"120",
        b"Wed, 21 Oct 2015 07:28:00 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        b"limit=10, remaining=0, reset=7",
        b'"default";r=0;t=30',
        b"100;w=21600",
        b"1700000000",
    ],
    *(b"GMT", b"+9999", b"-0000", b"Feb", b"99999999", b"00:00", b"60", b";w=0", b"reset="),
)
def waits(data: bytes) -> None:
    text = field(data)
    for name in ("Retry-After", "RateLimit", "RateLimit-Reset", "X-RateLimit-Reset",
                 "RateLimit-Limit"):  # fmt: skip
        found = asked_to_wait(headers(**{name: text}), now=1.6e9)
        assert found is None or (found >= 0 and math.isfinite(found)), (name, found)
    assert retry_after(headers(Retry_After=text), now=1.6e9) is None or not text.isspace()


@parser(
    lambda: [
        b"https://user:secret@registry.example:5000/v2/a/blobs/uploads/1?state=x",
        b"//other.example/x",
        b"/v2/b",
        b"http://[::1]:80/a%2f..",
    ],
    *(b"http://", b"//", b"@", b"[", b"]", b":", b"\t", b"?", b"#", b"\\", b"%"),
)
def locations(data: bytes) -> None:
    url = target("https://registry.example/v2/a", latin(data))
    if url is None:
        return
    assert url.lower().startswith(("http://", "https://"))
    scheme, _, host = origin(url).partition("://")
    assert scheme in ("http", "https") and host and "@" not in host and "/" not in host
    assert "@" not in urlsplit(redact(url)).netloc


@parser(
    lambda: [
        b'{"errors":[{"code":"DENIED","message":"no","detail":{"a":[1,null,"x"]}}]}',
        b'{"errors":[{"code":"UNAUTHORIZED","detail":[{"Type":"repository","Action":"pull"}]}]}',
        b'{"details":"incorrect username or password"}',
        b"plain words",
    ],
    *(b"[" * 900, b"{", b"}", b'"detail":', b"\\ud800", b"1" * 5000, b"NaN"),
)
def said(data: bytes) -> None:
    for kind in ("application/json", "text/plain"):
        text = words_of(Response(400, headers(Content_Type=kind), data, "https://a.example/"))
        assert len(text) < 4 * MAX_LINE
        assert not text or text.isprintable()


class _Saying(socketserver.StreamRequestHandler):
    """Says what it was given to whatever it is asked."""

    words = b""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.wfile.write(self.words)


@cache
def talker() -> tuple[str, Client]:
    """A server that says _Saying.words, and who asks it."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Saying)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    atexit.register(server.server_close)
    atexit.register(server.shutdown)
    client = Client(timeout=2.0, tries=1, patience=2.0, host_patience=0.0, backoff=0.001)
    return f"http://127.0.0.1:{server.server_address[1]}/x", client


@parser(
    lambda: [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 95-99/100\r\nContent-Length: 5\r\n"
        b'ETag: "x"\r\n\r\nhello',
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: z\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\nServer: x\r\n\r\n<html>",
    ],
    *(b"\r\n", b"\n", b": ", b" ", b"HTTP/1.0", b"HTTP/9", b"Content-Length: 7\r\n", b"chunked"),
    *(
        b"ffffffffffffffff\r\n",
        b"-1\r\n",
        b"\xff",
        b"\0",
        b"204",
        b"416",
        b"Content-Encoding: gzip\r\n",
    ),
)
def answers(data: bytes) -> None:
    if b"ocation" in data.partition(b"\r\n\r\n")[0]:
        return  # nobody else is asked
    url, client = talker()
    _Saying.words = data
    with refusing():
        for method in ("GET", "HEAD"):
            found = client.request(method, url, follow=False, limit=1 << 16)
            assert 100 <= found.status < 1000 and len(found.data) <= 1 << 16
    with refusing(), contextlib.closing(HTTPSource(url, client=client, tail=5)) as source:
        assert source.size >= 0
        assert len(source.read_at(0, min(3, source.size))) == min(3, source.size)


def saying(body: bytes) -> tuple[str, Client]:
    """Have the server answer with a body, whatever it is asked."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    _Saying.words = head % len(body) + body
    return talker()


@parser(
    lambda: [b'{"token":"abc.def","expires_in":300}', b'{"access_token":"x","issued_at":"now"}'],
    *(b'"token":', b'"expires_in":', b"\\n", b"\\ud800", b"1e400", b"-1", b"NaN", b"null", b"[]"),
)
def tokens(data: bytes) -> None:
    url, client = saying(data)
    auth = Authorizer(client, url, lambda scope: None)
    auth.private = True
    challenge = {"WWW-Authenticate": f'Bearer realm="{url}",service="s"'}
    auth.learn(Response(401, challenge, b"", url))
    with refusing():
        value = auth.renew("repository:a:pull", None, None, "it")
        assert value is not None and value.startswith("Bearer ")
        assert value.isascii() and value.isprintable()


@parser(
    lambda: [
        b'{"name":"a","tags":["1","latest"]}',
        b'{"repositories":["a","b/c"]}',
        *documents()[3:4],
    ],
    *(
        b"null",
        b"[]",
        b"{}",
        b"1",
        b'"../x"',
        b'"\\ud800"',
        b'"tags":',
        b'"repositories":',
        b"\xff",
    ),
)
def lists(data: bytes) -> None:
    url, http = saying(data)
    host = url.split("/")[2]
    with RegistryClient(plain_http=True, http=http, authfile=empty_file()) as client:
        reference = Reference(host, "a")
        with refusing():
            assert all(map(is_tag, client.tags(reference)))
        with refusing():
            assert all(is_repository(name, host) for name in client.catalog(host))
        with refusing():
            checked(client.referrers(reference, DIGEST))
        with refusing():
            client.manifest(reference)


@cache
def empty_file() -> Path:
    path = scratch() / "none.json"
    path.write_bytes(b"{}")
    return path


# --- names --------------------------------------------------------------------------------------


DIGEST = "sha256:" + "ab" * 32


@parser(
    lambda: [
        b"docker://registry.example:5000/a/b-c__d:v1.2@" + DIGEST.encode(),
        b"oci:dir:ref",
        b"docker-archive:-:@1",
        b"docker-archive:/none/x.tar:a/b:c",
        b"storage:/none//a/b:tag@" + DIGEST.encode(),
        b"docker://[::1]:5000/x",
        b"docker://alpine",
    ],
    *(
        b"docker://",
        b"oci:",
        b"@",
        b":",
        b"//",
        b"/",
        b"..",
        b"%2f",
        b"[",
        b"]",
        b"\0",
        b"localhost",
    ),
)
def references(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape").replace("\0", "?")  # which no argument has
    with refusing():
        found = parse_image(text)
        assert parse_image(text) == found
        if isinstance(found, Reference):
            assert parse_reference(str(found)) == found
            assert found.digest is None or is_digest(found.digest)
            path = f"{found.repository}/{found.target}"
            assert ".." not in path.split("/") and path.isascii() and path.isprintable()
            assert not set(path) & set(" ?#%\\@")


@parser(lambda: [b"linux/amd64", b"linux/arm/v7", b"aarch64"], b"/", b"windows", b"\xc2\xb2")
def platforms(data: bytes) -> None:
    with refusing():
        found = parse_platform(data.decode("utf-8", "surrogateescape"))
        assert parse_platform(str(found)) == found


@parser(
    lambda: [
        b"# all\n**/*.py\n!keep/[a-z]?.py\n/build\ndocs/**/x\n\\#a\n a{2,3} \n[[:alpha:]]|b\\d\n",
    ],
    *(b"**", b"!", b"[", b"]", b"^", b"\\", b"{0,1000}", b"|", b"[:", b":]", b"\n", b"/../", b"-"),
)
def ignoring(data: bytes) -> None:
    with refusing():
        file = IgnoreFile.parse(data, "it")
        for name in ("a", "build", "build/x", "docs/a/x", "keep", "keep/a1.py", "é\udcff", "x\ny"):
            assert file.decide(name, True) in (0, 1, 2)
            assert file.decide(name, False) in (0, 2)


# --- documents ----------------------------------------------------------------------------------


def described(**more: Any) -> dict[str, Any]:
    return {"mediaType": manifest.OCI_LAYER, "digest": DIGEST, "size": 7, **more}


def documents() -> list[bytes]:
    """A manifest of an image, one of SOCI, an index, and such as Docker writes."""
    config = described(mediaType=manifest.OCI_CONFIG)
    notes = {
        layouts.TOC_DIGEST: DIGEST,
        "io.github.containers.zstd-chunked.manifest-checksum": DIGEST,
        "io.github.containers.zstd-chunked.manifest-position": "8:9:10:1",
        "io.github.containers.zstd-chunked.tarsplit-position": "25:9:10",
        "com.amazon.soci.image-layer-digest": DIGEST,
        "com.amazon.soci.span-size": "4194304",
    }
    layer = described(annotations=notes, urls=None)
    image = {"schemaVersion": 2, "mediaType": manifest.OCI_MANIFEST, "config": config}
    soci = described(mediaType=manifest.SOCI_V2)
    platform = {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["a"]}
    entry = described(mediaType=manifest.OCI_MANIFEST, platform=platform)
    listed = {"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": [entry, entry]}
    made = [
        image | {"layers": [layer, layer], "annotations": {manifest.SOCI_INDEX: DIGEST}},
        image | {"config": soci, "layers": [layer | {"mediaType": "application/octet-stream"}]},
        image | {"layers": None, "subject": described(), "artifactType": "application/x"},
        listed,
        listed | {"mediaType": manifest.DOCKER_LIST, "annotations": None},
    ]
    return [json.dumps(one).encode() for one in made]


JSON_TOKENS = (
    *(
        b"null",
        b"true",
        b"-1",
        b"9223372036854775808",
        b"1e400",
        b"NaN",
        b'"\\ud800"',
        b"[]",
        b"{}",
    ),
    *(b'"mediaType":', b'"layers":', b'"manifests":', b'"config":', b'"sha256:../x"', b'"\\u0000"'),
    *(b"[" * 400, b'{"a":' * 300, b"1" * 5000, b"\xff", b"\xef\xbb\xbf", b"\xff\xfe"),
)


@parser(documents, *JSON_TOKENS)
def manifests(data: bytes) -> None:
    with refusing():
        found = manifest.parse_manifest(data, "it")
        assert found.digest == digest_of(data) and found.data == data
        _ = found.subject, found.annotations, found.is_artifact, found.artifact_type
        manifest.is_image(found)
        manifest.is_toc_image(found)
        with refusing():
            assert manifest.load_json(go_json.dump(found.json, "it"), "it")
        json.dumps(found.json)
        if found.kind == "index":
            for entry in checked(found.manifests):
                platform_of(entry.platform)
                choice_of(entry.platform)
                manifest.about(entry), manifest.is_attestation(entry), manifest.kind_of(entry)
            select(found, parse_platform("linux/amd64"), lambda _: found)
            return
        for entry in checked([found.config, *found.layers]):
            manifest.layer_kind(entry)
            _ = entry.uncompressed_size
            with refusing():
                stated_toc_digest(entry.annotations, "it")
            with refusing():
                chunked = chunked_of(entry.annotations, "it")
                assert chunked is None or all(map(is_digest, chunked.checksums))
        read_index(found)


def checked(entries: list[manifest.Descriptor]) -> list[manifest.Descriptor]:
    for entry in entries:
        assert is_digest(entry.digest) and 0 <= entry.size < 1 << 63
        assert all(isinstance(text, str) for text in entry.annotations.values())
    return entries


@parser(
    lambda: [
        b'{"architecture":"amd64","os":"linux","config":{"Env":["A=b"]},"rootfs":{"type":"layers",'
        b'"diff_ids":["' + DIGEST.encode() + b'"]},"history":[{"created_by":"x"}]}',
    ],
    *(*JSON_TOKENS, b'"rootfs":', b'"diff_ids":', b'"Rootfs":', b'"history":'),
)
def configs(data: bytes) -> None:
    with refusing():
        found = manifest.load_json(data, "it")
        platform_of(found)
        for count in (0, 1):
            with refusing():
                assert len(manifest.diff_ids(found, count, "it")) == count
        json.dumps(found)
        with refusing():
            go_json.dump(found, "it")


@parser(
    lambda: [
        b'{"auths":{"registry.example":{"auth":"dTpw"},"https://index.docker.io/v1/":{"username":'
        b'"u","password":"p"},"registry.example/a":{"identitytoken":"t"}},'
        b'"credHelpers":{"other.example":"none"}}',
    ],
    *(*JSON_TOKENS, b'"auth":"', b'"credsStore":"x"', b'"username":', b"dTpw", b"/", b"%", b"="),
)
def credentials(data: bytes) -> None:
    path = scratch() / "auth.json"
    path.write_bytes(data)
    store = CredentialStore(path, environ={"PATH": "/none"})
    for text in ("registry.example/a/b", "alpine", "other.example/x"):
        with refusing():
            found = store.find(parse_reference(text))
            if found is not None:
                header = found.basic()
                assert header.isascii() and header.isprintable()
                found.identity_token.encode()
                found.registry_token.encode()


# --- files --------------------------------------------------------------------------------------


@cache
def scratch() -> Path:
    """A folder for what has to be a file; the process has it for itself."""
    path = tempfile.mkdtemp(prefix="stargz-parsers-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def opened(data: bytes) -> OpenFile:
    fd = os.memfd_create("it")
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    return OpenFile(fd)


TAR_TOKENS = (
    *(b"ustar\x0000", b"ustar  \0", b"\x80" + bytes(11), b"\xff" * 12, b"17 path=../../x\n"),
    *(b"00000000000\0", b"77777777777\0", b"x", b"L", b"g", b"S", bytes(512)),
)


def small_tar() -> bytes:
    return blobs.tar_of([("d", None), ("d/f", b"abc" * 200), ("g", b"g" * 700), ("e", b"")])


@parser(lambda: [small_tar()], *TAR_TOKENS)
def members(data: bytes) -> None:
    file = opened(data)
    with refusing():
        index = TarIndex(file.fd, len(data), "it")
        for name, member in index.members.items():
            assert 0 <= member.offset <= member.offset + member.size <= len(data)
            with refusing():
                index.find(name)


def archives() -> Iterator[bytes]:
    tar = small_tar()
    config = json.dumps({"rootfs": {"diff_ids": [blobs.sha256(tar)] * 2}}).encode()
    packed = gzip.compress(tar, 1, mtime=0)
    hexes = blobs.sha256(packed).partition(":")[2]
    listed = [
        {
            "Config": "config.json",
            "RepoTags": ["a/b:c"],
            "Layers": ["l.tar", f"blobs/sha256/{hexes}"],
        }
    ]
    yield blobs.tar_of(
        [
            ("manifest.json", json.dumps(listed).encode()),
            ("config.json", config),
            ("l.tar", tar),
            (f"blobs/sha256/{hexes}", packed),
        ]
    )


@parser(archives, *TAR_TOKENS, *JSON_TOKENS, b"xz\0", b"BZh9", b"\x1f\x8b\x08")
def docker_archives(data: bytes) -> None:
    with refusing():
        archive = Archive(TarFile("/it", "it", opened(data)))
        for ref in archive.refs():
            with refusing():
                made = archive.manifest(ref)
                for entry in checked([made.config, *made.layers]):
                    source = archive.open_blob(entry)
                    assert source.size == entry.size
                    source.read_at(0, min(10, entry.size))


def archived_layouts() -> Iterator[bytes]:
    layout = layouts.Layout(scratch() / "layout")
    layout.tag(layout.manifest([layout.plain_layer(small_tar())]))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(layout.path, ".")
    yield out.getvalue()


@parser(archived_layouts, *TAR_TOKENS, *JSON_TOKENS)
def oci_archives(data: bytes) -> None:
    with refusing():
        found = ArchivedLayout(TarFile("/it", "it", opened(data)))
        found.refs()
        for entry in checked(found.images):
            with refusing():
                found.manifest(entry)
        found.resolve()


def golden(name: str) -> bytes:
    return (Path(__file__).parent / "data" / name).read_bytes()


@parser(
    lambda: [
        make_footer(1000),
        make_footer(1000, "stargz"),
        make_footer(-1, "external-toc"),
        (golden("zstd_chunked.zst"))[-120:],
    ],
    *(b"STARGZ", b"GnUlInUx", b"GNUlInUx", b"\x50\x2a\x4d\x18", b"SG", b"\xff" * 8, bytes(8)),
)
def footers(data: bytes) -> None:
    for size in (len(data), 5000, 1 << 40):
        with refusing():
            found = parse_footer(data, size, "it")
            assert find_footer(data, size, "it") == found
            assert found.size <= len(data)
            where = size - found.size
            assert found.kind == "external-toc" or 0 <= found.toc_offset < where
            for at in (found.toc, found.split):
                assert at is None or 8 <= at.offset < at.offset + at.packed <= where
        with refusing():
            find_footer(data, size, "it")


# --- layers -------------------------------------------------------------------------------------


FILES = {"d/f": b"abc" * 200, "g": b"g" * 700, "e": b""}


@cache
def layer() -> bytes:
    out = io.BytesIO()
    stargz.convert(io.BytesIO(small_tar()), out, chunk_size=1024, threads=1)
    return out.getvalue()


@cache
def plain_layer() -> bytes:
    return gzip.compress(small_tar(), 6, mtime=0)


def read_all(found: stargz.Layer, limit: int = 1 << 20) -> dict[str, bytes]:
    """Every file that is small, if all of them can be read."""
    read = {}
    for name in found:
        entry = found.entry(name)
        if entry.type == "reg" and entry.size < limit:
            with refusing():
                read[name] = found.read(name)
                assert len(read[name]) == entry.size
    return read


@parser(lambda: [layer(), golden("zstd_chunked.zst")], b"\x1f\x8b\x08", b"STARGZ", bytes(8))
def opening(data: bytes) -> None:
    with refusing(), stargz.open(data, index=False, threads=1) as found:
        read_all(found)
        if found.size < 1 << 20:
            found.verify()


def index_files() -> Iterator[bytes]:
    for form in ("native", "soci"):
        out = io.BytesIO()
        stargz.index(plain_layer(), out, format=form, threads=1)
        yield out.getvalue()


@parser(index_files, b"SGZINDEX", b"\xff" * 8, bytes(8), b"GZIDX", b"\x01")
def index_file(data: bytes) -> None:
    with refusing(), stargz.open(plain_layer(), index=data, cache=False, threads=1) as found:
        for name, content in read_all(found).items():
            # What nothing vouches for is compared with the headers: a name has its own content.
            assert FILES.get(name, content) == content, name


@parser(
    lambda: [golden("external_toc.esgz.toc")],
    *(b"\x1f\x8b\x08", b'"offset":', b'"digest":', bytes(8)),
)
def external_toc(data: bytes) -> None:
    blob = golden("external_toc.esgz")
    with refusing(), stargz.open(blob, toc=data, threads=1) as found:
        read_all(found)


@cache
def patched() -> tuple[bytes, bytes]:
    """What a patch is for, and what it makes."""
    new = blobs.tar_of([("d", None), ("d/f", b"abc" * 201), ("g", b"g" * 700), ("h", b"h" * 99)])
    out = io.BytesIO()
    stargz.convert(io.BytesIO(new), out, chunk_size=1024, threads=1)
    return layer(), out.getvalue()


def patches() -> Iterator[bytes]:
    folder = scratch()
    for name, data in zip(("base", "new"), patched(), strict=True):
        (folder / name).write_bytes(data)
    stargz.delta(folder / "base", folder / "new", folder / "patch")
    yield (folder / "patch").read_bytes()


@parser(patches, b"H\0\0\0", b"E\0\0\0", b"M\1\0\0", b"T\1\0\0", b"\xff" * 8)
def patch(data: bytes) -> None:
    out = io.BytesIO()
    with refusing():
        stargz.apply(io.BytesIO(layer()), io.BytesIO(data), out, max_size=1 << 20, threads=1)
        assert out.getvalue() == patched()[1]


@parser(
    lambda: [b'{\n\t"offset": 10,\n\t"a": 1\n},\n{\n\t"offset": 20\n}\n'],
    *(b'"offset": ', b"},\n", b"\n", b"9223372036854775807", b"\0"),
)
def lines_of_tocs(data: bytes) -> None:
    base, _, new = data.partition(b"\0")
    for one, other in ((base, new), (data, base), (base, data)):
        assert toc_lines.remake(one, toc_lines.difference(one, other)) == other


# --- what is kept -------------------------------------------------------------------------------


KEY = LayerKey("docker://host", "sha256:a", "options")


def states() -> Iterator[bytes]:
    path = scratch() / "made.db"
    with State(path) as state:
        state.begin("src", "dst", 0.0)
        state.keep_layer(KEY, {"source_size": 7, "size": 5, "status": "converted"}, "docker://h/r")
        state.finish(state.claim("oci:s", "oci:d"), "failed", 1.5, error="why", transient=True)
        state.upload_began("http://host/upload", "host/repo")
    yield path.read_bytes()


@parser(states, b"SGZB", b"CREATE TABLE", b"\xff" * 4, bytes(64), b"NULL")
def state(data: bytes) -> None:
    path = scratch() / "state.db"
    for other in scratch().glob("state.db*"):
        other.unlink()
    path.write_bytes(data)
    with refusing(), State(path) as found:
        known = found.layer(KEY)
        assert known is None or known.report["size"] == 5
        found.begin("src", "dst", 0.0)
        found.uploads()
        for outcome in found.outcomes():
            _ = outcome.report
        found.layer(KEY)
