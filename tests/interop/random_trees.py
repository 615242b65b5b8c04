"""Random tars, the same for the same seed on every Python version."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

_SIZES = (0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, 30_000, 100_000)


class Stream:
    """A deterministic stream of numbers and bytes (SHAKE-128 of a counter)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.count = 0

    def data(self, size: int) -> bytes:
        self.count += 1
        return hashlib.shake_128(f"{self.seed}/{self.count}".encode()).digest(size)

    def below(self, limit: int) -> int:
        return int.from_bytes(self.data(8)) % limit

    def content(self, size: int) -> bytes:
        """Zeros, text of a small alphabet, or noise."""
        kind = self.below(3)
        if kind == 0:
            return bytes(size)
        if kind == 1:
            words = [self.data(1 + self.below(9)).hex().encode() for _ in range(50)]
            text = b" ".join(words[b % 50] for b in self.data(size // 3 + 1))
            return (text * (size // max(len(text), 1) + 1))[:size]
        return self.data(size)


def random_tar(path: Path, seed: int, entries: int = 60) -> dict[str, str]:
    """Write a tar of every entry type; return the sha256 of each regular file by name."""
    rng = Stream(seed)
    form = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)[seed % 2]
    digests: dict[str, str] = {}
    dirs = [""]
    with tarfile.open(path, "w", format=form) as tar:

        def add(name: str, kind: bytes, content: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = (0o644, 0o755, 0o4755, 0o600)[rng.below(4)]
            info.mtime = rng.below(2_000_000_000)
            info.uid, info.gid = rng.below(3), rng.below(3)
            info.uname, info.gname = ("root", "", "user")[info.uid], ("root", "", "users")[info.gid]
            info.linkname = link
            info.size = len(content)
            if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = rng.below(200), rng.below(200)
            if form == tarfile.PAX_FORMAT and rng.below(5) == 0:
                info.pax_headers = {"SCHILY.xattr.user.note": f"value {rng.below(100)}"}
            tar.addfile(info, io.BytesIO(content))

        for n in range(entries):
            long = "x" * 120 if rng.below(10) == 0 else ""
            name = f"{dirs[rng.below(len(dirs))]}entry{n}é{long}"
            kind = rng.below(12)
            files = sorted(digests)
            if kind == 0:
                add(name, tarfile.DIRTYPE)
                dirs.append(f"{name}/")
            elif kind == 1:
                add(name, tarfile.SYMTYPE, link="../somewhere/else")
            elif kind == 2 and files:
                target = files[rng.below(len(files))]
                add(name, tarfile.LNKTYPE, link=target)
                digests[name] = digests[target]
            elif kind == 3:
                special = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
                add(name, special[rng.below(3)])
            else:
                content = rng.content(_SIZES[rng.below(len(_SIZES))])
                add(name, tarfile.REGTYPE, content)
                digests[name] = hashlib.sha256(content).hexdigest()
    return digests
