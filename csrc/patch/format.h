/* Patches: the blob NEW from the blob BASE and what BASE lacks.
 *
 * A patch is the eight bytes "SGZPATCH" and then frames. All numbers are little-endian, varints
 * are LEB128 (at most ten bytes), signed ones zigzag.
 *
 *   frame   u8 type, u8 deflated, u16 zero, u32 length, u32 crc, payload (length bytes)
 *           crc: CRC-32 (RFC 1952) of the frame's first eight bytes and the payload as stored.
 *           deflated 1: the payload is a raw deflate stream (RFC 1951) that inflates to at most
 *           SGZ_PATCH_FRAME bytes. length is at most SGZ_PATCH_FRAME.
 *
 *   'H'     once, first, never deflated: sgz_patch_head as it is packed below
 *   'D'     bytes that come next in NEW, as they are
 *   'M'     operations, whole ones:
 *             1 COPY    zigzag: BASE offset less the end of the COPY before (0 at first),
 *                       varint: length. Bytes of BASE come next in NEW.
 *             2 MEMBER  varint: number of pieces, then the pieces of a member's contents;
 *                       compressed at the head's level they come next in NEW.
 *                       piece 0: varint length, bytes
 *                       piece 1: varint BASE offset of a member, varint bytes to pass over
 *                                from that member's start (innerOffset), varint length
 *   'T'     after all of those; only if the head's toc_json_size is not 0. Operations whose
 *           output is NEW's TOC; its member (tar header, padding and end of archive around it)
 *           and the footer come next in NEW, and are its end.
 *             1 LINES   varint: lines of BASE's TOC to pass over, varint: lines to take then,
 *                       zigzag: what is added to the number of each offset line among them
 *             2 TEXT    varint length, bytes
 *   'E'     once, last: 32 bytes, the sha256 of the patch before this frame
 *
 * A line of a TOC ends behind its "\n"; the last may lack it. An offset line is blanks and tabs,
 * `"offset": `, one to nineteen digits, and at most a comma before its end.
 * No operation crosses a frame's end, except that a 'D' may cut anything.
 *
 * Work that comes to nothing is bounded, since a small frame may ask for hours of it. It counts
 *   - SGZ_PATCH_WORK_OPERATION for each operation of 'M' and 'T' and each piece of a MEMBER,
 *   - SGZ_PATCH_WORK_SEEK for each piece 1 that has to begin its member: it is of another member
 *     than the last piece 1 was, or starts before that one's end,
 *   - the bytes that a piece 1 passes over: from its member's start, or that end.
 * A patch is refused when that exceeds SGZ_PATCH_WORK_FREE and SGZ_PATCH_WORK_PER_BYTE for each
 * byte that came out so far, those of the unfinished MEMBER's contents included. Files of a
 * kilobyte may so be 64 MiB into their members, in any order. stargz/patching/file.py keeps the
 * same account, so that no such patch is made. */
#ifndef SGZ_PATCH_FORMAT_H
#define SGZ_PATCH_FORMAT_H

#include "codec/codecs.h"

#define SGZ_PATCH_MAGIC "SGZPATCH"
#define SGZ_PATCH_VERSION 1
#define SGZ_PATCH_FRAME (1u << 20)
#define SGZ_PATCH_ENGINE 64
/* Contents of a MEMBER at most, so that compressing it takes little memory and, at any level, no
 * longer than a signal may wait; nothing that makes patches compresses more anew. */
#define SGZ_PATCH_MEMBER_MAX ((uint64_t)64 << 20)

/* In bytes inflated, or in what takes as long. */
#define SGZ_PATCH_WORK_FREE ((uint64_t)2 << 30)
#define SGZ_PATCH_WORK_PER_BYTE ((uint64_t)64 << 10)
#define SGZ_PATCH_WORK_OPERATION ((uint64_t)4 << 10)
#define SGZ_PATCH_WORK_SEEK ((uint64_t)64 << 10)

/* The payload of 'H', in this order without gaps. Digests are sha256. */
typedef struct {
    uint32_t version;
    uint32_t level;              /* of MEMBER and of the TOC; 0: the patch has neither */
    uint32_t legacy;             /* 1: TOC and footer are those of google/crfs */
    int64_t base_size, new_size;
    uint8_t base_digest[32], new_digest[32];
    int64_t new_toc_offset;      /* from here on NEW is its TOC and footer: held back from pipes */
    uint64_t toc_json_size;      /* bytes of NEW's TOC, or 0: it is not made by 'T' */
    int64_t base_toc_offset, base_toc_end; /* the gzip members with BASE's TOC */
    uint64_t base_json_size;
    char engine[SGZ_PATCH_ENGINE]; /* what compresses at this level ("isa-l", "libdeflate 1.24"),
                                    padded with zeros: another one makes other bytes */
} sgz_patch_head;

#define SGZ_PATCH_HEAD_SIZE (3 * 4 + 2 * 8 + 2 * 32 + 8 + 8 + 2 * 8 + 8 + SGZ_PATCH_ENGINE)

#endif
