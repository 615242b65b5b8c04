"""The server of mounted trees: threads of the caller's that speak the kernel's FUSE protocol.

Each loop is one call without the GIL that ends when the file system is unmounted.
"""

from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport getpid

from stargz._engine.chunks cimport Chunks, sgz_chunks
from stargz._engine.base cimport SGZ_OK, sgz_error, sgz_status, to_exception
from stargz._engine.toc cimport Tree, sgz_toc_tree


cdef extern from "<sys/mount.h>" nogil:
    int c_mount "mount"(const char *, const char *, const char *, unsigned long, const void *)
    int c_umount "umount2"(const char *, int)


cdef extern from "mount/session.h" nogil:
    ctypedef struct sgz_mount:
        pass

    ctypedef struct sgz_mount_added:
        const sgz_toc_tree *tree
        sgz_chunks *chunks
        const uint32_t *layers

    enum:
        SGZ_FUSE_WAITING
        SGZ_FUSE_READY
        SGZ_FUSE_REFUSED
        SGZ_FUSE_ENDED
        SGZ_FUSE_ASKED
        SGZ_FUSE_TREE_SHIFT

    ctypedef struct sgz_mount_event:
        int kind
        uint64_t unique
        uint64_t node
        uint32_t opcode
        uint64_t offset
        uint32_t size
        uint32_t name_len
        char name[256]
        sgz_error error
        uint64_t more

    ctypedef struct sgz_mount_access:
        uint64_t first
        uint64_t bytes

    ctypedef struct sgz_mount_stats:
        uint64_t requests
        uint64_t reads
        uint64_t parked
        uint64_t failed

    sgz_status sgz_mount_new(sgz_mount **, int, int, sgz_error *)
    void sgz_mount_free(sgz_mount *)
    sgz_status sgz_mount_add(sgz_mount *, const sgz_mount_added *, uint32_t *, sgz_error *)
    sgz_status sgz_mount_serve(sgz_mount *, sgz_error *)
    void sgz_mount_answer(sgz_mount *)
    void sgz_mount_stop(sgz_mount *)
    int sgz_mount_wait(sgz_mount *, int)
    uint32_t sgz_mount_version(const sgz_mount *)
    int sgz_mount_next(sgz_mount *, int, sgz_mount_event *)
    void sgz_mount_reply_error(sgz_mount *, uint64_t, int)
    void sgz_mount_reply_absent(sgz_mount *, uint64_t, uint32_t)
    void sgz_mount_reply_tree(sgz_mount *, uint64_t, uint32_t, uint32_t)
    void sgz_mount_reply_dir(sgz_mount *, uint64_t, uint32_t, uint64_t, int64_t, uint32_t)
    void sgz_mount_reply_names(sgz_mount *, const sgz_mount_event *, const char *, size_t, uint64_t)
    void sgz_mount_reply_statfs(sgz_mount *, uint64_t)
    sgz_mount_access sgz_mount_access_now(const sgz_mount_access *)
    const sgz_mount_access *sgz_mount_accesses(const sgz_mount *, uint32_t)
    void sgz_mount_get_stats(const sgz_mount *, sgz_mount_stats *)


def mount(bytes source, bytes directory, bytes kind, unsigned long flags, bytes options):
    """mount(2); OSError as the kernel says."""
    cdef const char *at = directory
    cdef const char *of = source
    cdef const char *named = kind
    cdef const char *words = options
    cdef int failed
    with nogil:
        failed = c_mount(of, at, named, flags, words)
    if failed:
        PyErr_SetFromErrno(OSError)


def unmount(bytes directory, int flags):
    """umount2(2); OSError as the kernel says."""
    cdef const char *at = directory
    cdef int failed
    with nogil:
        failed = c_umount(at, flags)
    if failed:
        PyErr_SetFromErrno(OSError)


