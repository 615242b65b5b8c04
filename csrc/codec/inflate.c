/* Reading members: see codec/gzip.h. */
#include "codec/inflate.h"

#include "base/bytes.h"
#include "base/vec.h"
#include "codec/blocks.h"
#include "codec/lz.h"

#define HEADER_MAX (1 << 20)  /* of one member: name, comment and extra field together */

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

sgz_status sgz_codec_gzip_header(const sgz_codecs *codecs, const uint8_t *data, size_t len,
                                 size_t *header_len, int *is_member, sgz_error *err)
{
    static const uint8_t magic[] = {0x1f, 0x8b};
    *header_len = 0;
    *is_member = 0;
    size_t seen = len < sizeof magic ? len : sizeof magic;
    if (memcmp(data, magic, seen))
        return sgz_base_fail(err, SGZ_EDATA, -1, NULL, 0, "not a gzip member");
    if (len < SGZ_GZIP_HEADER)
        return SGZ_OK;
    *is_member = 1;
    uint8_t flags = data[3];
    if (data[2] != 8)
        return sgz_base_fail(err, SGZ_EDATA, -1, NULL, 0,
                             "gzip header with compression method %u, which is not deflate",
                             (unsigned)data[2]);
    if (flags & 0xe0)
        return sgz_base_fail(err, SGZ_EDATA, -1, NULL, 0, "gzip header with reserved flags");
    size_t at = SGZ_GZIP_HEADER;
    if (flags & 4) {
        if (len < at + 2)
            return SGZ_OK;
        at += 2 + ((size_t)data[at] | (size_t)data[at + 1] << 8);
    }
    for (int text = 0; text < 2; text++) {
        if (!(flags & (text ? 16 : 8)))
            continue;
        const uint8_t *end = at < len ? memchr(data + at, 0, len - at) : NULL;
        if (!end)
            return SGZ_OK;
        at = (size_t)(end - data) + 1;
    }
    if (flags & 2) {
        if (len < at + 2)
            return SGZ_OK;
        uint16_t crc = (uint16_t)sgz_codec_crc32(codecs, 0, data, at);
        uint16_t said = (uint16_t)(data[at] | data[at + 1] << 8);
        if (crc != said)
            return sgz_base_fail(err, SGZ_EDATA, -1, NULL, 0,
                                 "corrupt gzip header: CRC-16 is %04x, it says %04x", crc, said);
        at += 2;
    }
    if (at <= len)
        *header_len = at;
    return SGZ_OK;
}

sgz_status sgz_codec_inflater_init(sgz_inflater *z, const sgz_codecs *codecs, sgz_error *err)
{
    memset(z, 0, sizeof *z);
    z->codecs = codecs;
    z->state = aligned_alloc(64, (sizeof *z->state + 63) / 64 * 64);
    if (!z->state)
        return no_memory(err);
    codecs->isal.inflate_init(z->state);
    return SGZ_OK;
}

void sgz_codec_inflater_free(sgz_inflater *z)
{
    free(z->state);
    free(z->header);
    memset(z, 0, sizeof *z);
}

sgz_status sgz_codec_inflater_copy(sgz_inflater *to, const sgz_inflater *from, sgz_error *err)
{
    sgz_inflater own = *to;
    if (!SGZ_FIT(own.header, own.header_cap, from->header_len))
        return no_memory(err);
    *to = *from;
    to->state = own.state;
    to->header = own.header;
    to->header_cap = own.header_cap;
    memcpy(to->state, from->state, sizeof *to->state);
    if (from->header_len)
        memcpy(to->header, from->header, from->header_len);
    return SGZ_OK;
}

void sgz_codec_inflater_reset(sgz_inflater *z, int64_t offset)
{
    z->phase = SGZ_PHASE_HEADER;
    z->base = z->member_offset = offset;
    z->members = 0;
    z->header_len = 0;
    z->pending_len = 0;
    z->garbage = 0;
    z->broken = 0;
    z->partial = 0;
}

/* The inflate state is fresh. */
static void begin_data(sgz_inflater *z)
{
    z->phase = SGZ_PHASE_DATA;
    z->crc = 0;
    z->size = 0;
    z->tail_len = 0;
    z->partial = 0;
    z->codecs->isal.inflate_reset(z->state);
}

