#include "toc/parser.h"

static const struct {
    const char *name, *folded;
    size_t len;
} keys[KEY_COUNT] = {
#define KEY(code, name, folded) [code] = {name, folded, sizeof(name) - 1}
    KEY(KEY_NAME, "name", "name"),
    KEY(KEY_TYPE, "type", "type"),
    KEY(KEY_MODTIME, "modtime", "modtime"),
    KEY(KEY_LINK, "linkName", "linkname"),
    KEY(KEY_UNAME, "userName", "username"),
    KEY(KEY_GNAME, "groupName", "groupname"),
    KEY(KEY_DIGEST, "digest", "digest"),
    KEY(KEY_CHUNK_DIGEST, "chunkDigest", "chunkdigest"),
    KEY(KEY_CHUNK_TYPE, "chunkType", "chunktype"),
    KEY(KEY_ACCESSED, "accesstime", "accesstime"),
    KEY(KEY_CHANGED, "changetime", "changetime"),
    KEY(KEY_SIZE, "size", "size"),
    KEY(KEY_MODE, "mode", "mode"),
    KEY(KEY_UID, "uid", "uid"),
    KEY(KEY_GID, "gid", "gid"),
    KEY(KEY_OFFSET, "offset", "offset"),
    KEY(KEY_INNER_OFFSET, "innerOffset", "inneroffset"),
    KEY(KEY_DEV_MAJOR, "devMajor", "devmajor"),
    KEY(KEY_DEV_MINOR, "devMinor", "devminor"),
    KEY(KEY_CHUNK_OFFSET, "chunkOffset", "chunkoffset"),
    KEY(KEY_CHUNK_SIZE, "chunkSize", "chunksize"),
    KEY(KEY_END_OFFSET, "endOffset", "endoffset"),
    KEY(KEY_XATTRS, "xattrs", "xattrs"),
    KEY(KEY_NUM_LINK, "NumLink", "numlink"),
#undef KEY
};

const char *sgz_toc_key_name(int key)
{
    return key >= 0 && key < KEY_COUNT ? keys[key].name : "";
}

/* --- keys ----------------------------------------------------------------------------- */

size_t sgz_toc_fold_key(const sgz_json_span *span, char out[SGZ_TOC_KEY_MAX + 1], int *disputed)
{
    char text[(SGZ_TOC_KEY_MAX + 1) * 6 * 3];
    int bad = 0, beyond = 0;
    if (span->len > sizeof text / 3)
        return 0;
    size_t len = sgz_base_json_decode(span, text, &bad), n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (n == SGZ_TOC_KEY_MAX)
            return 0;
        if (c >= 'A' && c <= 'Z')
            c |= 0x20;
        else if (len - i >= 3 && !memcmp(text + i, "\xe2\x84\xaa", 3))
            c = 'k', i += 2, beyond = 1;
        else if (len - i >= 2 && !memcmp(text + i, "\xc5\xbf", 2))
            c = 's', i += 1, beyond = 1;
        else if (disputed && len - i >= 2 && !memcmp(text + i, "\xc4\xb0", 2))
            c = 'i', i += 1, beyond = 1;
        out[n++] = c;
    }
    if (disputed)
        *disputed = beyond;
    return n;
}

static int slow_key(const sgz_json_span *span, int chunked)
{
    char folded[SGZ_TOC_KEY_MAX + 1];
    int disputed = 0;
    size_t len = sgz_toc_fold_key(span, folded, chunked ? &disputed : NULL);
    for (int key = 0; len && key < KEY_COUNT; key++)
        if (keys[key].len == len && !memcmp(keys[key].folded, folded, len))
            return disputed ? KEY_DISPUTED : key;
    return KEY_UNKNOWN;
}

