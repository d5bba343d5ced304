#include "sqlite/wipe.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    PAGES_AT_ONCE = 16,  /* read by one call */
    PAGES_KNOWN = 16384, /* of which is known at once which are free */
    PINNED_MS = 500,     /* somebody reads: until it is tried again */
    FAILED_MS = 1000,
};

void wipe_init(struct wipe *wipe, struct log_file *file, struct wal *wal) {
    *wipe = (struct wipe){.file = file, .wal = wal};
}

void wipe_deinit(struct wipe *wipe) {
    free(wipe->pages);
    free(wipe->free_pages);
}

/* --- Pages ------------------------------------------------------------------------------------ */

static uint32_t number16(const unsigned char *at) {
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t number32(const unsigned char *at) {
    return number16(at) << 16 | number16(at + 2);
}

static bool is_zero(const unsigned char *bytes, size_t count) {
    return !count || (!bytes[0] && memcmp(bytes, bytes + 1, count - 1) == 0);
}

struct room wipe_room(const unsigned char *page, uint32_t page_bytes, uint32_t page_count) {
    static const struct room none = {0, 0};
    bool is_leaf = page[0] == 0x0d || page[0] == 0x0a, is_inner = page[0] == 0x05 || page[0] == 2;
    if ((!is_leaf && !is_inner) || page[0] <= page_count >> 24)
        return none;
    uint32_t header = is_leaf ? 8 : 12, cells = number16(page + 3), content = number16(page + 5);
    uint32_t begin = header + 2 * cells;
    if (!content)
        content = 65536;
    if (content > page_bytes || begin > content)
        return none;
    for (uint32_t i = 0; i < cells; i++) {
        uint32_t cell = number16(page + header + 2 * i);
        if (cell < content || cell >= page_bytes)
            return none;
    }
    uint32_t block = number16(page + 1);
    return block && block < content ? none : (struct room){begin, content - begin};
}

/* --- The file --------------------------------------------------------------------------------- */

/* A slice of a wipe: the file does not change meanwhile. */
struct slice_of_file {
    struct wipe *wipe;
    sqlite3_file *file;
    uint32_t page_bytes, page_count, first, end; /* pages, without `end` */
    bool has_written;
};

static bool read_pages(const struct slice_of_file *slice, uint32_t page, uint32_t count,
                       unsigned char *out) {
    sqlite3_int64 offset = (sqlite3_int64)(page - 1) * slice->page_bytes;
    return slice->file->pMethods->xRead(slice->file, out, (int)(count * slice->page_bytes),
                                        offset) == SQLITE_OK;
}

/* Overwrites a part of a page that is in `page`, unless it is zero. */
static bool clear(struct slice_of_file *slice, uint32_t number, unsigned char *page,
                  struct room room) {
    if (is_zero(page + room.begin, room.bytes))
        return true;
    memset(page + room.begin, 0, room.bytes);
    sqlite3_int64 offset = (sqlite3_int64)(number - 1) * slice->page_bytes + room.begin;
    slice->has_written = slice->wipe->is_unsynced = true;
    slice->wipe->bytes += room.bytes;
    return slice->file->pMethods->xWrite(slice->file, page + room.begin, (int)room.bytes, offset) ==
           SQLITE_OK;
}

static bool is_in(const struct slice_of_file *slice, uint32_t page) {
    return page >= slice->first && page < slice->end;
}

/* Notes which pages are free and overwrites what the lists of them leave. */
static bool find_free(struct slice_of_file *slice) {
    unsigned char *page = slice->wipe->pages;
    memset(slice->wipe->free_pages, 0, PAGES_KNOWN / 8);
    slice->wipe->free_from = 0;
    if (!read_pages(slice, 1, 1, page))
        return false;
    uint32_t max = slice->page_bytes / 4 - 2;
    uint32_t left = slice->page_count;
    for (uint32_t trunk = number32(page + 32); trunk && left--; trunk = number32(page)) {
        if (trunk > slice->page_count || !read_pages(slice, trunk, 1, page))
            return false;
        uint32_t count = number32(page + 4), used = 8 + 4 * count;
        if (count > max)
            return false;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t free_page = number32(page + 8 + (size_t)4 * i), bit = free_page - slice->first;
            if (is_in(slice, free_page))
                slice->wipe->free_pages[bit / 8] |= (uint8_t)(1 << bit % 8);
        }
        if (is_in(slice, trunk) &&
            !clear(slice, trunk, page, (struct room){used, slice->page_bytes - used}))
            return false;
    }
    slice->wipe->free_from = slice->first;
    return true;
}

static bool clear_page(struct slice_of_file *slice, uint32_t number, unsigned char *page) {
    uint32_t bit = number - slice->first;
    if (slice->wipe->free_pages[bit / 8] >> bit % 8 & 1)
        return clear(slice, number, page, (struct room){0, slice->page_bytes});
    if (number == 1) /* it never held an update */
        return true;
    return clear(slice, number, page, wipe_room(page, slice->page_bytes, slice->page_count));
}

/* Clears pages until `end_ns`. False on failure. */
static bool clear_pages(struct slice_of_file *slice, uint64_t end_ns) {
    struct wipe *wipe = slice->wipe;
    do {
        uint32_t first = wipe->next_page, count = slice->end - first;
        count = count < PAGES_AT_ONCE ? count : PAGES_AT_ONCE;
        if (!read_pages(slice, first, count, wipe->pages))
            return false;
        for (uint32_t i = 0; i < count; i++)
            if (!clear_page(slice, first + i, wipe->pages + (size_t)i * slice->page_bytes))
                return false;
        wipe->next_page += count;
    } while (wipe->next_page < slice->end && uv_hrtime() < end_ns);
    return true;
}

