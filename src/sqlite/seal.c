#include "sqlite/seal.h"
#include "sqlite/sql.h"

#include <stddef.h>
#include <xxhash.h>

enum { HALF_BITS = 32 };

/* --- Sums ------------------------------------------------------------------------------------- */

/* What the content is, apart from its bytes. */
struct shape {
    int64_t seq;
    uint32_t name_len, body_len, raw_len, query_len, headers_len, method_len;
    uint32_t has_name, has_raw;
};

static uint32_t sum_numbers(const struct update_row *row) {
    return (uint32_t)XXH3_64bits(row, offsetof(struct update_row, seal));
}

/* The parts of an update lie one behind the other, so its bytes are one sum. */
static uint32_t sum_content(int64_t seq, const struct slice *name, const struct update *update) {
    struct shape shape = {
        .seq = seq,
        .name_len = name ? (uint32_t)name->len : 0,
        .body_len = update->body_len,
        .raw_len = update->raw_len,
        .query_len = update->query_len,
        .headers_len = update->headers_len,
        .method_len = update->method_len,
        .has_name = name != NULL,
        .has_raw = update->has_raw,
    };
    uint64_t sum = XXH3_64bits(&shape, sizeof shape) ^
                   XXH3_64bits(update->data, update_size(update) - sizeof *update);
    if (name)
        sum ^= XXH3_64bits_withSeed(name->data, name->len, 1);
    return (uint32_t)sum;
}

static int64_t join(uint32_t numbers, uint32_t content) {
    return (int64_t)((uint64_t)numbers << HALF_BITS | content);
}

int64_t seal_update(const struct update_row *row, const struct slice *name,
                    const struct update *update) {
    return join(sum_numbers(row), sum_content(row->seq, name, update));
}

bool seal_has_numbers(const struct update_row *row) {
    return (uint32_t)((uint64_t)row->seal >> HALF_BITS) == sum_numbers(row);
}

bool seal_has_content(const struct update_row *row, const struct slice *name,
                      const struct update *update) {
    return (uint32_t)row->seal == sum_content(row->seq, name, update);
}

int64_t seal_channel(const struct channel_row *channel, struct slice name) {
    return (int64_t)(XXH3_64bits(channel, sizeof *channel) ^ XXH3_64bits(name.data, name.len));
}

int64_t seal_delivery(int64_t channel, int64_t ts, const uint8_t id[DELIVERY_ID_BYTES],
                      int64_t born) {
    int64_t numbers[] = {channel, ts, born};
    return (int64_t)(XXH3_64bits(numbers, sizeof numbers) ^ XXH3_64bits(id, DELIVERY_ID_BYTES));
}

int64_t seal_consumer(int64_t channel, struct slice name, int64_t ts, int64_t used) {
    int64_t numbers[] = {channel, ts, used};
    return (int64_t)(XXH3_64bits(numbers, sizeof numbers) ^ XXH3_64bits(name.data, name.len));
}

int64_t seal_epoch(int64_t id, int64_t name, int64_t seq) {
    int64_t numbers[] = {id, name, seq};
    return (int64_t)XXH3_64bits(numbers, sizeof numbers);
}

int64_t seal_purge(const int64_t *numbers, size_t count) {
    return (int64_t)XXH3_64bits_withSeed(numbers, count * sizeof *numbers, count);
}

int64_t seal_meta(struct slice key, int64_t value) {
    return (int64_t)XXH3_64bits_withSeed(key.data, key.len, (uint64_t)value);
}

/* --- SQL functions ---------------------------------------------------------------------------- */

static struct slice bytes_of(sqlite3_value *value) {
    const void *data = sqlite3_value_blob(value);
    return (struct slice){data ? data : "", (size_t)sqlite3_value_bytes(value)};
}

static bool is_null(sqlite3_value *value) {
    return sqlite3_value_type(value) == SQLITE_NULL;
}

static struct update_row numbers_of(sqlite3_value **values) {
    struct update_row row;
    int64_t *numbers = (int64_t *)&row;
    for (size_t i = 0; i < offsetof(struct update_row, seal) / sizeof *numbers; i++)
        numbers[i] = sqlite3_value_int64(values[i]);
    row.seal = 0;
    return row;
}

/* The update of SEAL_CONTENT's columns after the name; NULL when memory is out. */
static struct update *update_of(sqlite3_value **values) {
    struct update_parts parts = {
        .body = bytes_of(values[0]),
        .raw = bytes_of(values[1]),
        .has_raw = !is_null(values[1]),
        .method = bytes_of(values[2]),
        .query = bytes_of(values[3]),
        .headers = bytes_of(values[4]),
    };
    return update_new(&parts);
}

static void has_numbers(sqlite3_context *context, int count, sqlite3_value **values) {
    struct update_row row = numbers_of(values);
    row.seal = sqlite3_value_int64(values[count - 1]);
    sqlite3_result_int(context, seal_has_numbers(&row));
}