sgz_status sgz_codec_inflater_resume(sgz_inflater *z, int64_t offset, unsigned skip,
                                     const uint8_t *window, size_t history, sgz_error *err)
{
    sgz_codec_inflater_reset(z, offset);
    begin_data(z);
    if (!z->codecs->isal.blocks && (history || skip))
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0,
                             "this ISA-L does not begin within a gzip member; use ISA-L 2.24 or "
                             "newer (pip install isal)");
    sgz_isal_enter(&z->codecs->isal, z->state, 0, 0, window, (uint32_t)history);
    z->partial = history != 0;
    z->skip = (uint8_t)skip;
    if (skip)
        z->phase = SGZ_PHASE_BITS;
    return SGZ_OK;
}

int sgz_codec_inflater_at_member_end(const sgz_inflater *z)
{
    return z->phase == SGZ_PHASE_GARBAGE || (z->phase == SGZ_PHASE_HEADER && !z->header_len);
}

static void take(sgz_inflater *z, const uint8_t **in, size_t *in_len, size_t n)
{
    *in += n;
    *in_len -= n;
    z->base += (int64_t)n;
}

static void pass_garbage(sgz_inflater *z, const uint8_t **in, size_t *in_len)
{
    for (size_t i = 0; i < *in_len && z->garbage != SGZ_GARBAGE; i++)
        if ((*in)[i])
            z->garbage = SGZ_GARBAGE;
    take(z, in, in_len, *in_len);
}

/* Zeros or other bytes behind a member are ignored, as gzip does; before the first one
 * they are an error, and so is a member that cannot be decoded. */
static sgz_status not_a_member(sgz_inflater *z, int is_member, const uint8_t **in, size_t *in_len,
                               sgz_error *err)
{
    if (is_member || !z->members) {
        err->offset = z->member_offset;
        return SGZ_EDATA;
    }
    z->phase = SGZ_PHASE_GARBAGE;
    z->garbage = 1;
    for (size_t i = 0; i < z->header_len; i++)
        if (z->header[i])
            z->garbage = SGZ_GARBAGE;
    pass_garbage(z, in, in_len);
    return SGZ_OK;
}

static sgz_status read_header(sgz_inflater *z, const uint8_t **in, size_t *in_len, sgz_error *err)
{
    size_t header_len;
    int is_member;
    sgz_error trial;
    if (!z->header_len)
        z->member_offset = z->base;
    if (!z->header_len) {
        if (sgz_codec_gzip_header(z->codecs, *in, *in_len, &header_len, &is_member, &trial)) {
            if (err)
                *err = trial;
            return not_a_member(z, is_member, in, in_len, err ? err : &trial);
        }
        if (header_len) {
            take(z, in, in_len, header_len);
            goto found;
        }
    }
    /* The header is split between inputs: gather it, in growing steps so that a long one is
     * not parsed once a byte. What was gathered behind its end goes back to this input. */
    while (*in_len) {
        size_t step = z->header_len > 64 ? z->header_len : 64;
        step = step < *in_len ? step : *in_len;
        if (z->header_len + step > HEADER_MAX)
            return sgz_base_fail(err, SGZ_EDATA, z->member_offset, NULL, 0,
                                 "gzip header larger than 1 MiB");
        if (!SGZ_FIT(z->header, z->header_cap, z->header_len + step))
            return no_memory(err);
        memcpy(z->header + z->header_len, *in, step);
        z->header_len += step;
        take(z, in, in_len, step);
        if (sgz_codec_gzip_header(z->codecs, z->header, z->header_len, &header_len, &is_member,
                                  &trial)) {
            if (err)
                *err = trial;
            return not_a_member(z, is_member, in, in_len, err ? err : &trial);
        }
        if (header_len) {
            size_t back = z->header_len - header_len;
            *in -= back;
            *in_len += back;
            z->base -= (int64_t)back;
            goto found;
        }
    }
    return SGZ_OK;
found:
    z->header_len = 0;
    begin_data(z);
    return SGZ_OK;
}

static const char *inflate_error(int code)
{
    switch (code) {
    case SGZ_BROKEN_BLOCK: return "corrupt gzip member: invalid deflate block";
    case SGZ_BROKEN_SYMBOL: return "corrupt gzip member: invalid deflate symbol";
    case SGZ_BROKEN_DISTANCE: return "corrupt gzip member: distance too far back";
    default: return "corrupt gzip member: invalid deflate data";
    }
}

