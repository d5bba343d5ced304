/*
 * Wiping the data file: overwriting what its pages hold beside their content, so that nothing that
 * was deleted can be read from the file or from its write-ahead log.
 *
 * SQLite's own `secure_delete` does not do that. With FAST it leaves pages that become free as they
 * were; with ON it still leaves copies of rows in the room between the cells of a page whose cells
 * it has moved; and neither knows of what was deleted before. So a wipe looks at the file itself,
 * page by page, and writes zeros where, by SQLite's file format, nothing is kept
 * (https://www.sqlite.org/fileformat2.html):
 *
 *   - the whole of a page that is free;
 *   - behind the list, of a page that lists free pages;
 *   - between the cell pointers and the cells, of a page of a B-tree.
 *
 * A crash leaves such a page half overwritten, which does no harm. What makes it sound:
 *
 *   - The write-ahead log has been copied to the last page, and nobody can write meanwhile: so the
 *     file alone says how things are. It is copied again when anybody has committed since: else
 *     somebody's copy might put pages into the file meanwhile. Where somebody reads what cannot be
 *     copied yet, it begins anew later.
 *   - SQLite's cache goes when a page was written to beside it.
 *   - A page that SQLite moves in a B-tree takes its room along, perhaps to where the wipe has
 *     been. So nobody deletes updates while it is under way: wipe_is_scanning(). Appending moves
 *     none.
 *
 * At last the write-ahead log is copied once more and cut to nothing.
 */
#pragma once

#include "sqlite/wal.h"

/* WIPE_LOG: the pages are done, the write-ahead log is not. */
enum wipe_state { WIPE_NOTHING, WIPE_PAGES, WIPE_LOG, WIPE_DONE };

struct wipe {
    struct log_file *file;
    struct wal *wal;
    enum wipe_state state;
    uint32_t next_page;
    bool is_unsynced;     /* pages were written to */
    bool is_fresh;        /* nothing was copied yet */
    int64_t version;      /* of the file, as of the last slice: what others commit changes it */
    int64_t scanned_ms;   /* how long the pages have taken so far, and */
    int64_t begun_at;     /* since when they do, by the steady clock; 0: not begun */
    uint64_t bytes;       /* overwritten so far, for the tests */
    unsigned char *pages; /* what is read at once */
    uint8_t *free_pages;  /* bits: of the pages from `free_from` on; and */
    uint32_t free_from;   /* 0: not known, for somebody has committed since */
    uint64_t commits;     /* of ours, as of the last slice */
};

/* Both must stay. */
void wipe_init(struct wipe *wipe, struct log_file *file, struct wal *wal);
void wipe_deinit(struct wipe *wipe);

/* In memory there is no file, and it is done at once. */
void wipe_begin(struct wipe *wipe);

/* Goes on until `end_ns` (uv_hrtime()), or longer by what it takes to read which pages are free; no
 * transaction may be open. Returns how long to wait until the next slice, in milliseconds. A
 * failure is logged, and it goes on later. */
int64_t wipe_some(struct wipe *wipe, int64_t now_ms, uint64_t end_ns);

/* Nothing may be deleted from a B-tree of updates. */
static inline bool wipe_is_scanning(const struct wipe *wipe) {
    return wipe->state == WIPE_PAGES && wipe->next_page > 1;
}

/* --- Decisions, for the tests ----------------------------------------------------------------- */

/* Bytes of a page, from `begin` on. */
struct room {
    uint32_t begin, bytes;
};

/* The room between the cell pointers and the cells of a page of a B-tree that is not the first of
 * the file; none where the page is something else, or makes no sense. `page_count` is the file's,
 * for a page of an overflow chain begins with the number of another. */
struct room wipe_room(const unsigned char *page, uint32_t page_bytes, uint32_t page_count);
