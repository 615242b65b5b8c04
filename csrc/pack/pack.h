/* A directory tree as slabs for write/pipeline.c: the units of pack/manifest.h, of which those
 * that an earlier layer has are copied from it. */
#ifndef SGZ_PACK_PACK_H
#define SGZ_PACK_PACK_H

#include "write/pipeline.h"
#include "pack/manifest.h"

typedef struct {
    sgz_pack_manifest_options bytes; /* what decides the layer's bytes */
    int diff_id;                    /* 0: the tar itself is of no interest */
    const sgz_pack_manifest *base;  /* what the layer at base_fd is made of; NULL: none */
    int base_fd;
} sgz_pack_options;

typedef struct {
    uint64_t read_files;            /* files with contents that were read */
    uint64_t reused_files;          /* those whose compressed contents were copied */
    int64_t reused_bytes;           /* compressed bytes copied, headers too */
    uint64_t damaged;               /* units of the base that were damaged, and made anew */
    uint64_t changed;               /* files that changed while they were packed */
    int64_t source_bytes;           /* contents, in all */
} sgz_pack_counts;

typedef struct sgz_pack sgz_pack;

/* `root` is the open directory that `walk` came from; an entry's `known` is its number in the
 * base. The walk becomes the packer's (also its `known` entries are filled in from the base). */
sgz_pack *sgz_pack_new(const sgz_codecs *codecs, int root, sgz_pack_walk *walk, sgz_toc *toc,
                       const sgz_pack_options *options, sgz_error *err);
void sgz_pack_free(sgz_pack *packer);
/* What fills the slabs of a conversion; good as long as the packer. */
const sgz_write_filler *sgz_pack_filler(sgz_pack *packer);
/* After the conversion: what it did, and the manifest of the layer it made (with walked_at
 * left to the caller), good as long as the packer. */
void sgz_pack_count(sgz_pack *packer, sgz_pack_counts *counts);
void sgz_pack_describe(sgz_pack *packer, const sgz_write_result *result,
                       sgz_pack_manifest *manifest);
/* The name of the n-th file that changed, and whether its end is missing. The first 16. */
const char *sgz_pack_changed(const sgz_pack *packer, size_t n, size_t *len, int *cut);

#endif
