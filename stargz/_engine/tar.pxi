"""The entries of a tar. Part of write.pyx."""

import os


cdef extern from "tar/stream.h" nogil:
    ctypedef struct sgz_tar_text:
        const char *text
        size_t len

    ctypedef struct sgz_tar_entry:
        char type
        int64_t header
        int64_t records
        size_t records_len
        const char *name
        const char *link
        size_t name_len
        size_t link_len
        int64_t payload

    ctypedef struct sgz_tar_parser:
        pass

    ctypedef enum sgz_tar_event:
        SGZ_TAR_ENTRY
        SGZ_TAR_GLOBAL

    ctypedef struct sgz_tar_stream:
        sgz_tar_parser *parser
        int64_t pos
        int64_t start
        int64_t padding
        int zeros
        size_t block_len

    size_t SGZ_TAR_LONG_MAX
    sgz_tar_parser *sgz_tar_parser_new()
    void sgz_tar_parser_free(sgz_tar_parser *)
    void sgz_tar_take_any_type(sgz_tar_parser *)
    sgz_status sgz_tar_next_record(const char *, size_t, size_t *, sgz_tar_text *, sgz_tar_text *,
                                   int64_t, sgz_error *)
    sgz_status sgz_tar_stream_take(sgz_tar_stream *, const uint8_t *, size_t, size_t *,
                                   sgz_tar_event *, sgz_tar_entry *, sgz_error *)
    int64_t sgz_tar_stream_pass(sgz_tar_stream *, int64_t)
    sgz_status sgz_tar_stream_end(const sgz_tar_stream *, int, sgz_error *)

# Bytes read at once: the headers of a few small files, and little of a large one.
cdef enum:
    TAR_PIECE = 8192


cdef list _records(int fd, int64_t at, size_t size, str source):
    """(key, value) of the PAX records that stand there."""
    cdef sgz_error err
    cdef sgz_tar_text key, value
    cdef size_t pos = 0
    cdef bytes data = os.pread(fd, size, at)
    cdef list found = []
    while pos < <size_t>len(data):
        if sgz_tar_next_record(data, len(data), &pos, &key, &value, at, &err) != SGZ_OK:
            raise to_exception(&err, source)
        found.append((key.text[:key.len], value.text[:value.len]))
    return found


cdef class TarEntry:
    """One entry, from `start` to `end`: its last header block is at `header`, and its `size` bytes
    of payload are at `data`. `type` is b"0" for all regular files, b"S" for sparse ones.
    `shared` are the records of the PAX global headers before it."""

    cdef readonly bytes type, name, link
    cdef readonly int64_t start, header, data, size, end
    cdef readonly dict shared
    cdef int64_t records_at
    cdef size_t records_size

    def records(self, int fd):
        """The records of its own PAX header: sparse files repeat keys."""
        return _records(fd, self.records_at, self.records_size, "")


cdef class TarEntries:
    """The entries of the tar in a file of `size` bytes, one after the other; payloads are not
    read. Raises TarError for what is no tar, or with `any_type` unset no layer's."""

    cdef sgz_tar_stream tar
    cdef int fd
    cdef int64_t size
    cdef str source
    cdef dict shared
    cdef bytes piece            # what was read, from the position of the tar on
    cdef size_t at

    def __cinit__(self, int fd, int64_t size, str source, *, bint any_type=False):
        memset(&self.tar, 0, sizeof(self.tar))
        self.fd, self.size, self.source = fd, size, source
        self.shared = {}
        self.piece = b""
        self.tar.parser = sgz_tar_parser_new()
        if self.tar.parser == NULL:
            raise MemoryError
        if any_type:
            sgz_tar_take_any_type(self.tar.parser)

    def __dealloc__(self):
        sgz_tar_parser_free(self.tar.parser)

    def __iter__(self):
        return self

    def __next__(self):
        cdef sgz_error err
        cdef sgz_tar_entry entry
        cdef sgz_tar_event event
        cdef const uint8_t *data
        cdef size_t used, there
        cdef int64_t pos
        self.at += <size_t>sgz_tar_stream_pass(&self.tar, self.size - self.tar.pos)
        while self.tar.zeros < 2:
            there = <size_t>len(self.piece)
            if self.at >= there:
                pos = self.tar.pos + <int64_t>self.tar.block_len
                self.piece = os.pread(self.fd, min(TAR_PIECE, self.size - pos), pos)
                self.at, there = 0, <size_t>len(self.piece)
                if not there:
                    if sgz_tar_stream_end(&self.tar, 0, &err) != SGZ_OK:
                        raise to_exception(&err, self.source)
                    break
            data = self.piece
            if sgz_tar_stream_take(&self.tar, data + self.at, there - self.at, &used, &event,
                                   &entry, &err) != SGZ_OK:
                raise to_exception(&err, self.source)
            self.at += used
            if event == SGZ_TAR_ENTRY:
                return self._entry(&entry)
            if event == SGZ_TAR_GLOBAL:
                self._share(dict(_records(self.fd, entry.records, entry.records_len, self.source)))
        raise StopIteration

    cdef TarEntry _entry(self, const sgz_tar_entry *entry):
        cdef TarEntry found = TarEntry.__new__(TarEntry)
        found.type = (&entry.type)[:1]
        found.name = entry.name[:entry.name_len]
        found.link = entry.link[:entry.link_len]
        found.start, found.header, found.data = self.tar.start, entry.header, self.tar.pos
        found.size, found.end = entry.payload, self.tar.pos + entry.payload + self.tar.padding
        found.shared = self.shared
        found.records_at, found.records_size = entry.records, entry.records_len
        return found

    cdef _share(self, dict given):
        self.shared = {key: value for key, value in self.shared.items() if key not in given} | given
        self.shared.pop(b"comment", None)
        if sum(map(len, self.shared)) + sum(map(len, self.shared.values())) > SGZ_TAR_LONG_MAX:
            raise TarError("PAX global headers are over the limit of 1 MiB", self.source,
                           self.tar.start)
