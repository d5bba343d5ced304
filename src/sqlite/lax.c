#include "sqlite/lax.h"
#include "sqlite/log_file.h"
#include "sqlite/sql.h"

#include <string.h>

enum {
    LEAF_OF_TABLE = 13, /* what such a page begins with */
    LEAF_HEADER_BYTES = 8,
    MARK_BYTES = sizeof LAX_MARK - 1,
    TEXT_TYPE = 13 + 2 * MARK_BYTES, /* of a record's column */
    RECORD_HEADER_BYTES = 3,
    CELL_HEADER_BYTES = 2 + RECORD_HEADER_BYTES,
};

_Static_assert(sizeof LAX_MARK == sizeof LAX_OTHER_MARK, "the cell stays where it is");

bool lax_prepare(struct log_file *file) {
    int64_t is_there = 0;
    if (file->mark)
        return true;
    if (!log_file_query(file, "SELECT 1 FROM sqlite_schema WHERE name = 'lax'", 0, 0, &is_there))
        return false;
    if (!is_there &&
        (!log_file_begin(file) || !log_file_execute(file, LAX_TABLE) || !log_file_commit(file)))
        return false;
    return log_file_prepare(file, &file->mark,
                            "INSERT OR REPLACE INTO lax (id, mark)"
                            " VALUES (1, iif(EXISTS (SELECT 1 FROM lax WHERE mark = '" LAX_MARK
                            "'), '" LAX_OTHER_MARK "', '" LAX_MARK "'))");
}

bool lax_mark(struct log_file *file) {
    return sql_run(file->mark);
}

bool lax_is_mark(const unsigned char *page, size_t page_bytes) {
    static const unsigned char header[CELL_HEADER_BYTES] = {
        RECORD_HEADER_BYTES + MARK_BYTES, 1 /* id */, RECORD_HEADER_BYTES, 0, TEXT_TYPE};
    if (page[0] != LEAF_OF_TABLE || page[3] != 0 || page[4] != 1)
        return false;
    size_t at = (size_t)page[LEAF_HEADER_BYTES] << 8 | page[LEAF_HEADER_BYTES + 1];
    const unsigned char *cell = page + at, *mark = cell + CELL_HEADER_BYTES;
    return at + CELL_HEADER_BYTES + MARK_BYTES <= page_bytes &&
           memcmp(cell, header, sizeof header) == 0 &&
           (memcmp(mark, LAX_MARK, MARK_BYTES) == 0 ||
            memcmp(mark, LAX_OTHER_MARK, MARK_BYTES) == 0);
}
