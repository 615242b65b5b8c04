"""Packing a directory. Part of write.pyx."""

from libc.stdint cimport INT64_MAX, INT64_MIN, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcmp, memcpy

import os


cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec

    enum:
        CLOCK_REALTIME_COARSE

    int clock_gettime(int, timespec *)

cdef extern from "toc/rows.h" nogil:
    int sgz_toc_rows_marker(const char *, size_t)

cdef extern from "pack/pattern.h" nogil:
    ctypedef struct sgz_pack_pattern_state:
        uint8_t kind
        uint32_t skip
        uint32_t ranges
        uint32_t count

    ctypedef struct sgz_pack_pattern:
        sgz_pack_pattern_state *states
        uint32_t count
        const uint32_t *ranges
        const uint32_t *starts
        uint32_t start_count

    sgz_status sgz_pack_pattern_init(sgz_pack_pattern *, uint32_t, sgz_error *)
    void sgz_pack_pattern_free(sgz_pack_pattern *)
    int sgz_pack_pattern_match(const sgz_pack_pattern *, const uint32_t *, size_t)

cdef extern from "Python.h":
    uint32_t *PyUnicode_AsUCS4(object, uint32_t *, Py_ssize_t, int) except NULL

cdef extern from "pack/pack.h" nogil:
    ctypedef struct sgz_pack_walk:
        size_t count
        uint64_t sockets
        char first_socket[256]

    ctypedef struct sgz_pack_walk_entry:
        pass

    ctypedef struct sgz_pack_walk_options:
        int threads
        int one_file_system
        int (*ignore)(void *, const char *, size_t, int)
        uint32_t (*known)(void *, const sgz_pack_walk_entry *, const char *)
        void *ignore_arg
        void *known_arg

    ctypedef struct sgz_pack_walk_state:
        pass

    sgz_status sgz_pack_walk_start(sgz_pack_walk_state **, sgz_base_job *, int,
                                   const sgz_pack_walk_options *, sgz_error *)
    sgz_status sgz_pack_walk_finish(sgz_pack_walk_state *, sgz_pack_walk *, sgz_error *)
    void sgz_pack_walk_free(sgz_pack_walk *)
    ctypedef struct sgz_pack_manifest_options:
        int level
        int landmarks
        int64_t chunk_size
        int64_t owner
        int64_t group
        int64_t mtime
        int64_t mtime_max
        char engine[64]

    ctypedef struct sgz_pack_manifest:
        sgz_pack_manifest_options options
        int64_t walked_at
        int64_t blob_size
        int64_t toc_offset
        uint8_t tail_digest[32]

    sgz_status sgz_pack_manifest_load(sgz_pack_manifest *, const sgz_codecs *, int, sgz_error *)
    sgz_status sgz_pack_manifest_save(const sgz_pack_manifest *, const sgz_codecs *, int,
                                      sgz_error *)
    void sgz_pack_manifest_free(sgz_pack_manifest *)
    uint32_t sgz_pack_manifest_known(void *, const sgz_pack_walk_entry *, const char *)

    ctypedef struct sgz_pack_options:
        sgz_pack_manifest_options bytes
        int diff_id
        const sgz_pack_manifest *base
        int base_fd

    ctypedef struct sgz_pack_counts:
        uint64_t read_files
        uint64_t reused_files
        int64_t reused_bytes
        uint64_t damaged
        uint64_t changed
        int64_t source_bytes

    ctypedef struct sgz_pack:
        pass

    sgz_pack *sgz_pack_new(const sgz_codecs *, int, sgz_pack_walk *, sgz_toc *,
                           const sgz_pack_options *, sgz_error *)
    void sgz_pack_free(sgz_pack *)
    const sgz_write_filler *sgz_pack_filler(sgz_pack *)
    void sgz_pack_count(sgz_pack *, sgz_pack_counts *)
    void sgz_pack_describe(sgz_pack *, const sgz_write_result *, sgz_pack_manifest *)
    const char *sgz_pack_changed(const sgz_pack *, size_t, size_t *, int *)

