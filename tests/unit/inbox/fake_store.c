#include "fake_store.h"
#include "base/hash.h"

struct fake_store fake;

struct news {
    struct list link;
    struct fake_channel *channel;
    struct update *update; /* NULL: a purge */
    uint64_t gone;
};

/* --- What the inbox calls --------------------------------------------------------------------- */

static void on_append(struct store *store, struct store_append *append) {
    (void)store;
    list_append(&fake.appends, &append->op.link);
}

static void on_read(struct store *store, struct store_read *read) {
    (void)store;
    assert_in_range(read->limit, 1, READ_MAX_UPDATES);
    fake.reads_made++;
    list_append(&fake.asked, &read->op.link);
}

static void on_cursors(struct store *store, struct store_cursors *cursors) {
    (void)store;
    assert_false(fake.is_closing);
    list_append(&fake.cursors_asked, &cursors->op.link);
}

static void on_purge(struct store *store, struct store_purge *purge) {
    (void)store;
    list_append(&fake.purges, &purge->op.link);
}

static void on_listen(struct store *store, const struct store_events *events) {
    (void)store;
    fake.events = events;
}

static struct fake_channel *find(struct slice name) {
    for (int i = 0; i < fake.channel_count; i++)
        if (slice_equal(slice_of(fake.channels[i].name), name))
            return &fake.channels[i];
    assert_true(fake.channel_count < FAKE_CHANNELS_MAX);
    struct fake_channel *channel = &fake.channels[fake.channel_count++];
    assert_true(name.len < sizeof channel->name);
    *channel = (struct fake_channel){0};
    memcpy(channel->name, name.data, name.len);
    return channel;
}

static void on_watch(struct store *store, struct store_watch *watch) {
    (void)store;
    struct fake_channel *channel = find((struct slice){watch->name, watch->name_len});
    assert_null(channel->watch);
    channel->watch = watch;
}

static void on_unwatch(struct store *store, struct store_watch *watch) {
    (void)store;
    assert_false(fake.is_closing);
    struct fake_channel *channel = find((struct slice){watch->name, watch->name_len});
    assert_ptr_equal(channel->watch, watch);
    channel->watch = NULL;
    channel->is_on = false;
}

static int64_t now_ms(const struct store *store) {
    assert_ptr_equal(store, &fake.store);
    return fake.now_ms;
}

static enum store_error health(struct store *store, struct buf *line) {
    assert_ptr_equal(store, &fake.store);
    assert_null(line);
    return STORE_OK;
}

static const struct store_ops own_ops = {.append = on_append,
                                         .read = on_read,
                                         .cursors = on_cursors,
                                         .purge = on_purge,
                                         .now_ms = now_ms,
                                         .health = health};
static const struct store_ops shared_ops = {.append = on_append,
                                            .read = on_read,
                                            .cursors = on_cursors,
                                            .purge = on_purge,
                                            .now_ms = now_ms,
                                            .health = health,
                                            .listen = on_listen,
                                            .watch = on_watch,
                                            .unwatch = on_unwatch};

/* --- What is stored --------------------------------------------------------------------------- */

void fake_init(bool is_shared) {
    memset(&fake, 0, sizeof fake);
    fake.store.ops = is_shared ? &shared_ops : &own_ops;
    fake.is_shared = is_shared;
    fake.keep = UINT64_MAX;
    fake.page = UINT32_MAX;
    fake.now_ms = 1700000000000;
    list_init(&fake.appends);
    list_init(&fake.asked);
    list_init(&fake.purges);
    list_init(&fake.done);
    list_init(&fake.cursors_asked);
    list_init(&fake.cursors_done);
    list_init(&fake.news);
}

static void drop_updates(struct fake_channel *channel) {
    for (uint64_t i = 0; i < channel->total; i++)
        update_unref(channel->updates[i]);
    channel->total = channel->gone = 0;
}

void fake_deinit(void) {
    while (!list_empty(&fake.news))
        fake_lose_one();
    for (int i = 0; i < fake.channel_count; i++) {
        struct fake_channel *channel = &fake.channels[i];
        for (uint64_t j = 0; j < channel->total; j++)
            assert_int_equal(channel->updates[j]->refs, 1);
        drop_updates(channel);
        free(channel->updates);
        free(channel->cursors);
    }
}

struct fake_channel *fake_channel(const char *name) {
    return find(slice_of(name));
}

static void store_update(struct fake_channel *channel, struct update *update) {
    update->ts = channel->total + 1;
    update->at_ms = update->born_ms = fake.now_ms;
    if (channel->total == channel->capacity) {
        channel->capacity = 2 * channel->capacity + 8;
        channel->updates = realloc(channel->updates, channel->capacity * sizeof(struct update *));
    }
    channel->updates[channel->total++] = update_ref(update);
    if (!channel->is_on)
        return;
    struct news *news = malloc(sizeof *news);
    *news = (struct news){.channel = channel, .update = update_ref(update)};
    list_append(&fake.news, &news->link);
}

