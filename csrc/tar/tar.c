/* Tar headers in, entries out: the state machine, and which block is a header. */
#include "tar/internal.h"

sgz_tar_parser *sgz_tar_parser_new(void)
{
    return calloc(1, sizeof(sgz_tar_parser));
}

void sgz_tar_parser_free(sgz_tar_parser *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->global_count; i++)
        free((char *)p->globals[i].key);
    free(p->globals);
    free(p->global_uname);
    free(p->global_gname);
    free(p->merged);
    free(p->xattrs);
    free(p->runs);
    free(p->records.data);
    free(p->own.data);
    free(p->long_name.data);
    free(p->long_link.data);
    free(p->unused.data);
    free(p);
}

void sgz_tar_take_any_type(sgz_tar_parser *p)
{
    p->any_type = 1;
}

void sgz_tar_keep_records(sgz_tar_parser *p)
{
    p->keep_records = 1;
}

void sgz_tar_read_in_place(sgz_tar_parser *p)
{
    p->in_place = 1;
}

int sgz_tar_is_in_place(const sgz_tar_parser *p)
{
    return p->in_place;
}

int sgz_tar_idle(const sgz_tar_parser *p)
{
    return p->state == TAR_AT_HEADER && !p->pending;
}

/* The header's checksum, its own field counted as blanks. Old writers summed signed
 * bytes. *zero: the whole block is NUL. */
static int checksum_matches(const uint8_t *block, int *zero)
{
    const uint64_t lanes = 0x00ff00ff00ff00ffULL;
    uint64_t sums = 0, any = 0;
    for (int i = 0; i < SGZ_TAR_BLOCK; i += 8) {
        uint64_t word;
        memcpy(&word, block + i, 8);
        any |= word;
        sums += (word & lanes) + (word >> 8 & lanes); /* at most 64 * 510 in 16 bits */
    }
    *zero = !any;
    if (!any)
        return 0;
    int64_t sum = (int64_t)((sums & 0xffff) + (sums >> 16 & 0xffff) + (sums >> 32 & 0xffff)
                            + (sums >> 48)) + 8 * ' ';
    int64_t stored, high = 0;
    for (int i = 0; i < 8; i++)
        sum -= block[TAR_CHKSUM + i];
    if ((block[TAR_CHKSUM] & 0x80) || sgz_tar_number(block, TAR_CHKSUM, 8, &stored))
        return 0;
    if (stored == sum)
        return 1;
    for (int i = 0; i < SGZ_TAR_BLOCK; i++)
        high += block[i] >> 7 && (i < TAR_CHKSUM || i >= TAR_CHKSUM + 8);
    return stored == sum - 256 * high;
}

/* --- one entry ------------------------------------------------------------------------ */

static void entry_done(sgz_tar_parser *p, sgz_tar_event *event, sgz_tar_entry *entry)
{
    p->state = TAR_AT_HEADER;
    p->pending = 0;
    *event = SGZ_TAR_ENTRY;
    p->entry.rewrite = (p->entry.notes & ~TAR_KEPT) != 0;
    *entry = p->entry;
}

/* What a step of reading a sparse map came to; without its map the file may be left out. */
static sgz_status mapped(sgz_tar_parser *p, sgz_status status)
{
    unsigned note = p->over_limit ? SGZ_NOTE_BIT(TOO_LARGE) : SGZ_NOTE_BIT(NO_FILE);
    return status == SGZ_ETAR && left_out(p, note) ? SGZ_OK : status;
}

/* Whether PAX records say that the file is sparse. As to GNU tar it is not by any of them. */
static int is_pax_sparse(const sgz_tar_parser *p)
{
    const sgz_tar_sparse_keys *sparse = &p->sparse;
    if (!p->in_place)
        return sparse->seen;
    return !p->entry.left_out && (sparse->major > 0 || sparse->map_seen || sparse->pair_seen ||
                                  (!sparse->blocks && !p->entry.payload));
}

static sgz_status start_old_map(sgz_tar_parser *p, int64_t offset, sgz_error *err)
{
    sgz_tar_entry *entry = &p->entry;
    if (header_format(p->header) != TAR_GNU)
        return bad_entry(entry, offset, "a sparse entry of a kind that is not GNU tar's; make the "
                         "tar with GNU tar", err);
    if (p->header[TAR_GNU_EXTENDED])
        p->state = TAR_AT_OLD_MAP;
    if (sgz_tar_number(p->header, TAR_GNU_REALSIZE, &entry->size) || entry->size < 0)
        return bad_entry(entry, offset, "the sparse file's size is not a number", err);
    return sgz_tar_add_old_runs(p, p->header, TAR_GNU_SPARSE, 4, offset, err);
}

