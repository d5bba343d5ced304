/*
 * A page of updates: what the script of a read replies.
 *
 * Anybody may write to the lists, and nothing guards their texts. An update that no consumer could
 * read is left out, counted and logged; the page's `end` covers it, so that consumers go on.
 */
#include "base/log.h"
#include "redis/parts.h"

#include <stdlib.h>

/* Where the script's reply has what. */
enum {
    PAGE_TOTAL,
    PAGE_GONE,
    PAGE_FIRST,
    PAGE_BODIES,
    PAGE_RECORDS,
    PAGE_IS_BESIDE,
    PAGE_EPOCH,
    PAGE_POSITION,
    PAGE_IS_RESET,
    PAGE_PARTS
};

/* The bodies of a reply from one ts on, and their records, as they are taken one after another. */
struct page {
    const redisReply *bodies, *records;
    bool is_beside; /* a record stands beside every body */
    uint64_t first;
    size_t next; /* the record that has not been looked at yet */
};

static struct slice text_of(const redisReply *reply) {
    return (struct slice){reply->str, reply->len};
}

static bool is_number(const redisReply *reply) {
    return reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0;
}

/* A list of strings, and of nothing else. */
static bool is_texts(const redisReply *reply) {
    if (reply->type != REDIS_REPLY_ARRAY)
        return false;
    for (size_t i = 0; i < reply->elements; i++)
        if (reply->element[i]->type != REDIS_REPLY_STRING)
            return false;
    return true;
}

static bool is_page(const redisReply *reply) {
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == PAGE_PARTS &&
           is_number(reply->element[PAGE_TOTAL]) && is_number(reply->element[PAGE_GONE]) &&
           is_number(reply->element[PAGE_FIRST]) && is_texts(reply->element[PAGE_BODIES]) &&
           is_texts(reply->element[PAGE_RECORDS]) && is_number(reply->element[PAGE_IS_BESIDE]) &&
           reply->element[PAGE_EPOCH]->type == REDIS_REPLY_STRING &&
           is_number(reply->element[PAGE_POSITION]) && is_number(reply->element[PAGE_IS_RESET]);
}

static void take_position(struct store_read *read, const redisReply *reply) {
    const char *epoch = reply->element[PAGE_EPOCH]->str;
    read->epoch = strtoull(epoch, NULL, 16);
    read->is_reset = reply->element[PAGE_IS_RESET]->integer;
    /* A ts may be more than Lua's numbers can say. */
    read->after = read->position >= 0 && !read->is_reset
                      ? (uint64_t)read->position
                      : (uint64_t)reply->element[PAGE_POSITION]->integer;
}

/* The record of body `i`; false when it has none. What stands beside it may be an older one. */
static bool find_record(struct page *page, size_t i, struct slice *text) {
    uint64_t ts = page->first + i, found = 0;
    if (page->is_beside) {
        *text = text_of(page->records->element[i]);
        found = redis_record_ts(*text);
        return !found || found >= ts;
    }
    while (page->next < page->records->elements) {
        *text = text_of(page->records->element[page->next]);
        found = redis_record_ts(*text);
        if (found > ts)
            return false;
        page->next++;
        if (found == ts)
            return true;
    }
    return false;
}

static void leave_out(struct redis_store *store, const struct store_read *read, uint64_t ts) {
    store->stats.damaged++;
    if (!redis_store_may_log(store, &store->damage_log))
        return;
    log_error("damaged update left out", "channel",
              log_secret((struct slice){read->name, read->name_len}).text, "ts",
              log_number(ts).text, "left_out", log_number(store->damage_log.left_out).text, NULL);
    store->damage_log.left_out = 0;
}

/* False when memory is out, or it would leave a gap behind others. */
static bool take_item(struct redis_store *store, struct store_read *read, struct page *page,
                      size_t i) {
    struct slice body = text_of(page->bodies->element[i]), text;
    uint64_t ts = page->first + i;
    struct redis_record record;
    bool has_record = find_record(page, i, &text);
    enum redis_item item = redis_item_judge(body, has_record ? &text : NULL, ts, &record);
    if (item == REDIS_ITEM_DAMAGED && read->count)
        return false; /* the next read begins with it */
    if (item == REDIS_ITEM_DAMAGED) {
        leave_out(store, read, ts);
    } else {
        struct update *update =
            redis_record_update(item == REDIS_ITEM_WHOLE ? &record : NULL, body, ts);
        if (!update)
            return false;
        read->updates[read->count++] = update;
    }
    read->end = ts;
    return true;
}

bool page_take(struct redis_store *store, struct store_read *read, const redisReply *reply) {
    if (!is_page(reply))
        return false;
    struct page page = {
        .bodies = reply->element[PAGE_BODIES],
        .records = reply->element[PAGE_RECORDS],
        .first = (uint64_t)reply->element[PAGE_FIRST]->integer,
        .is_beside = reply->element[PAGE_IS_BESIDE]->integer,
    };
    size_t count = page.bodies->elements;
    if (!page.first || (page.is_beside && page.records->elements != count))
        return false;
    read->total = (uint64_t)reply->element[PAGE_TOTAL]->integer;
    read->gone = (uint64_t)reply->element[PAGE_GONE]->integer;
    read->end = page.first - 1;
    take_position(read, reply);
    read->updates = malloc((count + 1) * sizeof(struct update *));
    if (!read->updates)
        return false;
    size_t i = 0;
    while (i < count && take_item(store, read, &page, i))
        i++; /* the rest comes with the next read */
    return i || !count;
}
