/* Status codes and error details shared by every kernel.
 *
 * Every function that can fail returns an sgz_status and, on failure, fills the
 * sgz_error it was given. stargz/_engine/base.pyx holds the one table that maps a
 * status to a Python exception. */
#ifndef SGZ_BASE_STATUS_H
#define SGZ_BASE_STATUS_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    SGZ_OK = 0,
    SGZ_ENOMEM,       /* MemoryError */
    SGZ_EIO,          /* OSError, errno in sys_errno; `name` is the file, if known */
    SGZ_ECODEC,       /* StargzError: a codec library is missing or failed */
    SGZ_EDATA,        /* GzipError: what does not decode, is cut off or fails its check sum */
    SGZ_ETAR,         /* TarError */
    SGZ_ENOTOC,       /* UnindexableError: a tar that is right, but that no TOC can hold */
    SGZ_ETOC,         /* TOCError */
    SGZ_EPATCH,       /* PatchError */
    SGZ_EINDEX,       /* IndexFileError */
    SGZ_EDIGEST,      /* DigestError: expected and actual are set */
    SGZ_EUNSAFE,      /* ExtractError: an entry that would leave the target directory */
    SGZ_ECALLBACK,    /* a Python callback raised; the exception is already stored */
    SGZ_ECANCELLED    /* the caller asked to stop */
} sgz_status;

#define SGZ_NAME_MAX 512

typedef struct {
    sgz_status code;
    int sys_errno;
    int64_t offset;               /* in the blob or the input stream; -1 when not known */
    char name[SGZ_NAME_MAX];      /* the entry or file it happened to, truncated; may be empty */
    char message[256];            /* what is wrong and what to do, without name and offset */
    uint8_t expected[32], actual[32]; /* SGZ_EDIGEST */
    uint64_t cause;               /* the number of an exception that a caller keeps; or 0 */
} sgz_error;

/* Fill err and return code, so that a caller can write `return sgz_base_fail(...)`. A NULL
 * err is allowed. `name` need not be terminated; NULL means none. */
__attribute__((format(printf, 6, 7)))
sgz_status sgz_base_fail(sgz_error *err, sgz_status code, int64_t offset, const char *name,
                         size_t name_len, const char *format, ...);

/* Say whose error it is, where it has no name. */
void sgz_base_name(sgz_error *err, const char *name, size_t name_len);

/* The same for a failed system call: stores errno. */
sgz_status sgz_base_fail_errno(sgz_error *err, int sys_errno, const char *what, const char *name,
                               size_t name_len);

/* The same for content that does not match its sha256. */
sgz_status sgz_base_fail_digest(sgz_error *err, int64_t offset, const char *name,
                                size_t name_len, const uint8_t expected[32],
                                const uint8_t actual[32], const char *what);

#endif
