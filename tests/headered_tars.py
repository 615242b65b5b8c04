"""Tars whose headers are at random what any writer might leave there, and what nobody would: each
has a name of its own, so that what readers see can be compared entry by entry."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from test_tar_doors import ABC, END, GNU, block, extended, octal, padded, pax, record, signed

USTAR, V7 = b"ustar\x0000", b""


@dataclass
class Made:
    """A tar, and what is odd in it."""

    blocks: list[bytes] = field(default_factory=list)  # headers and padded contents, by entry
    traits: set[str] = field(default_factory=set)
    end: bytes = END

    @property
    def tar(self) -> bytes:
        return b"".join(self.blocks) + self.end


class Maker:
    """One tar in the making."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.made = Made()
        self.number = 0
        self.files: list[str] = []

    def name(self, suffix: str = "") -> str:
        self.number += 1
        folder = self.rng.choice(("", "", "d/", "d/e/", "./", "x" * 60 + "/"))
        return f"{folder}n{self.number}{suffix}"

    def contents(self) -> bytes:
        size = self.rng.choice((0, 1, 3, 511, 512, 513, 1500))
        return self.rng.randbytes(size)

    def number_field(self, value: int, width: int) -> bytes:
        """A number in one of the forms that are in use."""
        form = self.rng.choice(("nul", "nul", "nul", "space", "full", "blanks", "binary"))
        digits = b"%0*o" % (width - 1, value)
        if form == "space":
            return digits + b" "
        if form == "full":
            return b"%0*o" % (width, value)
        if form == "blanks":
            return (b"%o" % value).rjust(width - 1) + b"\0"
        if form == "binary":
            return b"\x80" + value.to_bytes(width - 1, "big")
        return digits + b"\0"

    def add(self, *blocks: bytes, trait: str = "") -> None:
        self.made.blocks.append(b"".join(blocks))
        if trait:
            self.made.traits.add(trait)

    def header(
        self, name: str, size: int, kind: bytes = b"0", magic: bytes | None = None, **fields: bytes
    ) -> bytes:
        magic = self.rng.choice((USTAR, USTAR, GNU, V7)) if magic is None else magic
        more = {"a108": self.number_field(1000, 8), "a116": self.number_field(100, 8)}
        more |= {"a136": self.number_field(1_700_000_000, 12), "a100": b"0000644\0"}
        form = self.rng.choice((b"%06o\0 ", b"%06o\0 ", b" %6o\0", b"%07o\0"))
        sums = self.rng.choice((sum, sum, signed))
        return block(
            name.encode(), self.number_field(size, 12), kind, sum_of=sums, form=form, magic=magic,
            **(more | fields),
        )  # fmt: skip

    # --- what any writer leaves -----------------------------------------------------------------

    def file(self) -> None:
        name, body = self.name(), self.contents()
        self.files.append(name)
        self.add(self.header(name, len(body)), padded(body))

    def directory(self) -> None:
        self.add(self.header(self.name("/"), 0, b"5"))

    def symlink(self) -> None:
        target = self.rng.choice((b"n1", b"../n1", b"/abs", b"t" * 100))
        self.add(self.header(self.name(), 0, b"2", a157=target))

    def hard_link(self) -> None:
        if not self.files:
            self.file()
        if self.files:
            target = self.rng.choice(self.files).encode()
            self.add(self.header(self.name(), 0, b"1", a157=target))

    def device(self) -> None:
        kind = self.rng.choice((b"3", b"4", b"6"))
        places = {"a329": b"0000001\0", "a337": b"0000003\0"}
        self.add(self.header(self.name(), 0, kind, **places))

    def long_name(self) -> None:
        name, body = self.name("-" + "long" * 40), self.contents()
        name = name[:240]
        head = extended(b"L", name.encode() + b"\0") if self.rng.random() < 0.5 else pax(path=name)
        self.add(head, self.header(name[:100], len(body)), padded(body))

    def long_target(self) -> None:
        target = "t" * 180
        long = extended(b"K", target.encode() + b"\0")
        head = long if self.rng.random() < 0.5 else pax(linkpath=target)
        self.add(head, self.header(self.name(), 0, b"2", a157=target[:100].encode()))

    def prefix(self) -> None:
        name, body = self.name(), self.contents()
        self.add(
            block(name.encode(), octal(len(body)), magic=USTAR, a345=b"some/where"), padded(body)
        )

    def records(self) -> None:
        body, name = self.contents(), self.name()
        found = {"mtime": "1700000000.25", "uid": 1 << 20, "comment": "c", "LIBARCHIVE.x": "y"}
        found |= {"SCHILY.xattr.user.a": "v", "size": len(body)}
        keys = self.rng.sample(sorted(found), self.rng.randint(1, len(found)))
        text = b"".join(record(key, str(found[key])) for key in keys)
        self.add(extended(b"x", text), self.header(name, len(body)), padded(body))

    def sparse(self) -> None:
        name, body = self.name(), b"data" * 3
        hole, size = self.rng.choice(((512, 4096), (0, 9000), (1024, 1036)))
        form = self.rng.choice(("old", "0.0", "0.1", "1.0"))
        runs = [hole, len(body)]
        if self.rng.random() < 0.8:
            runs += [size, 0]  # as GNU tar ends every map
        elif size > hole + len(body):
            self.made.traits.add("a sparse map without its end")
        if form == "old":
            head = block(
                name.encode(), octal(len(body)), b"S", magic=GNU,
                a386=b"".join(map(octal, runs)), a483=octal(size),
            )  # fmt: skip
            self.add(head, padded(body))
            return
        keys: list[tuple[str, object]] = [("GNU.sparse.size", size)]
        keys.append(("GNU.sparse.numblocks", len(runs) // 2))
        if form == "0.0":
            names = ("GNU.sparse.offset", "GNU.sparse.numbytes") * (len(runs) // 2)
            keys += zip(names, runs, strict=True)
        elif form == "0.1":
            keys.append(("GNU.sparse.map", ",".join(map(str, runs))))
        else:
            keys = [("GNU.sparse.major", 1), ("GNU.sparse.minor", 0), ("GNU.sparse.name", name)]
            keys.append(("GNU.sparse.realsize", size))
            body = padded(b"".join(b"%d\n" % n for n in (len(runs) // 2, *runs))) + body
        text = b"".join(record(key, str(value)) for key, value in keys)
        self.add(extended(b"x", text), self.header(name, len(body), magic=USTAR), padded(body))

    def global_comment(self) -> None:
        self.add(extended(b"g", record("comment", "c")))
        self.file()  # or Python says that something is missing

    def contiguous(self) -> None:
        body = self.contents()
        self.add(self.header(self.name(), len(body), b"7"), padded(body))

    def old_file(self) -> None:
        body = self.contents()
        self.add(self.header(self.name(), len(body), b"\0"), padded(body))

    def old_directory(self) -> None:
        self.add(block(self.name("/").encode(), octal(0), b"\0", magic=V7))

    # --- what nobody should ---------------------------------------------------------------------

    def odd(self) -> None:
        trait = self.rng.choice(sorted(ODD))
        name, body = self.name(), self.contents()
        self.add(ODD[trait](self, name.encode(), body), trait=trait)

    def mutate(self) -> None:
        """A block is lost, comes twice or elsewhere, or has another byte where a header may."""
        blocks = b"".join(self.made.blocks)
        count = len(blocks) // 512
        found = [blocks[n * 512 : (n + 1) * 512] for n in range(count)]
        at = self.rng.randrange(count)
        change = self.rng.choice(("lose", "twice", "move", "zeros", "byte", "byte", "byte", "cut"))
        if change == "lose":
            del found[at]
        elif change == "twice":
            found.insert(at, found[at])
        elif change == "move":
            found.insert(self.rng.randrange(count), found.pop(at))
        elif change == "zeros":
            found[at] = bytes(512)
        elif change == "byte":
            header = bytearray(found[at])
            place = self.rng.choice((0, 99, 100, 108, 124, 135, 135, 156, 156, 157, 257, 263, 345))
            header[place + self.rng.randrange(2)] = self.rng.choice(b"\0 0179xLKgS5/\x80\xff")
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            found[at] = bytes(header)
            if place == 156 and header[:100].rstrip(b"\0").endswith(b"/"):
                self.made.traits.add("another type, with a slash behind the name")
            if place in (257, 263, 345):
                self.made.traits.add("another magic, or a prefix where there was none")
        else:
            found = found[:at]
        self.made.blocks = found
        self.made.traits.add(f"mutated: {change}")
        self.made.end = self.rng.choice((END, END, b"", bytes(512)))


def _plain(name: bytes, body: bytes, **fields: bytes) -> bytes:
    return block(name, octal(len(body)), **fields) + padded(body)


def _two_names(maker: Maker, name: bytes, body: bytes) -> bytes:
    return pax(path="other") + extended(b"L", name + b"\0") + _plain(b"x", body)


# What readers take differently, by what it is.
ODD: dict[str, Callable[[Maker, bytes, bytes], bytes]] = {
    "a sparse map in PAX records before a GNU header": lambda maker, name, body: (
        pax(**{"GNU.sparse.size": 9, "GNU.sparse.map": "2,3,9,0"}) + block(name, magic=GNU) + ABC
    ),
    "a prefix in a GNU header": lambda maker, name, body: _plain(
        name, body, magic=GNU, a345=b"some/where"
    ),
    "two PAX headers": lambda maker, name, body: (
        pax(path="a") + pax(path=name.decode()) + _plain(b"x", body)
    ),
    "the second of two PAX headers without the name": lambda maker, name, body: (
        pax(path="a") + pax(uid=5) + _plain(name, body)
    ),
    "two GNU names": lambda maker, name, body: (
        extended(b"L", b"a\0") + extended(b"L", name + b"\0") + _plain(b"x", body)
    ),
    "a PAX name and a GNU name": _two_names,
    "an empty PAX name": lambda maker, name, body: pax(path="") + _plain(name, body),
    "a directory with a size": lambda maker, name, body: block(name, octal(1024), b"5"),
    "a symlink with a size": lambda maker, name, body: block(name, octal(1024), b"2", a157=b"to"),
    "a hard link with a size": lambda maker, name, body: (
        _plain(name + b"-t", body) + block(name, octal(len(body)), b"1", a157=name + b"-t")
    ),
    "a file with a slash": lambda maker, name, body: _plain(name + b"/", body),
    "an unknown type": lambda maker, name, body: _plain(name, body, kind=b"Q"),
    "a volume label": lambda maker, name, body: block(name, octal(0), b"V"),
    "Solaris' PAX header": lambda maker, name, body: (
        extended(b"X", record("path", name.decode())) + _plain(b"x", body)
    ),
    "a global path": lambda maker, name, body: (
        extended(b"g", record("path", "all")) + _plain(name, body) + extended(b"g", b"")
    ),
    "a PAX size that differs": lambda maker, name, body: (
        pax(size=len(body)) + block(name, octal(9999)) + padded(body)
    ),
    "a star prefix": lambda maker, name, body: _plain(
        name, body, a345=b"p" * 130 + b"\0", a508=b"tar\0"
    ),
    "no number for a mode": lambda maker, name, body: _plain(name, body, a100=b"zzzzzzz\0"),
    "no number for a time": lambda maker, name, body: _plain(name, body, a136=b"zzzz\0"),
    "a time before 1970": lambda maker, name, body: _plain(name, body, a136=b"\xff" * 12),
    "an owner of 33 bits": lambda maker, name, body: pax(uid=1 << 32) + _plain(name, body),
    "a record that is none": lambda maker, name, body: (
        extended(b"x", b"99 path=x\n") + _plain(name, body)
    ),
    "a NUL in a PAX name": lambda maker, name, body: pax(path="p\0q") + _plain(name, body),
}

ORDINARY: tuple[Callable[[Maker], None], ...] = (
    *(Maker.file, Maker.file, Maker.directory, Maker.symlink, Maker.hard_link, Maker.device),
    *(Maker.long_name, Maker.long_target, Maker.prefix, Maker.records, Maker.sparse),
    *(Maker.global_comment, Maker.contiguous, Maker.old_file, Maker.old_directory),
)


def headered_tar(seed: int) -> Made:
    """A third of them is ordinary, a third has something odd, and a third is mutated."""
    rng = random.Random(seed)
    maker = Maker(rng)
    for _ in range(rng.randint(1, 8)):
        rng.choice(ORDINARY)(maker)
    if seed % 3 == 1:
        maker.odd()
        maker.file()
    elif seed % 3 == 2:
        maker.mutate()
    return maker.made