static inline int match_key(const sgz_json_span *s, int chunked)
{
    if (!s->plain)
        return slow_key(s, chunked);
#define TRY(key, length) \
    if (!memcmp(s->ptr, keys[key].name, length)) \
        return key
    switch (s->len) {
    case 3:
        TRY(KEY_UID, 3);
        TRY(KEY_GID, 3);
        break;
    case 4:
        TRY(KEY_NAME, 4);
        TRY(KEY_TYPE, 4);
        TRY(KEY_SIZE, 4);
        TRY(KEY_MODE, 4);
        break;
    case 6:
        TRY(KEY_OFFSET, 6);
        TRY(KEY_DIGEST, 6);
        TRY(KEY_XATTRS, 6);
        break;
    case 7:
        TRY(KEY_MODTIME, 7);
        break;
    case 8:
        TRY(KEY_LINK, 8);
        TRY(KEY_UNAME, 8);
        TRY(KEY_DEV_MAJOR, 8);
        TRY(KEY_DEV_MINOR, 8);
        break;
    case 9:
        TRY(KEY_GNAME, 9);
        TRY(KEY_CHUNK_SIZE, 9);
        TRY(KEY_CHUNK_TYPE, 9);
        TRY(KEY_END_OFFSET, 9);
        break;
    case 10:
        TRY(KEY_ACCESSED, 10);
        TRY(KEY_CHANGED, 10);
        break;
    case 11:
        TRY(KEY_CHUNK_DIGEST, 11);
        TRY(KEY_CHUNK_OFFSET, 11);
        TRY(KEY_INNER_OFFSET, 11);
        break;
    default:
        break;
    }
#undef TRY
    return slow_key(s, chunked);
}

/* --- one entry ------------------------------------------------------------------------ */

static sgz_json_result read_value(sgz_json_cursor *c, sgz_toc_fields *f, int key)
{
    if (key == KEY_UNKNOWN || key == KEY_NUM_LINK)
        return sgz_base_json_skip(c, 3);
    if (*c->p == 'n') /* null leaves the field as if it were absent */
        return sgz_base_json_word(c, "null");
    if (key < KEY_TEXTS) {
        if (*c->p != '"')
            return json_bad(c, "expected a string");
        return sgz_json_string(c, &f->texts[key]);
    }
    if (key < KEY_NUMBERS) {
        const char *start = c->p;
        sgz_json_result r = sgz_base_json_int(c, &FIELD(f, key));
        if (!r && FIELD(f, key) < 0) {
            c->p = start;
            return json_bad(c, "must not be negative");
        }
        return r;
    }
    if (*c->p != '{')
        return json_bad(c, "expected an object");
    const char *start = c->p;
    sgz_json_result r = sgz_base_json_skip(c, 3);
    f->xattrs.ptr = start;
    f->xattrs.len = (size_t)(c->p - start);
    return r;
}

sgz_json_result sgz_toc_read_fields(sgz_json_cursor *c, sgz_toc_fields *f)
{
    sgz_json_result r;
    sgz_json_span key;
    c->p++;
    if ((r = sgz_json_space(c)))
        return r;
    if (*c->p == '}') {
        c->p++;
        return JSON_OK;
    }
    for (;;) {
        const char *start = c->p;
        f->key = KEY_UNKNOWN;
        if ((r = sgz_json_key(c, &key)))
            return r;
        int code = match_key(&key, f->chunked);
        /* Of containers/storage alone. */
        if (!f->chunked && (code == KEY_ACCESSED || code == KEY_CHANGED || code == KEY_END_OFFSET))
            code = KEY_UNKNOWN;
        f->key = code;
        if (code == KEY_DISPUTED) {
            c->p = start;
            return json_bad(c, SGZ_TOC_DISPUTED);
        }
        if (code != KEY_UNKNOWN) {
            if (f->seen & 1u << code) {
                c->p = start;
                return json_bad(c, "the key is given twice");
            }
            f->seen |= 1u << code;
        }
        if ((r = sgz_json_space(c)) || (r = read_value(c, f, code)))
            return r;
        /* The reference's layout; anything else goes the long way. */
        if (c->end - c->p > 6 && !memcmp(c->p, ",\n\t\t\t\"", 6)) {
            c->p += 5;
            continue;
        }
        if ((r = sgz_json_space(c)))
            return r;
        if (*c->p == '}') {
            c->p++;
            f->key = KEY_UNKNOWN;
            return JSON_OK;
        }
        if (*c->p != ',')
            return json_bad(c, "expected a comma or the end of the object");
        c->p++;
        if ((r = sgz_json_space(c)))
            return r;
    }
}