cdef dict STATES = {
    SGZ_FUSE_WAITING: "waiting",
    SGZ_FUSE_READY: "ready",
    SGZ_FUSE_REFUSED: "refused",
    SGZ_FUSE_ENDED: "ended",
}

# The kernel's numbers of the requests that are handed out (linux/fuse.h).
cdef dict OPCODES = {1: "lookup", 3: "getattr", 17: "statfs", 28: "readdir", 44: "readdir"}

# How long a thread stays away from Python's signals and its own end.
cdef int WAIT_MS = 1000


cdef class Request:
    """A request about a node of tree 0: `kind` is lookup, getattr, statfs or readdir.

    Made by `Server.next`; answered once, by one of the Server's reply methods.
    """

    cdef sgz_mount_event event

    @property
    def kind(self):
        """What is asked."""
        return OPCODES.get(self.event.opcode, "")

    @property
    def node(self):
        """The node's id; 1 is the root."""
        return self.event.node

    @property
    def name(self):
        """Of a lookup, as bytes."""
        return self.event.name[:self.event.name_len]

    @property
    def offset(self):
        """Of readdir: how many names were read before, "." and ".." included."""
        return self.event.offset


cdef class Failure:
    """A read that failed with EIO: `tree` and `node` say whose, `error` is the exception."""

    cdef readonly int tree
    cdef readonly unsigned int node
    cdef readonly object error
    cdef readonly unsigned long long more   # others that nobody was told of