static sgz_status on_entry(sgz_tar_parser *p, int64_t offset, sgz_tar_event *event,
                           sgz_tar_entry *out, sgz_error *err)
{
    sgz_status status = sgz_tar_set_entry(p, offset, err);
    if (!status && p->over_limit)
        left_out(p, SGZ_NOTE_BIT(TOO_LARGE));
    int pax_sparse = is_pax_sparse(p);
    if (!status && p->sparse.seen && !pax_sparse && p->sparse.real_size >= 0
        && p->sparse.real_size != p->entry.size && !p->entry.left_out)
        p->entry.notes |= SGZ_NOTE_BIT(FIELD);
    if (!status && pax_sparse)
        status = mapped(p, sgz_tar_start_pax_sparse(p, offset, err));
    else if (!status && p->header[TAR_TYPE] == 'S')
        status = mapped(p, start_old_map(p, offset, err));
    if (status || p->state != TAR_AT_HEADER)
        return status;
    if (p->header[TAR_TYPE] == 'S' && !pax_sparse && !p->entry.left_out)
        status = mapped(p, sgz_tar_finish_map(p, offset, err));
    if (!status)
        entry_done(p, event, out);
    return status;
}

/* --- PAX and long-name bodies --------------------------------------------------------- */

static sgz_status body_done(sgz_tar_parser *p, sgz_tar_event *event, sgz_error *err)
{
    sgz_tar_buffer *body = p->body;
    sgz_status status = SGZ_OK;
    p->state = TAR_AT_HEADER;
    body->len = p->body_size;
    if (p->body_type == 'x' && p->keep_records && body->len) {
        if (!SGZ_FIT(p->own.data, p->own.cap, body->len))
            return sgz_base_fail(err, SGZ_ENOMEM, p->body_at, NULL, 0, "no memory for tar headers");
        memcpy(p->own.data, body->data, body->len);
    }
    if (p->body_type == 'x' || p->body_type == 'g') {
        status = sgz_tar_parse_records(p, p->body_type == 'g', err);
        if (p->body_type == 'g') {
            p->pending = 0;
            *event = SGZ_TAR_GLOBAL;
        }
        return status;
    }
    if (p->body == &p->unused)
        return SGZ_OK;
    char *nul = memchr(body->data, 0, body->len);
    if (nul)
        body->len = (size_t)(nul - body->data);
    if (!body->len) { /* as if it were not there, like Go */
        *(p->body_type == 'L' ? &p->has_long_name : &p->has_long_link) = 0;
        p->notes |= SGZ_NOTE_BIT(EMPTY);
    }
    return SGZ_OK;
}

static sgz_status start_body(sgz_tar_parser *p, int type, int64_t offset,
                             sgz_tar_event *event, sgz_error *err)
{
    int64_t size;
    sgz_status status;
    sgz_tar_text name = field_text(p->header, TAR_NAME);
    int *has = type == 'L' ? &p->has_long_name
             : type == 'K' ? &p->has_long_link : &p->has_records;
    int unused = type == 'g' && p->pending && p->in_place;
    if (sgz_tar_number(p->header, TAR_SIZE, &size) || size < 0)
        return sgz_base_fail(err, SGZ_ETAR, offset, name.text, name.len,
                             "the size in an extended tar header is not a number");
    if (*has && type == 'x') { /* its map is none any more */
        p->meta_bytes += p->map_bytes;
        p->map_bytes = 0;
    }
    int64_t room = SGZ_TAR_LONG_MAX - p->meta_bytes + (type == 'x' ? SGZ_TAR_MAP_MAX : 0);
    int64_t kept = size <= room ? size : room > 0 ? room : 0;
    if (kept < size && type == 'g')
        return sgz_base_fail(err, SGZ_ETAR, offset, name.text, name.len,
                             "a PAX global header is over the limit of 1 MiB");
    if (kept < size && (status = sgz_tar_over_limit(p, offset, name, err)))
        return status;
    if (type == 'g' && p->pending && !unused)
        return sgz_base_fail(err, SGZ_ETAR, offset, NULL, 0,
                             "a PAX global header between the headers of one entry");
    if (*has && !unused) { /* the last wins, whole */
        p->notes |= SGZ_NOTE_BIT(TWICE);
        if (type == 'x')
            sgz_tar_reset_records(p);
    }
    if (unused)
        p->notes |= SGZ_NOTE_BIT(GLOBAL_NAME);
    else
        *has = type != 'g';
    p->pending = 1;
    p->meta_bytes += kept;
    p->body = unused ? &p->unused : type == 'L' ? &p->long_name
            : type == 'K' ? &p->long_link : &p->records;
    p->body_type = (char)(unused ? 0 : type);
    p->body_size = (size_t)kept;
    p->body_left = size;
    p->body_at = offset;
    if (p->body == &p->records)
        p->records_at = offset + SGZ_TAR_BLOCK;
    p->body->len = 0;
    if (!SGZ_FIT(p->body->data, p->body->cap, SGZ_TAR_BLOCK))
        return sgz_base_fail(err, SGZ_ENOMEM, offset, NULL, 0, "no memory for tar headers");
    if (!size)
        return body_done(p, event, err);
    p->state = TAR_AT_BODY;
    return SGZ_OK;
}