cdef class Manifest:
    """What an earlier layer was made of, read from a descriptor at its begin."""

    cdef sgz_pack_manifest manifest

    def __cinit__(self):
        memset(&self.manifest, 0, sizeof(self.manifest))

    def __dealloc__(self):
        sgz_pack_manifest_free(&self.manifest)

    def __init__(self, int fd, str name):
        cdef sgz_error err
        cdef sgz_status status
        cdef const sgz_codecs *codecs = table()
        with nogil:
            status = sgz_pack_manifest_load(&self.manifest, codecs, fd, &err)
        if status != SGZ_OK:
            raise to_exception(&err, name)

    @property
    def blob(self):
        """Of the layer: its size, its TOC's offset, and the sha256 of all from there on."""
        cdef const uint8_t *digest = self.manifest.tail_digest
        return self.manifest.blob_size, self.manifest.toc_offset, digest[:32]


# What a walk leaves out, beside what `call` says: some names, and an earlier layer's own files.
cdef struct skip_list:
    const char **names
    size_t *lens
    char *seen
    size_t count
    char reserved[3][49]        # names that are a layer's own, as far as they were met
    size_t reserved_count
    void *call                  # a Callback, or NULL


# --- patterns -------------------------------------------------------------------------------

cdef class Pattern:
    """A pattern for names, as a row of states: (kind, skip, ranges of characters); `starts` are
    the numbers of those where a match may begin. csrc/pack/pattern.h says what they mean."""

    cdef sgz_pack_pattern pattern
    cdef uint32_t *numbers      # ranges, then starts
    cdef uint32_t *name
    cdef Py_ssize_t room        # of name, in characters

    def __cinit__(self, list states not None, list starts not None):
        cdef sgz_error err
        cdef dict seen = {}
        cdef list flat = []
        cdef size_t i
        for _, _, ranges in states:
            if ranges not in seen:
                seen[ranges] = len(flat) // 2
                for both in ranges:
                    flat += both
        self.pattern.states = <sgz_pack_pattern_state *>calloc(len(states) + 1,
                                                               sizeof(sgz_pack_pattern_state))
        self.numbers = <uint32_t *>calloc(len(flat) + len(starts) + 1, sizeof(uint32_t))
        if self.pattern.states == NULL or self.numbers == NULL:
            raise MemoryError
        for i, (kind, skip, ranges) in enumerate(states):
            self.pattern.states[i].kind = kind
            self.pattern.states[i].skip = skip
            self.pattern.states[i].ranges = seen[ranges]
            self.pattern.states[i].count = len(ranges)
        for i, number in enumerate(flat + starts):
            self.numbers[i] = number
        self.pattern.count = len(states)
        self.pattern.ranges = self.numbers
        self.pattern.starts = self.numbers + len(flat)
        self.pattern.start_count = len(starts)
        if sgz_pack_pattern_init(&self.pattern, len(flat) // 2, &err) != SGZ_OK:
            raise to_exception(&err, "")

    def __dealloc__(self):
        sgz_pack_pattern_free(&self.pattern)
        free(self.pattern.states)
        free(self.numbers)
        free(self.name)

    def match(self, str name not None):
        """Whether it matches a name."""
        cdef Py_ssize_t size = len(name)
        if size >= self.room:
            free(self.name)
            self.room = 0
            self.name = <uint32_t *>malloc((2 * size + 1) * sizeof(uint32_t))
            if self.name == NULL:
                raise MemoryError
            self.room = 2 * size + 1
        if size:
            PyUnicode_AsUCS4(name, self.name, size, 0)
        return sgz_pack_pattern_match(&self.pattern, self.name, size) != 0


cdef int _ignore(void *arg, const char *name, size_t size, int is_dir) noexcept nogil:
    cdef skip_list *skip = <skip_list *>arg
    cdef size_t i
    cdef int verdict = 0
    if sgz_toc_rows_marker(name, size):
        if skip.call != NULL:
            with gil:
                verdict = _ask(<Callback>skip.call, name[:size], is_dir)
        if verdict == 0 and skip.reserved_count < 3:
            memcpy(skip.reserved[skip.reserved_count], name, size)
            skip.reserved_count += 1
        return -1 if verdict < 0 else 2
    for i in range(skip.count):
        if skip.lens[i] == size and memcmp(skip.names[i], name, size) == 0:
            skip.seen[i] = 1
            return 2
    if skip.call == NULL:
        return 0
    with gil:
        return _ask(<Callback>skip.call, name[:size], is_dir)


cdef int _ask(Callback ignore, bytes name, bint is_dir) noexcept:
    try:
        return ignore.call(name, is_dir)
    except BaseException as error:
        ignore.error = error
        return -1


cdef class Packing:
    """One pack: `walk`, then `run`, each once; then its manifest may be saved.

    `root` is the descriptor of the directory. owner and group are -1 for those of the files;
    mtime is None for theirs, mtime_max None for no limit.
    """

    cdef sgz_pack_options options
    cdef sgz_write_options convert
    cdef sgz_write_result result
    cdef sgz_pack_walk found
    cdef sgz_pack *packer
    cdef sgz_toc *toc
    cdef int root
    cdef int64_t walked_at
    cdef Manifest base
    cdef str name
    cdef object progress

    def __cinit__(self):
        memset(&self.options, 0, sizeof(self.options))
        memset(&self.convert, 0, sizeof(self.convert))
        memset(&self.found, 0, sizeof(self.found))
        self.packer = NULL
        self.toc = NULL

    def __dealloc__(self):
        sgz_pack_free(self.packer)
        sgz_pack_walk_free(&self.found)
        sgz_toc_free(self.toc)

    def __init__(self, int root, str name, *, int level, int64_t chunk_size, int64_t owner,
                 int64_t group, mtime, mtime_max, str engine, bint diff_id, int threads,
                 progress):
        cdef bytes text = engine.encode()[:63]
        if level > 2:
            need("libdeflate")
        self.root = root
        self.name = name
        self.progress = progress
        self.options.bytes.level = self.convert.level = level
        self.options.bytes.landmarks = 1
        self.options.bytes.chunk_size = chunk_size
        self.options.bytes.owner = owner
        self.options.bytes.group = group
        self.options.bytes.mtime = INT64_MIN if mtime is None else mtime
        self.options.bytes.mtime_max = INT64_MAX if mtime_max is None else mtime_max
        memcpy(self.options.bytes.engine, <const char *>text, len(text))
        self.options.diff_id = diff_id
        self.options.base_fd = -1
        self.convert.no_diff_id = not diff_id
        self.convert.threads = threads
        self.toc = sgz_toc_new()
        if self.toc == NULL:
            raise MemoryError

    def other_options(self, Manifest base not None):
        """What keeps this pack from copying contents of a layer with this manifest; "" for nothing.
        (Owners and times are in headers, which are then made anew.)"""
        cdef const sgz_pack_manifest_options *then = &base.manifest.options
        cdef const sgz_pack_manifest_options *now = &self.options.bytes
        if then.level != now.level:
            return f"level {then.level}"
        if then.chunk_size != now.chunk_size:
            return f"chunk size {then.chunk_size}"
        if memcmp(then.engine, now.engine, sizeof(now.engine)) or then.landmarks != now.landmarks:
            return "another version of what compresses"
        return ""

    def walk(self, list skip, ignore, bint one_file_system, Manifest base, bint trust):
        """Find what there is to pack. Returns (sockets left out, the name of one, those of
        `skip` that were met, names left out as they are a layer's own).

        `skip` has names to leave out; ignore(name, is_dir) is as sgz_pack_walk_options wants it, or
        None. With `trust` what the base's manifest says of sizes and times is enough.
        """
        cdef sgz_pack_walk_options options
        cdef skip_list left_out
        cdef Callback call = None if ignore is None else Callback(ignore)
        cdef sgz_error err
        cdef size_t i, count = len(skip)
        cdef timespec now
        cdef sgz_pack_walk_state *state = NULL
        cdef sgz_status status
        cdef Job job = Job()
        memset(&options, 0, sizeof(options))
        memset(&left_out, 0, sizeof(left_out))
        options.threads = self.convert.threads
        options.one_file_system = one_file_system
        options.ignore = _ignore
        options.ignore_arg = &left_out
        self.base = base
        if base is not None and trust:
            options.known = sgz_pack_manifest_known
            options.known_arg = &base.manifest
        try:
            left_out.names = <const char **>calloc(count + 1, sizeof(char *))
            left_out.lens = <size_t *>calloc(count + 1, sizeof(size_t))
            left_out.seen = <char *>calloc(count + 1, 1)
            if left_out.names == NULL or left_out.lens == NULL or left_out.seen == NULL:
                raise MemoryError
            for i in range(count):
                left_out.names[i] = <bytes>skip[i]
                left_out.lens[i] = len(<bytes>skip[i])
            left_out.count = count
            if call is not None:
                left_out.call = <void *>call
            clock_gettime(CLOCK_REALTIME_COARSE, &now)
            self.walked_at = now.tv_sec * 1000000000 + now.tv_nsec

            if sgz_pack_walk_start(&state, &job.job, self.root, &options, &err) != SGZ_OK:
                raise to_exception(&err, self.name)
            try:
                follow(job, None)
            finally:
                with nogil:
                    status = sgz_pack_walk_finish(state, &self.found, &err)
            if call is not None:
                call.check()
            if status != SGZ_OK:
                raise to_exception(&err, self.name)
            met = [name for i, name in enumerate(skip) if left_out.seen[i]]
            reserved = [os.fsdecode(left_out.reserved[i]) for i in range(left_out.reserved_count)]
        finally:
            free(left_out.names)
            free(left_out.lens)
            free(left_out.seen)
        return self.found.sockets, os.fsdecode(self.found.first_socket), met, reserved

    def run(self, where, str sink_name, bint synced, int base_fd):
        """Write the layer; returns the result's fields as a dict. `synced`: the sink is a file
        that will be synced afterwards."""
        cdef sgz_error err
        cdef sgz_status status
        cdef sgz_pack_counts counts
        cdef size_t i = 0, size
        cdef int cut
        cdef const char *name
        cdef const sgz_codecs *codecs = table()
        cdef Writer sink = Writer(where, sink_name)
        cdef Job job = Job()
        sink.sink.stop = &job.job.stop
        if self.base is not None:
            self.options.base = &self.base.manifest
            self.options.base_fd = base_fd
        self.convert.writeback = synced
        with nogil:
            self.packer = sgz_pack_new(codecs, self.root, &self.found, self.toc, &self.options,
                                       &err)
        if self.packer == NULL:
            raise to_exception(&err, self.name)
        sgz_pack_count(self.packer, &counts)
        job.job.total = counts.source_bytes
        status = _write(job, sgz_pack_filler(self.packer), &sink.sink, self.toc, &self.convert,
                        self.progress, &self.result, &err)
        if status != SGZ_OK:
            sink.check()
            raise to_exception(&err, self.name)
        sgz_pack_count(self.packer, &counts)
        fields = fields_of(&self.result)
        changed = []
        name = sgz_pack_changed(self.packer, 0, &size, &cut)
        while name != NULL:
            changed.append((os.fsdecode(name[:size]), bool(cut)))
            i += 1
            name = sgz_pack_changed(self.packer, i, &size, &cut)
        fields.update(
            read_files=counts.read_files,
            reused_files=counts.reused_files,
            reused_bytes=counts.reused_bytes,
            damaged=counts.damaged,
            changed=counts.changed,
            changed_names=changed,
        )
        if not self.options.diff_id:
            fields["diff_id"] = None
        return fields


cdef struct save_job:
    sgz_pack_manifest manifest
    const sgz_codecs *codecs
    int fd


cdef sgz_status _save(void *arg, int number, sgz_error *err) noexcept nogil:
    cdef save_job *save = <save_job *>arg
    return sgz_pack_manifest_save(&save.manifest, save.codecs, save.fd, err)


cdef class Saving:
    """The manifest of what was packed, on its way to a descriptor, from a thread of its own.

    `wait` is to be called before the descriptor is closed.
    """

    cdef save_job save
    cdef Packing packing        # has what the manifest points to
    cdef Job job

    def __init__(self, Packing packing not None, int fd):
        cdef sgz_error err
        self.packing = packing
        self.job = Job()
        self.save.codecs = table()
        self.save.fd = fd
        sgz_pack_describe(packing.packer, &packing.result, &self.save.manifest)
        self.save.manifest.walked_at = packing.walked_at
        if sgz_base_job_start(&self.job.job, 1, _save, &self.save, &err) != SGZ_OK:
            raise to_exception(&err, "")

    def wait(self):
        """Returns when the thread has ended, whatever signals come, and raises what it failed
        with, or a signal's handler."""
        cdef sgz_error err
        cdef sgz_status status
        try:
            follow(self.job, None)
        finally:
            with nogil:
                status = sgz_base_job_join(&self.job.job, &err)
        if status != SGZ_OK:
            raise to_exception(&err, "")
