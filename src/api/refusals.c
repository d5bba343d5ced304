#include "api/refusals.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/list.h"
#include "base/log.h"
#include "base/table.h"
#include "base/wheel.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>

#define REASON(name, status, text) [name] = #name,
static const char *const names[] = {HTTP_ERRORS(REASON)};
enum { REASONS = sizeof names / sizeof *names };

static uint64_t counts[REASONS];

struct reason {
    char text[48];
};

/* The error's name without its prefix: ERROR_BODY_SIZE is `body_size`. */
static struct reason reason_of(enum http_error error) {
    struct reason reason = {""};
    const char *name = names[error] + strlen("ERROR_");
    for (size_t i = 0; name[i] && i < sizeof reason.text - 1; i++)
        reason.text[i] = slice_lower(name[i]);
    return reason;
}

/* --- The log ---------------------------------------------------------------------------------- */

static void write_line(const struct refusal *refusal) {
    static struct log_limit limit;
    if (!log_enabled(LOG_LEVEL_INFO) || !log_may_say(&limit, wheel_now_ms() / 1000))
        return;
    bool is_known = refusal->channel.len > 0;
    log_info("push refused", "channel", is_known ? log_secret(refusal->channel).text : "unknown",
             "reason", reason_of(refusal->error).text, limit.unsaid ? "unsaid" : NULL,
             log_number(limit.unsaid).text, NULL);
    limit.unsaid = 0;
}

/* --- What is kept ----------------------------------------------------------------------------- */

/* A refused push. */
struct record {
    struct list link; /* in its place */
    int64_t at_ms;    /* by the wall clock */
    uint64_t noted_ms;
    uint64_t line;
    int64_t body_bytes;
    enum http_error error;
    char method[8];
    char from[INET6_ADDRSTRLEN];
    uint8_t path_len;
    char path[];
};

/* A channel that has some. */
struct place {
    struct table_node node; /* in `table` */
    struct list link;       /* in `places` */
    struct list records;    /* oldest first */
    uint32_t count;
    uint32_t client; /* which made it: an index of `held` */
    size_t name_len;
    char name[];
};

enum { CLIENTS = 1024 };

static struct table table;                      /* of places; made for the first one */
static struct list places = {&places, &places}; /* the one that had none for longest is first */
static uint16_t held[CLIENTS];                  /* places, by the hash of their client */

static bool place_equal(const struct table_node *node, const void *name, size_t len) {
    const struct place *place = container_of(node, struct place, node);
    return slice_equal((struct slice){place->name, place->name_len}, (struct slice){name, len});
}

static struct place *find_place(struct slice channel) {
    if (!table.count)
        return NULL;
    struct table_node *node =
        table_find(&table, hash_of(channel), place_equal, channel.data, channel.len);
    return node ? container_of(node, struct place, node) : NULL;
}

static void drop_oldest(struct place *place) {
    free(container_of(list_shift(&place->records), struct record, link));
    place->count--;
}

static void drop_place(struct place *place) {
    while (place->count)
        drop_oldest(place);
    held[place->client]--;
    table_remove(&table, &place->node);
    list_remove(&place->link);
    free(place);
}

static bool is_over(const struct list *record) {
    return wheel_now_ms() - container_of(record, struct record, link)->noted_ms >= REFUSALS_KEPT_MS;
}

/* Drops what is older than an hour. */
static void drop_old(void) {
    while (!list_empty(&places)) {
        struct place *first = container_of(places.next, struct place, link);
        if (!is_over(first->records.prev))
            return;
        drop_place(first);
    }
}

/* Drops the oldest place of the client that has most of them. */
static void make_room(void) {
    uint16_t most = 0;
    for (size_t i = 0; i < CLIENTS; i++)
        most = held[i] > most ? held[i] : most;
    struct list *link = places.next;
    while (held[container_of(link, struct place, link)->client] != most)
        link = link->next;
    drop_place(container_of(link, struct place, link));
}

static uint32_t client_of(const char *from) {
    struct in6_addr ipv6;
    struct slice client = slice_of(from);
    if (inet_pton(AF_INET6, from, &ipv6) == 1)
        client = (struct slice){(const char *)&ipv6, 6};
    return (uint32_t)(hash_of(client) % CLIENTS);
}

/* NULL when memory is out. */
static struct place *new_place(struct slice channel, const char *from) {
    if (!table.buckets && !table_init(&table))
        return NULL;
    struct place *place = malloc(sizeof *place + channel.len);
    if (!place)
        return NULL;
    if (table.count == REFUSALS_CHANNELS)
        make_room();
    *place = (struct place){
        .node.hash = hash_of(channel), .client = client_of(from), .name_len = channel.len};
    memcpy(place->name, channel.data, channel.len);
    list_init(&place->records);
    table_insert(&table, &place->node);
    list_append(&places, &place->link);
    held[place->client]++;
    return place;
}

static void copy_text(char *out, size_t size, struct slice text) {
    size_t len = text.len < size - 1 ? text.len : size - 1;
    if (len)
        memcpy(out, text.data, len);
    out[len] = '\0';
}

/* NULL when memory is out. */
static struct record *new_record(const struct refusal *refusal) {
    struct slice path = refusal->origin.path;
    if (path.len > REFUSALS_PATH_MAX_BYTES)
        path.len = REFUSALS_PATH_MAX_BYTES;
    struct record *record = malloc(sizeof *record + path.len);
    if (!record)
        return NULL;
    *record = (struct record){
        .at_ms = clock_wall_ms(),
        .noted_ms = wheel_now_ms(),
        .line = refusal->line,
        .body_bytes = refusal->body_bytes,
        .error = refusal->error,
        .path_len = (uint8_t)path.len,
    };
    copy_text(record->method, sizeof record->method, refusal->origin.method);
    copy_text(record->from, sizeof record->from, refusal->origin.from);
    if (path.len)
        memcpy(record->path, path.data, path.len);
    return record;
}