/* Memory is taken as the body comes: its size is only stated. */
static sgz_status on_body(sgz_tar_parser *p, const uint8_t *block, int64_t offset,
                          sgz_tar_event *event, sgz_error *err)
{
    sgz_tar_buffer *body = p->body;
    if (body->len < p->body_size) {
        if (!SGZ_FIT(body->data, body->cap, body->len + SGZ_TAR_BLOCK))
            return sgz_base_fail(err, SGZ_ENOMEM, offset, NULL, 0, "no memory for tar headers");
        memcpy(body->data + body->len, block, SGZ_TAR_BLOCK);
        body->len += SGZ_TAR_BLOCK;
    }
    if (p->body_left > SGZ_TAR_BLOCK) {
        p->body_left -= SGZ_TAR_BLOCK;
        return SGZ_OK;
    }
    return body_done(p, event, err);
}

/* --- the door ------------------------------------------------------------------------- */

static sgz_status on_header(sgz_tar_parser *p, const uint8_t *block, int64_t offset,
                            sgz_tar_event *event, sgz_tar_entry *entry, sgz_error *err)
{
    int zero;
    if (!checksum_matches(block, &zero)) {
        if (zero && (!p->pending || p->in_place)) {
            p->pending = 0;
            *event = SGZ_TAR_END;
            return SGZ_OK;
        }
        return sgz_base_fail(err, SGZ_ETAR, offset, NULL, 0, "%s",
                             zero ? "a block of zeros between the headers of one entry"
                             : offset ? "not a tar header (its checksum does not match)"
                                      : "no tar: it does not begin with a header (the checksum "
                                        "does not match)");
    }
    if (!p->pending) {
        p->has_records = p->has_long_name = p->has_long_link = 0;
        p->meta_bytes = p->map_bytes = 0;
        p->over_limit = 0;
        p->notes = 0;
        p->records.len = 0;
        sgz_tar_reset_records(p);
    }
    memcpy(p->header, block, SGZ_TAR_BLOCK);
    p->header_at = offset;
    switch (block[TAR_TYPE]) {
    case 'X':
        p->notes |= SGZ_NOTE_BIT(SOLARIS);
        return start_body(p, 'x', offset, event, err);
    case 'x':
    case 'g':
    case 'L':
    case 'K':
        return start_body(p, block[TAR_TYPE], offset, event, err);
    default:
        return on_entry(p, offset, event, entry, err);
    }
}

static sgz_status feed(sgz_tar_parser *p, const uint8_t *block, int64_t offset,
                       sgz_tar_event *event, sgz_tar_entry *entry, sgz_error *err)
{
    sgz_status status;
    int done = 0;
    switch (p->state) {
    case TAR_AT_HEADER:
        return on_header(p, block, offset, event, entry, err);
    case TAR_AT_BODY:
        return on_body(p, block, offset, event, err);
    case TAR_AT_OLD_MAP:
        if (!p->entry.left_out
            && (status = mapped(p, sgz_tar_add_old_runs(p, block, 0, TAR_EXT_PAIRS, offset, err))))
            return status;
        if (block[TAR_EXT_EXTENDED])
            return SGZ_OK;
        break;
    case TAR_AT_MAP:
        if ((status = mapped(p, sgz_tar_feed_map(p, block, offset, &done, err))))
            return status;
        if (!done && !p->entry.left_out)
            return SGZ_OK;
        p->entry.payload = p->map_left;
        break;
    }
    if (!p->entry.left_out && (status = mapped(p, sgz_tar_finish_map(p, offset, err))))
        return status;
    entry_done(p, event, entry);
    return SGZ_OK;
}

sgz_status sgz_tar_feed(sgz_tar_parser *p, const uint8_t block[SGZ_TAR_BLOCK],
                        int64_t offset, sgz_tar_event *event, sgz_tar_entry *entry,
                        sgz_error *err)
{
    *event = SGZ_TAR_MORE;
    if (p->failed)
        return sgz_base_fail(err, SGZ_ETAR, offset, NULL, 0,
                             "the tar was already found malformed");
    sgz_status status = feed(p, block, offset, event, entry, err);
    p->failed = status != SGZ_OK;
    if (*event == SGZ_TAR_ENTRY || *event == SGZ_TAR_GLOBAL) {
        entry->header = p->header_at;
        entry->block = p->header;
        entry->own = p->keep_records ? p->own.data : NULL;
        entry->records = p->records_at;
        entry->records_len = p->records.len;
    }
    return status;
}
