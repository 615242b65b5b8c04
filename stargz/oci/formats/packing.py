"""How archives are compressed, by their first bytes: as `docker load` takes them.

The engine inflates gzip and zstd by itself; xz and bzip2, which no layer of a registry has, are
unpacked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, cast, get_args

from stargz.compressions import compression
from stargz.errors import CodecError, FormatError

Packing = Literal["gzip", "zstd", "xz", "bzip2"]

_MAX_MEMORY = 512 << 20  # that xz may ask for: `xz -9` needs 65 MiB
_PIECE = 1 << 20


def packing(head: bytes) -> Packing | None:
    """What the first HEAD bytes of a file say; None for what nothing here can unpack."""
    found = compression(head)
    return cast(Packing, found) if found in get_args(Packing) else None


def unpacked(
    read: Callable[[int], bytes], kind: Literal["xz", "bzip2"], name: str
) -> Callable[[int], bytes]:
    """A read(n) of what is in an xz or bzip2 file of any number of streams. `name` is what errors
    call it: FormatError for what is corrupt or cut short, or needs more than 512 MiB."""
    pieces = _pieces(read, kind, name)
    left = b""

    def read_on(size: int) -> bytes:
        nonlocal left
        piece = left or next(pieces, b"")
        left = piece[size:]
        return piece[:size]

    return read_on


def _pieces(read: Callable[[int], bytes], kind: str, name: str) -> Iterator[bytes]:
    begin = _decoder(kind)
    decoder = begin()
    data = read(_PIECE)
    while True:
        try:
            piece = decoder.decompress(data, _PIECE)
        except (ValueError, OSError, EOFError, MemoryError) as error:
            raise FormatError(
                f"corrupt {kind} data ({error or type(error).__name__})", name
            ) from None
        except Exception as error:  # lzma.LZMAError
            why = str(error)
            if "emory" in why:
                why = f"it needs more memory than {_MAX_MEMORY >> 20} MiB"
            raise FormatError(f"corrupt {kind} data ({why})", name) from None
        if piece:
            yield piece
        data = b""
        if decoder.eof:
            data = decoder.unused_data or read(_PIECE)
            while kind == "xz" and data and not (data := data.lstrip(b"\0")):  # stream padding
                data = read(_PIECE)
            if not data:
                return
            decoder = begin()
        elif decoder.needs_input:
            data = read(_PIECE)
            if not data:
                raise FormatError(f"truncated {kind} data", name)


def _decoder(kind: str) -> Callable[[], Any]:
    try:
        if kind == "bzip2":
            import bz2

            return bz2.BZ2Decompressor
        import lzma

        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_MEMORY)
    except ImportError:
        raise CodecError(
            f"this Python was built without {kind}; unpack the archive first"
        ) from None
