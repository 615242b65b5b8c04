from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from stargz._engine.status cimport sgz_error, sgz_status
from stargz._engine.toc cimport sgz_entry, sgz_toc, sgz_toc_tree


cdef extern from "tree.h" nogil:
    ctypedef struct sgz_tree_layer:
        const sgz_toc *toc
        const sgz_toc_tree *dirs

    ctypedef enum sgz_whiteouts:
        SGZ_WHITEOUTS_APPLY
        SGZ_WHITEOUTS_HIDE
        SGZ_WHITEOUTS_RAW
        SGZ_WHITEOUTS_OVERLAY

    enum:
        SGZ_NODE_WHITEOUT
        SGZ_NODE_OPAQUE

    ctypedef struct sgz_node:
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

    ctypedef struct sgz_tree:
        sgz_tree_layer *layers
        uint32_t layer_count
        sgz_node *nodes
        uint32_t count
        uint64_t bytes
        uint32_t inodes

    sgz_status sgz_tree_build(sgz_tree *, const sgz_tree_layer *, uint32_t, sgz_whiteouts,
                              sgz_error *)
    void sgz_tree_free(sgz_tree *)
    const char *sgz_tree_name(const sgz_tree *, uint32_t, size_t *)
    uint32_t sgz_tree_child(const sgz_tree *, uint32_t, const char *, size_t)
    uint32_t sgz_tree_find(const sgz_tree *, const char *, size_t)
    const sgz_entry *sgz_tree_row(const sgz_tree *, uint32_t)

    ctypedef struct sgz_attr:
        uint64_t ino
        int64_t size
        int64_t mtime
        uint32_t mode
        uint32_t nlink
        uint32_t uid
        uint32_t gid
        uint32_t major
        uint32_t minor

    void sgz_tree_attr(const sgz_tree *, uint32_t, sgz_attr *)
    const char *sgz_tree_target(const sgz_tree *, uint32_t, size_t *)


# Built once; any number of threads may read. `tocs` keeps the rows alive.
cdef class Tree:
    cdef sgz_tree tree
    cdef readonly tuple tocs    # stargz._engine.toc.TOC, from the lowest up

    cdef const sgz_node *node(self, object number) except NULL