/* The last bytes that the inflate state took in, across inputs. */
static void keep_tail(sgz_inflater *z, const uint8_t *data, size_t len)
{
    size_t cap = sizeof z->tail;
    if (len >= cap) {
        memcpy(z->tail, data + len - cap, cap);
        z->tail_len = (unsigned)cap;
        return;
    }
    size_t keep = z->tail_len < cap - len ? z->tail_len : cap - len;
    memmove(z->tail, z->tail + z->tail_len - keep, keep);
    memcpy(z->tail + keep, data, len);
    z->tail_len = (unsigned)(keep + len);
}

/* ISA-L found broken deflate data. Where a symbol or a distance is wrong, it has already
 * counted the match as output: up to 258 bytes that are whatever lay there, perhaps of the
 * member decoded before, perhaps even the right ones. How many is not known, so that many are
 * dropped; they are the last ones in the state, or else of `*made`. */
static void break_off(sgz_inflater *z, int code, size_t *made)
{
    sgz_isal_inflate_state *s = z->state;
    size_t held = (size_t)(s->tmp_out_valid - s->tmp_out_processed);
    size_t drop = code == SGZ_BROKEN_BLOCK ? 0 : SGZ_MATCH_MAX;
    size_t from_state = drop < held ? drop : held;
    s->tmp_out_valid -= (int32_t)from_state;
    drop -= from_state;
    *made -= drop < *made ? drop : *made;
    z->broken = code;
    z->phase = SGZ_PHASE_BROKEN;
}

/* Give what the state holds from before the break; then there is nothing but the error. */
static sgz_status read_broken(sgz_inflater *z, uint8_t *out, size_t cap, size_t *made,
                              sgz_error *err)
{
    sgz_isal_inflate_state *s = z->state;
    size_t held = (size_t)(s->tmp_out_valid - s->tmp_out_processed);
    if (!held)
        return sgz_base_fail(err, SGZ_EDATA, z->member_offset, NULL, 0, "%s",
                             inflate_error(z->broken));
    *made = held < cap ? held : cap;
    memcpy(out, s->tmp_out + s->tmp_out_processed, *made);
    s->tmp_out_processed += (int32_t)*made;
    return SGZ_OK;
}

void sgz_codec_inflate_took(sgz_inflater *z, const uint8_t **in, size_t *in_len, size_t n)
{
    const uint8_t *from = *in;
    take(z, in, in_len, n);
    keep_tail(z, from, n);
}

void sgz_codec_inflate_made(sgz_inflater *z, const uint8_t *data, size_t len)
{
    z->crc = sgz_codec_crc32(z->codecs, z->crc, data, len);
    z->size += (uint32_t)len;
}

/* The upper bits of the first byte, as if the lower ones had been decoded. */
static void read_bits(sgz_inflater *z, const uint8_t **in, size_t *in_len)
{
    z->state->read_in = (uint64_t)(**in >> z->skip);
    z->state->read_in_length = 8 - z->skip;
    sgz_codec_inflate_took(z, in, in_len, 1);
    z->phase = SGZ_PHASE_DATA;
}

sgz_status sgz_codec_inflate_data(sgz_inflater *z, const uint8_t **in, size_t *in_len,
                                  uint8_t *out, size_t cap, size_t *made, sgz_error *err)
{
    sgz_isal_inflate_state *s = z->state;
    uint32_t give = *in_len > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)*in_len;
    uint32_t room = cap > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)cap;
    s->next_in = (uint8_t *)*in;
    s->avail_in = give;
    s->next_out = out;
    s->avail_out = room;
    int code = z->codecs->isal.inflate(s);
    *made = (size_t)(s->next_out - out); /* avail_out is wrong after an error */
    if (code < 0) {
        break_off(z, code, made);
        return SGZ_OK;
    }
    /* At the end of the data ISA-L gives back the bytes it held in its bit buffer: more than
     * it was given now, if some came from an earlier input. Those are kept in `tail`. */
    unsigned before = s->avail_in > give ? s->avail_in - give : 0;
    if (before > z->tail_len) /* it counted bits that the input does not have */
        return sgz_base_fail(err, SGZ_EDATA, z->member_offset, NULL, 0,
                             "corrupt gzip member: the deflate data ends early");
    size_t used = before ? 0 : give - s->avail_in;
    sgz_codec_inflate_took(z, in, in_len, used);
    sgz_codec_inflate_made(z, out, *made);
    if (s->block_state == SGZ_ISAL_BLOCK_FINISH) {
        /* Whole bytes that the bit buffer took from behind the deflate data: the trailer's
         * first ones, and perhaps the next header's. They go back to the input, or to
         * `pending` where an earlier input held them. */
        unsigned bytes = (unsigned)s->read_in_length / 8;
        uint64_t bits = s->read_in >> (s->read_in_length % 8);
        size_t back = used < bytes ? used : bytes;
        *in -= back;
        *in_len += back;
        z->base -= (int64_t)back;
        z->pending_len = bytes - (unsigned)back;
        for (unsigned i = 0; i < z->pending_len; i++)
            z->pending[i] = (uint8_t)(bits >> (8 * i));
        if (before) {
            memcpy(z->pending, z->tail + z->tail_len - before, before);
            z->pending_len = before;
        }
        s->read_in_length = 0;
        z->phase = SGZ_PHASE_TRAILER;
    }
    return SGZ_OK;
}