cdef class Server:
    """Trees behind the descriptor of a FUSE mount.

    `fd` stays the caller's and is closed after this object has gone. With `asked` tree 0 is the
    caller's to answer, through `next`, and trees are numbered from 1. Any number of threads may
    call any method.
    """

    cdef sgz_mount *ptr
    cdef list trees             # (Tree, Chunks), by number; None where the caller answers
    cdef int pid

    def __cinit__(self, int fd, bint asked=False):
        cdef sgz_error err
        self.pid = getpid()
        if sgz_mount_new(&self.ptr, fd, asked, &err) != SGZ_OK:
            raise to_exception(&err, "")
        self.trees = [None] if asked else []

    def __dealloc__(self):
        # In a forked child the threads that waited in it are gone, and would be waited for.
        if self.pid == getpid():
            sgz_mount_free(self.ptr)

    def add(self, Tree tree not None, Chunks chunks not None, layers):
        """Serve one more tree; its number.

        `layers` are the numbers that its layers have in `chunks`, from the lowest up.
        """
        cdef sgz_mount_added served
        cdef sgz_error err
        cdef uint32_t number = 0
        cdef uint32_t *numbers
        if len(layers) != tree.tree.layer_count:
            raise ValueError(f"{tree.tree.layer_count} layers, {len(layers)} numbers")
        numbers = <uint32_t *>calloc(len(layers) + 1, sizeof(uint32_t))
        if numbers == NULL:
            raise MemoryError()
        try:
            for i, layer in enumerate(layers):
                numbers[i] = layer
            served.tree = &tree.tree
            served.chunks = chunks.ptr
            served.layers = numbers
            # Before C has it: the tree must not go while C may read it.
            self.trees.append((tree, chunks))
            if sgz_mount_add(self.ptr, &served, &number, &err) != SGZ_OK:
                self.trees.pop()
                raise to_exception(&err, "")
            return number
        finally:
            free(numbers)

    def serve(self):
        """Answer the kernel until the file system is unmounted, or the server stopped."""
        cdef sgz_error err
        cdef sgz_status status
        with nogil:
            status = sgz_mount_serve(self.ptr, &err)
        if status != SGZ_OK:
            raise to_exception(&err, "")

    def answer(self):
        """Answer the reads that had to wait, until the server has stopped."""
        with nogil:
            sgz_mount_answer(self.ptr)

    def stop(self):
        """End every loop; waits for those that serve. Chunks are to be stopped before."""
        with nogil:
            sgz_mount_stop(self.ptr)

    def wait(self, double seconds=0):
        """Wait for the kernel's first request; what became of it, whatever came later: "waiting",
        "ready", "refused" (a kernel that is too old) or "ended" (before it came)."""
        cdef int milliseconds = <int>(min(max(seconds, 0), 3600) * 1000)
        cdef int state
        with nogil:
            state = sgz_mount_wait(self.ptr, milliseconds)
        return STATES[state]

    @property
    def version(self):
        """(major, minor) of the kernel's protocol; (0, 0) before its first request."""
        cdef uint32_t version = sgz_mount_version(self.ptr)
        return version >> 16, version & 0xFFFF

    def next(self):
        """The next Request or Failure; None after a while without; StopIteration at the end."""
        cdef sgz_mount_event event
        cdef int found
        cdef Request request
        cdef Failure failure
        with nogil:
            found = sgz_mount_next(self.ptr, WAIT_MS, &event)
        if found < 0:
            raise StopIteration
        if not found:
            return None
        if event.kind == SGZ_FUSE_ASKED:
            request = Request.__new__(Request)
            request.event = event
            return request
        failure = Failure.__new__(Failure)
        failure.tree = <int>(event.node >> SGZ_FUSE_TREE_SHIFT)
        failure.node = <uint32_t>(event.node - 1)
        failure.error = to_exception(&event.error, "")
        failure.more = event.more
        return failure

    def reply_error(self, Request request not None, int error):
        """`error` is an errno."""
        with nogil:
            sgz_mount_reply_error(self.ptr, request.event.unique, error)

    def reply_absent(self, Request request not None, unsigned int seconds):
        """To a lookup: there is no such name, and need not be asked for again so long."""
        with nogil:
            sgz_mount_reply_absent(self.ptr, request.event.unique, seconds)

    def reply_tree(self, Request request not None, unsigned int number, unsigned int seconds):
        """To a lookup: the root of a tree; for so long the name means it."""
        with nogil:
            sgz_mount_reply_tree(self.ptr, request.event.unique, number, seconds)

    def reply_dir(self, Request request not None, uint64_t node, int64_t mtime_ns,
                  unsigned int seconds):
        """To a lookup or getattr: a directory of the caller's."""
        with nogil:
            sgz_mount_reply_dir(self.ptr, request.event.unique, request.event.opcode, node,
                                mtime_ns, seconds)

    def reply_names(self, Request request not None, list names):
        """To a readdir: all names (bytes) of the directory, without "." and ".."; what was read
        before is left out here."""
        every = [b".", b"..", *names][request.event.offset:]
        joined = b"".join([name + b"\0" for name in every])
        cdef const char *data = joined
        cdef size_t size = len(joined)
        with nogil:
            sgz_mount_reply_names(self.ptr, &request.event, data, size, request.event.offset)

    def reply_statfs(self, Request request not None):
        """The sizes of all trees together."""
        with nogil:
            sgz_mount_reply_statfs(self.ptr, request.event.unique)

    def accesses(self, unsigned int number):
        """What was read of a tree: (first, node, bytes), in order of first access; `first` in
        nanoseconds since the server was made."""
        cdef const sgz_mount_access *access = sgz_mount_accesses(self.ptr, number)
        cdef sgz_mount_access now
        cdef uint32_t i, count
        cdef Tree tree
        if access == NULL or self.trees[number] is None:
            raise IndexError(f"no tree {number}")
        tree = self.trees[number][0]
        count = tree.tree.count
        found = []
        for i in range(count):
            now = sgz_mount_access_now(&access[i])
            if now.first:
                found.append((now.first, i, now.bytes))
        found.sort()
        return found

    def stats(self):
        """Counts since the server was made: requests, reads, parked (reads that had to wait),
        failed (reads)."""
        cdef sgz_mount_stats stats
        sgz_mount_get_stats(self.ptr, &stats)
        return stats