void fake_add(const char *name, int count) {
    struct fake_channel *channel = fake_channel(name);
    for (int i = 0; i < count; i++) {
        char body[64];
        snprintf(body, sizeof body, "{\"life\":%d,\"n\":%llu}", channel->life,
                 (unsigned long long)channel->total + 1);
        struct update_parts parts = {.body = slice_of(body), .method = SLICE("POST")};
        struct update *update = update_new(&parts);
        store_update(channel, update);
        update_unref(update);
    }
}

void fake_restart(const char *name, uint64_t total) {
    struct fake_channel *channel = fake_channel(name);
    bool is_on = channel->is_on;
    channel->is_on = false;
    drop_updates(channel);
    channel->life++;
    fake.now_ms++;
    fake_add(name, (int)total);
    channel->is_on = is_on;
}

void fake_purge(const char *name, uint64_t upto) {
    struct fake_channel *channel = fake_channel(name);
    if (channel->gone < upto)
        channel->gone = upto;
    if (!channel->is_on)
        return;
    struct news *news = malloc(sizeof *news);
    *news = (struct news){.channel = channel, .gone = channel->gone};
    list_append(&fake.news, &news->link);
}

uint64_t fake_damaged(uint64_t from, uint64_t to) {
    return fake.damage_every ? to / fake.damage_every - from / fake.damage_every : 0;
}

/* --- Answers ---------------------------------------------------------------------------------- */

void fake_answer_append(enum store_error error) {
    struct list *link = list_shift(&fake.appends);
    assert_non_null(link);
    struct store_append *append = container_of(link, struct store_append, op.link);
    struct slice name = {append->name, append->name_len};
    assert_int_equal(append->hash, hash_of(name));
    append->error = error;
    for (uint32_t i = 0; !error && i < append->count; i++) {
        if (store_append_is_stored(append, i))
            store_update(find(name), append->updates[i]);
        else
            append->updates[i]->ts = append->deliveries[i].same_as;
    }
    append->op.done(&append->op);
}

/* As a ts. */
static int64_t position_of(const struct fake_channel *channel, int64_t position) {
    int64_t after = (int64_t)channel->total;
    if (position == POSITION_NOW)
        return after;
    if (!position_is_since(position))
        return position < 0 ? after + position : position;
    while (after && channel->updates[after - 1]->at_ms >= position_since_ms(position))
        after--;
    return after;
}

void fake_do_read(void) {
    struct list *link = list_shift(&fake.asked);
    if (!link)
        return;
    struct store_read *read = container_of(link, struct store_read, op.link);
    struct slice name = {read->name, read->name_len};
    assert_int_equal(read->hash, hash_of(name));
    struct fake_channel *channel = find(name);
    int64_t total = (int64_t)channel->total;
    int64_t after = position_of(channel, read->position);
    read->total = read->end = channel->total;
    read->after = (uint64_t)(after < 0 ? 0 : after);
    read->gone = channel->gone;
    if (channel->total > fake.keep && read->gone < channel->total - fake.keep)
        read->gone = channel->total - fake.keep;
    if (after < (int64_t)read->gone)
        after = (int64_t)read->gone;
    read->updates = malloc((read->limit + 1) * sizeof(struct update *));
    for (uint32_t i = 0; after < total && i < read->limit && i < fake.page; i++, after++)
        if (!fake_damaged((uint64_t)after, (uint64_t)after + 1))
            read->updates[read->count++] = update_ref(channel->updates[after]);
        else if (read->count)
            break; /* a read has no gap */
    read->end = after < total ? (uint64_t)after : channel->total;
    list_append(&fake.done, link);
}

void fake_answer_read(enum store_error error) {
    struct list *link = list_shift(&fake.done);
    if (!link)
        return;
    struct store_read *read = container_of(link, struct store_read, op.link);
    read->error = error;
    if (error) {
        while (read->count)
            update_unref(read->updates[--read->count]);
        read->total = read->gone = read->end = 0;
    }
    read->op.done(&read->op);
}

void fake_serve_read(enum store_error error) {
    assert_false(list_empty(&fake.asked));
    assert_true(list_empty(&fake.done));
    fake_do_read();
    fake_answer_read(error);
}

void fake_serve_reads(void) {
    while (!list_empty(&fake.asked) || !list_empty(&fake.done)) {
        fake_do_read();
        fake_answer_read(STORE_OK);
    }
}

void fake_answer_purge(enum store_error error) {
    struct list *link = list_shift(&fake.purges);
    assert_non_null(link);
    struct store_purge *purge = container_of(link, struct store_purge, op.link);
    struct fake_channel *channel = find((struct slice){purge->name, purge->name_len});
    uint64_t upto = purge->upto < channel->total ? purge->upto : channel->total;
    purge->error = error;
    if (!error && channel->gone < upto)
        channel->gone = upto;
    purge->gone = error ? 0 : channel->gone;
    purge->op.done(&purge->op);
}

/* --- Consumers' cursors ----------------------------------------------------------------------- */

