"""Tars at random, whose entries get in each other's way: a few names, used for everything."""

from __future__ import annotations

import io
import random
import tarfile

_PARTS = ("a", "b", "c")
_KINDS = {
    tarfile.REGTYPE: 9,
    tarfile.DIRTYPE: 6,
    tarfile.SYMTYPE: 4,
    tarfile.LNKTYPE: 6,
    tarfile.FIFOTYPE: 1,
    tarfile.CHRTYPE: 1,
}
_HOLES = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}


def _path(rng: random.Random) -> str:
    return "/".join(rng.choice(_PARTS) for _ in range(rng.choice((1, 1, 2, 2, 3))))


def _name(rng: random.Random, seen: list[str]) -> str:
    name = rng.choice(seen) if seen and rng.random() < 0.4 else _path(rng)
    if seen and rng.random() < 0.3:
        name = f"{rng.choice(seen)}/{rng.choice(_PARTS)}"
    if rng.random() < 0.06:
        folder, _, base = name.rpartition("/")
        base = rng.choice((f".wh.{base}", ".wh..wh..opq"))
        name = f"{folder}/{base}" if folder else base
    if rng.random() < 0.12:
        name = rng.choice(("./{}", "/{}", "../{}", "{}/.", "x/../{}", ".//{}", "{}/")).format(name)
    if rng.random() < 0.02:
        name = rng.choice(("", "/", ".", "..", "./"))
    if rng.random() < 0.04:
        name += "-" + "long" * rng.choice((20, 40, 60))
    return name


def _target(rng: random.Random, kind: bytes, seen: list[str]) -> str:
    name = rng.choice(seen) if seen and rng.random() < 0.85 else _path(rng)
    if kind == tarfile.SYMTYPE and rng.random() < 0.6:
        return rng.choice(("{}", "/{}", "../{}", "{}/..", ".", "../../{}")).format(name)
    return rng.choice(("{}", "{}", "./{}", "/{}")).format(name)


def _sparse(info: tarfile.TarInfo, rng: random.Random) -> bytes:
    size, data = rng.randrange(1, 9000), b"data"
    start = rng.randrange(size)
    data = data[: size - start]
    info.pax_headers |= _HOLES | {"GNU.sparse.name": info.name, "GNU.sparse.realsize": str(size)}
    return (b"1\n%d\n%d\n" % (start, len(data))).ljust(512, b"\0") + data


def mutated_tar(seed: int) -> bytes:
    rng = random.Random(seed)
    out, seen = io.BytesIO(), list[str]()
    if rng.random() < 0.1:
        out.write(tarfile.TarInfo.create_pax_global_header({"SCHILY.xattr.user.g": "1"}))
    for number in range(rng.randrange(1, 14)):
        kind = rng.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
        info = tarfile.TarInfo(_name(rng, seen))
        info.type = kind
        info.mode = rng.choice((0o644, 0o755, 0o600, 0o4755, 0o1777, 0, 0o100644))
        info.mtime = rng.choice((0, 1, 1_700_000_000, 1_700_000_000.5, 1 << 33))
        info.uid, info.gid = rng.choice(((0, 0), (1000, 100), (1 << 21, 1 << 30)))
        info.uname = rng.choice(("", "root", "ann"))
        body = b""
        form = rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info.linkname = _target(rng, kind, seen)
        elif kind == tarfile.REGTYPE and rng.random() < 0.08:
            body, form = _sparse(info, rng), tarfile.PAX_FORMAT
        elif kind == tarfile.REGTYPE and rng.random() < 0.8:
            body = b"%d " % number * rng.choice((1, 1, 300))
        info.size = len(body)
        if form == tarfile.GNU_FORMAT:
            info.mtime = int(info.mtime)
        out.write(info.tobuf(form, "utf-8", "surrogateescape"))
        out.write(body.ljust(-(-len(body) // 512) * 512, b"\0"))
        seen.append(info.name.strip("/") or "a")
    out.write(bytes(1024))
    tar = out.getvalue()
    if rng.random() < 0.03:
        tar = tar[: rng.randrange(len(tar))]
    return tar