static bool open_file(struct wipe *wipe, struct slice_of_file *slice) {
    int64_t pages = 0;
    slice->wipe = wipe;
    slice->page_bytes = (uint32_t)wipe->file->page_bytes;
    if (sqlite3_file_control(wipe->file->db, "main", SQLITE_FCNTL_FILE_POINTER, &slice->file) !=
            SQLITE_OK ||
        !log_file_query(wipe->file, "PRAGMA page_count", 0, 0, &pages))
        return false;
    slice->page_count = (uint32_t)pages;
    bool is_known = wipe->free_from && wipe->next_page - wipe->free_from < PAGES_KNOWN;
    slice->first = is_known ? wipe->free_from : wipe->next_page;
    slice->end = slice->page_count + 1;
    if (slice->end - slice->first > PAGES_KNOWN)
        slice->end = slice->first + PAGES_KNOWN;
    return true;
}

/* Time that passes from `since_ns` to now is added to `end_ns`. */
static uint64_t put_off(uint64_t end_ns, uint64_t since_ns) {
    uint64_t by = uv_hrtime() - since_ns;
    return end_ns < UINT64_MAX - by ? end_ns + by : UINT64_MAX;
}

/* Wipes a slice of the pages; the file must be all there is, and nobody may write to it. */
static bool wipe_slice(struct wipe *wipe, uint64_t end_ns) {
    struct slice_of_file slice = {0};
    if (!open_file(wipe, &slice))
        return false;
    uint64_t begun_ns = uv_hrtime();
    bool is_over = wipe->next_page > slice.page_count;
    bool ok = is_over || ((slice.first == wipe->free_from || find_free(&slice)) &&
                          clear_pages(&slice, put_off(end_ns, begun_ns)));
    if (ok && wipe->next_page > slice.page_count) {
        ok = !wipe->is_unsynced ||
             slice.file->pMethods->xSync(slice.file, SQLITE_SYNC_NORMAL) == SQLITE_OK;
        wipe->state = ok ? WIPE_LOG : WIPE_PAGES;
    }
    if (slice.has_written)
        sqlite3_db_release_memory(wipe->file->db);
    return ok;
}

/* --- The whole -------------------------------------------------------------------------------- */

void wipe_begin(struct wipe *wipe) {
    bool has_file =
        sqlite3_db_filename(wipe->file->db, "main") && *sqlite3_db_filename(wipe->file->db, "main");
    wipe->state = has_file ? WIPE_PAGES : WIPE_DONE;
    wipe->next_page = 1;
    wipe->is_unsynced = false;
    wipe->is_fresh = true;
    wipe->begun_at = 0;
}

static bool make_room(struct wipe *wipe) {
    if (!wipe->pages)
        wipe->pages = malloc((size_t)PAGES_AT_ONCE * (size_t)wipe->file->page_bytes);
    if (!wipe->free_pages)
        wipe->free_pages = malloc(PAGES_KNOWN / 8);
    return wipe->pages && wipe->free_pages;
}

/* It begins anew, so that others may delete meanwhile. */
static int64_t fail(struct wipe *wipe) {
    wipe->next_page = 1;
    wipe->free_from = 0;
    wipe->is_fresh = true;
    if (sqlite3_errcode(wipe->file->db) == SQLITE_OK)
        wipe->file->reason = "the pages of the file cannot be read or written, or make no sense";
    log_file_note_error(wipe->file, "overwriting what was purged");
    return FAILED_MS;
}

/* Changes whenever another process writes to the file; -1 on failure. */
static int64_t data_version(struct wipe *wipe) {
    int64_t version = -1;
    log_file_query(wipe->file, "PRAGMA data_version", 0, 0, &version);
    return version;
}

static int64_t wipe_pages(struct wipe *wipe, int64_t now_ms, uint64_t end_ns) {
    if (!make_room(wipe))
        return FAILED_MS;
    int64_t version = data_version(wipe);
    bool must_copy =
        wipe->is_fresh || version != wipe->version || wipe->wal->pages || wipe->wal->is_pinned;
    if (must_copy || wipe->commits != wipe->wal->commits)
        wipe->free_from = 0;
    wipe->version = version;
    wipe->commits = wipe->wal->commits;
    wipe->is_fresh = must_copy && !wal_copy(wipe->wal, now_ms);
    if (wipe->is_fresh) {
        wipe->next_page = 1;
        wipe->begun_at = 0;
        return PINNED_MS;
    }
    bool ok = version >= 0 && log_file_begin(wipe->file);
    if (ok && data_version(wipe) == version)
        ok = wipe_slice(wipe, end_ns);
    else
        wipe->is_fresh = true;
    int64_t pause_ms = ok ? 0 : fail(wipe);
    log_file_roll_back(wipe->file);
    return pause_ms;
}

int64_t wipe_some(struct wipe *wipe, int64_t now_ms, uint64_t end_ns) {
    if (!wipe->begun_at)
        wipe->begun_at = now_ms;
    if (wipe->state == WIPE_PAGES) {
        int64_t pause_ms = wipe_pages(wipe, now_ms, end_ns);
        if (wipe->state == WIPE_LOG)
            wipe->scanned_ms = now_ms - wipe->begun_at;
        return pause_ms;
    }
    if (!wal_truncate(wipe->wal, now_ms))
        return PINNED_MS;
    wipe->state = WIPE_DONE;
    return 0;
}