/* Keeps it, or frees it. */
static void keep_record(struct slice channel, struct record *record) {
    struct place *place = find_place(channel);
    if (!place)
        place = new_place(channel, record->from);
    if (!place) {
        free(record);
        return;
    }
    if (place->count == REFUSALS_A_CHANNEL)
        drop_oldest(place);
    list_append(&place->records, &record->link);
    place->count++;
    list_remove(&place->link);
    list_append(&places, &place->link);
}

static void keep(const struct refusal *refusal) {
    struct record *record = new_record(refusal);
    drop_old();
    if (record)
        keep_record(refusal->channel, record);
}

static void write_text(struct buf *out, const char *name, struct slice text) {
    if (!text.len)
        return;
    buf_printf(out, ",\"%s\":", name);
    json_write_string(out, text);
}

static void write_record(struct buf *out, const struct record *record) {
    buf_printf(out, "{\"at\":%" PRId64 ",\"status\":%d,\"reason\":\"%s\",\"error\":\"",
               record->at_ms, http_status_code(http_error_status(record->error)),
               reason_of(record->error).text);
    if (record->line)
        buf_printf(out, "Line %" PRIu64 ": ", record->line);
    buf_puts(out, http_error_description(record->error));
    buf_putc(out, '"');
    write_text(out, "method", slice_of(record->method));
    write_text(out, "path", (struct slice){record->path, record->path_len});
    write_text(out, "from", slice_of(record->from));
    if (record->body_bytes >= 0)
        buf_printf(out, ",\"size\":%" PRId64, record->body_bytes);
    buf_putc(out, '}');
}

/* ---------------------------------------------------------------------------------------------- */

void refusals_note(const struct refusal *refusal) {
    counts[refusal->error]++;
    write_line(refusal);
    if (refusal->channel.len)
        keep(refusal);
}

void refusals_write_channel(struct buf *out, struct slice channel) {
    drop_old();
    struct place *place = find_place(channel);
    buf_putc(out, '[');
    for (struct list *link = place ? place->records.prev : NULL;
         link && link != &place->records && !is_over(link); link = link->prev) {
        if (link != place->records.prev)
            buf_putc(out, ',');
        write_record(out, container_of(link, struct record, link));
    }
    buf_putc(out, ']');
}

void refusals_forget_channel(struct slice channel) {
    struct place *place = find_place(channel);
    if (place)
        drop_place(place);
}

void refusals_write(struct buf *out, const char *name) {
    for (int i = 1; i < REASONS; i++)
        if (counts[i])
            buf_printf(out, "%s{reason=\"%s\"} %" PRIu64 "\n", name, reason_of(i).text, counts[i]);
}

/* --- Handing over ----------------------------------------------------------------------------- */

/* The error of this name; none when there is no such error. */
static enum http_error error_of(struct slice name) {
    for (int i = 1; i < REASONS; i++)
        if (slice_equal(slice_of(names[i]), name))
            return (enum http_error)i;
    return HTTP_NO_ERROR;
}

static void save_place(const struct place *place, struct pack *out) {
    pack_bytes(out, (struct slice){place->name, place->name_len});
    pack_number(out, place->count);
    for (const struct list *link = place->records.next; link != &place->records;
         link = link->next) {
        const struct record *record = container_of(link, struct record, link);
        pack_bytes(out, slice_of(names[record->error]));
        pack_number(out, pack_signed(record->at_ms));
        pack_number(out, record->noted_ms);
        pack_number(out, record->line);
        pack_number(out, pack_signed(record->body_bytes));
        pack_bytes(out, slice_of(record->method));
        pack_bytes(out, slice_of(record->from));
        pack_bytes(out, (struct slice){record->path, record->path_len});
    }
}

void refusals_save(struct pack *out) {
    pack_number(out, REASONS);
    for (int i = 0; i < REASONS; i++) {
        pack_bytes(out, slice_of(names[i] ? names[i] : ""));
        pack_number(out, counts[i]);
    }
    drop_old();
    pack_number(out, table.count);
    for (struct list *link = places.next; link != &places; link = link->next)
        save_place(container_of(link, struct place, link), out);
}

/* Its record; NULL when the error is not known here, or memory is out. */
static struct record *read_record(struct unpack *in) {
    struct refusal refusal = {.error = error_of(unpack_bytes(in))};
    int64_t at_ms = unpack_signed(unpack_number(in));
    uint64_t noted_ms = unpack_number(in);
    refusal.line = unpack_number(in);
    refusal.body_bytes = unpack_signed(unpack_number(in));
    refusal.origin.method = unpack_bytes(in);
    refusal.origin.from = unpack_bytes(in);
    refusal.origin.path = unpack_bytes(in);
    struct record *record = refusal.error && !in->failed ? new_record(&refusal) : NULL;
    if (record) {
        record->at_ms = at_ms;
        record->noted_ms = noted_ms;
    }
    return record;
}

void refusals_restore(struct unpack *in) {
    for (uint64_t left = unpack_number(in); left && !in->failed; left--) {
        enum http_error error = error_of(unpack_bytes(in));
        uint64_t count = unpack_number(in);
        counts[error] += error ? count : 0;
    }
    for (uint64_t left = unpack_up_to(in, REFUSALS_CHANNELS); left && !in->failed; left--) {
        struct slice channel = unpack_bytes(in);
        for (uint64_t of_it = unpack_number(in); of_it && !in->failed; of_it--) {
            struct record *record = read_record(in);
            if (record)
                keep_record(channel, record);
        }
    }
}
