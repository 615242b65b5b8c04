#include "index/texts.h"

#include "base/bytes.h"

static const char *text_of(const sgz_toc *toc, const sgz_entry *row, int kind, size_t *len)
{
    switch (kind) {
    case SGZ_TEXT_NAME:
        *len = row->name_len;
        return toc->arena + row->name_off;
    case SGZ_TEXT_LINK:
        *len = row->link_len;
        return toc->arena + row->link_off;
    case SGZ_TEXT_USER:
        return sgz_toc_string(toc, row->uname, len);
    default:
        return sgz_toc_string(toc, row->gname, len);
    }
}

int sgz_index_next_text(sgz_index_texts *t, sgz_toc_text *text)
{
    for (; t->row < t->toc->count; t->row++, t->kind = 0) {
        const sgz_entry *row = &t->toc->rows[t->row];
        if (sgz_toc_is_piece(row) || row->flags & SGZ_DROPPED)
            continue;
        while (t->kind <= SGZ_TEXT_GROUP) {
            size_t len;
            int kind = t->kind++;
            const char *at = text_of(t->toc, row, kind, &len);
            if (sgz_is_utf8(at, len))
                continue;
            *text = (sgz_toc_text){t->entry, (sgz_toc_text_kind)kind, at, len};
            return 1;
        }
        t->entry++;
    }
    return 0;
}
