"""One fixed input of a few MB, the same bytes everywhere: what the pinned digests are of."""

from __future__ import annotations

import hashlib
import io
import tarfile

INPUT_SHA256 = "93c35a68470a4ebb5da891e797c29d163a03261cec74980ceb297bd85eb1a6d6"


def noise(label: str, size: int) -> bytes:
    return hashlib.shake_128(label.encode()).digest(size)


def text(label: str, size: int) -> bytes:
    """Compressible: words of a small vocabulary, in an order without a period."""
    words = [noise(f"{label}/{n}", 2 + n % 7).hex().encode() for n in range(200)]
    out, length = [], 0
    for pick in noise(f"{label}/order", size // 4 + 1):
        word = words[pick % 200]
        out.append(word)
        length += len(word) + 1
        if length > size:
            break
    return b" ".join(out)[:size].ljust(size, b".")


def tar_bytes() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:

        def add(
            name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
        ) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            info.mode, info.mtime = 0o644, 1_700_000_000
            tar.addfile(info, io.BytesIO(content))

        add("usr/", kind=tarfile.DIRTYPE)
        add("usr/" + "long" * 40, b"under a long name")
        for size in (1, 511, 512, 513, 65535, 65536, 65537, 200_000):
            add(f"usr/text-{size}", text(f"text {size}", size))
            add(f"usr/noise-{size}", noise(f"noise {size}", size))
            add(f"usr/zeros-{size}", bytes(size))
        for n in range(300):
            add(f"usr/small-{n:03}", text(f"small {n}", 40 + 7 * n))
        for n in range(200):
            add(f"usr/empty-{n:03}")
        add("usr/hard", kind=tarfile.LNKTYPE, link="usr/small-000")
        add("usr/soft", kind=tarfile.SYMTYPE, link="small-001")
        add("usr/large", text("large", 2_500_000) + noise("large", 100_000) + bytes(1_000_000))
    return out.getvalue()