static void has_content(sqlite3_context *context, UNUSED int count, sqlite3_value **values) {
    struct update_row row = {.seq = sqlite3_value_int64(values[0]),
                             .seal = sqlite3_value_int64(values[1])};
    struct slice name = bytes_of(values[2]);
    struct update *update = update_of(values + 3);
    if (!update) {
        sqlite3_result_error_nomem(context);
        return;
    }
    bool ok = seal_has_content(&row, is_null(values[2]) ? NULL : &name, update);
    update_unref(update);
    sqlite3_result_int(context, ok);
}

static void make_seal(sqlite3_context *context, UNUSED int count, sqlite3_value **values) {
    struct update_row row = numbers_of(values);
    sqlite3_value **content = values + offsetof(struct update_row, seal) / sizeof(int64_t);
    struct slice name = bytes_of(content[0]);
    struct update *update = update_of(content + 1);
    if (!update) {
        sqlite3_result_error_nomem(context);
        return;
    }
    sqlite3_result_int64(context, seal_update(&row, is_null(content[0]) ? NULL : &name, update));
    update_unref(update);
}

static struct channel_row channel_of(sqlite3_value **values) {
    return (struct channel_row){
        .id = sqlite3_value_int64(values[0]),
        .total = (uint64_t)sqlite3_value_int64(values[2]),
        .head = sqlite3_value_int64(values[3]),
        .mark = sqlite3_value_int64(values[4]),
        .last_born = sqlite3_value_int64(values[5]),
    };
}

static void make_channel_seal(sqlite3_context *context, UNUSED int count, sqlite3_value **values) {
    struct channel_row channel = channel_of(values);
    sqlite3_result_int64(context, seal_channel(&channel, bytes_of(values[1])));
}

static void is_whole(sqlite3_context *context, int count, sqlite3_value **values) {
    struct channel_row channel = channel_of(values);
    sqlite3_result_int(context, seal_channel(&channel, bytes_of(values[1])) ==
                                    sqlite3_value_int64(values[count - 1]));
}

static void is_delivery(sqlite3_context *context, UNUSED int count, sqlite3_value **values) {
    struct slice id = bytes_of(values[2]);
    sqlite3_result_int(
        context, id.len == DELIVERY_ID_BYTES &&
                     seal_delivery(sqlite3_value_int64(values[0]), sqlite3_value_int64(values[1]),
                                   (const uint8_t *)id.data, sqlite3_value_int64(values[3])) ==
                         sqlite3_value_int64(values[4]));
}

static void is_consumer(sqlite3_context *context, UNUSED int count, sqlite3_value **values) {
    sqlite3_result_int(context, seal_consumer(sqlite3_value_int64(values[0]), bytes_of(values[1]),
                                              sqlite3_value_int64(values[2]),
                                              sqlite3_value_int64(values[3])) ==
                                    sqlite3_value_int64(values[4]));
}

static void is_epoch(sqlite3_context *context, UNUSED int count, sqlite3_value **values) {
    sqlite3_result_int(
        context, seal_epoch(sqlite3_value_int64(values[0]), sqlite3_value_int64(values[1]),
                            sqlite3_value_int64(values[2])) == sqlite3_value_int64(values[3]));
}

static void is_purge(sqlite3_context *context, int count, sqlite3_value **values) {
    int64_t numbers[SEAL_PURGE_NUMBERS];
    size_t columns = (size_t)count - 1;
    for (size_t i = 0; i < columns; i++)
        numbers[i] = sqlite3_value_int64(values[i]);
    sqlite3_result_int(context,
                       seal_purge(numbers, columns) == sqlite3_value_int64(values[columns]));
}

static void is_sealed(sqlite3_context *context, UNUSED int count, sqlite3_value **values) {
    sqlite3_result_int(context, seal_meta(bytes_of(values[0]), sqlite3_value_int64(values[1])) ==
                                    sqlite3_value_int64(values[2]));
}

bool seal_define_functions(sqlite3 *db) {
    static const struct {
        const char *name;
        int arguments;
        void (*call)(sqlite3_context *, int, sqlite3_value **);
    } functions[] = {
        {"has_numbers", 9, has_numbers},
        {"has_content", 8, has_content},
        {"is_whole", 7, is_whole},
        {"is_sealed", 3, is_sealed},
        {"is_delivery", 5, is_delivery},
        {"is_consumer", 5, is_consumer},
        {"is_epoch", 4, is_epoch},
        {"is_purge", SEAL_PURGE_NUMBERS, is_purge},
        {"is_purge", SEAL_PURGE_NUMBERS + 1, is_purge},
        {"make_seal", 14, make_seal},
        {"make_channel_seal", 6, make_channel_seal},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (sqlite3_create_function_v2(db, functions[i].name, functions[i].arguments,
                                       SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, NULL,
                                       functions[i].call, NULL, NULL, NULL) != SQLITE_OK)
            return false;
    return true;
}
