"""The framing of answers (RFC 9112, sections 6 and 7), read more strictly than http.client does:
it takes whatever int() takes for the size of a chunk, and reads to the end of all for one of -1."""

from __future__ import annotations

import http.client
import re
from typing import Any, NoReturn

# A size of up to 60 bits. Extensions are for nobody, and nobody in use sends any.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_MAX_LINE = 4 << 10
_MAX_TRAILERS = 100  # lines, as many as http.client takes headers
_MAX_HEADS = 10  # of answers on the way to the one that counts (100 Continue)


class FramingError(http.client.HTTPException):
    """Where the answer ends cannot be told: it, and the connection, are of no use."""


class StrictResponse(http.client.HTTPResponse):
    """An answer of which never more is read than is asked for, whatever its framing says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._heads += 1
        if self._heads > _MAX_HEADS:
            raise FramingError(f"over {_MAX_HEADS} answers that say to wait")
        try:
            return super()._read_status()  # type: ignore[misc,no-any-return]
        except http.client.RemoteDisconnected:
            raise
        except http.client.BadStatusLine as error:
            line = str(error.args[0])
            if not line.endswith("\n"):  # it ended there
                raise
            self._refuse(f"{line[:40].strip()!r} for its first line")

    def begin(self) -> None:
        """Read the head. FramingError if it is none, or states no length that is one."""
        if self.headers is not None:
            return
        try:
            super().begin()
        except (FramingError, http.client.BadStatusLine):
            raise
        except http.client.LineTooLong:
            self._refuse("a line without end in its head")
        except http.client.UnknownProtocol as error:
            self._refuse(f"the unknown version {error.version[:20]!r}")
        except http.client.HTTPException:  # which has no other name
            self._refuse("headers without end")
        coding = ", ".join(self.headers.get_all("Transfer-Encoding", ())).strip().lower()
        lengths = ",".join(self.headers.get_all("Content-Length", ())).split(",")
        stated = {length.strip() for length in lengths}
        if coding not in ("", "identity", "chunked"):
            self._refuse(f"the Transfer-Encoding {coding[:40]!r}")
        if stated == {""}:
            return
        length = stated.pop()
        if stated or not re.fullmatch(r"[0-9]{1,18}", length):
            self._refuse(f"the Content-Length {','.join(lengths)[:40]!r}")
        if self.length is None and not self.chunked:
            self.length = int(length)  # one that is repeated

    def _get_chunk_left(self) -> int | None:
        # What all of http.client's reading of chunks asks for what is left of this one.
        if self.chunk_left:
            return self.chunk_left
        if self.chunk_left is not None and self._safe_read(2) != b"\r\n":  # type: ignore[attr-defined]
            self._refuse("a chunk longer than its size")
        line = self.fp.readline(_MAX_LINE)
        found = _CHUNK.fullmatch(line)
        if not found:
            size = line[:20].rstrip(b"\r\n").decode("latin-1")
            self._refuse(f"a chunk of the size {size!r}" if line else "no last chunk")
        self.chunk_left = int(found[1], 16) or None
        if self.chunk_left is None:
            self._skip_trailers()
            self._close_conn()  # type: ignore[attr-defined]
        return self.chunk_left

    def _skip_trailers(self) -> None:
        for _ in range(_MAX_TRAILERS + 1):
            if self.fp.readline(_MAX_LINE).rstrip(b"\r\n") == b"":
                return
        self._refuse("endless trailers")

    def _refuse(self, what: str) -> NoReturn:
        if self.fp is not None:
            self._close_conn()  # type: ignore[attr-defined]
        raise FramingError(what)
