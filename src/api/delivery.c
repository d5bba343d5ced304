#include "api/delivery.h"
#include "base/json_find.h"
#include "base/text.h"

#include <sodium.h>

/* --- Ids -------------------------------------------------------------------------------------- */

/* Takes the texts, one behind the other, as the id. All nodes over one Redis must come to the same:
 * so the hash has no key. */
static void set_id(struct delivery *delivery, const struct slice *texts, size_t count) {
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, sizeof delivery->id);
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t text_len = texts[i].len;
        crypto_generichash_update(&state, (const unsigned char *)&text_len, sizeof text_len);
        crypto_generichash_update(&state, (const unsigned char *)texts[i].data, texts[i].len);
        len += texts[i].len;
    }
    delivery->has_id = len && len <= DELIVERY_TEXT_MAX_BYTES;
    if (delivery->has_id)
        crypto_generichash_final(&state, delivery->id, sizeof delivery->id);
}

/* --- In the headers --------------------------------------------------------------------------- */

enum id_header { WEBHOOK, SVIX, GITHUB, GITLAB, SHOPIFY, IDEMPOTENCY, CE_ID, CE_SOURCE, HEADERS };

/* Which of ours the name is; HEADERS: none. */
static enum id_header header_of(struct slice name) {
    static const struct slice names[] = {
        [WEBHOOK] = SLICE("webhook-id"),
        [SVIX] = SLICE("svix-id"),
        [GITHUB] = SLICE("x-github-delivery"),
        [GITLAB] = SLICE("x-gitlab-event-uuid"),
        [SHOPIFY] = SLICE("x-shopify-webhook-id"),
        [IDEMPOTENCY] = SLICE("idempotency-key"),
        [CE_ID] = SLICE("ce-id"),
        [CE_SOURCE] = SLICE("ce-source"),
    };
    /* Most headers are none: their lengths say so. */
    static const uint32_t lengths =
        1U << 5 | 1U << 7 | 1U << 9 | 1U << 10 | 1U << 15 | 1U << 17 | 1U << 19 | 1U << 20;
    if (name.len > 20 || !(lengths >> name.len & 1))
        return HEADERS;
    enum id_header header = WEBHOOK;
    while (header < HEADERS && !slice_equal_nocase(name, names[header]))
        header++;
    return header;
}

static void read_headers(struct delivery_source *source, const struct request *request) {
    struct slice values[HEADERS];
    uint32_t found = 0;
    for (uint32_t i = 0; i < request->header_count; i++) {
        enum id_header header = header_of(request_slice(request, request->headers[i].name));
        if (header == HEADERS)
            continue;
        values[header] = request_slice(request, request->headers[i].value);
        found |= 1U << header;
    }
    for (enum id_header header = WEBHOOK; header < CE_ID; header++) {
        if (found >> header & 1 && values[header].len) {
            set_id(&source->delivery, &values[header], 1);
            return;
        }
    }
    if (found >> CE_ID & 1 && found >> CE_SOURCE & 1 && values[CE_ID].len)
        set_id(&source->delivery, (struct slice[]){values[CE_SOURCE], values[CE_ID]}, 2);
}

/* --- Where the address says ------------------------------------------------------------------- */

static bool take_start(struct slice *text, struct slice start) {
    if (!slice_starts_with(*text, start))
        return false;
    *text = slice_after(*text, start.len);
    return true;
}

static struct slice find_header(const struct request *request, struct slice name) {
    for (uint32_t i = 0; i < request->header_count; i++)
        if (slice_equal_nocase(request_slice(request, request->headers[i].name), name))
            return request_slice(request, request->headers[i].value);
    return SLICE("");
}

/* The decoded value of the query's first parameter of this name goes to `value`. */
static bool find_parameter(struct slice query, struct slice name, struct buf *value) {
    for (struct text_pair pair; text_next_pair(&query, &pair);) {
        buf_reset(value, SIZE_MAX);
        text_decode_form(value, pair.name);
        if (!slice_equal((struct slice){value->data, value->len}, name))
            continue;
        buf_reset(value, SIZE_MAX);
        text_decode_form(value, pair.value);
        return true;
    }
    return false;
}

static void read_key(struct delivery_source *source, const struct request *request,
                     struct slice query, struct slice key) {
    struct buf value = {0};
    struct slice text = SLICE("");
    if (take_start(&key, SLICE("header."))) {
        text = find_header(request, key);
    } else if (take_start(&key, SLICE("query."))) {
        if (find_parameter(query, key, &value))
            text = (struct slice){value.data, value.len};
    } else if (take_start(&key, SLICE("body."))) {
        buf_append(&source->path, key.data, key.len);
    }
    if (text.len)
        set_id(&source->delivery, &text, 1);
    source->failed |= value.failed || source->path.failed;
    buf_deinit(&value);
}

void delivery_source_init(struct delivery_source *source, const struct request *request,
                          struct slice query) {
    struct buf key = {0};
    bool has_key = false;
    if (query.len && memchr(query.data, '.', query.len)) {
        source->delivery.is_once = text_find_pair(query, SLICE(".once"), &key);
        has_key = text_find_pair(query, SLICE(".key"), &key);
    }
    if (has_key)
        read_key(source, request, query, (struct slice){key.data, key.len});
    else
        read_headers(source, request);
    source->failed |= key.failed;
    source->is_any = source->delivery.has_id || source->path.len;
    buf_deinit(&key);
}

void delivery_source_deinit(struct delivery_source *source) {
    buf_deinit(&source->path);
}

/* --- An update -------------------------------------------------------------------------------- */

struct delivery delivery_next(struct delivery_source *source, struct slice body) {
    struct delivery delivery = source->delivery;
    uint64_t number = source->count++;
    if (source->path.len) {
        struct buf text = {0};
        if (json_find(body, (struct slice){source->path.data, source->path.len}, &text))
            set_id(&delivery, &(struct slice){text.data, text.len}, 1);
        source->failed |= text.failed;
        buf_deinit(&text);
    } else if (delivery.has_id && number) { /* a further line of a batch */
        struct slice texts[] = {{(const char *)source->delivery.id, sizeof delivery.id},
                                {(const char *)&number, sizeof number}};
        set_id(&delivery, texts, 2);
    }
    return delivery;
}
