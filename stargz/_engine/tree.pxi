"""The file system that some layers make: nodes by number, the root is 0. Part of toc.pyx.

Python objects are made when asked for. A node's number depends on the layers alone.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdlib cimport calloc, free, malloc

cdef extern from "toc/tree.h" nogil:
    ctypedef int (*sgz_toc_xattr_each)(void *, const sgz_xattr *) noexcept
    int sgz_toc_tree_xattrs(const sgz_toc_tree *, uint32_t, sgz_toc_xattr_each, void *)

cdef dict WHITEOUTS = {
    "apply": SGZ_WHITEOUTS_APPLY,
    "hide": SGZ_WHITEOUTS_HIDE,
    "raw": SGZ_WHITEOUTS_RAW,
    "overlay": SGZ_WHITEOUTS_OVERLAY,
}


# What rows() knows of a node.
cdef enum:
    WANTED = 1
    EXCLUDED = 2
    BARE = 4


cdef int keep_xattr(void *arg, const sgz_xattr *x) noexcept with gil:
    try:
        (<dict>arg)[text(x.key, x.key_len)] = x.value[:x.value_len]
    except MemoryError:
        return 1
    return 0


cdef class Tree:
    """The merged view of the TOCs of some layers, given from the lowest up.

    `whiteouts` is "apply", "hide", "raw" or "overlay", `markers` shows landmarks
    (csrc/toc/tree.h). Built once, without the GIL; any number of threads may read.
    """

    def __init__(self, tocs, str whiteouts not None="apply", bint markers=False):
        cdef sgz_error err
        cdef sgz_status status
        cdef sgz_toc_whiteouts mode = WHITEOUTS[whiteouts]
        cdef TOC toc
        cdef uint32_t i, count
        if self.tree.nodes != NULL:
            raise TypeError("a tree is built once")
        self.tocs = tuple(tocs)
        for toc in self.tocs:
            toc.build_tree()
        count = <uint32_t>min(len(self.tocs), 0xFFFFFFFF)
        cdef sgz_toc_tree_layer *layers = <sgz_toc_tree_layer *>malloc(
            (<size_t>count + 1) * sizeof(sgz_toc_tree_layer)
        )
        if layers == NULL:
            raise MemoryError
        for i in range(count):
            toc = self.tocs[i]
            layers[i].toc = toc.ptr
            layers[i].dirs = &toc.tree
        with nogil:
            status = sgz_toc_tree_build(&self.tree, layers, count, mode, markers, &err)
        free(layers)
        if status != SGZ_OK:
            raise to_exception(&err, "")

    def __dealloc__(self):
        sgz_toc_tree_free(&self.tree)

    def __len__(self):
        return self.tree.count

    @property
    def inodes(self):
        """How many distinct files, directories and others there are."""
        return self.tree.inodes

    @property
    def size(self):
        """The sum of the sizes of all regular files, each inode once."""
        return self.tree.bytes

    # --- look-up ------------------------------------------------------------------------

    def find(self, str path not None):
        """The node of a path, which is cleaned first; -1: there is none. No link is followed."""
        cdef bytes data = encoded(path)
        if data is None:
            return -1
        cdef uint32_t node = sgz_toc_tree_find(&self.tree, data, len(data))
        return -1 if node == SGZ_NO_ROW else node

    def child(self, number, str name not None):
        """The node of this base name in a directory; -1: there is none."""
        cdef bytes data = encoded(name)
        self.node(number)
        if data is None:
            return -1
        cdef uint32_t node = sgz_toc_tree_child(&self.tree, number, data, len(data))
        return -1 if node == SGZ_NO_ROW else node

    def children(self, number):
        """The nodes in a directory, a range; in the order of their names' bytes."""
        cdef const sgz_toc_node *node = self.node(number)
        if node.type != SGZ_DIR:
            return range(0)
        return range(node.kids, <size_t>node.kids + node.count)

    cdef const sgz_toc_node *node(self, object number) except NULL:
        cdef size_t n = number
        if n >= self.tree.count:
            raise IndexError(f"node {number} of {self.tree.count}")
        return &self.tree.nodes[n]

    # --- one node -----------------------------------------------------------------------

    def name(self, number):
        """The base name of a node; "" of the root."""
        cdef size_t size
        self.node(number)
        cdef const char *data = sgz_toc_tree_name(&self.tree, number, &size)
        return text(data, size)

    def path(self, number):
        """The path of a node from the root, cleaned."""
        cdef const sgz_toc_node *node = self.node(number)
        cdef const sgz_toc_tree_layer *layer
        cdef size_t size
        cdef const char *data
        if node == self.tree.nodes:
            return ""
        if node.flags & SGZ_NODE_WHITEOUT:
            parent = self.path(node.parent)
            return f"{parent}/{self.name(number)}" if parent else self.name(number)
        # A layer has a name at the place that the tree has it.
        layer = &self.tree.layers[node.name_layer]
        data = sgz_toc_children_name(layer.toc, layer.dirs, node.name, &size)
        return text(data, size)

    def parent(self, number):
        """The node of the directory that a node is in; the root's is itself."""
        return self.node(number).parent

    def type(self, number):
        """The TOC's word for the type of a node; of a hard link that of its file."""
        return sgz_toc_type_name(self.node(number).type).decode("ascii")

    def flags(self, number):
        """(whiteout, opaque): what "overlay" made of a node."""
        cdef const sgz_toc_node *node = self.node(number)
        return (node.flags & SGZ_NODE_WHITEOUT) != 0, (node.flags & SGZ_NODE_OPAQUE) != 0

    def row(self, number):
        """(layer, row): whose metadata and data a node has, hard links followed. The row is -1
        where no layer lists the node: implied directories, whiteouts of "overlay"."""
        cdef const sgz_toc_node *node = self.node(number)
        return node.layer, -1 if node.row == SGZ_NO_ROW else node.row

    def entry(self, number):
        """(layer, row): the same with hard links as they are: the row has the node's name."""
        cdef const sgz_toc_node *node = self.node(number)
        cdef const sgz_toc_tree_layer *layer = &self.tree.layers[node.name_layer]
        if node.row == SGZ_NO_ROW or node.type == SGZ_DIR:
            return node.layer, -1 if node.row == SGZ_NO_ROW else node.row
        return node.name_layer, node.name if node.name < layer.dirs.row_count else -1

    def attr(self, number):
        """(ino, size, mtime, mode, nlink, uid, gid, major, minor, mtime_nsec): what stat shows.
        `mode` has the S_IF bits; times are seconds since the epoch, and their fraction."""
        cdef sgz_toc_attr attr
        self.node(number)
        sgz_toc_tree_attr(&self.tree, number, &attr)
        return (
            attr.ino,
            attr.size,
            attr.mtime,
            attr.mode,
            attr.nlink,
            attr.uid,
            attr.gid,
            attr.major,
            attr.minor,
            attr.mtime_ns,
        )

    def owner(self, number):
        """(user name, group name) of a node; each may be ""."""
        cdef const sgz_toc_node *node = self.node(number)
        cdef const sgz_entry *row = sgz_toc_tree_row(&self.tree, number)
        cdef const sgz_toc *toc = self.tree.layers[node.layer].toc
        cdef size_t user_size, group_size
        if row == NULL:
            return "", ""
        cdef const char *user = sgz_toc_string(toc, row.uname, &user_size)
        cdef const char *group = sgz_toc_string(toc, row.gname, &group_size)
        return text(user, user_size), text(group, group_size)

    def target(self, number):
        """The target of a symlink; "" of anything else."""
        cdef size_t size
        self.node(number)
        cdef const char *data = sgz_toc_tree_target(&self.tree, number, &size)
        return text(data, size)

    def xattrs(self, number):
        """The extended attributes of a node, by key."""
        cdef dict found = {}
        self.node(number)
        if sgz_toc_tree_xattrs(&self.tree, number, keep_xattr, <void *>found):
            raise MemoryError
        return found

    # --- what of it is selected -----------------------------------------------------------

    def rows(self, wanted, excluded=()):
        """For each layer, by row, 1 where the nodes `wanted` or something below them have their
        entry, less the nodes `excluded` and all below those; and the paths of the empty
        directories among them that no layer lists. What several rows say of a node is in the one
        that counts: of a directory its metadata, of anything else its name."""
        cdef sgz_toc_tree *tree = &self.tree
        cdef uint32_t i, bare = 0
        cdef const sgz_toc_node *node
        cdef uint8_t *state = <uint8_t *>calloc(<size_t>tree.count + 1, 1)
        cdef uint8_t **marks = <uint8_t **>calloc(<size_t>tree.layer_count + 1, sizeof(uint8_t *))
        cdef list found = []
        cdef TOC toc
        cdef bytearray mask
        if state == NULL or marks == NULL:
            free(state)
            free(marks)
            raise MemoryError
        try:
            for i in range(tree.layer_count):
                toc = self.tocs[i]
                mask = bytearray(toc.ptr.count)
                found.append(mask)
                marks[i] = <uint8_t *>PyByteArray_AS_STRING(mask)
            for number in wanted:
                self.node(number)
                state[<size_t>number] |= WANTED
            for number in excluded:
                self.node(number)
                state[<size_t>number] |= EXCLUDED
            with nogil:
                for i in range(tree.count):  # a directory comes before what is in it
                    node = &tree.nodes[i]
                    state[i] |= state[node.parent]
                    if state[i] != WANTED:
                        continue
                    if node.type == SGZ_DIR:
                        if node.row != SGZ_NO_ROW:
                            marks[node.layer][node.row] = 1
                        elif node.count == 0 and i:
                            state[i] = BARE
                            bare += 1
                    elif not node.flags & SGZ_NODE_WHITEOUT:
                        marks[node.name_layer][node.name] = 1
            empty = [self.path(i) for i in range(tree.count if bare else 0) if state[i] == BARE]
        finally:
            free(state)
            free(marks)
        return found, empty
