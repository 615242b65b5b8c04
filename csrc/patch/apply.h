/* Applying a patch: NEW from BASE and what the patch brings, in bounded memory.
 *
 * BASE is hashed first. Then one thread reads the patch and puts NEW together, another hashes
 * it, a third writes it. NEW is right only once sgz_patch_apply_finish says so: a sink that
 * others see at once gets the last part, from the TOC on, not before. */
#ifndef SGZ_PATCH_APPLY_H
#define SGZ_PATCH_APPLY_H

#include "codec/decode.h"
#include "patch/frames.h"
#include "io/sink.h"

/* How large NEW may become when nobody says it: a small patch can ask for any size. BASE's size
 * times the first, and what frames inflate to; but at least the second. */
#define SGZ_PATCH_NEW_TIMES 4
#define SGZ_PATCH_NEW_FREE ((int64_t)1 << 30)

typedef struct {
    uint8_t digest[32];
    int64_t size;
    int64_t copied;         /* bytes of NEW that were copied from BASE */
    int64_t regenerated;    /* compressed anew: members, the TOC */
    int64_t received;       /* in the patch as they are */
    int64_t patch_size;
} sgz_patch_result;

typedef struct sgz_patch_apply sgz_patch_apply;

/* Start the job's threads: three, or one that does everything. Its progress is in bytes of BASE
 * and NEW together. `reader` has read `head`. BASE is head's base_size bytes long. With `spool`
 * >= 0, the descriptor of an empty temporary file, NEW's bytes from its TOC on are kept there
 * until NEW's digest is right. NEW has at most `max_size` bytes; 0: as above. Everything pointed to
 * must live until sgz_patch_apply_finish. */
sgz_status sgz_patch_apply_start(sgz_patch_apply **apply, sgz_base_job *job,
                                 const sgz_codecs *codecs, sgz_patch_reader *reader,
                                 const sgz_patch_head *head, const sgz_blob *base,
                                 const sgz_sink *sink, int spool, int64_t max_size, int threads,
                                 sgz_error *err);
/* Join the threads and free everything. A BASE or a NEW of another digest is SGZ_EDIGEST, with
 * the name "BASE" or "NEW"; what is wrong with the patch SGZ_EPATCH. */
sgz_status sgz_patch_apply_finish(sgz_patch_apply *apply, sgz_patch_result *result,
                                  sgz_error *err);

#endif
