/* A tar as a stream of bytes, whatever it is wrapped in. */
#ifndef SGZ_IO_INPUT_H
#define SGZ_IO_INPUT_H

#include "base/job.h"
#include "codec/lz_read.h"
#include "codec/scan.h"
#include "codec/zstd.h"

/* Where the bytes come from: a descriptor (file or pipe), or a callback that returns the
 * bytes read, 0 at the end, or -1 after it stored an exception. */
typedef struct {
    int fd;
    int64_t (*read)(void *arg, uint8_t *out, size_t cap);
    void *arg;
    const sgz_base_stop *stop;   /* non-zero ends a wait for a silent descriptor; may be NULL */
} sgz_source;

/* One read; *got = 0 only at the end. SGZ_ECANCELLED when the stop flag or a signal ended the
 * wait for a descriptor. `name` is for errors, and may be NULL. */
sgz_status sgz_io_source_read(const sgz_source *source, uint8_t *out, size_t cap, size_t *got,
                              const char *name, sgz_error *err);

typedef enum { SGZ_WRAP_NONE, SGZ_WRAP_GZIP, SGZ_WRAP_ZSTD } sgz_wrap;

/* One range of a seekable tar. */
typedef struct { int64_t start, end; } sgz_extent;

typedef struct {
    const sgz_codecs *codecs;
    sgz_source source;
    const sgz_extent *extents;  /* not NULL: read these ranges of source.fd, in order */
    size_t extent_count, extent_at;
    int64_t extent_pos;
    sgz_wrap wrap;
    sgz_inflater inflater;
    void *zstd;
    sgz_zstd_blocks blocks;
    uint8_t *buf;               /* compressed bytes read and not yet used */
    size_t buf_pos, buf_len;
    int64_t source_pos;         /* bytes taken from the source: progress */
    int64_t memory;             /* the largest window of a zstd frame */
    int source_end, frame_open;
    size_t zeros;               /* that the tar ends in, so far; of gzip */
    int padded;                 /* zeros behind the last zstd frame were passed over */
    sgz_lz_reader *lz;          /* of gzip whose tokens are wanted: inflates in place of `inflater` */
    /* Set by whoever looks for entry points; not the input's to free. */
    sgz_scanner *scanner;       /* inflates in place of the input's own */
    void (*frame)(void *arg, int64_t offset, size_t made); /* a zstd frame with content begins at this
                                   offset, behind so many bytes that a read has made */
    void *frame_arg;
} sgz_input;

/* Bytes of the source that are decoded. */
static inline int64_t sgz_io_input_used(const sgz_input *input)
{
    return input->source_pos - (int64_t)(input->buf_len - input->buf_pos);
}

sgz_status sgz_io_input_open(sgz_input *input, const sgz_codecs *codecs, sgz_source source,
                             sgz_error *err);
/* Read the first bytes and see what they are: gzip, zstd or (anything else) a tar. May be
 * called again after SGZ_ECANCELLED. The caller then sees to it that codecs->zstd is loaded
 * if input->wrap asks for it. */
sgz_status sgz_io_input_peek(sgz_input *input, sgz_error *err);
/* `memory` bounds the window of a zstd frame; 0: SGZ_ZSTD_MEMORY. */
sgz_status sgz_io_input_begin(sgz_input *input, int64_t memory, sgz_error *err);
/* Have the tokens of what is read noted, if it is gzip: by input->lz, whose `to` the caller sets.
 * After sgz_io_input_begin, before anything is read. */
sgz_status sgz_io_input_tokens(sgz_input *input, sgz_error *err);
/* The ranges of a plain tar, as one stream. */
sgz_status sgz_io_input_open_extents(sgz_input *input, const sgz_codecs *codecs, int fd,
                                     const sgz_extent *extents, size_t count, sgz_error *err);
void sgz_io_input_close(sgz_input *input);

/* Fill out[0..cap); *got < cap only at the end of the tar, or with SGZ_ECANCELLED when a
 * signal interrupted the wait for a pipe: what was got by then is good. */
sgz_status sgz_io_input_read(sgz_input *input, uint8_t *out, size_t cap, size_t *got,
                             sgz_error *err);

/* What is to be noted of bytes of the source that were ignored, as far as it was read. */
unsigned sgz_io_input_note(const sgz_input *input);

/* What a stream that begins with these bytes is wrapped in. */
sgz_wrap sgz_io_wrap_of(const uint8_t *data, size_t len);

#endif
