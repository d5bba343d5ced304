#include "inbox/update.h"

#include <stdlib.h>
#include <string.h>

struct update *update_new(const struct update_parts *parts) {
    struct slice raw = parts->has_raw ? parts->raw : (struct slice){"", 0};
    size_t size =
        parts->body.len + raw.len + parts->query.len + parts->headers.len + parts->method.len;
    struct update *update = malloc(sizeof *update + size);
    if (!update)
        return NULL;
    *update = (struct update){
        .refs = 1,
        .body_len = (uint32_t)parts->body.len,
        .raw_len = (uint32_t)raw.len,
        .query_len = (uint32_t)parts->query.len,
        .headers_len = (uint32_t)parts->headers.len,
        .method_len = (uint16_t)parts->method.len,
        .has_raw = parts->has_raw,
    };
    char *at = update->data;
    const struct slice *order[] = {&parts->body, &raw, &parts->query, &parts->headers,
                                   &parts->method};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (order[i]->len)
            at = (char *)memcpy(at, order[i]->data, order[i]->len) + order[i]->len;
    return update;
}

struct origin origin_read(struct slice rest) {
    struct origin origin = {.from = SLICE(""), .path = SLICE("")};
    slice_cut(&rest, ' ', &origin.method);
    for (struct slice word; slice_cut(&rest, ' ', &word);) {
        if (slice_starts_with(word, SLICE("/")))
            origin.path = word;
        else if (slice_starts_with(word, SLICE("=")))
            slice_number(slice_after(word, 1), UINT64_MAX, &origin.same_as);
        else if (!slice_equal(word, SLICE("-")))
            origin.from = word;
    }
    return origin;
}

void update_set_same_as(struct update *update, uint64_t ts) {
    char *end = (char *)update_method(update).data + update->method_len;
    for (int i = 1; i <= 20; i++, ts /= 10)
        end[-i] = (char)('0' + ts % 10);
}

void update_unref(struct update *update) {
    if (--update->refs == 0)
        free(update);
}
