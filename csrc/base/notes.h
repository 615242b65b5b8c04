/* What was not taken as it stands in the input, which its owner should know of: how often, and
 * where first. */
#ifndef SGZ_BASE_NOTES_H
#define SGZ_BASE_NOTES_H

#include <stddef.h>
#include <stdint.h>

#define SGZ_NOTE_NAME_MAX 160

/* NOTE(kind, what follows the count) */
#define SGZ_NOTES(NOTE)                                                                       \
    NOTE(NAME, "names are not UTF-8: in the TOC each bad byte is U+FFFD, as JSON cannot hold " \
               "it")                                                                          \
    NOTE(TIME, "times are outside the years 1 to 9999, and not in the TOC")                   \
    NOTE(OWNER, "owners are outside of 32 bits: taken modulo 2^32, and as 65534 without "     \
                "set-id bits if over 33 bits")                                                \
    NOTE(XATTR, "entries have xattrs with % or = in their names, which tars hold as %25 and " \
                "%3D: GNU tar reads them as this layer has them, Go programs leave them so")  \
    NOTE(PREFIX, "names have a prefix in a GNU header: it is part of the name, as for Go; "   \
                 "GNU tar leaves it out")                                                     \
    NOTE(TWICE, "entries have two extended headers of one kind: the last counts, as for GNU " \
                "tar and Go; others take the first")                                          \
    NOTE(SOLARIS, "entries have Solaris extended headers, which count as PAX headers, as for " \
                  "GNU tar; Go takes them for files")                                         \
    NOTE(EMPTY, "entries have empty PAX records or long names, which do not count, as for "   \
                "Go; GNU tar takes them as they are")                                         \
    NOTE(SIZES, "files have another size in the PAX header than in the tar header: that of " \
                "the PAX header counts")                                                      \
    NOTE(SIZED, "entries have a size, but no contents: it does not count, as for GNU tar "    \
                "and Go when they extract; others look for the next header behind it")        \
    NOTE(SLASH, "files have a slash behind the name, which makes a directory, as for GNU tar; " \
                "Go sees a file")                                                             \
    NOTE(DUMPDIR, "directories are from a GNU incremental archive: read without the list of " \
                  "names; Go does not know such")                                             \
    NOTE(GLOBAL, "entries have fields from PAX global headers, which Go leaves out")          \
    NOTE(TOC, "entries were left out, as a layer's TOC has this name: the DiffID is not that " \
              "of the input")                                                                 \
    NOTE(LANDMARK, "entries were left out, as the layer has its landmark under such a name")  \
    NOTE(NOTHING, "inputs have no bytes, not even the end of an archive: the layer is empty") \
    NOTE(NO_END, "inputs have no end of an archive (two blocks of zeros), and may have been cut " \
                 "short")                                                                       \
    NOTE(SAME_FILE, "hard links to the file that their name has already are left out, as by " \
                    "GNU tar")                                                                \
    NOTE(BELOW_LINK, "entries or targets of hard links below symlinks of the layer are in "   \
                     "the TOC where extraction puts them, below the layer's root")            \
    NOTE(DOTS, "names have .. in the path, or a . at the end where no directory is: GNU tar does " \
               "not extract such entries")                                                    \
    NOTE(NOT_BELOW, "whiteouts below what is no directory in the layer, or was none for a "      \
                    "while later, are left out")                                                \
    NOTE(NO_FILE, "entries have nothing to show (volume label, access list, part of a file of "  \
                  "another volume, sparse file without a map): left out")                       \
    NOTE(TOO_LARGE, "entries are over a limit (sparse maps: 16 MiB, sparse files: 1 TiB, names " \
                    "and other PAX records: 1 MiB): left out")                                  \
    NOTE(TYPE, "entries have a type that is not known: read as files, as by GNU tar")            \
    NOTE(NO_PATH, "entries have a name or target that is empty, too long, or leads in circles: " \
                  "left out")                                                                   \
    NOTE(NO_TARGET, "hard links have a target that is no file of the archive before: left out, " \
                    "as by GNU tar")                                                            \
    NOTE(BELOW_FILE, "entries are below what is no directory: left out, as by GNU tar")          \
    NOTE(OVER_DIR, "entries are where a directory with entries is: left out, as by GNU tar")     \
    NOTE(FIELD, "entries have malformed numbers or PAX records, which do not count, as for GNU " \
                "tar")                                                                          \
    NOTE(GLOBAL_NAME, "PAX global headers have names, sizes or the like, which do not count, as " \
                      "for bsdtar")                                                             \
    NOTE(BEHIND, "archives are followed by something, which is not read, as by GNU tar without " \
                 "-i")                                                                          \
    NOTE(GARBAGE, "inputs have bytes behind the last gzip member, which were ignored, as by "    \
                  "gzip")

typedef enum {
#define SGZ_NOTE_KIND(kind, text) SGZ_NOTE_##kind,
    SGZ_NOTES(SGZ_NOTE_KIND)
#undef SGZ_NOTE_KIND
    SGZ_NOTE_KINDS
} sgz_note;

#define SGZ_NOTE_BIT(kind) (1u << SGZ_NOTE_##kind)

typedef struct {
    uint64_t count[SGZ_NOTE_KINDS];
    char first[SGZ_NOTE_KINDS][SGZ_NOTE_NAME_MAX]; /* the entry, truncated; may be empty */
} sgz_notes;

/* Count one of each kind whose bit is set. */
void sgz_base_note(sgz_notes *notes, unsigned kinds, const char *name, size_t len);
/* Count what another has counted. */
void sgz_base_notes_add(sgz_notes *notes, const sgz_notes *more);
const char *sgz_base_note_text(sgz_note kind);

#endif
