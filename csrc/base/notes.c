#include "base/notes.h"

#include <string.h>

void sgz_base_note(sgz_notes *notes, unsigned kinds, const char *name, size_t len)
{
    if (len >= SGZ_NOTE_NAME_MAX)
        len = SGZ_NOTE_NAME_MAX - 1;
    for (int kind = 0; kinds; kind++, kinds >>= 1)
        if (kinds & 1 && !notes->count[kind]++ && len) {
            memcpy(notes->first[kind], name, len);
            notes->first[kind][len] = '\0';
        }
}

const char *sgz_base_note_text(sgz_note kind)
{
    static const char *const texts[] = {
#define TEXT(kind, text) text,
        SGZ_NOTES(TEXT)
#undef TEXT
    };
    return texts[kind];
}

void sgz_base_notes_add(sgz_notes *notes, const sgz_notes *more)
{
    for (unsigned kind = 0; kind < SGZ_NOTE_KINDS; kind++) {
        if (!notes->count[kind])
            memcpy(notes->first[kind], more->first[kind], sizeof notes->first[kind]);
        notes->count[kind] += more->count[kind];
    }
}
