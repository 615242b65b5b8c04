/* The lines of a tar-split (github.com/vbatts/tar-split), one after the other. */
#ifndef SGZ_VERIFY_LINES_H
#define SGZ_VERIFY_LINES_H

#include "verify/pull.h"

/* Bytes of one line. Those that are written have a megabyte of tar, or the headers of one entry. */
#define SGZ_VERIFY_LINE_MAX ((size_t)32 << 20)

/* Bytes of the tar as they stand; the contents of a file, and all that a header has behind it. */
enum { SGZ_LINE_FILE = 1, SGZ_LINE_SEGMENT = 2 };

typedef struct {
    int type;
    int64_t size;            /* of the contents */
    int64_t position;
    const char *name;        /* good until the next line, as the payload is */
    size_t name_len;
    const uint8_t *payload;  /* the bytes; of a file their CRC-64, big-endian */
    size_t payload_len;
} sgz_verify_line;

typedef struct {
    sgz_verify_pull pull;
    char *text;              /* what is not read yet begins at `at` */
    size_t at, len, cap;
    int ended;
    char *name, *payload;    /* decoded, where they do not stand as they are */
    size_t name_cap, payload_cap;
} sgz_verify_lines;

void sgz_verify_lines_free(sgz_verify_lines *lines);
/* The next line, or *none. SGZ_ETAR: what comes is no line. */
sgz_status sgz_verify_lines_next(sgz_verify_lines *lines, sgz_verify_line *line, int *none,
                                 sgz_error *err);

#endif
