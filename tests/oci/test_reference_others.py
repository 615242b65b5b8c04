"""Names of images, against the distribution project's own package: what we take, it takes for the
same; what only it takes is of the kinds that are named here."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from typing import Any

from stargz.errors import UsageError
from stargz.oci.formats.reference import MAX_NAME, parse_reference

ROUNDS = int(os.environ.get("STARGZ_PROPERTY_ROUNDS", "3000"))
FIRST = int(os.environ.get("STARGZ_PROPERTY_SEED", "0"))

HEX = "0123456789abcdef" * 4
HOSTS = (
    *(
        "docker.io",
        "index.docker.io",
        "localhost",
        "registry.example",
        "a-b.c",
        "Host",
        "127.0.0.1",
    ),
    *("[::1]", "[fe80::1]", "[::1", "-a.b", "a-.b", "a..b", "x_y.z", "a.b.", "é.x", "::1", ""),
)
PORTS = ("", ":5000", ":1", ":65535", ":65536", ":0", ":00080", ":", ":x", ":-1")
PIECES = (
    *(
        "a",
        "library",
        "b0",
        "a.b",
        "a_b",
        "a__b",
        "a-b",
        "a---b",
        "a___b",
        "a..b",
        "_a",
        "a_",
        ".a",
    ),
    *(".a", "a.-b", "A", "a b", "é", "", "..", "a%2f", "x" * 130, HEX, "a\n", "a\0", "²"),
)
TAGS = (
    *("", ":1", ":latest", ":V1_x-y.z", ":_x", ":.x", ":-x", ":", ":a/b", ":a:b", ":" + "t" * 128),
    *(":" + "t" * 129, ":é", ":1 ", ":1\n"),
)
DIGESTS = (
    *("", f"@sha256:{HEX}", f"@sha512:{HEX * 2}", f"@sha384:{HEX}{HEX[:32]}", f"@md5:{HEX[:32]}"),
    *(f"@sha256:{HEX[1:]}", f"@sha256:{HEX.upper()}", "@", "@sha256:", f"@sha256:{HEX}x", "@x"),
    *(f"@SHA256:{HEX}", f"@sha256+b:{HEX}", f"@sha256:{HEX}@sha256:{HEX}", f"@sha256:{HEX}\n"),
)


def name(rng: random.Random) -> str:
    host = rng.choice((rng.choice(HOSTS) + rng.choice(PORTS) + "/", "", ""))
    often = rng.random() < 0.7  # good pieces, so that much of it is
    path = "/".join(rng.choice(PIECES[:7] if often else PIECES) for _ in range(rng.randint(1, 4)))
    tag = rng.choice(TAGS[:4] if often else TAGS)
    digest = rng.choice(DIGESTS[:3] if often else DIGESTS) if rng.random() < 0.4 else ""
    text = host + path + tag + digest
    if rng.random() < 0.1 and text:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice("a:/@.-_[]A ") + text[at + rng.randrange(2) :]
    return text


def stricter(text: str, theirs: dict[str, Any]) -> bool:
    """What we refuse, and they take."""
    host, path, digest = theirs["domain"], theirs["path"], theirs["digest"]
    port = re.search(r":([0-9]+)$", host)
    return (
        # A digest that nothing here can compute.
        (bool(digest) and not digest.startswith(("sha256:", "sha512:")))
        # No port, and one as no URL should have it.
        or (port is not None and (not 0 < int(port[1]) < 65536 or len(port[1]) > 5))
        # Their pattern takes any colons and digits for an IPv6 address.
        or host.startswith("[")
        # What should be a host and is none they take for a part of a path on no host.
        or not host
        # The registry counts, too: in a layout's folder and in annotations they are one.
        or len(host) + 1 + len(path) > MAX_NAME
    )


def test_as_the_distribution_project(others: Callable[[str, list[str]], list[Any]]) -> None:
    texts = [name(random.Random(number)) for number in range(FIRST, FIRST + ROUNDS)]
    taken = refused = only_theirs = 0
    for text, theirs in zip(texts, others("names", texts), strict=True):
        try:
            ours = parse_reference(text)
        except UsageError:
            refused += 1
            only_theirs += not theirs["error"]
            assert theirs["error"] or stricter(text, theirs), (text, theirs)
            continue
        taken += 1
        assert not theirs["error"], (text, ours, theirs)
        host = theirs["domain"]
        found = (ours.registry, ours.repository, ours.tag or "", ours.digest or "")
        assert found == (host, theirs["path"], theirs["tag"], theirs["digest"]), text
    assert taken > ROUNDS // 5 and refused > ROUNDS // 5 and 0 < only_theirs < ROUNDS // 10
