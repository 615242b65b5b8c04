"""Random trees with all that layers have, as tars by Python and by GNU tar; the same for the same
seed."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from random_trees import Stream

_SIZES = (0, 1, 511, 512, 513, 1024, 4096, 30_000, 65_536, 300_000)
_NAMES = (
    "é",
    " q\"\\'",
    "<&>",
    "%2e",
    "\u2028",
    "\x01",
    "-",
    "~",
    "😀",
    ".wh",
    "l" * 110,
    "m" * 240,
)
_TIMES = (0, 1, -1_500_000_000, 1_700_000_000_000_000_000, 1_234_567_890_123_456_789)
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


@dataclass
class Item:
    """What there is under a name; of kind 0 a hard link."""

    name: str
    kind: int
    mode: int = 0o644
    content: bytes = b""
    link: str = ""
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)


def mixture(rng: Stream, size: int) -> bytes:
    """Noise, text, and runs of zeros about as long as make chunks of their own."""
    out = bytearray()
    while len(out) < size:
        length = (1, 60, 1023, 1024, 1025, 5000, 70_000)[rng.below(7)]
        if rng.below(3) == 0:
            out += bytes(length)
        else:
            out += rng.content(length * (1 + rng.below(4)))
    return bytes(out[:size])


def tree(seed: int, count: int = 40) -> list[Item]:
    """Directories come before what is in them, and files before their links."""
    rng = Stream(seed)
    items: list[Item] = []
    folders = [""]
    files: list[Item] = []

    for number in range(count):
        name = f"{folders[rng.below(len(folders))]}{number}{_NAMES[rng.below(len(_NAMES))]}"
        made = Item(name, stat.S_IFREG, (0o644, 0o755, 0o4755, 0o2600, 0o444)[rng.below(5)])
        made.mtime_ns = _TIMES[rng.below(len(_TIMES))] + rng.below(2) * rng.below(10**9)
        made.uid, made.gid = rng.below(3) * 1000, (0, 5, 3_000_000)[rng.below(3)]
        kind = rng.below(12)
        if kind < 2:
            made.kind, made.mode = stat.S_IFDIR, (0o755, 0o1777, 0o700)[rng.below(3)]
            if len(name) < 2000:
                folders.append(f"{name}/")
        elif kind == 2:
            made.kind, made.mode = stat.S_IFLNK, 0o777
            made.link = ("../x", "/abs/é", "n" * 150)[rng.below(3)]
        elif kind == 3 and files:
            # Its header says the same as that of the file, of which it is another name.
            file = files[rng.below(len(files))]
            made = replace(file, name=name, kind=0, content=b"", link=file.name, xattrs={})
        elif kind == 4:
            made.kind = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO)[rng.below(3)]
            if made.kind != stat.S_IFIFO:
                made.device = rng.below(4096), rng.below(1 << 20)
        else:
            made.content = mixture(rng, _SIZES[rng.below(len(_SIZES))])
            files.append(made)
            if rng.below(4) == 0:
                made.xattrs = {"user.é": b"\1\xff\n=", "user.b": rng.data(40).hex().encode()}
        items.append(made)
    return items


def python_tar(path: Path, items: list[Item], form: int) -> None:
    """By tarfile: PAX_FORMAT or GNU_FORMAT, of which only the first has fractions and xattrs."""
    with tarfile.open(path, "w", format=form) as tar:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type = _KINDS.get(item.kind, tarfile.LNKTYPE)
            info.mode, info.uid, info.gid = item.mode, item.uid, item.gid
            info.uname, info.gname = ("root", "", "user")[item.uid // 1000], ""
            info.linkname, info.size = item.link, len(item.content)
            info.mtime = item.mtime_ns // 10**9
            info.devmajor, info.devminor = item.device
            if form == tarfile.PAX_FORMAT:
                whole, part = divmod(abs(item.mtime_ns), 10**9)
                sign = "-" if item.mtime_ns < 0 else ""
                # The header is left with the epoch, as Python does for what a record has.
                info.pax_headers = {"mtime": f"{sign}{whole}.{part:09}"} if part else {}
                for key, value in item.xattrs.items():
                    info.pax_headers[f"SCHILY.xattr.{key}"] = os.fsdecode(value)
            tar.addfile(info, io.BytesIO(item.content))


def gnu_tar(tool: Callable[[str], str], path: Path, items: list[Item], form: str) -> None:
    """By GNU tar, of a real directory: "posix" or "gnu"."""
    folder = path.with_name(f"{path.name}.tree")
    folder.mkdir()
    for item in items:
        where = folder / item.name
        if not item.kind:
            where.hardlink_to(folder / item.link)
            continue
        if item.kind == stat.S_IFDIR:
            where.mkdir()
        elif item.kind == stat.S_IFLNK:
            where.symlink_to(item.link)
        elif item.kind == stat.S_IFREG:
            where.write_bytes(item.content)
        else:
            os.mknod(where, item.kind, os.makedev(*item.device))
        os.chown(where, item.uid, item.gid, follow_symlinks=False)
        if item.kind != stat.S_IFLNK:
            where.chmod(item.mode)
        for key, value in item.xattrs.items():
            os.setxattr(where, key, value)
    for item in reversed(items):
        times = (item.mtime_ns, item.mtime_ns)
        os.utime(folder / item.name, ns=times, follow_symlinks=False)
    xattrs = ["--xattrs"] if form == "posix" else []
    command = [tool("tar"), f"--format={form}", *xattrs, "-C", folder, "-cf", path, "."]
    subprocess.run(command, check=True)


def extracted(tool: Callable[[str], str], tar: Path, folder: Path) -> Path:
    """What GNU tar makes of a tar."""
    folder.mkdir()
    # Directories in any order, and times that it would warn of.
    command = [tool("tar"), "--delay-directory-restore", "--warning=none", "--xattrs"]
    subprocess.run([*command, "--xattrs-include=*", "-C", folder, "-xpf", tar], check=True)
    return folder
