/* What a TOC may hold: the same for those that are read and those that are made, so that none is
 * written that would not be opened. */
#ifndef SGZ_TOC_LIMITS_H
#define SGZ_TOC_LIMITS_H

/* Linux makes no path of more bytes, and no component: nothing with a longer name could be
 * extracted or mounted. Of cleaned names, and of links' targets. */
#define SGZ_TOC_PATH_MAX 4095
#define SGZ_TOC_BASE_MAX 255

/* Symlinks that Linux follows in one path. */
#define SGZ_TOC_SYMLINKS_MAX 40

#endif