static sgz_status read_trailer(sgz_inflater *z, const uint8_t **in, size_t *in_len,
                               sgz_error *err)
{
    size_t want = SGZ_GZIP_TRAILER - z->pending_len;
    if (want > *in_len)
        want = *in_len;
    memcpy(z->pending + z->pending_len, *in, want);
    z->pending_len += (unsigned)want;
    take(z, in, in_len, want);
    if (z->pending_len < SGZ_GZIP_TRAILER)
        return SGZ_OK;
    z->pending_len = 0;
    if (!z->partial && sgz_get_le32(z->pending) != z->crc)
        return sgz_base_fail(err, SGZ_EDATA, z->member_offset, NULL, 0,
                             "corrupt gzip member: CRC-32 is %08x, trailer says %08x", z->crc,
                             sgz_get_le32(z->pending));
    if (!z->partial && sgz_get_le32(z->pending + 4) != z->size)
        return sgz_base_fail(err, SGZ_EDATA, z->member_offset, NULL, 0,
                             "corrupt gzip member: length is %u, trailer says %u", z->size,
                             sgz_get_le32(z->pending + 4));
    z->members++;
    z->phase = SGZ_PHASE_HEADER;
    return SGZ_OK;
}

sgz_status sgz_codec_inflate(sgz_inflater *z, const uint8_t **in, size_t *in_len, uint8_t *out,
                             size_t out_cap, size_t *out_len, int stop_at_member_end,
                             sgz_error *err)
{
    return sgz_codec_inflate_by(sgz_codec_inflate_data, z, in, in_len, out, out_cap, out_len,
                                stop_at_member_end, err);
}

sgz_status sgz_codec_inflate_by(sgz_inflate_data *data, sgz_inflater *z, const uint8_t **in,
                                size_t *in_len, uint8_t *out, size_t out_cap, size_t *out_len,
                                int stop_at_member_end, sgz_error *err)
{
    *out_len = 0;
    for (;;) {
        sgz_status status = SGZ_OK;
        size_t made = 0;
        switch (z->phase) {
        case SGZ_PHASE_HEADER:
            if (!*in_len)
                return SGZ_OK;
            status = read_header(z, in, in_len, err);
            break;
        case SGZ_PHASE_BITS:
            if (!*in_len)
                return SGZ_OK;
            read_bits(z, in, in_len);
            break;
        case SGZ_PHASE_DATA:
            status = data(z, in, in_len, out + *out_len, out_cap - *out_len, &made, err);
            *out_len += made;
            if (!status && z->phase == SGZ_PHASE_DATA && (*out_len == out_cap || !*in_len))
                return SGZ_OK;
            break;
        case SGZ_PHASE_TRAILER:
            if (!*in_len && z->pending_len < SGZ_GZIP_TRAILER)
                return SGZ_OK;
            status = read_trailer(z, in, in_len, err);
            if (!status && z->phase == SGZ_PHASE_HEADER && stop_at_member_end)
                return SGZ_OK;
            break;
        case SGZ_PHASE_BROKEN:
            status = read_broken(z, out + *out_len, out_cap - *out_len, &made, err);
            *out_len += made;
            if (!status && *out_len == out_cap)
                return SGZ_OK;
            break;
        default:
            pass_garbage(z, in, in_len);
            return SGZ_OK;
        }
        if (status)
            return status;
    }
}