static struct store_cursor *find_cursor(struct fake_channel *channel, struct slice name) {
    for (uint32_t i = 0; i < channel->cursor_count; i++) {
        struct store_cursor *cursor = &channel->cursors[i];
        if (slice_equal((struct slice){cursor->name, cursor->name_len}, name))
            return cursor;
    }
    return NULL;
}

static void save_cursor(struct fake_channel *channel, const struct store_cursor *cursor) {
    struct slice name = {cursor->name, cursor->name_len};
    struct store_cursor *own = find_cursor(channel, name);
    if (!own) {
        channel->cursors =
            realloc(channel->cursors, (channel->cursor_count + 1) * sizeof *channel->cursors);
        own = &channel->cursors[channel->cursor_count++];
        *own = *cursor;
    }
    own->ts = cursor->ts > own->ts ? cursor->ts : own->ts;
    own->used_ms = cursor->used_ms > own->used_ms ? cursor->used_ms : own->used_ms;
}

static void forget_cursor(struct fake_channel *channel, struct slice name) {
    struct store_cursor *own = find_cursor(channel, name);
    if (own)
        *own = channel->cursors[--channel->cursor_count];
}

static void load_cursors(const struct fake_channel *channel, struct store_cursors *cursors) {
    cursors->list = malloc((channel->cursor_count + 1) * sizeof *cursors->list);
    for (uint32_t i = 0; i < channel->cursor_count; i++)
        cursors->list[cursors->count++] = channel->cursors[i];
}

void fake_do_cursors(enum store_error error, bool is_done) {
    struct list *link = list_shift(&fake.cursors_asked);
    if (!link)
        return;
    struct store_cursors *cursors = container_of(link, struct store_cursors, op.link);
    struct fake_channel *channel = find((struct slice){cursors->name, cursors->name_len});
    cursors->error = error;
    bool is_load = cursors->action == CURSORS_LOAD;
    if (is_load && !error)
        load_cursors(channel, cursors);
    for (uint32_t i = 0; !is_load && (!error || is_done) && i < cursors->count; i++) {
        const struct store_cursor *cursor = &cursors->list[i];
        if (cursors->action == CURSORS_FORGET)
            forget_cursor(channel, (struct slice){cursor->name, cursor->name_len});
        else if (channel->total)
            save_cursor(channel, cursor);
    }
    list_append(&fake.cursors_done, link);
}

void fake_answer_cursors(void) {
    struct list *link = list_shift(&fake.cursors_done);
    if (!link)
        return;
    struct store_cursors *cursors = container_of(link, struct store_cursors, op.link);
    cursors->op.done(&cursors->op);
}

void fake_serve_cursors(enum store_error error) {
    while (!list_empty(&fake.cursors_asked) || !list_empty(&fake.cursors_done)) {
        fake_do_cursors(error, false);
        fake_answer_cursors();
    }
}

struct store_cursor *fake_cursor(const char *channel, const char *name) {
    return find_cursor(fake_channel(channel), slice_of(name));
}

void fake_save_cursor(const char *channel, const char *name, uint64_t ts) {
    struct store_cursor cursor = {
        .ts = ts, .used_ms = fake.now_ms, .name_len = (uint8_t)strlen(name)};
    memcpy(cursor.name, name, cursor.name_len);
    save_cursor(fake_channel(channel), &cursor);
}

void fake_forget_cursor(const char *channel, const char *name) {
    forget_cursor(fake_channel(channel), slice_of(name));
}

/* --- Telling ---------------------------------------------------------------------------------- */

void fake_turn_on(void) {
    for (int i = 0; i < fake.channel_count; i++) {
        struct fake_channel *channel = &fake.channels[i];
        if (!channel->watch || channel->is_on)
            continue;
        channel->is_on = true;
        fake.events->watched(channel->watch);
    }
}

void fake_turn_off(void) {
    while (!list_empty(&fake.news))
        fake_lose_one();
    for (int i = 0; i < fake.channel_count; i++) {
        struct fake_channel *channel = &fake.channels[i];
        if (!channel->watch || !channel->is_on)
            continue;
        channel->is_on = false;
        fake.events->lost(channel->watch);
    }
}

static void end_news(bool arrive) {
    struct list *link = list_shift(&fake.news);
    if (!link)
        return;
    struct news *news = container_of(link, struct news, link);
    struct update *update = news->update;
    struct store_watch *watch = arrive && news->channel->is_on ? news->channel->watch : NULL;
    if (watch && !update)
        fake.events->purged(watch, news->gone);
    else if (watch && fake_damaged(update->ts - 1, update->ts))
        fake.events->watched(watch);
    else if (watch)
        fake.events->news(watch, update);
    if (update)
        update_unref(update);
    free(news);
}

void fake_tell_one(void) {
    end_news(true);
}

void fake_lose_one(void) {
    end_news(false);
}

bool fake_is_still(void) {
    bool is_still = list_empty(&fake.asked) && list_empty(&fake.done) && list_empty(&fake.news) &&
                    list_empty(&fake.cursors_asked) && list_empty(&fake.cursors_done);
    for (int i = 0; i < fake.channel_count; i++)
        is_still &= !fake.channels[i].watch || fake.channels[i].is_on;
    return is_still;
}
