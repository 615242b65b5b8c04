/* Where the entry of a row stands in a tar. */
#ifndef SGZ_TOC_ORIGIN_H
#define SGZ_TOC_ORIGIN_H

#include <stdint.h>

/* Of the rows that go with a file it is all zero. */
typedef struct {
    int64_t content;   /* its contents; of a sparse file its data, behind the map */
    uint64_t name;     /* as the tar has it, in the TOC's arena: the row may have another one, since */
    uint32_t name_len; /* the entry goes elsewhere (toc/rows.h) */
    uint32_t header;   /* bytes of its headers, right before `content` */
    uint32_t ns;       /* fraction of its mtime, as sgz_tar_entry has it */
} sgz_toc_origin;

#endif
