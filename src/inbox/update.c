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
    if (slice_cut(&rest, ' ', &origin.from) && rest.data)
        origin.path = rest;
    if (slice_equal(origin.from, SLICE("-")))
        origin.from = SLICE("");
    return origin;
}

void update_unref(struct update *update) {
    if (--update->refs == 0)
        free(update);
}
