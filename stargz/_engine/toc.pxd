from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from stargz._engine.base cimport sgz_error, sgz_status


cdef extern from "toc/toc.h" nogil:
    enum:
        SGZ_DIR
        SGZ_REG
        SGZ_SYMLINK
        SGZ_HARDLINK
        SGZ_CHAR
        SGZ_BLOCK
        SGZ_FIFO
        SGZ_CHUNK
        SGZ_ZEROS

    enum:
        SGZ_HAS_DIGEST
        SGZ_DIGEST_IS_CHUNK
        SGZ_HAS_CHUNK_DIGEST
        SGZ_BAD_UTF8
        SGZ_DROPPED
        SGZ_SET_CHUNK_SIZE
        SGZ_CLEAN_NAME

    const uint32_t SGZ_NO_ROW

    ctypedef struct sgz_entry:
        int64_t size
        int64_t mtime
        int64_t offset
        int64_t inner_offset
        int64_t chunk_offset
        int64_t chunk_size
        uint64_t name_off
        uint64_t link_off
        uint64_t xattr_off
        uint64_t digest_off
        uint32_t name_len
        uint32_t link_len
        uint32_t xattr_len
        uint32_t uname
        uint32_t gname
        uint32_t mode
        uint32_t uid
        uint32_t gid
        uint32_t dev_major
        uint32_t dev_minor
        uint8_t type
        uint8_t flags
        uint8_t chunk_digest[32]

    ctypedef struct sgz_toc_origin:
        pass

    ctypedef struct sgz_toc_time:
        int64_t seconds
        uint32_t ns

    ctypedef struct sgz_toc:
        sgz_entry *rows
        size_t count
        sgz_toc_origin *origins
        char *arena
        bint has_split
        uint8_t split_digest[32]

    sgz_toc_time sgz_toc_mtime(const sgz_toc *, uint32_t)
    bint sgz_toc_is_piece(const sgz_entry *)
    bint sgz_toc_has_data(const sgz_entry *)
    sgz_toc *sgz_toc_new()
    void sgz_toc_free(sgz_toc *)
    const char *sgz_toc_string(const sgz_toc *, uint32_t, size_t *)
    const uint8_t *sgz_toc_digest(const sgz_toc *, uint32_t)
    const uint8_t sgz_toc_empty_digest[32]
    uint32_t sgz_toc_lookup(const sgz_toc *, const char *, size_t)
    uint32_t sgz_toc_resolve(const sgz_toc *, uint32_t)
    const char *sgz_toc_type_name(int)

    ctypedef struct sgz_toc_children:
        uint32_t row_count
        uint32_t implied_count
        uint32_t *starts
        uint32_t *kids
        uint32_t root

    sgz_status sgz_toc_children_build(const sgz_toc *, sgz_toc_children *, sgz_error *)
    void sgz_toc_children_free(sgz_toc_children *)
    uint32_t sgz_toc_children_find(const sgz_toc *, const sgz_toc_children *, const char *, size_t)
    const char *sgz_toc_children_name(const sgz_toc *, const sgz_toc_children *, uint32_t, size_t *)

    ctypedef struct sgz_toc_parser:
        pass

    sgz_toc_parser *sgz_toc_parser_new(sgz_toc *)
    void sgz_toc_parser_free(sgz_toc_parser *)
    void sgz_toc_parser_limit(sgz_toc_parser *, int64_t)
    sgz_status sgz_toc_parse(sgz_toc_parser *, const char *, size_t, sgz_error *)
    sgz_status sgz_toc_parse_finish(sgz_toc_parser *, int64_t, sgz_error *)

    ctypedef int (*sgz_toc_emit)(void *, const char *, size_t) noexcept nogil
    sgz_status sgz_toc_format(const sgz_toc *, int, sgz_toc_emit, void *, uint64_t *, sgz_error *)

cdef extern from "toc/limits.h" nogil:
    const int64_t SGZ_TOC_ZEROS_HASHED


cdef extern from "toc/tree.h" nogil:
    ctypedef struct sgz_toc_tree_layer:
        const sgz_toc *toc
        const sgz_toc_children *dirs

    ctypedef enum sgz_toc_whiteouts:
        SGZ_WHITEOUTS_APPLY
        SGZ_WHITEOUTS_HIDE
        SGZ_WHITEOUTS_RAW
        SGZ_WHITEOUTS_OVERLAY

    enum:
        SGZ_NODE_WHITEOUT
        SGZ_NODE_OPAQUE

    ctypedef struct sgz_toc_node:
        uint32_t row
        uint32_t name
        uint32_t parent
        uint32_t kids
        uint32_t count
        uint32_t inode
        uint32_t links
        uint16_t layer
        uint16_t name_layer
        uint8_t type
        uint8_t flags

    const uint32_t SGZ_TREE_LAYERS_MAX

    ctypedef struct sgz_toc_tree:
        sgz_toc_tree_layer *layers
        uint32_t layer_count
        sgz_toc_node *nodes
        uint32_t count
        uint64_t bytes
        uint32_t inodes

    sgz_status sgz_toc_tree_build(sgz_toc_tree *, const sgz_toc_tree_layer *, uint32_t,
                                  sgz_toc_whiteouts, int, sgz_error *)
    void sgz_toc_tree_free(sgz_toc_tree *)
    const char *sgz_toc_tree_name(const sgz_toc_tree *, uint32_t, size_t *)
    uint32_t sgz_toc_tree_child(const sgz_toc_tree *, uint32_t, const char *, size_t)
    uint32_t sgz_toc_tree_find(const sgz_toc_tree *, const char *, size_t)
    const sgz_entry *sgz_toc_tree_row(const sgz_toc_tree *, uint32_t)

    ctypedef struct sgz_toc_attr:
        uint64_t ino
        int64_t size
        int64_t mtime
        uint32_t mtime_ns
        uint32_t mode
        uint32_t nlink
        uint32_t uid
        uint32_t gid
        uint32_t major
        uint32_t minor

    void sgz_toc_tree_attr(const sgz_toc_tree *, uint32_t, sgz_toc_attr *)
    const char *sgz_toc_tree_target(const sgz_toc_tree *, uint32_t, size_t *)


# The rows of a parsed TOC. They do not change once a parser (or another module, through
# ptr) has finished with them; any number of threads may read.
cdef class TOC:
    cdef sgz_toc *ptr
    cdef sgz_toc_children tree
    cdef bint has_tree
    cdef object lock

    cdef const sgz_entry *row(self, object number) except NULL
    cdef const uint8_t *whole(self, size_t n, int64_t *zeros) noexcept nogil
    cdef int build_tree(self) except -1


# Built once; any number of threads may read. `tocs` keeps the rows alive.
cdef class Tree:
    cdef sgz_toc_tree tree
    cdef readonly tuple tocs    # stargz._engine.toc.TOC, from the lowest up

    cdef const sgz_toc_node *node(self, object number) except NULL
